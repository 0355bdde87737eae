//! Tables of an input's own.
//!
//! In: bytes. Out: a [`TablesSpec`], sound or not, and the frames that follow it.
//! Never: keeps to what `control` would compile: the dataplane checks what it is given.
//!
//! A spec is lists, each a byte of length and its rows, in the order of the fields of
//! [`TablesSpec`]: ports, owners, router MACs, routes, groups; then the crossing and a byte for
//! unknown stations (its lowest bit), policy (the next), and what the guards of all ports do (two
//! more).

use std::net::IpAddr;

use dataplane::addr::{PortId, Station};
use dataplane::tables::fib::NextHop;
use dataplane::tables::fib::group::{Group, GroupId};
use dataplane::tables::guard::{Mode, PortGuard};
use dataplane::tables::{
    Addresses, Crossing, Owner, Policy, PortRole, PortSpec, TablesSpec, Unknown,
};

use crate::input::{Input, PORT_CHOICES};
use crate::{POD_A, port};

/// Rows of any one list: enough for each known address to have some, and few enough that a table
/// is built in microseconds.
const ROWS_MAX: u8 = 32;

/// MTUs by two bits: none, the least of IPv6, the usual one, the most.
const MTUS: [u16; 4] = [0, 1280, 1500, u16::MAX];

pub(crate) fn spec(input: &mut Input<'_>) -> TablesSpec {
    let ports = list(input, port_row);
    let owners = list(input, owner_row);
    let router_macs = list(input, |input| input.mac());
    let routes = list(input, |input| (input.prefix(), next_hop(input)));
    let groups = list(input, |input| Group::new(&list(input, next_hop)).ok());
    let (crossing, last) = (crossing(input), input.byte());
    let guards = guards(&ports, last >> 2 & 0b11);
    TablesSpec {
        ports,
        owners,
        router_macs,
        routes,
        groups: groups.into_iter().flatten().collect(),
        crossing,
        policy: match last & 2 {
            0 => Policy::None,
            _ => Policy::ViaHost,
        },
        unknown: match last & 1 {
            0 => Unknown::Flood,
            _ => Unknown::Drop,
        },
        guards,
    }
}

/// The guards of a plan, all in one mode, for whatever ports there are.
fn guards(ports: &[PortSpec], mode: u8) -> Vec<(PortId, PortGuard)> {
    let mode = match mode {
        0 => return Vec::new(),
        1 => Mode::Observe,
        _ => Mode::Enforce,
    };
    let guard = |port: &PortSpec| match port.role {
        PortRole::Pod => Some((port.id, PortGuard::pod(mode))),
        PortRole::Host => Some((port.id, PortGuard::host(mode))),
        PortRole::Uplink => None,
    };
    ports.iter().filter_map(guard).collect()
}

fn list<T>(input: &mut Input<'_>, row: impl Fn(&mut Input<'_>) -> T) -> Vec<T> {
    let rows = input.byte().min(ROWS_MAX);
    (0..rows).map(|_| row(input)).collect()
}

fn port_row(input: &mut Input<'_>) -> PortSpec {
    let control = input.byte();
    let role = match control >> 3 & 0b11 {
        0 => PortRole::Host,
        1 => PortRole::Uplink,
        _ => PortRole::Pod,
    };
    PortSpec {
        id: port(usize::from(control) % PORT_CHOICES),
        role,
        mac: Station::new(input.mac()).unwrap_or_else(|_| crate::station(POD_A)),
        mtu: MTUS[usize::from(control >> 5 & 0b11)],
        hairpin: control & 0x80 != 0,
        // Of the pods every second one.
        isolated: role == PortRole::Pod && control & 0x08 != 0,
    }
}

fn owner_row(input: &mut Input<'_>) -> (IpAddr, Owner) {
    let address = input.address();
    let port = port(usize::from(input.byte()) % PORT_CHOICES);
    let mac = input.mac();
    (address, Owner { port, mac })
}

/// A next hop: its kind by the low three bits of a byte, a port or a group by the high five.
pub(crate) fn next_hop(input: &mut Input<'_>) -> NextHop {
    let control = input.byte();
    let number = usize::from(control >> 3);
    match control & 0b111 {
        0 | 1 => NextHop::Station {
            port: port(number % PORT_CHOICES),
            mac: input.mac(),
        },
        2 => NextHop::Host,
        3 | 4 => NextHop::Neighbour(input.address()),
        5 => NextHop::Unreachable,
        6 => NextHop::Blackhole,
        _ => NextHop::Group(GroupId::new(number).expect("five bits are in range")),
    }
}

fn crossing(input: &mut Input<'_>) -> Crossing {
    let control = input.byte();
    if control & 1 == 0 {
        return Crossing::Bridged;
    }
    let uplink = addresses(input, control >> 1);
    let gateway = addresses(input, control >> 3);
    Crossing::Routed { uplink, gateway }
}

/// Two bits say which families there are an address of.
fn addresses(input: &mut Input<'_>, has: u8) -> Addresses {
    let mut addresses = Addresses::default();
    for _ in 0..(has & 0b11).count_ones() {
        match input.address() {
            IpAddr::V4(v4) => addresses.v4 = Some(v4),
            IpAddr::V6(v6) => addresses.v6 = Some(v6),
        }
    }
    addresses
}
