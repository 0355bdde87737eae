//! ICMP errors (RFC 792): what a sender of IPv4 is told of a packet that died here.
//!
//! In: the packet as it came, why it died, and who speaks. Out: is an error due, and its bytes.
//! Never: an error about an error, a later fragment or a group (RFC 1812 4.3.2.7).
//!
//! The packet is quoted as it came, also where its checksum is undone and where it stands for
//! several segments: the kernel's `__icmp_send` copies the bytes as they lie (`icmp_glue_bits`).
//! No receiver checks a quoted checksum, since a quote is cut short; it looks for the flow.

use etherparse::icmpv4::{DestUnreachableHeader, ParameterProblemHeader, TimeExceededCode};
use etherparse::{Icmpv4Type, IpDscp, IpEcn, IpHeaders, IpNumber, Ipv4Header, PacketBuilder};

use super::{Speaker, TTL, finish};
use crate::addr::Mac;
use crate::frame::ipv4::{self, Ipv4View};
use crate::frame::options;
use crate::frame::transport::{ICMP, Transport};
use crate::verdict::DropReason;

/// Bytes of the original that an ICMP error carries: as much as fits 576 bytes (RFC 1812 4.3.2.3),
/// as the kernel's `icmp_send` does.
pub(crate) const QUOTE_MAX: usize = 576 - 20 - 8;

/// The TOS bits that an error takes over from its cause (`IPTOS_TOS_MASK`), and the precedence it
/// is given, internetwork control (RFC 1812 4.3.2.5).
const TOS_MASK: u8 = 0x1e;
const TOS_INTERNETWORK_CONTROL: u8 = 0xc0;

/// The ICMP error that the death of `packet` calls for, if any: RFC 1812 5.2.7 and 5.3. `quoted`
/// begins with the packet as it came; `mtu` is that of the port which it is too big for.
pub(crate) fn due(
    reason: DropReason,
    packet: &Ipv4View,
    quoted: &[u8],
    mtu: Option<u16>,
) -> Option<Icmpv4Type> {
    let unreachable = |header| Some(Icmpv4Type::DestinationUnreachable(header));
    let kind = match reason {
        DropReason::TtlExpired => Some(Icmpv4Type::TimeExceeded(
            TimeExceededCode::TtlExceededInTransit,
        )),
        DropReason::NoRoute => unreachable(DestUnreachableHeader::Network),
        DropReason::NoSuchPod | DropReason::NeighbourFailed => {
            unreachable(DestUnreachableHeader::Host)
        }
        DropReason::TooBig => mtu.and_then(|next_hop_mtu| {
            unreachable(DestUnreachableHeader::FragmentationNeeded { next_hop_mtu })
        }),
        DropReason::MalformedOptions => option_at_fault(packet, quoted).map(|at| {
            Icmpv4Type::ParameterProblem(ParameterProblemHeader::PointerIndicatesError(at))
        }),
        _ => None,
    }?;
    may_be_told(packet).then_some(kind)
}

/// Where the options are wrong, from the start of the packet.
fn option_at_fault(packet: &Ipv4View, quoted: &[u8]) -> Option<u8> {
    let header = quoted.get(..usize::from(packet.header_len))?;
    let pointer = options::check_v4(header).err()?.pointer?;
    u8::try_from(pointer).ok()
}

/// RFC 1812 4.3.2.7: who never hears of an error.
fn may_be_told(packet: &Ipv4View) -> bool {
    let about_an_error = packet.protocol == ICMP && !is_question(packet.transport);
    !about_an_error
        && packet.fragment_offset == 0
        && !ipv4::is_martian_source(packet.source)
        && !ipv4::is_unroutable_target(packet.target)
}

/// A type that is known, and no error (`icmp_pointers` of net/ipv4/icmp.c). What is not known may
/// be one.
fn is_question(transport: Transport) -> bool {
    matches!(
        transport,
        Transport::Icmp {
            kind: 0 | 8..=10 | 13..=18,
            ..
        }
    )
}

/// Writes the error into `room`, from `speaker` to the station `sender`. `quoted` begins with
/// `packet` as it came, from its IP header on; `identification` is the error's own (RFC 791 2.3).
/// Returns its length, or nothing if the speaker has no address of this family.
pub(crate) fn write(
    room: &mut [u8],
    kind: Icmpv4Type,
    (packet, quoted): (&Ipv4View, &[u8]),
    sender: Mac,
    speaker: Speaker,
    identification: u16,
) -> Option<usize> {
    let whole = quoted.len().min(usize::from(packet.total_len));
    let quote = &quoted[..whole.min(QUOTE_MAX)];
    let tos = quoted[1] & TOS_MASK | TOS_INTERNETWORK_CONTROL;
    let header = Ipv4Header {
        dscp: IpDscp::try_new(tos >> 2).ok()?,
        ecn: IpEcn::try_new(tos & 3).ok()?,
        identification,
        // The kernel's ICMP socket does not discover path MTUs (`IP_PMTUDISC_DONT`).
        dont_fragment: false,
        time_to_live: TTL,
        protocol: IpNumber::ICMP,
        source: speaker.addresses.v4?.octets(),
        destination: packet.source.octets(),
        ..Ipv4Header::default()
    };
    let builder = PacketBuilder::ethernet2(speaker.mac.octets(), sender.octets())
        .ip(IpHeaders::Ipv4(header, Default::default()))
        .icmpv4(kind);
    finish(room, builder.size(quote.len()), |out| {
        builder.write(out, quote).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::frame::{FrameView, Network};
    use crate::tables::Addresses;

    const POD: Mac = Mac::new([2, 0, 0, 0, 0, 0x31]);
    const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);
    const GATEWAY: Speaker = Speaker {
        mac: Mac::new([2, 0, 0, 0, 0, 1]),
        addresses: Addresses {
            v4: Some(GATEWAY_V4),
            v6: None,
        },
    };

    fn packet(
        write: impl FnOnce(etherparse::PacketBuilderStep<etherparse::IpHeaders>) -> Vec<u8>,
    ) -> Vec<u8> {
        write(
            PacketBuilder::ethernet2(POD.octets(), GATEWAY.mac.octets()).ipv4(
                [10, 244, 1, 6],
                [10, 244, 0, 7],
                1,
            ),
        )
    }

    fn view(frame: &[u8]) -> Ipv4View {
        match FrameView::parse(frame).map(|view| view.network()) {
            Ok(Network::Ipv4(ip)) => ip,
            other => panic!("not IPv4: {other:?}"),
        }
    }

    fn errs(reason: DropReason, frame: &[u8]) -> Option<Vec<u8>> {
        let mut room = vec![0; 2048];
        let packet = view(frame);
        let kind = due(reason, &packet, &frame[14..], Some(1400))?;
        let len = write(&mut room, kind, (&packet, &frame[14..]), POD, GATEWAY, 7)?;
        room.truncate(len);
        Some(room)
    }

    /// Puts the right checksum into the IPv4 header.
    fn mend(frame: &mut [u8]) {
        frame[24..26].fill(0);
        let sum = crate::frame::checksum::checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }

    fn ping() -> Vec<u8> {
        packet(|b| {
            let mut out = Vec::new();
            b.icmpv4_echo_request(1, 2)
                .write(&mut out, &[7; 56])
                .expect("a vector");
            out
        })
    }

    #[test]
    fn an_expired_packet_comes_back_quoted_from_the_gateway() {
        let answer = errs(DropReason::TtlExpired, &ping()).expect("an error is due");
        let ip = view(&answer);
        assert_eq!(
            (ip.source, ip.target, ip.ttl),
            (GATEWAY_V4, [10, 244, 1, 6].into(), 64)
        );
        assert_eq!(ip.transport, Transport::Icmp { kind: 11, code: 0 });
        assert_eq!(
            answer[14 + 20 + 8..],
            ping()[14..],
            "the whole original is quoted"
        );
        assert_eq!(&answer[..6], &POD.octets());
    }

    #[test]
    fn its_own_header_is_as_the_kernels() {
        // TOS of the cause, and of the error: RFC 1812 4.3.2.5.
        for (cause, error) in [(0, 0xc0), (0x10, 0xd0), (0xb8, 0xd8), (0xff, 0xde)] {
            let mut frame = ping();
            frame[15] = cause;
            mend(&mut frame);
            let answer = errs(DropReason::TtlExpired, &frame).expect("due");
            assert_eq!(answer[15], error);
            assert_eq!(answer[18..20], [0, 7], "identification");
            assert_eq!(answer[20..22], [0, 0], "DF is clear, and it is no fragment");
            let packet = etherparse::SlicedPacket::from_ethernet(&answer).expect("sound");
            let Some(etherparse::TransportSlice::Icmpv4(icmp)) = packet.transport else {
                panic!("not ICMP");
            };
            let sum = icmp.icmp_type().calc_checksum(icmp.payload());
            assert_eq!(icmp.checksum(), sum);
        }
    }

    #[test]
    fn each_death_has_the_type_and_code_of_the_rfc() {
        let kinds = |reason| {
            errs(reason, &ping()).map(|answer| match view(&answer).transport {
                Transport::Icmp { kind, code } => (kind, code),
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(kinds(DropReason::NoSuchPod), Some((3, 1)));
        assert_eq!(kinds(DropReason::NeighbourFailed), Some((3, 1)));
        assert_eq!(kinds(DropReason::NoRoute), Some((3, 0)));
        assert_eq!(kinds(DropReason::TooBig), Some((3, 4)));
        assert_eq!(kinds(DropReason::Blackhole), None);
        let too_big = errs(DropReason::TooBig, &ping()).expect("due");
        assert_eq!(
            u16::from_be_bytes([too_big[40], too_big[41]]),
            1400,
            "RFC 1191 next-hop MTU"
        );
    }

    #[test]
    fn of_icmp_only_what_is_surely_no_error_is_answered() {
        for kind in 0..=u8::MAX {
            let mut frame = ping();
            frame[34] = kind;
            let told = errs(DropReason::TtlExpired, &frame).is_some();
            let question = [0, 8, 9, 10, 13, 14, 15, 16, 17, 18].contains(&kind);
            assert_eq!(told, question, "type {kind}");
        }
        let mut cut_short = ping();
        cut_short[17] = 20 + 3;
        mend(&mut cut_short);
        assert_eq!(errs(DropReason::TtlExpired, &cut_short), None);
    }

    #[test]
    fn nobody_is_told_who_is_not_one_host_nor_what_went_to_many() {
        for (at, address) in [
            (26, [0, 0, 0, 0]),
            (26, [127, 0, 0, 1]),
            (26, [224, 0, 0, 1]),
            (26, [255, 255, 255, 255]),
            (30, [224, 0, 0, 1]),
            (30, [255, 255, 255, 255]),
        ] {
            let mut frame = ping();
            frame[at..at + 4].copy_from_slice(&address);
            mend(&mut frame);
            assert_eq!(errs(DropReason::TtlExpired, &frame), None, "{address:?}");
        }
    }

    #[test]
    fn an_error_is_never_about_an_error_or_a_later_fragment() {
        let first = errs(DropReason::TtlExpired, &ping()).expect("due");
        assert_eq!(errs(DropReason::TtlExpired, &first), None);
        let mut fragment = ping();
        fragment[14 + 7] = 1;
        mend(&mut fragment);
        assert_eq!(errs(DropReason::TtlExpired, &fragment), None);
    }

    #[test]
    fn a_long_packet_is_quoted_as_far_as_576_bytes_allow() {
        let long = packet(|b| {
            let mut out = Vec::new();
            b.udp(1, 2).write(&mut out, &[0; 1200]).expect("a vector");
            out
        });
        let answer = errs(DropReason::TtlExpired, &long).expect("due");
        assert_eq!(answer.len(), 14 + 576);
    }
}
