//! Routes that change, and what is refused of them.
//!
//! In: a node's tables and bad changes of every kind. Out: faults that name the prefix, and
//! tables, published ones too, that are what they were.
//! Never: takes an error for proof: each time all routes and answers are compared.

use std::net::Ipv4Addr;

use super::*;
use crate::addr::{Mac, PortId};
use crate::snapshot::Publisher;
use crate::sync::Arc;
use crate::tables::fib::{Conflict, HOPS_MAX, ROUTES_MAX, Refusal};
use crate::tables::{Addresses, Owner, Policy, PortSpec, Unknown};

const HOST: usize = 0;
const UPLINK: usize = 1;
const POD: usize = 2;

fn port(id: usize) -> PortId {
    PortId::new(id).expect("in range")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn mac(last: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, last])
}

fn via(text: &str) -> NextHop {
    NextHop::Neighbour(ip(text))
}

fn to(id: usize, last: u8) -> NextHop {
    NextHop::Station {
        port: port(id),
        mac: mac(last),
    }
}

/// A kubenet node with one pod, 10.244.1.7, and one other node, 10.240.0.5.
fn spec() -> TablesSpec {
    let row = |id: usize, role| PortSpec {
        id: port(id),
        role,
        mac: Station::new(mac(id as u8 + 1)).expect("a station"),
        mtu: 1500,
        hairpin: false,
        isolated: false,
    };
    let owner = |id: usize| Owner {
        port: port(id),
        mac: mac(id as u8 + 1),
    };
    TablesSpec {
        ports: vec![
            row(HOST, PortRole::Host),
            row(UPLINK, PortRole::Uplink),
            row(POD, PortRole::Pod),
        ],
        owners: vec![
            (ip("10.244.1.1"), owner(HOST)),
            (ip("10.244.1.7"), owner(POD)),
        ],
        router_macs: vec![mac(1)],
        routes: vec![
            (net("10.244.1.7/32"), to(POD, 3)),
            (net("10.244.1.0/24"), NextHop::Unreachable),
            (net("10.244.2.0/24"), via("10.240.0.5")),
            (net("0.0.0.0/0"), NextHop::Host),
        ],
        groups: Vec::new(),
        crossing: Crossing::Routed {
            uplink: Ipv4Addr::new(10, 240, 0, 4).into(),
            gateway: Addresses {
                v4: None,
                v6: Some("fd00:244:1::1".parse().expect("an address")),
            },
        },
        policy: Policy::None,
        unknown: Unknown::Drop,
        guards: Vec::new(),
    }
}

/// A bad route, and the fault that it must be refused with.
fn bad_routes() -> Vec<(IpNet, NextHop, Fault)> {
    let new = net("10.9.0.0/16");
    let bad_hop = |hop, fault| (new, hop, fault);
    let not_on_link = |text: &str| (new, via(text), Fault::NotOnLink(new, ip(text)));
    let to_itself = |text: &str| (new, via(text), Fault::ToItself(new, ip(text)));
    let bits = net("10.9.0.1/16");
    let ghost = port(9);
    let group = GroupId::new(4).expect("in range");
    let station = |mac| NextHop::Station {
        port: port(POD),
        mac,
    };
    vec![
        (bits, NextHop::Host, Fault::Route(Refusal::HostBits(bits))),
        bad_hop(to(9, 9), Fault::NoSuchPort(Namer::Route(new), ghost)),
        bad_hop(
            station(Mac::BROADCAST),
            Fault::NoStation(new, Mac::BROADCAST),
        ),
        bad_hop(station(Mac::ZERO), Fault::NoStation(new, Mac::ZERO)),
        bad_hop(NextHop::Group(group), Fault::NoSuchGroup(new, group)),
        // The node's own addresses: on the uplink, as the gateway, and of the host's port.
        to_itself("10.240.0.4"),
        to_itself("fd00:244:1::1"),
        to_itself("10.244.1.1"),
        // A pod, an address that only a pod may have, and addresses that nobody has.
        not_on_link("10.244.1.7"),
        not_on_link("10.244.1.99"),
        not_on_link("0.0.0.0"),
        not_on_link("127.0.0.1"),
        not_on_link("224.0.0.5"),
        not_on_link("255.255.255.255"),
        not_on_link("::"),
        not_on_link("ff02::1"),
    ]
}

/// All that can be seen of tables.
#[derive(Debug, PartialEq)]
struct Seen {
    routes: Vec<(IpNet, NextHop)>,
    groups: Vec<Group>,
    answers: Vec<Option<NextHop>>,
}

fn seen(live: &LiveTables) -> Seen {
    let tables = live.tables();
    let asked = [
        "10.244.1.7",
        "10.244.1.8",
        "10.244.2.1",
        "10.9.0.1",
        "8.8.8.8",
        "fd00::1",
    ];
    Seen {
        routes: live.routes().collect(),
        groups: tables.groups.to_vec(),
        answers: asked.map(|text| tables.route(ip(text))).to_vec(),
    }
}

#[test]
fn every_bad_route_is_refused_by_its_prefix_and_leaves_the_tables_as_they_were() {
    let mut live = LiveTables::build(&spec()).expect("sound");
    let before = seen(&live);
    for (prefix, hop, fault) in bad_routes() {
        let mut spec = spec();
        spec.routes.push((prefix, hop));
        let refused = Tables::build(&spec).map(drop);
        assert_eq!(refused, Err(vec![fault.clone()]), "built");
        let whole = live.replace(spec.routes.iter().copied(), Vec::new());
        assert_eq!(whole, Err(vec![fault.clone()]), "replaced");
        // A good change beside the bad one is refused with it.
        let changes = [
            (net("8.8.0.0/16"), Some(NextHop::Blackhole)),
            (net("10.244.2.0/24"), None),
            (prefix, Some(hop)),
        ];
        assert_eq!(live.apply(changes), Err(vec![fault.clone()]), "changed");
        assert!(fault.to_string().contains("10.9.0."), "{fault}");
        assert_eq!(seen(&live), before, "{fault}");
    }
}

#[test]
fn a_change_that_cuts_off_a_next_hop_is_refused_by_the_route_that_needs_it() {
    let mut live = LiveTables::build(&spec()).expect("sound");
    let before = seen(&live);
    let cut_off = vec![Fault::NotOnLink(net("10.244.2.0/24"), ip("10.240.0.5"))];
    for hop in [NextHop::Unreachable, to(POD, 3)] {
        let changes = [
            (net("10.240.0.0/16"), Some(hop)),
            (net("10.244.3.0/24"), Some(NextHop::Host)),
        ];
        assert_eq!(live.apply(changes), Err(cut_off.clone()));
        assert_eq!(seen(&live), before);
    }
    // The same where the next hop is a member of a group.
    let group = Group::new(&[via("10.240.0.5"), via("10.241.0.5")]).expect("sound");
    let id = live.add_group(group).expect("there is room");
    let shared = net("10.244.4.0/24");
    assert_eq!(live.apply([(shared, Some(NextHop::Group(id)))]), Ok(1));
    let refused = live.apply([(net("10.241.0.5/32"), Some(NextHop::Unreachable))]);
    assert_eq!(
        refused,
        Err(vec![Fault::NotOnLink(shared, ip("10.241.0.5"))])
    );
    // Without the routes that need it, it may go.
    let changes = [
        (net("10.240.0.0/16"), Some(NextHop::Unreachable)),
        (net("10.244.2.0/24"), None),
        (shared, None),
    ];
    assert_eq!(live.apply(changes), Ok(3));
}

#[test]
fn too_much_is_refused_by_the_prefix_that_was_too_much() {
    let host = |n: usize| IpNet::from(IpAddr::from(Ipv4Addr::from(0x0b00_0000 + n as u32)));
    let mut live = LiveTables::build(&spec()).expect("sound");
    let before = seen(&live);
    let routes = (0..=ROUTES_MAX).map(|n| (host(n), NextHop::Blackhole));
    let (count, last) = (ROUTES_MAX + 1, host(ROUTES_MAX));
    let too_many = Fault::Route(Refusal::TooManyRoutes { count, last });
    assert_eq!(live.replace(routes, Vec::new()), Err(vec![too_many]));
    assert_eq!(seen(&live), before);
    let hop = |n: usize| NextHop::Neighbour(Ipv4Addr::from(0x0c00_0000 + n as u32).into());
    let changes = (0..=HOPS_MAX).map(|n| (host(n), Some(hop(n))));
    let refused = live
        .apply(changes)
        .expect_err("more next hops than numbers");
    assert!(
        matches!(refused[..], [Fault::Route(Refusal::TooManyHops(_))]),
        "{refused:?}"
    );
    assert_eq!(seen(&live), before);
}

#[test]
fn a_refused_table_leaves_the_published_one_in_force() {
    let mut live = LiveTables::build(&spec()).expect("sound");
    let mut publisher = Publisher::new(live.tables().clone());
    let mut reader = publisher.reader();
    let running = Arc::clone(reader.refresh());
    let (twice, other) = (net("10.244.2.0/24"), via("10.240.0.6"));
    let mut publish = |live: &mut LiveTables, routes: Vec<(IpNet, NextHop)>| {
        let changed = live.replace(routes, Vec::new())?;
        publisher.publish(live.tables().clone());
        Ok::<usize, Vec<Fault>>(changed)
    };
    let mut routes = spec().routes;
    routes.push((twice, other));
    let conflict = Conflict {
        prefix: twice,
        first: via("10.240.0.5"),
        second: other,
    };
    let refused = publish(&mut live, routes);
    assert_eq!(
        refused,
        Err(vec![Fault::Route(Refusal::Conflict(conflict))])
    );
    assert!(
        Arc::ptr_eq(reader.refresh(), &running),
        "nothing was published"
    );
    assert_eq!(running.route(ip("10.244.2.9")), Some(via("10.240.0.5")));
    // And a sound one takes its place.
    assert_eq!(publish(&mut live, vec![(twice, other)]), Ok(4));
    assert_eq!(reader.refresh().route(ip("10.244.2.9")), Some(other));
    assert_eq!(running.route(ip("10.244.2.9")), Some(via("10.240.0.5")));
}

#[test]
fn groups_come_and_go_with_the_routes_that_name_them() {
    let group = |a: &str, b: &str| Group::new(&[via(a), via(b)]).expect("sound");
    let (first, second) = (
        group("10.240.0.5", "10.240.0.6"),
        group("10.240.0.7", "10.240.0.8"),
    );
    let mut live = LiveTables::build(&spec()).expect("sound");
    let one = live.add_group(first.clone()).expect("there is room");
    let two = live.add_group(second.clone()).expect("there is room");
    assert_ne!(one, two, "neither has a route yet, and both may get one");
    assert_eq!(live.add_group(first.clone()), Ok(one), "the same again");
    let prefix = net("10.244.2.0/24");
    live.apply([(prefix, Some(NextHop::Group(one)))])
        .expect("sound");
    let before = live.tables().clone();
    // The second never got a route, so its number is free; that of the first is not.
    let third = group("10.240.0.9", "10.240.0.10");
    assert_eq!(live.add_group(third.clone()), Ok(two));
    live.apply([(prefix, Some(NextHop::Group(two)))])
        .expect("sound");
    assert_eq!(live.add_group(second.clone()), Ok(one));
    // Who still runs on the old tables sees the old group.
    assert_eq!(before.group(one), Some(&first));
    assert_eq!(live.tables().group(one), Some(&second));
    assert_eq!(live.tables().group(two), Some(&third));
}
