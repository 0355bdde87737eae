//! Packets that no host of good will sends: what the kernel forwards, Tapline forwards, and what
//! the kernel drops, Tapline drops by name.
//!
//! In: malformed headers, and fragments. Out: what came of each, compared, but for the table of
//! [`differences`](crate::differences).
//! Never: takes a silent loss for a drop: a counter must have a reason for it.

use dataplane::verdict::DropReason as D;

use crate::differences::Findings;
use crate::packets::{DONT_FRAGMENT, MORE_FRAGMENTS, Packet, V4, V6, content};
use crate::wire::Bench;

/// A packet, and the reason for which Tapline drops it, if it does.
type Case = (&'static str, V4, Option<D>);

fn with(change: impl FnOnce(&mut V4)) -> V4 {
    let mut packet = V4::datagram(40);
    change(&mut packet);
    packet
}

fn headers() -> Vec<Case> {
    let spoilt = |spoil| with(|packet| packet.spoil = spoil);
    let bad = Some(D::MalformedIpv4);
    vec![
        ("sound", with(|_| ()), None),
        ("version 5", spoilt(|header| header[0] = 0x55), bad),
        ("header of 16 bytes", spoilt(|header| header[0] = 0x44), bad),
        (
            "header past the end",
            spoilt(|header| header[0] = 0x4f),
            bad,
        ),
        (
            "shorter than its header",
            spoilt(|header| header[3] = 19),
            bad,
        ),
        (
            "longer than its frame",
            spoilt(|header| header[3] += 1),
            bad,
        ),
        (
            "shorter than its frame",
            spoilt(|header| header[3] -= 8),
            None,
        ),
        ("wrong checksum", with(|packet| packet.bad_sum = true), bad),
        (
            "reserved flag",
            with(|packet| packet.fragment = 0x8000),
            None,
        ),
    ]
}

fn fragments() -> Vec<Case> {
    let fragment = |bits: u16, len| {
        with(|packet| {
            packet.fragment = bits;
            packet.payload = content(len);
        })
    };
    vec![
        ("first of two fragments", fragment(MORE_FRAGMENTS, 64), None),
        ("second overlaps it", fragment(4, 64), None),
        (
            "first fragment of 8 bytes",
            fragment(MORE_FRAGMENTS, 8),
            None,
        ),
        ("fragment at 8", fragment(MORE_FRAGMENTS | 1, 64), None),
        (
            "fragment not in eights",
            fragment(MORE_FRAGMENTS | 8, 61),
            None,
        ),
        ("fragment past 65535", fragment(0x1fff, 64), None),
        (
            "fragment with DF",
            fragment(DONT_FRAGMENT | MORE_FRAGMENTS, 64),
            None,
        ),
    ]
}

fn headers_v6() -> Vec<(&'static str, V6, Option<D>)> {
    let with = |change: fn(&mut V6)| {
        let mut packet = V6::datagram(40);
        change(&mut packet);
        packet
    };
    let bad = Some(D::MalformedIpv6);
    vec![
        ("v6 sound", with(|_| ()), None),
        ("v6 version 7", with(|packet| packet.first |= 1 << 28), bad),
        (
            "v6 longer than its frame",
            with(|packet| packet.longer = 1),
            bad,
        ),
        (
            "v6 shorter than its frame",
            with(|packet| packet.longer = -8),
            None,
        ),
        ("v6 empty", with(|packet| packet.longer = -48), None),
    ]
}

/// Every packet fares alike, and each that Tapline drops is counted once, under its reason.
fn compare<P: Packet>(cases: Vec<(&'static str, P, Option<D>)>) {
    let mut findings = Findings::default();
    let [mut kernel, mut tapline] = Bench::pair();
    for (number, (name, packet, reason)) in (0..).zip(cases) {
        let frame = packet.by_alias(number).frame();
        let (theirs, ours) = (kernel.try_frame(&frame), tapline.try_frame(&frame));
        let due: Vec<(D, u64)> = reason.map(|reason| (reason, 1)).into_iter().collect();
        assert_eq!(ours.dropped, due, "{name}");
        findings.compare(name, &theirs, &ours);
    }
    findings.conclude();
    tapline.topology.stop();
}

#[test]
fn headers_are_sound_to_tapline_where_they_are_to_the_kernel() {
    compare(headers());
    compare(headers_v6());
}

#[test]
fn fragments_fare_as_with_the_kernel() {
    compare(fragments());
}
