//! README.md's lab and plan, replayed from a fresh folder: what it shows is what happens.
//!
//! In: the page's commands up to those that need a node, which `node/readme.rs` replays. Times and
//! counts of frames differ from run to run, and are not compared.
//! Out: nothing, or the line of the page that is not true.
//! Never: builds the program, runs the tests from within themselves, or measures: commands of `cargo`
//! other than the first one stand in blocks of their own.

mod page;
mod program;
mod reader;

use std::fs;
use std::path::Path;

use page::steps;
use reader::Reader;

const PAGE: &str = "README.md";
/// The headings whose commands are run here.
const SECTIONS: [&str; 3] = ["Tapline", "The two commands", "The plan"];

/// A line of the page, with `...` for what no two runs have in common.
fn in_general(line: &str) -> String {
    let is_number = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
    let is_books = line.starts_with("ok ") && line.contains(" received + ");
    let words = line.split_whitespace().map(|word| match word {
        _ if word.starts_with("time=") => "time=...",
        _ if is_books && is_number(word) => "...",
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The page, in which only what a console shows is told in general.
fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE);
    let text = fs::read_to_string(path).expect("the page is there");
    let mut inside = false;
    let line = |line: &str| {
        inside = (inside || line == "```console") && line != "```";
        match inside && !line.starts_with("$ ") {
            true => in_general(line),
            false => line.to_owned(),
        }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_lab_and_the_plan_are_as_the_readme_says() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["aks.json", "aks-vnet.json"] {
        fs::copy(examples.join(name), folder.path().join(name)).expect("copied");
    }
    let table = include_str!("program/route-table.json");
    fs::write(folder.path().join("rt.json"), table).expect("written");
    let mut reader = Reader::new(PAGE, folder.path().to_owned());
    for step in steps(&page()) {
        if SECTIONS.contains(&step.section.as_str()) {
            reader.follow(&step);
        }
    }
    reader.end();
    let (ran, passed_over) = (reader.ran, &reader.passed_over);
    println!("{ran} commands ran; {passed_over:?}");
    assert_eq!(ran + passed_over.len(), 13, "commands were not found");
    assert!(passed_over.len() <= 1, "{passed_over:?}");
    assert_eq!(reader.home.processes(), [] as [String; 0]);
}

#[test]
fn times_and_counts_are_told_in_general_and_nothing_else_is() {
    for (line, general) in [
        (
            "64 bytes from 10.20.0.43: icmp_seq=1 ttl=64 time=0.564 ms",
            "64 bytes from 10.20.0.43: icmp_seq=1 ttl=64 time=... ms",
        ),
        (
            "ok conservation_node-0 9308 received + 6 originated = 9314 transmitted",
            "ok conservation_node-0 ... received + ... originated = ... transmitted",
        ),
        ("19 of 19 checks hold", "19 of 19 checks hold"),
    ] {
        assert_eq!(in_general(line), general);
    }
}
