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
fn a_cluster_read_once_is_planned_with_other_routes_as_if_read_anew() {
    let table = |prefix| document("own", &[("r", prefix, "VirtualNetworkGateway")], AGENTS);
    let (sound, unsound) = (table("192.168.0.0/16"), table("192.168.0.0/99"));
    let options = with(vec![sound.clone()], LoadOptions::built_in());
    let cluster = Cluster::read(&options);
    for tables in [vec![unsound], vec![sound], Vec::new()] {
        let again = cluster.plan(&tables, None);
        let anew = load(&with(tables, options.clone()));
        assert_eq!(format!("{again:?}"), format!("{anew:?}"));
    }
    let refused = cluster.plan(&[table("10.0.0.0/99")], None).unwrap_err();
    assert_eq!(refused.len(), 1, "{refused}");
    let plan = cluster.plan(&[], None).unwrap();
    assert_eq!(held(&plan), Vec::<String>::new());
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

/// What `az network nic show-effective-route-table` prints: rows of source, type and prefix.
fn printed(rows: &[(&str, &str, &str)]) -> Source {
    let rows = rows.iter().map(|(source, kind, prefix)| {
        format!(
            "{{ \"addressPrefix\": [ \"{prefix}\" ], \"disableBgpRoutePropagation\": false, \
             \"hasBgpOverride\": false, \"name\": null, \"nextHopIpAddress\": [], \
             \"nextHopType\": \"{kind}\", \"source\": \"{source}\", \"state\": \"Active\" }}"
        )
    });
    Source::BuiltIn {
        name: "azure.json",
        text: leak(format!(
            "{{ \"nextLink\": null, \"value\": [\n{}\n] }}",
            rows.collect::<Vec<_>>().join(",\n")
        )),
    }
}

const SEEDS_OWN: [(&str, &str, &str); 3] = [
    ("Default", "VnetLocal", "10.10.0.0/24"),
    ("Default", "VnetLocal", "10.20.0.0/24"),
    ("Default", "Internet", "0.0.0.0/0"),
];

fn azure(more: &[(&str, &str, &str)], vnet: &[(&str, &str)]) -> LoadOptions {
    LoadOptions {
        azure_routes: Some(printed(&[&SEEDS_OWN, more].concat())),
        ..options(&[], vnet)
    }
}

const ENDPOINTS: &[(&str, &str)] = &[(
    "\"addressPrefix\": \"10.20.0.0/24\"\n",
    "\"addressPrefix\": \"10.20.0.0/24\", \"serviceEndpoints\": [ { \"service\": \
     \"Microsoft.Storage\" } ]\n",
)];

const AZURES: &[(&str, &str, &str)] = &[
    (
        "VirtualNetworkGateway",
        "VirtualNetworkGateway",
        "192.168.0.0/16",
    ),
    (
        "VirtualNetworkGateway",
        "VirtualNetworkGateway",
        "10.20.0.0/25",
    ),
    ("Default", "VNetGlobalPeering", "10.30.0.0/16"),
    ("Default", "VirtualNetworkServiceEndpoint", "20.60.4.0/24"),
    ("User", "VirtualAppliance", "10.99.0.0/16"),
];

#[test]
fn what_only_azure_knows_is_taken_from_what_it_printed() {
    let plan = load(&azure(AZURES, ENDPOINTS)).unwrap();
    let table = [
        (
            "node-0",
            "192.168.1.1",
            "gateway's route 192.168.0.0/16 -> VirtualNetworkGateway",
        ),
        (
            "node-0",
            "10.20.0.9",
            "system route 10.20.0.0/24 -> VnetLocal",
        ),
        (
            "node-0",
            "10.30.1.1",
            "system route 10.30.0.0/16 -> VNetPeering",
        ),
        (
            "node-0",
            "20.60.4.9",
            "system route 20.60.4.0/24 -> VirtualNetworkServiceEndpoint",
        ),
        // The masters' subnet has no service endpoints; and a table's routes come by its document.
        (
            "master-0",
            "20.60.4.9",
            "system route 0.0.0.0/0 -> Internet",
        ),
        ("node-0", "10.99.1.1", "system route 10.0.0.0/8 -> None"),
    ];
    for (node, target, route) in table {
        assert_eq!(taken(&plan, node, target), route, "{node}");
    }
    let plan = load(&azure(AZURES, &[])).unwrap();
    assert!(warned(
        &plan,
        "the template gives no subnet service endpoints"
    ));
}

#[test]
fn a_peer_that_azure_told_of_holds_next_hops_and_a_table_keeps_a_gateway_out() {
    let quiet = Source::BuiltIn {
        name: "rt.json",
        text: r#"{ "type": "Microsoft.Network/routeTables", "name": "fw",
          "disableBgpRoutePropagation": true, "routes": [ { "name": "all", "addressPrefix":
          "0.0.0.0/0", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "10.30.0.4" } ] }"#,
    };
    let plan = load(&with(vec![quiet], azure(AZURES, ENDPOINTS))).unwrap();
    let all = "user-defined route 0.0.0.0/0 -> VirtualAppliance 10.30.0.4";
    assert_eq!(taken(&plan, "node-0", "8.8.8.8"), all);
    let none = "system route 192.168.0.0/16 -> None";
    assert_eq!(taken(&plan, "node-0", "192.168.1.1"), none);
    let lasting = "gateway's route 192.168.0.0/16 -> VirtualNetworkGateway";
    assert_eq!(taken(&plan, "master-0", "192.168.1.1"), lasting);
}

#[test]
fn what_azure_printed_has_to_be_of_this_vnet() {
    let other = LoadOptions {
        azure_routes: Some(printed(&[("Default", "VnetLocal", "10.0.0.0/16")])),
        ..LoadOptions::built_in()
    };
    assert_eq!(
        one_fault(&other),
        "azure.json:1:21: value: of another VNet: its routes to VnetLocal are 10.0.0.0/16, and \
         VNet 'aks-vnet' has 10.10.0.0/24, 10.20.0.0/24"
    );
    let rows = [
        (
            ("Heaven", "Internet", "1.0.0.0/8"),
            "unknown source 'Heaven': one of Default, User, VirtualNetworkGateway",
        ),
        (
            ("Default", "VNetPeering", "10.30.0.1/16"),
            "10.30.0.1/16 has bits set outside its mask; the prefix is 10.30.0.0/16",
        ),
        (
            ("Default", "VNetPeering", "10.30.0.0/64"),
            "'64' is out of range: the prefix length of IPv4 is 0 to 32",
        ),
    ];
    for (row, message) in rows {
        let fault = one_fault(&azure(&[row], &[]));
        assert!(
            fault.starts_with("azure.json:5:") && fault.ends_with(message),
            "{fault}"
        );
    }
    let table = LoadOptions {
        azure_routes: Some(document("rt", &[], &[])),
        ..LoadOptions::built_in()
    };
    assert!(one_fault(&table).contains("show-effective-route-table"));
}

/// The seed's VNet with a table beside it, and each subnet's reference to one.
fn beside(table: &str, masters: &str, agents: &str) -> LoadOptions {
    let subnet = |prefix: &str, id: &str| {
        let more =
            format!("\"addressPrefix\": \"{prefix}\", \"routeTable\": {{ \"id\": \"{id}\" }}\n");
        (
            leak(format!("\"addressPrefix\": \"{prefix}\"\n")),
            leak(more),
        )
    };
    let (m, a) = (
        subnet("10.10.0.0/24", masters),
        subnet("10.20.0.0/24", agents),
    );
    let resources = leak(format!("\"resources\": [ {table},"));
    let changes = [
        (m.0 as &str, m.1 as &str),
        (a.0, a.1),
        ("\"resources\": [", resources),
    ];
    kubenet(options(&[], &changes))
}

#[test]
fn a_table_beside_the_vnet_needs_no_option() {
    let table = |hop: &str| {
        format!(
            "{{ \"type\": \"Microsoft.Network/routeTables\", \"name\": \"hub\", \"properties\": {{ \
             \"routes\": [ {{ \"name\": \"all\", \"properties\": {{ \"addressPrefix\": \
             \"0.0.0.0/0\", \"nextHopType\": \"{hop}\" }} }} ] }} }}"
        )
    };
    let id = |name: &str| format!("[resourceId('Microsoft.Network/routeTables', '{name}')]");
    let plan = load(&beside(&table("None"), &id("hub"), &id(OWN))).unwrap();
    assert_eq!(
        held(&plan),
        [
            "hub 1: master-subnet".to_owned(),
            format!("{OWN} 3: agent-subnet")
        ]
    );
    assert_eq!(
        taken(&plan, "master-0", "8.8.8.8"),
        "user-defined route 0.0.0.0/0 -> None"
    );
    assert!(warned(
        &plan,
        "route table 'hub' on master-subnet leads to the pods of 3 of 3"
    ));
    // The same table as a document of its own goes before it.
    let given = document("HUB", &[("all", "0.0.0.0/0", "Internet")], &[]);
    let plan = load(&with(
        vec![given],
        beside(&table("None"), &id("hub"), &id(OWN)),
    ))
    .unwrap();
    assert_eq!(
        taken(&plan, "master-0", "8.8.8.8"),
        "user-defined route 0.0.0.0/0 -> Internet"
    );
    // One that cannot be read is left out, and its subnet has no table that we know of: not the
    // cluster's.
    let plan = load(&beside(&table("Void"), &id("hub"), &id(OWN))).unwrap();
    assert_eq!(held(&plan), [format!("{OWN} 3: agent-subnet")]);
    assert!(warned(
        &plan,
        "the template's route table is left out: unknown nextHopType 'Void'"
    ));
    assert!(warned(
        &plan,
        "subnet 'master-subnet' has route table 'hub', which no document"
    ));
    assert_eq!(
        taken(&plan, "master-0", "10.244.1.7"),
        "system route 10.0.0.0/8 -> None"
    );
    // One that no subnet has is of no effect, and no word.
    let plan = load(&beside(&table("None"), &id(OWN), &id(OWN))).unwrap();
    assert_eq!(held(&plan)[0], "hub 1: ");
    assert!(!warned(&plan, "hub"));
}
