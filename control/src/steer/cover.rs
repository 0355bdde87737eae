//! Which prefixes to steer to the switch: few of them, whatever the number of pods.
//!
//! In: the pods' addresses and those that the node keeps. Out: a [`Cover`]. Pure.
//! Never: a prefix that holds an address of the node's own, or more filters than the node's own
//! frames can bear: each of those walks past all of them.
//!
//! A NIC of Azure's gets nothing but its own addresses, so a prefix may hold more than the pods':
//! of a /24 all but the node's primary address is eight prefixes, where 250 scattered pods would be
//! 250. What comes for an address that no pod has, the switch drops and counts.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// So many filters on the path of the node's own frames are borne for the sake of an exact cover:
/// a pool of 30 addresses in a row needs at most eight.
pub const EXACT_MAX: usize = 16;

/// Prefixes that hold every pod's address and none that the node keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cover {
    /// The prefixes, lowest first; none overlaps another.
    pub prefixes: Vec<Ipv4Net>,
    /// They hold the pods' addresses and no other.
    pub exact: bool,
    /// Addresses that pods were to have and the node keeps: not steered.
    pub disputed: Vec<Ipv4Addr>,
}

impl Cover {
    /// The fewest prefixes that hold exactly `pods` if those are no more than [`EXACT_MAX`], else the
    /// fewest that hold `pods` and not `kept`.
    #[must_use]
    pub fn of(
        pods: impl IntoIterator<Item = Ipv4Net>,
        kept: impl IntoIterator<Item = Ipv4Addr>,
    ) -> Cover {
        let kept: BTreeSet<Ipv4Addr> = kept.into_iter().collect();
        let mut exact = Vec::new();
        let mut disputed = BTreeSet::new();
        for net in Ipv4Net::aggregate(&pods.into_iter().collect()) {
            let inside: Vec<Ipv4Addr> = kept
                .range(net.network()..=net.broadcast())
                .copied()
                .collect();
            without(net, &inside, &mut exact);
            disputed.extend(inside);
        }
        exact.sort_unstable();
        let mut cover = Cover {
            exact: true,
            disputed: disputed.into_iter().collect(),
            prefixes: exact,
        };
        if cover.prefixes.len() > EXACT_MAX {
            let mut wide = Vec::new();
            around(&cover.prefixes, &kept, &mut wide);
            if wide.len() < cover.prefixes.len() {
                (cover.prefixes, cover.exact) = (wide, false);
            }
        }
        cover
    }
}

/// The parts of `net` that hold none of `kept`, all of which lie in it.
fn without(net: Ipv4Net, kept: &[Ipv4Addr], out: &mut Vec<Ipv4Net>) {
    if kept.is_empty() {
        out.push(net);
    } else if let Ok(halves) = net.subnets(net.prefix_len() + 1) {
        for half in halves {
            let inside: Vec<Ipv4Addr> = kept.iter().copied().filter(|a| half.contains(a)).collect();
            without(half, &inside, out);
        }
    }
}

/// The fewest prefixes that hold all `nets`, sorted and apart, and none of `kept`, which lies in
/// none of them. At most 32 for each address kept: that is how often it can be in the way.
fn around(nets: &[Ipv4Net], kept: &BTreeSet<Ipv4Addr>, out: &mut Vec<Ipv4Net>) {
    let (Some(first), Some(last)) = (nets.first(), nets.last()) else {
        return;
    };
    let differ = first.network().to_bits() ^ last.broadcast().to_bits();
    let len = (differ.leading_zeros() as u8).min(first.prefix_len());
    let all = Ipv4Net::new(first.network(), len)
        .expect("at most 32 zeroes lead")
        .trunc();
    if kept.range(all.network()..=all.broadcast()).next().is_none() {
        return out.push(all);
    }
    // Somebody is kept in between, so `nets` are several, and lie in both halves.
    let middle = all.network().to_bits() | 1_u32 << (31 - u32::from(len));
    let split = nets.partition_point(|net| net.network().to_bits() < middle);
    around(&nets[..split], kept, out);
    around(&nets[split..], kept, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 20, 0, last)
    }

    fn text(cover: &Cover) -> Vec<String> {
        cover.prefixes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_pool_in_a_row_is_covered_exactly() {
        let cover = Cover::of((5..=34).map(|n| ip(n).into()), [ip(4)]);
        assert!(cover.exact);
        let wanted = [
            "10.20.0.5/32",
            "10.20.0.6/31",
            "10.20.0.8/29",
            "10.20.0.16/28",
            "10.20.0.32/31",
            "10.20.0.34/32",
        ];
        assert_eq!(text(&cover), wanted);
    }

    #[test]
    fn scattered_pods_are_covered_by_all_but_the_nodes_own_address() {
        let cover = Cover::of((6..=250).step_by(2).map(|n| ip(n).into()), [ip(4)]);
        assert!(!cover.exact);
        let wanted = [
            "10.20.0.6/32",
            "10.20.0.8/29",
            "10.20.0.16/28",
            "10.20.0.32/27",
            "10.20.0.64/26",
            "10.20.0.128/25",
        ];
        assert_eq!(text(&cover), wanted);
    }

    #[test]
    fn an_address_that_the_node_keeps_is_not_steered_and_named() {
        let cover = Cover::of(["10.20.0.0/30".parse().expect("a prefix")], [ip(1), ip(9)]);
        assert_eq!(text(&cover), ["10.20.0.0/32", "10.20.0.2/31"]);
        assert_eq!(cover.disputed, [ip(1)]);
        assert_eq!(
            Cover::of([], [ip(1)]),
            Cover {
                exact: true,
                ..Cover::default()
            }
        );
        assert_eq!(text(&Cover::of([Ipv4Net::default()], [])), ["0.0.0.0/0"]);
    }

    proptest! {
        #[test]
        fn every_pod_is_in_one_prefix_and_nobody_that_is_kept_in_any(
            pods in prop::collection::btree_set(0u32..2048, 0..300),
            kept in prop::collection::btree_set(0u32..2048, 0..6),
            high in any::<bool>(),
        ) {
            let base = if high { u32::MAX - 2047 } else { 0 };
            let address = |n: &u32| Ipv4Addr::from_bits(base + n);
            let cover = Cover::of(pods.iter().map(|n| address(n).into()), kept.iter().map(address));
            let holders = |n: &u32| cover.prefixes.iter().filter(|net| net.contains(&address(n))).count();
            for n in 0..2048 {
                let wanted = usize::from(pods.contains(&n) && !kept.contains(&n));
                match kept.contains(&n) || cover.exact {
                    true => prop_assert_eq!(holders(&n), wanted),
                    false => prop_assert!(holders(&n) >= wanted && holders(&n) <= 1),
                }
            }
            let bound = EXACT_MAX.max(11 * kept.len() + 1);
            prop_assert!(cover.prefixes.len() <= bound, "{} prefixes", cover.prefixes.len());
            let disputed: Vec<_> = kept.intersection(&pods).map(address).collect();
            prop_assert_eq!(cover.disputed, disputed);
        }
    }
}
