//! What the control socket shows: the rows of each view.
//!
//! In: nothing. Out: types that the daemon fills and `tapline show` prints.
//! Never: decides how a table looks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What may be looked at. Its name in small letters is the last part of its path, below `/v1/`, and
/// what `tapline show` calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum View {
    /// Ports, with pods, devices, addresses and counters.
    Ports,
    /// Where each station is.
    Fdb,
    /// Routes, with who wants them so, and those that lost.
    Routes,
    /// Next hops on the uplink.
    Neighbours,
    /// Conversations that return by the way they came.
    Flows,
    /// Frames that died, by reason.
    Drops,
    /// The guards of each port: mode, limit, and what they refused or observed.
    Guards,
    /// Which prefix goes where, and why.
    Steering,
    /// The threads of the switch.
    Workers,
    /// Claims of addresses that others hold.
    Conflicts,
    /// What the switch may come to hold, and why no more.
    Bounds,
}

impl View {
    /// The view of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<View> {
        <View as clap::ValueEnum>::from_str(name, false).ok()
    }

    /// Where it is asked for.
    #[must_use]
    pub fn path(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self).expect("none is hidden");
        format!("/v1/{}", value.get_name())
    }
}

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its index in its namespace; none if it is gone.
    pub index: Option<u32>,
    /// Its hardware address.
    pub mac: Option<String>,
    /// Its MTU.
    pub mtu: Option<u32>,
    /// Up, and with a carrier.
    pub running: bool,
}

/// Frames and bytes of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Frames that came in.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames that went out.
    pub transmitted: u64,
    /// Their bytes.
    pub transmitted_bytes: u64,
    /// Deaths booked here.
    pub dropped: u64,
}

/// `GET /v1/ports`: a port of the switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRow {
    /// Its number.
    pub port: usize,
    /// `host`, `uplink` or `pod`.
    pub role: String,
    /// `host`, `uplink`, or what the pod is called.
    pub name: String,
    /// The pod's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// The network of the pod's attachment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The pod's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// The switch's TAP.
    pub tap: Device,
    /// The node's end: of a pod's veth, or the device shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_end: Option<Device>,
    /// The pod's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_end: Option<Device>,
    /// Addresses held by it.
    pub addresses: Vec<IpNet>,
    /// May frames go back the way they came?
    pub hairpin: bool,
    /// Is it kept from other isolated ports?
    #[serde(default)]
    pub isolated: bool,
    /// Its counters, since the daemon started.
    pub traffic: Traffic,
}

/// `GET /v1/fdb`: where a station is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbRow {
    /// The station.
    pub mac: String,
    /// The port.
    pub port: usize,
    /// What that is called.
    pub name: String,
    /// Configured; otherwise heard.
    pub fixed: bool,
    /// Seconds since it was heard last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
}

/// `GET /v1/routes`: a route, taken or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRow {
    /// What it is for.
    pub prefix: IpNet,
    /// Where it leads.
    pub next_hop: String,
    /// Who wants it so.
    pub source: String,
    /// False if another of the same prefix is taken instead.
    pub active: bool,
    /// Whose it is that is taken instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_to: Option<String>,
}

/// `GET /v1/neighbours`: a next hop on the uplink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourRow {
    /// The worker that knows it.
    pub worker: usize,
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address, if known.
    pub mac: Option<String>,
    /// How far that is to be believed, in the words of RFC 4861.
    pub state: String,
    /// It said that it forwards packets.
    pub router: bool,
}

/// `GET /v1/drops`: deaths of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRow {
    /// Its label.
    pub reason: String,
    /// One sentence.
    pub meaning: String,
    /// How many.
    pub frames: u64,
    /// How many at each port, by what the port is called; those of pods that are gone together.
    pub ports: BTreeMap<String, u64>,
}

/// `GET /v1/guards`: a guard of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardRow {
    /// The port's number.
    pub port: usize,
    /// What that is called.
    pub name: String,
    /// The guard.
    pub guard: String,
    /// `on`, `observe` or `off`.
    pub mode: String,
    /// How much it allows: learned stations, or frames a second for each worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Frames that it refused.
    pub refused: u64,
    /// Frames that it would have refused, and let pass.
    pub observed: u64,
    /// What the port may send beside its own: stations and addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<String>,
}

/// `GET /v1/bounds`: one thing that grows, and how far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundRow {
    /// What it is.
    pub what: String,
    /// How many entries it holds at most.
    pub limit: usize,
    /// How many of it there are: one for each worker, or one.
    pub count: usize,
    /// Bytes of all of them when they are full.
    pub bytes: usize,
    /// Why no more.
    pub because: String,
}

/// `GET /v1/workers`: a thread of the switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its number.
    pub worker: usize,
    /// Frames that came in.
    pub received: u64,
    /// Frames it made itself.
    pub originated: u64,
    /// Copies it made.
    pub copied: u64,
    /// Frames that went out.
    pub transmitted: u64,
    /// Frames that the slow path consumed.
    pub punted: u64,
    /// Frames that wait.
    pub queued: u64,
    /// Deaths.
    pub dropped: u64,
    /// Frames that stood for several segments.
    pub super_frames: u64,
    /// ICMP errors that were due and not sent.
    pub errors_suppressed: u64,
}

/// `GET /v1/conflicts`: a claim of an address that another holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictRow {
    /// The address.
    pub address: IpAddr,
    /// Who holds it.
    pub holder: Claim,
    /// Who claimed it, and was refused.
    pub claimer: Claim,
    /// Seconds since then.
    pub age_seconds: u64,
}

/// One of two that want one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its port.
    pub port: usize,
    /// What that is called now.
    pub name: String,
    /// Its hardware address.
    pub mac: String,
}

/// `POST /v1/trace`: which packet, or which frame. Answered by the shape in docs/trace.md, with the one
/// hop of this node; what leaves by the uplink ends as `sent`, what waits for its next hop as `queued`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// Who sends: a pod's name or its container's id, `host` or `uplink`.
    pub from: String,
    /// To whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// Who sends from beyond the uplink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// `icmp`, `tcp` or `udp`; the first without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The target port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Bytes of the IP packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// Set the DF bit.
    #[serde(default)]
    pub df: bool,
    /// A frame in hexadecimal digits, instead of a packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
}

/// What those are shown who listen to everything at the host device, as `tcpdump` does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiesView {
    /// The device.
    pub device: String,
    /// Somebody listens.
    pub listening: bool,
    /// Broadcasts are shown, too: that takes a switch with one worker, and TAPs with several queues.
    pub broadcasts: bool,
    /// Copies shown since the start.
    pub shown: u64,
    /// Frames that came faster than they could be shown, to whoever listens or listened last.
    pub missed: u64,
    /// Why nothing is shown though somebody listens.
    pub failure: Option<String>,
}
