//! Tapline beside the Linux bridge and others, measured in one run on one machine; and what each
//! step of a frame costs.
//!
//! In: subjects and scenarios. Out: medians, ratios to the Linux bridge, and what was left out.
//! Never: touches the machine's own network, or leaves anything behind.
//!
//! | file | what it does |
//! |---|---|
//! | [`names`] | scenarios, subjects and metrics, as they are called in the output |
//! | [`topo`] | the same pods for each subject, in fresh namespaces |
//! | [`traffic`] | our own generator: TCP, UDP with a search for the lossless rate, ICMP |
//! | [`memory`] | the shipped worker without a kernel around it, beside DPDK |
//! | [`cpu`], [`stats`] | where the time went; medians and percentiles |
//! | [`compare`] | rounds: the subjects alternate, each measured in the same way |
//! | [`report`] | JSON, tables, charts |
//! | [`prefixes`] | routes and addresses for longest-prefix matches |
//! | [`world`], [`null`], [`scales`] | for the benches of single steps: tables and frames of a node, a port without a device, time and allocations per frame |

pub mod compare;
pub mod cpu;
pub mod memory;
pub mod names;
pub mod null;
pub mod prefixes;
pub mod report;
pub mod scales;
pub mod stats;
pub mod topo;
pub mod traffic;
pub mod world;
