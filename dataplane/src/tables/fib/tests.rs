//! The compiled tables against a scan of all routes.
//!
//! In: random routes and addresses, crowded so that prefixes nest and touch.
//! Out: agreement, or the smallest table that disagrees.
//! Never: takes the table's word for anything.
//!
//! The long form is `TAPLINE_LPM_TABLES=4000 cargo test --release -p tapline-dataplane fib`. Tables
//! of hundreds of thousands of routes are compared in the benches, with two libraries.

mod million;

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;

use super::rib::{Change, Rib};
use super::*;

/// Routes as an operator thinks of them: one next hop a prefix.
type Model = BTreeMap<IpNet, NextHop>;

/// The obvious table: look at every route, keep the longest that holds the address.
fn scan(routes: &Model, address: IpAddr) -> Option<NextHop> {
    routes
        .iter()
        .filter(|(prefix, _)| prefix.contains(&address))
        .max_by_key(|(prefix, _)| prefix.prefix_len())
        .map(|(_, hop)| *hop)
}

fn find(fib: &Fib, address: IpAddr) -> Option<NextHop> {
    let (single, mut batch) = match address {
        IpAddr::V4(a) => (fib.find_v4(a), [HopId::NONE; 1]),
        IpAddr::V6(a) => (fib.find_v6(a), [HopId::NONE; 1]),
    };
    match address {
        IpAddr::V4(a) => fib.find_batch_v4(&[a], &mut batch),
        IpAddr::V6(a) => fib.find_batch_v6(&[a], &mut batch),
    }
    assert_eq!(
        single,
        fib.hop(batch[0]),
        "single and batch differ at {address}"
    );
    single
}

/// The same for many at once, which take the passes of a batch side by side.
fn find_all(fib: &Fib, addresses: &[IpAddr]) -> Vec<Option<NextHop>> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in addresses {
        match address {
            IpAddr::V4(a) => v4.push(*a),
            IpAddr::V6(a) => v6.push(*a),
        }
    }
    let (mut found_v4, mut found_v6) = (vec![HopId::NONE; v4.len()], vec![HopId::NONE; v6.len()]);
    fib.find_batch_v4(&v4, &mut found_v4);
    fib.find_batch_v6(&v6, &mut found_v6);
    let (mut found_v4, mut found_v6) = (found_v4.into_iter(), found_v6.into_iter());
    let next = |address: &IpAddr| match address {
        IpAddr::V4(_) => found_v4.next(),
        IpAddr::V6(_) => found_v6.next(),
    };
    let ids: Vec<HopId> = addresses.iter().filter_map(next).collect();
    ids.into_iter().map(|id| fib.hop(id)).collect()
}

fn hop(n: u8) -> NextHop {
    NextHop::Neighbour(Ipv4Addr::new(192, 0, 2, n).into())
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

/// Regions everywhere, one in the other: a handful of routes is a crowd.
const CROWDED: Limits = Limits {
    crowd: 2,
    split: 6,
    merge: 2,
};

fn build(routes: &Model) -> Fib {
    Fib::build(routes.iter().map(|(p, h)| (*p, *h))).expect("one next hop a prefix")
}

/// The addresses at which a table may change its mind: both ends of each prefix, and beyond.
fn edges(routes: &Model) -> Vec<IpAddr> {
    let around = |prefix: &IpNet| match prefix {
        IpNet::V4(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            [first.wrapping_sub(1), first, last, last.wrapping_add(1)].map(|b| IpAddr::V4(b.into()))
        }
        IpNet::V6(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            [first.wrapping_sub(1), first, last, last.wrapping_add(1)].map(|b| IpAddr::V6(b.into()))
        }
    };
    routes.keys().flat_map(around).collect()
}

fn agree(fib: &Fib, routes: &Model, strangers: &[IpAddr]) -> Result<(), TestCaseError> {
    prop_assert_eq!(fib.len(), routes.len());
    for address in edges(routes).iter().chain(strangers) {
        prop_assert_eq!(find(fib, *address), scan(routes, *address), "{}", address);
    }
    Ok(())
}

prop_compose! {
    /// Bits crowd into few places, so that prefixes nest, touch, and share windows.
    fn v4_address()(bits in any::<u32>(), crowd in 0u8..4) -> Ipv4Addr {
        match crowd {
            0 => bits,
            1 => 0x0af4_0000 | (bits & 0x0101_0307),
            2 => 0x0af4_0000 | (bits & 0x0000_ffff),
            _ => 0x0af4_0700 | (bits & 0x0000_00ff),
        }.into()
    }
}

prop_compose! {
    fn v6_address()(bits in any::<u128>(), crowd in 0u8..5) -> Ipv6Addr {
        let plan = 0xfd00_0000_0000_00f4_u128 << 64;
        match crowd {
            0 => bits,
            1 => plan | (bits & 0x0101_0001_0000_0000_0000_0307),
            2 => plan | (bits & (0xffff_u128 << 64)),
            3 => plan | (bits & 0xffff),
            _ => plan | (bits & (0x0103_0000_0103_0000_0103_u128 << 20)),
        }.into()
    }
}

prop_compose! {
    fn v4_net()(address in v4_address(), any_len in 0u8..=32, kind in 0u8..4) -> IpNet {
        let len = [any_len, 24, 32, 16][usize::from(kind)];
        IpNet::from(ipnet::Ipv4Net::new(address, len).expect("length in range")).trunc()
    }
}

prop_compose! {
    fn v6_net()(address in v6_address(), any_len in 0u8..=128, kind in 0u8..4) -> IpNet {
        let len = [any_len, any_len, 64, 128][usize::from(kind)];
        IpNet::from(ipnet::Ipv6Net::new(address, len).expect("length in range")).trunc()
    }
}

fn any_net() -> impl Strategy<Value = IpNet> {
    prop_oneof![v4_net(), v6_net()]
}

fn strangers() -> impl Strategy<Value = Vec<IpAddr>> {
    let one = prop_oneof![
        v4_address().prop_map(IpAddr::V4),
        v6_address().prop_map(IpAddr::V6),
    ];
    prop::collection::vec(one, 40)
}

fn tables_to_try() -> u32 {
    let asked = std::env::var("TAPLINE_LPM_TABLES").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(tables_to_try()))]

    #[test]
    fn the_table_answers_as_a_scan_of_all_routes(
        routes in prop::collection::vec((any_net(), any::<u8>().prop_map(hop)), 0..150),
        strangers in strangers(),
    ) {
        let routes: Model = routes.into_iter().collect();
        agree(&build(&routes), &routes, &strangers)?;
    }

    #[test]
    fn after_any_history_the_table_is_as_if_built_from_scratch(
        // Few prefixes and many changes, so that routes come and go and come again.
        prefixes in prop::collection::vec(any_net(), 1..40),
        history in prop::collection::vec(
            prop::collection::vec((any::<prop::sample::Index>(), any::<Option<u8>>()), 0..12),
            1..12,
        ),
        strangers in strangers(),
    ) {
        let (mut rib, mut routes) = (Rib::default(), Model::new());
        let mut crowded = Rib::with(CROWDED);
        for step in history {
            let (fib_before, before) = (rib.fib(), routes.clone());
            let crowded_before = crowded.fib();
            let changes: Vec<Change> = step
                .into_iter()
                .map(|(which, n)| (*which.get(&prefixes), n.map(hop)))
                .collect();
            for (prefix, hop) in &changes {
                match hop {
                    Some(hop) => routes.insert(*prefix, *hop),
                    None => routes.remove(prefix),
                };
            }
            rib.apply(changes.clone()).expect("there is room");
            crowded.apply(changes).expect("there is room");
            prop_assert!(rib.iter().collect::<Model>() == routes);
            let fib = rib.fib();
            agree(&fib, &routes, &strangers)?;
            agree(&fib_before, &before, &strangers)?;
            agree(&crowded.fib(), &routes, &strangers)?;
            agree(&crowded_before, &before, &strangers)?;
            let scratch = build(&routes);
            prop_assert_eq!(fib.v4.memory_bytes(), scratch.v4.memory_bytes());
            prop_assert_eq!(fib.v6.memory_bytes(), scratch.v6.memory_bytes());
        }
    }

    #[test]
    fn replacing_a_table_leaves_nothing_of_the_old_one(
        old in prop::collection::vec((any_net(), any::<u8>().prop_map(hop)), 0..60),
        new in prop::collection::vec((any_net(), any::<u8>().prop_map(hop)), 0..60),
        kept in 0usize..60,
        strangers in strangers(),
    ) {
        let old: Model = old.into_iter().collect();
        let mut new: Model = new.into_iter().collect();
        new.extend(old.iter().take(kept).map(|(p, h)| (*p, *h)));
        let mut rib = Rib::default();
        rib.replace(old).expect("one next hop a prefix");
        rib.replace(new.clone()).expect("one next hop a prefix");
        agree(&rib.fib(), &new, &strangers)?;
        prop_assert_eq!(rib.replace(new.clone()), Ok(0));
    }
}

#[test]
fn every_length_nests_in_the_one_before() {
    for address in ["10.244.129.85", "fd00:5555:aaaa:1234:8001:7ffe:ffff:5"] {
        let address: IpAddr = address.parse().expect("an address");
        let width = IpNet::from(address).max_prefix_len();
        let mut rib = Rib::default();
        let mut routes = Model::new();
        let prefix = |len| IpNet::new(address, len).expect("length in range").trunc();
        for len in 0..=width {
            routes.insert(prefix(len), hop(len));
            rib.apply([(prefix(len), Some(hop(len)))])
                .expect("there is room");
            assert_eq!(find(&rib.fib(), address), Some(hop(len)), "/{len}");
            agree(&rib.fib(), &routes, &[address]).expect("as a scan");
        }
        for len in (1..=width).rev() {
            rib.apply([(prefix(len), None)]).expect("there is room");
            let cover = Some(hop(len - 1));
            assert_eq!(find(&rib.fib(), address), cover, "/{len} gone");
        }
        rib.apply([(prefix(0), None)]).expect("there is room");
        assert_eq!(find(&rib.fib(), address), None);
        assert_eq!(rib.fib().v4.memory_bytes() + rib.fib().v6.memory_bytes(), 0);
    }
}

#[test]
fn a_slot_full_of_host_routes_is_right_at_every_address() {
    let mut routes = Model::from([(net("10.0.0.0/8"), hop(255))]);
    let hosts = (0..=u16::MAX).filter(|low| low % 3 != 0);
    routes.extend(hosts.map(|low| {
        let [high, low] = low.to_be_bytes();
        (IpAddr::from([10, 7, high, low]).into(), hop(low % 200))
    }));
    let fib = build(&routes);
    // Beside them in each batch: slots without a chunk, of which one has a next hop and one has none.
    let (mut addresses, mut hops) = (Vec::new(), Vec::new());
    for low in 0..=u16::MAX {
        let [high, low] = low.to_be_bytes();
        let address = IpAddr::from([10, 7, high, low]);
        let exact = routes.get(&address.into()).copied().or(Some(hop(255)));
        assert_eq!(find(&fib, address), exact, "{address}");
        addresses.extend([
            address,
            [11, 7, high, low].into(),
            [10, 8, high, low].into(),
        ]);
        hops.extend([exact, None, Some(hop(255))]);
    }
    assert_eq!(find_all(&fib, &addresses), hops);
}

#[test]
fn a_window_of_any_density_is_right_at_every_value() {
    // Few, many and very many ranges in the 256ths of one window, first and last value included,
    // with longer prefixes behind some values and shorter ones around.
    let base = 0xfd00_0000_0007_u128 << 80;
    let prefix = |bits: u128, len| {
        let net = ipnet::Ipv6Net::new(bits.into(), len).expect("length in range");
        IpNet::from(net).trunc()
    };
    let mut routes = Model::from([(net("fd00::/16"), hop(255)), (prefix(base, 47), hop(254))]);
    for value in 0..=u16::MAX {
        let kept = match value >> 8 {
            0 | 255 => true,
            high if high % 4 == 1 => value % 3 == 0,
            high if high % 4 == 2 => value % 29 == 0,
            high if high % 4 == 3 => value % 251 == 0,
            _ => false,
        };
        let bits = base | (u128::from(value) << 64);
        if kept {
            routes.insert(prefix(bits, 64), hop((value % 200) as u8));
        }
        if value % 499 == 0 {
            routes.insert(prefix(bits | 9, 128), hop(201));
            routes.insert(prefix(bits | (7 << 32), 100), hop(202));
        }
    }
    let mut crowded = Rib::with(CROWDED);
    let all = routes.iter().map(|(net, hop)| (*net, *hop));
    crowded.replace(all).expect("one next hop a prefix");
    is_right_at_every_value(&build(&routes), &routes, base, prefix);
    is_right_at_every_value(&crowded.fib(), &routes, base, prefix);
}

fn is_right_at_every_value(
    fib: &Fib,
    routes: &Model,
    base: u128,
    prefix: impl Fn(u128, u8) -> IpNet,
) {
    for value in 0..=u16::MAX {
        for low in [0, 8, 9, 10, 7 << 32, u128::from(u64::MAX)] {
            let bits = base | (u128::from(value) << 64) | low;
            let longest = [128, 100, 64]
                .into_iter()
                .find_map(|len| routes.get(&prefix(bits, len)));
            let address = IpAddr::V6(bits.into());
            assert_eq!(
                find(fib, address),
                longest.copied().or(Some(hop(254))),
                "{address}"
            );
        }
    }
    for outside in ["fd00:0:6:ffff::1", "fd00:0:8::"] {
        let address = outside.parse().expect("an address");
        assert_eq!(find(fib, address), scan(routes, address), "{address}");
    }
}

#[test]
fn adjacent_prefixes_meet_without_a_gap() {
    let mut routes = Model::new();
    for n in 0..=255u8 {
        routes.insert(net(&format!("10.244.{n}.0/24")), hop(n));
        routes.insert(net(&format!("fd00:0:0:{n:x}::/64")), hop(n));
    }
    agree(&build(&routes), &routes, &[]).expect("as a scan");
}

#[test]
fn a_table_without_routes_finds_nothing() {
    for fib in [Fib::default(), build(&Model::new())] {
        assert!(fib.is_empty());
        assert_eq!(fib.find_v4(Ipv4Addr::BROADCAST), None);
        assert_eq!(fib.find_v6(Ipv6Addr::LOCALHOST), None);
    }
    assert_eq!(Fib::default().memory_bytes(), 0);
}

#[test]
fn one_prefix_with_two_next_hops_is_refused_by_name() {
    let prefix = net("10.244.0.0/24");
    let refusals = Fib::build([(prefix, hop(1)), (prefix, hop(2))]).expect_err("they disagree");
    let conflict = Conflict {
        prefix,
        first: hop(1),
        second: hop(2),
    };
    assert_eq!(refusals, [Refusal::Conflict(conflict)]);
    let agreed = Fib::build([(prefix, hop(1)), (prefix, hop(1))]).expect("they agree");
    assert_eq!(agreed.len(), 1);
}

#[test]
fn a_refused_change_changes_nothing() {
    let distinct = |n: u32| NextHop::Neighbour(Ipv4Addr::from(n).into());
    let host = |n: u32| IpNet::from(IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n)));
    let mut rib = Rib::default();
    let full = (0..HOPS_MAX as u32).map(|n| (host(n), Some(distinct(n))));
    rib.apply(full).expect("exactly as many as there may be");
    let more = [
        (host(1), None),
        (host(HOPS_MAX as u32), Some(distinct(70_000))),
        (host(HOPS_MAX as u32 + 1), Some(distinct(70_001))),
    ];
    let last = host(HOPS_MAX as u32 + 1);
    assert_eq!(rib.apply(more), Err(vec![Refusal::TooManyHops(last)]));
    assert_eq!(rib.get(host(1)), Some(distinct(1)));
    assert_eq!(rib.len(), HOPS_MAX);
    // One goes and one comes: that fits, and the number of the one that went is not mixed up.
    assert_eq!(rib.apply(more[..2].iter().copied()), Ok(2));
    let fib = rib.fib();
    assert_eq!(find(&fib, host(1).addr()), None);
    for n in (2..HOPS_MAX as u32).step_by(97) {
        assert_eq!(find(&fib, host(n).addr()), Some(distinct(n)));
    }
    assert_eq!(
        find(&fib, host(HOPS_MAX as u32).addr()),
        Some(distinct(70_000))
    );
}

#[test]
fn too_many_routes_are_refused() {
    let host = |n: u32| IpNet::from(IpAddr::from(Ipv4Addr::from(n)));
    let routes = (0..=ROUTES_MAX as u32).map(|n| (host(n), hop(1)));
    let refused = Rib::default().replace(routes);
    let too_many = Refusal::TooManyRoutes {
        count: ROUTES_MAX + 1,
        last: host(ROUTES_MAX as u32),
    };
    assert_eq!(refused, Err(vec![too_many]));
}

#[test]
fn host_bits_are_refused_by_name_wherever_routes_come_in() {
    let (sound, kept) = (net("10.1.0.0/16"), net("10.2.0.0/16"));
    let bad = [net("10.244.0.7/24"), net("fd00::1/64")];
    let refusals = bad.map(Refusal::HostBits);
    let mut rib = Rib::default();
    rib.apply([(kept, Some(hop(1)))]).expect("there is room");
    let routes = [(sound, hop(2)), (bad[0], hop(2)), (bad[1], hop(2))];
    assert_eq!(rib.replace(routes), Err(refusals.to_vec()));
    let changes = routes.map(|(net, hop)| (net, Some(hop)));
    assert_eq!(rib.apply(changes), Err(refusals.to_vec()));
    assert_eq!(rib.apply([(bad[0], None)]), Err(refusals[..1].to_vec()));
    assert_eq!(rib.iter().collect::<Vec<_>>(), [(kept, hop(1))]);
    assert_eq!(
        refusals[0].to_string(),
        "10.244.0.7/24 has bits set behind its length; the prefix is 10.244.0.0/24"
    );
}

#[test]
fn a_change_shares_the_pieces_it_does_not_touch() {
    let mut routes = Model::new();
    for n in 0..=255u8 {
        routes.insert(net(&format!("{n}.1.2.0/24")), hop(n));
    }
    let mut rib = Rib::default();
    rib.replace(routes).expect("one next hop a prefix");
    let before = rib.fib();
    let shared = |after: &Fib| {
        let pairs = before.v4.pieces.iter().zip(after.v4.pieces.iter());
        pairs.filter(|(a, b)| Arc::ptr_eq(a, b)).count()
    };
    rib.apply([(net("77.1.3.0/24"), Some(hop(9)))])
        .expect("there is room");
    assert_eq!(shared(&rib.fib()), 255);
    rib.apply([(net("0.0.0.0/0"), Some(hop(9)))])
        .expect("there is room");
    assert_eq!(shared(&rib.fib()), 255, "a default route touches no chunk");
}

#[test]
fn a_change_where_routes_crowd_compiles_one_island_and_no_long_one() {
    // 100,000 nodes of one /40, with a host route in each and one around them all.
    let node = |n: u32| 0xfd_u128 << 120 | u128::from(n) << 64;
    let prefix = |bits: u128, len| IpNet::new(Ipv6Addr::from(bits).into(), len).expect("a length");
    let mut routes = Model::from([(prefix(node(0), 20), hop(1))]);
    for n in 0..100_000 {
        routes.insert(prefix(node(n), 64), hop((n % 200) as u8));
        routes.insert(prefix(node(n) | 7, 128), hop(201));
    }
    let mut rib = Rib::default();
    rib.replace(routes).expect("one next hop a prefix");
    let before = rib.fib();
    // Six lines a route is the most that the number of a line has to count.
    let longest = before.v6.islands.iter().map(|i| i.lines.len()).max();
    assert!(longest < Some(6 * Limits::DEFAULT.split), "{longest:?}");
    let touched = |after: &Fib| {
        assert_eq!(before.v6.islands.len(), after.v6.islands.len());
        let pairs = before.v6.islands.iter().zip(after.v6.islands.iter());
        pairs
            .filter(|(a, b)| !Arc::ptr_eq(&a.lines, &b.lines))
            .count()
    };
    let between = Ipv6Addr::from(node(0) | 1 << 87);
    let changes = [
        (prefix(node(77_777), 64), Ipv6Addr::from(node(77_777) | 8)),
        (prefix(node(5) | 9, 128), Ipv6Addr::from(node(5) | 9)),
        (prefix(node(0), 20), between),
    ];
    for (net, address) in changes {
        let mut after = rib.clone();
        after.apply([(net, Some(hop(250)))]).expect("there is room");
        assert_eq!(touched(&after.fib()), 1, "{net}");
        assert_eq!(find(&after.fib(), address.into()), Some(hop(250)), "{net}");
    }
    assert_eq!(find(&before, between.into()), Some(hop(1)));
}
