//! The table publication and the shared FDB, under every order that their threads may run in.
//!
//! In: the very files that ship, compiled with loom's atomics, locks and reference counts in place
//! of the standard library's. Out: a failure that tells the order in which a promise broke.
//! Never: checks what is not here: the rings and channels are crossbeam's, and trusted as such;
//! `Counter` has one writer by contract. Nor orders beyond the bounds: at most
//! `TAPLINE_PREEMPTIONS` times (3 unless told otherwise, 2 for the FDB) is a thread interrupted
//! where it would not have waited, two or three threads run, and the FDB is one window of eight
//! slots. Nor what no thread of C11 may see but a machine might. How a whole switch behaves on
//! real threads, `tests/tests/stress.rs` shows.
//!
//! More of it: `TAPLINE_PREEMPTIONS=5 cargo test --release -p tapline-tests --test models`.

#[allow(dead_code, unused_imports, unreachable_pub)] // a switch uses all of it, a model a part
#[path = "../../dataplane/src/sync.rs"]
mod sync;

#[allow(dead_code, unreachable_pub)]
#[path = "../../dataplane/src/snapshot.rs"]
mod snapshot;

#[allow(dead_code, unreachable_pub)]
#[path = "../../dataplane/src/tables/fdb.rs"]
mod fdb;

mod addr {
    pub(crate) use dataplane::addr::*;
}

mod clock {
    pub(crate) use dataplane::clock::*;
}

use addr::{Mac, PortId, Station};
use clock::Tick;
use fdb::{Fdb, Learned};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use snapshot::Publisher;

/// Runs a model under every order with so many preemptions, or as many as the environment says.
fn every_order(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let told = std::env::var("TAPLINE_PREEMPTIONS").ok();
    let told = told.map(|number| number.parse().expect("TAPLINE_PREEMPTIONS is a number"));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(told.unwrap_or(preemptions));
    builder.check(model);
}

/// A table of two halves, which must not be seen apart, and which tells where it was torn down.
struct Table {
    halves: [usize; 2],
    home: thread::ThreadId,
}

impl Table {
    fn new(number: usize) -> Table {
        Table {
            halves: [number; 2],
            home: thread::current().id(),
        }
    }

    fn number(&self) -> usize {
        assert_eq!(self.halves[0], self.halves[1], "a torn table");
        self.halves[0]
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let here = thread::current().id();
        assert!(here == self.home, "torn down on a worker");
    }
}

#[test]
fn a_reader_sees_whole_tables_in_their_order_and_the_last_in_the_end() {
    every_order(3, || {
        let mut publisher = Publisher::new(Table::new(0));
        let mut reader = publisher.reader();
        let worker = thread::spawn(move || {
            let first = reader.refresh().number();
            let second = reader.refresh().number();
            assert!(second >= first, "{second} after {first}");
            reader
        });
        publisher.publish(Table::new(1));
        publisher.publish(Table::new(2));
        let mut reader = worker.join().expect("no panic");
        assert_eq!(reader.refresh().number(), 2);
        drop(reader);
        publisher.reclaim();
    });
}

#[test]
fn who_heard_of_a_table_finds_it() {
    every_order(3, || {
        let mut publisher = Publisher::new(Table::new(0));
        let mut reader = publisher.reader();
        let heard = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&heard);
        let worker = thread::spawn(move || {
            let heard = told.load(Ordering::Acquire);
            let found = reader.refresh().number();
            assert!(found >= heard, "heard of {heard}, found {found}");
            reader
        });
        for number in 1..=2 {
            publisher.publish(Table::new(number));
            heard.store(number, Ordering::Release);
        }
        drop(worker.join().expect("no panic"));
        publisher.reclaim();
    });
}

#[test]
fn no_table_is_torn_down_on_a_worker() {
    every_order(3, || {
        let mut publisher = Publisher::new(Table::new(0));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let mut reader = publisher.reader();
                thread::spawn(move || {
                    // As a worker does: it holds the tables of a breath beside the reader's own.
                    let held = Arc::clone(reader.refresh());
                    let newer = reader.refresh().number();
                    assert!(newer >= held.number());
                })
            })
            .collect();
        publisher.publish(Table::new(1));
        publisher.reclaim();
        for worker in workers {
            worker.join().expect("no panic");
        }
        publisher.reclaim();
    });
}

/// Room for eight stations: one window.
const WINDOW: usize = 8;

fn station(last: u8) -> Station {
    Station::new(Mac::new([2, 0, 0, 0, 0, last])).expect("a station")
}

fn port(index: usize) -> PortId {
    PortId::new(index).expect("in range")
}

#[test]
fn a_station_that_moves_is_found_on_one_of_its_ports() {
    every_order(2, || {
        let fdb = Arc::new(Fdb::new(WINDOW, 7));
        fdb.learn(station(1), port(1), Tick(0));
        let mover = {
            let fdb = Arc::clone(&fdb);
            thread::spawn(move || fdb.learn(station(1), port(2), Tick(0)))
        };
        let found = fdb.find(station(1).mac());
        assert!([Some(port(1)), Some(port(2))].contains(&found), "{found:?}");
        let moved = mover.join().expect("no panic");
        assert_eq!(moved, Learned::Moved { from: port(1) });
        assert_eq!(fdb.find(station(1).mac()), Some(port(2)));
    });
}

#[test]
fn two_workers_that_hear_of_stations_at_once_learn_both() {
    every_order(2, || {
        let fdb = Arc::new(Fdb::new(WINDOW, 7));
        let other = {
            let fdb = Arc::clone(&fdb);
            thread::spawn(move || fdb.learn(station(1), port(1), Tick(0)))
        };
        let here = fdb.learn(station(2), port(2), Tick(0));
        let there = other.join().expect("no panic");
        // Who lost a slot to the other says so by learning nothing, and learns with the next frame.
        for (who, at, learned) in [(1, 1, there), (2, 2, here)] {
            let found = fdb.find(station(who).mac());
            assert!(found.is_none() || found == Some(port(at)), "{found:?}");
            match learned {
                Learned::New => assert_eq!(found, Some(port(at)), "{who} is not there"),
                Learned::Known => {}
                other => panic!("{other:?} in a table that is nearly empty"),
            }
            fdb.learn(station(who), port(at), Tick(0));
            assert_eq!(fdb.find(station(who).mac()), Some(port(at)));
        }
        assert_eq!(fdb.entries().count(), 2);
    });
}

#[test]
fn a_station_heard_on_two_ports_at_once_has_one_entry() {
    every_order(2, || {
        let fdb = Arc::new(Fdb::new(WINDOW, 7));
        let other = {
            let fdb = Arc::clone(&fdb);
            thread::spawn(move || fdb.learn(station(1), port(1), Tick(0)))
        };
        fdb.learn(station(1), port(2), Tick(0));
        other.join().expect("no panic");
        let entries: Vec<_> = fdb.entries().collect();
        assert_eq!(entries.len(), 1, "{entries:?}");
        let (mac, at, _) = entries[0];
        assert_eq!(fdb.find(mac), Some(at));
    });
}

#[test]
fn a_slot_that_changes_hands_never_gives_one_station_the_others_port() {
    every_order(2, || {
        let fdb = Arc::new(Fdb::new(WINDOW, 7));
        for last in 0..WINDOW as u8 {
            fdb.learn(station(last + 1), port(1), Tick(u64::from(last) * 1000));
        }
        let evictor = {
            let fdb = Arc::clone(&fdb);
            thread::spawn(move || fdb.learn(station(100), port(3), Tick(60_000)))
        };
        let oldest = fdb.find(station(1).mac());
        assert!(oldest.is_none() || oldest == Some(port(1)), "{oldest:?}");
        let newest = fdb.find(station(100).mac());
        assert!(newest.is_none() || newest == Some(port(3)), "{newest:?}");
        let gone = station(1).mac();
        let learned = evictor.join().expect("no panic");
        assert_eq!(learned, Learned::Evicted { gone });
        assert_eq!(fdb.entries().count(), WINDOW);
    });
}

#[test]
fn ageing_spares_a_station_that_is_heard_or_it_is_learned_again() {
    every_order(2, || {
        let fdb = Arc::new(Fdb::new(WINDOW, 7));
        fdb.learn(station(1), port(1), Tick(0));
        let ager = {
            let fdb = Arc::clone(&fdb);
            thread::spawn(move || fdb.age(0, WINDOW, 300, Tick(300_000)))
        };
        fdb.learn(station(1), port(1), Tick(300_000));
        let (gone, _) = ager.join().expect("no panic");
        let left = fdb.entries().count();
        assert!(
            left as u64 + gone >= 1 && left <= 1,
            "{gone} gone, {left} left"
        );
        // The next frame finds it, or teaches it.
        fdb.learn(station(1), port(1), Tick(300_000));
        assert_eq!(fdb.find(station(1).mac()), Some(port(1)));
    });
}

#[test]
fn a_station_heard_twice_while_another_ages_is_found_where_it_was_heard_last() {
    every_order(2, || {
        let fdb = Arc::new(Fdb::new(WINDOW, 7));
        fdb.learn(station(9), port(3), Tick(0));
        let other = {
            let fdb = Arc::clone(&fdb);
            thread::spawn(move || {
                fdb.age(0, WINDOW, 300, Tick(300_000));
                fdb.learn(station(1), port(1), Tick(300_000));
            })
        };
        fdb.learn(station(1), port(2), Tick(300_000));
        other.join().expect("no panic");
        fdb.learn(station(1), port(4), Tick(300_000));
        assert_eq!(fdb.find(station(1).mac()), Some(port(4)));
        assert_eq!(fdb.entries().count(), 1);
    });
}
