//! Tables whose routes change under a running switch: one by one, or all at once.
//!
//! In: a [`TablesSpec`] to begin with, then changes of routes. Out: [`Tables`] to publish.
//! Never: does half of what it was asked. What is refused leaves no trace, so what a switch runs
//! on stays what it was.
//!
//! A change costs the same however many routes there are (see [`rib`]), so a node may publish each
//! as it comes. Where many wait, all of them in one call cost little more than one: they are
//! coalesced into one publication.
//!
//! [`rib`]: super::fib::rib

use std::net::IpAddr;

use ipnet::IpNet;

use super::fib::NextHop;
use super::fib::group::{GROUPS_MAX, Group, GroupId};
use super::fib::rib::{Change, Rib};
use super::{Crossing, Fault, Namer, PortRole, Tables, TablesSpec};
use crate::addr::Station;
use crate::frame::ipv4::is_martian_source as is_martian_v4;
use crate::frame::ipv6::is_martian_source as is_martian_v6;

/// Tables, and the routes behind them.
#[derive(Clone, Debug)]
pub struct LiveTables {
    rib: Rib,
    tables: Tables,
    /// Groups added since the last change, which no route can name yet.
    fresh: Vec<GroupId>,
}

impl LiveTables {
    /// Checks `spec`.
    ///
    /// # Errors
    /// Every fault in it.
    pub fn build(spec: &TablesSpec) -> Result<LiveTables, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut live = LiveTables {
            tables: Tables::without_routes(spec, &mut faults),
            rib: Rib::default(),
            fresh: Vec::new(),
        };
        if let Err(more) = live.replace(spec.routes.iter().copied(), spec.groups.clone()) {
            faults.extend(more);
        }
        if faults.is_empty() {
            Ok(live)
        } else {
            Err(faults)
        }
    }

    /// The tables as they are now. A clone shares the routes.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The tables, to keep as they are.
    #[must_use]
    pub fn into_tables(self) -> Tables {
        self.tables
    }

    /// All routes.
    pub fn routes(&self) -> impl Iterator<Item = (IpNet, NextHop)> {
        self.rib.iter()
    }

    /// Makes all `changes` at once; of two for one prefix the later counts, and the removal of a
    /// route that is not there is none. Gives the number of routes that differ now.
    ///
    /// # Errors
    /// Every fault. Nothing has changed then.
    pub fn apply(
        &mut self,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<usize, Vec<Fault>> {
        let changes: Vec<Change> = changes.into_iter().collect();
        let wanted = changes
            .iter()
            .filter_map(|(net, hop)| Some((*net, (*hop)?)));
        let faults = self.tables.faults_of(wanted);
        if !faults.is_empty() {
            return Err(faults);
        }
        let before: Vec<Change> = changes
            .iter()
            .map(|(net, _)| (*net, self.rib.get(*net)))
            .collect();
        let changed = self.rib.apply(changes).map_err(as_faults)?;
        let after = Tables {
            fib: self.rib.fib(),
            ..self.tables.clone()
        };
        let faults = after.off_link(&self.rib);
        if !faults.is_empty() {
            // What was there a moment ago fits.
            drop(self.rib.apply(before));
            return Err(faults);
        }
        self.tables = after;
        self.fresh.clear();
        Ok(changed)
    }

    /// Makes `routes` all there are, and `groups` the groups that they name. Gives the number of
    /// routes that differ now.
    ///
    /// # Errors
    /// Every fault. Nothing has changed then.
    pub fn replace(
        &mut self,
        routes: impl IntoIterator<Item = (IpNet, NextHop)>,
        groups: Vec<Group>,
    ) -> Result<usize, Vec<Fault>> {
        let mut after = self.tables.clone();
        let mut faults = Vec::new();
        if groups.len() > GROUPS_MAX {
            faults.push(Fault::TooManyGroups(groups.len()));
        }
        after.groups = groups.into();
        let routes: Vec<(IpNet, NextHop)> = routes.into_iter().collect();
        faults.extend(after.faults_of(routes.iter().copied()));
        // A second table beside the first, which stays as it is until the second is found sound.
        let mut rib = self.rib.clone();
        match rib.replace(routes) {
            Ok(changed) => {
                after.fib = rib.fib();
                if faults.is_empty() {
                    faults = after.off_link(&rib);
                }
                if faults.is_empty() {
                    (self.rib, self.tables) = (rib, after);
                    self.fresh.clear();
                    return Ok(changed);
                }
            }
            Err(refusals) => faults.extend(as_faults(refusals)),
        }
        Err(faults)
    }

    /// The number of a group for routes of the next change: that of an equal one if there is one,
    /// or one that no route names, or a new one.
    ///
    /// # Errors
    /// `TooManyGroups`.
    pub fn add_group(&mut self, group: Group) -> Result<GroupId, Fault> {
        let mut groups = self.tables.groups.to_vec();
        let ids = || (0..groups.len()).filter_map(GroupId::new);
        let free = |id: &GroupId| !self.rib.names(NextHop::Group(*id)) && !self.fresh.contains(id);
        let equal = ids().find(|id| groups[id.index()] == group);
        let found = equal.or_else(|| ids().find(free));
        let too_many = Fault::TooManyGroups(groups.len() + 1);
        let id = found
            .or_else(|| GroupId::new(groups.len()))
            .ok_or(too_many)?;
        match groups.get_mut(id.index()) {
            Some(place) => *place = group,
            None => groups.push(group),
        }
        self.tables.groups = groups.into();
        self.fresh.push(id);
        Ok(id)
    }
}

fn as_faults(refusals: Vec<super::fib::Refusal>) -> Vec<Fault> {
    refusals.into_iter().map(Fault::Route).collect()
}

impl Tables {
    /// What is wrong with `routes`, whatever other routes there are.
    fn faults_of(&self, routes: impl Iterator<Item = (IpNet, NextHop)>) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (prefix, hop) in routes {
            match hop {
                NextHop::Group(id) => match self.group(id) {
                    Some(group) => {
                        faults.extend(group.members().filter_map(|hop| self.fault_of(prefix, hop)));
                    }
                    None => faults.push(Fault::NoSuchGroup(prefix, id)),
                },
                hop => faults.extend(self.fault_of(prefix, hop)),
            }
        }
        faults
    }

    /// What is wrong with a route to a single next hop.
    fn fault_of(&self, prefix: IpNet, hop: NextHop) -> Option<Fault> {
        match hop {
            NextHop::Station { port, .. } if self.port(port).is_none() => {
                Some(Fault::NoSuchPort(Namer::Route(prefix), port))
            }
            NextHop::Station { mac, .. } if Station::new(mac).is_err() => {
                Some(Fault::NoStation(prefix, mac))
            }
            NextHop::Host if self.host.is_none() => Some(Fault::NoPortFor(prefix, PortRole::Host)),
            NextHop::Neighbour(_) if self.uplink.is_none() => {
                Some(Fault::NoPortFor(prefix, PortRole::Uplink))
            }
            NextHop::Neighbour(address) if self.is_own(address) => {
                Some(Fault::ToItself(prefix, address))
            }
            NextHop::Neighbour(address) if self.is_elsewhere(address) => {
                Some(Fault::NotOnLink(prefix, address))
            }
            _ => None,
        }
    }

    /// True for the addresses of the switch and of the node it runs on.
    fn is_own(&self, address: IpAddr) -> bool {
        let spoken = match self.crossing {
            Crossing::Bridged => false,
            Crossing::Routed { uplink, gateway } => [uplink, gateway].iter().any(|own| {
                own.v4.map(IpAddr::V4) == Some(address) || own.v6.map(IpAddr::V6) == Some(address)
            }),
        };
        spoken || self.role_of_owner(address) == Some(PortRole::Host)
    }

    /// True for an address that no neighbour on the uplink can have, whatever the routes say.
    fn is_elsewhere(&self, address: IpAddr) -> bool {
        let nobody = match address {
            IpAddr::V4(v4) => is_martian_v4(v4),
            IpAddr::V6(v6) => is_martian_v6(v6),
        };
        nobody || self.role_of_owner(address) == Some(PortRole::Pod)
    }

    fn role_of_owner(&self, address: IpAddr) -> Option<PortRole> {
        self.port(self.owner(address)?.port).map(|row| row.role)
    }

    /// The routes to neighbours of which these very tables say that they are not on the uplink: a
    /// pod has the address, or it lies where nobody but a pod may be. That nothing is said of an
    /// address is no fault: the switch need not have a route for its own link.
    fn off_link(&self, rib: &Rib) -> Vec<Fault> {
        let is_off = |address: IpAddr| match self.route(address) {
            Some(NextHop::Unreachable) => true,
            Some(NextHop::Station { port, .. }) => self
                .port(port)
                .is_some_and(|row| row.role != PortRole::Uplink),
            _ => false,
        };
        let off = |hop: NextHop| match hop {
            NextHop::Neighbour(address) if is_off(address) => Some(address),
            _ => None,
        };
        let first_off = |hop: NextHop| match hop {
            NextHop::Group(id) => self.group(id)?.members().find_map(off),
            hop => off(hop),
        };
        // There are far fewer next hops than routes, and most often all is well.
        if rib.hops().all(|hop| first_off(hop).is_none()) {
            return Vec::new();
        }
        let faulty = rib
            .iter()
            .filter_map(|(net, hop)| Some((net, first_off(hop)?)));
        faulty
            .map(|(net, address)| Fault::NotOnLink(net, address))
            .collect()
    }

    fn route(&self, address: IpAddr) -> Option<NextHop> {
        match address {
            IpAddr::V4(address) => self.route_v4(address),
            IpAddr::V6(address) => self.route_v6(address),
        }
    }
}

#[cfg(test)]
mod tests;
