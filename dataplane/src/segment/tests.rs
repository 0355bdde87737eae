//! Completing and cutting, against a plain reference that builds every segment from its fields.

use super::*;
use crate::frame::offload::NEEDS_CSUM;
use proptest::prelude::*;

/// A packet in the fields that differ from test to test.
#[derive(Clone, Debug)]
struct Fields {
    tags: usize,
    ipv6: bool,
    tcp: bool,
    /// Of IPv4, in words of four bytes; for IPv6 one destination options header of eight.
    ip_options: usize,
    tcp_options: usize,
    id: u16,
    sequence: u32,
    flags: u8,
    payload: Vec<u8>,
}

/// The sum of pairs of bytes, one after the other.
fn plain_sum(bytes: &[u8]) -> u64 {
    let pair = |p: &[u8]| u64::from(p[0]) * 256 + u64::from(*p.get(1).unwrap_or(&0));
    bytes.chunks(2).map(pair).sum()
}

fn plain_fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = sum % 0x1_0000 + sum / 0x1_0000;
    }
    sum as u16
}

impl Fields {
    fn network_at(&self) -> usize {
        14 + 4 * self.tags
    }

    fn transport_at(&self) -> usize {
        self.network_at()
            + match (self.ipv6, self.ip_options) {
                (true, 0) => 40,
                (true, _) => 48,
                (false, words) => 20 + 4 * words,
            }
    }

    fn checksum_at(&self) -> usize {
        if self.tcp { 16 } else { 6 }
    }

    fn protocol(&self) -> u8 {
        if self.tcp { 6 } else { 17 }
    }

    fn addresses(&self) -> Vec<u8> {
        let one = if self.ipv6 { 16 } else { 4 };
        (0..2 * one).map(|at| 0xa0 + at as u8).collect()
    }

    /// TCP or UDP header with a checksum field of zero, and the payload.
    fn segment(&self) -> Vec<u8> {
        let mut bytes = vec![0x1f, 0x90, 0xc3, 0x50];
        if self.tcp {
            bytes.extend(self.sequence.to_be_bytes());
            bytes.extend([1, 2, 3, 4, (5 + self.tcp_options as u8) << 4, self.flags]);
            bytes.extend([0x20, 0, 0, 0, 0, 9]);
            bytes.extend(vec![1; 4 * self.tcp_options]);
        } else {
            bytes.extend((8 + self.payload.len() as u16).to_be_bytes());
            bytes.extend([0, 0]);
        }
        bytes.extend(&self.payload);
        bytes
    }

    fn pseudo(&self, len: usize) -> u64 {
        plain_sum(&self.addresses()) + u64::from(self.protocol()) + len as u64
    }

    /// The frame as it would be on a wire.
    fn frame(&self) -> Vec<u8> {
        let mut segment = self.segment();
        let sum = plain_fold(plain_sum(&segment) + self.pseudo(segment.len()));
        let sum = if !self.tcp && sum == 0xffff {
            0xffff
        } else {
            !sum
        };
        let at = self.checksum_at();
        segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in 0..self.tags {
            frame.extend([if tag == 0 { 0x88 } else { 0x81 }]);
            frame.extend([if tag == 0 { 0xa8 } else { 0 }, 0, 5 + tag as u8]);
        }
        frame.extend(if self.ipv6 { [0x86, 0xdd] } else { [8, 0] });
        frame.extend(self.packet_header(segment.len()));
        frame.extend(segment);
        frame
    }

    fn packet_header(&self, segment_len: usize) -> Vec<u8> {
        if self.ipv6 {
            let options = self.transport_at() - self.network_at() - 40;
            let next = if options > 0 { 60 } else { self.protocol() };
            let mut header = vec![0x60, 0, 0, 7];
            header.extend(((options + segment_len) as u16).to_be_bytes());
            header.extend([next, 64]);
            header.extend(self.addresses());
            if options > 0 {
                header.extend([self.protocol(), 0, 1, 4, 0, 0, 0, 0]);
            }
            return header;
        }
        let len = 20 + 4 * self.ip_options;
        let mut header = vec![0x45 + self.ip_options as u8, 0];
        header.extend(((len + segment_len) as u16).to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header.extend([0x40, 0, 64, self.protocol(), 0, 0]);
        header.extend(self.addresses());
        header.extend(vec![1; 4 * self.ip_options]);
        let sum = !plain_fold(plain_sum(&header));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    /// The same with the checksum undone, as a sender with offloads leaves it.
    fn undone(&self, gso_size: u16) -> (Vec<u8>, Offload) {
        let mut frame = self.frame();
        let (start, at) = (self.transport_at(), self.checksum_at());
        let partial = plain_fold(self.pseudo(frame.len() - start));
        frame[start + at..start + at + 2].copy_from_slice(&partial.to_be_bytes());
        let kind = match (self.tcp, self.ipv6) {
            _ if gso_size == 0 => 0,
            (false, _) => GSO_UDP_L4,
            (true, false) => GSO_TCPV4,
            (true, true) => GSO_TCPV6,
        };
        let offload = Offload {
            flags: NEEDS_CSUM,
            gso_type: kind,
            hdr_len: 0,
            gso_size,
            csum_start: start as u16,
            csum_offset: at as u16,
        };
        (frame, offload)
    }

    /// Every segment, built from its fields.
    fn cut(&self, gso_size: usize) -> Vec<Vec<u8>> {
        let count = self.payload.chunks(gso_size).count();
        let build = |(index, chunk): (usize, &[u8])| {
            let mut flags = self.flags;
            if index > 0 {
                flags &= 0x7f;
            }
            if index + 1 < count {
                flags &= !0x09;
            }
            Fields {
                id: self.id.wrapping_add(index as u16),
                sequence: self.sequence.wrapping_add((index * gso_size) as u32),
                flags,
                payload: chunk.to_vec(),
                ..self.clone()
            }
            .frame()
        };
        self.payload
            .chunks(gso_size)
            .enumerate()
            .map(build)
            .collect()
    }
}

fn cut(frame: &[u8], offload: Offload) -> Vec<Vec<u8>> {
    let cut = Cut::plan(frame, offload).expect("sound");
    let write = |index| {
        let mut room = vec![0xee; cut.piece_len_max()];
        let len = cut.write(frame, index, &mut room);
        room.truncate(len);
        room
    };
    (0..cut.pieces()).map(write).collect()
}

prop_compose! {
    fn fields(longest: usize)(
        tags in 0..3usize, ipv6 in any::<bool>(), tcp in any::<bool>(), ip_options in 0..4usize,
        tcp_options in 0..11usize, id in any::<u16>(), sequence in any::<u32>(), flags in any::<u8>(),
        payload in prop::collection::vec(any::<u8>(), 1..longest),
    ) -> Fields {
        Fields { tags, ipv6, tcp, ip_options, tcp_options, id, sequence, flags, payload }
    }
}

fn tcp(payload: usize) -> Fields {
    Fields {
        tags: 0,
        ipv6: false,
        tcp: true,
        ip_options: 0,
        tcp_options: 3,
        id: 0xffff,
        sequence: 0xffff_ff00,
        flags: 0xd9,
        payload: (0..payload).map(|at| at as u8).collect(),
    }
}

fn udp(payload: usize) -> Fields {
    Fields {
        tcp: false,
        ..tcp(payload)
    }
}

proptest! {
    #[test]
    fn a_cut_frame_is_what_its_segments_are_when_built_alone(fields in fields(6000), gso_size in 60..3000u16) {
        let (frame, offload) = fields.undone(gso_size);
        let before = frame.clone();
        let expected = fields.cut(gso_size.into());
        if expected.len() > 1 {
            prop_assert_eq!(cut(&frame, offload), expected);
        } else {
            prop_assert_eq!(Cut::plan(&frame, offload).expect("sound").pieces(), 1);
        }
        prop_assert_eq!(frame, before);
    }

    #[test]
    fn a_completed_frame_is_what_it_is_when_built_whole(fields in fields(3000)) {
        let (mut frame, offload) = fields.undone(0);
        complete(&mut frame, offload).expect("sound");
        let mut whole = fields.frame();
        let at = checksum_at(offload);
        if whole[at..at + 2] == [0, 0] {
            whole[at..at + 2].fill(0xff);
        }
        prop_assert_eq!(frame, whole);
    }

    #[test]
    fn a_sender_that_summed_a_super_frame_itself_gets_the_same_pieces(fields in fields(4000)) {
        let fields = Fields { tcp: true, ip_options: if fields.ipv6 { 0 } else { fields.ip_options }, ..fields };
        let (frame, offload) = fields.undone(500);
        let summed = Offload { flags: 0, csum_start: 0, csum_offset: 0, ..offload };
        prop_assert_eq!(cut(&fields.frame(), summed), cut(&frame, offload));
    }

    #[test]
    fn no_header_however_hostile_makes_it_panic(
        fields in fields(400), gso_size in any::<u16>(), gso_type in any::<u8>(), flags in any::<u8>(),
        csum in any::<(u16, u16)>(), keep in any::<u8>(), len in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let (mut frame, mut offload) = fields.undone(gso_size);
        for (at, value) in damage {
            let at = at.index(frame.len().min(80));
            frame[at] = value;
        }
        if keep & 1 == 0 { offload.gso_type = gso_type; }
        if keep & 2 == 0 { offload.flags = flags; }
        if keep & 4 == 0 { (offload.csum_start, offload.csum_offset) = csum; }
        if keep & 8 == 0 { frame.truncate(len.index(frame.len() + 1)); }
        if let Ok(plan) = Cut::plan(&frame, offload) {
            let mut room = vec![0; plan.piece_len_max()];
            for index in 0..plan.pieces() {
                prop_assert!(plan.write(&frame, index, &mut room) <= room.len());
            }
        }
        let _ = complete(&mut frame, offload);
    }
}

#[test]
fn identification_and_sequence_wrap_and_flags_stay_at_their_ends() {
    let (frame, offload) = tcp(600).undone(256);
    let pieces = cut(&frame, offload);
    let ids: Vec<_> = pieces.iter().map(|p| (p[18], p[19])).collect();
    assert_eq!(ids, [(0xff, 0xff), (0, 0), (0, 1)]);
    assert_eq!(pieces[1][38..42], [0, 0, 0, 0]);
    let flags: Vec<_> = pieces.iter().map(|p| p[47]).collect();
    assert_eq!(flags, [0xd0, 0x50, 0x59]);
}

#[test]
fn each_lie_is_refused() {
    let refused = |fields: &Fields, change: &dyn Fn(&mut Vec<u8>, &mut Offload)| {
        let (mut frame, mut offload) = fields.undone(100);
        change(&mut frame, &mut offload);
        Cut::plan(&frame, offload) == Err(DropReason::BadOffload)
    };
    let (tcp, udp) = (tcp(500), udp(500));
    let v6 = Fields {
        ipv6: true,
        ..udp.clone()
    };
    assert!(!refused(&tcp, &|_, _| {}) && !refused(&udp, &|_, _| {}) && !refused(&v6, &|_, _| {}));
    assert!(refused(&tcp, &|_, o| o.gso_size = 0), "no size");
    assert!(
        refused(&tcp, &|_, o| o.gso_type = GSO_TCPV6),
        "wrong version"
    );
    assert!(
        refused(&tcp, &|_, o| o.gso_type = GSO_UDP_L4),
        "wrong protocol"
    );
    assert!(
        refused(&udp, &|_, o| o.gso_type = 3),
        "UDP fragmentation is not offered"
    );
    assert!(
        refused(&udp, &|_, o| o.flags = 0),
        "UDP without a partial sum"
    );
    assert!(
        refused(&tcp, &|_, o| o.csum_start += 2),
        "sum starts elsewhere"
    );
    assert!(
        refused(&tcp, &|_, o| o.csum_offset = 6),
        "sum goes elsewhere"
    );
    assert!(
        refused(&tcp, &|f, _| f[14] = 0x46),
        "header longer than it is"
    );
    assert!(refused(&tcp, &|f, _| f[14] = 0x44), "header too short");
    assert!(refused(&tcp, &|f, _| f[17] ^= 1), "total length");
    assert!(refused(&tcp, &|f, _| f[20] = 0x20), "a fragment");
    assert!(refused(&tcp, &|f, _| f[46] = 0x40), "TCP header too short");
    assert!(
        refused(&tcp, &|f, _| f.push(0)),
        "something behind the packet"
    );
    assert!(refused(&udp, &|f, _| f[39] ^= 1), "UDP length");
    assert!(refused(&v6, &|f, _| f[19] ^= 1), "payload length");
    let (mut frame, _) = tcp.undone(100);
    frame.truncate(54);
    frame[16..18].copy_from_slice(&40u16.to_be_bytes());
    let (_, offload) = tcp.undone(100);
    assert!(Cut::plan(&frame, offload).is_err(), "options past the end");
}

#[test]
fn a_crowd_of_tiny_pieces_is_refused() {
    let small = |fields: Fields, gso_size| {
        let (frame, offload) = fields.undone(gso_size);
        Cut::plan(&frame, offload).map(|cut| cut.pieces())
    };
    assert_eq!(small(udp(1280), 10), Ok(128));
    assert_eq!(small(udp(1281), 10), Err(DropReason::BadOffload));
    assert_eq!(small(tcp(65_000), 48), Ok(1355));
    assert_eq!(small(tcp(65_000), 40), Err(DropReason::BadOffload));
}

#[test]
fn a_udp_sum_of_zero_is_written_as_ones() {
    // Two payload bytes that bring the sum to 0xffff, whose complement is zero.
    let mut fields = udp(2);
    fields.payload = vec![0, 0];
    let (frame, offload) = fields.undone(0);
    let rest = sum(&frame[34..], 0);
    fields.payload = (!rest).to_be_bytes().to_vec();
    let (mut frame, _) = fields.undone(0);
    complete(&mut frame, offload).expect("sound");
    assert_eq!(frame[40..42], [0xff, 0xff]);
}

#[test]
fn a_sum_that_is_no_internet_checksum_or_lies_outside_is_refused() {
    let (mut frame, offload) = tcp(100).undone(0);
    let outside = Offload {
        csum_start: frame.len() as u16 - 17,
        ..offload
    };
    let sctp = Offload {
        csum_offset: 8,
        ..offload
    };
    for wrong in [outside, sctp] {
        assert_eq!(complete(&mut frame, wrong), Err(DropReason::BadOffload));
    }
    let before = frame.clone();
    assert_eq!(complete(&mut frame, Offload::NONE), Ok(()));
    assert_eq!(frame, before);
}
