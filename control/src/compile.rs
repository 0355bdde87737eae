//! From a plan to a switch's tables: one node, as it stands, in the words of the dataplane.
//!
//! In: a [`NodeSpec`], from the plan or from the node itself, and the pods attached to it now.
//! Out: a [`TablesSpec`] for the dataplane to check. Pure.
//! Never: two code paths in the switch: azure and kubenet differ in these rows only.
//!
//! | route | azure | kubenet |
//! |---|---|---|
//! | a pod here | its port | its port |
//! | another address of this node's range | unreachable | unreachable |
//! | another node's pods | the VNet's prefix, by the fabric's MAC | the route's next hop, by ARP |
//! | of these, what a route table sends to `None` | blackhole | blackhole |
//! | services, Azure's platform, the node itself | host | host |
//! | anything else | host, which masquerades | host, which masquerades |
//!
//! Which routes of a route table a node applies itself, and which it must leave to the fabric, is
//! told in [`crate::routes`].
//!
//! In dual stack kubenet has the same rows once more for IPv6. azure has none: there a node
//! translates its pods' IPv6 (`ipv6nat`), and what a pod sends of it dies for want of a route.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::addr::{Mac, PortId, Station};
use dataplane::tables::fib::NextHop;
use dataplane::tables::{Addresses, Crossing, Owner, PortRole, PortSpec, TablesSpec, Unknown};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::plan::{Node, Plan, Plugin};

pub mod guards;
pub mod spec;

pub use spec::NodeSpec;

/// The hardware address with which Azure's fabric answers for every address of a VNet
/// (azure-container-networking, `network/network.go`, `virtualMacAddress`).
pub const FABRIC_MAC: Mac = Mac::new([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);

/// The port of the node's own kernel.
pub const HOST_PORT: PortId = port(0);
/// The port of the node's NIC.
pub const UPLINK_PORT: PortId = port(1);
/// The first port for pods.
pub const FIRST_POD_PORT: usize = 2;

/// Azure's own services on every VM (DNS, DHCP, wireserver) and link-local metadata: the kernel's.
pub(crate) const PLATFORM: [Ipv4Net; 2] = [
    Ipv4Net::new_assert(Ipv4Addr::new(168, 63, 129, 16), 32),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
];

/// The addresses of the link itself, one of which the kernel has on `cbr0`.
pub(crate) const LINK_LOCAL: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);

const fn port(index: usize) -> PortId {
    match PortId::new(index) {
        Some(port) => port,
        None => panic!("an index below the limit"),
    }
}

/// The hardware of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeMacs {
    /// Of `eth0`.
    pub nic: Station,
    /// Of `azure0` (the NIC's) or `cbr0` (a fixed one).
    pub host: Station,
}

/// A pod on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPort {
    /// Its port.
    pub port: PortId,
    /// Its hardware address.
    pub mac: Station,
    /// Its protocol addresses.
    pub addresses: Vec<IpAddr>,
    /// May it reach itself through the switch?
    pub hairpin: bool,
    /// Is it kept from other isolated pods, and from itself?
    pub isolated: bool,
    /// May it send from no MAC but its own, whatever the node's guards say?
    pub mac_checked: bool,
    /// Its MTU, where it is not the uplink's.
    pub mtu: Option<u16>,
    /// The names by which the configuration may mean it.
    pub called: Vec<String>,
}

impl PodPort {
    /// One that is as most are.
    #[must_use]
    pub fn new(port: PortId, mac: Station, addresses: Vec<IpAddr>) -> PodPort {
        PodPort {
            port,
            mac,
            addresses,
            hairpin: false,
            isolated: false,
            mac_checked: false,
            mtu: None,
            called: Vec::new(),
        }
    }
}

/// The tables of a planned node's switch.
#[must_use]
pub fn compile(plan: &Plan, node: &Node, macs: NodeMacs, pods: &[PodPort]) -> TablesSpec {
    NodeSpec::planned(plan, node, macs).tables(pods)
}

impl NodeSpec {
    /// The tables of the node's switch, with these pods.
    #[must_use]
    pub fn tables(&self, pods: &[PodPort]) -> TablesSpec {
        TablesSpec {
            ports: ports(self, pods),
            owners: owners(self, pods),
            router_macs: router_macs(self),
            routes: self.routes(pods),
            groups: Vec::new(),
            crossing: crossing(self),
            policy: self.policy,
            unknown: match self.plugin {
                Plugin::Azure => Unknown::Drop,
                Plugin::Kubenet => Unknown::Flood,
            },
            guards: self.guards.of(pods),
        }
    }

    fn routes(&self, pods: &[PodPort]) -> Vec<(IpNet, NextHop)> {
        let mut routes: BTreeMap<IpNet, NextHop> = BTreeMap::new();
        for wanted in self.wanted_routes(pods) {
            routes.entry(wanted.prefix).or_insert(wanted.hop);
        }
        routes.into_iter().collect()
    }

    /// Every route that somebody wants, in the order of their importance: of two for one prefix
    /// the first is taken.
    #[must_use]
    pub fn wanted_routes(&self, pods: &[PodPort]) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for pod in pods {
            let hop = NextHop::Station {
                port: pod.port,
                mac: pod.mac.mac(),
            };
            wanted.extend(pod.addresses.iter().map(|address| Wanted {
                pod: Some(pod.port),
                ..Wanted::new(IpNet::from(*address), hop, "a pod")
            }));
        }
        self.to_the_kernel(&mut wanted);
        let own = self.pods.iter().copied().map(IpNet::V4);
        for prefix in own.chain(self.pods_v6.map(IpNet::V6)) {
            wanted.push(Wanted::new(prefix, NextHop::Unreachable, "own pod range"));
        }
        let remote = self.remote.iter();
        wanted.extend(remote.map(|row| Wanted::new(row.prefix, row.hop, &row.source)));
        let v6 = self.pods_v6.map(|_| IpNet::V6(Ipv6Net::default()));
        for prefix in [IpNet::V4(Ipv4Net::default())].into_iter().chain(v6) {
            wanted.push(Wanted::new(prefix, NextHop::Host, "default"));
        }
        wanted
    }

    /// The node's own addresses, services and Azure's platform: the kernel translates and answers.
    fn to_the_kernel(&self, wanted: &mut Vec<Wanted>) {
        let dual_stack = self.pods_v6.is_some();
        let mut add = |prefix: IpNet, source| {
            if prefix.addr().is_ipv4() || dual_stack {
                wanted.push(Wanted::new(prefix, NextHop::Host, source));
            }
        };
        let both = |held: Addresses| {
            let v6 = held.v6.map(IpAddr::V6);
            held.v4.map(IpAddr::V4).into_iter().chain(v6)
        };
        for address in both(self.own) {
            add(address.into(), "the node itself");
        }
        for address in both(self.gateway()) {
            add(address.into(), "the pods' gateway");
        }
        for prefix in &self.services {
            add(*prefix, "service CIDR");
        }
        for prefix in &self.via_host {
            add(*prefix, "by way of the host");
        }
        for prefix in PLATFORM {
            add(prefix.into(), "Azure's platform");
        }
        add(LINK_LOCAL.into(), "the link itself");
    }
}

/// A route that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What it is for.
    pub prefix: IpNet,
    /// Where it is to lead.
    pub hop: NextHop,
    /// Who wants it.
    pub source: String,
    /// The pod's port, where it is a pod's.
    pub pod: Option<PortId>,
}

impl Wanted {
    fn new(prefix: IpNet, hop: NextHop, source: &str) -> Wanted {
        Wanted {
            prefix: prefix.trunc(),
            hop,
            source: source.to_owned(),
            pod: None,
        }
    }
}

/// The prefixes that hold exactly the addresses which this node's pods may have: what is steered
/// to the switch, and what never leaves by the uplink.
#[must_use]
pub fn own_range(node: &Node) -> Vec<Ipv4Net> {
    node.pod_range()
}

/// The IPv6 prefix of this node's pods, where the switch serves them in dual stack: under kubenet,
/// and where the node has an address of its own by which others reach it.
#[must_use]
pub fn own_range_v6(plan: &Plan, node: &Node) -> Option<Ipv6Net> {
    let served = plan.plugin == Plugin::Kubenet && node.primary_ip_v6.is_some();
    node.pod_cidr_v6.filter(|_| served)
}

/// The gateway of the node's pods, which `cbr0` holds: the first host of the pod CIDR.
#[must_use]
pub fn gateway(node: &Node) -> Option<Ipv4Addr> {
    node.pod_cidr?.hosts().next()
}

/// Their IPv6 gateway, which `cbr0` holds as well.
#[must_use]
pub fn gateway_v6(plan: &Plan, node: &Node) -> Option<Ipv6Addr> {
    own_range_v6(plan, node).map(first_host_v6)
}

/// The first address that a host may have: the one before it is any router's (RFC 4291 2.6.1).
#[must_use]
pub fn first_host_v6(net: Ipv6Net) -> Ipv6Addr {
    Ipv6Addr::from_bits(net.network().to_bits() | 1)
}

fn ports(node: &NodeSpec, pods: &[PodPort]) -> Vec<PortSpec> {
    let row = |id, role, mac, hairpin| PortSpec {
        id,
        role,
        mac,
        mtu: node.mtu,
        hairpin,
        isolated: false,
    };
    let fixed = [
        row(HOST_PORT, PortRole::Host, node.macs.host, false),
        row(UPLINK_PORT, PortRole::Uplink, node.macs.nic, false),
    ];
    let pods = pods.iter().map(|pod| PortSpec {
        mtu: pod.mtu.unwrap_or(node.mtu),
        isolated: pod.isolated,
        ..row(pod.port, PortRole::Pod, pod.mac, pod.hairpin)
    });
    fixed.into_iter().chain(pods).collect()
}

fn owners(node: &NodeSpec, pods: &[PodPort]) -> Vec<(IpAddr, Owner)> {
    let host = Owner {
        port: HOST_PORT,
        mac: node.macs.host.mac(),
    };
    let held = match node.plugin {
        Plugin::Azure => node.own,
        Plugin::Kubenet => node.gateway(),
    };
    let own = held.v4.map(IpAddr::V4).into_iter();
    let own = own.chain(held.v6.map(IpAddr::V6));
    let own = own.map(|address| (address, host));
    let pods = pods.iter().flat_map(|pod| {
        let owner = Owner {
            port: pod.port,
            mac: pod.mac.mac(),
        };
        pod.addresses.iter().map(move |address| (*address, owner))
    });
    own.chain(pods).collect()
}

/// Whom pods address what they want routed to: the fabric and the node, or the gateway.
fn router_macs(node: &NodeSpec) -> Vec<Mac> {
    match node.plugin {
        Plugin::Azure => vec![FABRIC_MAC, node.macs.nic.mac()],
        Plugin::Kubenet => vec![node.macs.host.mac()],
    }
}

fn crossing(node: &NodeSpec) -> Crossing {
    match node.plugin {
        Plugin::Azure => Crossing::Bridged,
        Plugin::Kubenet => Crossing::Routed {
            uplink: node.own,
            gateway: node.gateway(),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use dataplane::tables::Tables;

    use super::*;
    use crate::plan::{LoadOptions, load};

    const MACS: NodeMacs = NodeMacs {
        nic: mac(0x20),
        host: mac(0x01),
    };

    const fn mac(last: u8) -> Station {
        match Station::new(Mac::new([0x0a, 0x58, 0, 0, 0, last])) {
            Ok(station) => station,
            Err(_) => panic!("neither group nor zero"),
        }
    }

    fn dual_stack(plugin: Plugin) -> Plan {
        load(&LoadOptions {
            plugin: Some(plugin),
            ..LoadOptions::built_in_dual_stack()
        })
        .unwrap()
    }

    fn pod() -> PodPort {
        let addresses = vec!["10.244.0.2".parse().unwrap(), "fc00::2".parse().unwrap()];
        PodPort::new(PortId::new(FIRST_POD_PORT).unwrap(), mac(0x31), addresses)
    }

    /// The next hop of the longest prefix, by a walk along the rows.
    fn hop(spec: &TablesSpec, address: &str) -> Option<NextHop> {
        let address: IpAddr = address.parse().unwrap();
        spec.routes
            .iter()
            .filter(|(prefix, _)| prefix.contains(&address))
            .max_by_key(|(prefix, _)| prefix.prefix_len())
            .map(|(_, hop)| *hop)
    }

    #[test]
    fn kubenet_in_dual_stack_has_the_same_rows_for_both_families() {
        let plan = dual_stack(Plugin::Kubenet);
        let spec = compile(&plan, &plan.nodes[0], MACS, &[pod()]);
        let here = NextHop::Station {
            port: pod().port,
            mac: pod().mac.mac(),
        };
        let neighbour = |address: &str| NextHop::Neighbour(address.parse().unwrap());
        for (v4, v6, wanted) in [
            ("10.244.0.2", "fc00::2", [here; 2]),
            ("10.244.0.3", "fc00::3", [NextHop::Unreachable; 2]),
            ("10.244.0.1", "fc00::1", [NextHop::Host; 2]),
            ("10.20.0.4", "2001:db8:10:20::4", [NextHop::Host; 2]),
            ("10.20.0.5", "2001:db8:10:20::5", [NextHop::Host; 2]),
            ("10.0.0.1", "fd00::1", [NextHop::Host; 2]),
            ("8.8.8.8", "2001:db8:ffff::1", [NextHop::Host; 2]),
            (
                "10.244.1.7",
                "fc00:0:0:1::7",
                [neighbour("10.20.0.5"), neighbour("2001:db8:10:20::5")],
            ),
            (
                "10.244.2.7",
                "fc00:0:0:2::7",
                [neighbour("10.10.0.5"), neighbour("2001:db8:10:10::4")],
            ),
        ] {
            assert_eq!(
                [hop(&spec, v4), hop(&spec, v6)],
                wanted.map(Some),
                "{v4} {v6}"
            );
        }
        let rows = |v4: bool| {
            let of_family = |(prefix, _): &&(IpNet, NextHop)| prefix.addr().is_ipv4() == v4;
            spec.routes.iter().filter(of_family).count()
        };
        assert_eq!(rows(true) - PLATFORM.len(), rows(false) - 1, "fe80::/10");
        assert_eq!(hop(&spec, "fe80::1"), Some(NextHop::Host));
        assert_eq!(
            spec.crossing,
            Crossing::Routed {
                uplink: Addresses {
                    v4: Some("10.20.0.4".parse().unwrap()),
                    v6: Some("2001:db8:10:20::4".parse().unwrap()),
                },
                gateway: Addresses {
                    v4: Some("10.244.0.1".parse().unwrap()),
                    v6: Some("fc00::1".parse().unwrap()),
                },
            }
        );
        let held: Vec<(String, PortId)> = spec
            .owners
            .iter()
            .map(|(address, owner)| (address.to_string(), owner.port))
            .collect();
        let own = |address: &str, port| (address.to_owned(), port);
        assert_eq!(
            held,
            [
                own("10.244.0.1", HOST_PORT),
                own("fc00::1", HOST_PORT),
                own("10.244.0.2", pod().port),
                own("fc00::2", pod().port),
            ]
        );
        assert!(Tables::build(&spec).is_ok());
    }

    #[test]
    fn azure_has_no_ipv6_rows_even_in_dual_stack() {
        let plan = dual_stack(Plugin::Azure);
        assert!(plan.nodes.iter().all(|node| node.pod_cidr_v6.is_some()));
        let spec = compile(&plan, &plan.nodes[0], MACS, &[]);
        assert!(
            spec.routes
                .iter()
                .all(|(prefix, _)| prefix.addr().is_ipv4())
        );
        assert!(spec.owners.iter().all(|(address, _)| address.is_ipv4()));
        assert!(Tables::build(&spec).is_ok());
    }

    #[test]
    fn without_dual_stack_nothing_speaks_of_ipv6() {
        let kubenet = LoadOptions {
            plugin: Some(Plugin::Kubenet),
            ..LoadOptions::built_in()
        };
        let plan = load(&kubenet).unwrap();
        let spec = compile(&plan, &plan.nodes[0], MACS, &[]);
        assert!(
            spec.routes
                .iter()
                .all(|(prefix, _)| prefix.addr().is_ipv4())
        );
        let Crossing::Routed { uplink, gateway } = spec.crossing else {
            panic!("kubenet routes");
        };
        assert_eq!((uplink.v6, gateway.v6), (None, None));
    }
}
