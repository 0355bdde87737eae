//! A synchronous rtnetlink client, bound to one network namespace.
//!
//! In: a [`Netns`] to open the socket in, then typed requests (`link`, `address`, `filter`).
//! Out: the kernel's acknowledgement, or what it lists.
//! Never: runs a program, waits for anything but the kernel, or fails on an attribute that it
//! does not know: answers are searched for the few attributes that we need.
//!
//! A netlink socket belongs for ever to the namespace of the thread that opened it, so it is
//! opened by a thread that lives inside and used from anywhere.

pub mod address;
pub mod bridge;
pub mod filter;
pub mod link;
pub(crate) mod netfilter;
pub mod news;
pub mod nftables;
pub mod program;
pub mod shape;

use std::cell::Cell;
use std::io;

use netlink_packet_core::{
    Emitable, NLA_TYPE_MASK, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::devices::error::DeviceError;
use crate::devices::netns::Netns;

/// A list that the kernel saw change while it was read is asked for again, this often at most.
const DUMP_TRIES_MAX: u32 = 8;
/// `NLMSGERR_ATTR_MSG`: the kernel's sentence about an error.
const EXTENDED_ACK_MESSAGE: u16 = 1;
/// Bytes of `struct nlmsghdr`.
const HEADER_LENGTH: usize = 16;

/// An rtnetlink socket inside one namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    namespace: Netns,
    sequence: Cell<u32>,
}

/// One message of the kernel's answer: its body after the netlink header.
pub(crate) struct Answer(Vec<u8>);

impl Answer {
    /// The fixed part, `length` bytes; zeroes where the kernel sent less.
    pub(crate) fn fixed<const N: usize>(&self) -> [u8; N] {
        let mut fixed = [0; N];
        let have = self.0.len().min(N);
        fixed[..have].copy_from_slice(&self.0[..have]);
        fixed
    }

    /// The attributes behind a fixed part of `length` bytes.
    pub(crate) fn attributes(&self, length: usize) -> Attributes<'_> {
        Attributes(self.0.get(length..).unwrap_or_default())
    }
}

/// A run of netlink attributes, searched by number.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute `kind`.
    pub(crate) fn find(self, kind: u16) -> Option<&'a [u8]> {
        self.all()
            .find(|(found, _)| *found == kind)
            .map(|(_, value)| value)
    }

    /// The attributes inside attribute `kind`; none if it is absent.
    pub(crate) fn inside(self, kind: u16) -> Attributes<'a> {
        Attributes(self.find(kind).unwrap_or_default())
    }

    /// Every attribute with its number, up to the first that is broken.
    pub(crate) fn all(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let [l0, l1, k0, k1] = *rest.first_chunk()?;
            let length = usize::from(u16::from_ne_bytes([l0, l1]));
            let value = rest.get(4..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((u16::from_ne_bytes([k0, k1]) & NLA_TYPE_MASK, value))
        })
    }

    /// A native 32-bit number.
    pub(crate) fn number(self, kind: u16) -> Option<u32> {
        self.find(kind)?
            .first_chunk()
            .map(|bytes| u32::from_ne_bytes(*bytes))
    }

    /// A string, less its closing zero.
    pub(crate) fn text(self, kind: u16) -> Option<String> {
        let bytes = self.find(kind)?;
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}

impl Netlink {
    /// Opens a socket inside `namespace`.
    ///
    /// # Errors
    /// [`DeviceError::Inside`] if the namespace cannot be entered or has no netlink.
    pub fn open(namespace: &Netns) -> Result<Netlink, DeviceError> {
        let opened = namespace.run(|| {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Sentences instead of bare numbers, and errors that do not repeat the request.
            // Both are a courtesy that kernels before 4.12 do not have.
            let _ = socket.set_ext_ack(true);
            let _ = socket.set_cap_ack(true);
            Ok(socket)
        });
        match opened {
            Ok(socket) => Ok(Netlink {
                socket,
                namespace: namespace.clone(),
                sequence: Cell::new(0),
            }),
            Err(source) => Err(DeviceError::Inside {
                attempt: "open a netlink socket".into(),
                namespace: namespace.name().into(),
                source,
            }),
        }
    }

    /// The namespace that the socket works in.
    #[must_use]
    pub fn namespace(&self) -> &Netns {
        &self.namespace
    }

    /// Works on a thread of the namespace: device indices, and new sockets, mean that of the thread.
    fn inside<T: Send>(
        &self,
        attempt: &str,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> Result<T, DeviceError> {
        let done = self.namespace.run(work);
        done.map_err(|error| self.refused(attempt, error, None))
    }

    /// Sends one change and waits for the kernel's yes or no.
    pub(crate) fn change(
        &self,
        attempt: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), DeviceError> {
        self.exchange(attempt, message, NLM_F_ACK | flags)
            .map(|_| ())
    }

    /// Asks for one object.
    pub(crate) fn ask(
        &self,
        attempt: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<Answer>, DeviceError> {
        self.exchange(attempt, message, NLM_F_ACK)
            .map(|(answers, _)| answers)
    }

    /// Asks for a list, again if it changed underneath.
    pub(crate) fn list(
        &self,
        attempt: &str,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<Answer>, DeviceError> {
        for _ in 0..DUMP_TRIES_MAX {
            let (answers, torn) = self.exchange(attempt, message.clone(), NLM_F_DUMP)?;
            if !torn {
                return Ok(answers);
            }
        }
        Err(self.garbled(attempt, "the list changed each time that it was read"))
    }

    /// Sends `message`, gathers the answers to it up to their end, and says whether the list was
    /// torn by a change.
    fn exchange(
        &self,
        attempt: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(Vec<Answer>, bool), DeviceError> {
        let sequence = self.send(attempt, message, flags)?;
        let (mut answers, mut torn) = (Vec::new(), false);
        loop {
            let datagram = self.receive(attempt)?;
            let mut rest = datagram.as_slice();
            while rest.len() >= HEADER_LENGTH {
                let one = NetlinkBuffer::new_checked(rest)
                    .map_err(|bad| self.garbled(attempt, &bad.to_string()))?;
                let length = one.length() as usize;
                if one.sequence_number() == sequence {
                    torn |= one.flags() & NLM_F_DUMP_INTR != 0;
                    let body = &rest[HEADER_LENGTH..length];
                    match one.message_type() {
                        NLMSG_ERROR | NLMSG_DONE => {
                            self.verdict(attempt, one.message_type(), body)?;
                            return Ok((answers, torn));
                        }
                        _ => answers.push(Answer(body.to_vec())),
                    }
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }

    fn send(
        &self,
        attempt: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<u32, DeviceError> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket
            .send(&bytes, 0)
            .map_err(|e| self.refused(attempt, e, None))?;
        Ok(sequence)
    }

    fn receive(&self, attempt: &str) -> Result<Vec<u8>, DeviceError> {
        loop {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => return Ok(datagram),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.refused(attempt, e, None)),
            }
        }
    }

    /// Reads the number that closes an answer, and the sentence that may follow it.
    fn verdict(&self, attempt: &str, kind: u16, body: &[u8]) -> Result<(), DeviceError> {
        let code = body
            .first_chunk()
            .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        if code == 0 {
            return Ok(());
        }
        // After the number, an error carries the header of the request, the end of a list nothing.
        let skip = if kind == NLMSG_ERROR {
            4 + HEADER_LENGTH
        } else {
            4
        };
        let says = Attributes(body.get(skip..).unwrap_or_default()).text(EXTENDED_ACK_MESSAGE);
        Err(self.refused(attempt, io::Error::from_raw_os_error(code.abs()), says))
    }

    pub(crate) fn refused(
        &self,
        attempt: &str,
        source: io::Error,
        kernel_says: Option<String>,
    ) -> DeviceError {
        DeviceError::Refused {
            attempt: attempt.into(),
            namespace: self.namespace.name().into(),
            source,
            kernel_says: kernel_says.filter(|says| !says.is_empty()),
        }
    }

    fn garbled(&self, attempt: &str, what: &str) -> DeviceError {
        DeviceError::Garbled {
            attempt: attempt.into(),
            namespace: self.namespace.name().into(),
            what: what.into(),
        }
    }
}

/// Tells two contents apart (FNV-1a), for the names that ours are known by.
fn fingerprint(bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// The bytes of something that knows how to write itself.
pub(crate) fn bytes_of(thing: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; thing.buffer_len()];
    thing.emit(&mut bytes);
    bytes
}
