//! Attacks on a switch with real devices: what a pair of pods gets through meanwhile.
//!
//! In: the right to make namespaces; `TAPLINE_HOSTILE_SECONDS`, how long each measurement takes.
//! Out: the pair's throughput beside each attack, as a share of what it gets while the attacker sends
//! honest frames as fast as it can; and the counters in which the attack is seen.
//! Never: a verdict on speed from a short run, which only looks for a pair that is cut off.
//!
//! The long form, which holds the shares against 0.9:
//!
//! ```text
//! TAPLINE_HOSTILE_SECONDS=4 cargo test --release -p tapline-tests --test hostile devices -- --nocapture
//! ```

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use benches::scales::Numbers;
use benches::world::udp;
use control::compile::{self, FIRST_POD_PORT, HOST_PORT, NodeMacs, PodPort};
use control::devices::attach::{HostPort, PodEnd, PodVeth};
use control::devices::name::DeviceName;
use control::devices::netlink::Netlink;
use control::devices::netns::Netns;
use control::devices::tap::TapSpec;
use control::plan::{self, LoadOptions, Plan};
use dataplane::addr::{Mac, PortId, Station};
use dataplane::buffer::{FRAME_MAX, Pool};
use dataplane::frame::offload::Offload;
use dataplane::port::Port;
use dataplane::port::packet::PacketPort;
use dataplane::port::tap::{Queues, TapPort};
use dataplane::switch::{Options, Switch};
use dataplane::tables::Tables;
use dataplane::verdict::DropReason;
use ipnet::Ipv4Net;

const MTU: u32 = 1500;
const PORT: u16 = 7007;
/// Two that talk, one that attacks, and one whom it could as well talk to.
const ADDRESSES: [Ipv4Addr; 4] = [
    Ipv4Addr::new(10, 20, 0, 31),
    Ipv4Addr::new(10, 20, 0, 32),
    Ipv4Addr::new(10, 20, 0, 33),
    Ipv4Addr::new(10, 20, 0, 5),
];
const TALKER: usize = 0;
const LISTENER: usize = 1;
const ATTACKER: usize = 2;
const FOURTH: usize = 3;

fn device(name: &str) -> DeviceName {
    DeviceName::new(name).expect("a device name")
}

fn mac(pod: usize) -> Mac {
    let [a, b, c, d] = ADDRESSES[pod].octets();
    Mac::new([0x0a, 0x58, a, b, c, d])
}

fn port(pod: usize) -> PortId {
    PortId::new(FIRST_POD_PORT + pod).expect("a few pods")
}

fn namespace(name: &str) -> Netns {
    Netns::create(name)
        .unwrap_or_else(|error| panic!("this test makes network namespaces: {error}"))
}

/// A node of the seed's azure cluster with four pods.
struct Node {
    switch: Switch<TapPort>,
    pods: Vec<Netns>,
    /// What else lives as long.
    _netns: Netns,
}

impl Node {
    fn new() -> Node {
        let plan = plan::load(&LoadOptions::built_in()).expect("the seed's documents are good");
        let netns = namespace("node");
        let net = Netlink::open(&netns).expect("a netlink socket");
        let nic = Station::new(Mac::new([0, 0x0d, 0x3a, 0x14, 0, 4])).expect("a station");
        let host = HostPort {
            tap: TapSpec::new(device("azure0"), MTU),
            mac: nic.mac(),
            addresses: Vec::new(),
            alias: None,
        };
        host.attach(&net).expect("a host port");
        let tables = tables(&plan, NodeMacs { nic, host: nic });
        let switch = Switch::start(&Options::named("hostile"), tables).expect("a thread");
        let open = |tap: &DeviceName| {
            let opened = netns.run(|| TapPort::open(tap.as_str(), Queues::Single));
            opened.expect("the TAP is there and free")
        };
        let host = open(&host.tap.name);
        switch.attach(HOST_PORT, host).expect("the thread lives");
        let pods = (0..ADDRESSES.len()).map(|pod| {
            let inside = namespace(&format!("pod-{pod}"));
            let tap = device(&format!("tap-{pod}"));
            attach(&net, &inside, pod, &tap);
            switch.attach(port(pod), open(&tap)).expect("it lives");
            let patience = Duration::from_secs(5);
            for name in [tap, device(&format!("azv-{pod}"))] {
                net.wait_until_running(&name, patience).expect("it is up");
            }
            inside
        });
        let pods = pods.collect();
        Node {
            switch,
            pods,
            _netns: netns,
        }
    }

    /// Throughput of the pair in bytes a second, and frames that the attacker sent meanwhile.
    fn measure(&self, what: &Attack, lasting: Duration) -> (f64, u64) {
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let attacker = scope.spawn(|| {
                let attack = || storm(what, &stop, &sent);
                self.pods[ATTACKER].run(attack)
            });
            let rate = self.transfer(lasting);
            stop.store(true, Ordering::Relaxed);
            let attacked = attacker.join().expect("no panic");
            attacked.expect("a packet socket");
            (rate.expect("the pair talks"), sent.load(Ordering::Relaxed))
        })
    }

    fn transfer(&self, lasting: Duration) -> io::Result<f64> {
        let listener =
            self.pods[LISTENER].run(|| TcpListener::bind((ADDRESSES[LISTENER], PORT)))?;
        let stream = self.pods[TALKER].run(|| {
            let to = (IpAddr::V4(ADDRESSES[LISTENER]), PORT).into();
            TcpStream::connect_timeout(&to, Duration::from_secs(10))
        })?;
        let (mut heard, _) = listener.accept()?;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut stream = stream;
                let chunk = vec![0x5a; 64 << 10];
                // Until the other end hangs up.
                while stream.write_all(&chunk).is_ok() {}
            });
            let mut chunk = vec![0; 256 << 10];
            heard.set_read_timeout(Some(Duration::from_secs(5)))?;
            let warm = Instant::now() + lasting / 4;
            while Instant::now() < warm {
                let _ = heard.read(&mut chunk)?;
            }
            let (start, mut bytes) = (Instant::now(), 0);
            while start.elapsed() < lasting {
                bytes += heard.read(&mut chunk)?;
            }
            let rate = bytes as f64 / start.elapsed().as_secs_f64();
            heard.shutdown(std::net::Shutdown::Both)?;
            drop(heard);
            Ok(rate)
        })
    }
}

fn tables(plan: &Plan, macs: NodeMacs) -> Tables {
    let pod = |pod: usize| {
        let mac = Station::new(mac(pod)).expect("a station");
        PodPort::new(port(pod), mac, vec![ADDRESSES[pod].into()])
    };
    let pods: Vec<PodPort> = (0..ADDRESSES.len()).map(pod).collect();
    let spec = compile::compile(plan, &plan.nodes[0], macs, &pods);
    Tables::build(&spec).expect("a plan makes good tables")
}

fn attach(net: &Netlink, inside: &Netns, pod: usize, tap: &DeviceName) {
    let veth = PodVeth {
        host_end: device(&format!("azv-{pod}")),
        tap: TapSpec::new(tap.clone(), MTU),
        pod: PodEnd {
            name: device("eth0"),
            mac: mac(pod),
            addresses: vec![Ipv4Net::new(ADDRESSES[pod], 24).expect("a length").into()],
            gateways: vec![IpAddr::V4(Ipv4Addr::new(10, 20, 0, 1))],
            mtu: MTU,
        },
        alias: None,
    };
    let link = Netlink::open(inside).expect("a netlink socket");
    veth.attach(net, &link).expect("a pod port");
}

/// What the attacker sends, frame by frame.
struct Attack {
    name: &'static str,
    /// In which of the counters it is seen; nothing for an honest sender.
    seen: &'static [DropReason],
    next: fn(&mut Numbers) -> (Vec<u8>, Offload),
}

fn honest(source: Mac, target: Mac, from: Ipv4Addr) -> (Vec<u8>, Offload) {
    (
        udp(source, target, from, ADDRESSES[FOURTH], 64),
        Offload::NONE,
    )
}

const HONEST: Attack = Attack {
    name: "honest frames",
    seen: &[],
    next: |_| honest(mac(ATTACKER), mac(FOURTH), ADDRESSES[ATTACKER]),
};

const ATTACKS: [Attack; 5] = [
    Attack {
        name: "random stations",
        seen: &[DropReason::SpoofedMac],
        next: |numbers| {
            let [a, b, c, d, ..] = (numbers.below(1 << 30) as u64).to_le_bytes();
            let source = Mac::new([0x0e, 1, a, b, c, d]);
            honest(source, mac(FOURTH), ADDRESSES[ATTACKER])
        },
    },
    Attack {
        name: "ARP storm",
        seen: &[DropReason::BroadcastStorm],
        next: |_| {
            let mut frame = vec![0xff; 6];
            frame.extend(mac(ATTACKER).octets());
            frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
            frame.extend(mac(ATTACKER).octets());
            frame.extend(ADDRESSES[ATTACKER].octets());
            frame.extend([0; 6]);
            frame.extend(ADDRESSES[TALKER].octets());
            (frame, Offload::NONE)
        },
    },
    Attack {
        name: "broadcast storm",
        seen: &[DropReason::BroadcastStorm],
        next: |_| honest(mac(ATTACKER), Mac::BROADCAST, ADDRESSES[ATTACKER]),
    },
    Attack {
        name: "forged addresses",
        seen: &[DropReason::SpoofedIp, DropReason::StationElsewhere],
        next: |numbers| match numbers.below(2) {
            0 => honest(mac(ATTACKER), mac(FOURTH), ADDRESSES[TALKER]),
            _ => honest(mac(TALKER), mac(FOURTH), ADDRESSES[TALKER]),
        },
    },
    Attack {
        name: "garbage offload headers",
        // Its own kernel refuses what is not sound, and the rest is an honest frame.
        seen: &[],
        next: |numbers| {
            let (frame, _) = honest(mac(ATTACKER), mac(FOURTH), ADDRESSES[ATTACKER]);
            (frame, crate::garbage(numbers))
        },
    },
];

/// Sends as fast as it can, until it is told to stop.
fn storm(what: &Attack, stop: &AtomicBool, sent: &AtomicU64) -> io::Result<()> {
    let mut port = PacketPort::open("eth0")?;
    let mut pool = Pool::new(2, FRAME_MAX);
    let mut numbers = Numbers::seeded(8);
    while !stop.load(Ordering::Relaxed) {
        let (bytes, offload) = (what.next)(&mut numbers);
        let mut frame = pool.take().expect("it has two");
        frame.set_len(bytes.len());
        pool.bytes_mut(&frame).copy_from_slice(&bytes);
        frame.offload = offload;
        // What its kernel refuses is sent all the same as far as the attacker can tell.
        let _ = port.transmit(&frame, &mut pool);
        pool.release(frame);
        sent.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn a_pair_keeps_its_throughput_whatever_a_third_sends() {
    let seconds: Option<f64> = std::env::var("TAPLINE_HOSTILE_SECONDS")
        .ok()
        .map(|text| text.parse().expect("a number of seconds"));
    let (lasting, rounds, least) = match seconds {
        Some(seconds) => (Duration::from_secs_f64(seconds), 5, 0.9),
        None => (Duration::from_millis(150), 3, 0.1),
    };
    let node = Node::new();
    let mut shares = vec![Vec::new(); ATTACKS.len()];
    for _ in 0..rounds {
        for (attack, shares) in ATTACKS.iter().zip(&mut shares) {
            let (beside_honest, honest_frames) = node.measure(&HONEST, lasting);
            let before = node.switch.board().port(port(ATTACKER)).dropped;
            let (beside_attack, frames) = node.measure(attack, lasting);
            let after = node.switch.board().port(port(ATTACKER)).dropped;
            for reason in attack.seen {
                let count = after.of(*reason) - before.of(*reason);
                assert!(count > 0, "{} is not seen in {reason}", attack.name);
            }
            println!(
                "{}: {:.2} Gbit/s beside {frames} frames, {:.2} beside {honest_frames} honest ones",
                attack.name,
                beside_attack * 8e-9,
                beside_honest * 8e-9,
            );
            shares.push(beside_attack / beside_honest);
        }
    }
    for (attack, shares) in ATTACKS.iter().zip(shares) {
        let share = median(shares);
        println!(
            "{}: {share:.2} of the throughput beside honest frames",
            attack.name
        );
        assert!(
            share >= least,
            "{}: {share:.2}, and at least {least}",
            attack.name
        );
    }
    let counts = node.switch.stop().expect("no law was broken");
    assert!(counts.is_balanced(), "{counts}");
}
