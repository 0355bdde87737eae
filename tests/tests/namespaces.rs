//! The switch on real devices: TAPs, veths and kernels, each in a namespace of its own.
//!
//! In: the right to make namespaces. Out: pods that reach each other, and books that balance.
//! Never: touches the machine's own network; what is made here dies with its descriptors.
//! Not checked here: the uplink and the fabric (control/tests), and speed.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use control::compile::{self, FIRST_POD_PORT, HOST_PORT, NodeMacs, PodPort};
use control::devices::attach::{HostPort, PodEnd, PodTap, PodVeth};
use control::devices::name::DeviceName;
use control::devices::netlink::Netlink;
use control::devices::netlink::filter::{Deed, Match, Rule};
use control::devices::netns::Netns;
use control::devices::tap::{self, TapSpec};
use control::lab::probe::ping::{PingReport, PingSpec, ping};
use control::lab::probe::transfer::{TransferSpec, transfer};
use control::plan::{self, LoadOptions, Plan};
use dataplane::addr::{Mac, PortId, Station};
use dataplane::buffer::{FRAME_MAX, Pool};
use dataplane::frame::offload::Offload;
use dataplane::port::Port;
use dataplane::port::tap::{Batching, Queues, TapPort};
use dataplane::switch::{Options, Switch};
use dataplane::tables::Tables;
use etherparse::PacketBuilder;
use ipnet::Ipv4Net;

const MTU: u32 = 1500;
const POD_A: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 31);
const POD_B: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 5);

fn device(name: &str) -> DeviceName {
    DeviceName::new(name).expect("a device name")
}

fn station(bytes: [u8; 6]) -> Station {
    Station::new(Mac::new(bytes)).expect("neither group nor zero")
}

/// One node of the seed's azure cluster, without its NIC, and what hangs on its switch.
struct Node {
    plan: Plan,
    macs: NodeMacs,
    netns: Netns,
    net: Netlink,
    switch: Switch<TapPort>,
    pods: Vec<PodPort>,
}

/// A pod, and the TAP that its frames come from.
struct Pod {
    netns: Netns,
    port: PortId,
    tap: DeviceName,
    /// The node's end of its veth, if it has one.
    host_end: Option<DeviceName>,
    /// Where the TAP is: the node's namespace, or the pod's own.
    tap_in: Netns,
    mac: Mac,
    address: Ipv4Addr,
}

impl Node {
    fn new() -> Node {
        let plan = plan::load(&LoadOptions::built_in()).expect("the seed's documents are good");
        let netns = namespace("node-0");
        let net = Netlink::open(&netns).expect("a netlink socket");
        let nic = station([0x00, 0x0d, 0x3a, 0x14, 0x00, 0x04]);
        let macs = NodeMacs { nic, host: nic };
        let host = HostPort {
            tap: TapSpec::new(device("azure0"), MTU),
            mac: nic.mac(),
            addresses: Vec::new(),
            alias: None,
        };
        host.attach(&net).expect("a host port");
        let tables = tables(&plan, macs, &[]);
        let switch = Switch::start(&Options::named("tl-test"), tables).expect("a thread");
        let port = open(&netns, &host.tap.name);
        switch.attach(HOST_PORT, port).expect("the thread lives");
        let pods = Vec::new();
        Node {
            plan,
            macs,
            netns,
            net,
            switch,
            pods,
        }
    }

    /// A pod behind a veth, as the lab's are.
    fn veth_pod(&mut self, name: &str, address: Ipv4Addr) -> Pod {
        let pod = self.pod(name, address, device(&format!("tap-{name}")));
        let pod = Pod {
            tap_in: self.netns.clone(),
            host_end: Some(device(&format!("azv-{name}"))),
            ..pod
        };
        let veth = PodVeth {
            host_end: device(&format!("azv-{name}")),
            tap: TapSpec::new(pod.tap.clone(), MTU),
            pod: end(&pod),
            alias: None,
        };
        let inside = Netlink::open(&pod.netns).expect("a netlink socket");
        veth.attach(&self.net, &inside).expect("a pod port");
        self.plug(&pod);
        pod
    }

    /// A pod whose `eth0` is the TAP itself.
    fn tap_pod(&mut self, name: &str, address: Ipv4Addr) -> Pod {
        let pod = self.pod(name, address, device("eth0"));
        let inside = Netlink::open(&pod.netns).expect("a netlink socket");
        let tap = PodTap {
            tap: TapSpec::new(pod.tap.clone(), MTU),
            pod: end(&pod),
            alias: None,
        };
        tap.attach(&inside).expect("a pod port");
        self.plug(&pod);
        pod
    }

    fn pod(&mut self, name: &str, address: Ipv4Addr, tap: DeviceName) -> Pod {
        let port = PortId::new(FIRST_POD_PORT + self.pods.len()).expect("a few pods");
        let [a, b, c, d] = address.octets();
        let mac = station([0x0a, 0x58, a, b, c, d]);
        self.pods
            .push(PodPort::new(port, mac, vec![address.into()]));
        let netns = namespace(name);
        let tap_in = netns.clone();
        Pod {
            netns,
            port,
            tap,
            host_end: None,
            tap_in,
            mac: mac.mac(),
            address,
        }
    }

    fn plug(&mut self, pod: &Pod) {
        let port = open(&pod.tap_in, &pod.tap);
        self.switch
            .attach(pod.port, port)
            .expect("the thread lives");
        let tables = tables(&self.plan, self.macs, &self.pods);
        self.switch.publish(tables);
        self.settle(pod);
    }

    /// Waits until the kernel sends by the pod's devices: until then it discards.
    fn settle(&self, pod: &Pod) {
        let patience = Duration::from_secs(5);
        let inside = Netlink::open(&pod.tap_in).expect("a netlink socket");
        inside
            .wait_until_running(&pod.tap, patience)
            .expect("the switch has it open");
        if let Some(host_end) = &pod.host_end {
            self.net
                .wait_until_running(host_end, patience)
                .expect("both ends are up");
        }
    }

    /// Every reply comes, as from a neighbour on the same bridge.
    fn reaches(&self, from: &Pod, to: &Pod) {
        let report = pings(from, to, 10);
        let counts = self.switch.board().counts();
        let found = (report.received(), report.ttl());
        assert_eq!(
            found,
            (10, Some(64)),
            "{report:?}; {counts}: {:?}",
            counts.dropped
        );
    }

    /// Waits until the switch has nothing left to do.
    fn rest(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut last = self.switch.board().counts();
        loop {
            std::thread::sleep(Duration::from_millis(30));
            let now = self.switch.board().counts();
            if now == last && now.is_balanced() {
                return;
            }
            assert!(Instant::now() < deadline, "no rest: {now}");
            last = now;
        }
    }
}

fn namespace(name: &str) -> Netns {
    Netns::create(name).unwrap_or_else(|error| {
        panic!(
            "this test makes network namespaces, which was refused ({error}): run it as root, or \
             under `unshare --map-root-user --net`"
        )
    })
}

fn tables(plan: &Plan, macs: NodeMacs, pods: &[PodPort]) -> Tables {
    let spec = compile::compile(plan, &plan.nodes[0], macs, pods);
    Tables::build(&spec).expect("a plan makes good tables")
}

fn open(netns: &Netns, tap: &DeviceName) -> TapPort {
    netns
        .run(|| TapPort::open(tap.as_str(), Queues::Single))
        .expect("the TAP is there and free")
}

fn end(pod: &Pod) -> PodEnd {
    PodEnd {
        name: device("eth0"),
        mac: pod.mac,
        addresses: vec![Ipv4Net::new(pod.address, 24).expect("a length").into()],
        gateways: vec![IpAddr::V4(Ipv4Addr::new(10, 20, 0, 1))],
        mtu: MTU,
    }
}

fn pings(from: &Pod, to: &Pod, count: u16) -> PingReport {
    let spec = PingSpec {
        count,
        interval: Duration::from_millis(5),
        ..PingSpec::to(to.address.into())
    };
    ping(&from.netns, &spec).expect("a socket in the pod")
}

#[test]
fn taps_as_the_pods_own_eth0_carry_pings_and_super_frames() {
    let mut node = Node::new();
    let a = node.tap_pod("a", POD_A);
    let b = node.tap_pod("b", POD_B);
    node.reaches(&a, &b);
    let spec = TransferSpec::to(b.address.into(), 20_000_000);
    let report = transfer(&b.netns, &a.netns, &spec).expect("it arrives in time");
    assert!(report.whole() && report.bytes == 20_000_000, "{report:?}");
    node.rest();
    let large = node.switch.board().super_frames();
    assert!(large > 100, "20 MB came in {large} super-frames");
    let counts = node.switch.stop().expect("no law was broken");
    assert!(counts.is_balanced(), "{counts}");
}

#[test]
fn a_tap_and_a_veth_reach_each_other() {
    let mut node = Node::new();
    let a = node.tap_pod("a", POD_A);
    let b = node.veth_pod("b", POD_B);
    for (from, to) in [(&a, &b), (&b, &a)] {
        node.reaches(from, to);
        let spec = TransferSpec::to(to.address.into(), 5_000_000);
        let report = transfer(&to.netns, &from.netns, &spec).expect("it arrives in time");
        assert!(report.whole(), "{report:?}");
    }
    assert!(node.switch.stop().expect("no law was broken").is_balanced());
}

#[test]
fn a_persistent_tap_is_opened_again_by_name_and_by_one_at_a_time() {
    let mut node = Node::new();
    let a = node.tap_pod("a", POD_A);
    let b = node.veth_pod("b", POD_B);
    let again = |queues| {
        b.tap_in
            .run(|| TapPort::open(b.tap.as_str(), queues))
            .map(drop)
    };
    let busy = again(Queues::Single).expect_err("the switch has it");
    assert_eq!(busy.raw_os_error(), Some(16), "EBUSY: {busy}");
    drop(node.switch.detach(b.port).expect("the thread lives"));
    let other = again(Queues::Multi).expect_err("it was made with one queue");
    assert_eq!(other.raw_os_error(), Some(22), "EINVAL: {other}");
    again(Queues::Single).expect("it outlived its descriptor");
    assert_eq!(pings(&a, &b, 1).received(), 0, "nobody reads it now");
    node.plug(&b);
    let report = pings(&a, &b, 5);
    assert_eq!(report.received(), 5, "{report:?}");
}

#[test]
fn ports_come_and_go_while_frames_flow() {
    let mut node = Node::new();
    let a = node.veth_pod("a", POD_A);
    let b = node.veth_pod("b", POD_B);
    let stop = AtomicBool::new(false);
    let heard = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let spec = PingSpec {
                count: 20,
                interval: Duration::ZERO,
                timeout: Duration::from_millis(20),
                ..PingSpec::to(b.address.into())
            };
            let mut heard = 0;
            while !stop.load(Ordering::Relaxed) {
                heard += ping(&a.netns, &spec)
                    .expect("a socket in the pod")
                    .received();
            }
            heard
        });
        for turn in 0..40 {
            let mut queues = node.switch.detach(b.port).expect("the thread lives");
            let port = queues.pop().expect("it was attached");
            // The same port again, or one freshly opened.
            let port = if turn % 2 == 0 {
                port
            } else {
                drop(port);
                open(&b.tap_in, &b.tap)
            };
            node.switch.attach(b.port, port).expect("the thread lives");
            node.settle(&b);
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        traffic.join().expect("no panic")
    });
    assert!(heard > 0, "nothing flowed");
    node.reaches(&a, &b);
    let counts = node.switch.stop().expect("no law was broken");
    assert!(counts.is_balanced(), "{counts}");
}

/// Numbers that follow from a seed (xorshift64*, Vigna 2016).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() >> 33).expect("31 bits") % bound
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.roll().to_be_bytes()[0]).collect()
    }

    fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len())]
    }

    /// A frame that a program in the pod with a packet socket might send.
    fn frame(&mut self, from: &Pod, to: &Pod) -> Vec<u8> {
        const FABRIC: Mac = compile::FABRIC_MAC;
        let target = self.of(&[
            to.mac,
            from.mac,
            FABRIC,
            Mac::BROADCAST,
            Mac::new([1, 0, 94, 0, 0, 1]),
        ]);
        let source = self.of(&[from.mac, from.mac, to.mac, Mac::ZERO, Mac::BROADCAST]);
        let mut frame = match self.below(4) {
            0 => {
                let len = 15 + self.below(MTU as usize - 1);
                return self.bytes(len);
            }
            1 => {
                let kind = self.of(&[[8, 0], [8, 6], [0x86, 0xdd], [0x81, 0]]);
                [&target.octets()[..], &source.octets(), &kind].concat()
            }
            _ => self.datagram(from, to, target, source),
        };
        if frame.len() == 14 {
            let rest = self.below(1400) + 1;
            frame.extend(self.bytes(rest));
        } else {
            // A good packet with a few bytes changed behind its addresses.
            for _ in 0..self.below(4) {
                let at = 12 + self.below(frame.len() - 12);
                frame[at] = self.bytes(1)[0];
            }
            let keep = frame.len() - self.below(10).saturating_sub(6);
            frame.truncate(keep);
        }
        frame
    }

    fn datagram(&mut self, from: &Pod, to: &Pod, target: Mac, source: Mac) -> Vec<u8> {
        let far = Ipv4Addr::new(10, 20, 0, 43);
        let nobody = Ipv4Addr::new(10, 20, 0, 7);
        let address = self.of(&[
            to.address,
            far,
            nobody,
            Ipv4Addr::BROADCAST,
            Ipv4Addr::LOCALHOST,
        ]);
        let ttl = self.of(&[0, 1, 2, 64, 255]);
        let len = self.below(1400);
        let payload = self.bytes(len);
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(source.octets(), target.octets())
            .ipv4(from.address.octets(), address.octets(), ttl)
            .udp(4000, 4001)
            .write(&mut frame, &payload)
            .expect("a Vec takes every write");
        frame
    }

    /// What may be claimed of it: often nothing, or something that fits, or nonsense.
    fn offload(&mut self, len: usize) -> Offload {
        let word = |dice: &mut Dice| dice.roll().to_be_bytes();
        match self.below(4) {
            0 | 1 => Offload::NONE,
            2 => Offload {
                flags: 1,
                gso_type: self.of(&[0, 1, 4, 5, 0x81]),
                hdr_len: 42,
                gso_size: self.of(&[0, 1, 7, 536, 1448]),
                csum_start: 34,
                csum_offset: self.of(&[6, 16]),
            },
            _ => {
                let [flags, gso_type, a, b, c, d, e, f] = word(self);
                let bound = u16::try_from(len).unwrap_or(u16::MAX).max(1);
                Offload {
                    flags: flags & 7,
                    gso_type: gso_type & 0x87,
                    hdr_len: u16::from_be_bytes([a, b]) % bound,
                    gso_size: u16::from_be_bytes([c, d]),
                    csum_start: u16::from_be_bytes([e, f]) % bound,
                    csum_offset: u16::from(f),
                }
            }
        }
    }
}

/// A TAP in the pod, all of whose frames leave by the pod's `eth0`, offload header and all: what a
/// packet socket with `PACKET_VNET_HDR` can do, without its checks of our making.
fn injector(pod: &Pod) -> TapPort {
    let net = Netlink::open(&pod.netns).expect("a netlink socket");
    let name = device("inject0");
    tap::ensure(&net, &TapSpec::new(name.clone(), MTU)).expect("a TAP");
    net.ensure_clsact(&name).expect("a classifier");
    let rule = Rule {
        frames: Match::Every,
        deed: Deed::Redirect(net.index(&device("eth0")).expect("the pod's end")),
    };
    net.set_rules(&name, &[rule]).expect("a rule");
    net.set_up(&name, true).expect("it comes up");
    let open = || TapPort::open_with(name.as_str(), Queues::Single, Batching::Off);
    pod.netns.run(open).expect("the TAP opens")
}

#[test]
fn frames_of_any_content_never_stop_the_switch() {
    const FRAMES: usize = 2000;
    let mut node = Node::new();
    let a = node.veth_pod("a", POD_A);
    let b = node.veth_pod("b", POD_B);
    let mut port = injector(&a);
    let mut pool = Pool::new(1, FRAME_MAX);
    let (mut dice, mut taken) = (Dice(0x7461_706c_696e_6531), 0);
    let before = node.switch.board().counts();
    for number in 0..FRAMES {
        let bytes = dice.frame(&a, &b);
        let mut frame = pool.take().expect("the one slot is free");
        pool.room(&frame)[..bytes.len()].copy_from_slice(&bytes);
        frame.set_len(bytes.len());
        frame.offload = dice.offload(bytes.len());
        // The kernel refuses some headers itself; the rest is the switch's to survive.
        taken += usize::from(port.transmit(&frame, &mut pool).is_ok());
        pool.release(frame);
        if number % 32 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    node.rest();
    let counts = node.switch.board().counts().since(&before);
    assert!(taken > FRAMES / 2, "the kernel took only {taken}");
    assert!(
        counts.received > FRAMES as u64 / 4,
        "{taken} taken, {counts}"
    );
    assert!(
        counts.dropped.iter().count() > 5,
        "few reasons: {:?}",
        counts.dropped
    );
    node.reaches(&a, &b);
    let counts = node.switch.stop().expect("no law was broken");
    assert!(counts.is_balanced(), "{counts}");
}
