//! The node as it is: what its kernel can do.
//!
//! In: the running kernel. Out: facts. Never: takes a plan for the truth.

pub mod features;

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
