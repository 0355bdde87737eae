//! Packets with every field at will, sound or not.
//!
//! In: fields. Out: bytes. Never: corrects what a case wants wrong.

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::frame::checksum::checksum;

use crate::topology::{FAR, NEAR, Side};

/// Who sends to whom.
#[derive(Clone, Copy)]
pub(crate) struct Pod {
    pub(crate) from: Side,
    pub(crate) to: Side,
}

/// An IPv4 packet.
#[derive(Clone)]
pub(crate) struct V4 {
    pub(crate) tos: u8,
    pub(crate) id: u16,
    /// Flags and fragment offset, as in the header.
    pub(crate) fragment: u16,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) source: Ipv4Addr,
    pub(crate) target: Ipv4Addr,
    /// A multiple of four bytes.
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    /// What else is to be done to the header before its checksum is put in.
    pub(crate) spoil: fn(&mut [u8]),
    /// The checksum is to be wrong.
    pub(crate) bad_sum: bool,
}

/// The DF bit in [`V4::fragment`].
pub(crate) const DONT_FRAGMENT: u16 = 0x4000;
/// The MF bit in [`V4::fragment`].
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;

impl V4 {
    pub(crate) fn between(pod: Pod, protocol: u8, payload: Vec<u8>) -> V4 {
        V4 {
            tos: 0,
            id: 0x1234,
            fragment: 0,
            ttl: 64,
            protocol,
            source: pod.from.host.v4,
            target: pod.to.host.v4,
            options: Vec::new(),
            payload,
            spoil: |_| {},
            bad_sum: false,
        }
    }

    /// A UDP datagram from host a to host c.
    pub(crate) fn datagram(len: usize) -> V4 {
        let pod = Pod {
            from: NEAR,
            to: FAR,
        };
        V4::between(pod, 17, udp(4000, 4001, &content(len)))
    }

    /// An ICMP message of that type and code from host a to host c.
    pub(crate) fn icmp(kind: u8, code: u8, rest: &[u8]) -> V4 {
        let mut message = vec![kind, code, 0, 0];
        message.extend_from_slice(rest);
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        V4 {
            protocol: 1,
            payload: message,
            ..V4::datagram(0)
        }
    }
}

/// A packet of either family.
pub(crate) trait Packet {
    /// From its header on.
    fn bytes(&self) -> Vec<u8>;

    /// Sent by another of host a's addresses, if it was sent by the first: each case has a limit
    /// of errors for itself.
    fn by_alias(self, number: u8) -> Self;

    /// On host a's link, to router 1.
    fn frame(&self) -> Vec<u8> {
        ethernet(NEAR, &self.bytes())
    }
}

impl Packet for V4 {
    fn bytes(&self) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let total = u16::try_from(header_len + self.payload.len()).expect("it fits a packet");
        let mut bytes = vec![0x40 | (header_len / 4) as u8, self.tos];
        bytes.extend(total.to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([self.ttl, self.protocol, 0, 0]);
        bytes.extend(self.source.octets());
        bytes.extend(self.target.octets());
        bytes.extend(&self.options);
        (self.spoil)(&mut bytes);
        let sum = checksum(&bytes) ^ u16::from(self.bad_sum);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    fn by_alias(mut self, number: u8) -> V4 {
        if self.source == NEAR.host.v4 {
            let first = NEAR.aliases.0.network().to_bits();
            self.source = Ipv4Addr::from_bits(first + u32::from(number));
        }
        self
    }
}

/// An IPv6 packet.
#[derive(Clone)]
pub(crate) struct V6 {
    /// Version, traffic class and flow label, as in the header.
    pub(crate) first: u32,
    pub(crate) next: u8,
    pub(crate) hops: u8,
    pub(crate) source: Ipv6Addr,
    pub(crate) target: Ipv6Addr,
    /// Extension headers.
    pub(crate) extensions: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    /// What the payload length says beyond the truth.
    pub(crate) longer: i16,
}

impl V6 {
    /// A UDP datagram from host a to host c. Its checksum is nobody's business on the way.
    pub(crate) fn datagram(len: usize) -> V6 {
        V6 {
            first: 6 << 28,
            next: 17,
            hops: 64,
            source: NEAR.host.v6,
            target: FAR.host.v6,
            extensions: Vec::new(),
            payload: udp(4000, 4001, &content(len)),
            longer: 0,
        }
    }

    /// An ICMPv6 message of that type.
    pub(crate) fn icmp(kind: u8) -> V6 {
        let mut payload = vec![0; 40];
        payload[0] = kind;
        V6 {
            next: 58,
            payload,
            ..V6::datagram(0)
        }
    }

    /// With extension headers, the first of which is of kind `next`.
    pub(crate) fn extended(next: u8, extensions: &[u8]) -> V6 {
        V6 {
            next,
            extensions: extensions.to_vec(),
            ..V6::datagram(40)
        }
    }
}

impl Packet for V6 {
    fn bytes(&self) -> Vec<u8> {
        let len = self.extensions.len() + self.payload.len();
        let len = u16::try_from(len).expect("it fits a packet");
        let mut bytes = self.first.to_be_bytes().to_vec();
        bytes.extend(len.wrapping_add_signed(self.longer).to_be_bytes());
        bytes.extend([self.next, self.hops]);
        bytes.extend(self.source.octets());
        bytes.extend(self.target.octets());
        bytes.extend(&self.extensions);
        bytes.extend(&self.payload);
        bytes
    }

    fn by_alias(mut self, number: u8) -> V6 {
        if self.source == NEAR.host.v6 {
            let first = NEAR.aliases.1.network().to_bits();
            self.source = Ipv6Addr::from_bits(first + u128::from(number));
        }
        self
    }
}

/// Bytes that tell their place.
pub(crate) fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 256) as u8).collect()
}

/// A UDP datagram without a checksum, which IPv4 allows.
pub(crate) fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).expect("it fits a packet");
    let words = [from, to, len, 0];
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u16::to_be_bytes).collect();
    bytes.extend_from_slice(payload);
    bytes
}

/// `packet` in a frame from the host of `side` to its router. What is not IPv4 is called IPv6.
pub(crate) fn ethernet(side: Side, packet: &[u8]) -> Vec<u8> {
    let kind = match packet[0] >> 4 {
        4 | 5 => [0x08, 0x00],
        _ => [0x86, 0xdd],
    };
    let mut frame = side.gateway_mac.octets().to_vec();
    frame.extend(side.host_mac.octets());
    frame.extend(kind);
    frame.extend(packet);
    frame
}
