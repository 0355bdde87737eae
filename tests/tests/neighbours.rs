//! The kernel as the switch's neighbour: ARP and ND between our answers and its questions, and the
//! other way round.
//!
//! In: the right to make namespaces. Out: pings through next hops that were asked for, the kernel's
//! own neighbour table and address flags, and a record of who wanted whose address.
//! Never: touches the machine's own network; what is made here dies with its descriptors.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use control::devices::attach::{PodEnd, PodTap};
use control::devices::name::DeviceName;
use control::devices::netlink::Netlink;
use control::devices::netlink::address::Route;
use control::devices::netns::Netns;
use control::devices::sysctl::{self, Conf, Setting};
use control::devices::tap::{self, TapSpec};
use control::lab::probe::ping::{PingSpec, ping};
use dataplane::addr::{Mac, PortId, Station};
use dataplane::conflict::Party;
use dataplane::port::tap::{Queues, TapPort};
use dataplane::switch::{Options, Switch};
use dataplane::tables::fib::NextHop;
use dataplane::tables::{
    Addresses, Crossing, Owner, Policy, PortRole, PortSpec, Tables, TablesSpec, Unknown,
};
use dataplane::verdict::DropReason;

const MTU: u32 = 1500;
const PATIENCE: Duration = Duration::from_secs(5);

const GATEWAY: Mac = Mac::new([0x0a, 0x58, 0x0a, 0xf4, 1, 1]);
const NIC: Mac = Mac::new([2, 0, 0, 0, 0, 4]);
const FAR: Mac = Mac::new([2, 0, 0, 0, 0, 5]);
const POD_A: Mac = Mac::new([2, 0, 0, 0, 0, 6]);
const POD_B: Mac = Mac::new([2, 0, 0, 0, 0, 7]);
/// The link-local address that a kernel makes of `POD_B` (RFC 4291 appendix A).
const LINK_LOCAL_B: &str = "fe80::ff:fe00:7";

const HOST: usize = 0;
const UPLINK: usize = 1;
const A: usize = 2;
const B: usize = 3;

/// `NUD_REACHABLE`, linux/neighbour.h.
const REACHABLE: u16 = 0x02;
/// `IFA_F_DADFAILED`, linux/if_addr.h.
const DAD_FAILED: u8 = 0x08;

fn device(name: &str) -> DeviceName {
    DeviceName::new(name).expect("a device name")
}

fn port(id: usize) -> PortId {
    PortId::new(id).expect("in range")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn owner(id: usize, mac: Mac) -> Owner {
    let port = port(id);
    Owner { port, mac }
}

/// A kubenet node of both families. Pod A also holds the address that pod B's kernel wants.
fn spec() -> TablesSpec {
    let row = |id, role, mac| PortSpec {
        id: port(id),
        role,
        mac: Station::new(mac).expect("a station"),
        mtu: 1500,
        hairpin: false,
        isolated: false,
    };
    let station = |id, mac| NextHop::Station {
        port: port(id),
        mac,
    };
    let far = |text| NextHop::Neighbour(address(text));
    let route = |prefix: &str, hop| (prefix.parse().expect("a prefix"), hop);
    let both = |v4: &str, v6: &str| Addresses {
        v4: v4.parse().ok(),
        v6: v6.parse().ok(),
    };
    TablesSpec {
        ports: vec![
            row(HOST, PortRole::Host, GATEWAY),
            row(UPLINK, PortRole::Uplink, NIC),
            row(A, PortRole::Pod, POD_A),
            row(B, PortRole::Pod, POD_B),
        ],
        owners: vec![
            (address("10.244.1.1"), owner(HOST, GATEWAY)),
            (address("fd00:244:1::1"), owner(HOST, GATEWAY)),
            (address("10.244.1.6"), owner(A, POD_A)),
            (address("fd00:244:1::6"), owner(A, POD_A)),
            (address(LINK_LOCAL_B), owner(A, POD_A)),
        ],
        router_macs: vec![GATEWAY],
        routes: vec![
            route("10.244.1.6/32", station(A, POD_A)),
            route("fd00:244:1::6/128", station(A, POD_A)),
            route("10.244.0.0/24", far("10.20.0.5")),
            route("fd00:244:2::/64", far("fd00:20::5")),
        ],
        crossing: Crossing::Routed {
            uplink: both("10.20.0.4", "fd00:20::4"),
            gateway: both("10.244.1.1", "fd00:244:1::1"),
        },
        policy: Policy::None,
        unknown: Unknown::Flood,
        guards: Vec::new(),
        groups: Vec::new(),
    }
}

/// A kernel behind a TAP of its own.
struct Kernel {
    netns: Netns,
    net: Netlink,
}

impl Kernel {
    fn new(name: &str) -> Kernel {
        let netns = Netns::create(name).unwrap_or_else(|error| {
            panic!(
                "this test makes network namespaces, which was refused ({error}): run it as root, \
                 or under `unshare --map-root-user --net`"
            )
        });
        let net = Netlink::open(&netns).expect("a netlink socket");
        Kernel { netns, net }
    }

    /// A kernel with addresses, whose `eth0` is a port of `switch`.
    fn plugged(
        switch: &Switch<TapPort>,
        id: usize,
        mac: Mac,
        own: &[&str],
        via: &[&str],
    ) -> Kernel {
        let kernel = Kernel::new("kernel");
        let tap = PodTap {
            tap: TapSpec::new(device("eth0"), MTU),
            pod: PodEnd {
                name: device("eth0"),
                mac,
                addresses: own.iter().map(|net| net.parse().expect("a net")).collect(),
                gateways: via.iter().map(|gateway| address(gateway)).collect(),
                mtu: MTU,
            },
            alias: None,
        };
        tap.attach(&kernel.net).expect("a port");
        kernel.plug(switch, id);
        kernel
    }

    fn plug(&self, switch: &Switch<TapPort>, id: usize) {
        let open = || TapPort::open("eth0", Queues::Single);
        let end = self.netns.run(open).expect("the TAP is there and free");
        switch.attach(port(id), end).expect("the thread lives");
        let eth0 = device("eth0");
        let running = self.net.wait_until_running(&eth0, PATIENCE);
        running.expect("the switch has it open");
    }

    fn reaches(&self, to: &str, switch: &Switch<TapPort>) {
        let spec = PingSpec {
            count: 5,
            interval: Duration::from_millis(5),
            ..PingSpec::to(address(to))
        };
        let report = ping(&self.netns, &spec).expect("a socket in the pod");
        let counts = switch.board().counts();
        let why = format!("{report:?}; {counts}: {:?}", counts.dropped);
        assert_eq!(report.received(), 5, "{to}: {why}");
    }

    /// What the kernel says of its neighbour: state and hardware address.
    fn neighbour(&self, of: &str) -> Option<(u16, Option<Mac>)> {
        let found = self.net.neighbours().expect("the kernel lists them");
        let found = found.iter().find(|one| one.address == address(of))?;
        Some((found.state, found.mac))
    }
}

#[test]
fn the_kernel_answers_our_questions_and_believes_our_answers() {
    let tables = Tables::build(&spec()).expect("sound");
    let switch = Switch::start(&Options::named("tl-nd"), tables).expect("a thread");
    let far = [
        "10.20.0.5/24",
        "10.244.0.7/24",
        "fd00:20::5/64",
        "fd00:244:2::7/64",
    ];
    let far = Kernel::plugged(&switch, UPLINK, FAR, &far, &[]);
    for (to, via) in [
        ("10.244.1.0/24", "10.20.0.4"),
        ("fd00:244:1::/64", "fd00:20::4"),
    ] {
        let route = Route {
            to: to.parse().expect("a prefix"),
            via: Some(address(via)),
            source: None,
        };
        far.net.add_route(&device("eth0"), &route).expect("a route");
    }
    let own = ["10.244.1.6/24", "fd00:244:1::6/64"];
    let gateways = ["10.244.1.1", "fd00:244:1::1"];
    let pod = Kernel::plugged(&switch, A, POD_A, &own, &gateways);
    for to in ["10.244.0.7", "fd00:244:2::7"] {
        pod.reaches(to, &switch);
    }
    for gateway in gateways {
        let found = pod.neighbour(gateway);
        assert_eq!(found, Some((REACHABLE, Some(GATEWAY))), "{gateway}");
    }
    for asker in ["10.20.0.4", "fd00:20::4"] {
        let found = far.neighbour(asker).and_then(|(_, mac)| mac);
        assert_eq!(found, Some(NIC), "{asker} asked");
    }
    let counts = switch.stop().expect("no law was broken");
    assert_eq!(counts.dropped.of(DropReason::MalformedNd), 0, "{counts}");
    assert!(counts.is_balanced(), "{counts}");
}

/// The flags of an address, as `/proc/net/if_inet6` has them.
fn flags(kernel: &Kernel, of: Ipv6Addr) -> Option<u8> {
    let read = || std::fs::read_to_string("/proc/thread-self/net/if_inet6");
    let listed = kernel.netns.run(read).expect("the kernel lists them");
    let wanted: String = of
        .octets()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let line = listed.lines().find(|line| line.starts_with(&wanted))?;
    u8::from_str_radix(line.split_whitespace().nth(4)?, 16).ok()
}

#[test]
fn a_kernel_that_wants_an_address_of_another_port_finds_it_taken() {
    let tables = Tables::build(&spec()).expect("sound");
    let switch = Switch::start(&Options::named("tl-dad"), tables).expect("a thread");
    let kernel = Kernel::new("claimer");
    let eth0 = device("eth0");
    tap::ensure(&kernel.net, &TapSpec::new(eth0.clone(), MTU)).expect("a TAP");
    kernel.net.set_mac(&eth0, POD_B).expect("an address");
    for (setting, value) in [
        (Setting::DisableIpv6(Conf::Device(&eth0)), "0"),
        (Setting::AcceptRa(Conf::Device(&eth0)), "0"),
        (Setting::AcceptDad(Conf::Device(&eth0)), "1"),
    ] {
        sysctl::set(&kernel.netns, setting, value).expect("a setting");
    }
    kernel.net.set_up(&eth0, true).expect("up");
    kernel.plug(&switch, B);

    let wanted: Ipv6Addr = LINK_LOCAL_B.parse().expect("an address");
    let deadline = Instant::now() + PATIENCE;
    while flags(&kernel, wanted).is_none_or(|flags| flags & DAD_FAILED == 0) {
        let counts = switch.board().counts();
        let found = flags(&kernel, wanted);
        assert!(
            Instant::now() < deadline,
            "{found:?}; {counts}: {:?}",
            counts.dropped
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let conflict = switch.take_conflict().expect("it is on record");
    let party = |id, mac| Party {
        port: port(id),
        mac,
    };
    assert_eq!(conflict.address, IpAddr::V6(wanted));
    assert_eq!(conflict.holder, party(A, POD_A));
    assert_eq!(conflict.claimer, party(B, POD_B));
    let counts = switch.stop().expect("no law was broken");
    assert!(
        counts.dropped.of(DropReason::AddressConflict) >= 1,
        "{counts}"
    );
}
