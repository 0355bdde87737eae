//! Packets that leave in fragments: RFC 791 3.2 and RFC 1812 5.2.6, with all their effects.

use super::errors::{IN, OUT, dual, udp};
use super::*;
use crate::frame::checksum::{checksum, sum};
use crate::frame::offload::GSO_UDP_L4;

/// The same packet, which may be cut.
fn allow(mut frame: Vec<u8>) -> Vec<u8> {
    frame[20] &= !0x40;
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The UDP datagrams that fragments come together to, by identification and in order of arrival.
fn datagrams(fragments: &[Delivery]) -> Vec<Vec<u8>> {
    let mut found: Vec<(u16, Vec<u8>)> = Vec::new();
    for (_, bytes) in fragments {
        let slice = etherparse::Ipv4HeaderSlice::from_slice(&bytes[14..]).expect("sound");
        let header = slice.to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        let at = usize::from(header.fragment_offset.byte_offset());
        if at == 0 {
            found.push((header.identification, Vec::new()));
        }
        let (id, so_far) = found.last_mut().expect("the first comes first");
        assert_eq!((*id, so_far.len()), (header.identification, at));
        so_far.extend(&bytes[14 + header.header_len()..]);
        assert_eq!(header.more_fragments, bytes.len() == 14 + 1396);
    }
    found.into_iter().map(|(_, datagram)| datagram).collect()
}

/// The checksum over pseudo-header and datagram, which is 0xffff where it is right.
fn udp_sum(frame: &[u8], datagram: &[u8]) -> u16 {
    let pseudo = sum(&frame[26..34], 17 + datagram.len() as u32);
    sum(datagram, pseudo.into())
}

#[test]
fn a_ping_of_4000_bytes_leaves_by_an_uplink_of_1400_in_three() {
    let frame = allow(udp(OUT, "10.244.1.6", "10.244.2.7", 64, 4000));
    let mut rig = Rig::new(&dual());
    let (counts, out) = rig.put(A, &frame);
    let expected = Counts {
        received: 1,
        copied: 2,
        transmitted: 3,
        ..Counts::default()
    };
    assert_eq!(counts, expected);
    assert!(out.iter().all(|(at, _)| *at == UPLINK));
    for (_, bytes) in &out {
        let seen = see(bytes);
        assert_eq!(
            (seen.source.mac(), seen.target, ttl(&seen)),
            (NIC, FABRIC, 63)
        );
    }
    assert_eq!(datagrams(&out), [&frame[34..]]);
}

#[test]
fn an_undone_checksum_is_completed_before_the_packet_is_cut() {
    let mut frame = allow(udp(OUT, "10.244.1.6", "10.244.2.7", 64, 4000));
    let pseudo = sum(&frame[26..34], 17 + 4008);
    frame[40..42].copy_from_slice(&pseudo.to_be_bytes());
    let offload = Offload {
        flags: NEEDS_CSUM,
        csum_start: 34,
        csum_offset: 6,
        ..Offload::NONE
    };
    let (_, out) = Rig::new(&dual()).put_with(A, &frame, offload);
    let whole = datagrams(&out);
    assert_eq!((out.len(), whole.len()), (3, 1));
    assert_eq!(udp_sum(&frame, &whole[0]), 0xffff);
}

#[test]
fn segments_that_exceed_the_mtu_are_cut_one_by_one_as_in_the_kernel() {
    let mut frame = allow(udp(OUT, "10.244.1.6", "10.244.2.7", 64, 4000));
    let pseudo = sum(&frame[26..34], 17 + 4008);
    frame[40..42].copy_from_slice(&pseudo.to_be_bytes());
    let offload = |gso_size| Offload {
        flags: NEEDS_CSUM,
        gso_type: GSO_UDP_L4,
        hdr_len: 42,
        gso_size,
        csum_start: 34,
        csum_offset: 6,
    };
    // Two segments of 1500 and one of 1000: the first two in two fragments each.
    let (counts, out) = Rig::new(&dual()).put_with(A, &frame, offload(1500));
    assert_eq!((counts.copied, counts.transmitted), (4, 5));
    let whole = datagrams(&out);
    let lens: Vec<_> = whole.iter().map(Vec::len).collect();
    assert_eq!(lens, [1508, 1508, 1008]);
    assert!(
        whole
            .iter()
            .all(|datagram| udp_sum(&frame, datagram) == 0xffff)
    );
    // Where the segments fit, the super-frame leaves whole, however long it is.
    let (counts, out) = Rig::new(&dual()).put_with(A, &frame, offload(1372));
    assert_eq!((counts.copied, counts.transmitted), (0, 1));
    assert_eq!(out[0].1.len(), frame.len());
    let (counts, _) = Rig::new(&dual()).put_with(A, &frame, offload(1373));
    assert!(counts.copied > 0);
}

#[test]
fn a_packet_waits_whole_and_is_cut_when_the_neighbour_has_answered() {
    let mut rig = Rig::new(&dual());
    let frame = allow(udp(OUT, "10.244.1.6", "10.244.0.7", 64, 4000));
    let (counts, _) = rig.put(A, &frame);
    assert_eq!((counts.queued, counts.copied), (1, 0));
    let fabric = (FABRIC, "10.20.0.5");
    let answer = arp(Operation::Reply, fabric, (NIC, "10.20.0.4"), NIC);
    let (counts, out) = rig.put(UPLINK, &answer);
    assert_eq!((counts.queued, counts.copied, out.len()), (0, 2, 3));
    assert_eq!(datagrams(&out), [&frame[34..]]);
}

#[test]
fn what_lies_behind_the_packet_is_in_no_fragment() {
    let packet = allow(udp(IN, "10.244.2.7", "10.244.1.7", 64, 1400));
    let padded = [&packet[..], &[0xee; 9]].concat();
    let (counts, out) = Rig::new(&dual()).put(UPLINK, &padded);
    assert_eq!((counts.copied, out.len()), (1, 2));
    let payload: usize = out.iter().map(|(_, bytes)| bytes.len() - 34).sum();
    assert_eq!(payload, packet.len() - 34);
}

#[test]
fn a_lie_about_the_segments_dies_at_the_port() {
    let frame = allow(udp(OUT, "10.244.1.6", "10.244.2.7", 64, 4000));
    let lie = Offload {
        gso_type: GSO_TCPV4,
        gso_size: 2000,
        ..Offload::NONE
    };
    let (counts, out) = Rig::new(&dual()).put_with(A, &frame, lie);
    assert_eq!(counts.dropped, Drops::one(DropReason::BadOffload));
    assert_eq!((counts.copied, out.len()), (0, 0));
}

#[test]
fn a_full_port_loses_fragments_and_each_is_counted() {
    let mut spec = dual();
    spec.ports[UPLINK].mtu = 600;
    let mut rig = Rig::new(&spec);
    let frame = allow(udp(OUT, "10.244.1.6", "10.244.2.7", 64, 30_000));
    for _ in 0..8 {
        rig.peers[A].send_with(&frame, Offload::NONE).expect("room");
    }
    let (counts, out) = rig.breathe();
    // 30,008 bytes in pieces of 576 are 53 fragments; the queue holds 256.
    assert_eq!((counts.received, counts.copied), (8, 8 * 52));
    assert_eq!((counts.transmitted, out.len()), (256, 256));
    assert_eq!(counts.dropped.of(DropReason::QueueFull), 8 * 53 - 256);
}
