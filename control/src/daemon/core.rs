//! The running part of a daemon: one switch, its fixed ports, and the books of who is attached.
//!
//! In: a [`NodeSpec`], [`Settings`], addresses to give, and the node's namespace.
//! Out: a switch that moves frames, tables that follow from who is attached, counters.
//! Never: changes the node's own device: what the switch wants of its frames is steered to it, and
//! a stop takes that away again.
//!
//! The order of a start is that of a restart in haste: the switch and its tables first, then every
//! TAP that is there, so that pods that live are served within milliseconds; what is missing or
//! surplus is put right after that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::Path;
use std::time::{Duration, Instant};

use dataplane::addr::PortId;
use dataplane::bounds::{self, Bound};
use dataplane::conflict::Conflict;
use dataplane::port::tap::{Queues, TapPort};
use dataplane::stats::Counts;
use dataplane::switch::{Boards, Cpu, Options, Switch};
use dataplane::tables::{Fault, Tables};
use ipnet::IpNet;

use super::adopt;
use super::attachment::Attachment;
use super::capture::Captures;
use super::gateway;
use super::mirror::Mirror;
use super::node::PodAddresses;
use super::restore::{self, Found};
use super::store::{State, Store, StoreError};
use super::systemd::{self, Heirlooms};
use crate::adopt::kept::Kept;
use crate::api::types::{AddressFill, ApiError, ErrorKind, Interface, Key, StatusReply};
use crate::compile::{HOST_PORT, NodeSpec, PodPort, UPLINK_PORT};
use crate::config::PolicyMode;
use crate::devices::attach::{ArpSteering, HostPort, Uplink, make_way_out};
use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;
use crate::devices::netlink::Netlink;
use crate::devices::netns::Netns;
use crate::devices::tap::TapSpec;
use crate::ipam::{Memory, Pool};
use crate::plan::Plugin;
use crate::steer::{Cover, Keeper};

/// Records of claims that are kept: enough to find a culprit by.
const CONFLICTS_MAX: usize = 256;

/// A TAP that was just opened has its carrier within milliseconds.
pub(super) const CARRIER_WITHIN: Duration = Duration::from_secs(2);

/// How a daemon is to run, beside what its node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The node's device that leads to the network.
    pub uplink: DeviceName,
    /// The TAP by which the switch uses it.
    pub uplink_tap: DeviceName,
    /// The device of the node's own kernel.
    pub host: DeviceName,
    /// The pods' MTU, unless it is the uplink's.
    pub pod_mtu: Option<u16>,
    /// How many pods are attached at once.
    pub pods_max: usize,
    /// Whether bandwidth limits are obeyed.
    pub bandwidth: bool,
    /// Workers of the switch.
    pub workers: NonZeroU16,
    /// Where they stay, or nothing.
    pub cpus: Vec<Cpu>,
    /// How long a worker looks again before it sleeps.
    pub spin: Duration,
    /// What was said of policy, where pods' packets go through the kernel.
    pub policy: PolicyMode,
}

impl Settings {
    /// The defaults of a plugin.
    #[must_use]
    pub fn of(plugin: Plugin) -> Settings {
        let name = |text| DeviceName::new(text).expect("our own names are device names");
        Settings {
            uplink: name("eth0"),
            uplink_tap: name("uplink0"),
            host: name(crate::compile::spec::host_device(plugin)),
            pod_mtu: None,
            pods_max: 250,
            bandwidth: true,
            workers: NonZeroU16::MIN,
            cpus: Vec::new(),
            spin: dataplane::switch::SPIN_DEFAULT,
            policy: PolicyMode::Auto,
        }
    }

    /// A TAP of the node's namespace for the switch.
    pub(super) fn tap(&self, name: &DeviceName, mtu: u16) -> TapSpec {
        TapSpec {
            queues: self.workers,
            ..TapSpec::new(name.clone(), mtu.into())
        }
    }
}

/// Why a daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A device, address, route or filter.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The state file or its folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Tables that cannot be.
    #[error("the switch's tables are at fault: {}", join(.0))]
    Tables(Vec<Fault>),
    /// A thread, a TAP's queue, a socket.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// What the system says.
        source: io::Error,
    },
}

fn join(faults: &[Fault]) -> String {
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    faults.join("; ")
}

impl From<DaemonError> for ApiError {
    fn from(error: DaemonError) -> ApiError {
        let kind = match &error {
            DaemonError::Device(_) | DaemonError::System { .. } => ErrorKind::Device,
            DaemonError::Store(_) => ErrorKind::State,
            DaemonError::Tables(_) => ErrorKind::Invalid,
        };
        ApiError::new(kind, error.to_string())
    }
}

/// Names what was being done when the system said no.
pub(super) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> DaemonError {
    let what = what.into();
    |source| DaemonError::System { what, source }
}

/// What a core that was started without its node's word waits for, and keeps until then.
#[derive(Debug)]
struct Provisional {
    /// Why there is no word yet.
    why: String,
    /// What the state file told of addresses that its pool does not have.
    memory: Memory,
}

/// What a running part is made of.
pub(super) struct Parts {
    pub(super) spec: NodeSpec,
    pub(super) settings: Settings,
    pub(super) pool: Pool<Key>,
    pub(super) store: Option<Store>,
    /// Who was attached.
    pub(super) state: State,
    pub(super) heirlooms: Heirlooms,
    /// What the clock had come to where another daemon is followed.
    pub(super) elapsed: Duration,
}

/// A switch on a node.
#[derive(Debug)]
pub struct Core {
    pub(super) spec: NodeSpec,
    pub(super) settings: Settings,
    pub(super) net: Netlink,
    pub(super) switch: Switch<TapPort>,
    pub(super) pool: Pool<Key>,
    pub(super) attachments: BTreeMap<Key, Attachment>,
    pub(super) store: Option<Store>,
    /// What an earlier daemon had systemd keep, or handed over.
    pub(super) heirlooms: Heirlooms,
    /// The ports that the switch has.
    pub(super) opened: BTreeSet<PortId>,
    /// Gateways of the host port that took another's place for `forceAddress`.
    pub(super) forced: Vec<IpNet>,
    /// What was to be kept and could not be, in words.
    unsaved: Option<String>,
    /// Those attached before are served, and the node has not spoken yet.
    provisional: Option<Provisional>,
    /// Those who look at frames.
    pub(super) captures: Captures,
    /// Shows copies to those who listen at the host device.
    pub(super) mirror: Option<Mirror>,
    /// The bridge that has the host port's name, if the daemon runs beside one.
    pub(super) beside: Option<DeviceName>,
    /// The bridge whose pods these are, or were.
    pub(super) adoption: Option<Kept>,
    /// Claims of others' addresses, the latest last.
    pub(super) conflicts: VecDeque<Conflict>,
    /// How many there were, those forgotten included.
    conflicts_seen: u64,
    /// Pods of which it has been said that their devices are gone.
    pub(super) mourned: BTreeSet<Key>,
    /// Where to look first for a free port: a number rests as long as it can.
    pub(super) next_port: usize,
    pub(super) begun: Instant,
    /// Keeps the filters on the uplink.
    pub(super) keeper: Option<Keeper>,
}

impl Core {
    /// Starts the switch in the namespace of `node`, with whoever was attached before. Without a
    /// `store`, nobody was, and nothing is kept.
    ///
    /// # Errors
    /// [`DaemonError`]; devices that were made stay, since pods may hang on them.
    pub fn start(
        spec: NodeSpec,
        settings: Settings,
        pool: Pool<Key>,
        store: Option<Store>,
        heirlooms: Heirlooms,
        node: &Netns,
    ) -> Result<Core, DaemonError> {
        let state = store
            .as_ref()
            .map_or_else(|| Ok(State::default()), Store::load)?;
        let parts = Parts {
            spec,
            settings,
            pool,
            store,
            state,
            heirlooms,
            elapsed: Duration::ZERO,
        };
        let (mut core, lost) = Core::build(parts, node)?;
        core.open_in_haste()?;
        core.complete(lost)?;
        Ok(core)
    }

    /// The switch and its tables, with no port yet. Gives also how many pods of the state are gone.
    ///
    /// # Errors
    /// [`DaemonError`]; nothing has been changed.
    pub(super) fn build(parts: Parts, node: &Netns) -> Result<(Core, usize), DaemonError> {
        let Parts {
            mut spec,
            mut settings,
            mut pool,
            store,
            mut state,
            heirlooms,
            elapsed,
        } = parts;
        let net = Netlink::open(node)?;
        // Asked first: without it there is nothing to serve, and nothing has been made.
        net.index(&settings.uplink)?;
        let (beside, adoption) = adopt::bridge_of(&net, store.as_ref(), &mut settings, &mut spec)?;
        if beside.is_some() {
            // Whoever was attached is on the bridge now.
            state.attachments.clear();
        }
        // The clock of one that is followed goes on.
        let begun = Instant::now();
        let begun = begun.checked_sub(elapsed).unwrap_or(begun);
        let forced = std::mem::take(&mut state.gateways);
        let found = Found::among(&net.links()?, state, &mut pool, begun.elapsed());
        let living = found.living.values();
        let forced = gateway::resume(&mut spec, &net, &settings.host, forced, living);
        let tables = build(&spec, found.living.values())?;
        let mut options = options(&spec, &settings);
        options.elapsed = begun.elapsed();
        tell_bounds(&bounds::at_limit(&options));
        let switch = Switch::start(&options, tables).map_err(system("starting the switch"))?;
        let core = Core {
            spec,
            settings,
            net,
            switch,
            pool,
            attachments: found.living,
            store,
            heirlooms,
            opened: BTreeSet::new(),
            forced,
            unsaved: None,
            provisional: None,
            captures: Captures::default(),
            mirror: None,
            beside,
            adoption,
            conflicts: VecDeque::new(),
            conflicts_seen: 0,
            mourned: BTreeSet::new(),
            next_port: 0,
            begun,
            keeper: None,
        };
        Ok((core, found.lost))
    }

    /// Puts right what is missing or surplus beside what is served already.
    pub(super) fn complete(&mut self, lost: usize) -> Result<(), DaemonError> {
        self.raise_fixed_ports()?;
        restore::repair(self)?;
        self.mirror();
        self.tell_policy();
        if lost > 0 {
            self.keep_or_complain();
        }
        self.note_the_bridge();
        Ok(())
    }

    /// The ports that are there whoever is attached. Beside a bridge the uplink is the bridge's.
    pub(super) fn fixed_ports(&self) -> Vec<(PortId, DeviceName)> {
        let uplink = self.beside.is_none();
        let uplink = uplink.then(|| (UPLINK_PORT, self.settings.uplink_tap.clone()));
        let host = (HOST_PORT, self.settings.host.clone());
        std::iter::once(host).chain(uplink).collect()
    }

    /// Every TAP that is there begins to be served.
    fn open_in_haste(&mut self) -> Result<(), DaemonError> {
        let fixed = self.fixed_ports();
        let pods = self.attachments.values();
        let pods = pods.filter_map(|one| Some((one.port_id()?, one.tap.clone())));
        let links = self.net.links()?;
        let ready = |name: &DeviceName| {
            let multi = self.settings.workers.get() > 1;
            let mut taps = links.iter().filter(|link| link.name == name.as_str());
            taps.any(|link| {
                link.tap
                    .is_some_and(|tap| tap.persistent && tap.multi_queue == multi)
            })
        };
        let ports = fixed.into_iter().chain(pods);
        let there: Vec<_> = ports.filter(|(_, name)| ready(name)).collect();
        self.open_ports(&there)
    }

    /// Makes host port and uplink, or completes them, and opens those that are not.
    pub(super) fn raise_fixed_ports(&mut self) -> Result<(), DaemonError> {
        let host = self.host_port();
        host.attach(&self.net)?;
        self.ensure_open(HOST_PORT, &host.tap.name)?;
        match self.beside {
            Some(_) => Ok(()),
            None => self.raise_uplink(),
        }
    }

    /// Makes the port to the network, or completes it. It is open before anything is steered to it:
    /// opening waits for whoever else changes devices, and a TAP that nobody has open drops.
    pub(super) fn raise_uplink(&mut self) -> Result<(), DaemonError> {
        let uplink = self.uplink();
        make_way_out(&self.net, &uplink.tap, &uplink.device)?;
        self.ensure_open(UPLINK_PORT, &uplink.tap.name)?;
        Ok(self.keep_steering(uplink)?)
    }

    /// Steers as `uplink` says, and keeps it so.
    fn keep_steering(&mut self, uplink: Uplink) -> Result<(), DeviceError> {
        if let Some(keeper) = &self.keeper {
            return keeper.change(uplink);
        }
        self.keeper = Some(Keeper::start(self.net.namespace(), uplink)?);
        Ok(())
    }

    /// Opens a port that the switch does not have yet, and waits for its carrier.
    pub(super) fn ensure_open(
        &mut self,
        port: PortId,
        tap: &DeviceName,
    ) -> Result<(), DaemonError> {
        if !self.opened.contains(&port) {
            self.open_ports(&[(port, tap.clone())])?;
        }
        self.net.wait_until_running(tap, CARRIER_WITHIN)?;
        Ok(())
    }

    /// Opens TAPs and hands them to the switch, all from one visit to the node's namespace.
    pub(super) fn open_ports(&mut self, ports: &[(PortId, DeviceName)]) -> Result<(), DaemonError> {
        let workers = self.settings.workers.get();
        let kind = if workers > 1 {
            Queues::Multi
        } else {
            Queues::Single
        };
        let (mut kept, mut closed) = (Vec::new(), Vec::new());
        for (port, tap) in ports {
            match self.heirlooms.take(tap.as_str(), workers.into()) {
                Some(queues) => kept.push((*port, tap, Ok(queues))),
                None => closed.push((*port, tap)),
            }
        }
        let open = |(port, tap): &(PortId, &'_ DeviceName)| {
            let queues = (0..workers).map(|_| TapPort::open(tap.as_str(), kind));
            let queues: io::Result<Vec<TapPort>> = queues.collect();
            (*port, queues)
        };
        let opened: Vec<(PortId, io::Result<Vec<TapPort>>)> = self
            .net
            .namespace()
            .run(|| Ok(closed.iter().map(open).collect()))
            .map_err(system("entering the node's namespace"))?;
        let opened = opened.into_iter().zip(&closed);
        let opened = opened.map(|((port, queues), (_, tap))| (port, *tap, queues));
        let mut ready = Vec::with_capacity(ports.len());
        for (port, tap, queues) in kept.into_iter().chain(opened) {
            let queues = queues.map_err(system(format!("opening {tap}")))?;
            systemd::keep(tap.as_str(), &queues);
            ready.push((port, queues));
        }
        let attached = self.switch.attach_all(ready);
        attached.map_err(system("handing TAPs to the switch"))?;
        self.opened.extend(ports.iter().map(|(port, _)| *port));
        Ok(())
    }

    /// The port of the node's own kernel.
    pub(super) fn host_port(&self) -> HostPort {
        HostPort {
            tap: self.settings.tap(&self.settings.host, self.spec.mtu),
            mac: self.spec.macs.host.mac(),
            // The bridge has them.
            addresses: match self.beside {
                Some(_) => Vec::new(),
                None => self.spec.gateways.clone(),
            },
            alias: Some(format!("tapline host port of {}", self.spec.name)),
        }
    }

    /// The port to the network.
    pub(super) fn uplink(&self) -> Uplink {
        let own = self.spec.own.v4;
        let pods = Cover::of(self.spec.pods.iter().copied(), own).prefixes;
        Uplink {
            device: self.settings.uplink.clone(),
            tap: self.settings.tap(&self.settings.uplink_tap, self.spec.mtu),
            arp: match self.spec.plugin {
                Plugin::Azure => ArpSteering::ByTarget(pods.clone()),
                Plugin::Kubenet => ArpSteering::MirrorReplies,
            },
            pods,
            pods_v6: self.spec.pods_v6.into_iter().collect(),
        }
    }

    /// This core was started by what those attached before have, and nobody has told more: no ADD is
    /// served until [`Core::reload`] brings the node's own word.
    pub fn wait_for_the_node(&mut self, why: String) {
        let memory = match self.provisional.take() {
            Some(waits) => waits.memory,
            None => {
                let kept = self.store.as_ref().map(Store::load);
                kept.and_then(Result::ok).unwrap_or_default().memory
            }
        };
        self.provisional = Some(Provisional { why, memory });
    }

    /// Why no ADD is served, if so.
    pub(super) fn not_yet(&self) -> Option<ApiError> {
        let nobody_told = self.provisional.as_ref().map(|waits| {
            let why = format!(
                "those attached before are served, and no more: {}",
                waits.why
            );
            ApiError::new(ErrorKind::NotReady, why)
        });
        self.waits_beside().or(nobody_told)
    }

    /// What is known of addresses beside who holds them.
    fn memory(&self) -> Memory {
        let mut memory = self.pool.memory();
        if let Some(waits) = &self.provisional {
            let ours = |list: &[IpAddr], other: &IpAddr| list.contains(other);
            let last = waits.memory.last.iter();
            let last: Vec<IpAddr> = last.filter(|a| !ours(&memory.last, a)).copied().collect();
            memory.last.extend(last);
            // Those rest longest that were released last.
            let mut released = waits.memory.released.clone();
            released.retain(|address| !ours(&memory.released, address));
            released.append(&mut memory.released);
            memory.released = released;
        }
        memory
    }

    /// Addresses to give, with those of the pods attached held.
    fn pool_in_use(&self, mut pool: Pool<Key>) -> Pool<Key> {
        for one in self.attachments.values() {
            for address in one.ips() {
                if let Err(refused) = pool.hold(address, one.key.clone()) {
                    tracing::warn!("{}: {refused}", one.name());
                }
            }
        }
        pool.remember(&self.memory(), self.now());
        pool
    }

    /// Gives the switch the tables for the pods attached now.
    pub(super) fn publish(&mut self) -> Result<(), DaemonError> {
        let tables = build(&self.spec, self.attachments.values())?;
        self.switch.publish(tables);
        Ok(())
    }

    /// The same node with other surroundings, or another list of pods' addresses: what a reload
    /// may change. Frames in flight are decided by the old tables or by the new ones. If it was
    /// served by what its pods have, this is its own word, and `pool` is given from now on.
    ///
    /// # Errors
    /// What is wrong with the new ones; then the old ones stay.
    pub fn reload(
        &mut self,
        mut spec: NodeSpec,
        mut settings: Settings,
        pods: &PodAddresses,
        pool: Pool<Key>,
    ) -> Result<(), DaemonError> {
        // The host port keeps its name, which is another beside a bridge, and the address that pods know
        // from a bridge.
        settings.host = self.settings.host.clone();
        if self.beside.is_some() || self.adoption.is_some() {
            spec.macs.host = self.spec.macs.host;
        }
        for gateway in &self.forced {
            gateway::replace(&mut spec, *gateway);
        }
        let tables = build(&spec, self.attachments.values())?;
        let (old_spec, old_settings) = (self.spec.clone(), self.settings.clone());
        (self.spec, self.settings) = (spec, settings);
        let raised = self
            .host_port()
            .attach(&self.net)
            .and_then(|()| match self.beside {
                Some(_) => Ok(()),
                None => self.keep_steering(self.uplink()),
            });
        if let Err(refused) = raised {
            (self.spec, self.settings) = (old_spec, old_settings);
            // What was there a moment ago can be there again.
            if self.beside.is_none() {
                let _ = self.keep_steering(self.uplink());
            }
            return Err(refused.into());
        }
        if self.provisional.is_some() {
            self.pool = self.pool_in_use(pool);
            self.provisional = None;
        } else if let PodAddresses::Secondary(addresses) = pods {
            self.pool.relist(addresses);
        }
        self.switch.publish(tables);
        self.tell_policy();
        Ok(())
    }

    /// Who is attached, as it is kept.
    pub(super) fn state(&self) -> State {
        let attachments = self.attachments.values().cloned().collect();
        State {
            gateways: self.forced.clone(),
            ..State::new(attachments, self.memory())
        }
    }

    /// Keeps who is attached.
    pub(super) fn keep(&mut self) -> Result<(), StoreError> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let saved = store.save(&self.state());
        self.unsaved = saved.as_ref().err().map(ToString::to_string);
        saved
    }

    /// The same where nothing can be undone: what is kept is older than what is, and a restart
    /// puts it right by what lives.
    pub(super) fn keep_or_complain(&mut self) {
        if let Err(error) = self.keep() {
            tracing::warn!("{error}; what is attached is served all the same");
        }
    }

    /// What is to be done now and then: devices that somebody deleted are made again where that
    /// helps and named where it does not, claims of others' addresses are told, and a state that
    /// could not be kept is kept.
    pub fn look_after(&mut self) {
        self.gather_conflicts();
        self.mind_the_adoption();
        self.mind_the_captures();
        if let Err(error) = restore::look_after(self) {
            tracing::error!("looking after the devices: {error}");
        }
        if self.unsaved.is_some() && self.keep().is_ok() {
            tracing::info!("the state is kept again");
        }
    }

    /// Takes over what the workers recorded.
    pub(super) fn gather_conflicts(&mut self) {
        while let Some(conflict) = self.switch.take_conflict() {
            tracing::warn!(
                "{} is held by {} and was claimed by {} ({})",
                conflict.address,
                self.port_name(conflict.holder.port),
                self.port_name(conflict.claimer.port),
                conflict.claimer.mac
            );
            self.conflicts_seen += 1;
            if self.conflicts.len() == CONFLICTS_MAX {
                self.conflicts.pop_front();
            }
            self.conflicts.push_back(conflict);
        }
    }

    /// Where its state is kept.
    pub(super) fn state_folder(&self) -> Option<&Path> {
        self.store.as_ref().map(Store::folder)
    }

    /// Claims of others' addresses since the start.
    #[must_use]
    pub fn conflicts_seen(&self) -> u64 {
        self.conflicts_seen
    }

    /// Time since the start, on a clock that no operator sets.
    pub(super) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// What the node's kernel sees of the switch.
    pub(super) fn host_interface(&self) -> Interface {
        Interface {
            name: self.settings.host.to_string(),
            mac: self.spec.macs.host.mac(),
            mtu: self.spec.mtu.into(),
            sandbox: None,
        }
    }

    /// Whether ADDs are served, and what stands in the way.
    #[must_use]
    pub fn status(&self) -> StatusReply {
        let fill = self.pool.fill(self.now());
        let error = if !self.switch.is_alive() {
            let why = "a thread of the switch has died";
            Some(ApiError::new(ErrorKind::NotReady, why))
        } else if let Some(unsaved) = &self.unsaved {
            Some(ApiError::new(ErrorKind::State, unsaved.clone()))
        } else if let Some(not_yet) = self.not_yet() {
            Some(not_yet)
        } else if fill.free() == 0 || self.attachments.len() >= self.settings.pods_max {
            let why = format!(
                "{} pods are attached, and no more fit",
                self.attachments.len()
            );
            Some(ApiError::new(ErrorKind::Exhausted, why))
        } else {
            None
        };
        let number = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
        StatusReply {
            ready: error.is_none(),
            error,
            node: Some(self.spec.name.clone()),
            plugin: Some(self.spec.plugin.to_string()),
            attachments: self.attachments.len(),
            addresses: Some(AddressFill {
                total: number(fill.total),
                held: number(fill.held),
                resting: number(fill.resting),
                free: number(fill.free()),
            }),
            serving_seconds: Some(self.now().as_secs()),
        }
    }

    /// The node itself has told what it is.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.provisional.is_none()
    }

    /// The node.
    #[must_use]
    pub fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// How it runs.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The switch.
    #[must_use]
    pub fn switch(&self) -> &Switch<TapPort> {
        &self.switch
    }

    /// Its counters, which outlive it.
    #[must_use]
    pub fn board(&self) -> Boards {
        self.switch.board()
    }

    /// Who is attached.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.values()
    }

    /// False if the switch has died of a broken law.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.switch.is_alive()
    }

    /// Takes the steering away from the node's device, and then stops the switch. Pods keep their
    /// devices and their gateway for the next daemon; without pods nothing stays. Gives the final counts, which balance.
    ///
    /// # Errors
    /// What could not be taken away; the switch has stopped all the same.
    pub fn stop(mut self) -> Result<Counts, DaemonError> {
        self.mirror = None;
        // Else it would put back what is taken away now.
        self.keeper = None;
        let uplink = self.beside.is_none();
        let detached = match uplink {
            true => self.uplink().detach(&self.net),
            false => Ok(()),
        };
        if uplink {
            systemd::forget(self.settings.uplink_tap.as_str());
        }
        // Pods reach their gateway again at once when the next daemon comes. Without pods nobody
        // misses it, and the node is as it was.
        let detached = match self.attachments.is_empty() {
            true => {
                systemd::forget(self.settings.host.as_str());
                detached.and(self.host_port().detach(&self.net))
            }
            false => detached,
        };
        let counts = self.switch.stop().map_err(system("stopping the switch"));
        detached?;
        counts
    }
}

/// How its switch runs.
pub(super) fn options(spec: &NodeSpec, settings: &Settings) -> Options {
    Options {
        workers: settings.workers.get().into(),
        cpus: settings.cpus.clone(),
        spin: settings.spin,
        ..Options::named(&format!("tl-{}", spec.name))
    }
}

/// Says in the log how much memory the switch may come to hold: limits of a unit follow from it.
fn tell_bounds(bounds: &[Bound]) {
    let mib = bounds::total(bounds).div_ceil(1 << 20);
    tracing::info!("memory: at most {mib} MiB when every table and queue is full, and its routes");
    for bound in bounds {
        tracing::debug!("{bound}");
    }
}

/// The tables of a node with these pods.
fn build<'a>(
    spec: &NodeSpec,
    pods: impl Iterator<Item = &'a Attachment>,
) -> Result<Tables, DaemonError> {
    let pods: Vec<PodPort> = pods.filter_map(Attachment::pod_port).collect();
    Tables::build(&spec.tables(&pods)).map_err(DaemonError::Tables)
}
