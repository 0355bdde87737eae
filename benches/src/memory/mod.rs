//! The shipped worker without a kernel around it, beside DPDK.
//!
//! In: a scenario and a time. Out: frames forwarded a second by one core, or cycles a look-up.
//! Never: a worker other than the shipped one: it learns, ages, guards, counts and checks its books.
//!
//! Frames come from a [`NullPort`], which copies 64 bytes in and 64 bytes out and does nothing
//! else, as DPDK's `net_null` with `copy=1`. Beside it the same through the dataplane's memory
//! ports, whose queues cost more than the worker.

pub mod dpdk;
mod routes;

use std::hint::black_box;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::addr::{Mac, PortId};
use dataplane::bucket::Rate;
use dataplane::buffer::{FRAME_MAX, Frame, Pool};
use dataplane::clock::Monotonic;
use dataplane::port::{BURST_FRAMES, Port, Ready, Taken, memory};
use dataplane::snapshot::Publisher;
use dataplane::tables::fdb::{CAPACITY_DEFAULT, Fdb};
use dataplane::tables::fib::NextHop;
use dataplane::tables::guard::{Mode, PortGuard, Rates};
use dataplane::tables::{
    Addresses, Crossing, Policy, PortRole, PortSpec, Tables, TablesSpec, Unknown,
};
use dataplane::verdict::DropReason;
use dataplane::worker::Worker;
use ipnet::{IpNet, Ipv4Net};

use crate::names::{Metric, Scenario};
use crate::topo::{Unbuilt, station};

/// What a scenario came to: metric, value, settings.
pub type Found = Vec<(Metric, f64, String)>;

/// Length of every frame, FCS not counted.
const FRAME: usize = 64;
/// What differs from frame to frame: both MACs, and the target's IP address.
const HEADER: usize = 34;
/// Routes each way in the routed scenario.
const ROUTES: usize = 1000;
/// The switch's own address.
const ROUTER: [u8; 6] = [0x00, 0x0d, 0x3a, 0, 0, 1];
/// Breaths between two looks at the clock.
const BREATHS: usize = 64;
/// Room of a memory port.
const QUEUE: usize = 256;

/// Measures one scenario.
///
/// # Errors
/// That the worker did not forward every frame.
pub fn run(scenario: Scenario, time: Duration) -> Result<Found, Unbuilt> {
    match scenario {
        Scenario::CoreL2 => forward(&bridged(1000), time),
        Scenario::CoreL2Large => forward(&bridged(65_536), time),
        Scenario::CoreL3 => forward(&routed(), time),
        Scenario::CoreLpm => routes::run(time),
        _ => Err("it is measured between pods".into()),
    }
}

/// What two ports hand in, and the tables they need.
struct Workload {
    tables: TablesSpec,
    /// For each port, the headers of its frames, in order.
    headers: [Arc<[[u8; HEADER]]>; 2],
    stations: usize,
    says: String,
}

fn forward(work: &Workload, time: Duration) -> Result<Found, Unbuilt> {
    let settings =
        |ports: &str| format!("one core, {FRAME} bytes, guards on, {}, {ports}", work.says);
    let null = null_ports(work, time)?;
    let queued = memory_ports(work, time / 2)?;
    Ok(vec![
        (Metric::Mpps, null, settings("copied in and out")),
        (
            Metric::MppsMemoryPorts,
            queued,
            settings("queues of memory ports included"),
        ),
    ])
}

fn worker<P: Port>(work: &Workload) -> Result<(Worker<P>, Publisher<Tables>), Unbuilt> {
    let tables = Tables::build(&work.tables).map_err(|faults| format!("{faults:?}"))?;
    let publisher = Publisher::new(tables);
    // Half full at most, as the default is for the pods of a node.
    let room = (2 * work.stations).max(CAPACITY_DEFAULT);
    let fdb = Arc::new(Fdb::new(room, 0x5eed));
    let worker = Worker::new(publisher.reader(), fdb, FRAME_MAX);
    Ok((worker, publisher))
}

/// Millions of frames a second by way of null ports.
fn null_ports(work: &Workload, time: Duration) -> Result<f64, Unbuilt> {
    let (mut worker, _publisher) = worker(work)?;
    for (at, headers) in work.headers.iter().enumerate() {
        worker.attach(port(at), NullPort::new(Arc::clone(headers)));
    }
    let clock = Monotonic::start();
    // Once through all frames, so that every station is known and every page touched.
    let frames = work.headers[0].len();
    for _ in 0..2 * frames.div_ceil(BURST_FRAMES) {
        worker.breathe(clock.tick());
    }
    let board = Arc::clone(worker.board());
    let before = board.counts();
    let began = Instant::now();
    while began.elapsed() < time {
        for _ in 0..BREATHS {
            black_box(worker.breathe(clock.tick()));
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let counts = board.counts().since(&before);
    if counts.transmitted != counts.received || counts.copied != 0 {
        return Err(format!("not every frame was forwarded: {counts}").into());
    }
    Ok(counts.transmitted as f64 / seconds / 1e6)
}

/// Millions of frames a second by way of memory ports; filling and emptying them is not counted.
fn memory_ports(work: &Workload, time: Duration) -> Result<f64, Unbuilt> {
    let (mut worker, _publisher) = worker(work)?;
    let mut peers = Vec::new();
    for at in 0..2 {
        let (inner, peer) = memory::pair(QUEUE);
        worker.attach(port(at), inner);
        peers.push(peer);
    }
    let clock = Monotonic::start();
    let (mut frames, mut spent, mut next) = (0_usize, Duration::ZERO, 0);
    let began = Instant::now();
    while began.elapsed() < time {
        for (peer, headers) in peers.iter().zip(&work.headers) {
            for at in 0..QUEUE {
                let _ = peer.send(&frame(&headers[(next + at) % headers.len()]));
            }
        }
        next += QUEUE;
        worker.wake_all();
        let start = Instant::now();
        while worker.breathe(clock.tick()).more {}
        spent += start.elapsed();
        for peer in &peers {
            while let Some(got) = peer.receive() {
                frames += 1;
                peer.recycle(got);
            }
        }
    }
    Ok(frames as f64 / spent.as_secs_f64() / 1e6)
}

/// Hands in frames without end, and takes what it is given: one copy each, no queue.
struct NullPort {
    headers: Arc<[[u8; HEADER]]>,
    next: usize,
    template: [u8; FRAME],
    sink: Box<[[u8; FRAME]; BURST_FRAMES]>,
    taken: usize,
}

impl NullPort {
    fn new(headers: Arc<[[u8; HEADER]]>) -> NullPort {
        NullPort {
            template: frame(&headers[0]),
            headers,
            next: 0,
            sink: Box::new([[0; FRAME]; BURST_FRAMES]),
            taken: 0,
        }
    }
}

impl Port for NullPort {
    #[inline]
    fn receive(&mut self, most: usize, pool: &mut Pool, into: &mut Vec<Frame>) -> Ready {
        let start = into.len();
        pool.take_all(most, into);
        for frame in &mut into[start..] {
            let room = pool.room(frame).first_chunk_mut::<FRAME>();
            let room = room.expect("a slot holds a frame of 64 bytes");
            *room = self.template;
            room[..HEADER].copy_from_slice(&self.headers[self.next]);
            self.next += 1;
            if self.next == self.headers.len() {
                self.next = 0;
            }
            frame.set_len(FRAME);
        }
        Ready::More
    }

    #[inline]
    fn transmit(&mut self, frame: &Frame, pool: &mut Pool) -> Result<Taken, DropReason> {
        let bytes = pool.bytes(frame);
        let slot = &mut self.sink[self.taken % BURST_FRAMES];
        self.taken = self.taken.wrapping_add(1);
        match bytes.first_chunk() {
            Some(whole) => *slot = *whole,
            None => slot[..bytes.len()].copy_from_slice(bytes),
        }
        black_box(slot);
        Ok(Taken::Now)
    }

    fn descriptor(&self) -> Option<RawFd> {
        None
    }
}

/// `stations` of them, half behind each port; every frame goes from one side to the other.
fn bridged(stations: usize) -> Workload {
    let mac = |side: usize, at: usize| {
        [
            0x02,
            side as u8,
            0,
            (at >> 16) as u8,
            (at >> 8) as u8,
            at as u8,
        ]
    };
    let half = stations / 2;
    let mut order = Shuffle(7);
    let mut headers = |side: usize| {
        let mut sources: Vec<usize> = (0..half).collect();
        let mut targets = sources.clone();
        order.shuffle(&mut sources);
        order.shuffle(&mut targets);
        let pairs = sources.into_iter().zip(targets);
        pairs
            .map(|(source, target)| header(mac(1 - side, target), mac(side, source), [10, 0, 0, 1]))
            .collect()
    };
    Workload {
        headers: [headers(0), headers(1)],
        tables: spec(PortRole::Pod, Vec::new(), Crossing::Bridged),
        stations,
        says: format!("{stations} MACs learned, in random order"),
    }
}

/// Every frame is for the router: from the uplink to a pod's address, and from the pods out.
fn routed() -> Workload {
    let pod = |at: usize| [10, 244, (at >> 8) as u8, at as u8];
    let far = |at: usize| [172, 16 + (at >> 8) as u8, at as u8, 7];
    let source = |side: u8| [0x02, side, 0, 0, 0, 9];
    let hop = |port_at: usize, at: usize| NextHop::Station {
        port: port(port_at),
        mac: Mac::new([0x02, 9, port_at as u8, 0, (at >> 8) as u8, at as u8]),
    };
    let net = |address: [u8; 4], length| {
        IpNet::V4(Ipv4Net::new(address.into(), length).expect("a legal length")).trunc()
    };
    let to_pods = (0..ROUTES).map(|at| (net(pod(at), 32), hop(0, at)));
    let out = (0..ROUTES).map(|at| (net(far(at), 24), hop(1, at)));
    let mut order = Shuffle(7);
    let mut headers = |side: u8, target: &dyn Fn(usize) -> [u8; 4]| {
        let mut targets: Vec<usize> = (0..ROUTES).collect();
        order.shuffle(&mut targets);
        targets
            .into_iter()
            .map(|at| header(ROUTER, source(side), target(at)))
            .collect()
    };
    let crossing = Crossing::Routed {
        uplink: Addresses::default(),
        gateway: Addresses::default(),
    };
    let headers = [headers(0, &far), headers(1, &pod)];
    Workload {
        tables: spec(PortRole::Uplink, to_pods.chain(out).collect(), crossing),
        headers,
        stations: 2,
        says: format!("{} routes, TTL and MACs rewritten", 2 * ROUTES),
    }
}

/// Port 0 is a pod's; `second` is what port 1 is.
fn spec(second: PortRole, routes: Vec<(IpNet, NextHop)>, crossing: Crossing) -> TablesSpec {
    let row = |at: usize, role| PortSpec {
        id: port(at),
        role,
        mac: station([0x02, 0xee, 0, 0, 0, at as u8]),
        mtu: 1500,
        hairpin: false,
        isolated: false,
    };
    TablesSpec {
        ports: vec![row(0, PortRole::Pod), row(1, second)],
        owners: Vec::new(),
        router_macs: vec![Mac::new(ROUTER)],
        routes,
        groups: Vec::new(),
        crossing,
        policy: Policy::None,
        unknown: Unknown::Flood,
        guards: guards(second),
    }
}

/// All guards of a pod behind which a network of stations is, of whatever addresses.
fn guards(second: PortRole) -> Vec<(PortId, PortGuard)> {
    let network = PortGuard {
        stations: Mode::Off,
        addresses: Mode::Off,
        // Of 65,536 stations a few find no place in the FDB. That is seen, and they are not refused.
        quota: Mode::Observe,
        learned_max: u32::MAX,
        // Before all stations are heard, most frames are for unknown ones.
        rates: Rates {
            unknown: Rate::per_second(1 << 20),
            ..Rates::default()
        },
        ..PortGuard::pod(Mode::Enforce)
    };
    let pods = 1 + usize::from(second == PortRole::Pod);
    (0..pods).map(|at| (port(at), network.clone())).collect()
}

/// Ethernet and IPv4 of a frame of 64 bytes to UDP, with a good checksum.
fn header(target: [u8; 6], source: [u8; 6], address: [u8; 4]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..6].copy_from_slice(&target);
    header[6..12].copy_from_slice(&source);
    header[12..14].copy_from_slice(&[0x08, 0x00]);
    header[14..26].copy_from_slice(&[0x45, 0, 0, (FRAME - 14) as u8, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    header[26..30].copy_from_slice(&[10, 1, 2, 3]);
    header[30..34].copy_from_slice(&address);
    let (words, _) = header[14..].as_chunks::<2>();
    let sum: u32 = words
        .iter()
        .map(|w| u32::from(u16::from_be_bytes(*w)))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[24..26].copy_from_slice(&sum.to_be_bytes());
    header
}

fn frame(header: &[u8; HEADER]) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..HEADER].copy_from_slice(header);
    // UDP from 9000 to 9001, without a checksum, as IPv4 allows.
    frame[HEADER..HEADER + 8].copy_from_slice(&[0x23, 0x28, 0x23, 0x29, 0, 30, 0, 0]);
    frame
}

fn port(at: usize) -> PortId {
    PortId::new(at).expect("two ports are few")
}

/// A fixed disorder (splitmix64), the same in every round and on every machine.
pub(crate) struct Shuffle(pub(crate) u64);

impl Shuffle {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, (self.next() % (end as u64 + 1)) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_is_forwarded_whole() {
        let short = Duration::from_millis(5);
        for work in [bridged(1000), bridged(65_536), routed()] {
            let says = &work.says;
            let null = null_ports(&work, short).unwrap_or_else(|why| panic!("{says}: {why}"));
            let queued = memory_ports(&work, short).unwrap_or_else(|why| panic!("{says}: {why}"));
            assert!(null > 0.0 && queued > 0.0, "{says}: {null} {queued}");
        }
    }
}
