//! `tapline run` and `tapline reload`: the daemon, and a word to it.
//!
//! In: the arguments. Out: an exit status; a refusal on standard error.
//! Never: does the work itself.

use std::path::PathBuf;

use super::Exit;
use crate::api::types::SOCKET_DEFAULT;
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
}

/// Runs `tapline run`.
#[must_use]
pub fn run(args: &RunArgs) -> Exit {
    match process::run(&args.config) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            eprintln!("tapline run: {}", error.to_string().trim_end());
            match error {
                RunError::Config(_) => Exit::BadInput,
                RunError::Right(_) => Exit::Unsupported,
                RunError::Daemon(_) | RunError::SwitchDied => Exit::CheckFailed,
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
