//! The IPv6 fixed header (RFC 8200).
//!
//! In: what follows the Ethernet header. Out: a view of a sound header, and edits in place.
//! Never: walks extension headers: a router need not (RFC 8200 section 4).

use std::net::Ipv6Addr;

use super::transport::{ICMPV6, Transport};
use crate::addr::Mac;
use crate::verdict::DropReason;

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;

pub(crate) const PAYLOAD_LEN_AT: usize = 4;
const HOP_LIMIT_AT: usize = 7;

/// ICMPv6 type of a neighbour solicitation (RFC 4861 4.3).
const SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement (RFC 4861 4.4).
const ADVERTISEMENT: u8 = 136;

/// Neighbour discovery that passes the checks of RFC 4861 7.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// Who has this address?
    Solicitation {
        /// The address asked for.
        target: Ipv6Addr,
    },
    /// Here lives this address.
    Advertisement {
        /// The address told of.
        target: Ipv6Addr,
        /// Its hardware address, where the option is given.
        mac: Option<Mac>,
    },
}

/// A sound fixed header, and the first words behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6View {
    /// Source address.
    pub source: Ipv6Addr,
    /// Target address.
    pub target: Ipv6Addr,
    /// What the sender tells its flows apart by, 20 bits (RFC 6437); 0 if it does not.
    pub flow_label: u32,
    /// Hops left.
    pub hop_limit: u8,
    /// What follows the fixed header.
    pub next_header: u8,
    /// Bytes behind the fixed header. Of a super-frame: all of them.
    pub payload_len: u16,
    /// What it carries, where no extension header stands before it.
    pub transport: Transport,
    /// Neighbour discovery, if that is what it is.
    pub discovery: Option<Discovery>,
}

impl Ipv6View {
    /// Checks the header at the start of `bytes`.
    ///
    /// # Errors
    /// `MalformedIpv6`: version or length is wrong.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Ipv6View, DropReason> {
        let (fixed, rest) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(DropReason::MalformedIpv6)?;
        let payload_len = u16::from_be_bytes([fixed[4], fixed[5]]);
        if fixed[0] >> 4 != 6 || usize::from(payload_len) > rest.len() {
            return Err(DropReason::MalformedIpv6);
        }
        let payload = &rest[..usize::from(payload_len)];
        let mut octets = [0; 16];
        octets.copy_from_slice(&fixed[8..24]);
        let source = Ipv6Addr::from(octets);
        octets.copy_from_slice(&fixed[24..40]);
        let target = Ipv6Addr::from(octets);
        let (next_header, hop_limit) = (fixed[6], fixed[HOP_LIMIT_AT]);
        Ok(Ipv6View {
            source,
            target,
            flow_label: u32::from_be_bytes([0, fixed[1] & 0xf, fixed[2], fixed[3]]),
            hop_limit,
            next_header,
            payload_len,
            transport: Transport::parse(next_header, payload),
            discovery: discovery(next_header, hop_limit, payload),
        })
    }
}

/// Reads neighbour discovery; a hop limit under 255 means that it crossed a router and is not it.
fn discovery(next_header: u8, hop_limit: u8, payload: &[u8]) -> Option<Discovery> {
    if next_header != ICMPV6 || hop_limit != 255 {
        return None;
    }
    let (&[kind, code, ..], options) = payload.split_first_chunk::<24>()?;
    if code != 0 {
        return None;
    }
    let mut octets = [0; 16];
    octets.copy_from_slice(&payload[8..24]);
    let target = Ipv6Addr::from(octets);
    if target.is_multicast() {
        return None;
    }
    match kind {
        SOLICITATION => Some(Discovery::Solicitation { target }),
        ADVERTISEMENT => Some(Discovery::Advertisement {
            target,
            mac: target_mac(options),
        }),
        _ => None,
    }
}

/// The target link-layer address option (type 2), if it is there and whole.
fn target_mac(mut options: &[u8]) -> Option<Mac> {
    while let &[kind, units, ..] = options {
        let len = usize::from(units) * 8;
        if len == 0 || len > options.len() {
            return None;
        }
        if kind == 2 && len == 8 {
            let mac: [u8; 6] = options[2..8].try_into().ok()?;
            return Some(Mac::new(mac));
        }
        options = &options[len..];
    }
    None
}

/// Takes one off the hop limit of the header at the start of `packet`; no checksum covers it.
#[inline]
pub(crate) fn decrement_hop_limit(packet: &mut [u8]) {
    packet[HOP_LIMIT_AT] = packet[HOP_LIMIT_AT].wrapping_sub(1);
}

/// True for an address that may not be the source of a packet on its way through a router.
#[inline]
#[must_use]
pub(crate) fn is_martian_source(address: Ipv6Addr) -> bool {
    address.is_multicast() || address.is_loopback() || address.is_unspecified()
}

/// True for a target that a router must not forward: multicast, loopback, link-local, none.
#[inline]
#[must_use]
pub(crate) fn is_unroutable_target(address: Ipv6Addr) -> bool {
    is_martian_source(address) || address.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advertisement(hop_limit: u8, options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![
            0x60,
            0,
            0,
            0,
            0,
            (24 + options.len()) as u8,
            ICMPV6,
            hop_limit,
        ];
        bytes.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).octets());
        bytes.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).octets());
        bytes.extend([ADVERTISEMENT, 0, 0, 0, 0x60, 0, 0, 0]);
        bytes.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).octets());
        bytes.extend(options);
        bytes
    }

    #[test]
    fn discovery_counts_only_when_it_crossed_no_router() {
        let option = [2, 1, 2, 0, 0, 0, 0, 7];
        let view = Ipv6View::parse(&advertisement(255, &option)).expect("sound");
        let target = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
        let mac = Some(Mac::new([2, 0, 0, 0, 0, 7]));
        assert_eq!(
            view.discovery,
            Some(Discovery::Advertisement { target, mac })
        );
        let routed = Ipv6View::parse(&advertisement(254, &option)).expect("sound");
        assert_eq!(routed.discovery, None);
    }

    #[test]
    fn an_option_of_no_length_ends_the_search() {
        let view = Ipv6View::parse(&advertisement(255, &[1, 0, 0, 0, 0, 0, 0, 0])).expect("sound");
        assert!(matches!(
            view.discovery,
            Some(Discovery::Advertisement { mac: None, .. })
        ));
    }

    #[test]
    fn wrong_version_or_length_is_malformed() {
        let good = advertisement(255, &[]);
        let mut version = good.clone();
        version[0] = 0x40;
        assert_eq!(Ipv6View::parse(&version), Err(DropReason::MalformedIpv6));
        assert_eq!(
            Ipv6View::parse(&good[..good.len() - 1]),
            Err(DropReason::MalformedIpv6)
        );
    }
}
