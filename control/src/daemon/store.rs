//! The state file: who is attached, over restarts of the daemon and of the node.
//!
//! In: attachments, and what the IPAM wants to remember. Out: the same, read back.
//! Never: a half-written file: a new one is written beside the old one, synced, and renamed over
//! it. A file that makes no sense is named and left as it is.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::attachment::Attachment;
use crate::ipam::Memory;

/// The file's name in the state folder.
pub const FILE: &str = "attachments.json";
/// The lock's name there.
const LOCK: &str = "lock";
/// The shape of the file.
const VERSION: u32 = 1;
/// The largest file that is read: 510 ports with 2 KB each are a megabyte.
const FILE_MAX: u64 = 16 << 20;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The shape.
    pub(super) version: u32,
    /// Who is attached.
    pub attachments: Vec<Attachment>,
    /// What the IPAM knows besides.
    #[serde(default)]
    pub memory: Memory,
    /// Gateways that the host port was forced to have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpNet>,
}

impl State {
    /// A state to write.
    #[must_use]
    pub fn new(attachments: Vec<Attachment>, memory: Memory) -> State {
        State {
            version: VERSION,
            attachments,
            memory,
            gateways: Vec::new(),
        }
    }

    /// Whether it makes sense.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), String> {
        if self.version != VERSION {
            let version = self.version;
            return Err(format!("version {version}, of which {VERSION} is known"));
        }
        let mut ports: Vec<u16> = self.attachments.iter().map(|one| one.port).collect();
        ports.sort_unstable();
        if let Some(twice) = ports.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("port {} is given twice", twice[0]));
        }
        if let Some(bad) = self.attachments.iter().find(|a| a.pod_port().is_none()) {
            return Err(format!("{} has no port or no MAC", bad.key));
        }
        Ok(())
    }
}

/// The state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system said no.
    #[error("cannot {attempt} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is there is no state of ours.
    #[error(
        "{} makes no sense: {why}. It is left as it is; move it away, and the pods attached now \
         will be forgotten",
        path.display()
    )]
    Senseless {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another daemon has it.
    #[error("another daemon works on {}", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
}

/// The state folder, held by one daemon.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// Held until this process ends, however it does, and each to which it was handed on.
    lock: File,
}

impl Store {
    /// Takes the folder, and makes it if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another daemon has it, or what the system says.
    pub fn open(folder: &Path) -> Result<Store, StoreError> {
        let failed = |attempt, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io {
                attempt,
                path,
                source,
            }
        };
        fs::create_dir_all(folder).map_err(failed("make", folder))?;
        let path = folder.join(LOCK);
        // A folder that cannot be written today may still be read: what was attached before is
        // served, and an ADD says what is wrong.
        let made = File::options().create(true).append(true).open(&path);
        let lock = match made {
            // Not held open for writing, by which the file system could not be made read-only.
            Ok(_) => File::open(&path),
            Err(refused) => match refused.kind() {
                io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::StorageFull
                | io::ErrorKind::PermissionDenied => File::open(folder),
                _ => Err(refused),
            },
        };
        let lock = lock.map_err(failed("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let path = folder.to_owned();
                return Err(StoreError::Locked { path });
            }
            Err(fs::TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        }
        Ok(Store {
            folder: folder.to_owned(),
            lock,
        })
    }

    /// The folder of a daemon that hands it over with its lock: both hold it while both live.
    #[must_use]
    pub fn handed(folder: &Path, lock: OwnedFd) -> Store {
        Store {
            folder: folder.to_owned(),
            lock: lock.into(),
        }
    }

    /// The lock, to be handed over.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// What was kept; nothing where nothing was.
    ///
    /// # Errors
    /// [`StoreError::Senseless`], or what the system says.
    pub fn load(&self) -> Result<State, StoreError> {
        let path = self.path();
        let failed = |attempt| {
            let path = path.clone();
            move |source| StoreError::Io {
                attempt,
                path,
                source,
            }
        };
        let senseless = |why: String| StoreError::Senseless {
            path: path.clone(),
            why,
        };
        let length = match fs::metadata(&path) {
            Ok(found) => found.len(),
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(other) => return Err(failed("look at")(other)),
        };
        if length > FILE_MAX {
            return Err(senseless(format!("{length} bytes are too many")));
        }
        let text = fs::read(&path).map_err(failed("read"))?;
        let state: State =
            serde_json::from_slice(&text).map_err(|error| senseless(error.to_string()))?;
        state.check().map_err(senseless)?;
        Ok(state)
    }

    /// Keeps `state` in place of what was kept.
    ///
    /// # Errors
    /// What the system says; then the old one stands.
    pub fn save(&self, state: &State) -> Result<(), StoreError> {
        let path = self.path();
        let beside = self.folder.join(format!(".{FILE}.new"));
        let written = write(&beside, state).and_then(|()| fs::rename(&beside, &path));
        if let Err(source) = written {
            let _ = fs::remove_file(&beside);
            return Err(StoreError::Io {
                attempt: "write",
                path,
                source,
            });
        }
        // The rename itself: without this a power cut may bring the old file back.
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| StoreError::Io {
            attempt: "sync",
            path: self.folder.clone(),
            source,
        })
    }
}

fn write(path: &Path, state: &State) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(state).map_err(io::Error::other)?;
    text.push(b'\n');
    let mut file = File::create(path)?;
    file.write_all(&text)?;
    file.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn attachment(port: u16) -> Attachment {
        let text = format!(
            r#"{{"network": "kubenet", "container_id": "c{port}", "ifname": "eth0",
                "pod": {{"namespace": "default", "name": "pod-a"}},
                "netns": "/run/netns/a", "port": {port}, "host_end": "veth0a0b0c0d",
                "tap": "tap0a0b0c0d", "mac": "0a:58:0a:f4:00:02", "mtu": 1500,
                "addresses": [{{"address": "10.244.0.2/24", "gateway": "10.244.0.1"}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn what_is_kept_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er");
        let store = Store::open(&path).unwrap();
        assert_eq!(store.load().unwrap(), State::default());
        let memory = Memory {
            last: vec!["10.244.0.2".parse().unwrap()],
            ..Memory::default()
        };
        let state = State::new(vec![attachment(2), attachment(3)], memory);
        store.save(&state).unwrap();
        assert_eq!(store.load().unwrap(), state);
        let held: Vec<_> = fs::read_dir(&path).unwrap().flatten().collect();
        assert_eq!(held.len(), 2, "the file and the lock, and nothing beside");
    }

    #[test]
    fn a_second_daemon_does_not_get_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = Store::open(folder.path()).unwrap();
        let second = Store::open(folder.path()).unwrap_err();
        assert!(matches!(second, StoreError::Locked { .. }), "{second}");
        drop(first);
        assert!(Store::open(folder.path()).is_ok());
    }

    #[test]
    fn a_file_that_makes_no_sense_is_named_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let twice = State::new(vec![attachment(2), attachment(2)], Memory::default());
        let far = State::new(vec![attachment(9999)], Memory::default());
        for (text, why) in [
            ("{\"version\": 1, \"attachm".to_owned(), "EOF"),
            ("[]".to_owned(), "invalid"),
            (
                r#"{"version": 2, "attachments": []}"#.to_owned(),
                "version 2",
            ),
            (
                serde_json::to_string(&twice).unwrap(),
                "port 2 is given twice",
            ),
            (serde_json::to_string(&far).unwrap(), "no port"),
        ] {
            fs::write(store.path(), &text).unwrap();
            let refused = store.load().unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
            assert_eq!(fs::read_to_string(store.path()).unwrap(), text);
        }
    }

    #[test]
    fn where_nothing_can_be_written_the_old_state_stands() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let state = State::new(vec![attachment(2)], Memory::default());
        store.save(&state).unwrap();
        // In the way of the file that is written beside; root heeds no mode bits.
        fs::create_dir(folder.path().join(".attachments.json.new")).unwrap();
        let refused = store.save(&State::new(Vec::new(), Memory::default()));
        assert!(matches!(
            refused,
            Err(StoreError::Io {
                attempt: "write",
                ..
            })
        ));
        assert_eq!(store.load().unwrap(), state);
    }
}
