//! The effective routes of one subnet: user-defined routes over system routes.
//!
//! In: the VNet's prefixes, and the route table attached to the subnet, if any.
//! Out: the one route that a destination takes.
//! Never: looks at a frame, or at who owns an address.
//!
//! Azure picks the longest prefix, and among equal prefixes the user-defined route, then one
//! learned from a gateway, then the system route. The lab has no gateway, so there are two origins
//! and no third. The search is a walk along a sorted list: at most 400 user-defined routes (Azure's
//! long-standing limit) and seven system routes, which a laboratory can afford for every frame.

use std::cmp::Reverse;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::spec::{NextHop, UserRoute};

/// Who made a route. Of two with the same prefix the lesser wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A route of the attached route table.
    User,
    /// A route that every subnet has.
    System,
}

/// One effective route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destinations it covers.
    pub prefix: IpNet,
    /// Where it sends them.
    pub next_hop: NextHop,
    /// Who made it.
    pub origin: Origin,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match self.origin {
            Origin::User => "user-defined",
            Origin::System => "system",
        };
        write!(f, "{origin} route {} -> {}", self.prefix, self.next_hop)
    }
}

/// Destinations that Azure sends nowhere unless the VNet, or a user, says otherwise.
const RESERVED: [&str; 4] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
];
const EVERYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// The effective routes of one subnet, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes(Vec<Route>);

impl Routes {
    /// Computes the effective routes from the VNet's address space and the attached table.
    #[must_use]
    pub fn of(vnet: &[IpNet], table: Option<&[UserRoute]>) -> Routes {
        let user = table.unwrap_or_default().iter().map(|route| Route {
            prefix: route.prefix.trunc(),
            next_hop: route.next_hop,
            origin: Origin::User,
        });
        let mut routes: Vec<Route> = user.chain(system(vnet)).collect();
        // Stable, so that of two equal user-defined routes (which Azure refuses) the first wins.
        routes.sort_by_key(|route| (Reverse(route.prefix.prefix_len()), route.origin));
        Routes(routes)
    }

    /// The route that `target` takes. None only for IPv6 or IPv4 that no route mentions, which
    /// the default routes rule out.
    #[must_use]
    pub fn find(&self, target: IpAddr) -> Option<&Route> {
        self.0.iter().find(|route| route.prefix.contains(&target))
    }

    /// All of them, best first.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter()
    }
}

fn system(vnet: &[IpNet]) -> impl Iterator<Item = Route> {
    let make = |prefix, next_hop| Route {
        prefix,
        next_hop,
        origin: Origin::System,
    };
    // A reserved prefix that the address space contains, or equals, is gone: the VNet's own
    // route covers it.
    let reserved = RESERVED.iter().map(|text| prefix(text));
    let reserved = reserved.filter(|r| !vnet.iter().any(|own| own.contains(r)));
    let local = vnet
        .iter()
        .map(move |own| make(own.trunc(), NextHop::VnetLocal));
    local
        .chain(reserved.map(move |prefix| make(prefix, NextHop::None)))
        .chain(
            EVERYWHERE
                .iter()
                .map(move |text| make(prefix(text), NextHop::Internet)),
        )
}

fn prefix(text: &str) -> IpNet {
    text.parse()
        .expect("the prefixes above are well-formed, as the tests show")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| prefix(text)).collect()
    }

    fn user(prefix_text: &str, next_hop: NextHop) -> UserRoute {
        UserRoute {
            name: prefix_text.into(),
            prefix: prefix(prefix_text),
            next_hop,
        }
    }

    fn taken(vnet: &[&str], table: Option<&[UserRoute]>, target: &str) -> String {
        let routes = Routes::of(&nets(vnet), table);
        let target = target.parse().expect("well-formed");
        routes.find(target).expect("a default route").to_string()
    }

    #[test]
    fn system_routes_follow_the_address_space() {
        let seed: &[&str] = &["10.10.0.0/24", "10.20.0.0/24"];
        let rows: &[(&[&str], &str, &str)] = &[
            (seed, "10.20.0.5", "system route 10.20.0.0/24 -> VnetLocal"),
            (seed, "10.10.0.5", "system route 10.10.0.0/24 -> VnetLocal"),
            (seed, "10.244.0.7", "system route 10.0.0.0/8 -> None"),
            (seed, "172.31.0.1", "system route 172.16.0.0/12 -> None"),
            (seed, "192.168.1.1", "system route 192.168.0.0/16 -> None"),
            (seed, "100.64.0.1", "system route 100.64.0.0/10 -> None"),
            (seed, "8.8.8.8", "system route 0.0.0.0/0 -> Internet"),
            (seed, "2001:db8::1", "system route ::/0 -> Internet"),
            // Exactly in the address space: local.
            (
                &["10.0.0.0/8"],
                "10.244.0.7",
                "system route 10.0.0.0/8 -> VnetLocal",
            ),
            // Contained in the address space: the reserved route is gone.
            (
                &["172.0.0.0/8"],
                "172.16.0.1",
                "system route 172.0.0.0/8 -> VnetLocal",
            ),
            (
                &["fc00:10::/48"],
                "fc00:10::1",
                "system route fc00:10::/48 -> VnetLocal",
            ),
        ];
        for (vnet, target, route) in rows {
            assert_eq!(taken(vnet, None, target), *route, "{target} in {vnet:?}");
        }
    }

    #[test]
    fn a_user_defined_route_wins_by_length_and_then_by_origin() {
        let node = NextHop::VirtualAppliance("10.20.0.5".parse().expect("well-formed"));
        let table = [
            user("10.244.0.0/24", node),
            user("10.20.0.0/24", NextHop::None),
            user("0.0.0.0/0", NextHop::VirtualNetworkGateway),
            user("10.0.0.0/8", NextHop::VnetLocal),
            user("10.0.0.0/8", NextHop::Internet),
        ];
        let vnet = ["10.10.0.0/24", "10.20.0.0/24"];
        let rows = [
            (
                "10.244.0.7",
                "user-defined route 10.244.0.0/24 -> VirtualAppliance 10.20.0.5",
            ),
            ("10.20.0.9", "user-defined route 10.20.0.0/24 -> None"),
            ("10.10.0.9", "system route 10.10.0.0/24 -> VnetLocal"),
            ("10.244.1.7", "user-defined route 10.0.0.0/8 -> VnetLocal"),
            ("172.16.0.1", "system route 172.16.0.0/12 -> None"),
            (
                "8.8.8.8",
                "user-defined route 0.0.0.0/0 -> VirtualNetworkGateway",
            ),
        ];
        for (target, route) in rows {
            assert_eq!(taken(&vnet, Some(&table), target), route, "{target}");
        }
    }
}
