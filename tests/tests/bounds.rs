//! What a switch holds when everything is full, as counted by the allocator, beside what it says.
//!
//! In: tables with as many ports, guards and addresses as there may be; a worker that was made to
//! know as many neighbours as it can. Out: bytes, within what `bounds` says and not far below.
//! Never: counts pages of a pool that nobody touched: address space is counted whole.

use std::net::{IpAddr, Ipv4Addr};

use allocation_counter::measure;
use benches::world::{GATEWAY, POD, kubenet, pod_ip, port, station, udp};
use dataplane::addr::{PortId, Station};
use dataplane::bounds::{Bound, at_limit, total};
use dataplane::buffer::FRAME_MAX;
use dataplane::clock::Tick;
use dataplane::port::memory::{MemoryPort, pair};
use dataplane::snapshot::Publisher;
use dataplane::switch::Options;
use dataplane::sync::Arc;
use dataplane::tables::fdb::{CAPACITY_DEFAULT, Fdb};
use dataplane::tables::fib::NextHop;
use dataplane::tables::guard::{MORE_MAX, Mode, PortGuard};
use dataplane::tables::neighbour::NEIGHBOURS_MAX;
use dataplane::tables::returns::Returns;
use dataplane::tables::{Fault, OWNERS_MAX, Owner, PortRole, PortSpec, Tables, TablesSpec};
use dataplane::worker::Worker;

const TABLES: &str = "ports, guards and addresses";
const FDB: &str = "learned stations (FDB)";
const RETURNS: &str = "conversations by the host";

fn bytes_of(bounds: &[Bound], wanted: impl Fn(&Bound) -> bool) -> usize {
    let wanted: Vec<Bound> = bounds.iter().copied().filter(wanted).collect();
    total(&wanted)
}

/// Within the bound, and the bound is no wild guess.
fn holds(what: &str, counted: i64, bound: usize) {
    let counted = usize::try_from(counted).expect("more was allocated than freed");
    println!("{what}: {counted} bytes of {bound}");
    assert!(
        counted <= bound,
        "{what}: {counted} bytes, and at most {bound}"
    );
    assert!(counted * 4 >= bound, "{what}: {counted} bytes of {bound}");
}

/// As many of everything as tables may have, but no routes.
fn largest() -> TablesSpec {
    let mut spec = kubenet(0);
    spec.routes.clear();
    let mac = |number: usize| Station::new(station(number)).expect("a station");
    spec.ports = (0..PortId::COUNT_MAX)
        .map(|id| PortSpec {
            id: port(id),
            role: PortRole::Pod,
            mac: mac(id),
            mtu: 1500,
            hairpin: false,
            isolated: false,
        })
        .collect();
    spec.owners = (0..OWNERS_MAX)
        .map(|at| {
            let port = port(at % PortId::COUNT_MAX);
            let mac = station(port.index());
            let address = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, at as u16]);
            (address, Owner { port, mac })
        })
        .collect();
    let more = |id: usize| PortGuard {
        more_stations: (0..MORE_MAX).map(|n| mac(1000 + id * 100 + n)).collect(),
        more_addresses: vec!["10.0.0.0/8".parse().expect("a prefix"); MORE_MAX],
        ..PortGuard::pod(Mode::Enforce)
    };
    spec.guards = (0..PortId::COUNT_MAX)
        .map(|id| (port(id), more(id)))
        .collect();
    spec
}

#[test]
fn the_largest_tables_are_within_their_bound_and_larger_ones_are_refused() {
    let bounds = at_limit(&Options::named("full"));
    let mut spec = largest();
    let mut kept = None;
    let counted = measure(|| kept = Some(Tables::build(&spec).expect("as many as there may be")));
    // The bound is for two: those in force, and those that replace them.
    holds(
        TABLES,
        2 * counted.bytes_current,
        bytes_of(&bounds, |b| b.what == TABLES),
    );
    let (last, owner) = spec.owners[0];
    spec.owners.push((IpAddr::V4(Ipv4Addr::LOCALHOST), owner));
    spec.guards[3].1.more_stations.clear();
    spec.guards[3]
        .1
        .more_addresses
        .resize(MORE_MAX + 1, last.into());
    let faults = Tables::build(&spec).expect_err("too many");
    let many = Fault::TooManyMore(port(3), MORE_MAX + 1);
    assert_eq!(faults, [Fault::TooManyOwners(OWNERS_MAX + 1), many]);
}

#[test]
fn the_conversations_are_within_their_bound() {
    let options = Options::named("full");
    let bound = bytes_of(&at_limit(&options), |b| b.what == RETURNS);
    let mut kept = None;
    let counted = measure(|| kept = Some(Returns::new(options.returns_capacity, 1)));
    holds(RETURNS, counted.bytes_current, bound);
}

#[test]
fn a_full_fdb_is_within_its_bound() {
    let options = Options {
        fdb_capacity: 5000,
        ..Options::named("full")
    };
    let bound = bytes_of(&at_limit(&options), |b| b.what == FDB);
    let mut kept = None;
    let counted = measure(|| {
        let fdb = Fdb::new(5000, 1);
        for n in 0..100_000 {
            let station = Station::new(station(n)).expect("a station");
            fdb.learn(station, port(n % 100), Tick(0));
        }
        kept = Some(fdb);
    });
    holds(FDB, counted.bytes_current, bound);
}

/// One neighbour for each of as many prefixes as a worker may know neighbours, and some.
fn many_neighbours() -> TablesSpec {
    let mut spec = kubenet(1);
    for n in 0..NEIGHBOURS_MAX as u32 + 50 {
        let prefix = format!("{}/32", Ipv4Addr::from(0x0b00_0000 + n));
        let hop = NextHop::Neighbour(Ipv4Addr::from(0x0a14_0100 + n).into());
        spec.routes.push((prefix.parse().expect("a prefix"), hop));
    }
    spec
}

#[test]
fn a_worker_that_knows_all_it_can_is_within_its_bound() {
    let bounds = at_limit(&Options::named("full"));
    let shared = [TABLES, FDB, RETURNS];
    let bound = bytes_of(&bounds, |b| !shared.contains(&b.what));
    let spec = many_neighbours();
    let publisher = Publisher::new(Tables::build(&spec).expect("sound"));
    let fdb = Arc::new(Fdb::new(CAPACITY_DEFAULT, 1));
    let mut kept: Option<Worker<MemoryPort>> = None;
    let (end, peer) = pair(NEIGHBOURS_MAX + 50);
    let to = |n: u32| {
        let target = Ipv4Addr::from(0x0b00_0000 + n);
        udp(station(0), GATEWAY, pod_ip([10, 244], 0), target, 64)
    };
    let frames: Vec<Vec<u8>> = (0..NEIGHBOURS_MAX as u32 + 50).map(to).collect();
    for frame in &frames {
        peer.send(frame).expect("room");
    }
    let returns = Arc::new(Returns::new(1024, 1));
    let counted = measure(|| {
        let mut worker = Worker::new(publisher.reader(), fdb, FRAME_MAX);
        worker.share_returns(returns);
        worker.attach(port(POD), end);
        for _ in 0..200 {
            worker.wake_all();
            worker.breathe(Tick(1));
        }
        kept = Some(worker);
    });
    let worker = kept.expect("made");
    let counts = worker.board().counts();
    assert_eq!(counts.received as usize, frames.len(), "{counts}");
    assert_eq!(counts.queued, 128, "{counts}");
    holds("a worker", counted.bytes_current, bound);
}

#[test]
fn bounds_are_told_a_row_each_and_grow_with_the_workers() {
    let [one, four] = [1, 4].map(|workers| {
        at_limit(&Options {
            workers,
            ..Options::named("full")
        })
    });
    for (one, four) in one.iter().zip(&four) {
        assert_eq!((four.what, four.limit), (one.what, one.limit));
        assert_eq!(four.bytes, four.count * one.bytes / one.count);
        assert!(one.because.len() > 15 && one.limit > 0, "{one}");
        println!("{one}");
    }
    assert!(total(&one) < 32 << 20, "{} bytes", total(&one));
}
