//! Frames as people hand them to `trace`: hexadecimal text, capture files.
//!
//! In: a byte whose low bit is clear for text; otherwise the number of the frame wanted is above
//! it. Then the text or the file.
//! Out: nothing, or a panic that names the promise which does not hold.
//! Never: asks that a broken file be read, only that a fault be one sentence.

use control::trace::input::{from_hex, from_pcap};
use dataplane::buffer::FRAME_MAX;

/// Reads a frame.
///
/// # Panics
/// If reading does, what is read is no frame that a port could hand in, or a frame that was read
/// is another once it is written out and read again.
pub fn run_capture(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else {
        return;
    };
    if choice & 1 == 0 {
        hex(&String::from_utf8_lossy(rest));
    } else {
        pcap(rest, usize::from(choice >> 1));
    }
}

fn hex(text: &str) {
    match from_hex(text) {
        Ok(bytes) => {
            assert!((1..=FRAME_MAX).contains(&bytes.len()));
            let written: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(from_hex(&written).expect("digits"), bytes);
        }
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
}

fn pcap(file: &[u8], wanted: usize) {
    match from_pcap(file, wanted) {
        Ok(captured) => {
            assert!((1..=FRAME_MAX).contains(&captured.bytes.len()));
            assert!((captured.bytes.len()..=FRAME_MAX).contains(&captured.whole));
            assert!(captured.bytes.len() <= file.len(), "bytes out of nowhere");
        }
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
}
