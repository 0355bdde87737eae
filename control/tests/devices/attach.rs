//! The attachments of a switch on a real kernel, each in namespaces of its own.
//!
//! In: the right to make namespaces.
//! Out: what an attachment is made of, that it is idempotent, silent, and leaves nothing.
//! Never: touches the machine's own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::num::NonZeroU16;
use std::process::Command;
use std::time::Duration;

use control::devices::attach::{
    ArpSteering, HostPort, PodEnd, PodTap, PodVeth, Uplink, cover, host,
};
use control::devices::netlink::filter::{Deed, Match, Rule};
use control::devices::sysctl::{self, Conf, Setting};
use control::devices::tap::TapSpec;
use control::devices::{DeviceError, Netlink};
use dataplane::addr::Mac;
use dataplane::facility::Facility;

use crate::alone::not_tried;
use crate::support::{
    Wire, arp, devices, ethernet, fresh, link, name, nd, packet_counts, running, snapshot, udp,
    udp6,
};

const NIC: Mac = Mac::new([0x00, 0x0d, 0x3a, 0x21, 0xaf, 0x12]);
const POD: Mac = Mac::new([0x0a, 0x58, 0x0a, 0x14, 0x00, 0x1f]);
const FABRIC: Mac = Mac::new([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);
const NODE_IP: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 4);
const POD_IP: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 31);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
const ALIAS: &str = "tapline azure0 default/pod-a 10.20.0.31";

fn pod_end() -> PodEnd {
    PodEnd {
        name: name("eth0"),
        mac: POD,
        addresses: vec!["10.20.0.31/24".parse().expect("legal")],
        gateways: vec![IpAddr::V4(GATEWAY)],
        mtu: 1400,
    }
}

fn pod_veth() -> PodVeth {
    PodVeth {
        host_end: name("azv0123456789a"),
        tap: TapSpec::new(name("tap0123456789a"), 1400),
        pod: pod_end(),
        alias: Some(ALIAS.into()),
    }
}

fn uplink(arp: ArpSteering) -> Uplink {
    Uplink {
        device: name("eth0"),
        tap: TapSpec::new(name("uplink0"), 1500),
        pods: cover(Ipv4Addr::new(10, 20, 0, 5), Ipv4Addr::new(10, 20, 0, 34)),
        pods_v6: vec!["fd00:1::/64".parse().expect("legal")],
        arp,
    }
}

/// A node whose `eth0` is a TAP that the test holds the other end of.
fn node_with_nic() -> (Netlink, Wire) {
    let node = fresh("node-0");
    let wire = Wire::open(&node, "eth0");
    let eth0 = name("eth0");
    node.set_mac(&eth0, NIC).expect("set");
    sysctl::silence_ipv6(&node, &eth0).expect("silent");
    node.add_address(&eth0, "10.20.0.4/24".parse().expect("legal"))
        .expect("added");
    node.set_up(&eth0, true).expect("up");
    running(&node, "eth0");
    (node, wire)
}

pub(crate) fn a_pod_on_a_veth_is_wired_as_specified_and_twice_is_once() {
    let (node, pod) = (fresh("node-0"), fresh("pod-a"));
    let (clean_node, clean_pod) = (snapshot(&node), snapshot(&pod));
    let port = pod_veth();
    port.attach(&node, &pod).expect("attached");

    assert_eq!(devices(&node), ["azv0123456789a", "lo", "tap0123456789a"]);
    let (host_end, tap) = (link(&node, "azv0123456789a"), link(&node, "tap0123456789a"));
    for device in [&host_end, &tap] {
        assert!(device.up && device.no_arp, "{device:?}");
        assert_eq!(device.mtu, 1400);
        assert_eq!(device.qdisc, "noqueue");
        assert_eq!(device.alias.as_deref(), Some(ALIAS));
        assert!(
            node.addresses(&name(&device.name))
                .expect("listed")
                .is_empty()
        );
        let device_name = name(&device.name);
        let off = Setting::DisableIpv6(Conf::Device(&device_name));
        assert_eq!(sysctl::get(node.namespace(), off).expect("readable"), "1");
    }
    let facts = tap.tap.expect("a TAP");
    assert!(facts.persistent && !facts.multi_queue);
    assert_eq!(tap.tx_queue_length, TapSpec::RING_DEFAULT);
    let filters = node.filters(&port.host_end).expect("listed");
    assert_eq!(filters.len(), 1, "{filters:?}");
    assert!(filters[0].ours && filters[0].protocol == 3);

    let eth0 = link(&pod, "eth0");
    assert!(eth0.up && !eth0.no_arp);
    assert_eq!(
        (eth0.mac, eth0.mtu, eth0.peer),
        (Some(POD), 1400, Some(host_end.index))
    );
    assert_eq!(
        pod.addresses(&name("eth0")).expect("listed"),
        port.pod.addresses
    );
    let routes = pod.routes().expect("listed");
    let default = routes
        .iter()
        .find(|r| r.route.to.prefix_len() == 0)
        .expect("a default");
    assert_eq!(default.route.via, Some(IpAddr::V4(GATEWAY)));
    assert!(link(&pod, "lo").up);

    let (node_before, pod_before) = (snapshot(&node), snapshot(&pod));
    port.attach(&node, &pod).expect("attached again");
    assert_eq!((snapshot(&node), snapshot(&pod)), (node_before, pod_before));

    port.detach(&node).expect("detached");
    port.detach(&node).expect("detached again");
    assert_eq!(snapshot(&node), clean_node);
    assert_eq!(devices(&pod), ["lo"]);
    assert_eq!(clean_pod.len(), snapshot(&pod).len());
}

/// True if this kernel takes programs from us, and we may give it some: before Linux 6.6 it does not, nor
/// in a user namespace.
pub(crate) fn takes_programs() -> bool {
    let net = fresh("programs");
    let lo = name("lo");
    let rule = redirect(net.index(&lo).expect("there"));
    Facility::Tcx.is_allowed() && net.set_program_rules(&lo, &[rule]).is_ok()
}

fn redirect(to: u32) -> Rule {
    Rule {
        frames: Match::Every,
        deed: Deed::Redirect(to),
    }
}

/// A clsact that comes or goes takes the way to the pod away for a while, so a veth in use gets none.
pub(crate) fn a_pod_in_use_is_wired_by_a_program_and_by_filters_where_there_is_a_clsact() {
    let (node, pod) = (fresh("node-0"), fresh("pod-a"));
    let port = pod_veth();
    port.attach(&node, &pod).expect("attached");
    let wire = Wire::open(&node, "tap0123456789a");
    running(&node, "azv0123456789a");
    running(&pod, "eth0");
    pod.add_neighbour(&name("eth0"), GATEWAY.into(), FABRIC)
        .expect("known");
    let socket = pod.namespace().run(|| UdpSocket::bind("10.20.0.31:0"));
    let socket = socket.expect("a socket");
    let heard = || {
        socket.send_to(b"anybody?", (GATEWAY, 9)).expect("sent");
        let for_gateway = |frame: &Vec<u8>| frame[..6] == FABRIC.octets();
        wire.soon().iter().filter(|f| for_gateway(f)).count() == 1
    };
    assert!(heard(), "by filters, as new pods");

    node.remove_clsact(&port.host_end).expect("removed");
    port.wire(&node).expect("wired again");
    let by_program = takes_programs();
    let carriers = || {
        let programs = node.programs(&port.host_end).expect("listed").len();
        let filters = node.filters(&port.host_end).expect("listed").len();
        (programs, filters)
    };
    println!("by a program: {by_program}");
    assert_eq!(carriers(), if by_program { (1, 0) } else { (0, 1) });
    let clsact = node.has_clsact(&port.host_end).expect("told");
    assert_eq!(clsact, !by_program);
    assert!(heard(), "by {:?}", carriers());
    port.wire(&node).expect("wired once more");
    assert_eq!(carriers(), if by_program { (1, 0) } else { (0, 1) });

    node.ensure_clsact(&port.host_end).expect("somebody's");
    port.wire(&node).expect("wired again");
    assert_eq!(carriers(), (0, 1));
    assert!(heard(), "by filters again");
}

pub(crate) fn frames_of_a_pod_reach_the_tap_and_those_of_the_tap_the_pod() {
    let (node, pod) = (fresh("node-0"), fresh("pod-a"));
    pod_veth().attach(&node, &pod).expect("attached");
    let wire = Wire::open(&node, "tap0123456789a");
    running(&node, "azv0123456789a");
    running(&pod, "eth0");
    let socket = pod
        .namespace()
        .run(|| UdpSocket::bind((POD_IP, 0)))
        .expect("bound");
    socket
        .send_to(b"hello", (Ipv4Addr::new(10, 20, 0, 43), 7))
        .expect("sent");
    let frames = wire.soon();
    assert_eq!(frames.len(), 1, "one ARP request: {frames:x?}");
    assert_eq!(frames[0][..14], ethernet(Mac::BROADCAST, POD, 0x0806));

    let there = (FABRIC, Ipv4Addr::new(10, 20, 0, 43));
    wire.send(&arp(2, there, (POD, POD_IP)));
    let frames = wire.soon();
    assert_eq!(frames.len(), 1, "the datagram: {frames:x?}");
    assert_eq!(frames[0][..14], ethernet(FABRIC, POD, 0x0800));
    assert!(frames[0].ends_with(b"hello"));

    let port = socket.local_addr().expect("bound").port();
    wire.send(&udp(there, (POD, POD_IP), port, b"hello to you"));
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("set");
    let mut answer = [0; 64];
    let (length, _) = socket.recv_from(&mut answer).expect("an answer");
    assert_eq!(&answer[..length], b"hello to you");
}

pub(crate) fn a_frame_without_payload_does_not_escape_the_redirect() {
    let node = fresh("node-0");
    let (near, far) = (Wire::open(&node, "near"), Wire::open(&node, "far"));
    for device in ["near", "far"] {
        sysctl::silence_ipv6(&node, &name(device)).expect("silent");
        node.set_up(&name(device), true).expect("up");
        running(&node, device);
    }
    node.ensure_clsact(&name("near")).expect("clsact");
    let to_far = Deed::Redirect(node.index(&name("far")).expect("there"));
    node.set_rules(
        &name("near"),
        &[Rule {
            frames: Match::Every,
            deed: to_far,
        }],
    )
    .expect("set");
    near.send(&ethernet(NIC, POD, 0x88b5));
    let tagged = [
        &NIC.octets()[..],
        &POD.octets(),
        &[0x81, 0, 0, 5, 0x88, 0xb5, 1, 2],
    ]
    .concat();
    near.send(&tagged);
    let frames = far.soon();
    assert_eq!(frames, [ethernet(NIC, POD, 0x88b5), tagged]);
}

pub(crate) fn a_taken_name_is_a_conflict_and_stays_untouched() {
    let (node, pod, other) = (fresh("node-0"), fresh("pod-a"), fresh("pod-b"));
    let port = pod_veth();
    port.attach(&node, &pod).expect("attached");
    let before = snapshot(&node);
    let refused = port.attach(&node, &other).expect_err("pod-a has it");
    assert!(matches!(refused, DeviceError::Conflict { .. }), "{refused}");
    let mut many = port.clone();
    many.tap.queues = NonZeroU16::new(2).expect("two");
    let refused = many.attach(&node, &pod).expect_err("one queue");
    assert!(refused.to_string().contains("kind of queues"), "{refused}");
    assert_eq!(snapshot(&node), before);
}

pub(crate) fn a_pod_whose_eth0_is_the_tap_is_wired_as_specified() {
    let pod = fresh("pod-a");
    let mut tap = TapSpec::new(name("ignored"), 9000);
    tap.queues = NonZeroU16::new(2).expect("two");
    let port = PodTap {
        tap,
        pod: pod_end(),
        alias: Some(ALIAS.into()),
    };
    port.attach(&pod).expect("attached");
    let eth0 = link(&pod, "eth0");
    assert!(eth0.up && !eth0.no_arp && eth0.tap.is_some_and(|t| t.multi_queue && t.persistent));
    assert_eq!(
        (eth0.mac, eth0.mtu, eth0.qdisc.as_str()),
        (Some(POD), 1400, "noqueue")
    );
    let before = snapshot(&pod);
    port.attach(&pod).expect("attached again");
    assert_eq!(snapshot(&pod), before);
    port.detach(&pod).expect("detached");
    assert_eq!(devices(&pod), ["lo"]);
}

pub(crate) fn a_pod_may_have_ipv6_without_duplicate_address_detection() {
    let (node, pod) = (fresh("node-0"), fresh("pod-a"));
    let mut port = pod_veth();
    port.pod
        .addresses
        .push("fd00:1::1f/64".parse().expect("legal"));
    port.pod.gateways.push("fd00:1::1".parse().expect("legal"));
    port.attach(&node, &pod).expect("attached");
    port.attach(&node, &pod).expect("attached again");
    // Usable at once: a tentative address could not be bound.
    let here: std::net::Ipv6Addr = "fd00:1::1f".parse().expect("legal");
    pod.namespace()
        .run(|| UdpSocket::bind((here, 0)))
        .expect("bound");
    let routes = pod.routes().expect("listed");
    assert_eq!(
        routes
            .iter()
            .filter(|r| r.route.to.prefix_len() == 0)
            .count(),
        2
    );
}

pub(crate) fn the_host_port_is_a_device_of_the_nodes_kernel() {
    let (node, _nic) = node_with_nic();
    let before = snapshot(&node);
    let port = HostPort {
        tap: TapSpec::new(name("azure0"), 1500),
        mac: NIC,
        addresses: Vec::new(),
        alias: None,
    };
    port.attach(&node).expect("attached");
    let azure0 = link(&node, "azure0");
    assert!(azure0.up && !azure0.no_arp && azure0.mac == Some(NIC));
    host::add_pod_route(&node, &name("azure0"), POD_IP, NODE_IP).expect("routed");
    host::add_pod_route(&node, &name("azure0"), POD_IP, NODE_IP).expect("routed again");
    let with_route = snapshot(&node);
    port.attach(&node).expect("attached again");
    assert_eq!(snapshot(&node), with_route);

    let wire = Wire::open(&node, "azure0");
    let socket = node
        .namespace()
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
    socket
        .expect("bound")
        .send_to(b"x", (POD_IP, 7))
        .expect("sent");
    let frames = wire.soon();
    assert_eq!(frames.len(), 1, "{frames:x?}");
    assert_eq!(frames[0], arp(1, (NIC, NODE_IP), (Mac::ZERO, POD_IP)));
    drop(wire);

    host::del_pod_route(&node, &name("azure0"), POD_IP).expect("removed");
    host::del_pod_route(&node, &name("azure0"), POD_IP).expect("removed again");
    port.detach(&node).expect("detached");
    assert_eq!(snapshot(&node), before);
}

pub(crate) fn a_route_of_another_program_is_left_alone() {
    let (node, _nic) = node_with_nic();
    // The kernel's own route to the subnet stands for any that is not ours.
    let route = control::devices::netlink::address::Route {
        to: "10.20.0.0/24".parse().expect("legal"),
        via: None,
        source: None,
    };
    let before = snapshot(&node);
    let refused = node
        .add_route(&name("eth0"), &route)
        .expect_err("the kernel's");
    assert!(matches!(refused, DeviceError::Conflict { .. }), "{refused}");
    node.remove_route(&name("eth0"), &route)
        .expect("nothing of ours");
    assert_eq!(snapshot(&node), before);
}

pub(crate) fn the_uplink_steers_frames_for_pods_and_no_others() {
    let (node, nic) = node_with_nic();
    let pods = cover(Ipv4Addr::new(10, 20, 0, 5), Ipv4Addr::new(10, 20, 0, 34));
    uplink(ArpSteering::ByTarget(pods))
        .attach(&node)
        .expect("attached");
    let tap = Wire::open(&node, "uplink0");
    let kernel = node
        .namespace()
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 4001)));
    let kernel = kernel.expect("bound");
    kernel.set_nonblocking(true).expect("set");
    let from = (FABRIC, Ipv4Addr::new(10, 20, 0, 43));

    for last in [5, 6, 20, 31, 34] {
        let to_pod = udp(from, (NIC, Ipv4Addr::new(10, 20, 0, last)), 4001, b"pod");
        nic.send(&to_pod);
        assert_eq!(tap.soon(), [to_pod]);
    }
    let to_pod = udp6(NIC, FABRIC, "fd00:1::7".parse().expect("legal"));
    nic.send(&to_pod);
    let about_pod = arp(2, from, (NIC, POD_IP));
    nic.send(&about_pod);
    assert_eq!(tap.soon(), [to_pod, about_pod]);
    let mut buffer = [0; 64];
    assert!(
        kernel.recv_from(&mut buffer).is_err(),
        "a pod's datagram reached the kernel"
    );
    assert!(nic.soon().is_empty());

    nic.send(&arp(1, from, (Mac::ZERO, NODE_IP)));
    assert_eq!(
        nic.soon(),
        [arp(2, (NIC, NODE_IP), from)],
        "the kernel answers for itself"
    );
    nic.send(&udp(from, (NIC, NODE_IP), 4001, b"node"));
    nic.send(&udp(
        from,
        (NIC, Ipv4Addr::new(10, 20, 0, 35)),
        4001,
        b"nobody",
    ));
    nic.send(&udp6(NIC, FABRIC, "fd00:2::7".parse().expect("legal")));
    assert!(tap.soon().is_empty());
    assert_eq!(kernel.recv_from(&mut buffer).expect("the node's").0, 4);

    let out = udp(
        (NIC, POD_IP),
        (FABRIC, Ipv4Addr::new(10, 20, 0, 43)),
        9,
        b"out",
    );
    tap.send(&out);
    assert_eq!(nic.soon(), [out]);
}

pub(crate) fn mirrored_arp_replies_arrive_at_the_switch_and_at_the_kernel() {
    let (node, nic) = node_with_nic();
    uplink(ArpSteering::MirrorReplies)
        .attach(&node)
        .expect("attached");
    let tap = Wire::open(&node, "uplink0");
    let socket = node
        .namespace()
        .run(|| UdpSocket::bind((NODE_IP, 0)))
        .expect("bound");
    socket.send_to(b"x", (GATEWAY, 7)).expect("sent");
    assert_eq!(nic.soon(), [arp(1, (NIC, NODE_IP), (Mac::ZERO, GATEWAY))]);
    let reply = arp(2, (FABRIC, GATEWAY), (NIC, NODE_IP));
    nic.send(&reply);
    assert_eq!(tap.soon(), [reply], "the switch has a copy");
    let frames = nic.soon();
    assert_eq!(
        frames.len(),
        1,
        "the kernel resolved its neighbour: {frames:x?}"
    );
    assert_eq!(frames[0][..14], ethernet(FABRIC, NIC, 0x0800));
    nic.send(&arp(1, (FABRIC, GATEWAY), (Mac::ZERO, NODE_IP)));
    assert!(tap.soon().is_empty(), "requests are the kernel's alone");
}

pub(crate) fn mirrored_advertisements_arrive_at_the_switch_and_at_the_kernel() {
    let (node, nic) = node_with_nic();
    let eth0 = name("eth0");
    for setting in [
        Setting::AcceptDad(Conf::Device(&eth0)),
        Setting::AcceptRa(Conf::Device(&eth0)),
        Setting::DisableIpv6(Conf::Device(&eth0)),
    ] {
        sysctl::set(node.namespace(), setting, "0").expect("set");
    }
    node.add_address(&eth0, "fd00:20::4/64".parse().expect("legal"))
        .expect("added");
    uplink(ArpSteering::MirrorReplies)
        .attach(&node)
        .expect("attached");
    let tap = Wire::open(&node, "uplink0");
    let (here, gateway): (Ipv6Addr, Ipv6Addr) = (
        "fd00:20::4".parse().expect("legal"),
        "fd00:20::1".parse().expect("legal"),
    );
    let socket = node.namespace().run(|| UdpSocket::bind((here, 0)));
    let socket = socket.expect("bound");
    socket.send_to(b"x", (gateway, 7)).expect("sent");
    let of_kind = |frames: Vec<Vec<u8>>, next_header: u8, kind: Option<u8>| -> usize {
        let is = |frame: &&Vec<u8>| {
            frame[12..14] == [0x86, 0xdd]
                && frame[20] == next_header
                && kind.is_none_or(|kind| frame[54] == kind)
        };
        frames.iter().filter(is).count()
    };
    // The kernel says more than this by itself, all of it to groups.
    assert!(of_kind(nic.soon(), 58, Some(135)) >= 1, "it asks");
    assert!(tap.soon().is_empty());
    let (from, to) = ((FABRIC, gateway), (NIC, here));
    let advertisement = nd(136, from, to, 255);
    nic.send(&advertisement);
    assert_eq!(tap.soon(), [advertisement], "the switch has a copy");
    let sent = nic.soon();
    assert_eq!(
        of_kind(sent, 17, None),
        1,
        "the kernel resolved its neighbour"
    );
    // What is no advertisement, or came through a router, stays the kernel's alone.
    for (kind, hop_limit) in [(135, 255), (129, 255), (136, 254)] {
        nic.send(&nd(kind, from, to, hop_limit));
        assert!(tap.soon().is_empty(), "type {kind}, hop limit {hop_limit}");
    }
}

pub(crate) fn steering_changes_in_place_and_leaves_others_filters_alone() {
    let (node, _nic) = node_with_nic();
    let eth0 = name("eth0");
    // Among those of others, since there is a clsact.
    node.ensure_clsact(&eth0).expect("made");
    let before = snapshot(&node);
    let mut port = uplink(ArpSteering::MirrorReplies);
    port.attach(&node).expect("attached");
    let first = node.filters(&eth0).expect("listed");
    // The pods of both families, ARP replies, and advertisements.
    assert_eq!(first.len(), 6 + 1 + 1 + 1, "{first:?}");
    let once = snapshot(&node);
    port.attach(&node).expect("attached again");
    assert_eq!(snapshot(&node), once);

    port.pods = vec![port.pods[0], "10.244.1.0/24".parse().expect("legal")];
    port.arp = ArpSteering::ByTarget(vec!["10.244.1.0/24".parse().expect("legal")]);
    port.attach(&node).expect("changed");
    let second = node.filters(&eth0).expect("listed");
    assert_eq!(second.len(), 2 + 1 + 1, "{second:?}");
    assert!(
        second.contains(
            &first[first
                .iter()
                .position(|f| f.protocol == 0x0800)
                .expect("one")]
        )
    );

    port.detach(&node).expect("detached");
    assert_eq!(snapshot(&node), before);
    assert!(
        node.has_clsact(&eth0).expect("asked"),
        "detach took another's clsact"
    );
    node.remove_clsact(&eth0).expect("removed");
    port.attach(&node).expect("attached without one");
    port.detach(&node).expect("detached");
    assert!(
        !node.has_clsact(&eth0).expect("asked"),
        "detach left its clsact"
    );
    assert_eq!(snapshot(&node), before);
}

/// Another owner's filters are put there by `tc`, whose eyes also read ours. Without `tc` there is
/// nobody to be that owner.
pub(crate) fn filters_of_another_owner_outlive_ours() {
    let (node, _nic) = node_with_nic();
    let tc = |arguments: &str| {
        let run = || Command::new("tc").args(arguments.split(' ')).output();
        node.namespace().run(run).map(|out| {
            assert!(out.status.success(), "tc {arguments}: {out:?}");
            String::from_utf8_lossy(&out.stdout).into_owned()
        })
    };
    if tc("-V").is_err() {
        not_tried("there is no tc here");
    }
    tc("qdisc add dev eth0 clsact").expect("runs");
    // One at a priority of our own, one at another's.
    let drop_web = "u32 match ip dport 80 0xffff action mirred egress mirror dev lo";
    for priority in ["7401", "12"] {
        tc(&format!(
            "filter add dev eth0 ingress protocol ip prio {priority} {drop_web}"
        ))
        .expect("runs");
    }
    let before = tc("filter show dev eth0 ingress").expect("runs");
    let port = uplink(ArpSteering::MirrorReplies);
    port.attach(&node).expect("attached");
    let during = tc("filter show dev eth0 ingress").expect("runs");
    assert!(
        during.contains("Redirect to device uplink0") && during.contains("cookie"),
        "{during}"
    );
    port.detach(&node).expect("detached");
    assert_eq!(tc("filter show dev eth0 ingress").expect("runs"), before);
}

pub(crate) fn no_device_of_ours_says_anything_by_itself() {
    let (node, nic) = node_with_nic();
    let (pod_a, pod_b) = (fresh("pod-a"), fresh("pod-b"));
    pod_veth().attach(&node, &pod_a).expect("attached");
    let direct = PodTap {
        tap: TapSpec::new(name("eth0"), 1500),
        pod: pod_end(),
        alias: None,
    };
    direct.attach(&pod_b).expect("attached");
    uplink(ArpSteering::MirrorReplies)
        .attach(&node)
        .expect("attached");
    let cbr0 = HostPort {
        tap: TapSpec::new(name("cbr0"), 1500),
        mac: NIC,
        addresses: vec!["10.244.1.1/24".parse().expect("legal")],
        alias: None,
    };
    cbr0.attach(&node).expect("attached");
    let mut wires = vec![nic, Wire::open(&pod_b, "eth0")];
    wires.extend(["tap0123456789a", "uplink0", "cbr0"].map(|tap| Wire::open(&node, tap)));
    std::thread::sleep(Duration::from_secs(3));
    for wire in &wires {
        let frames = wire.frames(Duration::ZERO);
        assert!(frames.is_empty(), "{frames:x?}");
    }
    for net in [&node, &pod_a, &pod_b] {
        let spoke: Vec<_> = packet_counts(net)
            .into_iter()
            .filter(|(_, rx, tx)| rx + tx > 0)
            .collect();
        assert!(spoke.is_empty(), "{spoke:?}");
    }
    cbr0.detach(&node).expect("detached");
}

pub(crate) fn errors_say_what_was_attempted_where_and_what_the_kernel_says() {
    let node = fresh("node-7");
    let missing = node.index(&name("eth9")).expect_err("none");
    assert_eq!(missing.to_string(), "there is no device eth9 in node-7");
    let _wire = Wire::open(&node, "eth0");
    let refused = node.set_mtu(&name("eth0"), 70_000).expect_err("too large");
    let text = refused.to_string();
    assert!(
        text.starts_with("cannot set the MTU of eth0 to 70000 in node-7: "),
        "{text}"
    );
    assert!(text.contains("mtu greater than device maximum"), "{text}");
}
