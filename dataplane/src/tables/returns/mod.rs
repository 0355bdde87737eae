//! The way back: which conversations the node's kernel has carried, so that their answers go to it
//! again.
//!
//! In: what a worker forwarded, and a [`Tick`]. Out: who carried what a packet answers.
//! Never: allocates after `new`, blocks, reads a clock, or lets one pod fill it.
//!
//! The kernel translates addresses: services, masquerade, host ports. It can only translate an
//! answer that it gets to see, but the addresses on that answer do not tell: a pod's reply to the
//! client of a service is addressed to that client, and a backend on another node replies to the
//! client by the uplink. So three things are remembered, each as a key and who carried it:
//!
//! | key | meaning |
//! |---|---|
//! | a tuple, by the host | the host port delivered it to a pod, so the kernel wants the answer |
//! | an endpoint, by the host | from this address and port a pod spoke to what the kernel serves |
//! | a tuple, by the switch | from such an endpoint it spoke directly, too |
//!
//! Of each key there is one entry, and who carried it last counts. A key without ports stands
//! beside each, for fragments.
//!
//! Any worker may read while any other writes: the two directions of a flow may well arrive in
//! queues of different workers. An entry is one word, so it changes whole: 37 bits of the key's
//! hash, the port that it is kept for, how far the conversation has come, and when it was last
//! heard. With the place that makes 50 bits of a hash that is stirred by a secret: that a stranger
//! passes for an entry happens once in 10^10 lookups, and sends a packet through a kernel that
//! forwards it unchanged. The key itself stands apart, for views; it is believed only where its hash
//! is that of the entry.
//!
//! Nobody needs to know the time to read: what has run out is removed by [`Returns::age`] within
//! one sweep. Where an entry's window is full, one with the least time left gives way.
//!
//! A search that finds nothing looks at four windows. So that a flow which is in no entry pays for
//! that once, each worker keeps [`strangers`].

mod key;
pub(crate) mod strangers;

use std::fmt;

use crate::addr::PortId;
use crate::clock::Tick;
use crate::frame::tuple::{Stage, Tuple};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use key::{Key, WORDS};

/// Entries for which a switch has room by default. A node's kernel has room for 131,072 connections
/// (kube-proxy's `--conntrack-min`), most of which no pod of a switch takes part in. 1.5 MB.
pub const CAPACITY_DEFAULT: usize = 32_768;

/// Slots in which an entry may live: one cache line.
const WINDOW: usize = 8;

/// No port may hold more than a half: a pod that scans services must not make the kernel lose the
/// answers of others.
const QUOTA_SHARE: usize = 2;

/// An entry's word, from its lowest bit: when it was last heard, in units of [`UNIT_MS`]; its
/// stage; by whom; its port; the hash.
const HEARD_BITS: u32 = 14;
const STAGE_AT: u32 = HEARD_BITS;
const HOST_AT: u32 = STAGE_AT + 3;
const PORT_AT: u32 = HOST_AT + 1;
const HASH_AT: u32 = PORT_AT + 9;
const _: () = assert!(PortId::COUNT_MAX <= 1 << (HASH_AT - PORT_AT));

/// The unit of time in an entry: fine enough for its shortest life, and 2^14 of it, 36 hours, are
/// enough for its longest and a sweep.
const UNIT_MS: u64 = 8_000;

/// Who carried a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Carrier {
    /// The switch itself.
    Switch,
    /// The node's kernel, by the host port.
    Host,
}

/// What is known of the conversation that a packet answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The switch forwarded it itself: the answer is the switch's.
    Switch,
    /// The host port delivered it: the answer is the kernel's.
    Host,
    /// Whoever is answered has spoken from there to what the kernel serves, so this may be the
    /// answer of one whom the kernel chose.
    Endpoint,
    /// Nothing.
    Nothing,
}

impl Known {
    /// True if the kernel has to see the answer.
    #[inline]
    #[must_use]
    pub const fn is_for_host(self) -> bool {
        matches!(self, Known::Host | Known::Endpoint)
    }
}

/// How long an entry outlives its last hearing, in units, by its stage: never shorter than the
/// kernel's own memory of the flow.
///
/// Linux: 120 s for a SYN and for the end of TCP, 600 s for unknown protocols, 180 s for UDP
/// (net/netfilter/nf_conntrack_proto_*.c). Open TCP: 24 hours, as kube-proxy sets it
/// (`--conntrack-tcp-timeout-established`).
const fn life(stage: Stage) -> u64 {
    let seconds = match stage {
        Stage::Opening | Stage::Closing => 128,
        Stage::Open => 86_400,
        Stage::Datagram => 192,
        Stage::Other => 600,
    };
    seconds * 1000 / UNIT_MS
}
const _: () = assert!(life(Stage::Open) < (1 << HEARD_BITS) - 1024);

/// An entry's word.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

impl Word {
    const EMPTY: Word = Word(0);

    fn new(hash: u64, carrier: Carrier, stage: Stage, port: PortId, now: Tick) -> Word {
        let host = u64::from(carrier == Carrier::Host) << HOST_AT;
        // A stage is never nought, so no entry is the empty word.
        let stage = (stage as u64 + 1) << STAGE_AT;
        let port = (port.index() as u64) << PORT_AT;
        Word(hash << HASH_AT | port | host | stage | units(now))
    }

    #[inline(always)]
    const fn is(self, hash: u64) -> bool {
        self.0 >> HASH_AT == hash && self.0 != 0
    }

    const fn carrier(self) -> Carrier {
        match self.0 >> HOST_AT & 1 {
            0 => Carrier::Switch,
            _ => Carrier::Host,
        }
    }

    const fn stage(self) -> Stage {
        match self.0 >> STAGE_AT & 7 {
            1 => Stage::Opening,
            2 => Stage::Open,
            3 => Stage::Closing,
            4 => Stage::Datagram,
            _ => Stage::Other,
        }
    }

    fn port(self) -> PortId {
        let index = self.0 >> PORT_AT & (PortId::COUNT_MAX as u64 - 1);
        PortId::new(index as usize).expect("as many bits as a port has")
    }

    /// Units left to live; none if it is over.
    const fn left(self, now: Tick) -> Option<u64> {
        let mask = (1 << HEARD_BITS) - 1;
        let age = units(now).wrapping_sub(self.0 & mask) & mask;
        // One that another worker heard in a unit which has not begun here is brand new.
        let age = if age == mask { 0 } else { age };
        life(self.stage()).checked_sub(age)
    }
}

const fn units(now: Tick) -> u64 {
    (now.0 / UNIT_MS) & ((1 << HEARD_BITS) - 1)
}

/// What the entry of a conversation that was `before` becomes. The end of TCP takes some packets;
/// only a SYN begins anew.
const fn stage_after(before: Stage, stage: Stage) -> Stage {
    match (before, stage) {
        (Stage::Closing, Stage::Open) => Stage::Closing,
        _ => stage,
    }
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Window([AtomicU64; WINDOW]);

/// The conversations of one switch, shared by its workers.
pub struct Returns {
    windows: Box<[Window]>,
    keys: Box<[[AtomicU64; WORDS]]>,
    /// Entries of each port.
    held: Box<[AtomicU32]>,
    shift: u32,
    seed: u64,
    added: AtomicU64,
    expired: AtomicU64,
    evicted: AtomicU64,
    refused: AtomicU64,
    returned: AtomicU64,
}

/// What became of entries since the start, and how many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entries now.
    pub live: u64,
    /// Entries made.
    pub added: u64,
    /// Entries that ran out or whose port went.
    pub expired: u64,
    /// Entries that gave way to others.
    pub evicted: u64,
    /// Entries not made: the pod held its share already, and none of it was near.
    pub refused: u64,
    /// Frames given to the host although their target is a pod or beyond the uplink.
    pub returned: u64,
}

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum About {
    /// A conversation in one direction.
    Tuple(Tuple),
    /// The source of the tuple, whatever its target; that one is unspecified.
    Endpoint(Tuple),
}

/// An entry, for views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub about: About,
    /// Who carried it.
    pub carrier: Carrier,
    /// How far it has come.
    pub stage: Stage,
    /// The pod's port that it is kept for.
    pub port: PortId,
    /// Seconds since it was last heard, to eight of them.
    pub age_seconds: u64,
    /// Seconds that it will live if nothing more is heard.
    pub seconds_left: u64,
}

impl Returns {
    /// Room for `capacity` entries, rounded up to a power of two. `seed` stirs the hash, so that no
    /// pod can choose tuples that crowd one window or pass for another's.
    #[must_use]
    pub fn new(capacity: usize, seed: u64) -> Returns {
        let slots = capacity.max(2 * WINDOW).next_power_of_two();
        let windows = slots / WINDOW;
        Returns {
            windows: (0..windows).map(|_| Window::default()).collect(),
            keys: (0..slots).map(|_| Default::default()).collect(),
            held: (0..PortId::COUNT_MAX).map(|_| AtomicU32::new(0)).collect(),
            shift: 64 - windows.trailing_zeros(),
            seed,
            added: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            returned: AtomicU64::new(0),
        }
    }

    /// Bytes of a table with room for `capacity` conversations.
    pub(crate) fn bytes_of(capacity: usize) -> usize {
        let slots = capacity.max(2 * WINDOW).next_power_of_two();
        slots * (1 + WORDS) * size_of::<AtomicU64>() + PortId::COUNT_MAX * size_of::<AtomicU32>()
    }

    /// How many entries were ever made. An entry is in its place before it is counted.
    #[inline(always)]
    pub(crate) fn made(&self) -> u64 {
        self.added.load(Ordering::Acquire)
    }

    /// True if any entry is kept for one of two ports. What passes between ports that are in no
    /// entry needs no look at its headers: this is all that it pays.
    #[inline(always)]
    #[must_use]
    pub fn concerns(&self, one: PortId, other: PortId) -> bool {
        self.held(one) | self.held(other) != 0
    }

    #[inline(always)]
    fn held(&self, port: PortId) -> u32 {
        self.held[port.index()].load(Ordering::Relaxed)
    }

    /// What is known of the conversation `answered`, whose speaker is behind this switch if
    /// `to_pod` says so.
    #[inline]
    #[must_use]
    pub fn known(&self, answered: &Tuple, to_pod: bool) -> Known {
        match self.carrier(answered) {
            Some(Carrier::Host) => Known::Host,
            Some(Carrier::Switch) => Known::Switch,
            None if to_pod && self.has_spoken(answered) => Known::Endpoint,
            None => Known::Nothing,
        }
    }

    /// Who carried `tuple` last.
    #[inline]
    #[must_use]
    pub fn carrier(&self, tuple: &Tuple) -> Option<Carrier> {
        self.find(&Key::of_tuple(tuple))
            .map(|(_, word)| word.carrier())
    }

    /// True if the source of `tuple` has spoken to what the kernel serves.
    #[inline]
    #[must_use]
    pub fn has_spoken(&self, tuple: &Tuple) -> bool {
        self.find(&Key::of_endpoint(tuple)).is_some()
    }

    /// Notes that `carrier` carried `tuple`, to or from the pod at `port`.
    pub fn carried(&self, tuple: &Tuple, carrier: Carrier, stage: Stage, port: PortId, now: Tick) {
        self.put(&Key::of_tuple(tuple), carrier, stage, port, now);
    }

    /// Notes that the source of `tuple`, the pod at `port`, spoke to what the kernel serves.
    pub fn has_now_spoken(&self, tuple: &Tuple, stage: Stage, port: PortId, now: Tick) {
        self.put(&Key::of_endpoint(tuple), Carrier::Host, stage, port, now);
    }

    /// Takes over what another knew of a conversation, which is no younger for that.
    pub fn recall(&self, entry: &Entry, now: Tick) {
        let key = match &entry.about {
            About::Tuple(tuple) => Key::of_tuple(tuple),
            About::Endpoint(tuple) => Key::of_endpoint(tuple),
        };
        let heard = Tick(now.0.saturating_sub(entry.age_seconds * 1000));
        self.put(&key, entry.carrier, entry.stage, entry.port, heard);
    }

    /// Forgets that the source of `tuple` spoke: it turned out to listen, so what it says are
    /// answers.
    pub fn listens(&self, tuple: &Tuple) {
        if let Some((slot, word)) = self.find(&Key::of_endpoint(tuple)) {
            self.remove(slot, word);
        }
    }

    /// Counts a frame that was given to the host for what is known here.
    pub fn count_returned(&self) {
        self.returned.fetch_add(1, Ordering::Relaxed);
    }

    /// The slot and the word of `key`.
    #[inline]
    fn find(&self, key: &Key) -> Option<(usize, Word)> {
        let (window, hash) = self.home(key);
        self.seek(window, hash)
    }

    /// Compares all of a window without a branch: a search that ends anywhere is a branch that no
    /// processor foresees.
    #[inline]
    fn seek(&self, window: usize, hash: u64) -> Option<(usize, Word)> {
        let mut found = 0;
        for (at, slot) in self.windows[window].0.iter().enumerate() {
            found |= u32::from(Word(slot.load(Ordering::Relaxed)).is(hash)) << at;
        }
        if found == 0 {
            return None;
        }
        let slot = window * WINDOW + found.trailing_zeros() as usize;
        let word = self.word(slot);
        // It may have gone since; then it is not there.
        word.is(hash).then_some((slot, word))
    }

    /// The window of a key, and the part of its hash that an entry bears.
    #[inline]
    fn home(&self, key: &Key) -> (usize, u64) {
        let hash = key.hash(self.seed);
        let bits = 64 - HASH_AT;
        ((hash >> self.shift) as usize, hash & ((1 << bits) - 1))
    }

    fn put(&self, key: &Key, carrier: Carrier, stage: Stage, port: PortId, now: Tick) {
        let (window, hash) = self.home(key);
        match self.seek(window, hash) {
            Some((slot, word)) if word.left(now).is_some() => {
                let stage = stage_after(word.stage(), stage);
                let fresh = Word::new(hash, carrier, stage, word.port(), now);
                // What is known already is left alone: a busy flow must not dirty a shared line.
                if fresh != word {
                    self.swap(slot, word, fresh);
                }
            }
            found => {
                // What has run out and still stands there was another conversation, perhaps of
                // another pod.
                if let Some((slot, word)) = found {
                    self.remove(slot, word);
                }
                self.add(window, Word::new(hash, carrier, stage, port, now), key, now);
            }
        }
    }

    /// Takes a slot of a window for `fresh`: an empty one, or the one that has least time left; of
    /// the port's own where it holds its share already.
    #[cold]
    fn add(&self, window: usize, fresh: Word, key: &Key, now: Tick) {
        let port = fresh.port();
        let full = self.held(port) as usize >= self.capacity() / QUOTA_SHARE;
        let slots = (window * WINDOW..)
            .take(WINDOW)
            .map(|slot| (slot, self.word(slot)));
        // Of two that differ in nothing the empty one.
        let left = |word: Word| match word {
            Word::EMPTY => 0,
            word => word.left(now).map_or(1, |left| left + 2),
        };
        let ours = |word: Word| word != Word::EMPTY && word.port() == port;
        let slot = slots
            .filter(|(_, word)| !full || ours(*word))
            .min_by_key(|(_, word)| left(*word));
        let Some((slot, held)) = slot else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        // Where another worker took it at this moment, the flow's next packet will do.
        if self.swap(slot, held, fresh) {
            self.held[port.index()].fetch_add(1, Ordering::Relaxed);
            self.added.fetch_add(1, Ordering::Release);
            if held != Word::EMPTY {
                let over = held.left(now).is_none();
                self.gone(held, if over { &self.expired } else { &self.evicted });
            }
            key.write(&self.keys[slot]);
        }
    }

    fn word(&self, slot: usize) -> Word {
        Word(self.windows[slot / WINDOW].0[slot % WINDOW].load(Ordering::Acquire))
    }

    fn swap(&self, slot: usize, from: Word, to: Word) -> bool {
        self.windows[slot / WINDOW].0[slot % WINDOW]
            .compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    fn remove(&self, slot: usize, word: Word) {
        if self.swap(slot, word, Word::EMPTY) {
            self.gone(word, &self.expired);
        }
    }

    /// The books of an entry that its owner has taken out.
    fn gone(&self, word: Word, count: &AtomicU64) {
        self.held[word.port().index()].fetch_sub(1, Ordering::Relaxed);
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes what has run out, looking at `slots` slots from `cursor` on. Returns the cursor to
    /// go on with.
    pub fn age(&self, cursor: usize, slots: usize, now: Tick) -> usize {
        let mask = self.capacity() - 1;
        for step in 0..slots.min(self.capacity()) {
            let slot = (cursor + step) & mask;
            let word = self.word(slot);
            if word != Word::EMPTY && word.left(now).is_none() {
                self.remove(slot, word);
            }
        }
        (cursor + slots) & mask
    }

    /// Forgets every entry kept for `port`: its pod is gone.
    pub fn forget_port(&self, port: PortId) {
        if self.held(port) == 0 {
            return;
        }
        for slot in 0..self.capacity() {
            let word = self.word(slot);
            if word != Word::EMPTY && word.port() == port {
                self.remove(slot, word);
            }
        }
    }

    /// Every entry with its key, in no order. An entry that changes at this moment may be missing.
    pub fn entries(&self, now: Tick) -> impl Iterator<Item = Entry> + '_ {
        (0..self.capacity()).filter_map(move |slot| {
            let word = self.word(slot);
            let left = word.left(now).filter(|_| word != Word::EMPTY)?;
            let key = Key::read(&self.keys[slot]);
            let (window, hash) = self.home(&key);
            let its_own = word.is(hash) && window == slot / WINDOW;
            Some(Entry {
                about: key.about().filter(|_| its_own)?,
                carrier: word.carrier(),
                stage: word.stage(),
                port: word.port(),
                age_seconds: (life(word.stage()) - left) * UNIT_MS / 1000,
                seconds_left: left * UNIT_MS / 1000,
            })
        })
    }

    /// The counters.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let live = self.held.iter().map(|held| held.load(Ordering::Relaxed));
        Totals {
            live: live.map(u64::from).sum(),
            added: get(&self.added),
            expired: get(&self.expired),
            evicted: get(&self.evicted),
            refused: get(&self.refused),
            returned: get(&self.returned),
        }
    }

    /// Slots in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.windows.len() * WINDOW
    }
}

impl fmt::Debug for Returns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Returns")
            .field("capacity", &self.capacity())
            .field("totals", &self.totals())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
