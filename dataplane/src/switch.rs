//! A switch that runs: a worker on a thread of its own, and the handle that control holds.
//!
//! In: tables, ports, and orders, over a bounded lock-free queue. Out: counters and views.
//! Never: touches a frame. The clock is read here, between breaths, and nowhere else.
//!
//! The thread spins for a short, bounded time after its last frame, since the next one of a busy
//! flow is microseconds away, and then sleeps until a port is readable or an order arrives.

use std::io;
use std::os::fd::RawFd;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};
use crossbeam::queue::ArrayQueue;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::addr::PortId;
use crate::buffer::FRAME_MAX;
use crate::clock::Monotonic;
use crate::port::Port;
use crate::snapshot::Publisher;
use crate::stats::{Board, Counts};
use crate::sync::Arc;
use crate::tables::Tables;
use crate::tables::fdb::{CAPACITY_DEFAULT, Fdb};
use crate::worker::Worker;

/// How long the thread looks again before it sleeps: a round trip between two pods of one node is
/// 10 to 20 microseconds, so a flow that is being answered is caught awake.
pub const SPIN_DEFAULT: Duration = Duration::from_micros(50);

/// Breaths between two looks at the readiness queue, which costs about as much as reading a frame.
/// A port that becomes ready waits for at most so many turns of each busy one.
const BREATHS_MAX: usize = 4;

/// Sleep at most this long, so that timers of the slow path run.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// Orders that may wait at once. Control sends them one by one and waits for each, from a handful
/// of threads.
const ORDERS_MAX: usize = 64;

/// The waker's place among the readiness tokens; ports use their own numbers.
const WAKER: Token = Token(PortId::COUNT_MAX);

/// How a switch is to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of its thread; the kernel keeps 15 bytes of it.
    pub name: String,
    /// How long to look again before sleeping.
    pub spin: Duration,
    /// Stations for which the FDB has room.
    pub fdb_capacity: usize,
    /// Stirs the FDB's hash. Random on a node, fixed in a simulation.
    pub seed: u64,
}

impl Options {
    /// The defaults, with a random seed.
    #[must_use]
    pub fn named(name: &str) -> Options {
        use std::hash::{BuildHasher, Hasher, RandomState};
        Options {
            name: name.to_owned(),
            spin: SPIN_DEFAULT,
            fdb_capacity: CAPACITY_DEFAULT,
            seed: RandomState::new().build_hasher().finish(),
        }
    }
}

/// What control may ask of the thread.
enum Order<P> {
    Attach(PortId, P, Sender<io::Result<()>>),
    Detach(PortId, Sender<Option<P>>),
    Stop,
}

/// A running switch. Dropping it stops the thread.
#[derive(Debug)]
pub struct Switch<P> {
    orders: Arc<ArrayQueue<Order<P>>>,
    waker: Arc<Waker>,
    publisher: Publisher<Tables>,
    board: Arc<Board>,
    fdb: Arc<Fdb>,
    thread: Option<JoinHandle<()>>,
}

impl<P: Port + Send + 'static> Switch<P> {
    /// Starts a switch without ports.
    ///
    /// # Errors
    /// What making the readiness queue or the thread says.
    pub fn start(options: &Options, tables: Tables) -> io::Result<Switch<P>> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let orders = Arc::new(ArrayQueue::new(ORDERS_MAX));
        let publisher = Publisher::new(tables);
        let fdb = Arc::new(Fdb::new(options.fdb_capacity, options.seed));
        let worker = Worker::new(publisher.reader(), Arc::clone(&fdb), FRAME_MAX);
        let board = Arc::clone(worker.board());
        let runner = Runner {
            worker,
            poll,
            orders: Arc::clone(&orders),
            spin: options.spin,
            clock: Monotonic::start(),
        };
        let thread = std::thread::Builder::new()
            .name(options.name.clone())
            .spawn(|| runner.run())?;
        Ok(Switch {
            orders,
            waker,
            publisher,
            board,
            fdb,
            thread: Some(thread),
        })
    }

    /// Hands a port to the switch. It moves frames once the tables have a row for it.
    ///
    /// # Errors
    /// What registering its descriptor says; `BrokenPipe` if the thread is gone.
    pub fn attach(&self, id: PortId, port: P) -> io::Result<()> {
        let (done, answer) = bounded(1);
        self.order(Order::Attach(id, port, done))?;
        answer.recv().map_err(|_| gone())?
    }

    /// Takes a port back.
    ///
    /// # Errors
    /// `BrokenPipe` if the thread is gone.
    pub fn detach(&self, id: PortId) -> io::Result<Option<P>> {
        let (done, answer) = bounded(1);
        self.order(Order::Detach(id, done))?;
        answer.recv().map_err(|_| gone())
    }

    /// Replaces the tables, whole, between two batches.
    pub fn publish(&mut self, tables: Tables) {
        self.publisher.publish(tables);
    }

    /// The tables in force.
    #[must_use]
    pub fn tables(&self) -> Arc<Tables> {
        self.publisher.current()
    }

    /// The counters.
    #[must_use]
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// The learned stations.
    #[must_use]
    pub fn fdb(&self) -> &Fdb {
        &self.fdb
    }

    /// Stops the thread, and returns the final counters, which balance.
    ///
    /// # Errors
    /// `BrokenPipe` if the thread had died of a broken law.
    pub fn stop(mut self) -> io::Result<Counts> {
        self.halt()?;
        Ok(self.board.counts())
    }

    fn halt(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        let sent = self.send(Order::Stop);
        thread.join().map_err(|_| gone())?;
        sent
    }

    fn order(&self, order: Order<P>) -> io::Result<()> {
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(gone());
        }
        self.send(order)
    }

    fn send(&self, order: Order<P>) -> io::Result<()> {
        let full = || io::Error::new(io::ErrorKind::WouldBlock, "too many orders wait");
        self.orders.push(order).map_err(|_| full())?;
        self.waker.wake()
    }
}

impl<P> Drop for Switch<P> {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.orders.push(Order::Stop);
            let _ = self.waker.wake();
            let _ = thread.join();
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the switch's thread is gone")
}

/// What lives on the thread.
struct Runner<P> {
    worker: Worker<P>,
    poll: Poll,
    orders: Arc<ArrayQueue<Order<P>>>,
    spin: Duration,
    clock: Monotonic,
}

impl<P: Port> Runner<P> {
    fn run(mut self) {
        let mut events = Events::with_capacity(64);
        let mut busy_until = self.clock.elapsed();
        loop {
            let busy = self.breathe();
            let now = self.clock.elapsed();
            if busy {
                busy_until = now + self.spin;
            }
            let patience = if now < busy_until {
                Duration::ZERO
            } else {
                SLEEP_MAX
            };
            if !self.listen(&mut events, patience) {
                return;
            }
        }
    }

    /// Breathes while ports have more, but not so long that others go unheard. True if frames
    /// were moved or wait.
    fn breathe(&mut self) -> bool {
        let mut busy = false;
        for _ in 0..BREATHS_MAX {
            let breath = self.worker.breathe(self.clock.tick());
            busy |= breath.frames > 0 || breath.more;
            if !breath.more {
                break;
            }
        }
        busy
    }

    /// Waits for ports and orders. False when told to stop.
    fn listen(&mut self, events: &mut Events, patience: Duration) -> bool {
        if let Err(error) = self.poll.poll(events, Some(patience)) {
            assert!(
                error.kind() == io::ErrorKind::Interrupted,
                "the readiness queue broke: {error}"
            );
            return true;
        }
        let mut ordered = false;
        for event in events.iter() {
            match PortId::new(event.token().0) {
                Some(port) => self.worker.wake(port),
                None => ordered = true,
            }
        }
        !ordered || self.obey()
    }

    fn obey(&mut self) -> bool {
        while let Some(order) = self.orders.pop() {
            match order {
                Order::Attach(id, port, done) => {
                    let _ = done.send(self.attach(id, port));
                }
                Order::Detach(id, done) => {
                    let _ = done.send(self.detach(id));
                }
                Order::Stop => return false,
            }
        }
        true
    }

    fn attach(&mut self, id: PortId, port: P) -> io::Result<()> {
        self.detach(id);
        if let Some(descriptor) = port.descriptor() {
            self.register(descriptor, id)?;
        }
        self.worker.attach(id, port);
        Ok(())
    }

    fn detach(&mut self, id: PortId) -> Option<P> {
        let port = self.worker.detach(id)?;
        if let Some(descriptor) = port.descriptor() {
            // A descriptor that is already gone has left the queue by itself.
            let _ = self.poll.registry().deregister(&mut SourceFd(&descriptor));
        }
        Some(port)
    }

    fn register(&self, descriptor: RawFd, id: PortId) -> io::Result<()> {
        let token = Token(id.index());
        self.poll
            .registry()
            .register(&mut SourceFd(&descriptor), token, Interest::READABLE)
    }
}
