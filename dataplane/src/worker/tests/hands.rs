//! A port's number changes hands.
//!
//! In: a number that one pod has counted under, and then another has. Out: counters of the second that
//! begin at nought, and totals that forget nothing.

use super::*;
use crate::stats::{Ledger, PortCounts};

/// Pod A's number is given to another pod.
fn changes_hands(rig: &mut Rig) {
    let end = rig.worker.detach(port(A)).expect("attached");
    assert!(rig.worker.attach(port(A), end).is_none());
}

fn sum(ledger: &Ledger) -> PortCounts {
    let ports = ledger.ports.iter().map(|(_, counts)| *counts);
    ports.fold(ledger.gone, PortCounts::plus)
}

#[test]
fn who_gets_a_number_counts_from_nought_and_the_totals_go_on() {
    let mut rig = Rig::new(&kubenet());
    let to_b = ping(POD_A, POD_B, "10.244.1.6", "10.244.1.7", 64);
    rig.goes(A, &to_b, B);
    rig.goes(A, &to_b, B);
    rig.dies(A, &[0; 5], DropReason::TooShort);
    let before = rig.worker.board().ledger();
    let counted = before.port(port(A));
    assert_eq!((counted.received, counted.dropped.total()), (3, 1));

    changes_hands(&mut rig);
    let after = rig.worker.board().ledger();
    assert_eq!(after.port(port(A)), PortCounts::default());
    assert_eq!(after.port(port(B)), before.port(port(B)));
    assert_eq!((after.counts, after.gone), (before.counts, counted));

    rig.goes(A, &to_b, B);
    changes_hands(&mut rig);
    let last = rig.worker.board().ledger();
    assert_eq!((last.gone.received, last.counts.received), (4, 4));
    assert_eq!(sum(&last).received, 4);
    assert_eq!(sum(&last).dropped, last.counts.dropped);
}

#[test]
fn who_takes_the_place_of_a_port_that_is_there_counts_on() {
    let mut rig = Rig::new(&kubenet());
    rig.goes(A, &ping(POD_A, POD_B, "10.244.1.6", "10.244.1.7", 64), B);
    let before = rig.worker.board().ledger();
    let (end, peer) = pair(64);
    assert!(rig.worker.attach(port(A), end).is_some());
    rig.peers[A] = peer;
    assert_eq!(rig.worker.board().ledger(), before);
}

#[test]
fn a_frame_that_waits_leaves_the_books_of_whom_it_came_from() {
    let mut rig = Rig::new(&kubenet());
    rig.put(A, &ping(POD_A, GATEWAY, "10.244.1.6", "10.244.0.7", 64));
    changes_hands(&mut rig);
    let left = rig.worker.legacy().ledger;
    assert_eq!((left.counts.received, left.gone.received), (0, 0));
    assert_eq!(left.port(port(A)), PortCounts::default());
}

#[test]
fn who_goes_on_knows_what_those_counted_that_are_gone() {
    let (mut old, mut new) = (Rig::new(&kubenet()), Rig::new(&kubenet()));
    old.goes(A, &ping(POD_A, POD_B, "10.244.1.6", "10.244.1.7", 64), B);
    changes_hands(&mut old);
    let left = old.worker.legacy().ledger;
    new.worker.carry_on(&left);
    assert_eq!(new.worker.board().ledger(), left);
    assert_eq!(left.clone().plus(&left).gone.received, 2);
}
