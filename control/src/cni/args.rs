//! `CNI_ARGS`: what a runtime says in pairs.
//!
//! In: `KEY=VALUE;KEY=VALUE`. Out: [`Args`].
//! Never: passes over a pair that it does not know, unless `IgnoreUnknown` says so, as the
//! reference library has it.

use std::net::IpAddr;

use dataplane::addr::Mac;

use super::error::{CniError, Code};
use crate::api::types::PodName;

/// Pairs that runtimes send and that say nothing to a switch.
const IDLE: [&str; 2] = ["K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID"];

/// What was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// `K8S_POD_NAMESPACE` and `K8S_POD_NAME`, where both are given.
    pub pod: Option<PodName>,
    /// `MAC`.
    pub mac: Option<Mac>,
    /// `IP`.
    pub ip: Option<IpAddr>,
}

impl Args {
    /// Reads the pairs; none at all is fine.
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`].
    pub fn parse(text: &str) -> Result<Args, CniError> {
        let invalid = |what: String| CniError::new(Code::InvalidEnvironment, what);
        let (mut args, mut unknown, mut ignore) = (Args::default(), Vec::new(), false);
        let (mut namespace, mut name) = (None, None);
        for pair in text.split(';').filter(|_| !text.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .filter(|(_, value)| !value.contains('='))
                .ok_or_else(|| invalid(format!("ARGS: invalid pair {pair:?}")))?;
            match key {
                "K8S_POD_NAMESPACE" => namespace = Some(value.to_owned()),
                "K8S_POD_NAME" => name = Some(value.to_owned()),
                "MAC" => args.mac = Some(mac(value).map_err(|e| invalid(format!("ARGS: {e}")))?),
                "IP" => args.ip = Some(ip(value).map_err(|e| invalid(format!("ARGS: {e}")))?),
                "IgnoreUnknown" => {
                    ignore = match value {
                        "1" | "true" => true,
                        "0" | "false" => false,
                        _ => return Err(invalid(format!("ARGS: IgnoreUnknown is {value:?}"))),
                    }
                }
                _ if IDLE.contains(&key) => {}
                _ => unknown.push(format!("{key:?}")),
            }
        }
        if !unknown.is_empty() && !ignore {
            let unknown = unknown.join(" ");
            return Err(invalid(format!("ARGS: unknown args [{unknown}]")));
        }
        let both = namespace.zip(name);
        args.pod = both.map(|(namespace, name)| PodName { namespace, name });
        Ok(args)
    }
}

/// A MAC that a pod can bear. Runtimes write it with colons or hyphens.
pub(super) fn mac(text: &str) -> Result<Mac, String> {
    let mac: Mac = text
        .replace('-', ":")
        .parse()
        .map_err(|_| format!("'{text}' is no MAC address"))?;
    if mac.is_group() || mac.is_zero() {
        return Err(format!("{mac} is no address of one station"));
    }
    Ok(mac)
}

/// An address, with or without a prefix length, which is the node's to know.
pub(super) fn ip(text: &str) -> Result<IpAddr, String> {
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    address
        .parse()
        .map_err(|_| format!("'{text}' is no IP address"))
}
