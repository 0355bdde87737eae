//! The API model and the VNet's template: what was typed, and what it means.
//!
//! In: two JSON documents, from files or built in. Out: a checked [`Model`] and a checked
//! [`Network`], or every fault they hold, each with its file, line, column and JSON path.
//! Never: plans anything, or lets a value through that a later room must check again.
//!
//! | file | room |
//! |---|---|
//! | `text` | bytes to a tree whose every value knows its place |
//! | `fault` | a place, a fault, a warning, and the report that gathers them |
//! | `tags` | which keys aks-engine knows, and the complaint about the others |
//! | `raw` | the keys that matter here, typed, unjudged |
//! | `rules`, `profiles` | aks-engine's own rules in its own words |
//! | `checked` | what the model means once it holds |
//! | `template`, `peering`, `expression` | the VNet of an ARM template |
//! | `cidr` | addresses and prefixes as Go reads them |

pub mod examples;

mod checked;
mod cidr;
mod expression;
mod fault;
mod peering;
mod profiles;
mod raw;
mod rules;
mod tags;
mod template;
mod text;

pub(crate) use checked::PerNode;
pub use checked::{Masters, Model, NetworkMode, Policy, Pool, SubnetId};
pub(crate) use cidr::{as_v4, overlap, parse_cidr, parse_ip};
pub use fault::{Fault, Faults, Place, Placed, Report, Warning};
pub use template::{Network, PlacedSubnet, Vnets};
pub(crate) use template::{Reader, generated};
pub use text::{Document, Source};
pub(crate) use text::{Member, Node, Object, Value, as_object};

use crate::plan::Plugin;

/// Checks a document against the rules of aks-engine's `vlabs` API.
///
/// `None` only when the report has gained at least one fault. A model may come back beside
/// faults, when each of its values could be read: good for finding more faults, not for a plan.
pub fn check_model(
    document: &Document,
    plugin: Option<Plugin>,
    report: &mut Report,
) -> Option<Model> {
    tags::check(document, report);
    let raw = raw::RawModel::read(document, report)?;
    checked::check(&raw, plugin, report)
}

/// Reads every VNet that a template declares.
pub fn check_template(document: &Document, report: &mut Report) -> Option<Vnets> {
    let faults_before = report.fault_count();
    let vnets = template::read(document, report);
    if report.fault_count() > faults_before {
        None
    } else {
        vnets
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
