//! By IP address: the part of the switch that is a router.
//!
//! In: a frame for one of the router's addresses, or from the uplink.
//! Out: the next hop's port and the edits, a question for its address, or a reason to refuse.
//! Never: sends back by the uplink what came in by it: a route table that points here for an
//! address nobody has would make a loop (the own pod range is unreachable instead).
//!
//! The checks are those of RFC 1812 5.2 and 5.3, in their order: a sound header, a source that may
//! exist, a target that may be routed, a route, options, TTL, size.

use std::net::{IpAddr, Ipv4Addr};

use super::witness::note;
use super::{Step, Witness, World, host, is_isolated};
use crate::addr::{Mac, PortId};
use crate::frame::flow::Flow;
use crate::frame::ipv4::{self, Ipv4View};
use crate::frame::ipv6::{self, Ipv6View};
use crate::frame::offload::Offload;
use crate::frame::options;
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
    /// The least that counts as an egress MTU, in bytes.
    mtu_min: u16,
    /// What is too long may leave in fragments.
    may_fragment: bool,
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
        Network::Ipv4(ip) => look_up_v4(ip, view.payload(), offload, world.tables, witness),
        Network::Ipv6(ip) => {
            let around = (ingress, world.tables);
            look_up_v6(ip, view.payload(), offload, around, witness)
        }
        Network::Malformed(reason) => Err(*reason),
        Network::Arp(_) | Network::Opaque => return not_ip(ingress, world.tables, witness),
    };
    match looked_up {
        Ok((hop, packet)) => match egress_of(hop, world.tables) {
            Some(egress) if is_isolated(ingress, egress.id, world.tables, witness) => {
                Verdict::Drop(DropReason::Isolated)
            }
            Some(egress) if host::comes_first(view, ingress, egress, world, witness) => {
                to_host(ingress, world.tables, witness)
            }
            _ => to_next_hop(hop, packet, ingress, world, witness),
        },
        Err(reason) => Verdict::Drop(reason),
    }
}

/// The port that a next hop is reached by, unless it is the host's.
#[inline]
fn egress_of<'a>(hop: &NextHop, tables: &'a Tables) -> Option<&'a PortRow> {
    match *hop {
        NextHop::Station { port, .. } => tables.port(port),
        NextHop::Neighbour(_) => tables.uplink(),
        _ => None,
    }
}

fn look_up_v4<'a, W: Witness>(
    ip: &Ipv4View,
    bytes: &[u8],
    offload: Offload,
    tables: &'a Tables,
    witness: &mut W,
) -> Result<(&'a NextHop, Packet), DropReason> {
    let broadcast = tables.directed_broadcast();
    let martian = ipv4::is_martian_source(ip.source) || broadcast == Some(ip.source);
    let address = ip.source.into();
    note!(witness, Step::Source { address, martian });
    if martian {
        return Err(DropReason::MartianSource);
    }
    let (address, hop) = (ip.target.into(), tables.next_hop_v4(ip.target));
    note!(
        witness,
        Step::Route {
            address,
            hop: hop.copied()
        }
    );
    let hop = hop.map(|hop| one_of(hop, || Flow::of_v4(ip), tables, witness));
    let to_host = hop == Some(&NextHop::Host);
    if let Some(reason) = unroutable_v4(ip, to_host, broadcast) {
        note!(witness, Step::NotRoutable { address });
        return Err(reason);
    }
    if ip.header_len > ipv4::HEADER_LEN_MIN as u8 && is_ours(hop, tables) {
        let header = &bytes[..usize::from(ip.header_len)];
        options::check_v4(header).map_err(|fault| fault.reason)?;
    }
    let header = usize::from(ip.header_len) + ip.transport.segment_header_len();
    let size = segment_size(offload, header, usize::from(ip.total_len));
    Ok((
        hop.ok_or(DropReason::NoRoute)?,
        Packet {
            hops: ip.ttl,
            size,
            mtu_min: 0,
            may_fragment: !ip.dont_fragment,
        },
    ))
}

/// Why a packet to this address may not be routed, if so. Link-local targets such as the metadata
/// service are the host's business where a route says so, but not its loopback: with
/// `route_localnet`, which kube-proxy sets, the kernel would take it (CVE-2020-8558).
#[inline]
fn unroutable_v4(ip: &Ipv4View, to_host: bool, broadcast: Option<Ipv4Addr>) -> Option<DropReason> {
    let link_local = ip.target.is_link_local() || ip.source.is_link_local();
    if ipv4::is_unroutable_target(ip.target) || (link_local && !to_host) {
        Some(DropReason::NotRoutable)
    } else if broadcast == Some(ip.target) {
        Some(DropReason::DirectedBroadcast)
    } else {
        None
    }
}

/// True if the switch is the router of a packet with this next hop: not where it only translates
/// addresses, and not where the node's own kernel is the router and has its own mind.
#[inline]
fn is_ours(hop: Option<&NextHop>, tables: &Tables) -> bool {
    hop != Some(&NextHop::Host) && matches!(tables.crossing(), Crossing::Routed { .. })
}

fn look_up_v6<'a, W: Witness>(
    ip: &Ipv6View,
    bytes: &[u8],
    offload: Offload,
    (ingress, tables): (&PortRow, &'a Tables),
    witness: &mut W,
) -> Result<(&'a NextHop, Packet), DropReason> {
    let (address, martian) = (ip.source.into(), ipv6::is_martian_source(ip.source));
    note!(witness, Step::Source { address, martian });
    if martian {
        return Err(DropReason::MartianSource);
    }
    let header = usize::from(ip.header_len) + ip.transport.segment_header_len();
    let whole = ipv6::HEADER_LEN + usize::from(ip.payload_len);
    let packet = Packet {
        hops: ip.hop_limit,
        size: segment_size(offload, header, whole),
        mtu_min: ipv6::MTU_MIN,
        may_fragment: false,
    };
    let (address, hop) = (ip.target.into(), tables.next_hop_v6(ip.target));
    // Nobody routes a link-local address. Where the tables say so it is the host's own: the kernel
    // holds the gateway, and asks for neighbours, and is answered, by its link-local address. The
    // uplink is another link.
    let on_link = hop == Some(&NextHop::Host)
        && ip.target.is_unicast_link_local()
        && ingress.role != PortRole::Uplink;
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
    let hop = hop.map(|hop| one_of(hop, || Flow::of_v6(ip), tables, witness));
    if is_ours(hop, tables) {
        check_ours_v6(ip, bytes)?;
    }
    Ok((hop.ok_or(DropReason::NoRoute)?, packet))
}

/// What only the router itself refuses: options that ask for it, a source route, and a source that
/// means nothing on another link.
#[inline]
fn check_ours_v6(ip: &Ipv6View, bytes: &[u8]) -> Result<(), DropReason> {
    if ip.next_header == ipv6::HOP_BY_HOP {
        options::check_hop_by_hop(bytes).map_err(|fault| fault.reason)?;
    }
    if ip.source_routed {
        return Err(DropReason::SourceRouted);
    }
    if ip.source.is_unicast_link_local() {
        return Err(DropReason::BeyondScope);
    }
    Ok(())
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
        NextHop::Unreachable => Verdict::Drop(no_such_pod(packet, tables, witness)),
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

/// Nobody has the address, but the way to it ends here: a router that looks for its hosts on the
/// link, as the kernel does, would first take its hop.
fn no_such_pod<W: Witness>(packet: Packet, tables: &Tables, witness: &mut W) -> DropReason {
    if let Crossing::Routed { .. } = tables.crossing()
        && packet.hops <= 1
    {
        note!(witness, Step::Hops { left: packet.hops });
        return DropReason::TtlExpired;
    }
    DropReason::NoSuchPod
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
        Verdict::Forward { egress, .. } | Verdict::Fragment { egress, .. } if known.is_none() => {
            resolve(next_hop, egress)
        }
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
        Crossing::Routed { .. } => one_hop_on(packet, egress, mac, tables, witness),
    }
}

/// As a router: one hop less, and no more than the egress port takes.
#[inline]
fn one_hop_on<W: Witness>(
    packet: Packet,
    egress: &PortRow,
    mac: Option<Mac>,
    tables: &Tables,
    witness: &mut W,
) -> Verdict {
    note!(witness, Step::Hops { left: packet.hops });
    if packet.hops <= 1 {
        return Verdict::Drop(DropReason::TtlExpired);
    }
    let (bytes, mtu) = (packet.size, egress.mtu.max(packet.mtu_min));
    note!(witness, Step::Size { bytes, mtu });
    let fits = bytes <= usize::from(mtu);
    if !fits && !packet.may_fragment {
        return Verdict::Drop(DropReason::TooBig);
    }
    let rewrite = Rewrite {
        target: mac,
        source: Some(router_mac(egress, tables)),
        hop: true,
    };
    let egress = egress.id;
    if fits {
        Verdict::Forward { egress, rewrite }
    } else {
        Verdict::Fragment { egress, rewrite }
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
pub(super) fn to_host<W: Witness>(ingress: &PortRow, tables: &Tables, witness: &mut W) -> Verdict {
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
