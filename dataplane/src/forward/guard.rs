//! May this frame come in here? The guards that look at one frame at a time.
//!
//! In: a frame that is not plain ([`Guarded::is_plain`]), its port and the tables.
//! Out: the reason to refuse it, or nothing; the witness is told of every objection, also of those
//! that are only observed. Never: state: what needs a history is asked by the worker.
//!
//! [`Guarded::is_plain`]: crate::tables::guard::Guarded::is_plain

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::witness::note;
use super::{Step, Witness};
use crate::addr::{Mac, Station};
use crate::frame::arp::ArpView;
use crate::frame::ethernet::HEADER_LEN;
use crate::frame::ipv6::{self, Ipv6View};
use crate::frame::nd::{self, Message, NdView};
use crate::frame::offload::Offload;
use crate::frame::transport::{ICMPV6, Transport};
use crate::frame::{FrameView, Kind};
use crate::tables::guard::{Guarded, Mode};
use crate::tables::{PortRow, Tables};
use crate::verdict::DropReason;

/// 802.1Q tags behind which a packet is looked for: a provider's and a customer's (802.1ad).
/// Linux strips such a tag with VLAN 0 and takes what is behind it for untagged, so a tag must not
/// hide a forged address.
const TAGS_MAX: usize = 2;

/// May the frame come in?
///
/// # Errors
/// The reason why not.
#[inline(always)]
pub(super) fn admit<W: Witness>(
    view: &FrameView<'_>,
    offload: Offload,
    port: &PortRow,
    tables: &Tables,
    witness: &mut W,
) -> Result<(), DropReason> {
    match tables.guard(port.id) {
        Some(guarded) if !guarded.is_plain(view) => {
            examine(view, offload, (port, guarded), tables, witness)
        }
        _ => Ok(()),
    }
}

#[cold]
#[inline(never)]
fn examine<W: Witness>(
    view: &FrameView<'_>,
    offload: Offload,
    (port, guarded): (&PortRow, &Guarded),
    tables: &Tables,
    witness: &mut W,
) -> Result<(), DropReason> {
    let guard = guarded.guard();
    if !guarded.has_station(view.source) {
        let mac = view.source.mac();
        if is_elsewhere(mac, port, tables) {
            let mode = guard.loops.max(guard.stations);
            object(DropReason::StationElsewhere, mode, witness)?;
        } else {
            object(DropReason::SpoofedMac, guard.stations, witness)?;
        }
    }
    let Some((kind, packet)) = behind_tags(view) else {
        return object(DropReason::HiddenByTags, guard.addresses, witness);
    };
    // A checksum is completed in place. Where it would be among the addresses that are read here,
    // they would be others afterwards; `Offload::fits` does not look behind tags.
    let tags = view.payload().len() - packet.len();
    let start = usize::from(offload.csum_start);
    if kind == Kind::Ipv6
        && offload.needs_checksum()
        && start < HEADER_LEN + tags + ipv6::HEADER_LEN
    {
        object(DropReason::BadOffload, guard.addresses, witness)?;
    }
    let claims = Claims {
        port,
        guarded,
        tables,
        to_group: view.target.is_group(),
    };
    match kind {
        Kind::Ipv4 => match field(packet, 12) {
            Some(source) if !claims.may_be_v4(Ipv4Addr::from(source)) => {
                object(DropReason::SpoofedIp, guard.addresses, witness)
            }
            _ => Ok(()),
        },
        Kind::Ipv6 => {
            if let Some(source) = field(packet, 8)
                && !claims.may_be_v6(Ipv6Addr::from(source))
            {
                object(DropReason::SpoofedIp, guard.addresses, witness)?;
            }
            claims.of_icmpv6(packet, witness)
        }
        // Untagged, it is read by `arp`.
        Kind::Arp if view.kind == Kind::Tagged => match ArpView::parse(packet) {
            Ok(packet) => claims.of_arp(&packet, witness),
            Err(_) => Ok(()),
        },
        Kind::Arp | Kind::Other | Kind::Tagged => Ok(()),
    }
}

/// Does an ARP packet that came in by `port` speak only of whom it may?
///
/// # Errors
/// The reason why it dies.
pub(super) fn arp<W: Witness>(
    packet: &ArpView,
    port: &PortRow,
    tables: &Tables,
    witness: &mut W,
) -> Result<(), DropReason> {
    let Some(guarded) = tables.guard(port.id) else {
        return Ok(());
    };
    let claims = Claims {
        port,
        guarded,
        tables,
        to_group: true,
    };
    claims.of_arp(packet, witness)
}

/// Does an advertisement that came in by `port` speak only of whom it may?
///
/// # Errors
/// The reason why it dies.
pub(super) fn discovery<W: Witness>(
    packet: &NdView,
    port: &PortRow,
    tables: &Tables,
    witness: &mut W,
) -> Result<(), DropReason> {
    let Some(guarded) = tables.guard(port.id) else {
        return Ok(());
    };
    let claims = Claims {
        port,
        guarded,
        tables,
        to_group: false,
    };
    match packet.message {
        Message::Advertisement { mac, .. }
            if !claims.may_be_v6(packet.target)
                || mac.is_some_and(|mac| !guarded.has_station(mac)) =>
        {
            let mode = guarded.guard().addresses;
            object(DropReason::SpoofedNd, mode, witness)
        }
        // The address that a question comes from is its packet's source, which was asked about.
        _ => Ok(()),
    }
}

/// Who on a port may say to be whom.
struct Claims<'a> {
    port: &'a PortRow,
    guarded: &'a Guarded,
    tables: &'a Tables,
    /// The frame goes to a group: where somebody without an address asks for one.
    to_group: bool,
}

impl Claims<'_> {
    fn holds(&self, address: IpAddr) -> bool {
        let owner = self.tables.owner(address);
        owner.is_some_and(|owner| owner.port == self.port.id)
            || self
                .guarded
                .guard()
                .more_addresses
                .iter()
                .any(|net| net.contains(&address))
    }

    fn may_be_v4(&self, address: Ipv4Addr) -> bool {
        self.holds(address.into()) || (address.is_unspecified() && self.to_group)
    }

    /// A link-local address is a pod's own choice, made from its hardware address or at random; so
    /// any will do that is not made from the hardware address of somebody else.
    fn may_be_v6(&self, address: Ipv6Addr) -> bool {
        if self.holds(address.into()) || (address.is_unspecified() && self.to_group) {
            return true;
        }
        let others = || {
            self.tables.owner(address.into()).is_some()
                || made_from(address).is_some_and(|mac| is_elsewhere(mac, self.port, self.tables))
        };
        address.is_unicast_link_local() && !others()
    }

    fn of_arp<W: Witness>(&self, packet: &ArpView, witness: &mut W) -> Result<(), DropReason> {
        let sender = Station::new(packet.sender_mac);
        let own = sender.is_ok_and(|sender| self.guarded.has_station(sender));
        if own && self.may_be_v4(packet.sender) {
            return Ok(());
        }
        let mode = self.guarded.guard().addresses;
        object(DropReason::SpoofedArp, mode, witness)
    }

    /// Router advertisements and redirects, and any neighbour discovery that hides behind extension
    /// headers or in fragments, where `nd` does not read it (RFC 6980, RFC 7113).
    fn of_icmpv6<W: Witness>(&self, packet: &[u8], witness: &mut W) -> Result<(), DropReason> {
        let guard = self.guarded.guard();
        let Some(next) = packet.get(6).copied() else {
            return Ok(());
        };
        let kind = if next == ICMPV6 {
            packet.get(ipv6::HEADER_LEN).copied()
        } else if ipv6::is_extension(next) {
            match Ipv6View::parse(packet) {
                Ok(view) => hidden_kind(&view, packet),
                // Nobody can tell what it is; a host might.
                Err(DropReason::MalformedExtensions) => Some(nd::ROUTER_ADVERTISEMENT),
                Err(_) => None,
            }
        } else {
            None
        };
        match kind {
            Some(nd::ROUTER_ADVERTISEMENT | nd::REDIRECT) => {
                object(DropReason::RogueRouter, guard.routers, witness)
            }
            Some(nd::SOLICITATION | nd::ADVERTISEMENT) if next != ICMPV6 => {
                object(DropReason::SpoofedNd, guard.addresses, witness)
            }
            _ => Ok(()),
        }
    }
}

/// The type of an ICMPv6 message behind extension headers, if the packet has the start of one.
fn hidden_kind(view: &Ipv6View, packet: &[u8]) -> Option<u8> {
    match view.transport {
        Transport::Icmp { kind, .. } => Some(kind),
        _ if view.protocol == ICMPV6 && view.fragment_offset == 0 => {
            packet.get(usize::from(view.header_len)).copied()
        }
        _ => None,
    }
}

/// True for the hardware address of another port's station, or of the switch itself: the router's
/// and the NIC's.
#[inline]
pub(super) fn is_elsewhere(mac: Mac, port: &PortRow, tables: &Tables) -> bool {
    let nic = tables.uplink().filter(|uplink| uplink.id != port.id);
    tables.station(mac).is_some_and(|holder| holder != port.id)
        || tables.is_router(mac)
        || nic.is_some_and(|nic| nic.mac.mac() == mac)
}

/// The hardware address that a link-local address was made from (RFC 4291 appendix A), if any.
fn made_from(address: Ipv6Addr) -> Option<Mac> {
    let [.., a, b, c, 0xff, 0xfe, d, e, f] = address.octets() else {
        return None;
    };
    Some(Mac::new([a ^ 2, b, c, d, e, f]))
}

/// What the frame carries behind its tags, if those are not too many.
fn behind_tags<'a>(view: &FrameView<'a>) -> Option<(Kind, &'a [u8])> {
    let (mut kind, mut packet) = (view.kind, view.payload());
    for _ in 0..TAGS_MAX {
        if kind != Kind::Tagged {
            return Some((kind, packet));
        }
        // Two bytes of tag, two of type. A frame that ends here carries nothing.
        let Some((&[_, _, a, b], rest)) = packet.split_first_chunk::<4>() else {
            return Some((Kind::Other, &[]));
        };
        (kind, packet) = (Kind::of(u16::from_be_bytes([a, b])), rest);
    }
    (kind != Kind::Tagged).then_some((kind, packet))
}

fn field<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..)?.first_chunk::<N>().copied()
}

/// Objects to a frame, as the guard's mode has it.
fn object<W: Witness>(reason: DropReason, mode: Mode, witness: &mut W) -> Result<(), DropReason> {
    if mode == Mode::Off {
        return Ok(());
    }
    note!(witness, Step::Guard { reason, mode });
    if mode == Mode::Enforce {
        return Err(reason);
    }
    witness.observe(reason);
    Ok(())
}
