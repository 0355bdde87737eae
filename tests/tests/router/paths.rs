//! Ways through two routers: who is on them, and how long a packet may be.
//!
//! In: both topologies. Out: the kernel's hop lists and path MTUs, which Tapline must equal.
//! Never: believes a way of one kind of probe alone.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use control::lab::probe::{
    HopProbe, HopsSpec, PathMtuSpec, PingSpec, TransferSpec, hops, path_mtu, ping, transfer,
};
use rustix::net::sockopt;

use crate::topology::{FAR, Host, Kind, MTU, NEAR, Topology};

/// MTU of the uplink that is narrower than the rest.
const NARROW: u16 = 1400;

fn ways(topology: &Topology, v6: bool) -> Vec<Vec<String>> {
    let (a, c) = (&topology.a, &topology.c);
    let mut found = Vec::new();
    for (from, to) in [(a, c), (c, a)] {
        for probe in [HopProbe::Udp, HopProbe::Echo] {
            let spec = HopsSpec::to(to.side.host.of(v6), probe);
            let report = hops(&from.netns, &spec).expect("a socket");
            let said = |hop: &control::lab::probe::Hop| format!("{:?} {}", hop.from, hop.what);
            found.push(report.hops.iter().map(said).collect());
        }
    }
    found
}

fn same_hops(v6: bool) {
    let kernel = Topology::new(Kind::Kernel, MTU);
    let tapline = Topology::new(Kind::Tapline, MTU);
    let expected = ways(&kernel, v6);
    assert_eq!(expected.len(), 4);
    let to_c = [NEAR.gateway, FAR.uplink, FAR.host].map(|hop| hop.of(v6));
    assert_eq!(expected[0].len(), to_c.len(), "{expected:?}");
    for (hop, due) in expected[0].iter().zip(to_c) {
        assert!(hop.starts_with(&format!("Some({due}) ")), "{expected:?}");
    }
    assert_eq!(ways(&tapline, v6), expected);
    tapline.stop();
}

#[test]
fn a_traceroute_lists_the_hops_that_it_lists_with_the_kernel_as_router() {
    same_hops(false);
    same_hops(true);
}

/// What the kernel of `host` remembers of the way to `target`, as `ip route get` shows it.
fn remembered(host: &Host, target: IpAddr) -> u32 {
    let ask = || {
        let local: IpAddr = if target.is_ipv4() {
            std::net::Ipv4Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((local, 0))?;
        socket.connect((target, 9))?;
        Ok(match target {
            IpAddr::V4(_) => sockopt::ip_mtu(&socket)?,
            IpAddr::V6(_) => sockopt::ipv6_mtu(&socket)?,
        })
    };
    host.netns.run(ask).expect("a socket that knows its route")
}

/// TCP in super-frames from host a through a narrow uplink: what the kernel learns, and that all
/// arrives.
fn tcp_settles(v6: bool) {
    for kind in [Kind::Kernel, Kind::Tapline] {
        let topology = Topology::new(kind, NARROW);
        let target = FAR.host.of(v6);
        assert_eq!(remembered(&topology.a, target), u32::from(MTU), "{kind:?}");
        let spec = TransferSpec::to(target, 8 << 20);
        let report = transfer(&topology.c.netns, &topology.a.netns, &spec)
            .unwrap_or_else(|error| panic!("{kind:?}: {error}; {}", topology.counts()));
        assert!(report.whole() && report.bytes == 8 << 20, "{report:?}");
        assert_eq!(
            remembered(&topology.a, target),
            u32::from(NARROW),
            "{kind:?}"
        );
        if kind == Kind::Tapline {
            let super_frames = topology.super_frames();
            assert!(super_frames > 100, "{super_frames} super-frames");
        }
        topology.stop();
    }
}

#[test]
fn tcp_in_super_frames_settles_on_the_mtu_of_a_narrow_uplink() {
    tcp_settles(false);
}

#[test]
fn tcp_over_ipv6_in_super_frames_settles_on_the_mtu_of_a_narrow_uplink() {
    tcp_settles(true);
}

#[test]
fn the_longest_packet_through_a_narrow_uplink_is_found_by_what_the_router_says() {
    for v6 in [false, true] {
        let found = [Kind::Kernel, Kind::Tapline].map(|kind| {
            let topology = Topology::new(kind, NARROW);
            let spec = PathMtuSpec::to(FAR.host.of(v6), MTU);
            let report = path_mtu(&topology.a.netns, &spec).expect("a raw socket");
            topology.stop();
            report
        });
        let [kernel, tapline] = &found;
        assert_eq!(kernel.arrived, Some(NARROW), "{kernel:?}");
        let told = kernel.refused.as_ref().expect("router 1 says so");
        assert_eq!(told.from, Some(NEAR.gateway.of(v6)), "{told:?}");
        assert_eq!(told.mtu, Some(NARROW.into()), "{told:?}");
        assert_eq!(tapline, kernel);
    }
}

/// Echo requests of 4000 bytes, which the hosts send in fragments of 1500 bytes.
fn large_pings(v6: bool) {
    for kind in [Kind::Kernel, Kind::Tapline] {
        let topology = Topology::new(kind, MTU);
        let (a, c) = (&topology.a, &topology.c);
        for (from, to) in [(a, c), (c, a)] {
            let spec = PingSpec {
                count: 3,
                interval: Duration::from_millis(5),
                payload_len: 4000,
                ..PingSpec::to(to.side.host.of(v6))
            };
            let report = ping(&from.netns, &spec).expect("a raw socket");
            let found = (report.received(), report.ttl(), report.errors.len());
            assert_eq!(found, (3, Some(62), 0), "{kind:?}: {report:?}");
        }
        topology.stop();
    }
}

#[test]
fn fragments_of_large_pings_arrive_both_ways() {
    large_pings(false);
    large_pings(true);
}
