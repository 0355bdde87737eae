//! What dpkg runs when the package is upgraded and removed, on a node with pods.
//!
//! In: the package's scripts, called as Debian's policy has it, beside a daemon that serves. Out: who serves
//! afterwards, and whether pods lost a frame.
//! Never: asks the machine's systemd or dpkg: a program in their place notes what it is asked.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use control::lab::privilege::PrivateNet;
use control::plan::Plugin;

use crate::install::{self, Machine};
use crate::life::Stream;
use crate::upgrade::Orphans;
use crate::world::Pod;

/// Notes its words; the unit is active.
const SYSTEMCTL: &str = "#!/bin/sh\necho \"$*\" >> \"$(dirname \"$0\")/asked\"\n";

/// Runs one of the package's scripts, and gives what systemd was asked.
fn script(machine: &Machine, name: &str, words: &[&str]) -> Vec<String> {
    let beside = machine.here().join("bin");
    let asked = beside.join("asked");
    fs::write(&asked, "").expect("ours");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/deb");
    let mut command = Command::new("/bin/sh");
    command
        .arg(path.join(name))
        .args(words)
        .env("PATH", format!("{}:/usr/bin:/bin", beside.display()))
        .stdin(Stdio::null());
    let output = machine.world.node.run(|| command.output());
    let output = output.expect("a shell");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{name} {words:?}: {said}");
    assert_eq!(said, "", "{name} {words:?}");
    let text = fs::read_to_string(asked).expect("ours");
    text.lines().map(str::to_owned).collect()
}

/// The links that `systemctl enable` makes, by the unit's own lines.
fn who_wants_the_unit() -> Vec<PathBuf> {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let unit = fs::read_to_string(packaging.join("systemd/tapline.service")).expect("a unit");
    let wanted_by = unit.lines().find_map(|line| line.strip_prefix("WantedBy="));
    let link = |target: &str| {
        let folder = format!("/etc/systemd/system/{target}.wants");
        fs::create_dir_all(&folder).expect("ours");
        let link = Path::new(&folder).join("tapline.service");
        symlink("/lib/systemd/system/tapline.service", &link).expect("ours");
        link
    };
    let targets = wanted_by.expect("it is wanted").split_whitespace();
    targets.map(link).collect()
}

pub(crate) fn an_upgrade_of_the_package_loses_no_frame_and_its_removal_stops_the_daemon(
    _: PrivateNet,
) {
    let _orphans = Orphans::adopted();
    let (machine, case, _) = install::kubenet();
    let beside = machine.here().join("bin");
    fs::create_dir(&beside).expect("ours");
    for program in ["systemctl", "networkctl"] {
        let path = beside.join(program);
        fs::write(&path, SYSTEMCTL).expect("ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
    }
    fs::create_dir_all("/run/systemd/system").expect("systemd runs here");
    machine.follow(&["The steps", case], |step| {
        install::of_another_cluster(step, Plugin::Kubenet)
    });
    let pods = ["pod-a", "pod-b"].map(Pod::new);
    let [_, to_b] = pods
        .each_ref()
        .map(|pod| machine.cni("ADD", pod).expect("an address"));
    let stream = Stream::start(&pods[0], &pods[1], to_b);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(script(&machine, "prerm", &["upgrade", "9.9.9"]), [""; 0]);
    let asked = script(&machine, "postinst", &["configure", "0.0.1"]);
    let expected = [
        "daemon-reload",
        "reload",
        "is-active --quiet tapline.service",
    ];
    assert_eq!(asked, expected);
    let before = machine.daemon.borrow_mut().take().expect("it ran");
    let report = stream.stop();
    println!("{report:?}");
    assert_eq!(report.lost, 0, "{report:?}");
    assert_eq!(
        before
            .client
            .get::<serde_json::Value>("/v1/status")
            .map(drop)
            .ok(),
        Some(())
    );
    let mut before = before;
    let ended = before.child.wait().expect("a child");
    assert!(ended.success(), "the one before has ended: {ended}");
    assert_eq!(pods[0].pings(to_b).received(), 3);
    // The first time nobody serves yet, and an administrator starts it.
    let asked = script(&machine, "postinst", &["configure"]);
    assert_eq!(asked, expected[..2]);
    let asked = script(&machine, "prerm", &["remove"]);
    assert_eq!(asked, ["stop tapline.service"]);
    let state = Path::new(control::config::STATE_DIR);
    let wanted = who_wants_the_unit();
    script(&machine, "postrm", &["remove"]);
    let there = |path: &Path| path.symlink_metadata().is_ok();
    assert!(state.exists() && wanted.iter().all(|path| there(path)));
    script(&machine, "postrm", &["purge"]);
    assert!(!state.exists() && !wanted.iter().any(|path| there(path)));
}
