//! `tapline trace`: where a frame would go, and why, without sending it.
//!
//! In: a [`Network`] that follows from a plan, and a [`Request`] or a frame.
//! Out: a [`Trace`] of every step. Never: a second account of the switch's or the fabric's rules,
//! a device, a right.
//!
//! | file | what it does |
//! |---|---|
//! | `network` | the cluster as the lab would build it: each node's tables, the fabric's state |
//! | `packet` | the frame that a kernel would send, and the questions it asks before |
//! | `input` | frames from hexadecimal text and capture files |
//! | `pass` | one frame through one switch: `decide`, and what a worker adds |
//! | `walk` | the whole way: switch, fabric, switch |
//! | `steps`, `sources`, `frame` | what was looked at, which route that was, what changed: in words and facts |
//! | `report`, `words` | what is printed: for programs, and for people |

pub mod board;
pub mod frame;
pub mod input;
pub mod network;
pub mod packet;
pub mod pass;
pub mod report;
pub mod running;
pub mod sources;
pub mod steps;
#[cfg(test)]
mod tests;
pub mod walk;
pub mod words;

use std::net::IpAddr;

use dataplane::addr::{Mac, PortId};
use dataplane::frame::offload::Offload;
use dataplane::frame::transport::Transport;
use dataplane::frame::{FrameView, Network as Header};

use crate::compile::{self, FABRIC_MAC, HOST_PORT, UPLINK_PORT};
use crate::lab::placement::host_name;
use crate::plan::Plugin;
use network::Network;
use packet::{Refused, Sender, Wanted, build, group_mac, question};
use pass::Carried;
use report::{Asked, End, Trace};
use walk::{Way, follow, follow_from_nic, question_name, told_in};

/// Where a frame comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A pod.
    Pod(String),
    /// The node's own kernel, by the host port.
    Host,
    /// The network, by the node's `eth0`.
    Uplink,
}

/// A packet to send.
#[derive(Clone, Debug)]
pub struct Request {
    /// The index of the node.
    pub node: usize,
    /// Who sends.
    pub from: Origin,
    /// To whom.
    pub to: IpAddr,
    /// What.
    pub wanted: Wanted,
}

/// Why there is nothing to trace.
#[derive(Debug, thiserror::Error)]
pub enum NoTrace {
    /// Its sender makes no such packet.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The sender has no address of the target's family.
    #[error("{0} has no {1} address")]
    NoAddress(String, &'static str),
    /// The frame would stay inside its sender.
    #[error("{0} is {1}'s own address: its kernel answers by itself, and no frame is sent")]
    Own(IpAddr, String),
    /// The frame would not come by the switch.
    #[error("{node}'s kernel sends to {to} by eth0, and not by {host}: its switch sees no frame")]
    PastTheSwitch {
        /// The sender's node.
        node: String,
        /// The target.
        to: IpAddr,
        /// `azure0` or `cbr0`.
        host: &'static str,
    },
    /// No gateway.
    #[error("{0} has no route to {1}")]
    NoRoute(String, IpAddr),
}

/// Traces the packet that a kernel would send.
///
/// # Errors
/// That no such frame would be sent, or not by the switch.
pub fn trace(network: &Network, request: &Request) -> Result<Trace, NoTrace> {
    let (name, port, sender, next_hop) = sender(network, request)?;
    // A packet that cannot be is refused before anybody asks for it.
    build(&sender, Mac::ZERO, request.to, &request.wanted)?;
    let mut trace = empty(network);
    let to = match (group_mac(request.to), &request.from) {
        (Some(mac), _) => Some(mac),
        (None, Origin::Uplink) => Some(network.nodes[request.node].macs.nic.mac()),
        (None, _) => {
            let (asked, way) = ask(network, request.node, &name, port, &sender, next_hop);
            let mac = asked.mac.clone();
            trace.asked = Some(asked);
            if mac.is_none() {
                (trace.hops, trace.end) = (way.hops, way.end);
                trace.end.outcome = "unanswered";
            }
            mac.and_then(|mac| mac.parse().ok())
        }
    };
    let Some(to) = to else { return Ok(trace) };
    let built = build(&sender, to, request.to, &request.wanted)?;
    trace.notes = built.notes;
    trace.frame = Some(frame::row(&built.frame));
    let way = match request.from {
        Origin::Uplink => follow_from_nic(network, request.node, built.frame),
        _ => follow(network, request.node, port, built.frame),
    };
    (trace.hops, trace.end) = (way.hops, way.end);
    Ok(trace)
}

/// Traces a frame that was given, which comes in by a port of node `at`. `whole`: its length where
/// it was cut when it was captured.
#[must_use]
pub fn trace_frame(
    network: &Network,
    at: usize,
    port: PortId,
    mut bytes: Vec<u8>,
    whole: usize,
) -> Trace {
    let mut trace = empty(network);
    if whole > bytes.len() {
        let there = bytes.len();
        trace.notes.push(format!(
            "cut to {there} of {whole} bytes when it was captured: the rest is taken as zeros"
        ));
        bytes.resize(whole, 0);
    }
    let offload = Offload::NONE;
    let mut frame = Carried { bytes, offload };
    let row = network.nodes[at].tables.port(port);
    if let Some(note) = row.and_then(|row| as_super_frame(&mut frame, row.mtu.into())) {
        trace.notes.push(note);
    }
    trace.frame = Some(frame::row(&frame));
    let way = follow(network, at, port, frame);
    (trace.hops, trace.end) = (way.hops, way.end);
    trace
}

fn empty(network: &Network) -> Trace {
    Trace {
        plugin: network.plan.plugin.to_string(),
        notes: Vec::new(),
        asked: None,
        frame: None,
        hops: Vec::new(),
        end: End {
            outcome: "unanswered",
            at: Vec::new(),
            interface: None,
            frame: None,
            drop: None,
        },
    }
}

/// A TCP frame above the MTU was a super-frame: nothing else passes a device. The header that said
/// so is not in the capture.
fn as_super_frame(frame: &mut Carried, mtu: usize) -> Option<String> {
    let view = FrameView::parse(&frame.bytes).ok()?;
    let (network, whole) = match view.network() {
        Header::Ipv4(ip) if is_tcp(ip.transport) && ip.header_len == 20 => {
            (20, usize::from(ip.total_len))
        }
        Header::Ipv6(ip) if is_tcp(ip.transport) => (40, 40 + usize::from(ip.payload_len)),
        _ => return None,
    };
    (whole > mtu).then(|| packet::leave_undone(frame, network, mtu))
}

fn is_tcp(transport: Transport) -> bool {
    matches!(transport, Transport::Tcp { .. })
}

/// Name, port, sender, and the address whose MAC the frame goes to.
fn sender(
    network: &Network,
    request: &Request,
) -> Result<(String, PortId, Sender, IpAddr), NoTrace> {
    let (at, to) = (request.node, request.to);
    let node = &network.nodes[at];
    let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
    let mtu = node.plan.mtu.into();
    match &request.from {
        Origin::Pod(name) => {
            let of = |pod: &&crate::lab::placement::PlacedPod| pod.name == name;
            let pod = node.pods.iter().find(of);
            let own = pod.and_then(|pod| {
                let same = |net: &&ipnet::IpNet| net.addr().is_ipv4() == to.is_ipv4();
                Some((pod, pod.end.addresses.iter().find(same)?))
            });
            let (pod, link) = own.ok_or_else(|| NoTrace::NoAddress(name.clone(), family))?;
            if link.addr() == to {
                return Err(NoTrace::Own(to, name.clone()));
            }
            let gateway = pod
                .end
                .gateways
                .iter()
                .find(|g| g.is_ipv4() == to.is_ipv4());
            let next_hop = if link.contains(&to) {
                to
            } else {
                *gateway.ok_or_else(|| NoTrace::NoRoute(name.clone(), to))?
            };
            let sender = Sender {
                mac: pod.end.mac,
                address: link.addr(),
                mtu: pod.end.mtu as usize,
            };
            Ok((name.clone(), pod.port.port, sender, next_hop))
        }
        Origin::Host => {
            let address = host_source(network, at, to)?;
            let mac = node.macs.host.mac();
            let sender = Sender { mac, address, mtu };
            Ok((node.plan.name.clone(), HOST_PORT, sender, to))
        }
        Origin::Uplink => {
            // Somebody else's address: another node's, as if that had sent.
            let others = network.nodes.iter().filter(|other| other.nic != node.nic);
            let mut addresses = others.filter_map(|other| match to {
                IpAddr::V4(_) => Some(other.plan.primary_ip.into()),
                IpAddr::V6(_) => other.plan.primary_ip_v6.map(IpAddr::V6),
            });
            let missing = || NoTrace::NoAddress("no other node".to_owned(), family);
            let address = addresses.next().ok_or_else(missing)?;
            let mac = FABRIC_MAC;
            let sender = Sender { mac, address, mtu };
            Ok(("the network".to_owned(), UPLINK_PORT, sender, to))
        }
    }
}

/// The address from which a node's kernel sends to `to` by the host port. Under kubenet that is the
/// link of all its pods; under azure it has a route for each pod, and none for the rest.
fn host_source(network: &Network, at: usize, to: IpAddr) -> Result<IpAddr, NoTrace> {
    let node = &network.nodes[at];
    let past = || NoTrace::PastTheSwitch {
        node: node.plan.name.clone(),
        to,
        host: host_name(&network.plan),
    };
    let own = match (network.plan.plugin, to) {
        (Plugin::Azure, IpAddr::V4(_)) => {
            let here = network.pod_with(to).is_some_and(|(home, _)| home == at);
            here.then_some(IpAddr::V4(node.plan.primary_ip))
        }
        (Plugin::Azure, IpAddr::V6(_)) => None,
        (Plugin::Kubenet, _) => {
            let gateway = match to {
                IpAddr::V4(_) => compile::gateway(&node.plan).map(IpAddr::V4),
                IpAddr::V6(_) => compile::gateway_v6(&network.plan, &node.plan).map(IpAddr::V6),
            };
            gateway.filter(|_| network.steers(at, to))
        }
    };
    let own = own.ok_or_else(past)?;
    if own == to {
        return Err(NoTrace::Own(to, node.plan.name.clone()));
    }
    Ok(own)
}

/// The sender's own question for `next_hop`, and its way.
fn ask(
    network: &Network,
    at: usize,
    name: &str,
    port: PortId,
    sender: &Sender,
    next_hop: IpAddr,
) -> (Asked, Way) {
    let asked = question(sender, next_hop).expect("the next hop is of the sender's family");
    let way = follow(network, at, port, asked);
    let answer = way.arrived.as_ref().filter(|_| way.end.at == [name]);
    let mac = way.told.or_else(|| told_in(&answer?.bytes));
    let by = |hop: &&report::Hop| hop.verdict == "answer";
    let answer = match (way.hops.iter().find(by), &way.end.drop) {
        (Some(hop), _) if hop.at == "fabric" => "the fabric".to_owned(),
        (Some(hop), _) => format!("{}'s switch", hop.at),
        (None, Some(death)) => format!("nobody: {} ({})", death.reason, death.meaning),
        (None, None) => format!("nobody: {}, and nobody there holds it", way.end.outcome),
    };
    let interface = match port {
        HOST_PORT => host_name(&network.plan),
        _ => "eth0",
    };
    let asked = Asked {
        by: if next_hop.is_ipv4() { "arp" } else { "nd" },
        asker: name.to_owned(),
        interface: interface.to_owned(),
        address: next_hop,
        mac: mac.map(|mac| mac.to_string()),
        answer,
    };
    debug_assert_eq!(asked.by, question_name(next_hop).to_lowercase());
    (asked, way)
}
