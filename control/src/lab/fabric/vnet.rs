//! The state that the rules read: NICs, who owns which address, and each subnet's routes.
//!
//! In: a [`VnetSpec`], then NICs and route tables as they come and go.
//! Out: look-ups. Never: does I/O, or holds an address or a MAC twice.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use dataplane::addr::Mac;
use ipnet::IpNet;

use super::spec::{Misfit, NicSpec, UserRoute, VnetSpec};
use crate::routes::{EffectiveRoutes, Route, RouteTable, Space};

/// The MAC behind which Azure hides everybody: it answers every ARP request, and frames that
/// enter a VM come from it.
pub const VIRTUAL_MAC: Mac = Mac::new([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);

/// One NIC of one fabric; never used again after the NIC is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NicId(u32);

/// A NIC as the rules see it.
#[derive(Clone, Debug)]
pub struct Nic {
    id: NicId,
    spec: NicSpec,
    subnet: usize,
}

impl Nic {
    /// Its identity.
    #[must_use]
    pub fn id(&self) -> NicId {
        self.id
    }

    /// What it was attached with.
    #[must_use]
    pub fn spec(&self) -> &NicSpec {
        &self.spec
    }

    /// The first ipConfiguration of each family: the addresses for which the fabric keeps silent.
    #[must_use]
    pub fn is_primary(&self, address: IpAddr) -> bool {
        let same_family = |own: &&IpAddr| own.is_ipv4() == address.is_ipv4();
        self.spec.addresses.iter().find(same_family) == Some(&address)
    }
}

#[derive(Clone, Debug)]
struct Subnet {
    name: String,
    /// One, or one of each family.
    prefixes: Vec<IpNet>,
    routes: EffectiveRoutes,
}

/// The VNet at one moment.
#[derive(Clone, Debug)]
pub struct Vnet {
    prefixes: Vec<IpNet>,
    subnets: Vec<Subnet>,
    nics: BTreeMap<NicId, Nic>,
    owners: HashMap<IpAddr, NicId>,
    next: u32,
}

impl Vnet {
    /// A VNet without NICs.
    ///
    /// # Errors
    /// A subnet outside the address space, with two prefixes of one family, or of a name that
    /// another has.
    pub fn new(spec: VnetSpec) -> Result<Vnet, Misfit> {
        let VnetSpec { prefixes, subnets } = spec;
        let mut built: Vec<Subnet> = Vec::with_capacity(subnets.len());
        for subnet in subnets {
            let outside = |own: &&IpNet| !prefixes.iter().any(|prefix| prefix.contains(*own));
            if let Some(prefix) = subnet.prefixes.iter().find(outside) {
                return Err(Misfit::SubnetOutside {
                    name: subnet.name,
                    prefix: *prefix,
                });
            }
            match subnet.prefixes[..] {
                [_] => {}
                [one, other] if one.addr().is_ipv4() != other.addr().is_ipv4() => {}
                _ => return Err(Misfit::SubnetFamilies(subnet.name)),
            }
            if built.iter().any(|other| other.name == subnet.name) {
                return Err(Misfit::SubnetTwice(subnet.name));
            }
            let routes = effective(&prefixes, subnet.route_table.as_deref());
            built.push(Subnet {
                name: subnet.name,
                prefixes: subnet.prefixes.iter().map(IpNet::trunc).collect(),
                routes,
            });
        }
        let (nics, owners) = (BTreeMap::new(), HashMap::new());
        Ok(Vnet {
            prefixes,
            subnets: built,
            nics,
            owners,
            next: 0,
        })
    }

    /// Adds a NIC.
    ///
    /// # Errors
    /// Whatever does not fit the VNet or the NICs already there.
    pub fn attach(&mut self, spec: NicSpec) -> Result<NicId, Misfit> {
        let subnet = self.subnet(&spec.subnet)?;
        self.check(&spec, &self.subnets[subnet])?;
        let id = NicId(self.next);
        self.next += 1;
        self.owners
            .extend(spec.addresses.iter().map(|address| (*address, id)));
        self.nics.insert(id, Nic { id, spec, subnet });
        Ok(id)
    }

    /// Takes a NIC away, and its addresses with it. Unknown NICs are no error: it is gone.
    pub fn detach(&mut self, id: NicId) {
        self.nics.remove(&id);
        self.owners.retain(|_, owner| *owner != id);
    }

    /// Attaches a route table to a subnet, or detaches it.
    ///
    /// # Errors
    /// No such subnet.
    pub fn set_route_table(
        &mut self,
        subnet: &str,
        table: Option<&[UserRoute]>,
    ) -> Result<(), Misfit> {
        let index = self.subnet(subnet)?;
        self.subnets[index].routes = effective(&self.prefixes, table);
        Ok(())
    }

    /// The NIC, if it is still there.
    #[must_use]
    pub fn nic(&self, id: NicId) -> Option<&Nic> {
        self.nics.get(&id)
    }

    /// The NIC that has `address` among its ipConfigurations.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&Nic> {
        self.nics.get(self.owners.get(&address)?)
    }

    /// True for addresses of the VNet's address space.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.prefixes.iter().any(|prefix| prefix.contains(&address))
    }

    /// True if the address space has an IPv6 prefix.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.prefixes
            .iter()
            .any(|prefix| matches!(prefix, IpNet::V6(_)))
    }

    /// True for the first host address of a subnet, which Azure keeps for its gateway.
    #[must_use]
    pub fn is_gateway(&self, address: IpAddr) -> bool {
        self.subnets
            .iter()
            .flat_map(|subnet| &subnet.prefixes)
            .any(|prefix| first_host(*prefix) == address)
    }

    /// The effective routes of the NIC's subnet.
    #[must_use]
    pub fn routes(&self, nic: &Nic) -> &EffectiveRoutes {
        &self.subnets[nic.subnet].routes
    }

    fn subnet(&self, name: &str) -> Result<usize, Misfit> {
        let at = self.subnets.iter().position(|subnet| subnet.name == name);
        at.ok_or_else(|| Misfit::NoSuchSubnet(name.to_owned()))
    }

    fn check(&self, spec: &NicSpec, subnet: &Subnet) -> Result<(), Misfit> {
        let nic = || spec.name.clone();
        if spec.mtu < NicSpec::MTU_MIN {
            return Err(Misfit::MtuTooSmall {
                nic: nic(),
                mtu: spec.mtu,
            });
        }
        if spec.mac.is_group() || spec.mac.is_zero() || spec.mac == VIRTUAL_MAC {
            return Err(Misfit::MacUnusable {
                nic: nic(),
                mac: spec.mac,
            });
        }
        if let Some(other) = self.nics.values().find(|other| other.spec.mac == spec.mac) {
            let owner = other.spec.name.clone();
            return Err(Misfit::MacTaken {
                nic: nic(),
                mac: spec.mac,
                owner,
            });
        }
        if spec.addresses.is_empty() {
            return Err(Misfit::NoAddress { nic: nic() });
        }
        for (at, &address) in spec.addresses.iter().enumerate() {
            if !subnet.prefixes.iter().any(|own| own.contains(&address)) {
                return Err(Misfit::AddressOutside {
                    nic: nic(),
                    address,
                    subnet: subnet.name.clone(),
                });
            }
            let taken = self.owner(address).map(|other| other.spec.name.clone());
            let twice = spec.addresses[..at].contains(&address).then(nic);
            if let Some(owner) = taken.or(twice) {
                return Err(Misfit::AddressTaken {
                    nic: nic(),
                    address,
                    owner,
                });
            }
        }
        Ok(())
    }
}

/// The effective routes of a subnet in a VNet that has neither peers nor a gateway.
fn effective(vnet: &[IpNet], table: Option<&[UserRoute]>) -> EffectiveRoutes {
    let space = Space {
        vnet: vnet.to_vec(),
        ..Space::default()
    };
    let table = table.map(|routes| RouteTable {
        name: String::new(),
        routes: routes.iter().map(Route::from).collect(),
        propagates: true,
        subnets: Vec::new(),
    });
    EffectiveRoutes::of(&space, table.as_ref(), &[])
}

fn first_host(prefix: IpNet) -> IpAddr {
    match prefix.network() {
        IpAddr::V4(base) => IpAddr::V4((base.to_bits() | 1).into()),
        IpAddr::V6(base) => IpAddr::V6((base.to_bits() | 1).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::SubnetSpec;
    use super::*;

    fn vnet() -> Vnet {
        let net = |text: &str| text.parse().expect("well-formed");
        let subnet = |name: &str, prefix| SubnetSpec {
            name: name.into(),
            prefixes: vec![net(prefix)],
            route_table: None,
        };
        Vnet::new(VnetSpec {
            prefixes: vec![net("10.10.0.0/24"), net("10.20.0.0/24")],
            subnets: vec![
                subnet("masters", "10.10.0.0/24"),
                subnet("agents", "10.20.0.0/24"),
            ],
        })
        .expect("the subnets fit")
    }

    fn nic(name: &str, mac: [u8; 6], addresses: &[&str]) -> NicSpec {
        NicSpec {
            name: name.into(),
            mac: Mac::new(mac),
            addresses: addresses
                .iter()
                .map(|text| text.parse().expect("well-formed"))
                .collect(),
            subnet: "agents".into(),
            forwarding: false,
            mtu: 1500,
        }
    }

    #[test]
    fn a_nic_that_does_not_fit_is_refused_by_name() {
        let mut vnet = vnet();
        let first = nic("node-0", [0, 13, 58, 0, 0, 1], &["10.20.0.4", "10.20.0.31"]);
        vnet.attach(first.clone()).expect("it fits");
        let other = |addresses: &[&str]| nic("node-1", [0, 13, 58, 0, 0, 2], addresses);
        let rows = [
            (
                NicSpec {
                    subnet: "no".into(),
                    ..other(&["10.20.0.5"])
                },
                "subnet 'no' is not in the VNet",
            ),
            (other(&[]), "node-1 has no address"),
            (
                other(&["10.10.0.5"]),
                "node-1 has the address 10.10.0.5, which its subnet 'agents' does not contain",
            ),
            (
                other(&["10.20.0.31"]),
                "node-1 has the address 10.20.0.31, which node-0 already owns",
            ),
            (
                other(&["10.20.0.9", "10.20.0.9"]),
                "node-1 has the address 10.20.0.9, which node-1 already owns",
            ),
            (
                NicSpec {
                    mac: first.mac,
                    ..other(&["10.20.0.5"])
                },
                "node-1 has the MAC 00:0d:3a:00:00:01, which node-0 already has",
            ),
            (
                NicSpec {
                    mac: VIRTUAL_MAC,
                    ..other(&["10.20.0.5"])
                },
                "node-1 has the MAC 12:34:56:78:9a:bc, which no station of its own can have",
            ),
            (
                NicSpec {
                    mtu: 576,
                    ..other(&["10.20.0.5"])
                },
                "node-1 has an MTU of 576, below 1280",
            ),
        ];
        for (spec, message) in rows {
            assert_eq!(vnet.attach(spec).expect_err(message).to_string(), message);
        }
        assert_eq!(vnet.nics.len(), 1, "a refused NIC leaves nothing behind");
    }

    #[test]
    fn a_detached_nic_gives_its_addresses_back() {
        let mut vnet = vnet();
        let spec = nic("node-0", [0, 13, 58, 0, 0, 1], &["10.20.0.4", "10.20.0.31"]);
        let id = vnet.attach(spec.clone()).expect("it fits");
        vnet.detach(id);
        assert!(
            vnet.owner("10.20.0.31".parse().expect("well-formed"))
                .is_none()
        );
        assert_ne!(
            vnet.attach(spec).expect("it fits again"),
            id,
            "an identity is used once"
        );
    }

    #[test]
    fn a_subnet_outside_the_address_space_is_refused() {
        let spec = VnetSpec {
            prefixes: vec!["10.10.0.0/24".parse().expect("well-formed")],
            subnets: vec![SubnetSpec {
                name: "agents".into(),
                prefixes: vec!["10.20.0.0/24".parse().expect("well-formed")],
                route_table: None,
            }],
        };
        let misfit = Vnet::new(spec).expect_err("outside");
        assert_eq!(
            misfit.to_string(),
            "subnet 'agents' has the prefix 10.20.0.0/24, which lies outside the VNet"
        );
    }
}
