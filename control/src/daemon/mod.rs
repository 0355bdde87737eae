//! The daemon: a switch on a node, the devices it hangs on, and who is attached to it.
//!
//! In: a [`NodeSpec`](crate::compile::NodeSpec), [`Settings`], and requests over the control
//! socket or from the lab.
//! Out: pods with a port each, a state file that tells who they are, and views.
//! Never: takes a node's word from a plan, serves an ADD before the node is known, or leaves half
//! of an ADD behind.
//!
//! | file | what it does |
//! |---|---|
//! | `core` | the switch and its fixed ports; what starts, reloads and stops |
//! | `adopt` | the way from a Linux bridge, and back |
//! | `attach` | ADD, DEL, CHECK and GC |
//! | `attachment` | one pod's port, as it is remembered |
//! | `look`, `measure`, `trace` | the views; the metrics; where a packet would go |
//! | `capture` | those who look at frames |
//! | `gateway` | which gateway the host port holds |
//! | `handover` | one daemon takes the place of another |
//! | `node`, `truth` | what the node is, and from whom that is known |
//! | `process`, `log`, `systemd` | the daemon as a process: signals, reload, log lines, what systemd keeps |
//! | `restore` | what a daemon finds that was there before it |
//! | `store` | the state file |
//!
//! Pods outlive the daemon: their veths and TAPs stay, and the next daemon opens them again. What
//! a stop takes away is the steering on the node's own device.

pub mod adopt;
mod attach;
pub mod attachment;
mod capture;
mod core;
mod gateway;
pub mod handover;
pub mod log;
mod look;
mod measure;
mod mirror;
pub mod node;
pub mod process;
mod restore;
pub mod store;
pub mod systemd;
mod trace;
pub(crate) mod truth;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::api::types::{
    AddReply, AddRequest, ApiError, CheckRequest, DelRequest, ErrorKind, GcRequest, Removed,
    StatusReply,
};
use crate::api::views::TraceRequest;
use crate::api::{Answer, Call, Handler, View};

pub use self::attachment::Attachment;
pub use self::core::{Core, DaemonError, Settings};

/// A daemon: from the moment that its socket answers, which may be before its node is known.
#[derive(Debug)]
pub struct Daemon {
    phase: Mutex<Phase>,
}

/// How far a daemon is.
#[derive(Debug)]
enum Phase {
    /// The node is not known yet, for this reason.
    Waiting(String),
    /// It serves.
    Serving(Box<Core>),
    /// Another daemon has taken its place.
    Moved,
}

impl Daemon {
    /// One that serves.
    #[must_use]
    pub fn serving(core: Core) -> Daemon {
        Daemon {
            phase: Mutex::new(Phase::Serving(Box::new(core))),
        }
    }

    /// One that does not serve yet, and says why.
    #[must_use]
    pub fn waiting(why: impl Into<String>) -> Daemon {
        Daemon {
            phase: Mutex::new(Phase::Waiting(why.into())),
        }
    }

    /// The node is known now.
    pub fn serve(&self, core: Core) {
        *self.phase() = Phase::Serving(Box::new(core));
    }

    /// The node is still not known, for this reason.
    pub fn wait(&self, why: impl Into<String>) {
        let mut phase = self.phase();
        if let Phase::Waiting(reason) = &mut *phase {
            *reason = why.into();
        }
    }

    /// Looks at, or changes, the running part.
    ///
    /// # Errors
    /// [`ErrorKind::NotReady`] while there is none, [`ErrorKind::Moved`] if another daemon has it.
    pub fn with<T>(&self, work: impl FnOnce(&mut Core) -> T) -> Result<T, ApiError> {
        match &mut *self.phase() {
            Phase::Serving(core) => Ok(work(core)),
            Phase::Waiting(why) => Err(ApiError::new(
                ErrorKind::NotReady,
                format!("not serving yet: {why}"),
            )),
            Phase::Moved => Err(moved()),
        }
    }

    /// Gives the running part away, if `work` says that another daemon has taken it over. Whoever
    /// wants something of it waits as long as that takes.
    ///
    /// # Errors
    /// As [`Daemon::with`], or what `work` says; then it serves as before.
    pub fn hand_over<T>(
        &self,
        work: impl FnOnce(&mut Core) -> Result<T, ApiError>,
    ) -> Result<(T, Core), ApiError> {
        let mut phase = self.phase();
        let done = match &mut *phase {
            Phase::Serving(core) => work(core)?,
            Phase::Waiting(why) => {
                let why = format!("not serving yet: {why}");
                return Err(ApiError::new(ErrorKind::NotReady, why));
            }
            Phase::Moved => return Err(moved()),
        };
        match std::mem::replace(&mut *phase, Phase::Moved) {
            Phase::Serving(core) => Ok((done, *core)),
            Phase::Waiting(_) | Phase::Moved => Err(moved()),
        }
    }

    /// ADD.
    ///
    /// # Errors
    /// Why not; then nothing of it is left.
    pub fn add(&self, request: &AddRequest) -> Result<AddReply, ApiError> {
        self.with(|core| core.add(request))?
    }

    /// DEL.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn del(&self, request: &DelRequest) -> Result<Removed, ApiError> {
        self.with(|core| core.del(request))?
    }

    /// CHECK.
    ///
    /// # Errors
    /// What differs.
    pub fn check(&self, request: &CheckRequest) -> Result<(), ApiError> {
        self.with(|core| core.check(request))?
    }

    /// GC.
    ///
    /// # Errors
    /// What could not be removed; the rest is.
    pub fn gc(&self, request: &GcRequest) -> Result<Removed, ApiError> {
        self.with(|core| core.gc(request))?
    }

    /// Whether ADDs are served, and what stands in the way.
    ///
    /// # Errors
    /// [`ErrorKind::Moved`] if another daemon knows.
    pub fn status(&self) -> Result<StatusReply, ApiError> {
        match self.with(|core| core.status()) {
            Err(error) if error.kind != ErrorKind::Moved => Ok(StatusReply {
                error: Some(error),
                ..StatusReply::default()
            }),
            other => other,
        }
    }

    fn view(&self, view: View) -> Result<Answer, ApiError> {
        self.with(|core| {
            Ok(match view {
                View::Ports => Answer::of(&core.ports()?),
                View::Fdb => Answer::of(&core.fdb_rows()),
                View::Routes => Answer::of(&core.route_rows()),
                View::Neighbours => Answer::of(&core.neighbour_rows()?),
                View::Drops => Answer::of(&core.drop_rows()),
                View::Workers => Answer::of(&core.worker_rows()),
                View::Conflicts => Answer::of(&core.conflict_rows()),
                View::Steering => Answer::of(&core.steering()),
                View::Flows => Answer::of(&core.flow_rows()),
                View::Guards => Answer::of(&core.guard_rows()),
                View::Bounds => Answer::of(&core.bound_rows()),
            })
        })?
    }

    /// Whether another daemon has taken its place.
    pub(crate) fn has_moved(&self) -> bool {
        matches!(*self.phase(), Phase::Moved)
    }

    /// Ends it; gives the running part, if there was one, to be stopped.
    #[must_use]
    pub fn end(&self) -> Option<Core> {
        let mut phase = self.phase();
        if matches!(*phase, Phase::Moved) {
            return None;
        }
        let ended = Phase::Waiting("it is stopping".to_owned());
        match std::mem::replace(&mut *phase, ended) {
            Phase::Serving(core) => Some(*core),
            Phase::Waiting(_) | Phase::Moved => None,
        }
    }

    /// A request that panicked has been answered; what it left is looked after by the next one.
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handler for Daemon {
    fn handle(&self, call: Call) -> Result<Answer, ApiError> {
        match call {
            Call::Add(request) => self.add(&request).map(|reply| Answer::of(&reply)),
            Call::Del(request) => self.del(&request).map(|reply| Answer::of(&reply)),
            Call::Check(request) => self.check(&request).map(|()| Answer::of(&empty())),
            Call::Gc(request) => self.gc(&request).map(|reply| Answer::of(&reply)),
            Call::Adopt(request) => self
                .with(|core| core.adopt(&request))?
                .map(|r| Answer::of(&r)),
            Call::Capture(request) => self
                .with(|core| core.capture(&request))?
                .map(|r| Answer::of(&r)),
            Call::CaptureRead(capture) => self
                .with(|core| core.captured(capture.id))?
                .map(|r| Answer::of(&r)),
            Call::CaptureStop(capture) => self
                .with(|core| core.capture_ends(capture.id))?
                .map(|()| Answer::of(&empty())),
            Call::Confirm => self.with(Core::confirm)?.map(|r| Answer::of(&r)),
            Call::Release(request) => self
                .with(|core| core.release(&request))?
                .map(|r| Answer::of(&r)),
            Call::Status => self.status().map(|status| Answer::of(&status)),
            Call::View(view) => self.view(view),
            Call::Trace(request) => {
                let request: TraceRequest = serde_json::from_value(request)
                    .map_err(|bad| ApiError::new(ErrorKind::BadRequest, bad.to_string()))?;
                self.with(|core| core.trace(&request))?
                    .map(|trace| Answer::of(&trace))
            }
            other => Err(ApiError::new(
                ErrorKind::NotFound,
                format!("this daemon does not answer {other:?}"),
            )),
        }
    }
}

fn moved() -> ApiError {
    ApiError::new(ErrorKind::Moved, "another daemon has taken its place")
}

/// An answer without content.
fn empty() -> serde_json::Value {
    serde_json::json!({})
}
