//! docs/walk.md, replayed: what it shows is what happens.
//!
//! In: the page, read as `page` has it. A command with `--hold` stays up for those that follow, until
//! the next one.
//! Out: nothing, or the line of the page that is not true.
//! Never: needs `ip`, `ping` or `tcpdump`: commands with a program of these that the machine lacks
//! are the only ones passed over, and the rest must have run.

mod page;
mod program;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use page::{Step, compare, fits, steps};
use program::{Held, Home, Outcome};

const PAGE: &str = "docs/walk.md";

/// Programs that the seed uses and Tapline does not.
const OPTIONAL: [&str; 3] = ["ip", "ping", "tcpdump"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is in the workspace")
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The optional program that this command runs inside the lab, if the machine lacks it.
fn lacks(step: &Step) -> Option<String> {
    let words = step.words();
    let behind = words.iter().position(|word| *word == "--")?;
    let program = *words.get(behind + 1)?;
    (OPTIONAL.contains(&program) && !is_installed(program)).then(|| program.to_owned())
}

/// Warnings go to standard error and results to standard output; the page shows the results.
/// A command that the page shows twice is run once.
fn run(home: &Home, step: &Step, seen: &mut HashMap<String, Outcome>) {
    let outcome = seen.entry(step.command.clone()).or_insert_with(|| {
        let mut command = home.tapline();
        Outcome::of(command.args(&step.words()[1..]).current_dir(root()))
    });
    assert_eq!(
        outcome.status,
        Some(step.status),
        "docs/walk.md:{}: {}\n{}\n{}",
        step.line,
        step.command,
        outcome.stdout,
        outcome.stderr
    );
    compare(PAGE, step, &outcome.stdout);
}

fn hold(home: &Home, step: &Step) -> Held {
    let report = home.path().join("report");
    let file = fs::File::create(&report).expect("the folder is ours");
    let mut command: Command = home.tapline();
    command.args(&step.words()[1..]).current_dir(root());
    let mut held = Held::begin_into(&mut command, Stdio::from(file));
    held.wait_for("held until Ctrl-C");
    compare(
        PAGE,
        step,
        &fs::read_to_string(&report).expect("the report is there"),
    );
    held
}

fn end(held: Option<Held>) {
    if let Some(mut held) = held {
        held.signal(Signal::SIGINT);
        let status = held
            .status(Duration::from_secs(5))
            .expect("it ends in time");
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

#[test]
fn the_walk_is_as_the_page_says() {
    let page = fs::read_to_string(root().join(PAGE)).expect("the page is there");
    let home = Home::new();
    let (mut held, mut seen) = (None, HashMap::new());
    let (mut ran, mut passed_over) = (0, Vec::new());
    for step in steps(&page) {
        assert_eq!(step.words().first().copied(), Some("tapline"));
        if let Some(program) = lacks(&step) {
            passed_over.push(format!("line {}: no {program} here", step.line));
            continue;
        }
        ran += 1;
        if step.words().contains(&"--hold") {
            end(held.take());
            held = Some(hold(&home, &step));
            seen.clear();
        } else {
            run(&home, &step, &mut seen);
        }
    }
    end(held);
    println!("{ran} commands ran; {passed_over:?}");
    assert!(ran >= 8, "only {ran} commands ran: {passed_over:?}");
    assert_eq!(home.processes(), [] as [String; 0]);
}

#[test]
fn a_pattern_fits_what_it_should_and_no_more() {
    for (line, pattern) in [
        ("ttl=64 time=0.5 ms", "ttl=64 time=... ms"),
        ("a b c", "a ... c"),
        ("abc", "abc"),
        ("4: cbr0: up", "...: cbr0: ..."),
        ("anything", "..."),
    ] {
        assert!(fits(line, pattern), "'{line}' and '{pattern}'");
    }
    for (line, pattern) in [
        ("ttl=62 time=0.5 ms", "ttl=64 time=... ms"),
        ("abcd", "abc"),
        ("ab", "a ... b"),
        ("x abc", "abc"),
    ] {
        assert!(!fits(line, pattern), "'{line}' and '{pattern}'");
    }
}
