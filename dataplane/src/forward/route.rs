//! By IP address: the part of the switch that is a router.
//!
//! In: a frame for one of the router's addresses, or from the uplink.
//! Out: the next hop's port and the edits, a question for its address, or a reason to refuse.
//! Never: sends back by the uplink what came in by it: a route table that points here for an
//! address nobody has would make a loop (the own pod range is unreachable instead).
//!
//! The checks are those of RFC 1812 5.2 and 5.3, in their order: a sound header, a source that may
//! exist, a target that may be routed, a route, TTL, size.

use std::net::IpAddr;

use super::witness::note;
use super::{Step, Witness, World};
use crate::addr::{Mac, PortId};
use crate::frame::flow::Flow;
use crate::frame::ipv4::{self, Ipv4View};
use crate::frame::ipv6::{self, Ipv6View};
use crate::frame::offload::Offload;
use crate::frame::{FrameView, Network};
use crate::tables::fib::NextHop;
use crate::tables::{Crossing, PortRole, PortRow, Tables};
use crate::verdict::{DropReason, Punt, Rewrite, Verdict};

/// What a router asks of a packet, whatever its family.
#[derive(Clone, Copy)]
struct Packet {
    /// Hops left.
    hops: u8,
    /// Bytes of the packet, or of one segment of a super-frame.
    size: usize,
}

/// The next hop for a frame that is to be routed.
#[inline(never)]
pub(super) fn decide<W: Witness>(
    view: &FrameView<'_>,
    offload: Offload,
    ingress: &PortRow,
    world: World<'_>,
    witness: &mut W,
) -> Verdict {
    let looked_up = match &view.network() {
        Network::Ipv4(ip) => look_up_v4(ip, offload, world.tables, witness),
        Network::Ipv6(ip) => look_up_v6(ip, offload, world.tables, witness),
        Network::Malformed(reason) => Err(*reason),
        Network::Arp(_) | Network::Opaque => return not_ip(ingress, world.tables, witness),
    };
    match looked_up {
        Ok((hop, packet)) => to_next_hop(hop, packet, ingress, world, witness),
        Err(reason) => Verdict::Drop(reason),
    }
}

fn look_up_v4<'a, W: Witness>(
    ip: &Ipv4View,
    offload: Offload,
    tables: &'a Tables,
    witness: &mut W,
) -> Result<(&'a NextHop, Packet), DropReason> {
    let address = ip.source.into();
    if ipv4::is_martian_source(ip.source) {
        let martian = true;
        note!(witness, Step::Source { address, martian });
        return Err(DropReason::MartianSource);
    }
    let martian = false;
    note!(witness, Step::Source { address, martian });
    let (address, hop) = (ip.target.into(), tables.next_hop_v4(ip.target));
    note!(
        witness,
        Step::Route {
            address,
            hop: hop.copied()
        }
    );
    let hop = hop.map(|hop| one_of(hop, || Flow::of_v4(ip), tables, witness));
    // Link-local targets such as the metadata service are the host's business where it says so.
    if hop != Some(&NextHop::Host) && ipv4::is_unroutable_target(ip.target) {
        note!(witness, Step::NotRoutable { address });
        return Err(DropReason::NotRoutable);
    }
    let header = usize::from(ip.header_len) + ip.transport.segment_header_len();
    let size = segment_size(offload, header, usize::from(ip.total_len));
    Ok((
        hop.ok_or(DropReason::NoRoute)?,
        Packet { hops: ip.ttl, size },
    ))
}

fn look_up_v6<'a, W: Witness>(
    ip: &Ipv6View,
    offload: Offload,
    tables: &'a Tables,
    witness: &mut W,
) -> Result<(&'a NextHop, Packet), DropReason> {
    let address = ip.source.into();
    if ipv6::is_martian_source(ip.source) {
        let martian = true;
        note!(witness, Step::Source { address, martian });
        return Err(DropReason::MartianSource);
    }
    let martian = false;
    note!(witness, Step::Source { address, martian });
    let (address, hop) = (ip.target.into(), tables.next_hop_v6(ip.target));
    // Nobody routes a link-local address. Where the tables say so it is the host's own: the kernel
    // holds the gateway, and asks for neighbours, and is answered, by its link-local address.
    let on_link = hop == Some(&NextHop::Host) && ip.target.is_unicast_link_local();
    if ipv6::is_unroutable_target(ip.target) && !on_link {
        note!(witness, Step::NotRoutable { address });
        return Err(DropReason::NotRoutable);
    }
    note!(
        witness,
        Step::Route {
            address,
            hop: hop.copied()
        }
    );
    let hop = one_of(
        hop.ok_or(DropReason::NoRoute)?,
        || Flow::of_v6(ip),
        tables,
        witness,
    );
    let header = ipv6::HEADER_LEN + ip.transport.segment_header_len();
    let whole = ipv6::HEADER_LEN + usize::from(ip.payload_len);
    Ok((
        hop,
        Packet {
            hops: ip.hop_limit,
            size: segment_size(offload, header, whole),
        },
    ))
}

/// Of a group, the member that carries the packet's flow.
#[inline]
fn one_of<'a, W: Witness>(
    hop: &'a NextHop,
    flow: impl FnOnce() -> Flow,
    tables: &'a Tables,
    witness: &mut W,
) -> &'a NextHop {
    let member = tables.one_of(hop, flow);
    if let NextHop::Group(group) = *hop {
        let hop = *member;
        note!(witness, Step::Member { group, hop });
    }
    member
}

/// A super-frame is measured by its segments: that is what will be on the wire
/// (`skb_gso_validate_network_len`, net/core/gso.c).
#[inline]
fn segment_size(offload: Offload, headers: usize, whole: usize) -> usize {
    if offload.is_super_frame() {
        whole.min(headers + usize::from(offload.gso_size))
    } else {
        whole
    }
}

fn to_next_hop<W: Witness>(
    hop: &NextHop,
    packet: Packet,
    ingress: &PortRow,
    world: World<'_>,
    witness: &mut W,
) -> Verdict {
    let tables = world.tables;
    match *hop {
        NextHop::Unreachable => Verdict::Drop(DropReason::NoSuchPod),
        NextHop::Blackhole => Verdict::Drop(DropReason::Blackhole),
        NextHop::Host => to_host(ingress, tables, witness),
        NextHop::Station { port, mac } => match tables.port(port) {
            Some(egress) => across(packet, ingress, egress, Some(mac), tables, witness),
            None => Verdict::Drop(DropReason::NoEgress),
        },
        NextHop::Neighbour(address) => match tables.uplink() {
            Some(uplink) => to_neighbour(packet, ingress, uplink, address, world, witness),
            None => Verdict::Drop(DropReason::NoEgress),
        },
        NextHop::Group(_) => unreachable!("looking up chose a member, and none is a group"),
    }
}

fn to_neighbour<W: Witness>(
    packet: Packet,
    ingress: &PortRow,
    uplink: &PortRow,
    next_hop: IpAddr,
    world: World<'_>,
    witness: &mut W,
) -> Verdict {
    let known = world.neighbours.find(next_hop);
    note!(
        witness,
        Step::Neighbour {
            address: next_hop,
            mac: known,
        }
    );
    match across(packet, ingress, uplink, known, world.tables, witness) {
        Verdict::Forward { egress, .. } if known.is_none() => resolve(next_hop, egress),
        verdict => verdict,
    }
}

fn resolve(next_hop: IpAddr, egress: PortId) -> Verdict {
    Verdict::Punt(Punt::Resolve { next_hop, egress })
}

/// Crosses from `ingress` to `egress`, where `mac` is the next station.
#[inline]
fn across<W: Witness>(
    packet: Packet,
    ingress: &PortRow,
    egress: &PortRow,
    mac: Option<Mac>,
    tables: &Tables,
    witness: &mut W,
) -> Verdict {
    if egress.id == ingress.id {
        let (port, allowed) = (egress.id, egress.hairpin);
        note!(witness, Step::Hairpin { port, allowed });
        if !allowed {
            return Verdict::Drop(match egress.role {
                PortRole::Uplink => DropReason::UplinkReflected,
                _ => DropReason::SamePort,
            });
        }
    }
    let rule = tables.crossing();
    note!(
        witness,
        Step::Crossing {
            egress: egress.id,
            rule,
        }
    );
    match rule {
        Crossing::Bridged => {
            let out = egress.role == PortRole::Uplink;
            let source = out.then_some(egress.mac.mac());
            let rewrite = Rewrite {
                target: mac,
                source,
                hop: false,
            };
            Verdict::Forward {
                egress: egress.id,
                rewrite,
            }
        }
        Crossing::Routed { .. } => {
            note!(witness, Step::Hops { left: packet.hops });
            if packet.hops <= 1 {
                return Verdict::Drop(DropReason::TtlExpired);
            }
            note!(
                witness,
                Step::Size {
                    bytes: packet.size,
                    mtu: egress.mtu,
                }
            );
            if packet.size > usize::from(egress.mtu) {
                return Verdict::Drop(DropReason::TooBig);
            }
            let source = Some(router_mac(egress, tables));
            let rewrite = Rewrite {
                target: mac,
                source,
                hop: true,
            };
            Verdict::Forward {
                egress: egress.id,
                rewrite,
            }
        }
    }
}

/// The router's own address on a port: the NIC's on the uplink, the host interface's elsewhere,
/// since that is the gateway that pods know.
#[inline]
fn router_mac(egress: &PortRow, tables: &Tables) -> Mac {
    let host = tables.host().filter(|_| egress.role != PortRole::Uplink);
    host.unwrap_or(egress).mac.mac()
}

/// The kernel is the next router and takes its own hop, so the frame only changes its target.
#[inline]
fn to_host<W: Witness>(ingress: &PortRow, tables: &Tables, witness: &mut W) -> Verdict {
    match tables.host() {
        Some(host) if host.id == ingress.id => {
            let (port, allowed) = (host.id, false);
            note!(witness, Step::Hairpin { port, allowed });
            Verdict::Drop(DropReason::SamePort)
        }
        Some(host) => {
            let rewrite = Rewrite {
                target: Some(host.mac.mac()),
                ..Rewrite::KEEP
            };
            Verdict::Forward {
                egress: host.id,
                rewrite,
            }
        }
        None => Verdict::Drop(DropReason::NoEgress),
    }
}

/// A frame for the router's MAC that is no IP packet: the kernel may know what to do with it, but
/// nothing of the sort is steered here from the uplink.
fn not_ip<W: Witness>(ingress: &PortRow, tables: &Tables, witness: &mut W) -> Verdict {
    match ingress.role {
        PortRole::Uplink => Verdict::Drop(DropReason::UplinkNotOurs),
        _ => to_host(ingress, tables, witness),
    }
}
