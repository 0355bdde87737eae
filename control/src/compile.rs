//! From a plan to a switch's tables: one node, as it stands, in the words of the dataplane.
//!
//! In: the plan, one of its nodes, and the pods attached to it now.
//! Out: a [`TablesSpec`] for the dataplane to check. Pure.
//! Never: two code paths in the switch: azure and kubenet differ in these rows only.
//!
//! | route | azure | kubenet |
//! |---|---|---|
//! | a pod here | its port | its port |
//! | another address of this node's range | unreachable | unreachable |
//! | another node's pods | the VNet's prefix, by the fabric's MAC | the node, by ARP |
//! | services, Azure's platform, the node itself | host | host |
//! | anything else | host, which masquerades | host, which masquerades |

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use dataplane::addr::{Mac, PortId, Station};
use dataplane::tables::fib::NextHop;
use dataplane::tables::{Addresses, Crossing, Owner, PortRole, PortSpec, TablesSpec, Unknown};
use ipnet::{IpNet, Ipv4Net};

use crate::plan::{Node, Plan, Plugin};

/// The hardware address with which Azure's fabric answers for every address of a VNet
/// (azure-container-networking, `network/network.go`, `virtualMacAddress`).
pub const FABRIC_MAC: Mac = Mac::new([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);

/// The port of the node's own kernel.
pub const HOST_PORT: PortId = port(0);
/// The port of the node's NIC.
pub const UPLINK_PORT: PortId = port(1);
/// The first port for pods.
pub const FIRST_POD_PORT: usize = 2;

/// Azure's own services on every VM (DNS, DHCP, wireserver) and link-local metadata: the kernel's.
const PLATFORM: [Ipv4Net; 2] = [
    Ipv4Net::new_assert(Ipv4Addr::new(168, 63, 129, 16), 32),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
];

const fn port(index: usize) -> PortId {
    match PortId::new(index) {
        Some(port) => port,
        None => panic!("an index below the limit"),
    }
}

/// The hardware of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeMacs {
    /// Of `eth0`.
    pub nic: Station,
    /// Of `azure0` (the NIC's) or `cbr0` (a fixed one).
    pub host: Station,
}

/// A pod on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPort {
    /// Its port.
    pub port: PortId,
    /// Its hardware address.
    pub mac: Station,
    /// Its protocol addresses.
    pub addresses: Vec<IpAddr>,
    /// May it reach itself through the switch?
    pub hairpin: bool,
}

/// The tables of `node`'s switch.
#[must_use]
pub fn compile(plan: &Plan, node: &Node, macs: NodeMacs, pods: &[PodPort]) -> TablesSpec {
    let mut routes = Routes::default();
    for pod in pods {
        for address in &pod.addresses {
            let hop = NextHop::Station {
                port: pod.port,
                mac: pod.mac.mac(),
            };
            routes.add(IpNet::from(*address), hop);
        }
    }
    to_the_kernel(&mut routes, plan, node);
    match plan.plugin {
        Plugin::Azure => azure(&mut routes, plan, node),
        Plugin::Kubenet => kubenet(&mut routes, plan, node),
    }
    routes.add(IpNet::V4(Ipv4Net::default()), NextHop::Host);
    TablesSpec {
        ports: ports(node, macs, pods),
        owners: owners(plan, node, macs, pods),
        router_macs: router_macs(plan, macs),
        routes: routes.0.into_iter().collect(),
        groups: Vec::new(),
        crossing: crossing(plan, node),
        unknown: match plan.plugin {
            Plugin::Azure => Unknown::Drop,
            Plugin::Kubenet => Unknown::Flood,
        },
    }
}

/// Routes in the order of their importance: of two for one prefix the first stays.
#[derive(Default)]
struct Routes(BTreeMap<IpNet, NextHop>);

impl Routes {
    fn add(&mut self, prefix: IpNet, hop: NextHop) {
        self.0.entry(prefix.trunc()).or_insert(hop);
    }
}

/// The node's own addresses, services and Azure's platform: the kernel translates and answers.
fn to_the_kernel(routes: &mut Routes, plan: &Plan, node: &Node) {
    routes.add(IpNet::from(IpAddr::V4(node.primary_ip)), NextHop::Host);
    if let Some(gateway) = gateway(node) {
        routes.add(IpNet::from(IpAddr::V4(gateway)), NextHop::Host);
    }
    for prefix in plan
        .service_cidrs
        .iter()
        .chain(&plan.via_host)
        .filter(|p| p.addr().is_ipv4())
    {
        routes.add(*prefix, NextHop::Host);
    }
    for prefix in PLATFORM {
        routes.add(prefix.into(), NextHop::Host);
    }
}

fn azure(routes: &mut Routes, plan: &Plan, node: &Node) {
    for prefix in own_range(node) {
        routes.add(prefix.into(), NextHop::Unreachable);
    }
    let fabric = NextHop::Station {
        port: UPLINK_PORT,
        mac: FABRIC_MAC,
    };
    for prefix in &plan.vnet.prefixes {
        routes.add((*prefix).into(), fabric);
    }
}

fn kubenet(routes: &mut Routes, plan: &Plan, node: &Node) {
    if let Some(cidr) = node.pod_cidr {
        routes.add(cidr.into(), NextHop::Unreachable);
    }
    for other in plan.nodes.iter().filter(|other| other.name != node.name) {
        if let Some(cidr) = other.pod_cidr {
            routes.add(cidr.into(), NextHop::Neighbour(other.primary_ip.into()));
        }
    }
}

/// The prefixes that hold exactly the addresses which this node's pods may have: what is steered
/// to the switch, and what never leaves by the uplink.
#[must_use]
pub fn own_range(node: &Node) -> Vec<Ipv4Net> {
    let secondary = node
        .pod_ips
        .iter()
        .flat_map(|ips| ips.iter())
        .map(Ipv4Net::from);
    let mut own: Vec<Ipv4Net> = secondary.chain(node.pod_cidr).collect();
    own = Ipv4Net::aggregate(&own);
    own.sort();
    own
}

/// The gateway of the node's pods, which `cbr0` holds: the first host of the pod CIDR.
#[must_use]
pub fn gateway(node: &Node) -> Option<Ipv4Addr> {
    node.pod_cidr?.hosts().next()
}

fn ports(node: &Node, macs: NodeMacs, pods: &[PodPort]) -> Vec<PortSpec> {
    let row = |id, role, mac, hairpin| PortSpec {
        id,
        role,
        mac,
        mtu: node.mtu,
        hairpin,
    };
    let fixed = [
        row(HOST_PORT, PortRole::Host, macs.host, false),
        row(UPLINK_PORT, PortRole::Uplink, macs.nic, false),
    ];
    let pods = pods
        .iter()
        .map(|pod| row(pod.port, PortRole::Pod, pod.mac, pod.hairpin));
    fixed.into_iter().chain(pods).collect()
}

fn owners(plan: &Plan, node: &Node, macs: NodeMacs, pods: &[PodPort]) -> Vec<(IpAddr, Owner)> {
    let host = Owner {
        port: HOST_PORT,
        mac: macs.host.mac(),
    };
    let own = match plan.plugin {
        Plugin::Azure => Some(node.primary_ip),
        Plugin::Kubenet => gateway(node),
    };
    let own = own.into_iter().map(|address| (IpAddr::V4(address), host));
    let pods = pods.iter().flat_map(|pod| {
        let owner = Owner {
            port: pod.port,
            mac: pod.mac.mac(),
        };
        pod.addresses.iter().map(move |address| (*address, owner))
    });
    own.chain(pods).collect()
}

/// Whom pods address what they want routed to: the fabric and the node, or the gateway.
fn router_macs(plan: &Plan, macs: NodeMacs) -> Vec<Mac> {
    match plan.plugin {
        Plugin::Azure => vec![FABRIC_MAC, macs.nic.mac()],
        Plugin::Kubenet => vec![macs.host.mac()],
    }
}

fn crossing(plan: &Plan, node: &Node) -> Crossing {
    match plan.plugin {
        Plugin::Azure => Crossing::Bridged,
        Plugin::Kubenet => Crossing::Routed {
            uplink: node.primary_ip.into(),
            gateway: Addresses {
                v4: gateway(node),
                v6: None,
            },
        },
    }
}
