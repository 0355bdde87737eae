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
