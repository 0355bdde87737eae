//! What the daemon tells Prometheus.
//!
//! In: the running part. Out: a [`Sample`]. Never: names a pod, a port or an address.

use std::collections::BTreeMap;

use dataplane::bounds;
use dataplane::tables::PortRole;
use dataplane::tables::guard::Guard;

use super::core::{Core, options};
use crate::metrics::{Roles, Sample};

impl Core {
    /// Everything that is exported of the running part.
    #[must_use]
    pub fn sample(&mut self) -> Sample {
        self.gather_conflicts();
        let ledger = self.switch().ledger();
        let tables = self.switch().tables();
        let mut roles = Roles::default();
        for row in tables.ports() {
            roles.has(row.role);
        }
        for (id, counts) in &ledger.ports {
            // Whose row is gone was a pod: the others stay.
            let role = tables.port(*id).map_or(PortRole::Pod, |row| row.role);
            roles.add(role, counts);
        }
        roles.add(PortRole::Pod, &ledger.gone);
        let mut guards = BTreeMap::new();
        for port in tables.ports() {
            if let Some(guarded) = tables.guard(port.id) {
                for guard in Guard::ALL {
                    let mode = guard.mode(guarded.guard());
                    *guards.entry((guard, mode)).or_default() += 1;
                }
            }
        }
        let bounds = bounds::at_limit(&options(self.spec(), self.settings()));
        let status = self.status();
        let fill = status.addresses.unwrap_or_default();
        let fdb = self.switch().fdb();
        Sample {
            ready: status.ready,
            serving_seconds: status.serving_seconds.unwrap_or_default(),
            workers: u64::from(self.settings().workers.get()),
            stations: fdb.entries().count() as u64,
            stations_max: fdb.capacity() as u64,
            conflicts: self.conflicts_seen(),
            attachments: status.attachments as u64,
            addresses: fill.total,
            addresses_held: fill.held,
            addresses_resting: fill.resting,
            truth_known: self.is_told(),
            guards,
            memory_max: bounds::total(&bounds) as u64,
            ..Sample::of_switch(&ledger, roles)
        }
    }
}
