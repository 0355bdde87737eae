//! A switch that runs: its workers on threads of their own, and the handle that control holds.
//!
//! In: tables, ports and orders. Out: counters and views.
//! Never: touches a frame.
//!
//! ```text
//! control --orders--> lane 0: readiness, clock, worker 0 --\
//!         --orders--> lane 1: readiness, clock, worker 1 --- one FDB, one set of tables
//! ```
//!
//! Each worker has a queue of every port, so a frame never changes threads.

mod cpu;
mod lane;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::addr::PortId;
use crate::buffer::FRAME_MAX;
use crate::capture::Capture;
use crate::conflict::Conflict;
use crate::gossip::Gossip;
use crate::port::Port;
use crate::port::sys::sched;
use crate::snapshot::Publisher;
use crate::stats::{Board, Counts, Drops, Ledger, PortCounts};
use crate::sync::Arc;
use crate::tables::Tables;
use crate::tables::fdb::{CAPACITY_DEFAULT, Fdb};
use crate::tables::neighbour::Entry;
use crate::tables::returns::{self, Returns};
use crate::worker::{Legacy, Stranded, Worker};
pub use cpu::Cpu;
use lane::{Door, Lane};

/// How long a thread looks again before it sleeps: a round trip between two pods of one node is
/// 10 to 20 microseconds, so a flow that is being answered is caught awake.
pub const SPIN_DEFAULT: Duration = Duration::from_micros(50);

/// Whether the kernel lets a worker's thread have a short slice (Linux 6.12 and later do).
#[must_use]
pub fn has_short_slices() -> bool {
    sched::is_known()
}

/// How a switch is to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of its threads; the kernel keeps 15 bytes of it.
    pub name: String,
    /// Workers. One is best on two cores, where each further one takes a core from the pods.
    pub workers: usize,
    /// Where they are to stay: worker `n` on the `n`th of these, from the first again behind the
    /// last. None: wherever the kernel puts them.
    pub cpus: Vec<Cpu>,
    /// How long to look again before sleeping.
    pub spin: Duration,
    /// Stations for which the FDB has room.
    pub fdb_capacity: usize,
    /// Conversations that came through the host for which there is room.
    pub returns_capacity: usize,
    /// Where its clock begins: at nought, unless it goes on in the place of another.
    pub elapsed: Duration,
    /// Stirs the hashes of FDB and conversations. Random on a node, fixed in a simulation.
    pub seed: u64,
}

impl Options {
    /// The defaults, with a random seed.
    #[must_use]
    pub fn named(name: &str) -> Options {
        use std::hash::{BuildHasher, Hasher, RandomState};
        Options {
            name: name.to_owned(),
            workers: 1,
            cpus: Vec::new(),
            spin: SPIN_DEFAULT,
            fdb_capacity: CAPACITY_DEFAULT,
            returns_capacity: returns::CAPACITY_DEFAULT,
            elapsed: Duration::ZERO,
            seed: RandomState::new().build_hasher().finish(),
        }
    }
}

/// Lets captures look at the frames of a switch, from any thread, whoever holds the switch itself.
#[derive(Debug)]
pub struct Watcher<P>(Vec<Door<P>>);

impl<P> Watcher<P> {
    /// Lets `capture` look at every frame, until [`Watcher::unwatch`].
    ///
    /// # Errors
    /// `StorageFull` if [`CAPTURES_MAX`](crate::capture::CAPTURES_MAX) look already, `BrokenPipe` if
    /// a thread is gone.
    pub fn watch(&self, capture: &Arc<Capture>) -> io::Result<()> {
        for door in &self.0 {
            if !door.watch(Arc::clone(capture))? {
                self.unwatch(capture)?;
                return Err(io::Error::new(
                    io::ErrorKind::StorageFull,
                    "too many captures",
                ));
            }
        }
        Ok(())
    }

    /// Lets `capture` look no more; what it has seen is still there to read.
    ///
    /// # Errors
    /// `BrokenPipe` if a thread is gone.
    pub fn unwatch(&self, capture: &Arc<Capture>) -> io::Result<()> {
        self.0
            .iter()
            .try_for_each(|door| door.unwatch(Arc::clone(capture)))
    }
}

/// A running switch. Dropping it stops its threads.
#[derive(Debug)]
pub struct Switch<P> {
    lanes: Vec<Lane<P>>,
    publisher: Publisher<Tables>,
    fdb: Arc<Fdb>,
    returns: Arc<Returns>,
}

impl<P: Port + Send + 'static> Switch<P> {
    /// Starts a switch without ports.
    ///
    /// # Errors
    /// What making a readiness queue or a thread says.
    ///
    /// # Panics
    /// If it is to have no worker.
    pub fn start(options: &Options, tables: Tables) -> io::Result<Switch<P>> {
        assert!(options.workers > 0, "a switch needs a worker");
        let publisher = Publisher::new(tables);
        let fdb = Arc::new(Fdb::new(options.fdb_capacity, options.seed));
        let returns = Arc::new(Returns::new(options.returns_capacity, options.seed));
        let mut lanes: Vec<Lane<P>> = Vec::new();
        for gossip in Gossip::circle(options.workers) {
            let mut worker = Worker::new(publisher.reader(), Arc::clone(&fdb), FRAME_MAX);
            worker.join(gossip);
            worker.share_returns(Arc::clone(&returns));
            lanes.push(Lane::open(worker)?);
        }
        let wakers: Vec<_> = lanes.iter().map(Lane::waker).collect();
        let mut cpus = options.cpus.iter().copied().cycle();
        for lane in &mut lanes {
            lane.start(options, cpus.next(), &wakers)?;
        }
        Ok(Switch {
            lanes,
            publisher,
            fdb,
            returns,
        })
    }

    /// Hands a port to a switch with one worker. It moves frames once the tables have a row for it.
    ///
    /// # Errors
    /// As [`Switch::attach_queues`].
    pub fn attach(&self, id: PortId, port: P) -> io::Result<()> {
        self.attach_queues(id, vec![port])
    }

    /// Hands the queues of a port to the switch, one for each worker.
    ///
    /// # Errors
    /// `InvalidInput` for another number of queues than workers, what registering a descriptor
    /// says, or `BrokenPipe` if a thread is gone.
    pub fn attach_queues(&self, id: PortId, queues: Vec<P>) -> io::Result<()> {
        self.attach_all(vec![(id, queues)])
    }

    /// Hands several ports to the switch at once: a worker moves no frame of one before it has them
    /// all, so what waited in one for another is not lost.
    ///
    /// # Errors
    /// As [`Switch::attach_queues`].
    pub fn attach_all(&self, ports: Vec<(PortId, Vec<P>)>) -> io::Result<()> {
        let workers = self.lanes.len();
        if let Some((_, queues)) = ports.iter().find(|(_, queues)| queues.len() != workers) {
            let why = format!("{} queues for {workers} workers", queues.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let mut shares: Vec<Vec<(PortId, P)>> = self.lanes.iter().map(|_| Vec::new()).collect();
        for (id, queues) in ports {
            for (share, queue) in shares.iter_mut().zip(queues) {
                share.push((id, queue));
            }
        }
        let mut lanes = self.lanes.iter().zip(shares);
        lanes.try_for_each(|(lane, share)| lane.attach(share))
    }

    /// Takes a port back, with all its queues.
    ///
    /// # Errors
    /// `BrokenPipe` if a thread is gone.
    pub fn detach(&self, id: PortId) -> io::Result<Vec<P>> {
        let queues: io::Result<Vec<Option<P>>> =
            self.lanes.iter().map(|lane| lane.detach(id)).collect();
        Ok(queues?.into_iter().flatten().collect())
    }

    /// By which captures come and go.
    #[must_use]
    pub fn watcher(&self) -> Watcher<P> {
        Watcher(self.lanes.iter().map(Lane::door).collect())
    }

    /// Replaces the tables, whole, between two batches of each worker.
    pub fn publish(&mut self, tables: Tables) {
        self.publisher.publish(tables);
    }

    /// The tables in force.
    #[must_use]
    pub fn tables(&self) -> Arc<Tables> {
        self.publisher.current()
    }

    /// The counters of all workers.
    #[must_use]
    pub fn board(&self) -> Boards {
        Boards(self.lanes.iter().map(Lane::board).collect())
    }

    /// Everything that is counted, with the law holding in it while frames move.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        let each = self.ledgers();
        each.iter().fold(Ledger::default(), Ledger::plus)
    }

    /// The same of each worker.
    #[must_use]
    pub fn ledgers(&self) -> Vec<Ledger> {
        self.lanes.iter().map(Lane::ledger).collect()
    }

    /// The learned stations.
    #[must_use]
    pub fn fdb(&self) -> &Fdb {
        &self.fdb
    }

    /// Who carried the conversations of late.
    #[must_use]
    pub fn returns(&self) -> &Returns {
        &self.returns
    }

    /// The next hops that each worker knows, by worker.
    ///
    /// # Errors
    /// `BrokenPipe` if a thread is gone.
    pub fn neighbours(&self) -> io::Result<Vec<Vec<Entry>>> {
        self.lanes.iter().map(Lane::neighbours).collect()
    }

    /// The queues of all ports once more, by worker, for a process that goes on in this one's place.
    ///
    /// # Errors
    /// `EMFILE`, or `BrokenPipe` if a thread is gone.
    pub fn duplicates(&self) -> io::Result<Vec<Vec<OwnedFd>>> {
        self.lanes.iter().map(Lane::duplicates).collect()
    }

    /// Has each worker rest after its next breath: from then on frames wait in their ports, and
    /// nobody here reads them until [`Switch::go`]. Gives what each would leave to another.
    ///
    /// # Errors
    /// `BrokenPipe` if a thread is gone; then those that are not go on.
    pub fn pause(&self) -> io::Result<Vec<Legacy>> {
        let told: io::Result<Vec<_>> = self.lanes.iter().map(Lane::pause).collect();
        let paused = told.and_then(|told| {
            let lanes = self.lanes.iter().zip(&told);
            lanes.map(|(lane, answer)| lane.wait(answer)).collect()
        });
        if paused.is_err() {
            let _ = self.go();
        }
        paused
    }

    /// Has the workers move frames again.
    ///
    /// # Errors
    /// `WouldBlock` if too many orders wait.
    pub fn go(&self) -> io::Result<()> {
        self.lanes.iter().try_for_each(Lane::go)
    }

    /// Has the worker at place `worker` take over whom one of another switch knew.
    ///
    /// # Errors
    /// `NotFound` if there is no such worker, `BrokenPipe` if its thread is gone.
    pub fn recall(&self, worker: usize, neighbours: Vec<Entry>) -> io::Result<()> {
        self.lane(worker)?.recall(neighbours)
    }

    /// Has the worker at place `worker` take over frames that waited with one of another switch.
    ///
    /// # Errors
    /// As [`Switch::recall`].
    pub fn resume(&self, worker: usize, waiting: Vec<Stranded>) -> io::Result<()> {
        self.lane(worker)?.resume(waiting)
    }

    /// Has the worker at place `worker` go on counting from where one of another switch came to.
    ///
    /// # Errors
    /// As [`Switch::recall`], or `InvalidData` for books that do not balance.
    pub fn carry_on(&self, worker: usize, ledger: Ledger) -> io::Result<()> {
        if !ledger.counts.is_balanced() || ledger.counts.queued > 0 {
            let why = format!("these books do not balance: {}", ledger.counts);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        self.lane(worker)?.carry_on(ledger)
    }

    fn lane(&self, worker: usize) -> io::Result<&Lane<P>> {
        let none = || io::Error::new(io::ErrorKind::NotFound, format!("no worker {worker}"));
        self.lanes.get(worker).ok_or_else(none)
    }

    /// Takes the oldest record of a claim of another port's address that nobody took yet.
    #[must_use]
    pub fn take_conflict(&self) -> Option<Conflict> {
        self.lanes.iter().find_map(|lane| lane.conflicts().take())
    }

    /// False if a thread has died of a broken law: its frames are moved no more.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.lanes.iter().all(Lane::is_alive)
    }

    /// Stops the threads, and returns the final counters, which balance.
    ///
    /// # Errors
    /// `BrokenPipe` if a thread had died of a broken law.
    pub fn stop(mut self) -> io::Result<Counts> {
        let halted: Vec<io::Result<()>> = self.lanes.iter_mut().map(Lane::halt).collect();
        halted.into_iter().collect::<io::Result<()>>()?;
        Ok(self.board().counts())
    }
}

/// The counters of all workers of a switch, summed as they are read. They outlive the switch.
#[derive(Clone, Debug)]
pub struct Boards(Vec<Arc<Board>>);

impl Boards {
    /// The totals.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0
            .iter()
            .map(|board| board.counts())
            .fold(Counts::default(), Counts::plus)
    }

    /// Frames received that stood for several segments.
    #[must_use]
    pub fn super_frames(&self) -> u64 {
        self.0.iter().map(|board| board.super_frames()).sum()
    }

    /// What guards objected to and let pass, since they only observe.
    #[must_use]
    pub fn observed(&self) -> Drops {
        self.0
            .iter()
            .map(|board| board.observed())
            .fold(Drops::default(), |all, one| all.plus(&one))
    }

    /// ICMP errors that were due, and not sent: a rate limit said so, or no buffer was free.
    #[must_use]
    pub fn errors_suppressed(&self) -> u64 {
        self.0.iter().map(|board| board.errors_suppressed()).sum()
    }

    /// The counters of one port.
    #[must_use]
    pub fn port(&self, port: PortId) -> PortCounts {
        self.0
            .iter()
            .map(|board| board.port(port))
            .fold(PortCounts::default(), PortCounts::plus)
    }
}

#[cfg(test)]
mod tests;
