//! Packets that no host of good will sends: what the kernel forwards, Tapline forwards, and what
//! the kernel drops, Tapline drops by name.
//!
//! In: malformed headers, options, fragments, addresses that no packet may have. Out: what came of
//! each, compared, but for the table of [`differences`](crate::differences).
//! Never: takes a silent loss for a drop: a counter must have a reason for it.

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::verdict::DropReason as D;

use crate::differences::Findings;
use crate::packets::{DONT_FRAGMENT, MORE_FRAGMENTS, Packet, V4, V6, content};
use crate::topology::{FAR, NEAR};
use crate::wire::Bench;

/// A packet, and the reason for which Tapline drops it, if it does.
type Case = (&'static str, V4, Option<D>);

fn with(change: impl FnOnce(&mut V4)) -> V4 {
    let mut packet = V4::datagram(40);
    change(&mut packet);
    packet
}

fn from(source: impl Into<Ipv4Addr>) -> V4 {
    with(|packet| packet.source = source.into())
}

fn to(target: impl Into<Ipv4Addr>) -> V4 {
    with(|packet| packet.target = target.into())
}

fn headers() -> Vec<Case> {
    let spoilt = |spoil| with(|packet| packet.spoil = spoil);
    let bad = Some(D::MalformedIpv4);
    vec![
        ("sound", with(|_| ()), None),
        ("version 5", spoilt(|header| header[0] = 0x55), bad),
        ("header of 16 bytes", spoilt(|header| header[0] = 0x44), bad),
        (
            "header past the end",
            spoilt(|header| header[0] = 0x4f),
            bad,
        ),
        (
            "shorter than its header",
            spoilt(|header| header[3] = 19),
            bad,
        ),
        (
            "longer than its frame",
            spoilt(|header| header[3] += 1),
            bad,
        ),
        (
            "shorter than its frame",
            spoilt(|header| header[3] -= 8),
            None,
        ),
        ("wrong checksum", with(|packet| packet.bad_sum = true), bad),
        (
            "reserved flag",
            with(|packet| packet.fragment = 0x8000),
            None,
        ),
    ]
}

fn options() -> Vec<Case> {
    let option = |bytes: &[u8]| with(|packet| packet.options = bytes.to_vec());
    vec![
        ("no operation", option(&[1, 1, 1, 0]), None),
        ("unknown option", option(&[0x5e, 4, 1, 2]), None),
        ("router alert", option(&[148, 4, 0, 0]), None),
        ("record route", option(&[7, 7, 4, 0, 0, 0, 0, 0]), None),
        (
            "record route, full",
            option(&[7, 7, 8, 1, 2, 3, 4, 0]),
            None,
        ),
        ("timestamps", option(&[68, 8, 5, 0, 0, 0, 0, 0]), None),
        (
            "loose source route",
            option(&[131, 7, 4, 10, 20, 0, 5, 0]),
            Some(D::SourceRouted),
        ),
        (
            "strict source route",
            option(&[137, 7, 4, 10, 20, 0, 5, 0]),
            Some(D::SourceRouted),
        ),
        (
            "option of length 0",
            option(&[7, 0, 4, 0]),
            Some(D::MalformedOptions),
        ),
        (
            "option past the end",
            option(&[7, 39, 4, 0]),
            Some(D::MalformedOptions),
        ),
        (
            "option without a length",
            option(&[1, 1, 1, 7]),
            Some(D::MalformedOptions),
        ),
        (
            "record route, bad pointer",
            option(&[7, 7, 3, 0, 0, 0, 0, 0]),
            Some(D::MalformedOptions),
        ),
    ]
}

/// Fragments of one sender, so that those of one number are of one packet.
fn fragments() -> Vec<Case> {
    let sender = Ipv4Addr::from_bits(NEAR.aliases.0.network().to_bits() + 200);
    let of = |protocol, id, bits: u16, len| {
        with(|packet| {
            (packet.source, packet.protocol) = (sender, protocol);
            (packet.id, packet.fragment) = (id, bits);
            packet.payload = content(len);
        })
    };
    let udp = |id, bits, len| of(17, id, bits, len);
    let tcp = |id, bits, len| of(6, id, bits, len);
    let (over, tiny) = (Some(D::OverlappingFragment), Some(D::TinyFragment));
    vec![
        ("first fragment", udp(1, MORE_FRAGMENTS, 64), None),
        ("second overlaps it", udp(1, 4, 64), over),
        ("second follows an overlap", udp(1, 8, 64), over),
        ("last fragment first", udp(2, 8, 64), None),
        ("first fragment last", udp(2, MORE_FRAGMENTS, 64), None),
        ("fragment of 8 bytes", udp(3, MORE_FRAGMENTS, 8), None),
        ("fragment at 8", udp(3, MORE_FRAGMENTS | 1, 64), None),
        ("TCP in 8 bytes", tcp(4, MORE_FRAGMENTS, 8), tiny),
        ("TCP at 8", tcp(4, MORE_FRAGMENTS | 1, 64), tiny),
        (
            "fragment not in eights",
            udp(5, MORE_FRAGMENTS | 8, 61),
            None,
        ),
        ("fragment past 65535", udp(6, 0x1fff, 64), None),
        (
            "fragment with DF",
            udp(7, DONT_FRAGMENT | MORE_FRAGMENTS, 64),
            None,
        ),
    ]
}

fn headers_v6() -> Vec<(&'static str, V6, Option<D>)> {
    let with = |change: fn(&mut V6)| {
        let mut packet = V6::datagram(40);
        change(&mut packet);
        packet
    };
    let bad = Some(D::MalformedIpv6);
    vec![
        ("v6 sound", with(|_| ()), None),
        ("v6 version 7", with(|packet| packet.first |= 1 << 28), bad),
        (
            "v6 longer than its frame",
            with(|packet| packet.longer = 1),
            bad,
        ),
        (
            "v6 shorter than its frame",
            with(|packet| packet.longer = -8),
            None,
        ),
        ("v6 empty", with(|packet| packet.longer = -48), None),
    ]
}

fn sources() -> Vec<Case> {
    vec![
        (
            "from this network",
            from([0, 0, 0, 1]),
            Some(D::MartianSource),
        ),
        ("from nobody", from([0, 0, 0, 0]), Some(D::MartianSource)),
        (
            "from loopback",
            from([127, 0, 0, 1]),
            Some(D::MartianSource),
        ),
        (
            "from a multicast group",
            from([224, 0, 0, 9]),
            Some(D::MartianSource),
        ),
        (
            "from a reserved address",
            from([240, 0, 0, 1]),
            Some(D::MartianSource),
        ),
        (
            "from everybody",
            from([255, 255, 255, 255]),
            Some(D::MartianSource),
        ),
        (
            "from link-local",
            from([169, 254, 7, 7]),
            Some(D::NotRoutable),
        ),
        ("from the gateway", from(NEAR.gateway.v4), None),
        ("from the far host", from(FAR.host.v4), None),
        ("from the far gateway", from(FAR.gateway.v4), None),
        (
            "from the link's broadcast",
            from([10, 244, 1, 255]),
            Some(D::MartianSource),
        ),
    ]
}

fn targets() -> Vec<Case> {
    vec![
        ("to this network", to([0, 0, 0, 1]), Some(D::NotRoutable)),
        ("to nobody", to([0, 0, 0, 0]), Some(D::NotRoutable)),
        ("to loopback", to([127, 0, 0, 1]), Some(D::NotRoutable)),
        (
            "to a multicast group",
            to([224, 0, 0, 9]),
            Some(D::NotRoutable),
        ),
        (
            "to a routed multicast group",
            to([239, 1, 1, 1]),
            Some(D::NotRoutable),
        ),
        (
            "to a reserved address",
            to([240, 0, 0, 1]),
            Some(D::NotRoutable),
        ),
        (
            "to everybody",
            to([255, 255, 255, 255]),
            Some(D::NotRoutable),
        ),
        ("to link-local", to([169, 254, 7, 7]), Some(D::NotRoutable)),
        (
            "to the far link's broadcast",
            to([10, 244, 0, 255]),
            Some(D::DirectedBroadcast),
        ),
        (
            "to the near link's broadcast",
            to([10, 244, 1, 255]),
            Some(D::DirectedBroadcast),
        ),
        ("to itself", to(NEAR.host.v4), Some(D::SamePort)),
    ]
}

fn hop_by_hop() -> Vec<(&'static str, V6, Option<D>)> {
    let extended = V6::extended;
    let option = |kind: u8| extended(0, &[17, 0, kind, 4, 0, 0, 0, 0]);
    vec![
        (
            "v6 destination options",
            extended(60, &[17, 0, 1, 4, 0, 0, 0, 0]),
            None,
        ),
        ("v6 hop-by-hop options", option(1), None),
        ("v6 unknown option, skip", option(0x1e), None),
        (
            "v6 unknown option, discard",
            option(0x5e),
            Some(D::UnknownOption),
        ),
        (
            "v6 unknown option, tell",
            option(0x9e),
            Some(D::UnknownOption),
        ),
        (
            "v6 unknown option, tell one",
            option(0xde),
            Some(D::UnknownOption),
        ),
        (
            "v6 options past the end",
            extended(0, &[17, 99, 1, 4, 0, 0, 0, 0]),
            Some(D::MalformedExtensions),
        ),
        (
            "v6 option past the header",
            extended(0, &[17, 0, 1, 9, 0, 0, 0, 0]),
            Some(D::MalformedOptions),
        ),
        (
            "v6 hop-by-hop comes second",
            extended(60, &[0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0]),
            Some(D::MalformedExtensions),
        ),
    ]
}

fn extensions() -> Vec<(&'static str, V6, Option<D>)> {
    let extended = V6::extended;
    let chain: Vec<u8> = (0..9)
        .flat_map(|at| [if at < 8 { 60 } else { 17 }, 0, 1, 4, 0, 0, 0, 0])
        .collect();
    vec![
        (
            "v6 routing header of type 0",
            extended(
                43,
                &[
                    17, 2, 0, 1, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
                ],
            ),
            Some(D::SourceRouted),
        ),
        (
            "v6 routing header of type 2",
            extended(
                43,
                &[
                    17, 2, 2, 1, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
                ],
            ),
            None,
        ),
        (
            "v6 routing header, spent",
            extended(43, &[17, 0, 0, 0, 0, 0, 0, 0]),
            Some(D::SourceRouted),
        ),
        (
            "v6 nine headers",
            extended(60, &chain),
            Some(D::MalformedExtensions),
        ),
        (
            "v6 header cut short",
            V6 {
                payload: vec![17, 0, 1],
                ..extended(60, &[])
            },
            Some(D::MalformedExtensions),
        ),
        (
            "v6 no next header",
            V6 {
                next: 59,
                ..V6::datagram(40)
            },
            None,
        ),
    ]
}

fn fragments_v6() -> Vec<(&'static str, V6, Option<D>)> {
    let extended = V6::extended;
    // Of one sender, so that they are of one packet.
    let fragment = |header: [u8; 8]| V6 {
        source: Ipv6Addr::from_bits(NEAR.aliases.1.network().to_bits() + 200),
        ..extended(44, &header)
    };
    vec![
        (
            "v6 first fragment",
            fragment([17, 0, 0, 1, 0, 0, 0, 9]),
            None,
        ),
        (
            "v6 second overlaps it",
            fragment([17, 0, 0, 8, 0, 0, 0, 9]),
            Some(D::OverlappingFragment),
        ),
        (
            "v6 atomic fragment",
            extended(44, &[17, 0, 0, 0, 0, 0, 0, 9]),
            None,
        ),
    ]
}

fn addresses_v6() -> Vec<(&'static str, V6, Option<D>)> {
    let from = |source: &str| V6 {
        source: source.parse().expect("an address"),
        ..V6::datagram(40)
    };
    let to = |target: &str| V6 {
        target: target.parse().expect("an address"),
        ..V6::datagram(40)
    };
    vec![
        ("v6 from nobody", from("::"), Some(D::MartianSource)),
        ("v6 from loopback", from("::1"), Some(D::MartianSource)),
        (
            "v6 from a multicast group",
            from("ff0e::1"),
            Some(D::MartianSource),
        ),
        (
            "v6 from an IPv4 address",
            from("::ffff:10.244.1.6"),
            Some(D::MartianSource),
        ),
        ("v6 from link-local", from("fe80::7"), Some(D::BeyondScope)),
        ("v6 from the gateway", from("fd00:244:0:1::1"), None),
        ("v6 from the far host", from("fd00:244::7"), None),
        ("v6 from the far gateway", from("fd00:244::1"), None),
        ("v6 to nobody", to("::"), Some(D::NotRoutable)),
        ("v6 to loopback", to("::1"), Some(D::NotRoutable)),
        (
            "v6 to a multicast group",
            to("ff0e::1"),
            Some(D::NotRoutable),
        ),
        (
            "v6 to the link's nodes",
            to("ff02::1"),
            Some(D::NotRoutable),
        ),
        (
            "v6 to an IPv4 address",
            to("::ffff:10.244.0.7"),
            Some(D::NotRoutable),
        ),
        ("v6 to link-local", to("fe80::7"), Some(D::NotRoutable)),
        (
            "v6 to the far subnet's routers",
            to("fd00:244::"),
            Some(D::NoSuchPod),
        ),
        ("v6 to itself", to("fd00:244:0:1::6"), Some(D::SamePort)),
    ]
}

/// Every packet fares alike, and each that Tapline drops is counted once, under its reason.
fn compare<P: Packet>(cases: Vec<(&'static str, P, Option<D>)>) {
    let mut findings = Findings::default();
    let [mut kernel, mut tapline] = Bench::pair();
    for (number, (name, packet, reason)) in (0..).zip(cases) {
        let frame = packet.by_alias(number).frame();
        let (theirs, ours) = (kernel.try_frame(&frame), tapline.try_frame(&frame));
        let due: Vec<(D, u64)> = reason.map(|reason| (reason, 1)).into_iter().collect();
        assert_eq!(ours.dropped, due, "{name}");
        findings.compare(name, &theirs, &ours);
    }
    findings.conclude();
    tapline.topology.stop();
}

#[test]
fn headers_are_sound_to_tapline_where_they_are_to_the_kernel() {
    compare(headers());
    compare(headers_v6());
}

#[test]
fn fragments_fare_as_with_the_kernel() {
    compare(fragments());
}

#[test]
fn options_and_extension_headers_fare_as_with_the_kernel() {
    compare(options());
    compare(hop_by_hop());
    compare(extensions());
    compare(fragments_v6());
}

#[test]
fn sources_that_no_packet_may_have_fare_as_with_the_kernel() {
    compare(sources());
}

#[test]
fn targets_that_no_router_serves_fare_as_with_the_kernel() {
    compare(targets());
    compare(addresses_v6());
}
