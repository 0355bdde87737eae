//! The edits that a verdict asks for, made in place.
//!
//! In: a frame's bytes, its kind, and the [`Rewrite`]. Out: the same frame, ready to leave.
//! Never: touches layer 4 (so a partial checksum stays true), or changes the length.

use crate::frame::arp::{self, ArpView, Operation};
use crate::frame::ethernet::{self, HEADER_LEN};
use crate::frame::{Kind, ipv4, ipv6};
use crate::verdict::Rewrite;

/// Edits `frame`, which is of the given kind. A hop is only asked for where `decide` has checked
/// the header that counts it.
#[inline]
pub fn rewrite(frame: &mut [u8], kind: Kind, edits: Rewrite) {
    if let Some(mac) = edits.target {
        ethernet::set_target(frame, mac);
    }
    if let Some(mac) = edits.source {
        ethernet::set_source(frame, mac);
    }
    let packet = &mut frame[HEADER_LEN..];
    match kind {
        Kind::Ipv4 if edits.hop && packet.len() >= ipv4::HEADER_LEN_MIN => {
            ipv4::decrement_ttl(packet);
        }
        Kind::Ipv6 if edits.hop && packet.len() >= ipv6::HEADER_LEN => {
            ipv6::decrement_hop_limit(packet);
        }
        Kind::Arp => rewrite_arp(packet, edits),
        _ => {}
    }
}

/// Where the frame ends that a routed packet leaves in. Ethernet pads what is shorter than 60 bytes,
/// and whoever pleases appends more; a router takes none of it along (`ip_rcv_core`,
/// net/ipv4/ip_input.c), so that it neither counts for the MTU nor is summed up.
#[inline]
pub(crate) fn routed_len(frame: &[u8], kind: Kind) -> usize {
    let packet = &frame[HEADER_LEN..];
    let says = |at: usize| match packet.get(at..at + 2) {
        Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
        _ => packet.len(),
    };
    let packet_len = match kind {
        Kind::Ipv4 => says(ipv4::TOTAL_LEN_AT),
        Kind::Ipv6 => ipv6::HEADER_LEN + says(ipv6::PAYLOAD_LEN_AT),
        _ => packet.len(),
    };
    HEADER_LEN + packet_len.min(packet.len())
}

/// The addresses that ARP repeats inside.
fn rewrite_arp(packet: &mut [u8], edits: Rewrite) {
    let Ok(before) = ArpView::parse(packet) else {
        return;
    };
    if let Some(mac) = edits.source {
        arp::set_sender_mac(packet, mac);
    }
    if let (Some(mac), Operation::Reply) = (edits.target, before.operation) {
        arp::set_target_mac(packet, mac);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Mac;
    use crate::frame::{FrameView, Network};
    use proptest::prelude::*;

    const A: Mac = Mac::new([2, 0, 0, 0, 0, 0xa]);
    const B: Mac = Mac::new([2, 0, 0, 0, 0, 0xb]);

    #[test]
    fn what_lies_behind_a_packet_is_not_routed_with_it() {
        let mut v4 = Vec::new();
        etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(1, 2)
            .write(&mut v4, b"ping")
            .expect("writing to a vector cannot fail");
        let mut v6 = Vec::new();
        etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv6([0xfd; 16], [0xfe; 16], 64)
            .udp(1, 2)
            .write(&mut v6, b"ping")
            .expect("writing to a vector cannot fail");
        for (mut frame, kind) in [(v4, Kind::Ipv4), (v6, Kind::Ipv6)] {
            let len = frame.len();
            assert_eq!(routed_len(&frame, kind), len);
            frame.resize(len + 14, 0xee);
            assert_eq!(routed_len(&frame, kind), len);
            assert_eq!(routed_len(&frame, Kind::Arp), len + 14);
            assert_eq!(
                routed_len(&frame[..15], kind),
                15,
                "never more than there is"
            );
        }
    }

    proptest! {
        #[test]
        fn a_hop_changes_both_macs_and_the_ttl_and_nothing_else(
            ttl in 2u8.., payload in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
                .ipv4([10, 0, 0, 1], [10, 0, 0, 2], ttl)
                .udp(1, 2);
            let mut bytes = Vec::new();
            builder.write(&mut bytes, &payload).expect("writing to a vector cannot fail");
            let before = bytes.clone();
            let kind = FrameView::parse(&bytes).expect("sound").kind;
            rewrite(&mut bytes, kind, Rewrite { target: Some(A), source: Some(B), hop: true });
            let after = FrameView::parse(&bytes).expect("still sound");
            prop_assert_eq!((after.target, after.source.mac()), (A, B));
            let Network::Ipv4(ip) = after.network() else { panic!("checksum broken") };
            prop_assert_eq!(ip.ttl, ttl - 1);
            prop_assert_eq!(&bytes[34..], &before[34..], "layer 4 is untouched");
        }

        #[test]
        fn any_frame_that_has_a_view_can_be_edited(
            bytes in prop::collection::vec(any::<u8>(), 14..120),
            ether_type in prop::sample::select(vec![0x0800u16, 0x0806, 0x86dd, 0x8100]),
            edits in any::<(bool, bool, bool)>(),
        ) {
            let mut bytes = bytes;
            bytes[12..14].copy_from_slice(&ether_type.to_be_bytes());
            if let Ok(kind) = FrameView::parse(&bytes).map(|view| view.kind) {
                let len = bytes.len();
                let edits = Rewrite {
                    target: edits.0.then_some(A),
                    source: edits.1.then_some(B),
                    hop: edits.2,
                };
                rewrite(&mut bytes, kind, edits);
                prop_assert_eq!(bytes.len(), len);
            }
        }
    }

    #[test]
    fn an_arp_reply_is_readdressed_within_and_without() {
        let packet = arp::ArpView {
            operation: Operation::Reply,
            sender_mac: A,
            sender: [10, 20, 0, 43].into(),
            target_mac: B,
            target: [10, 20, 0, 31].into(),
        };
        let mut frame = vec![0; HEADER_LEN + arp::LEN];
        ethernet::set_target(&mut frame, B);
        ethernet::set_source(&mut frame, A);
        frame[12..14].copy_from_slice(&ethernet::ARP.to_be_bytes());
        packet.write(&mut frame[HEADER_LEN..]);
        let pod = Mac::new([2, 0, 0, 0, 0, 0x31]);
        rewrite(
            &mut frame,
            Kind::Arp,
            Rewrite {
                target: Some(pod),
                ..Rewrite::KEEP
            },
        );
        let view = FrameView::parse(&frame).expect("sound");
        assert_eq!(view.target, pod);
        assert_eq!(
            view.network(),
            Network::Arp(arp::ArpView {
                target_mac: pod,
                ..packet
            })
        );
    }
}
