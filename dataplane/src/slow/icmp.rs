//! ICMP errors: what a sender is told of a packet that died here.
//!
//! In: the packet as it came, why it died, and who speaks. Out: the bytes of one frame.
//! Never: an error about an error, a later fragment or a group (RFC 1812 4.3.2.7).

use etherparse::icmpv4::{DestUnreachableHeader, TimeExceededCode};
use etherparse::{Icmpv4Type, PacketBuilder};

use super::{Speaker, TTL, finish};
use crate::addr::Mac;
use crate::frame::ipv4::Ipv4View;
use crate::frame::transport::{ICMP, Transport};
use crate::verdict::DropReason;

/// Bytes of the original that an ICMP error carries: as much as fits 576 bytes (RFC 1812 4.3.2.3),
/// as the kernel's `icmp_send` does.
pub(crate) const QUOTE_MAX: usize = 576 - 20 - 8;

/// Which ICMP error a death calls for, if any: RFC 1812 5.2.7 and 5.3.
fn icmp_type(reason: DropReason, mtu: u16) -> Option<Icmpv4Type> {
    let unreachable = |header| Some(Icmpv4Type::DestinationUnreachable(header));
    match reason {
        DropReason::TtlExpired => Some(Icmpv4Type::TimeExceeded(
            TimeExceededCode::TtlExceededInTransit,
        )),
        DropReason::NoRoute => unreachable(DestUnreachableHeader::Network),
        DropReason::NoSuchPod | DropReason::NeighbourFailed => {
            unreachable(DestUnreachableHeader::Host)
        }
        DropReason::TooBig => {
            unreachable(DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu })
        }
        _ => None,
    }
}

/// Writes the ICMP error that the death of `packet` calls for into `room`, from `speaker` to the
/// station `sender`. `quoted` is the packet as it came, from its IP header on. Returns its length,
/// or nothing where none is due: RFC 1812 4.3.2.7.
pub(crate) fn error(
    room: &mut [u8],
    reason: DropReason,
    packet: &Ipv4View,
    quoted: &[u8],
    sender: Mac,
    speaker: Speaker,
    mtu: u16,
) -> Option<usize> {
    let kind = icmp_type(reason, mtu)?;
    let about_an_error = packet.protocol == ICMP
        && !matches!(
            packet.transport,
            Transport::Icmp {
                kind: 0 | 8 | 13..=18,
                ..
            }
        );
    if about_an_error || packet.fragment_offset != 0 || sender.is_group() {
        return None;
    }
    let quote = &quoted[..quoted
        .len()
        .min(usize::from(packet.total_len))
        .min(QUOTE_MAX)];
    let builder = PacketBuilder::ethernet2(speaker.mac.octets(), sender.octets())
        .ipv4(speaker.addresses.v4?.octets(), packet.source.octets(), TTL)
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
        let len = super::error(
            &mut room,
            reason,
            &view(frame),
            &frame[14..],
            POD,
            GATEWAY,
            1400,
        )?;
        room.truncate(len);
        Some(room)
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
    fn an_error_is_never_about_an_error_or_a_later_fragment() {
        let first = errs(DropReason::TtlExpired, &ping()).expect("due");
        assert_eq!(errs(DropReason::TtlExpired, &first), None);
        let mut fragment = ping();
        fragment[14 + 7] = 1;
        fragment[14 + 10..14 + 12].fill(0);
        let sum = crate::frame::checksum::checksum(&fragment[14..34]);
        fragment[24..26].copy_from_slice(&sum.to_be_bytes());
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
