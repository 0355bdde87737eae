//! The views: what a running daemon knows, as rows.
//!
//! In: the switch's tables, counters and learned state, and the node's devices.
//! Out: the rows of [`crate::api::views`].
//! Never: changes anything.

use std::collections::BTreeMap;

use dataplane::addr::PortId;
use dataplane::bounds::{self, Bound};
use dataplane::clock::Tick;
use dataplane::conflict::Party;
use dataplane::stats::{Drops, Ledger, PortCounts};
use dataplane::tables::Policy;
use dataplane::tables::fib::ROUTES_MAX;
use dataplane::tables::guard::{Guard, Guarded, Mode};
use dataplane::verdict::DropReason;

use super::attachment::Attachment;
use super::core::{Core, DaemonError, options, system};
use super::mirror::Mirror;
use crate::api::views::{
    BoundRow, Claim, ConflictRow, Device, DropRow, FdbRow, GuardRow, NeighbourRow, PortRow,
    RouteRow, Traffic, WorkerRow,
};
use crate::compile::{HOST_PORT, PodPort, UPLINK_PORT};
use crate::config::PolicyMode;
use crate::devices::netlink::link::Link;
use crate::steer::Keeper;
use crate::steer::agents::{self, Agents};
use crate::steer::policy::InForce;
use crate::steer::view::{self, FlowView, Sources, SteeringView};

impl Core {
    /// Which prefix and which flow goes where, and why.
    #[must_use]
    pub fn steering(&self) -> SteeringView {
        let agents = agents::look(self.net.namespace());
        let policy = self.policy_in_force(&agents);
        let pods: Vec<PodPort> = self
            .attachments
            .values()
            .filter_map(Attachment::pod_port)
            .collect();
        let kept = self.keeper.as_ref().map(Keeper::kept).unwrap_or_default();
        let uplink = self.uplink();
        // Beside a bridge nothing is steered yet.
        let carriers = match self.beside {
            Some(_) => Ok(Vec::new()),
            None => uplink.carriers(&self.net),
        };
        SteeringView::of(Sources {
            node: &self.spec,
            tables: &self.spec.tables(&pods),
            uplink: &uplink,
            kept: &kept,
            carriers: &carriers.map_err(|error| error.to_string()),
            copies: self.mirror.as_ref().map(Mirror::view),
            policy: &policy,
            agents: &agents,
            returns: self.switch.returns(),
            now: Tick::of(self.begun.elapsed()),
            names: &self.names(),
        })
    }

    /// Conversations that return by the way they came.
    #[must_use]
    pub fn flow_rows(&self) -> Vec<FlowView> {
        let now = Tick::of(self.begun.elapsed());
        view::flows(self.switch.returns(), now, &self.names())
    }

    fn names(&self) -> BTreeMap<PortId, String> {
        let pods = self.attachments.values();
        pods.filter_map(|one| Some((one.port_id()?, one.name())))
            .collect()
    }

    fn policy_in_force(&self, agents: &Agents) -> InForce {
        let mode = match self.spec.policy {
            Policy::None => PolicyMode::None,
            Policy::ViaHost => self.settings.policy,
        };
        InForce::of(mode, self.spec.plugin, agents)
    }

    /// Says in the log what holds between pods, and what it costs.
    pub(super) fn tell_policy(&self) {
        let policy = self.policy_in_force(&agents::look(self.net.namespace()));
        match policy.cost {
            Some(cost) => tracing::info!("policy via-host: {}; {cost}", policy.why),
            None => tracing::info!("policy none: {}", policy.why),
        }
        for warning in &policy.warnings {
            tracing::warn!("{warning}");
        }
    }

    /// What a port is called.
    #[must_use]
    pub fn port_name(&self, port: PortId) -> String {
        match port {
            HOST_PORT => "host".to_owned(),
            UPLINK_PORT => "uplink".to_owned(),
            _ => match self.attached_at(port) {
                Some(one) => one.name(),
                None => format!("port {}", port.index()),
            },
        }
    }

    pub(super) fn attached_at(&self, port: PortId) -> Option<&Attachment> {
        let mut all = self.attachments.values();
        all.find(|one| one.port_id() == Some(port))
    }

    /// The ports.
    ///
    /// # Errors
    /// What listing the node's devices says.
    pub fn ports(&self) -> Result<Vec<PortRow>, DaemonError> {
        let links = self.net.links()?;
        let ledger = self.switch.ledger();
        let device = |name: &str| as_device(name, links.iter().find(|link| link.name == name));
        let fixed = [
            (HOST_PORT, "host", &self.settings.host, None),
            (
                UPLINK_PORT,
                "uplink",
                &self.settings.uplink_tap,
                Some(&self.settings.uplink),
            ),
        ];
        let mut rows = Vec::new();
        for (port, role, tap, shared) in fixed {
            rows.push(PortRow {
                port: port.index(),
                role: role.to_owned(),
                name: role.to_owned(),
                container_id: None,
                network: None,
                netns: None,
                tap: device(tap.as_str()),
                host_end: shared.map(|name| device(name.as_str())),
                pod_end: None,
                addresses: match port {
                    HOST_PORT => self.spec.gateways.clone(),
                    _ => Vec::new(),
                },
                hairpin: false,
                isolated: false,
                traffic: traffic(&ledger.port(port)),
            });
        }
        let pods = self.attachments.values();
        rows.extend(pods.filter_map(|one| {
            let port = one.port_id()?;
            let host_end = device(one.host_end.as_str());
            // The peer of the node's end is the pod's, by its index over there.
            let link = links.iter().find(|link| link.name == one.host_end.as_str());
            let pod_end = Device {
                name: one.key.ifname.clone(),
                index: link.and_then(|link| link.peer),
                mac: Some(one.mac.to_string()),
                mtu: Some(one.mtu.into()),
                running: host_end.running,
            };
            Some(PortRow {
                port: port.index(),
                role: "pod".to_owned(),
                name: one.name(),
                container_id: Some(one.key.container_id.clone()),
                network: Some(one.key.network.clone()),
                netns: Some(one.netns.clone()),
                tap: device(one.tap.as_str()),
                host_end: Some(host_end),
                pod_end: Some(pod_end),
                addresses: one.addresses.iter().map(|held| held.address).collect(),
                hairpin: one.hairpin,
                isolated: one.isolated,
                traffic: traffic(&ledger.port(port)),
            })
        }));
        rows.sort_by_key(|row| row.port);
        Ok(rows)
    }

    /// Where each station is: the configured ones, then those heard.
    #[must_use]
    pub fn fdb_rows(&self) -> Vec<FdbRow> {
        let tables = self.switch.tables();
        let fixed = tables.ports().map(|row| FdbRow {
            mac: row.mac.mac().to_string(),
            port: row.id.index(),
            name: self.port_name(row.id),
            fixed: true,
            age_seconds: None,
        });
        let now = self.now().as_secs();
        let heard = self
            .switch
            .fdb()
            .entries()
            .map(|(mac, port, heard)| FdbRow {
                mac: mac.to_string(),
                port: port.index(),
                name: self.port_name(port),
                fixed: false,
                age_seconds: Some(now.saturating_sub(heard.into())),
            });
        let mut rows: Vec<FdbRow> = fixed.chain(heard).collect();
        rows.sort_by(|a, b| (!a.fixed, &a.mac).cmp(&(!b.fixed, &b.mac)));
        rows
    }

    /// Every route that somebody wants, the taken ones with those that lost to them.
    #[must_use]
    pub fn route_rows(&self) -> Vec<RouteRow> {
        let pods: Vec<PodPort> = self
            .attachments
            .values()
            .filter_map(Attachment::pod_port)
            .collect();
        let mut taken: BTreeMap<ipnet::IpNet, String> = BTreeMap::new();
        let mut rows = Vec::new();
        for wanted in self.spec.wanted_routes(&pods) {
            let source = match wanted.pod {
                Some(port) => self.port_name(port),
                None => wanted.source.to_owned(),
            };
            let lost_to = taken.get(&wanted.prefix).cloned();
            rows.push(RouteRow {
                prefix: wanted.prefix,
                next_hop: self.hop_in_words(wanted.hop),
                source: source.clone(),
                active: lost_to.is_none(),
                lost_to,
            });
            taken.entry(wanted.prefix).or_insert(source);
        }
        rows.sort_by_key(|row| (row.prefix, !row.active));
        rows
    }

    fn hop_in_words(&self, hop: dataplane::tables::fib::NextHop) -> String {
        use dataplane::tables::fib::NextHop;
        match hop {
            NextHop::Station { port, mac } => format!("{mac} on {}", self.port_name(port)),
            NextHop::Host => format!("the node's kernel, by {}", self.settings.host),
            other => other.to_string(),
        }
    }

    /// Next hops on the uplink, as each worker knows them.
    ///
    /// # Errors
    /// That a worker's thread is gone.
    pub fn neighbour_rows(&self) -> Result<Vec<NeighbourRow>, DaemonError> {
        let known = self
            .switch
            .neighbours()
            .map_err(system("asking the switch"))?;
        let rows = known.into_iter().enumerate().flat_map(|(worker, entries)| {
            entries.into_iter().map(move |entry| NeighbourRow {
                worker,
                address: entry.address,
                mac: entry.mac.map(|mac| mac.to_string()),
                state: format!("{:?}", entry.state).to_lowercase(),
                router: entry.router,
            })
        });
        let mut rows: Vec<NeighbourRow> = rows.collect();
        rows.sort_by_key(|row| (row.address, row.worker));
        Ok(rows)
    }

    /// Deaths by reason, and where.
    #[must_use]
    pub fn drop_rows(&self) -> Vec<DropRow> {
        let ledger = self.switch.ledger();
        let total = ledger.counts.dropped;
        let tables = self.switch.tables();
        let by_port: Vec<_> = tables
            .ports()
            .map(|row| (self.port_name(row.id), ledger.port(row.id).dropped))
            .collect();
        let row = |(reason, frames): (DropReason, u64)| {
            let at = by_port.iter();
            let at = at.map(|(name, drops)| (name.clone(), drops.of(reason)));
            let mut ports: BTreeMap<String, u64> = at.filter(|(_, frames)| *frames > 0).collect();
            let gone = frames.saturating_sub(ports.values().sum());
            if gone > 0 {
                ports.insert("ports that are gone".to_owned(), gone);
            }
            DropRow {
                reason: reason.label().to_owned(),
                meaning: reason.meaning().to_owned(),
                frames,
                ports,
            }
        };
        total.iter().map(row).collect()
    }

    /// The guards of each port that has any, with what they saw.
    #[must_use]
    pub fn guard_rows(&self) -> Vec<GuardRow> {
        let (tables, ledger) = (self.switch.tables(), self.switch.ledger());
        let mut rows = Vec::new();
        for port in tables.ports() {
            let Some(guard) = tables.guard(port.id).map(Guarded::guard) else {
                continue;
            };
            let (name, counts) = (self.port_name(port.id), ledger.port(port.id));
            let stations = guard.more_stations.iter().map(ToString::to_string);
            let addresses = guard.more_addresses.iter().map(ToString::to_string);
            for one in Guard::ALL {
                let sum = |drops: &Drops| one.reasons().iter().map(|why| drops.of(*why)).sum();
                rows.push(GuardRow {
                    port: port.id.index(),
                    name: name.clone(),
                    guard: one.name().to_owned(),
                    mode: one.mode(guard).to_string(),
                    limit: one.limit(guard).filter(|_| one.mode(guard) > Mode::Off),
                    refused: sum(&counts.dropped),
                    observed: sum(&counts.observed),
                    more: match one {
                        Guard::Stations => stations.clone().collect(),
                        Guard::Addresses => addresses.clone().collect(),
                        _ => Vec::new(),
                    },
                });
            }
        }
        rows
    }

    /// What the switch may come to hold, and what its routes hold now.
    #[must_use]
    pub fn bound_rows(&self) -> Vec<BoundRow> {
        let row = |bound: Bound| BoundRow {
            what: bound.what.to_owned(),
            limit: bound.limit,
            count: bound.count,
            bytes: bound.bytes,
            because: bound.because.to_owned(),
        };
        let rows = bounds::at_limit(&options(&self.spec, &self.settings))
            .into_iter()
            .map(row);
        let tables = self.switch.tables();
        let routes = BoundRow {
            what: "routes, as they are now".to_owned(),
            limit: ROUTES_MAX,
            count: 1,
            bytes: tables.routes_bytes(),
            because: "grows with the routes, which the configuration and the pods give".to_owned(),
        };
        rows.chain([routes]).collect()
    }

    /// The threads of the switch.
    #[must_use]
    pub fn worker_rows(&self) -> Vec<WorkerRow> {
        let row = |(worker, ledger): (usize, Ledger)| WorkerRow {
            worker,
            received: ledger.counts.received,
            originated: ledger.counts.originated,
            copied: ledger.counts.copied,
            transmitted: ledger.counts.transmitted,
            punted: ledger.counts.punted,
            queued: ledger.counts.queued,
            dropped: ledger.counts.dropped.total(),
            super_frames: ledger.super_frames,
            errors_suppressed: ledger.errors_suppressed,
        };
        self.switch
            .ledgers()
            .into_iter()
            .enumerate()
            .map(row)
            .collect()
    }

    /// Claims of others' addresses, the latest last.
    #[must_use]
    pub fn conflict_rows(&mut self) -> Vec<ConflictRow> {
        self.gather_conflicts();
        let claim = |party: Party| Claim {
            port: party.port.index(),
            name: self.port_name(party.port),
            mac: party.mac.to_string(),
        };
        let now = self.now();
        let row = |conflict: &dataplane::conflict::Conflict| ConflictRow {
            address: conflict.address,
            holder: claim(conflict.holder),
            claimer: claim(conflict.claimer),
            age_seconds: (now.as_millis() as u64).saturating_sub(conflict.at.0) / 1000,
        };
        self.conflicts.iter().map(row).collect()
    }
}

fn traffic(counts: &PortCounts) -> Traffic {
    Traffic {
        received: counts.received,
        received_bytes: counts.received_bytes,
        transmitted: counts.transmitted,
        transmitted_bytes: counts.transmitted_bytes,
        dropped: counts.dropped.total(),
    }
}

fn as_device(name: &str, link: Option<&Link>) -> Device {
    Device {
        name: name.to_owned(),
        index: link.map(|link| link.index),
        mac: link.and_then(|link| link.mac).map(|mac| mac.to_string()),
        mtu: link.map(|link| link.mtu),
        running: link.is_some_and(|link| link.running),
    }
}
