//! What the kernel tells unasked: that a device or a filter has changed.
//!
//! In: a namespace, and the groups to listen to. Out: that there is news, or that it is time to look
//! anyway, or that somebody rang.
//! Never: says what has changed: whoever hears of something looks, and so needs no news twice.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::devices::error::DeviceError;
use crate::devices::netns::Netns;

/// Messages read in one go; the rest is for the next.
const NEWS_MAX: usize = 1024;

/// Whose changes are told (linux/rtnetlink.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Group {
    /// Devices, `RTNLGRP_LINK`.
    Links = 1,
    /// Queueing disciplines and filters, `RTNLGRP_TC`.
    Filters = 4,
}

/// Why a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Something has changed.
    News,
    /// Nothing has, for as long as was to be waited.
    Quiet,
    /// The other end of the bell was closed.
    Over,
}

/// An ear at the kernel's door, and a bell by which a thread that listens is told to stop.
#[derive(Debug)]
pub struct News {
    socket: Socket,
    bell: UnixStream,
}

impl News {
    /// Listens in `namespace`. Whoever drops the other socket ends that.
    ///
    /// # Errors
    /// What sockets say.
    pub fn of(namespace: &Netns, groups: &[Group]) -> Result<(News, UnixStream), DeviceError> {
        let listen = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            for group in groups {
                socket.add_membership(*group as u32)?;
            }
            socket.set_non_blocking(true)?;
            let (bell, rope) = UnixStream::pair()?;
            Ok((News { socket, bell }, rope))
        };
        let heard: io::Result<_> = namespace.run(listen);
        heard.map_err(|source| DeviceError::Inside {
            attempt: "listen for changes of devices and filters".into(),
            namespace: namespace.name().into(),
            source,
        })
    }

    /// Waits for news, or for `patience`: milliseconds, or for ever without. That some were lost is
    /// news as well.
    #[must_use]
    pub fn wait(&self, patience: Option<u16>) -> Woken {
        let mut fds = [
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.bell.as_fd(), PollFlags::POLLIN),
        ];
        let patience = patience.map_or(PollTimeout::NONE, PollTimeout::from);
        match poll(&mut fds, patience) {
            Ok(_) if fds[1].any().unwrap_or(true) => Woken::Over,
            Ok(0) => Woken::Quiet,
            Ok(_) => {
                self.drain();
                Woken::News
            }
            Err(nix::errno::Errno::EINTR) => Woken::Quiet,
            Err(_) => Woken::Over,
        }
    }

    fn drain(&self) {
        let mut buffer = vec![0_u8; 8192];
        for _ in 0..NEWS_MAX {
            if self.socket.recv(&mut buffer.as_mut_slice(), 0).is_err() {
                break;
            }
        }
    }
}
