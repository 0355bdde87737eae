//! The routes that every subnet has without anybody writing them.
//!
//! In: the VNet's address space, the spaces of its peers, the prefixes of its service endpoints.
//! Out: system routes, one for each prefix. Never: a route that a user or a gateway made.

use ipnet::IpNet;

use super::route::{NextHop, Route, Source};

/// Destinations that Azure sends nowhere unless the VNet, or a user, says otherwise: RFC 1918 and
/// RFC 6598.
const RESERVED: [&str; 4] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
];
const EVERYWHERE_V4: &str = "0.0.0.0/0";
const EVERYWHERE_V6: &str = "::/0";

/// What Azure knows of a subnet before anybody writes a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// The VNet's address space, one prefix or several.
    pub vnet: Vec<IpNet>,
    /// The address spaces of the VNets peered with it.
    pub peers: Vec<IpNet>,
    /// The prefixes of the services that the subnet reaches by service endpoints.
    pub endpoints: Vec<IpNet>,
}

impl Space {
    /// True if the address is the VNet's or a peer's: reached without a gateway or appliance.
    #[must_use]
    pub fn holds(&self, address: std::net::IpAddr) -> bool {
        let mut own = self.vnet.iter().chain(&self.peers);
        own.any(|prefix| prefix.contains(&address))
    }
}

/// The system routes of a subnet in this space.
///
/// One for each prefix of the VNet (not of the subnet) and of its peers; a default route of each
/// family that the VNet has; and the reserved prefixes to nowhere. A reserved prefix that the
/// space equals becomes local, and one that the space contains is gone: the space's own route
/// covers it.
#[must_use]
pub(super) fn routes(space: &Space) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    let mut add = |prefix: IpNet, next_hop| {
        let prefix = prefix.trunc();
        if routes.iter().all(|known| known.prefix != prefix) {
            routes.push(Route::new(prefix, next_hop, Source::System));
        }
    };
    for prefix in &space.endpoints {
        add(*prefix, NextHop::ServiceEndpoint);
    }
    for prefix in &space.vnet {
        add(*prefix, NextHop::VnetLocal);
    }
    for prefix in &space.peers {
        add(*prefix, NextHop::VnetPeering);
    }
    for reserved in RESERVED.iter().map(|text| parse(text)) {
        let mut own = space.vnet.iter().chain(&space.peers);
        if !own.any(|prefix| prefix.contains(&reserved)) {
            add(reserved, NextHop::None);
        }
    }
    add(parse(EVERYWHERE_V4), NextHop::Internet);
    if space.vnet.iter().any(|prefix| prefix.addr().is_ipv6()) {
        add(parse(EVERYWHERE_V6), NextHop::Internet);
    }
    routes
}

fn parse(text: &str) -> IpNet {
    text.parse()
        .expect("the prefixes above are well-formed, as the tests show")
}
