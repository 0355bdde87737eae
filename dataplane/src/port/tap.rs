//! A TAP device as a port: super-frames travel whole, checksums stay undone.
//!
//! In: the name of a TAP in the network namespace of the calling thread.
//! Out: a [`Port`]. Never: makes or configures a device; control does.
//!
//! Each `read` and each `write` moves one frame with a `virtio_net_hdr` in front of it
//! (Documentation/networking/tuntap.rst). A write runs the receiving stack inside the call, up to
//! the socket it ends in, so there is no queue behind it that could be full.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use super::{BURST_BYTES, BURST_FRAMES, Port, Ready, sys};
use crate::buffer::{Frame, Pool};
use crate::frame::offload::{HEADER_LEN, Offload};
use crate::verdict::DropReason;

/// How many queues the device was made with: re-opening must say the same, or the kernel answers
/// `EINVAL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    /// One queue.
    Single,
    /// Made with `IFF_MULTI_QUEUE`; this port takes one of them.
    Multi,
}

/// An open TAP queue.
#[derive(Debug)]
pub struct TapPort {
    queue: OwnedFd,
    name: String,
    offloads: u32,
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
        let (queue, offloads) = sys::tun::open(name, queues == Queues::Multi)?;
        Ok(TapPort {
            queue,
            name: name.to_owned(),
            offloads,
        })
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
}

impl Port for TapPort {
    fn receive(&mut self, pool: &mut Pool, into: &mut Vec<Frame>) -> Ready {
        let mut bytes = 0;
        for _ in 0..BURST_FRAMES {
            let Some(mut frame) = pool.take() else {
                return Ready::More;
            };
            let read = rustix::io::read(&self.queue, pool.room_with_header(&frame));
            let offload = Offload::read(pool.room_with_header(&frame));
            match (read, offload) {
                (Ok(read), Some(offload)) if read >= HEADER_LEN => {
                    frame.set_len(read - HEADER_LEN);
                    frame.offload = offload;
                    bytes += frame.len();
                    into.push(frame);
                }
                (other, _) => {
                    pool.release(frame);
                    return if other == Err(Errno::AGAIN) {
                        Ready::Empty
                    } else {
                        Ready::Down
                    };
                }
            }
            if bytes >= BURST_BYTES {
                break;
            }
        }
        Ready::More
    }

    fn transmit(&mut self, frame: &Frame, pool: &mut Pool) -> Result<(), DropReason> {
        match rustix::io::write(&self.queue, pool.with_header(frame)) {
            Ok(_) => Ok(()),
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => Err(DropReason::QueueFull),
            Err(Errno::INVAL | Errno::MSGSIZE) => Err(DropReason::BadOffload),
            Err(_) => Err(DropReason::PortDown),
        }
    }

    fn descriptor(&self) -> Option<RawFd> {
        Some(self.queue.as_raw_fd())
    }
}
