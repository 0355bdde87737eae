//! Addresses and identities of the switch: bare numbers get a meaning here.
//!
//! In: bytes from frames, text from configuration.
//! Out: `Mac`, `Station`, `PortId`, each legal by construction.
//! Never: a group address where one station is meant.

use std::fmt;
use std::str::FromStr;

use crate::verdict::DropReason;

/// An IEEE 802 MAC address.
///
/// Held as one word, the first octet highest: an address is compared, hashed and looked up far more
/// often than it is written, and a word stays in a register where six octets would not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(u64);

impl Mac {
    /// The broadcast address, `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Mac = Mac::new([0xff; 6]);
    /// The all-zero address: what ARP writes where a hardware address is unknown.
    pub const ZERO: Mac = Mac::new([0; 6]);

    /// The address of these octets, in transmission order.
    #[inline]
    #[must_use]
    pub const fn new(octets: [u8; 6]) -> Mac {
        let [a, b, c, d, e, f] = octets;
        Mac(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// The octets, in transmission order.
    #[inline]
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        let [_, _, a, b, c, d, e, f] = self.0.to_be_bytes();
        [a, b, c, d, e, f]
    }

    /// True for group addresses: multicast and broadcast (the I/G bit, IEEE 802-2014 8.2.2).
    #[inline]
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0 & 1 << 40 != 0
    }

    /// True for `00:00:00:00:00:00`.
    #[inline]
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The address as the low 48 bits of a word, first octet highest.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The address in the low 48 bits of `word`; what is above them is left out.
    #[inline]
    #[must_use]
    pub const fn from_bits(word: u64) -> Mac {
        Mac(word & 0xffff_ffff_ffff)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.octets();
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not six colon-separated pairs of hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a MAC address such as 00:0d:3a:21:af:12")]
pub struct BadMac(String);

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Mac, BadMac> {
        let bad = || BadMac(text.to_owned());
        let mut octets = [0u8; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            Err(bad())
        } else {
            Ok(Mac::new(octets))
        }
    }
}

/// The address of one station: never group, never zero, so it may be learned and be a source.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Station(Mac);

impl Station {
    /// Accepts an address that one station can own.
    ///
    /// # Errors
    /// `SourceIsGroup` or `SourceIsZero`, the reasons for which a frame from such a source dies.
    #[inline]
    pub const fn new(mac: Mac) -> Result<Station, DropReason> {
        if mac.is_group() {
            return Err(DropReason::SourceIsGroup);
        }
        if mac.is_zero() {
            return Err(DropReason::SourceIsZero);
        }
        Ok(Station(mac))
    }

    /// The plain address.
    #[inline]
    #[must_use]
    pub const fn mac(self) -> Mac {
        self.0
    }
}

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A port of one switch: an index below [`PortId::COUNT_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(u16);

impl PortId {
    /// Ports that one switch may have: 250 pods (the most a kubelet is set to), the host port and
    /// the uplink, rounded up to a power of two so that a port set is eight words.
    pub const COUNT_MAX: usize = 512;

    /// Accepts an index below [`PortId::COUNT_MAX`].
    #[must_use]
    pub const fn new(index: usize) -> Option<PortId> {
        if index < PortId::COUNT_MAX {
            Some(PortId(index as u16))
        } else {
            None
        }
    }

    /// The index, for tables that have one row a port.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}", self.0)
    }
}

/// A set of ports: a bit each, so that a hundred quiet ports cost two words to pass over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortSet([u64; PortId::COUNT_MAX / 64]);

impl PortSet {
    /// Puts `port` in.
    #[inline]
    pub fn insert(&mut self, port: PortId) {
        self.0[port.index() / 64] |= 1 << (port.index() % 64);
    }

    /// True if `port` is in.
    #[inline]
    #[must_use]
    pub fn contains(&self, port: PortId) -> bool {
        self.0[port.index() / 64] & 1 << (port.index() % 64) != 0
    }

    /// How many are in.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// True if none is in.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Puts all of `other` in.
    #[inline]
    pub fn insert_all(&mut self, other: PortSet) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }

    /// Those that are in this set and not in `other`.
    #[inline]
    #[must_use]
    pub fn without(mut self, other: PortSet) -> PortSet {
        for (word, less) in self.0.iter_mut().zip(other.0) {
            *word &= !less;
        }
        self
    }

    /// Those that are in both sets.
    #[inline]
    #[must_use]
    pub fn also_in(self, other: PortSet) -> PortSet {
        self.without(self.without(other))
    }

    /// Takes `port` out.
    #[inline]
    pub fn remove(&mut self, port: PortId) {
        self.0[port.index() / 64] &= !(1 << (port.index() % 64));
    }
}

/// The ports of a set, lowest first.
impl Iterator for PortSet {
    type Item = PortId;

    #[inline]
    fn next(&mut self) -> Option<PortId> {
        let (at, word) = self
            .0
            .iter_mut()
            .enumerate()
            .find(|(_, word)| **word != 0)?;
        let bit = word.trailing_zeros() as usize;
        *word &= *word - 1;
        PortId::new(at * 64 + bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_reads_back_what_it_writes() {
        let mac: Mac = "00:0d:3a:21:af:12".parse().expect("well-formed");
        assert_eq!(mac.to_string(), "00:0d:3a:21:af:12");
        assert_eq!(mac.bits(), 0x000d_3a21_af12);
        for bad in [
            "",
            "00:0d:3a:21:af",
            "00:0d:3a:21:af:12:00",
            "0:0d:3a:21:af:12",
            "+0:0d:3a:21:af:12",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_port_set_yields_its_ports_in_order_and_once() {
        let mut set = PortSet::default();
        let ids = [0, 63, 64, 200, 511].map(|index| PortId::new(index).expect("in range"));
        for id in ids.iter().rev().chain(&ids) {
            set.insert(*id);
        }
        assert_eq!(set.collect::<Vec<_>>(), ids);
        assert!(set.contains(ids[2]) && !set.contains(PortId::new(65).expect("in range")));
        set.remove(ids[2]);
        assert!(!set.contains(ids[2]));
        assert_eq!(set.count(), 4);
        assert_eq!(PortId::new(PortId::COUNT_MAX), None);
    }

    #[test]
    fn a_station_is_never_group_or_zero() {
        assert_eq!(Station::new(Mac::BROADCAST), Err(DropReason::SourceIsGroup));
        assert_eq!(Station::new(Mac::ZERO), Err(DropReason::SourceIsZero));
        assert!(Station::new(Mac::new([2, 0, 0, 0, 0, 1])).is_ok());
    }
}
