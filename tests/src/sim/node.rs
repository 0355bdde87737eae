//! One node: a real worker, its ports, its pods, and what control has told it.
//!
//! In: frames, faults, changes. Out: what came out at each port of one breath.
//! Never: what the worker may not know: tables reach it only through the publisher.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use control::compile::{FIRST_POD_PORT, HOST_PORT, PodPort, UPLINK_PORT, compile};
use dataplane::addr::{Mac, PortId, Station};
use dataplane::clock::Tick;
use dataplane::port::Capabilities;
use dataplane::port::memory::{Peer, pair};
use dataplane::snapshot::Publisher;
use dataplane::tables::fdb::Fdb;
use dataplane::tables::{Tables, TablesSpec};
use dataplane::worker::Worker;

use super::laws::{Breach, Held, Law, must};
use super::plant::{self, Plant};
use super::port::{Condition, Faulty};
use super::site::{Place, Site};

/// Slots for pods.
pub(super) const SLOTS: usize = 4;
/// Frames that a port holds each way.
const DEPTH: usize = 24;
/// Slots of the FDB.
const STATIONS: usize = 1024;
/// Frames that may wait for neighbours, by the limits of the dataplane.
const WAITING_MAX: u64 = dataplane::tables::neighbour::WAITING_TOTAL_MAX as u64;
/// Bytes of the longest frame here.
const FRAME_LEN_MAX: usize = 2048;

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    /// Which of all pods that ever were.
    pub(super) id: u32,
    pub(super) mac: Mac,
    /// Which of its node's addresses it has.
    pub(super) name: usize,
    pub(super) addresses: Vec<IpAddr>,
    /// A second station behind the same port, which tables do not name. Guards refuse it.
    pub(super) second: Mac,
}

/// The world's end of a port.
struct Face {
    peer: Peer,
    condition: Rc<RefCell<Condition>>,
}

/// What control published, shared with what it does in the middle of a batch.
struct Desk {
    publisher: RefCell<Publisher<Tables>>,
    newest: RefCell<Arc<TablesSpec>>,
    published: Cell<u64>,
    plant: Option<Plant>,
}

impl Desk {
    fn new(spec: Arc<TablesSpec>, plant: Option<Plant>) -> Rc<Desk> {
        let tables = plant::tables(plant, &spec, &spec);
        Rc::new(Desk {
            publisher: RefCell::new(Publisher::new(tables)),
            newest: RefCell::new(spec),
            published: Cell::new(0),
            plant,
        })
    }

    fn publish(&self, spec: Arc<TablesSpec>) {
        let old = self.newest.replace(Arc::clone(&spec));
        let tables = plant::tables(self.plant, &old, &spec);
        self.publisher.borrow_mut().publish(tables);
        self.published.set(self.published.get() + 1);
    }
}

/// A frame that came out.
pub(super) type Outcome = (PortId, Vec<u8>);

/// A node.
pub(super) struct NodeSim {
    pub(super) at: usize,
    pub(super) pods: BTreeMap<PortId, Pod>,
    /// Added to the time.
    pub(super) skew: i64,
    pub(super) in_force: Arc<TablesSpec>,
    pub(super) dropped_before: u64,
    pub(super) received_before: u64,
    desk: Rc<Desk>,
    worker: Worker<Faulty>,
    faces: BTreeMap<PortId, Face>,
    plant: Option<Plant>,
    /// Pods speak for themselves only.
    guarded: bool,
    /// Learned before the last breath, for the fault that puts it back.
    remembered: BTreeMap<Mac, PortId>,
    /// Handed in and taken by ports that are gone.
    past: (u64, u64),
}

impl NodeSim {
    pub(super) fn new(at: usize, site: &Site, plant: Option<Plant>, guarded: bool) -> NodeSim {
        let spec = Arc::new(spec(site, &site.places[at], &BTreeMap::new(), guarded));
        let desk = Desk::new(Arc::clone(&spec), plant);
        let worker = worker(&desk, &[]);
        let mut node = NodeSim {
            at,
            pods: BTreeMap::new(),
            skew: 0,
            in_force: spec,
            dropped_before: 0,
            received_before: 0,
            desk,
            worker,
            faces: BTreeMap::new(),
            plant,
            guarded,
            remembered: BTreeMap::new(),
            past: (0, 0),
        };
        node.attach(HOST_PORT);
        node.attach(UPLINK_PORT);
        node
    }

    /// Ports that are there.
    pub(super) fn ports(&self) -> Vec<PortId> {
        self.faces.keys().copied().collect()
    }

    /// A port for pods that has none.
    pub(super) fn free_slot(&self) -> Option<PortId> {
        let mut slots = (FIRST_POD_PORT..FIRST_POD_PORT + SLOTS).filter_map(PortId::new);
        slots.find(|port| !self.pods.contains_key(port) && !self.faces.contains_key(port))
    }

    pub(super) fn attach(&mut self, port: PortId) {
        let (end, peer) = pair(DEPTH);
        let wire = port == UPLINK_PORT;
        let end = if wire {
            end.with(Capabilities::WIRE)
        } else {
            end
        };
        let condition = Rc::new(RefCell::new(Condition {
            swaps: self.plant == Some(Plant::ReorderedFlow),
            ..Condition::default()
        }));
        let faulty = Faulty::new(end, Rc::clone(&condition));
        let before = self.worker.attach(port, faulty);
        assert!(before.is_none(), "the place was free");
        self.faces.insert(port, Face { peer, condition });
    }

    /// The port is gone. What it had taken and nobody had fetched is gone with it.
    pub(super) fn detach(&mut self, port: PortId) {
        self.worker.detach(port);
        if let Some(face) = self.faces.remove(&port) {
            let condition = face.condition.borrow();
            self.past.0 += condition.handed_in;
            self.past.1 += condition.taken;
        }
    }

    /// Sets the faults of a port; of one that is gone there are none.
    pub(super) fn fault(&self, port: PortId, set: impl FnOnce(&mut Condition)) {
        if let Some(face) = self.faces.get(&port) {
            set(&mut face.condition.borrow_mut());
        }
    }

    /// Hands a frame to a port. Full or gone, the frame is lost before the switch.
    pub(super) fn send(&mut self, port: PortId, bytes: &[u8]) -> bool {
        let sent = self
            .faces
            .get(&port)
            .is_some_and(|face| face.peer.send(bytes).is_ok());
        if sent {
            self.worker.wake(port);
        }
        sent
    }

    /// Control tells the switch of the pods that there are: now, or when the worker turns to the
    /// port `midst`.
    pub(super) fn publish(&mut self, site: &Site, midst: Option<PortId>) {
        let place = &site.places[self.at];
        let spec = Arc::new(spec(site, place, &self.pods, self.guarded));
        let desk = Rc::clone(&self.desk);
        let face = midst.and_then(|port| self.faces.get(&port));
        match face {
            Some(face) => {
                let deed: Box<dyn FnOnce()> = Box::new(move || desk.publish(spec));
                face.condition.borrow_mut().deed = Some(deed);
            }
            None => desk.publish(spec),
        }
    }

    /// The switch dies, and starts again from what was saved: its tables, and if `warm` the stations
    /// it had learned. What it held is lost.
    pub(super) fn restart(&mut self, warm: bool) {
        let counts = self.worker.board().counts();
        self.dropped_before += counts.dropped.total();
        self.received_before += counts.received;
        // What was learned under other tables than those that it starts with was not saved.
        self.enforce();
        let spec = Arc::clone(&self.in_force);
        let saved = |(mac, port, _): &(Mac, PortId, u32)| {
            warm && self.spoke(*port, *mac) && !self.names(*mac)
        };
        let stations: Vec<_> = self.worker.fdb().entries().filter(saved).collect();
        let published = self.desk.published.get();
        self.desk = Desk::new(Arc::clone(&spec), self.plant);
        self.desk.published.set(published);
        self.worker = worker(&self.desk, &stations);
        self.past = (0, 0);
        let old = std::mem::take(&mut self.faces);
        for (port, face) in old {
            self.attach(port);
            let spoken = std::mem::take(&mut face.condition.borrow_mut().spoken);
            self.fault(port, |condition| condition.spoken = spoken);
        }
        self.remembered.clear();
    }

    /// One breath at `now`. What came out, and whether there is more to do.
    pub(super) fn breathe(&mut self, now: u64) -> Result<(Vec<Outcome>, bool), Breach> {
        self.enforce();
        for port in self.ports() {
            self.worker.wake(port);
        }
        let now = now.saturating_add_signed(self.skew);
        let breath = self.worker.breathe(Tick(now));
        if self.plant == Some(Plant::StaleFdb) {
            self.put_back(now);
        }
        let mut out = Vec::new();
        for (port, face) in &self.faces {
            while let Some(frame) = face.peer.receive() {
                out.push((*port, frame.bytes.clone()));
                face.peer.recycle(frame);
            }
        }
        self.check_books()?;
        self.check_stations()?;
        Ok((out, breath.more || breath.frames > 0))
    }

    /// What was published comes into force with the next breath. Who spoke where another station
    /// stands now has not spoken.
    fn enforce(&mut self) {
        let newest = Arc::clone(&self.desk.newest.borrow());
        if Arc::ptr_eq(&newest, &self.in_force) {
            return;
        }
        let row = |spec: &TablesSpec, port| spec.ports.iter().find(|row| row.id == port).copied();
        for (port, face) in &self.faces {
            let (old, new) = (row(&self.in_force, *port), row(&newest, *port));
            if old.map(|row| row.mac) != new.map(|row| row.mac) {
                face.condition.borrow_mut().spoken.clear();
            }
        }
        self.in_force = newest;
    }

    fn put_back(&mut self, now: u64) {
        let fdb = self.worker.fdb();
        let known: BTreeMap<Mac, PortId> =
            fdb.entries().map(|(mac, port, _)| (mac, port)).collect();
        for (mac, port) in &self.remembered {
            let station = Station::new(*mac).expect("it was learned");
            if !known.contains_key(mac) {
                fdb.learn(station, *port, Tick(now));
            }
        }
        self.remembered.extend(known);
    }

    fn check_books(&self) -> Held {
        let board = self.worker.board();
        let counts = board.counts();
        let forgotten = u64::from(self.plant == Some(Plant::DroppedCounter));
        let dropped = counts.dropped.total().saturating_sub(forgotten);
        let entered = counts.received + counts.originated + counts.copied;
        let left = counts.transmitted + dropped + counts.punted + counts.queued;
        must(Law::Conservation, entered == left, || {
            format!(
                "node {}: {entered} frames entered, {left} left: {counts}",
                self.at
            )
        })?;
        let (mut handed_in, mut taken) = self.past;
        for face in self.faces.values() {
            handed_in += face.condition.borrow().handed_in;
            taken += face.condition.borrow().taken;
        }
        let seen = (handed_in, taken) == (counts.received, counts.transmitted);
        must(Law::Conservation, seen, || {
            format!(
                "node {}: ports handed in {handed_in} and took {taken} frames; counted are {counts}",
                self.at
            )
        })?;
        must(Law::Memory, counts.queued <= WAITING_MAX, || {
            format!("node {}: {} frames wait", self.at, counts.queued)
        })
    }

    fn check_stations(&self) -> Held {
        let mut count = 0;
        for (mac, port, _) in self.worker.fdb().entries() {
            count += 1;
            let face = self.faces.get(&port);
            let spoke = face.is_some_and(|face| face.condition.borrow().spoken.contains(&mac));
            must(Law::Fdb, spoke, || {
                format!(
                    "node {}: {mac} is said to be behind {port:?}, where it did not speak",
                    self.at
                )
            })?;
            let named =
                self.in_force.ports.iter().any(|row| {
                    row.mac.mac() == mac && row.role != dataplane::tables::PortRole::Uplink
                });
            must(Law::Fdb, !named, || {
                format!("node {}: {mac} is learned, and in the tables", self.at)
            })?;
        }
        must(Law::Memory, count <= STATIONS, || {
            format!("node {}: {count} stations", self.at)
        })
    }

    /// Tables that were published.
    pub(super) fn published(&self) -> u64 {
        self.desk.published.get()
    }

    /// Frames received and dropped, in all its lives.
    pub(super) fn totals(&self) -> (u64, u64) {
        let counts = self.worker.board().counts();
        let dropped = self.dropped_before + counts.dropped.total();
        (self.received_before + counts.received, dropped)
    }

    /// Who has which address here by the tables in force.
    pub(super) fn holds(&self, port: PortId, address: IpAddr) -> bool {
        let mut owners = self.in_force.owners.iter();
        owners.any(|(held, owner)| *held == address && owner.port == port)
    }

    /// The station behind a port, by the tables in force.
    pub(super) fn station(&self, port: PortId) -> Option<Mac> {
        let mut rows = self.in_force.ports.iter();
        rows.find(|row| row.id == port).map(|row| row.mac.mac())
    }

    /// True if the tables in force name the station.
    pub(super) fn names(&self, mac: Mac) -> bool {
        self.in_force.ports.iter().any(|row| row.mac.mac() == mac)
    }

    /// True if the station spoke at the port since its row last changed.
    pub(super) fn spoke(&self, port: PortId, mac: Mac) -> bool {
        let face = self.faces.get(&port);
        face.is_some_and(|face| face.condition.borrow().spoken.contains(&mac))
    }

    /// Which of its addresses have pods.
    pub(super) fn taken(&self) -> BTreeSet<usize> {
        self.pods.values().map(|pod| pod.name).collect()
    }
}

fn worker(desk: &Desk, stations: &[(Mac, PortId, u32)]) -> Worker<Faulty> {
    let fdb = Fdb::new(STATIONS, 7);
    for (mac, port, second) in stations {
        let station = Station::new(*mac).expect("it was learned");
        fdb.learn(station, *port, Tick(u64::from(*second) * 1000));
    }
    Worker::new(
        desk.publisher.borrow().reader(),
        Arc::new(fdb),
        FRAME_LEN_MAX,
    )
}

/// The tables for these pods, as control compiles them. Unguarded, pods have second stations that the
/// guards would not let in.
fn spec(site: &Site, place: &Place, pods: &BTreeMap<PortId, Pod>, guarded: bool) -> TablesSpec {
    let port = |(port, pod): (&PortId, &Pod)| {
        let mac = Station::new(pod.mac).expect("neither group nor zero");
        PodPort::new(*port, mac, pod.addresses.clone())
    };
    let pods: Vec<PodPort> = pods.iter().map(port).collect();
    let mut spec = compile(&site.plan, &place.node, place.macs, &pods);
    if !guarded {
        spec.guards.clear();
    }
    spec
}
