//! What must hold, whatever happens.
//!
//! In: nothing. Out: the laws by name. Never: a law that a run without a fault could break.

use std::fmt;

/// A law.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// Every frame that came in, was made or was copied is counted where it went, and the ports saw
    /// as many as were counted.
    Conservation,
    /// A packet comes out only at the pod that holds its target address.
    Tenant,
    /// A frame is addressed by the same tables by which it was sent out of its port: all of it is
    /// decided by what was in force when the breath began.
    OneTable,
    /// Nothing comes back to its sender.
    NotBack,
    /// A learned station is behind the port where it spoke, and gone with it.
    Fdb,
    /// The frames of a flow come out in the order in which they went in, and once.
    Order,
    /// What leaves a node is sound, and the node's own.
    Wire,
    /// Queues and tables stay within their limits.
    Memory,
    /// Where pods' ports are guarded, what one says in another's name comes out nowhere.
    Guards,
    /// Soon after the last fault everybody reaches everybody.
    Convergence,
}

impl Law {
    /// Its name, for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Law::Conservation => "conservation",
            Law::Tenant => "tenant",
            Law::OneTable => "one table",
            Law::NotBack => "not back",
            Law::Fdb => "learned stations",
            Law::Order => "order",
            Law::Wire => "wire",
            Law::Memory => "memory",
            Law::Guards => "guards",
            Law::Convergence => "convergence",
        }
    }
}

/// A law that does not hold, and what was seen.
pub(super) type Breach = (Law, String);

/// Nothing, or a breach.
pub(super) type Held = Result<(), Breach>;

/// Breaks `law` unless `holds`.
pub(super) fn must(law: Law, holds: bool, what: impl FnOnce() -> String) -> Held {
    if holds { Ok(()) } else { Err((law, what())) }
}

/// A law was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Broken {
    /// Of which run.
    pub seed: u64,
    /// In which round.
    pub round: u32,
    /// Which.
    pub law: Law,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken {
            seed,
            round,
            law,
            what,
        } = self;
        write!(
            f,
            "seed {seed}, round {round}: the law '{}' is broken: {what}",
            law.name()
        )
    }
}
