//! The plan: which node gets which addresses, pods and routes.
//!
//! In: a model, a VNet and route tables, by [`load`] from files or built in. Out: a [`Plan`], or every fault.
//! Never: touches a device; reads anything but the documents it is given; asks Azure.
//!
//! | file | room |
//! |---|---|
//! | `network` | the VNet, and which of its subnets serves whom |
//! | `address` | addresses of nodes and, under azure, of pods |
//! | `podcidr` | pod CIDRs and routes under kubenet |
//! | `tables` | route tables, and the effective routes of a node |
//! | `checks` | what aks-engine does not check: overlaps, capacities, limits |

mod address;
mod checks;
mod network;
mod podcidr;
mod tables;
mod types;

pub use types::{NextHopType, Node, Plan, Plugin, PodIps, Role, Route, Subnet, Vnet};

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

pub use crate::model::NetworkMode;
use crate::model::{
    Document, Faults, Masters, Model, Network, Place, Report, Source, Vnets, check_model,
    check_template, examples,
};
use crate::routes::{
    Observed, PlacedTable, RouteTable, read_observed, read_tables, read_tables_beside,
};

/// The routes that a route table held when aks-engine was current.
pub const ROUTE_LIMIT: usize = 400;

/// Where node-local DNS listens; the azure plugin sends it to the host.
const NODE_LOCAL_DNS: Ipv4Addr = Ipv4Addr::new(169, 254, 20, 10);
/// Azure's own address for DNS, DHCP and probes.
const WIRE_SERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// What to plan for.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The API model.
    pub model: Source,
    /// The VNet's template. Without it the VNet is the one that aks-engine would make.
    pub vnet: Option<Source>,
    /// The plugin to plan for in place of the model's.
    pub plugin: Option<Plugin>,
    /// Nodes in the order in which they register. Those not named follow in the usual order.
    pub register: Vec<String>,
    /// Subnets by role: `master`, `agent`, or a pool's name.
    pub subnets: Vec<(String, String)>,
    /// Documents of route tables.
    pub route_tables: Vec<Source>,
    /// What `az network nic show-effective-route-table` printed of a NIC in the VNet.
    pub azure_routes: Option<Source>,
    /// How many routes a route table holds.
    pub route_limit: usize,
    /// The eight digits in the names of the cluster's nodes, where known.
    pub cluster_id: Option<String>,
    /// Refuse a model that does not give pods both families.
    pub dual_stack: bool,
}

impl LoadOptions {
    /// A model from a source, and everything else as usual.
    #[must_use]
    pub fn new(model: Source) -> LoadOptions {
        LoadOptions {
            model,
            vnet: None,
            plugin: None,
            register: Vec::new(),
            subnets: Vec::new(),
            route_tables: Vec::new(),
            azure_routes: None,
            route_limit: ROUTE_LIMIT,
            cluster_id: None,
            dual_stack: false,
        }
    }

    /// The two documents built into the program, whose cluster's names are known.
    #[must_use]
    pub fn built_in() -> LoadOptions {
        LoadOptions {
            vnet: Some(Source::BuiltIn {
                name: "aks-vnet.json",
                text: examples::AKS_VNET,
            }),
            cluster_id: Some(examples::CLUSTER_ID.to_owned()),
            ..LoadOptions::new(Source::BuiltIn {
                name: "aks.json",
                text: examples::AKS,
            })
        }
    }

    /// The two built-in documents of a dual-stack cluster, which is of the same names.
    #[must_use]
    pub fn built_in_dual_stack() -> LoadOptions {
        LoadOptions {
            vnet: Some(Source::BuiltIn {
                name: "aks-dual-stack-vnet.json",
                text: examples::AKS_DUAL_STACK_VNET,
            }),
            cluster_id: Some(examples::CLUSTER_ID.to_owned()),
            dual_stack: true,
            ..LoadOptions::new(Source::BuiltIn {
                name: "aks-dual-stack.json",
                text: examples::AKS_DUAL_STACK,
            })
        }
    }
}

/// Reads, checks and plans. Faults of both documents come together; what the plan itself finds
/// comes once both hold.
pub fn load(options: &LoadOptions) -> Result<Plan, Faults> {
    Cluster::read(options).plan(&options.route_tables, options.azure_routes.as_ref())
}

/// A model and a VNet, read and checked: what plans share that differ in their routes alone.
#[derive(Debug)]
pub struct Cluster {
    /// All but the documents of routes.
    options: LoadOptions,
    model: Option<Model>,
    vnet: Option<Document>,
    /// Those of the VNet's template; without a template aks-engine would make one.
    vnets: Option<Option<Vnets>>,
    /// What was found so far.
    report: Report,
}

impl Cluster {
    /// Reads the model and the VNet. Their faults come with the plan.
    #[must_use]
    pub fn read(options: &LoadOptions) -> Cluster {
        let mut report = Report::default();
        let model = Document::read(&options.model, &mut report)
            .and_then(|document| check_model(&document, options.plugin, &mut report));
        if let Some(model) = &model {
            check_dual_stack(model, options, &mut report);
        }
        let vnet = options.vnet.as_ref();
        let vnet = vnet.map(|source| Document::read(source, &mut report));
        let vnets = vnet.as_ref().map(|document| {
            let document = document.as_ref()?;
            check_template(document, &mut report)
        });
        let options = LoadOptions {
            route_tables: Vec::new(),
            azure_routes: None,
            ..options.clone()
        };
        Cluster {
            options,
            model,
            vnet: vnet.flatten(),
            vnets,
            report,
        }
    }

    /// Reads documents of routes beside it, and plans.
    ///
    /// # Errors
    /// Every fault of all documents, or those of the plan where they have none.
    pub fn plan(&self, tables: &[Source], azure: Option<&Source>) -> Result<Plan, Faults> {
        let mut report = self.report.clone();
        let plan = self.plan_into(tables, azure, &mut report);
        let model_name = self.options.model.name();
        if plan.is_none() && report.fault_count() == 0 {
            report.fault(&Place::option(&model_name, ""), "cannot be planned");
        }
        let vnet = self.options.vnet.as_ref();
        let vnet_name = vnet.map(Source::name).unwrap_or_default();
        let table_names: Vec<String> = tables.iter().chain(azure).map(Source::name).collect();
        let mut names: Vec<&str> = vec![&model_name, &vnet_name];
        names.extend(table_names.iter().map(String::as_str));
        let warnings = report.finish(&names)?;
        let plan = plan.expect("a plan that is not there is a fault");
        Ok(Plan { warnings, ..plan })
    }

    fn plan_into(
        &self,
        tables: &[Source],
        azure: Option<&Source>,
        report: &mut Report,
    ) -> Option<Plan> {
        let limit = self.options.route_limit;
        let documents = RouteDocuments::read(tables, azure, self.vnet.as_ref(), limit, report);
        let model = self.model.as_ref();
        if report.fault_count() > 0 {
            self.find_more(model?, report);
            return None;
        }
        let model = model?;
        let network = self.network(model, report)?;
        if report.fault_count() > 0 {
            return None;
        }
        plan(model, &network, &documents, &self.options, report)
    }

    fn network(&self, model: &Model, report: &mut Report) -> Option<Network> {
        let Some(vnets) = &self.vnets else {
            return network::generate(model, self.options.cluster_id.as_deref(), report);
        };
        let wanted = model.masters.subnet.as_ref();
        let wanted = wanted.map(|id| id.with(id.value.vnet.clone()));
        vnets.as_ref()?.choose(wanted.as_ref(), report)
    }

    /// Looks for overlaps in a model that is at fault already, so that they need no second run.
    /// What rests on the fault itself, such as the capacity for a count out of range, can wait.
    fn find_more(&self, model: &Model, report: &mut Report) {
        let unheard = &mut Report::default();
        let Some(network) = self.network(model, unheard) else {
            return;
        };
        if let Some(assignment) = network::assign(model, &network, &self.options.subnets, unheard) {
            checks::overlaps(model, &network, &assignment, report);
        }
    }
}

/// What documents say of routes.
struct RouteDocuments {
    tables: Vec<PlacedTable>,
    observed: Observed,
}

impl RouteDocuments {
    /// Reads the documents that were given for their routes. A table beside the VNet counts as
    /// well, unless a document of the same table was given.
    fn read(
        given: &[Source],
        azure: Option<&Source>,
        vnet: Option<&Document>,
        limit: usize,
        report: &mut Report,
    ) -> RouteDocuments {
        let mut tables: Vec<PlacedTable> = Vec::new();
        for source in given {
            if let Some(document) = Document::read(source, report) {
                let read = read_tables(&document, limit, report);
                tables.extend(read.into_iter().flatten());
            }
        }
        if let Some(document) = vnet {
            let mut beside = read_tables_beside(document, limit, report);
            beside.retain(|table| !tables.iter().any(|given| given.is_named(&table.name.value)));
            tables.extend(beside);
        }
        let observed = azure
            .and_then(|source| Document::read(source, report))
            .and_then(|document| read_observed(&document, report));
        RouteDocuments {
            tables,
            observed: observed.unwrap_or_default(),
        }
    }
}

/// What `--dual-stack` asks of a model, and what to change where the model does not have it.
fn check_dual_stack(model: &Model, options: &LoadOptions, report: &mut Report) {
    if options.dual_stack && !model.dual_stack.value {
        report.fault(
            &model.dual_stack.place,
            "--dual-stack needs a model that enables it: set featureFlags.enableIPv6DualStack to \
             true, with orchestratorRelease 1.18 or newer and networkPlugin kubenet, and give the \
             nodes' subnets an IPv6 /64",
        );
    }
}

/// Plans for a model and a VNet that hold each by itself. Pure: no file, no clock, no socket.
fn plan(
    model: &Model,
    network: &Network,
    documents: &RouteDocuments,
    options: &LoadOptions,
    report: &mut Report,
) -> Option<Plan> {
    let faults_before = report.fault_count();
    let assignment = network::assign(model, network, &options.subnets, report);
    podcidr::check_register(model, &options.register, report);
    let assignment = assignment?;
    checks::overlaps(model, network, &assignment, report);
    checks::limits(model, network, &assignment, options.route_limit, report);
    let statics = address::masters(model, network, &assignment, report);
    if report.fault_count() > faults_before {
        return None;
    }
    let mut nodes = address::allocate(
        model,
        network,
        &assignment,
        &statics?,
        options.cluster_id.as_deref(),
        report,
    )?;
    podcidr::allot(model, &mut nodes, options, report)?;
    let routes = podcidr::routes(model, &nodes);
    let scene = tables::Scene {
        network,
        assignment: &assignment,
        pods: routes.iter().map(Into::into).collect(),
        observed: &documents.observed,
        cluster_id: options.cluster_id.as_deref(),
        limit: options.route_limit,
    };
    scene.check_observed(report);
    let tables = scene.attach(&documents.tables, report);
    if report.fault_count() > faults_before {
        return None;
    }
    checks::warnings(model, &scene, &tables.tables, report);
    let plan = Plan {
        plugin: model.plugin,
        network_mode: (model.plugin == Plugin::Azure).then_some(NetworkMode::Bridge),
        nodes,
        routes,
        route_tables: tables.tables.clone(),
        service_cidrs: model.service_cidrs.iter().map(|net| net.value).collect(),
        cluster_subnets: model.cluster_subnets.iter().map(|net| net.value).collect(),
        vnet: vnet_of(&scene, &tables.tables),
        non_masquerade: non_masquerade(model, network),
        via_host: via_host(model),
        max_pods: model.max_pods,
        dual_stack: model.dual_stack.value,
        ip_forwarding: forwards(model),
        policy: model.policy.as_ref().map(|policy| policy.value),
        api_server: address::api_server(model, network, &assignment),
        warnings: Vec::new(),
    };
    tables::judge(&plan, &tables, report);
    (report.fault_count() == faults_before).then_some(plan)
}

fn vnet_of(scene: &tables::Scene<'_>, tables: &[RouteTable]) -> Vnet {
    let (network, space) = (scene.network, scene.space());
    let given = |subnet: &str| {
        tables
            .iter()
            .any(|table| table.subnets.iter().any(|s| s == subnet))
    };
    Vnet {
        name: network.name.value.clone(),
        prefixes: network.prefixes.iter().map(|prefix| prefix.value).collect(),
        subnets: network
            .subnets
            .iter()
            .map(|subnet| Subnet {
                name: subnet.name.clone(),
                prefix: subnet.prefix.value,
                prefix_v6: subnet.prefix_v6.as_ref().map(|prefix| prefix.value),
                service_endpoints: subnet.service_endpoints,
                route_table_attached: subnet.route_table_attached || given(&subnet.name),
            })
            .collect(),
        peers: space.peers,
        learned: scene.observed.learned.clone(),
        endpoints: space.endpoints,
    }
}

/// Whether the NICs may send and receive for addresses that are not theirs.
fn forwards(model: &Model) -> bool {
    match model.plugin {
        Plugin::Kubenet => !model.azure_stack,
        Plugin::Azure => model.dual_stack.value,
    }
}

/// Where pods keep their own source address: the list of the ip-masq-agent.
fn non_masquerade(model: &Model, network: &Network) -> Vec<IpNet> {
    let wire_server = IpNet::V4(Ipv4Net::from(WIRE_SERVER));
    let second = model.cluster_subnets.get(1).map(|net| net.value);
    let mut list: Vec<IpNet> = match model.plugin {
        Plugin::Kubenet => model
            .cluster_subnets
            .first()
            .map(|net| net.value)
            .into_iter()
            .collect(),
        Plugin::Azure => azure_space(&model.masters, network),
    };
    list.extend(second);
    if model.plugin == Plugin::Azure {
        list.push(wire_server);
    }
    list
}

/// The VNet as aks-engine tells it to the azure plugin. A custom VNet without `vnetCidr` leaves
/// an empty entry there; the VNet's own prefixes are what is meant.
fn azure_space(masters: &Masters, network: &Network) -> Vec<IpNet> {
    match &masters.vnet_cidr {
        Some(cidr) if !network.generated => vec![cidr.value],
        // The pods' IPv6 prefix is listed by itself.
        _ => network
            .prefixes
            .iter()
            .map(|prefix| prefix.value)
            .filter(|prefix| prefix.addr().is_ipv4())
            .collect(),
    }
}

/// What the pods' own switch hands to the host, whatever else it knows.
fn via_host(model: &Model) -> Vec<IpNet> {
    match model.plugin {
        Plugin::Azure => vec![IpNet::V4(Ipv4Net::from(NODE_LOCAL_DNS))],
        Plugin::Kubenet => Vec::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
