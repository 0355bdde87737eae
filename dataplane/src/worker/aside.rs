//! Beside the walk: what a frame gives rise to when it cannot simply go on.
//!
//! In: a frame that `decide` punted or refused, and the time. Out: answers, questions, ICMP
//! errors.
//! Never: in the way of a frame that has a port to leave by. It is bounded, and may build frames.

use super::{AGE_SLOTS, CHORES_MS, ERRORS_PER_SECOND, Worker};
use crate::addr::PortId;
use crate::buffer::Frame;
use crate::clock::Tick;
use crate::frame::ethernet::HEADER_LEN;
use crate::frame::offload::Offload;
use crate::frame::{FrameView, Network};
use crate::gossip::Heard;
use crate::port::Port;
use crate::slow::{self, Speaker};
use crate::tables::fdb::AGE_SECONDS_DEFAULT;
use crate::tables::neighbour::Waiting;
use crate::tables::{Crossing, PortRole, Tables};
use crate::verdict::{DropReason, Punt};

impl<P: Port> Worker<P> {
    /// The slow path.
    #[cold]
    pub(super) fn punt(
        &mut self,
        mut frame: Frame,
        punt: Punt,
        ingress: PortId,
        tables: &Tables,
        now: Tick,
    ) {
        let Ok(view) = FrameView::parse(self.pool.bytes(&frame)) else {
            return self.drop(frame, ingress, DropReason::TooShort);
        };
        let (asker, network) = (view.source.mac(), view.network());
        match (punt, &network) {
            (Punt::Resolve { next_hop, egress }, _) => {
                self.wait(next_hop, egress, Waiting { frame, ingress }, tables, now);
            }
            (Punt::HearNeighbour { address, mac }, _) => {
                self.board.punted();
                self.pool.release(frame);
                self.told |= self.gossip.tell(Heard { address, mac });
                self.hear(address, mac, tables, now);
            }
            (Punt::AnswerArp { mac }, Network::Arp(question)) => {
                self.board.punted();
                let len = slow::arp::answer(self.pool.room(&frame), question, mac);
                frame.set_len(len);
                self.originate(frame, ingress);
            }
            (Punt::AnswerSolicitation { mac }, Network::Ipv6(packet)) => {
                self.board.punted();
                match slow::nd::advertisement(self.pool.room(&frame), packet, asker, mac) {
                    Some(len) => {
                        frame.set_len(len);
                        self.originate(frame, ingress);
                    }
                    None => self.pool.release(frame),
                }
            }
            (Punt::AnswerArp { .. } | Punt::AnswerSolicitation { .. }, _) => {
                unreachable!("decide answers a question only where it saw one");
            }
        }
    }

    /// Sends a frame of the switch's own making.
    pub(super) fn originate(&mut self, mut frame: Frame, egress: PortId) {
        frame.offload = Offload::NONE;
        self.board.originated();
        let taken = self.transmit(&mut frame, egress);
        self.settle(frame, taken);
    }

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
        let Some(speaker) = speaker(ingress, tables) else {
            return;
        };
        let Some(mut answer) = self.pool.take() else {
            return;
        };
        let mtu = tables.uplink().map_or(1500, |uplink| uplink.mtu);
        let (bytes, room) = self.pool.pair(frame, &answer);
        let written = FrameView::parse(bytes).ok().and_then(|view| {
            let Network::Ipv4(packet) = view.network() else {
                return None;
            };
            let (quoted, sender) = (&bytes[HEADER_LEN..], view.source.mac());
            slow::icmp::error(room, reason, &packet, quoted, sender, speaker, mtu)
        });
        match written {
            Some(len) if self.may_speak(now) => {
                answer.set_len(len);
                self.originate(answer, ingress);
            }
            _ => self.pool.release(answer),
        }
    }

    /// The rate limit of ICMP errors: RFC 1812 4.3.2.8.
    fn may_speak(&mut self, now: Tick) -> bool {
        let second = now.0 / 1000;
        if second != self.errors_second {
            (self.errors_second, self.errors_left) = (second, ERRORS_PER_SECOND);
        }
        let may = self.errors_left > 0;
        self.errors_left = self.errors_left.saturating_sub(1);
        may
    }

    /// What time brings: questions for neighbours, frames that waited in vain, stations that fell
    /// silent.
    #[cold]
    pub(super) fn chores(&mut self, tables: &Tables, now: Tick) {
        self.chores_due = now + CHORES_MS;
        let age = AGE_SECONDS_DEFAULT;
        (_, self.age_cursor) = self.fdb.age(self.age_cursor, AGE_SLOTS, age, now);
        self.ask_neighbours(tables, now);
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
