//! A container runtime, as far as a plugin sees it: it starts the program with variables and a
//! configuration, and reads an exit status and a document.
//!
//! In: which command for which container. Out: [`Called`].
//! Never: passes on the variables of the test's own process.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) success: bool,
    pub(crate) printed: Option<Value>,
}

impl Called {
    /// The code of an error, and its message.
    pub(crate) fn error(&self) -> (u64, &str) {
        let printed = self.printed.as_ref().expect("an error is printed");
        assert!(!self.success, "{printed}");
        assert!(printed["cniVersion"].is_string(), "{printed}");
        let message = printed["msg"].as_str().expect("a message");
        (printed["code"].as_u64().expect("a code"), message)
    }

    /// It succeeded, and printed nothing.
    pub(crate) fn nothing(&self) {
        assert!(self.success && self.printed.is_none(), "{self:?}");
    }

    /// The result that it printed.
    pub(crate) fn result(self) -> Value {
        assert!(self.success, "{self:?}");
        self.printed.expect("a result")
    }
}

/// Starts the program with those variables and no others.
pub(crate) fn call<V: AsRef<OsStr>>(conf: &Value, variables: &[(&str, V)]) -> Called {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tapline-cni"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was built");
    let mut stdin = child.stdin.take().expect("a pipe");
    // One that never reads it is done already.
    let _ = stdin.write_all(conf.to_string().as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    Called {
        success: output.status.success(),
        printed: (!text.is_empty()).then(|| serde_json::from_str(&text).expect("one document")),
    }
}
