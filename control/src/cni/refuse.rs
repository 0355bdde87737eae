//! What a configuration may ask for and Tapline does not do, by name.
//!
//! In: the document. Out: error 2, whose details name each such key and say why.
//! Never: passes over a setting on which somebody's isolation or reachability could rest.

use serde_json::{Map, Value};

use super::config::Ipam;
use super::error::{CniError, Code};

/// A key, when it asks for something, and why that is not done.
struct Row {
    key: &'static str,
    asks: fn(&Value) -> bool,
    why: &'static str,
}

/// Keys of the `bridge` plugin (`plugins/main/bridge/bridge.go`) and of azure's (`azure-vnet`,
/// `cni/network/netconfig.go` of azure-container-networking).
const ROWS: [Row; 14] = [
    Row {
        key: "vlan",
        asks: is_set,
        why: "the switch has no VLANs: an Azure VNet carries none; take it out",
    },
    Row {
        key: "vlanTrunk",
        asks: is_set,
        why: "the switch has no VLANs: an Azure VNet carries none; take it out",
    },
    Row {
        key: "enabledad",
        asks: is_set,
        why: "the switch sees to it that no address has two holders, and keeps no pod waiting; \
              take it out",
    },
    Row {
        key: "disableContainerInterface",
        asks: is_set,
        why: "a pod's interface comes up with its address; take it out",
    },
    Row {
        key: "mode",
        asks: is_other_mode,
        why: "the switch takes the place of azure's bridge mode; say bridge, or nothing",
    },
    Row {
        key: "multiTenancy",
        asks: is_set,
        why: "the switch joins the pods of one VNet; take it out",
    },
    Row {
        key: "enableSnatOnHost",
        asks: is_set,
        why: "the node's own rules masquerade, or ipMasq does; take it out",
    },
    Row {
        key: "podNamespaceForDualNetwork",
        asks: is_set,
        why: "a pod has one network; take it out",
    },
    Row {
        key: "ipsToRouteViaHost",
        asks: is_beyond_link_local,
        why: "169.254.0.0/16 goes by the host anyway; name others in via_host of the daemon's \
              configuration, and take them out here",
    },
    Row {
        key: "serviceCidrs",
        asks: is_set,
        why: "name them in services of the daemon's configuration, and take them out here",
    },
    Row {
        key: "vnetCidrs",
        asks: is_set,
        why: "name them in routes of the daemon's configuration, and take them out here",
    },
    Row {
        key: "ipv6Mode",
        asks: is_set,
        why: "an azure node's pods have no IPv6 through the switch; take it out",
    },
    Row {
        key: "executionMode",
        asks: is_other_execution,
        why: "addresses are the NIC's, on a VM of Azure; take it out",
    },
    Row {
        key: "AdditionalArgs",
        asks: is_set,
        why: "policies of Windows's virtual switch; take them out",
    },
];

/// What a runtime may hand over because the configuration declares a capability.
const RUNTIME: [(&str, &str); 4] = [
    ("portMappings", "chain the portmap plugin behind this one"),
    ("infinibandGUID", "pods have Ethernet"),
    ("deviceID", "pods have no devices of their own"),
    ("ipRanges", "the built-in IPAM gives what the node has"),
];

/// Faults with their keys; a verdict names them all.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<(String, String)>);

impl Faults {
    pub(super) fn add(&mut self, key: &str, why: impl Into<String>) {
        self.0.push((key.to_owned(), why.into()));
    }

    /// The value, or nothing and a fault.
    pub(super) fn take<T>(&mut self, key: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|why| self.add(key, why)).ok()
    }

    /// An error that names all, if there are any. One alone is the message.
    pub(super) fn verdict(self, code: Code, summary: &str) -> Result<(), CniError> {
        let sentences: Vec<String> = self
            .0
            .iter()
            .map(|(k, why)| format!("{k}: {why}"))
            .collect();
        match sentences.as_slice() {
            [] => Ok(()),
            all => Err(CniError::new(code, summary).with_details(all.join("; "))),
        }
    }
}

/// Refuses what is not done here.
pub(super) fn unsupported(document: &Map<String, Value>, ipam: &Ipam) -> Result<(), CniError> {
    let mut faults = Faults::default();
    for row in &ROWS {
        if document.get(row.key).is_some_and(row.asks) {
            faults.add(row.key, row.why);
        }
    }
    let runtime = document.get("runtimeConfig").and_then(Value::as_object);
    for (key, why) in RUNTIME {
        let for_ipam = key == "ipRanges" && *ipam != Ipam::BuiltIn;
        if !for_ipam && runtime.and_then(|r| r.get(key)).is_some_and(is_set) {
            faults.add(&format!("runtimeConfig.{key}"), why);
        }
    }
    let section = document.get("ipam").and_then(Value::as_object);
    if let (Ipam::BuiltIn, Some(section)) = (ipam, section) {
        for key in section
            .keys()
            .filter(|k| !["type", "routes"].contains(&k.as_str()))
        {
            let why = "the built-in IPAM gives what the node has, and takes only routes";
            faults.add(&format!("ipam.{key}"), why);
        }
    }
    faults.verdict(
        Code::UnsupportedField,
        "unsupported fields in network config",
    )
}

/// Zero, empty and false ask for nothing.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

fn is_other_mode(value: &Value) -> bool {
    is_set(value) && value.as_str() != Some("bridge")
}

/// azure's `Default` is what it does where nothing is said.
fn is_other_execution(value: &Value) -> bool {
    let usual = |text: &str| text.eq_ignore_ascii_case("default");
    is_set(value) && !value.as_str().is_some_and(usual)
}

fn is_beyond_link_local(value: &Value) -> bool {
    let inside = |address: &Value| {
        let address = address.as_str().and_then(|text| text.parse().ok());
        address.is_some_and(|address: std::net::Ipv4Addr| address.is_link_local())
    };
    match value.as_array() {
        Some(addresses) => !addresses.iter().all(inside),
        None => is_set(value),
    }
}
