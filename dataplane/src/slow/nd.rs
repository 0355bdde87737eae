//! Neighbour discovery: answers for those whom the switch knows, questions in the node's own name,
//! and announcements.
//!
//! In: who asks, and who holds the address. Out: the bytes of one frame, and their number.
//! Never: decides who is answered (RFC 4861 4.3 and 4.4).

use std::net::Ipv6Addr;

use etherparse::PacketBuilder;

use super::{Speaker, finish};
use crate::addr::Mac;
use crate::frame::nd::{
    ADVERTISEMENT, ALL_NODES, NdView, OVERRIDE, ROUTER, SOLICITATION, SOLICITED, SOURCE_ADDRESS,
    TARGET_ADDRESS, group_mac, solicited_node,
};
use crate::tables::neighbour::Question;

/// The hop limit of neighbour discovery (RFC 4861 4.3).
const HOP_LIMIT: u8 = 255;

/// Bytes of what this module writes: Ethernet, IPv6, a message with one option.
#[cfg(test)]
pub(crate) const LEN: usize = 14 + 40 + 24 + 8;

/// Who holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The address.
    pub(crate) address: Ipv6Addr,
    /// The hardware address to tell.
    pub(crate) mac: Mac,
    /// It forwards packets.
    pub(crate) router: bool,
}

/// Writes the answer to `question` from the station `asker` into `room`. Who asks without an
/// address is told by way of all nodes (RFC 4861 7.2.4), though nobody else need hear it.
pub(crate) fn answer(
    room: &mut [u8],
    question: &NdView,
    asker: Mac,
    holder: Holder,
) -> Option<usize> {
    match question.is_probe() {
        true => advertisement(room, asker, ALL_NODES, OVERRIDE, holder),
        false => advertisement(room, asker, question.source, SOLICITED | OVERRIDE, holder),
    }
}

/// Writes an advertisement that nobody asked for into `room`, for all nodes or, as a defence, for
/// the station `only` (RFC 4861 7.2.6).
pub(crate) fn announcement(room: &mut [u8], only: Option<Mac>, holder: Holder) -> Option<usize> {
    let to = only.unwrap_or(group_mac(ALL_NODES));
    advertisement(room, to, ALL_NODES, OVERRIDE, holder)
}

fn advertisement(
    room: &mut [u8],
    station: Mac,
    to: Ipv6Addr,
    flags: u8,
    holder: Holder,
) -> Option<usize> {
    let flags = if holder.router { flags | ROUTER } else { flags };
    let builder = PacketBuilder::ethernet2(holder.mac.octets(), station.octets())
        .ipv6(holder.address.octets(), to.octets(), HOP_LIMIT)
        .icmpv6_raw(ADVERTISEMENT, 0, [flags, 0, 0, 0]);
    let message = message(holder.address, TARGET_ADDRESS, holder.mac);
    finish(room, builder.size(message.len()), |out| {
        builder.write(out, &message).is_ok()
    })
}

/// Writes a question for `target` into `room`: to the address it last had, or else to its
/// solicited-node group (RFC 4861 7.2.2, 7.3.3). Nothing if the asker has no IPv6 address.
pub(crate) fn question(
    room: &mut [u8],
    question: &Question,
    target: Ipv6Addr,
    asker: Speaker,
) -> Option<usize> {
    let group = solicited_node(target);
    let (station, to) = match question.last_known {
        Some(mac) => (mac, target),
        None => (group_mac(group), group),
    };
    let source = asker.addresses.v6?;
    let builder = PacketBuilder::ethernet2(asker.mac.octets(), station.octets())
        .ipv6(source.octets(), to.octets(), HOP_LIMIT)
        .icmpv6_raw(SOLICITATION, 0, [0; 4]);
    let message = message(target, SOURCE_ADDRESS, asker.mac);
    finish(room, builder.size(message.len()), |out| {
        builder.write(out, &message).is_ok()
    })
}

/// The target, and an option of one unit of 8 bytes.
fn message(target: Ipv6Addr, option: u8, mac: Mac) -> [u8; 24] {
    let mut message = [0; 24];
    message[..16].copy_from_slice(&target.octets());
    message[16..18].copy_from_slice(&[option, 1]);
    message[18..].copy_from_slice(&mac.octets());
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{PortId, Station};
    use crate::frame::FrameView;
    use crate::frame::nd::Message;
    use crate::tables::Addresses;

    const NIC: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
    const POD: Mac = Mac::new([2, 0, 0, 0, 0, 6]);
    const OWN: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 4);
    const HOP: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0xab, 0xcdef);

    fn read(room: &[u8], len: Option<usize>) -> (Mac, NdView) {
        let bytes = &room[..len.expect("written")];
        assert_eq!(bytes.len(), LEN);
        etherparse::PacketHeaders::from_ethernet_slice(bytes).expect("etherparse reads it");
        let view = FrameView::parse(bytes).expect("a frame");
        assert!(view.claims_discovery());
        (view.target, view.discovery(false).expect("sound"))
    }

    #[test]
    fn questions_go_to_the_group_or_to_the_last_known_address() {
        let asker = Speaker {
            mac: NIC,
            addresses: Addresses {
                v4: None,
                v6: Some(OWN),
            },
        };
        let mut asked = Question {
            address: HOP.into(),
            egress: PortId::new(1).expect("in range"),
            last_known: None,
        };
        let mut room = [0; 128];
        let len = question(&mut room, &asked, HOP, asker);
        let (station, view) = read(&room, len);
        assert_eq!(station, Mac::new([0x33, 0x33, 0xff, 0xab, 0xcd, 0xef]));
        assert_eq!((view.source, view.to), (OWN, solicited_node(HOP)));
        assert_eq!((view.target, view.message), (HOP, Message::Solicitation));
        asked.last_known = Some(POD);
        let len = question(&mut room, &asked, HOP, asker);
        let (station, view) = read(&room, len);
        assert_eq!((station, view.to), (POD, HOP));
        let nameless = Speaker {
            addresses: Addresses::default(),
            ..asker
        };
        assert_eq!(question(&mut room, &asked, HOP, nameless), None);
    }

    #[test]
    fn a_probe_is_answered_to_all_nodes_and_a_question_to_its_asker() {
        let holder = Holder {
            address: HOP,
            mac: NIC,
            router: true,
        };
        let mut ask = NdView {
            source: OWN,
            to: solicited_node(HOP),
            target: HOP,
            message: Message::Solicitation,
        };
        let told = |solicited| Message::Advertisement {
            mac: Some(Station::new(NIC).expect("a station")),
            router: true,
            solicited,
            overrides: true,
        };
        let mut room = [0; 128];
        let len = answer(&mut room, &ask, POD, holder);
        let (station, view) = read(&room, len);
        assert_eq!((station, view.to, view.message), (POD, OWN, told(true)));
        ask.source = Ipv6Addr::UNSPECIFIED;
        let len = answer(&mut room, &ask, POD, holder);
        let (station, view) = read(&room, len);
        assert_eq!(
            (station, view.to, view.message),
            (POD, ALL_NODES, told(false))
        );
    }
}
