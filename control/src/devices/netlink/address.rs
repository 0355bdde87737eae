//! Addresses, routes and neighbours of a namespace.
//!
//! In: prefixes and the device they belong to.
//! Out: what the kernel holds, in lists.
//! Never: replaces a route that someone else made: ours carry our own protocol number.

use std::net::IpAddr;

use dataplane::addr::Mac;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use serde::{Deserialize, Serialize};

use super::{Answer, Netlink};
use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;

/// The protocol number on every route that we make, 'T'. `ip route` shows it as `proto 84`.
pub const ROUTE_PROTOCOL: u8 = 84;

/// Attribute numbers of `linux/if_addr.h` and `linux/rtnetlink.h`.
mod number {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const LOCAL: u16 = 2;
    pub(super) const DESTINATION: u16 = 1;
    pub(super) const OUTPUT: u16 = 4;
    pub(super) const GATEWAY: u16 = 5;
    pub(super) const METRIC: u16 = 6;
    pub(super) const PREFERRED_SOURCE: u16 = 7;
    pub(super) const LINK_LAYER: u16 = 2;
}

/// A route: to a prefix, over a device, perhaps by a next hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The prefix that it serves.
    pub to: IpNet,
    /// The next hop; without one the target is on the link.
    pub via: Option<IpAddr>,
    /// The source address for what this node itself sends.
    pub source: Option<IpAddr>,
}

/// A route as the kernel holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundRoute {
    /// What it says.
    pub route: Route,
    /// The index of the device it leaves by.
    pub device: u32,
    /// Who made it: `RTPROT_*`, or [`ROUTE_PROTOCOL`].
    pub protocol: u8,
    /// Of two routes to one prefix the one with less of it counts (`RTA_PRIORITY`).
    pub metric: u32,
}

/// `NUD_PERMANENT`, linux/neighbour.h.
const NUD_PERMANENT: u16 = 0x80;

/// A neighbour as the kernel holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundNeighbour {
    /// The index of the device that it is behind.
    pub device: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address, if known.
    pub mac: Option<Mac>,
    /// How far that is to be believed: a bit of `NUD_*`, linux/neighbour.h.
    pub state: u16,
}

impl FoundNeighbour {
    /// Reads a `struct ndmsg` and its attributes.
    fn read(answer: &Answer) -> Option<FoundNeighbour> {
        let [_, _, _, _, i0, i1, i2, i3, s0, s1, _, _] = answer.fixed::<12>();
        let found = answer.attributes(12);
        let octets = found.find(number::LINK_LAYER);
        let octets = octets.and_then(|octets| <[u8; 6]>::try_from(octets).ok());
        Some(FoundNeighbour {
            device: u32::from_ne_bytes([i0, i1, i2, i3]),
            address: address(found.find(number::DESTINATION)?)?,
            mac: octets.map(Mac::new),
            state: u16::from_ne_bytes([s0, s1]),
        })
    }
}

impl FoundRoute {
    fn read(answer: &Answer) -> Option<FoundRoute> {
        let [family, length, _, _, table, protocol, _, kind] = answer.fixed::<8>();
        let found = answer.attributes(12);
        let ours = table == RouteHeader::RT_TABLE_MAIN && kind == u8::from(RouteType::Unicast);
        let any = if i32::from(family) == nix::libc::AF_INET {
            vec![0; 4]
        } else {
            vec![0; 16]
        };
        let target = address(found.find(number::DESTINATION).unwrap_or(&any))?;
        ours.then_some(FoundRoute {
            route: Route {
                to: IpNet::new(target, length).ok()?,
                via: found.find(number::GATEWAY).and_then(address),
                source: found.find(number::PREFERRED_SOURCE).and_then(address),
            },
            device: found.number(number::OUTPUT)?,
            protocol,
            metric: found.number(number::METRIC).unwrap_or_default(),
        })
    }
}

impl Netlink {
    /// The addresses of a device, IPv4 and IPv6, each with its prefix length.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn addresses(&self, name: &DeviceName) -> Result<Vec<IpNet>, DeviceError> {
        let index = self.index(name)?;
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.list(&format!("list the addresses of {name}"), &message)?;
        Ok(answers
            .iter()
            .filter_map(|one| address_on(one, index))
            .collect())
    }

    /// Gives a device an address, IPv6 without duplicate address detection: the plan has already
    /// seen to it that no two are the same. One that it has already is no error.
    ///
    /// # Errors
    /// What the kernel says: `EACCES` for IPv6 on a device where it is off.
    pub fn add_address(&self, name: &DeviceName, net: IpNet) -> Result<(), DeviceError> {
        let mut message = address_message(self.index(name)?, net);
        if net.addr().is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        let message = RouteNetlinkMessage::NewAddress(message);
        match self.change(
            &format!("add {net} to {name}"),
            message,
            NLM_F_CREATE | NLM_F_EXCL,
        ) {
            Err(refused) if refused.is(nix::libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Takes an address from a device; one that it does not have is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_address(&self, name: &DeviceName, net: IpNet) -> Result<(), DeviceError> {
        let message = RouteNetlinkMessage::DelAddress(address_message(self.index(name)?, net));
        match self.change(&format!("remove {net} from {name}"), message, 0) {
            Err(refused) if refused.is(nix::libc::EADDRNOTAVAIL) => Ok(()),
            other => other,
        }
    }

    /// The unicast routes of the main table, both families.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn routes(&self) -> Result<Vec<FoundRoute>, DeviceError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let message = RouteNetlinkMessage::GetRoute(message);
            found.extend(
                self.list("list the routes", &message)?
                    .iter()
                    .filter_map(FoundRoute::read),
            );
        }
        Ok(found)
    }

    /// Adds a route over a device. The same route again is no error, and one of ours that says
    /// something else is replaced.
    ///
    /// # Errors
    /// [`DeviceError::Conflict`] if someone else has a route to the same prefix.
    pub fn add_route(&self, name: &DeviceName, route: &Route) -> Result<(), DeviceError> {
        let index = self.index(name)?;
        let attempt = format!("add the route to {} over {name}", route.to);
        let message = || RouteNetlinkMessage::NewRoute(route_message(index, route));
        match self.change(&attempt, message(), NLM_F_CREATE | NLM_F_EXCL) {
            Err(refused) if refused.is(nix::libc::EEXIST) => {}
            other => return other,
        }
        let rivals: Vec<_> = self
            .routes()?
            .into_iter()
            .filter(|found| found.route.to == route.to)
            .collect();
        if rivals
            .iter()
            .any(|found| found.device == index && found.route == *route)
        {
            return Ok(());
        }
        if rivals.iter().all(|found| found.protocol == ROUTE_PROTOCOL) {
            return self.change(&attempt, message(), NLM_F_CREATE | NLM_F_REPLACE);
        }
        Err(DeviceError::Conflict {
            device: name.clone(),
            namespace: self.namespace().name().into(),
            why: format!("another program has made a route to {}", route.to),
        })
    }

    /// Puts a route of whatever maker over a device, in the place of the one with its prefix and
    /// metric: the node has a route to there at every moment.
    ///
    /// # Errors
    /// What the kernel says: `ENETUNREACH` if the next hop is on no link.
    pub fn put_route(&self, name: &DeviceName, found: &FoundRoute) -> Result<(), DeviceError> {
        let mut message = route_message(self.index(name)?, &found.route);
        message.header.protocol = RouteProtocol::from(found.protocol);
        if found.metric != 0 {
            message
                .attributes
                .push(RouteAttribute::Priority(found.metric));
        }
        let attempt = format!("put the route to {} over {name}", found.route.to);
        let message = RouteNetlinkMessage::NewRoute(message);
        self.change(&attempt, message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Removes a route of ours over a device; one that is gone already is no error, and another's
    /// is left alone.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_route(&self, name: &DeviceName, route: &Route) -> Result<(), DeviceError> {
        let message = route_message(self.index(name)?, route);
        let attempt = format!("remove the route to {} over {name}", route.to);
        match self.change(&attempt, RouteNetlinkMessage::DelRoute(message), 0) {
            Err(refused) if refused.is(nix::libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// The neighbours of all devices, both families.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn neighbours(&self) -> Result<Vec<FoundNeighbour>, DeviceError> {
        let message = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let answers = self.list("list the neighbours", &message)?;
        Ok(answers.iter().filter_map(FoundNeighbour::read).collect())
    }

    /// What the device with index `device` was told of its neighbours by somebody, and does not forget:
    /// less what its kernel asked for.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn permanent_neighbours(&self, device: u32) -> Result<Vec<(IpAddr, Mac)>, DeviceError> {
        let told = self.neighbours()?.into_iter();
        let told = told.filter(|one| one.device == device && one.state & NUD_PERMANENT != 0);
        Ok(told
            .filter_map(|one| Some((one.address, one.mac?)))
            .collect())
    }

    /// Gives a device a permanent neighbour.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_neighbour(
        &self,
        name: &DeviceName,
        neighbour: IpAddr,
        mac: Mac,
    ) -> Result<(), DeviceError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family_of(neighbour);
        message.header.ifindex = self.index(name)?;
        message.header.state = NeighbourState::Permanent;
        message.attributes = vec![
            NeighbourAttribute::Destination(match neighbour {
                IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
                IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
            }),
            NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()),
        ];
        let attempt = format!("tell {name} that {neighbour} is at {mac}");
        let message = RouteNetlinkMessage::NewNeighbour(message);
        self.change(&attempt, message, NLM_F_CREATE | NLM_F_REPLACE)
    }
}

impl Netlink {
    /// Has a device forget a neighbour; one that it does not know is no error.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] without the device, otherwise what the kernel says.
    pub fn remove_neighbour(
        &self,
        name: &DeviceName,
        neighbour: IpAddr,
    ) -> Result<(), DeviceError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family_of(neighbour);
        message.header.ifindex = self.index(name)?;
        message.attributes = vec![NeighbourAttribute::Destination(match neighbour {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        })];
        let attempt = format!("have {name} forget {neighbour}");
        let message = RouteNetlinkMessage::DelNeighbour(message);
        match self.change(&attempt, message, 0) {
            Err(refused) if refused.is(nix::libc::ENOENT) => Ok(()),
            other => other,
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn address_on(answer: &Answer, index: u32) -> Option<IpNet> {
    let [_, length, _, _, i0, i1, i2, i3] = answer.fixed::<8>();
    let found = answer.attributes(8);
    let local = found
        .find(number::LOCAL)
        .or(found.find(number::ADDRESS))
        .and_then(address)?;
    let here = u32::from_ne_bytes([i0, i1, i2, i3]) == index;
    IpNet::new(local, length).ok().filter(|_| here)
}

fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

fn address_message(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(net.addr());
    message.header.prefix_len = net.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(net.addr()),
        AddressAttribute::Address(net.addr()),
    ];
    message
}

fn route_message(index: u32, route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(route.to.addr());
    message.header.destination_prefix_length = route.to.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    message.header.scope = if route.via.is_some() {
        RouteScope::Universe
    } else {
        RouteScope::Link
    };
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Oif(index));
    if route.to.prefix_len() > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::from(
                route.to.network(),
            )));
    }
    message
        .attributes
        .extend(route.via.map(|via| RouteAttribute::Gateway(via.into())));
    message.attributes.extend(
        route
            .source
            .map(|from| RouteAttribute::PrefSource(from.into())),
    );
    message
}
