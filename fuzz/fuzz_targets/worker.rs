//! Fuzz target: frames and time, through a whole worker.
//!
//! In: a byte of port capabilities, then steps; see `tapline_fuzz::Steps`.
//! Out: nothing, or a crash with the broken promise in its message.
//! Never: a check of its own; they are in the library, where a plain test replays them.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tapline_fuzz::run_worker(input));
