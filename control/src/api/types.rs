//! The words of the control socket: what is asked, and what is answered.
//!
//! In: nothing. Out: types that serde reads and writes, shared by daemon, command line and plugin.
//! Never: checks: what a request means is the daemon's affair.
//!
//! A field that one side does not know is ignored, so that neighbours in version understand each
//! other; what an old daemon must not ignore raises [`API_MAX`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use dataplane::addr::Mac;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The oldest version of this interface that is spoken.
pub const API_MIN: u32 = 1;
/// The newest.
pub const API_MAX: u32 = 1;
/// The header in which a client says the version that it speaks.
pub const API_HEADER: &str = "tapline-api";
/// Where the socket is unless the configuration says otherwise.
pub const SOCKET_DEFAULT: &str = "/run/tapline/tapline.sock";

/// What `GET /v1/version` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionReply {
    /// Of the program.
    pub version: String,
    /// Of the interface.
    pub api: ApiRange,
}

/// Versions of the interface, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiRange {
    /// The oldest spoken.
    pub min: u32,
    /// The newest spoken.
    pub max: u32,
}

impl VersionReply {
    /// What this program says of itself.
    #[must_use]
    pub fn own() -> VersionReply {
        VersionReply {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api: ApiRange {
                min: API_MIN,
                max: API_MAX,
            },
        }
    }
}

/// `POST /v1/upgrade`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeRequest {
    /// The program to go on with; the one that runs, as it is on disk now, without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeReply {
    /// The version that served.
    pub from: String,
    /// The version that serves.
    pub to: String,
    /// The process that serves.
    pub pid: u32,
    /// How long no worker read, in microseconds; what was sent meanwhile waited.
    pub gap_us: u64,
    /// What was done.
    pub steps: Vec<String>,
}

/// A pod's name in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which attachment is meant: one interface of one container in one network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The network's name, from the CNI configuration.
    pub network: String,
    /// The container's (sandbox's) id.
    pub container_id: String,
    /// The interface in it.
    pub ifname: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} in {}",
            self.ifname, self.container_id, self.network
        )
    }
}

/// An address that a delegated IPAM plugin has assigned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedIp {
    /// The address and the length of its link's prefix.
    pub address: IpNet,
    /// The gateway on that link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// A route in the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// What it is for.
    pub dst: IpNet,
    /// Its next hop; the gateway of its family without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

/// Limits of a pod's port, as the runtime gives them: rates in bits a second, bursts in bits. Zero
/// is no limit. Ingress is to the pod, egress from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bandwidth {
    /// To the pod.
    pub ingress_rate: u64,
    /// What may come at once.
    pub ingress_burst: u64,
    /// From the pod.
    pub egress_rate: u64,
    /// What may go at once.
    pub egress_burst: u64,
}

/// ADD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddRequest {
    /// Which attachment is wanted.
    #[serde(flatten)]
    pub key: Key,
    /// The container's network namespace.
    pub netns: PathBuf,
    /// The pod's name, where the runtime told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// The MTU wanted; the uplink's without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The hardware address wanted.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "mac_option")]
    pub mac: Option<Mac>,
    /// May the pod reach itself through the switch?
    #[serde(default)]
    pub hairpin: bool,
    /// Is it kept from other isolated ports of the node?
    #[serde(default)]
    pub isolated: bool,
    /// Are its frames checked for its own source address? As the switch has it without a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_spoof_check: Option<bool>,
    /// Addresses wanted of the built-in IPAM.
    #[serde(default)]
    pub requested: Vec<IpAddr>,
    /// Addresses that a delegated IPAM plugin assigned; none for the built-in IPAM.
    #[serde(default)]
    pub assigned: Vec<AssignedIp>,
    /// Does the pod get a default route?
    #[serde(default = "yes")]
    pub default_route: bool,
    /// More routes for it.
    #[serde(default)]
    pub routes: Vec<RouteSpec>,
    /// Is the node the pods' gateway, with its address on the host port?
    #[serde(default)]
    pub is_gateway: bool,
    /// Does the node masquerade what leaves the pods' network?
    #[serde(default)]
    pub ip_masq: bool,
    /// May another address of the gateway's family be replaced on the host port?
    #[serde(default)]
    pub force_address: bool,
    /// Limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
}

/// An interface that an ADD made or uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    #[serde(with = "mac")]
    pub mac: Mac,
    /// Its MTU.
    pub mtu: u32,
    /// The path of its namespace; none for the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<PathBuf>,
}

/// An address that the pod has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodAddress {
    /// The address and the length of its link's prefix.
    pub address: IpNet,
    /// The gateway on that link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Where it is, among the interfaces of the answer.
    pub interface: usize,
}

/// What an ADD made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddReply {
    /// The host port, the host's end, the pod's end.
    pub interfaces: Vec<Interface>,
    /// The pod's addresses.
    pub ips: Vec<PodAddress>,
    /// The pod's routes.
    pub routes: Vec<RouteSpec>,
}

/// DEL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelRequest {
    /// Which attachment is meant.
    #[serde(flatten)]
    pub key: Key,
    /// The container's namespace, if that is still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
}

/// What a DEL or a GC took away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The attachments that are gone.
    pub removed: Vec<Key>,
}

/// CHECK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRequest {
    /// Which attachment is meant.
    #[serde(flatten)]
    pub key: Key,
    /// The container's namespace.
    pub netns: PathBuf,
    /// The interfaces that ADD reported, if they are to be compared.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    /// The pod's addresses as ADD reported them.
    #[serde(default)]
    pub ips: Vec<PodAddress>,
    /// Its routes as ADD reported them.
    #[serde(default)]
    pub routes: Vec<RouteSpec>,
}

/// Adopt the bridge beside which the daemon runs, or give the pods back to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HandoverRequest {
    /// The bridge meant; refused if it is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Only tell the steps.
    pub dry_run: bool,
    /// An adoption goes back by itself after so many seconds, unless it is confirmed. Zero: at once
    /// for good.
    pub confirm_within_seconds: u64,
    /// Where `host-local` keeps its networks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<PathBuf>,
    /// `azure-vnet.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azure_endpoints: Option<PathBuf>,
    /// `azure-vnet-ipam.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azure_addresses: Option<PathBuf>,
    /// Where else the pods' namespaces may be, beside `/run/netns` and `/proc`.
    pub namespaces: Vec<PathBuf>,
}

/// The steps of a handover, done or to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverReply {
    /// Each in words, in order.
    pub steps: Vec<String>,
    /// They have been done.
    pub done: bool,
    /// When they are undone unless confirmed, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_by: Option<u64>,
}

/// An attachment that the runtime still has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Valid {
    /// The container's id.
    pub container_id: String,
    /// The interface in it.
    pub ifname: String,
}

/// GC: all attachments of the network but these are to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcRequest {
    /// The network's name.
    pub network: String,
    /// What stays.
    pub valid: Vec<Valid>,
}

/// What `GET /v1/status` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusReply {
    /// An ADD would be served.
    pub ready: bool,
    /// What stands in the way, or does not work; its code is what STATUS of CNI answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
    /// The node's name, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `azure` or `kubenet`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// How many pods are attached.
    pub attachments: usize,
    /// How full the pool of addresses is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<AddressFill>,
    /// For how long it has served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving_seconds: Option<u64>,
}

/// How full a pool is: of the family that has least left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressFill {
    /// Addresses that may be given to pods.
    pub total: u64,
    /// Those that are held.
    pub held: u64,
    /// Those released a moment ago.
    pub resting: u64,
    /// Those that could be given now.
    pub free: u64,
}

/// What a client did not get, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What sort of error it is, for programs.
    pub kind: ErrorKind,
    /// What went wrong, for people.
    pub message: String,
    /// CNI's number for it (SPEC.md, "Error"); 100 and up are our own.
    pub code: u32,
    /// Faults with their places, where a document was at fault.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

impl ApiError {
    /// An error of that kind.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> ApiError {
        ApiError {
            kind,
            message: message.into(),
            code: kind.code(),
            details: BTreeMap::new(),
        }
    }
}

/// The document of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// The error.
    pub error: ApiError,
}

/// The sorts of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The client speaks a version of the interface that the daemon does not.
    Version,
    /// The request is no HTTP, no JSON, or lacks something.
    BadRequest,
    /// Something in it cannot be: an address outside the range, a name that is no name.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// The path is known, and not for this method.
    BadMethod,
    /// The client's user may not ask.
    Forbidden,
    /// The request is larger than any that is needed.
    TooLarge,
    /// The request did not come in time.
    Slow,
    /// The namespace is not there, or not to be entered.
    Netns,
    /// There is such an attachment or interface already.
    Exists,
    /// All addresses are in use.
    Exhausted,
    /// The address wanted is in use.
    AddressTaken,
    /// No other daemon took this one's place, and this one goes on.
    Upgrade,
    /// Another daemon has taken this one's place and is asked instead: no client ever sees this.
    Moved,
    /// The daemon does not serve yet: it lacks the node's truth, or the uplink.
    NotReady,
    /// The kernel refused a device, address, route or filter.
    Device,
    /// The state could not be written.
    State,
    /// What is there differs from what should be.
    Differs,
    /// A new configuration was refused, and the old one stays.
    Config,
    /// Something that should not happen.
    Internal,
}

impl ErrorKind {
    /// CNI's number (SPEC.md, "Error"); from 100 on our own.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            ErrorKind::Version => 1,
            ErrorKind::NotFound => 3,
            ErrorKind::Device | ErrorKind::State => 5,
            ErrorKind::BadRequest => 6,
            ErrorKind::Invalid | ErrorKind::Config => 7,
            ErrorKind::Netns => 8,
            ErrorKind::Slow => 11,
            ErrorKind::NotReady | ErrorKind::Moved => 50,
            ErrorKind::Exhausted => 51,
            ErrorKind::Exists => 100,
            ErrorKind::AddressTaken => 101,
            ErrorKind::Differs => 102,
            ErrorKind::Forbidden => 103,
            ErrorKind::TooLarge => 104,
            ErrorKind::BadMethod => 105,
            ErrorKind::Upgrade => 106,
            ErrorKind::Internal => 999,
        }
    }

    /// HTTP's number.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            ErrorKind::Version
            | ErrorKind::BadRequest
            | ErrorKind::Invalid
            | ErrorKind::Netns
            | ErrorKind::Config => 400,
            ErrorKind::Forbidden => 403,
            ErrorKind::NotFound => 404,
            ErrorKind::BadMethod => 405,
            ErrorKind::Slow => 408,
            ErrorKind::Exists
            | ErrorKind::AddressTaken
            | ErrorKind::Differs
            | ErrorKind::Upgrade => 409,
            ErrorKind::TooLarge => 413,
            ErrorKind::Device | ErrorKind::State | ErrorKind::Internal => 500,
            ErrorKind::NotReady | ErrorKind::Moved | ErrorKind::Exhausted => 503,
        }
    }
}

fn yes() -> bool {
    true
}

/// A hardware address as text.
pub mod mac {
    use dataplane::addr::Mac;
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Writes it.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(mac: &Mac, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    /// Reads it.
    ///
    /// # Errors
    /// Text that is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mac, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|_| de::Error::custom(format!("'{text}' is no MAC address")))
    }
}

/// A hardware address as text, or nothing.
pub mod mac_option {
    use dataplane::addr::Mac;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes it.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(mac: &Option<Mac>, serializer: S) -> Result<S::Ok, S::Error> {
        mac.map(|mac| mac.to_string()).serialize(serializer)
    }

    /// Reads it.
    ///
    /// # Errors
    /// Text that is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Mac>, D::Error> {
        #[derive(Deserialize)]
        struct Text(#[serde(with = "super::mac")] Mac);
        Ok(Option::<Text>::deserialize(deserializer)?.map(|Text(mac)| mac))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_least_that_an_add_needs_is_four_words() {
        let text = r#"{"container_id": "c1", "ifname": "eth0", "netns": "/run/netns/a",
            "network": "kubenet", "of the next version": 1}"#;
        let request: AddRequest = serde_json::from_str(text).unwrap();
        assert!(request.default_route && !request.hairpin && request.mac.is_none());
        assert_eq!(request.key.to_string(), "eth0 of c1 in kubenet");
        let again: AddRequest =
            serde_json::from_str(&serde_json::to_string(&request).unwrap()).unwrap();
        assert_eq!(request, again);
    }

    #[test]
    fn a_mac_is_text_and_other_text_is_refused() {
        let with = |mac: &str| {
            let text = format!(
                r#"{{"container_id": "c", "ifname": "e", "netns": "/n", "network": "n", "mac": {mac}}}"#
            );
            serde_json::from_str::<AddRequest>(&text)
        };
        let mac = with("\"0a:58:0a:f4:00:02\"").unwrap().mac;
        assert_eq!(mac, Some(Mac::new([0x0a, 0x58, 0x0a, 0xf4, 0, 2])));
        assert_eq!(with("null").unwrap().mac, None);
        let refused = with("\"0a:58\"").unwrap_err().to_string();
        assert!(
            refused.starts_with("'0a:58' is no MAC address"),
            "{refused}"
        );
    }

    #[test]
    fn an_error_reads_as_cni_wants_it() {
        let error = ApiError::new(ErrorKind::Exhausted, "no address is free");
        let text = serde_json::to_string(&ErrorReply { error }).unwrap();
        assert_eq!(
            text,
            r#"{"error":{"kind":"exhausted","message":"no address is free","code":51}}"#
        );
    }
}
