//! Fragments that were seen, so that none can be laid over another.
//!
//! In: fragments that a router forwards, and the time. Out: a reason to refuse one.
//! Never: reassembles, holds a frame, or allocates after `new`.
//!
//! A filter behind this switch, or the host itself, may judge a packet by a fragment whose place
//! another takes afterwards: RFC 1858 and RFC 3128 (tiny first fragments, and those that begin
//! within a TCP header), RFC 5722 (overlaps). So for each packet that passes in pieces a bit is kept
//! for each eight bytes. A fragment of which any byte was seen before dies. If only a part of it was,
//! that is no accident, and the rest of the packet dies as well; if all of it was, it may be the
//! network's own duplicate (RFC 8200 4.5), and the rest goes on. A packet that is whole is forgotten.
//!
//! The table is small. Where the eight places of a packet's set are taken by others, the packet
//! passes unwatched: hosts reassemble, and refuse overlaps themselves; to refuse instead would let
//! one pod stop the fragments of all.

use std::net::IpAddr;

use crate::addr::PortId;
use crate::clock::Tick;
use crate::frame::flow::mixed;
use crate::frame::transport::TCP;
use crate::frame::{FrameView, Kind, Network, ipv6};
use crate::verdict::DropReason;

/// Packets watched at once: 128 KB a worker. One is watched for as long as it takes to pass, unless
/// pieces of it are missing.
pub(crate) const WATCHED_MAX: usize = SETS * WAYS;

const SETS: usize = 16;
const WAYS: usize = 8;

/// As long as a host waits for the rest (`ipfrag_time`, `IPV6_FRAG_TIMEOUT` of the kernel).
const V4_MS: u64 = 30_000;
const V6_MS: u64 = 60_000;

/// Eight-byte blocks of the longest packet: an offset has 13 bits.
const BLOCKS: usize = 8192;

/// Bytes that the first fragment of a TCP segment has to have, so that its flags are in it
/// (RFC 1858 section 4).
const TCP_MIN: usize = 16;

/// Which packet a fragment is of. The same packet may pass once more by another port, from the
/// host, and then its pieces are new again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    ingress: PortId,
    source: IpAddr,
    target: IpAddr,
    id: u32,
    /// IPv4's is part of the packet's name; of IPv6 it is 0.
    protocol: u8,
}

impl Key {
    fn set(&self) -> usize {
        let word = |address: IpAddr| match address {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                (bits >> 64) as u64 ^ bits as u64
            }
        };
        let ends = word(self.source).rotate_left(32) ^ word(self.target);
        mixed(ends, u64::from(self.id)) as usize % SETS
    }
}

/// One fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    key: Key,
    /// The first of its blocks, and the one behind the last.
    blocks: (usize, usize),
    /// No fragment has a higher place.
    last: bool,
    /// So small that it splits a header.
    tiny: bool,
}

impl Piece {
    /// The fragment that a frame carries, if it does. Of any other IPv4 or IPv6 packet this reads
    /// two bytes.
    #[inline(always)]
    pub(crate) fn of(view: &FrameView<'_>, ingress: PortId) -> Option<Piece> {
        let packet = view.payload();
        let maybe = match view.kind {
            Kind::Ipv4 => packet
                .get(6..8)
                .is_some_and(|two| two[0] & 0x3f | two[1] != 0),
            Kind::Ipv6 => packet.get(6).is_some_and(|next| ipv6::is_extension(*next)),
            Kind::Arp | Kind::Tagged | Kind::Other => false,
        };
        if maybe {
            Piece::read(view, ingress)
        } else {
            None
        }
    }

    #[cold]
    fn read(view: &FrameView<'_>, ingress: PortId) -> Option<Piece> {
        let packet = view.payload();
        let word = |at: usize| {
            packet
                .get(at..at + 2)
                .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]))
        };
        match view.network() {
            Network::Ipv4(ip) => {
                let len = usize::from(ip.total_len) - usize::from(ip.header_len);
                let key = Key {
                    ingress,
                    source: ip.source.into(),
                    target: ip.target.into(),
                    id: word(4)?,
                    protocol: ip.protocol,
                };
                let place = (usize::from(ip.fragment_offset), len);
                Some(Piece::new(key, ip.protocol, place, !ip.more_fragments))
            }
            Network::Ipv6(ip) if ip.is_fragment => {
                let at = usize::from(ip.fragment_at);
                let behind = at + ipv6::FRAGMENT_LEN;
                let len = ipv6::HEADER_LEN + usize::from(ip.payload_len) - behind;
                let key = Key {
                    ingress,
                    source: ip.source.into(),
                    target: ip.target.into(),
                    id: word(at + 4)? << 16 | word(at + 6)?,
                    protocol: 0,
                };
                let place = (usize::from(ip.fragment_offset), len);
                let last = packet.get(at + 3)? & 1 == 0;
                Some(Piece::new(key, *packet.get(at)?, place, last))
            }
            _ => None,
        }
    }

    fn new(key: Key, protocol: u8, (offset, len): (usize, usize), last: bool) -> Piece {
        let first = offset / 8;
        // Of a fragment that is not the last a host takes whole blocks only (`ip_frag_queue`).
        let count = if last { len.div_ceil(8) } else { len / 8 };
        let splits = offset == 8 || (offset == 0 && len < TCP_MIN);
        Piece {
            key,
            blocks: (first, (first + count).min(BLOCKS)),
            last,
            tiny: protocol == TCP && splits,
        }
    }
}

/// A packet of which pieces are missing.
#[derive(Clone, Debug)]
struct Watched {
    key: Option<Key>,
    until: Tick,
    seen: [u64; BLOCKS / 64],
    count: usize,
    /// How many blocks it has, once the last is known.
    len: Option<usize>,
    /// Its fragments overlap: none may pass any more.
    spoilt: bool,
}

impl Watched {
    const NOTHING: Watched = Watched {
        key: None,
        until: Tick(0),
        seen: [0; BLOCKS / 64],
        count: 0,
        len: None,
        spoilt: false,
    };

    /// Notes `piece`, unless it lies over another.
    fn add(&mut self, piece: &Piece) -> Result<(), DropReason> {
        let (first, end) = piece.blocks;
        let mine = |block: &usize| self.seen[block / 64] & 1 << (block % 64) != 0;
        let again = (first..end).filter(mine).count();
        let beyond = self
            .len
            .is_some_and(|len| end > len || (piece.last && end != len));
        self.spoilt |= (again > 0 && again < end - first) || beyond;
        if self.spoilt || again > 0 {
            return Err(DropReason::OverlappingFragment);
        }
        for block in first..end {
            self.seen[block / 64] |= 1 << (block % 64);
        }
        self.count += end - first;
        if piece.last {
            self.len = Some(end);
        }
        Ok(())
    }
}

/// The packets that one worker watches.
#[derive(Debug)]
pub(crate) struct Fragments(Box<[Watched]>);

impl Fragments {
    pub(crate) const BYTES: usize = WATCHED_MAX * size_of::<Watched>();

    pub(crate) fn new() -> Fragments {
        Fragments(vec![Watched::NOTHING; WATCHED_MAX].into())
    }

    /// As new. What was seen of a packet that is not watched any more is never looked at.
    pub(crate) fn begin_anew(&mut self) {
        for watched in &mut self.0 {
            watched.key = None;
        }
    }

    /// May this fragment pass?
    ///
    /// # Errors
    /// `TinyFragment` or `OverlappingFragment`.
    #[cold]
    pub(crate) fn pass(&mut self, piece: &Piece, now: Tick) -> Result<(), DropReason> {
        if piece.tiny {
            return Err(DropReason::TinyFragment);
        }
        let from = piece.key.set() * WAYS;
        let set = &mut self.0[from..from + WAYS];
        let known = set
            .iter()
            .position(|one| one.key == Some(piece.key) && now < one.until);
        let free = || {
            set.iter()
                .position(|one| one.key.is_none() || now >= one.until)
        };
        let Some(at) = known.or_else(free) else {
            return Ok(());
        };
        let watched = &mut set[at];
        if known.is_none() {
            let patience = match piece.key.source {
                IpAddr::V4(_) => V4_MS,
                IpAddr::V6(_) => V6_MS,
            };
            *watched = Watched {
                key: Some(piece.key),
                until: now + patience,
                ..Watched::NOTHING
            };
        }
        let added = watched.add(piece);
        if watched.len == Some(watched.count) {
            watched.key = None;
        }
        added
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn piece(id: u32, protocol: u8, offset: usize, len: usize, last: bool) -> Piece {
        let key = Key {
            ingress: PortId::new(1).expect("in range"),
            source: IpAddr::from([10, 0, 0, 1]),
            target: IpAddr::from([10, 0, 0, 2]),
            id,
            protocol,
        };
        Piece::new(key, protocol, (offset, len), last)
    }

    const OVER: Result<(), DropReason> = Err(DropReason::OverlappingFragment);
    const TINY: Result<(), DropReason> = Err(DropReason::TinyFragment);

    #[test]
    fn an_overlap_dies_and_so_does_the_rest_of_its_packet() {
        let mut table = Fragments::new();
        let mut pass =
            |id, offset, len, last| table.pass(&piece(id, 17, offset, len, last), Tick(5));
        assert_eq!(pass(1, 0, 1480, false), Ok(()));
        assert_eq!(pass(1, 1472, 1480, false), OVER);
        assert_eq!(pass(1, 1480, 100, true), OVER, "spoilt");
        assert_eq!(
            pass(2, 1480, 100, true),
            Ok(()),
            "another packet, backwards"
        );
        assert_eq!(pass(2, 1480, 100, true), OVER, "a duplicate");
        assert_eq!(pass(2, 0, 1480, false), Ok(()), "spoils nothing");
        assert_eq!(pass(2, 0, 1480, false), Ok(()), "whole and forgotten");
        assert_eq!(pass(3, 1480, 100, true), Ok(()));
        assert_eq!(pass(3, 2960, 8, false), OVER, "beyond the last");
        let mut late = |at| table.pass(&piece(1, 17, 1480, 100, true), Tick(at));
        assert_eq!(late(30_004), OVER);
        assert_eq!(late(30_005), Ok(()), "a packet of the same name, later");
    }

    #[test]
    fn a_fragment_that_splits_a_tcp_header_dies() {
        let mut table = Fragments::new();
        let mut pass =
            |protocol, offset, len| table.pass(&piece(1, protocol, offset, len, false), Tick(0));
        assert_eq!(pass(TCP, 0, 8), TINY);
        assert_eq!(pass(TCP, 8, 800), TINY);
        assert_eq!(pass(TCP, 0, 16), Ok(()));
        assert_eq!(pass(TCP, 16, 800), Ok(()));
        assert_eq!(pass(17, 0, 8), Ok(()));
        assert_eq!(pass(17, 8, 800), Ok(()));
    }

    #[test]
    fn a_full_table_lets_pass_what_it_cannot_watch() {
        let mut table = Fragments::new();
        for id in 0..10_000 {
            assert_eq!(table.pass(&piece(id, 17, 0, 800, false), Tick(0)), Ok(()));
        }
        let watched = |table: &mut Fragments, id| {
            let again = table.pass(&piece(id, 17, 0, 800, false), Tick(1));
            again == OVER
        };
        let count = (0..10_000).filter(|id| watched(&mut table, *id)).count();
        assert_eq!(count, WATCHED_MAX);
        table.begin_anew();
        let again = table.pass(&piece(0, 17, 0, 800, false), Tick(1));
        assert_eq!(again, Ok(()), "forgotten");
    }

    proptest! {
        #[test]
        fn no_block_passes_twice(
            pieces in prop::collection::vec((0u32..3, 0usize..40, 1usize..12, any::<bool>()), 1..60),
        ) {
            let mut table = Fragments::new();
            // Of each packet the blocks that passed, until it was whole.
            let mut model: BTreeMap<u32, (Vec<usize>, Option<usize>)> = BTreeMap::new();
            for (id, first, count, last) in pieces {
                let passed = table.pass(&piece(id, 17, first * 8, count * 8, last), Tick(0)).is_ok();
                let (blocks, len) = model.entry(id).or_default();
                if passed {
                    for block in first..first + count {
                        prop_assert!(!blocks.contains(&block), "{id} at {block}");
                        blocks.push(block);
                    }
                    if last {
                        *len = Some(first + count);
                    }
                    if *len == Some(blocks.len()) {
                        model.remove(&id);
                    }
                }
            }
        }
    }
}
