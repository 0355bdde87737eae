//! The older packet filter's tables: `getsockopt` of `ip_tables` and `ip6_tables`.
//!
//! In: a table's name, in the caller's namespace. Out: its entries, as the kernel lays them out.
//! Never: changes a table, has the kernel load one, or keeps a pointer after a call.
//!
//! Layouts and numbers: `include/uapi/linux/netfilter_ipv4/ip_tables.h`, and its twin of IPv6.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::check;

/// Bytes of a table's name, the closing zero among them.
const NAME_LENGTH: usize = 32;
/// `struct ipt_getinfo`; its last word is the length of the entries.
const INFO_LENGTH: usize = 84;
/// `struct ipt_get_entries` before the entries, whose counters are words of 64 bits.
const HEAD_LENGTH: usize = (NAME_LENGTH + 4).next_multiple_of(align_of::<u64>());
/// A node with thousands of services has some ten megabytes of rules.
const ENTRIES_MAX: usize = 256 << 20;

const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;

/// Which of the two filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `ip_tables`.
    Ipv4,
    /// `ip6_tables`.
    Ipv6,
}

/// The entries of a table that is there.
///
/// # Errors
/// `EINVAL` for a name that is too long; what the kernel says: `ENOENT` without the table, `EPERM`
/// without `CAP_NET_ADMIN`, `EAGAIN` if it changed meanwhile.
pub fn entries(family: Family, table: &str) -> io::Result<Vec<u8>> {
    if table.len() >= NAME_LENGTH {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (of, level) = match family {
        Family::Ipv4 => (AddressFamily::INET, libc::IPPROTO_IP),
        Family::Ipv6 => (AddressFamily::INET6, libc::IPPROTO_IPV6),
    };
    let socket = socket_with(of, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut info = vec![0; INFO_LENGTH];
    info[..table.len()].copy_from_slice(table.as_bytes());
    get(&socket, level, GET_INFO, &mut info)?;
    let size = info
        .last_chunk()
        .map_or(0, |word| u32::from_ne_bytes(*word));
    let length = size as usize;
    if length > ENTRIES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut all = vec![0; HEAD_LENGTH + length];
    all[..table.len()].copy_from_slice(table.as_bytes());
    all[NAME_LENGTH..NAME_LENGTH + 4].copy_from_slice(&size.to_ne_bytes());
    get(&socket, level, GET_ENTRIES, &mut all)?;
    Ok(all.split_off(HEAD_LENGTH))
}

fn get(
    socket: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut length = buffer.len() as libc::socklen_t;
    let into = buffer.as_mut_ptr().cast();
    // SAFETY: `into` and `length` describe the slice that we hold for the whole call; the kernel
    // writes at most `length` bytes of plain data, any of which a byte may be, and keeps nothing.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, into, &mut length) })
}
