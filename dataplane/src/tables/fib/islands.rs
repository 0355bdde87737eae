//! Where routes crowd: a *region* has many routes behind one head, and lines of its own for them.
//!
//! In: the routes of a family, and which of them changed. Out: [`Island`]s, one for each region,
//! and the slots that must be compiled anew.
//! Never: compiles a region in which nothing changed, nor one of more routes than [`Limits`] say,
//! if they can be divided.
//!
//! A change compiles the innermost region around it and nothing else. So what it costs is bounded,
//! wherever routes crowd: half a million behind one head are divided by the bytes that follow. To
//! the region around it an island is one more route, which leads to the island and not to a next
//! hop. Where an island says nothing, its *cover* answers: the longest route around it in the
//! region that leads there. So a change of that route compiles that region, and none inside.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included};

use super::{Entry, Family, Island};
use crate::sync::Arc;

/// A prefix: its first address and its length.
pub(super) type Key<B> = (B, u8);

/// Bits by which regions are divided.
const STEP: u8 = 8;

/// When regions come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// A slot with more routes becomes a region; the others share a piece with their neighbours,
    /// which is copied when one changes: 256 slots of so many are copied in 5 ms.
    pub(super) crowd: usize,
    /// A region with more routes is divided, until half as many are left; so many are compiled in
    /// 5 ms.
    pub(super) split: usize,
    /// A region with fewer routes ends. Those that are divided off have four times as many, so
    /// that none comes and goes with every other change.
    pub(super) merge: usize,
}

impl Limits {
    /// Those of a switch.
    pub(super) const DEFAULT: Limits = Limits {
        crowd: 256,
        split: 8192,
        merge: 4,
    };

    /// No regions at all.
    pub(super) const NEVER: Limits = Limits {
        crowd: usize::MAX,
        split: usize::MAX,
        merge: 0,
    };
}

/// The regions of a family and what they were compiled to.
#[derive(Clone, Debug)]
pub(super) struct Islands<F: Family> {
    /// The number of each region's island.
    regions: BTreeMap<Key<F::Bits>, u32>,
    islands: Vec<Island<F::Line>>,
    free: Vec<u32>,
    /// The islands as given to compiled tables, until one changes.
    shared: Option<Arc<[Island<F::Line>]>>,
    limits: Limits,
}

impl<F: Family> Islands<F> {
    pub(super) fn new(limits: Limits) -> Islands<F> {
        Islands {
            regions: BTreeMap::new(),
            islands: Vec::new(),
            free: Vec::new(),
            shared: None,
            limits,
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// The islands, for a compiled table.
    pub(super) fn share(&mut self) -> Arc<[Island<F::Line>]> {
        let islands = &self.islands;
        self.shared
            .get_or_insert_with(|| islands.as_slice().into())
            .clone()
    }

    /// Compiles the regions in which one of the routes `changed` lies. Gives the slots of those
    /// that lie in none, in any order.
    pub(super) fn change(
        &mut self,
        routes: &BTreeMap<Key<F::Bits>, u16>,
        changed: impl Iterator<Item = Key<F::Bits>>,
    ) -> Vec<usize> {
        let (mut slots, mut touched) = (Vec::new(), BTreeSet::new());
        for key in changed {
            match self.around(key) {
                Some((bits, len)) => drop(touched.insert((len, bits))),
                None => slots.push(F::slot(key.0)),
            }
        }
        // Inner ones first: the routes of one that ends fall to the region around it.
        while let Some((len, bits)) = touched.pop_last() {
            let region = (bits, len);
            let entries = self.entries(routes, region);
            if entries.len() >= self.limits.merge {
                self.compile(routes, region, entries);
                continue;
            }
            self.end(region);
            match self.around(region) {
                Some((bits, len)) => drop(touched.insert((len, bits))),
                None => slots.push(F::slot(bits)),
            }
        }
        slots
    }

    /// Makes a region, which there must not be yet, and the way to its island.
    pub(super) fn begin(
        &mut self,
        routes: &BTreeMap<Key<F::Bits>, u16>,
        region: Key<F::Bits>,
    ) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.islands.push(Island::default());
            (self.islands.len() - 1) as u32
        });
        let before = self.regions.insert(region, number);
        debug_assert!(before.is_none(), "a region begins once");
        let entries = self.entries(routes, region);
        self.compile(routes, region, entries);
        F::ISLAND | number
    }

    fn end(&mut self, region: Key<F::Bits>) {
        let Some(number) = self.regions.remove(&region) else {
            return;
        };
        self.islands[number as usize] = Island::default();
        self.free.push(number);
        self.shared = None;
    }

    /// What the region around them says where these islands say nothing.
    pub(super) fn cover(&mut self, covers: &[(u32, u16)]) {
        for (way, cover) in covers {
            let island = &mut self.islands[(way & !F::ISLAND) as usize];
            if island.cover != *cover {
                island.cover = *cover;
                self.shared = None;
            }
        }
    }

    /// The innermost region around a prefix. A route as long as a region is not in it.
    fn around(&self, (bits, len): Key<F::Bits>) -> Option<Key<F::Bits>> {
        let mut up_to = (bits, len.checked_sub(1)?);
        loop {
            let (&(found, found_len), _) = self.regions.range(..=up_to).next_back()?;
            let agreed = F::agree(found, bits);
            if agreed >= found_len {
                return Some((found, found_len));
            }
            // It lies beside the prefix, so what is around both is no longer than they agree.
            up_to = (F::cut(bits, agreed), agreed);
        }
    }

    /// What a region is compiled from, sorted by address and length: its routes, and the islands
    /// directly in it.
    pub(super) fn entries(
        &self,
        routes: &BTreeMap<Key<F::Bits>, u16>,
        region: Key<F::Bits>,
    ) -> Vec<Entry<F::Bits>> {
        let end = (F::end(region), u8::MAX);
        let (mut entries, mut done) = (Vec::new(), region);
        loop {
            let island = self.regions.range((Excluded(done), Included(end))).next();
            // A route as long as the island lies around it, and before it.
            let up_to = island.map_or(end, |(key, _)| *key);
            let here = routes.range((Excluded(done), Included(up_to)));
            entries.extend(here.map(|(&(bits, len), &hop)| Entry {
                bits,
                len,
                meaning: hop.into(),
            }));
            let Some((&(bits, len), number)) = island else {
                return entries;
            };
            let meaning = F::ISLAND | number;
            entries.push(Entry { bits, len, meaning });
            done = (F::end((bits, len)), u8::MAX);
        }
    }

    fn compile(
        &mut self,
        routes: &BTreeMap<Key<F::Bits>, u16>,
        region: Key<F::Bits>,
        mut entries: Vec<Entry<F::Bits>>,
    ) {
        if entries.len() > self.limits.split {
            self.divide(routes, &entries);
            entries = self.entries(routes, region);
        }
        let (mut lines, mut covers) = (Vec::new(), Vec::new());
        let entry = F::compile(&entries, 0, &mut lines, &mut covers);
        self.cover(&covers);
        let island = &mut self.islands[self.regions[&region] as usize];
        island.lines = lines.into();
        island.entry = entry;
        self.shared = None;
    }

    /// Makes regions of the largest groups of `entries`, by the byte behind the bits on which all
    /// agree.
    fn divide(&mut self, routes: &BTreeMap<Key<F::Bits>, u16>, entries: &[Entry<F::Bits>]) {
        let reach = agreed::<F>(entries) / STEP * STEP + STEP;
        if reach > F::WIDTH - STEP {
            return;
        }
        let same = |a: &Entry<F::Bits>, b: &Entry<F::Bits>| {
            a.len > reach && b.len > reach && F::agree(a.bits, b.bits) >= reach
        };
        let mut groups: Vec<_> = entries.chunk_by(same).filter(|g| g.len() > 1).collect();
        groups.sort_by_key(|group| Reverse(group.len()));
        let mut left = entries.len();
        for group in groups {
            if left <= self.limits.split / 2 {
                break;
            }
            left -= group.len() - 1;
            let shortest = group.iter().map(|entry| entry.len).min().unwrap_or(reach);
            let len = agreed::<F>(group).min(shortest - 1).min(F::WIDTH - STEP) / STEP * STEP;
            self.begin(routes, (F::cut(group[0].bits, len), len));
        }
    }
}

/// On how many first bits all of sorted `entries` agree, and none ends before.
pub(super) fn agreed<F: Family>(entries: &[Entry<F::Bits>]) -> u8 {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return F::SLOT_BITS;
    };
    let shortest = entries.iter().map(|entry| entry.len).min().unwrap_or(0);
    F::agree(first.bits, last.bits).min(shortest)
}
