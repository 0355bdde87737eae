//! The kernel, its settings, and the rights of whoever runs.
//!
//! In: the machine and a namespace. Out: findings. Never: changes a setting.

use std::fs;
use std::path::Path;

use dataplane::port::tap::{Queues, TapPort};

use super::finding::Finding;
use crate::config::NodeConfig;
use crate::devices::Netns;
use crate::devices::sysctl::{self, Conf, Setting};
use crate::lab::prereq;
use crate::node::features;
use crate::plan::Plugin;

/// What the daemon cannot do without: the capabilities of its unit, by number (linux/capability.h).
const CAPABILITIES: [(u32, &str); 3] = [
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (21, "CAP_SYS_ADMIN"),
];

/// The kernel, `/dev/net/tun`, and each device, classifier and action that is needed, tried.
pub(super) fn kernel() -> Vec<Finding> {
    let open = |namespace: &Netns, name: &crate::devices::DeviceName| {
        namespace.run(|| TapPort::open(name.as_str(), Queues::Single).map(drop))
    };
    let checks = prereq::on_this_machine(&open);
    let finding = |check: prereq::Check| match check.next {
        None => Finding::good(check.name, check.detail),
        Some(next) => Finding::bad(check.name, check.detail, next),
    };
    checks.into_iter().map(finding).collect()
}

/// Facilities of newer kernels.
pub(super) fn facilities() -> Vec<Finding> {
    const NAME: &str = "facilities";
    let findings = match features::probe() {
        Ok(findings) => findings,
        Err(why) => {
            return vec![Finding::unknown(
                NAME,
                why.to_string(),
                "run the doctor as root",
            )];
        }
    };
    let used: Vec<&str> = findings
        .iter()
        .filter(|f| f.used)
        .map(|f| f.feature.name())
        .collect();
    let mut found = vec![Finding::good(NAME, format!("used: {}", or_none(&used)))];
    for missing in findings.iter().filter(|finding| !finding.used) {
        let next = match missing.kernel {
            None => "take it out of features_off to use it again".to_owned(),
            Some(_) => format!(
                "nothing has to be done; it comes with {}",
                missing.feature.since()
            ),
        };
        found.push(Finding::warn(NAME, missing.to_string(), next));
    }
    found
}

fn or_none(words: &[&str]) -> String {
    match words {
        [] => "none".to_owned(),
        words => words.join(", "),
    }
}

/// Whether this process could be the daemon.
pub(super) fn rights(root: &Path) -> Finding {
    const NAME: &str = "rights";
    let status = fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(held) = held.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()) else {
        return Finding::unknown(
            NAME,
            "/proc/self/status tells no capabilities",
            "mount /proc",
        );
    };
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(bit, _)| held & 1 << bit == 0)
        .map(|(_, name)| *name)
        .collect();
    match missing[..] {
        [] => Finding::good(NAME, "the capabilities that the daemon's unit gives it"),
        _ => Finding::warn(
            NAME,
            format!("this process lacks {}", missing.join(", ")),
            "run the doctor as root; the daemon has them from its unit",
        ),
    }
}

/// Settings of the node's namespace.
pub(super) fn settings(node: &Netns, config: &NodeConfig) -> Vec<Finding> {
    let read = |setting| sysctl::get(node, setting).ok();
    let mut found = vec![match read(Setting::IpForward).as_deref() {
        Some("1") => Finding::good("ip_forward", "on"),
        Some(_) => Finding::bad(
            "ip_forward",
            "off: the kernel forwards nothing between pods, services and the world",
            "sysctl -w net.ipv4.ip_forward=1",
        ),
        None => Finding::unknown("ip_forward", "the kernel does not tell", "mount /proc/sys"),
    }];
    for device in [&config.uplink.device, &config.host_port.device] {
        let number = |conf| read(Setting::RpFilter(conf))?.parse::<u8>().ok();
        let Some(own) = number(Conf::Device(device)) else {
            continue;
        };
        let highest = own.max(number(Conf::All).unwrap_or(0));
        found.push(rp_filter(device.as_str(), highest, config.plugin));
    }
    found
}

/// A strict filter drops a packet whose way back would be another device. Under azure the pods'
/// addresses lie in the subnet of `eth0`, and it is single routes that lead to `azure0`.
fn rp_filter(device: &str, value: u8, plugin: Plugin) -> Finding {
    const NAME: &str = "rp_filter";
    match (value, plugin) {
        (1, Plugin::Azure) => Finding::warn(
            NAME,
            format!(
                "strict on {device}: a pod's packets to the node die while its route is not there yet"
            ),
            format!("sysctl -w net.ipv4.conf.{device}.rp_filter=2 net.ipv4.conf.all.rp_filter=2"),
        ),
        (1, Plugin::Kubenet) => Finding::good(
            NAME,
            format!("strict on {device}, and routes are symmetric"),
        ),
        (2, _) => Finding::good(NAME, format!("loose on {device}")),
        (_, _) => Finding::good(NAME, format!("off on {device}")),
    }
}

/// `br_netfilter` sends bridged frames through iptables; Tapline's own are none.
pub(super) fn br_netfilter(root: &Path) -> Finding {
    const NAME: &str = "br_netfilter";
    let setting = root.join("proc/sys/net/bridge/bridge-nf-call-iptables");
    match fs::read_to_string(setting) {
        Err(_) => Finding::good(NAME, "not loaded, and not needed"),
        Ok(on) if on.trim() == "1" => Finding::good(
            NAME,
            "on: it concerns other bridges; what needs iptables reaches it by the host port",
        ),
        Ok(_) => Finding::good(NAME, "loaded and off; not needed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn a_strict_filter_is_a_warning_where_pods_share_the_subnet() {
        let state = |value, plugin| rp_filter("eth0", value, plugin).state;
        assert_eq!(state(1, Plugin::Azure), State::Warning);
        for (value, plugin) in [(0, Plugin::Azure), (2, Plugin::Azure), (1, Plugin::Kubenet)] {
            assert_eq!(state(value, plugin), State::Good);
        }
    }
}
