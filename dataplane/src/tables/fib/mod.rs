//! The forwarding information base: the longest prefix that holds an address, and its next hop.
//!
//! In: routes, all at once ([`Fib::build`]) or change by change ([`rib::Rib`]).
//! Out: the next hop for an address, or nothing; for a batch of addresses, their [`HopId`]s.
//! Never: changes once built, allocates or panics in a lookup, whatever the address.
//!
//! Both families have one shape. The first 16 bits of an address choose a *slot*. A slot is either
//! an answer, or a *chunk*: the routes longer than the slot, compiled into lines of 64 bytes, one
//! per cache line, which hold sorted range ends and what each range means ([`v4`], [`v6`]). A
//! lookup compares all ends of a line at once, which any x86-64 does with SSE2, so we need neither
//! POPCNT nor a choice of instructions at run time. Where a chunk says nothing, the slot's *cover*
//! answers: the longest route of at most 16 bits. So a new default route touches no chunk.
//!
//! Chunks are kept in 256 shared pieces, by the first 8 bits. A change copies one piece and the
//! slots, and shares the rest with the table before it. A chunk of IPv6 has no bound but the number
//! of routes, so where these crowd it is made of [`islands`], each of them shared too.

pub mod group;
mod hops;
mod islands;
mod paint;
pub mod rib;
#[cfg(test)]
mod tests;
mod v4;
mod v6;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::addr::{Mac, PortId};
use crate::sync::Arc;
use group::GroupId;
use islands::{Key, Limits};
use rib::Rib;

/// Most routes of one family. An Azure route table has 400, the Internet about a million; beyond
/// that somebody feeds us nonsense, and 24-bit line numbers in [`v6`] must not run out.
pub const ROUTES_MAX: usize = 1 << 20;

/// Most distinct next hops: [`HopId`] has 16 bits, and 0 means that there is none.
pub const HOPS_MAX: usize = u16::MAX as usize;

/// Where a routed packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// A station whose hardware address is known: a pod, or Azure's virtual router.
    Station {
        /// The port it is reached by.
        port: PortId,
        /// Its hardware address.
        mac: Mac,
    },
    /// The node's own kernel, which routes, masquerades and balances as it sees fit.
    Host,
    /// A router on the uplink, whose hardware address is asked for when first needed.
    Neighbour(IpAddr),
    /// Nobody: inside this node's own pod range, and no pod has the address.
    Unreachable,
    /// Nobody, silently.
    Blackhole,
    /// One of several, each flow keeping to the same one (ECMP).
    Group(GroupId),
}

/// A next hop's number in one [`Fib`]; see [`Fib::hop`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HopId(u16);

impl HopId {
    /// No route.
    pub const NONE: HopId = HopId(0);
}

/// Two routes for one prefix that disagree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("prefix {prefix} has two next hops: {first:?} and {second:?}")]
pub struct Conflict {
    /// The prefix given twice.
    pub prefix: IpNet,
    /// The next hop given first.
    pub first: NextHop,
    /// The other one.
    pub second: NextHop,
}

/// Why routes make no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Two routes for one prefix that disagree.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// A prefix that is an address: which of the two was meant, nobody can tell.
    #[error("{0} has bits set behind its length; the prefix is {prefix}", prefix = .0.trunc())]
    HostBits(IpNet),
    /// More routes of one family than [`ROUTES_MAX`].
    #[error("with {last} there are {count} routes of one family, and a table holds {ROUTES_MAX}")]
    TooManyRoutes {
        /// How many there would be.
        count: usize,
        /// The last of the new ones.
        last: IpNet,
    },
    /// More distinct next hops than [`HOPS_MAX`].
    #[error("{0} is one next hop too many: a table holds {HOPS_MAX} distinct ones")]
    TooManyHops(IpNet),
}

/// A routing table compiled for lookup, for both families. A clone shares everything.
#[derive(Clone, Debug, Default)]
pub struct Fib {
    v4: Shape<v4::Line>,
    v6: Shape<v6::Line>,
    hops: Arc<[Option<NextHop>]>,
    len: usize,
}

impl Fib {
    /// Compiles `routes`. The same route twice is one.
    ///
    /// # Errors
    /// Every prefix with host bits or with two different next hops, or that there is too much.
    pub fn build(routes: impl IntoIterator<Item = (IpNet, NextHop)>) -> Result<Fib, Vec<Refusal>> {
        let mut rib = Rib::default();
        rib.replace(routes)?;
        Ok(rib.fib())
    }

    /// The next hop of the longest prefix that holds `address`.
    #[inline]
    #[must_use]
    pub fn find_v4(&self, address: Ipv4Addr) -> Option<NextHop> {
        self.next_hop_v4(address).copied()
    }

    /// The same, in its place: 24 bytes that need not be copied.
    #[inline]
    #[must_use]
    pub(crate) fn next_hop_v4(&self, address: Ipv4Addr) -> Option<&NextHop> {
        self.row(HopId(v4::find(&self.v4, address.to_bits())))
    }

    /// The next hop of the longest prefix that holds `address`.
    #[inline]
    #[must_use]
    pub fn find_v6(&self, address: Ipv6Addr) -> Option<NextHop> {
        self.next_hop_v6(address).copied()
    }

    /// The same, in its place.
    #[inline]
    #[must_use]
    pub(crate) fn next_hop_v6(&self, address: Ipv6Addr) -> Option<&NextHop> {
        self.row(HopId(v6::find(&self.v6, address.to_bits())))
    }

    /// Looks up as many addresses as both slices have room for.
    #[inline]
    pub fn find_batch_v4(&self, addresses: &[Ipv4Addr], found: &mut [HopId]) {
        v4::find_batch(&self.v4, addresses, found);
    }

    /// Looks up as many addresses as both slices have room for.
    #[inline]
    pub fn find_batch_v6(&self, addresses: &[Ipv6Addr], found: &mut [HopId]) {
        for (address, found) in addresses.iter().zip(found) {
            *found = HopId(v6::find(&self.v6, address.to_bits()));
        }
    }

    /// The next hop of that number, which a lookup in this very table gave.
    #[inline]
    #[must_use]
    pub fn hop(&self, id: HopId) -> Option<NextHop> {
        self.row(id).copied()
    }

    #[inline]
    fn row(&self, id: HopId) -> Option<&NextHop> {
        self.hops.get(usize::from(id.0))?.as_ref()
    }

    /// How many prefixes the table holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for a table without prefixes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes this table keeps alive on the heap, shared or not; counts of references aside.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.v4.memory_bytes() + self.v6.memory_bytes() + size_of_val(&*self.hops)
    }
}

/// Bits of a root entry and of a range's meaning: a number of a next hop, or, with this bit, the
/// way to a line.
const LINE: u32 = 1 << 31;

/// How many pieces the lines of a family are kept in: by the first 8 bits of an address.
const PIECES: usize = 256;

/// The table of one family, whose lines are `L`. Without routes every slice is empty.
#[derive(Debug)]
struct Shape<L> {
    /// Per slot: the number of the next hop, or where its chunk begins.
    root: Arc<[u32]>,
    /// Per slot: the number of the next hop where the chunk says 0.
    cover: Arc<[u16]>,
    /// The lines of the chunks, by the first 8 bits of the address.
    pieces: Arc<[Arc<[L]>]>,
    /// By their numbers; those not in use have no lines.
    islands: Arc<[Island<L>]>,
}

/// The lines of a region (see [`islands`]).
#[derive(Debug)]
struct Island<L> {
    lines: Arc<[L]>,
    /// The way to its first line.
    entry: u32,
    /// The number of the next hop where the lines say 0, unless it is 0 too.
    cover: u16,
}

impl<L> Clone for Island<L> {
    fn clone(&self) -> Self {
        Island {
            lines: self.lines.clone(),
            ..*self
        }
    }
}

impl<L> Default for Island<L> {
    fn default() -> Self {
        Island {
            lines: Arc::new([]),
            entry: 0,
            cover: 0,
        }
    }
}

impl<L> Shape<L> {
    fn memory_bytes(&self) -> usize {
        size_of_val(&*self.root)
            + size_of_val(&*self.cover)
            + size_of_val(&*self.pieces)
            + self.pieces.iter().map(|p| size_of_val(&**p)).sum::<usize>()
            + size_of_val(&*self.islands)
            + self
                .islands
                .iter()
                .map(|i| size_of_val(&*i.lines))
                .sum::<usize>()
    }
}

impl<L> Clone for Shape<L> {
    fn clone(&self) -> Self {
        Shape {
            root: self.root.clone(),
            cover: self.cover.clone(),
            pieces: self.pieces.clone(),
            islands: self.islands.clone(),
        }
    }
}

impl<L> Default for Shape<L> {
    fn default() -> Self {
        Shape {
            root: Arc::new([]),
            cover: Arc::new([]),
            pieces: Arc::new([]),
            islands: Arc::new([]),
        }
    }
}

/// What the routing table must know to compile a family.
trait Family {
    /// An address.
    type Bits: Copy + Ord + fmt::Debug;
    /// 64 bytes of a chunk.
    type Line: Copy;
    /// Bits of an address.
    const WIDTH: u8;
    /// How many bits choose the slot.
    const SLOT_BITS: u8;
    /// What the way to an island has beside its number; 0 for a family that has none.
    const ISLAND: u32;
    /// When it has islands.
    const LIMITS: Limits;

    /// An address of this family; those of the other are nothing.
    fn bits(address: IpAddr) -> Self::Bits;
    /// The slot of an address.
    fn slot(bits: Self::Bits) -> usize;
    /// The first address of a slot.
    fn first(slot: usize) -> Self::Bits;
    /// The last address of a prefix.
    fn end(prefix: Key<Self::Bits>) -> Self::Bits;
    /// The first `len` bits, and zeros.
    fn cut(bits: Self::Bits, len: u8) -> Self::Bits;
    /// On how many first bits two addresses agree.
    fn agree(a: Self::Bits, b: Self::Bits) -> u8;
    /// Compiles what is in one slot or region, sorted by address and length, all longer than it,
    /// to the end of `lines`. Gives the root's entry, whose line number is `start`. The ways to
    /// islands go onto `covers`, with the number of the next hop around each.
    fn compile(
        entries: &[Entry<Self::Bits>],
        start: usize,
        lines: &mut Vec<Self::Line>,
        covers: &mut Vec<(u32, u16)>,
    ) -> u32;
    /// The same root entry for a chunk that has moved to `start`.
    fn moved(entry: u32, start: usize) -> u32;
}

/// One route as the compilers see it, or an island.
#[derive(Clone, Copy, Debug)]
struct Entry<B> {
    bits: B,
    len: u8,
    /// The number of a next hop, or the way to an island.
    meaning: u32,
}

impl<B> Entry<B> {
    fn is_island(&self) -> bool {
        self.meaning >= LINE
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NextHop::Station { port, mac } => write!(f, "{mac} on {port:?}"),
            NextHop::Host => f.write_str("host"),
            NextHop::Neighbour(address) => write!(f, "via {address}"),
            NextHop::Unreachable => f.write_str("unreachable"),
            NextHop::Blackhole => f.write_str("blackhole"),
            NextHop::Group(group) => write!(f, "{group}"),
        }
    }
}
