//! Azure's rules of choice, row by row, and against a scan in plain words; and route tables as
//! people and `az` write them.

mod documents;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| net(text)).collect()
}

fn to(address: &str) -> NextHop {
    NextHop::VirtualAppliance(address.parse().unwrap())
}

fn table(routes: &[(&str, NextHop)], propagates: bool) -> RouteTable {
    let route = |(prefix, hop): &(&str, NextHop)| Route::new(net(prefix), *hop, Source::User);
    RouteTable {
        name: "rt".to_owned(),
        routes: routes.iter().map(route).collect(),
        propagates,
        subnets: vec!["agents".to_owned()],
    }
}

const SEED: [&str; 2] = ["10.10.0.0/24", "10.20.0.0/24"];

fn seed() -> Space {
    Space {
        vnet: nets(&SEED),
        ..Space::default()
    }
}

fn taken(routes: &EffectiveRoutes, target: &str) -> String {
    let route = routes.find(target.parse().unwrap());
    route.map_or_else(|| "no route".to_owned(), ToString::to_string)
}

/// Prefix, next hop, state, and the winner with the reason, of every row.
fn shown(routes: &EffectiveRoutes) -> Vec<String> {
    let row = |row: &Row| {
        let loss = row.loss.as_ref();
        let loss = loss.map_or_else(String::new, |loss| format!(", lost to {loss}"));
        format!("{} {}{loss}", row.state(), row.route)
    };
    routes.iter().map(row).collect()
}

#[test]
fn system_routes_follow_the_address_space() {
    let rows: &[(&[&str], &str, &str)] = &[
        (&SEED, "10.20.0.5", "system route 10.20.0.0/24 -> VnetLocal"),
        (&SEED, "10.10.0.5", "system route 10.10.0.0/24 -> VnetLocal"),
        (&SEED, "10.244.0.7", "system route 10.0.0.0/8 -> None"),
        (&SEED, "172.31.0.1", "system route 172.16.0.0/12 -> None"),
        (&SEED, "192.168.1.1", "system route 192.168.0.0/16 -> None"),
        (&SEED, "100.64.0.1", "system route 100.64.0.0/10 -> None"),
        (&SEED, "8.8.8.8", "system route 0.0.0.0/0 -> Internet"),
        (&SEED, "2001:db8::1", "no route"),
        // Exactly in the address space: local. That is the VNet which aks-engine makes.
        (
            &["10.0.0.0/8"],
            "10.244.0.7",
            "system route 10.0.0.0/8 -> VnetLocal",
        ),
        // Contained in the address space: the reserved route is gone.
        (
            &["172.0.0.0/8"],
            "172.16.0.1",
            "system route 172.0.0.0/8 -> VnetLocal",
        ),
        // A part of a reserved prefix: the rest still leads nowhere.
        (
            &["10.0.0.0/9"],
            "10.128.0.1",
            "system route 10.0.0.0/8 -> None",
        ),
        (
            &["10.0.0.0/8", "fd00:10::/48"],
            "fd00:10::1",
            "system route fd00:10::/48 -> VnetLocal",
        ),
        (
            &["10.0.0.0/8", "fd00:10::/48"],
            "2001:db8::1",
            "system route ::/0 -> Internet",
        ),
    ];
    for (vnet, target, route) in rows {
        let space = Space {
            vnet: nets(vnet),
            ..Space::default()
        };
        let routes = EffectiveRoutes::of(&space, None, &[]);
        assert_eq!(taken(&routes, target), *route, "{target} in {vnet:?}");
    }
}

#[test]
fn of_one_prefix_there_is_one_system_route() {
    let space = Space {
        vnet: nets(&["10.0.0.0/8", "10.0.0.0/8", "fd00::/48"]),
        peers: nets(&["172.16.0.0/12", "192.168.0.0/15"]),
        endpoints: Vec::new(),
    };
    assert_eq!(
        shown(&EffectiveRoutes::of(&space, None, &[])),
        [
            "Active system route 192.168.0.0/15 -> VNetPeering",
            "Active system route 172.16.0.0/12 -> VNetPeering",
            "Active system route 100.64.0.0/10 -> None",
            "Active system route 10.0.0.0/8 -> VnetLocal",
            "Active system route 0.0.0.0/0 -> Internet",
            "Active system route fd00::/48 -> VnetLocal",
            "Active system route ::/0 -> Internet",
        ]
    );
}

/// What there is beside the seed's VNet, where a packet goes, and which route takes it.
struct Case {
    what: &'static str,
    /// Prefixes that the table leads to [`NODE`], and those that it leads nowhere.
    user: &'static [&'static str],
    discarded: &'static [&'static str],
    learned: &'static [&'static str],
    peers: &'static [&'static str],
    endpoints: &'static [&'static str],
    target: &'static str,
    route: &'static str,
}

const NODE: NextHop = NextHop::VirtualAppliance(IpAddr::V4(Ipv4Addr::new(10, 20, 0, 5)));

const NOTHING: Case = Case {
    what: "",
    user: &[],
    discarded: &[],
    learned: &[],
    peers: &[],
    endpoints: &[],
    target: "",
    route: "",
};

/// The rule and its exceptions, one row each.
const CHOICES: &[Case] = &[
    Case {
        what: "longest prefix",
        user: &["10.244.0.0/24"],
        target: "10.244.0.7",
        route: "user-defined route 10.244.0.0/24 -> VirtualAppliance 10.20.0.5",
        ..NOTHING
    },
    Case {
        what: "user over system",
        user: &["10.0.0.0/8"],
        target: "10.244.0.7",
        route: "user-defined route 10.0.0.0/8 -> VirtualAppliance 10.20.0.5",
        ..NOTHING
    },
    Case {
        what: "a wider user route leaves the VNet alone",
        user: &["10.0.0.0/8"],
        target: "10.10.0.9",
        route: "system route 10.10.0.0/24 -> VnetLocal",
        ..NOTHING
    },
    Case {
        what: "a user overrides the VNet itself",
        discarded: &["10.20.0.0/24"],
        target: "10.20.0.9",
        route: "user-defined route 10.20.0.0/24 -> None",
        ..NOTHING
    },
    Case {
        what: "and a part of his own subnet",
        discarded: &["10.20.0.128/25"],
        target: "10.20.0.200",
        route: "user-defined route 10.20.0.128/25 -> None",
        ..NOTHING
    },
    Case {
        what: "a user's default route leaves reserved prefixes alone",
        user: &["0.0.0.0/0"],
        target: "172.16.0.1",
        route: "system route 172.16.0.0/12 -> None",
        ..NOTHING
    },
    Case {
        what: "gateway over system",
        learned: &["10.0.0.0/8"],
        target: "10.244.0.7",
        route: "gateway's route 10.0.0.0/8 -> VirtualNetworkGateway",
        ..NOTHING
    },
    Case {
        what: "user over gateway",
        user: &["192.168.7.0/24"],
        learned: &["192.168.7.0/24"],
        target: "192.168.7.1",
        route: "user-defined route 192.168.7.0/24 -> VirtualAppliance 10.20.0.5",
        ..NOTHING
    },
    Case {
        what: "a longer one of a gateway over a user's",
        user: &["192.168.0.0/16"],
        learned: &["192.168.7.0/24"],
        target: "192.168.7.1",
        route: "gateway's route 192.168.7.0/24 -> VirtualNetworkGateway",
        ..NOTHING
    },
    Case {
        what: "the VNet over a gateway",
        learned: &["10.20.0.0/24"],
        target: "10.20.0.9",
        route: "system route 10.20.0.0/24 -> VnetLocal",
        ..NOTHING
    },
    Case {
        what: "the VNet over a gateway's longer one",
        learned: &["10.20.0.0/25"],
        target: "10.20.0.9",
        route: "system route 10.20.0.0/24 -> VnetLocal",
        ..NOTHING
    },
    Case {
        what: "a gateway's wider one has the rest",
        learned: &["10.20.0.0/16"],
        target: "10.20.7.9",
        route: "gateway's route 10.20.0.0/16 -> VirtualNetworkGateway",
        ..NOTHING
    },
    Case {
        what: "a user's override gives a gateway no part of the VNet",
        user: &["10.20.0.0/24"],
        learned: &["10.20.0.0/25"],
        target: "10.20.0.9",
        route: "user-defined route 10.20.0.0/24 -> VirtualAppliance 10.20.0.5",
        ..NOTHING
    },
    Case {
        what: "a peer over reserved",
        peers: &["10.30.0.0/16"],
        target: "10.30.1.1",
        route: "system route 10.30.0.0/16 -> VNetPeering",
        ..NOTHING
    },
    Case {
        what: "a peer over a gateway's longer one",
        learned: &["10.30.1.0/24"],
        peers: &["10.30.0.0/16"],
        target: "10.30.1.1",
        route: "system route 10.30.0.0/16 -> VNetPeering",
        ..NOTHING
    },
    Case {
        what: "a user over a peer",
        user: &["10.30.0.0/16"],
        peers: &["10.30.0.0/16"],
        target: "10.30.1.1",
        route: "user-defined route 10.30.0.0/16 -> VirtualAppliance 10.20.0.5",
        ..NOTHING
    },
    Case {
        what: "a service endpoint over a user",
        user: &["20.60.4.0/24"],
        endpoints: &["20.60.4.0/24"],
        target: "20.60.4.9",
        route: "system route 20.60.4.0/24 -> VirtualNetworkServiceEndpoint",
        ..NOTHING
    },
    Case {
        what: "even over a longer one",
        user: &["20.60.4.9/32"],
        endpoints: &["20.60.4.0/24"],
        target: "20.60.4.9",
        route: "system route 20.60.4.0/24 -> VirtualNetworkServiceEndpoint",
        ..NOTHING
    },
    Case {
        what: "and over a gateway's",
        learned: &["20.60.4.0/25"],
        endpoints: &["20.60.4.0/24"],
        target: "20.60.4.9",
        route: "system route 20.60.4.0/24 -> VirtualNetworkServiceEndpoint",
        ..NOTHING
    },
    Case {
        what: "but not over what lies around it",
        user: &["20.60.0.0/16"],
        endpoints: &["20.60.4.0/24"],
        target: "20.60.5.9",
        route: "user-defined route 20.60.0.0/16 -> VirtualAppliance 10.20.0.5",
        ..NOTHING
    },
];

#[test]
fn the_choice_is_azures() {
    for case in CHOICES {
        let space = Space {
            peers: nets(case.peers),
            endpoints: nets(case.endpoints),
            ..seed()
        };
        let to_node = case.user.iter().map(|prefix| (*prefix, NODE));
        let nowhere = case.discarded.iter().map(|prefix| (*prefix, NextHop::None));
        let written: Vec<(&str, NextHop)> = to_node.chain(nowhere).collect();
        let table = table(&written, true);
        let routes = EffectiveRoutes::of(&space, Some(&table), &nets(case.learned));
        assert_eq!(taken(&routes, case.target), case.route, "{}", case.what);
    }
}

#[test]
fn a_table_without_propagation_keeps_the_gateway_out() {
    let learned = nets(&["192.168.0.0/16", "172.20.0.0/16"]);
    let table = table(&[], false);
    let routes = EffectiveRoutes::of(&seed(), Some(&table), &learned);
    assert_eq!(
        taken(&routes, "192.168.1.1"),
        "system route 192.168.0.0/16 -> None"
    );
    assert_eq!(
        taken(&routes, "172.20.0.1"),
        "system route 172.16.0.0/12 -> None"
    );
    let lost = "Invalid gateway's route 172.20.0.0/16 -> VirtualNetworkGateway, lost to the route \
                table has disableBgpRoutePropagation";
    assert!(
        shown(&routes).contains(&lost.to_owned()),
        "{:#?}",
        shown(&routes)
    );
}

#[test]
fn each_loser_names_its_winner_and_the_reason() {
    let space = Space {
        vnet: nets(&["10.20.0.0/24"]),
        peers: Vec::new(),
        endpoints: nets(&["20.60.4.0/24"]),
    };
    let mut table = table(
        &[
            ("10.20.0.0/24", to("10.20.0.9")),
            ("20.60.4.4/32", NextHop::Internet),
            ("192.168.0.0/16", NextHop::None),
        ],
        true,
    );
    table.routes.push(Route::new(
        net("10.244.0.0/24"),
        to("10.20.0.5"),
        Source::Pods,
    ));
    let learned = nets(&["192.168.0.0/16", "10.20.0.0/25", "0.0.0.0/0"]);
    assert_eq!(
        shown(&EffectiveRoutes::of(&space, Some(&table), &learned)),
        [
            "Invalid user-defined route 20.60.4.4/32 -> Internet, lost to system route \
             20.60.4.0/24 -> VirtualNetworkServiceEndpoint: a service endpoint's route cannot be \
             overridden",
            "Invalid gateway's route 10.20.0.0/25 -> VirtualNetworkGateway, lost to system route \
             10.20.0.0/24 -> VnetLocal: the VNet's and its peers' own routes go before a \
             gateway's, even longer ones",
            "Active user-defined route 10.20.0.0/24 -> VirtualAppliance 10.20.0.9",
            "Invalid system route 10.20.0.0/24 -> VnetLocal, lost to user-defined route \
             10.20.0.0/24 -> VirtualAppliance 10.20.0.9: preferred for the same \
             prefix",
            "Active pods' route 10.244.0.0/24 -> VirtualAppliance 10.20.0.5",
            "Active system route 20.60.4.0/24 -> VirtualNetworkServiceEndpoint",
            "Active user-defined route 192.168.0.0/16 -> None",
            "Invalid gateway's route 192.168.0.0/16 -> VirtualNetworkGateway, lost to \
             user-defined route 192.168.0.0/16 -> None: preferred for the same \
             prefix",
            "Invalid system route 192.168.0.0/16 -> None, lost to user-defined route \
             192.168.0.0/16 -> None: preferred for the same prefix",
            "Active system route 172.16.0.0/12 -> None",
            "Active system route 100.64.0.0/10 -> None",
            "Active system route 10.0.0.0/8 -> None",
            "Active gateway's route 0.0.0.0/0 -> VirtualNetworkGateway",
            "Invalid system route 0.0.0.0/0 -> Internet, lost to gateway's route 0.0.0.0/0 -> \
             VirtualNetworkGateway: preferred for the same prefix",
        ]
    );
}

#[test]
fn what_is_within_a_prefix_is_its_cover_and_the_longer_ones() {
    let table = table(
        &[
            ("10.244.0.0/16", to("10.20.0.9")),
            ("10.244.1.128/25", NextHop::None),
        ],
        true,
    );
    let routes = EffectiveRoutes::of(&seed(), Some(&table), &[]);
    let within: Vec<String> = routes
        .within(net("10.244.1.0/24"))
        .map(|(prefix, row)| format!("{prefix} by {}", row.route))
        .collect();
    assert_eq!(
        within,
        [
            "10.244.1.0/24 by user-defined route 10.244.0.0/16 -> VirtualAppliance 10.20.0.9",
            "10.244.1.128/25 by user-defined route 10.244.1.128/25 -> None",
        ]
    );
}

#[test]
fn sources_have_azures_names_too() {
    let names = [Source::User, Source::Pods, Source::Gateway, Source::System]
        .map(|source| format!("{source} {}", source.azure()));
    assert_eq!(
        names,
        [
            "user-defined User",
            "pods User",
            "gateway VirtualNetworkGateway",
            "system Default"
        ]
    );
}

/// The documentation's sentences, each a line, over every route there is.
fn scan(space: &Space, table: &RouteTable, learned: &[IpNet], target: IpAddr) -> Option<Route> {
    let on = |net: &&IpNet| net.contains(&target);
    let longest = |nets: &[IpNet]| {
        nets.iter()
            .filter(on)
            .max_by_key(|n| n.prefix_len())
            .copied()
    };
    if let Some(endpoint) = longest(&space.endpoints) {
        return Some(Route::new(
            endpoint,
            NextHop::ServiceEndpoint,
            Source::System,
        ));
    }
    let mut candidates: Vec<Route> = table.routes.clone();
    let own: Vec<IpNet> = space.vnet.iter().chain(&space.peers).copied().collect();
    for prefix in learned.iter().filter(|_| table.propagates) {
        if !own.iter().any(|own| own.contains(prefix)) {
            candidates.push(Route::new(
                *prefix,
                NextHop::VirtualNetworkGateway,
                Source::Gateway,
            ));
        }
    }
    let mut system = |net: IpNet, hop| candidates.push(Route::new(net, hop, Source::System));
    space
        .peers
        .iter()
        .for_each(|net| system(*net, NextHop::VnetPeering));
    space
        .vnet
        .iter()
        .for_each(|net| system(*net, NextHop::VnetLocal));
    for text in [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
    ] {
        if !own.iter().any(|own| own.contains(&net(text))) {
            system(net(text), NextHop::None);
        }
    }
    system(net("0.0.0.0/0"), NextHop::Internet);
    if space.vnet.iter().any(|net| net.addr().is_ipv6()) {
        system(net("::/0"), NextHop::Internet);
    }
    let preference = |route: &Route| match (route.source, route.next_hop) {
        (Source::User | Source::Pods, _) => 4,
        (Source::Gateway, _) => 3,
        (Source::System, NextHop::VnetLocal) => 2,
        (Source::System, NextHop::VnetPeering) => 1,
        (Source::System, _) => 0,
    };
    candidates.retain(|route| route.prefix.contains(&target));
    candidates
        .into_iter()
        .max_by_key(|route| (route.prefix.prefix_len(), preference(route)))
}

/// Prefixes that meet: of few bits that differ, at every length.
fn prefix() -> impl Strategy<Value = IpNet> {
    let v4 = (
        prop_oneof![Just(10_u8), Just(172), Just(192), Just(20)],
        0..4_u8,
        0..4_u8,
        0..=32_u8,
    );
    let v4 = v4.prop_map(|(a, b, c, length)| {
        IpNet::new([a, 16 + b, c, 128].into(), length)
            .unwrap()
            .trunc()
    });
    let v6 = (0..4_u16, 0..4_u16, 0..=128_u8).prop_map(|(a, b, length)| {
        IpNet::new([0xfd00, a, b, 0, 0, 0, 0, 1].into(), length)
            .unwrap()
            .trunc()
    });
    prop_oneof![3 => v4, 1 => v6]
}

fn target() -> impl Strategy<Value = IpAddr> {
    let spread = prefix().prop_map(|net| net.addr());
    let last = prefix().prop_map(|net| net.broadcast());
    prop_oneof![spread, last, any::<[u8; 4]>().prop_map(IpAddr::from)]
}

fn hop() -> impl Strategy<Value = NextHop> {
    prop_oneof![
        Just(to("10.20.0.5")),
        Just(NextHop::None),
        Just(NextHop::VnetLocal),
        Just(NextHop::Internet),
        Just(NextHop::VirtualNetworkGateway),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_choice_equals_a_scan_in_plain_words(
        spaces in prop::collection::vec(prefix(), 0..9),
        cuts in (0..4_usize, 0..4_usize),
        learned in prop::collection::vec(prefix(), 0..6),
        written in prop::collection::btree_map(prefix(), hop(), 0..12),
        propagates in any::<bool>(),
        targets in prop::collection::vec(target(), 60),
    ) {
        // One prefix is one space's: Azure refuses a peer that overlaps the VNet.
        let mut distinct = spaces;
        distinct.sort();
        distinct.dedup();
        let first = cuts.0.min(distinct.len());
        let second = (first + cuts.1).min(distinct.len());
        let space = Space {
            vnet: distinct[..first].to_vec(),
            peers: distinct[first..second].to_vec(),
            endpoints: distinct[second..].to_vec(),
        };
        let routes = written.into_iter().map(|(net, hop)| Route::new(net, hop, Source::User));
        let table = RouteTable { routes: routes.collect(), ..table(&[], propagates) };
        let effective = EffectiveRoutes::of(&space, Some(&table), &learned);
        for target in targets {
            let wanted = scan(&space, &table, &learned, target);
            prop_assert_eq!(effective.find(target), wanted.as_ref(), "{} in {:?}", target, effective);
        }
        // An invalid route has a winner that covers it, or there is no propagation.
        for row in effective.iter() {
            if let Some(Loss { to: Some(winner), .. }) = &row.loss {
                prop_assert!(winner.prefix.contains(&row.route.prefix));
                prop_assert!(winner != &row.route);
            }
        }
    }
}
