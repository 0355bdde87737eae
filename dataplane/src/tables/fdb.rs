//! The forwarding database: which port last heard from each station.
//!
//! In: a [`Station`], the port it was heard on, and a [`Tick`].
//! Out: the port to use for a target, or nothing.
//! Never: allocates after `new`, blocks, reads a clock, or holds a group address.
//!
//! Any worker may read while any other learns. An entry is two words: the key (the address and an
//! occupied bit) and the value (port, second of last hearing, and a tag drawn from the address).
//! A station that moves rewrites only the value, in one store. When a slot goes to another
//! station its value is cleared first, then the key changes, then the new value is stored; a
//! reader that meets a value whose tag is not of its own address has met such a change, and
//! counts it as a miss.
//!
//! A station lives in one of [`WINDOW`] neighbouring slots. A full window gives up the entry
//! heard longest ago, so the table is bounded and never refuses the living for the silent.

use crate::addr::{Mac, PortId, Station};
use crate::clock::Tick;
use crate::sync::{AtomicU64, Ordering};

/// Slots in which a station may live: one cache line of keys.
const WINDOW: usize = 8;

/// The bit that tells an occupied key from an empty one; addresses use the low 48.
const OCCUPIED: u64 = 1 << 63;

/// How long an entry outlives its last hearing: 300 s, the default of IEEE 802.1D table 7-5 and
/// of the Linux bridge.
pub const AGE_SECONDS_DEFAULT: u32 = 300;

/// Stations for which a switch has room by default: 250 pods with a few addresses each is under
/// 1,024, and a table kept half empty keeps its windows open. 8,192 slots are 128 KB.
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
    /// New here, and the station heard longest ago gave way.
    Evicted {
        /// The one that gave way.
        gone: Mac,
    },
}

/// Learned addresses of one switch, shared by its workers.
#[derive(Debug)]
pub struct Fdb {
    keys: Box<[AtomicU64]>,
    values: Box<[AtomicU64]>,
    shift: u32,
    seed: u64,
}

impl Fdb {
    /// Room for `capacity` stations, rounded up to a power of two. `seed` stirs the hash, so that
    /// a pod cannot choose addresses that crowd one window.
    #[must_use]
    pub fn new(capacity: usize, seed: u64) -> Fdb {
        let slots = capacity.max(WINDOW).next_power_of_two();
        let words = || (0..slots).map(|_| AtomicU64::new(0)).collect();
        Fdb {
            keys: words(),
            values: words(),
            shift: 64 - slots.trailing_zeros(),
            seed: seed | 1,
        }
    }

    /// The port that last heard from `target`.
    #[inline]
    #[must_use]
    pub fn find(&self, target: Mac) -> Option<PortId> {
        let (home, tag) = self.hash(target);
        let key = target.bits() | OCCUPIED;
        let slot = self
            .window(home)
            .find(|slot| self.keys[*slot].load(Ordering::Acquire) == key)?;
        Entry::read(self.values[slot].load(Ordering::Acquire), tag).map(|entry| entry.port)
    }

    /// Notes that `station` was heard on `port`.
    pub fn learn(&self, station: Station, port: PortId, now: Tick) -> Learned {
        let mac = station.mac();
        let (home, tag) = self.hash(mac);
        let key = mac.bits() | OCCUPIED;
        let fresh = Entry {
            port,
            heard: seconds(now),
        };
        let mut oldest = (u32::MAX, home, 0);
        let mut empty = None;
        for slot in self.window(home) {
            let held = self.keys[slot].load(Ordering::Acquire);
            if held == 0 {
                empty = empty.or(Some(slot));
                continue;
            }
            let word = self.values[slot].load(Ordering::Acquire);
            if held == key {
                return self.refresh(slot, word, fresh, tag);
            }
            let heard = Entry::heard(word);
            if heard < oldest.0 {
                oldest = (heard, slot, held);
            }
        }
        // Only now is it known to be new: an empty slot may stand before the one it lives in.
        match empty {
            Some(slot) => self.settle(slot, key, fresh.word(tag)),
            None => self.replace(oldest.1, oldest.2, key, fresh.word(tag)),
        }
    }

    fn settle(&self, slot: usize, key: u64, word: u64) -> Learned {
        match self.keys[slot].compare_exchange(0, key, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                self.values[slot].store(word, Ordering::Release);
                Learned::New
            }
            // Another worker took the slot at this moment: learn next time.
            Err(_) => Learned::Known,
        }
    }

    /// Updates a slot that is this station's. An entry of the same second on the same port is
    /// left alone, so that a busy station does not dirty a shared cache line for every frame.
    fn refresh(&self, slot: usize, word: u64, fresh: Entry, tag: u16) -> Learned {
        let before = Entry::read(word, tag);
        if before != Some(fresh) {
            self.values[slot].store(fresh.word(tag), Ordering::Release);
        }
        match before {
            Some(entry) if entry.port != fresh.port => Learned::Moved { from: entry.port },
            Some(_) => Learned::Known,
            None => Learned::New,
        }
    }

    fn replace(&self, slot: usize, held: u64, key: u64, word: u64) -> Learned {
        self.values[slot].store(0, Ordering::Release);
        let swap = self.keys[slot].compare_exchange(held, key, Ordering::AcqRel, Ordering::Acquire);
        if swap.is_err() {
            return Learned::Known; // as in `settle`
        }
        self.values[slot].store(word, Ordering::Release);
        let gone = (held & !OCCUPIED).to_be_bytes();
        Learned::Evicted {
            gone: Mac([gone[2], gone[3], gone[4], gone[5], gone[6], gone[7]]),
        }
    }

    /// Forgets stations not heard for `age_seconds`, looking at `slots` slots from `cursor` on.
    /// Returns how many it forgot and the cursor to go on with. One worker does this.
    pub fn age(&self, cursor: usize, slots: usize, age_seconds: u32, now: Tick) -> (u64, usize) {
        let mut gone = 0;
        let mask = self.keys.len() - 1;
        for step in 0..slots.min(self.keys.len()) {
            let slot = (cursor + step) & mask;
            let key = self.keys[slot].load(Ordering::Acquire);
            let heard = Entry::heard(self.values[slot].load(Ordering::Acquire));
            if key != 0 && seconds(now).saturating_sub(heard) >= age_seconds {
                self.values[slot].store(0, Ordering::Release);
                self.keys[slot].store(0, Ordering::Release);
                gone += 1;
            }
        }
        (gone, (cursor + slots) & mask)
    }

    /// Forgets every station heard on `port`: it was detached.
    pub fn forget_port(&self, port: PortId) {
        for (key, value) in self.keys.iter().zip(&self.values) {
            let word = value.load(Ordering::Acquire);
            if word != 0 && Entry::port_bits(word) == port.index() as u16 {
                value.store(0, Ordering::Release);
                key.store(0, Ordering::Release);
            }
        }
    }

    /// Every station known now, with its port and the second of its last hearing. For views.
    pub fn entries(&self) -> impl Iterator<Item = (Mac, PortId, u32)> + '_ {
        self.keys
            .iter()
            .zip(&self.values)
            .filter_map(|(key, value)| {
                let key = key.load(Ordering::Acquire);
                let [_, _, a, b, c, d, e, f] = (key & !OCCUPIED).to_be_bytes();
                let mac = Mac([a, b, c, d, e, f]);
                let entry = Entry::read(value.load(Ordering::Acquire), self.hash(mac).1)?;
                (key != 0).then_some((mac, entry.port, entry.heard))
            })
    }

    /// Slots in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.keys.len()
    }

    /// The first slot of the station's window, and its tag.
    #[inline]
    fn hash(&self, mac: Mac) -> (usize, u16) {
        let stirred = (mac.bits() ^ self.seed.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let stirred = (stirred ^ (stirred >> 29)).wrapping_mul(self.seed ^ 0xbf58_476d_1ce4_e5b9);
        let home = (stirred >> self.shift) as usize & (self.keys.len() - 1);
        (home & !(WINDOW - 1), (stirred as u16) | 1)
    }

    #[inline]
    fn window(&self, home: usize) -> std::ops::Range<usize> {
        home..home + WINDOW
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    port: PortId,
    heard: u32,
}

impl Entry {
    /// `port | heard | tag`, 16, 32 and 16 bits. A tag is odd, so no value of an entry is zero.
    #[inline]
    fn word(self, tag: u16) -> u64 {
        (self.port.index() as u64) << 48 | u64::from(self.heard) << 16 | u64::from(tag)
    }

    #[inline]
    fn read(word: u64, tag: u16) -> Option<Entry> {
        if word as u16 != tag {
            return None;
        }
        let port = PortId::new(usize::from(Entry::port_bits(word)))?;
        Some(Entry {
            port,
            heard: Entry::heard(word),
        })
    }

    #[inline]
    fn heard(word: u64) -> u32 {
        (word >> 16) as u32
    }

    #[inline]
    fn port_bits(word: u64) -> u16 {
        (word >> 48) as u16
    }
}

/// Whole seconds of a tick; 32 bits of them are 136 years.
#[inline]
fn seconds(now: Tick) -> u32 {
    (now.0 / 1000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn station(n: u32) -> Station {
        let [a, b, c, d] = n.to_be_bytes();
        Station::new(Mac([2, 0, a, b, c, d])).expect("a station")
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
    fn a_full_window_gives_up_the_one_heard_longest_ago() {
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
    fn a_detached_port_is_forgotten_whole() {
        let fdb = Fdb::new(64, 7);
        fdb.learn(station(1), port(0), Tick(0));
        fdb.learn(station(2), port(1), Tick(0));
        fdb.forget_port(port(0));
        assert_eq!(fdb.find(station(1).mac()), None);
        assert_eq!(fdb.find(station(2).mac()), Some(port(1)));
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
