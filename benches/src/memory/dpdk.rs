//! DPDK's own measuring programs, where they are installed.
//!
//! In: a time. Out: what they print. Never: huge pages, devices, or a file left behind: what they
//! write to `/run` goes to a file system of ours.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Found;
use super::routes::{ADDRESSES, TABLES, Table};
use crate::names::Metric;
use crate::prefixes;
use crate::topo::{Env, Unbuilt};

const TESTPMD: &str = "dpdk-testpmd";
const TEST_FIB: &str = "dpdk-test-fib";
const NO_SCRATCH: &str = "it writes to /run, and this user may not mount one of our own";
/// Memory without huge pages, for 155,456 buffers.
const TESTPMD_MB: &str = "1024";
/// The same for 600,000 groups of DIR-24-8 and 500,000 routes.
const TEST_FIB_MB: &str = "2048";
/// How long a table of 500,000 routes may take to be filled and emptied.
const FIB_WITHIN: Duration = Duration::from_secs(120);
/// testpmd takes up to two seconds to start, prints once a second, and the first time in vain.
const SHOWS_BEFORE: Duration = Duration::from_millis(3300);

/// MAC forwarding between two null ports that copy, on one core, no lookup.
///
/// # Errors
/// That it is not installed, or what it says instead of numbers.
pub fn testpmd(env: &mut Env, time: Duration) -> Result<Found, Unbuilt> {
    let mut child = spawn(
        env,
        Command::new(TESTPMD)
            .args(["--no-huge", "--no-pci", "--no-telemetry", "-m", TESTPMD_MB])
            .args(["-l", "0,1"])
            .args(["--vdev", "net_null0,size=64,copy=1"])
            .args(["--vdev", "net_null1,size=64,copy=1"])
            .args(["--", "--forward-mode=mac", "--no-mlockall"])
            .args(["--stats-period", "1"]),
    )?;
    let running = wait(&mut child, SHOWS_BEFORE + time)?.is_none();
    let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
    let text = end(child)?;
    let mpps = forwarded(&text).filter(|_| running);
    let mpps = mpps.ok_or_else(|| last_words(TESTPMD, &text))?;
    let settings = "one core, 64 bytes, net_null copy=1, mac forwarding, no lookup".to_owned();
    Ok(vec![(Metric::Mpps, mpps, settings)])
}

/// DIR-24-8, scalar, and the trie, by number of routes; only the middle size if in a hurry. It is
/// given the routes and the addresses that ours looks up, and takes each address once.
///
/// # Errors
/// That it is not installed, or what it says instead of numbers.
pub fn test_fib(env: &mut Env, hurry: bool) -> Result<Found, Unbuilt> {
    let mut found = Found::new();
    for table in TABLES
        .iter()
        .filter(|table| !hurry || table.cycles == Metric::Cycles)
    {
        let [routes, addresses] = files(env, table)?;
        let (algorithm, name): (&[&str], _) = if table.ipv6 {
            (&["-6", "-b", "trie", "-v", "s"], "trie")
        } else {
            (&["-b", "dir", "-v", "s1"], "DIR-24-8")
        };
        let mut child = spawn(
            env,
            Command::new(TEST_FIB)
                .args(["--no-huge", "--no-pci", "--no-telemetry", "-m", TEST_FIB_MB])
                .args(["-l", "0", "--", "-g", "600000"])
                .args(algorithm)
                .arg("-f")
                .arg(&routes)
                .arg("-t")
                .arg(&addresses),
        )?;
        wait(&mut child, FIB_WITHIN)?;
        let text = end(child)?;
        let cycles = number_behind(&text, "AVG FIB lookup");
        let cycles = cycles.ok_or_else(|| last_words(TEST_FIB, &text))?;
        let (family, count) = (table.family(), table.routes);
        let settings = format!("{family}, {count} routes, hits, {name}, in bulk");
        found.push((table.cycles, cycles, settings));
        fs::remove_file(routes)?;
        fs::remove_file(addresses)?;
    }
    Ok(found)
}

/// Writes a table's routes and addresses for the program to read.
fn files(env: &Env, table: &Table) -> Result<[PathBuf; 2], Unbuilt> {
    let folder = env.scratch.as_ref().ok_or(NO_SCRATCH)?;
    let text = if table.ipv6 {
        prefixes::v6(table.routes, ADDRESSES).to_text()
    } else {
        prefixes::v4(table.routes, ADDRESSES).to_text()
    };
    let paths = ["fib-routes", "fib-addresses"].map(|name| folder.join(name));
    for (path, text) in paths.iter().zip(text) {
        fs::write(path, text)?;
    }
    Ok(paths)
}

fn spawn(env: &mut Env, command: &mut Command) -> Result<Child, Unbuilt> {
    if env.scratch.is_none() {
        return Err(NO_SCRATCH.into());
    }
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let child = child.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "not installed (Debian: dpdk-dev)".to_owned(),
        _ => error.to_string(),
    })?;
    env.reaper.will_end(child.id())?;
    Ok(child)
}

/// Waits until it ends, or the time is up; none if it still runs.
fn wait(child: &mut Child, time: Duration) -> std::io::Result<Option<ExitStatus>> {
    let began = Instant::now();
    while began.elapsed() < time {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(None)
}

/// What it wrote; it is killed if it does not end soon. Neither program writes more than a pipe
/// holds (64 KB) in the time it is given.
fn end(mut child: Child) -> std::io::Result<String> {
    if wait(&mut child, Duration::from_secs(2))?.is_none() {
        child.kill()?;
    }
    let mut bytes = Vec::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_end(&mut bytes)?;
    }
    child.wait()?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Millions of frames a second by both ports together, as last shown.
fn forwarded(text: &str) -> Option<f64> {
    let rates: Vec<f64> = text
        .lines()
        .filter_map(|line| number_behind(line, "Tx-pps:"))
        .collect();
    let (_, shows) = rates.as_chunks::<2>().0.split_first()?;
    Some(shows.last()?.iter().sum::<f64>() / 1e6)
}

fn number_behind(text: &str, words: &str) -> Option<f64> {
    let (_, rest) = text.split_once(words)?;
    rest.split_whitespace().next()?.parse().ok()
}

fn last_words(program: &str, text: &str) -> String {
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    format!(
        "{program} gave no number; it ended with '{}'",
        last.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rates_of_both_ports_are_added() {
        let show = |a: u64, b: u64| {
            format!("Rx-pps: 1 Rx-bps: 2\nTx-pps:  {a}  Tx-bps: 3\nTx-pps: {b}  Tx-bps: 3\n")
        };
        let text = [
            show(0, 0),
            show(17_000_000, 18_000_000),
            show(18_000_000, 18_500_000),
        ];
        assert_eq!(forwarded(&text.concat()), Some(36.5));
        assert_eq!(
            forwarded(&show(1, 1)),
            None,
            "the first show is not yet a rate"
        );
        assert_eq!(
            number_behind("AVG FIB lookup 45.5\n", "AVG FIB lookup"),
            Some(45.5)
        );
    }
}
