//! `tapline plan`, run as a program.
//!
//! In: the example documents. Out: exit statuses, and what stands on which stream.
//! Never: a device; planning needs none.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name);
    path.display().to_string()
}

fn plan(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tapline"))
        .arg("plan")
        .args(arguments)
        .output()
        .expect("the program runs")
}

fn seed(arguments: &[&str]) -> Output {
    let (model, vnet) = (example("aks.json"), example("aks-vnet.json"));
    let mut all = vec!["--model", &model, "--vnet", &vnet];
    all.extend(arguments);
    plan(&all)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

fn written(name: &str, content: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).expect("the test's folder is writable");
    path
}

#[test]
fn the_json_stands_alone_on_standard_output() {
    let output = seed(&["--json"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
    let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(plan["network_plugin"], "azure");
    assert_eq!(plan["service_cidr"], "10.0.0.0/16");
    assert_eq!(plan["routes"], serde_json::json!([]));
    let node = &plan["nodes"][1];
    assert_eq!(node["name"], "node-1");
    assert_eq!(node["role"], "agent");
    assert_eq!(node["subnet"], "agent-subnet");
    assert_eq!(node["primary_ip"], "10.20.0.35");
    assert_eq!(node["pod_ips"]["first"], "10.20.0.36");
    assert_eq!(node["pod_ips"]["last"], "10.20.0.65");
    assert_eq!(node["pod_ips"]["count"], 30);
    assert!(node["pod_cidr"].is_null());
    assert_eq!(plan["nodes"][2]["role"], "master");
    assert!(
        plan["warnings"]
            .as_array()
            .expect("a list")
            .iter()
            .all(Value::is_string)
    );
}

#[test]
fn kubenet_prints_pod_cidrs_and_routes() {
    let output = seed(&[
        "--plugin",
        "kubenet",
        "--register",
        "node-1,node-0,master-0",
        "--json",
    ]);
    let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(plan["network_plugin"], "kubenet");
    assert_eq!(plan["nodes"][0]["pod_cidr"], "10.244.1.0/24");
    assert!(plan["nodes"][0]["pod_ips"].is_null());
    assert_eq!(
        plan["routes"][1],
        serde_json::json!({
            "name": "node-1",
            "prefix": "10.244.0.0/24",
            "next_hop_type": "VirtualAppliance",
            "next_hop_ip": "10.20.0.5",
        })
    );
}

#[test]
fn the_table_goes_to_standard_output_and_warnings_to_standard_error() {
    let output = seed(&[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("10.20.0.5 - 10.20.0.34 (30)"));
    assert!(!text(&output.stdout).contains("warning"));
    assert!(text(&output.stderr).starts_with("warning: "));
}

#[test]
fn a_faulty_model_is_status_2_with_every_fault_and_an_empty_standard_output() {
    let broken = std::fs::read_to_string(example("aks.json"))
        .expect("the example")
        .replace("\"count\": 1", "\"count\": 2")
        .replace("\"azure\",\n\t", "\"moat\",\n\t");
    let model = written("broken.json", &broken).display().to_string();
    for json in [&["--json"][..], &[]] {
        let mut arguments = vec!["--model", model.as_str()];
        arguments.extend(json);
        let output = plan(&arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        let lines: Vec<&str> = text(&output.stderr).lines().collect();
        assert_eq!(
            lines,
            [
                format!(
                    "{model}:9:9: properties.orchestratorProfile.kubernetesConfig.networkPolicy: \
                     unknown networkPolicy 'moat' specified"
                ),
                format!(
                    "{model}:16:7: properties.masterProfile.count: MasterProfile count needs to \
                     be 1, 3, or 5"
                ),
            ]
        );
    }
}

#[test]
fn broken_json_a_missing_file_and_a_bad_option_are_status_2() {
    let torn = written(
        "torn.json",
        "{\n  \"apiVersion\": \"vlabs\"\n  \"properties\": {}\n}",
    );
    let output = plan(&["--model", torn.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("torn.json:3:3: expected `,` or `}`"));
    let output = plan(&["--model", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        text(&output.stderr),
        "/nonexistent: No such file or directory (os error 2)\n"
    );
    for bad in [
        &["--plugin", "weave"][..],
        &["--subnet", "agent"],
        &["--register", "node-7"],
    ] {
        let output = seed(bad);
        assert_eq!(output.status.code(), Some(2), "{bad:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn the_help_shows_examples_and_exit_statuses() {
    let output = plan(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    assert!(help.contains("--register node-1,node-0,master-0") && help.contains("Exit status"));
}

#[test]
fn the_built_in_dual_stack_example_is_planned_for_both_families() {
    let output = plan(&["--dual-stack", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(plan["dual_stack"], true);
    assert_eq!(plan["cluster_subnet"], "10.244.0.0/16,fc00::/48");
    assert_eq!(plan["service_cidr"], "10.0.0.0/16,fd00::/108");
    let node = &plan["nodes"][1];
    assert_eq!(node["primary_ip_v6"], "2001:db8:10:20::5");
    assert_eq!(node["subnet_prefix_v6"], "2001:db8:10:20::/64");
    assert_eq!(node["pod_cidr_v6"], "fc00:0:0:1::/64");
    assert_eq!(plan["routes"][3]["prefix"], "fc00:0:0:1::/64");
    assert_eq!(plan["routes"][3]["next_hop_ip"], "2001:db8:10:20::5");
    assert_eq!(
        plan["vnet"]["subnets"][1]["prefix_v6"],
        "2001:db8:10:20::/64"
    );
    // The documents in the folder are those that are built in.
    let (model, vnet) = (
        example("aks-dual-stack.json"),
        example("aks-dual-stack-vnet.json"),
    );
    let read = plan_of(&[
        "--model",
        &model,
        "--vnet",
        &vnet,
        "--cluster-id",
        "37464322",
    ]);
    for key in ["nodes", "routes", "vnet"] {
        assert_eq!(read[key], plan[key], "{key}");
    }
}

fn plan_of(arguments: &[&str]) -> Value {
    let output = plan(&[arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_table_shows_both_families_of_a_node() {
    let output = plan(&["--dual-stack"]);
    let table = text(&output.stdout);
    for part in [
        "10.20.0.5, 2001:db8:10:20::5",
        "10.244.1.0/24, fc00:0:0:1::/64",
        "2001:db8:10:20::5  VirtualAppliance",
    ] {
        assert!(table.contains(part), "{part} in\n{table}");
    }
}

#[test]
fn dual_stack_with_a_model_that_does_not_enable_it_is_refused() {
    let output = seed(&["--dual-stack"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    let fault = text(&output.stderr);
    assert!(
        fault.contains("aks.json:3:3: properties.featureFlags.enableIPv6DualStack: ")
            && fault.contains("1.18 or newer"),
        "{fault}"
    );
}

/// What `az network route-table show` prints of the cluster's table, as far as it matters.
const ROUTE_TABLE: &str = include_str!("program/route-table.json");

/// The effective routes of node-0 under [`ROUTE_TABLE`].
fn with_table(more: &[&str]) -> Output {
    let table = written(&format!("rt{}.json", more.concat()), ROUTE_TABLE)
        .display()
        .to_string();
    let mut arguments = vec![
        "--plugin",
        "kubenet",
        "--register",
        "node-1,node-0,master-0",
        "--cluster-id",
        "37464322",
        "--route-table",
        &table,
        "--effective-routes",
        "node-0",
    ];
    arguments.extend(more);
    seed(&arguments)
}

#[test]
fn effective_routes_show_sources_states_and_who_beat_whom() {
    let output = with_table(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    let from = shown.find("Effective routes").expect("a heading");
    let lines: Vec<String> = shown[from..]
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        lines,
        [
            "Effective routes of node-0: subnet agent-subnet, route table \
             k8s-master-37464322-routetable",
            "PREFIX NEXT HOP SOURCE STATE ROUTE REMARK",
            "10.10.0.0/24 VnetLocal system Active -",
            "10.20.0.0/24 VnetLocal system Active -",
            "10.244.0.0/24 VirtualAppliance 10.20.0.5 pods Active \
             k8s-agentpool1-37464322-vmss000001",
            "10.244.1.0/24 VirtualAppliance 10.20.0.4 pods Active \
             k8s-agentpool1-37464322-vmss000000",
            "10.244.2.0/24 VirtualAppliance 10.10.0.5 pods Active k8s-master-37464322-0",
            "192.168.0.0/16 None system Active -",
            "172.16.0.0/12 None system Active -",
            "100.64.0.0/10 None system Active -",
            "10.0.0.0/8 None user-defined Active rest",
            "10.0.0.0/8 None system Invalid - lost to user-defined route 10.0.0.0/8 -> None: \
             preferred for the same prefix",
            "0.0.0.0/0 Internet system Active -",
        ]
    );
}

#[test]
fn effective_routes_are_in_the_json_too() {
    let output = with_table(&["--json"]);
    let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let node = &plan["effective_routes"][0];
    assert_eq!(node["node"], "node-0");
    assert_eq!(node["route_table"], "k8s-master-37464322-routetable");
    assert_eq!(node["route_table_unattached"], Value::Null);
    let rest = serde_json::json!({
        "name": "rest",
        "prefix": "10.0.0.0/8",
        "next_hop_type": "None",
        "next_hop_ip": null,
        "source": "user-defined",
        "azure_source": "User",
    });
    let mut lost = serde_json::json!({
        "name": null,
        "prefix": "10.0.0.0/8",
        "next_hop_type": "None",
        "next_hop_ip": null,
        "source": "system",
        "azure_source": "Default",
        "state": "Invalid",
        "why": "preferred for the same prefix",
        "caveat": null,
    });
    lost["lost_to"] = rest;
    assert_eq!(node["routes"][9], lost);
}

#[test]
fn effective_routes_of_every_node_say_which_subnet_lacks_the_table() {
    let output = seed(&["--plugin", "kubenet", "--json", "--effective-routes"]);
    let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let nodes = plan["effective_routes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 3);
    for node in nodes {
        assert_eq!(node["route_table"], Value::Null);
        assert_eq!(
            node["route_table_unattached"],
            "k8s-master-CLUSTER_ID-routetable"
        );
    }
    let output = seed(&["--plugin", "kubenet", "--effective-routes", "master-0"]);
    assert!(text(&output.stdout).ends_with(
        "Route table k8s-master-CLUSTER_ID-routetable is not attached to subnet master-subnet: \
         none of its 3 routes counts here.\n"
    ));
}

#[test]
fn a_route_table_at_fault_is_status_2_with_every_fault() {
    let broken = ROUTE_TABLE
        .replace("10.0.0.0/8", "10.1.0.0/8")
        .replace("\"None\"", "\"Void\"");
    let table = written("rt-broken.json", &broken).display().to_string();
    let output = seed(&["--route-table", &table]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let lines: Vec<&str> = text(&output.stderr).lines().collect();
    assert_eq!(
        lines,
        [
            format!(
                "{table}:6:7: routes[0].addressPrefix: 10.1.0.0/8 has bits set outside its mask; \
                 the prefix is 10.0.0.0/8"
            ),
            format!(
                "{table}:9:7: routes[0].nextHopType: unknown nextHopType 'Void': one of \
                 VirtualAppliance, VirtualNetworkGateway, VnetLocal, Internet, None"
            ),
        ]
    );
    for (arguments, message) in [
        (
            &["--route-table", &example("aks-vnet.json")][..],
            "no resource of type Microsoft.Network/routeTables; the template has \
             Microsoft.Network/virtualNetworks",
        ),
        (
            &["--effective-routes", "node-7"],
            "--effective-routes: node-7: no such node; there are node-0, node-1, master-0",
        ),
    ] {
        let output = seed(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
        assert!(
            text(&output.stderr).contains(message),
            "{}",
            text(&output.stderr)
        );
    }
}
