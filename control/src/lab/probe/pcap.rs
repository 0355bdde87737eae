//! Writes frames as a pcap file, for Wireshark and its kin.
//!
//! In: captured frames. Out: the classic format with nanoseconds, link type Ethernet.
//! Never: invents bytes: a frame keeps its true length beside the part that was captured.

use std::io::{self, Write};
use std::time::SystemTime;

use super::capture::{Captured, SNAP_LEN};

/// Says: nanoseconds, in the byte order that follows.
const MAGIC: u32 = 0xa1b2_3c4d;
const VERSION: [u16; 2] = [2, 4];
const LINKTYPE_ETHERNET: u32 = 1;

/// Writes the file header and all frames.
///
/// # Errors
/// What the writer says.
pub fn write(to: &mut impl Write, frames: &[Captured]) -> io::Result<()> {
    to.write_all(&MAGIC.to_le_bytes())?;
    for number in VERSION {
        to.write_all(&number.to_le_bytes())?;
    }
    // Time zone and accuracy: zero, as everybody writes.
    for number in [0, 0, SNAP_LEN as u32, LINKTYPE_ETHERNET] {
        to.write_all(&number.to_le_bytes())?;
    }
    for frame in frames {
        let at = frame
            .at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let seconds = u32::try_from(at.as_secs()).unwrap_or(u32::MAX);
        let captured = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        let whole = u32::try_from(frame.len).unwrap_or(u32::MAX);
        for number in [seconds, at.subsec_nanos(), captured, whole] {
            to.write_all(&number.to_le_bytes())?;
        }
        to.write_all(&frame.bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_file_has_a_header_and_one_record_a_frame() {
        let at = SystemTime::UNIX_EPOCH + Duration::new(1, 2);
        let frame = Captured {
            at,
            outgoing: true,
            len: 60,
            bytes: vec![0xaa; 3],
        };
        let mut file = Vec::new();
        write(&mut file, &[frame]).expect("a Vec takes every write");
        let mut expected = vec![0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0];
        expected.extend([0; 8]);
        expected.extend([128, 0, 0, 0, 1, 0, 0, 0]);
        expected.extend([
            1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 60, 0, 0, 0, 0xaa, 0xaa, 0xaa,
        ]);
        assert_eq!(file, expected);
    }
}
