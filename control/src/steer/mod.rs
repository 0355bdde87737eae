//! Steering: which of the node's frames the switch gets, kept so while it runs, and told to people.
//!
//! In: the addresses of pods and of the node, the policy setting, and the kernel's tables.
//! Out: a [`Cover`] of few prefixes, a [`Keeper`] that puts our filters back, the policy in force
//! with its reason, and a view of it all.
//! Never: seizes the uplink: the node keeps its device, its addresses and its own frames. Stopping
//! leaves the node's own traffic as it was.
//!
//! | file | what it knows |
//! |---|---|
//! | [`cover`] | few prefixes that hold all pods and none of the node's own addresses; pure |
//! | [`keeper`] | the filters on the uplink: put there, put back, taken away |
//! | [`agents`] | whose chains the kernel's packet filter holds; `legacy` reads those of `iptables-legacy` |
//! | [`policy`] | whether pods' frames go through the kernel, and why; pure |
//! | [`view`] | `GET /v1/steering` |

pub mod agents;
pub mod cover;
pub mod keeper;
mod legacy;
pub mod policy;
pub mod view;

pub use cover::Cover;
pub use keeper::{Keeper, Kept};
pub use policy::InForce;
