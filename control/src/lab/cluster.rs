//! The planned cluster, built of namespaces: nodes with a switch each, pods, and the fabric.
//!
//! In: a [`Plan`], proof that the process left the machine's network, and what to leave out.
//! Out: a running [`Cluster`]. Dropping it ends the switches and the fabric; the namespaces go
//! with the last descriptor.
//! Never: makes a device in the namespace the process was started in.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::time::Duration;

use dataplane::addr::PortId;
use dataplane::port::tap::{Queues, TapPort};
use dataplane::stats::Counts;
use dataplane::switch::{Options, Switch};
use dataplane::tables::Tables;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::fabric::{self, Fabric};
use super::placement::{self, PlacedPod, device, host_name, nic, node_macs};
use super::privilege::PrivateNet;
use crate::compile::{self, HOST_PORT, NodeMacs, PodPort, UPLINK_PORT};
use crate::devices::attach::host::add_pod_route;
use crate::devices::attach::{ArpSteering, HostPort, PodVeth, Uplink};
use crate::devices::name::DeviceName;
use crate::devices::netlink::Netlink;
use crate::devices::netlink::address::Route;
use crate::devices::netns::Netns;
use crate::devices::sysctl;
use crate::devices::tap::TapSpec;
use crate::plan::{Node, Plan, Plugin};

/// A TAP that was just opened has its carrier within milliseconds.
const CARRIER_WITHIN: Duration = Duration::from_secs(2);

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
    port: PodPort,
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
    /// Its switch.
    pub switch: Switch<TapPort>,
    workers: NonZeroU16,
    net: Netlink,
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
}

impl Default for Wishes {
    fn default() -> Wishes {
        Wishes {
            addresses: BTreeMap::new(),
            workers: NonZeroU16::MIN,
            detach_route_table: false,
            spin: None,
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

    fn add_pod(&mut self, placed: PlacedPod) -> Built<()> {
        let at = placed.node;
        let (node, name, address) = (&self.nodes[at], placed.name, placed.address);
        let what = format!("{name} on {}", node.plan.name);
        let netns = Netns::create(name).at(&what)?;
        let veth = PodVeth {
            host_end: placed.host_end.clone(),
            tap: tap_spec(placed.tap.clone(), &node.plan, node.workers),
            pod: placed.end,
            alias: Some(format!(
                "tapline {} default/{name} {address}",
                host_name(&self.plan)
            )),
        };
        let pod_net = Netlink::open(&netns).at(&what)?;
        veth.attach(&node.net, &pod_net).at(&what)?;
        if self.plan.plugin == Plugin::Azure {
            let host = device(host_name(&self.plan));
            add_pod_route(&node.net, &host, address, node.plan.primary_ip).at(&what)?;
        }
        open_port(node, placed.port.port, &placed.tap).at(&what)?;
        // The host end came up before the pod's: the kernel starts its queue later, too.
        node.net
            .wait_until_running(&placed.host_end, CARRIER_WITHIN)
            .at(&what)?;
        self.pods.push(LabPod {
            name: name.to_owned(),
            node: at,
            address,
            address_v6: placed.address_v6,
            netns,
            host_end: placed.host_end,
            tap: placed.tap,
            port: placed.port,
        });
        self.publish(at).at(what)
    }

    /// Gives a node's switch the tables for the pods that it has now.
    fn publish(&mut self, at: usize) -> io::Result<()> {
        let pods: Vec<PodPort> = self
            .pods
            .iter()
            .filter(|pod| pod.node == at)
            .map(|pod| pod.port.clone())
            .collect();
        let node = &mut self.nodes[at];
        let spec = compile::compile(&self.plan, &node.plan, node.macs, &pods);
        let tables = Tables::build(&spec).map_err(|faults| {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            io::Error::new(io::ErrorKind::InvalidData, faults.join("; "))
        })?;
        node.switch.publish(tables);
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
            let counts = node
                .switch
                .stop()
                .at(format!("stopping the switch of {}", node.plan.name));
            Ok((node.plan.name, counts?))
        };
        self.nodes.into_iter().map(stop).collect()
    }
}

fn build_node(plan: &Plan, node: &Node, fabric: &Fabric, wishes: &Wishes) -> Built<LabNode> {
    let what = |part: &str| format!("{part} of {}", node.name);
    let workers = wishes.workers;
    let netns = Netns::create(&node.name).at(what("namespace"))?;
    let macs = node_macs(plan, node);
    sysctl::set_ip_forward(&netns, true).at(what("forwarding"))?;
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
    let host = tap_spec(device(host_name(plan)), node, workers);
    let host_port = HostPort {
        tap: host.clone(),
        mac: macs.host.mac(),
        addresses: gateway_addresses(plan, node),
        alias: Some(format!("tapline host port of {}", node.name)),
    };
    host_port.attach(&net).at(what("host port"))?;
    let uplink = uplink(plan, node, workers);
    uplink.attach(&net).at(what("uplink"))?;
    let tables = Tables::build(&compile::compile(plan, node, macs, &[]))
        .map_err(|faults| format!("{faults:?}"))
        .at(what("tables"))?;
    let mut options = Options::named(&format!("tl-{}", node.name));
    options.workers = workers.get().into();
    options.spin = wishes.spin.unwrap_or(options.spin);
    let switch = Switch::start(&options, tables).at(what("switch"))?;
    let built = LabNode {
        plan: node.clone(),
        netns,
        macs,
        switch,
        workers,
        net,
    };
    open_port(&built, HOST_PORT, &host.name).at(what("host port"))?;
    open_port(&built, UPLINK_PORT, &uplink.tap.name).at(what("uplink"))?;
    Ok(built)
}

fn tap_spec(name: DeviceName, node: &Node, workers: NonZeroU16) -> TapSpec {
    TapSpec {
        queues: workers,
        ..TapSpec::new(name, node.mtu.into())
    }
}

/// Opens a TAP of the node's namespace and hands it to the node's switch.
fn open_port(node: &LabNode, port: PortId, tap: &DeviceName) -> io::Result<()> {
    let workers = node.workers.get();
    let kind = if workers > 1 {
        Queues::Multi
    } else {
        Queues::Single
    };
    let queues = node.netns.run(|| {
        (0..workers)
            .map(|_| TapPort::open(tap.as_str(), kind))
            .collect()
    })?;
    node.switch.attach_queues(port, queues)?;
    // Until the kernel has noticed the carrier it discards what it should send.
    node.net
        .wait_until_running(tap, CARRIER_WITHIN)
        .map_err(io::Error::other)
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

fn uplink(plan: &Plan, node: &Node, workers: NonZeroU16) -> Uplink {
    let pods = compile::own_range(node);
    let arp = match plan.plugin {
        Plugin::Azure => ArpSteering::ByTarget(pods.clone()),
        Plugin::Kubenet => ArpSteering::MirrorReplies,
    };
    Uplink {
        device: device(fabric::DEVICE),
        tap: tap_spec(device("uplink0"), node, workers),
        pods,
        pods_v6: compile::own_range_v6(plan, node).into_iter().collect(),
        arp,
    }
}

/// `cbr0` holds the gateways' addresses; `azure0` holds none, since `eth0` keeps the node's.
fn gateway_addresses(plan: &Plan, node: &Node) -> Vec<IpNet> {
    let v4 = compile::gateway(node)
        .zip(node.pod_cidr)
        .and_then(|(gateway, cidr)| Ipv4Net::new(gateway, cidr.prefix_len()).ok());
    let v6 = compile::gateway_v6(plan, node)
        .zip(node.pod_cidr_v6)
        .and_then(|(gateway, cidr)| Ipv6Net::new(gateway, cidr.prefix_len()).ok());
    let v4 = v4.into_iter().map(IpNet::V4);
    v4.chain(v6.map(IpNet::V6)).collect()
}
