//! Many frames and many histories, and what they came to.
//!
//! In: seeds, and the corpus of named frames. Out: the first difference, or a tally.
//! Never: takes a campaign that reached nothing for one that found nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dataplane::verdict::DropReason;

use super::Books;
use super::trial::{Step, Trial};
use super::universe::Universe;

/// Reasons to die that random frames without full queues or missing ports give rise to, at the least.
const REASONS_MIN: usize = 35;

/// The frames below `fuzz/corpus/frame`.
///
/// # Panics
/// If the corpus is not in the tree.
#[must_use]
pub fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/frame");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the corpus is in the tree")
        .map(|entry| entry.expect("a readable entry").path())
        .collect();
    files.sort();
    let read = |path| fs::read(path).expect("a readable file");
    files.iter().map(read).collect()
}

/// One history of that many steps.
///
/// # Errors
/// The first difference, with its step.
pub fn history(universe: &mut Universe, steps: usize) -> Result<Trial, String> {
    let depth = universe.depth();
    let mut trial = Trial::new(&universe.spec(), depth);
    for at in 0..steps {
        let step = universe.step();
        let said = format!("{step:?}");
        let told = trial.step(step);
        told.map_err(|differs| format!("step {at}, {differs}\n  after {said:.600}"))?;
    }
    Ok(trial)
}

/// A tally of trials without a difference.
#[derive(Default)]
pub struct Campaign {
    corpus: Vec<Vec<u8>>,
    /// Frames that came in.
    pub frames: u64,
    /// Errors that shared limits held back.
    pub shared_limits: u64,
    deaths: BTreeMap<DropReason, u64>,
}

impl Campaign {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Campaign {
        Campaign {
            corpus: corpus(),
            ..Campaign::default()
        }
    }

    /// So many random frames, one after the other, into the world of `seed`.
    ///
    /// # Errors
    /// The first difference.
    pub fn frames(&mut self, seed: u64, frames: usize) -> Result<(), String> {
        let mut universe = Universe::new(seed, &self.corpus);
        let mut trial = Trial::new(&universe.spec(), 256);
        for at in 0..frames {
            let arrival = universe.frame();
            let said = format!("{arrival:?}");
            let told = trial.step(Step::Frames(vec![arrival]));
            told.map_err(|differs| {
                format!("seed {seed}, frame {at}, {differs}\n  after {said:.1200}")
            })?;
            if at % 50 == 49 {
                trial
                    .step(Step::Wait(1000))
                    .map_err(|differs| format!("seed {seed}: {differs}"))?;
            }
        }
        self.tally(&trial);
        Ok(())
    }

    /// One history in the world of `seed`.
    ///
    /// # Errors
    /// The first difference.
    pub fn history(&mut self, seed: u64, steps: usize) -> Result<(), String> {
        let told = history(&mut Universe::new(seed, &self.corpus), steps);
        self.tally(&told.map_err(|differs| format!("seed {seed}, {differs}"))?);
        Ok(())
    }

    fn tally(&mut self, trial: &Trial) {
        let books: &Books = trial.books();
        self.frames += books.received;
        self.shared_limits += trial.shared_limits();
        for ((_, reason), count) in &books.dropped {
            *self.deaths.entry(*reason).or_default() += count;
        }
    }

    /// How many died of each reason.
    #[must_use]
    pub fn deaths(&self) -> &BTreeMap<DropReason, u64> {
        &self.deaths
    }

    /// The campaign met what it set out to meet.
    ///
    /// # Panics
    /// If few reasons to die were met, or more than one frame
    /// in a thousand was explained by a limit that hosts shared.
    pub fn conclude(&self) {
        let met = self.deaths.len();
        assert!(met >= REASONS_MIN, "only {met} reasons: {:?}", self.deaths);
        assert!(
            self.shared_limits * 1000 <= self.frames,
            "{} errors",
            self.shared_limits
        );
    }
}
