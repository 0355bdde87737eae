//! Shared pieces of the benches: a world to forward in, frames to forward, and the scales.
//!
//! | file | what it knows |
//! |---|---|
//! | [`world`] | tables and frames of a node with pods |
//! | [`null`] | a port without a device, which copies frames in and out |
//! | [`scales`] | time per frame, allocations per frame, and a hash of the result |

pub mod null;
pub mod scales;
pub mod world;
