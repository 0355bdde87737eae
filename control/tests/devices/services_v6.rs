//! Services, host ports and masquerade of a dual-stack cluster in IPv6, with the kernel's own packet filter
//! in the nodes of a lab.
//!
//! In: the built-in cluster with both families under kubenet, and rules as kube-proxy would have them.
//! Out: conversations of real sockets over TCP and UDP, and who they think that they speak to.
//! Never: asks what `services` asks of IPv4, over again.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use control::devices::netns::Netns;
use control::devices::sysctl;
use control::lab::cluster::{Cluster, Wishes};
use control::plan::{self, LoadOptions, Plugin};

use crate::nft;
use crate::services::{HOST_PORT, Nat, POD_PORT, SERVICE_PORT, TCP, UDP, converse};

/// Of services: the plan's IPv6 service CIDR is fd00::/108.
const SAME_NODE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x7701);
const OTHER_NODE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x7702);
const ITSELF: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x7703);

fn pod<'a>(cluster: &'a Cluster, name: &str) -> (&'a Netns, Ipv6Addr) {
    let pod = cluster.pod(name).expect("placed");
    (&pod.netns, pod.address_v6.expect("in dual stack"))
}

/// A node's own address.
fn own(cluster: &Cluster, at: usize) -> Ipv6Addr {
    let plan = &cluster.nodes[at].plan;
    plan.primary_ip_v6.expect("in dual stack")
}

fn load_rules(cluster: &Cluster, at: usize) {
    let address = |name| IpAddr::V6(pod(cluster, name).1);
    let service = |service: Ipv6Addr, name| ((service, SERVICE_PORT).into(), address(name));
    let mut backends = vec![
        service(SAME_NODE, "pod-b"),
        service(OTHER_NODE, "pod-c"),
        service(ITSELF, "pod-a"),
    ];
    if at == 0 {
        backends.push(((own(cluster, 0), HOST_PORT).into(), address("pod-b")));
    }
    let nat = Nat {
        backends,
        itself: address("pod-a"),
        // Beyond the pods' network, as the world is.
        world: own(cluster, 1).into(),
    };
    nft::load_v6(&cluster.nodes[at].netns, "nat", &nat.chains());
}

pub(crate) fn services_host_ports_and_masquerade_work_in_ipv6_under_kubenet() {
    let private = crate::PRIVATE.lock().expect("one thread").take();
    let private = private.expect("entered");
    let options = LoadOptions {
        plugin: Some(Plugin::Kubenet),
        ..LoadOptions::built_in_dual_stack()
    };
    let plan = plan::load(&options).expect("the example holds");
    let cluster = Cluster::build(&private, &plan, &Wishes::default(), |_| {}).expect("built");
    for (at, node) in cluster.nodes.iter().enumerate() {
        sysctl::set_ipv6_forwarding(&node.netns, true).expect("written");
        load_rules(&cluster, at);
    }
    let [(a, a_ip), (b, b_ip), (c, c_ip)] =
        ["pod-a", "pod-b", "pod-c"].map(|name| pod(&cluster, name));
    // By itself: the kernel speaks in the node's own name, so that the answer comes back to it.
    let gateway = Ipv6Addr::from_bits(a_ip.to_bits() >> 64 << 64 | 1);
    let (node_0, node_1) = (own(&cluster, 0), own(&cluster, 1));
    let far = &cluster.nodes[1].netns;
    for number in [TCP, UDP] {
        for (what, server, client, asked, port, seen) in [
            ("on the same node", b, a, SAME_NODE, SERVICE_PORT, a_ip),
            ("on the other node", c, a, OTHER_NODE, SERVICE_PORT, a_ip),
            ("the other way round", b, c, SAME_NODE, SERVICE_PORT, c_ip),
            ("by itself", a, a, ITSELF, SERVICE_PORT, gateway),
            ("host port, on the node", b, a, node_0, HOST_PORT, a_ip),
            ("host port, from a far pod", b, c, node_0, HOST_PORT, c_ip),
            ("host port, from a node", b, far, node_0, HOST_PORT, node_1),
            ("beyond the pods' network", far, a, node_1, POD_PORT, node_0),
            ("directly, on the node", b, a, b_ip, POD_PORT, a_ip),
            ("directly, to the other node", c, a, c_ip, POD_PORT, a_ip),
        ] {
            let asked = SocketAddr::from((asked, port));
            let found = converse(number, (server, POD_PORT), client, asked);
            let found = found.unwrap_or_else(|e| panic!("{what}, {number} to {asked}: {e}"));
            assert_eq!(found, IpAddr::V6(seen), "{what}, {number} to {asked}");
        }
    }
    let totals = cluster.nodes[0]
        .daemon
        .with(|core| core.switch().returns().totals());
    let totals = totals.expect("it serves");
    assert!(totals.returned > 0 && totals.live > 0, "{totals:?}");
    cluster.stop().expect("books that balance");
}
