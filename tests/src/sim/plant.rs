//! Faults of the switch itself, planted to see that a law catches them.
//!
//! In: nothing. Out: [`Plant`]s by name. Never: a hook in the dataplane: each is something that stands
//! around the worker, and makes it look as if it had the fault.

use clap::ValueEnum;
use dataplane::tables::fib::NextHop;
use dataplane::tables::{PortRole, Tables, TablesSpec};

use super::laws::Law;

/// A planted fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Plant {
    /// A death is not counted: the counters are read through a glass that forgets one.
    DroppedCounter,
    /// A pod's address leads to another pod: the tables are altered on their way to the worker.
    WrongTenant,
    /// Stations outlive the port they were heard on: whatever is forgotten is put back.
    StaleFdb,
    /// New ports and owners with old routes: half of a table is published.
    TornTable,
    /// Two frames of a burst change places: a port hands them in so.
    ReorderedFlow,
    /// Guards that do not look: the tables reach the worker without them.
    BlindGuards,
}

impl Plant {
    /// The law that catches it.
    #[must_use]
    pub const fn caught_by(self) -> Law {
        match self {
            Plant::DroppedCounter => Law::Conservation,
            Plant::WrongTenant => Law::Tenant,
            Plant::StaleFdb => Law::Fdb,
            Plant::TornTable => Law::OneTable,
            Plant::ReorderedFlow => Law::Order,
            Plant::BlindGuards => Law::Guards,
        }
    }
}

/// The tables that the worker gets in place of `new`.
pub(super) fn tables(plant: Option<Plant>, old: &TablesSpec, new: &TablesSpec) -> Tables {
    let spec = match plant {
        Some(Plant::TornTable) => TablesSpec {
            routes: old.routes.clone(),
            ..new.clone()
        },
        Some(Plant::WrongTenant) => crossed(new),
        Some(Plant::BlindGuards) => TablesSpec {
            guards: Vec::new(),
            ..new.clone()
        },
        _ => new.clone(),
    };
    let built = Tables::build(&spec).or_else(|_| Tables::build(new));
    built.unwrap_or_else(|faults| panic!("control published no table: {faults:?}"))
}

/// The routes of the first two pods lead to each other.
fn crossed(spec: &TablesSpec) -> TablesSpec {
    let mut spec = spec.clone();
    let pods = spec.ports.iter().filter(|row| row.role == PortRole::Pod);
    let hops: Vec<NextHop> = pods
        .map(|row| NextHop::Station {
            port: row.id,
            mac: row.mac.mac(),
        })
        .collect();
    if let [one, other, ..] = hops[..] {
        for (_, hop) in &mut spec.routes {
            match *hop {
                hop_ if hop_ == one => *hop = other,
                hop_ if hop_ == other => *hop = one,
                _ => {}
            }
        }
    }
    spec
}
