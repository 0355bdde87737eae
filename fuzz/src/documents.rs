//! The documents that a cluster is planned from: API model, VNet template, route tables.
//!
//! In: the text of one document; the others are the built-in ones.
//! Out: nothing, or a panic that names the promise which does not hold.
//! Never: reads a file. Nor asks what the plan says, only that it says the same twice, that its
//! tables hold, and that every fault has a place and a sentence.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use control::compile::{NodeMacs, compile};
use control::model::{Faults, Source};
use control::plan::{Cluster, LoadOptions, Plan, load};
use dataplane::addr::{Mac, Station};
use dataplane::tables::{Tables, TablesSpec};

fn given(text: &[u8]) -> Source {
    Source::Given {
        name: "input",
        bytes: Arc::from(text),
    }
}

/// Plans the built-in VNet's cluster by an API model of any content.
///
/// # Panics
/// If planning does, a fault says nothing, or a plan makes tables with faults.
pub fn run_model(text: &[u8]) {
    let alone = LoadOptions::new(given(text));
    check(&alone);
    let beside_vnet = LoadOptions {
        model: given(text),
        ..LoadOptions::built_in()
    };
    check(&beside_vnet);
}

/// Plans the built-in model's cluster in a VNet of any content.
///
/// # Panics
/// As [`run_model`].
pub fn run_template(text: &[u8]) {
    for built_in in [LoadOptions::built_in(), LoadOptions::built_in_dual_stack()] {
        check(&LoadOptions {
            vnet: Some(given(text)),
            ..built_in
        });
    }
}

/// Plans the built-in cluster with a route table of any content, and with routes observed.
///
/// # Panics
/// As [`run_model`].
pub fn run_routes(text: &[u8]) {
    // The same for every input, and reading it takes longer than all the rest.
    static BUILT_IN: LazyLock<Cluster> = LazyLock::new(|| Cluster::read(&LoadOptions::built_in()));
    let given = given(text);
    check_plan(BUILT_IN.plan(std::slice::from_ref(&given), None));
    check_plan(BUILT_IN.plan(&[], Some(&given)));
}

fn check(options: &LoadOptions) {
    check_plan(load(options));
}

fn check_plan(plan: Result<Plan, Faults>) {
    match plan {
        Ok(plan) => check_tables(&plan),
        Err(faults) => {
            let text = faults.to_string();
            assert!(!text.is_empty(), "refused for no reason");
        }
    }
}

/// Whatever was planned, a switch takes.
fn check_tables(plan: &Plan) {
    for node in plan.nodes.iter().take(NODES_MAX) {
        let macs = NodeMacs {
            nic: station(1),
            host: station(2),
        };
        let spec = compile(plan, node, macs, &[]);
        if TAKEN.with_borrow(|taken| taken.contains(&spec)) {
            continue;
        }
        if let Err(faults) = Tables::build(&spec) {
            panic!("the tables of {}: {faults:?}", node.name);
        }
        TAKEN.with_borrow_mut(|taken| {
            taken.truncate(TAKEN_MAX - 1);
            taken.push_front(spec);
        });
    }
}

thread_local! {
    /// Specifications of late that were taken: most plans differ in nothing that a switch sees, and
    /// to build tables takes longer than to plan them.
    static TAKEN: RefCell<VecDeque<TablesSpec>> = const { RefCell::new(VecDeque::new()) };
}

/// Of how many there is room.
const TAKEN_MAX: usize = 32;

/// Nodes whose tables are built: a thousand are no different from a few.
const NODES_MAX: usize = 4;

fn station(last: u8) -> Station {
    Station::new(Mac::new([2, 0, 0, 0, 1, last])).expect("a station")
}
