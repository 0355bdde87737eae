//! The Tapline switch: frames in, verdicts, frames out.
//!
//! A frame walks through five rooms, in one direction. Every room is a file, every exit is
//! counted, and nothing on that walk opens a file, reads a clock, takes a lock, allocates or logs.
//!
//! ```text
//! receive      view       decide         rewrite      transmit
//! port/   ->   frame/  -> forward/   ->  rewrite.rs -> port/
//!                            | reads
//!                            tables/ (configured), fdb and neighbours (learned)
//! ```
//!
//! | file | what it knows |
//! |---|---|
//! | [`addr`], [`clock`], [`bucket`] | bare numbers with a meaning, and how often something may happen |
//! | [`frame`] | bytes to facts |
//! | [`tables`] | what the world looks like |
//! | [`forward`] | where a frame goes: `decide`, which is pure |
//! | [`verdict`] | the verdicts, and the one table of drop reasons |
//! | [`mod@rewrite`] | the edits a verdict asks for |
//! | [`segment`] | what a sender left undone, for ports that cannot take it so |
//! | [`facility`] | what newer kernels offer, and whether it may be used |
//! | [`port`] | where frames come from and go to; `port/sys` has all `unsafe` |
//! | [`worker`] | one breath: the five rooms in order |
//! | [`switch`] | workers on threads of their own, that sleep when there is nothing to do |
//! | [`gossip`] | what workers of one switch tell each other |
//! | [`conflict`] | two that want one address |
//! | [`bounds`] | what a switch may come to hold |
//! | [`snapshot`], [`stats`] | tables come in, counters go out |
//!
//! No async, no serde, no netlink: what may be slow lives in `control`, which names this crate and
//! is never named by it.

pub mod addr;
pub mod bounds;
pub mod bucket;
pub mod buffer;
pub mod capture;
pub mod clock;
pub mod conflict;
pub mod facility;
pub mod forward;
pub mod fragment;
pub mod frame;
pub mod gossip;
pub mod port;
pub mod rewrite;
pub mod segment;
mod slow;
pub mod snapshot;
pub mod stats;
pub mod switch;
pub mod sync;
pub mod tables;
pub mod verdict;
pub mod worker;
