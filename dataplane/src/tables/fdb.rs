//! The forwarding database: which port last heard from each station.
//!
//! In: a [`Station`], the port it was heard on, and a [`Tick`].
//! Out: the port to use for a target, or nothing.
//! Never: allocates after `new`, blocks, reads a clock, or holds a group address.
//!
//! Any worker may read while any other learns. An entry is one word, the address in its high 48
//! bits and the port in its low 16, so it changes whole: a reader meets the entry before or after a
//! change, never a part of one. The second in which a station was last heard stands beside it, in
//! an array that only learning and ageing touch; the worst that a race on it can do is to age a
//! station a turn early or late.
//!
//! A station lives in one of [`WINDOW`] neighbouring slots, which are one cache line. The slot that
//! its hash names is tried first, and holds it nearly always; then all eight are compared without a
//! branch, since a search that ends anywhere is a branch that no processor foresees.
//!
//! A full window gives up an entry of the port that has most of them in the whole table, the one
//! heard longest ago. Where the port of the newcomer has most of all and none in this window, the
//! newcomer is refused. So whoever floods the table with addresses pushes out his own, and nobody
//! loses an entry to a port that has more. How many entries a port has is counted as they change;
//! two workers that learn at the same moment may each take the last place of a quota.

use aligned_vec::{AVec, ConstAlign};

use crate::addr::{Mac, PortId, Station};
use crate::clock::Tick;
use crate::sync::{AtomicU32, AtomicU64, Ordering, Tally};

/// Slots in which a station may live: one cache line.
const WINDOW: usize = 8;

/// Bits of a port in an entry, below those of the address.
const PORT_BITS: u32 = 16;

/// How long an entry outlives its last hearing: 300 s, the default of IEEE 802.1D table 7-5 and
/// of the Linux bridge.
pub const AGE_SECONDS_DEFAULT: u32 = 300;

/// Stations for which a switch has room by default: 250 pods with a few addresses each is under
/// 1,024, and a table kept half empty keeps its windows open. 8,192 slots are 96 KB.
pub const CAPACITY_DEFAULT: usize = 8_192;

/// What became of an address offered for learning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// Known, on this port.
    Known,
    /// New here.
    New,
    /// It was on another port.
    Moved {
        /// That port.
        from: PortId,
    },
    /// New here, and another station gave way.
    Evicted {
        /// The one that gave way.
        gone: Mac,
    },
    /// Not learned: its port has as many as it may, or more than all whom it would push out.
    Refused,
}

/// Whether a station is where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Known, on this port; its age is renewed.
    Here,
    /// Known on another.
    Elsewhere {
        /// That port.
        port: PortId,
    },
    /// Not known.
    Nowhere,
}

/// Where an entry would be: the slot that a station's hash names.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place(u32);

/// Learned addresses of one switch, shared by its workers.
#[derive(Debug)]
pub struct Fdb {
    /// From the start of a cache line on, so that each window is one.
    slots: AVec<AtomicU64, ConstAlign<64>>,
    heard: Box<[AtomicU32]>,
    /// Entries of each port.
    counts: Box<[Tally]>,
    shift: u32,
    /// What stirs an address, before and after it is spread over a word.
    stir: [u64; 2],
}

impl Fdb {
    /// Room for `capacity` stations, rounded up to a power of two. `seed` stirs the hash, so that
    /// a pod cannot choose addresses that crowd one window.
    #[must_use]
    pub fn new(capacity: usize, seed: u64) -> Fdb {
        let slots = capacity.max(WINDOW).next_power_of_two();
        Fdb {
            slots: AVec::from_iter(64, (0..slots).map(|_| AtomicU64::new(0))),
            heard: (0..slots).map(|_| AtomicU32::new(0)).collect(),
            counts: (0..PortId::COUNT_MAX).map(|_| Tally::default()).collect(),
            shift: 64 - slots.trailing_zeros(),
            stir: [
                (seed | 1).rotate_left(17),
                (seed | 1) ^ 0xbf58_476d_1ce4_e5b8,
            ],
        }
    }

    /// Bytes of a table with room for `capacity` stations.
    pub(crate) fn bytes_of(capacity: usize) -> usize {
        let slots = capacity.max(WINDOW).next_power_of_two();
        slots * (size_of::<AtomicU64>() + size_of::<AtomicU32>())
            + PortId::COUNT_MAX * size_of::<Tally>()
    }

    /// The port that last heard from `target`.
    #[inline(always)]
    #[must_use]
    pub fn find(&self, target: Mac) -> Option<PortId> {
        self.find_at(self.place(target), target)
    }

    /// As [`Fdb::find`], for who has asked for the place already.
    #[inline(always)]
    pub(crate) fn find_at(&self, place: Place, target: Mac) -> Option<PortId> {
        self.seek(place.0 as usize, target)
            .map(|(_, word)| port_of(word))
    }

    /// Where an entry of `mac` would be.
    #[inline(always)]
    pub(crate) fn place(&self, mac: Mac) -> Place {
        Place(self.home(mac) as u32)
    }

    /// The slot of `mac`, and its entry.
    #[inline(always)]
    fn seek(&self, home: usize, mac: Mac) -> Option<(usize, u64)> {
        let first = self.slot(home).load(Ordering::Acquire);
        if holds(first, mac) {
            return Some((home, first));
        }
        self.scan(home, mac)
    }

    /// As `seek`, where the slot that the hash names is somebody else's.
    #[inline(never)]
    fn scan(&self, home: usize, mac: Mac) -> Option<(usize, u64)> {
        let start = home - home % WINDOW;
        let window = &self.slots[start..start + WINDOW];
        let mut found = 0;
        for (at, slot) in window.iter().enumerate() {
            found |= u32::from(holds(slot.load(Ordering::Relaxed), mac)) << at;
        }
        if found == 0 {
            return None;
        }
        let at = found.trailing_zeros() as usize;
        let word = window[at].load(Ordering::Acquire);
        // It may have gone since; then it is not there.
        holds(word, mac).then_some((start + at, word))
    }

    /// Notes that `station` was heard on `port`, if it is known there. All that a station costs
    /// which stays where it is.
    #[inline(always)]
    pub fn renew(&self, station: Station, port: PortId, now: Tick) -> Heard {
        self.renew_at(self.place(station.mac()), station, port, now)
    }

    /// As [`Fdb::renew`], for who has asked for the place already.
    #[inline(always)]
    pub(crate) fn renew_at(
        &self,
        place: Place,
        station: Station,
        port: PortId,
        now: Tick,
    ) -> Heard {
        let Some((slot, word)) = self.seek(place.0 as usize, station.mac()) else {
            return Heard::Nowhere;
        };
        match port_of(word) {
            at if at == port => {
                self.refresh(slot, now);
                Heard::Here
            }
            at => Heard::Elsewhere { port: at },
        }
    }

    /// Notes that `station` was heard on `port`, however many the port has.
    #[inline(always)]
    pub fn learn(&self, station: Station, port: PortId, now: Tick) -> Learned {
        self.learn_within(u32::MAX, station, port, now)
    }

    /// Notes that `station` was heard on `port`, unless the port has `quota` stations already.
    #[inline(always)]
    pub fn learn_within(&self, quota: u32, station: Station, port: PortId, now: Tick) -> Learned {
        let mac = station.mac();
        let home = self.home(mac);
        let fresh = mac.bits() << PORT_BITS | port.index() as u64;
        match self.seek(home, mac) {
            Some((slot, word)) if word == fresh => {
                self.refresh(slot, now);
                Learned::Known
            }
            _ if self.count(port) >= quota => Learned::Refused,
            Some((slot, word)) => {
                self.refresh(slot, now);
                self.relearn(slot, word, fresh)
            }
            None => self.settle(home, fresh, port, seconds(now)),
        }
    }

    /// Stations known on `port`.
    #[must_use]
    pub fn count(&self, port: PortId) -> u32 {
        self.counts[port.index()].get()
    }

    /// What is known already is left alone, so that a busy station does not dirty a shared cache
    /// line for every frame.
    #[inline(always)]
    fn refresh(&self, slot: usize, now: Tick) {
        if self.heard[slot].load(Ordering::Relaxed) != seconds(now) {
            self.heard[slot].store(seconds(now), Ordering::Relaxed);
        }
    }

    #[cold]
    fn relearn(&self, slot: usize, word: u64, fresh: u64) -> Learned {
        if !self.swap(slot, word, fresh) {
            // Another worker changed the slot at this moment: learn next time.
            return Learned::Known;
        }
        self.free_others(slot, fresh);
        Learned::Moved {
            from: port_of(word),
        }
    }

    /// Takes the first free slot from `home` on, or else that of an entry that has to give way.
    ///
    /// Each slot is read once: what was seen free must still be free when it is taken, and where
    /// another worker learned the station since `seek`, its entry is the one.
    #[cold]
    fn settle(&self, home: usize, fresh: u64, port: PortId, second: u32) -> Learned {
        let words: [u64; WINDOW] = std::array::from_fn(|step| self.word(home ^ step));
        if let Some(step) = words.iter().position(|word| holds(*word, mac_of(fresh))) {
            return match words[step] {
                word if word == fresh => Learned::Known,
                word => self.relearn(home ^ step, word, fresh),
            };
        }
        let free = words.iter().position(|word| *word == 0);
        let Some(step) = free.or_else(|| self.victim(home, &words, port)) else {
            return Learned::Refused;
        };
        let (slot, held) = (home ^ step, words[step]);
        self.heard[slot].store(second, Ordering::Relaxed);
        if !self.swap(slot, held, fresh) {
            return Learned::Known; // as in `relearn`
        }
        self.free_others(slot, fresh);
        match held {
            0 => Learned::New,
            _ => Learned::Evicted { gone: mac_of(held) },
        }
    }

    /// Two workers that hear a station at once, while ageing frees a slot between their looks, may
    /// each take a slot for it. Whoever comes later leaves one entry.
    fn free_others(&self, slot: usize, fresh: u64) {
        for other in (1..WINDOW).map(|step| slot ^ step) {
            let word = self.word(other);
            if holds(word, mac_of(fresh)) {
                self.swap(other, word, 0);
            }
        }
    }

    /// Of a full window the entry heard longest ago among those of the port that has most stations,
    /// unless the newcomer's has more.
    fn victim(&self, home: usize, words: &[u64; WINDOW], newcomer: PortId) -> Option<usize> {
        let rank = |step: usize| {
            let count = self.count(port_of(words[step]));
            let silent = u32::MAX - self.heard[home ^ step].load(Ordering::Relaxed);
            (count, silent, WINDOW - step)
        };
        let step = (0..WINDOW).max_by_key(|step| rank(*step))?;
        (rank(step).0 >= self.count(newcomer)).then_some(step)
    }

    #[inline(always)]
    fn slot(&self, slot: usize) -> &AtomicU64 {
        &self.slots[slot]
    }

    fn word(&self, slot: usize) -> u64 {
        self.slot(slot).load(Ordering::Acquire)
    }

    /// Replaces an entry whole, and keeps the counts of the ports.
    fn swap(&self, slot: usize, from: u64, to: u64) -> bool {
        let slot = self.slot(slot);
        let swapped = slot.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed);
        if swapped.is_err() {
            return false;
        }
        if to != 0 {
            self.counts[port_of(to).index()].add();
        }
        if from != 0 {
            self.counts[port_of(from).index()].remove();
        }
        true
    }

    /// Forgets stations not heard for `age_seconds`, looking at `slots` slots from `cursor` on.
    /// Returns how many it forgot and the cursor to go on with. One worker does this.
    pub fn age(&self, cursor: usize, slots: usize, age_seconds: u32, now: Tick) -> (u64, usize) {
        let mut gone = 0;
        let mask = self.capacity() - 1;
        for step in 0..slots.min(self.capacity()) {
            let slot = (cursor + step) & mask;
            let word = self.word(slot);
            let heard = self.heard[slot].load(Ordering::Relaxed);
            let silent = seconds(now).saturating_sub(heard) >= age_seconds;
            if word != 0 && silent && self.swap(slot, word, 0) {
                gone += 1;
            }
        }
        (gone, (cursor + slots) & mask)
    }

    /// Forgets every station heard on `port`: it was detached.
    pub fn forget_port(&self, port: PortId) {
        for slot in 0..self.capacity() {
            let word = self.word(slot);
            if word != 0 && port_of(word) == port {
                self.swap(slot, word, 0);
            }
        }
    }

    /// Forgets where `station` was heard: the tables know it now.
    pub fn forget(&self, station: Station) {
        let mac = station.mac();
        if let Some((slot, word)) = self.seek(self.home(mac), mac) {
            self.swap(slot, word, 0);
        }
    }

    /// Every station known now, with its port and the second of its last hearing. For views.
    pub fn entries(&self) -> impl Iterator<Item = (Mac, PortId, u32)> + '_ {
        (0..self.capacity()).filter_map(|slot| {
            let word = self.word(slot);
            let heard = self.heard[slot].load(Ordering::Relaxed);
            (word != 0).then(|| (mac_of(word), port_of(word), heard))
        })
    }

    /// Slots in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.heard.len()
    }

    /// The slot that a station's hash names.
    #[inline(always)]
    fn home(&self, mac: Mac) -> usize {
        let [before, after] = self.stir;
        let spread = (mac.bits() ^ before).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let stirred = (spread ^ (spread >> 29)).wrapping_mul(after);
        (stirred >> self.shift) as usize
    }
}

/// True if `word` is the entry of `mac`. An empty slot is the entry of nobody, not of zero.
#[inline]
fn holds(word: u64, mac: Mac) -> bool {
    word >> PORT_BITS == mac.bits() && word != 0
}

#[inline]
fn port_of(word: u64) -> PortId {
    PortId::new(word as usize % PortId::COUNT_MAX).expect("below the most that there are")
}

fn mac_of(word: u64) -> Mac {
    Mac::from_bits(word >> PORT_BITS)
}

/// Whole seconds of a tick; 32 bits of them are 136 years.
#[inline]
fn seconds(now: Tick) -> u32 {
    (now.0 / 1000) as u32
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn station(n: u32) -> Station {
        let [a, b, c, d] = n.to_be_bytes();
        Station::new(Mac::new([2, 0, a, b, c, d])).expect("a station")
    }

    fn port(n: usize) -> PortId {
        PortId::new(n).expect("in range")
    }

    #[test]
    fn a_station_is_found_where_it_was_heard_last() {
        let fdb = Fdb::new(64, 7);
        assert_eq!(fdb.find(station(1).mac()), None);
        assert_eq!(fdb.learn(station(1), port(3), Tick(0)), Learned::New);
        assert_eq!(fdb.learn(station(1), port(3), Tick(10)), Learned::Known);
        assert_eq!(
            fdb.learn(station(1), port(4), Tick(20)),
            Learned::Moved { from: port(3) }
        );
        assert_eq!(fdb.find(station(1).mac()), Some(port(4)));
        assert_eq!(fdb.renew(station(1), port(4), Tick(30)), Heard::Here);
        let elsewhere = Heard::Elsewhere { port: port(4) };
        assert_eq!(fdb.renew(station(1), port(3), Tick(30)), elsewhere);
        assert_eq!(fdb.renew(station(2), port(3), Tick(30)), Heard::Nowhere);
        assert_eq!((fdb.count(port(3)), fdb.count(port(4))), (0, 1));
    }

    #[test]
    fn silence_ages_and_hearing_renews() {
        let fdb = Fdb::new(8, 7);
        fdb.learn(station(1), port(1), Tick(0));
        fdb.learn(station(2), port(2), Tick(0));
        fdb.learn(station(2), port(2), Tick(200_000));
        assert_eq!(fdb.age(0, 8, 300, Tick(299_999)).0, 0);
        assert_eq!(fdb.age(0, 8, 300, Tick(300_000)).0, 1);
        assert_eq!(fdb.find(station(1).mac()), None);
        assert_eq!(fdb.find(station(2).mac()), Some(port(2)));
    }

    #[test]
    fn of_one_port_the_one_heard_longest_ago_gives_way() {
        let fdb = Fdb::new(8, 7);
        for n in 0..8 {
            fdb.learn(station(n), port(1), Tick(u64::from(n) * 1000 + 1000));
        }
        let gone = fdb.learn(station(100), port(2), Tick(60_000));
        assert_eq!(
            gone,
            Learned::Evicted {
                gone: station(0).mac()
            }
        );
        assert_eq!(fdb.find(station(0).mac()), None);
        assert_eq!(fdb.find(station(100).mac()), Some(port(2)));
        assert_eq!(fdb.entries().count(), 8);
    }

    #[test]
    fn nobody_is_found_where_nobody_was_heard() {
        let fdb = Fdb::new(8, 7);
        fdb.learn(station(1), port(0), Tick(0));
        assert_eq!(fdb.find(Mac::ZERO), None);
        assert_eq!(fdb.find(Mac::BROADCAST), None);
        assert_eq!(fdb.find(station(2).mac()), None);
    }

    #[test]
    fn readers_never_meet_a_port_that_the_station_was_not_on() {
        // Each station hops between two ports of its own, while others push it out of its window.
        let fdb = Fdb::new(16, 7);
        std::thread::scope(|scope| {
            for half in 0..2u32 {
                let fdb = &fdb;
                scope.spawn(move || {
                    for round in 0..20_000u32 {
                        let n = round % 20;
                        let at = 2 * n + (round / 20 + half) % 2;
                        fdb.learn(station(n), port(at as usize), Tick(u64::from(round)));
                        fdb.age((round % 16) as usize, 1, 1, Tick(u64::from(round) + 900));
                    }
                });
            }
            scope.spawn(|| {
                for n in (0..20u32).cycle().take(40_000) {
                    if let Some(found) = fdb.find(station(n).mac()) {
                        assert_eq!(found.index() as u32 / 2, n);
                    }
                }
            });
        });
    }

    #[test]
    fn a_detached_port_is_forgotten_whole() {
        let fdb = Fdb::new(64, 7);
        fdb.learn(station(1), port(0), Tick(0));
        fdb.learn(station(2), port(1), Tick(0));
        fdb.forget_port(port(0));
        assert_eq!(fdb.find(station(1).mac()), None);
        assert_eq!(fdb.find(station(2).mac()), Some(port(1)));
    }

    #[test]
    fn a_flood_of_addresses_pushes_out_its_own() {
        let fdb = Fdb::new(1024, 7);
        let quiet = |n: u32| (station(1_000_000 + n), port(n as usize % 100));
        for n in 0..200 {
            assert_eq!(fdb.learn(quiet(n).0, quiet(n).1, Tick(0)), Learned::New);
        }
        let mut refused = 0;
        for n in 0..100_000 {
            match fdb.learn(station(n), port(500), Tick(1000)) {
                Learned::Evicted { gone } => assert!(gone.bits() < station(100_000).mac().bits()),
                Learned::Refused => refused += 1,
                Learned::New => {}
                other => panic!("{other:?} of an address heard once"),
            }
        }
        for n in 0..200 {
            assert_eq!(
                fdb.find(quiet(n).0.mac()),
                Some(quiet(n).1),
                "{n} is still known"
            );
        }
        // A window with none of his own is rare, but it may be there.
        assert!(refused < 20_000, "{refused}");
        let held = |at| fdb.entries().filter(|(_, heard, _)| *heard == at).count();
        assert_eq!(fdb.count(port(500)) as usize, held(port(500)));
        assert_eq!((fdb.count(port(7)), held(port(7))), (2, 2));
        fdb.forget_port(port(500));
        assert_eq!(fdb.count(port(500)), 0);
    }

    #[test]
    fn a_port_has_no_more_than_its_quota() {
        let fdb = Fdb::new(1024, 7);
        let learn = |n, at| fdb.learn_within(3, station(n), port(at), Tick(0));
        let all: Vec<_> = (0..5).map(|n| learn(n, 1)).collect();
        let (new, refused) = (Learned::New, Learned::Refused);
        assert_eq!(all, [new, new, new, refused, refused]);
        assert_eq!(learn(0, 1), Learned::Known, "who is known stays so");
        assert_eq!(learn(9, 2), new, "another port has its own");
        assert_eq!(learn(9, 1), refused, "nor can it move there");
        fdb.age(0, 1024, 300, Tick(300_000));
        assert_eq!((fdb.count(port(1)), learn(4, 1)), (0, new));
    }

    proptest! {
        #[test]
        fn a_roomy_table_behaves_as_a_map(
            events in prop::collection::vec((0u32..40, 0usize..6, 0u64..400), 1..200),
            seed in any::<u64>(),
        ) {
            let fdb = Fdb::new(8192, seed);
            let mut model: BTreeMap<u32, (usize, u64)> = BTreeMap::new();
            let mut now = 0;
            for (who, at, pause) in events {
                now += pause * 1000;
                fdb.age(0, fdb.capacity(), 300, Tick(now));
                model.retain(|_, (_, heard)| now - *heard < 300_000);
                fdb.learn(station(who), port(at), Tick(now));
                model.insert(who, (at, now));
                for n in 0..40 {
                    prop_assert_eq!(fdb.find(station(n).mac()), model.get(&n).map(|(at, _)| port(*at)));
                }
            }
        }

        #[test]
        fn the_table_never_outgrows_itself(macs in prop::collection::vec(any::<u32>(), 1..600)) {
            let fdb = Fdb::new(64, 3);
            for (second, mac) in macs.iter().enumerate() {
                fdb.learn(station(*mac), port(1), Tick(second as u64 * 1000));
                prop_assert_eq!(fdb.find(station(*mac).mac()), Some(port(1)), "just heard");
            }
            prop_assert!(fdb.entries().count() <= fdb.capacity());
        }
    }
}
