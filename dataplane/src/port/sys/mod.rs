//! The system calls that no safe library wraps. The only folder of the dataplane with `unsafe`.
//!
//! In: checked arguments. Out: owned descriptors or the kernel's error.
//! Never: a raw descriptor that nobody owns.

#![allow(unsafe_code)]

pub mod bpf;
pub(crate) mod packet;
pub(crate) mod sched;
pub(crate) mod tun;
pub(crate) mod uring;
pub mod xtables;

use std::io;

/// A system call's answer: negative means that it failed.
fn check(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
