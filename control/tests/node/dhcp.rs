//! The node's own DHCP goes on over `eth0` while pods fill it: renewal by unicast, rebinding by
//! broadcast, and an answer that is itself a broadcast.
//!
//! In: two nodes on one wire, since the fabric serves no DHCP; a server on one and a client on the
//! other, both the test's own. Out: whether every request was answered, at the first attempt.
//! Never: a packet socket, which hears frames before any filter: what is tried is the kernel's way.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use control::lab::privilege::PrivateNet;
use control::node::standin::Manners;
use control::plan::Plugin;

use crate::life::Load;
use crate::world::{Pod, World};

const SERVER: u16 = 67;
const CLIENT: u16 = 68;
/// RFC 2131: a header of 236 bytes, and the cookie before the options.
const HEADER: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Options, and kinds of message, of RFC 2132.
const KIND: u8 = 53;
const LEASE: u8 = 51;
const END: u8 = 255;
const REQUEST: u8 = 3;
const ACK: u8 = 5;

/// Of each kind of renewal.
const ROUNDS: u32 = 60;
/// Late is not lost: the machine may have much else to do. A renewal that was lost never comes.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request or an answer: `op` 1 or 2, who has the address now, who gets it.
fn message(
    op: u8,
    number: u32,
    broadcast: bool,
    (now, then): (Ipv4Addr, Ipv4Addr),
    kind: u8,
) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[..4].copy_from_slice(&[op, 1, 6, 0]);
    bytes[4..8].copy_from_slice(&number.to_be_bytes());
    bytes[10] = if broadcast { 0x80 } else { 0 };
    bytes[12..16].copy_from_slice(&now.octets());
    bytes[16..20].copy_from_slice(&then.octets());
    bytes.extend(COOKIE);
    bytes.extend([KIND, 1, kind, LEASE, 4, 0, 0, 0x0e, 0x10, END]);
    bytes
}

/// Number, whether it asks for a broadcast, who has the address, who gets it, and the kind.
fn read(bytes: &[u8]) -> Option<(u32, bool, Ipv4Addr, Ipv4Addr, u8)> {
    let word = |at: usize| bytes.get(at..at + 4)?.first_chunk::<4>().copied();
    let options = bytes.get(HEADER..)?.strip_prefix(&COOKIE)?;
    let kind = options.strip_prefix(&[KIND, 1])?.first()?;
    let number = u32::from_be_bytes(word(4)?);
    Some((
        number,
        bytes[10] & 0x80 != 0,
        word(12)?.into(),
        word(16)?.into(),
        *kind,
    ))
}

/// Grants everybody what they have.
struct Server {
    done: Arc<AtomicBool>,
    thread: JoinHandle<u32>,
}

impl Server {
    fn start(world: &World) -> Server {
        let socket = world
            .far
            .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, SERVER)));
        let socket = socket.expect("bound");
        socket.set_broadcast(true).expect("settable");
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("settable");
        let done = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let (mut granted, mut buffer) = (0, [0; 1500]);
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, _)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let Some((number, broadcast, now, _, REQUEST)) = read(&buffer[..length]) else {
                    continue;
                };
                let answer = message(2, number, broadcast, (now, now), ACK);
                let to = if broadcast { Ipv4Addr::BROADCAST } else { now };
                let to = SocketAddrV4::new(to, CLIENT);
                socket.send_to(&answer, to).expect("sent");
                granted += 1;
            }
            granted
        });
        Server { done, thread }
    }

    fn stop(self) -> u32 {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().expect("it serves")
    }
}

/// Asks once, and hears the answer.
fn renew(
    socket: &UdpSocket,
    number: u32,
    own: Ipv4Addr,
    (to, broadcast): (Ipv4Addr, bool),
) -> io::Result<()> {
    let request = message(1, number, broadcast, (own, Ipv4Addr::UNSPECIFIED), REQUEST);
    socket.send_to(&request, SocketAddrV4::new(to, SERVER))?;
    let mut buffer = [0; 1500];
    let (length, _) = socket.recv_from(&mut buffer)?;
    let wanted = Some((number, broadcast, own, own, ACK));
    match read(&buffer[..length]) == wanted {
        true => Ok(()),
        false => Err(io::Error::other("another answer")),
    }
}

fn renewed_under_load(plugin: Plugin) {
    let world = World::on_a_wire(plugin);
    let _wireserver = (plugin == Plugin::Azure).then(|| world.wireserver(Manners::Good));
    let running = world.start();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    a.added(&running);
    b.added(&running);
    let server = Server::start(&world);
    let own = world.plan.nodes[0].primary_ip;
    let client = world
        .node
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT)));
    let client = client.expect("bound");
    client.set_broadcast(true).expect("settable");
    client.set_read_timeout(Some(PATIENCE)).expect("settable");
    let loads = [&a, &b].map(|pod| Load::start(&pod.netns, &world.far, IpAddr::V4(world.other)));
    let kinds = [
        ("renewal by unicast", (world.other, false)),
        ("rebinding by broadcast", (Ipv4Addr::BROADCAST, false)),
        ("an answer by broadcast", (Ipv4Addr::BROADCAST, true)),
    ];
    let mut number = 0;
    for round in 0..ROUNDS {
        for (what, how) in kinds {
            number += 1;
            let renewed = renew(&client, number, own, how);
            renewed.unwrap_or_else(|error| panic!("{what}, {number}: {error}"));
        }
        if round.is_multiple_of(20) {
            // Filters are brought up to date meanwhile, and a pod comes and goes.
            let asked = running
                .client
                .post::<serde_json::Value>("/v1/reload", &serde_json::json!({}));
            asked.expect("the same configuration");
            let pod = Pod::new(&format!("pod-{round}"));
            pod.added(&running);
            running.client.del(&pod.del()).expect("it goes");
        }
    }
    for load in loads {
        let moved = load.echoed.load(Ordering::Relaxed);
        println!("{moved} bytes went by the pods meanwhile");
        assert!(moved > 1_000_000);
        load.stop();
    }
    assert_eq!(server.stop(), number);
    assert_eq!(running.stop(), Some(0));
}

pub(crate) fn the_node_renews_its_lease_under_pod_load_under_azure(_: PrivateNet) {
    renewed_under_load(Plugin::Azure);
}

pub(crate) fn the_node_renews_its_lease_under_pod_load_under_kubenet(_: PrivateNet) {
    renewed_under_load(Plugin::Kubenet);
}
