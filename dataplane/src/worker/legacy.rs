//! What a worker leaves to the one that goes on in its place, in another process.
//!
//! In: nothing. Out: whom it knows, copies of the frames that wait, its counters; and a worker that
//! has taken them over.
//! Never: on a frame's way. The worker that leaves them may go on all the same.
//!
//! Guards begin anew: their memory is of seconds.

use std::io;
use std::os::fd::OwnedFd;

use super::Worker;
use crate::addr::PortId;
use crate::clock::Tick;
use crate::frame::offload::{HEADER_LEN, Offload};
use crate::port::Port;
use crate::stats::Ledger;
use crate::sync::Arc;
use crate::tables::neighbour::Entry;

/// A frame that waits for a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranded {
    /// The port it came in by.
    pub ingress: PortId,
    /// Its offload header, and the frame behind it.
    pub bytes: Vec<u8>,
}

/// What a worker leaves.
#[derive(Clone, Debug, Default)]
pub struct Legacy {
    /// The next hops it knows.
    pub neighbours: Vec<Entry>,
    /// The frames that wait.
    pub waiting: Vec<Stranded>,
    /// Its counters, without those frames.
    pub ledger: Ledger,
}

impl<P: Port> Worker<P> {
    /// What it would leave now. What is to be announced is, so that nobody else has to.
    #[cold]
    pub fn legacy(&mut self) -> Legacy {
        let tables = Arc::clone(&self.tables);
        while !self.announcements.is_empty() {
            self.announce(&tables);
        }
        self.board.queued(self.neighbours.waiting());
        let mut legacy = Legacy {
            neighbours: self.neighbours.entries().collect(),
            waiting: Vec::with_capacity(self.neighbours.waiting()),
            ledger: self.board.ledger(),
        };
        for waiting in self.neighbours.all_waiting() {
            legacy.ledger.hand_on(waiting.ingress, &waiting.frame);
            legacy.waiting.push(Stranded {
                ingress: waiting.ingress,
                bytes: self.pool.with_header(&waiting.frame).to_vec(),
            });
        }
        legacy
    }

    /// Its ports' queues once more, for another process.
    ///
    /// # Errors
    /// As [`Port::duplicate`].
    #[cold]
    pub fn duplicates(&self) -> io::Result<Vec<OwnedFd>> {
        let ports = self.ports.iter().flatten();
        ports
            .filter_map(|port| port.duplicate().transpose())
            .collect()
    }

    /// Takes over whom another knew.
    #[cold]
    pub fn recall(&mut self, neighbours: &[Entry], now: Tick) {
        for entry in neighbours {
            self.neighbours.recall(entry, now);
        }
    }

    /// Takes over frames that waited with another: they go through `decide` once more.
    #[cold]
    pub fn resume(&mut self, waiting: &[Stranded], now: Tick) {
        let tables = self.refresh(now);
        for Stranded { ingress, bytes } in waiting {
            let Some(offload) = Offload::read(bytes) else {
                continue;
            };
            let Some(mut frame) = self.pool.take() else {
                return;
            };
            let (room, bytes) = (self.pool.room(&frame), &bytes[HEADER_LEN..]);
            let Some(room) = room.get_mut(..bytes.len()) else {
                self.pool.release(frame);
                continue;
            };
            room.copy_from_slice(bytes);
            frame.set_len(bytes.len());
            frame.offload = offload;
            self.board.received(*ingress, std::slice::from_ref(&frame));
            self.pass_again(frame, *ingress, &tables, now);
        }
        self.flush();
    }

    /// Goes on counting from where another came to.
    pub fn carry_on(&mut self, ledger: &Ledger) {
        self.board.carry_on(ledger);
    }
}
