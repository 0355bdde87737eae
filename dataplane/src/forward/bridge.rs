//! By MAC address: the part of the switch that is a bridge.
//!
//! In: a frame whose target is no router. Out: the port of the target, all ports, or none.
//! Never: the uplink: its frames have the NIC's address, whoever they are for.

use super::witness::note;
use super::{Known, Step, Witness, World, host, is_isolated, route};
use crate::addr::Mac;
use crate::addr::PortId;
use crate::frame::FrameView;
use crate::frame::ethernet::is_reserved_group;
use crate::tables::{PortRow, Unknown};
use crate::verdict::{DropReason, Rewrite, Verdict};

/// The port of the target, configured before learned.
#[inline(always)]
pub(super) fn decide<W: Witness>(
    view: &FrameView<'_>,
    ingress: &PortRow,
    world: World<'_>,
    witness: &mut W,
) -> Verdict {
    let mac = view.target;
    let station = match world.tables.station(mac) {
        Some(port) => {
            let known = Known::Configured;
            note!(witness, Step::Station { mac, port, known });
            Some(port)
        }
        None => {
            let learned = world.fdb.find(mac);
            if let Some(port) = learned {
                let known = Known::Learned;
                note!(witness, Step::Station { mac, port, known });
            }
            learned
        }
    };
    if station == Some(ingress.id) {
        let (port, allowed) = (ingress.id, ingress.hairpin);
        note!(witness, Step::Hairpin { port, allowed });
    }
    match station {
        Some(egress) if egress == ingress.id && !ingress.hairpin => {
            Verdict::Drop(DropReason::SamePort)
        }
        Some(egress) if is_isolated(ingress, egress, world.tables, witness) => {
            Verdict::Drop(DropReason::Isolated)
        }
        Some(egress) if comes_by_host(view, ingress, egress, world, witness) => {
            route::to_host(ingress, world.tables, witness)
        }
        Some(egress) => Verdict::Forward {
            egress,
            rewrite: Rewrite::KEEP,
        },
        None => {
            let unknown = world.tables.unknown();
            note!(witness, Step::NoStation { mac, unknown });
            match unknown {
                Unknown::Flood => Verdict::Flood,
                Unknown::Drop => Verdict::Drop(DropReason::UnknownUnicast),
            }
        }
    }
}

#[inline(always)]
fn comes_by_host<W: Witness>(
    view: &FrameView<'_>,
    ingress: &PortRow,
    egress: PortId,
    world: World<'_>,
    witness: &mut W,
) -> bool {
    let returns = world.returns;
    returns.is_some_and(|returns| returns.concerns(ingress.id, egress))
        && world
            .tables
            .port(egress)
            .is_some_and(|egress| host::comes_first(view, ingress, egress, world, witness))
}

/// A group frame: to all, unless no bridge may carry it.
pub(super) fn flood(target: Mac) -> Verdict {
    if is_reserved_group(target) {
        Verdict::Drop(DropReason::ReservedGroup)
    } else {
        Verdict::Flood
    }
}
