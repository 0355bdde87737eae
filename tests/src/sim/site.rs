//! The clusters that are simulated: the documents built into Tapline, planned as always.
//!
//! In: nothing. Out: [`Site`]s: azure with network policy and without, kubenet, and kubenet in dual
//! stack. Never: a plan of its own: control's is used.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::OnceLock;

use control::compile::{self, NodeMacs};
use control::lab::fabric::{NicSpec, VnetSpec};
use control::lab::placement;
use control::plan::{LoadOptions, Node, Plan, Plugin, load};
use dataplane::addr::Mac;

/// Addresses for pods that each node of a simulation has: twice its pods.
pub(super) const ADDRESSES: usize = 8;

/// A node, planned.
pub(super) struct Place {
    pub(super) node: Node,
    pub(super) macs: NodeMacs,
    pub(super) nic: NicSpec,
    /// What a pod may be called: one address of each family that pods have.
    pub(super) addresses: Vec<Vec<IpAddr>>,
    /// Where pods send what is for another node.
    pub(super) gateway: Mac,
}

/// A cluster, planned.
pub(super) struct Site {
    pub(super) plan: Plan,
    pub(super) vnet: VnetSpec,
    pub(super) places: Vec<Place>,
}

/// All of them.
pub(super) fn sites() -> &'static [Site] {
    static SITES: OnceLock<Vec<Site>> = OnceLock::new();
    SITES.get_or_init(|| {
        let kubenet = LoadOptions {
            plugin: Some(Plugin::Kubenet),
            ..LoadOptions::built_in()
        };
        let dual_stack = LoadOptions::built_in_dual_stack();
        let all = [
            (LoadOptions::built_in(), true),
            (LoadOptions::built_in(), false),
            (kubenet, false),
            (dual_stack, false),
        ];
        all.iter()
            .map(|(options, policy)| Site::load(options, *policy))
            .collect()
    })
}

impl Site {
    /// With the network policy that the documents ask for, or without any.
    fn load(options: &LoadOptions, policy: bool) -> Site {
        let plan = load(options).expect("the built-in documents are sound");
        let plan = Plan {
            policy: plan.policy.filter(|_| policy),
            ..plan
        };
        let (nodes, _) = placement::choose(&plan);
        let places = nodes
            .into_iter()
            .map(|node| Place::of(&plan, node))
            .collect();
        let mut vnet = placement::vnet(&plan, false);
        // Here the masters have pods, too, so their subnet has the route table as well.
        let mut tables = vnet.subnets.iter().map(|subnet| subnet.route_table.clone());
        let table = tables.find(Option::is_some).flatten();
        for subnet in &mut vnet.subnets {
            subnet.route_table = table.clone();
        }
        Site { vnet, places, plan }
    }
}

impl Place {
    fn of(plan: &Plan, node: &Node) -> Place {
        let macs = placement::node_macs(plan, node);
        let range = compile::own_range_v6(plan, node);
        let v4: Vec<_> = match (&node.pod_ips, node.pod_cidr) {
            (Some(ips), _) => ips.iter().take(ADDRESSES).collect(),
            (None, Some(cidr)) => cidr.hosts().skip(1).take(ADDRESSES).collect(),
            (None, None) => Vec::new(),
        };
        let both = |(at, v4): (usize, std::net::Ipv4Addr)| {
            let beside = range.map(|range| range.network().to_bits() + 2 + at as u128);
            let v6 = beside.map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)));
            [IpAddr::V4(v4)].into_iter().chain(v6).collect()
        };
        Place {
            addresses: v4.into_iter().enumerate().map(both).collect(),
            nic: placement::nic(plan, node, macs),
            gateway: match plan.plugin {
                Plugin::Azure => compile::FABRIC_MAC,
                Plugin::Kubenet => macs.host.mac(),
            },
            node: node.clone(),
            macs,
        }
    }

    /// What the classifier at `eth0` gives the switch: packets for its pods, whether there are such
    /// or not, and answers of the fabric.
    pub(super) fn steers(&self, target: IpAddr) -> bool {
        match target {
            IpAddr::V4(target) => self
                .node
                .pod_range()
                .iter()
                .any(|range| range.contains(&target)),
            IpAddr::V6(target) => self
                .node
                .pod_cidr_v6
                .is_some_and(|range| range.contains(&target)),
        }
    }
}
