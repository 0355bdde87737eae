//! The real switch and the oracle side by side, on memory ports.
//!
//! In: steps. Out: nothing, or the first thing in which they differ, in words.
//! Never: looks away: after every step deliveries, counters, learned stations and the law of
//! conservation are compared, all of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::addr::{Mac, PortId};
use dataplane::buffer::FRAME_MAX;
use dataplane::clock::Tick;
use dataplane::frame::FrameView;
use dataplane::port::memory::{MemoryPort, Peer, WireFrame, pair};
use dataplane::snapshot::Publisher;
use dataplane::stats::Drops;
use dataplane::tables::fdb::Fdb;
use dataplane::tables::{Tables, TablesSpec};
use dataplane::verdict::DropReason;
use dataplane::worker::Worker;

use super::pieces::{Name, Piece, V6_MS};
use super::{Arrival, Books, Deliveries, Oracle, Told};

/// Slots of the FDB. All are looked at in one round of chores, so that stations age on time; and
/// they are ten times what a history names, so that no window of eight overflows.
const STATIONS: usize = 1024;

/// Packets in pieces at a time: each may be in the same set of the real table, which has so many
/// places.
const IN_PIECES: usize = 8;

/// Orders of next hops that are tried before a difference counts: all of four.
const ORDERS_MAX: usize = 24;

/// Breaths after which everything must be at rest.
const BREATHS_MAX: usize = 512;

/// What happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// Frames come in, at most as many as a port holds, before the worker breathes.
    Frames(Vec<Arrival>),
    /// Time passes, in milliseconds.
    Wait(u64),
    /// Control publishes other tables.
    Publish(Box<TablesSpec>),
    /// A port goes, if it is there.
    Detach(PortId),
    /// A port comes, if it is not.
    Attach(PortId),
}

/// Both switches.
pub struct Trial {
    publisher: Publisher<Tables>,
    worker: Worker<MemoryPort>,
    peers: BTreeMap<PortId, Peer>,
    oracle: Oracle,
    /// Frames that a port holds.
    depth: usize,
    now: u64,
    shared_limits: u64,
    /// Packets of which pieces came in of late, and until when that counts.
    in_pieces: BTreeMap<Name, u64>,
}

impl Trial {
    /// Both, with the same tables, and ports that hold `depth` frames.
    ///
    /// # Panics
    /// If `spec` is no table.
    #[must_use]
    pub fn new(spec: &TablesSpec, depth: usize) -> Trial {
        let publisher = Publisher::new(built(spec));
        let fdb = Arc::new(Fdb::new(STATIONS, 7));
        let worker = Worker::new(publisher.reader(), fdb, FRAME_MAX);
        let mut trial = Trial {
            publisher,
            worker,
            peers: BTreeMap::new(),
            oracle: Oracle::new(spec.clone()),
            depth,
            now: 0,
            shared_limits: 0,
            in_pieces: BTreeMap::new(),
        };
        for row in &spec.ports {
            trial.attach(row.id);
        }
        trial
    }

    /// ICMP errors that a limit held back which two hosts shared, and the oracle did not know.
    #[must_use]
    pub fn shared_limits(&self) -> u64 {
        self.shared_limits
    }

    /// What the oracle counted, which is what the switch counted.
    #[must_use]
    pub fn books(&self) -> &Books {
        self.oracle.books()
    }

    fn attach(&mut self, port: PortId) {
        let (end, peer) = pair(self.depth);
        self.worker.attach(port, end);
        self.peers.insert(port, peer);
        self.oracle.attach(port, self.depth);
    }

    /// Does it to both, and compares.
    ///
    /// # Errors
    /// In what they differ.
    ///
    /// # Panics
    /// If the worker finds that it lost a frame, or the step publishes what is no table.
    pub fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Frames(arrivals) => self.frames(arrivals),
            Step::Wait(ms) => {
                self.now = self.now.saturating_add(ms);
                self.breathe(Vec::new())
            }
            Step::Publish(spec) => {
                self.publisher.publish(built(&spec));
                self.oracle.publish(*spec);
                self.breathe(Vec::new())
            }
            Step::Detach(port) => {
                let gone = self.worker.detach(port);
                assert_eq!(gone.is_some(), self.peers.remove(&port).is_some());
                self.oracle.detach(port);
                self.breathe(Vec::new())
            }
            Step::Attach(port) => {
                if !self.peers.contains_key(&port) {
                    self.attach(port);
                }
                self.breathe(Vec::new())
            }
        }
    }

    /// Of packets in pieces only as many come in at a time as the real switch has places in each of
    /// its sets: what happens beyond that is not modelled.
    fn is_watched(&mut self, arrival: &Arrival) -> bool {
        let view = FrameView::parse(&arrival.frame.bytes);
        let piece = view.ok().and_then(|view| Piece::of(&view, arrival.ingress));
        let Some(piece) = piece else {
            return true;
        };
        let now = self.now;
        self.in_pieces.retain(|_, until| now < *until);
        if self.in_pieces.len() == IN_PIECES && !self.in_pieces.contains_key(&piece.name) {
            return false;
        }
        self.in_pieces.insert(piece.name, now + 2 * V6_MS);
        true
    }

    /// The worker turns to its ports by their numbers, and takes what each has in its order.
    fn frames(&mut self, mut arrivals: Vec<Arrival>) -> Result<(), String> {
        arrivals.retain(|arrival| self.is_watched(arrival));
        arrivals.sort_by_key(|arrival| arrival.ingress);
        let mut sent = Vec::new();
        for arrival in arrivals {
            let Some(peer) = self.peers.get(&arrival.ingress) else {
                continue;
            };
            let frame = &arrival.frame;
            if peer.send_with(&frame.bytes, frame.offload).is_ok() {
                self.worker.wake(arrival.ingress);
                sent.push(arrival);
            }
        }
        self.breathe(sent)
    }

    fn breathe(&mut self, arrivals: Vec<Arrival>) -> Result<(), String> {
        let mut breaths = 0;
        while self.worker.breathe(Tick(self.now)).more {
            breaths += 1;
            assert!(breaths < BREATHS_MAX, "the worker never comes to rest");
        }
        let real = self.take();
        let before = self.oracle.clone();
        let mut differs = String::new();
        for (order, silent) in attempts(&before.next_hops()) {
            let mut oracle = before.clone();
            oracle.look_in_order(&order);
            if silent {
                oracle.keep_silent();
            }
            let mut arrivals = arrivals.clone();
            while oracle.breathe(self.now, std::mem::take(&mut arrivals)) {}
            let expected = oracle.take();
            match self.compare(&oracle, &real, &expected) {
                Ok(()) => {
                    self.shared_limits += u64::from(silent);
                    self.oracle = oracle;
                    return Ok(());
                }
                Err(difference) if differs.is_empty() => differs = difference,
                Err(_) => {}
            }
        }
        Err(format!("at {} ms: {differs}", self.now))
    }

    fn take(&self) -> Deliveries {
        let mut out = Deliveries::new();
        for (port, peer) in &self.peers {
            while let Some(frame) = peer.receive() {
                out.entry(*port).or_default().push(frame);
            }
        }
        out
    }

    fn compare(
        &self,
        oracle: &Oracle,
        real: &Deliveries,
        expected: &Deliveries,
    ) -> Result<(), String> {
        let (books, counted) = (oracle.books(), self.counted());
        if *books != counted {
            return Err(format!("the switch counted {counted:?}, and not {books:?}"));
        }
        if !books.is_balanced() {
            return Err(format!("frames are missing in {books:?}"));
        }
        if real != expected {
            return Err(format!("out came {}, not {}", hex(real), hex(expected)));
        }
        let entries = self.worker.fdb().entries();
        let found: BTreeMap<Mac, PortId> = entries.map(|(mac, port, _)| (mac, port)).collect();
        let learned = oracle.learned();
        if found != learned {
            return Err(format!("the switch learned {found:?}, and not {learned:?}"));
        }
        let now = Tick(self.now);
        let entries = self.worker.returns().entries(now);
        let found: Told = entries
            .map(|entry| (entry.about, (entry.carrier, entry.stage, entry.port)))
            .collect();
        let told = oracle.told();
        if found != told {
            return Err(unlike(&found, &told));
        }
        let ways = (self.worker.returns().totals().live, oracle.ways() as u64);
        if ways.0 != ways.1 {
            return Err(format!(
                "{} conversations are known, not {}",
                ways.0, ways.1
            ));
        }
        Ok(())
    }

    /// The switch's counters, as the oracle has them.
    fn counted(&self) -> Books {
        let board = self.worker.board();
        let counts = board.counts();
        let mut books = Books {
            received: counts.received,
            originated: counts.originated,
            copied: counts.copied,
            transmitted: counts.transmitted,
            punted: counts.punted,
            queued: counts.queued,
            suppressed: board.errors_suppressed(),
            dropped: BTreeMap::new(),
            gone: counts.dropped.total(),
            observed: BTreeMap::new(),
            observed_gone: board.observed().total(),
        };
        for port in (0..super::universe::PORTS_MAX).filter_map(PortId::new) {
            let counts = board.port(port);
            books.gone -= counts.dropped.total();
            books.observed_gone -= counts.observed.total();
            let rows = |drops: Drops| -> Vec<((PortId, DropReason), u64)> {
                drops.iter().map(|(why, n)| ((port, why), n)).collect()
            };
            books.dropped.extend(rows(counts.dropped));
            books.observed.extend(rows(counts.observed));
        }
        books
    }
}

fn built(spec: &TablesSpec) -> Tables {
    Tables::build(spec).unwrap_or_else(|faults| panic!("no table: {faults:?}"))
}

/// The conversations in which two sides differ.
fn unlike(found: &Told, told: &Told) -> String {
    let only = |some: &Told, other: &Told| {
        let rows = some
            .iter()
            .filter(|(about, way)| other.get(about) != Some(way));
        rows.map(|row| format!("\n  {row:?}")).collect::<String>()
    };
    let (real, model) = (only(found, told), only(told, found));
    format!("known of conversations is{real}\nand not{model}")
}

/// What may explain a difference, one after the other: nothing; another order of next hops; a limit
/// that hosts share.
fn attempts(next_hops: &[IpAddr]) -> impl Iterator<Item = (Vec<IpAddr>, bool)> {
    let orders = permutations(next_hops);
    let plain: Vec<(Vec<IpAddr>, bool)> = orders
        .take(ORDERS_MAX)
        .map(|order| (order, false))
        .collect();
    let silent = (next_hops.to_vec(), true);
    plain.into_iter().chain([silent])
}

/// All orders, the given one first.
fn permutations(items: &[IpAddr]) -> Box<dyn Iterator<Item = Vec<IpAddr>> + '_> {
    if items.len() < 2 {
        return Box::new(std::iter::once(items.to_vec()));
    }
    let starts = (0..items.len()).flat_map(move |first| {
        let mut rest = items.to_vec();
        let head = rest.remove(first);
        let tails: Vec<Vec<IpAddr>> = permutations(&rest).collect();
        tails
            .into_iter()
            .map(move |tail| [vec![head], tail].concat())
    });
    Box::new(starts)
}

fn hex(deliveries: &Deliveries) -> String {
    let mut text = String::new();
    for (port, frames) in deliveries {
        for WireFrame { bytes, offload } in frames {
            let octets: String = bytes
                .iter()
                .take(100)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            text += &format!("\n  {port:?} {} bytes {offload:?} {octets}", bytes.len());
        }
    }
    if text.is_empty() {
        "nothing".to_owned()
    } else {
        text
    }
}
