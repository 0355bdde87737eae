//! The edits: both addresses, and one hop less with the checksum mended.
//!
//! In: 64 frames, IPv4 and IPv6. Out: time per frame.

use std::hint::black_box;
use std::net::Ipv6Addr;

use benches::scales::{criterion, stir, weigh};
use benches::world::{FABRIC, NIC, pod_ip, station, udp, udp6};
use criterion::{Criterion, criterion_group, criterion_main};
use dataplane::frame::FrameView;
use dataplane::rewrite::rewrite;
use dataplane::verdict::Rewrite;

fn edits(criterion: &mut Criterion) {
    let (a, b) = (station(0), station(1));
    let six = |at| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, at);
    let v4 = udp(a, b, pod_ip([10, 20], 0), pod_ip([10, 20], 1), 64);
    let v6 = udp6(a, b, six(1), six(2), 64);
    let route = Rewrite {
        target: Some(FABRIC),
        source: Some(NIC),
        hop: true,
    };
    let cross = Rewrite {
        hop: false,
        ..route
    };
    for (name, frame, edits) in [
        ("rewrite/addresses", &v4, cross),
        ("rewrite/route-v4", &v4, route),
        ("rewrite/route-v6", &v6, route),
    ] {
        let view = FrameView::parse(frame).expect("sound");
        let mut frames = vec![frame.clone(); 64];
        weigh(criterion, name, frames.len(), || {
            frames.iter_mut().fold(0, |hash, frame| {
                rewrite(black_box(frame), view.kind, edits);
                stir(hash, u64::from(frame[22]) << 8 | u64::from(frame[25]))
            })
        });
    }
}

criterion_group! { name = benches; config = criterion(); targets = edits }
criterion_main!(benches);
