//! What a switch may come to hold: every table and queue with its limit, why that, and its bytes.
//!
//! In: how the switch is to run. Out: rows for a person, and their sum, as of the moment when
//! everything is full. Never: what is held now (a pool touches its slots as they are first used).
//!
//! Each limit is a constant beside the thing that it limits, with its derivation; this is where all
//! of them are seen together. Not in here, since they have no fixed size: the routes, whose table says
//! its own (`Fib::memory_bytes`), and what ports keep, which is a batch each.

use std::fmt;

use crate::addr::PortId;
use crate::buffer::{FRAME_MAX, Pool};
use crate::switch::Options;
use crate::tables::fdb::Fdb;
use crate::tables::fragments::{Fragments, WATCHED_MAX};
use crate::tables::neighbour::{NEIGHBOURS_MAX, Neighbours, WAITING_TOTAL_MAX};
use crate::tables::returns::{Returns, strangers};
use crate::tables::{OWNERS_MAX, Tables};
use crate::worker::{FLAPS_MAX, POOL_SLOTS};
use crate::{conflict, gossip, slow, stats, worker};

/// One thing that grows, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What it is.
    pub what: &'static str,
    /// How many entries it holds at most.
    pub limit: usize,
    /// How many of it there are: one for each worker, or one.
    pub count: usize,
    /// Bytes of all of them when they are full.
    pub bytes: usize,
    /// Why no more.
    pub because: &'static str,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bound {
            what,
            limit,
            count,
            bytes,
            because,
        } = self;
        let kib = bytes.div_ceil(1024);
        write!(
            f,
            "{what:<28} {count:>2} x {limit:>6}  {kib:>7} KiB  {because}"
        )
    }
}

/// Every bound of a switch that is run so.
#[must_use]
pub fn at_limit(options: &Options) -> Vec<Bound> {
    let mut bounds = Vec::from(of_workers(options.workers));
    bounds.extend(of_memories(options.workers));
    bounds.extend(of_the_switch(options));
    bounds
}

/// Makes rows of what each worker has one of.
fn row_of(workers: usize) -> impl Fn(&'static str, usize, usize, &'static str) -> Bound {
    move |what, limit, bytes, because| Bound {
        what,
        limit,
        count: workers,
        bytes: workers * bytes,
        because,
    }
}

/// What each worker has for itself.
fn of_workers(workers: usize) -> [Bound; 4] {
    let each = row_of(workers);
    [
        each(
            "buffers for frames",
            POOL_SLOTS,
            Pool::bytes_of(POOL_SLOTS, FRAME_MAX),
            "two bursts, and every frame that may wait for a neighbour",
        ),
        each(
            "counters of ports",
            PortId::COUNT_MAX,
            stats::BYTES,
            "250 pods, the most a kubelet is set to, host and uplink, and a power of two",
        ),
        each(
            "neighbours on the uplink",
            NEIGHBOURS_MAX,
            Neighbours::BYTES_MAX,
            "400 routes, the most a route table has by default",
        ),
        each(
            "lists of frames in hand",
            WAITING_TOTAL_MAX,
            worker::LISTS_BYTES,
            "as many as there are buffers",
        ),
    ]
}

/// What each worker remembers of others.
fn of_memories(workers: usize) -> [Bound; 7] {
    let each = row_of(workers);
    [
        each(
            "buckets against storms",
            PortId::COUNT_MAX,
            worker::STORMS_BYTES,
            "three for each port",
        ),
        each(
            "stations that flap",
            FLAPS_MAX,
            worker::FLAPS_BYTES,
            "only those that move have a place",
        ),
        each(
            "packets seen in fragments",
            WATCHED_MAX,
            Fragments::BYTES,
            "what does not find a place passes unwatched",
        ),
        each(
            "flows that no entry is about",
            strangers::PLACES,
            strangers::BYTES,
            "a flow that finds none is looked for with every frame",
        ),
        each(
            "buckets for ICMP errors",
            slow::limit::HOSTS,
            slow::limit::BYTES,
            "a host each, and none shares its bucket with many",
        ),
        each(
            "claims on record",
            conflict::CONFLICTS_MAX,
            conflict::BYTES,
            "an operator needs a few to find the culprit",
        ),
        each(
            "news between workers",
            gossip::NEWS_MAX,
            gossip::BYTES,
            "more than are asked for in a round of chores",
        ),
    ]
}

/// What they share.
fn of_the_switch(options: &Options) -> [Bound; 3] {
    let one = |what, limit, bytes, because| Bound {
        what,
        limit,
        count: 1,
        bytes,
        because,
    };
    [
        one(
            "learned stations (FDB)",
            options.fdb_capacity,
            Fdb::bytes_of(options.fdb_capacity),
            "250 pods with 32 each, and the host",
        ),
        one(
            "conversations by the host",
            options.returns_capacity,
            Returns::bytes_of(options.returns_capacity),
            "a quarter of the kernel's own connections; no port more than half",
        ),
        one(
            "ports, guards and addresses",
            OWNERS_MAX,
            2 * Tables::BYTES_MAX,
            "eight addresses for each port; twice while tables change",
        ),
    ]
}

/// Bytes of all of them.
#[must_use]
pub fn total(bounds: &[Bound]) -> usize {
    bounds.iter().map(|bound| bound.bytes).sum()
}
