//! IPv4 packets cut into fragments, for a port whose MTU they exceed (RFC 791 3.2, RFC 1812 5.2.6).
//!
//! In: a frame with a whole IPv4 packet, or with a fragment of one, and an MTU.
//! Out: [`Fragments`], which writes one fragment after the other wherever the caller wants it.
//! Never: allocates, changes the packet, or cuts where the sender forbade it.
//!
//! The fragments are the kernel's (`ip_do_fragment`, net/ipv4/ip_output.c): as long as the MTU
//! allows, the shortest last. An option that is not to be copied is in the first alone; in the
//! others no-operations stand in its place (`ip_options_fragment`), so that all headers are of one
//! length.
//!
//! A router does not reassemble, and does not judge: fragments that overlap, or that are too small
//! to hold a whole transport header (RFC 1858), are for hosts and packet filters to refuse. This
//! switch decides nothing by ports, so such fragments hide nothing from it.

use crate::frame::checksum::checksum;
use crate::frame::ethernet::HEADER_LEN;
use crate::frame::ipv4::{HEADER_LEN_MIN, Ipv4View};
use crate::frame::options::{END, NO_OPERATION};
use crate::verdict::DropReason;

/// Fragments of one packet: 65,535 bytes over the smallest MTU that every host takes whole, 576
/// (RFC 791 3.2), 552 bytes of payload each, are 119. A smaller MTU is refused for packets that
/// would make more.
pub const PIECES_MAX: usize = 128;

/// The option is copied into each fragment (RFC 791 3.1).
const COPIED: u8 = 0x80;

const FRAGMENT_AT: usize = 6;
const MORE_FRAGMENTS: u16 = 0x2000;

/// Where the last byte of a packet may lie: fragments count in units of 8 bytes, with 13 bits.
const OFFSET_MAX: usize = 8 * 0x2000;

/// How a packet is cut: everything about it that its fragments share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragments {
    header_len: usize,
    payload_len: usize,
    /// Payload of every fragment but the last.
    piece_payload: usize,
    pieces: usize,
    /// Where the packet's own payload lies in what it is a fragment of, in bytes.
    offset: u16,
    more_fragments: bool,
}

impl Fragments {
    /// Plans the fragments of the packet in `frame` for a port that takes `mtu` bytes of IP.
    ///
    /// # Errors
    /// `MalformedIpv4`: it is none, or its end lies past any packet's. `TooBig`: it may not be cut,
    /// or an MTU so small would make more than [`PIECES_MAX`] of it.
    pub fn plan(frame: &[u8], mtu: u16) -> Result<Fragments, DropReason> {
        let packet = frame.get(HEADER_LEN..).ok_or(DropReason::MalformedIpv4)?;
        let ip = Ipv4View::parse(packet)?;
        let header_len = usize::from(ip.header_len);
        let payload_len = usize::from(ip.total_len) - header_len;
        if usize::from(ip.fragment_offset) + payload_len > OFFSET_MAX {
            return Err(DropReason::MalformedIpv4);
        }
        let room = usize::from(mtu).saturating_sub(header_len);
        let piece_payload = room & !7;
        let pieces = match payload_len.saturating_sub(room) {
            0 => 1,
            _ if ip.dont_fragment || piece_payload == 0 => return Err(DropReason::TooBig),
            rest => 1 + rest.div_ceil(piece_payload),
        };
        if pieces > PIECES_MAX {
            return Err(DropReason::TooBig);
        }
        Ok(Fragments {
            header_len,
            payload_len,
            piece_payload,
            pieces,
            offset: ip.fragment_offset,
            more_fragments: ip.more_fragments,
        })
    }

    /// How many there are; one where the packet is short enough as it is.
    #[inline]
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.pieces
    }

    /// Writes fragment `index` of `frame` to the start of `into`, behind the same Ethernet header,
    /// and returns the frame's length.
    ///
    /// # Panics
    /// If `frame` is shorter than the one that was planned for, `index` is none of its fragments,
    /// or `into` has no room: mistakes of the caller's, never of a sender's.
    pub fn write(&self, frame: &[u8], index: usize, into: &mut [u8]) -> usize {
        assert!(index < self.pieces, "there is no fragment {index}");
        let last = index + 1 == self.pieces;
        let skipped = index * self.piece_payload;
        let payload = if last {
            self.payload_len - skipped
        } else {
            self.piece_payload
        };
        let payload_at = HEADER_LEN + self.header_len;
        let len = payload_at + payload;
        let into = &mut into[..len];
        into[..payload_at].copy_from_slice(&frame[..payload_at]);
        let from = payload_at + skipped;
        into[payload_at..].copy_from_slice(&frame[from..from + payload]);
        let header = &mut into[HEADER_LEN..payload_at];
        if index > 0 {
            blank_uncopied(&mut header[HEADER_LEN_MIN..]);
        }
        let total_len = (self.header_len + payload) as u16;
        header[2..4].copy_from_slice(&total_len.to_be_bytes());
        // The whole ends below OFFSET_MAX, so the place of a part fits its 13 bits.
        let place = (usize::from(self.offset) + skipped) >> 3;
        let more = if last && !self.more_fragments {
            0
        } else {
            MORE_FRAGMENTS
        };
        let word = place as u16 | more;
        header[FRAGMENT_AT..FRAGMENT_AT + 2].copy_from_slice(&word.to_be_bytes());
        header[10..12].fill(0);
        let sum = checksum(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        len
    }
}

/// Puts no-operations in the place of options that only the first fragment has. Options that are
/// not sound stay as they are; `decide` has refused such packets.
fn blank_uncopied(mut options: &mut [u8]) {
    while let Some(&kind) = options.first() {
        let len = match (kind, options.get(1)) {
            (END, _) => return,
            (NO_OPERATION, _) => 1,
            (_, Some(&len)) if (2..=options.len()).contains(&usize::from(len)) => usize::from(len),
            _ => return,
        };
        let (option, rest) = options.split_at_mut(len);
        if kind & COPIED == 0 {
            option.fill(NO_OPERATION);
        }
        options = rest;
    }
}

#[cfg(test)]
mod tests;
