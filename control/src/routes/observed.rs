//! What only Azure knows of a VNet's routes, from what `az network nic show-effective-route-table`
//! prints: those that a gateway learned, those into peered VNets, those of service endpoints.
//!
//! In: that document. Out: prefixes by their source, or every fault. Never: takes a route over
//! that the plan computes itself: the VNet's own, reserved prefixes, those of a route table.

use ipnet::IpNet;

use super::table::read_prefix;
use crate::model::{Document, Object, Place, Placed, Report, Value, as_object};

/// The prefixes that Azure told of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// The VNet's own, by which the document is known to be of this VNet.
    pub(crate) vnet: Vec<Placed<IpNet>>,
    pub(crate) learned: Vec<IpNet>,
    pub(crate) peers: Vec<IpNet>,
    pub(crate) endpoints: Vec<IpNet>,
    /// Where the rows stand.
    pub(crate) place: Option<Place>,
}

/// Reads the rows. Nothing only when the report has gained a fault.
pub(crate) fn read(document: &Document, report: &mut Report) -> Option<Observed> {
    let faults_before = report.fault_count();
    let root = document.root();
    if root.find("value").is_none() {
        let message = "expected what `az network nic show-effective-route-table` prints: an \
                       object with the rows in its 'value'";
        report.fault(&root.place, message);
        return None;
    }
    let mut observed = Observed {
        place: Some(root.place_of("value")),
        ..Observed::default()
    };
    for (node, place) in root.list("value", report) {
        if let Some(row) = as_object(node, place, report) {
            observed.take(&row, report);
        }
    }
    (report.fault_count() == faults_before).then_some(observed)
}

impl Observed {
    fn take(&mut self, row: &Object<'_>, report: &mut Report) {
        let kind = row.text("nextHopType", report);
        let Some(source) = row.text("source", report) else {
            report.fault(&row.place_of("source"), "missing source");
            return;
        };
        let Some(kind) = kind else {
            report.fault(&row.place_of("nextHopType"), "missing nextHopType");
            return;
        };
        let kind = kind.value.to_ascii_lowercase();
        let prefixes = prefixes(row, report).into_iter();
        match (source.value.to_ascii_lowercase().as_str(), kind.as_str()) {
            ("virtualnetworkgateway", _) => self.learned.extend(prefixes.map(|net| net.value)),
            ("default", "vnetlocal") => self.vnet.extend(prefixes),
            ("default", "vnetpeering" | "vnetglobalpeering") => {
                self.peers.extend(prefixes.map(|net| net.value));
            }
            ("default", "virtualnetworkserviceendpoint") => {
                self.endpoints.extend(prefixes.map(|net| net.value));
            }
            // The plan knows these itself.
            ("default" | "user", _) => {}
            // Azure says so where it has nothing better to say.
            ("unknown", _) => report.warn(&source.place, "of no known source; left out"),
            _ => {
                let message = format!(
                    "unknown source '{}': one of Default, User, VirtualNetworkGateway",
                    source.value
                );
                report.fault(&source.place, message);
            }
        }
    }
}

fn prefixes(row: &Object<'_>, report: &mut Report) -> Vec<Placed<IpNet>> {
    let mut nets = Vec::new();
    for (node, place) in row.list("addressPrefix", report) {
        let Value::Text(text) = &node.value else {
            let message = format!("expected text, found {}", node.value.kind());
            report.fault(&place, message);
            continue;
        };
        let written = Placed {
            value: text.clone(),
            place,
        };
        if let Some(net) = read_prefix(&written, report) {
            nets.push(Placed {
                value: net,
                place: written.place,
            });
        }
    }
    nets
}
