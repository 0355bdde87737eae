//! Says `cfg(loom)` to this package alone, so that its models include the files that ship.
//!
//! In: nothing. Out: one line to cargo. Never: reaches the dataplane's own build, which runs on
//! the standard library.

fn main() {
    println!("cargo::rustc-cfg=loom");
    println!("cargo::rerun-if-changed=build.rs");
}
