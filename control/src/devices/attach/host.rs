//! The host port: the TAP by which the node's own kernel talks to the switch.
//!
//! In: the node's namespace, a fixed MAC, and the address that the node has on it, if any.
//! Out: `azure0` or `cbr0`, an ordinary Ethernet device of the node's kernel.
//! Never: moves an address of the node's other devices onto it.

use std::net::Ipv4Addr;

use dataplane::addr::Mac;
use ipnet::{IpNet, Ipv4Net};

use super::ensure_alias;
use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;
use crate::devices::netlink::Netlink;
use crate::devices::netlink::address::Route;
use crate::devices::sysctl::{self, Conf, Setting};
use crate::devices::tap::{self, TapSpec};

/// The port of the node's own kernel.
#[derive(Clone, Debug)]
pub struct HostPort {
    /// The TAP, named `azure0` or `cbr0`.
    pub tap: TapSpec,
    /// Its hardware address: fixed, so that a pod's neighbour entry outlives a restart.
    pub mac: Mac,
    /// Its addresses: the pod CIDR's gateway under kubenet, none under azure.
    pub addresses: Vec<IpNet>,
    /// What people read on it.
    pub alias: Option<String>,
}

impl HostPort {
    /// Makes the port, or completes it.
    ///
    /// # Errors
    /// [`DeviceError::Conflict`] if the name is taken by something else, otherwise what failed.
    pub fn attach(&self, node: &Netlink) -> Result<(), DeviceError> {
        let name = &self.tap.name;
        tap::ensure(node, &self.tap)?;
        let link = node.link(name)?;
        if link.mac != Some(self.mac) {
            node.set_mac(name, self.mac)?;
        }
        ensure_alias(node, name, self.alias.as_deref().unwrap_or_default())?;
        if self.addresses.iter().any(|net| net.addr().is_ipv6()) {
            let device = Conf::Device(name);
            sysctl::set(node.namespace(), Setting::DisableIpv6(device), "0")?;
            sysctl::set(node.namespace(), Setting::AcceptRa(device), "0")?;
            // As in a pod: the switch sees to it that no address is held twice.
            sysctl::set(node.namespace(), Setting::AcceptDad(device), "0")?;
        } else {
            sysctl::silence_ipv6(node, name)?;
        }
        see_answers(node, name)?;
        for address in &self.addresses {
            node.add_address(name, *address)?;
        }
        if link.up {
            Ok(())
        } else {
            node.set_up(name, true)
        }
    }

    /// Removes the port, and with it its addresses and the routes over it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn detach(&self, node: &Netlink) -> Result<(), DeviceError> {
        tap::remove(node, &self.tap.name)
    }
}

/// Lets the kernel take the answers that the switch gives it by the host port: from another node's
/// pod, which its routes know beyond `eth0`. A strict reverse path filter would drop them; the higher
/// of two settings holds, and loose is the higher.
fn see_answers(node: &Netlink, name: &DeviceName) -> Result<(), DeviceError> {
    let (all, own) = (
        Setting::RpFilter(Conf::All),
        Setting::RpFilter(Conf::Device(name)),
    );
    let namespace = node.namespace();
    let strict = |setting| sysctl::get(namespace, setting).is_ok_and(|value| value == "1");
    if strict(all) || strict(own) {
        sysctl::set(namespace, own, "2")?;
    }
    // From pod to pod through the kernel is no detour, whatever the kernel thinks.
    let redirects = Setting::SendRedirects(Conf::Device(name));
    match sysctl::set(namespace, redirects, "0") {
        Err(refused) if refused.errno() == Some(nix::libc::EROFS) => Ok(()),
        other => other,
    }
}

/// Lets the node reach one pod by the host port, with the node's own address as its source.
///
/// # Errors
/// [`DeviceError::Conflict`] if someone else has a route to the pod.
pub fn add_pod_route(
    node: &Netlink,
    port: &DeviceName,
    pod: Ipv4Addr,
    node_address: Ipv4Addr,
) -> Result<(), DeviceError> {
    node.add_route(port, &pod_route(pod, Some(node_address)))
}

/// Takes the route to one pod away; one that is gone, or another's, is left as it is.
///
/// # Errors
/// What the kernel says.
pub fn del_pod_route(node: &Netlink, port: &DeviceName, pod: Ipv4Addr) -> Result<(), DeviceError> {
    node.remove_route(port, &pod_route(pod, None))
}

fn pod_route(pod: Ipv4Addr, source: Option<Ipv4Addr>) -> Route {
    Route {
        to: IpNet::V4(Ipv4Net::from(pod)),
        via: None,
        source: source.map(Into::into),
    }
}
