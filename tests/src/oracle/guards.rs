//! Guards: what a port may say, how often, and who may be learned there.
//!
//! In: a frame that came in, the guards of its port, the time. Out: a reason to refuse it, or nothing,
//! and the reasons for which it would have been refused where they only observe.
//! Never: a short cut for those beyond suspicion: every frame is asked everything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::addr::{Mac, PortId, Station};
use dataplane::bucket::Rate;
use dataplane::frame::arp::ArpView;
use dataplane::frame::ipv6::Ipv6View;
use dataplane::frame::nd::{Message, NdView};
use dataplane::frame::transport::Transport;
use dataplane::frame::{FrameView, Kind};
use dataplane::port::memory::WireFrame;
use dataplane::tables::guard::{Mode, PortGuard};
use dataplane::tables::{PortRole, PortSpec};
use dataplane::verdict::DropReason;

use super::Oracle;

/// Tags behind which a packet is looked for.
const TAGS: usize = 2;
/// Moves of a station in [`WATCHED_MS`] that are no flapping; one that flaps is held for as long.
const MOVES: u32 = 5;
const WATCHED_MS: u64 = 10_000;

/// Next header of ICMPv6, and of all extension headers (IANA's registry).
const ICMPV6: u8 = 58;
const EXTENSIONS: [u8; 8] = [0, 43, 44, 51, 60, 135, 139, 140];
/// Types of messages: RFC 4861 4.2 to 4.5.
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// The reasons that only observing guards had.
pub(super) type Seen = BTreeSet<DropReason>;

/// Whom a frame is for that goes to many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Crowd {
    Broadcast,
    Multicast,
    Unknown,
}

/// How often a station moved.
#[derive(Clone, Copy, Debug)]
struct Moves {
    since: u64,
    count: u32,
    held_until: u64,
}

/// What the guards remember.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// Thousandths of a frame that a port may still send, and when that was; of one that never sent
    /// any, nothing.
    credit: BTreeMap<(PortId, Crowd), (u64, u64)>,
    moves: BTreeMap<Mac, Moves>,
}

impl Memory {
    /// So many frames go to many, if they may.
    fn spend(&mut self, whose: (PortId, Crowd), frames: usize, rate: Rate, now: u64) -> bool {
        let most = u64::from(rate.burst) * 1000;
        let (left, at) = self.credit.get(&whose).copied().unwrap_or((most, now));
        let grown = (now - at).saturating_mul(u64::from(rate.per_second));
        let has = left.saturating_add(grown).min(most);
        let price = frames as u64 * 1000;
        let may = has >= price;
        self.credit
            .insert(whose, (if may { has - price } else { has }, now));
        may
    }

    /// A station moves, if it may.
    fn moves(&mut self, mac: Mac, now: u64) -> bool {
        let fresh = Moves {
            since: now,
            count: 0,
            held_until: 0,
        };
        let known = self.moves.entry(mac).or_insert(fresh);
        if now - known.since >= WATCHED_MS && now >= known.held_until {
            *known = fresh;
        }
        if now < known.held_until {
            return false;
        }
        known.count += 1;
        if known.count > MOVES {
            known.held_until = now + WATCHED_MS;
        }
        known.count <= MOVES
    }
}

/// An objection, as the guard's mode has it.
fn object(reason: DropReason, mode: Mode, seen: &mut Seen) -> Result<(), DropReason> {
    match mode {
        Mode::Off => Ok(()),
        Mode::Observe => {
            seen.insert(reason);
            Ok(())
        }
        Mode::Enforce => Err(reason),
    }
}

fn bytes<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..at + N)?.try_into().ok()
}

impl Oracle {
    fn guard(&self, port: PortId) -> Option<&PortGuard> {
        let mut rows = self.spec.guards.iter();
        rows.find(|(id, _)| *id == port).map(|(_, guard)| guard)
    }

    /// The port at which `mac` stands as a further station.
    pub(super) fn further_station(&self, mac: Mac) -> Option<PortId> {
        let has = |guard: &PortGuard| guard.more_stations.iter().any(|more| more.mac() == mac);
        let mut rows = self.spec.guards.iter();
        rows.find(|(_, guard)| has(guard)).map(|(id, _)| *id)
    }

    fn is_at(&self, mac: Mac, port: &PortSpec) -> bool {
        port.mac.mac() == mac || self.further_station(mac) == Some(port.id)
    }

    fn is_elsewhere(&self, mac: Mac, port: &PortSpec) -> bool {
        let nic = self.role(PortRole::Uplink);
        let is_nic = nic.is_some_and(|nic| nic.id != port.id && nic.mac.mac() == mac);
        let station = self.station(mac);
        station.is_some_and(|holder| holder != port.id) || self.is_router(mac) || is_nic
    }

    /// Whether the frame may come in at all.
    pub(super) fn admit(
        &self,
        view: &FrameView<'_>,
        frame: &WireFrame,
        port: &PortSpec,
        seen: &mut Seen,
    ) -> Result<(), DropReason> {
        let Some(guard) = self.guard(port.id) else {
            return Ok(());
        };
        let source = view.source.mac();
        if !self.is_at(source, port) {
            if self.is_elsewhere(source, port) {
                let stricter = guard.loops.max(guard.stations);
                object(DropReason::StationElsewhere, stricter, seen)?;
            } else {
                object(DropReason::SpoofedMac, guard.stations, seen)?;
            }
        }
        let (mut kind, mut packet, mut tags) = (view.kind, view.payload(), 0);
        while kind == Kind::Tagged {
            if tags == TAGS {
                return object(DropReason::HiddenByTags, guard.addresses, seen);
            }
            tags += 1;
            // A tag is two bytes, and the type of what follows two more.
            kind = match bytes::<2>(packet, 2) {
                Some(ether_type) => Kind::of(u16::from_be_bytes(ether_type)),
                None => Kind::Other,
            };
            packet = packet.get(4..).unwrap_or_default();
        }
        let to_group = view.target.is_group();
        match kind {
            Kind::Ipv4 => match bytes::<4>(packet, 12) {
                Some(source) if !self.may_be_v4(source.into(), port, to_group) => {
                    object(DropReason::SpoofedIp, guard.addresses, seen)
                }
                _ => Ok(()),
            },
            Kind::Ipv6 => {
                // What is completed there would be other addresses afterwards.
                let start = usize::from(frame.offload.csum_start);
                if frame.offload.needs_checksum() && start < 14 + 4 * tags + 40 {
                    object(DropReason::BadOffload, guard.addresses, seen)?;
                }
                if let Some(source) = bytes::<16>(packet, 8)
                    && !self.may_be_v6(source.into(), port, to_group)
                {
                    object(DropReason::SpoofedIp, guard.addresses, seen)?;
                }
                may_be_said(packet, guard, seen)
            }
            Kind::Arp if tags > 0 => match ArpView::parse(packet) {
                Ok(packet) => self.may_claim_by_arp(&packet, port, to_group, seen),
                Err(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn holds(&self, address: IpAddr, port: &PortSpec) -> bool {
        let owner = self.holder(address);
        let more = self.guard(port.id).map(|guard| &guard.more_addresses);
        owner.is_some_and(|owner| owner.port == port.id)
            || more.is_some_and(|nets| nets.iter().any(|net| net.contains(&address)))
    }

    /// Nobody yet, if it asks a group.
    fn may_be_v4(&self, address: Ipv4Addr, port: &PortSpec, to_group: bool) -> bool {
        self.holds(address.into(), port) || to_group && address.is_unspecified()
    }

    /// The same, or a link-local address that is no other's by configuration or by its making
    /// (RFC 4291 appendix A).
    fn may_be_v6(&self, address: Ipv6Addr, port: &PortSpec, to_group: bool) -> bool {
        if self.holds(address.into(), port) || to_group && address.is_unspecified() {
            return true;
        }
        let octets = address.octets();
        let made = octets[11..13] == [0xff, 0xfe];
        let [a, b, c, _, _, d, e, f] = octets[8..].try_into().unwrap_or_default();
        let maker = Mac::new([a ^ 2, b, c, d, e, f]);
        address.is_unicast_link_local()
            && self.holder(address.into()).is_none()
            && !(made && self.is_elsewhere(maker, port))
    }

    /// An ARP packet names a station and an address of its port; behind a tag, none yet only where it
    /// asks a group.
    pub(super) fn may_claim_by_arp(
        &self,
        packet: &ArpView,
        port: &PortSpec,
        to_group: bool,
        seen: &mut Seen,
    ) -> Result<(), DropReason> {
        let Some(guard) = self.guard(port.id) else {
            return Ok(());
        };
        if self.is_at(packet.sender_mac, port) && self.may_be_v4(packet.sender, port, to_group) {
            return Ok(());
        }
        object(DropReason::SpoofedArp, guard.addresses, seen)
    }

    /// So does an advertisement.
    pub(super) fn may_advertise(
        &self,
        packet: &NdView,
        port: &PortSpec,
        seen: &mut Seen,
    ) -> Result<(), DropReason> {
        let (Some(guard), Message::Advertisement { mac, .. }) =
            (self.guard(port.id), packet.message)
        else {
            return Ok(());
        };
        let other = |mac: Station| !self.is_at(mac.mac(), port);
        if self.may_be_v6(packet.target, port, false) && !mac.is_some_and(other) {
            return Ok(());
        }
        object(DropReason::SpoofedNd, guard.addresses, seen)
    }

    /// Whether a frame to a group, or to nobody known, is one too many.
    pub(super) fn storm(
        &mut self,
        target: Mac,
        frame: &WireFrame,
        port: PortId,
    ) -> Option<DropReason> {
        let guard = self.guard(port)?;
        let (mode, rates) = (guard.storms, guard.rates);
        if mode == Mode::Off {
            return None;
        }
        let (crowd, rate, reason) = if target == Mac::BROADCAST {
            let reason = DropReason::BroadcastStorm;
            (Crowd::Broadcast, rates.broadcast, reason)
        } else if target.is_group() {
            let reason = DropReason::MulticastStorm;
            (Crowd::Multicast, rates.multicast, reason)
        } else {
            (Crowd::Unknown, rates.unknown, DropReason::UnknownStorm)
        };
        let mut segments = 1;
        if frame.offload.is_super_frame() {
            let size = usize::from(frame.offload.gso_size).max(1);
            segments = frame.bytes.len().div_ceil(size);
        }
        let now = self.now;
        if self.memory.spend((port, crowd), segments, rate, now) {
            return None;
        }
        self.objected(reason, mode, port)
    }

    /// Whether `mac`, which was not known at `port`, may not be learned there.
    pub(super) fn refused_place(&mut self, mac: Mac, port: PortId) -> Option<DropReason> {
        let guard = self.guard(port)?;
        let (flaps, quota, most) = (guard.flaps, guard.quota, guard.learned_max);
        let moves = self.learned.contains_key(&mac);
        if moves && flaps != Mode::Off && !self.memory.moves(mac, self.now) {
            let refused = self.objected(DropReason::Flapping, flaps, port);
            if refused.is_some() {
                return refused;
            }
        }
        let there = self.learned.values().filter(|(at, _)| *at == port);
        if quota != Mode::Off && there.count() >= most as usize {
            return self.objected(DropReason::StationQuota, quota, port);
        }
        None
    }

    fn objected(&mut self, reason: DropReason, mode: Mode, port: PortId) -> Option<DropReason> {
        let mut seen = Seen::new();
        let refused = object(reason, mode, &mut seen).err();
        self.books.observe(port, &seen);
        refused
    }
}

/// What no pod says: that it is a router, or neighbour discovery where it is not read.
fn may_be_said(packet: &[u8], guard: &PortGuard, seen: &mut Seen) -> Result<(), DropReason> {
    let Some(next) = packet.get(6) else {
        return Ok(());
    };
    let hidden = EXTENSIONS.contains(next);
    let kind = match Ipv6View::parse(packet) {
        _ if *next == ICMPV6 => packet.get(40).copied(),
        _ if !hidden => None,
        Ok(view) => match view.transport {
            Transport::Icmp { kind, .. } => Some(kind),
            _ if view.protocol == ICMPV6 && view.fragment_offset == 0 => {
                packet.get(usize::from(view.header_len)).copied()
            }
            _ => None,
        },
        // It may be anything.
        Err(DropReason::MalformedExtensions) => Some(ROUTER_ADVERTISEMENT),
        Err(_) => None,
    };
    match kind {
        Some(ROUTER_ADVERTISEMENT | REDIRECT) => {
            object(DropReason::RogueRouter, guard.routers, seen)
        }
        Some(SOLICITATION | ADVERTISEMENT) if hidden => {
            object(DropReason::SpoofedNd, guard.addresses, seen)
        }
        _ => Ok(()),
    }
}
