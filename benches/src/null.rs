//! A port without a device: it copies frames in from a list and out to one buffer.
//!
//! In: the frames to hand in, over and over. Out: a count and a hash of what it was given.
//! Never: a system call, an allocation or a queue, so that what a bench sees is the worker. It is
//! what `net_null copy=1` is to DPDK's testpmd.

use std::os::fd::RawFd;

use dataplane::buffer::{FRAME_MAX, Frame, Pool};
use dataplane::frame::offload::Offload;
use dataplane::port::{BURST_BYTES, Capabilities, Port, Ready, Taken};
use dataplane::verdict::DropReason;

use crate::scales::stir;

/// The port.
#[derive(Debug)]
pub struct NullPort {
    /// One after the other: what is measured is the worker, not the way to scattered frames.
    bytes: Box<[u8]>,
    frames: Box<[(u32, u32, Offload)]>,
    next: usize,
    sink: Box<[u8]>,
    capabilities: Capabilities,
    /// Frames taken.
    pub taken: u64,
    /// A hash of the frames taken.
    pub hash: u64,
}

impl NullPort {
    /// A port that hands in `frames`, one after the other and then from the start; none if there
    /// are none.
    #[must_use]
    pub fn new(frames: &[(Vec<u8>, Offload)], capabilities: Capabilities) -> NullPort {
        let place = |at: &mut u32, (frame, offload): &(Vec<u8>, Offload)| {
            let (start, len) = (*at, frame.len() as u32);
            *at += len;
            Some((start, len, *offload))
        };
        NullPort {
            bytes: frames
                .iter()
                .flat_map(|(frame, _)| frame)
                .copied()
                .collect(),
            frames: frames.iter().scan(0, place).collect(),
            next: 0,
            sink: vec![0; FRAME_MAX].into(),
            capabilities,
            taken: 0,
            hash: 0,
        }
    }
}

impl Port for NullPort {
    fn receive(&mut self, most: usize, pool: &mut Pool, into: &mut Vec<Frame>) -> Ready {
        let mut bytes = 0;
        for _ in 0..most {
            let Some((at, len, offload)) = self.frames.get(self.next) else {
                return Ready::Empty;
            };
            let Some(mut frame) = pool.take() else {
                return Ready::More;
            };
            let from = &self.bytes[*at as usize..(*at + *len) as usize];
            pool.room(&frame)[..from.len()].copy_from_slice(from);
            frame.set_len(from.len());
            frame.offload = *offload;
            into.push(frame);
            bytes += from.len();
            self.next = if self.next + 1 == self.frames.len() {
                0
            } else {
                self.next + 1
            };
            if bytes >= BURST_BYTES {
                break;
            }
        }
        Ready::More
    }

    #[inline]
    fn transmit(&mut self, frame: &Frame, pool: &mut Pool) -> Result<Taken, DropReason> {
        let bytes = pool.bytes(frame);
        self.sink[..bytes.len()].copy_from_slice(bytes);
        self.taken += 1;
        self.hash = stir(
            self.hash,
            u64::from(self.sink[5]) << 16 | bytes.len() as u64,
        );
        Ok(Taken::Now)
    }

    #[inline]
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn descriptor(&self) -> Option<RawFd> {
        None
    }
}
