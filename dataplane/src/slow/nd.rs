//! Neighbour discovery: advertisements for those whom the switch knows.
//!
//! In: a solicitation, and who holds the address. Out: the bytes of one frame, and their number.
//! Never: decides who is answered (RFC 4861 4.3 and 4.4).

use etherparse::PacketBuilder;

use super::finish;
use crate::addr::Mac;
use crate::frame::ipv6::Ipv6View;

/// Writes a neighbour advertisement into `room` that says `mac` holds what `packet` asks for, to
/// the asker `asker`. Returns its length, or nothing if `packet` asks for nothing.
pub(crate) fn advertisement(
    room: &mut [u8],
    packet: &Ipv6View,
    asker: Mac,
    mac: Mac,
) -> Option<usize> {
    use crate::frame::ipv6::Discovery;
    let Some(Discovery::Solicitation { target }) = packet.discovery else {
        return None;
    };
    let mut message = [0; 24];
    message[..16].copy_from_slice(&target.octets());
    message[16..18].copy_from_slice(&[2, 1]); // target link-layer address, one unit of 8 bytes
    message[18..24].copy_from_slice(&mac.octets());
    // Solicited and override: RFC 4861 4.4, bits 30 and 29 of the word behind the checksum.
    let builder = PacketBuilder::ethernet2(mac.octets(), asker.octets())
        .ipv6(target.octets(), packet.source.octets(), 255)
        .icmpv6_raw(136, 0, [0x60, 0, 0, 0]);
    finish(room, builder.size(message.len()), |out| {
        builder.write(out, &message).is_ok()
    })
}
