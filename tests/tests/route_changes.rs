//! Routes that change while frames flow: what a worker forwards by is always one published table.
//!
//! In: workers on memory ports, each on a thread of its own, and tables in which every next hop
//! tells the version: the MAC is its number, the port whether that is odd.
//! Out: for each frame, by which version it went; no frame lost, none by an older version than the
//! one before it, none by a version that was not published yet.
//! Never: waits for a time and hopes: once `publish` has returned, a worker finishes the breath it
//! is in, and whatever it receives after that goes by the new table.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dataplane::addr::{Mac, PortId, Station};
use dataplane::buffer::FRAME_MAX;
use dataplane::clock::Monotonic;
use dataplane::port::memory::{MemoryPort, Peer, WireFrame, pair};
use dataplane::snapshot::Publisher;
use dataplane::stats::{Board, Counts};
use dataplane::tables::fdb::Fdb;
use dataplane::tables::fib::NextHop;
use dataplane::tables::live::LiveTables;
use dataplane::tables::{
    Addresses, Crossing, Policy, PortRole, PortSpec, Tables, TablesSpec, Unknown,
};
use dataplane::worker::Worker;
use etherparse::PacketBuilder;
use ipnet::{IpNet, Ipv4Net};

const ROUTER: [u8; 6] = [0x0a, 0x58, 0x0a, 0xf4, 1, 1];
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const INGRESS: usize = 0;
/// Where frames leave by even versions, and by odd ones.
const EGRESS: [usize; 2] = [1, 2];
const ROUTES: u32 = 2000;
/// Room of a port: a fifth of a second of frames, should a thread have to wait for a processor.
const QUEUE: usize = 1 << 15;
/// Bytes in front of a frame's number.
const HEADERS: usize = 42;

fn port(id: usize) -> PortId {
    PortId::new(id).expect("in range")
}

/// The next hop of every route in tables of that version.
fn hop(version: u64) -> NextHop {
    let [.., a, b, c, d] = version.to_be_bytes();
    NextHop::Station {
        port: port(EGRESS[version as usize % 2]),
        mac: Mac::new([2, 1, a, b, c, d]),
    }
}

/// A spread of addresses that reaches every route.
fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from((n.wrapping_mul(0x9e37_79b1) & 0x1fff_ffff) | 0x4000_0000)
}

/// Prefixes of all lengths from 2 to 32, in and beside each other; the first holds all addresses.
fn prefix(n: u32) -> IpNet {
    let net = Ipv4Net::new(address(n), 2 + (n % 31) as u8);
    IpNet::from(net.expect("length in range")).trunc()
}

fn routes(version: u64) -> impl Iterator<Item = (IpNet, NextHop)> {
    (0..ROUTES).map(move |n| (prefix(n), hop(version)))
}

fn spec() -> TablesSpec {
    let row = |id: usize| PortSpec {
        id: port(id),
        role: PortRole::Pod,
        mac: Station::new(Mac::new([2, 0, 0, 0, 1, id as u8])).expect("a station"),
        mtu: 1500,
        hairpin: false,
        isolated: false,
    };
    TablesSpec {
        ports: vec![row(INGRESS), row(EGRESS[0]), row(EGRESS[1])],
        owners: Vec::new(),
        router_macs: vec![Mac::new(ROUTER)],
        routes: routes(0).collect(),
        groups: Vec::new(),
        crossing: Crossing::Routed {
            uplink: Addresses::default(),
            gateway: Addresses::default(),
        },
        policy: Policy::None,
        unknown: Unknown::Drop,
        guards: Vec::new(),
    }
}

/// A frame for `target` that carries `number`.
fn frame(target: Ipv4Addr, number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(SENDER, ROUTER)
        .ipv4([10, 0, 0, 1], target.octets(), 64)
        .udp(1, 2)
        .write(&mut bytes, &number.to_be_bytes())
        .expect("into a vector");
    bytes
}

/// By which version a frame went, and its number. `from` is the place among the egress ports.
fn read(frame: &WireFrame, from: usize) -> (u64, u64) {
    let word = |at: usize| u64::from_be_bytes(frame.bytes[at..at + 8].try_into().expect("8 bytes"));
    let (mac, number) = (word(0) >> 16, word(HEADERS));
    let version = mac & 0xffff_ffff;
    assert_eq!(mac >> 32, 0x0201, "some next hop");
    assert_eq!(
        version as usize % 2,
        from,
        "port and MAC are of one version"
    );
    (version, number)
}

/// The far ends of one worker's ports.
struct Ends {
    ingress: Peer,
    egress: [Peer; 2],
    board: Arc<Board>,
}

impl Ends {
    /// What has come out, by version and number.
    fn drain(&self, mut each: impl FnMut(u64, u64)) {
        for (from, peer) in self.egress.iter().enumerate() {
            while let Some(frame) = peer.receive() {
                let (version, number) = read(&frame, from);
                each(version, number);
                peer.recycle(frame);
            }
        }
    }
}

/// Runs `scene` beside `count` workers that forward by what the publisher says.
fn with_workers(count: usize, scene: impl FnOnce(LiveTables, Publisher<Tables>, &[Ends])) {
    let live = LiveTables::build(&spec()).expect("sound");
    let publisher = Publisher::new(live.tables().clone());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // However the scene ends, the workers do.
        let _stopper = Stopper(&stop);
        let mut ends = Vec::new();
        for _ in 0..count {
            let mut worker: Worker<MemoryPort> =
                Worker::new(publisher.reader(), Arc::new(Fdb::new(64, 1)), FRAME_MAX);
            let mut attach = |id: usize| {
                let (inner, peer) = pair(QUEUE);
                worker.attach(port(id), inner);
                peer
            };
            ends.push(Ends {
                ingress: attach(INGRESS),
                egress: EGRESS.map(&mut attach),
                board: Arc::clone(worker.board()),
            });
            let stop = &stop;
            scope.spawn(move || {
                let clock = Monotonic::start();
                while !stop.load(Ordering::Relaxed) {
                    worker.wake_all();
                    if worker.breathe(clock.tick()).frames == 0 {
                        thread::yield_now();
                    }
                }
            });
        }
        scene(live, publisher, &ends);
    });
}

struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends two frames, one after the other has come out, and tells by which version the second went.
/// A breath that had begun before may take the first, but not both.
fn version_of(ends: &Ends, target: Ipv4Addr) -> u64 {
    let one = || {
        ends.ingress.send(&frame(target, 0)).expect("room");
        next_version(ends)
    };
    one();
    one()
}

/// Waits for the one frame that was sent, and tells by which version it went.
fn next_version(ends: &Ends) -> u64 {
    let until = Instant::now() + Duration::from_secs(20);
    let mut found = None;
    while found.is_none() {
        assert!(Instant::now() < until, "the frame never came out");
        ends.drain(|version, _| found = Some(version));
        thread::yield_now();
    }
    found.unwrap_or_default()
}

#[test]
fn a_change_counts_for_every_frame_after_the_breath_it_came_in() {
    with_workers(2, |mut live, mut publisher, ends| {
        for version in 1..=200 {
            let (net, hop) = (prefix(version as u32 * 7 % ROUTES), hop(version));
            // Another prefix may lie inside this one; ask where none does.
            let net = IpNet::from(net.addr());
            let changed = live.apply([(net, Some(hop))]).expect("sound");
            assert_eq!(changed, 1);
            publisher.publish(live.tables().clone());
            let std::net::IpAddr::V4(target) = net.addr() else {
                unreachable!("all are IPv4")
            };
            for end in ends {
                assert_eq!(version_of(end, target), version);
            }
        }
        // Coalesced: two thousand changes in one publication, and back.
        for version in [1000, 1001] {
            let changes = (0..ROUTES).map(|n| (prefix(n), Some(hop(version))));
            let holes = (1..=200).map(|v: u32| (IpNet::from(prefix(v * 7 % ROUTES).addr()), None));
            live.apply(holes.chain(changes)).expect("sound");
            publisher.publish(live.tables().clone());
            for end in ends {
                for n in (0..ROUTES).step_by(97) {
                    assert_eq!(version_of(end, address(n)), version);
                }
            }
        }
    });
}

/// What became of the frames sent to one worker, in the order of their numbers.
#[derive(Default)]
struct Account {
    sent: u64,
    refused: u64,
    arrived: u64,
    versions: Vec<Option<u64>>,
}

/// Sends to all workers at `rate` frames a second in all, or as fast as they take them, until
/// told to stop, and books what comes out. `newest` is the last version that may be in force.
fn traffic(
    ends: &[Ends],
    rate: Option<f64>,
    newest: &AtomicU64,
    go_on: impl Fn(Duration) -> bool,
) -> Vec<Account> {
    let frames: Vec<Vec<u8>> = (0..1 << 12).map(|n| frame(address(n), 0)).collect();
    let mut accounts: Vec<Account> = ends.iter().map(|_| Account::default()).collect();
    let mut scratch = Vec::new();
    let began = Instant::now();
    let settle = Duration::from_secs(20);
    let mut ended = None;
    loop {
        let now = began.elapsed();
        if ended.is_none() && !go_on(now) {
            ended = Some(now);
        }
        for (end, account) in ends.iter().zip(&mut accounts) {
            let due = match (ended, rate) {
                (Some(_), _) => account.sent,
                (None, Some(rate)) => (now.as_secs_f64() * rate / ends.len() as f64) as u64,
                // As many under way as a worker takes in a few breaths.
                (None, None) => account.arrived + 256,
            };
            while account.sent < due {
                scratch.clone_from(&frames[account.sent as usize % frames.len()]);
                scratch[HEADERS..HEADERS + 8].copy_from_slice(&account.sent.to_be_bytes());
                account.refused += u64::from(end.ingress.send(&scratch).is_err());
                account.versions.push(None);
                account.sent += 1;
            }
            end.drain(|version, number| {
                assert!(
                    version <= newest.load(Ordering::SeqCst),
                    "not published yet"
                );
                let twice = account.versions[number as usize].replace(version);
                assert_eq!(twice, None, "frame {number} came out twice");
                account.arrived += 1;
            });
        }
        let all = accounts
            .iter()
            .all(|account| account.arrived == account.sent);
        match ended {
            Some(_) if all => return accounts,
            Some(ended) if now > ended + settle => return accounts,
            _ => thread::yield_now(),
        }
    }
}

/// Tables are replaced whole, again and again, at half of the rate that the workers can keep up.
fn replaced_under_load(workers: usize) {
    with_workers(workers, |mut live, mut publisher, ends| {
        let newest = AtomicU64::new(0);
        let flat_out = Duration::from_millis(400);
        let accounts = traffic(ends, None, &newest, |now| now < flat_out);
        let sent: u64 = accounts.iter().map(|account| account.sent).sum();
        let half = sent as f64 / flat_out.as_secs_f64() / 2.0;
        let before: Vec<Counts> = ends.iter().map(|end| end.board.counts()).collect();
        let done = AtomicBool::new(false);
        let go_on = |_: Duration| !done.load(Ordering::SeqCst);
        let accounts = thread::scope(|scope| {
            let flowing = scope.spawn(|| traffic(ends, Some(half), &newest, go_on));
            let _stopper = Stopper(&done);
            for version in 1..=VERSIONS {
                let changed = live.replace(routes(version), Vec::new()).expect("sound");
                assert_eq!(changed, live.routes().count(), "every route");
                newest.store(version, Ordering::SeqCst);
                publisher.publish(live.tables().clone());
                thread::sleep(Duration::from_millis(5));
            }
            thread::sleep(Duration::from_millis(50));
            done.store(true, Ordering::SeqCst);
            flowing.join().expect("every frame by one version")
        });
        for ((account, end), before) in accounts.iter().zip(ends).zip(&before) {
            assert_eq!(
                account.refused, 0,
                "the worker did not keep up with half its rate"
            );
            let by: Vec<u64> = account.versions.iter().flatten().copied().collect();
            assert_eq!(by.len() as u64, account.sent, "frames were lost");
            assert!(
                by.is_sorted(),
                "a frame went by an older table than the one before it"
            );
            assert_eq!(by.last(), Some(&VERSIONS), "the newest was never in force");
            let mut seen = by.clone();
            seen.dedup();
            println!(
                "{workers} workers, {half:.0} frames/s in all: {} frames, {} versions seen",
                account.sent,
                seen.len()
            );
            assert!(
                seen.len() as u64 > VERSIONS / 3,
                "most came and went unseen: {seen:?}"
            );
            let counts = end.board.counts().since(before);
            let whole = Counts {
                received: account.sent,
                transmitted: account.sent,
                ..Counts::default()
            };
            assert_eq!(counts, whole);
        }
    });
}

const VERSIONS: u64 = 30;

#[test]
fn a_whole_replacement_under_load_loses_no_frame_and_mixes_no_tables() {
    // One after the other: each is to have the processors to itself.
    replaced_under_load(1);
    replaced_under_load(3);
}
