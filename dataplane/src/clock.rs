//! Time as the switch sees it: an argument, never a question.
//!
//! In: the caller's clock. Out: [`Tick`], milliseconds since an origin of the caller's choice, and
//! [`Monotonic`], the one clock of a switch that runs for real.
//! Never: called on the way of a frame.

use std::ops::Add;
use std::time::{Duration, Instant};

/// Milliseconds since an origin that the owner of the worker chose. Monotonic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u64);

impl Tick {
    /// Milliseconds from `earlier` to here; zero if the clock went backwards.
    #[inline]
    #[must_use]
    pub const fn since(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The duration as a whole number of milliseconds, rounded down.
    #[must_use]
    pub fn of(elapsed: Duration) -> Tick {
        Tick(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Add<u64> for Tick {
    type Output = Tick;

    #[inline]
    fn add(self, ms: u64) -> Tick {
        Tick(self.0.saturating_add(ms))
    }
}

/// The system's monotonic clock, counted from a start. For the loop that owns a worker; the
/// worker itself is told the time.
#[derive(Clone, Copy, Debug)]
pub struct Monotonic {
    begun: Instant,
    /// What had passed by then.
    before: Duration,
}

impl Monotonic {
    /// Starts counting.
    #[must_use]
    pub fn start() -> Monotonic {
        Monotonic::after(Duration::ZERO)
    }

    /// Goes on counting where another clock has come to `before`: what was learned by that one keeps
    /// its age.
    #[must_use]
    pub fn after(before: Duration) -> Monotonic {
        Monotonic {
            begun: Instant::now(),
            before,
        }
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.before + self.begun.elapsed()
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn tick(&self) -> Tick {
        Tick::of(self.elapsed())
    }
}
