//! IPv6: a trie of 16-bit windows that skips the bits on which all routes agree.
//!
//! In: the routes of one slot. Out: lines, and the number of a next hop for an address.
//! Never: resolves a number to a next hop.
//!
//! A line holds the bits that an address must have to be here at all, and up to eight ranges of
//! the 16 bits behind them. A range means a next hop, or a line below: one of more ranges of the
//! same window, or of a window further on. Prefixes of a real plan share long heads (a cluster's
//! /48) and differ in one window, so a lookup reads a root entry and a few lines.
//!
//! A window with many ranges, such as a node's /64 beside the next node's, goes by *pages*: 256
//! meanings that a byte of the address chooses from directly. Without them ten thousand nodes
//! would be five lines deep, and each one waits for the one before.
//!
//! Where many routes crowd they are compiled apart ([`islands`](super::islands)), and a range or a
//! slot leads to an island: lines of its own, which a change elsewhere does not touch.

use std::net::IpAddr;

use super::islands::{Key, Limits, agreed};
use super::paint::{Painter, Range, Span, rank, signed};
use super::{Entry, Family, LINE, Shape};

/// How many ranges a line holds.
const FAN: usize = 8;

/// Where the width of the tail behind the required bits is kept beside a line number.
const TAIL_SHIFT: u32 = 24;

/// Says that the way leads to a page, whose byte begins where the tail does.
const PAGE: u32 = 1 << 23;

/// Says that the way leads to an island, whose number is where a line's would be.
const ISLAND: u32 = 1 << 22;

/// The line number, or the island's: four million. A route needs at most six lines: two for heads,
/// two for their ranges, and two for pages, which replace 64 ranges each; and no piece or island
/// holds more than 100,000 routes ([`Limits`]).
const START: u32 = ISLAND - 1;

/// The lines of a page. Only their meanings are used: half of it is air, and all code stays safe.
const PAGE_LINES: usize = 256 / FAN;

/// A window, or a 256th of it, with more ranges than this becomes a page.
const PAGED_OVER: usize = FAN * FAN;

/// The bits of a window.
const WINDOW: u8 = 16;

/// The family.
#[derive(Clone, Debug)]
pub(super) enum V6 {}

/// Eight ranges of a window behind a common head. Unused ones repeat the last end.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Line {
    /// The head, shifted left by 16, and in the low 16 bits the number of the next hop for
    /// addresses with another head. A head has at most 112 bits.
    head: u128,
    /// Where each range ends, with the top bit turned (see [`signed`]).
    ends: [i16; FAN],
    /// A next hop's number, 0 for the cover's; or [`LINE`], the tail's width, and the line's
    /// number counted from the chunk's first; or the way to an island.
    meanings: [u32; FAN],
}

/// The number of the next hop for `address`, 0 for none.
#[inline]
pub(super) fn find(table: &Shape<Line>, address: u128) -> u16 {
    let slot = V6::slot(address);
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
fn find_in_chunk(table: &Shape<Line>, entry: u32, address: u128) -> u16 {
    let Some(piece) = table.pieces.get((address >> 120) as usize) else {
        return 0;
    };
    if entry & ISLAND != 0 {
        return find_in_islands(table, entry, address, 0);
    }
    match walk(piece, (entry & START) as usize, entry, address) {
        way if way < LINE => way as u16,
        way => find_in_islands(table, way, address, 0),
    }
}

/// From island to island; each may know better than `cover` what holds where it says nothing.
#[inline]
fn find_in_islands(table: &Shape<Line>, mut way: u32, address: u128, mut cover: u16) -> u16 {
    // Every island lies in the one before and has a longer head, so this ends.
    while let Some(island) = table.islands.get((way & START) as usize) {
        if island.cover != 0 {
            cover = island.cover;
        }
        way = walk(&island.lines, 0, island.entry, address);
        if way < LINE {
            return if way == 0 { cover } else { way as u16 };
        }
    }
    0
}

/// From the line at `start`, by which others are counted, to the number of a next hop or the way
/// to an island.
#[inline]
fn walk(lines: &[Line], start: usize, mut way: u32, address: u128) -> u32 {
    let mut at = start;
    // Every step goes down a tree, so this ends.
    while let Some(line) = lines.get(at) {
        let tail = (way >> TAIL_SHIFT) & 0x7f;
        if address >> tail != line.head >> 16 {
            return u32::from(line.head as u16);
        }
        let window = (address >> (tail.wrapping_sub(16) & 0x7f)) as u16;
        way = line.meanings[rank(&line.ends, signed(window)) % FAN];
        while way & (LINE | PAGE) == LINE | PAGE {
            let tail = (way >> TAIL_SHIFT) & 0x7f;
            let byte = (address >> (tail.wrapping_sub(8) & 0x7f)) as u8;
            let (nth, place) = (usize::from(byte) / FAN, usize::from(byte) % FAN);
            let Some(line) = lines.get(start + (way & START) as usize + nth) else {
                return 0;
            };
            way = line.meanings[place];
        }
        if way & (LINE | ISLAND) != LINE {
            return way;
        }
        at = start + (way & START) as usize;
    }
    0
}

impl Family for V6 {
    type Bits = u128;
    type Line = Line;
    const WIDTH: u8 = 128;
    const SLOT_BITS: u8 = 16;
    const ISLAND: u32 = LINE | ISLAND;
    const LIMITS: Limits = Limits::DEFAULT;

    fn bits(address: IpAddr) -> u128 {
        match address {
            IpAddr::V6(address) => address.to_bits(),
            IpAddr::V4(_) => 0,
        }
    }

    #[inline]
    fn slot(bits: u128) -> usize {
        (bits >> (V6::WIDTH - V6::SLOT_BITS)) as usize
    }

    fn first(slot: usize) -> u128 {
        (slot as u128) << (V6::WIDTH - V6::SLOT_BITS)
    }

    fn end((bits, len): Key<u128>) -> u128 {
        bits | u128::MAX.checked_shr(len.into()).unwrap_or(0)
    }

    fn cut(bits: u128, len: u8) -> u128 {
        bits & !u128::MAX.checked_shr(len.into()).unwrap_or(0)
    }

    fn agree(a: u128, b: u128) -> u8 {
        (a ^ b).leading_zeros() as u8
    }

    fn compile(
        entries: &[Entry<u128>],
        start: usize,
        lines: &mut Vec<Line>,
        covers: &mut Vec<(u32, u16)>,
    ) -> u32 {
        let mut chunk = Chunk {
            first: lines.len(),
            lines,
            covers,
        };
        // A chunk is entered at its start, but its top is known last: keep the place.
        chunk.lines.push(Line {
            head: 0,
            ends: [0; FAN],
            meanings: [0; FAN],
        });
        let (top, way) = chunk.node(entries, 0);
        chunk.lines[chunk.first] = top;
        V6::moved(way, start)
    }

    fn moved(entry: u32, start: usize) -> u32 {
        (entry & !START) | (start as u32 & START)
    }
}

/// Where a line stands: what it must be told beside its ranges.
#[derive(Clone, Copy)]
struct Window {
    /// The bits behind the head.
    tail: u8,
    /// An address with the head.
    first: u128,
    /// The next hop for addresses with another head.
    outer: u16,
}

impl Window {
    fn way(self) -> u32 {
        LINE | (u32::from(self.tail) << TAIL_SHIFT)
    }

    fn line(self, ranges: &[Range]) -> Line {
        let nth = |i: usize| ranges[i.min(ranges.len() - 1)];
        Line {
            head: ((self.first >> self.tail) << 16) | u128::from(self.outer),
            ends: std::array::from_fn(|i| signed(nth(i).end)),
            meanings: std::array::from_fn(|i| nth(i).meaning),
        }
    }
}

/// A chunk that grows at the end of a piece.
struct Chunk<'a> {
    first: usize,
    lines: &'a mut Vec<Line>,
    /// The islands that it leads to, and the next hop around each.
    covers: &'a mut Vec<(u32, u16)>,
}

impl Chunk<'_> {
    /// Appends a line, and gives the way to it.
    fn push(&mut self, line: Line, way: u32) -> u32 {
        let at = self.lines.len() - self.first;
        debug_assert!(at < START as usize, "ROUTES_MAX bounds the lines");
        self.lines.push(line);
        way | (at as u32 & START)
    }

    /// The top line for `entries`, and the way to it less its number. The lines below it are
    /// appended. `outer` is the next hop of the longest route around all of them.
    ///
    /// Each call goes on behind at least 16 more bits, so calls nest seven deep at most.
    fn node(&mut self, entries: &[Entry<u128>], outer: u16) -> (Line, u32) {
        // Plans divide at whole bytes, and so do pages: a window that begins at one fits both.
        let head_bits = (agreed::<V6>(entries) & !7).min(V6::WIDTH - WINDOW);
        let window = Window {
            tail: V6::WIDTH - head_bits,
            first: entries.first().map_or(0, |e| e.bits),
            outer,
        };
        let ranges = self.window(entries, head_bits, outer);
        let top = if ranges.len() > PAGED_OVER {
            let meaning = self.page(window, &ranges);
            let end = u16::MAX;
            window.line(&[Range { end, meaning }])
        } else {
            self.tree(window, ranges)
        };
        (top, window.way())
    }

    /// The top line for `ranges`. Lines below it are appended.
    fn tree(&mut self, window: Window, mut ranges: Vec<Range>) -> Line {
        while ranges.len() > FAN {
            let mut above = Vec::with_capacity(ranges.len().div_ceil(FAN));
            for few in ranges.chunks(FAN) {
                above.push(Range {
                    end: few[few.len() - 1].end,
                    meaning: self.push(window.line(few), window.way()),
                });
            }
            ranges = above;
        }
        window.line(&ranges)
    }

    /// The way to a page for the whole window, by its first byte.
    fn page(&mut self, window: Window, ranges: &[Range]) -> u32 {
        let mut meanings = [0; 256];
        let mut left = ranges;
        for (byte, meaning) in meanings.iter_mut().enumerate() {
            let last = ((byte as u16) << 8) | 0xff;
            let inside = left.partition_point(|range| range.end < last);
            let here = &left[..(inside + 1).min(left.len())];
            *meaning = match here {
                [only] => only.meaning,
                _ if here.len() > PAGED_OVER => self.page_of_values(window, here, last),
                _ => {
                    let mut here = here.to_vec();
                    if let Some(range) = here.last_mut() {
                        range.end = last;
                    }
                    let line = self.tree(window, here);
                    self.push(line, window.way())
                }
            };
            // The range that reaches beyond is needed again, one that ends here is not.
            let done = left.get(inside).is_some_and(|range| range.end == last);
            left = &left[inside + usize::from(done)..];
        }
        self.push_page(&meanings, window.tail)
    }

    /// The way to a page for a 256th of the window, up to `last`, by the window's second byte.
    fn page_of_values(&mut self, window: Window, ranges: &[Range], last: u16) -> u32 {
        let meanings = std::array::from_fn(|byte| {
            let value = (last & 0xff00) | byte as u16;
            let at = ranges.partition_point(|range| range.end < value);
            ranges[at].meaning
        });
        self.push_page(&meanings, window.tail - 8)
    }

    /// Appends a page for the byte in front of which `tail` begins, and gives the way to it.
    fn push_page(&mut self, meanings: &[u32; 256], tail: u8) -> u32 {
        let at = self.lines.len() - self.first;
        debug_assert!(
            at + PAGE_LINES <= START as usize,
            "ROUTES_MAX bounds the lines"
        );
        let line = |nth: usize| Line {
            head: 0,
            ends: [0; FAN],
            meanings: std::array::from_fn(|place| meanings[nth * FAN + place]),
        };
        self.lines.extend((0..PAGE_LINES).map(line));
        LINE | PAGE | (u32::from(tail) << TAIL_SHIFT) | (at as u32 & START)
    }

    /// What each value of the window behind `head_bits` means.
    fn window(&mut self, entries: &[Entry<u128>], head_bits: u8, outer: u16) -> Vec<Range> {
        let reach = head_bits + WINDOW;
        let value = |bits: u128| (bits >> (V6::WIDTH - reach)) as u16;
        // A route as long as the head holds the whole window; only the first can be one.
        let (inner, entries) = match entries.split_first() {
            Some((first, others)) if first.len <= head_bits && !first.is_island() => {
                (first.meaning, others)
            }
            _ => (outer.into(), entries),
        };
        let mut painter = Painter::new(inner);
        let same = |a: &Entry<u128>, b: &Entry<u128>| {
            a.len > reach && b.len > reach && value(a.bits) == value(b.bits)
        };
        for group in entries.chunk_by(same) {
            let (first, len) = (group[0], group[0].len);
            let at = value(first.bits);
            let around = painter.reach(at) as u16;
            let is_alone = len <= reach || group.len() == 1;
            if first.is_island() && is_alone {
                self.covers.push((first.meaning, around));
            }
            let (last, meaning) = if len <= reach {
                (value(V6::end((first.bits, len))), first.meaning)
            } else if first.is_island() && is_alone {
                // Its lines look at every bit of an address, those behind this window too.
                (at, first.meaning)
            } else {
                let (top, way) = self.node(group, around);
                (at, self.push(top, way))
            };
            painter.add(Span {
                first: at,
                last,
                meaning,
            });
        }
        painter.finish()
    }
}
