//! The IPv4 header (RFC 791).
//!
//! In: what follows the Ethernet header. Out: a view of a sound header, and edits in place.
//! Never: accepts a header that RFC 1812 5.2.2 tells a router to discard.

use std::net::Ipv4Addr;

use super::checksum::{header_sum, sum, updated};
use super::transport::Transport;
use crate::verdict::DropReason;

/// Bytes of a header without options.
pub const HEADER_LEN_MIN: usize = 20;

pub(crate) const TOTAL_LEN_AT: usize = 2;
const TTL_AT: usize = 8;
const CHECKSUM_AT: usize = 10;

/// A sound header, and the first words behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4View {
    /// Source address.
    pub source: Ipv4Addr,
    /// Target address.
    pub target: Ipv4Addr,
    /// Time to live.
    pub ttl: u8,
    /// Protocol number of the payload.
    pub protocol: u8,
    /// Header with options, in bytes; 20 to 60.
    pub header_len: u8,
    /// Header and payload, in bytes. Of a super-frame: all of it.
    pub total_len: u16,
    /// The DF bit.
    pub dont_fragment: bool,
    /// Offset of this fragment, in bytes; 0 for a whole packet or the first fragment.
    pub fragment_offset: u16,
    /// The MF bit.
    pub more_fragments: bool,
    /// What it carries.
    pub transport: Transport,
}

impl Ipv4View {
    /// Checks the header at the start of `bytes`.
    ///
    /// # Errors
    /// `MalformedIpv4`: version, header length, total length or checksum is wrong.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Ipv4View, DropReason> {
        let (fixed, _) = bytes
            .split_first_chunk::<HEADER_LEN_MIN>()
            .ok_or(DropReason::MalformedIpv4)?;
        let &[
            first,
            _,
            l0,
            l1,
            _,
            _,
            f0,
            f1,
            ttl,
            protocol,
            _,
            _,
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
        ] = fixed;
        let header_len = usize::from(first & 0xf) * 4;
        let total_len = u16::from_be_bytes([l0, l1]);
        let sound = first >> 4 == 4
            && header_len >= HEADER_LEN_MIN
            && usize::from(total_len) >= header_len
            && usize::from(total_len) <= bytes.len()
            && (if header_len == HEADER_LEN_MIN {
                header_sum(fixed)
            } else {
                sum(&bytes[..header_len], 0)
            }) == 0xffff;
        if !sound {
            return Err(DropReason::MalformedIpv4);
        }
        let fragment = u16::from_be_bytes([f0, f1]);
        let fragment_offset = (fragment & 0x1fff) << 3;
        let payload = &bytes[header_len..usize::from(total_len)];
        Ok(Ipv4View {
            source: Ipv4Addr::new(a, b, c, d),
            target: Ipv4Addr::new(e, f, g, h),
            ttl,
            protocol,
            header_len: header_len as u8,
            total_len,
            dont_fragment: fragment & 0x4000 != 0,
            fragment_offset,
            more_fragments: fragment & 0x2000 != 0,
            transport: if fragment_offset == 0 {
                Transport::parse(protocol, payload)
            } else {
                Transport::Unknown
            },
        })
    }
}

/// Takes one off the TTL of the header at the start of `packet` and mends the checksum.
#[inline]
pub(crate) fn decrement_ttl(packet: &mut [u8]) {
    let before = u16::from_be_bytes([packet[TTL_AT], packet[TTL_AT + 1]]);
    packet[TTL_AT] = packet[TTL_AT].wrapping_sub(1);
    let after = u16::from_be_bytes([packet[TTL_AT], packet[TTL_AT + 1]]);
    let checksum = u16::from_be_bytes([packet[CHECKSUM_AT], packet[CHECKSUM_AT + 1]]);
    packet[CHECKSUM_AT..CHECKSUM_AT + 2]
        .copy_from_slice(&updated(checksum, before, after).to_be_bytes());
}

/// True for an address that RFC 1812 5.3.7 and RFC 6890 forbid as a source on a wire.
#[inline]
#[must_use]
pub(crate) fn is_martian_source(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first == 0 || first == 127 || first >= 224
}

/// True for a target that a router must not forward: this network, loopback, multicast, reserved,
/// broadcast (RFC 1812 4.2.2.11 and 5.2.3). Of link-local ones the route decides.
#[inline]
#[must_use]
pub(crate) fn is_unroutable_target(address: Ipv4Addr) -> bool {
    is_martian_source(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A header of twenty bytes with a right checksum, and `payload` zero bytes behind it.
    fn packet(ttl: u8, payload: usize) -> Vec<u8> {
        let mut header = etherparse::Ipv4Header::new(
            payload as u16,
            ttl,
            etherparse::IpNumber::UDP,
            [10, 0, 0, 1],
            [10, 0, 0, 2],
        )
        .expect("short enough");
        header.header_checksum = header.calc_header_checksum();
        let mut bytes = header.to_bytes().to_vec();
        bytes.resize(20 + payload, 0);
        bytes
    }

    #[test]
    fn each_unsound_field_makes_the_header_malformed() {
        let good = packet(64, 8);
        assert!(Ipv4View::parse(&good).is_ok());
        let fix = |mut bytes: Vec<u8>| {
            bytes[10..12].fill(0);
            let sum = super::super::checksum::checksum(&bytes[..20]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            bytes
        };
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            fix(bytes)
        };
        for (what, bytes) in [
            ("version 6", with(0, 0x65)),
            ("header of 16 bytes", with(0, 0x44)),
            ("header longer than the packet", with(0, 0x4f)),
            ("total length below the header", with(3, 19)),
            ("total length past the end", with(3, 29)),
            ("cut short", good[..19].to_vec()),
            ("wrong checksum", {
                let mut b = good.clone();
                b[10] ^= 1;
                b
            }),
        ] {
            assert_eq!(
                Ipv4View::parse(&bytes),
                Err(DropReason::MalformedIpv4),
                "{what}"
            );
        }
    }

    #[test]
    fn a_fragment_past_the_first_has_no_ports() {
        let mut bytes = packet(64, 8);
        bytes[7] = 1;
        let sum = {
            bytes[10..12].fill(0);
            super::super::checksum::checksum(&bytes[..20])
        };
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        let view = Ipv4View::parse(&bytes).expect("sound");
        assert_eq!(
            (view.fragment_offset, view.transport),
            (8, Transport::Unknown)
        );
    }

    #[test]
    fn addresses_that_belong_on_no_wire_are_neither_source_nor_target() {
        for (text, on_a_wire) in [
            ("0.0.0.0", false),
            ("0.255.255.255", false),
            ("1.0.0.0", true),
            ("10.0.0.1", true),
            ("126.255.255.255", true),
            ("127.0.0.1", false),
            ("127.255.255.255", false),
            ("128.0.0.0", true),
            ("223.255.255.255", true),
            ("224.0.0.1", false),
            ("239.255.255.255", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
        ] {
            let address = text.parse().expect("an address");
            assert_eq!(!is_martian_source(address), on_a_wire, "{text}");
            assert_eq!(!is_unroutable_target(address), on_a_wire, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_incremental_checksum_is_that_of_the_whole_header(
            id in any::<u16>(), source in any::<[u8; 4]>(), target in any::<[u8; 4]>(), ttl in 1u8..,
        ) {
            let mut bytes = packet(ttl, 8);
            bytes[4..6].copy_from_slice(&id.to_be_bytes());
            bytes[12..16].copy_from_slice(&source);
            bytes[16..20].copy_from_slice(&target);
            bytes[10..12].fill(0);
            let sum = super::super::checksum::checksum(&bytes[..20]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            decrement_ttl(&mut bytes);
            let header = etherparse::Ipv4HeaderSlice::from_slice(&bytes).expect("sound").to_header();
            prop_assert_eq!(header.header_checksum, header.calc_header_checksum(), "RFC 1624");
        }

        #[test]
        fn decrementing_the_ttl_keeps_the_header_sound(ttl in 1u8.., payload in 0usize..40) {
            let mut bytes = packet(ttl, payload);
            decrement_ttl(&mut bytes);
            prop_assert_eq!(Ipv4View::parse(&bytes).expect("still sound").ttl, ttl - 1);
        }
    }
}
