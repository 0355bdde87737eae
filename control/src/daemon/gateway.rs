//! `isGateway` and `forceAddress`: which gateway the host port holds where an `ipam` plugin names it.
//!
//! In: an ADD's addresses, and what the host port has. Out: nothing to do, a refusal, or another
//! address on the host port in the tables, on the device and in the state file.
//! Never: takes a gateway's place without being told to, or keeps one of an ADD that failed.
//!
//! As the reference `bridge` plugin has it, with one gateway of each family: one that differs is an
//! error, and with `forceAddress` it is replaced, whoever relied on it. Its IPv4 pod CIDR stays
//! the node's as well, so that pods with addresses of it get their frames from the uplink still.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::addr::Station;
use ipnet::{IpNet, Ipv4Net};

use super::attachment::{Attachment, Held};
use super::core::{Core, DaemonError};
use crate::api::types::{AddRequest, ApiError, ErrorKind};
use crate::compile::NodeSpec;
use crate::devices::name::DeviceName;
use crate::devices::netlink::Netlink;
use crate::plan::Plugin;

/// What was there before, to be put back if the ADD fails.
#[derive(Debug)]
pub(super) struct Before {
    spec: NodeSpec,
    forced: Vec<IpNet>,
}

/// The gateway that `bridge` takes where an `ipam` plugin names none: the first address of the link.
pub(super) fn first_of(link: IpNet) -> Option<IpAddr> {
    let first = match link.network() {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits().checked_add(1)?)),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits().checked_add(1)?)),
    };
    (link.contains(&first) && first != link.addr()).then_some(first)
}

/// The gateway with the link that the pod's address has.
fn on_link(held: &Held) -> Option<IpNet> {
    IpNet::new(held.gateway?, held.address.prefix_len()).ok()
}

/// Gives the node that gateway in the place of the one of its family, and its link to its pods.
pub(super) fn replace(spec: &mut NodeSpec, gateway: IpNet) {
    let v4 = gateway.addr().is_ipv4();
    spec.gateways.retain(|net| net.addr().is_ipv4() != v4);
    spec.gateways.push(gateway);
    match gateway.trunc() {
        IpNet::V4(link) => {
            let all: Vec<Ipv4Net> = spec.pods.iter().copied().chain([link]).collect();
            spec.pods = Ipv4Net::aggregate(&all);
            spec.pods.sort();
        }
        IpNet::V6(link) => spec.pods_v6 = Some(link),
    }
}

/// Of the gateways that were forced before, those that count still: a pod that lives has it, or the
/// host port. With them the host port keeps the hardware address that those pods know.
pub(super) fn resume<'a>(
    spec: &mut NodeSpec,
    net: &Netlink,
    host: &DeviceName,
    kept: Vec<IpNet>,
    living: impl Iterator<Item = &'a Attachment> + Clone,
) -> Vec<IpNet> {
    let on_device = net.addresses(host).unwrap_or_default();
    let named = |gateway: &IpNet| {
        let mut held = living.clone().flat_map(|one| &one.addresses);
        held.any(|held| held.gateway == Some(gateway.addr()))
    };
    let counts = |gateway: &IpNet| on_device.contains(gateway) || named(gateway);
    let forced: Vec<IpNet> = kept.into_iter().filter(counts).collect();
    for gateway in &forced {
        replace(spec, *gateway);
    }
    let device = net.find_link(host).ok().flatten();
    let known = device.and_then(|link| Station::new(link.mac?).ok());
    if let (Some(known), false) = (known, forced.is_empty()) {
        spec.macs.host = known;
    }
    forced
}

impl Core {
    /// The gateways of a pod that the host port is to hold and does not. Under azure it holds none:
    /// the gateway is the fabric.
    fn strange_gateways(&self, request: &AddRequest, addresses: &[Held]) -> Vec<IpNet> {
        let built_in = request.assigned.is_empty();
        if self.spec.plugin == Plugin::Azure || !(request.is_gateway || built_in) {
            return Vec::new();
        }
        let held = |gateway: &IpNet| {
            let mut held = self.spec.gateways.iter();
            held.any(|net| net.addr() == gateway.addr())
        };
        let wanted = addresses.iter().filter_map(on_link);
        wanted.filter(|gateway| !held(gateway)).collect()
    }

    /// A gateway that differs from what the host port has is an error, unless it may be replaced.
    pub(super) fn check_gateways(
        &self,
        request: &AddRequest,
        addresses: &[Held],
    ) -> Result<(), ApiError> {
        let invalid = |why| Err(ApiError::new(ErrorKind::Invalid, why));
        for gateway in self.strange_gateways(request, addresses) {
            let host = self.settings.host.as_str();
            let v4 = gateway.addr().is_ipv4();
            if !v4 && self.spec.pods_v6.is_none() {
                return invalid(format!(
                    "{gateway} cannot be {host:?}'s: this node's pods have no IPv6"
                ));
            }
            if !request.force_address {
                return invalid(format!(
                    "{host:?} already has an IP address different from {gateway}: with \
                     \"forceAddress\": true it is replaced, for every pod on this node"
                ));
            }
            let own = (self.spec.own.v4.map(IpAddr::V4).into_iter())
                .chain(self.spec.own.v6.map(IpAddr::V6));
            if let Some(own) = own.into_iter().find(|own| gateway.contains(own)) {
                return invalid(format!(
                    "forceAddress: {} holds {own}, the node's own address on {}",
                    gateway.trunc(),
                    self.settings.uplink
                ));
            }
        }
        Ok(())
    }

    /// Puts the pod's gateways in the place of those that the host port has. Nothing is published yet.
    pub(super) fn force_gateways(
        &mut self,
        request: &AddRequest,
        addresses: &[Held],
    ) -> Result<Option<Before>, ApiError> {
        let wanted = self.strange_gateways(request, addresses);
        if wanted.is_empty() {
            return Ok(None);
        }
        let before = Before {
            spec: self.spec.clone(),
            forced: self.forced.clone(),
        };
        for gateway in wanted {
            replace(&mut self.spec, gateway);
            let v4 = gateway.addr().is_ipv4();
            self.forced.retain(|net| net.addr().is_ipv4() != v4);
            self.forced.push(gateway);
        }
        if let Err(refused) = self.move_gateways(&before.spec.gateways) {
            self.put_back(before);
            return Err(refused.into());
        }
        self.tell_forced(&before.spec.gateways, request);
        Ok(Some(before))
    }

    /// The ADD failed: the host port has again what it had.
    pub(super) fn put_back(&mut self, before: Before) {
        let failed = std::mem::replace(&mut self.spec, before.spec);
        self.forced = before.forced;
        let moved = self.move_gateways(&failed.gateways);
        if let Err(error) = moved.and_then(|()| self.publish()) {
            tracing::error!("putting the gateways back: {error}");
        }
    }

    /// The host port loses what it is not to have before it gets what it lacks: an address of the same
    /// link that came second would go with the first.
    fn move_gateways(&self, had: &[IpNet]) -> Result<(), DaemonError> {
        let now = &self.spec.gateways;
        for gone in had.iter().filter(|net| !now.contains(net)) {
            self.net.remove_address(&self.settings.host, *gone)?;
        }
        self.host_port().attach(&self.net)?;
        match &self.keeper {
            Some(keeper) => Ok(keeper.change(self.uplink())?),
            None => Ok(()),
        }
    }

    fn tell_forced(&self, had: &[IpNet], request: &AddRequest) {
        let now = &self.spec.gateways;
        for gone in had.iter().filter(|net| !now.contains(net)) {
            let all = self.attachments.values().flat_map(|one| &one.addresses);
            let bereft = all.filter(|held| held.gateway == Some(gone.addr())).count();
            tracing::warn!(
                "forceAddress of the network {}: {} has no longer {gone}, which is the gateway of \
                 {bereft} pods",
                request.key.network,
                self.settings.host
            );
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::compile::NodeMacs;
    use crate::plan::{LoadOptions, load};

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_address_of_a_link_is_its_gateway_unless_it_is_the_pods_own() {
        let first = |text| first_of(net(text)).map(|ip| ip.to_string());
        assert_eq!(first("10.99.7.20/16").as_deref(), Some("10.99.0.1"));
        assert_eq!(first("fd00:7::20/64").as_deref(), Some("fd00:7::1"));
        for none in ["10.99.0.1/24", "10.99.0.7/32", "255.255.255.255/32"] {
            assert_eq!(first(none), None, "{none}");
        }
    }

    #[test]
    fn one_gateway_of_each_family_is_there_and_the_pod_cidr_stays_the_nodes() {
        let options = LoadOptions {
            plugin: Some(Plugin::Kubenet),
            ..LoadOptions::built_in_dual_stack()
        };
        let plan = load(&options).unwrap();
        let node = &plan.nodes[0];
        let station = |text: &str| Station::new(text.parse().unwrap()).unwrap();
        let macs = NodeMacs {
            nic: station("00:0d:3a:21:af:12"),
            host: station("0a:58:0a:f4:00:01"),
        };
        let mut spec = NodeSpec::planned(&plan, node, macs);
        let before = spec.clone();
        replace(&mut spec, net("10.99.0.1/24"));
        let v6 = *before.gateways.iter().find(|g| g.addr().is_ipv6()).unwrap();
        assert_eq!(spec.gateways, [v6, net("10.99.0.1/24")]);
        let mut pods = before.pods.clone();
        pods.push("10.99.0.0/24".parse().unwrap());
        pods.sort();
        assert_eq!((spec.pods.clone(), spec.pods_v6), (pods, before.pods_v6));
        replace(&mut spec, net("fd00:99::1/64"));
        assert_eq!(spec.gateways, [net("10.99.0.1/24"), net("fd00:99::1/64")]);
        assert_eq!(spec.pods_v6, Some("fd00:99::/64".parse().unwrap()));
        // Twice is once.
        let once = spec.clone();
        replace(&mut spec, net("fd00:99::1/64"));
        assert_eq!(spec, once);
    }
}
