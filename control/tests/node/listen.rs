//! Somebody listens at the host device, as `tcpdump -i cbr0` does: they see the pods' frames, and the
//! host's own stack sees none of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use control::api::views::WorkerRow;
use control::devices::Netlink;
use control::lab::privilege::PrivateNet;
use control::lab::probe::capture::{Capture, Captured, Recording};
use control::lab::probe::ping::{PingSpec, ping};
use dataplane::capture::CAPTURES_MAX;
use dataplane::port::packet::PacketPort;

use crate::counters::flood;
use crate::world::{Pod, Running, World, address, name, until};

/// Times that somebody listens, between two measurements each. More than a switch serves at once: were
/// the copying to go on when nobody listens, the next listener would be shown nothing.
const LISTENS: usize = if cfg!(debug_assertions) {
    CAPTURES_MAX + 1
} else {
    25
};

/// By how much the rate may be lower, in percent, unless `TAPLINE_LISTEN_PERCENT` says otherwise: what a
/// machine that does much else, or a debug build, makes of two measurements.
const LOWER: f64 = 30.0;

/// Listens as `tcpdump` does, until it is dropped.
fn listener(world: &World) -> PacketPort {
    let open = || {
        let port = PacketPort::open("cbr0")?;
        port.hear_all()?;
        Ok(port)
    };
    world.node.run(open).expect("a packet socket")
}

fn copies(running: &Running) -> serde_json::Value {
    let view: serde_json::Value = running.client.get("/v1/steering").expect("it answers");
    view["copies"].clone()
}

fn until_shown(running: &Running) {
    until("somebody listens, and is shown nothing", || {
        copies(running)["listening"] == true
    });
}

/// What the node's own stack has received: IP packets and ICMP messages.
fn received(world: &World) -> BTreeMap<String, u64> {
    let read = || std::fs::read_to_string("/proc/thread-self/net/snmp");
    let text = world.node.run(read).expect("the kernel counts");
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let mut counts = BTreeMap::new();
    for pair in lines.chunks(2) {
        for (title, count) in pair[0].iter().zip(&pair[1]).skip(1) {
            if ["InReceives", "InMsgs", "InDiscards"].contains(title) {
                let key = format!("{}{title}", pair[0][0]);
                counts.insert(key, count.parse().expect("a number"));
            }
        }
    }
    counts
}

/// Echo requests or replies that came in at the host device between these two.
fn echoes(heard: &Recording, kind: u8, from: IpAddr, to: IpAddr) -> usize {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else {
        return 0;
    };
    let is = |frame: &&Captured| {
        frame.bytes.get(12..14) == Some(&[8, 0])
            && frame.bytes.get(26..30) == Some(&from.octets())
            && frame.bytes.get(30..34) == Some(&to.octets())
            && frame.bytes.get(34) == Some(&kind)
    };
    heard.frames.iter().filter(is).count()
}

pub(crate) fn a_listener_sees_both_directions_and_the_host_none(_: PrivateNet) {
    listen_and_look(&World::kubenet());
}

/// Where broadcasts cannot be told from those for the host, they are not shown.
pub(crate) fn a_listener_sees_no_broadcast_where_a_tap_has_one_queue(_: PrivateNet) {
    let world = World::kubenet();
    let config = world.config();
    let without = r#""features_off": ["multi_queue"], "policy""#;
    world.configure(&config.replace(r#""policy""#, without));
    assert!(!listen_and_look(&world));
}

/// Whether broadcasts were shown.
fn listen_and_look(world: &World) -> bool {
    let running = world.start();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let (a_is, b_is) = (address(&a.added(&running)), address(&b.added(&running)));
    let quiet = world.snapshot();
    assert_eq!(copies(&running)["listening"], false);
    let listening = listener(world);
    until_shown(&running);
    let recording = Capture::start(&world.node, "cbr0").expect("a packet socket");
    let before = received(world);
    let pinged = a.pings(b_is);
    assert_eq!((pinged.received(), pinged.replies.len()), (3, 3));
    // Nobody is there, so the frame waits for its next hop first, and comes again.
    let away: IpAddr = "10.244.0.9".parse().expect("one");
    let spec = PingSpec {
        count: 2,
        timeout: Duration::from_millis(300),
        ..PingSpec::to(away)
    };
    ping(&a.netns, &spec).expect("a socket");
    std::thread::sleep(Duration::from_millis(100));
    let after = received(world);
    let heard = recording.stop().expect("it hears");
    assert_eq!(before, after, "the host's stack saw a copy");
    assert_eq!(echoes(&heard, 8, a_is, b_is), 3, "{:?}", heard.frames);
    assert_eq!(echoes(&heard, 0, b_is, a_is), 3, "{:?}", heard.frames);
    assert_eq!(echoes(&heard, 8, a_is, away), 2, "{:?}", heard.frames);
    let asks = |frame: &&Captured| frame.bytes[..6] == [0xff; 6] && frame.bytes[12..14] == [8, 6];
    let broadcasts = copies(&running)["broadcasts"] == true;
    let asked = heard.frames.iter().any(|frame| asks(&frame));
    assert_eq!(asked, broadcasts, "{:?}", heard.frames);
    let answers = heard.frames.iter().filter(|frame| frame.outgoing).count();
    assert_eq!(answers, 0, "the host answered a copy: {:?}", heard.frames);
    // What passes the host device anyway is seen once.
    let recording = Capture::start(&world.node, "cbr0").expect("a packet socket");
    let gateway: IpAddr = "10.244.1.1".parse().expect("one");
    assert_eq!(a.pings(gateway).received(), 3);
    let heard = recording.stop().expect("it hears");
    assert_eq!(echoes(&heard, 8, a_is, gateway), 3, "{:?}", heard.frames);
    assert_eq!(echoes(&heard, 0, gateway, a_is), 3, "{:?}", heard.frames);
    drop(listening);
    until("it is shown on", || copies(&running)["listening"] == false);
    assert_eq!(world.snapshot(), quiet);
    broadcasts
}

pub(crate) fn no_copy_reaches_the_host_whoever_takes_the_filter_or_kills_the_daemon(_: PrivateNet) {
    listen_while_all_is_taken(&World::kubenet());
}

/// On a kernel that takes no program there is a filter in its place.
pub(crate) fn nor_where_a_kernel_takes_no_program(_: PrivateNet) {
    let world = World::kubenet();
    let config = world.config();
    let without = r#""features_off": ["tcx"], "policy""#;
    world.configure(&config.replace(r#""policy""#, without));
    let by_program = listen_while_all_is_taken(&world);
    assert!(!by_program, "the facility is off");
}

/// Whether a program keeps copies from the host's stack; else a filter does, or nothing.
fn kept_out(net: &Netlink) -> (bool, bool) {
    let host = name("cbr0");
    let program = !net.programs(&host).expect("it answers").is_empty();
    (program, net.drops_copies(&host).expect("it answers"))
}

/// True if a program kept copies from the host's stack.
fn listen_while_all_is_taken(world: &World) -> bool {
    let running = world.start();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let b_is = (a.added(&running), address(&b.added(&running))).1;
    let listening = listener(world);
    until_shown(&running);
    a.pings(b_is);
    let before = received(world);
    let (net, host) = (world.net(), name("cbr0"));
    let kept = kept_out(&net);
    assert!(kept == (true, false) || kept == (false, true), "{kept:?}");
    let clsact = net.has_clsact(&host).expect("it answers");
    assert_eq!(clsact, kept.1, "where a program is, no clsact is added");
    match kept.0 {
        true => net.remove_programs(&host),
        false => net.remove_clsact(&host),
    }
    .expect("somebody may do that");
    assert_eq!(a.pings(b_is).received(), 3);
    until("nobody keeps copies from the host", || {
        kept_out(&net) == kept
    });
    assert_eq!(a.pings(b_is).received(), 3);
    assert_eq!(before, received(world), "the host's stack saw a copy");
    running.kill();
    let devices = net.links().expect("links");
    let way_in = devices.iter().any(|link| link.name == "copies0");
    assert!(!way_in, "a way in is left");
    let running = world.start();
    until_shown(&running);
    assert_eq!(a.pings(b_is).received(), 3);
    drop(listening);
    until("something is left", || {
        kept_out(&net) == (false, false) && !net.has_clsact(&host).expect("it answers")
    });
    assert_eq!(running.stop(), Some(0));
    kept.0
}

/// Frames a second that the switch passes on, over a while.
fn rate(running: &Running) -> f64 {
    let sent = || -> u64 {
        let rows: Vec<WorkerRow> = running.client.get("/v1/workers").expect("it answers");
        rows.iter().map(|row| row.transmitted).sum()
    };
    let (begun, before) = (Instant::now(), sent());
    std::thread::sleep(Duration::from_millis(250));
    (sent() - before) as f64 / begun.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The rate of a flood, before somebody listens and right after: each pair by itself, since a machine's own
/// rate wanders more than the difference that is looked for.
pub(crate) fn the_rate_is_back_when_nobody_listens_any_more(_: PrivateNet) {
    let world = World::kubenet();
    let running = world.start();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let b_is = (a.added(&running), address(&b.added(&running))).1;
    let done = AtomicBool::new(false);
    let (mut ratios, mut meanwhile) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| flood(&a, (b_is, 64), &done));
        let measured = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            std::thread::sleep(Duration::from_millis(200));
            for _ in 0..LISTENS {
                let before = rate(&running);
                let listening = listener(&world);
                until_shown(&running);
                meanwhile.push(rate(&running) / before);
                drop(listening);
                until("it is shown on", || copies(&running)["listening"] == false);
                ratios.push(rate(&running) / before);
            }
        }));
        done.store(true, Ordering::Relaxed);
        measured.unwrap_or_else(|broken| std::panic::resume_unwind(broken));
    });
    let (back, listened) = (median(ratios.clone()), median(meanwhile));
    println!("{listened:.3} of the rate while somebody listens, {back:.3} after; {ratios:.3?}");
    let allowed = std::env::var("TAPLINE_LISTEN_PERCENT").map_or(Ok(LOWER), |text| text.parse());
    let allowed: f64 = allowed.expect("a number");
    // A higher rate than before is not the listener's doing: something else took the processors then.
    assert!((1.0 - back) * 100.0 <= allowed, "{ratios:?}");
}
