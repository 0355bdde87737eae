//! The uplink, MTUs, and devices that should not be there.
//!
//! In: the node's namespace. Out: findings. Never: changes a device.

use super::finding::Finding;
use crate::config::NodeConfig;
use crate::devices::Netlink;
use crate::devices::netlink::link::Link;

/// What begins the alias of every device that Tapline makes.
const ALIAS: &str = "tapline ";

/// The device that leads to the network, and MTUs.
pub(super) fn uplink(config: &NodeConfig, net: &Netlink) -> Vec<Finding> {
    const NAME: &str = "uplink";
    let device = &config.uplink.device;
    let link = match net.find_link(device) {
        Ok(Some(link)) => link,
        Ok(None) => {
            let devices = net.links().unwrap_or_default();
            let names: Vec<&str> = devices.iter().map(|link| link.name.as_str()).collect();
            let found = format!("there is no {device}; there are {}", names.join(", "));
            let next = "name the device that leads to the network in uplink.device";
            return vec![Finding::bad(NAME, found, next)];
        }
        Err(why) => {
            return vec![Finding::unknown(
                NAME,
                why.to_string(),
                "run the doctor as root",
            )];
        }
    };
    let mut found = vec![match link.up {
        true => Finding::good(NAME, format!("{device} is up, MTU {}", link.mtu)),
        false => Finding::bad(
            NAME,
            format!("{device} is down"),
            format!("ip link set {device} up"),
        ),
    }];
    found.push(mtu(config, &link));
    found.push(host_port(config, net));
    found
}

fn mtu(config: &NodeConfig, uplink: &Link) -> Finding {
    const NAME: &str = "mtu";
    let device = &config.uplink.device;
    let wanted = config.uplink.mtu.map_or(uplink.mtu, u32::from);
    let pods = config.pods.mtu.map_or(wanted, u32::from);
    if wanted > uplink.mtu {
        let found = format!("uplink.mtu is {wanted}, and {device} has {}", uplink.mtu);
        return Finding::bad(
            NAME,
            found,
            format!("ip link set {device} mtu {wanted}, or lower uplink.mtu"),
        );
    }
    if pods > wanted {
        let found = format!("pods have {pods}, and what leaves by {device} {wanted}");
        let next = "lower pods.mtu: longer packets would be cut or refused on their way out";
        return Finding::warn(NAME, found, next);
    }
    if wanted < 1280 {
        let found = format!("{wanted} is less than IPv6 needs (RFC 8200 5)");
        return Finding::warn(NAME, found, format!("ip link set {device} mtu 1500"));
    }
    Finding::good(NAME, format!("pods {pods}, out of {device} {wanted}"))
}

/// The name of the host port must be free, or ours.
fn host_port(config: &NodeConfig, net: &Netlink) -> Finding {
    const NAME: &str = "host_port";
    let device = &config.host_port.device;
    match net.find_link(device) {
        Ok(None) => Finding::good(NAME, format!("{device} is free")),
        Ok(Some(link)) if link.tap.is_some() => Finding::good(NAME, format!("{device} is ours")),
        Ok(Some(link)) => {
            let kind = link.kind.as_deref().unwrap_or("device");
            Finding::bad(
                NAME,
                format!("{device} is a {kind} of somebody else's"),
                format!(
                    "move its pods over with tapline adopt --bridge {device}, or drain the node and remove it"
                ),
            )
        }
        Err(why) => Finding::unknown(NAME, why.to_string(), "run the doctor as root"),
    }
}

/// Devices of ours although no daemon runs.
pub(super) fn leftovers(config: &NodeConfig, net: &Netlink, is_running: bool) -> Vec<Finding> {
    const NAME: &str = "leftovers";
    let links = match net.links() {
        Ok(links) => links,
        Err(why) => {
            return vec![Finding::unknown(
                NAME,
                why.to_string(),
                "run the doctor as root",
            )];
        }
    };
    let ours: Vec<&Link> = links.iter().filter(|link| is_ours(link)).collect();
    let names: Vec<&str> = ours.iter().map(|link| link.name.as_str()).collect();
    let mut found = vec![match (ours.len(), is_running) {
        (0, _) => Finding::good(NAME, "no device is left over"),
        (count, true) => Finding::good(NAME, format!("{count} devices, and a daemon that runs")),
        (_, false) => Finding::warn(
            NAME,
            format!(
                "no daemon answers, and these devices are Tapline's: {}",
                names.join(", ")
            ),
            "start the daemon, which takes them over; if it is not to come back: tapline rescue, \
             which gives the pods back to the kernel",
        ),
    }];
    let filters = net.filters(&config.uplink.device).unwrap_or_default();
    let programs = net.programs(&config.uplink.device).unwrap_or_default();
    if !is_running && !programs.is_empty() {
        found.push(Finding::warn(
            "filters",
            format!(
                "{}'s ingress has a program of Tapline's, and no daemon",
                config.uplink.device
            ),
            "start the daemon, which takes it over; if it is not to come back: tapline rescue",
        ));
    }
    if let (false, Ok(Some(table))) = (is_running, net.table(&config.uplink.device)) {
        found.push(Finding::warn(
            "filters",
            format!(
                "table netdev {} at {}'s ingress is Tapline's, and no daemon",
                table.name, config.uplink.device
            ),
            "start the daemon, which takes it over; if it is not to come back: tapline rescue",
        ));
    }
    if !is_running && !filters.is_empty() {
        found.push(Finding::warn(
            "filters",
            format!(
                "{} filters at {}'s ingress, and no daemon",
                filters.len(),
                config.uplink.device
            ),
            format!(
                "tc filter show dev {} ingress tells whose they are",
                config.uplink.device
            ),
        ));
    }
    found
}

pub(super) fn is_ours(link: &Link) -> bool {
    link.alias
        .as_deref()
        .is_some_and(|alias| alias.starts_with(ALIAS))
}
