//! `tapline run`, `tapline reload` and `tapline upgrade`: the daemon, and a word to it.
//!
//! In: the arguments. Out: an exit status; a refusal on standard error.
//! Never: does the work itself.

use std::path::PathBuf;
use std::time::Duration;

use super::Exit;
use crate::api::types::{SOCKET_DEFAULT, UpgradeReply, UpgradeRequest};
use crate::api::{Client, ClientError};
use crate::config::CONFIG_PATH;
use crate::daemon::process::{self, RunError};

const RUN_STATUS: &str = "Exit status:
  0  it was told to stop, and stopped
  1  it could not go on; the log says why
  2  the configuration is at fault; nothing was created
  3  this machine lacks something the daemon needs; nothing was created";

/// Arguments of `tapline run`.
#[derive(clap::Args, Debug)]
#[command(after_help = RUN_STATUS, after_long_help = RUN_STATUS)]
pub struct RunArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = CONFIG_PATH)]
    config: PathBuf,
    /// Take the place of the daemon at the other end of standard input. Not for people.
    #[arg(long, hide = true)]
    handover: bool,
}

/// Runs `tapline run`.
#[must_use]
pub fn run(args: &RunArgs) -> Exit {
    let ran = match args.handover {
        true => process::take_over(&args.config),
        false => process::run(&args.config),
    };
    match ran {
        Ok(()) => Exit::Ok,
        Err(error) => {
            eprintln!("tapline run: {}", error.to_string().trim_end());
            match error {
                RunError::Config(_) => Exit::BadInput,
                RunError::Right(_) => Exit::Unsupported,
                RunError::Daemon(_)
                | RunError::SwitchDied
                | RunError::Take(_)
                | RunError::Unknown(_) => Exit::CheckFailed,
            }
        }
    }
}

/// Arguments of `tapline reload`.
#[derive(clap::Args, Debug)]
pub struct ReloadArgs {
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET_DEFAULT)]
    socket: PathBuf,
}

/// Runs `tapline reload`.
#[must_use]
pub fn reload(args: &ReloadArgs) -> Exit {
    let client = Client::new(&args.socket);
    match client.post::<serde_json::Value>("/v1/reload", &serde_json::json!({})) {
        Ok(_) => Exit::Ok,
        Err(ClientError::Refused(error)) => {
            eprintln!(
                "tapline reload: the old configuration stays: {}",
                error.message.trim_end()
            );
            Exit::BadInput
        }
        Err(error) => {
            eprintln!("tapline reload: {error}");
            Exit::CheckFailed
        }
    }
}

/// Frames wait for milliseconds; the rest is the new process's start, for which others wait, too.
const UPGRADE_WITHIN: Duration = Duration::from_secs(110);

const UPGRADE_STATUS: &str = "Exit status:
  0  the new process serves
  1  it does not, and the old one goes on unharmed";

/// Arguments of `tapline upgrade`.
#[derive(clap::Args, Debug)]
#[command(after_help = UPGRADE_STATUS, after_long_help = UPGRADE_STATUS)]
pub struct UpgradeArgs {
    /// The program to go on with [default: the daemon's own, as it is on disk now].
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET_DEFAULT)]
    socket: PathBuf,
}

/// Runs `tapline upgrade`.
#[must_use]
pub fn upgrade(args: &UpgradeArgs) -> Exit {
    let client = Client::new(&args.socket).within(UPGRADE_WITHIN);
    let binary = args.binary.as_ref().map(std::path::absolute).transpose();
    let binary = match binary {
        Ok(binary) => binary,
        Err(error) => {
            eprintln!("tapline upgrade: --binary: {error}");
            return Exit::BadInput;
        }
    };
    match client.post::<UpgradeReply>("/v1/upgrade", &UpgradeRequest { binary }) {
        Ok(reply) => {
            reply.steps.iter().for_each(|step| println!("{step}"));
            let gap = Duration::from_micros(reply.gap_us).as_secs_f64() * 1000.0;
            println!(
                "tapline {} follows tapline {}: a gap of {gap:.1} ms",
                reply.to, reply.from
            );
            Exit::Ok
        }
        Err(ClientError::Refused(error)) => {
            eprintln!(
                "tapline upgrade: the old daemon goes on: {}",
                error.message.trim_end()
            );
            Exit::CheckFailed
        }
        Err(error) => {
            eprintln!("tapline upgrade: {error}");
            Exit::CheckFailed
        }
    }
}
