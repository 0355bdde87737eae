//! Asks the node for its truth: each source in turn, until one knows.
//!
//! In: the sources of the configuration, and what the node's uplink looks like.
//! Out: a [`NodeTruth`] and who said it, or why nobody could.
//! Never: waits longer than it was told for one answer, reads more than a document may hold, or
//! falls back on the plan.
//!
//! It blocks, so it belongs on a thread of its own, in the node's network namespace.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dataplane::addr::Mac;
use ipnet::IpNet;

use super::documents::{
    self, BadDocument, DOCUMENT_BYTES_MAX, cni_configuration, instance_metadata,
    interface_document, node_object,
};
use super::truth::{NodeTruth, PodCidrs, Unbelievable};
use crate::config::{NodeConfig, TruthSource};
use crate::devices::{DeviceError, DeviceName, Netlink};

/// Files of one folder of CNI configurations.
const FILES_MAX: usize = 64;

/// What was learned, and from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What was learned.
    pub truth: NodeTruth,
    /// Who said it.
    pub source: String,
}

/// Why one source did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Silence {
    /// The other end of the connection, or the way to it.
    #[error("{0}")]
    Http(Box<ureq::Error>),
    /// A file.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// What it answered.
    #[error(transparent)]
    Document(#[from] BadDocument),
    /// A folder in which no file knows.
    #[error("no CNI configuration in {folder} has a pod CIDR{but}", folder = .folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// What is wrong with those that were read.
        but: String,
    },
}

impl From<Unbelievable> for Silence {
    fn from(why: Unbelievable) -> Silence {
        Silence::Document(why.into())
    }
}

/// That nobody knew: each source, and why it did not answer.
#[derive(Debug, thiserror::Error)]
pub struct Unknown(pub Vec<(String, Silence)>);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody knows which addresses this node's pods may have")?;
        for (source, why) in &self.0 {
            write!(f, "; {source}: {why}")?;
        }
        Ok(())
    }
}

impl fmt::Display for TruthSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TruthSource::Wireserver(url) => write!(f, "wireserver {url}"),
            TruthSource::Metadata(url) => write!(f, "metadata {url}"),
            TruthSource::PodCidr(_) => f.write_str("pod_cidr of the configuration"),
            TruthSource::Runtime(path) => write!(f, "runtime {}", path.display()),
            TruthSource::NodeObject(path) => write!(f, "node_object {}", path.display()),
            TruthSource::Bridge(device) => write!(f, "bridge {device}"),
        }
    }
}

/// Asks each source in turn. `node` is the node's namespace, in which the calling thread must be;
/// `nic` the MAC of its uplink.
///
/// # Errors
/// [`Unknown`]: then no pod can be attached.
pub fn learn(config: &NodeConfig, node: &Netlink, nic: Option<Mac>) -> Result<Told, Unknown> {
    let mut silent = Vec::new();
    for source in &config.truth.sources {
        match ask(source, config, node, nic) {
            Ok(truth) => {
                return Ok(Told {
                    truth,
                    source: source.to_string(),
                });
            }
            Err(why) => silent.push((source.to_string(), why)),
        }
    }
    Err(Unknown(silent))
}

fn ask(
    source: &TruthSource,
    config: &NodeConfig,
    node: &Netlink,
    nic: Option<Mac>,
) -> Result<NodeTruth, Silence> {
    let timeout = config.truth.timeout;
    Ok(match source {
        TruthSource::Wireserver(url) => {
            NodeTruth::Azure(interface_document(&fetch(url, &[], timeout)?, nic)?)
        }
        TruthSource::Metadata(url) => {
            let bytes = fetch(url, &[("Metadata", "true")], timeout)?;
            NodeTruth::Azure(instance_metadata(&bytes, nic)?)
        }
        TruthSource::PodCidr(nets) => NodeTruth::Kubenet(PodCidrs::new(nets)?),
        TruthSource::Runtime(path) => NodeTruth::Kubenet(of_runtime(path)?),
        TruthSource::NodeObject(path) => {
            NodeTruth::Kubenet(node_object(&read(path)?, &config.node)?)
        }
        TruthSource::Bridge(device) => NodeTruth::Kubenet(of_bridge(node, device)?),
    })
}

/// A document by plain HTTP: one question, no redirect, no proxy, bounded in time and length.
fn fetch(url: &str, headers: &[(&str, &str)], timeout: Duration) -> Result<Vec<u8>, Silence> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("tapline/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let failed = |why: ureq::Error| match why {
        ureq::Error::BodyExceedsLimit(_) => Silence::Document(BadDocument::TooLong),
        why => Silence::Http(Box::new(why)),
    };
    let mut question = agent.get(url);
    for (name, value) in headers {
        question = question.header(*name, *value);
    }
    let answer = question.call().map_err(failed)?;
    let body = answer.into_body().into_with_config();
    body.limit(DOCUMENT_BYTES_MAX).read_to_vec().map_err(failed)
}

fn read(path: &Path) -> Result<Vec<u8>, Silence> {
    let failed = |source| Silence::File {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    let mut bounded = file.take(DOCUMENT_BYTES_MAX + 1);
    bounded.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// A file, or the first of a folder's by name that knows, as runtimes choose among them.
fn of_runtime(path: &Path) -> Result<PodCidrs, Silence> {
    if !path.is_dir() {
        return Ok(cni_configuration(&read(path)?)?);
    }
    let entries = fs::read_dir(path).map_err(|source| Silence::File {
        path: path.to_owned(),
        source,
    })?;
    let is_configuration = |file: &PathBuf| {
        let ends = file.extension().and_then(|ends| ends.to_str());
        ends.is_some_and(|ends| ["conf", "conflist", "json"].contains(&ends))
    };
    let files = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = files.filter(is_configuration).take(FILES_MAX).collect();
    files.sort();
    let mut but = String::new();
    for file in files {
        match read(&file).and_then(|bytes| Ok(documents::cni_configuration(&bytes)?)) {
            Ok(found) => return Ok(found),
            Err(why) => {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                but.push_str(&format!("; {name}: {why}"));
            }
        }
    }
    Err(Silence::Folder {
        folder: path.to_owned(),
        but,
    })
}

/// The links of a bridge's addresses. Link-local ones are the kernel's own.
fn of_bridge(node: &Netlink, device: &DeviceName) -> Result<PodCidrs, Silence> {
    let addresses: Vec<IpNet> = node
        .addresses(device)?
        .into_iter()
        .filter(|net| match net {
            IpNet::V4(net) => !net.addr().is_link_local(),
            IpNet::V6(net) => !net.addr().is_unicast_link_local(),
        })
        .collect();
    Ok(PodCidrs::new(&addresses)?)
}
