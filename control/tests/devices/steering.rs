//! Filters that are kept, and agents that are found.
//!
//! In: a node with an `eth0`. Out: what stands on it while somebody takes our filters away.
//! Never: the frames themselves; `attach.rs` has them.

use std::process::Command;
use std::time::{Duration, Instant};

use control::devices::attach::{ArpSteering, Uplink};
use control::devices::netlink::Netlink;
use control::devices::netlink::filter::{Deed, Match, Rule};
use control::devices::tap::TapSpec;
use control::steer::agents::{self, AgentChain};
use control::steer::{Cover, Keeper};

use crate::alone::not_tried;
use crate::nft::{self, Chain};
use crate::support::{Wire, fresh, name, running};

/// A node whose `eth0` has an address, and the wire behind it.
fn node() -> (Netlink, Wire) {
    let node = fresh("node-0");
    let wire = Wire::open(&node, "eth0");
    node.set_up(&name("eth0"), true).expect("up");
    running(&node, "eth0");
    (node, wire)
}

fn uplink() -> Uplink {
    let pods = (5..=34).map(|last| std::net::Ipv4Addr::new(10, 20, 0, last).into());
    let cover = Cover::of(pods, [[10, 20, 0, 4].into()]);
    Uplink {
        device: name("eth0"),
        tap: TapSpec::new(name("uplink0"), 1500),
        pods: cover.prefixes.clone(),
        pods_v6: Vec::new(),
        arp: ArpSteering::ByTarget(cover.prefixes),
    }
}

/// What stands on `eth0`, for whoever has to find out why it is not what it should be.
fn stands(node: &Netlink) -> String {
    let eth0 = name("eth0");
    format!(
        "{:?} programs, table {:?}, clsact {:?}, filters {:?}",
        node.programs(&eth0),
        node.table(&eth0),
        node.has_clsact(&eth0),
        held(node)
    )
}

/// Filters of ours and of others on `eth0`.
fn held(node: &Netlink) -> (usize, usize) {
    let filters = node.filters(&name("eth0")).expect("listed");
    let ours = filters.iter().filter(|filter| filter.ours).count();
    (ours, filters.len() - ours)
}

/// Milliseconds until `eth0` holds `wanted`; a second at most.
fn within_a_second(node: &Netlink, wanted: (usize, usize)) -> u128 {
    let start = Instant::now();
    while held(node) != wanted {
        let waited = start.elapsed();
        assert!(
            waited < Duration::from_secs(1),
            "{:?} after {waited:?}",
            held(node)
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed().as_millis()
}

/// `eth0` steers by one program, by a table where programs are not to be had, or by that many filters
/// where tables are not either.
fn steers(node: &Netlink, filters: usize) -> bool {
    let programs = node.programs(&name("eth0")).expect("listed").len();
    let tables = node.table(&name("eth0")).expect("listed").into_iter();
    let beside = programs + tables.filter(|table| table.at_work).count();
    matches!((beside, held(node)), (1, (0, 0))) || (beside == 0 && held(node) == (filters, 0))
}

fn steers_within_a_second(node: &Netlink, filters: usize) -> u128 {
    let start = Instant::now();
    while !steers(node, filters) {
        assert!(start.elapsed() < Duration::from_secs(1), "{}", stands(node));
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed().as_millis()
}

pub(crate) fn filters_that_are_taken_are_back_within_a_second_and_gone_at_the_end() {
    let (node, _wire) = node();
    let eth0 = name("eth0");
    node.ensure_clsact(&eth0).expect("made");
    // Another owner's, which nobody may miss.
    node.drop_all(&eth0).expect("added");
    let keeper = Keeper::start(node.namespace(), uplink()).expect("attached");
    assert_eq!(held(&node), (12, 1), "six prefixes, for IPv4 and for ARP");
    for _ in 0..5 {
        // All of ours, at once.
        node.set_rules(&eth0, &[]).expect("removed");
        println!("back after {} ms", within_a_second(&node, (12, 1)));
    }
    // One of ours, as an operator's slip.
    let some = Rule {
        frames: Match::Ipv4To("10.20.0.8/29".parse().expect("legal")),
        deed: Deed::Redirect(node.index(&name("uplink0")).expect("there")),
    };
    node.set_rules(&eth0, &[some]).expect("removed");
    within_a_second(&node, (12, 1));
    let kept = keeper.kept();
    assert!(kept.put_back >= 12, "{kept:?}");
    assert_eq!((kept.failures, kept.failure), (0, None));
    // The whole clsact, of which the kernel says nothing of the filters.
    node.remove_clsact(&eth0).expect("removed");
    println!("back after {} ms", steers_within_a_second(&node, 12));
    // And what has taken their place.
    node.remove_programs(&eth0).expect("removed");
    node.remove_table(&eth0).expect("removed");
    println!("back after {} ms", steers_within_a_second(&node, 12));
    // The TAP's own way out.
    node.set_rules(&name("uplink0"), &[]).expect("removed");
    let start = Instant::now();
    while node.filters(&name("uplink0")).expect("listed").is_empty() {
        assert!(start.elapsed() < Duration::from_secs(1));
    }
    // Fewer pods, from now on.
    let fewer = Uplink {
        pods: vec!["10.20.0.8/29".parse().expect("legal")],
        arp: ArpSteering::MirrorReplies,
        ..uplink()
    };
    keeper.change(fewer).expect("changed");
    assert!(steers(&node, 2), "{}", stands(&node));
    // Where somebody adds a clsact, filters there take over, among those of others.
    node.ensure_clsact(&eth0).expect("made");
    within_a_second(&node, (2, 0));
    // The program or the table goes when the filters stand.
    let start = Instant::now();
    let beside = || {
        let programs = node.programs(&eth0).expect("listed");
        programs.len() + usize::from(node.table(&eth0).expect("listed").is_some())
    };
    while beside() > 0 {
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{}",
            stands(&node)
        );
    }
    keeper.stop().expect("stopped");
    assert_eq!(held(&node), (0, 0));
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(held(&node), (0, 0), "nobody keeps them any more");
}

pub(crate) fn a_keeper_waits_for_a_device_that_is_gone_and_says_so() {
    let (node, wire) = node();
    let keeper = Keeper::start(node.namespace(), uplink()).expect("attached");
    drop(wire);
    let told = |failed: bool| {
        let start = Instant::now();
        while keeper.kept().failure.is_some() != failed {
            let within = start.elapsed() < Duration::from_secs(2);
            assert!(within, "{:?}", keeper.kept());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    told(true);
    assert_eq!(
        keeper.kept().failure.as_deref(),
        Some("there is no device eth0 in node-0")
    );
    let _wire = Wire::open(&node, "eth0");
    steers_within_a_second(&node, 12);
    // Newer kernels hook a table to a device that has come back, before the keeper has seen it.
    told(false);
    // Dropped, it leaves the filters, as for a restart.
    drop(keeper);
    assert!(steers(&node, 12), "{}", stands(&node));
}

pub(crate) fn chains_of_policy_agents_are_found() {
    let node = fresh("node-0");
    assert_eq!(agents::look(node.namespace()).found, []);
    let chain = |name| Chain {
        name,
        hook: None,
        rules: Vec::new(),
    };
    nft::load(
        node.namespace(),
        "filter",
        &[
            chain("KUBE-FORWARD"),
            chain("AZURE-NPM"),
            chain("cali-FORWARD"),
        ],
    );
    let found = agents::look(node.namespace()).found;
    let wanted = |agent, chain: &str| AgentChain {
        agent,
        table: "filter".into(),
        chain: chain.into(),
    };
    assert_eq!(
        found,
        [
            wanted("azure-npm", "AZURE-NPM"),
            wanted("calico", "cali-FORWARD")
        ]
    );
    nft::unload(node.namespace(), "filter");
    assert_eq!(agents::look(node.namespace()).found, []);
}

/// Chains that `iptables-legacy` made. Without it there is nobody to make them.
pub(crate) fn chains_of_policy_agents_are_found_in_the_older_tables_too() {
    let node = fresh("node-0");
    for (program, chain, agent) in [
        ("iptables-legacy", "AZURE-NPM", "azure-npm"),
        ("ip6tables-legacy", "cali-FORWARD", "calico"),
    ] {
        let run = |arguments: &str| {
            let mut command = Command::new(program);
            command.args(arguments.split(' '));
            node.namespace().run(|| command.output())
        };
        if run("-N harmless").is_err() {
            not_tried(&format!("there is no {program} here"));
        }
        let before = agents::look(node.namespace());
        let made = run(&format!("-N {chain}")).expect("it ran before");
        assert!(made.status.success(), "{made:?}");
        let mut found = agents::look(node.namespace());
        assert_eq!(found.unsure, Vec::<String>::new());
        let new = found.found.pop().expect("one more");
        assert_eq!(
            (new.agent, new.table.as_str(), new.chain.as_str()),
            (agent, "filter", chain)
        );
        assert_eq!(found, before);
    }
}
