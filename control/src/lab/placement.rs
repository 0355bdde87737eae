//! Who is where in the lab's cluster: nodes, pods, their addresses, MACs and devices. Pure.
//!
//! In: a [`Plan`], and which addresses named pods should have. Out: what [`cluster`](super::cluster)
//! builds, and what `tapline trace` reckons with: both are told of one and the same cluster.
//! Never: makes a device, or needs a right.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::addr::{Mac, PortId, Station};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::fabric::{NicSpec, SubnetSpec, UserRoute, VnetSpec};
use crate::api::types::Key;
use crate::compile::spec::station_of;
use crate::compile::{self, FIRST_POD_PORT, NodeMacs, PodPort};
use crate::devices::attach::PodEnd;
use crate::devices::name::{self as names, DeviceName};
use crate::ipam::{Given, Pool, PoolFault, REST_DEFAULT};
use crate::plan::{Node, Plan, Plugin, PodIps};
use crate::routes::RouteTable;

/// Nodes that one lab builds: each costs a namespace, three TAPs and three threads.
pub const NODES_MAX: usize = 16;

/// The name of the host port, which the seed's tools look for.
#[must_use]
pub fn host_name(plan: &Plan) -> &'static str {
    compile::spec::host_device(plan.plugin)
}

/// The nodes to build, and what is said of the others.
#[must_use]
pub fn choose(plan: &Plan) -> (Vec<&Node>, Vec<String>) {
    let (windows, linux): (Vec<&Node>, Vec<&Node>) = plan.nodes.iter().partition(|n| n.windows);
    let mut left_out: Vec<String> = windows
        .iter()
        .map(|n| format!("{} runs Windows, which Tapline does not serve", n.name))
        .collect();
    // One master is kept, whatever the number of agents: it is the pods' peer in another subnet.
    let master = linux
        .iter()
        .position(|n| n.role == crate::plan::Role::Master);
    let mut chosen = Vec::new();
    for (at, node) in linux.iter().enumerate() {
        let reserve = usize::from(master.is_some_and(|master| master > at));
        if chosen.len() + reserve < NODES_MAX {
            chosen.push(*node);
        } else {
            left_out.push(format!(
                "{} is beyond the {NODES_MAX} nodes that a lab builds",
                node.name
            ));
        }
    }
    (chosen, left_out)
}

/// A pod, and what it hangs on.
#[derive(Clone, Debug)]
pub struct PlacedPod {
    /// `pod-a`.
    pub name: &'static str,
    /// The index of its node among those chosen.
    pub node: usize,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its IPv6 address, in dual stack.
    pub address_v6: Option<Ipv6Addr>,
    /// Its port of the node's switch.
    pub port: PodPort,
    /// The pod's end of its veth.
    pub end: PodEnd,
    /// The node's end of its veth.
    pub host_end: DeviceName,
    /// The switch's TAP.
    pub tap: DeviceName,
}

/// Two pods on each of the first two nodes that have addresses for them, with the `wished` addresses
/// where the node has them.
#[must_use]
pub fn place(plan: &Plan, nodes: &[&Node], wished: &BTreeMap<String, Ipv4Addr>) -> Vec<PlacedPod> {
    let mut homes = nodes
        .iter()
        .enumerate()
        .filter(|(_, node)| pod_addresses(node).next().is_some());
    let mut placed = Vec::new();
    for names in [["pod-a", "pod-b"], ["pod-c", "pod-d"]] {
        let Some((at, node)) = homes.next() else {
            break;
        };
        let wished = |name: &str| wished.get(name).copied();
        let taken: Vec<Ipv4Addr> = names.iter().filter_map(|n| wished(n)).collect();
        let mut free = pod_addresses(node).filter(|a| !taken.contains(a));
        for (ordinal, name) in names.into_iter().enumerate() {
            let legal = |a: &Ipv4Addr| pod_addresses(node).any(|own| own == *a);
            let address = wished(name).filter(legal).or_else(|| free.next());
            placed.extend(address.map(|address| pod(plan, node, at, (ordinal, name), address)));
        }
    }
    placed
}

/// What the lab's runtime calls a pod's container.
#[must_use]
pub fn container_id(pod: &str) -> String {
    format!("default.{pod}")
}

fn pod(
    plan: &Plan,
    node: &Node,
    at: usize,
    (ordinal, name): (usize, &'static str),
    address: Ipv4Addr,
) -> PlacedPod {
    let address_v6 = compile::own_range_v6(plan, node).map(|range| in_step(node, address, range));
    let v4 = std::iter::once(IpAddr::V4(address));
    let port = PodPort::new(
        PortId::new(FIRST_POD_PORT + ordinal).expect("a lab has a few pods"),
        station_of(address),
        v4.chain(address_v6.map(IpAddr::V6)).collect(),
    );
    let called = format!("{}-{}-eth0", plan.plugin, container_id(name));
    let (host_end, tap) = names::pod_devices(plan.plugin, &called);
    PlacedPod {
        name,
        node: at,
        address,
        address_v6,
        end: pod_end(node, &port),
        port,
        host_end,
        tap,
    }
}

/// The VNet with its subnets and their route tables. `detached` leaves the table off the subnets, as a
/// custom VNet has it before anyone attaches it.
#[must_use]
pub fn vnet(plan: &Plan, detached: bool) -> VnetSpec {
    // The seed's build script attaches the table to the agents' subnets after deployment.
    let agents: Vec<&str> = plan
        .nodes
        .iter()
        .filter(|n| n.role == crate::plan::Role::Agent)
        .map(|n| n.subnet.as_str())
        .collect();
    let table = |subnet: &crate::plan::Subnet| {
        let attached = subnet.route_table_attached || agents.contains(&subnet.name.as_str());
        let own = plan.own_table().filter(|_| attached);
        let table = plan.table_of(&subnet.name).or(own);
        table.filter(|_| !detached).map(user_routes)
    };
    let subnet = |subnet: &crate::plan::Subnet| SubnetSpec {
        name: subnet.name.clone(),
        prefixes: [subnet.prefix.into()]
            .into_iter()
            .chain(subnet.prefix_v6.map(IpNet::V6))
            .collect(),
        route_table: table(subnet),
    };
    VnetSpec {
        prefixes: plan.vnet.prefixes.clone(),
        subnets: plan.vnet.subnets.iter().map(subnet).collect(),
    }
}

/// A table's routes as the fabric has them.
fn user_routes(table: &RouteTable) -> Vec<UserRoute> {
    let route = |route: &crate::routes::Route| UserRoute {
        name: route.name.clone().unwrap_or_default(),
        prefix: route.prefix,
        next_hop: route.next_hop,
    };
    table.routes.iter().map(route).collect()
}

/// A node's NIC, as the fabric knows it.
#[must_use]
pub fn nic(plan: &Plan, node: &Node, macs: NodeMacs) -> NicSpec {
    let secondary = node.pod_ips.iter().flat_map(|ips| ips.iter());
    let addresses = std::iter::once(node.primary_ip)
        .chain(secondary)
        .map(IpAddr::V4)
        .chain(node.primary_ip_v6.map(IpAddr::V6));
    NicSpec {
        name: node.name.clone(),
        mac: macs.nic.mac(),
        addresses: addresses.collect(),
        subnet: node.subnet.clone(),
        forwarding: plan.ip_forwarding,
        mtu: node.mtu,
    }
}

fn pod_end(node: &Node, port: &PodPort) -> PodEnd {
    // On an azure node a pod's link is the whole subnet, under kubenet the node's pod CIDR; all of
    // them have their gateway at the first host.
    let link = node.pod_cidr.unwrap_or(node.subnet_prefix);
    let mut end = PodEnd {
        name: device("eth0"),
        mac: port.mac.mac(),
        addresses: Vec::new(),
        gateways: Vec::new(),
        mtu: node.mtu.into(),
    };
    for address in &port.addresses {
        let (length, gateway) = match (address, node.pod_cidr_v6) {
            (IpAddr::V4(_), _) => (link.prefix_len(), link.hosts().next().map(IpAddr::V4)),
            (IpAddr::V6(_), Some(cidr)) => {
                let gateway = compile::first_host_v6(cidr);
                (cidr.prefix_len(), Some(gateway.into()))
            }
            (IpAddr::V6(_), None) => unreachable!("a pod's IPv6 address is of its node's range"),
        };
        let own = IpNet::new(*address, length).expect("the length comes from a prefix");
        end.addresses.push(own);
        end.gateways.extend(gateway);
    }
    end
}

/// The IPv6 address that goes with a pod's IPv4 address: `host-local` hands out both ranges in
/// step, so a pod is as far from the start of the one as of the other.
fn in_step(node: &Node, address: Ipv4Addr, range: Ipv6Net) -> Ipv6Addr {
    let start = node.pod_cidr.unwrap_or(node.subnet_prefix).network();
    let host = address.to_bits() - start.to_bits();
    Ipv6Addr::from_bits(range.network().to_bits() | u128::from(host))
}

/// The addresses a pod of this node may have, lowest first.
fn pod_addresses(node: &Node) -> Box<dyn Iterator<Item = Ipv4Addr> + '_> {
    match (&node.pod_ips, node.pod_cidr) {
        (Some(ips), _) => Box::new(ips.iter()),
        (None, Some(cidr)) => Box::new(cidr.hosts().skip(1)),
        (None, None) => Box::new(std::iter::empty()),
    }
}

/// The addresses that a node gives to its pods: as the fabric tells of its NIC, or of its pod CIDR.
///
/// # Errors
/// A pod CIDR that is too small.
pub fn pool(plan: &Plan, node: &Node) -> Result<Pool<Key>, PoolFault> {
    if let Some(cidr) = node.pod_cidr {
        let v6 = compile::own_range_v6(plan, node).map(IpNet::V6);
        let cidrs = std::iter::once(IpNet::V4(cidr)).chain(v6);
        let cidrs: Vec<_> = cidrs.map(|cidr| (cidr, None)).collect();
        return Pool::of_pod_cidrs(&cidrs);
    }
    let subnet = node.subnet_prefix;
    let gateway = subnet.hosts().next().unwrap_or(subnet.addr());
    let given = |address| Given {
        address: Ipv4Net::new(address, subnet.prefix_len())
            .expect("the length comes from a prefix")
            .into(),
        gateway: gateway.into(),
    };
    let addresses: Vec<Given> = node
        .pod_ips
        .iter()
        .flat_map(PodIps::iter)
        .map(given)
        .collect();
    Ok(Pool::of_secondary_addresses(&addresses, REST_DEFAULT))
}

/// A NIC has one of Microsoft's addresses; `azure0` has the NIC's (the bridge inherits it), `cbr0`
/// one made of its IP address, as the bridge plugin makes them.
#[must_use]
pub fn node_macs(plan: &Plan, node: &Node) -> NodeMacs {
    let [_, b, c, d] = node.primary_ip.octets();
    let nic = Station::new(Mac::new([0x00, 0x0d, 0x3a, b, c, d])).expect("neither group nor zero");
    let host = match (plan.plugin, compile::gateway(node)) {
        (Plugin::Kubenet, Some(gateway)) => station_of(gateway),
        _ => nic,
    };
    NodeMacs { nic, host }
}

pub(super) fn device(name: &str) -> DeviceName {
    DeviceName::new(name).expect("our own names are device names")
}
