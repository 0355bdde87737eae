//! What is remembered of frames that were forwarded, so that answers go the way that questions came.
//!
//! In: a frame's view and its verdict. Out: entries of [`Returns`](crate::tables::returns::Returns).
//! Never: an entry for a frame that was refused, or any look at the headers of one that passes
//! between ports which nothing is known of.
//!
//! | from | to | noted |
//! |---|---|---|
//! | host | pod | the host carried the tuple. A SYN: the pod listens there, so it asks nobody from there |
//! | pod | host, by a route | its endpoint has spoken to the kernel, unless it answers the kernel |
//! | pod | pod or uplink | if the endpoint has spoken to the kernel: the switch carried the tuple |
//! | uplink | pod | if the host carried the tuple before: the switch does now |

use std::net::IpAddr;

use crate::addr::PortId;
use crate::clock::Tick;
use crate::frame::FrameView;
use crate::frame::tuple::{Ports, Said, Stage, Tuple};
use crate::tables::fib::NextHop;
use crate::tables::returns::strangers::Strangers;
use crate::tables::returns::{Carrier, Returns};
use crate::tables::{Policy, PortRole, Tables};

/// Notes what a forwarded frame tells of the way back. Of a `stranger`, which is in no entry, only
/// what passes the host does. Who turns out to be one is remembered as that.
#[inline(always)]
pub(super) fn remember(
    view: &FrameView<'_>,
    (ingress, egress, stranger): (PortId, PortId, bool),
    tables: &Tables,
    (returns, strangers): (&Returns, &mut Strangers),
    now: Tick,
) {
    let host = tables.host_id();
    let by_host = Some(ingress) == host || Some(egress) == host;
    if by_host || (!stranger && returns.concerns(ingress, egress)) {
        let ports = (ingress, egress);
        remember_between(view, ports, tables, (returns, strangers), now);
    }
}

#[inline(never)]
pub(super) fn remember_between(
    view: &FrameView<'_>,
    (ingress, egress): (PortId, PortId),
    tables: &Tables,
    (returns, strangers): (&Returns, &mut Strangers),
    now: Tick,
) {
    let (Some(from), Some(to)) = (tables.port(ingress), tables.port(egress)) else {
        return;
    };
    // Where every frame goes through the host, nobody asks for the way back.
    if tables.policy() == Policy::ViaHost {
        return;
    }
    let Some(said) = Said::of(view) else {
        return;
    };
    match (from.role, to.role) {
        (PortRole::Host, PortRole::Pod) => delivered_by_host(returns, &said, egress, now),
        (PortRole::Pod, PortRole::Host) => spoke_to_host(returns, &said, ingress, tables, now),
        (PortRole::Uplink, PortRole::Host) => returns.count_returned(),
        (PortRole::Pod, _) => carried_by_switch(returns, &said, ingress, now),
        (PortRole::Uplink, PortRole::Pod) => no_longer_by_host(returns, &said, egress, now),
        (PortRole::Host | PortRole::Uplink, _) => {}
    }
    if from.role != PortRole::Host && to.role != PortRole::Host {
        strangers.meet(view, &said, returns);
    }
}

/// The tuple, and the one without ports that fragments of its answer will have.
fn both(own: Tuple) -> impl Iterator<Item = Tuple> {
    let bare = (own.ports != Ports::Hidden).then(|| own.without_ports());
    [own].into_iter().chain(bare)
}

fn delivered_by_host(returns: &Returns, said: &Said, pod: PortId, now: Tick) {
    let Some(own) = said.own else { return };
    for tuple in both(own) {
        returns.carried(&tuple, Carrier::Host, kept(&tuple, said.stage), pod, now);
    }
    if said.stage == Stage::Opening {
        returns.listens(&own.reversed());
    }
}

fn spoke_to_host(returns: &Returns, said: &Said, pod: PortId, tables: &Tables, now: Tick) {
    let Some(own) = said.own else { return };
    if !is_routed_to_host(own.target, tables) {
        return returns.count_returned();
    }
    // What the pod ends, the kernel need not end as well.
    let answers_host = returns.carrier(&said.answers) == Some(Carrier::Host);
    if answers_host && said.stage == Stage::Closing {
        returns.carried(&said.answers, Carrier::Host, said.stage, pod, now);
    }
    if answers_host && !returns.has_spoken(&own) {
        return;
    }
    for tuple in both(own) {
        returns.has_now_spoken(&tuple, kept(&tuple, said.stage), pod, now);
    }
}

fn carried_by_switch(returns: &Returns, said: &Said, pod: PortId, now: Tick) {
    let Some(own) = said.own else { return };
    if own.ports != Ports::Hidden && (returns.has_spoken(&own) || is_hosts(returns, &own)) {
        returns.carried(&own, Carrier::Switch, said.stage, pod, now);
    }
}

fn no_longer_by_host(returns: &Returns, said: &Said, pod: PortId, now: Tick) {
    if let Some(own) = said.own.filter(|own| own.ports != Ports::Hidden)
        && is_hosts(returns, &own)
    {
        returns.carried(&own, Carrier::Switch, said.stage, pod, now);
    }
}

fn is_hosts(returns: &Returns, tuple: &Tuple) -> bool {
    returns.carrier(tuple) == Some(Carrier::Host)
}

/// How long a tuple without ports is kept: it stands for many conversations, of which one ends and
/// another goes on, and only datagrams come in fragments as a rule.
fn kept(tuple: &Tuple, stage: Stage) -> Stage {
    match tuple.ports {
        Ports::Known(..) => stage,
        Ports::Hidden => Stage::Datagram,
    }
}

/// True if the routes give a target to the host, rather than what was noted here.
fn is_routed_to_host(target: IpAddr, tables: &Tables) -> bool {
    let hop = match target {
        IpAddr::V4(v4) => tables.next_hop_v4(v4),
        IpAddr::V6(v6) => tables.next_hop_v6(v6),
    };
    match hop {
        Some(NextHop::Group(id)) => {
            let members = tables.group(*id).map(|group| group.members());
            members.is_some_and(|mut members| members.any(|hop| hop == NextHop::Host))
        }
        hop => hop == Some(&NextHop::Host),
    }
}
