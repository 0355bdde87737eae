//! What the fabric is told: the VNet, its subnets with their route tables, and the NICs on it.
//!
//! In: plain values, from the plan. Out: the same, checked where they meet each other.
//! Never: decides about a frame.

use std::io;
use std::net::IpAddr;

use dataplane::addr::Mac;
use ipnet::IpNet;

pub use crate::routes::NextHop;
use crate::routes::{Route, Source};

/// A virtual network: its address space and its subnets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VnetSpec {
    /// The address space, one prefix or several.
    pub prefixes: Vec<IpNet>,
    /// The subnets carved out of it.
    pub subnets: Vec<SubnetSpec>,
}

/// One subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetSpec {
    /// Its name in the VNet.
    pub name: String,
    /// Its addresses, each a part of one of the VNet's prefixes: one prefix, or one of each family.
    pub prefixes: Vec<IpNet>,
    /// The user-defined routes of the attached route table. None: no table is attached.
    pub route_table: Option<Vec<UserRoute>>,
}

/// One user-defined route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRoute {
    /// Its name in the table.
    pub name: String,
    /// The destinations it covers.
    pub prefix: IpNet,
    /// Where it sends them.
    pub next_hop: NextHop,
}

impl From<&UserRoute> for Route {
    fn from(route: &UserRoute) -> Route {
        Route {
            name: Some(route.name.clone()),
            ..Route::new(route.prefix, route.next_hop, Source::User)
        }
    }
}

/// The NIC of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicSpec {
    /// The node's name, for reports.
    pub name: String,
    /// The MAC that Azure gave it. The VM may use no other.
    pub mac: Mac,
    /// Its ipConfigurations, the primary first. In azure mode the pods' addresses are among them.
    pub addresses: Vec<IpAddr>,
    /// The subnet that it is in, by name.
    pub subnet: String,
    /// Azure's `enableIPForwarding`.
    pub forwarding: bool,
    /// Bytes of the largest IP packet: 1500, or 3900 on some VMs.
    pub mtu: u16,
}

impl NicSpec {
    /// The smallest MTU that IPv6 may meet (RFC 8200, section 5); nobody offers a VM less.
    pub const MTU_MIN: u16 = 1280;
}

/// A NIC or a route table that does not fit the VNet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum Misfit {
    #[error("subnet '{0}' is not in the VNet")]
    NoSuchSubnet(String),
    #[error("subnet '{name}' has the prefix {prefix}, which lies outside the VNet")]
    SubnetOutside { name: String, prefix: IpNet },
    #[error("subnet '{0}' has two prefixes of one family, or none")]
    SubnetFamilies(String),
    #[error("two subnets are called '{0}'")]
    SubnetTwice(String),
    #[error("{nic} has no address")]
    NoAddress { nic: String },
    #[error("{nic} has the address {address}, which its subnet '{subnet}' does not contain")]
    AddressOutside {
        nic: String,
        address: IpAddr,
        subnet: String,
    },
    #[error("{nic} has the address {address}, which {owner} already owns")]
    AddressTaken {
        nic: String,
        address: IpAddr,
        owner: String,
    },
    #[error("{nic} has the MAC {mac}, which no station of its own can have")]
    MacUnusable { nic: String, mac: Mac },
    #[error("{nic} has the MAC {mac}, which {owner} already has")]
    MacTaken {
        nic: String,
        mac: Mac,
        owner: String,
    },
    #[error("{nic} has an MTU of {mtu}, below {}", NicSpec::MTU_MIN)]
    MtuTooSmall { nic: String, mtu: u16 },
}

impl From<Misfit> for io::Error {
    fn from(misfit: Misfit) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, misfit)
    }
}
