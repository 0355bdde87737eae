//! Whole clusters in one process, on which faults are tried out: deterministic simulation.
//!
//! In: a seed. Out: a [`Report`], or the first [`Broken`] law with the round in which it broke.
//! Never: a device, a thread, or the time of day: a seed reproduces a run exactly.
//!
//! Every node is a real worker with the tables that control compiles for it; its ports are memory
//! ports behind a middleware that has faults ([`port`]). Between the nodes are the lab's own rules of
//! Azure's fabric, on lines that lose, double and reorder ([`fabric`]). Pods come, go, and come back;
//! control publishes before, after and in the middle of a batch; clocks jump; switches crash and
//! start again from what was saved. What must hold all the while is in [`laws`].

pub mod cluster;
pub mod fabric;
pub mod laws;
pub mod node;
pub mod plant;
pub mod port;
pub mod site;
pub mod soak;
pub mod traffic;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use laws::{Broken, Law};
pub use plant::Plant;

/// Rounds with faults in one run.
pub const ROUNDS: u32 = 150;

/// How a run is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Rounds with faults, before those in which everything must come to rest.
    pub rounds: u32,
    /// A fault of the switch itself, which a law must catch.
    pub plant: Option<Plant>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            rounds: ROUNDS,
            plant: None,
        }
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Frames that switches received.
    pub received: u64,
    /// Frames of pods that reached the pods they were for.
    pub delivered: u64,
    /// Frames that died in a switch, whatever for.
    pub dropped: u64,
    /// Frames that the fabric carried.
    pub carried: u64,
    /// Faults that happened.
    pub faults: u64,
    /// Tables that were published.
    pub published: u64,
    /// Of everything that came out of a switch, in its order.
    pub digest: u64,
}

thread_local! {
    /// The round of the run on this thread, for a run that ends in a panic.
    static ROUND: Cell<u32> = const { Cell::new(0) };
}

/// One run.
///
/// # Errors
/// The first law that broke. A worker that stops because its books or buffers do not balance breaks
/// the law of conservation.
pub fn run(seed: u64, options: &Options) -> Result<Report, Broken> {
    let mut cluster = cluster::Cluster::new(seed, options.plant);
    let told = catch_unwind(AssertUnwindSafe(|| {
        for round in 0..options.rounds {
            ROUND.set(round);
            cluster.round()?;
        }
        ROUND.set(options.rounds);
        cluster.converge()
    }));
    let told = told.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err((Law::Conservation, words.unwrap_or_default()))
    });
    match told {
        Ok(()) => Ok(cluster.report()),
        Err((law, what)) => Err(Broken {
            seed,
            round: ROUND.get(),
            law,
            what,
        }),
    }
}
