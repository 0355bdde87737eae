//! The long form of `tests/tests/oracle.rs`: as many random frames and histories as it is told.
//!
//! In: numbers, and a first seed. Out: a tally, or the first difference with its seed.
//! Never: stops to look for a shorter failure: the test does that.

use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tapline_tests::oracle::campaign::Campaign;

/// Frames into one world; then comes another.
const FRAMES: usize = 250;
/// Steps of one history, of which some bring forty frames.
const STEPS: usize = 100;

/// Holds the switch against a model of it in plain Rust.
#[derive(Parser)]
#[command(name = "oracle")]
struct Arguments {
    /// Random frames, one after the other.
    #[arg(long, default_value_t = 1_000_000)]
    frames: u64,
    /// Histories of frames, pauses, and changes of tables and ports.
    #[arg(long, default_value_t = 10_000)]
    histories: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    println!("first seed: {}", arguments.seed);
    let mut campaign = Campaign::new();
    match run(&arguments, &mut campaign) {
        Ok(()) => {
            campaign.conclude();
            println!(
                "{} frames, {} histories, {} frames in all: 0 differences; {} errors held back by \
                 limits that two hosts share",
                arguments.frames, arguments.histories, campaign.frames, campaign.shared_limits
            );
            for (reason, count) in campaign.deaths() {
                println!("{count:>10} {reason}");
            }
            ExitCode::SUCCESS
        }
        Err(difference) => {
            eprintln!("{difference}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, campaign: &mut Campaign) -> Result<(), String> {
    let worlds = arguments.frames.div_ceil(FRAMES as u64);
    let bar = bar("frames", worlds);
    for seed in 0..worlds {
        campaign.frames(arguments.seed + seed, FRAMES)?;
        bar.inc(1);
    }
    bar.finish();
    let bar = self::bar("histories", arguments.histories);
    for seed in 0..arguments.histories {
        campaign.history(arguments.seed + seed, STEPS)?;
        bar.inc(1);
    }
    bar.finish();
    Ok(())
}

fn bar(what: &'static str, steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>10} {bar:40} {pos}/{len} {eta} left");
    let bar = ProgressBar::new(steps).with_prefix(what);
    bar.with_style(style.expect("the template is sound"))
}
