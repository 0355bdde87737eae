//! Steering by a table of nftables, and all carriers of steering against one plain model.
//!
//! In: a node with an `eth0` whose wire the test holds, and another owner's chain behind ours that shows
//! what we left to the kernel. Out: where each frame went.
//! Never: a frame that is checked and could be said to go either way.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use control::devices::attach::uplink::{CLSACT, NFTABLES};
use control::devices::attach::{ArpSteering, Uplink};
use control::devices::netlink::Netlink;
use control::devices::sysctl::{self, Conf, Setting};
use control::devices::tap::{self, TapSpec};
use control::steer::Keeper;
use dataplane::facility::Facility;
use ipnet::{Ipv4Net, Ipv6Net};

use crate::nft::{self, Chain};
use crate::support::{Wire, fresh, name, running};

/// Our table for `eth0`, as `nft` would list it.
const OURS: &str = "tapline-eth0";
/// Frames of which the wire has a batch under way, well below what a TAP holds.
const BATCH: usize = 100;
/// Batches for each sort of steering, by each carrier.
const BATCHES: usize = 12;

/// A node, the wire of its `eth0`, and what we leave to its kernel, which so gets nothing.
struct Node {
    net: Netlink,
    wire: Wire,
    rest: Wire,
}

impl Node {
    fn new() -> Node {
        let net = fresh("node-0");
        let wire = Wire::open(&net, "eth0");
        tap::ensure(&net, &TapSpec::new(name("rest0"), 1500)).expect("made");
        for device in ["eth0", "rest0"] {
            let device = name(device);
            let off = Setting::DisableIpv6(Conf::Device(&device));
            sysctl::set(net.namespace(), off, "1").expect("set");
            net.set_no_arp(&device, true).expect("set");
            net.set_up(&device, true).expect("up");
        }
        running(&net, "eth0");
        let node = Node {
            rest: Wire::open(&net, "rest0"),
            net,
            wire,
        };
        node.show_the_rest();
        node
    }

    /// Another owner's table at `eth0`, behind ours.
    fn show_the_rest(&self) {
        let to = self.net.index(&name("rest0")).expect("there");
        let chain = Chain {
            name: "rest",
            hook: Some(("filter", nft::INGRESS, 200)),
            rules: vec![nft::leave_by(to)],
        };
        nft::load_for_device(self.net.namespace(), "others", "eth0", &[chain]);
    }

    /// What steers, by the uplink's own account.
    fn steered_by(&self, uplink: &Uplink) -> Vec<&'static str> {
        let mut by: Vec<_> = uplink
            .carriers(&self.net)
            .expect("told")
            .iter()
            .map(|one| one.by)
            .collect();
        by.dedup();
        by
    }

    fn is_held_by_a_table(&self) -> bool {
        let table = self.net.table(&name("eth0")).expect("told");
        table.is_some_and(|table| table.at_work)
    }
}

fn nets(nets: &[&str]) -> Vec<Ipv4Net> {
    nets.iter()
        .map(|net| net.parse().expect("a prefix"))
        .collect()
}

fn uplink(pods: &[&str], pods_v6: &[&str], arp: ArpSteering) -> Uplink {
    Uplink {
        device: name("eth0"),
        tap: TapSpec::new(name("uplink0"), 1500),
        pods: nets(pods),
        pods_v6: pods_v6
            .iter()
            .map(|net| net.parse().expect("a prefix"))
            .collect(),
        arp,
    }
}

/// As azure has it: scattered prefixes, two of which touch, and ARP about them.
fn by_target() -> Uplink {
    let pods = [
        "10.20.0.5/32",
        "10.20.0.6/31",
        "10.20.0.8/29",
        "10.20.0.64/26",
    ];
    uplink(&pods, &[], ArpSteering::ByTarget(nets(&pods)))
}

/// As kubenet has it, dual stack.
fn by_copies() -> Uplink {
    let pods_v6 = ["fd00:1::/64", "fd00:3::40/122"];
    uplink(&["10.244.1.0/24"], &pods_v6, ArpSteering::MirrorReplies)
}

/// Where a frame goes: to the switch, to the kernel, or to both.
fn goes(uplink: &Uplink, frame: &[u8]) -> (bool, bool) {
    let (kind, body) = (&frame[12..14], &frame[14..]);
    let v4 = |at: usize| -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = body.get(at..at + 4)?.try_into().ok()?;
        Some(bytes.into())
    };
    let among = |nets: &[Ipv4Net], address: Option<Ipv4Addr>| {
        address.is_some_and(|address| nets.iter().any(|net| net.contains(&address)))
    };
    let v6 = || -> Option<Ipv6Addr> {
        let bytes: [u8; 16] = body.get(24..40)?.try_into().ok()?;
        Some(bytes.into())
    };
    let holds = |net: &Ipv6Net| v6().is_some_and(|address| net.contains(&address));
    let advertised = body.len() >= 44 && body[6..8] == [58, 255] && body[40] == 136;
    let replied = body.len() >= 8 && body[6..8] == [0, 2];
    match (kind, &uplink.arp) {
        ([0x08, 0x00], _) => {
            let pods = among(&uplink.pods, v4(16));
            (pods, !pods)
        }
        ([0x86, 0xdd], arp) => match (uplink.pods_v6.iter().any(holds), arp) {
            (true, _) => (true, false),
            (false, ArpSteering::MirrorReplies) => (advertised && !uplink.pods_v6.is_empty(), true),
            (false, ArpSteering::ByTarget(_)) => (false, true),
        },
        ([0x08, 0x06], ArpSteering::ByTarget(nets)) => {
            let about = among(nets, v4(24));
            (about, !about)
        }
        ([0x08, 0x06], ArpSteering::MirrorReplies) => (replied, true),
        _ => (false, true),
    }
}

/// Numbers that look random and are the same each time (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.roll() as usize % some.len()]
    }

    fn one_in(&mut self, some: u64) -> bool {
        self.roll().is_multiple_of(some)
    }

    fn v4(&mut self) -> [u8; 4] {
        match self.one_in(8) {
            true => (self.roll() as u32).to_be_bytes(),
            false => {
                let last = self.of(&[0, 4, 5, 6, 7, 8, 15, 16, 63, 64, 127, 128, 255]);
                let pods = [[10, 20, 0], [10, 244, 1]];
                let high = self.of(&[pods[0], pods[0], pods[1], [10, 244, 2], [10, 243, 255]]);
                [high[0], high[1], high[2], last]
            }
        }
    }

    fn v6(&mut self) -> [u8; 16] {
        let near = [
            "fd00:1::",
            "fd00:1::7",
            "fd00:1:0:0:ffff:ffff:ffff:ffff",
            "fd00:1:0:1::",
            "fd00:0:ffff:ffff::",
            "fd00:3::3f",
            "fd00:3::40",
            "fd00:3::7f",
            "fd00:3::80",
            "ff02::1",
            "fe80::1",
            "::",
        ];
        self.of(&near)
            .parse::<Ipv6Addr>()
            .expect("an address")
            .octets()
    }

    /// A frame of any sort: whole or cut short, tagged, with options, in fragments.
    fn frame(&mut self) -> Vec<u8> {
        let mut frame = self
            .of(&[[0xff_u8; 6], [2, 0, 0, 0, 0, 1], [1, 0, 0x5e, 0, 0, 1]])
            .to_vec();
        frame.extend([2, 0, 0, 0, 0, 2]);
        for _ in 0..self.of(&[0, 0, 0, 0, 0, 0, 1, 2]) {
            frame.extend(self.of(&[[0x81, 0], [0x88, 0xa8]]));
            frame.extend((self.roll() as u16).to_be_bytes());
        }
        let tagged = frame.len() > 12;
        let kind = self.of(&[
            0x0800_u16, 0x0800, 0x86dd, 0x86dd, 0x0806, 0x0806, 0x88cc, 0x0040,
        ]);
        frame.extend(kind.to_be_bytes());
        let length = 60 + self.roll() as usize % 40;
        let mut body: Vec<u8> = (0..length).map(|_| self.roll() as u8).collect();
        match kind {
            0x0800 => {
                // Options, and a fragment or none: neither moves the address.
                body[0] = self.of(&[0x45, 0x45, 0x46, 0x4f]);
                body[6..8].copy_from_slice(&self.of(&[[0x40, 0], [0x20, 0], [0, 0x10]]));
                body[16..20].copy_from_slice(&self.v4());
            }
            0x86dd => {
                body[0] = 0x60;
                body[6..8].copy_from_slice(&self.of(&[[58, 255], [58, 255], [58, 64], [44, 255]]));
                body[24..40].copy_from_slice(&self.v6());
                body[40] = self.of(&[136, 136, 135, 129]);
            }
            0x0806 => {
                body[..6].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
                body[6..8].copy_from_slice(&self.of(&[[0, 1], [0, 2], [0, 2], [2, 0], [0, 9]]));
                body[24..28].copy_from_slice(&self.v4());
            }
            _ => {}
        }
        if self.one_in(5) && !tagged {
            body.truncate(self.roll() as usize % 48);
        }
        [frame, body].concat()
    }
}

/// Sends frames of any sort and compares where each one went with the model.
fn compare(node: &Node, uplink: &Uplink, tap: &Wire, dice: &mut Dice) -> [usize; 3] {
    let mut counts = [0; 3];
    for _ in 0..BATCHES {
        let frames: Vec<Vec<u8>> = (0..BATCH).map(|_| dice.frame()).collect();
        frames.iter().for_each(|frame| node.wire.send(frame));
        let (switch, kernel) = (tap.soon(), node.rest.frames(Duration::ZERO));
        let of = |wanted: fn((bool, bool)) -> bool| -> Vec<Vec<u8>> {
            let goes = |frame: &&Vec<u8>| wanted(goes(uplink, frame));
            frames.iter().filter(goes).cloned().collect()
        };
        assert_same("the switch", &switch, &of(|(switch, _)| switch));
        assert_same("the kernel", &kernel, &of(|(_, kernel)| kernel));
        counts[0] += switch.len();
        counts[1] += kernel.len();
        counts[2] += of(|both| both == (true, true)).len();
    }
    counts
}

fn assert_same(who: &str, got: &[Vec<u8>], wanted: &[Vec<u8>]) {
    let differs = (0..got.len().max(wanted.len())).find(|at| got.get(*at) != wanted.get(*at));
    if let Some(at) = differs {
        panic!("{who} got {:x?}, not {:x?}", got.get(at), wanted.get(at));
    }
}

/// Each carrier that this kernel has and that is allowed, one after the other, as a daemon would change
/// from one to the next.
pub(crate) fn every_carrier_steers_as_the_plain_model_says() {
    let node = Node::new();
    let mut seen = Vec::new();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for forbidden in [None, Some(Facility::Tcx), Some(Facility::Nftables)] {
        forbidden.into_iter().for_each(Facility::forbid);
        for uplink in [by_target(), by_copies()] {
            uplink.attach(&node.net).expect("attached");
            let by = node.steered_by(&uplink);
            assert_eq!(by.len(), 1, "{by:?}");
            if !Facility::Tcx.is_allowed() {
                let wanted = match Facility::Nftables.is_allowed() {
                    true => NFTABLES,
                    false => CLSACT,
                };
                assert_eq!(by, [wanted]);
            }
            let tap = Wire::open(&node.net, "uplink0");
            let counts = compare(&node, &uplink, &tap, &mut dice);
            println!("{}: to the switch, the kernel, both: {counts:?}", by[0]);
            let both = matches!(uplink.arp, ArpSteering::MirrorReplies);
            assert!(counts[0] > 50 && counts[1] > 50, "{counts:?}");
            assert_eq!(counts[2] > 30, both, "{counts:?}");
            seen.extend(by);
        }
    }
    seen.dedup();
    println!("compared: {seen:?}");
    assert!(seen.contains(&CLSACT), "{seen:?}");
    for uplink in [by_target(), by_copies()] {
        uplink.leave_device(&node.net).expect("left");
        assert_eq!(node.steered_by(&uplink), [""; 0]);
    }
}

/// Programs are for newer kernels than those that tables are for. False where tables are switched off as
/// well: then none is put, and that is all there is to see.
fn only_tables(node: &Node) -> bool {
    Facility::Tcx.forbid();
    if Facility::Nftables.is_allowed() {
        return true;
    }
    let uplink = by_target();
    uplink.attach(&node.net).expect("attached");
    assert_eq!(node.steered_by(&uplink), [CLSACT]);
    false
}

/// Milliseconds until a table carries `uplink`; a second at most.
fn carried_within_a_second(node: &Node, uplink: &Uplink) -> u128 {
    let start = Instant::now();
    let is = || {
        let carriers = uplink.carriers(&node.net).expect("told");
        matches!(&carriers[..], [one] if one.by == NFTABLES && one.rules.len() > 1)
    };
    while !is() {
        let carriers = uplink.carriers(&node.net);
        assert!(start.elapsed() < Duration::from_secs(1), "{carriers:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed().as_millis()
}

pub(crate) fn a_table_that_is_taken_is_back_within_a_second_and_gone_at_the_end() {
    let node = Node::new();
    if !only_tables(&node) {
        return;
    }
    let (eth0, here) = (name("eth0"), node.net.namespace());
    let uplink = by_target();
    let keeper = Keeper::start(here, uplink.clone()).expect("attached");
    assert!(
        !node.net.has_clsact(&eth0).expect("asked"),
        "none is needed"
    );
    assert_eq!(node.steered_by(&uplink), [NFTABLES]);
    for what in [
        "the table",
        "its rules",
        "its sleep",
        "another's rule in it",
    ] {
        let before = keeper.kept().put_back;
        match what {
            "the table" => node.net.remove_table(&eth0).expect("taken"),
            "its rules" => nft::empty_for_device(here, OURS, "ingress"),
            "its sleep" => nft::put_to_sleep(here, OURS),
            _ => nft::add_for_device(here, OURS, "ingress", &nft::drop_it()),
        }
        println!(
            "{what}: right after {} ms",
            carried_within_a_second(&node, &uplink)
        );
        assert!(
            keeper.kept().put_back > before,
            "{what}: {:?}",
            keeper.kept()
        );
    }
    // Fewer pods, from now on.
    let fewer = by_copies();
    keeper.change(fewer.clone()).expect("changed");
    carried_within_a_second(&node, &fewer);
    // A keeper that dies leaves the table, and the next one finds it as it should be.
    drop(keeper);
    assert!(node.is_held_by_a_table());
    let keeper = Keeper::start(here, fewer.clone()).expect("attached");
    // Where somebody adds a clsact, filters there take over.
    node.net.ensure_clsact(&eth0).expect("made");
    let start = Instant::now();
    while node.steered_by(&fewer) != [CLSACT] {
        assert!(start.elapsed() < Duration::from_secs(1));
        std::thread::sleep(Duration::from_millis(2));
    }
    node.net.remove_clsact(&eth0).expect("removed");
    carried_within_a_second(&node, &fewer);
    assert_eq!(keeper.kept().failures, 0, "{:?}", keeper.kept());
    keeper.stop().expect("stopped");
    assert_eq!(node.net.table(&eth0).expect("told"), None);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(
        node.net.table(&eth0).expect("told"),
        None,
        "nobody keeps it any more"
    );
    // Another owner's table is as it was.
    let frame = Dice(7).frame();
    node.wire.send(&frame);
    assert_eq!(node.rest.soon(), [frame]);
}

/// A pod that is steered before a change and after it is steered at every moment.
pub(crate) fn a_table_changes_under_traffic_and_no_frame_escapes() {
    let node = Node::new();
    if !only_tables(&node) {
        return;
    }
    let many = by_target();
    let few = uplink(&["10.20.0.8/29"], &[], ArpSteering::ByTarget(Vec::new()));
    many.attach(&node.net).expect("attached");
    let tap = Wire::open(&node.net, "uplink0");
    let mut frame = Dice(1).frame();
    frame.truncate(12);
    frame.extend([0x08, 0x00, 0x45]);
    frame.resize(14 + 60, 0);
    frame[30..34].copy_from_slice(&[10, 20, 0, 9]);
    assert_eq!(
        (goes(&many, &frame), goes(&few, &frame)),
        ((true, false), (true, false))
    );
    let (done, here) = (AtomicBool::new(false), node.net.namespace().clone());
    let (mut sent, mut came) = (0, 0);
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| {
            let net = Netlink::open(&here).expect("a socket");
            for _ in 0..200 {
                few.attach(&net).expect("changed");
                many.attach(&net).expect("changed");
            }
            done.store(true, Ordering::Relaxed);
        });
        let start = Instant::now();
        while !done.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(40) {
            (0..BATCH).for_each(|_| node.wire.send(&frame));
            sent += BATCH;
            came += tap.frames(Duration::ZERO).len();
            assert_eq!(node.rest.frames(Duration::ZERO).len(), 0, "of {sent}");
        }
        changing.join().expect("it changed");
    });
    came += tap.soon().len();
    println!("{sent} frames over 400 changes");
    assert_eq!((came, node.rest.soon().len()), (sent, 0));
    assert!(sent > 2000, "{sent} sent");
}

pub(crate) fn a_table_waits_for_its_device_and_goes_without_it() {
    let node = Node::new();
    if !only_tables(&node) {
        return;
    }
    let Node { net, wire, rest } = node;
    let uplink = by_target();
    let keeper = Keeper::start(net.namespace(), uplink.clone()).expect("attached");
    drop(wire);
    let start = Instant::now();
    while keeper.kept().failure.is_none() {
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            keeper.kept()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let wire = Wire::open(&net, "eth0");
    net.set_up(&name("eth0"), true).expect("up");
    running(&net, "eth0");
    let node = Node { net, wire, rest };
    carried_within_a_second(&node, &uplink);
    let tap = Wire::open(&node.net, "uplink0");
    let frames: Vec<Vec<u8>> = {
        let mut dice = Dice(3);
        let all = std::iter::repeat_with(|| dice.frame());
        all.filter(|frame| goes(&uplink, frame) == (true, false))
            .take(20)
            .collect()
    };
    frames.iter().for_each(|frame| node.wire.send(frame));
    assert_same("the switch", &tap.soon(), &frames);
    // Taken away without the device, which may be back.
    let Node { net, wire, .. } = node;
    drop(keeper);
    drop(wire);
    uplink.leave_device(&net).expect("left");
    assert_eq!(net.table(&name("eth0")).expect("told"), None);
}
