//! Addresses of nodes and, under azure, of their pods.
//!
//! In: a model, a VNet and who uses which subnet. Out: nodes with addresses.
//! Never: gives one address twice, or one that Azure keeps.
//!
//! Azure gives dynamic addresses out from the fourth upward, the lowest free one first; that is
//! what it was seen to do, not what it promises. Masters have static addresses, and the plan
//! keeps the pods of a master in one run above it where there is room.

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::network::Assignment;
use super::types::{Node, Plugin, PodIps, Role};
use crate::model::{Masters, Model, Network, PerNode, Place, Pool, Report};

/// The addresses at the start of a subnet that Azure keeps: network, gateway, twice DNS.
const RESERVED_FIRST: u32 = 4;
/// Where aks-engine puts the first master within the last /24 of its subnet.
const MASTER_OFFSET: u32 = 5;
/// How far above the first master the load balancer of the API server stands.
const BALANCER_OFFSET: u32 = 10;

/// The addresses of a subnet that a NIC may have, first and last.
pub(super) fn usable(prefix: Ipv4Net) -> (u32, u32) {
    (
        prefix.network().to_bits().saturating_add(RESERVED_FIRST),
        prefix.broadcast().to_bits().saturating_sub(1),
    )
}

/// How many those are.
pub(super) fn capacity(prefix: Ipv4Net) -> u64 {
    let (first, last) = usable(prefix);
    (u64::from(last) + 1).saturating_sub(u64::from(first))
}

/// The addresses that are fixed before Azure gives any out.
#[derive(Clone, Debug)]
pub(super) struct Statics {
    masters: Vec<Ipv4Addr>,
    balancer: Option<Ipv4Addr>,
}

/// Where the first master stands when nothing says so.
fn default_first(prefix: Ipv4Net) -> Ipv4Addr {
    if prefix.prefix_len() > 24 {
        return Ipv4Addr::from_bits(prefix.network().to_bits() + MASTER_OFFSET);
    }
    Ipv4Addr::from_bits((prefix.broadcast().to_bits() & !0xff) | MASTER_OFFSET)
}

fn first_master(masters: &Masters, network: &Network, prefix: Ipv4Net) -> Ipv4Addr {
    match &masters.first_static {
        // In a VNet of its own making aks-engine overwrites the address.
        Some(address) if !network.generated => address.value,
        _ => default_first(prefix),
    }
}

/// The address at which the API server answers: the only master, or the load balancer.
pub(super) fn api_server(
    model: &Model,
    network: &Network,
    assignment: &Assignment,
) -> Option<Ipv4Addr> {
    let prefix = network.subnets[assignment.masters].prefix.value;
    let masters = &model.masters;
    if masters.scale_set {
        let last_block = prefix.broadcast().to_bits() & !0xff;
        let balancer = Ipv4Addr::from_bits(last_block | BALANCER_OFFSET);
        return Some(balancer).filter(|balancer| prefix.contains(balancer));
    }
    let first = first_master(masters, network, prefix);
    match masters.count {
        1 => Some(first),
        _ => first
            .to_bits()
            .checked_add(BALANCER_OFFSET)
            .map(Ipv4Addr::from_bits),
    }
}

/// The static addresses of masters, and every reason why they cannot be.
pub(super) fn masters(
    model: &Model,
    network: &Network,
    assignment: &Assignment,
    report: &mut Report,
) -> Option<Statics> {
    let masters = &model.masters;
    let balancer = (masters.count > 1)
        .then(|| api_server(model, network, assignment))
        .flatten();
    if masters.scale_set {
        return Some(Statics {
            masters: Vec::new(),
            balancer,
        });
    }
    let prefix = network.subnets[assignment.masters].prefix.value;
    let written = masters.first_static.as_ref().filter(|_| !network.generated);
    let missing = masters.place.child("firstConsecutiveStaticIP");
    let place = written.map_or(&missing, |address| &address.place);
    let first = first_master(masters, network, prefix);
    let faults_before = report.fault_count();
    let addresses: Vec<Ipv4Addr> = (0..masters.count)
        .filter_map(|index| offset_within_octet(first, index))
        .collect();
    if addresses.len() < masters.count as usize {
        let message = format!(
            "{} masters from {first} run past the last octet",
            masters.count
        );
        report.fault(place, message);
    }
    for (index, address) in addresses.iter().enumerate() {
        let who = format!("the address of master-{index}, {address},");
        check_place(&who, *address, prefix, place, report);
    }
    if masters.count > 1 {
        match offset_within_octet(first, BALANCER_OFFSET) {
            Some(balancer) => {
                let who = format!("the load balancer of the API server, {balancer},");
                check_place(&who, balancer, prefix, place, report);
            }
            None => report.fault(
                place,
                format!(
                    "the load balancer of the API server stands {BALANCER_OFFSET} above {first}, \
                     past the last octet"
                ),
            ),
        }
    }
    if report.fault_count() > faults_before {
        return None;
    }
    let statics = Statics {
        masters: addresses,
        balancer,
    };
    check_dynamic(
        model,
        network,
        assignment,
        &statics,
        place,
        written.is_some(),
        report,
    );
    Some(statics)
}

/// aks-engine counts in the last octet only.
fn offset_within_octet(first: Ipv4Addr, offset: u32) -> Option<Ipv4Addr> {
    let [a, b, c, d] = first.octets();
    let last = u32::from(d) + offset;
    Some(Ipv4Addr::new(a, b, c, u8::try_from(last).ok()?))
}

fn check_place(who: &str, address: Ipv4Addr, prefix: Ipv4Net, place: &Place, report: &mut Report) {
    if !prefix.contains(&address) {
        report.fault(
            place,
            format!("{who} is outside the masters' subnet {prefix}"),
        );
        return;
    }
    let (first, last) = usable(prefix);
    if !(first..=last).contains(&address.to_bits()) {
        report.fault(place, format!("{who} is reserved by Azure in {prefix}"));
    }
}

/// How many addresses agents take from a subnet.
pub(super) fn agent_demand(model: &Model, assignment: &Assignment, subnet: usize) -> u64 {
    model
        .pools
        .iter()
        .zip(&assignment.pools)
        .filter(|(_, used)| **used == subnet)
        .map(|(pool, _)| u64::from(pool.count.value) * u64::from(pool.per_node.addresses))
        .sum()
}

/// A static address among those that Azure gives out first may be gone before its master asks.
fn check_dynamic(
    model: &Model,
    network: &Network,
    assignment: &Assignment,
    statics: &Statics,
    place: &Place,
    written: bool,
    report: &mut Report,
) {
    let demand = agent_demand(model, assignment, assignment.masters);
    let prefix = network.subnets[assignment.masters].prefix.value;
    let first = u64::from(usable(prefix).0);
    let dynamic = first..first + demand;
    let all = statics.masters.iter().chain(&statics.balancer);
    let Some(taken) = all
        .copied()
        .find(|address| dynamic.contains(&u64::from(address.to_bits())))
    else {
        return;
    };
    let message = format!(
        "{taken} is static, and among the first {demand} addresses of {prefix}, which Azure gives \
         to agents; aks-engine advises one near the end of the subnet"
    );
    if written {
        report.fault(place, message);
    } else {
        report.warn(place, message);
    }
}

/// What is still free in one subnet.
struct Addresses {
    last: u32,
    taken: BTreeSet<u32>,
    /// Nothing below is free.
    next: u32,
}

impl Addresses {
    fn new(prefix: Ipv4Net) -> Addresses {
        let (first, last) = usable(prefix);
        Addresses {
            last,
            taken: BTreeSet::new(),
            next: first,
        }
    }

    fn take(&mut self, address: Ipv4Addr) {
        self.taken.insert(address.to_bits());
    }

    /// The lowest free address.
    fn lowest(&mut self) -> Option<u32> {
        while self.taken.contains(&self.next) {
            self.next += 1;
        }
        if self.next > self.last {
            return None;
        }
        self.taken.insert(self.next);
        Some(self.next)
    }

    /// A run of free addresses above one, or else the lowest free ones.
    fn run_above(&mut self, address: u32, count: u32) -> Option<Vec<u32>> {
        let mut run = 0;
        for candidate in address.saturating_add(1)..=self.last {
            run = if self.taken.contains(&candidate) {
                0
            } else {
                run + 1
            };
            if run == count {
                let found = candidate + 1 - count..=candidate;
                self.taken.extend(found.clone());
                return Some(found.collect());
            }
        }
        (0..count).map(|_| self.lowest()).collect()
    }
}

/// The pods' addresses as first, last, and what lies between and is not theirs.
fn pod_ips(addresses: &[u32]) -> Option<PodIps> {
    let (first, last) = (*addresses.first()?, *addresses.last()?);
    let own: BTreeSet<u32> = addresses.iter().copied().collect();
    Some(PodIps {
        first: first.into(),
        last: last.into(),
        count: u32::try_from(addresses.len()).ok()?,
        skipped: (first..=last)
            .filter(|address| !own.contains(address))
            .map(Ipv4Addr::from_bits)
            .collect(),
    })
}

/// Gives every node its addresses: masters' own, then agents', then those of masters' pods.
pub(super) fn allocate(
    model: &Model,
    network: &Network,
    assignment: &Assignment,
    statics: &Statics,
    cluster_id: Option<&str>,
    report: &mut Report,
) -> Option<Vec<Node>> {
    let mut allocator = Allocator {
        model,
        network,
        subnets: HashMap::new(),
    };
    let masters_subnet = allocator.subnet(assignment.masters);
    for address in statics.masters.iter().chain(&statics.balancer) {
        masters_subnet.take(*address);
    }
    let masters = &model.masters;
    let mut master_nodes = Vec::new();
    if masters.scale_set {
        for index in 0..masters.count {
            master_nodes.push(allocator.dynamic(assignment.masters, &masters.per_node, index));
        }
    }
    let mut nodes = Vec::new();
    let mut number = 0;
    for (pool, subnet) in model.pools.iter().zip(&assignment.pools) {
        for index in 0..pool.count.value {
            let node = allocator
                .dynamic(*subnet, &pool.per_node, number)
                .map(|node| Node {
                    hostname: agent_hostname(pool, cluster_id, index),
                    pool: pool.name.clone(),
                    windows: pool.windows,
                    ..node
                });
            nodes.push(node);
            number += 1;
        }
    }
    for (index, address) in (0..).zip(&statics.masters) {
        master_nodes.push(allocator.fixed(assignment.masters, &masters.per_node, index, *address));
    }
    nodes.extend((0..).zip(master_nodes).map(|(index, node)| {
        node.map(|node| Node {
            name: format!("master-{index}"),
            hostname: master_hostname(masters, cluster_id, index),
            role: Role::Master,
            pool: "master".to_owned(),
            ..node
        })
    }));
    let mut nodes: Option<Vec<Node>> = nodes.into_iter().collect();
    if let Some(nodes) = nodes.as_mut().filter(|_| model.dual_stack.value) {
        allocate_v6(model, assignment, network, nodes);
    }
    if nodes.is_none() {
        let place = &network.subnets[assignment.masters].prefix.place;
        report.fault(place, "the subnet has no address left");
    }
    nodes
}

/// Gives every NIC its one IPv6 address. aks-engine asks for them dynamically, those of masters
/// too, so they count from the fourth upward in each subnet. Scale-set masters come first, as they
/// do for IPv4; masters of an availability set come after the agents, which take the lowest there.
/// A subnet of 64 bits has room for every node that a model can name.
fn allocate_v6(model: &Model, assignment: &Assignment, network: &Network, nodes: &mut [Node]) {
    let subnets_of_agents = model
        .pools
        .iter()
        .zip(&assignment.pools)
        .flat_map(|(pool, subnet)| std::iter::repeat_n(*subnet, pool.count.value as usize));
    let subnets: Vec<usize> = subnets_of_agents
        .chain(std::iter::repeat(assignment.masters))
        .take(nodes.len())
        .collect();
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    if model.masters.scale_set {
        order.sort_by_key(|index| nodes[*index].role != Role::Master);
    }
    let mut taken: HashMap<usize, u128> = HashMap::new();
    for index in order {
        let subnet = subnets[index];
        let Some(prefix) = &network.subnets[subnet].prefix_v6 else {
            continue;
        };
        let next = taken.entry(subnet).or_insert(RESERVED_FIRST.into());
        nodes[index].subnet_prefix_v6 = Some(prefix.value);
        nodes[index].primary_ip_v6 = Some(nth_v6(prefix.value, *next));
        *next += 1;
    }
}

fn nth_v6(prefix: Ipv6Net, host: u128) -> Ipv6Addr {
    Ipv6Addr::from_bits(prefix.network().to_bits() | host)
}

struct Allocator<'a> {
    model: &'a Model,
    network: &'a Network,
    subnets: HashMap<usize, Addresses>,
}

impl Allocator<'_> {
    fn subnet(&mut self, index: usize) -> &mut Addresses {
        let prefix = self.network.subnets[index].prefix.value;
        self.subnets
            .entry(index)
            .or_insert_with(|| Addresses::new(prefix))
    }

    /// A node whose addresses Azure chooses.
    fn dynamic(&mut self, subnet: usize, per_node: &PerNode, number: u32) -> Option<Node> {
        let free = self.subnet(subnet);
        let primary = free.lowest()?;
        let pods: Option<Vec<u32>> = (1..per_node.addresses).map(|_| free.lowest()).collect();
        Some(self.node(subnet, per_node, number, primary.into(), &pods?))
    }

    /// A node whose own address is static.
    fn fixed(
        &mut self,
        subnet: usize,
        per_node: &PerNode,
        number: u32,
        primary: Ipv4Addr,
    ) -> Option<Node> {
        let count = per_node.addresses.saturating_sub(1);
        let pods = match count {
            0 => Vec::new(),
            _ => self.subnet(subnet).run_above(primary.to_bits(), count)?,
        };
        Some(self.node(subnet, per_node, number, primary, &pods))
    }

    fn node(
        &self,
        subnet: usize,
        per_node: &PerNode,
        number: u32,
        primary_ip: Ipv4Addr,
        pods: &[u32],
    ) -> Node {
        let subnet = &self.network.subnets[subnet];
        Node {
            name: format!("node-{number}"),
            hostname: None,
            role: Role::Agent,
            pool: String::new(),
            subnet: subnet.name.clone(),
            subnet_prefix: subnet.prefix.value,
            primary_ip,
            subnet_prefix_v6: None,
            primary_ip_v6: None,
            pod_ips: (self.model.plugin == Plugin::Azure)
                .then(|| pod_ips(pods))
                .flatten(),
            pod_cidr: None,
            pod_cidr_v6: None,
            max_pods: per_node.max_pods,
            windows: false,
            mtu: self.model.mtu,
        }
    }
}

/// The Kubernetes name of an agent. Windows shortens its names in a way of its own.
fn agent_hostname(pool: &Pool, cluster_id: Option<&str>, index: u32) -> Option<String> {
    if pool.windows {
        return None;
    }
    if !pool.scale_set {
        return cluster_id.map(|id| format!("k8s-{}-{id}-{index}", pool.name));
    }
    let instance = base36(index);
    match (&pool.scale_set_name, cluster_id) {
        (Some(name), _) => Some(format!("{name}{instance}")),
        (None, Some(id)) => Some(format!("k8s-{}-{id}-vmss{instance}", pool.name)),
        (None, None) => None,
    }
}

fn master_hostname(masters: &Masters, cluster_id: Option<&str>, index: u32) -> Option<String> {
    let id = cluster_id?;
    Some(if masters.scale_set {
        format!("k8s-master-{id}-vmss{}", base36(index))
    } else {
        format!("k8s-master-{id}-{index}")
    })
}

/// The number of a scale set's instance: six digits to the base of 36.
fn base36(mut number: u32) -> String {
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        let value = u8::try_from(number % 36).expect("a remainder below 36");
        *digit = if value < 10 {
            b'0' + value
        } else {
            b'a' + value - 10
        };
        number /= 36;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_first_master_stands_in_the_last_block_as_aks_engine_puts_it() {
        for (prefix, first) in [
            ("10.10.0.0/24", "10.10.0.5"),
            ("10.240.0.0/12", "10.255.255.5"),
            ("10.240.0.0/16", "10.240.255.5"),
            ("10.10.0.128/25", "10.10.0.133"),
        ] {
            let prefix: Ipv4Net = prefix.parse().unwrap();
            assert_eq!(default_first(prefix).to_string(), first);
        }
    }

    #[test]
    fn instances_of_a_scale_set_count_to_the_base_of_36() {
        assert_eq!(base36(0), "000000");
        assert_eq!(base36(10), "00000a");
        assert_eq!(base36(36), "000010");
    }

    #[test]
    fn a_subnet_holds_five_fewer_than_its_size() {
        for (prefix, count) in [
            ("10.0.0.0/29", 3),
            ("10.0.0.0/24", 251),
            ("10.0.0.0/16", 65531),
        ] {
            assert_eq!(capacity(prefix.parse().unwrap()), count);
        }
    }

    #[test]
    fn pods_around_a_taken_address_name_what_they_skip() {
        let mut free = Addresses::new("10.0.0.0/24".parse().unwrap());
        free.take(Ipv4Addr::new(10, 0, 0, 6));
        let all: Vec<u32> = (0..4).filter_map(|_| free.lowest()).collect();
        let pods = pod_ips(&all[1..]).unwrap();
        assert_eq!(pods.first, Ipv4Addr::new(10, 0, 0, 5));
        assert_eq!(pods.last, Ipv4Addr::new(10, 0, 0, 8));
        assert_eq!(pods.skipped, [Ipv4Addr::new(10, 0, 0, 6)]);
        assert_eq!(pods.iter().count(), 3);
    }
}
