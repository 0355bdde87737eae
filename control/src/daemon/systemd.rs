//! What systemd keeps while there is no daemon: the queues of the TAPs (`FDSTORE`, sd_notify(3)).
//!
//! In: the environment of a process that systemd started, or what a daemon hands over. Out: the queues
//! that an earlier one had.
//! Never: needs systemd: without it nothing is kept, and a restart opens the TAPs anew.
//!
//! A TAP that somebody has open keeps its carrier, and the kernel keeps what is sent by it in its
//! ring: of a restart that takes less than the ring holds no frame is lost.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use dataplane::port::tap::TapPort;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use sd_notify::NotifyState;

/// Queues by the names that their TAPs have now; one may have been renamed since it was kept.
#[derive(Debug, Default)]
pub struct Heirlooms(BTreeMap<String, Vec<TapPort>>);

impl Heirlooms {
    /// Those that systemd handed to this process; they are taken once.
    #[must_use]
    pub fn inherited() -> Heirlooms {
        let mut kept = Heirlooms::default();
        let given = sd_notify::listen_fds_with_names().map(Iterator::collect::<Vec<_>>);
        let given = given.unwrap_or_else(|error| {
            tracing::warn!("descriptors from systemd: {error}");
            Vec::new()
        });
        for (number, name) in given {
            match own(number).and_then(TapPort::adopt) {
                Ok(port) => kept.add(port),
                Err(error) => {
                    tracing::warn!("{name}: what was kept is of no use: {error}");
                    forget(&name);
                }
            }
        }
        kept
    }

    /// Those of a daemon that hands over, in the order of its workers.
    ///
    /// # Errors
    /// As [`TapPort::adopt`].
    pub(super) fn given(queues: Vec<OwnedFd>) -> std::io::Result<Heirlooms> {
        let mut given = Heirlooms::default();
        for queue in queues {
            given.add(TapPort::adopt(queue)?);
        }
        Ok(given)
    }

    fn add(&mut self, port: TapPort) {
        let of_tap = self.0.entry(port.name().to_owned()).or_default();
        of_tap.push(port);
    }

    /// The queues of a TAP, if they are as many as the switch has workers.
    pub(super) fn take(&mut self, tap: &str, workers: usize) -> Option<Vec<TapPort>> {
        let queues = self.0.remove(tap)?;
        if queues.len() == workers {
            return Some(queues);
        }
        let count = queues.len();
        tracing::warn!("{tap}: {count} queues were kept for {workers} workers; opened anew");
        forget(tap);
        None
    }
}

/// A descriptor that this process was given by number, as one that it owns.
fn own(number: i32) -> std::io::Result<OwnedFd> {
    let this = pidfd_open(getpid(), PidfdFlags::empty())?;
    let owned = pidfd_getfd(&this, number, PidfdGetfdFlags::empty())?;
    nix::unistd::close(number)?;
    Ok(owned)
}

/// Has systemd keep a TAP's queues.
pub(super) fn keep(tap: &str, ports: &[TapPort]) {
    for port in ports {
        let told = [NotifyState::FdStore, NotifyState::FdName(tap)];
        if let Err(error) = sd_notify::notify_with_fds(&told, &[port.as_fd()]) {
            tracing::warn!("{tap} cannot be kept over a restart: {error}");
        }
    }
}

/// Has systemd keep them no more.
pub(super) fn forget(tap: &str) {
    let _ = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(tap)]);
}
