//! Everything that may be slow.
pub mod adopt;
pub mod api;
pub mod cli;
pub mod cni;
pub mod compile;
pub mod config;
pub mod daemon;
pub mod devices;
pub mod ipam;
pub mod lab;
pub mod model;
pub mod node;
pub mod plan;
pub mod routes;
pub mod steer;
pub mod trace;
