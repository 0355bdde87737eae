//! `GET /v1/steering` and `GET /v1/flows`: which prefix and which flow goes where, and why.
//!
//! In: the node, its tables, the filters' keeper, the policy and the conversations of the switch.
//! Out: [`SteeringView`] and [`FlowView`], for JSON. Pure.
//! Never: in the former more conversations than a person can read: [`FLOWS_MAX`], those that live
//! longest first; how many there are is told beside, and the latter has them all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dataplane::addr::PortId;
use dataplane::clock::Tick;
use dataplane::frame::tuple::{Ports, Stage, Tuple};
use dataplane::tables::fib::NextHop;
use dataplane::tables::returns::{About, Carrier, Entry, Returns};
use dataplane::tables::{Policy, TablesSpec};
use ipnet::IpNet;
use serde::Serialize;

use super::agents::Agents;
use super::keeper::Kept;
use super::policy::InForce;
use crate::api::views::CopiesView;
use crate::compile::{FIRST_POD_PORT, LINK_LOCAL, NodeSpec, PLATFORM};
use crate::devices::attach::{ArpSteering, SteeredBy, Uplink};

/// Conversations listed.
pub const FLOWS_MAX: usize = 1000;

/// The whole view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SteeringView {
    /// The filters on the uplink.
    pub filters: FiltersView,
    /// What those are shown who listen at the host device; nothing where they cannot be.
    pub copies: Option<CopiesView>,
    /// Where each prefix goes.
    pub prefixes: Vec<PrefixView>,
    /// Whether pods reach each other by the kernel's rules only.
    pub policy: PolicyView,
    /// Conversations that are not the switch's alone.
    pub flows: Vec<FlowView>,
    /// The books of those conversations.
    pub totals: TotalsView,
}

/// What is steered to the switch, and how that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FiltersView {
    /// The device shared with the node.
    pub device: String,
    /// Packets to these go to the switch.
    pub pods: Vec<IpNet>,
    /// Which ARP does: `by_target` (about those prefixes) or `replies` (copies).
    pub arp: &'static str,
    /// What carries this: `tcx` (a program), `nftables` (a table), `clsact` (filters), two while one takes
    /// over from the other, or `nothing`.
    pub by: String,
    /// Each program, table and filter of ours on the device, and what it does.
    pub carriers: Vec<SteeredBy>,
    /// Why the device could not be asked for them, if so.
    pub unread: Option<String>,
    /// Looks at the filters so far.
    pub looks: u64,
    /// Filters that were missing and were put back.
    pub put_back: u64,
    /// Looks that failed.
    pub failures: u64,
    /// Why the last look failed, if it did.
    pub failure: Option<String>,
}

/// A prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PrefixView {
    /// The prefix.
    pub prefix: IpNet,
    /// `host`, `pod`, `uplink` or `nowhere`.
    pub to: &'static str,
    /// Why.
    pub why: String,
    /// The pod, if it is one's.
    pub pod: Option<String>,
}

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyView {
    /// `none` or `via-host`.
    pub in_force: &'static str,
    /// Why.
    pub why: String,
    /// What it costs.
    pub cost: Option<&'static str>,
    /// What an operator should know.
    pub warnings: Vec<String>,
    /// Chains of policy agents that the kernel holds.
    pub chains: Vec<super::agents::AgentChain>,
    /// What of the kernel's packet filter could not be read.
    pub unread: Vec<String>,
}

/// A conversation in one direction, or an end of many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowView {
    /// IP protocol number.
    pub protocol: u8,
    /// Source address.
    pub source: IpAddr,
    /// Source port or ICMP identifier; none for fragments.
    pub source_port: Option<u16>,
    /// Target address; none where any is meant.
    pub target: Option<IpAddr>,
    /// Target port.
    pub target_port: Option<u16>,
    /// The pod's port on the switch.
    pub port: usize,
    /// What the pod is called.
    pub name: String,
    /// Who gets the answers: `host` or `switch`.
    pub answers_to: &'static str,
    /// Why.
    pub why: &'static str,
    /// `opening`, `open`, `closing`, `datagram` or `other`.
    pub stage: &'static str,
    /// Seconds since it was last heard, to eight of them.
    pub age_seconds: u64,
    /// Seconds until it is forgotten, if nothing more is heard.
    pub seconds_left: u64,
}

/// Books of the conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TotalsView {
    /// There is room for so many.
    pub capacity: usize,
    /// Entries now, listed or not.
    pub live: u64,
    /// Entries made.
    pub added: u64,
    /// Entries that ran out.
    pub expired: u64,
    /// Entries that gave way to others.
    pub evicted: u64,
    /// Entries not made, since the pod had its share.
    pub refused: u64,
    /// Frames given to the host for these, and not for their prefix.
    pub returned: u64,
}

/// Everything that the view is made of.
#[derive(Clone, Debug)]
pub struct Sources<'a> {
    /// The node.
    pub node: &'a NodeSpec,
    /// The tables in force, as they were specified.
    pub tables: &'a TablesSpec,
    /// The uplink as it is kept.
    pub uplink: &'a Uplink,
    /// How the keeping goes.
    pub kept: &'a Kept,
    /// What the kernel has of it, or why it could not be asked.
    pub carriers: &'a Result<Vec<SteeredBy>, String>,
    /// The copies for listeners.
    pub copies: Option<CopiesView>,
    /// The policy.
    pub policy: &'a InForce,
    /// What was found of agents.
    pub agents: &'a Agents,
    /// The switch's conversations, [`Switch::returns`](dataplane::switch::Switch::returns).
    pub returns: &'a Returns,
    /// The time by the switch's clock, or one near it.
    pub now: Tick,
    /// What the pods' ports are called.
    pub names: &'a BTreeMap<PortId, String>,
}

impl SteeringView {
    /// Puts the view together.
    #[must_use]
    pub fn of(from: Sources<'_>) -> SteeringView {
        let mut flows = flows(from.returns, from.now, from.names);
        flows.truncate(FLOWS_MAX);
        let routes = from.tables.routes.iter();
        SteeringView {
            filters: filters(&from),
            copies: from.copies,
            prefixes: routes
                .map(|(net, hop)| prefix(from.node, from.names, *net, hop))
                .collect(),
            policy: policy(from.policy, from.agents),
            flows,
            totals: totals(from.returns),
        }
    }
}

fn filters(from: &Sources<'_>) -> FiltersView {
    let (uplink, kept) = (from.uplink, from.kept);
    let carriers = from.carriers.as_deref().unwrap_or_default();
    let by: BTreeSet<&str> = carriers.iter().map(|one| one.by).collect();
    let by: Vec<&str> = by.into_iter().rev().collect();
    let v4 = uplink.pods.iter().copied().map(IpNet::V4);
    let v6 = uplink.pods_v6.iter().copied().map(IpNet::V6);
    FiltersView {
        device: uplink.device.to_string(),
        pods: v4.chain(v6).collect(),
        arp: match uplink.arp {
            ArpSteering::ByTarget(_) => "by_target",
            ArpSteering::MirrorReplies => "replies",
        },
        by: match by.as_slice() {
            [] => "nothing".to_owned(),
            some => some.join(" and "),
        },
        carriers: carriers.to_vec(),
        unread: from.carriers.as_ref().err().cloned(),
        looks: kept.looks,
        put_back: kept.put_back,
        failures: kept.failures,
        failure: kept.failure.clone(),
    }
}

fn prefix(
    node: &NodeSpec,
    names: &BTreeMap<PortId, String>,
    net: IpNet,
    hop: &NextHop,
) -> PrefixView {
    let to = match hop {
        NextHop::Host => "host",
        NextHop::Station { port, .. } if is_pods(*port) => "pod",
        NextHop::Station { .. } | NextHop::Neighbour(_) | NextHop::Group(_) => "uplink",
        NextHop::Unreachable | NextHop::Blackhole => "nowhere",
    };
    PrefixView {
        prefix: net,
        to,
        why: why(node, net, hop),
        pod: match hop {
            NextHop::Station { port, .. } if is_pods(*port) => names.get(port).cloned(),
            _ => None,
        },
    }
}

fn is_pods(port: PortId) -> bool {
    port.index() >= FIRST_POD_PORT
}

/// In the order in which the tables are made: of two reasons for one prefix the first is it.
fn why(node: &NodeSpec, net: IpNet, hop: &NextHop) -> String {
    let is = |address: IpAddr| net == IpNet::from(address);
    let own = [node.own.v4.map(IpAddr::V4), node.own.v6.map(IpAddr::V6)];
    let gateway = node.gateway();
    let gateways = [gateway.v4.map(IpAddr::V4), gateway.v6.map(IpAddr::V6)];
    let among = |nets: &[IpNet]| nets.iter().any(|other| other.trunc() == net);
    match hop {
        NextHop::Unreachable => "of this node's pods, and no pod has it".into(),
        NextHop::Blackhole => "a route table says to discard it".into(),
        NextHop::Host if own.into_iter().flatten().any(is) => "the node's own address".into(),
        NextHop::Host if gateways.into_iter().flatten().any(is) => "the pods' gateway".into(),
        NextHop::Host if among(&node.services) => "services, which the kernel translates".into(),
        NextHop::Host if among(&node.via_host) => "the via-host list".into(),
        NextHop::Host if PLATFORM.iter().any(|other| IpNet::V4(*other) == net) => {
            "Azure's own services on each node".into()
        }
        NextHop::Host if IpNet::V6(LINK_LOCAL) == net => "the addresses of the link".into(),
        NextHop::Host => "the rest of the world, for which the kernel masquerades".into(),
        NextHop::Station { port, .. } if is_pods(*port) => {
            format!("a pod, on port {}", port.index())
        }
        other => format!("beyond the uplink: {other}"),
    }
}

fn policy(in_force: &InForce, agents: &Agents) -> PolicyView {
    PolicyView {
        in_force: match in_force.policy {
            Policy::None => "none",
            Policy::ViaHost => "via-host",
        },
        why: in_force.why.clone(),
        cost: in_force.cost,
        warnings: in_force.warnings.clone(),
        chains: agents.found.clone(),
        unread: agents.unsure.clone(),
    }
}

/// Every conversation, those that live longest first.
#[must_use]
pub fn flows(returns: &Returns, now: Tick, names: &BTreeMap<PortId, String>) -> Vec<FlowView> {
    let mut entries: Vec<Entry> = returns.entries(now).collect();
    entries.sort_unstable_by_key(|entry| (u64::MAX - entry.seconds_left, entry.about));
    let name = |port: PortId| match names.get(&port) {
        Some(name) => name.clone(),
        None => format!("port {}", port.index()),
    };
    let row = |entry: &Entry| flow(entry, name(entry.port));
    entries.iter().map(row).collect()
}

fn flow(entry: &Entry, name: String) -> FlowView {
    let (tuple, any_target) = match &entry.about {
        About::Tuple(tuple) => (tuple, false),
        About::Endpoint(tuple) => (tuple, true),
    };
    let (answers_to, why) = match (any_target, entry.carrier) {
        (true, _) => (
            "host",
            "the pod has spoken from there to what the kernel serves",
        ),
        (false, Carrier::Host) => ("host", "the kernel delivered it, by the host port"),
        (false, Carrier::Switch) => (
            "switch",
            "the switch carried it, from where a pod spoke to the kernel, too",
        ),
    };
    let Tuple {
        source,
        target,
        protocol,
        ports,
    } = *tuple;
    let (source_port, target_port) = match ports {
        Ports::Known(source, target) => (Some(source), Some(target)),
        Ports::Hidden => (None, None),
    };
    FlowView {
        protocol,
        source,
        source_port,
        target: (!any_target).then_some(target),
        target_port: target_port.filter(|_| !any_target),
        port: entry.port.index(),
        name,
        answers_to,
        why,
        stage: match entry.stage {
            Stage::Opening => "opening",
            Stage::Open => "open",
            Stage::Closing => "closing",
            Stage::Datagram => "datagram",
            Stage::Other => "other",
        },
        age_seconds: entry.age_seconds,
        seconds_left: entry.seconds_left,
    }
}

fn totals(returns: &Returns) -> TotalsView {
    let totals = returns.totals();
    TotalsView {
        capacity: returns.capacity(),
        live: totals.live,
        added: totals.added,
        expired: totals.expired,
        evicted: totals.evicted,
        refused: totals.refused,
        returned: totals.returned,
    }
}
