//! Programs on a device's ingress: `bpf(2)`, as far as steering needs it.
//!
//! In: instructions that control has put together, the index of a device in the caller's namespace.
//! Out: owned descriptors, numbers and names; or the kernel's error.
//! Never: keeps a pointer after a call; trusts a program, which the kernel verifies.
//!
//! Layouts and numbers: `include/uapi/linux/bpf.h`. A program that was attached in this way stays
//! when its descriptor is closed, as a filter does.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Bytes of a program's name, less the closing zero.
pub const NAME_MAX: usize = 15;

/// Programs on one ingress that are looked at; the kernel takes 64.
const ATTACHED_MAX: usize = 64;

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;

const PROG_TYPE_SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;
const F_REPLACE: u32 = 1 << 2;

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; NAME_MAX + 1],
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    device: u32,
    program: u32,
    hook: u32,
    flags: u32,
    replaced: u32,
    relative: u32,
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    device: u32,
    hook: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    pad: u32,
    unused: [u64; 4],
}

#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct AskInfo {
    program: u32,
    length: u32,
    info: u64,
}

/// `struct bpf_prog_info` up to the name.
#[repr(C)]
#[derive(Default)]
struct Info {
    head: [u64; 8],
    name: [u8; NAME_MAX + 1],
}

const _: () = assert!(size_of::<Load>() == 64 && size_of::<Attach>() == 32);
const _: () = assert!(size_of::<Query>() == 64 && size_of::<Info>() == 80);

/// Makes one call. `T` is the attributes of `command`, all of whose pointers lead to memory that
/// outlives the call.
fn call<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    let size = size_of::<T>() as libc::c_long;
    let pointer: *mut T = attributes;
    // SAFETY: `attributes` is a live `repr(C)` struct of `size` bytes; the addresses in it are of
    // slices and structs that each caller below holds across this call, with their true lengths
    // beside. The kernel copies, and keeps nothing.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size) };
    match answer {
        0.. => Ok(answer),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The descriptor that a call answered.
fn owned(answer: libc::c_long) -> OwnedFd {
    // SAFETY: only called with what `PROG_LOAD` or `PROG_GET_FD_BY_ID` just answered, which is a
    // new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(answer as libc::c_int) }
}

fn address<T: ?Sized>(of: &T) -> u64 {
    std::ptr::from_ref(of).cast::<u8>() as u64
}

/// Has the kernel verify and hold a classifier; each instruction is one `struct bpf_insn`.
///
/// # Errors
/// `EINVAL` for a name that is too long; what the kernel says.
pub fn load(name: &str, instructions: &[u64]) -> io::Result<OwnedFd> {
    let mut load = Load {
        kind: PROG_TYPE_SCHED_CLS,
        count: instructions.len() as u32,
        instructions: address(instructions),
        licence: address(c"Dual MIT/GPL"),
        ..Load::default()
    };
    let Some(room) = load.name[..NAME_MAX].get_mut(..name.len()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    room.copy_from_slice(name.as_bytes());
    call(PROG_LOAD, &mut load).map(owned)
}

/// Puts a program on a device's ingress, behind those of others, or in the place of `replaced`.
///
/// # Errors
/// What the kernel says: `EINVAL` before Linux 6.6.
pub fn attach(device: u32, program: &OwnedFd, replaced: Option<&OwnedFd>) -> io::Result<()> {
    let mut attach = Attach {
        device,
        program: program.as_raw_fd() as u32,
        hook: TCX_INGRESS,
        flags: replaced.map_or(0, |_| F_REPLACE),
        replaced: replaced.map_or(0, |old| old.as_raw_fd() as u32),
        ..Attach::default()
    };
    call(PROG_ATTACH, &mut attach).map(|_| ())
}

/// Takes a program from a device's ingress.
///
/// # Errors
/// What the kernel says: `ENOENT` if it is not there.
pub fn detach(device: u32, program: &OwnedFd) -> io::Result<()> {
    let mut detach = Attach {
        device,
        program: program.as_raw_fd() as u32,
        hook: TCX_INGRESS,
        ..Attach::default()
    };
    call(PROG_DETACH, &mut detach).map(|_| ())
}

/// The numbers of the programs on a device's ingress, in their order.
///
/// # Errors
/// What the kernel says: `EINVAL` before Linux 6.6.
pub fn attached(device: u32) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; ATTACHED_MAX];
    let mut query = Query {
        device,
        hook: TCX_INGRESS,
        ids: ids.as_mut_ptr() as u64,
        count: ATTACHED_MAX as u32,
        ..Query::default()
    };
    call(PROG_QUERY, &mut query)?;
    ids.truncate(query.count as usize);
    Ok(ids)
}

/// The program with that number, and its name.
///
/// # Errors
/// What the kernel says: `ENOENT` if it is gone.
pub fn open(id: u32) -> io::Result<(OwnedFd, String)> {
    let mut by_id = ById {
        id,
        ..ById::default()
    };
    let program = call(PROG_GET_FD_BY_ID, &mut by_id).map(owned)?;
    let mut info = Info::default();
    let mut ask = AskInfo {
        program: program.as_raw_fd() as u32,
        length: size_of::<Info>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    call(OBJ_GET_INFO_BY_FD, &mut ask)?;
    let name = CStr::from_bytes_until_nul(&info.name).unwrap_or_default();
    Ok((program, name.to_string_lossy().into_owned()))
}
