//! A page of the documents as a test reads it: commands, and what they show.
//!
//! In: the page. Each line of a `console` block that starts with `$ ` is a command, the lines below
//! are its output: in this order, white space not counted, where `...` stands for anything, and a
//! line of `...` alone for any lines. Two blanks and `#` begin a remark, and `exit status N` at its end
//! says how a command fails.
//! Out: [`Step`]s, and a verdict on each one's output.
//! Never: runs anything.
#![allow(dead_code, reason = "each test program uses its own part")]

/// A command of a page.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) line: usize,
    /// The heading that it stands below.
    pub(crate) section: String,
    /// Without its remark.
    pub(crate) command: String,
    pub(crate) status: i32,
    expected: Vec<(usize, String)>,
}

impl Step {
    pub(crate) fn words(&self) -> Vec<&str> {
        self.command.split_whitespace().collect()
    }
}

/// The commands of a page.
pub(crate) fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut inside, mut section) = (false, String::new());
    for (at, line) in page.lines().enumerate() {
        // Blocks stand in lists as well.
        let line = line.trim_start();
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            let (command, remark) = match command.split_once(" # ") {
                Some((command, remark)) => (command, remark.trim()),
                None => (command, ""),
            };
            let status = remark.rsplit_once("exit status ").map(|(_, status)| status);
            steps.push(Step {
                line: at + 1,
                section: section.clone(),
                command: command.trim().to_owned(),
                status: status.map_or(0, |status| status.parse().expect("a number")),
                expected: Vec::new(),
            });
        } else if inside {
            let step = steps.last_mut().expect("a block begins with a command");
            step.expected.push((at + 1, squeezed(line)));
        } else if line.starts_with('#') {
            section = line.trim_start_matches(['#', ' ']).to_owned();
        }
    }
    steps
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// True if `line` is `pattern`, in which `...` stands for anything.
pub(crate) fn fits(line: &str, pattern: &str) -> bool {
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

/// Holds the output against what `page` shows of it.
pub(crate) fn compare(page: &str, step: &Step, output: &str) {
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
                "{page}:{number}: '{pattern}' is not in the output, of which was left:\n{}",
                rest.join("\n")
            );
        };
        rest = &rest[at + 1..];
        anywhere = false;
    }
    let ended = anywhere || rest.is_empty() || step.expected.is_empty();
    assert!(
        ended,
        "{page}:{}: more came:\n{}",
        step.line,
        rest.join("\n")
    );
}
