//! Four stations around a bridge, built twice: with the Linux bridge, and with Tapline.
//!
//! In: which. Out: a [`Bench`] that sends at each station's wire and hears there.
//! Never: touches the machine's own network; what is made here dies with its descriptors.

use std::time::{Duration, Instant};

use control::devices::name::DeviceName;
use control::devices::netlink::Netlink;
use control::devices::netlink::link::VethEnd;
use control::devices::netns::Netns;
use control::devices::sysctl;
use dataplane::addr::{Mac, PortId, Station};
use dataplane::buffer::{FRAME_MAX, Frame, Pool};
use dataplane::frame::offload::Offload;
use dataplane::port::packet::PacketPort;
use dataplane::port::{BURST_FRAMES, Port};
use dataplane::switch::{Options, Switch};
use dataplane::tables::{Crossing, Policy, PortRole, PortSpec, Tables, TablesSpec, Unknown};

/// Stations.
pub(crate) const PORTS: usize = 4;
/// Bytes of IP that each link carries.
const MTU: u16 = 1500;
/// Longer than any frame takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// The kernel's bridge's own address.
const BRIDGE: Mac = Mac::new([0x06, 0xee, 0, 0, 0, 0xff]);

/// Who bridges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The kernel.
    Kernel,
    /// The switch.
    Tapline,
}

/// The hardware address of the station at a port.
pub(crate) fn pod(port: usize) -> Mac {
    Mac::new([0x0a, 0x58, 10, 244, 1, 6 + port as u8])
}

/// A station's end of its link.
struct Wire {
    port: PacketPort,
    pool: Pool,
}

/// A bridge and its stations.
pub(crate) struct Bench {
    pub(crate) kind: Kind,
    wires: Vec<Wire>,
    switch: Option<Switch<PacketPort>>,
    /// They live as long as the bench.
    _namespaces: [Netns; 2],
}

fn device(name: &str) -> DeviceName {
    DeviceName::new(name).expect("a device name")
}

fn namespace(name: &str) -> Netns {
    Netns::create(name).unwrap_or_else(|error| {
        panic!(
            "this test makes network namespaces, which was refused ({error}): run it as root, or \
             under `unshare --map-root-user --net`"
        )
    })
}

impl Bench {
    /// Builds it. Every station has spoken once, so the kernel knows where it is, as Tapline does
    /// from its tables.
    pub(crate) fn new(kind: Kind) -> Bench {
        let (inside, outside) = (namespace("bridge"), namespace("stations"));
        let net = Netlink::open(&inside).expect("a netlink socket");
        let stations = Netlink::open(&outside).expect("a netlink socket");
        let names: Vec<_> = (0..PORTS)
            .map(|at| (format!("p{at}"), format!("w{at}")))
            .collect();
        for (at, (port, wire)) in names.iter().enumerate() {
            link(&net, &stations, &outside, (at, port, wire));
        }
        let switch = match kind {
            Kind::Kernel => {
                without_filters(&inside);
                by_kernel(&net);
                None
            }
            Kind::Tapline => Some(by_tapline(&inside)),
        };
        for (port, wire) in &names {
            net.wait_until_running(&device(port), PATIENCE).expect("up");
            stations
                .wait_until_running(&device(wire), PATIENCE)
                .expect("up");
        }
        let wires = names
            .iter()
            .map(|(_, wire)| Wire::open(&outside, wire))
            .collect();
        let mut bench = Bench {
            kind,
            wires,
            switch,
            _namespaces: [inside, outside],
        };
        bench.greet();
        bench
    }

    fn greet(&mut self) {
        for port in 0..PORTS {
            let mut hello = vec![0xff; 6];
            hello.extend(pod(port).octets());
            hello.extend([0x88, 0xb5]);
            hello.resize(60, port as u8);
            self.send(port, &hello);
            for other in (0..PORTS).filter(|other| *other != port) {
                let heard = self.hear_until(other, &hello);
                assert_eq!(heard.len(), 1, "{:?}: somebody else speaks", self.kind);
            }
        }
    }

    /// Sends at a station.
    pub(crate) fn send(&mut self, port: usize, bytes: &[u8]) {
        let Wire { port, pool } = &mut self.wires[port];
        let mut frame = pool.take().expect("free");
        pool.room(&frame)[..bytes.len()].copy_from_slice(bytes);
        frame.set_len(bytes.len());
        frame.offload = Offload::NONE;
        let taken = port.transmit(&frame, pool);
        pool.release(frame);
        taken.expect("the device takes it");
    }

    /// What has come to a station since.
    pub(crate) fn hear(&mut self, port: usize) -> Vec<Vec<u8>> {
        let Wire { port, pool } = &mut self.wires[port];
        let mut frames: Vec<Frame> = Vec::new();
        port.receive(BURST_FRAMES, pool, &mut frames);
        let mut heard = Vec::new();
        for frame in frames {
            // The kernel's bridge tells other bridges of itself.
            if pool.bytes(&frame)[6..12] != BRIDGE.octets() {
                heard.push(pool.bytes(&frame).to_vec());
            }
            pool.release(frame);
        }
        heard
    }

    /// All that comes to a station up to the frame `last`, which must come.
    pub(crate) fn hear_until(&mut self, port: usize, last: &[u8]) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        let mut heard: Vec<Vec<u8>> = Vec::new();
        while heard.last().is_none_or(|frame| frame != last) {
            let came = self.hear(port);
            if came.is_empty() {
                std::thread::yield_now();
            }
            heard.extend(came);
            assert!(
                Instant::now() < deadline,
                "{:?}: nothing more comes",
                self.kind
            );
        }
        heard
    }

    /// Stops the switch; its books balance, and nothing died of haste.
    pub(crate) fn stop(self) {
        if let Some(switch) = self.switch {
            let counts = switch.stop().expect("no law was broken");
            assert!(counts.is_balanced(), "{counts}");
        }
    }
}

impl Wire {
    fn open(netns: &Netns, name: &str) -> Wire {
        Wire {
            port: netns
                .run(|| PacketPort::open(name))
                .expect("a packet socket"),
            pool: Pool::new(128, FRAME_MAX),
        }
    }
}

/// A link between the bridge and a station, on which only we speak.
fn link(net: &Netlink, stations: &Netlink, outside: &Netns, names: (usize, &str, &str)) {
    let (at, port, wire) = names;
    let end = |name: &str, first| VethEnd {
        name: device(name),
        mac: Some(Mac::new([first, 0xee, 0, 0, 0, at as u8])),
    };
    net.add_veth(&end(port, 0x06), &end(wire, 0x0e), outside, MTU.into())
        .expect("a veth");
    for (side, name) in [(net, port), (stations, wire)] {
        sysctl::silence_ipv6(side, &device(name)).expect("the namespace's own setting");
        side.set_up(&device(name), true).expect("up");
    }
    stations.ensure_clsact(&device(wire)).expect("a classifier");
    stations.drop_all(&device(wire)).expect("a filter");
}

/// Where the module `br_netfilter` is, the kernel's bridge shows packets to the router's filters, and
/// drops or trims beforehand what no router would take. It is not the bridge that does this.
fn without_filters(inside: &Netns) {
    for what in ["iptables", "ip6tables", "arptables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{what}");
        let write = || match std::fs::write(&path, "0") {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            written => written,
        };
        inside.run(write).expect("the namespace's own setting");
    }
}

fn by_kernel(net: &Netlink) {
    let bridge = device("br0");
    net.add_bridge(&bridge).expect("a bridge");
    net.set_mac(&bridge, BRIDGE).expect("an address");
    sysctl::silence_ipv6(net, &bridge).expect("the namespace's own setting");
    for at in 0..PORTS {
        net.set_bridge(&device(&format!("p{at}")), &bridge)
            .expect("a port");
    }
    net.set_up(&bridge, true).expect("up");
}

fn by_tapline(inside: &Netns) -> Switch<PacketPort> {
    let tables = Tables::build(&spec()).expect("sound");
    let switch = Switch::start(&Options::named("bridge"), tables).expect("a thread");
    for at in 0..PORTS {
        let name = format!("p{at}");
        let port = inside
            .run(|| PacketPort::open(&name))
            .expect("a packet socket");
        let id = PortId::new(at).expect("in range");
        switch.attach(id, port).expect("the thread lives");
    }
    switch
}

/// Four pods, and nothing else: no router, no host, no uplink, and nobody whose address is known.
fn spec() -> TablesSpec {
    let row = |at| PortSpec {
        id: PortId::new(at).expect("in range"),
        role: PortRole::Pod,
        mac: Station::new(pod(at)).expect("neither group nor zero"),
        mtu: MTU,
        hairpin: false,
        isolated: false,
    };
    TablesSpec {
        ports: (0..PORTS).map(row).collect(),
        owners: Vec::new(),
        router_macs: Vec::new(),
        routes: Vec::new(),
        groups: Vec::new(),
        crossing: Crossing::Bridged,
        policy: Policy::None,
        guards: Vec::new(),
        unknown: Unknown::Flood,
    }
}
