//! Where should this frame go? The decision, which has no hands.
//!
//! In: a frame's view, the port it came in by, and the world: tables, FDB, neighbours.
//! Out: a [`Verdict`]. Never: changes anything; the fuzzer, the oracle, the simulation, `trace`
//! and the worker all call this one function.
//!
//! One switch serves both of AKS-Engine's networks; what differs is in the tables:
//!
//! | question | where it is answered |
//! |---|---|
//! | may it come in here? | [`guard`]: what the port may say |
//! | who has this protocol address? | [`arp`], [`nd`]: whoever is configured to hold it |
//! | a frame for the router, or from the uplink | [`route`]: by IP address |
//! | any other frame | [`bridge`]: by MAC address |
//! | does it simply go from one known station to another? | [`straight`], which is asked before the rest |
//! | is it the kernel's business first? | [`host`]: by policy, or since it answers what came that way |
//!
//! Between two isolated ports nothing passes, by whichever of these; what the kernel sends on, it
//! sends by the host port, which is none of them.

mod arp;
mod bridge;
mod guard;
mod host;
mod nd;
mod route;
mod straight;
mod witness;

pub(crate) use straight::{Entrance, Glance};
pub(crate) use witness::Observed;
use witness::note;
pub use witness::{Known, Step, Witness};

use std::net::IpAddr;

use crate::addr::{Mac, PortId};
use crate::frame::offload::Offload;
use crate::frame::{FrameView, Kind};
use crate::tables::fdb::Fdb;
use crate::tables::neighbour::Neighbours;
use crate::tables::returns::Returns;
use crate::tables::{Owner, Policy, PortRole, PortRow, Tables};
use crate::verdict::{DropReason, Punt, Rewrite, Verdict};

/// What a decision may look at.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The configured state.
    pub tables: &'a Tables,
    /// The learned stations.
    pub fdb: &'a Fdb,
    /// The next hops heard of.
    pub neighbours: &'a Neighbours,
    /// Who carried the conversations of late; none where nothing in it can concern this frame.
    pub returns: Option<&'a Returns>,
}

/// Where should this frame go?
///
/// In line with its caller, so that the addresses stay in registers: a view that is passed on by
/// way of memory is read back in other pieces than it was written, which costs a third of it all.
#[inline(always)]
#[must_use]
pub fn decide(
    view: &FrameView<'_>,
    offload: Offload,
    ingress: PortId,
    world: World<'_>,
) -> Verdict {
    let entrance = Entrance::of(ingress, world.tables);
    match entrance.and_then(|entrance| entrance.straight(view, world)) {
        Some(egress) => Verdict::Forward {
            egress,
            rewrite: Rewrite::KEEP,
        },
        None => decide_before(view, offload, ingress, world, &mut ()),
    }
}

/// The same decision without the short way, each step of which `witness` is told.
#[inline(always)]
#[must_use]
pub fn decide_before<W: Witness>(
    view: &FrameView<'_>,
    offload: Offload,
    ingress: PortId,
    world: World<'_>,
    witness: &mut W,
) -> Verdict {
    let Some(port) = world.tables.port(ingress) else {
        return Verdict::Drop(DropReason::NotAttached);
    };
    if let Err(reason) = guard::admit(view, offload, port, world.tables, witness) {
        return Verdict::Drop(reason);
    }
    if view.kind == Kind::Arp {
        return arp::decide(view, port, world.tables, witness);
    }
    if view.claims_discovery() {
        return nd::decide(view, offload, port, world, witness);
    }
    if view.target.is_group() {
        note!(witness, Step::ForGroup { mac: view.target });
        return group(view.target, port, world.tables);
    }
    if port.role == PortRole::Uplink || world.tables.is_router(view.target) {
        let mac = view.target;
        note!(
            witness,
            match port.role {
                PortRole::Uplink => Step::FromUplink,
                _ => Step::ForRouter { mac },
            }
        );
        return route::decide(view, offload, port, world, witness);
    }
    if is_kept_apart(port, world.tables) {
        return route::decide(view, offload, port, world, witness);
    }
    bridge::decide(view, port, world, witness)
}

/// Group frames stay among pods and host.
fn group(target: Mac, ingress: &PortRow, tables: &Tables) -> Verdict {
    if ingress.role == PortRole::Uplink {
        return Verdict::Drop(DropReason::UplinkNotOurs);
    }
    match (bridge::flood(target), tables.host()) {
        (Verdict::Flood, host) if is_kept_apart(ingress, tables) => match host {
            Some(host) => Verdict::Forward {
                egress: host.id,
                rewrite: Rewrite::KEEP,
            },
            None => Verdict::Drop(DropReason::NoEgress),
        },
        (verdict, _) => verdict,
    }
}

/// True for a pod that speaks to no other but through the host's rules. Its frames are looked up by
/// IP address whatever their MAC address, and its groups are the host's alone.
#[inline(always)]
fn is_kept_apart(ingress: &PortRow, tables: &Tables) -> bool {
    tables.policy() == Policy::ViaHost && ingress.role == PortRole::Pod
}

/// True if nothing may pass from `ingress` to `egress`.
#[inline(always)]
fn is_isolated<W: Witness>(
    ingress: &PortRow,
    egress: PortId,
    tables: &Tables,
    witness: &mut W,
) -> bool {
    let egress = if ingress.isolated {
        tables.port(egress)
    } else {
        None
    };
    let Some(egress) = egress.filter(|egress| ingress.is_isolated_from(egress)) else {
        return false;
    };
    note!(witness, Step::Isolated { egress: egress.id });
    true
}

/// Who holds `address`, told to the witness.
#[inline]
fn owner<W: Witness>(address: IpAddr, tables: &Tables, witness: &mut W) -> Option<Owner> {
    let owner = tables.owner(address);
    note!(witness, Step::Owner { address, owner });
    owner
}

/// The verdict on a claim of `address` that came in by `ingress`, if it is another port's.
fn conflict<W: Witness>(
    address: IpAddr,
    ingress: &PortRow,
    tables: &Tables,
    witness: &mut W,
) -> Option<Verdict> {
    let holder = owner(address, tables, witness)?;
    let other = holder.port != ingress.id;
    other.then_some(Verdict::Punt(Punt::Defend { address, holder }))
}

/// Which hardware address an asker is told: the fabric accepts only the NIC's.
fn told_to(asker: &PortRow, holder: Owner) -> Mac {
    if asker.role == PortRole::Uplink {
        asker.mac.mac()
    } else {
        holder.mac
    }
}

#[cfg(test)]
mod tests;
