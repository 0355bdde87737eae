//! From a change of a route to the first frame that goes by it, under a worker that is busy.
//!
//! In: tables of 10,000 and 500,000 routes, IPv4 and IPv6; single changes one after another, and a
//! stream of them that is coalesced: all that are due go into one publication.
//! Out: the time from the moment a change is known to the moment a frame by it is in hand: p50,
//! p99 and the longest; and how long a whole replacement takes.
//! Never: a time without its proof: each frame carries the number of the change it went by.
//!
//! `cargo bench -p tapline-benches --bench fib_changes`. The worker and control have a thread each,
//! so the longest time tells as much of the machine as of us where fewer than two cores are free.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use benches::scales::Numbers;
use benches::stats::percentile;
use dataplane::addr::{Mac, PortId, Station};
use dataplane::buffer::FRAME_MAX;
use dataplane::clock::Monotonic;
use dataplane::port::memory::{MemoryPort, Peer, pair};
use dataplane::snapshot::Publisher;
use dataplane::sync::Arc;
use dataplane::tables::fdb::Fdb;
use dataplane::tables::fib::NextHop;
use dataplane::tables::live::LiveTables;
use dataplane::tables::{
    Addresses, Crossing, Policy, PortRole, PortSpec, Tables, TablesSpec, Unknown,
};
use dataplane::worker::Worker;
use etherparse::PacketBuilder;
use ipnet::IpNet;

const ROUTER: [u8; 6] = [0x0a, 0x58, 0x0a, 0xf4, 1, 1];
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const QUEUE: usize = 4096;
/// Frames that the worker has before it when a change comes.
const BUSY_WITH: usize = 256;
/// Single changes measured.
const CHANGES: u32 = 1000;
/// Changes a second in the stream, and how long it flows. In all so few that each can have a next
/// hop of its own.
const STREAM: f64 = 10_000.0;
const STREAM_TIME: Duration = Duration::from_secs(2);

fn port(id: usize) -> PortId {
    PortId::new(id).expect("in range")
}

fn hop(version: u32) -> NextHop {
    let [a, b, c, d] = version.to_be_bytes();
    NextHop::Station {
        port: port(1),
        mac: Mac::new([2, 1, a, b, c, d]),
    }
}

/// Random prefixes, mostly of the length that most routes of a family have.
fn routes(count: usize, ipv6: bool, numbers: &mut Numbers) -> Vec<IpNet> {
    let mut known = std::collections::BTreeSet::new();
    while known.len() < count {
        let mut bits = || numbers.below(1 << 28) as u128;
        let kind = bits() % 10;
        let net = if ipv6 {
            let address = Ipv6Addr::from(0xfd << 120 | bits() << 92 | bits() << 64 | bits());
            let len = [64, 48, 128, 56][(kind as usize).saturating_sub(6)];
            IpNet::new(address.into(), len)
        } else {
            let address = Ipv4Addr::from(0x4000_0000 | bits() as u32 & 0x1fff_ffff);
            let len = [24, 20, 32, 22][(kind as usize).saturating_sub(6)];
            IpNet::new(address.into(), len)
        };
        known.insert(net.expect("length in range").trunc());
    }
    known.into_iter().collect()
}

fn frame(target: IpAddr) -> Vec<u8> {
    let link = PacketBuilder::ethernet2(SENDER, ROUTER);
    let network = match target {
        IpAddr::V4(target) => link.ipv4([10, 0, 0, 1], target.octets(), 64),
        IpAddr::V6(target) => {
            let source = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
            link.ipv6(source.octets(), target.octets(), 64)
        }
    };
    let mut bytes = Vec::new();
    let written = network.udp(1, 2).write(&mut bytes, &[0; 18]);
    written.expect("into a vector");
    bytes
}

fn spec(routes: &[IpNet]) -> TablesSpec {
    let row = |id: usize| PortSpec {
        id: port(id),
        role: PortRole::Pod,
        mac: Station::new(Mac::new([2, 0, 0, 0, 1, id as u8])).expect("a station"),
        mtu: 1500,
        hairpin: false,
        isolated: false,
    };
    // As many next hops as a node has neighbours.
    let to = |(nth, net): (usize, &IpNet)| (*net, hop((nth % 400) as u32));
    TablesSpec {
        ports: vec![row(0), row(1)],
        owners: Vec::new(),
        router_macs: vec![Mac::new(ROUTER)],
        routes: routes.iter().enumerate().map(to).collect(),
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

/// Control's side of a switch under load.
struct Bench {
    live: LiveTables,
    publisher: Publisher<Tables>,
    ingress: Peer,
    egress: Peer,
    background: Vec<Vec<u8>>,
    numbers: Numbers,
}

impl Bench {
    fn keep_busy(&mut self) {
        for _ in 0..BUSY_WITH {
            let at = self.numbers.below(self.background.len());
            // A full queue is as busy as it gets.
            drop(self.ingress.send(&self.background[at]));
        }
        self.drain();
    }

    /// The newest change by which a frame has come out since, if any did.
    fn drain(&self) -> Option<u32> {
        let mut newest = None;
        while let Some(frame) = self.egress.receive() {
            let version = u32::from_be_bytes(frame.bytes[2..6].try_into().expect("4 bytes"));
            newest = newest.max(Some(version));
            self.egress.recycle(frame);
        }
        newest
    }

    /// Publishes, and waits for a frame to `probe` by `version`.
    fn see(&mut self, probe: IpAddr, version: u32) {
        self.publisher.publish(self.live.tables().clone());
        let probe = frame(probe);
        let mut newest = Some(0);
        while newest < Some(version) {
            // A breath that had begun may still have taken the probe by the old table.
            if newest.is_some() {
                drop(self.ingress.send(&probe));
            }
            newest = self.drain();
        }
    }
}

/// What may change so that a frame shows it: a route that no longer one lies in at its first
/// address, or a new host route there.
fn change(bench: &mut Bench, routes: &[IpNet], version: u32) -> (IpNet, IpAddr) {
    let net = routes[bench.numbers.below(routes.len())];
    let probe = net.addr();
    let longest = routes.binary_search(&IpNet::from(probe)).is_err();
    let host = version.is_multiple_of(2) || !longest;
    let inner = routes
        .iter()
        .skip(routes.partition_point(|other| *other <= net));
    let nested = inner.take(1).any(|other| other.addr() == probe);
    let changed = if host || nested {
        IpNet::from(probe)
    } else {
        net
    };
    (changed, probe)
}

fn singles(bench: &mut Bench, routes: &[IpNet], first: u32) -> Vec<u64> {
    let mut times = Vec::new();
    for version in first..first + CHANGES {
        let (net, probe) = change(bench, routes, version);
        // A host route of an earlier turn would hide the change.
        let hidden = (net != IpNet::from(probe)).then_some((IpNet::from(probe), None));
        bench.keep_busy();
        let known = Instant::now();
        let changes = hidden.into_iter().chain([(net, Some(hop(version)))]);
        bench.live.apply(changes).expect("sound");
        bench.see(probe, version);
        times.push(known.elapsed().as_micros() as u64);
    }
    times
}

/// Changes come evenly; whatever is due when the last publication is seen goes into the next.
fn stream(bench: &mut Bench, routes: &[IpNet], first: u32) -> (Vec<u64>, u32) {
    let began = Instant::now();
    let (mut done, mut publications, mut times) = (0, 0, Vec::new());
    let total = (STREAM * STREAM_TIME.as_secs_f64()) as u32;
    while done < total {
        bench.keep_busy();
        let due = ((began.elapsed().as_secs_f64() * STREAM) as u32).min(total);
        if due == done {
            continue;
        }
        let batch: Vec<IpAddr> = (done..due)
            .map(|_| routes[bench.numbers.below(routes.len())].addr())
            .collect();
        let versions = first + done..first + due;
        let changes = batch
            .iter()
            .zip(versions)
            .map(|(a, v)| ((*a).into(), Some(hop(v))));
        bench.live.apply(changes).expect("sound");
        let last = batch.last().expect("some are due");
        bench.see(*last, first + due - 1);
        let seen = began.elapsed().as_secs_f64();
        let late = (done..due).map(|nth| ((seen - f64::from(nth) / STREAM) * 1e6) as u64);
        times.extend(late);
        (done, publications) = (due, publications + 1);
    }
    (times, publications)
}

fn tell(what: &str, mut times: Vec<u64>) {
    times.sort_unstable();
    let ms = |percent| percentile(&times, percent) as f64 / 1000.0;
    println!(
        "{what}: p50 {:.3} ms, p99 {:.3} ms, longest {:.3} ms",
        ms(50.0),
        ms(99.0),
        ms(100.0)
    );
}

fn measure(count: usize, ipv6: bool) {
    let mut numbers = Numbers::seeded(count as u64);
    let routes = routes(count, ipv6, &mut numbers);
    let spec = spec(&routes);
    let family = if ipv6 { "IPv6" } else { "IPv4" };
    let began = Instant::now();
    let live = LiveTables::build(&spec).expect("sound");
    let built = began.elapsed();
    let publisher = Publisher::new(live.tables().clone());
    let stop = AtomicBool::new(false);
    let background = (0..1024).map(|_| frame(routes[numbers.below(count)].addr()));
    let background = background.collect();
    let (inner, ingress) = pair(QUEUE);
    let (outer, egress) = pair(2 * QUEUE);
    let fdb = Arc::new(Fdb::new(64, 1));
    let mut worker: Worker<MemoryPort> = Worker::new(publisher.reader(), fdb, FRAME_MAX);
    worker.attach(port(0), inner);
    worker.attach(port(1), outer);
    thread::scope(|scope| {
        scope.spawn(|| {
            let clock = Monotonic::start();
            while !stop.load(Ordering::Relaxed) {
                worker.wake_all();
                worker.breathe(clock.tick());
            }
        });
        let mut bench = Bench {
            live,
            publisher,
            ingress,
            egress,
            background,
            numbers,
        };
        // Versions begin behind the next hops that the table began with.
        let what = format!("{family}, {count} routes");
        tell(
            &format!("{what}, single changes"),
            singles(&mut bench, &routes, 1000),
        );
        let (times, publications) = stream(&mut bench, &routes, 1_000_000);
        let rate = STREAM as u32;
        let many = format!("{what}, {rate} changes/s in {publications} publications");
        tell(&many, times);
        let other = spec.routes.iter().map(|(net, _)| (*net, hop(9)));
        let began = Instant::now();
        bench.live.replace(other, Vec::new()).expect("sound");
        println!(
            "{what}: built in {built:.1?}, every route replaced in {:.1?}",
            began.elapsed()
        );
        stop.store(true, Ordering::Relaxed);
    });
}

fn main() {
    // `cargo test --benches` runs this too: then a small one will do.
    let sizes: &[usize] = if std::env::args().any(|arg| arg == "--bench") {
        &[10_000, 500_000]
    } else {
        &[1000]
    };
    for count in sizes {
        for ipv6 in [false, true] {
            measure(*count, ipv6);
        }
    }
}
