//! The system calls that no safe library wraps. The only folder of the dataplane with `unsafe`.
//!
//! In: checked arguments. Out: owned descriptors or the kernel's error.
//! Never: a raw descriptor that nobody owns.

#![allow(unsafe_code)]

pub(crate) mod tun;
pub(crate) mod uring;
