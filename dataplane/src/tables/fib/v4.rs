//! IPv4: chunks of ranges over the bits behind the slot.
//!
//! In: the routes of one slot. Out: lines, and the number of a next hop for an address.
//! Never: resolves a number to a next hop.
//!
//! A chunk is a tree of 16 branches whose leaves are [`Line`]s of up to 16 ranges. A slot of random
//! routes seldom has more than one line, so most lookups read a root entry and one cache line.
//! The tree is at most four deep, since 16 to the fourth is more than a slot has addresses.

use std::net::{IpAddr, Ipv4Addr};

use super::islands::{Key, Limits};
use super::paint::{Painter, Range, Span, rank, signed};
use super::{Entry, Family, HopId, LINE, Shape};

/// How many ranges a line holds.
const FAN: usize = 16;

/// The bits behind the slot.
const LOW_BITS: u8 = 32 - V4::SLOT_BITS;

/// Where the number of levels above the leaves is kept in a root entry.
const LEVELS_SHIFT: u32 = 29;

/// The line number in a root entry: half a billion, while [`super::ROUTES_MAX`] routes need less
/// than three million.
const START: u32 = (1 << LEVELS_SHIFT) - 1;

/// The family.
#[derive(Clone, Debug)]
pub(super) enum V4 {}

/// Sixteen ranges of the low bits. Unused ones repeat the last end.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Line {
    /// Where each range ends, with the top bit turned (see [`signed`]).
    ends: [i16; FAN],
    /// In a leaf: the next hops' numbers, 0 for the cover's. Above: the lines below begin behind
    /// `meanings[0]`, counted from the chunk's first.
    meanings: [u16; FAN],
}

/// How many addresses [`find_batch`] takes through its passes together.
const BATCH: usize = 32;

/// The numbers of the next hops for `addresses`, as many as both slices have room for.
///
/// In a large table a lookup's time is that of guessing wrong whether its slot has no line, one or
/// a tree of them. So each question is asked of all addresses of a batch, and those that need a
/// next step are put on a list without a branch.
#[inline]
pub(super) fn find_batch(table: &Shape<Line>, addresses: &[Ipv4Addr], found: &mut [HopId]) {
    let batches = addresses.chunks(BATCH).zip(found.chunks_mut(BATCH));
    for (addresses, found) in batches {
        find_together(table, addresses, found);
    }
}

#[inline]
fn find_together(table: &Shape<Line>, addresses: &[Ipv4Addr], found: &mut [HopId]) {
    let mut steps = [Step::default(); BATCH];
    let mut chunks = List::new();
    for (nth, (address, found)) in addresses.iter().zip(&mut *found).enumerate() {
        let address = address.to_bits();
        let entry = table.root.get(V4::slot(address)).copied().unwrap_or(0);
        *found = HopId(entry as u16);
        steps[nth % BATCH] = Step::into(entry, address);
        chunks.add_if(nth, entry >= LINE);
    }
    // Reads a word of every first line, so that the processor fetches them side by side.
    let mut trees = List::new();
    for &nth in chunks.get() {
        let step = &mut steps[usize::from(nth) % BATCH];
        step.below = step.line(table).map_or(0, |line| line.meanings[0]);
        trees.add_if(nth.into(), step.levels > 0);
    }
    while !trees.get().is_empty() {
        let mut taller = List::new();
        for &nth in trees.get() {
            let step = &mut steps[usize::from(nth) % BATCH];
            let branch = step.line(table).map_or(0, |line| line.rank(step.address));
            step.at = step.start + u32::from(step.below) + branch as u32;
            step.below = step.line(table).map_or(0, |line| line.meanings[0]);
            step.levels -= 1;
            taller.add_if(nth.into(), step.levels > 0);
        }
        trees = taller;
    }
    let mut covered = List::new();
    for &nth in chunks.get() {
        let step = &steps[usize::from(nth) % BATCH];
        let hop = step.line(table).map_or(0, |line| line.hop(step.address));
        found[usize::from(nth)] = HopId(hop);
        covered.add_if(nth.into(), hop == 0);
    }
    for &nth in covered.get() {
        let slot = V4::slot(steps[usize::from(nth) % BATCH].address);
        found[usize::from(nth)] = HopId(table.cover.get(slot).copied().unwrap_or(0));
    }
}

/// How far the lookup of one address of a batch has come.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    address: u32,
    /// The chunk's first line, and the one to look at next.
    start: u32,
    at: u32,
    /// How many levels are above the leaves from there.
    levels: u32,
    /// Where the lines below that line begin, if it is no leaf.
    below: u16,
}

impl Step {
    #[inline]
    fn into(entry: u32, address: u32) -> Step {
        Step {
            address,
            start: entry & START,
            at: entry & START,
            levels: (entry & !LINE) >> LEVELS_SHIFT,
            below: 0,
        }
    }

    #[inline]
    fn line<'a>(&self, table: &'a Shape<Line>) -> Option<&'a Line> {
        let lines = table.pieces.get((self.address >> 24) as usize)?;
        lines.get(self.at as usize)
    }
}

impl Line {
    /// In which of the ranges an address of the slot lies.
    #[inline]
    fn rank(&self, address: u32) -> usize {
        let low = address as u16 & (u16::MAX >> (16 - LOW_BITS));
        rank(&self.ends, signed(low))
    }

    /// A leaf's number of the next hop for an address of the slot.
    #[inline]
    fn hop(&self, address: u32) -> u16 {
        self.meanings[self.rank(address) % FAN]
    }
}

/// Places of a batch, in order.
struct List {
    places: [u8; BATCH],
    len: usize,
}

impl List {
    fn new() -> List {
        List {
            places: [0; BATCH],
            len: 0,
        }
    }

    #[inline]
    fn add_if(&mut self, nth: usize, wanted: bool) {
        self.places[self.len % BATCH] = nth as u8;
        self.len += usize::from(wanted);
    }

    #[inline]
    fn get(&self) -> &[u8] {
        self.places.get(..self.len).unwrap_or(&self.places)
    }
}

/// The number of the next hop for `address`, 0 for none.
#[inline]
pub(super) fn find(table: &Shape<Line>, address: u32) -> u16 {
    let slot = V4::slot(address);
    let Some(&entry) = table.root.get(slot) else {
        return 0;
    };
    if entry < LINE {
        return entry as u16;
    }
    let hop = find_in_chunk(table, entry, address);
    if hop == 0 {
        return table.cover.get(slot).copied().unwrap_or(0);
    }
    hop
}

#[inline]
fn find_in_chunk(table: &Shape<Line>, entry: u32, address: u32) -> u16 {
    let mut step = Step::into(entry, address);
    while step.levels > 0 {
        let Some(line) = step.line(table) else {
            return 0;
        };
        step.at = step.start + u32::from(line.meanings[0]) + line.rank(address) as u32;
        step.levels -= 1;
    }
    step.line(table).map_or(0, |line| line.hop(address))
}

impl Family for V4 {
    type Bits = u32;
    type Line = Line;
    const WIDTH: u8 = 32;
    const SLOT_BITS: u8 = 16;
    const ISLAND: u32 = 0;
    const LIMITS: Limits = Limits::NEVER;

    fn bits(address: IpAddr) -> u32 {
        match address {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(_) => 0,
        }
    }

    #[inline]
    fn slot(bits: u32) -> usize {
        (bits >> LOW_BITS) as usize
    }

    fn first(slot: usize) -> u32 {
        (slot as u32) << LOW_BITS
    }

    fn end((bits, len): Key<u32>) -> u32 {
        bits | u32::MAX.checked_shr(len.into()).unwrap_or(0)
    }

    fn cut(bits: u32, len: u8) -> u32 {
        bits & !u32::MAX.checked_shr(len.into()).unwrap_or(0)
    }

    fn agree(a: u32, b: u32) -> u8 {
        (a ^ b).leading_zeros() as u8
    }

    fn compile(
        entries: &[Entry<u32>],
        start: usize,
        lines: &mut Vec<Line>,
        _covers: &mut Vec<(u32, u16)>,
    ) -> u32 {
        let low = |bits: u32| bits as u16 & (u16::MAX >> (16 - LOW_BITS));
        let mut painter = Painter::new(0);
        for entry in entries {
            painter.add(Span {
                first: low(entry.bits),
                last: low(V4::end((entry.bits, entry.len))),
                meaning: entry.meaning,
            });
        }
        let mut levels = vec![leaves(&painter.finish())];
        while levels[levels.len() - 1].len() > 1 {
            levels.push(branches(&levels[levels.len() - 1]));
        }
        // The top comes first, so that a chunk is entered at its start.
        let mut below = 0;
        for (depth, mut level) in levels.iter().cloned().enumerate().rev() {
            below += level.len();
            if depth > 0 {
                for (nth, line) in level.iter_mut().enumerate() {
                    line.meanings[0] = (below + nth * FAN) as u16;
                }
            }
            lines.extend(level);
        }
        LINE | ((levels.len() as u32 - 1) << LEVELS_SHIFT) | (start as u32 & START)
    }

    fn moved(entry: u32, start: usize) -> u32 {
        (entry & !START) | (start as u32 & START)
    }
}

fn leaves(ranges: &[Range]) -> Vec<Line> {
    let leaf = |ranges: &[Range]| Line {
        ends: std::array::from_fn(|i| signed(ranges[i.min(ranges.len() - 1)].end)),
        meanings: std::array::from_fn(|i| ranges[i.min(ranges.len() - 1)].meaning as u16),
    };
    ranges.chunks(FAN).map(leaf).collect()
}

fn branches(below: &[Line]) -> Vec<Line> {
    let branch = |lines: &[Line]| Line {
        ends: std::array::from_fn(|i| lines[i.min(lines.len() - 1)].ends[FAN - 1]),
        meanings: [0; FAN],
    };
    below.chunks(FAN).map(branch).collect()
}
