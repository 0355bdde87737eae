//! What the node says counts: nobody is attached before it has spoken, and those who were are served
//! all the same.
//!
//! In: an azure node, and a stand-in for Azure's wireserver inside it. Out: addresses that are the
//! NIC's, differences that are told, frames that go on.
//! Never: takes an address from the plan.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use control::api::types::ErrorKind;
use control::api::{Client, ClientError};
use control::lab::privilege::PrivateNet;
use control::lab::probe::ping::{PingSpec, ping};
use control::node::standin::Manners;

use crate::life::{OUTAGE_MAX, Stream};
use crate::world::{Pod, Running, World, address, until};

const METRICS: &str = "127.0.0.1:9469";

/// The rows that the node's Prometheus would fetch.
fn metrics(world: &World) -> BTreeMap<String, u64> {
    let text = world.node.run(|| {
        let mut stream = TcpStream::connect(METRICS)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    let text = text.expect("metrics are served");
    let (_, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let rows = body.lines().filter(|line| !line.starts_with('#'));
    let row = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse::<f64>().ok()? as u64))
    };
    rows.filter_map(row).collect()
}

/// ADD is refused because nobody has told whose the addresses are.
fn is_refused(client: &Client, pod: &Pod) {
    match client.add(&pod.request()) {
        Err(ClientError::Refused(error)) => {
            assert_eq!(error.kind, ErrorKind::NotReady, "{error}");
            let why = error.to_string();
            assert!(why.contains("nobody knows which addresses"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!pod.has_eth0());
}

pub(crate) fn an_azure_node_serves_no_add_until_the_wireserver_has_spoken(_: PrivateNet) {
    let world = World::azure();
    // Wrong by the addresses, and by a node that is elsewhere.
    let more = format!(
        r#""plan": {{"addresses": ["10.20.0.9"], "pods": ["10.20.0.5/32"]}},
           "metrics": {{"listen": "{METRICS}"}},"#
    );
    world.configure(&world.azure_config(&more));
    let running = world.spawn(&mut world.command());
    let pod = Pod::new("pod-a");
    until("it says what it waits for", || {
        let told = running.status().ok().and_then(|status| status.error);
        told.is_some_and(|error| error.message.contains("nobody knows which addresses"))
    });
    is_refused(&running.client, &pod);
    until("metrics are served", || {
        world
            .node
            .run(|| TcpStream::connect(METRICS).map(drop))
            .is_ok()
    });
    let before = metrics(&world);
    assert_eq!(
        (before["tapline_ready"], before["tapline_truth_known"]),
        (0, 0)
    );
    let wireserver = world.wireserver(Manners::Good);
    running.wait_until_ready();
    let own = address(&pod.added(&running));
    assert!(
        world.secondary().iter().any(|ip| IpAddr::V4(*ip) == own),
        "{own}"
    );
    assert_eq!(pod.pings(world.other.into()).received(), 3);
    let after = metrics(&world);
    assert_eq!(
        (after["tapline_ready"], after["tapline_truth_known"]),
        (1, 1)
    );
    assert_eq!(after["tapline_attachments"], 1);
    assert_eq!(after["tapline_addresses"], world.secondary().len() as u64);
    assert!(after["tapline_plan_differences"] > 0, "{after:?}");
    world.silence(wireserver);
    // What was learned stays learned.
    assert_eq!(pod.pings(world.other.into()).received(), 3);
    assert_eq!(running.stop(), Some(0));
}

/// Pods reach each other, their node reaches them, and so does the other node.
fn all_reach(world: &World, (a, to_a): (&Pod, IpAddr), (_, to_b): (&Pod, IpAddr), when: &str) {
    for (who, from, to) in [
        ("pod to pod", &a.netns, to_b),
        ("pod to the other node", &a.netns, world.other.into()),
        ("node to pod", &world.node, to_a),
        ("the other node to pod", &world.far, to_b),
    ] {
        let spec = PingSpec {
            count: 3,
            ..PingSpec::to(to)
        };
        let report = ping(from, &spec).expect("a socket");
        assert_eq!(report.received(), 3, "{when}, {who}: {report:?}");
    }
}

/// Waits until it serves those attached, and says that it knows no more.
fn is_provisional(running: &Running) {
    until("those attached are served", || {
        running.status().is_ok_and(|status| {
            let waits = status
                .error
                .as_ref()
                .is_some_and(|e| e.kind == ErrorKind::NotReady);
            status.attachments == 2 && waits
        })
    });
}

fn served_before_it_has_spoken(
    world: &World,
    silence: impl Fn() -> Option<control::node::standin::StandIn>,
) {
    let wireserver = world.wireserver(Manners::Good);
    let running = world.start();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let (to_a, to_b) = (address(&a.added(&running)), address(&b.added(&running)));
    all_reach(world, (&a, to_a), (&b, to_b), "before");
    let devices = world.devices();
    let stream = Stream::start(&a, &b, to_b);
    std::thread::sleep(Duration::from_millis(100));
    running.kill();
    world.silence(wireserver);
    let silent = silence();
    let running = world.spawn(&mut world.command());
    is_provisional(&running);
    std::thread::sleep(Duration::from_millis(300));
    let report = stream.stop();
    println!(
        "{:?} without a delivery, and no word from Azure",
        report.gap
    );
    assert!(report.gap <= OUTAGE_MAX, "{report:?}");
    all_reach(world, (&a, to_a), (&b, to_b), "while nobody knows");
    assert_eq!(world.devices(), devices);
    let c = Pod::new("pod-c");
    until("it says why", || {
        let told = running.status().ok().and_then(|status| status.error);
        told.is_some_and(|error| error.message.contains("nobody knows which addresses"))
    });
    is_refused(&running.client, &c);
    if let Some(silent) = silent {
        world.silence(silent);
    }
    let _wireserver = world.wireserver(Manners::Good);
    running.wait_until_ready();
    let to_c = address(&c.added(&running));
    assert!(to_c != to_a && to_c != to_b);
    all_reach(world, (&c, to_c), (&b, to_b), "when it is known again");
    let total = running.status().expect("it answers").addresses;
    let total = total.expect("a pool");
    assert_eq!(
        (total.total, total.held),
        (world.secondary().len() as u64, 3)
    );
    assert_eq!(
        running.client.del(&a.del()).expect("it goes").removed.len(),
        1
    );
    assert_eq!(running.stop(), Some(0));
}

pub(crate) fn pods_attached_before_are_served_before_the_node_has_spoken(_: PrivateNet) {
    served_before_it_has_spoken(&World::azure(), || None);
}

pub(crate) fn a_wireserver_that_is_slow_keeps_no_pod_waiting(_: PrivateNet) {
    let world = World::azure();
    served_before_it_has_spoken(&world, || Some(world.wireserver(Manners::Slow)));
}

pub(crate) fn a_known_node_is_asked_again_and_may_have_more_addresses(_: PrivateNet) {
    let mut world = World::azure();
    let config = world.azure_config("");
    let asked_often = config.replace(
        r#""timeout_ms": 2000"#,
        r#""timeout_ms": 2000, "refresh_s": 1"#,
    );
    assert_ne!(config, asked_often);
    world.configure(&asked_often);
    let all = world.plan.nodes[0].pod_ips.clone();
    let pod_ips = world.plan.nodes[0].pod_ips.as_mut().expect("azure's pods");
    pod_ips.last = pod_ips.first;
    let wireserver = world.wireserver(Manners::Good);
    let running = world.start();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let to_a = address(&a.added(&running));
    let total = || running.status().ok()?.addresses.map(|pool| pool.total);
    assert_eq!(total(), Some(1));
    assert!(running.client.add(&b.request()).is_err());
    // A source that is silent for a while takes nothing away.
    world.silence(wireserver);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(total(), Some(1));
    assert_eq!(a.pings(world.other.into()).received(), 3);
    world.plan.nodes[0].pod_ips = all;
    let _wireserver = world.wireserver(Manners::Good);
    let given = world.secondary().len() as u64;
    until("the new addresses are given", || total() == Some(given));
    assert_ne!(address(&b.added(&running)), to_a);
    assert_eq!(b.pings(to_a).received(), 3);
    assert_eq!(running.stop(), Some(0));
}

pub(crate) fn a_kubenet_node_carries_on_by_what_its_pods_have(_: PrivateNet) {
    let world = World::kubenet();
    let object = world.path("node.json");
    let text = r#"{"kind": "Node", "metadata": {"name": "node-0"}, "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]}}"#;
    std::fs::write(&object, text).expect("written");
    let sources = format!(
        r#""sources": ["node_object"], "node_object": "{}""#,
        object.display()
    );
    let by_hand = r#""sources": ["pod_cidr"], "pod_cidr": ["10.244.1.0/24"]"#;
    world.configure(&world.config().replace(by_hand, &sources));
    let running = world.start();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let (to_a, to_b) = (address(&a.added(&running)), address(&b.added(&running)));
    running.kill();
    std::fs::remove_file(&object).expect("it was there");
    let running = world.spawn(&mut world.command());
    is_provisional(&running);
    assert_eq!(a.pings(to_b).received(), 3);
    assert_eq!(b.pings(to_a).received(), 3);
    assert_eq!(a.pings(world.other.into()).received(), 3);
    is_refused(&running.client, &Pod::new("pod-c"));
    running
        .client
        .del(&b.del())
        .expect("a DEL goes all the same");
    std::fs::write(&object, text).expect("written");
    running.wait_until_ready();
    // The order is remembered.
    let to_c = address(&Pod::new("pod-c").added(&running));
    assert_eq!(to_c.to_string(), "10.244.1.4");
}
