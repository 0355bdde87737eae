//! What the world looks like: everything configured, checked, and published whole.
//!
//! In: a [`TablesSpec`], plain fields that anybody may fill.
//! Out: [`Tables`], which cannot be wrong in the ways listed in [`Fault`].
//! Never: changes. A new table replaces the old one between two batches.

pub mod fdb;
pub mod fib;
pub(crate) mod fragments;
pub mod guard;
pub mod live;
pub mod neighbour;
pub mod returns;
mod stations;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::addr::{Mac, PortId, Station};
use crate::frame::flow::Flow;
use crate::sync::Arc;
use fib::group::{GROUPS_MAX, Group, GroupId};
use fib::{Fib, NextHop, Refusal};
use guard::{Guarded, MORE_MAX, PortGuard};
use live::LiveTables;
use stations::Stations;

/// Addresses that somebody on a switch may hold: eight for each port.
pub const OWNERS_MAX: usize = 8 * PortId::COUNT_MAX;

/// What hangs on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortRole {
    /// A pod.
    Pod,
    /// The node's own kernel: `azure0` or `cbr0`.
    Host,
    /// The node's NIC, of which this switch sees only what is steered to it.
    Uplink,
}

/// One port as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// Its number.
    pub id: PortId,
    /// What hangs on it.
    pub role: PortRole,
    /// The hardware address beyond the port: the pod's, the host interface's, the NIC's.
    pub mac: Station,
    /// The longest IP packet it takes, in bytes.
    pub mtu: u16,
    /// May a frame leave by the port it came in by?
    pub hairpin: bool,
    /// Isolated ports reach no isolated port, themselves included, and every other one: as the
    /// flag of that name of a Linux bridge's port (`br_skb_isolated`, net/bridge/br_private.h).
    pub isolated: bool,
}

impl PortSpec {
    /// True if nothing may pass from here to `egress`.
    #[inline(always)]
    #[must_use]
    pub const fn is_isolated_from(&self, egress: &PortSpec) -> bool {
        self.isolated && egress.isolated
    }
}

/// An address that somebody on this switch holds, so that the switch may answer for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The port of the holder.
    pub port: PortId,
    /// The hardware address of the holder.
    pub mac: Mac,
}

/// What one holder is called, at most once in each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Its IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl From<Ipv4Addr> for Addresses {
    fn from(address: Ipv4Addr) -> Addresses {
        Addresses {
            v4: Some(address),
            v6: None,
        }
    }
}

/// What to do with a frame for a station that nobody has heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// Flood it to pods and host, as a bridge does.
    #[default]
    Flood,
    /// Drop it: every station is known, so this one does not exist.
    Drop,
}

/// Whether rules of the node's kernel hold between pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// None does: the switch delivers to pods itself.
    #[default]
    None,
    /// They may: every IP packet from a pod, and every one from the uplink for a pod, goes to the
    /// host port, and only what comes from there is delivered. The kernel takes a hop off each.
    ViaHost,
}

/// How the switch treats packets that cross between its stations and the uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// As a bridge with address translation (azure): the TTL stays, the source MAC becomes the
    /// NIC's on the way out, questions for unknown addresses go out too.
    Bridged,
    /// As a router (kubenet): one TTL a crossing, both MACs change, `uplink` is who asks.
    Routed {
        /// The node's own address on the uplink, in whose name neighbours are asked.
        uplink: Addresses,
        /// The address from which the switch speaks to pods when it refuses a packet.
        gateway: Addresses,
    },
}

/// All that control says about a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablesSpec {
    /// The ports; at most one host and one uplink.
    pub ports: Vec<PortSpec>,
    /// Who holds which address.
    pub owners: Vec<(IpAddr, Owner)>,
    /// MACs of the router: frames to them are looked up by IP address.
    pub router_macs: Vec<Mac>,
    /// The routes.
    pub routes: Vec<(IpNet, NextHop)>,
    /// The groups of next hops that routes may name, by their place in this list.
    pub groups: Vec<Group>,
    /// How packets cross the uplink.
    pub crossing: Crossing,
    /// Whether pods reach each other by the host's rules only.
    pub policy: Policy,
    /// What becomes of frames for unknown stations.
    pub unknown: Unknown,
    /// The guards of ports; a port that is not named has none.
    pub guards: Vec<(PortId, PortGuard)>,
}

/// A row that names a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namer {
    /// The holder of an address.
    Owner(IpAddr),
    /// A route.
    Route(IpNet),
    /// A guard.
    Guard,
}

impl fmt::Display for Namer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Namer::Owner(address) => write!(f, "the holder of {address}"),
            Namer::Route(prefix) => write!(f, "route {prefix}"),
            Namer::Guard => f.write_str("a guard"),
        }
    }
}

/// Why a specification is no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Two rows for one port.
    #[error("{0:?} is given twice")]
    PortTwice(PortId),
    /// More addresses than a switch holds.
    #[error("{0} addresses have holders, and a switch knows at most {OWNERS_MAX}")]
    TooManyOwners(usize),
    /// More stations or addresses than a port is given.
    #[error("{0:?} is given {1} further stations or addresses, and a port has at most {MORE_MAX}")]
    TooManyMore(PortId, usize),
    /// Two guards for one port.
    #[error("{0:?} has two guards")]
    GuardTwice(PortId),
    /// Two host ports or two uplinks.
    #[error("{0:?} and {1:?} are both {2:?}, and a switch has at most one")]
    RoleTwice(PortId, PortId, PortRole),
    /// One pod or host address on two ports.
    #[error("{0} is the station of two ports, {1:?} and {2:?}")]
    StationTwice(Station, PortId, PortId),
    /// One protocol address with two holders.
    #[error("{0} is held by {1:?} and by {2:?}")]
    AddressTwice(IpAddr, PortId, PortId),
    /// An address whose holder has a hardware address that no single station can have.
    #[error("{0} is held by the station {1}, which is none")]
    NoHolder(IpAddr, Mac),
    /// A row names a port that is not there.
    #[error("{0} names {1:?}, which does not exist")]
    NoSuchPort(Namer, PortId),
    /// A route to a hardware address that no single station can have.
    #[error("route {0} goes to the station {1}, which is none")]
    NoStation(IpNet, Mac),
    /// A route to an address of the switch or its node.
    #[error("route {0} goes to {1}, which is this node itself")]
    ToItself(IpNet, IpAddr),
    /// A route to a neighbour that cannot be on the uplink.
    #[error("route {0} goes to {1}, which is not on the uplink")]
    NotOnLink(IpNet, IpAddr),
    /// A route to the host without a host port, or to a neighbour without an uplink.
    #[error("route {0} needs a {1:?} port, and there is none")]
    NoPortFor(IpNet, PortRole),
    /// A route names a group that is not there.
    #[error("route {0} goes to {1}, which does not exist")]
    NoSuchGroup(IpNet, GroupId),
    /// More groups than routes could name.
    #[error("{0} groups of next hops, and a table holds at most {GROUPS_MAX}")]
    TooManyGroups(usize),
    /// Two routes for one prefix, host bits, or too many routes.
    #[error(transparent)]
    Route(#[from] Refusal),
}

/// A port's row.
pub type PortRow = PortSpec;

/// The configured state of a switch. Immutable.
#[derive(Clone, Debug)]
pub struct Tables {
    rows: Vec<Option<PortRow>>,
    guards: Vec<Option<Guarded>>,
    floods: Vec<PortId>,
    host: Option<PortRow>,
    uplink: Option<PortRow>,
    stations: Stations,
    /// With the default hasher: `FxHasher` gives the IPv6 addresses of one subnet the same bucket.
    owners: HashMap<IpAddr, Owner>,
    router_macs: Vec<Mac>,
    fib: Fib,
    groups: Arc<[Group]>,
    crossing: Crossing,
    broadcast: Option<Ipv4Addr>,
    policy: Policy,
    unknown: Unknown,
}

impl Tables {
    /// Bytes of the largest tables, without their routes. A hash table that is at most seven eighths
    /// full has up to twice as many places, each with a byte of its own.
    pub(crate) const BYTES_MAX: usize = PortId::COUNT_MAX
        * (size_of::<Option<PortRow>>() + size_of::<PortId>() + Guarded::BYTES_MAX)
        + 2 * OWNERS_MAX * (size_of::<(IpAddr, Owner)>() + 1)
        + 2 * (1 + MORE_MAX).next_power_of_two()
            * PortId::COUNT_MAX
            * (size_of::<(Mac, PortId)>() + 1);

    /// Checks `spec`.
    ///
    /// # Errors
    /// Every fault in it.
    pub fn build(spec: &TablesSpec) -> Result<Tables, Vec<Fault>> {
        LiveTables::build(spec).map(LiveTables::into_tables)
    }

    /// Everything but routes and groups. Where there are faults, nothing may come of it.
    fn without_routes(spec: &TablesSpec, faults: &mut Vec<Fault>) -> Tables {
        let rows = rows(&spec.ports, faults);
        let has = |port: PortId| rows.get(port.index()).is_some_and(Option::is_some);
        let owners = owners(&spec.owners, has, faults);
        let stations = stations(spec, faults);
        let guards = guards(spec, &rows, faults);
        let host = only(&spec.ports, PortRole::Host, faults);
        let uplink = only(&spec.ports, PortRole::Uplink, faults);
        let floods = spec
            .ports
            .iter()
            .filter(|p| p.role != PortRole::Uplink)
            .map(|p| p.id)
            .collect();
        Tables {
            rows,
            guards,
            floods,
            host,
            uplink,
            stations,
            owners,
            router_macs: spec.router_macs.clone(),
            fib: Fib::default(),
            groups: Arc::new([]),
            crossing: spec.crossing,
            broadcast: broadcast(spec),
            policy: spec.policy,
            unknown: spec.unknown,
        }
    }

    /// A table of no ports, which drops everything.
    #[must_use]
    pub fn empty() -> Tables {
        Tables {
            rows: Vec::new(),
            guards: Vec::new(),
            floods: Vec::new(),
            host: None,
            uplink: None,
            stations: Stations::default(),
            owners: HashMap::default(),
            router_macs: Vec::new(),
            fib: Fib::default(),
            groups: Arc::new([]),
            crossing: Crossing::Bridged,
            broadcast: None,
            policy: Policy::None,
            unknown: Unknown::Drop,
        }
    }

    /// The row of `port`.
    #[inline]
    #[must_use]
    pub fn port(&self, port: PortId) -> Option<&PortRow> {
        self.rows.get(port.index())?.as_ref()
    }

    /// The guards of `port`, if it has any.
    #[inline(always)]
    #[must_use]
    pub fn guard(&self, port: PortId) -> Option<&Guarded> {
        self.guards.get(port.index())?.as_ref()
    }

    /// The ports that take floods: pods and host, never the uplink, since the fabric has no
    /// broadcast and a kubenet node's NIC is no bridge port.
    #[inline]
    #[must_use]
    pub fn floods(&self) -> &[PortId] {
        &self.floods
    }

    /// Of these, the ports that take what comes in by `ingress`.
    #[inline]
    pub fn floods_from(&self, ingress: PortId) -> impl Iterator<Item = PortId> + '_ {
        let from = self.port(ingress).filter(|row| row.isolated);
        let apart = move |egress: PortId| {
            let egress = self.port(egress);
            from.zip(egress)
                .is_some_and(|(from, egress)| from.is_isolated_from(egress))
        };
        let floods = self.floods.iter().copied();
        floods.filter(move |egress| *egress != ingress && !apart(*egress))
    }

    /// The port of the node's own kernel.
    #[inline]
    #[must_use]
    pub fn host(&self) -> Option<&PortRow> {
        self.host.as_ref()
    }

    /// The number of the host's port.
    #[inline(always)]
    #[must_use]
    pub fn host_id(&self) -> Option<PortId> {
        self.host.as_ref().map(|host| host.id)
    }

    /// Whether pods reach each other by the host's rules only.
    #[inline(always)]
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The port of the node's NIC.
    #[inline]
    #[must_use]
    pub fn uplink(&self) -> Option<&PortRow> {
        self.uplink.as_ref()
    }

    /// The port of a configured station. Configuration outranks what was learned.
    #[inline]
    #[must_use]
    pub fn station(&self, mac: Mac) -> Option<PortId> {
        self.stations.find(mac)
    }

    /// True only for an address that no configured station has, nor the router, nor the NIC. It may be
    /// false for others.
    #[inline(always)]
    pub(crate) fn is_strange(&self, mac: Mac) -> bool {
        self.stations.is_strange(mac)
    }

    /// Who on this switch holds `address`.
    #[inline]
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<Owner> {
        self.owners.get(&address).copied()
    }

    /// Every address that somebody on this switch holds, in no order.
    pub fn owners(&self) -> impl Iterator<Item = (IpAddr, Owner)> + '_ {
        self.owners
            .iter()
            .map(|(address, owner)| (*address, *owner))
    }

    /// Every port.
    pub fn ports(&self) -> impl Iterator<Item = &PortRow> + '_ {
        self.rows.iter().flatten()
    }

    /// True if frames to `mac` are for the router.
    #[inline]
    #[must_use]
    pub fn is_router(&self, mac: Mac) -> bool {
        self.router_macs.contains(&mac)
    }

    /// The next hop for an IPv4 address.
    #[inline]
    #[must_use]
    pub fn route_v4(&self, address: Ipv4Addr) -> Option<NextHop> {
        self.fib.find_v4(address)
    }

    /// The next hop for an IPv6 address.
    #[inline]
    #[must_use]
    pub fn route_v6(&self, address: Ipv6Addr) -> Option<NextHop> {
        self.fib.find_v6(address)
    }

    /// The next hop for an IPv4 address, in its place: a copy would go by way of memory, and wait
    /// for it.
    #[inline]
    #[must_use]
    pub fn next_hop_v4(&self, address: Ipv4Addr) -> Option<&NextHop> {
        self.fib.next_hop_v4(address)
    }

    /// The next hop for an IPv6 address, in its place.
    #[inline]
    #[must_use]
    pub fn next_hop_v6(&self, address: Ipv6Addr) -> Option<&NextHop> {
        self.fib.next_hop_v6(address)
    }

    /// What `hop` comes to for one packet: of a group, the member that carries its flow.
    ///
    /// # Panics
    /// If `hop` is from other tables.
    #[inline]
    #[must_use]
    pub fn one_of<'a>(&'a self, hop: &'a NextHop, flow: impl FnOnce() -> Flow) -> &'a NextHop {
        match *hop {
            NextHop::Group(id) => self.groups[id.index()].member_in_place(flow()),
            _ => hop,
        }
    }

    /// A group of next hops.
    #[must_use]
    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(id.index())
    }

    /// Bytes that the routes take now.
    #[must_use]
    pub fn routes_bytes(&self) -> usize {
        self.fib.memory_bytes()
    }

    /// How packets cross the uplink.
    #[inline]
    #[must_use]
    pub fn crossing(&self) -> Crossing {
        self.crossing
    }

    /// The broadcast address of the pods' own subnet, where the switch is its router.
    #[inline]
    #[must_use]
    pub fn directed_broadcast(&self) -> Option<Ipv4Addr> {
        self.broadcast
    }

    /// What becomes of frames for unknown stations.
    #[inline]
    #[must_use]
    pub fn unknown(&self) -> Unknown {
        self.unknown
    }
}

/// The last address of the subnet that the gateway stands in: the range of which every address
/// without a pod is unreachable. A /31 has no broadcast address (RFC 3021).
fn broadcast(spec: &TablesSpec) -> Option<Ipv4Addr> {
    let Crossing::Routed { gateway, .. } = spec.crossing else {
        return None;
    };
    let gateway = gateway.v4?;
    let subnets = spec.routes.iter().filter_map(|route| match route {
        (IpNet::V4(subnet), NextHop::Unreachable) if subnet.contains(&gateway) => Some(subnet),
        _ => None,
    });
    let subnet = subnets.max_by_key(|subnet| subnet.prefix_len())?;
    (subnet.prefix_len() <= 30).then(|| subnet.broadcast())
}

fn rows(ports: &[PortSpec], faults: &mut Vec<Fault>) -> Vec<Option<PortRow>> {
    let count = ports.iter().map(|p| p.id.index() + 1).max().unwrap_or(0);
    let mut rows = vec![None; count];
    for port in ports {
        if rows[port.id.index()].replace(*port).is_some() {
            faults.push(Fault::PortTwice(port.id));
        }
    }
    rows
}

fn only(ports: &[PortSpec], role: PortRole, faults: &mut Vec<Fault>) -> Option<PortRow> {
    let mut found = ports.iter().filter(|p| p.role == role);
    let first = found.next()?;
    if let Some(second) = found.next() {
        faults.push(Fault::RoleTwice(first.id, second.id, role));
    }
    Some(*first)
}

/// Stations of pods and host. The uplink's MAC is not one: on an azure node the host port has the
/// same address, and that is where frames to it belong.
fn stations(spec: &TablesSpec, faults: &mut Vec<Fault>) -> Stations {
    let ports = spec.ports.iter().filter(|p| p.role != PortRole::Uplink);
    let own = ports.map(|port| (port.mac, port.id));
    let more = spec.guards.iter().flat_map(|(port, guard)| {
        let stations = guard.more_stations.iter();
        stations.map(|station| (*station, *port))
    });
    let mut stations = Stations::default();
    for (station, port) in own.chain(more) {
        if let Some(other) = stations.insert(station.mac(), port)
            && other != port
        {
            faults.push(Fault::StationTwice(station, other, port));
        }
    }
    let uplinks = spec.ports.iter().filter(|p| p.role == PortRole::Uplink);
    let nics = uplinks.map(|port| port.mac.mac());
    for mac in spec.router_macs.iter().copied().chain(nics) {
        stations.mark(mac);
    }
    stations
}

fn guards(
    spec: &TablesSpec,
    rows: &[Option<PortRow>],
    faults: &mut Vec<Fault>,
) -> Vec<Option<Guarded>> {
    let mut guards: Vec<Option<Guarded>> = vec![None; rows.len()];
    for (id, guard) in &spec.guards {
        let Some(Some(port)) = rows.get(id.index()) else {
            faults.push(Fault::NoSuchPort(Namer::Guard, *id));
            continue;
        };
        let more = guard.more_stations.len().max(guard.more_addresses.len());
        if more > MORE_MAX {
            faults.push(Fault::TooManyMore(*id, more));
        }
        let guarded = Guarded::new(guard, port, &spec.owners);
        if guards[id.index()].replace(guarded).is_some() {
            faults.push(Fault::GuardTwice(*id));
        }
    }
    guards
}

fn owners(
    rows: &[(IpAddr, Owner)],
    has: impl Fn(PortId) -> bool,
    faults: &mut Vec<Fault>,
) -> HashMap<IpAddr, Owner> {
    let mut owners: HashMap<IpAddr, Owner> = HashMap::default();
    if rows.len() > OWNERS_MAX {
        faults.push(Fault::TooManyOwners(rows.len()));
    }
    for (address, owner) in rows {
        if !has(owner.port) {
            faults.push(Fault::NoSuchPort(Namer::Owner(*address), owner.port));
        }
        if Station::new(owner.mac).is_err() {
            faults.push(Fault::NoHolder(*address, owner.mac));
        }
        if let Some(other) = owners.insert(*address, *owner)
            && other != *owner
        {
            faults.push(Fault::AddressTwice(*address, other.port, owner.port));
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(id: usize, role: PortRole, last: u8) -> PortSpec {
        PortSpec {
            id: PortId::new(id).expect("in range"),
            role,
            mac: Station::new(Mac::new([2, 0, 0, 0, 0, last])).expect("a station"),
            mtu: 1500,
            hairpin: false,
            isolated: false,
        }
    }

    #[test]
    fn every_fault_is_found_at_once() {
        let ghost = PortId::new(9).expect("in range");
        let (zero, one) = (
            PortId::new(0).expect("in range"),
            PortId::new(1).expect("in range"),
        );
        let address: IpAddr = [10, 0, 0, 1].into();
        let prefix: IpNet = "10.0.0.0/8".parse().expect("a prefix");
        let spec = TablesSpec {
            ports: vec![
                port(0, PortRole::Pod, 1),
                port(1, PortRole::Pod, 1),
                port(1, PortRole::Pod, 2),
            ],
            owners: vec![
                (
                    address,
                    Owner {
                        port: zero,
                        mac: Mac::new([2, 0, 0, 0, 0, 1]),
                    },
                ),
                (
                    address,
                    Owner {
                        port: ghost,
                        mac: Mac::new([2, 0, 0, 0, 0, 2]),
                    },
                ),
            ],
            router_macs: Vec::new(),
            routes: vec![(prefix, NextHop::Host), (prefix, NextHop::Blackhole)],
            groups: Vec::new(),
            crossing: Crossing::Bridged,
            policy: Policy::None,
            unknown: Unknown::Flood,
            guards: Vec::new(),
        };
        let faults = Tables::build(&spec).expect_err("it is full of faults");
        assert!(faults.contains(&Fault::PortTwice(one)));
        assert!(faults.contains(&Fault::NoSuchPort(Namer::Owner(address), ghost)));
        assert!(faults.contains(&Fault::AddressTwice(address, zero, ghost)));
        assert!(faults.contains(&Fault::NoPortFor(prefix, PortRole::Host)));
        assert!(faults.iter().any(|f| matches!(f, Fault::StationTwice(..))));
        assert!(faults.iter().any(|f| matches!(f, Fault::Route(_))));
        assert_eq!(faults.len(), 6, "{faults:?}");
    }

    /// The switch speaks in a holder's name, and no frame may come from a group.
    #[test]
    fn a_holder_is_a_station() {
        let address: IpAddr = [10, 0, 0, 1].into();
        for mac in [Mac::BROADCAST, Mac::ZERO] {
            let pod = port(0, PortRole::Pod, 1);
            let owner = Owner { port: pod.id, mac };
            let spec = TablesSpec {
                ports: vec![pod],
                owners: vec![(address, owner)],
                router_macs: Vec::new(),
                routes: Vec::new(),
                groups: Vec::new(),
                crossing: Crossing::Bridged,
                policy: Policy::None,
                unknown: Unknown::Flood,
                guards: Vec::new(),
            };
            let faults = Tables::build(&spec).expect_err("nobody holds it");
            assert_eq!(faults, [Fault::NoHolder(address, mac)]);
        }
    }

    #[test]
    fn a_group_is_as_good_as_its_members() {
        let (here, ghost) = (PortId::new(0), PortId::new(9));
        let station = |port: Option<PortId>| NextHop::Station {
            port: port.expect("in range"),
            mac: Mac::new([2, 0, 0, 0, 0, 7]),
        };
        let far = NextHop::Neighbour([10, 0, 0, 9].into());
        let group = |members: &[NextHop]| Group::new(members).expect("sound");
        let id = |place| GroupId::new(place).expect("in range");
        let prefix = |text: &str| text.parse::<IpNet>().expect("a prefix");
        let routes = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"].map(prefix);
        let spec = TablesSpec {
            ports: vec![port(0, PortRole::Pod, 1)],
            owners: Vec::new(),
            router_macs: Vec::new(),
            routes: (0..3)
                .map(|at| (routes[at], NextHop::Group(id(at))))
                .collect(),
            groups: vec![
                group(&[station(here), station(ghost)]),
                group(&[NextHop::Host, far]),
            ],
            crossing: Crossing::Bridged,
            policy: Policy::None,
            unknown: Unknown::Flood,
            guards: Vec::new(),
        };
        let mut faults = Tables::build(&spec).expect_err("none is whole");
        let no_port = |role| Fault::NoPortFor(routes[1], role);
        for expected in [
            Fault::NoSuchPort(Namer::Route(routes[0]), ghost.expect("in range")),
            no_port(PortRole::Host),
            no_port(PortRole::Uplink),
            Fault::NoSuchGroup(routes[2], id(2)),
        ] {
            let at = faults.iter().position(|fault| *fault == expected);
            faults.remove(at.unwrap_or_else(|| panic!("{expected} is not among {faults:?}")));
        }
        assert_eq!(faults, []);
        assert_eq!(spec.groups[1].to_string(), "one of via 10.0.0.9, host");
        assert_eq!(NextHop::Group(id(2)).to_string(), "group 2");
    }
}
