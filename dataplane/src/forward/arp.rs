//! Questions for hardware addresses, and their answers: ARP, and ND's solicitations.
//!
//! In: an ARP packet or a neighbour solicitation, and the port it came in by.
//! Out: an answer from the tables, a way out of the uplink, or the asker a reply is for.
//! Never: floods a question whose answer is configured (RFC 1027's proxy, per address).
//!
//! On an azure node the fabric answers for every address but the node's own, to the NIC's MAC; the
//! reply is told apart by its target protocol address (facts of azure-container-networking,
//! `ebtables.SetDnatForArpReplies`, which floods where we unicast).

use std::net::IpAddr;

use super::witness::note;
use super::{Known, Step, Witness};
use crate::addr::Mac;
use crate::frame::arp::{ArpView, Operation};
use crate::frame::ipv6::{Discovery, Ipv6View};
use crate::tables::{Crossing, Owner, PortRole, PortRow, Tables, Unknown};
use crate::verdict::{DropReason, Punt, Rewrite, Verdict};

/// What becomes of an ARP packet.
#[inline(never)]
pub(super) fn decide<W: Witness>(
    packet: &ArpView,
    ingress: &PortRow,
    tables: &Tables,
    witness: &mut W,
) -> Verdict {
    match (packet.operation, ingress.role) {
        (Operation::Reply, PortRole::Uplink) => reply_from_uplink(packet, tables, witness),
        (Operation::Reply, _) => reply_among_us(packet, ingress, tables, witness),
        (Operation::Request, _) if packet.is_announcement() => {
            announce(packet, ingress, tables, witness)
        }
        (Operation::Request, _) => request(packet, ingress, tables, witness),
    }
}

/// Who holds `address`, told to the witness.
#[inline]
fn owner<W: Witness>(address: IpAddr, tables: &Tables, witness: &mut W) -> Option<Owner> {
    let owner = tables.owner(address);
    note!(witness, Step::Owner { address, owner });
    owner
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
        Some(owner) => Verdict::Punt(Punt::AnswerArp {
            mac: told_to(ingress, owner),
        }),
        None => unknown(packet, ingress, tables),
    }
}

/// The fabric accepts only the NIC's address, so that is what it is told.
fn told_to(asker: &PortRow, owner: Owner) -> Mac {
    if asker.role == PortRole::Uplink {
        asker.mac.mac()
    } else {
        owner.mac
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

/// A gratuitous ARP refreshes the caches of the others, unless the address is somebody else's.
fn announce<W: Witness>(
    packet: &ArpView,
    ingress: &PortRow,
    tables: &Tables,
    witness: &mut W,
) -> Verdict {
    match owner(packet.sender.into(), tables, witness) {
        Some(owner) if owner.port != ingress.id => Verdict::Drop(DropReason::AddressConflict),
        _ if ingress.role == PortRole::Uplink => Verdict::Drop(DropReason::UplinkNotOurs),
        _ => Verdict::Flood,
    }
}

fn reply_from_uplink<W: Witness>(packet: &ArpView, tables: &Tables, witness: &mut W) -> Verdict {
    if let Crossing::Routed { uplink, .. } = tables.crossing()
        && uplink.v4 == Some(packet.target)
    {
        let address = IpAddr::V4(packet.sender);
        return Verdict::Punt(Punt::HearNeighbour {
            address,
            mac: packet.sender_mac,
        });
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
    Verdict::Forward {
        egress: port,
        rewrite: Rewrite::KEEP,
    }
}

/// The verdict on a neighbour solicitation, or nothing if the packet is none that we answer.
pub(super) fn solicited<W: Witness>(
    packet: &Ipv6View,
    ingress: &PortRow,
    tables: &Tables,
    witness: &mut W,
) -> Option<Verdict> {
    let Some(Discovery::Solicitation { target }) = packet.discovery else {
        return None;
    };
    let owner = owner(target.into(), tables, witness)?;
    if owner.port == ingress.id || packet.source.is_unspecified() {
        return None; // duplicate address detection: the holder must hear it itself
    }
    Some(Verdict::Punt(Punt::AnswerSolicitation {
        mac: told_to(ingress, owner),
    }))
}
