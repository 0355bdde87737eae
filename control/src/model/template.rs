//! The VNets of an ARM template.
//!
//! In: a template. Out: its VNets with their prefixes and subnets, or every fault.
//! Never: asks Azure; minds resources of other kinds.

use ipnet::{IpNet, Ipv4Net};

use super::cidr::{as_v4, parse_cidr};
use super::expression::{Names, Resolved};
use super::fault::{Place, Placed, Report};
use super::text::{Document, Node, Object, Value, as_object};

const VNET_TYPE: &str = "Microsoft.Network/virtualNetworks";
const SUBNET_TYPE: &str = "Microsoft.Network/virtualNetworks/subnets";

/// Azure keeps the first four addresses and the last one of each subnet, so three remain here.
const SUBNET_LENGTH_MAX: u8 = 29;
const SUBNET_LENGTH_MIN: u8 = 8;

/// What Azure refuses as part of a VNet, and why.
const FORBIDDEN: [(&str, &str); 5] = [
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    (
        "168.63.129.16/32",
        "Azure's own address for DNS, DHCP and probes",
    ),
];

/// A VNet and where its parts stand.
#[derive(Clone, Debug)]
pub struct Network {
    pub(crate) name: Placed<String>,
    pub(crate) prefixes: Vec<Placed<Ipv4Net>>,
    pub(crate) subnets: Vec<PlacedSubnet>,
    /// aks-engine makes it itself, so nobody could have chosen otherwise.
    pub(crate) generated: bool,
    /// A prefix could not be read, so a subnet may lie in it.
    incomplete: bool,
}

/// A subnet and where its prefix stands.
#[derive(Clone, Debug)]
pub struct PlacedSubnet {
    pub(crate) name: String,
    pub(crate) prefix: Placed<Ipv4Net>,
    pub(crate) route_table_attached: bool,
    /// The name of that route table, where the template tells it.
    pub(crate) route_table: Option<String>,
}

/// The VNets of one template. Never none.
#[derive(Clone, Debug)]
pub struct Vnets {
    networks: Vec<Network>,
}

impl Vnets {
    /// The VNet of that name, or the only one when no name is wanted.
    pub(crate) fn choose(
        self,
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
                    .into_iter()
                    .find(|network| network.name.value.eq_ignore_ascii_case(&wanted.value));
                if found.is_none() {
                    let message = format!(
                        "the template declares no VNet '{}'; it declares {}",
                        wanted.value,
                        names.join(", ")
                    );
                    report.fault(&wanted.place, message);
                }
                found
            }
            None if self.networks.len() == 1 => self.networks.into_iter().next(),
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
    fn texts(&self, object: &Object<'a>, name: &str, report: &mut Report) -> Vec<Placed<String>> {
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
        let prefixes = read.into_iter().flatten().flatten().collect();
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
        let mut prefixes: Vec<_> = texts
            .iter()
            .filter_map(|text| read_prefix(text, report))
            .flatten()
            .collect();
        if let Some(second) = prefixes.get(1) {
            report.fault(
                &second.place,
                "Tapline plans subnets with one IPv4 prefix only",
            );
        }
        let prefix = if prefixes.is_empty() {
            None
        } else {
            Some(prefixes.remove(0))
        };
        Some(PlacedSubnet {
            name: name?.value,
            prefix: prefix?,
            route_table_attached: properties.find("routeTable").is_some(),
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

/// A prefix as Azure reads it. The outer nothing is a fault, the inner one IPv6.
fn read_prefix(text: &Placed<String>, report: &mut Report) -> Option<Option<Placed<Ipv4Net>>> {
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
    Some(as_v4(&net).map(|net| text.with(net)))
}

/// What Azure would refuse about a VNet's layout.
fn judge(network: &Network, report: &mut Report) {
    for (index, prefix) in network.prefixes.iter().enumerate() {
        for (space, why) in FORBIDDEN {
            let space = parse_cidr(space).expect("the table holds prefixes");
            if super::cidr::overlap(&IpNet::V4(prefix.value), &space) {
                let message = format!("{} overlaps {space}, {why}", prefix.value);
                report.fault(&prefix.place, message);
            }
        }
        judge_length(prefix, "VNet", report);
        if let Some(other) = network.prefixes[..index]
            .iter()
            .find(|other| touch(prefix.value, other.value))
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
    let (place, prefix) = (&subnet.prefix.place, subnet.prefix.value);
    judge_length(&subnet.prefix, "subnet", report);
    let inside = network
        .prefixes
        .iter()
        .any(|outer| outer.value.contains(&prefix));
    if !inside && !network.incomplete {
        let prefixes: Vec<String> = network
            .prefixes
            .iter()
            .map(|prefix| prefix.value.to_string())
            .collect();
        let message = format!(
            "subnet '{}' {prefix} is outside VNet '{}' ({})",
            subnet.name,
            network.name.value,
            prefixes.join(", ")
        );
        report.fault(place, message);
    }
    for other in earlier {
        if touch(prefix, other.prefix.value) {
            let message = format!(
                "subnet '{}' {prefix} overlaps subnet '{}' {}",
                subnet.name, other.name, other.prefix.value
            );
            report.fault(place, message);
        }
        if subnet.name.eq_ignore_ascii_case(&other.name) {
            report.fault(
                place,
                format!("there is more than one subnet '{}'", subnet.name),
            );
        }
    }
}

fn judge_length(prefix: &Placed<Ipv4Net>, what: &str, report: &mut Report) {
    let length = prefix.value.prefix_len();
    if length > SUBNET_LENGTH_MAX {
        let message = format!(
            "{what} {} is smaller than /{SUBNET_LENGTH_MAX}, Azure's least",
            prefix.value
        );
        report.fault(&prefix.place, message);
    }
    if length < SUBNET_LENGTH_MIN {
        let message = format!(
            "{what} {} is larger than /{SUBNET_LENGTH_MIN}, Azure's most",
            prefix.value
        );
        report.fault(&prefix.place, message);
    }
}

fn touch(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// The VNet that aks-engine makes for a model without one of its own.
pub(crate) fn generated(
    name: String,
    place: &Place,
    subnets: Vec<PlacedSubnet>,
    report: &mut Report,
) -> Network {
    let prefix = "10.0.0.0/8".parse().expect("a prefix");
    let network = Network {
        name: Placed::new(name, place.clone()),
        prefixes: vec![Placed::new(prefix, place.clone())],
        subnets,
        generated: true,
        incomplete: false,
    };
    judge(&network, report);
    network
}
