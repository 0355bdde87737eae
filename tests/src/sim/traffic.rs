//! Frames that say who sent them to whom, so that whoever gets one can tell whether it is his.
//!
//! In: a flow and a number. Out: a UDP datagram in an Ethernet frame, and back.
//! Never: a frame that has to be cut: pieces would not say it all.

use std::net::IpAddr;

use dataplane::addr::Mac;
use dataplane::frame::transport::Transport;
use dataplane::frame::{FrameView, Network};
use etherparse::PacketBuilder;

use crate::oracle::checksum;

/// What the payload begins with.
const MARK: &[u8; 4] = b"TAPL";
const PORT: u16 = 4789 + 1;

/// What a payload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    /// Which flow.
    pub(super) flow: u32,
    /// Which frame of it, from 0.
    pub(super) number: u32,
    /// To which station it was sent at first.
    pub(super) sent_to: Mac,
}

/// A frame of a flow.
pub(super) fn frame(tag: Tag, source: Mac, from: IpAddr, to: IpAddr, len: usize) -> Vec<u8> {
    let mut payload = MARK.to_vec();
    payload.extend(tag.flow.to_be_bytes());
    payload.extend(tag.number.to_be_bytes());
    payload.extend(tag.sent_to.octets());
    payload.resize(payload.len() + len, 0x5a);
    let ethernet = PacketBuilder::ethernet2(source.octets(), tag.sent_to.octets());
    let packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => unreachable!("a flow is of one family"),
    };
    let builder = packet.udp(PORT, PORT);
    let mut bytes = Vec::with_capacity(builder.size(payload.len()));
    builder
        .write(&mut bytes, &payload)
        .expect("a vector takes every write, and the payload is short");
    bytes
}

/// What the frame says, if it is one of ours.
pub(super) fn read(bytes: &[u8]) -> Option<Tag> {
    let view = FrameView::parse(bytes).ok()?;
    let (at, transport) = match view.network() {
        Network::Ipv4(ip) => (usize::from(ip.header_len), ip.transport),
        Network::Ipv6(ip) => (usize::from(ip.header_len), ip.transport),
        _ => return None,
    };
    let Transport::Udp { target: PORT, .. } = transport else {
        return None;
    };
    let payload = view.payload().get(at + 8..)?;
    let (said, _) = payload.split_first_chunk::<18>()?;
    let [a, b, c, d, f0, f1, f2, f3, n0, n1, n2, n3, mac @ ..] = *said;
    ([a, b, c, d] == *MARK).then_some(Tag {
        flow: u32::from_be_bytes([f0, f1, f2, f3]),
        number: u32::from_be_bytes([n0, n1, n2, n3]),
        sent_to: Mac::new(mac),
    })
}

/// The target address of an IP packet, in a frame of any kind.
pub(super) fn target(bytes: &[u8]) -> Option<IpAddr> {
    match FrameView::parse(bytes).ok()?.network() {
        Network::Ipv4(ip) => Some(ip.target.into()),
        Network::Ipv6(ip) => Some(ip.target.into()),
        _ => None,
    }
}

/// Takes a hop off, as the kernel does; false if none was left.
pub(super) fn hop(bytes: &mut [u8]) -> bool {
    let v4 = bytes[12..14] == [0x08, 0x00];
    let at = if v4 { 22 } else { 21 };
    if bytes[at] < 2 {
        return false;
    }
    bytes[at] -= 1;
    if v4 {
        bytes[24..26].fill(0);
        let sum = checksum(&bytes[14..34]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    true
}

/// Gives the frame other stations.
pub(super) fn address(bytes: &mut [u8], target: Mac, source: Mac) {
    bytes[..6].copy_from_slice(&target.octets());
    bytes[6..12].copy_from_slice(&source.octets());
}

/// Asks for the hardware address of `target` (RFC 826).
pub(super) fn question(source: Mac, sender: IpAddr, target: IpAddr) -> Option<Vec<u8>> {
    let (IpAddr::V4(sender), IpAddr::V4(target)) = (sender, target) else {
        return None;
    };
    let mut frame = vec![0xff; 6];
    frame.extend(source.octets());
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(source.octets());
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    Some(frame)
}
