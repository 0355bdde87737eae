//! Fragments against a plain reassembler, and the cases that RFC 791 names.

use super::*;
use proptest::prelude::*;

/// A packet behind an Ethernet header: `word` is flags and offset, `options` a multiple of 4 bytes.
fn frame(word: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    bytes.extend([0x40 | (header_len / 4) as u8, 0x12]);
    bytes.extend(((header_len + payload.len()) as u16).to_be_bytes());
    bytes.extend([0xab, 0xcd]);
    bytes.extend(word.to_be_bytes());
    bytes.extend([63, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend(options);
    let sum = checksum(&bytes[14..]);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn all(frame: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    let plan = Fragments::plan(frame, mtu).expect("it may be cut");
    let mut room = vec![0xa5; frame.len() + 64];
    (0..plan.pieces())
        .map(|index| {
            room.fill(0xa5);
            let len = plan.write(frame, index, &mut room);
            assert!(room[len..].iter().all(|byte| *byte == 0xa5), "it wrote on");
            room[..len].to_vec()
        })
        .collect()
}

/// RFC 791 3.2's procedure in its plainest form: bytes at their places, and the end.
fn reassembled(fragments: &[Vec<u8>]) -> (usize, Vec<u8>, bool) {
    let mut bytes = std::collections::BTreeMap::new();
    let mut open = true;
    for fragment in fragments {
        let sliced = etherparse::Ipv4HeaderSlice::from_slice(&fragment[14..]).expect("sound");
        let header = sliced.to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        let start = usize::from(header.fragment_offset.byte_offset());
        let payload = &fragment[14 + header.header_len()..];
        assert_eq!(
            usize::from(header.total_len),
            header.header_len() + payload.len()
        );
        for (at, byte) in payload.iter().enumerate() {
            assert!(bytes.insert(start + at, *byte).is_none(), "they overlap");
        }
        open &= header.more_fragments;
    }
    let first = *bytes.keys().next().expect("not empty");
    let gapless = bytes.keys().copied().eq(first..first + bytes.len());
    assert!(gapless, "bytes are missing");
    (first, bytes.into_values().collect(), open)
}

proptest! {
    #[test]
    fn what_is_cut_comes_together_again(
        payload in prop::collection::vec(any::<u8>(), 1..9000),
        mtu in 68u16..3000, units in 0u16..100, more in any::<bool>(),
        options in prop::sample::select(vec![vec![], vec![1, 1, 1, 0], vec![0x94, 4, 0, 0], [7, 39].into_iter().chain([4; 37]).chain([0]).collect::<Vec<u8>>()]),
    ) {
        let word = units | if more { MORE_FRAGMENTS } else { 0 };
        let whole = frame(word, &options, &payload);
        match Fragments::plan(&whole, mtu) {
            Ok(plan) => {
                let pieces = all(&whole, mtu);
                prop_assert_eq!(pieces.len(), plan.pieces());
                prop_assert!(pieces.iter().all(|piece| piece.len() - 14 <= usize::from(mtu)));
                let (first, bytes, open) = reassembled(&pieces);
                prop_assert_eq!((first, bytes, open), (usize::from(units) * 8, payload.clone(), more));
                for piece in &pieces {
                    prop_assert_eq!(&piece[..16], &whole[..16], "MACs, version, length and TOS");
                    prop_assert_eq!(&piece[18..20], &whole[18..20], "identification");
                    prop_assert_eq!(&piece[22..24], &whole[22..24], "TTL and protocol");
                    prop_assert_eq!(&piece[26..34], &whole[26..34], "addresses");
                }
                if pieces.len() == 1 {
                    prop_assert_eq!(&pieces[0], &whole, "nothing to do");
                }
            }
            Err(reason) => {
                prop_assert_eq!(reason, DropReason::TooBig);
                let each = (usize::from(mtu) - 20 - options.len()) & !7;
                prop_assert!(each == 0 || payload.len() / each >= PIECES_MAX - 1);
            }
        }
    }

    #[test]
    fn fragments_of_fragments_come_together_too(
        payload in prop::collection::vec(any::<u8>(), 1..5000), mtu in 576u16..1500, less in 0u16..400,
    ) {
        let once = all(&frame(0, &[], &payload), mtu);
        let twice: Vec<_> = once.iter().flat_map(|piece| all(piece, mtu - less)).collect();
        prop_assert_eq!(reassembled(&twice), (0, payload.clone(), false));
    }

    #[test]
    fn no_frame_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), mtu in any::<u16>()) {
        let mut bytes = bytes;
        if let Some(first) = bytes.get_mut(14) {
            *first = 0x45 + (*first & 7);
        }
        if let Ok(plan) = Fragments::plan(&bytes, mtu) {
            let mut room = vec![0; bytes.len() + 64];
            for index in 0..plan.pieces() {
                plan.write(&bytes, index, &mut room);
            }
        }
    }
}

#[test]
fn each_but_the_last_is_full_and_the_last_needs_no_multiple_of_eight() {
    // As `ping -s 4000` through an MTU of 1400: 1376 bytes of payload in 1400 (RFC 791 3.2).
    let lens: Vec<_> = all(&frame(0, &[], &[7; 4008]), 1400)
        .iter()
        .map(|piece| piece.len() - 14)
        .collect();
    assert_eq!(lens, [1396, 1396, 20 + 4008 - 2 * 1376]);
    // 4 bytes more than a multiple of 8 still fit a last fragment of the MTU's length.
    assert_eq!(all(&frame(0, &[], &[7; 1376 + 1380]), 1400).len(), 2);
    assert_eq!(all(&frame(0, &[], &[7; 1376 + 1381]), 1400).len(), 3);
}

#[test]
fn options_are_in_every_fragment_only_where_they_are_to_be_copied() {
    let record_route = [7, 7, 4, 0, 0, 0, 0];
    let router_alert = [0x94, 4, 0, 0];
    let options = [&record_route[..], &[1], &router_alert].concat();
    let pieces = all(&frame(0, &options, &[7; 3000]), 1400);
    assert_eq!(pieces[0][34..46], options);
    let later = [&[NO_OPERATION; 8][..], &router_alert].concat();
    for piece in &pieces[1..] {
        assert_eq!(piece[34..46], later);
    }
}

#[test]
fn what_may_not_be_cut_is_too_big() {
    let dont = frame(0x4000, &[], &[7; 1400]);
    assert_eq!(Fragments::plan(&dont, 1400), Err(DropReason::TooBig));
    assert_eq!(
        Fragments::plan(&dont, 1420).map(|plan| plan.pieces()),
        Ok(1)
    );
    let long = frame(0, &[], &[7; 60_000]);
    assert_eq!(Fragments::plan(&long, 68), Err(DropReason::TooBig));
    assert_eq!(Fragments::plan(&long, 27), Err(DropReason::TooBig));
    assert_eq!(Fragments::plan(&long, 0), Err(DropReason::TooBig));
}

#[test]
fn a_fragment_past_the_end_of_any_packet_is_malformed() {
    // The last place is 65,528: 8 bytes there are the last that a packet may have.
    let fits = frame(0x1fff, &[], &[7; 8]);
    assert_eq!(
        Fragments::plan(&fits, 1400).map(|plan| plan.pieces()),
        Ok(1)
    );
    let past = frame(0x1fff, &[], &[7; 9]);
    assert_eq!(Fragments::plan(&past, 1400), Err(DropReason::MalformedIpv4));
}
