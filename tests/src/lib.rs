//! What the whole-system tests share: a switch in obvious Rust to hold the real one against, and
//! clusters in memory on which faults are tried out.
//!
//! In: tables, frames, seeds. Out: what ought to happen, and the first law that is broken.
//! Never: a device, a clock, or a test: those are in `tests/`, and in `src/bin/`.

pub mod oracle;
pub mod sim;
