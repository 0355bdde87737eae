//! A soak, in short; `cargo run --release -p tapline-tests --bin soak` is the long form.
//!
//! In: a second. Out: no frame lost, counters that balance. Never: judges speed.

use std::time::Duration;

use tapline_tests::sim::soak::soak;

#[test]
fn no_frame_is_lost_while_tables_change_a_hundred_times_a_second() {
    let told = soak(Duration::from_secs(1), |_| ());
    assert_eq!(told.sent, told.arrived, "{told:?}");
    assert_eq!(told.counts.dropped.total(), 0, "{told:?}");
    assert!(told.counts.is_balanced(), "{told:?}");
    // A hundred of them in the second, and some before it for the highest rate.
    assert!(told.published > 100 && told.sent > 10_000, "{told:?}");
    assert!(told.took >= Duration::from_secs(1), "{told:?}");
}
