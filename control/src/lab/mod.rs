//! The lab.
pub mod prereq;
pub mod privilege;
pub mod reaper;
