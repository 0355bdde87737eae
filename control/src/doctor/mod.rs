//! `tapline doctor`'s knowledge: what of a node helps or hinders Tapline, and what to do about it.
//!
//! In: a configuration, the node's network namespace, and its file system. Out: a list of
//! [`Finding`]s, each that is not good with a next step. Never: changes anything: what has to be
//! tried is tried in namespaces that die at once.
//!
//! | file | room |
//! |---|---|
//! | `finding` | a finding, and how it is printed |
//! | `host` | the kernel, its settings, the process's rights |
//! | `network` | the uplink, MTUs, what is left over |
//! | `listeners` | what `tcpdump` at the host device will show |
//! | `files` | CNI configurations, policy agents, other programs' state |

mod files;
mod finding;
mod host;
mod listeners;
mod network;

use std::path::{Path, PathBuf};

pub use finding::{Finding, State, to_json, to_text};

use crate::api::client::Client;
use crate::config::NodeConfig;
use crate::daemon;
use crate::devices::{Netlink, Netns};
use crate::node::{self, Seen, Told};
use crate::plan::Plan;

/// What is examined.
#[derive(Debug)]
pub struct Patient<'a> {
    /// The configuration.
    pub config: &'a NodeConfig,
    /// The plan, where somebody has it: for what only Azure's documents say.
    pub plan: Option<&'a Plan>,
    /// The network namespace of the node; the calling thread is in it.
    pub namespace: &'a Netns,
    /// Where the node's file system begins: `/`.
    pub root: PathBuf,
}

/// Examines everything. What cannot be examined is said to be unknown.
#[must_use]
pub fn examine(patient: &Patient<'_>) -> Vec<Finding> {
    let config = patient.config;
    let mut found = host::kernel();
    found.push(host::rights(&patient.root));
    found.extend(host::facilities());
    let running = answers(config);
    let is_running = running.state == State::Good;
    found.push(running);
    match Netlink::open(patient.namespace) {
        Ok(net) => {
            found.extend(network::uplink(config, &net));
            found.extend(host::settings(patient.namespace, config));
            found.extend(truth(patient, &net));
            found.extend(network::leftovers(config, &net, is_running));
            found.push(listeners::finding(config, &net));
        }
        Err(why) => {
            let advice = "run the doctor on the node itself, as root";
            found.push(Finding::unknown("rtnetlink", why.to_string(), advice));
        }
    }
    found.push(host::br_netfilter(&patient.root));
    found.extend(files::cni(&patient.root, config));
    found.push(files::policy(&patient.root, config));
    found.push(files::other_state(&patient.root, is_running));
    found.push(files::unmanaged(&patient.root, config));
    found.push(route_table(config, patient.plan));
    found
}

fn answers(config: &NodeConfig) -> Finding {
    const NAME: &str = "daemon";
    let socket = &config.socket;
    match Client::new(socket).version() {
        Ok(version) => Finding::good(
            NAME,
            format!("{} answers at {}", version.version, socket.display()),
        ),
        Err(why) => Finding::warn(
            NAME,
            format!("does not answer: {why}"),
            "systemctl status tapline; journalctl -u tapline",
        ),
    }
}

/// The node's truth, and what the plan has of it.
fn truth(patient: &Patient<'_>, net: &Netlink) -> Vec<Finding> {
    let config = patient.config;
    let Ok(seen) = Seen::look(net, &config.uplink.device) else {
        // The missing uplink is a finding already.
        return Vec::new();
    };
    let nic = seen.mac.map(dataplane::addr::Station::mac);
    match node::learn(config, net, nic) {
        Ok(told) => of_truth(config, &seen, &told),
        Err(unknown) => vec![Finding::bad(
            "truth",
            unknown.to_string(),
            "until one of truth.sources answers, no pod is attached: see that 168.63.129.16 is \
             reached from the node (azure), or that the runtime has its pod CIDR (kubenet)",
        )],
    }
}

fn of_truth(config: &NodeConfig, seen: &Seen, told: &Told) -> Vec<Finding> {
    let pods: Vec<String> = told.truth.pods().iter().map(ToString::to_string).collect();
    let count: u64 = told
        .truth
        .pods()
        .iter()
        .map(|net| 1 << (32 - u32::from(net.prefix_len())))
        .sum();
    let mut found = vec![match count {
        0 => Finding::bad(
            "truth",
            format!("{} knows no address for pods", told.source),
            "give the NIC secondary addresses (ipAddressCount in the API model)",
        ),
        count => Finding::good(
            "truth",
            format!("{}: {count} addresses for pods", told.source),
        ),
    }];
    let fits = daemon::truth::assemble(config, seen, &told.truth);
    let fits = fits
        .and_then(|truth| daemon::node::spec(config, &truth).map_err(|unfit| unfit.to_string()));
    if let Err(why) = fits {
        let advice = "correct the configuration, or the device";
        found.push(Finding::bad("uplink_fits", why, advice));
    }
    let Some(expected) = &config.expected else {
        let advice =
            "write the configuration by tapline config, which puts what is planned under plan";
        found.push(Finding::unknown(
            "plan",
            "the configuration has no plan to compare with",
            advice,
        ));
        return found;
    };
    let differences = node::differences(expected, &told.truth, &seen.addresses);
    if differences.is_empty() {
        found.push(Finding::good(
            "plan",
            format!("agrees with the node: {}", pods.join(", ")),
        ));
    }
    for difference in differences {
        found.push(Finding::warn(
            "plan",
            difference.to_string(),
            "the node is right, and Tapline goes by it; plan again with the order in which the \
             nodes registered (--register) or with the addresses that Azure gave",
        ));
    }
    found
}

/// The route table of the node's subnet, of which only Azure's documents tell.
fn route_table(config: &NodeConfig, plan: Option<&Plan>) -> Finding {
    const NAME: &str = "route_table";
    const SHOW: &str =
        "az network vnet subnet show --query routeTable -g GROUP --vnet-name VNET -n SUBNET";
    if config.plugin == crate::plan::Plugin::Azure {
        return Finding::good(NAME, "none is needed: pods have addresses of the VNet");
    }
    let Some(plan) = plan else {
        let advice = format!("give the doctor --model and --vnet, or ask Azure: {SHOW}");
        return Finding::unknown(NAME, "a node cannot see it", advice);
    };
    let Some(node) = plan.node(&config.node) else {
        let advice = "is node in the configuration the name that the plan gives it?";
        return Finding::unknown(NAME, format!("{} is not in the plan", config.node), advice);
    };
    let subnet = plan
        .vnet
        .subnets
        .iter()
        .find(|subnet| subnet.name == node.subnet);
    match subnet {
        Some(subnet) if subnet.route_table_attached => {
            Finding::good(NAME, format!("the documents attach one to {}", subnet.name))
        }
        _ => Finding::warn(
            NAME,
            format!("the documents attach none to subnet {}", node.subnet),
            "without it no other node's pods are reached: az network vnet subnet update \
             --route-table TABLE -g GROUP --vnet-name VNET -n SUBNET",
        ),
    }
}

/// A file of the node.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
