//! The forwarding information base: the longest prefix that holds an address, and its next hop.
//!
//! In: routes, all at once. Out: the next hop for an address, or nothing.
//! Never: changes after [`Fib::build`]; a new table is built and published whole.
//!
//! Prefixes are kept by length, longest first, each length sorted, so a lookup is one binary
//! search per length in use.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::addr::{Mac, PortId};

/// Where a routed packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// A station whose hardware address is known: a pod, or Azure's virtual router.
    Station {
        /// The port it is reached by.
        port: PortId,
        /// Its hardware address.
        mac: Mac,
    },
    /// The node's own kernel, which routes, masquerades and balances as it sees fit.
    Host,
    /// A router on the uplink, whose hardware address is asked for when first needed.
    Neighbour(IpAddr),
    /// Nobody: inside this node's own pod range, and no pod has the address.
    Unreachable,
    /// Nobody, silently.
    Blackhole,
}

/// Two routes for one prefix that disagree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("prefix {prefix} has two next hops: {first:?} and {second:?}")]
pub struct Conflict {
    /// The prefix given twice.
    pub prefix: IpNet,
    /// The next hop given first.
    pub first: NextHop,
    /// The other one.
    pub second: NextHop,
}

/// A routing table compiled for lookup, for both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fib {
    v4: Vec<Level<u32>>,
    v6: Vec<Level<u128>>,
}

/// All prefixes of one length, sorted by their bits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Level<B> {
    mask: B,
    entries: Vec<(B, NextHop)>,
}

impl Fib {
    /// Compiles `routes`. Host bits behind a prefix are ignored; the same route twice is one.
    ///
    /// # Errors
    /// Every prefix that was given with two different next hops.
    pub fn build(routes: impl IntoIterator<Item = (IpNet, NextHop)>) -> Result<Fib, Vec<Conflict>> {
        let mut sorted: Vec<(IpNet, NextHop)> = routes
            .into_iter()
            .map(|(prefix, hop)| (prefix.trunc(), hop))
            .collect();
        sorted.sort_by_key(|(prefix, _)| (std::cmp::Reverse(prefix.prefix_len()), *prefix));
        let mut conflicts = Vec::new();
        sorted.dedup_by(|(prefix, second), (kept, first)| {
            if prefix == kept && second != first {
                conflicts.push(Conflict {
                    prefix: *prefix,
                    first: *first,
                    second: *second,
                });
            }
            prefix == kept
        });
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let mut fib = Fib::default();
        for (prefix, hop) in sorted {
            match prefix {
                IpNet::V4(net) => {
                    insert(
                        &mut fib.v4,
                        net.netmask().to_bits(),
                        net.network().to_bits(),
                        hop,
                    );
                }
                IpNet::V6(net) => {
                    insert(
                        &mut fib.v6,
                        net.netmask().to_bits(),
                        net.network().to_bits(),
                        hop,
                    );
                }
            }
        }
        Ok(fib)
    }

    /// The next hop of the longest prefix that holds `address`.
    #[inline]
    #[must_use]
    pub fn find_v4(&self, address: Ipv4Addr) -> Option<NextHop> {
        find(&self.v4, address.to_bits(), |a, m| a & m)
    }

    /// The next hop of the longest prefix that holds `address`.
    #[inline]
    #[must_use]
    pub fn find_v6(&self, address: Ipv6Addr) -> Option<NextHop> {
        find(&self.v6, address.to_bits(), |a, m| a & m)
    }

    /// How many prefixes the table holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.iter().map(|l| l.entries.len()).sum::<usize>()
            + self.v6.iter().map(|l| l.entries.len()).sum::<usize>()
    }

    /// True for a table without prefixes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Adds to the last level, or opens the next; routes arrive longest first and sorted.
fn insert<B: PartialEq>(levels: &mut Vec<Level<B>>, mask: B, bits: B, hop: NextHop) {
    match levels.last_mut() {
        Some(level) if level.mask == mask => level.entries.push((bits, hop)),
        _ => levels.push(Level {
            mask,
            entries: vec![(bits, hop)],
        }),
    }
}

#[inline]
fn find<B: Ord + Copy>(
    levels: &[Level<B>],
    address: B,
    and: impl Fn(B, B) -> B,
) -> Option<NextHop> {
    levels.iter().find_map(|level| {
        let bits = and(address, level.mask);
        let at = level
            .entries
            .binary_search_by_key(&bits, |entry| entry.0)
            .ok()?;
        Some(level.entries[at].1)
    })
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NextHop::Station { port, mac } => write!(f, "{mac} on {port:?}"),
            NextHop::Host => f.write_str("host"),
            NextHop::Neighbour(address) => write!(f, "via {address}"),
            NextHop::Unreachable => f.write_str("unreachable"),
            NextHop::Blackhole => f.write_str("blackhole"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The obvious table: look at every route, keep the longest that holds the address.
    fn scan(routes: &[(IpNet, NextHop)], address: IpAddr) -> Option<NextHop> {
        routes
            .iter()
            .filter(|(prefix, _)| prefix.contains(&address))
            .max_by_key(|(prefix, _)| prefix.prefix_len())
            .map(|(_, hop)| *hop)
    }

    fn hop(n: u8) -> NextHop {
        NextHop::Neighbour(Ipv4Addr::new(192, 0, 2, n).into())
    }

    prop_compose! {
        /// Prefixes crowd into few bits, so that they nest and overlap.
        fn v4_route()(bits in any::<u32>(), crowd in any::<bool>(), len in 0u8..=32, n in any::<u8>()) -> (IpNet, NextHop) {
            let bits = if crowd { 0x0af4_0000 | (bits & 0x0101_0307) } else { bits };
            (ipnet::Ipv4Net::new(bits.into(), len).expect("length in range").into(), hop(n))
        }
    }

    prop_compose! {
        fn v6_route()(bits in any::<u128>(), crowd in any::<bool>(), len in 0u8..=128, n in any::<u8>()) -> (IpNet, NextHop) {
            let bits = if crowd { (0xfd00_u128 << 112) | (bits & 0x0101_0001_0000_0000_0000_0307) } else { bits };
            (ipnet::Ipv6Net::new(bits.into(), len).expect("length in range").into(), hop(n))
        }
    }

    /// The first next hop of each prefix, as an operator would write a table without conflicts.
    fn settled(routes: Vec<(IpNet, NextHop)>) -> Vec<(IpNet, NextHop)> {
        let mut seen = std::collections::BTreeMap::new();
        for (prefix, hop) in routes {
            seen.entry(prefix.trunc()).or_insert(hop);
        }
        seen.into_iter().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn the_table_answers_as_a_scan_of_all_routes(
            routes in prop::collection::vec(prop_oneof![v4_route(), v6_route()], 0..120),
            strangers in prop::collection::vec(any::<u32>(), 40),
        ) {
            let routes = settled(routes);
            let fib = Fib::build(routes.iter().copied()).expect("no conflicts");
            prop_assert_eq!(fib.len(), routes.len());
            let known = routes.iter().flat_map(|(p, _)| [p.network(), p.broadcast()]);
            let strange = strangers.iter().map(|b| IpAddr::V4((*b).into()));
            for address in known.chain(strange) {
                let found = match address {
                    IpAddr::V4(a) => fib.find_v4(a),
                    IpAddr::V6(a) => fib.find_v6(a),
                };
                prop_assert_eq!(found, scan(&routes, address), "{}", address);
            }
        }
    }

    #[test]
    fn one_prefix_with_two_next_hops_is_refused_by_name() {
        let prefix: IpNet = "10.244.0.0/24".parse().expect("a prefix");
        let other: IpNet = "10.244.0.7/24".parse().expect("a prefix");
        let conflicts = Fib::build([(prefix, hop(1)), (other, hop(2))]).expect_err("they disagree");
        assert_eq!(
            conflicts,
            [Conflict {
                prefix,
                first: hop(1),
                second: hop(2)
            }]
        );
        assert_eq!(
            Fib::build([(prefix, hop(1)), (other, hop(1))])
                .expect("they agree")
                .len(),
            1
        );
    }
}
