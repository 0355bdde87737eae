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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::Ipv4Addr;

    use serde_json::{Value, json};

    use super::*;
    use crate::config;

    /// Whom a key concerns.
    enum Reader {
        /// What the switch knows of its node, or how it runs, is another with the key.
        Switch,
        /// That file asks for it, in these words.
        File(&'static str, &'static str),
        /// Nobody, as its description says.
        Nobody,
    }

    const PROCESS: &str = include_str!("process.rs");
    const ASKING: &str = include_str!("truth.rs");
    const LEARNING: &str = include_str!("../node/learn.rs");
    const DIFFERING: &str = include_str!("../node/truth.rs");

    /// Each key of the configuration, a value of it, and who reads it.
    fn keys() -> Vec<(&'static str, Value, Reader)> {
        let parts = [of_ports(), of_truth(), of_guards(), of_the_process()];
        parts.into_iter().flatten().collect()
    }

    fn of_ports() -> Vec<(&'static str, Value, Reader)> {
        use Reader::{File, Switch};
        vec![
            ("plugin", json!({"plugin": "azure"}), Switch),
            ("node", json!({"node": "other"}), Switch),
            (
                "uplink.device",
                json!({"uplink": {"device": "eth7"}}),
                Switch,
            ),
            ("uplink.tap", json!({"uplink": {"tap": "up7"}}), Switch),
            (
                "uplink.mac",
                json!({"uplink": {"mac": "00:0d:3a:00:00:07"}}),
                File(ASKING, "config.uplink.mac"),
            ),
            ("uplink.mtu", json!({"uplink": {"mtu": 1400}}), Switch),
            (
                "host_port.device",
                json!({"host_port": {"device": "h7"}}),
                Switch,
            ),
            (
                "host_port.mac",
                json!({"host_port": {"mac": "0a:58:00:00:00:07"}}),
                Switch,
            ),
            ("pods.mtu", json!({"pods": {"mtu": 1400}}), Switch),
            ("pods.max", json!({"pods": {"max": 7}}), Switch),
            (
                "pods.bandwidth",
                json!({"pods": {"bandwidth": false}}),
                Switch,
            ),
            ("services", json!({"services": ["10.0.0.0/16"]}), Switch),
            ("via_host", json!({"via_host": ["10.7.0.0/16"]}), Switch),
            (
                "routes.to",
                json!({"routes": [{"to": "10.7.0.0/16", "via": "discard"}]}),
                Switch,
            ),
            (
                "routes.via",
                json!({"routes": [{"to": "10.7.0.0/16", "via": "fabric"}]}),
                Switch,
            ),
        ]
    }

    fn of_truth() -> Vec<(&'static str, Value, Reader)> {
        use Reader::File;
        let truth = |key: &str, value: Value| json!({"truth": {key: value}});
        let azure = |mut fragment: Value| {
            fragment["plugin"] = "azure".into();
            fragment
        };
        vec![
            (
                "truth.sources",
                truth("sources", json!(["bridge"])),
                File(LEARNING, "truth.sources"),
            ),
            (
                "truth.wireserver",
                azure(truth("wireserver", json!("http://10.0.0.7/"))),
                File(LEARNING, "Wireserver"),
            ),
            (
                "truth.metadata",
                azure(truth("metadata", json!("http://10.0.0.7/"))),
                File(LEARNING, "Metadata"),
            ),
            (
                "truth.pod_cidr",
                truth("pod_cidr", json!(["10.7.0.0/24"])),
                File(LEARNING, "PodCidr"),
            ),
            (
                "truth.runtime",
                truth("runtime", json!("/run/cni")),
                File(LEARNING, "Runtime"),
            ),
            (
                "truth.node_object",
                truth("node_object", json!("/run/node.json")),
                File(LEARNING, "NodeObject"),
            ),
            (
                "truth.bridge",
                truth("bridge", json!("cbr7")),
                File(LEARNING, "Bridge"),
            ),
            (
                "truth.timeout_ms",
                truth("timeout_ms", json!(70)),
                File(LEARNING, "truth.timeout"),
            ),
            (
                "truth.refresh_s",
                truth("refresh_s", json!(7)),
                File(PROCESS, "truth.refresh"),
            ),
            (
                "plan.addresses",
                json!({"plan": {"addresses": ["10.7.0.4"]}}),
                File(DIFFERING, "expected.addresses"),
            ),
            (
                "plan.subnets",
                json!({"plan": {"subnets": ["10.7.0.0/24"]}}),
                File(DIFFERING, "expected.subnets"),
            ),
            (
                "plan.pods",
                json!({"plan": {"pods": ["10.7.0.0/24"]}}),
                File(DIFFERING, "expected.pods"),
            ),
        ]
    }

    fn of_guards() -> Vec<(&'static str, Value, Reader)> {
        use Reader::Switch;
        let guard = |key: &str, value: Value| json!({"guards": {key: value}});
        let more = |row: Value| json!({"guards": {"more": [row]}});
        let pod = |address: &str| json!({"pod": "a/b", "addresses": [address]});
        vec![
            ("policy", json!({"policy": "none"}), Switch),
            ("guards.spoof", guard("spoof", json!("off")), Switch),
            ("guards.routers", guard("routers", json!("off")), Switch),
            ("guards.loops", guard("loops", json!("off")), Switch),
            ("guards.flaps", guard("flaps", json!("off")), Switch),
            ("guards.storm", guard("storm", json!("off")), Switch),
            ("guards.quota", guard("quota", json!("off")), Switch),
            (
                "guards.stations_max",
                guard("stations_max", json!(7)),
                Switch,
            ),
            (
                "guards.broadcasts_max",
                guard("broadcasts_max", json!(7)),
                Switch,
            ),
            (
                "guards.multicasts_max",
                guard("multicasts_max", json!(7)),
                Switch,
            ),
            ("guards.unknown_max", guard("unknown_max", json!(7)), Switch),
            ("guards.more.pod", more(pod("10.9.0.0/24")), Switch),
            (
                "guards.more.macs",
                more(json!({"pod": "a/b", "macs": ["52:54:00:12:34:56"]})),
                Switch,
            ),
            ("guards.more.addresses", more(pod("10.9.1.0/24")), Switch),
        ]
    }

    fn of_the_process() -> Vec<(&'static str, Value, Reader)> {
        use Reader::{File, Nobody, Switch};
        vec![
            ("workers", json!({"workers": 2}), Switch),
            ("cpus", json!({"cpus": [0]}), Switch),
            ("spin_us", json!({"spin_us": 7}), Switch),
            (
                "features_off",
                json!({"features_off": ["tcx"]}),
                File(PROCESS, "switch_off(&config.features_off)"),
            ),
            (
                "state_dir",
                json!({"state_dir": "/run/state"}),
                File(PROCESS, "config.state_dir"),
            ),
            (
                "socket",
                json!({"socket": "/run/tl.sock"}),
                File(PROCESS, "config.socket"),
            ),
            (
                "metrics.listen",
                json!({"metrics": {"listen": "127.0.0.1:7"}}),
                File(PROCESS, "config.metrics.map"),
            ),
            (
                "log",
                json!({"log": "debug"}),
                File(PROCESS, "filter(new.log)"),
            ),
            ("notes", json!({"notes": {"a": "b"}}), Nobody),
        ]
    }

    fn configured(fragment: &Value) -> NodeConfig {
        let mut all = json!({"plugin": "kubenet", "node": "node-0"});
        let fragment = fragment.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(fragment);
        config::parse("tapline.json", all.to_string().as_bytes()).unwrap()
    }

    /// What the switch is told.
    fn told(config: &NodeConfig) -> (NodeSpec, Settings) {
        let cidr = "10.244.1.0/24".parse().unwrap();
        let given = Given {
            address: "10.240.0.5/16".parse().unwrap(),
            gateway: Ipv4Addr::new(10, 240, 0, 1).into(),
        };
        let truth = NodeTruth {
            nic: Station::new("00:0d:3a:21:af:12".parse().unwrap()).unwrap(),
            mtu: 1500,
            own: Addresses {
                v4: Some(Ipv4Addr::new(10, 240, 0, 4)),
                v6: None,
            },
            pods: match config.plugin {
                Plugin::Azure => PodAddresses::Secondary(vec![given]),
                Plugin::Kubenet => PodAddresses::Cidrs(vec![cidr]),
            },
        };
        (spec(config, &truth).unwrap(), settings(config))
    }

    /// The keys below a rule of the schema that have no keys below them.
    fn leaves(schema: &Value, rule: &Value, at: &str, found: &mut BTreeSet<String>) {
        let alternatives = rule["anyOf"].as_array().into_iter().flatten();
        let items = rule.get("items");
        for inner in alternatives.chain(items).chain([rule]) {
            let named = inner["$ref"].as_str();
            let named = named.and_then(|path| schema.pointer(path.trim_start_matches('#')));
            let rule = named.unwrap_or(inner);
            if let Some(keys) = rule["properties"].as_object() {
                found.remove(at);
                for (key, rule) in keys {
                    let path = format!("{at}.{key}");
                    let path = path.trim_start_matches('.');
                    found.insert(path.to_owned());
                    leaves(schema, rule, path, found);
                }
            }
        }
    }

    /// A key that is taken and has no effect is worse than one that is refused.
    #[test]
    fn every_key_of_the_schema_has_an_effect() {
        let schema = include_str!("../../../docs/tapline.schema.json");
        let schema: Value = serde_json::from_str(schema).unwrap();
        let mut documented = BTreeSet::new();
        leaves(&schema, &schema, "", &mut documented);
        let keys = keys();
        let tried: BTreeSet<String> = keys.iter().map(|(key, ..)| (*key).to_owned()).collect();
        assert_eq!(tried, documented, "keys tried, and keys of the schema");

        let mut seen = BTreeMap::new();
        for (key, fragment, reader) in keys {
            let config = configured(&fragment);
            // Another plugin is a key's effect only where it is the key.
            let plain = match fragment.get("plugin").filter(|_| key != "plugin") {
                Some(plugin) => configured(&json!({"plugin": plugin})),
                None => configured(&json!({})),
            };
            match reader {
                Reader::Switch => {
                    let told_now = told(&config);
                    assert_ne!(told_now, told(&plain), "{key}");
                    // Not what another key of the same name does.
                    let twin = seen.insert(format!("{told_now:?}"), key);
                    assert_eq!(twin, None, "{key}");
                }
                Reader::File(text, words) => {
                    assert_ne!(config, plain, "{key}");
                    let (shipped, _) = text.split_once("#[cfg(test)]").unwrap_or((text, ""));
                    assert!(shipped.contains(words), "{key}: nobody says {words}");
                }
                Reader::Nobody => assert_eq!(config, plain, "{key}"),
            }
        }
    }
}
