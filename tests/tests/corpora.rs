//! The fuzzers' corpora, replayed.
//!
//! In: every file below `fuzz/corpus/`, named for what it is.
//! Out: a failure that names the files whose promise does not hold.
//! Never: fuzzes, or needs a fuzzer: it is the same functions that the fuzz targets call.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use dataplane::frame::{FrameView, Network};
use tapline_fuzz::{Steps, run_frame, run_segment, run_worker};

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

fn replay(target: &str, run: fn(&[u8]), files_min: usize) {
    let files = corpus(target);
    assert!(files.len() >= files_min, "only {} files", files.len());
    let broken: Vec<&str> = files
        .iter()
        .filter(|(_, bytes)| catch_unwind(|| run(bytes)).is_err())
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(broken.is_empty(), "{target}: {broken:?}");
}

#[test]
fn every_frame_of_the_corpus_is_viewed_and_decided_on() {
    replay("frame", run_frame, 40);
}

#[test]
fn every_sequence_of_the_corpus_goes_through_a_worker() {
    replay("worker", run_worker, 25);
}

#[test]
fn every_super_frame_of_the_corpus_is_completed_and_cut() {
    replay("segment", run_segment, 20);
}

#[test]
fn a_prefix_of_any_file_is_an_input_too() {
    for (target, run) in [
        ("frame", run_frame as fn(&[u8])),
        ("worker", run_worker),
        ("segment", run_segment),
    ] {
        for (_, bytes) in corpus(target).iter().filter(|(_, b)| b.len() < 120) {
            for end in 0..bytes.len() {
                run(&bytes[..end]);
            }
        }
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
