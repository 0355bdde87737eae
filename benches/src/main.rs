//! `tapline-benches compare`: the arguments, the walls around the process, and where output goes.
//!
//! In: the command line. Out: tables, JSON or Markdown on standard output, progress on standard
//! error. Never: starts a thread before the process has left the machine's network.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use benches::compare::{self, Options, Rps};
use benches::names::{Scenario, Subject};
use benches::report::{svg, table};
use benches::topo::Env;
use clap::{Parser, Subcommand};
use control::lab::privilege::{self, Means, PrivateNet};
use control::lab::reaper::{self, Reaper};
use dataplane::switch::Cpu;
use indicatif::{ProgressBar, ProgressStyle};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const EXAMPLES: &str = "Examples:
  tapline-benches compare --quick                       # a rough look, under a minute
  tapline-benches compare --scenario pods-same-node     # five rounds of the main scenario
  tapline-benches compare --scenario pods-same-node --rps both --workers 2
  tapline-benches compare --json > compare.json
  tapline-benches compare --scenario core-l2 --subject tapline-core --subject dpdk-testpmd

Everything runs in network namespaces of this process's own and is gone when it ends, however it
ends. Subjects that are not installed are named at the end, with the reason.";

/// Measures Tapline beside other switches.
#[derive(Parser, Debug)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Tapline beside the Linux bridge and others, in alternating rounds.
    #[command(after_long_help = EXAMPLES)]
    Compare(CompareArgs),
    /// What a process holds that runs the switch for 110 pods.
    #[command(name = compare::RESIDENT, hide = true)]
    Resident {
        #[arg(value_enum)]
        subject: Subject,
    },
}

#[derive(clap::Args, Debug)]
struct CompareArgs {
    /// Rounds; each measures every subject once.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = rounds)]
    rounds: usize,

    /// Where to measure; may be repeated. Default: everywhere.
    #[arg(long, value_name = "NAME", value_enum)]
    scenario: Vec<Scenario>,

    /// Whom to measure; may be repeated. Default: everyone.
    #[arg(long, value_name = "NAME", value_enum)]
    subject: Vec<Subject>,

    /// Time of one measurement, in seconds.
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds)]
    seconds: Duration,

    /// One short round of TCP, ICMP and the in-memory scenarios, marked as rough.
    #[arg(long)]
    quick: bool,

    /// How long Tapline looks again before it sleeps, such as 50us or 5ms.
    #[arg(long, value_name = "DURATION", value_parser = span)]
    spin: Option<Duration>,

    /// Workers of Tapline's switches, each with a queue of every TAP; up to 64.
    #[arg(long, value_name = "N", default_value = "1", value_parser = workers)]
    workers: NonZeroU16,

    /// Keep Tapline's workers on these processors, by the kernel's numbers, such as 1 or 0,1, in the
    /// scenarios of one node.
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = cpu)]
    cpus: Vec<Cpu>,

    /// Receive packet steering: both settings at first and then the better one, or as given.
    #[arg(long, value_enum, default_value_t = Rps::Auto)]
    rps: Rps,

    /// JSON, alone, on standard output.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,

    /// Markdown on standard output.
    #[arg(long)]
    markdown: bool,

    /// Bar charts, in this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == reaper::COMMAND) {
        return reaper::main(&words.collect::<Vec<OsString>>());
    }
    let args = match Cli::parse().command {
        Command::Compare(args) => args,
        Command::Resident { subject } => return resident(subject),
    };
    // The chart's file is opened first: the folder may be one that our mounts will hide, and a
    // long run should not end in a path that cannot be written.
    let chart = match args.svg.as_ref().map(std::fs::File::create).transpose() {
        Ok(chart) => chart,
        Err(error) => return refuse(&format!("cannot write the chart: {error}")),
    };
    let options = options(&args);
    let mut env = enter(args.spin, args.workers, &args.cpus);
    let bar = progress();
    let report = compare::run(&options, &mut env, &mut |part, what| tell(&bar, part, what));
    bar.finish_and_clear();
    let text = match (args.json, args.markdown) {
        (true, _) => report.to_json(),
        (_, true) => table::to_markdown(&report),
        _ => table::to_text(&report),
    };
    // A reader that went away is no fault of ours.
    let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end());
    if let Some(mut file) = chart
        && let Err(error) = file.write_all(svg::draw(&report).as_bytes())
    {
        return refuse(&format!("cannot write the chart: {error}"));
    }
    match report.rows.is_empty() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn resident(subject: Subject) -> ExitCode {
    let mut env = enter(None, NonZeroU16::MIN, &[]);
    let found = match &mut env {
        Ok(env) => compare::resident(env, subject).map_err(|error| error.to_string()),
        Err(why) => Err(why.clone()),
    };
    match found {
        Ok(bytes) => {
            println!("{bytes}");
            ExitCode::SUCCESS
        }
        Err(why) => refuse(&why),
    }
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("tapline-benches: {why}");
    ExitCode::FAILURE
}

fn options(args: &CompareArgs) -> Options {
    let quick = |scenario: &&Scenario| **scenario == Scenario::PodsSameNode || scenario.is_core();
    let all = Scenario::ALL.iter();
    let scenarios = match (args.scenario.is_empty(), args.quick) {
        (false, _) => args.scenario.clone(),
        (true, true) => all.filter(quick).copied().collect(),
        (true, false) => all.copied().collect(),
    };
    Options {
        rounds: if args.quick { 1 } else { args.rounds },
        time: if args.quick {
            Duration::from_millis(700)
        } else {
            args.seconds
        },
        scenarios,
        subjects: args.subject.clone(),
        quick: args.quick,
        rps: args.rps,
    }
}

/// The reaper first, outside; then out of the machine's network, for good; then mounts of our own.
fn enter(spin: Option<Duration>, workers: NonZeroU16, cpus: &[Cpu]) -> Result<Env, String> {
    let reaper = Reaper::spawn().map_err(|error| format!("cannot start the reaper: {error}"))?;
    let private = privilege::enter().map_err(|error| error.to_string())?;
    if let Means::UserNamespace { .. } = private.means() {
        eprintln!("not root: measuring in a user namespace, where RPS cannot be set");
    }
    let scratch = own_mounts(&private).ok();
    Ok(Env {
        private,
        reaper,
        scratch,
        spin,
        workers,
        cpus: cpus.to_vec(),
    })
}

/// What the programs of others write goes to a file system in memory that hides `/run` from this
/// process and those it starts, and dies with them.
fn own_mounts(_private: &PrivateNet) -> nix::Result<PathBuf> {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), flags, none)?;
    Ok(PathBuf::from("/run"))
}

fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{bar:30} {percent:>3} %  {elapsed} of about {duration}  {msg}",
    );
    let bar = ProgressBar::new(1000);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// A bar for people, lines for a file.
fn tell(bar: &ProgressBar, part: f64, what: &str) {
    if std::io::stderr().is_terminal() {
        bar.set_position((part * 1000.0) as u64);
        bar.set_message(what.to_owned());
    } else {
        eprintln!("{:3.0} %  {what}", part * 100.0);
    }
}

/// As many as `lab` takes.
fn workers(text: &str) -> Result<NonZeroU16, String> {
    match text.parse() {
        Ok(count @ 1..=64) => NonZeroU16::new(count).ok_or_else(String::new),
        _ => Err("from 1 to 64 workers".into()),
    }
}

fn cpu(text: &str) -> Result<Cpu, String> {
    let number = text.parse().ok();
    let cpu = number.and_then(Cpu::new);
    cpu.ok_or_else(|| format!("a processor's number, below {}", Cpu::COUNT_MAX))
}

fn rounds(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1000) => Ok(count),
        _ => Err("from 1 to 1000 rounds".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.05..=600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("from 0.05 to 600 seconds".into()),
    }
}

/// A number and `us`, `ms` or `s`; at most a second, since it burns a processor.
fn span(text: &str) -> Result<Duration, String> {
    let why = || "a number and us, ms or s, at most 1s in all, such as 50us".to_owned();
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .ok_or_else(why)?;
    let number: f64 = text[..split].parse().map_err(|_| why())?;
    let scale = match &text[split..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return Err(why()),
    };
    match number * scale {
        seconds if (0.0..=1.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(why()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        assert_eq!(span("5ms"), Ok(Duration::from_millis(5)));
        assert_eq!(span("0us"), Ok(Duration::ZERO));
        assert!(span("5").is_err() && span("2s").is_err() && span("-1ms").is_err());
        assert!(seconds("0.2").is_ok() && seconds("nan").is_err());
        assert!(rounds("0").is_err());
        assert_eq!(workers("2"), Ok(NonZeroU16::new(2).expect("not zero")));
        assert!(workers("0").is_err() && workers("65").is_err());
    }
}
