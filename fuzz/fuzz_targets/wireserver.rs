//! Fuzz target: a document in which a node's truth stands.
//!
//! In: bytes; the library says how it reads them.
//! Out: nothing, or a crash with the broken promise in its message.
//! Never: a check of its own; they are in the library, where a plain test replays them.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tapline_fuzz::run_wireserver(input));
