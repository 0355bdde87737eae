//! The way by which copies of frames come in at the host port, for those who listen there.
//!
//! In: frames. Out: the same frames at the host device, where packet sockets see them.
//! Never: to the host's own stack. Nor by the host port's own queues, in which the kernel would put
//! frames for the switch.
//!
//! ```text
//!  copies -> TAP copies0 =redirect=> host device: packet sockets | drop | the host's stack
//! ```
//!
//! Taps hear a frame before a filter on ingress drops it. Two marks tell a copy from a frame for the
//! host, and each is one that the kernel makes and nothing in a frame can feign: it is for another
//! station, since `copies0` has an address of its own that no frame bears as its target; and it came in
//! by the second queue of its TAP, where the host port has one. Broadcasts have the second mark alone:
//! where there is none, no broadcast is shown.
//!
//! `copies0` lives as long as it is open, so that a process that is killed leaves no way in.

use std::io;
use std::os::fd::AsFd;

use dataplane::facility::Facility;
use dataplane::port::tap::{Queues, TapPort};

use super::{ensure_alias, hush_and_raise};
use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;
use crate::devices::netlink::Netlink;
use crate::devices::netlink::filter::{Deed, Match, Rule};

const TAP: &str = "copies0";
/// The queue of it by which they do.
const QUEUE: u16 = 1;

/// An open way.
#[derive(Debug)]
pub struct Copies {
    host: DeviceName,
    queues: Vec<TapPort>,
    kept_out: KeptOut,
}

/// What keeps copies from the host's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeptOut {
    /// A program on the host device's ingress, which needs nothing there.
    ByProgram,
    /// A filter of its clsact, and whether that is ours.
    ByFilter { clsact: bool },
}

impl Copies {
    /// Opens the way to `host`, with broadcasts if they are wanted and this kernel's TAPs can tell them.
    ///
    /// # Errors
    /// As [`Copies::open`].
    pub fn open_as_allowed(
        node: &Netlink,
        host: &DeviceName,
        broadcasts: bool,
    ) -> Result<Copies, DeviceError> {
        match Copies::open(node, host, broadcasts) {
            // A kernel that has one queue to a TAP.
            Err(refused) if broadcasts && refused.errno() == Some(nix::libc::EINVAL) => {
                Copies::open(node, host, false)
            }
            other => other,
        }
    }

    /// Opens the way to `host`; with `broadcasts` only if that has a single queue and TAPs can have
    /// two.
    ///
    /// # Errors
    /// [`DeviceError::Conflict`] if somebody else has a device of that name, otherwise what failed;
    /// then nothing is left.
    pub fn open(
        node: &Netlink,
        host: &DeviceName,
        broadcasts: bool,
    ) -> Result<Copies, DeviceError> {
        let tap = tap();
        if node.find_link(&tap)?.is_some() {
            return Err(DeviceError::Conflict {
                device: tap,
                namespace: node.namespace().name().into(),
                why: "is not ours".into(),
            });
        }
        // The drop first: before it holds there must be no way in.
        let queue = broadcasts.then_some(QUEUE);
        let mut copies = Copies {
            host: host.clone(),
            queues: Vec::new(),
            kept_out: keep_out(node, host, queue)?,
        };
        match copies.raise(node, &tap, broadcasts) {
            Ok(()) => Ok(copies),
            Err(refused) => {
                copies.close(node)?;
                Err(refused)
            }
        }
    }

    fn raise(
        &mut self,
        node: &Netlink,
        tap: &DeviceName,
        broadcasts: bool,
    ) -> Result<(), DeviceError> {
        let kind = if broadcasts {
            Queues::Multi
        } else {
            Queues::Single
        };
        let count = if broadcasts { QUEUE + 1 } else { 1 };
        let open = || {
            (0..count)
                .map(|_| TapPort::open(tap.as_str(), kind))
                .collect()
        };
        let queues: io::Result<Vec<TapPort>> = node.namespace().run(open);
        self.queues = queues.map_err(|source| DeviceError::Inside {
            attempt: format!("open the TAP {tap}"),
            namespace: node.namespace().name().into(),
            source,
        })?;
        ensure_alias(node, tap, &format!("tapline copies for {}", self.host))?;
        node.ensure_clsact(tap)?;
        let enter = Rule {
            frames: Match::Every,
            deed: Deed::Enter(node.index(&self.host)?),
        };
        node.set_rules(tap, &[enter])?;
        hush_and_raise(node, tap)
    }

    /// True if broadcasts are shown.
    #[must_use]
    pub fn shows_broadcasts(&self) -> bool {
        self.queues.len() > 1
    }

    /// Shows a frame, with room for a `virtio_net_hdr` of nothing but zeroes in front of it.
    ///
    /// # Errors
    /// `EINVAL` for what is no frame; `EIO` or `EBADFD` if the TAP is down or gone.
    pub fn show(&self, framed: &[u8]) -> io::Result<()> {
        let queue = self.queues.last();
        let queue = queue.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        rustix::io::write(queue.as_fd(), framed)?;
        Ok(())
    }

    /// True if no copy can reach the host's stack.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_safe(&self, node: &Netlink) -> Result<bool, DeviceError> {
        match self.kept_out {
            KeptOut::ByProgram => Ok(!node.programs(&self.host)?.is_empty()),
            KeptOut::ByFilter { .. } => node.drops_copies(&self.host),
        }
    }

    /// Closes the way, and leaves the host device as it was.
    ///
    /// # Errors
    /// What the kernel says. The way is closed all the same.
    pub fn close(mut self, node: &Netlink) -> Result<(), DeviceError> {
        self.queues.clear();
        match node.find_link(&self.host)? {
            Some(_) => clear(node, &self.host, self.kept_out),
            None => Ok(()),
        }
    }
}

/// Removes what a process that was killed has left at the host device: the drop, to which nothing comes
/// any more.
///
/// # Errors
/// What the kernel says.
pub fn sweep(node: &Netlink, host: &DeviceName) -> Result<(), DeviceError> {
    if node.find_link(host)?.is_none() || node.find_link(&tap())?.is_some() {
        return Ok(());
    }
    if !node.programs(host)?.is_empty() {
        clear(node, host, KeptOut::ByProgram)?;
    }
    if node.drops_copies(host)? {
        clear(node, host, KeptOut::ByFilter { clsact: true })?;
    }
    Ok(())
}

/// By a program where the kernel takes one: to add a clsact, and to remove it, costs the node what it
/// sends to pods in that moment.
fn keep_out(node: &Netlink, host: &DeviceName, queue: Option<u16>) -> Result<KeptOut, DeviceError> {
    if Facility::Tcx.is_allowed() && node.drop_copies_by_program(host, queue).is_ok() {
        return Ok(KeptOut::ByProgram);
    }
    let clsact = node.ensure_clsact(host)?;
    let kept_out = KeptOut::ByFilter { clsact };
    if let Err(refused) = node.drop_copies(host, queue) {
        clear(node, host, kept_out)?;
        return Err(refused);
    }
    Ok(kept_out)
}

fn clear(node: &Netlink, host: &DeviceName, kept_out: KeptOut) -> Result<(), DeviceError> {
    let KeptOut::ByFilter { clsact } = kept_out else {
        return node.remove_programs(host);
    };
    node.drop_copies_no_more(host)?;
    if clsact && node.has_no_filters(host)? {
        node.remove_clsact(host)?;
    }
    Ok(())
}

/// The TAP that copies come in by.
#[must_use]
pub fn tap() -> DeviceName {
    DeviceName::new(TAP).expect("our own names are device names")
}
