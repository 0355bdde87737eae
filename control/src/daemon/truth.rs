//! Asking the node what it is.
//!
//! In: a configuration's sources. Out: a [`NodeTruth`], or why there is none yet.
//! Never: takes the plan's word.

use std::net::IpAddr;

use dataplane::addr::Station;
use dataplane::tables::Addresses;
use ipnet::IpNet;

use super::node::{NodeTruth, PodAddresses};
use crate::config::{NodeConfig, TruthSource};
use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;
use crate::devices::netlink::Netlink;
use crate::devices::netlink::link::Link;
use crate::devices::netns::Netns;

/// The node's addresses: those of its NIC, or of the bridge that the NIC hangs on, which took them.
fn node_addresses(net: &Netlink, nic: &Link) -> Result<Vec<IpNet>, DeviceError> {
    let mut names = vec![nic.name.clone()];
    if let Some(controller) = nic.controller {
        let mut links = net.links()?.into_iter();
        names.extend(
            links
                .find(|link| link.index == controller)
                .map(|link| link.name),
        );
    }
    let mut found = Vec::new();
    for name in names.iter().filter_map(|name| DeviceName::new(name).ok()) {
        found.extend(net.addresses(&name)?);
    }
    Ok(found)
}

/// Asks the sources in their order; the first that knows, counts.
///
/// # Errors
/// What each of them says, in words.
pub(super) fn ask(config: &NodeConfig, node: &Netns) -> Result<NodeTruth, String> {
    let net = Netlink::open(node).map_err(|error| error.to_string())?;
    let uplink = &config.uplink.device;
    let link = net.link(uplink).map_err(|error| error.to_string())?;
    let nic = link.mac.and_then(|mac| Station::new(mac).ok());
    let nic = nic.ok_or_else(|| format!("{uplink} has no MAC address"))?;
    if let Some(wanted) = config.uplink.mac.filter(|wanted| *wanted != nic) {
        return Err(format!(
            "{uplink} has the MAC {}, not {}",
            nic.mac(),
            wanted.mac()
        ));
    }
    let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
    let mut own = Addresses::default();
    for net in node_addresses(&net, &link).map_err(|error| error.to_string())? {
        match net.addr() {
            IpAddr::V4(v4) => own.v4 = own.v4.or(Some(v4)),
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {}
            IpAddr::V6(v6) => own.v6 = own.v6.or(Some(v6)),
        }
    }
    let mut silent = Vec::new();
    for source in &config.truth.sources {
        match source {
            TruthSource::PodCidr(nets) => {
                return Ok(NodeTruth {
                    nic,
                    mtu,
                    own,
                    pods: PodAddresses::Cidrs(nets.clone()),
                });
            }
            other => silent.push(format!("{other:?} does not answer")),
        }
    }
    Err(silent.join("; "))
}
