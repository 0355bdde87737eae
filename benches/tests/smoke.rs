//! The comparison as people run it, short: do the rows exist?
//!
//! In: the program, and the right to make namespaces. Out: JSON with a row for each subject.
//! Never: judges a figure: a fifth of a second on a machine that builds says nothing.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

fn compare(words: &[&str]) -> Value {
    let done = Command::new(env!("CARGO_BIN_EXE_tapline-benches"))
        .arg("compare")
        .args(words)
        .output()
        .expect("the program starts");
    let says = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{says}");
    serde_json::from_slice(&done.stdout).unwrap_or_else(|why| panic!("{why}\n{says}"))
}

fn rows(report: &Value) -> BTreeSet<(&str, &str)> {
    let rows = report["rows"].as_array().expect("a list");
    rows.iter()
        .map(|row| {
            (
                row["subject"].as_str().expect("text"),
                row["metric"].as_str().expect("text"),
            )
        })
        .collect()
}

#[test]
fn the_bridge_and_tapline_are_measured_side_by_side() {
    let report = compare(&[
        "--rounds=1",
        "--seconds=0.2",
        "--rps=off",
        "--scenario=pods-same-node",
        "--subject=linux-bridge",
        "--subject=tapline-veth",
        "--json",
    ]);
    let rows = rows(&report);
    for subject in ["linux-bridge", "tapline-veth"] {
        for metric in [
            "tcp_1",
            "tcp_4",
            "udp_1400",
            "rtt_flood_p50",
            "rtt_paced_p50",
            "cpu_s_per_gbit",
        ] {
            assert!(
                rows.contains(&(subject, metric)),
                "{metric} of {subject}: {report:#}"
            );
        }
    }
    let bridge = report["rows"].as_array().expect("a list").iter();
    for row in bridge.filter(|row| row["subject"] == "linux-bridge" && row["metric"] == "tcp_1") {
        assert_eq!(row["ratio_to_bridge"], 1.0, "{row}");
        assert!(row["retransmits"].is_u64(), "{row}");
    }
    assert_eq!(report["congestion_control"], "cubic");
    assert_eq!(report["rounds"], 1);
}

#[test]
fn who_cannot_be_measured_is_named_with_the_reason() {
    let report = compare(&[
        "--rounds=1",
        "--seconds=0.05",
        "--scenario=core-l3",
        "--scenario=pods-two-nodes-azure",
        "--subject=tapline-core",
        "--subject=ovs-netdev",
        "--json",
    ]);
    assert!(
        rows(&report).contains(&("tapline-core", "mpps")),
        "{report:#}"
    );
    let skipped = report["skipped"].as_array().expect("a list");
    let ovs = skipped
        .iter()
        .find(|skipped| skipped["subject"] == "ovs-netdev");
    let reason = ovs.and_then(|ovs| ovs["reason"].as_str());
    assert!(
        reason.is_some_and(|why| why.contains("one node")),
        "{report:#}"
    );
}

#[test]
fn every_setting_is_named_in_the_rows_it_was_in_force_for() {
    let report = compare(&[
        "--rounds=1",
        "--seconds=0.05",
        "--rps=both",
        "--spin=1ms",
        "--workers=2",
        "--scenario=pods-same-node-110",
        "--subject=tapline-veth",
        "--subject=tapline-afpacket",
        "--json",
    ]);
    let rows = report["rows"].as_array().expect("a list");
    assert!(!rows.is_empty(), "{report:#}");
    for row in rows {
        let settings = row["settings"].as_str().expect("text");
        assert!(
            settings.contains("spin 1000 us") && settings.contains("2 workers"),
            "{row}"
        );
    }
    let skipped = report["skipped"].to_string();
    assert!(skipped.contains("for one worker"), "{report:#}");
}
