//! A fixed pool of buffers, made at start and handed on by index.
//!
//! In: how many slots, and the longest frame one must hold.
//! Out: [`Frame`]s, which name a slot, and the bytes behind them.
//! Never: grows, or hands one slot to two frames.
//!
//! A slot is laid out so that what a port writes is one run of bytes: the offload header sits
//! directly before the frame.
//!
//! ```text
//! 0            54                64                             stride
//! | spare room | virtio_net_hdr  | Ethernet frame ...           |
//! ```
//!
//! The free list is a stack: the slot used last is used next, while it is still in the cache. The
//! stride is no multiple of 4096, or the first lines of all slots would share one cache set.

use std::ops::Range;

use crate::frame::offload::{HEADER_LEN, Offload};
use crate::port::sys::uring::Run;

/// Where the frame starts in its slot: one cache line in.
pub const FRAME_AT: usize = 64;

/// Where the offload header starts.
pub(crate) const HEADER_AT: usize = FRAME_AT - HEADER_LEN;

/// The longest frame a port may hand in: an IP packet of 65,535 bytes behind an Ethernet header
/// with two 802.1Q tags is 65,557; rounded up to whole cache lines.
pub const FRAME_MAX: usize = 65_600;

/// A frame in a slot of the pool. It must go back by [`Pool::release`]; the worker asserts between
/// batches that none was lost.
#[derive(Debug)]
#[must_use = "a frame that is not released takes its slot with it"]
pub struct Frame {
    /// Where its slot begins.
    at: u32,
    len: u32,
    /// Checksum and segmentation still undone.
    pub offload: Offload,
}

impl Frame {
    /// Bytes from the first of the target MAC to the last of the payload; no FCS.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// True for a frame of no bytes.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Says how many bytes were written behind [`Pool::bytes_mut`]'s start.
    #[inline]
    pub fn set_len(&mut self, len: usize) {
        assert!(
            len <= FRAME_MAX,
            "a frame of {len} bytes is longer than any slot"
        );
        self.len = len as u32;
    }
}

/// The buffers of one worker.
#[derive(Debug)]
pub struct Pool {
    memory: Box<[u8]>,
    /// Where those slots begin that no frame holds.
    free: Vec<u32>,
    stride: usize,
    slots: usize,
}

impl Pool {
    /// Makes `slots` buffers, each for a frame of up to `frame_max` bytes. Memory is touched only
    /// when a slot is first used.
    ///
    /// # Panics
    /// If `frame_max` is over [`FRAME_MAX`] or all slots are more bytes than a `u32` counts.
    #[must_use]
    pub fn new(slots: usize, frame_max: usize) -> Pool {
        assert!(
            frame_max <= FRAME_MAX,
            "no slot holds more than {FRAME_MAX} bytes"
        );
        let stride = Pool::stride(frame_max);
        let bytes = slots * stride;
        assert!(u32::try_from(bytes).is_ok(), "a pool is counted in 32 bits");
        let mut pool = Pool {
            memory: vec![0; bytes].into_boxed_slice(),
            free: Vec::with_capacity(slots),
            stride,
            slots,
        };
        pool.take_all_back();
        pool
    }

    fn stride(frame_max: usize) -> usize {
        let stride = FRAME_AT + frame_max.next_multiple_of(64);
        match stride.is_multiple_of(4096) {
            true => stride + 64,
            false => stride,
        }
    }

    /// Bytes of a pool of so many slots, all of them in use.
    pub(crate) fn bytes_of(slots: usize, frame_max: usize) -> usize {
        slots * (Pool::stride(frame_max) + size_of::<u32>())
    }

    /// An empty frame in a free slot, or nothing when all are in use.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        let at = self.free.pop()?;
        Some(Frame {
            at,
            len: 0,
            offload: Offload::NONE,
        })
    }

    /// Puts empty frames in free slots onto the end of `into`: `most`, or as many as are free.
    #[inline]
    pub fn take_all(&mut self, most: usize, into: &mut Vec<Frame>) {
        let left = self.free.len().saturating_sub(most);
        let taken = self.free.drain(left..).rev();
        into.extend(taken.map(|at| Frame {
            at,
            len: 0,
            offload: Offload::NONE,
        }));
    }

    /// Gives the slot back.
    #[inline]
    #[allow(clippy::needless_pass_by_value)] // taking the frame is the point: it is gone
    pub fn release(&mut self, frame: Frame) {
        debug_assert!(
            self.free.len() < self.slots,
            "more slots returned than exist"
        );
        self.free.push(frame.at);
    }

    /// Every slot is free again, in the order of a new pool, whatever frames name one.
    pub(crate) fn take_all_back(&mut self) {
        self.free.clear();
        let starts = (0..self.memory.len() as u32).step_by(self.stride);
        self.free.extend(starts.rev());
    }

    /// Slots that no frame holds.
    #[inline]
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Slots in all.
    #[inline]
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Bytes of address space that the slots take.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.memory.len()
    }

    /// The frame's bytes.
    #[inline]
    #[must_use]
    pub fn bytes(&self, frame: &Frame) -> &[u8] {
        let at = self.at(frame) + FRAME_AT;
        &self.memory[at..at + frame.len()]
    }

    /// The frame's bytes, to edit in place.
    #[inline]
    pub fn bytes_mut(&mut self, frame: &Frame) -> &mut [u8] {
        let at = self.at(frame) + FRAME_AT;
        &mut self.memory[at..at + frame.len()]
    }

    /// All the room behind the start of the frame, to fill it; then call [`Frame::set_len`].
    #[inline]
    pub fn room(&mut self, frame: &Frame) -> &mut [u8] {
        let at = self.at(frame);
        &mut self.memory[at + FRAME_AT..at + self.stride]
    }

    /// The room for an offload header and the frame behind it, as one run of bytes.
    #[inline]
    pub(crate) fn room_with_header(&mut self, frame: &Frame) -> &mut [u8] {
        let at = self.at(frame);
        &mut self.memory[at + HEADER_AT..at + self.stride]
    }

    /// All the memory, and in it the room of each of `frames` for an offload header and the frame
    /// behind it, less `spare` bytes at the end: for a call that fills several.
    pub(crate) fn places(
        &mut self,
        frames: &[Frame],
        spare: usize,
    ) -> (&mut [u8], impl Iterator<Item = Range<usize>>) {
        let stride = self.stride;
        let places = frames.iter().map(move |frame| {
            let at = frame.at as usize;
            at + HEADER_AT..at + stride - spare
        });
        (&mut self.memory, places)
    }

    /// The offload header, freshly written from the frame's state, and the frame behind it.
    #[inline]
    pub(crate) fn with_header(&mut self, frame: &Frame) -> &[u8] {
        let at = self.at(frame);
        let run = &mut self.memory[at + HEADER_AT..at + FRAME_AT + frame.len as usize];
        frame.offload.write(run);
        run
    }

    /// Where the room for an offload header and a frame is in [`Pool::memory`].
    #[inline]
    pub(crate) fn room_run(&self, frame: &Frame) -> Run {
        Run {
            at: self.at(frame) + HEADER_AT,
            len: self.stride - HEADER_AT,
        }
    }

    /// Writes the offload header before the frame; where both are in [`Pool::memory`].
    #[inline]
    pub(crate) fn header_run(&mut self, frame: &Frame) -> Run {
        let len = self.with_header(frame).len();
        Run {
            at: self.at(frame) + HEADER_AT,
            len,
        }
    }

    /// All slots, one behind the other.
    #[inline]
    pub(crate) fn memory(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// The bytes of one frame, and all the room of another, to fill it from the first.
    ///
    /// # Panics
    /// If both are one frame.
    #[inline]
    pub(crate) fn pair(&mut self, from: &Frame, into: &Frame) -> (&[u8], &mut [u8]) {
        let (from_at, into_at) = (self.at(from), self.at(into));
        assert!(from_at != into_at, "a frame cannot be filled from itself");
        let (low, high) = self.memory.split_at_mut(from_at.max(into_at));
        let (from_slot, into_slot) = if from_at < into_at {
            (&low[from_at..], &mut high[..self.stride])
        } else {
            (&high[..], &mut low[into_at..into_at + self.stride])
        };
        (
            &from_slot[FRAME_AT..FRAME_AT + from.len()],
            &mut into_slot[FRAME_AT..],
        )
    }

    /// Copies `frame` into a slot of its own, or nothing when none is free.
    pub fn copy(&mut self, frame: &Frame) -> Option<Frame> {
        let mut copy = self.take()?;
        let (from, to) = (self.at(frame) + FRAME_AT, self.at(&copy) + FRAME_AT);
        self.memory.copy_within(from..from + frame.len(), to);
        copy.len = frame.len;
        copy.offload = frame.offload;
        Some(copy)
    }

    #[inline]
    fn at(&self, frame: &Frame) -> usize {
        frame.at as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_handed_out_once_and_come_back() {
        let mut pool = Pool::new(2, 1514);
        let (mut a, b) = (
            pool.take().expect("two free"),
            pool.take().expect("one free"),
        );
        assert!(pool.take().is_none());
        pool.room(&a)[..4].copy_from_slice(b"head");
        a.set_len(4);
        pool.release(b);
        let copy = pool.copy(&a).expect("one free");
        assert_eq!(pool.bytes(&copy), b"head");
        pool.release(a);
        pool.release(copy);
        assert_eq!(pool.free(), pool.slots());
    }

    #[test]
    fn several_slots_are_taken_as_one_by_one() {
        let (mut at_once, mut single) = (Pool::new(5, 64), Pool::new(5, 64));
        for most in [2, 0, 9] {
            let mut taken = Vec::new();
            at_once.take_all(most, &mut taken);
            let one_by_one = std::iter::from_fn(|| single.take()).take(most);
            let one_by_one: Vec<u32> = one_by_one.map(|frame| frame.at).collect();
            let taken: Vec<u32> = taken.iter().map(|frame| frame.at).collect();
            assert_eq!((taken, at_once.free()), (one_by_one, single.free()));
        }
        assert_eq!(at_once.free(), 0);
    }

    #[test]
    fn the_header_is_written_directly_before_the_frame() {
        let mut pool = Pool::new(1, 64);
        let mut frame = pool.take().expect("free");
        pool.room(&frame)[..2].copy_from_slice(&[7, 8]);
        frame.set_len(2);
        frame.offload = Offload {
            flags: 1,
            gso_type: 3,
            ..Offload::NONE
        };
        let run = pool.with_header(&frame);
        assert_eq!(
            (run[0], run[1], run[HEADER_LEN], run.len()),
            (1, 3, 7, HEADER_LEN + 2)
        );
        pool.release(frame);
    }

    #[test]
    fn no_two_slots_share_a_cache_set_for_their_headers() {
        for frame_max in [60, 1514, 2048, 4032, FRAME_MAX] {
            assert!(!Pool::new(1, frame_max).stride.is_multiple_of(4096));
        }
    }
}
