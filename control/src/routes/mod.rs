//! Routes as Azure makes them and chooses among them.
//!
//! In: the VNet's address space, ARM documents of route tables, what a gateway learned.
//! Out: the [`EffectiveRoutes`] of a subnet, each with its source, and the losers with the winner.
//! Never: knows a plan, a device or a frame; asks Azure.
//!
//! | file | room |
//! |---|---|
//! | `route` | a route, its next hop, its source: names, and how they are printed |
//! | `system` | the routes that nobody writes |
//! | `choose` | which route is taken, and why the others are not |
//! | `table` | a route table from its ARM document, every fault with its line |
//! | `observed` | what only Azure knows: a gateway's routes, peers, service endpoints |
//!
//! # Who applies which route
//!
//! Azure's fabric applies the effective routes to what leaves a NIC, by the table of the subnet
//! that the NIC is in. It does so whatever MAC a node sent the frame to, since it answers every ARP
//! request with one MAC. A node therefore needs to know only whether a frame leaves by its uplink
//! as it is, or goes to its kernel first. So [`crate::compile`] follows the effective routes
//! exactly where the switch sends frames out past the kernel: other nodes' pod CIDRs under kubenet,
//! the VNet's prefixes under azure. There
//!
//! - a route of a table to `None` is a blackhole: the frame dies where somebody counts it by name,
//!   and not in the fabric, which tells nobody;
//! - a next hop of type `VirtualAppliance` is whom a kubenet node asks for by ARP, if the VNet holds
//!   it, and otherwise the subnet's gateway;
//! - any other route, the system's to `None` above all, is left to the fabric. A node cannot know
//!   whether a table is attached to its subnet at this moment, and a frame that the node itself
//!   threw away would never tell.
//!
//! Elsewhere a node must *not* apply them. Services, node-local DNS and Azure's platform are the
//! kernel's before any route is asked. The rest of the world goes to the kernel too, because
//! kube-proxy may translate it (the public address of a service answers within the node) and the
//! ip-masq-agent gives it the node's address; a user's `0.0.0.0/0 -> None` meets it in the fabric
//! afterwards. And frames for the node's own pods never leave the NIC, so no route concerns them.

mod choose;
mod observed;
mod route;
mod system;
mod table;

pub use choose::{Caveat, EffectiveRoutes, Loss, Row, State, Why};
pub(crate) use observed::{Observed, read as read_observed};
pub use route::{NextHop, Route, RouteTable, Source};
pub use system::Space;
pub(crate) use table::{PlacedTable, read as read_tables, read_beside as read_tables_beside};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
