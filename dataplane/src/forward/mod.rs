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
//! | who has this protocol address? | [`arp`]: whoever is configured to hold it |
//! | a frame for the router, or from the uplink | [`route`]: by IP address |
//! | any other frame | [`bridge`]: by MAC address |

mod arp;
mod bridge;
mod route;
mod witness;

use witness::note;
pub use witness::{Known, Step, Witness};

use crate::addr::PortId;
use crate::frame::offload::Offload;
use crate::frame::{FrameView, Kind, Network};
use crate::tables::Tables;
use crate::tables::fdb::Fdb;
use crate::tables::neighbour::Neighbours;
use crate::tables::{PortRole, PortRow};
use crate::verdict::{DropReason, Verdict};

/// What a decision may look at.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The configured state.
    pub tables: &'a Tables,
    /// The learned stations.
    pub fdb: &'a Fdb,
    /// The next hops heard of.
    pub neighbours: &'a Neighbours,
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
    decide_before(view, offload, ingress, world, &mut ())
}

/// The same decision, each step of which `witness` is told.
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
    if view.kind == Kind::Arp
        && let Network::Arp(packet) = view.network()
    {
        return arp::decide(&packet, port, world.tables, witness);
    }
    if view.target.is_group() {
        return group(view, port, world.tables, witness);
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
    bridge::decide(view, port, world, witness)
}

/// Group frames stay among pods and host.
#[inline(never)]
fn group<W: Witness>(
    view: &FrameView<'_>,
    ingress: &PortRow,
    tables: &Tables,
    witness: &mut W,
) -> Verdict {
    note!(witness, Step::ForGroup { mac: view.target });
    if let Network::Ipv6(packet) = view.network()
        && let Some(verdict) = arp::solicited(&packet, ingress, tables, witness)
    {
        return verdict;
    }
    if ingress.role == PortRole::Uplink {
        return Verdict::Drop(DropReason::UplinkNotOurs);
    }
    bridge::flood(view.target)
}

#[cfg(test)]
mod tests;
