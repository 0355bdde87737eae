//! The attachments of a switch: how its TAPs hang between pods, the node and the network.
//!
//! In: checked names, addresses and prefixes, and open [`Netlink`]s.
//! Out: devices wired so that every frame meant for the switch reaches a TAP, and nothing else.
//! Never: takes over a device of the node. `attach` twice is `attach` once, `detach` leaves
//! nothing of ours and everything of others.
//!
//! ```text
//!  pod eth0 ==veth== host end <-redirect-> TAP      pod port      (pod.rs)
//!  pod eth0 = TAP                                   pod port      (pod.rs)
//!  node's kernel -- azure0 or cbr0 = TAP            host port     (host.rs)
//!  eth0 <-redirect- TAP, eth0 -steer pods-> TAP     uplink        (uplink.rs)
//!  copies0 = TAP -redirect-> azure0 or cbr0         for listeners (copies.rs)
//! ```
//!
//! Devices that only carry the switch's frames are struck dumb before they come up: no IPv6, no
//! ARP, no queue.

pub mod copies;
pub mod host;
pub mod limit;
pub mod pod;
pub mod uplink;

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv4Subnets};

use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;
use crate::devices::netlink::Netlink;
use crate::devices::sysctl;
use crate::devices::tap::{self, TapSpec};

pub use copies::Copies;
pub use host::HostPort;
pub use limit::{BadLimit, Limit, Limits};
pub use pod::{PodEnd, PodTap, PodVeth};
pub use uplink::{ArpSteering, SteeredBy, Uplink};

/// The fewest prefixes that hold exactly the addresses from `first` to `last`, both included;
/// none if `last` comes before `first`.
#[must_use]
pub fn cover(first: Ipv4Addr, last: Ipv4Addr) -> Vec<Ipv4Net> {
    if first > last {
        Vec::new()
    } else {
        Ipv4Subnets::new(first, last, 0).collect()
    }
}

/// Makes a device that carries the switch's frames and has nothing to say itself, and brings it
/// up.
///
/// # Errors
/// What the kernel says.
pub(crate) fn hush_and_raise(net: &Netlink, name: &DeviceName) -> Result<(), DeviceError> {
    let link = net.link(name)?;
    sysctl::silence_ipv6(net, name)?;
    if !link.no_arp {
        net.set_no_arp(name, true)?;
    }
    if !link.up {
        net.set_up(name, true)?;
    }
    Ok(())
}

/// A TAP whose frames leave by `device`, and to which nothing comes yet: it may be opened in peace.
///
/// # Errors
/// [`DeviceError::Missing`] without the device, otherwise what failed.
pub(crate) fn make_way_out(
    net: &Netlink,
    spec: &TapSpec,
    device: &DeviceName,
) -> Result<(), DeviceError> {
    net.index(device)?;
    tap::ensure(net, spec)?;
    net.ensure_clsact(&spec.name)?;
    pod::tie(net, &spec.name, device)?;
    hush_and_raise(net, &spec.name)
}

fn ensure_alias(net: &Netlink, name: &DeviceName, alias: &str) -> Result<(), DeviceError> {
    if net.link(name)?.alias.as_deref().unwrap_or_default() == alias {
        return Ok(());
    }
    net.set_alias(name, alias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_seeds_pod_range_is_covered_by_few_prefixes() {
        let found = cover(Ipv4Addr::new(10, 20, 0, 5), Ipv4Addr::new(10, 20, 0, 34));
        let text: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "10.20.0.5/32",
                "10.20.0.6/31",
                "10.20.0.8/29",
                "10.20.0.16/28",
                "10.20.0.32/31",
                "10.20.0.34/32"
            ]
        );
        assert!(cover(Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 1)).is_empty());
        let all = cover(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        assert_eq!(
            all,
            [Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0).expect("legal")]
        );
    }

    proptest! {
        #[test]
        fn a_cover_holds_each_address_once_and_no_other(first: u32, count in 0u32..5000) {
            let last = first.saturating_add(count);
            let found = cover(first.into(), last.into());
            let held: u64 = found.iter().map(|net| 1 << (32 - u32::from(net.prefix_len()))).sum();
            prop_assert_eq!(held, u64::from(last - first) + 1);
            let mut next = u64::from(first);
            for net in &found {
                prop_assert_eq!(u64::from(u32::from(net.network())), next);
                next = u64::from(u32::from(net.broadcast())) + 1;
            }
            prop_assert!(found.len() <= 62);
        }
    }
}
