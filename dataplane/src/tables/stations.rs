//! The configured stations: whose port is known without being learned.
//!
//! In: stations and ports, while tables are built. Out: the port of a station, or nothing.
//! Never: changes once its tables are published.
//!
//! Every frame asks twice, for its target and its source, and where stations are learned the
//! answer is nearly always no. So a small filter answers first: one bit for each of 4,096 values
//! of a hash. With 250 pods it is wrong for one stranger in 17, who costs a look into the map.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use crate::addr::{Mac, PortId};

/// Words of the filter: 512 bytes, which stay in the nearest cache.
const WORDS: usize = 64;

/// The stations, and the filter before them.
#[derive(Clone, Debug)]
pub(super) struct Stations {
    ports: HashMap<Mac, PortId, FxBuildHasher>,
    filter: [u64; WORDS],
}

impl Default for Stations {
    fn default() -> Stations {
        Stations {
            ports: HashMap::default(),
            filter: [0; WORDS],
        }
    }
}

impl Stations {
    /// Puts `mac` at `port`, and returns the port where it was.
    pub(super) fn insert(&mut self, mac: Mac, port: PortId) -> Option<PortId> {
        let (word, bit) = place(mac);
        self.filter[word] |= bit;
        self.ports.insert(mac, port)
    }

    /// Says that `mac` is somebody's, though of no port.
    pub(super) fn mark(&mut self, mac: Mac) {
        let (word, bit) = place(mac);
        self.filter[word] |= bit;
    }

    /// True if `mac` was neither put in nor marked. It may be false of others, too.
    #[inline(always)]
    pub(super) fn is_strange(&self, mac: Mac) -> bool {
        let (word, bit) = place(mac);
        self.filter[word] & bit == 0
    }

    /// The port of `mac`.
    #[inline(always)]
    pub(super) fn find(&self, mac: Mac) -> Option<PortId> {
        if self.is_strange(mac) {
            return None;
        }
        self.look_up(mac)
    }

    #[inline(never)]
    fn look_up(&self, mac: Mac) -> Option<PortId> {
        self.ports.get(&mac).copied()
    }
}

/// The word and the bit of a station: the top 12 bits of its hash.
#[inline(always)]
fn place(mac: Mac) -> (usize, u64) {
    let hash = mac.bits().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52;
    ((hash >> 6) as usize % WORDS, 1 << (hash & 63))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_filter_hides_nobody_and_invents_nobody(
            rows in prop::collection::btree_map(0_u64..1 << 48, 0_usize..256, 0..300),
            strangers in prop::collection::vec(0_u64..1 << 48, 0..300),
            marked in prop::collection::vec(0_u64..1 << 48, 0..3),
        ) {
            let port = |at: usize| PortId::new(at).expect("in range");
            let mut stations = Stations::default();
            for (bits, at) in &rows {
                prop_assert_eq!(stations.insert(Mac::from_bits(*bits), port(*at)), None);
            }
            for bits in &marked {
                stations.mark(Mac::from_bits(*bits));
            }
            for bits in rows.keys().chain(&marked) {
                prop_assert!(!stations.is_strange(Mac::from_bits(*bits)));
            }
            for bits in rows.keys().chain(&strangers).chain(&marked) {
                let expected = rows.get(bits).map(|at| port(*at));
                prop_assert_eq!(stations.find(Mac::from_bits(*bits)), expected);
            }
        }
    }
}
