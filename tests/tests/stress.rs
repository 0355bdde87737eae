//! Workers on real threads that share an FDB, tables and gossip, while control changes everything.
//!
//! In: two workers on memory ports, frames from stations that move between them, and a publisher
//! that never rests. Out: a failure that names the invariant which did not hold.
//! Never: every order, as `models.rs` has it for the parts: this is what real threads happen to do
//! in a second, of the whole. Nor system calls: the ports are queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dataplane::addr::{Mac, PortId, Station};
use dataplane::clock::Tick;
use dataplane::gossip::Gossip;
use dataplane::port::memory::{MemoryPort, Peer, pair};
use dataplane::snapshot::Publisher;
use dataplane::stats::Board;
use dataplane::tables::fdb::Fdb;
use dataplane::tables::fib::NextHop;
use dataplane::tables::{Crossing, Policy, PortRole, PortSpec, Tables, TablesSpec, Unknown};
use dataplane::worker::Worker;

/// How long it goes on.
const TIME: Duration = Duration::from_millis(1000);

/// Ports of each worker, which are the same ones: each has a queue of every port.
const PORTS: usize = 3;

/// Stations behind the ports, none of them configured: three crowd each window of the FDB.
const STATIONS: u64 = 48;
const FDB_SLOTS: usize = 16;

/// Frames that a port's queue holds.
const QUEUE: usize = 64;

fn port(index: usize) -> PortId {
    PortId::new(index).expect("in range")
}

fn mac(number: u64) -> Mac {
    let [.., a, b] = number.to_be_bytes();
    Mac::new([2, 0, 0, 1, a, b])
}

/// Tables that say which they are: the port's MTU is the number.
fn tables(number: u16) -> Tables {
    let row = |index: usize| PortSpec {
        id: port(index),
        role: PortRole::Pod,
        mac: Station::new(mac(1000 + index as u64)).expect("a station"),
        mtu: number,
        hairpin: false,
        isolated: false,
    };
    Tables::build(&TablesSpec {
        ports: (0..PORTS).map(row).collect(),
        owners: Vec::new(),
        router_macs: Vec::new(),
        routes: vec![("10.0.0.0/8".parse().expect("a prefix"), NextHop::Blackhole)],
        groups: Vec::new(),
        crossing: Crossing::Bridged,
        policy: Policy::None,
        unknown: Unknown::Flood,
        guards: Vec::new(),
    })
    .expect("they have no faults")
}

/// A frame of 60 bytes from one station to another, of a type that nobody reads.
fn frame(source: u64, target: u64) -> Vec<u8> {
    let mut frame = Vec::with_capacity(60);
    frame.extend(mac(target).octets());
    frame.extend(mac(source).octets());
    frame.extend([0x88, 0xb5]);
    frame.resize(60, 0);
    frame
}

/// One worker's life: breathes until told to stop and its ports are empty. A worker panics by
/// itself if a frame or a buffer leaks.
fn work(mut worker: Worker<MemoryPort>, stop: &AtomicBool, now: &AtomicU64) -> Worker<MemoryPort> {
    loop {
        let stopping = stop.load(Ordering::Acquire);
        worker.wake_all();
        let breath = worker.breathe(Tick(now.load(Ordering::Relaxed)));
        if stopping && breath.frames == 0 && !breath.more {
            return worker;
        }
    }
}

/// Sends from stations that hop from port to port, and takes what comes. Returns how many frames
/// the switch was given and gave.
fn talk(peers: &[Peer], seed: u64, stop: &AtomicBool) -> (u64, u64) {
    let (mut given, mut got, mut turn) = (0, 0, seed);
    let empty = |got: &mut u64| {
        for peer in peers {
            while let Some(frame) = peer.receive() {
                *got += 1;
                peer.recycle(frame);
            }
        }
    };
    while !stop.load(Ordering::Acquire) {
        turn += 1;
        let source = turn * 7 % STATIONS;
        let at = (turn / STATIONS + source) as usize % PORTS;
        let sent = peers[at].send(&frame(source, turn * 11 % STATIONS));
        given += u64::from(sent.is_ok());
        empty(&mut got);
        if turn.is_multiple_of(64) {
            thread::yield_now();
        }
    }
    (given, got)
}

/// Two workers of one switch, and the far ends of their ports.
fn two_workers(
    publisher: &Publisher<Tables>,
    fdb: &Arc<Fdb>,
) -> (Vec<Worker<MemoryPort>>, Vec<Vec<Peer>>) {
    let circle = Gossip::circle(2).into_iter();
    let with_ports = circle.map(|gossip| {
        let mut worker = Worker::new(publisher.reader(), Arc::clone(fdb), 2048);
        worker.join(gossip);
        let attach = |index| {
            let (end, peer) = pair(QUEUE);
            worker.attach(port(index), end);
            peer
        };
        let peers = (0..PORTS).map(attach).collect();
        (worker, peers)
    });
    with_ports.unzip()
}

/// What was received and transmitted in all, by books that balance.
fn totals(boards: &[Arc<Board>]) -> (u64, u64) {
    let (mut received, mut transmitted) = (0, 0);
    for board in boards {
        let counts = board.counts();
        assert!(counts.is_balanced(), "{counts}");
        received += counts.received;
        transmitted += counts.transmitted;
    }
    (received, transmitted)
}

fn assert_only_those_who_spoke(fdb: &Fdb) {
    assert!(fdb.entries().count() <= fdb.capacity());
    for (who, at, _) in fdb.entries() {
        assert!(who.bits() & 0xff < STATIONS, "{who} never spoke");
        assert!(at.index() < PORTS, "{who} at {at:?}");
    }
}

#[test]
fn workers_keep_their_books_while_tables_and_stations_change_under_them() {
    let mut publisher = Publisher::new(tables(1000));
    let fdb = Arc::new(Fdb::new(FDB_SLOTS, 7));
    let (stop_talk, stop_work) = (AtomicBool::new(false), AtomicBool::new(false));
    let now = AtomicU64::new(0);
    let (workers, ends) = two_workers(&publisher, &fdb);
    let boards: Vec<_> = workers
        .iter()
        .map(|worker| Arc::clone(worker.board()))
        .collect();
    let (mut given, mut got, mut published) = (0, 0, 0u16);
    thread::scope(|scope| {
        let stop_work = &stop_work;
        let stop_talk = &stop_talk;
        let now = &now;
        let workers: Vec<_> = workers
            .into_iter()
            .map(|worker| scope.spawn(move || work(worker, stop_work, now)))
            .collect();
        let talkers: Vec<_> = ends
            .iter()
            .zip([3, 1_000_003])
            .map(|(peers, seed)| scope.spawn(move || talk(peers, seed, stop_talk)))
            .collect();
        let end = Instant::now() + TIME;
        let mut last = 0;
        while Instant::now() < end {
            published += 1;
            publisher.publish(tables(1000 + published));
            now.fetch_add(150, Ordering::Relaxed);
            // Read by a stranger, at any moment: what was counted stays counted.
            let seen = boards.iter().map(|board| board.counts().received).sum();
            assert!(seen >= last, "{seen} after {last}");
            last = seen;
            assert_only_those_who_spoke(&fdb);
        }
        stop_talk.store(true, Ordering::Release);
        for talker in talkers {
            let (sent, received) = talker.join().expect("no panic");
            (given, got) = (given + sent, got + received);
        }
        stop_work.store(true, Ordering::Release);
        for worker in workers {
            drop(worker.join().expect("a worker whose books are in order"));
        }
    });
    for peer in ends.iter().flatten() {
        while peer.receive().is_some() {
            got += 1;
        }
    }
    let (received, transmitted) = totals(&boards);
    assert_eq!(received, given, "what was handed in was received");
    assert_eq!(transmitted, got, "what was transmitted was got");
    assert!(
        published > 10 && given > 1000,
        "{published} tables, {given} frames"
    );
    // Whoever speaks alone is found, whatever happened before.
    let station = Station::new(mac(5)).expect("a station");
    fdb.learn(station, port(2), Tick(u64::MAX / 2));
    assert_eq!(fdb.find(mac(5)), Some(port(2)));
}
