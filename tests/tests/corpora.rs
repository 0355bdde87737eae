//! The fuzzers' corpora, replayed.
//!
//! In: every file below `fuzz/corpus/`, named for what it is.
//! Out: a failure that names the files whose promise does not hold.
//! Never: fuzzes, or needs a fuzzer: it is the same functions that the fuzz targets call.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use dataplane::frame::{FrameView, Network};
use tapline_fuzz::{Steps, TARGETS, Target};

/// Prefixes of one file that are inputs of their own: more find nothing more, and take longer.
const PREFIXES_MAX: usize = 24;

/// The files of one corpus, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(&folder)
        .expect("the corpus is in the tree")
        .map(|entry| entry.expect("a readable entry"))
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("a readable file"))
        })
        .collect();
    files.sort();
    files
}

/// The target of that name.
fn target(name: &str) -> &'static Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    found.expect("a target of that name")
}

fn replay(name: &str, files_min: usize) {
    let files = corpus(name);
    assert!(files.len() >= files_min, "only {} files", files.len());
    let run = target(name).run;
    let broken: Vec<&str> = files
        .iter()
        .filter(|(_, bytes)| catch_unwind(|| run(bytes)).is_err())
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(broken.is_empty(), "{name}: {broken:?}");
}

#[test]
fn every_frame_of_the_corpus_is_viewed_and_decided_on() {
    replay("frame", 40);
}

#[test]
fn every_frame_is_decided_on_by_tables_of_any_kind() {
    replay("decide", 20);
}

#[test]
fn every_sequence_of_the_corpus_goes_through_a_worker() {
    replay("worker", 25);
}

#[test]
fn every_life_of_a_switch_ends_with_its_books_in_order() {
    replay("switch", 20);
}

#[test]
fn every_super_frame_of_the_corpus_is_completed_and_cut() {
    replay("segment", 20);
}

#[test]
fn honest_super_frames_arrive_and_lies_move_no_address() {
    replay("super", 25);
}

#[test]
fn every_packet_of_the_corpus_is_the_sum_of_its_fragments() {
    replay("fragment", 15);
}

#[test]
fn routes_are_found_as_in_a_list_while_they_change() {
    replay("lpm", 10);
}

#[test]
fn captures_of_every_kind_are_read_or_refused_in_a_sentence() {
    replay("capture", 20);
}

#[test]
fn documents_of_every_kind_are_planned_or_refused_in_a_sentence() {
    replay("model", 10);
    replay("template", 8);
    replay("routes", 10);
}

#[test]
fn what_a_node_is_handed_is_read_or_refused_in_a_sentence() {
    replay("config", 8);
    replay("cni", 12);
    replay("api", 16);
    replay("wireserver", 20);
}

#[test]
fn a_prefix_of_any_file_is_an_input_too() {
    for target in TARGETS {
        for (_, bytes) in corpus(target.name).iter().filter(|(_, b)| b.len() < 120) {
            for end in (0..bytes.len()).step_by(1 + bytes.len() / PREFIXES_MAX) {
                (target.run)(&bytes[..end]);
            }
        }
    }
}

#[test]
fn every_corpus_has_a_target_and_every_file_a_meaning() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let folders = fs::read_dir(root.join("corpus")).expect("corpora");
    let folders = folders
        .map(|entry| entry.expect("readable"))
        .filter(|entry| entry.path().is_dir());
    let mut found: Vec<String> = folders
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    let mut named: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    named.sort_unstable();
    assert_eq!(found, named);
    let meanings = fs::read_to_string(root.join("corpus/README.md")).expect("the meanings");
    for name in named {
        let section = meanings
            .split("\n## ")
            .find(|s| s.starts_with(&format!("{name}\n")));
        let section = section.unwrap_or_else(|| panic!("no section {name}"));
        let rows: Vec<&str> = section.lines().filter(|l| l.starts_with("| `")).collect();
        for (file, _) in corpus(name) {
            let row = rows
                .iter()
                .find(|row| row.starts_with(&format!("| `{file}` | ")));
            assert!(
                row.is_some(),
                "corpus/README.md says nothing of {name}/{file}"
            );
        }
        assert_eq!(
            rows.len(),
            corpus(name).len(),
            "a row of {name} has no file"
        );
    }
}

/// A corpus rots in silence when its format changes: these would then be other frames.
#[test]
fn the_corpus_is_what_its_names_say() {
    let frames = corpus("frame");
    let named = |prefix: &str| {
        let files: Vec<_> = frames
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .filter_map(|(name, bytes)| Some((name, FrameView::parse(bytes).ok()?.network())))
            .collect();
        assert!(!files.is_empty(), "{prefix}");
        files
    };
    for (name, network) in named("icmp-echo") {
        assert!(matches!(network, Network::Ipv4(_)), "{name}: {network:?}");
    }
    for (name, network) in named("ipv6-nd") {
        assert!(matches!(network, Network::Ipv6(_)), "{name}: {network:?}");
    }
    for (name, network) in named("vlan-tagged") {
        assert_eq!(network, Network::Opaque, "{name}");
    }
    for (name, bytes) in corpus("worker") {
        let steps: Vec<_> = Steps(&bytes[1..]).collect();
        assert!(!steps.is_empty(), "{name} has no steps");
        let again = steps.iter().filter(|step| step.bytes.len() < 13).count();
        assert_eq!(again, 0, "{name} has steps that are no frames");
    }
}
