//! A node in numbers: its tables, as both network plugins would have them, and frames for it.
//!
//! In: how many pods, and whose frames. Out: tables that are sound, and whole frames.
//! Never: a random choice that is not the same in every run.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::addr::{Mac, PortId, Station};
use dataplane::frame::offload::{GSO_TCPV4, NEEDS_CSUM, Offload};
use dataplane::tables::fib::NextHop;
use dataplane::tables::guard::{Mode, PortGuard};
use dataplane::tables::{Crossing, Owner, Policy, PortRole, PortSpec, TablesSpec, Unknown};
use etherparse::PacketBuilder;
use ipnet::{IpNet, Ipv4Net};

/// The host's port.
pub const HOST: usize = 0;
/// The uplink's port.
pub const UPLINK: usize = 1;
/// The port of the first pod.
pub const POD: usize = 2;

/// Azure's one hardware address for everything beyond the NIC.
pub const FABRIC: Mac = Mac::new([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);
/// The node's NIC.
pub const NIC: Mac = Mac::new([0, 0x0d, 0x3a, 0x21, 0xaf, 0x12]);
/// kubenet's gateway.
pub const GATEWAY: Mac = Mac::new([0x0a, 0x58, 0x0a, 0xf4, 1, 1]);

/// A port by number.
///
/// # Panics
/// If there is no such port.
#[must_use]
pub fn port(id: usize) -> PortId {
    PortId::new(id).expect("a port's number")
}

/// The hardware address of station `number`.
#[must_use]
pub const fn station(number: usize) -> Mac {
    let [_, _, _, _, _, a, b, c] = (number as u64).to_be_bytes();
    Mac::new([2, 0, 0, a, b, c])
}

/// The address of pod `number` in `net`, whose first hosts are the node's own.
#[must_use]
pub const fn pod_ip(net: [u8; 2], number: usize) -> Ipv4Addr {
    let host = number as u16 + 10;
    Ipv4Addr::new(net[0], net[1], (host >> 8) as u8, host as u8)
}

fn row(id: usize, role: PortRole, mac: Mac) -> PortSpec {
    PortSpec {
        id: port(id),
        role,
        mac: Station::new(mac).expect("one owner"),
        mtu: 1500,
        hairpin: false,
        isolated: false,
    }
}

fn route(prefix: &str, hop: NextHop) -> (IpNet, NextHop) {
    (prefix.parse().expect("a prefix"), hop)
}

/// Ports, owners and /32 routes of `pods` pods in `net`, and the host at `.1.4`.
fn node(pods: usize, net: [u8; 2], host: Mac) -> TablesSpec {
    let mut spec = TablesSpec {
        ports: vec![
            row(HOST, PortRole::Host, host),
            row(UPLINK, PortRole::Uplink, NIC),
        ],
        owners: Vec::new(),
        router_macs: Vec::new(),
        routes: Vec::new(),
        groups: Vec::new(),
        crossing: Crossing::Bridged,
        policy: Policy::None,
        unknown: Unknown::Drop,
        guards: Vec::new(),
    };
    for pod in 0..pods {
        let (id, mac) = (POD + pod, station(pod));
        let address = pod_ip(net, pod);
        spec.ports.push(row(id, PortRole::Pod, mac));
        let owner = Owner {
            port: port(id),
            mac,
        };
        spec.owners.push((IpAddr::V4(address), owner));
        let hop = NextHop::Station {
            port: port(id),
            mac,
        };
        spec.routes.push((Ipv4Net::from(address).into(), hop));
    }
    spec
}

/// A node under the azure plugin.
#[must_use]
pub fn azure(pods: usize) -> TablesSpec {
    let mut spec = node(pods, [10, 20], NIC);
    let fabric = NextHop::Station {
        port: port(UPLINK),
        mac: FABRIC,
    };
    spec.router_macs = vec![FABRIC, NIC];
    spec.routes.extend([
        route("10.20.0.0/16", fabric),
        route("10.10.0.0/24", fabric),
        route("10.0.0.0/16", NextHop::Host),
        route("0.0.0.0/0", NextHop::Host),
    ]);
    spec
}

/// A node under kubenet, which routes to 60 others.
#[must_use]
pub fn kubenet(pods: usize) -> TablesSpec {
    let mut spec = node(pods, [10, 244], GATEWAY);
    spec.router_macs = vec![GATEWAY];
    spec.unknown = Unknown::Flood;
    spec.crossing = Crossing::Routed {
        uplink: Ipv4Addr::new(10, 20, 0, 4).into(),
        gateway: Ipv4Addr::new(10, 244, 0, 1).into(),
    };
    spec.routes
        .push(route("10.244.0.0/23", NextHop::Unreachable));
    for other in 1..=60u8 {
        let prefix = format!("10.245.{other}.0/24");
        let hop = NextHop::Station {
            port: port(UPLINK),
            mac: Mac::new([0, 0x0d, 0x3a, 0, 1, other]),
        };
        spec.routes.push(route(&prefix, hop));
    }
    spec.routes.push(route("0.0.0.0/0", NextHop::Host));
    spec
}

/// The same node with all guards of its pods and its host in one mode, as a plan has them.
#[must_use]
pub fn guarded(mut spec: TablesSpec, mode: Mode) -> TablesSpec {
    let guard = |port: &PortSpec| match port.role {
        PortRole::Pod => Some((port.id, PortGuard::pod(mode))),
        PortRole::Host => Some((port.id, PortGuard::host(mode))),
        PortRole::Uplink => None,
    };
    spec.guards = spec.ports.iter().filter_map(guard).collect();
    spec
}

/// A UDP frame of `len` bytes without FCS.
///
/// # Panics
/// If `len` is under the 42 bytes of its headers.
#[must_use]
pub fn udp(source: Mac, target: Mac, from: Ipv4Addr, to: Ipv4Addr, len: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(len);
    PacketBuilder::ethernet2(source.octets(), target.octets())
        .ipv4(from.octets(), to.octets(), 64)
        .udp(5000, 6000)
        .write(&mut frame, &vec![0x5a; len - 42])
        .expect("a vector takes every write");
    frame
}

/// The same for IPv6, with 62 bytes of headers.
///
/// # Panics
/// If `len` is under those.
#[must_use]
pub fn udp6(source: Mac, target: Mac, from: Ipv6Addr, to: Ipv6Addr, len: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(len);
    PacketBuilder::ethernet2(source.octets(), target.octets())
        .ipv6(from.octets(), to.octets(), 64)
        .udp(5000, 6000)
        .write(&mut frame, &vec![0x5a; len - 62])
        .expect("a vector takes every write");
    frame
}

/// A TCP super-frame with `payload` bytes in segments of `gso_size`, its checksum undone.
///
/// # Panics
/// If `payload` does not fit an IPv4 packet.
#[must_use]
pub fn super_frame(source: Mac, target: Mac, payload: usize, gso_size: u16) -> (Vec<u8>, Offload) {
    let (from, to) = (Ipv4Addr::new(10, 20, 0, 10), Ipv4Addr::new(10, 20, 0, 11));
    let mut frame = Vec::with_capacity(payload + 54);
    PacketBuilder::ethernet2(source.octets(), target.octets())
        .ipv4(from.octets(), to.octets(), 64)
        .tcp(5000, 6000, 1, 1024)
        .write(&mut frame, &vec![0x5a; payload])
        .expect("a vector takes every write");
    let length = u32::try_from(20 + payload).expect("under 64 KB");
    let pseudo = dataplane::frame::checksum::sum(&frame[26..34], 6 + length);
    frame[50..52].copy_from_slice(&pseudo.to_be_bytes());
    let offload = Offload {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 54,
        gso_size,
        csum_start: 34,
        csum_offset: 16,
    };
    (frame, offload)
}
