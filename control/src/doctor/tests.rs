//! The doctor on nodes that are well and on nodes that are not.
//!
//! In: namespaces that the tests make, and folders that stand for a node's root. Out: findings.
//! Never: reads the machine's own network.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::config;
use crate::devices::DeviceName;
use crate::devices::netlink::link::VethEnd;
use crate::devices::tap::{self, TapSpec};
use crate::plan::{LoadOptions, Plugin, load};

/// A folder that goes when the test does.
struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Root {
        let path =
            std::env::temp_dir().join(format!("tapline-doctor-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Root(path)
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const CAPABLE: &str = "Name:\tx\nCapEff:\t000001ffffffffff\n";

fn config(plugin: Plugin, more: &str) -> NodeConfig {
    let text = format!(
        r#"{{"plugin": "{plugin}", "node": "k8s-agentpool1-37464322-vmss000000",
        "socket": "/nonexistent/tapline.sock", "truth": {{"timeout_ms": 100,
        "pod_cidr": ["10.244.0.0/24"], "wireserver": "http://127.0.0.1:9/", "metadata": "http://127.0.0.1:9/"}}{more}}}"#
    );
    config::parse("tapline.json", text.as_bytes()).unwrap()
}

/// The findings of a node whose namespace `build` has furnished.
fn diagnose(
    root: &Root,
    config: NodeConfig,
    build: impl FnOnce(&Netlink) + Send + 'static,
) -> Vec<Finding> {
    let path = root.0.clone();
    let node = Netns::create("node").expect("the right to make a namespace");
    let inside = node.clone();
    node.run(move || {
        let net = Netlink::open(&inside).unwrap();
        build(&net);
        let plan = load(&LoadOptions {
            plugin: Some(config.plugin),
            ..LoadOptions::built_in()
        })
        .unwrap();
        Ok(examine(&Patient {
            config: &config,
            plan: Some(&plan),
            namespace: &inside,
            root: path,
        }))
    })
    .unwrap()
}

fn name(text: &str) -> DeviceName {
    DeviceName::new(text).unwrap()
}

/// An `eth0` that is up and has an address.
fn eth0(net: &Netlink) {
    let end = |text: &str| VethEnd {
        name: name(text),
        mac: None,
    };
    net.add_veth(&end("eth0"), &end("far"), net.namespace(), 1500)
        .unwrap();
    for device in ["eth0", "far", "lo"] {
        net.set_up(&name(device), true).unwrap();
    }
    net.add_address(&name("eth0"), "10.20.0.4/24".parse().unwrap())
        .unwrap();
    sysctl_on(net.namespace());
}

fn sysctl_on(namespace: &Netns) {
    crate::devices::sysctl::set_ip_forward(namespace, true).unwrap();
}

fn states(findings: &[Finding], name: &str) -> Vec<State> {
    let of_name = findings.iter().filter(|finding| finding.name == name);
    of_name.map(|finding| finding.state).collect()
}

#[test]
fn a_node_that_is_ready_has_nothing_bad_and_every_other_finding_a_next_step() {
    let root = Root::new("well");
    root.file("proc/self/status", CAPABLE);
    root.file(
        "etc/cni/net.d/10-tapline.conflist",
        r#"{"name": "kubenet", "plugins": [{"type": "tapline-cni"}, {"type": "portmap"}]}"#,
    );
    let more =
        r#", "policy": "none", "plan": {"addresses": ["10.20.0.4"], "pods": ["10.244.0.0/24"]}"#;
    let found = diagnose(&root, config(Plugin::Kubenet, more), eth0);
    let bad: Vec<&Finding> = found.iter().filter(|f| f.state == State::Bad).collect();
    assert_eq!(bad, Vec::<&Finding>::new());
    for finding in &found {
        assert_eq!(
            finding.next.is_none(),
            finding.state == State::Good,
            "{finding:?}"
        );
    }
    for good in [
        "uplink",
        "mtu",
        "host_port",
        "truth",
        "plan",
        "cni",
        "policy",
        "ip_forward",
        "rights",
        "leftovers",
        "tcpdump",
    ] {
        assert_eq!(
            states(&found, good),
            [State::Good],
            "{good}: {}",
            to_text(&found)
        );
    }
    // The only thing amiss is that nobody has started it, and that the documents attach no table.
    assert_eq!(states(&found, "daemon"), [State::Warning]);
    assert_eq!(states(&found, "route_table"), [State::Warning]);
}

/// Each command that the text names is one.
fn assert_commands_exist(text: &str) {
    let commands = <crate::cli::Cli as clap::CommandFactory>::command();
    let words: Vec<&str> = text.split_whitespace().collect();
    for pair in words.windows(2).filter(|pair| pair[0] == "tapline") {
        let word = pair[1].trim_matches(|c: char| !c.is_ascii_lowercase());
        let known = commands.get_subcommands().any(|sub| sub.get_name() == word);
        assert!(
            known || word.is_empty() || ["cbr"].contains(&word),
            "tapline {word}"
        );
    }
}

#[test]
fn every_ill_is_found_and_named() {
    let root = Root::new("ill");
    root.file("proc/self/status", "CapEff:\t0000000000000000\n");
    root.file("proc/sys/net/bridge/bridge-nf-call-iptables", "1\n");
    root.file("proc/4711/comm", "azure-npm\n");
    root.file(
        "etc/cni/net.d/10-azure.conflist",
        r#"{"plugins": [{"type": "azure-vnet"}]}"#,
    );
    root.file(
        "etc/cni/net.d/20-tapline.conflist",
        r#"{"plugins": [{"type": "tapline-cni"}, {"type": "bandwidth"}]}"#,
    );
    root.file("var/run/azure-vnet.json", "{}");
    root.file("var/lib/cni/networks/kubenet/10.244.0.9", "abc\neth0");
    root.file(
        "var/lib/cni/networks/kubenet/last_reserved_ip.0",
        "10.244.0.9",
    );
    root.file("run/systemd/netif/leases/2", "");
    let more = r#", "policy": "none", "workers": 2, "pods": {"mtu": 9000}, "plan": {"pods": ["10.244.7.0/24"]}"#;
    let found = diagnose(&root, config(Plugin::Kubenet, more), |net| {
        eth0(net);
        crate::devices::sysctl::set_ip_forward(net.namespace(), false).unwrap();
        net.add_bridge(&name("cbr0")).unwrap();
        tap::ensure(net, &TapSpec::new(name("tap0"), 1500)).unwrap();
        net.set_alias(&name("tap0"), "tapline cbr0 default/pod-a 10.244.0.9")
            .unwrap();
        net.ensure_clsact(&name("eth0")).unwrap();
        net.drop_all(&name("eth0")).unwrap();
    });
    let text = to_text(&found);
    for (name, wanted) in [
        ("rights", &[State::Warning][..]),
        ("policy", &[State::Bad]),
        ("cni", &[State::Bad]),
        ("bandwidth", &[State::Bad]),
        ("other_state", &[State::Warning]),
        ("networkd", &[State::Warning]),
        ("mtu", &[State::Warning]),
        ("host_port", &[State::Bad]),
        ("ip_forward", &[State::Bad]),
        ("leftovers", &[State::Warning]),
        ("filters", &[State::Warning]),
        ("plan", &[State::Warning, State::Warning]),
        ("tcpdump", &[State::Warning]),
    ] {
        assert_eq!(states(&found, name), wanted, "{name}\n{text}");
    }
    for words in [
        "kubenet with 1 addresses",
        "tap0",
        "10-azure.conflist",
        "azure-npm",
        "10.244.7.0/24",
        "-i cbr0 shows no broadcasts: there are several workers",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
    assert_commands_exist(&text);
    let tree = to_json(&found);
    assert_eq!(tree["worst"], "bad");
    assert_eq!(tree["findings"].as_array().unwrap().len(), found.len());
}

#[test]
fn without_an_uplink_or_a_truth_nothing_can_be_attached() {
    let root = Root::new("lone");
    root.file("proc/self/status", CAPABLE);
    let found = diagnose(&root, config(Plugin::Azure, ""), |_| {});
    assert_eq!(states(&found, "uplink"), [State::Bad]);
    assert_eq!(states(&found, "truth"), []);
    let found = diagnose(&root, config(Plugin::Azure, ""), eth0);
    assert_eq!(states(&found, "truth"), [State::Bad]);
    assert_eq!(states(&found, "route_table"), [State::Good]);
}

#[test]
fn a_table_that_nobody_keeps_is_named_with_what_takes_it_away() {
    let root = Root::new("table");
    let found = diagnose(&root, config(Plugin::Azure, ""), |net| {
        eth0(net);
        net.set_table_rules(&name("eth0"), &[]).unwrap();
    });
    let text = to_text(&found);
    assert_eq!(states(&found, "filters"), [State::Warning], "{text}");
    assert!(
        text.contains("table netdev tapline-eth0 at eth0's ingress"),
        "{text}"
    );
    assert_commands_exist(&text);
}

/// Where copies cannot be shown, `tcpdump` still runs, and shows less.
#[test]
fn what_a_listener_is_not_shown_is_said_with_what_shows_it() {
    let root = Root::new("listener");
    let one_queue = config(Plugin::Azure, r#", "policy": "none""#);
    let found = diagnose(&root, one_queue, |net| {
        eth0(net);
        tap::ensure(net, &TapSpec::new(name("copies0"), 1500)).unwrap();
    });
    let mut of_it = found.iter().filter(|finding| finding.name == "tcpdump");
    let finding = of_it.next().unwrap();
    assert_eq!(
        (&*finding.found, finding.next.as_deref(), of_it.next()),
        (
            "-i azure0 shows only what goes to the node's kernel: copies0 is somebody else's device",
            Some(
                "give copies0 another name; meanwhile tapline capture shows every frame, with where \
                 it went and why"
            ),
            None
        )
    );
}
