//! The real switch beside the oracle, in short; `cargo run --release -p tapline-tests --bin oracle`
//! is the long form.
//!
//! In: seeds. Out: a failure that names the seed, the step and the difference.
//! Never: a device, or the time of day.

use proptest::prelude::*;
use tapline_tests::oracle::campaign::{Campaign, history};
use tapline_tests::oracle::universe::Universe;

#[test]
fn ten_thousand_random_frames_go_where_the_oracle_says() {
    let mut campaign = Campaign::new();
    for seed in 0..40 {
        campaign.frames(seed, 250).expect("no difference");
    }
    campaign.conclude();
}

#[test]
fn a_conversation_of_another_port_is_not_looked_for() {
    let told = history(&mut Universe::new(10_623_286_954_023_176_346, &[]), 47);
    assert!(told.is_ok(), "{}", told.err().unwrap_or_default());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    /// Of a history that fails, proptest looks for the shortest beginning that fails.
    #[test]
    fn histories_of_frames_time_tables_and_ports_go_as_the_oracle_says(
        seed in any::<u64>(), steps in 1_usize..120,
    ) {
        let told = history(&mut Universe::new(seed, &[]), steps);
        prop_assert!(told.is_ok(), "seed {}: {}", seed, told.err().unwrap_or_default());
    }
}
