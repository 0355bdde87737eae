//! Tapline as a bridge beside the Linux bridge: the same frames at the same ports, and what comes
//! out of each, frame by frame.
//!
//! In: the right to make network namespaces; random frames, and those of the fuzzers' corpus.
//! Out: every frame's deliveries at every port, compared byte for byte; a difference stands in one
//! table with its reason ([`differences`]), or fails.
//! Never: measures speed, or touches the machine's own network.
//!
//! After each frame its sender says a word to everybody, by which deliveries are told apart. It also
//! keeps both bridges of one mind: what Tapline refuses teaches it nothing, and the kernel learns
//! before it looks.
//!
//! `TAPLINE_FRAMES=100000 cargo test --release -p tapline-tests --test bridge` is the long form.

mod differences;
mod topology;

use std::collections::BTreeMap;

use dataplane::addr::Mac;
use tapline_tests::oracle::campaign::corpus;
use tapline_tests::oracle::checksum;
use tapline_tests::oracle::universe::Universe;

use differences::{Findings, is_tried};
use topology::{Bench, Kind, PORTS};

/// Frames without further notice: a few seconds.
const FRAMES: usize = 4000;
/// Frames of one port that are under way together, each with its word: a fraction of what a
/// socket holds.
const BATCH: usize = 24;

/// How many frames: `TAPLINE_FRAMES`, or a few.
fn frames() -> usize {
    let said = std::env::var("TAPLINE_FRAMES").ok();
    said.map_or(FRAMES, |text| {
        text.parse().expect("TAPLINE_FRAMES is a number")
    })
}

/// A word to everybody, in the name of `source`.
fn word(source: Mac, number: u64) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(source.octets());
    frame.extend([0x88, 0xb5]);
    frame.extend(b"after frame ");
    frame.extend(number.to_be_bytes());
    frame.resize(60, 0);
    frame
}

/// A host says that it joins a group: IGMP version 2 (RFC 2236), from the station at port 0.
fn report() -> Vec<u8> {
    let mut frame = vec![0x01, 0x00, 0x5e, 1, 2, 3];
    frame.extend(topology::pod(0).octets());
    frame.extend([0x08, 0, 0x45, 0, 0, 28, 0, 1, 0, 0, 1, 2, 0, 0]);
    frame.extend([10, 244, 1, 6, 239, 1, 2, 3]);
    frame.extend([0x16, 0, 0, 0, 239, 1, 2, 3]);
    for (from, to, at) in [(14, 34, 24), (34, 42, 36)] {
        let sum = checksum(&frame[from..to]);
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// A frame to everybody that has two tags, of which the second is cut off.
fn ends_in_a_tag() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(topology::pod(0).octets());
    frame.extend([0x88, 0xa8, 0, 7, 0x81, 0, 0, 7, 8]);
    frame
}

/// What came out at each port between two words.
type Outcome = BTreeMap<usize, Vec<Vec<u8>>>;

/// Sends the frames by one port, a word after each, and tells deliveries apart.
fn deliveries(bench: &mut Bench, port: usize, sent: &[(Vec<u8>, Vec<u8>)]) -> Vec<Outcome> {
    for (frame, word) in sent {
        bench.send(port, frame);
        bench.send(port, word);
    }
    let mut outcomes = vec![Outcome::new(); sent.len()];
    let (_, last) = sent.last().expect("a batch is not empty");
    for other in (0..PORTS).filter(|other| *other != port) {
        let mut at = 0;
        for frame in bench.hear_until(other, last) {
            if at < sent.len() && frame == sent[at].1 {
                at += 1;
            } else if let Some(outcome) = outcomes.get_mut(at) {
                outcome.entry(other).or_default().push(frame);
            }
        }
        assert_eq!(
            at,
            sent.len(),
            "{:?}: a word was lost on its way to port {other}",
            bench.kind
        );
    }
    let back = bench.hear(port);
    assert!(
        back.is_empty(),
        "{:?}: port {port} got back {back:02x?}",
        bench.kind
    );
    outcomes
}

#[test]
fn what_comes_out_of_the_linux_bridge_comes_out_of_tapline() {
    let (all, mut named) = (frames(), corpus());
    let whole = report();
    let mut broken = whole.clone();
    broken[36] ^= 1;
    named.splice(0..0, [whole, broken, ends_in_a_tag()]);
    let mut kernel = Bench::new(Kind::Kernel);
    let mut tapline = Bench::new(Kind::Tapline);
    let mut universe = Universe::new(1, &named);
    let mut findings = Findings::default();
    let mut named = named.into_iter();
    let (mut number, mut turn) = (0, 0);
    while (number as usize) < all {
        let port = turn % PORTS;
        turn += 1;
        let mut sent = Vec::new();
        while sent.len() < BATCH {
            let frame = named.next().unwrap_or_else(|| universe.frame().frame.bytes);
            if !is_tried(&frame) {
                continue;
            }
            let source = [frame[6], frame[7], frame[8], frame[9], frame[10], frame[11]];
            let source = Some(Mac::new(source)).filter(|mac| !mac.is_group() && !mac.is_zero());
            // Who speaks in another pod's name moves it in the kernel's eyes, and for good. Here a
            // pod is where the tables say.
            let others = (0..PORTS).filter(|other| *other != port);
            if others.map(topology::pod).any(|pod| source == Some(pod)) {
                continue;
            }
            let word = word(source.unwrap_or(topology::pod(port)), number);
            number += 1;
            sent.push((frame, word));
        }
        let expected = deliveries(&mut kernel, port, &sent);
        let found = deliveries(&mut tapline, port, &sent);
        for ((frame, _), (kernel, tapline)) in sent.iter().zip(expected.iter().zip(&found)) {
            findings.compare(frame, kernel, tapline);
        }
    }
    tapline.stop();
    findings.conclude(number);
}
