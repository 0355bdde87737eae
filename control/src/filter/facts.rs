//! What a filter asks a frame for.
//!
//! In: a frame's bytes, perhaps cut short. Out: [`Facts`]. Pure.
//! Never: a port of a fragment other than the first, which has none.

use std::net::IpAddr;

use dataplane::addr::Mac;
use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket, TransportSlice};

use super::Protocol;

/// The ends of a frame, and what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Source and target MAC.
    pub(super) stations: (Mac, Mac),
    network: Option<Protocol>,
    transport: Option<Protocol>,
    /// Source and target address; of ARP, the sender's and the one asked for or told.
    pub(super) addresses: Option<(IpAddr, IpAddr)>,
    /// Source and target port.
    pub(super) ports: Option<(u16, u16)>,
}

impl Facts {
    /// Of these bytes, if they hold an Ethernet header.
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<Facts> {
        let target = Mac::new(*frame.first_chunk()?);
        let source = Mac::new(*frame.get(6..)?.first_chunk()?);
        let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
        let (network, addresses, carries) = match &packet.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let header = ip.header();
                let ends = (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                );
                (Some(Protocol::Ip), Some(ends), Some(ip.payload().ip_number))
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                let header = ip.header();
                let ends = (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                );
                (
                    Some(Protocol::Ip6),
                    Some(ends),
                    Some(ip.payload().ip_number),
                )
            }
            Some(LaxNetSlice::Arp(arp)) => {
                let ends = protocol_address(arp.sender_protocol_addr())
                    .zip(protocol_address(arp.target_protocol_addr()));
                (Some(Protocol::Arp), ends, None)
            }
            None => (None, None, None),
        };
        let transport = carries.and_then(|number| match number {
            IpNumber::TCP => Some(Protocol::Tcp),
            IpNumber::UDP => Some(Protocol::Udp),
            IpNumber::ICMP => Some(Protocol::Icmp),
            IpNumber::IPV6_ICMP => Some(Protocol::Icmp6),
            _ => None,
        });
        let ports = match &packet.transport {
            Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
            Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
            _ => None,
        };
        Some(Facts {
            stations: (source, target),
            network,
            transport,
            addresses,
            ports,
        })
    }

    pub(super) fn is(&self, protocol: Protocol) -> bool {
        self.network == Some(protocol) || self.transport == Some(protocol)
    }
}

/// Of ARP between IPv4 addresses.
fn protocol_address(bytes: &[u8]) -> Option<IpAddr> {
    let bytes: [u8; 4] = bytes.try_into().ok()?;
    Some(bytes.into())
}
