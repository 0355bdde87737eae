//! Longest-prefix match: this switch's table beside two libraries, at three sizes.
//!
//! In: random routes of every length, made as `dpdk-test-fib` makes its own (as many of each
//! length, spread evenly), or its very own files.
//! Out: time per lookup of hits and of random addresses, the table's bytes, and the time of one
//! change. The three tables must agree on every address first.
//! Never: measures a next hop's number beside a whole next hop: the libraries hold numbers too.
//!
//! `cargo bench -p tapline-benches --bench fib_tables`. With `TAPLINE_FIB_FILES=DIR` it also runs
//! over `DIR/r<N>` and `DIR/l<N>` for each size N, `r6` and `l6` for IPv6, which
//! `dpdk-test-fib ... -w r<N> -u l<N>` writes, and prints ns and TSC cycles, to set beside the
//! program's own figure.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use benches::prefixes::{self, Random};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dataplane::tables::fib::rib::Rib;
use dataplane::tables::fib::{Fib, HopId, NextHop};
use ip_network_table_deps_treebitmap::IpLookupTable;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// Addresses a round; a power of two.
const ADDRESSES: usize = 1 << 16;

/// How many frames a worker sorts at once.
const BATCH: usize = 64;

fn hop(n: u16) -> NextHop {
    NextHop::Neighbour(Ipv4Addr::from(u32::from(n)).into())
}

fn number(hop: Option<NextHop>) -> Option<u16> {
    match hop {
        Some(NextHop::Neighbour(IpAddr::V4(address))) => Some(address.to_bits() as u16),
        _ => None,
    }
}

fn fib(routes: &[(IpNet, u16)]) -> Fib {
    let routes = routes.iter().map(|&(net, n)| (net, hop(n)));
    Fib::build(routes).expect("one next hop a prefix, and not too many")
}

/// Sums what `find` says, so that nothing is left out.
#[inline(always)]
fn each<A: Copy>(addresses: &[A], find: impl Fn(A) -> u16) -> u64 {
    addresses
        .iter()
        .map(|address| u64::from(find(*address)))
        .sum()
}

fn batches_v4(fib: &Fib, addresses: &[Ipv4Addr]) -> HopId {
    let mut found = [HopId::NONE; BATCH];
    for batch in addresses.chunks(BATCH) {
        fib.find_batch_v4(batch, &mut found);
        black_box(&found);
    }
    found[0]
}

fn batches_v6(fib: &Fib, addresses: &[Ipv6Addr]) -> HopId {
    let mut found = [HopId::NONE; BATCH];
    for batch in addresses.chunks(BATCH) {
        fib.find_batch_v6(batch, &mut found);
        black_box(&found);
    }
    found[0]
}

fn lookups_v4(c: &mut Criterion) {
    for count in [400, 10_000, 500_000] {
        let case = prefixes::v4(count, ADDRESSES);
        let fib = fib(&case.routes);
        let routes = case.routes.iter().filter_map(|(net, n)| match net {
            IpNet::V4(net) => Some((*net, *n)),
            IpNet::V6(_) => None,
        });
        let trie: PrefixMap<Ipv4Net, u16> = routes.clone().collect();
        let mut bitmap = IpLookupTable::new();
        for (net, n) in routes {
            bitmap.insert(net.network(), net.prefix_len().into(), n);
        }
        let by_trie = |a: Ipv4Addr| trie.get_lpm(&a.into()).map(|(_, n)| *n);
        let by_bitmap = |a: Ipv4Addr| bitmap.longest_match(a).map(|(_, _, n)| *n);
        for address in case.hits.iter().chain(&case.random) {
            let ours = number(fib.find_v4(*address));
            assert_eq!(ours, by_trie(*address), "{address}");
            assert_eq!(ours, by_bitmap(*address), "{address}");
        }
        println!(
            "{} IPv4 routes: {} KiB",
            case.routes.len(),
            fib.memory_bytes() / 1024
        );
        for (kind, addresses) in [("hits", &case.hits), ("random", &case.random)] {
            let mut group = c.benchmark_group(format!("v4_{kind}"));
            group.throughput(Throughput::Elements(ADDRESSES as u64));
            group.bench_function(BenchmarkId::new("tapline_batch", count), |b| {
                b.iter(|| batches_v4(&fib, addresses));
            });
            group.bench_function(BenchmarkId::new("tapline_single", count), |b| {
                b.iter(|| each(addresses, |a| number(fib.find_v4(a)).unwrap_or(0)));
            });
            group.bench_function(BenchmarkId::new("treebitmap", count), |b| {
                b.iter(|| each(addresses, |a| by_bitmap(a).unwrap_or(0)));
            });
            group.bench_function(BenchmarkId::new("prefix_trie", count), |b| {
                b.iter(|| each(addresses, |a| by_trie(a).unwrap_or(0)));
            });
            group.finish();
        }
    }
}

fn lookups_v6(c: &mut Criterion) {
    let count = 10_000;
    let case = prefixes::v6(count, ADDRESSES);
    let fib = fib(&case.routes);
    let routes = case.routes.iter().filter_map(|(net, n)| match net {
        IpNet::V6(net) => Some((*net, *n)),
        IpNet::V4(_) => None,
    });
    let trie: PrefixMap<Ipv6Net, u16> = routes.clone().collect();
    let mut bitmap = IpLookupTable::new();
    for (net, n) in routes {
        bitmap.insert(net.network(), net.prefix_len().into(), n);
    }
    let by_trie = |a: Ipv6Addr| trie.get_lpm(&a.into()).map(|(_, n)| *n);
    let by_bitmap = |a: Ipv6Addr| bitmap.longest_match(a).map(|(_, _, n)| *n);
    for address in case.hits.iter().chain(&case.random) {
        let ours = number(fib.find_v6(*address));
        assert_eq!(ours, by_trie(*address), "{address}");
        assert_eq!(ours, by_bitmap(*address), "{address}");
    }
    println!(
        "{} IPv6 routes: {} KiB",
        case.routes.len(),
        fib.memory_bytes() / 1024
    );
    for (kind, addresses) in [("hits", &case.hits), ("random", &case.random)] {
        let mut group = c.benchmark_group(format!("v6_{kind}"));
        group.throughput(Throughput::Elements(ADDRESSES as u64));
        group.bench_function(BenchmarkId::new("tapline_batch", count), |b| {
            b.iter(|| batches_v6(&fib, addresses));
        });
        group.bench_function(BenchmarkId::new("tapline_single", count), |b| {
            b.iter(|| each(addresses, |a| number(fib.find_v6(a)).unwrap_or(0)));
        });
        group.bench_function(BenchmarkId::new("treebitmap", count), |b| {
            b.iter(|| each(addresses, |a| by_bitmap(a).unwrap_or(0)));
        });
        group.bench_function(BenchmarkId::new("prefix_trie", count), |b| {
            b.iter(|| each(addresses, |a| by_trie(a).unwrap_or(0)));
        });
        group.finish();
    }
}

/// A cluster's own routes: a prefix a node, side by side, ten thousand of them.
fn plans(c: &mut Criterion) {
    let mut random = Random(1);
    let nodes = 0..10_000u32;
    let routes = nodes.clone().map(|n| {
        let v4 = Ipv4Net::new((0x0a00_0000 + (n << 8)).into(), 24).expect("length in range");
        let v6 = (0xfd00_0000_0000_u128 << 80) | (u128::from(n) << 64);
        let v6 = Ipv6Net::new(v6.into(), 64).expect("length in range");
        [(IpNet::from(v4), n as u16), (IpNet::from(v6), n as u16)]
    });
    let fib = fib(&routes.flatten().collect::<Vec<_>>());
    println!(
        "plan of {} routes: {} KiB",
        fib.len(),
        fib.memory_bytes() / 1024
    );
    let v4: Vec<Ipv4Addr> = (0..ADDRESSES)
        .map(|_| (0x0a00_0000 + random.word() as u32 % (10_000 << 8)).into())
        .collect();
    let v6: Vec<Ipv6Addr> = (0..ADDRESSES)
        .map(|_| {
            let node = u128::from(random.word() % 10_000);
            ((0xfd00_0000_0000_u128 << 80) | (node << 64) | u128::from(random.word())).into()
        })
        .collect();
    let mut group = c.benchmark_group("plan_of_10000_nodes");
    group.throughput(Throughput::Elements(ADDRESSES as u64));
    group.bench_function("v4", |b| b.iter(|| batches_v4(&fib, &v4)));
    group.bench_function("v6", |b| b.iter(|| batches_v6(&fib, &v6)));
    group.finish();
}

/// One route comes and goes in a table of half a million, until a new table is in hand.
fn changes(c: &mut Criterion) {
    let case = prefixes::v4(500_000, ADDRESSES);
    let mut rib = Rib::default();
    let started = Instant::now();
    let routes = case.routes.iter().map(|&(net, n)| (net, hop(n)));
    rib.replace(routes)
        .expect("one next hop a prefix, and not too many");
    println!(
        "whole table of {}: {:?}",
        case.routes.len(),
        started.elapsed()
    );
    let mut group = c.benchmark_group("change_at_500000");
    for prefix in ["10.244.7.0/24", "10.244.7.9/32", "10.0.0.0/9", "0.0.0.0/0"] {
        let prefix: IpNet = prefix.parse().expect("a prefix");
        let mut n = 0;
        group.bench_function(prefix.to_string(), |b| {
            b.iter(|| {
                n = (n + 1) % 2;
                rib.apply([(prefix, Some(hop(n)))]).expect("there is room");
                rib.fib()
            });
        });
    }
    group.finish();
}

/// `dpdk-test-fib`'s own routes and addresses, in its own order and bursts.
fn files(_: &mut Criterion) {
    let Ok(folder) = std::env::var("TAPLINE_FIB_FILES") else {
        return;
    };
    let folder = Path::new(&folder);
    for name in ["400", "10000", "500000"] {
        let (fib, addresses) = read::<Ipv4Addr>(folder, name);
        report(name, &fib, || {
            batches_v4(&fib, &addresses);
            addresses.len()
        });
    }
    let (fib, addresses) = read::<Ipv6Addr>(folder, "6");
    report("IPv6", &fib, || {
        batches_v6(&fib, &addresses);
        addresses.len()
    });
}

fn read<A: std::str::FromStr>(folder: &Path, name: &str) -> (Fib, Vec<A>) {
    let text = |kind: &str| {
        let path = folder.join(format!("{kind}{name}"));
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let routes = text("r");
    let routes = routes.lines().map(|line| {
        let (prefix, n) = line.split_once(' ').expect("prefix and next hop");
        let prefix: IpNet = prefix.parse().expect("a prefix");
        // Ours has 16-bit numbers; theirs may be longer.
        let n = n.trim().parse::<u64>().expect("a number") & 0x7fff;
        (prefix.trunc(), hop(n as u16))
    });
    // The program's later routes replace earlier ones of the same prefix.
    let routes: std::collections::BTreeMap<_, _> = routes.collect();
    let fib = Fib::build(routes).expect("one next hop a prefix");
    let parse = |line: &str| line.trim().parse().ok().expect("an address");
    (fib, text("l").lines().map(parse).collect())
}

/// The first pass, which is what the program measures, and the best of some.
fn report(name: &str, fib: &Fib, pass: impl Fn() -> usize) {
    let mut passes: Vec<f64> = Vec::new();
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until || passes.len() < 5 {
        let started = Instant::now();
        let count = pass();
        passes.push(started.elapsed().as_nanos() as f64 / count as f64);
    }
    let first = passes[0];
    passes.sort_by(f64::total_cmp);
    let (best, middle) = (passes[0], passes[passes.len() / 2]);
    let ghz = tsc_ghz();
    println!(
        "files {name}: {} routes, {} KiB; ns (cycles) a lookup: first {first:.1} ({:.1}), \
         median {middle:.1} ({:.1}), best {best:.1} ({:.1})",
        fib.len(),
        fib.memory_bytes() / 1024,
        first * ghz,
        middle * ghz,
        best * ghz,
    );
}

/// The rate of the time stamp counter, in which the program counts; 1 if the kernel does not say.
fn tsc_ghz() -> f64 {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mhz = info
        .lines()
        .find_map(|l| l.strip_prefix("cpu MHz")?.split(':').nth(1));
    mhz.and_then(|mhz| mhz.trim().parse::<f64>().ok())
        .map_or(1.0, |mhz| mhz / 1000.0)
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = files, plans, changes, lookups_v4, lookups_v6
}
criterion_main!(benches);
