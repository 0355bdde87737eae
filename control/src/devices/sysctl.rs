//! The kernel's network settings, `/proc/sys/net`, of one namespace.
//!
//! In: a namespace and a [`Setting`].
//! Out: its value, read or written.
//! Never: writes outside `/proc/sys/net`, or to the namespace of the calling thread.
//!
//! Which namespace a file below `/proc/sys/net` speaks for is decided by the thread that opens
//! it, so each access runs on a thread inside.

use std::fmt;
use std::ops::RangeInclusive;

use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;
use crate::devices::netlink::Netlink;
use crate::devices::netns::Netns;

/// Whom a per-device setting is for.
#[derive(Clone, Copy, Debug)]
pub enum Conf<'a> {
    /// All devices, now.
    All,
    /// Devices made from now on.
    Default,
    /// One device.
    Device(&'a DeviceName),
}

/// A setting of a namespace.
#[derive(Clone, Copy, Debug)]
pub enum Setting<'a> {
    /// IPv6 is off (1) or on (0).
    DisableIpv6(Conf<'a>),
    /// IPv6 router advertisements are heeded.
    AcceptRa(Conf<'a>),
    /// IPv6 duplicate address detection.
    AcceptDad(Conf<'a>),
    /// The node forwards IPv4.
    IpForward,
    /// The node forwards IPv6, on every device that it has or will have.
    Ipv6Forwarding,
    /// Reverse path filter: 0 off, 1 strict, 2 loose. The highest of `all` and the device holds.
    RpFilter(Conf<'a>),
    /// A device that comes up tells who it is by ARP.
    ArpNotify(Conf<'a>),
    /// The same by neighbour advertisements.
    NdiscNotify(Conf<'a>),
    /// The node tells whoever sends to it that another way is shorter. On if `all` or the device is.
    SendRedirects(Conf<'a>),
    /// The groups that may open ICMP sockets.
    PingGroupRange,
}

impl fmt::Display for Conf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Conf::All => "all",
            Conf::Default => "default",
            Conf::Device(name) => name.as_str(),
        })
    }
}

impl fmt::Display for Setting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::DisableIpv6(conf) => write!(f, "ipv6/conf/{conf}/disable_ipv6"),
            Setting::AcceptRa(conf) => write!(f, "ipv6/conf/{conf}/accept_ra"),
            Setting::AcceptDad(conf) => write!(f, "ipv6/conf/{conf}/accept_dad"),
            Setting::IpForward => f.write_str("ipv4/ip_forward"),
            Setting::Ipv6Forwarding => f.write_str("ipv6/conf/all/forwarding"),
            Setting::RpFilter(conf) => write!(f, "ipv4/conf/{conf}/rp_filter"),
            Setting::ArpNotify(conf) => write!(f, "ipv4/conf/{conf}/arp_notify"),
            Setting::NdiscNotify(conf) => write!(f, "ipv6/conf/{conf}/ndisc_notify"),
            Setting::SendRedirects(conf) => write!(f, "ipv4/conf/{conf}/send_redirects"),
            Setting::PingGroupRange => f.write_str("ipv4/ping_group_range"),
        }
    }
}

/// Reads a setting.
///
/// # Errors
/// `ENOENT` if the kernel has no such setting.
pub fn get(namespace: &Netns, setting: Setting<'_>) -> Result<String, DeviceError> {
    let path = format!("/proc/sys/net/{setting}");
    let read = namespace.run(|| std::fs::read_to_string(&path));
    read.map(|text| text.trim().to_owned())
        .map_err(|source| DeviceError::Inside {
            attempt: format!("read {path}"),
            namespace: namespace.name().into(),
            source,
        })
}

/// Writes a setting, unless it has that value already.
///
/// # Errors
/// What opening or writing says: `EROFS` in a container whose `/proc/sys` is read-only.
pub fn set(namespace: &Netns, setting: Setting<'_>, value: &str) -> Result<(), DeviceError> {
    if get(namespace, setting).is_ok_and(|now| now == value) {
        return Ok(());
    }
    let path = format!("/proc/sys/net/{setting}");
    namespace
        .run(|| std::fs::write(&path, value))
        .map_err(|source| DeviceError::Inside {
            attempt: format!("write '{value}' to {path}"),
            namespace: namespace.name().into(),
            source,
        })
}

/// Lets the namespace forward IPv4, or stops it.
///
/// # Errors
/// As [`set`].
pub fn set_ip_forward(namespace: &Netns, on: bool) -> Result<(), DeviceError> {
    set(namespace, Setting::IpForward, if on { "1" } else { "0" })
}

/// Lets the namespace forward IPv6, or stops it. A forwarding node heeds no router advertisements
/// unless a device is told to all the same.
///
/// # Errors
/// As [`set`].
pub fn set_ipv6_forwarding(namespace: &Netns, on: bool) -> Result<(), DeviceError> {
    let value = if on { "1" } else { "0" };
    set(namespace, Setting::Ipv6Forwarding, value)
}

/// Lets the groups in `range` open ICMP sockets without privilege.
///
/// # Errors
/// As [`set`]; `EINVAL` for a group that the user namespace does not map.
pub fn set_ping_groups(namespace: &Netns, range: RangeInclusive<u32>) -> Result<(), DeviceError> {
    set(
        namespace,
        Setting::PingGroupRange,
        &format!("{}\t{}", range.start(), range.end()),
    )
}

/// Switches IPv6 off on a device, for which there are three ways to be silent: the kernel has no
/// IPv6, the setting says so, or, where `/proc/sys` may not be written, the device gets no
/// link-local address. To be called before the device comes up: a device that is up has spoken.
///
/// # Errors
/// What the last of the ways says.
pub fn silence_ipv6(net: &Netlink, device: &DeviceName) -> Result<(), DeviceError> {
    let refused = match set(
        net.namespace(),
        Setting::DisableIpv6(Conf::Device(device)),
        "1",
    ) {
        Ok(()) => return Ok(()),
        Err(refused) => refused,
    };
    match refused.errno() {
        Some(nix::libc::ENOENT) => Ok(()),
        Some(nix::libc::EROFS | nix::libc::EACCES | nix::libc::EPERM) => {
            net.set_no_link_local(device)
        }
        _ => Err(refused),
    }
}
