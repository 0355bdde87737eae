//! A report of `tapline lab --json`, as tests look into it.
//!
//! In: the JSON. Out: its rows, by what they say. Never: a row that is not there; it panics.

use serde_json::Value;

/// The rows of one list of a report.
pub(crate) fn rows<'a>(report: &'a Value, list: &str) -> &'a [Value] {
    report[list].as_array().expect("a list").as_slice()
}

/// The first row of a list in which `key` is `value`.
pub(crate) fn row<'a>(report: &'a Value, list: &str, key: &str, value: &str) -> &'a Value {
    rows(report, list)
        .iter()
        .find(|row| row[key] == value)
        .unwrap_or_else(|| panic!("no {key} {value} among {list}: {report:#}"))
}

/// The first pings from one to another: in dual stack those over IPv4.
pub(crate) fn ping<'a>(report: &'a Value, from: &str, to: &str) -> &'a Value {
    rows(report, "pings")
        .iter()
        .find(|ping| ping["from"] == from && ping["to"] == to)
        .unwrap_or_else(|| panic!("{from} did not ping {to}: {report:#}"))
}

/// The checks that did not hold.
pub(crate) fn failed(report: &Value) -> Vec<&Value> {
    rows(report, "checks")
        .iter()
        .filter(|check| check["ok"] != true)
        .collect()
}
