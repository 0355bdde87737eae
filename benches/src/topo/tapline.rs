//! Tapline itself: the shipped switch and the shipped attachments.
//!
//! In: pods, and how they are attached. Out: a [`Rig`] around a running switch.
//! Never: sets anything that the program would not set on a node, but for `--spin`, `--workers` and
//! `--cpus`.
//!
//! The ways to attach differ in three places only: how a pod hangs on the node, which port the
//! switch opens for it, and whose frames it is. A further kind of port is a further [`Way`].

use std::fs;
use std::net::IpAddr;
use std::num::NonZeroU16;

use control::compile::{FIRST_POD_PORT, HOST_PORT};
use control::devices::attach::{HostPort, PodEnd, PodTap, PodVeth};
use control::devices::tap::TapSpec;
use control::devices::{DeviceName, Netlink, Netns};
use dataplane::addr::PortId;
use dataplane::port::any::AnyPort;
use dataplane::port::packet::PacketPort;
use dataplane::port::tap::{Queues, TapPort};
use dataplane::switch::{Options, Switch};
use dataplane::tables::fib::NextHop;
use dataplane::tables::{Crossing, Owner, Policy, PortRole, PortSpec, Tables, TablesSpec, Unknown};
use ipnet::IpNet;

use super::{Env, MTU, Pod, Rig, Shape, Unbuilt, device, paths, pods, rps, station, veth_ends};
use crate::names::Subject;

/// How the switch's thread is called, so that its time can be told from the generator's.
const THREAD: &str = "tl-compare";

/// How pods are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A veth whose host end is tied to a TAP.
    Veth,
    /// A TAP inside the pod.
    Tap,
    /// A veth whose host end the switch reads by a packet socket.
    Packet,
}

/// Builds it.
///
/// # Errors
/// What failed.
pub fn build(env: &Env, subject: Subject, shape: Shape) -> Result<Rig, Unbuilt> {
    let way = match subject {
        Subject::TaplineTap => Way::Tap,
        Subject::TaplineAfpacket => Way::Packet,
        _ => Way::Veth,
    };
    if way == Way::Packet && env.workers > NonZeroU16::MIN {
        return Err("a packet socket has one queue, for one worker".into());
    }
    let node = Netns::create("node")?;
    let net = Netlink::open(&node)?;
    let pods = pods(shape)?;
    let mut options = Options::named(THREAD);
    options.spin = env.spin.unwrap_or(options.spin);
    options.workers = env.workers.get().into();
    options.cpus.clone_from(&env.cpus);
    let tables = Tables::build(&tables(&pods)).map_err(|faults| format!("{faults:?}"))?;
    let switch = Switch::start(&options, tables)?;
    let host = host_port(env.workers);
    host.attach(&net)?;
    let queues = Way::Tap.open(&node, &host.tap.name, env.workers)?;
    switch.attach_queues(HOST_PORT, queues)?;
    for (at, pod) in pods.iter().enumerate() {
        let (netns, device) = way.attach(&net, pod, env.workers)?;
        switch.attach_queues(port(at), way.open(netns, device, env.workers)?)?;
    }
    let (path, flood) = paths(&pods, shape);
    let rps = match way {
        Way::Veth | Way::Packet => veth_ends(&node, &pods),
        Way::Tap => pod_ends(&pods),
    };
    let board = switch.board();
    let taps: Vec<(Netns, DeviceName)> = pods[..2].iter().map(|pod| way.tap(&node, pod)).collect();
    let pair_drops = move || {
        let in_switch = (0..2).map(|at| board.port(port(at)).dropped.total());
        let in_taps = taps.iter().map(|(netns, tap)| transmit_drops(netns, tap));
        in_switch.chain(in_taps).sum()
    };
    Ok(Rig {
        path,
        flood,
        rps,
        settings: settings(&options),
        threads: Some((std::process::id(), THREAD)),
        pair_drops: Some(Box::new(pair_drops)),
        hold: Box::new((switch, node, pods)),
    })
}

/// What a row says of the switch.
fn settings(options: &Options) -> Vec<String> {
    let workers = (options.workers > 1).then(|| format!("{} workers", options.workers));
    let spin = format!("spin {} us", options.spin.as_micros());
    let cpus: Vec<String> = options.cpus.iter().map(ToString::to_string).collect();
    let kept = (!cpus.is_empty()).then(|| format!("kept on CPU {}", cpus.join(", ")));
    [spin].into_iter().chain(workers).chain(kept).collect()
}

impl Way {
    /// Hangs the pod on the node; returns the device for the switch.
    fn attach<'a>(
        self,
        node: &'a Netlink,
        pod: &'a Pod,
        queues: NonZeroU16,
    ) -> Result<(&'a Netns, &'a DeviceName), Unbuilt> {
        let pod_net = Netlink::open(&pod.netns)?;
        let end = PodEnd {
            name: pod.device.clone(),
            mac: pod.mac.mac(),
            addresses: pod.addresses(),
            gateways: Vec::new(),
            mtu: MTU.into(),
        };
        match self {
            Way::Veth => {
                let veth = PodVeth {
                    host_end: pod.host_end.clone(),
                    tap: tap_spec(pod.tap.clone(), queues),
                    pod: end,
                    alias: None,
                };
                veth.attach(node, &pod_net)?;
                Ok((node.namespace(), &pod.tap))
            }
            Way::Tap => {
                let tap = PodTap {
                    tap: tap_spec(pod.device.clone(), queues),
                    pod: end,
                    alias: None,
                };
                tap.attach(&pod_net)?;
                Ok((&pod.netns, &pod.device))
            }
            Way::Packet => {
                pod.attach_veth(node)?;
                // The switch has a copy of each frame; the node's own stack is to see none.
                node.ensure_clsact(&pod.host_end)?;
                node.drop_all(&pod.host_end)?;
                Ok((node.namespace(), &pod.host_end))
            }
        }
    }

    /// Opens the queues of the switch's port on the device.
    fn open(
        self,
        netns: &Netns,
        device: &DeviceName,
        queues: NonZeroU16,
    ) -> std::io::Result<Vec<AnyPort>> {
        let kind = match queues.get() {
            1 => Queues::Single,
            _ => Queues::Multi,
        };
        let open = |_| match self {
            Way::Packet => PacketPort::open(device.as_str()).map(AnyPort::from),
            _ => TapPort::open(device.as_str(), kind).map(AnyPort::from),
        };
        netns.run(|| (0..queues.get()).map(open).collect())
    }

    /// Where the device is whose full queue would cost frames.
    fn tap(self, node: &Netns, pod: &Pod) -> (Netns, DeviceName) {
        match self {
            Way::Veth => (node.clone(), pod.tap.clone()),
            Way::Packet => (node.clone(), pod.host_end.clone()),
            Way::Tap => (pod.netns.clone(), pod.device.clone()),
        }
    }
}

fn port(pod: usize) -> PortId {
    PortId::new(FIRST_POD_PORT + pod).expect("fewer pods than a node may have")
}

fn pod_ends(pods: &[Pod]) -> rps::Ends {
    let ends = pods.iter().filter(|pod| pod.active);
    rps::Ends(
        ends.map(|pod| (pod.netns.clone(), pod.device.clone()))
            .collect(),
    )
}

/// What the kernel dropped because the switch had not read it yet: `tx_dropped` of the TAP, the
/// twelfth number of its line.
fn transmit_drops(netns: &Netns, tap: &DeviceName) -> u64 {
    let table = netns.run(|| fs::read_to_string("/proc/thread-self/net/dev"));
    let table = table.unwrap_or_default();
    let line = table
        .lines()
        .find_map(|line| line.trim().strip_prefix(&format!("{tap}:")));
    line.and_then(|rest| rest.split_whitespace().nth(11)?.parse().ok())
        .unwrap_or_default()
}

fn tap_spec(name: DeviceName, queues: NonZeroU16) -> TapSpec {
    TapSpec {
        queues,
        ..TapSpec::new(name, MTU.into())
    }
}

fn host_port(queues: NonZeroU16) -> HostPort {
    HostPort {
        tap: tap_spec(device("azure0"), queues),
        mac: station([0x00, 0x0d, 0x3a, 10, 20, 1]).mac(),
        addresses: Vec::new(),
        alias: None,
    }
}

/// An azure node without an uplink: everything here stays on the node.
fn tables(pods: &[Pod]) -> TablesSpec {
    let host = PortSpec {
        id: HOST_PORT,
        role: PortRole::Host,
        mac: station(host_port(NonZeroU16::MIN).mac.octets()),
        mtu: MTU,
        hairpin: false,
        isolated: false,
    };
    let rows = pods.iter().enumerate().map(|(at, pod)| PortSpec {
        id: port(at),
        role: PortRole::Pod,
        mac: pod.mac,
        ..host
    });
    let owner = |(at, pod): (usize, &Pod)| {
        let owner = Owner {
            port: port(at),
            mac: pod.mac.mac(),
        };
        (IpAddr::V4(pod.address), owner)
    };
    let route = |(at, pod): (usize, &Pod)| {
        let hop = NextHop::Station {
            port: port(at),
            mac: pod.mac.mac(),
        };
        (IpNet::from(IpAddr::V4(pod.address)), hop)
    };
    TablesSpec {
        ports: std::iter::once(host).chain(rows).collect(),
        owners: pods.iter().enumerate().map(owner).collect(),
        router_macs: vec![host.mac.mac()],
        routes: pods.iter().enumerate().map(route).collect(),
        groups: Vec::new(),
        crossing: Crossing::Bridged,
        policy: Policy::None,
        unknown: Unknown::Flood,
        guards: Vec::new(),
    }
}
