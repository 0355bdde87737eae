//! Names of network devices, checked once.
//!
//! In: text from the plan, the command line or a pod's request.
//! Out: [`DeviceName`], which the kernel accepts and a path under `/proc/sys` can carry.
//! Never: a name that the kernel would cut short, or one that climbs out of its folder.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::plan::Plugin;

/// The name of a network device: 1 to 15 bytes, nothing that `/proc/sys` would read as a path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName(String);

/// Text that no device can be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' cannot be the name of a device: it takes 1 to 15 printable characters without '/' or ':'"
)]
pub struct BadName(String);

impl DeviceName {
    /// `IFNAMSIZ` less its closing zero.
    pub const LENGTH_MAX: usize = 15;

    /// Accepts a name as the kernel's `dev_valid_name` does, and refuses more than it: control
    /// and non-ASCII characters, because names end up in file paths and in reports.
    ///
    /// # Errors
    /// [`BadName`], which repeats the text.
    pub fn new(text: &str) -> Result<DeviceName, BadName> {
        let fits = (1..=DeviceName::LENGTH_MAX).contains(&text.len());
        let plain = text
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        if fits && plain && text != "." && text != ".." {
            Ok(DeviceName(text.to_owned()))
        } else {
            Err(BadName(text.to_owned()))
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The names of a pod's devices in the node, as the seed shows them, of digits that follow from what
/// the port is called: `azv` and 11 hexadecimal digits of SHA-1, or `veth` and 8. The TAP's has the
/// same digits.
#[must_use]
pub fn pod_devices(plugin: Plugin, called: &str) -> (DeviceName, DeviceName) {
    let digest = Sha1::digest(called);
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let (prefix, count) = match plugin {
        Plugin::Azure => ("azv", 11),
        Plugin::Kubenet => ("veth", 8),
    };
    let name = |prefix: &str| DeviceName(format!("{prefix}{}", &digits[..count]));
    (name(prefix), name("tap"))
}

impl TryFrom<String> for DeviceName {
    type Error = BadName;

    fn try_from(text: String) -> Result<DeviceName, BadName> {
        DeviceName::new(&text)
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> String {
        name.0
    }
}

impl FromStr for DeviceName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<DeviceName, BadName> {
        DeviceName::new(text)
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_the_kernel_takes_and_no_path() {
        for good in [
            "eth0",
            "azv0123456789a",
            "veth01234567",
            "uplink0",
            "abcdefghijklmno",
        ] {
            assert!(DeviceName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a:b",
            "abcdefghijklmnop",
            "ä",
            "a\0",
            "all\n",
        ] {
            assert!(DeviceName::new(bad).is_err(), "{bad:?}");
        }
    }
}
