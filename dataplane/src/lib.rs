//! The switch.
pub mod addr;
pub mod verdict;
