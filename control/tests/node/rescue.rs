//! A daemon that does not come up any more: what systemd then does by the unit that is shipped, and how
//! soon pods reach each other again.
//!
//! In: docs/install.md up to pods that run, a daemon that is killed, and the reason why the next one ends
//! at its start. Out: the pods on a Linux bridge, without a daemon.
//! Never: knows by itself how often a unit is started or what follows: the unit's own lines say so.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use control::config::{CONFIG_PATH, STATE_DIR};
use control::lab::privilege::PrivateNet;
use control::plan::Plugin;

use crate::install::{self, Machine};
use crate::life::Stream;
use crate::world::{Pod, name, until};

/// Where the page puts units.
const UNITS: &str = "/lib/systemd/system";
const OUTAGE_MAX: Duration = Duration::from_secs(5);

/// The lines of a unit that lies where systemd looks, by key; no key of ours is in two sections.
struct Unit(BTreeMap<String, String>);

impl Unit {
    fn read(name: &str) -> Unit {
        let path = Path::new(UNITS).join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|why| panic!("{name}: {why}"));
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once('='));
        Unit(
            pairs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    fn key(&self, key: &str) -> &str {
        self.0
            .get(key)
            .unwrap_or_else(|| panic!("{key} in the unit"))
    }

    /// systemd.time(7), as far as the unit uses it: a number is one of seconds.
    fn time(&self, key: &str) -> Duration {
        let text = self.key(key);
        let number = |digits: &str| digits.parse().expect("a number");
        match text.strip_suffix("ms") {
            Some(digits) => Duration::from_millis(number(digits)),
            None => Duration::from_secs(number(text.trim_end_matches('s'))),
        }
    }

    /// Runs its command to the end, in the node.
    fn runs(&self, machine: &Machine) -> (Option<i32>, String) {
        let words: Vec<&str> = self.key("ExecStart").split(' ').collect();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        let output = machine.world.node.run(|| command.output());
        let output = output.expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    }
}

/// What systemd does from the moment in which the daemon has died, to the end: a start after each
/// failure, as often as the unit allows, and then what it names. Tells how each start ended.
fn supervised(machine: &Machine) -> Vec<String> {
    let unit = Unit::read("tapline.service");
    assert_eq!(unit.key("Restart"), "on-failure");
    let often: usize = unit.key("StartLimitBurst").parse().expect("a number");
    let mut starts: Vec<Instant> = Vec::new();
    let mut ends = Vec::new();
    loop {
        std::thread::sleep(unit.time("RestartSec"));
        starts.retain(|start| start.elapsed() < unit.time("StartLimitIntervalSec"));
        if starts.len() == often {
            break;
        }
        starts.push(Instant::now());
        let (status, said) = unit.runs(machine);
        assert_ne!(status, Some(0), "that is no failure: {said}");
        ends.push(said);
    }
    let (status, said) = Unit::read(unit.key("OnFailure")).runs(machine);
    assert_eq!(status, Some(0), "the rescue: {said}");
    ends
}

/// Breaks what the next daemon needs, kills this one, and looks how long two pods hear nothing of each
/// other. Gives how the starts ended, and the pods.
fn aborts(
    machine: &Machine,
    (case, plugin): (&str, Plugin),
    breaks: impl FnOnce(),
) -> (Vec<String>, [Pod; 2]) {
    machine.follow(&["The steps", case], |step| {
        install::of_another_cluster(step, plugin)
    });
    let pods = ["pod-a", "pod-b"].map(Pod::new);
    // Under azure nobody can look into them.
    if plugin == Plugin::Kubenet {
        for pod in &pods {
            pod.netns.pin(&pod.id).expect("where runtimes put them");
        }
    }
    let [to_a, to_b] = pods
        .each_ref()
        .map(|pod| machine.cni("ADD", pod).expect("an address"));
    all_reach(&pods, [to_a, to_b]);
    let stream = Stream::start(&pods[0], &pods[1], to_b);
    std::thread::sleep(Duration::from_millis(100));
    assert!(machine.world.is_steered());
    breaks();
    machine.daemon.borrow_mut().take().expect("it runs").kill();
    let ends = supervised(machine);
    std::thread::sleep(Duration::from_millis(500));
    let report = stream.stop();
    println!("{} starts, {:?} without a delivery", ends.len(), report.gap);
    assert!(report.gap < OUTAGE_MAX, "{report:?}");
    all_reach(&pods, [to_a, to_b]);
    let net = machine.world.net();
    let host = match plugin {
        Plugin::Azure => "azure0",
        Plugin::Kubenet => "cbr0",
    };
    let bridge = net.bridge(&name(host)).expect("it answers");
    assert!(bridge.is_some(), "{host} is no bridge");
    let left = machine.world.devices();
    let ours = |device: &&String| device.starts_with("tap") || *device == "uplink0";
    assert_eq!(left.iter().filter(ours).count(), 0, "{left:?}");
    assert!(!machine.world.is_steered(), "something is left on eth0");
    (ends, pods)
}

fn all_reach(pods: &[Pod; 2], [to_a, to_b]: [IpAddr; 2]) {
    assert_eq!(pods[0].pings(to_b).received(), 3);
    assert_eq!(pods[1].pings(to_a).received(), 3);
}

fn written_over(path: &Path) {
    let text = fs::read(path).expect("it is there");
    fs::write(path, &text[..text.len() / 2]).expect("ours");
}

pub(crate) fn a_configuration_at_fault_costs_pods_less_than_five_seconds(_: PrivateNet) {
    let (machine, case, _) = install::kubenet();
    let breaks = || written_over(Path::new(CONFIG_PATH));
    let (ends, pods) = aborts(&machine, (case, Plugin::Kubenet), breaks);
    assert!(
        ends.iter().all(|said| said.contains(CONFIG_PATH)),
        "{ends:?}"
    );
    let gateway = "10.244.1.1".parse().expect("one");
    assert_eq!(
        pods[0].pings(gateway).received(),
        3,
        "the node has it still"
    );
}

/// A state file that was cut short, as a disk may do, and what an operator does then.
fn state_makes_no_sense(machine: &Machine, case: (&str, Plugin)) {
    let state = Path::new(STATE_DIR).join("attachments.json");
    let (ends, _pods) = aborts(machine, case, || written_over(&state));
    let named = |said: &String| said.contains("attachments.json makes no sense");
    assert!(ends.iter().all(named), "{ends:?}");
    let left = fs::read(&state).expect("it is left as it is");
    assert!(serde_json::from_slice::<serde_json::Value>(&left).is_err());
    fs::rename(&state, state.with_extension("senseless")).expect("as the message says");
    let mut command = Command::new("/usr/bin/tapline");
    command.args(["run", "--config", CONFIG_PATH]);
    command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
    let mut running = machine.world.spawn(&mut command);
    let socket = Path::new(control::config::SOCKET_PATH);
    running.client = control::api::Client::new(socket);
    until("the daemon waits beside the bridge", || {
        let told = running.status().ok().and_then(|status| status.error);
        told.is_some_and(|error| error.message.contains("tapline adopt --bridge"))
    });
    *machine.daemon.borrow_mut() = Some(running);
}

pub(crate) fn a_state_that_makes_no_sense_costs_pods_less_than_five_seconds(_: PrivateNet) {
    let (machine, case, _) = install::kubenet();
    state_makes_no_sense(&machine, (case, Plugin::Kubenet));
}

pub(crate) fn so_it_does_under_azure(_: PrivateNet) {
    let (machine, _wireserver, case, _) = install::azure();
    state_makes_no_sense(&machine, (case, Plugin::Azure));
}
