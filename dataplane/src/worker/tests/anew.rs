//! A worker that begins anew, beside a new one.
//!
//! In: a history that leaves a trace in whatever a worker keeps. Out: nothing that tells the two apart.
//! Never: looks into the buffers: what lies there stays.

use super::guards::guarded;
use super::*;
use crate::frame::checksum::updated;
use crate::tables::guard::Mode;

/// All that a worker knows, in words.
fn known(worker: &Worker<MemoryPort>) -> Vec<String> {
    let tables = (&worker.ready, &worker.recent, &worker.floods);
    let lists = (&worker.batch, &worker.announcements, worker.announced);
    let cursors = (worker.age_cursor, worker.returns_cursor, worker.chores_due);
    let fdb: Vec<_> = worker.fdb.entries().collect();
    vec![
        format!("{tables:?}"),
        format!("{lists:?} {:?}", (&worker.held, &worker.flushed)),
        format!("{cursors:?} {:?}", (&worker.unflushed, worker.told)),
        format!("{fdb:?} {:?}", worker.returns.totals()),
        format!("{:?}", worker.neighbours),
        format!("{:?} {}", worker.limits, worker.errors_sent),
        format!("{:?}", worker.memory),
        format!("{:?} {:?}", worker.board, worker.reporter),
        format!("{} of {}", worker.pool.free(), worker.pool.slots()),
    ]
}

/// Frames that leave a trace: counters, stations, conversations, conflicts, limits of errors, pieces,
/// storms, and one that waits for a neighbour.
fn live(rig: &mut Rig) {
    let mut piece = ping(POD_A, GATEWAY, "10.244.1.6", "8.8.8.8", 64);
    let word = |piece: &[u8], at| u16::from_be_bytes([piece[at], piece[at + 1]]);
    let (flags, sum) = (HEADER_LEN + 6, HEADER_LEN + 10);
    let now = updated(word(&piece, sum), word(&piece, flags), 0x2000);
    piece[flags..flags + 2].copy_from_slice(&0x2000_u16.to_be_bytes());
    piece[sum..sum + 2].copy_from_slice(&now.to_be_bytes());
    for (at, frame) in [
        (A, ping(STRANGER, POD_B, "10.244.1.66", "10.244.1.7", 64)),
        (B, ping(STRANGER, POD_A, "10.244.1.66", "10.244.1.6", 64)),
        (
            A,
            ping(POD_A, Mac::BROADCAST, "10.244.1.6", "10.244.1.255", 64),
        ),
        (A, ping(POD_A, GATEWAY, "10.244.1.6", "10.244.1.99", 64)),
        (HOST, ping(GATEWAY, POD_A, "8.8.8.8", "10.244.1.6", 64)),
        (A, asks((POD_A, "10.244.1.7"), "10.244.1.7")),
        (A, piece),
        (A, ping(POD_A, GATEWAY, "10.244.1.6", "10.244.0.9", 64)),
    ] {
        rig.now += 300;
        let _ = rig.put(at, &frame);
    }
}

#[test]
fn nothing_is_left_of_a_life_but_the_ports() {
    let spec = guarded(kubenet(), Mode::Observe);
    let (mut rig, new) = (Rig::new(&spec), Rig::new(&spec));
    let fresh = known(&new.worker);
    live(&mut rig);
    let lived = known(&rig.worker);
    assert!(rig.worker.neighbours.waiting() > 0);
    for (at, (lived, fresh)) in lived.iter().zip(&fresh).enumerate() {
        // Lists are empty between two breaths anyhow.
        assert!(at == 1 || lived != fresh, "no trace of {fresh}");
    }
    let deliveries = |rig: &mut Rig| {
        rig.now = 0;
        let out = rig.put(A, &ping(POD_A, POD_B, "10.244.1.6", "10.244.1.7", 64));
        live(rig);
        (out, known(&rig.worker))
    };
    rig.worker
        .begin_anew(Arc::new(Fdb::new(64, 1)), Arc::new(Returns::new(1024, 1)));
    assert_eq!(known(&rig.worker), fresh);
    let mut new = new;
    assert_eq!(deliveries(&mut rig), deliveries(&mut new), "another life");
}
