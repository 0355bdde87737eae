//! Neighbours on memory ports: ND as ARP, conflicts with both parties named, announcements, and
//! addresses that move.
//!
//! In: frames of etherparse and of our own. Out: the whole effect of each, in counters and frames.

use super::*;
use crate::conflict::{Conflict, Party};
use crate::frame::nd::{ALL_NODES, Message, NdView, group_mac, solicited_node};
use crate::tables::Addresses;
use crate::tables::neighbour::state::{DELAY_MS, REACHABLE_MS};
use std::net::{IpAddr, Ipv6Addr};

const GATEWAY_V6: &str = "fd00:244:1::1";
const POD_A_V6: &str = "fd00:244:1::6";
const POD_B_V6: &str = "fd00:244:1::7";
const UPLINK_V6: &str = "fd00:20::4";
const NEXT_V6: &str = "fd00:20::5";

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

/// The kubenet node with both families.
fn dual() -> TablesSpec {
    let mut spec = kubenet();
    let owners = [
        (GATEWAY_V6, HOST, GATEWAY),
        (POD_A_V6, A, POD_A),
        (POD_B_V6, B, POD_B),
    ];
    let owners = owners.map(|(ip, id, mac)| (v6(ip).into(), owner(id, mac)));
    spec.owners.extend(owners);
    let next = NextHop::Neighbour(v6(NEXT_V6).into());
    spec.routes.push((net("fd00:244:2::/64"), next));
    let both = |v4, six| Addresses {
        v4: Some(ip(v4)),
        v6: Some(v6(six)),
    };
    spec.crossing = Crossing::Routed {
        uplink: both("10.20.0.4", UPLINK_V6),
        gateway: both("10.244.1.1", GATEWAY_V6),
    };
    spec
}

fn nd(
    (from, to): (Mac, Mac),
    (source, target): (&str, Ipv6Addr),
    (kind, flags): (u8, u8),
    (about, option): (&str, Option<Mac>),
) -> Vec<u8> {
    let mut message = v6(about).octets().to_vec();
    if let Some(mac) = option {
        message.extend([kind - 134, 1]);
        message.extend(mac.octets());
    }
    let mut out = Vec::new();
    PacketBuilder::ethernet2(from.octets(), to.octets())
        .ipv6(v6(source).octets(), target.octets(), 255)
        .icmpv6_raw(kind, 0, [flags, 0, 0, 0])
        .write(&mut out, &message)
        .expect("writing to a vector cannot fail");
    out
}

/// A question by the group of its target.
fn solicits(from: Mac, source: &str, about: &str) -> Vec<u8> {
    let group = solicited_node(v6(about));
    let option = (source != "::").then_some(from);
    nd(
        (from, group_mac(group)),
        (source, group),
        (135, 0),
        (about, option),
    )
}

fn discovery(bytes: &[u8]) -> (Mac, Mac, NdView) {
    let view = FrameView::parse(bytes).expect("a frame");
    let nd = view.discovery(false).expect("sound");
    (view.target, view.source.mac(), nd)
}

fn ping6(to: &str) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ethernet2(POD_A.octets(), GATEWAY.octets())
        .ipv6(v6(POD_A_V6).octets(), v6(to).octets(), 64)
        .icmpv6_echo_request(7, 1)
        .write(&mut out, &[0; 56])
        .expect("writing to a vector cannot fail");
    out
}

const ANSWERED: Counts = Counts {
    received: 1,
    punted: 1,
    originated: 1,
    transmitted: 1,
    ..ZERO
};

const ZERO: Counts = Counts {
    received: 0,
    originated: 0,
    copied: 0,
    transmitted: 0,
    punted: 0,
    queued: 0,
    dropped: Drops::NONE,
};

#[test]
fn solicitations_by_group_and_to_the_holder_are_answered_at_once() {
    for (about, holder, router) in [(POD_B_V6, POD_B, false), (GATEWAY_V6, GATEWAY, true)] {
        let option = Some(POD_A);
        let to_holder = nd(
            (POD_A, holder),
            (POD_A_V6, v6(about)),
            (135, 0),
            (about, option),
        );
        for question in [solicits(POD_A, POD_A_V6, about), to_holder] {
            let (counts, out) = Rig::new(&dual()).put(A, &question);
            assert_eq!((counts, out.len()), (ANSWERED, 1));
            let (target, source, answer) = discovery(&out[0].1);
            assert_eq!((out[0].0, target, source), (A, POD_A, holder));
            assert_eq!((answer.to, answer.target), (v6(POD_A_V6), v6(about)));
            let told = Message::Advertisement {
                mac: Some(Station::new(holder).expect("a station")),
                router,
                solicited: true,
                overrides: true,
            };
            assert_eq!(answer.message, told);
        }
    }
}

#[test]
fn an_ipv6_next_hop_is_asked_for_heard_used_and_probed() {
    let mut rig = Rig::new(&dual());
    let (counts, out) = rig.put(A, &ping6("fd00:244:2::7"));
    assert_eq!((counts.originated, counts.queued, out[0].0), (1, 1, UPLINK));
    let (target, source, question) = discovery(&out[0].1);
    let group = solicited_node(v6(NEXT_V6));
    assert_eq!((target, source), (group_mac(group), NIC));
    assert_eq!((question.source, question.to), (v6(UPLINK_V6), group));
    assert_eq!(question.target, v6(NEXT_V6));

    let to_us = (NEXT_V6, v6(UPLINK_V6));
    let told = nd((FABRIC, NIC), to_us, (136, 0xe0), (NEXT_V6, Some(FABRIC)));
    let (counts, out) = rig.put(UPLINK, &told);
    assert_eq!(
        (counts.punted, counts.transmitted, counts.queued),
        (1, 1, 0)
    );
    assert_eq!(see(&out[0].1).target, FABRIC);

    rig.now += REACHABLE_MS;
    rig.breathe();
    rig.goes(A, &ping6("fd00:244:2::7"), UPLINK);
    rig.now += DELAY_MS;
    let (_, out) = rig.breathe();
    let (target, _, probe) = discovery(&out[0].1);
    assert_eq!((target, probe.to), (FABRIC, v6(NEXT_V6)), "a unicast probe");
}

#[test]
fn without_an_address_of_the_family_nobody_is_asked_and_the_frame_fails() {
    let mut spec = dual();
    spec.crossing = kubenet().crossing;
    spec.routes
        .retain(|(_, hop)| *hop != NextHop::Neighbour(v6(NEXT_V6).into()));
    let next = NextHop::Neighbour(v6(NEXT_V6).into());
    spec.routes.push((net("fd00:244:2::/64"), next));
    let mut rig = Rig::new(&spec);
    let (counts, out) = rig.put(A, &ping6("fd00:244:2::7"));
    assert_eq!((counts.queued, out.len()), (1, 0));
    let mut dropped = 0;
    for _ in 0..4 {
        rig.now += RETRY_MS;
        dropped += rig.breathe().0.dropped.of(DropReason::NeighbourFailed);
    }
    assert_eq!(dropped, 1);
}

/// The death of a claim, its answer, and the record of both parties.
fn refused(frame: &[u8], address: IpAddr) -> Vec<u8> {
    let mut rig = Rig::new(&dual());
    let (counts, out) = rig.put(A, frame);
    let expected = Counts {
        received: 1,
        originated: 1,
        transmitted: 1,
        dropped: Drops::one(DropReason::AddressConflict),
        ..ZERO
    };
    assert_eq!((counts, out.len(), out[0].0), (expected, 1, A));
    let party = |id, mac| Party {
        port: port(id),
        mac,
    };
    let conflict = Conflict {
        address,
        holder: party(B, POD_B),
        claimer: party(A, POD_A),
        at: Tick(0),
    };
    assert_eq!(rig.worker.conflicts().take(), Some(conflict));
    assert_eq!(rig.worker.conflicts().take(), None);
    out[0].1.clone()
}

#[test]
fn a_claim_of_anothers_ipv4_address_is_refused_and_names_both() {
    let (own, others) = ("10.244.1.6", "10.244.1.7");
    let stolen = arp(Operation::Reply, (POD_A, others), (GATEWAY, own), GATEWAY);
    for claim in [
        asks((POD_A, "0.0.0.0"), others),
        asks((POD_A, others), others),
        asks((POD_A, others), "10.244.1.1"),
        stolen,
    ] {
        let answer = see(&refused(&claim, ip(others).into()));
        let told = arp_of(&answer);
        assert_eq!((answer.target, answer.source.mac()), (POD_A, POD_B));
        assert_eq!((told.sender, told.sender_mac), (ip(others), POD_B));
    }
}

#[test]
fn a_claim_of_anothers_ipv6_address_is_refused_and_names_both() {
    let all = (POD_A, group_mac(ALL_NODES));
    let told = nd(
        all,
        (POD_B_V6, ALL_NODES),
        (136, 0x20),
        (POD_B_V6, Some(POD_A)),
    );
    for claim in [
        solicits(POD_A, "::", POD_B_V6),
        solicits(POD_A, POD_B_V6, GATEWAY_V6),
        told,
    ] {
        let (target, source, answer) = discovery(&refused(&claim, v6(POD_B_V6).into()));
        assert_eq!((target, source, answer.to), (POD_A, POD_B, ALL_NODES));
        assert_eq!(answer.target, v6(POD_B_V6));
    }
}

#[test]
fn malformed_questions_are_named_deaths() {
    let mut sum = solicits(POD_A, POD_A_V6, POD_B_V6);
    sum[57] ^= 1;
    let mut rig = Rig::new(&dual());
    rig.dies(A, &sum, DropReason::MalformedNd);
    let mut cut = asks((POD_A, "10.244.1.6"), "10.244.1.7");
    cut.truncate(HEADER_LEN + 20);
    rig.dies(A, &cut, DropReason::MalformedArp);
    let group = asks((POD_A, "10.244.1.6"), "224.0.0.1");
    rig.dies(A, &group, DropReason::MalformedArp);
}

#[test]
fn an_address_that_moves_is_announced_and_answered_for_at_once() {
    let mut rig = Rig::new(&dual());
    let question = asks((POD_A, "10.244.1.6"), "10.244.1.7");
    let (_, out) = rig.put(A, &question);
    assert_eq!(arp_of(&see(&out[0].1)).sender_mac, POD_B);
    // Pod B is gone; another has its addresses, behind another port.
    let (moved, other) = (4, Mac::new([2, 0, 0, 0, 0, 0xc]));
    let mut spec = dual();
    spec.ports[B] = row(moved, PortRole::Pod, other);
    let held = |holder: &Owner| holder.port == port(B);
    for (_, holder) in spec.owners.iter_mut().filter(|(_, h)| held(h)) {
        *holder = owner(moved, other);
    }
    for (_, hop) in spec.routes.iter_mut() {
        if matches!(hop, NextHop::Station { port: at, .. } if *at == port(B)) {
            *hop = NextHop::Station {
                port: port(moved),
                mac: other,
            };
        }
    }
    drop(rig.worker.detach(port(B)));
    let (end, peer) = pair(64);
    rig.worker.attach(port(moved), end);
    rig.peers.push(peer);
    rig.publisher.publish(Tables::build(&spec).expect("sound"));

    let routed = ping(FABRIC, NIC, "10.244.0.7", "10.244.1.7", 63);
    let (counts, out) = rig.put(UPLINK, &routed);
    // Two addresses, told to the host and to pod A; and the frame, right away.
    assert_eq!(
        (counts.received, counts.originated, counts.transmitted),
        (1, 4, 5)
    );
    let to = |at| out.iter().filter(move |(egress, _)| *egress == at);
    assert_eq!(see(&to(moved).next().expect("the frame").1).target, other);
    for at in [HOST, A] {
        let told: Vec<Seen> = to(at).map(|(_, bytes)| see(bytes)).collect();
        assert_eq!(told.len(), 2);
        assert!(told.iter().all(|told| told.source.mac() == other));
        let arp = told
            .iter()
            .find(|t| t.target == Mac::BROADCAST)
            .expect("ARP");
        assert!(arp_of(arp).is_announcement());
        assert_eq!(arp_of(arp).sender, ip("10.244.1.7"));
        let (_, bytes) = to(at).find(|(_, b)| b[0] == 0x33).expect("ND");
        let (_, _, nd) = discovery(bytes);
        assert_eq!((nd.target, nd.to), (v6(POD_B_V6), ALL_NODES));
    }
    let (_, out) = rig.put(A, &question);
    assert_eq!(
        arp_of(&see(&out[0].1)).sender_mac,
        other,
        "and asked, the new one"
    );
}

#[test]
fn many_new_holders_are_announced_a_burst_at_a_time_and_each_once() {
    let mut rig = Rig::new(&dual());
    let mut spec = dual();
    for last in 100..200 {
        let address = Ipv4Addr::new(10, 244, 1, last);
        spec.owners.push((address.into(), owner(B, POD_B)));
    }
    rig.publisher.publish(Tables::build(&spec).expect("sound"));
    let mut made = 0;
    for _ in 0..20 {
        let (counts, _) = rig.breathe();
        assert!(counts.originated <= 32);
        made += counts.originated;
    }
    assert_eq!(made, 200, "a hundred addresses, to the host and to pod A");
}

#[test]
fn a_next_hop_that_becomes_a_pod_gets_what_waited_for_it() {
    let mut rig = Rig::new(&dual());
    let frame = ping(POD_A, GATEWAY, "10.244.1.6", "10.244.0.7", 64);
    assert_eq!(rig.put(A, &frame).0.queued, 1);
    let mut spec = dual();
    spec.owners.push((ip("10.20.0.5").into(), owner(B, POD_B)));
    spec.routes
        .retain(|(prefix, _)| *prefix != net("10.244.0.0/24"));
    let to_b = NextHop::Station {
        port: port(B),
        mac: POD_B,
    };
    spec.routes.push((net("10.244.0.0/24"), to_b));
    rig.publisher.publish(Tables::build(&spec).expect("sound"));
    let (counts, out) = rig.breathe();
    assert_eq!((counts.queued, rig.worker.neighbours.is_empty()), (0, true));
    assert!(
        out.iter()
            .any(|(at, bytes)| *at == B && see(bytes).target == POD_B)
    );
}
