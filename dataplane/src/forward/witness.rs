//! Who is told how a decision came about: for `trace`, which explains it.
//!
//! In: each [`Step`] that `decide` takes, as it takes it. Out: whatever the witness makes of them.
//! Never: a second account of the decision, or a cost where nobody listens: `()` is a witness that
//! compiles to nothing.

use std::net::IpAddr;

use crate::addr::{Mac, PortId};
use crate::frame::tuple::Tuple;
use crate::tables::fib::NextHop;
use crate::tables::fib::group::GroupId;
use crate::tables::guard::Mode;
use crate::tables::returns::Known as Carried;
use crate::tables::{Crossing, Owner, Unknown};
use crate::verdict::DropReason;

/// One thing that `decide` looked at, and what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A guard of the ingress port objects to the frame.
    Guard {
        /// To what.
        reason: DropReason,
        /// What comes of it.
        mode: Mode,
    },
    /// The target MAC is one of the router's, so the IP address decides.
    ForRouter {
        /// The target MAC.
        mac: Mac,
    },
    /// It came in by the uplink, whose frames all have the NIC's MAC: the IP address decides.
    FromUplink,
    /// The target MAC is a group's.
    ForGroup {
        /// The target MAC.
        mac: Mac,
    },
    /// The target MAC has a port.
    Station {
        /// The target MAC.
        mac: Mac,
        /// Where it lives.
        port: PortId,
        /// How that is known.
        known: Known,
    },
    /// The target MAC is neither configured nor in the FDB.
    NoStation {
        /// The target MAC.
        mac: Mac,
        /// What is done with such frames.
        unknown: Unknown,
    },
    /// The way out is the way in.
    Hairpin {
        /// The port.
        port: PortId,
        /// Its row says that frames may go back.
        allowed: bool,
    },
    /// Way in and way out are both isolated.
    Isolated {
        /// The port that it would leave by.
        egress: PortId,
    },
    /// Who holds an address that an ARP packet or a neighbour solicitation names.
    Owner {
        /// The address.
        address: IpAddr,
        /// Its holder on this switch.
        owner: Option<Owner>,
    },
    /// May packets come from this address?
    Source {
        /// The source address.
        address: IpAddr,
        /// It may not appear on a wire.
        martian: bool,
    },
    /// The longest prefix that holds the target address.
    Route {
        /// The target address.
        address: IpAddr,
        /// The next hop of that prefix.
        hop: Option<NextHop>,
    },
    /// Which next hop of a group carries the packet's flow.
    Member {
        /// The group.
        group: GroupId,
        /// Its member.
        hop: NextHop,
    },
    /// A target that no router may forward.
    NotRoutable {
        /// The target address.
        address: IpAddr,
    },
    /// The hardware address of a next hop.
    Neighbour {
        /// The next hop.
        address: IpAddr,
        /// What it said, if it has been heard.
        mac: Option<Mac>,
    },
    /// Policy sends it through the host, whose rules hold.
    Policy {
        /// The port that it would leave by otherwise.
        egress: PortId,
    },
    /// Who carried the conversation that it answers. Told where anything is known of its ports.
    Return {
        /// That conversation.
        answers: Tuple,
        /// What is known of it.
        known: Carried,
    },
    /// How packets cross from one side to the other here.
    Crossing {
        /// The port they leave by.
        egress: PortId,
        /// The rule.
        rule: Crossing,
    },
    /// The TTL or hop limit, which must be above 1.
    Hops {
        /// As the packet came.
        left: u8,
    },
    /// The size held against the egress MTU.
    Size {
        /// Bytes of the packet, or of one segment of a super-frame.
        bytes: usize,
        /// The egress MTU, in bytes.
        mtu: u16,
    },
}

/// How the port of a station is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It stands in the tables.
    Configured,
    /// It was learned: an entry of the FDB.
    Learned,
}

/// Somebody who is told each step of a decision, in order.
pub trait Witness {
    /// False for a witness that makes nothing of what it is told, so that no step is put together.
    const LISTENS: bool = true;

    /// `decide` has taken `step`.
    fn note(&mut self, step: Step);

    /// A guard that only observes would have refused the frame.
    #[inline(always)]
    fn observe(&mut self, _: DropReason) {}
}

/// The worker's witness: it is told no step, and remembers what was observed, a bit for each reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed(u64);

const _: () = assert!(DropReason::COUNT <= u64::BITS as usize);

impl Observed {
    /// True if nothing was.
    #[inline(always)]
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What was, each reason once.
    pub(crate) fn reasons(self) -> impl Iterator<Item = DropReason> {
        let seen = move |reason: &DropReason| self.0 & 1 << *reason as u8 != 0;
        DropReason::ALL.iter().copied().filter(seen)
    }
}

impl Witness for Observed {
    const LISTENS: bool = false;

    #[inline(always)]
    fn note(&mut self, _: Step) {}

    fn observe(&mut self, reason: DropReason) {
        self.0 |= 1 << reason as u8;
    }
}

/// Nobody listens, and nothing is said: this is what the worker compiles.
impl Witness for () {
    const LISTENS: bool = false;

    #[inline(always)]
    fn note(&mut self, _: Step) {}
}

impl Witness for Vec<Step> {
    fn note(&mut self, step: Step) {
        self.push(step);
    }
}

/// Tells a witness of type `W` a step. The test is of a constant and stands before the step is put
/// together, so that an unheard step costs nothing, not even a copy.
macro_rules! note {
    ($witness:ident, $step:expr) => {
        if W::LISTENS {
            $witness.note($step);
        }
    };
}
pub(super) use note;
