//! Looking inside a running daemon: tables, and the frames themselves.

use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use control::lab::privilege::PrivateNet;
use control::lab::probe::ping::{PingSpec, ping};
use pcap_file::pcapng::{Block, PcapNgReader};

use crate::world::{Pod, World, address};

/// The program with these words, its exit status and its standard output.
fn told(world: &World, words: &[&str]) -> (Option<i32>, String) {
    let socket = world.path("tapline.sock");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapline"));
    command
        .args(words)
        .arg("--socket")
        .arg(socket)
        .stdin(Stdio::null());
    let output = command.output().expect("it starts");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

pub(crate) fn tables_show_the_pods_and_json_is_alone(_: PrivateNet) {
    let world = World::kubenet();
    let running = world.start();
    let pods = [Pod::new("pod-a"), Pod::new("pod-b")];
    let replies = pods.each_ref().map(|pod| pod.added(&running));
    let (status, ports) = told(&world, &["show", "ports", "pod-a"]);
    assert_eq!((status, ports.lines().count()), (Some(0), 2), "{ports}");
    assert!(ports.contains(&address(&replies[0]).to_string()), "{ports}");
    let (_, bridge) = told(&world, &["show", "bridge"]);
    let lines: Vec<&str> = bridge.lines().collect();
    assert!(lines[1].starts_with("cbr0\t\t8000.0a58"), "{bridge}");
    assert_eq!(lines.len(), 4, "eth0 and two veths: {bridge}");
    for view in [
        "ports",
        "fdb",
        "routes",
        "neighbours",
        "drops",
        "workers",
        "conflicts",
    ] {
        let (status, text) = told(&world, &["show", view, "--json"]);
        assert_eq!(status, Some(0), "{view}");
        let rows: serde_json::Value = serde_json::from_str(&text).expect("JSON alone");
        assert!(rows.is_array(), "{view}: {text}");
    }
    let (status, top) = told(&world, &["top", "--count", "1"]);
    assert_eq!(status, Some(0));
    assert!(top.contains("default/pod-b"), "{top}");
    drop(running);
    assert_eq!(
        told(&world, &["show", "ports"]).0,
        Some(1),
        "nobody answers"
    );
}

pub(crate) fn a_capture_tells_where_each_frame_went_and_why(_: PrivateNet) {
    let world = World::kubenet();
    let running = world.start();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let (_, to_b) = (a.added(&running), b.added(&running));
    let file = world.path("frames.pcapng");
    let socket = world.path("tapline.sock");
    let start = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapline"));
        command
            .arg("capture")
            .args(words)
            .arg("--socket")
            .arg(&socket);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts")
    };
    let written = file.display().to_string();
    let mut whole = start(&["pod-a", "--seconds", "2", "--write", &written]);
    let drops = start(&["--drops", "--seconds", "2"]);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(a.pings(address(&to_b)).received(), 3);
    // One hop is too few to leave the node.
    let short = PingSpec {
        count: 1,
        ttl: Some(1),
        timeout: Duration::from_millis(200),
        ..PingSpec::to(IpAddr::V4(world.other))
    };
    ping(&a.netns, &short).expect("a socket");
    let far: IpAddr = "10.244.0.9".parse().expect("one");
    ping(&a.netns, &PingSpec { to: far, ..short }).expect("a socket");
    assert_eq!(whole.wait().expect("it ends").code(), Some(0));
    let mut comments = Vec::new();
    let mut reader = PcapNgReader::new(std::fs::File::open(&file).expect("there")).expect("pcapng");
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.expect("sound") {
            comments.push(format!("{:?}", packet.options));
        }
    }
    let count = |what: &str| comments.iter().filter(|one| one.contains(what)).count();
    assert!(count("default/pod-a -> default/pod-b") >= 3, "{comments:?}");
    assert!(count("default/pod-b -> default/pod-a") >= 3, "{comments:?}");
    assert!(
        count("default/pod-a -> dropped: ttl_expired") == 1,
        "{comments:?}"
    );
    let drops = drops.wait_with_output().expect("it ends");
    let lines = String::from_utf8_lossy(&drops.stdout).into_owned();
    assert!(lines.lines().count() >= 1, "{lines}");
    assert!(
        lines.lines().all(|line| line.contains("dropped: ")),
        "{lines}"
    );
    let (status, _) = told(&world, &["capture", "nobody", "--seconds", "1"]);
    assert_eq!(status, Some(2));
}
