//! An `ipam` plugin, run as the specification says: with our environment and our configuration.
//!
//! In: its name, where plugins are, and the command. Out: what it printed, or its error.
//! Never: runs a program that `CNI_PATH` does not hold, waits for ever, or reads without end.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use super::error::{CniError, Code};

/// An IPAM plugin that asks a server may take seconds; runtimes give up after minutes.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often an unfinished one is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// How long its output may take after it has ended.
const AFTER_EXIT: Duration = Duration::from_secs(1);
/// A result of a hundred addresses takes a hundredth of it.
const OUTPUT_MAX: u64 = 1 << 20;

/// An `ipam` plugin that was found.
#[derive(Clone, Debug)]
pub(super) struct Delegate<'a> {
    program: PathBuf,
    configuration: &'a [u8],
}

#[derive(Deserialize)]
struct Said {
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

impl<'a> Delegate<'a> {
    /// Looks for the plugin in the folders, in order.
    pub(super) fn find(
        name: &str,
        folders: &[PathBuf],
        configuration: &'a [u8],
    ) -> Result<Delegate<'a>, CniError> {
        let mut candidates = folders.iter().map(|folder| folder.join(name));
        match candidates.find(|path| is_program(path)) {
            Some(program) => Ok(Delegate {
                program,
                configuration,
            }),
            None => {
                let folders: Vec<_> = folders.iter().map(|f| f.display().to_string()).collect();
                let what = format!("failed to find plugin {name:?} in path {folders:?}");
                Err(CniError::new(Code::Io, what))
            }
        }
    }

    /// Runs a command whose answer is a document.
    pub(super) fn ask(&self, command: &str) -> Result<Value, CniError> {
        let printed = self.run(command)?;
        serde_json::from_slice(&printed).map_err(|why| {
            let what = format!("{} printed no result: {why}", self.program.display());
            CniError::new(Code::Decoding, what)
        })
    }

    /// Runs a command, and returns what it printed.
    pub(super) fn run(&self, command: &str) -> Result<Vec<u8>, CniError> {
        let io = |what: &str, why: std::io::Error| {
            let what = format!("cannot {what} {}: {why}", self.program.display());
            CniError::new(Code::Io, what)
        };
        let mut child = Command::new(&self.program)
            .env("CNI_COMMAND", command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|why| io("run", why))?;
        let mut stdin = child.stdin.take().expect("it was asked for");
        let stdout = child.stdout.take().expect("it was asked for");
        let configuration = self.configuration.to_vec();
        // A plugin that does not read its configuration closes the pipe: its own affair.
        thread::spawn(move || stdin.write_all(&configuration));
        let (printer, prints) = mpsc::channel();
        thread::spawn(move || {
            let mut printed = Vec::new();
            let read = stdout.take(OUTPUT_MAX).read_to_end(&mut printed);
            printer.send(read.map(|_| printed))
        });
        let status = wait(&mut child);
        // Somebody whom it started may hold its standard output open for ever.
        let late = |_| Err(std::io::ErrorKind::TimedOut.into());
        let printed = prints.recv_timeout(AFTER_EXIT).unwrap_or_else(late);
        let status = status.map_err(|why| io("wait for", why))?;
        let printed = printed.map_err(|why| io("read what was printed by", why))?;
        if status.success() {
            return Ok(printed);
        }
        Err(match serde_json::from_slice::<Said>(&printed) {
            Ok(said) => CniError::new(Code::Other(said.code), said.msg).with_details(said.details),
            Err(_) => {
                let what = format!("{} failed: {status}", self.program.display());
                let printed = String::from_utf8_lossy(&printed).trim().to_owned();
                CniError::new(Code::Delegate, what).with_details(printed)
            }
        })
    }
}

/// Waits for the child; one that takes too long is killed.
fn wait(child: &mut Child) -> std::io::Result<ExitStatus> {
    let end = Instant::now() + PATIENCE;
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(status),
            None if Instant::now() > end => {
                child.kill()?;
                return child.wait();
            }
            None => thread::sleep(LOOK),
        }
    }
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
