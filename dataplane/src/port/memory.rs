//! A port in memory: two bounded queues. For tests, fuzzing, simulation and benches.
//!
//! In: frames that a [`Peer`] sends. Out: frames that the peer receives.
//! Never: a system call; nor an allocation once as many frames have passed as the queues hold,
//! since the buffers go round.

use std::os::fd::RawFd;

use crossbeam::queue::ArrayQueue;

use super::{BURST_BYTES, Capabilities, Port, Ready, Taken};
use crate::buffer::{FRAME_MAX, Frame, Pool};
use crate::frame::offload::Offload;
use crate::sync::Arc;
use crate::verdict::DropReason;

/// A frame between two memory ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireFrame {
    /// From the first of the target MAC to the last of the payload.
    pub bytes: Vec<u8>,
    /// Checksum and segmentation still undone.
    pub offload: Offload,
}

/// The switch's end.
#[derive(Debug)]
pub struct MemoryPort {
    inbox: Arc<ArrayQueue<WireFrame>>,
    outbox: Arc<ArrayQueue<WireFrame>>,
    spare: Arc<ArrayQueue<Vec<u8>>>,
    capabilities: Capabilities,
}

/// The other end: what a test sends and receives by.
#[derive(Debug)]
pub struct Peer {
    to_switch: Arc<ArrayQueue<WireFrame>>,
    from_switch: Arc<ArrayQueue<WireFrame>>,
    spare: Arc<ArrayQueue<Vec<u8>>>,
}

/// A port and its peer, with room for `frames` frames each way.
///
/// # Panics
/// If `frames` is zero.
#[must_use]
pub fn pair(frames: usize) -> (MemoryPort, Peer) {
    let to_switch = Arc::new(ArrayQueue::new(frames));
    let from_switch = Arc::new(ArrayQueue::new(frames));
    let spare = Arc::new(ArrayQueue::new(2 * frames));
    let port = MemoryPort {
        inbox: Arc::clone(&to_switch),
        outbox: Arc::clone(&from_switch),
        spare: Arc::clone(&spare),
        capabilities: Capabilities::ALL,
    };
    (
        port,
        Peer {
            to_switch,
            from_switch,
            spare,
        },
    )
}

impl MemoryPort {
    /// The same port, which takes only frames that `capabilities` allow.
    #[must_use]
    pub fn with(self, capabilities: Capabilities) -> MemoryPort {
        MemoryPort {
            capabilities,
            ..self
        }
    }
}

impl Port for MemoryPort {
    fn receive(&mut self, most: usize, pool: &mut Pool, into: &mut Vec<Frame>) -> Ready {
        let mut bytes = 0;
        for _ in 0..most {
            let Some(mut frame) = pool.take() else {
                return Ready::More;
            };
            let Some(wire) = self.inbox.pop() else {
                pool.release(frame);
                return Ready::Empty;
            };
            let len = wire.bytes.len().min(pool.room(&frame).len());
            pool.room(&frame)[..len].copy_from_slice(&wire.bytes[..len]);
            frame.set_len(len);
            frame.offload = wire.offload;
            into.push(frame);
            let _ = self.spare.push(wire.bytes);
            bytes += len;
            if bytes >= BURST_BYTES {
                break;
            }
        }
        Ready::More
    }

    fn transmit(&mut self, frame: &Frame, pool: &mut Pool) -> Result<Taken, DropReason> {
        if self.outbox.is_full() {
            return Err(DropReason::QueueFull);
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(pool.bytes(frame));
        let wire = WireFrame {
            bytes,
            offload: frame.offload,
        };
        self.outbox
            .push(wire)
            .map(|()| Taken::Now)
            .map_err(|_| DropReason::QueueFull)
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn descriptor(&self) -> Option<RawFd> {
        None
    }
}

impl Peer {
    /// Sends a frame as it would be on a wire.
    ///
    /// # Errors
    /// The frame, if the queue is full.
    pub fn send(&self, bytes: &[u8]) -> Result<(), WireFrame> {
        self.send_with(bytes, Offload::NONE)
    }

    /// Sends a frame with checksum or segmentation undone. What is longer than any device would
    /// hand over is cut.
    ///
    /// # Errors
    /// The frame, if the queue is full.
    pub fn send_with(&self, bytes: &[u8], offload: Offload) -> Result<(), WireFrame> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(&bytes[..bytes.len().min(FRAME_MAX)]);
        self.to_switch.push(WireFrame {
            bytes: buffer,
            offload,
        })
    }

    /// The next frame that the switch sent here.
    #[must_use]
    pub fn receive(&self) -> Option<WireFrame> {
        self.from_switch.pop()
    }

    /// Gives a received frame's buffer back for another frame.
    pub fn recycle(&self, frame: WireFrame) {
        let _ = self.spare.push(frame.bytes);
    }
}
