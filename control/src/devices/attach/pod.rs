//! A pod's port: a veth whose host end is tied to a TAP, or a TAP that is the pod's own `eth0`.
//!
//! In: the node's namespace, the pod's, and what the pod's end is to be.
//! Out: a pod with an address and a way out, all of whose frames the switch reads from the TAP.
//! Never: lets a frame of the pod reach the node's own stack: the host end's ingress is redirected
//! before the pod's end comes up.

use std::net::IpAddr;

use dataplane::addr::Mac;
use dataplane::facility::Facility;
use ipnet::IpNet;

use super::{ensure_alias, hush_and_raise};
use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;
use crate::devices::netlink::Netlink;
use crate::devices::netlink::address::Route;
use crate::devices::netlink::filter::{Deed, Match, Rule};
use crate::devices::netlink::link::VethEnd;
use crate::devices::sysctl::{self, Conf, Setting};
use crate::devices::tap::{self, TapSpec};

/// What a pod sees of its port.
#[derive(Clone, Debug)]
pub struct PodEnd {
    /// The device's name in the pod, `eth0`.
    pub name: DeviceName,
    /// Its hardware address, which the switch knows the pod by.
    pub mac: Mac,
    /// Its addresses with the prefix lengths of their links.
    pub addresses: Vec<IpNet>,
    /// Its gateways, at most one of each family, each on the link of an address.
    pub gateways: Vec<IpAddr>,
    /// Its MTU.
    pub mtu: u32,
}

/// A pod's port by way of a veth. The TAP's MTU should be the pod's.
#[derive(Clone, Debug)]
pub struct PodVeth {
    /// The host end of the veth: `azv` or `veth` and digits.
    pub host_end: DeviceName,
    /// The TAP that the switch opens, in the node's namespace.
    pub tap: TapSpec,
    /// The pod's end.
    pub pod: PodEnd,
    /// What people read on the host end and on the TAP.
    pub alias: Option<String>,
}

/// A pod's port whose `eth0` is the TAP itself: half the devices and no backlog in between, but
/// the switch opens it inside the pod's namespace. The TAP bears the pod end's name and MTU.
#[derive(Clone, Debug)]
pub struct PodTap {
    /// The TAP that the switch opens, in the pod's namespace; `name` and `mtu` are the pod end's.
    pub tap: TapSpec,
    /// The pod's end.
    pub pod: PodEnd,
    /// What people read on it.
    pub alias: Option<String>,
}

impl PodVeth {
    /// Makes the port, or completes it.
    ///
    /// # Errors
    /// [`DeviceError::Conflict`] if a name is taken by something else, otherwise what failed. What
    /// was made up to then stays; [`PodVeth::detach`] removes it.
    pub fn attach(&self, node: &Netlink, pod: &Netlink) -> Result<(), DeviceError> {
        self.make(node, pod)?;
        self.pod.raise(pod)
    }

    /// Makes the port, or completes it, up to the pod's end, which stays down: whoever opens the
    /// TAP in between hears the pod's first frame.
    ///
    /// # Errors
    /// As [`PodVeth::attach`].
    pub fn make(&self, node: &Netlink, pod: &Netlink) -> Result<(), DeviceError> {
        self.ensure_pair(node, pod)?;
        self.wire(node)
    }

    /// Completes what the node has of a port whose veth is there.
    ///
    /// # Errors
    /// As [`PodVeth::attach`]; [`DeviceError::Missing`] without the veth.
    pub fn wire(&self, node: &Netlink) -> Result<(), DeviceError> {
        tap::ensure(node, &self.tap)?;
        let alias = self.alias.as_deref().unwrap_or_default();
        prepare(node, &self.host_end, &self.tap.name, alias)?;
        take_over(node, &self.host_end, &self.tap.name)?;
        hush_and_raise(node, &self.host_end)
    }

    /// Removes the port: the TAP, the host end, and with it the pod's end.
    ///
    /// # Errors
    /// What failed first; the rest is removed all the same.
    pub fn detach(&self, node: &Netlink) -> Result<(), DeviceError> {
        let tap = tap::remove(node, &self.tap.name);
        let host_end = match node.find_link(&self.host_end)? {
            Some(link) if link.kind.as_deref() == Some("veth") => node.remove_link(&self.host_end),
            _ => Ok(()),
        };
        tap.and(host_end)
    }

    fn ensure_pair(&self, node: &Netlink, pod: &Netlink) -> Result<(), DeviceError> {
        let Some(here) = node.find_link(&self.host_end)? else {
            let here = VethEnd {
                name: self.host_end.clone(),
                mac: None,
            };
            let there = VethEnd {
                name: self.pod.name.clone(),
                mac: Some(self.pod.mac),
            };
            return node.add_veth(&here, &there, pod.namespace(), self.pod.mtu);
        };
        let there = pod.find_link(&self.pod.name)?;
        let tied = there.is_some_and(|there| {
            here.kind.as_deref() == Some("veth")
                && here.peer == Some(there.index)
                && there.peer == Some(here.index)
        });
        if !tied {
            return Err(DeviceError::Conflict {
                device: self.host_end.clone(),
                namespace: node.namespace().name().into(),
                why: format!("its other end is not {} of this pod", self.pod.name),
            });
        }
        if here.mtu != self.pod.mtu {
            node.set_mtu(&self.host_end, self.pod.mtu)?;
        }
        Ok(())
    }
}

impl PodTap {
    /// Makes the port, or completes it.
    ///
    /// # Errors
    /// As [`PodVeth::attach`].
    pub fn attach(&self, pod: &Netlink) -> Result<(), DeviceError> {
        tap::ensure(pod, &self.spec())?;
        ensure_alias(
            pod,
            &self.pod.name,
            self.alias.as_deref().unwrap_or_default(),
        )?;
        self.pod.raise(pod)
    }

    /// Removes the port.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn detach(&self, pod: &Netlink) -> Result<(), DeviceError> {
        tap::remove(pod, &self.pod.name)
    }

    fn spec(&self) -> TapSpec {
        TapSpec {
            name: self.pod.name.clone(),
            mtu: self.pod.mtu,
            ..self.tap.clone()
        }
    }
}

impl PodEnd {
    /// Gives the device in the pod its properties and brings it, and the loopback, up.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] without the device, otherwise what failed.
    pub fn raise(&self, pod: &Netlink) -> Result<(), DeviceError> {
        let link = pod.link(&self.name)?;
        if link.mac != Some(self.mac) {
            pod.set_mac(&self.name, self.mac)?;
        }
        if link.mtu != self.mtu {
            pod.set_mtu(&self.name, self.mtu)?;
        }
        self.settle_ipv6(pod)?;
        for address in &self.addresses {
            pod.add_address(&self.name, *address)?;
        }
        if !link.up {
            pod.set_up(&self.name, true)?;
        }
        raise_loopback(pod)?;
        for gateway in &self.gateways {
            pod.add_route(&self.name, &default_route(*gateway))?;
        }
        Ok(())
    }

    /// Off on this device where the pod has no IPv6 address. The namespace's `default` is left
    /// alone: the pod may make devices of its own.
    ///
    /// On, it looks for no duplicates, as kubenet has it: that takes one to two seconds in which no
    /// address of the pod is usable, and finds nothing that is not known. The tables that let the
    /// pod speak refuse an address with two holders, and the link-local one is made of a MAC of
    /// which the same is true.
    fn settle_ipv6(&self, pod: &Netlink) -> Result<(), DeviceError> {
        if !self.addresses.iter().any(|net| net.addr().is_ipv6()) {
            return sysctl::silence_ipv6(pod, &self.name);
        }
        let (namespace, device) = (pod.namespace(), Conf::Device(&self.name));
        sysctl::set(namespace, Setting::DisableIpv6(device), "0")?;
        sysctl::set(namespace, Setting::AcceptRa(device), "0")?;
        sysctl::set(namespace, Setting::AcceptDad(device), "0")
    }
}

/// What the switch writes to `tap` reaches the pod, whose own frames still go where they went.
///
/// # Errors
/// What the kernel says.
pub(crate) fn prepare(
    node: &Netlink,
    host_end: &DeviceName,
    tap: &DeviceName,
    alias: &str,
) -> Result<(), DeviceError> {
    for device in [host_end, tap] {
        if device == tap || !by_program(node, host_end)? {
            node.ensure_clsact(device)?;
        }
        ensure_alias(node, device, alias)?;
    }
    tie(node, tap, host_end)?;
    hush_and_raise(node, tap)
}

/// Every frame that comes in from `from`, which has a clsact, leaves by `to`.
///
/// # Errors
/// What the kernel says.
pub(crate) fn tie(net: &Netlink, from: &DeviceName, to: &DeviceName) -> Result<(), DeviceError> {
    net.set_rules(from, &[everything(net.index(to)?)])
}

/// Every frame of the pod goes to `tap`, from one frame to the next.
///
/// # Errors
/// What the kernel says.
pub(crate) fn take_over(
    node: &Netlink,
    host_end: &DeviceName,
    tap: &DeviceName,
) -> Result<(), DeviceError> {
    let rules = [everything(node.index(tap)?)];
    if by_program(node, host_end)? && node.set_program_rules(host_end, &rules).is_ok() {
        return Ok(());
    }
    node.ensure_clsact(host_end)?;
    node.set_rules(host_end, &rules)?;
    // In this order, so that no frame is missed.
    node.remove_programs(host_end)
}

/// The pod's frames go where they went before [`take_over`].
///
/// # Errors
/// What the kernel says.
pub(crate) fn give_back(node: &Netlink, host_end: &DeviceName) -> Result<(), DeviceError> {
    node.set_rules(host_end, &[])?;
    node.remove_programs(host_end)
}

/// Whether a program is to be tried: the veth is in use, and there is no clsact to put a filter on. To
/// add one, and to remove it, takes the veth's way to the pod away until every processor has been waited
/// for.
fn by_program(node: &Netlink, host_end: &DeviceName) -> Result<bool, DeviceError> {
    let in_use = Facility::Tcx.is_allowed() && node.link(host_end)?.up;
    Ok(in_use && !node.has_clsact(host_end)?)
}

fn everything(to: u32) -> Rule {
    Rule {
        frames: Match::Every,
        deed: Deed::Redirect(to),
    }
}

fn default_route(gateway: IpAddr) -> Route {
    let to = match gateway {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    };
    Route {
        to,
        via: Some(gateway),
        source: None,
    }
}

fn raise_loopback(net: &Netlink) -> Result<(), DeviceError> {
    let loopback = DeviceName::new("lo").expect("two letters are a name");
    match net.find_link(&loopback)? {
        Some(link) if !link.up => net.set_up(&loopback, true),
        _ => Ok(()),
    }
}
