//! The kernel's bridge, as the plugins make it: the measure of all others.
//!
//! In: pods, and whether frames pass through iptables. Out: a [`Rig`].
//! Never: relies on a default that a module may have changed: `bridge-nf-call-iptables` is set.

use std::io;

use control::devices::{Netlink, Netns, sysctl};

use super::{Rig, Shape, Unbuilt, device, paths, pods, veth_ends};

/// Do bridged frames pass through iptables?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iptables {
    /// No: the bridge alone.
    Off,
    /// Yes, as on Kubernetes nodes. The namespace has no rules, so this is the hooks' own cost.
    On,
}

/// Where the kernel keeps it, for the namespace of the thread that opens it.
const CALL_IPTABLES: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Builds it.
///
/// # Errors
/// What the kernel says, or that it cannot pass bridged frames through iptables.
pub fn build(shape: Shape, iptables: Iptables) -> Result<Rig, Unbuilt> {
    let node = Netns::create("node")?;
    let net = Netlink::open(&node)?;
    let pods = pods(shape)?;
    let bridge = device("azure0");
    net.add_bridge(&bridge)?;
    sysctl::silence_ipv6(&net, &bridge)?;
    let settings = vec![call_iptables(&node, iptables)?];
    net.set_up(&bridge, true)?;
    for pod in &pods {
        pod.attach_veth(&net)?;
        net.set_bridge(&pod.host_end, &bridge)?;
    }
    let (path, flood) = paths(&pods, shape);
    Ok(Rig {
        path,
        flood,
        rps: veth_ends(&node, &pods),
        settings,
        threads: None,
        pair_drops: None,
        hold: Box::new((node, pods)),
    })
}

fn call_iptables(node: &Netns, iptables: Iptables) -> Result<String, Unbuilt> {
    let value = if iptables == Iptables::On { "1" } else { "0" };
    match node.run(|| std::fs::write(CALL_IPTABLES, value)) {
        Ok(()) if iptables == Iptables::On => {
            Ok("bridge-nf-call-iptables 1, no rules loaded".into())
        }
        Ok(()) => Ok("bridge-nf-call-iptables 0".into()),
        Err(error) if iptables == Iptables::On => {
            Err(format!("{CALL_IPTABLES}: {error} (is br_netfilter loaded?)").into())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok("no br_netfilter".into()),
        Err(error) => Err(format!("{CALL_IPTABLES}: {error}").into()),
    }
}
