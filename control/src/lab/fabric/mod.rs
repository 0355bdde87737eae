//! x
pub mod reasons;
pub mod routes;
pub mod rules;
pub mod spec;
pub mod vnet;
