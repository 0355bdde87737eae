//! Pod CIDRs and the routes to them, under kubenet.
//!
//! In: nodes with addresses, and the order in which they register. Out: a pod CIDR of each family
//! for each node, and a route to each. Never: gives out a prefix that overlaps the services.
//!
//! Under azure only dual stack has pod CIDRs, and those of IPv6 only: pods' IPv4 addresses are the
//! NIC's (aks-engine then tells the controller manager the IPv6 cluster subnet alone).
//!
//! Kubernetes counts: the first node to register gets the first prefix, whatever its name.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::LoadOptions;
use super::types::{NextHopType, Node, Plugin, Route};
use crate::model::{Model, Place, Placed, Report, as_v4, overlap};

/// The length of an IPv6 pod CIDR, and how much longer than the cluster's it may be.
const NODE_LENGTH_V6: u8 = 64;
const NODE_BITS_V6_MAX: u8 = 16;

/// Whether a short name is that of a node.
fn is_node(model: &Model, name: &str) -> bool {
    let agents: u32 = model.pools.iter().map(|pool| pool.count.value).sum();
    let counts = |prefix: &str, count: u32| {
        let number = name
            .strip_prefix(prefix)
            .and_then(|number| number.parse::<u32>().ok());
        number.is_some_and(|number| number < count && name == format!("{prefix}{number}"))
    };
    counts("node-", agents) || counts("master-", model.masters.count)
}

/// Complains about names in `--register` that are unknown or come twice.
pub(super) fn check_register(model: &Model, register: &[String], report: &mut Report) {
    if !model.requires_route_table() && !register.is_empty() {
        let place = Place::option("--register", "");
        report.warn(&place, "without effect: under azure nodes have no pod CIDR");
    }
    let mut seen = HashSet::new();
    for name in register {
        let place = Place::option("--register", name);
        if !is_node(model, name) {
            report.fault(
                &place,
                "no such node: they are named node-0 and up, master-0 and up",
            );
        } else if !seen.insert(name) {
            report.fault(&place, "given more than once");
        }
    }
}

/// The cluster's IPv4 space, where there is one.
pub(super) fn space_v4(model: &Model) -> Option<Placed<Ipv4Net>> {
    model
        .cluster_subnets
        .iter()
        .find_map(|net| Some(net.with(as_v4(&net.value)?)))
}

/// The IPv4 pod CIDRs that may be given out, lowest first.
pub(super) fn free_v4(model: &Model) -> impl Iterator<Item = Ipv4Net> + '_ {
    let length = model.node_mask.value;
    let space = space_v4(model)
        .map(|space| space.value)
        .filter(|s| s.prefix_len() <= length);
    // In 64 bits, so that the end of the address space is a number like any other.
    let (mut next, last) = space.map_or((1, 0), |space| {
        (
            u64::from(space.network().to_bits()),
            u64::from(space.broadcast().to_bits()),
        )
    });
    std::iter::from_fn(move || {
        while next <= last {
            let start = Ipv4Addr::from_bits(u32::try_from(next).ok()?);
            let net = Ipv4Net::new(start, length).ok()?;
            let service = model
                .service_cidrs
                .iter()
                .filter_map(|service| as_v4(&service.value))
                .find(|service| overlap(&IpNet::V4(*service), &IpNet::V4(net)));
            let end = |net: Ipv4Net| u64::from(net.broadcast().to_bits());
            next = end(net).max(service.map_or(0, end)) + 1;
            if service.is_none() {
                return Some(net);
            }
        }
        None
    })
}

/// Gives each node its pod CIDR, in the order of registration.
pub(super) fn allot(
    model: &Model,
    nodes: &mut [Node],
    options: &LoadOptions,
    report: &mut Report,
) -> Option<()> {
    let mut order: Vec<usize> = options
        .register
        .iter()
        .filter_map(|name| nodes.iter().position(|node| node.name == *name))
        .collect();
    let named: HashSet<usize> = order.iter().copied().collect();
    order.extend((0..nodes.len()).filter(|index| !named.contains(index)));
    if model.plugin == Plugin::Kubenet && space_v4(model).is_some() {
        let mut free = free_v4(model);
        for index in &order {
            nodes[*index].pod_cidr = Some(free.next()?);
        }
    }
    if !allot_v6(model, nodes, &order, options, report) {
        return None;
    }
    Some(())
}

/// The cluster's IPv6 space, where there is one.
fn space_v6(model: &Model) -> Option<Placed<Ipv6Net>> {
    model
        .cluster_subnets
        .iter()
        .find_map(|net| match net.value {
            IpNet::V6(space) => Some(net.with(space)),
            IpNet::V4(_) => None,
        })
}

/// The IPv6 pod CIDRs that may be given out, lowest first; none from a space that the controller
/// manager refuses to cut up.
fn free_v6(model: &Model) -> impl Iterator<Item = Ipv6Net> + '_ {
    let space = space_v6(model).map(|space| space.value);
    let bits = space.and_then(|space| NODE_LENGTH_V6.checked_sub(space.prefix_len()));
    let bits = bits.filter(|bits| *bits <= NODE_BITS_V6_MAX);
    let base = space.map_or(0, |space| space.network().to_bits());
    (0..bits.map_or(0, |bits| 1_u128 << bits))
        .filter_map(move |number| {
            let address = Ipv6Addr::from_bits(base + (number << (128 - NODE_LENGTH_V6)));
            Ipv6Net::new(address, NODE_LENGTH_V6).ok()
        })
        .filter(|net| {
            let mut services = model.service_cidrs.iter();
            !services.any(|service| overlap(&service.value, &IpNet::V6(*net)))
        })
}

/// Gives each node its IPv6 pod CIDR. Where there are too few it is a fault for whoever asks for
/// dual stack, and false; otherwise a warning, and nobody gets one.
fn allot_v6(
    model: &Model,
    nodes: &mut [Node],
    order: &[usize],
    options: &LoadOptions,
    report: &mut Report,
) -> bool {
    let Some(space) = space_v6(model) else {
        return true;
    };
    let free: Vec<Ipv6Net> = free_v6(model).take(order.len()).collect();
    if free.len() < order.len() {
        let message = format!(
            "{} holds no /{NODE_LENGTH_V6} for each node (it may be at most {NODE_BITS_V6_MAX} \
             bits shorter)",
            space.value
        );
        if options.dual_stack {
            report.fault(&space.place, message);
            return false;
        }
        let message = format!("{message}; IPv6 pod CIDRs are left out");
        report.warn(&space.place, message);
        return true;
    }
    for (net, index) in free.into_iter().zip(order) {
        nodes[*index].pod_cidr_v6 = Some(net);
    }
    true
}

/// The entries that the cloud provider writes into the route table: one for each pod CIDR, to the
/// node's own address of the same family.
pub(super) fn routes(model: &Model, nodes: &[Node]) -> Vec<Route> {
    if !model.requires_route_table() {
        return Vec::new();
    }
    let route = |node: &Node, prefix: IpNet, next_hop: IpAddr| Route {
        name: route_name(node, &prefix, model.dual_stack.value),
        prefix,
        next_hop_type: NextHopType::VirtualAppliance,
        next_hop_ip: Some(next_hop),
    };
    nodes
        .iter()
        .flat_map(|node| {
            let v4 = node
                .pod_cidr
                .map(|cidr| route(node, cidr.into(), node.primary_ip.into()));
            let v6 = node
                .pod_cidr_v6
                .zip(node.primary_ip_v6)
                .map(|(cidr, next_hop)| route(node, cidr.into(), next_hop.into()));
            v4.into_iter().chain(v6)
        })
        .collect()
}

/// The node's name; in dual stack the prefix follows, since a node has two.
fn route_name(node: &Node, prefix: &IpNet, dual_stack: bool) -> String {
    let name = node.hostname.as_ref().unwrap_or(&node.name);
    if !dual_stack {
        return name.clone();
    }
    format!(
        "{name}____{}",
        prefix.to_string().replace(['.', ':', '/'], "")
    )
}
