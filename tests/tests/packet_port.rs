//! Packet ports on real veths: what they carry, and what the host's stack no longer hears.
//!
//! In: the right to make network namespaces.
//! Out: pings, transfers compared by digest, single frames compared byte for byte, and books that
//! balance.
//! Never: measures speed, or leaves anything: all of it dies with the descriptors.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use control::devices::name::DeviceName;
use control::devices::netlink::Netlink;
use control::devices::netlink::link::VethEnd;
use control::devices::netns::Netns;
use control::devices::sysctl::silence_ipv6;
use control::lab::probe::{PingReport, PingSpec, TransferSpec, ping, transfer};
use dataplane::addr::{Mac, PortId, Station};
use dataplane::buffer::{FRAME_MAX, Frame, Pool};
use dataplane::frame::FrameView;
use dataplane::frame::offload::{GSO_TCPV4, NEEDS_CSUM, Offload};
use dataplane::port::any::AnyPort;
use dataplane::port::packet::PacketPort;
use dataplane::port::tap::{Batching, Queues, TapPort};
use dataplane::port::{BURST_FRAMES, Port, Ready, Taken};
use dataplane::switch::{Options, Switch};
use dataplane::tables::fib::NextHop;
use dataplane::tables::{Crossing, Owner, Policy, PortRole, PortSpec, Tables, TablesSpec, Unknown};
use etherparse::PacketBuilder;

const MACS: [Mac; 2] = [
    Mac::new([2, 0, 0, 0, 0, 0xa]),
    Mac::new([2, 0, 0, 0, 0, 0xb]),
];
const ADDRESSES: [&str; 2] = ["10.244.1.6", "10.244.1.7"];

fn namespace(name: &str) -> Netns {
    Netns::create(name).unwrap_or_else(|error| {
        panic!("this test makes network namespaces, which was refused: {error}")
    })
}

fn name(text: &str) -> DeviceName {
    DeviceName::new(text).expect("a device name")
}

fn port(id: usize) -> PortId {
    PortId::new(id).expect("in range")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A node with two pods.
struct Node {
    ns: Netns,
    net: Netlink,
    pods: Vec<Netns>,
}

impl Node {
    fn new() -> Node {
        let ns = namespace("node");
        let net = Netlink::open(&ns).expect("netlink");
        let pods = vec![namespace("pod-a"), namespace("pod-b")];
        Node { ns, net, pods }
    }

    fn end(index: usize) -> DeviceName {
        name(["veth-a", "veth-b"][index])
    }

    /// A veth between the node and pod `index`, and a port on the node's end.
    fn veth(&self, index: usize) {
        let here = VethEnd {
            name: Node::end(index),
            mac: None,
        };
        let there = VethEnd {
            name: name("eth0"),
            mac: Some(MACS[index]),
        };
        let pod = &self.pods[index];
        self.net.add_veth(&here, &there, pod, 1500).expect("a veth");
        silence_ipv6(&self.net, &here.name).expect("no IPv6 on the node's end");
        self.net.set_up(&here.name, true).expect("up");
        self.address(index);
    }

    fn address(&self, index: usize) {
        let net = Netlink::open(&self.pods[index]).expect("netlink");
        silence_ipv6(&net, &name("eth0")).expect("no IPv6");
        let address = format!("{}/24", ADDRESSES[index]);
        net.add_address(&name("eth0"), address.parse().expect("a prefix"))
            .expect("an address");
        net.set_up(&name("eth0"), true).expect("up");
    }

    fn drop_all(&self, index: usize) {
        self.net.ensure_clsact(&Node::end(index)).expect("clsact");
        self.net.drop_all(&Node::end(index)).expect("a filter");
        self.net.drop_all(&Node::end(index)).expect("twice is fine");
    }

    fn packet_port(&self, index: usize) -> PacketPort {
        self.drop_all(index);
        let device = Node::end(index);
        self.ns
            .run(|| PacketPort::open(device.as_str()))
            .expect("a packet socket")
    }

    fn ping(&self, from: usize, to: &str, count: u16) -> PingReport {
        let spec = PingSpec {
            count,
            interval: Duration::from_millis(1),
            timeout: Duration::from_millis(500),
            ..PingSpec::to(ip(to))
        };
        ping(&self.pods[from], &spec).expect("a raw socket")
    }
}

fn tables() -> Tables {
    let row = |id: usize| PortSpec {
        id: port(id),
        role: PortRole::Pod,
        mac: Station::new(MACS[id]).expect("a station"),
        mtu: 1500,
        hairpin: false,
        isolated: false,
    };
    let owner = |id: usize| Owner {
        port: port(id),
        mac: MACS[id],
    };
    let spec = TablesSpec {
        ports: vec![row(0), row(1)],
        owners: (0..2).map(|id| (ip(ADDRESSES[id]), owner(id))).collect(),
        router_macs: Vec::new(),
        routes: (0..2)
            .map(|id| {
                let host = ipnet::IpNet::from(ip(ADDRESSES[id]));
                let (port, mac) = (port(id), MACS[id]);
                (host, NextHop::Station { port, mac })
            })
            .collect(),
        groups: Vec::new(),
        crossing: Crossing::Bridged,
        policy: Policy::None,
        unknown: Unknown::Drop,
        guards: Vec::new(),
    };
    Tables::build(&spec).expect("sound")
}

/// Both ways: pings, then 50 MB of TCP, of which super-frames carried the most; then the books.
fn two_pods_talk(node: &Node, ports: [AnyPort; 2]) {
    let switch = Switch::start(&Options::named("packet"), tables()).expect("a switch");
    for (id, end) in ports.into_iter().enumerate() {
        switch.attach(port(id), end).expect("registered");
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let report = node.ping(from, ADDRESSES[to], 20);
        assert_eq!(
            (report.received(), report.ttl()),
            (20, Some(64)),
            "{report:?}"
        );
        assert_eq!((report.duplicates, &report.errors[..]), (0, &[][..]));
    }
    let bytes = 50 << 20;
    for (client, server) in [(0, 1), (1, 0)] {
        let spec = TransferSpec::to(ip(ADDRESSES[server]), bytes);
        let report = transfer(&node.pods[server], &node.pods[client], &spec).expect("in time");
        assert!(report.whole() && report.bytes == bytes, "{report:?}");
    }
    let super_frames = switch.board().super_frames();
    let wire_frames = 2 * bytes / 1448;
    let counts = switch.stop().expect("it lives");
    assert!(counts.is_balanced(), "{counts}");
    assert!(super_frames > 500, "{super_frames} super-frames; {counts}");
    assert!(counts.received < wire_frames, "{counts}");
    assert_eq!(counts.copied, 0, "none was cut");
}

#[test]
fn pods_on_packet_ports_ping_and_transfer_in_super_frames() {
    let node = Node::new();
    (0..2).for_each(|index| node.veth(index));
    let ports = [node.packet_port(0).into(), node.packet_port(1).into()];
    two_pods_talk(&node, ports);
}

#[test]
fn a_packet_port_and_a_tap_share_a_switch() {
    let node = Node::new();
    node.veth(0);
    let packet = node.packet_port(0);
    let tap = node.pods[1].run(|| TapPort::open("eth0", Queues::Single));
    let net = Netlink::open(&node.pods[1]).expect("netlink");
    net.set_mac(&name("eth0"), MACS[1]).expect("a MAC");
    node.address(1);
    two_pods_talk(&node, [packet.into(), tap.expect("a TAP").into()]);
}

#[test]
fn the_host_hears_nothing_behind_a_drop_all() {
    let node = Node::new();
    node.veth(0);
    let there = "10.244.1.9/24".parse().expect("a prefix");
    node.net
        .add_address(&Node::end(0), there)
        .expect("an address");
    assert_eq!(node.ping(0, "10.244.1.9", 2).received(), 2);
    node.drop_all(0);
    assert_eq!(node.ping(0, "10.244.1.9", 2).received(), 0);
}

/// Two packet ports, one at each end of a veth.
struct Wire {
    _node: Node,
    ends: [PacketPort; 2],
    pool: Pool,
}

impl Wire {
    fn new() -> Wire {
        let node = Node::new();
        node.veth(0);
        let far = node.pods[0].run(|| PacketPort::open("eth0"));
        let ends = [node.packet_port(0), far.expect("a packet socket")];
        Wire {
            _node: node,
            ends,
            pool: Pool::new(80, FRAME_MAX),
        }
    }

    fn send(&mut self, from: usize, bytes: &[u8], offload: Offload) {
        send(&mut self.ends[from], &mut self.pool, bytes, offload);
    }

    /// Frames of the test's own that came to `at`, for as long as they keep coming.
    fn heard(&mut self, at: usize, expected: usize) -> Vec<(Vec<u8>, Offload)> {
        let began = Instant::now();
        let (mut heard, mut frames): (Vec<_>, Vec<Frame>) = (Vec::new(), Vec::new());
        while heard.len() < expected && began.elapsed() < Duration::from_secs(2) {
            let ready = self.ends[at].receive(BURST_FRAMES, &mut self.pool, &mut frames);
            assert_ne!(ready, Ready::Down);
            for frame in frames.drain(..) {
                let bytes = self.pool.bytes(&frame);
                if bytes[..3] == [2, 0, 0] {
                    heard.push((bytes.to_vec(), frame.offload));
                }
                self.pool.release(frame);
            }
        }
        assert_eq!(self.pool.free(), self.pool.slots());
        heard
    }

    fn heard_nothing(&mut self, at: usize) -> Ready {
        let mut frames = Vec::new();
        let ready = self.ends[at].receive(BURST_FRAMES, &mut self.pool, &mut frames);
        assert!(frames.is_empty(), "{frames:?}");
        ready
    }
}

fn send(from: &mut PacketPort, pool: &mut Pool, bytes: &[u8], offload: Offload) {
    let mut frame = pool.take().expect("free");
    pool.room(&frame)[..bytes.len()].copy_from_slice(bytes);
    frame.set_len(bytes.len());
    frame.offload = offload;
    let taken = from.transmit(&frame, pool);
    pool.release(frame);
    assert_eq!(taken, Ok(Taken::Now));
}

fn tcp(payload: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(MACS[1].octets(), MACS[0].octets())
        .ipv4([10, 9, 9, 1], [10, 9, 9, 2], 64)
        .tcp(4000, 80, 1, 1024)
        .write(&mut frame, &vec![7; payload])
        .expect("writing to a vector cannot fail");
    frame
}

fn tagged(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0, 0x60, 5]);
    frame
}

#[test]
fn frames_pass_as_they_were_sent_with_tags_sums_and_sizes() {
    let mut wire = Wire::new();
    let partial = |start: u16, gso_size: u16| Offload {
        flags: NEEDS_CSUM,
        gso_type: if gso_size > 0 { GSO_TCPV4 } else { 0 },
        hdr_len: start + 20,
        gso_size,
        csum_start: start,
        csum_offset: 16,
    };
    let frames = [
        (tcp(100), Offload::NONE),
        (tcp(1446), Offload::NONE),
        (tagged(tcp(100)), Offload::NONE),
        (tcp(1000), partial(34, 0)),
        (tagged(tcp(1000)), partial(38, 0)),
        (tcp(60_000), partial(34, 1400)),
        (tagged(tcp(60_000)), partial(38, 1400)),
    ];
    for (from, at) in [(0, 1), (1, 0)] {
        for (bytes, offload) in &frames {
            wire.send(from, bytes, *offload);
            let heard = wire.heard(at, 1);
            assert_eq!(heard.len(), 1, "{offload:?}");
            assert_eq!(&heard[0].0, bytes, "{offload:?}");
            let (theirs, ours) = (heard[0].1, *offload);
            // How much of the frame is one run of memory is the kernel's own business.
            assert_eq!(
                Offload {
                    hdr_len: ours.hdr_len,
                    ..theirs
                },
                ours
            );
            let kind = FrameView::parse(bytes).expect("sound").kind;
            assert!(theirs.fits(bytes.len(), kind));
        }
        assert_eq!(wire.heard_nothing(from), Ready::Empty, "it heard itself");
    }
}

/// Sends a hundred numbered frames by `from`, and has `at` hand them in: in their order, and at no turn
/// more than it may.
fn pass_a_hundred(from: &mut PacketPort, at: &mut impl Port, pool: &mut Pool) {
    for number in 0..100u32 {
        let mut bytes = tcp(40);
        bytes[38..42].copy_from_slice(&number.to_be_bytes());
        send(from, pool, &bytes, Offload::NONE);
    }
    let (mut frames, mut numbers) = (Vec::new(), Vec::new());
    let began = Instant::now();
    for most in [16, 3, BURST_FRAMES].into_iter().cycle() {
        if numbers.len() >= 100 || began.elapsed() > Duration::from_secs(2) {
            break;
        }
        let ready = at.receive(most, pool, &mut frames);
        assert!(frames.len() <= most && ready != Ready::Down, "{most}");
        for frame in frames.drain(..) {
            let bytes = pool.bytes(&frame);
            numbers.push(u32::from_be_bytes(bytes[38..42].try_into().expect("four")));
            pool.release(frame);
        }
    }
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_burst_comes_in_order_and_no_further_than_its_bounds() {
    let mut wire = Wire::new();
    let [near, far] = &mut wire.ends;
    pass_a_hundred(near, far, &mut wire.pool);
}

#[test]
fn a_tap_hands_in_no_more_than_it_may_many_in_a_call_or_one() {
    let ns = namespace("node");
    let net = Netlink::open(&ns).expect("netlink");
    let mut pool = Pool::new(80, FRAME_MAX);
    for (device, batching) in [("tap-many", Batching::Auto), ("tap-one", Batching::Off)] {
        let opened = ns.run(|| TapPort::open_with(device, Queues::Single, batching));
        let mut tap = opened.expect("a TAP of its own");
        silence_ipv6(&net, &name(device)).expect("no IPv6");
        net.set_up(&name(device), true).expect("up");
        let opened = ns.run(|| PacketPort::open(device));
        let mut from = opened.expect("a packet socket");
        pass_a_hundred(&mut from, &mut tap, &mut pool);
    }
}

#[test]
fn a_device_that_is_missing_down_or_gone_is_said_so() {
    let node = Node::new();
    node.veth(0);
    let missing = node
        .ns
        .run(|| PacketPort::open("eth7"))
        .expect_err("no eth7");
    assert_eq!(missing.raw_os_error(), Some(19), "ENODEV");
    for bad in ["", "a-name-far-too-long-for-a-device", "a\0b"] {
        assert!(node.ns.run(|| PacketPort::open(bad)).is_err(), "{bad:?}");
    }
    let mut end = node.packet_port(0);
    let mut pool = Pool::new(4, 2048);
    let mut frame = pool.take().expect("free");
    pool.room(&frame)[..154].copy_from_slice(&tcp(100));
    frame.set_len(154);
    assert_eq!(end.transmit(&frame, &mut pool), Ok(Taken::Now));
    node.net.set_up(&Node::end(0), false).expect("down");
    let down = end.transmit(&frame, &mut pool);
    assert_eq!(down, Err(dataplane::verdict::DropReason::PortDown));
    let mut frames = Vec::new();
    assert_eq!(
        end.receive(BURST_FRAMES, &mut pool, &mut frames),
        Ready::Down
    );
    node.net.set_up(&Node::end(0), true).expect("up again");
    assert_eq!(end.transmit(&frame, &mut pool), Ok(Taken::Now));
    node.net.remove_link(&Node::end(0)).expect("gone");
    let gone = end.transmit(&frame, &mut pool);
    assert_eq!(gone, Err(dataplane::verdict::DropReason::PortDown));
    pool.release(frame);
}

#[test]
fn a_frame_over_the_mtu_is_too_big() {
    let mut wire = Wire::new();
    let mut frame = wire.pool.take().expect("free");
    let bytes = tcp(3000);
    wire.pool.room(&frame)[..bytes.len()].copy_from_slice(&bytes);
    frame.set_len(bytes.len());
    let taken = wire.ends[0].transmit(&frame, &mut wire.pool);
    wire.pool.release(frame);
    assert_eq!(taken, Err(dataplane::verdict::DropReason::TooBig));
}
