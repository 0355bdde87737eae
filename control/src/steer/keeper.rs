//! Our program, table or filters on the uplink: put there at start, put back when somebody takes them, gone at the
//! end.
//!
//! In: an [`Uplink`], and the kernel's news of filters. Out: the filters as wanted, and [`Kept`].
//! Never: touches a filter that is not ours, or gives up: a device that is gone may come back.
//!
//! The kernel tells whoever listens of every change of a filter or a device, so what was taken is
//! back within milliseconds. It does not tell everything: a qdisc that goes takes its filters along
//! without a word, and of tables it tells elsewhere, amid all that kube-proxy writes; so there is a look
//! every [`LOOK_MS`] besides.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::devices::attach::Uplink;
use crate::devices::error::DeviceError;
use crate::devices::netlink::Netlink;
use crate::devices::netlink::news::{Group, News, Woken};
use crate::devices::netns::Netns;

/// Between two looks without news: a filter is missed for this long at most, half of the second
/// that is promised.
pub const LOOK_MS: u16 = 400;

/// Between two looks in a storm of news, so that somebody who changes filters all day costs little.
const PACE: Duration = Duration::from_millis(20);

/// How the keeping goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Looks at the filters.
    pub looks: u64,
    /// Filters that were missing and were put back.
    pub put_back: u64,
    /// Looks that failed.
    pub failures: u64,
    /// Why the last look failed, if it did.
    pub failure: Option<String>,
}

/// What the thread shares with its owner.
#[derive(Debug)]
struct Shared {
    uplink: Uplink,
    kept: Kept,
}

/// A thread that keeps an uplink's filters. Dropping it ends the thread and leaves the filters, as
/// for a restart.
#[derive(Debug)]
pub struct Keeper {
    shared: Arc<Mutex<Shared>>,
    namespace: Netns,
    /// Closing it ends the thread.
    bell: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Attaches `uplink` in `namespace`, and keeps it so.
    ///
    /// # Errors
    /// As [`Uplink::attach`], and what sockets and threads say.
    pub fn start(namespace: &Netns, uplink: Uplink) -> Result<Keeper, DeviceError> {
        let net = Netlink::open(namespace)?;
        let (news, bell) = News::of(namespace, &[Group::Links, Group::Filters])?;
        uplink.attach(&net)?;
        let shared = Arc::new(Mutex::new(Shared {
            uplink,
            kept: Kept::default(),
        }));
        let theirs = Arc::clone(&shared);
        let named = std::thread::Builder::new().name("tl-steer".into());
        let thread = named.spawn(move || run(&net, &news, &theirs));
        Ok(Keeper {
            shared,
            namespace: namespace.clone(),
            bell: Some(bell),
            thread: Some(thread.map_err(|source| DeviceError::Inside {
                attempt: "start a thread".into(),
                namespace: namespace.name().into(),
                source,
            })?),
        })
    }

    /// Keeps `uplink` instead, from now on.
    ///
    /// # Errors
    /// As [`Uplink::attach`]; what was kept before is kept on then.
    pub fn change(&self, uplink: Uplink) -> Result<(), DeviceError> {
        let net = Netlink::open(&self.namespace)?;
        let mut shared = lock(&self.shared);
        uplink.attach(&net)?;
        shared.uplink = uplink;
        Ok(())
    }

    /// How it goes.
    #[must_use]
    pub fn kept(&self) -> Kept {
        lock(&self.shared).kept.clone()
    }

    /// What is kept now.
    #[must_use]
    pub fn uplink(&self) -> Uplink {
        lock(&self.shared).uplink.clone()
    }

    /// Ends the keeping, and takes our filters from the shared device: the kernel has all its
    /// frames again. The TAP stays, for whoever has it open.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn stop(mut self) -> Result<(), DeviceError> {
        self.end();
        let net = Netlink::open(&self.namespace)?;
        lock(&self.shared).uplink.leave_device(&net)
    }

    fn end(&mut self) {
        self.bell = None;
        if let Some(thread) = self.thread.take() {
            // It only ends early by a panic, which has been reported by then.
            let _ = thread.join();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(net: &Netlink, news: &News, shared: &Mutex<Shared>) {
    while news.wait(Some(LOOK_MS)) != Woken::Over {
        let mut shared = lock(shared);
        let looked = shared.uplink.restore(net);
        let kept = &mut shared.kept;
        kept.looks += 1;
        match looked {
            Ok(put_back) => {
                if put_back > 0 {
                    tracing::warn!(put_back, "filters of ours were missing on the uplink");
                }
                kept.put_back += put_back as u64;
                kept.failure = None;
            }
            Err(error) => {
                kept.failures += 1;
                let text = error.to_string();
                if kept.failure.as_ref() != Some(&text) {
                    tracing::error!(%error, "the uplink's filters cannot be kept");
                }
                kept.failure = Some(text);
            }
        }
        drop(shared);
        std::thread::sleep(PACE);
    }
}
