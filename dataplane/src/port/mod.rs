//! Where frames come from and go to.
//!
//! In and out: frames of the worker's pool. Never: blocks.
//!
//! | port | what it is |
//! |---|---|
//! | [`tap`] | a TAP device, with the virtio-net header in front of every frame |
//! | [`packet`] | an existing device, by a packet socket, with the same header |
//! | [`memory`] | two queues in memory, for tests, fuzzing and simulation |
//! | [`any`] | any of them |

pub mod any;
pub mod memory;
pub mod packet;
pub mod sys;
pub mod tap;

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use crate::buffer::{Frame, Pool};
use crate::frame::offload::Offload;
use crate::verdict::DropReason;

/// Frames a port may hand in at one turn, so that one busy port does not starve the rest.
pub const BURST_FRAMES: usize = 64;

/// Bytes a port may hand in at one turn: four super-frames. A burst stays in the second-level
/// cache (1 MB and more on the machines this runs on) from receiving until it is sent on.
pub const BURST_BYTES: usize = 256 << 10;

/// What a port knows after it handed in a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// There may be more: ask again at the next turn.
    More,
    /// It was read empty: wait until it says that it is ready.
    Empty,
    /// The device is gone or down: wait for a sign of life.
    Down,
}

/// How a port took a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is out.
    Now,
    /// It waits in the port for [`Port::flush`], together with others; its buffer stays in use.
    Later,
}

/// What became of a frame that waited for [`Port::flush`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// Its length in bytes.
    pub len: usize,
    /// It is out, or why it is not.
    pub outcome: Result<(), DropReason>,
}

/// What a port can leave to whoever gets its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// A frame that stands for several segments.
    pub super_frames: bool,
    /// A frame whose layer 4 checksum is still to be completed.
    pub partial_checksums: bool,
}

impl Capabilities {
    /// Takes every frame as it is.
    pub const ALL: Capabilities = Capabilities {
        super_frames: true,
        partial_checksums: true,
    };

    /// Takes only what could go on a wire.
    pub const WIRE: Capabilities = Capabilities {
        super_frames: false,
        partial_checksums: false,
    };

    /// True if a frame in this state can go out as it is.
    #[inline]
    #[must_use]
    pub const fn take(self, offload: Offload) -> bool {
        (self.super_frames || !offload.is_super_frame())
            && (self.partial_checksums || !offload.needs_checksum())
    }
}

/// A place where frames come in and go out.
pub trait Port {
    /// Moves frames in, onto the end of `into`: at most `most`, which is no more than [`BURST_FRAMES`],
    /// and none further after [`BURST_BYTES`]. Never blocks.
    fn receive(&mut self, most: usize, pool: &mut Pool, into: &mut Vec<Frame>) -> Ready;

    /// Offers a frame, which stays the caller's. Never blocks. A frame that is taken for
    /// [`Taken::Later`] must not be edited or released before [`Port::flush`].
    ///
    /// # Errors
    /// `QueueFull`, `PortDown` or `BadOffload`: the frame was not taken.
    fn transmit(&mut self, frame: &Frame, pool: &mut Pool) -> Result<Taken, DropReason>;

    /// Sends what was taken for later, and puts what became of each frame onto `flushed`.
    fn flush(&mut self, pool: &mut Pool, flushed: &mut Vec<Flushed>) {
        let _ = (pool, flushed);
    }

    /// What [`Port::transmit`] takes undone. The worker does the rest before it offers a frame.
    #[inline]
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    /// The descriptor that becomes readable when frames have come in, if there is one.
    fn descriptor(&self) -> Option<RawFd>;

    /// The same queue once more, for a process that goes on in this one's place; nothing for a port
    /// that no other process could have.
    ///
    /// # Errors
    /// `EMFILE`.
    fn duplicate(&self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }
}
