//! The learned stations: found and learned, few and many, in random order.
//!
//! In: 1,000 stations, and 65,536. Out: time per look-up and per learning.

use std::hint::black_box;

use benches::scales::{Numbers, criterion, stir, weigh};
use benches::world::{port, station};
use criterion::{Criterion, criterion_group, criterion_main};
use dataplane::addr::{Mac, Station};
use dataplane::clock::Tick;
use dataplane::tables::fdb::{Fdb, Learned};

fn fdb(criterion: &mut Criterion) {
    for (stations, capacity) in [(1000, 8192), (65_536, 1 << 17)] {
        let table = Fdb::new(capacity, 7);
        let mut numbers = Numbers::seeded(1);
        let order: Vec<Mac> = (0..stations)
            .map(|_| station(numbers.below(stations)))
            .collect();
        for number in 0..stations {
            let one = Station::new(station(number)).expect("one owner");
            table.learn(one, port(number % 8), Tick(0));
        }
        weigh(criterion, &format!("fdb/find/{stations}"), stations, || {
            order.iter().fold(0, |hash, mac| {
                let found = table.find(black_box(*mac));
                stir(hash, found.map_or(99, |port| port.index() as u64))
            })
        });
        let heard: Vec<Station> = order
            .iter()
            .filter_map(|mac| Station::new(*mac).ok())
            .collect();
        weigh(
            criterion,
            &format!("fdb/learn/{stations}"),
            stations,
            || {
                heard.iter().fold(0, |hash, one| {
                    let number = one.mac().octets()[5] as usize;
                    let learned = table.learn(black_box(*one), port(number % 8), Tick(0));
                    stir(hash, u64::from(learned == Learned::Known))
                })
            },
        );
    }
}

criterion_group! { name = benches; config = criterion(); targets = fdb }
criterion_main!(benches);
