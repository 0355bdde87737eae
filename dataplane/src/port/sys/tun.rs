//! Opening a TAP queue: `/dev/net/tun`, `TUNSETIFF`, `TUNSETVNETHDRSZ`, `TUNSETOFFLOAD`.
//!
//! In: a device name. Out: a non-blocking descriptor that speaks `virtio_net_hdr`.
//! Never: leaves a device's offloads to chance: they outlive the descriptor that set them.
//!
//! Constants: `include/uapi/linux/if_tun.h`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::check;
use crate::facility::Facility;
use crate::frame::offload::HEADER_LEN;

/// Checksums and TCP and UDP segmentation, and then ever fewer of them: a kernel before 6.2 knows
/// no UDP segmentation, and one that refuses a set grants a smaller one. USO4 and USO6 go only
/// together.
const OFFLOADS: [u32; 5] = [
    libc::TUN_F_CSUM
        | libc::TUN_F_TSO4
        | libc::TUN_F_TSO6
        | libc::TUN_F_TSO_ECN
        | libc::TUN_F_USO4
        | libc::TUN_F_USO6,
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN,
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6,
    libc::TUN_F_CSUM,
    0,
];

/// `struct ifreq` as `TUNSETIFF` reads it: the name, the flags, and padding to its 40 bytes.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

/// Opens a queue of the TAP `name`; returns it with the offloads that the kernel granted.
pub(crate) fn open(name: &str, multi_queue: bool) -> io::Result<(OwnedFd, u32)> {
    // Non-blocking is also what lets the kernel build small frames in one step (tun_build_skb).
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let queue = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    let mut wanted = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if multi_queue {
        wanted |= libc::IFF_MULTI_QUEUE;
    }
    let mut request = Request {
        name: device_name(name)?,
        flags: wanted as i16,
        rest: [0; 22],
    };
    // SAFETY: `queue` is open for the whole call; TUNSETIFF reads and writes one `ifreq`, and
    // `request` is one in size and layout (asserted above) and lives until the call returns.
    // Checked by: tests/tests/namespaces.rs opens, re-opens and moves frames.
    check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let offloads = settle(&queue)?;
    Ok((queue, offloads))
}

/// Takes over a queue that is open already; returns it with its device's name and the offloads that
/// the kernel granted. Frames that wait in it stay.
pub(crate) fn adopt(queue: OwnedFd) -> io::Result<(OwnedFd, String, u32)> {
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        flags: 0,
        rest: [0; 22],
    };
    // SAFETY: `queue` is open for the whole call; TUNGETIFF writes one `ifreq`, and `request` is one
    // in size and layout (asserted above) and lives until the call returns; on anything but a TAP's
    // queue the call fails and writes nothing. Checked by: tests/tests/namespaces.rs adopts one.
    check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    let wanted = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if libc::c_int::from(request.flags) & wanted != wanted {
        let why = "this queue does not speak virtio_net_hdr";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let flags = rustix::fs::fcntl_getfl(&queue)?;
    rustix::fs::fcntl_setfl(&queue, flags | OFlags::NONBLOCK)?;
    let length = request.name.iter().take_while(|b| **b != 0).count();
    let name = String::from_utf8_lossy(&request.name[..length]).into_owned();
    let offloads = settle(&queue)?;
    Ok((queue, name, offloads))
}

/// Sets the header's length and every offload that the kernel grants.
fn settle(queue: &OwnedFd) -> io::Result<u32> {
    let header_len = HEADER_LEN as libc::c_int;
    // SAFETY: as above; TUNSETVNETHDRSZ reads one `int` through the pointer.
    check(unsafe {
        libc::ioctl(
            queue.as_raw_fd(),
            libc::TUNSETVNETHDRSZ,
            &raw const header_len,
        )
    })?;
    let mut refused = io::Error::from(io::ErrorKind::Unsupported);
    let uso = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let allowed = |offloads: &u32| Facility::Uso.is_allowed() || offloads & uso == 0;
    for offloads in OFFLOADS.into_iter().filter(allowed) {
        let mask = libc::c_ulong::from(offloads);
        // SAFETY: as above; TUNSETOFFLOAD takes its mask by value and touches no memory.
        match check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETOFFLOAD, mask) }) {
            Ok(()) => return Ok(offloads),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// A device name: 1 to 15 bytes, none of them zero, `/` or white space (`dev_valid_name`,
/// net/core/dev.c).
fn device_name(name: &str) -> io::Result<[u8; libc::IFNAMSIZ]> {
    let bytes = name.as_bytes();
    let fine = (1..libc::IFNAMSIZ).contains(&bytes.len())
        && bytes
            .iter()
            .all(|b| b.is_ascii_graphic() && *b != b'/' && *b != b':' && *b != b'%');
    if !fine {
        let why = format!("'{name}' is no name of a network device");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut padded = [0; libc::IFNAMSIZ];
    padded[..bytes.len()].copy_from_slice(bytes);
    Ok(padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_would_refuse_or_expand_are_refused_before_it_is_asked() {
        for bad in ["", "sixteen-bytes-xx", "a/b", "a b", "tap%d", "a:b", "a\0b"] {
            assert!(device_name(bad).is_err(), "{bad:?}");
        }
        assert!(device_name("azv32fe06c7c68").is_ok());
    }
}
