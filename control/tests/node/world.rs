//! What the tests of the daemon stand on: a fabric with two nodes, one of which runs the daemon.
//!
//! In: `/dev/net/tun` and the right to make namespaces.
//! Out: a world that dies with the test.
//! Never: a device, address or filter in the namespace that the test was started in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use control::api::types::{
    AddReply, AddRequest, CheckRequest, DelRequest, Key, PodName, StatusReply,
};
use control::api::{Client, ClientError};
use control::devices::netlink::address::Route;
use control::devices::netlink::link::VethEnd;
use control::devices::{DeviceName, Netlink, Netns};
use control::lab::fabric::{Fabric, VIRTUAL_MAC};
use control::lab::placement;
use control::lab::probe::ping::{PingReport, PingSpec, ping};
use control::node::features::{Feature, Finding};
use control::node::standin::{Answers, Manners, StandIn, interfaces_of, metadata_of};
use control::plan::{self, LoadOptions, Plan, Plugin};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A daemon of a debug build on a loaded machine is up well within this time.
const UP_WITHIN: Duration = Duration::from_secs(30);

/// Where an azure node finds its wireserver.
const WIRESERVER: &str = "127.0.0.1:8168";

/// A device name that is known to be one.
pub(crate) fn name(text: &str) -> DeviceName {
    DeviceName::new(text).expect("a device name")
}

/// True if anything of ours stands at the ingress of `eth0`.
pub(crate) fn is_steered(net: &Netlink) -> bool {
    let eth0 = name("eth0");
    let filters = net.filters(&eth0).expect("filters");
    !net.programs(&eth0).expect("programs").is_empty()
        || net.table(&eth0).expect("tables").is_some()
        || filters.iter().any(|filter| filter.ours)
}

/// Two nodes on a fabric, and a folder.
pub(crate) struct World {
    pub(crate) node: Netns,
    pub(crate) other: Ipv4Addr,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) plan: Plan,
    /// The other node's namespace.
    pub(crate) far: Netns,
    /// None where the nodes hang on one wire.
    _fabric: Option<Fabric>,
}

impl World {
    /// A kubenet node, with its file and nothing started.
    pub(crate) fn kubenet() -> World {
        let world = World::of(Plugin::Kubenet);
        world.configure(&world.config());
        world
    }

    /// An azure node, with its file and nothing started. Its addresses are the wireserver's to tell.
    pub(crate) fn azure() -> World {
        let world = World::of(Plugin::Azure);
        world.configure(&world.azure_config(""));
        world
    }

    /// A node, with its file and nothing started, whose `eth0` is the other end of the other node's:
    /// a fabric carries no broadcast.
    pub(crate) fn on_a_wire(plugin: Plugin) -> World {
        let plan = planned(plugin);
        let (node, far) = (namespace(&plan, 0), namespace(&plan, 1));
        let nic = placement::node_macs(&plan, &plan.nodes[0]).nic.mac();
        let end = |mac| VethEnd {
            name: name("eth0"),
            mac: Some(mac),
        };
        let net = Netlink::open(&node).expect("a netlink socket");
        // Who sends to the fabric sends to this address.
        net.add_veth(&end(nic), &end(VIRTUAL_MAC), &far, 1500)
            .expect("a wire");
        let beyond = Netlink::open(&far).expect("a netlink socket");
        for (net, at) in [(&net, 0), (&beyond, 1)] {
            net.set_up(&name("eth0"), true).expect("up");
            give_addresses(net, &plan, at);
        }
        if let Some(pods) = plan.nodes[0].pod_cidr {
            let back = Route {
                to: pods.into(),
                via: Some(plan.nodes[0].primary_ip.into()),
                source: None,
            };
            beyond.add_route(&name("eth0"), &back).expect("a route");
        }
        let world = World::with(plan, (node, far), None);
        world.configure(&match plugin {
            Plugin::Azure => world.azure_config(""),
            Plugin::Kubenet => world.config(),
        });
        world
    }

    fn of(plugin: Plugin) -> World {
        let plan = planned(plugin);
        let fabric = Fabric::start(placement::vnet(&plan, false)).expect("a fabric");
        let nodes = (host(&fabric, &plan, 0), host(&fabric, &plan, 1));
        World::with(plan, nodes, Some(fabric))
    }

    fn with(plan: Plan, (node, far): (Netns, Netns), fabric: Option<Fabric>) -> World {
        World {
            node,
            other: plan.nodes[1].primary_ip,
            folder: tempfile::tempdir().expect("a folder"),
            plan,
            far,
            _fabric: fabric,
        }
    }

    /// A netlink socket in the node.
    pub(crate) fn net(&self) -> Netlink {
        Netlink::open(&self.node).expect("a netlink socket")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The configuration, as an operator would write it.
    pub(crate) fn config(&self) -> String {
        format!(
            r#"{{
                "plugin": "kubenet",
                "node": "node-0",
                "truth": {{"sources": ["pod_cidr"], "pod_cidr": ["10.244.1.0/24"]}},
                "services": ["10.0.0.0/16"],
                "routes": [{{"to": "10.244.0.0/24", "via": "{}"}}],
                "policy": "none",
                "state_dir": "{}",
                "socket": "{}"
            }}"#,
            self.other,
            self.path("state").display(),
            self.path("tapline.sock").display()
        )
    }

    /// The configuration of an azure node, with `more` keys.
    pub(crate) fn azure_config(&self, more: &str) -> String {
        let path = "machine/plugins?comp=nmagent&type=getinterfaceinfov1";
        format!(
            r#"{{
                "plugin": "azure",
                "node": "node-0",
                "truth": {{
                    "sources": ["wireserver"],
                    "wireserver": "http://{WIRESERVER}/{path}",
                    "timeout_ms": 2000,
                }},
                "services": ["10.0.0.0/16"],
                "routes": [{{"to": "10.20.0.0/24", "via": "fabric"}}],
                "policy": "none",
                "state_dir": "{}",
                "socket": "{}",
                {more}
            }}"#,
            self.path("state").display(),
            self.path("tapline.sock").display()
        )
    }

    /// Azure's wireserver, as this node finds it.
    pub(crate) fn wireserver(&self, manners: Manners) -> StandIn {
        self.wireserver_at(WIRESERVER.parse().expect("an address"), manners)
    }

    /// The same elsewhere in the node.
    pub(crate) fn wireserver_at(&self, at: SocketAddr, manners: Manners) -> StandIn {
        let node = &self.plan.nodes[0];
        let nic = placement::node_macs(&self.plan, node).nic.mac();
        let answers = Answers {
            interfaces: interfaces_of(node, nic),
            metadata: metadata_of(node, nic),
            manners,
        };
        let started = self.node.run(|| StandIn::start(at, answers));
        started.expect("a stand-in")
    }

    /// It is gone. It is woken for that, which only works in its own network.
    pub(crate) fn silence(&self, wireserver: StandIn) {
        let gone = self.node.run(move || {
            drop(wireserver);
            Ok(())
        });
        gone.expect("a thread");
    }

    /// The addresses of an azure node's pods.
    pub(crate) fn secondary(&self) -> Vec<Ipv4Addr> {
        let pods = self.plan.nodes[0].pod_ips.iter();
        pods.flat_map(plan::PodIps::iter).collect()
    }

    /// Writes the configuration.
    pub(crate) fn configure(&self, text: &str) {
        std::fs::write(self.path("tapline.json"), text).expect("the folder is ours");
    }

    /// The command that runs the daemon, to be spawned inside the node.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapline"));
        command
            .arg("run")
            .arg("--config")
            .arg(self.path("tapline.json"))
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        command
    }

    /// Starts the daemon and waits until it serves.
    pub(crate) fn start(&self) -> Running {
        let running = self.spawn(&mut self.command());
        running.wait_until_ready();
        running
    }

    /// Starts a command as the daemon, inside the node.
    pub(crate) fn spawn(&self, command: &mut Command) -> Running {
        let child = self.node.run(|| command.spawn()).expect("it starts");
        Running {
            child,
            client: Client::new(&self.path("tapline.sock")).within(Duration::from_secs(60)),
        }
    }

    /// Runs the program inside the node to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapline"));
        command.args(arguments).stdin(Stdio::null());
        let output = self.node.run(|| command.output()).expect("it starts");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), stderr)
    }

    /// Pings the other node from this one, every millisecond, for as long as `work` takes.
    pub(crate) fn while_the_node_pings<T>(&self, work: impl FnOnce() -> T) -> (T, PingReport) {
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let pinging = scope.spawn(|| {
                let mut all: Option<PingReport> = None;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let spec = PingSpec {
                        count: 100,
                        interval: Duration::from_millis(1),
                        // Late is not lost: the machine may have much else to do.
                        timeout: Duration::from_secs(10),
                        ..PingSpec::to(IpAddr::V4(self.other))
                    };
                    let some = ping(&self.node, &spec).expect("a socket");
                    all = Some(match all {
                        None => some,
                        Some(mut before) => {
                            before.sent += some.sent;
                            before.replies.extend(some.replies);
                            before.errors.extend(some.errors);
                            before
                        }
                    });
                }
                all.expect("a hundred at least")
            });
            // The first pings are out before anything happens, and the last when it has ended, also
            // by a panic.
            std::thread::sleep(Duration::from_millis(50));
            let ended = Ended(&done);
            let result = work();
            drop(ended);
            (result, pinging.join().expect("it pings"))
        })
    }

    /// How many of the node's own packets `changes` of the clsact of `eth0` may have cost a daemon without
    /// `off`: none where the kernel takes programs or tables, else one each, if the kernel counts them as
    /// its own drops. Whoever adds a clsact to a device that is up, or removes one, has the kernel take its
    /// transmit queue away.
    pub(crate) fn lost_by_queues(&self, changes: u64, off: &[Feature]) -> u64 {
        let findings = control::node::features::probe().expect("a namespace to try in");
        let beside = |finding: &Finding| {
            matches!(finding.feature, Feature::Tcx | Feature::Nftables)
                && finding.used
                && !off.contains(&finding.feature)
        };
        if findings.iter().any(beside) {
            return 0;
        }
        let text = self
            .node
            .run(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
        let text = text.expect("readable");
        let mut rows = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("eth0:"));
        let counts = rows.next().expect("eth0 is counted");
        let dropped = counts.split_whitespace().nth(11).expect("sixteen counters");
        changes.min(dropped.parse().expect("a number"))
    }

    /// As [`is_steered`].
    pub(crate) fn is_steered(&self) -> bool {
        is_steered(&self.net())
    }

    /// The names of the node's devices that are ours.
    pub(crate) fn devices(&self) -> Vec<String> {
        let links = self.net().links().expect("links");
        let ours = |name: &String| {
            ["veth", "azv", "tap", "cbr0", "azure0", "uplink0"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        };
        let mut names: Vec<String> = links
            .into_iter()
            .map(|link| link.name)
            .filter(ours)
            .collect();
        names.sort();
        names
    }

    /// Everything of the node that a daemon can change, to compare before and after.
    pub(crate) fn snapshot(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let net = self.net();
        for mut link in net.links().expect("links") {
            // The kernel's own time, not the daemon's doing.
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
}

fn planned(plugin: Plugin) -> Plan {
    let options = LoadOptions {
        plugin: Some(plugin),
        // As the seed's registered: this one has 10.244.1.0/24.
        register: vec!["node-1".into(), "node-0".into(), "master-0".into()],
        ..LoadOptions::built_in()
    };
    plan::load(&options).expect("the example holds")
}

/// A node with its `eth0` and addresses, as Azure's DHCP would leave it.
fn host(fabric: &Fabric, plan: &Plan, at: usize) -> Netns {
    let netns = namespace(plan, at);
    let macs = placement::node_macs(plan, &plan.nodes[at]);
    fabric
        .add_nic(&netns, placement::nic(plan, &plan.nodes[at], macs))
        .expect("a NIC");
    give_addresses(&Netlink::open(&netns).expect("a netlink socket"), plan, at);
    netns
}

fn namespace(plan: &Plan, at: usize) -> Netns {
    let netns = Netns::create(&plan.nodes[at].name).expect("namespaces can be made");
    control::devices::sysctl::set_ip_forward(&netns, true).expect("forwarding");
    let net = Netlink::open(&netns).expect("a netlink socket");
    net.set_up(&name("lo"), true).expect("the loopback");
    netns
}

fn give_addresses(net: &Netlink, plan: &Plan, at: usize) {
    let node = &plan.nodes[at];
    let own = ipnet::Ipv4Net::new(node.primary_ip, node.subnet_prefix.prefix_len());
    net.add_address(&name("eth0"), own.expect("a length").into())
        .expect("an address");
    let default = Route {
        to: ipnet::Ipv4Net::default().into(),
        via: node.subnet_prefix.hosts().next().map(IpAddr::V4),
        source: None,
    };
    net.add_route(&name("eth0"), &default).expect("a route");
}

/// Says so when it is dropped.
struct Ended<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// A daemon that was started here. Dropping it kills it.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) client: Client,
}

impl Running {
    pub(crate) fn status(&self) -> Result<StatusReply, ClientError> {
        self.client.get("/v1/status")
    }

    pub(crate) fn wait_until_ready(&self) {
        let end = Instant::now() + UP_WITHIN;
        loop {
            match self.status() {
                Ok(status) if status.ready => return,
                other if Instant::now() > end => panic!("not up: {other:?}"),
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it is ours");
    }

    /// SIGKILL, and its end.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("a child");
    }

    /// SIGTERM, and its exit status.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.child.wait().expect("a child").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A container that has a namespace.
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) netns: Netns,
}

impl Pod {
    pub(crate) fn new(id: &str) -> Pod {
        Pod {
            id: id.to_owned(),
            netns: Netns::create(id).expect("namespaces can be made"),
        }
    }

    fn key(&self) -> Key {
        Key {
            network: "kubenet".into(),
            container_id: self.id.clone(),
            ifname: "eth0".into(),
        }
    }

    pub(crate) fn request(&self) -> AddRequest {
        AddRequest {
            key: self.key(),
            netns: self.netns.path(),
            pod: Some(PodName {
                namespace: "default".into(),
                name: self.id.clone(),
            }),
            mtu: None,
            mac: None,
            hairpin: false,
            isolated: false,
            mac_spoof_check: None,
            requested: Vec::new(),
            assigned: Vec::new(),
            default_route: true,
            routes: Vec::new(),
            is_gateway: false,
            ip_masq: false,
            force_address: false,
            bandwidth: None,
        }
    }

    pub(crate) fn del(&self) -> DelRequest {
        DelRequest {
            key: self.key(),
            netns: Some(self.netns.path()),
        }
    }

    pub(crate) fn check(&self, reply: &AddReply) -> CheckRequest {
        CheckRequest {
            key: self.key(),
            netns: self.netns.path(),
            interfaces: reply.interfaces.clone(),
            ips: reply.ips.clone(),
            routes: reply.routes.clone(),
        }
    }

    pub(crate) fn added(&self, running: &Running) -> AddReply {
        let added = running.client.add(&self.request());
        added.unwrap_or_else(|error| panic!("{}: {error}", self.id))
    }

    pub(crate) fn pings(&self, to: IpAddr) -> PingReport {
        let spec = PingSpec {
            count: 3,
            ..PingSpec::to(to)
        };
        ping(&self.netns, &spec).expect("a socket")
    }

    pub(crate) fn has_eth0(&self) -> bool {
        let net = Netlink::open(&self.netns).expect("a netlink socket");
        net.find_link(&name("eth0")).expect("answers").is_some()
    }
}

/// The pod's address in an answer.
pub(crate) fn address(reply: &AddReply) -> IpAddr {
    reply.ips[0].address.addr()
}

/// Waits until `done`, or fails with `what`.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
