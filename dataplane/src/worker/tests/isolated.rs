//! Isolated ports: what does not pass between two of them, and that all else does.
//!
//! In: a node with two pods, one or both of which are isolated. Out: where their frames go.
//! Never: another answer for policy: what is kept apart is so before the host is asked.

use super::*;

/// The tables with these of their pods isolated.
fn with(mut spec: TablesSpec, isolated: &[usize]) -> TablesSpec {
    for at in isolated {
        spec.ports[*at].isolated = true;
    }
    spec
}

#[test]
fn two_isolated_pods_reach_each_other_in_no_way() {
    let spec = with(azure(), &[A, B]);
    let bridged = ping(POD_A, POD_B, "10.20.0.31", "10.20.0.32", 64);
    let routed = ping(POD_A, FABRIC, "10.20.0.31", "10.20.0.32", 64);
    let asked = asks((POD_A, "10.20.0.31"), "10.20.0.32");
    for frame in [&bridged, &routed, &asked] {
        Rig::new(&spec).dies(A, frame, DropReason::Isolated);
    }
    // As the kernel has it, not even itself.
    let mut hairpin = spec.clone();
    hairpin.ports[A].hairpin = true;
    let itself = ping(POD_A, POD_A, "10.20.0.31", "10.20.0.31", 64);
    Rig::new(&hairpin).dies(A, &itself, DropReason::Isolated);
    let mut watched = spec;
    watched.policy = Policy::ViaHost;
    for frame in [&bridged, &routed] {
        Rig::new(&watched).dies(A, frame, DropReason::Isolated);
    }
}

#[test]
fn an_isolated_pod_reaches_the_host_the_uplink_and_other_pods() {
    let both = with(azure(), &[A, B]);
    let far = ping(POD_A, FABRIC, "10.20.0.31", "10.10.0.5", 64);
    Rig::new(&both).goes(A, &far, UPLINK);
    let service = ping(POD_A, FABRIC, "10.20.0.31", "10.0.0.10", 64);
    Rig::new(&both).goes(A, &service, HOST);
    let from_host = ping(NIC, POD_B, "10.20.0.4", "10.20.0.32", 64);
    Rig::new(&both).goes(HOST, &from_host, B);
    let bridged = ping(POD_A, POD_B, "10.20.0.31", "10.20.0.32", 64);
    for one in [A, B] {
        Rig::new(&with(azure(), &[one])).goes(A, &bridged, B);
    }
}

#[test]
fn what_is_for_all_is_not_for_other_isolated_pods() {
    let announcement = asks((POD_A, "10.20.0.31"), "10.20.0.31");
    for (isolated, told) in [(vec![A, B], 1), (vec![A], 2), (vec![B], 2)] {
        let mut rig = Rig::new(&with(azure(), &isolated));
        let (counts, out) = rig.put(A, &announcement);
        assert_eq!(counts.transmitted, told, "{isolated:?}");
        let to_b = out.iter().any(|(at, _)| *at == B);
        assert_eq!(to_b, told == 2, "{isolated:?}");
    }
}
