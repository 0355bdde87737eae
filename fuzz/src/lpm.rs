//! Routes compiled, changed while they are in use, and looked up; beside a list that is searched
//! from end to end.
//!
//! In: rounds. A round is a byte whose low bit chooses between a change and a whole new table, a
//! byte of length and so many routes; then a byte of length and so many addresses to look up.
//! Out: nothing, or a panic that names the promise which does not hold.
//! Never: trusts one lookup: each address is found one by one, in a batch, and by its tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::tables::fib::rib::{Change, Rib};
use dataplane::tables::fib::{Fib, HopId, NextHop};
use ipnet::IpNet;

use crate::input::Input;
use crate::spec::next_hop;

/// Rounds of one input.
const ROUNDS_MAX: usize = 16;

/// Compiles, changes and looks up.
///
/// # Panics
/// If the table does, or answers otherwise than the list, or a refused change left a trace.
pub fn run_lpm(input: &[u8]) {
    let mut input = Input(input);
    let mut rib = Rib::default();
    let mut list: Vec<(IpNet, NextHop)> = Vec::new();
    for round in 0..ROUNDS_MAX {
        if input.is_empty() {
            return;
        }
        if input.byte() & 1 == 0 {
            change(&mut rib, &mut list, &mut input);
        } else if let Some(routes) = replace(&mut rib, &mut list, &mut input)
            // The first one was compiled at once itself.
            && round > 0
        {
            check_at_once(routes, &list);
        }
        check(&rib, &list, &mut input);
    }
}

fn change(rib: &mut Rib, list: &mut Vec<(IpNet, NextHop)>, input: &mut Input<'_>) {
    let changes: Vec<Change> = (0..input.byte())
        .map(|_| {
            let prefix = input.prefix();
            let hop = (input.byte() & 1 == 0).then(|| next_hop(input));
            (prefix, hop)
        })
        .collect();
    let sound = changes.iter().all(|(prefix, _)| prefix.trunc() == *prefix);
    let before = list.clone();
    let outcome = rib.apply(changes.iter().copied());
    assert_eq!(outcome.is_ok(), sound, "{outcome:?}");
    let Ok(changed) = outcome else {
        return;
    };
    for (prefix, hop) in changes {
        list.retain(|(other, _)| *other != prefix);
        list.extend(hop.map(|hop| (prefix, hop)));
    }
    assert_eq!(changed, differences(&before, list));
}

/// Gives the new routes if they are sound.
fn replace(
    rib: &mut Rib,
    list: &mut Vec<(IpNet, NextHop)>,
    input: &mut Input<'_>,
) -> Option<Vec<(IpNet, NextHop)>> {
    let routes: Vec<(IpNet, NextHop)> = (0..input.byte())
        .map(|_| (input.prefix(), next_hop(input)))
        .collect();
    let mut wanted: Vec<(IpNet, NextHop)> = Vec::new();
    let mut sound = true;
    for (prefix, hop) in &routes {
        sound &= prefix.trunc() == *prefix;
        match wanted.iter().find(|(other, _)| other == prefix) {
            Some((_, other)) => sound &= other == hop,
            None => wanted.push((*prefix, *hop)),
        }
    }
    let outcome = rib.replace(routes.iter().copied());
    assert_eq!(outcome.is_ok(), sound, "{outcome:?}");
    let changed = outcome.ok()?;
    assert_eq!(changed, differences(list, &wanted));
    *list = wanted;
    Some(routes)
}

/// Compiled at once it is the same table.
fn check_at_once(routes: Vec<(IpNet, NextHop)>, list: &[(IpNet, NextHop)]) {
    let fresh = Fib::build(routes).expect("the routes are sound");
    assert_eq!(fresh.len(), list.len());
    for (prefix, _) in list {
        assert_eq!(find(&fresh, prefix.addr()), scan(list, prefix.addr()));
    }
}

/// Prefixes whose next hop, or whose being there, is not the same in both lists.
fn differences(one: &[(IpNet, NextHop)], other: &[(IpNet, NextHop)]) -> usize {
    let missing = |from: &[(IpNet, NextHop)], net: IpNet| !from.iter().any(|(n, _)| *n == net);
    let gone = one.iter().filter(|(net, _)| missing(other, *net)).count();
    gone + other.iter().filter(|row| !one.contains(row)).count()
}

/// The list, searched from end to end.
fn scan(list: &[(IpNet, NextHop)], address: IpAddr) -> Option<NextHop> {
    let holders = list.iter().filter(|(prefix, _)| prefix.contains(&address));
    let longest = holders.max_by_key(|(prefix, _)| prefix.prefix_len());
    longest.map(|(_, hop)| *hop)
}

fn find(fib: &Fib, address: IpAddr) -> Option<NextHop> {
    match address {
        IpAddr::V4(v4) => fib.find_v4(v4),
        IpAddr::V6(v6) => fib.find_v6(v6),
    }
}

fn check(rib: &Rib, list: &[(IpNet, NextHop)], input: &mut Input<'_>) {
    let fib = rib.fib();
    assert_eq!((rib.len(), fib.len()), (list.len(), list.len()));
    assert_eq!(rib.iter().count(), list.len());
    let mut addresses: Vec<IpAddr> = (0..input.byte()).map(|_| input.address()).collect();
    for (prefix, hop) in list {
        assert_eq!(rib.get(*prefix), Some(*hop), "{prefix}");
        assert!(rib.names(*hop), "{hop} is named by {prefix}");
        addresses.extend([prefix.network(), prefix.broadcast()]);
        addresses.extend(beside(*prefix));
    }
    for address in &addresses {
        assert_eq!(find(&fib, *address), scan(list, *address), "{address}");
    }
    check_batch(&fib, &addresses);
}

/// The addresses right below and right above a prefix, where ranges begin and end.
fn beside(prefix: IpNet) -> [IpAddr; 2] {
    match prefix {
        IpNet::V4(net) => [
            Ipv4Addr::from_bits(net.network().to_bits().wrapping_sub(1)).into(),
            Ipv4Addr::from_bits(net.broadcast().to_bits().wrapping_add(1)).into(),
        ],
        IpNet::V6(net) => [
            Ipv6Addr::from_bits(net.network().to_bits().wrapping_sub(1)).into(),
            Ipv6Addr::from_bits(net.broadcast().to_bits().wrapping_add(1)).into(),
        ],
    }
}

fn check_batch(fib: &Fib, addresses: &[IpAddr]) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in addresses {
        match address {
            IpAddr::V4(address) => v4.push(*address),
            IpAddr::V6(address) => v6.push(*address),
        }
    }
    let mut found = vec![HopId::NONE; v4.len().max(v6.len())];
    fib.find_batch_v4(&v4, &mut found);
    for (address, id) in v4.iter().zip(&found) {
        assert_eq!(fib.hop(*id), fib.find_v4(*address), "{address} in a batch");
    }
    fib.find_batch_v6(&v6, &mut found);
    for (address, id) in v6.iter().zip(&found) {
        assert_eq!(fib.hop(*id), fib.find_v6(*address), "{address} in a batch");
    }
}
