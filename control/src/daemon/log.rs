//! The daemon's log: lines on standard error, never a flood of them.
//!
//! In: events of `tracing`. Out: text, with a level and a target.
//! Never: more than [`LINES_MAX`] lines a second from one place in the program: what a pod or a
//! client can cause again and again is told that often, and then how often it was left out.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Registry, fmt};

/// Lines of one place in a window: enough to see a pattern, few enough to read.
pub const LINES_MAX: u32 = 10;
/// The window.
const WINDOW: Duration = Duration::from_secs(1);

/// Changes the level of a log that runs.
#[derive(Clone, Debug)]
pub struct Level(Handle<LevelFilter, Registry>);

impl Level {
    /// From now on.
    pub fn set(&self, level: LevelFilter) {
        // It fails only when the log is gone, with the process.
        let _ = self.0.reload(level);
    }
}

/// Starts the log.
///
/// # Errors
/// If there is one already.
pub fn start(level: LevelFilter) -> Result<Level, TryInitError> {
    let (filter, handle) = reload::Layer::new(level);
    // Under systemd the journal knows the time; a terminal shows it.
    let terminal = std::io::stderr().is_terminal();
    let timed = terminal.then(|| fmt::layer().with_writer(std::io::stderr));
    let plain = (!terminal).then(|| {
        let lines = fmt::layer().with_writer(std::io::stderr);
        lines.with_ansi(false).without_time()
    });
    tracing_subscriber::registry()
        .with(filter)
        .with(Rate::default())
        .with(timed)
        .with(plain)
        .try_init()?;
    Ok(Level(handle))
}

/// Counts lines by the place that they come from.
#[derive(Debug, Default)]
struct Rate {
    places: Mutex<HashMap<Identifier, Place>>,
}

#[derive(Debug)]
struct Place {
    since: Instant,
    lines: u32,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Told,
    /// Told, after so many that were not.
    ToldAfter(u32),
    LeftOut,
}

impl Rate {
    fn judge(&self, place: Identifier, now: Instant) -> Fate {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let known = places.entry(place).or_insert(Place {
            since: now,
            lines: 0,
        });
        let mut fate = Fate::Told;
        if now.duration_since(known.since) >= WINDOW {
            let left_out = known.lines.saturating_sub(LINES_MAX);
            if left_out > 0 {
                fate = Fate::ToldAfter(left_out);
            }
            *known = Place {
                since: now,
                lines: 0,
            };
        }
        known.lines = known.lines.saturating_add(1);
        if known.lines > LINES_MAX {
            fate = Fate::LeftOut;
        }
        fate
    }
}

impl<S: Subscriber> Layer<S> for Rate {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        match self.judge(event.metadata().callsite(), Instant::now()) {
            Fate::Told => true,
            Fate::ToldAfter(left_out) => {
                eprintln!("({left_out} lines like the next were left out)");
                true
            }
            Fate::LeftOut => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::Callsite as _;

    use super::*;

    #[test]
    fn one_place_is_told_ten_times_a_second_and_then_how_often_it_was_not() {
        let rate = Rate::default();
        let place = || {
            tracing::callsite!(name: "here", kind: tracing::metadata::Kind::EVENT, fields: )
                .metadata()
                .callsite()
        };
        let here = place();
        let start = Instant::now();
        let fates: Vec<Fate> = (0..25).map(|_| rate.judge(here.clone(), start)).collect();
        assert_eq!(fates.iter().filter(|f| **f == Fate::Told).count(), 10);
        assert_eq!(fates[24], Fate::LeftOut);
        let later = start + WINDOW;
        assert_eq!(rate.judge(here.clone(), later), Fate::ToldAfter(15));
        assert_eq!(rate.judge(here, later), Fate::Told);
    }
}
