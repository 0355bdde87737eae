//! Many reads or many writes of one descriptor in one system call, by `io_uring`.
//!
//! In: a descriptor and where in the pool's memory the frames are to go or stand.
//! Out: one result for each, in order. Every operation has ended when a call returns.
//! Never: leaves the kernel an address after the call: nothing is in flight between calls.
//!
//! The reads carry `RWF_NOWAIT`, so an empty queue answers `EAGAIN` at once; the kernel then runs
//! each operation to its end while it is submitted. A TAP allows this since Linux 6.4
//! (`FMODE_NOWAIT`, commit 438b406055cd); [`Ring::for_tap`] tries it, and says no where it fails.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use io_uring::{IoUring, opcode, squeue, types};
use rustix::io::Errno;

/// Operations in one call: a burst.
pub(crate) const BATCH_MAX: usize = crate::port::BURST_FRAMES;

/// Where in the pool's memory one operation reads or writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// First byte.
    pub(crate) at: usize,
    /// How many.
    pub(crate) len: usize,
}

/// What came of one operation: bytes moved, or why none were.
pub(crate) type Outcome = Result<usize, Errno>;

/// A submission queue of one thread at a time.
pub(crate) struct Ring {
    ring: IoUring,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ring")
    }
}

impl Ring {
    /// A ring that can read `tap` without waiting, or nothing where the kernel cannot, or may not,
    /// do that. Takes nothing from a queue that is empty, and the queue of a TAP just opened is.
    pub(crate) fn for_tap(tap: BorrowedFd<'_>) -> Option<Ring> {
        let mut ring = Ring {
            ring: IoUring::new(BATCH_MAX as u32).ok()?,
        };
        let mut scratch = vec![0; 64];
        let mut outcomes = Vec::with_capacity(1);
        ring.read(tap, &mut scratch, &[Run { at: 0, len: 0 }], &mut outcomes)
            .ok()?;
        // A read of no bytes from an empty queue: what matters is that it was not `EOPNOTSUPP`.
        matches!(outcomes.as_slice(), [Err(Errno::AGAIN) | Ok(0)]).then_some(ring)
    }

    /// Reads into each of `runs`, at most [`BATCH_MAX`] of them, none of which may overlap another;
    /// one outcome for each goes onto `outcomes`, in order.
    ///
    /// # Errors
    /// What `io_uring_enter` says before anything was taken.
    pub(crate) fn read(
        &mut self,
        source: BorrowedFd<'_>,
        memory: &mut [u8],
        runs: &[Run],
        outcomes: &mut Vec<Outcome>,
    ) -> io::Result<()> {
        let file = types::Fd(source.as_raw_fd());
        let base = memory.as_mut_ptr();
        let size = memory.len();
        self.run(runs, outcomes, |run| {
            assert!(run.at + run.len <= size, "a run outside the pool");
            // SAFETY: the sum is inside `memory`, as just asserted; the pointer is only computed.
            // Checked by: `Ring::run`, which returns after the kernel is done with it.
            let room = unsafe { base.add(run.at) };
            opcode::Read::new(file, room, run.len as u32)
                .offset(u64::MAX)
                .rw_flags(libc::RWF_NOWAIT)
                .build()
        })
    }

    /// Writes each of `runs`, in order; otherwise as [`Ring::read`].
    ///
    /// # Errors
    /// As [`Ring::read`].
    pub(crate) fn write(
        &mut self,
        target: BorrowedFd<'_>,
        memory: &[u8],
        runs: &[Run],
        outcomes: &mut Vec<Outcome>,
    ) -> io::Result<()> {
        let file = types::Fd(target.as_raw_fd());
        self.run(runs, outcomes, |run| {
            let bytes = &memory[run.at..run.at + run.len];
            opcode::Write::new(file, bytes.as_ptr(), bytes.len() as u32)
                .offset(u64::MAX)
                .build()
        })
    }

    /// Submits one operation for each run and waits until all of them have ended.
    fn run(
        &mut self,
        runs: &[Run],
        outcomes: &mut Vec<Outcome>,
        mut operation: impl FnMut(Run) -> squeue::Entry,
    ) -> io::Result<()> {
        assert!(
            runs.len() <= BATCH_MAX,
            "more operations than the ring holds"
        );
        let first = outcomes.len();
        {
            let mut queue = self.ring.submission();
            for (index, run) in runs.iter().enumerate() {
                let entry = operation(*run).user_data(index as u64);
                // SAFETY: the memory behind `entry` is borrowed by the caller of `read` or `write`
                // for the whole of this call, and this call does not return before the kernel has
                // answered every entry. Checked by: the loop below, which counts the answers.
                let pushed = unsafe { queue.push(&entry) };
                assert!(
                    pushed.is_ok(),
                    "the queue was empty and has room for a batch"
                );
                outcomes.push(Err(Errno::CANCELED));
            }
        }
        let mut answered = 0;
        while answered < runs.len() {
            match self.ring.submit_and_wait(runs.len() - answered) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                // Nothing was taken and nothing can be in flight only if nothing was submitted;
                // otherwise the kernel may still hold addresses, and no return is sound.
                Err(error) => panic!("io_uring_enter failed with operations in flight: {error}"),
            }
            for answer in self.ring.completion() {
                let outcome = match answer.result() {
                    moved if moved >= 0 => Ok(moved as usize),
                    errno => Err(Errno::from_raw_os_error(-errno)),
                };
                outcomes[first + answer.user_data() as usize] = outcome;
                answered += 1;
            }
        }
        Ok(())
    }

    /// The descriptor, for tests.
    #[allow(dead_code)]
    pub(crate) fn descriptor(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
