//! What a node is handed while it runs: its configuration, calls of a container runtime, bodies on
//! the control socket, what it kept itself.
//!
//! In: the text of a file or a body; for a runtime's call also its variables.
//! Out: nothing, or a panic that names the promise which does not hold.
//! Never: calls anybody: what would be done for a sound request is not done here.

use std::ffi::OsString;

use control::adopt::kept::Kept;
use control::api::capture::CaptureRequest;
use control::api::types::{
    AddReply, AddRequest, CheckRequest, DelRequest, GcRequest, HandoverRequest, StatusReply,
};
use control::api::views::TraceRequest;
use control::cni::{Args, CniError, CniResult, Conf, Environment, Version};
use control::config;
use control::daemon::store::State;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::input::Input;

/// Reads a node's configuration.
///
/// # Panics
/// If reading does, or refuses it without a sentence, or not the same way twice.
pub fn run_config(text: &[u8]) {
    let outcome = config::parse("input", text);
    let again = config::parse("input", text);
    match (outcome, again) {
        (Ok(one), Ok(other)) => assert_eq!(format!("{one:?}"), format!("{other:?}")),
        (Err(one), Err(other)) => {
            assert!(!one.to_string().is_empty(), "refused for no reason");
            assert_eq!(one.to_string(), other.to_string());
        }
        (one, _) => panic!(
            "once {}, once not",
            if one.is_ok() { "sound" } else { "refused" }
        ),
    }
}

/// Reads a runtime's call: a byte of command, blocks that are `CNI_CONTAINERID`, `CNI_IFNAME` and
/// `CNI_ARGS`, and the configuration.
///
/// # Panics
/// If reading does, or an error is no document with a code, or a result that was read is another
/// once it is written out and read again.
pub fn run_cni(input: &[u8]) {
    let mut input = Input(input);
    let command = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "", "ADd"];
    let command = command[usize::from(input.byte() & 0b111)];
    let mut text = || String::from_utf8_lossy(input.block()).into_owned();
    let (container, interface, args) = (text(), text(), text());
    let lookup = |name: &str| {
        let value = match name {
            "CNI_COMMAND" => command,
            "CNI_CONTAINERID" => &container,
            "CNI_IFNAME" => &interface,
            "CNI_ARGS" => &args,
            "CNI_NETNS" => "/run/netns/no-such-namespace",
            _ => return None,
        };
        Some(OsString::from(value))
    };
    let version = Conf::version_of(input.0);
    if let Err(error) = Environment::read(&lookup) {
        check_error(&error, version);
    }
    let args = Args::parse(&args).unwrap_or_else(|error| {
        check_error(&error, version);
        Args::default()
    });
    match Conf::parse(input.0) {
        Ok(conf) => {
            for error in [
                conf.wanted(&args).err(),
                conf.valid().err(),
                conf.previous().map(|found| found.map(check_result)).err(),
            ] {
                error.iter().for_each(|error| check_error(error, version));
            }
        }
        Err(error) => check_error(&error, version),
    }
}

fn check_error(error: &CniError, version: Version) {
    let document = error.to_json(version);
    assert!(document.get("code").is_some_and(serde_json::Value::is_u64));
    let sentence = document.get("msg").and_then(serde_json::Value::as_str);
    assert!(sentence.is_some_and(|text| !text.is_empty()), "{document}");
}

fn check_result(result: CniResult) {
    let newest = Version::V1_1_0;
    let written = result.to_json(newest);
    let read = CniResult::parse(&written, newest);
    let read = read.unwrap_or_else(|error| panic!("{written}: {error:?}"));
    assert_eq!(read.to_json(newest), written);
}

/// Reads a body of the control socket, or a file that the daemon keeps over a restart: a byte says
/// which, the rest is the text.
///
/// # Panics
/// If reading does, or a body that was read is another once it is written out and read again.
pub fn run_api(input: &[u8]) {
    let Some((choice, body)) = input.split_first() else {
        return;
    };
    match choice % 11 {
        0 => check_body::<AddRequest>(body),
        1 => check_body::<DelRequest>(body),
        2 => check_body::<CheckRequest>(body),
        3 => check_body::<GcRequest>(body),
        4 => check_body::<AddReply>(body),
        5 => check_body::<StatusReply>(body),
        6 => check_body::<TraceRequest>(body),
        7 => check_body::<HandoverRequest>(body),
        8 => check_body::<CaptureRequest>(body),
        9 => check_body::<State>(body),
        _ => check_body::<Kept>(body),
    }
}

fn check_body<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(body: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(body) else {
        return;
    };
    let written = serde_json::to_vec(&read).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(read, again);
}
