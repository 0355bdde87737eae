//! The words of a capture: what is wanted, and what was seen.
//!
//! In: nothing. Out: types that serde reads and writes.
//! Never: more than text: bytes of frames are hexadecimal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `POST /v1/capture`: begin to look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureRequest {
    /// Only frames of this port: `host`, `uplink`, or a pod's name, with or without its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Only frames that die.
    #[serde(default)]
    pub drops: bool,
    /// Only frames that pass this, in the words of [`crate::filter`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Bytes of each frame that are wanted.
    pub snap: usize,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureStarted {
    /// The capture's number.
    pub id: u64,
    /// What each port is called.
    pub names: BTreeMap<usize, String>,
}

/// `POST /v1/capture/read` and `/v1/capture/stop`: which capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureId {
    /// Its number.
    pub id: u64,
}

/// What was seen since the last reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Frames that found no room, since the beginning.
    pub missed: u64,
    /// When these were read, in nanoseconds since 1970: the walk of a frame reads no clock.
    pub nanos: u64,
    /// The frames, in the order of their decisions.
    pub frames: Vec<SeenFrame>,
}

/// A frame, as it came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenFrame {
    /// Its length in bytes.
    pub len: usize,
    /// Its first bytes.
    pub hex: String,
    /// The port that it came in by; none if the switch made it, or a port refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<usize>,
    /// The port that it was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<usize>,
    /// `forwarded`, `flooded`, `punted`, `waiting`, `dropped` or `originated`.
    pub fate: String,
    /// Why it died.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
