//! A port of any kind, so that one switch can have several.
//!
//! In: a port. Out: the same port behind one type. Never: anything of its own.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use super::memory::MemoryPort;
use super::packet::PacketPort;
use super::tap::TapPort;
use super::{Capabilities, Flushed, Port, Ready, Taken};
use crate::buffer::{Frame, Pool};
use crate::verdict::DropReason;

/// One of the ports there are.
#[derive(Debug)]
pub enum AnyPort {
    /// A TAP device; boxed, since its batches make it much larger than the others.
    Tap(Box<TapPort>),
    /// An existing device, by a packet socket.
    Packet(PacketPort),
    /// Two queues in memory.
    Memory(MemoryPort),
}

macro_rules! each {
    ($any:expr, $port:ident => $does:expr) => {
        match $any {
            AnyPort::Tap($port) => $does,
            AnyPort::Packet($port) => $does,
            AnyPort::Memory($port) => $does,
        }
    };
}

impl Port for AnyPort {
    #[inline]
    fn receive(&mut self, most: usize, pool: &mut Pool, into: &mut Vec<Frame>) -> Ready {
        each!(self, port => port.receive(most, pool, into))
    }

    #[inline]
    fn transmit(&mut self, frame: &Frame, pool: &mut Pool) -> Result<Taken, DropReason> {
        each!(self, port => port.transmit(frame, pool))
    }

    #[inline]
    fn flush(&mut self, pool: &mut Pool, flushed: &mut Vec<Flushed>) {
        each!(self, port => port.flush(pool, flushed));
    }

    #[inline]
    fn capabilities(&self) -> Capabilities {
        each!(self, port => port.capabilities())
    }

    fn descriptor(&self) -> Option<RawFd> {
        each!(self, port => port.descriptor())
    }

    fn duplicate(&self) -> io::Result<Option<OwnedFd>> {
        each!(self, port => port.duplicate())
    }
}

impl From<TapPort> for AnyPort {
    fn from(port: TapPort) -> AnyPort {
        AnyPort::Tap(Box::new(port))
    }
}

impl From<PacketPort> for AnyPort {
    fn from(port: PacketPort) -> AnyPort {
        AnyPort::Packet(port)
    }
}

impl From<MemoryPort> for AnyPort {
    fn from(port: MemoryPort) -> AnyPort {
        AnyPort::Memory(port)
    }
}
