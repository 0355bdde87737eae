//! Tapline as a router beside the kernel as a router: the same hosts and links, and what comes of
//! what the hosts' own stacks send.
//!
//! In: the right to make network namespaces.
//! Out: hop lists and path MTUs, compared.
//! Never: measures speed, or touches the machine's own network.

mod paths;
mod topology;
