//! Devices on a real kernel: a test program of its own, one process a test.
//!
//! In: the names of the tests to run, or none for all.
//! Out: a line a test, and exit status 0 only if none failed.
//! Never: runs a test in the machine's network, or in a process with a second thread: a user
//! namespace can only be entered alone, and the usual harness starts each test on a thread.
//!
//! Where neither root nor user namespaces are to be had, or `/dev/net/tun` does not open, tests
//! are skipped; with `CI` set that counts as a failure.

mod adopt;
mod attach;
mod masquerade;
mod privilege;
mod reaper;
mod support;

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use control::lab::privilege::PrivateNet;

/// The word before the name of the one test that a process is to run.
const ONE: &str = "--one";
/// The exit status of a test that could not be run here.
const SKIPPED: u8 = 77;
/// A test that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The proof that this process has left the machine's network.
static PRIVATE: Mutex<Option<PrivateNet>> = Mutex::new(None);

macro_rules! tests {
    ($($module:ident::$name:ident),+ $(,)?) => {
        const TESTS: &[(&str, fn())] =
            &[$((concat!(stringify!($module), "::", stringify!($name)), $module::$name)),+];
    };
}

tests! {
    adopt::a_bridge_is_adopted_and_given_back_under_traffic,
    adopt::a_bridge_that_holds_the_nodes_nic_gives_its_addresses_back_to_it,
    adopt::a_step_that_fails_leaves_the_bridge_as_it_was,
    adopt::without_a_switch_the_pods_are_given_back_all_the_same,
    adopt::a_bridge_that_cannot_be_adopted_is_refused_with_every_reason,
    attach::a_pod_on_a_veth_is_wired_as_specified_and_twice_is_once,
    attach::frames_of_a_pod_reach_the_tap_and_those_of_the_tap_the_pod,
    attach::a_frame_without_payload_does_not_escape_the_redirect,
    attach::a_taken_name_is_a_conflict_and_stays_untouched,
    attach::a_pod_whose_eth0_is_the_tap_is_wired_as_specified,
    attach::a_pod_may_have_ipv6_without_duplicate_address_detection,
    attach::the_host_port_is_a_device_of_the_nodes_kernel,
    attach::a_route_of_another_program_is_left_alone,
    attach::the_uplink_steers_frames_for_pods_and_no_others,
    attach::mirrored_arp_replies_arrive_at_the_switch_and_at_the_kernel,
    attach::mirrored_advertisements_arrive_at_the_switch_and_at_the_kernel,
    attach::steering_changes_in_place_and_leaves_others_filters_alone,
    attach::filters_of_another_owner_outlive_ours,
    attach::no_device_of_ours_says_anything_by_itself,
    attach::errors_say_what_was_attempted_where_and_what_the_kernel_says,
    masquerade::what_a_pod_sends_beyond_its_network_bears_the_nodes_address,
    privilege::a_test_runs_outside_the_network_it_was_started_in,
    privilege::a_second_thread_is_refused,
    privilege::what_the_lab_needs_is_found_or_named,
    reaper::a_killed_lab_is_cleared_up_within_a_second,
    reaper::a_reaper_without_a_lab_is_refused,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let word = |i: usize| arguments.get(i).and_then(|word| word.to_str());
    match word(0) {
        Some(ONE) => run_one(word(1).expect("the name of a test")),
        Some(reaper::LAB) => {
            reaper::lab();
            ExitCode::SUCCESS
        }
        Some(control::lab::reaper::COMMAND) => control::lab::reaper::main(&arguments[1..]),
        _ if arguments.iter().any(|word| word == "--list") => {
            TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
            ExitCode::SUCCESS
        }
        _ => run_all(&arguments),
    }
}

/// Runs the tests whose names contain one of the words, each in a process of its own.
fn run_all(arguments: &[OsString]) -> ExitCode {
    let words: Vec<&str> = arguments
        .iter()
        .filter_map(|w| w.to_str())
        .filter(|w| !w.starts_with('-'))
        .collect();
    let chosen: Vec<&str> = TESTS
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| words.is_empty() || words.iter().any(|word| name.contains(word)))
        .collect();
    println!("\nrunning {} tests", chosen.len());
    let (passed, failed): (Vec<&str>, Vec<&str>) = chosen.into_iter().partition(|n| passes(n));
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

fn passes(name: &str) -> bool {
    let mut child = Command::new("/proc/self/exe")
        .args([ONE, name])
        .spawn()
        .expect("this program starts");
    let started = Instant::now();
    let status = loop {
        match child.try_wait().expect("a child") {
            Some(status) => break status,
            None if started.elapsed() > PATIENCE => {
                child.kill().expect("killed");
                break child.wait().expect("a child");
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let skipped = status.code() == Some(SKIPPED.into());
    let counts = status.success() || skipped && std::env::var_os("CI").is_none();
    let verdict = match (counts, skipped) {
        (true, true) => "skipped",
        (true, false) => "ok",
        (false, _) => "FAILED",
    };
    println!("test {name} ... {verdict}");
    counts
}

/// Leaves the machine's network and runs one test. A panic is this process's failure.
fn run_one(name: &str) -> ExitCode {
    let (_, test) = TESTS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a known test");
    let private = control::lab::privilege::enter();
    let tun = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    match (private, tun) {
        (Ok(private), Ok(_)) => {
            *PRIVATE.lock().expect("one thread") = Some(private);
            test();
            ExitCode::SUCCESS
        }
        (Err(why), _) => skip(name, &why.to_string()),
        (_, Err(why)) => skip(name, &format!("/dev/net/tun: {why}")),
    }
}

fn skip(name: &str, why: &str) -> ExitCode {
    eprintln!("{name}: {why}");
    ExitCode::from(SKIPPED)
}
