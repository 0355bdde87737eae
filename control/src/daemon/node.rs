//! From a configuration and a node's truth to what its switch has to know.
//!
//! In: a checked [`NodeConfig`] and a [`NodeTruth`]. Out: a [`NodeSpec`], [`Settings`], and the
//! addresses to give. Pure.
//! Never: takes an address, a prefix or a MAC of the node from the plan.

use std::net::IpAddr;

use dataplane::addr::Station;
use dataplane::tables::fib::NextHop;
use dataplane::tables::{Addresses, Policy};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::core::Settings;
use crate::api::types::Key;
use crate::compile::spec::{Remote, by_fabric, station_of};
use crate::compile::{NodeMacs, NodeSpec, first_host_v6};
use crate::config::{HostMac, NodeConfig, PolicyMode, Via};
use crate::ipam::{Given, Pool, PoolFault, REST_DEFAULT};
use crate::plan::Plugin;

/// What a node is, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTruth {
    /// The MAC of its uplink.
    pub nic: Station,
    /// The MTU of its uplink.
    pub mtu: u16,
    /// Its own addresses on the uplink.
    pub own: Addresses,
    /// What its pods get.
    pub pods: PodAddresses,
}

/// What a node may give to its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodAddresses {
    /// azure: the secondary addresses of its NIC.
    Secondary(Vec<Given>),
    /// kubenet: its pod CIDRs, at most one of each family.
    Cidrs(Vec<IpNet>),
}

/// A truth that the switch can do nothing with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// No IPv4 address of its own.
    #[error("the node has no IPv4 address on its uplink")]
    NoAddress,
    /// No address for a pod.
    #[error("the node has no addresses for pods")]
    NoPods,
    /// A pod CIDR that is too small, or two of one family.
    #[error(transparent)]
    Pool(#[from] PoolFault),
}

/// What the switch has to know of the node.
///
/// # Errors
/// [`Unfit`].
pub fn spec(config: &NodeConfig, truth: &NodeTruth) -> Result<NodeSpec, Unfit> {
    if truth.own.v4.is_none() {
        return Err(Unfit::NoAddress);
    }
    let pods = v4_range(&truth.pods);
    let gateways = gateways(&truth.pods);
    if pods.is_empty() {
        return Err(Unfit::NoPods);
    }
    let pods_v6 = match &truth.pods {
        PodAddresses::Cidrs(nets) => nets.iter().find_map(|net| match net {
            IpNet::V6(net) => Some(net.trunc()),
            IpNet::V4(_) => None,
        }),
        // Under azure the node translates its pods' IPv6: it is not switched.
        PodAddresses::Secondary(_) => None,
    };
    let pods_v6 = pods_v6.filter(|_| truth.own.v6.is_some());
    let gateway = gateways.iter().find_map(|net| match net.addr() {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    });
    let host = match (config.host_port.mac, gateway) {
        (HostMac::Fixed(mac), _) => mac,
        (HostMac::OfGateway, Some(gateway)) => station_of(gateway),
        (HostMac::OfGateway, None) | (HostMac::Nic, _) => truth.nic,
    };
    Ok(NodeSpec {
        name: config.node.clone(),
        plugin: config.plugin,
        macs: NodeMacs {
            nic: truth.nic,
            host,
        },
        mtu: config.uplink.mtu.unwrap_or(truth.mtu),
        own: Addresses {
            v4: truth.own.v4,
            v6: truth.own.v6.filter(|_| pods_v6.is_some()),
        },
        pods,
        pods_v6,
        gateways: gateways
            .into_iter()
            .filter(|net| net.addr().is_ipv4() || pods_v6.is_some())
            .collect(),
        services: config.surroundings.services.clone(),
        via_host: config.surroundings.via_host.clone(),
        remote: remote(config, pods_v6.is_some()),
        policy: match config.policy {
            PolicyMode::None => Policy::None,
            // An agent may start after the pods, and its rules hold from the first frame on.
            PolicyMode::Auto | PolicyMode::ViaHost => Policy::ViaHost,
        },
        guards: config.guards.clone(),
    })
}

/// How the daemon runs.
#[must_use]
pub fn settings(config: &NodeConfig) -> Settings {
    Settings {
        uplink: config.uplink.device.clone(),
        uplink_tap: config.uplink.tap.clone(),
        host: config.host_port.device.clone(),
        pod_mtu: config.pods.mtu,
        pods_max: config.pods.max.into(),
        bandwidth: config.pods.bandwidth,
        workers: config.workers,
        cpus: config.cpus.clone(),
        spin: config.spin,
        policy: config.policy,
    }
}

/// The addresses to give.
///
/// # Errors
/// [`Unfit::Pool`].
pub fn pool(truth: &NodeTruth) -> Result<Pool<Key>, Unfit> {
    Ok(match &truth.pods {
        PodAddresses::Secondary(addresses) => Pool::of_secondary_addresses(addresses, REST_DEFAULT),
        PodAddresses::Cidrs(nets) => {
            let served = |net: &&IpNet| net.addr().is_ipv4() || truth.own.v6.is_some();
            let nets: Vec<_> = nets.iter().filter(served).map(|net| (*net, None)).collect();
            Pool::of_pod_cidrs(&nets)?
        }
    })
}

fn remote(config: &NodeConfig, dual_stack: bool) -> Vec<Remote> {
    let rows = config.surroundings.routes.iter();
    let served = rows.filter(|row| row.to.addr().is_ipv4() || dual_stack);
    let rows = served.map(|row| Remote {
        prefix: row.to,
        hop: match row.via {
            Via::Fabric => by_fabric(),
            Via::Neighbour(address) => NextHop::Neighbour(address),
            Via::Discard => NextHop::Blackhole,
        },
        source: "configuration".to_owned(),
    });
    rows.collect()
}

fn v4_range(pods: &PodAddresses) -> Vec<Ipv4Net> {
    let v4 = |net: IpNet| match net {
        IpNet::V4(net) => Some(net),
        IpNet::V6(_) => None,
    };
    let nets: Vec<Ipv4Net> = match pods {
        PodAddresses::Secondary(given) => {
            let addresses = given.iter().map(|given| given.address.addr());
            addresses.filter_map(|address| v4(address.into())).collect()
        }
        PodAddresses::Cidrs(nets) => nets.iter().filter_map(|net| v4(net.trunc())).collect(),
    };
    let mut range = Ipv4Net::aggregate(&nets);
    range.sort();
    range
}

/// The first host of each pod CIDR, on its link.
fn gateways(pods: &PodAddresses) -> Vec<IpNet> {
    let PodAddresses::Cidrs(nets) = pods else {
        return Vec::new();
    };
    let first = |net: &IpNet| match net {
        IpNet::V4(net) => {
            let first = net.hosts().next()?;
            Ipv4Net::new(first, net.prefix_len()).ok().map(IpNet::V4)
        }
        IpNet::V6(net) => {
            let first = first_host_v6(*net);
            Ipv6Net::new(first, net.prefix_len()).ok().map(IpNet::V6)
        }
    };
    nets.iter().filter_map(first).collect()
}

/// A plugin and a truth that do not go together are no node: which is which is said by the
/// sources, and the configuration names the sources of its own plugin only.
#[must_use]
pub fn fits(plugin: Plugin, pods: &PodAddresses) -> bool {
    matches!(
        (plugin, pods),
        (Plugin::Azure, PodAddresses::Secondary(_)) | (Plugin::Kubenet, PodAddresses::Cidrs(_))
    )
}
