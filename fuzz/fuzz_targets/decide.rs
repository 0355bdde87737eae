//! Fuzz target: frames, decided on by tables of the input's own.
//!
//! In: bytes; the library says how it reads them.
//! Out: nothing, or a crash with the broken promise in its message.
//! Never: a check of its own; they are in the library, where a plain test replays them.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tapline_fuzz::run_decide(input));

// One mutation in 32 is of anything, the others of the frames behind the specification.
libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let kept = tapline_fuzz::decide_spec_len(&data[..size]);
    if seed.is_multiple_of(32) || kept == size || kept >= max_size {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    kept + libfuzzer_sys::fuzzer_mutate(&mut data[kept..], size - kept, max_size - kept)
});
