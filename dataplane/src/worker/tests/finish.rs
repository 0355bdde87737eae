//! Ports that take only finished frames, beside ports that take all.

use super::*;
use crate::port::Capabilities;
use crate::port::memory::WireFrame;
use crate::segment::complete;

fn takes_finished_only(rig: &mut Rig, at: usize) {
    let end = rig.worker.detach(port(at)).expect("attached");
    rig.worker.attach(port(at), end.with(Capabilities::WIRE));
}

/// TCP from pod-a with its checksum undone, to `to` at `target`.
fn undone(target: Mac, to: &str, payload: usize, gso_size: u16) -> (Vec<u8>, Offload) {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(POD_A.octets(), target.octets())
        .ipv4(ip("10.244.1.6").octets(), ip(to).octets(), 64)
        .tcp(4000, 80, 1, 1024)
        .write(&mut frame, &vec![7; payload])
        .expect("writing to a vector cannot fail");
    let pseudo = crate::frame::checksum::sum(&frame[26..34], 6 + 20 + payload as u32);
    frame[50..52].copy_from_slice(&pseudo.to_be_bytes());
    let offload = Offload {
        flags: NEEDS_CSUM,
        gso_type: if gso_size > 0 { GSO_TCPV4 } else { 0 },
        hdr_len: 54,
        gso_size,
        csum_start: 34,
        csum_offset: 16,
    };
    (frame, offload)
}

fn is_finished(frame: &[u8]) -> bool {
    let packet = etherparse::SlicedPacket::from_ethernet(frame).expect("sound");
    let (Some(etherparse::NetSlice::Ipv4(ip)), Some(etherparse::TransportSlice::Tcp(tcp))) =
        (packet.net, packet.transport)
    else {
        return false;
    };
    let sum = tcp
        .to_header()
        .calc_checksum_ipv4(&ip.header().to_header(), tcp.payload());
    sum == Ok(tcp.checksum())
}

#[test]
fn a_super_frame_leaves_in_pieces_and_each_is_counted() {
    let mut rig = Rig::new(&kubenet());
    takes_finished_only(&mut rig, B);
    let (frame, offload) = undone(POD_B, "10.244.1.7", 3000, 1000);
    let (counts, out) = rig.put_with(A, &frame, offload);
    let expected = Counts {
        received: 1,
        copied: 2,
        transmitted: 3,
        ..Counts::default()
    };
    assert_eq!(counts, expected);
    assert!(out.iter().all(|(at, piece)| *at == B && is_finished(piece)));
    let sent = rig.worker.board().port(port(B));
    assert_eq!((sent.transmitted, sent.transmitted_bytes), (3, 3 * 1054));
}

#[test]
fn a_super_frame_of_one_piece_and_a_partial_sum_are_completed() {
    for gso_size in [0, 100, 1000] {
        let mut rig = Rig::new(&kubenet());
        takes_finished_only(&mut rig, B);
        let (frame, offload) = undone(POD_B, "10.244.1.7", 100, gso_size);
        let (counts, out) = rig.put_with(A, &frame, offload);
        assert_eq!((counts.copied, counts.transmitted, out.len()), (0, 1, 1));
        assert!(is_finished(&out[0].1));
    }
}

#[test]
fn a_flood_gives_each_port_what_it_can_take_and_spoils_it_for_none() {
    let nobody = Mac::new([2, 0, 0, 0, 0, 0x77]);
    for (finished, whole) in [(HOST, B), (B, HOST)] {
        for gso_size in [0, 1000] {
            let mut rig = Rig::new(&kubenet());
            takes_finished_only(&mut rig, finished);
            let (bytes, offload) = undone(nobody, "10.244.1.99", 2500, gso_size);
            let pieces = if gso_size == 0 { 1 } else { 3 };
            rig.peers[A].send_with(&bytes, offload).expect("room");
            rig.worker.wake_all();
            rig.worker.breathe(Tick(0));
            let counts = rig.worker.board().counts();
            assert_eq!((counts.copied, counts.transmitted), (pieces, pieces + 1));
            assert_eq!(
                rig.peers[whole].receive(),
                Some(WireFrame { bytes, offload })
            );
            let got: Vec<_> = std::iter::from_fn(|| rig.peers[finished].receive()).collect();
            assert_eq!(got.len() as u64, pieces);
            assert!(
                got.iter()
                    .all(|f| f.offload == Offload::NONE && is_finished(&f.bytes))
            );
        }
    }
}

#[test]
fn pieces_that_a_full_port_refuses_are_counted_one_by_one() {
    let mut rig = Rig::new(&kubenet());
    takes_finished_only(&mut rig, B);
    let (frame, offload) = undone(POD_B, "10.244.1.7", 300 * 100, 100);
    let (counts, out) = rig.put_with(A, &frame, offload);
    assert_eq!((counts.received, counts.copied), (1, 299));
    assert_eq!((counts.transmitted, out.len()), (256, 256));
    assert_eq!(counts.dropped.of(DropReason::QueueFull), 44);
}

#[test]
fn a_header_that_lies_dies_at_the_port_that_asked_for_the_truth() {
    let (frame, offload) = undone(POD_B, "10.244.1.7", 3000, 1000);
    let elsewhere = Offload {
        csum_start: 36,
        ..offload
    };
    let sctp = Offload {
        gso_type: 0,
        gso_size: 0,
        csum_offset: 8,
        ..offload
    };
    for lie in [elsewhere, sctp] {
        let mut rig = Rig::new(&kubenet());
        takes_finished_only(&mut rig, B);
        let (counts, out) = rig.put_with(A, &frame, lie);
        assert_eq!(counts.dropped, Drops::one(DropReason::BadOffload));
        assert_eq!(rig.worker.board().port(port(B)).dropped.total(), 1);
        assert_eq!(out, []);
    }
}

#[test]
fn completing_equals_what_the_segment_module_says() {
    let (mut frame, offload) = undone(POD_B, "10.244.1.7", 77, 0);
    assert!(!is_finished(&frame));
    complete(&mut frame, offload).expect("sound");
    assert!(is_finished(&frame));
}

#[test]
fn a_checksum_that_was_to_go_behind_the_packet_dies_with_its_place() {
    let mut rig = Rig::new(&kubenet());
    let mut frame = ping(POD_A, GATEWAY, "10.244.1.6", "10.244.1.7", 64);
    let end = frame.len();
    frame.extend([0; 40]);
    let lie = Offload {
        flags: NEEDS_CSUM,
        csum_start: end as u16 + 2,
        csum_offset: 6,
        ..Offload::NONE
    };
    let (counts, out) = rig.put_with(A, &frame, lie);
    assert_eq!(counts.dropped, Drops::one(DropReason::BadOffload));
    assert_eq!(out, []);
    let at_the_door = rig.worker.board().port(port(B)).dropped;
    assert_eq!(at_the_door, Drops::one(DropReason::BadOffload));
    let (_, out) = rig.put_with(A, &frame, Offload::NONE);
    assert_eq!(
        (out[0].0, out[0].1.len()),
        (B, end),
        "what is behind it is cut off"
    );
}
