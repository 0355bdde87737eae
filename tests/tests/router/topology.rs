//! Two hosts with two routers between them, built twice: with the kernel as the routers, and with
//! Tapline.
//!
//! In: who routes, and the MTU of the link between the routers. Out: a [`Topology`] whose hosts,
//! links, addresses and hardware addresses are the same either way.
//! Never: touches the machine's own network; what is made here dies with its descriptors.
//!
//! ```text
//!  host a            router 1                       router 2            host c
//!  10.244.1.6 ==veth== 10.244.1.1 / 10.20.0.4 ==veth== 10.20.0.5 / 10.244.0.1 ==veth== 10.244.0.7
//! ```
//!
//! Tapline's routers are put together as a kubenet node is: the host's veth is tied to a TAP, the
//! gateway's address is the kernel's on `cbr0`, and `eth0` is shared with the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use control::devices::attach::{ArpSteering, HostPort, PodEnd, PodVeth, Uplink};
use control::devices::name::DeviceName;
use control::devices::netlink::Netlink;
use control::devices::netlink::address::Route;
use control::devices::netlink::link::VethEnd;
use control::devices::netns::Netns;
use control::devices::sysctl::{self, Conf, Setting};
use control::devices::tap::TapSpec;
use control::lab::probe::{PingSpec, ping};
use dataplane::addr::{Mac, PortId, Station};
use dataplane::port::tap::{Queues, TapPort};
use dataplane::stats::Counts;
use dataplane::switch::{Options, Switch};
use dataplane::tables::fib::NextHop;
use dataplane::tables::{
    Addresses, Crossing, Owner, Policy, PortRole, PortSpec, Tables, TablesSpec, Unknown,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// MTU of every link but perhaps the one between the routers.
pub(crate) const MTU: u16 = 1500;

/// Longer than any device takes to start.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

const HOST: usize = 0;
/// The port of the link between the routers.
pub(crate) const UPLINK: usize = 1;
const POD: usize = 2;

/// Who routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The kernel: `ip_forward` and routes.
    Kernel,
    /// The switch.
    Tapline,
}

/// An address of each family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    /// IPv4.
    pub(crate) v4: Ipv4Addr,
    /// IPv6.
    pub(crate) v6: Ipv6Addr,
}

impl Pair {
    /// The one of that family.
    pub(crate) fn of(self, v6: bool) -> IpAddr {
        if v6 { self.v6.into() } else { self.v4.into() }
    }

    /// Both, with the lengths of the links in this topology.
    fn on_link(self) -> Vec<IpNet> {
        vec![self.v4_link().into(), self.v6_link().into()]
    }

    fn v4_link(self) -> Ipv4Net {
        Ipv4Net::new(self.v4, 24).expect("a length")
    }

    fn v6_link(self) -> Ipv6Net {
        Ipv6Net::new(self.v6, 64).expect("a length")
    }
}

/// One side: a host and its router.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side {
    name: &'static str,
    /// The host's addresses.
    pub(crate) host: Pair,
    /// The host's hardware address.
    pub(crate) host_mac: Mac,
    /// Sixty-four further addresses of the host: limits of errors count each by itself.
    pub(crate) aliases: (Ipv4Net, Ipv6Net),
    /// The router's addresses on the host's link.
    pub(crate) gateway: Pair,
    /// The router's hardware address on the host's link.
    pub(crate) gateway_mac: Mac,
    /// The router's addresses on the link between the routers.
    pub(crate) uplink: Pair,
    /// The router's hardware address there.
    pub(crate) uplink_mac: Mac,
}

/// The near side: host a and router 1.
pub(crate) const NEAR: Side = Side {
    name: "a",
    host: Pair {
        v4: Ipv4Addr::new(10, 244, 1, 6),
        v6: Ipv6Addr::new(0xfd00, 0x244, 0, 1, 0, 0, 0, 6),
    },
    host_mac: Mac::new([0x0a, 0x58, 10, 244, 1, 6]),
    aliases: (
        Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 1, 128), 26),
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x244, 0, 1, 0, 0, 0, 128), 122),
    ),
    gateway: Pair {
        v4: Ipv4Addr::new(10, 244, 1, 1),
        v6: Ipv6Addr::new(0xfd00, 0x244, 0, 1, 0, 0, 0, 1),
    },
    gateway_mac: Mac::new([0x0a, 0x58, 10, 244, 1, 1]),
    uplink: Pair {
        v4: Ipv4Addr::new(10, 20, 0, 4),
        v6: Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 4),
    },
    uplink_mac: Mac::new([0, 0x0d, 0x3a, 20, 0, 4]),
};

/// The far side: host c and router 2.
pub(crate) const FAR: Side = Side {
    name: "c",
    host: Pair {
        v4: Ipv4Addr::new(10, 244, 0, 7),
        v6: Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 7),
    },
    host_mac: Mac::new([0x0a, 0x58, 10, 244, 0, 7]),
    aliases: (
        Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 128), 26),
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 128), 122),
    ),
    gateway: Pair {
        v4: Ipv4Addr::new(10, 244, 0, 1),
        v6: Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 1),
    },
    gateway_mac: Mac::new([0x0a, 0x58, 10, 244, 0, 1]),
    uplink: Pair {
        v4: Ipv4Addr::new(10, 20, 0, 5),
        v6: Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 5),
    },
    uplink_mac: Mac::new([0, 0x0d, 0x3a, 20, 0, 5]),
};

/// A host.
pub(crate) struct Host {
    /// Its namespace.
    pub(crate) netns: Netns,
    /// Its place.
    pub(crate) side: Side,
}

/// A router.
pub(crate) struct Router {
    /// Its namespace.
    pub(crate) netns: Netns,
    /// What makes its devices.
    pub(crate) net: Netlink,
    /// None if the kernel routes.
    pub(crate) switch: Option<Switch<TapPort>>,
}

/// Two hosts, two routers.
pub(crate) struct Topology {
    /// Who routes.
    pub(crate) kind: Kind,
    /// The near host.
    pub(crate) a: Host,
    /// The far host.
    pub(crate) c: Host,
    /// Routers 1 and 2.
    routers: [Router; 2],
}

/// A device name.
pub(crate) fn device(name: &str) -> DeviceName {
    DeviceName::new(name).expect("a device name")
}

/// The port of that number.
pub(crate) fn port(index: usize) -> PortId {
    PortId::new(index).expect("in range")
}

fn station(mac: Mac) -> Station {
    Station::new(mac).expect("neither group nor zero")
}

/// A fresh namespace.
pub(crate) fn namespace(name: &str) -> Netns {
    Netns::create(name).unwrap_or_else(|error| {
        panic!(
            "this test makes network namespaces, which was refused ({error}): run it as root, or \
             under `unshare --map-root-user --net`"
        )
    })
}

impl Topology {
    /// Builds it, with an MTU of `between` bytes on the link between the routers.
    pub(crate) fn new(kind: Kind, between: u16) -> Topology {
        let hosts = [NEAR, FAR].map(Host::new);
        let routers = ["router-1", "router-2"].map(Router::new);
        link(&routers, between);
        let [a, c] = hosts;
        let mut topology = Topology {
            kind,
            a,
            c,
            routers,
        };
        for (at, (here, there)) in [(NEAR, FAR), (FAR, NEAR)].into_iter().enumerate() {
            topology.route(at, here, there, between);
        }
        topology.wait_for_queues();
        topology.greet();
        topology
    }

    fn route(&mut self, at: usize, here: Side, there: Side, between: u16) {
        let host = if at == 0 { &self.a } else { &self.c };
        let router = &mut self.routers[at];
        router.raise_uplink(here.uplink, self.kind);
        match self.kind {
            Kind::Kernel => router.by_kernel(host, here, there),
            Kind::Tapline => router.by_tapline(host, here, &tables(here, there, between)),
        }
    }

    /// Both ends of each veth are up, and yet the kernel starts their queues later.
    fn wait_for_queues(&self) {
        let hosts = [&self.a.netns, &self.c.netns].map(|host| (host, vec!["eth0"]));
        let routers = self
            .routers
            .iter()
            .map(|r| (&r.netns, vec!["eth0", "down"]));
        for (netns, names) in hosts.into_iter().chain(routers) {
            let net = Netlink::open(netns).expect("a netlink socket");
            for name in names {
                net.wait_until_running(&device(name), PATIENCE).expect("up");
            }
        }
    }

    /// Host a pings host c until it answers. A kernel that was just given an IPv6 address does not
    /// hear what is for it at once, nor answer for it, and who asked in vain asks again after a
    /// second: longer than probes wait.
    fn greet(&self) {
        let deadline = Instant::now() + PATIENCE;
        for v6 in [false, true] {
            let one = PingSpec {
                count: 1,
                timeout: Duration::from_millis(50),
                ..PingSpec::to(self.c.side.host.of(v6))
            };
            let answered = || ping(&self.a.netns, &one).expect("a raw socket").received() == 1;
            while !answered() {
                assert!(Instant::now() < deadline, "{:?}: no answer", self.kind);
            }
        }
    }

    /// What the switches counted, summed; nothing if the kernel routes.
    pub(crate) fn counts(&self) -> Counts {
        self.routers
            .iter()
            .filter_map(|router| Some(router.switch.as_ref()?.board().counts()))
            .fold(Counts::default(), Counts::plus)
    }

    /// Super-frames that router 1 received; none if the kernel routes.
    pub(crate) fn super_frames(&self) -> u64 {
        let switch = self.routers[0].switch.as_ref();
        switch.map_or(0, |switch| switch.board().super_frames())
    }

    /// Waits until the switches have nothing left to do, and returns what they counted.
    pub(crate) fn rest(&self) -> Counts {
        let deadline = Instant::now() + PATIENCE;
        let mut last = self.counts();
        if self.kind == Kind::Kernel {
            return last;
        }
        loop {
            std::thread::sleep(Duration::from_millis(2));
            let now = self.counts();
            if now == last && now.is_balanced() {
                return now;
            }
            assert!(Instant::now() < deadline, "no rest: {now}");
            last = now;
        }
    }

    /// From now on the hosts' own stacks hear nothing and say nothing: only wires do.
    pub(crate) fn mute_hosts(&self) {
        for host in [&self.a, &self.c] {
            let net = Netlink::open(&host.netns).expect("a netlink socket");
            net.ensure_clsact(&device("eth0")).expect("a classifier");
            net.drop_all(&device("eth0")).expect("a filter");
        }
    }

    /// Stops the switches; their books balance.
    pub(crate) fn stop(self) {
        for switch in self.routers.into_iter().filter_map(|router| router.switch) {
            let counts = switch.stop().expect("no law was broken");
            assert!(counts.is_balanced(), "{counts}");
        }
    }
}

/// The link between the routers, down.
fn link(routers: &[Router; 2], mtu: u16) {
    let end = |mac| VethEnd {
        name: device("eth0"),
        mac: Some(mac),
    };
    let [here, there] = routers;
    here.net
        .add_veth(
            &end(NEAR.uplink_mac),
            &end(FAR.uplink_mac),
            &there.netns,
            mtu.into(),
        )
        .expect("a veth");
}

/// A host's `eth0`.
fn host_end(side: Side) -> PodEnd {
    PodEnd {
        name: device("eth0"),
        mac: side.host_mac,
        addresses: side.host.on_link(),
        gateways: vec![side.gateway.v4.into(), side.gateway.v6.into()],
        mtu: MTU.into(),
    }
}

impl Host {
    /// A host without a link.
    pub(crate) fn new(side: Side) -> Host {
        Host {
            netns: namespace(side.name),
            side,
        }
    }
}

impl Router {
    /// A router without a link.
    pub(crate) fn new(name: &str) -> Router {
        let netns = namespace(name);
        let net = Netlink::open(&netns).expect("a netlink socket");
        Router {
            netns,
            net,
            switch: None,
        }
    }

    /// Router 1 and 2 as a node has it: `eth0` with an address of each family.
    pub(crate) fn raise_uplink(&self, own: Pair, kind: Kind) {
        let eth0 = device("eth0");
        self.own_ipv6(&eth0);
        for address in own.on_link() {
            self.net.add_address(&eth0, address).expect("an address");
        }
        self.net.set_up(&device("lo"), true).expect("up");
        self.net.set_up(&eth0, true).expect("up");
        if kind == Kind::Kernel {
            self.forward();
        }
    }

    /// IPv6 addresses hold at once, and no advertisement adds another.
    fn own_ipv6(&self, name: &DeviceName) {
        let conf = Conf::Device(name);
        for setting in [Setting::AcceptDad(conf), Setting::AcceptRa(conf)] {
            sysctl::set(&self.netns, setting, "0").expect("the namespace's own setting");
        }
    }

    /// The kernel forwards both families, and tells of every packet that it cannot: its limits of
    /// one error a second would hide what is compared here. (An IPv4 limit of 0 would be no way to
    /// say so: it empties the purse from which "network unreachable" is paid, `ip_error`.)
    fn forward(&self) {
        for (setting, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/icmp_ratemask", "0"),
            ("ipv6/icmp/ratelimit", "0"),
        ] {
            let write = || std::fs::write(format!("/proc/sys/net/{setting}"), value);
            let written = self.netns.run(write);
            written.unwrap_or_else(|error| panic!("{setting} of {}: {error}", self.netns.name()));
        }
    }

    fn by_kernel(&self, host: &Host, here: Side, there: Side) {
        let (down, name) = (device("down"), device("eth0"));
        let router_end = VethEnd {
            name: down.clone(),
            mac: Some(here.gateway_mac),
        };
        let far = VethEnd {
            name: name.clone(),
            mac: Some(here.host_mac),
        };
        self.net
            .add_veth(&router_end, &far, &host.netns, MTU.into())
            .expect("a veth");
        self.own_ipv6(&down);
        for address in here.gateway.on_link() {
            self.net.add_address(&down, address).expect("an address");
        }
        self.net.set_up(&down, true).expect("up");
        let inside = Netlink::open(&host.netns).expect("a netlink socket");
        host_end(here).raise(&inside).expect("a host's end");
        for address in [here.host.v4.into(), here.host.v6.into()] {
            self.net
                .add_neighbour(&down, address, here.host_mac)
                .expect("a neighbour");
        }
        let (aliases, far) = (here.aliases, there.host);
        for (over, to, via) in [
            (&down, aliases.0.into(), here.host.v4.into()),
            (&down, aliases.1.into(), here.host.v6.into()),
            (&name, far.v4_link().into(), there.uplink.v4.into()),
            (&name, far.v6_link().into(), there.uplink.v6.into()),
        ] {
            let route = Route {
                to: IpNet::trunc(&to),
                via: Some(via),
                source: None,
            };
            self.net.add_route(over, &route).expect("a route");
        }
    }

    /// A kubenet node with the tables that `spec` says, and `host` for a pod.
    pub(crate) fn by_tapline(&mut self, host: &Host, here: Side, spec: &TablesSpec) {
        let inside = Netlink::open(&host.netns).expect("a netlink socket");
        let gateway = HostPort {
            tap: TapSpec::new(device("cbr0"), MTU.into()),
            mac: here.gateway_mac,
            addresses: here.gateway.on_link(),
            alias: None,
        };
        gateway.attach(&self.net).expect("a host port");
        let uplink = Uplink {
            device: device("eth0"),
            tap: TapSpec::new(device("uplink0"), spec.ports[UPLINK].mtu.into()),
            pods: vec![here.host.v4_link().trunc()],
            pods_v6: vec![here.host.v6_link().trunc()],
            arp: ArpSteering::MirrorReplies,
        };
        uplink.attach(&self.net).expect("an uplink");
        let pod = PodVeth {
            host_end: device("down"),
            tap: TapSpec::new(device("tap0"), MTU.into()),
            pod: host_end(here),
            alias: None,
        };
        pod.attach(&self.net, &inside).expect("a pod port");
        let tables = Tables::build(spec).expect("sound");
        let switch = Switch::start(&Options::named(here.name), tables).expect("a thread");
        for (id, tap) in [(HOST, "cbr0"), (UPLINK, "uplink0"), (POD, "tap0")] {
            let open = || TapPort::open(tap, Queues::Single);
            let opened = self.netns.run(open).expect("the TAP is there and free");
            switch.attach(port(id), opened).expect("the thread lives");
        }
        for name in ["cbr0", "uplink0", "tap0"] {
            self.net
                .wait_until_running(&device(name), PATIENCE)
                .expect("the switch has it open");
        }
        self.switch = Some(switch);
    }
}

/// The tables of a kubenet node without a default route, so that there is a target that nobody has
/// a route to.
pub(crate) fn tables(here: Side, there: Side, between: u16) -> TablesSpec {
    let row = |index, role, mac, mtu| PortSpec {
        id: port(index),
        role,
        mac: station(mac),
        mtu,
        hairpin: false,
        isolated: false,
    };
    let to_host = NextHop::Station {
        port: port(POD),
        mac: here.host_mac,
    };
    let to_router = NextHop::Station {
        port: port(UPLINK),
        mac: there.uplink_mac,
    };
    let mut routes = Vec::new();
    let mut owners = Vec::new();
    for v6 in [false, true] {
        let link = |pair: Pair| pair.on_link()[usize::from(v6)].trunc();
        let (host, gateway) = (here.host.of(v6), here.gateway.of(v6));
        let aliases = [here.aliases.0.into(), here.aliases.1.into()][usize::from(v6)];
        let next = if v6 {
            to_router
        } else {
            NextHop::Neighbour(there.uplink.v4.into())
        };
        routes.extend([
            (host.into(), to_host),
            (aliases, to_host),
            (gateway.into(), NextHop::Host),
            (link(here.host), NextHop::Unreachable),
            (link(there.host), next),
        ]);
        owners.extend([
            (host, (POD, here.host_mac)),
            (gateway, (HOST, here.gateway_mac)),
        ]);
    }
    let both = |pair: Pair| Addresses {
        v4: Some(pair.v4),
        v6: Some(pair.v6),
    };
    let owner = |(index, mac)| Owner {
        port: port(index),
        mac,
    };
    TablesSpec {
        ports: vec![
            row(HOST, PortRole::Host, here.gateway_mac, MTU),
            row(UPLINK, PortRole::Uplink, here.uplink_mac, between),
            row(POD, PortRole::Pod, here.host_mac, MTU),
        ],
        owners: owners
            .into_iter()
            .map(|(address, held)| (address, owner(held)))
            .collect(),
        router_macs: vec![here.gateway_mac],
        routes,
        groups: Vec::new(),
        crossing: Crossing::Routed {
            uplink: both(here.uplink),
            gateway: both(here.gateway),
        },
        policy: Policy::None,
        unknown: Unknown::Flood,
        guards: Vec::new(),
    }
}
