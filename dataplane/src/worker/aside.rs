//! Beside the walk: what a frame gives rise to when it cannot simply go on.
//!
//! In: a frame that `decide` punted, and the time. Out: answers, and frames that wait.
//! Never: in the way of a frame that has a port to leave by. It is bounded, and may build frames.

use super::{AGE_SLOTS, CHORES_MS, Worker};
use crate::addr::PortId;
use crate::buffer::Frame;
use crate::capture::Fate;
use crate::clock::Tick;
use crate::conflict::Party;
use crate::frame::offload::Offload;
use crate::frame::{FrameView, Network};
use crate::gossip::Heard;
use crate::port::Port;
use crate::slow;
use crate::slow::nd::Holder;
use crate::tables::Tables;
use crate::tables::fdb::AGE_SECONDS_DEFAULT;
use crate::tables::neighbour::Waiting;
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
            (Punt::HearNeighbour { address, told }, _) => {
                self.board.punted();
                self.pool.release(frame);
                self.told |= self.gossip.tell(Heard { address, told });
                self.hear(address, told, tables, now);
            }
            (Punt::Defend { address, holder }, _) => {
                let claimer = Party {
                    port: ingress,
                    mac: asker,
                };
                self.defend(address, holder, claimer, tables, now);
                self.drop(frame, ingress, DropReason::AddressConflict);
            }
            (Punt::AnswerArp { mac }, Network::Arp(question)) => {
                self.board.punted();
                let len = slow::arp::answer(self.pool.room(&frame), question, mac);
                frame.set_len(len);
                self.originate(frame, ingress);
            }
            (Punt::AnswerSolicitation { mac, router }, Network::Ipv6(_)) => {
                let question = view.discovery(true);
                self.board.punted();
                let written = question.ok().and_then(|question| {
                    let holder = Holder {
                        address: question.target,
                        mac,
                        router,
                    };
                    slow::nd::answer(self.pool.room(&frame), &question, asker, holder)
                });
                match written {
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
        self.show(&frame, None, Fate::Originated { egress });
        let taken = self.transmit(&mut frame, egress);
        self.settle(frame, taken);
    }

    /// What time brings: questions for neighbours, frames that waited in vain, stations and
    /// conversations that fell silent.
    #[cold]
    pub(super) fn chores(&mut self, tables: &Tables, now: Tick) {
        self.chores_due = now + CHORES_MS;
        let age = AGE_SECONDS_DEFAULT;
        (_, self.age_cursor) = self.fdb.age(self.age_cursor, AGE_SLOTS, age, now);
        self.returns_cursor = self.returns.age(self.returns_cursor, AGE_SLOTS, now);
        self.ask_neighbours(tables, now);
        self.forget_recent();
    }
}
