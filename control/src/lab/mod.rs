//! The lab.
pub mod fabric;
pub mod probe;
