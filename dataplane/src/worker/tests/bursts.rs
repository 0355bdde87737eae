//! A burst does what its frames do one after the other.
//!
//! In: bursts of frames of one port, of stations that are configured, learned, new or on the move.
//! Out: two switches, one of which gets a burst whole and the other frame by frame, compared in all.
//! Never: what any of those frames should do; the other tests say that.

use super::show::told;
use super::*;
use crate::capture::{Capture, Wanted};
use crate::frame::offload::NEEDS_CSUM;
use proptest::prelude::*;

/// Stations that no table knows.
fn learned(n: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0x77, n])
}

prop_compose! {
    /// Mostly from one station to another, of which few are known at first.
    fn frame()(
        from in prop::sample::select(vec![POD_A, POD_A, learned(1), learned(2), learned(3), POD_B, NIC, Mac::ZERO]),
        to in prop::sample::select(vec![POD_A, POD_B, POD_B, learned(1), learned(2), learned(3), GATEWAY, Mac::ZERO, Mac::BROADCAST]),
        kind in prop::sample::select(vec![0x0800u16, 0x0800, 0x0800, 0x86dd, 0x0806, 0x8100, 0x1234]),
        addresses in prop::sample::select(vec![("10.244.1.6", "10.244.1.7"), ("10.20.0.31", "10.20.0.32"), ("10.1.1.1", "8.8.8.8")]),
        id in any::<u16>(),
        lies in prop::sample::select(vec![false, false, false, true]),
    ) -> (Vec<u8>, Offload) {
        let mut bytes = ping(POD_A, POD_B, addresses.0, addresses.1, 64);
        bytes[..6].copy_from_slice(&to.octets());
        bytes[6..12].copy_from_slice(&from.octets());
        bytes[12..14].copy_from_slice(&kind.to_be_bytes());
        bytes.extend(id.to_be_bytes());
        let lie = Offload { flags: NEEDS_CSUM, csum_start: 60_000, ..Offload::NONE };
        (bytes, if lies { lie } else { Offload::NONE })
    }
}

/// All that can be seen of a switch from outside, each port's frames in their order.
fn all(rig: &mut Rig, out: Vec<Delivery>) -> impl PartialEq + std::fmt::Debug {
    let mut by_port = vec![Vec::new(); rig.peers.len()];
    for (at, bytes) in out {
        by_port[at].push(bytes);
    }
    let mut stations: Vec<_> = rig.worker.fdb().entries().collect();
    stations.sort_unstable();
    (by_port, stations, rig.worker.board().ledger())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_burst_does_what_its_frames_do_one_by_one(
        bursts in prop::collection::vec(
            (prop::sample::select(vec![A, A, B, HOST, UPLINK]), prop::collection::vec(frame(), 1..=BURST_FRAMES)),
            1..6,
        ),
        routed in any::<bool>(),
        watched in any::<bool>(),
    ) {
        let spec = if routed { kubenet() } else { azure() };
        let (mut whole, mut single) = (Rig::new(&spec), Rig::new(&spec));
        // Whoever looks sees the same in the same order, and a switch at which nobody looks does the same.
        let captures = [&mut whole, &mut single].map(|rig| {
            let capture = Arc::new(Capture::new(Wanted::default(), 512, 128));
            let looks = watched && rig.worker.watch(Arc::clone(&capture));
            assert_eq!(looks, watched);
            capture
        });
        for (at, frames) in bursts {
            let mut one_by_one = Vec::new();
            for (bytes, offload) in frames {
                whole.peers[at].send_with(&bytes, offload).expect("room");
                one_by_one.extend(single.put_with(at, &bytes, offload).1);
            }
            // In one turn, or in several if it was a flood before.
            let mut at_once = Vec::new();
            loop {
                let (counts, out) = whole.breathe();
                if counts.received == 0 {
                    break;
                }
                at_once.extend(out);
            }
            prop_assert_eq!(all(&mut whole, at_once), all(&mut single, one_by_one));
            let [seen_at_once, seen_one_by_one] = captures.each_ref().map(|capture| told(capture));
            prop_assert_eq!(seen_at_once, seen_one_by_one);
        }
    }
}
