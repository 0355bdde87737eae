//! Attacks on a switch with real devices: what a pair of pods gets through meanwhile.
//!
//! In: the right to make namespaces; `TAPLINE_HOSTILE_SECONDS`, how long each measurement takes.
//! Out: the pair's throughput beside each attack, as a share of what it gets while the attacker sends
//! as many honest frames; and the counters in which the attack is seen.
//! Never: a verdict on speed from a short run, which only looks for a pair that is cut off.
//!
//! First attack and honest frames go out as fast as the attacker can send them. Then both do at the
//! rate that the slower of the two holds, and that is the comparison. The share of the full speeds,
//! where the attack may be twice as many frames, is printed beside it.
//!
//! The long form, which holds the shares against 0.9:
//!
//! ```text
//! TAPLINE_HOSTILE_SECONDS=0.25 cargo test --release -p tapline-tests --test hostile devices -- --nocapture
//! ```

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
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
use dataplane::frame::offload::{NEEDS_CSUM, Offload};
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

/// Frames that a sender hands in between two looks at the clock.
const HANDFUL: u64 = 32;
/// Rounds of the long form: on two processors a single one says little.
const ROUNDS: usize = 24;
/// For so many honest frames, an attack is as many. With fewer honest ones the pair has it the better
/// beside them, so that is the stricter side.
const AS_MANY: RangeInclusive<f64> = 0.95..=1.15;

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

    /// What the pair gets while the attacker sends.
    fn measure(&self, what: &Attack, pace: Pace, lasting: Duration) -> Measured {
        let (stop, sent) = (AtomicBool::new(false), Sent::default());
        std::thread::scope(|scope| {
            let attacker = scope.spawn(|| {
                let attack = || storm(what, pace, &stop, &sent);
                self.pods[ATTACKER].run(attack)
            });
            let measured = self.transfer(lasting, &sent);
            stop.store(true, Ordering::Relaxed);
            let attacked = attacker.join().expect("no panic");
            attacked.expect("a packet socket");
            measured.expect("the pair talks")
        })
    }

    /// What the pair gets beside honest frames, and then beside an attack, which is seen.
    fn compare(&self, attack: &Attack, pace: Pace, lasting: Duration) -> Beside {
        let honest = self.measure(&HONEST, pace, lasting);
        let before = self.switch.board().port(port(ATTACKER)).dropped;
        let attacked = self.measure(attack, pace, lasting);
        let after = self.switch.board().port(port(ATTACKER)).dropped;
        for reason in attack.seen {
            let count = after.of(*reason) - before.of(*reason);
            // A slow storm, in a short run, may be within what is allowed at once.
            let seen = count > 0 || matches!(pace, Pace::At(_));
            assert!(seen, "{} is not seen in {reason}", attack.name);
        }
        Beside { attacked, honest }
    }

    fn transfer(&self, lasting: Duration, sent: &Sent) -> io::Result<Measured> {
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
            let (start, before, mut bytes) = (Instant::now(), sent.read(), 0);
            while start.elapsed() < lasting {
                bytes += heard.read(&mut chunk)?;
            }
            let (seconds, after) = (start.elapsed().as_secs_f64(), sent.read());
            heard.shutdown(std::net::Shutdown::Both)?;
            drop(heard);
            Ok(Measured {
                pair: bytes as f64 / seconds,
                frames: (after.0 - before.0) as f64 / seconds,
                refused: (after.1 - before.1) as f64 / seconds,
            })
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

const ATTACKS: [Attack; 6] = [
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
        // Its own kernel refuses what is not sound, and nearly all of the rest are honest frames.
        seen: &[],
        next: |numbers| {
            let (frame, _) = honest(mac(ATTACKER), mac(FOURTH), ADDRESSES[ATTACKER]);
            (frame, crate::garbage(numbers))
        },
    },
    Attack {
        name: "offload headers that lie",
        seen: &[DropReason::BadOffload],
        next: |numbers| {
            let (frame, _) = honest(mac(ATTACKER), mac(FOURTH), ADDRESSES[ATTACKER]);
            // A checksum in the IP header. Its kernel objects only to one in the first 20 bytes.
            let lie = Offload {
                flags: NEEDS_CSUM,
                csum_start: 20 + numbers.below(14) as u16,
                csum_offset: numbers.below(16) as u16,
                ..Offload::NONE
            };
            (frame, lie)
        },
    },
];

/// How fast the attacker sends.
#[derive(Clone, Copy, Debug)]
enum Pace {
    Full,
    /// Frames a second. Whoever was held up makes up for it.
    At(f64),
}

impl Pace {
    /// How long to wait before the next frames, of one that has sent so many in so long.
    fn wait(self, sent: u64, after: Duration) -> Duration {
        match self {
            Pace::Full => Duration::ZERO,
            Pace::At(rate) => Duration::from_secs_f64(sent as f64 / rate).saturating_sub(after),
        }
    }
}

/// What the attacker counts.
#[derive(Default)]
struct Sent {
    frames: AtomicU64,
    /// Of these, what its own kernel did not take.
    refused: AtomicU64,
}

impl Sent {
    fn read(&self) -> (u64, u64) {
        let [frames, refused] =
            [&self.frames, &self.refused].map(|count| count.load(Ordering::Relaxed));
        (frames, refused)
    }
}

/// Sends at its pace, until it is told to stop.
fn storm(what: &Attack, pace: Pace, stop: &AtomicBool, sent: &Sent) -> io::Result<()> {
    let mut port = PacketPort::open("eth0")?;
    let mut pool = Pool::new(2, FRAME_MAX);
    let mut numbers = Numbers::seeded(8);
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..HANDFUL {
            let (bytes, offload) = (what.next)(&mut numbers);
            let mut frame = pool.take().expect("it has two");
            frame.set_len(bytes.len());
            pool.bytes_mut(&frame).copy_from_slice(&bytes);
            frame.offload = offload;
            // What its kernel refuses is sent all the same as far as the attacker can tell.
            if port.transmit(&frame, &mut pool).is_err() {
                sent.refused.fetch_add(1, Ordering::Relaxed);
            }
            pool.release(frame);
            sent.frames.fetch_add(1, Ordering::Relaxed);
        }
        let wait = pace.wait(sent.read().0, start.elapsed());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }
    Ok(())
}

/// What a measurement came to, in each second.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Bytes that the pair exchanged.
    pair: f64,
    /// Frames that the attacker sent.
    frames: f64,
    /// Of these, what its own kernel did not take.
    refused: f64,
}

/// The pair beside an attack, and beside honest frames.
#[derive(Clone, Copy, Debug)]
struct Beside {
    attacked: Measured,
    honest: Measured,
}

impl Beside {
    /// What the pair gets beside the attack, as a share of what it gets beside honest frames.
    fn share(&self) -> f64 {
        self.attacked.pair / self.honest.pair
    }
}

/// What came of an attack, round by round.
#[derive(Default)]
struct Rounds {
    /// Both as fast as they can be sent.
    full: Vec<Beside>,
    /// Both at one pace.
    as_many: Vec<Beside>,
}

impl Rounds {
    /// The rate that the slower of the two holds: it had at least that in nine rounds of ten.
    fn pace(&self) -> Pace {
        let honest = quantile(&self.full, 0.1, |beside| beside.honest.frames);
        let attacked = quantile(&self.full, 0.1, |beside| beside.attacked.frames);
        Pace::At(honest.min(attacked))
    }

    fn share(&self) -> f64 {
        quantile(&self.as_many, 0.5, Beside::share)
    }

    /// Frames of the attack for each honest one, in all.
    fn for_each(&self) -> f64 {
        let beside = self.as_many.iter();
        let attacked: f64 = beside.clone().map(|beside| beside.attacked.frames).sum();
        attacked / beside.map(|beside| beside.honest.frames).sum::<f64>()
    }

    /// A row of the table: shares, and thousands of frames a second.
    fn row(&self, name: &str) -> String {
        let figures = |rounds: &[Beside]| {
            let [share, attacked, honest] = [
                quantile(rounds, 0.5, Beside::share),
                quantile(rounds, 0.5, |beside| beside.attacked.frames / 1e3),
                quantile(rounds, 0.5, |beside| beside.honest.frames / 1e3),
            ];
            format!("{share:5.2} {attacked:7.0} {honest:7.0}")
        };
        let refused = quantile(&self.full, 0.5, |beside| beside.attacked.refused / 1e3);
        let (as_many, full) = (figures(&self.as_many), figures(&self.full));
        format!("{name:24} {as_many} {full} {refused:7.0}")
    }
}

/// Of a figure of some rounds, the one that such a part of them is below.
fn quantile(rounds: &[Beside], part: f64, figure: impl FnMut(&Beside) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(figure).collect();
    values.sort_by(f64::total_cmp);
    values[(values.len() as f64 * part) as usize]
}

#[test]
fn a_sender_keeps_its_pace_and_makes_up_for_a_delay() {
    let (mut sent, mut now) = (0, Duration::ZERO);
    let pace = Pace::At(100_000.0);
    for handful in 0..1000 {
        sent += HANDFUL;
        now += Duration::from_micros(if handful == 500 { 50_000 } else { 10 });
        now += pace.wait(sent, now);
    }
    let rate = sent as f64 / now.as_secs_f64();
    assert!((99_999.0..100_001.0).contains(&rate), "{rate}");
    assert_eq!(Pace::Full.wait(sent, Duration::ZERO), Duration::ZERO);
}

#[test]
fn a_pair_keeps_its_throughput_whatever_a_third_sends() {
    let seconds: Option<f64> = std::env::var("TAPLINE_HOSTILE_SECONDS")
        .ok()
        .map(|text| text.parse().expect("a number of seconds"));
    let (lasting, rounds, least) = match seconds {
        Some(seconds) => (Duration::from_secs_f64(seconds), ROUNDS, 0.9),
        None => (Duration::from_millis(150), 2, 0.1),
    };
    let node = Node::new();
    let mut all: [Rounds; ATTACKS.len()] = Default::default();
    for _ in 0..rounds {
        for (attack, rounds) in ATTACKS.iter().zip(&mut all) {
            let beside = node.compare(attack, Pace::Full, lasting);
            rounds.full.push(beside);
        }
    }
    for _ in 0..rounds {
        for (attack, rounds) in ATTACKS.iter().zip(&mut all) {
            let beside = node.compare(attack, rounds.pace(), lasting);
            rounds.as_many.push(beside);
        }
    }
    println!("Share of the throughput beside honest frames; attack's and honest frames, 1000/s:");
    let heads = ["as many of both", "each at full speed", "kernel refused"];
    println!("{:24} {:21} {:21} {}", "", heads[0], heads[1], heads[2]);
    for (attack, rounds) in ATTACKS.iter().zip(&all) {
        println!("{}", rounds.row(attack.name));
    }
    for (Attack { name, .. }, rounds) in ATTACKS.iter().zip(&all) {
        let (share, ratio) = (rounds.share(), rounds.for_each());
        // In a short run, on a machine that does other things, nobody keeps a pace.
        let many = seconds.is_none() || AS_MANY.contains(&ratio);
        assert!(many, "{name}: {ratio:.2} frames for each honest one");
        assert!(share >= least, "{name}: {share:.2}, and at least {least}");
    }
    let counts = node.switch.stop().expect("no law was broken");
    assert!(counts.is_balanced(), "{counts}");
}
