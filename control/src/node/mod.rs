//! The node as it is: which addresses its pods may have, and what its kernel can do.
//!
//! In: the node's own sources, asked one by one. Out: its truth, and how the plan differs from it.
//! Never: takes a plan for the truth: where nobody knows, no pod is attached.
//!
//! | file | room |
//! |---|---|
//! | `documents` | what Azure, Kubernetes and the runtime write, read with suspicion |
//! | `truth` | what holds together, and the differences to the plan; pure |
//! | `learn` | who is asked, and for how long |
//! | `seen` | the uplink as it is |
//! | `standin` | Azure's two services for the lab and for tests |
//! | `features` | facilities of newer kernels |

pub mod documents;
pub mod features;
mod learn;
mod seen;
pub mod standin;
mod truth;

pub use learn::{Silence, Told, Unknown, learn};
pub use seen::{Seen, secondary};
pub use truth::{Difference, NicAddresses, NodeTruth, PodCidrs, Unbelievable, differences};

/// Azure's interface document, as azure-vnet-ipam asks for it (azure-container-networking,
/// `ipam/azure.go`).
pub const WIRESERVER_URL: &str =
    "http://168.63.129.16/machine/plugins?comp=nmagent&type=getinterfaceinfov1";
/// Azure's instance metadata about the network.
pub const METADATA_URL: &str =
    "http://169.254.169.254/metadata/instance/network?api-version=2021-02-01&format=json";

/// Accepts a URL that can be asked: plain HTTP, printable, with a host.
///
/// # Errors
/// What is wrong, as the end of a sentence that the URL begins.
pub fn check_url(url: &str) -> Result<(), &'static str> {
    let Some(rest) = url.strip_prefix("http://") else {
        return Err("does not begin with http://");
    };
    if !url.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("has characters that no URL has");
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() || host.contains('@') {
        return Err("names no host, or more than a host");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
