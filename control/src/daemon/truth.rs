//! Asking the node what it is.
//!
//! In: a configuration's sources. Out: a [`NodeTruth`], or why there is none yet.
//! Never: takes the plan's word.

use std::net::IpAddr;

use dataplane::addr::Station;
use dataplane::tables::Addresses;

use super::node::{NodeTruth, PodAddresses};
use crate::config::{NodeConfig, TruthSource};
use crate::devices::netlink::Netlink;
use crate::devices::netns::Netns;

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
    for net in net.addresses(uplink).map_err(|error| error.to_string())? {
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
