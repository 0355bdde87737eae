//! One pod's port, as the daemon remembers it, and as the switch and the devices want it.
//!
//! In: what an ADD settled. Out: the row of the state file, the switch's [`PodPort`], the devices'
//! [`PodVeth`].
//! Never: changes after its ADD.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;

use dataplane::addr::{Mac, PortId, Station};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::api::types::{AddReply, Bandwidth, Interface, Key, PodAddress, PodName, RouteSpec, mac};
use crate::compile::PodPort;
use crate::devices::attach::limit::{BadLimit, Limit, Limits};
use crate::devices::attach::{PodEnd, PodVeth};
use crate::devices::name::DeviceName;
use crate::devices::netlink::address::Route;
use crate::devices::tap::TapSpec;

/// An attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Which it is.
    #[serde(flatten)]
    pub key: Key,
    /// The pod, where the runtime told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// The pod's namespace, as the runtime called it.
    pub netns: PathBuf,
    /// The number of its port.
    pub port: u16,
    /// The node's end of its veth.
    pub host_end: DeviceName,
    /// The switch's TAP.
    pub tap: DeviceName,
    /// Its hardware address.
    #[serde(with = "mac")]
    pub mac: Mac,
    /// Its MTU.
    pub mtu: u16,
    /// Its addresses.
    pub addresses: Vec<Held>,
    /// Its routes.
    #[serde(default)]
    pub routes: Vec<RouteSpec>,
    /// May it reach itself through the switch?
    #[serde(default)]
    pub hairpin: bool,
    /// Is it kept from other isolated ports?
    #[serde(default)]
    pub isolated: bool,
    /// May it send from its own hardware address only, whatever the node's guards say?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_spoof_check: Option<bool>,
    /// Does the node masquerade what it sends beyond its link?
    #[serde(default)]
    pub ip_masq: bool,
    /// Limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
}

/// An address that a pod holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The address and its link.
    pub address: IpNet,
    /// The gateway on that link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

impl Attachment {
    /// The switch's name for its port.
    #[must_use]
    pub fn port_id(&self) -> Option<PortId> {
        PortId::new(self.port.into())
    }

    /// As the switch is told of it; nothing if what is remembered cannot be.
    #[must_use]
    pub fn pod_port(&self) -> Option<PodPort> {
        Some(PodPort {
            hairpin: self.hairpin,
            isolated: self.isolated,
            mac_checked: self.mac_spoof_check == Some(true),
            mtu: Some(self.mtu),
            called: vec![self.name(), self.key.container_id.clone()],
            ..PodPort::new(
                self.port_id()?,
                Station::new(self.mac).ok()?,
                self.ips().collect(),
            )
        })
    }

    /// The addresses without their links.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|held| held.address.addr())
    }

    /// What people call it: the pod, or the container.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.pod {
            Some(pod) => pod.to_string(),
            None => {
                let id: String = self.key.container_id.chars().take(12).collect();
                format!("{id}/{}", self.key.ifname)
            }
        }
    }

    /// What is written on its devices.
    #[must_use]
    pub fn alias(&self, host_device: &DeviceName) -> String {
        let mut alias = format!("{ALIAS} {host_device} {}", self.name());
        for address in self.ips() {
            alias.push_str(&format!(" {address}"));
        }
        alias
    }

    /// Its devices. `ifname` has been checked by ADD.
    #[must_use]
    pub fn veth(&self, ifname: DeviceName, host: &DeviceName, queues: NonZeroU16) -> PodVeth {
        PodVeth {
            host_end: self.host_end.clone(),
            tap: TapSpec {
                queues,
                ..TapSpec::new(self.tap.clone(), self.mtu.into())
            },
            pod: PodEnd {
                name: ifname,
                mac: self.mac,
                addresses: self.addresses.iter().map(|held| held.address).collect(),
                gateways: Vec::new(),
                mtu: self.mtu.into(),
            },
            alias: Some(self.alias(host)),
        }
    }

    /// Its routes, as the pod's kernel is told of them.
    #[must_use]
    pub fn kernel_routes(&self) -> Vec<Route> {
        let route = |route: &RouteSpec| Route {
            to: route.dst,
            via: route.gw,
            source: None,
        };
        self.routes.iter().map(route).collect()
    }

    /// Its limits.
    ///
    /// # Errors
    /// A rate that is none.
    pub fn limits(&self) -> Result<Limits, BadLimit> {
        let Some(given) = self.bandwidth else {
            return Ok(Limits::default());
        };
        Ok(Limits {
            to_pod: Limit::new(given.ingress_rate, given.ingress_burst)?,
            from_pod: Limit::new(given.egress_rate, given.egress_burst)?,
        })
    }

    /// What its ADD answered.
    #[must_use]
    pub fn reply(&self, host: &Interface, host_end: Mac) -> AddReply {
        let end = |name: &str, mac, sandbox| Interface {
            name: name.to_owned(),
            mac,
            mtu: self.mtu.into(),
            sandbox,
        };
        let ips = self.addresses.iter().map(|held| PodAddress {
            address: held.address,
            gateway: held.gateway,
            interface: 2,
        });
        AddReply {
            interfaces: vec![
                host.clone(),
                end(self.host_end.as_str(), host_end, None),
                end(&self.key.ifname, self.mac, Some(self.netns.clone())),
            ],
            ips: ips.collect(),
            routes: self.routes.clone(),
        }
    }
}

/// How the alias of every device of ours begins.
pub const ALIAS: &str = "tapline";
