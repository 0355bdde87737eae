//! Neighbour discovery for IPv6: solicitations and advertisements (RFC 4861).
//!
//! In: an IPv6 packet. Out: what it asks or tells, once every check of RFC 4861 7.1 is passed.
//! Never: reads router discovery or redirects, which are the host's, nor messages behind extension
//! headers: hosts send none (RFC 6980 forbids the harmful ones), so such a packet is none of ours.

use std::net::Ipv6Addr;

use super::checksum;
use super::ipv6::HEADER_LEN;
use super::transport::ICMPV6;
use crate::addr::{Mac, Station};
use crate::verdict::DropReason;

/// ICMPv6 type of a neighbour solicitation (RFC 4861 4.3).
pub(crate) const SOLICITATION: u8 = 135;
/// Type of a router advertisement (RFC 4861 4.2).
pub(crate) const ROUTER_ADVERTISEMENT: u8 = 134;
/// Type of a redirect (RFC 4861 4.5).
pub(crate) const REDIRECT: u8 = 137;
/// ICMPv6 type of a neighbour advertisement (RFC 4861 4.4).
pub(crate) const ADVERTISEMENT: u8 = 136;
/// Option of the sender's hardware address (RFC 4861 4.6.1).
pub(crate) const SOURCE_ADDRESS: u8 = 1;
/// Option of the target's hardware address (RFC 4861 4.6.1).
pub(crate) const TARGET_ADDRESS: u8 = 2;

/// Flag of an advertisement: the sender is a router.
pub(crate) const ROUTER: u8 = 0x80;
/// Flag of an advertisement: it answers a solicitation.
pub(crate) const SOLICITED: u8 = 0x40;
/// Flag of an advertisement: it replaces what is cached.
pub(crate) const OVERRIDE: u8 = 0x20;

/// Bytes of either message before its options.
const MESSAGE_LEN: usize = 24;
/// The hop limit that proves that no router forwarded a packet.
const HOP_LIMIT: u8 = 255;

/// To all nodes of the link, `ff02::1`.
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What a sound message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who has the target address?
    Solicitation,
    /// Here lives the target address.
    Advertisement {
        /// Its hardware address, where the option is given.
        mac: Option<Station>,
        /// The sender is a router.
        router: bool,
        /// It answers a solicitation.
        solicited: bool,
        /// It replaces what is cached.
        overrides: bool,
    },
}

/// A sound solicitation or advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NdView {
    /// Who sent the packet; nobody yet, in duplicate address detection (RFC 4862 5.4.2).
    pub source: Ipv6Addr,
    /// Whom the packet is for.
    pub to: Ipv6Addr,
    /// The address asked for, or told of.
    pub target: Ipv6Addr,
    /// What it says of it.
    pub message: Message,
}

/// True if an IPv6 packet says that it is a solicitation or an advertisement: two bytes of it.
#[inline]
pub(crate) fn claims(packet: &[u8]) -> bool {
    let kind = packet.get(HEADER_LEN);
    packet.get(6) == Some(&ICMPV6) && matches!(kind, Some(&(SOLICITATION | ADVERTISEMENT)))
}

/// The group that hears questions for `address` (RFC 4291 2.7.1).
#[must_use]
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let [high, low] = [u16::from_be_bytes([0xff, a]), u16::from_be_bytes([b, c])];
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, low)
}

/// The hardware address of a group (RFC 2464 section 7).
#[must_use]
pub(crate) fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac::new([0x33, 0x33, a, b, c, d])
}

impl NdView {
    /// Checks the IPv6 packet at the start of `packet`, for which [`claims`] holds; padding may
    /// follow. A checksum that is left `undone` is not looked at.
    ///
    /// # Errors
    /// `MalformedNd` if RFC 4861 7.1.1 or 7.1.2 says to discard it, or it gives a hardware address
    /// that no station has; `MalformedIpv6` if its header is not sound.
    pub fn parse(packet: &[u8], undone: bool) -> Result<NdView, DropReason> {
        let (header, rest) = packet
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(DropReason::MalformedIpv6)?;
        let len = u16::from_be_bytes([header[4], header[5]]);
        let payload = rest
            .get(..usize::from(len))
            .ok_or(DropReason::MalformedIpv6)?;
        if header[0] >> 4 != 6 {
            return Err(DropReason::MalformedIpv6);
        }
        let (source, to) = (address(&header[8..24])?, address(&header[24..40])?);
        let untouched = header[7] == HOP_LIMIT;
        if !untouched || !(undone || verifies(&header[8..40], payload)) {
            return Err(DropReason::MalformedNd);
        }
        let (fixed, options) = payload
            .split_first_chunk::<MESSAGE_LEN>()
            .ok_or(DropReason::MalformedNd)?;
        let target = address(&fixed[8..24])?;
        if fixed[1] != 0 || target.is_multicast() || source.is_multicast() {
            return Err(DropReason::MalformedNd);
        }
        let message = match fixed[0] {
            SOLICITATION => solicitation(source, to, options)?,
            ADVERTISEMENT => advertisement(to, fixed[4], options)?,
            _ => return Err(DropReason::MalformedNd),
        };
        Ok(NdView {
            source,
            to,
            target,
            message,
        })
    }

    /// True for duplicate address detection: the sender has no address yet (RFC 4862 5.4.2).
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.source.is_unspecified()
    }
}

/// RFC 4861 7.1.1.
fn solicitation(source: Ipv6Addr, to: Ipv6Addr, options: &[u8]) -> Result<Message, DropReason> {
    let mac = hardware_address(options, SOURCE_ADDRESS)?;
    let to_a_solicited_node = to.octets()[..13] == ALL_SOLICITED;
    if source.is_unspecified() && (mac.is_some() || !to_a_solicited_node) {
        return Err(DropReason::MalformedNd);
    }
    Ok(Message::Solicitation)
}

/// The first octets of every solicited-node group: `ff02::1:ff00:0/104`.
const ALL_SOLICITED: [u8; 13] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff];

/// RFC 4861 7.1.2.
fn advertisement(to: Ipv6Addr, flags: u8, options: &[u8]) -> Result<Message, DropReason> {
    let mac = hardware_address(options, TARGET_ADDRESS)?;
    let solicited = flags & SOLICITED != 0;
    if solicited && to.is_multicast() {
        return Err(DropReason::MalformedNd);
    }
    Ok(Message::Advertisement {
        mac,
        router: flags & ROUTER != 0,
        solicited,
        overrides: flags & OVERRIDE != 0,
    })
}

fn address(octets: &[u8]) -> Result<Ipv6Addr, DropReason> {
    let octets: [u8; 16] = octets.try_into().map_err(|_| DropReason::MalformedNd)?;
    Ok(Ipv6Addr::from(octets))
}

/// The checksum over the pseudo-header (RFC 8200 8.1) and the message.
fn verifies(addresses: &[u8], payload: &[u8]) -> bool {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let pseudo = u32::from(checksum::sum(addresses, (len >> 16) + (len & 0xffff)));
    checksum::sum(payload, pseudo + u32::from(ICMPV6)) == 0xffff
}

/// The hardware address in the first option of this kind, if there is one. Every option is walked,
/// since one of no length spoils the message wherever it stands.
fn hardware_address(mut options: &[u8], wanted: u8) -> Result<Option<Station>, DropReason> {
    let mut found = None;
    while !options.is_empty() {
        let &[kind, units, ..] = options else {
            return Err(DropReason::MalformedNd);
        };
        let len = usize::from(units) * 8;
        if len == 0 || len > options.len() {
            return Err(DropReason::MalformedNd);
        }
        let (option, rest) = options.split_at(len);
        if kind == wanted && found.is_none() {
            let octets: [u8; 6] = option[2..8]
                .try_into()
                .map_err(|_| DropReason::MalformedNd)?;
            let station = Station::new(Mac::new(octets)).map_err(|_| DropReason::MalformedNd)?;
            found = Some(station);
        }
        options = rest;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    const POD: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 6);
    const ASKED: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x12, 0x3456);

    fn packet(
        (source, to): (Ipv6Addr, Ipv6Addr),
        hops: u8,
        (kind, code, flags): (u8, u8, u8),
        target: Ipv6Addr,
        options: &[u8],
    ) -> Vec<u8> {
        let mut out = Vec::new();
        PacketBuilder::ipv6(source.octets(), to.octets(), hops)
            .icmpv6_raw(kind, code, [flags, 0, 0, 0])
            .write(&mut out, &[&target.octets()[..], options].concat())
            .expect("writing to a vector cannot fail");
        out
    }

    fn asks(options: &[u8]) -> Vec<u8> {
        let to = (POD, solicited_node(ASKED));
        packet(to, 255, (SOLICITATION, 0, 0), ASKED, options)
    }

    const OPTION: [u8; 8] = [1, 1, 2, 0, 0, 0, 0, 6];

    #[test]
    fn sound_messages_of_etherparse_are_read() {
        let view = NdView::parse(&asks(&OPTION), false).expect("sound");
        assert_eq!((view.source, view.target), (POD, ASKED));
        assert_eq!(view.message, Message::Solicitation);
        assert_eq!(view.to.to_string(), "ff02::1:ff12:3456");
        assert_eq!(
            group_mac(view.to),
            Mac::new([0x33, 0x33, 0xff, 0x12, 0x34, 0x56])
        );

        let told = (ADVERTISEMENT, 0, ROUTER | OVERRIDE);
        let options = [&[5, 1, 0, 0, 0, 0, 0, 0][..], &[2, 1, 2, 0, 0, 0, 0, 7]].concat();
        let told = packet((ASKED, ALL_NODES), 255, told, ASKED, &options);
        let told = NdView::parse(&told, false).expect("sound").message;
        let expected = Message::Advertisement {
            mac: Some(Station::new(Mac::new([2, 0, 0, 0, 0, 7])).expect("a station")),
            router: true,
            solicited: false,
            overrides: true,
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn what_rfc_4861_says_to_discard_is_malformed() {
        let group = solicited_node(ASKED);
        let ask = |from, to, hops, code, target, options: &[u8]| {
            packet((from, to), hops, (SOLICITATION, code, 0), target, options)
        };
        let none = Ipv6Addr::UNSPECIFIED;
        let tell = |to, flags, options: &[u8]| {
            packet((ASKED, to), 255, (ADVERTISEMENT, 0, flags), ASKED, options)
        };
        let mut summed_wrong = asks(&OPTION);
        summed_wrong[42] ^= 1;
        let mut cut_short = asks(&[]);
        cut_short.truncate(HEADER_LEN + 20);
        cut_short[5] = 20;
        for (why, packet) in [
            ("crossed a router", ask(POD, group, 254, 0, ASKED, &OPTION)),
            ("a code", ask(POD, group, 255, 1, ASKED, &OPTION)),
            ("a group as target", ask(POD, group, 255, 0, group, &OPTION)),
            ("the checksum", summed_wrong),
            ("cut short", cut_short),
            ("an option of no length", asks(&[1, 0, 0, 0, 0, 0, 0, 0])),
            (
                "an option of no length behind",
                asks(&[&OPTION[..], &[9, 0]].concat()),
            ),
            ("an option beyond the end", asks(&[1, 2, 2, 0, 0, 0, 0, 6])),
            ("half an option", asks(&[1])),
            (
                "a probe with an address",
                ask(none, group, 255, 0, ASKED, &OPTION),
            ),
            ("a probe to a host", ask(none, ASKED, 255, 0, ASKED, &[])),
            ("a group as station", asks(&[1, 1, 0x33, 0x33, 0, 0, 0, 1])),
            ("solicited by a group", tell(ALL_NODES, SOLICITED, &[])),
        ] {
            assert!(claims(&packet), "{why}");
            let found = NdView::parse(&packet, false);
            assert_eq!(found, Err(DropReason::MalformedNd), "{why}");
        }
    }

    #[test]
    fn a_checksum_that_is_still_to_come_is_not_looked_at() {
        let mut undone = asks(&OPTION);
        undone[42] ^= 1;
        assert!(NdView::parse(&undone, true).is_ok());
    }

    #[test]
    fn other_messages_claim_nothing() {
        for kind in [128, 133, 134, 137] {
            let other = packet((POD, ALL_NODES), 255, (kind, 0, 0), ASKED, &[]);
            assert!(!claims(&other));
        }
        assert!(!claims(&asks(&[])[..HEADER_LEN]));
    }

    proptest! {
        #[test]
        fn any_bytes_behind_a_claim_are_read_without_a_panic(
            kind in prop::sample::select(vec![SOLICITATION, ADVERTISEMENT]),
            rest in prop::collection::vec(any::<u8>(), 0..120), len in any::<u16>(),
        ) {
            let mut bytes = packet((POD, ALL_NODES), 255, (kind, 0, 0), ASKED, &rest);
            let _ = NdView::parse(&bytes, false);
            bytes[4..6].copy_from_slice(&len.to_be_bytes());
            let _ = NdView::parse(&bytes, true);
        }
    }
}
