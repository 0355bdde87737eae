//! The steps from a Linux bridge to the switch, in their order. Pure.
//!
//! In: a [`Handover`]: the bridge's shape, its pods, and what the switch calls its devices.
//! Out: [`Step`]s, each of which has a way back. Forwards they adopt; backwards they release, undo a
//! failure, or, with nobody to open a port, rescue.
//! Never: touches a device: [`walk`](super::walk) has the hands.
//!
//! What nobody sees comes first: TAPs, ports, tables. Then come the steps that move traffic, each
//! of them one or two messages to the kernel, so that little falls between two of them. What only
//! changes names comes last.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use dataplane::addr::Mac;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::dns::Dns;
use crate::api::types::mac;
use crate::devices::name::DeviceName;
use crate::devices::netlink::address::FoundRoute;

/// All that the steps need to know, in either direction: it is kept until the bridge is back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handover {
    /// The bridge.
    pub bridge: BridgeShape,
    /// What the bridge is called while the switch's host port bears its name.
    pub bridge_aside: DeviceName,
    /// What the host port is called while the bridge bears its name.
    pub host_aside: DeviceName,
    /// The node's NIC, if it hangs on the bridge and takes its addresses back (azure).
    pub uplink: Option<DeviceName>,
    /// What becomes of the servers for names, where the NIC hangs on the bridge.
    pub dns: Dns,
    /// The node's own address on its NIC, from which it speaks to pods that are not on a link of its
    /// own (azure).
    pub node_address: Option<Ipv4Addr>,
    /// The pods.
    pub pods: Vec<PodShape>,
}

/// A bridge, as it was and shall be again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeShape {
    /// Its name.
    pub name: DeviceName,
    /// Its hardware address.
    #[serde(with = "mac")]
    pub mac: Mac,
    /// Its MTU.
    pub mtu: u32,
    /// How long it remembers a station, in hundredths of a second.
    pub ageing: u32,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Routes over it that its addresses do not bring along.
    pub routes: Vec<FoundRoute>,
    /// Whom it was told of as neighbours, without pods.
    #[serde(default)]
    pub neighbours: Vec<Neighbour>,
}

/// Somebody whom a device was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbour {
    /// Its protocol address.
    pub address: IpAddr,
    /// Its hardware address.
    #[serde(with = "mac")]
    pub mac: Mac,
}

/// A pod between bridge and switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodShape {
    /// The node's end of its veth.
    pub host_end: DeviceName,
    /// The switch's TAP for it.
    pub tap: DeviceName,
    /// What people read on both.
    pub alias: String,
    /// The pod's namespace.
    pub netns: PathBuf,
    /// The pod's end of the veth.
    pub inside: DeviceName,
    /// Its hardware address.
    #[serde(with = "mac")]
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Its MTU.
    pub mtu: u32,
    /// The node's end spoke IPv6 of its own while it was a port of the bridge.
    pub ipv6: bool,
    /// The node was told that the pod is a neighbour on the bridge, as azure-vnet does.
    #[serde(default)]
    pub neighbour: bool,
    /// As a port of the bridge: frames may go back to their sender.
    pub hairpin: bool,
    /// As a port of the bridge: it talks to no other isolated port.
    pub isolated: bool,
}

/// One step. Its fields are what its way back needs, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A TAP for a pod, tied to the pod's veth, so that what the switch writes reaches the pod.
    MakeTap(PodShape),
    /// The switch opens a pod's TAP.
    OpenPort(PodShape),
    /// The switch's tables know every pod.
    KnowPods(Vec<PodShape>),
    /// Frames for pods that come in by the node's NIC are steered to the switch.
    Steer,
    /// The node reaches a pod by the host port.
    RoutePod {
        /// The host port, under the name that it has by then.
        host: DeviceName,
        /// The pod's address.
        pod: IpAddr,
        /// From which address the node speaks to it.
        source: Ipv4Addr,
    },
    /// A pod's frames go to the switch, before the bridge could hear them.
    TiePod(PodShape),
    /// Addresses and routes of the bridge go to the host port, or, where the node's NIC hangs on the
    /// bridge, to the NIC, which leaves it.
    MoveAddresses {
        /// The bridge.
        bridge: BridgeShape,
        /// Who gets them.
        to: DeviceName,
        /// That one is a port of the bridge.
        leaves: bool,
    },
    /// Servers for names that systemd-resolved knows by the bridge, it knows by the NIC.
    MoveDns {
        /// The bridge's name.
        bridge: DeviceName,
        /// The NIC.
        to: DeviceName,
        /// What they have.
        dns: Dns,
    },
    /// A veth is no port of the bridge any more.
    LeaveBridge {
        /// The pod.
        pod: PodShape,
        /// The bridge's name.
        bridge: DeviceName,
    },
    /// The bridge is down and has another name.
    RetireBridge {
        /// The bridge.
        bridge: BridgeShape,
        /// The other name.
        aside: DeviceName,
    },
    /// The host port bears the bridge's name.
    NameHost {
        /// From.
        aside: DeviceName,
        /// To.
        name: DeviceName,
    },
}

/// What a step changes for traffic, so that an operator knows where to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nobody notices.
    Prepare,
    /// Traffic moves.
    Move,
    /// Names change.
    Tidy,
}

impl Handover {
    /// The steps from the bridge to the switch. Walked backwards they lead to the bridge.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let pods = || self.pods.iter().cloned();
        steps.extend(pods().map(Step::MakeTap));
        steps.extend(pods().map(Step::OpenPort));
        steps.push(Step::KnowPods(self.pods.clone()));
        steps.push(Step::Steer);
        if let Some(source) = self.node_address.filter(|_| self.uplink.is_some()) {
            let v4 = |pod: &PodShape| pod.addresses.iter().map(IpNet::addr).find(IpAddr::is_ipv4);
            steps.extend(self.pods.iter().filter_map(v4).map(|pod| Step::RoutePod {
                host: self.host_aside.clone(),
                pod,
                source,
            }));
        }
        steps.extend(self.moves());
        if let Some(nic) = &self.uplink {
            steps.push(Step::MoveDns {
                bridge: self.bridge.name.clone(),
                to: nic.clone(),
                dns: self.dns.clone(),
            });
        }
        steps.extend(pods().map(|pod| Step::LeaveBridge {
            pod,
            bridge: self.bridge.name.clone(),
        }));
        steps.push(Step::RetireBridge {
            bridge: self.bridge.clone(),
            aside: self.bridge_aside.clone(),
        });
        steps.push(Step::NameHost {
            aside: self.host_aside.clone(),
            name: self.bridge.name.clone(),
        });
        steps
    }

    /// The steps that move traffic. Whoever asks by ARP must be answered where it listens: so the
    /// gateway's addresses are on the host port while a pod's frames still go to the bridge, which
    /// answers for them all the same. A NIC that hangs on the bridge goes last: until then it serves
    /// both, the pods by the steering on its ingress.
    fn moves(&self) -> Vec<Step> {
        let tie = self.pods.iter().cloned().map(Step::TiePod);
        let addresses = Step::MoveAddresses {
            bridge: self.bridge.clone(),
            to: self.uplink.clone().unwrap_or(self.host_aside.clone()),
            leaves: self.uplink.is_some(),
        };
        if self.uplink.is_some() {
            tie.chain([addresses]).collect()
        } else {
            std::iter::once(addresses).chain(tie).collect()
        }
    }
}

impl Step {
    /// What it means for traffic.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self {
            Step::MakeTap(_) | Step::OpenPort(_) | Step::KnowPods(_) => Phase::Prepare,
            Step::Steer
            | Step::RoutePod { .. }
            | Step::TiePod(_)
            | Step::MoveAddresses { .. }
            | Step::MoveDns { .. } => Phase::Move,
            Step::LeaveBridge { .. } | Step::RetireBridge { .. } | Step::NameHost { .. } => {
                Phase::Tidy
            }
        }
    }

    /// The step backwards, in words; forwards it is its [`Display`](fmt::Display).
    #[must_use]
    pub fn backwards(&self) -> String {
        match self {
            Step::MakeTap(pod) => format!("remove the TAP {} of {}", pod.tap, pod.host_end),
            Step::OpenPort(pod) => format!("the switch closes {}", pod.tap),
            Step::KnowPods(pods) => format!("the switch forgets {} pods", pods.len()),
            Step::Steer => "frames for pods from the uplink go to the kernel".to_owned(),
            Step::RoutePod { pod, .. } => format!("take the route to {pod} away"),
            Step::TiePod(pod) => format!("frames from {} go to the bridge", pod.host_end),
            Step::MoveAddresses { bridge, to, leaves } => format!(
                "move {} from {to} to {}{}",
                listed(&bridge.addresses),
                bridge.name,
                if *leaves { ", which it joins" } else { "" }
            ),
            Step::MoveDns { bridge, to, dns } => match dns {
                Dns::Stays(why) => format!("leave DNS as it is: {why}"),
                Dns::Moves { bridge: had, .. } => format!("move {had} from {to} to {bridge}"),
            },
            Step::LeaveBridge { pod, bridge } => format!("{} joins {bridge}", pod.host_end),
            Step::RetireBridge { bridge, aside } => {
                format!("the bridge {aside} is {} again, and up", bridge.name)
            }
            Step::NameHost { aside, name } => format!("the host port {name} is called {aside}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::MakeTap(pod) => write!(f, "make the TAP {} for {}", pod.tap, pod.host_end),
            Step::OpenPort(pod) => write!(f, "the switch opens {}", pod.tap),
            Step::KnowPods(pods) => write!(f, "the switch knows {} pods", pods.len()),
            Step::Steer => f.write_str("frames for pods from the uplink go to the switch"),
            Step::RoutePod { host, pod, .. } => write!(f, "{pod} is reached by {host}"),
            Step::TiePod(pod) => write!(f, "frames from {} go to the switch", pod.host_end),
            Step::MoveAddresses { bridge, to, leaves } => write!(
                f,
                "move {} from {} to {to}{}",
                listed(&bridge.addresses),
                bridge.name,
                if *leaves { ", which leaves it" } else { "" }
            ),
            Step::MoveDns { bridge, to, dns } => match dns {
                Dns::Stays(why) => write!(f, "leave DNS as it is: {why}"),
                Dns::Moves { bridge: had, .. } => write!(f, "move {had} from {bridge} to {to}"),
            },
            Step::LeaveBridge { pod, bridge } => write!(f, "{} leaves {bridge}", pod.host_end),
            Step::RetireBridge { bridge, aside } => {
                write!(f, "the bridge {} goes down as {aside}", bridge.name)
            }
            Step::NameHost { aside, name } => write!(f, "the host port {aside} is called {name}"),
        }
    }
}

fn listed(addresses: &[IpNet]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    match texts.as_slice() {
        [] => "no address".to_owned(),
        texts => texts.join(" and "),
    }
}

#[cfg(test)]
mod tests {
    use super::super::dns::LinkDns;
    use super::*;

    fn pod(ordinal: u8) -> PodShape {
        let name = |prefix: &str| DeviceName::new(&format!("{prefix}{ordinal}")).expect("short");
        PodShape {
            host_end: name("veth"),
            tap: name("tap"),
            alias: String::new(),
            netns: "/run/netns/pod".into(),
            inside: name("eth"),
            mac: Mac::new([2, 0, 0, 0, 0, ordinal]),
            addresses: vec![format!("10.244.1.{ordinal}/24").parse().expect("one")],
            mtu: 1500,
            ipv6: false,
            neighbour: false,
            hairpin: false,
            isolated: false,
        }
    }

    fn handover(uplink: Option<&str>) -> Handover {
        let name = |text: &str| DeviceName::new(text).expect("short");
        Handover {
            bridge: BridgeShape {
                name: name("cbr0"),
                mac: Mac::new([2, 0, 0, 0, 1, 0]),
                mtu: 1500,
                ageing: 30_000,
                addresses: vec!["10.244.1.1/24".parse().expect("one")],
                routes: Vec::new(),
                neighbours: Vec::new(),
            },
            bridge_aside: name("cbr0-aside"),
            host_aside: name("cbr0-tap"),
            uplink: uplink.map(name),
            dns: Dns::Moves {
                bridge: LinkDns {
                    servers: vec!["168.63.129.16".to_owned()],
                    domains: vec!["internal".to_owned()],
                },
                nic: LinkDns::default(),
            },
            node_address: uplink.map(|_| Ipv4Addr::new(10, 20, 0, 4)),
            pods: vec![pod(2), pod(3)],
        }
    }

    #[test]
    fn what_moves_traffic_comes_between_preparing_and_tidying() {
        for uplink in [None, Some("eth0")] {
            let phases: Vec<Phase> = handover(uplink).steps().iter().map(Step::phase).collect();
            assert!(phases.is_sorted(), "{phases:?}");
        }
    }

    #[test]
    fn the_addresses_go_to_the_host_port_or_to_the_nic_that_hung_on_the_bridge() {
        let moves = |uplink| {
            let found = handover(uplink)
                .steps()
                .into_iter()
                .find_map(|step| match step {
                    Step::MoveAddresses { to, leaves, .. } => Some((to.to_string(), leaves)),
                    _ => None,
                });
            found.expect("there is one")
        };
        assert_eq!(moves(None), ("cbr0-tap".to_owned(), false));
        assert_eq!(moves(Some("eth0")), ("eth0".to_owned(), true));
    }

    #[test]
    fn servers_for_names_follow_the_nic_that_hung_on_the_bridge() {
        let told = |uplink| -> Vec<String> {
            let steps = handover(uplink).steps();
            let dns = steps
                .iter()
                .filter(|step| matches!(step, Step::MoveDns { .. }));
            dns.flat_map(|step| [step.to_string(), step.backwards()])
                .collect()
        };
        assert_eq!(told(None), Vec::<String>::new());
        let what = "move DNS server 168.63.129.16, domain internal";
        assert_eq!(
            told(Some("eth0")),
            [
                format!("{what} from cbr0 to eth0"),
                format!("{what} from eth0 to cbr0")
            ]
        );
    }

    #[test]
    fn each_step_is_told_in_both_directions() {
        let told: Vec<String> = handover(None)
            .steps()
            .iter()
            .flat_map(|step| [step.to_string(), step.backwards()])
            .collect();
        let expected = [
            "make the TAP tap2 for veth2",
            "remove the TAP tap2 of veth2",
            "make the TAP tap3 for veth3",
            "remove the TAP tap3 of veth3",
            "the switch opens tap2",
            "the switch closes tap2",
            "the switch opens tap3",
            "the switch closes tap3",
            "the switch knows 2 pods",
            "the switch forgets 2 pods",
            "frames for pods from the uplink go to the switch",
            "frames for pods from the uplink go to the kernel",
            "move 10.244.1.1/24 from cbr0 to cbr0-tap",
            "move 10.244.1.1/24 from cbr0-tap to cbr0",
            "frames from veth2 go to the switch",
            "frames from veth2 go to the bridge",
            "frames from veth3 go to the switch",
            "frames from veth3 go to the bridge",
            "veth2 leaves cbr0",
            "veth2 joins cbr0",
            "veth3 leaves cbr0",
            "veth3 joins cbr0",
            "the bridge cbr0 goes down as cbr0-aside",
            "the bridge cbr0-aside is cbr0 again, and up",
            "the host port cbr0-tap is called cbr0",
            "the host port cbr0 is called cbr0-tap",
        ];
        assert_eq!(told, expected);
    }
}
