//! Next hops and their numbers.
//!
//! In: a next hop that a route wants, or a number that a route no longer wants.
//! Out: the number, and the rows that turn numbers into next hops.
//! Never: gives one number to two next hops, or 0 to any.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use super::{HOPS_MAX, NextHop};
use crate::sync::Arc;

/// The next hops in use, counted by route.
#[derive(Clone, Debug)]
pub(super) struct Hops {
    numbers: HashMap<NextHop, u16, FxBuildHasher>,
    /// By number; the first stands for "none".
    rows: Vec<Option<NextHop>>,
    uses: Vec<u32>,
    free: Vec<u16>,
    /// The rows as given to compiled tables, until a row changes.
    shared: Option<Arc<[Option<NextHop>]>>,
}

impl Default for Hops {
    fn default() -> Self {
        Hops {
            numbers: HashMap::default(),
            rows: vec![None],
            uses: vec![0],
            free: Vec::new(),
            shared: None,
        }
    }
}

impl Hops {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The number of `hop`, for one more route; nothing if all numbers are taken.
    pub(super) fn take(&mut self, hop: NextHop) -> Option<u16> {
        if let Some(&number) = self.numbers.get(&hop) {
            self.uses[usize::from(number)] += 1;
            return Some(number);
        }
        let number = match self.free.pop() {
            Some(number) => number,
            None if self.rows.len() > HOPS_MAX => return None,
            None => {
                self.rows.push(None);
                self.uses.push(0);
                (self.rows.len() - 1) as u16
            }
        };
        self.shared = None;
        self.rows[usize::from(number)] = Some(hop);
        self.uses[usize::from(number)] = 1;
        self.numbers.insert(hop, number);
        Some(number)
    }

    /// One route less wants `number`.
    pub(super) fn release(&mut self, number: u16) {
        let at = usize::from(number);
        self.uses[at] -= 1;
        if self.uses[at] == 0
            && let Some(hop) = self.rows[at].take()
        {
            self.shared = None;
            self.numbers.remove(&hop);
            self.free.push(number);
        }
    }

    /// True if some route goes to `hop`.
    pub(super) fn has(&self, hop: NextHop) -> bool {
        self.numbers.contains_key(&hop)
    }

    /// All that are in use, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = NextHop> {
        self.rows.iter().filter_map(|row| *row)
    }

    /// The next hop of a number in use.
    pub(super) fn get(&self, number: u16) -> Option<NextHop> {
        self.rows[usize::from(number)]
    }

    /// The rows, for a compiled table.
    pub(super) fn share(&mut self) -> Arc<[Option<NextHop>]> {
        let rows = &self.rows;
        self.shared
            .get_or_insert_with(|| rows.as_slice().into())
            .clone()
    }
}
