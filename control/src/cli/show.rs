//! `tapline show` and `tapline top`: what the running daemon knows, as tables.
//!
//! In: a view's name, perhaps a pod's, and the daemon's socket.
//! Out: a table, or with `--json` the daemon's own rows and nothing else, on standard output.
//! Never: changes anything, or knows a field that the table of columns does not name.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use clap::builder::PossibleValue;
use comfy_table::{Table, presets};
use serde_json::Value;

use super::Exit;
use crate::api::types::SOCKET_DEFAULT;
use crate::api::views::PortRow;
use crate::api::{Client, ClientError, View};

/// A view, or another way to print one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Its rows as a table.
    View(View),
    /// The ports as `brctl show` prints a bridge.
    Bridge,
}

impl clap::ValueEnum for What {
    fn value_variants<'a>() -> &'a [What] {
        static ALL: LazyLock<Vec<What>> = LazyLock::new(|| {
            let views = <View as clap::ValueEnum>::value_variants()
                .iter()
                .copied()
                .map(What::View);
            views.chain([What::Bridge]).collect()
        });
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            What::View(view) => clap::ValueEnum::to_possible_value(view),
            What::Bridge => {
                let help = "The ports as `brctl show` prints a bridge";
                Some(PossibleValue::new("bridge").help(help))
            }
        }
    }
}

/// A column: its title, and where its value is in a row, with points between names.
type Column = (&'static str, &'static str);

impl What {
    fn view(self) -> View {
        match self {
            What::View(view) => view,
            What::Bridge => View::Ports,
        }
    }
}

/// The columns of a view's table; none: as the rows have them.
fn columns(view: View) -> &'static [Column] {
    match view {
        View::Ports => &[
            ("port", "port"),
            ("name", "name"),
            ("addresses", "addresses"),
            ("mac", "pod_end.mac"),
            ("pod end", "pod_end.name"),
            ("host end", "host_end.name"),
            ("index", "host_end.index"),
            ("tap", "tap.name"),
            ("mtu", "tap.mtu"),
            ("isolated", "isolated"),
            ("received", "traffic.received"),
            ("transmitted", "traffic.transmitted"),
            ("dropped", "traffic.dropped"),
            ("container", "container_id"),
            ("sandbox", "netns"),
        ],
        View::Fdb => &[
            ("mac", "mac"),
            ("port", "port"),
            ("name", "name"),
            ("fixed", "fixed"),
            ("age s", "age_seconds"),
        ],
        View::Routes => &[
            ("prefix", "prefix"),
            ("next hop", "next_hop"),
            ("source", "source"),
            ("active", "active"),
            ("lost to", "lost_to"),
        ],
        View::Neighbours => &[
            ("address", "address"),
            ("mac", "mac"),
            ("state", "state"),
            ("router", "router"),
            ("worker", "worker"),
        ],
        other => columns_of_events(other),
    }
}

/// The same of what happens there.
fn columns_of_events(view: View) -> &'static [Column] {
    match view {
        View::Drops => &[
            ("reason", "reason"),
            ("frames", "frames"),
            ("ports", "ports"),
            ("meaning", "meaning"),
        ],
        View::Conflicts => &[
            ("address", "address"),
            ("holder", "holder.name"),
            ("claimer", "claimer.name"),
            ("claimer's mac", "claimer.mac"),
            ("age s", "age_seconds"),
        ],
        View::Guards => &[
            ("port", "port"),
            ("name", "name"),
            ("guard", "guard"),
            ("mode", "mode"),
            ("limit", "limit"),
            ("refused", "refused"),
            ("observed", "observed"),
            ("more", "more"),
        ],
        View::Flows => &[
            ("name", "name"),
            ("protocol", "protocol"),
            ("source", "source"),
            ("port", "source_port"),
            ("target", "target"),
            ("port", "target_port"),
            ("answers to", "answers_to"),
            ("stage", "stage"),
            ("age s", "age_seconds"),
            ("left s", "seconds_left"),
        ],
        _ => &[],
    }
}

/// Arguments of `tapline show`.
#[derive(clap::Args, Debug)]
pub struct ShowArgs {
    /// What to show.
    what: What,
    /// Only rows in which a pod of this name has a part.
    pod: Option<String>,
    /// The rows for programs.
    #[arg(long)]
    json: bool,
    /// Show it again every so many seconds, until interrupted.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
    watch: Option<u64>,
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET_DEFAULT)]
    socket: PathBuf,
}

/// Arguments of `tapline top`.
#[derive(clap::Args, Debug)]
pub struct TopArgs {
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    every: u64,
    /// End after so many looks.
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET_DEFAULT)]
    socket: PathBuf,
}

/// Runs `tapline show`.
#[must_use]
pub fn show(args: &ShowArgs) -> Exit {
    if let (Some(pod), View::Neighbours | View::Workers | View::Bounds) =
        (&args.pod, args.what.view())
    {
        eprintln!("tapline show: a row of this view belongs to no pod, and none to {pod}");
        return Exit::BadInput;
    }
    let client = Client::new(&args.socket);
    let mut shown = false;
    loop {
        let read = match once(args, &client) {
            Ok(text) if args.watch.is_some() && !args.json => put(&format!("{CLEAR}{text}")),
            Ok(text) => put(&text),
            // A daemon that restarts is back in a moment.
            Err(error) if shown => {
                eprintln!("tapline show: {error}");
                true
            }
            Err(error) => return complain("show", &error),
        };
        shown = true;
        match args.watch.filter(|_| read) {
            Some(seconds) => std::thread::sleep(Duration::from_secs(seconds.max(1))),
            None => return Exit::Ok,
        }
    }
}

/// Cursor home, and nothing below it.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Prints at once. False if nobody reads it any more.
fn put(text: &str) -> bool {
    let mut out = io::stdout();
    let put = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    put.is_ok()
}

fn complain(what: &str, error: &ClientError) -> Exit {
    eprintln!("tapline {what}: {error}");
    Exit::CheckFailed
}

fn once(args: &ShowArgs, client: &Client) -> Result<String, ClientError> {
    let all: Value = client.get(&args.what.view().path())?;
    let view = match &args.pod {
        Some(pod) => only(all.clone(), pod),
        None => all.clone(),
    };
    Ok(if args.json {
        format!("{view}\n")
    } else if args.what == What::Bridge {
        bridge(&all, &view)
    } else {
        tables(&view, columns(args.what.view()))
    })
}

/// The rows in which `pod` is named: whole, or without its namespace.
fn only(view: Value, pod: &str) -> Value {
    match view {
        Value::Array(rows) => rows.into_iter().filter(|row| names(row, pod)).collect(),
        Value::Object(parts) => {
            let part = |(key, value)| match value {
                Value::Array(_) => (key, only(value, pod)),
                other => (key, other),
            };
            Value::Object(parts.into_iter().map(part).collect())
        }
        other => other,
    }
}

fn names(value: &Value, pod: &str) -> bool {
    let is = |text: &str| text == pod || text.rsplit_once('/').is_some_and(|(_, name)| name == pod);
    match value {
        Value::String(text) => is(text),
        Value::Array(values) => values.iter().any(|value| names(value, pod)),
        // A role says what sort of thing it is, and is nobody's name.
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| *key != "role")
            .any(|(key, value)| is(key) || names(value, pod)),
        _ => false,
    }
}

/// A table of a view's rows; of a view with several parts, one for each.
fn tables(view: &Value, columns: &[Column]) -> String {
    match view {
        Value::Array(rows) => table(rows, columns),
        Value::Object(parts) => {
            let mut text = String::new();
            for (name, part) in parts {
                let _ = match part {
                    Value::Array(rows) => write!(text, "{name}\n{}\n", table(rows, &[])),
                    other => writeln!(text, "{name}: {}", cell(other)),
                };
            }
            text
        }
        other => format!("{}\n", cell(other)),
    }
}

fn table(rows: &[Value], columns: &[Column]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if columns.is_empty() {
        let keys: Vec<&String> = match rows.first() {
            Some(Value::Object(fields)) => fields.keys().collect(),
            _ => Vec::new(),
        };
        table.set_header(keys.iter().map(|key| key.replace('_', " ")));
        for row in rows {
            table.add_row(keys.iter().map(|key| cell(&row[key.as_str()])));
        }
    } else {
        table.set_header(columns.iter().map(|(title, _)| *title));
        for row in rows {
            table.add_row(columns.iter().map(|(_, path)| cell(at(row, path))));
        }
    }
    let lines = table.lines();
    lines
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

/// The value at `path` in a row.
fn at<'a>(row: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(row, |value, key| &value[key])
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) if values.is_empty() => "-".to_owned(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(" "),
        Value::Object(fields) if fields.is_empty() => "-".to_owned(),
        Value::Object(fields) => {
            let pair = |(key, value): (&String, &Value)| format!("{key}: {}", cell(value));
            fields.iter().map(pair).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// As `brctl show` prints a bridge: its id is its MAC, behind the priority that it would have.
/// The bridge is nobody's, and its name stands there whatever is asked for.
fn bridge(all: &Value, view: &Value) -> String {
    let all = all.as_array().map(Vec::as_slice).unwrap_or_default();
    let rows = view.as_array().map(Vec::as_slice).unwrap_or_default();
    let host = all.iter().find(|row| row["role"] == "host");
    let host = host.map_or(&Value::Null, |row| at(row, "tap"));
    let id = cell(&host["mac"]).replace(':', "");
    let mut interfaces: Vec<String> = rows
        .iter()
        .filter(|row| row["role"] != "host")
        .map(|row| cell(at(row, "host_end.name")))
        .collect();
    interfaces.sort();
    let mut text = String::from("bridge name\tbridge id\t\tSTP enabled\tinterfaces\n");
    let mut lead = format!("{}\t\t8000.{id}\tno\t\t", cell(&host["name"]));
    for interface in interfaces {
        let _ = writeln!(text, "{lead}{interface}");
        lead = "\t\t\t\t\t\t\t".to_owned();
    }
    text
}

/// Runs `tapline top`: who moves most.
#[must_use]
pub fn top(args: &TopArgs) -> Exit {
    let client = Client::new(&args.socket);
    let mut before: Option<(Instant, BTreeMap<usize, PortRow>)> = None;
    for round in 0.. {
        let rows: Vec<PortRow> = match client.get(&View::Ports.path()) {
            Ok(rows) => rows,
            Err(error) => return complain("top", &error),
        };
        let now = Instant::now();
        if let Some((then, earlier)) = &before {
            let text = rates(&rows, earlier, now - *then);
            if !put(&format!("{CLEAR}{text}")) {
                break;
            }
        }
        if args.count.is_some_and(|count| round >= count) {
            break;
        }
        before = Some((now, rows.into_iter().map(|row| (row.port, row)).collect()));
        std::thread::sleep(Duration::from_secs(args.every.max(1)));
    }
    Exit::Ok
}

/// Frames and bits a second of each port between two looks, the busiest first.
fn rates(rows: &[PortRow], earlier: &BTreeMap<usize, PortRow>, passed: Duration) -> String {
    let seconds = passed.as_secs_f64().max(0.001);
    let mut lines: Vec<(f64, [String; 6])> = Vec::new();
    for row in rows {
        // A port that is new has had no time to be slow.
        let Some(then) = earlier.get(&row.port).filter(|then| then.name == row.name) else {
            continue;
        };
        let a_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let (now, then) = (&row.traffic, &then.traffic);
        let bits = [
            a_second(now.received_bytes, then.received_bytes) * 8.0,
            a_second(now.transmitted_bytes, then.transmitted_bytes) * 8.0,
        ];
        lines.push((
            bits[0] + bits[1],
            [
                row.name.clone(),
                format!("{:.0}", a_second(now.received, then.received)),
                format!("{:.2}", bits[0] / 1e6),
                format!("{:.0}", a_second(now.transmitted, then.transmitted)),
                format!("{:.2}", bits[1] / 1e6),
                format!("{:.0}", a_second(now.dropped, then.dropped)),
            ],
        ));
    }
    lines.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "name",
        "frames/s in",
        "Mbit/s in",
        "frames/s out",
        "Mbit/s out",
        "drops/s",
    ]);
    for (_, line) in lines {
        table.add_row(line);
    }
    format!("{table}\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ports() -> Value {
        let device = |name: &str| {
            json!({"name": name, "index": 4, "mac": "00:0d:3a:21:af:12",
            "mtu": 1500, "running": true})
        };
        json!([
            {"port": 0, "role": "host", "name": "host", "tap": device("azure0"), "addresses": []},
            {"port": 1, "role": "uplink", "name": "uplink", "tap": device("uplink0"),
             "host_end": device("eth0"), "addresses": []},
            {"port": 2, "role": "pod", "name": "default/pod-a", "tap": device("tap1"),
             "host_end": device("azv32fe06c7c68"), "addresses": ["10.20.0.31/24"],
             "traffic": {"received": 7}},
        ])
    }

    #[test]
    fn a_bridge_is_shown_as_brctl_shows_it() {
        assert_eq!(
            bridge(&ports(), &ports()),
            "bridge name\tbridge id\t\tSTP enabled\tinterfaces\n\
             azure0\t\t8000.000d3a21af12\tno\t\tazv32fe06c7c68\n\
             \t\t\t\t\t\t\teth0\n"
        );
        assert_eq!(
            bridge(&ports(), &only(ports(), "pod-a")),
            "bridge name\tbridge id\t\tSTP enabled\tinterfaces\n\
             azure0\t\t8000.000d3a21af12\tno\t\tazv32fe06c7c68\n"
        );
    }

    #[test]
    fn a_pod_is_found_by_its_name_with_and_without_its_namespace() {
        for pod in ["pod-a", "default/pod-a"] {
            let rows = only(ports(), pod);
            assert_eq!(rows.as_array().unwrap().len(), 1, "{pod}");
        }
        assert_eq!(only(ports(), "pod"), json!([]));
        let drops = json!([{"reason": "ttl_expired", "ports": {"default/pod-a": 3}}]);
        assert_eq!(only(drops.clone(), "pod-a"), drops);
    }

    #[test]
    fn a_table_has_what_the_rows_have_and_a_dash_where_they_have_nothing() {
        let text = tables(&ports(), columns(View::Ports));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        let words =
            |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
        assert_eq!(
            words(lines[3])[..5],
            ["2", "default/pod-a", "10.20.0.31/24", "-", "-"].map(str::to_owned)
        );
        let parts =
            json!({"policy": "none", "prefixes": [{"to": "10.0.0.0/16", "by_kernel": true}]});
        assert_eq!(
            words(&tables(&parts, &[])),
            words("policy: none prefixes to by kernel 10.0.0.0/16 yes")
        );
    }
}
