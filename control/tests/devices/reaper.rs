//! The reaper, with a lab that is killed: two processes, both this test program again.
//!
//! In: the right to mount in a mount namespace of its own.
//! Out: what a lab leaves behind, and when it is gone.
//! Never: mounts where the machine would see it: `/run` is a private one.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use control::devices::Netns;
use control::devices::netns::unpin;
use control::lab::reaper::{self, Reaper};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::fresh;

/// The part of a lab that gets killed.
pub(crate) const LAB: &str = "lab";

/// This program again, in the part `role`.
fn again(role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(role);
    command
}

/// Gives this thread, and what it starts, a `/run` that nobody else sees.
fn private_run() {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private");
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).expect("mounted");
}

fn alive(pid: i32) -> bool {
    // A zombie is dead: it only waits for its parent, and whoever inherited it may be slow.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// A lab that makes one of everything, says what, and waits to be killed.
pub(crate) fn lab() {
    let mut reaper = Reaper::spawn_by(&mut again(reaper::COMMAND)).expect("started");
    let me = std::process::id();
    let reported = fresh("pod-a")
        .namespace()
        .pin(&format!("tapline-{me}-pod-a"))
        .expect("pinned");
    reaper.will_unmount(&reported).expect("told");
    let _unreported = fresh("pod-b")
        .namespace()
        .pin(&format!("tapline-{me}-pod-b"));
    assert!(reaper.will_unmount(Path::new("/run/netns/blue")).is_err());
    fs::write("/run/state.json", "{}").expect("written");
    reaper
        .will_remove_file(Path::new("/run/state.json"))
        .expect("told");
    // One that leaves when asked, one that has to be killed.
    for script in [
        "exec sleep 600",
        "trap '' TERM; while :; do sleep 600; done",
    ] {
        let child = Command::new("/bin/sh")
            .args(["-c", script])
            .process_group(0)
            .spawn();
        let pid = child.expect("started").id();
        reaper.will_end(pid).expect("told");
        println!("child {pid}");
    }
    println!("ready {me}");
    std::thread::sleep(Duration::from_secs(60));
}

pub(crate) fn a_killed_lab_is_cleared_up_within_a_second() {
    private_run();
    Netns::create("blue")
        .expect("made")
        .pin("blue")
        .expect("pinned");
    let mut lab = again(LAB);
    let mut lab = lab.stdout(Stdio::piped()).spawn().expect("started");
    let mut children = Vec::new();
    for line in BufReader::new(lab.stdout.take().expect("piped")).lines() {
        let line = line.expect("text");
        match line.strip_prefix("child ") {
            Some(pid) => children.push(pid.parse().expect("a number")),
            None if line.starts_with("ready ") => break,
            None => {}
        }
    }
    assert_eq!(children.len(), 2);
    let pins = || fs::read_dir("/run/netns").expect("readable").count();
    assert_eq!(pins(), 3);
    for reaper in reapers_of(lab.id()) {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            kill(Pid::from_raw(reaper), signal).expect("sent");
        }
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(
        children.iter().all(|pid| alive(*pid)) && pins() == 3,
        "cleared up too early"
    );

    lab.kill().expect("killed");
    lab.wait().expect("waited");
    let killed = Instant::now();
    let gone = || {
        pins() == 1
            && !Path::new("/run/state.json").exists()
            && !children.iter().any(|pid| alive(*pid))
    };
    while !gone() && killed.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(gone(), "left: {} pins, children {children:?}", pins());
    assert!(
        killed.elapsed() < Duration::from_secs(1),
        "it took {:?}",
        killed.elapsed()
    );
    assert!(
        Path::new("/run/netns/blue").exists(),
        "it took another's pin"
    );
    unpin("blue").expect("unpinned");
}

/// The children of the lab that are in the reaper's part.
fn reapers_of(lab: u32) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("readable").flatten() {
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let stat = String::from_utf8_lossy(&read("stat")).into_owned();
        let behind = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest)
            .unwrap_or_default();
        let parent = behind
            .split_whitespace()
            .nth(1)
            .and_then(|pid| pid.parse().ok());
        let is_reaper = String::from_utf8_lossy(&read("cmdline")).contains(reaper::COMMAND);
        if parent == Some(lab) && is_reaper {
            let pid = entry.file_name();
            found.extend(pid.to_string_lossy().parse::<i32>());
        }
    }
    assert_eq!(found.len(), 1, "one reaper");
    found
}

pub(crate) fn a_reaper_without_a_lab_is_refused() {
    assert_eq!(
        format!("{:?}", reaper::main(&[OsString::from("nonsense")])),
        format!("{:?}", std::process::ExitCode::from(2))
    );
}
