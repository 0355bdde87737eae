//! Frames that a switch makes itself, written byte by byte as the RFCs draw them.
//!
//! In: who says what to whom. Out: the bytes of an Ethernet frame.
//! Never: a packet builder: the real switch uses one, and both would inherit its faults.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::addr::Mac;

/// ARP's operation code of a question (RFC 826).
pub(super) const REQUEST: u8 = 1;
/// ARP's operation code of an answer.
pub(super) const REPLY: u8 = 2;

const TTL: u8 = 64;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The Internet checksum (RFC 1071): the complement of the sum of all 16-bit words.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u64::from(pair[0]) << 8 | u64::from(low);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn ethernet(target: Mac, source: Mac, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(target.octets());
    frame.extend(source.octets());
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An ARP packet of `sender` to the station `to`.
pub(super) fn arp(
    operation: u8,
    sender: (Mac, Ipv4Addr),
    target: (Mac, Ipv4Addr),
    to: Mac,
) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    for (mac, ip) in [sender, target] {
        packet.extend(mac.octets());
        packet.extend(ip.octets());
    }
    ethernet(to, sender.0, 0x0806, &packet)
}

/// The group that hears questions for `address` (RFC 4291 2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let mut octets = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    octets[13..].copy_from_slice(&address.octets()[13..]);
    octets.into()
}

fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac::new([0x33, 0x33, a, b, c, d])
}

fn ipv6(source: Ipv6Addr, target: Ipv6Addr, hops: u8, mut message: Vec<u8>) -> Vec<u8> {
    let len = message.len() as u16;
    let mut covered = source.octets().to_vec();
    covered.extend(target.octets());
    covered.extend(u32::from(len).to_be_bytes());
    covered.extend([0, 0, 0, ICMPV6]);
    covered.extend(&message);
    message[2..4].copy_from_slice(&checksum(&covered).to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([ICMPV6, hops]);
    packet.extend(source.octets());
    packet.extend(target.octets());
    packet.extend(message);
    packet
}

/// Asks for the hardware address of `target` (RFC 826, RFC 4861 4.3), at the one it last had. None
/// where the asker has no address of that family.
pub(super) fn question(
    asker: (Mac, Option<Ipv4Addr>, Option<Ipv6Addr>),
    target: IpAddr,
    last: Option<Mac>,
) -> Option<Vec<u8>> {
    let (mac, v4, v6) = asker;
    match target {
        IpAddr::V4(target) => {
            let to = last.unwrap_or(Mac::BROADCAST);
            Some(arp(REQUEST, (mac, v4?), (Mac::ZERO, target), to))
        }
        IpAddr::V6(target) => {
            let group = solicited_node(target);
            let (station, to) = match last {
                Some(mac) => (mac, target),
                None => (group_mac(group), group),
            };
            let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
            message.extend(target.octets());
            message.extend([1, 1]);
            message.extend(mac.octets());
            let packet = ipv6(v6?, to, 255, message);
            Some(ethernet(station, mac, 0x86dd, &packet))
        }
    }
}

/// An advertisement of `mac` for `address` (RFC 4861 4.4).
fn advertisement(
    station: Mac,
    to: Ipv6Addr,
    (address, mac): (Ipv6Addr, Mac),
    (router, solicited): (bool, bool),
) -> Vec<u8> {
    let flags = u8::from(router) << 7 | u8::from(solicited) << 6 | 1 << 5;
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    message.extend(address.octets());
    message.extend([2, 1]);
    message.extend(mac.octets());
    ethernet(station, mac, 0x86dd, &ipv6(address, to, 255, message))
}

/// Answers a solicitation that came from the station `asker`, whose address is `source`.
pub(super) fn solicited_advertisement(
    asker: Mac,
    source: Ipv6Addr,
    holder: (Ipv6Addr, Mac),
    router: bool,
) -> Vec<u8> {
    if source.is_unspecified() {
        advertisement(asker, ALL_NODES, holder, (router, false))
    } else {
        advertisement(asker, source, holder, (router, true))
    }
}

/// Says unasked that `mac` holds `address`: to all, or to the station `only`.
pub(super) fn announcement(only: Option<Mac>, address: IpAddr, mac: Mac, router: bool) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => {
            let to = only.unwrap_or(Mac::BROADCAST);
            arp(REQUEST, (mac, address), (Mac::ZERO, address), to)
        }
        IpAddr::V6(address) => {
            let station = only.unwrap_or(group_mac(ALL_NODES));
            advertisement(station, ALL_NODES, (address, mac), (router, false))
        }
    }
}

/// Type, code and the word behind the checksum of an ICMP error.
pub(super) type Error = (u8, u8, u32);

/// An ICMP error (RFC 792) about the packet at the start of `about`.
pub(super) fn icmp(
    error: Error,
    stations: (Mac, Mac),
    addresses: (Ipv4Addr, Ipv4Addr),
    identification: u16,
    about: &[u8],
) -> Vec<u8> {
    let (speaker, sender) = stations;
    let whole = usize::from(u16::from_be_bytes([about[2], about[3]]));
    let quote = &about[..about.len().min(whole).min(576 - 28)];
    let mut message = vec![error.0, error.1, 0, 0];
    message.extend(error.2.to_be_bytes());
    message.extend(quote);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    // Internetwork control, and of the cause's type of service all but its precedence.
    let tos = about[1] & 0x1e | 0xc0;
    let mut packet = vec![0x45, tos];
    packet.extend((20 + message.len() as u16).to_be_bytes());
    packet.extend(identification.to_be_bytes());
    packet.extend([0, 0, TTL, ICMP, 0, 0]);
    packet.extend(addresses.0.octets());
    packet.extend(addresses.1.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(message);
    ethernet(sender, speaker, 0x0800, &packet)
}

/// An ICMPv6 error (RFC 4443) about the packet at the start of `about`.
pub(super) fn icmpv6(
    error: Error,
    stations: (Mac, Mac),
    addresses: (Ipv6Addr, Ipv6Addr),
    about: &[u8],
) -> Vec<u8> {
    let (speaker, sender) = stations;
    let whole = 40 + usize::from(u16::from_be_bytes([about[4], about[5]]));
    let quote = &about[..about.len().min(whole).min(1280 - 48)];
    let mut message = vec![error.0, error.1, 0, 0];
    message.extend(error.2.to_be_bytes());
    message.extend(quote);
    let packet = ipv6(addresses.0, addresses.1, TTL, message);
    ethernet(sender, speaker, 0x86dd, &packet)
}
