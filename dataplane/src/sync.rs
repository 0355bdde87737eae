//! The door to shared memory: the only file of the dataplane that names `std::sync`.
//!
//! In: the standard library; or loom's models of it, under the `cfg(loom)` of `tests/tests/models.rs`,
//! which includes this file and those that it models.
//! Out: the same names either way, so that a model checker sees the code that ships.
//! Never: logic.

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
#[cfg(loom)]
pub use loom::sync::{Arc, Mutex};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
#[cfg(not(loom))]
pub use std::sync::{Arc, Mutex};
pub use std::sync::{OnceLock, PoisonError};

/// A counter with one writer and any number of readers. Adding is a load, an add and a store: no
/// locked instruction, since nobody else writes.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the worker that owns the counter may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Sets a gauge. Only the worker that owns the counter may call this.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value as last written.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are of something that several workers add and remove. What it says may be late, and
/// nothing may rest on its being exact at any one moment; so it is the standard library's in models,
/// too, which would else try every order of counting.
#[derive(Debug, Default)]
pub struct Tally(std::sync::atomic::AtomicU32);

impl Tally {
    /// One more.
    #[inline]
    pub fn add(&self) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// One less.
    #[inline]
    pub fn remove(&self) {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// How many. Never below nought, even where the removal of one is counted before its addition.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u32 {
        let count = self.0.load(std::sync::atomic::Ordering::Relaxed);
        u32::try_from(count.cast_signed()).unwrap_or(0)
    }
}
