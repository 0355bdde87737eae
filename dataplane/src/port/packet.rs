//! A packet socket as a port: an existing device, without a TAP and without a redirect.
//!
//! In: the name of a device in the network namespace of the calling thread.
//! Out: a [`Port`] that hears what comes in by the device and sends out of it.
//! Never: hears what it sent itself, or stops the host's stack from hearing the same frames: taps
//! come before the ingress classifiers, so whoever opens the port puts a drop-all on the device
//! (`Netlink::drop_all` of control).
//!
//! Each frame has a `virtio_net_hdr` in front of it both ways, as on a TAP (packet(7),
//! `PACKET_VNET_HDR`). Frames come in by `recvmmsg`, several at a time, each into a slot of its
//! own. They go out one by one: a frame that is offered stays the caller's, so none can wait for
//! others to share a system call with.
//!
//! The kernel takes 802.1Q tags out of frames before a tap sees them and tells of them beside
//! (`PACKET_AUXDATA`); they are put back here.
//!
//! `PACKET_QDISC_BYPASS` stays off. A veth has no queue to bypass, and on a device that has one
//! the bypass drops every frame that the device itself cannot segment (`__dev_direct_xmit`).
//! SCTP's checksum is a CRC32c, which the header cannot tell from others: of SCTP between a packet
//! port and a port that takes only finished frames, nothing arrives (`bad_offload`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::sys::packet::{Arrival, BATCH};
use super::{BURST_BYTES, Port, Ready, Taken, sys};
use crate::buffer::{Frame, Pool};
use crate::frame::offload::{HEADER_LEN, Offload};
use crate::verdict::DropReason;

/// Bytes of an 802.1Q tag, and where it stands in a frame.
const TAG_LEN: usize = 4;
const TAG_AT: usize = 12;

/// An open packet socket, bound to a device.
#[derive(Debug)]
pub struct PacketPort {
    socket: OwnedFd,
    name: String,
}

impl PacketPort {
    /// Opens a socket on the device `name`.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`; `ENODEV` if there is no such device; what the options say.
    pub fn open(name: &str) -> io::Result<PacketPort> {
        let socket = sys::packet::open(name)?;
        Ok(PacketPort {
            socket,
            name: name.to_owned(),
        })
    }

    /// Hears frames for other stations, too, where the device itself would sort them out; as `tcpdump`
    /// does.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn hear_all(&self) -> io::Result<()> {
        sys::packet::hear_all(&self.socket, &self.name)
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One call's worth: how many frames came, of how many bytes, or why none did.
    fn receive_batch(
        &mut self,
        wanted: usize,
        pool: &mut Pool,
        into: &mut Vec<Frame>,
    ) -> io::Result<(usize, usize)> {
        let first = into.len();
        pool.take_all(wanted, into);
        let mut arrivals = [Arrival::default(); BATCH];
        let came = {
            let (memory, places) = pool.places(&into[first..], TAG_LEN);
            sys::packet::receive(&self.socket, memory, places, &mut arrivals)
        };
        for unused in into
            .drain(first + came.as_ref().map_or(0, |count| *count)..)
            .rev()
        {
            pool.release(unused);
        }
        let mut bytes = 0;
        for (frame, arrival) in into[first..].iter_mut().zip(arrivals) {
            accept(frame, arrival, pool);
            bytes += frame.len();
        }
        came.map(|count| (count, bytes))
    }
}

/// A frame as the kernel wrote it becomes one as it was on the wire.
fn accept(frame: &mut Frame, arrival: Arrival, pool: &mut Pool) {
    let len = arrival.len.saturating_sub(HEADER_LEN);
    frame.set_len(len);
    frame.offload = Offload::read(pool.room_with_header(frame)).unwrap_or_default();
    if let Some(tag) = arrival.tag.filter(|_| len >= TAG_AT) {
        let room = pool.room(frame);
        room.copy_within(TAG_AT..len, TAG_AT + TAG_LEN);
        room[TAG_AT..TAG_AT + TAG_LEN].copy_from_slice(&tag);
        frame.set_len(len + TAG_LEN);
        frame.offload = frame.offload.behind_a_tag();
    }
}

impl Port for PacketPort {
    fn receive(&mut self, most: usize, pool: &mut Pool, into: &mut Vec<Frame>) -> Ready {
        let (mut frames, mut bytes) = (0, 0);
        while frames < most && bytes < BURST_BYTES {
            let wanted = BATCH.min(most - frames).min(pool.free());
            if wanted == 0 {
                break;
            }
            match self.receive_batch(wanted, pool, into) {
                Ok((count, size)) => {
                    (frames, bytes) = (frames + count, bytes + size);
                    if count < wanted {
                        return Ready::Empty;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ready::Empty,
                // A frame that the header has no words for, which is gone; the next may be fine.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => frames += 1,
                Err(_) => return Ready::Down,
            }
        }
        Ready::More
    }

    fn transmit(&mut self, frame: &Frame, pool: &mut Pool) -> Result<Taken, DropReason> {
        match send(&self.socket, pool.with_header(frame), SendFlags::DONTWAIT) {
            Ok(_) => Ok(Taken::Now),
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => Err(DropReason::QueueFull),
            Err(Errno::INVAL) => Err(DropReason::BadOffload),
            Err(Errno::MSGSIZE) => Err(DropReason::TooBig),
            Err(_) => Err(DropReason::PortDown),
        }
    }

    fn descriptor(&self) -> Option<RawFd> {
        Some(self.socket.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::offload::NEEDS_CSUM;

    #[test]
    fn a_tag_beside_the_frame_is_put_back_and_the_offsets_move() {
        let mut pool = Pool::new(1, 200);
        let mut frame = pool.take().expect("free");
        let run = pool.room_with_header(&frame);
        let offload = Offload {
            flags: NEEDS_CSUM,
            hdr_len: 54,
            csum_start: 34,
            csum_offset: 16,
            ..Offload::NONE
        };
        offload.write(run);
        for (at, byte) in run[HEADER_LEN..HEADER_LEN + 60].iter_mut().enumerate() {
            *byte = at as u8;
        }
        let arrival = Arrival {
            len: HEADER_LEN + 60,
            tag: Some([0x81, 0, 0, 5]),
        };
        accept(&mut frame, arrival, &mut pool);
        assert_eq!(pool.bytes(&frame)[10..18], [10, 11, 0x81, 0, 0, 5, 12, 13]);
        assert_eq!((frame.len(), pool.bytes(&frame)[63]), (64, 59));
        let moved = (frame.offload.csum_start, frame.offload.hdr_len);
        assert_eq!((moved, frame.offload.csum_offset), ((38, 58), 16));
        pool.release(frame);
    }

    #[test]
    fn a_message_shorter_than_its_header_is_an_empty_frame() {
        let mut pool = Pool::new(1, 64);
        let mut frame = pool.take().expect("free");
        let arrival = Arrival { len: 4, tag: None };
        accept(&mut frame, arrival, &mut pool);
        assert!(frame.is_empty());
        pool.release(frame);
    }
}
