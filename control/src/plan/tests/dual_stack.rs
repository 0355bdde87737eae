//! Dual stack: what the plan adds for IPv6, and what it refuses.
//!
//! In: the built-in dual-stack documents, changed. Out: addresses, prefixes and routes of both
//! families, or faults. Never: IPv4 alone; that is in the file above.

use super::*;
use crate::model::examples::{AKS_DUAL_STACK, AKS_DUAL_STACK_VNET};

/// The built-in dual-stack documents with changes.
fn dual(model: &[(&str, &str)], vnet: &[(&str, &str)]) -> LoadOptions {
    LoadOptions {
        model: Source::BuiltIn {
            name: "dual.json",
            text: change(AKS_DUAL_STACK, model),
        },
        vnet: Some(Source::BuiltIn {
            name: "dual-vnet.json",
            text: change(AKS_DUAL_STACK_VNET, vnet),
        }),
        ..LoadOptions::built_in_dual_stack()
    }
}

/// Name, address, subnet and pods' prefix of every node, all of IPv6.
fn nodes_v6(plan: &Plan) -> Vec<String> {
    let text = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    plan.nodes
        .iter()
        .map(|node| {
            format!(
                "{} {} {} {}",
                node.name,
                text(node.primary_ip_v6.map(|address| address.to_string())),
                text(node.subnet_prefix_v6.map(|net| net.to_string())),
                text(node.pod_cidr_v6.map(|net| net.to_string())),
            )
        })
        .collect()
}

fn routes(plan: &Plan) -> Vec<String> {
    plan.routes
        .iter()
        .map(|route| {
            let hop = route.next_hop_ip.expect("a node");
            format!("{} {} {hop}", route.name, route.prefix)
        })
        .collect()
}

const SCALE_SET: [(&str, &str); 2] = [
    (
        "\"count\": 1,",
        "\"count\": 1, \"availabilityProfile\": \"VirtualMachineScaleSets\",",
    ),
    ("\"1.18\"", "\"1.20\""),
];

#[test]
fn every_node_has_addresses_pods_and_routes_of_both_families() {
    let plan = load(&dual(&[], &[])).unwrap();
    assert!(plan.dual_stack && plan.ip_forwarding);
    assert_eq!(
        nodes(&plan),
        [
            "node-0 10.20.0.4 10.244.0.0/24",
            "node-1 10.20.0.5 10.244.1.0/24",
            "master-0 10.10.0.5 10.244.2.0/24",
        ]
    );
    // aks-engine asks for the IPv6 address of a master dynamically, too: hence ::4 and not ::5.
    assert_eq!(
        nodes_v6(&plan),
        [
            "node-0 2001:db8:10:20::4 2001:db8:10:20::/64 fc00::/64",
            "node-1 2001:db8:10:20::5 2001:db8:10:20::/64 fc00:0:0:1::/64",
            "master-0 2001:db8:10:10::4 2001:db8:10:10::/64 fc00:0:0:2::/64",
        ]
    );
    let name = |node: &str, net: &str| format!("k8s-{node}____{net}");
    let agents = "agentpool1-37464322-vmss00000";
    assert_eq!(
        routes(&plan),
        [
            name(&format!("{agents}0"), "102440024 10.244.0.0/24 10.20.0.4"),
            name(&format!("{agents}0"), "fc0064 fc00::/64 2001:db8:10:20::4"),
            name(&format!("{agents}1"), "102441024 10.244.1.0/24 10.20.0.5"),
            name(
                &format!("{agents}1"),
                "fc0000164 fc00:0:0:1::/64 2001:db8:10:20::5"
            ),
            name("master-37464322-0", "102442024 10.244.2.0/24 10.10.0.5"),
            name(
                "master-37464322-0",
                "fc0000264 fc00:0:0:2::/64 2001:db8:10:10::4"
            ),
        ]
    );
    let list = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(list(&plan.service_cidrs), ["10.0.0.0/16", "fd00::/108"]);
    assert_eq!(list(&plan.non_masquerade), ["10.244.0.0/16", "fc00::/48"]);
    assert_eq!(
        list(&plan.vnet.prefixes),
        ["10.10.0.0/24", "10.20.0.0/24", "2001:db8:10::/48"]
    );
}

#[test]
fn ipv6_pod_cidrs_follow_the_order_of_registration_and_pass_services_over() {
    let register = REGISTER.map(str::to_owned).to_vec();
    let plan = load(&LoadOptions {
        register,
        ..dual(&[("fd00::/108", "fc00:0:0:1::/108")], &[])
    })
    .unwrap();
    let found: Vec<_> = plan.nodes.iter().map(|node| node.pod_cidr_v6).collect();
    let net = |text: &str| Some(text.parse().unwrap());
    // node-1 came first; fc00:0:0:1::/64 overlaps the services.
    let expected = ["fc00:0:0:2::/64", "fc00::/64", "fc00:0:0:3::/64"];
    assert_eq!(found, expected.map(net));
    assert!(warned(&plan, "pod CIDRs in it are passed over"));
}

#[test]
fn without_a_vnet_both_families_are_aks_engines_own() {
    let generated = LoadOptions {
        vnet: None,
        ..dual(&[], &[])
    };
    let plan = load(&generated).unwrap();
    assert_eq!(
        plan.vnet.prefixes[1].to_string(),
        "2001:1234:5678:9a00::/56"
    );
    assert_eq!(
        nodes_v6(&plan),
        [
            "node-0 2001:1234:5678:9abc::4 2001:1234:5678:9abc::/64 fc00::/64",
            "node-1 2001:1234:5678:9abc::5 2001:1234:5678:9abc::/64 fc00:0:0:1::/64",
            "master-0 2001:1234:5678:9abc::6 2001:1234:5678:9abc::/64 fc00:0:0:2::/64",
        ]
    );
    assert!(plan.vnet.subnets[0].route_table_attached);
    let scale_sets = LoadOptions {
        vnet: None,
        ..dual(&SCALE_SET, &[])
    };
    let found = faults(&scale_sets);
    let refused = "of scale-set masters no IPv6 prefix, which dual stack needs";
    assert!(
        found.len() == 2 && found.iter().all(|fault| fault.contains(refused)),
        "{found:#?}"
    );
}

#[test]
fn scale_set_masters_come_first_in_a_subnet_that_they_share() {
    let shared = LoadOptions {
        subnets: vec![("master".to_owned(), "agent-subnet".to_owned())],
        ..dual(&SCALE_SET, &[])
    };
    let plan = load(&shared).unwrap();
    let found: Vec<String> = plan
        .nodes
        .iter()
        .filter_map(|node| Some(format!("{} {}", node.name, node.primary_ip_v6?)))
        .collect();
    assert_eq!(
        found,
        [
            "node-0 2001:db8:10:20::5",
            "node-1 2001:db8:10:20::6",
            "master-0 2001:db8:10:20::4"
        ]
    );
}

#[test]
fn under_azure_only_ipv6_has_pod_cidrs_and_routes() {
    let azure = LoadOptions {
        plugin: Some(Plugin::Azure),
        ..dual(&[], &[])
    };
    let plan = load(&azure).unwrap();
    assert_eq!(
        nodes(&plan)[1],
        "node-1 10.20.0.35 10.20.0.36-10.20.0.65 30"
    );
    assert_eq!(
        nodes_v6(&plan)[1],
        "node-1 2001:db8:10:20::5 2001:db8:10:20::/64 fc00:0:0:1::/64"
    );
    assert!(plan.ip_forwarding && plan.routes.len() == 3);
    assert!(
        plan.routes
            .iter()
            .all(|route| route.prefix.addr().is_ipv6())
    );
    assert!(warned(&plan, "ipv6nat") && warned(&plan, "pods' IPv6 frames die"));
}

#[test]
fn a_model_without_dual_stack_is_refused_where_both_families_are_asked_for() {
    let asked = |options: LoadOptions| LoadOptions {
        dual_stack: true,
        ..options
    };
    let fault = one_fault(&asked(kubenet(options(&[], &[]))));
    let place = "aks.json:3:3: properties.featureFlags.enableIPv6DualStack: ";
    assert!(fault.starts_with(place), "{fault}");
    for part in ["enableIPv6DualStack", "1.18 or newer", "/64"] {
        assert!(fault.contains(part), "{fault}");
    }
    let off = faults(&dual(&[("DualStack\": true", "DualStack\": false")], &[]));
    let flag = off
        .iter()
        .find(|fault| fault.contains("--dual-stack needs"));
    assert!(
        flag.is_some_and(|fault| fault.starts_with("dual.json:5:7: ")),
        "{off:#?}"
    );
}

#[test]
fn a_subnet_in_use_without_an_ipv6_prefix_is_refused() {
    let fault = one_fault(&dual(
        &[],
        &[(",\n                \"2001:db8:10:20::/64\"", "")],
    ));
    assert_eq!(
        fault,
        "dual-vnet.json:33:17: resources[0].properties.subnets[1].properties.addressPrefixes[0]: \
         subnet 'agent-subnet' has no IPv6 prefix, which dual stack needs: add a /64 to its \
         addressPrefixes"
    );
}

#[test]
fn ipv6_prefixes_of_a_template_are_judged_where_they_stand() {
    let subnet = "resources[0].properties.subnets[1].properties.addressPrefixes[1]";
    let space = "resources[0].properties.addressSpace.addressPrefixes[2]";
    let agents = "2001:db8:10:20::/64";
    let rows: [(&str, &str, &str, &str); 8] = [
        (agents, "2001:db8:10:20::/65", subnet, "is not a /64"),
        (agents, "2001:db8:10:20::/63", subnet, "is not a /64"),
        (
            agents,
            "2001:db8:10:20::1/64",
            subnet,
            "bits set outside its mask",
        ),
        (
            agents,
            "2001:db8:10:20/64",
            subnet,
            "is not an address prefix",
        ),
        (
            agents,
            "2001:db8:10:10::/64",
            subnet,
            "overlaps subnet 'master-subnet'",
        ),
        (
            agents,
            "2001:db8:11:20::/64",
            subnet,
            "is outside VNet 'aks-vnet'",
        ),
        (agents, "10.20.1.0/24", subnet, "one IPv4 prefix only"),
        (
            "2001:db8:10::/48",
            "fe80::/48\",\n\"2001:db8:10::/48",
            space,
            "fe80::/48 overlaps fe80::/10, link-local",
        ),
    ];
    for (from, to, path, message) in rows {
        let found = faults(&dual(&[], &[(from, to)]));
        assert!(
            found
                .iter()
                .any(|f| f.contains(path) && f.contains(message)),
            "{to}: {found:#?}"
        );
    }
    let twice = one_fault(&dual(
        &[],
        &[(agents, "2001:db8:10:20::/64\",\n\"2001:db8:10:21::/64")],
    ));
    assert!(twice.contains("addressPrefixes[2]") && twice.contains("one IPv6 prefix only"));
    let all = faults(&dual(
        &[],
        &[
            (agents, "2001:db8:10:20::/65"),
            ("2001:db8:10::/48", "2001:db8:10::/33"),
        ],
    ));
    assert_eq!(all.len(), 2, "{all:#?}");
}

#[test]
fn ipv6_services_and_pods_must_not_hide_what_nodes_need() {
    let rows = [
        (
            "fd00::/108",
            "2001:db8:10:20::/108",
            "overlaps subnet 'agent-subnet' 2001:db8:10:20::/64",
        ),
        ("fd00::/108", "fe80::/108", "hides fe80::/10"),
        (
            "fc00::/48",
            "2001:db8:10::/48",
            "the cluster subnet 2001:db8:10::/48 overlaps subnet",
        ),
        ("fc00::/48", "ff00::/48", "hides ff00::/8, multicast"),
    ];
    for (from, to, message) in rows {
        let found = faults(&dual(&[(from, to)], &[]));
        assert!(
            found.iter().any(|fault| fault.contains(message)),
            "{found:#?}"
        );
    }
}

#[test]
fn a_cluster_subnet_too_short_or_too_long_for_a_64_each_is_refused_or_left_out() {
    for space in ["fc00::/47", "fc00::/63", "fc00::/80"] {
        let narrow = dual(&[("fc00::/48", space)], &[]);
        let fault = one_fault(&narrow);
        let part = format!("{space} holds no /64 for each node");
        assert!(
            fault.contains(&part) && fault.contains("clusterSubnet"),
            "{fault}"
        );
        let unasked = LoadOptions {
            dual_stack: false,
            ..narrow
        };
        let plan = load(&unasked).unwrap();
        assert!(warned(&plan, "IPv6 pod CIDRs are left out"));
        assert!(plan.nodes.iter().all(|node| node.pod_cidr_v6.is_none()));
    }
    let just = load(&dual(&[("fc00::/48", "fc00::/62")], &[])).unwrap();
    assert_eq!(
        just.nodes[2].pod_cidr_v6.unwrap().to_string(),
        "fc00:0:0:2::/64"
    );
}

#[test]
fn a_route_table_has_room_for_half_as_many_nodes_of_both_families() {
    let limit = |route_limit, plugin| LoadOptions {
        route_limit,
        plugin: Some(plugin),
        ..dual(&[], &[])
    };
    let fault = one_fault(&limit(5, Plugin::Kubenet));
    assert!(
        fault.contains("3 nodes need 6 routes; a route table holds 5"),
        "{fault}"
    );
    assert!(load(&limit(6, Plugin::Kubenet)).is_ok());
    // Under azure only IPv6 has pod CIDRs.
    let fault = one_fault(&limit(2, Plugin::Azure));
    assert!(fault.contains("3 nodes need 3 routes"), "{fault}");
    assert!(load(&limit(3, Plugin::Azure)).is_ok());
}

#[test]
fn an_ipv6_pod_cidr_of_another_length_is_refused() {
    let told = |length: &str| {
        let setting = format!(
            "\"controllerManagerConfig\": {{\"--node-cidr-mask-size-ipv6\": \"{length}\"}}, \
             \"networkPlugin\": \"kubenet\""
        );
        dual(&[("\"networkPlugin\": \"kubenet\"", &setting)], &[])
    };
    for length in ["80", "sixty-four", "320"] {
        let fault = one_fault(&told(length));
        assert!(
            fault.contains("controllerManagerConfig.--node-cidr-mask-size-ipv6: ")
                && fault.contains("of length 64 only"),
            "{fault}"
        );
    }
    assert!(load(&told("64")).is_ok());
}
