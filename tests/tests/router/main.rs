//! Tapline as a router beside the kernel as a router: the same hosts, links and packets, and what
//! comes of them.
//!
//! In: the right to make network namespaces.
//! Out: hop lists, path MTUs, ICMP errors and forwarded packets, compared byte for byte; every
//! difference stands in one table with its reason ([`differences`]).
//! Never: measures speed, or touches the machine's own network.

mod differences;
mod errors;
mod frames;
mod packets;
mod paths;
mod random;
mod shares;
mod topology;
mod wire;
