//! Which prefix held an address, and who put it there.
//!
//! In: the routes that a switch was given, and the plan they come from.
//! Out: the longest of them that holds an address, and the words for its source.
//! Never: decides: the FIB has, and knows next hops only; a test holds the two beside each other.

use std::net::IpAddr;

use dataplane::tables::fib::NextHop;
use ipnet::IpNet;

use super::network::Network;
use crate::compile;

/// The longest prefix that holds `address`.
#[must_use]
pub fn longest(routes: &[(IpNet, NextHop)], address: IpAddr) -> Option<(IpNet, NextHop)> {
    let holding = routes.iter().filter(|(net, _)| net.contains(&address));
    holding.max_by_key(|(net, _)| net.prefix_len()).copied()
}

/// Who put `prefix` into the tables of node `at`. The questions are in the order of
/// [`compile::compile`], where of two rows for one prefix the first stays.
#[must_use]
pub fn source(network: &Network, at: usize, prefix: IpNet) -> String {
    let (plan, node) = (&network.plan, &network.nodes[at]);
    let single = (prefix.prefix_len() == prefix.max_prefix_len()).then(|| prefix.addr());
    let pod = single.and_then(|address| network.pod_with(address));
    if let Some((_, pod)) = pod.filter(|(home, _)| *home == at) {
        return pod.name.to_owned();
    }
    let is = |address: Option<IpAddr>| address.is_some() && address == single;
    if is(Some(node.plan.primary_ip.into())) || is(node.plan.primary_ip_v6.map(IpAddr::V6)) {
        return "the node itself".to_owned();
    }
    let gateways = [
        compile::gateway(&node.plan).map(IpAddr::V4),
        compile::gateway_v6(plan, &node.plan).map(IpAddr::V6),
    ];
    if gateways.into_iter().any(is) {
        return "the pods' gateway".to_owned();
    }
    if plan.service_cidrs.contains(&prefix) {
        return "service CIDR".to_owned();
    }
    if plan.via_host.contains(&prefix) {
        return "by way of the host".to_owned();
    }
    if prefix.prefix_len() == 0 {
        return "default".to_owned();
    }
    let own = |net: IpNet| match net {
        IpNet::V4(v4) => compile::own_range(&node.plan).contains(&v4),
        IpNet::V6(v6) => compile::own_range_v6(plan, &node.plan) == Some(v6),
    };
    if own(prefix) {
        return "own pod range".to_owned();
    }
    let far = plan.nodes.iter().find(|other| {
        other.pod_cidr.map(IpNet::V4) == Some(prefix)
            || other.pod_cidr_v6.map(IpNet::V6) == Some(prefix)
    });
    if let Some(far) = far {
        return format!("route table: {}", far.name);
    }
    if let Some(route) = plan.routes.iter().find(|route| route.prefix == prefix) {
        return format!("route table: {}", route.name);
    }
    if plan.vnet.prefixes.contains(&prefix) {
        return "VNet prefix".to_owned();
    }
    if compile::PLATFORM.map(IpNet::V4).contains(&prefix) {
        return "Azure's platform".to_owned();
    }
    "the tables".to_owned()
}
