//! The configuration once it holds: every value means something, and defaults are filled in.
//!
//! In: the raw configuration and its places. Out: a [`NodeConfig`], or faults in the report.
//! Never: leaves a value for the daemon to check again, or asks the node.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use dataplane::addr::{Mac, Station};
use dataplane::bucket::Rate;
use dataplane::switch::Cpu;
use dataplane::tables::guard::{MORE_MAX, Mode, Rates};
use ipnet::IpNet;

use super::raw::{
    Guard, PolicyMode, RawConfig, RawGuards, RawLog, RawMetrics, RawMore, RawPlan, RawPlugin,
    RawRoute, RawSource, RawTruth,
};
use super::shape::Shaped;
use super::{SOCKET_PATH, STATE_DIR};
use crate::compile::guards::{Guards, More};
use crate::compile::spec::host_device;
use crate::devices::DeviceName;
use crate::model::{Place, Report};
use crate::node::features::Feature;
use crate::plan::Plugin;

/// What a path of a unix socket may have at most, its closing zero left out (`sockaddr_un`).
const SOCKET_PATH_MAX: usize = 107;
/// A node's name is a DNS subdomain (RFC 1123, as Kubernetes reads it).
const NODE_NAME_MAX: usize = 253;
/// Routes in one configuration: the largest quota of a route table that Azure documents, twice,
/// and with room.
const ROUTES_MAX: usize = 4096;

/// Everything that the daemon is told about its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// How pods get their addresses.
    pub plugin: Plugin,
    /// The node's name in Kubernetes.
    pub node: String,
    /// The device that leads to the network.
    pub uplink: Uplink,
    /// The device of the node's own kernel.
    pub host_port: HostPort,
    /// What holds for every pod.
    pub pods: Pods,
    /// What is around the node.
    pub surroundings: Surroundings,
    /// Where the node's truth comes from.
    pub truth: Truth,
    /// What the plan expects; to be compared, never acted upon.
    pub expected: Option<Expected>,
    /// Who must see a pod's frames.
    pub policy: PolicyMode,
    /// Guards of the pods' ports.
    pub guards: Guards,
    /// Threads that move frames, 1 to 64.
    pub workers: NonZeroU16,
    /// Where they stay, as many as they are, or none.
    pub cpus: Vec<Cpu>,
    /// How long a worker looks again before it sleeps.
    pub spin: Duration,
    /// Facilities of newer kernels that are not to be used.
    pub features_off: BTreeSet<Feature>,
    /// The folder for who is attached; absolute.
    pub state_dir: PathBuf,
    /// The unix socket; absolute.
    pub socket: PathBuf,
    /// Where metrics are served over HTTP, beside the unix socket.
    pub metrics: Option<SocketAddr>,
    /// What is logged.
    pub log: LogLevel,
}

/// The device that leads to the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub device: DeviceName,
    /// The TAP by which the switch uses it.
    pub tap: DeviceName,
    /// The one MAC that it may have; `None` for whatever it has.
    pub mac: Option<Station>,
    /// The MTU of what leaves by it; `None` for the device's.
    pub mtu: Option<u16>,
}

/// The device of the node's own kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Its name.
    pub device: DeviceName,
    /// Its MAC.
    pub mac: HostMac,
}

/// The MAC of the host port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostMac {
    /// The uplink device's.
    Nic,
    /// `0a:58` and the IPv4 gateway's address, as the bridge plugin's.
    OfGateway,
    /// This one.
    Fixed(Station),
}

/// What holds for every pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pods {
    /// Their MTU; `None` for the uplink's.
    pub mtu: Option<u16>,
    /// How many are attached at once.
    pub max: u16,
    /// Whether bandwidth limits are obeyed.
    pub bandwidth: bool,
}

/// What is around the node.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// The prefixes of services: the kernel's.
    pub services: Vec<IpNet>,
    /// Further prefixes that pods reach by way of the node's kernel.
    pub via_host: Vec<IpNet>,
    /// Destinations that the switch sends out of the uplink itself. No prefix comes twice.
    pub routes: Vec<ViaRow>,
}

/// A destination of the switch's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViaRow {
    /// The prefix, without host bits.
    pub to: IpNet,
    /// Where it leads.
    pub via: Via,
}

/// Where a destination of the switch's own leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Out of the uplink, to the MAC by which Azure answers for every address.
    Fabric,
    /// To a node or router on the uplink, of the prefix's own family.
    Neighbour(IpAddr),
    /// Nowhere.
    Discard,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Via::Fabric => f.pad("fabric"),
            Via::Neighbour(address) => address.fmt(f),
            Via::Discard => f.pad("discard"),
        }
    }
}

/// Where the node's truth comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    /// Whom to ask, first to last; never nobody.
    pub sources: Vec<TruthSource>,
    /// How long one question may take.
    pub timeout: Duration,
    /// How often to ask again once the truth is known and suffices.
    pub refresh: Duration,
}

/// Somebody to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TruthSource {
    /// Azure's interface document at this URL.
    Wireserver(String),
    /// Azure's instance metadata at this URL.
    Metadata(String),
    /// The configuration itself: one prefix, or one of each family.
    PodCidr(Vec<IpNet>),
    /// A CNI configuration or a folder of them.
    Runtime(PathBuf),
    /// A file with the node object.
    NodeObject(PathBuf),
    /// A bridge that holds the gateway's address.
    Bridge(DeviceName),
}

/// What the plan expects of the node.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Expected {
    /// The node's own addresses.
    pub addresses: Vec<IpAddr>,
    /// The prefixes of its subnet.
    pub subnets: Vec<IpNet>,
    /// The prefixes that hold exactly its pods' addresses.
    pub pods: Vec<IpNet>,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What should be looked at, too.
    Warn,
    /// What happened, too.
    Info,
    /// Why, too.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// Its name, as `tracing` reads it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// What the file means. `None` only when the report has gained a fault.
pub(super) fn check(shaped: &Shaped, report: &mut Report) -> Option<NodeConfig> {
    let raw = &shaped.raw;
    let mut check = Check { shaped, report };
    check.required("plugin", raw.plugin.is_some());
    let node = check.node_name(raw.node.as_deref());
    // Without a plugin the rest is still read, for its faults.
    let plugin = match raw.plugin {
        Some(RawPlugin::Kubenet) => Plugin::Kubenet,
        Some(RawPlugin::Azure) | None => Plugin::Azure,
    };
    let config = NodeConfig {
        plugin,
        node: node.unwrap_or_default(),
        uplink: check.uplink(raw),
        host_port: check.host_port(raw, plugin),
        pods: Pods {
            mtu: raw.pods.as_ref().and_then(|pods| pods.mtu),
            max: raw.pods.as_ref().and_then(|pods| pods.max).unwrap_or(250),
            bandwidth: raw.pods.as_ref().and_then(|p| p.bandwidth).unwrap_or(true),
        },
        surroundings: check.surroundings(raw),
        truth: check.truth(raw.truth.as_ref(), plugin),
        expected: raw.plan.as_ref().map(|plan| check.expected(plan)),
        policy: raw.policy.unwrap_or(PolicyMode::Auto),
        guards: check.guards(raw.guards.as_ref()),
        workers: NonZeroU16::new(raw.workers.unwrap_or(1)).unwrap_or(NonZeroU16::MIN),
        cpus: check.cpus(raw),
        spin: Duration::from_micros(raw.spin_us.unwrap_or(50).into()),
        features_off: raw.features_off.iter().flatten().copied().collect(),
        state_dir: check.path("state_dir", raw.state_dir.as_deref(), STATE_DIR),
        socket: check.path("socket", raw.socket.as_deref(), SOCKET_PATH),
        metrics: check.metrics(raw.metrics.as_ref()),
        log: log(raw.log),
    };
    check.devices_differ(&config);
    check.mtus_fit(&config);
    check.socket_fits(&config);
    Some(config)
}

fn log(raw: Option<RawLog>) -> LogLevel {
    match raw {
        Some(RawLog::Error) => LogLevel::Error,
        Some(RawLog::Warn) => LogLevel::Warn,
        Some(RawLog::Info) | None => LogLevel::Info,
        Some(RawLog::Debug) => LogLevel::Debug,
        Some(RawLog::Trace) => LogLevel::Trace,
    }
}

struct Check<'a> {
    shaped: &'a Shaped,
    report: &'a mut Report,
}

impl Check<'_> {
    fn place(&self, path: &str) -> Place {
        self.shaped.place(path)
    }

    fn fault(&mut self, path: &str, message: impl Into<String>) {
        let place = self.place(path);
        self.report.fault(&place, message);
    }

    /// A key that nobody wrote at all: one that was written wrongly is a fault already.
    fn required(&mut self, path: &str, there: bool) {
        if !there && !self.shaped.is_written(path) {
            self.fault(path, "missing: this key is required");
        }
    }

    fn parsed<T: FromStr<Err: fmt::Display>>(
        &mut self,
        path: &str,
        text: Option<&str>,
    ) -> Option<T> {
        match text?.parse() {
            Ok(value) => Some(value),
            Err(reason) => {
                self.fault(path, reason.to_string());
                None
            }
        }
    }

    fn node_name(&mut self, name: Option<&str>) -> Option<String> {
        self.required("node", name.is_some());
        let name = name?;
        let label = |label: &str| {
            let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            !label.is_empty()
                && label.bytes().all(inside)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() > NODE_NAME_MAX || !name.split('.').all(label) {
            let message = format!(
                "'{name}' is no name of a node: small letters, digits, '-' and '.', such as \
                 k8s-agentpool1-37464322-vmss000000"
            );
            self.fault("node", message);
            return None;
        }
        Some(name.to_owned())
    }

    fn device(&mut self, path: &str, text: Option<&str>, default: &str) -> DeviceName {
        let fallback = DeviceName::new(default).expect("our own names are names");
        match text {
            None => fallback,
            Some(_) => self.parsed(path, text).unwrap_or(fallback),
        }
    }

    fn station(&mut self, path: &str, text: Option<&str>) -> Option<Station> {
        let mac: Mac = self.parsed(path, text)?;
        let station = Station::new(mac);
        if station.is_err() {
            self.fault(path, format!("'{mac}' cannot be the MAC of one device"));
        }
        station.ok()
    }

    fn uplink(&mut self, raw: &RawConfig) -> Uplink {
        let raw = raw.uplink.clone().unwrap_or_default();
        Uplink {
            device: self.device("uplink.device", raw.device.as_deref(), "eth0"),
            tap: self.device("uplink.tap", raw.tap.as_deref(), "uplink0"),
            mac: self.station("uplink.mac", raw.mac.as_deref()),
            mtu: raw.mtu,
        }
    }

    fn host_port(&mut self, raw: &RawConfig, plugin: Plugin) -> HostPort {
        let raw = raw.host_port.clone().unwrap_or_default();
        let name = host_device(plugin);
        let mac = match plugin {
            Plugin::Azure => HostMac::Nic,
            Plugin::Kubenet => HostMac::OfGateway,
        };
        let fixed = self.station("host_port.mac", raw.mac.as_deref());
        HostPort {
            device: self.device("host_port.device", raw.device.as_deref(), name),
            mac: fixed.map_or(mac, HostMac::Fixed),
        }
    }

    /// A prefix without host bits.
    fn prefix(&mut self, path: &str, text: &str) -> Option<IpNet> {
        let Ok(net) = text.parse::<IpNet>() else {
            let message = format!("'{text}' is no prefix such as 10.244.0.0/24");
            self.fault(path, message);
            return None;
        };
        if net != net.trunc() {
            let message = format!("'{text}' has host bits; the prefix is {}", net.trunc());
            self.fault(path, message);
            return None;
        }
        Some(net)
    }

    /// Prefixes, none of them twice.
    fn prefixes(&mut self, path: &str, texts: Option<&Vec<String>>) -> Vec<IpNet> {
        let mut found: Vec<IpNet> = Vec::new();
        for (index, text) in texts.into_iter().flatten().enumerate() {
            let path = format!("{path}[{index}]");
            match self.prefix(&path, text) {
                Some(net) if found.contains(&net) => {
                    self.fault(&path, format!("{net} comes twice"))
                }
                Some(net) => found.push(net),
                None => {}
            }
        }
        found
    }

    fn surroundings(&mut self, raw: &RawConfig) -> Surroundings {
        let services = self.prefixes("services", raw.services.as_ref());
        let via_host = self.prefixes("via_host", raw.via_host.as_ref());
        let mut routes: Vec<ViaRow> = Vec::new();
        for (index, raw) in raw.routes.iter().flatten().enumerate() {
            let path = format!("routes[{index}]");
            let Some(row) = self.route(&path, raw) else {
                continue;
            };
            if routes.iter().any(|other| other.to == row.to) {
                self.fault(&format!("{path}.to"), format!("{} comes twice", row.to));
            } else if let Some(net) = services.iter().find(|net| net.contains(&row.to)) {
                // What the kernel translates must not leave untranslated.
                let message = format!("{} lies in the services' {net}", row.to);
                self.fault(&format!("{path}.to"), message);
            }
            routes.push(row);
        }
        if routes.len() > ROUTES_MAX {
            let message = format!(
                "{} routes, of which {ROUTES_MAX} are possible",
                routes.len()
            );
            self.fault("routes", message);
        }
        Surroundings {
            services,
            via_host,
            routes,
        }
    }

    fn route(&mut self, path: &str, raw: &RawRoute) -> Option<ViaRow> {
        let (to_path, via_path) = (format!("{path}.to"), format!("{path}.via"));
        self.required(&to_path, raw.to.is_some());
        self.required(&via_path, raw.via.is_some());
        let to = raw.to.as_deref().and_then(|to| self.prefix(&to_path, to));
        let via = match raw.via.as_deref()? {
            "fabric" => Via::Fabric,
            "discard" => Via::Discard,
            text => match text.parse() {
                Ok(address) => Via::Neighbour(address),
                Err(_) => {
                    let message =
                        format!("'{text}' is neither \"fabric\", \"discard\" nor an address");
                    self.fault(&via_path, message);
                    return None;
                }
            },
        };
        let row = ViaRow { to: to?, via };
        if let Via::Neighbour(address) = via
            && address.is_ipv4() != row.to.addr().is_ipv4()
        {
            let message = format!("{address} is not of the family of {}", row.to);
            self.fault(&via_path, message);
        }
        Some(row)
    }

    fn truth(&mut self, raw: Option<&RawTruth>, plugin: Plugin) -> Truth {
        let raw = raw.cloned().unwrap_or_default();
        let chosen = self.chosen_sources(&raw, plugin);
        let sources = chosen.into_iter().filter_map(|s| self.source(&raw, s));
        let truth = Truth {
            sources: sources.collect(),
            timeout: Duration::from_millis(raw.timeout_ms.unwrap_or(2000).into()),
            refresh: Duration::from_secs(raw.refresh_s.unwrap_or(300).into()),
        };
        if raw.sources.as_ref().is_some_and(Vec::is_empty) {
            self.fault("truth.sources", "nobody to ask: no pod could be attached");
        }
        truth
    }

    fn chosen_sources(&mut self, raw: &RawTruth, plugin: Plugin) -> Vec<RawSource> {
        use RawSource::{Bridge, Metadata, NodeObject, PodCidr, Runtime, Wireserver};
        let of_azure = [Wireserver, Metadata];
        let Some(chosen) = &raw.sources else {
            return match plugin {
                Plugin::Azure => of_azure.to_vec(),
                Plugin::Kubenet => {
                    let given = |source, there: bool| there.then_some(source);
                    let all = [
                        given(PodCidr, raw.pod_cidr.is_some()),
                        Some(Runtime),
                        given(NodeObject, raw.node_object.is_some()),
                        Some(Bridge),
                    ];
                    all.into_iter().flatten().collect()
                }
            };
        };
        for (index, source) in chosen.iter().enumerate() {
            let path = format!("truth.sources[{index}]");
            if of_azure.contains(source) != (plugin == Plugin::Azure) {
                self.fault(&path, format!("knows nothing of pods under {plugin}"));
            }
            if chosen[..index].contains(source) {
                self.fault(&path, "comes twice");
            }
        }
        chosen.clone()
    }

    fn source(&mut self, raw: &RawTruth, source: RawSource) -> Option<TruthSource> {
        match source {
            RawSource::Wireserver => {
                let url = raw.wireserver.as_deref();
                let url = self.url("truth.wireserver", url, crate::node::WIRESERVER_URL)?;
                Some(TruthSource::Wireserver(url))
            }
            RawSource::Metadata => {
                let url = raw.metadata.as_deref();
                let url = self.url("truth.metadata", url, crate::node::METADATA_URL)?;
                Some(TruthSource::Metadata(url))
            }
            RawSource::PodCidr => {
                self.required("truth.pod_cidr", raw.pod_cidr.is_some());
                let nets = self.prefixes("truth.pod_cidr", raw.pod_cidr.as_ref());
                self.one_of_each_family("truth.pod_cidr", nets.iter().map(IpNet::addr));
                Some(TruthSource::PodCidr(nets))
            }
            RawSource::Runtime => {
                let path = self.path("truth.runtime", raw.runtime.as_deref(), "/etc/cni/net.d");
                Some(TruthSource::Runtime(path))
            }
            RawSource::NodeObject => {
                self.required("truth.node_object", raw.node_object.is_some());
                let path = self.path("truth.node_object", raw.node_object.as_deref(), "/");
                Some(TruthSource::NodeObject(path))
            }
            RawSource::Bridge => {
                let device = self.device("truth.bridge", raw.bridge.as_deref(), "cbr0");
                Some(TruthSource::Bridge(device))
            }
        }
    }

    fn one_of_each_family(&mut self, path: &str, addresses: impl Iterator<Item = IpAddr>) {
        let mut count = [0, 0];
        for address in addresses {
            count[usize::from(address.is_ipv6())] += 1;
        }
        if count.iter().any(|count| *count > 1) {
            self.fault(path, "at most one of each family");
        }
    }

    fn url(&mut self, path: &str, text: Option<&str>, default: &str) -> Option<String> {
        let text = text.unwrap_or(default);
        if let Err(reason) = crate::node::check_url(text) {
            self.fault(path, format!("'{text}' {reason}"));
            return None;
        }
        Some(text.to_owned())
    }

    fn expected(&mut self, raw: &RawPlan) -> Expected {
        let mut addresses = Vec::new();
        for (index, text) in raw.addresses.iter().flatten().enumerate() {
            let path = format!("plan.addresses[{index}]");
            match text.parse() {
                Ok(address) => addresses.push(address),
                Err(_) => self.fault(&path, format!("'{text}' is no address")),
            }
        }
        self.one_of_each_family("plan.addresses", addresses.iter().copied());
        Expected {
            addresses,
            subnets: self.prefixes("plan.subnets", raw.subnets.as_ref()),
            pods: self.prefixes("plan.pods", raw.pods.as_ref()),
        }
    }

    fn path(&mut self, path: &str, text: Option<&str>, default: &str) -> PathBuf {
        let text = text.unwrap_or(default);
        if !text.starts_with('/') || text.contains('\0') {
            self.fault(path, format!("'{text}' is not an absolute path"));
        }
        PathBuf::from(text)
    }

    fn metrics(&mut self, raw: Option<&RawMetrics>) -> Option<SocketAddr> {
        let raw = raw?;
        self.required("metrics.listen", raw.listen.is_some());
        let text = raw.listen.as_deref()?;
        let Ok(address) = text.parse::<SocketAddr>() else {
            let message = format!("'{text}' is no address and port such as 127.0.0.1:9469");
            self.fault("metrics.listen", message);
            return None;
        };
        Some(address)
    }

    fn cpus(&mut self, raw: &RawConfig) -> Vec<Cpu> {
        let mut cpus = Vec::new();
        for (index, number) in raw.cpus.iter().flatten().enumerate() {
            let path = format!("cpus[{index}]");
            match Cpu::new(*number) {
                Some(cpu) if cpus.contains(&cpu) => self.fault(&path, "comes twice"),
                Some(cpu) => cpus.push(cpu),
                None => {
                    let message = format!("expected a whole number below {}", Cpu::COUNT_MAX);
                    self.fault(&path, message);
                }
            }
        }
        // A number of workers that was refused is a fault already, and no measure.
        let refused = raw.workers.is_none() && self.shaped.is_written("workers");
        let (named, workers) = (raw.cpus.iter().flatten().count(), raw.workers.unwrap_or(1));
        if named != 0 && named != usize::from(workers) && !refused {
            let message = format!("names {named}, and there are {workers} workers: one for each");
            self.fault("cpus", message);
        }
        cpus
    }

    fn guards(&mut self, raw: Option<&RawGuards>) -> Guards {
        let raw = raw.cloned().unwrap_or_default();
        let usual = Guards::default();
        let of = |chosen: Option<Guard>| match chosen {
            Some(Guard::On) | None => Mode::Enforce,
            Some(Guard::Observe) => Mode::Observe,
            Some(Guard::Off) => Mode::Off,
        };
        let rate = |chosen: Option<u32>, usual| chosen.map_or(usual, Rate::per_second);
        let mut more: Vec<More> = Vec::new();
        for (index, raw) in raw.more.iter().flatten().enumerate() {
            let path = format!("guards.more[{index}]");
            let Some(one) = self.more(&path, raw) else {
                continue;
            };
            if more.iter().any(|other| other.pod == one.pod) {
                self.fault(&format!("{path}.pod"), format!("{} comes twice", one.pod));
            }
            more.push(one);
        }
        Guards {
            spoof: of(raw.spoof),
            routers: of(raw.routers),
            loops: of(raw.loops),
            flaps: of(raw.flaps),
            storms: of(raw.storm),
            quota: of(raw.quota),
            learned_max: raw.stations_max.unwrap_or(usual.learned_max),
            rates: Rates {
                broadcast: rate(raw.broadcasts_max, usual.rates.broadcast),
                multicast: rate(raw.multicasts_max, usual.rates.multicast),
                unknown: rate(raw.unknown_max, usual.rates.unknown),
            },
            more,
        }
    }

    fn more(&mut self, path: &str, raw: &RawMore) -> Option<More> {
        self.required(&format!("{path}.pod"), raw.pod.is_some());
        let mut stations: Vec<Station> = Vec::new();
        for (index, text) in raw.macs.iter().flatten().enumerate() {
            let path = format!("{path}.macs[{index}]");
            stations.extend(self.station(&path, Some(text)));
        }
        let addresses = self.prefixes(&format!("{path}.addresses"), raw.addresses.as_ref());
        for (key, count) in [("macs", stations.len()), ("addresses", addresses.len())] {
            if count > MORE_MAX {
                let message = format!("{count}, of which a port has {MORE_MAX} at most");
                self.fault(&format!("{path}.{key}"), message);
            }
        }
        Some(More {
            pod: raw.pod.clone()?,
            stations,
            addresses,
        })
    }

    fn devices_differ(&mut self, config: &NodeConfig) {
        let (uplink, host) = (&config.uplink, &config.host_port.device);
        let message = |name| format!("{name} is named for another purpose as well");
        if uplink.tap == uplink.device {
            self.fault("uplink.tap", message(&uplink.tap));
        }
        if *host == uplink.device || *host == uplink.tap {
            self.fault("host_port.device", message(host));
        }
    }

    fn mtus_fit(&mut self, config: &NodeConfig) {
        if let (Some(pods), Some(uplink)) = (config.pods.mtu, config.uplink.mtu)
            && pods > uplink
        {
            let message = format!("{pods} is more than the uplink's {uplink}");
            self.fault("pods.mtu", message);
        }
    }

    fn socket_fits(&mut self, config: &NodeConfig) {
        let length = config.socket.as_os_str().len();
        if length > SOCKET_PATH_MAX {
            let message = format!("{length} bytes, of which a socket's path has {SOCKET_PATH_MAX}");
            self.fault("socket", message);
        }
    }
}
