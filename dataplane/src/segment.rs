//! What a sender left undone, done in userspace: checksums completed, super-frames cut.
//!
//! In: a frame's bytes and its [`Offload`]. Out: the same frame with its checksum, or a [`Cut`]
//! that writes one piece after the other wherever the caller wants it.
//! Never: allocates, changes the super-frame, or trusts it: a header that lies is `BadOffload`.
//!
//! Both follow the kernel to the byte (`skb_checksum_help`, `tcp_gso_segment`, `__udp_gso_segment`,
//! `inet_gso_segment`), so that a port with offloads and one without put the same frames on a
//! wire. `tests/tests/segmentation.rs` compares the two.
//!
//! The checksum field of a super-frame holds the sum of the pseudo-header, not complemented. The
//! length is part of that sum, so a piece's sum starts from it, less the old length, plus the new.

use crate::frame::checksum::{checksum, sum};
use crate::frame::ethernet;
use crate::frame::offload::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, Offload};
use crate::frame::transport::{TCP, UDP};
use crate::verdict::DropReason;

/// Pieces of one UDP super-frame: `UDP_MAX_SEGMENTS` of include/linux/udp.h.
pub const UDP_PIECES_MAX: usize = 128;

/// Pieces of one TCP super-frame: 65,535 bytes in segments of 48 (`TCP_MIN_SND_MSS`). Without a
/// limit one frame of a hostile pod would be 65,495 frames of the switch's work.
pub const TCP_PIECES_MAX: usize = 65_535 / 48 + 1;

/// EtherTypes of 802.1Q and 802.1ad tags.
const TAGS: [u16; 2] = [0x8100, 0x88a8];

const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
const TCP_CHECKSUM_AT: usize = 16;
const UDP_CHECKSUM_AT: usize = 6;
/// Where SCTP has its checksum, which is a CRC32c: the header cannot say so.
const SCTP_CHECKSUM_AT: u16 = 8;

/// Byte of the TCP header with the flags, and the three of them that a cut must move.
const TCP_FLAGS_AT: usize = 13;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Where a frame's checksum is undone: the place of the field.
#[must_use]
pub fn checksum_at(offload: Offload) -> usize {
    usize::from(offload.csum_start) + usize::from(offload.csum_offset)
}

/// Completes the checksum in place, where it is undone. A sum of zero is written as `0xffff`, as
/// UDP demands (RFC 768) and as the kernel does for every protocol.
///
/// # Errors
/// `BadOffload`: the field or the start lies outside the frame, or the sum is no Internet checksum.
pub fn complete(bytes: &mut [u8], offload: Offload) -> Result<(), DropReason> {
    if !offload.needs_checksum() {
        return Ok(());
    }
    let (start, at) = (usize::from(offload.csum_start), checksum_at(offload));
    if at + 2 > bytes.len() || offload.csum_offset == SCTP_CHECKSUM_AT {
        return Err(DropReason::BadOffload);
    }
    let sum = mangled(checksum(&bytes[start..]));
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// Zero means "no checksum" to UDP; its other representation does not.
const fn mangled(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Ipv4,
    Ipv6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
}

/// How a super-frame is to be cut: everything about it that its pieces share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    network: Network,
    transport: Transport,
    network_at: usize,
    transport_at: usize,
    payload_at: usize,
    len: usize,
    /// Payload of every piece but the last.
    piece_payload: usize,
    pieces: usize,
    /// Sum of the pseudo-header without its length.
    pseudo: u32,
}

impl Cut {
    /// Reads a super-frame's headers.
    ///
    /// # Errors
    /// `BadOffload`: the headers are not those that `offload` names, not whole, or do not agree
    /// with each other on lengths and places; or there would be more pieces than any honest sender
    /// asks for.
    pub fn plan(bytes: &[u8], offload: Offload) -> Result<Cut, DropReason> {
        Cut::read(bytes, offload).ok_or(DropReason::BadOffload)
    }

    fn read(bytes: &[u8], offload: Offload) -> Option<Cut> {
        let headers = Headers::read(bytes)?;
        let Headers {
            network,
            network_at,
            transport_at,
            protocol,
        } = headers;
        let undone = offload.needs_checksum();
        let (transport, checksum_at, pieces_max) =
            match (offload.gso_type & !GSO_ECN, network, protocol) {
                (GSO_TCPV4, Network::Ipv4, TCP) | (GSO_TCPV6, Network::Ipv6, TCP) => {
                    (Transport::Tcp, TCP_CHECKSUM_AT, TCP_PIECES_MAX)
                }
                // The kernel refuses UDP segmentation without a partial checksum.
                (GSO_UDP_L4, _, UDP) if undone => (Transport::Udp, UDP_CHECKSUM_AT, UDP_PIECES_MAX),
                _ => return None,
            };
        let header = bytes.get(transport_at..)?;
        let header_len = match transport {
            Transport::Tcp => usize::from(*header.get(12)? >> 4) * 4,
            Transport::Udp if word(header, 4)? as usize != header.len() => return None,
            Transport::Udp => UDP_LEN,
        };
        let shortest = checksum_at + if transport == Transport::Tcp { 4 } else { 2 };
        if header_len < shortest || header_len > header.len() || offload.gso_size == 0 {
            return None;
        }
        let place = (
            usize::from(offload.csum_start),
            usize::from(offload.csum_offset),
        );
        let pseudo = if undone && place == (transport_at, checksum_at) {
            word(header, checksum_at)? + u32::from(!(header.len() as u16))
        } else if undone {
            return None;
        } else {
            headers.pseudo(bytes)?
        };
        let (payload_at, piece_payload) = (transport_at + header_len, offload.gso_size.into());
        let pieces = (bytes.len() - payload_at).div_ceil(piece_payload).max(1);
        (pieces <= pieces_max).then_some(Cut {
            network,
            transport,
            network_at,
            transport_at,
            payload_at,
            len: bytes.len(),
            piece_payload,
            pieces,
            pseudo,
        })
    }

    /// How many pieces there are. One means that the frame is none too long as it is, and only its
    /// checksum may be undone.
    #[inline]
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.pieces
    }

    /// Bytes of the longest piece.
    #[inline]
    #[must_use]
    pub fn piece_len_max(&self) -> usize {
        self.len.min(self.payload_at + self.piece_payload)
    }

    /// Writes piece `index` of `frame` to the start of `into`, ready for a wire, and returns its
    /// length.
    ///
    /// # Panics
    /// If `frame` is shorter than the one that was planned for, `index` is none of its pieces, or
    /// `into` has no room for the piece: mistakes of the caller's, never of a sender's.
    pub fn write(&self, frame: &[u8], index: usize, into: &mut [u8]) -> usize {
        assert!(index < self.pieces, "there is no piece {index}");
        let skipped = index * self.piece_payload;
        let start = self.payload_at + skipped;
        let end = self.len.min(start + self.piece_payload);
        let len = self.payload_at + end - start;
        let into = &mut into[..len];
        into[..self.payload_at].copy_from_slice(&frame[..self.payload_at]);
        into[self.payload_at..].copy_from_slice(&frame[start..end]);
        self.number(&mut into[self.network_at..], index);
        let segment = &mut into[self.transport_at..];
        match self.transport {
            Transport::Tcp => self.finish_tcp(segment, index, skipped),
            Transport::Udp => self.finish_udp(segment),
        }
        len
    }

    /// Length, and for IPv4 also identification (one more with each piece) and checksum.
    fn number(&self, packet: &mut [u8], index: usize) {
        match self.network {
            Network::Ipv4 => {
                let id = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(index as u16);
                let len = packet.len() as u16;
                let header = &mut packet[..self.transport_at - self.network_at];
                header[2..4].copy_from_slice(&len.to_be_bytes());
                header[4..6].copy_from_slice(&id.to_be_bytes());
                header[10..12].fill(0);
                let sum = checksum(header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            Network::Ipv6 => {
                let len = (packet.len() - IPV6_LEN) as u16;
                packet[4..6].copy_from_slice(&len.to_be_bytes());
            }
        }
    }

    /// FIN and PSH belong to the last byte and CWR to the first segment (RFC 3168 6.1.2).
    fn finish_tcp(&self, segment: &mut [u8], index: usize, skipped: usize) {
        let sequence = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]])
            .wrapping_add(skipped as u32);
        segment[4..8].copy_from_slice(&sequence.to_be_bytes());
        if index + 1 < self.pieces {
            segment[TCP_FLAGS_AT] &= !(FIN | PSH);
        }
        if index > 0 {
            segment[TCP_FLAGS_AT] &= !CWR;
        }
        let sum = self.transport_checksum(segment, TCP_CHECKSUM_AT);
        segment[TCP_CHECKSUM_AT..TCP_CHECKSUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
    }

    fn finish_udp(&self, segment: &mut [u8]) {
        let len = segment.len() as u16;
        segment[4..6].copy_from_slice(&len.to_be_bytes());
        let sum = mangled(self.transport_checksum(segment, UDP_CHECKSUM_AT));
        segment[UDP_CHECKSUM_AT..UDP_CHECKSUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
    }

    fn transport_checksum(&self, segment: &mut [u8], at: usize) -> u16 {
        segment[at..at + 2].fill(0);
        !sum(segment, self.pseudo + segment.len() as u32)
    }
}

/// Where a packet's headers are.
struct Headers {
    network: Network,
    network_at: usize,
    transport_at: usize,
    protocol: u8,
}

impl Headers {
    /// Nothing may follow the packet, and it may be no fragment.
    fn read(bytes: &[u8]) -> Option<Headers> {
        let mut network_at = ethernet::HEADER_LEN;
        while TAGS.contains(&(word(bytes, network_at - 2)? as u16)) {
            network_at += 4;
        }
        let packet = bytes.get(network_at..)?;
        match word(bytes, network_at - 2)? as u16 {
            ethernet::IPV4 => Headers::ipv4(packet, network_at),
            ethernet::IPV6 => Headers::ipv6(packet, network_at),
            _ => None,
        }
    }

    fn ipv4(packet: &[u8], network_at: usize) -> Option<Headers> {
        let header_len = usize::from(packet.first()? & 0xf) * 4;
        let whole = packet[0] >> 4 == 4
            && (20..=packet.len()).contains(&header_len)
            && word(packet, 2)? as usize == packet.len()
            && word(packet, 6)? & 0x3fff == 0;
        whole.then_some(Headers {
            network: Network::Ipv4,
            network_at,
            transport_at: network_at + header_len,
            protocol: *packet.get(9)?,
        })
    }

    /// Walks the extension headers that the kernel walks: hop-by-hop, routing, destination.
    fn ipv6(packet: &[u8], network_at: usize) -> Option<Headers> {
        let payload_len = packet.len().checked_sub(IPV6_LEN)?;
        if packet[0] >> 4 != 6 || word(packet, 4)? as usize != payload_len {
            return None;
        }
        let (mut at, mut protocol) = (IPV6_LEN, packet[6]);
        while matches!(protocol, 0 | 43 | 60) {
            protocol = *packet.get(at)?;
            at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
        }
        Some(Headers {
            network: Network::Ipv6,
            network_at,
            transport_at: network_at + at,
            protocol,
        })
    }

    /// The pseudo-header's sum without its length, for a sender that completed the checksum. An
    /// IPv6 routing header would hide the last target, so nothing may stand between.
    fn pseudo(&self, bytes: &[u8]) -> Option<u32> {
        let (from, len) = match self.network {
            Network::Ipv4 => (12, 8),
            Network::Ipv6 if self.transport_at != self.network_at + IPV6_LEN => return None,
            Network::Ipv6 => (8, 32),
        };
        let at = self.network_at + from;
        Some(sum(bytes.get(at..at + len)?, self.protocol.into()).into())
    }
}

/// Two bytes in network order.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let pair = bytes.get(at..at + 2)?;
    Some(u32::from(u16::from_be_bytes([pair[0], pair[1]])))
}

#[cfg(test)]
mod tests;
