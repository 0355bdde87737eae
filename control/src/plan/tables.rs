//! The route tables of a plan: whose they are, which subnet has which, and what does not fit.
//!
//! In: tables from ARM documents, the VNet, nodes with addresses and the routes to their pods.
//! Out: a [`RouteTable`] for each document's table, and the cluster's own. Never: gives a subnet
//! two tables, which Azure does not either.
//!
//! The cluster's own table is the one that aks-engine names; into it, and into no other, the cloud
//! provider writes a route for each node's pods, beside whatever an operator put there. A table of
//! another name on a subnet takes the place of the cluster's.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::network::Assignment;
use super::types::{Node, Plan, Plugin};
use crate::model::{Network, Place, Report};
use crate::routes::{
    Caveat, EffectiveRoutes, NextHop, Observed, PlacedTable, Route, RouteTable, Source, Space,
};

/// Route tables, and where the next hops of their routes were written.
pub(super) struct Tables {
    pub(super) tables: Vec<RouteTable>,
    /// By the table's index and the route's prefix.
    hops_at: HashMap<(usize, IpNet), Place>,
}

/// What tables are held against.
pub(super) struct Scene<'a> {
    pub(super) network: &'a Network,
    pub(super) assignment: &'a Assignment,
    /// The cloud provider's routes, none where it writes none.
    pub(super) pods: Vec<Route>,
    pub(super) observed: &'a Observed,
    pub(super) cluster_id: Option<&'a str>,
    pub(super) limit: usize,
}

/// The name that aks-engine gives to the cluster's route table.
pub(super) fn clusters_table(cluster_id: Option<&str>) -> String {
    format!(
        "k8s-master-{}-routetable",
        cluster_id.unwrap_or("CLUSTER_ID")
    )
}

impl Scene<'_> {
    /// Whether a table is the one that the cloud provider writes to.
    fn is_clusters(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        match self.cluster_id {
            Some(id) => name == clusters_table(Some(id)).to_ascii_lowercase(),
            None => name.starts_with("k8s-master-") && name.ends_with("-routetable"),
        }
    }

    /// The VNet and its peers, by its template and by what Azure told.
    pub(super) fn space(&self) -> Space {
        let network = self.network;
        let written = network.peers.iter().map(|prefix| prefix.value);
        let mut peers: Vec<IpNet> = written.chain(self.observed.peers.iter().copied()).collect();
        peers.sort();
        peers.dedup();
        Space {
            vnet: network.prefixes.iter().map(|prefix| prefix.value).collect(),
            peers,
            endpoints: self.observed.endpoints.clone(),
        }
    }

    /// Whether what Azure told is of this VNet, and of use.
    pub(super) fn check_observed(&self, report: &mut Report) {
        let Some(place) = &self.observed.place else {
            return;
        };
        let mut own: Vec<IpNet> = self.network.prefixes.iter().map(|net| net.value).collect();
        let mut told: Vec<IpNet> = self.observed.vnet.iter().map(|net| net.value).collect();
        own.sort();
        told.sort();
        told.dedup();
        if own != told {
            let list = |nets: &[IpNet]| {
                let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
                nets.join(", ")
            };
            let message = format!(
                "of another VNet: its routes to VnetLocal are {}, and VNet '{}' has {}",
                list(&told),
                self.network.name.value,
                list(&own)
            );
            report.fault(place, message);
        }
        let endpoints = self
            .network
            .subnets
            .iter()
            .any(|subnet| subnet.service_endpoints);
        if !self.observed.endpoints.is_empty() && !endpoints {
            report.warn(
                place,
                "the template gives no subnet service endpoints, so their routes are left out",
            );
        }
    }

    /// Gives each table its subnets, and the cluster's its pods' routes.
    pub(super) fn attach(&self, documents: &[PlacedTable], report: &mut Report) -> Tables {
        let mut made = Tables {
            tables: Vec::new(),
            hops_at: HashMap::new(),
        };
        let given = documents.iter().filter(|document| document.given).count();
        for document in documents {
            self.check_hops(document, report);
            let subnets = self.subnets(document, given, report);
            for subnet in &subnets {
                let holder = |table: &&RouteTable| table.subnets.contains(subnet);
                if let Some(holder) = made.tables.iter().find(holder) {
                    let message = format!(
                        "subnet '{subnet}' has route table '{}' already; it may have one",
                        holder.name
                    );
                    report.fault(&document.name.place, message);
                }
            }
            let hops = document.routes.iter();
            let at = made.tables.len();
            made.hops_at
                .extend(hops.map(|placed| ((at, placed.route.prefix), placed.hop_at.clone())));
            made.tables.push(RouteTable {
                name: document.name.value.clone(),
                routes: self.routes(document, report),
                propagates: document.propagates,
                subnets,
            });
        }
        self.warn_of_unknown(&made.tables, report);
        if !self.pods.is_empty() && !made.tables.iter().any(|t| self.is_clusters(&t.name)) {
            made.tables.push(self.own_table(&made.tables));
        }
        made
    }

    /// Warns of subnets in use whose template names a table that no document describes. The
    /// cluster's own needs none.
    fn warn_of_unknown(&self, tables: &[RouteTable], report: &mut Report) {
        for index in self.assignment.used() {
            let subnet = &self.network.subnets[index];
            let holder = tables
                .iter()
                .find(|table| table.subnets.contains(&subnet.name));
            let Some(name) = subnet.route_table.as_deref() else {
                continue;
            };
            if holder.is_none() && !self.is_clusters(name) {
                let message = format!(
                    "subnet '{}' has route table '{name}', which no document describes \
                     (--route-table): it is planned as if it had none",
                    subnet.name
                );
                report.warn(&subnet.prefix.place, message);
            }
        }
    }

    /// The cluster's table as the cloud provider fills it, on the subnets that the template
    /// attaches it to, or a table that it does not name, and no document has one for.
    fn own_table(&self, others: &[RouteTable]) -> RouteTable {
        let taken = |name: &String| others.iter().any(|table| table.subnets.contains(name));
        let subnets = self.network.subnets.iter();
        RouteTable {
            name: clusters_table(self.cluster_id),
            routes: self.pods.clone(),
            propagates: true,
            subnets: subnets
                .filter(|subnet| subnet.route_table_attached)
                .filter(|subnet| {
                    subnet
                        .route_table
                        .as_deref()
                        .is_none_or(|name| self.is_clusters(name))
                })
                .map(|subnet| subnet.name.clone())
                .filter(|name| !taken(name))
                .collect(),
        }
    }

    /// The subnets that have the document's table: those that the document names, those whose
    /// template names the table, and for want of both those of the agents, where operators attach
    /// it.
    fn subnets(&self, document: &PlacedTable, given: usize, report: &mut Report) -> Vec<String> {
        let network = self.network;
        let vnet = &network.name.value;
        let mut found: Vec<String> = Vec::new();
        for (_, name) in document
            .subnets
            .iter()
            .filter(|(owner, _)| owner.eq_ignore_ascii_case(vnet))
        {
            let subnets = network.subnets.iter();
            match subnets
                .into_iter()
                .find(|s| s.name.eq_ignore_ascii_case(name))
            {
                Some(subnet) => found.push(subnet.name.clone()),
                None => report.warn(
                    &document.name.place,
                    format!("attached to subnet '{name}', which VNet '{vnet}' does not have"),
                ),
            }
        }
        for subnet in &network.subnets {
            let names = subnet.route_table.as_deref();
            let named = names.is_some_and(|name| document.is_named(name));
            if named && !found.contains(&subnet.name) {
                found.push(subnet.name.clone());
            }
        }
        if !found.is_empty() || !document.subnets.is_empty() || !document.given {
            return found;
        }
        if given > 1 {
            let message = "neither the document nor the VNet's template attaches it to a subnet";
            report.warn(&document.name.place, message);
            return found;
        }
        let agents = self.assignment.used_by_agents().into_iter();
        let agents = agents.map(|index| &network.subnets[index]);
        found.extend(
            agents
                .filter(|s| s.route_table.is_none())
                .map(|s| s.name.clone()),
        );
        let message = format!(
            "neither this document nor the VNet's template says which subnet has route table \
             '{}'; planned as on {}",
            document.name.value,
            match found.len() {
                0 => "none, since the agents' subnets name others".to_owned(),
                _ => found.join(", "),
            }
        );
        report.warn(&document.name.place, message);
        found
    }

    /// A next hop has to be in the VNet or in a peer: there is no other way to it than another
    /// route, and Azure follows one.
    fn check_hops(&self, document: &PlacedTable, report: &mut Report) {
        let space = self.space();
        for placed in &document.routes {
            let Some(hop) = placed
                .route
                .next_hop
                .address()
                .filter(|hop| !space.holds(*hop))
            else {
                continue;
            };
            let prefixes: Vec<String> = space.vnet.iter().map(ToString::to_string).collect();
            let message = format!(
                "next hop {hop} is not on link: neither VNet '{}' ({}) nor a VNet peered with it \
                 holds it",
                self.network.name.value,
                prefixes.join(", ")
            );
            report.fault(&placed.hop_at, message);
        }
    }

    /// The routes of a document's table; the cluster's with those that the cloud provider adds.
    fn routes(&self, document: &PlacedTable, report: &mut Report) -> Vec<Route> {
        let mut routes: Vec<Route> = document
            .routes
            .iter()
            .map(|placed| placed.route.clone())
            .collect();
        if !self.is_clusters(&document.name.value) {
            return routes;
        }
        for pods in &self.pods {
            let name = pods.name.as_deref().unwrap_or_default();
            let namesake = |route: &Route| {
                route
                    .name
                    .as_deref()
                    .is_some_and(|own| own.eq_ignore_ascii_case(name))
            };
            routes.retain(|route| !namesake(route) || route.prefix == pods.prefix);
            let written = routes.iter().position(|route| route.prefix == pods.prefix);
            match written {
                Some(at) if namesake(&routes[at]) || routes[at].next_hop == pods.next_hop => {
                    let name = routes[at].name.clone();
                    routes[at] = Route {
                        name,
                        ..pods.clone()
                    };
                }
                Some(at) => self.refuse_conflict(document, &routes[at], pods, report),
                None => routes.push(pods.clone()),
            }
        }
        if routes.len() > self.limit {
            let message = format!(
                "route table '{}' would have {} routes with those to the nodes' pods; one holds \
                 {} (--route-limit)",
                document.name.value,
                routes.len(),
                self.limit
            );
            report.fault(&document.name.place, message);
        }
        routes
    }

    fn refuse_conflict(
        &self,
        document: &PlacedTable,
        written: &Route,
        pods: &Route,
        report: &mut Report,
    ) {
        let places = document.routes.iter();
        let place = places
            .into_iter()
            .find(|placed| placed.route.prefix == written.prefix)
            .map_or(&document.name.place, |placed| &placed.prefix_at);
        let message = format!(
            "{} leads to {} here, and by the plan to {}: two next hops for one prefix. If the \
             document is right, nodes registered in another order: say so with --register",
            written.prefix, written.next_hop, pods.next_hop
        );
        report.fault(place, message);
    }
}

/// What is wrong with the routes of a plan's tables, now that it is known where they lead.
pub(super) fn judge(plan: &Plan, tables: &Tables, report: &mut Report) {
    let nowhere = Place::option("--route-table", "");
    for (at, table) in tables.tables.iter().enumerate() {
        for route in &table.routes {
            let place = tables.hops_at.get(&(at, route.prefix)).unwrap_or(&nowhere);
            // Where no NIC forwards, one route of the provider's is as good as none of them.
            let caveat = plan
                .hop_caveat(route)
                .filter(|_| route.source == Source::User);
            if let Some(caveat) = caveat {
                let message = format!("{}, so {} ends there", caveat, route.prefix);
                report.warn(place, message);
            }
        }
        let led_back: BTreeSet<IpAddr> = table
            .routes
            .iter()
            .filter(|route| route.source == Source::User)
            .filter_map(|route| route.next_hop.address())
            .collect();
        for node in plan
            .nodes
            .iter()
            .filter(|node| table.subnets.contains(&node.subnet))
        {
            let own = [
                Some(IpAddr::V4(node.primary_ip)),
                node.primary_ip_v6.map(IpAddr::V6),
            ];
            if !own
                .iter()
                .flatten()
                .any(|address| led_back.contains(address))
            {
                continue;
            }
            for (prefix, route) in plan.sent_by_switch(node) {
                if route
                    .next_hop
                    .address()
                    .is_some_and(|hop| own.contains(&Some(hop)))
                {
                    let place = tables.hops_at.get(&(at, route.prefix)).unwrap_or(&nowhere);
                    let message = format!(
                        "a route to itself: {} sends {prefix} out, and the route leads back to it",
                        node.name
                    );
                    report.fault(place, message);
                }
            }
        }
        missing_pods(plan, table, report);
    }
}

/// Warns where a table of somebody's own took the place of the cluster's, and lacks its routes.
fn missing_pods(plan: &Plan, table: &RouteTable, report: &mut Report) {
    let Some(node) = plan
        .nodes
        .iter()
        .find(|node| table.subnets.contains(&node.subnet))
    else {
        return;
    };
    let effective = plan.effective_routes(node);
    let lost: Vec<&str> = plan
        .routes
        .iter()
        .filter(|pods| {
            let taken = effective.find(pods.prefix.network());
            // A user who says so means it; otherwise nobody leads there.
            !taken.is_some_and(|route| {
                matches!(route.next_hop, NextHop::VirtualAppliance(_))
                    || route.source == Source::User && route.next_hop == NextHop::None
            })
        })
        .map(|pods| pods.name.as_str())
        .collect();
    if let [first, ..] = lost[..] {
        report.note(format!(
            "route table '{}' on {} leads to the pods of {} of {} nodes nowhere ({first} is one): \
             the cloud provider writes those routes into the cluster's own table, and a subnet \
             has one",
            table.name,
            table.subnets.join(", "),
            lost.len(),
            plan.routes.len()
        ));
    }
}

impl Plan {
    /// The effective routes of a node's NIC: those of its subnet, as the tables are attached.
    ///
    /// Each active route has the caveat that is known of its next hop.
    #[must_use]
    pub fn effective_routes(&self, node: &Node) -> EffectiveRoutes {
        self.chosen(node, self.table_of(&node.subnet))
    }

    /// The routes that a node's switch reckons with: its subnet's, and where the subnet has no
    /// table, those that it has once the cluster's is attached. Nobody tells a node when that is.
    #[must_use]
    pub fn expected_routes(&self, node: &Node) -> EffectiveRoutes {
        self.chosen(node, self.table_of(&node.subnet).or(self.own_table()))
    }

    /// The route table that a subnet has.
    #[must_use]
    pub fn table_of(&self, subnet: &str) -> Option<&RouteTable> {
        let has = |table: &&RouteTable| table.subnets.iter().any(|name| name == subnet);
        self.route_tables.iter().find(has)
    }

    /// The table that the cloud provider writes to, where it writes any: the only one with
    /// routes to pods.
    #[must_use]
    pub fn own_table(&self) -> Option<&RouteTable> {
        let of_pods = |table: &&RouteTable| {
            table
                .routes
                .iter()
                .any(|route| route.source == Source::Pods)
        };
        self.route_tables.iter().find(of_pods)
    }

    fn chosen(&self, node: &Node, table: Option<&RouteTable>) -> EffectiveRoutes {
        let subnets = self.vnet.subnets.iter();
        let mut subnets = subnets.filter(|subnet| subnet.name == node.subnet);
        let space = Space {
            vnet: self.vnet.prefixes.clone(),
            peers: self.vnet.peers.clone(),
            endpoints: match subnets.any(|subnet| subnet.service_endpoints) {
                true => self.vnet.endpoints.clone(),
                false => Vec::new(),
            },
        };
        let mut routes = EffectiveRoutes::of(&space, table, &self.vnet.learned);
        routes.note_caveats(|route| {
            let hop = route.next_hop.address()?;
            let v6 = node.primary_ip_v6.map(IpAddr::V6);
            if hop == IpAddr::V4(node.primary_ip) || Some(hop) == v6 {
                let own = [
                    node.pod_cidr.map(IpNet::V4),
                    node.pod_cidr_v6.map(IpNet::V6),
                ];
                let served = own.iter().flatten().any(|own| own.contains(&route.prefix));
                return (!served).then_some(Caveat::Itself);
            }
            self.hop_caveat(route)
        });
        routes
    }

    /// What is known to be wrong with the next hop of a route.
    fn hop_caveat(&self, route: &Route) -> Option<Caveat> {
        let hop = route.next_hop.address()?;
        if !self.ip_forwarding
            && let Some(owner) = self.nodes.iter().find(|node| node.owns(hop))
        {
            return Some(Caveat::NotForwarding(owner.name.clone()));
        }
        if !self
            .vnet
            .prefixes
            .iter()
            .any(|prefix| prefix.contains(&hop))
        {
            return None;
        }
        let prefixes = |subnet: &super::types::Subnet| {
            let v6 = subnet.prefix_v6.map(IpNet::V6);
            std::iter::once(IpNet::V4(subnet.prefix)).chain(v6)
        };
        let subnets = self.vnet.subnets.iter();
        match subnets
            .flat_map(prefixes)
            .find(|prefix| prefix.contains(&hop))
        {
            None => Some(Caveat::NoSubnet),
            Some(subnet) => is_reserved(subnet, hop).then_some(Caveat::Reserved),
        }
    }

    /// The prefixes that a node's switch sends out itself, past the kernel, and the route that
    /// each takes: under kubenet the other nodes' pod CIDRs, under azure the VNet's IPv4 space.
    /// What lies in the node's own range, or is the kernel's, is not among them.
    #[must_use]
    pub fn sent_by_switch(&self, node: &Node) -> Vec<(IpNet, Route)> {
        let v4 = |prefix: &&IpNet| prefix.addr().is_ipv4();
        let out: Vec<IpNet> = match self.plugin {
            Plugin::Azure => self.vnet.prefixes.iter().filter(v4).copied().collect(),
            Plugin::Kubenet => {
                let others = self.nodes.iter().filter(|other| other.name != node.name);
                others
                    .flat_map(|other| {
                        let v6 = other.pod_cidr_v6.filter(|_| other.primary_ip_v6.is_some());
                        let v6 = v6.filter(|_| node.primary_ip_v6.is_some());
                        other
                            .pod_cidr
                            .map(IpNet::V4)
                            .into_iter()
                            .chain(v6.map(IpNet::V6))
                    })
                    .collect()
            }
        };
        let kept: Vec<IpNet> = self.kept_by_node(node);
        let routes = self.expected_routes(node);
        let mut sent = Vec::new();
        for prefix in out {
            let pieces = routes.within(prefix);
            let pieces = pieces.filter(|(piece, _)| !kept.iter().any(|own| own.contains(piece)));
            sent.extend(pieces.map(|(piece, row)| (piece, row.route.clone())));
        }
        sent
    }

    /// What never leaves a node by its uplink straight from the switch: its own pods' range, and
    /// what its kernel translates.
    fn kept_by_node(&self, node: &Node) -> Vec<IpNet> {
        let own = node.pod_range().into_iter().map(IpNet::V4);
        let own_v6 = node.pod_cidr_v6.map(IpNet::V6);
        let kernels = self.service_cidrs.iter().chain(&self.via_host).copied();
        own.chain(own_v6).chain(kernels).collect()
    }
}

impl Node {
    /// Whether an address is one of its NIC's: its own, or under azure a pod's.
    fn owns(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => {
                let pods = self.pod_ips.as_ref();
                v4 == self.primary_ip || pods.is_some_and(|pods| pods.iter().any(|ip| ip == v4))
            }
            IpAddr::V6(v6) => self.primary_ip_v6 == Some(v6),
        }
    }
}

/// Azure keeps the first four addresses of a subnet, and of IPv4 the last.
fn is_reserved(subnet: IpNet, address: IpAddr) -> bool {
    match (subnet, address) {
        (IpNet::V4(net), IpAddr::V4(ip)) => {
            ip.to_bits() - net.network().to_bits() < 4 || ip == net.broadcast()
        }
        (IpNet::V6(net), IpAddr::V6(ip)) => ip.to_bits() - net.network().to_bits() < 4,
        _ => false,
    }
}
