//! Where should this frame go? The pure decision, over the tables of both plugins.
//!
//! In: views of frames between 110 pods, to the uplink, and to services. Out: time per decision.

use std::hint::black_box;
use std::net::Ipv4Addr;

use benches::scales::{Numbers, criterion, stir, weigh};
use benches::world::{FABRIC, GATEWAY, POD, azure, guarded, kubenet, pod_ip, port, station, udp};
use criterion::{Criterion, criterion_group, criterion_main};
use dataplane::addr::Mac;
use dataplane::forward::{World, decide};
use dataplane::frame::FrameView;
use dataplane::frame::offload::Offload;
use dataplane::tables::fdb::Fdb;
use dataplane::tables::guard::Mode;
use dataplane::tables::neighbour::Neighbours;
use dataplane::tables::returns::Returns;
use dataplane::tables::{Tables, TablesSpec};
use dataplane::verdict::Verdict;

const PODS: usize = 110;
const FRAMES: usize = 256;

fn value(verdict: Verdict) -> u64 {
    match verdict {
        Verdict::Forward { egress, rewrite } => {
            (egress.index() as u64) << 1 | u64::from(rewrite.hop)
        }
        Verdict::Fragment { egress, .. } => 30_000 + egress.index() as u64,
        Verdict::Flood => 10_001,
        Verdict::Punt(_) => 10_002,
        Verdict::Drop(reason) => 20_000 + reason as u64,
    }
}

/// Frames from random pods to `target`, or to the other pod where none is given.
fn bench(
    criterion: &mut Criterion,
    name: &str,
    spec: &TablesSpec,
    net: [u8; 2],
    to: Option<(Mac, Ipv4Addr)>,
) {
    let tables = Tables::build(spec).expect("sound");
    let fdb = Fdb::new(8192, 3);
    let neighbours = Neighbours::default();
    let returns = Returns::new(16, 3);
    let world = World {
        tables: &tables,
        fdb: &fdb,
        neighbours: &neighbours,
        returns: Some(&returns),
    };
    let mut numbers = Numbers::seeded(4);
    let frames: Vec<_> = (0..FRAMES)
        .map(|_| {
            let (from, other) = (numbers.below(PODS), numbers.below(PODS));
            let (target, address) = to.unwrap_or((station(other), pod_ip(net, other)));
            let frame = udp(station(from), target, pod_ip(net, from), address, 64);
            (frame, port(POD + from))
        })
        .collect();
    let view = |frame| FrameView::parse(frame).expect("sound");
    let views: Vec<_> = frames
        .iter()
        .map(|(frame, from)| (view(frame), *from))
        .collect();
    weigh(criterion, name, FRAMES, || {
        views.iter().fold(0, |hash, (view, ingress)| {
            let verdict = decide(black_box(view), Offload::NONE, *ingress, world);
            stir(hash, value(verdict))
        })
    });
}

fn decisions(criterion: &mut Criterion) {
    let (azure, kubenet) = (azure(PODS), kubenet(PODS));
    let far = Ipv4Addr::new(10, 20, 200, 9);
    let service = Ipv4Addr::new(10, 0, 0, 10);
    let other_node = Ipv4Addr::new(10, 245, 7, 9);
    let (flat, routed) = ([10, 20], [10, 244]);
    bench(criterion, "decide/azure/pod", &azure, flat, None);
    bench(
        criterion,
        "decide/azure/far",
        &azure,
        flat,
        Some((FABRIC, far)),
    );
    bench(
        criterion,
        "decide/azure/service",
        &azure,
        flat,
        Some((FABRIC, service)),
    );
    bench(criterion, "decide/kubenet/pod", &kubenet, routed, None);
    bench(
        criterion,
        "decide/kubenet/far",
        &kubenet,
        routed,
        Some((GATEWAY, other_node)),
    );
    bench(
        criterion,
        "decide/kubenet/service",
        &kubenet,
        routed,
        Some((GATEWAY, service)),
    );
    // What guards cost a pod that speaks from its own station and address.
    let guarded = |spec: &TablesSpec| guarded(spec.clone(), Mode::Enforce);
    let (azure, kubenet) = (guarded(&azure), guarded(&kubenet));
    bench(criterion, "decide/azure/pod/guarded", &azure, flat, None);
    bench(
        criterion,
        "decide/kubenet/pod/guarded",
        &kubenet,
        routed,
        None,
    );
    bench(
        criterion,
        "decide/kubenet/far/guarded",
        &kubenet,
        routed,
        Some((GATEWAY, other_node)),
    );
}

criterion_group! { name = benches; config = criterion(); targets = decisions }
criterion_main!(benches);
