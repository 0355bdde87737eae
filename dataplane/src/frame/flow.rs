//! Which flow a packet belongs to, as one word: what keeps to one path where there are several.
//!
//! In: a view of an IP header. Out: a [`Flow`].
//! Never: differs among the packets of one flow, the fragments of one datagram, or a super-frame
//! and its segments.
//!
//! Where the ports are known and the packet is whole, a flow is addresses, protocol and ports. A
//! fragment past the first has no ports, so all fragments go without them. Without ports IPv6 has
//! the flow label, which the sender may set to tell its flows apart (RFC 6438 section 3), and
//! which every fragment repeats (RFC 8200 4.5). With ports the label is left out: Linux draws
//! another one after a timeout, and the flow would change its path.

use super::ipv4::{self, Ipv4View};
use super::ipv6::{self, Ipv6View};
use super::transport::{TCP, Transport, UDP};
use super::{FrameView, Kind};

/// A flow, hashed. No stranger gains by finding two that are alike: they share a path, as many do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow(u64);

impl Flow {
    /// The flow of an IPv4 packet.
    #[inline]
    #[must_use]
    pub fn of_v4(ip: &Ipv4View) -> Flow {
        let whole = ip.fragment_offset == 0 && !ip.more_fragments;
        let ports = if whole { ports(ip.transport) } else { 0 };
        let addresses = u64::from(ip.source.to_bits()) << 32 | u64::from(ip.target.to_bits());
        Flow(mixed(addresses, u64::from(ip.protocol) << 32 | ports))
    }

    /// The flow of an IPv6 packet.
    #[inline]
    #[must_use]
    pub fn of_v6(ip: &Ipv6View) -> Flow {
        let (source, target) = (ip.source.to_bits(), ip.target.to_bits());
        let last = match ports(ip.transport) {
            0 => u64::from(ip.flow_label) | 1 << 63,
            ports => ports,
        };
        let words = [
            (source >> 64) as u64,
            source as u64,
            (target >> 64) as u64,
            target as u64,
            u64::from(ip.next_header) << 32 ^ last,
        ];
        Flow(words.into_iter().fold(0, mixed))
    }

    /// The flow of a plain packet, stirred by `seed`: TCP or UDP, whole, and without options or
    /// extension headers. Its header is not checked, so it may be that of no sound packet; two
    /// sound ones that have the same addresses and ports have the same flow.
    #[inline]
    #[must_use]
    pub(crate) fn of_plain(view: &FrameView<'_>, seed: u64) -> Option<Flow> {
        const V4: usize = ipv4::HEADER_LEN_MIN;
        const V6: usize = ipv6::HEADER_LEN;
        let packet = view.payload();
        match view.kind {
            Kind::Ipv4 => {
                let head = packet.first_chunk::<{ V4 + 4 }>()?;
                // Version and length of the header; more fragments, or the offset of this one.
                let whole = head[0] == 0x45 && (head[6] & 0x3f) | head[7] == 0;
                let long = usize::from(u16::from_be_bytes([head[2], head[3]])) >= V4 + 4;
                let ports = transport(head[9], &head[V4..])?;
                (whole && long).then(|| Flow(mixed(word(&head[12..]) ^ seed, ports)))
            }
            Kind::Ipv6 => {
                let head = packet.first_chunk::<{ V6 + 4 }>()?;
                let long = u16::from_be_bytes([head[4], head[5]]) >= 4;
                let ports = transport(head[6], &head[V6..])?;
                let addresses = [8, 16, 24, 32].map(|at| word(&head[at..]));
                let flow = || addresses.into_iter().fold(seed ^ ports, mixed);
                (head[0] >> 4 == 6 && long).then(|| Flow(flow()))
            }
            Kind::Arp | Kind::Tagged | Kind::Other => None,
        }
    }

    /// The number that it is.
    #[inline]
    #[must_use]
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// A flow made of nothing but a number, for tests and measurements.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Flow {
        Flow(bits)
    }

    /// How much this flow is drawn to whatever has this `seed`.
    #[inline]
    #[must_use]
    pub(crate) fn weight(self, seed: u64) -> u64 {
        mixed(self.0 ^ seed, seed)
    }
}

/// Of TCP and UDP the protocol and both ports, which stand at the start of `header`.
#[inline(always)]
fn transport(protocol: u8, header: &[u8]) -> Option<u64> {
    let ports = u64::from(u32::from_be_bytes(*header.first_chunk()?));
    matches!(protocol, TCP | UDP).then_some(u64::from(protocol) << 32 | ports)
}

/// The first eight bytes.
#[inline(always)]
fn word(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk()
        .map_or(0, |word| u64::from_be_bytes(*word))
}

/// Both ports, or 0 where there are none.
#[inline]
fn ports(transport: Transport) -> u64 {
    let (source, target) = transport.ports().unwrap_or((0, 0));
    u64::from(source) << 16 | u64::from(target)
}

/// Two words to one, in which every bit of both counts: the wide product folded, as wyhash does.
#[inline]
#[must_use]
pub(crate) fn mixed(a: u64, b: u64) -> u64 {
    // Two odd numbers of random bits; a product with nought would forget the other side.
    let a = a ^ 0xa076_1d64_78bd_642f;
    let b = b ^ 0xe703_7ed1_a0b4_28db;
    let product = u128::from(a) * u128::from(b);
    let folded = (product >> 64) as u64 ^ product as u64;
    // Once more, since the words differ in few bits and the shares are read off the high ones.
    let again = u128::from(folded ^ 0x8ebc_6af0_9c88_c6e3) * 0x5899_65cc_7537_4cc3;
    (again >> 64) as u64 ^ again as u64
}
