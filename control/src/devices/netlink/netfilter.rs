//! A word with the kernel's packet filter: what nftables holds, and changes to it.
//!
//! In: requests by their numbers and attributes, in the calling thread's namespace. Out: what it lists,
//! or that all changes of a batch hold; of one that is refused none does.
//! Never: runs `nft`, or keeps a socket: each question has its own.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::Attributes;

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// Bytes of `struct nlmsghdr`, and of `struct nfgenmsg` behind it.
const HEADER: usize = 16;
const GENERAL: usize = 4;
/// `NLMSG_ERROR`, `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// An attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// Datagrams of one answer: a node with thousands of services has some ten thousand chains of 60
/// bytes each, 500 to a datagram.
const DATAGRAMS_MAX: usize = 10_000;
/// A list that changed while it was read is asked for again, this often at most; then it is taken as
/// it was read, since who writes that often is looked at again soon.
const LIST_TRIES_MAX: usize = 4;

/// One change of a batch, as a whole message.
pub(crate) type Change = Vec<u8>;

/// An object as the kernel lists it.
pub(crate) struct Listed(Vec<u8>);

impl Listed {
    /// Its attributes.
    pub(crate) fn attributes(&self) -> Attributes<'_> {
        Attributes(&self.0)
    }
}

/// What the kernel answers who has no nftables.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    use nix::libc::{EINVAL, EOPNOTSUPP, EPROTONOSUPPORT};
    matches!(
        error.raw_os_error(),
        Some(EINVAL | EOPNOTSUPP | EPROTONOSUPPORT)
    )
}

/// All objects of a family (0: of every one) that the request `get` lists, which come as `new`.
pub(crate) fn list(get: u16, new: u16, family: u8, asked: &[u8]) -> io::Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for _ in 0..LIST_TRIES_MAX {
        listed.clear();
        if !list_once(get, new, family, asked, &mut listed)? {
            break;
        }
    }
    Ok(listed)
}

/// True if the list was torn by a change.
fn list_once(
    get: u16,
    new: u16,
    family: u8,
    asked: &[u8],
    listed: &mut Vec<Listed>,
) -> io::Result<bool> {
    let socket = open()?;
    socket.send(&message(get, NLM_F_DUMP, family, asked), 0)?;
    let mut torn = false;
    for _ in 0..DATAGRAMS_MAX {
        let (datagram, _) = socket.recv_from_full()?;
        let read = read(&datagram, new, listed)?;
        torn |= read.torn;
        if read.ended {
            return Ok(torn);
        }
    }
    Err(io::Error::other("the list has no end"))
}

/// Makes all of `changes`, or none.
pub(crate) fn change(changes: &[Change]) -> io::Result<()> {
    let socket = open()?;
    // Whatever is to be answered is there when the batch is sent.
    socket.set_non_blocking(true)?;
    let batch = [&[edge(BATCH_BEGIN)], changes, &[edge(BATCH_END)]].concat();
    socket.send(&batch.concat(), 0)?;
    let mut left = changes.len();
    while left > 0 {
        let (datagram, _) = socket.recv_from_full()?;
        for verdict in verdicts(&datagram) {
            verdict?;
            left = left.saturating_sub(1);
        }
    }
    Ok(())
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// What a datagram of a list told besides its objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Read {
    ended: bool,
    torn: bool,
}

/// The messages of a datagram: kind, flags and body. One that is longer than its datagram is an error.
fn messages(datagram: &[u8]) -> impl Iterator<Item = io::Result<(u16, u16, &[u8])>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let (&[a, b, c, d, k0, k1, f0, f1, ..], _) = rest.split_first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let Some(body) = rest.get(HEADER..length) else {
            rest = &[];
            let why = "a message is longer than its datagram";
            return Some(Err(io::Error::other(why)));
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        let (kind, flags) = ([k0, k1], [f0, f1]);
        Some(Ok((
            u16::from_ne_bytes(kind),
            u16::from_ne_bytes(flags),
            body,
        )))
    })
}

/// The number that an error, or the end of a list, begins with.
fn verdict(body: &[u8]) -> io::Result<()> {
    let code = body
        .first_chunk()
        .map_or(0, |code| i32::from_ne_bytes(*code));
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_abs())),
    }
}

fn verdicts(datagram: &[u8]) -> impl Iterator<Item = io::Result<()>> {
    messages(datagram).filter_map(|message| match message {
        Ok((ERROR, _, body)) => Some(verdict(body)),
        Ok(_) => None,
        Err(garbled) => Some(Err(garbled)),
    })
}

/// Gathers what a datagram lists of the kind `new`.
fn read(datagram: &[u8], new: u16, listed: &mut Vec<Listed>) -> io::Result<Read> {
    let mut told = Read::default();
    for message in messages(datagram) {
        let (kind, flags, body) = message?;
        told.torn |= flags & NLM_F_DUMP_INTR != 0;
        match kind {
            DONE | ERROR => {
                verdict(body)?;
                told.ended = true;
                break;
            }
            kind if kind == SUBSYSTEM << 8 | new => {
                listed.push(Listed(body.get(GENERAL..).unwrap_or_default().to_vec()));
            }
            _ => {}
        }
    }
    Ok(told)
}

/// One change: what it is, how (`NLM_F_CREATE` and the like), and its attributes.
pub(crate) fn changing(kind: u16, flags: u16, family: u8, body: &[u8]) -> Change {
    message(kind, NLM_F_ACK | flags, family, body)
}

fn message(kind: u16, flags: u16, family: u8, body: &[u8]) -> Vec<u8> {
    let general = [family, 0, 0, 0];
    whole(SUBSYSTEM << 8 | kind, flags, &[&general, body].concat())
}

fn edge(kind: u16) -> Vec<u8> {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    whole(kind, 0, &[0, 0, high, low])
}

fn whole(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // Sequence 1, port 0.
    bytes.extend(1_u32.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

/// An attribute.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute that holds others.
pub(crate) fn nested(kind: u16, inside: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &inside.concat())
}

/// A number, which nftables wants in network order.
pub(crate) fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// A text with its closing zero.
pub(crate) fn text(kind: u16, text: &str) -> Vec<u8> {
    attribute(kind, &[text.as_bytes(), &[0]].concat())
}

/// One step of a rule: `NFTA_LIST_ELEM` 1 around `NFTA_EXPR_NAME` 1 and `NFTA_EXPR_DATA` 2.
pub(crate) fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, data)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NEW: u16 = 3;

    #[test]
    fn a_list_ends_with_its_end_and_an_error_is_one() {
        let object = |kind: u16, name: &str| message(kind, 0, 0, &text(1, name));
        let datagram = [object(NEW, "one"), object(7, "other"), object(NEW, "two")].concat();
        let mut listed = Vec::new();
        let told = read(&datagram, NEW, &mut listed).expect("sound");
        assert_eq!(told, Read::default());
        let names: Vec<_> = listed.iter().map(|one| one.attributes().text(1)).collect();
        assert_eq!(names, [Some("one".to_owned()), Some("two".to_owned())]);
        let end = whole(DONE, NLM_F_DUMP_INTR, &0_i32.to_ne_bytes());
        let told = read(&end, NEW, &mut listed).expect("sound");
        assert!(told.ended && told.torn);
        let refused = whole(ERROR, 0, &(-nix::libc::EPERM).to_ne_bytes());
        let error = read(&refused, NEW, &mut listed).expect_err("it was refused");
        assert_eq!(error.raw_os_error(), Some(nix::libc::EPERM));
        let of_a_batch: Vec<_> = verdicts(&[end, refused].concat()).collect();
        assert!(matches!(&of_a_batch[..], [Err(error)] if error.raw_os_error() == Some(1)));
        assert!(read(&datagram[..datagram.len() - 1], NEW, &mut listed).is_err());
    }

    proptest! {
        #[test]
        fn any_answer_is_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, NEW, &mut Vec::new());
            let _ = read(&message(NEW, 0, 0, &bytes), NEW, &mut Vec::new());
            let _ = verdicts(&bytes).count();
        }
    }
}
