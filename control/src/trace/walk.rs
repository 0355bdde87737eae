//! The whole way of a frame: through a switch, across the fabric, through the next switch.
//!
//! In: the network, where a frame comes in, and the frame.
//! Out: each [`Hop`], and where it ended.
//! Never: sends. Switches decide by `decide`, the fabric by its own rules; a neighbour that was not
//! asked yet is asked first, and answers if the fabric would.
//!
//! It ends: what came in by an uplink never leaves by one.

use std::net::IpAddr;

use dataplane::addr::{Mac, PortId, Station};
use dataplane::buffer::Pool;
use dataplane::clock::Tick;
use dataplane::forward::{Step, World};
use dataplane::frame::nd::Message;
use dataplane::frame::offload::Offload;
use dataplane::frame::{FrameView, Network as Header};
use dataplane::segment::{Cut, complete};
use dataplane::tables::Crossing;
use dataplane::tables::fdb::Fdb;
use dataplane::tables::neighbour::state::Told;
use dataplane::tables::neighbour::{Neighbours, Waited, Waiting};
use dataplane::tables::returns::Returns;
use dataplane::verdict::{DropReason, Punt};
use serde_json::json;

use super::board::{At, Board};
use super::frame::{edits, row as frame_row};
use super::network::Network;
use super::packet::{Sender, question};
use super::pass::{Carried, Fate, Passage, pass};
use super::report::{Death, End, Hop, Sight, StepRow};
use super::steps::{self, row};
use crate::compile::{HOST_PORT, UPLINK_PORT};
use crate::lab::fabric::rules::{self, Verdict};
use crate::plan::Plugin;

/// Where a frame went, and as what it arrived.
#[derive(Clone, Debug)]
pub struct Way {
    /// Each switch and the fabric, in order.
    pub hops: Vec<Hop>,
    /// Where it ended.
    pub end: End,
    /// The frame as it arrived, if it did.
    pub arrived: Option<Carried>,
    /// The hardware address told, where the frame was a question that a switch answers.
    pub told: Option<Mac>,
}

/// Where a frame is.
enum Next {
    /// It comes in by a port of a node's switch.
    Switch(usize, PortId, Carried),
    /// A node's `eth0` sends it.
    Fabric(usize, Carried),
    /// A node's `eth0` receives it.
    Nic(usize, Carried),
    /// Nowhere any more.
    End(Box<End>, Option<Carried>),
}

/// Follows `frame`, which comes in by port `ingress` of node `at`.
#[must_use]
pub fn follow(network: &Network, at: usize, ingress: PortId, frame: Carried) -> Way {
    let mut walk = Walk {
        network,
        hops: Vec::new(),
        told: None,
    };
    let mut next = Next::Switch(at, ingress, frame);
    loop {
        next = match next {
            Next::Switch(at, ingress, frame) => walk.switch(at, ingress, &frame),
            Next::Fabric(at, frame) => walk.fabric(at, frame),
            Next::Nic(at, frame) => walk.nic(at, frame),
            Next::End(end, arrived) => {
                return Way {
                    hops: walk.hops,
                    end: *end,
                    arrived,
                    told: walk.told,
                };
            }
        };
    }
}

/// The same, from a node's `eth0` on.
#[must_use]
pub fn follow_from_nic(network: &Network, at: usize, frame: Carried) -> Way {
    let mut walk = Walk {
        network,
        hops: Vec::new(),
        told: None,
    };
    match walk.nic(at, frame) {
        Next::Switch(at, ingress, frame) => follow(network, at, ingress, frame),
        Next::End(end, arrived) => Way {
            hops: walk.hops,
            end: *end,
            arrived,
            told: None,
        },
        Next::Fabric(..) | Next::Nic(..) => unreachable!("eth0 hands up, to switch or kernel"),
    }
}

struct Walk<'a> {
    network: &'a Network,
    hops: Vec<Hop>,
    told: Option<Mac>,
}

impl Walk<'_> {
    fn name(&self, at: usize) -> String {
        self.network.nodes[at].plan.name.clone()
    }

    fn hop(&self, at: String, ingress: String, frame: &Carried) -> Hop {
        Hop {
            at,
            ingress,
            seen_in: Vec::new(),
            frame: frame_row(frame),
            steps: Vec::new(),
            verdict: "drop",
            egress: Vec::new(),
            rewrite: Vec::new(),
            drop: None,
            seen_out: Vec::new(),
        }
    }

    fn switch(&mut self, at: usize, ingress: PortId, frame: &Carried) -> Next {
        let network = self.network;
        let (passage, asked) = self.decide(at, ingress, frame);
        let mut hop = self.hop(self.name(at), network.port_name(at, ingress), frame);
        hop.seen_in = network.sights(at, ingress);
        let segments = frame.offload.is_super_frame();
        for step in &passage.steps {
            let question = matches!(step, Step::Neighbour { .. });
            let told = steps::tell(&At { network, at }, *step, segments);
            hop.steps.push(match &asked {
                Some(asked) if question => asked.clone(),
                _ => told,
            });
        }
        let next = self.obey(at, passage.fate, frame, &mut hop);
        self.hops.push(hop);
        next
    }

    /// What the switch does, once the next hop has been asked for where that is needed.
    fn decide(&self, at: usize, ingress: PortId, frame: &Carried) -> (Passage, Option<StepRow>) {
        let (fdb, returns) = (Fdb::new(64, 0), Returns::new(16, 0));
        let tables = &self.network.nodes[at].tables;
        let look = |neighbours: &Neighbours| {
            let world = World {
                tables,
                fdb: &fdb,
                neighbours,
                returns: Some(&returns),
            };
            pass(world, ingress, frame)
        };
        let passage = look(&Neighbours::default());
        let Fate::Punt(Punt::Resolve { next_hop, egress }) = passage.fate else {
            return (passage, None);
        };
        let by = question_name(next_hop);
        let asks = format!("asks {by} for {next_hop} on eth0 first");
        let facts = |mac: Option<Mac>| {
            let mac = mac.map(|mac| mac.to_string());
            json!({"address": next_hop, "mac": mac, "asks": by.to_lowercase(), "interface": "eth0"})
        };
        match self.ask_fabric(at, next_hop) {
            Ok(mac) => {
                let text = format!("{asks}: the fabric answers {mac}");
                let asked = row("neighbour", text, facts(Some(mac)));
                let mut known = Neighbours::default();
                heard(&mut known, next_hop, egress, mac);
                (look(&known), Some(asked))
            }
            Err(why) => {
                let fate = Fate::Drop(DropReason::NeighbourFailed);
                let steps = passage.steps;
                let text = format!("{asks}: {why}");
                (
                    Passage { steps, fate },
                    Some(row("neighbour", text, facts(None))),
                )
            }
        }
    }

    /// The switch asks in the node's own name.
    fn ask_fabric(&self, at: usize, next_hop: IpAddr) -> Result<Mac, String> {
        let node = &self.network.nodes[at];
        let Crossing::Routed { uplink, .. } = node.tables.crossing() else {
            return Err("a bridge asks nobody".to_owned());
        };
        let own = match next_hop {
            IpAddr::V4(_) => uplink.v4.map(IpAddr::V4),
            IpAddr::V6(_) => uplink.v6.map(IpAddr::V6),
        };
        let asker = own.map(|address| Sender {
            mac: node.macs.nic.mac(),
            address,
            mtu: node.plan.mtu.into(),
        });
        let asked = asker.and_then(|asker| question(&asker, next_hop));
        let asked = asked.ok_or("the node has no address of that family to ask from")?;
        match rules::decide(&self.network.vnet, node.nic, &asked.bytes) {
            Verdict::Answer(answer) => told_in(&answer).ok_or_else(|| "no answer".to_owned()),
            Verdict::Deliver { .. } => Err("no answer".to_owned()),
            Verdict::Drop(reason) => Err(format!(
                "the fabric does not answer ({}: {})",
                reason.name(),
                reason.explanation()
            )),
        }
    }

    fn obey(&mut self, at: usize, fate: Fate, before: &Carried, hop: &mut Hop) -> Next {
        let board = At {
            network: self.network,
            at,
        };
        match describe(&board, fate, before, hop) {
            Onward::Out { egress, frame } if egress == UPLINK_PORT => Next::Fabric(at, frame),
            Onward::Out { egress, frame } => {
                let outcome = if egress == HOST_PORT {
                    "host"
                } else {
                    "delivered"
                };
                arrival(outcome, hop.seen_out.last().cloned(), frame)
            }
            Onward::Flooded => Next::End(end("flooded", hop.egress.clone()).into(), None),
            Onward::Answered(mac) => {
                self.told = Some(mac);
                Next::End(end("answered", vec![hop.at.clone()]).into(), None)
            }
            Onward::Consumed => Next::End(end("consumed", vec![hop.at.clone()]).into(), None),
            Onward::Asked => dead(hop, DropReason::NeighbourFailed),
            Onward::Dead => buried(hop),
        }
    }

    fn fabric(&mut self, at: usize, mut frame: Carried) -> Next {
        let (network, nic) = (self.network, self.network.nodes[at].nic);
        let cut = on_the_wire(&mut frame);
        let mut hop = self.hop("fabric".to_owned(), self.name(at), &frame);
        match cut {
            Ok(None) => {}
            Ok(Some(pieces)) => {
                let text = format!(
                    "eth0 cuts the super-frame into {pieces} segments; the first is followed"
                );
                hop.steps
                    .push(row("segments", text, json!({"segments": pieces})));
            }
            Err(reason) => {
                let next = dead(&mut hop, reason);
                self.hops.push(hop);
                return next;
            }
        }
        if let Some(target) = hop.frame.target_ip
            && let Some(nic) = network.vnet.nic(nic)
            && !hop.frame.kind.starts_with("arp")
            && let Some(route) = network.vnet.routes(nic).find(target)
        {
            let text = format!("{route}");
            let facts = json!({
                "address": target,
                "prefix": route.prefix.to_string(),
                "next_hop": route.next_hop.to_string(),
            });
            hop.steps.push(row("effective_route", text, facts));
        }
        let next = self.fabric_verdict(at, frame, &mut hop);
        self.hops.push(hop);
        next
    }

    fn fabric_verdict(&self, at: usize, mut frame: Carried, hop: &mut Hop) -> Next {
        let (network, nic) = (self.network, self.network.nodes[at].nic);
        match rules::decide(&network.vnet, nic, &frame.bytes) {
            Verdict::Deliver { to, target } => {
                let found = network.nodes.iter().position(|node| node.nic == to);
                let to = found.expect("the fabric has the nodes' NICs and no others");
                let before = frame.clone();
                rules::rewrite(&mut frame.bytes, target);
                hop.verdict = "forward";
                hop.egress = vec![self.name(to)];
                hop.rewrite = edits(&before, &frame);
                Next::Nic(to, frame)
            }
            Verdict::Answer(bytes) => {
                hop.verdict = "answer";
                hop.egress = vec![self.name(at)];
                let offload = Offload::NONE;
                Next::Nic(at, Carried { bytes, offload })
            }
            Verdict::Drop(reason) => dead_of(hop, reason.name(), reason.explanation()),
        }
    }

    /// `eth0` receives: its classifiers steer what is for pods to the switch.
    fn nic(&mut self, at: usize, frame: Carried) -> Next {
        let row_in = frame_row(&frame);
        let is_arp = row_in.kind.starts_with("arp");
        let steered = row_in
            .target_ip
            .is_some_and(|to| self.network.steers(at, to));
        if steered && !(is_arp && self.network.plan.plugin == Plugin::Kubenet) {
            return Next::Switch(at, UPLINK_PORT, frame);
        }
        let name = self.name(at);
        let mut hop = self.hop(name.clone(), "uplink".to_owned(), &frame);
        hop.seen_in = vec![Sight::new(&name, "eth0")];
        hop.verdict = "kernel";
        hop.egress = vec!["host".to_owned()];
        let to = row_in.target_ip.map(|to| to.to_string());
        let text = format!(
            "eth0 steers to the switch what is for {name}'s pods; {} is none of their addresses",
            to.as_deref().unwrap_or("this")
        );
        hop.steps.push(row(
            "steering",
            text,
            json!({"address": to, "steered": false}),
        ));
        let sight = hop.seen_in.last().cloned();
        self.hops.push(hop);
        arrival("host", sight, frame)
    }
}

/// `ARP` or `ND`.
pub(super) fn question_name(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ARP",
        IpAddr::V6(_) => "ND",
    }
}

/// The hardware address that an ARP reply or a neighbour advertisement tells.
pub(super) fn told_in(answer: &[u8]) -> Option<Mac> {
    let view = FrameView::parse(answer).ok()?;
    if view.claims_discovery() {
        return match view.discovery(true).ok()?.message {
            Message::Advertisement { mac, .. } => mac.map(Station::mac),
            Message::Solicitation => None,
        };
    }
    match view.network() {
        Header::Arp(packet) => Some(packet.sender_mac),
        _ => None,
    }
}

/// Has `neighbours` know that `address` lives at `mac`, as a worker does that has asked and heard.
pub fn heard(neighbours: &mut Neighbours, address: IpAddr, egress: PortId, mac: Mac) {
    let frame = Pool::new(1, 64).take().expect("the pool is new");
    let waiting = Waiting {
        frame,
        ingress: egress,
    };
    let asked = neighbours.wait(address, egress, waiting, Tick::default());
    // What is no station's address answers nothing; and a full table knows enough.
    if let (Waited::Held(_), Ok(mac)) = (asked, Station::new(mac)) {
        drop(neighbours.hear(address, Told::by_arp_reply(mac), Tick::default()));
    }
}

/// Does what a device without offload has the kernel do: one frame as it goes over a wire, and how
/// many there are if it was cut.
fn on_the_wire(frame: &mut Carried) -> Result<Option<usize>, DropReason> {
    let offload = std::mem::replace(&mut frame.offload, Offload::NONE);
    if !offload.is_super_frame() {
        complete(&mut frame.bytes, offload)?;
        return Ok(None);
    }
    let cut = Cut::plan(&frame.bytes, offload)?;
    let mut piece = vec![0; cut.piece_len_max()];
    let len = cut.write(&frame.bytes, 0, &mut piece);
    piece.truncate(len);
    frame.bytes = piece;
    Ok(Some(cut.pieces()))
}

fn end(outcome: &'static str, at: Vec<String>) -> End {
    End {
        outcome,
        at,
        interface: None,
        frame: None,
        drop: None,
    }
}

fn arrival(outcome: &'static str, sight: Option<Sight>, frame: Carried) -> Next {
    let at = sight.iter().map(|sight| sight.at.clone()).collect();
    let end = End {
        interface: sight.map(|sight| sight.interface),
        frame: Some(frame_row(&frame)),
        ..end(outcome, at)
    };
    Next::End(end.into(), Some(frame))
}

/// What becomes of a frame after a switch.
#[derive(Clone, Debug)]
pub enum Onward {
    /// It leaves.
    Out {
        /// By this port.
        egress: PortId,
        /// As this frame.
        frame: Carried,
    },
    /// It leaves by several.
    Flooded,
    /// It was a question, and this is the answer.
    Answered(Mac),
    /// The switch itself took it.
    Consumed,
    /// It waits until its next hop has answered.
    Asked,
    /// It died, for the reason in the hop.
    Dead,
}

/// Writes what a switch does with a frame into its hop.
pub fn describe(board: &dyn Board, fate: Fate, before: &Carried, hop: &mut Hop) -> Onward {
    match fate {
        Fate::Forward { egress, frame, .. } => {
            hop.verdict = "forward";
            hop.egress = vec![board.port_name(egress)];
            hop.rewrite = edits(before, &frame);
            hop.seen_out = board.sights_out(egress);
            Onward::Out { egress, frame }
        }
        Fate::Flood(ports) => {
            hop.verdict = "flood";
            hop.egress = ports.iter().map(|port| board.port_name(*port)).collect();
            let sights = ports.iter().flat_map(|port| board.sights_out(*port));
            hop.seen_out = sights.collect();
            Onward::Flooded
        }
        Fate::Punt(Punt::AnswerArp { mac } | Punt::AnswerSolicitation { mac, .. }) => {
            hop.verdict = "answer";
            hop.egress = vec![hop.ingress.clone()];
            let text = format!("the switch answers in the holder's name: {mac}");
            let facts = json!({"mac": mac.to_string()});
            hop.steps.push(row("answer", text, facts));
            Onward::Answered(mac)
        }
        Fate::Punt(Punt::HearNeighbour { address, told }) => {
            hop.verdict = "learn";
            let mac = told.mac.map(|mac| mac.to_string());
            let place = mac.as_deref().unwrap_or("where it did");
            let text = format!("{address} lives at {place}: frames that waited for it go on");
            let facts = json!({"address": address, "mac": mac});
            hop.steps.push(row("learn", text, facts));
            Onward::Consumed
        }
        Fate::Punt(Punt::Resolve { .. }) => {
            hop.verdict = "queue";
            Onward::Asked
        }
        Fate::Punt(Punt::Defend { .. }) => died(hop, DropReason::AddressConflict),
        Fate::Drop(reason) => died(hop, reason),
    }
}

fn died(hop: &mut Hop, reason: DropReason) -> Onward {
    hop.verdict = "drop";
    hop.drop = Some(Death {
        reason: reason.label(),
        meaning: reason.meaning(),
    });
    Onward::Dead
}

fn dead(hop: &mut Hop, reason: DropReason) -> Next {
    dead_of(hop, reason.label(), reason.meaning())
}

fn buried(hop: &Hop) -> Next {
    let end = End {
        drop: hop.drop.clone(),
        ..end("dropped", vec![hop.at.clone()])
    };
    Next::End(end.into(), None)
}

fn dead_of(hop: &mut Hop, reason: &'static str, meaning: &'static str) -> Next {
    hop.verdict = "drop";
    hop.drop = Some(Death { reason, meaning });
    buried(hop)
}
