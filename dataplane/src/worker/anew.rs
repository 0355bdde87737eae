//! A worker begins anew, in the memory that it has.
//!
//! In: a worker with any history. Out: one that knows nothing, with the same ports.
//! Never: allocates: to make a worker touches a megabyte, which those who need thousands of them
//! (fuzzers, simulations) would wait for, and for little else.

use super::Worker;
use crate::addr::PortSet;
use crate::clock::Tick;
use crate::port::Port;
use crate::sync::Arc;
use crate::tables::fdb::Fdb;
use crate::tables::neighbour::Neighbours;
use crate::tables::returns::Returns;

impl<P: Port> Worker<P> {
    /// Forgets all that is its own but its ports, as a new worker with these ports, and shares
    /// `fdb` and `returns` from now on. Counters begin at nought again for whoever reads them. What
    /// lies in the buffers stays there, as it does between two frames.
    ///
    /// # Panics
    /// If frames are lost, as in [`Worker::breathe`].
    pub fn begin_anew(&mut self, fdb: Arc<Fdb>, returns: Arc<Returns>) {
        self.assert_nothing_lost();
        // Every field by its name, so that none is forgotten here.
        let Worker {
            ports,
            ready,
            recent,
            lately,
            floods,
            pool,
            batch,
            ahead: _, // is written before it is read, for each burst
            spare,
            held,
            unflushed,
            flushed,
            reader,
            tables,
            fdb: stations,
            neighbours,
            returns: conversations,
            gossip: _,
            told,
            board,
            reporter,
            announcements,
            announced,
            questions,
            failed,
            chores_due,
            age_cursor,
            returns_cursor,
            limits,
            memory,
            fragments,
            errors_sent,
            captures,
            strangers,
        } = self;
        for set in [&mut *ready, recent, lately, floods, unflushed] {
            *set = PortSet::default();
        }
        pool.take_all_back();
        for frames in [batch, spare, held] {
            frames.clear();
        }
        flushed.clear();
        *tables = Arc::clone(reader.refresh());
        (*stations, *conversations) = (fdb, returns);
        *neighbours = Neighbours::default();
        board.begin_anew(ports.len());
        reporter.begin_anew();
        announcements.clear();
        questions.clear();
        failed.clear();
        (*told, *announced, *errors_sent) = (false, 0, 0);
        (*chores_due, *age_cursor, *returns_cursor) = (Tick::default(), 0, 0);
        limits.begin_anew();
        memory.begin_anew(ports.len());
        fragments.begin_anew();
        captures.clear();
        strangers.begin_anew();
        self.wake_all();
    }
}
