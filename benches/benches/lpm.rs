//! The longest prefix: a node's own table, and one far larger.
//!
//! In: tables of both plugins with 110 pods, and 1,000 prefixes of many lengths, IPv4 and IPv6.
//! Out: time per look-up of addresses in random order.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use benches::scales::{Numbers, criterion, stir, weigh};
use benches::world::{azure, kubenet, pod_ip, port, station};
use criterion::{Criterion, criterion_group, criterion_main};
use dataplane::tables::fib::{Fib, NextHop};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const LOOKUPS: usize = 1024;

fn value(hop: Option<NextHop>) -> u64 {
    match hop {
        Some(NextHop::Station { port, .. }) => port.index() as u64,
        Some(NextHop::Host) => 1001,
        Some(_) => 1002,
        None => 1003,
    }
}

fn v4(criterion: &mut Criterion, name: &str, fib: &Fib, addresses: &[Ipv4Addr]) {
    weigh(criterion, name, addresses.len(), || {
        addresses
            .iter()
            .fold(0, |hash, to| stir(hash, value(fib.find_v4(black_box(*to)))))
    });
}

fn many(numbers: &mut Numbers) -> Vec<(IpNet, NextHop)> {
    let lens = [8, 12, 16, 18, 20, 22, 24, 26, 28, 32];
    let mut routes: Vec<_> = (0..1000)
        .map(|at| {
            let bits = (numbers.below(1 << 16) << 16 | numbers.below(1 << 16)) as u32;
            let net = Ipv4Net::new(bits.into(), lens[at % lens.len()])
                .expect("a length")
                .trunc();
            let hop = NextHop::Station {
                port: port(at % 100),
                mac: station(at),
            };
            (net.into(), hop)
        })
        .collect();
    routes.sort_by_key(|(net, _): &(IpNet, NextHop)| *net);
    routes.dedup_by_key(|(net, _)| *net);
    routes
}

fn lpm(criterion: &mut Criterion) {
    let mut numbers = Numbers::seeded(2);
    for (name, net, spec) in [
        ("lpm/azure-110-pods", [10, 20], azure(110)),
        ("lpm/kubenet-110-pods", [10, 244], kubenet(110)),
    ] {
        let fib = Fib::build(spec.routes).expect("sound");
        let pods: Vec<_> = (0..LOOKUPS)
            .map(|_| pod_ip(net, numbers.below(110)))
            .collect();
        v4(criterion, name, &fib, &pods);
        let far: Vec<_> = (0..LOOKUPS)
            .map(|_| Ipv4Addr::new(10, 245, numbers.below(61) as u8, 9))
            .collect();
        v4(criterion, &format!("{name}-far"), &fib, &far);
    }
    let fib = Fib::build(many(&mut numbers)).expect("sound");
    let any: Vec<_> = (0..LOOKUPS)
        .map(|_| Ipv4Addr::from((numbers.below(1 << 16) << 16 | numbers.below(1 << 16)) as u32))
        .collect();
    v4(criterion, "lpm/1000-prefixes", &fib, &any);
    v6(criterion);
}

fn v6(criterion: &mut Criterion) {
    let mut numbers = Numbers::seeded(3);
    let lens = [32, 40, 48, 56, 60, 64, 96, 128];
    let address = |number: usize| Ipv6Addr::new(0xfd00, number as u16, 1, 2, 3, 4, 5, 6);
    let routes = (0..1000).map(|at| {
        let net = Ipv6Net::new(address(at), lens[at % lens.len()])
            .expect("a length")
            .trunc();
        (net.into(), NextHop::Host)
    });
    let fib = Fib::build(routes).expect("sound");
    let any: Vec<_> = (0..LOOKUPS).map(|_| address(numbers.below(1100))).collect();
    weigh(criterion, "lpm/1000-prefixes-v6", LOOKUPS, || {
        any.iter()
            .fold(0, |hash, to| stir(hash, value(fib.find_v6(black_box(*to)))))
    });
}

criterion_group! { name = benches; config = criterion(); targets = lpm }
criterion_main!(benches);
