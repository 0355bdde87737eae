//! aks-engine's rules for masters, agent pools, the Linux profile and their subnets.
//!
//! In: the raw model. Out: a fault per rule broken, in aks-engine's words.
//! Never: asks for what does not touch the network; a template leaves those fields blank.

use std::collections::HashSet;

use super::checked::SubnetId;
use super::cidr::{parse_cidr, parse_ip};
use super::fault::{Place, Placed, Report};
use super::raw::{Integer, RawMaster, RawModel, RawPool, Text, is_set, spelled};
use super::rules::Chosen;

const SET: &str = "AvailabilitySet";
pub(super) const SCALE_SET: &str = "VirtualMachineScaleSets";

/// The most addresses that Azure gives one NIC, and aks-engine's own bound.
pub(super) const NIC_ADDRESSES_MAX: i64 = 256;
const POOL_COUNT_MAX: i64 = 1000;

/// Judges every profile.
pub(crate) fn check(raw: &RawModel, chosen: &Chosen, report: &mut Report) {
    match &raw.master {
        Some(master) => check_master(master, raw, report),
        None => report.fault(&raw.master_place, "missing Properties.MasterProfile"),
    }
    for (index, pool) in raw.pools.iter().enumerate() {
        check_pool(pool, index, raw, report);
    }
    check_pool_names(raw, report);
    check_pool_kinds(raw, report);
    check_mtu(chosen, report);
    if let Some(master) = &raw.master {
        check_vnet(master, raw, report);
    }
}

/// The place of a value, or of the profile that lacks it.
fn place_or<'a, T>(value: &'a Option<Placed<T>>, otherwise: &'a Place) -> &'a Place {
    value.as_ref().map_or(otherwise, |value| &value.place)
}

fn check_address_count(count: &Integer, profile: &str, report: &mut Report) {
    if let Some(count) = count
        && !(0..=NIC_ADDRESSES_MAX).contains(&count.value)
    {
        let message = format!("{profile}.IPAddressCount needs to be in the range [1,256]");
        report.fault(&count.place, message);
    }
}

fn check_master(master: &RawMaster, raw: &RawModel, report: &mut Report) {
    if !master
        .count
        .as_ref()
        .is_some_and(|count| [1, 3, 5].contains(&count.value))
    {
        let missing = master.place.child("count");
        let place = place_or(&master.count, &missing);
        report.fault(place, "MasterProfile count needs to be 1, 3, or 5");
    }
    check_address_count(&master.address_count, "MasterProfile", report);
    let scale_set = spelled(&master.availability) == SCALE_SET;
    if scale_set
        && master.subnet_id.is_some()
        && let Some(address) = &master.first_static
    {
        report.fault(
            &address.place,
            "when masterProfile's availabilityProfile is VirtualMachineScaleSets and a \
             vnetSubnetID is specified, the firstConsecutiveStaticIP should be empty and will be \
             determined by an offset from the first IP in the vnetCidr",
        );
    }
    if scale_set
        && let Some(pool) = raw
            .pools
            .iter()
            .find(|pool| spelled(&pool.availability) == SET)
    {
        report.fault(
            place_or(&pool.availability, &pool.place),
            "VirtualMachineScaleSets for master profile must be used together with \
             virtualMachineScaleSets for agent profiles. Set \"availabilityProfile\" to \
             \"VirtualMachineScaleSets\" for agent profiles",
        );
    }
}

fn check_pool(pool: &RawPool, index: usize, raw: &RawModel, report: &mut Report) {
    if !pool
        .count
        .as_ref()
        .is_some_and(|count| (1..=POOL_COUNT_MAX).contains(&count.value))
    {
        let missing = pool.place.child("count");
        let place = place_or(&pool.count, &missing);
        report.fault(
            place,
            "AgentPoolProfile count needs to be in the range [1,1000]",
        );
    }
    check_address_count(&pool.address_count, "AgentPoolProfile", report);
    match &pool.name {
        None => {
            let message = format!("missing Properties.AgentPoolProfiles[{index}].Name");
            report.fault(&pool.place.child("name"), message);
        }
        Some(name) if !is_pool_name(&name.value) => {
            let message = format!(
                "pool name '{}' is invalid. A pool name must start with a lowercase letter, have \
                 max length of 12, and only have characters a-z0-9",
                name.value
            );
            report.fault(&name.place, message);
        }
        Some(_) => {}
    }
    if let Some(os) = &pool.os_type
        && !["Linux", "Windows"].contains(&os.value.as_str())
    {
        report.fault(
            &os.place,
            "AgentPoolProfile.osType must be either Linux or Windows",
        );
    }
    check_pool_network(pool, raw, report);
}

fn is_pool_name(name: &str) -> bool {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 12
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(letters)
}

fn check_pool_network(pool: &RawPool, raw: &RawModel, report: &mut Report) {
    let name = spelled(&pool.name);
    if let Some(kind) = &pool.availability
        && ![SET, SCALE_SET].contains(&kind.value.as_str())
    {
        let message = format!(
            "unknown availability profile type '{}' for agent pool '{name}'.  Specify either \
             {SET}, or {SCALE_SET}",
            kind.value
        );
        report.fault(&kind.place, message);
    }
    if raw.azure_stack
        && let Some(flag) = [&pool.accelerated, &pool.accelerated_windows]
            .into_iter()
            .find(|flag| is_set(flag))
    {
        report.fault(
            place_or(flag, &pool.place),
            "AcceleratedNetworkingEnabled or AcceleratedNetworkingEnabledWindows shouldn't be \
             set to true as feature is not yet supported on Azure Stack",
        );
    }
    if is_set(&raw.ipv6_only) && spelled(&pool.os_type) == "Windows" {
        let message = format!(
            "Single stack IPv6 feature is supported only with Linux, but agent pool '{name}' is \
             of os type Windows"
        );
        report.fault(place_or(&pool.os_type, &pool.place), message);
    }
    if is_set(&pool.node_public_ip) {
        let place = place_or(&pool.node_public_ip, &pool.place);
        let enabled = format!("You have enabled VMSS node public IP in agent pool {name}");
        if spelled(&pool.availability) != SCALE_SET {
            report.fault(place, format!("{enabled}, but you did not specify VMSS"));
        }
        if spelled(&raw.kubernetes.load_balancer_sku) != "Basic" {
            let message = format!("{enabled}, but you did not specify Basic Load Balancer SKU");
            report.fault(place, message);
        }
    }
}

fn check_pool_names(raw: &RawModel, report: &mut Report) {
    let mut seen = HashSet::new();
    for name in raw.pools.iter().filter_map(|pool| pool.name.as_ref()) {
        if !seen.insert(&name.value) {
            let message = format!(
                "profile name '{}' already exists, profile names must be unique across pools",
                name.value
            );
            report.fault(&name.place, message);
        }
    }
}

fn check_pool_kinds(raw: &RawModel, report: &mut Report) {
    let is_set = |pool: &RawPool| spelled(&pool.availability) == SET;
    let Some(first) = raw.pools.first().map(is_set) else {
        return;
    };
    if let Some(other) = raw.pools.iter().find(|pool| is_set(pool) != first) {
        report.fault(
            place_or(&other.availability, &other.place),
            "mixed mode availability profiles are not allowed. Please set either \
             VirtualMachineScaleSets or AvailabilitySet in availabilityProfile for all agent \
             pools",
        );
    }
}

fn check_mtu(chosen: &Chosen, report: &mut Report) {
    let Some(mtu) = chosen.eth0_mtu.as_ref().filter(|mtu| mtu.value != 0) else {
        return;
    };
    if chosen.plugin == "kubenet" {
        report.fault(
            &mtu.place,
            "Custom linuxProfile eth0MTU value not allowed when using Kubenet",
        );
    }
    if ![1500, 3900].contains(&mtu.value) {
        let message = format!(
            "Invalid linuxProfile eth0MTU value \"{}\", please use one of the following values: \
             1500, 3900",
            mtu.value
        );
        report.fault(&mtu.place, message);
    }
}

fn check_vnet(master: &RawMaster, raw: &RawModel, report: &mut Report) {
    let custom = master.subnet_id.is_some();
    if let Some(pool) = raw
        .pools
        .iter()
        .find(|pool| pool.subnet_id.is_some() != custom)
    {
        let missing = pool.place.child("vnetSubnetID");
        report.fault(
            place_or(&pool.subnet_id, &missing),
            "Multiple VNET Subnet configurations specified.  The master profile and each agent \
             pool profile must all specify a custom VNET Subnet, or none at all",
        );
    }
    let own = read_subnet_id(&master.subnet_id, report);
    for pool in &raw.pools {
        let theirs = read_subnet_id(&pool.subnet_id, report);
        if let (Some(own), Some(theirs)) = (&own, theirs)
            && !own.same_vnet(&theirs)
        {
            report.fault(
                place_or(&pool.subnet_id, &pool.place),
                "Multiple VNETS specified.  The master profile and each agent pool must \
                 reference the same VNET (but it is ok to reference different subnets on that \
                 VNET)",
            );
        }
    }
    check_master_addresses(master, custom, report);
}

fn read_subnet_id(id: &Text, report: &mut Report) -> Option<SubnetId> {
    let id = id.as_ref()?;
    let parsed = SubnetId::parse(&id.value);
    if parsed.is_none() {
        report.fault(
            &id.place,
            "Unable to parse vnetSubnetID. Please use a vnetSubnetID with format \
             /subscriptions/SUB_ID/resourceGroups/RG_NAME/providers/Microsoft.Network/\
             virtualNetworks/VNET_NAME/subnets/SUBNET_NAME",
        );
    }
    parsed
}

fn check_master_addresses(master: &RawMaster, custom: bool, report: &mut Report) {
    let scale_set = spelled(&master.availability) == SCALE_SET;
    if custom && scale_set && master.agent_subnet_id.is_none() {
        report.fault(
            &master.place.child("agentVnetSubnetID"),
            "when master profile is using VirtualMachineScaleSets and is custom vnet, set \
             \"vnetsubnetid\" and \"agentVnetSubnetID\" for master profile",
        );
    }
    // Without a custom VNet aks-engine overwrites the address unread; a template that is given
    // beside the model makes it count, so it has to hold in either case.
    let address = spelled(&master.first_static);
    let needed = custom && !scale_set;
    if (needed || !address.is_empty()) && !parse_ip(address).is_some_and(|ip| ip.is_ipv4()) {
        let missing = master.place.child("firstConsecutiveStaticIP");
        let message = format!(
            "MasterProfile.FirstConsecutiveStaticIP (with VNET Subnet specification) '{address}' \
             is an invalid IP address"
        );
        report.fault(place_or(&master.first_static, &missing), message);
    }
    if let Some(cidr) = &master.vnet_cidr
        && parse_cidr(&cidr.value).is_none()
    {
        let message = format!(
            "MasterProfile.VnetCidr '{}' contains invalid cidr notation",
            cidr.value
        );
        report.fault(&cidr.place, message);
    }
}
