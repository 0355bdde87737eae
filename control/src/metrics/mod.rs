//! Metrics for Prometheus: what the switch counts, and how the daemon fares.
//!
//! In: a [`Sample`]. Out: Prometheus' text format 0.0.4, by [`text`], and over HTTP by [`serve`].
//! Never: a label whose values a pod can multiply: no address, name, port number or interface. The
//! labels are `reason` (the one table of drop reasons), `role` (three kinds of port), `guard` and `mode`
//! (nine guards, three modes) and `version`.
//!
//! The views of the control socket have what a label must not have: which pod, which port.

pub mod serve;

use std::collections::BTreeMap;
use std::fmt::Write;

use dataplane::stats::{Counts, Drops, Ledger, PortCounts};
use dataplane::tables::PortRole;
use dataplane::tables::guard::{Guard, Mode};
use dataplane::verdict::DropReason;

/// The content type of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that is exported, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// The program's version.
    pub version: String,
    /// An ADD would be served.
    pub ready: bool,
    /// For how many seconds the daemon has served.
    pub serving_seconds: u64,
    /// The switch's books, all workers together.
    pub counts: Counts,
    /// Frames received that stood for several segments.
    pub super_frames: u64,
    /// ICMP errors that were due and not sent.
    pub errors_suppressed: u64,
    /// What guards objected to and let pass.
    pub observed: Drops,
    /// Of each guard the ports at which it is on, observes, and is off.
    pub guards: BTreeMap<(Guard, Mode), u64>,
    /// Bytes that the switch may come to hold, without its routes.
    pub memory_max: u64,
    /// The ports by role: how many, and their counters together.
    pub ports: Roles,
    /// Threads that move frames.
    pub workers: u64,
    /// Stations that are learned.
    pub stations: u64,
    /// Stations for which there is room.
    pub stations_max: u64,
    /// Claims of another port's address since the start.
    pub conflicts: u64,
    /// Pods that are attached.
    pub attachments: u64,
    /// Addresses that may be given to pods.
    pub addresses: u64,
    /// Those that are held.
    pub addresses_held: u64,
    /// Those that rest before they are given again.
    pub addresses_resting: u64,
    /// The node's truth is known.
    pub truth_known: bool,
    /// Things of which the plan and the node say different things.
    pub plan_differences: u64,
    /// Configurations that a reload refused since the start.
    pub reloads_refused: u64,
}

/// Ports of one role. What they counted includes those that are gone: a sum that fell would look like
/// a restart to Prometheus.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Role {
    /// How many.
    pub ports: u64,
    /// Frames in.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames out.
    pub transmitted: u64,
    /// Their bytes.
    pub transmitted_bytes: u64,
}

/// The three roles of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Roles {
    /// The node's own kernel.
    pub host: Role,
    /// The network.
    pub uplink: Role,
    /// The pods.
    pub pod: Role,
}

impl Roles {
    fn of(&mut self, role: PortRole) -> &mut Role {
        match role {
            PortRole::Host => &mut self.host,
            PortRole::Uplink => &mut self.uplink,
            PortRole::Pod => &mut self.pod,
        }
    }

    /// Counts one port in that is there now.
    pub fn has(&mut self, role: PortRole) {
        self.of(role).ports += 1;
    }

    /// Adds what a port counted, whether it is still there or not.
    pub fn add(&mut self, role: PortRole, counts: &PortCounts) {
        let sum = self.of(role);
        sum.received += counts.received;
        sum.received_bytes += counts.received_bytes;
        sum.transmitted += counts.transmitted;
        sum.transmitted_bytes += counts.transmitted_bytes;
    }
}

impl Sample {
    /// What the switch itself tells; the rest is the daemon's to fill in.
    #[must_use]
    pub fn of_switch(ledger: &Ledger, ports: Roles) -> Sample {
        Sample {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            counts: ledger.counts,
            super_frames: ledger.super_frames,
            errors_suppressed: ledger.errors_suppressed,
            observed: ledger.observed(),
            ports,
            ..Sample::default()
        }
    }
}

/// The metrics as text.
#[must_use]
pub fn text(sample: &Sample) -> String {
    let mut page = Page::default();
    daemon(&mut page, sample);
    memory(&mut page, sample);
    addresses(&mut page, sample);
    books(&mut page, sample);
    guards(&mut page, sample);
    ports(&mut page, &sample.ports);
    page.0
}

fn daemon(page: &mut Page, sample: &Sample) {
    let version = [("version", sample.version.as_str())];
    page.gauge("tapline_build_info", "The program that answers; always 1.");
    page.row("tapline_build_info", &version, 1);
    let is = u64::from;
    page.one(
        GAUGE,
        "tapline_ready",
        "1 if a pod could be attached now.",
        is(sample.ready),
    );
    page.one(
        GAUGE,
        "tapline_serving_seconds",
        "How long the daemon has served.",
        sample.serving_seconds,
    );
    page.one(
        GAUGE,
        "tapline_workers",
        "Threads that move frames.",
        sample.workers,
    );
    page.one(
        GAUGE,
        "tapline_attachments",
        "Pods that are attached.",
        sample.attachments,
    );
    page.one(
        GAUGE,
        "tapline_truth_known",
        "1 if the node's pod addresses are known.",
        is(sample.truth_known),
    );
    page.one(
        GAUGE,
        "tapline_plan_differences",
        "Things of which the plan and the node say different things.",
        sample.plan_differences,
    );
    page.one(
        COUNTER,
        "tapline_reloads_refused_total",
        "Configurations that a reload refused.",
        sample.reloads_refused,
    );
    page.one(
        GAUGE,
        "tapline_stations",
        "Stations that are learned.",
        sample.stations,
    );
    page.one(
        GAUGE,
        "tapline_stations_max",
        "Stations for which there is room.",
        sample.stations_max,
    );
    page.one(
        COUNTER,
        "tapline_address_conflicts_total",
        "Claims of an address that another port holds.",
        sample.conflicts,
    );
}

fn memory(page: &mut Page, sample: &Sample) {
    page.one(
        GAUGE,
        "tapline_memory_max_bytes",
        "What the switch may come to hold when every table and queue is full, without its routes.",
        sample.memory_max,
    );
}

fn addresses(page: &mut Page, sample: &Sample) {
    page.one(
        GAUGE,
        "tapline_addresses",
        "Addresses that may be given to pods.",
        sample.addresses,
    );
    page.one(
        GAUGE,
        "tapline_addresses_held",
        "Addresses that pods hold.",
        sample.addresses_held,
    );
    page.one(
        GAUGE,
        "tapline_addresses_resting",
        "Addresses released a moment ago, which rest before they are given again.",
        sample.addresses_resting,
    );
}

/// The law: received + originated + copied = transmitted + dropped + punted + queued.
fn books(page: &mut Page, sample: &Sample) {
    let counts = &sample.counts;
    for (name, help, value) in [
        (
            "tapline_frames_received_total",
            "Frames that ports handed in.",
            counts.received,
        ),
        (
            "tapline_frames_originated_total",
            "Frames that the switch made itself.",
            counts.originated,
        ),
        (
            "tapline_frames_copied_total",
            "Frames beyond the first that flooding, segmentation or fragmentation made of one.",
            counts.copied,
        ),
        (
            "tapline_frames_transmitted_total",
            "Frames that ports took.",
            counts.transmitted,
        ),
        (
            "tapline_frames_punted_total",
            "Frames that the slow path consumed.",
            counts.punted,
        ),
        (
            "tapline_super_frames_received_total",
            "Frames received that stood for several segments.",
            sample.super_frames,
        ),
        (
            "tapline_icmp_errors_suppressed_total",
            "ICMP errors that were due and not sent.",
            sample.errors_suppressed,
        ),
    ] {
        page.one(COUNTER, name, help, value);
    }
    page.one(
        GAUGE,
        "tapline_frames_queued",
        "Frames that wait for a next hop's address now.",
        counts.queued,
    );
    const DROPPED: &str = "tapline_frames_dropped_total";
    page.counter(DROPPED, "Frames that died, by reason.");
    for reason in DropReason::ALL {
        let label = [("reason", reason.label())];
        page.row(DROPPED, &label, counts.dropped.of(*reason));
    }
}

/// What guards do, and what they only observed. Frames that they refused are deaths by a reason.
fn guards(page: &mut Page, sample: &Sample) {
    const PORTS: &str = "tapline_guard_ports";
    page.gauge(PORTS, "Ports at which a guard is in that mode.");
    for guard in Guard::ALL {
        for mode in [Mode::Enforce, Mode::Observe, Mode::Off] {
            let labels = [("guard", guard.name()), ("mode", &mode.to_string())];
            let ports = sample.guards.get(&(guard, mode)).copied();
            page.row(PORTS, &labels, ports.unwrap_or_default());
        }
    }
    const OBSERVED: &str = "tapline_frames_observed_total";
    page.counter(
        OBSERVED,
        "Frames that a guard would have refused, and let pass, by reason.",
    );
    for reason in Guard::ALL.iter().flat_map(|guard| guard.reasons()) {
        let label = [("reason", reason.label())];
        page.row(OBSERVED, &label, sample.observed.of(*reason));
    }
}

fn ports(page: &mut Page, roles: &Roles) {
    let all = [
        ("host", &roles.host),
        ("uplink", &roles.uplink),
        ("pod", &roles.pod),
    ];
    let families: [Family; 5] = [
        (
            GAUGE,
            "tapline_ports",
            "Ports of the switch, by role.",
            |role| role.ports,
        ),
        (
            COUNTER,
            "tapline_port_received_frames_total",
            "Frames in by ports that are there now, by role.",
            |role| role.received,
        ),
        (
            COUNTER,
            "tapline_port_received_bytes_total",
            "Their bytes, as frames came: a super-frame counts once.",
            |role| role.received_bytes,
        ),
        (
            COUNTER,
            "tapline_port_transmitted_frames_total",
            "Frames out by ports that are there now, by role.",
            |role| role.transmitted,
        ),
        (
            COUNTER,
            "tapline_port_transmitted_bytes_total",
            "Their bytes, as frames left.",
            |role| role.transmitted_bytes,
        ),
    ];
    for (kind, name, help, value) in families {
        page.family(kind, name, help);
        for (label, role) in all {
            page.row(name, &[("role", label)], value(role));
        }
    }
}

/// Kind, name, help, and what of a role it exports.
type Family = (&'static str, &'static str, &'static str, fn(&Role) -> u64);

const GAUGE: &str = "gauge";
const COUNTER: &str = "counter";

/// A text in the making.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, kind: &str, name: &str, help: &str) {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn gauge(&mut self, name: &str, help: &str) {
        self.family(GAUGE, name, help);
    }

    fn counter(&mut self, name: &str, help: &str) {
        self.family(COUNTER, name, help);
    }

    /// A family of one row.
    fn one(&mut self, kind: &str, name: &str, help: &str, value: u64) {
        self.family(kind, name, help);
        self.row(name, &[], value);
    }

    fn row(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let escaped = |text: &str| {
            text.replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n")
        };
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
