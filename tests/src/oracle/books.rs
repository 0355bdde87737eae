//! What the oracle counts, in the switch's own terms.
//!
//! In: one event at a time. Out: [`Books`], to be compared with the counters of the real switch.
//! Never: a sum that could hide a term: each reason at each port has a number of its own.

use std::collections::{BTreeMap, BTreeSet};

use dataplane::addr::PortId;
use dataplane::verdict::DropReason;

/// Numbers of frames since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Frames that came in.
    pub received: u64,
    /// Frames that the switch made itself.
    pub originated: u64,
    /// Frames beyond the first that were made of one.
    pub copied: u64,
    /// Frames that went out.
    pub transmitted: u64,
    /// Frames that the slow path consumed.
    pub punted: u64,
    /// Frames that wait now.
    pub queued: u64,
    /// ICMP errors that were due, and not sent.
    pub suppressed: u64,
    /// Deaths, where and why, at the ports that are there, and at numbers that never had one.
    pub dropped: BTreeMap<(PortId, DropReason), u64>,
    /// Deaths at numbers that another port has by now.
    pub gone: u64,
    /// Frames that guards objected to and let pass, where and why, as `dropped`.
    pub observed: BTreeMap<(PortId, DropReason), u64>,
    /// The same at numbers that another port has by now.
    pub observed_gone: u64,
}

impl Books {
    /// One death.
    pub(super) fn drop(&mut self, port: PortId, reason: DropReason) {
        *self.dropped.entry((port, reason)).or_default() += 1;
    }

    /// Objections of guards that only observe.
    pub(super) fn observe(&mut self, port: PortId, seen: &BTreeSet<DropReason>) {
        for reason in seen {
            *self.observed.entry((port, *reason)).or_default() += 1;
        }
    }

    /// Every frame that came into being is accounted for.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let deaths: u64 = self.dropped.values().sum();
        self.received + self.originated + self.copied
            == self.transmitted + deaths + self.gone + self.punted + self.queued
    }

    /// A port takes a number that nobody has, and counts from nought.
    pub(super) fn begin(&mut self, port: PortId) {
        self.gone += take(&mut self.dropped, port);
        self.observed_gone += take(&mut self.observed, port);
    }
}

/// Takes the rows of a port out, and returns their sum.
fn take(rows: &mut BTreeMap<(PortId, DropReason), u64>, port: PortId) -> u64 {
    let all: Vec<u64> = rows
        .extract_if(.., |(at, _), _| *at == port)
        .map(|(_, count)| count)
        .collect();
    all.iter().sum()
}
