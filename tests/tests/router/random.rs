//! Random packets through both kinds of routers, and what comes out at the far host.
//!
//! In: packets with any of their fields at odds, and the fuzzers' corpus. Out: every frame's
//! deliveries, compared byte for byte; a difference stands in the table of
//! [`differences`](crate::differences), or fails.
//! Never: compares what senders are told: limits of errors see to it that most are told nothing. Each
//! error has a case of its own in [`errors`](crate::errors).
//!
//! After each frame a marker follows it, by which deliveries are told apart. The link between the
//! routers is narrower than those of the hosts, so long packets come in pieces.
//!
//! `TAPLINE_FRAMES=100000 cargo test --release -p tapline-tests --test router random` is the long form.

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::addr::Mac;
use dataplane::frame::checksum::checksum;
use fastrand::Rng;
use tapline_tests::oracle::campaign::corpus;

use crate::differences::Findings;
use crate::packets::{DONT_FRAGMENT, MORE_FRAGMENTS, Packet, V4, V6, content};
use crate::topology::{FAR, Kind, MTU, NEAR};
use crate::wire::Bench;

/// Frames without further notice: a few seconds.
const FRAMES: u64 = 4000;
/// Frames that are under way together, each with its marker: a fraction of what a socket holds.
const BATCH: usize = 24;
/// MTU of the link between the routers.
const BETWEEN: u16 = 1400;
/// Bytes of an Ethernet header.
const HEADER_LEN: usize = 14;

const SOURCES: [[u8; 4]; 14] = [
    [10, 244, 1, 1],
    [10, 20, 0, 4],
    [10, 20, 0, 5],
    [10, 244, 0, 1],
    [10, 244, 0, 7],
    [10, 244, 1, 255],
    [0, 0, 0, 0],
    [0, 0, 0, 1],
    [127, 0, 0, 1],
    [169, 254, 7, 7],
    [224, 0, 0, 9],
    [240, 0, 0, 1],
    [255, 255, 255, 255],
    [8, 8, 8, 8],
];

const TARGETS: [[u8; 4]; 14] = [
    [10, 244, 1, 6],
    [10, 244, 1, 1],
    [10, 244, 1, 99],
    [10, 244, 0, 1],
    [10, 244, 0, 99],
    [10, 244, 0, 255],
    [10, 20, 0, 5],
    [0, 0, 0, 0],
    [127, 0, 0, 1],
    [169, 254, 7, 7],
    [224, 0, 0, 9],
    [239, 1, 1, 1],
    [255, 255, 255, 255],
    [192, 0, 2, 1],
];

const SOURCES_V6: [&str; 9] = [
    "fd00:244:0:1::1",
    "fd00:244::1",
    "fd00:244::7",
    "::",
    "::1",
    "ff0e::1",
    "::ffff:10.244.1.6",
    "fe80::7",
    "2001:db8::1",
];

const TARGETS_V6: [&str; 9] = [
    "fd00:244:0:1::6",
    "fd00:244:0:1::1",
    "fd00:244::1",
    "fd00:244::99",
    "::1",
    "ff02::1",
    "ff0e::1",
    "fe80::7",
    "2001:db8::1",
];

/// Options as hosts of good and ill will write them.
const OPTIONS: [&[u8]; 8] = [
    &[1, 1, 1, 0],
    &[0x5e, 4, 1, 2],
    &[148, 4, 0, 0],
    &[7, 7, 4, 0, 0, 0, 0, 0],
    &[68, 8, 5, 0, 0, 0, 0, 0],
    &[131, 7, 4, 10, 20, 0, 5, 0],
    &[7, 39, 4, 0],
    &[1, 1, 1, 7],
];

/// Extension headers, each with the number of the first.
const EXTENSIONS: [(u8, &[u8]); 9] = [
    (60, &[17, 0, 1, 4, 0, 0, 0, 0]),
    (0, &[17, 0, 1, 4, 0, 0, 0, 0]),
    (0, &[17, 0, 0x1e, 4, 0, 0, 0, 0]),
    (0, &[17, 0, 0x9e, 4, 0, 0, 0, 0]),
    (0, &[17, 99, 1, 4, 0, 0, 0, 0]),
    (60, &[0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0]),
    (43, &[17, 0, 0, 0, 0, 0, 0, 0]),
    (43, &[17, 0, 2, 0, 0, 0, 0, 0]),
    (59, &[]),
];

/// Where random frames come from.
struct Mill {
    rng: Rng,
    corpus: Vec<Vec<u8>>,
    made: u64,
}

impl Mill {
    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.usize(..of.len())]
    }

    /// True once in so many times.
    fn once_in(&mut self, times: u32) -> bool {
        self.rng.u32(..times) == 0
    }

    /// On host a's link, mostly to router 1.
    fn frame(&mut self) -> Vec<u8> {
        self.made += 1;
        let mut frame = match self.rng.u32(..16) {
            0 => self.named(),
            1..9 => self.v4(),
            _ => self.v6(),
        };
        if self.once_in(16) {
            let to = [
                Mac::BROADCAST,
                NEAR.host_mac,
                FAR.uplink_mac,
                NEAR.uplink_mac,
            ];
            let to = self.one(&to);
            frame[..6].copy_from_slice(&to.octets());
        }
        if self.once_in(64) {
            let kind = self.one(&[[0x08, 0x00], [0x86, 0xdd], [0x81, 0x00], [0x88, 0xb5]]);
            frame[12..HEADER_LEN].copy_from_slice(&kind);
        }
        if self.once_in(16) {
            frame.extend([0; 18]);
        }
        frame.truncate(HEADER_LEN + usize::from(MTU));
        frame
    }

    /// One of the corpus, by host a to router 1.
    fn named(&mut self) -> Vec<u8> {
        let at = self.rng.usize(..self.corpus.len());
        let mut frame = self.corpus[at].clone();
        frame.resize(frame.len().max(HEADER_LEN + 20), 0);
        frame[..6].copy_from_slice(&NEAR.gateway_mac.octets());
        frame[6..12].copy_from_slice(&NEAR.host_mac.octets());
        frame
    }

    fn payload(&mut self) -> Vec<u8> {
        let len = match self.rng.u32(..8) {
            0 => self.rng.usize(1300..1480),
            _ => self.rng.usize(..80),
        };
        content(len)
    }

    fn v4(&mut self) -> Vec<u8> {
        let mut packet = V4 {
            tos: self.one(&[0, 0, 0xb8, 3]),
            id: self.made as u16,
            ttl: self.one(&[64, 64, 64, 3, 2, 1, 0, 255]),
            protocol: self.one(&[17, 17, 6, 1, 132]),
            payload: self.payload(),
            bad_sum: self.once_in(32),
            ..V4::datagram(0)
        };
        // No two fragments are of one packet: what becomes of a second one depends on the first.
        let number = (self.made >> 16) as u8 % 64;
        match self.rng.u32(..8) {
            0 => packet.fragment = DONT_FRAGMENT,
            1 => packet.fragment = MORE_FRAGMENTS,
            2 => packet.fragment = self.rng.u16(..),
            _ => {}
        }
        match self.rng.u32(..8) {
            0 => packet.source = self.one(&SOURCES).into(),
            1 if packet.fragment == 0 => packet.source = Ipv4Addr::from_bits(self.rng.u32(..)),
            _ => {}
        }
        match self.rng.u32(..8) {
            0 | 1 => packet.target = self.one(&TARGETS).into(),
            2 => packet.target = Ipv4Addr::from_bits(self.rng.u32(..)),
            3 => packet.target = Ipv4Addr::from_bits(FAR.aliases.0.network().to_bits() | 9),
            _ => {}
        }
        if self.once_in(8) {
            packet.options = self.one(&OPTIONS).to_vec();
        }
        let mut frame = packet.by_alias(number).frame();
        if self.once_in(6) {
            let header = HEADER_LEN..HEADER_LEN + 20;
            let at = self.rng.usize(header.clone());
            frame[at] = self.rng.u8(..);
            frame[24..26].fill(0);
            let sum = checksum(&frame[header]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        frame
    }

    fn v6(&mut self) -> Vec<u8> {
        let mut packet = V6 {
            hops: self.one(&[64, 64, 64, 3, 2, 1, 0, 255]),
            next: self.one(&[17, 17, 6, 58, 132]),
            payload: self.payload(),
            ..V6::datagram(0)
        };
        packet.first |= self.rng.u32(..1 << 28);
        match self.rng.u32(..8) {
            0 => packet.source = self.one(&SOURCES_V6).parse().expect("an address"),
            1 => packet.source = Ipv6Addr::from_bits(self.rng.u128(..)),
            _ => {}
        }
        match self.rng.u32(..8) {
            0 | 1 => packet.target = self.one(&TARGETS_V6).parse().expect("an address"),
            2 => packet.target = Ipv6Addr::from_bits(self.rng.u128(..)),
            3 => packet.target = Ipv6Addr::from_bits(FAR.aliases.1.network().to_bits() | 9),
            _ => {}
        }
        if self.once_in(6) {
            let (next, bytes) = self.one(&EXTENSIONS);
            (packet.next, packet.extensions) = (next, bytes.to_vec());
        } else if self.once_in(8) {
            let [high, low] = self.rng.u16(..).to_be_bytes();
            let id = (self.made as u32).to_be_bytes();
            packet.next = 44;
            packet.extensions = vec![17, 0, high, low, id[0], id[1], id[2], id[3]];
        }
        if self.once_in(12) {
            packet.longer = self.rng.i16(-40..40);
        }
        let mut frame = packet.frame();
        if self.once_in(12) {
            let at = self.rng.usize(HEADER_LEN..HEADER_LEN + 40);
            frame[at] = self.rng.u8(..);
        }
        frame
    }
}

/// How many frames: `TAPLINE_FRAMES`, or a few.
fn frames() -> u64 {
    let said = std::env::var("TAPLINE_FRAMES").ok();
    said.map_or(FRAMES, |text| {
        text.parse().expect("TAPLINE_FRAMES is a number")
    })
}

#[test]
fn what_comes_out_of_kernel_routers_comes_out_of_tapline() {
    let all = frames();
    let mut mill = Mill {
        rng: Rng::with_seed(1),
        corpus: corpus(),
        made: 0,
    };
    let [mut kernel, mut tapline] =
        [Kind::Kernel, Kind::Tapline].map(|kind| Bench::new(kind, BETWEEN));
    let mut findings = Findings::default();
    while mill.made < all {
        let sent: Vec<Vec<u8>> = (0..BATCH).map(|_| mill.frame()).collect();
        let (theirs, ours) = (kernel.deliveries(&sent), tapline.deliveries(&sent));
        for ((frame, theirs), ours) in sent.iter().zip(&theirs).zip(&ours) {
            findings.compare_frame(frame, theirs, ours);
        }
    }
    tapline.topology.stop();
    findings.conclude_frames(mill.made);
}
