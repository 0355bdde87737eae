//! The guards that need a history: storms, stations that flap, quotas.
//!
//! In: a frame that `decide` let in, its port's guards, and the time. Out: a reason to refuse it
//! after all, or nothing; what is only observed is counted.
//! Never: allocates after `new`, or costs a frame between two known stations more than a compare.

use super::Worker;
use crate::addr::{Mac, PortId, Station};
use crate::bucket::Bucket;
use crate::clock::Tick;
use crate::forward::Observed;
use crate::frame::flow::mixed;
use crate::frame::offload::Offload;
use crate::port::Port;
use crate::tables::fdb::{Heard, Learned};
use crate::tables::guard::Mode;
use crate::tables::{PortRole, PortRow, Tables};
use crate::verdict::DropReason;

/// Stations whose moves are counted. Only a station that moves needs a place, and two that share
/// one are damped later than they should.
pub(crate) const FLAPS_MAX: usize = 64;

pub(crate) const STORMS_BYTES: usize = PortId::COUNT_MAX * size_of::<[Bucket; 3]>();
pub(crate) const FLAPS_BYTES: usize = FLAPS_MAX * size_of::<Flap>();

/// Moves within [`FLAP_WINDOW_MS`] that are no flapping: an address that fails over (VRRP) does so
/// once in three seconds at most (RFC 9568 6.1).
const MOVES_MAX: u32 = 5;

/// Over how long moves are counted.
const FLAP_WINDOW_MS: u64 = 10_000;

/// For how long a station that flaps stays where it was. As long as it was watched.
const HOLD_MS: u64 = FLAP_WINDOW_MS;

/// Whom a frame that goes to many is for.
#[derive(Clone, Copy)]
enum Crowd {
    Broadcast,
    Multicast,
    Unknown,
}

/// What a worker remembers for the guards.
#[derive(Debug)]
pub(super) struct Memory {
    /// For each port a bucket for each kind of crowd.
    storms: Box<[[Bucket; 3]]>,
    flaps: Box<[Flap]>,
}

impl Memory {
    pub(super) fn new() -> Memory {
        Memory {
            storms: vec![[Bucket::FULL; 3]; PortId::COUNT_MAX].into(),
            flaps: vec![Flap::default(); FLAPS_MAX].into(),
        }
    }

    /// As new, of the first `ports` ports: the others have sent nothing.
    pub(super) fn begin_anew(&mut self, ports: usize) {
        self.storms[..ports].fill([Bucket::FULL; 3]);
        self.flaps.fill(Flap::default());
    }

    /// May `station` move once more? If so it has.
    fn may_move(&mut self, station: Station, now: Tick) -> bool {
        let mac = station.mac().bits();
        let place = mixed(mac, 0) as usize % self.flaps.len();
        self.flaps[place].may_move(mac, now)
    }
}

/// The moves of one station.
#[derive(Clone, Copy, Debug, Default)]
struct Flap {
    mac: u64,
    since: Tick,
    moves: u32,
    held_until: Tick,
}

impl Flap {
    fn may_move(&mut self, mac: u64, now: Tick) -> bool {
        let over = now.since(self.since) >= FLAP_WINDOW_MS && now >= self.held_until;
        if self.mac != mac || over {
            *self = Flap {
                mac,
                since: now,
                ..Flap::default()
            };
        }
        if now < self.held_until {
            return false;
        }
        self.moves += 1;
        if self.moves > MOVES_MAX {
            self.held_until = now + HOLD_MS;
        }
        self.moves <= MOVES_MAX
    }
}

impl<P: Port> Worker<P> {
    #[cold]
    pub(super) fn note_observed(&self, seen: Observed, ingress: PortId) {
        for reason in seen.reasons() {
            self.board.observed_one(ingress, reason);
        }
    }

    /// Objects to a frame, as the guard's mode has it.
    #[cold]
    fn object(&self, reason: DropReason, mode: Mode, ingress: PortId) -> Option<DropReason> {
        if mode == Mode::Observe {
            self.board.observed_one(ingress, reason);
        }
        (mode == Mode::Enforce).then_some(reason)
    }

    /// A frame of `len` bytes that goes to many, or asks to be answered: has its port sent too many
    /// of them?
    #[inline(never)]
    pub(super) fn storm(
        &mut self,
        target: Mac,
        (len, offload): (usize, Offload),
        ingress: PortId,
        tables: &Tables,
        now: Tick,
    ) -> Option<DropReason> {
        let guard = tables.guard(ingress)?.guard();
        if guard.storms == Mode::Off {
            return None;
        }
        let crowd = match target {
            Mac::BROADCAST => Crowd::Broadcast,
            _ if target.is_group() => Crowd::Multicast,
            _ => Crowd::Unknown,
        };
        let (rate, reason) = match crowd {
            Crowd::Broadcast => (guard.rates.broadcast, DropReason::BroadcastStorm),
            Crowd::Multicast => (guard.rates.multicast, DropReason::MulticastStorm),
            Crowd::Unknown => (guard.rates.unknown, DropReason::UnknownStorm),
        };
        let segments = match offload.is_super_frame() {
            true => len.div_ceil(usize::from(offload.gso_size.max(1))) as u32,
            false => 1,
        };
        let bucket = &mut self.memory.storms[ingress.index()][crowd as usize];
        if bucket.has(segments, rate, now) {
            bucket.take(segments);
            return None;
        }
        self.object(reason, guard.storms, ingress)
    }

    /// Learns where a frame came from, or says why it may not come from there.
    ///
    /// Only a frame that was let in teaches: a spoofed one must not move a station. The uplink
    /// teaches nothing, since all its frames have the fabric's address.
    #[inline(always)]
    pub(super) fn learn(
        &mut self,
        source: Station,
        row: &PortRow,
        tables: &Tables,
        now: Tick,
    ) -> Option<DropReason> {
        // Most often a pod speaks for itself, and then there is nothing to look up.
        let itself = row.mac == source;
        let outside = row.role == PortRole::Uplink;
        if itself || outside || tables.station(source.mac()).is_some() {
            return None;
        }
        match self.fdb.renew(source, row.id, now) {
            Heard::Here => None,
            heard => self.learn_anew(source, heard, row.id, tables, now),
        }
    }

    /// As `learn`, for a station that was not known here.
    #[inline(never)]
    fn learn_anew(
        &mut self,
        source: Station,
        heard: Heard,
        ingress: PortId,
        tables: &Tables,
        now: Tick,
    ) -> Option<DropReason> {
        let Some(guarded) = tables.guard(ingress) else {
            self.fdb.learn(source, ingress, now);
            return None;
        };
        let guard = guarded.guard();
        let moves = matches!(heard, Heard::Elsewhere { .. });
        if moves && guard.flaps > Mode::Off && !self.memory.may_move(source, now) {
            let refused = self.object(DropReason::Flapping, guard.flaps, ingress);
            if refused.is_some() {
                return refused;
            }
        }
        let quota = match guard.quota {
            Mode::Off => u32::MAX,
            Mode::Observe | Mode::Enforce => guard.learned_max,
        };
        match self.fdb.learn_within(quota, source, ingress, now) {
            Learned::Refused => {
                let refused = self.object(DropReason::StationQuota, guard.quota, ingress);
                if refused.is_none() {
                    self.fdb.learn(source, ingress, now);
                }
                refused
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_that_flaps_is_held_and_let_go_again() {
        let mut memory = Memory::new();
        let station = |last| Station::new(Mac::new([2, 0, 0, 0, 0, last])).expect("a station");
        let mut moved = |who, at: u64| memory.may_move(station(who), Tick(at));
        let in_a_second: Vec<bool> = (0..8).map(|n| moved(1, n * 100)).collect();
        assert_eq!(
            in_a_second,
            [true, true, true, true, true, false, false, false]
        );
        assert!(moved(2, 800), "another is not held");
        assert!(!moved(1, 10_499), "held from the sixth move on");
        assert!(moved(1, 10_500));
        let slowly = (0..50).all(|n| moved(1, 20_000 + n * 2500));
        assert!(slowly, "four moves in ten seconds are none too many");
    }
}
