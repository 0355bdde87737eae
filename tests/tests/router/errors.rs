//! ICMP errors: when routers send them, and every field of them.
//!
//! In: packets that cannot be forwarded. Out: the kernel's errors, which Tapline's must equal but
//! for the table of [`differences`](crate::differences).
//! Never: leaves out a field.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::differences::Findings;
use crate::packets::{DONT_FRAGMENT, MORE_FRAGMENTS, Packet, V4, V6, content, udp};
use crate::topology::{Kind, MTU};
use crate::wire::Bench;

/// A target that no router here has a route to.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The same in IPv6.
const NOWHERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

fn expired() -> V4 {
    V4 {
        ttl: 1,
        ..V4::datagram(40)
    }
}

fn expiring() -> Vec<(&'static str, V4)> {
    let with = |change: fn(&mut V4)| {
        let mut packet = expired();
        change(&mut packet);
        packet
    };
    let icmp = |kind| V4 {
        ttl: 1,
        ..V4::icmp(kind, 0, &[0; 32])
    };
    vec![
        ("expired at router 1", expired()),
        ("expired at router 2", with(|packet| packet.ttl = 2)),
        ("arrived with 0", with(|packet| packet.ttl = 0)),
        (
            "quoted in part",
            with(|packet| packet.payload = content(1400)),
        ),
        (
            "with options",
            with(|packet| packet.options = vec![1, 1, 1, 0]),
        ),
        ("with precedence", with(|packet| packet.tos = 0xb9)),
        ("with DF", with(|packet| packet.fragment = DONT_FRAGMENT)),
        (
            "first fragment",
            with(|packet| packet.fragment = MORE_FRAGMENTS),
        ),
        ("later fragment", with(|packet| packet.fragment = 100)),
        ("TCP", with(|packet| packet.protocol = 6)),
        ("another protocol", with(|packet| packet.protocol = 132)),
        ("echo request", icmp(8)),
        ("echo reply", icmp(0)),
        ("timestamp request", icmp(13)),
        ("error about an error", icmp(3)),
        ("redirect", icmp(5)),
        ("unassigned ICMP type", icmp(42)),
    ]
}

fn expiring_v6() -> Vec<(&'static str, V6)> {
    let expired = V6 {
        hops: 1,
        ..V6::datagram(40)
    };
    let with = |change: fn(&mut V6)| {
        let mut packet = expired.clone();
        change(&mut packet);
        packet
    };
    let icmp = |kind| V6 {
        hops: 1,
        ..V6::icmp(kind)
    };
    let extended = |next, extensions: &[u8]| V6 {
        hops: 1,
        ..V6::extended(next, extensions)
    };
    vec![
        ("v6 expired at router 1", expired.clone()),
        ("v6 expired at router 2", with(|packet| packet.hops = 2)),
        ("v6 arrived with 0", with(|packet| packet.hops = 0)),
        (
            "v6 quoted in part",
            with(|packet| packet.payload = udp(1, 2, &content(1400))),
        ),
        (
            "v6 with class and label",
            with(|packet| packet.first |= 0x0b8_12345),
        ),
        (
            "v6 with destination options",
            extended(60, &[17, 0, 1, 4, 0, 0, 0, 0]),
        ),
        (
            "v6 with hop-by-hop options",
            extended(0, &[17, 0, 1, 4, 0, 0, 0, 0]),
        ),
        (
            "v6 first fragment",
            extended(44, &[17, 0, 0, 1, 0, 0, 0, 9]),
        ),
        (
            "v6 later fragment",
            extended(44, &[17, 0, 0, 65, 0, 0, 0, 9]),
        ),
        ("v6 TCP", with(|packet| packet.next = 6)),
        ("v6 another protocol", with(|packet| packet.next = 132)),
        ("v6 no next header", with(|packet| packet.next = 59)),
        ("v6 echo request", icmp(128)),
        ("v6 echo reply", icmp(129)),
        ("v6 error about an error", icmp(1)),
        ("v6 unassigned error", icmp(101)),
        ("v6 unassigned message", icmp(201)),
        ("v6 redirect", icmp(137)),
    ]
}

fn compare<P: Packet>(cases: Vec<(&'static str, P)>, between: u16) {
    let mut findings = Findings::default();
    let [mut kernel, mut tapline] =
        [Kind::Kernel, Kind::Tapline].map(|kind| Bench::new(kind, between));
    for (number, (name, packet)) in (0..).zip(cases) {
        let frame = packet.by_alias(number).frame();
        let (theirs, ours) = (kernel.try_frame(&frame), tapline.try_frame(&frame));
        findings.compare(name, &theirs, &ours);
    }
    findings.conclude();
    tapline.topology.stop();
}

#[test]
fn a_packet_that_expires_is_told_of_as_the_kernel_does() {
    compare(expiring(), MTU);
}

#[test]
fn an_ipv6_packet_that_expires_is_told_of_as_the_kernel_does() {
    compare(expiring_v6(), MTU);
}

#[test]
fn a_packet_too_big_for_the_uplink_is_told_of_as_the_kernel_does() {
    let whole = |len| V4 {
        fragment: DONT_FRAGMENT,
        ..V4::datagram(len)
    };
    let expired = V4 {
        ttl: 1,
        ..whole(1472)
    };
    let cases = vec![
        ("as long as the uplink takes", whole(1400 - 28)),
        ("a byte too long", whole(1400 - 27)),
        ("as long as the host's link takes", whole(1472)),
        ("too long and expired", expired),
    ];
    compare(cases, 1400);
}

#[test]
fn an_ipv6_packet_too_big_for_the_uplink_is_told_of_as_the_kernel_does() {
    let datagram = V6::datagram;
    let expired = V6 {
        hops: 1,
        ..datagram(1452)
    };
    let fragment = V6 {
        payload: content(1400),
        ..V6::extended(44, &[17, 0, 0, 65, 0, 0, 0, 9])
    };
    let cases = vec![
        ("v6 as long as the uplink takes", datagram(1400 - 48)),
        ("v6 a byte too long", datagram(1400 - 47)),
        ("v6 as long as the host's link takes", datagram(1452)),
        ("v6 too long and expired", expired),
        ("v6 fragment too long", fragment),
    ];
    compare(cases, 1400);
}

#[test]
fn a_target_without_a_route_is_told_of_as_the_kernel_does() {
    let nowhere = V4 {
        target: NOWHERE,
        ..V4::datagram(40)
    };
    let expired = V4 {
        ttl: 1,
        ..nowhere.clone()
    };
    compare(
        vec![("no route", nowhere), ("no route and expired", expired)],
        MTU,
    );
}

#[test]
fn an_ipv6_target_without_a_route_is_told_of_as_the_kernel_does() {
    let nowhere = V6 {
        target: NOWHERE_V6,
        ..V6::datagram(40)
    };
    let expired = V6 {
        hops: 1,
        ..nowhere.clone()
    };
    let cases = vec![
        ("v6 no route", nowhere),
        ("v6 no route and expired", expired),
    ];
    compare(cases, MTU);
}

#[test]
fn a_target_that_nobody_has_is_told_of_as_the_kernel_does() {
    let v4 = V4 {
        target: Ipv4Addr::new(10, 244, 0, 99),
        ..V4::datagram(40)
    };
    let v6 = V6 {
        target: Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 0x999),
        ..V6::datagram(40)
    };
    // Three questions a second apart, and then the kernel gives up (`mcast_solicit`, arp(7)).
    let wait = Duration::from_millis(3500);
    let mut findings = Findings::default();
    let [mut kernel, mut tapline] = Bench::pair();
    let frames = [v4.frame(), v6.frame()];
    let theirs = kernel.try_frames_for(&frames, wait);
    for ((name, frame), theirs) in ["no such host", "v6 no such host"]
        .into_iter()
        .zip(&frames)
        .zip(theirs)
    {
        assert_eq!(theirs.told.len(), 1, "{theirs:?}");
        findings.compare(name, &theirs, &tapline.try_frame(frame));
    }
    findings.conclude();
    tapline.topology.stop();
}
