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
