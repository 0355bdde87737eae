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
use crate::plan::Plan;
use crate::routes::{Route, Source};

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
    let mut sent = plan.sent_by_switch(&node.plan).into_iter();
    if let Some((_, route)) = sent.find(|(sent, _)| *sent == prefix) {
        return table_or_system(plan, prefix, &route);
    }
    if compile::PLATFORM.map(IpNet::V4).contains(&prefix) {
        return "Azure's platform".to_owned();
    }
    if prefix == IpNet::V6(compile::LINK_LOCAL) {
        return "the link itself".to_owned();
    }
    "the tables".to_owned()
}

/// Who made one of Azure's routes: a table's entry is called by the node that it leads to.
fn table_or_system(plan: &Plan, prefix: IpNet, route: &Route) -> String {
    let far = plan.nodes.iter().find(|node| {
        let (v4, v6) = (node.pod_cidr, node.pod_cidr_v6);
        v4.map(IpNet::V4) == Some(prefix) || v6.map(IpNet::V6) == Some(prefix)
    });
    match (route.source, far, &route.name) {
        (Source::User | Source::Pods, Some(far), _) => format!("route table: {}", far.name),
        (Source::User | Source::Pods, None, Some(name)) => format!("route table: {name}"),
        (Source::User | Source::Pods, None, None) => "route table".to_owned(),
        (Source::Gateway, ..) => "a gateway".to_owned(),
        (Source::System, ..) if plan.vnet.prefixes.contains(&prefix) => "VNet prefix".to_owned(),
        (Source::System, ..) => "system route".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::plan::{LoadOptions, Plugin, load};

    fn network(options: LoadOptions, plugin: Plugin) -> Network {
        let plugin = Some(plugin);
        let plan = load(&LoadOptions { plugin, ..options }).expect("the examples hold");
        Network::of(&plan, &BTreeMap::new(), false).expect("a plan that holds can be built")
    }

    /// The prefix that a trace names is the one that the FIB took: it has the same next hop.
    fn agrees(network: &Network, at: usize, address: IpAddr) {
        let node = &network.nodes[at];
        let taken = match address {
            IpAddr::V4(v4) => node.tables.route_v4(v4),
            IpAddr::V6(v6) => node.tables.route_v6(v6),
        };
        let named = longest(&node.spec.routes, address).map(|(_, hop)| hop);
        assert_eq!(named, taken, "{address} on {}", node.plan.name);
    }

    #[test]
    fn the_prefix_named_is_the_one_that_the_fib_took() {
        for network in [
            network(LoadOptions::built_in(), Plugin::Azure),
            network(LoadOptions::built_in(), Plugin::Kubenet),
            network(LoadOptions::built_in_dual_stack(), Plugin::Kubenet),
        ] {
            for (at, node) in network.nodes.iter().enumerate() {
                for (prefix, _) in &node.spec.routes {
                    // The ends of each prefix, and their neighbours outside.
                    match prefix {
                        IpNet::V4(net) => {
                            let (first, last) = (net.network(), net.broadcast());
                            let before = first.to_bits().wrapping_sub(1);
                            let behind = last.to_bits().wrapping_add(1);
                            for bits in [before, first.to_bits(), last.to_bits(), behind] {
                                agrees(&network, at, Ipv4Addr::from_bits(bits).into());
                            }
                        }
                        IpNet::V6(net) => {
                            let (first, last) = (net.network(), net.broadcast());
                            let before = first.to_bits().wrapping_sub(1);
                            let behind = last.to_bits().wrapping_add(1);
                            for bits in [before, first.to_bits(), last.to_bits(), behind] {
                                agrees(&network, at, Ipv6Addr::from_bits(bits).into());
                            }
                        }
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn of_any_routes_the_longest_is_named(
            routes in prop::collection::btree_map((any::<u32>(), 0u8..=32), any::<bool>(), 0..40),
            asked in prop::collection::vec(any::<u32>(), 20),
        ) {
            let routes: BTreeMap<IpNet, NextHop> = routes
                .into_iter()
                .map(|((bits, length), dead)| {
                    let net = ipnet::Ipv4Net::new(bits.into(), length).expect("a length").trunc();
                    let hop = if dead { NextHop::Blackhole } else { NextHop::Unreachable };
                    (net.into(), hop)
                })
                .collect();
            let fib = dataplane::tables::fib::Fib::build(routes.clone()).expect("no prefix twice");
            let routes: Vec<_> = routes.into_iter().collect();
            for address in asked.into_iter().map(Ipv4Addr::from_bits) {
                let named = longest(&routes, address.into()).map(|(_, hop)| hop);
                prop_assert_eq!(named, fib.find_v4(address));
            }
        }
    }

    #[test]
    fn every_route_of_the_examples_has_a_source_that_says_who_made_it() {
        let azure = network(LoadOptions::built_in(), Plugin::Azure);
        let kubenet = network(LoadOptions::built_in_dual_stack(), Plugin::Kubenet);
        for network in [azure, kubenet] {
            for (at, node) in network.nodes.iter().enumerate() {
                for (prefix, _) in &node.spec.routes {
                    let source = source(&network, at, *prefix);
                    assert_ne!(source, "the tables", "{prefix} on {}", node.plan.name);
                }
            }
        }
    }
}
