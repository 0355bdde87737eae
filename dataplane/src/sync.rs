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
