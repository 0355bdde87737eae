//! Bridges with pods, adopted and given back: real devices, real stacks, traffic all the while.
//!
//! In: a namespace that plays the node, one for each pod, and a Linux bridge between them.
//! Out: who could reach whom, for how long not, and what was left of every device.
//! Never: judges time beyond what a busy machine takes: the gaps are printed, not compared closely.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::adopt::dns::Dns;
use control::adopt::observe::{Observed, Refusal, observe};
use control::adopt::steps::{BridgeShape, Handover, PodShape, Step};
use control::adopt::walk::{NoSwitch, Ports, backwards, forwards};
use control::compile::{self, FIRST_POD_PORT, HOST_PORT, NodeMacs, PodPort};
use control::devices::attach::HostPort;
use control::devices::netlink::address::Route;
use control::devices::netlink::bridge::BridgeFacts;
use control::devices::netlink::link::VethEnd;
use control::devices::sysctl;
use control::devices::tap::TapSpec;
use control::devices::{Netlink, Netns};
use control::plan::{LoadOptions, Plan, Plugin, load};
use dataplane::addr::{Mac, PortId, Station};
use dataplane::port::tap::{Queues, TapPort};
use dataplane::switch::{Options, Switch};
use dataplane::tables::Tables;
use ipnet::IpNet;

use super::attach;
use super::support::{devices, fresh, link, name, snapshot};

/// A machine as busy as this may well hold everything up for so long. On a quiet one the gap is a
/// few milliseconds.
const GAP_MAX: Duration = Duration::from_millis(1500);

const BRIDGE_MAC: Mac = Mac::new([0x0a, 0x58, 10, 244, 1, 1]);

/// A pod on the bridge.
struct Pod {
    net: Netlink,
    address: Ipv4Addr,
}

/// A node with a bridge and pods, and a switch that knows none of them yet.
struct Node {
    net: Netlink,
    bridge: &'static str,
    pods: Vec<Pod>,
    paths: Vec<PathBuf>,
}

impl Node {
    /// `bridge` with `addresses` and `count` pods whose addresses follow `first`.
    fn new(
        bridge: &'static str,
        addresses: &[&str],
        first: Ipv4Addr,
        length: u8,
        count: u8,
    ) -> Node {
        let net = fresh("node");
        net.set_up(&name("lo"), true).expect("up");
        sysctl::set_ip_forward(net.namespace(), true).expect("forwarding");
        let facts = BridgeFacts {
            ageing: 30_000,
            ..BridgeFacts::default()
        };
        net.add_bridge_as(&name(bridge), BRIDGE_MAC, facts)
            .expect("a bridge");
        net.set_up(&name(bridge), true).expect("up");
        for address in addresses {
            net.add_address(&name(bridge), address.parse().expect("one"))
                .expect("an address");
        }
        let mut node = Node {
            net,
            bridge,
            pods: Vec::new(),
            paths: Vec::new(),
        };
        for ordinal in 0..count {
            node.add_pod(
                ordinal,
                Ipv4Addr::from_bits(first.to_bits() + u32::from(ordinal)),
                length,
            );
        }
        node
    }

    fn add_pod(&mut self, ordinal: u8, address: Ipv4Addr, length: u8) {
        let pod = fresh(&format!("pod-{ordinal}"));
        let here = VethEnd {
            name: name(&format!("veth{ordinal:08x}")),
            mac: None,
        };
        let [a, b, c, d] = address.octets();
        let there = VethEnd {
            name: name("eth0"),
            mac: Some(Mac::new([0x0a, 0x58, a, b, c, d])),
        };
        self.net
            .add_veth(&here, &there, pod.namespace(), 1500)
            .expect("a veth");
        self.net
            .set_bridge(&here.name, &name(self.bridge))
            .expect("a port");
        self.net
            .set_bridge_port(&here.name, ordinal.is_multiple_of(2), false)
            .expect("set");
        self.net.set_up(&here.name, true).expect("up");
        let own: IpNet = format!("{address}/{length}").parse().expect("one");
        pod.set_up(&name("lo"), true).expect("up");
        pod.add_address(&name("eth0"), own).expect("an address");
        pod.set_up(&name("eth0"), true).expect("up");
        let fd = pod.namespace().file().as_raw_fd();
        self.paths.push(format!("/proc/self/fd/{fd}").into());
        self.pods.push(Pod { net: pod, address });
    }

    fn observe(&self) -> Result<Observed, Vec<Refusal>> {
        observe(&self.net, &name(self.bridge), &name("eth0"), &self.paths)
    }

    fn handover(&self, node_address: Option<Ipv4Addr>) -> Handover {
        let observed = self.observe().expect("it can be adopted");
        let pods = observed.pods.iter().map(|pod| PodShape {
            host_end: pod.host_end.clone(),
            tap: name(&pod.host_end.as_str().replace("veth", "tap")),
            alias: format!("tapline {} {}", self.bridge, pod.addresses[0].addr()),
            netns: pod.netns.clone(),
            inside: pod.inside.clone(),
            mac: pod.mac,
            addresses: pod.addresses.clone(),
            mtu: pod.mtu,
            ipv6: pod.ipv6,
            neighbour: observed.is_told_of(pod),
            hairpin: pod.hairpin,
            isolated: pod.isolated,
        });
        let pods = pods.collect();
        let neighbours = observed.other_neighbours();
        Handover {
            pods,
            bridge: BridgeShape {
                name: observed.name,
                mac: observed.mac,
                mtu: observed.mtu,
                ageing: observed.facts.ageing,
                addresses: observed.addresses,
                routes: observed.routes,
                neighbours,
            },
            bridge_aside: name("tl-bridge"),
            host_aside: name("tl-host"),
            uplink: observed.uplink,
            dns: Dns::default(),
            node_address,
        }
    }
}

/// A switch beside the bridge, with the host port under its other name.
struct Beside {
    plan: Plan,
    node: usize,
    macs: NodeMacs,
    net: Netlink,
    switch: Switch<TapPort>,
    known: BTreeMap<String, PodPort>,
}

impl Beside {
    fn start(node: &Node, plugin: Plugin) -> Beside {
        let plan = load(&LoadOptions {
            plugin: Some(plugin),
            ..LoadOptions::built_in()
        })
        .expect("the built-in plan");
        let nic = Mac::new([0, 0x0d, 0x3a, 0x21, 0xaf, 0x12]);
        let station = |mac| Station::new(mac).expect("a station");
        let macs = NodeMacs {
            nic: station(nic),
            host: station(BRIDGE_MAC),
        };
        let net = Netlink::open(node.net.namespace()).expect("netlink");
        let host = HostPort {
            tap: TapSpec::new(name("tl-host"), 1500),
            mac: BRIDGE_MAC,
            addresses: Vec::new(),
            alias: None,
        };
        host.attach(&net).expect("the host port");
        let own: IpNet = "10.244.1.0/24".parse().expect("one");
        let serves = |node: &control::plan::Node| node.pod_cidr.map(IpNet::V4) == Some(own);
        let at = plan.nodes.iter().position(serves).unwrap_or_default();
        let spec = compile::compile(&plan, &plan.nodes[at], macs, &[]);
        let tables = Tables::build(&spec).expect("tables");
        let switch = Switch::start(&Options::named("adopt"), tables).expect("a switch");
        let beside = Beside {
            plan,
            node: at,
            macs,
            net,
            switch,
            known: BTreeMap::new(),
        };
        beside.open_tap(HOST_PORT, "tl-host").expect("opened");
        beside
    }

    fn open_tap(&self, port: PortId, tap: &str) -> Result<(), String> {
        let open = || TapPort::open(tap, Queues::Single);
        let opened = self.net.namespace().run(open).map_err(|e| e.to_string())?;
        self.switch.attach(port, opened).map_err(|e| e.to_string())
    }

    fn publish(&mut self) {
        let pods: Vec<PodPort> = self.known.values().cloned().collect();
        let spec = compile::compile(&self.plan, &self.plan.nodes[self.node], self.macs, &pods);
        self.switch.publish(Tables::build(&spec).expect("tables"));
    }
}

impl Ports for Beside {
    fn open(&mut self, pod: &PodShape) -> Result<(), String> {
        let taken: Vec<PortId> = self.known.values().map(|pod| pod.port).collect();
        let free = (FIRST_POD_PORT..)
            .filter_map(PortId::new)
            .find(|id| !taken.contains(id));
        let port = free.expect("a test has a few pods");
        self.open_tap(port, pod.tap.as_str())?;
        let mac = Station::new(pod.mac).expect("a station");
        let row = PodPort {
            hairpin: pod.hairpin,
            ..PodPort::new(port, mac, pod.addresses.iter().map(IpNet::addr).collect())
        };
        self.known.insert(pod.host_end.to_string(), row);
        Ok(())
    }

    fn close(&mut self, pod: &PodShape) -> Result<(), String> {
        if let Some(row) = self.known.remove(pod.host_end.as_str()) {
            self.publish();
            self.switch.detach(row.port).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn know(&mut self, _: &[PodShape], known: bool) -> Result<(), String> {
        if known {
            self.publish();
        }
        Ok(())
    }

    fn steer(&mut self, _: bool) -> Result<(), String> {
        Ok(())
    }
}

/// A question every millisecond, and the longest time without an answer.
struct Pinger {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    thread: JoinHandle<(u32, Duration)>,
}

impl Pinger {
    /// From `from` to `target` in `to`.
    fn start(from: &Netns, to: &Netns, target: Ipv4Addr) -> Pinger {
        let at = SocketAddr::new(IpAddr::V4(target), 7);
        let echo = to.run(|| UdpSocket::bind(at)).expect("bound");
        let asker = from.run(|| UdpSocket::bind("0.0.0.0:0")).expect("bound");
        echo.set_read_timeout(Some(Duration::from_millis(50)))
            .expect("set");
        asker
            .set_read_timeout(Some(Duration::from_millis(1)))
            .expect("set");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let done = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while !done.load(Ordering::Relaxed) {
                if let Ok((len, asker)) = echo.recv_from(&mut buffer) {
                    let _ = echo.send_to(&buffer[..len], asker);
                }
            }
        });
        let answered = Arc::new(AtomicU32::new(0));
        let answers = Arc::clone(&answered);
        let thread = std::thread::spawn(move || {
            let (mut asked, mut gap) = (0_u32, Duration::ZERO);
            let mut last = Instant::now();
            let mut buffer = [0; 64];
            while !stopped.load(Ordering::Relaxed) {
                asked += u32::from(asker.send_to(&asked.to_be_bytes(), at).is_ok());
                if asker.recv_from(&mut buffer).is_ok() {
                    answers.fetch_add(1, Ordering::Relaxed);
                    gap = gap.max(last.elapsed());
                    last = Instant::now();
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            (asked, gap.max(last.elapsed()))
        });
        Pinger {
            stop,
            answered,
            thread,
        }
    }

    fn answered(&self) -> u32 {
        self.answered.load(Ordering::Relaxed)
    }

    /// What came of it.
    fn stop(self, who: &str) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let answered = self.answered();
        let (asked, gap) = self.thread.join().expect("it ran");
        println!("{who}: {answered} of {asked} answered, longest gap {gap:?}");
        assert!(answered > 0, "{who}: nothing was answered");
        gap
    }
}

/// A TCP connection that echoes until it is told to stop; one that breaks is a failure.
struct Session {
    stop: Arc<AtomicBool>,
    client: JoinHandle<u64>,
}

impl Session {
    fn start(from: &Netns, to: &Netns, target: Ipv4Addr, port: u16) -> Session {
        let at = SocketAddr::new(IpAddr::V4(target), port);
        let listener = to.run(|| TcpListener::bind(at)).expect("bound");
        std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("a client");
            let mut buffer = vec![0; 1 << 16];
            while let Ok(len @ 1..) = peer.read(&mut buffer) {
                if peer.write_all(&buffer[..len]).is_err() {
                    break;
                }
            }
        });
        let stream = from.run(|| TcpStream::connect_timeout(&at, Duration::from_secs(5)));
        let mut stream = stream.expect("connected");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("set");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let client = std::thread::spawn(move || {
            let (mut bytes, mut round) = (0, 0_u8);
            let mut back = vec![0; 20_000];
            while !stopped.load(Ordering::Relaxed) {
                let sent = vec![round; back.len()];
                stream.write_all(&sent).expect("the connection holds");
                stream.read_exact(&mut back).expect("the connection holds");
                assert!(back == sent, "what came back is what was sent");
                bytes += sent.len() as u64;
                round = round.wrapping_add(1);
                std::thread::sleep(Duration::from_millis(2));
            }
            bytes
        });
        Session { stop, client }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.client.join().expect("the connection held")
    }
}

fn settle() {
    std::thread::sleep(Duration::from_millis(400));
}

/// What must be as before: all but the switch's own host port, and the order in which the kernel
/// lists routes that are alike.
fn shape(node: &Node) -> Vec<String> {
    let mut lines = snapshot(&node.net);
    lines.pop();
    lines.retain(|line| !line.contains("tl-host"));
    let routes = node.net.routes().expect("listed");
    let mut routes: Vec<String> = routes.iter().map(|route| format!("{route:?}")).collect();
    routes.sort();
    lines.extend(routes);
    lines
}

/// A clsact that is added to a veth in use costs its pod frames.
fn keep_their_queues(node: &Node) {
    let by_program = attach::takes_programs();
    for i in 0..node.pods.len() {
        let clsact = node.net.has_clsact(&name(&format!("veth{i:08x}")));
        assert_eq!(clsact.expect("told"), !by_program);
    }
}

pub(crate) fn a_bridge_is_adopted_and_given_back_under_traffic() {
    let node = Node::new(
        "cbr0",
        &["10.244.1.1/24"],
        Ipv4Addr::new(10, 244, 1, 2),
        24,
        20,
    );
    let mut beside = Beside::start(&node, Plugin::Kubenet);
    let before = shape(&node);
    let room = |i: usize| node.pods[i].net.namespace();
    let pairs = [
        (
            "pod to pod",
            Pinger::start(room(0), room(1), node.pods[1].address),
        ),
        (
            "node to pod",
            Pinger::start(node.net.namespace(), room(2), node.pods[2].address),
        ),
        (
            "pod to node",
            Pinger::start(room(3), node.net.namespace(), Ipv4Addr::new(10, 244, 1, 1)),
        ),
    ];
    let sessions: Vec<Session> = (4..12)
        .step_by(2)
        .map(|i| Session::start(room(i), room(i + 1), node.pods[i + 1].address, 9000))
        .chain([Session::start(
            node.net.namespace(),
            room(12),
            node.pods[12].address,
            9000,
        )])
        .collect();
    settle();
    let steps = node.handover(None).steps();
    let started = Instant::now();
    forwards(&node.net, &mut beside, &steps, |_, _| Ok(())).expect("adopted");
    println!("adopted in {:?}", started.elapsed());
    assert!(
        link(&node.net, "cbr0").tap.is_some(),
        "the host port bears the name"
    );
    assert!(!link(&node.net, "tl-bridge").up);
    keep_their_queues(&node);
    let answered = pairs.each_ref().map(|(_, pinger)| pinger.answered());
    settle();
    for ((who, pinger), before) in pairs.iter().zip(answered) {
        assert!(pinger.answered() > before, "{who}: not by the switch");
    }
    let through = beside.switch.board().counts();
    assert!(
        through.transmitted > 100,
        "traffic goes by the switch: {through}"
    );
    let started = Instant::now();
    backwards(&node.net, &mut beside, &steps).expect("given back");
    println!("given back in {:?}", started.elapsed());
    settle();
    for (who, pinger) in pairs {
        let gap = pinger.stop(who);
        assert!(gap < GAP_MAX, "{who}: {gap:?}");
    }
    for session in sessions {
        assert!(session.stop() > 0);
    }
    assert_eq!(shape(&node), before);
    beside.switch.stop().expect("the law held");
}

/// The node's own address under azure.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 4);

fn by_default() -> Route {
    Route {
        to: "0.0.0.0/0".parse().expect("one"),
        via: Some("10.20.0.1".parse().expect("one")),
        source: None,
    }
}

/// A node whose NIC hangs on the bridge, and who is at the NIC's other end.
fn azure(count: u8) -> (Node, Netlink) {
    let first = Ipv4Addr::new(10, 20, 0, 5);
    let node = Node::new("azure0", &["10.20.0.4/24"], first, 24, count);
    let far = fresh("far");
    let end = |text: &str, mac: u8| VethEnd {
        name: name(text),
        mac: Some(Mac::new([0, 0x0d, 0x3a, 0, 0, mac])),
    };
    node.net
        .add_veth(&end("eth0", 4), &end("eth0", 200), far.namespace(), 3900)
        .expect("a link");
    node.net
        .set_bridge(&name("eth0"), &name("azure0"))
        .expect("a port");
    assert_eq!(link(&node.net, "azure0").mtu, 1500, "as its least port");
    node.net.set_up(&name("eth0"), true).expect("up");
    far.add_address(&name("eth0"), "10.20.0.200/24".parse().expect("one"))
        .expect("an address");
    far.set_up(&name("eth0"), true).expect("up");
    node.net
        .add_route(&name("azure0"), &by_default())
        .expect("a route");
    (node, far)
}

pub(crate) fn a_bridge_that_holds_the_nodes_nic_gives_its_addresses_back_to_it() {
    let (own, default) = (OWN, by_default());
    let (node, far) = azure(4);
    let mut beside = Beside::start(&node, Plugin::Azure);
    let before = shape(&node);
    let session = Session::start(far.namespace(), node.net.namespace(), own, 22);
    let pinger = Pinger::start(
        node.net.namespace(),
        node.pods[1].net.namespace(),
        node.pods[1].address,
    );
    settle();
    let steps = node.handover(Some(own)).steps();
    forwards(&node.net, &mut beside, &steps, |_, _| Ok(())).expect("adopted");
    let addresses = node.net.addresses(&name("eth0")).expect("listed");
    assert!(
        addresses.contains(&"10.20.0.4/24".parse().expect("one")),
        "{addresses:?}"
    );
    let index = link(&node.net, "eth0").index;
    let mut routes = node.net.routes().expect("listed").into_iter();
    let found = routes
        .find(|found| found.route.to == default.to)
        .expect("a default route");
    assert_eq!((found.device, found.route.via), (index, default.via));
    let nic = link(&node.net, "eth0");
    assert_eq!((nic.controller, nic.mtu), (None, 3900), "its own MTU again");
    let answered = pinger.answered();
    settle();
    assert!(
        pinger.answered() > answered,
        "the node reaches its pods by the switch"
    );
    backwards(&node.net, &mut beside, &steps).expect("given back");
    settle();
    assert!(session.stop() > 0);
    assert!(pinger.stop("node to pod") < GAP_MAX);
    assert_eq!(shape(&node), before);
}

/// Whichever step fails, all is as it was, and pods reach each other.
fn each_step_fails(node: &Node, plugin: Plugin, node_address: Option<Ipv4Addr>) {
    let mut beside = Beside::start(node, plugin);
    let before = shape(node);
    let steps: Vec<Step> = node.handover(node_address).steps();
    for fails in 0..steps.len() {
        let refuse = |at: usize, _: &Step| {
            if at == fails {
                Err("an injected failure".to_owned())
            } else {
                Ok(())
            }
        };
        let failures = forwards(&node.net, &mut beside, &steps, refuse).expect_err("refused");
        assert_eq!(failures.len(), 1, "step {fails}: {failures:?}");
        assert_eq!(failures[0].number, fails + 1);
        assert_eq!(shape(node), before, "after step {} failed", fails + 1);
    }
    println!("{} steps, each of them failed", steps.len());
    let reached = Pinger::start(
        node.pods[0].net.namespace(),
        node.pods[1].net.namespace(),
        node.pods[1].address,
    );
    settle();
    reached.stop("pod to pod");
}

pub(crate) fn a_step_that_fails_leaves_the_bridge_as_it_was() {
    let first = Ipv4Addr::new(10, 244, 1, 2);
    let node = Node::new("cbr0", &["10.244.1.1/24"], first, 24, 2);
    each_step_fails(&node, Plugin::Kubenet, None);
}

pub(crate) fn so_it_does_where_the_nodes_nic_hangs_on_the_bridge() {
    let (node, far) = azure(2);
    let session = Session::start(far.namespace(), node.net.namespace(), OWN, 22);
    each_step_fails(&node, Plugin::Azure, Some(OWN));
    assert!(session.stop() > 0, "the node's own goes on");
}

pub(crate) fn without_a_switch_the_pods_are_given_back_all_the_same() {
    let node = Node::new(
        "cbr0",
        &["10.244.1.1/24"],
        Ipv4Addr::new(10, 244, 1, 2),
        24,
        3,
    );
    let mut beside = Beside::start(&node, Plugin::Kubenet);
    let steps = node.handover(None).steps();
    forwards(&node.net, &mut beside, &steps, |_, _| Ok(())).expect("adopted");
    // Whoever confirmed the adoption has thrown the bridge away; then the switch dies.
    node.net.remove_link(&name("tl-bridge")).expect("removed");
    drop(beside);
    // What is left to go by is a file.
    let kept = serde_json::to_string(&node_handover(&steps)).expect("written");
    let kept: Handover = serde_json::from_str(&kept).expect("read");
    let mut nobody = NoSwitch {
        net: &node.net,
        uplink: None,
    };
    backwards(&node.net, &mut nobody, &kept.steps()).expect("given back");
    let room = |i: usize| node.pods[i].net.namespace();
    let pingers = [
        Pinger::start(room(0), room(1), node.pods[1].address),
        Pinger::start(node.net.namespace(), room(2), node.pods[2].address),
    ];
    settle();
    for pinger in pingers {
        pinger.stop("after the rescue");
    }
    let bridge = link(&node.net, "cbr0");
    assert_eq!(
        (bridge.kind.as_deref(), bridge.mac),
        (Some("bridge"), Some(BRIDGE_MAC))
    );
    let names = devices(&node.net);
    assert!(
        !names.iter().any(|device| device.starts_with("tap")),
        "{names:?}"
    );
}

/// The handover whose steps these are.
fn node_handover(steps: &[Step]) -> Handover {
    let known = steps.iter().find_map(|step| match step {
        Step::KnowPods(pods) => Some(pods.clone()),
        _ => None,
    });
    let bridge = steps.iter().find_map(|step| match step {
        Step::RetireBridge { bridge, .. } => Some(bridge.clone()),
        _ => None,
    });
    Handover {
        bridge: bridge.expect("one retires"),
        bridge_aside: name("tl-bridge"),
        host_aside: name("tl-host"),
        uplink: None,
        dns: Dns::default(),
        node_address: None,
        pods: known.expect("the switch knows them"),
    }
}

pub(crate) fn a_bridge_that_cannot_be_adopted_is_refused_with_every_reason() {
    let node = Node::new(
        "cbr0",
        &["10.244.1.1/24"],
        Ipv4Addr::new(10, 244, 1, 2),
        24,
        1,
    );
    let told = |refusals: Vec<Refusal>| -> Vec<String> {
        refusals.iter().map(ToString::to_string).collect()
    };
    let look = |bridge: &str, paths: &[PathBuf]| {
        observe(&node.net, &name(bridge), &name("eth0"), paths)
            .map(drop)
            .map_err(told)
    };
    assert_eq!(
        look("cbr1", &node.paths),
        Err(vec!["there is no device cbr1".to_owned()])
    );
    assert_eq!(
        look("lo", &node.paths),
        Err(vec!["lo is no Linux bridge but a plain device".to_owned()])
    );
    let tap = TapSpec::new(name("tap9"), 1500);
    control::devices::tap::ensure(&node.net, &tap).expect("a TAP");
    node.net
        .set_bridge(&name("tap9"), &name("cbr0"))
        .expect("a port");
    assert_eq!(
        look("cbr0", &[]),
        Err(vec![
            "the pod behind port veth00000000 cannot be found: its namespace has no path on this node"
                .to_owned(),
            "port tap9 is tun, not a veth".to_owned(),
        ])
    );
}
