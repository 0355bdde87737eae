//! x
use super::Found;
use crate::topo::Unbuilt;
use std::time::Duration;
/// x
pub fn testpmd(_t: Duration) -> Result<Found, Unbuilt> {
    Err("not yet".into())
}
/// x
pub fn test_fib(_q: bool) -> Result<Found, Unbuilt> {
    Err("not yet".into())
}
