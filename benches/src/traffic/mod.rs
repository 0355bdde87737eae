//! Our own traffic, so that no other program is needed to compare switches.
//!
//! In: a [`Path`]: two namespaces and an address. Out: what got through, and how long it took.
//! Never: runs without an end: everything here is bounded in time.

pub mod icmp;
pub mod search;
pub mod tcp;
pub mod udp;

use std::net::Ipv4Addr;

use control::devices::Netns;

/// From whom to whom.
#[derive(Clone, Debug)]
pub struct Path {
    /// The sender's namespace.
    pub from: Netns,
    /// The receiver's.
    pub to: Netns,
    /// The receiver's address.
    pub address: Ipv4Addr,
}
