//! Guards on memory ports: what a pod may not send, what it may, and what is only observed.
//!
//! In: frames of pods with all guards on. Out: the whole effect of each, in counters and frames.

use super::*;
use crate::tables::guard::{Mode, PortGuard};

/// All guards of pods and host, in one mode.
pub(super) fn guarded(mut spec: TablesSpec, mode: Mode) -> TablesSpec {
    spec.guards = vec![
        (port(HOST), PortGuard::host(mode)),
        (port(A), PortGuard::pod(mode)),
        (port(B), PortGuard::pod(mode)),
    ];
    spec
}

/// kubenet, where both pods have an IPv6 address, too.
fn dual() -> TablesSpec {
    let mut spec = kubenet();
    for (address, id, mac) in [("fd00::6", A, POD_A), ("fd00::7", B, POD_B)] {
        let address: std::net::Ipv6Addr = address.parse().expect("an address");
        spec.owners.push((address.into(), owner(id, mac)));
    }
    spec
}

fn udp6(from: Mac, to: Mac, source: &str, target: &str) -> Vec<u8> {
    errors::udp((from, to), source, target, 64, 9)
}

/// An ICMPv6 message of this type, behind `headers` if there are any.
fn icmp6(source: &str, target: &str, kind: u8, about: &str, headers: &[u8]) -> Vec<u8> {
    let octets = |text: &str| {
        let address: std::net::Ipv6Addr = text.parse().expect("an address");
        address.octets()
    };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(POD_A.octets(), [0x33, 0x33, 0, 0, 0, 1])
        .ipv6(octets(source), octets(target), 255)
        .icmpv6_raw(kind, 0, [0x20, 0, 0, 0])
        .write(&mut frame, &octets(about))
        .expect("writing to a vector cannot fail");
    if let Some((first, rest)) = headers.split_first() {
        frame[20] = *first;
        frame[19] += rest.len() as u8;
        frame.splice(54..54, rest.iter().copied());
    }
    frame
}

/// The frame behind `count` tags of VLAN 0.
fn tagged(frame: &[u8], count: usize) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    for _ in 0..count {
        out.extend([0x81, 0, 0, 0]);
    }
    out.extend(&frame[12..]);
    out
}

#[test]
fn a_pod_speaks_from_its_own_station_and_address() {
    for (spec, from, to, nobody) in [
        (azure(), "10.20.0.31", "10.20.0.32", "10.20.0.77"),
        (kubenet(), "10.244.1.6", "10.244.1.7", "10.244.1.77"),
    ] {
        let spec = guarded(spec, Mode::Enforce);
        let mut rig = Rig::new(&spec);
        rig.goes(A, &ping(POD_A, POD_B, from, to, 64), B);
        let router = spec.router_macs[0];
        rig.goes(A, &ping(POD_A, router, from, "8.8.8.8", 64), HOST);
        let cases = [
            (STRANGER, from, DropReason::SpoofedMac),
            (POD_B, from, DropReason::StationElsewhere),
            (NIC, from, DropReason::StationElsewhere),
            (POD_A, to, DropReason::SpoofedIp),
            (POD_A, nobody, DropReason::SpoofedIp),
            (POD_A, "8.8.8.8", DropReason::SpoofedIp),
            (POD_A, "0.0.0.0", DropReason::SpoofedIp),
        ];
        for (mac, source, reason) in cases {
            let frame = ping(mac, POD_B, source, to, 64);
            rig.dies(A, &frame, reason);
            rig.dies(A, &tagged(&frame, 1), reason);
            rig.dies(A, &tagged(&frame, 2), reason);
        }
        let hidden = tagged(&ping(POD_A, POD_B, from, to, 64), 3);
        rig.dies(A, &hidden, DropReason::HiddenByTags);
        let fine = tagged(&ping(POD_A, POD_B, from, to, 64), 2);
        assert_eq!(rig.put(A, &fine).1, [(B, fine)]);
        assert_eq!(rig.worker.fdb().entries().count(), 0, "none has taught");
    }
}

#[test]
fn whoever_has_no_address_yet_asks_all_for_one() {
    let mut rig = Rig::new(&guarded(kubenet(), Mode::Enforce));
    let discover = ping(POD_A, Mac::BROADCAST, "0.0.0.0", "255.255.255.255", 64);
    let (counts, out) = rig.put(A, &discover);
    assert_eq!(counts.dropped, Drops::NONE);
    assert_eq!(out, [(HOST, discover.clone()), (B, discover)]);
}

#[test]
fn arp_speaks_of_the_pod_that_sent_it() {
    let mut rig = Rig::new(&guarded(kubenet(), Mode::Enforce));
    let own = (POD_A, "10.244.1.6");
    let (counts, _) = rig.put(A, &asks(own, "10.244.1.7"));
    assert_eq!((counts.punted, counts.originated), (1, 1), "answered");
    let probe = asks((POD_A, "0.0.0.0"), "10.244.1.66");
    assert_eq!(rig.put(A, &probe).0.dropped, Drops::NONE);
    let mut inside = asks(own, "10.244.1.7");
    inside[22..28].copy_from_slice(&STRANGER.octets());
    let reply = |sender| arp(Operation::Reply, sender, (POD_B, "10.244.1.7"), POD_B);
    for frame in [
        asks((POD_A, "10.244.1.66"), "10.244.1.7"),
        asks((POD_A, "10.244.1.66"), "10.244.1.66"),
        reply((POD_A, "10.20.0.1")),
        inside,
    ] {
        rig.dies(A, &frame, DropReason::SpoofedArp);
        rig.dies(A, &tagged(&frame, 1), DropReason::SpoofedArp);
    }
    let stranger = asks((STRANGER, "10.244.1.6"), "10.244.1.7");
    rig.dies(A, &stranger, DropReason::SpoofedMac);
    // The gateway's is somebody's: its holder is defended, as without guards.
    let (counts, _) = rig.put(A, &asks((POD_A, "10.244.1.1"), "10.244.1.1"));
    assert_eq!(counts.dropped, Drops::one(DropReason::AddressConflict));
}

#[test]
fn ipv6_has_the_same_guards_and_link_local_addresses_of_ones_own() {
    let mut rig = Rig::new(&guarded(dual(), Mode::Enforce));
    let own_link_local = "fe80::ff:fe00:a";
    for source in ["fd00::6", own_link_local, "fe80::1234:5678:9abc:def0"] {
        let frame = udp6(POD_A, POD_B, source, "fd00::7");
        assert_eq!(rig.put(A, &frame).1, [(B, frame)], "{source}");
    }
    // Those of pod B and of the gateway, made from their hardware addresses.
    for source in [
        "fd00::7",
        "fd00::9",
        "::",
        "fe80::ff:fe00:b",
        "fe80::858:aff:fef4:101",
    ] {
        rig.dies(
            A,
            &udp6(POD_A, POD_B, source, "fd00::7"),
            DropReason::SpoofedIp,
        );
    }
    let advertises = |about: &str, headers: &[u8]| icmp6("fd00::6", "ff02::1", 136, about, headers);
    assert_eq!(
        rig.put(A, &advertises("fd00::6", &[])).0.dropped,
        Drops::NONE
    );
    rig.dies(A, &advertises("fd00::9", &[]), DropReason::SpoofedNd);
    rig.dies(
        A,
        &advertises("fe80::ff:fe00:b", &[]),
        DropReason::SpoofedNd,
    );
    // A claim that hides behind an option is not read, so it dies even if it were true.
    let padding = [0, 58, 0, 1, 4, 0, 0, 0, 0];
    rig.dies(A, &advertises("fd00::6", &padding), DropReason::SpoofedNd);
    let report = icmp6(own_link_local, "ff02::16", 143, "::", &padding);
    assert_eq!(rig.put(A, &report).0.dropped, Drops::NONE, "MLD does so");
}

#[test]
fn no_checksum_is_put_over_an_address_behind_a_tag() {
    let mut rig = Rig::new(&guarded(dual(), Mode::Enforce));
    let frame = tagged(&udp6(POD_A, POD_B, "fd00::6", "fd00::7"), 1);
    let undone = |csum_start| Offload {
        flags: NEEDS_CSUM,
        csum_start,
        csum_offset: 6,
        ..Offload::NONE
    };
    let (counts, _) = rig.put_with(A, &frame, undone(57));
    assert_eq!(counts.dropped, Drops::one(DropReason::BadOffload));
    let (counts, _) = rig.put_with(A, &frame, undone(58));
    assert_eq!((counts.dropped, counts.transmitted), (Drops::NONE, 1));
}

#[test]
fn a_pod_is_no_router() {
    let mut rig = Rig::new(&guarded(dual(), Mode::Enforce));
    let own = "fe80::ff:fe00:a";
    let padding = [0, 58, 0, 1, 4, 0, 0, 0, 0];
    let first_fragment = [44, 58, 0, 0, 1, 0, 0, 0, 1];
    let nine: Vec<u8> = std::iter::once(60)
        .chain([60, 0, 1, 4, 0, 0, 0, 0].repeat(8))
        .chain([58, 0, 1, 4, 0, 0, 0, 0])
        .collect();
    for kind in [134, 137] {
        for headers in [&[][..], &padding, &first_fragment, &nine] {
            let frame = icmp6(own, "ff02::1", kind, "fd00::", headers);
            rig.dies(A, &frame, DropReason::RogueRouter);
            rig.dies(A, &tagged(&frame, 1), DropReason::RogueRouter);
        }
    }
    let asks_for_routers = icmp6(own, "ff02::2", 133, "::", &[]);
    assert_eq!(rig.put(A, &asks_for_routers).0.dropped, Drops::NONE);
    // The node's kernel may be one.
    let mut advertises = icmp6(own, "ff02::1", 134, "fd00::", &[]);
    advertises[6..12].copy_from_slice(&GATEWAY.octets());
    assert_eq!(rig.put(HOST, &advertises).1.len(), 2);
}

#[test]
fn the_host_speaks_for_everybody_but_from_nobodys_station() {
    let mut rig = Rig::new(&guarded(kubenet(), Mode::Enforce));
    rig.goes(HOST, &ping(GATEWAY, POD_B, "8.8.8.8", "10.244.1.7", 64), B);
    rig.goes(HOST, &ping(STRANGER, POD_B, "8.8.8.8", "10.244.1.7", 64), B);
    let circle = ping(POD_A, POD_B, "10.244.1.6", "10.244.1.7", 64);
    rig.dies(HOST, &circle, DropReason::StationElsewhere);
}

#[test]
fn what_is_observed_goes_on_and_is_counted_beside_the_law() {
    let frames = [
        ping(STRANGER, POD_B, "10.244.1.66", "10.244.1.7", 64),
        ping(POD_B, POD_B, "10.244.1.6", "10.244.1.7", 64),
        asks((POD_A, "10.244.1.66"), "10.244.1.7"),
    ];
    let mut unguarded = Rig::new(&kubenet());
    let mut observed = Rig::new(&guarded(kubenet(), Mode::Observe));
    for frame in &frames {
        assert_eq!(observed.put(A, frame), unguarded.put(A, frame));
    }
    let board = observed.worker.board();
    let seen: Vec<_> = board.observed().iter().collect();
    let expected = [
        (DropReason::SpoofedMac, 1),
        (DropReason::StationElsewhere, 1),
        (DropReason::SpoofedIp, 1),
        (DropReason::SpoofedArp, 1),
    ];
    assert_eq!(seen, expected);
    assert_eq!(board.port(port(A)).observed, board.observed());
    assert_eq!(board.port(port(B)).observed, Drops::NONE);
    let quiet = unguarded.worker.board().observed();
    assert_eq!(quiet, Drops::NONE);
}

#[test]
fn a_port_may_be_given_more_stations_and_addresses() {
    let mut spec = guarded(kubenet(), Mode::Enforce);
    let more = &mut spec.guards[1].1;
    more.more_stations = vec![Station::new(STRANGER).expect("a station")];
    more.more_addresses = vec![net("192.168.7.0/24"), net("fd77::/64")];
    let mut rig = Rig::new(&spec);
    for mac in [POD_A, STRANGER] {
        for source in ["10.244.1.6", "192.168.7.9"] {
            rig.goes(A, &ping(mac, POD_B, source, "10.244.1.7", 64), B);
        }
        rig.dies(
            A,
            &ping(mac, POD_B, "192.168.8.9", "10.244.1.7", 64),
            DropReason::SpoofedIp,
        );
    }
    let (counts, _) = rig.put(A, &asks((STRANGER, "192.168.7.9"), "10.244.1.7"));
    assert_eq!(counts.punted, 1);
    // It is configured there: found without being learned, and not let in elsewhere.
    rig.goes(
        B,
        &ping(POD_B, STRANGER, "10.244.1.7", "192.168.7.9", 64),
        A,
    );
    let elsewhere = ping(STRANGER, POD_A, "10.244.1.7", "10.244.1.6", 64);
    rig.dies(B, &elsewhere, DropReason::StationElsewhere);
}

/// Both pods without a guard of stations, so that others are learned behind them.
fn learning() -> TablesSpec {
    let mut spec = guarded(kubenet(), Mode::Enforce);
    for (_, guard) in &mut spec.guards {
        guard.stations = Mode::Off;
        guard.addresses = Mode::Off;
    }
    spec
}

#[test]
fn whoever_becomes_a_further_station_is_not_learned_any_more() {
    let mut spec = learning();
    let mut rig = Rig::new(&spec);
    rig.put(A, &ping(STRANGER, POD_B, "10.244.1.66", "10.244.1.7", 64));
    assert_eq!(rig.worker.fdb().count(port(A)), 1);
    spec.guards[1].1.more_stations = vec![Station::new(STRANGER).expect("a station")];
    rig.publisher.publish(Tables::build(&spec).expect("sound"));
    rig.worker.breathe(Tick(1));
    assert_eq!(rig.worker.fdb().count(port(A)), 0, "a place of its quota");
}

#[test]
fn a_station_that_flaps_stays_where_it_was_and_its_other_self_dies() {
    let mut rig = Rig::new(&learning());
    let stranger = |to| ping(STRANGER, to, "10.244.1.66", "10.244.1.7", 64);
    let mut deaths = 0;
    for turn in 0..12 {
        let (at, to) = [(A, POD_B), (B, POD_A)][turn % 2];
        let (counts, _) = rig.put(at, &stranger(to));
        deaths += counts.dropped.of(DropReason::Flapping);
    }
    // Five moves, and by the sixth, at A, it is held at B.
    assert_eq!(deaths, 3);
    assert_eq!(rig.worker.fdb().find(STRANGER), Some(port(B)));
    rig.goes(B, &stranger(POD_A), A);
    rig.dies(A, &stranger(POD_B), DropReason::Flapping);
    rig.now = 10_000;
    rig.goes(A, &stranger(POD_B), B);
}

#[test]
fn quotas_storms_and_flaps_are_observed_as_well() {
    let mut spec = learning();
    for (_, guard) in &mut spec.guards {
        *guard = PortGuard {
            flaps: Mode::Observe,
            quota: Mode::Observe,
            learned_max: 1,
            storms: Mode::Observe,
            ..PortGuard::default()
        };
        guard.rates.unknown = crate::bucket::Rate::per_second(1);
    }
    let mut rig = Rig::new(&spec);
    let from = |last| Mac::new([2, 0, 0, 0, 7, last]);
    for last in 0..3 {
        rig.put(A, &ping(from(last), POD_B, "10.244.1.66", "10.244.1.7", 64));
        rig.put(A, &ping(POD_A, STRANGER, "10.244.1.6", "10.244.1.66", 64));
    }
    for turn in 0..8 {
        let (at, to) = [(B, POD_A), (A, POD_B)][turn % 2];
        rig.put(at, &ping(from(0), to, "10.244.1.66", "10.244.1.7", 64));
    }
    let board = rig.worker.board();
    let observed = board.observed();
    assert_eq!(observed.of(DropReason::UnknownStorm), 2);
    assert_eq!(observed.of(DropReason::Flapping), 3);
    assert!(observed.of(DropReason::StationQuota) >= 2, "{observed:?}");
    assert_eq!(board.counts().dropped.of(DropReason::StationQuota), 0);
    assert_eq!(
        rig.worker.fdb().find(from(2)),
        Some(port(A)),
        "learned all the same"
    );
}
