//! ARP for Ethernet and IPv4 (RFC 826).
//!
//! In: what follows the Ethernet header. Out: the four addresses and the question or answer.
//! Never: accepts another hardware or protocol type.

use std::net::Ipv4Addr;

use crate::addr::{Mac, Station};
use crate::verdict::DropReason;

/// Bytes of the packet.
pub const LEN: usize = 28;

/// Hardware type 1, protocol type 0x0800, address lengths 6 and 4.
pub(crate) const PREAMBLE: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Where the sender hardware address stands in the packet.
const SENDER_MAC_AT: usize = 8;
/// Where the target hardware address stands in the packet.
const TARGET_MAC_AT: usize = 18;

/// What the packet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// A whole ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpView {
    /// Question or answer.
    pub operation: Operation,
    /// Sender hardware address.
    pub sender_mac: Mac,
    /// Sender protocol address.
    pub sender: Ipv4Addr,
    /// Target hardware address; meaningless in a request.
    pub target_mac: Mac,
    /// Target protocol address.
    pub target: Ipv4Addr,
}

impl ArpView {
    /// Reads the packet at the start of `bytes`; padding may follow.
    ///
    /// # Errors
    /// `MalformedArp`.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<ArpView, DropReason> {
        let (packet, _) = bytes
            .split_first_chunk::<LEN>()
            .ok_or(DropReason::MalformedArp)?;
        let &[
            p0,
            p1,
            p2,
            p3,
            p4,
            p5,
            o0,
            o1,
            a,
            b,
            c,
            d,
            e,
            f,
            s0,
            s1,
            s2,
            s3,
            g,
            h,
            i,
            j,
            k,
            l,
            t0,
            t1,
            t2,
            t3,
        ] = packet;
        if [p0, p1, p2, p3, p4, p5] != PREAMBLE {
            return Err(DropReason::MalformedArp);
        }
        let operation = match u16::from_be_bytes([o0, o1]) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(DropReason::MalformedArp),
        };
        Ok(ArpView {
            operation,
            sender_mac: Mac::new([a, b, c, d, e, f]),
            sender: Ipv4Addr::new(s0, s1, s2, s3),
            target_mac: Mac::new([g, h, i, j, k, l]),
            target: Ipv4Addr::new(t0, t1, t2, t3),
        })
    }

    /// True if its addresses are some that a host may have and ask for: the sender a station, and
    /// neither address multicast, broadcast or loopback (as the kernel's `arp_process`).
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let strange = |ip: Ipv4Addr| ip.is_multicast() || ip.is_broadcast() || ip.is_loopback();
        Station::new(self.sender_mac).is_ok() && !strange(self.sender) && !strange(self.target)
    }

    /// True for an announcement: the sender speaks of its own address (RFC 5227 section 3).
    #[inline]
    #[must_use]
    pub fn is_announcement(&self) -> bool {
        self.sender == self.target
    }

    /// True for a probe: the sender has no address yet (RFC 5227 section 2.1.1).
    #[inline]
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.sender.is_unspecified()
    }

    /// Writes the packet over the first [`LEN`] bytes of `packet`.
    pub(crate) fn write(&self, packet: &mut [u8]) {
        packet[0..6].copy_from_slice(&PREAMBLE);
        packet[6..8].copy_from_slice(match self.operation {
            Operation::Request => &[0, 1],
            Operation::Reply => &[0, 2],
        });
        packet[8..14].copy_from_slice(&self.sender_mac.octets());
        packet[14..18].copy_from_slice(&self.sender.octets());
        packet[18..24].copy_from_slice(&self.target_mac.octets());
        packet[24..28].copy_from_slice(&self.target.octets());
    }
}

/// Overwrites the sender hardware address of the packet at the start of `packet`.
#[inline]
pub(crate) fn set_sender_mac(packet: &mut [u8], mac: Mac) {
    packet[SENDER_MAC_AT..SENDER_MAC_AT + 6].copy_from_slice(&mac.octets());
}

/// Overwrites the target hardware address of the packet at the start of `packet`.
#[inline]
pub(crate) fn set_target_mac(packet: &mut [u8], mac: Mac) {
    packet[TARGET_MAC_AT..TARGET_MAC_AT + 6].copy_from_slice(&mac.octets());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_packet_reads_back_what_it_writes(
            reply in any::<bool>(), macs in any::<([u8; 6], [u8; 6])>(), ips in any::<([u8; 4], [u8; 4])>(),
        ) {
            let view = ArpView {
                operation: if reply { Operation::Reply } else { Operation::Request },
                sender_mac: Mac::new(macs.0),
                sender: ips.0.into(),
                target_mac: Mac::new(macs.1),
                target: ips.1.into(),
            };
            let mut bytes = [0; LEN];
            view.write(&mut bytes);
            prop_assert_eq!(ArpView::parse(&bytes), Ok(view));
        }
    }

    #[test]
    fn addresses_that_no_host_has_are_not_sound() {
        let station = Mac::new([2, 0, 0, 0, 0, 1]);
        let (host, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let sound = |sender_mac, sender, target| {
            let view = ArpView {
                operation: Operation::Request,
                sender_mac,
                sender,
                target_mac: Mac::ZERO,
                target,
            };
            view.is_sound()
        };
        assert!(sound(station, host, other));
        assert!(sound(station, Ipv4Addr::UNSPECIFIED, other), "a probe");
        assert!(!sound(Mac::BROADCAST, host, other));
        assert!(!sound(Mac::ZERO, host, other));
        assert!(!sound(station, Ipv4Addr::new(224, 0, 0, 1), other));
        assert!(!sound(station, host, Ipv4Addr::BROADCAST));
        assert!(!sound(station, host, Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn other_kinds_and_short_packets_are_malformed() {
        let mut bytes = [0u8; LEN];
        bytes[..6].copy_from_slice(&PREAMBLE);
        bytes[7] = 1;
        assert!(ArpView::parse(&bytes).is_ok());
        assert_eq!(ArpView::parse(&bytes[..27]), Err(DropReason::MalformedArp));
        for (at, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (7, 3), (7, 0)] {
            let mut other = bytes;
            other[at] = value;
            assert_eq!(
                ArpView::parse(&other),
                Err(DropReason::MalformedArp),
                "byte {at} = {value}"
            );
        }
    }
}
