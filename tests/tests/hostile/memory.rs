//! Attacks on a worker with memory ports: exact, since nothing but the frames counts.
//!
//! In: a kubenet node of four pods: one attacks, two talk to each other, and a bystander without
//! guards has other stations behind it. Out: every frame of the two arrives, no station of
//! the bystander is forgotten, and the attack stands in the counters of the port it came in by.

use benches::scales::Numbers;
use benches::world::{GATEWAY, HOST, POD, kubenet, pod_ip, port, station, udp};
use dataplane::addr::Mac;
use dataplane::buffer::FRAME_MAX;
use dataplane::clock::Tick;
use dataplane::frame::offload::Offload;
use dataplane::port::memory::{MemoryPort, Peer, pair};
use dataplane::snapshot::Publisher;
use dataplane::stats::PortCounts;
use dataplane::sync::Arc;
use dataplane::tables::Tables;
use dataplane::tables::fdb::{CAPACITY_DEFAULT, Fdb};
use dataplane::tables::guard::{LEARNED_POD, Mode, PortGuard, Rates};
use dataplane::verdict::DropReason;
use dataplane::worker::Worker;

const NET: [u8; 2] = [10, 244];
const ATTACKER: usize = 0;
const TALKERS: [usize; 2] = [1, 2];
const BYSTANDER: usize = 3;

/// Stations behind the bystander.
const STATIONS: usize = 40;
const FIRST_STATION: usize = 5000;

/// Frames of the attacker in a millisecond.
const ATTACK_BURST: u64 = 50;
/// Frames of each talker in a millisecond.
const TALK_BURST: u64 = 5;

struct Rig {
    worker: Worker<MemoryPort>,
    peers: Vec<Peer>,
    now: u64,
    talk: [Vec<u8>; 2],
    talked: u64,
    heard: u64,
    /// Frames that a talker got from somebody else.
    bothered: u64,
    _publisher: Publisher<Tables>,
}

/// All guards on the attacker and the talkers, none on the bystander.
fn guard() -> PortGuard {
    PortGuard::pod(Mode::Enforce)
}

impl Rig {
    fn new(attacker: PortGuard) -> Rig {
        let mut spec = kubenet(4);
        spec.guards = vec![
            (port(HOST), PortGuard::host(Mode::Enforce)),
            (port(POD + ATTACKER), attacker),
            (port(POD + TALKERS[0]), guard()),
            (port(POD + TALKERS[1]), guard()),
        ];
        let publisher = Publisher::new(Tables::build(&spec).expect("sound"));
        let fdb = Arc::new(Fdb::new(CAPACITY_DEFAULT, 77));
        let mut worker = Worker::new(publisher.reader(), fdb, FRAME_MAX);
        let mut peers = Vec::new();
        for row in &spec.ports {
            let (end, peer) = pair(512);
            worker.attach(row.id, end);
            peers.push(peer);
        }
        let [a, b] = TALKERS;
        let talk = |from, to| plain(station(from), station(to), from, to);
        let mut rig = Rig {
            worker,
            peers,
            now: 0,
            talk: [talk(a, b), talk(b, a)],
            talked: 0,
            heard: 0,
            bothered: 0,
            _publisher: publisher,
        };
        for n in 0..STATIONS {
            let frame = plain(station(FIRST_STATION + n), station(a), BYSTANDER, a);
            rig.peers[POD + BYSTANDER].send(&frame).expect("room");
        }
        rig.breathe();
        (rig.heard, rig.bothered) = (0, 0);
        rig
    }

    /// `frames` frames of the attack, made one by one, while the others talk.
    fn attack(&mut self, frames: u64, mut next: impl FnMut(u64) -> (Vec<u8>, Offload)) {
        let mut sent = 0;
        while sent < frames {
            for _ in 0..ATTACK_BURST.min(frames - sent) {
                let (bytes, offload) = next(sent);
                let peer = &self.peers[POD + ATTACKER];
                assert!(peer.send_with(&bytes, offload).is_ok(), "room");
                sent += 1;
            }
            for (talker, frame) in TALKERS.iter().zip(&self.talk) {
                for _ in 0..TALK_BURST {
                    self.peers[POD + talker].send(frame).expect("room");
                    self.talked += 1;
                }
            }
            self.now += 1;
            self.breathe();
        }
    }

    fn breathe(&mut self) {
        self.worker.wake_all();
        while self.worker.breathe(Tick(self.now)).frames > 0 {}
        for (at, peer) in self.peers.iter().enumerate() {
            while let Some(frame) = peer.receive() {
                if at == POD + TALKERS[0] || at == POD + TALKERS[1] {
                    let own = self.talk.contains(&frame.bytes);
                    self.heard += u64::from(own);
                    self.bothered += u64::from(!own);
                }
                peer.recycle(frame);
            }
        }
    }

    /// The law, and what no attack may change. Gives the counters of the attacker's port.
    fn nobody_suffers(&self) -> PortCounts {
        assert_eq!(self.heard, self.talked, "of the talkers' frames");
        let fdb = self.worker.fdb();
        for n in 0..STATIONS {
            let found = fdb.find(station(FIRST_STATION + n));
            assert_eq!(found, Some(port(POD + BYSTANDER)), "station {n}");
        }
        let board = self.worker.board();
        let counts = board.counts();
        assert!(counts.is_balanced(), "{counts}");
        let attacker = board.port(port(POD + ATTACKER));
        assert_eq!(attacker.dropped, counts.dropped, "nobody else lost a frame");
        attacker
    }
}

/// A small packet between two pods, by whatever hardware addresses.
fn plain(source: Mac, target: Mac, from: usize, to: usize) -> Vec<u8> {
    udp(source, target, pod_ip(NET, from), pod_ip(NET, to), 64)
}

fn asks(source: Mac, sender: usize, target: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(source.octets());
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(source.octets());
    frame.extend(pod_ip(NET, sender).octets());
    frame.extend([0; 6]);
    frame.extend(pod_ip(NET, target).octets());
    frame
}

fn stranger(numbers: &mut Numbers) -> Mac {
    let [a, b, c, d, ..] = (numbers.below(1 << 30) as u64).to_le_bytes();
    Mac::new([0x0e, 1, a, b, c, d])
}

const MILLION: u64 = 1_000_000;

#[test]
fn a_million_random_stations_are_refused() {
    let mut rig = Rig::new(guard());
    let (mut numbers, to) = (Numbers::seeded(1), station(TALKERS[0]));
    rig.attack(MILLION, |_| {
        let source = stranger(&mut numbers);
        (plain(source, to, ATTACKER, TALKERS[0]), Offload::NONE)
    });
    let seen = rig.nobody_suffers();
    assert_eq!(seen.dropped.of(DropReason::SpoofedMac), MILLION);
    assert_eq!(rig.bothered, 0);
    assert_eq!(rig.worker.fdb().entries().count(), STATIONS);
}

#[test]
fn where_stations_are_learned_a_million_fill_only_their_ports_share() {
    let mut rig = Rig::new(PortGuard {
        stations: Mode::Observe,
        ..guard()
    });
    let (mut numbers, to) = (Numbers::seeded(2), station(TALKERS[0]));
    rig.attack(MILLION, |_| {
        let source = stranger(&mut numbers);
        (plain(source, to, ATTACKER, TALKERS[0]), Offload::NONE)
    });
    let seen = rig.nobody_suffers();
    assert_eq!(seen.observed.of(DropReason::SpoofedMac), MILLION);
    let passed = rig.bothered;
    assert_eq!(seen.dropped.of(DropReason::StationQuota), MILLION - passed);
    let held = rig.worker.fdb().count(port(POD + ATTACKER));
    assert_eq!(held, LEARNED_POD);
    assert!(
        passed >= u64::from(LEARNED_POD) && passed < 1000,
        "{passed}"
    );
}

#[test]
fn without_a_quota_a_flood_of_stations_pushes_out_its_own() {
    let mut rig = Rig::new(PortGuard::default());
    let (mut numbers, to) = (Numbers::seeded(3), station(TALKERS[0]));
    rig.attack(MILLION / 5, |_| {
        let source = stranger(&mut numbers);
        (plain(source, to, ATTACKER, TALKERS[0]), Offload::NONE)
    });
    rig.nobody_suffers();
    let full = rig.worker.fdb().count(port(POD + ATTACKER)) as usize;
    assert_eq!(full + STATIONS, CAPACITY_DEFAULT, "the table is full");
}

/// At most as many as the rate lets through in the time that passed, and no fewer than it promises.
fn within(passed: u64, rate: dataplane::bucket::Rate, ms: u64) {
    let most = u64::from(rate.burst) + u64::from(rate.per_second) * ms / 1000;
    assert!(passed <= most && passed + 10 >= most, "{passed} of {most}");
}

#[test]
fn an_arp_storm_is_answered_as_often_as_a_kernel_would_ask() {
    let mut rig = Rig::new(guard());
    let frames = 200_000;
    let question = asks(station(ATTACKER), ATTACKER, TALKERS[0]);
    rig.attack(frames, |_| (question.clone(), Offload::NONE));
    let seen = rig.nobody_suffers();
    let counts = rig.worker.board().counts();
    within(counts.punted, Rates::default().broadcast, rig.now);
    assert_eq!(counts.originated, counts.punted, "an answer for a question");
    let refused = seen.dropped.of(DropReason::BroadcastStorm);
    assert_eq!(refused + counts.punted, frames);
    assert_eq!(rig.bothered, 0, "the answers are the attacker's");
}

#[test]
fn storms_to_all_to_groups_and_to_nobody_are_cut_to_their_rates() {
    let group = Mac::new([1, 0, 0x5e, 1, 2, 3]);
    let rates = Rates::default();
    for (target, rate, reason) in [
        (Mac::BROADCAST, rates.broadcast, DropReason::BroadcastStorm),
        (group, rates.multicast, DropReason::MulticastStorm),
        (station(900), rates.unknown, DropReason::UnknownStorm),
    ] {
        let mut rig = Rig::new(guard());
        let frames = 200_000;
        let frame = plain(station(ATTACKER), target, ATTACKER, 900);
        rig.attack(frames, |_| (frame.clone(), Offload::NONE));
        let seen = rig.nobody_suffers();
        let passed = frames - seen.dropped.of(reason);
        within(passed, rate, rig.now);
        assert_eq!(rig.bothered, 2 * passed, "{reason}");
    }
}

#[test]
fn a_super_frame_to_all_counts_its_segments() {
    let mut rig = Rig::new(guard());
    let (mut frame, offload) =
        benches::world::super_frame(station(ATTACKER), Mac::BROADCAST, 20_000, 1448);
    frame[26..30].copy_from_slice(&pod_ip(NET, ATTACKER).octets());
    frame[24..26].fill(0);
    let sum = dataplane::frame::checksum::checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    rig.attack(200, |_| (frame.clone(), offload));
    let passed = 200 - rig.nobody_suffers().dropped.of(DropReason::BroadcastStorm);
    assert_eq!(passed, 1024 / 14, "each has fourteen");
}

#[test]
fn garbage_in_offload_headers_is_named_or_carried() {
    let mut rig = Rig::new(guard());
    let mut numbers = Numbers::seeded(5);
    let (to, long) = (station(TALKERS[0]), 1500);
    let (from, target) = (pod_ip(NET, ATTACKER), pod_ip(NET, TALKERS[0]));
    let frame = udp(station(ATTACKER), to, from, target, long);
    let frames = 200_000;
    rig.attack(frames, |_| (frame.clone(), crate::garbage(&mut numbers)));
    let seen = rig.nobody_suffers();
    let refused = seen.dropped.of(DropReason::BadOffload);
    assert_eq!(seen.dropped.total(), refused);
    assert_eq!(refused + rig.bothered, frames);
    assert!(refused > frames / 10, "{refused}");
}

#[test]
fn forged_addresses_reach_nobody() {
    let mut rig = Rig::new(guard());
    let [a, b] = TALKERS;
    let me = station(ATTACKER);
    let inside = {
        let mut frame = asks(me, ATTACKER, a);
        frame[22..28].copy_from_slice(&station(b).octets());
        frame
    };
    let forged = [
        (
            plain(station(b), station(a), b, a),
            DropReason::StationElsewhere,
        ),
        (
            plain(GATEWAY, station(a), ATTACKER, a),
            DropReason::StationElsewhere,
        ),
        (
            plain(station(901), station(a), ATTACKER, a),
            DropReason::SpoofedMac,
        ),
        (plain(me, station(a), b, a), DropReason::SpoofedIp),
        (plain(me, GATEWAY, 700, a), DropReason::SpoofedIp),
        (inside, DropReason::SpoofedArp),
        (asks(me, 700, 700), DropReason::SpoofedArp),
    ];
    let frames = 200_000;
    rig.attack(frames, |n| {
        let (frame, _) = &forged[n as usize % forged.len()];
        (frame.clone(), Offload::NONE)
    });
    let seen = rig.nobody_suffers();
    assert_eq!(rig.bothered, 0);
    let mut expected = std::collections::BTreeMap::new();
    for n in 0..frames {
        *expected
            .entry(forged[n as usize % forged.len()].1)
            .or_insert(0) += 1;
    }
    let named: std::collections::BTreeMap<_, _> = seen.dropped.iter().collect();
    assert_eq!(named, expected);
}
