//! docs/walk.md, replayed: what it shows is what happens.
//!
//! In: the page. Each line of a `console` block that starts with `$ ` is a command, the lines below
//! are its output: in this order, on either stream, white space not counted, where `...` stands
//! for anything, and a line of `...` alone for any lines. `# exit status N` ends a command that
//! fails. A command with `--hold` stays up for those that follow, until the next one.
//! Out: nothing, or the line of the page that is not true.
//! Never: needs `ip`, `ping` or `tcpdump`: commands with a program of these that the machine lacks
//! are the only ones passed over, and the rest must have run.

mod program;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use program::{Held, Home, Outcome};

/// Programs that the seed uses and Tapline does not.
const OPTIONAL: [&str; 3] = ["ip", "ping", "tcpdump"];

/// A command of the page.
struct Step {
    line: usize,
    words: Vec<String>,
    status: i32,
    expected: Vec<(usize, String)>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is in the workspace")
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for (at, line) in page.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            let (command, status) = match command.split_once("# exit status ") {
                Some((command, status)) => (command, status.trim().parse().expect("a number")),
                None => (command, 0),
            };
            steps.push(Step {
                line: at + 1,
                words: command.split_whitespace().map(str::to_owned).collect(),
                status,
                expected: Vec::new(),
            });
        } else if inside {
            let step = steps.last_mut().expect("a block begins with a command");
            step.expected.push((at + 1, squeezed(line)));
        }
    }
    steps
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// True if `line` is `pattern`, in which `...` stands for anything.
fn fits(line: &str, pattern: &str) -> bool {
    let mut parts = pattern.split("...");
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Holds the output against what the page shows of it.
fn compare(step: &Step, output: &str) {
    let lines: Vec<String> = output
        .lines()
        .map(squeezed)
        .filter(|l| !l.is_empty())
        .collect();
    let mut rest = lines.as_slice();
    let mut anywhere = false;
    for (number, pattern) in step
        .expected
        .iter()
        .filter(|(_, pattern)| !pattern.is_empty())
    {
        if pattern == "..." {
            anywhere = true;
            continue;
        }
        let found = match anywhere {
            true => rest.iter().position(|line| fits(line, pattern)),
            false => rest.first().filter(|line| fits(line, pattern)).map(|_| 0),
        };
        let Some(at) = found else {
            panic!(
                "docs/walk.md:{number}: '{pattern}' is not in the output, of which was left:\n{}",
                rest.join("\n")
            );
        };
        rest = &rest[at + 1..];
        anywhere = false;
    }
    let ended = anywhere || rest.is_empty() || step.expected.is_empty();
    assert!(
        ended,
        "docs/walk.md:{}: more came:\n{}",
        step.line,
        rest.join("\n")
    );
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The optional program that this command runs inside the lab, if the machine lacks it.
fn lacks(step: &Step) -> Option<&str> {
    let behind = step.words.iter().position(|word| word == "--")?;
    let program = step.words.get(behind + 1)?.as_str();
    (OPTIONAL.contains(&program) && !is_installed(program)).then_some(program)
}

/// Warnings go to standard error and results to standard output; the page shows the results.
/// A command that the page shows twice is run once.
fn run(home: &Home, step: &Step, seen: &mut HashMap<Vec<String>, Outcome>) {
    let outcome = seen.entry(step.words.clone()).or_insert_with(|| {
        let mut command = home.tapline();
        Outcome::of(command.args(&step.words[1..]).current_dir(root()))
    });
    assert_eq!(
        outcome.status,
        Some(step.status),
        "docs/walk.md:{}: {}\n{}\n{}",
        step.line,
        step.words.join(" "),
        outcome.stdout,
        outcome.stderr
    );
    compare(step, &outcome.stdout);
}

fn hold(home: &Home, step: &Step) -> Held {
    let report = home.path().join("report");
    let file = fs::File::create(&report).expect("the folder is ours");
    let mut command: Command = home.tapline();
    command.args(&step.words[1..]).current_dir(root());
    let mut held = Held::begin_into(&mut command, Stdio::from(file));
    held.wait_for("held until Ctrl-C");
    compare(
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
    let page = fs::read_to_string(root().join("docs/walk.md")).expect("the page is there");
    let home = Home::new();
    let (mut held, mut seen) = (None, HashMap::new());
    let (mut ran, mut passed_over) = (0, Vec::new());
    for step in steps(&page) {
        assert_eq!(step.words.first().map(String::as_str), Some("tapline"));
        if let Some(program) = lacks(&step) {
            passed_over.push(format!("line {}: no {program} here", step.line));
            continue;
        }
        ran += 1;
        if step.words.iter().any(|word| word == "--hold") {
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
