//! The house style, as far as a program can check it.
//!
//! In: every Rust file of the workspace. Out: a list of places that break a rule, or nothing.
//! Never: guesses at meaning: each rule is a question about text. Formatting is rustfmt's.

use std::fs;
use std::path::{Path, PathBuf};

use dataplane::verdict::DropReason;

const LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

/// Functions that were too long when the rule came, by file and name. Entries may go, never come.
/// These are tables of cases.
const LONG_FUNCTIONS: [(&str, &str); 6] = [
    ("control/src/lab/fabric/rules/tests.rs", "ethernet_cases"),
    ("control/src/lab/fabric/rules/tests.rs", "arp_cases"),
    ("control/src/lab/fabric/rules/tests.rs", "ipv4_cases"),
    ("control/src/lab/fabric/rules/tests.rs", "routing_cases"),
    ("control/src/lab/fabric/rules/tests.rs", "ipv6_cases"),
    ("control/src/lab/fabric/rules/tests/frames.rs", "world"),
];

/// A file may mention a few drop reasons; more are a second list of them.
const REASONS_MAX: usize = 5;

struct Source {
    /// From the workspace's root, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        let parts: Vec<&str> = self.path.split('/').collect();
        parts[..parts.len() - 1].contains(&"tests") || self.path.ends_with("/tests.rs")
    }

    /// The lines that ship, with their numbers: nothing below `#[cfg(test)]`, no comments.
    fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = if self.is_test() { 0 } else { usize::MAX };
        numbered(&self.text)
            .take(end)
            .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn below(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is in the workspace")
}

fn sources() -> Vec<Source> {
    let mut folders: Vec<PathBuf> = ["dataplane", "control", "benches", "tests", "fuzz"]
        .iter()
        .map(|name| root().join(name))
        .filter(|folder| folder.is_dir())
        .collect();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let text = fs::read_to_string(&path).expect("Rust is UTF-8");
                let path = path.strip_prefix(root()).expect("found below it");
                let path = path.to_string_lossy().replace('\\', "/");
                found.push(Source { path, text });
            }
        }
    }
    assert!(found.len() > 50, "only {} files were found", found.len());
    found
}

fn holds(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// Where shipped lines of the chosen files hold one of `words`.
fn mentions(chosen: impl Fn(&Source) -> bool, words: &[&str]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| chosen(source)) {
        for (number, line) in source.shipped() {
            if let Some(word) = words.iter().find(|word| line.contains(*word)) {
                broken.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    broken
}

#[test]
fn every_file_opens_with_its_purpose() {
    let broken = sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.path)
        .collect();
    holds("open with `//!` and a purpose", broken);
}

#[test]
fn every_file_is_under_800_lines() {
    let broken = sources()
        .into_iter()
        .filter(|source| source.text.lines().count() >= LINES_MAX)
        .map(|source| source.path)
        .collect();
    holds("split files before they reach 800 lines", broken);
}

#[test]
fn the_dataplane_takes_shared_memory_through_one_door() {
    let inside = |s: &Source| s.below("dataplane/src/") && s.path != "dataplane/src/sync.rs";
    holds(
        "import crate::sync, so that a model checker sees it",
        mentions(inside, &["std::sync"]),
    );
}

#[test]
fn the_dataplane_is_told_the_time() {
    let inside = |s: &Source| s.below("dataplane/src/") && s.path != "dataplane/src/clock.rs";
    holds(
        "time is an argument",
        mentions(inside, &["Instant::now", "SystemTime::now"]),
    );
}

/// Who may ask what time people say it is: those who print it. All else would follow a clock that jumps.
#[test]
fn no_clock_that_somebody_sets_decides_anything() {
    let told = [
        "control/src/daemon/capture.rs",
        "control/src/lab/probe/capture.rs",
    ];
    let ships = |source: &Source| source.below("control/src/") || source.below("dataplane/src/");
    let decides = |source: &Source| ships(source) && !told.contains(&source.path.as_str());
    holds(
        "reads the wall clock",
        mentions(
            decides,
            &["SystemTime::now", "ClockId::Realtime", "CLOCK_REALTIME"],
        ),
    );
}

#[test]
fn unsafe_code_lives_in_one_folder() {
    let outside = |s: &Source| !s.below("dataplane/src/port/sys/");
    let words = ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe"];
    let all = sources();
    let mut broken = mentions(outside, &words);
    // Tests too, except this one, which has to name what it looks for.
    for source in all
        .iter()
        .filter(|s| s.is_test() && s.path != "tests/tests/tidy.rs")
    {
        let hits = numbered(&source.text).filter(|(_, l)| words.iter().any(|w| l.contains(w)));
        broken.extend(hits.map(|(number, _)| format!("{}:{number}", source.path)));
    }
    holds("unsafe lives in dataplane/src/port/sys", broken);
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let mut broken = Vec::new();
    for source in sources()
        .iter()
        .filter(|s| s.below("dataplane/src/port/sys/"))
    {
        let lines: Vec<&str> = source.text.lines().collect();
        for (at, _) in lines
            .iter()
            .enumerate()
            .filter(|(_, l)| l.contains("unsafe {"))
        {
            let before = &lines[at.saturating_sub(8)..at];
            if !before.iter().any(|line| line.contains("// SAFETY:")) {
                broken.push(format!("{}:{}", source.path, at + 1));
            }
        }
    }
    holds(
        "say SAFETY: the claim, who keeps it, what checks it",
        broken,
    );
}

#[test]
fn the_dataplane_knows_no_runtime_no_format_no_netlink_and_no_control() {
    let inside = |s: &Source| s.below("dataplane/src/");
    let words = ["tokio", "serde", "netlink", "control::", "tapline_control"];
    holds(
        "what may be slow lives in control",
        mentions(inside, &words),
    );
    let manifest = fs::read_to_string(root().join("dataplane/Cargo.toml")).expect("readable");
    let broken = numbered(&manifest)
        .filter(|(_, line)| {
            ["tokio", "serde", "netlink", "tapline-control"]
                .iter()
                .any(|word| line.starts_with(word))
        })
        .map(|(number, line)| format!("dataplane/Cargo.toml:{number}: {line}"))
        .collect();
    holds("arrows point from control to dataplane", broken);
}

#[test]
fn nothing_is_left_to_do() {
    let words = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
    ];
    let mut broken = Vec::new();
    for source in sources() {
        for (number, line) in numbered(&source.text) {
            if words.iter().any(|word| line.contains(word)) {
                broken.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    holds("finish it, or write an issue", broken);
}

#[test]
fn what_ships_says_why_it_cannot_fail() {
    holds(
        "expect(\"why it cannot happen\"), or an error",
        mentions(|_| true, &[".unwrap()"]),
    );
}

#[test]
fn drop_reasons_are_listed_once() {
    let mut broken = Vec::new();
    for source in sources()
        .iter()
        .filter(|s| s.path != "dataplane/src/verdict.rs")
        // The fabric is another network with reasons of its own, some by the same name.
        .filter(|s| s.path != "control/src/lab/fabric/reasons.rs")
    {
        let named = DropReason::ALL
            .iter()
            .filter(|reason| source.text.contains(&format!("\"{}\"", reason.label())))
            .count();
        if named > REASONS_MAX {
            broken.push(format!("{}: {named} labels", source.path));
        }
    }
    holds("read DropReason::ALL", broken);
}

/// The name of the function that a line begins, if it begins one.
fn function(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    for word in ["pub ", "pub(crate) ", "pub(super) ", "const ", "async "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    name.split(['(', '<']).next()
}

#[test]
fn every_function_fits_a_screen() {
    let mut broken = Vec::new();
    let mut spared = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(name) = function(line) else { continue };
            let indent = line.len() - line.trim_start().len();
            let close = format!("{}}}", " ".repeat(indent));
            let body = lines[at..].iter().position(|line| *line == close);
            let long = body.is_some_and(|length| length + 1 > FUNCTION_LINES_MAX);
            if long && LONG_FUNCTIONS.contains(&(source.path.as_str(), name)) {
                spared.push((source.path.clone(), name.to_owned()));
            } else if long && !line.trim_end().ends_with(';') {
                broken.push(format!("{}:{}: {name}", source.path, at + 1));
            }
        }
    }
    holds("a function fits a screen of 70 lines", broken);
    let stale = LONG_FUNCTIONS
        .iter()
        .filter(|(path, name)| !spared.iter().any(|(p, n)| p == path && n == name))
        .map(|entry| format!("{entry:?}"))
        .collect();
    holds("no longer long: take it off the list", stale);
}

#[test]
fn every_relative_link_of_the_documents_leads_somewhere() {
    let mut broken = Vec::new();
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "docs/cni.md",
        "docs/walk.md",
        "docs/trace.md",
    ] {
        let file = root().join(name);
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (number, line) in numbered(&text) {
            for link in line.split("](").skip(1).filter_map(|l| l.split(')').next()) {
                let target = link.split('#').next().unwrap_or_default();
                let here = file.parent().expect("a file has a folder").join(target);
                let local = !link.contains("://") && !target.is_empty();
                if local && !here.exists() {
                    broken.push(format!("{name}:{number}: {link}"));
                }
            }
        }
    }
    holds("links lead to files", broken);
}

#[test]
fn the_architecture_names_only_files_that_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("readable");
    let mut broken = Vec::new();
    for (number, line) in numbered(&text) {
        for word in line.split('`').skip(1).step_by(2) {
            let is_path = [
                "dataplane/",
                "control/",
                "tests/",
                "benches/",
                "docs/",
                ".ci/",
            ]
            .iter()
            .any(|folder| word.starts_with(folder));
            if is_path && !word.contains(['*', ' ']) && !root().join(word).exists() {
                broken.push(format!("ARCHITECTURE.md:{number}: {word}"));
            }
        }
    }
    holds("the map is true", broken);
}
