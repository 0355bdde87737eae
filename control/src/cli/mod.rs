//! The command line: what may be typed, and which part of the program answers.
//!
//! In: the arguments. Out: an exit status. Never: does the work itself.

pub mod adopt;
pub mod capture;
pub mod cluster;
pub mod config;
pub mod doctor;
pub mod lab;
pub mod pages;
pub mod plan;
mod routes;
pub mod run;
pub mod show;
pub mod trace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// How a run of `tapline` ends. The numbers are printed in `--help` and never change meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything asked for was done, and every check held.
    Ok = 0,
    /// The work was done, and a check did not hold.
    CheckFailed = 1,
    /// The input is at fault: arguments, files, or what they say. Nothing was created.
    BadInput = 2,
    /// This machine lacks something that the run needs. Nothing was created.
    Unsupported = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

const EXIT_STATUS: &str = "Exit status:
  0  done, and every check held
  1  done, and a check did not hold
  2  the input is at fault; nothing was created
  3  this machine lacks something the run needs; nothing was created";

/// A userspace virtual switch for Kubernetes nodes built by AKS-Engine.
#[derive(Parser, Debug)]
#[command(name = "tapline", version, after_help = EXIT_STATUS, after_long_help = EXIT_STATUS)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Say which node gets which addresses, pods, and routes.
    #[command(after_help = EXIT_STATUS)]
    Plan(plan::PlanArgs),
    /// Write a node's configuration from the plan, or check one.
    Config(config::ConfigArgs),
    /// Examine the node that this runs on, and say what to do.
    Doctor(doctor::DoctorArgs),
    /// Print a completion script for a shell.
    Completions(pages::CompletionsArgs),
    /// Write the manual pages.
    Man(pages::ManArgs),
    /// Build the planned cluster in network namespaces, and walk it.
    Lab(lab::LabArgs),
    /// Run the daemon: the switch of this node, and whoever attaches pods to it.
    Run(run::RunArgs),
    /// Have the daemon read its configuration again.
    Reload(run::ReloadArgs),
    /// Have a new process take the daemon's place, without losing a frame.
    Upgrade(run::UpgradeArgs),
    /// Take the pods of a running Linux bridge over, under traffic.
    Adopt(adopt::AdoptArgs),
    /// Keep an adoption, which otherwise goes back by itself.
    Confirm(adopt::ConfirmArgs),
    /// Give the pods back to a Linux bridge, under traffic.
    Release(adopt::ReleaseArgs),
    /// Give the pods of a dead daemon to a Linux bridge.
    Rescue(adopt::RescueArgs),
    /// Show what the running daemon knows: ports, stations, routes, drops.
    Show(show::ShowArgs),
    /// See the frames that the switch moves, with what became of each.
    Capture(capture::CaptureArgs),
    /// Show who moves most, again and again.
    Top(show::TopArgs),
    /// Say where a frame would go, and why, without sending it.
    Trace(trace::TraceArgs),
}

/// Runs what was asked for.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Plan(args) => plan::run(&args).into(),
        Command::Config(args) => config::run(&args).into(),
        Command::Adopt(args) => adopt::adopt(&args).into(),
        Command::Confirm(args) => adopt::confirm(&args).into(),
        Command::Release(args) => adopt::release(&args).into(),
        Command::Rescue(args) => adopt::rescue(&args).into(),
        Command::Doctor(args) => doctor::run(&args).into(),
        Command::Completions(args) => pages::completions(&args).into(),
        Command::Man(args) => pages::man(&args).into(),
        Command::Capture(args) => capture::run(&args).into(),
        Command::Show(args) => show::show(&args).into(),
        Command::Top(args) => show::top(&args).into(),
        Command::Lab(args) => lab::run(&args).into(),
        Command::Run(args) => run::run(&args).into(),
        Command::Reload(args) => run::reload(&args).into(),
        Command::Upgrade(args) => run::upgrade(&args).into(),
        Command::Trace(args) => trace::run(&args).into(),
    }
}
