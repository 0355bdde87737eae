//! By MAC address: the part of the switch that is a bridge.
//!
//! In: a frame whose target is no router. Out: the port of the target, all ports, or none.
//! Never: the uplink: its frames have the NIC's address, whoever they are for.

use super::World;
use crate::addr::Mac;
use crate::frame::FrameView;
use crate::frame::ethernet::is_reserved_group;
use crate::tables::{PortRow, Unknown};
use crate::verdict::{DropReason, Rewrite, Verdict};

/// The port of the target, configured before learned.
#[inline(always)]
pub(super) fn decide(view: &FrameView<'_>, ingress: &PortRow, world: World<'_>) -> Verdict {
    let known = match world.tables.station(view.target) {
        Some(port) => Some(port),
        None => world.fdb.find(view.target),
    };
    match known {
        Some(egress) if egress == ingress.id && !ingress.hairpin => {
            Verdict::Drop(DropReason::SamePort)
        }
        Some(egress) => Verdict::Forward {
            egress,
            rewrite: Rewrite::KEEP,
        },
        None if world.tables.unknown() == Unknown::Flood => Verdict::Flood,
        None => Verdict::Drop(DropReason::UnknownUnicast),
    }
}

/// A group frame: to all, unless no bridge may carry it.
pub(super) fn flood(target: Mac) -> Verdict {
    if is_reserved_group(target) {
        Verdict::Drop(DropReason::ReservedGroup)
    } else {
        Verdict::Flood
    }
}
