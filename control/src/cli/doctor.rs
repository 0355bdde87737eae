//! `tapline doctor`: examines the node, and says what to do.
//!
//! In: the arguments. Out: findings on standard output. Never: changes anything on the node.

use std::path::PathBuf;

use super::Exit;
use crate::config::{self, CONFIG_PATH};
use crate::devices::Netns;
use crate::doctor::{self, Patient, State};
use crate::model::Source;
use crate::plan::{self, LoadOptions, Plan};

const EXAMPLES: &str = "Examples:
  tapline doctor                                     # on a node, as root
  tapline doctor --model aks.json --vnet aks-vnet.json --route-table rt.json
  tapline doctor --json | jq '.findings[] | select(.state != \"good\")'

Exit status:
  0  nothing is bad; there may be warnings
  1  something is bad, and nothing works until somebody acts
  2  the configuration or a document is at fault; nothing was examined
  3  this machine lacks something that the doctor needs";

/// Arguments of `tapline doctor`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct DoctorArgs {
    /// The node's configuration.
    #[arg(long, value_name = "FILE", default_value = CONFIG_PATH)]
    config: PathBuf,

    /// The API model, for what only the documents tell.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,

    /// The VNet's ARM template; goes with --model.
    #[arg(long, value_name = "FILE", requires = "model")]
    vnet: Option<PathBuf>,

    /// A route table's ARM document; goes with --model. May be repeated.
    #[arg(long, value_name = "FILE", requires = "model")]
    route_table: Vec<PathBuf>,

    /// The eight digits in the names of the cluster's nodes; goes with --model.
    #[arg(long, value_name = "DIGITS", requires = "model")]
    cluster_id: Option<String>,

    /// Print the findings as JSON, alone, on standard output.
    #[arg(long)]
    json: bool,
}

/// Runs `tapline doctor`.
#[must_use]
pub fn run(args: &DoctorArgs) -> Exit {
    let read = config::load(&Source::Path(args.config.clone()));
    let read = read.and_then(|config| Ok((plan_of(args, &config)?, config)));
    let (plan, config) = match read {
        Ok(read) => read,
        Err(faults) => {
            eprintln!("{faults}");
            return Exit::BadInput;
        }
    };
    let namespace = match Netns::current(&config.node) {
        Ok(namespace) => namespace,
        Err(why) => {
            eprintln!("the network namespace of this process: {why}");
            return Exit::Unsupported;
        }
    };
    let findings = doctor::examine(&Patient {
        config: &config,
        plan: plan.as_ref(),
        namespace: &namespace,
        root: "/".into(),
    });
    if args.json {
        println!("{:#}", doctor::to_json(&findings));
    } else {
        print!("{}", doctor::to_text(&findings));
    }
    match findings.iter().any(|finding| finding.state == State::Bad) {
        true => Exit::CheckFailed,
        false => Exit::Ok,
    }
}

fn plan_of(
    args: &DoctorArgs,
    config: &config::NodeConfig,
) -> Result<Option<Plan>, crate::model::Faults> {
    let Some(model) = &args.model else {
        return Ok(None);
    };
    let options = LoadOptions {
        vnet: args.vnet.clone().map(Source::Path),
        plugin: Some(config.plugin),
        route_tables: args.route_table.iter().cloned().map(Source::Path).collect(),
        cluster_id: args.cluster_id.clone(),
        ..LoadOptions::new(Source::Path(model.clone()))
    };
    plan::load(&options).map(Some)
}
