//! One worker goes on in the place of another.
//!
//! In: a worker that has learned, has frames that wait, and has counted. Out: a second one that knows
//! the same, and neither a frame nor a count twice.

use super::*;
use crate::frame::tuple::{Ports, Stage, Tuple};
use crate::tables::neighbour::state::State;
use crate::tables::returns::{About, Carrier, Entry};

const NEXT: &str = "10.20.0.5";

fn to_the_other_node() -> Vec<u8> {
    ping(POD_A, GATEWAY, "10.244.1.6", "10.244.0.7", 64)
}

fn answer() -> Vec<u8> {
    arp(Operation::Reply, (FABRIC, NEXT), (NIC, "10.20.0.4"), NIC)
}

#[test]
fn frames_that_wait_are_handed_on_and_are_in_the_books_of_one() {
    let mut old = Rig::new(&kubenet());
    old.goes(A, &ping(POD_A, POD_B, "10.244.1.6", "10.244.1.7", 64), B);
    old.put(A, &to_the_other_node());
    old.put(A, &to_the_other_node());
    let legacy = old.worker.legacy();
    assert_eq!(legacy.waiting.len(), 2);
    let counts = legacy.ledger.counts;
    assert_eq!((counts.received, counts.queued), (1, 0));
    assert!(counts.is_balanced(), "{counts}");

    let mut new = Rig::new(&kubenet());
    new.worker.recall(&legacy.neighbours, Tick(0));
    assert_eq!(
        new.worker.neighbours().count(),
        0,
        "who has not answered is asked anew"
    );
    new.worker.resume(&legacy.waiting, Tick(0));
    new.worker.carry_on(&legacy.ledger);
    let (_, out) = new.breathe();
    assert_eq!(out.len(), 1, "the question, once");
    assert_eq!(arp_of(&see(&out[0].1)).target, ip(NEXT));
    let counts = new.worker.board().counts();
    assert_eq!((counts.received, counts.queued), (3, 2));
    let (_, out) = new.put(UPLINK, &answer());
    assert_eq!(out.len(), 2, "both go on");
    assert!(out.iter().all(|(at, _)| *at == UPLINK));
    let ports = new.worker.board();
    assert_eq!(
        ports.port(port(A)).received,
        old.worker.board().port(port(A)).received
    );
    assert_eq!(
        ports.port(port(A)).received_bytes,
        old.worker.board().port(port(A)).received_bytes
    );
    assert_eq!(ports.port(port(B)).transmitted, 1);
}

#[test]
fn who_had_answered_is_good_to_use_at_once_and_is_asked_when_used() {
    let mut old = Rig::new(&kubenet());
    old.put(A, &to_the_other_node());
    old.put(UPLINK, &answer());
    let legacy = old.worker.legacy();
    let mut new = Rig::new(&kubenet());
    new.worker.recall(&legacy.neighbours, Tick(0));
    let known = new.worker.neighbours().next().expect("one");
    assert_eq!((known.mac, known.state), (Some(FABRIC), State::Stale));
    let seen = new.goes(A, &to_the_other_node(), UPLINK);
    assert_eq!(seen.target, FABRIC);
    let known = new.worker.neighbours().next().expect("one");
    assert_eq!(known.state, State::Delay);
}

/// A switch that follows another is told of a place before it has the port for it.
#[test]
fn a_port_that_takes_nobodys_place_keeps_what_was_told_of_it_and_one_that_does_keeps_nothing() {
    let mut new = Rig::new(&kubenet());
    new.worker.detach(port(B));
    let station = Station::new(STRANGER).expect("a station");
    new.worker.fdb().learn(station, port(B), Tick(0));
    let tuple = Tuple {
        source: ip("10.0.0.10").into(),
        target: ip("10.244.1.7").into(),
        protocol: 6,
        ports: Ports::Known(80, 5000),
    };
    let entry = Entry {
        about: About::Tuple(tuple),
        carrier: Carrier::Host,
        stage: Stage::Open,
        port: port(B),
        age_seconds: 1,
        seconds_left: 60,
    };
    new.worker.returns().recall(&entry, Tick(1000));
    let known = |rig: &Rig| {
        let returns = rig.worker.returns();
        (rig.worker.fdb().find(STRANGER), returns.carrier(&tuple))
    };
    let told = (Some(port(B)), Some(Carrier::Host));
    assert_eq!(known(&new), told);
    assert!(new.worker.attach(port(B), pair(1).0).is_none());
    assert_eq!(known(&new), told);
    assert!(new.worker.attach(port(B), pair(1).0).is_some());
    assert_eq!(known(&new), (None, None));
}

#[test]
fn a_super_frame_that_waits_keeps_its_offload() {
    let mut old = Rig::new(&kubenet());
    let frame = to_the_other_node();
    let offload = Offload {
        flags: NEEDS_CSUM,
        csum_start: 34,
        csum_offset: 2,
        ..Offload::NONE
    };
    old.put_with(A, &frame, offload);
    let legacy = old.worker.legacy();
    assert_eq!(Offload::read(&legacy.waiting[0].bytes), Some(offload));
}

#[test]
fn a_frame_that_is_no_frame_or_fits_no_buffer_is_left_out() {
    let mut new = Rig::new(&kubenet());
    let short = Stranded {
        ingress: port(A),
        bytes: vec![0; 4],
    };
    let long = Stranded {
        ingress: port(A),
        bytes: vec![0; 2 * FRAME_MAX],
    };
    new.worker.resume(&[short, long], Tick(0));
    let (counts, out) = new.breathe();
    assert_eq!((counts, out.len()), (Counts::default(), 0));
}

#[test]
fn what_is_to_be_announced_is_announced_before_it_leaves() {
    let mut spec = kubenet();
    let mut old = Rig::new(&spec);
    let (late, pod_c) = (ip("10.244.1.9").into(), Mac::new([2, 0, 0, 0, 0, 0xc]));
    spec.owners.push((late, owner(B, pod_c)));
    old.publisher.publish(Tables::build(&spec).expect("sound"));
    old.worker.refresh(Tick(0));
    assert!(!old.worker.announcements.is_empty(), "B got an address");
    old.worker.legacy();
    assert!(old.worker.announcements.is_empty());
    let told: usize = old
        .peers
        .iter()
        .map(|peer| usize::from(peer.receive().is_some()))
        .sum();
    assert!(told > 0, "and the others have heard of it");
}
