//! Services of a dual-stack cluster in IPv6, with the kernel's own packet filter in the nodes of a lab.
//!
//! In: the built-in cluster with both families under kubenet, and rules as kube-proxy would have them.
//! Out: conversations of real sockets over TCP and UDP, and who they think that they speak to.
//! Never: asks what `services` asks of IPv4, over again.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use control::devices::netns::Netns;
use control::devices::sysctl;
use control::lab::cluster::{Cluster, Wishes};
use control::plan::{self, LoadOptions, Plugin};

use crate::nft::{self, Chain, OUTPUT, POSTROUTING, PREROUTING};
use crate::services::converse;

const TCP: u8 = 6;
const UDP: u8 = 17;
const PORT: u16 = 80;
const POD_PORT: u16 = 8080;
/// Of services: the plan's IPv6 service CIDR is fd00::/108.
const SAME_NODE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x7701);
const OTHER_NODE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x7702);
const ITSELF: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x7703);

fn pod<'a>(cluster: &'a Cluster, name: &str) -> (&'a Netns, Ipv6Addr) {
    let pod = cluster.pod(name).expect("placed");
    (&pod.netns, pod.address_v6.expect("in dual stack"))
}

/// What kube-proxy would have in a node's table `nat`.
fn load_rules(cluster: &Cluster, node: &Netns) {
    let backend = |service, name: &str| {
        let (_, address) = pod(cluster, name);
        [TCP, UDP].map(|number| {
            [
                nft::to_v6(service),
                nft::next_header(number),
                nft::to_port(PORT),
                nft::translate_to_v6(address, POD_PORT),
            ]
            .concat()
        })
    };
    let rules = [
        backend(SAME_NODE, "pod-b"),
        backend(OTHER_NODE, "pod-c"),
        backend(ITSELF, "pod-a"),
    ]
    .concat();
    let (_, a) = pod(cluster, "pod-a");
    let hairpin = [nft::from_v6(a), nft::to_v6(a), nft::masquerade()].concat();
    let chain = |name, hook, priority, rules| Chain {
        name,
        hook: Some(("nat", hook, priority)),
        rules,
    };
    let chains = [
        chain("PREROUTING", PREROUTING, -100, rules.clone()),
        chain("OUTPUT", OUTPUT, -100, rules),
        chain("POSTROUTING", POSTROUTING, 100, vec![hairpin]),
    ];
    nft::load_v6(node, "nat", &chains);
}

pub(crate) fn services_work_in_ipv6_under_kubenet() {
    let private = crate::PRIVATE.lock().expect("one thread").take();
    let private = private.expect("entered");
    let options = LoadOptions {
        plugin: Some(Plugin::Kubenet),
        ..LoadOptions::built_in_dual_stack()
    };
    let plan = plan::load(&options).expect("the example holds");
    let cluster = Cluster::build(&private, &plan, &Wishes::default(), |_| {}).expect("built");
    for node in &cluster.nodes {
        sysctl::set_ipv6_forwarding(&node.netns, true).expect("written");
        load_rules(&cluster, &node.netns);
    }
    let [(a, a_ip), (b, b_ip), (c, c_ip)] =
        ["pod-a", "pod-b", "pod-c"].map(|name| pod(&cluster, name));
    // By itself: the kernel speaks in the node's own name, so that the answer comes back to it.
    let gateway = Ipv6Addr::from_bits(a_ip.to_bits() >> 64 << 64 | 1);
    for number in [TCP, UDP] {
        for (what, server, client, asked, port, seen) in [
            ("on the same node", b, a, SAME_NODE, PORT, a_ip),
            ("on the other node", c, a, OTHER_NODE, PORT, a_ip),
            ("the other way round", b, c, SAME_NODE, PORT, c_ip),
            ("by itself", a, a, ITSELF, PORT, gateway),
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
