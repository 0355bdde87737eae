//! Longest-prefix match alone, among as many routes as `dpdk-test-fib` is given.
//!
//! In: a time. Out: cycles a look-up, at the processor's nominal rate.
//! Never: a look-up that misses: every address lies in a route, drawn at random.

use std::fs;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dataplane::addr::{Mac, PortId};
use dataplane::tables::fib::{Fib, NextHop};
use ipnet::{IpNet, Ipv4Net};

use super::{Found, Shuffle};
use crate::names::Metric;
use crate::topo::Unbuilt;

/// Sizes of tables, and the metric that each is told by.
pub(super) const SIZES: [(Metric, usize); 3] = [
    (Metric::Cycles400, 400),
    (Metric::Cycles, 10_000),
    (Metric::Cycles500000, 500_000),
];

/// Addresses looked up in turn: more than the caches of a small table remember.
const ADDRESSES: usize = 1 << 16;

pub(super) fn run(time: Duration) -> Result<Found, Unbuilt> {
    let megahertz = megahertz().ok_or("/proc/cpuinfo does not say how fast the processor is")?;
    let mut found = Found::new();
    for (metric, count) in SIZES {
        let nanoseconds = look_up(count, time / 3)?;
        let settings = format!("IPv4, {count} routes, hits, {megahertz:.0} MHz");
        found.push((metric, nanoseconds * megahertz / 1e3, settings));
    }
    Ok(found)
}

fn look_up(count: usize, time: Duration) -> Result<f64, Unbuilt> {
    let mut random = Shuffle(11);
    let routes = routes(count, &mut random);
    let addresses: Vec<Ipv4Addr> = (0..ADDRESSES)
        .map(|_| inside(&routes, &mut random))
        .collect();
    let fib = Fib::build(routes.iter().map(|(net, hop)| (IpNet::V4(*net), *hop)))
        .map_err(|conflicts| format!("{conflicts:?}"))?;
    let (mut looked_up, mut hits) = (0_u64, 0_u64);
    let began = Instant::now();
    while began.elapsed() < time {
        for address in &addresses {
            hits += u64::from(black_box(fib.find_v4(*address)).is_some());
        }
        looked_up += ADDRESSES as u64;
    }
    let spent = began.elapsed();
    if hits != looked_up {
        return Err(format!("{} look-ups missed", looked_up - hits).into());
    }
    Ok(spent.as_nanos() as f64 / looked_up as f64)
}

/// Random prefixes, none twice: mostly 24 bits long, as tables of the internet are.
fn routes(count: usize, random: &mut Shuffle) -> Vec<(Ipv4Net, NextHop)> {
    let mut known = std::collections::BTreeMap::new();
    while known.len() < count {
        let drawn = random.next();
        let length = match drawn % 10 {
            0..6 => 24,
            6..9 => 16 + (drawn >> 8) % 8,
            _ => 25 + (drawn >> 8) % 8,
        };
        let net = Ipv4Net::new(((drawn >> 32) as u32).into(), length as u8);
        let net = net.expect("at most 32 bits").trunc();
        let hop = NextHop::Station {
            port: PortId::new((drawn >> 16) as usize % PortId::COUNT_MAX).expect("in range"),
            mac: Mac::new([2, 0, 0, 0, 0, drawn as u8]),
        };
        known.insert(net, hop);
    }
    known.into_iter().collect()
}

fn inside(routes: &[(Ipv4Net, NextHop)], random: &mut Shuffle) -> Ipv4Addr {
    let (net, _) = routes[random.next() as usize % routes.len()];
    let host = random.next() as u32 & u32::from(net.hostmask());
    Ipv4Addr::from(u32::from(net.network()) | host)
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
        assert!(look_up(1000, Duration::from_millis(1)).expect("no miss") > 0.0);
    }
}
