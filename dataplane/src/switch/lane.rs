//! One thread of a switch: a worker, its readiness queue, its clock, and the orders it obeys.
//!
//! In: orders, over a bounded lock-free queue. Out: an answer to each, and moved frames.
//! Never: waits for control; it reads the clock between breaths and nowhere else.
//!
//! The thread spins for a short, bounded time after its last frame, since the next one of a busy
//! flow is microseconds away, and then sleeps until a port is readable or an order arrives.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use crossbeam::queue::ArrayQueue;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use std::convert::Infallible;

use super::{Cpu, Options};
use crate::addr::PortId;
use crate::capture::Capture;
use crate::clock::Monotonic;
use crate::conflict::Conflicts;
use crate::facility::Facility;
use crate::port::sys::sched;
use crate::port::{BURST_FRAMES, Port};
use crate::stats::{Board, Ledger};
use crate::sync::Arc;
use crate::tables::neighbour::Entry;
use crate::worker::{Legacy, Stranded, Worker};

/// Breaths in a round, if none of them moved a burst: between two rounds others are asked. A
/// port that becomes ready waits for at most so many turns of each busy one.
const BREATHS_MAX: usize = 4;

/// Frames between two looks at the readiness queue, which costs about as much as reading one: so
/// nobody waits for more than a burst of each port that floods.
const FRAMES_MAX: usize = BURST_FRAMES;

/// Rounds of a spinning thread between two looks at the readiness queue; in the others it asks the
/// ports that spoke lately, where the next frame most likely is.
const ROUNDS_MAX: usize = 4;

/// The shortest slice that the kernel grants; its usual one is a millisecond or more. Who asks for less at a
/// time has its turn sooner where others want the same processor. The share stays the same.
const SLICE: Duration = Duration::from_micros(100);

/// Sleep at most this long, so that timers of the slow path run.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// Orders that may wait at once. Control sends them one by one and waits for each, from a handful
/// of threads.
const ORDERS_MAX: usize = 64;

/// How often control, waiting for an answer, looks whether the thread still lives.
const LOOK: Duration = Duration::from_millis(50);

/// The waker's place among the readiness tokens; ports use their own numbers.
const WAKER: Token = Token(PortId::COUNT_MAX);

/// What control may ask of the thread.
enum Order<P> {
    Attach(Vec<(PortId, P)>, Sender<io::Result<()>>),
    Detach(PortId, Sender<Option<P>>),
    Watch(Arc<Capture>, Sender<bool>),
    Unwatch(Arc<Capture>, Sender<()>),
    Neighbours(Sender<Vec<Entry>>),
    Duplicate(Sender<io::Result<Vec<OwnedFd>>>),
    Recall(Vec<Entry>, Sender<()>),
    Resume(Vec<Stranded>, Sender<()>),
    CarryOn(Box<Ledger>, Sender<()>),
    Ledger(Sender<Ledger>),
    Pause(Sender<Legacy>),
    Go,
    Stop,
}

/// What the thread does after an order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Frames,
    Rest,
    End,
}

/// Where orders are handed in. There may be several of them to a thread.
#[derive(Debug)]
pub(super) struct Door<P> {
    orders: Arc<ArrayQueue<Order<P>>>,
    waker: Arc<Waker>,
    /// Nothing ever comes by it: it closes when the thread ends.
    life: Receiver<Infallible>,
}

impl<P> Clone for Door<P> {
    fn clone(&self) -> Door<P> {
        Door {
            orders: Arc::clone(&self.orders),
            waker: Arc::clone(&self.waker),
            life: self.life.clone(),
        }
    }
}

/// Control's end.
#[derive(Debug)]
pub(super) struct Lane<P> {
    door: Door<P>,
    board: Arc<Board>,
    conflicts: Conflicts,
    /// Until it is started.
    parts: Option<(Worker<P>, Poll, Sender<Infallible>)>,
    thread: Option<JoinHandle<()>>,
}

impl<P> Door<P> {
    /// Lets `capture` look. False if as many look as may.
    pub(super) fn watch(&self, capture: Arc<Capture>) -> io::Result<bool> {
        self.ask(|done| Order::Watch(capture, done))
    }

    pub(super) fn unwatch(&self, capture: Arc<Capture>) -> io::Result<()> {
        self.ask(|done| Order::Unwatch(capture, done))
    }

    /// Sends an order, and waits for its answer.
    fn ask<T>(&self, order: impl FnOnce(Sender<T>) -> Order<P>) -> io::Result<T> {
        let answer = self.order(order)?;
        self.wait(&answer)
    }

    fn order<T>(&self, order: impl FnOnce(Sender<T>) -> Order<P>) -> io::Result<Receiver<T>> {
        let (done, answer) = bounded(1);
        self.send(order(done))?;
        Ok(answer)
    }

    fn send(&self, order: Order<P>) -> io::Result<()> {
        let full = || io::Error::new(io::ErrorKind::WouldBlock, "too many orders wait");
        self.orders.push(order).map_err(|_| full())?;
        self.waker.wake()
    }

    /// The answer to an order, unless the thread died before it gave one.
    fn wait<T>(&self, answer: &Receiver<T>) -> io::Result<T> {
        loop {
            match answer.recv_timeout(LOOK) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
                Err(RecvTimeoutError::Timeout) => {
                    if self.life.try_recv() == Err(TryRecvError::Disconnected) {
                        return Err(gone());
                    }
                }
            }
        }
    }
}

impl<P: Port + Send + 'static> Lane<P> {
    /// A lane that does not run yet.
    pub(super) fn open(worker: Worker<P>) -> io::Result<Lane<P>> {
        let poll = Poll::new()?;
        let (living, life) = bounded(0);
        Ok(Lane {
            door: Door {
                orders: Arc::new(ArrayQueue::new(ORDERS_MAX)),
                waker: Arc::new(Waker::new(poll.registry(), WAKER)?),
                life,
            },
            board: Arc::clone(worker.board()),
            conflicts: worker.conflicts().clone(),
            parts: Some((worker, poll, living)),
            thread: None,
        })
    }

    /// Starts the thread. `wakers` are those of all lanes, for news that cannot wait.
    pub(super) fn start(
        &mut self,
        options: &Options,
        cpu: Option<Cpu>,
        wakers: &[Arc<Waker>],
    ) -> io::Result<()> {
        let Some((worker, poll, living)) = self.parts.take() else {
            return Ok(());
        };
        let others = wakers
            .iter()
            .filter(|waker| !Arc::ptr_eq(waker, &self.door.waker));
        let runner = Runner {
            worker,
            poll,
            orders: Arc::clone(&self.door.orders),
            _living: living,
            others: others.cloned().collect(),
            spin: options.spin,
            clock: Monotonic::after(options.elapsed),
        };
        let named = std::thread::Builder::new().name(options.name.clone());
        let (tell, told) = bounded(1);
        let thread = named.spawn(move || {
            let kept = cpu.map_or(Ok(()), Cpu::keep_here);
            if Facility::ShortSlice.is_allowed() {
                // A kernel that refuses it has one slice for all threads, and frames wait longer.
                let _ = sched::slice(SLICE);
            }
            let runs = kept.is_ok();
            let _ = tell.send(kept);
            if runs {
                runner.run();
            }
        })?;
        told.recv().map_err(|_| gone())??;
        self.thread = Some(thread);
        Ok(())
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.door.waker)
    }

    pub(super) fn door(&self) -> Door<P> {
        self.door.clone()
    }

    pub(super) fn conflicts(&self) -> &Conflicts {
        &self.conflicts
    }

    pub(super) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    pub(super) fn attach(&self, ports: Vec<(PortId, P)>) -> io::Result<()> {
        self.door.ask(|done| Order::Attach(ports, done))?
    }

    pub(super) fn detach(&self, id: PortId) -> io::Result<Option<P>> {
        self.door.ask(|done| Order::Detach(id, done))
    }

    /// The next hops that the worker knows.
    pub(super) fn neighbours(&self) -> io::Result<Vec<Entry>> {
        self.door.ask(Order::Neighbours)
    }

    /// The queues that the worker has, once more.
    pub(super) fn duplicates(&self) -> io::Result<Vec<OwnedFd>> {
        self.door.ask(Order::Duplicate)?
    }

    /// Has the worker take over whom another knew.
    pub(super) fn recall(&self, neighbours: Vec<Entry>) -> io::Result<()> {
        self.door.ask(|done| Order::Recall(neighbours, done))
    }

    /// Has the worker take over frames that waited with another.
    pub(super) fn resume(&self, waiting: Vec<Stranded>) -> io::Result<()> {
        self.door.ask(|done| Order::Resume(waiting, done))
    }

    /// Has the worker go on counting from where another came to.
    pub(super) fn carry_on(&self, ledger: Ledger) -> io::Result<()> {
        self.door.ask(|done| Order::CarryOn(Box::new(ledger), done))
    }

    /// Has the thread rest after its next breath; what it would leave comes by the channel.
    pub(super) fn pause(&self) -> io::Result<Receiver<Legacy>> {
        self.door.order(Order::Pause)
    }

    /// What comes by the channel, unless the thread has died.
    pub(super) fn wait<T>(&self, answer: &Receiver<T>) -> io::Result<T> {
        self.door.wait(answer)
    }

    /// Has a thread that rests move frames again.
    pub(super) fn go(&self) -> io::Result<()> {
        self.door.send(Order::Go)
    }

    /// The books of the worker; of one that has died, as it left them.
    pub(super) fn ledger(&self) -> Ledger {
        let told = self.door.ask(Order::Ledger);
        told.unwrap_or_else(|_| self.board.ledger())
    }

    /// True while the thread runs.
    pub(super) fn is_alive(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// Stops the thread, and tells whether it had died.
    pub(super) fn halt(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        // Ignored if it fails: then the queue is full of orders, or the thread is gone, and the
        // wait below tells which.
        while self.door.send(Order::Stop).is_err() && !thread.is_finished() {
            std::thread::yield_now();
        }
        thread.join().map_err(|_| gone())
    }
}

impl<P> Drop for Lane<P> {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        while self.door.orders.push(Order::Stop).is_err() && !thread.is_finished() {
            std::thread::yield_now();
        }
        let _ = self.door.waker.wake();
        let _ = thread.join();
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
    others: Vec<Arc<Waker>>,
    spin: Duration,
    clock: Monotonic,
    /// Goes with the thread, however that ends.
    _living: Sender<Infallible>,
}

/// What a round came to.
#[derive(Default)]
struct Round {
    /// Frames moved.
    frames: usize,
    /// Frames were moved, or wait.
    busy: bool,
}

impl<P: Port> Runner<P> {
    fn run(mut self) {
        let mut events = Events::with_capacity(64);
        loop {
            self.spin(&mut events);
            if !self.listen(&mut events, SLEEP_MAX) {
                return;
            }
        }
    }

    /// Moves frames until none came for a while.
    fn spin(&mut self, events: &mut Events) {
        let mut busy_until = self.clock.elapsed();
        let mut unseen = 0;
        for round in 0_usize.. {
            let Round { frames, busy } = self.round();
            let now = self.clock.elapsed();
            if busy {
                busy_until = now + self.spin;
            } else if now >= busy_until {
                return;
            }
            unseen += frames;
            if round % ROUNDS_MAX == 0 || unseen >= FRAMES_MAX {
                unseen = 0;
                // An order ends the spin; it is then found by the sleep, which returns at once.
                if self.look(events) {
                    return;
                }
            } else {
                self.worker.wake_recent();
            }
        }
    }

    /// Breathes while ports have more, but not so long that others go unheard.
    fn round(&mut self) -> Round {
        let mut round = Round::default();
        for _ in 0..BREATHS_MAX {
            let breath = self.worker.breathe(self.clock.tick());
            round.frames += breath.frames;
            round.busy |= breath.frames > 0 || breath.more;
            if breath.told {
                // Frames of theirs may wait for just this.
                self.others.iter().for_each(|other| drop(other.wake()));
            }
            if !breath.more || round.frames >= FRAMES_MAX {
                break;
            }
        }
        round
    }

    /// Hears which ports have become ready, without waiting. True if orders have come.
    fn look(&mut self, events: &mut Events) -> bool {
        self.poll(events, Duration::ZERO);
        !self.orders.is_empty()
    }

    /// Waits for ports and orders. False when told to stop.
    fn listen(&mut self, events: &mut Events, patience: Duration) -> bool {
        let patience = if self.orders.is_empty() {
            patience
        } else {
            Duration::ZERO
        };
        self.poll(events, patience);
        self.obey(events)
    }

    fn poll(&mut self, events: &mut Events, patience: Duration) {
        if let Err(error) = self.poll.poll(events, Some(patience)) {
            let interrupted = error.kind() == io::ErrorKind::Interrupted;
            assert!(interrupted, "the readiness queue broke: {error}");
            return;
        }
        for event in events.iter() {
            // What is no port is the waker, and its orders are looked for anyway.
            if let Some(port) = PortId::new(event.token().0) {
                self.worker.wake(port);
            }
        }
    }

    /// Carries out what was ordered; while told to rest it moves no frame, and only notes who is
    /// ready. False when told to stop.
    fn obey(&mut self, events: &mut Events) -> bool {
        let mut next = Next::Frames;
        loop {
            while let Some(order) = self.orders.pop() {
                next = self.carry_out(order, next);
                if next == Next::End {
                    return false;
                }
            }
            if next == Next::Frames {
                return true;
            }
            self.poll(events, SLEEP_MAX);
        }
    }

    /// One order, given to a thread that was about to do `next`.
    fn carry_out(&mut self, order: Order<P>, next: Next) -> Next {
        // Who asked may be gone, and with it the other end of the channel.
        match order {
            Order::Attach(ports, done) => {
                let mut ports = ports.into_iter();
                let _ = done.send(ports.try_for_each(|(id, port)| self.attach(id, port)));
            }
            Order::Detach(id, done) => drop(done.send(self.detach(id))),
            Order::Watch(capture, done) => drop(done.send(self.worker.watch(capture))),
            Order::Unwatch(capture, done) => {
                self.worker.unwatch(&capture);
                let _ = done.send(());
            }
            Order::Neighbours(done) => drop(done.send(self.worker.neighbours().collect())),
            Order::Duplicate(done) => drop(done.send(self.worker.duplicates())),
            Order::Recall(neighbours, done) => {
                self.worker.recall(&neighbours, self.clock.tick());
                let _ = done.send(());
            }
            Order::Resume(waiting, done) => {
                self.worker.resume(&waiting, self.clock.tick());
                let _ = done.send(());
            }
            Order::CarryOn(ledger, done) => {
                self.worker.carry_on(&ledger);
                let _ = done.send(());
            }
            Order::Ledger(done) => drop(done.send(self.worker.board().ledger())),
            Order::Pause(done) => {
                let _ = done.send(self.worker.legacy());
                return Next::Rest;
            }
            Order::Go => return Next::Frames,
            Order::Stop => return Next::End,
        }
        next
    }

    fn attach(&mut self, id: PortId, port: P) -> io::Result<()> {
        if let Some(descriptor) = port.descriptor() {
            self.register(descriptor, id)?;
        }
        if let Some(before) = self.worker.attach(id, port) {
            self.deregister(&before);
        }
        Ok(())
    }

    fn detach(&mut self, id: PortId) -> Option<P> {
        let port = self.worker.detach(id)?;
        self.deregister(&port);
        Some(port)
    }

    fn deregister(&self, port: &P) {
        if let Some(descriptor) = port.descriptor() {
            // A descriptor that is already gone has left the queue by itself.
            let _ = self.poll.registry().deregister(&mut SourceFd(&descriptor));
        }
    }

    fn register(&self, descriptor: RawFd, id: PortId) -> io::Result<()> {
        let mut source = SourceFd(&descriptor);
        self.poll
            .registry()
            .register(&mut source, Token(id.index()), Interest::READABLE)
    }
}
