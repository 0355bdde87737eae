//! Metrics: the text, the law in it, the server, and that dashboard and alerts ask for what is there.
//!
//! In: samples, and the files in `control/packaging/`. Out: verdicts. Never: leaves the loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use super::serve::Exporter;
use super::*;

const DASHBOARD: &str = include_str!("../../packaging/grafana/tapline.json");
const ALERTS: &str = include_str!("../../packaging/prometheus/tapline.rules.yaml");

fn sample() -> Sample {
    Sample {
        version: "0.1.0".to_owned(),
        ready: true,
        serving_seconds: 1,
        counts: Counts {
            received: 10,
            originated: 2,
            copied: 3,
            transmitted: 11,
            punted: 2,
            queued: 1,
            dropped: Drops::one(DropReason::TooShort),
        },
        ..Sample::default()
    }
}

/// The value of each row.
fn rows(text: &str) -> BTreeMap<String, f64> {
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    })
    .collect()
}

/// Names of families, each with its labels.
fn families() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows(&text(&sample())).keys() {
        let (name, labels) = row.split_once('{').unwrap_or((row, ""));
        let labels = labels
            .trim_end_matches('}')
            .split(',')
            .filter_map(|l| l.split_once('='));
        let known = found.entry(name.to_owned()).or_default();
        known.extend(labels.map(|(label, _)| label.to_owned()));
    }
    found
}

#[test]
fn every_family_is_told_what_it_is_once_and_every_row_belongs_to_one() {
    let text = text(&sample());
    let declared: Vec<&str> = text
        .lines()
        .filter_map(|l| l.strip_prefix("# TYPE "))
        .collect();
    let names: BTreeSet<&str> = declared
        .iter()
        .map(|l| l.split(' ').next().unwrap())
        .collect();
    assert_eq!(names.len(), declared.len(), "a family twice");
    let known: BTreeSet<String> = families().into_keys().collect();
    assert_eq!(known, names.iter().map(|n| (*n).to_owned()).collect());
    for line in declared {
        let (name, kind) = line.split_once(' ').unwrap();
        assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
    }
}

#[test]
fn the_law_holds_in_what_is_exported() {
    let rows = rows(&text(&sample()));
    let of = |name: &str| rows[&format!("tapline_frames_{name}")];
    let dropped: f64 = rows
        .iter()
        .filter(|(n, _)| n.starts_with("tapline_frames_dropped_total{"))
        .map(|(_, v)| v)
        .sum();
    assert_eq!(
        of("received_total") + of("originated_total") + of("copied_total"),
        of("transmitted_total") + dropped + of("punted_total") + of("queued")
    );
    assert_eq!(
        rows["tapline_frames_dropped_total{reason=\"too_short\"}"],
        1.0
    );
    let dropped = |name: &&String| name.starts_with("tapline_frames_dropped_total{reason=");
    let reasons = rows.keys().filter(dropped).count();
    assert_eq!(reasons, DropReason::COUNT);
}

/// A guard is seen by what it does, and by what it would have done.
#[test]
fn guards_tell_their_modes_and_what_they_observed() {
    let mut sample = sample();
    sample.guards.insert((Guard::Stations, Mode::Observe), 7);
    sample.observed = Drops::one(DropReason::SpoofedMac);
    let rows = rows(&text(&sample));
    let ports = |mode| rows[&format!("tapline_guard_ports{{guard=\"stations\",mode=\"{mode}\"}}")];
    assert_eq!(["on", "observe", "off"].map(ports), [0.0, 7.0, 0.0]);
    let observed = |reason| rows[&format!("tapline_frames_observed_total{{reason=\"{reason}\"}}")];
    assert_eq!(["spoofed_mac", "rogue_router"].map(observed), [1.0, 0.0]);
}

/// No number of pods makes a row more.
#[test]
fn pods_multiply_no_rows() {
    let few = text(&sample()).lines().count();
    let mut many = sample();
    for _ in 0..500 {
        many.ports.add(
            PortRole::Pod,
            &dataplane::stats::PortCounts {
                received: 1,
                ..Default::default()
            },
        );
    }
    many.attachments = 500;
    let many = text(&many);
    assert_eq!(many.lines().count(), few);
    assert_eq!(
        rows(&many)["tapline_port_received_frames_total{role=\"pod\"}"],
        500.0
    );
    let labels: BTreeSet<String> = families().into_values().flatten().collect();
    let allowed = ["guard", "mode", "reason", "role", "version"].map(str::to_owned);
    assert_eq!(labels, BTreeSet::from(allowed));
}

#[test]
fn what_a_label_holds_is_escaped() {
    let odd = Sample {
        version: "a\"b\\c\nd".to_owned(),
        ..sample()
    };
    assert!(text(&odd).contains("tapline_build_info{version=\"a\\\"b\\\\c\\nd\"} 1"));
}

/// Metric names that a text asks for, with the labels beside each.
fn asked(text: &str) -> Vec<(String, BTreeSet<String>)> {
    let mut found = Vec::new();
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
    for (at, _) in text.match_indices("tapline_") {
        let rest = &text[at..];
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let labels = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let labels = labels.map_or("", |(labels, _)| labels);
        let labels = labels
            .split(',')
            .filter_map(|l| l.split_once(['=', '!']))
            .map(|(l, _)| l.trim().to_owned());
        found.push((name.to_owned(), labels.collect()));
    }
    found
}

#[test]
fn dashboard_and_alerts_ask_only_for_what_is_exported() {
    let known = families();
    // Labels that Prometheus itself adds.
    let added = ["instance", "job"];
    for (file, text) in [("dashboard", DASHBOARD), ("alerts", ALERTS)] {
        let asked = asked(text);
        assert!(asked.len() > 8, "{file}: only {} names", asked.len());
        for (name, labels) in asked {
            let Some(has) = known.get(&name) else {
                panic!("{file} asks for {name}, which is not exported");
            };
            for label in labels.iter().filter(|l| !added.contains(&l.as_str())) {
                assert!(has.contains(label), "{file}: {name} has no label {label}");
            }
        }
    }
    // Reasons that are named must be reasons.
    for text in [DASHBOARD, ALERTS] {
        for (_, rest) in text
            .match_indices("reason=")
            .map(|(at, _)| text.split_at(at + 7))
        {
            let quoted = rest.trim_start_matches(['~', '\\', '"']);
            let names = quoted.split(['"', '\\']).next().unwrap();
            for name in names
                .split('|')
                .filter(|name| !name.is_empty() && !name.starts_with('$'))
            {
                assert!(DropReason::ALL.iter().any(|r| r.label() == name), "{name}");
            }
        }
    }
}

#[test]
fn the_dashboard_is_json_and_every_panel_has_a_question_and_a_title() {
    let tree: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = tree["panels"].as_array().unwrap();
    assert!(panels.len() >= 6);
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "an id twice");
        assert!(!panel["title"].as_str().unwrap().is_empty());
        let targets = panel["targets"].as_array().unwrap();
        assert!(
            targets
                .iter()
                .all(|t| t["expr"].as_str().unwrap().contains("tapline_"))
        );
    }
}

#[test]
fn alerts_say_what_to_do() {
    let alerts = ALERTS.matches("- alert: ").count();
    assert!(alerts >= 5);
    for key in ["expr: ", "summary: ", "description: ", "severity: "] {
        assert_eq!(ALERTS.matches(key).count(), alerts, "{key}");
    }
}

fn ask(exporter: &Exporter, question: &[u8]) -> String {
    let mut stream = TcpStream::connect(exporter.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(question).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn the_server_answers_one_question_and_outlives_bad_ones() {
    let namespace =
        crate::devices::Netns::create("metrics").expect("the right to make a namespace");
    let inside = namespace.clone();
    namespace
        .run(move || {
            let net = crate::devices::Netlink::open(&inside).unwrap();
            net.set_up(&crate::devices::DeviceName::new("lo").unwrap(), true)
                .unwrap();
            let render: serve::Render = Arc::new(|| text(&sample()));
            let exporter = Exporter::start("127.0.0.1:0".parse().unwrap(), render).unwrap();
            // Clients that say nothing hold a connection each, and no more.
            let idle: Vec<TcpStream> = (0..8)
                .map(|_| TcpStream::connect(exporter.address()).unwrap())
                .collect();
            let good = ask(&exporter, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
            assert!(good.starts_with("HTTP/1.1 200 OK"), "{good}");
            assert!(
                good.contains("content-type: text/plain; version=0.0.4"),
                "{good}"
            );
            assert!(good.ends_with(&text(&sample())), "{good}");
            for (bad, status) in [
                (
                    &b"POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n"[..],
                    "HTTP/1.1 405",
                ),
                (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404"),
                (b"\x16\x03\x01garbage\r\n\r\n", "HTTP/1.1 400"),
            ] {
                let answer = ask(&exporter, bad);
                assert!(answer.starts_with(status), "{answer}");
            }
            let long = format!(
                "GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n",
                "x".repeat(1 << 20)
            );
            let _ = TcpStream::connect(exporter.address())
                .unwrap()
                .write_all(long.as_bytes());
            let again = ask(&exporter, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
            assert!(again.starts_with("HTTP/1.1 200 OK"), "{again}");
            let taken = Exporter::start(exporter.address(), Arc::new(String::new));
            assert_eq!(taken.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
            let address = exporter.address();
            drop((idle, exporter));
            assert!(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err());
            Ok(())
        })
        .unwrap();
}
