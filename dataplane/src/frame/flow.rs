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

use super::ipv4::Ipv4View;
use super::ipv6::Ipv6View;
use super::transport::Transport;

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
