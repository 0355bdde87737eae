//! Results: what a runtime and the next plugin of a chain read.
//!
//! In: a result of any version, or the daemon's answer. Out: a result of any version.
//! Never: loses an address on the way from one version to another, except where the old shape has
//! room for one of each family only (0.1.0 and 0.2.0).

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::{CniError, Code};
use super::version::Version;
use crate::api::types::AddReply;

/// A result, in the shape of 1.1.0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniResult {
    /// What was made or used, on the node and in containers.
    pub interfaces: Vec<Interface>,
    /// Addresses, and on which of the interfaces they are.
    pub ips: Vec<Ip>,
    /// Routes in the container.
    pub routes: Vec<Route>,
    /// Resolvers.
    pub dns: Dns,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address: text, for those of other plugins are not always Ethernet's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU; since 1.1.0.
    #[serde(skip_serializing_if = "is_zero")]
    pub mtu: u32,
    /// Its network namespace, if it is not the node's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// A socket that stands for it; since 1.1.0.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// Its PCI device; since 1.1.0.
    #[serde(rename = "pciID", skip_serializing_if = "String::is_empty")]
    pub pci_id: String,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// Which interface has it, by place in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
    /// The address with its link's prefix length.
    pub address: IpNet,
    /// The gateway on that link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// What it is for.
    pub dst: IpNet,
    /// Its next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// What 1.1.0 has besides: `mtu`, `advmss`, `priority`, `table`, `scope`.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Resolvers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Their addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Domains to search.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// Since 0.3.0, as it is written. Fields of later versions are passed over in earlier ones.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Listed {
    interfaces: Vec<Interface>,
    ips: Vec<Ip>,
    routes: Vec<Route>,
    dns: Dns,
}

/// 0.1.0 and 0.2.0.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Paired {
    ip4: Option<Of>,
    ip6: Option<Of>,
    dns: Dns,
}

/// An address of one family, and its routes.
#[derive(Deserialize)]
struct Of {
    ip: IpNet,
    #[serde(default)]
    gateway: Option<IpAddr>,
    #[serde(default)]
    routes: Vec<Route>,
}

impl Dns {
    /// True if nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Dns::default()
    }
}

impl Route {
    /// A route without anything besides.
    #[must_use]
    pub fn new(dst: IpNet, gw: Option<IpAddr>) -> Route {
        Route {
            dst,
            gw,
            more: Map::new(),
        }
    }
}

impl CniResult {
    /// Reads a result of the version that it names, or of `otherwise`.
    ///
    /// # Errors
    /// [`Code::Decoding`], or [`Code::IncompatibleVersion`].
    pub fn parse(document: &Value, otherwise: Version) -> Result<CniResult, CniError> {
        let garbled = |why: serde_json::Error| {
            CniError::new(Code::Decoding, format!("a result makes no sense: {why}"))
        };
        let version = match document.get("cniVersion").and_then(Value::as_str) {
            None | Some("") => otherwise,
            named => Version::parse(named)?,
        };
        if version >= Version::V0_3_0 {
            let listed = Listed::deserialize(document).map_err(garbled)?;
            return Ok(CniResult {
                interfaces: listed.interfaces,
                ips: listed.ips,
                routes: listed.routes,
                dns: listed.dns,
            });
        }
        let paired = Paired::deserialize(document).map_err(garbled)?;
        let mut result = CniResult {
            dns: paired.dns,
            ..CniResult::default()
        };
        for of in [paired.ip4, paired.ip6].into_iter().flatten() {
            result.ips.push(Ip {
                interface: None,
                address: of.ip,
                gateway: of.gateway,
            });
            result.routes.extend(of.routes);
        }
        Ok(result)
    }

    /// What the daemon made.
    #[must_use]
    pub fn of_reply(reply: &AddReply) -> CniResult {
        let sandbox = |path: &std::path::PathBuf| path.display().to_string();
        let interfaces = reply.interfaces.iter().map(|interface| Interface {
            name: interface.name.clone(),
            mac: interface.mac.to_string(),
            mtu: interface.mtu,
            sandbox: interface.sandbox.as_ref().map(sandbox).unwrap_or_default(),
            ..Interface::default()
        });
        let ips = reply.ips.iter().map(|ip| Ip {
            interface: Some(ip.interface),
            address: ip.address,
            gateway: ip.gateway,
        });
        CniResult {
            interfaces: interfaces.collect(),
            ips: ips.collect(),
            routes: reply
                .routes
                .iter()
                .map(|r| Route::new(r.dst, r.gw))
                .collect(),
            dns: Dns::default(),
        }
    }

    /// This result behind that of plugins before it in the chain.
    #[must_use]
    pub fn after(mut self, before: CniResult) -> CniResult {
        let shift = before.interfaces.len();
        for ip in &mut self.ips {
            ip.interface = ip.interface.map(|at| at + shift);
        }
        CniResult {
            interfaces: [before.interfaces, self.interfaces].concat(),
            ips: [before.ips, self.ips].concat(),
            routes: [before.routes, self.routes].concat(),
            dns: if self.dns.is_empty() {
                before.dns
            } else {
                self.dns
            },
        }
    }

    /// As that version writes it.
    #[must_use]
    pub fn to_json(&self, version: Version) -> Value {
        let mut document = if version < Version::V0_3_0 {
            self.paired()
        } else {
            self.listed(version)
        };
        document.insert("dns".into(), plain(&self.dns));
        let mut whole = Map::new();
        whole.insert("cniVersion".into(), version.text().into());
        whole.append(&mut document);
        Value::Object(whole)
    }

    fn listed(&self, version: Version) -> Map<String, Value> {
        let newest = version >= Version::V1_1_0;
        let interfaces = self.interfaces.iter().map(|interface| {
            plain(&if newest {
                interface.clone()
            } else {
                Interface {
                    mtu: 0,
                    socket_path: String::new(),
                    pci_id: String::new(),
                    ..interface.clone()
                }
            })
        });
        let ips = self.ips.iter().map(|ip| {
            let mut document = plain(ip);
            if version < Version::V1_0_0 {
                let family = if ip.address.addr().is_ipv4() {
                    "4"
                } else {
                    "6"
                };
                document["version"] = family.into();
            }
            document
        });
        let mut document = Map::new();
        let mut list = |name: &str, values: Vec<Value>| {
            // As the reference library writes: lists are left out where they are empty.
            if !values.is_empty() {
                document.insert(name.into(), values.into());
            }
        };
        list("interfaces", interfaces.collect());
        list("ips", ips.collect());
        list(
            "routes",
            self.routes.iter().map(|r| route(r, newest)).collect(),
        );
        document
    }

    fn paired(&self) -> Map<String, Value> {
        let mut document = Map::new();
        for (key, v4) in [("ip4", true), ("ip6", false)] {
            let Some(ip) = self.ips.iter().find(|ip| ip.address.addr().is_ipv4() == v4) else {
                continue;
            };
            let mut of = json!({ "ip": ip.address });
            if let Some(gateway) = ip.gateway {
                of["gateway"] = gateway.to_string().into();
            }
            let routes: Vec<Value> = self
                .routes
                .iter()
                .filter(|r| r.dst.addr().is_ipv4() == v4)
                .map(|r| route(r, false))
                .collect();
            if !routes.is_empty() {
                of["routes"] = routes.into();
            }
            document.insert(key.into(), of);
        }
        document
    }
}

fn route(route: &Route, newest: bool) -> Value {
    let more = if newest {
        route.more.clone()
    } else {
        Map::new()
    };
    plain(&Route {
        more,
        ..route.clone()
    })
}

fn plain(thing: &impl Serialize) -> Value {
    serde_json::to_value(thing).expect("text, numbers and lists of them")
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
