//! By MAC address: the part of the switch that is a bridge.
//!
//! In: a frame whose target is no router. Out: the port of the target, all ports, or none.
//! Never: the uplink: its frames have the NIC's address, whoever they are for.

use super::{Known, Step, Witness, World};
use crate::addr::Mac;
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
        Some(port) => Some((port, Known::Configured)),
        None => world.fdb.find(mac).map(|port| (port, Known::Learned)),
    };
    let Some((port, known)) = station else {
        let unknown = world.tables.unknown();
        witness.note(Step::NoStation { mac, unknown });
        return match unknown {
            Unknown::Flood => Verdict::Flood,
            Unknown::Drop => Verdict::Drop(DropReason::UnknownUnicast),
        };
    };
    witness.note(Step::Station { mac, port, known });
    if port == ingress.id {
        let allowed = ingress.hairpin;
        witness.note(Step::Hairpin { port, allowed });
        if !allowed {
            return Verdict::Drop(DropReason::SamePort);
        }
    }
    Verdict::Forward {
        egress: port,
        rewrite: Rewrite::KEEP,
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
