//! One daemon takes the place of another, under traffic, again and again; and what becomes of a node
//! whose upgrade fails, or whose daemons die in the middle of one.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use control::api::types::{UpgradeReply, UpgradeRequest};
use control::api::views::{FdbRow, NeighbourRow, WorkerRow};
use control::api::{Client, ClientError, ErrorKind};
use control::daemon::handover::line::Line;
use control::daemon::handover::{Hello, Message};
use control::lab::privilege::PrivateNet;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::life::{Load, Stream};
use crate::numbers::Numbers;
use crate::systemd::Systemd;
use crate::world::{Pod, Running, World, address, until};

/// The word by which this program becomes a daemon that takes over badly.
pub(crate) const FAKE: &str = "--fake-heir";

/// Upgrades in a row.
const UPGRADES: usize = 10;
/// Frames a second meanwhile, unless `TAPLINE_UPGRADE_RATE` says otherwise: in a debug build on a
/// loaded machine a ring of 1000 then lasts for 200 ms.
const RATE: u64 = 5_000;
/// Kills of either daemon in the middle of an upgrade.
const KILLS: u32 = 16;

/// Whoever loses its parent becomes this process's child, and is ended with the test.
pub(crate) struct Orphans;

impl Orphans {
    pub(crate) fn adopted() -> Orphans {
        nix::sys::prctl::set_child_subreaper(true).expect("anybody may");
        Orphans
    }

    /// The processes of the program whose parent is `parent`.
    fn of(parent: u32) -> Vec<Pid> {
        let processes = std::fs::read_dir("/proc").expect("proc").flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let ours = |number: &i32| {
            let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
            let (name, rest) = stat.rsplit_once(')').unwrap_or_default();
            let above = rest
                .split_whitespace()
                .nth(1)
                .and_then(|word| word.parse().ok());
            name.ends_with("(tapline") && above == Some(parent)
        };
        numbers.filter(ours).map(Pid::from_raw).collect()
    }
}

impl Drop for Orphans {
    fn drop(&mut self) {
        for pid in Orphans::of(std::process::id()) {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
        }
    }
}

fn upgrade(client: &Client, binary: Option<PathBuf>) -> Result<UpgradeReply, ClientError> {
    client.post("/v1/upgrade", &UpgradeRequest { binary })
}

pub(crate) fn upgraded(client: &Client) -> UpgradeReply {
    upgrade(client, None).unwrap_or_else(|error| panic!("not upgraded: {error}"))
}

/// A script that stands in the program's place, and does `first` before it is it.
fn wrapper(world: &World, name: &str, script: &str) -> PathBuf {
    let path = world.path(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("the folder is ours");
    let mode = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&path, mode).expect("it is ours");
    path
}

/// Two pods that reach each other.
fn two(running: &Running) -> (Pod, Pod, IpAddr) {
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    a.added(running);
    let to_b = address(&b.added(running));
    assert_eq!(a.pings(to_b).received(), 3);
    (a, b, to_b)
}

fn received(client: &Client) -> u64 {
    let workers: Vec<WorkerRow> = client.get("/v1/workers").expect("a view");
    workers.iter().map(|row| row.received).sum()
}

pub(crate) fn ten_upgrades_under_traffic_lose_no_frame(_: PrivateNet) {
    let _orphans = Orphans::adopted();
    let world = World::kubenet();
    let mut running = world.start();
    let (a, b, to_b) = two(&running);
    // Nobody answers there, and the node that it would be on is asked for.
    a.pings("10.244.0.7".parse().expect("an address"));
    let rate = std::env::var("TAPLINE_UPGRADE_RATE").map_or(Ok(RATE), |text| text.parse());
    let client = running.client.clone();
    let numbers = Numbers::start(&a.netns, &b.netns, to_b, rate.expect("a number"));
    let mut gaps = Vec::new();
    let mut served_by = running.child.id();
    for _ in 0..UPGRADES {
        std::thread::sleep(Duration::from_millis(100));
        let before = received(&client);
        let reply = upgraded(&client);
        assert_ne!(reply.pid, served_by, "another process");
        served_by = reply.pid;
        gaps.push(Duration::from_micros(reply.gap_us));
        until("it serves", || {
            client.get::<serde_json::Value>("/v1/status").is_ok()
        });
        assert!(received(&client) >= before, "the counters go on");
    }
    std::thread::sleep(Duration::from_millis(100));
    let arrived = numbers.stop();
    gaps.sort();
    let rate = arrived.rate;
    println!("{arrived:?}: {rate} frames a second, gaps {gaps:?}");
    assert_eq!(
        (arrived.lost, arrived.twice),
        (0, 0),
        "{arrived:?}, gaps {gaps:?}"
    );
    assert!(
        received(&client) >= arrived.sent,
        "all are in the books of the last"
    );
    let neighbours: Vec<NeighbourRow> = client.get("/v1/neighbours").expect("a view");
    assert_eq!(neighbours.len(), 1, "what the first one learned is known");
    let stations: Vec<FdbRow> = client.get("/v1/fdb").expect("a view");
    assert!(stations.iter().any(|row| row.name == "default/pod-a"));
    let first = running.child.wait().expect("a child");
    assert!(first.success(), "the first one has ended: {first}");
    // The last one is a daemon like any other.
    assert!(address(&Pod::new("pod-c").added(&running)).is_ipv4());
    let last = Pid::from_raw(served_by as i32);
    kill(last, Signal::SIGTERM).expect("it is ours");
    let ended = waitpid(last, None).expect("it was adopted");
    assert_eq!(ended, WaitStatus::Exited(last, 0));
    assert!(
        !world.path("tapline.sock").exists(),
        "it has taken its socket along"
    );
}

/// Requests of all sorts while one daemon follows the other: each is answered, by one of them.
pub(crate) fn requests_that_come_in_meanwhile_wait(_: PrivateNet) {
    let _orphans = Orphans::adopted();
    let world = World::kubenet();
    let running = world.start();
    let (a, b, to_b) = two(&running);
    let load = Load::start(&a.netns, &b.netns, to_b);
    let client = running.client.clone();
    let (done, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let again = |work: &dyn Fn()| {
            while !done.load(Ordering::Relaxed) {
                work();
                asked.fetch_add(1, Ordering::Relaxed);
            }
        };
        for at in 0..3 {
            let client = client.clone();
            scope.spawn(move || {
                let pod = Pod::new(&format!("short-{at}"));
                again(&|| {
                    let reply = client.add(&pod.request()).expect("an ADD");
                    client.check(&pod.check(&reply)).expect("a CHECK");
                    client.del(&pod.del()).expect("a DEL");
                });
            });
        }
        for path in ["/v1/status", "/v1/ports"] {
            let client = client.clone();
            scope.spawn(move || {
                again(&|| drop(client.get::<serde_json::Value>(path).expect("an answer")));
            });
        }
        let scraper = client.clone();
        scope.spawn(move || {
            again(&|| {
                let text = scraper.text("/v1/metrics").expect("an answer");
                assert!(text.contains("tapline_"), "{text}");
            });
        });
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(100));
            upgraded(&client);
        }
        done.store(true, Ordering::Relaxed);
    });
    println!("{} requests, each answered", asked.load(Ordering::Relaxed));
    load.stop();
    assert_eq!(world.devices().len(), 2 * 2 + 2, "and no device too many");
    let (status, stderr) = world.run(&[
        "upgrade",
        "--socket",
        world.path("tapline.sock").to_str().expect("text"),
    ]);
    assert_eq!(status, Some(0), "{stderr}");
}

fn refused(result: Result<UpgradeReply, ClientError>) -> String {
    match result {
        Err(ClientError::Refused(error)) if error.kind == ErrorKind::Upgrade => error.message,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn a_program_that_does_not_take_over_changes_nothing(_: PrivateNet) {
    let _orphans = Orphans::adopted();
    let world = World::kubenet();
    let running = world.start();
    let (a, b, to_b) = two(&running);
    let before = world.snapshot();
    let stream = Stream::start(&a, &b, to_b);
    let fake = |mode: &str| {
        let own = std::env::current_exe().expect("a program");
        let script = format!("exec {} {FAKE} {mode}", own.display());
        wrapper(&world, mode, &script)
    };
    for (binary, why) in [
        (PathBuf::from("/bin/false"), "exit status: 1"),
        (world.path("nothing"), "No such file"),
        (PathBuf::from("relative"), "no absolute path"),
        (fake("foreign"), "too far apart"),
        (fake("sulks"), "not in the mood"),
        (fake("babbles"), "out of turn"),
        (fake("dies-at-estate"), "exit status: 7"),
        (fake("dies-at-go"), "exit status: 7"),
    ] {
        let said = refused(upgrade(&running.client, Some(binary.clone())));
        assert!(said.contains(why), "{}: {said}", binary.display());
    }
    let configuration = world.config();
    for (text, why) in [
        ("{".to_owned(), "tapline.json"),
        (
            configuration.replace("\"state_dir\"", "\"workers\": 2, \"state_dir\""),
            "workers cannot change",
        ),
    ] {
        world.configure(&text);
        let said = refused(upgrade(&running.client, None));
        assert!(said.contains(why), "{said}");
    }
    world.configure(&configuration);
    let report = stream.stop();
    assert_eq!(report.lost, 0, "{report:?}");
    assert_eq!(world.snapshot(), before, "nothing was changed");
    // One that takes the word and does nothing is ended; frames are lost meanwhile, and no more.
    let said = refused(upgrade(&running.client, Some(fake("hangs-at-go"))));
    assert!(said.contains("said nothing"), "{said}");
    assert_eq!(a.pings(to_b).received(), 3);
    assert_eq!(Orphans::of(running.child.id()), [], "none of them lives");
    upgraded(&running.client);
    assert_eq!(a.pings(to_b).received(), 3);
}

/// This program as one that takes over badly.
pub(crate) fn become_fake(mode: &str) -> ExitCode {
    let end = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .expect("a line");
    let mut line = Line::over(end);
    let patience = Duration::from_secs(20);
    let hear = |line: &mut Line| line.hear(patience).expect("a word");
    hear(&mut line);
    let hello = match mode {
        "foreign" => Hello {
            version: "9.0.0".into(),
            oldest: 7,
            newest: 9,
        },
        _ => Hello::own(),
    };
    line.say(&Message::Hello(hello)).expect("it listens");
    if mode == "sulks" {
        let _ = line.say(&Message::Refused("not in the mood".into()));
    } else if mode == "babbles" {
        let _ = line.say(&Message::Ready);
    } else if mode != "foreign" {
        line.say(&Message::Prepared(Default::default()))
            .expect("it listens");
        let Message::Estate(estate) = hear(&mut line) else {
            panic!("no estate");
        };
        line.take(2 + estate.queues, patience).expect("descriptors");
        if mode == "dies-at-estate" {
            return ExitCode::from(7);
        }
        line.say(&Message::Ready).expect("it listens");
        hear(&mut line);
        if mode == "dies-at-go" {
            return ExitCode::from(7);
        }
    }
    // Until it hangs up, or this is killed.
    let _ = line.hear(patience);
    ExitCode::SUCCESS
}

/// Kills one of the two at some moment of each upgrade, as `victim` calls it in a shell.
fn kill_in_the_middle(victim: &str) {
    let _orphans = Orphans::adopted();
    let world = World::kubenet();
    let mut running = world.start();
    let (a, _b, to_b) = two(&running);
    let mut alone = 0;
    for round in 0..KILLS {
        // From before the first word to well after the last.
        let after = f64::from(round) * 0.002;
        let script = format!(
            "(sleep {after}; kill -9 {victim}) 2>/dev/null &\nexec {} \"$@\"",
            env!("CARGO_BIN_EXE_tapline")
        );
        let binary = wrapper(&world, &format!("killer-{round}"), &script);
        let outcome = upgrade(&running.client, Some(binary));
        println!("{victim} killed after {after} s: {outcome:?}");
        // Long enough for the kill to have come, and for who is left to serve.
        std::thread::sleep(Duration::from_millis(500));
        if running.status().is_err() {
            // Where both are dead, a supervisor starts the next one.
            alone += 1;
            running = world.start();
        }
        running.wait_until_ready();
        assert_eq!(a.pings(to_b).received(), 3, "after {outcome:?}");
        assert_eq!(running.status().expect("it answers").attachments, 2);
        while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) =
            waitpid(None, Some(WaitPidFlag::WNOHANG))
        {}
    }
    println!("{alone} times nobody was left");
}

pub(crate) fn a_new_daemon_that_is_killed_leaves_a_working_node(_: PrivateNet) {
    kill_in_the_middle("$$");
}

pub(crate) fn an_old_daemon_that_is_killed_leaves_a_working_node(_: PrivateNet) {
    kill_in_the_middle("$PPID");
}

pub(crate) fn systemd_is_told_who_serves_and_keeps_the_queues_all_the_same(_: PrivateNet) {
    let _orphans = Orphans::adopted();
    let world = World::kubenet();
    let systemd = Systemd::start(&world);
    let running = systemd.spawn(&world);
    running.wait_until_ready();
    let (a, b, to_b) = two(&running);
    until("every queue is kept", || systemd.names().len() == 4);
    let reply = upgraded(&running.client);
    until("it hears of the new one", || {
        systemd.heard(&format!("MAINPID={}", reply.pid))
    });
    assert!(!systemd.heard("STOPPING=1"), "the service does not stop");
    let stream = Stream::start(&a, &b, to_b);
    std::thread::sleep(Duration::from_millis(100));
    kill(Pid::from_raw(reply.pid as i32), Signal::SIGKILL).expect("it is ours");
    std::thread::sleep(Duration::from_millis(100));
    let heir = systemd.spawn_heir(&world);
    heir.wait_until_ready();
    std::thread::sleep(Duration::from_millis(100));
    let report = stream.stop();
    assert_eq!(report.lost, 0, "they waited in the rings: {report:?}");
}
