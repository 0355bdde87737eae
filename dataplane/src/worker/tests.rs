//! The worker on memory ports: each test states the whole effect of a frame, in counters and in
//! what every port got.

use super::*;
use crate::addr::{Mac, Station};
use crate::frame::Network;
use crate::frame::arp::{self, ArpView, Operation};
use crate::frame::ethernet::{self, HEADER_LEN};
use crate::frame::offload::{GSO_TCPV4, NEEDS_CSUM, Offload};
use crate::frame::transport::Transport;
use crate::port::memory::{MemoryPort, Peer, pair};
use crate::snapshot::Publisher;
use crate::stats::{Counts, Drops};
use crate::tables::fib::NextHop;
use crate::tables::neighbour::state::RETRY_MS;
use crate::tables::{Addresses, Crossing, Owner, Policy, PortRole, PortSpec, TablesSpec, Unknown};
use etherparse::PacketBuilder;
use std::net::Ipv4Addr;

mod anew;
mod bursts;
mod errors;
mod finish;
mod fragments;
mod guards;
mod hands;
mod isolated;
mod law;
mod legacy;
mod neighbours;
mod returns;
mod router;
mod show;
mod turns;

const FABRIC: Mac = Mac::new([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);
const NIC: Mac = Mac::new([0, 0x0d, 0x3a, 0x21, 0xaf, 0x12]);
const GATEWAY: Mac = Mac::new([0x0a, 0x58, 0x0a, 0xf4, 1, 1]);
const POD_A: Mac = Mac::new([2, 0, 0, 0, 0, 0xa]);
const POD_B: Mac = Mac::new([2, 0, 0, 0, 0, 0xb]);
const STRANGER: Mac = Mac::new([2, 0, 0, 0, 9, 9]);

const HOST: usize = 0;
const UPLINK: usize = 1;
const A: usize = 2;
const B: usize = 3;

fn port(id: usize) -> PortId {
    PortId::new(id).expect("in range")
}

fn row(id: usize, role: PortRole, mac: Mac) -> PortSpec {
    let mac = Station::new(mac).expect("a station");
    PortSpec {
        id: port(id),
        role,
        mac,
        mtu: 1500,
        hairpin: false,
        isolated: false,
    }
}

fn owner(id: usize, mac: Mac) -> Owner {
    Owner {
        port: port(id),
        mac,
    }
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().expect("a prefix")
}

/// The seed's node-0 under the azure plugin, with pod-a and pod-b.
fn azure() -> TablesSpec {
    let station = |id, mac| NextHop::Station {
        port: port(id),
        mac,
    };
    TablesSpec {
        ports: vec![
            row(HOST, PortRole::Host, NIC),
            row(UPLINK, PortRole::Uplink, NIC),
            row(A, PortRole::Pod, POD_A),
            row(B, PortRole::Pod, POD_B),
        ],
        owners: vec![
            (ip("10.20.0.4").into(), owner(HOST, NIC)),
            (ip("10.20.0.31").into(), owner(A, POD_A)),
            (ip("10.20.0.32").into(), owner(B, POD_B)),
        ],
        router_macs: vec![FABRIC, NIC],
        routes: vec![
            (net("10.20.0.4/32"), NextHop::Host),
            (net("10.20.0.31/32"), station(A, POD_A)),
            (net("10.20.0.32/32"), station(B, POD_B)),
            (net("10.20.0.0/24"), station(UPLINK, FABRIC)),
            (net("10.10.0.0/24"), station(UPLINK, FABRIC)),
            (net("10.0.0.0/16"), NextHop::Host),
            (net("0.0.0.0/0"), NextHop::Host),
        ],
        groups: Vec::new(),
        crossing: Crossing::Bridged,
        policy: Policy::None,
        unknown: Unknown::Drop,
        guards: Vec::new(),
    }
}

/// The seed's node-0 under kubenet, with pod-a and pod-b.
fn kubenet() -> TablesSpec {
    let station = |id, mac| NextHop::Station {
        port: port(id),
        mac,
    };
    TablesSpec {
        ports: vec![
            row(HOST, PortRole::Host, GATEWAY),
            row(UPLINK, PortRole::Uplink, NIC),
            row(A, PortRole::Pod, POD_A),
            row(B, PortRole::Pod, POD_B),
        ],
        owners: vec![
            (ip("10.244.1.1").into(), owner(HOST, GATEWAY)),
            (ip("10.244.1.6").into(), owner(A, POD_A)),
            (ip("10.244.1.7").into(), owner(B, POD_B)),
        ],
        router_macs: vec![GATEWAY],
        routes: vec![
            (net("10.244.1.6/32"), station(A, POD_A)),
            (net("10.244.1.7/32"), station(B, POD_B)),
            (net("10.244.1.1/32"), NextHop::Host),
            (net("10.244.1.0/24"), NextHop::Unreachable),
            (
                net("10.244.0.0/24"),
                NextHop::Neighbour(ip("10.20.0.5").into()),
            ),
            (net("0.0.0.0/0"), NextHop::Host),
        ],
        groups: Vec::new(),
        crossing: Crossing::Routed {
            uplink: ip("10.20.0.4").into(),
            gateway: ip("10.244.1.1").into(),
        },
        policy: Policy::None,
        unknown: Unknown::Flood,
        guards: Vec::new(),
    }
}

/// A switch with four memory ports, and the other end of each.
struct Rig<P = MemoryPort> {
    worker: Worker<P>,
    peers: Vec<Peer>,
    now: u64,
    publisher: Publisher<Tables>,
}

/// What a delivered frame is.
struct Seen {
    target: Mac,
    source: Station,
    network: Network,
}

fn see(bytes: &[u8]) -> Seen {
    let view = FrameView::parse(bytes).expect("sound");
    Seen {
        target: view.target,
        source: view.source,
        network: view.network(),
    }
}

type Delivery = (usize, Vec<u8>);

impl Rig {
    fn new(spec: &TablesSpec) -> Rig {
        Rig::with(spec, |_, end| end)
    }
}

impl<P: Port> Rig<P> {
    fn with(spec: &TablesSpec, port: impl Fn(PortId, MemoryPort) -> P) -> Rig<P> {
        let publisher = Publisher::new(Tables::build(spec).expect("sound"));
        let fdb = Arc::new(Fdb::new(64, 1));
        let mut worker = Worker::new(publisher.reader(), fdb, FRAME_MAX);
        let mut peers = Vec::new();
        for row in &spec.ports {
            let (end, peer) = pair(256);
            worker.attach(row.id, port(row.id, end));
            peers.push(peer);
        }
        Rig {
            worker,
            peers,
            now: 0,
            publisher,
        }
    }

    /// One frame in, one breath, and all that came of it.
    fn put(&mut self, at: usize, frame: &[u8]) -> (Counts, Vec<Delivery>) {
        self.put_with(at, frame, Offload::NONE)
    }

    fn put_with(&mut self, at: usize, frame: &[u8], offload: Offload) -> (Counts, Vec<Delivery>) {
        self.peers[at].send_with(frame, offload).expect("room");
        self.breathe()
    }

    fn breathe(&mut self) -> (Counts, Vec<Delivery>) {
        let before = self.worker.board().counts();
        self.worker.wake_all();
        self.worker.breathe(Tick(self.now));
        let counts = self.worker.board().counts().since(&before);
        let mut out = Vec::new();
        for (at, peer) in self.peers.iter().enumerate() {
            while let Some(frame) = peer.receive() {
                out.push((at, frame.bytes));
            }
        }
        (counts, out)
    }

    /// A frame that is only dropped, for one reason.
    fn dies(&mut self, at: usize, frame: &[u8], reason: DropReason) {
        let (counts, out) = self.put(at, frame);
        let dropped = Drops::one(reason);
        assert_eq!(
            counts,
            Counts {
                received: 1,
                dropped,
                ..Counts::default()
            }
        );
        assert_eq!(out, []);
    }

    /// A frame that leaves by one port, and what it looks like there.
    fn goes(&mut self, at: usize, frame: &[u8], egress: usize) -> Seen {
        let (counts, out) = self.put(at, frame);
        assert_eq!(
            counts,
            Counts {
                received: 1,
                transmitted: 1,
                ..Counts::default()
            }
        );
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].0, egress);
        see(&out[0].1)
    }
}

fn ping(source: Mac, target: Mac, from: &str, to: &str, ttl: u8) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ethernet2(source.octets(), target.octets())
        .ipv4(ip(from).octets(), ip(to).octets(), ttl)
        .icmpv4_echo_request(7, 1)
        .write(&mut out, &[0; 56])
        .expect("writing to a vector cannot fail");
    out
}

fn arp(operation: Operation, sender: (Mac, &str), target: (Mac, &str), to: Mac) -> Vec<u8> {
    let packet = ArpView {
        operation,
        sender_mac: sender.0,
        sender: ip(sender.1),
        target_mac: target.0,
        target: ip(target.1),
    };
    let mut frame = vec![0; HEADER_LEN + arp::LEN];
    ethernet::set_target(&mut frame, to);
    ethernet::set_source(&mut frame, sender.0);
    frame[12..14].copy_from_slice(&ethernet::ARP.to_be_bytes());
    packet.write(&mut frame[HEADER_LEN..]);
    frame
}

fn asks(who: (Mac, &str), target: &str) -> Vec<u8> {
    arp(Operation::Request, who, (Mac::ZERO, target), Mac::BROADCAST)
}

fn ttl(view: &Seen) -> u8 {
    match view.network {
        Network::Ipv4(packet) => packet.ttl,
        other => panic!("not IPv4: {other:?}"),
    }
}

fn arp_of(view: &Seen) -> ArpView {
    match view.network {
        Network::Arp(packet) => packet,
        other => panic!("not ARP: {other:?}"),
    }
}

#[test]
fn two_pods_of_a_node_are_bridged_in_both_modes() {
    for (spec, from, to) in [
        (azure(), "10.20.0.31", "10.20.0.32"),
        (kubenet(), "10.244.1.6", "10.244.1.7"),
    ] {
        let seen = Rig::new(&spec).goes(A, &ping(POD_A, POD_B, from, to, 64), B);
        assert_eq!(
            (seen.source.mac(), seen.target, ttl(&seen)),
            (POD_A, POD_B, 64)
        );
    }
}

#[test]
fn azure_leaves_by_the_uplink_with_the_nics_address_and_the_ttl_untouched() {
    let mut rig = Rig::new(&azure());
    for to in ["10.20.0.43", "10.10.0.5"] {
        let seen = rig.goes(A, &ping(POD_A, FABRIC, "10.20.0.31", to, 64), UPLINK);
        assert_eq!(
            (seen.source.mac(), seen.target, ttl(&seen)),
            (NIC, FABRIC, 64)
        );
    }
}

#[test]
fn azure_tells_pods_apart_by_address_on_the_way_in() {
    let seen = Rig::new(&azure()).goes(
        UPLINK,
        &ping(FABRIC, NIC, "10.20.0.43", "10.20.0.32", 64),
        B,
    );
    assert_eq!(
        (seen.source.mac(), seen.target, ttl(&seen)),
        (FABRIC, POD_B, 64)
    );
}

#[test]
fn azure_answers_for_pods_and_node_and_asks_the_fabric_for_the_rest() {
    let mut rig = Rig::new(&azure());
    for (asker, target, holder) in [
        ((A, POD_A, "10.20.0.31"), "10.20.0.32", POD_B),
        ((A, POD_A, "10.20.0.31"), "10.20.0.4", NIC),
        ((HOST, NIC, "10.20.0.4"), "10.20.0.31", POD_A),
    ] {
        let (counts, out) = rig.put(asker.0, &asks((asker.1, asker.2), target));
        let one = Counts {
            received: 1,
            punted: 1,
            originated: 1,
            transmitted: 1,
            ..Counts::default()
        };
        assert_eq!(counts, one);
        assert_eq!(out[0].0, asker.0);
        let answer = see(&out[0].1);
        assert_eq!((answer.source.mac(), answer.target), (holder, asker.1));
        assert_eq!(
            arp_of(&answer),
            ArpView {
                operation: Operation::Reply,
                sender_mac: holder,
                sender: ip(target),
                target_mac: asker.1,
                target: ip(asker.2),
            }
        );
    }
    for target in ["10.20.0.1", "10.20.0.43"] {
        let seen = rig.goes(A, &asks((POD_A, "10.20.0.31"), target), UPLINK);
        assert_eq!((seen.source.mac(), arp_of(&seen).sender_mac), (NIC, NIC));
        assert_eq!(arp_of(&seen).sender, ip("10.20.0.31"));
    }
}

#[test]
fn azure_hands_a_reply_to_the_pod_that_asked() {
    let reply = arp(
        Operation::Reply,
        (FABRIC, "10.20.0.43"),
        (NIC, "10.20.0.31"),
        NIC,
    );
    let seen = Rig::new(&azure()).goes(UPLINK, &reply, A);
    assert_eq!((seen.target, arp_of(&seen).target_mac), (POD_A, POD_A));
    let nobody = arp(
        Operation::Reply,
        (FABRIC, "10.20.0.43"),
        (NIC, "10.20.0.77"),
        NIC,
    );
    Rig::new(&azure()).dies(UPLINK, &nobody, DropReason::UplinkNotOurs);
}

#[test]
fn services_and_strangers_go_to_the_kernel() {
    let mut rig = Rig::new(&azure());
    for to in [
        "10.0.0.10",
        "93.184.216.34",
        "168.63.129.16",
        "169.254.169.254",
    ] {
        let seen = rig.goes(A, &ping(POD_A, FABRIC, "10.20.0.31", to, 64), HOST);
        assert_eq!((seen.target, ttl(&seen)), (NIC, 64), "{to}");
    }
    let seen = Rig::new(&kubenet()).goes(
        A,
        &ping(POD_A, GATEWAY, "10.244.1.6", "10.10.0.5", 64),
        HOST,
    );
    assert_eq!(
        (seen.target, ttl(&seen)),
        (GATEWAY, 64),
        "the kernel takes its own hop"
    );
}

#[test]
fn nothing_that_came_by_the_uplink_leaves_by_it() {
    let stray = ping(FABRIC, NIC, "10.10.0.5", "10.20.0.77", 64);
    Rig::new(&azure()).dies(UPLINK, &stray, DropReason::UplinkReflected);
    let stray = ping(FABRIC, NIC, "10.20.0.5", "10.244.0.9", 64);
    Rig::new(&kubenet()).dies(UPLINK, &stray, DropReason::UplinkReflected);
}

#[test]
fn kubenet_asks_for_the_next_hop_holds_the_frame_and_then_routes_it() {
    let mut rig = Rig::new(&kubenet());
    let (counts, out) = rig.put(A, &ping(POD_A, GATEWAY, "10.244.1.6", "10.244.0.7", 64));
    let held = Counts {
        received: 1,
        originated: 1,
        transmitted: 1,
        queued: 1,
        ..Counts::default()
    };
    assert_eq!(counts, held);
    assert_eq!(out[0].0, UPLINK);
    let question = see(&out[0].1);
    assert_eq!(
        (question.source.mac(), question.target),
        (NIC, Mac::BROADCAST)
    );
    let asked = arp_of(&question);
    assert_eq!(
        (asked.sender, asked.target),
        (ip("10.20.0.4"), ip("10.20.0.5"))
    );

    let reply = arp(
        Operation::Reply,
        (FABRIC, "10.20.0.5"),
        (NIC, "10.20.0.4"),
        NIC,
    );
    let (counts, out) = rig.put(UPLINK, &reply);
    // The reply is consumed, and the frame that waited leaves: it was received before.
    assert_eq!(
        counts,
        Counts {
            received: 1,
            punted: 1,
            transmitted: 1,
            ..Counts::default()
        }
    );
    let seen = see(&out[0].1);
    assert_eq!(
        (out[0].0, seen.source.mac(), seen.target, ttl(&seen)),
        (UPLINK, NIC, FABRIC, 63)
    );

    let seen = rig.goes(
        A,
        &ping(POD_A, GATEWAY, "10.244.1.6", "10.244.0.7", 64),
        UPLINK,
    );
    assert_eq!((seen.target, ttl(&seen)), (FABRIC, 63), "known from now on");
}

#[test]
fn a_reply_that_one_worker_gets_frees_the_frame_that_another_holds() {
    let mut rigs = [Rig::new(&kubenet()), Rig::new(&kubenet())];
    for (rig, gossip) in rigs.iter_mut().zip(Gossip::circle(2)) {
        rig.worker.join(gossip);
    }
    let frame = ping(POD_A, GATEWAY, "10.244.1.6", "10.244.0.7", 64);
    assert_eq!(rigs[0].put(A, &frame).0.queued, 1);
    let reply = arp(
        Operation::Reply,
        (FABRIC, "10.20.0.5"),
        (NIC, "10.20.0.4"),
        NIC,
    );
    let (counts, _) = rigs[1].put(UPLINK, &reply);
    assert_eq!(
        counts,
        Counts {
            received: 1,
            punted: 1,
            ..Counts::default()
        }
    );
    let (counts, out) = rigs[0].breathe();
    assert_eq!(
        counts,
        Counts {
            transmitted: 1,
            ..Counts::default()
        }
    );
    assert_eq!(out[0].0, UPLINK);
}

#[test]
fn kubenet_routes_what_comes_in_by_the_uplink_to_the_pod() {
    let seen = Rig::new(&kubenet()).goes(
        UPLINK,
        &ping(FABRIC, NIC, "10.244.0.7", "10.244.1.6", 63),
        A,
    );
    assert_eq!(
        (seen.source.mac(), seen.target, ttl(&seen)),
        (GATEWAY, POD_A, 62)
    );
}

#[test]
fn a_silent_next_hop_fails_the_frame_and_the_sender_is_told() {
    let mut rig = Rig::new(&kubenet());
    rig.put(A, &ping(POD_A, GATEWAY, "10.244.1.6", "10.244.0.7", 64));
    for _ in 0..2 {
        rig.now += RETRY_MS;
        let (counts, out) = rig.breathe();
        assert_eq!(
            counts,
            Counts {
                originated: 1,
                transmitted: 1,
                queued: 1,
                ..Counts::default()
            }
        );
        assert_eq!(out[0].0, UPLINK);
    }
    rig.now += RETRY_MS;
    let (counts, out) = rig.breathe();
    let dropped = Drops::one(DropReason::NeighbourFailed);
    assert_eq!(
        counts,
        Counts {
            originated: 1,
            transmitted: 1,
            dropped,
            ..Counts::default()
        }
    );
    let told = see(&out[0].1);
    let Network::Ipv4(packet) = told.network else {
        panic!("not IPv4")
    };
    assert_eq!((out[0].0, packet.source), (A, ip("10.244.1.1")));
    assert_eq!(packet.transport, Transport::Icmp { kind: 3, code: 1 });
}

#[test]
fn a_router_tells_the_sender_why_it_refused() {
    let refused = |reason, frame: Vec<u8>, kind, code| {
        let mut rig = Rig::new(&kubenet());
        let (counts, out) = rig.put(A, &frame);
        let dropped = Drops::one(reason);
        let told = Counts {
            received: 1,
            originated: 1,
            transmitted: 1,
            dropped,
            ..Counts::default()
        };
        assert_eq!(counts, told);
        let view = see(&out[0].1);
        let Network::Ipv4(packet) = view.network else {
            panic!("not IPv4")
        };
        assert_eq!(
            (out[0].0, view.target, view.source.mac()),
            (A, POD_A, GATEWAY)
        );
        assert_eq!(packet.transport, Transport::Icmp { kind, code });
    };
    let to = |to, ttl| ping(POD_A, GATEWAY, "10.244.1.6", to, ttl);
    refused(DropReason::TtlExpired, to("10.244.0.7", 1), 11, 0);
    refused(DropReason::NoSuchPod, to("10.244.1.200", 64), 3, 1);
    let mut spec = kubenet();
    spec.routes.retain(|(prefix, _)| prefix.prefix_len() > 0);
    let mut rig = Rig::new(&spec);
    let (counts, out) = rig.put(A, &to("192.0.2.1", 64));
    assert_eq!(counts.dropped, Drops::one(DropReason::NoRoute));
    assert_eq!(out.len(), 1);
}

#[test]
fn azure_has_no_hops_so_nothing_expires_there() {
    let seen = Rig::new(&azure()).goes(
        A,
        &ping(POD_A, FABRIC, "10.20.0.31", "10.20.0.43", 1),
        UPLINK,
    );
    assert_eq!(ttl(&seen), 1);
}

#[test]
fn a_super_frame_is_measured_by_its_segments() {
    let tcp = |len| {
        let mut out = Vec::new();
        PacketBuilder::ethernet2(FABRIC.octets(), NIC.octets())
            .ipv4(ip("10.244.0.7").octets(), ip("10.244.1.6").octets(), 63)
            .tcp(1, 2, 3, 4)
            .write(&mut out, &vec![0; len])
            .expect("writing to a vector cannot fail");
        out
    };
    let gso = |gso_size| Offload {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 54,
        gso_size,
        csum_start: 34,
        csum_offset: 16,
    };
    let mut rig = Rig::new(&kubenet());
    let (counts, out) = rig.put_with(UPLINK, &tcp(60_000), gso(1460));
    assert_eq!(
        counts,
        Counts {
            received: 1,
            transmitted: 1,
            ..Counts::default()
        }
    );
    assert_eq!(out[0].1.len(), 60_000 + 54, "it travels whole");
    let (counts, _) = rig.put_with(UPLINK, &tcp(60_000), gso(1461));
    assert_eq!(counts.dropped, Drops::one(DropReason::TooBig));
    let (counts, _) = rig.put(UPLINK, &tcp(1461));
    assert_eq!(counts.dropped, Drops::one(DropReason::TooBig));
}

#[test]
fn an_offload_header_that_does_not_fit_is_a_named_death() {
    let lies = Offload {
        flags: NEEDS_CSUM,
        csum_start: 9000,
        csum_offset: 16,
        ..Offload::NONE
    };
    let frame = ping(POD_A, POD_B, "10.20.0.31", "10.20.0.32", 64);
    let (counts, out) = Rig::new(&azure()).put_with(A, &frame, lies);
    let dropped = Drops::one(DropReason::BadOffload);
    assert_eq!(
        counts,
        Counts {
            received: 1,
            dropped,
            ..Counts::default()
        }
    );
    assert_eq!(out, []);
}

#[test]
fn broadcasts_reach_pods_and_host_and_never_the_uplink() {
    let mut frame = ping(POD_A, Mac::BROADCAST, "10.20.0.31", "255.255.255.255", 64);
    let (counts, out) = Rig::new(&azure()).put(A, &frame);
    assert_eq!(
        counts,
        Counts {
            received: 1,
            copied: 1,
            transmitted: 2,
            ..Counts::default()
        }
    );
    assert_eq!(out.iter().map(|d| d.0).collect::<Vec<_>>(), [HOST, B]);
    ethernet::set_target(&mut frame, Mac::new([1, 0x80, 0xc2, 0, 0, 0]));
    Rig::new(&azure()).dies(A, &frame, DropReason::ReservedGroup);
    ethernet::set_target(&mut frame, Mac::BROADCAST);
    Rig::new(&azure()).dies(UPLINK, &frame, DropReason::UplinkNotOurs);
}

#[test]
fn an_unknown_station_is_flooded_by_kubenet_and_dropped_by_azure() {
    let frame = ping(POD_A, STRANGER, "10.20.0.31", "10.20.0.99", 64);
    Rig::new(&azure()).dies(A, &frame, DropReason::UnknownUnicast);
    let (counts, out) = Rig::new(&kubenet()).put(A, &frame);
    assert_eq!((counts.copied, counts.transmitted, out.len()), (1, 2, 2));
}

#[test]
fn a_station_heard_behind_a_pod_is_learned_moves_and_is_forgotten_with_its_port() {
    let mut rig = Rig::new(&kubenet());
    rig.put(B, &ping(STRANGER, POD_A, "10.244.1.99", "10.244.1.6", 64));
    let to_stranger = ping(POD_A, STRANGER, "10.244.1.6", "10.244.1.99", 64);
    rig.goes(A, &to_stranger, B);
    rig.put(
        HOST,
        &ping(STRANGER, POD_A, "10.244.1.99", "10.244.1.6", 64),
    );
    rig.goes(A, &to_stranger, HOST);
    drop(rig.worker.detach(port(HOST)));
    let (counts, _) = rig.put(A, &to_stranger);
    assert_eq!(
        counts.copied, 1,
        "flooded again: to the pod, and to the port that is gone"
    );
    assert_eq!(counts.dropped, Drops::one(DropReason::PortDown));
}

#[test]
fn a_dropped_frame_teaches_nothing() {
    let mut rig = Rig::new(&kubenet());
    let mut spoof = ping(STRANGER, GATEWAY, "127.0.0.1", "10.244.0.7", 64);
    rig.dies(A, &spoof, DropReason::MartianSource);
    ethernet::set_source(&mut spoof, Mac::BROADCAST);
    rig.dies(A, &spoof, DropReason::SourceIsGroup);
    assert_eq!(rig.worker.fdb().find(STRANGER), None);
}

#[test]
fn an_announcement_of_its_own_address_is_for_all() {
    let mut rig = Rig::new(&azure());
    let (counts, _) = rig.put(A, &asks((POD_A, "10.20.0.31"), "10.20.0.31"));
    assert_eq!(
        (counts.transmitted, counts.copied),
        (2, 1),
        "for all to hear"
    );
}

#[test]
fn hairpin_is_a_property_of_the_port() {
    let frame = ping(POD_A, POD_A, "10.20.0.31", "10.20.0.31", 64);
    Rig::new(&azure()).dies(A, &frame, DropReason::SamePort);
    let mut spec = azure();
    spec.ports[A].hairpin = true;
    Rig::new(&spec).goes(A, &frame, A);
}

#[test]
fn a_tagged_frame_passes_through_as_it_is() {
    let mut frame = ping(POD_A, POD_B, "10.20.0.31", "10.20.0.32", 64);
    frame.splice(12..12, [0x81, 0, 0, 5]);
    let (_, out) = Rig::new(&azure()).put(A, &frame);
    assert_eq!(out, [(B, frame)]);
}

#[test]
fn a_full_egress_is_a_counted_drop_on_that_port() {
    let mut rig = Rig::new(&azure());
    let frame = ping(POD_A, POD_B, "10.20.0.31", "10.20.0.32", 64);
    for _ in 0..300 {
        if rig.peers[A].send(&frame).is_err() {
            rig.worker.wake_all();
            rig.worker.breathe(Tick(0));
            rig.peers[A].send(&frame).expect("room now");
        }
    }
    for _ in 0..10 {
        rig.worker.wake_all();
        rig.worker.breathe(Tick(0));
    }
    let counts = rig.worker.board().counts();
    assert_eq!((counts.received, counts.transmitted), (300, 256));
    assert_eq!(counts.dropped.of(DropReason::QueueFull), 44);
    assert_eq!(
        rig.worker
            .board()
            .port(port(B))
            .dropped
            .of(DropReason::QueueFull),
        44
    );
}

#[test]
fn new_tables_are_in_force_at_the_next_breath() {
    let mut rig = Rig::new(&azure());
    rig.publisher.publish(Tables::empty());
    let frame = ping(POD_A, POD_B, "10.20.0.31", "10.20.0.32", 64);
    rig.dies(A, &frame, DropReason::NotAttached);
}
