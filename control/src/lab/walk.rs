//! The walk: what the seed document does by hand on Azure, done to a [`Cluster`], with a verdict
//! on each step.
//!
//! In: a running cluster. Out: a [`Report`] with every ping, capture, transfer, drop and check.
//! Never: changes the cluster, or calls a check good that it could not make.

mod paths;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use dataplane::stats::Counts;

use super::cluster::{Cluster, LabNode, LabPod};
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
    };
    walk.crossing()?;
    walk.neighbourhood()?;
    walk.beyond()?;
    walk.paths()?;
    walk.transfers()?;
    walk.books();
    walk.drops();
    walk.report.ok = walk.report.checks.iter().all(|check| check.ok);
    Ok(walk.report)
}

struct Walk<'a> {
    cluster: &'a Cluster,
    report: Report,
    say: &'a mut dyn FnMut(&str),
}

/// Somebody who pings or is pinged.
#[derive(Clone, Copy)]
struct Party<'a> {
    name: &'a str,
    netns: &'a Netns,
    address: Ipv4Addr,
}

impl<'a> From<&'a LabPod> for Party<'a> {
    fn from(pod: &'a LabPod) -> Party<'a> {
        Party {
            name: &pod.name,
            netns: &pod.netns,
            address: pod.address,
        }
    }
}

impl<'a> From<&'a LabNode> for Party<'a> {
    fn from(node: &'a LabNode) -> Party<'a> {
        Party {
            name: &node.plan.name,
            netns: &node.netns,
            address: node.plan.primary_ip,
        }
    }
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
        self.ping_check("crossing", a.into(), c.into(), self.far_ttl())?;
        for (point, capture) in captures {
            let seen = capture
                .stop()?
                .echo_requests(a.address.into(), c.address.into());
            self.report.captures.push(capture_row(a, c, &point, seen));
        }
        self.check_captures(a, c);
        self.ping_check("crossing_back", c.into(), a.into(), self.far_ttl())
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

    fn check_captures(&mut self, a: &LabPod, c: &LabPod) {
        let rows = &self.report.captures;
        let (source, target) = (Some(IpAddr::V4(a.address)), Some(IpAddr::V4(c.address)));
        let sent = u64::from(PINGS);
        let missed: Vec<String> = rows
            .iter()
            .filter(|r| (r.frames, r.source_ip, r.target_ip) != (sent, source, target))
            .map(|r| format!("{} of {}: {} frames", r.device, r.node, r.frames))
            .collect();
        let whole = missed.is_empty();
        let detail = match whole {
            true => format!(
                "{sent} requests from {} to {} at all {} points",
                a.address,
                c.address,
                rows.len()
            ),
            false => format!("not all requests at {}", missed.join(", ")),
        };
        self.check("same_addresses_everywhere", whole, detail);
        let nic = self.node_of(a).macs.nic.to_string();
        let seen = self
            .report
            .captures
            .iter()
            .find(|r| r.point == "eth0" && r.node == self.node_of(a).plan.name)
            .and_then(|r| r.source_mac.clone());
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
            self.ping_check("same_node", a.into(), b.into(), 64)?;
        }
        self.ping_check("pod_to_its_node", a.into(), node.into(), 64)?;
        self.ping_check("node_to_pod", node.into(), a.into(), 64)?;
        if let Some(gateway) = compile::gateway(&node.plan) {
            let party = Party {
                name: "gateway",
                address: gateway,
                ..Party::from(node)
            };
            self.ping_check("pod_to_gateway", a.into(), party, 64)?;
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
            self.ping_check("node_to_far_pod", self.node_of(a).into(), c.into(), ttl)?;
        }
        // Under kubenet the way to a master in another subnet is masqueraded, which is the
        // kernel's and kube-proxy's part: no rule of theirs is in this lab.
        let master = self
            .cluster
            .nodes
            .iter()
            .find(|n| n.plan.role == Role::Master);
        if let (Plugin::Azure, Some(master)) = (self.plugin(), master) {
            self.ping_check("pod_to_master", a.into(), master.into(), 64)?;
        }
        if let (Plugin::Kubenet, Some(c)) = (self.plugin(), self.pod("pod-c")) {
            self.unused_address(c, a)?;
            self.route_check(a, c);
        }
        Ok(())
    }

    /// An address of another node's pod range that no pod has: refused there, and by name.
    fn unused_address(&mut self, from: &LabPod, neighbour: &LabPod) -> io::Result<()> {
        let range = self.node_of(neighbour).plan.pod_cidr;
        let used = |address: &Ipv4Addr| self.cluster.pods.iter().any(|p| p.address == *address);
        let Some(unused) = range.and_then(|cidr| cidr.hosts().skip(1).find(|a| !used(a))) else {
            return Ok(());
        };
        let spec = PingSpec {
            count: 1,
            ..PingSpec::to(unused.into())
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

    /// The route that is in force for the far pod at this node's NIC: a table that no subnet has
    /// leads nowhere.
    fn route_check(&mut self, from: &LabPod, to: &LabPod) {
        let (here, there) = (self.node_of(from), self.node_of(to));
        let vnet = self.cluster.fabric.vnet();
        let nic = vnet.owner(here.plan.primary_ip.into());
        let route = nic.and_then(|nic| vnet.routes(nic).find(to.address.into()));
        let wanted = NextHop::VirtualAppliance(there.plan.primary_ip.into());
        let ok = route.is_some_and(|route| route.next_hop == wanted);
        let found = route.map_or_else(|| "no route".into(), ToString::to_string);
        let detail = format!("{} at {}: {found}", to.address, here.plan.name);
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
        self.report
            .checks
            .iter()
            .any(|check| check.name == name && check.ok)
    }

    fn transfer(&mut self, name: &str, from: &LabPod, to: &LabPod) -> io::Result<()> {
        (self.say)(&format!("{} sends 100 MB to {}", from.name, to.name));
        // At the sender's side, before the fabric cuts the crossing into wire frames.
        let capture = Capture::start(&self.node_of(from).netns, from.tap.as_str())?;
        let spec = TransferSpec::to(to.address.into(), TRANSFER_BYTES);
        let result = transfer(&to.netns, &from.netns, &spec);
        let longest = capture
            .stop()?
            .tcp(from.address.into(), to.address.into())
            .longest;
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
            ..PingSpec::to(to.address.into())
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
            .find(|drop| drop.example.target == Some(to.address.into()));
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
            self.check(&name, counts.is_balanced() && rested, detail);
            self.report.switches.push(SwitchRow {
                node: node.plan.name.clone(),
                balanced: counts.is_balanced(),
                books: books(&counts, node.switch.board().super_frames()),
            });
        }
        let fabric = self.cluster.fabric.counters();
        let detail = format!(
            "{} received = {} delivered + {} answered + {} dropped",
            fabric.received, fabric.delivered, fabric.answered, fabric.dropped
        );
        self.check("conservation_fabric", fabric.balanced(), detail);
    }

    fn drops(&mut self) {
        let fabric = self.cluster.fabric.drops().into_iter().map(|drop| DropRow {
            place: "fabric".into(),
            reason: drop.reason.name().into(),
            frames: drop.frames,
            meaning: drop.to_string(),
        });
        let nodes = self.cluster.nodes.iter().flat_map(|node| {
            let drops: Vec<_> = node.switch.board().counts().dropped.iter().collect();
            drops.into_iter().map(|(reason, frames)| DropRow {
                place: node.plan.name.clone(),
                reason: reason.label().into(),
                frames,
                meaning: reason.meaning().into(),
            })
        });
        self.report.drops = fabric.chain(nodes).collect();
    }

    fn check(&mut self, name: &str, ok: bool, detail: String) {
        self.report.checks.push(Check {
            name: name.into(),
            ok,
            detail,
        });
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
    };
    let pod = |pod: &LabPod| PodRow {
        name: pod.name.clone(),
        node: cluster.nodes[pod.node].plan.name.clone(),
        ip: pod.address.into(),
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
        to_ip: to.address.into(),
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

fn capture_row(from: &LabPod, to: &LabPod, at: &Point, seen: Option<EchoRequests>) -> CaptureRow {
    CaptureRow {
        from: from.name.clone(),
        to: to.name.clone(),
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
    let mut last = node.switch.board().counts();
    loop {
        std::thread::sleep(Duration::from_millis(20));
        let now = node.switch.board().counts();
        if now == last && now.is_balanced() {
            return (now, true);
        }
        if began.elapsed() > REST_WITHIN {
            return (now, false);
        }
        last = now;
    }
}

fn books(counts: &Counts, super_frames: u64) -> Books {
    Books {
        received: counts.received,
        originated: counts.originated,
        copied: counts.copied,
        transmitted: counts.transmitted,
        dropped: counts.dropped.total(),
        punted: counts.punted,
        queued: counts.queued,
        super_frames,
    }
}
