//! What the fuzz targets do with their input, and the small world they do it in.
//!
//! In: bytes that a fuzzer chose, or a file of the corpus.
//! Out: nothing, or a panic that names the promise which does not hold.
//! Never: needs the fuzzer: `tests/tests/corpora.rs` calls the same functions. Nor remembers: two
//! runs on the same bytes do the same.
//!
//! An input stays short where a frame is long: a byte of *stretch* adds that many times
//! [`STRETCH_UNIT`] zero bytes to the end of a frame, so that a fuzzer whose inputs are a few
//! kilobytes still finds super-frames.

mod capture;
mod decide;
mod documents;
mod doors;
mod fragment;
mod input;
mod lpm;
mod rig;
mod spec;
mod super_frame;
mod switch;
mod wireserver;

pub use capture::run_capture;
pub use decide::{decide_spec_len, run_decide};
pub use documents::{run_model, run_routes, run_template};
pub use doors::{run_api, run_cni, run_config};
pub use fragment::run_fragment;
pub use lpm::run_lpm;
pub use super_frame::run_super;
pub use switch::run_switch;
pub use wireserver::run_wireserver;

use std::net::IpAddr;
use std::sync::OnceLock;

use dataplane::addr::{Mac, PortId, Station};
use dataplane::buffer::{FRAME_MAX, Pool};
use dataplane::clock::Tick;
use dataplane::forward::{self, World};
use dataplane::frame::offload::Offload;
use dataplane::frame::{FrameView, Network};
use dataplane::rewrite::rewrite;
use dataplane::segment::{Cut, checksum_at, complete};
use dataplane::snapshot::Publisher;
use dataplane::tables::fdb::Fdb;
use dataplane::tables::fib::NextHop;
use dataplane::tables::neighbour::state::Told;
use dataplane::tables::neighbour::{Neighbours, Waited, Waiting};
use dataplane::tables::returns::Returns;
use dataplane::tables::{
    Addresses, Crossing, Owner, Policy, PortRole, PortSpec, Tables, TablesSpec, Unknown,
};
use dataplane::verdict::{Rewrite, Verdict};
use ipnet::IpNet;

use rig::Rig;

/// A fuzz target: the name of its binary and of its corpus, and what it does with an input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// What is done.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    target("frame", run_frame),
    target("decide", run_decide),
    target("worker", run_worker),
    target("switch", run_switch),
    target("segment", run_segment),
    target("super", run_super),
    target("fragment", run_fragment),
    target("lpm", run_lpm),
    target("capture", run_capture),
    target("model", run_model),
    target("template", run_template),
    target("routes", run_routes),
    target("config", run_config),
    target("cni", run_cni),
    target("api", run_api),
    target("wireserver", run_wireserver),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// Zero bytes that one step of stretch adds.
pub const STRETCH_UNIT: usize = 256;

/// Bytes of an offload header in an input: the fields in their order, low byte first.
pub const OFFLOAD_LEN: usize = 10;

/// Milliseconds before a step, by three bits of its control byte: shorter and longer than each of
/// the switch's own periods, and far beyond any counter of 32 bits.
pub const PAUSES_MS: [u64; 8] = [0, 1, 99, 100, 1000, 60_000, 301_000, 1 << 40];

/// Low bits of a step's control byte: the port.
pub const PORT_BITS: u8 = 0b11;
/// Bit of a step's control byte: an offload header follows the length.
pub const HAS_OFFLOAD: u8 = 0b100;
/// Bit of a step's control byte: more frames arrive before the worker breathes.
pub const HELD: u8 = 0b1000;
/// Bit of a step's control byte: a byte of stretch follows.
pub const HAS_STRETCH: u8 = 0b1000_0000;

const HOST: usize = 0;
const UPLINK: usize = 1;
const A: usize = 2;
const B: usize = 3;
const PORTS: usize = 4;

const FABRIC: Mac = Mac::new([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);
const NIC: Mac = Mac::new([0, 0x0d, 0x3a, 0x21, 0xaf, 0x12]);
const GATEWAY: Mac = Mac::new([0x0a, 0x58, 0x0a, 0xf4, 1, 1]);
const POD_A: Mac = Mac::new([2, 0, 0, 0, 0, 0xa]);
const POD_B: Mac = Mac::new([2, 0, 0, 0, 0, 0xb]);
/// A station that no table names, learned behind port B.
const STRANGER: Mac = Mac::new([2, 0, 0, 0, 9, 9]);

/// The router that kubenet asks for.
const NEXT_HOP: &str = "10.20.0.5";

/// Breaths after which everything that came in at once must be through.
const BREATHS_MAX: usize = 64;

/// Seconds of silence after which no frame may wait for a neighbour any more.
const SILENCE_SECONDS: u64 = 10;

/// What lies behind a piece of a cut, and must still lie there afterwards.
const CANARY: [u8; 64] = [0xa5; 64];

/// Views a frame, and decides on it at every port in both modes.
///
/// # Panics
/// If the switch does, a frame from the uplink would go back by it, a verdict names no port, or an
/// edit spoils a sound header.
pub fn run_frame(bytes: &[u8]) {
    let Ok(view) = FrameView::parse(bytes) else {
        return;
    };
    let network = view.network();
    let (fdb, returns) = (Fdb::new(64, 1), Returns::new(16, 1));
    fdb.learn(station(STRANGER), port(B), Tick(0));
    let (unheard, heard) = (Neighbours::default(), heard());
    for publisher in worlds() {
        let tables = publisher.current();
        for ingress in 0..PORTS {
            for neighbours in [&unheard, &heard] {
                let world = World {
                    tables: &tables,
                    fdb: &fdb,
                    neighbours,
                    returns: Some(&returns),
                };
                let verdict = forward::decide(&view, Offload::NONE, port(ingress), world);
                check_verdict(verdict, ingress, &tables);
                if let Verdict::Forward { rewrite, .. } | Verdict::Fragment { rewrite, .. } =
                    verdict
                {
                    check_edits(bytes, &view, &network, rewrite);
                }
            }
        }
    }
}

/// The neighbours after kubenet's next hop was asked for, and answered.
fn heard() -> Neighbours {
    let frame = Pool::new(1, 64).take().expect("the pool is new");
    let mut neighbours = Neighbours::default();
    let ingress = port(A);
    let waiting = Waiting { frame, ingress };
    let asked = neighbours.wait(ip(NEXT_HOP), port(UPLINK), waiting, Tick(0));
    assert!(matches!(asked, Waited::Held(_)), "one frame may wait");
    let told = Told::by_arp_reply(station(FABRIC));
    let released = neighbours.hear(ip(NEXT_HOP), told, Tick(0));
    assert_eq!(released.len(), 1);
    neighbours
}

fn check_verdict(verdict: Verdict, ingress: usize, tables: &Tables) {
    let (Verdict::Forward { egress, .. } | Verdict::Fragment { egress, .. }) = verdict else {
        return;
    };
    assert!(tables.port(egress).is_some(), "{verdict:?} names no port");
    assert!(
        (ingress, egress) != (UPLINK, port(UPLINK)),
        "{verdict:?} is a way back by the uplink"
    );
}

/// An edited frame is of the same kind, as sound as it was, and has one hop less if any.
fn check_edits(bytes: &[u8], before: &FrameView<'_>, network: &Network, edits: Rewrite) {
    let mut edited = bytes.to_vec();
    rewrite(&mut edited, before.kind, edits);
    let after = FrameView::parse(&edited).expect("a frame that may leave has a sound source");
    assert_eq!(edited.len(), bytes.len());
    assert_eq!(after.kind, before.kind);
    assert_eq!(after.target, edits.target.unwrap_or(before.target));
    let hops = u8::from(edits.hop);
    match (network, after.network()) {
        (Network::Ipv4(old), Network::Ipv4(new)) => assert_eq!(new.ttl + hops, old.ttl),
        (Network::Ipv6(old), Network::Ipv6(new)) => assert_eq!(new.hop_limit + hops, old.hop_limit),
        (Network::Arp(_), Network::Arp(_)) => assert_eq!(hops, 0, "ARP has no hops"),
        (Network::Malformed(old), Network::Malformed(new)) => assert_eq!(*old, new),
        (Network::Opaque, Network::Opaque) => assert_eq!(hops, 0, "an opaque frame has no hops"),
        (old, new) => panic!("{old:?} became {new:?}"),
    }
}

/// Sends frames and time through a worker with four memory ports, once in each mode.
///
/// The first byte says which ports take only finished frames, a bit for each; steps follow.
///
/// # Panics
/// If the worker does (leaked frames or buffers among the reasons), the books do not balance, a
/// frame returns by the uplink, or a port gets what it cannot take.
pub fn run_worker(input: &[u8]) {
    let Some((wires, steps)) = input.split_first() else {
        return;
    };
    for world in 0..worlds().len() {
        let mut rig = Rig::begin(world, *wires);
        rig.run(Steps(steps));
        rig.leave();
    }
}

/// One frame that comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Milliseconds since the step before.
    pub pause_ms: u64,
    /// The port it comes in by.
    pub port: usize,
    /// More come in before the worker breathes.
    pub held: bool,
    /// What it says is undone.
    pub offload: Offload,
    /// The frame.
    pub bytes: Vec<u8>,
}

/// Steps as an input spells them: a control byte, the frame's length (two bytes, low byte first),
/// an offload header and a byte of stretch where the control byte says so, the frame. The last
/// frame may be shorter than its length says.
#[derive(Clone, Copy, Debug)]
pub struct Steps<'a>(pub &'a [u8]);

impl Iterator for Steps<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let (control, rest) = self.0.split_first()?;
        let (len, mut rest) = rest.split_first_chunk()?;
        let mut offload = Offload::NONE;
        if control & HAS_OFFLOAD != 0 {
            (offload, rest) = read_offload(rest)?;
        }
        let mut stretch = 0;
        if control & HAS_STRETCH != 0 {
            (stretch, rest) = rest.split_first().map(|(byte, rest)| (*byte, rest))?;
        }
        let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
        let (bytes, rest) = rest.split_at(len);
        self.0 = rest;
        Some(Step {
            pause_ms: PAUSES_MS[usize::from(control >> 4 & 0b111)],
            port: usize::from(control & PORT_BITS),
            held: control & HELD != 0,
            offload,
            bytes: stretched(bytes, stretch),
        })
    }
}

/// Completes a frame's checksum, and cuts it to pieces.
///
/// The input is an offload header, a byte of stretch, and the frame.
///
/// # Panics
/// If `complete` or [`Cut`] does, either writes where it should not, or the pieces are not the
/// payload.
pub fn run_segment(input: &[u8]) {
    let Some((offload, rest)) = read_offload(input) else {
        return;
    };
    let Some((stretch, bytes)) = rest.split_first() else {
        return;
    };
    let bytes = stretched(bytes, *stretch);
    check_complete(&bytes, offload);
    if let Ok(cut) = Cut::plan(&bytes, offload) {
        check_cut(&bytes, offload, &cut);
    }
}

/// Only the checksum changes, and that only where it can be completed.
fn check_complete(bytes: &[u8], offload: Offload) {
    let mut after = bytes.to_vec();
    let outcome = complete(&mut after, offload);
    if outcome.is_ok() && offload.needs_checksum() {
        let at = checksum_at(offload);
        assert_ne!(after[at..at + 2], [0, 0], "no checksum is none");
        after[at..at + 2].copy_from_slice(&bytes[at..at + 2]);
    }
    assert!(after == bytes, "{outcome:?} came with other changes");
}

/// Every piece keeps inside its bounds, has its share of the payload, and is a sound packet.
fn check_cut(bytes: &[u8], offload: Offload, cut: &Cut) {
    let room = cut.piece_len_max();
    let share = usize::from(offload.gso_size);
    let mut buffer = vec![0; room];
    buffer.extend(CANARY);
    let mut header = 0;
    let mut written = 0;
    for index in 0..cut.pieces() {
        let len = cut.write(bytes, index, &mut buffer);
        assert!(len <= room, "piece {index} has {len} bytes of {room}");
        assert!(buffer[room..] == CANARY, "piece {index} wrote too far");
        if cut.pieces() == 1 {
            assert_eq!(len, bytes.len());
            return check_piece(&buffer[..len]);
        }
        if index == 0 {
            header = len - share;
            written = header;
        }
        let payload = &buffer[header..len];
        assert!(!payload.is_empty(), "piece {index} has no payload");
        assert!(*payload == bytes[written..written + payload.len()]);
        written += payload.len();
        check_piece(&buffer[..len]);
    }
    assert_eq!(written, bytes.len(), "payload is missing");
}

fn check_piece(piece: &[u8]) {
    // The cut does not look at addresses, and a frame from nobody has no view.
    if let Ok(view) = FrameView::parse(piece) {
        let network = view.network();
        assert!(!matches!(network, Network::Malformed(_)), "{network:?}");
    }
}

fn read_offload(input: &[u8]) -> Option<(Offload, &[u8])> {
    let (header, rest) = input.split_first_chunk::<OFFLOAD_LEN>()?;
    let [flags, gso_type, words @ ..] = *header;
    let word = |at: usize| u16::from_le_bytes([words[2 * at], words[2 * at + 1]]);
    let offload = Offload {
        flags,
        gso_type,
        hdr_len: word(0),
        gso_size: word(1),
        csum_start: word(2),
        csum_offset: word(3),
    };
    Some((offload, rest))
}

fn stretched(bytes: &[u8], stretch: u8) -> Vec<u8> {
    let mut frame = bytes.to_vec();
    frame.resize(bytes.len() + usize::from(stretch) * STRETCH_UNIT, 0);
    frame.truncate(FRAME_MAX);
    frame
}

/// The azure world and the kubenet world. Built once: their tables never change.
fn worlds() -> &'static [Publisher<Tables>; 2] {
    static WORLDS: OnceLock<[Publisher<Tables>; 2]> = OnceLock::new();
    WORLDS.get_or_init(|| {
        [azure(), kubenet()]
            .map(|spec| Publisher::new(Tables::build(&spec).expect("the worlds have no faults")))
    })
}

fn port(id: usize) -> PortId {
    PortId::new(id).expect("four ports are in range")
}

fn station(mac: Mac) -> Station {
    Station::new(mac).expect("the worlds' stations are stations")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("the worlds' addresses are addresses")
}

fn route(prefix: &str, hop: NextHop) -> (IpNet, NextHop) {
    (prefix.parse().expect("the worlds' routes are routes"), hop)
}

fn to(id: usize, mac: Mac) -> NextHop {
    NextHop::Station {
        port: port(id),
        mac,
    }
}

fn owner(address: &str, id: usize, mac: Mac) -> (IpAddr, Owner) {
    let port = port(id);
    (ip(address), Owner { port, mac })
}

fn ports(host: Mac, hairpin: bool) -> Vec<PortSpec> {
    [
        (HOST, PortRole::Host, host),
        (UPLINK, PortRole::Uplink, NIC),
        (A, PortRole::Pod, POD_A),
        (B, PortRole::Pod, POD_B),
    ]
    .into_iter()
    .map(|(id, role, mac)| PortSpec {
        id: port(id),
        role,
        mac: station(mac),
        mtu: 1500,
        hairpin: hairpin && role == PortRole::Pod,
        isolated: false,
    })
    .collect()
}

/// A node under the azure plugin: pods have addresses of the subnet.
fn azure() -> TablesSpec {
    TablesSpec {
        ports: ports(NIC, false),
        owners: vec![
            owner("10.20.0.4", HOST, NIC),
            owner("10.20.0.31", A, POD_A),
            owner("10.20.0.32", B, POD_B),
            owner("fd00:20::31", A, POD_A),
            owner("fd00:20::32", B, POD_B),
        ],
        router_macs: vec![FABRIC, NIC],
        routes: vec![
            route("10.20.0.4/32", NextHop::Host),
            route("10.20.0.31/32", to(A, POD_A)),
            route("10.20.0.32/32", to(B, POD_B)),
            route("10.20.0.0/24", to(UPLINK, FABRIC)),
            route("10.99.0.0/16", NextHop::Blackhole),
            route("0.0.0.0/0", NextHop::Host),
            route("fd00:20::31/128", to(A, POD_A)),
            route("fd00:20::/64", to(UPLINK, FABRIC)),
        ],
        groups: Vec::new(),
        crossing: Crossing::Bridged,
        policy: Policy::None,
        unknown: Unknown::Drop,
        guards: Vec::new(),
    }
}

/// A node under kubenet: pods have a range of the node's own.
fn kubenet() -> TablesSpec {
    TablesSpec {
        ports: ports(GATEWAY, true),
        owners: vec![
            owner("10.244.1.1", HOST, GATEWAY),
            owner("10.244.1.6", A, POD_A),
            owner("10.244.1.7", B, POD_B),
            owner("fd00:244::6", A, POD_A),
        ],
        router_macs: vec![GATEWAY],
        routes: vec![
            route("10.244.1.6/32", to(A, POD_A)),
            route("10.244.1.7/32", to(B, POD_B)),
            route("10.244.1.1/32", NextHop::Host),
            route("10.244.1.0/24", NextHop::Unreachable),
            route("10.244.0.0/24", NextHop::Neighbour(ip(NEXT_HOP))),
            route("0.0.0.0/0", NextHop::Host),
            route("fd00:244::6/128", to(A, POD_A)),
            route("fd00:244:1::/64", NextHop::Neighbour(ip(NEXT_HOP))),
            route("fd00:244:2::/64", NextHop::Neighbour(ip("fd00:20::5"))),
        ],
        groups: Vec::new(),
        crossing: Crossing::Routed {
            uplink: Addresses {
                v4: Some(std::net::Ipv4Addr::new(10, 20, 0, 4)),
                v6: Some(std::net::Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 4)),
            },
            gateway: std::net::Ipv4Addr::new(10, 244, 1, 1).into(),
        },
        policy: Policy::None,
        unknown: Unknown::Flood,
        guards: Vec::new(),
    }
}
