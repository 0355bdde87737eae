//! The VNet, and which of its subnets serves whom.
//!
//! In: a model, a template's VNet or none, and `--subnet`. Out: a subnet for the masters and
//! for each pool. Never: picks between two subnets that fit equally; it asks.

use std::collections::BTreeSet;

use ipnet::{Ipv4Net, Ipv6Net};

use super::podcidr::space_v4;
use super::types::{Plugin, Role};
use crate::model::{Model, Network, Place, Placed, PlacedSubnet, Report, SubnetId, generated};

/// Subnets that Azure keeps for its own machines.
const AZURE_SUBNETS: [&str; 4] = [
    "GatewaySubnet",
    "AzureBastionSubnet",
    "AzureFirewallSubnet",
    "RouteServerSubnet",
];

/// The IPv6 prefix of the subnet that aks-engine makes in dual stack.
const GENERATED_V6: &str = "2001:1234:5678:9abc::/64";

/// Indices into the VNet's subnets.
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    pub(super) masters: usize,
    pub(super) pools: Vec<usize>,
}

impl Assignment {
    /// Every subnet in use, once.
    pub(super) fn used(&self) -> BTreeSet<usize> {
        self.pools.iter().copied().chain([self.masters]).collect()
    }

    /// The subnets in use by agents.
    pub(super) fn used_by_agents(&self) -> BTreeSet<usize> {
        self.pools.iter().copied().collect()
    }
}

/// The VNet that aks-engine would make, unless the model names one of its own.
pub(super) fn generate(
    model: &Model,
    cluster_id: Option<&str>,
    report: &mut Report,
) -> Option<Network> {
    if let Some(id) = &model.masters.subnet {
        let message = format!(
            "the model puts the cluster into VNet '{}': give its template with --vnet FILE",
            id.value.vnet
        );
        report.fault(&id.place, message);
        return None;
    }
    let route_table_attached = model.requires_route_table();
    let subnet = |name: &str, prefix: Placed<Ipv4Net>| PlacedSubnet {
        name: name.to_owned(),
        prefix,
        prefix_v6: None,
        route_table_attached,
        service_endpoints: false,
        route_table: None,
    };
    let fixed = |text: &str| -> Placed<Ipv4Net> {
        let prefix = text.parse().expect("a prefix");
        Placed {
            value: prefix,
            place: model.masters.place.clone(),
        }
    };
    let subnets = if model.masters.scale_set {
        vec![
            subnet("subnetmaster", fixed("10.240.0.0/16")),
            subnet("subnetagent", fixed("10.248.0.0/13")),
        ]
    } else {
        let prefix = match model.plugin {
            Plugin::Kubenet => fixed("10.240.0.0/16"),
            Plugin::Azure => match space_v4(model) {
                Some(space) => space,
                None => {
                    let place = &model.cluster_subnets.first()?.place;
                    report.fault(place, "the nodes' subnet has no IPv4 prefix");
                    return None;
                }
            },
        };
        // The two subnets of scale-set masters get none: `assign` says so.
        let prefix_v6 = model.dual_stack.value.then(|| {
            let net: Ipv6Net = GENERATED_V6.parse().expect("a prefix");
            prefix.with(net)
        });
        vec![PlacedSubnet {
            prefix_v6,
            ..subnet("k8s-subnet", prefix)
        }]
    };
    let name = format!("k8s-vnet-{}", cluster_id.unwrap_or("CLUSTER"));
    Some(generated(name, &model.masters.place, subnets, report))
}

/// Gives each role its subnet.
pub(super) fn assign(
    model: &Model,
    network: &Network,
    options: &[(String, String)],
    report: &mut Report,
) -> Option<Assignment> {
    let chooser = Chooser {
        model,
        network,
        options,
    };
    chooser.check_options(report);
    let masters = chooser.subnet(
        "master",
        Role::Master,
        model.masters.subnet.as_ref(),
        &model.masters.place,
        report,
    );
    let pools: Vec<Option<usize>> = model
        .pools
        .iter()
        .map(|pool| {
            chooser.subnet(
                &pool.name,
                Role::Agent,
                pool.subnet.as_ref(),
                &pool.place,
                report,
            )
        })
        .collect();
    let assignment = Assignment {
        masters: masters?,
        pools: pools.into_iter().collect::<Option<_>>()?,
    };
    check_families(model, network, &assignment, report);
    Some(assignment)
}

/// In dual stack every NIC has an IPv6 address of its subnet, so every subnet in use needs a /64.
fn check_families(model: &Model, network: &Network, assignment: &Assignment, report: &mut Report) {
    if !model.dual_stack.value {
        return;
    }
    for index in assignment.used() {
        let subnet = &network.subnets[index];
        if subnet.prefix_v6.is_some() {
            continue;
        }
        let message = if network.generated {
            format!(
                "aks-engine gives subnet '{}' of scale-set masters no IPv6 prefix, which dual \
                 stack needs: use a VNet of your own (--vnet)",
                subnet.name
            )
        } else {
            format!(
                "subnet '{}' has no IPv6 prefix, which dual stack needs: add a /64 to its \
                 addressPrefixes",
                subnet.name
            )
        };
        report.fault(&subnet.prefix.place, message);
    }
}

struct Chooser<'a> {
    model: &'a Model,
    network: &'a Network,
    options: &'a [(String, String)],
}

impl Chooser<'_> {
    fn check_options(&self, report: &mut Report) {
        for (index, (role, _)) in self.options.iter().enumerate() {
            let place = Place::option("--subnet", role);
            let known = ["master", "agent"].contains(&role.as_str())
                || self.model.pools.iter().any(|pool| pool.name == *role);
            if !known {
                report.fault(&place, "no such role: master, agent, or the name of a pool");
            }
            if self.options[..index]
                .iter()
                .any(|(earlier, _)| earlier == role)
            {
                report.fault(&place, "given more than once");
            }
        }
    }

    fn option(&self, role: &str) -> Option<&(String, String)> {
        self.options.iter().find(|(name, _)| name == role)
    }

    /// The subnet of masters or of one pool: by the command line, else by the model's id, else
    /// by its name in the template.
    fn subnet(
        &self,
        who: &str,
        role: Role,
        id: Option<&Placed<SubnetId>>,
        place: &Place,
        report: &mut Report,
    ) -> Option<usize> {
        let general = match role {
            Role::Master => None,
            Role::Agent => self.option("agent"),
        };
        if let Some((role, name)) = self.option(who).or(general) {
            return self.named(name, &Place::option("--subnet", role), report);
        }
        if let Some(id) = id {
            return self.named(&id.value.subnet, &id.place, report);
        }
        if self.network.generated {
            let agents = self.network.subnets.len() - 1;
            return Some(if role == Role::Master { 0 } else { agents });
        }
        let found = self.by_role(role);
        if found.is_none() {
            let message = format!(
                "which subnet of VNet '{}' is for {who}? Say --subnet {who}=NAME, where NAME is \
                 one of {}",
                self.network.name.value,
                self.names()
            );
            report.fault(&place.child("vnetSubnetID"), message);
        }
        found
    }

    fn named(&self, name: &str, place: &Place, report: &mut Report) -> Option<usize> {
        let mut subnets = self.network.subnets.iter();
        let found = subnets.position(|subnet| subnet.name.eq_ignore_ascii_case(name));
        if found.is_none() {
            let message = format!(
                "VNet '{}' has no subnet '{name}'; it has {}",
                self.network.name.value,
                self.names()
            );
            report.fault(place, message);
        }
        found
    }

    /// The one subnet there is, or the one named for the role.
    fn by_role(&self, role: Role) -> Option<usize> {
        let usable: Vec<usize> = (0..self.network.subnets.len())
            .filter(|index| !AZURE_SUBNETS.contains(&self.network.subnets[*index].name.as_str()))
            .collect();
        if let [only] = usable[..] {
            return Some(only);
        }
        let word = role.to_string();
        let named: Vec<usize> = usable
            .into_iter()
            .filter(|index| {
                self.network.subnets[*index]
                    .name
                    .to_ascii_lowercase()
                    .contains(&word)
            })
            .collect();
        if let [one] = named[..] {
            Some(one)
        } else {
            None
        }
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self
            .network
            .subnets
            .iter()
            .map(|subnet| subnet.name.as_str())
            .collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    }
}
