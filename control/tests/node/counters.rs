//! While frames move, whoever asks is told the same: each answer keeps the law of conservation by itself,
//! and one that was asked between two others lies between them.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, Ordering};

use control::api::views::{DropRow, PortRow, Traffic, WorkerRow};
use control::lab::privilege::PrivateNet;
use control::node::features;

use crate::upgrade::{Orphans, upgraded};
use crate::world::{Pod, Running, World, address, until};

/// Questions under traffic, each of them to every view.
const ROUNDS: usize = 60;

/// The exported counters, by name and labels.
struct Exported(BTreeMap<String, u64>);

impl Exported {
    fn of(running: &Running) -> Exported {
        let text = running.client.text("/v1/metrics").expect("it answers");
        let rows = text.lines().filter(|line| !line.starts_with('#'));
        let row = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Exported(rows.filter_map(row).collect())
    }

    /// The sum of a family's rows.
    fn sum(&self, family: &str) -> u64 {
        let of = |name: &str| name.split('{').next() == Some(family);
        let rows = self.0.iter().filter(|(name, _)| of(name));
        rows.map(|(_, value)| value).sum()
    }

    /// No counter has fallen since `before`: to Prometheus that would be a restart.
    fn fell_since(&self, before: &Exported) -> Vec<String> {
        let counters = before.0.iter().filter(|(name, _)| name.contains("_total"));
        let fell = counters.filter(|(name, was)| self.0.get(*name).is_none_or(|now| now < was));
        fell.map(|(name, was)| format!("{name}: {was} to {:?}", self.0.get(name)))
            .collect()
    }

    fn frames(&self, what: &str) -> u64 {
        self.sum(&format!("tapline_frames_{what}_total"))
    }

    /// Every frame has come from somewhere and gone somewhere, and ports have counted all of them.
    fn keeps_the_law(&self) {
        let came = self.frames("received") + self.frames("originated") + self.frames("copied");
        let went = self.frames("transmitted") + self.frames("dropped") + self.frames("punted");
        let queued = self.sum("tapline_frames_queued");
        assert_eq!(came, went + queued, "{:?}", self.0);
        for what in ["received", "transmitted"] {
            let by_role = self.sum(&format!("tapline_port_{what}_frames_total"));
            assert_eq!(by_role, self.frames(what), "{what}: {:?}", self.0);
        }
    }
}

/// What one visit to every view tells.
#[derive(Debug)]
struct Views {
    ports: Vec<PortRow>,
    drops: Vec<DropRow>,
    workers: Vec<WorkerRow>,
}

impl Views {
    fn of(running: &Running) -> Views {
        let client = &running.client;
        Views {
            ports: client.get("/v1/ports").expect("it answers"),
            drops: client.get("/v1/drops").expect("it answers"),
            workers: client.get("/v1/workers").expect("it answers"),
        }
    }

    fn keep_the_law(&self) {
        for one in &self.workers {
            let came = one.received + one.originated + one.copied;
            let went = one.transmitted + one.dropped + one.punted + one.queued;
            assert_eq!(came, went, "{one:?}");
        }
        for row in &self.drops {
            assert_eq!(row.frames, row.ports.values().sum::<u64>(), "{row:?}");
        }
    }

    /// Every counter here beside its name in the metrics.
    fn totals(&self) -> Vec<(&'static str, u64)> {
        let ports = |of: fn(&PortRow) -> u64| self.ports.iter().map(of).sum();
        let workers = |of: fn(&WorkerRow) -> u64| self.workers.iter().map(of).sum();
        vec![
            (
                "tapline_frames_received_total",
                ports(|row| row.traffic.received),
            ),
            (
                "tapline_frames_transmitted_total",
                ports(|row| row.traffic.transmitted),
            ),
            (
                "tapline_frames_dropped_total",
                ports(|row| row.traffic.dropped),
            ),
            (
                "tapline_port_received_bytes_total",
                ports(|row| row.traffic.received_bytes),
            ),
            (
                "tapline_port_transmitted_bytes_total",
                ports(|row| row.traffic.transmitted_bytes),
            ),
            (
                "tapline_frames_dropped_total",
                self.drops.iter().map(|row| row.frames).sum(),
            ),
            ("tapline_frames_received_total", workers(|row| row.received)),
            (
                "tapline_frames_originated_total",
                workers(|row| row.originated),
            ),
            ("tapline_frames_copied_total", workers(|row| row.copied)),
            (
                "tapline_frames_transmitted_total",
                workers(|row| row.transmitted),
            ),
            ("tapline_frames_punted_total", workers(|row| row.punted)),
            ("tapline_frames_dropped_total", workers(|row| row.dropped)),
            (
                "tapline_super_frames_received_total",
                workers(|row| row.super_frames),
            ),
            (
                "tapline_icmp_errors_suppressed_total",
                workers(|row| row.errors_suppressed),
            ),
        ]
    }
}

/// Sends datagrams from a pod as fast as it can until `done`.
pub(crate) fn flood(pod: &Pod, (to, ttl): (IpAddr, u32), done: &AtomicBool) {
    let send = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_ttl(ttl)?;
        while !done.load(Ordering::Relaxed) {
            // A port that nobody has open answers by an error, and that is traffic as well.
            let _ = socket.send_to(&[7; 64], (to, 9));
        }
        Ok(())
    };
    pod.netns.run(send).expect("a socket");
}

fn agree(world: &World, workers: usize) {
    let running = world.start();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let b_is = (a.added(&running), address(&b.added(&running))).1;
    // One hop is too few to leave the node.
    let far: (IpAddr, u32) = ("10.244.0.9".parse().expect("one"), 1);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| flood(&a, (b_is, 64), &done));
        scope.spawn(|| flood(&b, far, &done));
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut before = Exported::of(&running);
            let begun = before.frames("received");
            for _ in 0..ROUNDS {
                let views = Views::of(&running);
                let after = Exported::of(&running);
                after.keeps_the_law();
                views.keep_the_law();
                assert_eq!(views.workers.len(), workers);
                for (name, count) in views.totals() {
                    let within = before.sum(name)..=after.sum(name);
                    assert!(
                        within.contains(&count),
                        "{name}: {count} is not in {within:?}"
                    );
                }
                before = after;
            }
            assert!(before.frames("received") > begun + 1000, "nothing moved");
            assert!(before.frames("dropped") > 0, "nothing died");
        }));
        done.store(true, Ordering::Relaxed);
        asked.unwrap_or_else(|broken| std::panic::resume_unwind(broken));
    });
    // At rest there is one truth.
    until("the counters do not agree at rest", || {
        let (views, exported) = (Views::of(&running), Exported::of(&running));
        let mut totals = views.totals().into_iter();
        totals.all(|(name, count)| exported.sum(name) == count)
    });
}

pub(crate) fn every_answer_keeps_the_law_while_frames_move(_: PrivateNet) {
    agree(&World::kubenet(), 1);
}

pub(crate) fn so_does_every_answer_of_two_workers(_: PrivateNet) {
    let world = World::kubenet();
    let config = world.config();
    world.configure(&config.replace(r#""policy""#, r#""workers": 2, "policy""#));
    // Where a TAP has one queue there is one worker, whatever is wanted.
    let findings = features::probe().expect("a namespace to try in");
    let two = NonZeroU16::new(2).expect("two");
    agree(&world, features::workers(two, &findings).get().into());
}

/// The counters of the one port that has this number.
fn counted(running: &Running, pod: &Pod) -> (usize, Traffic) {
    let rows: Vec<PortRow> = running.client.get("/v1/ports").expect("it answers");
    let mut rows = rows.into_iter();
    let row = rows.find(|row| row.container_id.as_deref() == Some(pod.id.as_str()));
    let row = row.expect("it is attached");
    (row.port, row.traffic)
}

pub(crate) fn a_pod_has_no_counters_of_the_one_before_and_no_sum_falls(_: PrivateNet) {
    let _orphans = Orphans::adopted();
    let world = World::kubenet();
    let running = world.start();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    a.added(&running);
    let to_b = address(&b.added(&running));
    for _ in 0..20 {
        assert_eq!(a.pings(to_b).received(), 3);
    }
    let (number, of_a) = counted(&running, &a);
    assert!(of_a.received >= 60 && of_a.transmitted >= 60, "{of_a:?}");
    let mut before = Exported::of(&running);
    let mut since = |what: &str| {
        let now = Exported::of(&running);
        assert_eq!(now.fell_since(&before), Vec::<String>::new(), "{what}");
        now.keeps_the_law();
        before = now;
    };
    running.client.del(&a.del()).expect("it goes");
    since("a pod has gone");
    // Who goes on gives numbers from the lowest again.
    upgraded(&running.client);
    until("it serves", || running.status().is_ok());
    since("another daemon counts on");
    let heir = Pod::new("heir");
    heir.added(&running);
    let (port, heir) = counted(&running, &heir);
    assert_eq!(port, number);
    // What a kernel says of itself when a device comes up is little.
    assert!(heir.received < 10 && heir.transmitted < 30, "{heir:?}");
    assert_eq!(heir.received_bytes / 1000, 0, "{heir:?}");
    since("another has its number");
}
