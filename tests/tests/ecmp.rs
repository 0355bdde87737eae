//! Groups of next hops (ECMP), seen from outside: real frames through `decide`.
//!
//! In: frames of many flows, fragments and super-frames, for routes to groups of two and three.
//! Out: the path each would take: a port and a MAC, or the neighbour that would be asked for.
//! Never: looks at a hash: only at where frames go.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::addr::{Mac, PortId, Station};
use dataplane::forward::{World, decide};
use dataplane::frame::FrameView;
use dataplane::frame::checksum::checksum;
use dataplane::frame::offload::{GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM, Offload};
use dataplane::segment::Cut;
use dataplane::tables::fdb::Fdb;
use dataplane::tables::fib::NextHop;
use dataplane::tables::fib::group::{Group, GroupId};
use dataplane::tables::neighbour::Neighbours;
use dataplane::tables::returns::Returns;
use dataplane::tables::{
    Addresses, Crossing, Policy, PortRole, PortSpec, Tables, TablesSpec, Unknown,
};
use dataplane::verdict::{Punt, Verdict};
use etherparse::PacketBuilder;
use proptest::prelude::*;

const ROUTER: [u8; 6] = [0x0a, 0x58, 0x0a, 0xf4, 1, 1];
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const UPLINK: usize = 1;
const SENDING_POD: usize = 2;
/// How many members the group has to which these targets are routed.
const TARGETS: [(usize, Ipv4Addr, Ipv6Addr); 2] = [
    (
        2,
        Ipv4Addr::new(10, 2, 0, 9),
        Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 9),
    ),
    (
        3,
        Ipv4Addr::new(10, 3, 0, 9),
        Ipv6Addr::new(0xfd03, 0, 0, 0, 0, 0, 0, 9),
    ),
];

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Path {
    Station(PortId, Mac),
    Neighbour(IpAddr),
}

fn port(id: usize) -> PortId {
    PortId::new(id).expect("in range")
}

/// The members of the group of three; the first two are the group of two.
fn members() -> [NextHop; 3] {
    let station = |id: usize| NextHop::Station {
        port: port(id),
        mac: Mac::new([2, 0, 0, 0, 1, id as u8]),
    };
    let neighbour = NextHop::Neighbour([10, 240, 0, 5].into());
    [station(3), station(4), neighbour]
}

fn spec(groups: Vec<Group>) -> TablesSpec {
    let row = |id: usize, role, mac| PortSpec {
        id: port(id),
        role,
        mac: Station::new(Mac::new(mac)).expect("a station"),
        mtu: 1500,
        hairpin: false,
        isolated: false,
    };
    let pod = |id: usize| row(id, PortRole::Pod, [2, 0, 0, 0, 0, id as u8]);
    let to = |text: &str, group| {
        let group = GroupId::new(group).expect("in range");
        (text.parse().expect("a prefix"), NextHop::Group(group))
    };
    TablesSpec {
        ports: vec![
            row(0, PortRole::Host, ROUTER),
            row(UPLINK, PortRole::Uplink, [0, 0x0d, 0x3a, 0, 0, 1]),
            pod(SENDING_POD),
            pod(3),
            pod(4),
        ],
        owners: Vec::new(),
        router_macs: vec![Mac::new(ROUTER)],
        routes: vec![
            to("10.2.0.0/16", 0),
            to("10.3.0.0/16", 1),
            to("fd02::/16", 0),
            to("fd03::/16", 1),
        ],
        groups,
        crossing: Crossing::Routed {
            uplink: Ipv4Addr::new(10, 240, 0, 4).into(),
            gateway: Addresses::default(),
        },
        policy: Policy::None,
        unknown: Unknown::Flood,
        guards: Vec::new(),
    }
}

/// A switch with both groups.
struct Router {
    tables: Tables,
    fdb: Fdb,
    neighbours: Neighbours,
}

impl Router {
    fn of(groups: Vec<Group>) -> Router {
        Router {
            tables: Tables::build(&spec(groups)).expect("sound"),
            fdb: Fdb::new(64, 1),
            neighbours: Neighbours::default(),
        }
    }

    fn new() -> Router {
        let all = members();
        let group = |some: &[NextHop]| Group::new(some).expect("sound");
        Router::of(vec![group(&all[..2]), group(&all)])
    }

    fn path(&self, frame: &[u8], offload: Offload) -> Path {
        let view = FrameView::parse(frame).expect("an Ethernet header");
        let world = World {
            tables: &self.tables,
            fdb: &self.fdb,
            neighbours: &self.neighbours,
            returns: Some(&Returns::new(16, 1)),
        };
        match decide(&view, offload, port(SENDING_POD), world) {
            Verdict::Forward { egress, rewrite } => {
                Path::Station(egress, rewrite.target.expect("a next station"))
            }
            Verdict::Punt(Punt::Resolve { next_hop, .. }) => Path::Neighbour(next_hop),
            verdict => panic!("{verdict:?}"),
        }
    }
}

/// What tells one flow from another.
#[derive(Clone, Copy, Debug)]
struct Flow {
    ipv6: bool,
    tcp: bool,
    /// The low bits of the sender's address.
    source: u32,
    target: usize,
    ports: (u16, u16),
}

/// A frame of `flow`. `turn` is whatever else may differ among its packets.
fn frame(flow: Flow, turn: u8, payload: usize) -> Vec<u8> {
    let (_, v4, v6) = TARGETS[flow.target];
    let hops = 64 - turn % 32;
    let link = PacketBuilder::ethernet2(SENDER, ROUTER);
    let network = if flow.ipv6 {
        let source = 0xfd00_u128 << 112 | u128::from(flow.source);
        link.ipv6(source.to_be_bytes(), v6.octets(), hops)
    } else {
        let [_, b, c, d] = flow.source.to_be_bytes();
        link.ipv4([10, b, c, d], v4.octets(), hops)
    };
    let mut bytes = Vec::new();
    let payload = vec![turn; payload];
    let written = if flow.tcp {
        let step = network.tcp(flow.ports.0, flow.ports.1, turn.into(), 4096);
        step.write(&mut bytes, &payload)
    } else {
        network
            .udp(flow.ports.0, flow.ports.1)
            .write(&mut bytes, &payload)
    };
    written.expect("into a vector");
    if flow.ipv6 {
        // Traffic class and flow label.
        bytes[14] |= turn >> 4;
        bytes[15] = turn << 4 | turn & 0xf;
        bytes[17] = turn;
    } else {
        // Type of service, and identification.
        (bytes[15], bytes[19]) = (turn, turn);
        mend(&mut bytes);
    }
    bytes
}

/// Writes the checksum of an IPv4 header without options.
fn mend(bytes: &mut [u8]) {
    bytes[24..26].fill(0);
    let sum = checksum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// How many flows go by each path.
fn shares(flows: impl Iterator<Item = Flow>) -> HashMap<Path, usize> {
    let router = Router::new();
    let mut shares = HashMap::new();
    for flow in flows {
        let path = router.path(&frame(flow, 0, 4), Offload::NONE);
        *shares.entry(path).or_default() += 1;
    }
    shares
}

#[test]
fn a_hundred_thousand_flows_are_shared_within_a_tenth() {
    // What real flows differ in: a client's port, which counts up, and clients side by side.
    type Differ = fn(u32) -> (u32, (u16, u16));
    let kinds: [(&str, Differ); 3] = [
        ("one client", |n| (7, ((n % 50_000) as u16 + 10_000, 80))),
        ("many clients", |n| (n, (40_000, 443))),
        ("both", |n| (n / 100, ((n % 100) as u16 + 32_768, 53))),
    ];
    for (target, (count, ..)) in TARGETS.into_iter().enumerate() {
        for ipv6 in [false, true] {
            for (kind, differ) in kinds {
                let flows = (0..100_000).map(|n| {
                    let (source, ports) = differ(n);
                    Flow {
                        ipv6,
                        // One client has ports for half of the flows only.
                        tcp: n < 50_000,
                        source,
                        target,
                        ports,
                    }
                });
                let shares = shares(flows);
                let (least, most) = (shares.values().min(), shares.values().max());
                let (least, most) = (*least.expect("some"), *most.expect("some"));
                println!("{kind}, IPv6 {ipv6}, {count} members: {least} to {most}");
                assert_eq!(shares.len(), count, "{kind}: {shares:?}");
                assert!(most * 10 <= least * 11, "{kind}, IPv6 {ipv6}: {shares:?}");
            }
        }
    }
}

prop_compose! {
    fn any_flow()(
        ipv6: bool, tcp: bool, source: u32, target in 0..TARGETS.len(), ports: (u16, u16),
    ) -> Flow {
        // Only addresses that may send.
        Flow { ipv6, tcp, source: source & 0x00ff_ffff, target, ports }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn no_flow_changes_its_path_while_the_group_is_unchanged(
        flow in any_flow(), turns in prop::collection::vec(any::<(u8, u8)>(), 1..20),
    ) {
        let all = members();
        let group = |some: &[NextHop]| Group::new(some).expect("sound");
        let turned = [[all[1], all[0]].to_vec(), [all[2], all[0], all[1]].to_vec()];
        // Other tables with the same groups: made anew, and with the members in another order.
        let routers = [
            Router::new(),
            Router::new(),
            Router::of(turned.iter().map(|members| group(members)).collect()),
        ];
        let path = routers[0].path(&frame(flow, 0, 0), Offload::NONE);
        for (turn, payload) in turns {
            for router in &routers {
                let found = router.path(&frame(flow, turn, payload.into()), Offload::NONE);
                prop_assert_eq!(found, path);
            }
        }
    }

    #[test]
    fn all_fragments_of_a_datagram_take_one_path(flow in any_flow(), label in 0u32..1 << 20) {
        let router = Router::new();
        let mut whole = frame(Flow { tcp: false, ..flow }, 3, 3000);
        if flow.ipv6 {
            whole[15..18].copy_from_slice(&label.to_be_bytes()[1..]);
        }
        let paths: Vec<Path> = fragments(&whole, flow.ipv6)
            .iter()
            .map(|fragment| router.path(fragment, Offload::NONE))
            .collect();
        prop_assert_eq!(paths.len(), 3);
        prop_assert!(paths.iter().all(|path| *path == paths[0]), "{:?}", paths);
    }

    #[test]
    fn a_super_frame_goes_where_its_segments_would(flow in any_flow()) {
        let router = Router::new();
        let flow = Flow { tcp: true, ..flow };
        let bytes = frame(flow, 9, 20_000);
        let headers = bytes.len() - 20_000;
        let offload = Offload {
            flags: NEEDS_CSUM,
            gso_type: if flow.ipv6 { GSO_TCPV6 } else { GSO_TCPV4 },
            hdr_len: headers as u16,
            gso_size: 1400,
            csum_start: headers as u16 - 20,
            csum_offset: 16,
        };
        let path = router.path(&bytes, offload);
        let cut = Cut::plan(&bytes, offload).expect("sound");
        let mut room = vec![0; cut.piece_len_max()];
        for index in 0..cut.pieces() {
            let len = cut.write(&bytes, index, &mut room);
            prop_assert_eq!(router.path(&room[..len], Offload::NONE), path);
        }
    }
}

/// Three fragments of a datagram, as its sender would cut it.
fn fragments(whole: &[u8], ipv6: bool) -> Vec<Vec<u8>> {
    let headers = if ipv6 { 54 } else { 34 };
    let (header, payload) = whole.split_at(headers);
    let count = payload.chunks(1024).count();
    let cut = |(nth, piece): (usize, &[u8])| {
        let more = u16::from(nth + 1 < count);
        let mut bytes = header.to_vec();
        if ipv6 {
            let length = (piece.len() + 8) as u16;
            bytes[18..20].copy_from_slice(&length.to_be_bytes());
            let next = std::mem::replace(&mut bytes[20], 44);
            bytes.extend([next, 0]);
            bytes.extend(((nth as u16 * 1024) | more).to_be_bytes());
            bytes.extend([0, 0, 7, 7]);
        } else {
            let length = (piece.len() + 20) as u16;
            bytes[16..18].copy_from_slice(&length.to_be_bytes());
            let offset = (nth as u16 * 128) | (more << 13);
            bytes[20..22].copy_from_slice(&offset.to_be_bytes());
            mend(&mut bytes);
        }
        bytes.extend(piece);
        bytes
    };
    payload.chunks(1024).enumerate().map(cut).collect()
}

#[test]
fn fragments_are_shared_too() {
    let router = Router::new();
    for ipv6 in [false, true] {
        let paths = (0..300).map(|source| {
            let flow = Flow {
                ipv6,
                tcp: false,
                source,
                target: 1,
                ports: (1, 2),
            };
            let whole = frame(flow, 0, 3000);
            router.path(&fragments(&whole, ipv6)[2], Offload::NONE)
        });
        let paths: std::collections::HashSet<Path> = paths.collect();
        assert_eq!(paths.len(), 3, "IPv6 {ipv6}");
    }
}
