//! The way back against a plain map, and what bounds it.

use super::*;
use crate::frame::transport::{TCP, UDP};
use crate::frame::tuple::Ports;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn port(n: usize) -> PortId {
    PortId::new(n).expect("in range")
}

fn tuple(n: u32) -> Tuple {
    let [_, _, a, b] = n.to_be_bytes();
    Tuple {
        source: [10, 244, a, b].into(),
        target: [10, 244, 9, 9].into(),
        protocol: TCP,
        ports: Ports::Known(5000, 80),
    }
}

/// The same `n`, in each of the sorts of key that there are.
fn sort(n: u32, sort: u8) -> Tuple {
    let v4 = tuple(n);
    match sort {
        0 => v4,
        1 => v4.without_ports(),
        2 => Tuple {
            protocol: UDP,
            ..v4
        },
        _ => Tuple {
            source: std::net::Ipv6Addr::from_bits(u128::from(n) << 64 | 7).into(),
            target: std::net::Ipv6Addr::from_bits(9).into(),
            ..v4
        },
    }
}

const SECOND: u64 = 1000;

#[test]
fn who_carried_it_last_counts_and_a_switch_outranks_the_endpoint() {
    let returns = Returns::new(64, 7);
    let (one, now) = (tuple(1), Tick(0));
    assert!(!returns.concerns(port(2), port(3)));
    assert_eq!(returns.known(&one, true), Known::Nothing);
    returns.has_now_spoken(&one, Stage::Open, port(2), now);
    assert!(returns.concerns(port(3), port(2)) && !returns.concerns(port(3), port(4)));
    assert_eq!(returns.known(&one, true), Known::Endpoint);
    assert_eq!(
        returns.known(&one, false),
        Known::Nothing,
        "beyond the uplink"
    );
    let elsewhere = Tuple {
        target: [10, 20, 0, 43].into(),
        ports: Ports::Known(5000, 99),
        ..one
    };
    assert_eq!(
        returns.known(&elsewhere, true),
        Known::Endpoint,
        "whoever answers"
    );
    let other_port = Tuple {
        ports: Ports::Known(5001, 80),
        ..one
    };
    assert_eq!(returns.known(&other_port, true), Known::Nothing);
    returns.carried(&one, Carrier::Switch, Stage::Open, port(2), now);
    assert_eq!(returns.known(&one, true), Known::Switch);
    returns.carried(&one, Carrier::Host, Stage::Open, port(2), now);
    assert_eq!(returns.known(&one, false), Known::Host);
    returns.listens(&one);
    assert_eq!(returns.known(&elsewhere, true), Known::Nothing);
    let totals = Totals {
        live: 1,
        added: 2,
        expired: 1,
        ..Totals::default()
    };
    assert_eq!(returns.totals(), totals);
}

#[test]
fn each_stage_lives_as_long_as_the_kernel_remembers_it() {
    for (stage, seconds) in [
        (Stage::Opening, 120),
        (Stage::Closing, 120),
        (Stage::Datagram, 180),
        (Stage::Other, 600),
        (Stage::Open, 86_400),
    ] {
        let returns = Returns::new(64, 7);
        let start = 16_000 * UNIT_MS; // the clock of entries turns over meanwhile
        returns.carried(&tuple(1), Carrier::Host, stage, port(2), Tick(start));
        returns.age(0, 64, Tick(start + seconds * SECOND));
        assert_eq!(returns.totals().live, 1, "{stage:?}");
        returns.age(0, 64, Tick(start + (seconds + 32) * SECOND));
        let gone = Totals {
            added: 1,
            expired: 1,
            ..Totals::default()
        };
        assert_eq!(returns.totals(), gone, "{stage:?}");
        assert!(!returns.concerns(port(2), port(2)));
    }
}

#[test]
fn the_end_of_tcp_is_an_end_until_a_syn() {
    let returns = Returns::new(64, 7);
    let stage = || returns.entries(Tick(0)).next().expect("one").stage;
    for (heard, now) in [
        (Stage::Opening, Stage::Opening),
        (Stage::Open, Stage::Open),
        (Stage::Closing, Stage::Closing),
        (Stage::Open, Stage::Closing),
        (Stage::Opening, Stage::Opening),
    ] {
        returns.carried(&tuple(1), Carrier::Host, heard, port(2), Tick(0));
        assert_eq!(stage(), now);
    }
}

#[test]
fn what_has_run_out_gives_nothing_to_the_next_of_the_same_tuple() {
    let returns = Returns::new(64, 7);
    let later = Tick(200 * SECOND);
    returns.carried(&tuple(1), Carrier::Host, Stage::Closing, port(2), Tick(0));
    returns.carried(&tuple(1), Carrier::Host, Stage::Open, port(3), later);
    let left = returns
        .entries(later)
        .map(|entry| (entry.port, entry.stage));
    assert_eq!(left.collect::<Vec<_>>(), [(port(3), Stage::Open)]);
    returns.forget_port(port(2));
    let kept = Totals {
        live: 1,
        added: 2,
        expired: 1,
        ..Totals::default()
    };
    assert_eq!(returns.totals(), kept);
}

#[test]
fn a_detached_port_is_forgotten_whole() {
    let returns = Returns::new(64, 7);
    for n in 0..6 {
        let at = port(2 + n as usize % 2);
        returns.carried(&tuple(n), Carrier::Host, Stage::Open, at, Tick(0));
    }
    returns.forget_port(port(2));
    let left = returns.entries(Tick(0)).map(|entry| entry.port);
    assert_eq!(left.collect::<Vec<_>>(), [port(3); 3]);
    assert!(!returns.concerns(port(2), port(2)));
}

#[test]
fn a_pod_that_scans_services_leaves_the_others_their_half() {
    let returns = Returns::new(1024, 7);
    let speak = |n: u32, at: usize| {
        returns.has_now_spoken(&tuple(n), Stage::Open, port(at), Tick(0));
    };
    (0..200).for_each(|n| speak(n, 3));
    let before = (0..200).filter(|n| returns.has_spoken(&tuple(*n))).count();
    assert_eq!(before, 200, "the table is roomy");
    (1000..60_000).for_each(|n| speak(n, 2));
    let held = returns.held(port(2));
    assert!(held <= 512, "{held}");
    let after = (0..200).filter(|n| returns.has_spoken(&tuple(*n))).count();
    assert!(after > 180, "{after} of 200 are left");
    let totals = returns.totals();
    assert_eq!(totals.added, totals.live + totals.evicted + totals.expired);
    assert!(totals.refused > 0 && totals.evicted > 0, "{totals:?}");
}

#[test]
fn whoever_has_least_time_left_gives_way() {
    let returns = Returns::new(16, 7);
    for n in 0..200 {
        let (stage, at) = match n % 4 {
            0 => (Stage::Closing, 2),
            _ => (Stage::Open, 3 + n as usize % 3),
        };
        returns.carried(&tuple(n), Carrier::Host, stage, port(at), Tick(0));
    }
    let closing = returns
        .entries(Tick(0))
        .filter(|e| e.stage == Stage::Closing)
        .count();
    assert!(
        closing <= 2,
        "at most the last one of each window, not {closing}"
    );
}

#[test]
fn entries_tell_their_keys() {
    let returns = Returns::new(256, 7);
    let mut wanted = Vec::new();
    for sort_of in 0..4 {
        let key = sort(77, sort_of);
        returns.carried(&key, Carrier::Switch, Stage::Open, port(5), Tick(0));
        wanted.push(About::Tuple(key));
        returns.has_now_spoken(&key, Stage::Open, port(5), Tick(0));
        let nobody = match key.source {
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let ports = match key.ports {
            Ports::Known(source, _) => Ports::Known(source, 0),
            Ports::Hidden => Ports::Hidden,
        };
        wanted.push(About::Endpoint(Tuple {
            target: nobody,
            ports,
            ..key
        }));
    }
    let mut told: Vec<About> = returns.entries(Tick(0)).map(|entry| entry.about).collect();
    told.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(told, wanted);
}

#[test]
fn readers_never_meet_a_carrier_that_a_tuple_did_not_have() {
    // Even tuples are always the host's, odd ones the switch's; they push each other out.
    let returns = Returns::new(16, 7);
    let carrier = |n: u32| [Carrier::Host, Carrier::Switch][n as usize % 2];
    std::thread::scope(|scope| {
        for half in 0..2u32 {
            let returns = &returns;
            scope.spawn(move || {
                for round in 0..20_000u32 {
                    let n = (round * 7 + half) % 48;
                    let now = Tick(u64::from(round) * 100);
                    let at = port(2 + n as usize % 3);
                    returns.carried(&tuple(n), carrier(n), Stage::Datagram, at, now);
                    returns.age((round % 16) as usize, 2, Tick(now.0 + 150_000));
                    if round % 997 == 0 {
                        returns.forget_port(at);
                    }
                }
            });
        }
        scope.spawn(|| {
            for n in (0..48u32).cycle().take(40_000) {
                if let Some(found) = returns.carrier(&tuple(n)) {
                    assert_eq!(found, carrier(n));
                }
                for entry in returns.entries(Tick(0)).take(2) {
                    let About::Tuple(key) = entry.about else {
                        panic!("no endpoints here")
                    };
                    assert_eq!(key.target, tuple(0).target);
                }
            }
        });
    });
    let totals = returns.totals();
    assert_eq!(
        totals.live,
        returns
            .windows
            .iter()
            .flat_map(|w| &w.0)
            .filter(|slot| slot.load(Ordering::Relaxed) != 0)
            .count() as u64
    );
    assert_eq!(totals.added, totals.live + totals.evicted + totals.expired);
}

proptest! {
    #[test]
    fn a_roomy_table_behaves_as_a_map(
        events in prop::collection::vec(
            (0u32..12, 0u8..4, any::<bool>(), any::<bool>(), 0usize..5, 0usize..3, 0u64..200), 1..120),
        seed in any::<u64>(),
    ) {
        let stages = [Stage::Opening, Stage::Open, Stage::Closing, Stage::Datagram, Stage::Other];
        let returns = Returns::new(4096, seed);
        let mut model: BTreeMap<(Tuple, bool), (Carrier, Stage, u64)> = BTreeMap::new();
        let mut now = 0;
        for (n, sort_of, endpoint, host, stage, at, pause) in events {
            now += pause * SECOND;
            returns.age(0, 4096, Tick(now));
            model.retain(|_, (_, stage, heard)| now / UNIT_MS - *heard <= life(*stage));
            let (key, mut stage) = (sort(n, sort_of), stages[stage]);
            let carrier = if host || endpoint { Carrier::Host } else { Carrier::Switch };
            match endpoint {
                true => returns.has_now_spoken(&key, stage, port(at), Tick(now)),
                false => returns.carried(&key, carrier, stage, port(at), Tick(now)),
            }
            if let Some((_, Stage::Closing, _)) = model.get(&(key, endpoint)) && stage == Stage::Open {
                stage = Stage::Closing;
            }
            model.insert((key, endpoint), (carrier, stage, now / UNIT_MS));
            for (n, sort_of) in (0..12).flat_map(|n| (0..4).map(move |sort| (n, sort))) {
                let key = sort(n, sort_of);
                let exact = model.get(&(key, false)).map(|(carrier, ..)| *carrier);
                prop_assert_eq!(returns.carrier(&key), exact);
                prop_assert_eq!(returns.has_spoken(&key), model.contains_key(&(key, true)));
            }
            prop_assert_eq!(returns.totals().live, model.len() as u64);
        }
    }
}

#[test]
fn what_another_knew_is_known_with_the_time_that_it_had_left() {
    let (old, new) = (Returns::new(64, 1), Returns::new(64, 2));
    let tuple = Tuple {
        source: "10.244.1.6".parse().expect("an address"),
        target: "10.0.0.10".parse().expect("an address"),
        protocol: 17,
        ports: Ports::Known(4000, 53),
    };
    let port = PortId::new(2).expect("in range");
    old.carried(&tuple, Carrier::Host, Stage::Datagram, port, Tick(0));
    old.has_now_spoken(&tuple.reversed(), Stage::Datagram, port, Tick(0));
    let later = Tick(100_000);
    let entries: Vec<Entry> = old.entries(later).collect();
    assert_eq!(entries.len(), 2);
    for entry in &entries {
        new.recall(entry, later);
    }
    assert_eq!(new.known(&tuple, true), Known::Host);
    assert!(new.has_spoken(&tuple.reversed()));
    let mut left: Vec<Entry> = new.entries(later).collect();
    left.sort_by_key(|entry| entry.about);
    let mut before = entries;
    before.sort_by_key(|entry| entry.about);
    assert_eq!(left, before, "neither younger nor older");
    new.age(0, 64, Tick(200_000));
    assert_eq!(new.totals().live, 0, "it ends when it would have ended");
}
