//! The life of a daemon: started, asked, reloaded, stopped, killed, and started again.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use control::api::views::{
    ConflictRow, DropRow, FdbRow, NeighbourRow, PortRow, RouteRow, WorkerRow,
};
use control::api::{ClientError, ErrorKind as Kind};
use control::devices::Netns;
use control::lab::privilege::PrivateNet;
use control::lab::probe::ping::PingReport;
use control::node::features::Feature;
use dataplane::facility::Facility;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::numbers::Numbers;
use crate::world::{Pod, Running, World, address, name, until};

/// The longest time without a delivery over a kill: what the issue allows, and as much again for
/// the debug build and whatever else the machine does.
pub(crate) const OUTAGE_MAX: Duration =
    Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 300 });

pub(crate) fn a_pod_is_added_checked_and_deleted(_: PrivateNet) {
    let world = World::kubenet();
    let running = world.start();
    let before = world.snapshot();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let (to_a, to_b) = (a.added(&running), b.added(&running));
    assert_eq!(address(&to_a).to_string(), "10.244.1.2");
    assert_eq!(address(&to_b).to_string(), "10.244.1.3");
    let names: Vec<&str> = to_a.interfaces.iter().map(|i| i.name.as_str()).collect();
    assert_eq!((names[0], names[2]), ("cbr0", "eth0"));
    assert_eq!(names[1].len(), "veth01234567".len());
    running
        .client
        .check(&a.check(&to_a))
        .expect("right after ADD");
    assert_eq!(a.pings(address(&to_b)).received(), 3);
    let by_host = a.pings(IpAddr::V4(world.other));
    assert_eq!(by_host.received(), 3, "{by_host:?}");
    let again = running.client.add(&a.request());
    assert!(matches!(again, Err(ClientError::Refused(e)) if e.kind == Kind::Exists));
    for pod in [&a, &b] {
        assert_eq!(
            running
                .client
                .del(&pod.del())
                .expect("it goes")
                .removed
                .len(),
            1
        );
        assert!(!pod.has_eth0());
        let twice = running.client.del(&pod.del()).expect("no error");
        assert!(twice.removed.is_empty());
    }
    let gone = running.client.check(&a.check(&to_a));
    assert!(matches!(gone, Err(ClientError::Refused(e)) if e.kind == Kind::NotFound));
    assert_eq!(world.snapshot(), before, "nothing is left");
    assert_eq!(running.stop(), Some(0));
}

pub(crate) fn the_node_loses_nothing_at_start_reload_stop_and_kill(_: PrivateNet) {
    lose_nothing_without(&[]);
}

/// Before Linux 6.6, and in a user namespace.
pub(crate) fn nor_where_a_kernel_takes_no_program(_: PrivateNet) {
    lose_nothing_without(&[Feature::Tcx]);
}

/// Without either the price is a packet when a clsact comes, and one when it goes.
pub(crate) fn and_little_where_it_takes_no_table_either(_: PrivateNet) {
    lose_nothing_without(&[Feature::Tcx, Feature::Nftables]);
}

/// The configuration of a kubenet node that does without some features.
fn configured_without(world: &World, off: &[Feature]) {
    let off = serde_json::to_string(off).expect("names");
    let without = format!(r#""features_off": {off}, "policy""#);
    world.configure(&world.config().replace(r#""policy""#, &without));
}

fn lose_nothing_without(off: &[Feature]) {
    let world = World::kubenet();
    configured_without(&world, off);
    let untouched = world.snapshot();
    let (running, lost) = world.while_the_node_pings(|| world.start());
    assert_lost("start", &lost, world.lost_by_queues(1, off));
    let pod = Pod::new("pod-a");
    let ((), lost) = world.while_the_node_pings(|| drop(pod.added(&running)));
    assert_lossless("ADD", &lost);
    let ((), lost) = world.while_the_node_pings(|| {
        running.signal(Signal::SIGHUP);
        let asked = running
            .client
            .post::<serde_json::Value>("/v1/reload", &serde_json::json!({}));
        asked.expect("the same configuration");
    });
    assert_lossless("reload", &lost);
    let ((), lost) = world.while_the_node_pings(|| running.kill());
    assert_lossless("kill", &lost);
    let (running, lost) = world.while_the_node_pings(|| world.start());
    assert_lossless("start after a kill", &lost);
    running.client.del(&pod.del()).expect("it goes");
    let (status, lost) = world.while_the_node_pings(|| running.stop());
    assert_lost("stop", &lost, world.lost_by_queues(1, off));
    assert_eq!(status, Some(0));
    let eth0 = |lines: &[String]| -> Vec<String> {
        let at = lines.iter().position(|line| line.contains("\"eth0\""));
        lines[at.expect("it is there")..][..3].to_vec()
    };
    assert_eq!(
        eth0(&world.snapshot()),
        eth0(&untouched),
        "eth0 is as it was"
    );
}

/// Datagrams of the node's own that pass `eth0` each second.
const STREAM: u64 = 10_000;

/// What pings every millisecond could miss, ten times as much does not.
pub(crate) fn nor_does_a_fast_stream_of_the_nodes_lose_any_by_a_table(_: PrivateNet) {
    let world = World::kubenet();
    let off = [Feature::Tcx];
    configured_without(&world, &off);
    // Where tables are switched off as well, none is put, and each clsact costs what it costs.
    let by_table = Facility::Nftables.is_allowed();
    let numbers = Numbers::start(&world.node, &world.far, world.other.into(), STREAM);
    for _ in 0..3 {
        let running = world.start();
        let table = world.net().table(&name("eth0")).expect("told");
        assert_eq!(table.is_some_and(|table| table.at_work), by_table);
        let pod = Pod::new("pod-a");
        pod.added(&running);
        running.kill();
        let running = world.start();
        running.client.del(&pod.del()).expect("it goes");
        assert_eq!(running.stop(), Some(0));
        assert_eq!(world.net().table(&name("eth0")).expect("told"), None);
    }
    let arrived = numbers.stop();
    println!("{arrived:?}");
    assert!(arrived.lost == 0 || !by_table, "{arrived:?}");
    assert_eq!(arrived.twice, 0, "{arrived:?}");
    assert!(arrived.sent > 1000, "{arrived:?}");
}

fn assert_lossless(what: &str, report: &PingReport) {
    assert_lost(what, report, 0);
}

/// Lost no more than that many.
fn assert_lost(what: &str, report: &PingReport, most: u64) {
    let lost = report.sent - report.replies.len() as u64;
    let sent = report.sent;
    assert!(lost <= most, "{what}: {lost} of {sent} lost");
    assert_eq!(report.errors, [], "{what}: {sent} sent");
    println!("{what}: {sent} of the node's own pings, {lost} lost");
}

pub(crate) fn a_bad_configuration_leaves_the_old_one_running_and_no_frame_lost(_: PrivateNet) {
    let world = World::kubenet();
    let running = world.start();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    a.added(&running);
    let to_b = b.added(&running);
    let stream = Stream::start(&a, &b, address(&to_b));
    let socket = world.path("tapline.sock");
    let reload = ["reload", "--socket", socket.to_str().expect("a plain path")];
    let good = world.config();
    for (bad, why) in [
        ("{".to_owned(), "EOF"),
        (good.replace("kubenet", "azure"), "truth.sources[0]"),
        (good.replace("10.244.1.0/24", "10.244.1.7/24"), "host bits"),
        (good.replace("node-0", "node-7"), "node cannot change"),
    ] {
        std::thread::sleep(Duration::from_millis(50));
        world.configure(&bad);
        let (status, said) = world.run(&reload);
        assert_eq!(status, Some(2), "{said}");
        assert!(
            said.contains("the old configuration stays") && said.contains(why),
            "{said}"
        );
    }
    world.configure(&good.replace("\"10.0.0.0/16\"", "\"10.0.0.0/16\", \"10.99.0.0/16\""));
    assert_eq!(world.run(&reload), (Some(0), String::new()));
    let routes: Vec<RouteRow> = running.client.get("/v1/routes").expect("a view");
    let new = routes
        .iter()
        .find(|row| row.prefix.to_string() == "10.99.0.0/16");
    assert_eq!(new.expect("it is there").source, "service CIDR");
    let report = stream.stop();
    assert_eq!(report.lost, 0, "{report:?}");
    assert!(report.sent > 100, "{report:?}");
}

pub(crate) fn tcp_survives_a_kill_and_nothing_is_there_twice(_: PrivateNet) {
    let world = World::kubenet();
    let mut running = world.start();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    a.added(&running);
    let to_b = b.added(&running);
    let before = world.snapshot();
    let load = Load::start(&a.netns, &b.netns, address(&to_b));
    for round in 0..3 {
        let stream = Stream::start(&a, &b, address(&to_b));
        std::thread::sleep(Duration::from_millis(200));
        running.kill();
        running = world.start();
        std::thread::sleep(Duration::from_millis(500));
        let report = stream.stop();
        println!("kill {round}: {:?} without a delivery", report.gap);
        assert!(report.gap <= OUTAGE_MAX, "{report:?}");
    }
    let echoed = load.echoed.load(Ordering::Relaxed);
    until("the connection goes on", || {
        load.echoed.load(Ordering::Relaxed) > echoed + 100_000
    });
    load.stop();
    assert_eq!(
        world.snapshot(),
        before,
        "no device, address or filter twice"
    );
    let status = running.status().expect("it answers");
    assert_eq!(status.attachments, 2);
    assert_eq!(status.addresses.expect("a pool").held, 2);
    // Whoever comes next gets the next address: the order is remembered.
    let c = Pod::new("pod-c").added(&running);
    assert_eq!(address(&c).to_string(), "10.244.1.4");
    assert_eq!(running.stop(), Some(0));
}

pub(crate) fn every_view_tells_of_the_pods(_: PrivateNet) {
    let world = World::kubenet();
    let running = world.start();
    let a = Pod::new("pod-a");
    let to_a = a.added(&running);
    a.pings(IpAddr::V4(world.other));
    let get = |running: &Running, view: &str| running.client.text(view).expect("a view");
    let ports: Vec<PortRow> = running.client.get("/v1/ports").expect("a view");
    assert_eq!(ports.len(), 3);
    let row = ports
        .iter()
        .find(|row| row.role == "pod")
        .expect("the pod's");
    assert_eq!(row.name, "default/pod-a");
    assert_eq!(row.container_id.as_deref(), Some("pod-a"));
    assert_eq!(row.addresses[0].addr(), address(&to_a));
    let end = row.pod_end.as_ref().expect("a pod has one");
    let net = control::devices::Netlink::open(&a.netns).expect("a socket");
    assert_eq!(
        end.index,
        Some(net.index(&crate::world::name("eth0")).expect("there"))
    );
    assert!(row.traffic.received > 0 && row.tap.running);
    let routes: Vec<RouteRow> = running.client.get("/v1/routes").expect("a view");
    let source = |prefix: &str| {
        let mut rows = routes.iter().filter(|row| row.active);
        let row = rows.find(|row| row.prefix.to_string() == prefix);
        row.map(|row| row.source.as_str())
    };
    assert_eq!(source("10.244.1.2/32"), Some("default/pod-a"));
    assert_eq!(source("10.244.0.0/24"), Some("configuration"));
    let fdb: Vec<FdbRow> = running.client.get("/v1/fdb").expect("a view");
    assert!(
        fdb.iter()
            .any(|row| row.fixed && row.name == "default/pod-a")
    );
    let _: Vec<NeighbourRow> = running.client.get("/v1/neighbours").expect("a view");
    let _: Vec<DropRow> = running.client.get("/v1/drops").expect("a view");
    let _: Vec<ConflictRow> = running.client.get("/v1/conflicts").expect("a view");
    let workers: Vec<WorkerRow> = running.client.get("/v1/workers").expect("a view");
    assert_eq!(workers.len(), 1);
    assert!(workers[0].received > 0);
    assert!(get(&running, "/v1/version").contains("\"api\""));
    let trace = |request: serde_json::Value| -> serde_json::Value {
        running.client.post("/v1/trace", &request).expect("a trace")
    };
    let far = trace(json!({"from": "pod-a", "to": "10.244.0.7", "protocol": "tcp", "port": 80}));
    assert_eq!(far["hops"][0]["ingress"], "default/pod-a");
    let route = far["hops"][0]["steps"].as_array().expect("steps").iter();
    let mut route = route.filter(|step| step["step"] == "route");
    assert_eq!(route.next().expect("one")["source"], "configuration");
    let own = trace(json!({"from": "host", "to": address(&to_a)}));
    assert_eq!(
        (&own["end"]["outcome"], &own["end"]["at"][0]),
        (&json!("delivered"), &json!("default/pod-a"))
    );
    let nobody = trace(json!({"from": "uplink", "source": "10.244.0.7", "to": "10.244.1.99"}));
    assert_eq!(nobody["end"]["drop"]["reason"], "no_such_pod");
    let unknown = running
        .client
        .post::<serde_json::Value>("/v1/trace", &json!({"from": "pod-z"}));
    assert!(matches!(unknown, Err(ClientError::Refused(e)) if e.kind == Kind::NotFound));
}

/// Datagrams from one pod to another, one a millisecond, each with its number.
pub(crate) struct Stream {
    done: std::sync::Arc<AtomicBool>,
    sender: std::thread::JoinHandle<u32>,
    receiver: std::thread::JoinHandle<(u32, Duration)>,
}

/// What became of a stream.
#[derive(Debug)]
pub(crate) struct StreamReport {
    pub(crate) sent: u32,
    /// Below zero if some came twice.
    pub(crate) lost: i64,
    /// The longest time between two deliveries.
    pub(crate) gap: Duration,
}

impl Stream {
    pub(crate) fn start(from: &Pod, to: &Pod, at: IpAddr) -> Stream {
        let done = std::sync::Arc::new(AtomicBool::new(false));
        let receiver = to.netns.run(|| UdpSocket::bind(SocketAddr::new(at, 0)));
        let receiver = receiver.expect("a socket");
        let target = receiver.local_addr().expect("bound");
        let sender = from
            .netns
            .run(|| UdpSocket::bind("0.0.0.0:0"))
            .expect("a socket");
        receiver
            .set_read_timeout(Some(Duration::from_millis(300)))
            .expect("settable");
        let stopped = std::sync::Arc::clone(&done);
        let sending = std::thread::spawn(move || {
            let mut sent = 0;
            while !stopped.load(Ordering::Relaxed) {
                // While the switch is away the kernel may say that nobody is there.
                if sender.send_to(&[0; 100], target).is_ok() {
                    sent += 1;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            sent
        });
        let stopped = std::sync::Arc::clone(&done);
        let receiving = std::thread::spawn(move || {
            let (mut count, mut gap) = (0, Duration::ZERO);
            let mut last: Option<Instant> = None;
            let mut buffer = [0; 200];
            loop {
                match receiver.recv(&mut buffer) {
                    Ok(_) => {
                        count += 1;
                        let now = Instant::now();
                        gap = gap.max(last.map_or(Duration::ZERO, |last| now - last));
                        last = Some(now);
                    }
                    Err(_) if stopped.load(Ordering::Relaxed) => return (count, gap),
                    Err(_) => {}
                }
            }
        });
        Stream {
            done,
            sender: sending,
            receiver: receiving,
        }
    }

    pub(crate) fn stop(self) -> StreamReport {
        self.done.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("it sends");
        let (received, gap) = self.receiver.join().expect("it receives");
        StreamReport {
            sent,
            lost: i64::from(sent) - i64::from(received),
            gap,
        }
    }
}

/// One TCP connection from namespace to namespace over which as much is echoed as goes.
pub(crate) struct Load {
    done: std::sync::Arc<AtomicBool>,
    pub(crate) echoed: std::sync::Arc<std::sync::atomic::AtomicU64>,
    client: std::thread::JoinHandle<()>,
    server: std::thread::JoinHandle<()>,
}

impl Load {
    pub(crate) fn start(from: &Netns, to: &Netns, at: IpAddr) -> Load {
        Load::paced(from, to, at, Duration::ZERO)
    }

    /// With a pause after each 16 KB that came back.
    pub(crate) fn paced(from: &Netns, to: &Netns, at: IpAddr, pause: Duration) -> Load {
        let listener = to.run(|| TcpListener::bind(SocketAddr::new(at, 0)));
        let listener = listener.expect("a socket");
        let target = listener.local_addr().expect("bound");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody connects");
            let mut buffer = [0; 16_384];
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(length) => stream.write_all(&buffer[..length]).expect("it lives"),
                    Err(error) => panic!("the connection broke: {error}"),
                }
            }
        });
        let client = from.run(|| TcpStream::connect(target));
        let mut client = client.expect("it connects");
        let done = std::sync::Arc::new(AtomicBool::new(false));
        let echoed = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let (stopped, counted) = (done.clone(), echoed.clone());
        let client = std::thread::spawn(move || {
            let mut buffer = [7; 16_384];
            while !stopped.load(Ordering::Relaxed) {
                client.write_all(&buffer).expect("it lives");
                match client.read_exact(&mut buffer) {
                    Ok(()) => {
                        counted.fetch_add(buffer.len() as u64, Ordering::Relaxed);
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => panic!("the connection broke: {error}"),
                }
                if !pause.is_zero() {
                    std::thread::sleep(pause);
                }
            }
        });
        Load {
            done,
            echoed,
            client,
            server,
        }
    }

    pub(crate) fn stop(self) {
        self.done.store(true, Ordering::Relaxed);
        self.client.join().expect("it lived");
        self.server.join().expect("it lived");
    }
}
