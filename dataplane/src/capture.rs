//! Copies of frames for those who look: captures, and a host device that listens to everything.
//!
//! In: each frame as the worker decided on it, with the verdict. Out: [`Copied`] frames, in the order of
//! their decisions, to one reader.
//! Never: waits, allocates once it is made, or changes a frame's way. Where no slot is free, a copy is
//! missed, and counted: whoever looks too slowly sees gaps, not the pods.
//!
//! Slots go round between two bounded lock-free queues: `free`, from which a worker takes one to fill,
//! and `full`, from which the reader takes it, and gives it back. With nobody looking a worker has no
//! capture, and asks for no more than that.

use crossbeam::queue::ArrayQueue;

use crate::addr::{PortId, PortSet};
use crate::frame::offload::Offload;
use crate::segment;
use crate::sync::{AtomicU64, Ordering};
use crate::verdict::{DropReason, Punt, Rewrite, Verdict};

/// Slots of a capture unless told otherwise: at 100,000 frames a second a reader may sleep 10 ms.
pub const SLOTS_DEFAULT: usize = 1024;

/// Captures that a switch serves at once, each of which costs every frame a copy: four that somebody
/// asked for, and the host device's.
pub const CAPTURES_MAX: usize = 5;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It left by one port, perhaps in fragments.
    Forwarded {
        /// The port.
        egress: PortId,
        /// The edits that were made before, which the copy does not show.
        rewrite: Rewrite,
    },
    /// It left by every port that takes floods.
    Flooded,
    /// The slow path took it.
    Punted,
    /// It waits for its next hop's hardware address, and is shown again when it goes on or dies.
    Waiting,
    /// It died.
    Dropped(DropReason),
    /// The port that it was for did not take it.
    Refused {
        /// The port.
        egress: PortId,
        /// Why.
        reason: DropReason,
    },
    /// The switch made it, for one port.
    Originated {
        /// The port.
        egress: PortId,
    },
}

impl From<Verdict> for Fate {
    fn from(verdict: Verdict) -> Fate {
        match verdict {
            Verdict::Forward { egress, rewrite } | Verdict::Fragment { egress, rewrite } => {
                Fate::Forwarded { egress, rewrite }
            }
            Verdict::Flood => Fate::Flooded,
            Verdict::Punt(Punt::Resolve { .. }) => Fate::Waiting,
            Verdict::Punt(_) => Fate::Punted,
            Verdict::Drop(reason) => Fate::Dropped(reason),
        }
    }
}

/// Which frames are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Those that come in or go out by one of these; of all ports without.
    pub ports: Option<PortSet>,
    /// Only those that die.
    pub drops: bool,
    /// None that comes in or goes out by this one, which sees those without us.
    pub except: Option<PortId>,
}

impl Wanted {
    #[inline]
    fn wants(&self, ingress: Option<PortId>, fate: Fate) -> bool {
        if self.drops && !matches!(fate, Fate::Dropped(_) | Fate::Refused { .. }) {
            return false;
        }
        if let Some(port) = self.except
            && touches(ingress, fate, |other| other == port)
        {
            return false;
        }
        self.ports
            .is_none_or(|ports| touches(ingress, fate, |port| ports.contains(port)))
    }
}

/// True if a frame comes in or goes out by such a port.
fn touches(ingress: Option<PortId>, fate: Fate, such: impl Fn(PortId) -> bool) -> bool {
    let out = match fate {
        Fate::Forwarded { egress, .. }
        | Fate::Originated { egress }
        | Fate::Refused { egress, .. } => such(egress),
        Fate::Flooded => true,
        Fate::Punted | Fate::Waiting | Fate::Dropped(_) => false,
    };
    out || ingress.is_some_and(such)
}

/// A copy of a frame.
#[derive(Debug)]
pub struct Copied {
    room: Box<[u8]>,
    held: usize,
    /// Bytes that the frame had.
    pub len: usize,
    /// What of it was undone: checksum and segmentation.
    pub offload: Offload,
    /// The port that it came in by; none if the switch made it.
    pub ingress: Option<PortId>,
    /// What became of it.
    pub fate: Fate,
}

impl Copied {
    /// The frame's first bytes, as it came in, before any rewrite.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.room[..self.held]
    }

    /// The same onto the end of `into`, with the checksum that its sender left undone. One that cannot
    /// be completed stays as it came.
    pub fn completed(&self, into: &mut Vec<u8>) {
        let begun = into.len();
        into.extend_from_slice(self.bytes());
        if self.offload.needs_checksum() && self.held == self.len {
            let _ = segment::complete(&mut into[begun..], self.offload);
        }
    }
}

/// One who looks. Workers fill it, one reader empties it.
#[derive(Debug)]
pub struct Capture {
    wanted: Wanted,
    free: ArrayQueue<Box<Copied>>,
    full: ArrayQueue<Box<Copied>>,
    missed: AtomicU64,
}

impl Capture {
    /// Room for `slots` copies of up to `snap` bytes each: so many bytes of memory are taken here.
    ///
    /// # Panics
    /// Without a slot.
    #[must_use]
    pub fn new(wanted: Wanted, slots: usize, snap: usize) -> Capture {
        let free = ArrayQueue::new(slots);
        for _ in 0..slots {
            let slot = Copied {
                room: vec![0; snap].into_boxed_slice(),
                held: 0,
                len: 0,
                offload: Offload::NONE,
                ingress: None,
                fate: Fate::Punted,
            };
            assert!(
                free.push(Box::new(slot)).is_ok(),
                "as many slots as there is room for"
            );
        }
        Capture {
            wanted,
            free,
            full: ArrayQueue::new(slots),
            missed: AtomicU64::new(0),
        }
    }

    /// A worker's end: copies the frame if it is wanted and there is room.
    #[inline]
    pub(crate) fn see(&self, bytes: &[u8], offload: Offload, ingress: Option<PortId>, fate: Fate) {
        if self.wanted.wants(ingress, fate) {
            self.copy(bytes, offload, ingress, fate);
        }
    }

    #[cold]
    fn copy(&self, bytes: &[u8], offload: Offload, ingress: Option<PortId>, fate: Fate) {
        let Some(mut slot) = self.free.pop() else {
            self.missed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        slot.held = bytes.len().min(slot.room.len());
        let held = slot.held;
        slot.room[..held].copy_from_slice(&bytes[..held]);
        (slot.len, slot.offload) = (bytes.len(), offload);
        (slot.ingress, slot.fate) = (ingress, fate);
        let lost = self.full.push(slot);
        debug_assert!(
            lost.is_ok(),
            "there are no more slots than there is room for"
        );
    }

    /// The reader's end: the oldest copy, if there is one, for `look` to read before its slot goes
    /// back.
    pub fn next<T>(&self, look: impl FnOnce(&Copied) -> T) -> Option<T> {
        let slot = self.full.pop()?;
        let seen = look(&slot);
        let lost = self.free.push(slot);
        debug_assert!(
            lost.is_ok(),
            "there are no more slots than there is room for"
        );
        Some(seen)
    }

    /// Copies that found no slot free.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(index: usize) -> PortId {
        PortId::new(index).expect("below the limit")
    }

    fn only(ports: &[usize]) -> Wanted {
        let mut set = PortSet::default();
        ports.iter().for_each(|index| set.insert(port(*index)));
        Wanted {
            ports: Some(set),
            ..Wanted::default()
        }
    }

    #[test]
    fn a_port_is_shown_what_comes_in_and_what_goes_out_there() {
        let wanted = only(&[3]);
        let forwarded = |egress| Fate::Forwarded {
            egress: port(egress),
            rewrite: Rewrite::KEEP,
        };
        let cases = [
            (Some(3), forwarded(4), true),
            (Some(4), forwarded(3), true),
            (Some(4), forwarded(5), false),
            (Some(4), Fate::Flooded, true),
            (Some(4), Fate::Dropped(DropReason::SamePort), false),
            (Some(3), Fate::Dropped(DropReason::SamePort), true),
            (Some(3), Fate::Punted, true),
            (None, Fate::Originated { egress: port(3) }, true),
            (None, Fate::Originated { egress: port(4) }, false),
            (
                None,
                Fate::Refused {
                    egress: port(3),
                    reason: DropReason::QueueFull,
                },
                true,
            ),
        ];
        for (ingress, fate, shown) in cases {
            assert_eq!(
                wanted.wants(ingress.map(port), fate),
                shown,
                "{ingress:?} {fate:?}"
            );
        }
        let drops = Wanted {
            drops: true,
            ..wanted
        };
        assert!(drops.wants(Some(port(3)), Fate::Dropped(DropReason::SamePort)));
        assert!(!drops.wants(Some(port(4)), Fate::Dropped(DropReason::SamePort)));
        assert!(!drops.wants(Some(port(3)), forwarded(4)));
    }

    #[test]
    fn who_sees_frames_already_is_shown_the_others_only() {
        let wanted = Wanted {
            except: Some(port(0)),
            ..Wanted::default()
        };
        let forwarded = |egress| Fate::Forwarded {
            egress: port(egress),
            rewrite: Rewrite::KEEP,
        };
        let cases = [
            (Some(3), forwarded(4), true),
            (Some(3), forwarded(0), false),
            (Some(0), forwarded(3), false),
            (Some(3), Fate::Flooded, false),
            (Some(3), Fate::Punted, true),
            (Some(3), Fate::Waiting, true),
            (Some(0), Fate::Waiting, false),
            (Some(0), Fate::Dropped(DropReason::TtlExpired), false),
            (None, Fate::Originated { egress: port(0) }, false),
            (None, Fate::Originated { egress: port(3) }, true),
        ];
        for (ingress, fate, shown) in cases {
            let ingress = ingress.map(port);
            assert_eq!(wanted.wants(ingress, fate), shown, "{ingress:?} {fate:?}");
        }
    }

    #[test]
    fn whoever_looks_too_slowly_misses_the_newest_and_is_told_how_many() {
        let capture = Capture::new(Wanted::default(), 2, 4);
        for first in 0..5_u8 {
            capture.see(&[first; 6], Offload::NONE, Some(port(1)), Fate::Flooded);
        }
        assert_eq!(capture.missed(), 3);
        let look = |seen: &Copied| (seen.bytes().to_vec(), seen.len);
        assert_eq!(capture.next(look), Some((vec![0; 4], 6)));
        assert_eq!(capture.next(look), Some((vec![1; 4], 6)));
        assert_eq!(capture.next(look), None);
        capture.see(&[9; 2], Offload::NONE, None, Fate::Punted);
        assert_eq!(capture.next(look), Some((vec![9; 2], 2)));
    }
}
