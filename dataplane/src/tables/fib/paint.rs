//! Nested routes to a row of ranges: what each value of a 16-bit window means.
//!
//! In: spans of the window, each inside another or beside it, outer ones first.
//! Out: ranges that fill the window without a gap, neighbours with one meaning joined.
//! Never: knows what a meaning means.

use wide::i16x8;

/// The values `first..=last` of a window have this meaning, unless a later span says otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) meaning: u32,
}

/// A range that ends at `end` and begins behind the range before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) end: u16,
    pub(super) meaning: u32,
}

/// A window being painted from its low end.
#[derive(Debug)]
pub(super) struct Painter {
    ranges: Vec<Range>,
    /// The spans that are open at `next`, outer ones first.
    open: Vec<Span>,
    /// The first value without a meaning yet; one past the window at last.
    next: u32,
    background: u32,
}

impl Painter {
    /// A window that means `background` throughout.
    pub(super) fn new(background: u32) -> Painter {
        Painter {
            ranges: Vec::new(),
            open: Vec::new(),
            next: 0,
            background,
        }
    }

    /// Paints up to `first`, and says what the window means there so far.
    pub(super) fn reach(&mut self, first: u16) -> u32 {
        while let Some(span) = self.open.pop_if(|span| span.last < first) {
            self.fill(span.last, span.meaning);
        }
        let meaning = self.open.last().map_or(self.background, |s| s.meaning);
        if let Some(before) = first.checked_sub(1) {
            self.fill(before, meaning);
        }
        meaning
    }

    /// Opens `span`. Spans come sorted by `first`, and the outer one first where they nest.
    pub(super) fn add(&mut self, span: Span) {
        self.reach(span.first);
        self.open.push(span);
    }

    /// The whole window.
    pub(super) fn finish(mut self) -> Vec<Range> {
        while let Some(span) = self.open.pop() {
            self.fill(span.last, span.meaning);
        }
        self.fill(u16::MAX, self.background);
        self.ranges
    }

    fn fill(&mut self, end: u16, meaning: u32) {
        if u32::from(end) < self.next {
            return;
        }
        self.next = u32::from(end) + 1;
        match self.ranges.last_mut() {
            Some(range) if range.meaning == meaning => range.end = end,
            _ => self.ranges.push(Range { end, meaning }),
        }
    }
}

/// A range end as the lines keep it. SSE2 compares signed numbers only, so we turn the top bit.
#[inline]
pub(super) const fn signed(value: u16) -> i16 {
    (value ^ 0x8000) as i16
}

/// In which of `N` ranges `value` lies: how many ends are below it. The ends are sorted, so those
/// below are the first ones, and the last is not below anything the caller asks for. `N` is a
/// multiple of eight: SSE2 compares as many at once.
#[inline]
pub(super) fn rank<const N: usize>(ends: &[i16; N], value: i16) -> usize {
    let value = i16x8::splat(value);
    let (eights, _) = ends.as_chunks();
    let below = eights.iter().rev().fold(0, |below, eight| {
        below << 8 | i16x8::new(*eight).simd_lt(value).to_bitmask()
    });
    below.trailing_ones() as usize
}
