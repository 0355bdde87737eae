//! A long time at half of the highest rate, while control changes the tables every 10 ms.
//!
//! In: how long. Out: a [`Soaked`]: frames, losses, memory; the caller says what may be.
//! Never: a device: one worker on memory ports, on this thread, so a frame that is missing was lost
//! by the switch. The pace alone is the clock's. Nor hurries: who is held up by others on the machine
//! takes longer for as many frames and tables, since to catch up would be another rate.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::compile::{FABRIC_MAC, FIRST_POD_PORT, HOST_PORT, PodPort, UPLINK_PORT, compile};
use dataplane::addr::{Mac, PortId, Station};
use dataplane::clock::Tick;
use dataplane::port::Capabilities;
use dataplane::port::memory::{MemoryPort, Peer, pair};
use dataplane::snapshot::Publisher;
use dataplane::stats::Counts;
use dataplane::tables::fdb::Fdb;
use dataplane::tables::{Tables, TablesSpec};
use dataplane::worker::Worker;

use super::site::{Place, Site, sites};
use super::traffic::{self, Tag};

/// Between two changes of the tables.
const CHANGE: Duration = Duration::from_millis(10);
/// Frames of one flow handed in together: a burst.
const BURST: usize = 64;
/// Frames that a port holds.
const DEPTH: usize = 256;
/// Bytes of padding: a frame of about 100 bytes.
const PADDING: usize = 40;
/// Pods, of which the last two come and go.
const PODS: usize = 4;
const FRAME_LEN_MAX: usize = 2048;
/// For the highest rate.
const TRIAL: Duration = Duration::from_secs(1);

/// What a soak came to.
#[derive(Clone, Copy, Debug)]
pub struct Soaked {
    /// Frames a second without a pause.
    pub highest: f64,
    /// Frames a second that were asked for.
    pub rate: f64,
    /// Frames that were sent.
    pub sent: u64,
    /// Of these, frames that came out where they should.
    pub arrived: u64,
    /// Tables that were published.
    pub published: u64,
    /// How long it took: longer than asked for, where the machine had other things to do.
    pub took: Duration,
    /// What the switch counted.
    pub counts: Counts,
    /// Resident memory in bytes: after a tenth of the time, and at the end.
    pub resident: (u64, u64),
}

struct Flow {
    from: PortId,
    to: PortId,
    frame: Vec<u8>,
}

struct Bench {
    site: &'static Site,
    publisher: Publisher<Tables>,
    worker: Worker<MemoryPort>,
    peers: BTreeMap<PortId, Peer>,
    flows: Vec<Flow>,
    started: Instant,
    sent: u64,
    arrived: u64,
    published: u64,
}

/// Soaks for so long; `tick` is told the part that is done.
#[must_use]
pub fn soak(time: Duration, mut tick: impl FnMut(Duration)) -> Soaked {
    let mut bench = Bench::new();
    let trial = Instant::now();
    while trial.elapsed() < TRIAL {
        bench.slice(1024);
    }
    let highest = bench.sent as f64 / trial.elapsed().as_secs_f64();
    let rate = highest / 2.0;
    let frames = (rate * CHANGE.as_secs_f64()) as usize;
    let slices = time.div_duration_f64(CHANGE).ceil() as u32;
    let began = Instant::now();
    let (mut due, mut first) = (began, 0);
    for slice in 1..=slices {
        bench.slice(frames);
        if slice == slices.div_ceil(10) {
            first = resident();
        }
        tick(CHANGE * slice);
        due = Instant::now().max(due + CHANGE);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Soaked {
        highest,
        rate,
        sent: bench.sent,
        arrived: bench.arrived,
        published: bench.published,
        took: began.elapsed(),
        counts: bench.worker.board().counts(),
        resident: (first, resident()),
    }
}

impl Bench {
    fn new() -> Bench {
        // Azure without network policy: bridged, routed in, routed out.
        let site = &sites()[1];
        let place = &site.places[0];
        let publisher = Publisher::new(tables(&spec(site, place, PODS)));
        let fdb = Arc::new(Fdb::new(1024, 7));
        let mut worker = Worker::new(publisher.reader(), fdb, FRAME_LEN_MAX);
        let mut peers = BTreeMap::new();
        for port in [HOST_PORT, UPLINK_PORT]
            .into_iter()
            .chain((0..PODS).map(port))
        {
            let (end, peer) = pair(DEPTH);
            let wire = port == UPLINK_PORT;
            let end = if wire {
                end.with(Capabilities::WIRE)
            } else {
                end
            };
            worker.attach(port, end);
            peers.insert(port, peer);
        }
        Bench {
            flows: flows(site),
            site,
            publisher,
            worker,
            peers,
            started: Instant::now(),
            sent: 0,
            arrived: 0,
            published: 0,
        }
    }

    /// A change of the tables, and so many frames.
    fn slice(&mut self, frames: usize) {
        let pods = PODS - (self.published % 3) as usize;
        let spec = spec(self.site, &self.site.places[0], pods);
        self.publisher.publish(tables(&spec));
        self.published += 1;
        let until = self.sent + frames as u64;
        while self.sent < until {
            for at in 0..self.flows.len() {
                self.burst(at);
            }
            self.breathe();
        }
        self.publisher.reclaim();
    }

    fn burst(&mut self, at: usize) {
        let Flow { from, frame, .. } = &self.flows[at];
        for _ in 0..BURST {
            let taken = self.peers[from].send(frame);
            taken.expect("a port holds more than a burst, and was emptied");
            self.sent += 1;
        }
        self.worker.wake(*from);
    }

    /// Until all is out. What is announced to pods is no frame of a flow.
    fn breathe(&mut self) {
        let now = Tick::of(self.started.elapsed());
        while self.worker.breathe(now).more {
            self.drain();
        }
        self.drain();
    }

    fn drain(&mut self) {
        for (port, peer) in &self.peers {
            while let Some(frame) = peer.receive() {
                let tag = traffic::read(&frame.bytes);
                let flow = tag.and_then(|tag| self.flows.get(tag.flow as usize));
                self.arrived += u64::from(flow.is_some_and(|flow| flow.to == *port));
                peer.recycle(frame);
            }
        }
    }
}

fn port(pod: usize) -> PortId {
    PortId::new(FIRST_POD_PORT + pod).expect("a few pods")
}

fn pod_mac(pod: usize) -> Mac {
    Mac::new([0x0a, 0x58, 0, 0, 0, 1 + pod as u8])
}

fn spec(site: &Site, place: &Place, pods: usize) -> TablesSpec {
    let pod = |pod: usize| {
        let mac = Station::new(pod_mac(pod)).expect("neither group nor zero");
        PodPort::new(port(pod), mac, place.addresses[pod].clone())
    };
    let pods: Vec<PodPort> = (0..pods).map(pod).collect();
    compile(&site.plan, &place.node, place.macs, &pods)
}

fn tables(spec: &TablesSpec) -> Tables {
    Tables::build(spec).unwrap_or_else(|faults| panic!("control made no table: {faults:?}"))
}

/// From pod to pod, from a pod out, and from outside to a pod.
fn flows(site: &Site) -> Vec<Flow> {
    let (here, there) = (&site.places[0], &site.places[1]);
    let own = |pod: usize| -> IpAddr { here.addresses[pod][0] };
    let far = there.addresses[0][0];
    let ends = [
        (port(0), port(1), (pod_mac(0), own(0)), (pod_mac(1), own(1))),
        (
            port(1),
            UPLINK_PORT,
            (pod_mac(1), own(1)),
            (FABRIC_MAC, far),
        ),
        (
            UPLINK_PORT,
            port(0),
            (FABRIC_MAC, far),
            (here.macs.nic.mac(), own(0)),
        ),
    ];
    let mut flows = Vec::new();
    for (at, (from, to, source, target)) in ends.into_iter().enumerate() {
        let tag = Tag {
            flow: at as u32,
            number: 0,
            sent_to: target.0,
        };
        let frame = traffic::frame(tag, source.0, source.1, target.1, PADDING);
        flows.push(Flow { from, to, frame });
    }
    flows
}

/// Resident memory of this process in bytes; 0 where the kernel does not say.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
