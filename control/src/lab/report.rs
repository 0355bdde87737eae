//! What a walk found: the shapes that `tapline lab --json` prints.
//!
//! In: results of probes. Out: one [`Report`] for each mode walked.
//! Never: judges; a [`Check`] carries the verdict of the walk.
//!
//! Field names are an interface: other programs read them. A `ttl` or `rtt_us` is null where
//! nothing was received; captures count echo requests only.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::probe::ping::PingReport;

/// One mode, walked.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `azure` or `kubenet`.
    pub plugin: String,
    /// Pods have both families, and both were walked.
    pub dual_stack: bool,
    /// `none`: no policy agent runs in a lab, so it says so to its daemons.
    pub policy: String,
    /// Every check held.
    pub ok: bool,
    /// The nodes.
    pub nodes: Vec<NodeRow>,
    /// The pods.
    pub pods: Vec<PodRow>,
    /// The pings, in the order in which they were sent.
    pub pings: Vec<PingRow>,
    /// Where the crossing was seen.
    pub captures: Vec<CaptureRow>,
    /// The TCP transfers.
    pub transfers: Vec<TransferRow>,
    /// The route table of the agents' subnet.
    pub routes: Vec<RouteRow>,
    /// Frames that died, by place and reason.
    pub drops: Vec<DropRow>,
    /// The books of every switch.
    pub switches: Vec<SwitchRow>,
    /// What must hold, and whether it did.
    pub checks: Vec<Check>,
}

/// A node.
#[derive(Clone, Debug, Serialize)]
pub struct NodeRow {
    /// `node-0`, `master-0`.
    pub name: String,
    /// Its own address.
    pub ip: IpAddr,
    /// Its pod CIDR; null under azure.
    pub pod_cidr: Option<Ipv4Net>,
    /// Its own IPv6 address, in dual stack.
    pub ip_v6: Option<Ipv6Addr>,
    /// Its IPv6 pod CIDR, in dual stack.
    pub pod_cidr_v6: Option<Ipv6Net>,
}

/// A pod.
#[derive(Clone, Debug, Serialize)]
pub struct PodRow {
    /// `pod-a`.
    pub name: String,
    /// The node it is on.
    pub node: String,
    /// Its address.
    pub ip: IpAddr,
    /// Its IPv6 address, in dual stack.
    pub ip_v6: Option<Ipv6Addr>,
    /// The node's end of its veth.
    pub host_interface: String,
    /// The switch's TAP.
    pub tap: String,
}

/// Milliseconds are too coarse here: a round trip is tens of microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RttUs {
    /// Shortest.
    pub min: f64,
    /// Mean.
    pub avg: f64,
    /// Longest.
    pub max: f64,
}

/// A run of pings.
#[derive(Clone, Debug, Serialize)]
pub struct PingRow {
    /// Who asked.
    pub from: String,
    /// Who was asked.
    pub to: String,
    /// At which address.
    pub to_ip: IpAddr,
    /// Requests sent.
    pub sent: u64,
    /// Replies received.
    pub received: u64,
    /// TTL of the replies.
    pub ttl: Option<u8>,
    /// Round trip times.
    pub rtt_us: Option<RttUs>,
    /// Each reply as it came, and what came instead of one: for people.
    #[serde(skip)]
    pub report: PingReport,
}

/// One point at which the crossing was captured.
#[derive(Clone, Debug, Serialize)]
pub struct CaptureRow {
    /// Who asked.
    pub from: String,
    /// Who was asked.
    pub to: String,
    /// At which address.
    pub to_ip: IpAddr,
    /// The node captured on.
    pub node: String,
    /// `veth`, `bridge` (the pod's TAP) or `eth0`.
    pub point: &'static str,
    /// The device captured on.
    pub device: String,
    /// Echo requests seen.
    pub frames: u64,
    /// Their source address.
    pub source_ip: Option<IpAddr>,
    /// Their target address.
    pub target_ip: Option<IpAddr>,
    /// Their source MAC.
    pub source_mac: Option<String>,
    /// Their target MAC.
    pub target_mac: Option<String>,
    /// Their TTL.
    pub ttl: Option<u8>,
}

/// A TCP transfer.
#[derive(Clone, Debug, Serialize)]
pub struct TransferRow {
    /// Who sent.
    pub from: String,
    /// Who received.
    pub to: String,
    /// At which address.
    pub to_ip: IpAddr,
    /// Bytes of payload.
    pub bytes: u64,
    /// SHA-256 of what was sent and what arrived agree.
    pub whole: bool,
    /// The digest of what arrived.
    pub sha256: String,
    /// Rate of payload.
    pub gbit_per_s: f64,
    /// Congestion control of the sender.
    pub congestion: String,
    /// Longest frame seen at the receiver's TAP, in bytes: over 1514 it is a super-frame.
    pub longest_frame: usize,
}

/// A route of the fabric's table.
#[derive(Clone, Debug, Serialize)]
pub struct RouteRow {
    /// What it is for.
    pub prefix: String,
    /// Where it leads.
    pub next_hop: String,
}

/// Frames that died.
#[derive(Clone, Debug, Serialize)]
pub struct DropRow {
    /// `fabric`, or the node.
    #[serde(rename = "where")]
    pub place: String,
    /// The reason's label.
    pub reason: String,
    /// How many.
    pub frames: u64,
    /// What it means, with an example: for people.
    #[serde(skip)]
    pub meaning: String,
}

/// The books of one switch.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Books {
    /// From ports.
    pub received: u64,
    /// Made by the switch.
    pub originated: u64,
    /// Copies beyond the first.
    pub copied: u64,
    /// To ports.
    pub transmitted: u64,
    /// Died.
    pub dropped: u64,
    /// Consumed by the slow path.
    pub punted: u64,
    /// Waiting.
    pub queued: u64,
    /// Of the received: how many stood for several segments.
    pub super_frames: u64,
    /// ICMP errors that were due, and not sent because of their number.
    pub errors_suppressed: u64,
}

/// A switch at rest.
#[derive(Clone, Debug, Serialize)]
pub struct SwitchRow {
    /// Its node.
    pub node: String,
    /// The law of conservation holds.
    pub balanced: bool,
    /// Its books.
    #[serde(flatten)]
    pub books: Books,
}

/// One thing that must hold.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// A short name that does not change between runs.
    pub name: String,
    /// It held.
    pub ok: bool,
    /// What was found.
    pub detail: String,
}
