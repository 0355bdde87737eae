//! The configuration as it is typed. Its doc comments become the descriptions in the JSON schema,
//! and the comments in the files that `tapline config` writes.
//!
//! In: nothing. Out: types that serde reads and writes. Never: judges a value: texts stay texts
//! until `checked` has read them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::node::features::Feature;

/// Configuration of Tapline on one node. Comments and trailing commas are allowed. A key that is
/// left out has the default that its description names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Tapline", title = "Tapline's configuration of a node")]
pub(crate) struct RawConfig {
    /// Required. How pods get their addresses: from the node's NIC (azure) or from the node's pod
    /// CIDR (kubenet).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plugin: Option<RawPlugin>,
    /// Required. The node's name in Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    /// The device that leads to the network. It stays the kernel's, with all its addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uplink: Option<RawUplink>,
    /// The device by which the node's own kernel talks to the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host_port: Option<RawHostPort>,
    /// What holds for every pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pods: Option<RawPods>,
    /// The prefixes of Kubernetes services: the kernel's, which translates them. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) services: Option<Vec<String>>,
    /// Further prefixes that pods reach by way of the node's kernel. 168.63.129.16/32 and
    /// 169.254.0.0/16 always go there. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) via_host: Option<Vec<String>>,
    /// Destinations that the switch sends out of the uplink itself: the VNet's prefixes under
    /// azure, other nodes' pod CIDRs under kubenet. Everything else goes to the node's kernel.
    /// Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) routes: Option<Vec<RawRoute>>,
    /// Where the node's truth comes from: which addresses its pods may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) truth: Option<RawTruth>,
    /// What the plan expects of this node. It is compared with the truth and never acted upon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plan: Option<RawPlan>,
    /// Network policy. "auto": pods' frames go through the node's kernel wherever an agent could
    /// enforce policy there, from the first frame on. "via-host": always. "none": never; no agent
    /// runs on this node. Default: "auto".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<PolicyMode>,
    /// Guards of the pods' ports, each "on", "observe" (count, let pass) or "off". Default: all "on".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) guards: Option<RawGuards>,
    /// Threads that move frames, 1 to 64. On two cores each further one takes a core from the
    /// pods. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub(crate) workers: Option<u16>,
    /// The processor that each worker stays on, by the kernel's numbers, as many as there are workers.
    /// On two cores this keeps TCP at its higher rate. Default: none; the kernel moves them about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpus: Option<Vec<u16>>,
    /// How long a worker looks again after its last frame before it sleeps, in microseconds, at
    /// most 10000. Default: 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 10000))]
    pub(crate) spin_us: Option<u32>,
    /// Facilities of newer kernels that are not to be used, even where the kernel has them.
    /// Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) features_off: Option<Vec<Feature>>,
    /// The folder for who is attached. Default: "/var/lib/tapline".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state_dir: Option<String>,
    /// The unix socket for `tapline` and `tapline-cni`. Default: "/run/tapline/tapline.sock".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) socket: Option<String>,
    /// Metrics for Prometheus over HTTP. Default: only on the unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<RawMetrics>,
    /// What is logged: "error", "warn", "info", "debug" or "trace". Default: "info".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<RawLog>,
    /// For people and other programs; Tapline reads nothing in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) notes: Option<BTreeMap<String, String>>,
}

/// How pods get their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Plugin")]
pub(crate) enum RawPlugin {
    Azure,
    Kubenet,
}

/// The device that leads to the network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Uplink")]
pub(crate) struct RawUplink {
    /// Its name. Default: "eth0".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,
    /// The name of the TAP by which the switch sends and receives there. Default: "uplink0".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tap: Option<String>,
    /// Its MAC, where another device's is to be refused. Default: whatever the device has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mac: Option<String>,
    /// The MTU of what leaves by it, 576 to 65521. Default: the device's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 576, max = 65521))]
    pub(crate) mtu: Option<u16>,
}

/// The device of the node's own kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "HostPort")]
pub(crate) struct RawHostPort {
    /// Its name. Default: "azure0" under azure, "cbr0" under kubenet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,
    /// Its MAC. Default: the NIC's under azure; under kubenet 0a:58 and the gateway's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mac: Option<String>,
}

/// What holds for every pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Pods")]
pub(crate) struct RawPods {
    /// The MTU of pods, 576 to 65521. Default: the uplink's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 576, max = 65521))]
    pub(crate) mtu: Option<u16>,
    /// How many pods are attached at once, 1 to 1000. Default: 250.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) max: Option<u16>,
    /// Whether bandwidth limits of pods are obeyed; otherwise a pod with one is refused.
    /// Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bandwidth: Option<bool>,
}

/// A destination, and where the switch sends it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Route")]
pub(crate) struct RawRoute {
    /// The prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    /// "fabric": out of the uplink, to the MAC with which Azure answers for every address. An
    /// address: a node or router on the uplink, found by ARP or ND. "discard": it dies here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) via: Option<String>,
}

/// Where the node's truth comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Truth")]
pub(crate) struct RawTruth {
    /// Whom to ask, in this order; the first who knows is believed. Default: under azure
    /// "wireserver", "metadata"; under kubenet "pod_cidr" if it is given, "runtime",
    /// "node_object" if it is given, "bridge".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sources: Option<Vec<RawSource>>,
    /// Azure's interface document (XML). Default:
    /// "http://168.63.129.16/machine/plugins?comp=nmagent&type=getinterfaceinfov1".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wireserver: Option<String>,
    /// Azure's instance metadata (JSON). Default:
    /// "http://169.254.169.254/metadata/instance/network?api-version=2021-02-01&format=json".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metadata: Option<String>,
    /// The node's pod CIDRs, where somebody writes them here. At most one of each family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod_cidr: Option<Vec<String>>,
    /// A CNI configuration, or a folder of them, into which the container runtime has put the pod
    /// CIDR. Default: "/etc/cni/net.d".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) runtime: Option<String>,
    /// A file with the node object as `kubectl get node NAME -o json` prints it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node_object: Option<String>,
    /// A bridge whose address is the gateway of the pod CIDR. Default: "cbr0".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bridge: Option<String>,
    /// How long one question may take, in milliseconds, 10 to 60000. Default: 2000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60000))]
    pub(crate) timeout_ms: Option<u32>,
    /// How often the sources of a known node are asked again, in seconds, 1 to 86400: it may have
    /// been given more addresses. Default: 300. Until it is known they are asked each second.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub(crate) refresh_s: Option<u32>,
}

/// Whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Source")]
pub(crate) enum RawSource {
    Wireserver,
    Metadata,
    PodCidr,
    Runtime,
    NodeObject,
    Bridge,
}

/// What the plan expects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Plan")]
pub(crate) struct RawPlan {
    /// The node's own addresses, at most one of each family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) addresses: Option<Vec<String>>,
    /// The prefixes of the node's subnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subnets: Option<Vec<String>>,
    /// The prefixes that hold exactly the addresses which its pods may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pods: Option<Vec<String>>,
}

/// Who must see a pod's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyMode {
    /// Through the node's kernel wherever an agent could enforce policy there.
    Auto,
    /// Through the node's kernel, always.
    ViaHost,
    /// No agent runs here.
    None,
}

/// Guards of the pods' ports. Those marked * also watch the port of the node's own kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Guards")]
pub(crate) struct RawGuards {
    /// A pod sends from its own MAC and addresses only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spoof: Option<Guard>,
    /// A pod sends no router advertisements and no redirects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) routers: Option<Guard>,
    /// A station of another port does not come in: its frames went in a circle. *
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) loops: Option<Guard>,
    /// A station that moves between ports too often stays where it was. *
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) flaps: Option<Guard>,
    /// How many broadcasts, multicasts and frames to unknown stations a port may send in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) storm: Option<Guard>,
    /// How many stations may be learned behind one port. *
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quota: Option<Guard>,
    /// Stations that may be learned behind one pod, 1 to 1024. Default: 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub(crate) stations_max: Option<u32>,
    /// Broadcasts that a pod may send in a second, 1 to 1000000. Each worker counts for itself.
    /// Default: 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) broadcasts_max: Option<u32>,
    /// Multicasts that a pod may send in a second, 1 to 1000000. Default: 4096.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) multicasts_max: Option<u32>,
    /// Frames to unknown stations that a pod may send in a second, 1 to 1000000. Default: 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) unknown_max: Option<u32>,
    /// Pods that may send from more than their own MAC and addresses. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) more: Option<Vec<RawMore>>,
}

/// What a pod may send from beside its own MAC and addresses. Frames for such a MAC go to the pod;
/// routes to such addresses are the configuration's to give.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "More")]
pub(crate) struct RawMore {
    /// The pod, as NAMESPACE/NAME, or its container's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<String>,
    /// Further MACs, at most 16. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) macs: Option<Vec<String>>,
    /// Further prefixes of addresses, at most 16. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) addresses: Option<Vec<String>>,
}

/// What a guard does with a frame that it would not let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Guard {
    /// Drops and counts it.
    On,
    /// Counts it and lets it pass.
    Observe,
    /// Does not look.
    Off,
}

/// Metrics over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Metrics")]
pub(crate) struct RawMetrics {
    /// Address and port, such as "127.0.0.1:9469".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<String>,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Log")]
pub(crate) enum RawLog {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}
