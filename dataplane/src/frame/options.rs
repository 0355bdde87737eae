//! Options that a router reads: those of IPv4 (RFC 791 3.1), and IPv6's hop-by-hop options
//! (RFC 8200 4.2 and 4.3).
//!
//! In: a header that has some. Out: nothing, or the [`Fault`] for which the packet is refused.
//! Never: changes an option. Routes and timestamps are not recorded: RFC 1812 5.3.13.5 and
//! 5.3.13.6 allow a router to pass them on as they are, and RFC 7126 advises hosts against them.
//!
//! What is refused, and where the fault is found to lie, is as in the kernel
//! (`__ip_options_compile` of net/ipv4/ip_options.c, `ip6_parse_tlv` of net/ipv6/exthdrs.c), but
//! for hop-by-hop options of nothing but padding, which no RFC forbids. A source route is refused as the kernel does unless told otherwise (`accept_source_route`,
//! RFC 7126 4.3 and 4.4), without a word.

use super::ipv4::HEADER_LEN_MIN;
use super::ipv6;
use crate::verdict::DropReason;

/// End of options (RFC 791).
pub(crate) const END: u8 = 0;
/// No operation (RFC 791).
pub(crate) const NO_OPERATION: u8 = 1;
const RECORD_ROUTE: u8 = 7;
const TIMESTAMP: u8 = 68;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;
const ROUTER_ALERT: u8 = 148;

/// Timestamps with addresses take eight bytes each, others four (RFC 791).
const STAMP_WITH_ADDRESS: u8 = 1;
const STAMP_PRESPECIFIED: u8 = 3;

const PAD_ONE: u8 = 0;
const PAD_MANY: u8 = 1;
const JUMBO: u8 = 0xc2;
const ROUTER_ALERT_V6: u8 = 5;

/// Hop-by-hop options in one packet, padding not counted (`max_hbh_opts_cnt` of the kernel).
const HOP_BY_HOP_MAX: usize = 8;
/// Bytes of padding in a row: enough to align anything to 8 (RFC 4942 2.1.9.5).
const PADDING_MAX: usize = 7;

/// Why a packet with such options is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The reason that is counted.
    pub reason: DropReason,
    /// The byte of the packet that is at fault, where its sender is to be told of it.
    pub pointer: Option<u16>,
}

impl Fault {
    const fn silent(reason: DropReason) -> Fault {
        Fault {
            reason,
            pointer: None,
        }
    }

    const fn malformed_at(pointer: usize) -> Fault {
        Fault {
            reason: DropReason::MalformedOptions,
            pointer: Some(pointer as u16),
        }
    }
}

/// Checks the options of an IPv4 header, all of which is `header`.
///
/// # Errors
/// `MalformedOptions`, `SourceRouted`.
#[cold]
pub fn check_v4(header: &[u8]) -> Result<(), Fault> {
    let (mut at, mut routed) = (HEADER_LEN_MIN, false);
    let mut seen = [false; 256];
    while let Some(&kind) = header.get(at) {
        match kind {
            END => break,
            NO_OPERATION => {
                at += 1;
                continue;
            }
            _ => {}
        }
        let rest = &header[at..];
        let len = usize::from(*rest.get(1).ok_or(Fault::malformed_at(at))?);
        if len < 2 || len > rest.len() {
            return Err(Fault::malformed_at(at));
        }
        let family = if kind == STRICT_SOURCE_ROUTE {
            LOOSE_SOURCE_ROUTE
        } else {
            kind
        };
        let again = std::mem::replace(&mut seen[usize::from(family)], true);
        check_option(&rest[..len], again).map_err(|within| Fault::malformed_at(at + within))?;
        routed |= family == LOOSE_SOURCE_ROUTE;
        at += len;
    }
    if routed {
        return Err(Fault::silent(DropReason::SourceRouted));
    }
    Ok(())
}

/// One option, which came `again` if it is not the first of its kind. The error is the byte of it
/// that is at fault.
fn check_option(option: &[u8], again: bool) -> Result<(), usize> {
    let len = option.len();
    match option[0] {
        LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => match option.get(2) {
            None => Err(1),
            Some(0..4) => Err(2),
            Some(_) if again => Err(0),
            Some(_) => Ok(()),
        },
        RECORD_ROUTE => match option.get(2) {
            _ if again => Err(0),
            None => Err(1),
            Some(0..4) => Err(2),
            Some(&next) if half_a_place(next, 4, len) => Err(2),
            Some(_) => Ok(()),
        },
        TIMESTAMP if again => Err(0),
        TIMESTAMP => check_timestamp(option),
        ROUTER_ALERT if len < 4 => Err(1),
        _ => Ok(()),
    }
}

fn check_timestamp(option: &[u8]) -> Result<(), usize> {
    let &[_, _, next, how, ..] = option else {
        return Err(1);
    };
    let (len, how, overflow) = (option.len(), how & 0xf, how >> 4);
    let stamp = match how {
        STAMP_WITH_ADDRESS | STAMP_PRESPECIFIED => 8,
        _ => 4,
    };
    if next < 5 || half_a_place(next, stamp, len) {
        return Err(2);
    }
    let full = usize::from(next) > len;
    if full && how != STAMP_PRESPECIFIED && overflow == 15 {
        return Err(3);
    }
    Ok(())
}

/// True if the place for the next entry, which counts from 1, begins inside the option and ends
/// outside.
fn half_a_place(next: u8, entry: usize, len: usize) -> bool {
    let next = usize::from(next);
    next <= len && next + entry - 1 > len
}

/// Checks the hop-by-hop options of an IPv6 packet, if it has any. A kind that is not known here is
/// passed over or not as its two highest bits ask (RFC 8200 4.2).
///
/// # Errors
/// `MalformedOptions`, `UnknownOption`.
#[cold]
pub fn check_hop_by_hop(packet: &[u8]) -> Result<(), Fault> {
    const MALFORMED: Fault = Fault::silent(DropReason::MalformedOptions);
    let units = packet.get(ipv6::HEADER_LEN + 1).ok_or(MALFORMED)?;
    let end = ipv6::HEADER_LEN + (usize::from(*units) + 1) * 8;
    let header = packet.get(..end).ok_or(MALFORMED)?;
    let (mut at, mut count, mut padding) = (ipv6::HEADER_LEN + 2, 0, 0);
    while let Some(&kind) = header.get(at) {
        let len = match kind {
            PAD_ONE => 1,
            _ => usize::from(*header.get(at + 1).ok_or(MALFORMED)?) + 2,
        };
        let option = header.get(at..at + len).ok_or(MALFORMED)?;
        if matches!(kind, PAD_ONE | PAD_MANY) {
            padding += len;
            if padding > PADDING_MAX || option.iter().skip(2).any(|byte| *byte != 0) {
                return Err(MALFORMED);
            }
        } else {
            (padding, count) = (0, count + 1);
            if count > HOP_BY_HOP_MAX {
                return Err(MALFORMED);
            }
            check_known(option, at, packet)?;
        }
        at += len;
    }
    Ok(())
}

fn check_known(option: &[u8], at: usize, packet: &[u8]) -> Result<(), Fault> {
    match option[0] {
        ROUTER_ALERT_V6 if option.len() == 4 => Ok(()),
        ROUTER_ALERT_V6 => Err(Fault::silent(DropReason::MalformedOptions)),
        JUMBO => Err(jumbo(option, at, packet)),
        kind => match kind >> 6 {
            0 => Ok(()),
            1 => Err(Fault::silent(DropReason::UnknownOption)),
            // "Unless it went to a group" needs no look: groups are not routed.
            _ => Err(Fault {
                reason: DropReason::UnknownOption,
                pointer: Some(at as u16),
            }),
        },
    }
}

/// No frame holds more than 65,535 bytes of payload, so no jumbogram is right here: RFC 2675
/// section 3.
fn jumbo(option: &[u8], at: usize, packet: &[u8]) -> Fault {
    match *option {
        [_, _, a, b, c, d] if at % 4 == 2 => {
            if u32::from_be_bytes([a, b, c, d]) <= u32::from(u16::MAX) {
                Fault::malformed_at(at + 2)
            } else if packet[4..6] != [0, 0] {
                Fault::malformed_at(at)
            } else {
                Fault::silent(DropReason::MalformedOptions)
            }
        }
        _ => Fault::silent(DropReason::MalformedOptions),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A header with these options, padded to a multiple of four bytes with their end.
    fn header(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        bytes.extend(options);
        bytes.resize(bytes.len().next_multiple_of(4), END);
        bytes
    }

    const fn at(within: usize) -> Result<(), Fault> {
        Err(Fault::malformed_at(20 + within))
    }

    const SOURCE_ROUTED: Result<(), Fault> = Err(Fault::silent(DropReason::SourceRouted));

    #[test]
    fn options_of_ipv4_are_judged_as_the_kernel_judges_them() {
        let rows: &[(&str, &[u8], Result<(), Fault>)] = &[
            ("none but padding", &[1, 1, 1, 0], Ok(())),
            ("anything behind the end", &[0, 7, 1, 9], Ok(())),
            ("an unknown one", &[0x52, 4, 1, 2], Ok(())),
            ("router alert (RFC 2113)", &[148, 4, 0, 0], Ok(())),
            ("router alert, cut short", &[148, 3, 0, 0], at(1)),
            ("length 0", &[7, 0, 4, 0], at(0)),
            ("length 1", &[7, 1, 4, 0], at(0)),
            ("longer than the header", &[7, 9, 4, 0], at(0)),
            ("no room for a length", &[1, 1, 1, 7], at(3)),
            ("record route", &[7, 7, 4, 0, 0, 0, 0], Ok(())),
            ("record route, full", &[7, 7, 8, 1, 2, 3, 4], Ok(())),
            ("record route without a pointer", &[7, 2, 1, 1], at(1)),
            ("record route, pointer 3", &[7, 7, 3, 0, 0, 0, 0], at(2)),
            ("record route, half a place", &[7, 6, 4, 0, 0, 0], at(2)),
            ("record route twice", &[7, 3, 4, 7, 3, 4], at(3)),
            ("timestamp", &[68, 8, 5, 0, 0, 0, 0, 0], Ok(())),
            ("timestamp, cut short", &[68, 3, 5, 0], at(1)),
            ("timestamp, pointer 4", &[68, 8, 4, 0, 0, 0, 0, 0], at(2)),
            ("timestamp, half a place", &[68, 7, 5, 0, 0, 0, 0], at(2)),
            (
                "timestamp, half an address",
                &[68, 8, 5, 1, 0, 0, 0, 0],
                at(2),
            ),
            ("timestamp, full", &[68, 4, 5, 0xe0], Ok(())),
            ("timestamp, full 16 times", &[68, 4, 5, 0xf0], at(3)),
            (
                "timestamp, full of hosts named before",
                &[68, 4, 5, 0xf3],
                Ok(()),
            ),
            ("timestamp twice", &[68, 4, 5, 0, 68, 4, 5, 0], at(4)),
            (
                "loose source route",
                &[131, 7, 4, 10, 0, 0, 1],
                SOURCE_ROUTED,
            ),
            (
                "strict source route",
                &[137, 7, 4, 10, 0, 0, 1],
                SOURCE_ROUTED,
            ),
            (
                "behind others",
                &[1, 148, 4, 0, 0, 131, 3, 4],
                SOURCE_ROUTED,
            ),
            ("source route without a pointer", &[131, 2, 1, 1], at(1)),
            ("source route, pointer 3", &[131, 3, 3, 0], at(2)),
            (
                "loose and strict (RFC 1812 5.2.4.1)",
                &[131, 3, 4, 137, 3, 4],
                at(3),
            ),
            (
                "a fault behind a source route",
                &[131, 3, 4, 7, 1, 0],
                at(3),
            ),
        ];
        for (what, options, expected) in rows {
            assert_eq!(check_v4(&header(options)), *expected, "{what}");
        }
    }

    /// A packet whose hop-by-hop options are these, padded to a multiple of 8 bytes.
    fn hop_by_hop(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 0, 0, 64];
        bytes.resize(40, 0);
        let len = (2 + options.len()).next_multiple_of(8);
        bytes.extend([59, (len / 8 - 1) as u8]);
        bytes.extend(options);
        let padding = 40 + len - bytes.len();
        match padding {
            0 => {}
            1 => bytes.push(PAD_ONE),
            many => {
                bytes.extend([PAD_MANY, (many - 2) as u8]);
                bytes.resize(40 + len, 0);
            }
        }
        bytes[5] = len as u8;
        bytes
    }

    #[test]
    fn hop_by_hop_options_are_judged_as_the_kernel_judges_them() {
        let malformed = Err(Fault::silent(DropReason::MalformedOptions));
        let unknown = |pointer| {
            Err(Fault {
                reason: DropReason::UnknownOption,
                pointer,
            })
        };
        let rows: &[(&str, &[u8], Result<(), Fault>)] = &[
            ("router alert (RFC 2711)", &[5, 2, 0, 0], Ok(())),
            ("router alert, too long", &[5, 3, 0, 0, 0], malformed),
            ("unknown: pass over", &[0x1e, 2, 9, 9], Ok(())),
            ("unknown: discard", &[0x5e, 2, 9, 9], unknown(None)),
            (
                "unknown: discard and tell",
                &[0x9e, 2, 9, 9],
                unknown(Some(42)),
            ),
            (
                "unknown: tell of unicast",
                &[0, 0xde, 2, 9, 9],
                unknown(Some(43)),
            ),
            ("longer than the header", &[0x1e, 5, 9, 9], malformed),
            ("padding with something in it", &[1, 2, 0, 7], malformed),
            (
                "padding of eight bytes",
                &[1, 6, 0, 0, 0, 0, 0, 0, 5, 2, 0, 0],
                malformed,
            ),
            ("jumbo, and not one", &[0xc2, 4, 0, 0, 1, 0], at(24)),
            ("jumbo, and a length", &[0xc2, 4, 0, 1, 0, 0], at(22)),
            ("jumbo, cut short", &[0xc2, 3, 0, 1, 0], malformed),
            ("eight options", &[0x1e, 0].repeat(8), Ok(())),
            ("nine options", &[0x1e, 0].repeat(9), malformed),
        ];
        for (what, options, expected) in rows {
            assert_eq!(check_hop_by_hop(&hop_by_hop(options)), *expected, "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_options_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = check_hop_by_hop(&bytes);
            let mut header = vec![0; 20];
            header.extend(&bytes[..bytes.len().min(40)]);
            if let Err(Fault { pointer: Some(pointer), .. }) = check_v4(&header) {
                prop_assert!(usize::from(pointer) < header.len());
            }
        }
    }
}
