//! The uplink as it is, and the addresses that its node may give out.
//!
//! In: the node's namespace, and what a source told. Out: facts for [`crate::daemon`] to put together.
//! Never: reads the plan.

use std::net::{IpAddr, Ipv4Addr};

use dataplane::addr::Station;
use ipnet::{IpNet, Ipv4Net};

use super::truth::NicAddresses;
use crate::devices::netlink::link::Link;
use crate::devices::{DeviceError, DeviceName, Netlink};
use crate::ipam::Given;

/// The uplink as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its MAC, if one station can have it.
    pub mac: Option<Station>,
    /// Its MTU.
    pub mtu: u32,
    /// Its addresses with their links, without link-local ones.
    pub addresses: Vec<IpNet>,
}

impl Seen {
    /// Looks at the device.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] without it, otherwise what the kernel says.
    pub fn look(node: &Netlink, device: &DeviceName) -> Result<Seen, DeviceError> {
        let link = node.link(device)?;
        let kept = |net: &IpNet| match net.addr() {
            IpAddr::V4(v4) => !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        };
        let addresses = addresses(node, &link)?;
        Ok(Seen {
            mac: link.mac.and_then(|mac| Station::new(mac).ok()),
            mtu: link.mtu,
            addresses: addresses.into_iter().filter(kept).collect(),
        })
    }
}

/// The node's addresses: those of its NIC, or of the bridge that the NIC hangs on, which took them.
fn addresses(net: &Netlink, nic: &Link) -> Result<Vec<IpNet>, DeviceError> {
    let mut names = vec![nic.name.clone()];
    if let Some(controller) = nic.controller {
        let links = net.links()?.into_iter();
        let bridge = links
            .filter(|link| link.index == controller)
            .map(|link| link.name);
        names.extend(bridge);
    }
    let mut found = Vec::new();
    for name in names.iter().filter_map(|name| DeviceName::new(name).ok()) {
        found.extend(net.addresses(&name)?);
    }
    Ok(found)
}

/// The secondary addresses of a NIC, each with its link and gateway.
#[must_use]
pub fn secondary(nic: &NicAddresses) -> Vec<Given> {
    let given = |address: &Ipv4Addr| Given {
        address: IpNet::V4(Ipv4Net::new(*address, nic.subnet.prefix_len()).expect("32 at most")),
        gateway: nic.gateway().into(),
    };
    nic.secondary.iter().map(given).collect()
}
