//! ICMP errors of both families: is one due, to whom, and its bytes.
//!
//! In: a frame as it came, and why it died. Out: a [`Due`], and what it is on the wire.
//! Never: decides how many are sent: that is [`super::limit`].

use std::net::IpAddr;

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{Icmpv4Type, Icmpv6Type};

use super::limit::Use;
use super::{Speaker, icmp, icmpv6};
use crate::addr::Mac;
use crate::frame::ipv4::Ipv4View;
use crate::frame::ipv6::Ipv6View;
use crate::frame::{FrameView, Network};
use crate::verdict::DropReason;

/// An ICMP error that is due to the sender of a packet.
#[derive(Clone, Debug)]
pub(crate) enum Due {
    /// By ICMP.
    V4(Icmpv4Type, Ipv4View),
    /// By ICMPv6.
    V6(Icmpv6Type, Ipv6View),
}

impl Due {
    /// The error that the death of `frame` calls for, if any. `mtu` tells that of the port which
    /// it is too big for.
    pub(crate) fn of(
        reason: DropReason,
        frame: &FrameView<'_>,
        mtu: impl FnOnce() -> Option<u16>,
    ) -> Option<Due> {
        // A packet that reached many stations would be answered by all their routers.
        if frame.target.is_group() {
            return None;
        }
        let mtu = match reason {
            DropReason::TooBig => mtu(),
            _ => None,
        };
        match frame.network() {
            Network::Ipv4(packet) => {
                icmp::due(reason, &packet, frame.payload(), mtu).map(|kind| Due::V4(kind, packet))
            }
            Network::Ipv6(packet) => {
                icmpv6::due(reason, &packet, frame.payload(), mtu).map(|kind| Due::V6(kind, packet))
            }
            _ => None,
        }
    }

    /// To whom.
    pub(crate) fn host(&self) -> IpAddr {
        match self {
            Due::V4(_, packet) => packet.source.into(),
            Due::V6(_, packet) => packet.source.into(),
        }
    }

    /// What the sender needs it for.
    pub(crate) fn needed(&self) -> Use {
        match self {
            Due::V4(
                Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                    ..
                }),
                _,
            )
            | Due::V6(Icmpv6Type::PacketTooBig { .. }, _) => Use::PathMtu,
            _ => Use::Other,
        }
    }

    /// Writes it into `room`, from `speaker` to the station `sender`. `quoted` is the packet as it
    /// came, from its IP header on; `identification` is for the error's own header. Returns its
    /// length, or nothing if the speaker has no address of the packet's family.
    pub(crate) fn write(
        &self,
        room: &mut [u8],
        quoted: &[u8],
        sender: Mac,
        speaker: Speaker,
        identification: u16,
    ) -> Option<usize> {
        match self {
            Due::V4(kind, packet) => icmp::write(
                room,
                kind.clone(),
                (packet, quoted),
                sender,
                speaker,
                identification,
            ),
            Due::V6(kind, packet) => icmpv6::write(room, *kind, (packet, quoted), sender, speaker),
        }
    }
}
