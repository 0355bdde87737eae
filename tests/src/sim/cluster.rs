//! The cluster: nodes, lines, flows, and what befalls them.
//!
//! In: random numbers of one seed. Out: rounds, each of which every law survives or not.
//! Never: an event that the random numbers did not choose, in the order in which they chose it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use control::compile::{FABRIC_MAC, HOST_PORT, UPLINK_PORT};
use dataplane::addr::{Mac, PortId};
use dataplane::frame::{FrameView, Kind};
use dataplane::tables::{Policy, Unknown};
use fastrand::Rng;

use super::Report;
use super::fabric::Lines;
use super::laws::{Breach, Held, Law, must};
use super::node::{NodeSim, Pod};
use super::plant::Plant;
use super::site::{ADDRESSES, Site, sites};
use super::traffic::{self, Tag};

/// Breaths of one node in one round: more than a burst and its announcements need.
const BREATHS_MAX: usize = 64;
/// After the last fault, milliseconds until everything must have come to rest: neighbours are asked
/// three times, a second apart, and asked themselves five seconds later; a clock that was set back
/// takes the time to come to where it was.
const REST_MS: u64 = 20_000;
/// Milliseconds of one round of rest.
const REST_STEP_MS: u64 = 50;
/// Frames of each flow that must arrive then.
const LAST_FRAMES: u32 = 3;
/// Bytes of padding in a frame.
const PADDING_MAX: usize = 600;
/// The flow of all that is said in another's name, and an address that nobody has.
const FORGED: u32 = u32::MAX - 1;
const NOBODY: [u8; 4] = [203, 0, 113, 66];

/// Frames of one sender to one receiver.
struct Flow {
    /// The node and port of the sender, and the pod.
    from: (usize, PortId, u32),
    to: u32,
    source: (Mac, IpAddr),
    target: IpAddr,
    /// The station it is sent to at first.
    station: Mac,
    sent: u32,
    /// The next number that may come.
    next: u32,
    arrived: u32,
}

/// What a cluster is at one moment.
pub(super) struct Cluster {
    site: &'static Site,
    rng: Rng,
    nodes: Vec<NodeSim>,
    lines: Lines,
    flows: Vec<Flow>,
    now: u64,
    pods: u32,
    calm: bool,
    /// Pods' ports have their guards, and pods speak in others' names.
    guarded: bool,
    /// Ports that come back, and when.
    returns: Vec<(u64, usize, PortId)>,
    /// Nodes whose control is behind, and when it catches up.
    lagging: Vec<(u64, usize)>,
    /// Frames that a node's kernel sent on.
    by_kernel: BTreeSet<(u32, u32)>,
    delivered: u64,
    faults: u64,
    digest: u64,
}

impl Cluster {
    pub(super) fn new(seed: u64, plant: Option<Plant>) -> Cluster {
        let mut rng = Rng::with_seed(seed);
        let all = sites();
        let site = &all[rng.usize(..all.len())];
        let guarded = rng.bool();
        let nodes = (0..site.places.len()).map(|at| NodeSim::new(at, site, plant, guarded));
        let mut cluster = Cluster {
            site,
            nodes: nodes.collect(),
            lines: Lines::new(site),
            rng,
            flows: Vec::new(),
            // Clocks may be set back from here, and are not before their beginning.
            now: 10_000_000,
            pods: 0,
            calm: false,
            guarded,
            returns: Vec::new(),
            lagging: Vec::new(),
            by_kernel: BTreeSet::new(),
            delivered: 0,
            faults: 0,
            digest: 0xcbf2_9ce4_8422_2325,
        };
        for at in 0..cluster.nodes.len() {
            for _ in 0..2 {
                cluster.add_pod(at);
            }
            cluster.nodes[at].publish(site, None);
        }
        cluster
    }

    pub(super) fn report(&self) -> Report {
        let totals = self.nodes.iter().map(NodeSim::totals);
        let (received, dropped) = totals.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        Report {
            received,
            dropped,
            delivered: self.delivered,
            carried: self.lines.carried,
            faults: self.faults + self.lines.faults,
            published: self.nodes.iter().map(NodeSim::published).sum(),
            digest: self.digest,
        }
    }

    /// True once in so many times.
    fn once_in(&mut self, times: u32) -> bool {
        self.rng.u32(..times) == 0
    }

    /// A round with faults.
    pub(super) fn round(&mut self) -> Held {
        self.now += self.rng.u64(1..20);
        for at in 0..self.nodes.len() {
            self.befall(at);
        }
        self.come_back();
        for _ in 0..self.rng.usize(..12) {
            self.speak();
        }
        self.settle()
    }

    /// Everything that is due on the lines arrives, and every node breathes.
    fn settle(&mut self) -> Held {
        while let Some((to, bytes)) = self.lines.arrive(self.now) {
            self.enter(to, &bytes);
        }
        for at in 0..self.nodes.len() {
            let mut breaths = 0;
            loop {
                let (outcomes, more) = self.nodes[at].breathe(self.now)?;
                for (port, bytes) in outcomes {
                    self.note(at, port, &bytes);
                    self.came_out(at, port, bytes)?;
                }
                breaths += 1;
                if !more || (!self.calm && self.rng.u8(..4) == 0) {
                    break;
                }
                must(Law::Memory, breaths < BREATHS_MAX, || {
                    format!("node {at} does not come to rest")
                })?;
            }
        }
        Ok(())
    }

    /// FNV-1a, of everything in its order.
    fn note(&mut self, at: usize, port: PortId, bytes: &[u8]) {
        let place = [at as u8, port.index() as u8];
        for byte in place.iter().chain(bytes) {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// A frame from the fabric: to the switch if the classifier steers it there.
    fn enter(&mut self, at: usize, bytes: &[u8]) {
        let steered = traffic::target(bytes).map(|target| self.site.places[at].steers(target));
        let answer = FrameView::parse(bytes)
            .is_ok_and(|view| view.kind == Kind::Arp || view.claims_discovery());
        if answer || steered == Some(true) {
            self.nodes[at].send(UPLINK_PORT, bytes);
        }
    }

    // What befalls a node.

    fn befall(&mut self, at: usize) {
        self.weather(at);
        if self.once_in(40) {
            self.faults += 1;
            let jumps = [1_000, 40_000, 301_000, -50, -2_000];
            self.nodes[at].skew += jumps[self.rng.usize(..jumps.len())];
        }
        if self.once_in(30) {
            self.change(at);
        }
        // All of them may be gone already.
        let ports = self.nodes[at].ports();
        if self.once_in(60) && !ports.is_empty() {
            self.faults += 1;
            let port = ports[self.rng.usize(..ports.len())];
            self.nodes[at].detach(port);
            let back = self.now + self.rng.u64(20..400);
            self.returns.push((back, at, port));
        }
        if self.once_in(150) {
            self.faults += 1;
            let warm = self.rng.bool();
            self.nodes[at].restart(warm);
        }
    }

    /// Ports are down, full, or late, for this round.
    fn weather(&mut self, at: usize) {
        for port in self.nodes[at].ports() {
            let down = self.once_in(40);
            let takes = if self.once_in(15) {
                Some(self.rng.usize(..4))
            } else {
                None
            };
            let late = self.once_in(3);
            self.faults += u64::from(down) + u64::from(takes.is_some());
            self.nodes[at].fault(port, |condition| {
                (condition.down, condition.takes, condition.late) = (down, takes, late);
            });
        }
    }

    fn come_back(&mut self) {
        let now = self.now;
        let calm = self.calm;
        let due = |at: u64| calm || at <= now;
        let (back, still): (Vec<_>, Vec<_>) = self.returns.drain(..).partition(|r| due(r.0));
        self.returns = still;
        for (_, at, port) in back {
            let known =
                port == HOST_PORT || port == UPLINK_PORT || self.nodes[at].pods.contains_key(&port);
            if known && !self.nodes[at].ports().contains(&port) {
                self.nodes[at].attach(port);
            }
        }
        let (behind, still): (Vec<_>, Vec<_>) = self.lagging.drain(..).partition(|l| due(l.0));
        self.lagging = still;
        for (_, at) in behind {
            self.nodes[at].publish(self.site, None);
        }
    }

    /// A pod comes, goes, or comes back as another, and control learns of it: before, in the middle
    /// of a batch, or later.
    fn change(&mut self, at: usize) {
        let ports: Vec<PortId> = self.nodes[at].pods.keys().copied().collect();
        let kind = self.rng.u8(..4);
        if ports.len() < 2 || kind == 0 {
            self.add_pod(at);
        } else {
            let port = ports[self.rng.usize(..ports.len())];
            if kind == 1 {
                self.nodes[at].pods.remove(&port);
                self.nodes[at].detach(port);
            } else {
                // In the same place, with the same addresses; only its hardware address is new.
                let name = self.nodes[at].pods[&port].name;
                let pod = self.pod(at, name);
                self.nodes[at].pods.insert(port, pod);
            }
        }
        match self.rng.u8(..3) {
            0 => self.nodes[at].publish(self.site, None),
            1 => {
                let ports = self.nodes[at].ports();
                let midst = ports.get(self.rng.usize(..ports.len().max(1))).copied();
                self.nodes[at].publish(self.site, midst);
                // If the worker never turns to that port, control tries again.
                self.lagging.push((self.now + 60, at));
            }
            _ => self.lagging.push((self.now + self.rng.u64(10..200), at)),
        }
    }

    fn add_pod(&mut self, at: usize) {
        let taken = self.nodes[at].taken();
        let known = self.site.places[at].addresses.len().min(ADDRESSES);
        let free: Vec<usize> = (0..known).filter(|name| !taken.contains(name)).collect();
        if let (Some(port), false) = (self.nodes[at].free_slot(), free.is_empty()) {
            let name = free[self.rng.usize(..free.len())];
            let pod = self.pod(at, name);
            self.nodes[at].pods.insert(port, pod);
            self.nodes[at].attach(port);
        }
    }

    fn pod(&mut self, at: usize, name: usize) -> Pod {
        self.pods += 1;
        let [.., a, b, c] = self.pods.to_be_bytes();
        Pod {
            id: self.pods,
            mac: Mac::new([0x0a, 0x58, 0, a, b, c]),
            name,
            addresses: self.site.places[at].addresses[name].clone(),
            second: Mac::new([0x02, 0x99, 0, a, b, c]),
        }
    }

    // What pods and hosts say.

    /// Any pod that there is: its node and port.
    fn any_pod(&mut self) -> Option<(usize, PortId)> {
        let all: Vec<(usize, PortId)> = self
            .nodes
            .iter()
            .flat_map(|node| node.pods.keys().map(|port| (node.at, *port)))
            .collect();
        (!all.is_empty()).then(|| all[self.rng.usize(..all.len())])
    }

    fn speak(&mut self) {
        let (Some(from), Some(to)) = (self.any_pod(), self.any_pod()) else {
            return;
        };
        match self.rng.u8(..16) {
            0 => self.ask(from, to),
            1 => self.shout(from),
            _ if from == to => {}
            2 => self.outwards(from),
            3 if self.guarded => self.forge(from, to),
            _ => {
                let many = self.rng.u32(1..5);
                self.burst(from, to, many);
            }
        }
    }

    fn ask(&mut self, from: (usize, PortId), to: (usize, PortId)) {
        let (pod, other) = (
            &self.nodes[from.0].pods[&from.1],
            &self.nodes[to.0].pods[&to.1],
        );
        let asked = traffic::question(pod.mac, pod.addresses[0], other.addresses[0]);
        if let Some(frame) = asked {
            self.nodes[from.0].send(from.1, &frame);
        }
    }

    /// A second station behind a pod's port, or behind the host's, says something to everybody.
    fn shout(&mut self, from: (usize, PortId)) {
        let pod = &self.nodes[from.0].pods[&from.1];
        let (port, source) = match self.rng.bool() {
            true => (from.1, pod.second),
            false => (HOST_PORT, Mac::new([0x02, 0x77, 0, 0, 0, from.0 as u8])),
        };
        let mut frame = vec![0xff; 6];
        frame.extend(source.octets());
        frame.extend([0x88, 0xb5]);
        frame.resize(60, 0x11);
        self.nodes[from.0].send(port, &frame);
    }

    /// A pod claims another's address, or one that is nobody's, by ARP or as the source of a packet,
    /// from a station that is its own or not.
    fn forge(&mut self, from: (usize, PortId), to: (usize, PortId)) {
        let station = self.site.places[from.0].gateway;
        let pod = &self.nodes[from.0].pods[&from.1];
        let other = &self.nodes[to.0].pods[&to.1];
        // On the same node it might be the pod's own by tables that are behind.
        let elsewhere = if from.0 == to.0 {
            NOBODY.into()
        } else {
            other.addresses[0]
        };
        let sent_to = if from.0 == to.0 { other.mac } else { station };
        let claims = traffic::question(pod.mac, NOBODY.into(), other.addresses[0]);
        let tag = Tag {
            flow: FORGED,
            number: 0,
            sent_to,
        };
        let source = [pod.mac, other.mac, pod.second, station][self.rng.usize(..4)];
        let packet = match (elsewhere, other.addresses[0]) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => Some(
                traffic::frame(tag, source, elsewhere, other.addresses[0], 10),
            ),
            _ => None,
        };
        let frame = if self.rng.u8(..3) == 0 {
            claims
        } else {
            packet
        };
        if let Some(frame) = frame {
            self.nodes[from.0].send(from.1, &frame);
        }
    }

    /// True for what was said in another's name.
    fn is_forged(&self, bytes: &[u8], tag: Option<Tag>) -> bool {
        let second = bytes.get(6..8) == Some(&[0x02, 0x99]);
        let claimed = bytes.get(12..14) == Some(&[8, 6]) && bytes.get(28..32) == Some(&NOBODY);
        self.guarded && (second || claimed || tag.is_some_and(|tag| tag.flow == FORGED))
    }

    /// To the world, which begins behind the host port.
    fn outwards(&mut self, from: (usize, PortId)) {
        let pod = &self.nodes[from.0].pods[&from.1];
        let station = self.site.places[from.0].gateway;
        let tag = Tag {
            flow: u32::MAX,
            number: 0,
            sent_to: station,
        };
        let (source, world) = (pod.addresses[0], IpAddr::from([198, 51, 100, 7]));
        let frame = traffic::frame(tag, pod.mac, source, world, 10);
        self.nodes[from.0].send(from.1, &frame);
    }

    /// A few frames of one flow.
    fn burst(&mut self, from: (usize, PortId), to: (usize, PortId), many: u32) {
        let Some(flow) = self.flow(from, to) else {
            return;
        };
        for _ in 0..many {
            let padding = self.rng.usize(..PADDING_MAX);
            let Flow {
                source,
                target,
                station,
                sent,
                ..
            } = self.flows[flow];
            let tag = Tag {
                flow: flow as u32,
                number: sent,
                sent_to: station,
            };
            let frame = traffic::frame(tag, source.0, source.1, target, padding);
            // What does not fit was never sent.
            if self.nodes[from.0].send(from.1, &frame) {
                self.flows[flow].sent += 1;
            }
        }
    }

    /// The flow between these two, as they are now; a new one if there is none.
    fn flow(&mut self, from: (usize, PortId), to: (usize, PortId)) -> Option<usize> {
        let (pod, other) = (
            &self.nodes[from.0].pods[&from.1],
            &self.nodes[to.0].pods[&to.1],
        );
        let families = pod.addresses.len().min(other.addresses.len());
        let family = self.rng.usize(..families.max(1));
        let (source, target) = (*pod.addresses.get(family)?, *other.addresses.get(family)?);
        let neighbours = from.0 == to.0;
        let station = if neighbours {
            other.mac
        } else {
            self.site.places[from.0].gateway
        };
        let key = (from.0, from.1, pod.id);
        let second = !self.calm && !self.guarded && self.rng.u8(..5) == 0;
        let source = (if second { pod.second } else { pod.mac }, source);
        let same = |flow: &Flow| {
            (flow.from, flow.to, flow.source) == (key, other.id, source)
                && (flow.target, flow.station) == (target, station)
        };
        if let Some(known) = self.flows.iter().position(same) {
            return Some(known);
        }
        self.flows.push(Flow {
            from: key,
            to: other.id,
            source,
            target,
            station,
            sent: 0,
            next: 0,
            arrived: 0,
        });
        Some(self.flows.len() - 1)
    }

    // What came out.

    fn came_out(&mut self, at: usize, port: PortId, bytes: Vec<u8>) -> Held {
        let tag = traffic::read(&bytes);
        let flow = tag.and_then(|tag| self.flows.get(tag.flow as usize));
        let home = flow.map(|flow| flow.from);
        must(Law::Guards, !self.is_forged(&bytes, tag), || {
            format!("node {at}: {port:?} got what was forged: {tag:?}")
        })?;
        if port == UPLINK_PORT {
            let ours = home.is_none_or(|(node, ..)| node == at);
            must(Law::NotBack, ours, || {
                format!("node {at}: what came in by the uplink leaves by it: {tag:?}")
            })?;
            let faults = (!self.calm).then_some(&mut self.rng);
            return self.lines.send(at, bytes, self.now, faults);
        }
        if port == HOST_PORT {
            return self.kernel(at, bytes, tag);
        }
        self.at_a_pod(at, port, &bytes, tag)
    }

    /// The node's kernel is a router: to its own pods by way of the switch, to others by `eth0`.
    fn kernel(&mut self, at: usize, mut bytes: Vec<u8>, tag: Option<Tag>) -> Held {
        let place = &self.site.places[at];
        let (Some(tag), Some(target)) = (tag, traffic::target(&bytes)) else {
            return Ok(());
        };
        if self.nodes[at].in_force.policy != Policy::ViaHost {
            // From now on it may go this way or straight on, as the switch learns who asked whom.
            self.lines.disturbed.insert(tag.flow);
        }
        if !traffic::hop(&mut bytes) {
            return Ok(());
        }
        self.by_kernel.insert((tag.flow, tag.number));
        let mut pods = self.nodes[at].pods.values();
        let here = pods.find(|pod| pod.addresses.contains(&target));
        match here.map(|pod| pod.mac) {
            Some(mac) => {
                traffic::address(&mut bytes, mac, place.macs.host.mac());
                self.nodes[at].send(HOST_PORT, &bytes);
            }
            None if !place.steers(target) && self.serves(target) => {
                traffic::address(&mut bytes, FABRIC_MAC, place.macs.nic.mac());
                let faults = (!self.calm).then_some(&mut self.rng);
                return self.lines.send(at, bytes, self.now, faults);
            }
            None => {}
        }
        Ok(())
    }

    /// True for an address of some node's pods.
    fn serves(&self, target: IpAddr) -> bool {
        self.site.places.iter().any(|place| place.steers(target))
    }

    fn at_a_pod(&mut self, at: usize, port: PortId, bytes: &[u8], tag: Option<Tag>) -> Held {
        let view = FrameView::parse(bytes)
            .map_err(|reason| -> Breach { (Law::Wire, format!("no frame: {reason}")) })?;
        if view.target.is_group() {
            return Ok(());
        }
        let node = &self.nodes[at];
        let home = tag.and_then(|tag| Some((tag, self.flows.get(tag.flow as usize)?.from)));
        let back = home.is_some_and(|(tag, (from, source, id))| {
            // What the kernel sends on, and nobody is known for, is flooded to its sender as well.
            let as_sent =
                tag.sent_to == view.target && !self.by_kernel.contains(&(tag.flow, tag.number));
            let for_it = as_sent || node.station(port) == Some(view.target);
            let same = node.pods.get(&port).is_some_and(|pod| pod.id == id);
            (from, source) == (at, port) && same && for_it
        });
        must(Law::NotBack, !back, || {
            format!("node {at}: {port:?} got back what it sent: {tag:?}")
        })?;
        if node.station(port) != Some(view.target) {
            // A bridge floods what is for nobody it knows; then it is as it was sent.
            let flooded = node.in_force.unknown == Unknown::Flood
                && !node.names(view.target)
                && tag.is_none_or(|tag| tag.sent_to == view.target);
            // So it is with what the node's kernel sends on.
            let flooded = flooded || {
                let unnamed = node.in_force.unknown == Unknown::Flood && !node.names(view.target);
                unnamed && tag.is_some_and(|tag| self.by_kernel.contains(&(tag.flow, tag.number)))
            };
            // And who spoke there, and is not in the tables yet, is answered and learned.
            let known = node.spoke(port, view.target);
            return must(Law::OneTable, flooded || known, || {
                format!(
                    "node {at}: {port:?} got a frame for {}, who is not there",
                    view.target
                )
            });
        }
        let target = traffic::target(bytes);
        if let Some(target) = target {
            must(Law::Tenant, node.holds(port, target), || {
                format!("node {at}: {port:?} got a packet for {target}, which it does not hold")
            })?;
        }
        match tag {
            Some(tag)
                if node
                    .pods
                    .get(&port)
                    .is_some_and(|pod| pod.mac == view.target) =>
            {
                self.arrived(at, port, tag)
            }
            _ => Ok(()),
        }
    }

    fn arrived(&mut self, at: usize, port: PortId, tag: Tag) -> Held {
        let id = self.nodes[at].pods[&port].id;
        let disturbed = self.lines.disturbed.contains(&tag.flow);
        let Some(flow) = self.flows.get_mut(tag.flow as usize) else {
            return Ok(());
        };
        if flow.to != id {
            // Its address has a new holder since it was sent.
            return Ok(());
        }
        must(Law::Order, disturbed || tag.number >= flow.next, || {
            format!(
                "flow {}: frame {} came after frame {}",
                tag.flow,
                tag.number,
                flow.next.saturating_sub(1)
            )
        })?;
        flow.next = flow.next.max(tag.number + 1);
        flow.arrived += 1;
        self.delivered += 1;
        Ok(())
    }

    // After the last fault.

    /// Everything that was broken is whole, control has caught up, time passes; then every pod sends
    /// to every other, and all of it arrives once.
    pub(super) fn converge(&mut self) -> Held {
        self.calm = true;
        self.come_back();
        for at in 0..self.nodes.len() {
            for port in self.nodes[at].ports() {
                self.nodes[at].fault(port, |condition| {
                    (condition.down, condition.takes) = (false, None);
                });
            }
            self.nodes[at].publish(self.site, None);
        }
        self.rest()?;
        let pods: Vec<(usize, PortId)> = self
            .nodes
            .iter()
            .flat_map(|node| node.pods.keys().map(|port| (node.at, *port)))
            .collect();
        let first = self.flows.len();
        // Flows of before are of before.
        for flow in &mut self.flows {
            flow.from.2 = 0;
        }
        for from in &pods {
            for to in pods.iter().filter(|to| *to != from) {
                self.burst(*from, *to, LAST_FRAMES);
                self.settle()?;
            }
            self.rest_for(1000)?;
        }
        let sent: BTreeSet<u32> = self.flows[first..].iter().map(|flow| flow.sent).collect();
        let all: BTreeSet<u32> = [LAST_FRAMES].into();
        must(Law::Convergence, pods.len() < 2 || sent == all, || {
            format!("ports took {sent:?} frames of flows")
        })?;
        for flow in &self.flows[first..] {
            must(Law::Convergence, flow.arrived == LAST_FRAMES, || {
                format!(
                    "{} of {LAST_FRAMES} frames from {} (node {}) to {} arrived",
                    flow.arrived, flow.source.1, flow.from.0, flow.target
                )
            })?;
        }
        Ok(())
    }

    fn rest(&mut self) -> Held {
        self.rest_for(REST_MS)
    }

    fn rest_for(&mut self, ms: u64) -> Held {
        for _ in 0..ms / REST_STEP_MS {
            self.now += REST_STEP_MS;
            self.settle()?;
        }
        Ok(())
    }
}
