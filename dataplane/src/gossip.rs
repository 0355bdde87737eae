//! What the workers of one switch tell each other: where a neighbour lives.
//!
//! In: a reply that one worker's queue happened to get. Out: the same news for the others.
//! Never: waits, or carries a frame. News that find a full ring are lost, and the question is
//! asked again a second later.
//!
//! Each worker asks for the neighbours that its own flows need, but a reply arrives on whichever
//! queue the kernel picks. So who hears one passes it on, by a bounded lock-free ring to each.

use std::net::IpAddr;

use crossbeam::queue::ArrayQueue;

use crate::sync::Arc;
use crate::tables::neighbour::state::Told;

/// News that may wait for one worker. A worker looks at its ring in every breath, and the fabric
/// answers at most as many questions as are asked in 100 ms.
pub(crate) const NEWS_MAX: usize = 256;

/// Bytes of the news for one worker: each has a number beside it.
pub(crate) const BYTES: usize = NEWS_MAX * (size_of::<Heard>() + size_of::<usize>());

/// What a neighbour told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) address: IpAddr,
    pub(crate) told: Told,
}

/// One worker's ear, and its voice to the others.
#[derive(Debug, Default)]
pub struct Gossip {
    ear: Option<Arc<ArrayQueue<Heard>>>,
    others: Vec<Arc<ArrayQueue<Heard>>>,
    /// Another worker speaks for the switch.
    second: bool,
}

impl Gossip {
    /// For workers of one switch: everyone hears everyone else.
    #[must_use]
    pub fn circle(workers: usize) -> Vec<Gossip> {
        let ears: Vec<_> = (0..workers)
            .map(|_| Arc::new(ArrayQueue::new(NEWS_MAX)))
            .collect();
        let others = |own: usize| {
            let rest = ears.iter().enumerate().filter(|(at, _)| *at != own);
            rest.map(|(_, ear)| Arc::clone(ear)).collect()
        };
        let gossip = |own: usize| Gossip {
            ear: Some(Arc::clone(&ears[own])),
            others: others(own),
            second: own > 0,
        };
        (0..workers).map(gossip).collect()
    }

    /// Tells the others. True if there is anyone to tell.
    pub(crate) fn tell(&self, news: Heard) -> bool {
        for ear in &self.others {
            let _ = ear.push(news);
        }
        !self.others.is_empty()
    }

    /// True for the one worker that says what needs to be said once.
    pub(crate) fn speaks_for_all(&self) -> bool {
        !self.second
    }

    /// The oldest news that others told.
    #[inline]
    pub(crate) fn listen(&self) -> Option<Heard> {
        self.ear.as_ref()?.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Mac, Station};

    #[test]
    fn everyone_hears_everyone_else_and_nobody_himself() {
        let circle = Gossip::circle(3);
        let news = Heard {
            address: [10, 20, 0, 5].into(),
            told: Told::by_arp_reply(Station::new(Mac::new([2; 6])).expect("a station")),
        };
        assert!(circle[1].tell(news));
        assert_eq!(circle[0].listen(), Some(news));
        assert_eq!(circle[1].listen(), None);
        assert_eq!(circle[2].listen(), Some(news));
        assert!(
            !Gossip::default().tell(news),
            "a lone worker has nobody to tell"
        );
    }
}
