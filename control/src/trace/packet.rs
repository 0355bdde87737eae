//! The frame that a kernel would send, and the questions it asks before.
//!
//! In: who sends, to whom, and what. Out: a whole Ethernet frame with its offload state.
//! Never: a frame that no kernel would hand to its device: what is too long is cut, or refused.
//!
//! As Linux does it: TCP always forbids fragments and leaves the cutting to the device
//! (`tcp_gso_segment`), everything else is fragmented by the sender's own kernel (`ip_fragment`),
//! and with DF set a packet above the MTU never leaves (EMSGSIZE).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::addr::Mac;
use dataplane::frame::checksum::{checksum, sum};
use dataplane::frame::offload::{GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM, Offload};
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, IpHeaders, Ipv4Header, Ipv6Header, PacketBuilder,
    PacketBuilderStep, ip_number,
};

use super::pass::Carried;

/// TTL and hop limit of what a kernel sends (`IPDEFTTL`).
const TTL: u8 = 64;
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const FRAGMENT_HEADER: usize = 8;
/// The longest IP packet of either family that a sender makes.
const PACKET_MAX: usize = 65_535;
/// A port of the range that Linux gives to clients.
const CLIENT_PORT: u16 = 40_000;

/// What the packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// An echo request.
    Icmp,
    /// To this port: a SYN, or data if there is room for it.
    Tcp(u16),
    /// To this port.
    Udp(u16),
}

/// Which packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What it carries.
    pub payload: Payload,
    /// Bytes of the IP packet; without it as long as `ping` and its like send.
    pub size: Option<usize>,
    /// Set the DF bit; TCP does always.
    pub dont_fragment: bool,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Its hardware address.
    pub mac: Mac,
    /// Its protocol address.
    pub address: IpAddr,
    /// Its MTU in bytes.
    pub mtu: usize,
}

/// A frame, and what the sender's kernel did to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The frame.
    pub frame: Carried,
    /// One sentence each.
    pub notes: Vec<String>,
}

/// Why no such frame is sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// IPv4 to IPv6 or back.
    #[error("{0} cannot be reached from {1}: one is IPv4, the other IPv6")]
    Families(IpAddr, IpAddr),
    /// Shorter than its headers, or longer than a packet can be.
    #[error("--size {0}: this packet has {1} bytes of headers and at most {PACKET_MAX} in all")]
    Size(usize, usize),
    /// With DF set above the MTU.
    #[error(
        "the sender's own kernel refuses {0} bytes with --df: its MTU is {1} (EMSGSIZE), so no \
         frame is sent"
    )]
    TooLong(usize, usize),
}

impl Wanted {
    fn transport_header(&self) -> usize {
        match self.payload {
            Payload::Icmp | Payload::Udp(_) => 8,
            Payload::Tcp(_) => 20,
        }
    }

    /// Payload in bytes where no size was asked for: what `ping`, a SYN and a DNS query have.
    fn usual(&self) -> usize {
        match self.payload {
            Payload::Icmp => 56,
            Payload::Tcp(_) => 0,
            Payload::Udp(_) => 32,
        }
    }
}

/// The frame that `sender` hands to its device for `target`, at the hardware address `to`.
///
/// # Errors
/// [`Refused`], with what is wrong.
pub fn build(sender: &Sender, to: Mac, target: IpAddr, wanted: &Wanted) -> Result<Built, Refused> {
    let step = PacketBuilder::ethernet2(sender.mac.octets(), to.octets());
    let is_tcp = matches!(wanted.payload, Payload::Tcp(_));
    let (step, network) = match (sender.address, target) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = Ipv4Header::new(0, TTL, ip_number::UDP, from.octets(), to.octets())
                .expect("the builder sets the length");
            header.dont_fragment = wanted.dont_fragment || is_tcp;
            (step.ip(IpHeaders::Ipv4(header, Default::default())), IPV4)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header {
                hop_limit: TTL,
                source: from.octets(),
                destination: to.octets(),
                ..Ipv6Header::default()
            };
            (step.ip(IpHeaders::Ipv6(header, Default::default())), IPV6)
        }
        (from, to) => return Err(Refused::Families(to, from)),
    };
    let headers = network + wanted.transport_header();
    let size = wanted.size.unwrap_or(headers + wanted.usual());
    if !(headers..=PACKET_MAX).contains(&size) {
        return Err(Refused::Size(size, headers));
    }
    let mut frame = Carried {
        bytes: write(step, network == IPV6, wanted.payload, size - headers),
        offload: Offload::NONE,
    };
    let mut notes = Vec::new();
    if size > sender.mtu && is_tcp {
        notes.push(leave_undone(&mut frame, network, sender.mtu));
    } else if size > sender.mtu && wanted.dont_fragment {
        return Err(Refused::TooLong(size, sender.mtu));
    } else if size > sender.mtu {
        notes.push(first_fragment(&mut frame.bytes, network, sender.mtu));
    }
    Ok(Built { frame, notes })
}

fn write(step: PacketBuilderStep<IpHeaders>, v6: bool, payload: Payload, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let content = vec![0x5a; len];
    let written = match payload {
        Payload::Icmp if v6 => step.icmpv6_echo_request(1, 1).write(&mut bytes, &content),
        Payload::Icmp => step.icmpv4_echo_request(1, 1).write(&mut bytes, &content),
        Payload::Udp(port) => step.udp(CLIENT_PORT, port).write(&mut bytes, &content),
        Payload::Tcp(port) if len == 0 => step
            .tcp(CLIENT_PORT, port, 1, 64_240)
            .syn()
            .write(&mut bytes, &content),
        Payload::Tcp(port) => step
            .tcp(CLIENT_PORT, port, 1, 64_240)
            .ack(1)
            .psh()
            .write(&mut bytes, &content),
    };
    written.expect("a vector takes every write, and the length was checked");
    bytes
}

/// Makes a TCP frame a super-frame, as a kernel hands it to a device that cuts by itself: the
/// checksum holds the sum of the pseudo-header only.
///
/// # Panics
/// If the frame is no TCP frame of that family without IP options.
pub(super) fn leave_undone(frame: &mut Carried, network: usize, mtu: usize) -> String {
    let start = ETHERNET + network;
    let headers = network + usize::from(frame.bytes[start + 12] >> 4) * 4;
    let addresses = start - if network == IPV4 { 8 } else { 32 };
    let length = u32::try_from(frame.bytes.len() - start).unwrap_or_default();
    let pseudo = sum(&frame.bytes[addresses..start], 6 + length);
    frame.bytes[start + 16..start + 18].copy_from_slice(&pseudo.to_be_bytes());
    let segment = mtu.saturating_sub(headers).max(1);
    frame.offload = Offload {
        flags: NEEDS_CSUM,
        gso_type: if network == IPV4 {
            GSO_TCPV4
        } else {
            GSO_TCPV6
        },
        hdr_len: (ETHERNET + headers) as u16,
        gso_size: segment as u16,
        csum_start: start as u16,
        csum_offset: 16,
    };
    let payload = frame.bytes.len() - ETHERNET - headers;
    format!(
        "longer than the MTU of {mtu}: a super-frame, which stands for {} segments of at most \
         {mtu} bytes",
        payload.div_ceil(segment)
    )
}

/// Leaves of a frame what its sender's kernel would send first.
fn first_fragment(bytes: &mut Vec<u8>, network: usize, mtu: usize) -> String {
    let behind = bytes.len() - ETHERNET - network;
    let extra = if network == IPV6 { FRAGMENT_HEADER } else { 0 };
    let piece = (mtu - network - extra) & !7;
    bytes.truncate(ETHERNET + network + piece);
    let ip = &mut bytes[ETHERNET..];
    if network == IPV4 {
        ip[2..4].copy_from_slice(&((network + piece) as u16).to_be_bytes());
        ip[6] |= 0x20; // MF
        ip[10..12].fill(0);
        let sum = checksum(&ip[..network]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        ip[4..6].copy_from_slice(&((FRAGMENT_HEADER + piece) as u16).to_be_bytes());
        let next = std::mem::replace(&mut ip[6], ip_number::IPV6_FRAGMENTATION_HEADER.0);
        let header = [next, 0, 0, 1, 0, 0, 0, 1]; // offset 0, more to come, identification 1
        bytes.splice(ETHERNET + IPV6..ETHERNET + IPV6, header);
    }
    format!(
        "longer than the MTU of {mtu}: the sender's kernel makes {} fragments of it, and this is \
         the first",
        behind.div_ceil(piece)
    )
}

/// Where a frame for a multicast or broadcast address goes, without a question.
#[must_use]
pub fn group_mac(target: IpAddr) -> Option<Mac> {
    match target {
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some(Mac::BROADCAST),
        IpAddr::V4(v4) if v4.is_multicast() => {
            let [_, b, c, d] = v4.octets(); // RFC 1112 6.4
            Some(Mac::new([0x01, 0x00, 0x5e, b & 0x7f, c, d]))
        }
        IpAddr::V6(v6) if v6.is_multicast() => {
            let [.., a, b, c, d] = v6.octets(); // RFC 2464 7
            Some(Mac::new([0x33, 0x33, a, b, c, d]))
        }
        _ => None,
    }
}

/// Asks who has `target`: by ARP, or by a neighbour solicitation.
#[must_use]
pub fn question(sender: &Sender, target: IpAddr) -> Option<Carried> {
    let bytes = match (sender.address, target) {
        (IpAddr::V4(from), IpAddr::V4(to)) => arp_question(sender.mac, from, to),
        (IpAddr::V6(from), IpAddr::V6(to)) => solicitation(sender.mac, from, to),
        _ => return None,
    };
    Some(Carried {
        bytes,
        offload: Offload::NONE,
    })
}

fn arp_question(mac: Mac, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let packet = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: mac.octets(),
        sender_ipv4: from.octets(),
        target_mac: [0; 6],
        target_ipv4: to.octets(),
    };
    let mut bytes = Mac::BROADCAST.octets().to_vec();
    bytes.extend(mac.octets());
    bytes.extend(EtherType::ARP.0.to_be_bytes());
    bytes.extend(packet.to_bytes());
    bytes
}

/// RFC 4861 4.3: to the target's solicited-node address, with the asker's hardware address.
fn solicitation(mac: Mac, from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = to.octets();
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c];
    let mut body = to.octets().to_vec();
    body.extend([1, 1]); // the option: source link-layer address, eight bytes
    body.extend(mac.octets());
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(mac.octets(), [0x33, 0x33, 0xff, a, b, c])
        .ipv6(from.octets(), group, 255)
        .icmpv6_raw(135, 0, [0; 4])
        .write(&mut bytes, &body)
        .expect("a vector takes every write");
    bytes
}
