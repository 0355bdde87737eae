//! From a configuration and the node's truth to what its switch has to know.
//!
//! In: a [`NodeConfig`], what the uplink looks like, and a [`NodeTruth`]. Out: a [`NodeSpec`] and the
//! addresses to give out, or why they do not go together. Never: reads the plan.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::addr::Station;
use dataplane::tables::fib::NextHop;
use dataplane::tables::{Addresses, Policy};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::truth::{NodeTruth, PodCidrs};
use crate::compile::spec::{Remote, by_fabric, station_of};
use crate::compile::{NodeMacs, NodeSpec, first_host_v6};
use crate::config::{HostMac, NodeConfig, PolicyMode, Via};
use crate::devices::{DeviceError, DeviceName, Netlink};
use crate::ipam::{Given, Pool, PoolFault, REST_DEFAULT};

/// The uplink as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its MAC, if one station can have it.
    pub mac: Option<Station>,
    /// Its MTU.
    pub mtu: u32,
    /// Its addresses with their links, without link-local ones.
    pub addresses: Vec<IpNet>,
}

impl Seen {
    /// Looks at the device.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] without it, otherwise what the kernel says.
    pub fn look(node: &Netlink, device: &DeviceName) -> Result<Seen, DeviceError> {
        let link = node.link(device)?;
        let kept = |net: &IpNet| match net.addr() {
            IpAddr::V4(v4) => !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        };
        let addresses = node.addresses(device)?;
        Ok(Seen {
            mac: link.mac.and_then(|mac| Station::new(mac).ok()),
            mtu: link.mtu,
            addresses: addresses.into_iter().filter(kept).collect(),
        })
    }

    fn v4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|net| match net {
            IpNet::V4(net) => Some(net.addr()),
            IpNet::V6(_) => None,
        })
    }

    fn v6(&self) -> Option<Ipv6Addr> {
        self.addresses.iter().find_map(|net| match net {
            IpNet::V6(net) => Some(net.addr()),
            IpNet::V4(_) => None,
        })
    }
}

/// Why configuration, uplink and truth do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// A device without a MAC of its own, such as a tunnel.
    #[error("{0} has no MAC that one station can have")]
    NoMac(DeviceName),
    /// Another device than the one meant.
    #[error("{device} has the MAC {found}, where the configuration wants {wanted}")]
    OtherMac {
        /// The uplink.
        device: DeviceName,
        /// What it has.
        found: Station,
        /// What it should have.
        wanted: Station,
    },
    /// A kubenet node that nobody can reach.
    #[error("{0} has no IPv4 address, by which other nodes would reach this node's pods")]
    NoAddress(DeviceName),
    /// Frames would be lost on the device without a word.
    #[error("an MTU of {wanted} is configured, and {device} has {found}")]
    Mtu {
        /// The uplink.
        device: DeviceName,
        /// What it has.
        found: u32,
        /// What is configured.
        wanted: u16,
    },
}

/// What the node's switch has to know.
///
/// # Errors
/// [`Misfit`], the first.
pub fn spec(config: &NodeConfig, seen: &Seen, truth: &NodeTruth) -> Result<NodeSpec, Misfit> {
    let device = &config.uplink.device;
    let nic = seen.mac.ok_or_else(|| Misfit::NoMac(device.clone()))?;
    if let Some(wanted) = config.uplink.mac.filter(|wanted| *wanted != nic) {
        let (device, found) = (device.clone(), nic);
        return Err(Misfit::OtherMac {
            device,
            found,
            wanted,
        });
    }
    let mtu = mtu(config, seen)?;
    let (own, gateways) = match truth {
        NodeTruth::Azure(addresses) => {
            let own = Addresses {
                v4: Some(addresses.primary),
                v6: None,
            };
            (own, Vec::new())
        }
        NodeTruth::Kubenet(cidrs) => {
            let v4 = seen.v4().ok_or_else(|| Misfit::NoAddress(device.clone()))?;
            let own = Addresses {
                v4: Some(v4),
                v6: seen.v6().filter(|_| cidrs.v6.is_some()),
            };
            (own, gateways(cidrs, own.v6.is_some()))
        }
    };
    let host = match (config.host_port.mac, gateways.first()) {
        (HostMac::Fixed(mac), _) => mac,
        (HostMac::OfGateway, Some(IpNet::V4(gateway))) => station_of(gateway.addr()),
        (HostMac::OfGateway | HostMac::Nic, _) => nic,
    };
    let pods = truth.pods();
    let pods_v6 = truth.pods_v6().filter(|_| own.v6.is_some());
    let remote = remote(config, &pods, pods_v6);
    Ok(NodeSpec {
        name: config.node.clone(),
        plugin: config.plugin,
        macs: NodeMacs { nic, host },
        mtu,
        own,
        pods,
        pods_v6,
        gateways,
        services: config.surroundings.services.clone(),
        via_host: config.surroundings.via_host.clone(),
        remote,
        // An agent may start after the pods, so only an explicit word turns this off.
        policy: match config.policy {
            PolicyMode::None => Policy::None,
            PolicyMode::Auto | PolicyMode::ViaHost => Policy::ViaHost,
        },
    })
}

fn mtu(config: &NodeConfig, seen: &Seen) -> Result<u16, Misfit> {
    match config.uplink.mtu {
        Some(wanted) if u32::from(wanted) > seen.mtu => Err(Misfit::Mtu {
            device: config.uplink.device.clone(),
            found: seen.mtu,
            wanted,
        }),
        Some(wanted) => Ok(wanted),
        // A TAP takes no more than this (TUN's MAX_MTU less what a frame has before its packet).
        None => Ok(u16::try_from(seen.mtu).unwrap_or(u16::MAX).min(65_521)),
    }
}

/// The gateways that the host port holds: the first host of each pod CIDR.
fn gateways(cidrs: &PodCidrs, v6: bool) -> Vec<IpNet> {
    let of_v4 = cidrs.v4.and_then(|cidr| {
        let first = Ipv4Addr::from_bits(cidr.network().to_bits() | 1);
        Ipv4Net::new(first, cidr.prefix_len()).ok()
    });
    let of_v6 = cidrs.v6.filter(|_| v6);
    let of_v6 = of_v6.and_then(|cidr| Ipv6Net::new(first_host_v6(cidr), cidr.prefix_len()).ok());
    let v4 = of_v4.map(IpNet::V4).into_iter();
    v4.chain(of_v6.map(IpNet::V6)).collect()
}

/// The configured destinations but those that turned out to be this node's own pods.
fn remote(config: &NodeConfig, pods: &[Ipv4Net], pods_v6: Option<Ipv6Net>) -> Vec<Remote> {
    let own = pods.iter().copied().map(IpNet::V4);
    let own: Vec<IpNet> = own.chain(pods_v6.map(IpNet::V6)).collect();
    let served = |net: &IpNet| net.addr().is_ipv4() || pods_v6.is_some();
    let rows = config.surroundings.routes.iter();
    rows.filter(|row| served(&row.to) && !own.iter().any(|own| own.contains(&row.to)))
        .map(|row| Remote {
            prefix: row.to,
            hop: match row.via {
                Via::Fabric => by_fabric(),
                Via::Neighbour(address) => NextHop::Neighbour(address),
                Via::Discard => NextHop::Blackhole,
            },
        })
        .collect()
}

/// The addresses that the node may give out.
///
/// # Errors
/// [`PoolFault`], the first.
pub fn pool<K>(truth: &NodeTruth) -> Result<Pool<K>, PoolFault>
where
    K: Clone + Eq + std::fmt::Display,
{
    match truth {
        NodeTruth::Azure(_) => Ok(Pool::of_secondary_addresses(
            &secondary(truth),
            REST_DEFAULT,
        )),
        NodeTruth::Kubenet(cidrs) => {
            let cidrs: Vec<_> = cidrs.iter().map(|net| (net, None)).collect();
            Pool::of_pod_cidrs(&cidrs)
        }
    }
}

/// The secondary addresses of an azure node, as [`Pool::relist`] takes them; none under kubenet.
#[must_use]
pub fn secondary(truth: &NodeTruth) -> Vec<Given> {
    let NodeTruth::Azure(nic) = truth else {
        return Vec::new();
    };
    let given = |address: &Ipv4Addr| Given {
        address: IpNet::V4(Ipv4Net::new(*address, nic.subnet.prefix_len()).expect("32 at most")),
        gateway: nic.gateway().into(),
    };
    nic.secondary.iter().map(given).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::node::truth::NicAddresses;
    use crate::plan::{LoadOptions, Plan, Plugin, load};

    fn plan(plugin: Plugin, dual_stack: bool) -> Plan {
        let options = match dual_stack {
            true => LoadOptions::built_in_dual_stack(),
            false => LoadOptions::built_in(),
        };
        load(&LoadOptions {
            plugin: Some(plugin),
            ..options
        })
        .unwrap()
    }

    fn station(text: &str) -> Station {
        Station::new(text.parse().unwrap()).unwrap()
    }

    fn truth_of(plan: &Plan, node: &crate::plan::Node) -> NodeTruth {
        match plan.plugin {
            Plugin::Azure => {
                let pods = node.pod_ips.as_ref().unwrap().iter().map(|a| (a, false));
                let all: Vec<_> = std::iter::once((node.primary_ip, true))
                    .chain(pods)
                    .collect();
                NodeTruth::Azure(NicAddresses::new(None, node.subnet_prefix, &all).unwrap())
            }
            Plugin::Kubenet => {
                let v4 = node.pod_cidr.map(IpNet::V4).into_iter();
                let nets: Vec<IpNet> = v4.chain(node.pod_cidr_v6.map(IpNet::V6)).collect();
                NodeTruth::Kubenet(PodCidrs::new(&nets).unwrap())
            }
        }
    }

    /// Where plan and node agree, the daemon's tables are the lab's.
    #[test]
    fn a_node_that_is_as_planned_has_the_tables_that_the_plan_gives_it() {
        for plan in [
            plan(Plugin::Azure, false),
            plan(Plugin::Kubenet, false),
            plan(Plugin::Kubenet, true),
        ] {
            for node in &plan.nodes {
                let text = crate::config::for_node(&plan, node, Some(&node.name));
                let config = crate::config::parse("tapline.json", text.as_bytes()).unwrap();
                let own_v6 = node.primary_ip_v6.map(|ip| IpNet::from(IpAddr::V6(ip)));
                let own = IpNet::from(IpAddr::V4(node.primary_ip));
                let seen = Seen {
                    mac: Some(station("00:0d:3a:21:af:12")),
                    mtu: node.mtu.into(),
                    addresses: std::iter::once(own).chain(own_v6).collect(),
                };
                let found = spec(&config, &seen, &truth_of(&plan, node)).unwrap();
                let macs = found.macs;
                let planned = NodeSpec {
                    policy: Policy::ViaHost,
                    ..NodeSpec::planned(&plan, node, macs)
                };
                assert_eq!(found, planned);
                let unwatched = NodeConfig {
                    policy: PolicyMode::None,
                    ..config.clone()
                };
                let truth = truth_of(&plan, node);
                let found = spec(&unwatched, &seen, &truth).unwrap();
                assert_eq!(found, NodeSpec::planned(&plan, node, macs));
                assert_eq!(macs.nic, seen.mac.unwrap());
            }
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_name() {
        let plan = plan(Plugin::Kubenet, false);
        let node = &plan.nodes[0];
        let text = crate::config::for_node(&plan, node, None);
        let config = crate::config::parse("tapline.json", text.as_bytes()).unwrap();
        let truth = truth_of(&plan, node);
        let seen = Seen {
            mac: Some(station("00:0d:3a:21:af:12")),
            mtu: 1500,
            addresses: vec!["10.20.0.4/24".parse().unwrap()],
        };
        let eth0 = config.uplink.device.clone();
        let fault = |config: &NodeConfig, seen: &Seen| spec(config, seen, &truth).unwrap_err();
        let bare = Seen {
            mac: None,
            ..seen.clone()
        };
        assert_eq!(fault(&config, &bare), Misfit::NoMac(eth0.clone()));
        let lone = Seen {
            addresses: Vec::new(),
            ..seen.clone()
        };
        assert_eq!(fault(&config, &lone), Misfit::NoAddress(eth0.clone()));
        let small = Seen {
            mtu: 1400,
            ..seen.clone()
        };
        let wanted = Misfit::Mtu {
            device: eth0.clone(),
            found: 1400,
            wanted: 1500,
        };
        assert_eq!(fault(&config, &small), wanted);
        let mut other = config.clone();
        other.uplink.mac = Some(station("00:0d:3a:00:00:01"));
        assert!(matches!(fault(&other, &seen), Misfit::OtherMac { .. }));
    }

    #[test]
    fn a_pod_cidr_that_turned_out_to_be_ours_is_routed_to_nobody() {
        let plan = plan(Plugin::Kubenet, false);
        let text = crate::config::for_node(&plan, &plan.nodes[0], None);
        let config = crate::config::parse("tapline.json", text.as_bytes()).unwrap();
        let truth = truth_of(&plan, &plan.nodes[1]);
        let seen = Seen {
            mac: Some(station("00:0d:3a:21:af:12")),
            mtu: 1500,
            addresses: vec!["10.20.0.4/24".parse().unwrap()],
        };
        let found = spec(&config, &seen, &truth).unwrap();
        let own = IpNet::V4(plan.nodes[1].pod_cidr.unwrap());
        assert!(config.surroundings.routes.iter().any(|row| row.to == own));
        assert!(found.remote.iter().all(|remote| remote.prefix != own));
    }
}
