//! Route tables from ARM documents: what was written, and what Azure would refuse of it.
//!
//! In: a deployment template that declares `Microsoft.Network/routeTables`, such a resource alone,
//! or what `az network route-table show` prints of one. Out: its tables, every route with its
//! place, or every fault. Never: knows the VNet; judges whether a next hop is there.
//!
//! A template keeps what it says in `properties`, and `az` prints it beside the name; both are
//! read. Routes may stand in their table, in its `resources`, or beside it as
//! `Microsoft.Network/routeTables/routes`. Names and types are compared without case, as Azure
//! compares them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::route::{NextHop, Route, Source};
use crate::model::{
    Document, Node, Object, Place, Placed, Reader, Report, Value, as_object, parse_cidr, parse_ip,
};

const TABLE_TYPE: &str = "Microsoft.Network/routeTables";
const ROUTE_TYPE: &str = "Microsoft.Network/routeTables/routes";

/// The next hop types that a table may hold, as Azure spells them.
const TYPES: &str = "VirtualAppliance, VirtualNetworkGateway, VnetLocal, Internet, None";
/// Next hop types that only Azure itself gives out, in lower case.
const AZURES_OWN: [&str; 4] = [
    "vnetpeering",
    "vnetglobalpeering",
    "virtualnetworkserviceendpoint",
    "interfaceendpoint",
];

/// Azure's addresses that no route of a table concerns: DNS, DHCP and probes; metadata.
const PLATFORM: [&str; 2] = ["168.63.129.16/32", "169.254.0.0/16"];

/// A route table and where its parts stand.
#[derive(Clone, Debug)]
pub(crate) struct PlacedTable {
    pub(crate) name: Placed<String>,
    /// In the order of the document; each name and each prefix once.
    pub(crate) routes: Vec<PlacedRoute>,
    /// Whether a gateway's routes count beside it.
    pub(crate) propagates: bool,
    /// Given for its own sake, and not found beside a VNet.
    pub(crate) given: bool,
    /// VNet and subnet of the subnets that the document itself says have the table.
    pub(crate) subnets: Vec<(String, String)>,
}

impl PlacedTable {
    /// Whether that is its name, as Azure compares names.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        same(&self.name.value, name)
    }
}

/// A route of a table and where its parts stand.
#[derive(Clone, Debug)]
pub(crate) struct PlacedRoute {
    pub(crate) route: Route,
    pub(crate) prefix_at: Place,
    pub(crate) hop_at: Place,
}

/// Reads every route table of a document. Nothing only when the report has gained a fault.
pub(crate) fn read(
    document: &Document,
    limit: usize,
    report: &mut Report,
) -> Option<Vec<PlacedTable>> {
    let faults_before = report.fault_count();
    let root = document.root();
    let reader = Tables {
        reader: Reader::new(&root, report),
    };
    let tables = if root.find("type").is_some() || root.find("id").is_some() {
        reader.alone(&root, report)
    } else if root.find("resources").is_some() {
        reader.template(&root, report)
    } else {
        let message = format!(
            "neither an ARM template, which has resources, nor a resource of type {TABLE_TYPE}"
        );
        report.fault(&root.place, message);
        Vec::new()
    };
    for table in &tables {
        judge(table, limit, report);
    }
    (report.fault_count() == faults_before).then_some(tables)
}

/// The route tables that a VNet's template declares beside it. What cannot be read of them is a
/// warning: the VNet can do without.
pub(crate) fn read_beside(
    document: &Document,
    limit: usize,
    report: &mut Report,
) -> Vec<PlacedTable> {
    let root = document.root();
    let unheard = &mut Report::default();
    let reader = Reader::new(&root, unheard);
    let resources = reader.resources(&root, unheard);
    if !resources
        .iter()
        .any(|resource| reader.is_kind(resource, TABLE_TYPE))
    {
        return Vec::new();
    }
    let mut found = Report::default();
    let mut tables = read(document, limit, &mut found).unwrap_or_default();
    report.warn_all(found, "the template's route table");
    tables.iter_mut().for_each(|table| table.given = false);
    tables
}

struct Tables<'a> {
    reader: Reader<'a>,
}

impl<'a> Tables<'a> {
    fn alone(&self, root: &Object<'a>, report: &mut Report) -> Vec<PlacedTable> {
        let id_kind = || {
            root.text("id", &mut Report::default())
                .and_then(|id| kind_of_id(&id))
        };
        let Some(kind) = root.text("type", report).or_else(id_kind) else {
            let message = format!("cannot tell whether this is a resource of type {TABLE_TYPE}");
            report.fault(&root.place_of("id"), message);
            return Vec::new();
        };
        if !kind.value.eq_ignore_ascii_case(TABLE_TYPE) {
            let message = format!(
                "expected a resource of type {TABLE_TYPE}, found {}",
                kind.value
            );
            report.fault(&kind.place, message);
            return Vec::new();
        }
        self.table(root, report).into_iter().collect()
    }

    fn template(&self, root: &Object<'a>, report: &mut Report) -> Vec<PlacedTable> {
        let resources = self.reader.resources(root, report);
        let of_kind = |kind| {
            let resources = resources.iter();
            resources.filter(move |resource| self.reader.is_kind(resource, kind))
        };
        let mut tables: Vec<PlacedTable> = Vec::new();
        for resource in of_kind(TABLE_TYPE).filter(|resource| is_deployed(resource)) {
            let Some(table) = self.table(resource, report) else {
                continue;
            };
            let name = &table.name;
            if tables
                .iter()
                .any(|other| same(&other.name.value, &name.value))
            {
                let message = format!("there is more than one route table '{}'", name.value);
                report.fault(&name.place, message);
            }
            tables.push(table);
        }
        for resource in of_kind(ROUTE_TYPE).filter(|resource| is_deployed(resource)) {
            self.attach_route(resource, &mut tables, report);
        }
        if of_kind(TABLE_TYPE).next().is_none() {
            let found: Vec<String> = resources
                .iter()
                .filter_map(|resource| resource.text("type", &mut Report::default()))
                .map(|kind| kind.value)
                .collect();
            let found = match found.len() {
                0 => "no resource at all".to_owned(),
                _ => found.join(", "),
            };
            let message = format!("no resource of type {TABLE_TYPE}; the template has {found}");
            report.fault(&root.place_of("resources"), message);
        }
        tables
    }

    fn table(&self, resource: &Object<'a>, report: &mut Report) -> Option<PlacedTable> {
        let name = self.reader.text(resource, "name", report);
        refuse_copy(resource, report);
        let properties = properties(resource, report)?;
        refuse_copy(&properties, report);
        let propagates = !self.flag(&properties, "disableBgpRoutePropagation", report);
        let written = self.objects(&properties, "routes", report);
        let mut children = self.reader.resources(resource, report);
        children.retain(|child| {
            self.reader.is_kind(child, "routes") || self.reader.is_kind(child, ROUTE_TYPE)
        });
        let routes = written
            .iter()
            .chain(children.iter().filter(|child| is_deployed(child)))
            .filter_map(|route| self.route(route, report))
            .collect();
        let subnets = self
            .objects(&properties, "subnets", report)
            .iter()
            .filter_map(|subnet| subnet_of_id(&subnet.text("id", report)?.value))
            .collect();
        Some(PlacedTable {
            name: name?,
            routes,
            propagates,
            given: true,
            subnets,
        })
    }

    /// A route declared beside its table, under the name `TABLE/ROUTE`.
    fn attach_route(&self, resource: &Object<'a>, tables: &mut [PlacedTable], report: &mut Report) {
        let Some(mut placed) = self.route(resource, report) else {
            return;
        };
        let at = resource.place_of("name");
        let full = placed.route.name.clone().unwrap_or_default();
        let Some((owner, name)) = full.split_once('/') else {
            report.fault(&at, format!("'{full}' is not of the form TABLE/ROUTE"));
            return;
        };
        placed.route.name = Some(name.to_owned());
        match tables
            .iter_mut()
            .find(|table| same(&table.name.value, owner))
        {
            Some(table) => table.routes.push(placed),
            None => report.fault(
                &at,
                format!("belongs to a route table '{owner}', which the template does not declare"),
            ),
        }
    }

    /// A route; nothing if it is at fault, or for a service tag.
    fn route(&self, route: &Object<'a>, report: &mut Report) -> Option<PlacedRoute> {
        refuse_copy(route, report);
        let name = self.reader.text(route, "name", report);
        let properties = properties(route, report)?;
        let written = self.reader.text(&properties, "addressPrefix", report);
        let prefix = written
            .as_ref()
            .and_then(|text| read_prefix_of_route(text, report));
        let next_hop = self.next_hop(&properties, report);
        let (prefix, (next_hop, hop_at)) = (prefix?, next_hop?);
        judge_hop(prefix, next_hop, &hop_at, report)?;
        Some(PlacedRoute {
            route: Route {
                name: Some(name?.value),
                ..Route::new(prefix, next_hop, Source::User)
            },
            prefix_at: written?.place,
            hop_at,
        })
    }

    fn next_hop(&self, properties: &Object<'a>, report: &mut Report) -> Option<(NextHop, Place)> {
        let kind = self.reader.text(properties, "nextHopType", report);
        // `az` prints null where there is no address, and older versions print an empty text.
        let address = properties
            .find("nextHopIpAddress")
            .and_then(|_| self.reader.text(properties, "nextHopIpAddress", report))
            .filter(|address| !address.value.is_empty());
        let kind = kind?;
        let hop = match kind.value.to_ascii_lowercase().as_str() {
            "virtualappliance" => {
                let Some(address) = &address else {
                    let message = "VirtualAppliance without a nextHopIpAddress leads nowhere";
                    report.fault(&kind.place, message);
                    return None;
                };
                let Some(hop) = parse_ip(&address.value) else {
                    let message = format!("'{}' is not an IP address", address.value);
                    report.fault(&address.place, message);
                    return None;
                };
                return Some((NextHop::VirtualAppliance(hop), address.place.clone()));
            }
            "virtualnetworkgateway" => NextHop::VirtualNetworkGateway,
            "vnetlocal" => NextHop::VnetLocal,
            "internet" => NextHop::Internet,
            "none" => NextHop::None,
            own if AZURES_OWN.contains(&own) => {
                let message = format!(
                    "{} is the next hop of routes that Azure makes; a table may have {TYPES}",
                    kind.value
                );
                report.fault(&kind.place, message);
                return None;
            }
            _ => {
                let message = format!("unknown nextHopType '{}': one of {TYPES}", kind.value);
                report.fault(&kind.place, message);
                return None;
            }
        };
        if let Some(address) = address {
            let message = format!("{hop} takes no nextHopIpAddress, only VirtualAppliance does");
            report.fault(&address.place, message);
            return None;
        }
        Some((hop, kind.place))
    }

    /// A flag that may be an expression; absent is false.
    fn flag(&self, object: &Object<'a>, name: &str, report: &mut Report) -> bool {
        let Some((node, place)) = self.reader.resolved(object, name, report) else {
            return false;
        };
        let Value::Flag(flag) = node.value else {
            let message = format!("expected true or false, found {}", node.value.kind());
            report.fault(&place, message);
            return false;
        };
        flag
    }

    /// The objects of a list that may be an expression; absent is empty.
    fn objects(&self, object: &Object<'a>, name: &str, report: &mut Report) -> Vec<Object<'a>> {
        match self.reader.resolved(object, name, report) {
            None => Vec::new(),
            Some((
                Node {
                    value: Value::List(nodes),
                    ..
                },
                place,
            )) => nodes
                .iter()
                .enumerate()
                .filter_map(|(at, node)| as_object(node, place.element(at, node.offset), report))
                .collect(),
            Some((node, place)) => {
                let message = format!("expected a list, found {}", node.value.kind());
                report.fault(&place, message);
                Vec::new()
            }
        }
    }
}

/// The `properties` of a resource; what `az` prints has them beside its name.
fn properties<'a>(resource: &Object<'a>, report: &mut Report) -> Option<Object<'a>> {
    match resource.find("properties") {
        Some(_) => resource.object("properties", report),
        None => Some(resource.clone()),
    }
}

/// A resource under `"condition": false` is not deployed.
fn is_deployed(resource: &Object<'_>) -> bool {
    !matches!(
        resource.find("condition"),
        Some((
            Node {
                value: Value::Flag(false),
                ..
            },
            _
        ))
    )
}

fn refuse_copy(object: &Object<'_>, report: &mut Report) {
    if let Some((_, place)) = object.find("copy") {
        report.fault(
            &place,
            "Tapline does not unroll copy; `az network route-table show` prints what it comes to",
        );
    }
}

fn kind_of_id(id: &Placed<String>) -> Option<Placed<String>> {
    // .../providers/Microsoft.Network/routeTables/NAME, and for a child /routes/NAME.
    let lower = id.value.to_ascii_lowercase();
    let at = lower.rfind("/providers/")? + "/providers/".len();
    let mut parts = id.value[at..].split('/');
    let provider = parts.next()?;
    let kinds: Vec<&str> = parts.step_by(2).collect();
    Some(id.with(format!("{provider}/{}", kinds.join("/"))))
}

fn subnet_of_id(id: &str) -> Option<(String, String)> {
    let parts: Vec<&str> = id.split('/').collect();
    let [.., kind, vnet, child, subnet] = parts[..] else {
        return None;
    };
    let fits = same(kind, "virtualNetworks") && same(child, "subnets");
    fits.then(|| (vnet.to_owned(), subnet.to_owned()))
}

fn read_prefix_of_route(text: &Placed<String>, report: &mut Report) -> Option<IpNet> {
    let net = read_prefix(text, report)?;
    for own in PLATFORM {
        let platform: IpNet = own.parse().expect("the table holds prefixes");
        if platform.contains(&net) {
            let message = format!("without effect: no route of a table concerns Azure's own {own}");
            report.warn(&text.place, message);
        }
    }
    Some(net)
}

/// A prefix without host bits; nothing if it is at fault, or a service tag.
pub(super) fn read_prefix(text: &Placed<String>, report: &mut Report) -> Option<IpNet> {
    let written = text.value.as_str();
    let Some(net) = parse_cidr(written) else {
        if is_service_tag(written) {
            let message = format!(
                "'{written}' is a service tag, whose prefixes only Azure knows; the route is left \
                 out"
            );
            report.warn(&text.place, message);
        } else {
            report.fault(&text.place, not_a_prefix(written));
        }
        return None;
    };
    if net.addr() != net.network() {
        let message = format!(
            "{net} has bits set outside its mask; the prefix is {}",
            net.trunc()
        );
        report.fault(&text.place, message);
        return None;
    }
    Some(net)
}

/// Azure's names for its services, such as `Storage.WestEurope`: no digit first, no slash.
fn is_service_tag(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')
}

fn not_a_prefix(written: &str) -> String {
    let (address, length) = written.split_once('/').unwrap_or((written, ""));
    let Some(address) = parse_ip(address) else {
        return format!("'{written}' is not an address prefix");
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    if !written.contains('/') {
        return format!("'{written}' is an address; its prefix is {written}/{most}");
    }
    let family = if most == 32 { 4 } else { 6 };
    format!("'{length}' is out of range: the prefix length of IPv{family} is 0 to {most}")
}

/// What makes no sense about a route whatever the VNet. A next hop *inside* its own prefix does:
/// `0.0.0.0/0` and the VNet's own prefix lead to an appliance within them as a matter of course,
/// since the fabric finds a next hop by its owner, not by routes.
fn judge_hop(prefix: IpNet, hop: NextHop, at: &Place, report: &mut Report) -> Option<()> {
    let NextHop::VirtualAppliance(address) = hop else {
        return Some(());
    };
    let message = if address.is_ipv4() != prefix.addr().is_ipv4() {
        format!("{address} and {prefix} are of two families; a next hop is of its prefix's")
    } else if !is_somebodys(address) {
        format!("{address} can be no NIC's address, so nothing can go there")
    } else if prefix == IpNet::from(address) {
        format!("a route to itself: {address} is all that {prefix} holds")
    } else {
        return Some(());
    };
    report.fault(at, message);
    None
}

/// Whether an address may be that of a NIC in a VNet.
fn is_somebodys(address: IpAddr) -> bool {
    let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    !special
        && match address {
            IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_broadcast(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        }
}

/// What Azure refuses of a table as a whole.
fn judge(table: &PlacedTable, limit: usize, report: &mut Report) {
    let count = table.routes.len();
    if count > limit {
        let message = format!(
            "route table '{}' has {count} routes; one holds {limit} (--route-limit)",
            table.name.value
        );
        report.fault(&table.name.place, message);
    }
    let mut names: HashSet<String> = HashSet::new();
    let mut prefixes: HashMap<IpNet, &Route> = HashMap::new();
    for placed in &table.routes {
        let route = &placed.route;
        let name = route.name.as_deref().unwrap_or_default();
        if !names.insert(name.to_ascii_lowercase()) {
            let message = format!("there is more than one route '{name}'");
            report.fault(&placed.prefix_at, message);
        }
        let Some(first) = prefixes.get(&route.prefix) else {
            prefixes.insert(route.prefix, route);
            continue;
        };
        let message = format!(
            "{} is the prefix of route '{}' already, which leads to {}, and this one leads to {}: \
             Azure refuses two routes of one prefix (RouteConflict)",
            route.prefix,
            first.name.as_deref().unwrap_or_default(),
            first.next_hop,
            route.next_hop
        );
        report.fault(&placed.prefix_at, message);
    }
}

fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}
