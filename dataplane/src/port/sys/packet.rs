//! Packet sockets: `socket(AF_PACKET)`, its options, and `recvmmsg` straight into the pool.
//!
//! In: a device name; then a run of memory and places in it. Out: a bound, non-blocking
//! descriptor; then how much came into each place.
//! Never: keeps a pointer into the memory after a call.
//!
//! Constants and layouts: `include/uapi/linux/if_packet.h`.

use std::io;
use std::mem::zeroed;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with, sockopt};

use super::check;

/// Messages of one `recvmmsg`. The next frame may be one of 64 KB, so a larger number could bring
/// in far more than a port's share of a turn; eight already make the call cheap.
pub(crate) const BATCH: usize = 8;

/// Bytes each way before the kernel drops: some 100 super-frames, or ten times as many of 1500
/// bytes. No memory is held for a queue that is empty. Longer would be delay, not capacity.
const BUFFER_BYTES: usize = 8 << 20;

const PACKET_AUXDATA: libc::c_int = 8;
const PACKET_VNET_HDR: libc::c_int = 15;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;

/// `struct tpacket_auxdata`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Auxiliary {
    status: u32,
    len: u32,
    snaplen: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

/// Room for the one control message that these sockets ask for.
#[repr(C)]
#[derive(Clone, Copy)]
struct Control {
    header: libc::cmsghdr,
    data: Auxiliary,
}

const _: () = assert!(size_of::<Auxiliary>() == 20);

/// What came into one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Bytes written, the virtio-net header among them.
    pub(crate) len: usize,
    /// The 802.1Q tag that the kernel took out of the frame.
    pub(crate) tag: Option<[u8; 4]>,
}

/// Opens a socket that hears and sends every protocol on the device `name`.
pub(crate) fn open(name: &str) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    // No protocol: the socket is deaf until it is bound, so no frame comes without its header.
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    let index = netdevice::name_to_index(&socket, name)?;
    for option in [PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING, PACKET_AUXDATA] {
        set(&socket, option)?;
    }
    // The kernel's own bounds are for sockets without CAP_NET_ADMIN; without it, as much as it
    // grants is fine.
    if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(&socket, BUFFER_BYTES);
    }
    force_send_buffer(&socket);
    bind(&socket, index)?;
    Ok(socket)
}

fn set(socket: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    set_at(socket, libc::SOL_PACKET, option, 1)
}

fn force_send_buffer(socket: &OwnedFd) {
    let bytes = BUFFER_BYTES as libc::c_int;
    if set_at(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes).is_err() {
        let _ = set_at(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes);
    }
}

fn set_at(
    socket: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `socket` is open for the whole call; the kernel reads `len` bytes, one `int`, from
    // `value`, which lives until the call returns.
    // Checked by: tests/tests/packet_port.rs, where each option's effect is seen.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            len,
        )
    })
}

fn bind(socket: &OwnedFd, index: u32) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is integers and an array of them, for which all zeroes is a value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as libc::c_int;
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: as in `set_at`: `len` bytes are read from `address`, a whole `sockaddr_ll`.
    // Checked by: tests/tests/packet_port.rs.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })
}

/// Has the device `name` hand over frames for other stations, too (`PACKET_MR_PROMISC`), for as long as
/// the socket is open.
pub(crate) fn hear_all(socket: &OwnedFd, name: &str) -> io::Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: netdevice::name_to_index(socket, name)? as libc::c_int,
        mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    let len = size_of::<libc::packet_mreq>() as libc::socklen_t;
    // SAFETY: as in `set_at`: `len` bytes are read from `request`, a whole `packet_mreq`.
    // Checked by: control/tests/node/listen.rs, where the device has a listener then.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const request).cast(),
            len,
        )
    })
}

/// Receives what is there, at most one message into each of `places`, and says what came. `EINVAL`
/// means that the kernel had a frame which no virtio-net header can describe, and dropped it.
///
/// # Panics
/// If a place lies outside `memory`, or there are more places than arrivals or [`BATCH`].
pub(crate) fn receive(
    socket: &OwnedFd,
    memory: &mut [u8],
    places: impl Iterator<Item = Range<usize>>,
    arrivals: &mut [Arrival; BATCH],
) -> io::Result<usize> {
    // SAFETY: all three are plain integers and pointers, for which all zeroes is a value.
    let (mut messages, mut vectors, mut controls) = unsafe {
        (
            zeroed::<[libc::mmsghdr; BATCH]>(),
            zeroed::<[libc::iovec; BATCH]>(),
            zeroed::<[Control; BATCH]>(),
        )
    };
    let mut count = 0;
    let len = memory.len();
    let memory = memory.as_mut_ptr();
    for place in places {
        assert!(place.start <= place.end && place.end <= len && count < BATCH);
        // `wrapping_add` needs no promise; the assertion keeps it inside.
        vectors[count].iov_base = memory.wrapping_add(place.start).cast();
        vectors[count].iov_len = place.len();
        count += 1;
    }
    for index in 0..count {
        let header = &mut messages[index].msg_hdr;
        header.msg_iov = &raw mut vectors[index];
        header.msg_iovlen = 1;
        header.msg_control = (&raw mut controls[index]).cast();
        header.msg_controllen = size_of::<Control>() as _;
    }
    // SAFETY: `socket` is open for the whole call. The kernel writes to the first `count` of
    // `messages`; through them to one vector and one control buffer each, alive until the end of
    // this function; and through each vector to `iov_len` bytes that the assertion above found
    // inside `memory`, which is borrowed for this call and touched by nobody else meanwhile.
    // Checked by: the assertion, and tests/tests/packet_port.rs.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            count as libc::c_uint,
            libc::MSG_DONTWAIT as _,
            std::ptr::null_mut(),
        )
    };
    check(received)?;
    let received = received as usize;
    for index in 0..received {
        arrivals[index] = Arrival {
            len: messages[index].msg_len as usize,
            tag: tag(&controls[index]),
        };
    }
    Ok(received)
}

/// The tag, if a control message tells of one. Where none was written, all is zero.
fn tag(control: &Control) -> Option<[u8; 4]> {
    let (header, data) = (&control.header, &control.data);
    let told = header.cmsg_level == libc::SOL_PACKET
        && header.cmsg_type == PACKET_AUXDATA
        && data.status & TP_STATUS_VLAN_VALID != 0;
    let tpid = if data.status & TP_STATUS_VLAN_TPID_VALID != 0 {
        data.vlan_tpid
    } else {
        0x8100
    };
    let ([a, b], [c, d]) = (tpid.to_be_bytes(), data.vlan_tci.to_be_bytes());
    told.then_some([a, b, c, d])
}
