//! Next hops that share a route (ECMP), as the hosts behind them see it.
//!
//! In: a Tapline router, and two kernel routers beside each other that both lead to host c.
//! Out: which of the two carried each packet of each flow.
//! Never: looks into the switch: only at what came out.
//!
//! ```text
//!  host a -- Tapline -- bridge --+-- next hop 5 --+-- host c
//!                                +-- next hop 6 --+
//! ```

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use control::devices::netlink::Netlink;
use control::devices::netlink::address::Route;
use control::devices::netlink::link::VethEnd;
use control::devices::netns::Netns;
use control::devices::sysctl::silence_ipv6;
use dataplane::addr::Mac;
use dataplane::stats::Counts;
use dataplane::tables::TablesSpec;
use dataplane::tables::fib::NextHop;
use dataplane::tables::fib::group::{Group, GroupId};
use ipnet::IpNet;

use crate::packets::{Packet, V4, V6, udp};
use crate::topology::{
    FAR, Host, Kind, MTU, NEAR, PATIENCE, Pair, Router, UPLINK, device, namespace, port, tables,
};
use crate::wire::Wire;

const FLOWS: u16 = 1000;
/// Packets of each flow, sent in rounds.
const ROUNDS: u8 = 4;

/// The two next hops.
const NEXT: [(Pair, Mac); 2] = [
    (FAR.uplink, FAR.uplink_mac),
    (
        Pair {
            v4: Ipv4Addr::new(10, 20, 0, 6),
            v6: Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 6),
        },
        Mac::new([0, 0x0d, 0x3a, 20, 0, 6]),
    ),
];

/// Host a, the routers, and host c, which has a device for each next hop.
struct Fork {
    router: Router,
    _next_hops: Vec<Router>,
    _bridge: Netns,
    near: Wire,
    far: Vec<Wire>,
}

/// A veth from the bridge to `eth0` of a router.
fn plug(bridge: &Netlink, end: &str, router: &Router, mac: Mac) {
    let here = VethEnd {
        name: device(end),
        mac: None,
    };
    let there = VethEnd {
        name: device("eth0"),
        mac: Some(mac),
    };
    bridge
        .add_veth(&here, &there, &router.netns, MTU.into())
        .expect("a veth");
    bridge
        .set_bridge(&here.name, &device("br0"))
        .expect("a port");
    silence_ipv6(bridge, &here.name).expect("no IPv6");
    bridge.set_up(&here.name, true).expect("up");
}

/// What leads from a next hop to host c.
fn lead_on(next: &Router, c: &Netns, name: &str) {
    let here = VethEnd {
        name: device("eth1"),
        mac: None,
    };
    let there = VethEnd {
        name: device(name),
        mac: Some(FAR.host_mac),
    };
    next.net
        .add_veth(&here, &there, c, MTU.into())
        .expect("a veth");
    let inside = Netlink::open(c).expect("a netlink socket");
    silence_ipv6(&inside, &there.name).expect("no IPv6");
    inside.set_up(&there.name, true).expect("up");
    next.net.set_up(&here.name, true).expect("up");
    for v6 in [false, true] {
        let host = FAR.host.of(v6);
        let route = Route {
            to: IpNet::from(host),
            via: None,
            source: None,
        };
        next.net.add_route(&here.name, &route).expect("a route");
        next.net
            .add_neighbour(&here.name, host, FAR.host_mac)
            .expect("a neighbour");
    }
    for (net, name) in [(&next.net, "eth0"), (&next.net, "eth1"), (&inside, name)] {
        net.wait_until_running(&device(name), PATIENCE).expect("up");
    }
}

impl Fork {
    fn new() -> Fork {
        let bridge = namespace("bridge");
        let net = Netlink::open(&bridge).expect("a netlink socket");
        net.add_bridge(&device("br0")).expect("a bridge");
        silence_ipv6(&net, &device("br0")).expect("no IPv6");
        net.set_up(&device("br0"), true).expect("up");
        let mut router = Router::new("router-1");
        plug(&net, "port1", &router, NEAR.uplink_mac);
        router.raise_uplink(NEAR.uplink, Kind::Tapline);
        let c = namespace("c");
        let mut next = Vec::new();
        for ((end, name), (own, mac)) in
            [("port2", "eth1"), ("port3", "eth2")].into_iter().zip(NEXT)
        {
            let hop = Router::new(end);
            plug(&net, end, &hop, mac);
            hop.raise_uplink(own, Kind::Kernel);
            lead_on(&hop, &c, name);
            next.push(hop);
        }
        let a = Host::new(NEAR);
        router.by_tapline(&a, NEAR, &spec());
        let near = Wire::open(&a.netns, "eth0");
        let far = ["eth1", "eth2"].map(|name| Wire::open(&c, name)).into();
        Fork {
            router,
            _next_hops: next,
            _bridge: bridge,
            near,
            far,
        }
    }

    fn counts(&self) -> Counts {
        let switch = self.router.switch.as_ref().expect("it routes");
        switch.board().counts()
    }

    /// Sends a few flows until both next hops have carried some: neighbours must answer first, and
    /// fewer packets wait for them than come at once later.
    fn warm_up(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        for v6 in [false, true] {
            let mut used = HashSet::new();
            for number in ROUNDS.. {
                for flow in 0..8 {
                    self.near.send(&packet(v6, flow, number));
                }
                std::thread::sleep(Duration::from_millis(20));
                let mut came = HashMap::new();
                self.listen(number, &mut came);
                used.extend(came.into_values());
                if used.len() == self.far.len() {
                    break;
                }
                assert!(Instant::now() < deadline, "{:?}", self.counts());
            }
        }
    }

    /// Sends one packet of each flow, and returns by which next hop each came out.
    fn round(&mut self, v6: bool, number: u8) -> HashMap<u16, usize> {
        let mut came = HashMap::new();
        for flow in 0..FLOWS {
            self.near.send(&packet(v6, flow, number));
            if flow % 32 == 0 {
                self.listen(number, &mut came);
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while came.len() < usize::from(FLOWS) {
            self.listen(number, &mut came);
            let late = Instant::now() > deadline;
            assert!(!late, "{} came: {:?}", came.len(), self.counts());
            std::thread::sleep(Duration::from_micros(200));
        }
        came
    }

    fn listen(&mut self, number: u8, came: &mut HashMap<u16, usize>) {
        for (hop, wire) in self.far.iter_mut().enumerate() {
            for frame in wire.hear() {
                let Some(&[high, low, round]) = frame.last_chunk() else {
                    continue;
                };
                if frame[frame.len() - 6..].starts_with(b"ecm") && round == number {
                    let twice = came.insert(u16::from_be_bytes([high, low]), hop);
                    assert_eq!(twice, None, "a packet came twice");
                }
            }
        }
    }
}

/// As a node whose route to host c's link has two next hops: of IPv4 by ARP, of IPv6 by their
/// hardware addresses.
fn spec() -> TablesSpec {
    let mut spec = tables(NEAR, FAR, MTU);
    let by_arp = NEXT.map(|(own, _)| NextHop::Neighbour(IpAddr::V4(own.v4)));
    let by_mac = NEXT.map(|(_, mac)| NextHop::Station {
        port: port(UPLINK),
        mac,
    });
    spec.groups = [by_arp, by_mac]
        .map(|members| Group::new(&members).expect("sound"))
        .into();
    for (prefix, hop) in &mut spec.routes {
        if prefix.contains(&FAR.host.of(prefix.addr().is_ipv6())) {
            *hop = NextHop::Group(GroupId::new(usize::from(prefix.addr().is_ipv6())).expect("few"));
        }
    }
    spec
}

/// One packet of a flow, which says at its end which.
fn packet(v6: bool, flow: u16, number: u8) -> Vec<u8> {
    let [high, low] = flow.to_be_bytes();
    let payload = udp(10_000 + flow, 4001, &[b'e', b'c', b'm', high, low, number]);
    if v6 {
        let whole = V6::datagram(0);
        V6 { payload, ..whole }.frame()
    } else {
        let whole = V4::datagram(0);
        V4 { payload, ..whole }.frame()
    }
}

#[test]
fn a_thousand_flows_share_two_next_hops_and_none_moves() {
    let mut fork = Fork::new();
    fork.warm_up();
    // While ports were still to come, a kernel may have said something already.
    let before = fork.counts();
    for v6 in [false, true] {
        let first = fork.round(v6, 0);
        for number in 1..ROUNDS {
            assert_eq!(fork.round(v6, number), first, "a flow moved");
        }
        let by_5 = first.values().filter(|hop| **hop == 0).count();
        // Five standard deviations of a fair choice are 79 flows.
        assert!(
            (420..=580).contains(&by_5),
            "{by_5} of {FLOWS} flows went by the first next hop"
        );
    }
    let counts = fork.router.switch.take().expect("it routes").stop();
    let counts = counts.expect("no law was broken").since(&before);
    assert_eq!(counts.dropped.total(), 0, "{:?}", counts.dropped);
}
