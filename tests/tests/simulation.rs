//! Simulated clusters with faults, in short; `cargo run --release -p tapline-tests --bin simulate`
//! is the long form.
//!
//! In: seeds. Out: a failure that names the seed and the broken law.
//! Never: a device, or the time of day.

use tapline_tests::sim::{Law, Options, Plant, Report, run};

const SEEDS: u64 = 20;

#[test]
fn clusters_with_faults_keep_every_law() {
    let mut sum = Report::default();
    for seed in 0..SEEDS {
        let report = run(seed, &Options::default()).unwrap_or_else(|broken| panic!("{broken}"));
        sum.delivered += report.delivered;
        sum.carried += report.carried;
        sum.faults += report.faults;
        sum.published += report.published;
    }
    // What nothing befell, and where nothing got through, shows nothing.
    assert!(sum.delivered > 100 * SEEDS, "{sum:?}");
    assert!(sum.carried > 100 * SEEDS, "{sum:?}");
    assert!(sum.faults > 50 * SEEDS, "{sum:?}");
    assert!(sum.published > 10 * SEEDS, "{sum:?}");
}

#[test]
fn a_seed_reproduces_a_run_exactly() {
    for seed in [3, 4, 5] {
        let [once, again] = [(); 2].map(|()| run(seed, &Options::default()).expect("lawful"));
        assert_eq!(once, again, "seed {seed}");
    }
    let [one, other] = [3, 4].map(|seed| run(seed, &Options::default()).expect("lawful"));
    assert_ne!(one.digest, other.digest);
}

/// Runs seeds until the planted fault is caught, and says by which law.
fn caught(plant: Plant) -> Option<Law> {
    let options = Options {
        plant: Some(plant),
        ..Options::default()
    };
    (0..SEEDS).find_map(|seed| run(seed, &options).err().map(|broken| broken.law))
}

#[test]
fn a_death_that_is_not_counted_breaks_conservation() {
    assert_eq!(caught(Plant::DroppedCounter), Some(Law::Conservation));
}

#[test]
fn a_packet_for_another_pod_breaks_the_law_of_tenants() {
    assert_eq!(caught(Plant::WrongTenant), Some(Law::Tenant));
}

#[test]
fn a_station_that_outlives_its_port_breaks_the_law_of_learned_stations() {
    assert_eq!(caught(Plant::StaleFdb), Some(Law::Fdb));
}

#[test]
fn half_a_table_breaks_the_law_of_one_table() {
    assert_eq!(caught(Plant::TornTable), Some(Law::OneTable));
}

#[test]
fn a_guard_that_does_not_look_breaks_the_law_of_guards() {
    assert_eq!(caught(Plant::BlindGuards), Some(Law::Guards));
}

#[test]
fn frames_that_change_places_break_the_law_of_order() {
    assert_eq!(caught(Plant::ReorderedFlow), Some(Law::Order));
}
