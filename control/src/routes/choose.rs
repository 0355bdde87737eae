//! The choice between routes, as Azure makes it, and what it says of those that lose.
//!
//! In: system routes, the attached table's, the gateway's. Out: [`EffectiveRoutes`].
//! Never: looks at a frame, or at who owns an address.
//!
//! The rule is short: the longest prefix; among equal prefixes a user-defined route, then a
//! gateway's, then a system route. The exceptions (Azure's documentation, "Virtual network traffic
//! routing", "How Azure selects a route"):
//!
//! - A service endpoint's route cannot be overridden: nothing inside its prefix counts, longer or
//!   not, whoever made it.
//! - System routes of the VNet and of its peers are preferred to a gateway's, even where the
//!   gateway's is longer. That holds as well where a user overrode the system route: a gateway
//!   never takes a part of the VNet away.
//! - A route table can turn propagation off; then a gateway's routes do not count at its subnets.
//!
//! Azure tests no next hop. A route to an appliance that is down, or whose NIC may not forward,
//! stays active and the frames die; so such a route is *active* here, too, with a [`Caveat`].
//!
//! A route that loses all of its prefix is *invalid*, in Azure's word, and says to whom it lost. A
//! route that loses parts of it to longer ones is active for the rest. The choice is that of the
//! sender's subnet alone: what a reply does is for the routes of the other subnet to say, and the
//! two may well differ.

use std::cmp::Reverse;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::route::{NextHop, Route, RouteTable, Source};
use super::system::{self, Space};

/// Whether a route is ever taken; Azure's `EffectiveRouteState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It is taken for every destination that no longer prefix covers.
    Active,
    /// It lost its whole prefix to another route, or does not count.
    Invalid,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Active => "Active",
            State::Invalid => "Invalid",
        })
    }
}

/// Why a route lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The winner is of a source that is preferred for the same prefix.
    Source,
    /// The winner is the VNet's or a peer's system route, and this one a gateway's.
    OwnSpace,
    /// The winner is a service endpoint's route.
    ServiceEndpoint,
    /// The route table turns propagation off. There is no winner.
    NotPropagated,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Source => "preferred for the same prefix",
            Why::OwnSpace => {
                "the VNet's and its peers' own routes go before a gateway's, even longer ones"
            }
            Why::ServiceEndpoint => "a service endpoint's route cannot be overridden",
            Why::NotPropagated => "the route table has disableBgpRoutePropagation",
        })
    }
}

/// To which route another lost, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The reason.
    pub why: Why,
    /// The winner, where there is one.
    pub to: Option<Route>,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            Some(winner) => write!(f, "{winner}: {}", self.why),
            None => write!(f, "{}", self.why),
        }
    }
}

/// Something about an active route's next hop that its frames will not survive. Azure shows none
/// of this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caveat {
    /// The next hop is this node, whose NIC has `enableIPForwarding` off.
    NotForwarding(String),
    /// The next hop is in the VNet and in none of its subnets: no NIC can have it.
    NoSubnet,
    /// The next hop is one of the addresses that Azure keeps in each subnet.
    Reserved,
    /// The next hop is the node itself, for destinations that are not its own.
    Itself,
}

impl fmt::Display for Caveat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caveat::NotForwarding(node) => {
                write!(f, "{node}'s NIC may not forward (enableIPForwarding)")
            }
            Caveat::NoSubnet => f.write_str("no subnet holds the next hop"),
            Caveat::Reserved => f.write_str("Azure keeps the next hop's address for itself"),
            Caveat::Itself => f.write_str("leads back to this node"),
        }
    }
}

/// A route and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The route.
    pub route: Route,
    /// To whom it lost; nothing if it is active.
    pub loss: Option<Loss>,
    /// What is wrong with its next hop, as far as is known.
    pub caveat: Option<Caveat>,
}

impl Row {
    /// Whether it is ever taken.
    #[must_use]
    pub fn state(&self) -> State {
        match self.loss {
            None => State::Active,
            Some(_) => State::Invalid,
        }
    }
}

/// The effective routes of one subnet: those that are taken, and those that lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EffectiveRoutes {
    /// IPv4 before IPv6, then longest first, then by address, then the active one first.
    rows: Vec<Row>,
}

impl EffectiveRoutes {
    /// Chooses among the routes that a subnet has. `learned` are a gateway's prefixes.
    #[must_use]
    pub fn of(space: &Space, table: Option<&RouteTable>, learned: &[IpNet]) -> EffectiveRoutes {
        let propagates = table.is_none_or(|table| table.propagates);
        let mut all: Vec<Route> = table.map_or_else(Vec::new, |table| table.routes.clone());
        for prefix in learned {
            let route = Route::new(*prefix, NextHop::VirtualNetworkGateway, Source::Gateway);
            if !all.contains(&route) {
                all.push(route);
            }
        }
        all.extend(system::routes(space));
        // Stable, so that of two equal routes of a table (which Azure refuses) the first wins.
        all.sort_by_key(|route| {
            let net = route.prefix;
            (
                net.addr().is_ipv6(),
                Reverse(net.prefix_len()),
                net.network(),
                route.source,
            )
        });
        let judge = Judge::of(&all, propagates);
        let mut rows: Vec<Row> = (0..all.len())
            .map(|at| Row {
                route: all[at].clone(),
                loss: judge.loss(at),
                caveat: None,
            })
            .collect();
        rows.sort_by_key(|row| {
            let net = row.route.prefix;
            (
                net.addr().is_ipv6(),
                Reverse(net.prefix_len()),
                net.network(),
                row.loss.is_some(),
            )
        });
        EffectiveRoutes { rows }
    }

    /// The route that `target` takes. None only for a family that no route mentions.
    ///
    /// A walk along a sorted list: at most 400 routes of a table and a few beside, which planning
    /// and the lab's fabric can afford.
    #[must_use]
    pub fn find(&self, target: IpAddr) -> Option<&Route> {
        self.find_row(target).map(|row| &row.route)
    }

    /// The row of the route that `target` takes.
    #[must_use]
    pub fn find_row(&self, target: IpAddr) -> Option<&Row> {
        self.active().find(|row| row.route.prefix.contains(&target))
    }

    /// The rows of the routes that are taken, longest prefix first within a family.
    pub fn active(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.loss.is_none())
    }

    /// All rows: IPv4 before IPv6, longest prefix first, each loser behind its winner of the same
    /// prefix.
    pub fn iter(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter()
    }

    /// How the destinations of `prefix` are routed: the route that covers all of it, if any, for
    /// the whole prefix, then each longer one inside it for its own. Among these, too, the longest
    /// wins.
    pub fn within(&self, prefix: IpNet) -> impl Iterator<Item = (IpNet, &Row)> {
        let whole = self
            .active()
            .find(move |row| row.route.prefix.contains(&prefix));
        let inside = self
            .active()
            .filter(move |row| row.route.prefix != prefix && prefix.contains(&row.route.prefix));
        let inside = inside.map(|row| (row.route.prefix, row));
        whole.map(|row| (prefix, row)).into_iter().chain(inside)
    }

    /// Notes what is wrong with next hops, by asking about each active route.
    pub fn note_caveats(&mut self, mut ask: impl FnMut(&Route) -> Option<Caveat>) {
        for row in self.rows.iter_mut().filter(|row| row.loss.is_none()) {
            row.caveat = ask(&row.route);
        }
    }
}

/// All routes of a subnet, and those among them that are exceptions to the rule.
struct Judge<'a> {
    /// Sorted: the longest first, and of one prefix the preferred source first.
    all: &'a [Route],
    endpoints: Vec<&'a Route>,
    /// System routes of the VNet and its peers.
    own_space: Vec<&'a Route>,
    propagates: bool,
}

impl<'a> Judge<'a> {
    fn of(all: &'a [Route], propagates: bool) -> Judge<'a> {
        let chosen = |is: fn(&Route) -> bool| all.iter().filter(|route| is(route)).collect();
        Judge {
            all,
            endpoints: chosen(is_endpoint),
            own_space: chosen(is_own_space),
            propagates,
        }
    }

    /// To whom route `at` loses its whole prefix, if to anyone.
    fn loss(&self, at: usize) -> Option<Loss> {
        let route = &self.all[at];
        let lost = |why, to: &Route| {
            let to = Some(to.clone());
            Some(Loss { why, to })
        };
        let covers = |other: &&&Route| other.prefix.contains(&route.prefix);
        if !self.counts(route) {
            let (why, to) = (Why::NotPropagated, None);
            return Some(Loss { why, to });
        }
        if is_endpoint(route) {
            return None;
        }
        if let Some(winner) = self.endpoints.iter().find(covers) {
            return lost(Why::ServiceEndpoint, winner);
        }
        if route.source == Source::Gateway
            && let Some(winner) = self.own_space.iter().find(covers)
        {
            return lost(Why::OwnSpace, winner);
        }
        // Of one prefix the first goes before this one, unless it is a gateway's that is out
        // itself: for want of propagation, or because this very route is the VNet's own.
        let same_prefix = self.all[..at].iter().rev();
        let same_prefix = same_prefix.take_while(|other| other.prefix == route.prefix);
        let out = |other: &Route| {
            !self.counts(other) || other.source == Source::Gateway && is_own_space(route)
        };
        let winner = same_prefix.filter(|other| !out(other)).last()?;
        lost(Why::Source, winner)
    }

    fn counts(&self, route: &Route) -> bool {
        route.source != Source::Gateway || self.propagates
    }
}

fn is_endpoint(route: &Route) -> bool {
    route.next_hop == NextHop::ServiceEndpoint
}

fn is_own_space(route: &Route) -> bool {
    let own = matches!(route.next_hop, NextHop::VnetLocal | NextHop::VnetPeering);
    route.source == Source::System && own
}
