//! `tapline adopt`, `confirm`, `release` and `rescue`: from a Linux bridge to the switch, and back.
//!
//! In: the arguments. Out: the steps on standard output, an exit status; a refusal on standard error.
//! Never: does the work itself. The first three ask the daemon; a rescue needs none.

use std::path::PathBuf;
use std::time::Duration;

use super::Exit;
use crate::adopt::ipam::Places;
use crate::api::types::{ApiError, ErrorKind, HandoverReply, HandoverRequest, SOCKET_DEFAULT};
use crate::api::{Client, ClientError};
use crate::config::STATE_DIR;
use crate::daemon::adopt;
use crate::devices::netlink::Netlink;
use crate::devices::netns::Netns;

/// Moving 250 pods takes a few seconds. But for each pod the kernel waits some ten times until every
/// processor has let go of what was there before (RCU), and where all of them are taken by others each of
/// those waits may be a tenth of a second. Whoever gives up meanwhile does not hear how it ended.
const WITHIN: Duration = Duration::from_secs(600);

/// The daemon, and where others noted who holds which address.
#[derive(clap::Args, Debug)]
struct Common {
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET_DEFAULT)]
    socket: PathBuf,
    /// Only tell the steps.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    files: Files,
}

/// The files of the programs before us.
#[derive(clap::Args, Debug)]
struct Files {
    /// Where host-local keeps its networks [default: /var/lib/cni/networks].
    #[arg(long, value_name = "FOLDER")]
    networks: Option<PathBuf>,
    /// The azure plugin's endpoints [default: /var/run/azure-vnet.json].
    #[arg(long, value_name = "FILE")]
    azure_endpoints: Option<PathBuf>,
    /// The azure plugin's addresses [default: /var/run/azure-vnet-ipam.json].
    #[arg(long, value_name = "FILE")]
    azure_addresses: Option<PathBuf>,
}

/// Arguments of `tapline adopt`.
#[derive(clap::Args, Debug)]
pub struct AdoptArgs {
    /// The bridge, as a check: the daemon adopts the one that has its host port's name.
    #[arg(long, value_name = "NAME")]
    bridge: Option<String>,
    /// Go back unless `tapline confirm` comes within so many seconds; 0: stay at once.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    confirm_within: u64,
    /// Further paths at which pods' network namespaces may be.
    #[arg(long = "netns", value_name = "PATH")]
    namespaces: Vec<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `tapline confirm`.
#[derive(clap::Args, Debug)]
pub struct ConfirmArgs {
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET_DEFAULT)]
    socket: PathBuf,
}

/// Arguments of `tapline release`.
#[derive(clap::Args, Debug)]
pub struct ReleaseArgs {
    #[command(flatten)]
    common: Common,
}

/// Arguments of `tapline rescue`.
#[derive(clap::Args, Debug)]
pub struct RescueArgs {
    /// The daemon's state folder.
    #[arg(long, value_name = "FOLDER", default_value = STATE_DIR)]
    state: PathBuf,
    /// Only tell the steps.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    files: Files,
}

impl Common {
    fn request(&self) -> HandoverRequest {
        HandoverRequest {
            dry_run: self.dry_run,
            networks: self.files.networks.clone(),
            azure_endpoints: self.files.azure_endpoints.clone(),
            azure_addresses: self.files.azure_addresses.clone(),
            ..HandoverRequest::default()
        }
    }
}

/// Runs `tapline adopt`.
#[must_use]
pub fn adopt(args: &AdoptArgs) -> Exit {
    let request = HandoverRequest {
        bridge: args.bridge.clone(),
        confirm_within_seconds: args.confirm_within,
        namespaces: args.namespaces.clone(),
        ..args.common.request()
    };
    ask("adopt", &args.common.socket, &request)
}

/// Runs `tapline release`.
#[must_use]
pub fn release(args: &ReleaseArgs) -> Exit {
    ask("release", &args.common.socket, &args.common.request())
}

/// Runs `tapline confirm`.
#[must_use]
pub fn confirm(args: &ConfirmArgs) -> Exit {
    ask("confirm", &args.socket, &HandoverRequest::default())
}

fn ask(what: &str, socket: &std::path::Path, request: &HandoverRequest) -> Exit {
    let client = Client::new(socket).within(WITHIN);
    match client.post::<HandoverReply>(&format!("/v1/{what}"), request) {
        Ok(reply) => {
            tell(&reply.steps, reply.done);
            if reply.confirm_by.is_some() {
                let within = request.confirm_within_seconds;
                println!("it goes back in {within} s unless: tapline confirm");
            }
            Exit::Ok
        }
        Err(ClientError::Refused(error)) => refused(what, &error),
        Err(error) => {
            eprintln!("tapline {what}: {error}");
            Exit::CheckFailed
        }
    }
}

fn tell(steps: &[String], done: bool) {
    let mark = if done { "done" } else { "would" };
    for step in steps {
        println!("{mark}  {step}");
    }
}

fn refused(what: &str, error: &ApiError) -> Exit {
    eprintln!("tapline {what}: {}", error.message);
    match error.kind {
        ErrorKind::Invalid | ErrorKind::NotFound => Exit::BadInput,
        _ => Exit::CheckFailed,
    }
}

/// Runs `tapline rescue`.
#[must_use]
pub fn rescue(args: &RescueArgs) -> Exit {
    let known = Places::default();
    let files = &args.files;
    let places = Places {
        networks: files.networks.clone().unwrap_or(known.networks),
        azure_endpoints: files
            .azure_endpoints
            .clone()
            .unwrap_or(known.azure_endpoints),
        azure_addresses: files
            .azure_addresses
            .clone()
            .unwrap_or(known.azure_addresses),
    };
    let net = Netns::current("this node").map_err(|error| error.to_string());
    let net = net.and_then(|netns| Netlink::open(&netns).map_err(|error| error.to_string()));
    match net.map(|net| adopt::rescue(&args.state, &net, &places, args.dry_run)) {
        Ok(Ok(steps)) => {
            tell(&steps, !args.dry_run);
            Exit::Ok
        }
        Ok(Err(error)) => refused("rescue", &error),
        Err(error) => {
            eprintln!("tapline rescue: {error}");
            Exit::Unsupported
        }
    }
}
