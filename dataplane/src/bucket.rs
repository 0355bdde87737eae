//! A token bucket: how often something may happen.
//!
//! In: a rate, and the time. Out: may it happen now? Never: a clock, or a number that overflows.
//!
//! Credit is counted in thousandths of a token, since a rate of one a second brings one of them in
//! each millisecond. So no rate is rounded, and a bucket is two words.

use crate::clock::Tick;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that come back in a second.
    pub per_second: u32,
    /// Tokens that it holds.
    pub burst: u32,
}

impl Rate {
    /// As many at once as come in a second.
    #[must_use]
    pub const fn per_second(tokens: u32) -> Rate {
        Rate {
            per_second: tokens,
            burst: tokens,
        }
    }

    const fn most(self) -> u64 {
        self.burst as u64 * 1000
    }
}

/// What is left, and when that was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    credit: u64,
    at: Tick,
}

impl Bucket {
    /// Full, for whatever rate.
    pub(crate) const FULL: Bucket = Bucket {
        credit: u64::MAX,
        at: Tick(0),
    };

    /// Fills up for the time that has passed; then, is there enough for `tokens`?
    pub(crate) fn has(&mut self, tokens: u32, rate: Rate, now: Tick) -> bool {
        let grown = now
            .since(self.at)
            .saturating_mul(u64::from(rate.per_second));
        *self = Bucket {
            credit: self.credit.saturating_add(grown).min(rate.most()),
            at: now,
        };
        self.credit >= u64::from(tokens) * 1000
    }

    /// Takes what [`Bucket::has`] said there is.
    pub(crate) fn take(&mut self, tokens: u32) {
        self.credit -= u64::from(tokens) * 1000;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `asked` single tokens are there at `now`.
    fn taken(bucket: &mut Bucket, asked: u32, rate: Rate, now: u64) -> u32 {
        (0..asked)
            .map(|_| {
                let may = bucket.has(1, rate, Tick(now));
                if may {
                    bucket.take(1);
                }
                u32::from(may)
            })
            .sum()
    }

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let rate = Rate {
            per_second: 3,
            burst: 5,
        };
        let mut bucket = Bucket::FULL;
        assert_eq!(taken(&mut bucket, 100, rate, 7), 5);
        assert_eq!(taken(&mut bucket, 100, rate, 340), 0);
        assert_eq!(taken(&mut bucket, 100, rate, 341), 1, "a third of a second");
        assert_eq!(taken(&mut bucket, 100, rate, 1341), 3);
        assert_eq!(taken(&mut bucket, 100, rate, u64::MAX), 5, "and no more");
    }

    #[test]
    fn many_tokens_are_taken_whole_or_not_at_all() {
        let rate = Rate::per_second(1000);
        let mut bucket = Bucket::FULL;
        assert!(bucket.has(1000, rate, Tick(0)));
        bucket.take(1000);
        assert!(!bucket.has(45, rate, Tick(44)));
        assert!(bucket.has(45, rate, Tick(45)));
        assert!(!bucket.has(1001, rate, Tick(1 << 40)), "more than it holds");
    }
}
