//! ARP: answers for those whom the switch knows, and questions in the node's own name.
//!
//! In: a question, and who holds or asks. Out: the bytes of one frame, and their number.
//! Never: decides who is answered (RFC 826, RFC 1027).

use std::net::Ipv4Addr;

use super::Speaker;
use crate::addr::Mac;
use crate::frame::arp::{self, ArpView, Operation};
use crate::frame::ethernet::{self, HEADER_LEN};
use crate::tables::neighbour::Question;

/// Writes the answer to `question` into `room`: `mac` holds the address asked for. Returns its
/// length.
pub(crate) fn answer(room: &mut [u8], question: &ArpView, mac: Mac) -> usize {
    let reply = ArpView {
        operation: Operation::Reply,
        sender_mac: mac,
        sender: question.target,
        target_mac: question.sender_mac,
        target: question.sender,
    };
    write(room, question.sender_mac, &reply)
}

/// Writes a question for a neighbour into `room`, to the address it last had if any (RFC 1122
/// 2.3.2.1). Returns its length, or nothing if the asker has no address of that family.
pub(crate) fn question(
    room: &mut [u8],
    question: &Question,
    target: Ipv4Addr,
    asker: Speaker,
) -> Option<usize> {
    let packet = ArpView {
        operation: Operation::Request,
        sender_mac: asker.mac,
        sender: asker.addresses.v4?,
        target_mac: Mac::ZERO,
        target,
    };
    let to = question.last_known.unwrap_or(Mac::BROADCAST);
    Some(write(room, to, &packet))
}

/// Writes an announcement into `room` that `mac` holds `address`, for all stations or, as a
/// defence, for the station `only` (RFC 5227 2.4, section 3). Returns its length.
pub(crate) fn announcement(
    room: &mut [u8],
    only: Option<Mac>,
    address: Ipv4Addr,
    mac: Mac,
) -> usize {
    let packet = ArpView {
        operation: Operation::Request,
        sender_mac: mac,
        sender: address,
        target_mac: Mac::ZERO,
        target: address,
    };
    write(room, only.unwrap_or(Mac::BROADCAST), &packet)
}

fn write(room: &mut [u8], target: Mac, packet: &ArpView) -> usize {
    ethernet::set_target(room, target);
    ethernet::set_source(room, packet.sender_mac);
    room[12..HEADER_LEN].copy_from_slice(&ethernet::ARP.to_be_bytes());
    packet.write(&mut room[HEADER_LEN..]);
    HEADER_LEN + arp::LEN
}
