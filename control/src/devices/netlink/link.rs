//! Links: made, shaped, found and removed.
//!
//! In: names and the wanted properties.
//! Out: [`Link`], what the kernel holds.
//! Never: brings a device up as a side effect.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use dataplane::addr::Mac;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, Nla};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use super::{Answer, Netlink, bytes_of};
use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;
use crate::devices::netns::Netns;

/// Bytes of `struct ifinfomsg`.
const HEADER_LENGTH: usize = 16;
/// Attribute numbers of `linux/if_link.h` and `linux/if_tun.h`.
mod number {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const NAME: u16 = 3;
    pub(super) const MTU: u16 = 4;
    pub(super) const PEER: u16 = 5;
    pub(super) const QDISC: u16 = 6;
    pub(super) const CONTROLLER: u16 = 10;
    pub(super) const TX_QUEUE_LENGTH: u16 = 13;
    pub(super) const GROUP: u16 = 27;
    pub(super) const INFO: u16 = 18;
    pub(super) const ALIAS: u16 = 20;
    pub(super) const PROMISCUITY: u16 = 30;
    pub(super) const FAMILY_SPECIFIC: u16 = 26;
    pub(super) const PEER_NAMESPACE: u16 = 37;
    pub(super) const INFO_KIND: u16 = 1;
    pub(super) const INFO_DATA: u16 = 2;
    pub(super) const TUN_OWNER: u16 = 1;
    pub(super) const TUN_TYPE: u16 = 3;
    pub(super) const TUN_VNET_HEADER: u16 = 5;
    pub(super) const TUN_PERSIST: u16 = 6;
    pub(super) const TUN_MULTI_QUEUE: u16 = 7;
    pub(super) const INET6_ADDRESS_GENERATION: u16 = 8;
}
/// `IFF_TAP` as the kernel reports a tun device's type.
const TUN_TYPE_TAP: u8 = 2;
/// `IN6_ADDR_GEN_MODE_NONE`.
const GENERATE_NO_ADDRESS: u8 = 1;

/// The group of devices that are about to be removed: letters, which nobody numbers by hand.
const GROUP_GOING: u32 = u32::from_be_bytes(*b"tlgo");

/// A device as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index in the namespace.
    pub index: u32,
    /// Its hardware address, where it is an Ethernet device.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// It has a carrier and its kernel sends by it. A TAP has one while someone has it open.
    pub running: bool,
    /// How many want to see every frame that comes by, such as `tcpdump`. The flag of that name tells
    /// only of those who set it by hand.
    pub listeners: u32,
    /// Resolves no addresses of its own (`IFF_NOARP`).
    pub no_arp: bool,
    /// The alias, free text for people.
    pub alias: Option<String>,
    /// The kind that made it: `veth`, `tun`.
    pub kind: Option<String>,
    /// The name of its root queueing discipline.
    pub qdisc: String,
    /// The length of its transmit queue: for a TAP, of the ring that userspace reads.
    pub tx_queue_length: u32,
    /// The index of the peer of a veth, in the peer's namespace.
    pub peer: Option<u32>,
    /// The number by which this namespace knows the peer's, where that is another.
    pub peer_namespace: Option<i32>,
    /// The index of the bridge, or the like, that it is a port of.
    pub controller: Option<u32>,
    /// What more is known of a TAP.
    pub tap: Option<TapFacts>,
}

/// The properties of a TAP that whoever opens it again must match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapFacts {
    /// Outlives its last descriptor.
    pub persistent: bool,
    /// Made with `IFF_MULTI_QUEUE`.
    pub multi_queue: bool,
    /// Last opened with `IFF_VNET_HDR`.
    pub vnet_header: bool,
    /// The user who may open it without privilege.
    pub owner: Option<u32>,
}

/// One end of a veth pair to be made.
#[derive(Clone, Debug)]
pub struct VethEnd {
    /// Its name.
    pub name: DeviceName,
    /// Its hardware address; the kernel draws one if absent.
    pub mac: Option<Mac>,
}

impl Link {
    fn read(answer: &Answer) -> Link {
        let [_, _, _, _, index @ ..] = answer.fixed::<12>();
        let [i0, i1, i2, i3, f0, f1, f2, f3] = index;
        let flags = LinkFlags::from_bits_retain(u32::from_ne_bytes([f0, f1, f2, f3]));
        let found = answer.attributes(HEADER_LENGTH);
        let info = found.inside(number::INFO);
        let data = info.inside(number::INFO_DATA);
        let yes = |kind| {
            data.find(kind)
                .and_then(|v| v.first())
                .is_some_and(|v| *v != 0)
        };
        let is_tap = data.find(number::TUN_TYPE).and_then(|v| v.first()) == Some(&TUN_TYPE_TAP);
        let kind = info.text(number::INFO_KIND);
        Link {
            name: found.text(number::NAME).unwrap_or_default(),
            index: u32::from_ne_bytes([i0, i1, i2, i3]),
            mac: found
                .find(number::ADDRESS)
                .and_then(|v| v.try_into().ok())
                .map(Mac::new),
            mtu: found.number(number::MTU).unwrap_or_default(),
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::Running),
            listeners: found.number(number::PROMISCUITY).unwrap_or_default(),
            no_arp: flags.contains(LinkFlags::Noarp),
            alias: found.text(number::ALIAS),
            qdisc: found.text(number::QDISC).unwrap_or_default(),
            tx_queue_length: found.number(number::TX_QUEUE_LENGTH).unwrap_or_default(),
            peer: found.number(number::PEER),
            peer_namespace: found
                .number(number::PEER_NAMESPACE)
                .map(|number| number as i32),
            controller: found.number(number::CONTROLLER).filter(|index| *index != 0),
            tap: (kind.as_deref() == Some("tun") && is_tap).then(|| TapFacts {
                persistent: yes(number::TUN_PERSIST),
                multi_queue: yes(number::TUN_MULTI_QUEUE),
                vnet_header: yes(number::TUN_VNET_HEADER),
                owner: data
                    .number(number::TUN_OWNER)
                    .filter(|owner| *owner != u32::MAX),
            }),
            kind,
        }
    }
}

impl Netlink {
    /// All devices of the namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn links(&self) -> Result<Vec<Link>, DeviceError> {
        let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
        Ok(self
            .list("list the devices", &message)?
            .iter()
            .map(Link::read)
            .collect())
    }

    /// The device called `name`, if there is one.
    ///
    /// # Errors
    /// What the kernel says, other than that there is none.
    pub fn find_link(&self, name: &DeviceName) -> Result<Option<Link>, DeviceError> {
        let message = RouteNetlinkMessage::GetLink(named(name));
        match self.ask(&format!("look for {name}"), message) {
            Ok(answers) => Ok(answers.first().map(Link::read)),
            Err(refused) if refused.is(nix::libc::ENODEV) => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    /// The device called `name`.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] if there is none.
    pub fn link(&self, name: &DeviceName) -> Result<Link, DeviceError> {
        self.find_link(name)?.ok_or_else(|| DeviceError::Missing {
            device: name.clone(),
            namespace: self.namespace().name().into(),
        })
    }

    /// Waits until the device has its carrier. For some milliseconds after a TAP has been opened
    /// the kernel still throws away what it should send by it, redirected frames too: it starts
    /// the queue later, from a work queue. So whoever opens a TAP waits before they ask for frames.
    ///
    /// # Errors
    /// [`DeviceError::Conflict`] if it has none after `patience`.
    pub fn wait_until_running(
        &self,
        name: &DeviceName,
        patience: Duration,
    ) -> Result<(), DeviceError> {
        let end = Instant::now() + patience;
        while !self.link(name)?.running {
            if Instant::now() > end {
                return Err(DeviceError::Conflict {
                    device: name.clone(),
                    namespace: self.namespace().name().into(),
                    why: "has no carrier: nobody has it open, or it is down".into(),
                });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The index of the device called `name`.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] if there is none.
    pub fn index(&self, name: &DeviceName) -> Result<u32, DeviceError> {
        self.link(name).map(|link| link.index)
    }

    /// Makes a veth pair, both ends down: `here` in this namespace and `there` directly in the
    /// other, where it never bears another name.
    ///
    /// # Errors
    /// What the kernel says: `EEXIST` if either name is taken.
    pub fn add_veth(
        &self,
        here: &VethEnd,
        there: &VethEnd,
        other: &Netns,
        mtu: u32,
    ) -> Result<(), DeviceError> {
        let mut peer = end(there, mtu);
        peer.attributes
            .push(LinkAttribute::NetNsFd(other.file().as_raw_fd()));
        let mut message = end(here, mtu);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let attempt = format!(
            "make the veth pair {} and {} (in {})",
            here.name,
            there.name,
            other.name()
        );
        self.change(
            &attempt,
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Makes a Linux bridge, down. The switch has no use for one: comparisons do.
    ///
    /// # Errors
    /// What the kernel says: `EEXIST` if the name is taken, `EOPNOTSUPP` without the module.
    pub fn add_bridge(&self, name: &DeviceName) -> Result<(), DeviceError> {
        let mut message = named(name);
        message
            .attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(
                InfoKind::Bridge,
            )]));
        self.change(
            &format!("make the bridge {name}"),
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Makes a device a port of a bridge.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] without the bridge, otherwise what the kernel says.
    pub fn set_bridge(&self, name: &DeviceName, bridge: &DeviceName) -> Result<(), DeviceError> {
        let attempt = format!("make {name} a port of {bridge}");
        self.set(
            &attempt,
            name,
            LinkAttribute::Controller(self.index(bridge)?),
        )
    }

    /// Removes a device; one that is gone already is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_link(&self, name: &DeviceName) -> Result<(), DeviceError> {
        let message = RouteNetlinkMessage::DelLink(named(name));
        match self.change(&format!("remove {name}"), message, 0) {
            Err(refused) if refused.is(nix::libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// Removes devices at once, for which the kernel waits as long as for one.
    ///
    /// # Errors
    /// What the kernel says; then some or all are still there.
    pub(crate) fn remove_links(&self, names: &[DeviceName]) -> Result<(), DeviceError> {
        let group = || {
            LinkAttribute::Other(DefaultNla::new(
                number::GROUP,
                GROUP_GOING.to_ne_bytes().to_vec(),
            ))
        };
        for name in names {
            self.set(&format!("have {name} go with others"), name, group())?;
        }
        if names.is_empty() {
            return Ok(());
        }
        let mut message = LinkMessage::default();
        message.attributes.push(group());
        let attempt = format!("remove {} devices", names.len());
        self.change(&attempt, RouteNetlinkMessage::DelLink(message), 0)
    }

    /// Sets the hardware address.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_mac(&self, name: &DeviceName, mac: Mac) -> Result<(), DeviceError> {
        let attempt = format!("set the MAC address of {name} to {mac}");
        self.set(
            &attempt,
            name,
            LinkAttribute::Address(mac.octets().to_vec()),
        )
    }

    /// Sets the MTU.
    ///
    /// # Errors
    /// What the kernel says: `EINVAL` outside the device's bounds.
    pub fn set_mtu(&self, name: &DeviceName, mtu: u32) -> Result<(), DeviceError> {
        self.set(
            &format!("set the MTU of {name} to {mtu}"),
            name,
            LinkAttribute::Mtu(mtu),
        )
    }

    /// Sets the length of the transmit queue.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_tx_queue_length(&self, name: &DeviceName, frames: u32) -> Result<(), DeviceError> {
        let attempt = format!("set the transmit queue of {name} to {frames} frames");
        self.set(&attempt, name, LinkAttribute::TxQueueLen(frames))
    }

    /// Sets the alias, free text for people; empty text removes it.
    ///
    /// # Errors
    /// What the kernel says: `EINVAL` beyond 255 bytes.
    pub fn set_alias(&self, name: &DeviceName, alias: &str) -> Result<(), DeviceError> {
        // By hand: the kernel takes the attribute's whole length, so no closing zero.
        let bytes = DefaultNla::new(number::ALIAS, alias.as_bytes().to_vec());
        self.set(
            &format!("set the alias of {name}"),
            name,
            LinkAttribute::Other(bytes),
        )
    }

    /// Gives a device another name.
    ///
    /// # Errors
    /// What the kernel says: `EEXIST` if the name is taken.
    pub fn rename(&self, name: &DeviceName, to: &DeviceName) -> Result<(), DeviceError> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(name)?;
        message
            .attributes
            .push(LinkAttribute::IfName(to.to_string()));
        let attempt = format!("rename {name} to {to}");
        self.change(&attempt, RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Brings a device up or down.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_up(&self, name: &DeviceName, up: bool) -> Result<(), DeviceError> {
        let attempt = format!("bring {name} {}", if up { "up" } else { "down" });
        self.set_flag(&attempt, name, LinkFlags::Up, up)
    }

    /// Switches address resolution by the device itself off or on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_no_arp(&self, name: &DeviceName, off: bool) -> Result<(), DeviceError> {
        self.set_flag(&format!("set ARP of {name}"), name, LinkFlags::Noarp, off)
    }

    /// Keeps the kernel from giving the device an IPv6 link-local address, without which it sends
    /// no router solicitations, no duplicate address detection and no listener reports.
    pub(crate) fn set_no_link_local(&self, name: &DeviceName) -> Result<(), DeviceError> {
        let mode = DefaultNla::new(number::INET6_ADDRESS_GENERATION, vec![GENERATE_NO_ADDRESS]);
        let family = DefaultNla::new(nix::libc::AF_INET6 as u16, nested(&mode));
        let specific = DefaultNla::new(number::FAMILY_SPECIFIC, nested(&family));
        let attempt = format!("keep {name} from making an IPv6 address");
        self.set(&attempt, name, LinkAttribute::Other(specific))
    }

    fn set(
        &self,
        attempt: &str,
        name: &DeviceName,
        attribute: LinkAttribute,
    ) -> Result<(), DeviceError> {
        let mut message = named(name);
        message.attributes.push(attribute);
        self.change(attempt, RouteNetlinkMessage::SetLink(message), 0)
    }

    fn set_flag(
        &self,
        attempt: &str,
        name: &DeviceName,
        flag: LinkFlags,
        on: bool,
    ) -> Result<(), DeviceError> {
        let mut message = named(name);
        message.header.flags = if on { flag } else { LinkFlags::empty() };
        message.header.change_mask = flag;
        self.change(attempt, RouteNetlinkMessage::SetLink(message), 0)
    }
}

fn named(name: &DeviceName) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_string()));
    message
}

fn end(end: &VethEnd, mtu: u32) -> LinkMessage {
    let mut message = named(&end.name);
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message.attributes.extend(
        end.mac
            .map(|mac| LinkAttribute::Address(mac.octets().to_vec())),
    );
    message
}

fn nested(inner: &impl Nla) -> Vec<u8> {
    bytes_of(inner)
}
