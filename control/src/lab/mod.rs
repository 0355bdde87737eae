//! The lab.
pub mod privilege;
