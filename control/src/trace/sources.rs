//! Which prefix held an address, and who put it there.
//!
//! In: the routes that a switch was given, and the list of those who wanted them.
//! Out: the longest of them that holds an address, and the words for its source.
//! Never: decides: the FIB has, and knows next hops only; a test holds the two beside each other.

use std::net::IpAddr;

use dataplane::tables::fib::NextHop;
use ipnet::IpNet;

use super::network::Network;

/// The longest prefix that holds `address`.
#[must_use]
pub fn longest(routes: &[(IpNet, NextHop)], address: IpAddr) -> Option<(IpNet, NextHop)> {
    let holding = routes.iter().filter(|(net, _)| net.contains(&address));
    holding.max_by_key(|(net, _)| net.prefix_len()).copied()
}

/// Who put `prefix` into the tables of node `at`.
#[must_use]
pub fn source(network: &Network, at: usize, prefix: IpNet) -> String {
    let node = &network.nodes[at];
    let wanted = node.wanted.iter().find(|wanted| wanted.prefix == prefix);
    match wanted {
        Some(wanted) => match wanted.pod {
            Some(port) => network.port_name(at, port),
            None => wanted.source.clone(),
        },
        None => "the tables".to_owned(),
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
