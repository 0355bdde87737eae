//! A rule of the node's own between two pods holds at every moment, whatever changes around it.
//!
//! In: a node whose configuration says nothing of policy, and a FORWARD chain that drops pod-a to
//! pod-b. Out: how many packets pod-b's kernel received, while pod-a sends all the time.
//! Never: looks at UDP alone: pod-b's kernel counts every IPv4 packet, fragments and SYNs included.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use control::devices::Netns;
use control::lab::privilege::PrivateNet;
use control::node::standin::Manners;
use nix::sys::signal::Signal;

use crate::life::Stream;
use crate::nft::{self, Chain};
use crate::world::{Pod, Running, World, address, until};

/// Datagrams, some of them in fragments, and attempts to connect, from one pod to another.
struct Pump {
    done: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Pump {
    fn start(from: &Pod, to: IpAddr) -> Pump {
        let done = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (Arc::clone(&done), Arc::clone(&sent));
        let netns = from.netns.clone();
        let thread = std::thread::spawn(move || {
            let socket = netns.run(|| UdpSocket::bind("0.0.0.0:0")).expect("bound");
            let target = SocketAddr::new(to, 9);
            for round in 0_u64.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let length = if round.is_multiple_of(8) { 3000 } else { 100 };
                // While there is no daemon the pod's kernel may find nobody to send to.
                if socket.send_to(&vec![7; length], target).is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                if round.is_multiple_of(64) {
                    let connect = || TcpStream::connect_timeout(&target, Duration::from_millis(2));
                    let _ = netns.run(connect);
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        Pump { done, sent, thread }
    }

    fn stop(self) -> u64 {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().expect("it sends");
        self.sent.load(Ordering::Relaxed)
    }
}

/// IPv4 packets that the kernel of a namespace has received.
fn received(netns: &Netns) -> u64 {
    let text = netns.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"));
    let text = text.expect("readable");
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, values) = (rows.next().expect("names"), rows.next().expect("values"));
    let mut both = names.split(' ').zip(values.split(' '));
    let found = both.find(|(name, _)| *name == "InReceives");
    found.expect("it is counted").1.parse().expect("a number")
}

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(v6) => panic!("{v6}"),
    }
}

/// Everything that changes tables: pods that come and go, reloads, restarts.
fn change(world: &World, mut running: Running, text: &str) -> Running {
    let more = text.replace("\"10.0.0.0/16\"", "\"10.0.0.0/16\", \"10.99.0.0/16\"");
    for round in 0..3 {
        let pods: Vec<Pod> = (0..4)
            .map(|at| Pod::new(&format!("more-{round}-{at}")))
            .collect();
        for pod in &pods {
            pod.added(&running);
        }
        for text in [more.as_str(), text] {
            world.configure(text);
            let asked = running
                .client
                .post::<serde_json::Value>("/v1/reload", &serde_json::json!({}));
            asked.expect("a good configuration");
        }
        running.signal(Signal::SIGHUP);
        for pod in &pods {
            running.client.del(&pod.del()).expect("it goes");
        }
        match round {
            0 => running.kill(),
            _ => assert_eq!(running.stop(), Some(0)),
        }
        running = world.start();
    }
    running
}

fn holds(world: &World, text: &str) {
    world.configure(text);
    let running = world.start();
    let (a, b, c) = (Pod::new("pod-a"), Pod::new("pod-b"), Pod::new("pod-c"));
    let (to_a, to_b) = (address(&a.added(&running)), address(&b.added(&running)));
    c.added(&running);
    assert_eq!(a.pings(to_b).ttl(), Some(63), "by way of the node's kernel");
    let rule = [nft::from(v4(to_a)), nft::to(v4(to_b)), nft::drop_it()].concat();
    let chain = Chain {
        name: "FORWARD",
        hook: Some(("filter", nft::FORWARD, 0)),
        rules: vec![rule],
    };
    nft::load(&world.node, "filter", &[chain]);
    let before = received(&b.netns);
    let pump = Pump::start(&a, to_b);
    let others = Stream::start(&c, &a, to_a);
    std::thread::sleep(Duration::from_millis(200));
    let running = change(world, running, text);
    std::thread::sleep(Duration::from_millis(200));
    let others = others.stop();
    assert!(
        i64::from(others.sent) > 2 * others.lost,
        "the rest goes on: {others:?}"
    );
    assert_eq!(received(&b.netns), before, "pod-b got what is forbidden");
    nft::unload(&world.node, "filter");
    until("without the rule all of it arrives", || {
        received(&b.netns) > before + 100
    });
    println!(
        "{} datagrams, and nothing arrived while it was forbidden",
        pump.stop()
    );
    assert_eq!(running.stop(), Some(0));
}

/// The configuration without a word of policy: then it fails closed.
fn unsaid(text: &str) -> String {
    let unsaid = text.replace("\"policy\": \"none\",", "");
    assert_ne!(unsaid, text);
    unsaid
}

pub(crate) fn a_forward_drop_holds_at_every_moment_under_kubenet(_: PrivateNet) {
    let world = World::kubenet();
    holds(&world, &unsaid(&world.config()));
}

pub(crate) fn a_forward_drop_holds_at_every_moment_under_azure(_: PrivateNet) {
    let world = World::azure();
    let _wireserver = world.wireserver(Manners::Good);
    holds(&world, &unsaid(&world.azure_config("")));
}
