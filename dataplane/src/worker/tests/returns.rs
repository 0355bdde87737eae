//! What came through the host returns through it, and nothing else does; and under policy all does.

use super::*;
use crate::frame::tuple::{Ports, Tuple};
use crate::tables::Policy;
use crate::tables::returns::Totals;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// One of the two modes: its tables, and who is who in it.
struct Mode {
    spec: TablesSpec,
    a: &'static str,
    b: &'static str,
    /// A pod on another node.
    far: &'static str,
    /// What a pod addresses to its router, and the host's own address.
    router: Mac,
    host: Mac,
}

const SERVICE: &str = "10.0.77.1";
const NODE: &str = "10.20.0.4";

fn modes() -> [Mode; 2] {
    let azure = Mode {
        spec: azure(),
        a: "10.20.0.31",
        b: "10.20.0.32",
        far: "10.20.0.43",
        router: FABRIC,
        host: NIC,
    };
    // Where a far pod's address has been heard, so that nothing waits for it.
    let mut spec = kubenet();
    let far = NextHop::Station {
        port: port(UPLINK),
        mac: FABRIC,
    };
    spec.routes
        .retain(|(prefix, _)| *prefix != net("10.244.0.0/24"));
    spec.routes.push((net("10.244.0.0/24"), far));
    let kubenet = Mode {
        spec,
        a: "10.244.1.6",
        b: "10.244.1.7",
        far: "10.244.0.9",
        router: GATEWAY,
        host: GATEWAY,
    };
    [azure, kubenet]
}

impl Mode {
    fn rig(&self) -> Rig {
        Rig::new(&self.spec)
    }

    fn under_policy(mut self) -> Mode {
        self.spec.policy = Policy::ViaHost;
        self
    }

    /// A frame from `at` as that port would send it: pods to each other by MAC, all else routed.
    fn packet(&self, at: usize, from: (&str, u16), to: (&str, u16), kind: Kind) -> Vec<u8> {
        let source = [self.host, FABRIC, POD_A, POD_B][at];
        let target = match (at, to.0) {
            (UPLINK, _) => NIC,
            (_, pod) if pod == self.a => POD_A,
            (_, pod) if pod == self.b => POD_B,
            _ => self.router,
        };
        let mut frame = Vec::new();
        let step = PacketBuilder::ethernet2(source.octets(), target.octets());
        let step = step.ipv4(ip(from.0).octets(), ip(to.0).octets(), 64);
        let tcp = |step: etherparse::PacketBuilderStep<etherparse::IpHeaders>| {
            step.tcp(from.1, to.1, 1, 1000)
        };
        match kind {
            Kind::Udp => step.udp(from.1, to.1).write(&mut frame, &[0; 16]),
            Kind::Syn => tcp(step).syn().write(&mut frame, &[]),
            Kind::Tcp => tcp(step).ack(1).write(&mut frame, &[]),
            Kind::Fin => tcp(step).ack(1).fin().write(&mut frame, &[]),
        }
        .expect("a vector takes every write");
        frame
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Udp,
    Syn,
    Tcp,
    Fin,
}

#[test]
fn a_service_with_its_backend_on_the_same_node_is_answered_through_the_host() {
    for (mode, kind) in modes().into_iter().flat_map(|mode| {
        [(Kind::Udp), (Kind::Tcp)].map(|kind| {
            (
                Mode {
                    spec: mode.spec.clone(),
                    ..mode
                },
                kind,
            )
        })
    }) {
        let (a, b) = (mode.a, mode.b);
        let mut rig = mode.rig();
        rig.goes(A, &mode.packet(A, (a, 5000), (SERVICE, 80), kind), HOST);
        rig.goes(HOST, &mode.packet(HOST, (a, 5000), (b, 8080), kind), B);
        let seen = rig.goes(B, &mode.packet(B, (b, 8080), (a, 5000), kind), HOST);
        assert_eq!(
            (seen.source.mac(), seen.target, ttl(&seen)),
            (POD_B, mode.host, 64)
        );
        rig.goes(HOST, &mode.packet(HOST, (SERVICE, 80), (a, 5000), kind), A);
        // From another port, directly, in both directions.
        let seen = rig.goes(A, &mode.packet(A, (a, 5001), (b, 8080), kind), B);
        assert_eq!(
            (seen.source.mac(), seen.target, ttl(&seen)),
            (POD_A, POD_B, 64)
        );
        rig.goes(B, &mode.packet(B, (b, 8080), (a, 5001), kind), A);
        assert_eq!(rig.worker.returns().totals().returned, 1);
    }
}

#[test]
fn a_backend_on_another_node_answers_through_the_host_an_address_pair_never_seen() {
    for mode in modes() {
        let (a, far) = (mode.a, mode.far);
        let mut rig = mode.rig();
        let answer = |port: u16| mode.packet(UPLINK, (far, 80), (a, port), Kind::Tcp);
        rig.goes(UPLINK, &answer(5000), A);
        rig.goes(
            A,
            &mode.packet(A, (a, 5000), (SERVICE, 80), Kind::Syn),
            HOST,
        );
        let seen = rig.goes(UPLINK, &answer(5000), HOST);
        assert_eq!(
            (seen.target, ttl(&seen)),
            (mode.host, 64),
            "the kernel takes its own hop"
        );
        rig.goes(UPLINK, &answer(5001), A);
        // What the pod sends there itself from that port is answered directly.
        rig.goes(A, &mode.packet(A, (a, 5000), (far, 80), Kind::Tcp), UPLINK);
        rig.goes(UPLINK, &answer(5000), A);
        // Once the port is silent for long, nothing is left of it.
        rig.goes(
            A,
            &mode.packet(A, (a, 5000), (SERVICE, 80), Kind::Fin),
            HOST,
        );
        rig.goes(A, &mode.packet(A, (a, 5000), (far, 80), Kind::Fin), UPLINK);
        rig.now += 400_000;
        for _ in 0..3 {
            rig.now += 100;
            rig.breathe();
        }
        assert_eq!(rig.worker.returns().totals().live, 0);
        rig.goes(UPLINK, &answer(5000), A);
    }
}

#[test]
fn a_host_port_is_answered_through_the_host_even_to_another_node() {
    for mode in modes() {
        let (a, b, far) = (mode.a, mode.b, mode.far);
        let mut rig = mode.rig();
        // A client beyond the fabric, and a probe of the node's own.
        for client in [(far, 7777), (NODE, 9999)] {
            rig.goes(HOST, &mode.packet(HOST, client, (b, 80), Kind::Syn), B);
            rig.goes(B, &mode.packet(B, (b, 80), client, Kind::Tcp), HOST);
        }
        // Whom it serves through the host makes it no client of the host.
        rig.goes(A, &mode.packet(A, (a, 5000), (b, 80), Kind::Tcp), B);
        rig.goes(
            UPLINK,
            &mode.packet(UPLINK, (far, 1234), (b, 80), Kind::Tcp),
            B,
        );
        rig.goes(B, &mode.packet(B, (b, 80), (far, 1234), Kind::Tcp), UPLINK);
        // The same client, directly: who carried it last counts.
        rig.goes(
            UPLINK,
            &mode.packet(UPLINK, (far, 7777), (b, 80), Kind::Tcp),
            B,
        );
        rig.goes(B, &mode.packet(B, (b, 80), (far, 7777), Kind::Tcp), UPLINK);
    }
}

#[test]
fn a_listener_taken_for_a_client_is_set_right_by_the_next_that_knocks() {
    // As after a restart in the middle of an answer.
    let [mode, _] = modes();
    let (a, b) = (mode.a, mode.b);
    let mut rig = mode.rig();
    rig.goes(B, &mode.packet(B, (b, 80), (NODE, 9999), Kind::Tcp), HOST);
    rig.goes(A, &mode.packet(A, (a, 5000), (b, 80), Kind::Tcp), HOST);
    rig.goes(
        HOST,
        &mode.packet(HOST, (NODE, 9998), (b, 80), Kind::Syn),
        B,
    );
    rig.goes(A, &mode.packet(A, (a, 5001), (b, 80), Kind::Tcp), B);
}

#[test]
fn errors_and_fragments_follow_the_conversation_that_they_belong_to() {
    let [mode, _] = modes();
    let (a, b, far) = (mode.a, mode.b, mode.far);
    let mut rig = mode.rig();
    rig.goes(
        A,
        &mode.packet(A, (a, 5000), (SERVICE, 53), Kind::Udp),
        HOST,
    );
    let error = |quoted_from: u16| {
        let mut quoted = Vec::new();
        PacketBuilder::ipv4(ip(a).octets(), ip(far).octets(), 60)
            .udp(quoted_from, 53)
            .write(&mut quoted, &[0; 8])
            .expect("a vector takes every write");
        let mut frame = Vec::new();
        let kind = etherparse::icmpv4::DestUnreachableHeader::Port;
        PacketBuilder::ethernet2(FABRIC.octets(), NIC.octets())
            .ipv4(ip(far).octets(), ip(a).octets(), 64)
            .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(kind))
            .write(&mut frame, &quoted)
            .expect("a vector takes every write");
        frame
    };
    rig.goes(UPLINK, &error(5000), HOST);
    rig.goes(UPLINK, &error(5001), A);
    let fragment = |at: usize, from: (&str, u16), to: (&str, u16), word: u16| {
        let mut frame = mode.packet(at, from, to, Kind::Udp);
        frame[20..22].copy_from_slice(&word.to_be_bytes());
        frame[24..26].fill(0);
        let header = frame[14..34].first_chunk().expect("twenty bytes");
        let sum = !crate::frame::checksum::header_sum(header);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    // Both fragments of an answer, of which only the first has ports.
    for word in [0x2000, 0x0064] {
        rig.goes(UPLINK, &fragment(UPLINK, (far, 53), (a, 5000), word), HOST);
    }
    // A whole question through the host, answered in fragments by a pod that asked nobody.
    rig.goes(HOST, &mode.packet(HOST, (far, 900), (b, 53), Kind::Udp), B);
    for word in [0x2000, 0x0064] {
        rig.goes(B, &fragment(B, (b, 53), (far, 900), word), HOST);
    }
}

#[test]
fn both_families_and_the_end_of_a_port() {
    let mut spec = errors::dual();
    spec.routes.push((net("::/0"), NextHop::Host));
    let mut rig = Rig::new(&spec);
    let packet = |source: Mac, target: Mac, from: &str, to: &str, ports: (u16, u16)| {
        let octets = |text: &str| match text.parse().expect("an address") {
            IpAddr::V6(v6) => v6.octets(),
            IpAddr::V4(_) => panic!("IPv6 here"),
        };
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(source.octets(), target.octets())
            .ipv6(octets(from), octets(to), 64)
            .udp(ports.0, ports.1)
            .write(&mut frame, &[0; 16])
            .expect("a vector takes every write");
        frame
    };
    let (a, b, service) = ("fd00:0:0:1::6", "fd00:0:0:1::7", "fd00:99::1");
    let question = packet(POD_A, GATEWAY, a, service, (5000, 53));
    rig.goes(A, &question, HOST);
    rig.goes(HOST, &packet(GATEWAY, POD_B, a, b, (5000, 53)), B);
    let answer = packet(POD_B, POD_A, b, a, (53, 5000));
    rig.goes(B, &answer, HOST);
    let live = rig.worker.returns().totals().live;
    assert_eq!(live, 4, "an endpoint and a tuple, with ports and without");
    let end = rig.worker.detach(port(B)).expect("it was attached");
    assert_eq!(rig.worker.returns().totals().live, 2);
    rig.worker.attach(port(B), end);
    rig.goes(B, &answer, HOST);
    let end = rig.worker.detach(port(A)).expect("it was attached");
    rig.worker.attach(port(A), end);
    rig.goes(B, &answer, A);
    let totals = Totals {
        added: 4,
        expired: 4,
        returned: 2,
        ..Totals::default()
    };
    assert_eq!(rig.worker.returns().totals(), totals);
}

/// The host may speak to a pod between its port's going and the tables that say so, or before the
/// port has come. Whoever has the place next must not be taken for that pod.
#[test]
fn what_is_known_of_a_port_that_is_not_there_goes_with_it_too() {
    for mode in modes() {
        let mut rig = mode.rig();
        assert!(rig.worker.detach(port(B)).is_some(), "it was attached");
        let (from, to) = ((SERVICE, 80), (mode.b, 5000));
        let frame = mode.packet(HOST, from, to, Kind::Udp);
        rig.dies(HOST, &frame, DropReason::PortDown);
        let noted = Totals {
            live: 2,
            added: 2,
            ..Totals::default()
        };
        assert_eq!(rig.worker.returns().totals(), noted);
        assert!(rig.worker.detach(port(B)).is_none());
        let forgotten = Totals {
            live: 0,
            expired: 2,
            ..noted
        };
        assert_eq!(rig.worker.returns().totals(), forgotten);
    }
}

#[test]
fn under_policy_pods_hear_from_nobody_but_the_host() {
    for mode in modes().map(Mode::under_policy) {
        let (a, b, far) = (mode.a, mode.b, mode.far);
        let mut rig = mode.rig();
        for (at, from, to) in [
            (A, a, b),
            (A, a, far),
            (A, a, SERVICE),
            (B, b, a),
            (UPLINK, far, a),
        ] {
            let seen = rig.goes(at, &mode.packet(at, (from, 1), (to, 2), Kind::Udp), HOST);
            assert_eq!((seen.target, ttl(&seen)), (mode.host, 64), "{from} > {to}");
        }
        // By an address that belongs to nobody, as by the router's.
        rig.goes(A, &ping(POD_A, STRANGER, a, b, 64), HOST);
        rig.goes(
            A,
            &ping(POD_A, Mac::BROADCAST, a, "255.255.255.255", 64),
            HOST,
        );
        rig.dies(
            A,
            &ping(POD_A, POD_B, a, "127.0.0.1", 64),
            DropReason::NotRoutable,
        );
        let mut other = ping(POD_A, POD_B, a, b, 64);
        other[12..14].copy_from_slice(&[0x88, 0xb5]);
        rig.goes(A, &other, HOST);
        let seen = rig.goes(HOST, &mode.packet(HOST, (a, 1), (b, 2), Kind::Udp), B);
        assert_eq!(seen.target, POD_B);
        assert_eq!(
            rig.worker.returns().totals(),
            Totals::default(),
            "nothing to remember"
        );
    }
}

#[test]
fn under_policy_without_a_host_port_nothing_passes() {
    let [mode, _] = modes().map(Mode::under_policy);
    let mut spec = mode.spec.clone();
    spec.ports.remove(HOST);
    spec.owners.remove(0);
    spec.routes.retain(|(_, hop)| *hop != NextHop::Host);
    let publisher = Publisher::new(Tables::build(&spec).expect("sound"));
    let mut rig = mode.rig();
    rig.worker = Worker::new(publisher.reader(), Arc::new(Fdb::new(64, 1)), FRAME_MAX);
    let (end, peer) = pair(8);
    rig.worker.attach(port(A), end);
    rig.peers[A] = peer;
    let frame = mode.packet(A, (mode.a, 1), (mode.b, 2), Kind::Udp);
    rig.dies(A, &frame, DropReason::NoEgress);
    rig.dies(
        A,
        &ping(POD_A, Mac::BROADCAST, mode.a, "10.20.0.255", 64),
        DropReason::NoEgress,
    );
}

/// The rules, as plainly as they can be put: no ports without ports, no time, no bounds.
#[derive(Default)]
struct Model {
    host_carried: BTreeMap<Tuple, bool>,
    spoke: BTreeSet<(IpAddr, u16)>,
}

impl Model {
    /// Where a frame goes that would go to `egress`.
    fn pass(&mut self, at: usize, egress: usize, own: Tuple, kind: Kind) -> usize {
        let answers = own.reversed();
        let end = |tuple: Tuple| match tuple.ports {
            Ports::Known(source, _) => (tuple.source, source),
            Ports::Hidden => unreachable!("no fragments here"),
        };
        let carried = |model: &Model, tuple| model.host_carried.get(&tuple).copied();
        if at == HOST {
            self.host_carried.insert(own, true);
            if kind == Kind::Syn {
                self.spoke.remove(&end(answers));
            }
            return egress;
        }
        if egress == HOST {
            if self.spoke.contains(&end(own)) || carried(self, answers) != Some(true) {
                self.spoke.insert(end(own));
            }
            return HOST;
        }
        let by_host = match carried(self, answers) {
            Some(by_host) => by_host,
            None => egress != UPLINK && self.spoke.contains(&end(answers)),
        };
        if by_host {
            return HOST;
        }
        let noted = at != UPLINK && self.spoke.contains(&end(own));
        if noted || carried(self, own) == Some(true) {
            self.host_carried.insert(own, false);
        }
        egress
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_run_of_frames_goes_as_the_rules_say(
        azure in any::<bool>(),
        frames in prop::collection::vec(
            (0usize..4, 0usize..6, 0usize..6, 0u16..2, 0u16..2, 0usize..3), 1..200),
    ) {
        let [first, second] = modes();
        let mode = if azure { first } else { second };
        let (mut rig, mut model) = (mode.rig(), Model::default());
        let places = [mode.a, mode.b, mode.far, SERVICE, NODE, "8.8.8.8"];
        let ports = [A, B, UPLINK, HOST, HOST, HOST];
        for (at, from, to, source_port, target_port, kind) in frames {
            // Each port speaks in the names that lie behind it.
            let egress = ports[to];
            let behind = match at {
                HOST => from != to,
                UPLINK => ports[from] == UPLINK,
                _ => ports[from] == at,
            };
            let inward = [HOST, UPLINK].contains(&at) && ![A, B].contains(&egress);
            if !behind || inward || egress == at {
                continue;
            }
            let kind = [Kind::Syn, Kind::Tcp, Kind::Fin][kind];
            let frame = mode.packet(at, (places[from], source_port), (places[to], target_port), kind);
            let own = Tuple {
                source: ip(places[from]).into(),
                target: ip(places[to]).into(),
                protocol: crate::frame::transport::TCP,
                ports: Ports::Known(source_port, target_port),
            };
            let wanted = model.pass(at, egress, own, kind);
            rig.goes(at, &frame, wanted);
        }
    }
}
