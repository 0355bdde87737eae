//! What newer kernels offer, and whether this process may use it.
//!
//! In: what control forbids, or the environment variable [`OFF_VARIABLE`]. Out: yes or no, asked when
//! a port is opened. Never: asked for a frame; taken back: what was forbidden stays so.
//!
//! Each facility is tried where it is needed and done without where the kernel lacks it. To forbid
//! one is to make a new kernel an old one: for a fault in it, and for tests.

use crate::sync::{AtomicU32, OnceLock, Ordering};

/// Names of facilities to do without, separated by commas, or `all`. For tests and for an emergency;
/// a node says it in its configuration.
pub const OFF_VARIABLE: &str = "TAPLINE_FEATURES_OFF";

/// Something that newer kernels have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Facility {
    /// Several queues of one TAP, one for each worker (`IFF_MULTI_QUEUE`, Linux 3.8).
    MultiQueue,
    /// Many small frames in one call (`io_uring` reads of a TAP with `RWF_NOWAIT`, Linux 6.4).
    IoUring,
    /// Super-frames of UDP (`TUN_F_USO4`, Linux 6.2).
    Uso,
    /// A program on a device's ingress without a queueing discipline (TCX, Linux 6.6).
    Tcx,
    /// A table of the packet filter on a device's ingress (nftables with `fwd` and `dup`, Linux 4.5).
    Nftables,
    /// A slice of its own for a worker's thread (`sched_setattr`, Linux 6.12).
    ShortSlice,
}

impl Facility {
    /// All of them.
    pub const ALL: [Facility; 6] = [
        Facility::MultiQueue,
        Facility::IoUring,
        Facility::Uso,
        Facility::Tcx,
        Facility::Nftables,
        Facility::ShortSlice,
    ];

    /// Its name in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Facility::MultiQueue => "multi_queue",
            Facility::IoUring => "io_uring",
            Facility::Uso => "uso",
            Facility::Tcx => "tcx",
            Facility::Nftables => "nftables",
            Facility::ShortSlice => "short_slice",
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Does without it from now on; ports that are open keep what they have.
    pub fn forbid(self) {
        forbidden().fetch_or(self.bit(), Ordering::Relaxed);
    }

    /// Whether it may be used.
    #[must_use]
    pub fn is_allowed(self) -> bool {
        forbidden().load(Ordering::Relaxed) & self.bit() == 0
    }
}

fn forbidden() -> &'static AtomicU32 {
    static FORBIDDEN: OnceLock<AtomicU32> = OnceLock::new();
    FORBIDDEN.get_or_init(|| {
        let off = std::env::var(OFF_VARIABLE).unwrap_or_default();
        AtomicU32::new(named(&off))
    })
}

/// The facilities that a list names. A name that is none is no facility to do without.
fn named(list: &str) -> u32 {
    let mut bits = 0;
    for name in list.split(',').map(str::trim) {
        for facility in Facility::ALL {
            if name == "all" || name == facility.name() {
                bits |= facility.bit();
            }
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_what_it_names_and_all_names_all() {
        assert_eq!(named(""), 0);
        assert_eq!(named("uso"), Facility::Uso.bit());
        assert_eq!(
            named("uso, io_uring,warp"),
            Facility::Uso.bit() | Facility::IoUring.bit()
        );
        let all = Facility::ALL.iter().fold(0, |bits, f| bits | f.bit());
        assert_eq!((named("all"), all), (all, 0b11_1111));
    }
}
