//! Counters: every frame in, every frame out, every death by its reason, for each port.
//!
//! In: increments by the one worker that owns the board. Out: [`Counts`] for anyone who reads.
//! Beside them stands what guards only observed: those frames went on, so they are no part of the law.
//! Never: loses the law: received + originated + copied = transmitted + dropped + punted + queued.
//!
//! A refusal by decision is booked on the port the frame came in by; a refusal at the door out
//! (`queue_full`, `port_down`) on the port that refused.

use std::fmt;

use crossbeam::utils::CachePadded;

use crate::addr::PortId;
use crate::buffer::Frame;
use crate::sync::Counter;
use crate::verdict::DropReason;

/// A counter for each reason.
#[derive(Debug)]
struct Deaths([Counter; DropReason::COUNT]);

impl Default for Deaths {
    fn default() -> Deaths {
        Deaths(std::array::from_fn(|_| Counter::default()))
    }
}

impl Deaths {
    fn add(&self, more: &Drops) {
        for (reason, count) in more.iter() {
            self.0[reason as usize].add(count);
        }
    }

    fn drops(&self) -> Drops {
        Drops(std::array::from_fn(|at| self.0[at].get()))
    }

    fn begin_anew(&self) {
        for counter in &self.0 {
            counter.set(0);
        }
    }
}

/// Counters of one port.
#[derive(Debug, Default)]
struct PortBoard {
    received: Counter,
    received_bytes: Counter,
    transmitted: Counter,
    transmitted_bytes: Counter,
    dropped: Deaths,
    observed: Deaths,
}

impl PortBoard {
    fn counts(&self) -> PortCounts {
        PortCounts {
            received: self.received.get(),
            received_bytes: self.received_bytes.get(),
            transmitted: self.transmitted.get(),
            transmitted_bytes: self.transmitted_bytes.get(),
            dropped: self.dropped.drops(),
            observed: self.observed.drops(),
        }
    }

    fn add(&self, more: &PortCounts) {
        self.received.add(more.received);
        self.received_bytes.add(more.received_bytes);
        self.transmitted.add(more.transmitted);
        self.transmitted_bytes.add(more.transmitted_bytes);
        self.dropped.add(&more.dropped);
        self.observed.add(&more.observed);
    }

    fn begin_anew(&self) {
        for counter in [
            &self.received,
            &self.received_bytes,
            &self.transmitted,
            &self.transmitted_bytes,
        ] {
            counter.set(0);
        }
        self.dropped.begin_anew();
        self.observed.begin_anew();
    }
}

/// Bytes of a worker's counters.
pub(crate) const BYTES: usize =
    size_of::<Board>() + PortId::COUNT_MAX * size_of::<CachePadded<PortBoard>>();

/// The counters of one worker: it alone writes, anybody reads.
#[derive(Debug)]
pub struct Board {
    received: Counter,
    originated: Counter,
    copied: Counter,
    transmitted: Counter,
    punted: Counter,
    queued: Counter,
    super_frames: Counter,
    errors_suppressed: Counter,
    dropped: Deaths,
    observed: Deaths,
    ports: Box<[CachePadded<PortBoard>]>,
    /// Of ports whose number another has now.
    gone: PortBoard,
}

impl Default for Board {
    fn default() -> Board {
        Board {
            received: Counter::default(),
            originated: Counter::default(),
            copied: Counter::default(),
            transmitted: Counter::default(),
            punted: Counter::default(),
            queued: Counter::default(),
            super_frames: Counter::default(),
            errors_suppressed: Counter::default(),
            dropped: Deaths::default(),
            observed: Deaths::default(),
            ports: (0..PortId::COUNT_MAX)
                .map(|_| CachePadded::default())
                .collect(),
            gone: PortBoard::default(),
        }
    }
}

impl Board {
    /// Every counter at nought, of the first `ports` ports: the others have counted nothing.
    pub(crate) fn begin_anew(&self, ports: usize) {
        for counter in [
            &self.received,
            &self.originated,
            &self.copied,
            &self.transmitted,
            &self.punted,
            &self.queued,
            &self.super_frames,
            &self.errors_suppressed,
        ] {
            counter.set(0);
        }
        self.dropped.begin_anew();
        self.observed.begin_anew();
        self.ports[..ports]
            .iter()
            .for_each(|port| port.begin_anew());
        self.gone.begin_anew();
    }

    /// Port `port` begins at nought: what stands there was counted by one that had its number before.
    /// The totals stay as they are.
    #[cold]
    pub(crate) fn begin_port(&self, port: PortId) {
        let board = &self.ports[port.index()];
        self.gone.add(&board.counts());
        board.begin_anew();
    }

    #[inline]
    pub(crate) fn received(&self, port: PortId, burst: &[Frame]) {
        let (mut bytes, mut super_frames) = (0, 0);
        for frame in burst {
            bytes += frame.len() as u64;
            super_frames += u64::from(frame.offload.is_super_frame());
        }
        self.received.add(burst.len() as u64);
        self.super_frames.add(super_frames);
        self.ports[port.index()].received.add(burst.len() as u64);
        self.ports[port.index()].received_bytes.add(bytes);
    }

    #[inline]
    pub(crate) fn transmitted(&self, port: PortId, frames: u64, bytes: usize) {
        self.transmitted.add(frames);
        let port = &self.ports[port.index()];
        port.transmitted.add(frames);
        port.transmitted_bytes.add(bytes as u64);
    }

    #[inline]
    pub(crate) fn dropped(&self, port: PortId, reason: DropReason) {
        self.dropped.0[reason as usize].add(1);
        self.ports[port.index()].dropped.0[reason as usize].add(1);
    }

    /// A guard that only observes would have refused a frame that came in by `port`.
    #[cold]
    pub(crate) fn observed_one(&self, port: PortId, reason: DropReason) {
        self.observed.0[reason as usize].add(1);
        self.ports[port.index()].observed.0[reason as usize].add(1);
    }

    #[inline]
    pub(crate) fn originated(&self) {
        self.originated.add(1);
    }

    #[inline]
    pub(crate) fn copied(&self, copies: u64) {
        self.copied.add(copies);
    }

    #[inline]
    pub(crate) fn punted(&self) {
        self.punted.add(1);
    }

    #[inline]
    pub(crate) fn error_suppressed(&self) {
        self.errors_suppressed.add(1);
    }

    #[inline]
    pub(crate) fn queued(&self, frames: usize) {
        self.queued.set(frames as u64);
    }

    /// The totals as they stand. Exact between batches; from another thread while frames move,
    /// the terms may be of neighbouring moments.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            received: self.received.get(),
            originated: self.originated.get(),
            copied: self.copied.get(),
            transmitted: self.transmitted.get(),
            punted: self.punted.get(),
            queued: self.queued.get(),
            dropped: self.dropped.drops(),
        }
    }

    /// What guards objected to and let pass, since they only observe: frames by the reason for
    /// which they would have died.
    #[must_use]
    pub fn observed(&self) -> Drops {
        self.observed.drops()
    }

    /// Frames received that stood for several segments.
    #[must_use]
    pub fn super_frames(&self) -> u64 {
        self.super_frames.get()
    }

    /// ICMP errors that were due, and not sent: a rate limit said so, or no buffer was free.
    #[must_use]
    pub fn errors_suppressed(&self) -> u64 {
        self.errors_suppressed.get()
    }

    /// The counters of one port.
    #[must_use]
    pub fn port(&self, port: PortId) -> PortCounts {
        self.ports[port.index()].counts()
    }

    /// All there is to read, for another board to go on from.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        let ports = (0..PortId::COUNT_MAX).filter_map(PortId::new);
        let ports = ports.map(|port| (port, self.port(port)));
        Ledger {
            counts: self.counts(),
            super_frames: self.super_frames(),
            errors_suppressed: self.errors_suppressed(),
            ports: ports
                .filter(|(_, counts)| *counts != PortCounts::default())
                .collect(),
            gone: self.gone.counts(),
        }
    }

    /// Goes on from the ledger of another, in which nothing is queued. The law holds after it as
    /// before, since it holds in the ledger.
    pub(crate) fn carry_on(&self, ledger: &Ledger) {
        let counts = &ledger.counts;
        self.received.add(counts.received);
        self.originated.add(counts.originated);
        self.copied.add(counts.copied);
        self.transmitted.add(counts.transmitted);
        self.punted.add(counts.punted);
        self.super_frames.add(ledger.super_frames);
        self.errors_suppressed.add(ledger.errors_suppressed);
        self.dropped.add(&counts.dropped);
        for (port, counts) in &ledger.ports {
            self.ports[port.index()].add(counts);
        }
        self.gone.add(&ledger.gone);
        self.observed.add(&ledger.observed());
    }

    /// Nothing is created or lost: every frame that came in, was made, or was copied has left by
    /// a port, died for a reason, gone to the slow path, or waits.
    pub(crate) fn assert_balanced(&self) {
        let counts = self.counts();
        assert!(counts.is_balanced(), "frames leaked: {counts}");
    }
}

/// The counters of a worker, or of several, to be looked at, or handed to one that goes on in its place.
/// Read between two breaths the law holds in them, and what ports count, with those that are gone, adds
/// up to the totals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The totals.
    pub counts: Counts,
    /// Frames received that stood for several segments.
    pub super_frames: u64,
    /// ICMP errors that were due, and not sent.
    pub errors_suppressed: u64,
    /// Of each port that has any.
    pub ports: Vec<(PortId, PortCounts)>,
    /// Of all ports whose number another has now.
    pub gone: PortCounts,
}

impl Ledger {
    /// The counters of one port.
    #[must_use]
    pub fn port(&self, port: PortId) -> PortCounts {
        let mut ports = self.ports.iter();
        let found = ports.find(|(other, _)| *other == port);
        found.map(|(_, counts)| *counts).unwrap_or_default()
    }

    /// What guards objected to and let pass, since they only observe.
    #[must_use]
    pub fn observed(&self) -> Drops {
        let ports = self.ports.iter();
        ports.fold(self.gone.observed, |all, (_, counts)| {
            all.plus(&counts.observed)
        })
    }

    /// The ledgers of two workers.
    #[must_use]
    pub fn plus(mut self, other: &Ledger) -> Ledger {
        self.counts = self.counts.plus(other.counts);
        self.super_frames += other.super_frames;
        self.errors_suppressed += other.errors_suppressed;
        for (port, counts) in &other.ports {
            match self.ports.iter_mut().find(|(known, _)| known == port) {
                Some((_, sum)) => *sum = sum.plus(*counts),
                None => self.ports.push((*port, *counts)),
            }
        }
        self.gone = self.gone.plus(other.gone);
        self
    }

    /// A frame that waits leaves these books, and is received anew in those of the next.
    pub(crate) fn hand_on(&mut self, ingress: PortId, frame: &Frame) {
        self.counts.received -= 1;
        self.counts.queued -= 1;
        self.super_frames -= u64::from(frame.offload.is_super_frame());
        let bytes = frame.len() as u64;
        let mut ports = self.ports.iter_mut();
        // Where the number has changed hands since, the one before may have received it.
        let book = ports.find(|(port, counts)| *port == ingress && counts.received_bytes >= bytes);
        let book = book.map_or(&mut self.gone, |(_, counts)| counts);
        book.received -= 1;
        book.received_bytes -= bytes;
    }
}

/// Deaths by reason.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Drops([u64; DropReason::COUNT]);

impl Default for Drops {
    fn default() -> Drops {
        Drops([0; DropReason::COUNT])
    }
}

impl Drops {
    /// No deaths.
    pub const NONE: Drops = Drops([0; DropReason::COUNT]);

    /// One death of one reason: what a test expects.
    #[must_use]
    pub fn one(reason: DropReason) -> Drops {
        let mut drops = Drops::default();
        drops.0[reason as usize] = 1;
        drops
    }

    /// How many died for `reason`.
    #[must_use]
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// How many died in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons for which any died.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL
            .iter()
            .map(|r| (*r, self.of(*r)))
            .filter(|(_, n)| *n > 0)
    }

    pub(crate) fn plus(&self, other: &Drops) -> Drops {
        Drops(std::array::from_fn(|at| self.0[at] + other.0[at]))
    }

    fn since(&self, earlier: &Drops) -> Drops {
        Drops(std::array::from_fn(|at| self.0[at] - earlier.0[at]))
    }
}

impl FromIterator<(DropReason, u64)> for Drops {
    fn from_iter<I: IntoIterator<Item = (DropReason, u64)>>(deaths: I) -> Drops {
        let mut drops = Drops::NONE;
        for (reason, count) in deaths {
            drops.0[reason as usize] += count;
        }
        drops
    }
}

impl fmt::Debug for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(r, n)| (r.label(), n)))
            .finish()
    }
}

/// Totals of a worker at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames that ports handed in.
    pub received: u64,
    /// Frames the switch made itself: ARP answers and questions, ICMP errors.
    pub originated: u64,
    /// Frames beyond the first that flooding made of one, segmentation or fragmentation.
    pub copied: u64,
    /// Frames that ports took.
    pub transmitted: u64,
    /// Frames that the slow path consumed.
    pub punted: u64,
    /// Frames that wait for a next hop's address now.
    pub queued: u64,
    /// Deaths by reason.
    pub dropped: Drops,
}

impl Counts {
    /// The law of conservation.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.received + self.originated + self.copied
            == self.transmitted + self.dropped.total() + self.punted + self.queued
    }

    /// The totals of two workers.
    #[must_use]
    pub fn plus(self, other: Counts) -> Counts {
        Counts {
            received: self.received + other.received,
            originated: self.originated + other.originated,
            copied: self.copied + other.copied,
            transmitted: self.transmitted + other.transmitted,
            punted: self.punted + other.punted,
            queued: self.queued + other.queued,
            dropped: self.dropped.plus(&other.dropped),
        }
    }

    /// What happened after `earlier`. `queued` is a gauge and stays as it is now.
    #[must_use]
    pub fn since(&self, earlier: &Counts) -> Counts {
        Counts {
            received: self.received - earlier.received,
            originated: self.originated - earlier.originated,
            copied: self.copied - earlier.copied,
            transmitted: self.transmitted - earlier.transmitted,
            punted: self.punted - earlier.punted,
            queued: self.queued,
            dropped: self.dropped.since(&earlier.dropped),
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} received + {} originated + {} copied = {} transmitted + {} dropped + {} punted + {} queued",
            self.received,
            self.originated,
            self.copied,
            self.transmitted,
            self.dropped.total(),
            self.punted,
            self.queued
        )
    }
}

/// Counters of a port at one moment. Bytes are without FCS, of super-frames as they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounts {
    /// Frames that came in here.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames that went out here.
    pub transmitted: u64,
    /// Their bytes.
    pub transmitted_bytes: u64,
    /// Deaths booked here.
    pub dropped: Drops,
    /// What came in here, and would have died if its guards did more than observe.
    pub observed: Drops,
}

impl PortCounts {
    /// The counters of two queues of the port.
    #[must_use]
    pub fn plus(self, other: PortCounts) -> PortCounts {
        PortCounts {
            received: self.received + other.received,
            received_bytes: self.received_bytes + other.received_bytes,
            transmitted: self.transmitted + other.transmitted,
            transmitted_bytes: self.transmitted_bytes + other.transmitted_bytes,
            dropped: self.dropped.plus(&other.dropped),
            observed: self.observed.plus(&other.observed),
        }
    }
}
