//! Longest-prefix match alone, of the same addresses in the same routes as `dpdk-test-fib`.
//!
//! In: a time. Out: cycles a look-up, at the processor's nominal rate, and the table's size.
//! Never: anything that the other program does not do too: bursts of 64, each address once, in a
//! table just built, and the number of the next hop for an answer.

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use dataplane::tables::fib::{Fib, HopId, NextHop};

use super::Found;
use crate::names::Metric;
use crate::prefixes::{self, Case};
use crate::stats::median;
use crate::topo::Unbuilt;

/// A table to measure, and the metrics that it is told by.
pub(super) struct Table {
    pub(super) routes: usize,
    pub(super) ipv6: bool,
    pub(super) cycles: Metric,
    /// What is told of its size; `dpdk-test-fib` says nothing of it.
    memory: Metric,
}

/// All of them.
pub(super) const TABLES: [Table; 4] = [
    table(400, false, Metric::Cycles400, Metric::Table400),
    table(10_000, false, Metric::Cycles, Metric::Table),
    table(500_000, false, Metric::Cycles500000, Metric::Table500000),
    table(10_000, true, Metric::CyclesV6, Metric::TableV6),
];

const fn table(routes: usize, ipv6: bool, cycles: Metric, memory: Metric) -> Table {
    Table {
        routes,
        ipv6,
        cycles,
        memory,
    }
}

/// Addresses looked up, as many as `dpdk-test-fib` takes unless told.
pub(super) const ADDRESSES: usize = 1 << 20;

/// `BURST_SZ` of `dpdk-test-fib`.
const BURST: usize = 64;

impl Table {
    pub(super) fn family(&self) -> &'static str {
        if self.ipv6 { "IPv6" } else { "IPv4" }
    }
}

pub(super) fn run(time: Duration) -> Result<Found, Unbuilt> {
    let megahertz = megahertz().ok_or("/proc/cpuinfo does not say how fast the processor is")?;
    let mut found = Found::new();
    for table in &TABLES {
        let share = time / TABLES.len() as u32;
        let (nanoseconds, bytes) = if table.ipv6 {
            let case = prefixes::v6(table.routes, ADDRESSES);
            passes(&case, share, Fib::find_batch_v6)?
        } else {
            let case = prefixes::v4(table.routes, ADDRESSES);
            passes(&case, share, Fib::find_batch_v4)?
        };
        let (family, routes) = (table.family(), table.routes);
        let settings = format!("{family}, {routes} routes, hits, in bulk, {megahertz:.0} MHz");
        found.push((table.cycles, nanoseconds * megahertz / 1e3, settings));
        let mebibytes = bytes as f64 / f64::from(1 << 20);
        found.push((
            table.memory,
            mebibytes,
            format!("{family}, {routes} routes"),
        ));
    }
    Ok(found)
}

/// Nanoseconds a look-up in a table just built, the middle one of several tables, and its bytes.
fn passes<A>(
    case: &Case<A>,
    time: Duration,
    find: impl Fn(&Fib, &[A], &mut [HopId]),
) -> Result<(f64, usize), Unbuilt> {
    let (mut times, mut bytes) = (Vec::new(), 0);
    let began = Instant::now();
    while times.is_empty() || began.elapsed() < time {
        let routes = case.routes.iter().map(|(net, number)| (*net, hop(*number)));
        let fib = Fib::build(routes).map_err(|refusals| format!("{refusals:?}"))?;
        let mut found = [HopId::NONE; BURST];
        let start = Instant::now();
        for burst in case.hits.chunks(BURST) {
            find(&fib, burst, &mut found);
            black_box(&found);
        }
        times.push(start.elapsed().as_nanos() as f64 / case.hits.len() as f64);
        bytes = fib.memory_bytes();
    }
    Ok((median(&times), bytes))
}

/// A next hop of that number.
fn hop(number: u16) -> NextHop {
    NextHop::Neighbour([10, 0, (number >> 8) as u8, number as u8].into())
}

/// What the processor says of itself: the rate of its time stamp counter on what clouds rent out.
fn megahertz() -> Option<f64> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("cpu MHz"))?;
    line.split_once(':')?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_lies_in_a_route() {
        let case = prefixes::v4(1000, 500);
        let (nanoseconds, bytes) = passes(&case, Duration::ZERO, |fib, addresses, found| {
            fib.find_batch_v4(addresses, found);
            let found = &found[..addresses.len()];
            assert!(found.iter().all(|id| fib.hop(*id).is_some()));
        })
        .expect("sound");
        assert!(nanoseconds > 0.0 && bytes > 0);
    }
}
