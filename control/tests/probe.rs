//! The probes, asked about things that are known: two nodes on a fabric.
//!
//! In: the right to make namespaces. Out: reports, compared with what must be true.
//! Never: measures speed.

mod two_nodes;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use control::lab::fabric::{DEVICE, FabricDrop, VIRTUAL_MAC};
use control::lab::probe::{
    Capture, EchoRequests, Hop, HopProbe, HopsSpec, PathMtuSpec, PingError, PingSpec, TransferSpec,
    hops, path_mtu, pcap, ping, transfer,
};
use two_nodes::*;

fn quick(to: Ipv4Addr, count: u16) -> PingSpec {
    let (interval, timeout) = (Duration::from_millis(10), Duration::from_secs(1));
    PingSpec {
        count,
        interval,
        timeout,
        ..PingSpec::to(IpAddr::V4(to))
    }
}

#[test]
fn a_capture_hears_every_request_with_its_addresses() {
    let nodes = two_nodes();
    let there = Capture::start(&nodes.node_1, DEVICE).expect("a packet socket");
    let here = Capture::start(&nodes.node_0, DEVICE).expect("a packet socket");
    let spec = PingSpec {
        interval: Duration::ZERO,
        ..quick(NODE_1, 50)
    };
    let report = ping(&nodes.node_0, &spec).expect("a raw socket");
    assert_eq!(report.received(), 50);
    let (here, there) = (
        here.stop().expect("it lives"),
        there.stop().expect("it lives"),
    );
    let (source_ip, target_ip) = (IpAddr::V4(NODE_0), IpAddr::V4(NODE_1));
    let left = EchoRequests {
        frames: 50,
        source_ip,
        target_ip,
        source_mac: MAC_0,
        target_mac: VIRTUAL_MAC,
        ttl: 64,
        differing: 0,
    };
    assert_eq!(here.echo_requests(source_ip, target_ip), Some(left));
    let arrived = EchoRequests {
        source_mac: VIRTUAL_MAC,
        target_mac: MAC_1,
        ..left
    };
    assert_eq!(there.echo_requests(source_ip, target_ip), Some(arrived));
    assert_eq!((here.lost, there.lost), (0, 0));
    let first = here.frames.first().expect("an ARP request at least");
    assert!(
        first.outgoing
            && first
                .at
                .elapsed()
                .is_ok_and(|age| age < Duration::from_secs(60))
    );
    let mut file = Vec::new();
    pcap::write(&mut file, &here.frames).expect("a Vec takes every write");
    let bytes: usize = here.frames.iter().map(|frame| 16 + frame.bytes.len()).sum();
    assert_eq!(file.len(), 24 + bytes);
}

#[test]
fn a_capture_needs_its_interface() {
    let ns = namespace("empty");
    let error = Capture::start(&ns, "eth7").expect_err("there is no eth7");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_capture_ends_when_its_interface_is_gone() {
    let nodes = two_nodes();
    let capture = Capture::start(&nodes.node_1, DEVICE).expect("a packet socket");
    nodes.fabric.stop();
    let began = Instant::now();
    capture.stop().expect("a missing interface is a quiet one");
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_transfer_arrives_whole_and_in_frames_of_the_wire() {
    let nodes = two_nodes();
    let capture = Capture::start(&nodes.node_1, DEVICE).expect("a packet socket");
    let bytes = 20 * 1024 * 1024;
    let spec = TransferSpec::to(IpAddr::V4(NODE_1), bytes);
    let report = transfer(&nodes.node_1, &nodes.node_0, &spec).expect("it arrives in time");
    let recording = capture.stop().expect("the socket lives");
    assert!(report.whole(), "{report:?}");
    assert_eq!((report.bytes, report.congestion.as_str()), (bytes, "cubic"));
    assert!(report.gbit_per_second() > 0.0);
    let tcp = recording.tcp(NODE_0.into(), NODE_1.into());
    assert_eq!(
        tcp.longest, 1514,
        "the fabric carries no super-frames: {tcp:?}"
    );
    assert!(nodes.fabric.counters().balanced());
    let refused = nodes.dropped(FabricDrop::TargetRefused);
    assert_eq!(
        nodes.fabric.counters().dropped,
        refused,
        "{:?}",
        nodes.fabric.drops()
    );
}

#[test]
fn a_transfer_to_nobody_ends_in_time() {
    let nodes = two_nodes();
    // The server's address is one that node-0 cannot reach without the route table.
    nodes
        .fabric
        .set_route_table("agents", None)
        .expect("the subnet is there");
    let timeout = Duration::from_millis(300);
    let spec = TransferSpec {
        timeout,
        ..TransferSpec::to(IpAddr::V4(POD_C), 1000)
    };
    let began = Instant::now();
    let error = transfer(&nodes.node_1, &nodes.node_0, &spec).expect_err("nobody answers");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_ping_reports_who_refused_it() {
    let nodes = two_nodes();
    let forward = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
    nodes
        .node_1
        .run(forward)
        .expect("the namespace's own setting");
    // The route table leads to node-1, which has no route to this pod.
    let absent = Ipv4Addr::new(10, 244, 0, 99);
    let began = Instant::now();
    let report = ping(&nodes.node_0, &quick(absent, 1)).expect("a raw socket");
    let what = "network unreachable".to_owned();
    let expected = PingError {
        seq: 1,
        from: Some(NODE_1.into()),
        what,
        mtu: None,
    };
    assert_eq!(report.errors, [expected], "{report:?}");
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "an error ends the wait"
    );
}

#[test]
fn a_neighbour_is_one_hop_away_and_silence_is_a_hop_too() {
    let nodes = two_nodes();
    for (probe, what) in [
        (HopProbe::Udp, "port unreachable"),
        (HopProbe::Echo, "echo reply"),
    ] {
        let spec = HopsSpec::to(NODE_1.into(), probe);
        let report = hops(&nodes.node_0, &spec).expect("a socket");
        let (from, what) = (Some(NODE_1.into()), what.to_owned());
        assert_eq!(report.hops, [Hop { from, what }]);
        let absent = HopsSpec {
            to: Ipv4Addr::new(10, 20, 0, 99).into(),
            hops_max: 2,
            timeout: Duration::from_millis(20),
            ..spec
        };
        let report = hops(&nodes.node_0, &absent).expect("a socket");
        assert_eq!(
            (report.reached(), report.addresses()),
            (false, vec![None; 2])
        );
    }
    let nowhere = hops(
        &namespace("empty"),
        &HopsSpec::to(NODE_1.into(), HopProbe::Udp),
    );
    let report = nowhere.expect("a socket");
    assert!(
        !report.reached() && report.hops[0].what.contains("unreachable"),
        "{report:?}"
    );
}

#[test]
fn the_longest_packet_that_arrives_is_found_though_nobody_says_how_long_it_is() {
    let nodes = two_nodes();
    let spec = |ceiling| PathMtuSpec {
        timeout: Duration::from_millis(50),
        ..PathMtuSpec::to(NODE_1.into(), ceiling)
    };
    let report = path_mtu(&nodes.node_0, &spec(1500)).expect("a raw socket");
    assert_eq!((report.arrived, report.tries), (Some(1500), 2));
    let refused = report.refused.expect("the device's own limit");
    assert_eq!((refused.from, refused.mtu), (None, None));
    // Longer than the device allows: its kernel refuses, and does not say what would do.
    let report = path_mtu(&nodes.node_0, &spec(2000)).expect("a raw socket");
    assert_eq!(report.arrived, Some(1500), "{report:?}");
    assert!(report.tries > 5, "{report:?}");
}

#[test]
fn a_ping_without_a_route_is_a_report_and_not_an_error() {
    let ns = namespace("empty");
    let report = ping(&ns, &quick(NODE_1, 3)).expect("a raw socket");
    assert_eq!((report.sent, report.received()), (0, 0));
    assert_eq!(report.errors.len(), 3);
    assert!(
        report.errors.iter().all(|error| error.from.is_none()),
        "{report:?}"
    );
}

#[test]
fn pings_at_the_same_time_do_not_take_each_others_replies() {
    let nodes = two_nodes();
    let pings = || ping(&nodes.node_0, &quick(NODE_1, 20)).expect("a raw socket");
    let reports = std::thread::scope(|scope| {
        let running: Vec<_> = (0..4).map(|_| scope.spawn(pings)).collect();
        running
            .into_iter()
            .map(|ping| ping.join().expect("no panic"))
            .collect::<Vec<_>>()
    });
    for report in reports {
        assert_eq!(
            (report.received(), report.duplicates),
            (20, 0),
            "{report:?}"
        );
    }
}
