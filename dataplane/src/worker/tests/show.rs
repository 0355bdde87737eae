//! Whoever looks sees each frame as it came, once, with its fate.

use super::*;
use crate::capture::{CAPTURES_MAX, Capture, Copied, Fate, Wanted};

pub(super) fn told(capture: &Capture) -> Vec<(Option<PortId>, Fate, Vec<u8>)> {
    let look = |seen: &Copied| (seen.ingress, seen.fate, seen.bytes().to_vec());
    std::iter::from_fn(|| capture.next(look)).collect()
}

#[test]
fn each_frame_is_seen_as_it_came_with_what_became_of_it() {
    let mut rig = Rig::new(&kubenet());
    let capture = Arc::new(Capture::new(Wanted::default(), 16, FRAME_MAX));
    assert!(rig.worker.watch(Arc::clone(&capture)));
    let bridged = ping(POD_A, POD_B, "10.244.1.6", "10.244.1.7", 64);
    let refused = ping(POD_A, GATEWAY, "10.244.1.6", "10.244.1.9", 64);
    let asked = asks((POD_A, "10.244.1.6"), "10.244.1.7");
    rig.put(A, &bridged);
    rig.put(A, &[0; 9]);
    rig.put(A, &asked);
    let (_, errors) = rig.put(A, &refused);
    let seen = told(&capture);
    let a = Some(port(A));
    let to_b = Fate::Forwarded {
        egress: port(B),
        rewrite: Rewrite::KEEP,
    };
    let back = Fate::Originated { egress: port(A) };
    assert_eq!(seen[0], (a, to_b, bridged.clone()));
    assert_eq!(
        seen[1],
        (a, Fate::Dropped(DropReason::TooShort), vec![0; 9])
    );
    assert_eq!(seen[2], (a, Fate::Punted, asked));
    assert_eq!((seen[3].0, seen[3].1), (None, back));
    // The error to the sender goes out before the packet's end is told.
    assert_eq!(seen[4], (None, back, errors[0].1.clone()));
    assert_eq!(seen[5], (a, Fate::Dropped(DropReason::NoSuchPod), refused));
    assert_eq!(seen.len(), 6);
    rig.worker.unwatch(&capture);
    rig.put(A, &bridged);
    assert_eq!(told(&capture), []);
}

#[test]
fn a_frame_that_waits_says_so_and_then_what_becomes_of_it() {
    let mut rig = Rig::new(&kubenet());
    let capture = Arc::new(Capture::new(Wanted::default(), 16, FRAME_MAX));
    assert!(rig.worker.watch(Arc::clone(&capture)));
    let away = ping(POD_A, GATEWAY, "10.244.1.6", "10.244.0.7", 64);
    rig.put(A, &away);
    let fates: Vec<Fate> = told(&capture)
        .into_iter()
        .map(|(_, fate, _)| fate)
        .collect();
    let asked = Fate::Originated {
        egress: port(UPLINK),
    };
    assert_eq!(fates, [Fate::Waiting, asked]);
    // Whoever claims another's address is refused, and seen once.
    rig.put(A, &asks((POD_A, "10.244.1.7"), "10.244.1.7"));
    let claims = told(&capture);
    let of_a = claims.iter().filter(|(from, ..)| *from == Some(port(A)));
    let of_a: Vec<Fate> = of_a.map(|(_, fate, _)| *fate).collect();
    assert_eq!(of_a, [Fate::Dropped(DropReason::AddressConflict)]);
}

#[test]
fn a_port_that_takes_no_more_is_named_and_a_switch_serves_a_few_captures_only() {
    let mut rig = Rig::new(&kubenet());
    let wanted = Wanted {
        drops: true,
        ..Wanted::default()
    };
    let capture = Arc::new(Capture::new(wanted, 4, FRAME_MAX));
    for _ in 0..CAPTURES_MAX {
        assert!(rig.worker.watch(Arc::clone(&capture)));
    }
    assert!(!rig.worker.watch(Arc::clone(&capture)));
    rig.worker.unwatch(&capture);
    assert!(rig.worker.watch(Arc::clone(&capture)));
    rig.worker.detach(port(B));
    rig.put(A, &ping(POD_A, POD_B, "10.244.1.6", "10.244.1.7", 64));
    let refused = Fate::Refused {
        egress: port(B),
        reason: DropReason::PortDown,
    };
    let fates: Vec<Fate> = told(&capture)
        .into_iter()
        .map(|(_, fate, _)| fate)
        .collect();
    assert_eq!(fates, [refused]);
}
