//! Errors as a runtime reads them.
//!
//! In: what went wrong, here, in the daemon or in an `ipam` plugin.
//! Out: a code of the specification and a message, printed as JSON on standard output, where the
//! reference library looks for it.
//! Never: an error without a code, or the code of another cause.

use serde_json::{Value, json};

use super::version::Version;
use crate::api::{ClientError, ErrorKind};

/// Numbers of SPEC.md ("Error"), the reference library's two beyond it, and our own from 100 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The version of the configuration is not spoken, or lacks the command.
    IncompatibleVersion,
    /// The configuration asks for what is not done here. The details name it.
    UnsupportedField,
    /// The container is not known.
    UnknownContainer,
    /// A variable is missing or makes no sense.
    InvalidEnvironment,
    /// A file, a socket or a program could not be read or run.
    Io,
    /// Something is no JSON, or of another shape.
    Decoding,
    /// The configuration contradicts itself or names what cannot be.
    InvalidConfig,
    /// `CNI_NETNS` is no network namespace of a container.
    InvalidNetns,
    /// It may work later.
    TryAgainLater,
    /// No ADD could be served now.
    NotAvailable,
    /// The plugin and the daemon are of versions that do not understand each other.
    Strangers,
    /// An `ipam` plugin failed and did not say why in CNI's words.
    Delegate,
    /// An `ipam` plugin gave no address.
    NoAddress,
    /// As another program, or the daemon, numbered it.
    Other(u32),
}

impl Code {
    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Code::IncompatibleVersion => 1,
            Code::UnsupportedField => 2,
            Code::UnknownContainer => 3,
            Code::InvalidEnvironment => 4,
            Code::Io => 5,
            Code::Decoding => 6,
            Code::InvalidConfig => 7,
            Code::InvalidNetns => 8,
            Code::TryAgainLater => 11,
            Code::NotAvailable => 50,
            Code::Strangers => 112,
            Code::Delegate => 110,
            Code::NoAddress => 111,
            Code::Other(number) => number,
        }
    }
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CniError {
    /// What kind of failure.
    pub code: Code,
    /// In a sentence.
    pub message: String,
    /// More of it; may be empty.
    pub details: String,
}

impl CniError {
    /// An error without details.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> CniError {
        CniError {
            code,
            message: message.into(),
            details: String::new(),
        }
    }

    /// The same with details.
    #[must_use]
    pub fn with_details(self, details: impl Into<String>) -> CniError {
        CniError {
            details: details.into(),
            ..self
        }
    }

    /// The same with words before the message.
    #[must_use]
    pub(super) fn during(self, what: &str) -> CniError {
        CniError {
            message: format!("{what}: {}", self.message),
            ..self
        }
    }

    /// What the daemon's answer means to a runtime.
    #[must_use]
    pub fn of_daemon(error: ClientError) -> CniError {
        match error {
            ClientError::Refused(refused) => {
                let details: Vec<String> = refused
                    .details
                    .iter()
                    .map(|(place, fault)| format!("{place}: {fault}"))
                    .collect();
                let code = match refused.kind {
                    // 1 is for versions of CNI.
                    ErrorKind::Version => Code::Strangers,
                    _ => Code::Other(refused.code),
                };
                CniError::new(code, refused.message).with_details(details.join("; "))
            }
            // It restarts, or is busy; nothing is known to be wrong with the request.
            unreachable => CniError::new(Code::TryAgainLater, unreachable.to_string()),
        }
    }

    /// As it is printed.
    #[must_use]
    pub fn to_json(&self, version: Version) -> Value {
        let mut document = json!({
            "cniVersion": version.text(),
            "code": self.code.number(),
            "msg": self.message,
        });
        if !self.details.is_empty() {
            document["details"] = self.details.clone().into();
        }
        document
    }
}
