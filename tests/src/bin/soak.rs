//! A soak: half of the highest rate for as long as it is told, with other tables every 10 ms.
//!
//! In: minutes. Out: frames, losses and memory; a failure if a frame is missing, the counters do not
//! balance, or memory grew. Never: a device.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tapline_tests::sim::soak::soak;

/// Memory that allocators may keep back between two looks, in bytes.
const GROWTH_MAX: u64 = 2 << 20;

/// Runs a worker at half of its highest rate while its tables change every 10 ms.
#[derive(Parser)]
#[command(name = "soak")]
struct Arguments {
    /// How long.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let time = Duration::from_secs_f64(arguments.minutes * 60.0);
    let style = ProgressStyle::with_template("{bar:40} {elapsed} of {msg}");
    let bar = ProgressBar::new(time.as_secs()).with_style(style.expect("the template is sound"));
    bar.set_message(format!("{time:.0?}"));
    let told = soak(time, |done| bar.set_position(done.as_secs()));
    bar.finish();
    let (first, last) = told.resident;
    println!(
        "highest {:.0} frames a second; {:.0} for {time:.0?}, which took {:.0?}: {} sent, {} arrived, {} tables",
        told.highest, told.rate, told.took, told.sent, told.arrived, told.published
    );
    println!("{}", told.counts);
    println!(
        "dropped: {:?}; resident {first} and then {last} bytes",
        told.counts.dropped
    );
    let whole = told.sent == told.arrived && told.counts.dropped.total() == 0;
    if whole && told.counts.is_balanced() && last <= first + GROWTH_MAX {
        ExitCode::SUCCESS
    } else {
        eprintln!("frames were lost, or memory grew");
        ExitCode::FAILURE
    }
}
