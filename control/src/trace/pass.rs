//! One frame through one switch, without sending it: the same `decide`, the same edits.
//!
//! In: what the switch knows, the port, the frame. Out: each step that `decide` took, its verdict,
//! and the frame that every port would get.
//! Never: decides. What a worker adds to a verdict (edits, the ports of a flood) is added here as
//! there, and a property test holds the two beside each other.

use dataplane::addr::PortId;
use dataplane::forward::{Step, World, decide_before};
use dataplane::frame::FrameView;
use dataplane::frame::offload::Offload;
use dataplane::rewrite::rewrite;
use dataplane::verdict::{DropReason, Punt, Rewrite, Verdict};

/// A frame on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The whole frame.
    pub bytes: Vec<u8>,
    /// What is still undone.
    pub offload: Offload,
}

/// What became of a frame in one switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// What `decide` looked at, in order. Nothing if the frame has no view.
    pub steps: Vec<Step>,
    /// What became of it.
    pub fate: Fate,
}

/// What a worker does with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It leaves by one port.
    Forward {
        /// The port.
        egress: PortId,
        /// What was changed.
        edits: Rewrite,
        /// The frame as it leaves.
        frame: Carried,
    },
    /// It leaves as it is by each of these ports.
    Flood(Vec<PortId>),
    /// The slow path has it.
    Punt(Punt),
    /// It dies.
    Drop(DropReason),
}

/// Takes a frame through the rooms of a worker.
#[must_use]
pub fn pass(world: World<'_>, ingress: PortId, frame: &Carried) -> Passage {
    let mut steps = Vec::new();
    let fate = match FrameView::parse(&frame.bytes) {
        Ok(view) if frame.offload.fits(frame.bytes.len(), view.kind) => {
            let verdict = decide_before(&view, frame.offload, ingress, world, &mut steps);
            obey(verdict, &view, world, ingress, frame)
        }
        Ok(_) => Fate::Drop(DropReason::BadOffload),
        Err(reason) => Fate::Drop(reason),
    };
    Passage { steps, fate }
}

fn obey(
    verdict: Verdict,
    view: &FrameView<'_>,
    world: World<'_>,
    ingress: PortId,
    frame: &Carried,
) -> Fate {
    match verdict {
        // Fragments of one packet share its way, so the walk follows the packet as it was; the
        // step before says that it is longer than the MTU.
        Verdict::Forward {
            egress,
            rewrite: edits,
        }
        | Verdict::Fragment {
            egress,
            rewrite: edits,
        } => {
            let mut frame = frame.clone();
            rewrite(&mut frame.bytes, view.kind, edits);
            Fate::Forward {
                egress,
                edits,
                frame,
            }
        }
        Verdict::Flood => {
            let others: Vec<PortId> = world.tables.floods_from(ingress).collect();
            if others.is_empty() {
                Fate::Drop(DropReason::NoEgress)
            } else {
                Fate::Flood(others)
            }
        }
        Verdict::Punt(punt) => Fate::Punt(punt),
        Verdict::Drop(reason) => Fate::Drop(reason),
    }
}
