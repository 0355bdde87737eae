//! One worker: it moves frames through the five rooms, and counts every exit.
//!
//! In: ports, tables as published, and the time. Out: frames, counters, learned stations.
//! Never: on a frame's way opens a file, reads a clock, takes a lock, allocates or logs.
//!
//! The rooms, in order: `receive` (the port), `view` ([`FrameView::parse`]), `decide`
//! ([`forward::decide`]), `rewrite` ([`rewrite::rewrite`]), `transmit` (the port). A frame goes
//! through them while its burst is still in the cache, and never back: with the others of the burst
//! where it goes the short way (`straight`), by itself where it does not.

mod anew;
mod aside;
mod finish;
mod guard;
mod legacy;
mod neighbours;
mod refuse;
mod returns;
mod show;
mod straight;

pub(crate) use guard::{FLAPS_BYTES, FLAPS_MAX, STORMS_BYTES};
pub use legacy::{Legacy, Stranded};

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::addr::{PortId, PortSet};
use crate::buffer::{FRAME_MAX, Frame, Pool};
use crate::capture::{Capture, Fate};
use crate::clock::Tick;
use crate::conflict::{Conflicts, Reporter};
use crate::forward::{self, Observed, World};
use crate::frame::{FrameView, Kind};
use crate::gossip::{Gossip, Heard};
use crate::port::{BURST_FRAMES, Flushed, Port, Ready, Taken};
use crate::rewrite;
use crate::slow::limit::Limits;
use crate::snapshot::Reader;
use crate::stats::Board;
use crate::sync::Arc;
use crate::tables::Tables;
use crate::tables::fdb::Fdb;
use crate::tables::fragments::{Fragments, Piece};
use crate::tables::neighbour::{Entry, Neighbours, Question, WAITING_TOTAL_MAX, Waiting};
use crate::tables::returns::Returns;
use crate::tables::returns::strangers::Strangers;
use crate::verdict::{DropReason, Punt, Rewrite, Verdict};

/// Slots of a worker's pool: the burst of a flood and one that comes in between, every frame that may
/// wait for a neighbour, and a few for what the switch makes itself meanwhile.
pub const POOL_SLOTS: usize = 2 * BURST_FRAMES + WAITING_TOTAL_MAX + 8;

/// Bytes of the lists that a worker keeps frames and questions in while it turns to them.
pub(crate) const LISTS_BYTES: usize = (2 * BURST_FRAMES + POOL_SLOTS) * size_of::<Frame>()
    + POOL_SLOTS * size_of::<Flushed>()
    + straight::AHEAD_BYTES
    + QUESTIONS_MAX * size_of::<Question>()
    + WAITING_TOTAL_MAX * size_of::<Waiting>();

/// Ports worth asking directly: a conversation has two, and crosses host port or uplink.
const RECENT_MAX: usize = 4;

/// So many frames at one turn are a crowd; with more where they came from, the port floods. A flood is
/// read so many at a time where others speak: a microsecond each.
const CROWD: usize = 16;

/// So many frames of a flood go out between two looks at who had little to say lately: a write to a
/// TAP runs its receiver's stack, some microseconds a frame, and a look takes half of one for each port.
const PIECE: usize = 2;

/// Between two looks at timers and ages.
const CHORES_MS: u64 = 100;

/// Slots of the FDB looked at in one round of chores: the default table is swept in 0.8 s.
const AGE_SLOTS: usize = 1024;

/// Entries of the way back for which a worker has room that shares them with none.
const RETURNS_ALONE: usize = 1024;

/// Questions for neighbours in one round of chores.
const QUESTIONS_MAX: usize = 64;

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

/// Which turn of a port it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Its own, in which others may come in between.
    Own,
    /// In between the pieces of another's burst.
    Between,
}

/// A worker and all that is its own.
#[derive(Debug)]
pub struct Worker<P> {
    ports: Vec<Option<P>>,
    ready: PortSet,
    /// Ports that handed in frames since the last chores.
    recent: PortSet,
    /// Those that did in the period before.
    lately: PortSet,
    /// Ports that had a crowd and more when they were last asked.
    floods: PortSet,
    pool: Pool,
    batch: Vec<Frame>,
    /// What is known of the frames of a burst that is passed.
    ahead: straight::Ahead,
    /// Another such list, for who comes in between while the first is passed.
    spare: Vec<Frame>,
    /// Frames that a port has taken for later: their buffers are in use until it is flushed.
    held: Vec<Frame>,
    /// Ports that have taken frames for later.
    unflushed: PortSet,
    flushed: Vec<Flushed>,
    reader: Reader<Tables>,
    /// Those of the last breath.
    tables: Arc<Tables>,
    fdb: Arc<Fdb>,
    neighbours: Neighbours,
    returns: Arc<Returns>,
    strangers: Strangers,
    gossip: Gossip,
    told: bool,
    board: Arc<Board>,
    reporter: Reporter,
    /// Addresses with new holders, of whom the ports have yet to hear.
    announcements: VecDeque<IpAddr>,
    /// To how many ports the first of them has been announced.
    announced: usize,
    questions: Vec<Question>,
    failed: Vec<Waiting>,
    chores_due: Tick,
    age_cursor: usize,
    returns_cursor: usize,
    limits: Limits,
    memory: guard::Memory,
    fragments: Fragments,
    /// ICMP errors sent, which tells their identifications apart.
    errors_sent: u16,
    /// Those who look at what passes.
    captures: Vec<Arc<Capture>>,
}

impl<P: Port> Worker<P> {
    /// A worker without ports, whose pool holds frames of up to `frame_max` bytes.
    #[must_use]
    pub fn new(mut reader: Reader<Tables>, fdb: Arc<Fdb>, frame_max: usize) -> Worker<P> {
        Worker {
            ports: Vec::new(),
            ready: PortSet::default(),
            recent: PortSet::default(),
            lately: PortSet::default(),
            floods: PortSet::default(),
            pool: Pool::new(POOL_SLOTS, frame_max.min(FRAME_MAX)),
            batch: Vec::with_capacity(BURST_FRAMES),
            ahead: straight::Ahead::new(),
            spare: Vec::with_capacity(BURST_FRAMES),
            held: Vec::with_capacity(POOL_SLOTS),
            unflushed: PortSet::default(),
            flushed: Vec::with_capacity(POOL_SLOTS),
            tables: Arc::clone(reader.refresh()),
            reader,
            fdb,
            neighbours: Neighbours::default(),
            returns: Arc::new(Returns::new(RETURNS_ALONE, 1)),
            strangers: Strangers::new(),
            gossip: Gossip::default(),
            told: false,
            board: Arc::default(),
            reporter: Reporter::default(),
            announcements: VecDeque::new(),
            announced: 0,
            questions: Vec::with_capacity(QUESTIONS_MAX),
            failed: Vec::with_capacity(WAITING_TOTAL_MAX),
            chores_due: Tick::default(),
            age_cursor: 0,
            returns_cursor: 0,
            limits: Limits::new(),
            memory: guard::Memory::new(),
            fragments: Fragments::new(),
            errors_sent: 0,
            captures: Vec::new(),
        }
    }

    /// The next hops it knows. For views.
    pub fn neighbours(&self) -> impl Iterator<Item = Entry> + '_ {
        self.neighbours.entries()
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

    /// Who carried the conversations of late.
    #[must_use]
    pub fn returns(&self) -> &Arc<Returns> {
        &self.returns
    }

    /// Shares what is known of conversations with the other workers of a switch: their two
    /// directions may come in by queues of different workers.
    pub fn share_returns(&mut self, returns: Arc<Returns>) {
        self.returns = returns;
        self.strangers = Strangers::new();
    }

    /// Makes it one of several workers of a switch.
    pub fn join(&mut self, gossip: Gossip) {
        self.gossip = gossip;
    }

    /// Puts `port` in place `id`, and returns the one that was there, whose counters go on. One that
    /// takes nobody's place is another's port, and counts from nought; what is known of that place
    /// stays, since a switch that follows another is told it before it has the ports.
    pub fn attach(&mut self, id: PortId, port: P) -> Option<P> {
        let taken = self.ports.get(id.index()).is_some_and(Option::is_some);
        let before = taken.then(|| self.detach(id)).flatten();
        if !taken {
            self.board.begin_port(id);
        }
        if self.ports.len() <= id.index() {
            self.ports.resize_with(id.index() + 1, || None);
        }
        self.ports[id.index()] = Some(port);
        self.ready.insert(id);
        before
    }

    /// Takes the port out of place `id`, if there is one, and forgets the stations and conversations
    /// of that place: what the host sends to a port that is not there is remembered, too.
    pub fn detach(&mut self, id: PortId) -> Option<P> {
        self.fdb.forget_port(id);
        self.returns.forget_port(id);
        self.recent.remove(id);
        self.lately.remove(id);
        self.floods.remove(id);
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
        let lately = self.heard_lately();
        if lately.len() <= RECENT_MAX {
            self.ready.insert_all(lately);
        }
    }

    /// Begins a new account of where frames come in. Who was in the last one stays known for as long as
    /// the new one lasts, so that a port that speaks in every period is never forgotten.
    fn forget_recent(&mut self) {
        self.lately = std::mem::take(&mut self.recent);
    }

    fn heard_lately(&self) -> PortSet {
        let mut both = self.lately;
        both.insert_all(self.recent);
        both
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
        let tables = self.refresh(now);
        let mut breath = Breath {
            frames: 0,
            more: false,
            told: false,
        };
        while let Some(Heard { address, told }) = self.gossip.listen() {
            self.hear(address, told, &tables, now);
            self.flush();
        }
        if !self.announcements.is_empty() {
            self.announce(&tables);
            breath.more = !self.announcements.is_empty();
        }
        // Whoever is ready has one turn; who becomes ready meanwhile has the next. Those that have
        // little to say come first: they cost the others nothing, and would wait for all of them.
        let modest = self.ready.without(self.floods);
        let floods = self.ready.also_in(self.floods);
        for ingress in modest {
            self.turn(ingress, Turn::Own, &tables, now, &mut breath);
        }
        for ingress in floods {
            self.turn(ingress, Turn::Own, &tables, now, &mut breath);
        }
        if now >= self.chores_due {
            self.chores(&tables, now);
            self.flush();
        }
        self.assert_nothing_lost();
        breath.told = std::mem::take(&mut self.told);
        breath
    }

    /// The turn of one port. A crowd of frames is passed in pieces, and around those are asked who had
    /// little to say lately: it may be the first crowd of a port, so that it is not known as a flood. One
    /// that is known hands in no more than a crowd at once, since reading a burst takes its time, too.
    fn turn(
        &mut self,
        ingress: PortId,
        turn: Turn,
        tables: &Tables,
        now: Tick,
        breath: &mut Breath,
    ) {
        let most = self.most(ingress);
        let (burst, ready) = self.receive(ingress, most);
        self.note(ingress, burst, ready);
        breath.more |= ready == Ready::More;
        breath.frames += burst;
        let crowd = turn == Turn::Own && burst >= CROWD;
        let beside = if crowd {
            self.beside(ingress)
        } else {
            PortSet::default()
        };
        // The other list takes in who comes in between, and has its place back afterwards.
        let spare = std::mem::take(&mut self.spare);
        let mut batch = std::mem::replace(&mut self.batch, spare);
        self.board.received(ingress, &batch);
        let piece = if beside.is_empty() {
            BURST_FRAMES
        } else {
            PIECE
        };
        // Also before the first piece: reading took its time.
        loop {
            for other in beside {
                self.turn(other, Turn::Between, tables, now, breath);
            }
            if batch.is_empty() {
                break;
            }
            let frames = batch.drain(..piece.min(batch.len()));
            self.pass_all(frames, ingress, tables, now);
        }
        self.spare = std::mem::replace(&mut self.batch, batch);
    }

    /// How many frames `ingress` may hand in at this turn: a whole burst, unless it floods and somebody
    /// could have something to say meanwhile.
    #[inline]
    fn most(&self, ingress: PortId) -> usize {
        let floods = self.floods.contains(ingress);
        if floods && !self.beside(ingress).is_empty() {
            CROWD
        } else {
            BURST_FRAMES
        }
    }

    /// Who is asked while a crowd from `ingress` is passed: the other ports that spoke lately and do not
    /// flood, if those are few.
    fn beside(&self, ingress: PortId) -> PortSet {
        let mut beside = self.heard_lately().without(self.floods);
        beside.remove(ingress);
        if beside.len() <= RECENT_MAX {
            beside
        } else {
            PortSet::default()
        }
    }

    /// What a turn tells of a port.
    #[inline]
    fn note(&mut self, ingress: PortId, burst: usize, ready: Ready) {
        match ready {
            Ready::More => self.ready.insert(ingress),
            _ => self.ready.remove(ingress),
        }
        if burst > 0 {
            self.recent.insert(ingress);
        }
        if ready == Ready::More && burst >= CROWD {
            self.floods.insert(ingress);
        } else {
            self.floods.remove(ingress);
        }
    }

    /// The tables in force. What was learned under others is looked through, once.
    fn refresh(&mut self, now: Tick) -> Arc<Tables> {
        let tables = Arc::clone(self.reader.refresh());
        if !Arc::ptr_eq(&tables, &self.tables) {
            let old = std::mem::replace(&mut self.tables, Arc::clone(&tables));
            self.change(&old, &tables, now);
        }
        tables
    }

    /// Who claimed an address that another port holds: the records, for control.
    #[must_use]
    pub fn conflicts(&self) -> &Conflicts {
        self.reporter.conflicts()
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
    fn receive(&mut self, ingress: PortId, most: usize) -> (usize, Ready) {
        match self.ports.get_mut(ingress.index()) {
            Some(Some(port)) => {
                let ready = port.receive(most, &mut self.pool, &mut self.batch);
                (self.batch.len(), ready)
            }
            _ => (0, Ready::Empty),
        }
    }

    /// The whole way for a frame that has waited. It has taught all it could when it came: by now another
    /// station may be behind its port.
    #[cold]
    fn pass_again(&mut self, frame: Frame, ingress: PortId, tables: &Tables, now: Tick) {
        self.walk::<false>(frame, ingress, tables, now);
    }

    /// The whole way: view, decide, rewrite, transmit, and all that may come between.
    #[inline(never)]
    fn walk<const TEACHES: bool>(
        &mut self,
        frame: Frame,
        ingress: PortId,
        tables: &Tables,
        now: Tick,
    ) {
        let view = match FrameView::parse(self.pool.bytes(&frame)) {
            Ok(view) if frame.offload.fits(frame.len(), view.kind) => view,
            Ok(_) => return self.drop(frame, ingress, DropReason::BadOffload),
            Err(reason) => return self.drop(frame, ingress, reason),
        };
        let stranger = self.strangers.have(&view, &self.returns);
        let world = World {
            tables,
            fdb: &self.fdb,
            neighbours: &self.neighbours,
            returns: (!stranger).then_some(&self.returns),
        };
        let mut seen = Observed::default();
        let verdict = forward::decide_before(&view, frame.offload, ingress, world, &mut seen);
        if let Verdict::Forward { egress, .. } | Verdict::Fragment { egress, .. } = verdict {
            let passed = (ingress, egress, stranger);
            let known = (&*self.returns, &mut self.strangers);
            returns::remember(&view, passed, tables, known, now);
        }
        let (source, target, kind) = (view.source, view.target, view.kind);
        let piece = piece(verdict, &view, ingress);
        if TEACHES && !seen.is_empty() {
            self.note_observed(seen, ingress);
        }
        let refused = matches!(verdict, Verdict::Drop(_));
        if (target.is_group() || verdict == Verdict::Flood) && !refused {
            let size = (frame.len(), frame.offload);
            if let Some(reason) = self.storm(target, size, ingress, tables, now) {
                return self.drop(frame, ingress, reason);
            }
        }
        if let Some(piece) = piece
            && let Err(reason) = self.fragments.pass(&piece, now)
        {
            return self.drop(frame, ingress, reason);
        }
        // A claim of another's address is dropped, and shown as that.
        let dies = refused || matches!(verdict, Verdict::Punt(Punt::Defend { .. }));
        if TEACHES
            && !dies
            && let Some(row) = tables.port(ingress)
            && let Some(reason) = self.learn(source, row, tables, now)
        {
            return self.drop(frame, ingress, reason);
        }
        if !dies {
            self.show(&frame, Some(ingress), verdict);
        }
        match verdict {
            Verdict::Forward { egress, rewrite } => self.send(frame, kind, egress, rewrite),
            Verdict::Fragment { egress, rewrite } => {
                self.send_in_fragments(frame, kind, (egress, rewrite), tables);
            }
            Verdict::Flood => self.flood(frame, ingress, tables),
            Verdict::Punt(punt) => self.punt(frame, punt, ingress, tables, now),
            Verdict::Drop(reason) => self.refuse(frame, reason, ingress, tables, now),
        }
    }

    /// The last two rooms.
    #[inline]
    fn send(&mut self, mut frame: Frame, kind: Kind, egress: PortId, edits: Rewrite) {
        if edits != Rewrite::KEEP
            && let Err(reason) = self.edit(&mut frame, kind, edits)
        {
            return self.lose(frame, egress, reason);
        }
        let taken = self.transmit(&mut frame, egress);
        self.settle(frame, taken);
    }

    /// The fourth room.
    #[inline]
    fn edit(&mut self, frame: &mut Frame, kind: Kind, edits: Rewrite) -> Result<(), DropReason> {
        let bytes = self.pool.bytes_mut(frame);
        rewrite::rewrite(bytes, kind, edits);
        if edits.hop {
            let len = rewrite::routed_len(bytes, kind);
            if len < frame.len() {
                return shorten(frame, len, kind);
            }
        }
        Ok(())
    }

    /// A frame that cannot leave by `egress` as it is.
    #[cold]
    fn lose(&mut self, frame: Frame, egress: PortId, reason: DropReason) {
        self.board.dropped(egress, reason);
        self.show(&frame, None, Fate::Refused { egress, reason });
        self.pool.release(frame);
    }

    /// The last room: one frame to one port. Its exit is counted now, or when the port is flushed.
    /// It leaves the frame as it was.
    #[inline(always)]
    fn transmit(&mut self, frame: &mut Frame, egress: PortId) -> Taken {
        let taken = match self.ports.get_mut(egress.index()) {
            Some(Some(port)) if !port.capabilities().take(frame.offload) => {
                self.finish(frame, egress);
                return Taken::Now;
            }
            Some(Some(port)) => port.transmit(frame, &mut self.pool),
            _ => Err(DropReason::PortDown),
        };
        self.note_taken(frame, egress, taken)
    }

    /// Counts how a frame left, unless that is known only when its port is flushed.
    #[inline(always)]
    fn note_taken(
        &mut self,
        frame: &Frame,
        egress: PortId,
        taken: Result<Taken, DropReason>,
    ) -> Taken {
        match taken {
            Ok(Taken::Now) => self.board.transmitted(egress, 1, frame.len()),
            Ok(Taken::Later) => {
                self.unflushed.insert(egress);
                return Taken::Later;
            }
            Err(reason) => {
                self.board.dropped(egress, reason);
                self.show(frame, None, Fate::Refused { egress, reason });
            }
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
                Ok(()) => self.board.transmitted(egress, 1, len),
                Err(reason) => self.board.dropped(egress, reason),
            }
        }
    }

    /// The same buffer to every port; each copy has an exit of its own.
    fn flood(&mut self, mut frame: Frame, ingress: PortId, tables: &Tables) {
        let (mut copies, mut taken) = (0, Taken::Now);
        for egress in tables.floods_from(ingress) {
            if self.transmit(&mut frame, egress) == Taken::Later {
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
        self.show(&frame, Some(ingress), Fate::Dropped(reason));
        self.board.dropped(ingress, reason);
        self.pool.release(frame);
    }
}

/// Takes off what lies behind the packet. A checksum that was to go there has no place any more.
#[cold]
fn shorten(frame: &mut Frame, len: usize, kind: Kind) -> Result<(), DropReason> {
    frame.set_len(len);
    match frame.offload.fits(len, kind) {
        true => Ok(()),
        false => Err(DropReason::BadOffload),
    }
}

/// The fragment that a frame carries, if it leaves for another station than it was addressed to.
/// What is bridged is not looked into, and what waits for a neighbour comes by here again.
#[inline(always)]
fn piece(verdict: Verdict, view: &FrameView<'_>, ingress: PortId) -> Option<Piece> {
    match verdict {
        Verdict::Forward { rewrite, .. } | Verdict::Fragment { rewrite, .. }
            if rewrite != Rewrite::KEEP =>
        {
            Piece::of(view, ingress)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
