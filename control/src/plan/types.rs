//! What a plan says.
//!
//! In: nothing. Out: the types that the lab, the daemon and the command line share.
//! Never: decides anything.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model::{NetworkMode, Policy, Warning};
use crate::routes::{self, RouteTable, Source};

/// How pods get their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Plugin {
    /// From the VNet: each pod has an address of its node's NIC.
    Azure,
    /// From a pod CIDR per node, joined by a route table.
    Kubenet,
}

impl fmt::Display for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Plugin::Azure => "azure",
            Plugin::Kubenet => "kubenet",
        })
    }
}

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It runs the API server.
    Master,
    /// It runs the pods.
    Agent,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Master => "master",
            Role::Agent => "agent",
        })
    }
}

/// Everything that follows from the two documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The plugin planned for.
    pub plugin: Plugin,
    /// The mode planned for under azure: always bridge, the one whose place Tapline takes.
    pub network_mode: Option<NetworkMode>,
    /// Agents in the order of their pools, then masters.
    pub nodes: Vec<Node>,
    /// The route table's entries, in the order of `nodes`, IPv4 before IPv6. Under azure there are
    /// some in dual stack only, for IPv6.
    pub routes: Vec<Route>,
    /// The route tables: those that were given, and the cluster's own where there is one.
    pub route_tables: Vec<RouteTable>,
    /// The service CIDRs, IPv4 first.
    pub service_cidrs: Vec<IpNet>,
    /// The cluster subnets: pods' space under kubenet, nodes' and pods' under azure.
    pub cluster_subnets: Vec<IpNet>,
    /// The VNet.
    pub vnet: Vnet,
    /// Destinations to which pods keep their own source address.
    pub non_masquerade: Vec<IpNet>,
    /// Destinations, beside the services, that go by way of the host.
    pub via_host: Vec<IpNet>,
    /// Pods per node, unless a profile says otherwise.
    pub max_pods: u32,
    /// Whether the model enables dual stack.
    pub dual_stack: bool,
    /// Whether the NICs have `enableIPForwarding`.
    pub ip_forwarding: bool,
    /// Who enforces network policy, where the model names somebody.
    pub policy: Option<Policy>,
    /// Where the API server answers within the VNet.
    pub api_server: Option<Ipv4Addr>,
    /// What the operator should know.
    pub warnings: Vec<Warning>,
}

impl Plan {
    /// The node of that short name or hostname.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes
            .iter()
            .find(|node| node.name == name || node.hostname.as_deref() == Some(name))
    }
}

/// A VNet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vnet {
    /// Its name.
    pub name: String,
    /// Its address space, both families.
    pub prefixes: Vec<IpNet>,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
    /// The address spaces of the VNets that it is peered with.
    pub peers: Vec<IpNet>,
    /// What its gateway has learned, where Azure told.
    pub learned: Vec<IpNet>,
    /// The prefixes of services that some of its subnets reach by endpoints, where Azure told.
    pub endpoints: Vec<IpNet>,
}

/// A subnet of a VNet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Its name.
    pub name: String,
    /// Its IPv4 prefix.
    pub prefix: Ipv4Net,
    /// Its IPv6 prefix, where it has one.
    pub prefix_v6: Option<Ipv6Net>,
    /// Whether the template gives it service endpoints.
    pub service_endpoints: bool,
    /// Whether the template, or a route table that was given, says that it has one.
    pub route_table_attached: bool,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `node-0` and up for agents, `master-0` and up for masters.
    pub name: String,
    /// Its name in Kubernetes, where known.
    pub hostname: Option<String>,
    /// What it is for.
    pub role: Role,
    /// Its pool; `master` for masters.
    pub pool: String,
    /// The name of its subnet.
    pub subnet: String,
    /// The prefix of its subnet.
    pub subnet_prefix: Ipv4Net,
    /// Its own address.
    pub primary_ip: Ipv4Addr,
    /// The IPv6 prefix of its subnet, in dual stack.
    pub subnet_prefix_v6: Option<Ipv6Net>,
    /// Its own IPv6 address, in dual stack.
    pub primary_ip_v6: Option<Ipv6Addr>,
    /// Its pods' addresses under azure.
    pub pod_ips: Option<PodIps>,
    /// Its pods' prefix under kubenet.
    pub pod_cidr: Option<Ipv4Net>,
    /// Its pods' IPv6 prefix in dual stack.
    pub pod_cidr_v6: Option<Ipv6Net>,
    /// How many pods it runs.
    pub max_pods: u32,
    /// It runs Windows, so Tapline does not.
    pub windows: bool,
    /// The MTU of its `eth0`.
    pub mtu: u16,
}

impl Node {
    /// The prefixes that hold exactly the IPv4 addresses which this node's pods may have.
    #[must_use]
    pub fn pod_range(&self) -> Vec<Ipv4Net> {
        let pods = self.pod_ips.iter().flat_map(PodIps::iter);
        let pods = pods.map(Ipv4Net::from).chain(self.pod_cidr);
        let mut range = Ipv4Net::aggregate(&pods.collect());
        range.sort();
        range
    }
}

/// The addresses that a NIC holds for pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodIps {
    /// The lowest.
    pub first: Ipv4Addr,
    /// The highest.
    pub last: Ipv4Addr,
    /// How many there are.
    pub count: u32,
    /// Addresses between `first` and `last` that are someone else's.
    pub skipped: Vec<Ipv4Addr>,
}

impl PodIps {
    /// The addresses, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        (self.first.to_bits()..=self.last.to_bits())
            .map(Ipv4Addr::from_bits)
            .filter(|address| !self.skipped.contains(address))
    }
}

/// An entry of the route table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its name: that of the node.
    pub name: String,
    /// What it is for.
    pub prefix: IpNet,
    /// Where it leads.
    pub next_hop_type: NextHopType,
    /// The address it leads to.
    pub next_hop_ip: Option<IpAddr>,
}

impl From<&Route> for routes::Route {
    fn from(route: &Route) -> routes::Route {
        let next_hop = match (route.next_hop_type, route.next_hop_ip) {
            (NextHopType::VirtualAppliance, Some(address)) => {
                routes::NextHop::VirtualAppliance(address)
            }
            (NextHopType::VnetLocal, _) => routes::NextHop::VnetLocal,
            (NextHopType::Internet, _) => routes::NextHop::Internet,
            (NextHopType::VirtualNetworkGateway, _) => routes::NextHop::VirtualNetworkGateway,
            (NextHopType::None | NextHopType::VirtualAppliance, _) => routes::NextHop::None,
        };
        routes::Route {
            name: Some(route.name.clone()),
            ..routes::Route::new(route.prefix, next_hop, Source::Pods)
        }
    }
}

/// Where a route leads, as Azure names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextHopType {
    /// To a VM.
    VirtualAppliance,
    /// To the gateway of the VNet.
    VirtualNetworkGateway,
    /// Within the VNet.
    VnetLocal,
    /// Out.
    Internet,
    /// Nowhere.
    None,
}

impl fmt::Display for NextHopType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            NextHopType::VirtualAppliance => "VirtualAppliance",
            NextHopType::VirtualNetworkGateway => "VirtualNetworkGateway",
            NextHopType::VnetLocal => "VnetLocal",
            NextHopType::Internet => "Internet",
            NextHopType::None => "None",
        })
    }
}
