//! A trace through one switch that runs: its tables, what it has learned, whom it knows.
//!
//! In: the switch's state, who sends, and which packet. Out: a [`Trace`] with one hop: what lies
//! beyond the uplink is not ours to know.
//! Never: sends, or changes what the switch knows.

use std::net::IpAddr;

use dataplane::addr::{Mac, PortId};
use dataplane::forward::World;
use dataplane::verdict::Punt;

use super::board::Board;
use super::frame::row as frame_row;
use super::packet::{Sender, Wanted, build, group_mac, question};
use super::pass::{Carried, Fate, pass};
use super::report::{Asked, Death, End, Hop, Sight, Trace};
use super::walk::{Onward, describe, question_name};
use super::{NoTrace, steps};
use crate::compile::{FABRIC_MAC, HOST_PORT, UPLINK_PORT};

/// A switch that runs.
pub struct Running<'a> {
    /// How it is spoken of.
    pub board: &'a dyn Board,
    /// What `decide` goes by.
    pub world: World<'a>,
    /// The node's name.
    pub node: &'a str,
    /// `azure` or `kubenet`.
    pub plugin: &'a str,
}

/// Who sends, and by which port.
#[derive(Clone, Debug)]
pub struct From<'a> {
    /// What it is called.
    pub name: &'a str,
    /// The port it sends by.
    pub port: PortId,
    /// Its addresses.
    pub sender: Sender,
    /// The address whose MAC the frame goes to.
    pub next_hop: IpAddr,
}

/// Traces the packet that a kernel would send.
///
/// # Errors
/// That no such packet is sent.
pub fn trace(
    running: &Running<'_>,
    from: &From<'_>,
    to: IpAddr,
    wanted: &Wanted,
) -> Result<Trace, NoTrace> {
    // A packet that cannot be is refused before anybody asks for it.
    build(&from.sender, Mac::ZERO, to, wanted)?;
    let mut trace = empty(running);
    let mac = match group_mac(to) {
        Some(mac) => mac,
        None if from.port == UPLINK_PORT => running.board.macs().nic.mac(),
        None => {
            let (asked, mac) = ask(running, from);
            trace.asked = Some(asked);
            match mac {
                Some(mac) => mac,
                None => return Ok(trace),
            }
        }
    };
    let built = build(&from.sender, mac, to, wanted)?;
    trace.notes = built.notes;
    follow(running, from.port, &built.frame, &mut trace);
    Ok(trace)
}

/// Traces a frame that was given.
#[must_use]
pub fn trace_frame(running: &Running<'_>, port: PortId, frame: &Carried) -> Trace {
    let mut trace = empty(running);
    follow(running, port, frame, &mut trace);
    trace
}

fn empty(running: &Running<'_>) -> Trace {
    Trace {
        plugin: running.plugin.to_owned(),
        notes: Vec::new(),
        asked: None,
        frame: None,
        hops: Vec::new(),
        end: End {
            outcome: "unanswered",
            at: Vec::new(),
            interface: None,
            frame: None,
            drop: None,
        },
    }
}

/// The sender's own question, and what the switch says to it.
fn ask(running: &Running<'_>, from: &From<'_>) -> (Asked, Option<Mac>) {
    let asked = question(&from.sender, from.next_hop);
    let fate = asked.map(|asked| pass(running.world, from.port, &asked).fate);
    let (mac, answer) = match fate {
        Some(Fate::Punt(Punt::AnswerArp { mac } | Punt::AnswerSolicitation { mac, .. })) => {
            (Some(mac), format!("{}'s switch", running.node))
        }
        Some(Fate::Forward { egress, .. }) if egress == UPLINK_PORT => (
            Some(FABRIC_MAC),
            "the fabric, as it does for every address".to_owned(),
        ),
        Some(Fate::Drop(reason)) => {
            let why = format!("nobody: {} ({})", reason.label(), reason.meaning());
            (None, why)
        }
        _ => (None, "nobody whom this switch knows".to_owned()),
    };
    let interface = match from.port {
        HOST_PORT => running.board.host_device(),
        _ => "eth0",
    };
    let asked = Asked {
        by: if from.next_hop.is_ipv4() { "arp" } else { "nd" },
        asker: from.name.to_owned(),
        interface: interface.to_owned(),
        address: from.next_hop,
        mac: mac.map(|mac| mac.to_string()),
        answer,
    };
    debug_assert_eq!(asked.by, question_name(from.next_hop).to_lowercase());
    (asked, mac)
}

fn follow(running: &Running<'_>, ingress: PortId, frame: &Carried, trace: &mut Trace) {
    trace.frame = Some(frame_row(frame));
    let board = running.board;
    let passage = pass(running.world, ingress, frame);
    let mut seen_in = board.sights_out(ingress);
    seen_in.reverse();
    let segments = frame.offload.is_super_frame();
    let told = passage
        .steps
        .iter()
        .map(|step| steps::tell(board, *step, segments));
    let mut hop = Hop {
        at: running.node.to_owned(),
        ingress: board.port_name(ingress),
        seen_in,
        frame: frame_row(frame),
        steps: told.collect(),
        verdict: "drop",
        egress: Vec::new(),
        rewrite: Vec::new(),
        drop: None,
        seen_out: Vec::new(),
    };
    let onward = describe(board, passage.fate, frame, &mut hop);
    trace.end = ended(running, &hop, onward);
    trace.hops.push(hop);
}

fn ended(running: &Running<'_>, hop: &Hop, onward: Onward) -> End {
    let end = |outcome: &'static str, at: Vec<String>| End {
        outcome,
        at,
        interface: None,
        frame: None,
        drop: None,
    };
    let here = || vec![running.node.to_owned()];
    match onward {
        Onward::Out { egress, frame } => {
            let outcome = match egress {
                UPLINK_PORT => "sent",
                HOST_PORT => "host",
                _ => "delivered",
            };
            let last: Option<&Sight> = hop.seen_out.last();
            End {
                interface: last.map(|sight| sight.interface.clone()),
                frame: Some(frame_row(&frame)),
                ..end(
                    outcome,
                    last.map(|sight| sight.at.clone()).into_iter().collect(),
                )
            }
        }
        Onward::Flooded => end("flooded", hop.egress.clone()),
        Onward::Answered(_) => end("answered", here()),
        Onward::Consumed => end("consumed", here()),
        Onward::Asked => end("queued", here()),
        Onward::Dead => End {
            drop: hop.drop.clone().map(|death: Death| death),
            ..end("dropped", here())
        },
    }
}
