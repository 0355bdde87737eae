//! The variables by which a runtime says what it wants.
//!
//! In: `CNI_COMMAND` and its companions. Out: [`Environment`], all of it checked.
//! Never: an interface name that the kernel would cut short, or an id that leaves its folder.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, statfs};

use super::args::Args;
use super::error::{CniError, Code};
use crate::devices::DeviceName;

/// `NSFS_MAGIC` of `linux/magic.h`.
const NAMESPACE_FILE_SYSTEM: FsType = FsType(0x6e73_6673);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// Is it attached as it was left?
    Check,
    /// Could an ADD be served?
    Status,
    /// Which versions are spoken?
    Version,
    /// Detach all but those listed.
    Gc,
}

impl Command {
    fn parse(text: &str) -> Option<Command> {
        match text {
            "ADD" => Some(Command::Add),
            "DEL" => Some(Command::Del),
            "CHECK" => Some(Command::Check),
            "STATUS" => Some(Command::Status),
            "VERSION" => Some(Command::Version),
            "GC" => Some(Command::Gc),
            _ => None,
        }
    }

    /// Which variables it needs, after the table in SPEC.md ("CNI operations").
    const fn needs(self) -> &'static [&'static str] {
        match self {
            Command::Add | Command::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Command::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Command::Gc => &["CNI_PATH"],
            Command::Status | Command::Version => &[],
        }
    }
}

/// One interface of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The container's id.
    pub container: String,
    /// The interface's name in it.
    pub interface: DeviceName,
    /// Its network namespace; only DEL may be without it.
    pub netns: Option<PathBuf>,
}

/// What a runtime said in variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// What is to be done.
    pub command: Command,
    /// To whom: present for ADD, DEL and CHECK.
    pub attachment: Option<Attachment>,
    /// `CNI_ARGS`.
    pub args: Args,
    /// Where plugins are, in order.
    pub path: Vec<PathBuf>,
}

impl Environment {
    /// Reads the variables by way of `lookup`.
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`]; all that are missing are named together.
    pub fn read(lookup: &impl Fn(&str) -> Option<OsString>) -> Result<Environment, CniError> {
        let invalid = |what: String| CniError::new(Code::InvalidEnvironment, what);
        let text = |name: &str| match lookup(name).unwrap_or_default().into_string() {
            Ok(text) => Ok(text),
            Err(_) => Err(invalid(format!("{name} is not UTF-8"))),
        };
        let word = text("CNI_COMMAND")?;
        let command = Command::parse(&word);
        if word.is_empty() {
            return Err(missing(&["CNI_COMMAND"]));
        }
        let command = command.ok_or_else(|| invalid(format!("unknown CNI_COMMAND: {word}")))?;
        let mut absent = Vec::new();
        for name in command.needs() {
            if text(name)?.is_empty() {
                absent.push(*name);
            }
        }
        if !absent.is_empty() {
            return Err(missing(&absent));
        }
        let attachment = match command {
            Command::Add | Command::Del | Command::Check => Some(Attachment {
                container: container(text("CNI_CONTAINERID")?)?,
                interface: interface(&text("CNI_IFNAME")?)?,
                netns: netns(&text("CNI_NETNS")?)?,
            }),
            _ => None,
        };
        if let Some(path) = attachment.as_ref().and_then(|a| a.netns.as_deref()) {
            let own = ["TRUE", "1"].contains(&text("CNI_NETNS_OVERRIDE")?.to_uppercase().as_str());
            check_netns(path, command, own)?;
        }
        let args = match attachment {
            Some(_) => Args::parse(&text("CNI_ARGS")?)?,
            None => Args::default(),
        };
        let path = std::env::split_paths(&lookup("CNI_PATH").unwrap_or_default())
            .filter(|folder| !folder.as_os_str().is_empty())
            .collect();
        Ok(Environment {
            command,
            attachment,
            args,
            path,
        })
    }
}

fn missing(names: &[&str]) -> CniError {
    let what = format!("required env variables [{}] missing", names.join(","));
    CniError::new(Code::InvalidEnvironment, what)
}

/// `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`, as the reference library has it for ids and names.
pub(super) fn is_plain(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn container(id: String) -> Result<String, CniError> {
    if is_plain(&id) {
        Ok(id)
    } else {
        let what = "invalid characters in containerID";
        Err(CniError::new(Code::InvalidEnvironment, what).with_details(id))
    }
}

fn interface(name: &str) -> Result<DeviceName, CniError> {
    DeviceName::new(name).map_err(|bad| {
        CniError::new(Code::InvalidEnvironment, format!("CNI_IFNAME: {bad}"))
            .with_details(name.to_owned())
    })
}

fn netns(path: &str) -> Result<Option<PathBuf>, CniError> {
    match path {
        "" => Ok(None),
        _ if path.starts_with('/') => Ok(Some(path.into())),
        _ => Err(CniError::new(
            Code::InvalidEnvironment,
            format!("CNI_NETNS is not an absolute path: {path}"),
        )),
    }
}

/// A namespace that is gone is no fault of a DEL. The node's own is one of any command, unless the
/// runtime insists: an ADD there would give the node a pod's interface.
fn check_netns(path: &Path, command: Command, own_allowed: bool) -> Result<(), CniError> {
    let invalid = |what: String| CniError::new(Code::InvalidNetns, what);
    let Ok(found) = fs::metadata(path) else {
        return match command {
            Command::Del => Ok(()),
            _ => Err(invalid(format!("there is no namespace {}", path.display()))),
        };
    };
    let is_namespace = statfs(path).is_ok_and(|s| s.filesystem_type() == NAMESPACE_FILE_SYSTEM);
    if !is_namespace {
        // What `ip netns` leaves of one that is gone: a plain file.
        return match command {
            Command::Del => Ok(()),
            _ => Err(invalid(format!(
                "{} is no network namespace",
                path.display()
            ))),
        };
    }
    let own = fs::metadata("/proc/self/ns/net");
    let same = own.is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()));
    if same && !own_allowed {
        let what = "plugin's netns and netns from CNI_NETNS should not be the same";
        return Err(invalid(what.into()));
    }
    Ok(())
}
