//! Frames from outside: hexadecimal text, and capture files.
//!
//! In: text, or the bytes of a pcap or pcapng file. Out: one whole frame.
//! Never: a part of a frame as if it were all of it, or a frame of another link type.

use std::io::{self, Read};

use dataplane::buffer::FRAME_MAX;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError};

/// The first bytes of a pcapng file, in either byte order.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// What is wrong with the text or the file.
#[derive(Debug, thiserror::Error)]
pub enum BadInput {
    /// A character that is no digit.
    #[error("line {line}, column {column}: '{found}' is no hexadecimal digit")]
    Digit {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// The character.
        found: char,
    },
    /// Half a byte at the end.
    #[error("{0} hexadecimal digits: a byte has two")]
    Odd(usize),
    /// Nothing at all.
    #[error("there are no bytes in it")]
    Empty,
    /// More than a frame can have.
    #[error("{0} bytes: a frame has at most {FRAME_MAX}")]
    TooLong(usize),
    /// Not such a file.
    #[error("neither a pcap nor a pcapng file: {0}")]
    Format(PcapError),
    /// The file ends within a frame, or within its own header.
    #[error("cut short: it ends within frame {0}")]
    Truncated(usize),
    /// The file is broken before the frame.
    #[error("frame {0} cannot be read: {1}")]
    Broken(usize, PcapError),
    /// Not so many frames.
    #[error("there is no frame {wanted}: the file has {have}")]
    NoSuchFrame {
        /// From 1.
        wanted: usize,
        /// How many there are.
        have: usize,
    },
    /// Frames of another kind of link.
    #[error("the link type is {0:?}, and Tapline switches Ethernet (1)")]
    LinkType(DataLink),
    /// The device under it.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A frame, and how long it was when it was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The bytes that are there.
    pub bytes: Vec<u8>,
    /// Bytes of the whole frame.
    pub whole: usize,
}

/// Reads hexadecimal digits. Blanks and colons may stand anywhere between them, and an offset such
/// as `0x0010:` at the start of a line, as `tcpdump -xx` prints it.
///
/// # Errors
/// The place of the first character that is none of these.
pub fn from_hex(text: &str) -> Result<Vec<u8>, BadInput> {
    let mut digits = Vec::new();
    for (line, row) in text.lines().enumerate() {
        let skipped = offset_len(row);
        for (column, found) in row.chars().enumerate().skip(skipped) {
            match found.to_digit(16) {
                Some(digit) => digits.push(digit as u8),
                None if found.is_whitespace() || found == ':' => {}
                None => {
                    let (line, column) = (line + 1, column + 1);
                    return Err(BadInput::Digit {
                        line,
                        column,
                        found,
                    });
                }
            }
        }
    }
    if !digits.len().is_multiple_of(2) {
        return Err(BadInput::Odd(digits.len()));
    }
    let bytes = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]);
    fits(bytes.collect())
}

/// How many characters of a line are an offset, or the `0x` before its digits.
fn offset_len(row: &str) -> usize {
    let blanks = row.chars().take_while(|c| c.is_whitespace()).count();
    let rest: Vec<char> = row.chars().skip(blanks).collect();
    if !rest.starts_with(&['0', 'x']) {
        return 0;
    }
    let digits = rest[2..].iter().take_while(|c| c.is_ascii_hexdigit());
    let end = 2 + digits.count();
    blanks
        + if rest.get(end) == Some(&':') {
            end + 1
        } else {
            2
        }
}

fn fits(bytes: Vec<u8>) -> Result<Vec<u8>, BadInput> {
    match bytes.len() {
        0 => Err(BadInput::Empty),
        len if len > FRAME_MAX => Err(BadInput::TooLong(len)),
        _ => Ok(bytes),
    }
}

/// Reads frame `wanted`, counted from 1 as Wireshark does, of a pcap or pcapng file.
///
/// # Errors
/// What is wrong with the file, up to and in that frame. What is behind it is not read.
pub fn from_pcap(mut file: impl Read, wanted: usize) -> Result<Captured, BadInput> {
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic)?;
    let is_next = magic == PCAPNG;
    let file = io::Cursor::new(magic).chain(file);
    let captured = if is_next {
        next_generation(file, wanted)?
    } else {
        classic(file, wanted)?
    };
    let Captured { bytes, whole } = captured;
    let bytes = fits(bytes)?;
    if whole > FRAME_MAX {
        return Err(BadInput::TooLong(whole));
    }
    let whole = whole.max(bytes.len());
    Ok(Captured { bytes, whole })
}

fn classic(file: impl Read, wanted: usize) -> Result<Captured, BadInput> {
    let mut reader = PcapReader::new(file).map_err(BadInput::Format)?;
    let link = reader.header().datalink;
    if link != DataLink::ETHERNET {
        return Err(BadInput::LinkType(link));
    }
    let mut number = 0;
    // Raw: a time that makes no sense is no reason to refuse the frame.
    while let Some(packet) = reader.next_raw_packet() {
        number += 1;
        let packet = packet.map_err(|error| unreadable(number, error))?;
        if number == wanted {
            return Ok(Captured {
                bytes: packet.data.into_owned(),
                whole: packet.orig_len as usize,
            });
        }
    }
    Err(BadInput::NoSuchFrame {
        wanted,
        have: number,
    })
}

fn next_generation(file: impl Read, wanted: usize) -> Result<Captured, BadInput> {
    let mut reader = PcapNgReader::new(file).map_err(BadInput::Format)?;
    let mut number = 0;
    while let Some(block) = reader.next_block() {
        let block = block.map_err(|error| unreadable(number + 1, error))?;
        let (interface, bytes, whole) = match block {
            Block::EnhancedPacket(p) => (p.interface_id, p.data.into_owned(), p.original_len),
            Block::SimplePacket(p) => (0, p.data.into_owned(), p.original_len),
            Block::Packet(p) => (p.interface_id.into(), p.data.into_owned(), p.original_len),
            _ => continue,
        };
        number += 1;
        if number < wanted {
            continue;
        }
        let link = reader.interfaces().get(interface as usize);
        return match link.map(|interface| interface.linktype) {
            Some(DataLink::ETHERNET) => Ok(Captured {
                bytes,
                whole: whole as usize,
            }),
            Some(other) => Err(BadInput::LinkType(other)),
            None => Err(BadInput::Broken(
                number,
                PcapError::InvalidInterfaceId(interface),
            )),
        };
    }
    Err(BadInput::NoSuchFrame {
        wanted,
        have: number,
    })
}

fn unreadable(number: usize, error: PcapError) -> BadInput {
    match error {
        PcapError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            BadInput::Truncated(number)
        }
        PcapError::IoError(error) => BadInput::Io(error),
        error => BadInput::Broken(number, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: [u8; 16] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6, 0xab, 0xcd];

    /// A classic file of two frames, the second cut to 16 of 100 bytes.
    fn file(magic: u32, big: bool, link: u32) -> Vec<u8> {
        let word = |n: u32| {
            if big {
                n.to_be_bytes()
            } else {
                n.to_le_bytes()
            }
        };
        let half = |n: u16| {
            if big {
                n.to_be_bytes()
            } else {
                n.to_le_bytes()
            }
        };
        let mut file = word(magic).to_vec();
        file.extend([half(2), half(4)].concat());
        file.extend([0, 0, 65_535, link].map(word).concat());
        for whole in [16, 100] {
            // A time whose fraction is beyond a second.
            file.extend([1, u32::MAX, 16, whole].map(word).concat());
            file.extend(FRAME);
        }
        file
    }

    #[test]
    fn both_byte_orders_and_resolutions_of_the_classic_format_are_read() {
        for magic in [0xa1b2_c3d4, 0xa1b2_3c4d] {
            for big in [false, true] {
                let file = file(magic, big, 1);
                for (wanted, whole) in [(1, 16), (2, 100)] {
                    let captured = from_pcap(&file[..], wanted).expect("a sound file");
                    let bytes = FRAME.to_vec();
                    assert_eq!(captured, Captured { bytes, whole });
                }
            }
        }
    }

    #[test]
    fn a_file_that_is_cut_foreign_or_too_short_is_refused_by_name() {
        let whole = file(0xa1b2_c3d4, false, 1);
        let said = |file: &[u8], wanted| from_pcap(file, wanted).expect_err("bad").to_string();
        assert_eq!(said(&whole, 3), "there is no frame 3: the file has 2");
        let torn = &whole[..whole.len() - 1];
        assert_eq!(said(torn, 2), "cut short: it ends within frame 2");
        assert!(from_pcap(torn, 1).is_ok(), "what is behind is not read");
        let raw = file(0xa1b2_c3d4, false, 101);
        assert!(
            said(&raw, 1).contains("the link type is RAW"),
            "{}",
            said(&raw, 1)
        );
        for bad in [&b"GIF89a"[..], &[], &whole[..10]] {
            assert!(said(bad, 1).starts_with("neither a pcap nor"), "{bad:?}");
        }
    }

    #[test]
    fn a_pcapng_file_is_read_and_its_link_type_too() {
        for (link, good) in [(1, true), (113, false)] {
            let mut file = Vec::new();
            let words = |words: &[u32]| -> Vec<u8> {
                words.iter().flat_map(|word| word.to_le_bytes()).collect()
            };
            file.extend(words(&[
                0x0a0d_0d0a,
                28,
                0x1a2b_3c4d,
                1,
                u32::MAX,
                u32::MAX,
                28,
            ]));
            file.extend(words(&[1, 20, link, 0, 20]));
            file.extend(words(&[6, 48, 0, 0, 0, 16, 16]));
            file.extend(FRAME);
            file.extend(words(&[48]));
            let read = from_pcap(&file[..], 1);
            assert_eq!(read.is_ok(), good, "{read:?}");
            for len in 0..file.len() {
                let cut = from_pcap(&file[..len], 1);
                assert!(cut.is_err(), "{len} bytes of it make no frame");
            }
        }
    }

    #[test]
    fn hex_is_read_as_people_and_tcpdump_write_it() {
        let frame = [2, 0, 0, 0, 0, 1, 0xab];
        for text in [
            "020000000001ab",
            "02:00:00:00:00:01:AB\n",
            "02 00 00 00 00 01 ab",
            "0x020000000001ab",
            "\t0x0000:  0200 0000\n\t0x0004:  0001 ab",
        ] {
            assert_eq!(from_hex(text).expect(text), frame);
        }
    }

    #[test]
    fn bad_hex_is_refused_with_its_place() {
        let said = |text: &str| from_hex(text).expect_err("bad").to_string();
        assert_eq!(
            said("0200\n00g0"),
            "line 2, column 3: 'g' is no hexadecimal digit"
        );
        assert_eq!(said("020"), "3 hexadecimal digits: a byte has two");
        assert_eq!(said(" \n"), "there are no bytes in it");
        let long = "00".repeat(FRAME_MAX + 1);
        assert_eq!(said(&long), "65601 bytes: a frame has at most 65600");
    }
}
