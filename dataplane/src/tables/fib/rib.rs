//! The routing information base: the routes behind a [`Fib`], which may change.
//!
//! In: routes to set and to remove, or a whole new set of them.
//! Out: a [`Fib`] that shares with the one before it whatever did not change.
//! Never: is read by a worker, or takes half of what it was asked: it refuses all or does all.
//!
//! A change of a route longer than its slot recompiles that slot's chunk and copies the piece the
//! chunk lies in, or recompiles the innermost region around it ([`islands`](super::islands)). A
//! change of a shorter one paints the covers anew and leaves all chunks alone. Either way the slots
//! are copied once. So the cost of a change does not grow with the table.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::hops::Hops;
use super::islands::{Islands, Key, Limits};
use super::v4::V4;
use super::v6::V6;
use super::{Conflict, Family, Fib, HOPS_MAX, NextHop, PIECES, ROUTES_MAX, Refusal, Shape};
use crate::sync::Arc;

/// A routing table of both families.
#[derive(Clone, Debug, Default)]
pub struct Rib {
    v4: Side<V4>,
    v6: Side<V6>,
    hops: Hops,
    rows: Arc<[Option<NextHop>]>,
}

/// A prefix that gets a next hop, or loses it.
pub type Change = (IpNet, Option<NextHop>);

impl Rib {
    /// A table whose IPv6 routes are thought a crowd sooner.
    #[cfg(test)]
    pub(super) fn with(limits: Limits) -> Rib {
        Rib {
            v6: Side::new(limits),
            ..Rib::default()
        }
    }

    /// Makes all `changes`; of two for one prefix the later counts. The removal of a route that is
    /// not there is ignored. Gives the number of routes that differ now.
    ///
    /// # Errors
    /// Every prefix with host bits, or that there would be too much of something. Nothing has
    /// changed then.
    pub fn apply(
        &mut self,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<usize, Vec<Refusal>> {
        let mut sorted: Vec<Change> = changes.into_iter().collect();
        let refusals = host_bits(sorted.iter().map(|(prefix, _)| *prefix));
        if !refusals.is_empty() {
            return Err(refusals);
        }
        sorted.sort_by_key(|(prefix, _)| *prefix);
        sorted.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                kept.1 = later.1;
            }
            same
        });
        sorted.retain(|(prefix, hop)| self.get(*prefix) != *hop);
        self.settle(&sorted)
    }

    /// Makes `routes` the whole table. Gives the number of routes that differ now.
    ///
    /// # Errors
    /// Every prefix with host bits or with two different next hops, or that there is too much of
    /// something. Nothing has changed then.
    pub fn replace(
        &mut self,
        routes: impl IntoIterator<Item = (IpNet, NextHop)>,
    ) -> Result<usize, Vec<Refusal>> {
        let mut wanted: Vec<(IpNet, NextHop)> = routes.into_iter().collect();
        wanted.sort_by_key(|(prefix, _)| *prefix);
        let mut refusals = host_bits(wanted.iter().map(|(prefix, _)| *prefix));
        wanted.dedup_by(|(prefix, second), (kept, first)| {
            if prefix == kept && second != first {
                refusals.push(Refusal::Conflict(Conflict {
                    prefix: *prefix,
                    first: *first,
                    second: *second,
                }));
            }
            prefix == kept
        });
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let has = |prefix: &IpNet| wanted.binary_search_by_key(prefix, |(p, _)| *p).is_ok();
        let mut changes: Vec<Change> = self
            .iter()
            .filter(|(prefix, _)| !has(prefix))
            .map(|(prefix, _)| (prefix, None))
            .collect();
        let new = wanted.iter().map(|(prefix, hop)| (*prefix, Some(*hop)));
        changes.extend(new.filter(|(prefix, hop)| self.get(*prefix) != *hop));
        changes.sort_by_key(|(prefix, _)| *prefix);
        self.settle(&changes)
    }

    /// The table, compiled. This is cheap: the work was done with the change.
    #[must_use]
    pub fn fib(&self) -> Fib {
        Fib {
            v4: self.v4.shape.clone(),
            v6: self.v6.shape.clone(),
            hops: self.rows.clone(),
            len: self.len(),
        }
    }

    /// The next hop of exactly this prefix.
    #[must_use]
    pub fn get(&self, prefix: IpNet) -> Option<NextHop> {
        self.hops.get(self.number(prefix)?)
    }

    /// All routes.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, NextHop)> {
        let v4 = self.v4.iter().filter_map(|((bits, len), number)| {
            let net = ipnet::Ipv4Net::new(bits.into(), len).ok()?;
            Some((net.into(), self.hops.get(number)?))
        });
        let v6 = self.v6.iter().filter_map(|((bits, len), number)| {
            let net = ipnet::Ipv6Net::new(bits.into(), len).ok()?;
            Some((net.into(), self.hops.get(number)?))
        });
        v4.chain(v6)
    }

    /// True if some route goes to `hop`.
    #[must_use]
    pub fn names(&self, hop: NextHop) -> bool {
        self.hops.has(hop)
    }

    /// The next hops of all routes, each once, in no order.
    pub fn hops(&self) -> impl Iterator<Item = NextHop> {
        self.hops.iter()
    }

    /// How many routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// True for a table without routes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes changes that are sorted, single and real, if there is room for them.
    fn settle(&mut self, changes: &[Change]) -> Result<usize, Vec<Refusal>> {
        let v4_count = changes.partition_point(|(prefix, _)| matches!(prefix, IpNet::V4(_)));
        let (v4, v6) = changes.split_at(v4_count);
        let too_many = |(before, changes): (usize, &[Change])| {
            let mut new = changes.iter().filter(|change| self.is_new(change));
            let (last, _) = *new.next_back()?;
            let count = before + new.count() + 1 - loss(changes);
            (count > ROUTES_MAX).then_some(Refusal::TooManyRoutes { count, last })
        };
        let families = [(self.v4.len(), v4), (self.v6.len(), v6)];
        let refusals: Vec<Refusal> = families.into_iter().filter_map(too_many).collect();
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let numbers = self.renumber(changes).map_err(|refusal| vec![refusal])?;
        self.rows = self.hops.share();
        let (v4_numbers, v6_numbers) = numbers.split_at(v4_count);
        self.v4.change(v4, v4_numbers);
        self.v6.change(v6, v6_numbers);
        Ok(changes.len())
    }

    /// True for a real change that adds a prefix.
    fn is_new(&self, (prefix, hop): &Change) -> bool {
        hop.is_some() && self.get(*prefix).is_none()
    }

    /// Numbers the next hops of `changes` and lets go of those before, or leaves all as it was.
    fn renumber(&mut self, changes: &[Change]) -> Result<Vec<u16>, Refusal> {
        // Only near the limit can it fail, so only there do we pay for a way back.
        let near = self.hops.len() + changes.len() > HOPS_MAX;
        let spare = near.then(|| self.hops.clone());
        for (prefix, _) in changes {
            if let Some(number) = self.number(*prefix) {
                self.hops.release(number);
            }
        }
        let take = |(prefix, hop): &Change| {
            let number = hop.map_or(Some(0), |hop| self.hops.take(hop));
            number.ok_or(Refusal::TooManyHops(*prefix))
        };
        let numbers = changes.iter().map(take).collect();
        if let (Err(_), Some(spare)) = (&numbers, spare) {
            self.hops = spare;
        }
        numbers
    }

    fn number(&self, prefix: IpNet) -> Option<u16> {
        match prefix {
            IpNet::V4(_) => self.v4.get(key::<V4>(prefix)),
            IpNet::V6(_) => self.v6.get(key::<V6>(prefix)),
        }
    }
}

/// The prefixes with bits set behind their length.
fn host_bits(prefixes: impl Iterator<Item = IpNet>) -> Vec<Refusal> {
    let set = prefixes.filter(|prefix| *prefix != prefix.trunc());
    set.map(Refusal::HostBits).collect()
}

/// How many of real changes are removals.
fn loss(changes: &[Change]) -> usize {
    changes.iter().filter(|(_, hop)| hop.is_none()).count()
}

fn key<F: Family>(prefix: IpNet) -> Key<F::Bits> {
    (F::bits(prefix.network()), prefix.prefix_len())
}

/// The routes of one family, and what they were compiled to.
#[derive(Clone, Debug)]
struct Side<F: Family> {
    /// Routes no longer than a slot: they make the covers.
    short: BTreeMap<Key<F::Bits>, u16>,
    /// The others: they make the chunks.
    long: BTreeMap<Key<F::Bits>, u16>,
    islands: Islands<F>,
    shape: Shape<F::Line>,
    /// How many lines the chunk of each slot has, or [`AWAY`].
    sizes: Vec<u32>,
}

/// In place of a size: the routes of the slot are a region.
const AWAY: u32 = u32::MAX;

impl<F: Family> Default for Side<F> {
    fn default() -> Self {
        Side::new(F::LIMITS)
    }
}

impl<F: Family> Side<F> {
    const SLOTS: usize = 1 << F::SLOT_BITS;
    const SLOTS_OF_PIECE: usize = Self::SLOTS / PIECES;

    fn new(limits: Limits) -> Side<F> {
        Side {
            short: BTreeMap::new(),
            long: BTreeMap::new(),
            islands: Islands::new(limits),
            shape: Shape::default(),
            sizes: Vec::new(),
        }
    }

    fn len(&self) -> usize {
        self.short.len() + self.long.len()
    }

    fn get(&self, key: Key<F::Bits>) -> Option<u16> {
        self.routes(key.1).get(&key).copied()
    }

    fn routes(&self, len: u8) -> &BTreeMap<Key<F::Bits>, u16> {
        if len <= F::SLOT_BITS {
            &self.short
        } else {
            &self.long
        }
    }

    fn iter(&self) -> impl Iterator<Item = (Key<F::Bits>, u16)> {
        self.short
            .iter()
            .chain(&self.long)
            .map(|(key, number)| (*key, *number))
    }

    /// Makes `changes`, whose next hops have these `numbers`, and compiles what they touch.
    fn change(&mut self, changes: &[Change], numbers: &[u16]) {
        let (mut covers, mut changed) = (false, Vec::new());
        for ((prefix, hop), number) in changes.iter().zip(numbers) {
            let key = key::<F>(*prefix);
            let short = key.1 <= F::SLOT_BITS;
            let routes = if short {
                &mut self.short
            } else {
                &mut self.long
            };
            match hop {
                Some(_) => routes.insert(key, *number),
                None => routes.remove(&key),
            };
            if short {
                covers = true;
            } else {
                changed.push(key);
            }
        }
        if self.len() == 0 {
            *self = Side::new(self.islands.limits());
        } else if !changes.is_empty() {
            let mut slots = self.islands.change(&self.long, changed.into_iter());
            slots.sort_unstable();
            slots.dedup();
            self.compile(covers, &slots);
        }
    }

    /// Compiles `slots`, sorted, and the covers if `covers`.
    fn compile(&mut self, covers: bool, slots: &[usize]) {
        let before = self.shape.clone();
        let mut root = or_new(&before.root, Self::SLOTS, 0);
        self.sizes.resize(Self::SLOTS, 0);
        if covers || before.cover.is_empty() {
            self.shape.cover = self.covers().into();
        }
        let mut pieces = or_new(&before.pieces, PIECES, Arc::new([]));
        for slots in slots.chunk_by(|a, b| a / Self::SLOTS_OF_PIECE == b / Self::SLOTS_OF_PIECE) {
            let piece = slots[0] / Self::SLOTS_OF_PIECE;
            pieces[piece] = self.piece(piece, slots, &pieces[piece], &mut root);
        }
        for ((entry, size), cover) in root.iter_mut().zip(&self.sizes).zip(&*self.shape.cover) {
            if *size == 0 {
                *entry = u32::from(*cover);
            }
        }
        self.shape.root = root.into();
        self.shape.pieces = pieces.into();
        self.shape.islands = self.islands.share();
    }

    /// The lines of a piece, of which the chunks of `slots` are compiled and the rest is copied.
    fn piece(
        &mut self,
        piece: usize,
        mut slots: &[usize],
        old: &[F::Line],
        root: &mut [u32],
    ) -> Arc<[F::Line]> {
        let mut lines: Vec<F::Line> = Vec::with_capacity(old.len() + slots.len());
        let mut old_chunks = old;
        let of_piece = piece * Self::SLOTS_OF_PIECE..(piece + 1) * Self::SLOTS_OF_PIECE;
        for slot in of_piece {
            let start = lines.len();
            let size = match self.sizes[slot] {
                AWAY => 0,
                size => size as usize,
            };
            let (old_chunk, rest) = old_chunks.split_at(size);
            old_chunks = rest;
            if slots.first() == Some(&slot) {
                slots = &slots[1..];
                root[slot] = self.chunk(slot, &mut lines);
            } else if !old_chunk.is_empty() {
                lines.extend_from_slice(old_chunk);
                root[slot] = F::moved(root[slot], start);
            }
        }
        lines.into()
    }

    /// Compiles a slot that is no region, to the end of `lines` or, where routes crowd, to a region
    /// from now on. Gives the root's entry, for a slot without routes any.
    fn chunk(&mut self, slot: usize, lines: &mut Vec<F::Line>) -> u32 {
        let region = (F::first(slot), F::SLOT_BITS);
        let entries = self.islands.entries(&self.long, region);
        let start = lines.len();
        let mut entry = 0;
        if entries.len() > self.islands.limits().crowd {
            entry = self.islands.begin(&self.long, region);
            self.sizes[slot] = AWAY;
            return entry;
        }
        if !entries.is_empty() {
            let mut covers = Vec::new();
            entry = F::compile(&entries, start, lines, &mut covers);
            self.islands.cover(&covers);
        }
        self.sizes[slot] = (lines.len() - start) as u32;
        entry
    }

    /// For each slot the longest of the short routes. Sorted as they are, inner routes come after
    /// the outer ones and paint over them.
    fn covers(&self) -> Vec<u16> {
        let mut covers = vec![0; Self::SLOTS];
        for (&(bits, len), &number) in &self.short {
            let first = F::slot(bits);
            covers[first..first + (Self::SLOTS >> len)].fill(number);
        }
        covers
    }
}

/// A copy to change, or `count` times `fresh` if there is nothing yet.
fn or_new<T: Clone>(old: &[T], count: usize, fresh: T) -> Vec<T> {
    if old.is_empty() {
        vec![fresh; count]
    } else {
        old.to_vec()
    }
}
