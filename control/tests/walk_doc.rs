//! docs/walk.md, replayed: what it shows is what happens.
//!
//! In: the page, read as `page` has it. A command with `--hold` stays up for those that follow, until
//! the next one.
//! Out: nothing, or the line of the page that is not true.
//! Never: needs `ip`, `ping` or `tcpdump`: commands with a program of these that the machine lacks
//! are the only ones passed over, and the rest must have run.

mod page;
mod program;
mod reader;

use std::fs;
use std::path::Path;

use page::{fits, steps};
use reader::Reader;

const PAGE: &str = "docs/walk.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is in the workspace")
}

#[test]
fn the_walk_is_as_the_page_says() {
    let page = fs::read_to_string(root().join(PAGE)).expect("the page is there");
    let mut reader = Reader::new(PAGE, root().to_owned());
    for step in steps(&page) {
        assert_eq!(step.words().first().copied(), Some("tapline"));
        reader.follow(&step);
    }
    reader.end();
    println!("{} commands ran; {:?}", reader.ran, reader.passed_over);
    assert!(
        reader.ran >= 8,
        "only {} commands ran: {:?}",
        reader.ran,
        reader.passed_over
    );
    assert_eq!(reader.home.processes(), [] as [String; 0]);
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
