//! The chains of the older packet filter (`iptables-legacy`), which nftables does not show.
//!
//! In: a namespace's tables, as `getsockopt` gives them. Out: the names of the chains that somebody made.
//! Never: changes a rule; trusts a length that it reads.
//!
//! A chain that somebody made begins with an entry whose target is called `ERROR` and carries the
//! chain's name; the table ends with one more, called `ERROR` itself.

use std::io;

use dataplane::port::sys::xtables::{self, Family};

/// Where `struct ipt_entry` and `struct ip6t_entry` say where their target begins, and they end.
const fn offsets_at(family: Family) -> usize {
    match family {
        Family::Ipv4 => 88,
        Family::Ipv6 => 140,
    }
}

/// In `struct xt_error_target`: the target's name, and the chain's, each closed by a zero.
const TARGET_NAME: std::ops::Range<usize> = 2..31;
const CHAIN_NAME: std::ops::Range<usize> = 32..62;
const ERROR: &str = "ERROR";

/// The chains of a table of the calling thread's namespace.
///
/// # Errors
/// As [`xtables::entries`].
pub(super) fn chains(family: Family, table: &str) -> io::Result<Vec<String>> {
    Ok(read(family, &xtables::entries(family, table)?))
}

fn read(family: Family, mut entries: &[u8]) -> Vec<String> {
    let half = |entry: &[u8], at: usize| -> Option<usize> {
        let bytes = entry.get(at..)?.first_chunk()?;
        Some(usize::from(u16::from_ne_bytes(*bytes)))
    };
    let at = offsets_at(family);
    let mut found = Vec::new();
    while let (Some(target), Some(next)) = (half(entries, at), half(entries, at + 2)) {
        let Some(rest) = entries.get(next..).filter(|_| next > at) else {
            break;
        };
        let named = |range| {
            entries
                .get(target..next)
                .and_then(|target| text(target, range))
        };
        if named(TARGET_NAME).as_deref() == Some(ERROR) {
            found.extend(named(CHAIN_NAME).filter(|name| name != ERROR));
        }
        entries = rest;
    }
    found
}

fn text(target: &[u8], range: std::ops::Range<usize>) -> Option<String> {
    let bytes = target.get(range)?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An entry whose target has that name, and so much behind it.
    fn entry(family: Family, target: &str, data: &str) -> Vec<u8> {
        let start = match family {
            Family::Ipv4 => 112,
            Family::Ipv6 => 168,
        };
        let mut bytes = vec![0; start + 64];
        let at = offsets_at(family);
        bytes[at..at + 2].copy_from_slice(&(start as u16).to_ne_bytes());
        bytes[at + 2..at + 4].copy_from_slice(&(start as u16 + 64).to_ne_bytes());
        bytes[start + 2..][..target.len()].copy_from_slice(target.as_bytes());
        bytes[start + 32..][..data.len()].copy_from_slice(data.as_bytes());
        bytes
    }

    #[test]
    fn chains_are_what_begins_with_an_error() {
        for family in [Family::Ipv4, Family::Ipv6] {
            let table = [
                entry(family, "", ""),
                entry(family, "ERROR", "AZURE-NPM"),
                entry(family, "MARK", "cali-no-chain"),
                entry(family, "ERROR", "cali-FORWARD"),
                entry(family, "ERROR", "ERROR"),
            ];
            assert_eq!(read(family, &table.concat()), ["AZURE-NPM", "cali-FORWARD"]);
        }
    }

    proptest! {
        #[test]
        fn any_table_is_read_to_an_end(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            offsets in any::<[u8; 4]>(),
        ) {
            for family in [Family::Ipv4, Family::Ipv6] {
                let mut bytes = bytes.clone();
                read(family, &bytes);
                let at = offsets_at(family);
                if let Some(room) = bytes.get_mut(at..at + 4) {
                    room.copy_from_slice(&offsets);
                }
                read(family, &bytes);
            }
        }
    }
}
