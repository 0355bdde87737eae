//! Versions of the CNI specification, and what changed with each.
//!
//! In: `cniVersion` of a configuration. Out: [`Version`], or error 1.
//! Never: takes a version that it cannot write results of.

use std::fmt;

use super::error::{CniError, Code};

/// A version of the specification that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 0.1.0: one address of each family. What kubenet writes.
    V0_1_0,
    /// 0.2.0: `VERSION`.
    V0_2_0,
    /// 0.3.0: interfaces, and any number of addresses. What azure's first configurations have.
    V0_3_0,
    /// 0.3.1: chains.
    V0_3_1,
    /// 0.4.0: `CHECK`.
    V0_4_0,
    /// 1.0.0: addresses without their version.
    V1_0_0,
    /// 1.1.0: `GC`, `STATUS`, and MTUs.
    V1_1_0,
}

impl Version {
    /// All, oldest first.
    pub const ALL: [Version; 7] = [
        Version::V0_1_0,
        Version::V0_2_0,
        Version::V0_3_0,
        Version::V0_3_1,
        Version::V0_4_0,
        Version::V1_0_0,
        Version::V1_1_0,
    ];
    /// The newest.
    pub const NEWEST: Version = Version::V1_1_0;

    /// Reads `cniVersion`. None, or empty, is 0.1.0, which did not have the key yet.
    ///
    /// # Errors
    /// [`Code::IncompatibleVersion`], with the versions that are spoken.
    pub fn parse(text: Option<&str>) -> Result<Version, CniError> {
        let text = text.unwrap_or_default();
        if text.is_empty() {
            return Ok(Version::V0_1_0);
        }
        let found = Version::ALL.into_iter().find(|v| v.text() == text);
        found.ok_or_else(|| {
            let spoken = Version::ALL.map(Version::text).join(" ");
            CniError::new(Code::IncompatibleVersion, "incompatible CNI versions")
                .with_details(format!("config is {text:?}, plugin supports [{spoken}]"))
        })
    }

    /// As it is written.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Version::V0_1_0 => "0.1.0",
            Version::V0_2_0 => "0.2.0",
            Version::V0_3_0 => "0.3.0",
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
