//! A report for people: what the seed document shows, in its order.
//!
//! In: a [`Report`]. Out: text. Never: colour, unless told that a terminal reads it.

use std::fmt::Write;

use comfy_table::{Table, presets};

use super::report::{Check, Report};
use crate::plan::Plugin;

/// The whole report.
#[must_use]
pub fn to_text(report: &Report, colour: bool) -> String {
    let mut out = String::new();
    let title = match report.plugin.as_str() {
        "azure" => "azure: pods live in the VNet; the switch bridges, host port azure0",
        _ if report.dual_stack => {
            "kubenet, dual stack: two pod CIDRs for each node and a route table; the switch routes, \
             host port cbr0"
        }
        _ => {
            "kubenet: a pod CIDR for each node and a route table; the switch routes, host port cbr0"
        }
    };
    section(&mut out, title);
    table(
        &mut out,
        &["NODE", "ADDRESS", "POD CIDR"],
        report
            .nodes
            .iter()
            .map(|n| vec![n.name.clone(), n.ip.to_string(), or_dash(n.pod_cidr)]),
    );
    if report.dual_stack {
        addresses_v6(&mut out, report);
    }
    table(
        &mut out,
        &["POD", "ADDRESS", "NODE", "HOST INTERFACE", "TAP"],
        report.pods.iter().map(|p| {
            vec![
                p.name.clone(),
                p.ip.to_string(),
                p.node.clone(),
                p.host_interface.clone(),
                p.tap.clone(),
            ]
        }),
    );
    bridges(&mut out, report);
    if !report.routes.is_empty() {
        table(
            &mut out,
            &["ROUTE", "NEXT HOP"],
            report
                .routes
                .iter()
                .map(|r| vec![r.prefix.clone(), r.next_hop.clone()]),
        );
    }
    pings(&mut out, report);
    captures(&mut out, report);
    drops(&mut out, report);
    checks(&mut out, &report.checks, colour);
    out
}

fn section(out: &mut String, title: &str) {
    let _ = writeln!(out, "{title}\n{}\n", "-".repeat(title.chars().count()));
}

fn table(out: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for line in table.lines() {
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out.push('\n');
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// What dual stack adds to nodes and pods.
fn addresses_v6(out: &mut String, report: &Report) {
    let row = |name: &str, address: String, cidr| vec![name.to_owned(), address, cidr];
    let nodes = report
        .nodes
        .iter()
        .map(|n| row(&n.name, or_dash(n.ip_v6), or_dash(n.pod_cidr_v6)));
    table(out, &["NODE", "IPV6 ADDRESS", "IPV6 POD CIDR"], nodes);
    let pods = report
        .pods
        .iter()
        .map(|p| vec![p.name.clone(), or_dash(p.ip_v6)]);
    table(out, &["POD", "IPV6 ADDRESS"], pods);
}

/// As `brctl show` prints a bridge: its name once, then a port on each line.
fn bridges(out: &mut String, report: &Report) {
    let host = if report.plugin == Plugin::Azure.to_string() {
        "azure0"
    } else {
        "cbr0"
    };
    let rows = report.nodes.iter().flat_map(|node| {
        let pods = report.pods.iter().filter(|pod| pod.node == node.name);
        let ports = pods
            .map(|pod| pod.host_interface.clone())
            .chain(["uplink0 (eth0)".into()]);
        let names = [node.name.clone(), host.to_owned()].into_iter();
        ports.enumerate().map(move |(at, port)| {
            let mut row: Vec<String> = names
                .clone()
                .map(|name| if at == 0 { name } else { String::new() })
                .collect();
            row.push(port);
            row
        })
    });
    table(out, &["NODE", "BRIDGE", "INTERFACES"], rows);
}

fn pings(out: &mut String, report: &Report) {
    for ping in &report.pings {
        let _ = writeln!(out, "{}$ ping {}  # {}", ping.from, ping.to_ip, ping.to);
        for reply in &ping.report.replies {
            let ms = reply.rtt.as_secs_f64() * 1e3;
            let _ = writeln!(
                out,
                "64 bytes from {}: icmp_seq={} ttl={} time={ms:.3} ms",
                ping.to_ip, reply.seq, reply.ttl
            );
        }
        for error in &ping.report.errors {
            let from = error
                .from
                .map_or_else(String::new, |from| format!("From {from}: "));
            let _ = writeln!(out, "{from}icmp_seq={} {}", error.seq, error.what);
        }
        if ping.received < ping.sent {
            let _ = writeln!(out, "{} sent, {} received", ping.sent, ping.received);
        }
        out.push('\n');
    }
}

/// A table for each target: in dual stack the same pod has two addresses.
fn captures(out: &mut String, report: &Report) {
    let header = [
        "NODE",
        "POINT",
        "DEVICE",
        "FRAMES",
        "SOURCE",
        "TARGET",
        "SOURCE MAC",
        "TARGET MAC",
        "TTL",
    ];
    for rows in report
        .captures
        .chunk_by(|one, next| one.to_ip == next.to_ip)
    {
        let first = &rows[0];
        let _ = writeln!(
            out,
            "Echo requests from {} to {}{}, as captured on their way:\n",
            first.from,
            first.to,
            if first.to_ip.is_ipv6() {
                " over IPv6"
            } else {
                ""
            }
        );
        table(
            out,
            &header,
            rows.iter().map(|c| {
                vec![
                    c.node.clone(),
                    c.point.into(),
                    c.device.clone(),
                    c.frames.to_string(),
                    or_dash(c.source_ip),
                    or_dash(c.target_ip),
                    or_dash(c.source_mac.clone()),
                    or_dash(c.target_mac.clone()),
                    or_dash(c.ttl),
                ]
            }),
        );
    }
}

fn drops(out: &mut String, report: &Report) {
    if report.drops.is_empty() {
        return;
    }
    table(
        out,
        &["DROPPED BY", "REASON", "FRAMES", "MEANING"],
        report.drops.iter().map(|d| {
            vec![
                d.place.clone(),
                d.reason.clone(),
                d.frames.to_string(),
                d.meaning.clone(),
            ]
        }),
    );
}

fn checks(out: &mut String, checks: &[Check], colour: bool) {
    let width = checks
        .iter()
        .map(|check| check.name.len())
        .max()
        .unwrap_or(0);
    for check in checks {
        let verdict = match (check.ok, colour) {
            (true, true) => "\x1b[32mok\x1b[0m  ",
            (true, false) => "ok  ",
            (false, true) => "\x1b[31mFAIL\x1b[0m",
            (false, false) => "FAIL",
        };
        let _ = writeln!(out, "{verdict} {:width$}  {}", check.name, check.detail);
    }
    let held = checks.iter().filter(|check| check.ok).count();
    let _ = writeln!(out, "\n{held} of {} checks hold", checks.len());
}
