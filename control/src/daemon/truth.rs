//! Asking the node what it is.
//!
//! In: a configuration, and the node's namespace. Out: a [`NodeTruth`] and how the plan differs from
//! it, or why there is none yet.
//! Never: takes the plan's word.

use std::collections::BTreeSet;

use dataplane::tables::Addresses;
use ipnet::{IpNet, Ipv4Net};

use super::attachment::Attachment;
use super::node::{NodeTruth, PodAddresses};
use crate::config::NodeConfig;
use crate::devices::netlink::Netlink;
use crate::devices::netns::Netns;
use crate::node::{self, Difference, NicAddresses, PodCidrs, Seen, Unbelievable};
use crate::plan::Plugin;

/// What is known of the node.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// The truth.
    pub(crate) truth: NodeTruth,
    /// Who said it.
    pub(crate) source: String,
    /// In what the plan differs.
    pub(crate) differences: Vec<Difference>,
}

/// Asks the sources in their order, in the namespace of the calling thread, which is `node`; the
/// first that knows, counts.
///
/// # Errors
/// What each of them says, in words.
pub(crate) fn ask(config: &NodeConfig, node: &Netns) -> Result<Known, String> {
    let net = Netlink::open(node).map_err(|error| error.to_string())?;
    let seen = Seen::look(&net, &config.uplink.device).map_err(|error| error.to_string())?;
    let nic = seen.mac.map(dataplane::addr::Station::mac);
    let told = node::learn(config, &net, nic).map_err(|unknown| unknown.to_string())?;
    let expected = config.expected.clone().unwrap_or_default();
    Ok(Known {
        truth: assemble(config, &seen, &told.truth)?,
        source: told.source,
        differences: node::differences(&expected, &told.truth, &seen.addresses),
    })
}

/// What those attached before tell of their node: enough to carry their frames, and to answer for
/// nobody else, until it has spoken itself.
///
/// # Errors
/// Why they tell nothing.
pub(crate) fn recall(
    config: &NodeConfig,
    node: &Netns,
    attached: &[Attachment],
) -> Result<NodeTruth, String> {
    let net = Netlink::open(node).map_err(|error| error.to_string())?;
    let seen = Seen::look(&net, &config.uplink.device).map_err(|error| error.to_string())?;
    let told = of_attached(config.plugin, &seen, attached).map_err(|bad| bad.to_string())?;
    assemble(config, &seen, &told)
}

fn of_attached(
    plugin: Plugin,
    seen: &Seen,
    attached: &[Attachment],
) -> Result<node::NodeTruth, Unbelievable> {
    let held = attached.iter().flat_map(|one| &one.addresses);
    let links = held.map(|held| held.address);
    match plugin {
        Plugin::Kubenet => {
            let nets: BTreeSet<IpNet> = links.map(|net| net.trunc()).collect();
            let nets: Vec<IpNet> = nets.into_iter().collect();
            Ok(node::NodeTruth::Kubenet(PodCidrs::new(&nets)?))
        }
        Plugin::Azure => {
            let v4 = |net: IpNet| match net {
                IpNet::V4(net) => Some(net),
                IpNet::V6(_) => None,
            };
            let links: Vec<Ipv4Net> = links.filter_map(v4).collect();
            let subnet = links.first().map(Ipv4Net::trunc).unwrap_or_default();
            let pods = links.iter().filter(|net| net.trunc() == subnet);
            let own = seen.addresses.iter().copied().filter_map(v4);
            let own = own.filter(|own| subnet.contains(&own.addr()));
            let own = own.map(|own| (own.addr(), true)).take(1);
            let all: Vec<_> = own.chain(pods.map(|net| (net.addr(), false))).collect();
            Ok(node::NodeTruth::Azure(NicAddresses::new(
                None, subnet, &all,
            )?))
        }
    }
}

/// The uplink and what its node was told, together.
///
/// # Errors
/// Why they, or the configuration, do not go together.
pub(crate) fn assemble(
    config: &NodeConfig,
    seen: &Seen,
    told: &node::NodeTruth,
) -> Result<NodeTruth, String> {
    let uplink = &config.uplink.device;
    let nic = seen
        .mac
        .ok_or_else(|| format!("{uplink} has no MAC that one station can have"))?;
    if let Some(wanted) = config.uplink.mac.filter(|wanted| *wanted != nic) {
        return Err(format!("{uplink} has the MAC {nic}, not {wanted}"));
    }
    if let Some(wanted) = config
        .uplink
        .mtu
        .filter(|wanted| u32::from(*wanted) > seen.mtu)
    {
        let has = seen.mtu;
        return Err(format!(
            "an MTU of {wanted} is configured, and {uplink} has {has}"
        ));
    }
    let mut own = Addresses::default();
    for net in &seen.addresses {
        match net {
            IpNet::V4(net) => own.v4 = own.v4.or(Some(net.addr())),
            IpNet::V6(net) => own.v6 = own.v6.or(Some(net.addr())),
        }
    }
    let pods = match told {
        node::NodeTruth::Azure(addresses) => {
            own.v4 = Some(addresses.primary);
            PodAddresses::Secondary(node::secondary(addresses))
        }
        node::NodeTruth::Kubenet(cidrs) => PodAddresses::Cidrs(cidrs.iter().collect()),
    };
    Ok(NodeTruth {
        nic,
        // A TAP takes no more than this.
        mtu: u16::try_from(seen.mtu).unwrap_or(u16::MAX).min(65_521),
        own,
        pods,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::IpAddr;

    use dataplane::addr::Station;
    use dataplane::tables::Policy;

    use super::*;
    use crate::compile::NodeSpec;
    use crate::compile::spec::Remote;
    use crate::config::PolicyMode;
    use crate::daemon::node::spec;
    use crate::plan::{LoadOptions, Plan, load};

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

    fn told_by(plan: &Plan, node: &crate::plan::Node) -> node::NodeTruth {
        match plan.plugin {
            Plugin::Azure => {
                let pods = node.pod_ips.as_ref().unwrap().iter().map(|a| (a, false));
                let all: Vec<_> = std::iter::once((node.primary_ip, true))
                    .chain(pods)
                    .collect();
                let nic = NicAddresses::new(None, node.subnet_prefix, &all).unwrap();
                node::NodeTruth::Azure(nic)
            }
            Plugin::Kubenet => {
                let v4 = node.pod_cidr.map(IpNet::V4).into_iter();
                let nets: Vec<IpNet> = v4.chain(node.pod_cidr_v6.map(IpNet::V6)).collect();
                node::NodeTruth::Kubenet(PodCidrs::new(&nets).unwrap())
            }
        }
    }

    fn seen(node: &crate::plan::Node) -> Seen {
        let own_v6 = node.primary_ip_v6.map(|ip| IpNet::from(IpAddr::V6(ip)));
        let own = IpNet::from(IpAddr::V4(node.primary_ip));
        Seen {
            mac: Some(station("00:0d:3a:21:af:12")),
            mtu: node.mtu.into(),
            addresses: std::iter::once(own).chain(own_v6).collect(),
        }
    }

    fn config_of(plan: &Plan, node: &crate::plan::Node) -> NodeConfig {
        let text = crate::config::for_node(plan, node, Some(&node.name));
        crate::config::parse("tapline.json", text.as_bytes()).unwrap()
    }

    /// Where plan and node agree, the daemon's tables are the lab's, apart from who says so, and
    /// policy, which on a node fails closed.
    #[test]
    fn a_node_that_is_as_planned_has_the_tables_that_the_plan_gives_it() {
        for plan in [
            plan(Plugin::Azure, false),
            plan(Plugin::Kubenet, false),
            plan(Plugin::Kubenet, true),
        ] {
            for node in &plan.nodes {
                let config = config_of(&plan, node);
                let truth = assemble(&config, &seen(node), &told_by(&plan, node)).unwrap();
                let found = spec(&config, &truth).unwrap();
                let planned = NodeSpec::planned(&plan, node, found.macs);
                let told = |remote: &Remote| Remote {
                    source: "configuration".to_owned(),
                    ..remote.clone()
                };
                let wanted = NodeSpec {
                    policy: Policy::ViaHost,
                    remote: planned.remote.iter().map(told).collect(),
                    ..planned
                };
                assert_eq!(found, wanted);
                let unwatched = NodeConfig {
                    policy: PolicyMode::None,
                    ..config
                };
                let found = spec(&unwatched, &truth).unwrap();
                assert_eq!(found.policy, Policy::None);
            }
        }
    }

    #[test]
    fn those_attached_before_tell_enough_of_their_node_or_nothing() {
        let attached = |addresses: &[&str]| -> Vec<Attachment> {
            let one = |(at, address): (usize, &&str)| {
                let text = format!(
                    r#"{{"network": "n", "container_id": "c{at}", "ifname": "eth0", "netns": "/n",
                        "port": {at}, "host_end": "veth{at}", "tap": "tap{at}", "mtu": 1500,
                        "mac": "0a:58:0a:f4:00:02", "addresses": [{{"address": "{address}"}}]}}"#
                );
                serde_json::from_str(&text).unwrap()
            };
            addresses.iter().enumerate().map(one).collect()
        };
        let node = &plan(Plugin::Azure, false).nodes[0];
        let own = node.primary_ip;
        let told =
            |plugin, addresses: &[&str]| of_attached(plugin, &seen(node), &attached(addresses));
        let azure = told(
            Plugin::Azure,
            &["10.20.0.31/24", "10.20.0.9/24", "10.99.0.1/16"],
        );
        let wanted = NicAddresses::new(
            None,
            "10.20.0.0/24".parse().unwrap(),
            &[
                (own, true),
                ("10.20.0.9".parse().unwrap(), false),
                ("10.20.0.31".parse().unwrap(), false),
            ],
        );
        assert_eq!(azure.unwrap(), node::NodeTruth::Azure(wanted.unwrap()));
        // The node's address is of another subnet, or nobody is attached.
        assert!(told(Plugin::Azure, &["10.77.0.31/24"]).is_err());
        assert!(told(Plugin::Azure, &[]).is_err());
        let kubenet = told(Plugin::Kubenet, &["10.244.1.5/24", "10.244.1.6/24"]);
        let wanted = PodCidrs::new(&["10.244.1.0/24".parse().unwrap()]).unwrap();
        assert_eq!(kubenet.unwrap(), node::NodeTruth::Kubenet(wanted));
        // Two that do not agree tell nothing.
        assert!(told(Plugin::Kubenet, &["10.244.1.5/24", "10.244.2.6/24"]).is_err());
        assert!(told(Plugin::Kubenet, &[]).is_err());
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_name() {
        let plan = plan(Plugin::Kubenet, false);
        let node = &plan.nodes[0];
        let config = config_of(&plan, node);
        let told = told_by(&plan, node);
        let says = |config: &NodeConfig, seen: &Seen| assemble(config, seen, &told).unwrap_err();
        let bare = Seen {
            mac: None,
            ..seen(node)
        };
        assert_eq!(
            says(&config, &bare),
            "eth0 has no MAC that one station can have"
        );
        let small = Seen {
            mtu: 1400,
            ..seen(node)
        };
        let why = "an MTU of 1500 is configured, and eth0 has 1400";
        assert_eq!(says(&config, &small), why);
        let mut other = config;
        other.uplink.mac = Some(station("00:0d:3a:00:00:01"));
        let why = "eth0 has the MAC 00:0d:3a:21:af:12, not 00:0d:3a:00:00:01";
        assert_eq!(says(&other, &seen(node)), why);
    }
}
