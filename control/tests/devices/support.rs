//! What the device tests stand on: a namespace each, TAPs that a test holds, and frames by hand.
//!
//! In: `/dev/net/tun` and the right to make namespaces.
//! Out: namespaces that die with the test.
//! Never: a device, address or filter in the namespace that the test was started in.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use control::devices::netlink::link::Link;
use control::devices::{DeviceName, Netlink, Netns};
use dataplane::addr::Mac;

/// A device name that is known to be one.
pub(crate) fn name(text: &str) -> DeviceName {
    DeviceName::new(text).expect("a device name")
}

/// A fresh namespace with its netlink socket.
pub(crate) fn fresh(label: &str) -> Netlink {
    Netlink::open(&Netns::create(label).expect("namespaces can be made")).expect("netlink opens")
}

/// Everything of a namespace that an attachment can change, to compare before and after.
pub(crate) fn snapshot(net: &Netlink) -> Vec<String> {
    let mut lines = Vec::new();
    for mut link in net.links().expect("links") {
        // The kernel's own time, not the attachment's doing.
        link.running = false;
        let device = name(&link.name);
        lines.push(format!("{link:?}"));
        lines.push(format!("{:?}", net.addresses(&device).expect("addresses")));
        let filters = net.filters(&device).expect("filters");
        let programs = net.programs(&device).expect("programs");
        let programs: Vec<_> = programs.into_iter().map(|one| one.name).collect();
        let table = net.table(&device).expect("tables");
        lines.push(format!("{filters:?} {programs:?} {table:?}"));
    }
    lines.push(format!("{:?}", net.routes().expect("routes")));
    lines
}

/// Tunnels that a kernel with those modules puts into each new namespace.
const FALLBACK_TUNNELS: [&str; 9] = [
    "tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6tnl0", "ip6gre0", "ip6_vti0",
];

/// The names of the devices of a namespace, less those that the kernel puts into every one.
pub(crate) fn devices(net: &Netlink) -> Vec<String> {
    let mut names: Vec<String> = net
        .links()
        .expect("links")
        .into_iter()
        .map(|l| l.name)
        .collect();
    names.retain(|name| !FALLBACK_TUNNELS.contains(&name.as_str()));
    names.sort();
    names
}

/// The device called `device`.
pub(crate) fn link(net: &Netlink, device: &str) -> Link {
    net.link(&name(device)).expect("it exists")
}

/// Waits until the device can send.
pub(crate) fn running(net: &Netlink, device: &str) {
    net.wait_until_running(&name(device), Duration::from_secs(5))
        .expect("a carrier");
}

/// A TAP held open by a test: what is sent comes out of the device into its kernel.
pub(crate) struct Wire {
    tun: tokio_tun::Tun,
    _runtime: tokio::runtime::Runtime,
}

impl Wire {
    /// Opens the TAP called `device`, making it if it is not there.
    pub(crate) fn open(net: &Netlink, device: &str) -> Wire {
        let open = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()?;
            let entered = runtime.enter();
            let tun = tokio_tun::TunBuilder::new().name(device).tap().build();
            let tun = tun.map_err(std::io::Error::other)?.remove(0);
            drop(entered);
            Ok(Wire {
                tun,
                _runtime: runtime,
            })
        };
        let wire = net.namespace().run(open).expect("the TAP opens");
        if link(net, device).up {
            running(net, device);
        }
        wire
    }

    /// Puts a frame on the wire.
    pub(crate) fn send(&self, frame: &[u8]) {
        assert_eq!(self.tun.try_send(frame).expect("sent"), frame.len());
    }

    /// The frames that come within `time`.
    pub(crate) fn frames(&self, time: Duration) -> Vec<Vec<u8>> {
        let end = Instant::now() + time;
        let mut frames = Vec::new();
        let mut buffer = vec![0; 70_000];
        loop {
            match self.tun.try_recv(&mut buffer) {
                Ok(length) => frames.push(buffer[..length].to_vec()),
                Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
                Err(_) => return frames,
            }
        }
    }

    /// The frames that come within a short while.
    pub(crate) fn soon(&self) -> Vec<Vec<u8>> {
        self.frames(Duration::from_millis(150))
    }
}

/// Packets received and sent by each device, as its kernel counts them.
pub(crate) fn packet_counts(net: &Netlink) -> Vec<(String, u64, u64)> {
    // Not /proc/net, which is the main thread's.
    let text = net
        .namespace()
        .run(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
    let text = text.expect("readable");
    let count = |line: &str| {
        let (device, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        Some((device.trim().to_owned(), counts[1], counts[9]))
    };
    text.lines().skip(2).filter_map(count).collect()
}

/// An Ethernet header.
pub(crate) fn ethernet(target: Mac, source: Mac, kind: u16) -> Vec<u8> {
    [&target.octets()[..], &source.octets(), &kind.to_be_bytes()].concat()
}

/// An ARP frame: `operation` 1 asks, 2 answers.
pub(crate) fn arp(
    operation: u16,
    (sender_mac, sender): (Mac, Ipv4Addr),
    (target_mac, target): (Mac, Ipv4Addr),
) -> Vec<u8> {
    let to = if operation == 1 {
        Mac::BROADCAST
    } else {
        target_mac
    };
    let mut frame = ethernet(to, sender_mac, 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(sender_mac.octets());
    frame.extend(sender.octets());
    frame.extend(target_mac.octets());
    frame.extend(target.octets());
    frame
}

/// A UDP datagram over IPv4 with no UDP checksum.
pub(crate) fn udp(
    (source_mac, source): (Mac, Ipv4Addr),
    (target_mac, target): (Mac, Ipv4Addr),
    port: u16,
    payload: &[u8],
) -> Vec<u8> {
    let ipv4 = etherparse::Ipv4Header::new(
        8 + payload.len() as u16,
        64,
        etherparse::IpNumber::UDP,
        source.octets(),
        target.octets(),
    );
    let mut ipv4 = ipv4.expect("short");
    ipv4.header_checksum = ipv4.calc_header_checksum();
    let mut frame = ethernet(target_mac, source_mac, 0x0800);
    frame.extend(ipv4.to_bytes());
    frame.extend(
        [4000u16, port, 8 + payload.len() as u16, 0]
            .map(u16::to_be_bytes)
            .concat(),
    );
    frame.extend(payload);
    frame
}

/// A UDP datagram over IPv6.
pub(crate) fn udp6(target_mac: Mac, source_mac: Mac, target: std::net::Ipv6Addr) -> Vec<u8> {
    let mut frame = ethernet(target_mac, source_mac, 0x86dd);
    frame.extend([0x60, 0, 0, 0, 0, 8, 17, 64]);
    frame.extend(
        "fd00::99"
            .parse::<std::net::Ipv6Addr>()
            .expect("legal")
            .octets(),
    );
    frame.extend(target.octets());
    frame.extend([0x0f, 0xa0, 0x0f, 0xa1, 0, 8, 0, 0]);
    frame
}

/// A message of neighbour discovery about the sender, with its link-layer address: an answer that
/// was asked for, if `kind` is 136.
pub(crate) fn nd(
    kind: u8,
    (source_mac, source): (Mac, std::net::Ipv6Addr),
    (target_mac, target): (Mac, std::net::Ipv6Addr),
    hop_limit: u8,
) -> Vec<u8> {
    let mut message = source.octets().to_vec();
    message.extend([2, 1]);
    message.extend(source_mac.octets());
    let builder = etherparse::PacketBuilder::ethernet2(source_mac.octets(), target_mac.octets())
        .ipv6(source.octets(), target.octets(), hop_limit)
        .icmpv6_raw(kind, 0, [0x60, 0, 0, 0]);
    let mut frame = Vec::new();
    builder.write(&mut frame, &message).expect("a vector");
    frame
}
