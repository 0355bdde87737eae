//! Super-frames as an honest sender writes them, and then as a hostile one does.
//!
//! In: a [`Shape`] of nine bytes, which says what an honest kernel would hand over; then lies, three
//! bytes each: where (a byte of the offload header below ten, else one of the frame's headers) and
//! what stands there instead.
//! Out: nothing, or a panic that names the promise which does not hold.
//! Never: a sum or an offset of the switch's own: what leaves is read and added up here anew.
//!
//! With lies, the switch may drop what it likes, but a frame that leaves is sound enough for the
//! port that takes it, and comes from where it came from: no lie about a checksum's place moves an
//! address. Without, every byte must arrive: whole where the port takes super-frames, in segments
//! with good checksums where not.

use std::sync::OnceLock;

use dataplane::addr::Mac;
use dataplane::frame::ethernet::HEADER_LEN;
use dataplane::frame::offload::Offload;
use dataplane::frame::{FrameView, Kind};
use dataplane::port::memory::WireFrame;

use crate::input::Input;
use crate::rig::Rig;
use crate::{A, B, FABRIC, GATEWAY, POD_A, POD_B, UPLINK};

const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The most that a kernel puts behind the headers; 65,535 is the packet.
const PAYLOAD_MAX: usize = 65_000;

/// Segments for which a full queue of the far port is no excuse.
const SEGMENTS_MAX: usize = 100;

/// Pods A and B of one world.
struct Pods {
    router: Mac,
    v4: [[u8; 4]; 2],
    /// Third and fourth byte of their IPv6 addresses, and the last.
    net: [u8; 2],
    last: [u8; 2],
}

/// In the order of [`worlds`].
const PODS: [Pods; 2] = [
    Pods {
        router: FABRIC,
        v4: [[10, 20, 0, 31], [10, 20, 0, 32]],
        net: [0, 0x20],
        last: [0x31, 0x32],
    },
    Pods {
        router: GATEWAY,
        v4: [[10, 244, 1, 6], [10, 244, 1, 7]],
        net: [2, 0x44],
        last: [6, 7],
    },
];

/// What an honest sender sends.
#[derive(Clone, Copy, Debug)]
struct Shape {
    ipv6: bool,
    udp: bool,
    /// 12 bytes of TCP options, as with timestamps.
    options: bool,
    /// To the router, and not to the pod.
    routed: bool,
    gso: bool,
    /// A bit for each port that takes only finished frames.
    wires: u8,
    payload: usize,
    gso_size: u16,
    sequence: u16,
}

impl Shape {
    fn read(input: &mut Input<'_>) -> Shape {
        let control = input.byte();
        Shape {
            ipv6: control & 1 != 0,
            udp: control & 2 != 0,
            options: control & 4 != 0,
            routed: control & 8 != 0,
            gso: control & 16 != 0,
            wires: input.byte(),
            payload: usize::from(input.word()).min(PAYLOAD_MAX),
            gso_size: input.word().max(1),
            sequence: input.word(),
        }
    }

    fn transport_at(self) -> usize {
        HEADER_LEN + if self.ipv6 { 40 } else { 20 }
    }

    fn transport_len(self) -> usize {
        match (self.udp, self.options) {
            (true, _) => 8,
            (false, true) => 32,
            (false, false) => 20,
        }
    }

    fn payload_at(self) -> usize {
        self.transport_at() + self.transport_len()
    }

    fn segments(self) -> usize {
        match self.gso {
            true => self.payload.div_ceil(usize::from(self.gso_size)).max(1),
            false => 1,
        }
    }

    fn offload(self) -> Offload {
        let gso_type = match (self.gso && self.segments() > 1, self.udp, self.ipv6) {
            (false, ..) => 0,
            (_, true, _) => GSO_UDP_L4,
            (_, _, true) => GSO_TCPV6,
            (_, _, false) => GSO_TCPV4,
        };
        Offload {
            flags: NEEDS_CSUM,
            gso_type,
            hdr_len: self.payload_at() as u16,
            gso_size: if gso_type == 0 { 0 } else { self.gso_size },
            csum_start: self.transport_at() as u16,
            csum_offset: if self.udp { 6 } else { 16 },
        }
    }

    /// The frame, its checksum field holding the pseudo-header's sum.
    fn frame(self, pods: &Pods) -> Vec<u8> {
        let mut frame = Vec::with_capacity(self.payload_at() + self.payload);
        let target = if self.routed { pods.router } else { POD_B };
        frame.extend(target.octets());
        frame.extend(POD_A.octets());
        let length = (self.transport_len() + self.payload) as u16;
        let protocol = if self.udp { UDP } else { TCP };
        if self.ipv6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([protocol, 64]);
            for last in pods.last {
                frame.extend([
                    0xfd,
                    0,
                    pods.net[0],
                    pods.net[1],
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    last,
                ]);
            }
        } else {
            let mut header = [0; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&(20 + length).to_be_bytes());
            header[4..6].copy_from_slice(&self.sequence.to_be_bytes());
            header[6..12].copy_from_slice(&[0x40, 0, 64, protocol, 0, 0]);
            let [from, to] = pods.v4;
            header[12..16].copy_from_slice(&from);
            header[16..20].copy_from_slice(&to);
            let sum = !fold(add(&header));
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend([0x08, 0]);
            frame.extend(header);
        }
        let at = frame.len();
        frame.extend([0x9c, 0x40, 0, 80]);
        if self.udp {
            frame.extend(length.to_be_bytes());
            frame.extend([0, 0]);
        } else {
            frame.extend(u32::from(self.sequence).to_be_bytes());
            let words = (self.transport_len() / 4) as u8;
            frame.extend([0, 0, 0, 1, words << 4, 0x18, 1, 0, 0, 0, 0, 0]);
            frame.resize(at + self.transport_len(), 1);
        }
        let sum_at = at + usize::from(self.offload().csum_offset);
        let sum = fold(pseudo(&frame, self.ipv6, protocol, u32::from(length)));
        frame[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
        frame.extend(&payload()[..self.payload]);
        frame
    }
}

/// Sends a super-frame from pod A to pod B, or to the router, in each mode.
///
/// # Panics
/// If the switch does, or an honest frame is lost or spoiled, or a lie gets a frame out from another
/// sender than it came in from.
pub fn run_super(input: &[u8]) {
    let mut input = Input(input);
    let shape = Shape::read(&mut input);
    for (world, pods) in PODS.iter().enumerate() {
        let mut frame = shape.frame(pods);
        let mut offload = shape.offload();
        let honest = input.is_empty();
        let mut lies = input;
        while !lies.is_empty() {
            lie(&mut lies, &mut frame, &mut offload);
        }
        let mut rig = Rig::begin(world, shape.wires);
        rig.peers[A].0.send_with(&frame, offload).expect("one fits");
        let mut left = Vec::new();
        rig.breathe_and(|at, out| left.push((at, out.clone())));
        rig.leave();
        let sender = addresses(&frame);
        for (_, out) in left.iter().filter(|(at, out)| is_the_pods(*at, &out.bytes)) {
            let now = addresses(&out.bytes);
            assert_eq!(now, sender, "{offload:?} moved an address");
        }
        let small = shape.segments() <= SEGMENTS_MAX;
        if honest && small && !shape.routed {
            let wire = shape.wires >> B & 1 != 0;
            check_arrived(shape, wire, &frame, offload, &left);
        }
    }
}

/// Bytes that differ from segment to segment.
fn payload() -> &'static [u8] {
    static PAYLOAD: OnceLock<Vec<u8>> = OnceLock::new();
    PAYLOAD.get_or_init(|| {
        (0..PAYLOAD_MAX)
            .map(|at| (at * 7 + (at >> 8)) as u8)
            .collect()
    })
}

/// Puts a byte where an honest sender had another.
fn lie(lies: &mut Input<'_>, frame: &mut [u8], offload: &mut Offload) {
    let (place, value, high) = (lies.byte(), lies.byte(), lies.byte());
    let word = u16::from_le_bytes([value, high]);
    match place {
        0 => offload.flags = value,
        1 => offload.gso_type = value,
        2 | 3 => offload.hdr_len = word,
        4 | 5 => offload.gso_size = word,
        6 | 7 => offload.csum_start = word,
        8 | 9 => offload.csum_offset = word,
        place => {
            // The Ethernet addresses stay, so that the frame still has a way to go.
            let at = 12 + usize::from(place) - 10;
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
    }
}

/// Not one of the switch's own: answers go back to A, questions out by the uplink.
fn is_the_pods(at: usize, bytes: &[u8]) -> bool {
    let view = FrameView::parse(bytes).expect("only frames leave");
    at != A && view.kind != Kind::Arp && !(at == UPLINK && view.claims_discovery())
}

/// Who a frame is from and for: the bytes in the places of addresses, whatever else is wrong.
fn addresses(bytes: &[u8]) -> Option<&[u8]> {
    let view = FrameView::parse(bytes).ok()?;
    match view.kind {
        Kind::Ipv4 => view.payload().get(12..20),
        Kind::Ipv6 => view.payload().get(8..40),
        Kind::Arp | Kind::Tagged | Kind::Other => None,
    }
}

/// Every byte of an honest frame is at B, in order, in frames that B takes.
fn check_arrived(
    shape: Shape,
    wire: bool,
    frame: &[u8],
    offload: Offload,
    left: &[(usize, WireFrame)],
) {
    assert!(left.iter().all(|(at, _)| *at == B), "{shape:?} got astray");
    if !wire {
        assert_eq!(left.len(), 1);
        assert!(left[0].1.bytes == frame, "{shape:?} changed on its way");
        assert_eq!(left[0].1.offload, offload);
        return;
    }
    assert_eq!(left.len(), shape.segments(), "{shape:?}");
    let (at, payload_at) = (shape.transport_at(), shape.payload_at());
    let mut next = payload_at;
    for (index, (_, out)) in left.iter().enumerate() {
        let bytes = &out.bytes;
        assert_eq!(out.offload, Offload::NONE);
        let carried = &bytes[payload_at..];
        assert!(*carried == frame[next..next + carried.len()], "{shape:?}");
        let protocol = if shape.udp { UDP } else { TCP };
        let length = (bytes.len() - at) as u32;
        let sum = pseudo(bytes, shape.ipv6, protocol, length) + add(&bytes[at..]);
        assert_eq!(fold(sum), 0xffff, "segment {index} of {shape:?}");
        if !shape.udp {
            let sequence =
                u32::from_be_bytes([bytes[at + 4], bytes[at + 5], bytes[at + 6], bytes[at + 7]]);
            let ahead = (next - payload_at) as u32;
            assert_eq!(sequence, u32::from(shape.sequence) + ahead);
        }
        if !shape.ipv6 {
            assert_eq!(fold(add(&bytes[HEADER_LEN..at])), 0xffff, "the header's");
        }
        next += carried.len();
    }
    assert_eq!(next, frame.len(), "{shape:?} lost its end");
}

/// Sum of the pseudo-header of RFC 9293 3.1 or RFC 8200 8.1.
fn pseudo(frame: &[u8], ipv6: bool, protocol: u8, length: u32) -> u64 {
    let addresses = match ipv6 {
        true => &frame[HEADER_LEN + 8..HEADER_LEN + 40],
        false => &frame[HEADER_LEN + 12..HEADER_LEN + 20],
    };
    add(addresses) + u64::from(protocol) + u64::from(length)
}

/// Words of 32 bits, of which one's complement gives the same sum as of 16 (RFC 1071 2).
fn add(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let word = |word: &[u8; 4]| u64::from(u32::from_be_bytes(*word));
    words.iter().map(word).sum::<u64>() + word(&last)
}

fn fold(sum: u64) -> u16 {
    (0..4).fold(sum, |sum, _| (sum & 0xffff) + (sum >> 16)) as u16
}
