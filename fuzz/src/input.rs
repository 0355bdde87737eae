//! A fuzzer's bytes, read as one small choice after the other.
//!
//! In: bytes. Out: numbers, flags, addresses; zeroes once the bytes are used up.
//! Never: fails, or reads a byte twice. A prefix of an input is an input.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::addr::Mac;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{A, B, FABRIC, GATEWAY, HOST, NIC, POD_A, POD_B, STRANGER, UPLINK};

/// Ports that an input can name: those of the worlds, and as many that are not there.
pub(crate) const PORT_CHOICES: usize = 8;
const _: () = assert!(HOST < PORT_CHOICES && UPLINK < PORT_CHOICES);
const _: () = assert!(A < PORT_CHOICES && B < PORT_CHOICES);

/// Addresses that frames of the corpora name, so that tables of an input and they often meet.
const ADDRESSES: [&str; 16] = [
    "10.20.0.4",
    "10.20.0.31",
    "10.20.0.32",
    "10.20.0.5",
    "10.244.1.1",
    "10.244.1.6",
    "10.244.1.7",
    "10.244.0.9",
    "10.99.0.1",
    "8.8.8.8",
    "fd00:20::31",
    "fd00:20::5",
    "fd00:244::6",
    "fd00:244:1::9",
    "fd00:244:2::9",
    "fe80::1",
];

/// Hardware addresses that they name.
const MACS: [Mac; 8] = [
    FABRIC,
    NIC,
    GATEWAY,
    POD_A,
    POD_B,
    STRANGER,
    Mac::BROADCAST,
    Mac::ZERO,
];

/// What is left of an input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *byte
    }

    /// Two bytes, low byte first.
    pub(crate) fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// The next `len` bytes, or as many as there are.
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A word of length, and so many bytes.
    pub(crate) fn block(&mut self) -> &'a [u8] {
        let len = usize::from(self.word());
        self.take(len)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// One of the known addresses by a byte below 16; above, four or sixteen bytes of any.
    pub(crate) fn address(&mut self) -> IpAddr {
        match self.byte() {
            known @ 0..16 => crate::ip(ADDRESSES[usize::from(known)]),
            choice if choice & 1 == 0 => Ipv4Addr::from(self.array()).into(),
            _ => Ipv6Addr::from(self.array::<16>()).into(),
        }
    }

    /// One of the known stations by a byte below 8; above, six bytes of any.
    pub(crate) fn mac(&mut self) -> Mac {
        match self.byte() {
            known @ 0..8 => MACS[usize::from(known)],
            _ => Mac::new(self.array()),
        }
    }

    /// An address and a byte of length. The low bit of a further byte leaves bits behind the length
    /// as they are, which no table takes.
    pub(crate) fn prefix(&mut self) -> IpNet {
        let (address, len, keep) = (self.address(), self.byte(), self.byte() & 1 != 0);
        let net: IpNet = match address {
            IpAddr::V4(v4) => Ipv4Net::new(v4, len % 33).expect("at most 32").into(),
            IpAddr::V6(v6) => Ipv6Net::new(v6, len % 129).expect("at most 128").into(),
        };
        if keep { net } else { net.trunc() }
    }
}
