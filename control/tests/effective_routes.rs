//! The laws between plan, fabric and nodes, on random route tables.
//!
//! In: the built-in cluster in both modes, a route table of random routes, random destinations.
//! Out: what the plan shows, what the fabric applies and what a node's switch does agree. No
//! device. Never: a table that the plan refuses; those have tests of their own.

use std::net::{IpAddr, Ipv4Addr};

use control::compile::{self, NodeMacs};
use control::lab::fabric::Vnet;
use control::lab::placement;
use control::model::Source;
use control::plan::{self, LoadOptions, Node, Plan, Plugin};
use control::routes::{EffectiveRoutes, NextHop, Route};
use dataplane::tables::Tables;
use dataplane::tables::fib;
use ipnet::{IpNet, Ipv4Net};
use proptest::prelude::*;

/// The VNet, the subnet that has the table, and the table's name.
#[derive(Clone, Copy, Debug)]
struct Scene {
    vnet: &'static str,
    subnet: &'static str,
    table: &'static str,
}

/// The example's VNet with the cluster's table, or with one that takes its place; and the VNet that
/// aks-engine makes, which holds the services.
const SCENES: [Scene; 3] = [
    Scene {
        vnet: "aks-vnet",
        subnet: "agent-subnet",
        table: "k8s-master-37464322-routetable",
    },
    Scene {
        vnet: "aks-vnet",
        subnet: "agent-subnet",
        table: "fw",
    },
    Scene {
        vnet: "k8s-vnet-37464322",
        subnet: "k8s-subnet",
        table: "k8s-master-37464322-routetable",
    },
];

/// A prefix of the cluster's neighbourhood, at any length: pods, nodes, services, the world.
fn prefix() -> impl Strategy<Value = Ipv4Net> {
    let near = prop_oneof![
        (0..3_u8, any::<u8>()).prop_map(|(b, c)| [10, 244, b, c]),
        any::<u8>().prop_map(|c| [10, 20, 0, c]),
        any::<u8>().prop_map(|c| [10, 10, 0, c]),
        any::<u8>().prop_map(|c| [10, 240, 0, c]),
        any::<u8>().prop_map(|c| [10, 0, c, 1]),
        any::<[u8; 4]>(),
    ];
    (near, 0..=32_u8).prop_map(|(octets, length)| {
        let net = Ipv4Net::new(octets.into(), length);
        net.expect("a length of IPv4").trunc()
    })
}

/// An entry of the table: its type, and for `VirtualAppliance` an address that is no node's.
fn hop() -> impl Strategy<Value = (&'static str, Option<&'static str>)> {
    prop_oneof![
        3 => Just(("None", None)),
        1 => Just(("VnetLocal", None)),
        1 => Just(("Internet", None)),
        1 => Just(("VirtualNetworkGateway", None)),
        1 => Just(("VirtualAppliance", Some("10.20.0.250"))),
        1 => Just(("VirtualAppliance", Some("10.10.0.200"))),
    ]
}

type Written = std::collections::BTreeMap<Ipv4Net, (&'static str, Option<&'static str>)>;

/// The plan with this table in this scene. Prefixes of pod CIDRs are the provider's.
fn planned(plugin: Plugin, scene: Scene, written: &Written) -> Plan {
    let pods: Vec<Ipv4Net> = (0..3)
        .map(|n| Ipv4Net::new(Ipv4Addr::new(10, 244, n, 0), 24).expect("a length of IPv4"))
        .collect();
    let routes: Vec<serde_json::Value> = written
        .iter()
        .filter(|(prefix, _)| !pods.contains(prefix))
        .map(|(prefix, (kind, address))| {
            serde_json::json!({
                "name": prefix.to_string(),
                "addressPrefix": prefix,
                "nextHopType": kind,
                "nextHopIpAddress": address,
            })
        })
        .filter(|route| {
            let address = route["nextHopIpAddress"]
                .as_str()
                .map(|ip| format!("{ip}/32"));
            address.as_deref() != route["addressPrefix"].as_str()
        })
        .collect();
    let Scene {
        vnet,
        subnet,
        table,
    } = scene;
    let id = format!("/x/virtualNetworks/{vnet}/subnets/{subnet}");
    let document = serde_json::json!({
        "type": "Microsoft.Network/routeTables",
        "name": table,
        "routes": routes,
        "subnets": [ { "id": id } ],
    });
    // A few hundred short texts; sources that are built in live for the whole run.
    let text: &'static str = Box::leak(document.to_string().into_boxed_str());
    let example = LoadOptions::built_in();
    let options = LoadOptions {
        vnet: example.vnet.clone().filter(|_| vnet == "aks-vnet"),
        plugin: Some(plugin),
        route_tables: vec![Source::BuiltIn {
            name: "rt.json",
            text,
        }],
        ..example
    };
    plan::load(&options).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

/// A node as the plan, the fabric and its own switch see it.
struct Seen<'a> {
    plan: &'a Plan,
    node: &'a Node,
    shown: EffectiveRoutes,
    fabric: EffectiveRoutes,
    tables: Tables,
}

impl<'a> Seen<'a> {
    fn of(plan: &'a Plan, node: &'a Node) -> Seen<'a> {
        let macs: NodeMacs = placement::node_macs(plan, node);
        let mut vnet = Vnet::new(placement::vnet(plan, false)).expect("the plan's VNet fits");
        let nic = vnet.attach(placement::nic(plan, node, macs));
        let nic = vnet
            .nic(nic.expect("the plan's NIC fits"))
            .expect("just attached");
        let spec = compile::compile(plan, node, macs, &[]);
        Seen {
            plan,
            node,
            shown: plan.effective_routes(node),
            fabric: vnet.routes(nic).clone(),
            tables: Tables::build(&spec).expect("tables without a fault"),
        }
    }

    /// The plan shows what the fabric applies.
    fn agree_on(&self, target: Ipv4Addr) -> Route {
        let target = IpAddr::V4(target);
        let shown = self.shown.find(target).expect("a default route");
        let applied = self.fabric.find(target).expect("a default route");
        assert_eq!(
            (shown.prefix, shown.next_hop),
            (applied.prefix, applied.next_hop),
            "{target} at {}",
            self.node.name
        );
        shown.clone()
    }

    fn others_pods(&self, target: Ipv4Addr) -> bool {
        let nodes = self
            .plan
            .nodes
            .iter()
            .filter(|other| other.name != self.node.name);
        nodes
            .filter_map(|other| other.pod_cidr)
            .any(|cidr| cidr.contains(&target))
    }

    /// True for what the switch may send out itself: see `control::routes`.
    fn is_the_switchs(&self, target: Ipv4Addr) -> bool {
        let net = IpNet::from(IpAddr::V4(target));
        let kernels = self.plan.service_cidrs.iter().chain(&self.plan.via_host);
        let mut kernels = kernels.filter(|kernels| kernels.contains(&net));
        let space = match self.plan.plugin {
            Plugin::Kubenet => self.others_pods(target),
            Plugin::Azure => self.plan.vnet.prefixes.iter().any(|own| own.contains(&net)),
        };
        space && kernels.next().is_none() && target != self.node.primary_ip
    }

    /// The node throws away what a user said to, where the frame would leave by the uplink, and
    /// nothing else; and it never sends out what it should not.
    fn judge(&self, target: Ipv4Addr) {
        let route = self.agree_on(target);
        let hop = self.tables.route_v4(target).expect("a default route");
        let at = format!("{target} at {}: {hop:?} under {route}", self.node.name);
        let own = self
            .node
            .pod_range()
            .iter()
            .any(|range| range.contains(&target));
        if own {
            let gateway = compile::gateway(self.node) == Some(target);
            let wanted = if gateway {
                fib::NextHop::Host
            } else {
                fib::NextHop::Unreachable
            };
            assert_eq!(hop, wanted, "{at}");
            return;
        }
        if !self.is_the_switchs(target) {
            assert_eq!(hop, fib::NextHop::Host, "{at}");
            return;
        }
        // Only the agents' subnet has the table; the masters' switch expects it all the same.
        let expected = self.plan.expected_routes(self.node);
        let expected = expected.find(IpAddr::V4(target)).expect("a default route");
        let discarded = expected.next_hop == NextHop::None && expected.source.is_user_defined();
        match hop {
            fib::NextHop::Blackhole => assert!(discarded, "{at}"),
            fib::NextHop::Station { port, mac } => {
                assert!(!discarded, "{at}");
                assert_eq!(
                    (port, mac),
                    (compile::UPLINK_PORT, compile::FABRIC_MAC),
                    "{at}"
                );
            }
            fib::NextHop::Neighbour(via) => {
                assert!(!discarded, "{at}");
                assert_eq!(self.plan.plugin, Plugin::Kubenet, "{at}");
                assert_ne!(via, IpAddr::V4(self.node.primary_ip), "{at}");
                if let NextHop::VirtualAppliance(named) = expected.next_hop {
                    assert_eq!(via, named, "{at}");
                }
            }
            other => panic!("{other:?}: {at}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn plan_fabric_and_nodes_agree_on_any_table(
        written in prop::collection::btree_map(prefix(), hop(), 0..20),
        near in prop::collection::vec(prefix(), 40),
    ) {
        // Where routes begin and end is where mistakes are.
        let ends = written.keys().flat_map(|net| [net.network(), net.broadcast()]);
        let beside = written.keys().map(|net| {
            Ipv4Addr::from_bits(net.broadcast().to_bits().wrapping_add(1))
        });
        let targets: Vec<Ipv4Addr> = near.iter().map(Ipv4Net::addr).chain(ends).chain(beside).collect();
        let modes = [Plugin::Azure, Plugin::Kubenet];
        for (plugin, scene) in modes.into_iter().flat_map(|p| SCENES.map(|scene| (p, scene))) {
            let plan = planned(plugin, scene, &written);
            for node in &plan.nodes {
                let seen = Seen::of(&plan, node);
                // Azure's platform is the kernel's, and multicast nobody's.
                for target in targets.iter().filter(|t| !t.is_link_local() && !t.is_multicast()) {
                    seen.judge(*target);
                }
            }
        }
    }
}
