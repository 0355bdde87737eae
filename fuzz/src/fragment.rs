//! Any packet, cut into fragments for any MTU.
//!
//! In: an MTU (two bytes, low byte first), a byte of stretch, and the bytes of a frame.
//! Out: nothing, or a panic that names the promise which does not hold.
//! Never: puts fragments together as the switch took them apart: it goes by their headers alone.

use dataplane::fragment::{Fragments, PIECES_MAX};
use dataplane::frame::ethernet::HEADER_LEN;
use dataplane::frame::ipv4::Ipv4View;

use crate::input::Input;
use crate::{CANARY, stretched};

/// Cuts a packet, and puts it together again by what its fragments say of themselves.
///
/// # Panics
/// If [`Fragments`] does, writes where it should not, a fragment is longer than the MTU or not
/// sound, or all together are not the packet.
pub fn run_fragment(input: &[u8]) {
    let mut input = Input(input);
    let (mtu, stretch) = (input.word(), input.byte());
    let frame = stretched(input.0, stretch);
    let Ok(plan) = Fragments::plan(&frame, mtu) else {
        return;
    };
    let whole = Ipv4View::parse(&frame[HEADER_LEN..]).expect("only packets are planned");
    assert!((1..=PIECES_MAX).contains(&plan.pieces()));
    assert!(
        plan.pieces() == 1 || !whole.dont_fragment,
        "cut against its will"
    );
    let header_len = usize::from(whole.header_len);
    let payload = &frame[HEADER_LEN + header_len..HEADER_LEN + usize::from(whole.total_len)];
    let room = HEADER_LEN + usize::from(whole.total_len);
    let mut buffer = vec![0; room];
    buffer.extend(CANARY);
    let mut next = usize::from(whole.fragment_offset);
    for index in 0..plan.pieces() {
        let len = plan.write(&frame, index, &mut buffer);
        assert!(buffer[room..] == CANARY, "fragment {index} wrote too far");
        assert_eq!(buffer[..HEADER_LEN], frame[..HEADER_LEN], "another header");
        let piece = Ipv4View::parse(&buffer[HEADER_LEN..len]).expect("a sound header");
        assert_eq!(HEADER_LEN + usize::from(piece.total_len), len);
        let alone = plan.pieces() == 1;
        assert!(
            alone || piece.total_len <= mtu,
            "fragment {index} is too long"
        );
        assert_eq!(piece.header_len, whole.header_len);
        assert_eq!((piece.source, piece.target), (whole.source, whole.target));
        assert_eq!((piece.ttl, piece.protocol), (whole.ttl, whole.protocol));
        assert_eq!(usize::from(piece.fragment_offset), next, "a gap");
        let last = index + 1 == plan.pieces();
        assert_eq!(piece.more_fragments, !last || whole.more_fragments);
        let from = next - usize::from(whole.fragment_offset);
        let carried = &buffer[HEADER_LEN + header_len..len];
        assert!(
            *carried == payload[from..from + carried.len()],
            "other bytes"
        );
        assert!(
            last || carried.len().is_multiple_of(8),
            "no unit of offsets"
        );
        next += carried.len();
    }
    let end = usize::from(whole.fragment_offset) + payload.len();
    assert_eq!(next, end, "bytes are missing");
}
