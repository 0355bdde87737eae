//! How `lab exec` finds a lab that is held: a small file that names its namespaces.
//!
//! In: the names and descriptors of a lab, or a name to enter.
//! Out: a file that only this user can read, or this process inside the namespace.
//! Never: trusts a file whose lab is gone: a process id is only good together with its start time.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

use super::reaper::start_time;
use crate::devices::netns::Netns;

/// What the file says.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    pid: u32,
    started: u64,
    plugin: String,
    namespaces: BTreeMap<String, i32>,
}

/// Why a lab could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// No lab runs.
    #[error("no lab is held; start one with: tapline lab --hold")]
    NoLab,
    /// Several do.
    #[error("several labs are held; choose one with --lab: {0}")]
    Several(String),
    /// The one asked for does not run.
    #[error("no lab has process id {0}")]
    NotThat(u32),
    /// It has no such pod or node.
    #[error("this lab has no {name}; it has {known}")]
    NoSuchName {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The kernel refused.
    #[error("entering {0}: {1}")]
    Refused(String, io::Error),
}

/// Writes the file of this process's lab, and returns its path.
///
/// # Errors
/// What the file system says; `PermissionDenied` if somebody else owns the folder.
pub fn announce<'a>(
    plugin: &str,
    namespaces: impl Iterator<Item = (&'a str, &'a Netns)>,
) -> io::Result<PathBuf> {
    let pid = std::process::id();
    let entry = Entry {
        pid,
        started: start_time(pid)?,
        plugin: plugin.to_owned(),
        namespaces: namespaces
            .map(|(name, netns)| (name.to_owned(), netns.file().as_raw_fd()))
            .collect(),
    };
    let folder = folder();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)?;
    if fs::symlink_metadata(&folder)?.uid() != owner() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let path = folder.join(format!("lab-{pid}.json"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)?;
    file.write_all(&serde_json::to_vec(&entry)?)?;
    Ok(path)
}

/// Moves this process, which must have one thread, into the namespace of a pod or node.
///
/// # Errors
/// Which lab or name is missing, or what the kernel says.
pub fn enter(name: &str, lab: Option<u32>) -> Result<(), EnterError> {
    let entry = choose(living(), lab)?;
    let Some(descriptor) = entry.namespaces.get(name) else {
        let known: Vec<&str> = entry.namespaces.keys().map(String::as_str).collect();
        return Err(EnterError::NoSuchName {
            name: name.to_owned(),
            known: known.join(", "),
        });
    };
    let pid = entry.pid;
    let refused = |error: io::Error| EnterError::Refused(name.to_owned(), error);
    let network = File::open(format!("/proc/{pid}/fd/{descriptor}")).map_err(refused)?;
    let theirs = format!("/proc/{pid}/ns/user");
    let same = fs::metadata(&theirs).map_err(refused)?.ino()
        == fs::metadata("/proc/self/ns/user").map_err(refused)?.ino();
    if !same {
        let user = File::open(theirs).map_err(refused)?;
        setns(user, CloneFlags::CLONE_NEWUSER).map_err(|e| refused(e.into()))?;
    }
    setns(network, CloneFlags::CLONE_NEWNET).map_err(|e| refused(e.into()))
}

fn choose(mut labs: Vec<Entry>, wanted: Option<u32>) -> Result<Entry, EnterError> {
    match wanted {
        Some(pid) => labs
            .into_iter()
            .find(|lab| lab.pid == pid)
            .ok_or(EnterError::NotThat(pid)),
        None if labs.len() > 1 => {
            let names: Vec<String> = labs
                .iter()
                .map(|lab| format!("{} ({})", lab.pid, lab.plugin))
                .collect();
            Err(EnterError::Several(names.join(", ")))
        }
        None => labs.pop().ok_or(EnterError::NoLab),
    }
}

/// The labs of this user that still run.
fn living() -> Vec<Entry> {
    let Ok(files) = fs::read_dir(folder()) else {
        return Vec::new();
    };
    let read = |path: &Path| serde_json::from_slice::<Entry>(&fs::read(path).ok()?).ok();
    files
        .filter_map(|file| read(&file.ok()?.path()))
        .filter(|entry| start_time(entry.pid).is_ok_and(|started| started == entry.started))
        .collect()
}

/// A folder of this user's own. Inside a user namespace everyone is root, so the name is that of
/// the user outside.
fn folder() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|p| p.is_dir());
    match runtime {
        Some(runtime) => runtime.join("tapline"),
        None => std::env::temp_dir().join(format!("tapline-{}", outer_uid())),
    }
}

/// The user that this process is outside its user namespace, from the map that `enter` wrote.
fn outer_uid() -> u32 {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut words = map.split_whitespace().map(str::parse::<u32>);
    match (words.next(), words.next(), words.next()) {
        (Some(Ok(0)), Some(Ok(outer)), Some(Ok(1))) => outer,
        _ => nix::unistd::Uid::current().as_raw(),
    }
}

/// The user who owns what this process makes, as this process sees it.
fn owner() -> u32 {
    nix::unistd::Uid::effective().as_raw()
}
