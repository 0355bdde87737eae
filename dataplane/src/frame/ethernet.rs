//! The Ethernet II header.
//!
//! In: the first bytes of a frame. Out: target, source, type, and the rest.
//! Never: looks behind an 802.1Q tag: tagged frames pass through as they are.

use crate::addr::Mac;

/// Bytes of target, source and type.
pub const HEADER_LEN: usize = 14;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of an 802.1Q tag.
pub const TAG: u16 = 0x8100;
/// EtherType of a provider's tag (802.1ad).
pub const PROVIDER_TAG: u16 = 0x88a8;
/// EtherType of a provider's tag before 802.1ad, which Linux does not strip and others do.
pub const OLD_PROVIDER_TAG: u16 = 0x9100;

/// The addresses to which IEEE 802.1D table 7-10 forbids forwarding, `01:80:c2:00:00:00` to
/// `..:0f`, share their first 44 bits.
const RESERVED_GROUP: u64 = 0x0180_c200_0000;

/// The three fields of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the frame is going.
    pub target: Mac,
    /// Who says to have sent it.
    pub source: Mac,
    /// The type, in host order.
    pub ether_type: u16,
}

/// The header, and what follows it.
#[inline(always)]
#[must_use]
pub fn split(bytes: &[u8]) -> Option<(Header, &[u8])> {
    let (header, payload) = bytes.split_first_chunk::<HEADER_LEN>()?;
    // Two loads of a word each: target and two octets of the source, then source and type.
    let first = u64::from_be_bytes(*header.first_chunk()?);
    let second = u64::from_be_bytes(*header.last_chunk()?);
    let header = Header {
        target: Mac::from_bits(first >> 16),
        source: Mac::from_bits(second >> 16),
        ether_type: second as u16,
    };
    Some((header, payload))
}

/// True for the link-local control addresses, which no bridge forwards.
#[inline]
#[must_use]
pub const fn is_reserved_group(mac: Mac) -> bool {
    mac.bits() & !0xf == RESERVED_GROUP
}

/// Overwrites the target address.
#[inline]
pub(crate) fn set_target(frame: &mut [u8], mac: Mac) {
    frame[0..6].copy_from_slice(&mac.octets());
}

/// Overwrites the source address.
#[inline]
pub(crate) fn set_source(frame: &mut [u8], mac: Mac) {
    frame[6..12].copy_from_slice(&mac.octets());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_addresses_are_told_from_their_neighbours() {
        assert!(is_reserved_group(Mac::new([1, 0x80, 0xc2, 0, 0, 0])));
        assert!(is_reserved_group(Mac::new([1, 0x80, 0xc2, 0, 0, 0x0e])));
        assert!(!is_reserved_group(Mac::new([1, 0x80, 0xc2, 0, 0, 0x10])));
        assert!(!is_reserved_group(Mac::BROADCAST));
    }
}
