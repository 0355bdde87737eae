//! The host beside the switch: services, host ports, masquerade and policy, with the kernel's own
//! packet filter in the nodes of a lab.
//!
//! In: the built-in cluster in both modes, and rules as kube-proxy would have them.
//! Out: conversations of real sockets, and who they think that they speak to.
//! Never: an address that a client did not ask for: UDP sockets are connected, so an answer from
//! another address is none.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use control::devices::DeviceName;
use control::devices::netlink::Netlink;
use control::devices::netlink::address::Route;
use control::devices::netns::Netns;
use control::devices::sysctl;
use control::lab::cluster::{Cluster, Wishes};
use control::lab::fabric::{NextHop, NicSpec, UserRoute};
use control::lab::privilege::PrivateNet;
use control::lab::probe::ping::{PingSpec, ping};
use control::plan::{self, LoadOptions, Plan, Plugin};
use dataplane::addr::Mac;
use dataplane::tables::Policy;

use crate::nft::{self, Chain, FORWARD, OUTPUT, POSTROUTING, PREROUTING};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// Of services: the API model's service CIDR is 10.0.0.0/16.
const SAME_NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 77, 1);
const OTHER_NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 77, 2);
const ITSELF: Ipv4Addr = Ipv4Addr::new(10, 0, 77, 3);
pub(crate) const SERVICE_PORT: u16 = 80;
pub(crate) const POD_PORT: u16 = 8080;
pub(crate) const HOST_PORT: u16 = 30_080;
/// Beyond the fabric (RFC 5737).
const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// How long a socket waits; an answer that goes astray is seen by it.
const PATIENCE: Duration = Duration::from_millis(2500);

struct Bench {
    cluster: Cluster,
    /// The host beyond the fabric.
    edge: Netns,
}

fn planned(plugin: Plugin) -> Plan {
    let options = LoadOptions {
        plugin: Some(plugin),
        ..LoadOptions::built_in()
    };
    plan::load(&options).expect("the example holds")
}

fn cluster(plugin: Plugin, policy: Policy) -> (Cluster, Plan, PrivateNet) {
    let private = crate::PRIVATE
        .lock()
        .expect("one thread")
        .take()
        .expect("entered");
    let plan = planned(plugin);
    let wishes = Wishes {
        policy,
        ..Wishes::default()
    };
    let cluster = Cluster::build(&private, &plan, &wishes, |_| {}).expect("built");
    (cluster, plan, private)
}

impl Bench {
    fn new(plugin: Plugin) -> Bench {
        let (cluster, plan, _private) = cluster(plugin, Policy::None);
        let edge = edge(&cluster, &plan);
        let bench = Bench { cluster, edge };
        for node in 0..2 {
            bench.load_rules(node);
        }
        bench
    }

    fn pod(&self, name: &str) -> (&Netns, Ipv4Addr) {
        let pod = self.cluster.pod(name).expect("placed");
        (&pod.netns, pod.address)
    }

    fn node(&self, at: usize) -> (&Netns, Ipv4Addr) {
        let node = &self.cluster.nodes[at];
        (&node.netns, node.plan.primary_ip)
    }

    fn load_rules(&self, at: usize) {
        let (netns, own) = self.node(at);
        let address = |pod| self.pod(pod).1;
        let service =
            |service: Ipv4Addr, pod| ((service, SERVICE_PORT).into(), address(pod).into());
        let mut backends = vec![
            service(SAME_NODE, "pod-b"),
            service(OTHER_NODE, "pod-c"),
            service(ITSELF, "pod-a"),
        ];
        if at == 0 {
            backends.push(((own, HOST_PORT).into(), address("pod-b").into()));
        }
        let nat = Nat {
            backends,
            itself: address("pod-a").into(),
            world: INTERNET.into(),
        };
        nft::load(netns, "nat", &nat.chains());
    }
}

/// What kube-proxy and `portmap` would have in a node's table `nat`, and the masquerade of
/// ip-masq-agent.
pub(crate) struct Nat {
    /// Whom clients ask for, over TCP and UDP, and the pod that answers at [`POD_PORT`].
    pub(crate) backends: Vec<(SocketAddr, IpAddr)>,
    /// The pod that asks for a service that it is itself.
    pub(crate) itself: IpAddr,
    /// To this address pods speak in the node's name.
    pub(crate) world: IpAddr,
}

impl Nat {
    pub(crate) fn chains(&self) -> [Chain; 3] {
        let translated = |(asked, pod): &(SocketAddr, IpAddr)| {
            [TCP, UDP].map(|number| {
                [
                    nft::to(asked.ip()),
                    nft::protocol(number),
                    nft::to_port(asked.port()),
                    nft::translate_to(*pod, POD_PORT),
                ]
                .concat()
            })
        };
        let rules: Vec<Vec<nft::Expression>> = self.backends.iter().flat_map(translated).collect();
        let hairpin = [
            nft::from(self.itself),
            nft::to(self.itself),
            nft::masquerade(),
        ]
        .concat();
        let out = [nft::to(self.world), nft::masquerade()].concat();
        let chain = |name, hook, priority, rules| Chain {
            name,
            hook: Some(("nat", hook, priority)),
            rules,
        };
        [
            chain("PREROUTING", PREROUTING, -100, rules.clone()),
            chain("OUTPUT", OUTPUT, -100, rules),
            chain("POSTROUTING", POSTROUTING, 100, vec![hairpin, out]),
        ]
    }
}

/// A host beyond the fabric: an appliance to which the route tables send the world, as a firewall
/// in front of the Internet is set up in Azure, which holds an address of the world itself.
fn edge(cluster: &Cluster, plan: &Plan) -> Netns {
    let device = |name: &str| DeviceName::new(name).expect("a device name");
    let netns = Netns::create("edge").expect("made");
    let net = Netlink::open(&netns).expect("opened");
    let subnet = &cluster.nodes[0].plan.subnet;
    let link = cluster.nodes[0].plan.subnet_prefix;
    let own = Ipv4Addr::from_bits(link.broadcast().to_bits() - 5);
    let spec = NicSpec {
        name: "edge".into(),
        mac: Mac::new([0, 0x0d, 0x3a, 0x77, 0x77, 0x77]),
        addresses: vec![own.into()],
        subnet: subnet.clone(),
        forwarding: true,
        mtu: 1500,
    };
    cluster.fabric.add_nic(&netns, spec).expect("a NIC");
    let address = |address: Ipv4Addr, len: u8| format!("{address}/{len}").parse().expect("legal");
    net.add_address(&device("eth0"), address(own, link.prefix_len()))
        .expect("added");
    net.set_up(&device("lo"), true).expect("up");
    net.add_address(&device("lo"), address(INTERNET, 32))
        .expect("added");
    let via = link.hosts().next().map(IpAddr::V4);
    let to = ipnet::Ipv4Net::default().into();
    net.add_route(
        &device("eth0"),
        &Route {
            to,
            via,
            source: None,
        },
    )
    .expect("added");
    sysctl::set_ip_forward(&netns, true).expect("written");
    let vnet = control::lab::placement::vnet(plan, false);
    let table = vnet
        .subnets
        .iter()
        .find(|one| one.name == *subnet)
        .and_then(|one| one.route_table.clone());
    let world = UserRoute {
        name: "world".into(),
        prefix: to,
        next_hop: NextHop::VirtualAppliance(own.into()),
    };
    let table: Vec<UserRoute> = table
        .unwrap_or_default()
        .into_iter()
        .chain([world])
        .collect();
    cluster
        .fabric
        .set_route_table(subnet, Some(&table))
        .expect("attached");
    netns
}

/// No address in particular, of the family that is asked.
fn any(asked: SocketAddr) -> IpAddr {
    match asked {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A conversation: the server's port, whom the client asks for, and whom the server saw.
pub(crate) fn converse(
    number: u8,
    (server, port): (&Netns, u16),
    client: &Netns,
    asked: SocketAddr,
) -> io::Result<IpAddr> {
    match number {
        TCP => by_tcp(server, port, client, asked),
        _ => by_udp(server, port, client, asked),
    }
}

/// Bytes of one transfer: some super-frames in each direction.
const BYTES: usize = 300_000;

fn by_tcp(server: &Netns, port: u16, client: &Netns, asked: SocketAddr) -> io::Result<IpAddr> {
    let listener = server.run(|| TcpListener::bind((any(asked), port)))?;
    listener.set_nonblocking(true)?;
    std::thread::scope(|scope| {
        let serve = scope.spawn(|| {
            let (mut stream, peer) = accepted(&listener)?;
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut bytes = vec![0; BYTES];
            stream.read_exact(&mut bytes)?;
            bytes.reverse();
            stream.write_all(&bytes)?;
            Ok(peer.ip())
        });
        let mut stream = client.run(|| TcpStream::connect_timeout(&asked, PATIENCE))?;
        assert_eq!(stream.peer_addr()?, asked);
        stream.set_read_timeout(Some(PATIENCE))?;
        let bytes: Vec<u8> = (0..BYTES).map(|at| (at * 7 % 251) as u8).collect();
        stream.write_all(&bytes)?;
        let mut answer = vec![0; BYTES];
        stream.read_exact(&mut answer)?;
        answer.reverse();
        assert!(answer == bytes, "the answer is another");
        serve.join().expect("no panic")
    })
}

fn accepted(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let start = std::time::Instant::now();
    loop {
        match listener.accept() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

/// A small question and a long answer: in fragments, of which only the first has ports.
fn by_udp(server: &Netns, port: u16, client: &Netns, asked: SocketAddr) -> io::Result<IpAddr> {
    let socket = |netns: &Netns, port: u16| {
        // The edge has two addresses, and a UDP socket that is bound to none picks the wrong one.
        let own = match asked.ip() {
            IpAddr::V4(INTERNET) if port > 0 => IpAddr::V4(INTERNET),
            _ => any(asked),
        };
        let socket = netns.run(|| UdpSocket::bind((own, port)))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok::<_, io::Error>(socket)
    };
    let (server, client) = (socket(server, port)?, socket(client, 0)?);
    client.connect(asked)?;
    let mut buffer = vec![0; 9000];
    let mut seen = None;
    for len in [64, 4000] {
        client.send(&[7; 32])?;
        let (got, peer) = server.recv_from(&mut buffer)?;
        assert_eq!(got, 32);
        server.send_to(&vec![9; len], peer)?;
        assert_eq!(client.recv(&mut buffer)?, len);
        seen = Some(peer.ip());
    }
    seen.ok_or_else(|| io::Error::other("nothing was said"))
}

/// A conversation: what it is, the server and its port, the client, whom that asks, and whom the
/// server hears.
type Talk<'a> = (
    &'static str,
    (&'a Netns, u16),
    &'a Netns,
    SocketAddr,
    Ipv4Addr,
);

fn talks(bench: &Bench, plugin: Plugin) -> Vec<Talk<'_>> {
    let ((a, a_ip), (b, b_ip), (c, c_ip)) =
        (bench.pod("pod-a"), bench.pod("pod-b"), bench.pod("pod-c"));
    let ((_, node_0), (node_1_ns, node_1)) = (bench.node(0), bench.node(1));
    let service = |address| SocketAddr::from((address, SERVICE_PORT));
    let host = SocketAddr::from((node_0, HOST_PORT));
    let direct = |address| SocketAddr::from((address, POD_PORT));
    let internet = SocketAddr::from((INTERNET, 4433));
    // By itself: the kernel speaks in the node's own name, so that the answer comes back to it.
    let own = match plugin {
        Plugin::Azure => node_0,
        Plugin::Kubenet => Ipv4Addr::from_bits(a_ip.to_bits() & 0xffff_ff00 | 1),
    };
    let (at_a, at_b, at_c) = ((a, POD_PORT), (b, POD_PORT), (c, POD_PORT));
    let beyond = (&bench.edge, 4433);
    vec![
        (
            "a service on the same node",
            at_b,
            a,
            service(SAME_NODE),
            a_ip,
        ),
        (
            "a service on the other node",
            at_c,
            a,
            service(OTHER_NODE),
            a_ip,
        ),
        ("the other way round", at_b, c, service(SAME_NODE), c_ip),
        ("host port, from a pod of the node", at_b, a, host, a_ip),
        ("host port, from a pod of another node", at_b, c, host, c_ip),
        (
            "host port, from another node",
            at_b,
            node_1_ns,
            host,
            node_1,
        ),
        ("the internet", beyond, a, internet, node_0),
        ("directly, on the node", at_b, a, direct(b_ip), a_ip),
        ("directly, to the other node", at_c, a, direct(c_ip), a_ip),
        ("a service that it is itself", at_a, a, service(ITSELF), own),
    ]
}

fn the_view_tells_of_it(bench: &Bench, a_ip: Ipv4Addr) {
    let view = bench.cluster.nodes[0]
        .daemon
        .with(|core| core.steering())
        .expect("it serves");
    assert_eq!((view.policy.in_force, view.policy.cost), ("none", None));
    let goes = |prefix: &str| {
        let row = view
            .prefixes
            .iter()
            .find(|row| row.prefix.to_string() == prefix);
        row.map(|row| (row.to, row.why.as_str()))
    };
    let services = ("host", "services, which the kernel translates");
    assert_eq!(goes("10.0.0.0/16"), Some(services));
    let client = view
        .flows
        .iter()
        .find(|flow| flow.target.is_none() && flow.protocol == TCP);
    let client = client.expect("pod-a has asked for services");
    assert_eq!(
        (client.source, client.answers_to),
        (IpAddr::V4(a_ip), "host")
    );
    assert!(
        view.filters.failures == 0 && view.filters.looks > 0,
        "{:?}",
        view.filters
    );
}

fn services(plugin: Plugin) {
    let bench = Bench::new(plugin);
    let ((a, a_ip), (_, b_ip), (_, c_ip)) =
        (bench.pod("pod-a"), bench.pod("pod-b"), bench.pod("pod-c"));
    for number in [TCP, UDP] {
        for (what, server, client, asked, seen) in talks(&bench, plugin) {
            let found = converse(number, server, client, asked);
            let found = found.unwrap_or_else(|e| panic!("{what}, {number} to {asked}: {e}"));
            assert_eq!(
                found,
                IpAddr::V4(seen),
                "{what}, {number} to {asked}: the server's peer"
            );
        }
    }
    // What never went through the kernel still does not.
    for (to, ttl) in [
        (b_ip, 64),
        (c_ip, if plugin == Plugin::Azure { 64 } else { 62 }),
    ] {
        assert_eq!(ttl_of(a, to), Some(ttl), "{to}");
    }
    let totals = bench.cluster.nodes[0]
        .daemon
        .with(|core| core.switch().returns().totals())
        .expect("it serves");
    assert!(
        totals.returned > 0 && totals.live > 0 && totals.evicted == 0,
        "{totals:?}"
    );
    println!("{plugin:?}: {totals:?}");
    the_view_tells_of_it(&bench, a_ip);
    bench.cluster.stop().expect("books that balance");
}

fn ttl_of(from: &Netns, to: Ipv4Addr) -> Option<u8> {
    let spec = PingSpec {
        count: 1,
        timeout: Duration::from_secs(1),
        ..PingSpec::to(to.into())
    };
    let report = ping(from, &spec).expect("an ICMP socket");
    if report.ttl().is_none() {
        println!("{report:?}");
    }
    report.ttl()
}

pub(crate) fn services_host_ports_and_masquerade_work_under_azure() {
    services(Plugin::Azure);
}

pub(crate) fn services_host_ports_and_masquerade_work_under_kubenet() {
    services(Plugin::Kubenet);
}

/// A FORWARD chain of the node's own that drops pod-a to pod-b.
fn forbids(plugin: Plugin) {
    let (cluster, ..) = cluster(plugin, Policy::ViaHost);
    let pod = |name: &str| cluster.pod(name).expect("placed");
    let (a, b, c) = (pod("pod-a"), pod("pod-b"), pod("pod-c"));
    // One hop for the kernel of each node.
    let across = 62;
    assert_eq!(ttl_of(&a.netns, b.address), Some(63));
    assert_eq!(ttl_of(&a.netns, c.address), Some(across));
    let node = &cluster.nodes[0].netns;
    let rule = [nft::from(a.address), nft::to(b.address), nft::drop_it()].concat();
    let chain = Chain {
        name: "FORWARD",
        hook: Some(("filter", FORWARD, 0)),
        rules: vec![rule],
    };
    nft::load(node, "filter", &[chain]);
    assert_eq!(
        ttl_of(&a.netns, b.address),
        None,
        "pod-a to pod-b is forbidden"
    );
    let asked = SocketAddr::from((b.address, POD_PORT));
    for number in [TCP, UDP] {
        converse(number, (&b.netns, POD_PORT), &a.netns, asked).expect_err("forbidden");
    }
    assert_eq!(
        ttl_of(&a.netns, c.address),
        Some(across),
        "pod-c is another matter"
    );
    assert_eq!(
        ttl_of(&c.netns, b.address),
        Some(across),
        "and so is pod-c to pod-b"
    );
    nft::unload(node, "filter");
    assert_eq!(ttl_of(&a.netns, b.address), Some(63));
    for number in [TCP, UDP] {
        let seen = converse(number, (&b.netns, POD_PORT), &a.netns, asked).expect("allowed");
        assert_eq!(seen, IpAddr::V4(a.address));
    }
    cluster.stop().expect("books that balance");
}

pub(crate) fn a_forward_drop_between_pods_of_one_node_holds_under_azure() {
    forbids(Plugin::Azure);
}

pub(crate) fn a_forward_drop_between_pods_of_one_node_holds_under_kubenet() {
    forbids(Plugin::Kubenet);
}
