//! Turns: ports that flood beside one that has little to say.
//!
//! In: two queues that are always full, and now and then a frame of a third port.
//! Out: how many frames of the floods leave between two chances of the third.
//! Never: a clock: what a frame costs is the port's affair.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::rc::Rc;

use super::*;

/// Fills the queues of host and uplink with frames for pod-b.
fn flood(peers: &[Peer]) {
    let floods = [
        (HOST, ping(NIC, POD_B, "10.20.0.4", "10.20.0.32", 64)),
        (UPLINK, ping(FABRIC, NIC, "10.10.0.5", "10.20.0.32", 64)),
    ];
    for (at, frame) in floods {
        while peers[at].send(&frame).is_ok() {}
    }
}

/// One breath under the flood: frames received, and whether the first to leave was `frame`.
fn breathe(rig: &mut Rig, frame: &[u8]) -> (u64, bool) {
    flood(&rig.peers);
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
    // Nobody spoke lately, so that a turn is a burst; then somebody did, and it is a crowd.
    let turns = |frames: usize| 2 * frames as u64;
    assert_eq!(breathe(&mut rig, &modest), (turns(BURST_FRAMES), false));
    for _ in 0..3 {
        // Its port comes last by number, and first because it has little to say.
        rig.peers[A].send(&modest).expect("room");
        assert_eq!(breathe(&mut rig, &modest), (turns(CROWD) + 1, true));
        assert_eq!(breathe(&mut rig, &modest), (turns(CROWD), false));
    }
    for _ in 0..2 {
        rig.now += CHORES_MS;
        breathe(&mut rig, &modest);
    }
    assert_eq!(breathe(&mut rig, &modest), (turns(BURST_FRAMES), false));
}

#[test]
fn a_port_that_was_a_flood_is_none_when_it_has_less_to_say_or_is_another() {
    let mut rig = Rig::new(&azure());
    flood(&rig.peers);
    rig.breathe();
    assert_eq!(rig.worker.floods.len(), 2);
    drop(rig.worker.detach(port(HOST)));
    assert_eq!(rig.worker.floods.len(), 1);
    // Its queue is read to the end.
    while rig.breathe().0.received > 0 {}
    assert!(rig.worker.floods.is_empty());
}

/// A port that has nothing to hand in before so many frames have left by all of its kind.
struct Late {
    inner: MemoryPort,
    left: Rc<Cell<usize>>,
    opens: Rc<Cell<usize>>,
}

impl Port for Late {
    fn receive(&mut self, most: usize, pool: &mut Pool, into: &mut Vec<Frame>) -> Ready {
        if self.left.get() < self.opens.get() {
            return Ready::Empty;
        }
        self.inner.receive(most, pool, into)
    }

    fn transmit(&mut self, frame: &Frame, pool: &mut Pool) -> Result<Taken, DropReason> {
        self.left.set(self.left.get() + 1);
        self.inner.transmit(frame, pool)
    }

    fn descriptor(&self) -> Option<RawFd> {
        None
    }
}

/// A rig in which pod-a's frames come late, and when.
fn rig_with_a_late_pod() -> (Rig<Late>, impl Fn(usize)) {
    let (left, opens) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let rig = Rig::with(&azure(), |id, inner| Late {
        inner,
        left: Rc::clone(&left),
        opens: if id == port(A) {
            Rc::clone(&opens)
        } else {
            Rc::default()
        },
    });
    (rig, move |frames| opens.set(left.get() + frames))
}

#[test]
fn a_frame_that_comes_while_a_flood_is_read_or_passed_waits_for_a_piece_of_it_at_most() {
    let (mut rig, open_after) = rig_with_a_late_pod();
    let modest = ping(POD_A, POD_B, "10.20.0.31", "10.20.0.32", 64);
    rig.peers[A].send(&modest).expect("room");
    flood(&rig.peers);
    rig.breathe();
    assert_eq!(rig.worker.floods.len(), 2);
    let far = 2 * CROWD - PIECE;
    for (after, place) in [(0, 0), (1, PIECE), (PIECE + 1, 2 * PIECE), (far, far)] {
        flood(&rig.peers);
        rig.peers[A].send(&modest).expect("room");
        open_after(after);
        // Nobody says that pod-a has a frame.
        rig.worker.ready.remove(port(A));
        let before = rig.worker.board().counts();
        let breath = rig.worker.breathe(Tick(rig.now));
        let counts = rig.worker.board().counts().since(&before);
        assert_eq!(breath.frames, 2 * CROWD + 1);
        assert_eq!((counts.received, counts.transmitted), (33, 33));
        let left: Vec<_> = std::iter::from_fn(|| rig.peers[B].receive()).collect();
        let at = left.iter().position(|frame| frame.bytes == modest);
        assert_eq!(at, Some(place), "after {after} frames");
    }
    // One of whom nothing was heard lately is not asked: that would cost a look at every port.
    open_after(0);
    for _ in 0..2 {
        rig.now += CHORES_MS;
        flood(&rig.peers);
        rig.breathe();
    }
    flood(&rig.peers);
    rig.peers[A].send(&modest).expect("room");
    let breath = rig.worker.breathe(Tick(rig.now));
    assert_eq!(breath.frames, 2 * BURST_FRAMES);
}

#[test]
fn a_frame_waits_no_longer_for_the_first_crowd_of_a_port_than_for_a_flood() {
    let (mut rig, open_after) = rig_with_a_late_pod();
    let modest = ping(POD_A, POD_B, "10.20.0.31", "10.20.0.32", 64);
    rig.peers[A].send(&modest).expect("room");
    rig.breathe();
    assert!(rig.worker.floods.is_empty());
    flood(&rig.peers);
    rig.peers[A].send(&modest).expect("room");
    open_after(1);
    rig.worker.wake(port(HOST));
    rig.worker.breathe(Tick(rig.now));
    let left: Vec<_> = std::iter::from_fn(|| rig.peers[B].receive()).collect();
    assert_eq!(
        left.iter().position(|frame| frame.bytes == modest),
        Some(PIECE)
    );
}
