//! Which cluster: the arguments that `tapline lab` and `tapline trace` share.
//!
//! In: the arguments. Out: what to plan, and the addresses that pods should have.
//! Never: plans, or reads a file.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::model::{Source, examples};
use crate::plan::{LoadOptions, Plan, Plugin};

/// The cluster that the lab builds and that a trace goes through.
#[derive(clap::Args, Debug)]
pub struct ClusterArgs {
    /// The API model; without it, the built-in example.
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,

    /// The VNet's ARM template; goes with --model.
    #[arg(long, value_name = "FILE", requires = "model")]
    pub vnet: Option<PathBuf>,

    /// This mode only; without it the model's.
    #[arg(long, value_enum)]
    pub plugin: Option<Plugin>,

    /// IPv4 and IPv6: the built-in dual-stack example, or a model that must enable
    /// enableIPv6DualStack. Under kubenet only.
    #[arg(long)]
    pub dual_stack: bool,

    /// The order in which nodes register, which is that of kubenet's pod CIDRs.
    #[arg(
        long,
        value_name = "NODE,...",
        value_delimiter = ',',
        requires = "model"
    )]
    pub register: Vec<String>,

    /// The subnet for a role: master, agent, or the name of a pool. May be repeated.
    #[arg(long, value_name = "ROLE=NAME", value_parser = super::plan::parse_subnet, requires = "model")]
    pub subnet: Vec<(String, String)>,

    /// A route table's ARM document, for the fabric and the nodes to obey. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub route_table: Vec<PathBuf>,

    /// Leave the route table off the subnets, as a custom VNet has it at first.
    #[arg(long)]
    pub detach_route_table: bool,
}

impl ClusterArgs {
    /// What to plan, for the given mode or the model's own.
    #[must_use]
    pub fn options(&self, plugin: Option<Plugin>) -> LoadOptions {
        let documents = match &self.model {
            Some(model) => LoadOptions {
                vnet: self.vnet.clone().map(Source::Path),
                plugin,
                register: self.register.clone(),
                subnets: self.subnet.clone(),
                dual_stack: self.dual_stack,
                ..LoadOptions::new(Source::Path(model.clone()))
            },
            None if self.dual_stack => LoadOptions {
                plugin,
                register: examples::REGISTER.map(String::from).to_vec(),
                ..LoadOptions::built_in_dual_stack()
            },
            // The order in which the seed's nodes registered, which its pod CIDRs give away.
            None => LoadOptions {
                vnet: Some(Source::BuiltIn {
                    name: "aks-vnet.json",
                    text: examples::AKS_VNET,
                }),
                plugin,
                cluster_id: Some(examples::CLUSTER_ID.to_owned()),
                register: examples::REGISTER.map(String::from).to_vec(),
                ..LoadOptions::new(Source::BuiltIn {
                    name: "aks.json",
                    text: examples::AKS,
                })
            },
        };
        let tables = self.route_table.iter().cloned().map(Source::Path);
        LoadOptions {
            route_tables: tables.collect(),
            ..documents
        }
    }

    /// The seed's addresses of pods, where the cluster is the built-in example.
    #[must_use]
    pub fn addresses(&self, plan: &Plan) -> BTreeMap<String, Ipv4Addr> {
        if self.model.is_some() {
            return BTreeMap::new();
        }
        let seed = match plan.plugin {
            Plugin::Azure => [("pod-a", [10, 20, 0, 31]), ("pod-c", [10, 20, 0, 43])],
            Plugin::Kubenet => [("pod-a", [10, 244, 1, 6]), ("pod-c", [10, 244, 0, 7])],
        };
        seed.into_iter()
            .map(|(name, address)| (name.to_owned(), address.into()))
            .collect()
    }
}
