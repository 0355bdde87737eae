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
            Why::Source => {
                "of one prefix, user-defined goes before gateway, and gateway before system"
            }
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
        let mut rows: Vec<Row> = (0..all.len())
            .map(|at| Row {
                route: all[at].clone(),
                loss: loss(&all, at, propagates),
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

/// To whom route `at` loses its whole prefix, if to anyone. `all` is sorted: of one prefix the
/// preferred source comes first.
fn loss(all: &[Route], at: usize, propagates: bool) -> Option<Loss> {
    let route = &all[at];
    let lost = |why, to: &Route| {
        let to = Some(to.clone());
        Some(Loss { why, to })
    };
    if !counts(route, propagates) {
        return Some(Loss {
            why: Why::NotPropagated,
            to: None,
        });
    }
    let covers = |other: &&Route| other.prefix.contains(&route.prefix);
    let endpoint = |other: &&Route| other.next_hop == NextHop::ServiceEndpoint;
    if endpoint(&route) {
        return None;
    }
    if let Some(winner) = all.iter().filter(endpoint).find(covers) {
        return lost(Why::ServiceEndpoint, winner);
    }
    if route.source == Source::Gateway
        && let Some(winner) = all.iter().filter(is_own_space).find(covers)
    {
        return lost(Why::OwnSpace, winner);
    }
    // Of one prefix the first one goes before this one, unless it is a gateway's that is out
    // itself: for want of propagation, or because this very route is the VNet's own.
    let rival = |other: &&Route| {
        let out =
            !counts(other, propagates) || other.source == Source::Gateway && is_own_space(&route);
        other.prefix == route.prefix && !out
    };
    let winner = all[..at].iter().find(rival)?;
    lost(Why::Source, winner)
}

fn counts(route: &Route, propagates: bool) -> bool {
    route.source != Source::Gateway || propagates
}

/// A system route of the VNet or of a peer.
fn is_own_space(route: &&Route) -> bool {
    route.source == Source::System
        && matches!(route.next_hop, NextHop::VnetLocal | NextHop::VnetPeering)
}
