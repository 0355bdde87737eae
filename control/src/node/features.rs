//! Facilities of newer kernels: each can be switched off, and the switch works without it.
//!
//! In: names. Out: [`Feature`]. Never: makes the switch depend on one.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A facility that newer kernels have and older ones lack.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// TAPs with a queue for each worker.
    MultiQueue,
    /// Many small frames in one system call, by `io_uring` on TAPs.
    IoUring,
    /// Super-frames of UDP on TAPs.
    Uso,
}

impl Feature {
    /// All of them.
    pub const ALL: [Feature; 3] = [Feature::MultiQueue, Feature::IoUring, Feature::Uso];

    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Feature::MultiQueue => "multi_queue",
            Feature::IoUring => "io_uring",
            Feature::Uso => "uso",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
