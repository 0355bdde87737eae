//! What the daemon tells Prometheus.
//!
//! In: the running part. Out: a [`Sample`]. Never: names a pod, a port or an address.

use super::core::Core;
use crate::metrics::{Roles, Sample};

impl Core {
    /// Everything that is exported of the running part.
    #[must_use]
    pub fn sample(&mut self) -> Sample {
        self.gather_conflicts();
        let boards = self.board();
        let tables = self.switch().tables();
        let mut roles = Roles::default();
        for row in tables.ports() {
            roles.add(row.role, &boards.port(row.id));
        }
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
            ..Sample::of_switch(&boards, roles)
        }
    }
}
