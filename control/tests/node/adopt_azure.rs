//! A bridge `azure0` as the azure plugin builds it, adopted by a daemon and given back.
//!
//! In: an azure node whose NIC hangs on the bridge, with twenty pods and the plugin's own rules for
//! frames. Out: who reaches whom before, meanwhile and after, a session of the node's own that lives,
//! and servers for names that follow the node's address.
//! Never: a rule, device or program outside the test's namespaces; `resolvectl` is a stand-in.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;

use control::api::views::PortRow;
use control::devices::Netlink;
use control::devices::netlink::address::Route;
use control::devices::netlink::bridge::BridgeFacts;
use control::devices::netlink::link::VethEnd;
use control::lab::privilege::PrivateNet;
use control::lab::probe::ping::{PingSpec, ping};
use control::node::standin::{Manners, StandIn};
use dataplane::addr::Mac;
use serde_json::json;

use crate::life::{Load, Stream};
use crate::nft::{self, Chain};
use crate::world::{Pod, Running, World, address, name, until};

const PODS: usize = 20;

/// Somebody beside the nodes whom an operator has told the node of.
const TOLD_OF: (&str, Mac) = ("10.20.0.77", Mac::new([2, 0, 0, 0, 0, 77]));

/// `NUD_PERMANENT`, linux/neighbour.h.
const PERMANENT: u16 = 0x80;

/// Lines of `resolvectl`: it tells and sets what it keeps in a file for each device.
const RESOLVECTL: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "$*" >> asked
what=$1 link=$2
case "$what $#" in
  "dns 2"|"domain 2") printf 'Link 3 (%s): %s\n' "$link" "$(cat "$what.$link" 2>/dev/null)" ;;
  dns*|domain*) shift 2; echo "$*" > "$what.$link" ;;
  revert*) rm -f "dns.$link" "domain.$link" ;;
  *) echo "unknown: $*" >&2; exit 1 ;;
esac
"#;

/// A node as the azure plugin leaves it.
pub(crate) struct Bridged {
    pub(crate) world: World,
    pub(crate) pods: Vec<(Pod, IpAddr)>,
    _wireserver: StandIn,
}

impl Bridged {
    pub(crate) fn new() -> Bridged {
        let world = World::azure();
        let wireserver = world.wireserver(Manners::Good);
        let net = world.net();
        let (bridge, nic) = (name("azure0"), name("eth0"));
        let own = net.addresses(&nic).expect("addresses");
        let own = *own.iter().find(|a| a.addr().is_ipv4()).expect("its own");
        let nic_mac = net.link(&nic).expect("a NIC").mac.expect("a MAC");
        let facts = BridgeFacts {
            ageing: 30_000,
            ..BridgeFacts::default()
        };
        net.add_bridge_as(&bridge, nic_mac, facts).expect("made");
        net.remove_address(&nic, own).expect("it moves");
        net.set_bridge(&nic, &bridge).expect("a port");
        net.set_up(&bridge, true).expect("up");
        net.add_address(&bridge, own).expect("it moves");
        let default = Route {
            to: "0.0.0.0/0".parse().expect("one"),
            via: Some("10.20.0.1".parse().expect("one")),
            source: None,
        };
        net.add_route(&bridge, &default).expect("it moves");
        let (told_of, mac) = (TOLD_OF.0.parse().expect("one"), TOLD_OF.1);
        net.add_neighbour(&bridge, told_of, mac).expect("told");
        let mut bridged = Bridged {
            world,
            pods: Vec::new(),
            _wireserver: wireserver,
        };
        for address in bridged.world.secondary().into_iter().take(PODS) {
            bridged.add(&net, address.into());
        }
        bridged.rules(nic_mac);
        bridged.notes();
        bridged
    }

    fn add(&mut self, net: &Netlink, address: IpAddr) {
        let ordinal = self.pods.len();
        let pod = Pod::new(&format!("container{ordinal}"));
        let inside = Netlink::open(&pod.netns).expect("netlink");
        let end = |text: &str, mac| VethEnd {
            name: name(text),
            mac,
        };
        let here = end(&format!("azv{ordinal:011x}"), None);
        let there = end("eth0", Some(mac_of(ordinal)));
        net.add_veth(&here, &there, &pod.netns, 1500)
            .expect("a veth");
        net.set_bridge(&here.name, &name("azure0")).expect("a port");
        net.set_bridge_port(&here.name, true, false)
            .expect("hairpin");
        net.set_up(&here.name, true).expect("up");
        net.add_neighbour(&name("azure0"), address, mac_of(ordinal))
            .expect("a neighbour");
        inside.set_up(&name("lo"), true).expect("up");
        let own = format!("{address}/24").parse().expect("one");
        inside.add_address(&name("eth0"), own).expect("an address");
        inside.set_up(&name("eth0"), true).expect("up");
        let default = Route {
            to: "0.0.0.0/0".parse().expect("one"),
            via: Some("10.20.0.1".parse().expect("one")),
            source: None,
        };
        inside.add_route(&name("eth0"), &default).expect("a route");
        self.pods.push((pod, address));
    }

    /// What the plugin has `ebtables` do, without which Azure carries no pod's frame: everything
    /// leaves with the NIC's address, answers to ARP are for everybody, and what comes for a pod
    /// finds it by its address.
    fn rules(&self, nic: Mac) {
        let nic = nic.octets();
        let mut arriving = vec![
            [
                nft::came_by("eth0"),
                nft::arp_reply(),
                nft::set_target(Mac::BROADCAST.octets()),
            ]
            .concat(),
        ];
        for (ordinal, (_, address)) in self.pods.iter().enumerate() {
            let IpAddr::V4(address) = address else {
                panic!("azure's are IPv4");
            };
            arriving.push(
                [
                    nft::came_by("eth0"),
                    nft::ethertype(0x0800),
                    nft::to(*address),
                    nft::set_target(mac_of(ordinal).octets()),
                ]
                .concat(),
            );
        }
        let leaving = vec![
            [nft::leaves_by("eth0"), nft::set_source(nic)].concat(),
            [
                nft::leaves_by("eth0"),
                nft::ethertype(0x0806),
                nft::set_arp_sender(nic),
            ]
            .concat(),
        ];
        let chain = |name, hook, rules| Chain {
            name,
            hook: Some(("filter", hook, 0)),
            rules,
        };
        let chains = [
            chain("arriving", nft::PREROUTING, arriving),
            chain("leaving", nft::POSTROUTING, leaving),
        ];
        nft::load_for_bridge(&self.world.node, "azure", &chains);
    }

    /// The plugin's own file of its endpoints.
    fn notes(&self) {
        let endpoint = |(pod, address): &(Pod, IpAddr)| {
            let id = format!("{}-eth0", pod.id);
            let endpoint = json!({
                "Id": id, "IfName": "eth0", "ContainerID": pod.id,
                "IPAddresses": [{"IP": address, "Mask": "////AA=="}],
                "PODName": pod.id, "PODNameSpace": "default",
            });
            (id, endpoint)
        };
        let endpoints: serde_json::Map<_, _> = self.pods.iter().map(endpoint).collect();
        let tree = json!({"Network": {"ExternalInterfaces": {"eth0": {
            "Name": "eth0", "BridgeName": "azure0",
            "Networks": {"azure": {"Id": "azure", "Mode": "bridge", "Endpoints": endpoints}},
        }}}});
        let path = self.world.path("azure-vnet.json");
        std::fs::write(path, tree.to_string()).expect("noted");
    }

    /// systemd-resolved's program, which knows the servers by the bridge.
    fn with_resolvectl(&self) {
        let folder = self.world.path("bin");
        std::fs::create_dir(&folder).expect("made");
        let program = folder.join("resolvectl");
        std::fs::write(&program, RESOLVECTL).expect("written");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&program, mode).expect("ours");
        std::fs::write(folder.join("dns.azure0"), "168.63.129.16\n").expect("written");
        std::fs::write(folder.join("domain.azure0"), "x.internal ~.\n").expect("written");
    }

    fn dns(&self, file: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.world.path("bin").join(file));
        text.ok().map(|text| text.trim().to_owned())
    }

    /// The daemon, which waits beside the bridge.
    pub(crate) fn start(&self) -> Running {
        let mut command = self.world.command();
        let path = std::env::var("PATH").unwrap_or_default();
        let folder = self.world.path("bin");
        command.env("PATH", format!("{}:{path}", folder.display()));
        let running = self.world.spawn(&mut command);
        until("the daemon waits beside the bridge", || {
            let told = running.status().ok().and_then(|status| status.error);
            told.is_some_and(|error| error.message.contains("tapline adopt --bridge azure0"))
        });
        running
    }

    /// Runs a command of the program against the daemon, and gives what it prints.
    pub(crate) fn run(&self, word: &str, more: &[&str]) -> String {
        let path = |name: &str| self.world.path(name).display().to_string();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tapline"));
        command.arg(word).args(["--socket", &path("tapline.sock")]);
        if word != "confirm" {
            command.args(["--azure-endpoints", &path("azure-vnet.json")]);
            command.args(["--azure-addresses", &path("azure-vnet-ipam.json")]);
            command.args(["--networks", &path("networks")]);
        }
        if word == "adopt" {
            command.args(["--bridge", "azure0"]);
            for (pod, _) in &self.pods {
                command.arg("--netns").arg(pod.netns.path());
            }
        }
        command.args(more);
        let output = self.world.node.run(|| command.output()).expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Pods reach each other, their node, the other node and what is beyond; those reach pods.
    fn all_reach(&self, when: &str) {
        let (first, to_first) = &self.pods[0];
        let (last, to_last) = &self.pods[PODS - 1];
        let own = IpAddr::V4(self.world.plan.nodes[0].primary_ip);
        let other = IpAddr::V4(self.world.other);
        let world = &self.world;
        for (who, from, to) in [
            ("pod to pod", &first.netns, *to_last),
            ("pod to its node", &first.netns, own),
            ("pod to the other node", &last.netns, other),
            ("node to pod", &world.node, *to_first),
            ("node to the other node", &world.node, other),
            ("the other node to pod", &world.far, *to_last),
        ] {
            let spec = PingSpec {
                count: 3,
                ..PingSpec::to(to)
            };
            let report = ping(from, &spec).expect("a socket");
            assert_eq!(report.received(), 3, "{when}, {who}: {report:?}");
        }
    }

    /// All of the node that is to be as before, less the order of routes and what the kernel numbers
    /// anew.
    fn shape(&self) -> Vec<String> {
        let net = self.world.net();
        let mut lines = Vec::new();
        for device in net.links().expect("links") {
            let known = name(&device.name);
            if device.name.starts_with("tl-") {
                continue;
            }
            let (addresses, filters) = (net.addresses(&known), net.filters(&known));
            lines.push(format!(
                "{} {:?} {} {:?} {:?} {:?} {:?}",
                device.name,
                device.mac,
                device.mtu,
                device.alias,
                device.controller.is_some(),
                addresses.expect("listed"),
                filters.expect("listed")
            ));
        }
        let by_name = |index: u32| {
            let mut links = net.links().expect("links").into_iter();
            links.find(|link| link.index == index).map(|link| link.name)
        };
        for found in net.routes().expect("routes") {
            lines.push(format!("{:?} by {:?}", found.route, by_name(found.device)));
        }
        for found in net.neighbours().expect("neighbours") {
            // What the kernel has asked for, or would, is its own affair.
            if found.state & PERMANENT != 0 {
                let by = by_name(found.device);
                lines.push(format!("{} is {:?} by {by:?}", found.address, found.mac));
            }
        }
        lines.sort();
        lines
    }
}

fn mac_of(ordinal: usize) -> Mac {
    Mac::new([0xda, 0x11, 0x22, 0x33, 0x44, ordinal as u8])
}

/// Servers and domains that a device has by `resolvectl`.
fn names_by(bridged: &Bridged, device: &str) -> [Option<String>; 2] {
    ["dns", "domain"].map(|what| bridged.dns(&format!("{what}.{device}")))
}

/// Runs a command while the node pings, and tells how many pings that cost.
fn moved(bridged: &Bridged, word: &str) -> String {
    let world = &bridged.world;
    let (told, pings) = world.while_the_node_pings(|| bridged.run(word, &[]));
    let lost = pings.sent - pings.replies.len() as u64;
    println!(
        "{word}: {lost} of {} of the node's own pings lost",
        pings.sent
    );
    told
}

/// The node's addresses and routes are its NIC's, and so are the servers for names.
fn is_the_nics(bridged: &Bridged, servers: &[Option<String>; 2]) {
    let shape = bridged.shape();
    let nic = shape.iter().find(|line| line.starts_with("eth0 "));
    let nic = nic.expect("it is there");
    assert!(
        nic.contains("10.20.0.4/24") && nic.contains(" 1500 "),
        "{nic}"
    );
    let default = shape.iter().find(|line| line.contains("10.20.0.1)"));
    let by_nic = default.is_some_and(|line| line.ends_with("by Some(\"eth0\")"));
    assert!(by_nic, "{shape:?}");
    assert_eq!(names_by(bridged, "eth0"), *servers);
    let (address, mac) = TOLD_OF;
    let told_of = format!("{address} is {:?} by {:?}", Some(mac), Some("eth0"));
    assert!(shape.contains(&told_of), "{shape:?}");
    // The node's way to a pod is the host port, and it asks there.
    let by_bridge = shape.iter().filter(|line| line.contains(" is Some"));
    assert_eq!(by_bridge.count(), 1, "{shape:?}");
    assert_eq!(names_by(bridged, "azure0"), [None, None]);
}

/// A pod comes, and one of the plugin's is known by name.
fn serves(bridged: &Bridged, running: &Running) {
    let ports: Vec<PortRow> = running.client.get("/v1/ports").expect("a view");
    assert_eq!(ports.len(), PODS + 2);
    let noted = ports.iter().any(|row| row.name == "default/container7");
    assert!(noted, "azure-vnet.json names the pods: {ports:?}");
    let fresh = Pod::new("fresh");
    let own = address(&fresh.added(running));
    assert!(bridged.pods.iter().all(|(_, held)| *held != own), "{own}");
    running.client.del(&fresh.del()).expect("it goes again");
}

pub(crate) fn a_bridge_that_holds_the_nic_is_adopted_and_given_back_by_a_daemon(_: PrivateNet) {
    let bridged = Bridged::new();
    bridged.with_resolvectl();
    bridged.all_reach("on the bridge");
    let running = bridged.start();
    let (before, servers) = (bridged.shape(), names_by(&bridged, "azure0"));
    let told = bridged.run("adopt", &["--dry-run"]);
    let dns = "move DNS server 168.63.129.16, domain x.internal and ~. from azure0 to eth0";
    assert!(told.contains(&format!("would  {dns}")), "{told}");
    assert_eq!(bridged.shape(), before, "nothing has moved");
    let world = &bridged.world;
    let own = IpAddr::V4(world.plan.nodes[0].primary_ip);
    let pod = |at: usize| &bridged.pods[at];
    let loads = [
        Load::start(&world.far, &world.node, own),
        Load::start(&pod(3).0.netns, &pod(4).0.netns, pod(4).1),
    ];
    let stream = Stream::start(&pod(1).0, &pod(2).0, pod(2).1);
    let told = moved(&bridged, "adopt");
    assert!(told.contains(&format!("done  {dns}")), "{told}");
    is_the_nics(&bridged, &servers);
    bridged.all_reach("by the switch");
    bridged.run("confirm", &[]);
    serves(&bridged, &running);
    moved(&bridged, "release");
    bridged.all_reach("on the bridge again");
    assert_eq!(names_by(&bridged, "azure0"), servers);
    assert_eq!(names_by(&bridged, "eth0"), [None, None], "it had none");
    assert_eq!(bridged.shape(), before);
    let report = stream.stop();
    println!("pod to pod: {report:?}");
    // A silent pod is known on the bridge again: nothing for it is flooded and comes twice.
    assert!((-50..500).contains(&report.lost), "{report:?}");
    for load in loads {
        let echoed = load.echoed.load(Ordering::Relaxed);
        until("the connection goes on", || {
            load.echoed.load(Ordering::Relaxed) > echoed + 100_000
        });
        load.stop();
    }
    assert_eq!(running.stop(), Some(0));
}

pub(crate) fn a_node_without_a_resolver_of_its_own_says_so_and_is_adopted(_: PrivateNet) {
    let bridged = Bridged::new();
    let running = bridged.start();
    let told = bridged.run("adopt", &["--confirm-within", "1"]);
    let why = "leave DNS as it is: there is no resolvectl on this node";
    // Where the machine that tests has one, nobody runs behind it, which is a reason, too.
    assert!(
        told.contains(why) || told.contains("leave DNS as it is: resolvectl dns azure0"),
        "{told}"
    );
    bridged.all_reach("by the switch");
    until("nobody confirmed", || {
        let link = bridged.world.net().find_link(&name("azure0"));
        link.expect("answers")
            .is_some_and(|link| link.kind.as_deref() == Some("bridge") && link.up)
    });
    until("all of it went back", || {
        running.status().ok().and_then(|s| s.error).is_some()
    });
    bridged.all_reach("on the bridge again");
    let net = bridged.world.net();
    assert_eq!(net.addresses(&name("eth0")).expect("listed"), []);
}

/// The plugin gave it no rules for frames, and so what comes for it goes by the node's kernel.
pub(crate) fn a_pod_that_came_meanwhile_is_reached_after_a_release(_: PrivateNet) {
    let bridged = Bridged::new();
    let running = bridged.start();
    bridged.run("adopt", &["--confirm-within", "0"]);
    let fresh = Pod::new("fresh");
    let own = address(&fresh.added(&running));
    bridged.run("release", &[]);
    bridged.all_reach("on the bridge again");
    let world = &bridged.world;
    let (old, to_old) = &bridged.pods[0];
    let other = IpAddr::V4(world.other);
    for (who, from, to, ttl) in [
        ("to a pod", &fresh.netns, *to_old, 64),
        ("from a pod", &old.netns, own, 64),
        ("to the other node", &fresh.netns, other, 63),
        ("from the other node", &world.far, own, 64),
        ("from its node", &world.node, own, 64),
    ] {
        let spec = PingSpec {
            count: 3,
            ..PingSpec::to(to)
        };
        let report = ping(from, &spec).expect("a socket");
        assert_eq!(report.received(), 3, "{who}: {report:?}");
        let ttls: Vec<u8> = report.replies.iter().map(|reply| reply.ttl).collect();
        assert_eq!(ttls, [ttl; 3], "{who}");
    }
}
