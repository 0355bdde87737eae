//! Next hops, from the worker's side: frames that wait for one, questions, and answers.
//!
//! In: frames without a hardware address to go to, replies of neighbours, and the time.
//! Out: questions in the node's own name; frames that waited and may go on, or died waiting.
//! Never: in the way of a frame whose next hop is known.

use std::net::IpAddr;

use super::Worker;
use super::refuse::speaker;
use crate::addr::{Mac, PortId};
use crate::clock::Tick;
use crate::port::Port;
use crate::slow;
use crate::tables::Tables;
use crate::tables::neighbour::{Question, Refused, Waiting};
use crate::verdict::DropReason;

impl<P: Port> Worker<P> {
    /// Holds a frame until its next hop has answered.
    pub(super) fn wait(
        &mut self,
        next_hop: IpAddr,
        egress: PortId,
        frame: Waiting,
        tables: &Tables,
        now: Tick,
    ) {
        match self.neighbours.wait(next_hop, egress, frame, now) {
            Ok(()) => self.ask_neighbours(tables, now),
            Err(Refused(Waiting { frame, ingress })) => {
                self.drop(frame, ingress, DropReason::NeighbourQueueFull);
            }
        }
    }

    /// A neighbour told its address: what waited for it goes through `decide` once more.
    pub(super) fn hear(&mut self, address: IpAddr, mac: Mac, tables: &Tables, now: Tick) {
        for Waiting { frame, ingress } in self.neighbours.hear(address, mac, now) {
            self.pass(frame, ingress, tables, now);
        }
    }

    /// Asks what is due, and lets go what waited in vain.
    pub(super) fn ask_neighbours(&mut self, tables: &Tables, now: Tick) {
        if self.neighbours.is_empty() {
            return;
        }
        let mut questions = std::mem::take(&mut self.questions);
        let mut failed = std::mem::take(&mut self.failed);
        self.neighbours.tick(now, &mut questions, &mut failed);
        for question in questions.drain(..) {
            self.ask(&question, tables);
        }
        for Waiting { frame, ingress } in failed.drain(..) {
            self.refuse(frame, DropReason::NeighbourFailed, ingress, tables, now);
        }
        (self.questions, self.failed) = (questions, failed);
    }

    /// Asks for a neighbour's hardware address in the node's own name.
    fn ask(&mut self, question: &Question, tables: &Tables) {
        let (IpAddr::V4(target), Some(asker)) =
            (question.address, speaker(question.egress, tables))
        else {
            return;
        };
        let Some(mut frame) = self.pool.take() else {
            return;
        };
        match slow::arp::question(self.pool.room(&frame), question, target, asker) {
            Some(len) => {
                frame.set_len(len);
                self.originate(frame, question.egress);
            }
            None => self.pool.release(frame),
        }
    }
}
