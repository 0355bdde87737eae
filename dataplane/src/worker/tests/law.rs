//! The law of conservation under frames of any content, in both modes.
//!
//! In: random histories of frames that get somewhere. Out: balanced books after each of them.
//! Never: a frame back by the uplink.

use super::*;
use crate::stats::PortCounts;
use proptest::prelude::*;

prop_compose! {
    /// Frames that get somewhere: right MACs and types, and then anything.
    fn likely_frame()(
        target in prop::sample::select(vec![POD_A, POD_B, FABRIC, NIC, GATEWAY, STRANGER, Mac::BROADCAST]),
        source in prop::sample::select(vec![POD_A, POD_B, FABRIC, NIC, STRANGER, Mac::ZERO]),
        ether_type in prop::sample::select(vec![0x0800u16, 0x0806, 0x86dd, 0x8100, 0x1234]),
        head in prop::sample::select(vec![vec![0x45u8], vec![0x60], vec![0, 1, 8, 0, 6, 4, 0, 1], vec![0, 1, 8, 0, 6, 4, 0, 2], vec![]]),
        rest in prop::collection::vec(any::<u8>(), 0..80),
    ) -> Vec<u8> {
        let mut bytes = target.octets().to_vec();
        bytes.extend(source.octets());
        bytes.extend(ether_type.to_be_bytes());
        bytes.extend(head);
        bytes.extend(rest);
        bytes
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_frame_stops_the_switch_or_breaks_the_law(
        frames in prop::collection::vec((0usize..4, likely_frame(), any::<[u8; 10]>(), any::<bool>(), 0u64..2000), 1..60),
        routed in any::<bool>(),
        // A port whose number changes hands before each of its frames, or none.
        changes in 0usize..8,
    ) {
        let mut rig = Rig::new(&if routed { kubenet() } else { azure() });
        for (at, frame, header, offloaded, pause) in frames {
            rig.now += pause;
            if changes == at {
                let end = rig.worker.detach(port(at)).expect("attached");
                rig.worker.attach(port(at), end);
            }
            let offload = if offloaded { Offload::read(&header).expect("ten bytes") } else { Offload::NONE };
            let (_, out) = rig.put_with(at, &frame, offload);
            let ledger = rig.worker.board().ledger();
            prop_assert!(ledger.counts.is_balanced());
            let ports = (0..4).map(|at| ledger.port(port(at)));
            let ports = ports.fold(ledger.gone, PortCounts::plus);
            prop_assert_eq!(ports.received, ledger.counts.received);
            prop_assert_eq!(ports.transmitted, ledger.counts.transmitted);
            prop_assert_eq!(ports.dropped, ledger.counts.dropped);
            for (egress, bytes) in out {
                let reflected = egress == UPLINK && at == UPLINK && bytes == frame;
                prop_assert!(!reflected, "a frame went back by the uplink");
            }
        }
    }
}
