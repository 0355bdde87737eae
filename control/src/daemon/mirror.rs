//! What those are shown who listen to everything at the host device, as `tcpdump -i azure0` does.
//!
//! In: the kernel's news of that device, and the switch's frames. Out: a copy of each frame that does
//! not pass the host device anyway, as a bridge would show it there.
//! Never: costs a frame anything while nobody listens; holds one up; lets a copy reach the host's stack.
//! A frame that comes faster than it can be shown is left out, and counted.
//!
//! A bridge shows a frame once, with the addresses of its own side: as the pod sent it, or as the pod
//! gets it. Those that die are shown too: a bridge hides nothing. Checksums are completed, and
//! super-frames are shown whole.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dataplane::capture::{Capture, Copied, Fate, Wanted};
use dataplane::facility::Facility;
use dataplane::frame::FrameView;
use dataplane::frame::offload::HEADER_LEN;
use dataplane::port::tap::TapPort;
use dataplane::rewrite::rewrite;
use dataplane::switch::Watcher;

use super::capture::SNAP_MAX;
use super::core::{Core, DaemonError, system};
use crate::api::views::CopiesView;
use crate::compile::{HOST_PORT, UPLINK_PORT};
use crate::devices::attach::{Copies, copies};
use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;
use crate::devices::netlink::Netlink;
use crate::devices::netlink::news::{Group, News, Woken};
use crate::plan::Plugin;

/// Between two turns while somebody listens, in milliseconds: half a million frames a second fit.
const PACE_MS: u16 = 1;
/// Between two looks at the device and its filter while somebody listens.
const LOOK: Duration = Duration::from_millis(400);
/// Copies that wait for a turn: 33 MB, if all are super-frames.
const SLOTS: usize = 512;
/// Copies in one turn, so that an end is heard.
const TURN_MAX: usize = 4 * SLOTS;

/// A thread that looks whether somebody listens. Dropping it ends that, and the showing.
#[derive(Debug)]
pub(super) struct Mirror {
    view: Arc<Mutex<CopiesView>>,
    /// Closing it ends the thread.
    rope: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread works with.
struct Looker {
    net: Netlink,
    news: News,
    host: DeviceName,
    plugin: Plugin,
    broadcasts: bool,
    watcher: Watcher<TapPort>,
    view: Arc<Mutex<CopiesView>>,
}

/// Somebody listens.
struct Showing {
    way: Copies,
    /// The host device: another one may bear its name tomorrow.
    index: u32,
    capture: Arc<Capture>,
    frame: Vec<u8>,
}

impl Core {
    /// Shows the host device's listeners what they want to see, from now on. Pods are served without
    /// it.
    pub(super) fn mirror(&mut self) {
        self.mirror = None;
        match Mirror::start(self) {
            Ok(mirror) => self.mirror = Some(mirror),
            Err(error) => tracing::error!("nobody will be shown copies of frames: {error}"),
        }
    }
}

impl Mirror {
    fn start(core: &Core) -> Result<Mirror, DaemonError> {
        let namespace = core.net.namespace();
        let host = core.settings.host.clone();
        let view = Arc::new(Mutex::new(CopiesView {
            device: host.to_string(),
            ..CopiesView::default()
        }));
        let (news, rope) = News::of(namespace, &[Group::Links, Group::Filters])?;
        let looker = Looker {
            net: Netlink::open(namespace)?,
            news,
            host,
            plugin: core.spec.plugin,
            // The mark of a broadcast is a queue that the host port does not have.
            broadcasts: core.settings.workers.get() == 1 && Facility::MultiQueue.is_allowed(),
            watcher: core.switch.watcher(),
            view: Arc::clone(&view),
        };
        copies::sweep(&looker.net, &looker.host)?;
        let named = std::thread::Builder::new().name("tl-copies".into());
        let thread = named.spawn(move || looker.run());
        Ok(Mirror {
            view,
            rope: Some(rope),
            thread: Some(thread.map_err(system("starting a thread"))?),
        })
    }

    /// How it goes.
    pub(super) fn view(&self) -> CopiesView {
        lock(&self.view).clone()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.rope = None;
        if let Some(thread) = self.thread.take() {
            // It only ends early by a panic, which has been reported by then.
            let _ = thread.join();
        }
    }
}

fn lock(view: &Mutex<CopiesView>) -> MutexGuard<'_, CopiesView> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Looker {
    fn run(self) {
        let mut showing = self.look(None);
        let mut looked = Instant::now();
        let mut behind = false;
        loop {
            let patience = match (&showing, behind) {
                (Some(_), true) => Some(0),
                (Some(_), false) => Some(PACE_MS),
                (None, _) => None,
            };
            let woken = self.news.wait(patience);
            if woken == Woken::Over {
                break;
            }
            if woken == Woken::News || looked.elapsed() >= LOOK {
                showing = self.look(showing);
                looked = Instant::now();
            }
            behind = showing.as_mut().is_some_and(|one| self.pass_on(one));
        }
        self.end(showing);
    }

    /// Whether somebody listens, and all is as it has to be: what follows from it.
    fn look(&self, showing: Option<Showing>) -> Option<Showing> {
        let looked = self.settle(showing);
        let mut view = lock(&self.view);
        view.listening = matches!(looked, Ok(Some(_)));
        match looked {
            Ok(showing) => {
                let way = showing.as_ref().map(|one| &one.way);
                view.broadcasts = way.is_some_and(Copies::shows_broadcasts);
                view.failure = None;
                showing
            }
            Err(error) => {
                let text = error.to_string();
                if view.failure.as_ref() != Some(&text) {
                    tracing::warn!("{} shows no copies: {text}", self.host);
                }
                view.failure = Some(text);
                None
            }
        }
    }

    fn settle(&self, showing: Option<Showing>) -> Result<Option<Showing>, DaemonError> {
        let host = self.net.find_link(&self.host)?;
        let index = host
            .filter(|link| link.listeners > 0)
            .map(|link| link.index);
        let Some(index) = index else {
            self.end(showing);
            return Ok(None);
        };
        match showing {
            Some(one) if one.index == index && one.way.is_safe(&self.net)? => Ok(Some(one)),
            // Somebody took the filter that keeps copies from the host, or the device.
            other => {
                self.end(other);
                self.begin(index).map(Some)
            }
        }
    }

    fn begin(&self, index: u32) -> Result<Showing, DaemonError> {
        let way = Copies::open_as_allowed(&self.net, &self.host, self.broadcasts)?;
        let wanted = Wanted {
            except: Some(HOST_PORT),
            ..Wanted::default()
        };
        let showing = Showing {
            way,
            index,
            capture: Arc::new(Capture::new(wanted, SLOTS, SNAP_MAX)),
            frame: Vec::with_capacity(HEADER_LEN + SNAP_MAX),
        };
        if let Err(error) = self.watcher.watch(&showing.capture) {
            self.end(Some(showing));
            return Err(system("asking the switch for copies")(error));
        }
        tracing::info!("somebody listens at {}, and is shown copies", self.host);
        Ok(showing)
    }

    fn end(&self, showing: Option<Showing>) {
        let Some(mut showing) = showing else { return };
        // A switch that has died shows nothing either.
        let _ = self.watcher.unwatch(&showing.capture);
        while self.pass_on(&mut showing) {}
        let closed: Result<(), DeviceError> = showing.way.close(&self.net);
        match closed {
            Ok(()) => tracing::info!("nobody listens at {} any more", self.host),
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// Shows what has been copied. True if there may be more.
    fn pass_on(&self, showing: &mut Showing) -> bool {
        let Showing {
            way,
            capture,
            frame,
            ..
        } = showing;
        let (mut looked_at, mut shown) = (0, 0);
        while looked_at < TURN_MAX {
            let passed = capture.next(|copied| {
                is_shown(copied, self.plugin, way.shows_broadcasts()) && {
                    as_at_the_pods(copied, frame);
                    // A frame too short to be one, or a device that went: the next look sees that.
                    way.show(frame).is_ok()
                }
            });
            let Some(passed) = passed else { break };
            looked_at += 1;
            shown += u64::from(passed);
        }
        if looked_at > 0 {
            let mut view = lock(&self.view);
            view.shown += shown;
            view.missed = capture.missed();
        }
        looked_at == TURN_MAX
    }
}

/// Whether a bridge would show a frame, and has not done so before.
fn is_shown(copied: &Copied, plugin: Plugin, broadcasts: bool) -> bool {
    let moved = match copied.fate {
        // It comes again when it goes on, or dies; and what a port refused has been here before.
        Fate::Waiting | Fate::Refused { .. } => false,
        Fate::Forwarded { .. } => true,
        // Under kubenet `eth0` is no port of the bridge.
        Fate::Originated { egress } => plugin == Plugin::Azure || egress != UPLINK_PORT,
        Fate::Flooded | Fate::Punted | Fate::Dropped(_) => {
            plugin == Plugin::Azure || copied.ingress != Some(UPLINK_PORT)
        }
    };
    let group = copied.bytes().first().is_some_and(|first| first & 1 == 1);
    moved && (broadcasts || !group)
}

/// The frame as it is on the pods' side, with room for a header in front.
fn as_at_the_pods(copied: &Copied, frame: &mut Vec<u8>) {
    frame.clear();
    frame.resize(HEADER_LEN, 0);
    copied.completed(frame);
    let bytes = &mut frame[HEADER_LEN..];
    if copied.ingress == Some(UPLINK_PORT)
        && let Fate::Forwarded { rewrite: edits, .. } = copied.fate
        && let Ok(kind) = FrameView::parse(bytes).map(|view| view.kind)
    {
        rewrite(bytes, kind, edits);
    }
}
