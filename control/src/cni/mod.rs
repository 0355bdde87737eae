//! The CNI plugin `tapline-cni`: how a container runtime asks for a pod's port.
//!
//! In: the variables and the configuration that the specification names (1.1.0; configurations
//! and results from 0.1.0 on).
//! Out: a result or an error on standard output, and an exit status.
//! Never: makes a device itself: the daemon does, over its socket. Keeps no state either.
//!
//! | file | what it knows |
//! |---|---|
//! | `version`, `error` | versions of the specification; codes, and how an error is printed |
//! | `environment`, `args` | `CNI_*`, and the pairs of `CNI_ARGS` |
//! | `config`, `refuse` | the configuration, and what in it is not done here |
//! | `result` | results of every version |
//! | `delegate` | an `ipam` plugin |
//! | `door` | the daemon, across its restarts |
//! | `plugin` | the commands |

mod args;
mod config;
mod delegate;
mod door;
mod environment;
mod error;
mod plugin;
mod refuse;
mod result;
#[cfg(test)]
mod tests;
mod version;

use std::ffi::OsString;
use std::io::Read;
use std::time::Duration;

use serde_json::json;

pub use args::Args;
pub use config::{Conf, Ipam, Wanted};
pub use environment::{Attachment, Command, Environment};
pub use error::{CniError, Code};
pub use result::{CniResult, Dns, Interface, Ip, Route};
pub use version::Version;

use plugin::Plugin;

/// A configuration carries the results of a chain; a megabyte of it is no configuration.
const CONFIGURATION_MAX: u64 = 1 << 20;

/// How long a daemon may be away at a stretch. systemd waits 100 ms before it starts one again, which then takes
/// a few hundred more; a runtime waits minutes for a plugin.
const AWAY_MAX: Duration = Duration::from_secs(5);

/// What a call comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// For standard output: empty, or one JSON document.
    pub printed: String,
    /// True for exit status 0; an error is printed and ends with 1.
    pub success: bool,
}

/// Does what `lookup`'s variables and the configuration on `stdin` ask for.
#[must_use]
pub fn run(lookup: &impl Fn(&str) -> Option<OsString>, stdin: impl Read) -> Outcome {
    run_within(lookup, stdin, AWAY_MAX)
}

fn run_within(
    lookup: &impl Fn(&str) -> Option<OsString>,
    stdin: impl Read,
    patience: Duration,
) -> Outcome {
    let mut configuration = Vec::new();
    let answer = answer(lookup, stdin, &mut configuration, patience);
    match answer {
        Ok(printed) => Outcome {
            printed,
            success: true,
        },
        Err(error) => Outcome {
            printed: error.to_json(Conf::version_of(&configuration)).to_string(),
            success: false,
        },
    }
}

fn answer(
    lookup: &impl Fn(&str) -> Option<OsString>,
    stdin: impl Read,
    configuration: &mut Vec<u8>,
    patience: Duration,
) -> Result<String, CniError> {
    let environment = Environment::read(lookup)?;
    if environment.command == Command::Version {
        // Whatever comes in: 0.2.0 has no configuration for it, later versions have one.
        return Ok(versions());
    }
    let read = stdin.take(CONFIGURATION_MAX + 1).read_to_end(configuration);
    read.map_err(|why| CniError::new(Code::Io, format!("error reading from stdin: {why}")))?;
    if configuration.len() as u64 > CONFIGURATION_MAX {
        let what = format!("the network config is longer than {CONFIGURATION_MAX} bytes");
        return Err(CniError::new(Code::Io, what));
    }
    let conf = Conf::parse(configuration)?;
    Plugin::new(&environment, &conf, configuration, patience).run()
}

fn versions() -> String {
    json!({
        "cniVersion": Version::NEWEST.text(),
        "supportedVersions": Version::ALL.map(Version::text),
    })
    .to_string()
}
