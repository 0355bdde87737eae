//! What a node's pods may be addressed by, and what the plan got wrong about it.
//!
//! In: prefixes and addresses that a source named. Out: a [`NodeTruth`] that holds together, and the
//! [`Difference`]s between it and the plan. Pure. Never: takes the plan's word where the node's is
//! missing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use dataplane::addr::Mac;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::Expected;

/// Addresses of one NIC: Azure gives it 256 at most (azure-docs, `azure-virtual-network-limits.md`);
/// twice that is a document gone wrong.
pub(super) const ADDRESSES_MAX: usize = 512;

/// Which addresses the node's pods may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeTruth {
    /// Those of its NIC, beside the primary one.
    Azure(NicAddresses),
    /// Those of its pod CIDRs.
    Kubenet(PodCidrs),
}

/// A NIC's addresses in the VNet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicAddresses {
    /// Its MAC, where the source names it.
    pub mac: Option<Mac>,
    /// Its subnet.
    pub subnet: Ipv4Net,
    /// The node's own address.
    pub primary: Ipv4Addr,
    /// The others: pods', lowest first, each once.
    pub secondary: Vec<Ipv4Addr>,
}

/// A node's pod CIDRs; at least one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodCidrs {
    /// The IPv4 one.
    pub v4: Option<Ipv4Net>,
    /// The IPv6 one.
    pub v6: Option<Ipv6Net>,
}

/// Why what a source named is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbelievable {
    /// No primary address, or more than one.
    #[error("{0} primary addresses, where a NIC has one")]
    Primaries(usize),
    /// An address beyond its subnet, or one that no host can have.
    #[error("{address} is no host of the subnet {subnet}")]
    Outside {
        /// The address.
        address: Ipv4Addr,
        /// The subnet.
        subnet: Ipv4Net,
    },
    /// One address twice.
    #[error("{0} comes twice")]
    Twice(IpAddr),
    /// More addresses than a NIC can have.
    #[error("more than {ADDRESSES_MAX} addresses, where a NIC has 256 at most")]
    TooMany,
    /// A subnet of no size that Azure has.
    #[error("{0} is no subnet of Azure's: they are /8 to /29")]
    Subnet(Ipv4Net),
    /// No pod CIDR at all.
    #[error("no pod CIDR")]
    NoCidr,
    /// Two prefixes of one family.
    #[error("{0} and {1} are of one family, where a node has one pod CIDR of each")]
    OneFamily(IpNet, IpNet),
    /// A prefix that leaves no room for pods, or holds what is not theirs.
    #[error("{0} can be nobody's pod CIDR")]
    Cidr(IpNet),
}

impl NicAddresses {
    /// Holds what a source named together. `addresses` come with whether they are primary.
    ///
    /// # Errors
    /// Why it cannot be so.
    pub fn new(
        mac: Option<Mac>,
        subnet: Ipv4Net,
        addresses: &[(Ipv4Addr, bool)],
    ) -> Result<NicAddresses, Unbelievable> {
        let subnet = subnet.trunc();
        if !(8..=29).contains(&subnet.prefix_len()) || is_nobodys(subnet.network()) {
            return Err(Unbelievable::Subnet(subnet));
        }
        if addresses.len() > ADDRESSES_MAX {
            return Err(Unbelievable::TooMany);
        }
        let legal =
            |a: &Ipv4Addr| subnet.contains(a) && *a != subnet.network() && *a != subnet.broadcast();
        if let Some((address, _)) = addresses.iter().find(|(address, _)| !legal(address)) {
            let address = *address;
            return Err(Unbelievable::Outside { address, subnet });
        }
        let of = |primary: bool| {
            let chosen = addresses.iter().filter(move |(_, is)| *is == primary);
            let mut chosen: Vec<Ipv4Addr> = chosen.map(|(address, _)| *address).collect();
            chosen.sort();
            chosen
        };
        let (primaries, secondary) = (of(true), of(false));
        let [primary] = primaries[..] else {
            return Err(Unbelievable::Primaries(primaries.len()));
        };
        let mut all = secondary.clone();
        all.push(primary);
        all.sort();
        if let Some(pair) = all.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Unbelievable::Twice(pair[0].into()));
        }
        Ok(NicAddresses {
            mac,
            subnet,
            primary,
            secondary,
        })
    }

    /// The pods' gateway: the first host of the subnet, for which the fabric answers.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.subnet.network().to_bits() | 1)
    }
}

impl PodCidrs {
    /// Holds prefixes together; host bits, as a bridge's address has them, are left out.
    ///
    /// # Errors
    /// Why they cannot be a node's.
    pub fn new(prefixes: &[IpNet]) -> Result<PodCidrs, Unbelievable> {
        let mut found = PodCidrs { v4: None, v6: None };
        for prefix in prefixes {
            let room = prefix.max_prefix_len() - prefix.prefix_len();
            let legal = room >= 2
                && prefix.prefix_len() >= 8
                && match prefix.trunc() {
                    IpNet::V4(net) => !is_nobodys(net.network()),
                    IpNet::V6(net) => {
                        let first = net.network();
                        !first.is_multicast()
                            && !first.is_unspecified()
                            && !first.is_loopback()
                            && !first.is_unicast_link_local()
                    }
                };
            if !legal {
                return Err(Unbelievable::Cidr(*prefix));
            }
            let earlier = match prefix.trunc() {
                IpNet::V4(net) => found.v4.replace(net).map(IpNet::V4),
                IpNet::V6(net) => found.v6.replace(net).map(IpNet::V6),
            };
            if let Some(earlier) = earlier.filter(|earlier| *earlier != prefix.trunc()) {
                return Err(Unbelievable::OneFamily(earlier, prefix.trunc()));
            }
        }
        if found.v4.is_none() && found.v6.is_none() {
            return Err(Unbelievable::NoCidr);
        }
        Ok(found)
    }

    /// The prefixes, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> {
        let v4 = self.v4.map(IpNet::V4);
        v4.into_iter().chain(self.v6.map(IpNet::V6))
    }
}

/// Addresses of which no subnet is made.
fn is_nobodys(address: Ipv4Addr) -> bool {
    address.is_loopback()
        || address.is_multicast()
        || address.is_link_local()
        || address.octets()[0] == 0
        || address.octets()[0] >= 240
}

impl NodeTruth {
    /// The IPv4 prefixes that hold exactly the addresses which pods may have.
    #[must_use]
    pub fn pods(&self) -> Vec<Ipv4Net> {
        match self {
            NodeTruth::Azure(nic) => exactly(nic.secondary.iter().copied()),
            NodeTruth::Kubenet(cidrs) => cidrs.v4.into_iter().collect(),
        }
    }

    /// The IPv6 prefix of the pods.
    #[must_use]
    pub fn pods_v6(&self) -> Option<Ipv6Net> {
        match self {
            NodeTruth::Azure(_) => None,
            NodeTruth::Kubenet(cidrs) => cidrs.v6,
        }
    }
}

fn exactly(addresses: impl Iterator<Item = Ipv4Addr>) -> Vec<Ipv4Net> {
    let mut nets = Ipv4Net::aggregate(&addresses.map(Ipv4Net::from).collect());
    nets.sort();
    nets
}

/// One thing of which the plan and the node say different things. The node is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The node's own address.
    Address {
        /// As planned.
        planned: IpAddr,
        /// As it is.
        found: Vec<IpAddr>,
    },
    /// The node's subnet.
    Subnet {
        /// As planned.
        planned: IpNet,
        /// As it is.
        found: Vec<IpNet>,
    },
    /// Prefixes of pods that are planned and not the node's.
    NotHere(Vec<IpNet>),
    /// Prefixes of pods that are the node's and not planned.
    NotPlanned(Vec<IpNet>),
}

impl Difference {
    /// Its name for programs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Difference::Address { .. } => "address",
            Difference::Subnet { .. } => "subnet",
            Difference::NotHere(_) => "pods_not_here",
            Difference::NotPlanned(_) => "pods_not_planned",
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Address { planned, found } => {
                write!(
                    f,
                    "the plan has the node at {planned}, it is at {}",
                    list(found)
                )
            }
            Difference::Subnet { planned, found } => {
                write!(
                    f,
                    "the plan has the node in {planned}, it is in {}",
                    list(found)
                )
            }
            Difference::NotHere(nets) => {
                write!(f, "planned for pods and not this node's: {}", list(nets))
            }
            Difference::NotPlanned(nets) => {
                write!(f, "this node's for pods and not planned: {}", list(nets))
            }
        }
    }
}

fn list(things: &[impl fmt::Display]) -> String {
    let things: Vec<String> = things.iter().map(ToString::to_string).collect();
    match things.is_empty() {
        true => "nowhere".to_owned(),
        false => things.join(", "),
    }
}

/// Everything in which the plan differs from the node: `own` are the addresses of its uplink, with
/// their links.
#[must_use]
pub fn differences(expected: &Expected, truth: &NodeTruth, own: &[IpNet]) -> Vec<Difference> {
    let mut found = Vec::new();
    let of_family = |v4: bool| own.iter().filter(move |net| net.addr().is_ipv4() == v4);
    for planned in &expected.addresses {
        let here: Vec<IpAddr> = of_family(planned.is_ipv4()).map(IpNet::addr).collect();
        if !here.contains(planned) {
            let (planned, found_at) = (*planned, here);
            found.push(Difference::Address {
                planned,
                found: found_at,
            });
        }
    }
    for planned in &expected.subnets {
        let here: Vec<IpNet> = of_family(planned.addr().is_ipv4())
            .map(IpNet::trunc)
            .collect();
        if !here.contains(planned) {
            let planned = *planned;
            found.push(Difference::Subnet {
                planned,
                found: here,
            });
        }
    }
    if !expected.pods.is_empty() {
        let here = truth.pods().into_iter().map(IpNet::V4);
        let here: Vec<IpNet> = here.chain(truth.pods_v6().map(IpNet::V6)).collect();
        let missing = without(&expected.pods, &here);
        let surplus = without(&here, &expected.pods);
        found.extend((!missing.is_empty()).then_some(Difference::NotHere(missing)));
        found.extend((!surplus.is_empty()).then_some(Difference::NotPlanned(surplus)));
    }
    found
}

/// The prefixes that hold exactly what is in `all` and not in `others`.
fn without(all: &[IpNet], others: &[IpNet]) -> Vec<IpNet> {
    let mut left: Vec<IpNet> = Vec::new();
    let mut waiting: Vec<IpNet> = IpNet::aggregate(&all.to_vec());
    while let Some(net) = waiting.pop() {
        if others.iter().any(|other| other.contains(&net)) {
            continue;
        }
        let cut = others.iter().any(|other| net.contains(other));
        match net.subnets(net.prefix_len() + 1) {
            Ok(halves) if cut => waiting.extend(halves),
            _ => left.push(net),
        }
    }
    let mut left = IpNet::aggregate(&left);
    left.sort();
    left
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn v4(text: &str) -> Ipv4Addr {
        text.parse().expect("an address")
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    fn nic(addresses: &[(&str, bool)]) -> Result<NicAddresses, Unbelievable> {
        let addresses: Vec<_> = addresses.iter().map(|(a, p)| (v4(a), *p)).collect();
        NicAddresses::new(None, "10.20.0.0/24".parse().expect("a prefix"), &addresses)
    }

    #[test]
    fn a_nic_has_one_primary_address_and_others_each_once_within_its_subnet() {
        let good = nic(&[
            ("10.20.0.6", false),
            ("10.20.0.4", true),
            ("10.20.0.5", false),
        ]);
        let wanted = NicAddresses {
            mac: None,
            subnet: "10.20.0.0/24".parse().expect("a prefix"),
            primary: v4("10.20.0.4"),
            secondary: vec![v4("10.20.0.5"), v4("10.20.0.6")],
        };
        assert_eq!(good, Ok(wanted.clone()));
        assert_eq!(wanted.gateway(), v4("10.20.0.1"));
        let outside = |address: &str| Unbelievable::Outside {
            address: v4(address),
            subnet: "10.20.0.0/24".parse().expect("a prefix"),
        };
        for (addresses, why) in [
            (&[("10.20.0.5", false)][..], Unbelievable::Primaries(0)),
            (
                &[("10.20.0.4", true), ("10.20.0.5", true)],
                Unbelievable::Primaries(2),
            ),
            (
                &[("10.20.0.4", true), ("10.21.0.5", false)],
                outside("10.21.0.5"),
            ),
            (
                &[("10.20.0.4", true), ("10.20.0.255", false)],
                outside("10.20.0.255"),
            ),
            (
                &[("10.20.0.4", true), ("10.20.0.0", false)],
                outside("10.20.0.0"),
            ),
            (
                &[("10.20.0.4", true), ("10.20.0.4", false)],
                Unbelievable::Twice(v4("10.20.0.4").into()),
            ),
        ] {
            assert_eq!(nic(addresses), Err(why));
        }
        for subnet in [
            "127.0.0.0/8",
            "10.0.0.0/7",
            "10.0.0.0/30",
            "224.0.0.0/8",
            "0.0.0.0/8",
        ] {
            let subnet: Ipv4Net = subnet.parse().expect("a prefix");
            let refused = NicAddresses::new(None, subnet, &[]);
            assert_eq!(refused, Err(Unbelievable::Subnet(subnet.trunc())));
        }
    }

    #[test]
    fn a_node_has_one_pod_cidr_of_each_family() {
        let both = PodCidrs::new(&[net("fc00:0:0:1::/64"), net("10.244.1.1/24")]).expect("both");
        let texts: Vec<String> = both.iter().map(|net| net.to_string()).collect();
        assert_eq!(texts, ["10.244.1.0/24", "fc00:0:0:1::/64"]);
        let two = [net("10.244.1.0/24"), net("10.244.2.0/24")];
        assert_eq!(
            PodCidrs::new(&two),
            Err(Unbelievable::OneFamily(two[0], two[1]))
        );
        assert_eq!(PodCidrs::new(&[]), Err(Unbelievable::NoCidr));
        for bad in [
            "10.244.1.0/31",
            "0.0.0.0/0",
            "127.0.0.0/24",
            "fe80::/64",
            "ff02::/16",
            "::/0",
        ] {
            assert_eq!(
                PodCidrs::new(&[net(bad)]),
                Err(Unbelievable::Cidr(net(bad)))
            );
        }
    }

    #[test]
    fn every_difference_is_reported_and_nothing_else() {
        let truth = NodeTruth::Azure(
            nic(&[
                ("10.20.0.4", true),
                ("10.20.0.6", false),
                ("10.20.0.7", false),
            ])
            .expect("a NIC"),
        );
        let own = [net("10.20.0.4/24")];
        let right = Expected {
            addresses: vec![v4("10.20.0.4").into()],
            subnets: vec![net("10.20.0.0/24")],
            pods: vec![net("10.20.0.6/31")],
        };
        assert_eq!(differences(&right, &truth, &own), []);
        assert_eq!(differences(&Expected::default(), &truth, &own), []);
        let wrong = Expected {
            addresses: vec![v4("10.20.0.35").into()],
            subnets: vec![net("10.20.0.0/16")],
            pods: vec![net("10.20.0.4/30")],
        };
        assert_eq!(
            differences(&wrong, &truth, &own),
            [
                Difference::Address {
                    planned: v4("10.20.0.35").into(),
                    found: vec![v4("10.20.0.4").into()],
                },
                Difference::Subnet {
                    planned: net("10.20.0.0/16"),
                    found: vec![net("10.20.0.0/24")],
                },
                Difference::NotHere(vec![net("10.20.0.4/31")]),
            ]
        );
    }

    proptest! {
        /// Against sets of single addresses, which know nothing of prefixes.
        #[test]
        fn what_is_left_is_what_a_set_would_leave(
            all in prop::collection::vec((0u32..64, 26u8..=32), 0..6),
            others in prop::collection::vec((0u32..64, 26u8..=32), 0..6),
        ) {
            let nets = |rows: &[(u32, u8)]| -> Vec<IpNet> {
                rows.iter()
                    .map(|(last, len)| Ipv4Net::new(Ipv4Addr::from_bits(0x0a00_0000 | last), *len).expect("legal").trunc().into())
                    .collect()
            };
            let set = |nets: &[IpNet]| -> BTreeSet<u32> {
                (0x0a00_0000u32..0x0a00_0040)
                    .filter(|bits| nets.iter().any(|net| net.contains(&IpAddr::V4(Ipv4Addr::from_bits(*bits)))))
                    .collect()
            };
            let (all, others) = (nets(&all), nets(&others));
            let wanted: BTreeSet<u32> = set(&all).difference(&set(&others)).copied().collect();
            prop_assert_eq!(set(&without(&all, &others)), wanted);
        }
    }
}
