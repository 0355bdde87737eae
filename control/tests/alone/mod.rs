//! A harness for tests that need a process of their own: one process a test.
//!
//! In: the names of the tests to run, or none for all.
//! Out: a line a test, and exit status 0 only if none failed.
//! Never: runs a test in the machine's network, or in a process with a second thread: a user
//! namespace can only be entered alone, and the usual harness starts each test on a thread.
//!
//! Where neither root nor user namespaces are to be had, or `/dev/net/tun` does not open, a test
//! fails and says so.

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use control::lab::privilege::{self, PrivateNet};

/// The word before the name of the one test that a process is to run.
const ONE: &str = "--one";

/// A test, by name.
pub(crate) type Test = (&'static str, fn(PrivateNet));

/// Runs what the command line asks for; a test that takes longer than `patience` hangs.
pub(crate) fn main(tests: &[Test], patience: Duration) -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let word = |i: usize| arguments.get(i).and_then(|word| word.to_str());
    match word(0) {
        Some(ONE) => run_one(tests, word(1).expect("the name of a test")),
        _ if arguments.iter().any(|word| word == "--list") => {
            tests.iter().for_each(|(name, _)| println!("{name}: test"));
            ExitCode::SUCCESS
        }
        _ => run_all(tests, &arguments, patience),
    }
}

/// Runs the tests whose names contain one of the words, each in a process of its own.
fn run_all(tests: &[Test], arguments: &[OsString], patience: Duration) -> ExitCode {
    let words: Vec<&str> = arguments
        .iter()
        .filter_map(|w| w.to_str())
        .filter(|w| !w.starts_with('-'))
        .collect();
    let chosen: Vec<&str> = tests
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| words.is_empty() || words.iter().any(|word| name.contains(word)))
        .collect();
    println!("\nrunning {} tests", chosen.len());
    let (passed, failed): (Vec<&str>, Vec<&str>) =
        chosen.into_iter().partition(|name| passes(name, patience));
    for name in &failed {
        println!("failed: {name}");
    }
    // The words of cargo's own runner, so that whoever counts its tests counts these.
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    let (passed, lost) = (passed.len(), failed.len());
    println!(
        "\ntest result: {verdict}. {passed} passed; {lost} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn passes(name: &str, patience: Duration) -> bool {
    let mut child = Command::new("/proc/self/exe")
        .args([ONE, name])
        .spawn()
        .expect("this program starts");
    let started = Instant::now();
    let status = loop {
        match child.try_wait().expect("a child") {
            Some(status) => break status,
            None if started.elapsed() > patience => {
                child.kill().expect("killed");
                break child.wait().expect("a child");
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let verdict = if status.success() { "ok" } else { "FAILED" };
    println!(
        "test {name} ... {verdict} ({:.1} s)",
        started.elapsed().as_secs_f32()
    );
    status.success()
}

/// Leaves the machine's network and runs one test. A panic is this process's failure.
fn run_one(tests: &[Test], name: &str) -> ExitCode {
    let (_, test) = tests
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a known test");
    let tun = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    match (privilege::enter(), tun) {
        (Ok(private), Ok(_)) => {
            test(private);
            ExitCode::SUCCESS
        }
        (Err(why), _) => fail(name, &why.to_string()),
        (_, Err(why)) => fail(name, &format!("/dev/net/tun: {why}")),
    }
}

fn fail(name: &str, why: &str) -> ExitCode {
    eprintln!("{name} cannot be run here: {why}");
    ExitCode::FAILURE
}
