//! The planned cluster, built of namespaces: nodes with a switch each, pods, and the fabric.
//!
//! In: a [`Plan`], proof that the process left the machine's network, and what to leave out.
//! Out: a running [`Cluster`]. Dropping it ends the switches and the fabric; the namespaces go
//! with the last descriptor.
//! Never: makes a device in the namespace the process was started in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use dataplane::stats::Counts;
use dataplane::switch::Boards;
use dataplane::tables::Policy;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::json;

use super::fabric::{self, Fabric};
use super::placement::{self, PlacedPod, device, nic, node_macs};
use super::privilege::PrivateNet;
use crate::api::server::Bound;
use crate::api::{Handler, Limits, Server};
use crate::cni;
use crate::compile::{self, NodeMacs, NodeSpec};
use crate::daemon::systemd::Heirlooms;
use crate::daemon::{Core, Daemon, Settings};
use crate::devices::name::DeviceName;
use crate::devices::netlink::Netlink;
use crate::devices::netlink::address::Route;
use crate::devices::netns::Netns;
use crate::devices::sysctl;
use crate::plan::{Node, Plan};

/// One of the two families of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4, which every lab has.
    V4,
    /// IPv6, in dual stack.
    V6,
}

/// A pod of the lab.
#[derive(Debug)]
pub struct LabPod {
    /// `pod-a`.
    pub name: String,
    /// The index of its node.
    pub node: usize,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its IPv6 address, in dual stack.
    pub address_v6: Option<Ipv6Addr>,
    /// Its namespace.
    pub netns: Netns,
    /// The node's end of its veth.
    pub host_end: DeviceName,
    /// The switch's TAP.
    pub tap: DeviceName,
}

impl LabPod {
    /// Its address of a family, if it has one.
    #[must_use]
    pub fn address_in(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => Some(self.address.into()),
            Family::V6 => self.address_v6.map(IpAddr::V6),
        }
    }
}

/// A node of the lab.
#[derive(Debug)]
pub struct LabNode {
    /// As planned.
    pub plan: Node,
    /// Its namespace.
    pub netns: Netns,
    /// Its hardware.
    pub macs: NodeMacs,
    /// Its daemon.
    pub daemon: Arc<Daemon>,
    /// Where the daemon listens for the CNI plugin.
    server: Server,
    /// The counters of its switch.
    pub board: Boards,
}

impl LabNode {
    /// Its own address of a family, if it has one.
    #[must_use]
    pub fn address_in(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => Some(self.plan.primary_ip.into()),
            Family::V6 => self.plan.primary_ip_v6.map(IpAddr::V6),
        }
    }
}

/// The whole lab.
#[derive(Debug)]
pub struct Cluster {
    /// What it was built from.
    pub plan: Plan,
    /// Agents, then masters.
    pub nodes: Vec<LabNode>,
    /// The pods.
    pub pods: Vec<LabPod>,
    /// What the nodes hang on.
    pub fabric: Fabric,
    /// Nodes of the plan that were left out, and why.
    pub left_out: Vec<String>,
}

/// What the lab may be told beside the plan.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Addresses that named pods are to have, if their node has them.
    pub addresses: BTreeMap<String, Ipv4Addr>,
    /// Workers of each switch.
    pub workers: NonZeroU16,
    /// Leave the route table off the subnets, as a custom VNet has it before anyone attaches it.
    pub detach_route_table: bool,
    /// How long the switches look again before they sleep; their default without it.
    pub spin: Option<Duration>,
    /// Whether pods reach each other by their node's rules only. No policy agent runs in a lab.
    pub policy: Policy,
}

impl Default for Wishes {
    fn default() -> Wishes {
        Wishes {
            addresses: BTreeMap::new(),
            workers: NonZeroU16::MIN,
            detach_route_table: false,
            spin: None,
            policy: Policy::None,
        }
    }
}

/// Where something went wrong, and what.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct BuildError {
    what: String,
    why: Box<dyn std::error::Error + Send + Sync>,
}

type Built<T> = Result<T, BuildError>;

/// Names the step that failed.
trait At<T> {
    fn at(self, what: impl Into<String>) -> Built<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> At<T> for Result<T, E> {
    fn at(self, what: impl Into<String>) -> Built<T> {
        self.map_err(|why| BuildError {
            what: what.into(),
            why: why.into(),
        })
    }
}

impl Cluster {
    /// Builds the cluster; `say` hears each stage as it begins.
    ///
    /// # Errors
    /// The step that failed; what was built up to then is gone when this returns.
    pub fn build(
        _private: &PrivateNet,
        plan: &Plan,
        wishes: &Wishes,
        mut say: impl FnMut(&str),
    ) -> Built<Cluster> {
        let (chosen, left_out) = placement::choose(plan);
        say("fabric");
        let vnet = placement::vnet(plan, wishes.detach_route_table);
        let fabric = Fabric::start(vnet).at("starting the fabric")?;
        let mut nodes = Vec::new();
        for node in &chosen {
            say(&format!("{} {}", node.name, node.primary_ip));
            nodes.push(build_node(plan, node, &fabric, wishes)?);
        }
        let mut cluster = Cluster {
            plan: plan.clone(),
            nodes,
            pods: Vec::new(),
            fabric,
            left_out,
        };
        for pod in placement::place(plan, &chosen, &wishes.addresses) {
            let node = &chosen[pod.node].name;
            say(&format!("{} {} on {node}", pod.name, pod.address));
            cluster.add_pod(pod)?;
        }
        Ok(cluster)
    }

    /// Attaches a pod, by way of the CNI plugin.
    fn add_pod(&mut self, placed: PlacedPod) -> Built<()> {
        let at = placed.node;
        let (node, name, address) = (&self.nodes[at], placed.name, placed.address);
        let what = format!("{name} on {}", node.plan.name);
        let netns = Netns::create(name).at(&what)?;
        let made = add(node, &self.plan, &placed, &netns).at(&what)?;
        if made != placed.host_end.as_str() {
            return Err(format!("its port is {made}, and not as placed")).at(&what);
        }
        self.pods.push(LabPod {
            name: name.to_owned(),
            node: at,
            address,
            address_v6: placed.address_v6,
            netns,
            host_end: placed.host_end,
            tap: placed.tap,
        });
        Ok(())
    }

    /// The families in which every pod and every node has an address.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        [Family::V4, Family::V6].into_iter().filter(|family| {
            let pods = self
                .pods
                .iter()
                .all(|pod| pod.address_in(*family).is_some());
            let mut nodes = self.nodes.iter();
            !self.pods.is_empty() && pods && nodes.all(|node| node.address_in(*family).is_some())
        })
    }

    /// The pod of that name.
    #[must_use]
    pub fn pod(&self, name: &str) -> Option<&LabPod> {
        self.pods.iter().find(|pod| pod.name == name)
    }

    /// The namespace of the pod or node of that name.
    #[must_use]
    pub fn netns(&self, name: &str) -> Option<&Netns> {
        let node = || {
            self.nodes
                .iter()
                .find(|n| n.plan.name == name)
                .map(|n| &n.netns)
        };
        self.pod(name).map(|pod| &pod.netns).or_else(node)
    }

    /// Every name and namespace, nodes first.
    pub fn namespaces(&self) -> impl Iterator<Item = (&str, &Netns)> {
        let nodes = self
            .nodes
            .iter()
            .map(|node| (node.plan.name.as_str(), &node.netns));
        nodes.chain(self.pods.iter().map(|pod| (pod.name.as_str(), &pod.netns)))
    }

    /// Stops every switch; returns the final counts by node, which balance.
    ///
    /// # Errors
    /// The switch whose thread died of a broken law.
    pub fn stop(self) -> Built<Vec<(String, Counts)>> {
        let stop = |node: LabNode| {
            drop(node.server);
            let core = node.daemon.end().expect("a lab's daemon serves");
            let counts = core.stop();
            let counts = counts.at(format!("stopping the switch of {}", node.plan.name));
            Ok((node.plan.name, counts?))
        };
        self.nodes.into_iter().map(stop).collect()
    }
}

fn build_node(plan: &Plan, node: &Node, fabric: &Fabric, wishes: &Wishes) -> Built<LabNode> {
    let what = |part: &str| format!("{part} of {}", node.name);
    let netns = Netns::create(&node.name).at(what("namespace"))?;
    let macs = node_macs(plan, node);
    sysctl::set_ip_forward(&netns, true).at(what("forwarding"))?;
    // As AKS-Engine's nodes have it (sysctl-d-60-CIS.conf). Where `/proc/sys` may not be written, a
    // pod hears of a shorter way now and then.
    let redirects = sysctl::Setting::SendRedirects(sysctl::Conf::All);
    drop(sysctl::set(&netns, redirects, "0"));
    if node.primary_ip_v6.is_some() {
        sysctl::set_ipv6_forwarding(&netns, true).at(what("IPv6 forwarding"))?;
    }
    fabric
        .add_nic(&netns, nic(plan, node, macs))
        .at(what("eth0"))?;
    let net = Netlink::open(&netns).at(what("netlink socket"))?;
    // A node talks to its own addresses over it.
    net.set_up(&device("lo"), true).at(what("loopback"))?;
    address_nic(&net, node).at(what("address"))?;
    let mut spec = NodeSpec::planned(plan, node, macs);
    spec.policy = wishes.policy;
    let mut settings = Settings::of(plan.plugin);
    settings.workers = wishes.workers;
    settings.spin = wishes.spin.unwrap_or(settings.spin);
    let pool = placement::pool(plan, node).at(what("addresses"))?;
    let core =
        Core::start(spec, settings, pool, None, Heirlooms::default(), &netns).at(what("daemon"))?;
    let board = core.board();
    let daemon = Arc::new(Daemon::serving(core));
    let handler: Arc<dyn Handler> = Arc::<Daemon>::clone(&daemon);
    let users = vec![rustix::process::geteuid().as_raw()];
    let server = Bound::nameless()
        .and_then(|bound| bound.serve(handler, users, Limits::default()))
        .at(what("control socket"))?;
    Ok(LabNode {
        plan: node.clone(),
        netns,
        macs,
        daemon,
        server,
        board,
    })
}

/// What a container runtime does: it calls the CNI plugin, which asks the node's daemon. Gives the
/// name of the host's end of the pod's veth.
fn add(node: &LabNode, plan: &Plan, pod: &PlacedPod, netns: &Netns) -> Result<String, String> {
    let configuration = json!({
        "cniVersion": "1.1.0",
        "name": plan.plugin.to_string(),
        "type": "tapline-cni",
        "socket": node.server.path(),
        "isDefaultGateway": true,
        "capabilities": {"ips": true},
        "runtimeConfig": {"ips": pod.port.addresses},
    });
    let lookup = |name: &str| match name {
        "CNI_COMMAND" => Some(OsString::from("ADD")),
        "CNI_CONTAINERID" => Some(placement::container_id(pod.name).into()),
        "CNI_IFNAME" => Some(pod.end.name.as_str().into()),
        "CNI_NETNS" => Some(netns.path().into()),
        "CNI_ARGS" => Some(format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={}", pod.name).into()),
        _ => None,
    };
    let outcome = cni::run(&lookup, configuration.to_string().as_bytes());
    if !outcome.success {
        return Err(outcome.printed);
    }
    let result: serde_json::Value =
        serde_json::from_str(&outcome.printed).map_err(|error| error.to_string())?;
    let host_end = result["interfaces"][1]["name"].as_str();
    host_end.map(str::to_owned).ok_or(outcome.printed)
}

/// What Azure's DHCP would give: the address, and a default route by the subnet's first host. Of
/// IPv6 the same, for which Azure has DHCPv6 and router advertisements: the lab has neither.
fn address_nic(net: &Netlink, node: &Node) -> Result<(), crate::devices::error::DeviceError> {
    let eth0 = device(fabric::DEVICE);
    let own = Ipv4Net::new(node.primary_ip, node.subnet_prefix.prefix_len())
        .expect("the length comes from a prefix");
    net.add_address(&eth0, own.into())?;
    let default = |to: IpNet, via| Route {
        to,
        via,
        source: None,
    };
    let via = node.subnet_prefix.hosts().next().map(IpAddr::V4);
    net.add_route(&eth0, &default(Ipv4Net::default().into(), via))?;
    let (Some(address), Some(subnet)) = (node.primary_ip_v6, node.subnet_prefix_v6) else {
        return Ok(());
    };
    let own = Ipv6Net::new(address, subnet.prefix_len()).expect("the length comes from a prefix");
    net.add_address(&eth0, own.into())?;
    let via = Some(compile::first_host_v6(subnet).into());
    net.add_route(&eth0, &default(Ipv6Net::default().into(), via))
}
