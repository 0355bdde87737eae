//! Neighbours against a virtual clock: the state table of RFC 4861, and a plain model of it.
//!
//! In: frames, advertisements of every kind, and time. Out: the same answers from both.
//! Never: a real clock.

use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::state::{
    DELAY_MS, MULTICAST_TRIES, REACHABLE_MS, RETRY_MS, State, Told, UNICAST_TRIES, UNUSED_MS,
};
use super::*;
use crate::addr::Station;
use crate::buffer::Pool;

const HOP: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5));

fn mac(last: u8) -> Station {
    Station::new(Mac::new([2, 0, 0, 0, 0, last])).expect("a station")
}

fn egress() -> PortId {
    PortId::new(1).expect("in range")
}

/// Neighbours, a clock, and a pool that must be whole in the end.
struct Rig {
    neighbours: Neighbours,
    pool: Pool,
    now: u64,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// Frames that may go, or go on.
    go: usize,
    /// Frames that died.
    died: usize,
    /// Questions to all.
    to_all: usize,
    /// Questions to the neighbour itself.
    to_one: usize,
}

impl Rig {
    fn new() -> Rig {
        Rig {
            neighbours: Neighbours::default(),
            pool: Pool::new(WAITING_TOTAL_MAX + 8, 64),
            now: 0,
        }
    }

    fn asked(outcome: &mut Outcome, question: Question) {
        match question.last_known {
            None => outcome.to_all += 1,
            Some(_) => outcome.to_one += 1,
        }
    }

    fn send(&mut self, address: IpAddr) -> Outcome {
        let mut outcome = Outcome::default();
        if self.neighbours.find(address).is_some() {
            outcome.go = 1;
            return outcome;
        }
        let frame = Waiting {
            frame: self.pool.take().expect("a free buffer"),
            ingress: egress(),
        };
        match self
            .neighbours
            .wait(address, egress(), frame, Tick(self.now))
        {
            Waited::Go(waiting) => {
                outcome.go = 1;
                self.pool.release(waiting.frame);
            }
            Waited::Held(question) => {
                question
                    .into_iter()
                    .for_each(|q| Rig::asked(&mut outcome, q));
            }
            Waited::Displaced(waiting) | Waited::Refused(waiting) => {
                outcome.died = 1;
                self.pool.release(waiting.frame);
            }
        }
        outcome
    }

    fn hear(&mut self, told: Told) -> Outcome {
        let freed = self.neighbours.hear(HOP, told, Tick(self.now));
        let outcome = Outcome {
            go: freed.len(),
            ..Outcome::default()
        };
        freed.into_iter().for_each(|w| self.pool.release(w.frame));
        outcome
    }

    fn pass(&mut self, ms: u64) -> Outcome {
        self.now += ms;
        let (mut questions, mut failed) = (Vec::with_capacity(64), Vec::new());
        self.neighbours
            .tick(Tick(self.now), &mut questions, &mut failed);
        let mut outcome = Outcome {
            died: failed.len(),
            ..Outcome::default()
        };
        failed.into_iter().for_each(|w| self.pool.release(w.frame));
        questions
            .into_iter()
            .for_each(|q| Rig::asked(&mut outcome, q));
        outcome
    }

    fn state(&self) -> Option<(State, Option<Mac>)> {
        let entry = self.neighbours.entries().next()?;
        Some((entry.state, entry.mac))
    }

    /// A neighbour in `state`, with the address of `mac(1)`.
    fn in_state(state: State) -> Rig {
        let mut rig = Rig::new();
        rig.send(HOP);
        if state == State::Incomplete {
            return rig;
        }
        rig.hear(told(Some(1), true, true));
        if state != State::Reachable {
            rig.pass(REACHABLE_MS);
        }
        if matches!(state, State::Delay | State::Probe) {
            rig.send(HOP);
        }
        if state == State::Probe {
            rig.pass(DELAY_MS);
        }
        assert_eq!(rig.state().map(|s| s.0), Some(state));
        rig
    }
}

fn told(last: Option<u8>, solicited: bool, overrides: bool) -> Told {
    Told {
        mac: last.map(mac),
        solicited,
        overrides,
        router: true,
    }
}

const QUIET: Outcome = Outcome {
    go: 0,
    died: 0,
    to_all: 0,
    to_one: 0,
};

/// RFC 4861 appendix C: the state, what is told, and the state and address after it.
#[test]
fn advertisements_change_the_state_as_appendix_c_says() {
    use State::{Delay, Incomplete, Probe, Reachable, Stale};
    let table = [
        (Incomplete, told(None, true, true), Incomplete, None),
        (Incomplete, told(Some(2), true, false), Reachable, Some(2)),
        (Reachable, told(Some(1), true, false), Reachable, Some(1)),
        (Reachable, told(Some(1), false, true), Reachable, Some(1)),
        (Reachable, told(Some(2), true, false), Stale, Some(1)),
        (Reachable, told(Some(2), false, true), Stale, Some(2)),
        (Reachable, told(Some(2), true, true), Reachable, Some(2)),
        (Reachable, told(None, false, false), Reachable, Some(1)),
        (Stale, told(Some(2), true, false), Stale, Some(1)),
        (Stale, told(Some(1), true, false), Reachable, Some(1)),
        (Stale, told(Some(1), false, true), Stale, Some(1)),
        (Stale, told(None, true, false), Reachable, Some(1)),
        (Delay, told(Some(2), false, false), Delay, Some(1)),
        (Delay, told(Some(1), false, false), Delay, Some(1)),
        (Delay, told(Some(2), false, true), Stale, Some(2)),
        (Delay, told(Some(1), true, true), Reachable, Some(1)),
        (Probe, told(Some(2), true, false), Probe, Some(1)),
        (Probe, told(Some(2), true, true), Reachable, Some(2)),
        (Probe, told(Some(2), false, true), Stale, Some(2)),
        (Probe, told(Some(1), true, false), Reachable, Some(1)),
        (Probe, told(None, true, false), Reachable, Some(1)),
    ];
    for (before, what, after, address) in table {
        let mut rig = Rig::in_state(before);
        rig.hear(what);
        let expected = (after, address.map(|last| mac(last).mac()));
        assert_eq!(rig.state(), Some(expected), "{before:?}, {what:?}");
    }
}

#[test]
fn an_unasked_address_of_a_stranger_is_used_at_once_and_then_asked_for() {
    let mut rig = Rig::in_state(State::Incomplete);
    let outcome = rig.hear(told(Some(1), false, true));
    assert_eq!(outcome, Outcome { go: 1, ..QUIET });
    assert_eq!(rig.state().map(|s| s.0), Some(State::Delay), "it is in use");
}

#[test]
fn a_silent_neighbour_is_asked_three_times_and_then_fails_its_frames() {
    let mut rig = Rig::new();
    let first = rig.send(HOP);
    assert_eq!(first, Outcome { to_all: 1, ..QUIET });
    assert_eq!(rig.send(HOP), QUIET, "one question for both");
    for _ in 1..MULTICAST_TRIES {
        assert_eq!(rig.pass(RETRY_MS - 1), QUIET);
        assert_eq!(rig.pass(1), Outcome { to_all: 1, ..QUIET });
    }
    assert_eq!(rig.pass(RETRY_MS), Outcome { died: 2, ..QUIET });
    assert!(rig.neighbours.is_empty() && rig.neighbours.waiting() == 0);
    assert_eq!(rig.pool.free(), rig.pool.slots());
}

#[test]
fn a_used_neighbour_is_asked_itself_before_all_are_asked_again() {
    let mut rig = Rig::in_state(State::Stale);
    assert_eq!(rig.neighbours.find(HOP), None, "its use is to be noted");
    assert_eq!(rig.send(HOP), Outcome { go: 1, ..QUIET });
    assert_eq!(rig.pass(DELAY_MS - 1), QUIET);
    assert_eq!(rig.pass(1), Outcome { to_one: 1, ..QUIET });
    for _ in 1..UNICAST_TRIES {
        assert_eq!(rig.send(HOP), Outcome { go: 1, ..QUIET }, "still used");
        assert_eq!(rig.pass(RETRY_MS), Outcome { to_one: 1, ..QUIET });
    }
    assert_eq!(rig.pass(RETRY_MS), QUIET);
    assert!(rig.neighbours.is_empty());
    assert_eq!(rig.send(HOP), Outcome { to_all: 1, ..QUIET });
}

#[test]
fn a_neighbour_that_nobody_uses_is_not_asked_and_forgotten() {
    let mut rig = Rig::in_state(State::Stale);
    assert_eq!(rig.pass(UNUSED_MS - 1), QUIET);
    assert_eq!(rig.state().map(|s| s.0), Some(State::Stale));
    assert_eq!(rig.pass(1), QUIET);
    assert!(rig.neighbours.is_empty());
}

#[test]
fn what_nobody_asked_for_makes_no_entry() {
    let mut rig = Rig::new();
    assert_eq!(rig.hear(told(Some(1), true, true)), QUIET);
    assert!(rig.neighbours.is_empty());
}

#[test]
fn of_too_many_for_one_the_oldest_goes_and_of_too_many_in_all_the_newest() {
    let mut rig = Rig::new();
    let hop = |n: usize| IpAddr::from(Ipv6Addr::from(n as u128 + 1));
    for _ in 0..WAITING_MAX {
        assert_eq!(rig.send(hop(0)).died, 0);
    }
    let oldest = rig.neighbours.known[&hop(0)].waiting[0].frame.len();
    let mut frame = rig.pool.take().expect("free");
    frame.set_len(oldest + 7);
    let waiting = Waiting {
        frame,
        ingress: egress(),
    };
    let Waited::Displaced(gone) = rig.neighbours.wait(hop(0), egress(), waiting, Tick(0)) else {
        panic!("nobody made room");
    };
    assert_eq!(gone.frame.len(), oldest, "the oldest went");
    rig.pool.release(gone.frame);
    for n in 1..WAITING_TOTAL_MAX / WAITING_MAX {
        (0..WAITING_MAX).for_each(|_| assert_eq!(rig.send(hop(n)).died, 0));
    }
    assert_eq!(rig.neighbours.waiting(), WAITING_TOTAL_MAX);
    assert_eq!(rig.send(hop(99)).died, 1);
    assert_eq!(rig.neighbours.waiting(), WAITING_TOTAL_MAX);
}

#[test]
fn a_full_table_gives_up_the_one_unused_longest_and_nobody_who_is_in_use() {
    let mut rig = Rig::in_state(State::Stale);
    let hop = |n: usize| IpAddr::from(Ipv6Addr::from(n as u128 + 1));
    for n in 0..NEIGHBOURS_MAX - 1 {
        rig.send(hop(n));
    }
    assert_eq!(rig.neighbours.entries().count(), NEIGHBOURS_MAX);
    rig.send(hop(NEIGHBOURS_MAX));
    assert!(!rig.neighbours.known.contains_key(&HOP), "it gave way");
    assert_eq!(rig.send(hop(NEIGHBOURS_MAX + 1)).died, 1);
    assert_eq!(rig.neighbours.entries().count(), NEIGHBOURS_MAX);
}

#[test]
fn who_is_forgotten_gives_back_what_waited() {
    let mut rig = Rig::in_state(State::Incomplete);
    let mut stranded = Vec::new();
    rig.neighbours.forget(|_| false, &mut stranded);
    assert!(stranded.is_empty());
    rig.neighbours
        .forget(|address| address == HOP, &mut stranded);
    assert_eq!((stranded.len(), rig.neighbours.waiting()), (1, 0));
    assert!(rig.neighbours.is_empty());
}

/// RFC 4861 7.3 in plain words: one neighbour, one step of 100 ms at a time.
#[derive(Clone, Debug, Default)]
struct Model {
    known: Option<(State, Option<Mac>)>,
    waiting: usize,
    asked: u8,
    /// Steps until something happens by itself.
    left: u64,
}

const STEP_MS: u64 = 100;

impl Model {
    fn set(&mut self, state: State, mac: Option<Mac>) {
        self.known = Some((state, mac));
        self.asked = 0;
        self.left = match state {
            State::Reachable => REACHABLE_MS,
            State::Stale => UNUSED_MS,
            State::Delay => DELAY_MS,
            State::Incomplete | State::Probe => RETRY_MS,
        } / STEP_MS;
    }

    fn send(&mut self) -> Outcome {
        match self.known {
            None => {
                self.set(State::Incomplete, None);
                (self.asked, self.waiting) = (1, 1);
                Outcome { to_all: 1, ..QUIET }
            }
            Some((State::Incomplete, _)) if self.waiting == WAITING_MAX => {
                Outcome { died: 1, ..QUIET }
            }
            Some((State::Incomplete, _)) => {
                self.waiting += 1;
                QUIET
            }
            Some((state, mac)) => {
                if state == State::Stale {
                    self.set(State::Delay, mac);
                }
                Outcome { go: 1, ..QUIET }
            }
        }
    }

    fn hear(&mut self, told: Told) -> Outcome {
        let new = told.mac.map(Station::mac);
        match self.known {
            None => {}
            Some((State::Incomplete, _)) if new.is_none() => {}
            Some((State::Incomplete, _)) => {
                let state = match told.solicited {
                    true => State::Reachable,
                    false => State::Delay,
                };
                self.set(state, new);
                let go = std::mem::take(&mut self.waiting);
                return Outcome { go, ..QUIET };
            }
            Some((state, old)) => match (new.is_some() && new != old, told.overrides) {
                (true, false) if state == State::Reachable => self.set(State::Stale, old),
                (true, false) => {}
                (true, true) if told.solicited => self.set(State::Reachable, new),
                (true, true) => self.set(State::Stale, new),
                (false, _) if told.solicited => self.set(State::Reachable, old),
                (false, _) => {}
            },
        }
        QUIET
    }

    fn step(&mut self) -> Outcome {
        let Some((state, mac)) = self.known else {
            return QUIET;
        };
        self.left -= 1;
        if self.left > 0 {
            return QUIET;
        }
        self.left = RETRY_MS / STEP_MS;
        match state {
            State::Reachable => self.set(State::Stale, mac),
            State::Delay => {
                self.set(State::Probe, mac);
                self.asked = 1;
                return Outcome { to_one: 1, ..QUIET };
            }
            State::Incomplete if self.asked < 3 => {
                self.asked += 1;
                return Outcome { to_all: 1, ..QUIET };
            }
            State::Probe if self.asked < 3 => {
                self.asked += 1;
                return Outcome { to_one: 1, ..QUIET };
            }
            State::Incomplete | State::Probe | State::Stale => {
                self.known = None;
                let died = std::mem::take(&mut self.waiting);
                return Outcome { died, ..QUIET };
            }
        }
        QUIET
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Send,
    Hear(Option<u8>, bool, bool),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let told = (
        prop::option::weighted(0.8, 1u8..4),
        any::<bool>(),
        any::<bool>(),
    );
    prop_oneof![
        3 => Just(Event::Send),
        2 => told.prop_map(|(last, solicited, overrides)| Event::Hear(last, solicited, overrides)),
        3 => prop_oneof![1u64..12, 40u64..60, 280u64..320, 590u64..620].prop_map(Event::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn neighbours_do_what_the_plain_model_does(events in prop::collection::vec(event(), 1..80)) {
        let (mut rig, mut model) = (Rig::new(), Model::default());
        for event in events {
            match event {
                Event::Send => prop_assert_eq!(rig.send(HOP), model.send()),
                Event::Hear(last, solicited, overrides) => {
                    let told = told(last, solicited, overrides);
                    prop_assert_eq!(rig.hear(told), model.hear(told));
                }
                Event::Pass(steps) => for _ in 0..steps {
                    prop_assert_eq!(rig.pass(STEP_MS), model.step());
                },
            }
            prop_assert_eq!(rig.state(), model.known);
            prop_assert_eq!(rig.neighbours.waiting(), model.waiting);
        }
    }
}
