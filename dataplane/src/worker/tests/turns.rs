//! Turns: ports that flood beside one that has little to say.
//!
//! In: two queues that are always full, and now and then a frame of a third port.
//! Out: how many frames of the floods leave between two chances of the third.
//! Never: a clock: what a frame costs is the port's affair.

use super::*;

/// Fills the queues of host and uplink with frames for pod-b.
fn flood(rig: &Rig) {
    let floods = [
        (HOST, ping(NIC, POD_B, "10.20.0.4", "10.20.0.32", 64)),
        (UPLINK, ping(FABRIC, NIC, "10.10.0.5", "10.20.0.32", 64)),
    ];
    for (at, frame) in floods {
        while rig.peers[at].send(&frame).is_ok() {}
    }
}

/// One breath under the flood: frames received, and whether the first to leave was `frame`.
fn breathe(rig: &mut Rig, frame: &[u8]) -> (u64, bool) {
    flood(rig);
    let (counts, out) = rig.breathe();
    assert_eq!(counts.transmitted, counts.received, "{counts:?}");
    (
        counts.received,
        out.first().is_some_and(|(_, first)| first == frame),
    )
}

#[test]
fn a_frame_beside_floods_waits_for_one_turn_of_each_at_most() {
    let mut rig = Rig::new(&azure());
    let modest = ping(POD_A, POD_B, "10.20.0.31", "10.20.0.32", 64);
    let turns = 2 * BURST_FRAMES as u64;
    for _ in 0..3 {
        assert_eq!(breathe(&mut rig, &modest), (turns, false));
        // Its port comes last by number, and first because it has little to say.
        rig.peers[A].send(&modest).expect("room");
        assert_eq!(breathe(&mut rig, &modest), (turns + 1, true));
    }
}

#[test]
fn a_port_that_was_a_flood_is_none_when_it_has_less_to_say_or_is_another() {
    let mut rig = Rig::new(&azure());
    flood(&rig);
    rig.breathe();
    assert_eq!(rig.worker.floods.len(), 2);
    drop(rig.worker.detach(port(HOST)));
    assert_eq!(rig.worker.floods.len(), 1);
    // Its queue is read to the end.
    while rig.breathe().0.received > 0 {}
    assert!(rig.worker.floods.is_empty());
}

#[test]
fn a_frame_that_comes_while_a_flood_is_passed_waits_for_a_piece_of_it() {
    let mut rig = Rig::new(&azure());
    let modest = ping(POD_A, POD_B, "10.20.0.31", "10.20.0.32", 64);
    rig.peers[A].send(&modest).expect("room");
    breathe(&mut rig, &modest);
    assert_eq!(rig.worker.floods.len(), 2);
    for told_late in [true, false] {
        flood(&rig);
        if told_late {
            rig.peers[A].send(&modest).expect("room");
        }
        // Nobody says that pod-a has a frame: it comes when the floods' turns have begun.
        rig.worker.ready.remove(port(A));
        let before = rig.worker.board().counts();
        let breath = rig.worker.breathe(Tick(rig.now));
        let counts = rig.worker.board().counts().since(&before);
        let received = 2 * BURST_FRAMES + usize::from(told_late);
        assert_eq!(
            (breath.frames, counts.received),
            (received, received as u64)
        );
        assert_eq!(counts.transmitted, counts.received);
        let left: Vec<_> = std::iter::from_fn(|| rig.peers[B].receive()).collect();
        let at = left.iter().position(|frame| frame.bytes == modest);
        assert_eq!(at, told_late.then_some(PIECE));
    }
    // One of whom nothing was heard lately is not asked: that would cost a look at every port.
    for _ in 0..2 {
        rig.now += CHORES_MS;
        breathe(&mut rig, &modest);
    }
    flood(&rig);
    rig.peers[A].send(&modest).expect("room");
    let breath = rig.worker.breathe(Tick(rig.now));
    assert_eq!(breath.frames, 2 * BURST_FRAMES);
}

#[test]
fn a_frame_waits_no_longer_for_the_first_crowd_of_a_port_than_for_a_flood() {
    let mut rig = Rig::new(&azure());
    let modest = ping(POD_A, POD_B, "10.20.0.31", "10.20.0.32", 64);
    rig.peers[A].send(&modest).expect("room");
    rig.breathe();
    assert!(rig.worker.floods.is_empty());
    flood(&rig);
    rig.peers[A].send(&modest).expect("room");
    rig.worker.wake(port(HOST));
    rig.worker.breathe(Tick(rig.now));
    let left: Vec<_> = std::iter::from_fn(|| rig.peers[B].receive()).collect();
    assert_eq!(
        left.iter().position(|frame| frame.bytes == modest),
        Some(PIECE)
    );
}
