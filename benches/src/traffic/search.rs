//! The highest rate that gets through: a search, not an overload.
//!
//! In: a trial that offers a rate for a short time and says what arrived.
//! Out: the highest rate with at most one frame in a thousand lost, confirmed by longer trials.
//! Never: takes one trial's word for it: a machine stalls for milliseconds now and then, and such
//! a stall fills every queue at any rate.

use std::io;

/// A thousandth may be lost.
pub const LOSS_MAX: f64 = 0.001;
/// The search ends when the rate is known to within 3 %: the scatter between rounds is larger.
const PRECISION: f64 = 1.03;
/// Halvings: from 10 k to 10 M frames a second takes 9 to reach the precision.
const STEPS_MAX: usize = 14;
/// Longer trials at the rate that was found; the greater part must hold.
const CONFIRMATIONS: usize = 3;
/// Rounds of confirmation, each 5 % lower than the one before.
const RETREATS_MAX: usize = 10;
/// Slower than this nothing is worth searching.
const RATE_MIN: f64 = 1_000.0;

/// What to offer in a trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Offer {
    /// As fast as the sender can.
    All,
    /// Frames a second, for a short time.
    Rate(f64),
    /// Frames a second, for a longer time; what counts is measured here.
    Confirm(f64),
}

/// What came of a trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Frames that left.
    pub sent: u64,
    /// Frames that arrived.
    pub received: u64,
    /// How long the sender took.
    pub seconds: f64,
}

impl Trial {
    /// The part that was lost.
    #[must_use]
    pub fn loss(&self) -> f64 {
        1.0 - self.received as f64 / self.sent.max(1) as f64
    }

    /// Frames sent a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.sent as f64 / self.seconds
    }

    fn holds(&self) -> bool {
        self.sent > 0 && self.loss() <= LOSS_MAX
    }
}

/// Finds the highest rate without loss, in frames that arrived a second.
///
/// # Errors
/// What a trial says, or that no rate holds.
pub fn search(mut trial: impl FnMut(Offer) -> io::Result<Trial>) -> io::Result<f64> {
    let all = trial(Offer::All)?;
    let mut high = all.rate() * PRECISION;
    let mut low = if all.holds() { all.rate() } else { 0.0 };
    // What arrives under overload is a good first guess, and often the answer.
    let mut next = (all.received as f64 / all.seconds).max(RATE_MIN);
    for _ in 0..STEPS_MAX {
        if low * PRECISION >= high || high < RATE_MIN {
            break;
        }
        let mut best = trial(Offer::Rate(next))?;
        if !best.holds() {
            best = trial(Offer::Rate(next))?;
        }
        match best.holds() {
            // A sender that falls behind has said all that it can.
            true if best.rate() * PRECISION < next => {
                low = best.rate();
                break;
            }
            true => low = next,
            false => high = next,
        }
        next = if low > 0.0 {
            (low * high).sqrt()
        } else {
            high * 0.7
        };
    }
    confirm(low.max(RATE_MIN), &mut trial)
}

fn confirm(mut rate: f64, trial: &mut impl FnMut(Offer) -> io::Result<Trial>) -> io::Result<f64> {
    for _ in 0..RETREATS_MAX {
        let mut held = Vec::new();
        for _ in 0..CONFIRMATIONS {
            let found = trial(Offer::Confirm(rate))?;
            if found.holds() {
                held.push(found.received as f64 / found.seconds);
            }
        }
        if held.len() * 2 > CONFIRMATIONS {
            return Ok(crate::stats::median(&held));
        }
        rate *= 0.95;
    }
    Err(io::Error::other(format!(
        "not even {rate:.0} frames a second get through with at most 0.1 % lost"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link that carries `capacity` frames a second and loses the rest; its sender makes at
    /// most `speed`.
    fn link(capacity: f64, speed: f64) -> impl FnMut(Offer) -> io::Result<Trial> {
        move |offer| {
            let rate = match offer {
                Offer::All => speed,
                Offer::Rate(rate) | Offer::Confirm(rate) => rate.min(speed),
            };
            Ok(Trial {
                sent: rate as u64,
                received: rate.min(capacity) as u64,
                seconds: 1.0,
            })
        }
    }

    #[test]
    fn the_threshold_of_a_link_is_found() {
        for capacity in [5_000.0, 94_000.0, 234_000.0, 1_100_000.0] {
            let found = search(link(capacity, 2_000_000.0)).expect("it holds");
            let (least, most) = (capacity * 0.96, capacity * 1.002);
            assert!((least..most).contains(&found), "{found} of {capacity}");
        }
    }

    #[test]
    fn a_link_faster_than_its_sender_is_as_fast_as_the_sender() {
        let found = search(link(1e9, 300_000.0)).expect("it holds");
        assert!((290_000.0..=300_000.0).contains(&found), "{found}");
    }

    #[test]
    fn a_stall_in_every_third_trial_does_not_mislead() {
        let (mut count, mut steady) = (0, link(200_000.0, 500_000.0));
        let stalling = |offer| {
            count += 1;
            let mut trial = steady(offer)?;
            if count % 3 == 0 {
                trial.received = trial.received * 9 / 10;
            }
            Ok(trial)
        };
        let found = search(stalling).expect("it holds");
        assert!((180_000.0..201_000.0).contains(&found), "{found}");
    }

    #[test]
    fn overload_gets_less_through_than_the_link_can_carry() {
        // As a real switch: beyond its capacity it wastes time on what it will drop.
        let trial = |offer| {
            let rate: f64 = match offer {
                Offer::All => 1_000_000.0,
                Offer::Rate(rate) | Offer::Confirm(rate) => rate,
            };
            let carried = if rate <= 150_000.0 { rate } else { 80_000.0 };
            Ok(Trial {
                sent: rate as u64,
                received: carried as u64,
                seconds: 1.0,
            })
        };
        let found = search(trial).expect("it holds");
        assert!((144_000.0..=150_000.0).contains(&found), "{found}");
    }

    #[test]
    fn a_dead_link_is_an_error() {
        assert!(search(link(0.0, 300_000.0)).is_err());
    }
}
