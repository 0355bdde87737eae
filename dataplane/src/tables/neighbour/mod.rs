//! Next hops on the uplink: which hardware address answers for which protocol address.
//!
//! In: frames that wait for an address, what neighbours tell, and the time.
//! Out: the address for `decide`; questions to ask and frames to let go for the slow path.
//! Never: makes an entry of what nobody asked for, or holds frames without bound.
//!
//! The states and timers are those of RFC 4861, for ARP as for ND; see [`state`]. `decide` finds
//! an address in every state but two: `Incomplete`, where there is none, and `Stale`, where the
//! frame takes the way by the slow path, which notes the use and sends it on at once. So the use
//! of a neighbour is noted without a store on the way of every frame, and `decide` stays pure.
//!
//! Where too many wait for one neighbour, the oldest goes (RFC 4861 7.2.2, as the kernel does): the
//! youngest is the one that its sender still waits for, and has not yet sent again. Where too many
//! wait in all, the newcomer goes instead: neighbours that are silent may not push out the frames of
//! one that is about to answer.

pub mod state;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use rustc_hash::FxBuildHasher;

use crate::addr::{Mac, PortId};
use crate::buffer::Frame;
use crate::clock::Tick;
use state::{Belief, Due, State, Told};

/// Frames that may wait for one neighbour; `unres_qlen` of the kernel keeps about a hundred small
/// ones, and a burst that opens eight connections at once sends fewer than sixteen.
pub const WAITING_MAX: usize = 16;
/// Frames that may wait in all: eight neighbours with full queues, and a worker's pool has a slot
/// for each.
pub const WAITING_TOTAL_MAX: usize = 8 * WAITING_MAX;
/// Neighbours in all: as many nodes as a route table has routes by default (400), rounded up.
pub const NEIGHBOURS_MAX: usize = 512;

/// A frame that waits, and the port it came in by.
#[derive(Debug)]
pub struct Waiting {
    /// The frame.
    pub frame: Frame,
    /// Where it came in.
    pub ingress: PortId,
}

/// What is known of one neighbour.
#[derive(Debug)]
struct Neighbour {
    belief: Belief,
    egress: PortId,
    waiting: VecDeque<Waiting>,
}

/// A question that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Whose hardware address is wanted.
    pub address: IpAddr,
    /// The port to ask on.
    pub egress: PortId,
    /// The address to ask at; everybody if nothing is known.
    pub last_known: Option<Mac>,
}

/// What became of a frame for a neighbour.
#[derive(Debug)]
#[must_use = "a frame that is left in it is lost from the books"]
pub enum Waited {
    /// The address is known after all, and has been noted as used: send the frame.
    Go(Waiting),
    /// It waits; the first one makes a question due.
    Held(Option<Question>),
    /// It waits, and this one, which waited longest, had to make room.
    Displaced(Waiting),
    /// Too many wait for other neighbours already.
    Refused(Waiting),
}

/// One neighbour, for views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its protocol address.
    pub address: IpAddr,
    /// Its hardware address, if known.
    pub mac: Option<Mac>,
    /// How far that is to be believed.
    pub state: State,
    /// It said that it forwards packets.
    pub router: bool,
    /// The port that it is behind.
    pub egress: PortId,
}

/// The neighbours of one worker.
///
/// Their addresses come from the routes, not from the network, so a fast hash that anybody could
/// find collisions of does no harm.
#[derive(Debug, Default)]
pub struct Neighbours {
    known: HashMap<IpAddr, Neighbour, FxBuildHasher>,
    waiting: usize,
}

impl Neighbours {
    /// Bytes when all are known and have once been waited for: a hash table that is at most seven
    /// eighths full has twice as many places, each with a byte of its own.
    pub(crate) const BYTES_MAX: usize = 2 * NEIGHBOURS_MAX * (size_of::<(IpAddr, Neighbour)>() + 1)
        + NEIGHBOURS_MAX * WAITING_MAX * size_of::<Waiting>();

    /// The hardware address of `address`, if a frame may go there without further ado.
    #[inline]
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<Mac> {
        let belief = &self.known.get(&address)?.belief;
        // An incomplete one has no address.
        belief.mac().filter(|_| belief.state() != State::Stale)
    }

    /// Frames that wait for a reply.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// True if nobody is known or asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Takes a frame for which [`Neighbours::find`] had no address: notes that a stale neighbour
    /// is used again, or holds the frame until `address` has answered.
    pub fn wait(&mut self, address: IpAddr, egress: PortId, frame: Waiting, now: Tick) -> Waited {
        if !self.known.contains_key(&address) && !self.make_room() {
            return Waited::Refused(frame);
        }
        let neighbour = self.known.entry(address).or_insert_with(|| Neighbour {
            belief: Belief::none(now),
            egress,
            waiting: VecDeque::with_capacity(WAITING_MAX),
        });
        if neighbour.belief.used(now) || neighbour.belief.mac().is_some() {
            return Waited::Go(frame);
        }
        let crowded = self.waiting >= WAITING_TOTAL_MAX;
        if crowded || neighbour.waiting.len() >= WAITING_MAX {
            let Some(oldest) = neighbour.waiting.pop_front() else {
                return Waited::Refused(frame);
            };
            neighbour.waiting.push_back(frame);
            return Waited::Displaced(oldest);
        }
        neighbour.waiting.push_back(frame);
        self.waiting += 1;
        Waited::Held(match neighbour.belief.expire(now) {
            Due::Question(last_known) => Some(Question {
                address,
                egress: neighbour.egress,
                last_known,
            }),
            // Later questions, and the end of patience, are the business of `tick`.
            Due::Nothing | Due::Farewell => None,
        })
    }

    /// True if one more may be known: the neighbour that was unused longest gives way.
    fn make_room(&mut self) -> bool {
        if self.known.len() < NEIGHBOURS_MAX {
            return true;
        }
        let unused = self
            .known
            .iter()
            .filter(|(_, neighbour)| neighbour.belief.state() == State::Stale)
            .min_by_key(|(_, neighbour)| neighbour.belief.due())
            .map(|(address, _)| *address);
        unused.is_some_and(|address| self.known.remove(&address).is_some())
    }

    /// Notes what a neighbour tells, and gives back the frames that waited for it, oldest first.
    /// What nobody asked for makes no entry (RFC 4861 7.2.5).
    pub fn hear(&mut self, address: IpAddr, told: Told, now: Tick) -> VecDeque<Waiting> {
        let Some(neighbour) = self.known.get_mut(&address) else {
            return VecDeque::new();
        };
        neighbour.belief.hear(told, now);
        if neighbour.belief.mac().is_none() || neighbour.waiting.is_empty() {
            return VecDeque::new();
        }
        // They are about to be sent to it.
        neighbour.belief.used(now);
        self.waiting -= neighbour.waiting.len();
        std::mem::take(&mut neighbour.waiting)
    }

    /// Questions due now, at most as many as `questions` has room for, and the frames of
    /// neighbours that did not answer, into `failed`. Forgets whom nobody used.
    pub fn tick(&mut self, now: Tick, questions: &mut Vec<Question>, failed: &mut Vec<Waiting>) {
        let waiting = &mut self.waiting;
        self.known.retain(|address, neighbour| {
            if questions.len() == questions.capacity() {
                return true;
            }
            match neighbour.belief.expire(now) {
                Due::Nothing => true,
                Due::Question(last_known) => {
                    questions.push(Question {
                        address: *address,
                        egress: neighbour.egress,
                        last_known,
                    });
                    true
                }
                Due::Farewell => {
                    *waiting -= neighbour.waiting.len();
                    failed.extend(neighbour.waiting.drain(..));
                    false
                }
            }
        });
    }

    /// Forgets the neighbours that `gone` names, and gives the frames that waited for them into
    /// `stranded`: new tables may know another way.
    pub fn forget(&mut self, gone: impl Fn(IpAddr) -> bool, stranded: &mut Vec<Waiting>) {
        let waiting = &mut self.waiting;
        self.known.retain(|address, neighbour| {
            if !gone(*address) {
                return true;
            }
            *waiting -= neighbour.waiting.len();
            stranded.extend(neighbour.waiting.drain(..));
            false
        });
    }

    /// Every neighbour with what is known of it. For views.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.known.iter().map(|(address, neighbour)| Entry {
            address: *address,
            mac: neighbour.belief.mac(),
            state: neighbour.belief.state(),
            router: neighbour.belief.is_router(),
            egress: neighbour.egress,
        })
    }

    /// Every frame that waits, the oldest of each neighbour first.
    pub(crate) fn all_waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.known.values().flat_map(|known| &known.waiting)
    }

    /// Takes over what another knew of a neighbour: its address is good to use, and is asked for
    /// anew when it is. Whom one knows already, and who has no address, is left alone.
    pub(crate) fn recall(&mut self, entry: &Entry, now: Tick) {
        let (Some(mac), true) = (entry.mac, self.make_room()) else {
            return;
        };
        self.known
            .entry(entry.address)
            .or_insert_with(|| Neighbour {
                belief: Belief::recalled(mac, entry.router, now),
                egress: entry.egress,
                waiting: VecDeque::with_capacity(WAITING_MAX),
            });
    }
}

#[cfg(test)]
mod tests;
