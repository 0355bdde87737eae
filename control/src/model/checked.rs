//! The API model once it holds: every value means something, and defaults are filled in.
//!
//! In: the raw model and the plugin asked for. Out: a `Model`, or faults in the report.
//! Never: leaves a value for the plan to check again. Defaults are those of 0.43.3.

use std::net::{IpAddr, Ipv4Addr};
use std::num::ParseIntError;

use ipnet::IpNet;

use super::cidr::{parse_cidr, parse_ip};
use super::fault::{Place, Placed, Report};
use super::profiles::{self, NIC_ADDRESSES_MAX, SCALE_SET};
use super::raw::{RawMaster, RawModel, RawPool, is_set, spelled};
use super::rules::{self, Chosen};
use super::text::Settings;
use crate::plan::Plugin;

/// How pods reach the NIC under the azure plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// Through the bridge `azure0`: what Tapline takes the place of.
    Bridge,
    /// Through routes of the host, without a bridge.
    Transparent,
}

impl std::fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NetworkMode::Bridge => "bridge",
            NetworkMode::Transparent => "transparent",
        })
    }
}

/// Who enforces network policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// azure-npm.
    Azure,
    /// Calico.
    Calico,
    /// Antrea, beside another plugin.
    Antrea,
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Policy::Azure => "azure",
            Policy::Calico => "calico",
            Policy::Antrea => "antrea",
        })
    }
}

/// The id of a subnet in Azure, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetId {
    /// The subscription.
    pub subscription: String,
    /// The resource group.
    pub resource_group: String,
    /// The VNet's name.
    pub vnet: String,
    /// The subnet's name.
    pub subnet: String,
}

impl SubnetId {
    /// Takes an id apart as aks-engine's expression does: case counts, and the dot of
    /// `Microsoft.Network` stands for any character.
    #[must_use]
    pub fn parse(text: &str) -> Option<SubnetId> {
        let parts: Vec<&str> = text.split('/').collect();
        let [
            "",
            "subscriptions",
            subscription,
            "resourceGroups",
            group,
            "providers",
            provider,
            "virtualNetworks",
            vnet,
            "subnets",
            subnet,
        ] = parts[..]
        else {
            return None;
        };
        let dot = provider
            .strip_prefix("Microsoft")?
            .strip_suffix("Network")?;
        (dot.chars().count() == 1 && dot != "\n").then(|| SubnetId {
            subscription: subscription.to_owned(),
            resource_group: group.to_owned(),
            vnet: vnet.to_owned(),
            subnet: subnet.to_owned(),
        })
    }

    /// Whether two ids name subnets of one VNet, compared as aks-engine does: to the letter.
    #[must_use]
    pub fn same_vnet(&self, other: &SubnetId) -> bool {
        self.subscription == other.subscription
            && self.resource_group == other.resource_group
            && self.vnet == other.vnet
    }
}

/// A model that aks-engine accepts and that Tapline can plan for.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) plugin: Plugin,
    pub(crate) policy: Option<Placed<Policy>>,
    /// The mode, where the document names one, and where it stands or should.
    pub(crate) mode: Placed<Option<NetworkMode>>,
    pub(crate) cluster_subnets: Vec<Placed<IpNet>>,
    pub(crate) service_cidrs: Vec<Placed<IpNet>>,
    /// Docker's own bridge, where Docker runs the containers.
    pub(crate) docker_bridge: Option<DockerBridge>,
    /// The length of an IPv4 pod CIDR.
    pub(crate) node_mask: Placed<u8>,
    pub(crate) max_pods: u32,
    pub(crate) masters: Masters,
    pub(crate) pools: Vec<Pool>,
    pub(crate) pools_place: Place,
    pub(crate) mtu: u16,
    /// Whether dual stack is enabled, and where the document says so or could.
    pub(crate) dual_stack: Placed<bool>,
    pub(crate) ipv6_only: bool,
    pub(crate) azure_stack: bool,
}

impl Model {
    /// Whether aks-engine makes a route table: under azure only in dual stack, for IPv6 pods.
    pub(crate) fn requires_route_table(&self) -> bool {
        self.plugin == Plugin::Kubenet || self.dual_stack.value
    }
}

/// Docker's bridge, and whether the document asks for it.
#[derive(Clone, Debug)]
pub(crate) struct DockerBridge {
    pub(crate) net: Placed<IpNet>,
    pub(crate) written: bool,
}

/// The master profile.
#[derive(Clone, Debug)]
pub struct Masters {
    pub(crate) place: Place,
    pub(crate) count: u32,
    pub(crate) scale_set: bool,
    pub(crate) subnet: Option<Placed<SubnetId>>,
    pub(crate) first_static: Option<Placed<Ipv4Addr>>,
    pub(crate) vnet_cidr: Option<Placed<IpNet>>,
    pub(crate) per_node: PerNode,
}

/// An agent pool.
#[derive(Clone, Debug)]
pub struct Pool {
    pub(crate) place: Place,
    pub(crate) name: String,
    pub(crate) count: Placed<u32>,
    pub(crate) windows: bool,
    pub(crate) scale_set: bool,
    pub(crate) scale_set_name: Option<String>,
    pub(crate) subnet: Option<Placed<SubnetId>>,
    pub(crate) per_node: PerNode,
}

/// What each node of a profile takes.
#[derive(Clone, Debug)]
pub(crate) struct PerNode {
    pub(crate) max_pods: u32,
    /// The addresses of a NIC: the node's own, and under azure one for each pod.
    pub(crate) addresses: u32,
}

/// Judges the raw model, and says what it means.
pub(crate) fn check(raw: &RawModel, plugin: Option<Plugin>, report: &mut Report) -> Option<Model> {
    let chosen = Chosen::new(raw, plugin, report);
    rules::check(raw, &chosen, report);
    profiles::check(raw, &chosen, report);
    build(raw, &chosen, report)
}

/// The plugin that a plugin and a policy as typed amount to. One that Tapline does not serve
/// has had its fault; the rest of the document is still read as if it were azure.
fn plugin_of(chosen: &Chosen) -> Plugin {
    match (chosen.plugin.as_str(), chosen.policy.as_str()) {
        ("kubenet", _) | ("", "none") => Plugin::Kubenet,
        _ => Plugin::Azure,
    }
}

/// The policy in force: with no plugin named, `azure` and `none` only chose the plugin.
fn policy_of(raw: &RawModel, chosen: &Chosen) -> Option<Placed<Policy>> {
    let policy = match (chosen.plugin.as_str(), chosen.policy.as_str()) {
        ("azure", "azure") => Policy::Azure,
        (_, "calico") => Policy::Calico,
        (_, "antrea") => Policy::Antrea,
        _ => return None,
    };
    raw.kubernetes
        .policy
        .as_ref()
        .map(|written| written.with(policy))
}

fn build(raw: &RawModel, chosen: &Chosen, report: &mut Report) -> Option<Model> {
    let plugin = plugin_of(chosen);
    let config = &raw.kubernetes;
    check_node_mask_v6(raw, report);
    let node_mask = node_mask(raw, report);
    let shared = max_pods(&config.kubelet, report);
    let max_pods = shared
        .as_ref()
        .map_or(default_max_pods(plugin), |pods| pods.value);
    let masters = raw
        .master
        .as_ref()
        .and_then(|master| build_masters(master, plugin, max_pods, report));
    let pools: Vec<Option<Pool>> = raw
        .pools
        .iter()
        .map(|pool| build_pool(pool, plugin, max_pods, report))
        .collect();
    let mode = match config.mode.as_ref().filter(|_| chosen.mode.is_some()) {
        Some(mode) if mode.value == "transparent" => mode.with(Some(NetworkMode::Transparent)),
        Some(mode) => mode.with(Some(NetworkMode::Bridge)),
        None => Placed::new(None, config.place.child("networkMode")),
    };
    Some(Model {
        plugin,
        policy: policy_of(raw, chosen),
        mode,
        cluster_subnets: cluster_subnets(raw, plugin)?,
        service_cidrs: service_cidrs(raw)?,
        docker_bridge: docker_bridge(raw),
        node_mask: node_mask?,
        max_pods,
        masters: masters?,
        pools: pools.into_iter().collect::<Option<_>>()?,
        pools_place: raw.pools_place.clone(),
        mtu: chosen
            .eth0_mtu
            .as_ref()
            .map_or(1500, |mtu| if mtu.value == 3900 { 3900 } else { 1500 }),
        dual_stack: raw
            .dual_stack
            .clone()
            .unwrap_or_else(|| Placed::new(false, raw.dual_stack_place.clone())),
        ipv6_only: is_set(&raw.ipv6_only),
        azure_stack: raw.azure_stack,
    })
}

fn default_max_pods(plugin: Plugin) -> u32 {
    match plugin {
        Plugin::Azure => 30,
        Plugin::Kubenet => 110,
    }
}

/// `--max-pods` of a kubelet. aks-engine lets anything pass and counts nonsense as zero.
fn max_pods(kubelet: &Settings, report: &mut Report) -> Option<Placed<u32>> {
    let setting = kubelet.get("--max-pods")?;
    let parsed: Result<u32, ParseIntError> = setting.value.parse();
    match parsed {
        Ok(pods) if pods > 0 => Some(setting.with(pods)),
        _ => {
            let message = format!(
                "--max-pods '{}' is not a positive whole number",
                setting.value
            );
            report.fault(&setting.place, message);
            None
        }
    }
}

/// The length of a node's pod CIDR: 24, unless the controller manager is told another.
fn node_mask(raw: &RawModel, report: &mut Report) -> Option<Placed<u8>> {
    let manager = &raw.kubernetes.controller_manager;
    let setting = manager
        .get("--node-cidr-mask-size-ipv4")
        .or_else(|| manager.get("--node-cidr-mask-size"));
    let Some(setting) = setting else {
        return Some(Placed::new(24, raw.kubernetes.place.clone()));
    };
    match setting.value.parse() {
        Ok(length @ 8..=30) => Some(setting.with(length)),
        _ => {
            let message = format!(
                "a pod CIDR of length '{}' is not in the range [8,30]",
                setting.value
            );
            report.fault(&setting.place, message);
            None
        }
    }
}

/// An IPv6 pod CIDR is a /64, as Kubernetes has it unless the controller manager is told another.
fn check_node_mask_v6(raw: &RawModel, report: &mut Report) {
    let manager = &raw.kubernetes.controller_manager;
    let Some(setting) = manager.get("--node-cidr-mask-size-ipv6") else {
        return;
    };
    if setting.value.parse() != Ok(64_u8) {
        let message = format!(
            "Tapline plans IPv6 pod CIDRs of length 64 only, and not of '{}'",
            setting.value
        );
        report.fault(&setting.place, message);
    }
}

fn per_node(
    kubelet: &Settings,
    written: Option<&Placed<i64>>,
    place: &Place,
    plugin: Plugin,
    shared: u32,
    report: &mut Report,
) -> Option<PerNode> {
    let own = max_pods(kubelet, report);
    let max_pods = own.as_ref().map_or(shared, |pods| pods.value);
    // Zero is how Go spells a number that was left out.
    if let Some(count) = written.filter(|count| count.value != 0) {
        return Some(PerNode {
            max_pods,
            addresses: u32::try_from(count.value).ok()?,
        });
    }
    let addresses = match plugin {
        Plugin::Azure => u64::from(max_pods) + 1,
        Plugin::Kubenet => 1,
    };
    if addresses > NIC_ADDRESSES_MAX.unsigned_abs() {
        let message = format!(
            "{max_pods} pods and the node itself need {addresses} addresses; a NIC holds \
             {NIC_ADDRESSES_MAX}"
        );
        report.fault(own.as_ref().map_or(place, |own| &own.place), message);
        return None;
    }
    Some(PerNode {
        max_pods,
        addresses: u32::try_from(addresses).ok()?,
    })
}

fn build_masters(
    raw: &RawMaster,
    plugin: Plugin,
    shared_max_pods: u32,
    report: &mut Report,
) -> Option<Masters> {
    let per_node = per_node(
        &raw.kubelet,
        raw.address_count.as_ref(),
        &raw.place,
        plugin,
        shared_max_pods,
        report,
    );
    let first_static = raw
        .first_static
        .as_ref()
        .and_then(|text| match parse_ip(&text.value)? {
            IpAddr::V4(address) => Some(text.with(address)),
            IpAddr::V6(_) => None,
        });
    Some(Masters {
        place: raw.place.clone(),
        count: u32::try_from(raw.count.as_ref()?.value).ok()?,
        scale_set: spelled(&raw.availability) == SCALE_SET,
        subnet: subnet_id(raw.subnet_id.as_ref()),
        first_static,
        vnet_cidr: raw
            .vnet_cidr
            .as_ref()
            .and_then(|text| Some(text.with(parse_cidr(&text.value)?.trunc()))),
        per_node: per_node?,
    })
}

fn build_pool(
    raw: &RawPool,
    plugin: Plugin,
    shared_max_pods: u32,
    report: &mut Report,
) -> Option<Pool> {
    let per_node = per_node(
        &raw.kubelet,
        raw.address_count.as_ref(),
        &raw.place,
        plugin,
        shared_max_pods,
        report,
    );
    let count = raw.count.as_ref()?;
    Some(Pool {
        place: raw.place.clone(),
        name: raw.name.as_ref()?.value.clone(),
        count: count.with(u32::try_from(count.value).ok()?),
        windows: spelled(&raw.os_type) == "Windows",
        scale_set: ["", SCALE_SET].contains(&spelled(&raw.availability)),
        scale_set_name: raw.scale_set_name.as_ref().map(|name| name.value.clone()),
        subnet: subnet_id(raw.subnet_id.as_ref()),
        per_node: per_node?,
    })
}

fn subnet_id(text: Option<&Placed<String>>) -> Option<Placed<SubnetId>> {
    let text = text?;
    Some(text.with(SubnetId::parse(&text.value)?))
}

/// The prefixes of a list as typed, or of the defaults for the families in use.
fn prefixes(
    written: Option<&Placed<String>>,
    place: Place,
    defaults: [&str; 2],
    raw: &RawModel,
) -> Option<Vec<Placed<IpNet>>> {
    let read = |text: &str| parse_cidr(text).map(|net| net.trunc());
    if let Some(written) = written {
        return written
            .value
            .split(',')
            .map(|part| Some(written.with(read(part)?)))
            .collect::<Option<Vec<_>>>()
            .map(|mut nets| {
                // aks-engine adds the second family where the document names one only.
                if is_set(&raw.dual_stack) && nets.len() == 1 {
                    nets.extend(read(defaults[1]).map(|net| written.with(net)));
                }
                nets
            });
    }
    let [first, second] = defaults;
    let chosen: &[&str] = match (is_set(&raw.dual_stack), is_set(&raw.ipv6_only)) {
        (true, _) => &[first, second],
        (false, true) => &[second],
        (false, false) => &[first],
    };
    chosen
        .iter()
        .map(|text| Some(Placed::new(read(text)?, place.clone())))
        .collect()
}

fn cluster_subnets(raw: &RawModel, plugin: Plugin) -> Option<Vec<Placed<IpNet>>> {
    let config = &raw.kubernetes;
    let first = match plugin {
        Plugin::Azure => "10.240.0.0/12",
        Plugin::Kubenet => "10.244.0.0/16",
    };
    let place = config.place.child("clusterSubnet");
    prefixes(
        config.cluster_subnet.as_ref(),
        place,
        [first, "fc00::/48"],
        raw,
    )
}

fn service_cidrs(raw: &RawModel) -> Option<Vec<Placed<IpNet>>> {
    let config = &raw.kubernetes;
    let place = config.place.child("serviceCidr");
    prefixes(
        config.service_cidr.as_ref(),
        place,
        ["10.0.0.0/16", "fd00::/108"],
        raw,
    )
}

fn docker_bridge(raw: &RawModel) -> Option<DockerBridge> {
    let config = &raw.kubernetes;
    if spelled(&config.runtime) == "containerd" {
        return None;
    }
    let (net, written) = match &config.docker_bridge_subnet {
        Some(text) => (text.with(parse_cidr(&text.value)?.trunc()), true),
        None => {
            let place = config.place.child("dockerBridgeSubnet");
            (
                Placed::new(parse_cidr("172.17.0.1/16")?.trunc(), place),
                false,
            )
        }
    };
    Some(DockerBridge { net, written })
}
