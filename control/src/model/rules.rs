//! aks-engine's rules for the orchestrator and its `kubernetesConfig`, in its own words.
//!
//! In: the raw model, and the plugin and policy that will be used. Out: a fault per rule
//! broken. Never: stops at the first, as aks-engine does; judges what is not there.

use std::net::IpAddr;

use ipnet::IpNet;

use super::cidr::{is_duration, parse_cidr, parse_ip};
use super::fault::{Placed, Report};
use super::raw::{RawKubernetes, RawModel, Text, is_set, spelled};
use crate::plan::Plugin;

/// How every message about `kubernetesConfig` starts.
const K: &str = "OrchestratorProfile.KubernetesConfig";

/// Fewer pods than this leave no room for those of the system.
const MAX_PODS_MIN: i64 = 5;

const PLUGINS: [&str; 6] = ["", "kubenet", "azure", "cilium", "antrea", "flannel"];
const POLICIES: [&str; 6] = ["", "calico", "cilium", "antrea", "azure", "none"];

/// Plugin and policy together, as aks-engine accepts them.
const PAIRS: [(&str, &[&str]); 6] = [
    ("", &["", "calico", "cilium", "antrea", "azure", "none"]),
    ("azure", &["", "azure", "calico", "antrea"]),
    ("kubenet", &["", "calico"]),
    ("flannel", &[""]),
    ("cilium", &["cilium"]),
    ("antrea", &["antrea"]),
];

/// What the document says about the plugin after `--plugin` has had its say. Texts are as
/// typed: rules that name `azure` do not hold for a plugin that was left out.
pub(crate) struct Chosen {
    pub(crate) plugin: String,
    pub(crate) policy: String,
    pub(crate) mode: Text,
    pub(crate) eth0_mtu: Option<Placed<i64>>,
}

impl Chosen {
    /// Applies `--plugin`, which drops what only the other plugin has, and says so.
    pub(crate) fn new(raw: &RawModel, plugin: Option<Plugin>, report: &mut Report) -> Chosen {
        let config = &raw.kubernetes;
        let mut chosen = Chosen {
            plugin: spelled(&config.plugin).to_owned(),
            policy: spelled(&config.policy).to_owned(),
            mode: config.mode.clone(),
            eth0_mtu: raw.eth0_mtu.clone(),
        };
        let Some(plugin) = plugin else { return chosen };
        chosen.plugin = plugin.to_string();
        if let Some(policy) = &config.policy
            && POLICIES.contains(&policy.value.as_str())
            && !accepts(&chosen.plugin, &policy.value)
        {
            let message = format!(
                "networkPolicy '{}' is dropped: {plugin} does not have it",
                policy.value
            );
            report.warn(&policy.place, message);
            chosen.policy.clear();
        }
        if plugin == Plugin::Kubenet {
            if let Some(mode) = chosen.mode.take() {
                let message = format!("networkMode '{}' is dropped: only azure has it", mode.value);
                report.warn(&mode.place, message);
            }
            if let Some(mtu) = chosen.eth0_mtu.take() {
                let message = format!("eth0MTU {} is dropped: only azure has it", mtu.value);
                report.warn(&mtu.place, message);
            }
        }
        chosen
    }
}

fn accepts(plugin: &str, policy: &str) -> bool {
    PAIRS
        .iter()
        .any(|(name, policies)| *name == plugin && policies.contains(&policy))
}

/// Judges the orchestrator profile.
pub(crate) fn check(raw: &RawModel, chosen: &Chosen, report: &mut Report) {
    if raw.api_version.value != "vlabs" {
        let message = format!("unrecognized APIVersion '{}'", raw.api_version.value);
        report.fault(&raw.api_version.place, message);
    }
    if let Some(kind) = &raw.orchestrator_type
        && !kind.value.eq_ignore_ascii_case("Kubernetes")
    {
        let message = format!("OrchestratorType has unknown orchestrator: {}", kind.value);
        report.fault(&kind.place, message);
    }
    let release = Release::read(raw, report);
    check_families(raw, chosen, &release, report);
    check_cluster_subnet(raw, chosen, report);
    check_small_print(&raw.kubernetes, report);
    check_services(raw, report);
    check_proxy(raw, &release, report);
    check_plugin(raw, chosen, report);
    check_policy(raw, chosen, &release, report);
    check_mode(raw, chosen, report);
    check_runtime(&raw.kubernetes, &release, report);
}

/// The release of Kubernetes, where the document names one.
struct Release {
    spelling: String,
    number: Option<(u64, u64)>,
}

impl Release {
    fn read(raw: &RawModel, report: &mut Report) -> Release {
        let Some(text) = raw.version.as_ref().or(raw.release.as_ref()) else {
            return Release {
                spelling: String::new(),
                number: None,
            };
        };
        let number = parse_release(&text.value);
        if number.is_none() {
            report.fault(
                &text.place,
                format!("could not validate version {}", text.value),
            );
        }
        Release {
            spelling: text.value.clone(),
            number,
        }
    }

    /// Whether the release is known to be older. One left out is as new as need be.
    fn before(&self, minor: u64) -> bool {
        self.number.is_some_and(|number| number < (1, minor))
    }
}

/// `1.10`, `1.10.12` and `1.16.0-alpha.1` are releases.
fn parse_release(text: &str) -> Option<(u64, u64)> {
    let core = text.split_once(['-', '+']).map_or(text, |(core, _)| core);
    let parts: Vec<&str> = core.split('.').collect();
    let digits = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !(2..=3).contains(&parts.len()) || !parts.iter().all(digits) {
        return None;
    }
    Some((parts[0].parse().ok()?, parts[1].parse().ok()?))
}

fn check_families(raw: &RawModel, chosen: &Chosen, release: &Release, report: &mut Report) {
    let plugin = chosen.plugin.as_str();
    let (dual, only) = (is_set(&raw.dual_stack), is_set(&raw.ipv6_only));
    let plugin_place = raw
        .kubernetes
        .plugin
        .as_ref()
        .map_or(&raw.kubernetes.place, |plugin| &plugin.place);
    if dual
        && only
        && let Some(flag) = &raw.ipv6_only
    {
        report.fault(
            &flag.place,
            "featureFlags.EnableIPv6DualStack and featureFlags.EnableIPv6Only can't be enabled \
             at the same time",
        );
    }
    if dual && let Some(flag) = &raw.dual_stack {
        let version = &release.spelling;
        if release.before(16) {
            let message = format!("IPv6 dual stack not available in kubernetes version {version}");
            report.fault(&flag.place, message);
        }
        if !["kubenet", "azure"].contains(&plugin) {
            let message = format!(
                "{K}.NetworkPlugin '{plugin}' is invalid. IPv6 dual stack supported only with \
                 'kubenet' and 'azure'"
            );
            report.fault(plugin_place, message);
        }
        if plugin == "azure"
            && let Some(policy) = &raw.kubernetes.policy
            && !chosen.policy.is_empty()
        {
            let message = format!(
                "Network policy {} is not supported for azure cni dualstack",
                chosen.policy
            );
            report.fault(&policy.place, message);
        }
    }
    if only && let Some(flag) = &raw.ipv6_only {
        if release.before(18) {
            let message = format!(
                "IPv6 single stack not available in kubernetes version {}",
                release.spelling
            );
            report.fault(&flag.place, message);
        }
        if plugin != "kubenet" {
            let message = format!(
                "{K}.NetworkPlugin '{plugin}' is invalid. IPv6 single stack supported only with \
                 kubenet"
            );
            report.fault(plugin_place, message);
        }
    }
}

fn check_cluster_subnet(raw: &RawModel, chosen: &Chosen, report: &mut Report) {
    let Some(subnet) = &raw.kubernetes.cluster_subnet else {
        return;
    };
    let parts: Vec<&str> = if is_set(&raw.dual_stack) {
        subnet.value.split(',').collect()
    } else {
        vec![&subnet.value]
    };
    if parts.len() > 2 {
        let message = format!(
            "{K}.ClusterSubnet '{}' is an invalid subnet. Not more than 2 subnets for ipv6 dual \
             stack",
            subnet.value
        );
        report.fault(&subnet.place, message);
        return;
    }
    for part in parts {
        let Some(net) = parse_cidr(part) else {
            let message = format!("{K}.ClusterSubnet '{part}' is an invalid subnet");
            report.fault(&subnet.place, message);
            continue;
        };
        if chosen.plugin == "azure" && net.max_prefix_len() - net.prefix_len() <= 8 {
            let message =
                format!("{K}.ClusterSubnet '{part}' must reserve at least 9 bits for nodes");
            report.fault(&subnet.place, message);
        }
    }
}

fn check_small_print(config: &RawKubernetes, report: &mut Report) {
    if let Some(bridge) = &config.docker_bridge_subnet
        && parse_cidr(&bridge.value).is_none()
    {
        let message = format!(
            "{K}.DockerBridgeSubnet '{}' is an invalid subnet",
            bridge.value
        );
        report.fault(&bridge.place, message);
    }
    if let Some(pods) = &config.max_pods
        && pods.value != 0
        && pods.value < MAX_PODS_MIN
    {
        let message = format!(
            "{K}.MaxPods '{}' must be at least {MAX_PODS_MIN}",
            pods.value
        );
        report.fault(&pods.place, message);
    }
    if let Some(cidr) = config.kubelet.get("--non-masquerade-cidr")
        && parse_cidr(&cidr.value).is_none()
    {
        let message = format!(
            "--non-masquerade-cidr kubelet config '{}' is an invalid CIDR string",
            cidr.value
        );
        report.fault(&cidr.place, message);
    }
    for settings in [&config.controller_manager, &config.cloud_controller_manager] {
        if let Some(period) = settings.get("--route-reconciliation-period")
            && !is_duration(&period.value)
        {
            let message = format!(
                "--route-reconciliation-period '{}' is not a valid duration",
                period.value
            );
            report.fault(&period.place, message);
        }
    }
}

fn check_services(raw: &RawModel, report: &mut Report) {
    let config = &raw.kubernetes;
    let (services, dns) = match (&config.service_cidr, &config.dns_service_ip) {
        (None, None) => return,
        (Some(services), None) => {
            let message = format!("{K}.DNSServiceIP must be specified when ServiceCidr is");
            report.fault(&services.place, message);
            (Some(services), None)
        }
        (None, Some(dns)) => {
            let message = format!("{K}.ServiceCidr must be specified when DNSServiceIP is");
            report.fault(&dns.place, message);
            (None, Some(dns))
        }
        (services, dns) => (services.as_ref(), dns.as_ref()),
    };
    let address = dns.and_then(|dns| {
        let address = parse_ip(&dns.value);
        if address.is_none() {
            let message = format!("{K}.DNSServiceIP '{}' is an invalid IP address", dns.value);
            report.fault(&dns.place, message);
        }
        address
    });
    let Some(services) = services else { return };
    let first = check_service_cidr(services, is_set(&raw.dual_stack), report);
    if let (Some(dns), Some(address), Some((cidr, net))) = (dns, address, first) {
        check_dns_within(dns, address, cidr, net, report);
    }
}

/// The first service CIDR and its spelling.
fn check_service_cidr<'a>(
    services: &'a Placed<String>,
    dual_stack: bool,
    report: &mut Report,
) -> Option<(&'a str, IpNet)> {
    let parts: Vec<&str> = if dual_stack {
        services.value.split(',').collect()
    } else {
        vec![&services.value]
    };
    if parts.len() > 2 {
        let message = format!(
            "{K}.ServiceCidr '{}' is an invalid CIDR subnet. More than 2 CIDRs not allowed for \
             dualstack",
            services.value
        );
        report.fault(&services.place, message);
        return None;
    }
    let mut read = |part: &str| {
        let net = parse_cidr(part);
        if net.is_none() {
            let message = format!("{K}.ServiceCidr '{part}' is an invalid CIDR subnet");
            report.fault(&services.place, message);
        }
        net
    };
    if let Some(second) = parts.get(1) {
        read(second);
    }
    Some((parts[0], read(parts[0])?))
}

fn check_dns_within(
    dns: &Placed<String>,
    address: IpAddr,
    cidr: &str,
    net: IpNet,
    report: &mut Report,
) {
    let net = net.trunc();
    let name = format!("{K}.DNSServiceIP '{}'", dns.value);
    if !net.contains(&address) {
        report.fault(
            &dns.place,
            format!("{name} is not within the ServiceCidr '{cidr}'"),
        );
        return;
    }
    if address == net.broadcast() {
        let message = format!("{name} cannot be the broadcast address of ServiceCidr '{cidr}'");
        report.fault(&dns.place, message);
    }
    if Some(address) == successor(net.network()) {
        report.fault(
            &dns.place,
            format!("{name} cannot be the first IP of ServiceCidr '{cidr}'"),
        );
    }
}

fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address
            .to_bits()
            .checked_add(1)
            .map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(address) => address
            .to_bits()
            .checked_add(1)
            .map(|bits| IpAddr::V6(bits.into())),
    }
}

fn check_proxy(raw: &RawModel, release: &Release, report: &mut Report) {
    let mode = &raw.kubernetes.proxy_mode;
    if let Some(mode) = mode
        && !["iptables", "ipvs"].contains(&mode.value.as_str())
    {
        let message = format!(
            "Invalid KubeProxyMode {}. Allowed modes are iptables and ipvs",
            mode.value
        );
        report.fault(&mode.place, message);
    }
    if let Some(flag) = &raw.dual_stack
        && flag.value
        && spelled(mode) == "iptables"
        && release.before(18)
    {
        let place = mode.as_ref().map_or(&flag.place, |mode| &mode.place);
        let message = format!(
            "KubeProxyMode iptables in dualstack not supported with {} version",
            release.spelling
        );
        report.fault(place, message);
    }
}

fn has_windows(raw: &RawModel) -> bool {
    raw.pools
        .iter()
        .any(|pool| spelled(&pool.os_type) == "Windows")
}

fn check_plugin(raw: &RawModel, chosen: &Chosen, report: &mut Report) {
    let plugin = chosen.plugin.as_str();
    let config = &raw.kubernetes;
    let place = config
        .plugin
        .as_ref()
        .map_or(&config.place, |plugin| &plugin.place);
    if !PLUGINS.contains(&plugin) {
        report.fault(place, format!("unknown networkPlugin '{plugin}' specified"));
    }
    if plugin == "antrea" && has_windows(raw) {
        let message = format!("networkPlugin '{plugin}' is not supporting windows agents");
        report.fault(place, message);
    }
    let foreign = match (plugin, chosen.policy.as_str()) {
        ("flannel" | "cilium" | "antrea", _) => Some(plugin),
        // A document of the days when the policy chose the plugin.
        ("", "cilium") => Some("cilium"),
        _ => None,
    };
    if let Some(foreign) = foreign {
        let place = match (&config.plugin, &config.policy) {
            (None, Some(policy)) => &policy.place,
            _ => place,
        };
        let message = format!("networkPlugin '{foreign}': Tapline serves azure and kubenet only");
        report.fault(place, message);
    }
}

fn check_policy(raw: &RawModel, chosen: &Chosen, release: &Release, report: &mut Report) {
    let policy = chosen.policy.as_str();
    let config = &raw.kubernetes;
    let place = config
        .policy
        .as_ref()
        .map_or(&config.place, |policy| &policy.place);
    if !POLICIES.contains(&policy) {
        report.fault(place, format!("unknown networkPolicy '{policy}' specified"));
        return;
    }
    if policy == "azure" && chosen.plugin == "azure" && release.before(8) {
        report.fault(
            place,
            "networkPolicy azure requires kubernetes version of 1.8 or higher",
        );
    }
    if ["calico", "cilium", "antrea"].contains(&policy) && has_windows(raw) {
        let message = format!("networkPolicy '{policy}' is not supporting windows agents");
        report.fault(place, message);
    }
    // The plugins that Tapline leaves to others have had their fault.
    if ["", "azure", "kubenet"].contains(&chosen.plugin.as_str())
        && !accepts(&chosen.plugin, policy)
    {
        let message = format!(
            "networkPolicy '{policy}' is not supported with networkPlugin '{}'",
            chosen.plugin
        );
        report.fault(place, message);
    }
}

fn check_mode(raw: &RawModel, chosen: &Chosen, report: &mut Report) {
    let Some(mode) = &chosen.mode else { return };
    let text = mode.value.as_str();
    if !["bridge", "transparent"].contains(&text) {
        report.fault(
            &mode.place,
            format!("unknown networkMode '{text}' specified"),
        );
        return;
    }
    if chosen.plugin != "azure" {
        report.fault(
            &mode.place,
            "networkMode requires network plugin to be 'azure'",
        );
    }
    if chosen.policy == "calico" && text != "transparent" {
        report.fault(
            &mode.place,
            format!("networkMode '{text}' is not supported by calico"),
        );
    }
    let flatcar = raw
        .pools
        .iter()
        .any(|pool| spelled(&pool.distro) == "flatcar");
    if flatcar && chosen.plugin == "azure" && text == "bridge" {
        report.fault(
            &mode.place,
            "Flatcar node pools require 'transparent' networkMode with Azure CNI",
        );
    }
}

fn check_runtime(config: &RawKubernetes, release: &Release, report: &mut Report) {
    let Some(runtime) = &config.runtime else {
        return;
    };
    if !["docker", "containerd"].contains(&runtime.value.as_str()) {
        let message = format!("unknown containerRuntime {:?} specified", runtime.value);
        report.fault(&runtime.place, message);
    }
    if runtime.value == "docker" && release.number.is_some() && !release.before(24) {
        report.fault(
            &runtime.place,
            "Docker runtime is no longer supported for v1.24+ clusters, use containerd \
             containerRuntime value instead",
        );
    }
}
