//! A TAP device as a port: super-frames travel whole, checksums stay undone.
//!
//! In: the name of a TAP in the network namespace of the calling thread.
//! Out: a [`Port`]. Never: makes or configures a device; control does.
//!
//! A `read` or a `write` moves one frame with a `virtio_net_hdr` in front of it
//! (Documentation/networking/tuntap.rst). A write runs the receiving stack inside the call, up to
//! the socket it ends in, so there is no queue behind it that could be full.
//!
//! Small frames cost mostly the calls, so where several come at once they are read, and written,
//! many in one call (see `sys/uring.rs`). Super-frames cost mostly the copy: each is read and
//! written by itself, while it is in the cache. A lone frame is too, since nothing is gained by
//! waiting for another.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;

use super::sys::uring::{BATCH_MAX, Outcome, Ring, Run};
use super::{Flushed, Port, Ready, Taken, sys};
use crate::buffer::{Frame, Pool};
use crate::facility::Facility;
use crate::frame::offload::{HEADER_LEN, Offload};
use crate::verdict::DropReason;

/// Frames up to this length are small: the kernel builds such a one in a single page fragment
/// (`tun_build_skb`, drivers/net/tun.c), and copying it costs less than a system call.
const SMALL_MAX: usize = 3_400;

/// Small frames that came one upon the other before more are looked for at once.
const CROWD: usize = 4;

/// Bytes of longer frames after which one turn ends: a super-frame is sent on at once, while it is
/// in the cache, and its sender has its acknowledgement the sooner.
const LARGE_BYTES: usize = 32 << 10;

/// How many queues the device was made with: re-opening must say the same, or the kernel answers
/// `EINVAL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    /// One queue.
    Single,
    /// Made with `IFF_MULTI_QUEUE`; this port takes one of them.
    Multi,
}

/// Whether small frames go many in one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Batching {
    /// Where the kernel can.
    #[default]
    Auto,
    /// Never: one call a frame, as on kernels before 6.4.
    Off,
}

/// An open TAP queue.
#[derive(Debug)]
pub struct TapPort {
    queue: OwnedFd,
    name: String,
    offloads: u32,
    ring: Option<Ring>,
    /// How many reads to try in one call: twice what the last burst held.
    eager: usize,
    /// Small frames read one upon the other, with neither an empty queue nor a large one between.
    streak: usize,
    empty: Vec<Frame>,
    runs: Vec<Run>,
    waiting: Vec<Run>,
    outcomes: Vec<Outcome>,
    flushed: Vec<Flushed>,
}

impl TapPort {
    /// Opens the TAP `name`, and makes it if it is not there. With `IFF_VNET_HDR`, non-blocking,
    /// and with every offload that the kernel grants.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is no device name; `EPERM` without `CAP_NET_ADMIN` on
    /// somebody else's device; `EBUSY` if its queue is taken; `EINVAL` if it is no TAP or was made
    /// with another count of queues; what opening `/dev/net/tun` says.
    pub fn open(name: &str, queues: Queues) -> io::Result<TapPort> {
        TapPort::open_with(name, queues, Batching::Auto)
    }

    /// As [`TapPort::open`], with a say in how small frames are moved.
    ///
    /// # Errors
    /// As [`TapPort::open`].
    pub fn open_with(name: &str, queues: Queues, batching: Batching) -> io::Result<TapPort> {
        let (queue, offloads) = sys::tun::open(name, queues == Queues::Multi)?;
        Ok(TapPort::of(queue, name.to_owned(), offloads, batching))
    }

    /// Takes over a queue that was opened before, by this program in an earlier life; whoever
    /// kept it meanwhile has kept the frames that wait in it.
    ///
    /// # Errors
    /// `InvalidInput` for a queue without `virtio_net_hdr`; `EBADFD` if its device is gone; what
    /// the kernel says of a descriptor that is no TAP's.
    pub fn adopt(queue: OwnedFd) -> io::Result<TapPort> {
        let (queue, name, offloads) = sys::tun::adopt(queue)?;
        Ok(TapPort::of(queue, name, offloads, Batching::Auto))
    }

    fn of(queue: OwnedFd, name: String, offloads: u32, batching: Batching) -> TapPort {
        let ring = match batching {
            Batching::Auto if Facility::IoUring.is_allowed() => Ring::for_tap(queue.as_fd()),
            Batching::Auto | Batching::Off => None,
        };
        TapPort {
            queue,
            name,
            offloads,
            ring,
            eager: 0,
            streak: 0,
            empty: Vec::with_capacity(BATCH_MAX),
            runs: Vec::with_capacity(BATCH_MAX),
            waiting: Vec::with_capacity(BATCH_MAX),
            outcomes: Vec::with_capacity(BATCH_MAX),
            flushed: Vec::with_capacity(BATCH_MAX),
        }
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The `TUN_F_*` bits that the kernel granted.
    #[must_use]
    pub fn offloads(&self) -> u32 {
        self.offloads
    }

    /// True if small frames go many in one call.
    #[must_use]
    pub fn batches(&self) -> bool {
        self.ring.is_some()
    }

    /// One frame, in one call.
    fn read_one(&mut self, pool: &mut Pool, into: &mut Vec<Frame>) -> Result<usize, Ready> {
        let Some(frame) = pool.take() else {
            return Err(Ready::More);
        };
        let read = rustix::io::read(&self.queue, pool.room_with_header(&frame));
        accept(read, frame, pool, into)
    }

    /// As many small frames as there are, up to a burst, and a guess at how many come next.
    fn read_crowd(&mut self, most: usize, pool: &mut Pool, into: &mut Vec<Frame>) -> Ready {
        let before = into.len();
        let ready = self.read_many(most, pool, into);
        let got = &into[before..];
        let large = got.iter().any(|frame| frame.len() > SMALL_MAX);
        self.eager = if large {
            0
        } else {
            (2 * got.len()).min(BATCH_MAX)
        };
        self.streak = 0;
        ready
    }

    /// Up to `self.eager` frames, and at most `most`, in one call.
    fn read_many(&mut self, most: usize, pool: &mut Pool, into: &mut Vec<Frame>) -> Ready {
        let Some(ring) = &mut self.ring else {
            return Ready::More;
        };
        for _ in 0..self.eager.min(most) {
            let Some(frame) = pool.take() else { break };
            self.runs.push(pool.room_run(&frame));
            self.empty.push(frame);
        }
        let done = ring.read(
            self.queue.as_fd(),
            pool.memory(),
            &self.runs,
            &mut self.outcomes,
        );
        let mut ready = if done.is_ok() {
            Ready::More
        } else {
            Ready::Down
        };
        // What came first is in the first slots; the rest go back unused.
        for (frame, outcome) in self.empty.drain(..).zip(self.outcomes.drain(..)) {
            if let Err(state) = accept(outcome, frame, pool, into) {
                ready = state;
            }
        }
        self.runs.clear();
        ready
    }

    /// Writes what waits.
    fn write_waiting(&mut self, pool: &mut Pool) {
        let memory = pool.memory();
        match (&mut self.ring, self.waiting.as_slice()) {
            (Some(ring), [_, _, ..]) => {
                let queue = self.queue.as_fd();
                let done = ring.write(queue, memory, &self.waiting, &mut self.outcomes);
                debug_assert!(done.is_ok() && self.outcomes.len() == self.waiting.len());
            }
            (_, waiting) => {
                let write =
                    |run: &Run| rustix::io::write(&self.queue, &memory[run.at..run.at + run.len]);
                self.outcomes.extend(waiting.iter().map(write));
            }
        }
        for (run, outcome) in self.waiting.drain(..).zip(self.outcomes.drain(..)) {
            let outcome = outcome.map(drop).map_err(refusal);
            self.flushed.push(Flushed {
                len: run.len - HEADER_LEN,
                outcome,
            });
        }
    }
}

impl AsFd for TapPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

impl Port for TapPort {
    fn receive(&mut self, most: usize, pool: &mut Pool, into: &mut Vec<Frame>) -> Ready {
        if self.ring.is_some() && self.eager > 1 {
            return self.read_crowd(most, pool, into);
        }
        let before = into.len();
        let mut bytes = 0;
        while into.len() - before < most && bytes < LARGE_BYTES {
            match self.read_one(pool, into) {
                // A lone frame is sent on before another is looked for.
                Ok(len) if len <= SMALL_MAX && self.ring.is_some() => {
                    self.streak += 1;
                    if self.streak >= CROWD {
                        self.eager = 2 * CROWD;
                    }
                    return Ready::More;
                }
                // Where super-frames come, more at once would only push each other out of the cache.
                Ok(len) => {
                    bytes += len;
                    self.streak = 0;
                }
                Err(ready) => {
                    self.streak = 0;
                    return ready;
                }
            }
        }
        Ready::More
    }

    fn transmit(&mut self, frame: &Frame, pool: &mut Pool) -> Result<Taken, DropReason> {
        if self.ring.is_some() && (frame.len() <= SMALL_MAX || !self.waiting.is_empty()) {
            if self.waiting.len() == BATCH_MAX {
                self.write_waiting(pool);
            }
            self.waiting.push(pool.header_run(frame));
            return Ok(Taken::Later);
        }
        let written = rustix::io::write(&self.queue, pool.with_header(frame));
        written.map(|_| Taken::Now).map_err(refusal)
    }

    fn flush(&mut self, pool: &mut Pool, flushed: &mut Vec<Flushed>) {
        self.write_waiting(pool);
        flushed.append(&mut self.flushed);
    }

    fn descriptor(&self) -> Option<RawFd> {
        Some(self.queue.as_raw_fd())
    }

    fn duplicate(&self) -> io::Result<Option<OwnedFd>> {
        self.queue.try_clone().map(Some)
    }
}

/// Makes a frame of what was read into its slot, or gives the slot back.
#[inline]
fn accept(
    read: Outcome,
    mut frame: Frame,
    pool: &mut Pool,
    into: &mut Vec<Frame>,
) -> Result<usize, Ready> {
    let offload = Offload::read(pool.room_with_header(&frame));
    match (read, offload) {
        (Ok(read), Some(offload)) if read >= HEADER_LEN => {
            frame.set_len(read - HEADER_LEN);
            frame.offload = offload;
            let len = frame.len();
            into.push(frame);
            Ok(len)
        }
        (other, _) => {
            pool.release(frame);
            Err(if other == Err(Errno::AGAIN) {
                Ready::Empty
            } else {
                Ready::Down
            })
        }
    }
}

/// What the kernel's answer to a write means.
fn refusal(errno: Errno) -> DropReason {
    match errno {
        Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM => DropReason::QueueFull,
        Errno::INVAL | Errno::MSGSIZE => DropReason::BadOffload,
        _ => DropReason::PortDown,
    }
}
