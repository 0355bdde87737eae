//! ICMPv6 errors (RFC 4443): what a sender of IPv6 is told of a packet that died here.
//!
//! In: the packet as it came, why it died, and who speaks. Out: is an error due, and its bytes.
//! Never: an error about an error, a redirect, a group, or a packet of nobody (RFC 4443 2.4 e).
//!
//! A packet too big that went to a group would be an exception (RFC 4443 2.4 e.3), but groups are
//! not routed here, so nothing measures such a packet. An unrecognised next header is for the
//! packet's target to complain of: a router passes on what it does not know (RFC 8200 section 4).
//! Later fragments are answered, unlike those of IPv4: only the sender can make them smaller.

use etherparse::icmpv6::{
    DestUnreachableCode, ParameterProblemCode, ParameterProblemHeader, TimeExceededCode,
};
use etherparse::{Icmpv6Type, IpHeaders, IpNumber, Ipv6Header, PacketBuilder};

use super::{Speaker, TTL, finish};
use crate::addr::Mac;
use crate::frame::ipv6::{self, Ipv6View};
use crate::frame::options;
use crate::frame::transport::{ICMPV6, Transport};
use crate::verdict::DropReason;

/// Bytes of the original that an ICMPv6 error carries: as much as fits the smallest MTU
/// (RFC 4443 2.4 c), as the kernel's `icmp6_send` does.
pub(crate) const QUOTE_MAX: usize = ipv6::MTU_MIN as usize - ipv6::HEADER_LEN - 8;

/// The lowest type that is no error (RFC 4443 2.1).
const INFORMATIONAL_MIN: u8 = 128;
/// A redirect is none, and yet nobody may be told of one (RFC 4443 2.4 e.2).
const REDIRECT: u8 = 137;

/// The ICMPv6 error that the death of `packet` calls for, if any: RFC 4443 section 3. `quoted`
/// begins with the packet as it came; `mtu` is that of the port which it is too big for.
pub(crate) fn due(
    reason: DropReason,
    packet: &Ipv6View,
    quoted: &[u8],
    mtu: Option<u16>,
) -> Option<Icmpv6Type> {
    let unreachable = |code| Some(Icmpv6Type::DestinationUnreachable(code));
    let kind = match reason {
        DropReason::TtlExpired => {
            Some(Icmpv6Type::TimeExceeded(TimeExceededCode::HopLimitExceeded))
        }
        DropReason::NoRoute => unreachable(DestUnreachableCode::NoRoute),
        DropReason::NoSuchPod | DropReason::NeighbourFailed => {
            unreachable(DestUnreachableCode::Address)
        }
        DropReason::TooBig => mtu.map(|mtu| Icmpv6Type::PacketTooBig {
            mtu: mtu.max(ipv6::MTU_MIN).into(),
        }),
        // The kernel would carry a routing header on, so its sender deserves to hear of it.
        DropReason::SourceRouted => unreachable(DestUnreachableCode::Prohibited),
        DropReason::BeyondScope => unreachable(DestUnreachableCode::BeyondScope),
        DropReason::UnknownOption => {
            option_at_fault(quoted, ParameterProblemCode::UnrecognizedIpv6Option)
        }
        DropReason::MalformedOptions => {
            option_at_fault(quoted, ParameterProblemCode::ErroneousHeaderField)
        }
        _ => None,
    }?;
    may_be_told(packet, quoted).then_some(kind)
}

/// RFC 4443 3.4: which byte of the hop-by-hop options is at fault, where the sender is to hear it.
fn option_at_fault(quoted: &[u8], code: ParameterProblemCode) -> Option<Icmpv6Type> {
    let pointer = options::check_hop_by_hop(quoted).err()?.pointer?.into();
    Some(Icmpv6Type::ParameterProblem(ParameterProblemHeader {
        code,
        pointer,
    }))
}

/// RFC 4443 2.4 e: who never hears of an error.
fn may_be_told(packet: &Ipv6View, quoted: &[u8]) -> bool {
    !is_error(packet, quoted)
        && !ipv6::is_martian_source(packet.source)
        && !packet.target.is_multicast()
}

/// An error, or a message that is too short to tell. What a later fragment carries cannot be told
/// either, but that one is answered: see above, and `is_ineligible` of net/ipv6/icmp.c.
fn is_error(packet: &Ipv6View, quoted: &[u8]) -> bool {
    if packet.protocol != ICMPV6 || packet.fragment_offset > 0 {
        return false;
    }
    let message = quoted.get(usize::from(packet.header_len)..);
    match message.map(|message| Transport::parse(ICMPV6, message)) {
        Some(Transport::Icmp { kind, .. }) => kind < INFORMATIONAL_MIN || kind == REDIRECT,
        _ => true,
    }
}

/// Writes the error into `room`, from `speaker` to the station `sender`. `quoted` begins with
/// `packet` as it came, from its IPv6 header on. Returns its length, or nothing if the speaker has
/// no address of this family.
pub(crate) fn write(
    room: &mut [u8],
    kind: Icmpv6Type,
    (packet, quoted): (&Ipv6View, &[u8]),
    sender: Mac,
    speaker: Speaker,
) -> Option<usize> {
    let whole = ipv6::HEADER_LEN + usize::from(packet.payload_len);
    let quote = &quoted[..quoted.len().min(whole).min(QUOTE_MAX)];
    let header = Ipv6Header {
        next_header: IpNumber::IPV6_ICMP,
        hop_limit: TTL,
        source: speaker.addresses.v6?.octets(),
        destination: packet.source.octets(),
        ..Ipv6Header::default()
    };
    let builder = PacketBuilder::ethernet2(speaker.mac.octets(), sender.octets())
        .ip(IpHeaders::Ipv6(header, Default::default()))
        .icmpv6(kind);
    finish(room, builder.size(quote.len()), |out| {
        builder.write(out, quote).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::frame::{FrameView, Network};
    use crate::tables::Addresses;

    const POD: Mac = Mac::new([2, 0, 0, 0, 0, 0x31]);
    const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 1);
    const POD_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 6);
    const FAR_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 2, 0, 0, 0, 7);
    const GATEWAY: Speaker = Speaker {
        mac: Mac::new([2, 0, 0, 0, 0, 1]),
        addresses: Addresses {
            v4: None,
            v6: Some(GATEWAY_V6),
        },
    };

    /// A frame of a pod whose first header behind the fixed one is `next`.
    fn frame(source: Ipv6Addr, target: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = [GATEWAY.mac.octets(), POD.octets()].concat();
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        bytes.extend((payload.len() as u16).to_be_bytes());
        bytes.extend([next, 1]);
        bytes.extend(source.octets());
        bytes.extend(target.octets());
        bytes.extend(payload);
        bytes
    }

    fn icmp(kind: u8) -> Vec<u8> {
        frame(POD_V6, FAR_V6, ICMPV6, &[kind, 0, 0, 0, 0, 1, 0, 2])
    }

    fn view(frame: &[u8]) -> Ipv6View {
        match FrameView::parse(frame).map(|view| view.network()) {
            Ok(Network::Ipv6(ip)) => ip,
            other => panic!("not IPv6: {other:?}"),
        }
    }

    fn errs_at(mtu: u16, reason: DropReason, frame: &[u8]) -> Option<Vec<u8>> {
        let mut room = vec![0; 2048];
        let packet = view(frame);
        let kind = due(reason, &packet, &frame[14..], Some(mtu))?;
        let len = write(&mut room, kind, (&packet, &frame[14..]), POD, GATEWAY)?;
        room.truncate(len);
        Some(room)
    }

    fn errs(reason: DropReason, frame: &[u8]) -> Option<Vec<u8>> {
        errs_at(1400, reason, frame)
    }

    #[test]
    fn an_expired_packet_comes_back_quoted_from_the_gateway() {
        let answer = errs(DropReason::TtlExpired, &icmp(128)).expect("an error is due");
        let ip = view(&answer);
        assert_eq!(
            (ip.source, ip.target, ip.hop_limit),
            (GATEWAY_V6, POD_V6, 64)
        );
        assert_eq!(ip.transport, Transport::Icmp { kind: 3, code: 0 });
        assert_eq!(answer[14 + 48..], icmp(128)[14..], "all of it is quoted");
        assert_eq!(&answer[..6], &POD.octets());
        let packet = etherparse::SlicedPacket::from_ethernet(&answer).expect("sound");
        let Some(etherparse::TransportSlice::Icmpv6(message)) = packet.transport else {
            panic!("not ICMPv6");
        };
        assert!(message.is_checksum_valid(GATEWAY_V6.octets(), POD_V6.octets()));
    }

    #[test]
    fn each_death_has_the_type_and_code_of_rfc_4443() {
        let kinds = |reason| {
            errs(reason, &icmp(128)).map(|answer| match view(&answer).transport {
                Transport::Icmp { kind, code } => (kind, code),
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(kinds(DropReason::NoRoute), Some((1, 0)), "3.1");
        assert_eq!(kinds(DropReason::NoSuchPod), Some((1, 3)), "3.1");
        assert_eq!(kinds(DropReason::NeighbourFailed), Some((1, 3)), "3.1");
        assert_eq!(kinds(DropReason::TooBig), Some((2, 0)), "3.2");
        assert_eq!(kinds(DropReason::TtlExpired), Some((3, 0)), "3.3");
        assert_eq!(kinds(DropReason::Blackhole), None);
    }

    #[test]
    fn a_packet_too_big_tells_the_mtu_and_never_less_than_1280() {
        for (mtu, told) in [(1400, 1400), (1280, 1280), (1000, 1280), (u16::MAX, 65_535)] {
            let answer = errs_at(mtu, DropReason::TooBig, &icmp(128)).expect("due");
            let field = u32::from_be_bytes(answer[58..62].try_into().expect("four bytes"));
            assert_eq!(field, told);
        }
    }

    #[test]
    fn an_error_fits_the_smallest_mtu() {
        for (payload, quoted) in [(100, 140), (1192, 1232), (1193, 1232), (1400, 1232)] {
            let long = frame(POD_V6, FAR_V6, 59, &vec![7; payload]);
            let answer = errs(DropReason::TtlExpired, &long).expect("due");
            assert_eq!(answer.len(), 14 + 40 + 8 + quoted);
            assert_eq!(answer[62..], long[14..14 + quoted]);
        }
    }

    #[test]
    fn never_about_an_error_or_a_redirect_wherever_it_hides() {
        let options = [ICMPV6, 0, 1, 4, 0, 0, 0, 0];
        let first_fragment = [ICMPV6, 0, 0, 1, 0, 0, 0, 9];
        let later_fragment = [ICMPV6, 0, 0, 8, 0, 0, 0, 9];
        for kind in 0..=u8::MAX {
            let informs = kind >= 128 && kind != 137;
            let message = [kind, 0, 0, 0, 0, 1, 0, 2];
            for (next, before, due) in [
                (ICMPV6, &[][..], informs),
                (60, &options[..], informs),
                (44, &first_fragment[..], informs),
                (44, &later_fragment[..], true),
            ] {
                let bytes = frame(POD_V6, FAR_V6, next, &[before, &message].concat());
                let told = errs(DropReason::TtlExpired, &bytes).is_some();
                assert_eq!(told, due, "type {kind} behind {before:?}");
            }
        }
        let cut_short = frame(POD_V6, FAR_V6, ICMPV6, &[128, 0, 0]);
        assert_eq!(errs(DropReason::TtlExpired, &cut_short), None);
    }

    #[test]
    fn nobody_is_told_who_is_not_one_host_nor_what_went_to_many() {
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        for (source, target) in [
            (Ipv6Addr::UNSPECIFIED, FAR_V6),
            (Ipv6Addr::LOCALHOST, FAR_V6),
            (group, FAR_V6),
            (POD_V6, group),
        ] {
            let bytes = frame(source, target, 59, &[]);
            assert_eq!(errs(DropReason::TtlExpired, &bytes), None);
            assert_eq!(errs(DropReason::TooBig, &bytes), None);
        }
    }
}
