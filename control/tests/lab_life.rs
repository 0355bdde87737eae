//! The life of `tapline lab`: refused, held, entered, ended and killed; nothing stays behind.
//!
//! In: the built program, and the right to make namespaces as root or in a user namespace.
//! Out: exit statuses, and what is left of a lab that is gone.
//! Never: a signal to a process that this program did not start.

mod program;

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use program::{Held, Home, Outcome, leavings_after, one_at_a_time, pins};

const TUN: &str = "/dev/net/tun";

/// What the README promises of a lab that was killed.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// The names of the devices in this process's own network, which no lab may change.
fn own_devices() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/net/dev").expect("a kernel with networks");
    let names = table
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next());
    let mut names: Vec<String> = names.map(|name| name.trim().to_owned()).collect();
    names.sort();
    names
}

/// The devices that a command started by `lab exec` sees.
fn devices_of(home: &Home, who: &str) -> Vec<String> {
    let seen = home.run(&["lab", "exec", who, "--", "cat", "/proc/self/net/dev"]);
    assert_eq!(seen.status, Some(0), "{}", seen.stderr);
    let names = seen
        .stdout
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next());
    names.map(|name| name.trim().to_owned()).collect()
}

#[test]
fn a_held_lab_lets_others_in_and_leaves_nothing_after_ctrl_c() {
    let _turn = one_at_a_time();
    let home = Home::new();
    let before = own_devices();
    let mut lab = Held::start(&home, &["--plugin", "kubenet"]);
    assert_eq!(
        own_devices(),
        before,
        "the machine's own network is left alone"
    );
    let pod = devices_of(&home, "pod-a");
    assert!(
        pod.contains(&"eth0".to_owned()) && pod.len() == 2,
        "{pod:?}"
    );
    let node = devices_of(&home, "node-0");
    for device in ["eth0", "cbr0", "uplink0"] {
        assert!(node.contains(&device.to_owned()), "{device} among {node:?}");
    }
    let status = home
        .run(&["lab", "exec", "pod-a", "--", "sh", "-c", "exit 7"])
        .status;
    assert_eq!(status, Some(7), "the command's own status comes through");
    let absent = home.run(&["lab", "exec", "pod-z", "--", "true"]);
    assert_eq!(absent.status, Some(2));
    assert!(
        absent.stderr.contains("pod-z") && absent.stderr.contains("node-0"),
        "{}",
        absent.stderr
    );
    assert!(!home.state_files().is_empty(), "this is how exec finds it");
    lab.signal(Signal::SIGINT);
    let status = lab.status(Duration::from_secs(5)).expect("it ends in time");
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(home.leavings(lab.pid()), [] as [String; 0]);
    assert_eq!(own_devices(), before);
    let after = home.run(&["lab", "exec", "pod-a", "--", "true"]);
    assert_eq!(after.status, Some(2));
    assert!(
        after.stderr.contains("tapline lab --hold"),
        "{}",
        after.stderr
    );
}

#[test]
fn a_killed_lab_is_cleared_up_within_a_second() {
    let _turn = one_at_a_time();
    let home = Home::new();
    let mut lab = Held::start(&home, &["--plugin", "azure"]);
    let pid = lab.pid();
    assert!(!home.leavings(pid).is_empty());
    lab.signal(Signal::SIGKILL);
    let status = lab
        .status(Duration::from_secs(5))
        .expect("nothing survives this signal");
    assert_eq!(status.signal(), Some(9));
    assert_eq!(leavings_after(&home, pid, GONE_WITHIN), [] as [String; 0]);
}

#[test]
fn a_lab_killed_while_it_is_built_is_cleared_up_too() {
    let _turn = one_at_a_time();
    let home = Home::new();
    let mut lab = Held::begin(home.tapline().args(["lab", "--plugin", "azure"]));
    lab.wait_for("pod-a 10.20.0.31 on node-0");
    lab.signal(Signal::SIGKILL);
    lab.status(Duration::from_secs(5))
        .expect("nothing survives this signal");
    assert_eq!(
        leavings_after(&home, lab.pid(), GONE_WITHIN),
        [] as [String; 0]
    );
}

#[test]
fn a_lab_interrupted_while_it_walks_leaves_nothing() {
    let _turn = one_at_a_time();
    let home = Home::new();
    let mut lab = Held::begin(home.tapline().args(["lab", "--plugin", "azure"]));
    lab.wait_for("pod-a pings pod-c");
    lab.signal(Signal::SIGINT);
    lab.status(Duration::from_secs(10))
        .expect("it ends in time");
    assert_eq!(
        leavings_after(&home, lab.pid(), GONE_WITHIN),
        [] as [String; 0]
    );
}

#[test]
fn two_labs_run_side_by_side_and_exec_asks_which() {
    let _turn = one_at_a_time();
    let home = Home::new();
    let azure = Held::start(&home, &["--plugin", "azure"]);
    let kubenet = Held::start(&home, &["--plugin", "kubenet"]);
    let which = home.run(&["lab", "exec", "node-0", "--", "true"]);
    assert_eq!(which.status, Some(2));
    for lab in [&azure, &kubenet] {
        assert!(
            which.stderr.contains(&lab.pid().to_string()),
            "{}",
            which.stderr
        );
    }
    for (lab, device, other) in [(&azure, "azure0", "cbr0"), (&kubenet, "cbr0", "azure0")] {
        let pid = lab.pid().to_string();
        let command = [
            "lab",
            "exec",
            "--lab",
            &pid,
            "node-0",
            "--",
            "cat",
            "/proc/self/net/dev",
        ];
        let seen = home.run(&command);
        assert_eq!(seen.status, Some(0), "{}", seen.stderr);
        assert!(
            seen.stdout.contains(device) && !seen.stdout.contains(other),
            "{}",
            seen.stdout
        );
    }
    azure.signal(Signal::SIGTERM);
    let azure_pid = azure.pid();
    let mut azure = azure;
    azure
        .status(Duration::from_secs(5))
        .expect("it ends in time");
    assert_eq!(pins(azure_pid), [] as [String; 0]);
    assert_eq!(devices_of(&home, "pod-c").len(), 2, "the other lab goes on");
}

/// Files at fault, and what has to be said of each.
fn bad_models(home: &Home) -> Vec<(String, &'static str)> {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/aks.json");
    let model = fs::read_to_string(example).expect("the seed's model");
    let changed = |name: &str, from: &str, to: &str| {
        assert!(model.contains(from), "{from}");
        home.file(name, &model.replace(from, to))
    };
    let plugin = "\"networkPlugin\": \"azure\"";
    let policy = "\"networkPolicy\": \"azure\"";
    let master = "\"masterProfile\": {";
    vec![
        ("/no/such/aks.json".to_owned(), "/no/such/aks.json"),
        (home.path().display().to_string(), "directory"),
        (
            home.file("broken.json", "{\n  \"apiVersion\": }"),
            "broken.json:2:17",
        ),
        (
            changed("version.json", "\"vlabs\"", "\"v1\""),
            "apiVersion: unrecognized APIVersion 'v1'",
        ),
        (
            changed("plugin.json", plugin, "\"networkPlugin\": \"nosuch\""),
            "networkPlugin",
        ),
        (
            changed("flannel.json", plugin, "\"networkPlugin\": \"flannel\""),
            "azure and kubenet only",
        ),
        (
            changed("policy.json", plugin, "\"networkPlugin\": \"kubenet\""),
            "networkPolicy",
        ),
        (
            changed("cidr.json", policy, "\"serviceCidr\": \"10.0.0.0/99\""),
            "kubernetesConfig.serviceCidr",
        ),
        (
            changed(
                "overlap.json",
                policy,
                "\"serviceCidr\": \"10.20.0.0/16\", \"dnsServiceIP\": \"10.20.0.10\"",
            ),
            "10.20.0.0/16",
        ),
        (
            changed("count.json", "\"count\": 2", "\"count\": 5000"),
            "agentPoolProfiles[0]",
        ),
        (
            changed(
                "static.json",
                master,
                "\"masterProfile\": { \"firstConsecutiveStaticIP\": \"192.168.1.1\",",
            ),
            "masterProfile",
        ),
    ]
}

#[test]
fn bad_input_is_refused_with_its_place_and_nothing_is_created() {
    let _turn = one_at_a_time();
    let home = Home::new();
    let vnet = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/aks-vnet.json");
    for (file, expected) in bad_models(&home) {
        let run = home.run(&["lab", "--model", &file, "--vnet", vnet]);
        assert_eq!(run.status, Some(2), "{file}: {}", run.stderr);
        assert!(
            run.stderr.contains(expected),
            "{file} lacks '{expected}':\n{}",
            run.stderr
        );
        assert_eq!(run.stdout, "", "{file}");
        assert!(
            !run.stderr.contains("[azure]"),
            "no stage began: {}",
            run.stderr
        );
        assert_eq!(
            (home.processes(), home.state_files()),
            (vec![], vec![]),
            "{file}"
        );
    }
}

#[test]
fn a_model_whose_pods_cannot_be_walked_is_refused_and_not_found_in_order() {
    let _turn = one_at_a_time();
    let home = Home::new();
    let text = r#"{
  "apiVersion": "vlabs",
  "properties": {
    "featureFlags": { "enableIPv6Only": true },
    "orchestratorProfile": { "orchestratorType": "Kubernetes", "orchestratorRelease": "1.18",
      "kubernetesConfig": { "networkPlugin": "kubenet" } },
    "masterProfile": { "count": 1, "dnsPrefix": "x", "vmSize": "Standard_D2_v3" },
    "agentPoolProfiles": [ { "name": "agents", "count": 2, "vmSize": "Standard_D2_v3" } ]
  }
}"#;
    let run = home.run(&["lab", "--model", &home.file("only.json", text)]);
    assert_eq!((run.status, run.stdout.as_str()), (Some(2), ""));
    for part in ["nothing to walk", "note: IPv6 alone"] {
        assert!(run.stderr.contains(part), "{}", run.stderr);
    }
    assert!(!run.stderr.contains("[kubenet]"), "no stage began");
    assert_eq!((home.processes(), home.state_files()), (vec![], vec![]));
}

#[test]
fn every_fault_of_a_model_is_told_at_once() {
    let _turn = one_at_a_time();
    let home = Home::new();
    let text = r#"{
  "apiVersion": "vlabs",
  "properties": {
    "orchestratorProfile": { "orchestratorType": "Kubernetes", "kubernetesConfig": {
      "networkPlugin": "kubenet", "clusterSubnet": "nonsense", "serviceCidr": "10.0.0.0/33" } },
    "masterProfile": { "count": 2 },
    "agentPoolProfiles": [ { "name": "agents", "count": 0 } ]
  }
}"#;
    let run = home.run(&["lab", "--model", &home.file("aks.json", text)]);
    assert_eq!(run.status, Some(2));
    for part in [
        "clusterSubnet",
        "serviceCidr",
        "masterProfile.count",
        "agentPoolProfiles[0].count",
    ] {
        assert!(
            run.stderr.contains(part),
            "no fault at {part}:\n{}",
            run.stderr
        );
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let _turn = one_at_a_time();
    let home = Home::new();
    for arguments in [
        &["lab", "--plugin", "flannel"][..],
        &["lab", "--vnet", "aks-vnet.json"],
        &["lab", "--nonsense"],
        &["lab", "exec", "pod-a"],
        &["lab", "exec", "--lab", "1", "pod-a", "--", "true"],
        &["plan"],
    ] {
        let run = home.run(arguments);
        assert_eq!(
            (run.status, run.stdout.as_str()),
            (Some(2), ""),
            "{arguments:?}"
        );
        assert!(!run.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn root_of_a_user_namespace_may_hold_a_lab_though_it_may_not_mount() {
    let _turn = one_at_a_time();
    let home = Home::new();
    let mut unshare = home.program(Path::new("unshare"));
    unshare
        .args(["--map-root-user", "--net", "--"])
        .arg(env!("CARGO_BIN_EXE_tapline"))
        .args(["lab", "--plugin", "azure", "--hold"]);
    let mut lab = Held::begin(&mut unshare);
    lab.wait_for("held until Ctrl-C");
    assert_eq!(devices_of(&home, "pod-a").len(), 2);
    lab.signal(Signal::SIGINT);
    let status = lab.status(Duration::from_secs(5));
    assert_eq!(status.and_then(|status| status.code()), Some(0));
    assert_eq!(home.leavings(lab.pid()), [] as [String; 0]);
}

/// Runs the lab as root of a user namespace in which `spoil` was done to the machine.
fn spoiled(home: &Home, spoil: &str) -> Outcome {
    let script = format!("{spoil} && exec \"$0\" lab --json");
    let mut unshare = home.program(Path::new("unshare"));
    unshare.args(["--map-root-user", "--mount", "--", "sh", "-c", &script]);
    Outcome::of(unshare.arg(env!("CARGO_BIN_EXE_tapline")))
}

#[test]
fn a_machine_that_lacks_something_is_told_what_to_do() {
    let _turn = one_at_a_time();
    for (spoil, named) in [
        ("mount -t tmpfs none /dev/net", TUN),
        ("echo 0 > /proc/sys/user/max_net_namespaces", "namespace"),
    ] {
        let home = Home::new();
        let run = spoiled(&home, spoil);
        assert_eq!(run.status, Some(3), "{spoil}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{spoil}");
        assert!(
            run.stderr.contains(named) && run.stderr.contains("next: "),
            "{}",
            run.stderr
        );
        assert_eq!(
            (home.processes(), home.state_files()),
            (vec![], vec![]),
            "{spoil}"
        );
    }
}

/// Gives the calling thread, and what it starts, a `/dev/net/tun` that every user may open, as
/// most distributions have it.
fn open_tun_to_all(home: &Home) -> nix::Result<()> {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let folder = home.path().join("dev");
    fs::create_dir(&folder).expect("the folder is ours");
    // A file system of its own: the temporary folder's may forbid devices.
    mount(
        Some("tmpfs"),
        &folder,
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )?;
    let node = folder.join("tun");
    mknod(
        &node,
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o666),
        makedev(10, 200),
    )?;
    fs::set_permissions(&node, std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .expect("the node is ours");
    mount(Some(&node), Path::new(TUN), none, MsFlags::MS_BIND, none)
}

/// Root runs this as user 65534; anyone else as themselves, which is the same question.
fn walked_by_an_ordinary_user(arguments: &[&str]) {
    const NOBODY: u32 = 65534;
    let _turn = one_at_a_time();
    let home = Home::new();
    let run = if nix::unistd::Uid::effective().is_root() {
        // A copy where everyone may go: the build's folder may be root's alone.
        let program = home.path().join("tapline");
        fs::copy(env!("CARGO_BIN_EXE_tapline"), &program).expect("room for a copy");
        std::thread::scope(|scope| {
            let as_nobody = || {
                open_tun_to_all(&home).expect("root may make a mount namespace");
                let mut command = home.program(&program);
                Outcome::of(
                    command
                        .args(arguments)
                        .current_dir("/")
                        .uid(NOBODY)
                        .gid(NOBODY),
                )
            };
            scope.spawn(as_nobody).join().expect("no panic")
        })
    } else {
        home.run(arguments)
    };
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    let report = &run.reports()[0];
    assert_eq!(report["ok"], true, "{report:#}");
    assert_eq!((home.processes(), home.state_files()), (vec![], vec![]));
}

#[test]
fn an_ordinary_user_can_walk_the_lab() {
    walked_by_an_ordinary_user(&["lab", "--plugin", "azure", "--json"]);
}

#[test]
fn an_ordinary_user_can_walk_both_families() {
    walked_by_an_ordinary_user(&["lab", "--dual-stack", "--json"]);
}
