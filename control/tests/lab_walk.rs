//! `tapline lab --json`, run as its users run it: the seed's clusters, and models of our own.
//!
//! In: the built program, and the right to make namespaces as root or in a user namespace.
//! Out: the values that the seed document shows, read from the JSON.
//! Never: judges speed.

mod program;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use program::report::{failed, ping, row, rows};
use program::{Home, Outcome, one_at_a_time};
use serde_json::{Value, json};

/// The seed's walk, both modes; made once and looked at by many.
fn seed() -> &'static Outcome {
    static WALK: OnceLock<Outcome> = OnceLock::new();
    WALK.get_or_init(|| {
        let _turn = one_at_a_time();
        Home::new().run(&["lab", "--json"])
    })
}

fn mode(plugin: &str) -> Value {
    let reports = seed().reports();
    let mut of_plugin = reports.into_iter().filter(|r| r["plugin"] == plugin);
    of_plugin.next().expect("both modes were walked")
}

fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}

#[test]
fn the_walk_ends_well_with_json_alone_on_standard_output() {
    let walk = seed();
    assert_eq!(walk.status, Some(0), "{}", walk.stderr);
    assert_eq!(walk.reports().len(), 2);
    for report in walk.reports() {
        assert_eq!((report["ok"] == true, failed(&report)), (true, vec![]));
        assert_eq!(report["policy"], "none");
    }
    for mode in ["azure", "kubenet"] {
        assert!(walk.stderr.contains(&format!("[{mode}] policy: none")));
    }
    assert!(
        walk.stderr
            .contains("[azure] pod-a pings pod-c at 10.20.0.43")
    );
    assert!(!walk.stderr.contains('\x1b'), "no colour: nobody watches");
}

#[test]
fn azure_has_the_seeds_addresses_and_a_ttl_of_64_everywhere() {
    let report = mode("azure");
    let nodes: Vec<Value> = rows(&report, "nodes")
        .iter()
        .map(|node| json!([node["name"], node["ip"], node["pod_cidr"]]))
        .collect();
    assert_eq!(
        nodes,
        [
            json!(["node-0", "10.20.0.4", null]),
            json!(["node-1", "10.20.0.35", null]),
            json!(["master-0", "10.10.0.5", null]),
        ]
    );
    assert_eq!(row(&report, "pods", "name", "pod-a")["ip"], "10.20.0.31");
    assert_eq!(row(&report, "pods", "name", "pod-c")["ip"], "10.20.0.43");
    for (from, to) in [
        ("pod-a", "pod-c"),
        ("pod-c", "pod-a"),
        ("pod-a", "pod-b"),
        ("pod-a", "node-0"),
        ("node-0", "pod-a"),
        ("pod-a", "master-0"),
    ] {
        let ping = ping(&report, from, to);
        assert_eq!(ping["ttl"], 64, "{ping}");
        assert_eq!(ping["received"], ping["sent"], "{ping}");
    }
    assert_eq!(rows(&report, "routes"), &[] as &[Value]);
}

#[test]
fn azure_shows_one_pair_of_addresses_at_every_point_and_the_nics_mac_at_eth0() {
    let report = mode("azure");
    let captures = rows(&report, "captures");
    assert_eq!(captures.len(), 6);
    for capture in captures {
        assert_eq!(capture["source_ip"], "10.20.0.31", "{capture}");
        assert_eq!(capture["target_ip"], "10.20.0.43", "{capture}");
        assert_eq!(
            (&capture["frames"], &capture["ttl"]),
            (&json!(3), &json!(64))
        );
    }
    let points: BTreeSet<String> = captures
        .iter()
        .map(|c| format!("{} {}", c["node"], c["point"]))
        .collect();
    assert_eq!(
        points.len(),
        6,
        "three points on each of two nodes: {points:?}"
    );
    let leaving = captures
        .iter()
        .find(|c| c["node"] == "node-0" && c["point"] == "eth0");
    let leaving = leaving.expect("eth0 of node-0 is one of them");
    assert_eq!(leaving["source_mac"], "00:0d:3a:14:00:04");
    assert_eq!(leaving["target_mac"], "12:34:56:78:9a:bc");
}

#[test]
fn kubenet_has_the_seeds_pod_cidrs_and_a_ttl_of_62_across_nodes() {
    let report = mode("kubenet");
    let node = |name| {
        let node = row(&report, "nodes", "name", name);
        json!([node["ip"], node["pod_cidr"]])
    };
    assert_eq!(node("node-0"), json!(["10.20.0.4", "10.244.1.0/24"]));
    assert_eq!(node("node-1"), json!(["10.20.0.5", "10.244.0.0/24"]));
    assert_eq!(row(&report, "pods", "name", "pod-a")["ip"], "10.244.1.6");
    assert_eq!(row(&report, "pods", "name", "pod-c")["ip"], "10.244.0.7");
    assert_eq!(ping(&report, "pod-a", "pod-c")["ttl"], 62);
    assert_eq!(ping(&report, "pod-c", "pod-a")["ttl"], 62);
    assert_eq!(ping(&report, "pod-a", "pod-b")["ttl"], 64);
    let route = row(&report, "routes", "prefix", "10.244.0.0/24");
    assert_eq!(route["next_hop"], "10.20.0.5");
    // Each node takes one hop: 64 at the pod, 63 between the nodes, 62 at the other pod.
    let ttls: Vec<Vec<Value>> = ["node-0", "node-1"]
        .iter()
        .map(|node| {
            ["bridge", "eth0"]
                .iter()
                .map(|point| {
                    let here = |c: &&Value| c["node"] == *node && c["point"] == *point;
                    rows(&report, "captures")
                        .iter()
                        .find(here)
                        .expect("captured")["ttl"]
                        .clone()
                })
                .collect()
        })
        .collect();
    assert_eq!(json!(ttls), json!([[64, 63], [62, 63]]));
}

#[test]
fn a_traceroute_meets_the_routers_of_each_mode_and_packets_of_the_planned_mtu_arrive() {
    for (plugin, way) in [
        ("azure", "10.20.0.43"),
        ("kubenet", "10.244.1.1, 10.20.0.5, 10.244.0.7"),
    ] {
        let report = mode(plugin);
        let hops = row(&report, "checks", "name", "hops");
        assert_eq!(hops["ok"], true, "{hops}");
        assert_eq!(hops["detail"], format!("pod-a to pod-c: {way}"));
        let mtu = row(&report, "checks", "name", "path_mtu");
        let detail = mtu["detail"].as_str().expect("text");
        assert!(detail.contains("longest packet 1500 bytes;"), "{mtu}");
    }
}

#[test]
fn a_hundred_megabytes_arrive_whole_in_super_frames_in_both_modes() {
    for report in seed().reports() {
        let pairs: Vec<Value> = rows(&report, "transfers")
            .iter()
            .map(|t| json!([t["from"], t["to"], t["bytes"], t["whole"]]))
            .collect();
        assert_eq!(
            pairs,
            [
                json!(["pod-a", "pod-b", 100_000_000, true]),
                json!(["pod-a", "pod-c", 100_000_000, true]),
            ]
        );
        for transfer in rows(&report, "transfers") {
            let longest = transfer["longest_frame"].as_u64().expect("a number");
            assert!(longest > 1514, "{transfer}");
            assert_eq!(transfer["sha256"].as_str().map(str::len), Some(64));
        }
        let node_0 = row(&report, "switches", "node", "node-0");
        assert!(node_0["super_frames"].as_u64() > Some(0), "{node_0}");
    }
}

#[test]
fn every_switch_accounts_for_every_frame() {
    for report in seed().reports() {
        assert_eq!(rows(&report, "switches").len(), 3);
        for books in rows(&report, "switches") {
            let sum = |names: &[&str]| -> u64 {
                names
                    .iter()
                    .map(|n| books[n].as_u64().expect("a count"))
                    .sum()
            };
            let entered = sum(&["received", "originated", "copied"]);
            let left = sum(&["transmitted", "dropped", "punted", "queued"]);
            assert_eq!(
                (entered, &books["balanced"]),
                (left, &json!(true)),
                "{books}"
            );
        }
    }
}

#[test]
fn the_json_has_the_keys_that_other_programs_read() {
    for report in seed().reports() {
        let expected: [(&str, &[&str]); 8] = [
            ("nodes", &["name", "ip", "pod_cidr"]),
            ("pods", &["name", "node", "ip"]),
            (
                "pings",
                &["from", "to", "to_ip", "sent", "received", "ttl", "rtt_us"],
            ),
            (
                "captures",
                &[
                    "from",
                    "to",
                    "node",
                    "point",
                    "frames",
                    "source_ip",
                    "target_ip",
                    "source_mac",
                    "target_mac",
                    "ttl",
                ],
            ),
            (
                "transfers",
                &["from", "to", "bytes", "whole", "sha256", "longest_frame"],
            ),
            ("routes", &["prefix", "next_hop"]),
            ("drops", &["where", "reason", "frames"]),
            ("checks", &["name", "ok", "detail"]),
        ];
        for (list, wanted) in expected {
            for row in rows(&report, list) {
                let found = keys(row);
                let absent: Vec<_> = wanted.iter().filter(|key| !found.contains(*key)).collect();
                assert!(absent.is_empty(), "{list} lack {absent:?}: {row}");
            }
        }
        for ping in rows(&report, "pings") {
            assert_eq!(keys(&ping["rtt_us"]), ["min", "avg", "max"]);
            assert!(ping["rtt_us"]["min"].is_f64() && ping["ttl"].is_u64());
        }
        for check in rows(&report, "checks") {
            assert!(check["ok"].is_boolean() && check["detail"].is_string());
        }
        let names: BTreeSet<&str> = rows(&report, "checks")
            .iter()
            .filter_map(|check| check["name"].as_str())
            .collect();
        assert_eq!(
            names.len(),
            rows(&report, "checks").len(),
            "a name is a key"
        );
    }
}

#[test]
fn without_its_route_table_kubenet_fails_and_names_the_fabrics_reason() {
    let _turn = one_at_a_time();
    let arguments = [
        "lab",
        "--plugin",
        "kubenet",
        "--detach-route-table",
        "--json",
    ];
    let run = Home::new().run(&arguments);
    assert_eq!(run.status, Some(1), "{}", run.stderr);
    let report = &run.reports()[0];
    assert_eq!(report["ok"], false);
    let crossing = ping(report, "pod-a", "pod-c");
    assert_eq!(
        json!([crossing["received"], crossing["ttl"], crossing["rtt_us"]]),
        json!([0, null, null])
    );
    let dropped = row(report, "drops", "reason", "route_none");
    assert_eq!(dropped["where"], "fabric");
    let detail = row(report, "checks", "name", "crossing")["detail"].as_str();
    assert!(
        detail.is_some_and(|text| text.contains("route_none")),
        "{detail:?}"
    );
    assert_eq!(
        ping(report, "pod-a", "pod-b")["ttl"],
        64,
        "one node needs no route"
    );
    for books in rows(report, "switches") {
        assert_eq!(books["balanced"], true, "{books}");
    }
    let far = rows(report, "captures")
        .iter()
        .find(|c| c["node"] == "node-1");
    let far = far.expect("captured at both nodes");
    assert_eq!((&far["frames"], &far["ttl"]), (&json!(0), &Value::Null));
    let made = |name: &str| rows(report, "checks").iter().any(|c| c["name"] == name);
    assert!(!made("hops") && !made("path_mtu"), "there is no way");
}

/// A table with the cluster's name: the pods' routes stand in it beside the operator's own.
const QUARANTINE: &str = r#"{
  "type": "Microsoft.Network/routeTables",
  "name": "k8s-master-37464322-routetable",
  "routes": [
    { "name": "quarantine", "addressPrefix": "10.244.0.7/32", "nextHopType": "None" }
  ]
}"#;

#[test]
fn the_operators_route_table_is_obeyed_by_nodes_and_fabric() {
    let _turn = one_at_a_time();
    let home = Home::new();
    let table = home.file("rt.json", QUARANTINE);
    let arguments = [
        "lab",
        "--plugin",
        "kubenet",
        "--route-table",
        &table,
        "--json",
    ];
    let run = home.run(&arguments);
    assert_eq!(run.status, Some(1), "{}", run.stderr);
    let report = &run.reports()[0];
    assert_eq!(ping(report, "pod-a", "pod-c")["received"], 0);
    // What pods send dies in the switch, and what the node's kernel sends dies in the fabric.
    assert_eq!(
        row(report, "drops", "reason", "blackhole")["where"],
        "node-0"
    );
    let in_fabric = row(report, "drops", "reason", "user_route_none");
    assert_eq!(in_fabric["where"], "fabric");
    let check = row(report, "checks", "name", "route_to_the_far_node");
    assert_eq!(
        check["detail"],
        "10.244.0.7 at node-0: user-defined route 10.244.0.7/32 -> None"
    );
    // The provider's routes are in the same table: the other pod of that node is reached.
    assert_eq!(ping(report, "pod-a", "pod-b")["ttl"], 64);
    for books in rows(report, "switches") {
        assert_eq!(books["balanced"], true, "{books}");
    }
}

#[test]
fn a_switch_with_two_workers_walks_the_same() {
    let _turn = one_at_a_time();
    let arguments = ["lab", "--plugin", "kubenet", "--workers", "2", "--json"];
    let run = Home::new().run(&arguments);
    let report = &run.reports()[0];
    assert_eq!((run.status, failed(report)), (Some(0), vec![]));
    assert_eq!(ping(report, "pod-a", "pod-c")["ttl"], 62);
}

/// A model with the parts that matter here; `kubernetes` and `master` are merged in.
fn model(plugin: &str, kubernetes: Value, master: Value, pools: Value) -> String {
    let merged = |mut base: Value, more: Value| {
        let more = more.as_object().expect("an object").clone();
        base.as_object_mut().expect("an object").extend(more);
        base
    };
    json!({
        "apiVersion": "vlabs",
        "properties": {
            "orchestratorProfile": {
                "orchestratorType": "Kubernetes",
                "kubernetesConfig": merged(json!({ "networkPlugin": plugin }), kubernetes),
            },
            "masterProfile": merged(json!({ "count": 1, "dnsPrefix": "x" }), master),
            "agentPoolProfiles": pools,
        },
    })
    .to_string()
}

fn pool(name: &str, count: u32) -> Value {
    json!({ "name": name, "count": count, "vmSize": "Standard_D2_v2" })
}

/// Walks a model, which must hold, and returns its one report.
fn walk_model(text: &str, more: &[&str]) -> Value {
    let _turn = one_at_a_time();
    let home = Home::new();
    let file = home.file("aks.json", text);
    let mut arguments = vec!["lab", "--json", "--model", &file];
    arguments.extend(more);
    let run = home.run(&arguments);
    assert_eq!(run.status, Some(0), "{}\n{}", run.stderr, run.stdout);
    let mut reports = run.reports();
    assert_eq!(reports.len(), 1, "a model is walked in its own mode");
    reports.remove(0)
}

fn addresses(report: &Value) -> Vec<String> {
    let of = |row: &Value| {
        let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
        format!("{} {} {}", text("name"), text("ip"), text("pod_cidr"))
    };
    rows(report, "nodes").iter().map(of).collect()
}

#[test]
fn three_masters_and_two_pools_without_a_vnet_get_aks_engines_own() {
    let pools = json!([pool("small", 1), pool("large", 1)]);
    let report = walk_model(
        &model("azure", json!({}), json!({ "count": 3 }), pools),
        &[],
    );
    assert_eq!(
        addresses(&report),
        [
            "node-0 10.240.0.4 -",
            "node-1 10.240.0.35 -",
            "master-0 10.255.255.5 -",
            "master-1 10.255.255.6 -",
            "master-2 10.255.255.7 -",
        ]
    );
    assert_eq!(ping(&report, "pod-a", "master-0")["ttl"], 64);
}

#[test]
fn a_kubenet_model_with_ranges_of_its_own_is_walked_in_them() {
    let ranges = json!({
        "clusterSubnet": "172.20.0.0/16",
        "serviceCidr": "192.168.0.0/16",
        "dnsServiceIP": "192.168.0.10",
        "networkPolicy": "calico",
    });
    let text = model("kubenet", ranges, json!({}), json!([pool("agents", 2)]));
    let report = walk_model(&text, &["--register", "master-0,node-1,node-0"]);
    assert_eq!(
        addresses(&report),
        [
            "node-0 10.240.0.4 172.20.2.0/24",
            "node-1 10.240.0.5 172.20.1.0/24",
            "master-0 10.240.255.5 172.20.0.0/24",
        ]
    );
    assert_eq!(ping(&report, "pod-a", "pod-c")["ttl"], 62);
    let route = row(&report, "routes", "prefix", "172.20.1.0/24");
    assert_eq!(route["next_hop"], "10.240.0.5");
}

#[test]
fn a_cluster_of_one_agent_is_walked_as_far_as_it_goes() {
    let text = model("kubenet", json!({}), json!({}), json!([pool("only", 1)]));
    let report = walk_model(&text, &[]);
    assert_eq!(ping(&report, "pod-a", "pod-b")["ttl"], 64);
    assert_eq!(ping(&report, "pod-a", "node-0")["ttl"], 64);
}

#[test]
fn few_addresses_and_a_custom_vnet_are_enough() {
    let vnet = json!({
        "resources": [{
            "type": "Microsoft.Network/virtualNetworks",
            "name": "small",
            "properties": {
                "addressSpace": { "addressPrefixes": ["192.168.8.0/22"] },
                "subnets": [
                    { "name": "masters", "properties": { "addressPrefix": "192.168.8.0/28" } },
                    { "name": "agents", "properties": { "addressPrefix": "192.168.9.0/26" } },
                ],
            },
        }],
    });
    let mut agents = pool("agents", 2);
    agents["ipAddressCount"] = json!(4);
    let master = json!({ "ipAddressCount": 1 });
    let settings = json!({ "networkMode": "bridge", "networkPolicy": "azure" });
    let home = Home::new();
    let template = home.file("vnet.json", &vnet.to_string());
    let text = model("azure", settings, master, json!([agents]));
    let subnets = ["--subnet", "master=masters", "--subnet", "agent=agents"];
    let report = walk_model(
        &text,
        &[&["--vnet", template.as_str()][..], &subnets].concat(),
    );
    assert_eq!(addresses(&report)[0], "node-0 192.168.9.4 -");
    assert_eq!(addresses(&report)[1], "node-1 192.168.9.8 -");
    assert_eq!(row(&report, "pods", "name", "pod-c")["ip"], "192.168.9.9");
    assert_eq!(ping(&report, "pod-a", "master-0")["ttl"], 64);
}
