//! The VNets of an ARM template.
//!
//! In: a template. Out: its VNets with their prefixes and subnets, or every fault.
//! Never: asks Azure; minds resources of other kinds.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::cidr::{overlap, parse_cidr};
use super::expression::{Names, Resolved};
use super::fault::{Place, Placed, Report};
use super::text::{Document, Node, Object, Value, as_object};

const VNET_TYPE: &str = "Microsoft.Network/virtualNetworks";
const SUBNET_TYPE: &str = "Microsoft.Network/virtualNetworks/subnets";

/// Azure keeps the first four addresses and the last one of each subnet, so three remain here.
const SUBNET_LENGTH_MAX: u8 = 29;
const SUBNET_LENGTH_MIN: u8 = 8;
/// The one length that an IPv6 subnet has on Azure.
const SUBNET_LENGTH_V6: u8 = 64;

/// What Azure refuses as part of a VNet, and why; of IPv6, what RFC 4291 gives to no network.
const FORBIDDEN: [(&str, &str); 9] = [
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    (
        "168.63.129.16/32",
        "Azure's own address for DNS, DHCP and probes",
    ),
    ("ff00::/8", "multicast"),
    ("fe80::/10", "link-local"),
    ("::1/128", "loopback"),
    ("::/128", "the unspecified address"),
];

/// A VNet and where its parts stand.
#[derive(Clone, Debug)]
pub struct Network {
    pub(crate) name: Placed<String>,
    /// Its address space, IPv4 and IPv6, as written.
    pub(crate) prefixes: Vec<Placed<IpNet>>,
    pub(crate) subnets: Vec<PlacedSubnet>,
    /// The address spaces of the VNets that it is peered with.
    pub(crate) peers: Vec<Placed<IpNet>>,
    /// aks-engine makes it itself, so nobody could have chosen otherwise.
    pub(crate) generated: bool,
    /// A prefix could not be read, so a subnet may lie in it.
    incomplete: bool,
}

/// A subnet and where its prefixes stand.
#[derive(Clone, Debug)]
pub struct PlacedSubnet {
    pub(crate) name: String,
    pub(crate) prefix: Placed<Ipv4Net>,
    /// Its IPv6 prefix, where it has one: a /64.
    pub(crate) prefix_v6: Option<Placed<Ipv6Net>>,
    pub(crate) route_table_attached: bool,
    /// It reaches services of Azure by service endpoints.
    pub(crate) service_endpoints: bool,
    /// The name of that route table, where the template tells it.
    pub(crate) route_table: Option<String>,
}

impl PlacedSubnet {
    /// Its prefixes, IPv4 first.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = Placed<IpNet>> + '_ {
        let second = self.prefix_v6.iter().map(|net| net.with(net.value.into()));
        std::iter::once(self.prefix.with(self.prefix.value.into())).chain(second)
    }
}

/// The VNets of one template. Never none.
#[derive(Clone, Debug)]
pub struct Vnets {
    networks: Vec<Network>,
}

impl Vnets {
    /// The VNet of that name, or the only one when no name is wanted.
    pub(crate) fn choose(
        &self,
        wanted: Option<&Placed<String>>,
        report: &mut Report,
    ) -> Option<Network> {
        let names: Vec<String> = self
            .networks
            .iter()
            .map(|network| network.name.value.clone())
            .collect();
        match wanted {
            Some(wanted) => {
                let found = self
                    .networks
                    .iter()
                    .find(|network| network.name.value.eq_ignore_ascii_case(&wanted.value));
                if found.is_none() {
                    let message = format!(
                        "the template declares no VNet '{}'; it declares {}",
                        wanted.value,
                        names.join(", ")
                    );
                    report.fault(&wanted.place, message);
                }
                found.cloned()
            }
            None if self.networks.len() == 1 => self.networks.first().cloned(),
            None => {
                let message = format!(
                    "the template declares several VNets ({}); a vnetSubnetID in the model says \
                     which one",
                    names.join(", ")
                );
                report.fault(&self.networks[1].name.place, message);
                None
            }
        }
    }
}

/// Reads and judges every VNet of a template.
pub(crate) fn read(document: &Document, report: &mut Report) -> Option<Vnets> {
    let root = document.root();
    let reader = Reader::new(&root, report);
    let resources = reader.resources(&root, report);
    let mut networks: Vec<Network> = resources
        .iter()
        .filter(|resource| reader.is_kind(resource, VNET_TYPE))
        .filter_map(|resource| reader.network(resource, report))
        .collect();
    for resource in resources
        .iter()
        .filter(|resource| reader.is_kind(resource, SUBNET_TYPE))
    {
        reader.attach_subnet(resource, &mut networks, report);
    }
    if networks.is_empty() {
        let message = format!("the template has no resource of type {VNET_TYPE}");
        report.fault(&root.place_of("resources"), message);
        return None;
    }
    for network in &networks {
        judge(network, report);
    }
    Some(Vnets { networks })
}

/// Reads the parts of a template, expressions included.
pub(crate) struct Reader<'a> {
    names: Names<'a>,
}

impl<'a> Reader<'a> {
    /// A reader that knows the parameters and variables of a template.
    pub(crate) fn new(root: &Object<'a>, report: &mut Report) -> Reader<'a> {
        let names = Names {
            parameters: root.object("parameters", report),
            variables: root.object("variables", report),
        };
        Reader { names }
    }

    /// The value of a member that may be an expression for anything but a text.
    pub(crate) fn resolved(
        &self,
        object: &Object<'a>,
        name: &str,
        report: &mut Report,
    ) -> Option<(&'a Node, Place)> {
        let (node, place) = object.find(name)?;
        match self.names.resolve(node) {
            Ok(Resolved::Node(resolved)) => Some((resolved, place)),
            // The complaint about the wrong kind is the caller's.
            Ok(Resolved::Text(_)) => Some((node, place)),
            Err(message) => {
                report.fault(&place, message);
                None
            }
        }
    }

    /// The resources, a list or, in newer templates, an object by symbolic name.
    pub(crate) fn resources(&self, parent: &Object<'a>, report: &mut Report) -> Vec<Object<'a>> {
        match parent.find("resources") {
            Some((
                Node {
                    value: Value::Object(members),
                    ..
                },
                place,
            )) => members
                .iter()
                .filter_map(|member| {
                    let place = place.child(&member.name).at(member.node.offset);
                    as_object(&member.node, place, report)
                })
                .collect(),
            _ => parent
                .list("resources", report)
                .into_iter()
                .filter_map(|(node, place)| as_object(node, place, report))
                .collect(),
        }
    }

    pub(crate) fn is_kind(&self, resource: &Object<'a>, kind: &str) -> bool {
        matches!(
            resource.find("type"),
            Some((Node { value: Value::Text(text), .. }, _)) if text.eq_ignore_ascii_case(kind)
        )
    }

    /// A text that may be an expression.
    pub(crate) fn text(
        &self,
        object: &Object<'a>,
        name: &str,
        report: &mut Report,
    ) -> Option<Placed<String>> {
        let Some((node, place)) = object.find(name) else {
            report.fault(&object.place_of(name), format!("missing {name}"));
            return None;
        };
        match self.names.resolve(node) {
            Ok(Resolved::Text(text)) => Some(Placed::new(text, place)),
            Ok(Resolved::Node(node)) => {
                report.fault(
                    &place,
                    format!("expected text, found {}", node.value.kind()),
                );
                None
            }
            Err(message) => {
                report.fault(&place, message);
                None
            }
        }
    }

    /// A list that may be an expression, or hold some.
    pub(super) fn texts(
        &self,
        object: &Object<'a>,
        name: &str,
        report: &mut Report,
    ) -> Vec<Placed<String>> {
        let Some((node, place)) = object.find(name) else {
            return Vec::new();
        };
        let nodes = match self.names.resolve(node) {
            Ok(Resolved::Node(Node {
                value: Value::List(nodes),
                ..
            })) => nodes,
            Ok(_) => {
                report.fault(
                    &place,
                    format!("expected a list, found {}", node.value.kind()),
                );
                return Vec::new();
            }
            Err(message) => {
                report.fault(&place, message);
                return Vec::new();
            }
        };
        let mut texts = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let place = place.element(index, node.offset);
            match self.names.resolve(node) {
                Ok(Resolved::Text(text)) => texts.push(Placed::new(text, place)),
                Ok(Resolved::Node(node)) => {
                    report.fault(
                        &place,
                        format!("expected text, found {}", node.value.kind()),
                    );
                }
                Err(message) => report.fault(&place, message),
            }
        }
        texts
    }

    fn network(&self, resource: &Object<'a>, report: &mut Report) -> Option<Network> {
        let name = self.text(resource, "name", report);
        let Some(properties) = resource.object("properties", report) else {
            report.fault(&resource.place_of("properties"), "missing properties");
            return None;
        };
        let space = properties.object("addressSpace", report);
        let texts = space
            .as_ref()
            .map(|space| self.texts(space, "addressPrefixes", report))
            .unwrap_or_default();
        let read: Vec<_> = texts.iter().map(|text| read_prefix(text, report)).collect();
        let incomplete = texts.is_empty() || read.iter().any(Option::is_none);
        let prefixes: Vec<_> = read.into_iter().flatten().collect();
        let peers = self.peers(resource, &prefixes, report);
        if texts.is_empty() {
            let missing = properties.place_of("addressSpace").child("addressPrefixes");
            report.fault(&missing, "the VNet has no address prefix");
        }
        let mut subnets: Vec<PlacedSubnet> = properties
            .list("subnets", report)
            .into_iter()
            .filter_map(|(node, place)| as_object(node, place, report))
            .collect::<Vec<_>>()
            .iter()
            .filter_map(|subnet| self.subnet(subnet, report))
            .collect();
        for child in self.resources(resource, report) {
            if self.is_kind(&child, "subnets") || self.is_kind(&child, SUBNET_TYPE) {
                subnets.extend(self.subnet(&child, report));
            }
        }
        Some(Network {
            name: name?,
            prefixes,
            subnets,
            peers,
            generated: false,
            incomplete,
        })
    }

    /// A subnet, or nothing if it is at fault or holds IPv6 only.
    fn subnet(&self, subnet: &Object<'a>, report: &mut Report) -> Option<PlacedSubnet> {
        let name = self.text(subnet, "name", report);
        let Some(properties) = subnet.object("properties", report) else {
            report.fault(&subnet.place_of("properties"), "missing properties");
            return None;
        };
        let texts = if properties.find("addressPrefixes").is_some() {
            self.texts(&properties, "addressPrefixes", report)
        } else {
            self.text(&properties, "addressPrefix", report)
                .into_iter()
                .collect()
        };
        let (mut first, mut second) = (None, None);
        for text in &texts {
            let Some(net) = read_prefix(text, report) else {
                continue;
            };
            let another = match net.value {
                IpNet::V4(prefix) => first.replace(net.with(prefix)).is_some(),
                IpNet::V6(prefix) => second.replace(net.with(prefix)).is_some(),
            };
            if another {
                let family = if net.value.addr().is_ipv4() { 4 } else { 6 };
                let message = format!("Tapline plans subnets with one IPv{family} prefix only");
                report.fault(&net.place, message);
            }
        }
        Some(PlacedSubnet {
            name: name?.value,
            prefix: first?,
            prefix_v6: second,
            route_table_attached: properties.find("routeTable").is_some(),
            service_endpoints: has_elements(&properties, "serviceEndpoints"),
            route_table: self.route_table(&properties),
        })
    }

    /// The name at the end of the id of a subnet's route table. An id that cannot be read is no
    /// fault: that a table is attached is known without it.
    fn route_table(&self, properties: &Object<'a>) -> Option<String> {
        let unheard = &mut Report::default();
        let table = properties.object("routeTable", unheard)?;
        let id = self.text(&table, "id", unheard)?.value;
        let name = id.rsplit('/').next()?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// A subnet declared beside its VNet, under the name `VNET/SUBNET`.
    fn attach_subnet(&self, resource: &Object<'a>, networks: &mut [Network], report: &mut Report) {
        let Some(mut subnet) = self.subnet(resource, report) else {
            return;
        };
        let owner = subnet
            .name
            .split_once('/')
            .map(|(vnet, name)| (vnet.to_owned(), name.to_owned()));
        let Some((vnet, name)) = owner else {
            let message = format!("'{}' is not of the form VNET/SUBNET", subnet.name);
            report.fault(&resource.place_of("name"), message);
            return;
        };
        // A subnet of a VNet that is not in this template is no concern of ours.
        if let Some(network) = networks
            .iter_mut()
            .find(|network| network.name.value.eq_ignore_ascii_case(&vnet))
        {
            subnet.name = name;
            network.subnets.push(subnet);
        }
    }
}

fn has_elements(object: &Object<'_>, name: &str) -> bool {
    matches!(
        object.find(name),
        Some((Node { value: Value::List(nodes), .. }, _)) if !nodes.is_empty()
    )
}

/// A prefix as Azure reads it: without bits outside its mask.
pub(super) fn read_prefix(text: &Placed<String>, report: &mut Report) -> Option<Placed<IpNet>> {
    let Some(net) = parse_cidr(&text.value) else {
        report.fault(
            &text.place,
            format!("'{}' is not an address prefix", text.value),
        );
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
    Some(text.with(net))
}

/// What Azure would refuse about a VNet's layout.
fn judge(network: &Network, report: &mut Report) {
    for (index, prefix) in network.prefixes.iter().enumerate() {
        for (space, why) in FORBIDDEN {
            let space = parse_cidr(space).expect("the table holds prefixes");
            if overlap(&prefix.value, &space) {
                let message = format!("{} overlaps {space}, {why}", prefix.value);
                report.fault(&prefix.place, message);
            }
        }
        judge_length(prefix, "VNet", report);
        if let Some(other) = network.prefixes[..index]
            .iter()
            .find(|other| overlap(&prefix.value, &other.value))
        {
            let message = format!(
                "{} overlaps {}, a prefix of the same VNet",
                prefix.value, other.value
            );
            report.fault(&prefix.place, message);
        }
    }
    for (index, subnet) in network.subnets.iter().enumerate() {
        judge_subnet(network, subnet, &network.subnets[..index], report);
    }
}

fn judge_subnet(
    network: &Network,
    subnet: &PlacedSubnet,
    earlier: &[PlacedSubnet],
    report: &mut Report,
) {
    for prefix in subnet.prefixes() {
        judge_length(&prefix, "subnet", report);
        let inside = network
            .prefixes
            .iter()
            .any(|outer| outer.value.contains(&prefix.value));
        if !inside && !network.incomplete {
            let prefixes: Vec<String> = network
                .prefixes
                .iter()
                .map(|prefix| prefix.value.to_string())
                .collect();
            let message = format!(
                "subnet '{}' {} is outside VNet '{}' ({})",
                subnet.name,
                prefix.value,
                network.name.value,
                prefixes.join(", ")
            );
            report.fault(&prefix.place, message);
        }
        for other in earlier {
            for taken in other.prefixes() {
                if overlap(&prefix.value, &taken.value) {
                    let message = format!(
                        "subnet '{}' {} overlaps subnet '{}' {}",
                        subnet.name, prefix.value, other.name, taken.value
                    );
                    report.fault(&prefix.place, message);
                }
            }
        }
    }
    for other in earlier {
        if subnet.name.eq_ignore_ascii_case(&other.name) {
            report.fault(
                &subnet.prefix.place,
                format!("there is more than one subnet '{}'", subnet.name),
            );
        }
    }
}

/// Azure's bounds: for IPv4 those of VNets and subnets are the same; an IPv6 subnet is a /64, and
/// a VNet holds at least one.
fn judge_length(prefix: &Placed<IpNet>, what: &str, report: &mut Report) {
    let net = prefix.value;
    let length = net.prefix_len();
    let message = match net {
        IpNet::V4(_) if length > SUBNET_LENGTH_MAX => {
            format!("{what} {net} is smaller than /{SUBNET_LENGTH_MAX}, Azure's least")
        }
        IpNet::V4(_) if length < SUBNET_LENGTH_MIN => {
            format!("{what} {net} is larger than /{SUBNET_LENGTH_MIN}, Azure's most")
        }
        IpNet::V6(_) if what == "subnet" && length != SUBNET_LENGTH_V6 => {
            format!("{what} {net} is not a /{SUBNET_LENGTH_V6}, which Azure asks of IPv6")
        }
        IpNet::V6(_) if length > SUBNET_LENGTH_V6 => {
            format!("{what} {net} is smaller than /{SUBNET_LENGTH_V6}, an IPv6 subnet on Azure")
        }
        _ => return,
    };
    report.fault(&prefix.place, message);
}

/// The address space of the VNets that aks-engine makes; the second is for dual stack.
const GENERATED_SPACE: [&str; 2] = ["10.0.0.0/8", "2001:1234:5678:9a00::/56"];

/// The VNet that aks-engine makes for a model without one of its own.
pub(crate) fn generated(
    name: String,
    place: &Place,
    subnets: Vec<PlacedSubnet>,
    report: &mut Report,
) -> Network {
    let families = if subnets.iter().any(|subnet| subnet.prefix_v6.is_some()) {
        2
    } else {
        1
    };
    let prefixes = GENERATED_SPACE.iter().take(families).map(|text| {
        let prefix = text.parse().expect("the table holds prefixes");
        Placed::new(prefix, place.clone())
    });
    let network = Network {
        name: Placed::new(name, place.clone()),
        prefixes: prefixes.collect(),
        subnets,
        peers: Vec::new(),
        generated: true,
        incomplete: false,
    };
    judge(&network, report);
    network
}
