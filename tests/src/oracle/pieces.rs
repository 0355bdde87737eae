//! Packets that are routed in pieces: which bytes of them have passed.
//!
//! In: fragments, and the time. Out: a reason to refuse one, or nothing.
//! Never: a limit: the trial sees to it that no more packets are in pieces than the real switch
//! watches.
//!
//! Sources: RFC 1858 and RFC 3128 for those too small, RFC 5722 for those that overlap, RFC 8200 4.5
//! for duplicates.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dataplane::addr::PortId;
use dataplane::frame::{FrameView, Network};
use dataplane::verdict::DropReason;

const TCP: u8 = 6;

/// How long a host waits for the rest, in milliseconds.
pub(super) const V4_MS: u64 = 30_000;
pub(super) const V6_MS: u64 = 60_000;

/// Which packet: where it came in, from whom, to whom, its number, and its protocol if IPv4.
pub(super) type Name = (PortId, IpAddr, IpAddr, u32, u8);

/// One piece of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) name: Name,
    protocol: u8,
    /// Where it begins, and how long it is, in bytes.
    at: usize,
    len: usize,
    last: bool,
}

impl Piece {
    /// The piece that a frame is, if it is one.
    pub(super) fn of(view: &FrameView<'_>, ingress: PortId) -> Option<Piece> {
        let packet = view.payload();
        let number = |at: usize, len: usize| {
            let bytes = &packet[at..at + len];
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
        };
        match view.network() {
            Network::Ipv4(ip) if ip.more_fragments || ip.fragment_offset > 0 => {
                let (source, target) = (ip.source.into(), ip.target.into());
                Some(Piece {
                    name: (ingress, source, target, number(4, 2), ip.protocol),
                    protocol: ip.protocol,
                    at: ip.fragment_offset.into(),
                    len: usize::from(ip.total_len) - usize::from(ip.header_len),
                    last: !ip.more_fragments,
                })
            }
            Network::Ipv6(ip) if ip.is_fragment => {
                let header = usize::from(ip.fragment_at);
                let (source, target) = (ip.source.into(), ip.target.into());
                Some(Piece {
                    name: (ingress, source, target, number(header + 4, 4), 0),
                    protocol: packet[header],
                    at: ip.fragment_offset.into(),
                    len: 40 + usize::from(ip.payload_len) - header - 8,
                    last: packet[header + 3] & 1 == 0,
                })
            }
            _ => None,
        }
    }

    /// It splits a TCP header, so that a filter does not see the flags.
    fn is_tiny(&self) -> bool {
        self.protocol == TCP && (self.at == 8 || self.at == 0 && self.len < 16)
    }

    /// Its blocks of eight bytes. What is over counts in the last piece only.
    fn blocks(&self) -> BTreeSet<usize> {
        let first = self.at / 8;
        let whole = self.len / 8 + usize::from(self.last && !self.len.is_multiple_of(8));
        (first..first + whole)
            .filter(|block| *block < 8192)
            .collect()
    }
}

/// What passed of one packet.
#[derive(Clone, Debug, Default)]
struct Passed {
    until: u64,
    blocks: BTreeSet<usize>,
    /// How many blocks the packet has.
    len: Option<usize>,
    spoilt: bool,
}

/// Of all packets.
#[derive(Clone, Debug, Default)]
pub(super) struct Pieces(BTreeMap<Name, Passed>);

impl Pieces {
    /// A piece passes, if it may.
    pub(super) fn pass(&mut self, piece: &Piece, now: u64) -> Result<(), DropReason> {
        if piece.is_tiny() {
            return Err(DropReason::TinyFragment);
        }
        self.0.retain(|_, passed| now < passed.until);
        let patience = if piece.name.1.is_ipv4() { V4_MS } else { V6_MS };
        let packet = self.0.entry(piece.name).or_insert_with(|| Passed {
            until: now + patience,
            ..Passed::default()
        });
        let blocks = piece.blocks();
        let end = blocks.last().map_or(piece.at / 8, |last| last + 1);
        let again = blocks.intersection(&packet.blocks).count();
        let in_part = again > 0 && again < blocks.len();
        let beyond = packet
            .len
            .is_some_and(|len| end > len || piece.last && end != len);
        packet.spoilt |= in_part || beyond;
        if packet.spoilt || again > 0 {
            return Err(DropReason::OverlappingFragment);
        }
        packet.blocks.extend(blocks);
        if piece.last {
            packet.len = Some(end);
        }
        if packet.len == Some(packet.blocks.len()) {
            self.0.remove(&piece.name);
        }
        Ok(())
    }
}
