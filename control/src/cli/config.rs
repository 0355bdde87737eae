//! `tapline config`: writes a node's configuration from the plan, or checks one.
//!
//! In: the arguments. Out: a configuration or the schema on standard output; faults on standard
//! error. Never: writes a file, or asks the node.

use std::io::{self, Write};
use std::path::PathBuf;

use super::Exit;
use crate::config;
use crate::model::Source;
use crate::plan::{self, LoadOptions, Plugin};

const EXAMPLES: &str = "Examples:
  tapline config --model aks.json --vnet aks-vnet.json --node node-0 > tapline.json
  tapline config --model aks.json --vnet aks-vnet.json --plugin kubenet \\
      --register node-1,node-0,master-0 --node node-0
  tapline config --check /etc/tapline/tapline.json
  tapline config --schema > tapline.schema.json

Exit status:
  0  the configuration was written, or holds
  2  the input is at fault; every fault is on standard error, one on a line:
     FILE:LINE:COLUMN: JSON PATH: what is wrong";

/// Arguments of `tapline config`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("deed").required(true).args(["model", "check", "schema"]))]
pub struct ConfigArgs {
    /// Write a configuration from this API model of aks-engine.
    #[arg(long, value_name = "FILE", requires = "node")]
    model: Option<PathBuf>,

    /// The ARM template of the VNet; without it, the VNet that aks-engine would make.
    #[arg(long, value_name = "FILE", requires = "model")]
    vnet: Option<PathBuf>,

    /// The node to write for: node-0, master-0, or its name in Kubernetes.
    #[arg(long, value_name = "NAME", requires = "model")]
    node: Option<String>,

    /// The node's name in Kubernetes, where the plan does not know it.
    #[arg(long, value_name = "NAME", requires = "model")]
    hostname: Option<String>,

    /// For this plugin instead of the model's.
    #[arg(long, value_enum, requires = "model")]
    plugin: Option<Plugin>,

    /// The order in which nodes register, which is that of kubenet's pod CIDRs.
    #[arg(
        long,
        value_name = "NODE,...",
        value_delimiter = ',',
        requires = "model"
    )]
    register: Vec<String>,

    /// The subnet for a role: master, agent, or the name of a pool. May be repeated.
    #[arg(long, value_name = "ROLE=NAME", value_parser = super::plan::parse_subnet, requires = "model")]
    subnet: Vec<(String, String)>,

    /// A route table's ARM document. May be repeated.
    #[arg(long, value_name = "FILE", requires = "model")]
    route_table: Vec<PathBuf>,

    /// The eight digits in the names of the cluster's nodes.
    #[arg(long, value_name = "DIGITS", requires = "model")]
    cluster_id: Option<String>,

    /// Check this configuration, and say nothing if it holds.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,

    /// Print the JSON schema of configurations.
    #[arg(long)]
    schema: bool,
}

/// Runs `tapline config`.
#[must_use]
pub fn run(args: &ConfigArgs) -> Exit {
    let written = match (&args.check, &args.model) {
        (Some(file), _) => config::load(&Source::Path(file.clone()))
            .map(|_| String::new())
            .map_err(|faults| faults.to_string()),
        (None, Some(model)) => write(args, model),
        (None, None) => Ok(config::schema::text()),
    };
    match written {
        Ok(text) => {
            // A reader that has gone away wants no more.
            let _ = io::stdout().lock().write_all(text.as_bytes());
            Exit::Ok
        }
        Err(faults) => {
            eprintln!("{faults}");
            Exit::BadInput
        }
    }
}

fn write(args: &ConfigArgs, model: &std::path::Path) -> Result<String, String> {
    let options = LoadOptions {
        vnet: args.vnet.clone().map(Source::Path),
        plugin: args.plugin,
        register: args.register.clone(),
        subnets: args.subnet.clone(),
        route_tables: args.route_table.iter().cloned().map(Source::Path).collect(),
        cluster_id: args.cluster_id.clone(),
        ..LoadOptions::new(Source::Path(model.to_owned()))
    };
    let plan = plan::load(&options).map_err(|faults| faults.to_string())?;
    let name = args.node.as_deref().unwrap_or_default();
    let Some(node) = plan.node(name) else {
        let names: Vec<&str> = plan.nodes.iter().map(|node| node.name.as_str()).collect();
        return Err(format!(
            "--node: '{name}' is not in the plan; it has {}",
            names.join(", ")
        ));
    };
    if node.windows {
        return Err(format!(
            "--node: {name} runs Windows, which Tapline does not serve"
        ));
    }
    for warning in &plan.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(config::for_node(&plan, node, args.hostname.as_deref()))
}
