//! A bridge and a router in plain, slow, obvious Rust: what the real switch is held against.
//!
//! In: tables as control specifies them, frames in the order in which they come in, and the time.
//! Out: the frames that ought to come out at each port, the stations learned, and the [`Books`].
//! Never: code of `dataplane/src/forward/` or `dataplane/src/tables/`; a hash; a cache. What a
//! header says it reads by `dataplane::frame`, which is held against `etherparse` and the kernel.
//!
//! | file | what it knows |
//! |---|---|
//! | `decide` | where a frame goes: each rule once, looked up by going through all rows |
//! | `neighbours` | next hops, in the states of RFC 4861 |
//! | `ways` | what came through the node's kernel, and goes back through it |
//! | `errors` | who is told of a death, and how often |
//! | `guards` | what a port may say, and how often |
//! | `pieces` | which bytes of packets in fragments have passed |
//! | `speech` | the bytes of what the switch says itself |
//! | `books` | what is counted |
//!
//! It knows no groups of next hops, whose shares have a test of their own, and expects of frames
//! whose segmentation is undone that they need not be cut: that is compared with the kernel.

mod books;
pub mod campaign;
mod decide;
mod edit;
mod errors;
mod guards;
mod neighbours;
mod pieces;
mod speech;
pub mod trial;
pub mod universe;
mod ways;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dataplane::addr::{Mac, PortId};
use dataplane::frame::FrameView;
use dataplane::port::memory::WireFrame;
use dataplane::tables::{Crossing, PortRole, PortSpec, TablesSpec};
use dataplane::verdict::DropReason;

pub use books::Books;
use decide::Fate;
use neighbours::{Neighbours, Waited};
pub use speech::checksum;
pub use ways::Told;

/// A station that is silent this long is forgotten: IEEE 802.1D table 7-5.
const AGE_SECONDS: u64 = 300;
/// Between two looks at what time brings, in milliseconds.
const CHORES_MS: u64 = 100;
/// Announcements in one breath.
const ANNOUNCEMENTS: usize = 32;

/// A frame, and the port it came in by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The port.
    pub ingress: PortId,
    /// The frame.
    pub frame: WireFrame,
}

/// What came out at each port, in order.
pub type Deliveries = BTreeMap<PortId, Vec<WireFrame>>;

/// The switch as it ought to be.
#[derive(Clone, Debug)]
pub struct Oracle {
    spec: Arc<TablesSpec>,
    next: Option<Arc<TablesSpec>>,
    /// Where a station was heard, and in which second it was last.
    learned: BTreeMap<Mac, (PortId, u64)>,
    neighbours: Neighbours,
    ways: ways::Ways,
    /// The order in which the real switch looks at neighbours, which is none that anybody promised.
    order: Vec<IpAddr>,
    /// Frames that a port still takes before it is emptied; none of a port that is not there.
    room: BTreeMap<PortId, usize>,
    out: Deliveries,
    books: Books,
    errors: errors::Purse,
    memory: guards::Memory,
    pieces: pieces::Pieces,
    announcements: VecDeque<(IpAddr, Option<PortId>)>,
    chores_due: u64,
    now: u64,
}

impl Oracle {
    /// A switch without ports.
    #[must_use]
    pub fn new(spec: TablesSpec) -> Oracle {
        Oracle {
            spec: Arc::new(spec),
            next: None,
            learned: BTreeMap::new(),
            neighbours: Neighbours::default(),
            ways: ways::Ways::default(),
            order: Vec::new(),
            room: BTreeMap::new(),
            out: BTreeMap::new(),
            books: Books::default(),
            errors: errors::Purse::default(),
            memory: guards::Memory::default(),
            pieces: pieces::Pieces::default(),
            announcements: VecDeque::new(),
            chores_due: 0,
            now: 0,
        }
    }

    /// From now on `port` takes so many frames before it is emptied.
    pub fn attach(&mut self, port: PortId, frames: usize) {
        if self.room.insert(port, frames).is_none() {
            self.books.begin(port);
        }
    }

    /// The port is gone, and with it who was heard there.
    pub fn detach(&mut self, port: PortId) {
        self.room.remove(&port);
        self.learned.retain(|_, (at, _)| *at != port);
        self.ways.forget_port(port);
    }

    /// Other tables, from the next breath on.
    pub fn publish(&mut self, spec: TablesSpec) {
        self.next = Some(Arc::new(spec));
    }

    /// The stations learned, and where.
    #[must_use]
    pub fn learned(&self) -> BTreeMap<Mac, PortId> {
        self.learned
            .iter()
            .map(|(mac, (port, _))| (*mac, *port))
            .collect()
    }

    /// Conversations of which it is known who carries them.
    #[must_use]
    pub fn ways(&self) -> usize {
        self.ways.count()
    }

    /// Those of them that have not run out, and what is known of each.
    #[must_use]
    pub fn told(&self) -> Told {
        self.ways.told(self.now)
    }

    /// What was counted.
    #[must_use]
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// The next hops known or asked for, lowest first.
    #[must_use]
    pub fn next_hops(&self) -> Vec<IpAddr> {
        self.neighbours.addresses()
    }

    /// Looks at next hops in this order from now on; at any others after them.
    pub fn look_in_order(&mut self, order: &[IpAddr]) {
        self.order = order.to_vec();
    }

    /// Says nothing in the next breath, as if a limit were reached: hosts share limits with
    /// strangers whose addresses hash alike, and the oracle knows no hash.
    pub fn keep_silent(&mut self) {
        self.errors.silent = true;
    }

    /// One breath: new tables, announcements, what came in, and what time brings. True if more
    /// announcements are due.
    pub fn breathe(&mut self, now: u64, arrivals: Vec<Arrival>) -> bool {
        self.now = now;
        if let Some(next) = self.next.take() {
            self.change(next);
        }
        self.announce();
        let more = !self.announcements.is_empty();
        self.books.received += arrivals.len() as u64;
        for arrival in arrivals {
            self.pass(arrival);
        }
        if now >= self.chores_due {
            self.chores();
        }
        self.books.queued = self.neighbours.waiting() as u64;
        self.errors.silent = false;
        more
    }

    /// Empties the ports.
    pub fn take(&mut self) -> Deliveries {
        let out = std::mem::take(&mut self.out);
        for (port, frames) in &out {
            if let Some(room) = self.room.get_mut(port) {
                *room += frames.len();
            }
        }
        out
    }

    fn row(&self, port: PortId) -> Option<PortSpec> {
        self.spec.ports.iter().find(|row| row.id == port).copied()
    }

    fn role(&self, role: PortRole) -> Option<PortSpec> {
        self.spec.ports.iter().find(|row| row.role == role).copied()
    }

    /// The port of a configured station.
    fn station(&self, mac: Mac) -> Option<PortId> {
        let mut rows = self.spec.ports.iter();
        let row = rows.find(|row| row.role != PortRole::Uplink && row.mac.mac() == mac);
        row.map(|row| row.id).or_else(|| self.further_station(mac))
    }

    /// Two isolated ports, or one and itself: nothing passes.
    fn apart(&self, ingress: PortId, egress: PortId) -> bool {
        let isolated = |port| self.row(port).is_some_and(|row| row.isolated);
        isolated(ingress) && isolated(egress)
    }

    fn is_router(&self, mac: Mac) -> bool {
        self.spec.router_macs.contains(&mac)
    }

    /// Ports that a flood goes to.
    fn floods(&self) -> Vec<PortId> {
        let rows = self.spec.ports.iter();
        rows.filter(|row| row.role != PortRole::Uplink)
            .map(|row| row.id)
            .collect()
    }

    fn neighbours_in_order(&self) -> Vec<IpAddr> {
        let mut all = self.neighbours.addresses();
        all.sort_by_key(|address| {
            self.order
                .iter()
                .position(|known| known == address)
                .unwrap_or(usize::MAX)
        });
        all
    }

    /// A frame that came in goes its way.
    fn pass(&mut self, arrival: Arrival) {
        let mut seen = guards::Seen::new();
        let fate = self.decide(&arrival, &mut seen);
        self.books.observe(arrival.ingress, &seen);
        let refused = self.refused(&fate, &arrival).or_else(|| match fate {
            Fate::Dead(_) | Fate::Unfit(_) | Fate::Defend { .. } => None,
            _ => self.learn(&arrival),
        });
        match refused {
            Some(reason) => self.books.drop(arrival.ingress, reason),
            None => self.obey(fate, arrival),
        }
    }

    /// A frame that waited goes its way. It taught all it could when it came in.
    fn pass_again(&mut self, arrival: Arrival) {
        let fate = self.decide(&arrival, &mut guards::Seen::new());
        match self.refused(&fate, &arrival) {
            Some(reason) => self.books.drop(arrival.ingress, reason),
            None => self.obey(fate, arrival),
        }
    }

    /// What only a history can object to. Who carries a conversation is noted before.
    fn refused(&mut self, fate: &Fate, arrival: &Arrival) -> Option<DropReason> {
        let view = FrameView::parse(&arrival.frame.bytes).ok()?;
        if let Fate::Dead(_) | Fate::Unfit(_) = fate {
            return None;
        }
        let leaves = match fate {
            Fate::To(egress, edits) | Fate::InPieces(egress, edits) => Some((*egress, *edits)),
            _ => None,
        };
        if let Some((egress, _)) = leaves {
            self.remember(&view, arrival.ingress, egress);
        }
        let to_many = view.target.is_group() || matches!(fate, Fate::ToAll);
        if to_many && let Some(reason) = self.storm(view.target, &arrival.frame, arrival.ingress) {
            return Some(reason);
        }
        // What is bridged is not looked into.
        let routed = leaves.is_some_and(|(_, edits)| edits != edit::Edits::default());
        let piece = pieces::Piece::of(&view, arrival.ingress).filter(|_| routed)?;
        self.pieces.pass(&piece, self.now).err()
    }

    fn obey(&mut self, fate: Fate, arrival: Arrival) {
        match fate {
            Fate::To(egress, edits) => {
                let frame = edit::edited(arrival.frame, edits);
                // What a checksum was to go into may have been behind the packet.
                let kind = FrameView::parse(&frame.bytes).map(|view| view.kind);
                let fits = kind.is_ok_and(|kind| frame.offload.fits(frame.bytes.len(), kind));
                if fits {
                    self.send(egress, frame);
                } else {
                    self.books.drop(egress, DropReason::BadOffload);
                }
            }
            Fate::InPieces(egress, edits) => {
                let frame = edit::edited(arrival.frame, edits);
                self.send_in_fragments(egress, &frame.bytes);
            }
            Fate::ToAll => self.flood(arrival),
            Fate::Answer(frame) => {
                self.books.punted += 1;
                self.originate(arrival.ingress, frame);
            }
            Fate::Heard(address, news) => {
                self.books.punted += 1;
                for waited in self.neighbours.hear(address, news, self.now) {
                    self.pass_again(waited);
                }
            }
            Fate::Wait(next_hop, egress) => self.wait(next_hop, egress, arrival),
            Fate::Defend(frame) => {
                self.originate(arrival.ingress, frame);
                self.books
                    .drop(arrival.ingress, DropReason::AddressConflict);
            }
            Fate::Dead(reason) => self.refuse(arrival, reason),
            Fate::Unfit(reason) => self.books.drop(arrival.ingress, reason),
        }
    }

    fn wait(&mut self, next_hop: IpAddr, egress: PortId, arrival: Arrival) {
        match self.neighbours.wait(next_hop, egress, arrival, self.now) {
            Waited::Go(arrival) => self.pass_again(arrival),
            Waited::Held(None) => {}
            Waited::Held(Some((address, egress, last))) => self.ask(address, egress, last),
            Waited::Crowded(oldest) => {
                self.books
                    .drop(oldest.ingress, DropReason::NeighbourQueueFull);
            }
        }
    }

    /// Whoever was let in, and is not known from the tables, is remembered where it was heard, unless
    /// the port's guards object; but not by the uplink, where one address stands for everybody.
    fn learn(&mut self, arrival: &Arrival) -> Option<DropReason> {
        let row = self.row(arrival.ingress)?;
        let view = FrameView::parse(&arrival.frame.bytes).ok()?;
        let source = view.source.mac();
        let known = row.mac.mac() == source || self.station(source).is_some();
        if row.role == PortRole::Uplink || known {
            return None;
        }
        let here = self.learned.get(&source).map(|(port, _)| *port) == Some(row.id);
        if !here && let Some(reason) = self.refused_place(source, row.id) {
            return Some(reason);
        }
        self.learned.insert(source, (row.id, self.now / 1000));
        None
    }

    fn send(&mut self, egress: PortId, frame: WireFrame) {
        match self.room.get_mut(&egress) {
            None => self.books.drop(egress, DropReason::PortDown),
            Some(0) => self.books.drop(egress, DropReason::QueueFull),
            Some(room) => {
                *room -= 1;
                self.books.transmitted += 1;
                self.out.entry(egress).or_default().push(frame);
            }
        }
    }

    fn originate(&mut self, egress: PortId, bytes: Vec<u8>) {
        self.books.originated += 1;
        self.send(egress, edit::finished(bytes));
    }

    fn flood(&mut self, arrival: Arrival) {
        let mut ports = self.floods();
        ports.retain(|port| *port != arrival.ingress && !self.apart(arrival.ingress, *port));
        if ports.is_empty() {
            return self.books.drop(arrival.ingress, DropReason::NoEgress);
        }
        self.books.copied += ports.len() as u64 - 1;
        for port in ports {
            self.send(port, arrival.frame.clone());
        }
    }

    fn send_in_fragments(&mut self, egress: PortId, frame: &[u8]) {
        let mtu = self.row(egress).map_or(0, |row| usize::from(row.mtu));
        match edit::fragments(frame, mtu) {
            Ok(pieces) => {
                self.books.copied += pieces.len() as u64 - 1;
                for piece in pieces {
                    self.send(egress, edit::finished(piece));
                }
            }
            Err(reason) => self.books.drop(egress, reason),
        }
    }

    /// In whose name the switch speaks at a port: the node's at the uplink, the gateway's to pods.
    fn speaker(&self, port: PortId) -> Option<(Mac, Option<Ipv4Addr>, Option<Ipv6Addr>)> {
        let Crossing::Routed { uplink, gateway } = self.spec.crossing else {
            return None;
        };
        let row = self.row(port)?;
        if row.role == PortRole::Uplink {
            Some((row.mac.mac(), uplink.v4, uplink.v6))
        } else {
            let host = self.role(PortRole::Host)?;
            Some((host.mac.mac(), gateway.v4, gateway.v6))
        }
    }

    fn ask(&mut self, address: IpAddr, egress: PortId, last: Option<Mac>) {
        let asker = self.speaker(egress);
        if let Some(frame) = asker.and_then(|asker| speech::question(asker, address, last)) {
            self.originate(egress, frame);
        }
    }

    fn chores(&mut self) {
        self.chores_due = self.now + CHORES_MS;
        let second = self.now / 1000;
        self.learned
            .retain(|_, (_, heard)| second.saturating_sub(*heard) < AGE_SECONDS);
        self.ways.age(self.now);
        let order = self.neighbours_in_order();
        let (questions, failed) = self.neighbours.tick(self.now, &order);
        for (address, egress, last) in questions {
            self.ask(address, egress, last);
        }
        for arrival in failed {
            self.refuse(arrival, DropReason::NeighbourFailed);
        }
    }

    /// New tables: what they make untrue is forgotten, and new holders of addresses are announced.
    fn change(&mut self, next: Arc<TablesSpec>) {
        let order = self.neighbours_in_order();
        let old = std::mem::replace(&mut self.spec, next);
        let new = &self.spec;
        let row = |spec: &TablesSpec, id| spec.ports.iter().find(|row| row.id == id).copied();
        for gone in &old.ports {
            if row(new, gone.id).is_none_or(|now| now.mac != gone.mac) {
                self.learned.retain(|_, (port, _)| *port != gone.id);
            }
        }
        for fresh in &new.ports {
            let before = old.ports.iter();
            let mut same = before.filter(|row| row.role != PortRole::Uplink);
            if !same.any(|row| row.mac == fresh.mac && row.id == fresh.id) {
                self.learned.remove(&fresh.mac.mac());
            }
        }
        for (_, guard) in &new.guards {
            for station in &guard.more_stations {
                self.learned.remove(&station.mac());
            }
        }
        let uplink = |spec: &TablesSpec| {
            let mut rows = spec.ports.iter();
            rows.find(|row| row.role == PortRole::Uplink).copied()
        };
        let moved = (uplink(&old), old.crossing) != (uplink(new), new.crossing);
        let owned: Vec<IpAddr> = new.owners.iter().map(|(address, _)| *address).collect();
        let gone = |address: IpAddr| moved || owned.contains(&address);
        let mut fresh: Vec<IpAddr> = new
            .owners
            .iter()
            .filter(|row| !old.owners.contains(row))
            .map(|(address, _)| *address)
            .collect();
        fresh.sort_unstable();
        for arrival in self.neighbours.forget(&order, gone) {
            self.pass_again(arrival);
        }
        for address in fresh {
            let ports = self.floods();
            // To see that an address has been told to all takes a turn, too.
            let turns = ports.into_iter().map(Some).chain([None]);
            self.announcements.extend(turns.map(|port| (address, port)));
        }
    }

    /// Tells pods and host of new holders, a few in one breath.
    fn announce(&mut self) {
        for _ in 0..ANNOUNCEMENTS {
            let Some((address, port)) = self.announcements.pop_front() else {
                return;
            };
            let owner = self.spec.owners.iter().find(|(held, _)| *held == address);
            if let (Some((_, owner)), Some(port)) = (owner.copied(), port)
                && owner.port != port
            {
                let router = self.is_router(owner.mac);
                let frame = speech::announcement(None, address, owner.mac, router);
                self.originate(port, frame);
            }
        }
    }
}
