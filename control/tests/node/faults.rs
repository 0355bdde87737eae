//! What goes wrong on a node, and what it may cost: an error with a name, and no frame.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use control::api::{ClientError, ErrorKind};
use control::lab::privilege::PrivateNet;
use control::lab::probe::ping::{PingSpec, ping};
use nix::mount::{MsFlags, mount};

use crate::life::Stream;
use crate::world::{Pod, Running, World, address, name, until};

/// Two pods that talk to each other meanwhile.
fn two(running: &Running) -> (Pod, Pod, IpAddr) {
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    a.added(running);
    let to_b = address(&b.added(running));
    (a, b, to_b)
}

fn refused(result: Result<impl std::fmt::Debug, ClientError>) -> (ErrorKind, String) {
    match result {
        Err(ClientError::Refused(error)) => (error.kind, error.message),
        other => panic!("{other:?}"),
    }
}

/// Tries an ADD and a DEL where the state cannot be written: `why` is what the system says.
fn unwritable(world: &World, running: &Running, why: &str) {
    let (a, b, to_b) = two(running);
    let before = world.devices();
    let stream = Stream::start(&a, &b, to_b);
    let break_it = world.path("state").join(".attachments.json.new");
    let _ = std::fs::remove_file(&break_it);
    world.breaks(why);
    let c = Pod::new("pod-c");
    let (kind, message) = refused(running.client.add(&c.request()));
    assert_eq!(kind, ErrorKind::State);
    assert!(
        message.contains("attachments.json") && message.contains(why),
        "{message}"
    );
    assert!(!c.has_eth0());
    assert_eq!(world.devices(), before, "all of it is undone");
    let status = running.status().expect("it answers");
    assert!(!status.ready);
    assert!(status.error.expect("a reason").message.contains(why));
    let report = stream.stop();
    assert_eq!(report.lost, 0, "{report:?}");
    running
        .client
        .del(&b.del())
        .expect("a DEL goes all the same");
    world.heals();
    until("it is kept by itself", || {
        running.status().is_ok_and(|s| s.ready)
    });
    c.added(running);
}

impl World {
    /// From now on the state folder is read-only, or full.
    fn breaks(&self, why: &str) {
        let folder = self.path("state");
        match why {
            "Read-only" => remount(&folder, MsFlags::MS_RDONLY),
            _ => {
                let filler = vec![0; 1 << 20];
                let mut file = std::fs::File::create(folder.join("filler")).expect("there is room");
                while file.write_all(&filler).is_ok() {}
                while file.write_all(&filler[..1]).is_ok() {}
            }
        }
    }

    fn heals(&self) {
        let folder = self.path("state");
        match folder.join("filler").exists() {
            true => std::fs::remove_file(folder.join("filler")).expect("it goes"),
            false => remount(&folder, MsFlags::empty()),
        }
    }

    /// A state folder on a file system of its own, which dies with this process's mounts.
    fn with_own_state() -> World {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("mounts of our own");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private");
        let world = World::kubenet();
        let folder = world.path("state");
        std::fs::create_dir(&folder).expect("made");
        mount(
            Some("tmpfs"),
            &folder,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=256k"),
        )
        .expect("a small file system");
        world
    }
}

fn remount(folder: &std::path::Path, flags: MsFlags) {
    let none: Option<&str> = None;
    mount(
        none,
        folder,
        none,
        MsFlags::MS_REMOUNT | flags,
        Some("size=256k"),
    )
    .expect("remounted");
}

pub(crate) fn a_state_that_cannot_be_written_is_named_and_costs_no_frame(_: PrivateNet) {
    let world = World::with_own_state();
    let running = world.start();
    unwritable(&world, &running, "Read-only");
}

pub(crate) fn a_full_disk_is_named_and_costs_no_frame(_: PrivateNet) {
    let world = World::with_own_state();
    let running = world.start();
    unwritable(&world, &running, "No space left");
}

pub(crate) fn a_capture_to_a_full_disk_ends_and_costs_no_frame(_: PrivateNet) {
    let world = World::with_own_state();
    let running = world.start();
    let (a, b, to_b) = two(&running);
    let stream = Stream::start(&a, &b, to_b);
    let file = world
        .path("state")
        .join("frames.pcapng")
        .display()
        .to_string();
    for target in [file.as_str(), "/dev/full"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapline"));
        command
            .args(["capture", "--seconds", "60", "--write", target, "--socket"])
            .arg(world.path("tapline.sock"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut capture = command.spawn().expect("it starts");
        let long = PingSpec {
            count: 100,
            interval: Duration::from_millis(1),
            payload_len: 1400,
            ..PingSpec::to(to_b)
        };
        until("the capture goes on", || {
            ping(&a.netns, &long).expect("a socket");
            capture.try_wait().expect("a child").is_some()
        });
        let ended = capture.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains("No space left"), "{said}");
    }
    let report = stream.stop();
    assert_eq!(report.lost, 0, "{report:?}");
    assert_eq!(a.pings(to_b).received(), 3);
    // Nobody looks any more: as many may begin as ever.
    let wanted = serde_json::json!({"snap": 64});
    for _ in 0..4 {
        let begun = running
            .client
            .post::<serde_json::Value>("/v1/capture", &wanted);
        begun.expect("there is room");
    }
}

pub(crate) fn a_missing_capability_is_named(_: PrivateNet) {
    let world = World::kubenet();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapline"));
    command
        .args(["run", "--config"])
        .arg(world.path("tapline.json"))
        .stdin(Stdio::null());
    // The bounding set outlives the exec, by which root would get every capability again.
    let output = std::thread::scope(|scope| {
        let spawned = scope.spawn(|| {
            use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
            remove_capability_from_bounding_set(CapabilitySet::NET_ADMIN).expect("ours to drop");
            command.output()
        });
        spawned.join().expect("no panic").expect("it starts")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("lacks CAP_NET_ADMIN"), "{said}");
    assert!(!world.path("state").exists(), "nothing was created");
}

pub(crate) fn a_device_deleted_behind_our_back_is_made_again_or_named(_: PrivateNet) {
    let world = World::kubenet();
    let running = world.start();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let (to_a, to_b) = (a.added(&running), b.added(&running));
    let host_end = name(&to_b.interfaces[1].name);
    let tap = name(&host_end.as_str().replace("veth", "tap"));
    for device in [&tap, &name("uplink0"), &name("cbr0")] {
        world.net().remove_link(device).expect("it was there");
        until("it is made again", || {
            world
                .net()
                .find_link(device)
                .expect("answers")
                .is_some_and(|link| link.running)
        });
    }
    until("all is as before", || {
        a.pings(address(&to_b)).received() == 3
    });
    until("the host, too", || {
        a.pings(IpAddr::V4(world.other)).received() == 3
    });
    assert_eq!(
        running
            .client
            .check(&b.check(&to_b))
            .map_err(|e| e.to_string())
            .err(),
        None
    );
    world.net().remove_link(&host_end).expect("it was there");
    let (kind, message) = refused(running.client.check(&b.check(&to_b)));
    assert_eq!(kind, ErrorKind::Differs);
    assert!(message.contains("is gone"), "{message}");
    assert_eq!(
        running.client.del(&b.del()).expect("it goes").removed.len(),
        1
    );
    assert_eq!(
        a.pings(IpAddr::V4(world.other)).received(),
        3,
        "the other is served"
    );
    assert!(running.client.check(&a.check(&to_a)).is_ok());
}

pub(crate) fn hostile_clients_have_no_effect_on_forwarding(_: PrivateNet) {
    let world = World::kubenet();
    let running = world.start();
    let (a, b, to_b) = two(&running);
    let stream = Stream::start(&a, &b, to_b);
    let path = world.path("tapline.sock");
    let mut held = Vec::new();
    for round in 0..300_usize {
        let mut client = UnixStream::connect(&path).expect("it listens");
        let _ = match round % 5 {
            0 => client.write_all(&[0xff; 2000]),
            1 => client.write_all(b"POST /v1/attachments HTTP/1.1\r\nhost: t\r\ncontent-length: 99999999\r\n\r\n"),
            2 => client.write_all(b"POST /v1/attachments HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\n"),
            3 => client.write_all(b"GET /v1/ports HTTP/1.1\r\n"),
            _ => client.write_all(b"POST /v1/attachments HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\n{}"),
        };
        // Some never say goodbye.
        if round % 3 == 0 && held.len() < 100 {
            held.push(client);
        } else {
            let _ = client.set_read_timeout(Some(Duration::from_millis(5)));
            let _ = client.read(&mut [0; 500]);
        }
    }
    let report = stream.stop();
    assert_eq!(report.lost, 0, "{report:?}");
    assert_eq!(running.status().expect("it answers").attachments, 2);
}

pub(crate) fn a_failed_add_leaves_nothing(_: PrivateNet) {
    let world = World::kubenet();
    let running = world.start();
    let before = world.snapshot();
    let pod = Pod::new("pod-a");
    let with = |change: &dyn Fn(&mut control::api::types::AddRequest)| {
        let mut request = pod.request();
        change(&mut request);
        refused(running.client.add(&request))
    };
    let text = |text: &str| text.parse::<IpAddr>().expect("an address");
    for ((kind, message), wanted) in [
        (with(&|r| r.netns = "/nowhere".into()), ErrorKind::Netns),
        (with(&|r| r.netns = "/dev/null".into()), ErrorKind::Netns),
        (with(&|r| r.netns = world.node.path()), ErrorKind::Netns),
        (with(&|r| r.key.ifname = "a/b".into()), ErrorKind::Invalid),
        (with(&|r| r.key.ifname = "lo".into()), ErrorKind::Exists),
        (
            with(&|r| r.key.container_id = "../etc".into()),
            ErrorKind::Invalid,
        ),
        (with(&|r| r.mtu = Some(9000)), ErrorKind::Invalid),
        (
            with(&|r| r.requested = vec![text("10.244.1.1")]),
            ErrorKind::Invalid,
        ),
        (
            with(&|r| r.requested = vec![text("10.9.9.9")]),
            ErrorKind::Invalid,
        ),
        (
            with(&|r| r.mac = Some("ff:ff:ff:ff:ff:ff".parse().expect("a MAC"))),
            ErrorKind::Invalid,
        ),
        // The host port's: the tables refuse a station on two ports, when all devices are made.
        (
            with(&|r| r.mac = Some("0a:58:0a:f4:01:01".parse().expect("a MAC"))),
            ErrorKind::Invalid,
        ),
        // A next hop that is not on the pod's link: its kernel refuses it, at the very end.
        (
            with(&|r| {
                r.routes = vec![control::api::types::RouteSpec {
                    dst: "10.50.0.0/16".parse().expect("a prefix"),
                    gw: Some(text("10.77.0.1")),
                }];
            }),
            ErrorKind::Device,
        ),
    ] {
        assert_eq!(kind, wanted, "{message}");
        assert!(!pod.has_eth0(), "{message}");
        assert_eq!(world.snapshot(), before, "{message}");
        let status = running.status().expect("it answers");
        assert_eq!(status.addresses.expect("a pool").held, 0, "{message}");
    }
    assert_eq!(
        address(&pod.added(&running)).to_string(),
        "10.244.1.2",
        "none was used up"
    );
}
