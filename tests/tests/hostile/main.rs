//! A pod that means harm, and the others on its node.
//!
//! In: attacks at full speed by one pod, while two others talk. Out: what the two still get, whose
//! entries are still there, and the counters in which each attack is seen.
//! Never: a finding about speed from memory ports, or an exact one from devices.

use benches::scales::Numbers;
use dataplane::frame::offload::Offload;

mod devices;
mod memory;

/// An offload header as anybody may write one. Small numbers are nearer to what one may say.
fn garbage(numbers: &mut Numbers) -> Offload {
    let mut byte = || [numbers.below(256), numbers.below(4), 0][numbers.below(3)] as u8;
    Offload {
        flags: byte(),
        gso_type: byte(),
        hdr_len: byte().into(),
        gso_size: u16::from_be_bytes([byte(), byte()]),
        csum_start: u16::from_be_bytes([byte() & 7, byte()]),
        csum_offset: byte().into(),
    }
}
