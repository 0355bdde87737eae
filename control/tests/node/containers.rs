//! Containers on a node: the program `tapline-cni`, the daemon behind it, real devices.
//!
//! In: the right to make namespaces. Out: pods that reach each other, and a node on which nothing
//! is left of those that went.
//! Never: starts the program while the daemon works on an ADD: that is in the same process, and what
//! it has open would be open in the program, too, for the blink between fork and exec.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use control::api::server::{Bound, Limits, Server};
use control::api::types::Key;
use control::compile::NodeSpec;
use control::daemon::node::PodAddresses;
use control::daemon::store::Store;
use control::daemon::systemd::Heirlooms;
use control::daemon::{Core, Daemon, Settings};
use control::devices::netlink::link::VethEnd;
use control::devices::{DeviceName, Netlink, Netns};
use control::ipam::Pool;
use control::lab::placement;
use control::lab::privilege::PrivateNet;
use control::lab::probe::ping::{PingSpec, ping};
use control::plan::{self, LoadOptions, Plugin};
use dataplane::addr::Mac;
use dataplane::tables::guard::Mode;
use serde_json::{Value, json};

use crate::runtime::{Called, call};

fn device(name: &str) -> DeviceName {
    DeviceName::new(name).expect("a device name")
}

/// A node of the seed's cluster with its daemon.
struct Node {
    folder: tempfile::TempDir,
    netns: Netns,
    daemon: Arc<Daemon>,
    plugin: Plugin,
    spec: NodeSpec,
    pool: Pool<Key>,
    server: Option<Server>,
    /// What its `eth0` is joined to.
    _beyond: Netns,
}

impl Node {
    fn new(plugin: Plugin) -> Node {
        let options = LoadOptions {
            plugin: Some(plugin),
            ..LoadOptions::built_in()
        };
        let plan = plan::load(&options).expect("the seed's documents are good");
        let planned = &plan.nodes[0];
        let pool = || placement::pool(&plan, planned).expect("planned");
        let netns = Netns::create("node").expect("namespaces can be made");
        let beyond = Netns::create("beyond").expect("namespaces can be made");
        let net = Netlink::open(&netns).expect("opened");
        let macs = placement::node_macs(&plan, planned);
        let end = |name, mac| VethEnd {
            name: device(name),
            mac,
        };
        net.add_veth(
            &end("eth0", Some(macs.nic.mac())),
            &end("far", None),
            &beyond,
            1500,
        )
        .expect("made");
        let far = Netlink::open(&beyond).expect("opened");
        far.set_up(&device("far"), true).expect("up");
        net.set_up(&device("eth0"), true).expect("up");
        let own = ipnet::Ipv4Net::new(planned.primary_ip, 24).expect("a length");
        net.add_address(&device("eth0"), own.into()).expect("added");
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("state")).expect("a fresh folder");
        let spec = NodeSpec::planned(&plan, planned, macs);
        let core = Core::start(
            spec.clone(),
            Settings::of(plugin),
            pool(),
            Some(store),
            Heirlooms::default(),
            &netns,
        );
        let daemon = Arc::new(Daemon::serving(core.expect("it starts")));
        let user = rustix::process::geteuid().as_raw();
        let bound = Bound::at(&folder.path().join("tapline.sock")).expect("a fresh path");
        let handler = Arc::<Daemon>::clone(&daemon);
        let server = bound.serve(handler, vec![user], Limits::default());
        Node {
            folder,
            netns,
            daemon,
            plugin,
            spec,
            pool: pool(),
            server: Some(server.expect("a thread")),
            _beyond: beyond,
        }
    }

    fn net(&self) -> Netlink {
        Netlink::open(&self.netns).expect("opened")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("tapline.sock")
    }

    fn conf(&self, members: Value) -> Value {
        let mut conf = json!({
            "cniVersion": "1.1.0",
            "name": self.plugin.to_string(),
            "type": "tapline-cni",
            "socket": self.socket(),
        });
        let members = members.as_object().expect("an object").clone();
        conf.as_object_mut().expect("an object").extend(members);
        conf
    }

    fn call(&self, command: &str, container: &Container, conf: &Value) -> Called {
        let variables = [
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", container.id.clone()),
            ("CNI_NETNS", container.netns.path().display().to_string()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", self.folder.path().display().to_string()),
        ];
        call(conf, &variables)
    }

    fn add(&self, container: &Container) -> Value {
        self.call("ADD", container, &self.conf(json!({}))).result()
    }

    /// The daemon ends, and another begins with what it kept.
    fn begin_again(&self) {
        let core = self.daemon.with(|_| ()).map(|()| self.daemon.end());
        let core = core.expect("it serves").expect("it is not another's");
        core.stop().expect("it stops");
        let state = self.folder.path().join("state");
        let core = Core::start(
            self.spec.clone(),
            Settings::of(self.plugin),
            self.pool.clone(),
            Some(Store::open(&state).expect("nobody holds it")),
            Heirlooms::default(),
            &self.netns,
        );
        self.daemon.serve(core.expect("it starts"));
    }

    /// The node says once more what it is.
    fn tell_again(&self) {
        let pods = PodAddresses::Cidrs(self.spec.gateways.clone());
        let (spec, pool) = (self.spec.clone(), self.pool.clone());
        let settings = Settings::of(self.plugin);
        let told = self
            .daemon
            .with(|core| core.reload(spec, settings, &pods, pool));
        told.expect("it serves").expect("it is taken");
    }

    /// An `ipam` plugin that always gives the same address of that network.
    fn fixed_ipam(&self, network: &str) -> Value {
        let ips = format!(r#"[{{"address": "{network}.200/24", "gateway": "{network}.1"}}]"#);
        let script = format!("#!/bin/sh\necho '{{\"cniVersion\": \"1.0.0\", \"ips\": {ips}}}'\n");
        let path = self.folder.path().join(network);
        fs::write(&path, script).expect("the folder is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        json!({"type": network})
    }

    /// The names of its devices, less those that every namespace has.
    fn devices(&self) -> BTreeSet<String> {
        let links = self.net().links().expect("listed");
        let made = links.into_iter().filter(|l| l.kind.is_some());
        let own = |l: &control::devices::netlink::link::Link| {
            matches!(l.kind.as_deref(), Some("veth" | "tun"))
        };
        made.filter(own).map(|l| l.name).collect()
    }

    /// Those that are there with nobody attached.
    fn fixed(&self) -> BTreeSet<String> {
        let host = self.daemon.with(|core| core.settings().host.to_string());
        let host = host.expect("it serves");
        ["eth0".to_owned(), "uplink0".to_owned(), host].into()
    }

    fn attached(&self) -> usize {
        self.daemon
            .with(|core| core.attachments().count())
            .expect("it serves")
    }

    fn nothing_is_left(&self) {
        assert_eq!(self.attached(), 0);
        assert_eq!(self.devices(), self.fixed());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The socket first, so that nobody asks a daemon that ends.
        drop(self.server.take());
    }
}

struct Container {
    id: String,
    netns: Netns,
}

impl Container {
    fn new(id: &str) -> Container {
        Container {
            id: id.into(),
            netns: Netns::create(id).expect("namespaces can be made"),
        }
    }

    fn reaches(&self, address: IpAddr) {
        let spec = PingSpec {
            count: 5,
            interval: Duration::from_millis(5),
            ..PingSpec::to(address)
        };
        let report = ping(&self.netns, &spec).expect("a socket in the container");
        assert_eq!(
            (report.received(), report.ttl()),
            (5, Some(64)),
            "{report:?}"
        );
    }
}

/// The address in a result, without its link.
fn address(result: &Value) -> IpAddr {
    let text = result["ips"][0]["address"].as_str().expect("an address");
    let (address, _) = text.split_once('/').expect("a prefix");
    address.parse().expect("an address")
}

pub(crate) fn containers_come_reach_each_other_are_checked_and_go_in_both_modes(_: PrivateNet) {
    for plugin in [Plugin::Azure, Plugin::Kubenet] {
        let node = Node::new(plugin);
        let [a, b] = ["a", "b"].map(Container::new);
        let (of_a, of_b) = (node.add(&a), node.add(&b));
        a.reaches(address(&of_b));
        b.reaches(address(&of_a));
        for (container, result) in [(&a, &of_a), (&b, &of_b)] {
            let conf = node.conf(json!({"prevResult": result}));
            node.call("CHECK", container, &conf).nothing();
        }
        node.call("STATUS", &a, &node.conf(json!({}))).nothing();

        // The interface is taken: by the same attachment, and by another network's.
        let again = node.call("ADD", &a, &node.conf(json!({})));
        assert_eq!(again.error().0, 100, "{again:?}");
        let other = node.call("ADD", &a, &node.conf(json!({"name": "other"})));
        assert_eq!(other.error().0, 100, "{other:?}");
        a.reaches(address(&of_b));

        for _ in 0..2 {
            node.call("DEL", &a, &node.conf(json!({}))).nothing();
        }
        let inside = Netlink::open(&a.netns).expect("opened");
        assert!(inside.find_link(&device("eth0")).expect("asked").is_none());
        let gone = node.call("CHECK", &a, &node.conf(json!({"prevResult": of_a})));
        assert_eq!(gone.error().0, 3, "{gone:?}");
        // The namespace goes first, as after a reboot.
        drop(b);
        node.call("DEL", &Container::new("b"), &node.conf(json!({})))
            .nothing();
        node.nothing_is_left();
    }
}

pub(crate) fn an_add_that_fails_leaves_nothing_and_gc_takes_what_the_runtime_forgot(_: PrivateNet) {
    let node = Node::new(Plugin::Kubenet);
    let [a, b] = ["a", "b"].map(Container::new);
    for (members, code) in [
        (json!({"mtu": 9000}), 7),
        (json!({"bridge": "br7"}), 7),
        (json!({"vlan": 7}), 2),
        (json!({"runtimeConfig": {"ips": ["10.244.0.1"]}}), 7),
        (json!({"runtimeConfig": {"ips": ["192.0.2.1"]}}), 7),
    ] {
        let called = node.call("ADD", &a, &node.conf(members));
        assert_eq!(called.error().0, code, "{called:?}");
        node.nothing_is_left();
    }
    let own = node.net().addresses(&device("eth0")).expect("asked")[0].addr();
    let own = own.to_string();
    let (own, _) = own.rsplit_once('.').expect("IPv4");
    for (network, force, expected) in [
        (
            "10.99.0",
            false,
            "\"cbr0\" already has an IP address different from 10.99.0.1/24",
        ),
        (own, true, "forceAddress: "),
    ] {
        let mut elsewhere = json!({"isGateway": true, "ipam": node.fixed_ipam(network)});
        elsewhere["forceAddress"] = force.into();
        let called = node.call("ADD", &a, &node.conf(elsewhere));
        let (code, message) = called.error();
        assert!(
            code == 7 && message.starts_with(expected),
            "{code} {message}"
        );
        node.nothing_is_left();
    }
    let here = json!({"isGateway": true, "ipam": node.fixed_ipam("10.244.0")});
    let of_c = node.call("ADD", &a, &node.conf(here)).result();
    assert_eq!(address(&of_c).to_string(), "10.244.0.200");
    node.call("DEL", &a, &node.conf(json!({}))).nothing();
    let (of_a, _) = (node.add(&a), node.add(&b));
    // What the switch of another name had was given, and taken back.
    assert_eq!(address(&of_a).to_string(), "10.244.0.3");
    let taken = json!({"runtimeConfig": {"ips": [address(&of_a)]}});
    let called = node.call("ADD", &Container::new("c"), &node.conf(taken));
    assert_eq!(called.error().0, 101, "{called:?}");
    let valid = json!([{"containerID": "b", "ifname": "eth0"}]);
    let conf = node.conf(json!({"cni.dev/valid-attachments": valid}));
    node.call("GC", &a, &conf).nothing();
    assert_eq!(node.attached(), 1);
    let inside = Netlink::open(&a.netns).expect("opened");
    assert!(inside.find_link(&device("eth0")).expect("asked").is_none());
    node.call("DEL", &b, &node.conf(json!({}))).nothing();
    node.nothing_is_left();
}

/// Whoever is told to replaces the gateway on the host port, as `bridge` does; whoever is not is
/// refused; and an ADD that fails puts it back.
pub(crate) fn force_address_replaces_the_gateway(_: PrivateNet) {
    let node = Node::new(Plugin::Kubenet);
    let [a, b, c] = ["a", "b", "c"].map(Container::new);
    let held = || -> Vec<String> {
        let held = node.net().addresses(&device("cbr0")).expect("asked");
        held.iter().map(ToString::to_string).collect()
    };
    let of_a = node.add(&a);
    assert_eq!(held(), ["10.244.0.1/24"]);
    let forced = |more: Value| {
        let mut conf = node.conf(json!({
            "name": "other", "isDefaultGateway": true, "forceAddress": true,
            "ipam": node.fixed_ipam("10.99.0"),
        }));
        let more = more.as_object().expect("an object").clone();
        conf.as_object_mut().expect("an object").extend(more);
        conf
    };
    // Another port has that MAC: the ADD fails after the gateway was moved.
    let taken = of_a["interfaces"][2]["mac"].clone();
    let called = node.call("ADD", &b, &forced(json!({"runtimeConfig": {"mac": taken}})));
    assert_eq!(called.error().0, 7, "{called:?}");
    assert_eq!((held(), node.attached()), (vec!["10.244.0.1/24".into()], 1));
    a.reaches("10.244.0.1".parse().expect("an address"));

    let of_b = node.call("ADD", &b, &forced(json!({}))).result();
    assert_eq!(held(), ["10.99.0.1/24"]);
    let gateway = "10.99.0.1".parse().expect("an address");
    b.reaches(gateway);
    let checked = forced(json!({"prevResult": of_b}));
    node.call("CHECK", &b, &checked).nothing();
    // Those without the word do not take it back.
    let refused = node.call("ADD", &c, &node.conf(json!({})));
    let (code, message) = refused.error();
    let expected = "\"cbr0\" already has an IP address different from 10.244.0.1/24";
    assert!(code == 7 && message.starts_with(expected), "{message}");

    // A daemon after this one, and the node's own word, leave it.
    node.begin_again();
    assert_eq!(held(), ["10.99.0.1/24"]);
    b.reaches(gateway);
    node.tell_again();
    assert_eq!(held(), ["10.99.0.1/24"]);
    b.reaches(gateway);

    let back = node.conf(json!({"isGateway": true, "forceAddress": true}));
    node.call("ADD", &c, &back).result();
    assert_eq!(held(), ["10.244.0.1/24"]);
    a.reaches("10.244.0.1".parse().expect("an address"));
    for (container, name) in [(&a, "kubenet"), (&b, "other"), (&c, "kubenet")] {
        let conf = node.conf(json!({"name": name}));
        node.call("DEL", container, &conf).nothing();
    }
    node.nothing_is_left();
}

pub(crate) fn what_a_configuration_asks_for_is_on_the_devices(_: PrivateNet) {
    let node = Node::new(Plugin::Kubenet);
    let a = Container::new("a");
    let conf = node.conf(json!({
        "cniVersion": "0.4.0", "isGateway": true, "isDefaultGateway": true, "ipMasq": true,
        "mtu": 1400, "hairpinMode": true,
        "runtimeConfig": {
            "mac": "0a:58:0a:f4:00:77", "ips": ["10.244.0.77"],
            "bandwidth": {"ingressRate": 8000000, "egressRate": 16000000},
        },
    }));
    let result = node.call("ADD", &a, &conf).result();
    assert_eq!(address(&result).to_string(), "10.244.0.77");
    assert_eq!(result["interfaces"][2]["mac"], "0a:58:0a:f4:00:77");
    let inside = Netlink::open(&a.netns).expect("opened");
    let eth0 = inside.link(&device("eth0")).expect("there");
    assert_eq!(eth0.mtu, 1400);
    assert_eq!(eth0.mac.expect("Ethernet").to_string(), "0a:58:0a:f4:00:77");
    let host_end = device(result["interfaces"][1]["name"].as_str().expect("a name"));
    let bucket = node.net().token_bucket(&host_end).expect("asked");
    assert_eq!(bucket.expect("a limit").rate, 1_000_000);
    let mut checked = conf.clone();
    checked["prevResult"] = result;
    node.call("CHECK", &a, &checked).nothing();
    node.net().set_no_queue(&host_end).expect("it is ours");
    let differs = node.call("CHECK", &a, &checked);
    assert_eq!(differs.error().0, 102, "{differs:?}");
    node.call("DEL", &a, &conf).nothing();
    node.nothing_is_left();
}

/// As the flag of a Linux bridge's port: from one such pod to another nothing passes, to the node and
/// to other pods all does.
pub(crate) fn isolated_containers_reach_the_node_and_others_and_not_each_other(_: PrivateNet) {
    let node = Node::new(Plugin::Kubenet);
    let [a, b, c] = ["a", "b", "c"].map(Container::new);
    let apart = node.conf(json!({"portIsolation": true}));
    let [of_a, of_b] = [&a, &b].map(|pod| node.call("ADD", pod, &apart).result());
    let of_c = node.add(&c);
    a.reaches(address(&of_c));
    c.reaches(address(&of_b));
    a.reaches("10.244.0.1".parse().expect("the gateway"));
    for (pod, to) in [(&a, address(&of_b)), (&b, address(&of_a))] {
        let spec = PingSpec {
            count: 1,
            timeout: Duration::from_millis(300),
            ..PingSpec::to(to)
        };
        assert_eq!(ping(&pod.netns, &spec).expect("a socket").received(), 0);
    }
    let isolated = |core: &mut Core| {
        let ports = core.ports().expect("a view").into_iter();
        let drops = core
            .drop_rows()
            .into_iter()
            .find(|row| row.reason == "isolated");
        (
            ports.filter(|row| row.isolated).count(),
            drops.expect("seen").frames,
        )
    };
    let (ports, frames) = node.daemon.with(isolated).expect("it serves");
    assert!(ports == 2 && frames >= 2, "{ports} ports, {frames} frames");
}

/// Where the node's guards are off, a pod whose network asks for it is still held to its own MAC.
pub(crate) fn macspoofchk_holds_a_pod_to_its_own_mac_whatever_the_guards_say(_: PrivateNet) {
    let node = Node::new(Plugin::Kubenet);
    let [a, b] = ["a", "b"].map(Container::new);
    let checked = node.conf(json!({"macspoofchk": true}));
    let of_a = node.call("ADD", &a, &checked).result();
    let of_b = node.add(&b);
    let off = |core: &mut Core| {
        let mut spec = core.spec().clone();
        spec.guards.spoof = Mode::Off;
        let (settings, pods) = (core.settings().clone(), PodAddresses::Cidrs(Vec::new()));
        let pool = Pool::of_pod_cidrs(&[("10.244.0.0/24".parse().expect("a prefix"), None)]);
        core.reload(spec, settings, &pods, pool.expect("a pool"))
    };
    node.daemon.with(off).expect("it serves").expect("it holds");
    for (pod, to, last) in [(&a, &of_b, 1), (&b, &of_a, 2)] {
        let net = Netlink::open(&pod.netns).expect("opened");
        let mac = Mac::new([2, 0, 0, 0, 0, last]);
        net.set_mac(&device("eth0"), mac)
            .expect("a pod may do that");
        let spec = PingSpec {
            count: 1,
            timeout: Duration::from_millis(300),
            ..PingSpec::to(address(to))
        };
        ping(&pod.netns, &spec).expect("a socket");
    }
    let rows = node
        .daemon
        .with(|core| core.guard_rows())
        .expect("it serves");
    let of = |port: usize| {
        let mut rows = rows.iter().filter(|row| row.port == port);
        let row = rows.find(|row| row.guard == "stations").expect("a guard");
        (row.mode.as_str(), row.refused > 0)
    };
    assert_eq!([of(2), of(3)], [("on", true), ("off", false)]);
}
