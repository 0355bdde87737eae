//! The lines between the nodes: the lab's rules of Azure's fabric, and faults.
//!
//! In: frames that nodes send. Out: frames that are due at nodes, and which of them are not as they
//! were sent. Never: a rule of its own.

use std::collections::{BTreeMap, BTreeSet};

use control::lab::fabric::rules::{Verdict, decide, rewrite};
use control::lab::fabric::{FabricDrop, NicId, Vnet};
use fastrand::Rng;

use super::laws::{Held, Law, must};
use super::site::Site;
use super::traffic;

/// Milliseconds on the way.
const DELAY: u64 = 1;
/// Most milliseconds by which a frame that is overtaken comes later.
const LATE_MAX: u64 = 40;

/// Faults of the lines, each in a thousand frames.
const LOST: u16 = 30;
const DOUBLED: u16 = 15;
const OVERTAKEN: u16 = 15;

/// What the fabric may refuse of a sound switch: packets for addresses that nobody has, or that lead
/// out of the VNet. Everything else would be the switch's fault.
const NOT_OUR_FAULT: [FabricDrop; 4] = [
    FabricDrop::AddressUnowned,
    FabricDrop::Internet,
    FabricDrop::ArpOwnAddress,
    FabricDrop::NeighbourOwnAddress,
];

/// The lines.
pub(super) struct Lines {
    vnet: Vnet,
    nics: Vec<NicId>,
    /// By the millisecond in which they are due, and then as they were sent.
    under_way: BTreeMap<(u64, u64), (usize, Vec<u8>)>,
    sent: u64,
    /// Flows of which a frame was doubled or overtaken.
    pub(super) disturbed: BTreeSet<u32>,
    pub(super) carried: u64,
    pub(super) faults: u64,
}

impl Lines {
    pub(super) fn new(site: &Site) -> Lines {
        let mut vnet = Vnet::new(site.vnet.clone()).expect("the plan fits its VNet");
        let attach = |place: &super::site::Place| {
            vnet.attach(place.nic.clone())
                .expect("the plan's NICs fit its VNet")
        };
        let nics = site.places.iter().map(attach).collect();
        Lines {
            vnet,
            nics,
            under_way: BTreeMap::new(),
            sent: 0,
            disturbed: BTreeSet::new(),
            carried: 0,
            faults: 0,
        }
    }

    /// A node sends.
    pub(super) fn send(
        &mut self,
        from: usize,
        mut bytes: Vec<u8>,
        now: u64,
        faults: Option<&mut Rng>,
    ) -> Held {
        let (to, bytes) = match decide(&self.vnet, self.nics[from], &bytes) {
            Verdict::Deliver { to, target } => {
                rewrite(&mut bytes, target);
                let to = self.nics.iter().position(|nic| *nic == to);
                (to.expect("the fabric has no other NICs"), bytes)
            }
            Verdict::Answer(answer) => (from, answer),
            Verdict::Drop(reason) => {
                return must(Law::Wire, NOT_OUR_FAULT.contains(&reason), || {
                    let head = &bytes[..bytes.len().min(80)];
                    format!("the fabric refused a frame of node {from}: {reason:?} {head:02x?}")
                });
            }
        };
        self.carried += 1;
        let fate = faults.map_or(1000, |rng| rng.u16(..1000));
        let mut due = now + DELAY;
        if fate < LOST + DOUBLED + OVERTAKEN {
            self.faults += 1;
        }
        if fate < LOST {
            return Ok(());
        }
        if fate < LOST + DOUBLED + OVERTAKEN {
            self.disturbed
                .extend(traffic::read(&bytes).map(|tag| tag.flow));
        }
        if (LOST..LOST + DOUBLED).contains(&fate) {
            self.put(due, to, bytes.clone());
        } else if fate < LOST + DOUBLED + OVERTAKEN {
            due += 1 + u64::from(fate) % LATE_MAX;
        }
        self.put(due, to, bytes);
        Ok(())
    }

    fn put(&mut self, due: u64, to: usize, bytes: Vec<u8>) {
        self.sent += 1;
        self.under_way.insert((due, self.sent), (to, bytes));
    }

    /// The next frame that is due, and where.
    pub(super) fn arrive(&mut self, now: u64) -> Option<(usize, Vec<u8>)> {
        let first = self.under_way.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}
