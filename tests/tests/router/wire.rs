//! Bytes on the wire at both hosts: sent as they are, heard as they come.
//!
//! In: a topology with mute hosts, and frames. Out: an [`Outcome`] for each: what came out at the
//! other host, and what came back.
//! Never: hears what the routers say to each other, or what is link-local; a kernel says a lot of
//! that by itself.

use std::time::{Duration, Instant};

use control::devices::netns::Netns;
use dataplane::buffer::{FRAME_MAX, Frame, Pool};
use dataplane::frame::offload::Offload;
use dataplane::port::packet::PacketPort;
use dataplane::port::{BURST_FRAMES, Port};
use dataplane::verdict::DropReason;

use crate::packets::{Packet, Pod, V4, ethernet, udp};
use crate::topology::{FAR, Kind, MTU, NEAR, PATIENCE, Side, Topology};

/// One end of a host's link.
pub(crate) struct Wire {
    port: PacketPort,
    pool: Pool,
    /// What came behind the last marker that was waited for.
    early: Vec<Vec<u8>>,
}

impl Wire {
    /// On a device of a namespace.
    pub(crate) fn open(netns: &Netns, name: &str) -> Wire {
        let open = || PacketPort::open(name);
        Wire {
            port: netns.run(open).expect("a packet socket"),
            pool: Pool::new(64, FRAME_MAX),
            early: Vec::new(),
        }
    }

    /// Sends one frame.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let mut frame = self.pool.take().expect("free");
        self.pool.room(&frame)[..bytes.len()].copy_from_slice(bytes);
        frame.set_len(bytes.len());
        frame.offload = Offload::NONE;
        let taken = self.port.transmit(&frame, &mut self.pool);
        self.pool.release(frame);
        taken.expect("the device takes it");
    }

    /// The frames that have come since.
    pub(crate) fn hear(&mut self) -> Vec<Vec<u8>> {
        let mut frames: Vec<Frame> = Vec::new();
        self.port.receive(BURST_FRAMES, &mut self.pool, &mut frames);
        frames
            .drain(..)
            .map(|frame| {
                let bytes = self.pool.bytes(&frame).to_vec();
                self.pool.release(frame);
                bytes
            })
            .collect()
    }

    /// What came before the frame `last`, which must come.
    fn hear_until(&mut self, last: &[u8], heard: &mut Vec<Vec<u8>>) {
        let deadline = Instant::now() + PATIENCE;
        let mut came = std::mem::take(&mut self.early);
        loop {
            let end = came.iter().position(|bytes| bytes.ends_with(last));
            let behind = came.split_off(end.map_or(came.len(), |end| end + 1));
            if end.is_some() {
                came.pop();
            }
            heard.extend(came.into_iter().filter(|bytes| !is_chatter(bytes)));
            if end.is_some() {
                self.early = behind;
                return;
            }
            assert!(Instant::now() < deadline, "the routers carry nothing more");
            came = self.hear();
            if came.is_empty() {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }
}

/// ARP, and what IPv6 says on the link alone: each kernel has its own habits.
fn is_chatter(frame: &[u8]) -> bool {
    match frame[12..14] {
        [0x08, 0x00] => false,
        [0x86, 0xdd] => {
            let source = &frame[22..38];
            let on_link = source.starts_with(&[0xfe, 0x80]) || source == [0; 16];
            // Neighbour discovery has crossed no router (RFC 4861 7.1); listener reports have a
            // hop-by-hop option and a link-local source (RFC 3810 5).
            let discovery = frame[20..22] == [58, 255] && matches!(frame[54], 133..=137);
            let report = on_link && frame[20] == 0 && frame[54] == 58;
            discovery || report
        }
        _ => true,
    }
}

/// What came of a frame from host a.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Frames that came out at host c.
    pub(crate) delivered: Vec<Vec<u8>>,
    /// Frames that came back to host a.
    pub(crate) told: Vec<Vec<u8>>,
    /// Why switches dropped, with how many; nothing if the kernel routes.
    pub(crate) dropped: Vec<(DropReason, u64)>,
}

/// A topology in which only wires speak.
pub(crate) struct Bench {
    pub(crate) topology: Topology,
    near: Wire,
    far: Wire,
    markers: u64,
}

impl Bench {
    /// With an MTU of `between` bytes on the link between the routers.
    pub(crate) fn new(kind: Kind, between: u16) -> Bench {
        let topology = Topology::new(kind, between);
        topology.mute_hosts();
        let (near, far) = (
            Wire::open(&topology.a.netns, "eth0"),
            Wire::open(&topology.c.netns, "eth0"),
        );
        let mut bench = Bench {
            topology,
            near,
            far,
            markers: 0,
        };
        // Routers learn of each other by the first frames.
        bench.settle(&mut Vec::new(), &mut Vec::new());
        bench
    }

    /// Both kinds, with the same MTU everywhere.
    pub(crate) fn pair() -> [Bench; 2] {
        [Kind::Kernel, Kind::Tapline].map(|kind| Bench::new(kind, MTU))
    }

    /// Sends one frame from host a, which is not to wait for a neighbour, and says what came of it.
    pub(crate) fn try_frame(&mut self, bytes: &[u8]) -> Outcome {
        let before = self.topology.rest();
        let (mut delivered, mut told) = (Vec::new(), Vec::new());
        self.near.send(bytes);
        self.settle(&mut delivered, &mut told);
        let after = self.topology.rest();
        Outcome {
            delivered,
            told,
            dropped: after.since(&before).dropped.iter().collect(),
        }
    }

    /// Sends frames of both families, waits as long as a router does for a neighbour, and tells by
    /// the family what came of which.
    pub(crate) fn try_frames_for(&mut self, frames: &[Vec<u8>; 2], wait: Duration) -> [Outcome; 2] {
        let (mut delivered, mut told) = (Vec::new(), Vec::new());
        for frame in frames {
            self.near.send(frame);
        }
        std::thread::sleep(wait);
        self.settle(&mut delivered, &mut told);
        [[0x08, 0x00], [0x86, 0xdd]].map(|family| {
            let of = |heard: &[Vec<u8>]| {
                let same = |frame: &&Vec<u8>| frame[12..14] == family;
                heard.iter().filter(same).cloned().collect()
            };
            Outcome {
                delivered: of(&delivered),
                told: of(&told),
                dropped: Vec::new(),
            }
        })
    }

    /// Sends frames from host a, a marker behind each, and says what of each came out at host c.
    pub(crate) fn deliveries(&mut self, frames: &[Vec<u8>]) -> Vec<Vec<Vec<u8>>> {
        let markers: Vec<_> = frames.iter().map(|_| self.marker(NEAR, FAR)).collect();
        for (frame, (marker, _)) in frames.iter().zip(&markers) {
            self.near.send(frame);
            self.near.send(marker);
        }
        let each = markers.iter().map(|(_, payload)| {
            let mut delivered = Vec::new();
            self.far.hear_until(payload, &mut delivered);
            delivered
        });
        let delivered = each.collect();
        // What host a is told is no business of this, and would fill its socket.
        while !self.near.hear().is_empty() {}
        delivered
    }

    /// A marker there and one back: routers keep the order of what they carry, so whatever they
    /// made of earlier frames comes before.
    fn settle(&mut self, delivered: &mut Vec<Vec<u8>>, told: &mut Vec<Vec<u8>>) {
        let there = self.marker(NEAR, FAR);
        self.near.send(&there.0);
        self.far.hear_until(&there.1, delivered);
        let back = self.marker(FAR, NEAR);
        self.far.send(&back.0);
        self.near.hear_until(&back.1, told);
    }

    /// A frame, and its payload.
    fn marker(&mut self, from: Side, to: Side) -> (Vec<u8>, Vec<u8>) {
        self.markers += 1;
        let payload = format!("marker {}", self.markers).into_bytes();
        let pod = Pod { from, to };
        let packet = V4::between(pod, 17, udp(7, 9, &payload));
        (ethernet(from, &packet.bytes()), payload)
    }
}
