//! A route: which destinations, where to, and who says so. In Azure's words.
//!
//! In: nothing. Out: the types that the plan, the fabric and the command line share.
//! Never: chooses between two routes.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// Where a route leads: Azure's `nextHopType`, with the address that one of them needs.
///
/// The first five may stand in a route table. The last two are the fabric's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// To the NIC that owns this address, which must have IP forwarding enabled.
    VirtualAppliance(IpAddr),
    /// To the NIC that owns the destination.
    VnetLocal,
    /// Out of the VNet.
    Internet,
    /// Nowhere: dropped.
    None,
    /// To a VPN or ExpressRoute gateway.
    VirtualNetworkGateway,
    /// Into another VNet that is peered with this one.
    VnetPeering,
    /// To a service of Azure, by its own backbone.
    ServiceEndpoint,
}

impl NextHop {
    /// Azure's name of its type.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            NextHop::VirtualAppliance(_) => "VirtualAppliance",
            NextHop::VnetLocal => "VnetLocal",
            NextHop::Internet => "Internet",
            NextHop::None => "None",
            NextHop::VirtualNetworkGateway => "VirtualNetworkGateway",
            NextHop::VnetPeering => "VNetPeering",
            NextHop::ServiceEndpoint => "VirtualNetworkServiceEndpoint",
        }
    }

    /// The address of the next hop, where it has one.
    #[must_use]
    pub const fn address(self) -> Option<IpAddr> {
        match self {
            NextHop::VirtualAppliance(address) => Some(address),
            _ => None,
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match self.address() {
            Some(address) => write!(f, " {address}"),
            None => Ok(()),
        }
    }
}

/// Who made a route. Of two for the same prefix the lesser wins, apart from the exceptions that
/// [`super::choose`] lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// An operator, in the attached route table.
    User,
    /// The cluster's cloud provider, in the attached route table: one for each node's pods.
    Pods,
    /// A gateway that learned it, by BGP or from its own configuration.
    Gateway,
    /// Azure: every subnet has it.
    System,
}

impl Source {
    /// Azure's name (`EffectiveRouteSource`), which does not tell who wrote a table's route.
    #[must_use]
    pub const fn azure(self) -> &'static str {
        match self {
            Source::User | Source::Pods => "User",
            Source::Gateway => "VirtualNetworkGateway",
            Source::System => "Default",
        }
    }

    /// True for the routes of a route table, whoever wrote them.
    #[must_use]
    pub const fn is_user_defined(self) -> bool {
        matches!(self, Source::User | Source::Pods)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Source::User => "user-defined",
            Source::Pods => "pods",
            Source::Gateway => "gateway",
            Source::System => "system",
        })
    }
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its name in the route table; none elsewhere.
    pub name: Option<String>,
    /// The destinations it covers, without host bits.
    pub prefix: IpNet,
    /// Where it sends them.
    pub next_hop: NextHop,
    /// Who made it.
    pub source: Source,
}

impl Route {
    /// A route without a name. Host bits of the prefix are dropped.
    #[must_use]
    pub fn new(prefix: IpNet, next_hop: NextHop, source: Source) -> Route {
        Route {
            name: None,
            prefix: prefix.trunc(),
            next_hop,
            source,
        }
    }
}

/// A route table and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTable {
    /// Its name.
    pub name: String,
    /// Its routes; each prefix once.
    pub routes: Vec<Route>,
    /// Whether a gateway's routes count beside it: Azure's `disableBgpRoutePropagation`, denied.
    pub propagates: bool,
    /// The subnets of the VNet that it is attached to, by name.
    pub subnets: Vec<String>,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let article = match self.source {
            Source::Pods => "pods'",
            Source::User => "user-defined",
            Source::Gateway => "gateway's",
            Source::System => "system",
        };
        write!(f, "{article} route {} -> {}", self.prefix, self.next_hop)
    }
}
