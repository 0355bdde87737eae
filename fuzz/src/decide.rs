//! Any frame, decided on by any tables.
//!
//! In: a block of bytes that is a table specification (see [`crate::spec`]), then [`Steps`].
//! Out: nothing, or a panic that names the promise which does not hold.
//! Never: sends anything: `decide` is pure, and is asked at every port for every frame. Nor decides
//! otherwise because it has seen a specification before.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use dataplane::addr::PortId;
use dataplane::clock::Tick;
use dataplane::forward::{self, Step, Witness, World};
use dataplane::frame::FrameView;
use dataplane::frame::offload::Offload;
use dataplane::frame::tuple::Said;
use dataplane::tables::fdb::Fdb;
use dataplane::tables::neighbour::Neighbours;
use dataplane::tables::returns::{Carrier, Returns};
use dataplane::tables::{PortRole, Tables};
use dataplane::verdict::{DropReason, Punt, Verdict};

use crate::input::{Input, PORT_CHOICES};
use crate::{B, STRANGER, Steps, check_edits, heard, port, spec, station};

/// Steps of one decision: a frame is looked up a handful of times, and never in a circle.
const STEPS_MAX: usize = 64;

/// Counts what it is told.
struct Listener(usize);

impl Witness for Listener {
    fn note(&mut self, _: Step) {
        self.0 += 1;
    }
}

/// Decides on each frame at each port of tables of the input's own.
///
/// # Panics
/// If the switch does, a specification is refused without a reason, a verdict names a port that is
/// not there or a way back that the port's row forbids, an edit spoils a frame, or a witness changes
/// the decision.
pub fn run_decide(input: &[u8]) {
    let mut input = Input(input);
    let Some(tables) = tables(input.block()) else {
        return;
    };
    let fdb = Fdb::new(64, 1);
    // The worker forgets who was behind a port when its row goes.
    if tables.port(port(B)).is_some() {
        fdb.learn(station(STRANGER), port(B), Tick(0));
    }
    let (unheard, heard) = (Neighbours::default(), heard());
    let returns = Returns::new(16, 1);
    for step in Steps(input.0) {
        let Ok(view) = FrameView::parse(&step.bytes) else {
            continue;
        };
        // The worker asks only about a state that fits the frame.
        if !step.offload.fits(step.bytes.len(), view.kind) {
            continue;
        }
        for ingress in (0..PORT_CHOICES).map(port) {
            for neighbours in [&unheard, &heard] {
                let world = World {
                    tables: &tables,
                    fdb: &fdb,
                    neighbours,
                    returns: Some(&returns),
                };
                let verdict = decide_twice(&view, step.offload, ingress, world);
                check(verdict, &step.bytes, &view, ingress, &tables);
            }
        }
        // Later frames may answer this one.
        if let Some(Said {
            own: Some(own),
            stage,
            ..
        }) = Said::of(&view)
        {
            returns.carried(&own, Carrier::Host, stage, port(B), Tick(0));
            returns.has_now_spoken(&own, stage, port(B), Tick(0));
        }
    }
}

thread_local! {
    /// Tables of late, and the bytes that they were made of: inputs come in families that differ in
    /// their frames only, and to decide on a frame takes a hundredth of what tables take.
    static OF_LATE: RefCell<VecDeque<(Vec<u8>, Option<Rc<Tables>>)>> =
        const { RefCell::new(VecDeque::new()) };
}

/// Of how many there is room: a megabyte each.
const OF_LATE_MAX: usize = 64;

/// The tables of a specification, if they have no faults.
fn tables(bytes: &[u8]) -> Option<Rc<Tables>> {
    OF_LATE.with_borrow_mut(|of_late| {
        if let Some(at) = of_late.iter().position(|(of, _)| of == bytes) {
            let found = of_late.remove(at)?;
            of_late.push_front(found);
        } else {
            of_late.truncate(OF_LATE_MAX - 1);
            of_late.push_front((bytes.to_vec(), build(bytes).map(Rc::new)));
        }
        of_late[0].1.clone()
    })
}

fn build(bytes: &[u8]) -> Option<Tables> {
    match Tables::build(&spec::spec(&mut Input(bytes))) {
        Ok(tables) => Some(tables),
        Err(faults) => {
            assert!(!faults.is_empty(), "refused for no reason");
            for fault in faults {
                assert!(!fault.to_string().is_empty());
            }
            None
        }
    }
}

/// How much of an input is the specification. A mutation there costs tables, so a fuzzer had better
/// leave it alone most of the time.
#[must_use]
pub fn decide_spec_len(input: &[u8]) -> usize {
    let mut rest = Input(input);
    rest.block();
    input.len() - rest.0.len()
}

/// With a witness and without.
fn decide_twice(
    view: &FrameView<'_>,
    offload: Offload,
    ingress: PortId,
    world: World<'_>,
) -> Verdict {
    let mut listener = Listener(0);
    let told = forward::decide_before(view, offload, ingress, world, &mut listener);
    let verdict = forward::decide(view, offload, ingress, world);
    assert_eq!(verdict, told, "a listener changed it");
    assert!(listener.0 <= STEPS_MAX, "{} steps", listener.0);
    verdict
}

fn check(verdict: Verdict, bytes: &[u8], view: &FrameView<'_>, ingress: PortId, tables: &Tables) {
    let Some(row) = tables.port(ingress) else {
        assert_eq!(verdict, Verdict::Drop(DropReason::NotAttached));
        return;
    };
    match verdict {
        Verdict::Forward { egress, rewrite } | Verdict::Fragment { egress, rewrite } => {
            assert!(tables.port(egress).is_some(), "{verdict:?} names no port");
            assert!(
                egress != ingress || row.hairpin,
                "{verdict:?} goes back where its row forbids it"
            );
            check_edits(bytes, view, &view.network(), rewrite);
        }
        Verdict::Flood => {
            assert!(row.role != PortRole::Uplink, "a flood from the uplink");
        }
        Verdict::Punt(Punt::Resolve { egress, .. }) => {
            let role = tables.port(egress).map(|row| row.role);
            assert_eq!(role, Some(PortRole::Uplink), "{verdict:?} asks elsewhere");
        }
        Verdict::Punt(Punt::Defend { address, holder }) => {
            assert_eq!(tables.owner(address), Some(holder));
            assert!(holder.port != ingress, "{verdict:?}: its own address");
        }
        Verdict::Punt(_) | Verdict::Drop(_) => {}
    }
}
