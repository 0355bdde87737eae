//! What the fabric does with one frame that a VM sent.
//!
//! In: the [`Vnet`], the sending NIC, the frame's bytes.
//! Out: a [`Verdict`]: deliver it, answer it, or let it die for a named reason.
//! Never: does I/O, keeps state, or panics, whatever the bytes are.
//!
//! The rules are those that Azure's documentation and its own network plugin name: the source MAC
//! and source address are checked, ARP is answered by one virtual MAC whoever owns the address,
//! nothing is broadcast, and a packet goes where the effective routes of the sender's subnet say.
//! The TTL is never touched: a VNet is no hop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::addr::Mac;
use etherparse::checksum::Sum16BitWords;
use etherparse::{
    ArpEthIpv4Packet, ArpHardwareId, ArpOperation, ArpPacketSlice, EtherType, Ipv4Slice, Ipv6Slice,
    PacketBuilder, ip_number,
};

use super::reasons::FabricDrop;
use super::spec::NextHop;
use super::vnet::{Nic, NicId, VIRTUAL_MAC, Vnet};

/// Bytes of an Ethernet header without a tag.
pub const ETHERNET_LEN: usize = 14;

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it to this NIC, addressed to `target` and from [`VIRTUAL_MAC`].
    Deliver {
        /// The NIC that gets it. It may be the sender's own: a route can lead back.
        to: NicId,
        /// That NIC's MAC.
        target: Mac,
    },
    /// Hand this whole frame back to the sender: an ARP reply or a neighbour advertisement.
    Answer(Vec<u8>),
    /// Let it die.
    Drop(FabricDrop),
}

impl From<FabricDrop> for Verdict {
    fn from(reason: FabricDrop) -> Verdict {
        Verdict::Drop(reason)
    }
}

/// Decides about one frame that NIC `from` sent.
#[must_use]
pub fn decide(vnet: &Vnet, from: NicId, frame: &[u8]) -> Verdict {
    let Some(nic) = vnet.nic(from) else {
        return FabricDrop::SenderGone.into();
    };
    judge(vnet, nic, frame).unwrap_or_else(Verdict::Drop)
}

/// Writes the addresses of a delivered frame: to the target's NIC, from the fabric.
pub fn rewrite(frame: &mut [u8], target: Mac) {
    if let Some(addresses) = frame.first_chunk_mut::<12>() {
        addresses[..6].copy_from_slice(&target.octets());
        addresses[6..].copy_from_slice(&VIRTUAL_MAC.octets());
    }
}

type Judged = Result<Verdict, FabricDrop>;

fn judge(vnet: &Vnet, nic: &Nic, frame: &[u8]) -> Judged {
    let (header, packet) = frame
        .split_first_chunk::<ETHERNET_LEN>()
        .ok_or(FabricDrop::TooShort)?;
    let [t0, t1, t2, t3, t4, t5, source @ .., e0, e1] = *header;
    let ethertype = EtherType(u16::from_be_bytes([e0, e1]));
    if Mac::new(source) != nic.spec().mac {
        return Err(FabricDrop::SourceMacSpoofed);
    }
    if ethertype_is_tag(ethertype) {
        return Err(FabricDrop::VlanTagged);
    }
    if packet.len() > usize::from(nic.spec().mtu) {
        return Err(FabricDrop::TooLong);
    }
    let to_group = Mac::new([t0, t1, t2, t3, t4, t5]).is_group();
    match ethertype {
        EtherType::ARP => answer_arp(vnet, nic, packet),
        EtherType::IPV4 => judge_ipv4(vnet, nic, packet, to_group),
        EtherType::IPV6 => judge_ipv6(vnet, nic, packet, to_group),
        _ => Err(FabricDrop::UnknownEthertype),
    }
}

fn ethertype_is_tag(ethertype: EtherType) -> bool {
    matches!(
        ethertype,
        EtherType::VLAN_TAGGED_FRAME
            | EtherType::PROVIDER_BRIDGING
            | EtherType::VLAN_DOUBLE_TAGGED_FRAME
    )
}

/// Every address of the VNet has the same MAC, except the asker's own primary one, which has no
/// answer. The target's owner is not asked, and need not exist: the gateway does not.
fn answer_arp(vnet: &Vnet, nic: &Nic, packet: &[u8]) -> Judged {
    let arp = read_arp(packet).ok_or(FabricDrop::ArpMalformed)?;
    if Mac::new(arp.sender_mac) != nic.spec().mac {
        return Err(FabricDrop::LinkAddressSpoofed);
    }
    if arp.operation != ArpOperation::REQUEST {
        return Err(FabricDrop::ArpUnsolicited);
    }
    let asked = IpAddr::V4(arp.target_ipv4_addr());
    if nic.is_primary(asked) {
        return Err(FabricDrop::ArpOwnAddress);
    }
    if !vnet.contains(asked) {
        return Err(FabricDrop::ArpOutsideVnet);
    }
    let reply = ArpEthIpv4Packet {
        operation: ArpOperation::REPLY,
        sender_mac: VIRTUAL_MAC.octets(),
        sender_ipv4: arp.target_ipv4,
        target_mac: arp.sender_mac,
        target_ipv4: arp.sender_ipv4,
    };
    let mut frame = Vec::with_capacity(ETHERNET_LEN + ArpEthIpv4Packet::LEN);
    frame.extend_from_slice(&arp.sender_mac);
    frame.extend_from_slice(&VIRTUAL_MAC.octets());
    frame.extend_from_slice(&EtherType::ARP.0.to_be_bytes());
    frame.extend_from_slice(&reply.to_bytes());
    Ok(Verdict::Answer(frame))
}

fn read_arp(packet: &[u8]) -> Option<ArpEthIpv4Packet> {
    let slice = ArpPacketSlice::from_slice(packet).ok()?;
    if slice.hw_addr_type() != ArpHardwareId::ETHERNET || slice.proto_addr_type() != EtherType::IPV4
    {
        return None;
    }
    Some(ArpEthIpv4Packet {
        operation: slice.operation(),
        sender_mac: slice.sender_hw_addr().try_into().ok()?,
        sender_ipv4: slice.sender_protocol_addr().try_into().ok()?,
        target_mac: slice.target_hw_addr().try_into().ok()?,
        target_ipv4: slice.target_protocol_addr().try_into().ok()?,
    })
}

fn judge_ipv4(vnet: &Vnet, nic: &Nic, packet: &[u8], to_group: bool) -> Judged {
    let slice = Ipv4Slice::from_slice(packet).map_err(|_| FabricDrop::Ipv4Malformed)?;
    let header = slice.header();
    if Sum16BitWords::new()
        .add_slice(header.slice())
        .ones_complement()
        != 0
    {
        return Err(FabricDrop::Ipv4BadChecksum);
    }
    let target = header.destination_addr();
    let first_fragment = header.fragments_offset().value() == 0;
    let ports = udp_ports(header.protocol(), first_fragment, slice.payload().payload);
    // Before the source is checked: a client without an address sends from 0.0.0.0.
    if ports == Some((DHCP_CLIENT, DHCP_SERVER)) && target.is_broadcast() {
        return Err(FabricDrop::DhcpUnserved);
    }
    if to_group || target.is_multicast() || target.is_broadcast() {
        return Err(FabricDrop::GroupTarget);
    }
    refuse_tunnels(header.protocol())?;
    if ports.is_some_and(|(source, _)| source == UDP_PORT_RESERVED) {
        return Err(FabricDrop::UdpPortReserved);
    }
    check_source(vnet, nic, header.source_addr().into())?;
    if target == WIRE_SERVER || target == METADATA_SERVICE {
        return Err(FabricDrop::PlatformAddress);
    }
    if target.is_link_local() {
        return Err(FabricDrop::LinkLocal);
    }
    route(vnet, nic, target.into())
}

fn judge_ipv6(vnet: &Vnet, nic: &Nic, packet: &[u8], to_group: bool) -> Judged {
    let slice = Ipv6Slice::from_slice(packet).map_err(|_| FabricDrop::Ipv6Malformed)?;
    if !vnet.has_ipv6() {
        return Err(FabricDrop::Ipv6Absent);
    }
    let (payload, protocol) = (slice.payload().payload, slice.payload().ip_number);
    let first_fragment = !slice.is_payload_fragmented();
    if first_fragment && protocol == ip_number::IPV6_ICMP && payload.first() == Some(&ND_SOLICIT) {
        return answer_solicitation(vnet, nic, &slice);
    }
    let target = slice.header().destination_addr();
    if to_group || target.is_multicast() {
        return Err(FabricDrop::GroupTarget);
    }
    refuse_tunnels(protocol)?;
    let ports = udp_ports(protocol, first_fragment, payload);
    if ports.is_some_and(|(source, _)| source == UDP_PORT_RESERVED) {
        return Err(FabricDrop::UdpPortReserved);
    }
    check_source(vnet, nic, slice.header().source_addr().into())?;
    if target.is_unicast_link_local() {
        return Err(FabricDrop::LinkLocal);
    }
    route(vnet, nic, target.into())
}

const DHCP_CLIENT: u16 = 68;
const DHCP_SERVER: u16 = 67;
const UDP_PORT_RESERVED: u16 = 65330;
/// DNS, health probes and agents: Azure serves them from the host.
const WIRE_SERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
const METADATA_SERVICE: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

fn udp_ports(
    protocol: etherparse::IpNumber,
    first_fragment: bool,
    payload: &[u8],
) -> Option<(u16, u16)> {
    let &[s0, s1, d0, d1] = payload.first_chunk::<4>()?;
    let ports = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    (first_fragment && protocol == ip_number::UDP).then_some(ports)
}

fn refuse_tunnels(protocol: etherparse::IpNumber) -> Result<(), FabricDrop> {
    match protocol {
        ip_number::GRE => Err(FabricDrop::Gre),
        ip_number::IPV4 | ip_number::IPV6 => Err(FabricDrop::IpInIp),
        _ => Ok(()),
    }
}

fn check_source(vnet: &Vnet, nic: &Nic, source: IpAddr) -> Result<(), FabricDrop> {
    let own = vnet
        .owner(source)
        .is_some_and(|owner| owner.id() == nic.id());
    if own || nic.spec().forwarding {
        Ok(())
    } else {
        Err(FabricDrop::SourceIpSpoofed)
    }
}

/// Follows the effective routes of the sender's subnet.
fn route(vnet: &Vnet, nic: &Nic, target: IpAddr) -> Judged {
    let Some(route) = vnet.routes(nic).find(target) else {
        return Err(FabricDrop::Internet);
    };
    let user = route.source.is_user_defined();
    match route.next_hop {
        NextHop::VnetLocal if vnet.is_gateway(target) => Err(FabricDrop::GatewaySilent),
        NextHop::VnetLocal => vnet
            .owner(target)
            .map(deliver)
            .ok_or(FabricDrop::AddressUnowned),
        NextHop::VirtualAppliance(hop) => {
            let hop = vnet.owner(hop).ok_or(FabricDrop::NextHopMissing)?;
            if !hop.spec().forwarding {
                return Err(FabricDrop::NextHopNotForwarding);
            }
            Ok(deliver(hop))
        }
        NextHop::None if user => Err(FabricDrop::UserRouteNone),
        NextHop::None => Err(FabricDrop::RouteNone),
        NextHop::Internet => Err(FabricDrop::Internet),
        NextHop::VirtualNetworkGateway => Err(FabricDrop::GatewayMissing),
        NextHop::VnetPeering | NextHop::ServiceEndpoint => Err(FabricDrop::BeyondVnet),
    }
}

fn deliver(to: &Nic) -> Verdict {
    Verdict::Deliver {
        to: to.id(),
        target: to.spec().mac,
    }
}

const ND_SOLICIT: u8 = 135;
const ND_ADVERTISE: u8 = 136;
const ND_SOURCE_LINK_ADDRESS: u8 = 1;
const ND_TARGET_LINK_ADDRESS: u8 = 2;
/// The flags "solicited" and "override" of an advertisement (RFC 4861, 4.4).
const ND_FLAGS: [u8; 4] = [0x60, 0, 0, 0];

/// The twin of [`answer_arp`] for IPv6 (RFC 4861, 7.1.1 names what makes a solicitation valid).
fn answer_solicitation(vnet: &Vnet, nic: &Nic, slice: &Ipv6Slice<'_>) -> Judged {
    let malformed = FabricDrop::NeighbourMalformed;
    let header = slice.header();
    let body = slice.payload().payload.get(8..).ok_or(malformed)?;
    let (asked, options) = body.split_first_chunk::<16>().ok_or(malformed)?;
    let asked = Ipv6Addr::from(*asked);
    if header.hop_limit() != 255 || asked.is_multicast() || asked.is_unspecified() {
        return Err(malformed);
    }
    if let [ND_SOURCE_LINK_ADDRESS, 1, mac @ ..] = options
        && mac.get(..6) != Some(&nic.spec().mac.octets())
    {
        return Err(FabricDrop::LinkAddressSpoofed);
    }
    let asker = header.source_addr();
    if asker.is_unspecified() || nic.is_primary(asked.into()) {
        return Err(FabricDrop::NeighbourOwnAddress);
    }
    if !vnet.contains(asked.into()) {
        return Err(FabricDrop::NeighbourOutsideVnet);
    }
    let mut payload = [0u8; 24];
    payload[..16].copy_from_slice(&asked.octets());
    payload[16..18].copy_from_slice(&[ND_TARGET_LINK_ADDRESS, 1]);
    payload[18..].copy_from_slice(&VIRTUAL_MAC.octets());
    let builder = PacketBuilder::ethernet2(VIRTUAL_MAC.octets(), nic.spec().mac.octets())
        .ipv6(asked.octets(), asker.octets(), 255)
        .icmpv6_raw(ND_ADVERTISE, 0, ND_FLAGS);
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder
        .write(&mut frame, &payload)
        .expect("a Vec takes every write, and 24 bytes fit a packet");
    Ok(Verdict::Answer(frame))
}

#[cfg(test)]
mod tests;
