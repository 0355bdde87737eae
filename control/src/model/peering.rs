//! The VNets that a VNet is peered with, as far as its template tells their addresses.
//!
//! In: a VNet's resource. Out: the address spaces of its peers. Never: follows the id of a peer,
//! which is another document's, or asks Azure.

use super::cidr::overlap;
use super::fault::{Placed, Report};
use super::template::{Reader, read_prefix};
use super::text::{Object, as_object};
use ipnet::IpNet;

const PEERING_TYPE: &str = "Microsoft.Network/virtualNetworks/virtualNetworkPeerings";

impl<'a> Reader<'a> {
    /// The address spaces of the peers of a VNet, whose own space is `own`.
    pub(super) fn peers(
        &self,
        vnet: &Object<'a>,
        own: &[Placed<IpNet>],
        report: &mut Report,
    ) -> Vec<Placed<IpNet>> {
        let mut peerings = Vec::new();
        if let Some(properties) = vnet.object("properties", &mut Report::default()) {
            let listed = properties.list("virtualNetworkPeerings", report);
            let listed = listed.into_iter();
            peerings.extend(listed.filter_map(|(node, place)| as_object(node, place, report)));
        }
        let children = self.resources(vnet, report).into_iter();
        peerings.extend(children.filter(|child| {
            self.is_kind(child, "virtualNetworkPeerings") || self.is_kind(child, PEERING_TYPE)
        }));
        let mut spaces: Vec<Placed<IpNet>> = Vec::new();
        for peering in &peerings {
            for space in self.peer(peering, report) {
                if let Some(other) = own.iter().find(|own| overlap(&own.value, &space.value)) {
                    let message = format!(
                        "{} overlaps {}, a prefix of the VNet itself",
                        space.value, other.value
                    );
                    report.fault(&space.place, message);
                }
                spaces.push(space);
            }
        }
        spaces
    }

    /// The address space of one peer. What is not connected is no route.
    fn peer(&self, peering: &Object<'a>, report: &mut Report) -> Vec<Placed<IpNet>> {
        let properties = match peering.find("properties") {
            Some(_) => peering.object("properties", report),
            None => Some(peering.clone()),
        };
        let Some(properties) = properties else {
            return Vec::new();
        };
        if let Some(state) = properties.text("peeringState", report)
            && !state.value.eq_ignore_ascii_case("Connected")
        {
            let message = format!("the peering is '{}': no route leads into it", state.value);
            report.warn(&state.place, message);
            return Vec::new();
        }
        let space = ["remoteVirtualNetworkAddressSpace", "remoteAddressSpace"]
            .iter()
            .find(|key| properties.find(key).is_some())
            .and_then(|key| properties.object(key, report));
        let Some(space) = space else {
            let place = properties.place_of("remoteAddressSpace");
            report.warn(
                &place,
                "not given, so the routes into the peered VNet are left out",
            );
            return Vec::new();
        };
        let texts = self.texts(&space, "addressPrefixes", report);
        let spaces = texts.iter().filter_map(|text| read_prefix(text, report));
        spaces.collect()
    }
}
