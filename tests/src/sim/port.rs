//! A port with faults: a middleware around a memory port.
//!
//! In: the port, and a [`Condition`] that the simulation changes between breaths.
//! Out: the same port, which may be down, take few frames, take them for later, or carry out what
//! control does in the middle of a batch. Never: counts less than what passed through it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::os::fd::RawFd;
use std::rc::Rc;

use dataplane::addr::Mac;
use dataplane::buffer::{Frame, Pool};
use dataplane::frame::FrameView;
use dataplane::port::memory::MemoryPort;
use dataplane::port::{Capabilities, Flushed, Port, Ready, Taken};
use dataplane::verdict::DropReason;

/// What control does while a batch is on its way.
type Deed = Box<dyn FnOnce()>;

/// The state of a port, and what it saw.
#[derive(Default)]
pub(super) struct Condition {
    /// The device is down.
    pub(super) down: bool,
    /// How many frames it takes yet; as many as it holds, if nothing is said.
    pub(super) takes: Option<usize>,
    /// Frames are taken for later: a batch of which a part may fail.
    pub(super) late: bool,
    /// It hands in the last two frames of a burst in the wrong order.
    pub(super) swaps: bool,
    /// Happens when the worker next turns to this port.
    pub(super) deed: Option<Deed>,
    /// Frames that it handed in.
    pub(super) handed_in: u64,
    /// Frames that it took.
    pub(super) taken: u64,
    /// Who spoke since the port's row last changed.
    pub(super) spoken: BTreeSet<Mac>,
}

/// The port.
pub(super) struct Faulty {
    inner: MemoryPort,
    condition: Rc<RefCell<Condition>>,
    /// What became of frames that were taken for later.
    outcomes: Vec<Flushed>,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").finish_non_exhaustive()
    }
}

impl Faulty {
    pub(super) fn new(inner: MemoryPort, condition: Rc<RefCell<Condition>>) -> Faulty {
        Faulty {
            inner,
            condition,
            outcomes: Vec::new(),
        }
    }

    fn offer(&mut self, frame: &Frame, pool: &mut Pool) -> Result<(), DropReason> {
        let mut condition = self.condition.borrow_mut();
        if condition.down {
            return Err(DropReason::PortDown);
        }
        if condition.takes == Some(0) {
            return Err(DropReason::QueueFull);
        }
        self.inner.transmit(frame, pool)?;
        condition.taken += 1;
        condition.takes = condition.takes.map(|left| left - 1);
        Ok(())
    }
}

impl Port for Faulty {
    fn receive(&mut self, most: usize, pool: &mut Pool, into: &mut Vec<Frame>) -> Ready {
        let deed = self.condition.borrow_mut().deed.take();
        if let Some(deed) = deed {
            deed();
        }
        let mut condition = self.condition.borrow_mut();
        if condition.down {
            return Ready::Down;
        }
        let first = into.len();
        let ready = self.inner.receive(most, pool, into);
        let burst = &mut into[first..];
        condition.handed_in += burst.len() as u64;
        let sources = burst
            .iter()
            .filter_map(|frame| FrameView::parse(pool.bytes(frame)).ok());
        condition
            .spoken
            .extend(sources.map(|view| view.source.mac()));
        if let ([.., one, other], true) = (burst, condition.swaps) {
            std::mem::swap(one, other);
        }
        ready
    }

    fn transmit(&mut self, frame: &Frame, pool: &mut Pool) -> Result<Taken, DropReason> {
        let outcome = self.offer(frame, pool);
        if self.condition.borrow().late {
            let len = frame.len();
            self.outcomes.push(Flushed { len, outcome });
            return Ok(Taken::Later);
        }
        outcome.map(|()| Taken::Now)
    }

    fn flush(&mut self, _: &mut Pool, flushed: &mut Vec<Flushed>) {
        flushed.append(&mut self.outcomes);
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn descriptor(&self) -> Option<RawFd> {
        None
    }
}
