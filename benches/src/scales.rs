//! The scales: time per frame, allocations per frame, and a hash of what came out.
//!
//! In: a turn of work over a known number of frames, which returns a hash of its result.
//! Out: one line for a person, and the turn as a Criterion bench.
//! Never: lets a turn pass that allocates.
//!
//! The hash is printed, so that no compiler can find the work useless, and so that two builds can
//! be seen to have done the same. Under `cargo test` every turn runs a few times only; its
//! allocations are counted all the same.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};

/// Turns before anything is counted: buffers find their size, tables are learned.
const WARM_UP: usize = 3;

/// The line's time is the shortest of this many turns: whatever else the machine does can only add.
/// Criterion's own line has the spread.
const TURNS: usize = 101;

/// Weighs `turn`, which handles `frames` frames and returns a hash of what it did.
///
/// # Panics
/// If a turn allocates after the first few.
pub fn weigh(criterion: &mut Criterion, name: &str, frames: usize, mut turn: impl FnMut() -> u64) {
    let mut hash = 0;
    for _ in 0..WARM_UP {
        hash = turn();
    }
    let counted = allocation_counter::measure(|| {
        black_box(turn());
    });
    let time = |_| {
        let began = Instant::now();
        black_box(turn());
        began.elapsed()
    };
    let turns = if measuring() { TURNS } else { 1 };
    let shortest = (0..turns).map(time).min().unwrap_or_default();
    let each = shortest.as_nanos() as f64 / frames as f64;
    let allocations = counted.count_total as f64 / frames as f64;
    println!("{name}: {each:.1} ns/frame, {allocations} allocations/frame, hash {hash:016x}");
    assert_eq!(counted.count_total, 0, "{name} allocates");
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(frames as u64));
    group.bench_function("turn", |bencher| bencher.iter(&mut turn));
    group.finish();
}

/// `cargo bench` says so to the program; `cargo test` does not.
#[must_use]
pub fn measuring() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// A Criterion that is done within a minute for all of the benches.
#[must_use]
pub fn criterion() -> Criterion {
    Criterion::default()
        .configure_from_args()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
}

/// Stirs `value` into `hash`.
#[inline]
#[must_use]
pub const fn stir(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(5) ^ value.wrapping_add(1)).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// Numbers that look random and are the same in every run (xorshift64*, Vigna 2016).
#[derive(Clone, Copy, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// The sequence that belongs to `seed`.
    #[must_use]
    pub const fn seeded(seed: u64) -> Numbers {
        Numbers(seed | 1)
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) as usize % bound
    }
}
