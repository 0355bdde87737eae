//! A frame that is refused, and what its sender is told.
//!
//! In: a frame that died, and why. Out: the death counted, and an ICMP error where one is due.
//! Never: an error where the switch is no router, more of them than the limits allow, or one
//! by another port than the frame came in by.

use super::Worker;
use crate::addr::PortId;
use crate::buffer::Frame;
use crate::clock::Tick;
use crate::forward::{self, Step, Witness, World};
use crate::frame::FrameView;
use crate::frame::ethernet::HEADER_LEN;
use crate::port::Port;
use crate::slow::Speaker;
use crate::slow::error::Due;
use crate::tables::{Crossing, PortRole, Tables};
use crate::verdict::DropReason;

/// What a packet was measured against. A packet too big is decided on once more to learn of it, so
/// that it is the very MTU which refused it, and the verdict need not carry it for all the others.
struct Measured(Option<u16>);

impl Witness for Measured {
    fn note(&mut self, step: Step) {
        if let Step::Size { mtu, .. } = step {
            self.0 = Some(mtu);
        }
    }
}

impl<P: Port> Worker<P> {
    /// A death that the sender may be told of.
    #[inline]
    pub(super) fn refuse(
        &mut self,
        frame: Frame,
        reason: DropReason,
        ingress: PortId,
        tables: &Tables,
        now: Tick,
    ) {
        if let Crossing::Routed { .. } = tables.crossing() {
            self.tell_sender(&frame, reason, ingress, tables, now);
        }
        self.drop(frame, ingress, reason);
    }

    #[cold]
    fn tell_sender(
        &mut self,
        frame: &Frame,
        reason: DropReason,
        ingress: PortId,
        tables: &Tables,
        now: Tick,
    ) {
        let bytes = self.pool.bytes(frame);
        let (Some(speaker), Ok(view)) = (speaker(ingress, tables), FrameView::parse(bytes)) else {
            return;
        };
        let sender = view.source.mac();
        let world = World {
            tables,
            fdb: &self.fdb,
            neighbours: &self.neighbours,
            returns: Some(&self.returns),
        };
        let mtu = || {
            let mut measured = Measured(None);
            let _ = forward::decide_before(&view, frame.offload, ingress, world, &mut measured);
            measured.0
        };
        let Some(due) = Due::of(reason, &view, mtu) else {
            return;
        };
        if !self.limits.allow(due.host(), due.needed(), now) {
            return self.board.error_suppressed();
        }
        let Some(mut answer) = self.pool.take() else {
            return self.board.error_suppressed();
        };
        self.errors_sent = self.errors_sent.wrapping_add(1);
        let (bytes, room) = self.pool.pair(frame, &answer);
        let quoted = &bytes[HEADER_LEN..];
        match due.write(room, quoted, sender, speaker, self.errors_sent) {
            Some(len) => {
                answer.set_len(len);
                self.originate(answer, ingress);
            }
            None => self.pool.release(answer),
        }
    }
}

/// In whose name the switch speaks on a port: the node's on the uplink, the gateway's elsewhere.
pub(super) fn speaker(port: PortId, tables: &Tables) -> Option<Speaker> {
    let Crossing::Routed { uplink, gateway } = tables.crossing() else {
        return None;
    };
    let row = tables.port(port)?;
    let (mac, addresses) = match row.role {
        PortRole::Uplink => (row.mac.mac(), uplink),
        PortRole::Pod | PortRole::Host => (tables.host()?.mac.mac(), gateway),
    };
    Some(Speaker { mac, addresses })
}
