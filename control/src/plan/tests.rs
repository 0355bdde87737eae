//! The plan's numbers, and what it refuses.
//!
//! In: the built-in documents, changed. Out: addresses, pod CIDRs, routes, or faults.
//! Never: a test of aks-engine's own rules; see `model/tests.rs`.

mod dual_stack;
mod tables;

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::model::examples::{AKS, AKS_VNET, REGISTER};

/// The built-in documents with changes.
fn options(model: &[(&str, &str)], vnet: &[(&str, &str)]) -> LoadOptions {
    LoadOptions {
        model: Source::BuiltIn {
            name: "aks.json",
            text: change(AKS, model),
        },
        vnet: Some(Source::BuiltIn {
            name: "aks-vnet.json",
            text: change(AKS_VNET, vnet),
        }),
        ..LoadOptions::built_in()
    }
}

/// A document with changes, which lives for the whole test run.
fn change(text: &str, changes: &[(&str, &str)]) -> &'static str {
    let changed = changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from} is in the document");
        text.replacen(from, to, 1)
    });
    Box::leak(changed.into_boxed_str())
}

fn kubenet(options: LoadOptions) -> LoadOptions {
    LoadOptions {
        plugin: Some(Plugin::Kubenet),
        ..options
    }
}

fn faults(options: &LoadOptions) -> Vec<String> {
    load(options)
        .expect_err("a fault")
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn one_fault(options: &LoadOptions) -> String {
    let found = faults(options);
    assert_eq!(found.len(), 1, "{found:#?}");
    found[0].clone()
}

fn warned(plan: &Plan, part: &str) -> bool {
    plan.warnings
        .iter()
        .any(|warning| warning.to_string().contains(part))
}

/// Name, address and pods of every node.
fn nodes(plan: &Plan) -> Vec<String> {
    let pods = |node: &Node| match (&node.pod_ips, node.pod_cidr) {
        (Some(pods), _) => format!("{}-{} {}", pods.first, pods.last, pods.count),
        (_, Some(cidr)) => cidr.to_string(),
        (None, None) => "none".to_owned(),
    };
    plan.nodes
        .iter()
        .map(|node| format!("{} {} {}", node.name, node.primary_ip, pods(node)))
        .collect()
}

const MANY: &str = "\"count\": 2,";

#[test]
fn azure_gives_the_addresses_that_azure_gave() {
    let plan = load(&LoadOptions::built_in()).unwrap();
    assert_eq!(
        nodes(&plan),
        [
            "node-0 10.20.0.4 10.20.0.5-10.20.0.34 30",
            "node-1 10.20.0.35 10.20.0.36-10.20.0.65 30",
            "master-0 10.10.0.5 10.10.0.6-10.10.0.35 30",
        ]
    );
    assert_eq!(plan.plugin, Plugin::Azure);
    assert_eq!(plan.network_mode, Some(NetworkMode::Bridge));
    assert!(plan.routes.is_empty() && !plan.ip_forwarding);
    assert_eq!(
        plan.service_cidrs,
        ["10.0.0.0/16".parse::<IpNet>().unwrap()]
    );
    assert_eq!(
        plan.node("node-1").unwrap().hostname.as_deref(),
        Some("k8s-agentpool1-37464322-vmss000001")
    );
    assert_eq!(plan.node("k8s-master-37464322-0").unwrap().name, "master-0");
    assert!(warned(&plan, "planned for bridge mode"));
}

#[test]
fn kubenet_gives_pod_cidrs_in_the_order_of_registration() {
    let register = REGISTER.map(str::to_owned).to_vec();
    let plan = load(&kubenet(LoadOptions {
        register,
        ..LoadOptions::built_in()
    }))
    .unwrap();
    assert_eq!(
        nodes(&plan),
        [
            "node-0 10.20.0.4 10.244.1.0/24",
            "node-1 10.20.0.5 10.244.0.0/24",
            "master-0 10.10.0.5 10.244.2.0/24",
        ]
    );
    let route = &plan.routes[1];
    assert_eq!(route.prefix.to_string(), "10.244.0.0/24");
    assert_eq!(route.next_hop_ip.unwrap().to_string(), "10.20.0.5");
    assert_eq!(route.next_hop_type, NextHopType::VirtualAppliance);
    assert!(plan.ip_forwarding);
    assert_eq!(
        plan.non_masquerade,
        ["10.244.0.0/16".parse::<IpNet>().unwrap()]
    );
}

#[test]
fn kubenet_registers_agents_then_masters_unless_told() {
    let cidrs = |register: &[&str]| -> Vec<String> {
        let register = register.iter().map(|name| (*name).to_owned()).collect();
        let plan = load(&kubenet(LoadOptions {
            register,
            ..LoadOptions::built_in()
        }))
        .unwrap();
        plan.nodes
            .iter()
            .map(|node| node.pod_cidr.unwrap().to_string())
            .collect()
    };
    assert_eq!(
        cidrs(&[]),
        ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]
    );
    assert_eq!(
        cidrs(&["master-0"]),
        ["10.244.1.0/24", "10.244.2.0/24", "10.244.0.0/24"]
    );
}

#[test]
fn registering_a_stranger_or_twice_is_a_fault() {
    let register = ["node-9", "node-0", "node-0"].map(str::to_owned).to_vec();
    let found = faults(&kubenet(LoadOptions {
        register,
        ..LoadOptions::built_in()
    }));
    assert_eq!(found.len(), 2);
    assert!(found[0].starts_with("--register: node-9: no such node"));
    assert_eq!(found[1], "--register: node-0: given more than once");
}

#[test]
fn kubenet_says_how_to_attach_the_route_table_and_is_silent_once_it_is() {
    let plan = load(&kubenet(LoadOptions::built_in())).unwrap();
    assert!(warned(
        &plan,
        "az network vnet subnet update --resource-group RESOURCE_GROUP --vnet-name aks-vnet \
         --name agent-subnet --route-table k8s-master-37464322-routetable"
    ));
    let table = (
        "\"addressPrefix\"",
        "\"routeTable\": {\"id\": \"x\"}, \"addressPrefix\"",
    );
    let options = kubenet(options(&[], &[table]));
    let plan = load(&options).unwrap();
    assert!(!warned(&plan, "--name master-subnet") && warned(&plan, "--name agent-subnet"));
    assert!(plan.vnet.subnets[0].route_table_attached);
    assert!(!warned(
        &load(&LoadOptions::built_in()).unwrap(),
        "--route-table"
    ));
}

#[test]
fn eight_azure_nodes_fit_into_a_slash_24_and_nine_do_not() {
    let plan = load(&options(&[(MANY, "\"count\": 8,")], &[])).unwrap();
    assert_eq!(
        nodes(&plan)[7],
        "node-7 10.20.0.221 10.20.0.222-10.20.0.251 30"
    );
    assert_eq!(
        one_fault(&options(&[(MANY, "\"count\": 9,")], &[])),
        "aks-vnet.json:28:15: resources[0].properties.subnets[1].properties.addressPrefix: subnet \
         'agent-subnet' 10.20.0.0/24 is too small: 9 nodes need 279 addresses, and it has 251 \
         beside the five that Azure keeps"
    );
}

#[test]
fn without_a_template_the_vnet_is_the_one_of_aks_engine() {
    let plan = load(&LoadOptions {
        vnet: None,
        ..LoadOptions::built_in()
    })
    .unwrap();
    assert_eq!(
        nodes(&plan)[0],
        "node-0 10.240.0.4 10.240.0.5-10.240.0.34 30"
    );
    assert_eq!(
        nodes(&plan)[2],
        "master-0 10.255.255.5 10.255.255.6-10.255.255.35 30"
    );
    let plan = load(&kubenet(LoadOptions {
        vnet: None,
        ..LoadOptions::built_in()
    }))
    .unwrap();
    assert_eq!(nodes(&plan)[2], "master-0 10.240.255.5 10.244.2.0/24");
    assert_eq!(
        plan.nodes[0].subnet_prefix,
        "10.240.0.0/16".parse().unwrap()
    );
    assert!(!warned(&plan, "--route-table"));
}

#[test]
fn a_model_in_a_vnet_of_its_own_asks_for_the_template() {
    let id = "\"vnetSubnetId\": \"/subscriptions/S/resourceGroups/R/providers/\
              Microsoft.Network/virtualNetworks/aks-vnet/subnets/NAME\",";
    let master = format!(
        "\"firstConsecutiveStaticIP\": \"10.10.0.200\", {} \"count\": 1,",
        id.replace("NAME", "master-subnet")
    );
    let agent = format!("{} {MANY}", id.replace("NAME", "Agent-Subnet"));
    let model = [("\"count\": 1,", master.as_str()), (MANY, agent.as_str())];
    let given = options(&model, &[]);
    let plan = load(&given).unwrap();
    assert_eq!(
        nodes(&plan)[2],
        "master-0 10.10.0.200 10.10.0.201-10.10.0.230 30"
    );
    assert_eq!(plan.nodes[0].subnet, "agent-subnet");
    assert!(warned(&plan, "masquerades"));
    let missing = one_fault(&LoadOptions {
        vnet: None,
        ..given.clone()
    });
    assert!(
        missing.contains("give its template with --vnet FILE"),
        "{missing}"
    );
    let renamed = options(&model, &[("\"aks-vnet\"", "\"hub\"")]);
    assert!(one_fault(&renamed).contains("declares no VNet 'aks-vnet'; it declares hub"));
    let renamed = options(&model, &[("\"agent-subnet\"", "\"pods\"")]);
    assert!(one_fault(&renamed).contains("has no subnet 'Agent-Subnet'"));
}

#[test]
fn subnets_that_are_named_for_nobody_are_asked_about() {
    let vnet = [("master-subnet", "one"), ("agent-subnet", "two")];
    let found = faults(&options(&[], &vnet));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].contains("--subnet master=NAME") && found[0].contains("one, two"));
    assert!(found[1].contains("--subnet agentpool1=NAME"));
    let subnets = vec![
        ("master".into(), "one".into()),
        ("agentpool1".into(), "two".into()),
    ];
    let plan = load(&LoadOptions {
        subnets,
        ..options(&[], &vnet)
    })
    .unwrap();
    assert_eq!(
        nodes(&plan)[1],
        "node-1 10.20.0.35 10.20.0.36-10.20.0.65 30"
    );
    let subnets = vec![
        ("worker".into(), "one".into()),
        ("agent".into(), "three".into()),
    ];
    let found = faults(&LoadOptions {
        subnets,
        ..options(&[], &vnet)
    });
    assert!(
        found
            .iter()
            .any(|fault| fault.starts_with("--subnet: worker: no such role"))
    );
    assert!(
        found
            .iter()
            .any(|fault| fault.contains("has no subnet 'three'; it has one, two"))
    );
}

/// A template with the agents' subnet alone.
const SINGLE: (&str, &str) = (
    "{\n            \"name\": \"master-subnet\",\n            \"properties\": {\n              \
     \"addressPrefix\": \"10.10.0.0/24\"\n            }\n          },\n",
    "",
);

#[test]
fn a_single_subnet_serves_masters_and_agents() {
    let vnet = [SINGLE];
    let plan = load(&options(&[], &vnet)).unwrap();
    assert_eq!(
        nodes(&plan),
        [
            "node-0 10.20.0.4 10.20.0.6-10.20.0.35 30",
            "node-1 10.20.0.36 10.20.0.37-10.20.0.66 30",
            "master-0 10.20.0.5 10.20.0.67-10.20.0.96 30",
        ]
    );
    assert!(warned(&plan, "10.20.0.5 is static"));
}

#[test]
fn a_static_address_must_stand_in_the_subnet_and_be_free() {
    let written =
        |address: &str| format!("\"firstConsecutiveStaticIP\": \"{address}\", \"count\": 1,");
    for (address, why) in [
        ("10.20.0.5", "is outside the masters' subnet 10.10.0.0/24"),
        ("10.10.0.3", "is reserved by Azure in 10.10.0.0/24"),
        ("10.10.0.255", "is reserved by Azure in 10.10.0.0/24"),
    ] {
        let fault = one_fault(&options(&[("\"count\": 1,", &written(address))], &[]));
        assert!(
            fault.starts_with("aks.json:16:7: properties.masterProfile.firstConsecutiveStaticIP")
        );
        assert!(fault.ends_with(why), "{fault}");
    }
    let vnet = [SINGLE];
    let low = options(&[("\"count\": 1,", &written("10.20.0.20"))], &vnet);
    assert!(one_fault(&low).contains("10.20.0.20 is static, and among the first 62 addresses"));
    let high = options(&[("\"count\": 1,", &written("10.20.0.239"))], &vnet);
    assert!(load(&high).is_ok());
}

#[test]
fn several_masters_count_up_and_stand_behind_a_load_balancer() {
    let three = "\"firstConsecutiveStaticIP\": \"10.10.0.239\", \"count\": 3,";
    let plan = load(&kubenet(options(&[("\"count\": 1,", three)], &[]))).unwrap();
    assert_eq!(nodes(&plan)[4], "master-2 10.10.0.241 10.244.4.0/24");
    assert_eq!(plan.api_server.unwrap().to_string(), "10.10.0.249");
    let past = "\"firstConsecutiveStaticIP\": \"10.10.0.246\", \"count\": 3,";
    let fault = one_fault(&kubenet(options(&[("\"count\": 1,", past)], &[])));
    assert!(
        fault.contains("10 above 10.10.0.246, past the last octet"),
        "{fault}"
    );
}

#[test]
fn masters_in_a_scale_set_are_dynamic_and_come_first() {
    let set = "\"availabilityProfile\": \"VirtualMachineScaleSets\", \"count\": 3,";
    let plan = load(&LoadOptions {
        vnet: None,
        ..options(&[("\"count\": 1,", set)], &[])
    })
    .unwrap();
    assert_eq!(
        nodes(&plan)[0],
        "node-0 10.248.0.4 10.248.0.5-10.248.0.34 30"
    );
    assert_eq!(
        nodes(&plan)[3],
        "master-1 10.240.0.35 10.240.0.36-10.240.0.65 30"
    );
    assert_eq!(
        plan.nodes[2].hostname.as_deref(),
        Some("k8s-master-37464322-vmss000000")
    );
}

#[test]
fn pod_cidrs_pass_over_the_services_and_run_out() {
    let config = |json: &str| format!("{json}, \"networkPlugin\"");
    let services = config("\"serviceCidr\": \"10.244.0.0/23\", \"dnsServiceIP\": \"10.244.0.10\"");
    let plan = load(&kubenet(options(&[("\"networkPlugin\"", &services)], &[]))).unwrap();
    assert_eq!(plan.nodes[0].pod_cidr.unwrap().to_string(), "10.244.2.0/24");
    assert!(warned(&plan, "passed over"));
    let small = config("\"clusterSubnet\": \"10.244.0.0/23\"");
    let fault = one_fault(&kubenet(options(&[("\"networkPlugin\"", &small)], &[])));
    assert!(fault.ends_with("10.244.0.0/23 holds 2 pod CIDRs of /24; 3 nodes need one each"));
    let tiny = config("\"clusterSubnet\": \"10.244.0.0/25\"");
    let fault = one_fault(&kubenet(options(&[("\"networkPlugin\"", &tiny)], &[])));
    assert!(fault.ends_with("10.244.0.0/25 is smaller than one node's pod CIDR, a /24"));
    // Go masks the bits that a prefix has to spare.
    let spare = config("\"clusterSubnet\": \"10.244.7.9/16\"");
    let plan = load(&kubenet(options(&[("\"networkPlugin\"", &spare)], &[]))).unwrap();
    assert_eq!(plan.nodes[0].pod_cidr.unwrap().to_string(), "10.244.0.0/24");
}

#[test]
fn a_route_table_holds_so_many_routes() {
    let options = kubenet(options(&[(MANY, "\"count\": 200,")], &[]));
    assert!(load(&options).is_ok());
    let fault = one_fault(&LoadOptions {
        route_limit: 200,
        ..options
    });
    assert_eq!(
        fault,
        "aks.json:19:5: properties.agentPoolProfiles: 201 nodes need 201 routes; a route table \
         holds 200 (--route-limit)"
    );
}

#[test]
fn a_vnet_holds_so_many_addresses() {
    let pools = "\"count\": 1000, \"ipAddressCount\": 66,";
    let model = [(MANY, pools)];
    let vnet = LoadOptions {
        vnet: None,
        ..options(&model, &[])
    };
    assert!(one_fault(&vnet).ends_with("the cluster needs 66031 addresses; a VNet holds 65536"));
}

#[test]
fn prefixes_that_hide_each_other_are_faults_and_the_others_are_not() {
    let config = |json: &str| format!("{json}, \"networkPlugin\"");
    for (json, part) in [
        (
            "\"serviceCidr\": \"10.20.0.0/16\", \"dnsServiceIP\": \"10.20.0.10\"",
            "the service CIDR 10.20.0.0/16 overlaps subnet 'agent-subnet' 10.20.0.0/24",
        ),
        (
            "\"clusterSubnet\": \"10.20.0.0/16\"",
            "the cluster subnet 10.20.0.0/16 overlaps subnet 'agent-subnet' 10.20.0.0/24",
        ),
        (
            "\"dockerBridgeSubnet\": \"10.10.0.1/25\"",
            "Docker's bridge 10.10.0.0/25 overlaps subnet 'master-subnet' 10.10.0.0/24",
        ),
        (
            "\"dockerBridgeSubnet\": \"10.244.3.1/24\"",
            "Docker's bridge 10.244.3.0/24 overlaps the cluster subnet 10.244.0.0/16",
        ),
        (
            "\"clusterSubnet\": \"168.63.0.0/16\"",
            "the cluster subnet 168.63.0.0/16 hides 168.63.129.16/32",
        ),
    ] {
        let fault = one_fault(&kubenet(options(
            &[("\"networkPlugin\"", &config(json))],
            &[],
        )));
        assert!(fault.contains(part), "{fault}");
    }
    let wide = (
        "\"10.20.0.0/24\"\n          ]",
        "\"10.20.0.0/16\"\n          ]",
    );
    let inside = config("\"clusterSubnet\": \"10.20.128.0/17\"");
    assert!(
        load(&kubenet(options(
            &[("\"networkPlugin\"", &inside)],
            &[wide]
        )))
        .is_ok()
    );
    let services = config("\"serviceCidr\": \"10.20.64.0/24\", \"dnsServiceIP\": \"10.20.64.10\"");
    let plan = load(&options(&[("\"networkPlugin\"", &services)], &[wide])).unwrap();
    assert!(warned(&plan, "overlaps the VNet's 10.20.0.0/16"));
}

#[test]
fn a_template_is_judged_as_azure_judges_it() {
    let prefix = "\"addressPrefix\": \"10.20.0.0/24\"";
    let path = "resources[0].properties.subnets[1].properties.addressPrefix";
    for (to, message) in [
        (
            "10.30.0.0/24",
            "subnet 'agent-subnet' 10.30.0.0/24 is outside VNet 'aks-vnet' (10.10.0.0/24, 10.20.0.0/24)",
        ),
        ("10.20.0.0", "'10.20.0.0' is not an address prefix"),
        (
            "10.20.0.9/24",
            "10.20.0.9/24 has bits set outside its mask; the prefix is 10.20.0.0/24",
        ),
    ] {
        let to = format!("\"addressPrefix\": \"{to}\"");
        let fault = one_fault(&options(&[], &[(prefix, &to)]));
        assert_eq!(fault, format!("aks-vnet.json:28:15: {path}: {message}"));
    }
    let small = one_fault(&options(
        &[],
        &[(prefix, "\"addressPrefix\": \"10.20.0.0/30\"")],
    ));
    assert!(small.contains("smaller than /29"));
    let twice = faults(&options(
        &[],
        &[(prefix, "\"addressPrefix\": \"10.10.0.0/25\"")],
    ));
    assert!(
        twice[0].contains("overlaps subnet 'master-subnet' 10.10.0.0/24"),
        "{twice:?}"
    );
    for space in [
        "224.0.0.0/8",
        "169.254.0.0/24",
        "168.63.129.0/24",
        "127.0.0.0/24",
    ] {
        let found = faults(&options(
            &[],
            &[(
                "\"10.20.0.0/24\"\n          ]",
                &format!("\"10.20.0.0/24\", \"{space}\"\n          ]"),
            )],
        ));
        assert!(found[0].contains("addressPrefixes[2]"), "{found:?}");
    }
    let other = options(&[], &[("virtualNetworks\"", "natGateways\"")]);
    assert!(one_fault(&other).contains("no resource of type Microsoft.Network/virtualNetworks"));
}

#[test]
fn a_template_may_use_parameters_variables_and_child_resources() {
    let vnet = options(
        &[],
        &[
            (
                "\"parameters\": {  }",
                "\"parameters\": {\"Space\": {\"type\": \"array\", \
          \"defaultValue\": [\"10.10.0.0/24\", \"[variables('pods')]\", \"fd00::/56\"]}}",
            ),
            (
                "\"variables\": {  }",
                "\"variables\": {\"pods\": \"10.20.0.0/24\", \"vnet\": \"aks-vnet\"}",
            ),
            (
                "[\n            \"10.10.0.0/24\",\n            \"10.20.0.0/24\"\n          ]",
                "\"[parameters('space')]\"",
            ),
            (
                "\"resources\": [",
                "\"resources\": [{\"type\": \"Microsoft.Network/routeTables\"}, \
          {\"type\": \"Microsoft.Network/virtualNetworks/subnets\", \
           \"name\": \"[concat(variables('vnet'), '/', 'agent-subnet')]\", \
           \"properties\": {\"addressPrefixes\": [\"[variables('pods')]\", \"fd00::/64\"]}},",
            ),
            (
                ",\n          {\n            \"name\": \"agent-subnet\",\n            \"properties\": {\n              \
          \"addressPrefix\": \"10.20.0.0/24\"\n            }\n          }",
                "",
            ),
        ],
    );
    let plan = load(&vnet).unwrap();
    assert_eq!(
        nodes(&plan)[1],
        "node-1 10.20.0.35 10.20.0.36-10.20.0.65 30"
    );
    let circle = options(
        &[],
        &[
            (
                "\"variables\": {  }",
                "\"variables\": {\"a\": \"[variables('a')]\"}",
            ),
            ("\"10.10.0.0/24\",\n", "\"[variables('a')]\",\n"),
        ],
    );
    assert!(faults(&circle)[0].contains("refers to itself"));
    let asked = options(&[], &[("\"10.10.0.0/24\",\n", "\"[parameters('p')]\",\n")]);
    assert!(faults(&asked)[0].ends_with("the template declares no parameter 'p'"));
}

#[test]
fn faults_of_both_documents_come_together() {
    let found = faults(&options(
        &[("\"count\": 1,", "\"count\": 2,")],
        &[("\"10.10.0.0/24\",\n", "\"10.10.0.0/33\",\n")],
    ));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("aks.json:16:7: properties.masterProfile.count: "));
    assert!(found[1].starts_with("aks-vnet.json:14:13: "));
}

#[test]
fn a_windows_pool_is_planned_and_noted() {
    let windows = [
        ("\"networkPolicy\": \"azure\",", ""),
        (MANY, "\"osType\": \"Windows\", \"count\": 2,"),
    ];
    let plan = load(&options(&windows, &[])).unwrap();
    assert!(plan.nodes[0].windows && !plan.nodes[2].windows);
    assert_eq!(plan.nodes[1].primary_ip.to_string(), "10.20.0.35");
    assert!(warned(&plan, "runs Windows"));
}

#[test]
fn max_pods_and_address_counts_change_what_a_node_takes() {
    let pools = [(
        MANY,
        "\"kubernetesConfig\": {\"kubeletConfig\": {\"--max-pods\": \"10\"}}, \"count\": 2,",
    )];
    let plan = load(&options(&pools, &[])).unwrap();
    assert_eq!(
        nodes(&plan)[1],
        "node-1 10.20.0.15 10.20.0.16-10.20.0.25 10"
    );
    assert_eq!((plan.nodes[0].max_pods, plan.max_pods), (10, 30));
    let pools = [(MANY, "\"ipAddressCount\": 5, \"count\": 2,")];
    let plan = load(&options(&pools, &[])).unwrap();
    assert_eq!(nodes(&plan)[1], "node-1 10.20.0.9 10.20.0.10-10.20.0.13 4");
}

#[test]
fn a_file_that_is_not_there_is_one_fault_in_the_systems_words() {
    let model = Source::Path(PathBuf::from("/nonexistent/aks.json"));
    let fault = one_fault(&LoadOptions::new(model));
    assert_eq!(
        fault,
        "/nonexistent/aks.json: No such file or directory (os error 2)"
    );
}

#[test]
fn an_overlap_is_found_beside_a_fault_of_another_kind() {
    let services =
        "\"serviceCidr\": \"10.20.0.0/16\", \"dnsServiceIP\": \"10.20.0.10\", \"networkPlugin\"";
    let model = [
        ("\"networkPlugin\"", services),
        ("\"count\": 1,", "\"count\": 2,"),
    ];
    let found = faults(&options(&model, &[]));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].contains("overlaps subnet 'agent-subnet'"));
    assert!(found[1].contains("MasterProfile count"));
}

#[test]
fn services_over_all_pods_leave_no_pod_cidr_and_take_no_time() {
    let config = "\"clusterSubnet\": \"11.0.0.0/8\", \"serviceCidr\": \"11.0.0.0/8\", \
                  \"dnsServiceIP\": \"11.0.0.10\", \"controllerManagerConfig\": \
                  {\"--node-cidr-mask-size\": \"30\"}, \"networkPlugin\"";
    let fault = one_fault(&kubenet(options(&[("\"networkPlugin\"", config)], &[])));
    assert!(fault.ends_with("11.0.0.0/8 holds 0 pod CIDRs of /30; 3 nodes need one each"));
}

#[test]
fn a_cluster_subnet_of_the_wrong_family_or_size_is_a_fault() {
    for (plugin, subnet, part) in [
        ("azure", "fc00::/48", "the nodes' subnet has no IPv4 prefix"),
        (
            "kubenet",
            "fc00::/48",
            "the cluster subnet has no IPv4 prefix for pods",
        ),
        ("", "0.0.0.0/32", "smaller than /29"),
        ("", "255.255.255.255/32", "smaller than /29"),
        ("", "192.168.0.0/16", "is outside VNet"),
    ] {
        let config = format!("\"clusterSubnet\": \"{subnet}\", \"networkPlugin\": \"{plugin}\"");
        let model = [
            ("\"networkPlugin\": \"azure\"", config.as_str()),
            ("\"networkPolicy\": \"azure\",", ""),
        ];
        let found = faults(&LoadOptions {
            vnet: None,
            ..options(&model, &[])
        });
        assert!(found.iter().any(|fault| fault.contains(part)), "{found:#?}");
    }
}

#[test]
fn an_ipv6_cluster_is_planned_as_far_as_it_goes_and_says_so() {
    let model = [
        (
            "\"properties\": {",
            "\"properties\": {\"featureFlags\": {\"enableIPv6Only\": true},",
        ),
        ("\"1.10\"", "\"1.18\""),
    ];
    let plan = load(&kubenet(options(&model, &[]))).unwrap();
    assert_eq!(nodes(&plan)[0], "node-0 10.20.0.4 none");
    assert_eq!(
        plan.nodes[2].pod_cidr_v6.unwrap().to_string(),
        "fc00:0:0:2::/64"
    );
    assert!(plan.routes.is_empty() && warned(&plan, "IPv6"));
}

#[test]
fn what_has_no_effect_or_another_one_is_warned_about() {
    let register = vec!["node-1".to_owned()];
    let plan = load(&LoadOptions {
        register,
        ..LoadOptions::built_in()
    })
    .unwrap();
    assert!(warned(&plan, "--register: without effect"));
    let address = "\"firstConsecutiveStaticIP\": \"10.10.0.9\", \"count\": 1,";
    let model = options(&[("\"count\": 1,", address)], &[]);
    let plan = load(&LoadOptions {
        vnet: None,
        ..model
    })
    .unwrap();
    assert_eq!(plan.nodes[2].primary_ip.to_string(), "10.255.255.5");
    assert!(warned(&plan, "firstConsecutiveStaticIP: ignored"));
    let mode = "\"networkMode\": \"transparent\", \"networkPlugin\"";
    let plan = load(&options(&[("\"networkPlugin\"", mode)], &[])).unwrap();
    assert!(warned(&plan, "have no azure0"));
    let mode = "\"networkMode\": \"bridge\", \"networkPlugin\"";
    let plan = load(&options(&[("\"networkPlugin\"", mode)], &[])).unwrap();
    assert!(!warned(&plan, "azure0"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn documents_with_any_piece_replaced_are_planned_or_refused(
        start in 0_usize..1100,
        length in 0_usize..12,
        piece in "[0-9./:,a-z\"-]{0,8}",
        in_model in any::<bool>(),
        plugin in prop::sample::select(vec![None, Some(Plugin::Azure), Some(Plugin::Kubenet)]),
        template in any::<bool>(),
    ) {
        let splice = |text: &'static str, wanted: bool| {
            let start = start.min(text.len());
            let end = (start + length).min(text.len());
            let mut text = text.to_owned();
            if wanted {
                text.replace_range(start..end, &piece);
            }
            &*Box::leak(text.into_boxed_str())
        };
        let model = Source::BuiltIn { name: "m", text: splice(AKS, in_model) };
        let vnet = Source::BuiltIn { name: "v", text: splice(AKS_VNET, !in_model) };
        let options = LoadOptions { plugin, vnet: template.then_some(vnet), ..LoadOptions::new(model) };
        match load(&options) {
            Ok(plan) => {
                let inside = |node: &Node| node.subnet_prefix.contains(&node.primary_ip);
                prop_assert!(plan.nodes.iter().all(inside));
            }
            Err(faults) => prop_assert!(
                faults.len() > 0 && !faults.to_string().contains("cannot be planned"),
                "{faults}"
            ),
        }
    }
}
