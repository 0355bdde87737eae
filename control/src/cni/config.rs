//! The network configuration that a runtime hands over on standard input.
//!
//! In: JSON, in the shape of the reference `bridge` plugin, of azure's or of our own.
//! Out: [`Conf`], which every command needs, and [`Wanted`], which only an ADD does.
//! Never: lets a setting that makes an ADD impossible stand in the way of a DEL.
//!
//! A configuration of `bridge` works with only its `type` changed. What it asks for and Tapline
//! does not do is refused by name, all of it at once; keys that nobody here knows are passed over,
//! as every plugin passes them over.

use std::net::IpAddr;
use std::path::PathBuf;

use dataplane::addr::Mac;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::args::{self, Args};
use super::environment::is_plain;
use super::error::{CniError, Code};
use super::refuse::{self, Faults};
use super::result::{CniResult, Dns, Route};
use super::version::Version;
use crate::api::types::{Bandwidth, SOCKET_DEFAULT, Valid};
use crate::devices::attach::Limit;

/// The name of the built-in IPAM in `ipam.type`.
const BUILT_IN: &str = "tapline";

/// Who assigns addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ipam {
    /// The daemon.
    BuiltIn,
    /// The plugin of that name.
    Delegated(String),
}

/// What every command needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Conf {
    /// The version to speak.
    pub version: Version,
    /// The network's name.
    pub name: String,
    /// Where the daemon listens.
    pub socket: PathBuf,
    /// Who assigns addresses.
    pub ipam: Ipam,
    document: Map<String, Value>,
}

/// What an ADD is to make.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The host port that the network must have, where it says.
    pub bridge: Option<String>,
    /// The node is the gateway.
    pub is_gateway: bool,
    /// The pod's default route leads to the gateway; undecided where the configuration says
    /// nothing.
    pub is_default_gateway: Option<bool>,
    /// The host port's address may be replaced.
    pub force_address: bool,
    /// The node masquerades.
    pub ip_masq: bool,
    /// The pod may reach itself.
    pub hairpin: bool,
    /// It is kept from other isolated pods.
    pub isolated: bool,
    /// Its source address is checked.
    pub mac_spoof_check: Option<bool>,
    /// Its MTU.
    pub mtu: Option<u32>,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Its addresses, of the built-in IPAM.
    pub ips: Vec<IpAddr>,
    /// Its limits.
    pub bandwidth: Option<Bandwidth>,
    /// Its routes, of the built-in IPAM; a default route where the configuration says nothing.
    pub routes: Option<Vec<Route>>,
    /// Resolvers.
    pub dns: Dns,
}

/// The keys of `bridge` and our own. Those that are only refused are in [`refuse`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    bridge: Option<String>,
    is_gateway: Option<bool>,
    is_default_gateway: Option<bool>,
    force_address: Option<bool>,
    ip_masq: Option<bool>,
    ip_masq_backend: Option<String>,
    mtu: Option<i64>,
    hairpin_mode: Option<bool>,
    promisc_mode: Option<bool>,
    port_isolation: Option<bool>,
    macspoofchk: Option<bool>,
    dns: Option<Dns>,
    ipam: Option<RawIpam>,
    runtime_config: Option<RawRuntime>,
    args: Option<RawArgs>,
}

#[derive(Deserialize)]
struct RawIpam {
    routes: Option<Vec<Route>>,
}

#[derive(Default, Deserialize)]
struct RawRuntime {
    mac: Option<String>,
    ips: Option<Vec<String>>,
    bandwidth: Option<RawBandwidth>,
    dns: Option<RawDns>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct RawBandwidth {
    ingress_rate: u64,
    ingress_burst: u64,
    egress_rate: u64,
    egress_burst: u64,
}

/// The capability `dns` has words of its own.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct RawDns {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

#[derive(Deserialize)]
struct RawArgs {
    cni: Option<RawCniArgs>,
}

#[derive(Default, Deserialize)]
struct RawCniArgs {
    mac: Option<String>,
    ips: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct RawValid {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

impl Conf {
    /// Reads what every command needs.
    ///
    /// # Errors
    /// [`Code::Decoding`], [`Code::IncompatibleVersion`] or [`Code::InvalidConfig`].
    pub fn parse(text: &[u8]) -> Result<Conf, CniError> {
        let document: Map<String, Value> = serde_json::from_slice(text).map_err(decoding)?;
        let version = Version::parse(string(&document, "cniVersion")?)?;
        let name = string(&document, "name")?.unwrap_or_default();
        if name.is_empty() {
            return Err(invalid("missing network name"));
        }
        if !is_plain(name) {
            return Err(invalid("invalid characters in network name").with_details(name));
        }
        let socket = string(&document, "socket")?.unwrap_or(SOCKET_DEFAULT);
        if !socket.starts_with('/') {
            return Err(invalid("socket is not an absolute path").with_details(socket));
        }
        Ok(Conf {
            version,
            name: name.to_owned(),
            socket: socket.into(),
            ipam: ipam(&document)?,
            document,
        })
    }

    /// The version of a configuration in which nothing else needs to make sense.
    #[must_use]
    pub fn version_of(text: &[u8]) -> Version {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Only {
            cni_version: Option<String>,
        }
        let only = serde_json::from_slice(text).unwrap_or(Only { cni_version: None });
        match only.cni_version.as_deref() {
            // An error has to be of some version: of one that is known, the newest.
            None => Version::NEWEST,
            named => Version::parse(named).unwrap_or(Version::NEWEST),
        }
    }

    /// Reads what an ADD is to make.
    ///
    /// # Errors
    /// [`Code::Decoding`]; else [`Code::UnsupportedField`] with all that is not done here; else
    /// [`Code::InvalidConfig`] with all that cannot be.
    pub fn wanted(&self, env: &Args) -> Result<Wanted, CniError> {
        let whole = Value::Object(self.document.clone());
        let raw = Raw::deserialize(&whole).map_err(decoding)?;
        refuse::unsupported(&self.document, &self.ipam)?;
        let mut faults = Faults::default();
        let wanted = self.check(raw, env, &mut faults);
        faults.verdict(Code::InvalidConfig, "invalid network config")?;
        Ok(wanted)
    }

    /// The result of the plugins before this one, if there is any.
    ///
    /// # Errors
    /// [`Code::Decoding`] or [`Code::IncompatibleVersion`].
    pub fn previous(&self) -> Result<Option<CniResult>, CniError> {
        match self.document.get("prevResult") {
            None | Some(Value::Null) => Ok(None),
            Some(document) => CniResult::parse(document, self.version)
                .map(Some)
                .map_err(|error| error.during("prevResult")),
        }
    }

    /// Which attachments a GC is to leave.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`] if the list is not there: an empty one is something else.
    pub fn valid(&self) -> Result<Vec<Valid>, CniError> {
        const KEY: &str = "cni.dev/valid-attachments";
        let list = match self.document.get(KEY) {
            None | Some(Value::Null) => return Err(invalid(format!("missing {KEY}"))),
            Some(list) => Vec::<RawValid>::deserialize(list),
        };
        let list = list.map_err(|why| decoding(why).during(KEY))?;
        Ok(list
            .into_iter()
            .map(|valid| Valid {
                container_id: valid.container_id,
                ifname: valid.ifname,
            })
            .collect())
    }

    fn check(&self, raw: Raw, env: &Args, faults: &mut Faults) -> Wanted {
        let yes = |key: Option<bool>| key.unwrap_or(false);
        let (hairpin, promiscuous) = (yes(raw.hairpin_mode), yes(raw.promisc_mode));
        if hairpin && promiscuous {
            let why = "cannot set hairpin mode and promiscuous mode at the same time";
            faults.add("hairpinMode", why);
        }
        let backend = raw.ip_masq_backend.as_deref().unwrap_or_default();
        if !["", "auto", "iptables", "nftables"].contains(&backend) {
            faults.add("ipMasqBackend", format!("unknown backend {backend:?}"));
        }
        let runtime = raw.runtime_config.unwrap_or_default();
        let named = raw.args.and_then(|args| args.cni).unwrap_or_default();
        let ips = match (runtime.ips, named.ips) {
            (Some(ips), _) => addresses(&ips, "runtimeConfig.ips", faults),
            (None, Some(ips)) => addresses(&ips, "args.cni.ips", faults),
            (None, None) => env.ip.into_iter().collect(),
        };
        // Later ones win: the environment, then `args`, then the runtime.
        let mut mac = env.mac;
        for (key, text) in [
            ("args.cni.mac", named.mac),
            ("runtimeConfig.mac", runtime.mac),
        ] {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                mac = faults.take(key, args::mac(&text)).or(mac);
            }
        }
        let dns = runtime.dns.map(|dns| Dns {
            nameservers: dns.servers,
            search: dns.searches,
            options: dns.options,
            domain: String::new(),
        });
        Wanted {
            bridge: raw.bridge.filter(|bridge| !bridge.is_empty()),
            is_gateway: yes(raw.is_gateway) || yes(raw.is_default_gateway),
            is_default_gateway: raw.is_default_gateway,
            force_address: yes(raw.force_address),
            ip_masq: yes(raw.ip_masq),
            hairpin: hairpin || promiscuous,
            isolated: yes(raw.port_isolation),
            mac_spoof_check: raw.macspoofchk,
            mtu: mtu(raw.mtu, faults),
            mac,
            ips,
            bandwidth: runtime.bandwidth.and_then(|b| bandwidth(&b, faults)),
            routes: raw.ipam.and_then(|ipam| ipam.routes),
            dns: dns.or(raw.dns).unwrap_or_default(),
        }
    }
}

fn ipam(document: &Map<String, Value>) -> Result<Ipam, CniError> {
    let section = match document.get("ipam") {
        None | Some(Value::Null) => return Ok(Ipam::BuiltIn),
        Some(section) => section.as_object(),
    };
    let section = section.ok_or_else(|| wrong("ipam", "an object"))?;
    match string(section, "type").map_err(|e| e.during("ipam"))? {
        None | Some("" | BUILT_IN) => Ok(Ipam::BuiltIn),
        Some(name) if is_plain(name) => Ok(Ipam::Delegated(name.to_owned())),
        Some(name) => Err(invalid("ipam.type is no name of a plugin").with_details(name)),
    }
}

fn addresses(texts: &[String], key: &str, faults: &mut Faults) -> Vec<IpAddr> {
    let read = |text: &String| faults.take(key, args::ip(text));
    texts.iter().filter_map(read).collect()
}

/// Zero is the uplink's, as in `bridge` it is the kernel's.
fn mtu(wanted: Option<i64>, faults: &mut Faults) -> Option<u32> {
    match wanted.unwrap_or_default() {
        0 => None,
        mtu @ 68..=65_535 => u32::try_from(mtu).ok(),
        mtu => {
            faults.add("mtu", format!("{mtu} is not between 68 and 65535"));
            None
        }
    }
}

fn bandwidth(raw: &RawBandwidth, faults: &mut Faults) -> Option<Bandwidth> {
    let directions = [
        ("ingress", raw.ingress_rate, raw.ingress_burst),
        ("egress", raw.egress_rate, raw.egress_burst),
    ];
    for (direction, rate, burst) in directions {
        if let Err(bad) = Limit::new(rate, burst) {
            let key = format!("runtimeConfig.bandwidth.{direction}Rate");
            faults.add(&key, bad.to_string());
        }
    }
    let limited = raw.ingress_rate > 0 || raw.egress_rate > 0;
    limited.then_some(Bandwidth {
        ingress_rate: raw.ingress_rate,
        ingress_burst: raw.ingress_burst,
        egress_rate: raw.egress_rate,
        egress_burst: raw.egress_burst,
    })
}

fn string<'a>(section: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, CniError> {
    match section.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(key, "text")),
    }
}

fn wrong(key: &str, what: &str) -> CniError {
    let why = format!("error unmarshalling network config: {key} is not {what}");
    CniError::new(Code::Decoding, why)
}

fn decoding(why: serde_json::Error) -> CniError {
    let why = format!("error unmarshalling network config: {why}");
    CniError::new(Code::Decoding, why)
}

fn invalid(why: impl Into<String>) -> CniError {
    CniError::new(Code::InvalidConfig, why)
}
