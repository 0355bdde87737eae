//! What can go wrong between us and the kernel's devices, said so that an operator can act.
//!
//! In: what was attempted, on which device, in which namespace, and the kernel's answer.
//! Out: [`DeviceError`], one line of text.
//! Never: hides the kernel's own words.

use std::io;

use crate::devices::name::DeviceName;

/// A device, filter, address or route could not be made, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The kernel said no.
    #[error("cannot {attempt} in {namespace}: {}", in_words(source, kernel_says))]
    Refused {
        /// What was attempted and on which device, such as `set the MTU of azure0`.
        attempt: String,
        /// The namespace's label.
        namespace: String,
        /// The kernel's error number.
        source: io::Error,
        /// The kernel's own sentence about it, where it gave one.
        kernel_says: Option<String>,
    },
    /// The device is not there.
    #[error("there is no device {device} in {namespace}")]
    Missing {
        /// The device looked for.
        device: DeviceName,
        /// The namespace's label.
        namespace: String,
    },
    /// Something with that name exists and is not what we would have made.
    #[error("{device} in {namespace} exists but {why}")]
    Conflict {
        /// The device in the way.
        device: DeviceName,
        /// The namespace's label.
        namespace: String,
        /// How it differs.
        why: String,
    },
    /// The namespace could not be entered, or a socket not be opened in it.
    #[error("cannot {attempt} in {namespace}: {source}")]
    Inside {
        /// What was attempted.
        attempt: String,
        /// The namespace's label.
        namespace: String,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel's answer could not be read.
    #[error("the kernel's answer to '{attempt}' in {namespace} makes no sense: {what}")]
    Garbled {
        /// What was attempted.
        attempt: String,
        /// The namespace's label.
        namespace: String,
        /// What did not make sense.
        what: String,
    },
}

impl DeviceError {
    /// The kernel's error number, if that is what failed.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            DeviceError::Refused { source, .. } | DeviceError::Inside { source, .. } => {
                source.raw_os_error()
            }
            DeviceError::Missing { .. } => Some(nix::libc::ENODEV),
            DeviceError::Conflict { .. } => Some(nix::libc::EEXIST),
            DeviceError::Garbled { .. } => None,
        }
    }

    /// True if the kernel refused with `errno`.
    pub(crate) fn is(&self, errno: i32) -> bool {
        self.errno() == Some(errno)
    }
}

fn in_words(source: &io::Error, kernel_says: &Option<String>) -> String {
    match kernel_says {
        Some(says) => format!("{says} ({source})"),
        None => source.to_string(),
    }
}
