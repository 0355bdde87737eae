//! What changes in a frame on its way: addresses, hops, and its length.
//!
//! In: a frame that may leave. Out: the frame as it leaves, or its fragments.
//! Never: mends a checksum: each is summed up anew.

use dataplane::addr::Mac;
use dataplane::frame::offload::Offload;
use dataplane::port::memory::WireFrame;
use dataplane::verdict::DropReason;

use super::speech::checksum;

/// The edits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Edits {
    pub(super) target: Option<Mac>,
    pub(super) source: Option<Mac>,
    pub(super) hop: bool,
}

/// A frame of which nothing is left undone.
pub(super) fn finished(bytes: Vec<u8>) -> WireFrame {
    WireFrame {
        bytes,
        offload: Offload::NONE,
    }
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// The frame with its new addresses and one hop less. ARP repeats the addresses inside: the sender's
/// always, the target's in a reply.
pub(super) fn edited(mut frame: WireFrame, edits: Edits) -> WireFrame {
    let bytes = &mut frame.bytes;
    let ether_type = word(bytes, 12);
    if let Some(mac) = edits.target {
        bytes[..6].copy_from_slice(&mac.octets());
        if ether_type == 0x0806 && word(bytes, 20) == 2 {
            bytes[32..38].copy_from_slice(&mac.octets());
        }
    }
    if let Some(mac) = edits.source {
        bytes[6..12].copy_from_slice(&mac.octets());
        if ether_type == 0x0806 {
            bytes[22..28].copy_from_slice(&mac.octets());
        }
    }
    if edits.hop && ether_type == 0x0800 {
        let header = 14 + usize::from(bytes[14] & 15) * 4;
        bytes[22] -= 1;
        sum_header(&mut bytes[14..header]);
        bytes.truncate(14 + word(bytes, 16));
    }
    if edits.hop && ether_type == 0x86dd {
        bytes[21] -= 1;
        bytes.truncate(54 + word(bytes, 18));
    }
    frame
}

fn sum_header(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = checksum(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The fragments of an IPv4 packet for a port that takes `mtu` bytes (RFC 791 3.2).
pub(super) fn fragments(frame: &[u8], mtu: usize) -> Result<Vec<Vec<u8>>, DropReason> {
    let header_len = usize::from(frame[14] & 15) * 4;
    let (header, payload) = frame[14..].split_at(header_len);
    let place = word(header, 6);
    let (offset, flags) = ((place & 0x1fff) * 8, place & 0x4000);
    if offset + payload.len() > 65_536 {
        return Err(DropReason::MalformedIpv4);
    }
    let room = mtu.saturating_sub(header_len);
    let most = room - room % 8;
    if flags != 0 || most == 0 {
        return Err(DropReason::TooBig);
    }
    let mut pieces = Vec::new();
    let mut done = 0;
    while done < payload.len() {
        let rest = payload.len() - done;
        // The last one may fill all the room there is.
        let len = if rest <= room { rest } else { most };
        let last = done + len == payload.len();
        let more = if last { place & 0x2000 } else { 0x2000 };
        let mut piece = frame[..14].to_vec();
        piece.extend(header);
        if done > 0 {
            blank(&mut piece[34..]);
        }
        let total = (header_len + len) as u16;
        piece[16..18].copy_from_slice(&total.to_be_bytes());
        let place = (((offset + done) / 8) | more) as u16;
        piece[20..22].copy_from_slice(&place.to_be_bytes());
        sum_header(&mut piece[14..]);
        piece.extend(&payload[done..done + len]);
        pieces.push(piece);
        done += len;
    }
    if pieces.len() > 128 {
        return Err(DropReason::TooBig);
    }
    Ok(pieces)
}

/// Options that are not to be copied become no-operations in every fragment but the first.
fn blank(options: &mut [u8]) {
    let mut at = 0;
    while at < options.len() && options[at] != 0 {
        if options[at] == 1 {
            at += 1;
            continue;
        }
        let len = options.get(at + 1).map_or(0, |len| usize::from(*len));
        if len < 2 || at + len > options.len() {
            return;
        }
        if options[at] < 128 {
            options[at..at + len].fill(1);
        }
        at += len;
    }
}
