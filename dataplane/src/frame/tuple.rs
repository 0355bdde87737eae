//! Which conversation a packet belongs to, and which one it answers: the five words of connection
//! tracking.
//!
//! In: a frame's view. Out: [`Said`]: its own [`Tuple`], and the tuple of what it answers.
//! Never: trusts a length that a packet quotes, or decides anything.
//!
//! A packet answers its own tuple turned around; an ICMP error answers the packet that it quotes
//! (RFC 792, RFC 4443 3). An ICMP question has its identifier in the place of both ports, as has
//! its answer. Of fragments only the first has ports, so all fragments of a datagram answer the
//! tuple without ports: who decides by it treats them alike.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::transport::{ICMP, ICMPV6, TCP, UDP};
use super::{FrameView, Network, ipv6};

/// Protocols whose header begins with two ports as UDP's does: DCCP, SCTP, UDP-Lite.
const DCCP: u8 = 33;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// Bytes of an ICMP header, before what an error quotes.
const ICMP_HEADER: usize = 8;

/// Bits of a TCP header's 14th byte.
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The ports of a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ports {
    /// Source and target; zeroes where the protocol has none, an ICMP identifier twice.
    Known(u16, u16),
    /// Those of a fragment are not told.
    Hidden,
}

/// Who speaks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Source address.
    pub source: IpAddr,
    /// Target address.
    pub target: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The ports.
    pub ports: Ports,
}

impl Tuple {
    /// The tuple of the other direction.
    #[inline]
    #[must_use]
    pub const fn reversed(self) -> Tuple {
        Tuple {
            source: self.target,
            target: self.source,
            protocol: self.protocol,
            ports: match self.ports {
                Ports::Known(source, target) => Ports::Known(target, source),
                Ports::Hidden => Ports::Hidden,
            },
        }
    }

    /// The same without ports, as a fragment has it.
    #[inline]
    #[must_use]
    pub const fn without_ports(self) -> Tuple {
        Tuple {
            ports: Ports::Hidden,
            ..self
        }
    }
}

/// How far a conversation has come, as far as one packet tells. Of TCP what its flags say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A SYN without an answer.
    Opening,
    /// TCP that goes on.
    Open,
    /// A FIN or a reset.
    Closing,
    /// UDP and ICMP, which say nothing of their end.
    Datagram,
    /// Any other protocol.
    Other,
}

/// What a packet says of conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its own conversation; an ICMP error has none.
    pub own: Option<Tuple>,
    /// The one that it answers.
    pub answers: Tuple,
    /// How far its own has come.
    pub stage: Stage,
}

impl Said {
    /// What the packet in `view` says; none if it is no sound IP packet.
    #[must_use]
    pub fn of(view: &FrameView<'_>) -> Option<Said> {
        let (packet, layer4) = match view.network() {
            Network::Ipv4(ip) => {
                let fragment = ip.more_fragments || ip.fragment_offset > 0;
                let first = (ip.fragment_offset == 0).then_some(usize::from(ip.header_len));
                let addresses = (IpAddr::V4(ip.source), IpAddr::V4(ip.target));
                let end = usize::from(ip.total_len);
                (Packet::new(addresses, ip.protocol, fragment), (first, end))
            }
            Network::Ipv6(ip) => {
                let first = (ip.fragment_offset == 0).then_some(usize::from(ip.header_len));
                let addresses = (IpAddr::V6(ip.source), IpAddr::V6(ip.target));
                let end = ipv6::HEADER_LEN + usize::from(ip.payload_len);
                let packet = Packet::new(addresses, ip.protocol, ip.is_fragment);
                (packet, (first, end))
            }
            _ => return None,
        };
        let (first, end) = layer4;
        let bytes = match first {
            Some(start) => view.payload().get(start..end).unwrap_or_default(),
            None => return Some(packet.said(Ports::Hidden, Stage::Datagram)),
        };
        match quoted(packet.protocol, bytes) {
            Some(answers) => Some(Said {
                own: None,
                answers: answers?,
                stage: Stage::Other,
            }),
            None => {
                let (ports, stage) = ports(packet.protocol, bytes);
                Some(packet.said(ports, stage))
            }
        }
    }
}

/// A packet's addresses and protocol.
struct Packet {
    source: IpAddr,
    target: IpAddr,
    protocol: u8,
    fragment: bool,
}

impl Packet {
    const fn new((source, target): (IpAddr, IpAddr), protocol: u8, fragment: bool) -> Packet {
        Packet {
            source,
            target,
            protocol,
            fragment,
        }
    }

    fn said(&self, ports: Ports, stage: Stage) -> Said {
        let own = Tuple {
            source: self.source,
            target: self.target,
            protocol: self.protocol,
            ports,
        };
        let answers = own.reversed();
        Said {
            own: Some(own),
            answers: match self.fragment {
                true => answers.without_ports(),
                false => answers,
            },
            stage,
        }
    }
}

/// The ports at the start of a transport header, and what it says of the conversation. A header cut
/// short has none.
fn ports(protocol: u8, bytes: &[u8]) -> (Ports, Stage) {
    let pair = |at: usize| {
        let &[a, b] = bytes.get(at..at + 2)?.first_chunk()?;
        Some(u16::from_be_bytes([a, b]))
    };
    let both = || Ports::Known(pair(0).unwrap_or(0), pair(2).unwrap_or(0));
    match protocol {
        TCP => (both(), tcp_stage(bytes.get(13).copied().unwrap_or(ACK))),
        UDP | UDP_LITE => (both(), Stage::Datagram),
        DCCP | SCTP => (both(), Stage::Other),
        ICMP | ICMPV6 if is_query(protocol, bytes) => {
            let identifier = pair(4).unwrap_or(0);
            (Ports::Known(identifier, identifier), Stage::Datagram)
        }
        ICMP | ICMPV6 => (Ports::Known(0, 0), Stage::Datagram),
        _ => (Ports::Known(0, 0), Stage::Other),
    }
}

const fn tcp_stage(flags: u8) -> Stage {
    if flags & (FIN | RST) != 0 {
        Stage::Closing
    } else if flags & (SYN | ACK) == SYN {
        Stage::Opening
    } else {
        Stage::Open
    }
}

/// True for an ICMP message with an identifier: echo, timestamp, information, address mask.
fn is_query(protocol: u8, bytes: &[u8]) -> bool {
    let kind = bytes.first().copied();
    match protocol {
        ICMP => matches!(kind, Some(0 | 8 | 13..=18)),
        _ => matches!(kind, Some(128 | 129)),
    }
}

/// If this is an ICMP error: the tuple of the packet that it quotes, or none if it is too little
/// of one.
#[allow(
    clippy::option_option,
    reason = "no error, and an error about nothing, are two answers"
)]
fn quoted(protocol: u8, bytes: &[u8]) -> Option<Option<Tuple>> {
    let kind = *bytes.first()?;
    match (protocol, kind) {
        (ICMP, 3 | 4 | 5 | 11 | 12) => Some(quoted_v4(bytes.get(ICMP_HEADER..)?)),
        (ICMPV6, 1..=4) => Some(quoted_v6(bytes.get(ICMP_HEADER..)?)),
        _ => None,
    }
}

fn quoted_v4(packet: &[u8]) -> Option<Tuple> {
    let fixed: &[u8; 20] = packet.first_chunk()?;
    let header_len = usize::from(fixed[0] & 0xf) * 4;
    let past_the_first = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x1fff > 0;
    let address =
        |at: usize| Ipv4Addr::new(fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]).into();
    let protocol = fixed[9];
    let sound = fixed[0] >> 4 == 4 && header_len >= 20;
    sound.then(|| Tuple {
        source: address(12),
        target: address(16),
        protocol,
        ports: match past_the_first {
            true => Ports::Hidden,
            false => ports(protocol, packet.get(header_len..).unwrap_or_default()).0,
        },
    })
}

/// Extension headers are not walked: what has some is not translated by anybody.
fn quoted_v6(packet: &[u8]) -> Option<Tuple> {
    let (fixed, rest) = packet.split_first_chunk::<{ ipv6::HEADER_LEN }>()?;
    let address = |at: usize| {
        let octets: [u8; 16] = *fixed[at..]
            .first_chunk()
            .expect("two addresses end the header");
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let protocol = fixed[6];
    (fixed[0] >> 4 == 6).then(|| Tuple {
        source: address(8),
        target: address(24),
        protocol,
        ports: ports(protocol, rest).0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv4Type, PacketBuilder};
    use proptest::prelude::*;

    const A: [u8; 4] = [10, 244, 1, 6];
    const B: [u8; 4] = [10, 244, 1, 7];

    fn said(frame: &[u8]) -> Option<Said> {
        Said::of(&FrameView::parse(frame).expect("a whole Ethernet header"))
    }

    fn tuple(source: [u8; 4], target: [u8; 4], protocol: u8, ports: (u16, u16)) -> Tuple {
        Tuple {
            source: source.into(),
            target: target.into(),
            protocol,
            ports: Ports::Known(ports.0, ports.1),
        }
    }

    fn ethernet() -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
    }

    fn written(
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), etherparse::err::packet::BuildWriteError>,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes).expect("a vector takes every write");
        bytes
    }

    #[test]
    fn a_packet_answers_its_own_tuple_turned_around() {
        let flags = |syn, ack, fin, rst| {
            let mut builder = ethernet().ipv4(A, B, 64).tcp(5000, 80, 1, 100);
            for (set, flag) in [(syn, 's'), (ack, 'a'), (fin, 'f'), (rst, 'r')] {
                builder = match flag {
                    's' if set => builder.syn(),
                    'a' if set => builder.ack(1),
                    'f' if set => builder.fin(),
                    'r' if set => builder.rst(),
                    _ => builder,
                };
            }
            said(&written(|bytes| builder.write(bytes, &[]))).expect("a packet")
        };
        let own = tuple(A, B, TCP, (5000, 80));
        for (given, stage) in [
            (flags(true, false, false, false), Stage::Opening),
            (flags(true, true, false, false), Stage::Open),
            (flags(false, true, false, false), Stage::Open),
            (flags(false, true, true, false), Stage::Closing),
            (flags(false, false, false, true), Stage::Closing),
        ] {
            let answers = tuple(B, A, TCP, (80, 5000));
            let wanted = Said {
                own: Some(own),
                answers,
                stage,
            };
            assert_eq!(given, wanted);
        }
    }

    #[test]
    fn question_and_answer_of_icmp_have_one_identifier() {
        let echo = |from, to, reply: bool| {
            let step = ethernet().ipv4(from, to, 64);
            let step = match reply {
                true => step.icmpv4_echo_reply(77, 3),
                false => step.icmpv4_echo_request(77, 3),
            };
            said(&written(|bytes| step.write(bytes, &[1; 8]))).expect("a packet")
        };
        let (question, answer) = (echo(A, B, false), echo(B, A, true));
        assert_eq!(question.own, Some(tuple(A, B, ICMP, (77, 77))));
        assert_eq!(Some(answer.answers), question.own);
    }

    #[test]
    fn an_error_answers_the_packet_that_it_quotes() {
        let quoted = written(|bytes| {
            PacketBuilder::ipv4(A, B, 9)
                .udp(5000, 53)
                .write(bytes, &[0; 40])
        });
        let error =
            Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Port);
        let builder = ethernet().ipv4([10, 20, 0, 9], A, 64).icmpv4(error);
        let frame = written(|bytes| builder.write(bytes, &quoted[..28]));
        let wanted = Said {
            own: None,
            answers: tuple(A, B, UDP, (5000, 53)),
            stage: Stage::Other,
        };
        assert_eq!(said(&frame), Some(wanted));
        let builder = || {
            let error =
                Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Port);
            ethernet().ipv4([10, 20, 0, 9], A, 64).icmpv4(error)
        };
        let cut = written(|bytes| builder().write(bytes, &quoted[..19]));
        assert_eq!(said(&cut), None, "too little is quoted");
    }

    #[test]
    fn all_fragments_of_a_datagram_answer_the_same() {
        let whole = written(|bytes| {
            ethernet()
                .ipv4(A, B, 64)
                .udp(5000, 53)
                .write(bytes, &[0; 32])
        });
        let fragment = |word: u16| {
            let mut frame = whole.clone();
            frame[20..22].copy_from_slice(&word.to_be_bytes());
            frame[24..26].fill(0);
            let sum = crate::frame::checksum::header_sum(
                frame[14..34].first_chunk().expect("twenty bytes"),
            );
            frame[24..26].copy_from_slice(&(!sum).to_be_bytes());
            said(&frame).expect("a packet")
        };
        let (first, second) = (fragment(0x2000), fragment(0x0002));
        let bare = tuple(B, A, UDP, (0, 0)).without_ports();
        assert_eq!((first.answers, second.answers), (bare, bare));
        assert_eq!(first.own, Some(tuple(A, B, UDP, (5000, 53))));
        assert_eq!(second.own, Some(bare.reversed()));
    }

    proptest! {
        #[test]
        fn any_ip_like_bytes_say_something_or_nothing(
            v4 in any::<bool>(),
            protocol in prop::sample::select(vec![ICMP, TCP, UDP, ICMPV6, SCTP, 44, 99]),
            rest in prop::collection::vec(any::<u8>(), 0..160),
        ) {
            let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
            if v4 {
                frame.extend([0x08, 0, 0x45, 0]);
                frame.extend((20 + rest.len() as u16).to_be_bytes());
                frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
                frame.extend([A, B].concat());
                let sum = crate::frame::checksum::header_sum(
                    frame[14..34].first_chunk().expect("twenty bytes"),
                );
                frame[24..26].copy_from_slice(&(!sum).to_be_bytes());
            } else {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((rest.len() as u16).to_be_bytes());
                frame.extend([protocol, 64]);
                frame.extend([7; 32]);
            }
            frame.extend(&rest);
            if let Some(said) = said(&frame)
                && let Some(own) = said.own
                && own.ports != Ports::Hidden
            {
                let answers = said.answers;
                prop_assert!(answers == own.reversed() || answers == own.reversed().without_ports());
            }
        }
    }
}
