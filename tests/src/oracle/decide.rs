//! Where a frame goes: ARP and ND by address held, frames for the router by IP address, all others
//! by MAC address.
//!
//! In: an [`Arrival`], and what the oracle knows. Out: its [`Fate`]. Never: changes anything.
//!
//! Sources: RFC 826, 1027 and 5227 for ARP; RFC 4861 and 4862 for ND; RFC 1812 5.2 and 5.3 and
//! RFC 8200 for routing; IEEE 802.1D for the bridge; `control/src/compile.rs` for the two modes.

use std::net::{IpAddr, Ipv4Addr};

use dataplane::addr::{Mac, PortId, Station};
use dataplane::frame::arp::{ArpView, Operation};
use dataplane::frame::ipv4::Ipv4View;
use dataplane::frame::ipv6::Ipv6View;
use dataplane::frame::nd::{Message, NdView};
use dataplane::frame::offload::Offload;
use dataplane::frame::transport::Transport;
use dataplane::frame::{FrameView, Kind, Network, options};
use dataplane::tables::fib::NextHop;
use dataplane::tables::{Crossing, Owner, Policy, PortRole, PortSpec, Unknown};
use dataplane::verdict::DropReason;
use ipnet::IpNet;

use super::edit::Edits;
use super::guards::Seen;
use super::neighbours::News;
use super::{Arrival, Oracle, speech};

/// What becomes of a frame.
pub(super) enum Fate {
    To(PortId, Edits),
    InPieces(PortId, Edits),
    ToAll,
    /// This frame goes back.
    Answer(Vec<u8>),
    /// A next hop spoke.
    Heard(IpAddr, News),
    Wait(IpAddr, PortId),
    /// It claims what another holds, and this frame goes back.
    Defend(Vec<u8>),
    Dead(DropReason),
    /// It is not even a frame.
    Unfit(DropReason),
}

/// What a router measures.
struct Measures {
    hops: u8,
    bytes: usize,
    mtu_min: u16,
    may_be_cut: bool,
}

impl Oracle {
    /// Adds to `seen` what guards object to that only observe.
    pub(super) fn decide(&self, arrival: &Arrival, seen: &mut Seen) -> Fate {
        let bytes = &arrival.frame.bytes;
        let view = match FrameView::parse(bytes) {
            Ok(view) => view,
            Err(reason) => return Fate::Unfit(reason),
        };
        if !arrival.frame.offload.fits(bytes.len(), view.kind) {
            return Fate::Unfit(DropReason::BadOffload);
        }
        let Some(port) = self.row(arrival.ingress) else {
            return Fate::Dead(DropReason::NotAttached);
        };
        if let Err(reason) = self.admit(&view, &arrival.frame, &port, seen) {
            return Fate::Dead(reason);
        }
        let from_uplink = port.role == PortRole::Uplink;
        match view.network() {
            _ if view.claims_discovery() => {
                self.discovery(&view, arrival.frame.offload, &port, seen)
            }
            Network::Arp(packet) => self.arp(view.source.mac(), &packet, &port, seen),
            Network::Malformed(reason) if view.kind == Kind::Arp => Fate::Dead(reason),
            _ if view.target.is_group() && from_uplink => Fate::Dead(DropReason::UplinkNotOurs),
            _ if view.target.is_group() => self.group(view.target, &port),
            network if from_uplink || self.is_router(view.target) || self.is_kept_apart(&port) => {
                self.route(&view, &network, arrival.frame.offload, &port)
            }
            _ => self.bridge(&view, &port),
        }
    }

    /// Where the host's rules hold between pods, a pod speaks to nobody but through the host.
    fn is_kept_apart(&self, port: &PortSpec) -> bool {
        self.spec.policy == Policy::ViaHost && port.role == PortRole::Pod
    }

    /// To everybody, and from a pod that is kept apart to the host alone.
    fn group(&self, target: Mac, port: &PortSpec) -> Fate {
        match (group(target), self.role(PortRole::Host)) {
            (Fate::ToAll, Some(host)) if self.is_kept_apart(port) => {
                Fate::To(host.id, Edits::default())
            }
            (Fate::ToAll, None) if self.is_kept_apart(port) => Fate::Dead(DropReason::NoEgress),
            (fate, _) => fate,
        }
    }

    fn bridge(&self, view: &FrameView<'_>, port: &PortSpec) -> Fate {
        let target = view.target;
        let by_host = |egress| {
            let row = self.row(egress);
            row.is_some_and(|egress| self.is_for_host(view, port, &egress))
        };
        let heard = || self.learned.get(&target).map(|(port, _)| *port);
        match (self.station(target).or_else(heard), self.spec.unknown) {
            (Some(egress), _) if egress == port.id && !port.hairpin => {
                Fate::Dead(DropReason::SamePort)
            }
            (Some(egress), _) if self.apart(port.id, egress) => Fate::Dead(DropReason::Isolated),
            (Some(egress), _) if by_host(egress) => self.to_host(port),
            (Some(egress), _) => Fate::To(egress, Edits::default()),
            (None, Unknown::Flood) => Fate::ToAll,
            (None, Unknown::Drop) => Fate::Dead(DropReason::UnknownUnicast),
        }
    }

    pub(super) fn holder(&self, address: IpAddr) -> Option<Owner> {
        let mut owners = self.spec.owners.iter();
        owners
            .find(|(held, _)| *held == address)
            .map(|(_, owner)| *owner)
    }

    /// Whoever claims what another port holds is told so.
    fn conflict(&self, claimed: IpAddr, claimer: Mac, port: &PortSpec) -> Option<Fate> {
        let holder = self
            .holder(claimed)
            .filter(|holder| holder.port != port.id)?;
        let mac = self.told_at(port, holder.mac);
        let router = self.is_router(mac);
        Some(Fate::Defend(speech::announcement(
            Some(claimer),
            claimed,
            mac,
            router,
        )))
    }

    /// Outside, everything of this node has the NIC's address.
    fn told_at(&self, port: &PortSpec, mac: Mac) -> Mac {
        if port.role == PortRole::Uplink {
            port.mac.mac()
        } else {
            mac
        }
    }

    fn own_address(&self) -> (Option<Ipv4Addr>, Option<std::net::Ipv6Addr>) {
        match self.spec.crossing {
            Crossing::Routed { uplink, .. } => (uplink.v4, uplink.v6),
            Crossing::Bridged => (None, None),
        }
    }

    fn is_a_router(&self) -> bool {
        matches!(self.spec.crossing, Crossing::Routed { .. })
    }

    fn arp(&self, source: Mac, packet: &ArpView, port: &PortSpec, seen: &mut Seen) -> Fate {
        let no_host = |ip: Ipv4Addr| ip.is_multicast() || ip.is_broadcast() || ip.is_loopback();
        let Ok(sender) = Station::new(packet.sender_mac) else {
            return Fate::Dead(DropReason::MalformedArp);
        };
        if no_host(packet.sender) || no_host(packet.target) {
            return Fate::Dead(DropReason::MalformedArp);
        }
        let probe = packet.sender.is_unspecified();
        let claimed = if probe { packet.target } else { packet.sender };
        // Whoever sent the frame is told, whatever the packet calls him.
        if let Some(fate) = self.conflict(claimed.into(), source, port) {
            return fate;
        }
        if let Err(reason) = self.may_claim_by_arp(packet, port, true, seen) {
            return Fate::Dead(reason);
        }
        let announces = packet.sender == packet.target;
        match packet.operation {
            Operation::Reply if port.role == PortRole::Uplink => {
                self.arp_reply_from_outside(packet)
            }
            Operation::Reply => match self.station(packet.target_mac) {
                None => Fate::Dead(DropReason::UnknownUnicast),
                Some(egress) if egress == port.id => Fate::Dead(DropReason::SamePort),
                Some(egress) if self.apart(port.id, egress) => Fate::Dead(DropReason::Isolated),
                Some(egress) => Fate::To(egress, Edits::default()),
            },
            Operation::Request if announces && port.role == PortRole::Uplink => {
                self.heard(packet.sender.into(), sender.mac(), false)
            }
            Operation::Request if announces => Fate::ToAll,
            Operation::Request => match self.holder(packet.target.into()) {
                Some(holder) if holder.port == port.id => Fate::Dead(DropReason::ArpUnanswered),
                Some(holder) if self.apart(port.id, holder.port) => {
                    Fate::Dead(DropReason::Isolated)
                }
                Some(holder) => {
                    let (asker, mac) = (packet.sender_mac, self.told_at(port, holder.mac));
                    let (told, to) = ((mac, packet.target), (asker, packet.sender));
                    Fate::Answer(speech::arp(speech::REPLY, told, to, asker))
                }
                None => self.unanswered(probe, port),
            },
        }
    }

    fn heard(&self, address: IpAddr, mac: Mac, solicited: bool) -> Fate {
        if !self.is_a_router() {
            return Fate::Dead(DropReason::UplinkNotOurs);
        }
        let news = News {
            mac: Some(mac),
            solicited,
            overrides: true,
        };
        Fate::Heard(address, news)
    }

    fn arp_reply_from_outside(&self, packet: &ArpView) -> Fate {
        if self.own_address().0 == Some(packet.target) {
            return self.heard(packet.sender.into(), packet.sender_mac, true);
        }
        self.to_the_pod(packet.target.into())
    }

    /// An answer from outside, to the pod that must have asked.
    fn to_the_pod(&self, address: IpAddr) -> Fate {
        let asker = self
            .holder(address)
            .and_then(|holder| self.row(holder.port));
        match asker.filter(|row| row.role == PortRole::Pod) {
            Some(row) => Fate::To(
                row.id,
                Edits {
                    target: Some(row.mac.mac()),
                    ..Edits::default()
                },
            ),
            None => Fate::Dead(DropReason::UplinkNotOurs),
        }
    }

    /// A question for an address that nobody here holds.
    fn unanswered(&self, probe: bool, port: &PortSpec) -> Fate {
        let uplink = self.role(PortRole::Uplink);
        match (port.role, uplink) {
            (PortRole::Uplink, _) => Fate::Dead(DropReason::UplinkNotOurs),
            (PortRole::Pod, Some(uplink)) if !self.is_a_router() && !probe => Fate::To(
                uplink.id,
                Edits {
                    source: Some(uplink.mac.mac()),
                    ..Edits::default()
                },
            ),
            _ if self.spec.unknown == Unknown::Flood => Fate::ToAll,
            _ => Fate::Dead(DropReason::ArpUnanswered),
        }
    }

    fn discovery(
        &self,
        view: &FrameView<'_>,
        offload: Offload,
        port: &PortSpec,
        seen: &mut Seen,
    ) -> Fate {
        let packet = match view.discovery(offload.needs_checksum()) {
            Ok(packet) => packet,
            Err(reason) => return Fate::Dead(reason),
        };
        let asks = packet.message == Message::Solicitation;
        let probe = packet.source.is_unspecified();
        let claimed = if asks && !probe {
            packet.source
        } else {
            packet.target
        };
        let sender = view.source.mac();
        if let Some(fate) = self.conflict(claimed.into(), sender, port) {
            return fate;
        }
        if let Err(reason) = self.may_advertise(&packet, port, seen) {
            return Fate::Dead(reason);
        }
        if asks
            && let Some(holder) = self.holder(packet.target.into())
            && holder.port != port.id
        {
            if self.apart(port.id, holder.port) {
                return Fate::Dead(DropReason::Isolated);
            }
            let mac = self.told_at(port, holder.mac);
            let router = self.is_router(holder.mac);
            let told = (packet.target, mac);
            let frame = speech::solicited_advertisement(sender, packet.source, told, router);
            return Fate::Answer(frame);
        }
        match (port.role, asks) {
            (PortRole::Uplink, false) => self.advertised_outside(&packet),
            (PortRole::Uplink, true) => Fate::Dead(DropReason::UplinkNotOurs),
            _ if view.target.is_group() || self.is_kept_apart(port) => {
                self.group(view.target, port)
            }
            _ => self.bridge(view, port),
        }
    }

    fn advertised_outside(&self, packet: &NdView) -> Fate {
        let Message::Advertisement {
            mac,
            solicited,
            overrides,
            ..
        } = packet.message
        else {
            return Fate::Dead(DropReason::UplinkNotOurs);
        };
        if !self.is_a_router() {
            return self.to_the_pod(packet.to.into());
        }
        if packet.to.is_multicast() || self.own_address().1 == Some(packet.to) {
            let mac = mac.map(Station::mac);
            return Fate::Heard(
                packet.target.into(),
                News {
                    mac,
                    solicited,
                    overrides,
                },
            );
        }
        Fate::Dead(DropReason::UplinkNotOurs)
    }

    fn route(
        &self,
        view: &FrameView<'_>,
        network: &Network,
        offload: Offload,
        port: &PortSpec,
    ) -> Fate {
        let packet = view.payload();
        let found = match network {
            Network::Ipv4(ip) => self.route_v4(ip, packet, offload),
            Network::Ipv6(ip) => self.route_v6(ip, packet, offload, port),
            Network::Malformed(reason) => Err(*reason),
            Network::Arp(_) | Network::Opaque if port.role == PortRole::Uplink => {
                Err(DropReason::UplinkNotOurs)
            }
            Network::Arp(_) | Network::Opaque => return self.to_host(port),
        };
        match found {
            Ok((hop, measures)) => {
                let egress = match hop {
                    NextHop::Station { port, .. } => self.row(port),
                    NextHop::Neighbour(_) => self.role(PortRole::Uplink),
                    _ => None,
                };
                match egress {
                    Some(egress) if self.apart(port.id, egress.id) => {
                        Fate::Dead(DropReason::Isolated)
                    }
                    Some(egress) if self.is_for_host(view, port, &egress) => self.to_host(port),
                    _ => self.onwards(hop, &measures, port),
                }
            }
            Err(reason) => Fate::Dead(reason),
        }
    }

    /// The longest prefix that holds `address`.
    pub(super) fn longest(&self, address: IpAddr) -> Option<NextHop> {
        let routes = self.spec.routes.iter();
        let fitting = routes.filter(|(prefix, _)| prefix.contains(&address));
        fitting
            .max_by_key(|(prefix, _)| prefix.prefix_len())
            .map(|(_, hop)| *hop)
    }

    /// The last address of the pods' own subnet, the longest one that holds the gateway.
    fn broadcast(&self) -> Option<Ipv4Addr> {
        let Crossing::Routed { gateway, .. } = self.spec.crossing else {
            return None;
        };
        let gateway = gateway.v4?;
        let mut longest: Option<ipnet::Ipv4Net> = None;
        for (prefix, hop) in &self.spec.routes {
            if let (IpNet::V4(net), NextHop::Unreachable) = (prefix, hop)
                && net.contains(&gateway)
                && longest.is_none_or(|other| net.prefix_len() > other.prefix_len())
            {
                longest = Some(*net);
            }
        }
        longest
            .filter(|net| net.prefix_len() <= 30)
            .map(|net| net.broadcast())
    }

    fn route_v4(
        &self,
        ip: &Ipv4View,
        packet: &[u8],
        offload: Offload,
    ) -> Result<(NextHop, Measures), DropReason> {
        let on_no_wire = |address: Ipv4Addr| {
            let [first, ..] = address.octets();
            first == 0 || first == 127 || first >= 224
        };
        if on_no_wire(ip.source) || self.broadcast() == Some(ip.source) {
            return Err(DropReason::MartianSource);
        }
        let hop = self.longest(ip.target.into());
        let link_local = ip.target.is_link_local() || ip.source.is_link_local();
        if on_no_wire(ip.target) || link_local && hop != Some(NextHop::Host) {
            return Err(DropReason::NotRoutable);
        }
        if self.broadcast() == Some(ip.target) {
            return Err(DropReason::DirectedBroadcast);
        }
        if self.reads_options(hop) && ip.header_len > 20 {
            options::check_v4(&packet[..usize::from(ip.header_len)]).map_err(|f| f.reason)?;
        }
        let headers = usize::from(ip.header_len) + transport_len(ip.transport);
        let measures = Measures {
            hops: ip.ttl,
            bytes: measured(offload, headers, usize::from(ip.total_len)),
            mtu_min: 0,
            may_be_cut: !ip.dont_fragment,
        };
        Ok((hop.ok_or(DropReason::NoRoute)?, measures))
    }

    /// The switch is the router of such a packet: the kernel is not, and no mere bridge.
    fn reads_options(&self, hop: Option<NextHop>) -> bool {
        self.is_a_router() && hop != Some(NextHop::Host)
    }

    fn route_v6(
        &self,
        ip: &Ipv6View,
        packet: &[u8],
        offload: Offload,
        port: &PortSpec,
    ) -> Result<(NextHop, Measures), DropReason> {
        let on_no_wire = |address: std::net::Ipv6Addr| {
            let mapped = address.to_ipv4_mapped().is_some();
            address.is_multicast() || address.is_loopback() || address.is_unspecified() || mapped
        };
        if on_no_wire(ip.source) {
            return Err(DropReason::MartianSource);
        }
        let hop = self.longest(ip.target.into());
        let for_host = hop == Some(NextHop::Host) && port.role != PortRole::Uplink;
        if on_no_wire(ip.target) || ip.target.is_unicast_link_local() && !for_host {
            return Err(DropReason::NotRoutable);
        }
        if self.reads_options(hop) {
            if ip.next_header == 0 {
                options::check_hop_by_hop(packet).map_err(|fault| fault.reason)?;
            }
            if ip.source_routed {
                return Err(DropReason::SourceRouted);
            }
            if ip.source.is_unicast_link_local() {
                return Err(DropReason::BeyondScope);
            }
        }
        let headers = usize::from(ip.header_len) + transport_len(ip.transport);
        let measures = Measures {
            hops: ip.hop_limit,
            bytes: measured(offload, headers, 40 + usize::from(ip.payload_len)),
            mtu_min: 1280,
            may_be_cut: false,
        };
        Ok((hop.ok_or(DropReason::NoRoute)?, measures))
    }

    fn onwards(&self, hop: NextHop, measures: &Measures, port: &PortSpec) -> Fate {
        match hop {
            NextHop::Unreachable if self.is_a_router() && measures.hops <= 1 => {
                Fate::Dead(DropReason::TtlExpired)
            }
            NextHop::Unreachable => Fate::Dead(DropReason::NoSuchPod),
            NextHop::Blackhole => Fate::Dead(DropReason::Blackhole),
            NextHop::Host => self.to_host(port),
            NextHop::Station { port: egress, mac } => match self.row(egress) {
                Some(egress) => self.across(measures, port, &egress, Some(mac)),
                None => Fate::Dead(DropReason::NoEgress),
            },
            NextHop::Neighbour(address) => {
                let Some(uplink) = self.role(PortRole::Uplink) else {
                    return Fate::Dead(DropReason::NoEgress);
                };
                let mac = self.neighbours.find(address);
                match self.across(measures, port, &uplink, mac) {
                    Fate::To(..) | Fate::InPieces(..) if mac.is_none() => {
                        Fate::Wait(address, uplink.id)
                    }
                    fate => fate,
                }
            }
            NextHop::Group(_) => unreachable!("the oracle is given no groups"),
        }
    }

    fn to_host(&self, port: &PortSpec) -> Fate {
        match self.role(PortRole::Host) {
            None => Fate::Dead(DropReason::NoEgress),
            Some(host) if host.id == port.id => Fate::Dead(DropReason::SamePort),
            Some(host) => Fate::To(
                host.id,
                Edits {
                    target: Some(host.mac.mac()),
                    ..Edits::default()
                },
            ),
        }
    }

    fn across(
        &self,
        measures: &Measures,
        port: &PortSpec,
        egress: &PortSpec,
        mac: Option<Mac>,
    ) -> Fate {
        let out = egress.role == PortRole::Uplink;
        if egress.id == port.id && !egress.hairpin {
            return Fate::Dead(if out {
                DropReason::UplinkReflected
            } else {
                DropReason::SamePort
            });
        }
        if !self.is_a_router() {
            let source = out.then_some(egress.mac.mac());
            return Fate::To(
                egress.id,
                Edits {
                    target: mac,
                    source,
                    hop: false,
                },
            );
        }
        if measures.hops <= 1 {
            return Fate::Dead(DropReason::TtlExpired);
        }
        let own = if out { None } else { self.role(PortRole::Host) };
        let source = Some(own.unwrap_or(*egress).mac.mac());
        let edits = Edits {
            target: mac,
            source,
            hop: true,
        };
        if measures.bytes <= usize::from(egress.mtu.max(measures.mtu_min)) {
            Fate::To(egress.id, edits)
        } else if measures.may_be_cut {
            Fate::InPieces(egress.id, edits)
        } else {
            Fate::Dead(DropReason::TooBig)
        }
    }
}

/// To everybody, but for what IEEE 802.1D table 7-10 keeps to one link.
fn group(target: Mac) -> Fate {
    let octets = target.octets();
    if octets[..5] == [1, 0x80, 0xc2, 0, 0] && octets[5] < 16 {
        Fate::Dead(DropReason::ReservedGroup)
    } else {
        Fate::ToAll
    }
}

fn transport_len(transport: Transport) -> usize {
    match transport {
        Transport::Tcp { header_len, .. } => usize::from(header_len),
        Transport::Udp { .. } => 8,
        Transport::Icmp { .. } | Transport::Unknown => 0,
    }
}

/// The longest packet that will be on the wire: of a super-frame, one of its segments.
fn measured(offload: Offload, headers: usize, whole: usize) -> usize {
    if offload.is_super_frame() {
        whole.min(headers + usize::from(offload.gso_size))
    } else {
        whole
    }
}
