//! The lab.
pub mod privilege;
pub mod reaper;
