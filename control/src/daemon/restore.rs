//! What a daemon finds that was there before it: pods that live, devices of pods that do not.
//!
//! In: the state that was kept, and the node's devices. Out: who is attached still, with every
//! device as it should be.
//! Never: trusts the state against the kernel: a pod whose veth is gone is gone, whatever was
//! written; and of a device that bears our alias and belongs to nobody, an ADD or a DEL died half
//! way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::attachment::{ALIAS, Attachment};
use super::core::{Core, DaemonError};
use super::store::State;
use crate::api::types::Key;
use crate::devices::attach::host::add_pod_route;
use crate::devices::masquerade;
use crate::devices::name::DeviceName;
use crate::devices::netlink::link::Link;
use crate::ipam::{Pool, Standing};
use crate::plan::Plugin;

/// Who was attached before.
pub(super) struct Found {
    /// Those that live.
    pub(super) living: BTreeMap<Key, Attachment>,
    /// How many do not.
    pub(super) lost: usize,
}

impl Found {
    /// Of what was kept, those whose veth is still there; their addresses are held.
    pub(super) fn among(
        links: &[Link],
        state: State,
        pool: &mut Pool<Key>,
        now: Duration,
    ) -> Found {
        let there: BTreeSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
        let mut found = Found {
            living: BTreeMap::new(),
            lost: 0,
        };
        for one in state.attachments {
            if !there.contains(one.host_end.as_str()) {
                tracing::info!(
                    "{}: {} is gone, and with it the pod",
                    one.name(),
                    one.host_end
                );
                found.lost += 1;
                continue;
            }
            for address in one.ips() {
                match pool.hold(address, one.key.clone()) {
                    Ok(Standing::Ours) => {}
                    Ok(Standing::Foreign) => tracing::info!(
                        "{}: {address} is none that this node gives, and stays",
                        one.name()
                    ),
                    Err(refused) => tracing::warn!("{}: {refused}", one.name()),
                }
            }
            found.living.insert(one.key.clone(), one);
        }
        pool.remember(&state.memory, now);
        found
    }
}

/// Puts right what is missing of the devices of those attached, and removes devices of ours that
/// are nobody's.
pub(super) fn repair(core: &mut Core) -> Result<(), DaemonError> {
    let attached: Vec<Attachment> = core.attachments.values().cloned().collect();
    for one in &attached {
        if let Err(error) = rewire(core, one) {
            // The others are served; what this one lacks, its CHECK tells.
            tracing::error!("{}: {error}", one.name());
        }
    }
    if attached.iter().any(|one| one.ip_masq) {
        core.settle_masquerade()?;
    }
    sweep(core, &attached)
}

fn rewire(core: &mut Core, one: &Attachment) -> Result<(), DaemonError> {
    let (Some(port), Ok(ifname)) = (one.port_id(), DeviceName::new(&one.key.ifname)) else {
        return Ok(());
    };
    let veth = one.veth(ifname, &core.settings.host, core.settings.workers);
    let multi = core.settings.workers.get() > 1;
    if let Some(tap) = core.net.find_link(&one.tap)?.and_then(|link| link.tap)
        && tap.multi_queue != multi
    {
        // Nobody has it open: it would not have opened for us.
        core.net.remove_link(&one.tap)?;
    }
    veth.wire(&core.net)?;
    core.ensure_open(port, &one.tap)?;
    core.settle_node_side(one)
}

impl Core {
    /// Has the node masquerade for those whose network asks for it, and for nobody else.
    pub(super) fn settle_masquerade(&self) -> Result<(), DaemonError> {
        let asking = || self.attachments.values().filter(|one| one.ip_masq);
        let sources: Vec<IpAddr> = asking().flat_map(Attachment::ips).collect();
        let links = asking().flat_map(|one| &one.addresses);
        let links: BTreeSet<IpNet> = links.map(|held| held.address.trunc()).collect();
        let spared: Vec<IpNet> = links.into_iter().collect();
        masquerade::set(self.net.namespace(), &sources, &spared)?;
        Ok(())
    }

    /// What a pod's port has on the node beside its devices: the node's route to it, and limits.
    pub(super) fn settle_node_side(&self, one: &Attachment) -> Result<(), DaemonError> {
        if let (Plugin::Azure, Some(own)) = (self.spec.plugin, self.spec.own.v4) {
            for address in one.ips() {
                if let IpAddr::V4(v4) = address {
                    add_pod_route(&self.net, &self.settings.host, v4, own)?;
                }
            }
        }
        if let (true, Ok(limits)) = (self.settings.bandwidth, one.limits()) {
            limits.apply(&self.net, &one.host_end, &one.tap)?;
        }
        Ok(())
    }
}

/// Finds devices that somebody deleted behind our back.
pub(super) fn look_after(core: &mut Core) -> Result<(), DaemonError> {
    let links = core.net.links()?;
    let there = |name: &DeviceName| links.iter().any(|link| link.name == name.as_str());
    let fixed = core.fixed_ports();
    let gone: Vec<_> = fixed.iter().filter(|(_, name)| !there(name)).collect();
    for (port, name) in &gone {
        tracing::error!("{name} was deleted, and is made again");
        core.opened.remove(port);
    }
    if !gone.is_empty() {
        core.raise_fixed_ports()?;
    }
    let attached: Vec<Attachment> = core.attachments.values().cloned().collect();
    for one in &attached {
        if !there(&one.host_end) {
            if core.mourned.insert(one.key.clone()) {
                tracing::error!(
                    "{}: {} was deleted, and the pod has no network until it is made anew",
                    one.name(),
                    one.host_end
                );
            }
        } else if !there(&one.tap) {
            tracing::error!("{}: {} was deleted, and is made again", one.name(), one.tap);
            core.opened.retain(|port| Some(*port) != one.port_id());
            rewire(core, one)?;
        }
    }
    core.mourned
        .retain(|key| core.attachments.contains_key(key));
    Ok(())
}

/// Devices that bear our alias for this host port and a pod, and belong to nobody.
fn sweep(core: &Core, attached: &[Attachment]) -> Result<(), DaemonError> {
    let mine = format!("{ALIAS} {} ", core.settings.host);
    let known: BTreeSet<&str> = attached
        .iter()
        .flat_map(|one| [one.host_end.as_str(), one.tap.as_str()])
        .collect();
    for link in core.net.links()? {
        let ours = link
            .alias
            .as_deref()
            .is_some_and(|alias| alias.starts_with(&mine));
        if ours && !known.contains(link.name.as_str()) {
            tracing::info!("{} was left by an ADD or a DEL that did not end", link.name);
            if let Ok(name) = DeviceName::new(&link.name) {
                core.net.remove_link(&name)?;
            }
        }
    }
    Ok(())
}
