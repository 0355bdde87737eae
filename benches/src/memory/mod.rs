//! The shipped worker without a kernel around it, beside DPDK.
pub mod dpdk;
use crate::names::{Metric, Scenario};
use crate::topo::Unbuilt;
use std::time::Duration;
/// x
pub type Found = Vec<(Metric, f64, String)>;
/// x
pub fn run(_s: Scenario, _t: Duration) -> Result<Found, Unbuilt> {
    Err("not yet".into())
}
