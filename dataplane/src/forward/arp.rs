//! Questions for hardware addresses, and their answers, in IPv4: ARP.
//!
//! In: an ARP packet, and the port it came in by.
//! Out: an answer from the tables, a way out of the uplink, the asker a reply is for, or a death.
//! Never: floods a question whose answer is configured (RFC 1027's proxy, per address), or lets a
//! packet pass whose sender claims an address that another port holds (RFC 5227 2.4).
//!
//! On an azure node the fabric answers for every address but the node's own, to the NIC's MAC; the
//! reply is told apart by its target protocol address (facts of azure-container-networking,
//! `ebtables.SetDnatForArpReplies`, which floods where we unicast).

use super::witness::note;
use super::{Known, Step, Witness, conflict, guard, is_isolated, owner, told_to};
use crate::addr::Station;
use crate::frame::arp::{ArpView, Operation};
use crate::frame::{FrameView, Network};
use crate::tables::neighbour::state::Told;
use crate::tables::{Crossing, PortRole, PortRow, Tables, Unknown};
use crate::verdict::{DropReason, Punt, Rewrite, Verdict};

/// What becomes of an ARP packet.
#[inline(never)]
pub(super) fn decide<W: Witness>(
    view: &FrameView<'_>,
    ingress: &PortRow,
    tables: &Tables,
    witness: &mut W,
) -> Verdict {
    let packet = match view.network() {
        Network::Arp(packet) if packet.is_sound() => packet,
        _ => return Verdict::Drop(DropReason::MalformedArp),
    };
    // A probe claims the address it asks for, every other packet that of its sender.
    let claimed = match packet.is_probe() {
        true => packet.target,
        false => packet.sender,
    };
    if let Some(verdict) = conflict(claimed.into(), ingress, tables, witness) {
        return verdict;
    }
    if let Err(reason) = guard::arp(&packet, ingress, tables, witness) {
        return Verdict::Drop(reason);
    }
    match (packet.operation, ingress.role) {
        (Operation::Reply, PortRole::Uplink) => reply_from_uplink(&packet, tables, witness),
        (Operation::Reply, _) => reply_among_us(&packet, ingress, tables, witness),
        (Operation::Request, PortRole::Uplink) if packet.is_announcement() => {
            hear(&packet, tables, Told::by_arp_announcement)
        }
        // A gratuitous ARP refreshes the caches of the others.
        (Operation::Request, _) if packet.is_announcement() => Verdict::Flood,
        (Operation::Request, _) => request(&packet, ingress, tables, witness),
    }
}

fn request<W: Witness>(
    packet: &ArpView,
    ingress: &PortRow,
    tables: &Tables,
    witness: &mut W,
) -> Verdict {
    match owner(packet.target.into(), tables, witness) {
        // The asker's own address, as a probe before use: silence says that it is free.
        Some(owner) if owner.port == ingress.id => Verdict::Drop(DropReason::ArpUnanswered),
        Some(owner) if is_isolated(ingress, owner.port, tables, witness) => {
            Verdict::Drop(DropReason::Isolated)
        }
        Some(owner) => Verdict::Punt(Punt::AnswerArp {
            mac: told_to(ingress, owner),
        }),
        None => unknown(packet, ingress, tables),
    }
}

fn unknown(packet: &ArpView, ingress: &PortRow, tables: &Tables) -> Verdict {
    match (tables.crossing(), tables.uplink(), ingress.role) {
        (Crossing::Bridged, Some(uplink), PortRole::Pod) if !packet.is_probe() => {
            let source = Some(uplink.mac.mac());
            let rewrite = Rewrite {
                source,
                ..Rewrite::KEEP
            };
            Verdict::Forward {
                egress: uplink.id,
                rewrite,
            }
        }
        (_, _, PortRole::Uplink) => Verdict::Drop(DropReason::UplinkNotOurs),
        _ if tables.unknown() == Unknown::Flood => Verdict::Flood,
        _ => Verdict::Drop(DropReason::ArpUnanswered),
    }
}

/// What a neighbour on the uplink says of itself. Whether it was ever asked for, the worker knows.
fn hear(packet: &ArpView, tables: &Tables, told: impl Fn(Station) -> Told) -> Verdict {
    match (tables.crossing(), Station::new(packet.sender_mac)) {
        (Crossing::Routed { .. }, Ok(mac)) => Verdict::Punt(Punt::HearNeighbour {
            address: packet.sender.into(),
            told: told(mac),
        }),
        _ => Verdict::Drop(DropReason::UplinkNotOurs),
    }
}

fn reply_from_uplink<W: Witness>(packet: &ArpView, tables: &Tables, witness: &mut W) -> Verdict {
    if let Crossing::Routed { uplink, .. } = tables.crossing()
        && uplink.v4 == Some(packet.target)
    {
        return hear(packet, tables, Told::by_arp_reply);
    }
    let holder = owner(packet.target.into(), tables, witness);
    match holder.and_then(|owner| tables.port(owner.port)) {
        Some(asker) if asker.role == PortRole::Pod => {
            let target = Some(asker.mac.mac());
            let rewrite = Rewrite {
                target,
                ..Rewrite::KEEP
            };
            Verdict::Forward {
                egress: asker.id,
                rewrite,
            }
        }
        _ => Verdict::Drop(DropReason::UplinkNotOurs),
    }
}

fn reply_among_us<W: Witness>(
    packet: &ArpView,
    ingress: &PortRow,
    tables: &Tables,
    witness: &mut W,
) -> Verdict {
    let mac = packet.target_mac;
    let Some(port) = tables.station(mac) else {
        let unknown = Unknown::Drop;
        note!(witness, Step::NoStation { mac, unknown });
        return Verdict::Drop(DropReason::UnknownUnicast);
    };
    let known = Known::Configured;
    note!(witness, Step::Station { mac, port, known });
    if port == ingress.id {
        let allowed = false;
        note!(witness, Step::Hairpin { port, allowed });
        return Verdict::Drop(DropReason::SamePort);
    }
    if is_isolated(ingress, port, tables, witness) {
        return Verdict::Drop(DropReason::Isolated);
    }
    Verdict::Forward {
        egress: port,
        rewrite: Rewrite::KEEP,
    }
}
