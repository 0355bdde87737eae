//! Frames that the switch makes itself: ARP and ND answers, ARP questions, ICMP errors.
//!
//! In: the frame that gives rise to one, and who speaks. Out: bytes in a buffer, and their number.
//! Never: sends, counts or decides; nor answers an error with an error (RFC 1812 4.3.2.7).
//!
//! This is the slow path: it may take its time, and builds with `etherparse`.

pub(crate) mod arp;
pub(crate) mod error;
pub(crate) mod icmp;
pub(crate) mod icmpv6;
pub(crate) mod limit;
pub(crate) mod nd;

use crate::addr::Mac;
use crate::tables::Addresses;

/// TTL of what the switch sends itself, as the kernel's default (`IPDEFTTL`).
const TTL: u8 = 64;

/// Who speaks in the name of the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Speaker {
    /// Its hardware address.
    pub(crate) mac: Mac,
    /// Its protocol addresses.
    pub(crate) addresses: Addresses,
}

/// Lets `write` fill the first `size` bytes of `room`.
fn finish(
    room: &mut [u8],
    size: usize,
    write: impl FnOnce(&mut std::io::Cursor<&mut [u8]>) -> bool,
) -> Option<usize> {
    let mut out = std::io::Cursor::new(room.get_mut(..size)?);
    write(&mut out).then_some(size)
}
