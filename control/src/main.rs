//! The `tapline` program: wiring, and nothing else.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use control::cli::{self, Cli};
use control::lab::reaper;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.split_first() {
        // Not one of the commands that people type: a lab starts it to clear up after itself.
        Some((word, rest)) if word == reaper::COMMAND => reaper::main(rest),
        _ => cli::run(Cli::parse()),
    }
}
