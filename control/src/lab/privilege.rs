//! The lab's right to make devices, and the wall between them and the machine's own network.
//!
//! In: a process with one thread, at its very start.
//! Out: [`PrivateNet`], proof that the process has left the network it was started in.
//! Never: gives that proof while the process is still in the machine's network namespace.
//!
//! Root takes a fresh network namespace. Anyone else takes a fresh user namespace with it, in
//! which they are root over that network and over nothing else.

use std::fs;
use std::io;

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};

/// Bits of `CapEff` in `/proc/self/status`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// How the process came into its own network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// It had the right to make a network namespace.
    Root,
    /// It made a user namespace first, as this user.
    UserNamespace {
        /// The user who is root inside.
        uid: u32,
        /// The group that is root's inside.
        gid: u32,
    },
}

/// Proof that this process runs in a network namespace of its own. Code that makes devices on the
/// lab's behalf asks for it, so that it cannot be reached from the machine's network.
#[derive(Debug)]
pub struct PrivateNet {
    means: Means,
}

impl PrivateNet {
    /// How it was entered.
    #[must_use]
    pub fn means(&self) -> Means {
        self.means
    }

    /// True if this process may also mount, and so pin namespaces below `/run/netns` where other
    /// programs see them.
    #[must_use]
    pub fn may_pin(&self) -> bool {
        self.means == Means::Root
    }
}

/// Why the process could not leave the machine's network.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// Threads share the namespaces that they were born in.
    #[error("namespaces can only be entered by a process with one thread; this one has {0}")]
    Threads(usize),
    /// The kernel does not let this process make a network namespace, though it is root.
    #[error("cannot make a network namespace: {0}")]
    NetworkNamespace(io::Error),
    /// The kernel does not let this user make a user namespace.
    #[error("cannot make a user namespace: {0}")]
    UserNamespace(io::Error),
    /// The user namespace was made but gives no rights.
    #[error("cannot become root in the user namespace: writing {file} says {source}")]
    Map {
        /// The file below `/proc/self`.
        file: &'static str,
        /// What writing it says.
        source: io::Error,
    },
    /// `/proc` cannot be read.
    #[error("cannot read {file}: {source}")]
    Proc {
        /// The file.
        file: &'static str,
        /// What reading it says.
        source: io::Error,
    },
    /// All calls went well and yet nothing changed.
    #[error("the process is still in the network namespace that it was started in")]
    StillOutside,
}

/// Leaves the machine's network for a fresh one, for good. To be called first thing, before any
/// thread is started: it cannot be undone.
///
/// # Errors
/// [`EnterError`]. The process may then be in a half-made user namespace and should end.
pub fn enter() -> Result<PrivateNet, EnterError> {
    let threads = threads()?;
    if threads != 1 {
        return Err(EnterError::Threads(threads));
    }
    let before = network()?;
    let means = if has_rights()? {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| EnterError::NetworkNamespace(e.into()))?;
        Means::Root
    } else {
        enter_user_namespace()?
    };
    if network()? == before {
        Err(EnterError::StillOutside)
    } else {
        Ok(PrivateNet { means })
    }
}

/// True if this process may make network namespaces and devices as it is.
///
/// # Errors
/// [`EnterError::Proc`] if `/proc` does not say.
pub fn has_rights() -> Result<bool, EnterError> {
    let status = read("/proc/self/status")?;
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or_default();
    Ok(held >> CAP_NET_ADMIN & held >> CAP_SYS_ADMIN & 1 == 1)
}

fn enter_user_namespace() -> Result<Means, EnterError> {
    let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
    // Both at once: the user namespace then owns the network namespace, whatever order the
    // kernel makes them in.
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(|e| EnterError::UserNamespace(e.into()))?;
    // Without this one the kernel lets nobody write a group map (since 3.19).
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    Ok(Means::UserNamespace { uid, gid })
}

fn threads() -> Result<usize, EnterError> {
    let file = "/proc/self/task";
    let tasks = fs::read_dir(file).map_err(|source| EnterError::Proc { file, source })?;
    Ok(tasks.count())
}

/// The identity of the calling thread's network namespace.
fn network() -> Result<std::path::PathBuf, EnterError> {
    let file = "/proc/thread-self/ns/net";
    fs::read_link(file).map_err(|source| EnterError::Proc { file, source })
}

fn read(file: &'static str) -> Result<String, EnterError> {
    fs::read_to_string(file).map_err(|source| EnterError::Proc { file, source })
}

fn write(file: &'static str, text: &str) -> Result<(), EnterError> {
    match fs::write(file, text) {
        // A kernel older than the rule has no such file, and needs none.
        Err(gone) if file.ends_with("setgroups") && gone.raw_os_error() == Some(libc::ENOENT) => {
            Ok(())
        }
        other => other.map_err(|source| EnterError::Map { file, source }),
    }
}
