//! Adopting the bridge beside which a daemon was started, and giving the pods back to it.
//!
//! In: a [`HandoverRequest`]. Out: the pods of a bridge as attachments, or the bridge with its pods.
//! Never: moves anything before the way back is on disk, or forgets an adoption that nobody has
//! confirmed: it goes back by itself, also after a crash.
//!
//! A daemon whose host port's name is taken by a Linux bridge runs *beside* it: its own host port has
//! another name, nothing is steered to it, and it serves no ADD.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use dataplane::addr::{Mac, Station};
use ipnet::IpNet;

use super::attachment::{ALIAS, Attachment, Held};
use super::core::{Core, DaemonError, Settings, system};
use super::store::{State, Store};
use super::systemd;
use crate::adopt::dns::Dns;
use crate::adopt::ipam::{self, Holder, Places};
use crate::adopt::kept::{BRIDGE_ASIDE, HOST_ASIDE, Kept};
use crate::adopt::observe::{BridgedPod, Observed, namespace_paths, observe};
use crate::adopt::remains::{Remains, remains};
use crate::adopt::steps::{BridgeShape, PodShape, Step};
use crate::adopt::walk::{Failure, NoSwitch, Ports, backwards, forwards};
use crate::api::types::{ApiError, ErrorKind, HandoverReply, HandoverRequest, Key, PodName};
use crate::compile::{FIRST_POD_PORT, NodeSpec, UPLINK_PORT};
use crate::devices::attach::{ArpSteering, Uplink};
use crate::devices::name::{DeviceName, pod_devices};
use crate::devices::netlink::Netlink;
use crate::devices::tap::{self, TapSpec};

/// The network of pods of which nobody noted one.
const NETWORK_UNKNOWN: &str = "adopted";
/// What a bridge remembers of a station by default, in hundredths of a second.
const AGEING_DEFAULT: u32 = 30_000;

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::Invalid, message)
}

/// Every failure, each at its step.
fn failed(what: &str, failures: &[Failure]) -> ApiError {
    let mut error = ApiError::new(ErrorKind::Device, what);
    for failure in failures {
        let place = format!("step {}", failure.number);
        let told = format!("{}: {}", failure.step, failure.why);
        error.message.push_str(&format!("; {place}, {told}"));
        error.details.insert(place, told);
    }
    error
}

/// Seconds since the node's boot: a clock that nobody sets, and that goes on over a restart of the
/// daemon. After a boot there is no adoption left to mind.
fn boot_clock() -> u64 {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(since.tv_sec).unwrap_or(0)
}

/// Whether the host port's name is a bridge's, in which case the port gets another, and what is kept
/// of an adoption. The gateway keeps the hardware address that pods know it by.
pub(super) fn bridge_of(
    net: &Netlink,
    store: Option<&Store>,
    settings: &mut Settings,
    spec: &mut NodeSpec,
) -> Result<(Option<DeviceName>, Option<Kept>), DaemonError> {
    if let Some(store) = store {
        undo_what_was_cut_short(net, store)?;
    }
    let found = net.find_link(&settings.host)?;
    let bridge = found.filter(|link| link.kind.as_deref() == Some("bridge"));
    let beside = bridge.is_some().then(|| settings.host.clone());
    if beside.is_some() {
        settings.host = DeviceName::new(HOST_ASIDE).expect("our own names are device names");
    }
    let kept = store.map(|store| Kept::load(store.folder())).transpose();
    let kept = kept
        .map_err(system("reading what was kept of the bridge"))?
        .flatten();
    let kept = kept.filter(|_| beside.is_none());
    let mac = bridge
        .and_then(|link| link.mac)
        .or(kept.as_ref().map(|kept| kept.bridge.mac));
    if let Some(host) = mac.and_then(|mac| Station::new(mac).ok()) {
        spec.macs.host = host;
    }
    Ok((beside, kept))
}

impl HandoverRequest {
    fn places(&self) -> Places {
        let known = Places::default();
        Places {
            networks: self.networks.clone().unwrap_or(known.networks),
            azure_endpoints: self
                .azure_endpoints
                .clone()
                .unwrap_or(known.azure_endpoints),
            azure_addresses: self
                .azure_addresses
                .clone()
                .unwrap_or(known.azure_addresses),
        }
    }
}

impl Core {
    /// Adopts the bridge beside which this daemon was started.
    ///
    /// # Errors
    /// Every reason against it, or the step that failed; then all is as it was.
    pub fn adopt(&mut self, request: &HandoverRequest) -> Result<HandoverReply, ApiError> {
        let Some(name) = self.beside.clone() else {
            let host = &self.settings.host;
            return Err(invalid(format!(
                "{host} is the switch's own: there is no bridge to adopt"
            )));
        };
        if request
            .bridge
            .as_ref()
            .is_some_and(|meant| *meant != name.as_str())
        {
            return Err(invalid(format!(
                "the daemon runs beside {name}, and adopts no other"
            )));
        }
        let mut paths = request.namespaces.clone();
        paths.extend(namespace_paths());
        let observed = observe(&self.net, &name, &self.settings.uplink, &paths).map_err(refused)?;
        let holders = ipam::holders(&request.places()).map_err(refused)?;
        let found = self.adopted(&observed, &holders)?;
        let pods: Vec<PodShape> = found.iter().map(|(pod, _)| pod.clone()).collect();
        let steered = (
            self.settings.uplink.clone(),
            self.settings.uplink_tap.clone(),
        );
        let mut kept = Kept::new(shape(&observed), observed.uplink.clone(), steered);
        kept.pods = pods.clone();
        if let Some(nic) = &observed.uplink {
            kept.dns = Dns::observe(&observed.name, nic);
        }
        let steps = kept.handover(pods, self.spec.own.v4).steps();
        let told = steps.iter().map(ToString::to_string).collect();
        if request.dry_run {
            return Ok(HandoverReply {
                steps: told,
                done: false,
                confirm_by: None,
            });
        }
        let within = request.confirm_within_seconds;
        // Also where no word is asked for: a crash between two steps must find its way back.
        kept.confirm_by = Some(boot_clock() + within.max(1));
        self.keep_bridge(&kept)?;
        self.move_over(&steps, found)?;
        // The operator's time begins when there is something to look at. What is on disk is sooner.
        kept.confirm_by = Some(boot_clock() + within.max(1));
        if let Err(error) = self.keep_bridge(&kept) {
            tracing::warn!("{error}");
        }
        for station in &observed.stations {
            self.import(&observed, station.mac, station.device);
        }
        self.adoption = Some(kept);
        if within == 0 {
            self.confirm()?;
        }
        self.keep_or_complain();
        let confirm_by = self.adoption.as_ref().and_then(|kept| kept.confirm_by);
        Ok(HandoverReply {
            steps: told,
            done: true,
            confirm_by,
        })
    }

    /// Why no ADD is served, if the daemon runs beside a bridge.
    pub(super) fn waits_beside(&self) -> Option<ApiError> {
        let bridge = self.beside.as_ref()?;
        let why = format!("{bridge} is a Linux bridge still: tapline adopt --bridge {bridge}");
        Some(ApiError::new(ErrorKind::NotReady, why))
    }

    /// Keeps the way back of a node that never had a bridge: a rescue makes it one.
    pub(super) fn note_the_bridge(&self) {
        if self.beside.is_none()
            && self.adoption.is_none()
            && let Err(error) = self.keep_bridge(&self.own_bridge())
        {
            tracing::warn!("{error}");
        }
    }

    /// Walks the steps; on failure all is as it was.
    fn move_over(
        &mut self,
        steps: &[Step],
        found: Vec<(PodShape, Attachment)>,
    ) -> Result<(), ApiError> {
        let net = Netlink::open(self.net.namespace())?;
        let found = found
            .into_iter()
            .map(|(pod, one)| (pod.host_end, one))
            .collect();
        let mut hands = Hands { core: self, found };
        let moved = forwards(&net, &mut hands, steps, |_, step| {
            tracing::info!("adopting: {step}");
            Ok(())
        });
        if let Err(failures) = moved {
            // With more than the step itself, the way back has failed, too: the next start tries again.
            if failures.len() == 1 {
                self.forget_bridge();
            }
            return Err(failed("the bridge was not adopted", &failures));
        }
        if let Some(name) = self.beside.take() {
            self.settings.host = name;
        }
        self.mirror();
        Ok(())
    }

    /// The pods of a bridge, as they will be attached.
    fn adopted(
        &self,
        observed: &Observed,
        holders: &[Holder],
    ) -> Result<Vec<(PodShape, Attachment)>, ApiError> {
        let taken = self.attachments.values().map(|one| usize::from(one.port));
        let taken: BTreeSet<usize> = taken.collect();
        let mut ports = (FIRST_POD_PORT..).filter(|port| !taken.contains(port));
        if observed.pods.len() > self.settings.pods_max {
            let (are, most) = (observed.pods.len(), self.settings.pods_max);
            return Err(invalid(format!(
                "{are} pods are on the bridge, and {most} are allowed"
            )));
        }
        let gateways = &self.spec.gateways;
        let mut found = Vec::new();
        for pod in &observed.pods {
            let addresses: Vec<IpAddr> = pod.addresses.iter().map(IpNet::addr).collect();
            let holder = holders
                .iter()
                .find(|holder| addresses.contains(&holder.address));
            let key = key_of(pod, holder);
            let called = format!("{}-{}-{}", key.network, key.container_id, key.ifname);
            let gateway = |address: &IpNet| {
                let on_link = |net: &&IpNet| address.contains(&net.addr());
                gateways.iter().find(on_link).map(IpNet::addr)
            };
            let one = Attachment {
                pod: holder
                    .and_then(|holder| holder.pod.clone())
                    .map(|(namespace, name)| PodName { namespace, name }),
                netns: pod.netns.clone(),
                port: ports
                    .next()
                    .and_then(|port| u16::try_from(port).ok())
                    .unwrap_or(u16::MAX),
                host_end: pod.host_end.clone(),
                tap: pod_devices(self.spec.plugin, &called).1,
                mac: pod.mac,
                mtu: u16::try_from(pod.mtu).unwrap_or(u16::MAX),
                addresses: pod
                    .addresses
                    .iter()
                    .map(|address| Held {
                        address: *address,
                        gateway: gateway(address),
                    })
                    .collect(),
                routes: Vec::new(),
                hairpin: pod.hairpin,
                isolated: pod.isolated,
                mac_spoof_check: None,
                ip_masq: false,
                bandwidth: None,
                key,
            };
            if one.pod_port().is_none() {
                return Err(invalid(format!("{} has no port to go to", pod.host_end)));
            }
            let host = self.beside.as_ref().unwrap_or(&self.settings.host);
            let mut shape = shape_of(&one, host);
            (shape.ipv6, shape.inside) = (pod.ipv6, pod.inside.clone());
            shape.neighbour = observed.is_told_of(pod);
            found.push((shape, one));
        }
        Ok(found)
    }

    /// A station that the bridge had heard behind a pod other than the pod itself.
    fn import(&self, observed: &Observed, mac: Mac, device: u32) {
        let behind = observed
            .pods
            .iter()
            .find(|pod| pod.host_index == device && pod.mac != mac);
        let attached = behind.and_then(|pod| {
            let mut all = self.attachments.values();
            all.find(|one| one.host_end == pod.host_end)
        });
        let port = attached.and_then(Attachment::port_id);
        if let (Some(port), Ok(station)) = (port, Station::new(mac)) {
            let heard = dataplane::clock::Tick::of(self.now());
            self.switch.fdb().learn(station, port, heard);
        }
    }

    /// An adoption stays.
    ///
    /// # Errors
    /// What removing the bridge says; the adoption is confirmed all the same.
    pub fn confirm(&mut self) -> Result<HandoverReply, ApiError> {
        let Some(mut kept) = self.adoption.clone() else {
            return Err(invalid("no adoption waits to be confirmed"));
        };
        kept.confirm_by = None;
        self.keep_bridge(&kept)?;
        self.adoption = Some(kept);
        let aside = DeviceName::new(BRIDGE_ASIDE).expect("our own names are device names");
        self.net.remove_link(&aside)?;
        let steps = vec![format!("the bridge {aside} is removed")];
        Ok(HandoverReply {
            steps,
            done: true,
            confirm_by: None,
        })
    }

    /// Gives the pods back to a bridge.
    ///
    /// # Errors
    /// Why not; or what could not be done, after all that could.
    pub fn release(&mut self, request: &HandoverRequest) -> Result<HandoverReply, ApiError> {
        if let Some(bridge) = &self.beside {
            return Err(invalid(format!("the pods are on {bridge} already")));
        }
        let kept = match self.adoption.clone() {
            Some(kept) => kept,
            None => self.own_bridge(),
        };
        let pods = pods_now(&kept, self.attachments.values(), &self.settings.host);
        let steps = kept.handover(pods, self.spec.own.v4).steps();
        let told = steps.iter().rev().map(Step::backwards).collect();
        if request.dry_run {
            return Ok(HandoverReply {
                steps: told,
                done: false,
                confirm_by: None,
            });
        }
        // A crash between two steps must find its way to the end.
        let mut going = kept.clone();
        going.pods = pods_now(&kept, self.attachments.values(), &self.settings.host);
        going.confirm_by = Some(boot_clock());
        self.keep_bridge(&going)?;
        let held = holders_now(self.attachments.values());
        let gone = gone_since(&kept, &held);
        self.walk_back(&steps)?;
        // The pods are where they were; what is written of them is the lesser matter.
        ipam::give_back(&request.places(), &held, &gone).map_err(refused)?;
        Ok(HandoverReply {
            steps: told,
            done: true,
            confirm_by: None,
        })
    }

    /// Walks the steps backwards. What cannot be done is told, after all that can.
    fn walk_back(&mut self, steps: &[Step]) -> Result<(), ApiError> {
        let net = Netlink::open(self.net.namespace())?;
        let bridge = self.settings.host.clone();
        self.mirror = None;
        let mut hands = Hands {
            core: self,
            found: BTreeMap::new(),
        };
        let back = backwards(&net, &mut hands, steps);
        self.settings.host = DeviceName::new(HOST_ASIDE).expect("our own names are device names");
        self.beside = Some(bridge);
        self.mirror();
        self.adoption = None;
        self.attachments.clear();
        if back.is_ok() {
            self.forget_bridge();
        }
        self.keep_or_complain();
        let published = self.publish();
        back.map_err(|failures| failed("not all went back to the bridge", &failures))?;
        Ok(published?)
    }

    /// An adoption that nobody confirmed in time goes back.
    pub(super) fn mind_the_adoption(&mut self) {
        let due = self.adoption.as_ref().and_then(|kept| kept.confirm_by);
        if due.is_none_or(|due| boot_clock() < due) {
            return;
        }
        tracing::warn!("nobody confirmed the adoption: the pods go back to the bridge");
        match self.release(&HandoverRequest::default()) {
            Ok(_) => tracing::info!("the pods are back on the bridge"),
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// The bridge that this node would have, had it one.
    pub(super) fn own_bridge(&self) -> Kept {
        let shape = BridgeShape {
            name: self.beside.clone().unwrap_or(self.settings.host.clone()),
            mac: self.spec.macs.host.mac(),
            mtu: self.spec.mtu.into(),
            ageing: AGEING_DEFAULT,
            addresses: self.spec.gateways.clone(),
            routes: Vec::new(),
            neighbours: Vec::new(),
        };
        let steered = (
            self.settings.uplink.clone(),
            self.settings.uplink_tap.clone(),
        );
        Kept::new(shape, None, steered)
    }

    fn keep_bridge(&self, kept: &Kept) -> Result<(), ApiError> {
        let Some(folder) = self.state_folder() else {
            return Ok(());
        };
        let saved = kept.save(folder);
        saved.map_err(|error| {
            ApiError::new(
                ErrorKind::State,
                format!("the way back could not be kept: {error}"),
            )
        })
    }

    fn forget_bridge(&self) {
        if let Some(folder) = self.state_folder()
            && let Err(error) = Kept::forget(folder)
        {
            tracing::warn!("{}: {error}", folder.display());
        }
    }
}

fn refused<E: std::fmt::Display>(reasons: Vec<E>) -> ApiError {
    let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    let mut error = invalid(reasons.join("; "));
    for (at, reason) in reasons.into_iter().enumerate() {
        error.details.insert(format!("{}", at + 1), reason);
    }
    error
}

fn shape(observed: &Observed) -> BridgeShape {
    BridgeShape {
        name: observed.name.clone(),
        mac: observed.mac,
        mtu: observed.mtu,
        ageing: observed.facts.ageing,
        addresses: observed.addresses.clone(),
        routes: observed.routes.clone(),
        neighbours: observed.other_neighbours(),
    }
}

fn key_of(pod: &BridgedPod, holder: Option<&Holder>) -> Key {
    let noted = |text: &str| !text.is_empty();
    let container = holder
        .map(|holder| holder.container.clone())
        .filter(|text| noted(text));
    Key {
        network: holder
            .map_or(NETWORK_UNKNOWN, |holder| &holder.network)
            .to_owned(),
        container_id: container.unwrap_or_else(|| pod.host_end.to_string()),
        ifname: pod.inside.to_string(),
    }
}

fn shape_of(one: &Attachment, host: &DeviceName) -> PodShape {
    PodShape {
        host_end: one.host_end.clone(),
        tap: one.tap.clone(),
        alias: one.alias(host),
        netns: one.netns.clone(),
        inside: DeviceName::new(&one.key.ifname)
            .unwrap_or_else(|_| DeviceName::new("eth0").expect("four letters are a name")),
        mac: one.mac,
        addresses: one.addresses.iter().map(|held| held.address).collect(),
        mtu: one.mtu.into(),
        ipv6: false,
        neighbour: false,
        hairpin: one.hairpin,
        isolated: one.isolated,
    }
}

/// The pods attached now; those of the bridge as they were on it.
fn pods_now<'a>(
    kept: &Kept,
    attached: impl Iterator<Item = &'a Attachment>,
    host: &DeviceName,
) -> Vec<PodShape> {
    let then = |one: &Attachment| kept.pods.iter().find(|pod| pod.host_end == one.host_end);
    attached
        .map(|one| then(one).cloned().unwrap_or_else(|| shape_of(one, host)))
        .collect()
}

fn holders_now<'a>(attached: impl Iterator<Item = &'a Attachment>) -> Vec<Holder> {
    let each = |one: &'a Attachment| {
        one.ips().map(|address| Holder {
            address,
            network: one.key.network.clone(),
            container: one.key.container_id.clone(),
            device: Some(one.key.ifname.clone()),
            pod: one.pod.clone().map(|pod| (pod.namespace, pod.name)),
        })
    };
    attached.flat_map(each).collect()
}

fn gone_since(kept: &Kept, held: &[Holder]) -> BTreeSet<IpAddr> {
    let then = kept
        .pods
        .iter()
        .flat_map(|pod| pod.addresses.iter().map(IpNet::addr));
    then.filter(|address| !held.iter().any(|holder| holder.address == *address))
        .collect()
}

/// The hands of a daemon that serves.
struct Hands<'a> {
    core: &'a mut Core,
    /// Who is to be attached, by the host end.
    found: BTreeMap<DeviceName, Attachment>,
}

impl Hands<'_> {
    fn attachment(&self, pod: &PodShape) -> Option<Attachment> {
        let attached = || {
            self.core
                .attachments
                .values()
                .find(|one| one.host_end == pod.host_end)
        };
        self.found.get(&pod.host_end).or_else(attached).cloned()
    }
}

impl Ports for Hands<'_> {
    fn open(&mut self, pod: &PodShape) -> Result<(), String> {
        let one = self.attachment(pod).ok_or("nobody is attached there")?;
        let port = one.port_id().ok_or("it has no port")?;
        for address in one.ips() {
            if let Err(refused) = self.core.pool.hold(address, one.key.clone()) {
                return Err(refused.to_string());
            }
        }
        let ports = [(port, one.tap.clone())];
        self.core
            .open_ports(&ports)
            .map_err(|error| error.to_string())
    }

    fn close(&mut self, pod: &PodShape) -> Result<(), String> {
        let Some(one) = self.attachment(pod) else {
            return Ok(());
        };
        let now = self.core.now();
        self.core.pool.release(&one.key, now);
        if let Some(port) = one.port_id() {
            self.core
                .switch
                .detach(port)
                .map_err(|error| error.to_string())?;
            self.core.switch.fdb().forget_port(port);
            self.core.opened.remove(&port);
            systemd::forget(one.tap.as_str());
        }
        Ok(())
    }

    fn know(&mut self, pods: &[PodShape], known: bool) -> Result<(), String> {
        for pod in pods {
            let Some(one) = self.attachment(pod) else {
                continue;
            };
            match known {
                true => drop(self.core.attachments.insert(one.key.clone(), one)),
                false => {
                    self.core.attachments.remove(&one.key);
                    self.found.insert(one.host_end.clone(), one);
                }
            }
        }
        self.core.publish().map_err(|error| error.to_string())
    }

    fn steer(&mut self, on: bool) -> Result<(), String> {
        if on {
            return self.core.raise_uplink().map_err(|error| error.to_string());
        }
        // Else it would put back what is taken away now.
        self.core.keeper = None;
        let uplink = self.core.uplink();
        self.core.opened.remove(&UPLINK_PORT);
        systemd::forget(uplink.tap.name.as_str());
        uplink
            .detach(&self.core.net)
            .map_err(|error| error.to_string())
    }

    fn tap(&self, pod: &PodShape) -> TapSpec {
        let mtu = u16::try_from(pod.mtu).unwrap_or(u16::MAX);
        self.core.settings.tap(&pod.tap, mtu)
    }
}

/// Gives the pods of a dead daemon to a bridge, by what it kept in `folder`. Tells each step.
///
/// # Errors
/// What is missing, or what could not be done after all that could.
pub fn rescue(
    folder: &Path,
    net: &Netlink,
    places: &Places,
    dry_run: bool,
) -> Result<Vec<String>, ApiError> {
    let store = Store::open(folder).map_err(DaemonError::from)?;
    let kept = Kept::load(folder)
        .map_err(system("reading what was kept of the bridge"))?
        .ok_or_else(|| {
            let why = format!(
                "{} tells of no bridge: no daemon has run here",
                folder.display()
            );
            ApiError::new(ErrorKind::NotFound, why)
        })?;
    let state = store.load();
    let (pods, held, told) = match &state {
        Ok(state) => {
            let pods = pods_now(&kept, state.attachments.iter(), &kept.bridge.name);
            (pods, holders_now(state.attachments.iter()), Vec::new())
        }
        // Why the daemon does not start may well be that file: the devices know enough.
        Err(why) => {
            let (pods, held) = pods_by_devices(net, &kept, places)?;
            let told = format!("{why}; {} pods are known by their devices", pods.len());
            (pods, held, vec![told])
        }
    };
    let steps = kept.handover(pods, None).steps();
    let told = told
        .into_iter()
        .chain(steps.iter().rev().map(Step::backwards));
    let told = told.collect();
    if dry_run {
        return Ok(told);
    }
    go_back(net, &kept, &steps)?;
    ipam::give_back(places, &held, &gone_since(&kept, &held)).map_err(refused)?;
    // The next daemon runs beside the bridge, with nobody attached.
    if let Ok(state) = state {
        let emptied = store.save(&State::new(Vec::new(), state.memory));
        emptied.map_err(DaemonError::from)?;
    }
    Ok(told)
}

/// The pods whose devices are there, and who holds which address: as others noted it, and else as far
/// as the devices tell.
fn pods_by_devices(
    net: &Netlink,
    kept: &Kept,
    places: &Places,
) -> Result<(Vec<PodShape>, Vec<Holder>), ApiError> {
    let mine = format!("{ALIAS} {} ", kept.bridge.name);
    let found = remains(net, &mine, &namespace_paths())?;
    let then = |pod: &PodShape| kept.pods.iter().find(|was| was.host_end == pod.host_end);
    let shapes = found.iter().map(|one| then(&one.pod).unwrap_or(&one.pod));
    let noted = ipam::holders(places).unwrap_or_default();
    let network = noted.first().map_or(NETWORK_UNKNOWN, |one| &one.network);
    let holder = |one: &Remains, address: IpAddr| {
        let known = noted.iter().find(|holder| holder.address == address);
        known.cloned().unwrap_or_else(|| Holder {
            address,
            network: network.to_owned(),
            container: one.called.clone(),
            device: Some(one.pod.inside.to_string()),
            pod: None,
        })
    };
    let mut held = Vec::new();
    for one in &found {
        held.extend(one.addresses.iter().map(|address| holder(one, *address)));
    }
    Ok((shapes.cloned().collect(), held))
}

/// The way back with nobody to close a port, and what else the daemon left.
fn go_back(net: &Netlink, kept: &Kept, steps: &[Step]) -> Result<(), ApiError> {
    let (device, tap) = &kept.steered;
    let mut nobody = NoSwitch {
        net,
        uplink: Some(Uplink {
            device: device.clone(),
            tap: TapSpec::new(tap.clone(), kept.bridge.mtu),
            pods: Vec::new(),
            pods_v6: Vec::new(),
            arp: ArpSteering::MirrorReplies,
        }),
    };
    let back = backwards(net, &mut nobody, steps);
    let aside = DeviceName::new(HOST_ASIDE).expect("our own names are device names");
    tap::remove(net, &aside)?;
    back.map_err(|failures| failed("not all went back to the bridge", &failures))
}

/// An adoption that a crash cut short, or that nobody confirmed before one, is undone before
/// anything else, and a release goes on to its end: traffic may hang on a switch that is no more.
///
/// # Errors
/// What could not be undone.
pub(super) fn undo_what_was_cut_short(net: &Netlink, store: &Store) -> Result<(), DaemonError> {
    let kept = Kept::load(store.folder()).map_err(system("reading what was kept of the bridge"))?;
    let Some(kept) = kept.filter(|kept| kept.confirm_by.is_some()) else {
        return Ok(());
    };
    let adopted = net
        .find_link(&kept.bridge.name)?
        .is_some_and(|link| link.tap.is_some());
    let in_time = kept.confirm_by.is_some_and(|due| boot_clock() < due);
    if adopted && in_time {
        return Ok(());
    }
    tracing::warn!("an adoption or a release did not come to its end: the pods go to the bridge");
    let steps = kept.handover(kept.pods.clone(), None).steps();
    if let Err(error) = go_back(net, &kept, &steps) {
        tracing::error!("{error}");
    }
    Kept::forget(store.folder()).map_err(system("forgetting the adoption"))
}
