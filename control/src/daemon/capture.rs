//! Captures: those who look at frames, by way of the control socket.
//!
//! In: which frames are wanted; then, again and again, a request for those seen since.
//! Out: copies with their fate, checksums completed.
//! Never: holds up a frame: one who reads too slowly misses copies, and is told how many. One who
//! reads no more is forgotten after [`IDLE_MAX`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dataplane::addr::{PortId, PortSet};
use dataplane::capture::{CAPTURES_MAX, Capture, Copied, Fate, SLOTS_DEFAULT, Wanted};

use super::core::Core;
use crate::api::capture::{CaptureRequest, CaptureStarted, Seen, SeenFrame};
use crate::api::types::{ApiError, ErrorKind};
use crate::filter::{Fault, Filter};

/// Captures at once: one more is for the host device.
const ASKED_MAX: usize = CAPTURES_MAX - 1;
/// A reader that has not asked for so long is gone.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Frames in one answer, so that it stays below a megabyte or a few.
const BATCH_MAX: usize = 512;
/// Frames looked at for one answer: all that can wait, twice.
const LOOKS_MAX: usize = 2 * SLOTS_DEFAULT;
/// Bytes of frames in one answer.
const BATCH_BYTES: usize = 1 << 20;
/// The longest piece of a frame that is copied.
pub(super) const SNAP_MAX: usize = 65_600;

/// The captures of a daemon, by number.
#[derive(Debug, Default)]
pub(super) struct Captures {
    next: u64,
    running: BTreeMap<u64, Running>,
}

#[derive(Debug)]
struct Running {
    capture: Arc<Capture>,
    filter: Option<Filter>,
    asked: Instant,
}

impl Core {
    /// Begins to look.
    ///
    /// # Errors
    /// `NotFound` for a port that nobody bears the name of, `Invalid` for a filter that is none,
    /// `Exhausted` if as many look as may.
    pub fn capture(&mut self, request: &CaptureRequest) -> Result<CaptureStarted, ApiError> {
        let ports = match &request.port {
            Some(name) => Some(self.ports_called(name)?),
            None => None,
        };
        let filter = request.filter.as_deref();
        let filter = filter.map(|text| self.filter(text)).transpose();
        let filter =
            filter.map_err(|fault| ApiError::new(ErrorKind::Invalid, fault.to_string()))?;
        let wanted = Wanted {
            ports,
            drops: request.drops,
            except: None,
        };
        let snap = request.snap.clamp(64, SNAP_MAX);
        // Super-frames want room, and small pieces can be many.
        let slots = if snap > 4096 {
            SLOTS_DEFAULT / 4
        } else {
            SLOTS_DEFAULT
        };
        if self.captures.running.len() >= ASKED_MAX {
            let why = "as many captures run as may";
            return Err(ApiError::new(ErrorKind::Exhausted, why));
        }
        let capture = Arc::new(Capture::new(wanted, slots, snap));
        let watched = self.switch.watcher().watch(&capture);
        watched.map_err(|error| ApiError::new(ErrorKind::Internal, error.to_string()))?;
        let id = self.captures.next;
        self.captures.next += 1;
        let asked = Instant::now();
        let running = Running {
            capture,
            filter,
            asked,
        };
        self.captures.running.insert(id, running);
        let names = self.port_names();
        Ok(CaptureStarted { id, names })
    }

    /// What has been seen since the last time.
    ///
    /// # Errors
    /// `NotFound` if there is no such capture (any more).
    pub fn captured(&mut self, id: u64) -> Result<Seen, ApiError> {
        let running = self.captures.running.get_mut(&id);
        let running = running.ok_or_else(|| {
            ApiError::new(ErrorKind::NotFound, format!("there is no capture {id}"))
        })?;
        running.asked = Instant::now();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanos = now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
        let mut seen = Seen {
            missed: running.capture.missed(),
            nanos,
            frames: Vec::new(),
        };
        let filter = running.filter.as_ref();
        let wanted = |copied: &Copied| {
            let passes = filter.is_none_or(|filter| filter.passes(copied.bytes()));
            passes.then(|| frame(copied))
        };
        let (mut looked_at, mut bytes) = (0, 0);
        while seen.frames.len() < BATCH_MAX && bytes < BATCH_BYTES && looked_at < LOOKS_MAX {
            let Some(frame) = running.capture.next(wanted) else {
                break;
            };
            looked_at += 1;
            bytes += frame.as_ref().map_or(0, |frame| frame.len);
            seen.frames.extend(frame);
        }
        Ok(seen)
    }

    /// Looks no more.
    ///
    /// # Errors
    /// `Internal` if a thread is gone.
    pub fn capture_ends(&mut self, id: u64) -> Result<(), ApiError> {
        let Some(running) = self.captures.running.remove(&id) else {
            return Ok(());
        };
        let ended = self.switch.watcher().unwatch(&running.capture);
        ended.map_err(|error| ApiError::new(ErrorKind::Internal, error.to_string()))
    }

    /// Forgets those who asked no more.
    pub(super) fn mind_the_captures(&mut self) {
        let idle = |(id, one): (&u64, &Running)| (one.asked.elapsed() > IDLE_MAX).then_some(*id);
        let idle: Vec<u64> = self.captures.running.iter().filter_map(idle).collect();
        for id in idle {
            tracing::info!("nobody reads capture {id} any more");
            if let Err(error) = self.capture_ends(id) {
                tracing::error!("{error}");
            }
        }
    }

    /// A filter, with the addresses that its pods have now.
    fn filter(&self, text: &str) -> Result<Filter, Fault> {
        let mut filter = Filter::parse(text)?;
        filter.find_pods(|name| {
            let all = self.attachments.values();
            let called = all.filter(|one| is_called(&one.name(), name));
            called.flat_map(super::Attachment::ips).collect()
        })?;
        Ok(filter)
    }

    fn ports_called(&self, wanted: &str) -> Result<PortSet, ApiError> {
        let mut set = PortSet::default();
        for (port, name) in self.port_names() {
            if let Some(port) = PortId::new(port).filter(|_| is_called(&name, wanted)) {
                set.insert(port);
            }
        }
        match set.is_empty() {
            false => Ok(set),
            true => {
                let why = format!("no port or pod is called {wanted}: see tapline show ports");
                Err(ApiError::new(ErrorKind::NotFound, why))
            }
        }
    }

    fn port_names(&self) -> BTreeMap<usize, String> {
        let pods = self
            .attachments
            .values()
            .filter_map(super::Attachment::port_id);
        let ports = [crate::compile::HOST_PORT, crate::compile::UPLINK_PORT];
        let all = ports.into_iter().chain(pods);
        all.map(|port| (port.index(), self.port_name(port)))
            .collect()
    }
}

/// True if a name is that, whole or without its namespace.
fn is_called(name: &str, wanted: &str) -> bool {
    name == wanted || name.rsplit_once('/').is_some_and(|(_, pod)| pod == wanted)
}

/// A copy as it is told, with the checksum that its sender left undone.
fn frame(copied: &Copied) -> SeenFrame {
    let mut bytes = Vec::with_capacity(copied.bytes().len());
    copied.completed(&mut bytes);
    let (fate, reason, egress) = match copied.fate {
        Fate::Forwarded { egress, .. } => ("forwarded", None, Some(egress)),
        Fate::Flooded => ("flooded", None, None),
        Fate::Punted => ("punted", None, None),
        Fate::Waiting => ("waiting", None, None),
        Fate::Dropped(reason) => ("dropped", Some(reason), None),
        Fate::Refused { egress, reason } => ("dropped", Some(reason), Some(egress)),
        Fate::Originated { egress } => ("originated", None, Some(egress)),
    };
    SeenFrame {
        len: copied.len,
        hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        ingress: copied.ingress.map(PortId::index),
        egress: egress.map(PortId::index),
        fate: fate.to_owned(),
        reason: reason.map(|reason| reason.label().to_owned()),
    }
}
