//! `tapline lab --dual-stack`, run as its users run it: both families of one cluster.
//!
//! In: the built program, and the right to make namespaces as root or in a user namespace.
//! Out: what IPv6 does beside IPv4, read from the JSON. Never: judges speed, or tests IPv4 alone;
//! `lab_walk.rs` does.

mod program;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use program::report::{failed, row, rows};
use program::{Home, Outcome, one_at_a_time};
use serde_json::{Value, json};

/// The walk of the built-in example; made once and looked at by many.
fn outcome() -> &'static Outcome {
    static WALK: OnceLock<Outcome> = OnceLock::new();
    WALK.get_or_init(|| {
        let _turn = one_at_a_time();
        Home::new().run(&["lab", "--dual-stack", "--json"])
    })
}

fn walk() -> Value {
    let mut reports = outcome().reports();
    assert_eq!(reports.len(), 1, "one mode has both families");
    reports.remove(0)
}

/// The pings of one row, by the address pinged.
fn ping_at<'a>(report: &'a Value, from: &str, address: &str) -> &'a Value {
    let found = rows(report, "pings")
        .iter()
        .find(|ping| ping["from"] == from && ping["to_ip"] == address);
    found.unwrap_or_else(|| panic!("{from} did not ping {address}: {report:#}"))
}

#[test]
fn the_walk_of_both_families_ends_well() {
    let report = walk();
    assert_eq!(failed(&report), [] as [&Value; 0]);
    assert_eq!(outcome().status, Some(0), "{}", outcome().stderr);
    assert_eq!(
        json!([report["plugin"], report["dual_stack"], report["ok"]]),
        json!(["kubenet", true, true])
    );
    assert!(
        outcome()
            .stderr
            .contains("[kubenet] pod-a pings pod-c at fc00::7")
    );
}

#[test]
fn each_check_of_ipv4_is_made_of_ipv6_too() {
    let report = walk();
    let names: BTreeSet<&str> = rows(&report, "checks")
        .iter()
        .filter_map(|check| check["name"].as_str())
        .collect();
    let (v6, rest): (BTreeSet<&str>, BTreeSet<&str>) =
        names.iter().partition(|name| name.ends_with("_v6"));
    // The books of a switch, and of the fabric, are kept for all frames together.
    let both: BTreeSet<String> = rest
        .iter()
        .filter(|name| !name.starts_with("conservation_"))
        .map(|name| format!("{name}_v6"))
        .collect();
    assert_eq!(
        v6.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(),
        both
    );
    for name in [
        "crossing",
        "same_node",
        "pod_to_gateway",
        "transfer_crossing",
    ] {
        assert!(
            both.contains(&format!("{name}_v6")),
            "{name} among {both:?}"
        );
    }
}

#[test]
fn nodes_and_pods_have_addresses_and_prefixes_of_both_families() {
    let report = walk();
    let nodes: Vec<Value> = rows(&report, "nodes")
        .iter()
        .map(|n| {
            json!([
                n["name"],
                n["ip"],
                n["pod_cidr"],
                n["ip_v6"],
                n["pod_cidr_v6"]
            ])
        })
        .collect();
    let node_0 = [
        "node-0",
        "10.20.0.4",
        "10.244.1.0/24",
        "2001:db8:10:20::4",
        "fc00:0:0:1::/64",
    ];
    let node_1 = [
        "node-1",
        "10.20.0.5",
        "10.244.0.0/24",
        "2001:db8:10:20::5",
        "fc00::/64",
    ];
    let master = [
        "master-0",
        "10.10.0.5",
        "10.244.2.0/24",
        "2001:db8:10:10::4",
        "fc00:0:0:2::/64",
    ];
    assert_eq!(json!(nodes), json!([node_0, node_1, master]));
    let pod = |name| {
        let pod = row(&report, "pods", "name", name);
        json!([pod["ip"], pod["ip_v6"]])
    };
    assert_eq!(pod("pod-a"), json!(["10.244.1.6", "fc00:0:0:1::6"]));
    assert_eq!(pod("pod-c"), json!(["10.244.0.7", "fc00::7"]));
    for (prefix, next_hop) in [
        ("10.244.0.0/24", "10.20.0.5"),
        ("fc00::/64", "2001:db8:10:20::5"),
        ("fc00:0:0:1::/64", "2001:db8:10:20::4"),
    ] {
        assert_eq!(
            row(&report, "routes", "prefix", prefix)["next_hop"],
            next_hop
        );
    }
}

#[test]
fn the_hop_limit_is_62_across_nodes_and_64_on_one() {
    let report = walk();
    for (from, to, hop_limit) in [
        ("pod-a", "fc00::7", 62),
        ("pod-c", "fc00:0:0:1::6", 62),
        ("pod-a", "fc00:0:0:1::2", 64),
        ("pod-a", "2001:db8:10:20::4", 64),
        ("pod-a", "fc00:0:0:1::1", 64),
        ("node-0", "fc00:0:0:1::6", 64),
        ("node-0", "fc00::7", 63),
        ("pod-a", "10.244.0.7", 62),
        ("pod-a", "10.244.1.2", 64),
    ] {
        let ping = ping_at(&report, from, to);
        assert_eq!(
            json!([ping["sent"], ping["received"], ping["ttl"]]),
            json!([3, 3, hop_limit]),
            "{ping}"
        );
    }
}

#[test]
fn the_crossing_is_seen_in_both_families_with_the_same_macs() {
    let report = walk();
    let seen = |target: &str| -> Vec<Value> {
        rows(&report, "captures")
            .iter()
            .filter(|c| c["to_ip"] == target)
            .map(|c| {
                json!([
                    c["node"],
                    c["point"],
                    c["frames"],
                    c["source_mac"],
                    c["target_mac"],
                    c["ttl"]
                ])
            })
            .collect()
    };
    let (v4, v6) = (seen("10.244.0.7"), seen("fc00::7"));
    assert_eq!(v6, v4, "as IPv4 goes, so goes IPv6");
    let limits: Vec<&Value> = v6.iter().map(|capture| &capture[5]).collect();
    assert_eq!(json!(limits), json!([64, 64, 63, 62, 62, 63]));
    let leaving = json!([
        "node-0",
        "eth0",
        3,
        "00:0d:3a:14:00:04",
        "12:34:56:78:9a:bc",
        63
    ]);
    assert!(v6.contains(&leaving), "{v6:#?}");
    for capture in rows(&report, "captures")
        .iter()
        .filter(|c| c["to_ip"] == "fc00::7")
    {
        assert_eq!(
            json!([capture["source_ip"], capture["target_ip"]]),
            json!(["fc00:0:0:1::6", "fc00::7"])
        );
    }
}

#[test]
fn a_hundred_megabytes_arrive_whole_over_ipv6_in_super_frames() {
    let report = walk();
    let transfers: Vec<Value> = rows(&report, "transfers")
        .iter()
        .map(|t| json!([t["from"], t["to_ip"], t["bytes"], t["whole"]]))
        .collect();
    let sent = |to: &str| json!(["pod-a", to, 100_000_000, true]);
    let targets = ["10.244.1.2", "10.244.0.7", "fc00:0:0:1::2", "fc00::7"];
    assert_eq!(transfers, targets.map(sent));
    for transfer in rows(&report, "transfers") {
        assert!(
            transfer["longest_frame"].as_u64() > Some(1514),
            "{transfer}"
        );
    }
}

#[test]
fn without_its_route_table_both_families_die_on_the_fabric_by_name() {
    let _turn = one_at_a_time();
    let arguments = ["lab", "--dual-stack", "--detach-route-table", "--json"];
    let run = Home::new().run(&arguments);
    assert_eq!(run.status, Some(1), "{}", run.stderr);
    let report = &run.reports()[0];
    // Azure sends 10/8 nowhere of itself; of IPv6 it knows no such prefixes.
    for (check, address, reason) in [
        ("crossing", "10.244.0.7", "route_none"),
        ("crossing_v6", "fc00::7", "internet"),
    ] {
        assert_eq!(ping_at(report, "pod-a", address)["received"], 0);
        assert_eq!(row(report, "drops", "reason", reason)["where"], "fabric");
        let check = row(report, "checks", "name", check);
        let detail = check["detail"].as_str().unwrap_or_default();
        assert!(check["ok"] == false && detail.contains(reason), "{check}");
    }
    assert_eq!(ping_at(report, "pod-a", "fc00:0:0:1::2")["ttl"], 64);
    for books in rows(report, "switches") {
        assert_eq!(books["balanced"], true, "{books}");
    }
}

/// A dual-stack model with ranges of its own, and no VNet: aks-engine makes one.
fn model(plugin: &str, dual_stack: bool) -> String {
    json!({
        "apiVersion": "vlabs",
        "properties": {
            "featureFlags": { "enableIPv6DualStack": dual_stack },
            "orchestratorProfile": {
                "orchestratorType": "Kubernetes",
                "orchestratorRelease": "1.20",
                "kubernetesConfig": {
                    "networkPlugin": plugin,
                    "clusterSubnet": if dual_stack && plugin == "kubenet" {
                        "172.20.0.0/16,fd20:30::/56"
                    } else {
                        "10.240.0.0/12"
                    },
                    "serviceCidr": "192.168.0.0/16",
                    "dnsServiceIP": "192.168.0.10",
                },
            },
            "masterProfile": { "count": 1, "dnsPrefix": "x" },
            "agentPoolProfiles": [
                { "name": "agents", "count": 2, "vmSize": "Standard_D2_v2" },
            ],
        },
    })
    .to_string()
}

#[test]
fn a_model_that_enables_dual_stack_is_walked_in_both_families() {
    let _turn = one_at_a_time();
    let home = Home::new();
    let file = home.file("aks.json", &model("kubenet", true));
    let order = "master-0,node-1,node-0";
    let run = home.run(&["lab", "--json", "--model", &file, "--register", order]);
    assert_eq!(run.status, Some(0), "{}\n{}", run.stderr, run.stdout);
    let report = &run.reports()[0];
    assert_eq!(
        (&report["dual_stack"], failed(report)),
        (&json!(true), vec![])
    );
    let node_1 = row(report, "nodes", "name", "node-1");
    assert_eq!(
        json!([
            node_1["ip"],
            node_1["pod_cidr"],
            node_1["ip_v6"],
            node_1["pod_cidr_v6"]
        ]),
        json!([
            "10.240.0.5",
            "172.20.1.0/24",
            "2001:1234:5678:9abc::5",
            "fd20:30:0:1::/64"
        ])
    );
    // pod-c is the first on node-1, the gateway's neighbour in both families.
    assert_eq!(ping_at(report, "pod-a", "fd20:30:0:1::2")["ttl"], 62);
    assert_eq!(ping_at(report, "pod-a", "172.20.1.2")["ttl"], 62);
}

#[test]
fn under_azure_a_dual_stack_model_is_walked_in_ipv4_and_the_lab_says_so() {
    let _turn = one_at_a_time();
    let home = Home::new();
    let file = home.file("aks.json", &model("azure", true));
    let run = home.run(&["lab", "--json", "--model", &file]);
    let report = &run.reports()[0];
    assert_eq!((run.status, failed(report)), (Some(0), vec![]));
    assert_eq!(report["dual_stack"], false);
    assert!(run.stderr.contains("ipv6nat"), "{}", run.stderr);
    let node = row(report, "nodes", "name", "node-0");
    assert_eq!(
        json!([node["ip_v6"], node["pod_cidr_v6"]]),
        json!(["2001:1234:5678:9abc::4", null]),
        "the node has IPv6, its pods do not"
    );
}

#[test]
fn dual_stack_of_what_has_none_is_refused_and_nothing_is_created() {
    let _turn = one_at_a_time();
    let home = Home::new();
    let single = home.file("single.json", &model("kubenet", false));
    let azure = home.file("azure.json", &model("azure", true));
    for (arguments, expected) in [
        (
            &["lab", "--dual-stack", "--model", &single][..],
            "properties.featureFlags.enableIPv6DualStack: --dual-stack needs a model",
        ),
        (
            &["lab", "--dual-stack", "--model", &azure],
            "under kubenet only",
        ),
        (
            &["lab", "--dual-stack", "--plugin", "azure"],
            "under kubenet only",
        ),
        (&["lab", "--dual-stack=yes"], "--dual-stack"),
    ] {
        let run = home.run(arguments);
        assert_eq!(
            (run.status, run.stdout.as_str()),
            (Some(2), ""),
            "{arguments:?}"
        );
        assert!(
            run.stderr.contains(expected),
            "{arguments:?}: {}",
            run.stderr
        );
        assert_eq!((home.processes(), home.state_files()), (vec![], vec![]));
    }
}

#[test]
fn two_workers_walk_both_families() {
    let _turn = one_at_a_time();
    let run = Home::new().run(&["lab", "--dual-stack", "--workers", "2", "--json"]);
    let report = &run.reports()[0];
    assert_eq!((run.status, failed(report)), (Some(0), vec![]));
    assert_eq!(ping_at(report, "pod-a", "fc00::7")["ttl"], 62);
}
