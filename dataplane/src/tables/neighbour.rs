//! Next hops on the uplink: which hardware address answers for which protocol address.
//!
//! In: frames that wait for an address, replies that tell one, and the time.
//! Out: the address for `decide`; questions to ask and frames to let go for the slow path.
//! Never: believes a reply that nobody asked for, or holds frames without bound.
//!
//! The states are those of RFC 4861 7.3.2 that a router with few, busy neighbours passes through:
//! incomplete until the first reply, reachable for a while, then probed while still in use.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use crate::addr::{Mac, PortId};
use crate::buffer::Frame;
use crate::clock::Tick;

/// How long a reply is believed: `REACHABLE_TIME`, RFC 4861 section 10.
pub const REACHABLE_MS: u64 = 30_000;
/// Between two questions: `RETRANS_TIMER`, RFC 4861 section 10.
pub const RETRY_MS: u64 = 1_000;
/// Questions before giving up: `MAX_MULTICAST_SOLICIT`, RFC 4861 section 10.
pub const TRIES_MAX: u8 = 3;
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
    egress: PortId,
    mac: Option<Mac>,
    tries: u8,
    /// When to ask next, or, with a fresh reply, when to begin asking again.
    due: Tick,
    waiting: VecDeque<Waiting>,
}

/// A frame was not taken to wait.
#[derive(Debug)]
pub struct Refused(pub Waiting);

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

/// The neighbours of one worker.
#[derive(Debug, Default)]
pub struct Neighbours {
    known: HashMap<IpAddr, Neighbour>,
    waiting: usize,
}

impl Neighbours {
    /// The hardware address of `address`, if a reply is believed.
    #[inline]
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<Mac> {
        self.known.get(&address)?.mac
    }

    /// Frames that wait for a reply.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// True while any question may come due, so that the worker must look at the time.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Holds `frame` until `address` has answered. The first frame makes a question due at once.
    ///
    /// # Errors
    /// The frame, if too many wait already.
    pub fn wait(
        &mut self,
        address: IpAddr,
        egress: PortId,
        frame: Waiting,
        now: Tick,
    ) -> Result<(), Refused> {
        let strange = !self.known.contains_key(&address);
        let crowded = self.waiting >= WAITING_TOTAL_MAX;
        if crowded || (strange && self.known.len() >= NEIGHBOURS_MAX) {
            return Err(Refused(frame));
        }
        let neighbour = self.known.entry(address).or_insert_with(|| Neighbour {
            egress,
            mac: None,
            tries: 0,
            due: now,
            waiting: VecDeque::with_capacity(WAITING_MAX),
        });
        if neighbour.waiting.len() >= WAITING_MAX {
            return Err(Refused(frame));
        }
        neighbour.waiting.push_back(frame);
        self.waiting += 1;
        Ok(())
    }

    /// Notes a reply, and gives back the frames that waited for it, oldest first. A reply that
    /// nobody asked for changes nothing.
    pub fn hear(&mut self, address: IpAddr, mac: Mac, now: Tick) -> VecDeque<Waiting> {
        let Some(neighbour) = self.known.get_mut(&address) else {
            return VecDeque::new();
        };
        neighbour.mac = Some(mac);
        neighbour.tries = 0;
        neighbour.due = now + REACHABLE_MS;
        self.waiting -= neighbour.waiting.len();
        std::mem::take(&mut neighbour.waiting)
    }

    /// Questions due now, at most as many as `questions` has room for, and the frames of
    /// neighbours that did not answer, into `failed`.
    pub fn tick(&mut self, now: Tick, questions: &mut Vec<Question>, failed: &mut Vec<Waiting>) {
        let waiting = &mut self.waiting;
        self.known.retain(|address, neighbour| {
            if neighbour.due > now || questions.len() == questions.capacity() {
                return true;
            }
            if neighbour.tries >= TRIES_MAX {
                *waiting -= neighbour.waiting.len();
                failed.extend(neighbour.waiting.drain(..));
                return false;
            }
            neighbour.tries += 1;
            neighbour.due = now + RETRY_MS;
            questions.push(Question {
                address: *address,
                egress: neighbour.egress,
                last_known: neighbour.mac,
            });
            true
        });
    }

    /// Every neighbour with what is known of it. For views.
    pub fn entries(&self) -> impl Iterator<Item = (IpAddr, Option<Mac>)> + '_ {
        self.known
            .iter()
            .map(|(address, neighbour)| (*address, neighbour.mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Pool;

    const HOP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 20, 0, 5));
    const ROUTER: Mac = Mac::new([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);

    fn egress() -> PortId {
        PortId::new(1).expect("in range")
    }

    fn frame(pool: &mut Pool) -> Waiting {
        Waiting {
            frame: pool.take().expect("free"),
            ingress: egress(),
        }
    }

    fn due(neighbours: &mut Neighbours, now: u64, pool: &mut Pool) -> (usize, usize) {
        let (mut questions, mut failed) = (Vec::with_capacity(8), Vec::new());
        neighbours.tick(Tick(now), &mut questions, &mut failed);
        let counts = (questions.len(), failed.len());
        failed
            .into_iter()
            .for_each(|waiting| pool.release(waiting.frame));
        counts
    }

    #[test]
    fn a_silent_neighbour_is_asked_three_times_and_then_fails_its_frames() {
        let (mut pool, mut neighbours) = (Pool::new(4, 64), Neighbours::default());
        neighbours
            .wait(HOP, egress(), frame(&mut pool), Tick(0))
            .expect("room");
        neighbours
            .wait(HOP, egress(), frame(&mut pool), Tick(0))
            .expect("room");
        assert_eq!(due(&mut neighbours, 0, &mut pool), (1, 0));
        assert_eq!(due(&mut neighbours, 999, &mut pool), (0, 0));
        assert_eq!(due(&mut neighbours, 1000, &mut pool), (1, 0));
        assert_eq!(due(&mut neighbours, 2000, &mut pool), (1, 0));
        assert_eq!(due(&mut neighbours, 3000, &mut pool), (0, 2));
        assert!(neighbours.is_empty() && neighbours.waiting() == 0);
        assert_eq!(pool.free(), pool.slots());
    }

    #[test]
    fn a_reply_frees_the_waiting_and_is_believed_for_its_time() {
        let (mut pool, mut neighbours) = (Pool::new(4, 64), Neighbours::default());
        neighbours
            .wait(HOP, egress(), frame(&mut pool), Tick(0))
            .expect("room");
        due(&mut neighbours, 0, &mut pool);
        for waiting in neighbours.hear(HOP, ROUTER, Tick(5)) {
            pool.release(waiting.frame);
        }
        assert_eq!(neighbours.find(HOP), Some(ROUTER));
        assert_eq!(due(&mut neighbours, 29_000, &mut pool), (0, 0));
        assert_eq!(due(&mut neighbours, 30_005, &mut pool), (1, 0));
        assert_eq!(
            neighbours.find(HOP),
            Some(ROUTER),
            "still used while it is probed"
        );
        assert_eq!(pool.free(), pool.slots());
    }

    #[test]
    fn an_unasked_reply_is_not_believed_and_a_crowd_is_refused() {
        let (mut pool, mut neighbours) = (Pool::new(WAITING_MAX + 1, 64), Neighbours::default());
        assert!(neighbours.hear(HOP, ROUTER, Tick(0)).is_empty());
        assert_eq!(neighbours.find(HOP), None);
        for _ in 0..WAITING_MAX {
            neighbours
                .wait(HOP, egress(), frame(&mut pool), Tick(0))
                .expect("room");
        }
        let refused = neighbours.wait(HOP, egress(), frame(&mut pool), Tick(0));
        assert!(matches!(refused, Err(Refused(_))));
    }
}
