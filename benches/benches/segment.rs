//! Checksums and segmentation.
//!
//! In: frames of 64, 1,500 and 64,000 bytes, and TCP super-frames. Out: time per frame summed,
//! completed, or cut.

use std::hint::black_box;

use benches::scales::{criterion, stir, weigh};
use benches::world::{station, super_frame};
use criterion::{Criterion, criterion_group, criterion_main};
use dataplane::frame::checksum::sum;
use dataplane::frame::offload::Offload;
use dataplane::segment::{Cut, complete};

fn sums(criterion: &mut Criterion) {
    for len in [20, 64, 1500, 64_000] {
        let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
        weigh(criterion, &format!("checksum/{len}"), 64, || {
            (0..64).fold(0, |hash, start| {
                stir(hash, sum(black_box(&bytes), start).into())
            })
        });
    }
}

fn completing(criterion: &mut Criterion) {
    let (mut bytes, offload) = super_frame(station(0), station(1), 1448, 1448);
    let offload = Offload {
        gso_type: 0,
        gso_size: 0,
        ..offload
    };
    weigh(criterion, "complete/1448", 64, || {
        (0..64).fold(0, |hash, _| {
            let done = complete(black_box(&mut bytes), offload).is_ok();
            stir(hash, u64::from(done))
        })
    });
}

fn cutting(criterion: &mut Criterion) {
    for (payload, gso_size) in [(14_480, 1448), (63_712, 1448)] {
        let (bytes, offload) = super_frame(station(0), station(1), payload, gso_size);
        let mut room = vec![0; 2048];
        let pieces = payload / usize::from(gso_size);
        weigh(criterion, &format!("segment/{payload}"), pieces, || {
            let cut = Cut::plan(black_box(&bytes), offload).expect("sound");
            (0..cut.pieces()).fold(0, |hash, index| {
                let len = cut.write(&bytes, index, &mut room);
                stir(hash, (len as u64) << 16 | u64::from(room[51]))
            })
        });
    }
}

criterion_group! { name = benches; config = criterion(); targets = sums, completing, cutting }
criterion_main!(benches);
