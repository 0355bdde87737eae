//! The same pods for every subject, in fresh namespaces, and one thing between them that differs.
//!
//! In: a subject and how many pods. Out: a [`Rig`]: where to send, and how to watch the switch.
//! Never: makes anything in the machine's own network: [`Env`] holds the proof that we left it.
//! Dropping a rig takes it down; a killed process takes it along, since nothing is pinned.

pub mod bridge;
pub mod nodes;
pub mod ovs;
pub mod rps;
pub mod tapline;

use std::any::Any;
use std::io;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use control::devices::netlink::link::VethEnd;
use control::devices::{DeviceName, Netlink, Netns, sysctl};
use control::lab::privilege::PrivateNet;
use control::lab::reaper::Reaper;
use dataplane::addr::{Mac, Station};
use dataplane::switch::Cpu;
use ipnet::{IpNet, Ipv4Net};

use crate::cpu;
use crate::names::Subject;
use crate::traffic::Path;

/// MTU of every device: what Azure gives a VM.
pub const MTU: u16 = 1500;

/// What went wrong while building, or why it cannot be built here.
pub type Unbuilt = Box<dyn std::error::Error + Send + Sync>;

/// What building needs.
#[derive(Debug)]
pub struct Env {
    /// Proof that this process left the machine's network.
    pub private: PrivateNet,
    /// Ends the programs of others that we started, should we be killed.
    pub reaper: Reaper,
    /// A folder that only this process sees and that dies with it; none where we may not mount.
    pub scratch: Option<PathBuf>,
    /// How long Tapline's switches look again before they sleep; their default without it.
    pub spin: Option<Duration>,
    /// How many workers they have, each with a queue of every TAP.
    pub workers: NonZeroU16,
    /// Where these stay; wherever the kernel puts them without.
    pub cpus: Vec<Cpu>,
}

/// Who talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Pods with addresses: two, or four where a second pair floods.
    pub active: usize,
    /// Pods that are attached and say nothing.
    pub idle: usize,
}

/// Something built, ready to be measured.
pub struct Rig {
    /// From the first pod to the second.
    pub path: Path,
    /// From the third to the fourth, where there are four.
    pub flood: Option<Path>,
    /// Devices whose RPS may be set.
    pub rps: rps::Ends,
    /// What the row should say of this subject.
    pub settings: Vec<String>,
    /// The process and the thread names of the switch, if it has any.
    pub threads: Option<(u32, &'static str)>,
    /// Frames to or from the first two pods that the switch or its TAPs dropped so far.
    pub pair_drops: Option<Box<dyn Fn() -> u64 + Send>>,
    /// What has to live as long.
    pub hold: Box<dyn Any>,
}

impl Rig {
    /// Processor time of the switch's own threads so far.
    #[must_use]
    pub fn switch_time(&self) -> Duration {
        self.threads
            .map_or(Duration::ZERO, |(pid, prefix)| cpu::threads(pid, prefix))
    }
}

impl std::fmt::Debug for Rig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rig {{ {:?}, {:?} }}", self.path, self.settings)
    }
}

/// Builds pods on one node around `subject`.
///
/// # Errors
/// What failed, or what is missing here.
pub fn same_node(env: &mut Env, subject: Subject, shape: Shape) -> Result<Rig, Unbuilt> {
    match subject {
        Subject::LinuxBridge => bridge::build(shape, bridge::Iptables::Off),
        Subject::LinuxBridgeNf => bridge::build(shape, bridge::Iptables::On),
        Subject::TaplineVeth | Subject::TaplineTap | Subject::TaplineAfpacket => {
            tapline::build(env, subject, shape)
        }
        Subject::OvsNetdev => ovs::build(env, shape),
        Subject::TaplineCore | Subject::DpdkTestpmd | Subject::DpdkTestFib => {
            Err("it has no pods: it is measured in memory".into())
        }
    }
}

/// A pod to be attached.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Its namespace; those that say nothing share one.
    pub(crate) netns: Netns,
    /// Its device.
    pub(crate) device: DeviceName,
    /// The node's end of its veth.
    pub(crate) host_end: DeviceName,
    /// The switch's TAP.
    pub(crate) tap: DeviceName,
    /// Its hardware address.
    pub(crate) mac: Station,
    /// Its address, as the switch knows it.
    pub(crate) address: Ipv4Addr,
    /// Its address is set on its device.
    pub(crate) active: bool,
}

/// The pods of a shape, none attached yet.
pub(crate) fn pods(shape: Shape) -> io::Result<Vec<Pod>> {
    let mut pods = Vec::with_capacity(shape.active + shape.idle);
    let mut silent = None;
    for at in 0..shape.active + shape.idle {
        let active = at < shape.active;
        let netns = match (active, &silent) {
            (false, Some(netns)) => Netns::clone(netns),
            _ => Netns::create(&format!("pod-{at}"))?,
        };
        if !active {
            silent.get_or_insert_with(|| netns.clone());
        }
        let [low, high] = [(at % 200) as u8 + 10, (at / 200) as u8 + 1];
        pods.push(Pod {
            netns,
            device: device(&format!("eth{}", if active { 0 } else { at })),
            host_end: device(&format!("veth{at:08x}")),
            tap: device(&format!("tap{at:08x}")),
            mac: station([0x0a, 0x58, 10, 20, high, low]),
            address: Ipv4Addr::new(10, 20, high, low),
            active,
        });
    }
    Ok(pods)
}

impl Pod {
    /// Its addresses with the length of the link: all pods are on one.
    pub(crate) fn addresses(&self) -> Vec<IpNet> {
        let net = Ipv4Net::new(self.address, 16).expect("16 is at most 32");
        self.active.then_some(IpNet::V4(net)).into_iter().collect()
    }

    /// A veth between node and pod, up, its node's end with nothing to say.
    pub(crate) fn attach_veth(&self, node: &Netlink) -> Result<(), Unbuilt> {
        let here = VethEnd {
            name: self.host_end.clone(),
            mac: None,
        };
        let there = VethEnd {
            name: self.device.clone(),
            mac: Some(self.mac.mac()),
        };
        node.add_veth(&here, &there, &self.netns, MTU.into())?;
        sysctl::silence_ipv6(node, &self.host_end)?;
        node.set_up(&self.host_end, true)?;
        let pod = Netlink::open(&self.netns)?;
        sysctl::silence_ipv6(&pod, &self.device)?;
        for address in self.addresses() {
            pod.add_address(&self.device, address)?;
        }
        pod.set_up(&self.device, true)?;
        pod.set_up(&device("lo"), true)?;
        Ok(())
    }
}

/// The paths between the first two pods, and between the next two.
pub(crate) fn paths(pods: &[Pod], shape: Shape) -> (Path, Option<Path>) {
    let path = |from: usize| Path {
        from: pods[from].netns.clone(),
        to: pods[from + 1].netns.clone(),
        address: pods[from + 1].address,
    };
    (path(0), (shape.active >= 4).then(|| path(2)))
}

/// Both ends of the veths of the pods that talk.
pub(crate) fn veth_ends(node: &Netns, pods: &[Pod]) -> rps::Ends {
    let ends = pods.iter().filter(|pod| pod.active).flat_map(|pod| {
        [
            (node.clone(), pod.host_end.clone()),
            (pod.netns.clone(), pod.device.clone()),
        ]
    });
    rps::Ends(ends.collect())
}

pub(crate) fn device(name: &str) -> DeviceName {
    DeviceName::new(name).expect("our own names are device names")
}

pub(crate) fn station(mac: [u8; 6]) -> Station {
    Station::new(Mac::new(mac)).expect("neither a group's nor zero")
}
