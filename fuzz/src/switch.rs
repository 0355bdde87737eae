//! A whole switch over its life: frames, other tables, time, ports that fail, leave and return.
//!
//! In: moves, each a byte whose low three bits say what it is; see [`Life::live`].
//! Out: nothing, or a panic that names the promise which does not hold.
//! Never: takes the switch's word for its books: the ports count for themselves what they handed
//! in and what they took, and the boards must say the same.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use dataplane::addr::{Mac, PortId};
use dataplane::buffer::{Frame, Pool};
use dataplane::clock::Tick;
use dataplane::frame::FrameView;
use dataplane::port::memory::{MemoryPort, Peer, pair};
use dataplane::port::{Capabilities, Flushed, Port, Ready, Taken};
use dataplane::snapshot::Publisher;
use dataplane::tables::fdb::Fdb;
use dataplane::tables::fib::rib::Change;
use dataplane::tables::live::LiveTables;
use dataplane::tables::returns::Returns;
use dataplane::tables::{PortRole, Tables, TablesSpec};
use dataplane::verdict::DropReason;
use dataplane::worker::Worker;

use crate::input::Input;
use crate::spec::{next_hop, spec};
use crate::{BREATHS_MAX, PORTS, SILENCE_SECONDS, Steps, azure, kubenet, port};

/// Moves of one life: beyond that an input only repeats itself.
const MOVES_MAX: usize = 256;

/// Frames of a life are cut to this length, which keeps a super-frame of a few pieces.
const FRAME_LEN_MAX: usize = 4 << 10;
const _: () = assert!(FRAME_LEN_MAX >= OWN_FRAME_MAX);

/// Room for the switch's own frames, of which ICMPv6 errors are the longest: 1280 bytes of packet.
const OWN_FRAME_MAX: usize = 2048;

/// Frames that a port holds: a burst and a few, so that full queues happen.
const QUEUE_FRAMES: usize = 80;

/// Stations in the FDB: few, so that they crowd each other out.
const STATIONS: usize = 32;

/// Conversations, likewise.
const CONVERSATIONS: usize = 64;

/// The port hands nothing in and takes nothing.
const DOWN: u8 = 1;
/// It takes nothing.
const FULL: u8 = 2;
/// It takes frames for later.
const LATER: u8 = 4;
/// What it took for later does not get out.
const LOSES: u8 = 8;
/// It takes only finished frames.
const WIRE: u8 = 16;

/// What a port counted, and what is wrong with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    faults: u8,
    handed_in: u64,
    taken: u64,
}

/// A memory port that can fail.
#[derive(Debug)]
struct FrailPort {
    inner: MemoryPort,
    tally: Rc<Cell<Tally>>,
    /// Lengths of frames taken for later, and whether there was room.
    waiting: Vec<Flushed>,
}

impl FrailPort {
    fn has(&self, fault: u8) -> bool {
        self.tally.get().faults & fault != 0
    }

    fn note(&self, change: impl FnOnce(&mut Tally)) {
        let mut tally = self.tally.get();
        change(&mut tally);
        self.tally.set(tally);
    }
}

impl Port for FrailPort {
    fn receive(&mut self, most: usize, pool: &mut Pool, into: &mut Vec<Frame>) -> Ready {
        if self.has(DOWN) {
            return Ready::Down;
        }
        let before = into.len();
        let ready = self.inner.receive(most, pool, into);
        self.note(|tally| tally.handed_in += (into.len() - before) as u64);
        ready
    }

    fn transmit(&mut self, frame: &Frame, pool: &mut Pool) -> Result<Taken, DropReason> {
        if self.has(DOWN) {
            return Err(DropReason::PortDown);
        }
        if self.has(FULL) {
            return Err(DropReason::QueueFull);
        }
        if !self.has(LATER) {
            self.inner.transmit(frame, pool)?;
            self.note(|tally| tally.taken += 1);
            return Ok(Taken::Now);
        }
        let outcome = if self.has(LOSES) {
            Err(DropReason::PortDown)
        } else {
            self.inner.transmit(frame, pool).map(|_| ())
        };
        let len = frame.len();
        self.waiting.push(Flushed { len, outcome });
        Ok(Taken::Later)
    }

    fn flush(&mut self, _: &mut Pool, flushed: &mut Vec<Flushed>) {
        let out = self.waiting.iter().filter(|frame| frame.outcome.is_ok());
        let out = out.count() as u64;
        self.note(|tally| tally.taken += out);
        flushed.append(&mut self.waiting);
    }

    fn capabilities(&self) -> Capabilities {
        match self.has(WIRE) {
            true => Capabilities::WIRE,
            false => Capabilities::ALL,
        }
    }

    fn descriptor(&self) -> Option<RawFd> {
        None
    }
}

/// Lives the life that the input tells.
///
/// # Panics
/// If the worker does (leaked frames or buffers among the reasons), its books are not those of its
/// ports, a port gets what it cannot take or what is another's, the FDB holds what it must not, or a
/// frame waits for ever.
pub fn run_switch(input: &[u8]) {
    let mut life = LEFT.take().map_or_else(Life::new, Life::begin_anew);
    life.live(Input(input));
    LEFT.set(Some(life));
}

thread_local! {
    /// The switch of the input before, unless it broke a promise: to make one takes longer than to
    /// live most lives.
    static LEFT: Cell<Option<Life>> = const { Cell::new(None) };
}

struct Life {
    publisher: Publisher<Tables>,
    tables: Arc<Tables>,
    /// The tables and their routes, to change; unless they are those of the family.
    live: Option<LiveTables>,
    family: &'static LiveTables,
    /// The tables are those of a world, where each hardware address is behind its own port.
    tidy: bool,
    fdb: Arc<Fdb>,
    worker: Worker<FrailPort>,
    ends: Vec<(Peer, Rc<Cell<Tally>>)>,
    attached: [bool; PORTS],
    /// In whose names each port has spoken: what the switch has to tell them comes back there.
    spoken: [BTreeSet<Mac>; PORTS],
    now: u64,
}

impl Life {
    fn new() -> Life {
        let family = &families()[0];
        let publisher = Publisher::new(family.tables().clone());
        let fdb = Arc::new(Fdb::new(STATIONS, 1));
        let worker = Worker::new(publisher.reader(), Arc::clone(&fdb), FRAME_LEN_MAX);
        let life = Life {
            tables: publisher.current(),
            publisher,
            live: None,
            family,
            tidy: true,
            fdb,
            worker,
            ends: Vec::new(),
            attached: [true; PORTS],
            spoken: Default::default(),
            now: 0,
        };
        life.begin_anew()
    }

    /// With another's memory, and nothing of what it held.
    fn begin_anew(mut self) -> Life {
        self.fdb = Arc::new(Fdb::new(STATIONS, 1));
        self.choose(&families()[0]);
        self.now = 0;
        self.spoken = Default::default();
        self.ends.clear();
        self.restart();
        self
    }

    /// A port in place `id`, whose counts begin at what the board has of it.
    fn new_end(&mut self, id: usize, faults: u8) -> (Peer, Rc<Cell<Tally>>) {
        let (inner, peer) = pair(QUEUE_FRAMES);
        let tally = Rc::new(Cell::new(Tally::default()));
        let frail = FrailPort {
            inner,
            tally: Rc::clone(&tally),
            waiting: Vec::with_capacity(QUEUE_FRAMES),
        };
        // One that takes another's place counts on; one that takes nobody's begins at nought.
        self.worker.attach(port(id), frail);
        let counts = self.worker.board().port(port(id));
        tally.set(Tally {
            faults,
            handed_in: counts.received,
            taken: counts.transmitted,
        });
        (peer, tally)
    }

    /// One move after the other. By the low three bits of its first byte it is:
    ///
    /// | bits | move |
    /// |---|---|
    /// | 0 to 3 | a step as in [`Steps`]: a pause, and a frame that comes in |
    /// | 4 | other tables; see [`Life::publish`] |
    /// | 5 | changes of routes |
    /// | 6 | a byte of port, and one of faults that it has from now on |
    /// | 7 | time passes, a port leaves or returns, the worker starts anew; see [`Life::turn`] |
    fn live(&mut self, mut input: Input<'_>) {
        for _ in 0..MOVES_MAX {
            if input.is_empty() {
                break;
            }
            match input.byte() & 0b111 {
                0..4 => self.step(&mut input),
                4 => self.publish(&mut input),
                5 => self.change_routes(&mut input),
                6 => self.fail(&mut input),
                _ => self.turn(&mut input),
            }
        }
        self.come_to_rest();
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let mut steps = Steps(input.0);
        let step = steps.next();
        input.0 = steps.0;
        let Some(mut step) = step else {
            *input = Input(&[]);
            return;
        };
        step.bytes.truncate(FRAME_LEN_MAX);
        self.now = self.now.saturating_add(step.pause_ms);
        if let Ok(view) = FrameView::parse(&step.bytes) {
            self.spoken[step.port].insert(view.source.mac());
        }
        // A full queue loses the frame on the peer's side, which is no business of the switch.
        let _ = self.ends[step.port].0.send_with(&step.bytes, step.offload);
        if !step.held {
            self.breathe();
        }
    }

    /// A byte: azure, kubenet, either with one pod gone, none at all, or a block with a
    /// specification of the input's own.
    fn publish(&mut self, input: &mut Input<'_>) {
        let choice = usize::from(input.byte()) % (families().len() + 1);
        if let Some(family) = families().get(choice) {
            self.choose(family);
        } else {
            match LiveTables::build(&spec(&mut Input(input.block()))) {
                Ok(live) => {
                    self.show(live.tables().clone(), false);
                    self.live = Some(live);
                }
                Err(faults) => assert!(!faults.is_empty(), "refused for no reason"),
            }
        }
        self.breathe();
    }

    fn choose(&mut self, family: &'static LiveTables) {
        self.show(family.tables().clone(), true);
        (self.family, self.live) = (family, None);
    }

    fn show(&mut self, tables: Tables, tidy: bool) {
        self.publisher.publish(tables);
        self.tables = self.publisher.current();
        self.tidy = tidy;
    }

    fn change_routes(&mut self, input: &mut Input<'_>) {
        let changes: Vec<Change> = (0..input.byte() % 8)
            .map(|_| {
                let prefix = input.prefix();
                let hop = (input.byte() & 1 == 0).then(|| next_hop(input));
                (prefix, hop)
            })
            .collect();
        let live = self.live.get_or_insert_with(|| self.family.clone());
        let routes: Vec<_> = live.routes().collect();
        if live.apply(changes).is_ok() {
            // A route may send to any station by any port now.
            let tables = live.tables().clone();
            self.show(tables, false);
        } else {
            let after: Vec<_> = live.routes().collect();
            assert_eq!(routes, after, "a refused change left a trace");
        }
        self.breathe();
    }

    fn fail(&mut self, input: &mut Input<'_>) {
        let id = usize::from(input.byte()) % PORTS;
        let faults = input.byte();
        let tally = &self.ends[id].1;
        tally.set(Tally {
            faults,
            ..tally.get()
        });
    }

    /// A byte: by its low two bits time passes (so many milliseconds as a word says, or far too
    /// many), a port leaves, a port comes, or the worker starts anew on what was learned. Which port
    /// it is, the next two bits say.
    fn turn(&mut self, input: &mut Input<'_>) {
        let control = input.byte();
        let id = usize::from(control >> 2) % PORTS;
        match control & 0b11 {
            0 if control & 0x80 != 0 => self.now = self.now.saturating_add(1 << 45),
            0 => self.now = self.now.saturating_add(u64::from(input.word())),
            1 => {
                self.worker.detach(port(id));
                self.attached[id] = false;
                let left = self.fdb.entries().find(|(_, at, _)| *at == port(id));
                assert_eq!(left, None, "a station of a port that is gone");
            }
            2 => {
                self.ends[id] = self.new_end(id, 0);
                self.attached[id] = true;
            }
            _ => self.restart(),
        }
        self.breathe();
    }

    /// The worker dies with all that is its own, and another takes its place. What is wrong with a
    /// port stays wrong.
    fn restart(&mut self) {
        let returns = Arc::new(Returns::new(CONVERSATIONS, 1));
        self.worker.begin_anew(Arc::clone(&self.fdb), returns);
        let faults: [u8; PORTS] = std::array::from_fn(|id| {
            let end = self.ends.get(id);
            end.map_or(0, |(_, tally)| tally.get().faults)
        });
        self.ends.clear();
        for (id, faults) in faults.into_iter().enumerate() {
            let end = self.new_end(id, faults);
            self.ends.push(end);
        }
        self.attached = [true; PORTS];
    }

    /// Breathes until nothing more comes in, then compares books and looks at what came out.
    fn breathe(&mut self) {
        let board = Arc::clone(self.worker.board());
        let before = board.counts();
        self.worker.wake_all();
        let mut breaths = 1;
        while self.worker.breathe(Tick(self.now)).more {
            breaths += 1;
            assert!(breaths < BREATHS_MAX, "the worker never comes to rest");
        }
        let counts = board.counts();
        assert!(counts.is_balanced(), "{counts}");
        assert!(counts.received >= before.received && counts.transmitted >= before.transmitted);
        for (id, (_, tally)) in self.ends.iter().enumerate() {
            let (tally, counts) = (tally.get(), board.port(port(id)));
            assert_eq!(tally.handed_in, counts.received, "handed in by port {id}");
            assert_eq!(tally.taken, counts.transmitted, "taken by port {id}");
        }
        assert!(self.fdb.entries().count() <= self.fdb.capacity());
        for (mac, ..) in self.fdb.entries() {
            assert!(!mac.is_group() && !mac.is_zero(), "{mac} was learned");
        }
        self.drain();
    }

    fn drain(&self) {
        for (id, (peer, tally)) in self.ends.iter().enumerate() {
            let wire = tally.get().faults & WIRE != 0;
            while let Some(frame) = peer.receive() {
                let view = FrameView::parse(&frame.bytes).expect("only frames leave");
                let len = frame.bytes.len();
                assert!(frame.offload.fits(len, view.kind), "{:?}", frame.offload);
                let undone = frame.offload.is_super_frame() || frame.offload.needs_checksum();
                assert!(!(wire && undone), "port {id} got {:?}", frame.offload);
                if self.tidy && !view.target.is_group() {
                    self.check_receiver(port(id), &view);
                }
                peer.recycle(frame);
            }
        }
    }

    /// What a pod gets is not addressed to another, unless the switch answers a frame that came from
    /// there in the other's name.
    fn check_receiver(&self, at: PortId, view: &FrameView<'_>) {
        let tables = &self.tables;
        let is_pod = tables.port(at).is_some_and(|row| row.role == PortRole::Pod);
        let lives_at = tables.station(view.target);
        let others = lives_at.is_some_and(|station| station != at);
        let own = tables.host().is_some_and(|host| host.mac == view.source);
        let answer = own && self.spoken[at.index()].contains(&view.target);
        let astray = is_pod && others && !answer;
        assert!(!astray, "{at:?} got what is for {lives_at:?}");
    }

    /// After a while without frames, nothing may wait any more.
    fn come_to_rest(&mut self) {
        let board = Arc::clone(self.worker.board());
        let end = self.now.saturating_add(SILENCE_SECONDS * 1000);
        self.breathe();
        while board.counts().queued > 0 && self.now < end {
            self.now = self.now.saturating_add(1000);
            self.breathe();
        }
        let queued = board.counts().queued;
        assert!(queued == 0, "{queued} frames wait for ever");
    }
}

/// What a byte can ask for: azure, kubenet, either with one pod gone, none at all. Built once.
fn families() -> &'static [LiveTables; 5] {
    static FAMILIES: OnceLock<[LiveTables; 5]> = OnceLock::new();
    FAMILIES.get_or_init(|| {
        [
            azure(),
            kubenet(),
            without(azure(), port(crate::B)),
            without(kubenet(), port(crate::A)),
            without_ports(azure()),
        ]
        .map(|spec| LiveTables::build(&spec).expect("the worlds have no faults"))
    })
}

fn without(mut spec: TablesSpec, gone: PortId) -> TablesSpec {
    use dataplane::tables::fib::NextHop;
    spec.ports.retain(|row| row.id != gone);
    spec.guards.retain(|(port, _)| *port != gone);
    spec.owners.retain(|(_, owner)| owner.port != gone);
    let goes = |hop: &NextHop| matches!(hop, NextHop::Station { port, .. } if *port == gone);
    spec.routes.retain(|(_, hop)| !goes(hop));
    spec
}

fn without_ports(mut spec: TablesSpec) -> TablesSpec {
    spec.ports.clear();
    spec.guards.clear();
    spec.owners.clear();
    spec.routes.clear();
    spec
}
