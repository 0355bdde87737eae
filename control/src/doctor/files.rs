//! Files of the node: CNI configurations, policy agents, other programs' state.
//!
//! In: the root of the node's file system. Out: findings. Never: writes, or reads without a bound.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::below;
use super::finding::Finding;
use crate::config::{NodeConfig, PolicyMode};

/// Where runtimes look for CNI configurations.
const CNI_FOLDER: &str = "/etc/cni/net.d";
/// A CNI configuration has a few hundred bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Files of one folder, and processes of a node, that are looked at.
const ENTRIES_MAX: usize = 8192;
/// The type of our own plugin.
const PLUGIN: &str = "tapline-cni";
/// Names of policy agents' processes, as the kernel keeps them: 15 bytes.
const AGENTS: [&str; 5] = [
    "azure-npm",
    "calico-felix",
    "calico-node",
    "cilium-agent",
    "antrea-agent",
];

/// The configurations that a runtime would take, and what is chained in ours.
pub(super) fn cni(root: &Path, config: &NodeConfig) -> Vec<Finding> {
    const NAME: &str = "cni";
    let folder = below(root, Path::new(CNI_FOLDER));
    let files = configurations(&folder);
    let Some((first, plugins)) = files.first() else {
        return vec![Finding::warn(
            NAME,
            format!("{CNI_FOLDER} has no configuration: the node is not ready for pods"),
            "start the daemon, which puts ours there; see docs/install.md",
        )];
    };
    let ours = files
        .iter()
        .find(|(_, plugins)| plugins.iter().any(|kind| kind == PLUGIN));
    let mut found = vec![match ours {
        None => Finding::warn(
            NAME,
            format!("none in {CNI_FOLDER} names {PLUGIN}; runtimes take {first}"),
            "start the daemon, which puts ours there; see docs/install.md",
        ),
        Some((name, _)) if name != first => Finding::bad(
            NAME,
            format!("runtimes take {first}, which comes before ours, {name}"),
            format!("move {CNI_FOLDER}/{first} away: runtimes take the first by name"),
        ),
        Some(_) => Finding::good(
            NAME,
            format!("runtimes take {first}: {}", plugins.join(", ")),
        ),
    }];
    if let Some((name, plugins)) = ours
        && plugins.iter().any(|kind| kind == "bandwidth")
    {
        let limits = match config.pods.bandwidth {
            true => "Tapline obeys the same annotations itself",
            false => "pods.bandwidth is false",
        };
        found.push(Finding::bad(
            "bandwidth",
            format!("{name} chains the bandwidth plugin, whose ingress qdisc takes the place of our clsact; {limits}"),
            format!("take {{\"type\": \"bandwidth\"}} out of {CNI_FOLDER}/{name}"),
        ));
    }
    found
}

/// Configurations by name, with the types of their plugins, in the order in which runtimes look.
fn configurations(folder: &Path) -> Vec<(String, Vec<String>)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .take(ENTRIES_MAX)
        .collect();
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let ends = file
            .extension()
            .and_then(|ends| ends.to_str())
            .unwrap_or_default();
        if !["conf", "conflist", "json"].contains(&ends) {
            continue;
        }
        let document: Value = serde_json::from_slice(&bounded(&file)).unwrap_or(Value::Null);
        let one = [document.clone()];
        let plugins = document["plugins"]
            .as_array()
            .map_or(&one[..], Vec::as_slice);
        let kinds = plugins.iter().filter_map(|plugin| plugin["type"].as_str());
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        found.push((name, kinds.map(str::to_owned).collect()));
    }
    found
}

fn bounded(file: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(opened) = File::open(file) {
        // What cannot be read to its end is no JSON, and is told as such.
        let _ = opened.take(FILE_BYTES_MAX).read_to_end(&mut bytes);
    }
    bytes
}

/// Whether an agent enforces policy here, and whether it would see the frames.
pub(super) fn policy(root: &Path, config: &NodeConfig) -> Finding {
    const NAME: &str = "policy";
    let entries = fs::read_dir(root.join("proc"))
        .into_iter()
        .flatten()
        .flatten();
    let names = entries.take(ENTRIES_MAX).filter_map(|entry| {
        let name = entry.file_name();
        let is_process = name.to_str()?.bytes().all(|b| b.is_ascii_digit());
        is_process.then(|| fs::read_to_string(entry.path().join("comm")).ok())?
    });
    let mut agents: Vec<String> = names
        .map(|name| name.trim().to_owned())
        .filter(|name| AGENTS.contains(&name.as_str()))
        .collect();
    agents.sort();
    agents.dedup();
    match (agents.is_empty(), config.policy) {
        (false, PolicyMode::None) => Finding::bad(
            NAME,
            format!(
                "{} runs here, and policy is \"none\": frames between pods pass it by",
                agents.join(", ")
            ),
            "set policy to \"auto\" and reload: tapline reload",
        ),
        (false, _) => Finding::good(
            NAME,
            format!(
                "{} runs here and sees every pod's frames",
                agents.join(", ")
            ),
        ),
        (true, PolicyMode::ViaHost) => Finding::good(
            NAME,
            "every pod's frames go through the kernel, though no agent was found",
        ),
        (true, PolicyMode::Auto) => Finding::warn(
            NAME,
            "no agent was found; until policy says otherwise pods' frames go through the kernel, \
             since an agent may start later: one TTL and some speed are lost",
            "if no agent will ever run on this node, set policy to \"none\"",
        ),
        (true, PolicyMode::None) => Finding::good(NAME, "no agent, as configured"),
    }
}

/// What other CNI plugins keep about pods that may still live.
pub(super) fn other_state(root: &Path, is_running: bool) -> Finding {
    const NAME: &str = "other_state";
    let mut held = Vec::new();
    for file in ["/var/run/azure-vnet.json", "/var/run/azure-vnet-ipam.json"] {
        if below(root, Path::new(file)).exists() {
            held.push(file.to_owned());
        }
    }
    let networks = below(root, Path::new("/var/lib/cni/networks"));
    for network in fs::read_dir(networks)
        .into_iter()
        .flatten()
        .flatten()
        .take(ENTRIES_MAX)
    {
        let leases = fs::read_dir(network.path())
            .into_iter()
            .flatten()
            .flatten()
            .take(ENTRIES_MAX);
        let is_address = |name: &str| name.parse::<std::net::IpAddr>().is_ok();
        let count = leases
            .filter(|lease| lease.file_name().to_str().is_some_and(is_address))
            .count();
        if count > 0 {
            let name = network.file_name().to_string_lossy().into_owned();
            held.push(format!(
                "/var/lib/cni/networks/{name} with {count} addresses"
            ));
        }
    }
    match (held.is_empty(), is_running) {
        (true, _) => Finding::good(NAME, "no other plugin keeps addresses"),
        (false, _) => Finding::warn(
            NAME,
            format!("other plugins still hold addresses: {}", held.join(", ")),
            "their pods live on the bridge: tapline adopt takes both over; if no such pod lives, \
             remove the files",
        ),
    }
}

/// Whether networkd would meddle with our devices.
pub(super) fn unmanaged(root: &Path, config: &NodeConfig) -> Finding {
    const NAME: &str = "networkd";
    let has = |path: &str| below(root, Path::new(path)).exists();
    if !has("/run/systemd/netif") {
        return Finding::good(NAME, "systemd-networkd does not run here");
    }
    const FILE: &str = "10-tapline.network";
    let folders = [
        "/etc/systemd/network",
        "/run/systemd/network",
        "/usr/lib/systemd/network",
        "/lib/systemd/network",
    ];
    if folders
        .iter()
        .any(|folder| has(&format!("{folder}/{FILE}")))
    {
        return Finding::good(NAME, format!("{FILE} marks our devices as unmanaged"));
    }
    Finding::warn(
        NAME,
        format!(
            "systemd-networkd runs, and nothing keeps it from {}: netplan matches devices by MAC, \
             and that of {} may be the NIC's",
            config.host_port.device, config.host_port.device
        ),
        format!("install {FILE} into /etc/systemd/network and run networkctl reload"),
    )
}
