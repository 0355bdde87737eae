//! The lab's probes: they ask the running cluster questions, from inside its namespaces.
//!
//! In: namespaces and addresses. Out: reports made of plain values.
//! Never: needs a program that the machine may lack, runs without a bound in time and memory, or
//! decides whether an answer is good; that is the walk's part.

pub mod capture;
pub mod hops;
pub mod pcap;
pub mod ping;
pub mod pmtu;
pub mod transfer;

pub use capture::{Capture, Captured, EchoRequests, Recording, TcpFrames};
pub use hops::{Hop, HopProbe, HopsReport, HopsSpec, hops};
pub use ping::{PingError, PingReport, PingSpec, Reply, ping};
pub use pmtu::{PathMtuReport, PathMtuSpec, path_mtu};
pub use transfer::{TransferReport, TransferSpec, transfer};
