//! Bytes to facts: a frame's headers, checked once.
//!
//! In: the bytes of a frame as a port received it.
//! Out: a [`FrameView`] of what forwarding needs, or the reason why the frame cannot be bridged.
//! Never: allocates, copies a payload, or rejects for layer 3 what a bridge would carry: a broken
//! IPv4 header is a fact of the view ([`Network::Malformed`]), and a death only where the frame
//! would have been routed.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod flow;
pub mod ipv4;
pub mod ipv6;
pub mod nd;
pub mod offload;
pub mod options;
pub mod transport;
pub mod tuple;

use crate::addr::{Mac, Station};
use crate::verdict::DropReason;
use arp::ArpView;
use ipv4::Ipv4View;
use ipv6::Ipv6View;
use nd::NdView;

/// What stands behind the Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// ARP for Ethernet and IPv4.
    Arp(ArpView),
    /// An IPv4 packet with a sound header.
    Ipv4(Ipv4View),
    /// An IPv6 packet with a sound fixed header.
    Ipv6(Ipv6View),
    /// Says it is one of the above and is not whole.
    Malformed(DropReason),
    /// Behind an 802.1Q tag, or of another type: bridged, never routed.
    Opaque,
}

/// What the Ethernet header says stands behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ARP.
    Arp,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// An 802.1Q tag (or 802.1ad's), behind which the rest stands.
    Tagged,
    /// Another type.
    Other,
}

impl Kind {
    /// What this EtherType announces.
    #[inline(always)]
    #[must_use]
    pub const fn of(ether_type: u16) -> Kind {
        match ether_type {
            ethernet::IPV4 => Kind::Ipv4,
            ethernet::IPV6 => Kind::Ipv6,
            ethernet::ARP => Kind::Arp,
            ethernet::TAG | ethernet::PROVIDER_TAG | ethernet::OLD_PROVIDER_TAG => Kind::Tagged,
            _ => Kind::Other,
        }
    }
}

/// A frame whose Ethernet header has been checked. The header behind it is checked when somebody
/// asks for it: a bridged frame needs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameView<'a> {
    /// Where it is going.
    pub target: Mac,
    /// Who sent it.
    pub source: Station,
    /// What it says that it carries.
    pub kind: Kind,
    payload: &'a [u8],
}

impl<'a> FrameView<'a> {
    /// Checks the Ethernet header of `bytes`.
    ///
    /// # Errors
    /// `TooShort`, `SourceIsGroup` or `SourceIsZero`: no bridge could carry the frame.
    #[inline(always)]
    pub fn parse(bytes: &'a [u8]) -> Result<FrameView<'a>, DropReason> {
        let (header, payload) = ethernet::split(bytes).ok_or(DropReason::TooShort)?;
        let source = Station::new(header.source)?;
        let kind = Kind::of(header.ether_type);
        Ok(FrameView {
            target: header.target,
            source,
            kind,
            payload,
        })
    }

    /// The same of a frame that says that it is IPv4, as most do; nothing for any other.
    #[inline(always)]
    pub(crate) fn of_ipv4(bytes: &'a [u8]) -> Option<FrameView<'a>> {
        let (header, payload) = ethernet::split(bytes)?;
        if header.ether_type != ethernet::IPV4 {
            return None;
        }
        Some(FrameView {
            target: header.target,
            source: Station::new(header.source).ok()?,
            kind: Kind::Ipv4,
            payload,
        })
    }

    /// True if it says that it is a neighbour solicitation or advertisement. Of a frame that is
    /// not IPv6 this reads nothing.
    #[inline]
    #[must_use]
    pub fn claims_discovery(&self) -> bool {
        self.kind == Kind::Ipv6 && nd::claims(self.payload)
    }

    /// Checks the neighbour discovery that it claims to be. A checksum `undone` is not looked at.
    ///
    /// # Errors
    /// As [`NdView::parse`].
    pub fn discovery(&self, undone: bool) -> Result<NdView, DropReason> {
        NdView::parse(self.payload, undone)
    }

    /// What stands behind the Ethernet header, unchecked.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Checks the header behind the Ethernet header.
    #[inline]
    #[must_use]
    pub fn network(&self) -> Network {
        let payload = self.payload;
        match self.kind {
            Kind::Ipv4 => Ipv4View::parse(payload).map_or_else(Network::Malformed, Network::Ipv4),
            Kind::Ipv6 => Ipv6View::parse(payload).map_or_else(Network::Malformed, Network::Ipv6),
            Kind::Arp => ArpView::parse(payload).map_or_else(Network::Malformed, Network::Arp),
            Kind::Tagged | Kind::Other => Network::Opaque,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_viewed_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = FrameView::parse(&bytes).map(|view| view.network());
        }

        #[test]
        fn any_ip_like_bytes_are_viewed_without_a_panic(
            ether_type in prop::sample::select(vec![0x0800u16, 0x86dd, 0x0806, 0x8100, 0x88a8]),
            first in prop::sample::select(vec![0x45u8, 0x46, 0x4f, 0x60, 0x44]),
            rest in prop::collection::vec(any::<u8>(), 0..120),
        ) {
            let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
            bytes.extend(ether_type.to_be_bytes());
            bytes.push(first);
            bytes.extend(rest);
            let view = FrameView::parse(&bytes).expect("the Ethernet header is sound");
            let _ = view.network();
            prop_assert_eq!(view.source.mac(), Mac::new([2, 0, 0, 0, 0, 2]));
        }

        #[test]
        fn the_view_agrees_with_etherparse(
            source in any::<[u8; 4]>(), target in any::<[u8; 4]>(), ttl in any::<u8>(),
            ports in any::<(u16, u16)>(), payload in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 8])
                .ipv4(source, target, ttl)
                .udp(ports.0, ports.1);
            let mut bytes = Vec::new();
            builder.write(&mut bytes, &payload).expect("writing to a vector cannot fail");
            let view = FrameView::parse(&bytes).expect("sound");
            let Network::Ipv4(ip) = view.network() else { panic!("not seen as IPv4: {view:?}") };
            prop_assert_eq!((ip.source.octets(), ip.target.octets(), ip.ttl), (source, target, ttl));
            prop_assert_eq!(ip.transport.ports(), Some(ports));
        }
    }

    #[test]
    fn a_tagged_packet_is_opaque_and_a_short_one_has_no_view() {
        let tagged = [
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0, 5, 0x08, 0, 0x45,
        ];
        assert_eq!(
            FrameView::parse(&tagged).expect("bridgeable").network(),
            Network::Opaque
        );
        assert_eq!(FrameView::parse(&tagged[..13]), Err(DropReason::TooShort));
        assert_eq!(FrameView::parse(&[]), Err(DropReason::TooShort));
    }
}
