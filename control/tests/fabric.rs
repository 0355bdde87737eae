//! The fabric with real devices: TAPs in namespaces, and the kernel's own stack behind them.
//!
//! In: the right to make namespaces. Out: what the kernels on both sides saw.
//! Never: checks rule by rule what `decide` does; its own tests have a table for that.

mod two_nodes;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use control::devices::netns::Netns;
use control::lab::fabric::{
    DEVICE, Fabric, FabricDrop, NicSpec, SubnetSpec, VIRTUAL_MAC, VnetSpec,
};
use control::lab::probe::{Capture, PingSpec, ping};
use dataplane::addr::Mac;
use etherparse::{ArpEthIpv4Packet, ArpOperation};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, send, socket,
};
use two_nodes::*;

fn quick(to: Ipv4Addr, count: u16) -> PingSpec {
    let (interval, timeout) = (Duration::from_millis(10), Duration::from_secs(1));
    PingSpec {
        count,
        interval,
        timeout,
        ..PingSpec::to(IpAddr::V4(to))
    }
}

/// A packet socket on `eth0`, to send frames that no kernel would.
fn raw(ns: &Netns) -> OwnedFd {
    let open = || {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(
            AddressFamily::Packet,
            SockType::Raw,
            flags,
            SockProtocol::EthAll,
        )?;
        let address = getifaddrs()?
            .filter(|interface| interface.interface_name == DEVICE)
            .find_map(|interface| interface.address?.as_link_addr().copied())
            .ok_or(io::ErrorKind::NotFound)?;
        bind(fd.as_raw_fd(), &address)?;
        Ok(fd)
    };
    ns.run(open).expect("a packet socket on eth0")
}

fn asks(target: Ipv4Addr) -> Vec<u8> {
    let packet = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: MAC_0.octets(),
        sender_ipv4: NODE_0.octets(),
        target_mac: [0; 6],
        target_ipv4: target.octets(),
    };
    [
        &Mac::BROADCAST.octets()[..],
        &MAC_0.octets(),
        &[0x08, 0x06],
        &packet.to_bytes(),
    ]
    .concat()
}

#[test]
fn a_ping_crosses_with_its_ttl_and_the_neighbour_is_the_virtual_mac() {
    let nodes = two_nodes();
    let report = ping(&nodes.node_0, &quick(NODE_1, 3)).expect("a raw socket");
    assert_eq!(
        (report.sent, report.received(), report.ttl()),
        (3, 3, Some(64)),
        "{report:?}"
    );
    let neighbours = nodes
        .node_0
        .run(|| std::fs::read_to_string("/proc/thread-self/net/arp"));
    let neighbours = neighbours.expect("the neighbour table");
    let line = neighbours
        .lines()
        .find(|line| line.starts_with(&NODE_1.to_string()));
    assert!(
        line.is_some_and(|line| line.contains(&VIRTUAL_MAC.to_string())),
        "{neighbours}"
    );
    assert!(nodes.fabric.counters().balanced());
    assert_eq!(nodes.fabric.drops(), [], "nothing chatters");
    let counters = nodes.fabric.stop();
    // Three requests and three replies; each side asked for the other's MAC.
    assert_eq!(
        (counters.delivered, counters.dropped),
        (6, 0),
        "{counters:?}"
    );
}

#[test]
fn ipv6_crosses_where_the_vnet_has_a_prefix() {
    let net = |text: &str| text.parse().expect("well-formed");
    let subnet = SubnetSpec {
        name: "agents".into(),
        prefixes: vec![net("fd00:20::/64")],
        route_table: None,
    };
    let fabric = Fabric::start(VnetSpec {
        prefixes: vec![net("fd00:20::/64")],
        subnets: vec![subnet],
    });
    let fabric = fabric.expect("a fabric without NICs needs nothing special");
    let nodes = [("node-0", MAC_0, 4_u16), ("node-1", MAC_1, 0x23)].map(|(name, mac, host)| {
        let ns = namespace(name);
        let address = Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, host);
        let spec = NicSpec {
            addresses: vec![address.into()],
            ..nic(name, mac, &[], false)
        };
        fabric.add_nic(&ns, spec).expect("a TAP in the node");
        ns.run(|| add_address(address, 64))
            .expect("an address on the node");
        (ns, address)
    });
    let (interval, timeout) = (Duration::from_millis(10), Duration::from_secs(1));
    let spec = PingSpec {
        count: 3,
        interval,
        timeout,
        ..PingSpec::to(nodes[1].1.into())
    };
    // A kernel readies IPv6 on a fresh device in its own time, and may lose a first reply.
    let first = PingSpec {
        count: 1,
        ..spec.clone()
    };
    let answered = || ping(&nodes[0].0, &first).expect("a raw socket").received() == 1;
    assert!(eventually(answered), "{:?}", fabric.drops());
    let report = ping(&nodes[0].0, &spec).expect("a raw socket");
    assert_eq!(
        (report.sent, report.received(), report.ttl()),
        (3, 3, Some(64)),
        "{report:?} {:?}",
        fabric.drops()
    );
    assert!(fabric.counters().balanced());
    // The kernels announce themselves by multicast, which is what a VNet does not carry.
    let others = [FabricDrop::GroupTarget, FabricDrop::NeighbourOwnAddress];
    assert!(
        fabric
            .drops()
            .iter()
            .all(|drops| others.contains(&drops.reason)),
        "{:?}",
        fabric.drops()
    );
}

#[test]
fn an_arp_request_for_the_own_primary_address_stays_unanswered() {
    let nodes = two_nodes();
    let capture = Capture::start(&nodes.node_0, DEVICE).expect("a packet socket");
    let fd = raw(&nodes.node_0);
    for target in [NODE_0, POD_A, GATEWAY] {
        send(fd.as_raw_fd(), &asks(target), MsgFlags::empty()).expect("the TAP is up");
    }
    assert!(eventually(|| nodes.fabric.counters().received == 3));
    assert_eq!(nodes.dropped(FabricDrop::ArpOwnAddress), 1);
    let recording = capture.stop().expect("the socket lives");
    let answers: Vec<_> = recording
        .frames
        .iter()
        .filter(|frame| !frame.outgoing)
        .collect();
    assert_eq!(
        answers.len(),
        2,
        "the second address and the gateway: {answers:?}"
    );
    for (answer, asked) in answers.into_iter().zip([POD_A, GATEWAY]) {
        assert_eq!(answer.bytes[..6], MAC_0.octets());
        assert_eq!(
            answer.bytes[22..28],
            VIRTUAL_MAC.octets(),
            "the sender hardware address"
        );
        assert_eq!(answer.bytes[28..32], asked.octets());
    }
}

#[test]
fn without_its_route_table_the_crossing_dies_for_a_named_reason() {
    let nodes = two_nodes();
    let crossing = quick(POD_C, 2);
    let report = ping(&nodes.node_0, &crossing).expect("a raw socket");
    assert_eq!(
        (report.received(), report.ttl()),
        (2, Some(64)),
        "{report:?}"
    );

    nodes
        .fabric
        .set_route_table("agents", None)
        .expect("the subnet is there");
    let report = ping(&nodes.node_0, &crossing).expect("a raw socket");
    assert_eq!((report.sent, report.received(), report.ttl()), (2, 0, None));
    let drops = nodes.fabric.drops();
    assert_eq!(drops.len(), 1, "{drops:?}");
    assert_eq!(
        (drops[0].reason, drops[0].frames),
        (FabricDrop::RouteNone, 2)
    );
    let told = drops[0].to_string();
    let matched = "10.20.0.4 to 10.244.0.7, which matched system route 10.0.0.0/8 -> None";
    assert!(told.contains(matched), "{told}");

    nodes
        .fabric
        .set_route_table("agents", Some(&route_table()))
        .expect("the subnet is there");
    assert_eq!(
        ping(&nodes.node_0, &crossing)
            .expect("a raw socket")
            .received(),
        2
    );
    assert!(nodes.fabric.counters().balanced());
    let misfit = nodes
        .fabric
        .set_route_table("nowhere", None)
        .expect_err("no such subnet");
    assert_eq!(misfit.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_node_whose_eth0_is_down_refuses_frames_and_they_are_counted() {
    let nodes = two_nodes();
    nodes.node_1.run(take_down).expect("eth0 can be taken down");
    let report = ping(&nodes.node_0, &quick(NODE_1, 2)).expect("a raw socket");
    assert_eq!(report.received(), 0);
    assert_eq!(
        nodes.dropped(FabricDrop::TargetRefused),
        2,
        "{:?}",
        nodes.fabric.drops()
    );
    assert!(nodes.fabric.counters().balanced());
}

#[test]
fn a_removed_nic_takes_its_device_and_its_addresses_along() {
    let nodes = two_nodes();
    nodes.fabric.remove_nic(nodes.nic_1);
    let gone = || {
        nodes
            .node_1
            .run(|| Ok(if_nametoindex(DEVICE).is_err()))
            .expect("a look inside")
    };
    assert!(eventually(gone), "eth0 is still in node-1");
    assert_eq!(
        ping(&nodes.node_0, &quick(NODE_1, 1))
            .expect("a raw socket")
            .received(),
        0
    );
    assert_eq!(nodes.dropped(FabricDrop::AddressUnowned), 1);

    let again = nic("node-1", MAC_1, &[NODE_1], true);
    nodes
        .fabric
        .add_nic(&nodes.node_1, again)
        .expect("the name, MAC and address are free again");
    nodes
        .node_1
        .run(|| add_address(NODE_1, 24))
        .expect("an address on the new eth0");
    assert_eq!(
        ping(&nodes.node_0, &quick(NODE_1, 1))
            .expect("a raw socket")
            .received(),
        1
    );
}

#[test]
fn a_nic_that_cannot_be_made_leaves_nothing_behind() {
    let nodes = two_nodes();
    let mac = Mac::new([0x00, 0x0d, 0x3a, 0x21, 0xaf, 0x14]);
    let spec = nic("node-2", mac, &[Ipv4Addr::new(10, 20, 0, 66)], false);
    let refused = nodes.fabric.add_nic(&nodes.node_0, spec.clone());
    let refused = refused.expect_err("node-0 has an eth0 already").to_string();
    assert!(
        refused.starts_with("eth0 of node-2 in namespace node-0: "),
        "{refused}"
    );
    let node_2 = namespace("node-2");
    nodes
        .fabric
        .add_nic(&node_2, spec)
        .expect("MAC and address were given back");
    assert_eq!(
        ping(&nodes.node_0, &quick(NODE_1, 1))
            .expect("a raw socket")
            .received(),
        1
    );
}

#[test]
fn stopping_removes_every_device() {
    let TwoNodes {
        fabric,
        node_0,
        node_1,
        ..
    } = two_nodes();
    fabric.stop();
    for node in [node_0, node_1] {
        let found = node
            .run(|| Ok(if_nametoindex(DEVICE)))
            .expect("a look inside");
        assert!(
            found.is_err(),
            "eth0 outlived the fabric in {}",
            node.name()
        );
    }
}

#[test]
fn frames_of_any_content_are_carried_or_counted() {
    let nodes = two_nodes();
    let fd = raw(&nodes.node_0);
    let mut state = 1_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut sent = 0;
    for round in 0..2000 {
        let mut frame: Vec<u8> = (0..14 + round % 200).map(|_| random()).collect();
        if round % 2 == 0 {
            frame[6..12].copy_from_slice(&MAC_0.octets());
            let ethertypes = [[0x08, 0x00], [0x08, 0x06], [0x86, 0xdd], [0x81, 0x00]];
            frame[12..14].copy_from_slice(&ethertypes[round / 2 % 4]);
        }
        sent += u64::from(send(fd.as_raw_fd(), &frame, MsgFlags::empty()).is_ok());
        // The TAP's queue holds at least 500 frames, so in these portions none is lost.
        if round % 100 == 99 {
            assert!(
                eventually(|| nodes.fabric.counters().received >= sent),
                "{sent} sent"
            );
        }
    }
    assert!(sent > 1000, "the kernel took {sent}");
    assert!(nodes.fabric.counters().balanced());
    assert_eq!(
        ping(&nodes.node_0, &quick(NODE_1, 2))
            .expect("a raw socket")
            .received(),
        2
    );
}
