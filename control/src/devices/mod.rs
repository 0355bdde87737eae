//! Devices of the kernel.
pub mod netns;
