//! `tapline plan`: says what follows from an API model and a VNet's template.
//!
//! In: the arguments. Out: a table or JSON on standard output, warnings and faults on standard
//! error. Never: prints to standard output when there is a fault.

use std::io::{self, Write};
use std::path::PathBuf;

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::{Exit, routes};
use crate::model::Source;
use crate::plan::{self, LoadOptions, Node, Plan, Plugin, ROUTE_LIMIT};

const EXAMPLES: &str = "Examples:
  tapline plan --model aks.json --vnet aks-vnet.json
  tapline plan --model aks.json --vnet aks-vnet.json --plugin kubenet \\
      --register node-1,node-0,master-0
  tapline plan --model aks.json                  # the VNet that aks-engine would make
  tapline plan --model aks.json --vnet hub.json --subnet master=core --subnet agent=pods
  tapline plan --model aks.json --json | jq '.nodes[].primary_ip'
  tapline plan --model aks.json --vnet aks-vnet.json --plugin kubenet \\
      --route-table rt.json --effective-routes node-0
  tapline plan --dual-stack                      # the built-in dual-stack example

Exit status:
  0  the plan holds
  2  the input is at fault; every fault is on standard error, one on a line:
     FILE:LINE:COLUMN: JSON PATH: what is wrong";

/// Arguments of `tapline plan`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct PlanArgs {
    /// The API model of aks-engine (apiVersion vlabs).
    #[arg(long, value_name = "FILE", required_unless_present = "dual_stack")]
    model: Option<PathBuf>,

    /// The ARM template of the VNet; without it, the VNet that aks-engine would make.
    #[arg(long, value_name = "FILE", requires = "model")]
    vnet: Option<PathBuf>,

    /// Plan IPv4 and IPv6: for the built-in dual-stack example, or for a model that must enable
    /// enableIPv6DualStack.
    #[arg(long)]
    dual_stack: bool,

    /// Plan for this plugin instead of the model's.
    #[arg(long, value_enum)]
    plugin: Option<Plugin>,

    /// The order in which nodes register, which is that of kubenet's pod CIDRs. Nodes not named
    /// follow: agents, then masters.
    #[arg(long, value_name = "NODE,...", value_delimiter = ',')]
    register: Vec<String>,

    /// The subnet for a role: master, agent, or the name of a pool. May be repeated.
    #[arg(long, value_name = "ROLE=NAME", value_parser = parse_subnet)]
    subnet: Vec<(String, String)>,

    /// A route table: an ARM template or resource of type Microsoft.Network/routeTables, or what
    /// `az network route-table show` prints. May be repeated. One that the VNet's template declares
    /// beside it needs no option.
    #[arg(long, value_name = "FILE")]
    route_table: Vec<PathBuf>,

    /// What `az network nic show-effective-route-table` prints of a NIC in the VNet: for the routes
    /// that only Azure knows, a gateway's, into peers, and of service endpoints.
    #[arg(long, value_name = "FILE")]
    azure_routes: Option<PathBuf>,

    /// Show the effective routes of this node, or of every node: those that Azure takes, and those
    /// that lost, with the winner.
    #[arg(long, value_name = "NODE", num_args = 0..=1)]
    effective_routes: Option<Option<String>>,

    /// How many routes a route table holds.
    #[arg(long, value_name = "N", default_value_t = ROUTE_LIMIT)]
    route_limit: usize,

    /// The eight digits in the names of the cluster's nodes, to print those names.
    #[arg(long, value_name = "DIGITS")]
    cluster_id: Option<String>,

    /// Print the plan as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn parse_subnet(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((role, name)) if !role.is_empty() && !name.is_empty() => {
            Ok((role.to_owned(), name.to_owned()))
        }
        _ => Err("expected ROLE=NAME, such as agent=agent-subnet".to_owned()),
    }
}

/// Runs `tapline plan`.
#[must_use]
pub fn run(args: &PlanArgs) -> Exit {
    let documents = match &args.model {
        Some(model) => LoadOptions {
            vnet: args.vnet.clone().map(Source::Path),
            ..LoadOptions::new(Source::Path(model.clone()))
        },
        None => LoadOptions::built_in_dual_stack(),
    };
    let options = LoadOptions {
        plugin: args.plugin,
        register: args.register.clone(),
        subnets: args.subnet.clone(),
        route_tables: args.route_table.iter().cloned().map(Source::Path).collect(),
        azure_routes: args.azure_routes.clone().map(Source::Path),
        route_limit: args.route_limit,
        cluster_id: args.cluster_id.clone().or(documents.cluster_id),
        dual_stack: args.dual_stack,
        ..documents
    };
    let plan = match plan::load(&options) {
        Ok(plan) => plan,
        Err(faults) => {
            write_lines(io::stderr().lock(), &[faults.to_string()]);
            return Exit::BadInput;
        }
    };
    let wanted = args.effective_routes.as_ref();
    let nodes = wanted.map(|name| routes::nodes(&plan, name.as_deref()));
    let nodes = match nodes.transpose() {
        Ok(nodes) => nodes,
        Err(message) => {
            write_lines(io::stderr().lock(), &[message]);
            return Exit::BadInput;
        }
    };
    print(&plan, nodes.as_deref(), args.json);
    Exit::Ok
}

/// The plan, and the effective routes of `nodes` where they were asked for.
fn print(plan: &Plan, nodes: Option<&[&Node]>, as_json: bool) {
    if as_json {
        let mut tree = to_json(plan);
        if let Some(nodes) = nodes {
            tree["effective_routes"] = routes::to_json(plan, nodes);
        }
        let text = serde_json::to_string_pretty(&tree)
            .expect("a tree of texts and numbers is always JSON");
        write_lines(io::stdout().lock(), &[text]);
    } else {
        let mut text = to_text(plan);
        if let Some(nodes) = nodes {
            text.push_str("\n\n");
            text.push_str(&routes::to_text(plan, nodes));
        }
        write_lines(io::stdout().lock(), &[text]);
        let warnings: Vec<String> = plan
            .warnings
            .iter()
            .map(|warning| format!("warning: {warning}"))
            .collect();
        write_lines(io::stderr().lock(), &warnings);
    }
}

/// Writes lines to a stream. A reader that has gone away wants no more of them.
fn write_lines(mut stream: impl Write, lines: &[String]) {
    for line in lines {
        if writeln!(stream, "{line}").is_err() {
            return;
        }
    }
}

/// The plan as the JSON that other programs read.
#[must_use]
pub fn to_json(plan: &Plan) -> Value {
    let texts = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
    let warnings: Vec<String> = plan.warnings.iter().map(ToString::to_string).collect();
    json!({
        "network_plugin": plan.plugin.to_string(),
        "network_mode": plan.network_mode.map(|mode| mode.to_string()),
        "nodes": plan.nodes.iter().map(node_json).collect::<Vec<_>>(),
        "routes": plan.routes.iter().map(route_json).collect::<Vec<_>>(),
        "service_cidr": texts(&plan.service_cidrs).join(","),
        "cluster_subnet": texts(&plan.cluster_subnets).join(","),
        "non_masquerade": texts(&plan.non_masquerade),
        "via_host": texts(&plan.via_host),
        "max_pods": plan.max_pods,
        "dual_stack": plan.dual_stack,
        "ip_forwarding": plan.ip_forwarding,
        "api_server": plan.api_server,
        "vnet": {
            "name": plan.vnet.name,
            "prefixes": plan.vnet.prefixes,
            "peers": plan.vnet.peers,
            "learned": plan.vnet.learned,
            "service_endpoints": plan.vnet.endpoints,
            "subnets": plan.vnet.subnets.iter().map(|subnet| json!({
                "name": subnet.name,
                "prefix": subnet.prefix,
                "prefix_v6": subnet.prefix_v6,
                "service_endpoints": subnet.service_endpoints,
                "route_table_attached": subnet.route_table_attached,
                "route_table": plan.table_of(&subnet.name).map(|table| &table.name),
            })).collect::<Vec<_>>(),
        },
        "warnings": warnings,
    })
}

fn node_json(node: &Node) -> Value {
    json!({
        "name": node.name,
        "hostname": node.hostname,
        "role": node.role.to_string(),
        "pool": node.pool,
        "subnet": node.subnet,
        "subnet_prefix": node.subnet_prefix,
        "primary_ip": node.primary_ip,
        "subnet_prefix_v6": node.subnet_prefix_v6,
        "primary_ip_v6": node.primary_ip_v6,
        "pod_ips": node.pod_ips.as_ref().map(|pods| json!({
            "first": pods.first,
            "last": pods.last,
            "count": pods.count,
            "skipped": pods.skipped,
        })),
        "pod_cidr": node.pod_cidr,
        "pod_cidr_v6": node.pod_cidr_v6,
        "max_pods": node.max_pods,
        "windows": node.windows,
        "mtu": node.mtu,
    })
}

fn route_json(route: &plan::Route) -> Value {
    json!({
        "name": route.name,
        "prefix": route.prefix,
        "next_hop_type": route.next_hop_type.to_string(),
        "next_hop_ip": route.next_hop_ip,
    })
}

/// The plan as a table for people.
#[must_use]
pub fn to_text(plan: &Plan) -> String {
    let mode = plan
        .network_mode
        .map(|mode| format!(", {mode} mode"))
        .unwrap_or_default();
    let joined = |nets: Vec<String>| nets.join(", ");
    let mut text = format!(
        "Plugin {}{mode}; VNet {} ({}); services {}",
        plan.plugin,
        plan.vnet.name,
        joined(plan.vnet.prefixes.iter().map(ToString::to_string).collect()),
        joined(plan.service_cidrs.iter().map(ToString::to_string).collect()),
    );
    if plan.plugin == Plugin::Kubenet {
        let pods = plan
            .cluster_subnets
            .iter()
            .map(ToString::to_string)
            .collect();
        text.push_str(&format!("; pods {}", joined(pods)));
    }
    text.push_str("\n\n");
    text.push_str(&node_table(plan));
    if !plan.routes.is_empty() {
        text.push_str("\n\n");
        text.push_str(&route_table(plan));
    }
    text
}

fn node_table(plan: &Plan) -> String {
    let mut table = new_table(&["NODE", "HOSTNAME", "ROLE", "SUBNET", "ADDRESS", "PODS"]);
    for node in &plan.nodes {
        table.add_row([
            node.name.clone(),
            node.hostname.clone().unwrap_or_else(|| "-".to_owned()),
            node.role.to_string(),
            format!(
                "{} ({})",
                node.subnet,
                both(node.subnet_prefix, node.subnet_prefix_v6)
            ),
            both(node.primary_ip, node.primary_ip_v6),
            pods_of(node),
        ]);
    }
    trimmed(&table)
}

/// What a node has of IPv4, and of IPv6 where it has it.
fn both(v4: impl ToString, v6: Option<impl ToString>) -> String {
    let v6 = v6.map_or_else(String::new, |v6| format!(", {}", v6.to_string()));
    v4.to_string() + &v6
}

fn pods_of(node: &Node) -> String {
    if let Some(pods) = &node.pod_ips {
        let but = match pods.skipped.len() {
            0 => String::new(),
            _ => {
                let skipped: Vec<String> = pods.skipped.iter().map(ToString::to_string).collect();
                format!(", without {}", skipped.join(" "))
            }
        };
        let v4 = format!("{} - {} ({}{but})", pods.first, pods.last, pods.count);
        return both(v4, node.pod_cidr_v6);
    }
    let cidrs: Vec<String> = node
        .pod_cidr
        .map(|cidr| cidr.to_string())
        .into_iter()
        .chain(node.pod_cidr_v6.map(|cidr| cidr.to_string()))
        .collect();
    if cidrs.is_empty() {
        "-".to_owned()
    } else {
        cidrs.join(", ")
    }
}

fn route_table(plan: &Plan) -> String {
    let mut table = new_table(&["ROUTE", "PREFIX", "NEXT HOP", "TYPE"]);
    for route in &plan.routes {
        table.add_row([
            route.name.clone(),
            route.prefix.to_string(),
            route
                .next_hop_ip
                .map_or_else(|| "-".to_owned(), |ip| ip.to_string()),
            route.next_hop_type.to_string(),
        ]);
    }
    trimmed(&table)
}

pub(super) fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.to_vec());
    table
}

/// A table without the spaces that would end its lines.
pub(super) fn trimmed(table: &Table) -> String {
    let lines: Vec<String> = table
        .to_string()
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}
