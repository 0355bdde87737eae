//! One worker: it moves frames through the five rooms, and counts every exit.
//!
//! In: ports, tables as published, and the time. Out: frames, counters, learned stations.
//! Never: on a frame's way opens a file, reads a clock, takes a lock, allocates or logs.
//!
//! The rooms, in order: `receive` (the port), `view` ([`FrameView::parse`]), `decide`
//! ([`forward::decide`]), `rewrite` ([`rewrite::rewrite`]), `transmit` (the port). A frame goes
//! through them one at a time, while it is still in the cache, and never back.

use std::net::IpAddr;

use crate::addr::{Mac, PortId, PortSet};
use crate::buffer::{FRAME_MAX, Frame, Pool};
use crate::clock::Tick;
use crate::forward::{self, World};
use crate::frame::ethernet::HEADER_LEN;
use crate::frame::{FrameView, Network};
use crate::gossip::{Gossip, Heard};
use crate::port::{BURST_FRAMES, Flushed, Port, Ready, Taken};
use crate::rewrite;
use crate::slow::{self, Speaker};
use crate::snapshot::Reader;
use crate::stats::Board;
use crate::sync::Arc;
use crate::tables::fdb::{AGE_SECONDS_DEFAULT, Fdb};
use crate::tables::neighbour::{Neighbours, Question, Refused, WAITING_TOTAL_MAX, Waiting};
use crate::tables::{Crossing, PortRole, Tables};
use crate::verdict::{DropReason, Punt, Rewrite, Verdict};

/// Slots of a worker's pool: one burst, every frame that may wait for a neighbour, and a few for
/// what the switch makes itself in between.
pub const POOL_SLOTS: usize = BURST_FRAMES + WAITING_TOTAL_MAX + 8;

/// Ports worth asking directly: a conversation has two, and crosses host port or uplink.
const RECENT_MAX: usize = 4;

/// Between two looks at timers and ages.
const CHORES_MS: u64 = 100;

/// Slots of the FDB looked at in one round of chores: the default table is swept in 0.8 s.
const AGE_SLOTS: usize = 1024;

/// Questions for neighbours in one round of chores.
const QUESTIONS_MAX: usize = 64;

/// ICMP errors in one second (`icmp_msgs_per_sec` of the kernel is 1000 for the whole machine).
const ERRORS_PER_SECOND: u32 = 1000;

/// What a breath came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breath {
    /// Frames received.
    pub frames: usize,
    /// Some port has more, so the next breath should come at once.
    pub more: bool,
    /// Other workers were told something that they may wait for.
    pub told: bool,
}

/// A worker and all that is its own.
#[derive(Debug)]
pub struct Worker<P> {
    ports: Vec<Option<P>>,
    ready: PortSet,
    /// Ports that handed in frames since the worker was last told to forget.
    recent: PortSet,
    pool: Pool,
    batch: Vec<Frame>,
    /// Frames that a port has taken for later: their buffers are in use until it is flushed.
    held: Vec<Frame>,
    /// Ports that have taken frames for later.
    unflushed: PortSet,
    flushed: Vec<Flushed>,
    reader: Reader<Tables>,
    fdb: Arc<Fdb>,
    neighbours: Neighbours,
    gossip: Gossip,
    told: bool,
    board: Arc<Board>,
    questions: Vec<Question>,
    failed: Vec<Waiting>,
    chores_due: Tick,
    age_cursor: usize,
    errors_left: u32,
    errors_second: u64,
}

impl<P: Port> Worker<P> {
    /// A worker without ports, whose pool holds frames of up to `frame_max` bytes.
    #[must_use]
    pub fn new(reader: Reader<Tables>, fdb: Arc<Fdb>, frame_max: usize) -> Worker<P> {
        Worker {
            ports: Vec::new(),
            ready: PortSet::default(),
            recent: PortSet::default(),
            pool: Pool::new(POOL_SLOTS, frame_max.min(FRAME_MAX)),
            batch: Vec::with_capacity(BURST_FRAMES),
            held: Vec::with_capacity(POOL_SLOTS),
            unflushed: PortSet::default(),
            flushed: Vec::with_capacity(POOL_SLOTS),
            reader,
            fdb,
            neighbours: Neighbours::default(),
            gossip: Gossip::default(),
            told: false,
            board: Arc::default(),
            questions: Vec::with_capacity(QUESTIONS_MAX),
            failed: Vec::with_capacity(WAITING_TOTAL_MAX),
            chores_due: Tick::default(),
            age_cursor: 0,
            errors_left: ERRORS_PER_SECOND,
            errors_second: 0,
        }
    }

    /// The counters.
    #[must_use]
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// The learned stations.
    #[must_use]
    pub fn fdb(&self) -> &Arc<Fdb> {
        &self.fdb
    }

    /// Makes it one of several workers of a switch.
    pub fn join(&mut self, gossip: Gossip) {
        self.gossip = gossip;
    }

    /// Puts `port` in place `id`, and returns the one that was there.
    pub fn attach(&mut self, id: PortId, port: P) -> Option<P> {
        if self.ports.len() <= id.index() {
            self.ports.resize_with(id.index() + 1, || None);
        }
        self.ready.insert(id);
        self.ports[id.index()].replace(port)
    }

    /// Takes the port out of place `id`, and forgets the stations heard there.
    pub fn detach(&mut self, id: PortId) -> Option<P> {
        self.fdb.forget_port(id);
        self.ports.get_mut(id.index())?.take()
    }

    /// Says that frames may have come in at `id`.
    #[inline]
    pub fn wake(&mut self, id: PortId) {
        self.ready.insert(id);
    }

    /// Says that frames may have come in where some came in lately, if those are few: asking a
    /// handful of ports directly costs less than asking which of all has something.
    pub fn wake_recent(&mut self) {
        if self.recent.len() <= RECENT_MAX {
            self.ready.insert_all(self.recent);
        }
    }

    /// Begins a new account of where frames come in.
    pub fn forget_recent(&mut self) {
        self.recent = PortSet::default();
    }

    /// Says that frames may have come in anywhere: for ports that cannot say so themselves.
    pub fn wake_all(&mut self) {
        let attached = self
            .ports
            .iter()
            .enumerate()
            .filter(|(_, port)| port.is_some());
        for id in attached.filter_map(|(index, _)| PortId::new(index)) {
            self.ready.insert(id);
        }
    }

    /// One breath: bounded work, then return. The caller owns the clock and the loop.
    ///
    /// # Panics
    /// If frames or buffers leaked: that is a mistake of ours, and no state after it can be
    /// trusted.
    pub fn breathe(&mut self, now: Tick) -> Breath {
        let tables = Arc::clone(self.reader.refresh());
        let (mut frames, mut more) = (0, false);
        while let Some(Heard { address, mac }) = self.gossip.listen() {
            self.hear(address, mac, &tables, now);
            self.flush();
        }
        // Whoever is ready has one turn; who becomes ready meanwhile has the next.
        for ingress in self.ready {
            let (burst, ready) = self.receive(ingress);
            if ready != Ready::More {
                self.ready.remove(ingress);
            }
            more |= ready == Ready::More;
            frames += burst;
            if burst > 0 {
                self.recent.insert(ingress);
            }
            self.pass_all(ingress, &tables, now);
        }
        if now >= self.chores_due {
            self.chores(&tables, now);
            self.flush();
        }
        self.assert_nothing_lost();
        let told = std::mem::take(&mut self.told);
        Breath { frames, more, told }
    }

    /// Nothing leaked: neither a frame from the books, nor a buffer from the pool.
    fn assert_nothing_lost(&self) {
        self.board.queued(self.neighbours.waiting());
        self.board.assert_balanced();
        let held = self.neighbours.waiting();
        let out = self.pool.slots() - self.pool.free();
        assert!(out == held, "buffers leaked: {out} are out, {held} wait");
    }

    /// The first room.
    fn receive(&mut self, ingress: PortId) -> (usize, Ready) {
        match self.ports.get_mut(ingress.index()) {
            Some(Some(port)) => {
                let ready = port.receive(&mut self.pool, &mut self.batch);
                (self.batch.len(), ready)
            }
            _ => (0, Ready::Empty),
        }
    }

    /// Takes a burst through the other rooms, oldest first.
    fn pass_all(&mut self, ingress: PortId, tables: &Tables, now: Tick) {
        let mut batch = std::mem::take(&mut self.batch);
        for frame in batch.drain(..) {
            self.board
                .received(ingress, frame.len(), frame.offload.is_super_frame());
            self.pass(frame, ingress, tables, now);
        }
        self.batch = batch;
        self.flush();
    }

    /// View, decide, rewrite, transmit.
    #[inline]
    fn pass(&mut self, frame: Frame, ingress: PortId, tables: &Tables, now: Tick) {
        // By reference: a copy would read what was written a moment ago in smaller pieces, and wait
        // until those are in the cache.
        let parsed = FrameView::parse(self.pool.bytes(&frame));
        let view = match &parsed {
            Ok(view) if frame.offload.fits(frame.len()) => view,
            Ok(_) => return self.drop(frame, ingress, DropReason::BadOffload),
            Err(reason) => return self.drop(frame, ingress, *reason),
        };
        let world = World {
            tables,
            fdb: &self.fdb,
            neighbours: &self.neighbours,
        };
        let verdict = forward::decide(view, frame.offload, ingress, world);
        self.learn(view, verdict, ingress, tables, now);
        match verdict {
            Verdict::Forward { egress, rewrite } => self.send(frame, view, egress, rewrite),
            Verdict::Flood => self.flood(frame, ingress, tables),
            Verdict::Punt(punt) => self.punt(frame, view, punt, ingress, tables, now),
            Verdict::Drop(reason) => self.refuse(frame, view, reason, ingress, tables, now),
        }
    }

    /// Only a frame that was let in teaches: a spoofed one must not move a station. The uplink
    /// teaches nothing, since all its frames have the fabric's address.
    #[inline]
    fn learn(
        &mut self,
        view: &FrameView,
        verdict: Verdict,
        ingress: PortId,
        tables: &Tables,
        now: Tick,
    ) {
        let let_in = !matches!(verdict, Verdict::Drop(_));
        let configured = tables.station(view.source.mac()).is_some();
        let outside = tables
            .port(ingress)
            .is_none_or(|port| port.role == PortRole::Uplink);
        if let_in && !configured && !outside {
            self.fdb.learn(view.source, ingress, now);
        }
    }

    /// The last two rooms.
    #[inline]
    fn send(&mut self, mut frame: Frame, view: &FrameView, egress: PortId, edits: Rewrite) {
        if edits != Rewrite::KEEP {
            rewrite::rewrite(self.pool.bytes_mut(&frame), view, edits);
        }
        let taken = self.transmit(&mut frame, egress);
        self.settle(frame, taken);
    }

    /// The last room: one frame to one port. Its exit is counted now, or when the port is flushed.
    /// It leaves the frame as it was.
    #[inline]
    fn transmit(&mut self, frame: &mut Frame, egress: PortId) -> Taken {
        let taken = match self.ports.get_mut(egress.index()) {
            Some(Some(port)) if !port.capabilities().take(frame.offload) => {
                self.finish(frame, egress);
                return Taken::Now;
            }
            Some(Some(port)) => port.transmit(frame, &mut self.pool),
            _ => Err(DropReason::PortDown),
        };
        match taken {
            Ok(Taken::Now) => self.board.transmitted(egress, frame.len()),
            Ok(Taken::Later) => {
                self.unflushed.insert(egress);
                return Taken::Later;
            }
            Err(reason) => self.board.dropped(egress, reason),
        }
        Taken::Now
    }

    /// A frame that has left gives its buffer back; one that a port holds keeps it.
    #[inline]
    fn settle(&mut self, frame: Frame, taken: Taken) {
        match taken {
            Taken::Now => self.pool.release(frame),
            Taken::Later => self.held.push(frame),
        }
    }

    /// Sends what ports took for later, counts those exits, and frees the buffers.
    fn flush(&mut self) {
        for egress in std::mem::take(&mut self.unflushed) {
            self.flush_port(egress);
        }
        for frame in self.held.drain(..) {
            self.pool.release(frame);
        }
    }

    /// Sends what one port took for later, and counts those exits.
    fn flush_port(&mut self, egress: PortId) {
        let Some(Some(port)) = self.ports.get_mut(egress.index()) else {
            return;
        };
        port.flush(&mut self.pool, &mut self.flushed);
        for Flushed { len, outcome } in self.flushed.drain(..) {
            match outcome {
                Ok(()) => self.board.transmitted(egress, len),
                Err(reason) => self.board.dropped(egress, reason),
            }
        }
    }

    /// The same buffer to every port; each copy has an exit of its own.
    fn flood(&mut self, mut frame: Frame, ingress: PortId, tables: &Tables) {
        let (mut copies, mut taken) = (0, Taken::Now);
        for egress in tables.floods().iter().filter(|egress| **egress != ingress) {
            if self.transmit(&mut frame, *egress) == Taken::Later {
                taken = Taken::Later;
            }
            copies += 1;
        }
        match copies {
            0 => self.drop(frame, ingress, DropReason::NoEgress),
            _ => {
                self.board.copied(copies - 1);
                self.settle(frame, taken);
            }
        }
    }

    #[inline]
    fn drop(&mut self, frame: Frame, ingress: PortId, reason: DropReason) {
        self.board.dropped(ingress, reason);
        self.pool.release(frame);
    }

    /// The slow path.
    #[cold]
    fn punt(
        &mut self,
        mut frame: Frame,
        view: &FrameView,
        punt: Punt,
        ingress: PortId,
        tables: &Tables,
        now: Tick,
    ) {
        match (punt, &view.network) {
            (Punt::Resolve { next_hop, egress }, _) => {
                self.wait(next_hop, egress, Waiting { frame, ingress }, tables, now);
            }
            (Punt::HearNeighbour { address, mac }, _) => {
                self.board.punted();
                self.pool.release(frame);
                self.told |= self.gossip.tell(Heard { address, mac });
                self.hear(address, mac, tables, now);
            }
            (Punt::AnswerArp { mac }, Network::Arp(question)) => {
                self.board.punted();
                let len = slow::arp_answer(self.pool.room(&frame), question, mac);
                frame.set_len(len);
                self.originate(frame, ingress);
            }
            (Punt::AnswerSolicitation { mac }, Network::Ipv6(packet)) => {
                self.board.punted();
                let asker = view.source.mac();
                match slow::advertisement(self.pool.room(&frame), packet, asker, mac) {
                    Some(len) => {
                        frame.set_len(len);
                        self.originate(frame, ingress);
                    }
                    None => self.pool.release(frame),
                }
            }
            (Punt::AnswerArp { .. } | Punt::AnswerSolicitation { .. }, _) => {
                unreachable!("decide answers a question only where it saw one");
            }
        }
    }

    /// Sends a frame of the switch's own making.
    fn originate(&mut self, mut frame: Frame, egress: PortId) {
        frame.offload = crate::frame::offload::Offload::NONE;
        self.board.originated();
        let taken = self.transmit(&mut frame, egress);
        self.settle(frame, taken);
    }

    fn wait(
        &mut self,
        next_hop: IpAddr,
        egress: PortId,
        frame: Waiting,
        tables: &Tables,
        now: Tick,
    ) {
        match self.neighbours.wait(next_hop, egress, frame, now) {
            Ok(()) => self.ask_neighbours(tables, now),
            Err(Refused(Waiting { frame, ingress })) => {
                self.drop(frame, ingress, DropReason::NeighbourQueueFull);
            }
        }
    }

    /// A neighbour told its address: what waited for it goes through `decide` once more.
    fn hear(&mut self, address: IpAddr, mac: Mac, tables: &Tables, now: Tick) {
        for Waiting { frame, ingress } in self.neighbours.hear(address, mac, now) {
            self.pass(frame, ingress, tables, now);
        }
    }

    /// A death that the sender may be told of.
    #[inline]
    fn refuse(
        &mut self,
        frame: Frame,
        view: &FrameView,
        reason: DropReason,
        ingress: PortId,
        tables: &Tables,
        now: Tick,
    ) {
        if let (Crossing::Routed { .. }, Network::Ipv4(_)) = (tables.crossing(), &view.network) {
            self.tell_sender(&frame, view, reason, ingress, tables, now);
        }
        self.drop(frame, ingress, reason);
    }

    #[cold]
    fn tell_sender(
        &mut self,
        frame: &Frame,
        view: &FrameView,
        reason: DropReason,
        ingress: PortId,
        tables: &Tables,
        now: Tick,
    ) {
        let Network::Ipv4(packet) = &view.network else {
            return;
        };
        let Some(speaker) = speaker(ingress, tables) else {
            return;
        };
        let Some(mut answer) = self.pool.take() else {
            return;
        };
        // The quote is copied first: both frames live in the one pool.
        let mut quote = [0; slow::QUOTE_MAX];
        let quoted = &self.pool.bytes(frame)[HEADER_LEN..];
        let quoted_len = quoted.len().min(quote.len());
        quote[..quoted_len].copy_from_slice(&quoted[..quoted_len]);
        let mtu = tables.uplink().map_or(1500, |uplink| uplink.mtu);
        let (room, quote) = (self.pool.room(&answer), &quote[..quoted_len]);
        let sender = view.source.mac();
        match slow::icmp_error(room, reason, packet, quote, sender, speaker, mtu) {
            Some(len) if self.may_speak(now) => {
                answer.set_len(len);
                self.originate(answer, ingress);
            }
            _ => self.pool.release(answer),
        }
    }

    /// The rate limit of ICMP errors: RFC 1812 4.3.2.8.
    fn may_speak(&mut self, now: Tick) -> bool {
        let second = now.0 / 1000;
        if second != self.errors_second {
            (self.errors_second, self.errors_left) = (second, ERRORS_PER_SECOND);
        }
        let may = self.errors_left > 0;
        self.errors_left = self.errors_left.saturating_sub(1);
        may
    }

    /// What time brings: questions for neighbours, frames that waited in vain, stations that fell
    /// silent.
    #[cold]
    fn chores(&mut self, tables: &Tables, now: Tick) {
        self.chores_due = now + CHORES_MS;
        let age = AGE_SECONDS_DEFAULT;
        (_, self.age_cursor) = self.fdb.age(self.age_cursor, AGE_SLOTS, age, now);
        self.ask_neighbours(tables, now);
    }

    fn ask_neighbours(&mut self, tables: &Tables, now: Tick) {
        if self.neighbours.is_empty() {
            return;
        }
        let mut questions = std::mem::take(&mut self.questions);
        let mut failed = std::mem::take(&mut self.failed);
        self.neighbours.tick(now, &mut questions, &mut failed);
        for question in questions.drain(..) {
            self.ask(&question, tables);
        }
        for Waiting { frame, ingress } in failed.drain(..) {
            let reason = DropReason::NeighbourFailed;
            match FrameView::parse(self.pool.bytes(&frame)) {
                Ok(view) => self.refuse(frame, &view, reason, ingress, tables, now),
                Err(_) => self.drop(frame, ingress, reason),
            }
        }
        (self.questions, self.failed) = (questions, failed);
    }

    /// Asks for a neighbour's hardware address in the node's own name.
    fn ask(&mut self, question: &Question, tables: &Tables) {
        let (IpAddr::V4(target), Some(asker)) =
            (question.address, speaker(question.egress, tables))
        else {
            return;
        };
        let Some(mut frame) = self.pool.take() else {
            return;
        };
        let len = slow::arp_question(self.pool.room(&frame), question, target, asker);
        frame.set_len(len);
        self.originate(frame, question.egress);
    }
}

/// In whose name the switch speaks on a port: the node's on the uplink, the gateway's elsewhere.
fn speaker(port: PortId, tables: &Tables) -> Option<Speaker> {
    let Crossing::Routed { uplink, gateway } = tables.crossing() else {
        return None;
    };
    let row = tables.port(port)?;
    let (mac, address) = match row.role {
        PortRole::Uplink => (row.mac.mac(), uplink?),
        PortRole::Pod | PortRole::Host => (tables.host()?.mac.mac(), gateway?),
    };
    Some(Speaker { mac, address })
}

mod finish;
#[cfg(test)]
mod tests;
