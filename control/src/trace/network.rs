//! The cluster that a trace goes through: the lab's, without a device of it.
//!
//! In: a [`Plan`], and which addresses named pods should have.
//! Out: each node's tables, as its switch would have them, and the fabric's state.
//! Never: opens anything, or needs a right.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use dataplane::addr::PortId;
use dataplane::tables::{Tables, TablesSpec};

use crate::compile::{self, HOST_PORT, NodeMacs, NodeSpec, PodPort, UPLINK_PORT, Wanted};
use crate::lab::fabric::{Misfit, NicId, Vnet};
use crate::lab::placement::{self, PlacedPod, host_name};
use crate::plan::{Node, Plan};

use super::report::Sight;

/// A plan that makes no cluster.
#[derive(Debug, thiserror::Error)]
pub enum Unbuildable {
    /// The fabric refuses it.
    #[error(transparent)]
    Fabric(#[from] Misfit),
    /// A switch refuses its tables.
    #[error("the tables of {node}: {faults}")]
    Tables {
        /// The switch's node.
        node: String,
        /// All that is wrong with them.
        faults: String,
    },
}

/// One node.
#[derive(Debug)]
pub struct TracedNode {
    /// As planned.
    pub plan: Node,
    /// Its hardware.
    pub macs: NodeMacs,
    /// Its pods.
    pub pods: Vec<PlacedPod>,
    /// What its switch was told.
    pub spec: TablesSpec,
    /// Who wanted the routes in it, and those that were not taken.
    pub wanted: Vec<Wanted>,
    /// What its switch made of it.
    pub tables: Tables,
    /// Its NIC, to the fabric.
    pub nic: NicId,
}

/// The whole cluster.
#[derive(Debug)]
pub struct Network {
    /// What it follows from.
    pub plan: Plan,
    /// Agents, then masters.
    pub nodes: Vec<TracedNode>,
    /// Azure's part.
    pub vnet: Vnet,
}

impl Network {
    /// The cluster that the lab would build. `detached` leaves the route table off the subnets.
    ///
    /// # Errors
    /// What the fabric or a switch would refuse.
    pub fn of(
        plan: &Plan,
        wished: &BTreeMap<String, Ipv4Addr>,
        detached: bool,
    ) -> Result<Network, Unbuildable> {
        let (chosen, _) = placement::choose(plan);
        let mut vnet = Vnet::new(placement::vnet(plan, detached))?;
        let placed = placement::place(plan, &chosen, wished);
        let mut nodes = Vec::with_capacity(chosen.len());
        for (at, node) in chosen.iter().enumerate() {
            let macs = placement::node_macs(plan, node);
            let nic = vnet.attach(placement::nic(plan, node, macs))?;
            let here = placed.iter().filter(|pod| pod.node == at);
            let pods: Vec<PlacedPod> = here.cloned().collect();
            let ports: Vec<PodPort> = pods.iter().map(|pod| pod.port.clone()).collect();
            let known = NodeSpec::planned(plan, node, macs);
            let (spec, wanted) = (known.tables(&ports), known.wanted_routes(&ports));
            let tables = Tables::build(&spec).map_err(|faults| Unbuildable::Tables {
                node: node.name.clone(),
                faults: faults.iter().map(|f| format!("{f}; ")).collect(),
            })?;
            let plan = (*node).clone();
            nodes.push(TracedNode {
                plan,
                macs,
                pods,
                spec,
                wanted,
                tables,
                nic,
            });
        }
        let plan = plan.clone();
        Ok(Network { plan, nodes, vnet })
    }

    /// The pod of that name, and the index of its node.
    #[must_use]
    pub fn pod(&self, name: &str) -> Option<(usize, &PlacedPod)> {
        let mut all = self.pods();
        all.find(|(_, pod)| pod.name == name)
    }

    /// The pod that has `address`, and the index of its node.
    #[must_use]
    pub fn pod_with(&self, address: IpAddr) -> Option<(usize, &PlacedPod)> {
        let mut all = self.pods();
        all.find(|(_, pod)| pod.port.addresses.contains(&address))
    }

    /// Every pod, and the index of its node.
    pub fn pods(&self) -> impl Iterator<Item = (usize, &PlacedPod)> {
        let of = |(at, node)| pods_of(at, node);
        self.nodes.iter().enumerate().flat_map(of)
    }

    /// What a port of a node's switch is called.
    #[must_use]
    pub fn port_name(&self, at: usize, port: PortId) -> String {
        match port {
            HOST_PORT => "host".to_owned(),
            UPLINK_PORT => "uplink".to_owned(),
            _ => self.nodes[at]
                .pods
                .iter()
                .find(|pod| pod.port.port == port)
                .map_or_else(|| format!("{port:?}"), |pod| pod.name.to_owned()),
        }
    }

    /// Where `tcpdump` would show what comes in by a port, in the order of the frame's way.
    #[must_use]
    pub fn sights(&self, at: usize, port: PortId) -> Vec<Sight> {
        let node = &self.nodes[at];
        let here = |interface: &str| Sight::new(&node.plan.name, interface);
        match port {
            HOST_PORT => vec![here(host_name(&self.plan))],
            UPLINK_PORT => vec![here("eth0"), here("uplink0")],
            _ => {
                let pod = node.pods.iter().find(|pod| pod.port.port == port);
                pod.map_or_else(Vec::new, |pod| {
                    vec![
                        Sight::new(pod.name, pod.end.name.as_str()),
                        here(pod.host_end.as_str()),
                        here(pod.tap.as_str()),
                    ]
                })
            }
        }
    }

    /// The same for what goes out by a port.
    #[must_use]
    pub fn sights_out(&self, at: usize, port: PortId) -> Vec<Sight> {
        let mut sights = self.sights(at, port);
        sights.reverse();
        sights
    }

    /// True if the classifiers on the node's `eth0` steer what is for `address` to the switch.
    #[must_use]
    pub fn steers(&self, at: usize, address: IpAddr) -> bool {
        let node = &self.nodes[at].plan;
        match address {
            IpAddr::V4(v4) => compile::own_range(node).iter().any(|net| net.contains(&v4)),
            IpAddr::V6(v6) => {
                compile::own_range_v6(&self.plan, node).is_some_and(|net| net.contains(&v6))
            }
        }
    }
}

fn pods_of(at: usize, node: &TracedNode) -> impl Iterator<Item = (usize, &PlacedPod)> {
    node.pods.iter().map(move |pod| (at, pod))
}
