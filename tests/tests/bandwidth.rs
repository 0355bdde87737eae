//! Limits of a pod's port, measured: what a receiver counts in five seconds.
//!
//! In: the right to make namespaces. Out: within 5 % of 100 Mbit/s on the wire, in each direction,
//! for TCP and for UDP, whose segments are so short that headers count.
//! Never: touches the machine's own network; what is made here dies with its descriptors.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use control::compile::{self, FIRST_POD_PORT, NodeMacs, PodPort};
use control::devices::attach::{Limit, Limits, PodEnd, PodVeth};
use control::devices::netlink::Netlink;
use control::devices::tap::TapSpec;
use control::devices::{DeviceName, Netns};
use control::plan::{self, LoadOptions};
use dataplane::addr::{Mac, PortId, Station};
use dataplane::port::tap::{Queues, TapPort};
use dataplane::switch::{Options, Switch};
use dataplane::tables::Tables;
use ipnet::Ipv4Net;
use nix::sys::socket::{setsockopt, sockopt};

const MTU: u32 = 1500;
const RATE: u64 = 100_000_000;
const TIME: Duration = Duration::from_secs(5);
/// Ethernet, IPv4 and UDP headers.
const UDP_HEADERS: f64 = 42.0;
/// So short that headers are a tenth: a super-frame that was counted as one frame would show.
const SEGMENT: usize = 400;
/// Segments of one send: a super-frame of 12,800 bytes.
const SEGMENTS: usize = 32;

fn device(name: &str) -> DeviceName {
    DeviceName::new(name).expect("a device name")
}

/// A pod behind a veth.
struct Pod {
    netns: Netns,
    address: Ipv4Addr,
    veth: PodVeth,
    port: PodPort,
}

impl Pod {
    fn new(at: usize) -> Pod {
        let address = Ipv4Addr::new(10, 20, 0, 10 + at as u8);
        let mac = Mac::new([0x0a, 0x58, 10, 20, 0, 10 + at as u8]);
        let end = PodEnd {
            name: device("eth0"),
            mac,
            addresses: vec![Ipv4Net::new(address, 24).expect("a length").into()],
            gateways: vec![IpAddr::V4(Ipv4Addr::new(10, 20, 0, 1))],
            mtu: MTU,
        };
        let netns = Netns::create(&format!("pod-{at}")).unwrap_or_else(|error| {
            panic!(
                "this test makes network namespaces, which was refused ({error}): run it as root, \
                 or under `unshare --map-root-user --net`"
            )
        });
        Pod {
            netns,
            address,
            veth: PodVeth {
                host_end: device(&format!("azv{at}")),
                tap: TapSpec::new(device(&format!("tap{at}")), MTU),
                pod: end,
                alias: None,
            },
            port: PodPort::new(
                PortId::new(FIRST_POD_PORT + at).expect("a few pods"),
                Station::new(mac).expect("one station's"),
                vec![address.into()],
            ),
        }
    }

    fn attach(&self, node: &Netlink) {
        let inside = Netlink::open(&self.netns).expect("a netlink socket");
        self.veth.attach(node, &inside).expect("a pod port");
    }

    fn limit(&self, node: &Netlink, limits: Limits) {
        let (host_end, tap) = (&self.veth.host_end, &self.veth.tap.name);
        limits.apply(node, host_end, tap).expect("tbf is there");
        assert!(limits.hold(node, host_end, tap).expect("readable"));
    }
}

/// A node with two pods, of which the first is limited.
struct Node {
    pods: [Pod; 2],
    _net: Netlink,
    _switch: Switch<TapPort>,
}

impl Node {
    fn new(limits: Limits) -> Node {
        let pods = [Pod::new(0), Pod::new(1)];
        let net = Netlink::open(&Netns::create("node").expect("made")).expect("opened");
        let plan = plan::load(&LoadOptions::built_in()).expect("the seed's documents are good");
        let nic = Station::new(Mac::new([0x00, 0x0d, 0x3a, 0x14, 0x00, 0x04])).expect("legal");
        let macs = NodeMacs { nic, host: nic };
        let ports: Vec<PodPort> = pods.iter().map(|pod| pod.port.clone()).collect();
        let spec = compile::compile(&plan, &plan.nodes[0], macs, &ports);
        let tables = Tables::build(&spec).expect("a plan makes good tables");
        let switch = Switch::start(&Options::named("tl-limit"), tables).expect("a thread");
        for pod in &pods {
            pod.attach(&net);
            let tap = &pod.veth.tap.name;
            let open = || TapPort::open(tap.as_str(), Queues::Single);
            let port = net.namespace().run(open).expect("there and free");
            switch
                .attach(pod.port.port, port)
                .expect("the thread lives");
            for device in [tap, &pod.veth.host_end] {
                net.wait_until_running(device, TIME).expect("it is open");
            }
        }
        pods[0].limit(&net, limits);
        Node {
            pods,
            _net: net,
            _switch: switch,
        }
    }
}

fn limit(burst: u64) -> Option<Limit> {
    Limit::new(RATE, burst).expect("legal")
}

fn to_pod(burst: u64) -> Limits {
    Limits {
        to_pod: limit(burst),
        from_pod: None,
    }
}

fn from_pod(burst: u64) -> Limits {
    Limits {
        to_pod: None,
        from_pod: limit(burst),
    }
}

/// Bytes on the wire for what TCP carried: full segments with timestamps, mostly.
fn tcp_wire_bytes(payload: u64) -> f64 {
    payload as f64 * 1514.0 / 1448.0
}

/// Bytes that come in within [`TIME`] of the first, by TCP.
fn tcp(from: &Pod, to: &Pod) -> u64 {
    let listener = to.netns.run(|| TcpListener::bind((to.address, 0)));
    let listener = listener.expect("a socket in the pod");
    let target = listener.local_addr().expect("bound");
    let sender = from
        .netns
        .run(|| TcpStream::connect(target))
        .expect("connected");
    let (mut receiver, _) = listener.accept().expect("connected");
    // This machine's default paces by its own estimate of the path.
    let _ = setsockopt(&sender, sockopt::TcpCongestion, &"cubic".into());
    thread::scope(|scope| {
        let stop = receiver.try_clone().expect("a descriptor");
        scope.spawn(move || {
            let block = vec![7; 1 << 17];
            while (&sender).write_all(&block).is_ok() {}
        });
        let mut block = vec![0; 1 << 17];
        let mut count = receiver.read(&mut block).expect("bytes") as u64;
        let first = Instant::now();
        while first.elapsed() < TIME {
            count += receiver.read(&mut block).expect("bytes") as u64;
        }
        stop.shutdown(Shutdown::Both).expect("connected");
        // Unread bytes make this a reset, at which the sender stops.
        drop((stop, receiver));
        count
    })
}

/// Payload bytes that come in within [`TIME`] of the first, by UDP at twice the limit.
fn udp(from: &Pod, to: &Pod) -> u64 {
    let bind = |pod: &Pod| {
        let socket = pod.netns.run(|| UdpSocket::bind((pod.address, 0)));
        socket.expect("a socket in the pod")
    };
    let (sender, receiver) = (bind(from), bind(to));
    sender
        .connect(receiver.local_addr().expect("bound"))
        .expect("local");
    setsockopt(&sender, sockopt::UdpGsoSegment, &(SEGMENT as i32)).expect("segments");
    setsockopt(&receiver, sockopt::UdpGroSegment, &true).expect("segments");
    receiver.set_read_timeout(Some(TIME)).expect("a time");
    thread::scope(|scope| {
        scope.spawn(move || {
            let block = [7; SEGMENT * SEGMENTS];
            let started = Instant::now();
            let mut sent = 0;
            while started.elapsed() < TIME + Duration::from_millis(500) {
                let due = started.elapsed().as_secs_f64() * 2.0 * RATE as f64 / 8.0;
                // A full queue is no error here.
                if sent as f64 <= due && sender.send(&block).is_ok() {
                    sent += block.len();
                } else {
                    thread::sleep(Duration::from_micros(300));
                }
            }
        });
        let mut block = vec![0; 1 << 16];
        let mut count = receiver.recv(&mut block).expect("a datagram") as u64;
        let first = Instant::now();
        while first.elapsed() < TIME {
            count += receiver.recv(&mut block).expect("a datagram") as u64;
        }
        count
    })
}

/// Within 5 % of the rate.
fn holds(what: &str, wire_bytes: f64) {
    let share = wire_bytes * 8.0 / TIME.as_secs_f64() / RATE as f64;
    println!("{what}: {:.1} % of {RATE} bits a second", share * 100.0);
    assert!(
        (0.95..=1.05).contains(&share),
        "{what}: {share:.3} of the rate"
    );
}

#[test]
fn tcp_to_a_pod_keeps_to_its_limit() {
    let node = Node::new(to_pod(0));
    let [limited, other] = &node.pods;
    holds("TCP to the pod", tcp_wire_bytes(tcp(other, limited)));
}

#[test]
fn tcp_from_a_pod_keeps_to_its_limit_though_no_super_frame_fits_the_burst() {
    let node = Node::new(from_pod(8 * 16_000));
    let [limited, other] = &node.pods;
    holds("TCP from the pod", tcp_wire_bytes(tcp(limited, other)));
}

#[test]
fn udp_to_a_pod_keeps_to_its_limit_headers_of_segments_included() {
    let node = Node::new(to_pod(u32::MAX.into()));
    let [limited, other] = &node.pods;
    let headers = 1.0 + UDP_HEADERS / SEGMENT as f64;
    holds("UDP to the pod", udp(other, limited) as f64 * headers);
}

#[test]
fn udp_from_a_pod_keeps_to_its_limit_headers_of_segments_included() {
    let node = Node::new(from_pod(0));
    let [limited, other] = &node.pods;
    let headers = 1.0 + UDP_HEADERS / SEGMENT as f64;
    holds("UDP from the pod", udp(limited, other) as f64 * headers);
}

#[test]
fn limits_come_change_and_go_and_are_left_alone_where_they_hold() {
    let net = Netlink::open(&Netns::create("node").expect("made")).expect("opened");
    let pod = Pod::new(0);
    let (host_end, tap) = (&pod.veth.host_end, &pod.veth.tap.name);
    let qdiscs = |net: &Netlink| [host_end, tap].map(|d| net.link(d).expect("there").qdisc);
    pod.attach(&net);
    let none = Limits::default();
    assert!(none.hold(&net, host_end, tap).expect("readable"));
    let both = Limits {
        to_pod: limit(0),
        from_pod: Limit::new(8_000_000_000_000, 1_000_000).expect("legal"),
    };
    pod.limit(&net, both);
    assert_eq!(qdiscs(&net), ["tbf", "tbf"]);
    assert!(!none.hold(&net, host_end, tap).expect("readable"));
    // More bytes a second than 32 bits hold.
    let found = net.token_bucket(tap).expect("readable").expect("a bucket");
    assert_eq!(found.rate, 1_000_000_000_000);
    // The port is completed after a restart: its limits stay.
    pod.attach(&net);
    assert!(both.hold(&net, host_end, tap).expect("readable"));
    pod.limit(&net, to_pod(0));
    assert_eq!(qdiscs(&net), ["tbf", "noqueue"]);
    pod.limit(&net, none);
    assert_eq!(qdiscs(&net), ["noqueue", "noqueue"]);
}
