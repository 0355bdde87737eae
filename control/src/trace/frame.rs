//! A frame in short, and what changed in it.
//!
//! In: bytes. Out: a [`FrameRow`], or the [`Edit`]s between two of them.
//! Never: a guess at what the bytes do not say.

use std::net::IpAddr;

use dataplane::addr::Mac;
use dataplane::frame::arp::Operation;
use dataplane::frame::nd::Message;
use dataplane::frame::transport::Transport;
use dataplane::frame::{FrameView, Kind, Network};

use super::pass::Carried;
use super::report::{Edit, FrameRow};

/// What the switch can read of a frame.
#[must_use]
pub fn row(frame: &Carried) -> FrameRow {
    let segment = frame.offload.is_super_frame();
    let mut row = FrameRow {
        bytes: frame.bytes.len(),
        segment_bytes: segment.then_some(frame.offload.gso_size),
        ..FrameRow::default()
    };
    let [target, source] = [0, 6].map(|at| mac_at(&frame.bytes, at));
    (row.target_mac, row.source_mac) = (target, source);
    row.kind = "no Ethernet frame".to_owned();
    let Ok(view) = FrameView::parse(&frame.bytes) else {
        return row;
    };
    row.kind = match view.network() {
        Network::Arp(packet) => {
            row.source_ip = Some(packet.sender.into());
            row.target_ip = Some(packet.target.into());
            match packet.operation {
                Operation::Request => "arp request".to_owned(),
                Operation::Reply => "arp reply".to_owned(),
            }
        }
        Network::Ipv4(ip) => {
            address(&mut row, ip.source, ip.target, ip.ttl);
            let fragment = ip.more_fragments || ip.fragment_offset > 0;
            transport(ip.transport, ip.protocol, fragment)
        }
        Network::Ipv6(ip) => {
            address(&mut row, ip.source, ip.target, ip.hop_limit);
            match view.claims_discovery().then(|| view.discovery(true)) {
                Some(Ok(nd)) if nd.message == Message::Solicitation => "nd solicitation".to_owned(),
                Some(Ok(_)) => "nd advertisement".to_owned(),
                Some(Err(reason)) => reason.label().replace('_', " "),
                None => transport(ip.transport, ip.next_header, ip.next_header == 44),
            }
        }
        Network::Malformed(reason) => reason.label().replace('_', " "),
        Network::Opaque => match view.kind {
            Kind::Tagged => "behind an 802.1Q tag".to_owned(),
            Kind::Other => "neither ARP nor IP".to_owned(),
            _ => "not read".to_owned(),
        },
    };
    row
}

fn mac_at(bytes: &[u8], at: usize) -> String {
    let octets = bytes
        .get(at..at + 6)
        .and_then(|octets| octets.try_into().ok());
    octets.map_or_else(
        || "-".to_owned(),
        |octets: [u8; 6]| Mac::new(octets).to_string(),
    )
}

fn address(row: &mut FrameRow, source: impl Into<IpAddr>, target: impl Into<IpAddr>, ttl: u8) {
    row.source_ip = Some(source.into());
    row.target_ip = Some(target.into());
    row.ttl = Some(ttl);
}

fn transport(transport: Transport, protocol: u8, fragment: bool) -> String {
    let name = match transport {
        Transport::Tcp { target, .. } => format!("tcp {target}"),
        Transport::Udp { target, .. } => format!("udp {target}"),
        Transport::Icmp { kind, code } => icmp(kind, code),
        Transport::Unknown => format!("protocol {protocol}"),
    };
    if fragment {
        name + ", a fragment"
    } else {
        name
    }
}

fn icmp(kind: u8, code: u8) -> String {
    match kind {
        8 | 128 => "icmp echo request".to_owned(),
        0 | 129 => "icmp echo reply".to_owned(),
        _ => format!("icmp type {kind} code {code}"),
    }
}

/// What differs between a frame before and after.
#[must_use]
pub fn edits(before: &Carried, after: &Carried) -> Vec<Edit> {
    let (before, after) = (row(before), row(after));
    let ttl = |row: &FrameRow| row.ttl.map_or_else(String::new, |ttl| ttl.to_string());
    let fields = [
        (
            "source_mac",
            before.source_mac.clone(),
            after.source_mac.clone(),
        ),
        (
            "target_mac",
            before.target_mac.clone(),
            after.target_mac.clone(),
        ),
        ("ttl", ttl(&before), ttl(&after)),
    ];
    let changed = fields.into_iter().filter(|(_, from, to)| from != to);
    changed
        .map(|(field, from, to)| Edit { field, from, to })
        .collect()
}
