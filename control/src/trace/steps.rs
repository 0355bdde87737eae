//! A step of a decision, in words and in facts.
//!
//! In: what `decide` told its witness, and the switch it speaks of.
//! Out: one [`StepRow`]. Never: decides, or leaves a step out.

use std::net::IpAddr;

use dataplane::addr::{Mac, PortId};
use dataplane::forward::{Known, Step};
use dataplane::frame::tuple::{Ports, Tuple};
use dataplane::tables::fib::NextHop;
use dataplane::tables::guard::Mode;
use dataplane::tables::returns::Known as Carried;
use dataplane::tables::{Crossing, Owner, Unknown};
use dataplane::verdict::DropReason;
use serde_json::{Map, Value, json};

use super::board::Board;
use super::report::StepRow;
use super::sources;
use crate::compile::FABRIC_MAC;

/// A row with facts; `facts` is an object.
pub(super) fn row(step: &'static str, text: String, facts: Value) -> StepRow {
    let facts = match facts {
        Value::Object(facts) => facts,
        _ => Map::new(),
    };
    StepRow { step, text, facts }
}

/// What the witness of a switch was told. `segments`: the frame stands for several.
#[must_use]
pub fn tell(board: &dyn Board, step: Step, segments: bool) -> StepRow {
    let port = |port: PortId| board.port_name(port);
    match step {
        Step::Guard { reason, mode } => guard(reason, mode),
        Step::ForRouter { mac } => {
            let who = router(board, mac);
            let text = format!("{mac} is {who}, so the IP address decides");
            row("for_router", text, json!({"mac": mac.to_string()}))
        }
        Step::FromUplink => {
            let text = "all frames from the uplink have the NIC's MAC, so the IP address decides";
            row("from_uplink", text.to_owned(), json!({}))
        }
        Step::ForGroup { mac } => {
            let text = format!("{mac} is a group's: for everybody");
            row("for_group", text, json!({"mac": mac.to_string()}))
        }
        Step::Station {
            mac,
            port: egress,
            known,
        } => {
            let (how, label) = match known {
                Known::Configured => ("a configured station", "configured"),
                Known::Learned => ("in the FDB", "learned"),
            };
            let text = format!("{mac} is {how}, on port {}", port(egress));
            let facts = json!({"mac": mac.to_string(), "port": port(egress), "known": label});
            row("station", text, facts)
        }
        Step::NoStation { mac, unknown } => {
            let (what, label) = match unknown {
                Unknown::Flood => ("such frames are flooded", "flood"),
                Unknown::Drop => ("such frames are dropped", "drop"),
            };
            let text = format!("{mac} is neither configured nor in the FDB: {what}");
            row(
                "no_station",
                text,
                json!({"mac": mac.to_string(), "unknown": label}),
            )
        }
        Step::Hairpin { port, allowed } => hairpin_row(board, port, allowed),
        Step::Isolated { egress } => {
            let text = format!(
                "port {} is isolated, and so is the way in: such ports do not reach each other",
                port(egress)
            );
            row("isolated", text, json!({"egress": port(egress)}))
        }
        Step::Owner { address, owner } => owner_row(board, address, owner),
        Step::Policy { egress } => {
            let text = format!(
                "policy via-host: the node's rules come before port {}",
                port(egress)
            );
            row("policy", text, json!({"egress": port(egress)}))
        }
        Step::Return { answers, known } => return_row(answers, known),
        step => routed(board, step, segments),
    }
}

fn guard(reason: DropReason, mode: Mode) -> StepRow {
    let (what, label) = match mode {
        Mode::Enforce => ("refuses it", "enforce"),
        Mode::Observe => ("would refuse it, and only observes", "observe"),
        Mode::Off => ("does not look", "off"),
    };
    let text = format!("a guard of the port {what}: {}", reason.meaning());
    let facts = json!({"reason": reason.label(), "mode": label});
    row("guard", text, facts)
}

fn hairpin_row(board: &dyn Board, id: PortId, allowed: bool) -> StepRow {
    let port = board.port_name(id);
    let may = if allowed { "may" } else { "may not" };
    let text = format!("the way out is the way in, {port}, and a frame {may} go back");
    row("hairpin", text, json!({"port": port, "allowed": allowed}))
}

fn owner_row(board: &dyn Board, address: IpAddr, owner: Option<Owner>) -> StepRow {
    let holder = owner.map(|owner| board.port_name(owner.port));
    let text = match (&holder, owner) {
        (Some(holder), Some(owner)) => format!("{address} is held by {holder}, at {}", owner.mac),
        _ => format!("nobody on this switch holds {address}"),
    };
    let mac = owner.map(|owner| owner.mac.to_string());
    let facts = json!({"address": address, "holder": holder, "mac": mac});
    row("owner", text, facts)
}

/// Who carried what the packet answers.
fn return_row(answers: Tuple, known: Carried) -> StepRow {
    let (source, target) = match answers.ports {
        Ports::Known(source, target) => (Some(source), Some(target)),
        Ports::Hidden => (None, None),
    };
    let end = |address: IpAddr, port: Option<u16>| match (address, port) {
        (address, None) => address.to_string(),
        (IpAddr::V4(v4), Some(port)) => format!("{v4}:{port}"),
        (IpAddr::V6(v6), Some(port)) => format!("[{v6}]:{port}"),
    };
    let from = end(answers.source, source);
    let told = format!("{from} > {}", end(answers.target, target));
    let (text, label) = match known {
        Carried::Switch => (
            format!("answers {told}, which the switch carried"),
            "switch",
        ),
        Carried::Host => (
            format!("answers {told}, which the node's kernel carried: it sees the answer first"),
            "host",
        ),
        Carried::Endpoint => (
            format!("{from} has spoken to what the node's kernel serves: it sees the answer first"),
            "endpoint",
        ),
        Carried::Nothing => (format!("nobody is known to have carried {told}"), "nothing"),
    };
    let facts = json!({
        "protocol": answers.protocol,
        "source": answers.source,
        "source_port": source,
        "target": answers.target,
        "target_port": target,
        "carried_by": label,
    });
    row("return", text, facts)
}

/// The steps of the router.
fn routed(board: &dyn Board, step: Step, segments: bool) -> StepRow {
    let port = |port: PortId| board.port_name(port);
    match step {
        Step::Source { address, martian } => {
            let may = if martian { "may not" } else { "may" };
            let text = format!("the source {address} {may} appear on a wire");
            row(
                "source",
                text,
                json!({"address": address, "martian": martian}),
            )
        }
        Step::Route { address, hop } => route(board, address, hop),
        Step::Member { group, hop } => {
            let next = next_hop(board, hop);
            let text = format!("of {group} the packet's flow takes {next}");
            let facts = json!({"group": group.index(), "next_hop": next});
            row("member", text, facts)
        }
        Step::NotRoutable { address } => {
            let text = format!("no router forwards to {address}");
            row("not_routable", text, json!({"address": address}))
        }
        Step::Neighbour { address, mac } => {
            let text = match mac {
                Some(mac) => format!("{address} has answered: {mac}"),
                None => format!("{address} has not been heard of"),
            };
            let mac = mac.map(|mac| mac.to_string());
            row("neighbour", text, json!({"address": address, "mac": mac}))
        }
        Step::Crossing { egress, rule } => {
            let (how, label) = match rule {
                Crossing::Bridged => ("bridged: the TTL stays", "bridged"),
                Crossing::Routed { .. } => ("routed: one off the TTL, both MACs change", "routed"),
            };
            let text = format!("to port {}, {how}", port(egress));
            row(
                "crossing",
                text,
                json!({"egress": port(egress), "rule": label}),
            )
        }
        Step::Hops { left } => {
            let text = match left {
                0 | 1 => format!("ttl {left} runs out here"),
                _ => format!("ttl {left} is enough"),
            };
            row("ttl", text, json!({"ttl": left}))
        }
        Step::Size { bytes, mtu } => {
            let what = if segments { "a segment of" } else { "" };
            let fits = if bytes <= usize::from(mtu) {
                "within"
            } else {
                "above"
            };
            let text = format!("{what} {bytes} bytes: {fits} the MTU of {mtu}");
            let facts = json!({"bytes": bytes, "mtu": mtu, "segment": segments});
            row("size", text.trim_start().to_owned(), facts)
        }
        bridged => unreachable!("{bridged:?} is told among the others"),
    }
}

fn route(board: &dyn Board, address: IpAddr, hop: Option<NextHop>) -> StepRow {
    let held = sources::longest(board.routes(), address);
    let (Some((prefix, _)), Some(hop)) = (held, hop) else {
        let text = format!("no prefix holds {address}");
        let facts = json!({"address": address, "prefix": null, "source": null, "next_hop": null});
        return row("route", text, facts);
    };
    let source = board.source(prefix);
    let next = next_hop(board, hop);
    let text = format!("{prefix} holds {address}: {next}  ({source})");
    let facts = json!({
        "address": address,
        "prefix": prefix.to_string(),
        "source": source,
        "next_hop": next,
    });
    row("route", text, facts)
}

fn next_hop(board: &dyn Board, hop: NextHop) -> String {
    match hop {
        NextHop::Station { port, mac } => {
            format!("to {mac} on port {}", board.port_name(port))
        }
        NextHop::Host => format!("to the node's kernel, by {}", board.host_device()),
        other => other.to_string(),
    }
}

fn router(board: &dyn Board, mac: Mac) -> &'static str {
    let macs = board.macs();
    match mac {
        FABRIC_MAC => "the fabric's router",
        mac if mac == macs.host.mac() => match board.host_device() {
            "cbr0" => "cbr0's, the pods' gateway",
            _ => "the node's own",
        },
        _ => "the node's own",
    }
}
