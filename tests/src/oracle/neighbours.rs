//! Next hops, as RFC 4861 7.3.2 has them: a table of states, looked at line by line.
//!
//! In: frames that wait, what neighbours say, and the time in milliseconds.
//! Out: addresses, questions, and frames that may go or must die.
//! Never: an order of its own where the real switch has none: the caller says in which order
//! neighbours are looked at.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use dataplane::addr::{Mac, PortId};

use super::Arrival;

/// RFC 4861 section 10, in milliseconds.
const REACHABLE: u64 = 30_000;
const DELAY: u64 = 5_000;
const RETRANSMIT: u64 = 1_000;
const TRIES: u8 = 3;
/// The kernel's `gc_stale_time`.
const UNUSED: u64 = 60_000;

const WAIT_FOR_ONE: usize = 16;
const WAIT_IN_ALL: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Incomplete,
    Reachable,
    Stale,
    Delay,
    Probe,
}

/// What a neighbour says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) mac: Option<Mac>,
    pub(super) solicited: bool,
    pub(super) overrides: bool,
}

#[derive(Clone, Debug)]
struct Neighbour {
    state: State,
    mac: Option<Mac>,
    tries: u8,
    due: u64,
    egress: PortId,
    waiting: VecDeque<Arrival>,
}

/// A question to be asked: for whom, by which port, at which address.
pub(super) type Question = (IpAddr, PortId, Option<Mac>);

/// What becomes of a frame that has no address to go to.
pub(super) enum Waited {
    Go(Arrival),
    Held(Option<Question>),
    /// This one dies: too many wait.
    Crowded(Arrival),
}

/// What time asks of one neighbour.
enum Due {
    Nothing,
    Ask(Option<Mac>),
    Forget,
}

/// All neighbours.
#[derive(Clone, Debug, Default)]
pub(super) struct Neighbours(BTreeMap<IpAddr, Neighbour>);

impl Neighbour {
    fn enter(&mut self, state: State, due: u64) {
        (self.state, self.tries, self.due) = (state, 0, due);
    }

    fn expire(&mut self, now: u64) -> Due {
        if self.due > now {
            return Due::Nothing;
        }
        match self.state {
            State::Reachable => {
                self.enter(State::Stale, now + UNUSED);
                return Due::Nothing;
            }
            State::Stale => return Due::Forget,
            State::Delay => self.enter(State::Probe, now),
            State::Incomplete | State::Probe => {}
        }
        if self.tries == TRIES {
            return Due::Forget;
        }
        (self.tries, self.due) = (self.tries + 1, now + RETRANSMIT);
        Due::Ask(self.mac)
    }

    fn confirm(&mut self, solicited: bool, now: u64) {
        if solicited {
            self.enter(State::Reachable, now + REACHABLE);
        } else {
            self.enter(State::Stale, now + UNUSED);
        }
    }

    fn hear(&mut self, news: News, now: u64) {
        let other = news.mac.is_some() && news.mac != self.mac;
        match self.state {
            State::Incomplete if news.mac.is_none() => {}
            State::Incomplete => {
                self.mac = news.mac;
                self.confirm(news.solicited, now);
            }
            State::Reachable if other && !news.overrides => self.enter(State::Stale, now + UNUSED),
            _ if other && !news.overrides => {}
            _ => {
                self.mac = news.mac.or(self.mac);
                if news.solicited || other {
                    self.confirm(news.solicited, now);
                }
            }
        }
    }
}

impl Neighbours {
    /// The address to send to, unless it has to be confirmed first.
    pub(super) fn find(&self, address: IpAddr) -> Option<Mac> {
        let neighbour = self.0.get(&address)?;
        neighbour.mac.filter(|_| neighbour.state != State::Stale)
    }

    /// Frames that wait.
    pub(super) fn waiting(&self) -> usize {
        self.0.values().map(|one| one.waiting.len()).sum()
    }

    /// Everyone known, lowest address first.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.0.keys().copied().collect()
    }

    /// A frame for `address` came, and `find` had nothing.
    pub(super) fn wait(
        &mut self,
        address: IpAddr,
        egress: PortId,
        frame: Arrival,
        now: u64,
    ) -> Waited {
        let crowded = self.waiting() >= WAIT_IN_ALL;
        let neighbour = self.0.entry(address).or_insert_with(|| Neighbour {
            state: State::Incomplete,
            mac: None,
            tries: 0,
            due: now,
            egress,
            waiting: VecDeque::new(),
        });
        if neighbour.state == State::Stale {
            neighbour.enter(State::Delay, now + DELAY);
        }
        if neighbour.mac.is_some() {
            return Waited::Go(frame);
        }
        neighbour.waiting.push_back(frame);
        if crowded || neighbour.waiting.len() > WAIT_FOR_ONE {
            // The one that waited longest, which may be the newcomer itself.
            let oldest = neighbour.waiting.pop_front().expect("one was just put in");
            return Waited::Crowded(oldest);
        }
        Waited::Held(match neighbour.expire(now) {
            Due::Ask(last) => Some((address, neighbour.egress, last)),
            Due::Nothing | Due::Forget => None,
        })
    }

    /// A neighbour speaks: the frames that may go, oldest first.
    pub(super) fn hear(&mut self, address: IpAddr, news: News, now: u64) -> Vec<Arrival> {
        let Some(neighbour) = self.0.get_mut(&address) else {
            return Vec::new();
        };
        neighbour.hear(news, now);
        if neighbour.mac.is_none() || neighbour.waiting.is_empty() {
            return Vec::new();
        }
        if neighbour.state == State::Stale {
            neighbour.enter(State::Delay, now + DELAY);
        }
        neighbour.waiting.drain(..).collect()
    }

    /// Time has passed: questions to ask, and frames that waited in vain, in that order of
    /// neighbours.
    pub(super) fn tick(&mut self, now: u64, order: &[IpAddr]) -> (Vec<Question>, Vec<Arrival>) {
        let (mut questions, mut failed) = (Vec::new(), Vec::new());
        for address in order {
            let Some(neighbour) = self.0.get_mut(address) else {
                continue;
            };
            match neighbour.expire(now) {
                Due::Nothing => {}
                Due::Ask(last) => questions.push((*address, neighbour.egress, last)),
                Due::Forget => {
                    failed.extend(neighbour.waiting.drain(..));
                    self.0.remove(address);
                }
            }
        }
        (questions, failed)
    }

    /// Forgets those whom `gone` names: the frames that waited for them.
    pub(super) fn forget(
        &mut self,
        order: &[IpAddr],
        gone: impl Fn(IpAddr) -> bool,
    ) -> Vec<Arrival> {
        let gone = order.iter().filter(|address| gone(**address));
        let gone: Vec<Neighbour> = gone.filter_map(|address| self.0.remove(address)).collect();
        gone.into_iter().flat_map(|one| one.waiting).collect()
    }
}
