//! One neighbour's state: what is believed of it, and for how long (RFC 4861 7.3.2).
//!
//! In: that it is used, what it tells, and the time. Out: its hardware address, what to ask next.
//! Never: holds frames, reads a clock, or knows whether it speaks ARP or ND.
//!
//! ```text
//!                told, solicited                 30 s
//! Incomplete ------------------> Reachable ----------------> Stale
//!   | 3 questions to all, 1 s      ^   ^                       | used
//!   v apart, and no answer         |   | told, solicited       v
//! (gone: frames fail)              |   +------------------- Delay
//!                                  |                           | 5 s
//!            told, solicited       |                           v
//!                                  +------------------------ Probe
//!                                          3 questions to it | 1 s apart, and no answer
//!                                                            v
//!                                        (gone: the next frame asks all again)
//! ```
//!
//! What is told without having been asked leads to `Stale`, whatever it says. The timers are the
//! defaults of RFC 4861 section 10, without its random factor on `REACHABLE_TIME`: that keeps many
//! hosts from asking one router in step, and here it is traffic that sets off the questions.
//! ARP goes through the same states (RFC 1122 2.3.2.1 asks for such a timeout, and names unicast
//! polls); an ARP reply to this node counts as a solicited advertisement that overrides.

use crate::addr::{Mac, Station};
use crate::clock::Tick;

/// How long an answer is believed, in milliseconds: `REACHABLE_TIME`, RFC 4861 section 10.
pub const REACHABLE_MS: u64 = 30_000;
/// From the first use of a stale neighbour to the first question, in milliseconds:
/// `DELAY_FIRST_PROBE_TIME`, RFC 4861 section 10.
pub const DELAY_MS: u64 = 5_000;
/// Between two questions, in milliseconds: `RETRANS_TIMER`, RFC 4861 section 10.
pub const RETRY_MS: u64 = 1_000;
/// Questions to all before giving up: `MAX_MULTICAST_SOLICIT`, RFC 4861 section 10.
pub const MULTICAST_TRIES: u8 = 3;
/// Questions to a known address before it is forgotten: `MAX_UNICAST_SOLICIT`, RFC 4861 section 10.
pub const UNICAST_TRIES: u8 = 3;
/// How long a neighbour that nobody uses is kept, in milliseconds: `gc_stale_time` of the kernel
/// (Documentation/networking/ip-sysctl.rst).
pub const UNUSED_MS: u64 = 60_000;

/// How far a neighbour's hardware address is to be believed: RFC 4861 7.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing is known; all are being asked.
    Incomplete,
    /// It answered lately.
    Reachable,
    /// It answered, or spoke unasked, some time ago. Good to use, and use makes it `Delay`.
    Stale,
    /// In use again, and nothing has confirmed it yet.
    Delay,
    /// In use, and asked itself.
    Probe,
}

/// What a neighbour says of itself: an advertisement (RFC 4861 4.4), or what ARP says in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The hardware address, where one is given.
    pub mac: Option<Station>,
    /// It answers a question of ours.
    pub solicited: bool,
    /// It replaces what is known.
    pub overrides: bool,
    /// It forwards packets.
    pub router: bool,
}

impl Told {
    /// An ARP reply to this node.
    #[must_use]
    pub const fn by_arp_reply(mac: Station) -> Told {
        Told {
            mac: Some(mac),
            solicited: true,
            overrides: true,
            router: true,
        }
    }

    /// An ARP announcement, which nobody asked for (RFC 5227 section 3).
    #[must_use]
    pub const fn by_arp_announcement(mac: Station) -> Told {
        Told {
            solicited: false,
            ..Told::by_arp_reply(mac)
        }
    }
}

/// What the time asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    Nothing,
    /// A question: to the address it last had, or to all.
    Question(Option<Mac>),
    /// It did not answer, or nobody used it: forget it.
    Farewell,
}

/// One neighbour, without the frames that wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Belief {
    state: State,
    mac: Option<Mac>,
    router: bool,
    tries: u8,
    /// When the state ends, or its next question is due.
    due: Tick,
}

impl Belief {
    /// Of a neighbour that nobody knows yet: a question is due at once.
    pub(super) const fn none(now: Tick) -> Belief {
        Belief {
            state: State::Incomplete,
            mac: None,
            router: false,
            tries: 0,
            due: now,
        }
    }

    /// Of a neighbour that another knew.
    pub(super) fn recalled(mac: Mac, router: bool, now: Tick) -> Belief {
        Belief {
            state: State::Stale,
            mac: Some(mac),
            router,
            tries: 0,
            due: now + UNUSED_MS,
        }
    }

    /// How far the address is to be believed.
    #[inline]
    pub(super) const fn state(&self) -> State {
        self.state
    }

    /// Its hardware address.
    #[inline]
    pub(super) const fn mac(&self) -> Option<Mac> {
        self.mac
    }

    /// True if it says that it forwards packets.
    pub(super) const fn is_router(&self) -> bool {
        self.router
    }

    /// When its state ends.
    pub(super) const fn due(&self) -> Tick {
        self.due
    }

    fn enter(&mut self, state: State, due: Tick) {
        (self.state, self.tries, self.due) = (state, 0, due);
    }

    /// A frame goes to it. True if that changes the state.
    pub(super) fn used(&mut self, now: Tick) -> bool {
        let stale = self.state == State::Stale;
        if stale {
            self.enter(State::Delay, now + DELAY_MS);
        }
        stale
    }

    /// The time goes on. At most one thing is due at a time.
    pub(super) fn expire(&mut self, now: Tick) -> Due {
        if self.due > now {
            return Due::Nothing;
        }
        match self.state {
            State::Incomplete => self.ask(MULTICAST_TRIES, None, now),
            State::Reachable => {
                self.enter(State::Stale, now + UNUSED_MS);
                Due::Nothing
            }
            State::Stale => Due::Farewell,
            State::Delay => {
                self.enter(State::Probe, now);
                self.ask(UNICAST_TRIES, self.mac, now)
            }
            State::Probe => self.ask(UNICAST_TRIES, self.mac, now),
        }
    }

    fn ask(&mut self, tries_max: u8, to: Option<Mac>, now: Tick) -> Due {
        if self.tries >= tries_max {
            return Due::Farewell;
        }
        self.tries += 1;
        self.due = now + RETRY_MS;
        Due::Question(to)
    }

    /// It speaks, asked or not: RFC 4861 7.2.5.
    pub(super) fn hear(&mut self, told: Told, now: Tick) {
        let mac = told.mac.map(Station::mac);
        if self.state == State::Incomplete {
            // Where nothing is known, an advertisement without an address says nothing.
            if mac.is_some() {
                (self.mac, self.router) = (mac, told.router);
                self.confirm(told.solicited, now);
            }
            return;
        }
        let changes = mac.is_some() && mac != self.mac;
        if changes && !told.overrides {
            // Two answer for one address: use the first, and soon ask whether it still lives.
            if self.state == State::Reachable {
                self.enter(State::Stale, now + UNUSED_MS);
            }
            return;
        }
        self.router = told.router;
        if changes {
            self.mac = mac;
        }
        if told.solicited || changes {
            self.confirm(told.solicited, now);
        }
    }

    /// `Reachable` is only what answered a question of ours.
    fn confirm(&mut self, solicited: bool, now: Tick) {
        match solicited {
            true => self.enter(State::Reachable, now + REACHABLE_MS),
            false => self.enter(State::Stale, now + UNUSED_MS),
        }
    }
}
