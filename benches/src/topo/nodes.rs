//! Two nodes on the lab's fabric.
//!
//! In: a subject and the network plugin. Out: a [`Rig`] from a pod on one node to one on the other.
//! Never: a NIC with offloads: the fabric is a wire, and sets the limit for everyone on it.
//!
//! Tapline's side is the lab's cluster. The Linux bridge's side has the same fabric, NICs and
//! addresses; pods hang on a bridge, and the node's kernel routes between it and `eth0`. Under
//! azure the pods are in the NIC's subnet, so the bridge answers ARP for what lies behind `eth0`.

use std::net::{IpAddr, Ipv4Addr};

use control::devices::netlink::address::Route;
use control::devices::{Netlink, Netns, sysctl};
use control::lab::cluster::{Cluster, Wishes};
use control::lab::fabric::{self, Fabric, NicSpec, SubnetSpec, UserRoute, VnetSpec};
use control::model::{Source, examples};
use control::plan::{self, LoadOptions, Plugin};
use dataplane::addr::Mac;
use ipnet::{IpNet, Ipv4Net};

use super::{Env, MTU, Pod, Rig, Unbuilt, device, rps, station};
use crate::names::Subject;
use crate::traffic::Path;

/// Builds it.
///
/// # Errors
/// What failed, or that the subject has no such form.
pub fn build(env: &Env, subject: Subject, plugin: Plugin) -> Result<Rig, Unbuilt> {
    match subject {
        Subject::TaplineVeth => tapline(env, plugin),
        Subject::LinuxBridge => bridge(plugin),
        _ => Err("it is measured on one node only".into()),
    }
}

fn tapline(env: &Env, plugin: Plugin) -> Result<Rig, Unbuilt> {
    let options = LoadOptions {
        vnet: Some(Source::BuiltIn {
            name: "aks-vnet.json",
            text: examples::AKS_VNET,
        }),
        plugin: Some(plugin),
        cluster_id: Some(examples::CLUSTER_ID.to_owned()),
        ..LoadOptions::new(Source::BuiltIn {
            name: "aks.json",
            text: examples::AKS,
        })
    };
    let plan = plan::load(&options).map_err(|faults| faults.to_string())?;
    let wishes = Wishes {
        spin: env.spin,
        workers: env.workers,
        ..Wishes::default()
    };
    let cluster = Cluster::build(&env.private, &plan, &wishes, |_| {})?;
    let pod = |name: &str| {
        cluster
            .pod(name)
            .ok_or_else(|| format!("there is no {name}"))
    };
    let (a, c) = (pod("pod-a")?, pod("pod-c")?);
    let path = Path {
        from: a.netns.clone(),
        to: c.netns.clone(),
        address: c.address,
    };
    let ends = [a, c].into_iter().flat_map(|pod| {
        let node = cluster.nodes[pod.node].netns.clone();
        [
            (node, pod.host_end.clone()),
            (pod.netns.clone(), device("eth0")),
        ]
    });
    Ok(Rig {
        path,
        flood: None,
        rps: rps::Ends(ends.collect()),
        settings: vec!["the fabric has no offloads".into()],
        threads: Some((std::process::id(), "tl-")),
        pair_drops: None,
        hold: Box::new(cluster),
    })
}

/// One node of the bridge's two.
#[derive(Clone, Copy)]
struct Node {
    name: &'static str,
    primary: [u8; 4],
    pod: [u8; 4],
    /// Of the bridge; under azure it has none.
    gateway: [u8; 4],
}

const AZURE: [Node; 2] = [
    Node {
        name: "node-0",
        primary: [10, 20, 0, 4],
        pod: [10, 20, 0, 5],
        gateway: [169, 254, 1, 1],
    },
    Node {
        name: "node-1",
        primary: [10, 20, 0, 35],
        pod: [10, 20, 0, 36],
        gateway: [169, 254, 1, 1],
    },
];
const KUBENET: [Node; 2] = [
    Node {
        pod: [10, 244, 0, 2],
        gateway: [10, 244, 0, 1],
        ..AZURE[0]
    },
    Node {
        pod: [10, 244, 1, 2],
        gateway: [10, 244, 1, 1],
        ..AZURE[1]
    },
];

fn bridge(plugin: Plugin) -> Result<Rig, Unbuilt> {
    let nodes = match plugin {
        Plugin::Azure => AZURE,
        Plugin::Kubenet => KUBENET,
    };
    let fabric = Fabric::start(vnet(plugin, &nodes))?;
    let mut built = Vec::new();
    for node in nodes {
        built.push(bridge_node(&fabric, plugin, node)?);
    }
    let (from, to) = (&built[0].1, &built[1].1);
    let path = Path {
        from: from.netns.clone(),
        to: to.netns.clone(),
        address: to.address,
    };
    let ends = built.iter().flat_map(|(node, pod)| {
        [
            (node.clone(), pod.host_end.clone()),
            (pod.netns.clone(), pod.device.clone()),
        ]
    });
    Ok(Rig {
        path,
        flood: None,
        rps: rps::Ends(ends.collect()),
        settings: vec!["the fabric has no offloads".into()],
        threads: None,
        pair_drops: None,
        hold: Box::new((fabric, built)),
    })
}

fn vnet(plugin: Plugin, nodes: &[Node]) -> VnetSpec {
    let route = |node: &Node| UserRoute {
        name: node.name.into(),
        prefix: net(node.gateway, 24).trunc(),
        next_hop: fabric::NextHop::VirtualAppliance(IpAddr::from(node.primary)),
    };
    VnetSpec {
        prefixes: vec![net([10, 20, 0, 0], 16)],
        subnets: vec![SubnetSpec {
            name: "agents".into(),
            prefixes: vec![net([10, 20, 0, 0], 24)],
            route_table: (plugin == Plugin::Kubenet).then(|| nodes.iter().map(route).collect()),
        }],
    }
}

fn bridge_node(fabric: &Fabric, plugin: Plugin, node: Node) -> Result<(Netns, Pod), Unbuilt> {
    let netns = Netns::create(node.name)?;
    sysctl::set_ip_forward(&netns, true)?;
    let mut addresses = vec![IpAddr::from(node.primary)];
    if plugin == Plugin::Azure {
        addresses.push(IpAddr::from(node.pod));
    }
    let [_, b, c, d] = node.primary;
    fabric.add_nic(
        &netns,
        NicSpec {
            name: node.name.into(),
            mac: Mac::new([0x00, 0x0d, 0x3a, b, c, d]),
            addresses,
            subnet: "agents".into(),
            forwarding: plugin == Plugin::Kubenet,
            mtu: MTU,
        },
    )?;
    let link = Netlink::open(&netns)?;
    let eth0 = device(fabric::DEVICE);
    link.add_address(&eth0, net(node.primary, 24))?;
    link.add_route(&eth0, &default_by([10, 20, 0, 1]))?;
    let bridge = device(if plugin == Plugin::Azure {
        "azure0"
    } else {
        "cbr0"
    });
    link.add_bridge(&bridge)?;
    sysctl::silence_ipv6(&link, &bridge)?;
    link.set_up(&bridge, true)?;
    let pod = Pod {
        netns: Netns::create(&format!("pod-of-{}", node.name))?,
        device: device("eth0"),
        host_end: device("veth00000000"),
        tap: device("unused"),
        mac: station([
            0x0a,
            0x58,
            node.pod[0],
            node.pod[1],
            node.pod[2],
            node.pod[3],
        ]),
        address: Ipv4Addr::from(node.pod),
        active: false,
    };
    pod.attach_veth(&link)?;
    link.set_bridge(&pod.host_end, &bridge)?;
    let pod_link = Netlink::open(&pod.netns)?;
    pod_link.add_address(&pod.device, net(node.pod, 24))?;
    match plugin {
        Plugin::Azure => {
            let to = IpNet::from(IpAddr::from(node.pod));
            let (via, source) = (None, None);
            link.add_route(&bridge, &Route { to, via, source })?;
            let file = format!("/proc/sys/net/ipv4/conf/{bridge}/proxy_arp");
            netns.run(|| std::fs::write(file, "1"))?;
        }
        Plugin::Kubenet => {
            link.add_address(&bridge, net(node.gateway, 24))?;
            pod_link.add_route(&pod.device, &default_by(node.gateway))?;
        }
    }
    Ok((netns, pod))
}

fn default_by(gateway: [u8; 4]) -> Route {
    Route {
        to: Ipv4Net::default().into(),
        via: Some(gateway.into()),
        source: None,
    }
}

fn net(address: [u8; 4], length: u8) -> IpNet {
    IpNet::new(address.into(), length).expect("our own lengths are legal")
}
