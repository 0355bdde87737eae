//! What aks-engine does not check, and finds out in Azure: overlaps, capacities, limits.
//!
//! In: a model, a VNet and who uses which subnet. Out: faults, and warnings about what works
//! otherwise than the operator may think. Never: refuses an overlap that the longest prefix
//! resolves, such as pods within 10.0.0.0/8.

use std::net::Ipv4Addr;

use ipnet::IpNet;

use super::address::{agent_demand, capacity, usable};
use super::network::Assignment;
use super::podcidr::{free_v4, space_v4};
use super::tables::{Scene, clusters_table};
use super::types::Plugin;
use crate::model::{Masters, Model, Network, NetworkMode, Placed, Report, as_v4, overlap};
use crate::routes::RouteTable;

/// The most private addresses that one VNet holds.
const VNET_ADDRESSES_MAX: u64 = 65_536;

/// Destinations that a cluster's own prefixes must not hide from its nodes.
const NEEDED: [(&str, &str); 7] = [
    (
        "168.63.129.16/32",
        "Azure's own address for DNS, DHCP and probes",
    ),
    (
        "169.254.0.0/16",
        "link-local, where the metadata service is",
    ),
    ("127.0.0.0/8", "loopback"),
    ("224.0.0.0/4", "multicast"),
    ("fe80::/10", "link-local, by which neighbours are found"),
    ("::1/128", "loopback"),
    ("ff00::/8", "multicast"),
];

/// Judges every pair of prefixes that must not share an address.
pub(super) fn overlaps(
    model: &Model,
    network: &Network,
    assignment: &Assignment,
    report: &mut Report,
) {
    let mut own: Vec<(&str, &Placed<IpNet>)> = model
        .service_cidrs
        .iter()
        .map(|net| ("the service CIDR", net))
        .collect();
    if model.plugin == Plugin::Kubenet {
        own.extend(
            model
                .cluster_subnets
                .iter()
                .map(|net| ("the cluster subnet", net)),
        );
    }
    let written = model.docker_bridge.as_ref().filter(|bridge| bridge.written);
    own.extend(written.map(|bridge| ("Docker's bridge", &bridge.net)));
    for (what, net) in &own {
        for (needed, why) in NEEDED {
            let needed: IpNet = needed.parse().expect("the table holds prefixes");
            if overlap(&net.value, &needed) {
                report.fault(
                    &net.place,
                    format!("{what} {} hides {needed}, {why}", net.value),
                );
            }
        }
        against_subnets(what, net, network, assignment, report);
    }
    against_docker(model, network, assignment, report);
    if model.plugin == Plugin::Kubenet {
        services_against_pods(model, report);
    }
}

fn against_subnets(
    what: &str,
    net: &Placed<IpNet>,
    network: &Network,
    assignment: &Assignment,
    report: &mut Report,
) {
    let used = assignment.used();
    let mut hit = false;
    for (index, subnet) in network.subnets.iter().enumerate() {
        let mut prefixes = subnet.prefixes().map(|prefix| prefix.value);
        let Some(prefix) = prefixes.find(|prefix| overlap(&net.value, prefix)) else {
            continue;
        };
        hit = true;
        let message = format!(
            "{what} {} overlaps subnet '{}' {prefix}",
            net.value, subnet.name
        );
        if used.contains(&index) {
            report.fault(&net.place, format!("{message}, which the nodes are in"));
        } else {
            report.warn(
                &net.place,
                format!("{message}, which pods then cannot reach"),
            );
        }
    }
    if hit || network.generated || what != "the service CIDR" {
        return;
    }
    let prefixes = network.prefixes.iter().map(|prefix| prefix.value);
    for prefix in prefixes.filter(|prefix| overlap(&net.value, prefix)) {
        let message = format!(
            "{what} {} overlaps the VNet's {prefix}: no subnet yet, but one put there later is \
             out of the pods' reach",
            net.value
        );
        report.warn(&net.place, message);
    }
}

/// Docker's bridge against what else the nodes route. One that nobody asked for is a warning.
fn against_docker(model: &Model, network: &Network, assignment: &Assignment, report: &mut Report) {
    let Some(bridge) = &model.docker_bridge else {
        return;
    };
    let net = &bridge.net;
    let mut others: Vec<(&str, IpNet)> = model
        .service_cidrs
        .iter()
        .map(|other| ("the service CIDR", other.value))
        .collect();
    if model.plugin == Plugin::Kubenet {
        let pods = model.cluster_subnets.iter();
        others.extend(pods.map(|other| ("the cluster subnet", other.value)));
    }
    if !bridge.written {
        let subnets = assignment
            .used()
            .into_iter()
            .map(|index| &network.subnets[index]);
        others.extend(subnets.map(|subnet| ("a subnet in use,", IpNet::V4(subnet.prefix.value))));
    }
    for (what, other) in others
        .into_iter()
        .filter(|(_, other)| overlap(&net.value, other))
    {
        let message = format!("Docker's bridge {} overlaps {what} {other}", net.value);
        if bridge.written {
            report.fault(&net.place, message);
        } else {
            report.warn(
                &net.place,
                format!("{message}; set dockerBridgeSubnet elsewhere"),
            );
        }
    }
}

fn services_against_pods(model: &Model, report: &mut Report) {
    for services in &model.service_cidrs {
        for pods in &model.cluster_subnets {
            if overlap(&services.value, &pods.value) {
                let message = format!(
                    "the service CIDR {} overlaps the cluster subnet {}; pod CIDRs in it are \
                     passed over",
                    services.value, pods.value
                );
                report.warn(&services.place, message);
            }
        }
    }
}

/// Judges whether there is room for every node, and for every route.
pub(super) fn limits(
    model: &Model,
    network: &Network,
    assignment: &Assignment,
    route_limit: usize,
    report: &mut Report,
) {
    let mut total = 0;
    for index in assignment.used() {
        let subnet = &network.subnets[index];
        let (nodes, demand) = demand(model, assignment, index);
        total += demand;
        let room = capacity(subnet.prefix.value);
        if demand > room {
            let message = format!(
                "subnet '{}' {} is too small: {nodes} nodes need {demand} addresses, and it has \
                 {room} beside the five that Azure keeps",
                subnet.name, subnet.prefix.value
            );
            report.fault(&subnet.prefix.place, message);
        }
    }
    if total > VNET_ADDRESSES_MAX {
        let message =
            format!("the cluster needs {total} addresses; a VNet holds {VNET_ADDRESSES_MAX}");
        report.fault(&model.pools_place, message);
    }
    if model.requires_route_table() {
        check_route_limit(model, route_limit, report);
    }
    if model.plugin == Plugin::Kubenet {
        pod_cidr_limits(model, report);
    }
}

/// How many nodes a subnet holds, and how many addresses they take.
fn demand(model: &Model, assignment: &Assignment, subnet: usize) -> (u64, u64) {
    let pools = model
        .pools
        .iter()
        .zip(&assignment.pools)
        .filter(|(_, used)| **used == subnet);
    let mut nodes: u64 = pools.map(|(pool, _)| u64::from(pool.count.value)).sum();
    let mut addresses = agent_demand(model, assignment, subnet);
    if assignment.masters == subnet {
        let masters = u64::from(model.masters.count);
        nodes += masters;
        addresses += masters * u64::from(model.masters.per_node.addresses);
        // The load balancer in front of several masters has one, too.
        addresses += u64::from(masters > 1);
    }
    (nodes, addresses)
}

fn node_count(model: &Model) -> usize {
    let agents: u32 = model.pools.iter().map(|pool| pool.count.value).sum();
    (agents + model.masters.count) as usize
}

/// Each node takes a route for each of its pod CIDRs: under azure that is the IPv6 one alone.
fn check_route_limit(model: &Model, route_limit: usize, report: &mut Report) {
    let nodes = node_count(model);
    let both = model.dual_stack.value && model.plugin == Plugin::Kubenet;
    let routes = if both { nodes * 2 } else { nodes };
    if routes > route_limit {
        let message = format!(
            "{nodes} nodes need {routes} routes; a route table holds {route_limit} (--route-limit)"
        );
        report.fault(&model.pools_place, message);
    }
}

fn pod_cidr_limits(model: &Model, report: &mut Report) {
    let nodes = node_count(model);
    let Some(space) = space_v4(model) else {
        if let Some(first) = model.cluster_subnets.first().filter(|_| !model.ipv6_only) {
            report.fault(
                &first.place,
                "the cluster subnet has no IPv4 prefix for pods",
            );
        }
        return;
    };
    let length = model.node_mask.value;
    if space.value.prefix_len() > length {
        let message = format!(
            "{} is smaller than one node's pod CIDR, a /{length}",
            space.value
        );
        report.fault(&space.place, message);
        return;
    }
    let free = free_v4(model).take(nodes).count();
    if free < nodes {
        let message = format!(
            "{} holds {free} pod CIDRs of /{length}; {nodes} nodes need one each",
            space.value
        );
        report.fault(&space.place, message);
    }
    // The network, its gateway and the broadcast address are nobody's.
    let pods = (1_u64 << (32 - length)) - 3;
    if u64::from(model.max_pods) > pods {
        let message = format!(
            "a /{length} has {pods} addresses for {} pods",
            model.max_pods
        );
        report.warn(&model.node_mask.place, message);
    }
}

/// What the operator should know about a plan that holds.
pub(super) fn warnings(
    model: &Model,
    scene: &Scene<'_>,
    tables: &[RouteTable],
    report: &mut Report,
) {
    let (network, assignment) = (scene.network, scene.assignment);
    mode_warnings(model, report);
    if let Some(policy) = &model.policy {
        let message = format!(
            "networkPolicy '{}' is left to its own agent: Tapline does not enforce policy",
            policy.value
        );
        report.warn(&policy.place, message);
    }
    for pool in model.pools.iter().filter(|pool| pool.windows) {
        let message = format!(
            "pool '{}' runs Windows: its addresses are planned, and Tapline does not switch for it",
            pool.name
        );
        report.warn(&pool.place, message);
    }
    if network.generated
        && let Some(address) = &model.masters.first_static
    {
        report.warn(
            &address.place,
            "ignored: aks-engine sets it itself in a VNet of its making",
        );
    }
    master_warnings(model, network, assignment, report);
    route_table_warnings(model, scene, tables, report);
    if model.ipv6_only {
        report.note(
            "IPv6 alone: pod CIDRs are planned; nodes' IPv6 addresses and routes are not yet",
        );
    }
    if model.dual_stack.value && model.plugin == Plugin::Azure {
        report.note(
            "IPv6 under azure: the node translates what its pods send (ipv6nat); it is planned, \
             and neither switched nor walked by Tapline",
        );
    }
}

fn mode_warnings(model: &Model, report: &mut Report) {
    if model.plugin != Plugin::Azure {
        return;
    }
    match model.mode.value {
        Some(NetworkMode::Bridge) => {}
        Some(NetworkMode::Transparent) => report.warn(
            &model.mode.place,
            "planned for bridge mode: the nodes of a 'transparent' cluster have no azure0 for \
             Tapline to take the place of",
        ),
        None => report.warn(
            &model.mode.place,
            "planned for bridge mode, as aks-engine 0.43.3 means it; since 0.58 a model without \
             networkMode gets 'transparent', whose nodes have no azure0",
        ),
    }
}

fn master_warnings(model: &Model, network: &Network, assignment: &Assignment, report: &mut Report) {
    let masters = &model.masters;
    if network.generated || masters.subnet.is_none() {
        return;
    }
    if masters.scale_set {
        scale_set_warning(masters, network, assignment, report);
    }
    match &masters.vnet_cidr {
        None if model.plugin == Plugin::Azure => report.warn(
            &masters.place.child("vnetCidr"),
            "not given: aks-engine then masquerades pods' traffic within the VNet",
        ),
        Some(cidr) => {
            let inside = |prefix: &Placed<IpNet>| {
                prefix.value.addr().is_ipv6() || cidr.value.contains(&prefix.value)
            };
            if !network.prefixes.iter().all(inside) {
                let message = format!(
                    "{} does not cover VNet '{}'; pods' traffic to the rest is masqueraded",
                    cidr.value, network.name.value
                );
                report.warn(&cidr.place, message);
            }
        }
        None => {}
    }
}

/// aks-engine derives the masters' addresses in certificates from `vnetCidr`, and Azure gives
/// them out from their subnet.
fn scale_set_warning(
    masters: &Masters,
    network: &Network,
    assignment: &Assignment,
    report: &mut Report,
) {
    let Some(cidr) = &masters.vnet_cidr else {
        return;
    };
    let Some(space) = as_v4(&cidr.value) else {
        return;
    };
    let expected = (space.network().to_bits() & !0xff) | 4;
    let (given, _) = usable(network.subnets[assignment.masters].prefix.value);
    if expected != given {
        let message = format!(
            "aks-engine expects the first master at {}, from vnetCidr; its subnet gives {}",
            Ipv4Addr::from_bits(expected),
            Ipv4Addr::from_bits(given)
        );
        report.warn(&cidr.place, message);
    }
}

/// In a VNet that aks-engine did not make, nobody attaches the route table.
fn route_table_warnings(
    model: &Model,
    scene: &Scene<'_>,
    tables: &[RouteTable],
    report: &mut Report,
) {
    let (network, assignment) = (scene.network, scene.assignment);
    if !model.requires_route_table() {
        return;
    }
    let group = model
        .masters
        .subnet
        .as_ref()
        .map(|id| id.value.resource_group.as_str());
    let agents = assignment.used_by_agents();
    let frames = match model.plugin {
        Plugin::Kubenet => "frames",
        Plugin::Azure => "IPv6 frames",
    };
    for index in assignment.used() {
        let subnet = &network.subnets[index];
        if subnet.route_table_attached || tables.iter().any(|t| t.subnets.contains(&subnet.name)) {
            continue;
        }
        let who = if agents.contains(&index) {
            "agents"
        } else {
            "masters"
        };
        let message = format!(
            "the {who}' subnet '{name}' has no routeTable, so pods' {frames} die on their way; once \
             the cluster is deployed: az network vnet subnet update --resource-group {group} \
             --vnet-name {vnet} --name {name} --route-table {table}",
            name = subnet.name,
            group = group.unwrap_or("RESOURCE_GROUP"),
            vnet = network.name.value,
            table = clusters_table(scene.cluster_id),
        );
        report.warn(&subnet.prefix.place, message);
    }
}
