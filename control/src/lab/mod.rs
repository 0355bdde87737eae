//! The lab: the planned cluster in network namespaces, on a simulated Azure, walked end to end.
//!
//! In: a plan, and the right to make namespaces. Out: a [`report::Report`] for each mode.
//! Never: touches the machine's own network, or leaves anything behind.
//!
//! | file | what it does |
//! |---|---|
//! | `privilege`, `prereq` | leaves the machine's network first, or says what is missing |
//! | `reaper`, `registry` | clears up after a lab that was killed; lets `lab exec` find one that runs |
//! | `fabric/` | Azure's VNet, as nodes see it |
//! | `placement` | who is where: nodes, pods, addresses, devices; pure |
//! | `cluster` | builds nodes, switches and pods |
//! | `probe/` | ping, capture, transfer |
//! | `walk`, `report`, `print` | what must hold, what was found, and how it is told |

pub mod cluster;
pub mod fabric;
pub mod placement;
pub mod prereq;
pub mod print;
pub mod privilege;
pub mod probe;
pub mod reaper;
pub mod registry;
pub mod report;
pub mod walk;
