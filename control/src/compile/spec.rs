//! What one switch has to know of its node, whoever said it: the plan in the lab, the node itself
//! where the daemon runs.
//!
//! In: a plan and one of its nodes, or a node's own truth. Out: [`NodeSpec`], from which the tables
//! and the fixed devices of a switch follow.
//! Never: names a pod: those come and go.

use std::net::{IpAddr, Ipv4Addr};

use dataplane::addr::Station;
use dataplane::tables::fib::NextHop;
use dataplane::tables::{Addresses, Policy};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::guards::Guards;
use super::{FABRIC_MAC, NodeMacs, UPLINK_PORT, first_host_v6, gateway, gateway_v6, own_range_v6};
use crate::plan::{Node, Plan, Plugin};
use crate::routes;

/// A node, as its switch has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// How its pods get their addresses.
    pub plugin: Plugin,
    /// Its hardware.
    pub macs: NodeMacs,
    /// The MTU of its uplink.
    pub mtu: u16,
    /// Its own addresses on the uplink; the IPv6 one where the switch serves IPv6.
    pub own: Addresses,
    /// The IPv4 prefixes that hold exactly its pods' addresses: steered to the switch, and never
    /// left by the uplink.
    pub pods: Vec<Ipv4Net>,
    /// The IPv6 prefix of its pods, where the switch serves them.
    pub pods_v6: Option<Ipv6Net>,
    /// The gateways that the host port holds, with their links: under kubenet.
    pub gateways: Vec<IpNet>,
    /// The prefixes of services: the kernel's.
    pub services: Vec<IpNet>,
    /// Further prefixes that pods reach by way of the kernel.
    pub via_host: Vec<IpNet>,
    /// What the switch sends out of the uplink itself, the longest prefixes that differ.
    pub remote: Vec<Remote>,
    /// Whether pods reach each other by the kernel's rules only. Planned: no, since no policy agent
    /// runs in a lab.
    pub policy: Policy,
    /// What the guards of its ports do. Planned: all are on.
    pub guards: Guards,
}

/// A destination beyond the uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The prefix.
    pub prefix: IpNet,
    /// Where it leads.
    pub hop: NextHop,
    /// Who says so.
    pub source: String,
}

/// The next hop of everything that the fabric answers for.
#[must_use]
pub fn by_fabric() -> NextHop {
    NextHop::Station {
        port: UPLINK_PORT,
        mac: FABRIC_MAC,
    }
}

impl NodeSpec {
    /// A node as it is planned.
    #[must_use]
    pub fn planned(plan: &Plan, node: &Node, macs: NodeMacs) -> NodeSpec {
        let pods_v6 = own_range_v6(plan, node);
        let v4 = gateway(node).zip(node.pod_cidr);
        let v4 = v4.and_then(|(own, cidr)| Ipv4Net::new(own, cidr.prefix_len()).ok());
        let v6 = gateway_v6(plan, node).zip(node.pod_cidr_v6);
        let v6 = v6.and_then(|(own, cidr)| Ipv6Net::new(own, cidr.prefix_len()).ok());
        NodeSpec {
            name: node.name.clone(),
            plugin: plan.plugin,
            macs,
            mtu: node.mtu,
            own: Addresses {
                v4: Some(node.primary_ip),
                v6: node.primary_ip_v6.filter(|_| pods_v6.is_some()),
            },
            pods: node.pod_range(),
            pods_v6,
            gateways: v4
                .map(IpNet::V4)
                .into_iter()
                .chain(v6.map(IpNet::V6))
                .collect(),
            services: plan.service_cidrs.clone(),
            via_host: plan.via_host.clone(),
            remote: remote(plan, node),
            policy: Policy::None,
            guards: Guards::default(),
        }
    }

    /// The gateways without their links.
    #[must_use]
    pub fn gateway(&self) -> Addresses {
        let mut found = Addresses::default();
        for net in &self.gateways {
            match net.addr() {
                IpAddr::V4(v4) => found.v4 = Some(v4),
                IpAddr::V6(v6) => found.v6 = Some(v6),
            }
        }
        found
    }

    /// The host port's name, which operators' tools look for.
    #[must_use]
    pub fn host_device(&self) -> &'static str {
        host_device(self.plugin)
    }
}

/// The name of the host port under a plugin.
#[must_use]
pub const fn host_device(plugin: Plugin) -> &'static str {
    match plugin {
        Plugin::Azure => "azure0",
        Plugin::Kubenet => "cbr0",
    }
}

/// A fixed address for `cbr0`, made of its gateway's as the bridge plugin makes them.
#[must_use]
pub fn station_of(gateway: Ipv4Addr) -> Station {
    let [a, b, c, d] = gateway.octets();
    let mac = dataplane::addr::Mac::new([0x0a, 0x58, a, b, c, d]);
    Station::new(mac).expect("0a is no group's")
}

/// What the switch of a planned node sends out of the uplink itself, past the node's kernel.
#[must_use]
pub fn remote(plan: &Plan, node: &Node) -> Vec<Remote> {
    let hop = |prefix: IpNet, route: &routes::Route| match (plan.plugin, route.next_hop) {
        _ if discards(route) => NextHop::Blackhole,
        (Plugin::Azure, _) => by_fabric(),
        // The fabric answers for every address of its VNet, and for no other.
        (Plugin::Kubenet, routes::NextHop::VirtualAppliance(hop))
            if plan.vnet.prefixes.iter().any(|net| net.contains(&hop)) =>
        {
            NextHop::Neighbour(hop)
        }
        (Plugin::Kubenet, _) => NextHop::Neighbour(subnet_gateway(node, prefix.addr().is_ipv4())),
    };
    let sent = plan.sent_by_switch(node).into_iter();
    sent.map(|(prefix, route)| Remote {
        prefix,
        hop: hop(prefix, &route),
        source: source(plan, prefix, &route),
    })
    .collect()
}

/// Who made one of Azure's routes: a table's entry is called by the node that it leads to.
fn source(plan: &Plan, prefix: IpNet, route: &routes::Route) -> String {
    let far = plan.nodes.iter().find(|node| {
        let (v4, v6) = (node.pod_cidr, node.pod_cidr_v6);
        v4.map(IpNet::V4) == Some(prefix) || v6.map(IpNet::V6) == Some(prefix)
    });
    match (route.source, far, &route.name) {
        (routes::Source::User | routes::Source::Pods, Some(far), _) => {
            format!("route table: {}", far.name)
        }
        (routes::Source::User | routes::Source::Pods, None, Some(name)) => {
            format!("route table: {name}")
        }
        (routes::Source::User | routes::Source::Pods, None, None) => "route table".to_owned(),
        (routes::Source::Gateway, ..) => "a gateway".to_owned(),
        (routes::Source::System, ..) if plan.vnet.prefixes.contains(&prefix) => {
            "VNet prefix".to_owned()
        }
        (routes::Source::System, ..) => "system route".to_owned(),
    }
}

/// A route that somebody wrote to discard. Azure's own routes to nowhere are left to the fabric:
/// see [`crate::routes`].
fn discards(route: &routes::Route) -> bool {
    route.next_hop == routes::NextHop::None && route.source.is_user_defined()
}

/// The first host of the node's subnet, where its kernel's default route leads, too.
fn subnet_gateway(node: &Node, v4: bool) -> IpAddr {
    match node.subnet_prefix_v6.filter(|_| !v4) {
        Some(subnet) => first_host_v6(subnet).into(),
        None => Ipv4Addr::from_bits(node.subnet_prefix.network().to_bits() | 1).into(),
    }
}
