//! Nothing on a frame's way allocates: counted, over 100,000 frames of every kind.
//!
//! In: a worker on memory ports, once with all offloads and once with ports that take only
//! finished frames; frames that are bridged, routed, flooded, answered, cut, completed,
//! fragmented and dropped.
//! Out: the number of heap allocations of this thread, which must be zero.
//! Never: counts the first frames, while buffers and queues find their sizes.

use std::net::Ipv4Addr;

use benches::world::{
    FABRIC, GATEWAY, POD, azure, guarded, kubenet, pod_ip, station, super_frame, udp,
};
use dataplane::addr::Mac;
use dataplane::buffer::FRAME_MAX;
use dataplane::clock::Tick;
use dataplane::frame::offload::Offload;
use dataplane::port::Capabilities;
use dataplane::port::memory::{MemoryPort, Peer, pair};
use dataplane::snapshot::Publisher;
use dataplane::sync::Arc;
use dataplane::tables::fdb::Fdb;
use dataplane::tables::guard::Mode;
use dataplane::tables::{Tables, TablesSpec};
use dataplane::worker::Worker;

const FRAMES: usize = 100_000;
const BURST: usize = 60;
const PODS: usize = 3;

type Sent = Vec<(Vec<u8>, Offload)>;

fn arp_request(from: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(from.octets());
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(from.octets());
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// One of each kind, from the first pod.
fn frames(net: [u8; 2], router: Mac, far: Ipv4Addr) -> Sent {
    let (me, other) = (station(0), station(1));
    let (mine, theirs) = (pod_ip(net, 0), pod_ip(net, 1));
    let service = Ipv4Addr::new(10, 0, 0, 10);
    let (cut, undone) = super_frame(me, other, 20_000, 1448);
    let (plain, partial) = super_frame(me, other, 1000, 0);
    let partial = Offload {
        gso_type: 0,
        ..partial
    };
    let mut expired = udp(me, router, mine, far, 64);
    expired[22] = 1;
    expired[24..26].fill(0);
    let sum = dataplane::frame::checksum::checksum(&expired[14..34]);
    expired[24..26].copy_from_slice(&sum.to_be_bytes());
    // To another pod by way of the router, longer than its MTU: in fragments.
    let mut long = udp(me, router, mine, theirs, 4014);
    long[20] &= !0x40;
    long[24..26].fill(0);
    let sum = dataplane::frame::checksum::checksum(&long[14..34]);
    long[24..26].copy_from_slice(&sum.to_be_bytes());
    let lie = Offload {
        csum_start: 60_000,
        ..partial
    };
    vec![
        (udp(me, other, mine, theirs, 64), Offload::NONE),
        (udp(me, router, mine, far, 64), Offload::NONE),
        (udp(me, router, mine, service, 64), Offload::NONE),
        (udp(me, Mac::BROADCAST, mine, theirs, 64), Offload::NONE),
        (
            udp(me, station(99), mine, pod_ip(net, 99), 64),
            Offload::NONE,
        ),
        (udp(station(77), other, mine, theirs, 64), Offload::NONE),
        (arp_request(me, mine, theirs), Offload::NONE),
        (cut, undone),
        (plain.clone(), partial),
        (expired, Offload::NONE),
        (long, Offload::NONE),
        (plain, lie),
        (vec![0; 9], Offload::NONE),
    ]
}

struct Rig {
    worker: Worker<MemoryPort>,
    peers: Vec<Peer>,
    now: u64,
    _publisher: Publisher<Tables>,
}

impl Rig {
    fn new(spec: &TablesSpec, capabilities: Capabilities) -> Rig {
        let publisher = Publisher::new(Tables::build(spec).expect("sound"));
        let mut worker = Worker::new(publisher.reader(), Arc::new(Fdb::new(1024, 1)), FRAME_MAX);
        let mut peers = Vec::new();
        for row in &spec.ports {
            let (end, peer) = pair(2048);
            worker.attach(row.id, end.with(capabilities));
            peers.push(peer);
        }
        Rig {
            worker,
            peers,
            now: 0,
            _publisher: publisher,
        }
    }

    /// Sends `count` frames from the first pod, a burst at a time, and takes what comes of them.
    fn pump(&mut self, sent: &Sent, count: usize) {
        let mut next = sent.iter().cycle();
        for _ in 0..count.div_ceil(BURST) {
            for (bytes, offload) in next.by_ref().take(BURST) {
                assert!(self.peers[POD].send_with(bytes, *offload).is_ok(), "room");
            }
            // Time passes, so that chores are done, too: seconds of them in all.
            self.now += 7;
            self.worker.wake_all();
            while self.worker.breathe(Tick(self.now)).frames > 0 {
                for peer in &self.peers {
                    while let Some(frame) = peer.receive() {
                        peer.recycle(frame);
                    }
                }
            }
        }
    }
}

#[test]
fn a_hundred_thousand_frames_allocate_nothing() {
    let flat = frames([10, 20], FABRIC, Ipv4Addr::new(10, 20, 200, 9));
    let routed = frames([10, 244], GATEWAY, Ipv4Addr::new(10, 245, 7, 9));
    for (name, spec, sent) in [
        ("azure", azure(PODS), flat),
        // Guards that only observe let every path be gone, and are asked all the same.
        ("kubenet", guarded(kubenet(PODS), Mode::Observe), routed),
    ] {
        for capabilities in [Capabilities::ALL, Capabilities::WIRE] {
            let mut rig = Rig::new(&spec, capabilities);
            // Every buffer of the queues has to have grown to the longest frame.
            let longest: Sent = vec![sent[7].clone()];
            rig.pump(&longest, 6000);
            rig.pump(&sent, 20_000);
            let counted = allocation_counter::measure(|| rig.pump(&sent, FRAMES));
            let counts = rig.worker.board().counts();
            assert!(
                counts.is_balanced() && counts.received as usize > FRAMES,
                "{counts}"
            );
            assert!(counts.originated > 0 && counts.copied > 0, "{counts}");
            assert!(
                counts.dropped.total() > 0 && counts.transmitted > 0,
                "{counts}"
            );
            assert_eq!(counted.count_total, 0, "{name}, {capabilities:?}: {counts}");
        }
    }
}

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![1u8; 100])));
    assert_eq!(counted.count_total, 1);
}
