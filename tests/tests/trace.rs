//! `tapline trace` beside the running switch: the same frames, the same tables, the same outcome.
//!
//! In: random frames of every kind, into the nodes of both plugins and of dual stack.
//! Out: a failure where a worker sent, counted or answered otherwise than the trace says.
//! Never: a device: the worker's ports are in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use control::compile::{FIRST_POD_PORT, HOST_PORT, UPLINK_PORT};
use control::plan::{LoadOptions, Plugin, load};
use control::trace::network::{Network, TracedNode};
use control::trace::pass::{Carried, Fate, pass};
use dataplane::addr::{Mac, PortId, Station};
use dataplane::buffer::Pool;
use dataplane::clock::Tick;
use dataplane::forward::World;
use dataplane::frame::offload::{GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM, Offload};
use dataplane::frame::{FrameView, Network as Header};
use dataplane::port::memory::{Peer, pair};
use dataplane::snapshot::Publisher;
use dataplane::stats::Counts;
use dataplane::tables::fdb::Fdb;
use dataplane::tables::fib::NextHop;
use dataplane::tables::neighbour::state::Told;
use dataplane::tables::neighbour::{Neighbours, Waited, Waiting};
use dataplane::tables::{Owner, Tables, TablesSpec};
use dataplane::verdict::{DropReason, Punt};
use dataplane::worker::Worker;
use etherparse::PacketBuilder;
use proptest::prelude::*;

/// Above the longest frame here: a worker's pool of the usual size is 17 MB, and there is one a case.
const FRAME_BYTES: usize = 9_100;
const NOW: Tick = Tick(0);
const FABRIC: Mac = Mac::new([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);
/// In no table; some worlds have learned it behind the second pod.
const STRANGER: Mac = Mac::new([2, 0, 0, 0, 9, 9]);

/// Both plugins on the built-in example, and dual stack.
fn networks() -> &'static [Network; 3] {
    static NETWORKS: std::sync::OnceLock<[Network; 3]> = std::sync::OnceLock::new();
    NETWORKS.get_or_init(|| {
        let network = |options: LoadOptions, plugin| {
            let plugin = Some(plugin);
            let plan = load(&LoadOptions { plugin, ..options }).expect("the examples hold");
            Network::of(&plan, &BTreeMap::new(), false).expect("a plan that holds can be built")
        };
        [
            network(LoadOptions::built_in(), Plugin::Azure),
            network(LoadOptions::built_in(), Plugin::Kubenet),
            network(LoadOptions::built_in_dual_stack(), Plugin::Kubenet),
        ]
    })
}

/// A worker on memory ports, and what a trace would know of its state.
struct Rig<'a> {
    tables: &'a Tables,
    worker: Worker<dataplane::port::memory::MemoryPort>,
    peers: Vec<(PortId, Peer)>,
    fdb: Arc<Fdb>,
    neighbours: Neighbours,
}

/// The IPv4 and hardware address of whoever hangs on `port`.
fn own_name(spec: &TablesSpec, port: PortId) -> ([u8; 4], Mac) {
    let name = |(address, owner): &(std::net::IpAddr, Owner)| match address {
        std::net::IpAddr::V4(v4) if owner.port == port => Some((v4.octets(), owner.mac)),
        _ => None,
    };
    spec.owners
        .iter()
        .find_map(name)
        .expect("a pod has an address")
}

impl<'a> Rig<'a> {
    fn new(node: &'a TracedNode, learned: bool, heard: bool) -> Rig<'a> {
        let spec: &TablesSpec = &node.spec;
        let publisher = Publisher::new(Tables::build(spec).expect("it was built before"));
        let fdb = Arc::new(Fdb::new(64, 1));
        if learned {
            let station = Station::new(STRANGER).expect("a station");
            fdb.learn(station, pod_port(1), NOW);
        }
        let mut worker = Worker::new(publisher.reader(), Arc::clone(&fdb), FRAME_BYTES);
        let mut peers = Vec::new();
        for row in &spec.ports {
            let (end, peer) = pair(64);
            worker.attach(row.id, end);
            peers.push((row.id, peer));
        }
        let mut rig = Rig {
            tables: &node.tables,
            worker,
            peers,
            fdb,
            neighbours: Neighbours::default(),
        };
        if heard {
            rig.hear_all(spec);
        }
        rig
    }

    /// Lets the worker ask for every next hop and hear its answer, and the trace's side know it.
    fn hear_all(&mut self, spec: &TablesSpec) {
        for (prefix, hop) in &spec.routes {
            let NextHop::Neighbour(std::net::IpAddr::V4(address)) = hop else {
                continue;
            };
            let std::net::IpAddr::V4(to) = prefix.addr() else {
                continue;
            };
            // In the pod's own name, or it is refused.
            let (own, mac) = own_name(spec, pod_port(0));
            let frame = udp4(mac, spec.router_macs[0], own, to.octets(), 64, 30);
            self.put(pod_port(0), &frame, Offload::NONE);
            let uplink = self.tables.uplink().expect("a node has one").mac.mac();
            let asker = match self.tables.crossing() {
                dataplane::tables::Crossing::Routed { uplink, .. } => uplink.v4,
                dataplane::tables::Crossing::Bridged => None,
            };
            let asker = asker.expect("a router asks in its own name").octets();
            let reply = arp(2, FABRIC, uplink, address.octets(), asker);
            self.put(UPLINK_PORT, &reply, Offload::NONE);
            let frame = Pool::new(1, 64).take().expect("the pool is new");
            let ingress = pod_port(0);
            let waiting = Waiting { frame, ingress };
            let asked = self
                .neighbours
                .wait((*address).into(), UPLINK_PORT, waiting, NOW);
            assert!(matches!(asked, Waited::Held(_)), "one frame may wait");
            let told = Told::by_arp_reply(Station::new(FABRIC).expect("a station"));
            drop(self.neighbours.hear((*address).into(), told, NOW));
        }
    }

    /// Sends a frame to the worker; what came out, and what was counted.
    fn put(
        &mut self,
        at: PortId,
        bytes: &[u8],
        offload: Offload,
    ) -> (Vec<(PortId, Carried)>, Counts) {
        let before = self.worker.board().counts();
        let (_, peer) = self.peers.iter().find(|(id, _)| *id == at).expect("a port");
        peer.send_with(bytes, offload).expect("there is room");
        self.worker.wake_all();
        while self.worker.breathe(NOW).more {}
        let mut out = Vec::new();
        for (id, peer) in &self.peers {
            while let Some(frame) = peer.receive() {
                let (bytes, offload) = (frame.bytes.clone(), frame.offload);
                out.push((*id, Carried { bytes, offload }));
                peer.recycle(frame);
            }
        }
        (out, self.worker.board().counts().since(&before))
    }

    /// Holds the trace beside the worker. False once the worker knows what the trace does not.
    fn compare(&mut self, at: PortId, frame: &Carried) -> Result<bool, TestCaseError> {
        let world = World {
            tables: self.tables,
            fdb: &self.fdb,
            neighbours: &self.neighbours,
            returns: Some(self.worker.returns()),
        };
        let fate = pass(world, at, frame).fate;
        let (out, counts) = self.put(at, &frame.bytes, frame.offload);
        let drops = counts.dropped.total();
        match fate {
            Fate::Forward { egress, frame, .. } => {
                prop_assert_eq!(out, vec![(egress, frame)]);
                prop_assert_eq!(drops, 0);
            }
            Fate::Flood(ports) => {
                let copies = ports.into_iter().map(|port| (port, frame.clone()));
                prop_assert_eq!(out, copies.collect::<Vec<_>>());
                prop_assert_eq!(drops, 0);
            }
            Fate::Drop(reason) => {
                prop_assert_eq!((counts.dropped.of(reason), drops), (1, 1), "{}", reason);
                // The sender may be told; nobody else hears of it.
                prop_assert!(out.iter().all(|(port, _)| *port == at), "{:?}", out);
            }
            Fate::Punt(Punt::AnswerArp { mac } | Punt::AnswerSolicitation { mac, .. }) => {
                prop_assert_eq!((counts.punted, drops), (1, 0));
                for (port, answer) in &out {
                    let view = FrameView::parse(&answer.bytes).expect("an answer is a frame");
                    prop_assert_eq!((*port, view.source.mac()), (at, mac));
                }
            }
            Fate::Punt(Punt::Resolve { egress, .. }) => {
                prop_assert_eq!((counts.transmitted, drops), (counts.originated, 0));
                prop_assert!(out.iter().all(|(port, _)| *port == egress), "{:?}", out);
            }
            Fate::Punt(Punt::Defend { .. }) => {
                let refused = counts.dropped.of(DropReason::AddressConflict);
                prop_assert_eq!((refused, drops), (1, 1));
                prop_assert!(out.iter().all(|(port, _)| *port == at), "{:?}", out);
            }
            Fate::Punt(Punt::HearNeighbour { .. }) => {
                prop_assert_eq!((counts.punted, drops), (1, 0));
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn pod_port(number: usize) -> PortId {
    PortId::new(FIRST_POD_PORT + number).expect("in range")
}

fn udp4(from: Mac, to: Mac, source: [u8; 4], target: [u8; 4], ttl: u8, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(from.octets(), to.octets())
        .ipv4(source, target, ttl)
        .udp(1, 2)
        .write(&mut bytes, &vec![0x5a; len])
        .expect("a vector takes every write");
    bytes
}

fn arp(operation: u8, from: Mac, to: Mac, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut bytes = [to.octets(), from.octets()].concat();
    bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    bytes.extend(from.octets());
    bytes.extend(sender);
    bytes.extend(to.octets());
    bytes.extend(target);
    bytes
}

/// A frame before its addresses are chosen among those of a node.
#[derive(Clone, Debug)]
struct Draft {
    shape: u8,
    macs: (usize, usize),
    addresses: (usize, usize),
    ttl: u8,
    len: usize,
    rest: Vec<u8>,
    offload: Option<(u16, u16)>,
}

prop_compose! {
    fn draft()(
        shape in 0u8..7,
        macs in any::<(usize, usize)>(),
        addresses in any::<(usize, usize)>(),
        ttl in prop::sample::select(vec![0u8, 1, 2, 64, 255]),
        len in prop::sample::select(vec![0usize, 8, 56, 1472, 1473, 4000, 9000]),
        rest in prop::collection::vec(any::<u8>(), 0..90),
        offload in prop::option::weighted(0.1, any::<(u16, u16)>()),
    ) -> Draft {
        Draft { shape, macs, addresses, ttl, len, rest, offload }
    }
}

/// The MACs and addresses that mean something on a node, and some that do not.
fn write(node: &TracedNode, draft: &Draft) -> Carried {
    let spec = &node.spec;
    let mut macs = vec![
        STRANGER,
        FABRIC,
        Mac::BROADCAST,
        Mac::new([1, 0x80, 0xc2, 0, 0, 1]),
    ];
    macs.extend(spec.ports.iter().map(|row| row.mac.mac()));
    macs.extend(&spec.router_macs);
    let sources: Vec<Mac> = macs.iter().copied().filter(|mac| !mac.is_group()).collect();
    let to = macs[draft.macs.0 % macs.len()];
    let from = sources[draft.macs.1 % sources.len()];
    let prefixes = spec.routes.iter().map(|(prefix, _)| prefix);
    let (mut v4, mut v6) = (
        vec![[127, 0, 0, 1], [8, 8, 8, 8], [224, 0, 0, 5]],
        Vec::new(),
    );
    for prefix in prefixes {
        match prefix {
            ipnet::IpNet::V4(net) => v4.extend([net.network().octets(), net.broadcast().octets()]),
            ipnet::IpNet::V6(net) => v6.extend([net.network().octets(), net.broadcast().octets()]),
        }
    }
    v6.extend([[0; 16], [0xfe; 16], [0x20; 16], [0xff; 16]]);
    let pick = |at: usize| v4[at % v4.len()];
    let (source, target) = (pick(draft.addresses.0), pick(draft.addresses.1));
    let mut bytes = match draft.shape {
        0 | 1 => udp4(from, to, source, target, draft.ttl, draft.len),
        2 => arp(1 + draft.ttl % 2, from, to, source, target),
        3 => {
            let pick = |at: usize| v6[at % v6.len()];
            let mut bytes = Vec::new();
            PacketBuilder::ethernet2(from.octets(), to.octets())
                .ipv6(pick(draft.addresses.0), pick(draft.addresses.1), draft.ttl)
                .udp(1, 2)
                .write(&mut bytes, &vec![0x5a; draft.len])
                .expect("a vector takes every write");
            bytes
        }
        4 | 5 => return super_frame(from, to, source, target, draft),
        _ => {
            let mut bytes = [to.octets(), from.octets()].concat();
            let types = [0x0800u16, 0x0806, 0x86dd, 0x8100, 0x88cc];
            bytes.extend(types[draft.len % types.len()].to_be_bytes());
            bytes.extend(&draft.rest);
            bytes
        }
    };
    let offload = draft.offload.map_or(Offload::NONE, |(a, b)| Offload {
        flags: (a & 1) as u8,
        gso_type: [0, GSO_TCPV4, GSO_TCPV6][usize::from(b % 3)],
        hdr_len: 0,
        gso_size: a >> 4,
        csum_start: b >> 8,
        csum_offset: 16,
    });
    if draft.offload.is_some_and(|(a, _)| a % 5 == 0) {
        bytes.truncate(usize::from(draft.ttl));
    }
    Carried { bytes, offload }
}

fn super_frame(from: Mac, to: Mac, source: [u8; 4], target: [u8; 4], draft: &Draft) -> Carried {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(from.octets(), to.octets())
        .ipv4(source, target, draft.ttl)
        .tcp(1, 2, 3, 4)
        .write(&mut bytes, &vec![0x5a; 9000])
        .expect("a vector takes every write");
    let gso_size = [1460, 1461, 536][draft.len % 3];
    let offload = Offload {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 54,
        gso_size,
        csum_start: 34,
        csum_offset: 16,
    };
    Carried { bytes, offload }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_trace_says_what_the_running_switch_does(
        world in 0usize..3, at in 0usize..2, learned in any::<bool>(), heard in any::<bool>(),
        frames in prop::collection::vec((0usize..4, draft()), 1..12),
    ) {
        let node = &networks()[world].nodes[at];
        let mut rig = Rig::new(node, learned, heard);
        let ports = [HOST_PORT, UPLINK_PORT, pod_port(0), pod_port(1)];
        for (port, draft) in &frames {
            let frame = write(node, draft);
            if !rig.compare(ports[*port], &frame)? {
                break;
            }
        }
    }
}

/// The comparison is worth something only if every fate comes up in it.
#[test]
fn every_fate_comes_up_among_the_frames() {
    let mut seen = BTreeMap::new();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for (turn, node) in networks().iter().flat_map(|n| &n.nodes[..2]).enumerate() {
        let rig = Rig::new(node, true, turn % 2 == 0);
        for round in 0..1500 {
            let tree = draft().new_tree(&mut runner).expect("a draft");
            let frame = write(node, &proptest::strategy::ValueTree::current(&tree));
            let world = World {
                tables: rig.tables,
                fdb: &rig.fdb,
                neighbours: &rig.neighbours,
                returns: Some(rig.worker.returns()),
            };
            let ports = [HOST_PORT, UPLINK_PORT, pod_port(0), pod_port(1)];
            let fate = match pass(world, ports[round % 4], &frame).fate {
                Fate::Forward { edits, .. } => format!("forward, hop {}", edits.hop),
                Fate::Flood(_) => "flood".to_owned(),
                Fate::Punt(punt) => format!("{punt:?}")
                    .split(' ')
                    .next()
                    .expect("a name")
                    .into(),
                Fate::Drop(reason) => format!("drop {reason}"),
            };
            *seen.entry(fate).or_insert(0) += 1;
            let view = FrameView::parse(&frame.bytes);
            if view.is_ok_and(|view| matches!(view.network(), Header::Ipv6(_))) {
                *seen.entry("an IPv6 packet".into()).or_insert(0) += 1;
            }
        }
    }
    for fate in [
        "forward, hop true",
        "forward, hop false",
        "flood",
        "AnswerArp",
        "Resolve",
        "HearNeighbour",
        "an IPv6 packet",
    ] {
        assert!(seen.contains_key(fate), "no {fate} among {seen:#?}");
    }
    let drops = seen.keys().filter(|fate| fate.starts_with("drop")).count();
    assert!(drops >= 12, "only {drops} reasons: {seen:#?}");
}
