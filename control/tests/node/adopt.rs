//! A daemon beside a Linux bridge: it adopts the bridge, gives it back, by word or by itself, and a
//! daemon that died is no longer needed for that.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use control::api::views::PortRow;
use control::api::{ClientError, ErrorKind};
use control::devices::Netlink;
use control::devices::netlink::address::Route;
use control::devices::netlink::bridge::BridgeFacts;
use control::devices::netlink::link::VethEnd;
use control::lab::privilege::PrivateNet;
use dataplane::addr::Mac;

use crate::world::{Pod, Running, World, name, until};

/// Not what Tapline would give its own.
const BRIDGE_MAC: Mac = Mac::new([0x0a, 0x58, 0x0a, 0xf4, 1, 99]);

/// Pods on a Linux bridge `cbr0`, as kubenet leaves them, with `host-local`'s notes of them.
pub(crate) struct Bridged {
    pub(crate) world: World,
    pub(crate) pods: Vec<(Pod, IpAddr)>,
}

/// Pods on a bridge in the node, with `host-local`'s notes of them in the world's folder.
pub(crate) fn bridge(world: &World, count: u8) -> Vec<(Pod, IpAddr)> {
    let net = world.net();
    let facts = BridgeFacts {
        ageing: 30_000,
        ..BridgeFacts::default()
    };
    net.add_bridge_as(&name("cbr0"), BRIDGE_MAC, facts)
        .expect("a bridge");
    net.set_up(&name("cbr0"), true).expect("up");
    net.add_address(&name("cbr0"), "10.244.1.1/24".parse().expect("one"))
        .expect("an address");
    std::fs::create_dir_all(world.path("networks/kubenet")).expect("a folder");
    (5..5 + count)
        .map(|last| bridged(world, &net, last))
        .collect()
}

fn bridged(world: &World, net: &Netlink, last: u8) -> (Pod, IpAddr) {
    let pod = Pod::new(&format!("container{last}"));
    let inside = Netlink::open(&pod.netns).expect("netlink");
    let end = |text: &str, mac| VethEnd {
        name: name(text),
        mac,
    };
    let here = end(&format!("veth{last:08}"), None);
    let mac = Mac::new([0x0a, 0x58, 10, 244, 1, last]);
    net.add_veth(&here, &end("eth0", Some(mac)), &pod.netns, 1500)
        .expect("a veth");
    net.set_bridge(&here.name, &name("cbr0")).expect("a port");
    net.set_up(&here.name, true).expect("up");
    let own = format!("10.244.1.{last}/24").parse().expect("one");
    inside.set_up(&name("lo"), true).expect("up");
    inside.add_address(&name("eth0"), own).expect("an address");
    inside.set_up(&name("eth0"), true).expect("up");
    let default = Route {
        to: "0.0.0.0/0".parse().expect("one"),
        via: Some("10.244.1.1".parse().expect("one")),
        source: None,
    };
    inside.add_route(&name("eth0"), &default).expect("a route");
    let note = world.path(&format!("networks/kubenet/10.244.1.{last}"));
    std::fs::write(note, format!("{}\r\neth0", pod.id)).expect("noted");
    (pod, format!("10.244.1.{last}").parse().expect("one"))
}

impl Bridged {
    pub(crate) fn new() -> Bridged {
        Bridged::with(2)
    }

    pub(crate) fn with(count: u8) -> Bridged {
        let world = World::kubenet();
        let pods = bridge(&world, count);
        Bridged { world, pods }
    }

    /// The daemon, which waits beside the bridge.
    pub(crate) fn start(&self) -> Running {
        let running = self.world.spawn(&mut self.world.command());
        self.wait_beside(&running);
        running
    }

    fn wait_beside(&self, running: &Running) {
        until("the daemon waits beside the bridge", || {
            let told = running.status().ok().and_then(|status| status.error);
            told.is_some_and(|error| error.message.contains("tapline adopt --bridge cbr0"))
        });
    }

    fn run(&self, word: &str, more: &[&str]) -> (Option<i32>, String) {
        let path = |name: &str| self.world.path(name).display().to_string();
        let files = [
            ("--networks", path("networks")),
            ("--azure-endpoints", path("azure-vnet.json")),
            ("--azure-addresses", path("azure-vnet-ipam.json")),
        ];
        let mut arguments = vec![word];
        for (option, path) in &files {
            arguments.extend([*option, path]);
        }
        arguments.extend(more);
        self.world.run(&arguments)
    }

    fn by_socket(&self, word: &str, more: &[&str]) -> (Option<i32>, String) {
        let socket = self.world.path("tapline.sock").display().to_string();
        let mut arguments = vec!["--socket", &socket];
        arguments.extend(more);
        self.run(word, &arguments)
    }

    /// Tries to adopt: the exit status, and what was said.
    pub(crate) fn tries(&self, more: &[&str]) -> (Option<i32>, String) {
        let paths: Vec<String> = self
            .pods
            .iter()
            .map(|(pod, _)| pod.netns.path().display().to_string())
            .collect();
        let mut arguments = Vec::new();
        for path in &paths {
            arguments.extend(["--netns", path]);
        }
        arguments.extend(more);
        self.by_socket("adopt", &arguments)
    }

    pub(crate) fn adopt(&self, more: &[&str]) {
        let mut arguments = vec!["--bridge", "cbr0"];
        arguments.extend(more);
        let (status, told) = self.tries(&arguments);
        assert_eq!(status, Some(0), "{told}");
    }

    /// Tries to release, in the same way.
    pub(crate) fn releases(&self) -> (Option<i32>, String) {
        self.by_socket("release", &[])
    }

    /// Pods reach each other, their node and the other node; the node reaches them.
    pub(crate) fn all_reach(&self, when: &str) {
        let [(a, _), (b, to_b)] = &self.pods[..] else {
            panic!("two pods");
        };
        let gateway = "10.244.1.1".parse().expect("one");
        for (who, pod, to) in [
            ("pod to pod", a, *to_b),
            ("pod to node", b, gateway),
            ("pod to the other node", a, IpAddr::V4(self.world.other)),
        ] {
            let report = pod.pings(to);
            assert_eq!(report.received(), 3, "{when}, {who}: {report:?}");
        }
    }

    fn is_a_bridge(&self) -> bool {
        let found = self.world.net().find_link(&name("cbr0")).expect("answers");
        found.is_some_and(|link| link.kind.as_deref() == Some("bridge"))
    }

    fn notes(&self) -> Vec<String> {
        let folder = std::fs::read_dir(self.world.path("networks/kubenet")).expect("a folder");
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry
                .expect("listed")
                .file_name()
                .to_string_lossy()
                .into_owned()
        };
        let mut names: Vec<String> = folder.map(name).collect();
        names.sort();
        names
    }
}

pub(crate) fn a_bridge_is_adopted_confirmed_and_released(_: PrivateNet) {
    let bridged = Bridged::new();
    bridged.all_reach("on the bridge, with no route of the fabric's needed but the node's");
    let running = bridged.start();
    let early = running.client.add(&Pod::new("too-early").request());
    assert!(matches!(early, Err(ClientError::Refused(e)) if e.kind == ErrorKind::NotReady));
    let asked = running
        .client
        .post::<serde_json::Value>("/v1/reload", &serde_json::json!({}));
    asked.expect("beside a bridge, too");
    bridged.adopt(&["--dry-run"]);
    assert!(bridged.is_a_bridge(), "nothing has moved");
    bridged.adopt(&[]);
    assert!(!bridged.is_a_bridge());
    let asked = running
        .client
        .post::<serde_json::Value>("/v1/reload", &serde_json::json!({}));
    asked.expect("the same configuration");
    let gateway = bridged.world.net().link(&name("cbr0")).expect("there").mac;
    assert_eq!(gateway, Some(BRIDGE_MAC), "as the pods know it");
    bridged.all_reach("by the switch");
    let ports: Vec<PortRow> = running.client.get("/v1/ports").expect("a view");
    assert_eq!(ports.len(), 4, "host, uplink, two pods");
    let socket = bridged.world.path("tapline.sock").display().to_string();
    let (status, told) = bridged.world.run(&["confirm", "--socket", &socket]);
    assert_eq!(status, Some(0), "{told}");
    // A container that this daemon never added is deleted, and its address is given again.
    let (gone, _) = &bridged.pods[1];
    let removed = running.client.del(&gone.del()).expect("deleted");
    assert_eq!(removed.removed.len(), 1);
    let fresh = Pod::new("fresh");
    let added = fresh.added(&running);
    assert_ne!(
        added.ips[0].address.addr(),
        bridged.pods[0].1,
        "that one is in use"
    );
    assert_eq!(
        bridged.pods[0]
            .0
            .pings(added.ips[0].address.addr())
            .received(),
        3
    );
    let (status, told) = bridged.releases();
    assert_eq!(status, Some(0), "{told}");
    assert!(bridged.is_a_bridge() && !bridged.world.is_steered());
    assert_eq!(
        bridged.pods[0]
            .0
            .pings(added.ips[0].address.addr())
            .received(),
        3
    );
    let noted = added.ips[0].address.addr().to_string();
    let mut expected = vec!["10.244.1.5".to_owned(), noted];
    expected.sort();
    assert_eq!(bridged.notes(), expected);
    assert_eq!(running.stop(), Some(0));
}

pub(crate) fn an_adoption_that_nobody_confirms_goes_back(_: PrivateNet) {
    let bridged = Bridged::new();
    let running = bridged.start();
    let before = bridged.world.snapshot();
    bridged.adopt(&["--confirm-within", "2"]);
    assert!(!bridged.is_a_bridge());
    until("the pods go back", || bridged.is_a_bridge());
    // It answers again when the last step is done.
    bridged.wait_beside(&running);
    assert_eq!(bridged.world.snapshot().len(), before.len());
    bridged.all_reach("after nobody confirmed");
    // Also where the daemon dies in between.
    bridged.adopt(&["--confirm-within", "2"]);
    running.kill();
    std::thread::sleep(Duration::from_millis(2100));
    let _running = bridged.start();
    assert!(bridged.is_a_bridge());
    bridged.all_reach("after a crash, and nobody confirmed");
}

/// Wherever it was cut short, and also where it was not.
pub(crate) fn a_release_that_a_crash_cuts_short_goes_on_to_its_end(_: PrivateNet) {
    let bridged = Bridged::new();
    let mut running = bridged.start();
    for after in [5, 15, 25, 40, 60].map(Duration::from_millis) {
        bridged.adopt(&["--confirm-within", "0"]);
        let begun = bridged
            .world
            .net()
            .link(&name("cbr0"))
            .expect("there")
            .index;
        std::thread::scope(|scope| {
            let releases = scope.spawn(|| bridged.releases());
            until("the host port gives the name back", || {
                let named = bridged.world.net().find_link(&name("cbr0"));
                named
                    .expect("answers")
                    .is_none_or(|link| link.index != begun)
            });
            std::thread::sleep(after);
            running.kill();
            println!("{after:?}: {:?}", releases.join().expect("it ends").0);
        });
        running = bridged.start();
        assert!(bridged.is_a_bridge());
        bridged.all_reach(&format!("after a crash {after:?} into the release"));
        let left = bridged.world.devices();
        let ours = |device: &&String| device.starts_with("tap") || *device == "uplink0";
        assert_eq!(left.iter().filter(ours).count(), 0, "{left:?}");
    }
    assert_eq!(running.stop(), Some(0));
}

pub(crate) fn a_rescue_needs_no_daemon(_: PrivateNet) {
    let bridged = Bridged::new();
    let running = bridged.start();
    bridged.adopt(&["--confirm-within", "0"]);
    let state = bridged.world.path("state").display().to_string();
    let (status, told) = bridged.run("rescue", &["--state", &state]);
    assert_eq!(
        status,
        Some(1),
        "a daemon that lives is not in need of rescue: {told}"
    );
    running.kill();
    let started = Instant::now();
    let (status, told) = bridged.run("rescue", &["--state", &state]);
    assert_eq!(status, Some(0), "{told}");
    assert!(bridged.is_a_bridge());
    bridged.all_reach("after the rescue");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    let left = bridged.world.devices();
    let ours = |device: &&String| device.starts_with("tap") || *device == "uplink0";
    assert_eq!(left.iter().filter(ours).count(), 0, "{left:?}");
}

pub(crate) fn a_node_that_never_had_a_bridge_is_rescued_too(_: PrivateNet) {
    let world = World::kubenet();
    let running = world.start();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let (_, to_b) = (a.added(&running), b.added(&running));
    running.kill();
    let state = world.path("state").display().to_string();
    let (status, told) = world.run(&["rescue", "--state", &state]);
    assert_eq!(status, Some(0), "{told}");
    assert_eq!(a.pings(to_b.ips[0].address.addr()).received(), 3);
}
