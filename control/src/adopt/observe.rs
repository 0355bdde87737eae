//! A Linux bridge as it stands: its pods, its addresses, and why it cannot be adopted, if so.
//!
//! In: the node's netlink socket, the bridge's name, and where namespaces may be found.
//! Out: an [`Observed`] bridge, or every [`Refusal`] at once.
//! Never: changes anything, or guesses at a pod that it cannot look into.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use dataplane::addr::Mac;
use ipnet::IpNet;

use super::steps::Neighbour;
use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;
use crate::devices::netlink::Netlink;
use crate::devices::netlink::address::FoundRoute;
use crate::devices::netlink::bridge::{BridgeFacts, BridgeStation};
use crate::devices::netlink::link::Link;
use crate::devices::netns::{Netns, PINS};
use crate::devices::sysctl::{self, Conf, Setting};

/// `RTPROT_KERNEL`: a route that came with an address, and goes with it.
const ROUTE_BY_KERNEL: u8 = 2;

/// A bridge that can be adopted.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Its name.
    pub name: DeviceName,
    /// Its hardware address, which pods know as their gateway's.
    pub mac: Mac,
    /// Its MTU.
    pub mtu: u32,
    /// What it does beyond forwarding.
    pub facts: BridgeFacts,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Routes over it, without those that its addresses bring along.
    pub routes: Vec<FoundRoute>,
    /// Whom it was told of by somebody as a neighbour, by address; an interface that goes down forgets
    /// them.
    pub neighbours: Vec<(IpAddr, Mac)>,
    /// The port that is no pod's: the node's NIC, under azure.
    pub uplink: Option<DeviceName>,
    /// Its pods, by the name of the host end.
    pub pods: Vec<BridgedPod>,
    /// Whom it has heard, or was told of.
    pub stations: Vec<BridgeStation>,
}

/// A pod on a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgedPod {
    /// The node's end of its veth.
    pub host_end: DeviceName,
    /// Its index.
    pub host_index: u32,
    /// The bridge sends frames back to it that it sent.
    pub hairpin: bool,
    /// It talks to no other isolated port.
    pub isolated: bool,
    /// Where its namespace is.
    pub netns: PathBuf,
    /// The pod's end.
    pub inside: DeviceName,
    /// The pod's hardware address.
    pub mac: Mac,
    /// The pod's addresses; link-local ones are left out.
    pub addresses: Vec<IpNet>,
    /// Its MTU.
    pub mtu: u32,
    /// The node's end speaks IPv6 of its own.
    pub ipv6: bool,
}

/// Why a bridge is left where it is.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such device.
    #[error("there is no device {0}")]
    NotThere(DeviceName),
    /// A device of another kind.
    #[error("{0} is no Linux bridge but {1}")]
    NoBridge(DeviceName, String),
    /// Somebody has built on it.
    #[error("{0} is itself a port of {1}: another owner uses it")]
    Controlled(DeviceName, String),
    /// Somebody has built on it.
    #[error("{1} stands on {0}: another owner uses it")]
    StoodOn(DeviceName, String),
    /// Spanning tree.
    #[error("{0} runs spanning tree, which the switch does not")]
    Stp(DeviceName),
    /// VLANs.
    #[error("{0} filters by VLAN, which the switch does not")]
    Vlans(DeviceName),
    /// A port that is no veth.
    #[error("port {0} is {1}, not a veth")]
    PortNotVeth(String, String),
    /// A veth whose pod is nowhere to be found.
    #[error("the pod behind port {0} cannot be found: its namespace has no path on this node")]
    PodNotFound(String),
    /// A pod without an address of its own.
    #[error("the pod behind port {0} has no address")]
    PodWithoutAddress(String),
    /// Somebody else's classifiers stand where ours must.
    #[error("port {0} has filters of another owner on its ingress")]
    Filters(String),
    /// Could not be looked at.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Looks at the bridge `name`. `uplink` may hang on it beside the pods. Namespaces are looked for at
/// `paths` and, on a node, below `/run/netns` and `/proc`: see [`namespace_paths`].
///
/// # Errors
/// Everything that speaks against adopting it.
pub fn observe(
    net: &Netlink,
    name: &DeviceName,
    uplink: &DeviceName,
    paths: &[PathBuf],
) -> Result<Observed, Vec<Refusal>> {
    let (link, facts) = bridge(net, name).map_err(|refusal| vec![refusal])?;
    let links = net.links().map_err(|error| vec![error.into()])?;
    let mut refusals = standing(&link, facts, &links);
    let mut rooms = Rooms::new(net, paths);
    let mut observed = Observed {
        name: name.clone(),
        mac: link.mac.unwrap_or(Mac::ZERO),
        mtu: link.mtu,
        facts,
        addresses: Vec::new(),
        routes: Vec::new(),
        neighbours: Vec::new(),
        uplink: None,
        pods: Vec::new(),
        stations: Vec::new(),
    };
    if let Err(error) = fill(net, &link, &mut observed) {
        refusals.push(error.into());
    }
    let ports = net.ports_of(link.index).unwrap_or_default();
    for port in ports {
        let Some(device) = links.iter().find(|l| l.index == port.device) else {
            continue;
        };
        if device.name == uplink.as_str() {
            observed.uplink = Some(uplink.clone());
            continue;
        }
        match pod(net, device, &mut rooms) {
            Ok(pod) => observed.pods.push(BridgedPod {
                hairpin: port.hairpin,
                isolated: port.isolated,
                ..pod
            }),
            Err(refusal) => refusals.push(refusal),
        }
    }
    observed.pods.sort_by(|a, b| a.host_end.cmp(&b.host_end));
    if refusals.is_empty() {
        Ok(observed)
    } else {
        Err(refusals)
    }
}

fn bridge(net: &Netlink, name: &DeviceName) -> Result<(Link, BridgeFacts), Refusal> {
    let link = net.find_link(name)?;
    let link = link.ok_or_else(|| Refusal::NotThere(name.clone()))?;
    match net.bridge(name)? {
        Some(facts) => Ok((link, facts)),
        None => {
            let kind = link.kind.unwrap_or_else(|| "a plain device".to_owned());
            Err(Refusal::NoBridge(name.clone(), kind))
        }
    }
}

/// What of the bridge itself speaks against adopting it.
fn standing(link: &Link, facts: BridgeFacts, links: &[Link]) -> Vec<Refusal> {
    let name = || DeviceName::new(&link.name).expect("the kernel knows it by that name");
    let mut refusals = Vec::new();
    if facts.stp {
        refusals.push(Refusal::Stp(name()));
    }
    if facts.vlan_filtering {
        refusals.push(Refusal::Vlans(name()));
    }
    if let Some(controller) = link.controller {
        let by = links.iter().find(|l| l.index == controller);
        let by = by.map_or_else(|| format!("device {controller}"), |l| l.name.clone());
        refusals.push(Refusal::Controlled(name(), by));
    }
    let stands_on =
        |other: &&Link| other.peer == Some(link.index) && other.peer_namespace.is_none();
    if let Some(other) = links
        .iter()
        .filter(|l| l.kind.as_deref() != Some("veth"))
        .find(stands_on)
    {
        refusals.push(Refusal::StoodOn(name(), other.name.clone()));
    }
    refusals
}

fn fill(net: &Netlink, link: &Link, observed: &mut Observed) -> Result<(), DeviceError> {
    observed.addresses = net.addresses(&observed.name)?;
    observed.addresses.retain(|net| !is_link_local(net));
    observed.routes = net.routes()?;
    observed
        .routes
        .retain(|route| route.device == link.index && route.protocol != ROUTE_BY_KERNEL);
    observed.neighbours = net.permanent_neighbours(link.index)?;
    observed.stations = net.stations_of(link.index)?;
    Ok(())
}

/// The pod behind one port.
fn pod(net: &Netlink, port: &Link, rooms: &mut Rooms<'_>) -> Result<BridgedPod, Refusal> {
    let name = DeviceName::new(&port.name).map_err(|_| Refusal::PodNotFound(port.name.clone()))?;
    if port.kind.as_deref() != Some("veth") {
        let kind = port.kind.clone().unwrap_or_else(|| "a NIC".to_owned());
        return Err(Refusal::PortNotVeth(port.name.clone(), kind));
    }
    if net.filters(&name)?.iter().any(|filter| !filter.ours) {
        return Err(Refusal::Filters(port.name.clone()));
    }
    let lost = || Refusal::PodNotFound(port.name.clone());
    let (number, index) = port.peer_namespace.zip(port.peer).ok_or_else(lost)?;
    let (path, room) = rooms.find(number).ok_or_else(lost)?;
    let inside = room.links()?.into_iter().find(|link| link.index == index);
    let inside = inside.ok_or_else(lost)?;
    let inside_name = DeviceName::new(&inside.name).map_err(|_| lost())?;
    let mut addresses = room.addresses(&inside_name)?;
    addresses.retain(|net| !is_link_local(net));
    match inside.mac {
        Some(mac) if !addresses.is_empty() => Ok(BridgedPod {
            ipv6: sysctl::get(net.namespace(), Setting::DisableIpv6(Conf::Device(&name)))
                .is_ok_and(|off| off == "0"),
            host_end: name,
            host_index: port.index,
            hairpin: false,
            isolated: false,
            netns: path.to_owned(),
            inside: inside_name,
            mac,
            addresses,
            mtu: inside.mtu,
        }),
        _ => Err(Refusal::PodWithoutAddress(port.name.clone())),
    }
}

impl Observed {
    /// The node was told which pod has the pod's address.
    #[must_use]
    pub fn is_told_of(&self, pod: &BridgedPod) -> bool {
        let is_its = |(address, mac): &(IpAddr, Mac)| *mac == pod.mac && has(pod, *address);
        self.neighbours.iter().any(is_its)
    }

    /// The neighbours that are no pods.
    #[must_use]
    pub fn other_neighbours(&self) -> Vec<Neighbour> {
        let is_a_pods = |address| self.pods.iter().any(|pod| has(pod, address));
        let others = self.neighbours.iter();
        let others = others.filter(|(address, _)| !is_a_pods(*address));
        others
            .map(|(address, mac)| Neighbour {
                address: *address,
                mac: *mac,
            })
            .collect()
    }
}

fn has(pod: &BridgedPod, address: IpAddr) -> bool {
    pod.addresses.iter().any(|net| net.addr() == address)
}

fn is_link_local(net: &IpNet) -> bool {
    match net.addr() {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Namespaces by the number that the node's own knows them by, each with a path.
pub(super) struct Rooms<'a> {
    node: &'a Netlink,
    /// Not looked at yet.
    paths: std::slice::Iter<'a, PathBuf>,
    found: BTreeMap<i32, (PathBuf, Netlink)>,
}

impl<'a> Rooms<'a> {
    pub(super) fn new(node: &'a Netlink, paths: &'a [PathBuf]) -> Rooms<'a> {
        Rooms {
            node,
            paths: paths.iter(),
            found: BTreeMap::new(),
        }
    }

    /// The namespace with `number`. A path that leads nowhere is passed over: processes end.
    pub(super) fn find(&mut self, number: i32) -> Option<(&Path, &Netlink)> {
        while !self.found.contains_key(&number) {
            let path = self.paths.next()?;
            let Ok(netns) = Netns::open(path) else {
                continue;
            };
            let Ok(Some(found)) = self.node.number_of(&netns) else {
                continue;
            };
            if let Ok(net) = Netlink::open(&netns) {
                self.found.entry(found).or_insert((path.clone(), net));
            }
        }
        let (path, net) = self.found.get(&number)?;
        Some((path, net))
    }
}

/// Where this node's namespaces may be: those with names, those of Docker, and each process's.
#[must_use]
pub fn namespace_paths() -> Vec<PathBuf> {
    let below = |folder: &str| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path())
    };
    let named = below(PINS).chain(below("/run/docker/netns"));
    let is_process = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
    };
    let processes = below("/proc")
        .filter(is_process)
        .map(|path| path.join("ns/net"));
    named.chain(processes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, index: u32, kind: &str) -> Link {
        Link {
            name: name.to_owned(),
            index,
            mac: None,
            mtu: 1500,
            up: true,
            running: true,
            listeners: 0,
            no_arp: false,
            alias: None,
            kind: Some(kind.to_owned()),
            qdisc: String::new(),
            tx_queue_length: 1000,
            peer: None,
            peer_namespace: None,
            controller: None,
            tap: None,
        }
    }

    #[test]
    fn all_that_speaks_against_a_bridge_is_told_at_once() {
        let told = |bridge: &Link, facts, others: &[Link]| -> Vec<String> {
            let refusals = standing(bridge, facts, others);
            refusals.iter().map(ToString::to_string).collect()
        };
        let plain = device("cbr0", 3, "bridge");
        let pod = Link {
            peer: Some(3),
            peer_namespace: Some(7),
            ..device("veth1", 5, "veth")
        };
        let facts = BridgeFacts::default();
        assert_eq!(told(&plain, facts, &[plain.clone(), pod.clone()]), [""; 0]);
        let facts = BridgeFacts {
            stp: true,
            vlan_filtering: true,
            ..facts
        };
        let bridge = Link {
            controller: Some(4),
            ..plain
        };
        let vlan = Link {
            peer: Some(3),
            ..device("cbr0.7", 6, "vlan")
        };
        let others = [bridge.clone(), device("vrf1", 4, "vrf"), pod, vlan];
        assert_eq!(
            told(&bridge, facts, &others),
            [
                "cbr0 runs spanning tree, which the switch does not",
                "cbr0 filters by VLAN, which the switch does not",
                "cbr0 is itself a port of vrf1: another owner uses it",
                "cbr0.7 stands on cbr0: another owner uses it",
            ]
        );
    }
}
