//! The handle of a switch that runs: who asks its threads gets an answer, and they do what is ordered.
//!
//! In: switches of one or two threads on memory ports with a bell. Out: frames, books and refusals.
//! Never: a worker's own behaviour, which the tests of `worker` have without threads. Nor time beyond
//! what [`eventually`] allows.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread::sleep;

use etherparse::PacketBuilder;

use super::*;
use crate::addr::{Mac, Station};
use crate::buffer::{Frame, Pool};
use crate::capture::{CAPTURES_MAX, Fate, Wanted};
use crate::frame::arp::{self, ArpView, Operation};
use crate::frame::ethernet::{self, HEADER_LEN};
use crate::port::memory::{MemoryPort, Peer, pair};
use crate::port::{Ready, Taken};
use crate::tables::fib::NextHop;
use crate::tables::{Crossing, Owner, Policy, PortRole, PortSpec, TablesSpec, Unknown};
use crate::verdict::{DropReason, Rewrite};

const FABRIC: Mac = Mac::new([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);
const NIC: Mac = Mac::new([0, 0x0d, 0x3a, 0x21, 0xaf, 0x12]);
const GATEWAY: Mac = Mac::new([0x0a, 0x58, 0x0a, 0xf4, 1, 1]);
const POD_A: Mac = Mac::new([2, 0, 0, 0, 0, 0xa]);
const POD_B: Mac = Mac::new([2, 0, 0, 0, 0, 0xb]);

const NIC_IP: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 4);
const NEXT: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 5);
const IP_A: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 6);
const IP_B: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 7);
/// A pod of another node, behind [`NEXT`].
const AWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 7);

const UPLINK: usize = 1;
const A: usize = 2;
const B: usize = 3;

/// A memory port whose thread can sleep: its descriptor tells when somebody rang.
#[derive(Debug)]
struct Belled(MemoryPort, UnixStream);

impl Port for Belled {
    fn receive(&mut self, most: usize, pool: &mut Pool, into: &mut Vec<Frame>) -> Ready {
        self.0.receive(most, pool, into)
    }

    fn transmit(&mut self, frame: &Frame, pool: &mut Pool) -> Result<Taken, DropReason> {
        self.0.transmit(frame, pool)
    }

    fn descriptor(&self) -> Option<RawFd> {
        Some(self.1.as_raw_fd())
    }
}

/// The other end of a port.
struct Far {
    peer: Peer,
    bell: UnixStream,
}

impl Far {
    fn send(&mut self, frame: &[u8]) {
        assert!(self.peer.send(frame).is_ok(), "there is room");
        self.bell.write_all(&[0]).expect("somebody listens");
    }

    /// The next frame that comes within five seconds.
    fn hear(&self) -> Vec<u8> {
        eventually(|| self.peer.receive()).bytes
    }
}

fn belled() -> (Belled, Far) {
    let (port, peer) = pair(16);
    let (near, bell) = UnixStream::pair().expect("two sockets");
    (Belled(port, near), Far { peer, bell })
}

fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let found = (0..5000).find_map(|_| {
        let found = look();
        if found.is_none() {
            sleep(Duration::from_millis(1));
        }
        found
    });
    found.expect("within five seconds")
}

fn port(id: usize) -> PortId {
    PortId::new(id).expect("in range")
}

/// A node under kubenet, with an uplink and two pods.
fn tables() -> Tables {
    let rows = [
        (UPLINK, PortRole::Uplink, NIC),
        (A, PortRole::Pod, POD_A),
        (B, PortRole::Pod, POD_B),
    ];
    let row = |(id, role, mac)| PortSpec {
        id: port(id),
        role,
        mac: Station::new(mac).expect("a station"),
        mtu: 1500,
        hairpin: false,
        isolated: false,
    };
    let pods = [(IP_A, A, POD_A), (IP_B, B, POD_B)].map(|(ip, id, mac)| (ip, port(id), mac));
    let owner = |(ip, port, mac): (Ipv4Addr, _, _)| (ip.into(), Owner { port, mac });
    let station = |(ip, port, mac): (Ipv4Addr, _, _)| {
        let own = ipnet::Ipv4Net::from(ip);
        (own.into(), NextHop::Station { port, mac })
    };
    let away = "10.244.0.0/24".parse().expect("a prefix");
    Tables::build(&TablesSpec {
        ports: rows.map(row).to_vec(),
        owners: pods.map(owner).to_vec(),
        router_macs: vec![GATEWAY],
        routes: [
            pods.map(station).to_vec(),
            vec![(away, NextHop::Neighbour(NEXT.into()))],
        ]
        .concat(),
        groups: Vec::new(),
        crossing: Crossing::Routed {
            uplink: NIC_IP.into(),
            gateway: Ipv4Addr::new(10, 244, 1, 1).into(),
        },
        policy: Policy::None,
        unknown: Unknown::Drop,
        guards: Vec::new(),
    })
    .expect("they have no faults")
}

fn switch(workers: usize) -> Switch<Belled> {
    let options = Options {
        workers,
        ..Options::named("handle")
    };
    Switch::start(&options, tables()).expect("it starts")
}

/// UDP from pod A.
fn udp(to: Mac, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(POD_A.octets(), to.octets())
        .ipv4(IP_A.octets(), target.octets(), 64)
        .udp(4000, 53)
        .write(&mut frame, &[7; 40])
        .expect("writing to a vector cannot fail");
    frame
}

/// What the next hop says when it is asked.
fn answer() -> Vec<u8> {
    let packet = ArpView {
        operation: Operation::Reply,
        sender_mac: FABRIC,
        sender: NEXT,
        target_mac: NIC,
        target: NIC_IP,
    };
    let mut frame = vec![0; HEADER_LEN + arp::LEN];
    ethernet::set_target(&mut frame, NIC);
    ethernet::set_source(&mut frame, FABRIC);
    frame[12..14].copy_from_slice(&ethernet::ARP.to_be_bytes());
    packet.write(&mut frame[HEADER_LEN..]);
    frame
}

fn is_arp(frame: &[u8]) -> bool {
    frame[12..14] == ethernet::ARP.to_be_bytes()
}

fn refusal<T>(outcome: io::Result<T>) -> io::ErrorKind {
    match outcome {
        Ok(_) => panic!("it was not refused"),
        Err(error) => error.kind(),
    }
}

#[test]
fn a_switch_that_rests_leaves_frames_where_they_are_until_it_goes_on() {
    let switch = switch(2);
    let (ports, mut fars): (Vec<_>, Vec<_>) = [A, A, B, B].map(|_| belled()).into_iter().unzip();
    let mut queues = ports.into_iter();
    let mut two = || queues.by_ref().take(2).collect::<Vec<_>>();
    let ports = vec![(port(A), two()), (port(B), two())];
    switch.attach_all(ports).expect("attached");
    for worker in 0..2 {
        fars[worker].send(&udp(POD_B, IP_B));
        fars[2 + worker].hear();
    }
    let legacies = switch.pause().expect("both rest");
    assert_eq!(legacies.len(), 2);
    for (worker, legacy) in legacies.iter().enumerate() {
        assert_eq!(legacy.ledger.counts.transmitted, 1, "by {worker}");
        fars[worker].send(&udp(POD_B, IP_B));
    }
    sleep(Duration::from_millis(50));
    assert!(fars[2..].iter().all(|far| far.peer.receive().is_none()));
    assert!(switch.is_alive());
    assert_eq!(
        switch.ledger().counts.received,
        2,
        "who rests answers all the same"
    );
    switch.go().expect("told");
    fars[2..].iter().for_each(|far| drop(far.hear()));
    let ledger = eventually(|| {
        let ledger = switch.ledger();
        (ledger.counts.transmitted == 4).then_some(ledger)
    });
    assert!(ledger.counts.is_balanced(), "{}", ledger.counts);
    assert_eq!(ledger.port(port(A)).received, 4);
    assert_eq!(switch.ledgers().len(), 2);
    assert_eq!(switch.stop().expect("none had died"), ledger.counts);
}

#[test]
fn a_switch_goes_on_in_the_place_of_another_with_what_waited_there() {
    let (old, new) = (switch(1), switch(1));
    let ((uplink, heard), (pod, mut sent)) = (belled(), belled());
    let ports = vec![(port(UPLINK), vec![uplink]), (port(A), vec![pod])];
    old.attach_all(ports).expect("attached");
    sent.send(&udp(GATEWAY, AWAY));
    assert!(is_arp(&heard.hear()), "the next hop is asked");
    let known = old.neighbours().expect("it runs");
    let [only] = &known[0][..] else {
        panic!("one next hop of one worker: {known:?}");
    };
    assert_eq!((only.address, only.mac), (NEXT.into(), None));
    assert_eq!(old.ledger().counts.queued, 1);
    assert_eq!(
        old.duplicates().expect("it runs")[0].len(),
        0,
        "memory is of one process"
    );
    let legacy = old.pause().expect("it rests").remove(0);
    assert_eq!(legacy.waiting.len(), 1);

    let unsound = old.ledger();
    assert_eq!(
        refusal(new.carry_on(0, unsound)),
        io::ErrorKind::InvalidData,
        "a frame waits in these books"
    );
    let counted = legacy.ledger.clone();
    assert_eq!(
        refusal(new.carry_on(1, counted.clone())),
        io::ErrorKind::NotFound
    );
    new.carry_on(0, counted).expect("they balance");
    new.recall(0, legacy.neighbours).expect("taken over");
    let ((uplink, mut heard), (pod, _sent)) = (belled(), belled());
    let ports = vec![(port(UPLINK), vec![uplink]), (port(A), vec![pod])];
    new.attach_all(ports).expect("attached");
    new.resume(0, legacy.waiting).expect("taken over");
    assert!(is_arp(&heard.hear()), "who had not answered is asked anew");
    heard.send(&answer());
    let frame = heard.hear();
    assert_eq!(frame[..6], FABRIC.octets());
    let ledger = eventually(|| {
        let ledger = new.ledger();
        (ledger.counts.queued == 0).then_some(ledger)
    });
    assert!(ledger.counts.is_balanced(), "{}", ledger.counts);
    assert_eq!(ledger.port(port(A)).received, 1, "counted once");
}

#[test]
fn captures_come_and_go_while_frames_move() {
    let switch = switch(1);
    let watcher = switch.watcher();
    let capture = || Arc::new(Capture::new(Wanted::default(), 8, 64));
    let looking = capture();
    watcher.watch(&looking).expect("there is room");
    let ((pod, mut sent), (other, heard)) = (belled(), belled());
    let ports = vec![(port(A), vec![pod]), (port(B), vec![other])];
    switch.attach_all(ports).expect("attached");
    let frame = udp(POD_B, IP_B);
    sent.send(&frame);
    let (bytes, fate) =
        eventually(|| looking.next(|copied| (copied.bytes().to_vec(), copied.fate)));
    assert_eq!(bytes, frame[..64]);
    let (egress, rewrite) = (port(B), Rewrite::KEEP);
    assert_eq!(fate, Fate::Forwarded { egress, rewrite });
    heard.hear();

    watcher.unwatch(&looking).expect("it runs");
    sent.send(&frame);
    heard.hear();
    assert_eq!(looking.next(|_| ()), None, "who left sees no more");
    let all: Vec<_> = (0..CAPTURES_MAX).map(|_| capture()).collect();
    for one in &all {
        watcher.watch(one).expect("there is room");
    }
    let beyond = watcher.watch(&capture());
    assert_eq!(refusal(beyond), io::ErrorKind::StorageFull);
    watcher.unwatch(&all[0]).expect("it runs");
    watcher.watch(&looking).expect("there is room again");
    switch.stop().expect("none had died");
    let gone = watcher.watch(&looking);
    assert_eq!(refusal(gone), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_port_needs_a_queue_for_each_worker() {
    let switch = switch(2);
    let one = switch.attach(port(A), belled().0);
    assert_eq!(refusal(one), io::ErrorKind::InvalidInput);
    let both = vec![belled().0, belled().0];
    switch
        .attach_queues(port(A), both)
        .expect("one for each worker");
    let back = switch.detach(port(A)).expect("they run");
    assert_eq!(back.len(), 2);
}
