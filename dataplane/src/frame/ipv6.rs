//! The IPv6 fixed header and the extension headers behind it (RFC 8200).
//!
//! In: what follows the Ethernet header. Out: a view of sound headers, and edits in place.
//! Never: walks more than [`EXTENSIONS_MAX`] extension headers, or past the first fragment.
//!
//! A router need not look behind the fixed header (RFC 8200 section 4). This one does, for three
//! reasons: the segments of a super-frame repeat those headers, so their size is theirs too; an
//! ICMPv6 error must not answer another one that hides behind them (RFC 4443 2.4 e); and a routing
//! header of type 0 must not pass (RFC 5095).

use std::net::Ipv6Addr;

use super::transport::Transport;
use crate::verdict::DropReason;

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;

/// Smallest MTU that a link may have under IPv6, in bytes (RFC 8200 section 5).
pub const MTU_MIN: u16 = 1280;

/// Extension headers in one packet. Each comes once and destination options twice (RFC 8200 4.1),
/// which makes seven; a longer chain is a way to hide what it carries.
pub const EXTENSIONS_MAX: usize = 8;

/// Next header of hop-by-hop options (RFC 8200 4.3).
pub const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
/// Bytes of the fragment header (RFC 8200 4.5).
pub(crate) const FRAGMENT_LEN: usize = 8;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HOST_IDENTITY: u8 = 139;
const SHIM6: u8 = 140;

pub(crate) const PAYLOAD_LEN_AT: usize = 4;
const HOP_LIMIT_AT: usize = 7;

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
    /// The fixed header and the extension headers, in bytes. Of a fragment past the first: as far
    /// as its fragment header.
    pub header_len: u16,
    /// What the last of those headers says that follows.
    pub protocol: u8,
    /// It has a fragment header, and is not all of its packet.
    pub is_fragment: bool,
    /// Offset of this fragment, in bytes; 0 for a whole packet or the first fragment.
    pub fragment_offset: u16,
    /// Where the fragment header stands, in bytes from the start of the packet; 0 without one.
    pub fragment_at: u16,
    /// It names routers that it must pass (RFC 5095).
    pub source_routed: bool,
    /// What it carries; not known of fragments.
    pub transport: Transport,
}

impl Ipv6View {
    /// Checks the header at the start of `bytes`.
    ///
    /// # Errors
    /// `MalformedIpv6`: version or length is wrong. `MalformedExtensions`: an extension header is
    /// cut short, hop-by-hop options do not come first, or there are too many.
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
        let chain = if is_extension(next_header) {
            Chain::walk(next_header, payload).ok_or(DropReason::MalformedExtensions)?
        } else {
            Chain::none(next_header)
        };
        Ok(Ipv6View {
            source,
            target,
            flow_label: u32::from_be_bytes([0, fixed[1] & 0xf, fixed[2], fixed[3]]),
            hop_limit,
            next_header,
            payload_len,
            header_len: (HEADER_LEN + chain.len) as u16,
            protocol: chain.protocol,
            is_fragment: chain.is_fragment,
            fragment_offset: chain.fragment_offset,
            fragment_at: chain.fragment_at,
            source_routed: chain.source_routed,
            transport: if chain.is_fragment {
                Transport::Unknown
            } else {
                Transport::parse(chain.protocol, &payload[chain.len..])
            },
        })
    }
}

/// What a chain of extension headers comes to.
struct Chain {
    /// Bytes of all of them.
    len: usize,
    protocol: u8,
    is_fragment: bool,
    fragment_offset: u16,
    fragment_at: u16,
    source_routed: bool,
}

impl Chain {
    const fn none(protocol: u8) -> Chain {
        Chain {
            len: 0,
            protocol,
            is_fragment: false,
            fragment_offset: 0,
            fragment_at: 0,
            source_routed: false,
        }
    }

    /// Walks the headers at the start of `payload`, the first of which is of kind `first`. Nothing
    /// if the chain is not sound: RFC 8200 4.1, and RFC 7112 section 5 for the first fragment.
    #[cold]
    fn walk(first: u8, payload: &[u8]) -> Option<Chain> {
        let mut chain = Chain::none(first);
        for place in 0..=EXTENSIONS_MAX {
            if !is_extension(chain.protocol) || chain.fragment_offset > 0 {
                return Some(chain);
            }
            if place == EXTENSIONS_MAX || (chain.protocol == HOP_BY_HOP && place > 0) {
                return None;
            }
            let rest = &payload[chain.len..];
            let &[next, units, c, d, ..] = rest.first_chunk::<8>()?;
            let len = match chain.protocol {
                FRAGMENT => FRAGMENT_LEN,
                AUTHENTICATION => (usize::from(units) + 2) * 4,
                _ => (usize::from(units) + 1) * 8,
            };
            match chain.protocol {
                FRAGMENT => {
                    let place = u16::from_be_bytes([c, d]);
                    chain.fragment_offset = place & !7;
                    chain.fragment_at = (HEADER_LEN + chain.len) as u16;
                    chain.is_fragment = place & !6 != 0;
                }
                ROUTING => chain.source_routed |= c == 0,
                _ => {}
            }
            if len > rest.len() {
                return None;
            }
            chain.len += len;
            chain.protocol = next;
        }
        None
    }
}

/// True for the headers of RFC 7045's registry whose length can be read. What is encrypted (ESP)
/// ends the chain, as does "no next header".
#[inline]
pub(crate) const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP
            | ROUTING
            | FRAGMENT
            | AUTHENTICATION
            | DESTINATION_OPTIONS
            | MOBILITY
            | HOST_IDENTITY
            | SHIM6
    )
}

/// Takes one off the hop limit of the header at the start of `packet`; no checksum covers it.
#[inline]
pub(crate) fn decrement_hop_limit(packet: &mut [u8]) {
    packet[HOP_LIMIT_AT] = packet[HOP_LIMIT_AT].wrapping_sub(1);
}

/// True for an address that may not be the source of a packet on its way through a router
/// (RFC 4291 2.5.2, 2.5.3 and 2.7, RFC 6890). Link-local sources have a verdict of their own.
#[inline]
#[must_use]
pub(crate) fn is_martian_source(address: Ipv6Addr) -> bool {
    address.is_multicast()
        || address.is_loopback()
        || address.is_unspecified()
        || is_v4_mapped(address)
}

/// `::ffff:0:0/96` is a way to write IPv4 addresses, and on no wire (RFC 6890 table 20).
#[inline]
fn is_v4_mapped(address: Ipv6Addr) -> bool {
    address.to_bits() >> 32 == 0xffff
}

/// True for a target that a router must not forward: multicast, loopback, link-local, IPv4-mapped,
/// none.
#[inline]
#[must_use]
pub(crate) fn is_unroutable_target(address: Ipv6Addr) -> bool {
    is_martian_source(address) || address.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::transport::ICMPV6;
    use proptest::prelude::*;

    fn packet() -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 24, ICMPV6, 255];
        bytes.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).octets());
        bytes.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).octets());
        bytes.extend([0; 24]);
        bytes
    }

    #[test]
    fn wrong_version_or_length_is_malformed() {
        let good = packet();
        assert!(Ipv6View::parse(&good).is_ok());
        let mut version = good.clone();
        version[0] = 0x40;
        assert_eq!(Ipv6View::parse(&version), Err(DropReason::MalformedIpv6));
        assert_eq!(
            Ipv6View::parse(&good[..good.len() - 1]),
            Err(DropReason::MalformedIpv6)
        );
    }

    /// A packet of these extension headers, each given by its kind and its bytes from the second
    /// on, and of a payload of the last kind.
    fn chained(headers: &[(u8, Vec<u8>)], last: u8, payload: &[u8]) -> Vec<u8> {
        let kinds = headers.iter().map(|(kind, _)| *kind).chain([last]);
        let kinds: Vec<u8> = kinds.collect();
        let mut rest = Vec::new();
        for (place, (_, bytes)) in headers.iter().enumerate() {
            rest.push(kinds[place + 1]);
            rest.extend(bytes);
        }
        rest.extend(payload);
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend([kinds[0], 64]);
        bytes.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).octets());
        bytes.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).octets());
        bytes.extend(rest);
        bytes
    }

    const PAD: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];
    const UDP_HEADER: [u8; 8] = [0, 53, 0, 99, 0, 8, 0, 0];

    #[test]
    fn each_kind_of_extension_header_is_walked() {
        let pad = || PAD.to_vec();
        let long = || [&[1u8][..], &[0; 14]].concat();
        let authentication = || [&[2u8][..], &[0; 14]].concat();
        for (headers, len) in [
            (vec![], 0),
            (vec![(HOP_BY_HOP, pad())], 8),
            (vec![(HOP_BY_HOP, long()), (DESTINATION_OPTIONS, pad())], 24),
            (vec![(ROUTING, vec![0, 2, 0, 0, 0, 0, 0])], 8),
            (vec![(AUTHENTICATION, authentication())], 16),
            (
                vec![(MOBILITY, pad()), (HOST_IDENTITY, pad()), (SHIM6, pad())],
                24,
            ),
            // A whole packet in a fragment's dress (RFC 6946).
            (vec![(FRAGMENT, vec![0, 0, 0, 0, 0, 0, 9])], 8),
        ] {
            let bytes = chained(&headers, super::super::transport::UDP, &UDP_HEADER);
            let view = Ipv6View::parse(&bytes).expect("sound");
            assert_eq!(view.header_len, 40 + len, "{headers:?}");
            assert_eq!((view.protocol, view.is_fragment), (17, false));
            assert_eq!(view.transport.ports(), Some((53, 99)));
            assert!(!view.source_routed);
        }
    }

    #[test]
    fn a_fragment_tells_no_ports() {
        for (place, offset) in [([0, 1], 0), ([0, 8], 8), ([0xff, 0xf8], 0xfff8)] {
            let fragment = vec![0, place[0], place[1], 0, 0, 0, 9];
            let bytes = chained(&[(FRAGMENT, fragment)], 17, &UDP_HEADER);
            let view = Ipv6View::parse(&bytes).expect("sound");
            assert_eq!((view.is_fragment, view.fragment_offset), (true, offset));
            assert_eq!(view.transport, Transport::Unknown);
        }
        // Behind the header of a later fragment stands no header, whatever it says.
        let later = vec![(FRAGMENT, vec![0, 0, 8, 0, 0, 0, 9])];
        let view = Ipv6View::parse(&chained(&later, HOP_BY_HOP, &[0; 3])).expect("sound");
        assert_eq!((view.header_len, view.protocol), (48, HOP_BY_HOP));
    }

    #[test]
    fn a_chain_that_breaks_the_rules_is_malformed() {
        let pad = || PAD.to_vec();
        let options = |count| vec![(DESTINATION_OPTIONS, pad()); count];
        let first = (FRAGMENT, vec![0, 0, 1, 0, 0, 0, 9]);
        let long = || [&[1u8][..], &[0; 6]].concat();
        for (what, headers, last, payload, sound) in [
            ("eight headers", options(8), 17, &UDP_HEADER[..], true),
            ("nine: one too many", options(9), 17, &UDP_HEADER, false),
            (
                "cut off in its first bytes",
                vec![],
                ROUTING,
                &[17, 0, 0],
                false,
            ),
            (
                "longer than the packet",
                vec![(ROUTING, long())],
                17,
                &[0; 7],
                false,
            ),
            (
                "hop-by-hop options not first (RFC 8200 4.1)",
                vec![(DESTINATION_OPTIONS, pad()), (HOP_BY_HOP, pad())],
                17,
                &UDP_HEADER,
                false,
            ),
            (
                "a first fragment without all headers (RFC 7112 5)",
                vec![first, (DESTINATION_OPTIONS, long())],
                17,
                &[0; 7],
                false,
            ),
        ] {
            let view = Ipv6View::parse(&chained(&headers, last, payload));
            assert_eq!(view.is_ok(), sound, "{what}");
            assert!(
                sound || view == Err(DropReason::MalformedExtensions),
                "{what}"
            );
        }
    }

    #[test]
    fn only_a_routing_header_of_type_0_is_a_source_route() {
        for (kind, source_routed) in [(0, true), (2, false), (4, false)] {
            let routing = (ROUTING, vec![0, kind, 1, 0, 0, 0, 0]);
            let behind = (DESTINATION_OPTIONS, PAD.to_vec());
            for headers in [vec![routing.clone()], vec![behind, routing]] {
                let bytes = chained(&headers, 17, &UDP_HEADER);
                let view = Ipv6View::parse(&bytes).expect("sound");
                assert_eq!(view.source_routed, source_routed, "type {kind}");
            }
        }
    }

    #[test]
    fn addresses_that_belong_on_no_wire_are_neither_source_nor_target() {
        for (text, source, target) in [
            ("::", false, false),
            ("::1", false, false),
            ("::ffff:10.0.0.1", false, false),
            ("ff02::1", false, false),
            ("ff0e::1", false, false),
            ("fe80::1", true, false),
            ("febf::1", true, false),
            ("fec0::1", true, true),
            ("fd00::1", true, true),
            ("2001:db8::1", true, true),
            ("::fffe:10.0.0.1", true, true),
        ] {
            let address = text.parse().expect("an address");
            assert_eq!(!is_martian_source(address), source, "{text} as a source");
            assert_eq!(!is_unroutable_target(address), target, "{text} as a target");
        }
    }

    proptest! {
        #[test]
        fn the_chain_agrees_with_etherparse(
            kinds in prop::collection::vec(prop::sample::select(vec![ROUTING, FRAGMENT, DESTINATION_OPTIONS, AUTHENTICATION]), 0..5),
            options in any::<bool>(),
            place in prop::sample::select(vec![0u16, 1, 8, 9, 0xfff8]),
            payload in prop::collection::vec(any::<u8>(), 8..40),
        ) {
            let header = |kind: &u8| match *kind {
                FRAGMENT => {
                    let [a, b] = place.to_be_bytes();
                    (FRAGMENT, vec![0, a, b, 0, 0, 0, 9])
                }
                AUTHENTICATION => (AUTHENTICATION, [&[1u8][..], &[0; 10]].concat()),
                kind => (kind, PAD.to_vec()),
            };
            let mut headers: Vec<_> = kinds.iter().map(header).collect();
            if options {
                headers.insert(0, (HOP_BY_HOP, PAD.to_vec()));
            }
            let bytes = chained(&headers, 17, &payload);
            let view = Ipv6View::parse(&bytes).expect("sound");
            let first = etherparse::IpNumber(view.next_header);
            let (chain, protocol, rest) =
                etherparse::Ipv6ExtensionsSlice::from_slice(first, &bytes[40..]).expect("sound");
            // etherparse reads on behind the header of a later fragment.
            if view.fragment_offset == 0 {
                prop_assert_eq!(view.protocol, protocol.0);
                prop_assert_eq!(usize::from(view.header_len) + rest.len(), bytes.len());
                prop_assert_eq!(view.is_fragment, chain.is_fragmenting_payload());
            }
        }
    }
}
