//! Two that want one address: who holds it, who claimed it, and where.
//!
//! In: a claim that the switch refused, from the worker that saw it. Out: the record, for control.
//! Never: waits or logs: the queue is bounded and lock-free, and its oldest record gives way.
//!
//! The counter `address_conflict` counts every claim; a claim that goes on is reported once a second.

use std::net::IpAddr;

use crossbeam::queue::ArrayQueue;

use crate::addr::{Mac, PortId};
use crate::clock::Tick;
use crate::sync::Arc;

/// Records that may wait for a reader of one worker: a claim of every address of a full node would
/// be 250, and an operator needs a few to find the culprit.
pub const CONFLICTS_MAX: usize = 64;

/// Bytes of the records of one worker: each has a number beside it.
pub(crate) const BYTES: usize = CONFLICTS_MAX * (size_of::<Conflict>() + size_of::<usize>());

/// A claim that goes on is recorded once in so many milliseconds.
const AGAIN_MS: u64 = 1000;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    /// Its port.
    pub port: PortId,
    /// Its hardware address.
    pub mac: Mac,
}

/// A claim of an address that another port holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// Who holds it, and keeps it.
    pub holder: Party,
    /// Who claimed it, and was refused.
    pub claimer: Party,
    /// When, on the worker's clock.
    pub at: Tick,
}

/// The records of one worker: it writes, anybody takes.
#[derive(Clone, Debug)]
pub struct Conflicts(Arc<ArrayQueue<Conflict>>);

impl Default for Conflicts {
    fn default() -> Conflicts {
        Conflicts(Arc::new(ArrayQueue::new(CONFLICTS_MAX)))
    }
}

impl Conflicts {
    /// The oldest record that nobody took yet.
    #[must_use]
    pub fn take(&self) -> Option<Conflict> {
        self.0.pop()
    }
}

/// The writing end, with what it wrote last.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    conflicts: Conflicts,
    last: Option<Conflict>,
}

impl Reporter {
    /// The reading end.
    pub(crate) fn conflicts(&self) -> &Conflicts {
        &self.conflicts
    }

    /// Forgets what was recorded.
    pub(crate) fn begin_anew(&mut self) {
        self.last = None;
        while self.conflicts.take().is_some() {}
    }

    /// Records `conflict`, unless it is the last one again within the second.
    pub(crate) fn report(&mut self, conflict: Conflict) {
        let again = self.last.is_some_and(|last| {
            let at = last.at;
            Conflict { at, ..conflict } == last && conflict.at.since(at) < AGAIN_MS
        });
        if !again {
            self.last = Some(conflict);
            let _ = self.conflicts.0.force_push(conflict);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(last: u8, at: u64) -> Conflict {
        let party = |port| Party {
            port: PortId::new(port).expect("in range"),
            mac: Mac::new([2, 0, 0, 0, 0, 1]),
        };
        Conflict {
            address: [10, 0, 0, last].into(),
            holder: party(1),
            claimer: party(2),
            at: Tick(at),
        }
    }

    #[test]
    fn a_claim_that_goes_on_is_recorded_once_a_second_and_the_oldest_gives_way() {
        let mut reporter = Reporter::default();
        for at in [0, 10, 999, 1000, 1001] {
            reporter.report(conflict(1, at));
        }
        let taken: Vec<_> = std::iter::from_fn(|| reporter.conflicts().take()).collect();
        assert_eq!(taken, [conflict(1, 0), conflict(1, 1000)]);
        for last in 0..=64 {
            reporter.report(conflict(last, 2000));
        }
        let taken: Vec<_> = std::iter::from_fn(|| reporter.conflicts().take()).collect();
        assert_eq!(taken.len(), CONFLICTS_MAX);
        assert_eq!(taken[0], conflict(1, 2000), "the first gave way");
    }
}
