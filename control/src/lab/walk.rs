//! The walk: what the seed document does by hand on Azure, done to a [`Cluster`], with a verdict
//! on each step.
//!
//! In dual stack each step is taken in both families; the checks in IPv6 end in `_v6`.
//!
//! In: a running cluster. Out: a [`Report`] with every ping, capture, transfer, drop and check.
//! Never: changes the cluster, or calls a check good that it could not make.

mod paths;

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use dataplane::stats::Counts;
use dataplane::switch::Boards;

use super::cluster::{Cluster, Family, LabNode, LabPod};
use super::probe::capture::{Capture, EchoRequests};
use super::probe::ping::{PingReport, PingSpec, ping};
use super::probe::transfer::{TransferSpec, transfer};
use super::report::{
    Books, CaptureRow, Check, DropRow, NodeRow, PingRow, PodRow, Report, RouteRow, RttUs,
    SwitchRow, TransferRow,
};
use crate::compile;
use crate::devices::name::DeviceName;
use crate::devices::netns::Netns;
use crate::lab::fabric::{DEVICE, NextHop};
use crate::plan::{Plugin, Role};

/// Bytes of each transfer.
const TRANSFER_BYTES: u64 = 100_000_000;

/// Pings of one run; the seed shows three lines.
const PINGS: u16 = 3;

/// An Ethernet frame that a 1500-byte MTU allows. Longer ones are super-frames.
const WIRE_FRAME_MAX: usize = 1514;

/// At rest within this time, or something keeps sending.
const REST_WITHIN: Duration = Duration::from_secs(2);

/// Walks the cluster; `say` hears each stage as it begins.
///
/// # Errors
/// What a socket or a device says. A check that fails is no error but a line of the report.
pub fn walk(cluster: &Cluster, say: &mut dyn FnMut(&str)) -> io::Result<Report> {
    let mut walk = Walk {
        cluster,
        report: empty(cluster),
        say,
        family: Family::V4,
    };
    for family in cluster.families() {
        walk.family = family;
        walk.crossing()?;
        walk.neighbourhood()?;
        walk.beyond()?;
        walk.paths()?;
        walk.transfers()?;
    }
    walk.books();
    walk.drops();
    walk.report.ok = walk.report.checks.iter().all(|check| check.ok);
    Ok(walk.report)
}

struct Walk<'a> {
    cluster: &'a Cluster,
    report: Report,
    say: &'a mut dyn FnMut(&str),
    /// The one being walked: every pod and node has an address of it.
    family: Family,
}

/// Somebody who pings or is pinged.
#[derive(Clone, Copy)]
struct Party<'a> {
    name: &'a str,
    netns: &'a Netns,
    address: IpAddr,
}

impl<'a> Walk<'a> {
    fn plugin(&self) -> Plugin {
        self.cluster.plan.plugin
    }

    /// The TTL with which a reply arrives after crossing from node to node: azure bridges, each
    /// kubenet node takes one hop.
    fn far_ttl(&self) -> u8 {
        match self.plugin() {
            Plugin::Azure => 64,
            Plugin::Kubenet => 62,
        }
    }

    fn pod(&self, name: &str) -> Option<&'a LabPod> {
        self.cluster.pod(name)
    }

    /// A pod, by its address of the family being walked.
    fn of(&self, pod: &'a LabPod) -> Party<'a> {
        let address = pod.address_in(self.family);
        Party {
            name: &pod.name,
            netns: &pod.netns,
            address: address.expect("a family is walked in which every pod has an address"),
        }
    }

    /// A node, likewise.
    fn at(&self, node: &'a LabNode) -> Party<'a> {
        let address = node.address_in(self.family);
        Party {
            name: &node.plan.name,
            netns: &node.netns,
            address: address.expect("a family is walked in which every node has an address"),
        }
    }

    /// The name of a check in the family being walked.
    fn named(&self, name: &str) -> String {
        match self.family {
            Family::V4 => name.to_owned(),
            Family::V6 => format!("{name}_v6"),
        }
    }

    /// The gateway of a node's pods, if they have one.
    fn gateway(&self, node: &LabNode) -> Option<IpAddr> {
        match self.family {
            Family::V4 => compile::gateway(&node.plan).map(IpAddr::V4),
            Family::V6 => compile::gateway_v6(&self.cluster.plan, &node.plan).map(IpAddr::V6),
        }
    }

    fn node_of(&self, pod: &LabPod) -> &'a LabNode {
        &self.cluster.nodes[pod.node]
    }

    /// From pod to pod across nodes, captured on the way, and back.
    fn crossing(&mut self) -> io::Result<()> {
        let (Some(a), Some(c)) = (self.pod("pod-a"), self.pod("pod-c")) else {
            return Ok(());
        };
        let points: Vec<Point> = [a, c]
            .into_iter()
            .flat_map(|pod| self.points(pod))
            .collect();
        let captures: Vec<(Point, Capture)> = points
            .into_iter()
            .map(|point| Ok((point, Capture::start(&point.node.netns, point.device)?)))
            .collect::<io::Result<_>>()?;
        let (from, to) = (self.of(a), self.of(c));
        self.ping_check("crossing", from, to, self.far_ttl())?;
        for (point, capture) in captures {
            let seen = capture.stop()?.echo_requests(from.address, to.address);
            let row = capture_row(from, to, &point, seen);
            self.report.captures.push(row);
        }
        self.check_captures(a, c);
        self.ping_check("crossing_back", to, from, self.far_ttl())
    }

    /// The pod's veth, its TAP, and `eth0`, in the order in which its frames pass them.
    fn points(&self, pod: &'a LabPod) -> [Point<'a>; 3] {
        let node = self.node_of(pod);
        let point = |point, device| Point {
            node,
            point,
            device,
        };
        [
            point("veth", pod.host_end.as_str()),
            point("bridge", pod.tap.as_str()),
            point("eth0", DEVICE),
        ]
    }

    fn check_captures(&mut self, a: &'a LabPod, c: &'a LabPod) {
        let (from, to) = (self.of(a).address, self.of(c).address);
        let captured = self.report.captures.iter();
        let rows: Vec<&CaptureRow> = captured.filter(|row| row.to_ip == to).collect();
        let (source, target) = (Some(from), Some(to));
        let sent = u64::from(PINGS);
        let missed: Vec<String> = rows
            .iter()
            .filter(|r| (r.frames, r.source_ip, r.target_ip) != (sent, source, target))
            .map(|r| format!("{} of {}: {} frames", r.device, r.node, r.frames))
            .collect();
        let whole = missed.is_empty();
        let detail = match whole {
            true => format!(
                "{sent} requests from {from} to {to} at all {} points",
                rows.len()
            ),
            false => format!("not all requests at {}", missed.join(", ")),
        };
        let nic = self.node_of(a).macs.nic.to_string();
        let seen = rows
            .iter()
            .find(|r| r.point == "eth0" && r.node == self.node_of(a).plan.name)
            .and_then(|r| r.source_mac.clone());
        self.check("same_addresses_everywhere", whole, detail);
        let ok = seen.as_deref() == Some(nic.as_str());
        let detail = format!(
            "{} at eth0, the NIC has {nic}",
            seen.as_deref().unwrap_or("nothing")
        );
        self.check("source_mac_is_the_nics", ok, detail);
    }

    /// Pod to pod, pod to node, and node to pod, all on one node.
    fn neighbourhood(&mut self) -> io::Result<()> {
        let Some(a) = self.pod("pod-a") else {
            return Ok(());
        };
        let node = self.node_of(a);
        if let Some(b) = self.pod("pod-b").filter(|b| b.node == a.node) {
            self.ping_check("same_node", self.of(a), self.of(b), 64)?;
        }
        self.ping_check("pod_to_its_node", self.of(a), self.at(node), 64)?;
        self.ping_check("node_to_pod", self.at(node), self.of(a), 64)?;
        if let Some(gateway) = self.gateway(node) {
            let party = Party {
                name: "gateway",
                address: gateway,
                ..self.at(node)
            };
            self.ping_check("pod_to_gateway", self.of(a), party, 64)?;
        }
        Ok(())
    }

    /// What lies outside the node: another node's pod, the master, an address that nobody has.
    fn beyond(&mut self) -> io::Result<()> {
        let Some(a) = self.pod("pod-a") else {
            return Ok(());
        };
        if let Some(c) = self.pod("pod-c") {
            // Azure bridges. Under kubenet the reply, for a node and not a pod, is routed by the far
            // node's kernel, and nobody routes it here.
            let ttl = if self.plugin() == Plugin::Azure {
                64
            } else {
                63
            };
            let (from, to) = (self.at(self.node_of(a)), self.of(c));
            self.ping_check("node_to_far_pod", from, to, ttl)?;
        }
        // Under kubenet the way to a master in another subnet is masqueraded, which is the
        // kernel's and kube-proxy's part: no rule of theirs is in this lab.
        let master = self
            .cluster
            .nodes
            .iter()
            .find(|n| n.plan.role == Role::Master);
        if let (Plugin::Azure, Some(master)) = (self.plugin(), master) {
            self.ping_check("pod_to_master", self.of(a), self.at(master), 64)?;
        }
        if let (Plugin::Kubenet, Some(c)) = (self.plugin(), self.pod("pod-c")) {
            self.unused_address(c, a)?;
            self.route_check(a, c);
        }
        Ok(())
    }

    /// An address of another node's pod range that no pod has: refused there, and by name.
    fn unused_address(&mut self, from: &LabPod, neighbour: &LabPod) -> io::Result<()> {
        let Some(unused) = self.unused(self.node_of(neighbour)) else {
            return Ok(());
        };
        let spec = PingSpec {
            count: 1,
            ..PingSpec::to(unused)
        };
        let report = ping(&from.netns, &spec)?;
        let told = report.errors.iter().find(|e| e.from.is_some());
        let detail = match told {
            Some(error) => format!(
                "{unused}: {} says {}",
                error.from.map_or_else(String::new, |from| from.to_string()),
                error.what
            ),
            None => format!("{unused}: {} replies and no ICMP error", report.received()),
        };
        self.check(
            "unused_address_is_refused",
            told.is_some() && report.received() == 0,
            detail,
        );
        Ok(())
    }

    /// The lowest address of a node's pod range that nobody has, behind the gateway's.
    fn unused(&self, node: &LabNode) -> Option<IpAddr> {
        let used = |address: &IpAddr| {
            let mut pods = self.cluster.pods.iter();
            pods.any(|pod| pod.address_in(self.family) == Some(*address))
        };
        let mut range: Box<dyn Iterator<Item = IpAddr>> = match self.family {
            Family::V4 => Box::new(node.plan.pod_cidr?.hosts().skip(1).map(IpAddr::V4)),
            Family::V6 => {
                let start = node.plan.pod_cidr_v6?.network().to_bits();
                let hosts = (2..).map(move |host: u128| Ipv6Addr::from_bits(start | host));
                Box::new(hosts.map(IpAddr::V6))
            }
        };
        range.find(|address| !used(address))
    }

    /// The route that is in force for the far pod at this node's NIC: a table that no subnet has
    /// leads nowhere.
    fn route_check(&mut self, from: &'a LabPod, to: &'a LabPod) {
        let (here, there) = (self.at(self.node_of(from)), self.at(self.node_of(to)));
        let to = self.of(to).address;
        let vnet = self.cluster.fabric.vnet();
        let nic = vnet.owner(here.address);
        let route = nic.and_then(|nic| vnet.routes(nic).find(to));
        let wanted = NextHop::VirtualAppliance(there.address);
        let ok = route.is_some_and(|route| route.next_hop == wanted);
        let found = route.map_or_else(|| "no route".into(), ToString::to_string);
        let detail = format!("{to} at {}: {found}", here.name);
        self.check("route_to_the_far_node", ok, detail);
    }

    fn transfers(&mut self) -> io::Result<()> {
        let Some(a) = self.pod("pod-a") else {
            return Ok(());
        };
        if let Some(b) = self.pod("pod-b").filter(|b| b.node == a.node) {
            self.transfer("transfer_same_node", a, b)?;
        }
        if let Some(c) = self.pod("pod-c").filter(|_| self.reached("crossing")) {
            self.transfer("transfer_crossing", a, c)?;
        }
        Ok(())
    }

    /// A check made earlier held, or at least saw a reply.
    fn reached(&self, name: &str) -> bool {
        let name = self.named(name);
        self.report
            .checks
            .iter()
            .any(|check| check.name == name && check.ok)
    }

    fn transfer(&mut self, name: &str, from: &'a LabPod, to: &'a LabPod) -> io::Result<()> {
        let (source, target) = (self.of(from).address, self.of(to).address);
        (self.say)(&format!(
            "{} sends 100 MB to {} at {target}",
            from.name, to.name
        ));
        // At the sender's side, before the fabric cuts the crossing into wire frames.
        let capture = Capture::start(&self.node_of(from).netns, from.tap.as_str())?;
        let spec = TransferSpec::to(target, TRANSFER_BYTES);
        let result = transfer(&to.netns, &from.netns, &spec);
        let longest = capture.stop()?.tcp(source, target).longest;
        let report = match result {
            Ok(report) => report,
            Err(error) => {
                self.check(
                    name,
                    false,
                    format!("{} to {}: {error}", from.name, to.name),
                );
                return Ok(());
            }
        };
        let row = TransferRow {
            from: from.name.clone(),
            to: to.name.clone(),
            to_ip: target,
            bytes: report.bytes,
            whole: report.whole() && report.bytes == TRANSFER_BYTES,
            sha256: report
                .received
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            gbit_per_s: report.gbit_per_second(),
            congestion: report.congestion.clone(),
            longest_frame: longest,
        };
        let detail = format!(
            "{} bytes, SHA-256 {}, {:.1} Gbit/s with {}",
            row.bytes,
            if row.whole { "equal" } else { "differs" },
            row.gbit_per_s,
            row.congestion
        );
        self.check(name, row.whole, detail);
        let detail = format!(
            "longest frame at {} of {}: {longest} bytes",
            from.tap, from.name
        );
        self.check(
            &format!("{name}_unsegmented"),
            longest > WIRE_FRAME_MAX,
            detail,
        );
        self.report.transfers.push(row);
        Ok(())
    }

    fn ping_check(&mut self, name: &str, from: Party, to: Party, ttl: u8) -> io::Result<()> {
        (self.say)(&format!(
            "{} pings {} at {}",
            from.name, to.name, to.address
        ));
        let spec = PingSpec {
            count: PINGS,
            ..PingSpec::to(to.address)
        };
        let report = ping(from.netns, &spec)?;
        let all = report.received() == report.sent && report.sent == u64::from(PINGS);
        let same = report.replies.iter().all(|reply| reply.ttl == ttl);
        let found = report
            .ttl()
            .map_or_else(String::new, |ttl| format!(", ttl {ttl}"));
        let wanted = if all && !same {
            format!(" where {ttl} was due")
        } else {
            String::new()
        };
        let why = if all { String::new() } else { self.why_not(to) };
        let detail = format!(
            "{} to {}: {} of {} replies{found}{wanted}{why}",
            from.name,
            to.name,
            report.received(),
            report.sent
        );
        self.check(name, all && same, detail);
        self.report.pings.push(ping_row(from, to, report));
        Ok(())
    }

    /// Where frames to `to` died on the fabric, if any did.
    fn why_not(&self, to: Party) -> String {
        let drops = self.cluster.fabric.drops();
        let here = drops
            .iter()
            .find(|drop| drop.example.target == Some(to.address));
        here.map_or_else(String::new, |drop| format!("; the fabric dropped: {drop}"))
    }

    /// Every switch, and the fabric, at rest.
    fn books(&mut self) {
        for node in &self.cluster.nodes {
            let (counts, rested) = at_rest(node);
            let name = format!("conservation_{}", node.plan.name);
            let detail = if rested {
                counts.to_string()
            } else {
                format!("not at rest: {counts}")
            };
            self.enter(name, counts.is_balanced() && rested, detail);
            self.report.switches.push(SwitchRow {
                node: node.plan.name.clone(),
                balanced: counts.is_balanced(),
                books: books(&counts, &node.board),
            });
        }
        let fabric = self.cluster.fabric.counters();
        let detail = format!(
            "{} received = {} delivered + {} answered + {} dropped",
            fabric.received, fabric.delivered, fabric.answered, fabric.dropped
        );
        let balanced = fabric.balanced();
        self.enter("conservation_fabric".into(), balanced, detail);
    }

    fn drops(&mut self) {
        let fabric = self.cluster.fabric.drops().into_iter().map(|drop| DropRow {
            place: "fabric".into(),
            reason: drop.reason.name().into(),
            frames: drop.frames,
            meaning: drop.to_string(),
        });
        let nodes = self.cluster.nodes.iter().flat_map(|node| {
            let drops: Vec<_> = node.board.counts().dropped.iter().collect();
            drops.into_iter().map(|(reason, frames)| DropRow {
                place: node.plan.name.clone(),
                reason: reason.label().into(),
                frames,
                meaning: reason.meaning().into(),
            })
        });
        self.report.drops = fabric.chain(nodes).collect();
    }

    /// Enters a check in the family being walked.
    fn check(&mut self, name: &str, ok: bool, detail: String) {
        self.enter(self.named(name), ok, detail);
    }

    /// Enters a check that is about all families.
    fn enter(&mut self, name: String, ok: bool, detail: String) {
        self.report.checks.push(Check { name, ok, detail });
    }
}

/// A place to capture at.
#[derive(Clone, Copy)]
struct Point<'a> {
    node: &'a LabNode,
    point: &'static str,
    device: &'a str,
}

fn empty(cluster: &Cluster) -> Report {
    let node = |node: &LabNode| NodeRow {
        name: node.plan.name.clone(),
        ip: node.plan.primary_ip.into(),
        pod_cidr: node.plan.pod_cidr,
        ip_v6: node.plan.primary_ip_v6,
        pod_cidr_v6: compile::own_range_v6(&cluster.plan, &node.plan),
    };
    let pod = |pod: &LabPod| PodRow {
        name: pod.name.clone(),
        node: cluster.nodes[pod.node].plan.name.clone(),
        ip: pod.address.into(),
        ip_v6: pod.address_v6,
        host_interface: DeviceName::to_string(&pod.host_end),
        tap: DeviceName::to_string(&pod.tap),
    };
    let route = |route: &crate::plan::Route| RouteRow {
        prefix: route.prefix.to_string(),
        next_hop: route.next_hop_ip.map_or_else(
            || route.next_hop_type.to_string(),
            |address| address.to_string(),
        ),
    };
    Report {
        plugin: cluster.plan.plugin.to_string(),
        dual_stack: cluster.families().any(|family| family == Family::V6),
        policy: "none".to_owned(),
        ok: false,
        nodes: cluster.nodes.iter().map(node).collect(),
        pods: cluster.pods.iter().map(pod).collect(),
        pings: Vec::new(),
        captures: Vec::new(),
        transfers: Vec::new(),
        routes: cluster.plan.routes.iter().map(route).collect(),
        drops: Vec::new(),
        switches: Vec::new(),
        checks: Vec::new(),
    }
}

fn ping_row(from: Party, to: Party, report: PingReport) -> PingRow {
    let us = |time: Duration| (time.as_secs_f64() * 1e7).round() / 10.0;
    PingRow {
        from: from.name.into(),
        to: to.name.into(),
        to_ip: to.address,
        sent: report.sent,
        received: report.received(),
        ttl: report.ttl(),
        rtt_us: report.rtt().map(|rtt| RttUs {
            min: us(rtt.min),
            avg: us(rtt.avg),
            max: us(rtt.max),
        }),
        report,
    }
}

fn capture_row(from: Party, to: Party, at: &Point, seen: Option<EchoRequests>) -> CaptureRow {
    CaptureRow {
        from: from.name.into(),
        to: to.name.into(),
        to_ip: to.address,
        node: at.node.plan.name.clone(),
        point: at.point,
        device: at.device.to_owned(),
        frames: seen.map_or(0, |seen| seen.frames),
        source_ip: seen.map(|seen| seen.source_ip),
        target_ip: seen.map(|seen| seen.target_ip),
        source_mac: seen.map(|seen| seen.source_mac.to_string()),
        target_mac: seen.map(|seen| seen.target_mac.to_string()),
        ttl: seen.map(|seen| seen.ttl),
    }
}

/// The counts once they have stopped changing, and whether they did.
fn at_rest(node: &LabNode) -> (Counts, bool) {
    let began = Instant::now();
    let mut last = node.board.counts();
    loop {
        std::thread::sleep(Duration::from_millis(20));
        let now = node.board.counts();
        if now == last && now.is_balanced() {
            return (now, true);
        }
        if began.elapsed() > REST_WITHIN {
            return (now, false);
        }
        last = now;
    }
}

fn books(counts: &Counts, boards: &Boards) -> Books {
    Books {
        received: counts.received,
        originated: counts.originated,
        copied: counts.copied,
        transmitted: counts.transmitted,
        dropped: counts.dropped.total(),
        punted: counts.punted,
        queued: counts.queued,
        super_frames: boards.super_frames(),
        errors_suppressed: boards.errors_suppressed(),
    }
}
