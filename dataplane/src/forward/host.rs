//! Should the node's kernel see this frame first? What stations and routes say has two exceptions.
//!
//! In: a frame, the port that it came in by, and the one that it would leave by.
//! Out: yes or no. Never: for frames from the kernel itself, or for its loopback.
//!
//! 1. *Policy.* Where rules of the kernel's hold between pods, every frame goes through it.
//! 2. *The way back.* A conversation that came through the host returns through it: what the kernel
//!    translated it must translate back. Whom that concerns the worker has noted in
//!    [`Returns`](crate::tables::returns). Where the worker knows that nothing there concerns the
//!    frame, there is nothing to ask; between ports of which nothing is noted it is two loads.

use super::witness::note;
use super::{Step, Witness, World};
use crate::frame::FrameView;
use crate::frame::tuple::Said;
use crate::tables::returns::Returns;
use crate::tables::{Policy, PortRole, PortRow, Tables};

/// True if a frame from `ingress`, which would leave by `egress`, is for the host instead.
#[inline(always)]
pub(super) fn comes_first<W: Witness>(
    view: &FrameView<'_>,
    ingress: &PortRow,
    egress: &PortRow,
    world: World<'_>,
    witness: &mut W,
) -> bool {
    if world.tables.policy() == Policy::ViaHost {
        let outside = !concerns_host(ingress, egress);
        if outside {
            note!(witness, Step::Policy { egress: egress.id });
        }
        return outside;
    }
    match world.returns {
        Some(returns) if returns.concerns(ingress.id, egress.id) => {
            is_answer(view, ingress, egress, (world.tables, returns), witness)
        }
        _ => false,
    }
}

fn concerns_host(ingress: &PortRow, egress: &PortRow) -> bool {
    ingress.role == PortRole::Host || egress.role == PortRole::Host
}

#[inline(never)]
fn is_answer<W: Witness>(
    view: &FrameView<'_>,
    ingress: &PortRow,
    egress: &PortRow,
    (tables, returns): (&Tables, &Returns),
    witness: &mut W,
) -> bool {
    if concerns_host(ingress, egress) || tables.host().is_none() {
        return false;
    }
    let Some(Said { own, answers, .. }) = Said::of(view) else {
        return false;
    };
    let to_pod = egress.role == PortRole::Pod;
    let known = returns.known(&answers, to_pod);
    note!(witness, Step::Return { answers, known });
    known.is_for_host() && !own.is_some_and(|own| own.target.is_loopback())
}
