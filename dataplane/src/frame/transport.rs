//! The first words of layer 4: enough to name a flow and to size a segment.
//!
//! In: a protocol number and what follows the IP headers. Out: ports, ICMP type, header length.
//! Never: judges: a transport header that is cut short is simply not known.

/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// What the packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP, with the length of its header in bytes.
    Tcp {
        /// Source port.
        source: u16,
        /// Target port.
        target: u16,
        /// Header with options, in bytes; 20 to 60.
        header_len: u8,
    },
    /// UDP.
    Udp {
        /// Source port.
        source: u16,
        /// Target port.
        target: u16,
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// The message's type.
        kind: u8,
        /// The message's code.
        code: u8,
    },
    /// Another protocol, a fragment past the first, or a header cut short.
    Unknown,
}

impl Transport {
    /// Reads the header of `protocol` at the start of `bytes`.
    #[inline]
    #[must_use]
    pub fn parse(protocol: u8, bytes: &[u8]) -> Transport {
        match (protocol, bytes) {
            (TCP, &[a, b, c, d, _, _, _, _, _, _, _, _, offset, ..]) if offset >> 4 >= 5 => {
                Transport::Tcp {
                    source: u16::from_be_bytes([a, b]),
                    target: u16::from_be_bytes([c, d]),
                    header_len: (offset >> 4) * 4,
                }
            }
            (UDP, &[a, b, c, d, _, _, _, _, ..]) => Transport::Udp {
                source: u16::from_be_bytes([a, b]),
                target: u16::from_be_bytes([c, d]),
            },
            (ICMP | ICMPV6, &[kind, code, _, _, ..]) => Transport::Icmp { kind, code },
            _ => Transport::Unknown,
        }
    }

    /// Source and target port, of TCP and UDP.
    #[must_use]
    pub const fn ports(self) -> Option<(u16, u16)> {
        match self {
            Transport::Tcp { source, target, .. } | Transport::Udp { source, target } => {
                Some((source, target))
            }
            _ => None,
        }
    }

    /// Bytes of the header that each segment of a super-frame repeats.
    #[inline]
    #[must_use]
    pub(crate) const fn segment_header_len(self) -> usize {
        match self {
            Transport::Tcp { header_len, .. } => header_len as usize,
            Transport::Udp { .. } => 8,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_cut_short_is_unknown() {
        let tcp = [0, 80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0];
        assert_eq!(
            Transport::parse(TCP, &tcp),
            Transport::Tcp {
                source: 80,
                target: 256,
                header_len: 32
            }
        );
        assert_eq!(Transport::parse(TCP, &tcp[..12]), Transport::Unknown);
        assert_eq!(Transport::parse(UDP, &tcp[..7]), Transport::Unknown);
        assert_eq!(Transport::parse(99, &tcp), Transport::Unknown);
        assert_eq!(
            Transport::parse(ICMP, &[8, 0, 0, 0]),
            Transport::Icmp { kind: 8, code: 0 }
        );
    }
}
