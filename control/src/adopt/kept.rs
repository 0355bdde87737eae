//! The way back, on disk: what a bridge was, for a release, for an undoing, and for a rescue that has
//! no daemon to ask.
//!
//! In: a [`Kept`] before traffic moves. Out: the same, read back.
//! Never: a half-written file; or a way back that is thrown away before its end was reached.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::dns::Dns;
use super::steps::{BridgeShape, Handover, PodShape};
use crate::devices::name::DeviceName;

/// The file's name in the state folder.
pub const FILE: &str = "bridge.json";
/// What a bridge is called while the host port bears its name.
pub const BRIDGE_ASIDE: &str = "tl-bridge";
/// What the host port is called while the bridge bears its name.
pub const HOST_ASIDE: &str = "tl-host";
/// The shape of the file.
const VERSION: u32 = 1;

/// What is kept of a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The shape of the file.
    version: u32,
    /// The bridge.
    pub bridge: BridgeShape,
    /// The node's NIC, if it hung on the bridge.
    pub uplink: Option<DeviceName>,
    /// What becomes of the servers for names.
    #[serde(default)]
    pub dns: Dns,
    /// Its pods, when it was adopted.
    #[serde(default)]
    pub pods: Vec<PodShape>,
    /// An adoption that nobody has confirmed goes back at this time, in seconds since the node's boot.
    pub confirm_by: Option<u64>,
    /// The node's device that leads to the network, and the switch's TAP for it: whose steering a
    /// rescue takes away.
    pub steered: (DeviceName, DeviceName),
}

impl Kept {
    /// A way back.
    #[must_use]
    pub fn new(
        bridge: BridgeShape,
        uplink: Option<DeviceName>,
        steered: (DeviceName, DeviceName),
    ) -> Kept {
        Kept {
            version: VERSION,
            bridge,
            uplink,
            dns: Dns::default(),
            pods: Vec::new(),
            confirm_by: None,
            steered,
        }
    }

    /// The handover of these pods, whichever way it is walked. `node_address` is the
    /// one from which an azure node speaks to its pods.
    #[must_use]
    pub fn handover(&self, pods: Vec<PodShape>, node_address: Option<Ipv4Addr>) -> Handover {
        let name = |text| DeviceName::new(text).expect("our own names are device names");
        Handover {
            bridge: self.bridge.clone(),
            bridge_aside: name(BRIDGE_ASIDE),
            host_aside: name(HOST_ASIDE),
            uplink: self.uplink.clone(),
            dns: self.dns.clone(),
            node_address,
            pods,
        }
    }

    /// What is kept in `folder`; nothing if nothing is.
    ///
    /// # Errors
    /// What reading it says; `InvalidData` for a file of another shape.
    pub fn load(folder: &Path) -> io::Result<Option<Kept>> {
        let text = match fs::read(folder.join(FILE)) {
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let kept: Kept = serde_json::from_slice(&text)?;
        match kept.version {
            VERSION => Ok(Some(kept)),
            other => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("version {other}, of which {VERSION} is known"),
            )),
        }
    }

    /// Keeps it in `folder`.
    ///
    /// # Errors
    /// What writing says; then what was there stays.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        let beside = folder.join(format!(".{FILE}.new"));
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let written = File::create(&beside)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&beside, folder.join(FILE)));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
            return written;
        }
        File::open(folder)?.sync_all()
    }

    /// Forgets it.
    ///
    /// # Errors
    /// What removing says, other than that it is gone.
    pub fn forget(folder: &Path) -> io::Result<()> {
        match fs::remove_file(folder.join(FILE)) {
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}
