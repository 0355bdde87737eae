//! Linux bridges: what they are, what hangs on them, and whom they have heard.
//!
//! In: the name of a bridge, or the descriptor of a namespace.
//! Out: [`BridgeFacts`], the ports' own settings, the FDB, the kernel's number for a namespace.
//! Never: changes a bridge beyond what its caller names.

use std::os::fd::AsRawFd;

use dataplane::addr::Mac;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, LinkAttribute,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Answer, Netlink};
use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;
use crate::devices::netns::Netns;

/// Bytes of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// Bytes of `struct ndmsg`.
const NEIGHBOUR_HEADER: usize = 12;
/// `NUD_PERMANENT` and `NUD_NOARP`: set by somebody, and never forgotten.
const STATIC_STATES: u16 = 0x80 | 0x40;

/// Attribute numbers of `linux/if_link.h`, `linux/neighbour.h` and `linux/net_namespace.h`.
mod number {
    pub(super) const CONTROLLER: u16 = 10;
    pub(super) const INFO: u16 = 18;
    pub(super) const INFO_DATA: u16 = 2;
    pub(super) const INFO_SLAVE_DATA: u16 = 5;
    pub(super) const BRIDGE_AGEING: u16 = 4;
    pub(super) const BRIDGE_STP: u16 = 5;
    pub(super) const BRIDGE_VLAN_FILTERING: u16 = 7;
    pub(super) const PORT_HAIRPIN: u16 = 4;
    pub(super) const PORT_ISOLATED: u16 = 33;
    pub(super) const NEIGHBOUR_MAC: u16 = 2;
    pub(super) const NEIGHBOUR_CONTROLLER: u16 = 9;
    pub(super) const NSID: u16 = 1;
}

/// What a bridge does beyond forwarding by MAC address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgeFacts {
    /// Spanning tree runs, in the kernel or in a daemon.
    pub stp: bool,
    /// Ports belong to VLANs.
    pub vlan_filtering: bool,
    /// How long a station is remembered, in hundredths of a second.
    pub ageing: u32,
}

/// One port of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgePortFacts {
    /// The device's index.
    pub device: u32,
    /// Frames may go back out of it.
    pub hairpin: bool,
    /// It talks to no other isolated port.
    pub isolated: bool,
}

/// A station that a bridge has heard, or was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgeStation {
    /// Its address.
    pub mac: Mac,
    /// The index of the port that leads to it.
    pub device: u32,
    /// Set by somebody: it does not age.
    pub fixed: bool,
}

impl Netlink {
    /// What kind of bridge `name` is; nothing if it is a device of another kind.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] without the device, otherwise what the kernel says.
    pub fn bridge(&self, name: &DeviceName) -> Result<Option<BridgeFacts>, DeviceError> {
        let link = self.link(name)?;
        if link.kind.as_deref() != Some("bridge") {
            return Ok(None);
        }
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        let message = RouteNetlinkMessage::GetLink(message);
        let answers = self.ask(&format!("look at the bridge {name}"), message)?;
        Ok(answers.first().map(|answer| {
            let info = answer.attributes(LINK_HEADER).inside(number::INFO);
            let data = info.inside(number::INFO_DATA);
            let vlans = data.find(number::BRIDGE_VLAN_FILTERING);
            BridgeFacts {
                stp: data.number(number::BRIDGE_STP).is_some_and(|on| on != 0),
                vlan_filtering: vlans.and_then(|v| v.first()).is_some_and(|on| *on != 0),
                ageing: data.number(number::BRIDGE_AGEING).unwrap_or_default(),
            }
        }))
    }

    /// The devices that hang on the device with index `controller`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn ports_of(&self, controller: u32) -> Result<Vec<BridgePortFacts>, DeviceError> {
        let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.list("list the ports of a bridge", &message)?;
        Ok(answers
            .iter()
            .filter_map(|answer| port_of(answer, controller))
            .collect())
    }

    /// The stations of the bridge with index `bridge`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn stations_of(&self, bridge: u32) -> Result<Vec<BridgeStation>, DeviceError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        let message = RouteNetlinkMessage::GetNeighbour(message);
        let answers = self.list("list the stations of a bridge", &message)?;
        Ok(answers
            .iter()
            .filter_map(|answer| station(answer, bridge))
            .collect())
    }

    /// Makes a Linux bridge with a fixed address, down.
    ///
    /// # Errors
    /// What the kernel says: `EEXIST` if the name is taken, `EOPNOTSUPP` without the module.
    pub fn add_bridge_as(
        &self,
        name: &DeviceName,
        mac: Mac,
        facts: BridgeFacts,
    ) -> Result<(), DeviceError> {
        self.add_bridge(name)?;
        self.set_mac(name, mac)?;
        let attempt = format!("set how long {name} remembers a station");
        let ageing = InfoData::Bridge(vec![InfoBridge::AgeingTime(facts.ageing)]);
        let info = vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(ageing)];
        let mut message = LinkMessage::default();
        message.header.index = self.index(name)?;
        message.attributes.push(LinkAttribute::LinkInfo(info));
        self.change(&attempt, RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Takes a device off its bridge; one that hangs on none is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn leave_bridge(&self, name: &DeviceName) -> Result<(), DeviceError> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(name)?;
        message.attributes.push(LinkAttribute::Controller(0));
        let attempt = format!("take {name} off its bridge");
        self.change(&attempt, RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets what a port of a bridge does.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_bridge_port(
        &self,
        name: &DeviceName,
        hairpin: bool,
        isolated: bool,
    ) -> Result<(), DeviceError> {
        let settings = vec![
            InfoBridgePort::HairpinMode(hairpin),
            InfoBridgePort::Isolated(isolated),
        ];
        let info = vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(settings)),
        ];
        let mut message = LinkMessage::default();
        message.header.index = self.index(name)?;
        message.attributes.push(LinkAttribute::LinkInfo(info));
        let attempt = format!("set the bridge port {name}");
        self.change(&attempt, RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Tells the bridge of a station behind a port, as if it had heard it there.
    ///
    /// # Errors
    /// What the kernel says: `EOPNOTSUPP` for a device that hangs on no bridge.
    pub fn add_station(&self, port: &DeviceName, mac: Mac) -> Result<(), DeviceError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = self.index(port)?;
        message.header.state = NeighbourState::Reachable;
        message.header.flags = NeighbourFlags::Controller;
        let address = NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec());
        message.attributes.push(address);
        let attempt = format!("tell the bridge of {mac} behind {port}");
        let message = RouteNetlinkMessage::NewNeighbour(message);
        self.change(&attempt, message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// The number by which this namespace knows `other`: what [`Link::peer_namespace`] names.
    /// Nothing if it has none.
    ///
    /// [`Link::peer_namespace`]: super::link::Link::peer_namespace
    ///
    /// # Errors
    /// What the kernel says.
    pub fn number_of(&self, other: &Netns) -> Result<Option<i32>, DeviceError> {
        let mut message = NsidMessage::default();
        let fd = other.file().as_raw_fd() as u32;
        message.attributes.push(NsidAttribute::Fd(fd));
        let message = RouteNetlinkMessage::GetNsId(message);
        let answers = self.ask("ask for the number of a namespace", message)?;
        let number = answers
            .first()
            .and_then(|a| a.attributes(4).number(number::NSID));
        Ok(number.map(|n| n as i32).filter(|n| *n >= 0))
    }
}

fn port_of(answer: &Answer, controller: u32) -> Option<BridgePortFacts> {
    let [_, _, _, _, i0, i1, i2, i3] = answer.fixed::<8>();
    let found = answer.attributes(LINK_HEADER);
    (found.number(number::CONTROLLER) == Some(controller)).then(|| {
        let data = found.inside(number::INFO).inside(number::INFO_SLAVE_DATA);
        let yes = |kind| {
            data.find(kind)
                .and_then(|v| v.first())
                .is_some_and(|v| *v != 0)
        };
        BridgePortFacts {
            device: u32::from_ne_bytes([i0, i1, i2, i3]),
            hairpin: yes(number::PORT_HAIRPIN),
            isolated: yes(number::PORT_ISOLATED),
        }
    })
}

fn station(answer: &Answer, bridge: u32) -> Option<BridgeStation> {
    let [_, _, _, _, i0, i1, i2, i3, s0, s1, _, _] = answer.fixed::<NEIGHBOUR_HEADER>();
    let found = answer.attributes(NEIGHBOUR_HEADER);
    let here = found.number(number::NEIGHBOUR_CONTROLLER) == Some(bridge);
    let mac = found.find(number::NEIGHBOUR_MAC)?.try_into().ok()?;
    here.then_some(BridgeStation {
        mac: Mac::new(mac),
        device: u32::from_ne_bytes([i0, i1, i2, i3]),
        fixed: u16::from_ne_bytes([s0, s1]) & STATIC_STATES != 0,
    })
}
