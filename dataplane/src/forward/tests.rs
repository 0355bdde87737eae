//! What the witness hears: every step of a decision, in order, and nothing that changes it.
//!
//! In: one small node in both modes, and frames. Out: whole lists of steps.
//! Never: the verdicts themselves; `worker/tests.rs` has them with all their effects.

use super::*;
use crate::addr::{Mac, Station};
use crate::clock::Tick;
use crate::tables::fib::NextHop;
use crate::tables::guard::{Mode, PortGuard};
use crate::tables::{Addresses, Crossing, Owner, Policy, PortSpec, TablesSpec, Unknown};
use crate::verdict::Rewrite;
use etherparse::PacketBuilder;
use proptest::prelude::*;

const ROUTER: Mac = Mac::new([0x0a, 0x58, 10, 244, 1, 1]);
const NIC: Mac = Mac::new([0, 0x0d, 0x3a, 0, 0, 1]);
const POD: Mac = Mac::new([2, 0, 0, 0, 0, 0xa]);
const LEARNED: Mac = Mac::new([2, 0, 0, 0, 0, 0xe]);
const STRANGER: Mac = Mac::new([2, 0, 0, 0, 9, 9]);

const HOST: usize = 0;
const UPLINK: usize = 1;
const A: usize = 2;

fn port(id: usize) -> PortId {
    PortId::new(id).expect("in range")
}

fn tables(routed: bool) -> Tables {
    Tables::build(&spec(routed)).expect("sound")
}

fn spec(routed: bool) -> TablesSpec {
    let row = |id, role, mac| PortSpec {
        id: port(id),
        role,
        mac: Station::new(mac).expect("a station"),
        mtu: 1500,
        hairpin: false,
        isolated: false,
    };
    let net = |text: &str| text.parse().expect("a prefix");
    let pod = NextHop::Station {
        port: port(A),
        mac: POD,
    };
    let far = NextHop::Neighbour([10, 20, 0, 5].into());
    let uplink = Addresses::from(std::net::Ipv4Addr::new(10, 20, 0, 4));
    let gateway = Addresses::from(std::net::Ipv4Addr::new(10, 244, 1, 1));
    TablesSpec {
        ports: vec![
            row(HOST, PortRole::Host, ROUTER),
            row(UPLINK, PortRole::Uplink, NIC),
            row(A, PortRole::Pod, POD),
        ],
        owners: vec![(
            [10, 244, 1, 6].into(),
            Owner {
                port: port(A),
                mac: POD,
            },
        )],
        router_macs: vec![ROUTER],
        routes: vec![
            (net("10.244.1.6/32"), pod),
            (net("10.244.1.0/24"), NextHop::Unreachable),
            (net("10.244.0.0/24"), far),
            (net("0.0.0.0/0"), NextHop::Host),
        ],
        groups: Vec::new(),
        crossing: if routed {
            Crossing::Routed { uplink, gateway }
        } else {
            Crossing::Bridged
        },
        policy: Policy::None,
        unknown: if routed {
            Unknown::Flood
        } else {
            Unknown::Drop
        },
        guards: Vec::new(),
    }
}

fn udp(target: Mac, from: [u8; 4], to: [u8; 4], ttl: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(POD.octets(), target.octets())
        .ipv4(from, to, ttl)
        .udp(1, 2)
        .write(&mut frame, &[0; 100])
        .expect("a vector takes every write");
    frame
}

fn heard(tables: &Tables, frame: &[u8], ingress: usize) -> (Verdict, Vec<Step>) {
    let fdb = Fdb::new(64, 7);
    fdb.learn(
        Station::new(LEARNED).expect("a station"),
        port(A),
        Tick::default(),
    );
    let world = World {
        tables,
        fdb: &fdb,
        neighbours: &Neighbours::default(),
        returns: Some(&Returns::new(16, 7)),
    };
    let view = FrameView::parse(frame).expect("a whole header");
    let mut steps = Vec::new();
    let verdict = decide_before(&view, Offload::NONE, port(ingress), world, &mut steps);
    let unheard = decide(&view, Offload::NONE, port(ingress), world);
    assert_eq!(verdict, unheard, "listening changes nothing");
    (verdict, steps)
}

#[test]
fn a_routed_packet_tells_of_source_route_neighbour_crossing_hops_and_size() {
    let tables = tables(true);
    let frame = udp(ROUTER, [10, 244, 1, 6], [10, 244, 0, 7], 64);
    let far = [10, 20, 0, 5].into();
    let (_, steps) = heard(&tables, &frame, A);
    assert_eq!(
        steps,
        [
            Step::ForRouter { mac: ROUTER },
            Step::Source {
                address: [10, 244, 1, 6].into(),
                martian: false
            },
            Step::Route {
                address: [10, 244, 0, 7].into(),
                hop: Some(NextHop::Neighbour(far))
            },
            Step::Neighbour {
                address: far,
                mac: None
            },
            Step::Crossing {
                egress: port(UPLINK),
                rule: tables.crossing()
            },
            Step::Hops { left: 64 },
            Step::Size {
                bytes: 128,
                mtu: 1500
            },
        ]
    );
}

#[test]
fn a_refusal_is_the_last_thing_told() {
    let routed = tables(true);
    let last = |frame: &[u8], ingress| heard(&routed, frame, ingress).1.pop();
    let pod = [10, 244, 1, 6];
    let rows = [
        (
            udp(ROUTER, [127, 0, 0, 1], pod, 64),
            Step::Source {
                address: [127, 0, 0, 1].into(),
                martian: true,
            },
        ),
        (udp(ROUTER, pod, [10, 244, 0, 7], 1), Step::Hops { left: 1 }),
        (
            udp(ROUTER, pod, pod, 64),
            Step::Hairpin {
                port: port(A),
                allowed: false,
            },
        ),
        (
            udp(POD, pod, pod, 64),
            Step::Hairpin {
                port: port(A),
                allowed: false,
            },
        ),
        (
            udp(STRANGER, pod, pod, 64),
            Step::NoStation {
                mac: STRANGER,
                unknown: Unknown::Flood,
            },
        ),
        (
            udp(Mac::BROADCAST, pod, pod, 64),
            Step::ForGroup {
                mac: Mac::BROADCAST,
            },
        ),
    ];
    for (frame, step) in rows {
        assert_eq!(last(&frame, A), Some(step));
    }
}

#[test]
fn a_link_local_target_is_the_hosts_where_the_tables_say_so_and_nobodys_elsewhere() {
    let ping = |target: &str| {
        let (from, to): (std::net::Ipv6Addr, std::net::Ipv6Addr) = (
            "fc00::6".parse().expect("well-formed"),
            target.parse().expect("well-formed"),
        );
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(POD.octets(), ROUTER.octets())
            .ipv6(from.octets(), to.octets(), 255)
            .icmpv6_echo_request(1, 1)
            .write(&mut frame, &[0; 24])
            .expect("a vector takes every write");
        frame
    };
    let net = |text: &str| text.parse().expect("a prefix");
    let mut spec = spec(true);
    let decided = |spec: &TablesSpec, target: &str| {
        let tables = Tables::build(spec).expect("sound");
        heard(&tables, &ping(target), A).0
    };
    let refused = Verdict::Drop(DropReason::NotRoutable);
    assert_eq!(decided(&spec, "fe80::1"), refused);
    spec.routes.push((net("fe80::/10"), NextHop::Host));
    spec.routes.push((net("::/0"), NextHop::Host));
    // The hop limit stays: the kernel is the next router, and takes its own.
    let to_host = Verdict::Forward {
        egress: port(HOST),
        rewrite: Rewrite {
            target: Some(ROUTER),
            ..Rewrite::KEEP
        },
    };
    assert_eq!(decided(&spec, "fe80::1"), to_host);
    assert_eq!(decided(&spec, "::1"), refused);
}

#[test]
fn a_bridged_frame_tells_how_its_station_is_known() {
    let tables = tables(false);
    for (mac, at, known) in [(POD, A, Known::Configured), (LEARNED, A, Known::Learned)] {
        let frame = udp(mac, [10, 244, 1, 9], [10, 244, 1, 6], 64);
        let (_, steps) = heard(&tables, &frame, HOST);
        let port = port(at);
        assert_eq!(steps, [Step::Station { mac, port, known }]);
    }
}

proptest! {
    /// Nor does the short way, which only `decide` takes.
    #[test]
    fn listening_changes_nothing(
        source in prop::sample::select(vec![POD, ROUTER, LEARNED, STRANGER, NIC]),
        guard in 0_usize..4, policy in any::<bool>(), apart in any::<bool>(),
        target in prop::sample::select(vec![ROUTER, POD, LEARNED, STRANGER, NIC, Mac::BROADCAST]),
        ether_type in prop::sample::select(vec![0x0800u16, 0x0806, 0x86dd, 0x8100]),
        head in prop::sample::select(vec![vec![0x45u8], vec![0x60], vec![0, 1, 8, 0, 6, 4, 0, 1], vec![0, 1, 8, 0, 6, 4, 0, 2]]),
        rest in prop::collection::vec(any::<u8>(), 0..80),
        ingress in 0usize..4, routed in any::<bool>(),
    ) {
        let mut spec = spec(routed);
        spec.ports[HOST].isolated = apart;
        spec.ports[A].isolated = apart;
        let open = PortGuard { stations: Mode::Off, addresses: Mode::Off, ..PortGuard::pod(Mode::Enforce) };
        let guards = [PortGuard::default(), PortGuard::pod(Mode::Enforce), open, PortGuard::host(Mode::Enforce)];
        spec.guards = [HOST, A].map(|at| (port(at), guards[guard].clone())).into();
        if policy {
            spec.policy = Policy::ViaHost;
        }
        let tables = Tables::build(&spec).expect("sound");
        let mut frame = [target.octets(), source.octets()].concat();
        frame.extend(ether_type.to_be_bytes());
        frame.extend(head);
        frame.extend(rest);
        heard(&tables, &frame, ingress);
    }
}
