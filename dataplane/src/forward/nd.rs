//! Questions for hardware addresses, and their answers, in IPv6: neighbour discovery.
//!
//! In: a frame that claims to be a solicitation or an advertisement, and the port it came in by.
//! Out: an answer from the tables, the asker an advertisement is for, the other pods, or a death.
//! Never: routes one: neighbour discovery ends with its link (RFC 4861 3.1). Nor lets one pass that
//! claims an address which another port holds (RFC 4862 5.4).
//!
//! A question is answered at once whoever it was sent to: the solicited-node group, or the holder
//! itself, as a probe of a neighbour that is known already (RFC 4861 7.3).

use std::net::Ipv6Addr;

use super::witness::note;
use super::{
    Step, Witness, World, bridge, conflict, group, guard, is_isolated, is_kept_apart, owner,
    told_to,
};
use crate::frame::FrameView;
use crate::frame::nd::{Message, NdView};
use crate::frame::offload::Offload;
use crate::tables::neighbour::state::Told;
use crate::tables::{Crossing, PortRole, PortRow, Tables};
use crate::verdict::{DropReason, Punt, Rewrite, Verdict};

/// What becomes of a frame that claims to be neighbour discovery.
#[inline(never)]
pub(super) fn decide<W: Witness>(
    view: &FrameView<'_>,
    offload: Offload,
    ingress: &PortRow,
    world: World<'_>,
    witness: &mut W,
) -> Verdict {
    let tables = world.tables;
    if view.target.is_group() {
        note!(witness, Step::ForGroup { mac: view.target });
    }
    let packet = match view.discovery(offload.needs_checksum()) {
        Ok(packet) => packet,
        Err(reason) => return Verdict::Drop(reason),
    };
    if let Some(verdict) = conflict(claimed(&packet).into(), ingress, tables, witness) {
        return verdict;
    }
    if let Err(reason) = guard::discovery(&packet, ingress, tables, witness) {
        return Verdict::Drop(reason);
    }
    let answered = match (packet.message, ingress.role) {
        (Message::Solicitation, _) => solicited(&packet, ingress, tables, witness),
        (Message::Advertisement { .. }, PortRole::Uplink) => {
            return advertised_by_uplink(&packet, tables, witness);
        }
        (Message::Advertisement { .. }, _) => None,
    };
    match answered {
        Some(verdict) => verdict,
        None if ingress.role == PortRole::Uplink => Verdict::Drop(DropReason::UplinkNotOurs),
        // Where the host's rules hold between pods, what is for neither is the host's.
        None if view.target.is_group() || is_kept_apart(ingress, tables) => {
            group(view.target, ingress, tables)
        }
        None => bridge::decide(view, ingress, world, witness),
    }
}

/// The address that its sender says it has: that of an advertisement, or the one it asks from, or,
/// before it has any, the one it would like.
fn claimed(packet: &NdView) -> Ipv6Addr {
    match packet.message {
        Message::Advertisement { .. } => packet.target,
        Message::Solicitation if packet.is_probe() => packet.target,
        Message::Solicitation => packet.source,
    }
}

/// The answer to a question for an address that another port holds.
fn solicited<W: Witness>(
    packet: &NdView,
    ingress: &PortRow,
    tables: &Tables,
    witness: &mut W,
) -> Option<Verdict> {
    let owner = owner(packet.target.into(), tables, witness)?;
    if owner.port == ingress.id {
        return None;
    }
    if is_isolated(ingress, owner.port, tables, witness) {
        return Some(Verdict::Drop(DropReason::Isolated));
    }
    Some(Verdict::Punt(Punt::AnswerSolicitation {
        mac: told_to(ingress, owner),
        router: tables.is_router(owner.mac),
    }))
}

/// For this node, or on an azure node for the pod that asked in its own name.
fn advertised_by_uplink<W: Witness>(packet: &NdView, tables: &Tables, witness: &mut W) -> Verdict {
    match tables.crossing() {
        Crossing::Routed { uplink, .. }
            if packet.to.is_multicast() || uplink.v6 == Some(packet.to) =>
        {
            match told(packet) {
                Some(told) => Verdict::Punt(Punt::HearNeighbour {
                    address: packet.target.into(),
                    told,
                }),
                None => Verdict::Drop(DropReason::UplinkNotOurs),
            }
        }
        Crossing::Bridged => to_the_asker(packet, tables, witness),
        Crossing::Routed { .. } => Verdict::Drop(DropReason::UplinkNotOurs),
    }
}

fn told(packet: &NdView) -> Option<Told> {
    match packet.message {
        Message::Advertisement {
            mac,
            router,
            solicited,
            overrides,
        } => Some(Told {
            mac,
            solicited,
            overrides,
            router,
        }),
        Message::Solicitation => None,
    }
}

fn to_the_asker<W: Witness>(packet: &NdView, tables: &Tables, witness: &mut W) -> Verdict {
    let asker = owner(packet.to.into(), tables, witness).and_then(|owner| tables.port(owner.port));
    match asker {
        Some(asker) if asker.role == PortRole::Pod => Verdict::Forward {
            egress: asker.id,
            rewrite: Rewrite {
                target: Some(asker.mac.mac()),
                ..Rewrite::KEEP
            },
        },
        _ => Verdict::Drop(DropReason::UplinkNotOurs),
    }
}
