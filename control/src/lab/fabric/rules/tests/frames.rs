//! The small VNet that the rules are tried in, and the frames to try them with.
//!
//! In: addresses as text. Out: a [`World`], whole frames, expected verdicts.
//! Never: asks the rules anything.

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::addr::Mac;
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, IpFragOffset, IpNumber, Ipv4Header, PacketBuilder,
};

use super::super::{ND_SOLICIT, Verdict};
use crate::lab::fabric::spec::{NextHop, NicSpec, SubnetSpec, UserRoute, VnetSpec};
use crate::lab::fabric::vnet::{NicId, VIRTUAL_MAC, Vnet};

pub(super) const NODE_0: Mac = Mac::new([0x00, 0x0d, 0x3a, 0x21, 0xaf, 0x12]);
pub(super) const NODE_1: Mac = Mac::new([0x00, 0x0d, 0x3a, 0x21, 0xaf, 0x13]);
pub(super) const MASTER: Mac = Mac::new([0x00, 0x0d, 0x3a, 0x21, 0xaf, 0x14]);

pub(super) struct World {
    pub(super) vnet: Vnet,
    /// Owns 10.20.0.4 and .31, fd00:20::4 and ::1f; may send from no other address.
    pub(super) node_0: NicId,
    /// Owns 10.20.0.35 and .43; forwards.
    pub(super) node_1: NicId,
    pub(super) gone: NicId,
}

pub(super) fn world() -> World {
    let net = |text: &str| text.parse().expect("well-formed");
    let appliance = |text: &str| NextHop::VirtualAppliance(text.parse().expect("well-formed"));
    let table = [
        ("10.244.0.0/24", appliance("10.20.0.35")),
        ("10.244.2.0/24", appliance("10.20.0.99")),
        ("10.244.3.0/24", appliance("10.10.0.5")),
        ("10.244.9.0/24", NextHop::None),
        ("10.99.0.0/16", NextHop::VirtualNetworkGateway),
        ("10.88.0.0/16", NextHop::VnetLocal),
        ("10.77.0.0/16", NextHop::VnetPeering),
        ("fd00:244::/64", appliance("10.20.0.35")),
    ];
    let table = table.map(|(prefix, next_hop)| UserRoute {
        name: prefix.into(),
        prefix: net(prefix),
        next_hop,
    });
    let subnet = |name: &str, prefixes: &[&str], route_table| SubnetSpec {
        name: name.into(),
        prefixes: prefixes.iter().map(|prefix| net(prefix)).collect(),
        route_table,
    };
    let mut vnet = Vnet::new(VnetSpec {
        prefixes: vec![
            net("10.10.0.0/24"),
            net("10.20.0.0/24"),
            net("fd00:20::/64"),
        ],
        subnets: vec![
            subnet("masters", &["10.10.0.0/24"], None),
            subnet(
                "agents",
                &["10.20.0.0/24", "fd00:20::/64"],
                Some(table.to_vec()),
            ),
        ],
    })
    .expect("the subnets fit");
    let mut attach = |name: &str, mac, subnet: &str, addresses: &[&str]| {
        let addresses = addresses
            .iter()
            .map(|text| text.parse().expect("well-formed"))
            .collect();
        let (name, subnet) = (name.to_owned(), subnet.to_owned());
        let forwarding = name == "node-1";
        vnet.attach(NicSpec {
            name,
            mac,
            addresses,
            subnet,
            forwarding,
            mtu: 1500,
        })
        .expect("it fits")
    };
    let node_0 = attach(
        "node-0",
        NODE_0,
        "agents",
        &["10.20.0.4", "10.20.0.31", "fd00:20::4", "fd00:20::1f"],
    );
    let node_1 = attach(
        "node-1",
        NODE_1,
        "agents",
        &["10.20.0.35", "10.20.0.43", "fd00:20::23"],
    );
    attach("master-0", MASTER, "masters", &["10.10.0.5"]);
    let gone = attach(
        "node-2",
        Mac::new([2, 0, 0, 0, 0, 9]),
        "agents",
        &["10.20.0.66"],
    );
    vnet.detach(gone);
    World {
        vnet,
        node_0,
        node_1,
        gone,
    }
}

pub(super) fn four(text: &str) -> [u8; 4] {
    text.parse::<Ipv4Addr>().expect("well-formed").octets()
}

pub(super) fn six(text: &str) -> [u8; 16] {
    text.parse::<Ipv6Addr>().expect("well-formed").octets()
}

/// A whole frame from node-0 to the virtual MAC.
pub(super) fn frame(ethertype: EtherType, packet: &[u8]) -> Vec<u8> {
    [
        &VIRTUAL_MAC.octets()[..],
        &NODE_0.octets(),
        &ethertype.0.to_be_bytes(),
        packet,
    ]
    .concat()
}

pub(super) fn addressed(target: Mac, source: Mac, mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&target.octets());
    frame[6..12].copy_from_slice(&source.octets());
    frame
}

pub(super) fn ping(source: &str, target: &str) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(NODE_0.octets(), VIRTUAL_MAC.octets())
        .ipv4(four(source), four(target), 64)
        .icmpv4_echo_request(1, 1);
    let mut frame = Vec::new();
    builder.write(&mut frame, b"payload").expect("it fits");
    addressed(VIRTUAL_MAC, NODE_0, frame)
}

pub(super) fn udp(source: (&str, u16), target: (&str, u16)) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(NODE_0.octets(), VIRTUAL_MAC.octets())
        .ipv4(four(source.0), four(target.0), 64)
        .udp(source.1, target.1);
    let mut frame = Vec::new();
    builder.write(&mut frame, b"payload").expect("it fits");
    frame
}

/// IPv4 with any protocol number, as the `offset`th eight bytes of a packet.
pub(super) fn raw_ipv4(protocol: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a test's payload is short");
    let mut header = Ipv4Header::new(
        length,
        64,
        IpNumber(protocol),
        four("10.20.0.31"),
        four("10.20.0.43"),
    )
    .expect("it fits");
    header.fragment_offset = IpFragOffset::try_new(offset).expect("thirteen bits");
    let mut packet = Vec::new();
    header.write(&mut packet).expect("a Vec takes every write");
    packet.extend_from_slice(payload);
    frame(EtherType::IPV4, &packet)
}

pub(super) fn arp(operation: ArpOperation, sender_mac: Mac, sender: &str, target: &str) -> Vec<u8> {
    let packet = ArpEthIpv4Packet {
        operation,
        sender_mac: sender_mac.octets(),
        sender_ipv4: four(sender),
        target_mac: [0; 6],
        target_ipv4: four(target),
    };
    addressed(
        Mac::BROADCAST,
        NODE_0,
        frame(EtherType::ARP, &packet.to_bytes()),
    )
}

pub(super) fn asks(target: &str) -> Vec<u8> {
    arp(ArpOperation::REQUEST, NODE_0, "10.20.0.31", target)
}

pub(super) fn says(target: &str) -> Verdict {
    let packet = ArpEthIpv4Packet {
        operation: ArpOperation::REPLY,
        sender_mac: VIRTUAL_MAC.octets(),
        sender_ipv4: four(target),
        target_mac: NODE_0.octets(),
        target_ipv4: four("10.20.0.31"),
    };
    Verdict::Answer(addressed(
        NODE_0,
        VIRTUAL_MAC,
        frame(EtherType::ARP, &packet.to_bytes()),
    ))
}

pub(super) fn ping6(source: &str, target: &str) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(NODE_0.octets(), VIRTUAL_MAC.octets())
        .ipv6(six(source), six(target), 64)
        .icmpv6_echo_request(1, 1);
    let mut frame = Vec::new();
    builder.write(&mut frame, b"payload").expect("it fits");
    frame
}

pub(super) fn solicits(source: &str, hops: u8, asked: &str, link: Option<Mac>) -> Vec<u8> {
    let mut body = six(asked).to_vec();
    if let Some(mac) = link {
        body.extend([1, 1]);
        body.extend(mac.octets());
    }
    let builder = PacketBuilder::ethernet2(NODE_0.octets(), [0x33, 0x33, 0xff, 0, 0, 1])
        .ipv6(six(source), six("ff02::1:ff00:1"), hops)
        .icmpv6_raw(ND_SOLICIT, 0, [0; 4]);
    let mut frame = Vec::new();
    builder.write(&mut frame, &body).expect("it fits");
    frame
}
