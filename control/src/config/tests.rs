//! The configuration: what is refused, all at once and where; what is filled in; what is written.
//!
//! In: texts. Out: verdicts. Never: touches a file but those in `docs/`.

use std::collections::BTreeSet;
use std::time::Duration;

use dataplane::addr::{Mac, PortId, Station};
use dataplane::bucket::Rate;
use dataplane::switch::Cpu;
use dataplane::tables::guard::{Mode, PortGuard, Rates};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::compile::PodPort;
use crate::compile::guards::Guards;
use crate::devices::DeviceName;
use crate::plan::{self, LoadOptions, Plugin};

const LEAST: &str = r#"{"plugin": "kubenet", "node": "node-0"}"#;

fn faults(text: &str) -> Vec<String> {
    let faults = parse("tapline.json", text.as_bytes()).unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

fn name(text: &str) -> DeviceName {
    DeviceName::new(text).unwrap()
}

#[test]
fn what_is_left_out_has_the_default_that_its_description_names() {
    let kubenet = parse("tapline.json", LEAST.as_bytes()).unwrap();
    let wanted = NodeConfig {
        plugin: Plugin::Kubenet,
        node: "node-0".to_owned(),
        uplink: Uplink {
            device: name("eth0"),
            tap: name("uplink0"),
            mac: None,
            mtu: None,
        },
        host_port: HostPort {
            device: name("cbr0"),
            mac: HostMac::OfGateway,
        },
        pods: Pods {
            mtu: None,
            max: 250,
            bandwidth: true,
        },
        surroundings: Surroundings::default(),
        truth: Truth {
            sources: vec![
                TruthSource::Runtime("/etc/cni/net.d".into()),
                TruthSource::Bridge(name("cbr0")),
            ],
            timeout: Duration::from_secs(2),
            refresh: Duration::from_secs(300),
        },
        expected: None,
        policy: PolicyMode::Auto,
        guards: Guards::default(),
        workers: 1.try_into().unwrap(),
        cpus: Vec::new(),
        spin: Duration::from_micros(50),
        features_off: BTreeSet::new(),
        state_dir: STATE_DIR.into(),
        socket: SOCKET_PATH.into(),
        metrics: None,
        log: LogLevel::Info,
    };
    assert_eq!(kubenet, wanted);

    let text = r#"{"plugin": "azure", "node": "node-0"}"#;
    let azure = parse("tapline.json", text.as_bytes()).unwrap();
    let of_azure = NodeConfig {
        plugin: Plugin::Azure,
        host_port: HostPort {
            device: name("azure0"),
            mac: HostMac::Nic,
        },
        truth: Truth {
            sources: vec![
                TruthSource::Wireserver(crate::node::WIRESERVER_URL.to_owned()),
                TruthSource::Metadata(crate::node::METADATA_URL.to_owned()),
            ],
            ..wanted.truth.clone()
        },
        ..wanted
    };
    assert_eq!(azure, of_azure);
}

/// What is typed of guards is what the ports of a node with these pods get.
#[test]
fn guards_are_what_the_ports_get() {
    let text = r#"{"plugin": "kubenet", "node": "node-0", "guards": {
        "spoof": "observe", "flaps": "off", "storm": "on", "quota": "observe",
        "stations_max": 3, "broadcasts_max": 7,
        "more": [{"pod": "default/pod-a", "macs": ["02:00:00:00:00:09"], "addresses": ["10.9.0.0/24"]}]}}"#;
    let config = parse("tapline.json", text.as_bytes()).unwrap();
    let station = |last| Station::new(Mac::new([2, 0, 0, 0, 0, last])).unwrap();
    let pod = |at: u8, called: &str| PodPort {
        called: vec![called.to_owned(), format!("c{at}")],
        ..PodPort::new(PortId::new(at.into()).unwrap(), station(at), Vec::new())
    };
    let found = config
        .guards
        .of(&[pod(2, "default/pod-a"), pod(3, "default/pod-b")]);
    let of = |at: usize| {
        let mut ports = found.iter();
        ports
            .find(|(port, _)| port.index() == at)
            .map(|(_, guard)| guard)
    };
    let plain = PortGuard {
        stations: Mode::Observe,
        addresses: Mode::Observe,
        flaps: Mode::Off,
        quota: Mode::Observe,
        learned_max: 3,
        rates: Rates {
            broadcast: Rate::per_second(7),
            ..Rates::default()
        },
        ..PortGuard::pod(Mode::Enforce)
    };
    assert_eq!(of(3), Some(&plain));
    let more = PortGuard {
        more_stations: vec![station(9)],
        more_addresses: vec!["10.9.0.0/24".parse().unwrap()],
        ..plain
    };
    assert_eq!(of(2), Some(&more));
    let host = PortGuard {
        flaps: Mode::Off,
        quota: Mode::Observe,
        ..PortGuard::host(Mode::Enforce)
    };
    assert_eq!(of(0), Some(&host));

    let bad = r#"{"plugin": "kubenet", "node": "node-0", "guards": {"stations_max": 0,
        "more": [{"macs": ["01:00:5e:00:00:01"]}, {"pod": "p", "addresses": ["10.9.0.1/24"]}, {"pod": "p"}]}}"#;
    let wanted = [
        "guards.stations_max: expected a whole number from 1 to 1024, found 0",
        "guards.more[0].pod: missing: this key is required",
        "guards.more[0].macs[0]: '01:00:5e:00:00:01' cannot be the MAC of one device",
        "guards.more[1].addresses[0]: '10.9.0.1/24' has host bits; the prefix is 10.9.0.0/24",
        "guards.more[2].pod: p comes twice",
    ];
    let said = faults(bad);
    assert_eq!(said.len(), wanted.len(), "{said:#?}");
    for one in wanted {
        assert!(
            said.iter().any(|fault| fault.ends_with(one)),
            "{one}: {said:#?}"
        );
    }
}

#[test]
fn every_fault_comes_at_once_each_with_its_line_and_path() {
    let text = r#"{
  // the plugin's name is misspelt
  "plugin": "cubenet",
  "node": "Node_0",
  "uplink": {"device": "a/b", "mac": "01:00:5e:00:00:01", "mtu": 575, "speed": 10},
  "host_port": {"device": "uplink0"},
  "pods": {"max": 0, "bandwidth": "yes"},
  "services": ["10.0.0.0/16", 7, "10.0.0.1/16", "10.0.0.0/16"],
  "routes": [
    {"to": "10.244.0.0/24", "via": "the fabric"},
    {"to": "10.244.0.0/24", "via": "fabric"},
    {"to": "10.0.3.0/24", "via": "fabric"},
    {"via": "fe80::1"},
    {"to": "10.244.1.0/24", "via": "fe80::1"},
    {"to": "10.244.1.0/24", "via": "discard"},
  ],
  "truth": {"sources": ["wireserver", "node_object", "wireserver"], "wireserver": "https://x/", "timeout_ms": 1.5},
  "policy": "off",
  "workers": 65, "cpus": [0, 1024, 0],
  "features_off": ["uso", "warp"],
  "state_dir": "var/lib/tapline",
  "metrics": {"listen": "localhost:9469"},
  "log": null,
  "log": "loud",
  "Node": "node-0"
}"#;
    let wanted = "\
tapline.json:3:3: plugin: 'cubenet' is none of: azure, kubenet
tapline.json:4:3: node: 'Node_0' is no name of a node: small letters, digits, '-' and '.', such as k8s-agentpool1-37464322-vmss000000
tapline.json:5:14: uplink.device: 'a/b' cannot be the name of a device: it takes 1 to 15 printable characters without '/' or ':'
tapline.json:5:31: uplink.mac: '01:00:5e:00:00:01' cannot be the MAC of one device
tapline.json:5:59: uplink.mtu: expected a whole number from 576 to 65521, found 575
tapline.json:5:71: uplink.speed: unknown key 'speed'; known here are device, tap, mac, mtu
tapline.json:6:17: host_port.device: uplink0 is named for another purpose as well
tapline.json:7:12: pods.max: expected a whole number from 1 to 1000, found 0
tapline.json:7:22: pods.bandwidth: expected true or false, found text
tapline.json:8:31: services[1]: expected text, found 7
tapline.json:8:34: services[2]: '10.0.0.1/16' has host bits; the prefix is 10.0.0.0/16
tapline.json:8:49: services[3]: 10.0.0.0/16 comes twice
tapline.json:10:29: routes[0].via: 'the fabric' is neither \"fabric\", \"discard\" nor an address
tapline.json:12:6: routes[2].to: 10.0.3.0/24 lies in the services' 10.0.0.0/16
tapline.json:13:5: routes[3].to: missing: this key is required
tapline.json:14:29: routes[4].via: fe80::1 is not of the family of 10.244.1.0/24
tapline.json:15:6: routes[5].to: 10.244.1.0/24 comes twice
tapline.json:17:3: truth.node_object: missing: this key is required
tapline.json:17:39: truth.sources[1]: knows nothing of pods under azure
tapline.json:17:54: truth.sources[2]: comes twice
tapline.json:17:69: truth.wireserver: 'https://x/' does not begin with http://
tapline.json:17:97: truth.timeout_ms: expected a whole number from 10 to 60000, found 1.5
tapline.json:18:3: policy: 'off' is none of: auto, via-host, none
tapline.json:19:3: workers: expected a whole number from 1 to 64, found 65
tapline.json:19:30: cpus[1]: expected a whole number below 1024
tapline.json:19:36: cpus[2]: comes twice
tapline.json:20:27: features_off[1]: 'warp' is none of: multi_queue, io_uring, uso, tcx, nftables, short_slice
tapline.json:21:3: state_dir: 'var/lib/tapline' is not an absolute path
tapline.json:22:15: metrics.listen: 'localhost:9469' is no address and port such as 127.0.0.1:9469
tapline.json:24:3: log: given twice";
    let found = faults(text);
    let known = "Node: unknown key 'Node'; known here are plugin, node, uplink, host_port";
    assert!(
        found.last().is_some_and(|fault| fault.contains(known)),
        "{found:#?}"
    );
    assert_eq!(found[..found.len() - 1].join("\n"), wanted);
}

/// What is typed of processors is where the workers stay.
#[test]
fn a_worker_has_one_processor_or_none_has() {
    let parsed = |more: &str| {
        let text = format!(r#"{{"plugin": "azure", "node": "node-0", {more}}}"#);
        parse("tapline.json", text.as_bytes())
    };
    let two = parsed(r#""workers": 2, "cpus": [3, 1]"#).unwrap();
    assert_eq!(two.cpus, [3, 1].map(|n| Cpu::new(n).unwrap()));
    assert_eq!(crate::daemon::node::settings(&two).cpus, two.cpus);
    for (more, wanted) in [
        (
            r#""workers": 2, "cpus": [3]"#,
            "names 1, and there are 2 workers",
        ),
        (r#""cpus": [3, 1]"#, "names 2, and there are 1 workers"),
    ] {
        let found = parsed(more).unwrap_err().to_string();
        assert!(
            found.contains("cpus: ") && found.contains(wanted),
            "{found}"
        );
    }
    assert!(
        parsed(r#""workers": 2, "cpus": []"#)
            .unwrap()
            .cpus
            .is_empty()
    );
}

#[test]
fn an_empty_file_lacks_what_is_required_and_nothing_else() {
    assert_eq!(
        faults("{ /* nothing yet */ }"),
        [
            "tapline.json:1:1: plugin: missing: this key is required",
            "tapline.json:1:1: node: missing: this key is required",
        ]
    );
}

#[test]
fn a_text_that_is_no_json_is_named_by_its_place_behind_comments() {
    assert_eq!(
        faults("// ä comment\n{\n  \"plugin\": azure\n}"),
        ["tapline.json:3:13: expected value"]
    );
    assert!(faults("{ /* open")[0].starts_with("tapline.json:1:"));
    assert!(faults("[]")[0].ends_with("expected an object, found a list"));
}

#[test]
fn comments_and_trailing_commas_change_nothing() {
    let text = "# by hand\n{\n  \"plugin\": \"kubenet\", // as ever\n  \"node\": /* short */ \"node-0\",\n}";
    let plain = parse("tapline.json", LEAST.as_bytes()).unwrap();
    assert_eq!(parse("tapline.json", text.as_bytes()).unwrap(), plain);
}

/// A file that is written is read back as the plan has it, for every node of every example.
#[test]
fn what_is_written_for_a_node_is_what_the_plan_says() {
    let kubenet = LoadOptions {
        plugin: Some(Plugin::Kubenet),
        ..LoadOptions::built_in()
    };
    for options in [
        LoadOptions::built_in(),
        kubenet,
        LoadOptions::built_in_dual_stack(),
    ] {
        let plan = plan::load(&options).unwrap();
        for node in &plan.nodes {
            let text = for_node(&plan, node, None);
            let config = parse("tapline.json", text.as_bytes()).unwrap();
            assert_eq!(Some(&config.node), node.hostname.as_ref());
            assert_eq!(config.plugin, plan.plugin);
            assert_eq!(config.uplink.mtu, Some(node.mtu));
            assert_eq!(config.surroundings.services, plan.service_cidrs);
            assert_eq!(config.surroundings.via_host, plan.via_host);
            let expected = config.expected.unwrap();
            assert_eq!(expected.addresses[0], node.primary_ip);
            let v4 = |net: &&ipnet::IpNet| net.addr().is_ipv4();
            let pods: Vec<_> = expected.pods.iter().filter(v4).collect();
            let range = node.pod_range();
            assert!(
                pods.iter()
                    .zip(&range)
                    .all(|(a, b)| a.to_string() == b.to_string())
            );
            assert_eq!(pods.len(), range.len());
            assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        }
    }
}

#[test]
fn a_file_written_for_a_kubenet_node_routes_to_the_others_and_not_to_itself() {
    let options = LoadOptions {
        plugin: Some(Plugin::Kubenet),
        ..LoadOptions::built_in()
    };
    let plan = plan::load(&options).unwrap();
    let text = for_node(&plan, &plan.nodes[0], None);
    let config = parse("tapline.json", text.as_bytes()).unwrap();
    let rows: Vec<String> = config
        .surroundings
        .routes
        .iter()
        .map(|row| format!("{} {}", row.to, row.via))
        .collect();
    assert_eq!(rows, ["10.244.1.0/24 10.20.0.5", "10.244.2.0/24 10.10.0.5"]);
}

#[test]
fn every_key_of_a_written_file_is_explained_above_it() {
    let plan = plan::load(&LoadOptions::built_in()).unwrap();
    let text = for_node(&plan, &plan.nodes[0], None);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    for (at, line) in lines
        .iter()
        .enumerate()
        .filter(|(_, l)| l.starts_with('"') && l.contains("\": "))
    {
        assert!(lines[at - 1].starts_with("//"), "{line}");
    }
}

#[test]
fn the_schema_in_the_documents_is_the_one_that_judges() {
    let committed = include_str!("../../../docs/tapline.schema.json");
    assert!(
        committed == schema::text(),
        "write it anew: tapline config --schema > docs/tapline.schema.json"
    );
}

#[test]
fn every_rule_of_the_schema_is_described() {
    fn visit(at: &str, rule: &serde_json::Value, bare: &mut Vec<String>) {
        for (key, rule) in rule
            .get("properties")
            .and_then(|p| p.as_object())
            .into_iter()
            .flatten()
        {
            if rule.get("description").is_none() {
                bare.push(format!("{at}.{key}"));
            }
            visit(key, rule, bare);
        }
    }
    let tree = schema::tree();
    let mut bare = Vec::new();
    visit("", &tree, &mut bare);
    for (name, rule) in tree["$defs"].as_object().unwrap() {
        visit(name, rule, &mut bare);
    }
    assert!(bare.is_empty(), "{bare:?}");
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
        prop_oneof![
            Just("10.0.0.0/8".to_owned()),
            Just("fabric".to_owned()),
            ".{0,20}"
        ]
        .prop_map(|s| json!(s)),
    ];
    let keys = prop_oneof![
        Just("plugin"),
        Just("node"),
        Just("uplink"),
        Just("device"),
        Just("routes"),
        Just("to"),
        Just("via"),
        Just("truth"),
        Just("sources"),
        Just("services"),
        Just("guards"),
        Just("spoof"),
        Just("metrics"),
        Just("listen"),
        Just("notes"),
        Just("features_off"),
        Just("cpus"),
        Just("x"),
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|v| json!(v)),
            prop::collection::vec((keys.clone(), inner), 0..5).prop_map(|members| {
                json!(
                    members
                        .into_iter()
                        .map(|(k, v)| (k.to_owned(), v))
                        .collect::<serde_json::Map<_, _>>()
                )
            }),
        ]
    })
}

proptest! {
    /// Whatever is typed: a configuration or at least one fault, each of which has a line.
    #[test]
    fn any_document_is_judged_without_a_panic(tree in any_json()) {
        if let Err(faults) = parse("tapline.json", tree.to_string().as_bytes()) {
            prop_assert!(faults.iter().all(|fault| fault.line == 1 && fault.column > 0));
        }
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse("tapline.json", &bytes);
    }
}
