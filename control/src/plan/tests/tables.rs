//! Route tables on a planned cluster: who has them, what is refused, what nodes make of them.

use super::*;
use crate::compile::{self, NodeMacs};
use dataplane::addr::{Mac, Station};
use dataplane::tables::fib::NextHop;
use dataplane::tables::{Tables, TablesSpec};

/// The name of the cluster's own table, by the built-in example's id.
const OWN: &str = "k8s-master-37464322-routetable";

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// A table as `az` prints it: routes of a name, a prefix, and a type or an address.
fn document(name: &str, routes: &[(&str, &str, &str)], subnets: &[&str]) -> Source {
    let routes = routes.iter().map(|(name, prefix, hop)| {
        let (kind, address) = match hop.parse::<std::net::IpAddr>() {
            Ok(address) => ("VirtualAppliance", format!("\"{address}\"")),
            Err(_) => (*hop, "null".to_owned()),
        };
        format!(
            "{{ \"name\": \"{name}\", \"addressPrefix\": \"{prefix}\", \"nextHopType\": \
             \"{kind}\", \"nextHopIpAddress\": {address} }}"
        )
    });
    let routes = routes.collect::<Vec<_>>().join(",\n");
    let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks";
    let subnets = subnets
        .iter()
        .map(|s| format!("{{ \"id\": \"{id}/aks-vnet/subnets/{s}\" }}"));
    let subnets = subnets.collect::<Vec<_>>().join(",");
    Source::BuiltIn {
        name: "rt.json",
        text: leak(format!(
            "{{ \"type\": \"Microsoft.Network/routeTables\", \"name\": \"{name}\", \"subnets\": \
             [{subnets}], \"routes\": [\n{routes}\n] }}"
        )),
    }
}

fn with(tables: Vec<Source>, options: LoadOptions) -> LoadOptions {
    LoadOptions {
        route_tables: tables,
        ..options
    }
}

fn kubenet_with(tables: Vec<Source>) -> LoadOptions {
    let register = REGISTER.map(str::to_owned).to_vec();
    with(
        tables,
        kubenet(LoadOptions {
            register,
            ..LoadOptions::built_in()
        }),
    )
}

const AGENTS: &[&str] = &["agent-subnet"];

/// Which subnets have which table.
fn held(plan: &Plan) -> Vec<String> {
    let tables = plan.route_tables.iter();
    tables
        .map(|table| {
            format!(
                "{} {}: {}",
                table.name,
                table.routes.len(),
                table.subnets.join(" ")
            )
        })
        .collect()
}

fn taken(plan: &Plan, node: &str, target: &str) -> String {
    let routes = plan.effective_routes(plan.node(node).unwrap());
    routes.find(target.parse().unwrap()).unwrap().to_string()
}

#[test]
fn the_clusters_own_table_gets_the_pods_routes() {
    let given = document(
        OWN,
        &[
            (
                "K8S-agentpool1-37464322-VMSS000000",
                "10.244.9.0/24",
                "10.20.0.9",
            ),
            ("on-premises", "192.168.0.0/16", "VirtualNetworkGateway"),
            ("by-hand", "10.244.0.0/24", "10.20.0.5"),
        ],
        AGENTS,
    );
    let plan = load(&kubenet_with(vec![given])).unwrap();
    assert_eq!(held(&plan), [format!("{OWN} 4: agent-subnet")]);
    let rows = [
        // The provider replaces what bears its name, whatever the case, and takes over what says
        // the same under another.
        ("10.244.9.1", "system route 10.0.0.0/8 -> None"),
        (
            "10.244.1.6",
            "pods' route 10.244.1.0/24 -> VirtualAppliance 10.20.0.4",
        ),
        (
            "10.244.0.7",
            "pods' route 10.244.0.0/24 -> VirtualAppliance 10.20.0.5",
        ),
        (
            "192.168.1.1",
            "user-defined route 192.168.0.0/16 -> VirtualNetworkGateway",
        ),
    ];
    for (target, route) in rows {
        assert_eq!(taken(&plan, "node-0", target), route);
    }
    assert_eq!(
        taken(&plan, "master-0", "10.244.1.6"),
        "system route 10.0.0.0/8 -> None"
    );
    // The agents' subnet has its table, by the document; nobody says so of the masters'.
    assert!(!warned(
        &plan,
        "agents' subnet 'agent-subnet' has no routeTable"
    ));
    assert!(warned(
        &plan,
        "masters' subnet 'master-subnet' has no routeTable"
    ));
    assert!(plan.vnet.subnets[1].route_table_attached);
}

#[test]
fn a_table_is_on_the_subnets_that_somebody_names() {
    let attach = |id: &str| {
        let subnet = "\"addressPrefix\": \"10.10.0.0/24\"\n";
        let more = format!(
            "\"addressPrefix\": \"10.10.0.0/24\", \"routeTable\": {{ \"id\": \"{id}\" }}\n"
        );
        let options = options(&[], &[(subnet, leak(more))]);
        with(vec![document("fw", &[], &[])], kubenet(options))
    };
    let by_id =
        attach("/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/routeTables/FW");
    let by_expression = attach("[resourceId('Microsoft.Network/routeTables', 'fw')]");
    for options in [by_id, by_expression] {
        let plan = load(&options).unwrap();
        assert_eq!(
            held(&plan),
            ["fw 0: master-subnet".to_owned(), format!("{OWN} 3: ")]
        );
    }
    // A table of which only the document tells, in another VNet.
    let other = Source::BuiltIn {
        name: "rt.json",
        text: r#"{ "type": "Microsoft.Network/routeTables", "name": "fw", "subnets":
          [ { "id": "/x/virtualNetworks/hub/subnets/agent-subnet" } ] }"#,
    };
    let plan = load(&kubenet_with(vec![other])).unwrap();
    assert_eq!(held(&plan), ["fw 0: ".to_owned(), format!("{OWN} 3: ")]);
    // Nobody tells: where operators attach it, and we say so.
    let plan = load(&kubenet_with(vec![document("fw", &[], &[])])).unwrap();
    assert_eq!(held(&plan)[0], "fw 0: agent-subnet");
    assert!(warned(
        &plan,
        "which subnet has route table 'fw'; planned as on agent-subnet"
    ));
    let plan = load(&kubenet_with(vec![document("fw", &[], &["nowhere"])])).unwrap();
    assert!(warned(
        &plan,
        "attached to subnet 'nowhere', which VNet 'aks-vnet' does not have"
    ));
}

#[test]
fn a_table_of_another_name_takes_the_place_of_the_clusters() {
    let given = document("fw", &[("all", "0.0.0.0/0", "10.20.0.250")], AGENTS);
    let plan = load(&kubenet_with(vec![given])).unwrap();
    assert_eq!(
        taken(&plan, "node-0", "10.244.0.7"),
        "system route 10.0.0.0/8 -> None"
    );
    assert!(warned(
        &plan,
        "route table 'fw' on agent-subnet leads to the pods of 3 of 3 nodes nowhere \
         (k8s-agentpool1-37464322-vmss000000 is one)"
    ));
    let through = document("fw", &[("pods", "10.244.0.0/16", "10.20.0.250")], AGENTS);
    let plan = load(&kubenet_with(vec![through])).unwrap();
    assert!(
        !warned(&plan, "nowhere"),
        "an appliance for all pods is somebody's wish"
    );
}

#[test]
fn a_generated_vnet_has_the_clusters_table_on_it() {
    let options = kubenet(LoadOptions {
        vnet: None,
        ..options(&[], &[])
    });
    let plan = load(&options).unwrap();
    assert_eq!(held(&plan), [format!("{OWN} 3: k8s-subnet")]);
    let route = "pods' route 10.244.1.0/24 -> VirtualAppliance 10.240.0.5";
    assert_eq!(taken(&plan, "master-0", "10.244.1.7"), route);
    // The VNet is 10.0.0.0/8, so no reserved route remains for the rest.
    let rest = "system route 10.0.0.0/8 -> VnetLocal";
    assert_eq!(taken(&plan, "master-0", "10.244.77.1"), rest);
}

#[test]
fn what_does_not_fit_the_plan_is_refused_with_its_place() {
    let one = |route| vec![document(OWN, &[route], AGENTS)];
    let rows = [
        (
            one(("fw", "0.0.0.0/0", "10.30.0.4")),
            "rt.json:2:82: routes[0].nextHopIpAddress: next hop 10.30.0.4 is not on link: neither \
             VNet 'aks-vnet' (10.10.0.0/24, 10.20.0.0/24) nor a VNet peered with it holds it",
        ),
        (
            one(("late", "10.244.0.0/24", "10.20.0.4")),
            "rt.json:2:19: routes[0].addressPrefix: 10.244.0.0/24 leads to VirtualAppliance \
             10.20.0.4 here, and by the plan to VirtualAppliance 10.20.0.5: two next hops for one \
             prefix. If the document is right, nodes registered in another order: say so with \
             --register",
        ),
        (
            one(("late", "10.244.0.128/25", "10.20.0.4")),
            "rt.json:2:90: routes[0].nextHopIpAddress: a route to itself: node-0 sends \
             10.244.0.128/25 out, and the route leads back to it",
        ),
        (
            vec![document(OWN, &[], AGENTS), document("fw", &[], AGENTS)],
            "rt.json:1:44: name: subnet 'agent-subnet' has route table \
             'k8s-master-37464322-routetable' already; it may have one",
        ),
    ];
    for (tables, fault) in rows {
        assert_eq!(one_fault(&kubenet_with(tables)), fault);
    }
    let full = LoadOptions {
        route_limit: 3,
        ..kubenet_with(one(("fw", "0.0.0.0/0", "10.20.0.250")))
    };
    assert_eq!(
        one_fault(&full),
        "rt.json:1:44: name: route table 'k8s-master-37464322-routetable' would have 4 routes \
         with those to the nodes' pods; one holds 3 (--route-limit)"
    );
}

#[test]
fn faults_of_all_documents_come_together() {
    let broken = options(&[("\"count\": 1,", "\"count\": 2,")], &[]);
    let given = vec![document(OWN, &[("a", "10.1.1.1/8", "Internet")], &[])];
    let found = faults(&with(given, broken));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("aks.json:") && found[1].starts_with("rt.json:2:"));
}

#[test]
fn a_next_hop_whose_frames_die_stays_active_with_a_caveat() {
    let given = document(
        "fw",
        &[
            ("node", "10.99.0.0/16", "10.20.0.35"),
            ("pod", "10.98.0.0/16", "10.20.0.36"),
            ("gateway", "10.97.0.0/16", "10.10.0.1"),
            ("back", "10.96.0.0/16", "10.20.0.4"),
            ("fine", "10.95.0.0/16", "10.20.0.250"),
        ],
        AGENTS,
    );
    let plan = load(&with(vec![given], LoadOptions::built_in())).unwrap();
    let routes = plan.effective_routes(plan.node("node-0").unwrap());
    let caveat = |target: &str| {
        let row = routes.find_row(target.parse().unwrap()).unwrap();
        assert_eq!(row.state().to_string(), "Active");
        row.caveat
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    let rows = [
        (
            "10.99.0.1",
            "node-1's NIC may not forward (enableIPForwarding)",
        ),
        (
            "10.98.0.1",
            "node-1's NIC may not forward (enableIPForwarding)",
        ),
        ("10.97.0.1", "Azure keeps the next hop's address for itself"),
        ("10.96.0.1", "leads back to this node"),
        ("10.95.0.1", ""),
    ];
    for (target, wanted) in rows {
        assert_eq!(caveat(target), wanted, "{target}");
    }
    assert!(warned(&plan, "rt.json:2:"));
    assert!(warned(
        &plan,
        "may not forward (enableIPForwarding), so 10.99.0.0/16 ends there"
    ));
    // In the VNet, and in none of its subnets.
    let wide = options(
        &[],
        &[("\"10.10.0.0/24\",", "\"10.10.0.0/24\", \"10.40.0.0/16\",")],
    );
    let given = document("fw", &[("gone", "10.99.0.0/16", "10.40.0.9")], AGENTS);
    let plan = load(&with(vec![given], wide)).unwrap();
    assert!(warned(
        &plan,
        "no subnet holds the next hop, so 10.99.0.0/16 ends there"
    ));
}

#[test]
fn peers_of_the_vnet_have_routes_and_hold_next_hops() {
    let peering = |state: &str, space: &str| {
        let subnets = "\"subnets\": [";
        let more = format!(
            "\"virtualNetworkPeerings\": [ {{ \"name\": \"hub\", \"properties\": {{ \
             \"peeringState\": \"{state}\", \"remoteAddressSpace\": {{ \"addressPrefixes\": [ \
             \"{space}\" ] }} }} }} ], {subnets}"
        );
        options(&[], &[(subnets, leak(more))])
    };
    let given = || vec![document("fw", &[("all", "0.0.0.0/0", "10.30.0.4")], AGENTS)];
    let plan = load(&with(given(), peering("Connected", "10.30.0.0/16"))).unwrap();
    assert_eq!(
        taken(&plan, "node-0", "10.30.7.1"),
        "system route 10.30.0.0/16 -> VNetPeering"
    );
    let all = "user-defined route 0.0.0.0/0 -> VirtualAppliance 10.30.0.4";
    assert_eq!(taken(&plan, "node-0", "8.8.8.8"), all);
    assert!(
        one_fault(&with(given(), peering("Disconnected", "10.30.0.0/16"))).contains("not on link")
    );
    let overlap = one_fault(&peering("Connected", "10.20.0.0/16"));
    assert!(overlap.contains("10.20.0.0/16 overlaps 10.20.0.0/24, a prefix of the VNet itself"));
}

fn compiled(plan: &Plan, node: &str) -> TablesSpec {
    let station = |last| Station::new(Mac::new([0x0a, 0x58, 0, 0, 0, last])).unwrap();
    let macs = NodeMacs {
        nic: station(0x20),
        host: station(0x01),
    };
    let spec = compile::compile(plan, plan.node(node).unwrap(), macs, &[]);
    assert!(Tables::build(&spec).is_ok());
    spec
}

/// The next hop of the longest prefix, by a walk along the rows.
fn hop(spec: &TablesSpec, target: &str) -> String {
    let target: std::net::IpAddr = target.parse().unwrap();
    let rows = spec
        .routes
        .iter()
        .filter(|(prefix, _)| prefix.contains(&target));
    match rows
        .max_by_key(|(prefix, _)| prefix.prefix_len())
        .unwrap()
        .1
    {
        NextHop::Neighbour(address) => address.to_string(),
        NextHop::Station { port, .. } if port == compile::UPLINK_PORT => "uplink".to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_kubenet_node_sends_pods_frames_where_the_table_says() {
    let given = document(
        OWN,
        &[
            ("quarantine", "10.244.0.128/25", "None"),
            ("but-one", "10.244.0.200/32", "10.20.0.250"),
            ("own", "10.244.1.64/26", "None"),
            ("service", "10.0.5.0/24", "None"),
            ("world", "0.0.0.0/0", "None"),
            ("odd", "10.244.2.64/26", "Internet"),
        ],
        AGENTS,
    );
    let plan = load(&kubenet_with(vec![given])).unwrap();
    let spec = compiled(&plan, "node-0");
    let rows = [
        ("10.244.0.7", "10.20.0.5", "the provider's route"),
        ("10.244.0.130", "Blackhole", "a longer one to None"),
        ("10.244.0.200", "10.20.0.250", "and a longer one inside it"),
        ("10.244.2.1", "10.10.0.5", "a node of another subnet"),
        (
            "10.244.2.65",
            "10.20.0.1",
            "what the fabric does with the rest is its own",
        ),
        (
            "10.244.1.70",
            "Unreachable",
            "its own pods' frames never leave the NIC",
        ),
        ("10.0.5.9", "Host", "a service is translated first"),
        ("8.8.8.8", "Host", "and so may the rest of the world be"),
        ("10.244.77.1", "Host", "nobody's pod CIDR"),
    ];
    for (target, wanted, why) in rows {
        assert_eq!(hop(&spec, target), wanted, "{target}: {why}");
    }
    // Without the table on its subnet, the master reckons with the cluster's as it is given.
    assert_eq!(
        hop(&compiled(&plan, "master-0"), "10.244.0.130"),
        "Blackhole"
    );
}

#[test]
fn an_unattached_table_does_not_change_what_a_node_sends() {
    let given = LoadOptions {
        register: REGISTER.map(str::to_owned).to_vec(),
        ..kubenet(LoadOptions::built_in())
    };
    let plan = load(&given).unwrap();
    assert_eq!(
        taken(&plan, "node-0", "10.244.0.7"),
        "system route 10.0.0.0/8 -> None"
    );
    let spec = compiled(&plan, "node-0");
    assert_eq!(hop(&spec, "10.244.0.7"), "10.20.0.5");
    assert_eq!(hop(&spec, "10.244.2.7"), "10.10.0.5");
}

#[test]
fn a_table_without_pods_routes_leaves_their_frames_to_the_fabric() {
    let given = document("fw", &[("pods", "10.244.0.0/23", "10.20.0.250")], AGENTS);
    let spec = compiled(&load(&kubenet_with(vec![given])).unwrap(), "node-0");
    assert_eq!(hop(&spec, "10.244.0.7"), "10.20.0.250");
    // The system's 10.0.0.0/8 to None is not the node's to apply.
    assert_eq!(hop(&spec, "10.244.2.7"), "10.20.0.1");
}

#[test]
fn an_azure_node_applies_only_what_discards() {
    let given = document(
        "fw",
        &[
            ("wide", "10.10.0.0/16", "None"),
            ("masters", "10.10.0.128/25", "None"),
            ("one", "10.10.0.200/32", "10.20.0.250"),
            ("own", "10.20.0.8/29", "None"),
            ("around", "10.20.0.0/26", "None"),
            ("world", "0.0.0.0/0", "None"),
        ],
        AGENTS,
    );
    let plan = load(&with(vec![given], LoadOptions::built_in())).unwrap();
    let spec = compiled(&plan, "node-0");
    let rows = [
        ("10.10.0.5", "uplink", "the VNet's own route is longer"),
        (
            "10.10.0.130",
            "Blackhole",
            "a route to None inside the VNet",
        ),
        (
            "10.10.0.200",
            "uplink",
            "and a longer one inside it, which the fabric applies",
        ),
        ("10.20.0.9", "Unreachable", "its own pods' range"),
        ("10.20.0.40", "Blackhole", "the other node's pods"),
        ("10.20.0.100", "uplink", "beyond"),
        ("10.20.0.4", "Host", "itself"),
        ("8.8.8.8", "Host", "the world is the kernel's"),
    ];
    for (target, wanted, why) in rows {
        assert_eq!(hop(&spec, target), wanted, "{target}: {why}");
    }
    assert_eq!(
        hop(&compiled(&plan, "master-0"), "10.10.0.130"),
        "uplink",
        "no table there"
    );
}

#[test]
fn both_families_follow_the_table() {
    let given = document(
        OWN,
        &[
            ("quarantine", "fc00:0:0:1:8000::/65", "None"),
            ("v4", "10.244.1.128/25", "None"),
        ],
        AGENTS,
    );
    let options = LoadOptions::built_in_dual_stack();
    let plan = load(&with(vec![given], options)).unwrap();
    let spec = compiled(&plan, "node-0");
    assert_eq!(hop(&spec, "fc00:0:0:1::7"), "2001:db8:10:20::5");
    assert_eq!(hop(&spec, "fc00:0:0:1:8000::7"), "Blackhole");
    assert_eq!(hop(&spec, "10.244.1.7"), "10.20.0.5");
    assert_eq!(hop(&spec, "10.244.1.130"), "Blackhole");
    let wanted = "pods' route fc00:0:0:1::/64 -> VirtualAppliance 2001:db8:10:20::5";
    assert_eq!(taken(&plan, "node-0", "fc00:0:0:1::7"), wanted);
}
