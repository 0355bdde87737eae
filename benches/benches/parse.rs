//! Bytes to facts: the view of frames of each kind that a pod sends.
//!
//! In: 64 frames of 64 bytes (IPv4, IPv6, ARP, tagged). Out: time per frame.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use benches::scales::{criterion, stir, weigh};
use benches::world::{pod_ip, station, udp, udp6};
use criterion::{Criterion, criterion_group, criterion_main};
use dataplane::frame::{FrameView, Network};

fn turn(frames: &[Vec<u8>]) -> u64 {
    frames.iter().fold(0, |hash, frame| {
        let fact = match FrameView::parse(black_box(frame)) {
            Ok(view) => match view.network() {
                Network::Ipv4(packet) => u64::from(packet.ttl),
                Network::Ipv6(packet) => u64::from(packet.hop_limit),
                Network::Arp(packet) => u64::from(packet.sender.to_bits()),
                Network::Malformed(reason) => reason as u64,
                Network::Opaque => 1,
            },
            Err(reason) => reason as u64,
        };
        stir(hash, fact)
    })
}

fn arp() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(station(1).octets());
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(station(1).octets());
    frame.extend([10, 20, 0, 11, 0, 0, 0, 0, 0, 0, 10, 20, 0, 12]);
    frame.resize(64, 0);
    frame
}

fn parse(criterion: &mut Criterion) {
    let (a, b) = (station(0), station(1));
    let six = |at| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, at);
    let mut tagged = udp(a, b, pod_ip([10, 20], 0), Ipv4Addr::new(10, 20, 0, 9), 60);
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    for (name, frame) in [
        (
            "parse/ipv4",
            udp(a, b, pod_ip([10, 20], 0), pod_ip([10, 20], 1), 64),
        ),
        ("parse/ipv6", udp6(a, b, six(1), six(2), 64)),
        ("parse/arp", arp()),
        ("parse/tagged", tagged),
    ] {
        let frames = vec![frame; 64];
        weigh(criterion, name, frames.len(), || turn(&frames));
    }
}

criterion_group! { name = benches; config = criterion(); targets = parse }
criterion_main!(benches);
