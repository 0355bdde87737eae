//! The hands of a handover: walks its steps, forwards or backwards.
//!
//! In: [`Step`]s, the node's netlink socket, and whoever holds the switch.
//! Out: devices, addresses and ports as the steps say, or as they were before.
//! Never: stops half way: a step that fails forwards is followed by the way back of all before it;
//! backwards a failure is told, and the rest is done all the same.

use std::time::Duration;

use dataplane::addr::Mac;
use ipnet::IpNet;

use super::steps::{BridgeShape, PodShape, Step};
use crate::devices::attach::host::{add_pod_route, del_pod_route};
use crate::devices::attach::{Uplink, hush_and_raise, pod};
use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;
use crate::devices::netlink::Netlink;
use crate::devices::netlink::bridge::BridgeFacts;
use crate::devices::sysctl::{self, Conf, Setting};
use crate::devices::tap::{self, TapSpec};

/// A TAP that was just opened has its carrier within milliseconds.
const CARRIER_WITHIN: Duration = Duration::from_secs(2);

/// Whoever holds the switch. A rescue has none: [`NoSwitch`].
pub trait Ports {
    /// Opens a pod's TAP.
    ///
    /// # Errors
    /// In words.
    fn open(&mut self, pod: &PodShape) -> Result<(), String>;
    /// Closes it.
    ///
    /// # Errors
    /// In words.
    fn close(&mut self, pod: &PodShape) -> Result<(), String>;
    /// Publishes tables in which the pods are known, or no more.
    ///
    /// # Errors
    /// In words.
    fn know(&mut self, pods: &[PodShape], known: bool) -> Result<(), String>;
    /// Steers frames for pods that come in by the node's NIC to the switch, or no more.
    ///
    /// # Errors
    /// In words.
    fn steer(&mut self, on: bool) -> Result<(), String>;
    /// What the TAP of a pod is to be.
    fn tap(&self, pod: &PodShape) -> TapSpec {
        TapSpec::new(pod.tap.clone(), pod.mtu)
    }
}

/// Nobody holds the switch, because it is dead. What it had steered to itself, if anything, is
/// steered no more.
#[derive(Debug)]
pub struct NoSwitch<'a> {
    /// The node's namespace.
    pub net: &'a Netlink,
    /// The switch's port to the network.
    pub uplink: Option<Uplink>,
}

impl Ports for NoSwitch<'_> {
    fn open(&mut self, _: &PodShape) -> Result<(), String> {
        Err("there is no switch to open it".to_owned())
    }

    fn close(&mut self, _: &PodShape) -> Result<(), String> {
        Ok(())
    }

    fn know(&mut self, _: &[PodShape], _: bool) -> Result<(), String> {
        Ok(())
    }

    fn steer(&mut self, on: bool) -> Result<(), String> {
        match &self.uplink {
            Some(uplink) if !on => uplink.detach(self.net).map_err(in_words),
            _ => Ok(()),
        }
    }
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("step {number}, {step}: {why}")]
pub struct Failure {
    /// Its place, from 1.
    pub number: usize,
    /// In words.
    pub step: String,
    /// What went wrong.
    pub why: String,
}

/// Walks `steps` forwards. `before` is asked before each, and may refuse it.
///
/// # Errors
/// The step that failed. Those before it have been undone; what of that failed follows it.
pub fn forwards(
    net: &Netlink,
    ports: &mut dyn Ports,
    steps: &[Step],
    mut before: impl FnMut(usize, &Step) -> Result<(), String>,
) -> Result<(), Vec<Failure>> {
    for (at, step) in steps.iter().enumerate() {
        let done = before(at, step).and_then(|()| advance(net, ports, step));
        if let Err(why) = done {
            let mut failures = vec![Failure {
                number: at + 1,
                step: step.to_string(),
                why,
            }];
            // The step itself may be half done.
            failures.extend(
                backwards(net, ports, &steps[..=at])
                    .err()
                    .unwrap_or_default(),
            );
            return Err(failures);
        }
    }
    Ok(())
}

/// Walks `steps` backwards, from the last to the first. A step that was never done has nothing to
/// undo, and that is no failure.
///
/// # Errors
/// Every step that could not be undone.
pub fn backwards(net: &Netlink, ports: &mut dyn Ports, steps: &[Step]) -> Result<(), Vec<Failure>> {
    let mut failures = Vec::new();
    let mut together = true;
    for (at, step) in steps.iter().enumerate().rev() {
        if matches!(step, Step::MakeTap(_)) && std::mem::take(&mut together) {
            // The kernel waits for every processor then, once for all. What stays is removed by itself.
            let _ = tap::remove_all(net, taps(&steps[..=at]));
        }
        if let Err(why) = retreat(net, ports, step) {
            failures.push(Failure {
                number: at + 1,
                step: step.backwards(),
                why,
            });
        }
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures)
    }
}

/// The TAPs that these steps made.
fn taps(steps: &[Step]) -> impl Iterator<Item = &DeviceName> {
    steps.iter().filter_map(|step| match step {
        Step::MakeTap(pod) => Some(&pod.tap),
        _ => None,
    })
}

fn advance(net: &Netlink, ports: &mut dyn Ports, step: &Step) -> Result<(), String> {
    let done = match step {
        Step::MakeTap(pod) => make_tap(net, pod, &ports.tap(pod)),
        Step::OpenPort(pod) => {
            ports.open(pod)?;
            net.wait_until_running(&pod.tap, CARRIER_WITHIN)
        }
        Step::KnowPods(pods) => return ports.know(pods, true),
        Step::Steer => return ports.steer(true),
        Step::RoutePod { host, pod, source } => match pod {
            std::net::IpAddr::V4(pod) => add_pod_route(net, host, *pod, *source),
            std::net::IpAddr::V6(_) => Ok(()),
        },
        Step::TiePod(pod) => pod::take_over(net, &pod.host_end, &pod.tap),
        Step::MoveAddresses { bridge, to, leaves } => {
            if *leaves {
                net.leave_bridge(to).map_err(in_words)?;
            }
            carry(net, bridge, &bridge.name, to)
        }
        Step::MoveDns { bridge, to, dns } => return dns.to_nic(bridge, to),
        Step::LeaveBridge { pod, .. } => net
            .leave_bridge(&pod.host_end)
            .and_then(|()| hush_and_raise(net, &pod.host_end)),
        Step::RetireBridge { bridge, aside } => net
            .set_up(&bridge.name, false)
            .and_then(|()| net.rename(&bridge.name, aside)),
        Step::NameHost { aside, name } => rename_up(net, aside, name),
    };
    done.map_err(in_words)
}

fn retreat(net: &Netlink, ports: &mut dyn Ports, step: &Step) -> Result<(), String> {
    let done = match step {
        Step::MakeTap(pod) => unmake_tap(net, pod),
        Step::OpenPort(pod) => return ports.close(pod),
        Step::KnowPods(pods) => return ports.know(pods, false),
        Step::Steer => return ports.steer(false),
        Step::RoutePod { host, pod, .. } => match pod {
            std::net::IpAddr::V4(pod) if there(net, host)? => del_pod_route(net, host, *pod),
            _ => Ok(()),
        },
        Step::TiePod(pod) if there(net, &pod.host_end)? => pod::give_back(net, &pod.host_end),
        Step::TiePod(_) => Ok(()),
        Step::MoveAddresses { bridge, to, leaves } => {
            if *leaves {
                net.set_bridge(to, &bridge.name).map_err(in_words)?;
            }
            carry(net, bridge, to, &bridge.name)
        }
        Step::MoveDns { bridge, to, dns } => return dns.to_bridge(bridge, to),
        // A pod that has gone meanwhile has taken its veth with it.
        Step::LeaveBridge { pod, bridge } if there(net, &pod.host_end)? => join(net, pod, bridge),
        Step::LeaveBridge { .. } => Ok(()),
        Step::RetireBridge { bridge, aside } => bring_back(net, bridge, aside),
        Step::NameHost { aside, name } => match net.find_link(name).map_err(in_words)? {
            Some(link) if link.tap.is_some() => rename_up(net, name, aside),
            _ => Ok(()),
        },
    };
    done.map_err(in_words)
}

fn there(net: &Netlink, name: &DeviceName) -> Result<bool, String> {
    net.find_link(name)
        .map(|link| link.is_some())
        .map_err(in_words)
}

fn in_words(error: DeviceError) -> String {
    error.to_string()
}

fn make_tap(net: &Netlink, pod: &PodShape, spec: &TapSpec) -> Result<(), DeviceError> {
    tap::ensure(net, spec)?;
    pod::prepare(net, &pod.host_end, &pod.tap, &pod.alias)
}

/// Removes the TAP. The veth keeps a clsact only if somebody else has filters there.
fn unmake_tap(net: &Netlink, pod: &PodShape) -> Result<(), DeviceError> {
    tap::remove(net, &pod.tap)?;
    if net.find_link(&pod.host_end)?.is_none() {
        return Ok(());
    }
    net.set_alias(&pod.host_end, "")?;
    if net.has_no_filters(&pod.host_end)? {
        net.remove_clsact(&pod.host_end)?;
    }
    Ok(())
}

/// A pod's veth is a port of the bridge again, as it was.
fn join(net: &Netlink, pod: &PodShape, bridge: &DeviceName) -> Result<(), DeviceError> {
    net.set_bridge(&pod.host_end, bridge)?;
    net.set_bridge_port(&pod.host_end, pod.hairpin, pod.isolated)?;
    // Else what is for a pod that keeps silent is flooded, under azure to the fabric and back.
    // A rescue may have been unable to look into a pod: then the bridge hears of it by its first frame.
    if pod.mac != Mac::ZERO {
        net.add_station(&pod.host_end, pod.mac)?;
    }
    net.set_no_arp(&pod.host_end, false)?;
    // The bridge was down in between, and had forgotten it.
    for address in pod.addresses.iter().filter(|_| pod.neighbour) {
        net.add_neighbour(bridge, address.addr(), pod.mac)?;
    }
    if pod.ipv6 {
        let setting = Setting::DisableIpv6(Conf::Device(&pod.host_end));
        sysctl::set(net.namespace(), setting, "0")?;
    }
    Ok(())
}

/// Carries the bridge's addresses, routes and neighbours from one device to another. Each is on the new one
/// before it leaves the old, so the node always has it.
fn carry(
    net: &Netlink,
    bridge: &BridgeShape,
    from: &DeviceName,
    to: &DeviceName,
) -> Result<(), DeviceError> {
    let addresses: &[IpNet] = &bridge.addresses;
    for address in addresses {
        net.add_address(to, *address)?;
    }
    for route in &bridge.routes {
        net.put_route(to, route)?;
    }
    for known in &bridge.neighbours {
        net.add_neighbour(to, known.address, known.mac)?;
    }
    if net.find_link(from)?.is_some() {
        for address in addresses {
            net.remove_address(from, *address)?;
        }
        for known in &bridge.neighbours {
            net.remove_neighbour(from, known.address)?;
        }
    }
    Ok(())
}

/// Gives a device that is up another name. Kernels before 6.2 want it down for that, which costs
/// it its routes and neighbours, so those are put back.
fn rename_up(net: &Netlink, from: &DeviceName, to: &DeviceName) -> Result<(), DeviceError> {
    match net.rename(from, to) {
        Err(refused) if refused.errno() == Some(nix::libc::EBUSY) => {}
        other => return other,
    }
    let index = net.index(from)?;
    let mut routes = net.routes()?;
    routes.retain(|route| route.device == index);
    let addresses = net.addresses(from)?;
    let neighbours = net.permanent_neighbours(index)?;
    net.set_up(from, false)?;
    let renamed = net.rename(from, to);
    let name = if renamed.is_ok() { to } else { from };
    net.set_up(name, true)?;
    for address in addresses {
        net.add_address(name, address)?;
    }
    for route in &routes {
        net.put_route(name, route)?;
    }
    for (address, mac) in neighbours {
        net.add_neighbour(name, address, mac)?;
    }
    renamed
}

/// The bridge under its name, up; made anew if it has been thrown away.
fn bring_back(net: &Netlink, bridge: &BridgeShape, aside: &DeviceName) -> Result<(), DeviceError> {
    let facts = BridgeFacts {
        ageing: bridge.ageing,
        ..BridgeFacts::default()
    };
    if net.find_link(aside)?.is_some() {
        net.rename(aside, &bridge.name)?;
    } else if net.find_link(&bridge.name)?.is_none() {
        net.add_bridge_as(&bridge.name, bridge.mac, facts)?;
        net.set_mtu(&bridge.name, bridge.mtu)?;
    }
    net.set_up(&bridge.name, true)
}
