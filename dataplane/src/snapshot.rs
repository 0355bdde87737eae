//! Tables come in here: published whole by control, picked up by a worker between two batches.
//!
//! In: a new value from the one [`Publisher`]. Out: the newest value, at each [`Reader`].
//! Never: takes a lock on a frame's way: a reader locks only after it saw a new generation, and
//! never tears an old value down on a worker: the publisher keeps a clone of each until no reader
//! holds it.

use crate::sync::{Arc, AtomicU64, Mutex, Ordering, PoisonError};

#[derive(Debug)]
struct Slot<T> {
    generation: AtomicU64,
    current: Mutex<Arc<T>>,
}

/// The writing end.
#[derive(Debug)]
pub struct Publisher<T> {
    slot: Arc<Slot<T>>,
    retired: Vec<Arc<T>>,
}

/// A reading end: one for each worker.
#[derive(Debug)]
pub struct Reader<T> {
    slot: Arc<Slot<T>>,
    seen: u64,
    cached: Arc<T>,
}

impl<T> Publisher<T> {
    /// Begins with `first`.
    #[must_use]
    pub fn new(first: T) -> Publisher<T> {
        let current = Mutex::new(Arc::new(first));
        let slot = Slot {
            generation: AtomicU64::new(0),
            current,
        };
        Publisher {
            slot: Arc::new(slot),
            retired: Vec::new(),
        }
    }

    /// Makes `next` the value that readers find from now on.
    pub fn publish(&mut self, next: T) {
        let next = Arc::new(next);
        let mut current = self
            .slot
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, next);
        // Under the lock, so that who sees the new number finds the new value.
        self.slot.generation.fetch_add(1, Ordering::Release);
        drop(current);
        self.retired.push(old);
        self.reclaim();
    }

    /// Frees retired values that no reader holds any more.
    pub fn reclaim(&mut self) {
        self.retired.retain(|value| Arc::strong_count(value) > 1);
    }

    /// The newest value.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        Arc::clone(
            &self
                .slot
                .current
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// A reading end.
    #[must_use]
    pub fn reader(&self) -> Reader<T> {
        let seen = self.slot.generation.load(Ordering::Acquire);
        Reader {
            slot: Arc::clone(&self.slot),
            seen,
            cached: self.current(),
        }
    }
}

impl<T> Reader<T> {
    /// The newest value. Costs one load while nothing is published.
    #[inline]
    pub fn refresh(&mut self) -> &Arc<T> {
        if self.slot.generation.load(Ordering::Acquire) != self.seen {
            let current = self
                .slot
                .current
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            self.seen = self.slot.generation.load(Ordering::Acquire);
            self.cached = Arc::clone(&current);
        }
        &self.cached
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_find_the_newest_value_and_the_publisher_buries_the_old() {
        let mut publisher = Publisher::new(1);
        let mut reader = publisher.reader();
        assert_eq!(**reader.refresh(), 1);
        publisher.publish(2);
        assert_eq!(
            publisher.retired.len(),
            1,
            "the reader still holds the first value"
        );
        publisher.publish(3);
        assert_eq!(publisher.retired.len(), 1, "nobody ever held the second");
        assert_eq!(**reader.refresh(), 3);
        publisher.reclaim();
        assert!(publisher.retired.is_empty());
    }

    #[test]
    fn a_reader_on_another_thread_never_goes_back() {
        let mut publisher = Publisher::new(0_u32);
        let mut reader = publisher.reader();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut last = 0;
                while last < 1000 {
                    let now = **reader.refresh();
                    assert!(now >= last, "{now} after {last}");
                    last = now;
                    std::thread::yield_now();
                }
            });
            for value in 1..=1000 {
                publisher.publish(value);
            }
        });
    }
}
