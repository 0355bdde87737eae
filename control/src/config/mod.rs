//! The node's configuration: one file, by hand or written by `tapline config`.
//!
//! In: JSON with comments and trailing commas. Out: a [`NodeConfig`], or every fault it holds, each
//! with its line, column and JSON path. Never: reads the node itself, or lets a value through that
//! the daemon must check again.
//!
//! | file | room |
//! |---|---|
//! | `raw` | the file as it is typed; its doc comments are the documentation of its keys |
//! | `schema` | the JSON schema that follows from `raw` |
//! | `shape` | a text against that schema: every value of a wrong kind, every unknown key |
//! | `checked` | what the file means once it holds |
//! | `write` | a file from a plan, with a comment above each key |

mod checked;
mod raw;
pub mod schema;
mod shape;
mod write;

pub use crate::api::types::SOCKET_DEFAULT as SOCKET_PATH;
pub use checked::{
    Expected, HostMac, HostPort, LogLevel, NodeConfig, Pods, Surroundings, Truth, TruthSource,
    Uplink, Via, ViaRow,
};
pub use raw::{Guard, PolicyMode};
pub use write::{METRICS_LISTEN, for_node, to_text};

use crate::model::{Document, Faults, Report, Source};

/// Where the daemon looks for its configuration unless it is told otherwise.
pub const CONFIG_PATH: &str = "/etc/tapline/tapline.json";
/// Where the daemon keeps who is attached.
pub const STATE_DIR: &str = "/var/lib/tapline";
/// Reads and checks a configuration.
///
/// # Errors
/// Every fault that the file holds, in the order of their lines.
pub fn load(source: &Source) -> Result<NodeConfig, Faults> {
    let mut report = Report::default();
    let config = Document::read_with_comments(source, &mut report)
        .and_then(|document| check(&document, &mut report));
    finish(config, report, &source.name())
}

/// Checks the text of a configuration under the name that its faults are to carry.
///
/// # Errors
/// As [`load`].
pub fn parse(file: &str, text: &[u8]) -> Result<NodeConfig, Faults> {
    let mut report = Report::default();
    let config = Document::parse_with_comments(file.to_owned(), text, &mut report)
        .and_then(|document| check(&document, &mut report));
    finish(config, report, file)
}

fn check(document: &Document, report: &mut Report) -> Option<NodeConfig> {
    let shaped = shape::read(document, report)?;
    checked::check(&shaped, report)
}

fn finish(config: Option<NodeConfig>, report: Report, file: &str) -> Result<NodeConfig, Faults> {
    report.finish(&[file])?;
    Ok(config.expect("what is not there is a fault in the report"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
