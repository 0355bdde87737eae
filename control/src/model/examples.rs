//! The documents that Tapline is shown with, built into the program.
//!
//! In: nothing. Out: their text, verbatim. Never: a copy that differs from `control/examples`.

/// The API model: azure plugin and policy, one master, two agents.
pub const AKS: &str = include_str!("../../examples/aks.json");

/// The VNet's ARM template: one subnet for masters, one for agents.
pub const AKS_VNET: &str = include_str!("../../examples/aks-vnet.json");

/// A dual-stack model: kubenet, Kubernetes 1.18, one master, two agents.
pub const AKS_DUAL_STACK: &str = include_str!("../../examples/aks-dual-stack.json");

/// Its VNet: the same two subnets with an IPv6 prefix each, from the range for documentation.
pub const AKS_DUAL_STACK_VNET: &str = include_str!("../../examples/aks-dual-stack-vnet.json");

/// The order in which that cluster's nodes registered under kubenet.
pub const REGISTER: [&str; 3] = ["node-1", "node-0", "master-0"];

/// The eight digits in the node names of the cluster that these documents once built. They
/// follow from the DNS prefix, which the model leaves to its deployer.
pub const CLUSTER_ID: &str = "37464322";
