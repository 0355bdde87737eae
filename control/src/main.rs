//! The `tapline` program: wiring, and nothing else.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    control::cli::run(control::cli::Cli::parse())
}
