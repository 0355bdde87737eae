//! A reader of a page, who types its commands one after the other.
//!
//! In: a folder to be in, and steps as `page` has them. A command with `--hold` stays up for those
//! that follow, until the next one.
//! Out: nothing, or the line of the page that is not true.
//! Never: builds anything: `cargo run` is the program that is built already.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::page::{Step, compare};
use crate::program::{Held, Home, Outcome};

/// Programs that the pages use and Tapline does not.
const OPTIONAL: [&str; 3] = ["ip", "ping", "tcpdump"];

/// At a terminal.
pub(crate) struct Reader {
    pub(crate) home: Home,
    page: &'static str,
    folder: PathBuf,
    held: Option<Held>,
    seen: HashMap<String, Outcome>,
    pub(crate) ran: usize,
    pub(crate) passed_over: Vec<String>,
}

impl Reader {
    pub(crate) fn new(page: &'static str, folder: PathBuf) -> Reader {
        Reader {
            home: Home::new(),
            page,
            folder,
            held: None,
            seen: HashMap::new(),
            ran: 0,
            passed_over: Vec::new(),
        }
    }

    pub(crate) fn follow(&mut self, step: &Step) {
        if let Some(program) = lacks(step) {
            let line = step.line;
            self.passed_over
                .push(format!("line {line}: no {program} here"));
            return;
        }
        self.ran += 1;
        if step.words().contains(&"--hold") {
            self.end();
            self.held = Some(self.hold(step));
            // What is shown of this one was not shown of the one before.
            self.seen.clear();
        } else {
            self.run(step);
        }
    }

    fn command(&self, step: &Step) -> Command {
        let words = step.words();
        let arguments = match words[..] {
            ["tapline", ..] => &words[1..],
            ["cargo", "run", "--release", "--", ..] => &words[4..],
            _ => panic!("{}:{}: {}", self.page, step.line, step.command),
        };
        let mut command = self.home.tapline();
        command.args(arguments).current_dir(&self.folder);
        command
    }

    /// Warnings go to standard error and results to standard output; the page shows the results.
    /// A command that the page shows twice is run once.
    fn run(&mut self, step: &Step) {
        let mut command = self.command(step);
        let seen = self.seen.entry(step.command.clone());
        let outcome = seen.or_insert_with(|| Outcome::of(&mut command));
        assert_eq!(
            outcome.status,
            Some(step.status),
            "{}:{}: {}\n{}\n{}",
            self.page,
            step.line,
            step.command,
            outcome.stdout,
            outcome.stderr
        );
        compare(self.page, step, &outcome.stdout);
    }

    fn hold(&self, step: &Step) -> Held {
        let report = self.home.path().join("report");
        let file = fs::File::create(&report).expect("the folder is ours");
        let mut held = Held::begin_into(&mut self.command(step), Stdio::from(file));
        held.wait_for("held until Ctrl-C");
        let report = fs::read_to_string(&report).expect("the report is there");
        compare(self.page, step, &report);
        held
    }

    /// Ends a lab that is held.
    pub(crate) fn end(&mut self) {
        if let Some(mut held) = self.held.take() {
            held.signal(Signal::SIGINT);
            let status = held.status(Duration::from_secs(5));
            let status = status.expect("it ends in time");
            assert_eq!(status.code(), Some(0), "{status}");
        }
    }
}

/// The optional program that this command runs inside the lab, if the machine lacks it.
fn lacks(step: &Step) -> Option<String> {
    let words = step.words();
    let behind = words.iter().position(|word| *word == "--")?;
    let program = *words.get(behind + 1)?;
    (OPTIONAL.contains(&program) && !is_installed(program)).then(|| program.to_owned())
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
