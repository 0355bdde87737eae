//! The whole worker, without a device: five rooms, learning, counters, guards and chores.
//!
//! In: two ports that hand in 64-byte frames from and to 1,000 or 65,536 learned stations in
//! random order; routed frames; super-frames for a port that takes none. Out: time per frame.
//!
//! `worker/null` copies each frame in and out and nothing else, as DPDK's `net_null copy=1` does;
//! `worker/memory` has the queues of the memory port around it, and their other end.

use benches::null::NullPort;
use benches::scales::{Numbers, criterion, measuring, stir, weigh};
use benches::world::{GATEWAY, POD, UPLINK, kubenet, pod_ip, port, station, super_frame, udp};
use criterion::{Criterion, criterion_group, criterion_main};
use dataplane::addr::Mac;
use dataplane::buffer::FRAME_MAX;
use dataplane::clock::Tick;
use dataplane::frame::offload::Offload;
use dataplane::port::memory::pair;
use dataplane::port::{Capabilities, Port};
use dataplane::snapshot::Publisher;
use dataplane::sync::Arc;
use dataplane::tables::fdb::Fdb;
use dataplane::tables::{Tables, TablesSpec};
use dataplane::worker::Worker;
use std::net::Ipv4Addr;

/// Breaths of one turn, and their frames: two ports with a burst of 64 each.
const BREATHS: usize = 64;
const FRAMES: usize = BREATHS * 128;

fn worker<P: Port>(spec: &TablesSpec, capacity: usize) -> (Worker<P>, Publisher<Tables>) {
    let publisher = Publisher::new(Tables::build(spec).expect("sound"));
    let fdb = Arc::new(Fdb::new(capacity, 5));
    (Worker::new(publisher.reader(), fdb, FRAME_MAX), publisher)
}

/// Frames from one half of the stations to the other half, in random order, of which each station
/// sends at least one.
fn crowd(stations: usize, from: usize, frames: usize) -> Vec<(Vec<u8>, Offload)> {
    let half = stations / 2;
    let mut numbers = Numbers::seeded(6 + from as u64);
    let [source_base, target_base] = [[0, half], [half, 0]][from];
    (0..frames)
        .map(|at| {
            let source = if at < half { at } else { numbers.below(half) };
            let target = numbers.below(half);
            let (source, target) = (1000 + source_base + source, 1000 + target_base + target);
            let ip = |number: usize| Ipv4Addr::from(0x0a64_0000 + number as u32);
            let (source_ip, target_ip) = (ip(source), ip(target));
            let frame = udp(station(source), station(target), source_ip, target_ip, 64);
            (frame, Offload::NONE)
        })
        .collect()
}

/// Runs breaths over null ports and hashes how many frames they took.
fn weigh_null(
    criterion: &mut Criterion,
    name: &str,
    spec: &TablesSpec,
    capacity: usize,
    ports: Vec<(usize, NullPort)>,
    frames: usize,
) {
    let (mut worker, _publisher) = worker(spec, capacity);
    for (id, null) in ports {
        worker.attach(port(id), null);
    }
    // Every station is heard before anything is measured.
    for _ in 0..if measuring() { 4096 } else { 64 } {
        worker.breathe(Tick(0));
    }
    weigh(criterion, name, frames, || {
        let before = worker.board().counts();
        let mut frames_in = 0;
        while frames_in < frames {
            frames_in += worker.breathe(Tick(0)).frames;
        }
        let counts = worker.board().counts().since(&before);
        stir(counts.transmitted, counts.dropped.total())
    });
    let counts = worker.board().counts();
    assert!(counts.is_balanced(), "{counts}");
}

fn bridged(criterion: &mut Criterion) {
    for (stations, capacity, frames) in [(1000, 8192, 2000), (65_536, 1 << 17, 65_536)] {
        let ports = (0..2)
            .map(|end| {
                let crowd = crowd(stations, end, frames);
                (POD + end, NullPort::new(&crowd, Capabilities::ALL))
            })
            .collect();
        let name = format!("worker/null/{stations}");
        weigh_null(criterion, &name, &kubenet(2), capacity, ports, FRAMES);
    }
}

fn routed(criterion: &mut Criterion) {
    let mut numbers = Numbers::seeded(9);
    let frames: Vec<_> = (0..1024)
        .map(|_| {
            let to = Ipv4Addr::new(10, 245, 1 + numbers.below(60) as u8, 9);
            let frame = udp(station(0), GATEWAY, pod_ip([10, 244], 0), to, 64);
            (frame, Offload::NONE)
        })
        .collect();
    let ports = vec![
        (POD, NullPort::new(&frames, Capabilities::ALL)),
        (UPLINK, NullPort::new(&[], Capabilities::ALL)),
    ];
    let spec = kubenet(110);
    weigh_null(criterion, "worker/null/routed", &spec, 8192, ports, FRAMES);
}

fn super_frames(criterion: &mut Criterion) {
    for (name, capabilities) in [
        ("worker/null/super-frames", Capabilities::ALL),
        ("worker/null/super-frames-cut", Capabilities::WIRE),
    ] {
        let frames = vec![super_frame(station(0), station(1), 63_712, 1448)];
        let ports = vec![
            (POD, NullPort::new(&frames, capabilities)),
            (POD + 1, NullPort::new(&[], capabilities)),
        ];
        weigh_null(criterion, name, &kubenet(2), 8192, ports, 64);
    }
}

fn memory(criterion: &mut Criterion) {
    let (mut worker, _publisher) = worker(&kubenet(2), 8192);
    let mut peers = Vec::new();
    for end in 0..2 {
        let (here, peer) = pair(128);
        worker.attach(port(POD + end), here);
        peers.push((peer, crowd(1000, end, 2048), 0));
    }
    let mut turn = || {
        let mut hash = 0;
        for _ in 0..BREATHS {
            for (peer, frames, next) in &mut peers {
                for _ in 0..64 {
                    let (bytes, _) = &frames[*next];
                    let _ = peer.send(bytes);
                    *next = (*next + 1) % frames.len();
                }
            }
            worker.wake_all();
            worker.breathe(Tick(0));
            for (peer, ..) in &peers {
                while let Some(frame) = peer.receive() {
                    let target = frame
                        .bytes
                        .first_chunk()
                        .map_or(Mac::ZERO, |six| Mac::new(*six));
                    hash = stir(hash, target.bits());
                    peer.recycle(frame);
                }
            }
        }
        hash
    };
    for _ in 0..4 {
        turn();
    }
    weigh(criterion, "worker/memory/1000", FRAMES, turn);
}

criterion_group! {
    name = benches; config = criterion(); targets = bridged, routed, super_frames, memory
}
criterion_main!(benches);
