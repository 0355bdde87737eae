//! Simulates clusters with faults, a seed each, and stops at the first broken law.
//!
//! In: how many seeds, and the first. Out: a tally, or the law with the seed that breaks it.
//! Never: a result that the seed alone does not reproduce.

use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tapline_tests::sim::{Options, Plant, ROUNDS, Report, run};

/// Simulates clusters with faults, and checks the laws of the switch all the while.
#[derive(Parser)]
#[command(name = "simulate")]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed. With `--seeds 1`, a run again.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Rounds with faults in each run.
    #[arg(long, default_value_t = ROUNDS)]
    rounds: u32,
    /// Plants a fault of the switch, which a law must catch.
    #[arg(long)]
    plant: Option<Plant>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    println!("first seed: {}", arguments.seed);
    let options = Options {
        rounds: arguments.rounds,
        plant: arguments.plant,
    };
    if options.plant.is_some() {
        // A planted fault may end in a panic, which is told as a broken law.
        std::panic::set_hook(Box::new(|_| ()));
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {eta} left");
    let bar = ProgressBar::new(arguments.seeds).with_style(style.expect("the template is sound"));
    let mut sum = Report::default();
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        match run(seed, &options) {
            Ok(report) => add(&mut sum, &report),
            Err(broken) => {
                bar.abandon();
                eprintln!("{broken}");
                return ExitCode::FAILURE;
            }
        }
        bar.inc(1);
    }
    bar.finish();
    println!(
        "{} seeds passed: {} frames received by switches, {} carried by the fabric, {} delivered to \
         pods, {} dropped for a reason; {} faults, {} tables published; digest {:016x}",
        arguments.seeds,
        sum.received,
        sum.carried,
        sum.delivered,
        sum.dropped,
        sum.faults,
        sum.published,
        sum.digest
    );
    ExitCode::SUCCESS
}

fn add(sum: &mut Report, report: &Report) {
    sum.received += report.received;
    sum.carried += report.carried;
    sum.delivered += report.delivered;
    sum.dropped += report.dropped;
    sum.faults += report.faults;
    sum.published += report.published;
    sum.digest = sum.digest.rotate_left(1) ^ report.digest;
}
