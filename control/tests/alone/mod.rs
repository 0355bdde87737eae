//! A harness for tests that need a process of their own: one process a test.
//!
//! In: the names of the tests to run, or none for all.
//! Out: a line a test, and exit status 0 only if none failed.
//! Never: runs a test in the machine's network, or in a process with a second thread: a user
//! namespace can only be entered alone, and the usual harness starts each test on a thread.
//!
//! Where neither root nor user namespaces are to be had, or `/dev/net/tun` does not open, a test
//! fails and says so. One that needs a program of others which is not installed is [`not_tried`]: it is
//! counted as ignored, and on CI (`CI` is set) as failed.

use std::ffi::OsString;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use control::lab::privilege::{self, PrivateNet};

/// The word before the name of the one test that a process is to run.
const ONE: &str = "--one";

/// The exit status of a test that was not tried, as test harnesses of many projects have it.
const NOT_TRIED: u8 = 77;

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    NotTried,
}

impl End {
    fn of(status: ExitStatus, on_ci: bool) -> End {
        match status.code() {
            Some(0) => End::Passed,
            Some(code) if code == i32::from(NOT_TRIED) && !on_ci => End::NotTried,
            _ => End::Failed,
        }
    }
}

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
    let ends: Vec<(&str, End)> = chosen
        .into_iter()
        .map(|name| (name, run(name, patience)))
        .collect();
    let all = |wanted: End| ends.iter().filter(move |(_, end)| *end == wanted);
    for (name, _) in all(End::Failed) {
        println!("failed: {name}");
    }
    for (name, _) in all(End::NotTried) {
        println!("not tried: {name}");
    }
    let count = |end| all(end).count();
    let (passed, failed, ignored) = (count(End::Passed), count(End::Failed), count(End::NotTried));
    // The words of cargo's own runner, so that whoever counts its tests counts these.
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out"
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Ends a test for which a program of others would be needed, and says which.
#[allow(dead_code, reason = "not every test program has such a test")]
pub(crate) fn not_tried(lacks: &str) -> ! {
    eprintln!("not tried: {lacks}");
    std::process::exit(NOT_TRIED.into())
}

fn run(name: &str, patience: Duration) -> End {
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
    let end = End::of(status, std::env::var_os("CI").is_some());
    let verdict = match end {
        End::Passed => "ok",
        End::Failed => "FAILED",
        End::NotTried => "ignored",
    };
    println!(
        "test {name} ... {verdict} ({:.1} s)",
        started.elapsed().as_secs_f32()
    );
    end
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
