//! Every rule of the fabric, and every reason to drop, each shown by a frame.
//!
//! In: a small VNet like the seed's, with a route table, and frames built by etherparse.
//! Out: verdicts, compared whole. Not checked here: what a TAP does with a verdict, and
//! `target_refused`, which only a device can give (see `tests/fabric.rs`).

mod frames;

use std::collections::BTreeSet;

use etherparse::VlanId;
use proptest::prelude::*;

use super::*;
use crate::lab::fabric::spec::{SubnetSpec, VnetSpec};
use frames::*;

type Case = (&'static str, NicId, Vec<u8>, Verdict);

fn ethernet_cases(w: &World) -> Vec<Case> {
    let tagged = |ethertype: EtherType| {
        frame(
            ethertype,
            &[
                &VlanId::try_new(7).expect("12 bits").value().to_be_bytes()[..],
                &[0x08, 0, 0x45],
            ]
            .concat(),
        )
    };
    let good = ping("10.20.0.31", "10.20.0.43");
    let to = |to, target| Verdict::Deliver { to, target };
    vec![
        (
            "thirteen bytes",
            w.node_0,
            good[..13].to_vec(),
            FabricDrop::TooShort.into(),
        ),
        (
            "no bytes",
            w.node_0,
            Vec::new(),
            FabricDrop::TooShort.into(),
        ),
        (
            "a full frame passes",
            w.node_0,
            raw_ipv4(6, 0, &[0; 1480]),
            to(w.node_1, NODE_1),
        ),
        (
            "a byte too many",
            w.node_0,
            raw_ipv4(6, 0, &[0; 1481]),
            FabricDrop::TooLong.into(),
        ),
        (
            "the sender is gone",
            w.gone,
            good.clone(),
            FabricDrop::SenderGone.into(),
        ),
        (
            "another's MAC",
            w.node_0,
            addressed(VIRTUAL_MAC, NODE_1, good.clone()),
            FabricDrop::SourceMacSpoofed.into(),
        ),
        (
            "forwarding excuses no MAC",
            w.node_1,
            good.clone(),
            FabricDrop::SourceMacSpoofed.into(),
        ),
        (
            "802.1Q",
            w.node_0,
            tagged(EtherType::VLAN_TAGGED_FRAME),
            FabricDrop::VlanTagged.into(),
        ),
        (
            "802.1ad",
            w.node_0,
            tagged(EtherType::PROVIDER_BRIDGING),
            FabricDrop::VlanTagged.into(),
        ),
        (
            "LLDP",
            w.node_0,
            frame(EtherType(0x88cc), &[0; 46]),
            FabricDrop::UnknownEthertype.into(),
        ),
        (
            "any unicast MAC will do",
            w.node_0,
            addressed(NODE_1, NODE_0, good),
            to(w.node_1, NODE_1),
        ),
    ]
}

fn arp_cases(w: &World) -> Vec<Case> {
    let own = asks("10.20.0.4");
    let odd = |at: usize, value| {
        let mut frame = asks("10.20.0.43");
        frame[ETHERNET_LEN + at] = value;
        frame
    };
    vec![
        (
            "another node's pod",
            w.node_0,
            asks("10.20.0.43"),
            says("10.20.0.43"),
        ),
        (
            "the gateway",
            w.node_0,
            asks("10.20.0.1"),
            says("10.20.0.1"),
        ),
        (
            "nobody's address",
            w.node_0,
            asks("10.20.0.200"),
            says("10.20.0.200"),
        ),
        (
            "the other subnet",
            w.node_0,
            asks("10.10.0.5"),
            says("10.10.0.5"),
        ),
        (
            "its own second address",
            w.node_0,
            asks("10.20.0.31"),
            says("10.20.0.31"),
        ),
        (
            "asked by unicast",
            w.node_0,
            addressed(VIRTUAL_MAC, NODE_0, asks("10.20.0.43")),
            says("10.20.0.43"),
        ),
        (
            "its own primary address",
            w.node_0,
            own,
            FabricDrop::ArpOwnAddress.into(),
        ),
        (
            "outside the VNet",
            w.node_0,
            asks("10.244.0.7"),
            FabricDrop::ArpOutsideVnet.into(),
        ),
        (
            "a pod's MAC inside",
            w.node_0,
            arp(ArpOperation::REQUEST, NODE_1, "10.20.0.31", "10.20.0.43"),
            FabricDrop::LinkAddressSpoofed.into(),
        ),
        (
            "a reply",
            w.node_0,
            arp(ArpOperation::REPLY, NODE_0, "10.20.0.31", "10.20.0.43"),
            FabricDrop::ArpUnsolicited.into(),
        ),
        (
            "cut short",
            w.node_0,
            asks("10.20.0.43")[..40].to_vec(),
            FabricDrop::ArpMalformed.into(),
        ),
        (
            "not Ethernet",
            w.node_0,
            odd(1, 6),
            FabricDrop::ArpMalformed.into(),
        ),
        (
            "not IPv4",
            w.node_0,
            odd(2, 9),
            FabricDrop::ArpMalformed.into(),
        ),
        (
            "an odd address length",
            w.node_0,
            odd(5, 3),
            FabricDrop::ArpMalformed.into(),
        ),
    ]
}

fn ipv4_cases(w: &World) -> Vec<Case> {
    let good = ping("10.20.0.31", "10.20.0.43");
    let mut stale = good.clone();
    stale[ETHERNET_LEN + 8] -= 1;
    let reserved = udp(("10.20.0.31", 65330), ("10.20.0.43", 53));
    let reserved_bytes = &[0xff, 0x32, 0, 53, 0, 8, 0, 0];
    let drops = [
        ("cut short", good[..40].to_vec(), FabricDrop::Ipv4Malformed),
        (
            "version 6 inside",
            frame(EtherType::IPV4, &[0x60; 40]),
            FabricDrop::Ipv4Malformed,
        ),
        (
            "ttl changed, checksum not",
            stale,
            FabricDrop::Ipv4BadChecksum,
        ),
        ("GRE", raw_ipv4(47, 0, &[0; 8]), FabricDrop::Gre),
        ("IPv4 in IPv4", raw_ipv4(4, 0, &[0; 20]), FabricDrop::IpInIp),
        (
            "IPv6 in IPv4",
            raw_ipv4(41, 0, &[0; 40]),
            FabricDrop::IpInIp,
        ),
        ("UDP port 65330", reserved, FabricDrop::UdpPortReserved),
        (
            "DHCP",
            udp(("0.0.0.0", 68), ("255.255.255.255", 67)),
            FabricDrop::DhcpUnserved,
        ),
        (
            "other broadcast",
            udp(("10.20.0.31", 9), ("255.255.255.255", 9)),
            FabricDrop::GroupTarget,
        ),
        (
            "multicast",
            ping("10.20.0.31", "224.0.0.251"),
            FabricDrop::GroupTarget,
        ),
        (
            "a group MAC",
            addressed(Mac::BROADCAST, NODE_0, good),
            FabricDrop::GroupTarget,
        ),
        (
            "another's address",
            ping("10.20.0.43", "10.20.0.35"),
            FabricDrop::SourceIpSpoofed,
        ),
        (
            "a pod CIDR without the flag",
            ping("10.244.1.6", "10.20.0.35"),
            FabricDrop::SourceIpSpoofed,
        ),
        (
            "DNS of the platform",
            udp(("10.20.0.4", 5353), ("168.63.129.16", 53)),
            FabricDrop::PlatformAddress,
        ),
        (
            "metadata",
            ping("10.20.0.4", "169.254.169.254"),
            FabricDrop::PlatformAddress,
        ),
        (
            "link-local",
            ping("10.20.0.4", "169.254.1.1"),
            FabricDrop::LinkLocal,
        ),
    ];
    let drops = drops.map(|(what, frame, reason)| (what, w.node_0, frame, reason.into()));
    let later = Verdict::Deliver {
        to: w.node_1,
        target: NODE_1,
    };
    let later = (
        "a later fragment has no ports",
        w.node_0,
        raw_ipv4(17, 1, reserved_bytes),
        later,
    );
    drops.into_iter().chain([later]).collect()
}

fn routing_cases(w: &World) -> Vec<Case> {
    let from_1 = |frame| addressed(VIRTUAL_MAC, NODE_1, frame);
    let to_0 = Verdict::Deliver {
        to: w.node_0,
        target: NODE_0,
    };
    let to_1 = Verdict::Deliver {
        to: w.node_1,
        target: NODE_1,
    };
    let master = w
        .vnet
        .owner("10.10.0.5".parse().expect("well-formed"))
        .expect("attached")
        .id();
    let drops = [
        (
            "the gateway is silent",
            "10.20.0.1",
            FabricDrop::GatewaySilent,
        ),
        (
            "so is the other subnet's",
            "10.10.0.1",
            FabricDrop::GatewaySilent,
        ),
        ("nobody has it", "10.20.0.200", FabricDrop::AddressUnowned),
        (
            "VnetLocal by a user",
            "10.88.0.1",
            FabricDrop::AddressUnowned,
        ),
        (
            "a system route to None",
            "10.244.77.1",
            FabricDrop::RouteNone,
        ),
        (
            "a user's route to None",
            "10.244.9.1",
            FabricDrop::UserRouteNone,
        ),
        (
            "next hop without a NIC",
            "10.244.2.1",
            FabricDrop::NextHopMissing,
        ),
        (
            "next hop without the flag",
            "10.244.3.1",
            FabricDrop::NextHopNotForwarding,
        ),
        ("the Internet", "8.8.8.8", FabricDrop::Internet),
        ("a gateway", "10.99.1.1", FabricDrop::GatewayMissing),
        ("a peer", "10.77.1.1", FabricDrop::BeyondVnet),
    ];
    let drops =
        drops.map(|(what, to, reason)| (what, w.node_0, ping("10.20.0.31", to), reason.into()));
    let passes = [
        (
            "pod to pod",
            w.node_0,
            ping("10.20.0.31", "10.20.0.43"),
            to_1.clone(),
        ),
        (
            "pod to node",
            w.node_0,
            ping("10.20.0.31", "10.20.0.35"),
            to_1.clone(),
        ),
        (
            "across subnets",
            w.node_0,
            ping("10.20.0.31", "10.10.0.5"),
            Verdict::Deliver {
                to: master,
                target: MASTER,
            },
        ),
        (
            "by the route table",
            w.node_0,
            ping("10.20.0.4", "10.244.0.7"),
            to_1.clone(),
        ),
        (
            "from a pod CIDR, with the flag",
            w.node_1,
            from_1(ping("10.244.0.7", "10.20.0.4")),
            to_0,
        ),
        (
            "a route may lead back",
            w.node_1,
            from_1(ping("10.244.0.7", "10.244.0.8")),
            to_1.clone(),
        ),
        (
            "a NIC may address itself",
            w.node_1,
            from_1(ping("10.20.0.35", "10.20.0.43")),
            to_1,
        ),
    ];
    drops.into_iter().chain(passes).collect()
}

fn ipv6_cases(w: &World) -> Vec<Case> {
    let good = ping6("fd00:20::1f", "fd00:20::23");
    let own = Some(NODE_0);
    let mut tunnel = good.clone();
    tunnel[ETHERNET_LEN + 6] = 41;
    let drops = [
        ("cut short", good[..50].to_vec(), FabricDrop::Ipv6Malformed),
        (
            "multicast",
            ping6("fd00:20::4", "ff02::1"),
            FabricDrop::GroupTarget,
        ),
        ("a tunnel", tunnel, FabricDrop::IpInIp),
        (
            "another's address",
            ping6("fd00:20::23", "fd00:20::4"),
            FabricDrop::SourceIpSpoofed,
        ),
        (
            "link-local",
            ping6("fd00:20::4", "fe80::1"),
            FabricDrop::LinkLocal,
        ),
        (
            "nobody has it",
            ping6("fd00:20::4", "fd00:20::99"),
            FabricDrop::AddressUnowned,
        ),
        (
            "the Internet",
            ping6("fd00:20::4", "2001:db8::1"),
            FabricDrop::Internet,
        ),
        (
            "forwarded solicitation",
            solicits("fd00:20::4", 64, "fd00:20::23", own),
            FabricDrop::NeighbourMalformed,
        ),
        (
            "solicits a group",
            solicits("fd00:20::4", 255, "ff02::1", own),
            FabricDrop::NeighbourMalformed,
        ),
        (
            "another's link address",
            solicits("fd00:20::4", 255, "fd00:20::23", Some(NODE_1)),
            FabricDrop::LinkAddressSpoofed,
        ),
        (
            "its own primary",
            solicits("fd00:20::1f", 255, "fd00:20::4", own),
            FabricDrop::NeighbourOwnAddress,
        ),
        (
            "duplicate detection",
            solicits("::", 255, "fd00:20::1f", None),
            FabricDrop::NeighbourOwnAddress,
        ),
        (
            "solicits outside",
            solicits("fd00:20::4", 255, "fe80::1", own),
            FabricDrop::NeighbourOutsideVnet,
        ),
    ];
    let drops = drops.map(|(what, frame, reason)| (what, w.node_0, frame, reason.into()));
    let to_1 = Verdict::Deliver {
        to: w.node_1,
        target: NODE_1,
    };
    let passes = [
        ("pod to pod", w.node_0, good, to_1.clone()),
        (
            "by the route table",
            w.node_0,
            ping6("fd00:20::4", "fd00:244::7"),
            to_1,
        ),
    ];
    drops.into_iter().chain(passes).collect()
}

fn all_cases(w: &World) -> Vec<Case> {
    [
        ethernet_cases(w),
        arp_cases(w),
        ipv4_cases(w),
        routing_cases(w),
        ipv6_cases(w),
    ]
    .concat()
}

#[test]
fn every_frame_of_the_tables_gets_its_verdict() {
    let w = world();
    for (what, from, frame, verdict) in all_cases(&w) {
        assert_eq!(decide(&w.vnet, from, &frame), verdict, "{what}");
    }
}

#[test]
fn every_reason_is_reached_by_some_frame() {
    let w = world();
    let mut reached: BTreeSet<_> = all_cases(&w)
        .into_iter()
        .filter_map(|case| {
            if let Verdict::Drop(reason) = case.3 {
                Some(reason)
            } else {
                None
            }
        })
        .collect();
    reached.insert(without_ipv6());
    // Only a device can refuse; `tests/fabric.rs` has one do it.
    reached.insert(FabricDrop::TargetRefused);
    let missing: Vec<_> = FabricDrop::ALL
        .into_iter()
        .filter(|r| !reached.contains(r))
        .collect();
    assert!(missing.is_empty(), "no test frame reaches {missing:?}");
}

fn without_ipv6() -> FabricDrop {
    let w = world();
    let spec = VnetSpec {
        prefixes: vec!["10.20.0.0/24".parse().expect("well-formed")],
        subnets: vec![SubnetSpec {
            name: "agents".into(),
            prefixes: vec!["10.20.0.0/24".parse().expect("well-formed")],
            route_table: None,
        }],
    };
    let mut vnet = Vnet::new(spec).expect("the subnet fits");
    let mut nic = w.vnet.nic(w.node_0).expect("attached").spec().clone();
    nic.addresses.truncate(2);
    let id = vnet.attach(nic).expect("it fits");
    match decide(&vnet, id, &ping6("fd00:20::1f", "fd00:20::23")) {
        Verdict::Drop(reason) => reason,
        other => panic!("IPv6 without a prefix: {other:?}"),
    }
}

#[test]
fn a_solicitation_is_answered_by_the_virtual_mac() {
    let w = world();
    let asked = solicits("fd00:20::4", 255, "fd00:20::23", Some(NODE_0));
    let Verdict::Answer(frame) = decide(&w.vnet, w.node_0, &asked) else {
        panic!("no answer")
    };
    assert_eq!(frame[..6], NODE_0.octets());
    assert_eq!(frame[6..12], VIRTUAL_MAC.octets());
    let packet = Ipv6Slice::from_slice(&frame[ETHERNET_LEN..]).expect("a whole packet");
    assert_eq!(packet.header().source(), six("fd00:20::23"));
    assert_eq!(packet.header().destination(), six("fd00:20::4"));
    let icmp = etherparse::Icmpv6Slice::from_slice(packet.payload().payload).expect("ICMPv6");
    assert!(icmp.is_checksum_valid(packet.header().source(), packet.header().destination()));
    assert_eq!((icmp.type_u8(), icmp.bytes5to8()), (ND_ADVERTISE, ND_FLAGS));
    assert_eq!(icmp.payload()[18..24], VIRTUAL_MAC.octets());
}

#[test]
fn detaching_the_route_table_shows_the_system_route() {
    let mut w = world();
    let crossing = ping("10.20.0.4", "10.244.0.7");
    w.vnet
        .set_route_table("agents", None)
        .expect("the subnet is there");
    assert_eq!(
        decide(&w.vnet, w.node_0, &crossing),
        FabricDrop::RouteNone.into()
    );
}

#[test]
fn the_forwarding_flag_alone_opens_the_source_check() {
    let w = world();
    let crossing = addressed(VIRTUAL_MAC, NODE_1, ping("10.244.0.7", "10.20.0.4"));
    assert!(matches!(
        decide(&w.vnet, w.node_1, &crossing),
        Verdict::Deliver { .. }
    ));
    let crossing = ping("10.244.1.6", "10.20.0.35");
    assert_eq!(
        decide(&w.vnet, w.node_0, &crossing),
        FabricDrop::SourceIpSpoofed.into()
    );
}

#[test]
fn rewriting_touches_the_two_addresses_and_nothing_else() {
    let before = ping("10.20.0.31", "10.20.0.43");
    let mut after = before.clone();
    rewrite(&mut after, NODE_1);
    assert_eq!(after[..6], NODE_1.octets());
    assert_eq!(after[6..12], VIRTUAL_MAC.octets());
    assert_eq!(after[12..], before[12..]);
}

/// Bytes that get past the first checks more often than noise would: a known frame, bent.
fn bent() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<_> = all_cases(&world()).into_iter().map(|case| case.2).collect();
    let bends = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (
        prop::sample::select(known),
        bends,
        any::<prop::sample::Index>(),
        any::<bool>(),
    )
        .prop_map(|(mut frame, bends, end, cut)| {
            for (at, value) in bends
                .into_iter()
                .filter(|_| !frame.is_empty())
                .collect::<Vec<_>>()
            {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            if cut && !frame.is_empty() {
                frame.truncate(end.index(frame.len()));
            }
            frame
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the bytes are, there is a verdict; whom it names is there, and what was
    /// delivered came from the sender's own MAC.
    #[test]
    fn any_bytes_get_a_verdict(
        frame in prop_oneof![prop::collection::vec(any::<u8>(), 0..200), bent()],
    ) {
        let w = world();
        match decide(&w.vnet, w.node_0, &frame) {
            Verdict::Deliver { to, target } => {
                prop_assert_eq!(w.vnet.nic(to).map(|nic| nic.spec().mac), Some(target));
                prop_assert_eq!(&frame[6..12], &NODE_0.octets());
            }
            Verdict::Answer(answer) => {
                prop_assert_eq!(&answer[..6], &NODE_0.octets());
                prop_assert_eq!(&answer[6..12], &VIRTUAL_MAC.octets());
            }
            Verdict::Drop(reason) => prop_assert!(FabricDrop::ALL.contains(&reason)),
        }
    }
}
