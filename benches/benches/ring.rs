//! Handing frames on: the bounded lock-free queue between threads, one by one.
//!
//! In: a ring of 1,024 places and batches of 64. Out: time per frame handed over, on one thread
//! and between two.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use benches::scales::{criterion, stir, weigh};
use criterion::{Criterion, criterion_group, criterion_main};
use crossbeam::queue::ArrayQueue;

const BATCH: u64 = 64;

fn alone(criterion: &mut Criterion) {
    let ring = ArrayQueue::new(1024);
    weigh(criterion, "ring/one-thread", BATCH as usize, || {
        for frame in 0..BATCH {
            let _ = ring.push(frame);
        }
        std::iter::from_fn(|| ring.pop()).fold(0, stir)
    });
}

/// There and back, so that the sum of both hand-overs is seen by one clock.
fn between(criterion: &mut Criterion) {
    let there = Arc::new(ArrayQueue::<u64>::new(1024));
    let back = Arc::new(ArrayQueue::<u64>::new(1024));
    let done = Arc::new(AtomicBool::new(false));
    let echo = {
        let (there, back, done) = (Arc::clone(&there), Arc::clone(&back), Arc::clone(&done));
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                match there.pop() {
                    Some(frame) => {
                        let _ = back.push(frame + 1);
                    }
                    None => spin_loop(),
                }
            }
        })
    };
    weigh(criterion, "ring/there-and-back", 2 * BATCH as usize, || {
        for frame in 0..BATCH {
            let _ = there.push(frame);
        }
        let (mut hash, mut missing) = (0, BATCH);
        while missing > 0 {
            match back.pop() {
                Some(frame) => (hash, missing) = (stir(hash, frame), missing - 1),
                None => spin_loop(),
            }
        }
        hash
    });
    done.store(true, Ordering::Relaxed);
    echo.join().expect("the echo lives");
}

criterion_group! { name = benches; config = criterion(); targets = alone, between }
criterion_main!(benches);
