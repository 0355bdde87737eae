//! The commands, one after the other in the order of the specification.
//!
//! In: a checked environment and configuration. Out: what is printed, or an error.
//! Never: leaves an address assigned, or a port attached, of an ADD that failed.

use std::time::Duration;

use ipnet::IpNet;

use super::config::{Conf, Ipam, Wanted};
use super::delegate::Delegate;
use super::door::Door;
use super::environment::{Attachment, Command, Environment};
use super::error::{CniError, Code};
use super::result::{CniResult, Dns, Interface, Route};
use super::version::Version;
use crate::api::types::{
    self, AddReply, AddRequest, AssignedIp, CheckRequest, DelRequest, GcRequest, Key, PodAddress,
    RouteSpec,
};

/// One call of the plugin.
#[derive(Debug)]
pub(super) struct Plugin<'a> {
    environment: &'a Environment,
    conf: &'a Conf,
    door: Door,
    /// The configuration as it came, for an `ipam` plugin.
    configuration: &'a [u8],
}

/// What an `ipam` plugin assigned.
#[derive(Default)]
struct Assigned {
    ips: Vec<AssignedIp>,
    routes: Option<Vec<Route>>,
    dns: Dns,
}

impl<'a> Plugin<'a> {
    pub(super) fn new(
        environment: &'a Environment,
        conf: &'a Conf,
        configuration: &'a [u8],
        patience: Duration,
    ) -> Plugin<'a> {
        Plugin {
            environment,
            conf,
            door: Door::new(&conf.socket, patience),
            configuration,
        }
    }

    /// Does what the environment asks for; returns what is to be printed.
    pub(super) fn run(&self) -> Result<String, CniError> {
        let attachment = self.environment.attachment.as_ref();
        let whom =
            || attachment.ok_or_else(|| CniError::new(Code::UnknownContainer, "no container"));
        match self.environment.command {
            Command::Add => self.add(whom()?),
            Command::Del => self.del(whom()?),
            Command::Check => self.check(whom()?),
            Command::Gc => self.gc(),
            Command::Status => self.status(),
            // Answered before there was a configuration.
            Command::Version => Ok(String::new()),
        }
    }

    fn add(&self, whom: &Attachment) -> Result<String, CniError> {
        let wanted = self.conf.wanted(&self.environment.args)?;
        let before = self.conf.previous()?;
        let delegate = self.delegate()?;
        let assigned = match &delegate {
            Some(delegate) => {
                let assigned = delegate
                    .ask("ADD")
                    .and_then(|answer| self.assigned(&answer));
                assigned.inspect_err(|_| release(delegate))?
            }
            None => Assigned {
                routes: wanted.routes.clone(),
                ..Assigned::default()
            },
        };
        let request = self.request(whom, &wanted, &assigned)?;
        let reply = self.door.add(&request).and_then(|reply| {
            let as_named = is_the_bridge(&wanted, &reply);
            as_named.inspect_err(|_| {
                let _ = self.door.del(&self.del_request(whom));
            })?;
            Ok(reply)
        });
        if let (Err(_), Some(delegate)) = (&reply, &delegate) {
            release(delegate);
        }
        let mut result = CniResult::of_reply(&reply?);
        result.dns = if wanted.dns.is_empty() {
            assigned.dns
        } else {
            wanted.dns
        };
        let result = match before {
            Some(before) => result.after(before),
            None => result,
        };
        Ok(result.to_json(self.conf.version).to_string())
    }

    fn del(&self, whom: &Attachment) -> Result<String, CniError> {
        let gone = self.door.del(&self.del_request(whom));
        // Whatever the daemon says, the address goes back.
        let released = self.delegate().and_then(|delegate| match delegate {
            Some(delegate) => delegate.run("DEL").map(|_| ()),
            None => Ok(()),
        });
        gone.and(released).map(|()| String::new())
    }

    fn check(&self, whom: &Attachment) -> Result<String, CniError> {
        self.since(Version::V0_4_0, "CHECK")?;
        self.conf.wanted(&self.environment.args)?;
        let missing = || CniError::new(Code::InvalidConfig, "required prevResult missing");
        let before = self.conf.previous()?.ok_or_else(missing)?;
        if let Some(delegate) = self.delegate()? {
            delegate.run("CHECK")?;
        }
        let netns = whom.netns.clone().unwrap_or_default();
        let sandbox = netns.display().to_string();
        let name = whom.interface.as_str();
        let own = |i: &Interface| i.name == name && i.sandbox == sandbox;
        let Some(at) = before.interfaces.iter().position(own) else {
            let what = format!("prevResult has no interface {name} in {sandbox}");
            return Err(CniError::new(Code::InvalidConfig, what));
        };
        let request = CheckRequest {
            key: self.key(whom),
            netns,
            interfaces: before.interfaces.iter().filter_map(expected).collect(),
            ips: before
                .ips
                .iter()
                .filter(|ip| ip.interface.is_none_or(|interface| interface == at))
                .map(|ip| PodAddress {
                    address: ip.address,
                    gateway: ip.gateway,
                    interface: 0,
                })
                .collect(),
            routes: specs(&before.routes),
        };
        self.door.check(&request).map(|()| String::new())
    }

    fn gc(&self) -> Result<String, CniError> {
        self.since(Version::V1_1_0, "GC")?;
        let request = GcRequest {
            network: self.conf.name.clone(),
            valid: self.conf.valid()?,
        };
        let gone = self.door.gc(&request).map(|_| ());
        gone.and(self.forward("GC")).map(|()| String::new())
    }

    fn status(&self) -> Result<String, CniError> {
        self.since(Version::V1_1_0, "STATUS")?;
        self.conf.wanted(&self.environment.args)?;
        let served = self.door.status();
        served
            .and_then(|()| self.forward("STATUS"))
            .map(|()| String::new())
    }

    /// A command that older `ipam` plugins do not know is none of theirs.
    fn forward(&self, command: &str) -> Result<(), CniError> {
        let Some(delegate) = self.delegate()? else {
            return Ok(());
        };
        match delegate.run(command) {
            Err(error) if error.code == Code::Other(Code::InvalidEnvironment.number()) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    fn since(&self, version: Version, command: &str) -> Result<(), CniError> {
        if self.conf.version >= version {
            return Ok(());
        }
        let what = format!("config version does not allow {command}");
        Err(
            CniError::new(Code::IncompatibleVersion, what).with_details(format!(
                "config is {}, {command} came with {version}",
                self.conf.version
            )),
        )
    }

    fn delegate(&self) -> Result<Option<Delegate<'_>>, CniError> {
        match &self.conf.ipam {
            Ipam::BuiltIn => Ok(None),
            Ipam::Delegated(name) => {
                Delegate::find(name, &self.environment.path, self.configuration).map(Some)
            }
        }
    }

    fn assigned(&self, answer: &serde_json::Value) -> Result<Assigned, CniError> {
        let result = CniResult::parse(answer, self.conf.version)?;
        if result.ips.is_empty() {
            let what = "IPAM plugin returned missing IP config";
            return Err(CniError::new(Code::NoAddress, what));
        }
        let ips = result.ips.iter().map(|ip| AssignedIp {
            address: ip.address,
            gateway: ip.gateway,
        });
        Ok(Assigned {
            ips: ips.collect(),
            routes: Some(result.routes),
            dns: result.dns,
        })
    }

    fn request(
        &self,
        whom: &Attachment,
        wanted: &Wanted,
        assigned: &Assigned,
    ) -> Result<AddRequest, CniError> {
        let netns = whom.netns.clone();
        let no_netns = || CniError::new(Code::InvalidNetns, "ADD needs a namespace");
        let (default_route, routes) = routing(wanted.is_default_gateway, assigned);
        Ok(AddRequest {
            key: self.key(whom),
            netns: netns.ok_or_else(no_netns)?,
            pod: self.environment.args.pod.clone(),
            mtu: wanted.mtu,
            mac: wanted.mac,
            hairpin: wanted.hairpin,
            isolated: wanted.isolated,
            mac_spoof_check: wanted.mac_spoof_check,
            requested: match self.conf.ipam {
                Ipam::BuiltIn => wanted.ips.clone(),
                // It reads the same configuration and the same environment.
                Ipam::Delegated(_) => Vec::new(),
            },
            assigned: assigned.ips.clone(),
            default_route,
            routes,
            is_gateway: wanted.is_gateway,
            ip_masq: wanted.ip_masq,
            force_address: wanted.force_address,
            bandwidth: wanted.bandwidth,
        })
    }

    fn del_request(&self, whom: &Attachment) -> DelRequest {
        DelRequest {
            key: self.key(whom),
            netns: whom.netns.clone(),
        }
    }

    fn key(&self, whom: &Attachment) -> Key {
        Key {
            network: self.conf.name.clone(),
            container_id: whom.container.clone(),
            ifname: whom.interface.to_string(),
        }
    }
}

/// Does the gateway get the default route, and which routes come besides?
///
/// As `bridge` has it: those that `ipam` says, and a default one for `isDefaultGateway`. A
/// configuration that says neither, which `bridge` would leave without a way out, is our own.
fn routing(is_default_gateway: Option<bool>, assigned: &Assigned) -> (bool, Vec<RouteSpec>) {
    let Some(routes) = &assigned.routes else {
        return (is_default_gateway.unwrap_or(true), Vec::new());
    };
    let default = is_default_gateway.unwrap_or(false);
    let mut routes = specs(routes);
    // The gateway's is one already.
    routes.retain(|route| !(default && route.gw.is_none() && is_default(&route.dst)));
    (default, routes)
}

fn is_default(to: &IpNet) -> bool {
    to.prefix_len() == 0
}

fn specs(routes: &[Route]) -> Vec<RouteSpec> {
    let spec = |route: &Route| RouteSpec {
        dst: route.dst,
        gw: route.gw,
    };
    routes.iter().map(spec).collect()
}

fn release(delegate: &Delegate<'_>) {
    // What failed before is what the runtime has to hear of.
    let _ = delegate.run("DEL");
}

/// A network of another bridge would be apart from this one; there is one switch on a node.
fn is_the_bridge(wanted: &Wanted, reply: &AddReply) -> Result<(), CniError> {
    let have = reply.interfaces.first().map(|i| i.name.as_str());
    match (&wanted.bridge, have) {
        (Some(bridge), Some(have)) if bridge != have => {
            let what = "invalid network config";
            let why = format!("bridge: this node's switch is {have}, not {bridge}");
            Err(CniError::new(Code::InvalidConfig, what).with_details(why))
        }
        _ => Ok(()),
    }
}

/// As the daemon reports them; those of other plugins that are not Ethernet's are theirs to check.
fn expected(interface: &Interface) -> Option<types::Interface> {
    Some(types::Interface {
        name: interface.name.clone(),
        mac: interface.mac.parse().ok()?,
        mtu: interface.mtu,
        sandbox: (!interface.sandbox.is_empty()).then(|| interface.sandbox.clone().into()),
    })
}
