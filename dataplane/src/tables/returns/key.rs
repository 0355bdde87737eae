//! A key of the way back, in words: what is hashed, and what views read.
//!
//! In: a tuple. Out: five words, and the tuple again. Never: two tuples in the same words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::About;
use crate::frame::flow::mixed;
use crate::frame::tuple::{Ports, Tuple};
use crate::sync::{AtomicU64, Ordering};

/// Words of a key: four of addresses, and one of the rest.
pub(super) const WORDS: usize = 5;

/// Bits of the last word, above the protocol number and both ports.
const V6: u64 = 1 << 63;
const ENDPOINT: u64 = 1 << 62;
const HIDDEN: u64 = 1 << 61;

/// IPv4 addresses stand in the first word, so that their hash needs no other.
pub(super) struct Key([u64; WORDS]);

impl Key {
    #[inline]
    pub(super) fn of_tuple(tuple: &Tuple) -> Key {
        let (hidden, source, target) = match tuple.ports {
            Ports::Known(source, target) => (0, source, target),
            Ports::Hidden => (HIDDEN, 0, 0),
        };
        let ports = u64::from(source) << 16 | u64::from(target);
        let last = hidden | u64::from(tuple.protocol) << 32 | ports;
        match (tuple.source, tuple.target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                let addresses = u64::from(source.to_bits()) << 32 | u64::from(target.to_bits());
                Key([addresses, 0, 0, 0, last])
            }
            (source, target) => {
                let (source, target) = (bits_v6(source), bits_v6(target));
                let halves = |bits: u128| ((bits >> 64) as u64, bits as u64);
                let ((a, b), (c, d)) = (halves(source), halves(target));
                Key([a, b, c, d, last | V6])
            }
        }
    }

    /// The key of the tuple's source, whatever its target.
    #[inline]
    pub(super) fn of_endpoint(tuple: &Tuple) -> Key {
        let target = match tuple.source {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let ports = match tuple.ports {
            Ports::Known(source, _) => Ports::Known(source, 0),
            Ports::Hidden => Ports::Hidden,
        };
        let mut key = Key::of_tuple(&Tuple {
            target,
            ports,
            ..*tuple
        });
        key.0[WORDS - 1] |= ENDPOINT;
        key
    }

    #[inline]
    pub(super) fn hash(&self, seed: u64) -> u64 {
        let [a, b, c, d, last] = self.0;
        let addresses = match last & V6 {
            0 => mixed(seed, a),
            _ => [b, c, d].into_iter().fold(mixed(seed, a), mixed),
        };
        mixed(addresses, last ^ seed.rotate_left(29))
    }

    pub(super) fn write(&self, to: &[AtomicU64; WORDS]) {
        for (word, place) in self.0.iter().zip(to) {
            place.store(*word, Ordering::Relaxed);
        }
    }

    pub(super) fn read(from: &[AtomicU64; WORDS]) -> Key {
        Key(std::array::from_fn(|at| from[at].load(Ordering::Relaxed)))
    }

    /// What the words say; nothing if they are torn.
    pub(super) fn about(&self) -> Option<About> {
        let [a, b, c, d, last] = self.0;
        let (source, target) = match last & V6 {
            0 => {
                let address = |bits: u64| IpAddr::V4(Ipv4Addr::from_bits(bits as u32));
                (address(a >> 32), address(a))
            }
            _ => {
                let address = |high: u64, low: u64| {
                    IpAddr::V6(Ipv6Addr::from_bits(
                        u128::from(high) << 64 | u128::from(low),
                    ))
                };
                (address(a, b), address(c, d))
            }
        };
        let tuple = Tuple {
            source,
            target,
            protocol: u8::try_from(last >> 32 & 0x1fff_ffff).ok()?,
            ports: match last & HIDDEN {
                0 => Ports::Known((last >> 16) as u16, last as u16),
                _ => Ports::Hidden,
            },
        };
        Some(match last & ENDPOINT {
            0 => About::Tuple(tuple),
            _ => About::Endpoint(tuple),
        })
    }
}

fn bits_v6(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}
