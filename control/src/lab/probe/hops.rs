//! Hops, as `traceroute` finds them: packets that may go one router further each time.
//!
//! In: a namespace and a [`HopsSpec`]. Out: who answered at each number of hops, and what.
//! Never: waits longer than `hops_max` times the timeout, needs a raw socket for UDP, or takes an
//! answer to another's packet for one to its own.
//!
//! UDP goes to a port that nobody listens on, another for each number of hops, and the kernel hangs
//! the errors on the socket (`IP_RECVERR`, ip(7)) with the port that they are about. Echo requests
//! are the other kind: some routers and firewalls treat the two differently.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{sock_extended_err, sockaddr_in, sockaddr_in6};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Socket, Type};

use super::ping::{PingSpec, describe, ping};
use crate::devices::netns::Netns;

/// The first port that `traceroute` sends to: nobody was ever assigned those behind it.
const PORT: u16 = 33_434;

/// `ee_origin` of an error that an ICMP message brought, IPv4 and IPv6 (`linux/errqueue.h`).
const FROM_ICMP: [u8; 2] = [2, 3];

/// Bytes that are read of the datagram that an error hands back: all that is sent here, and more.
const BACK_MAX: usize = 64;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopProbe {
    /// UDP to a port where nobody listens: the target says "port unreachable".
    Udp,
    /// ICMP echo requests: the target replies.
    Echo,
}

/// Whither, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopsSpec {
    /// The address to reach.
    pub to: IpAddr,
    /// What is sent.
    pub probe: HopProbe,
    /// Hops after which to give up.
    pub hops_max: u8,
    /// How long to wait for each answer.
    pub timeout: Duration,
}

impl HopsSpec {
    /// At most 8 hops: a lab's longest way is three.
    #[must_use]
    pub const fn to(to: IpAddr, probe: HopProbe) -> HopsSpec {
        HopsSpec {
            to,
            probe,
            hops_max: 8,
            timeout: Duration::from_secs(1),
        }
    }
}

/// Who answered a packet that could go so far and no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Who answered; None if nobody did in time.
    pub from: Option<IpAddr>,
    /// What it said, or why there was nothing to hear.
    pub what: String,
}

/// The way, as far as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HopsReport {
    /// The address to reach.
    pub to: IpAddr,
    /// The first is one hop away.
    pub hops: Vec<Hop>,
}

impl HopsReport {
    /// True if the last hop is the target.
    #[must_use]
    pub fn reached(&self) -> bool {
        self.hops
            .last()
            .is_some_and(|hop| hop.from == Some(self.to))
    }

    /// Who answered, hop by hop.
    #[must_use]
    pub fn addresses(&self) -> Vec<Option<IpAddr>> {
        self.hops.iter().map(|hop| hop.from).collect()
    }
}

/// Finds the hops from inside a namespace to a target, and stops there.
///
/// # Errors
/// What opening a socket says. Silence is not an error but a [`Hop`] without an address.
pub fn hops(ns: &Netns, spec: &HopsSpec) -> io::Result<HopsReport> {
    let mut report = HopsReport {
        to: spec.to,
        hops: Vec::new(),
    };
    while report.hops.len() < usize::from(spec.hops_max) && !report.reached() {
        let ttl = (report.hops.len() + 1) as u8;
        report.hops.push(match spec.probe {
            HopProbe::Udp => by_udp(ns, spec, ttl)?,
            HopProbe::Echo => by_echo(ns, spec, ttl)?,
        });
    }
    Ok(report)
}

fn silence() -> Hop {
    Hop {
        from: None,
        what: "no answer".to_owned(),
    }
}

fn by_echo(ns: &Netns, spec: &HopsSpec, ttl: u8) -> io::Result<Hop> {
    let one = PingSpec {
        count: 1,
        timeout: spec.timeout,
        ttl: Some(ttl),
        ..PingSpec::to(spec.to)
    };
    let report = ping(ns, &one)?;
    if report.received() > 0 {
        let what = "echo reply".to_owned();
        return Ok(Hop {
            from: Some(spec.to),
            what,
        });
    }
    Ok(report
        .errors
        .into_iter()
        .next()
        .map_or_else(silence, |error| Hop {
            from: error.from,
            what: error.what,
        }))
}

fn by_udp(ns: &Netns, spec: &HopsSpec, ttl: u8) -> io::Result<Hop> {
    let target = SocketAddr::new(spec.to, PORT + u16::from(ttl));
    let socket = ns.run(|| Socket::new(Domain::for_address(target), Type::DGRAM, None))?;
    match spec.to {
        IpAddr::V4(_) => {
            socket.set_ttl_v4(ttl.into())?;
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        }
        IpAddr::V6(_) => {
            socket.set_unicast_hops_v6(ttl.into())?;
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
        }
    }
    if let Err(refused) = socket.send_to(b"tapline", &target.into()) {
        let what = refused.to_string();
        return Ok(Hop { from: None, what });
    }
    let deadline = Instant::now() + spec.timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(silence());
        }
        if let Some(hop) = next_error(&socket, target)? {
            return Ok(hop);
        }
        wait_for_error(&socket, left)?;
    }
}

/// Waits until the socket has an error, or has waited long enough.
fn wait_for_error(socket: &Socket, patience: Duration) -> io::Result<()> {
    // Errors are always waited for, so there is nothing to ask for.
    let mut sockets = [PollFd::new(socket, PollFlags::empty())];
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    match poll(&mut sockets, Some(&patience)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The next error on the socket that is about the datagram to `target`, if there is one.
fn next_error(socket: &Socket, target: SocketAddr) -> io::Result<Option<Hop>> {
    loop {
        let mut control = nix::cmsg_space!(sock_extended_err, sockaddr_in6);
        let mut datagram = [0; BACK_MAX];
        let mut parts = [IoSliceMut::new(&mut datagram)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let fd = socket.as_raw_fd();
        let got = match recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), flags) {
            Ok(got) => got,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let about = got.address.and_then(|address| port_of(&address));
        let hop = got.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4RecvErr(error, from) => Some(read(error, from.map(v4))),
            ControlMessageOwned::Ipv6RecvErr(error, from) => Some(read(error, from.map(v6))),
            _ => None,
        });
        if let Some(hop) = hop.filter(|_| about == Some(target.port())) {
            return Ok(Some(hop));
        }
    }
}

fn port_of(address: &SockaddrStorage) -> Option<u16> {
    let v4 = address.as_sockaddr_in().map(|address| address.port());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| address.port()))
}

fn v4(address: sockaddr_in) -> IpAddr {
    Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes()).into()
}

fn v6(address: sockaddr_in6) -> IpAddr {
    Ipv6Addr::from(address.sin6_addr.s6_addr).into()
}

/// An error in words. One of this host's own making comes from nobody.
fn read(error: sock_extended_err, from: Option<IpAddr>) -> Hop {
    if !FROM_ICMP.contains(&error.ee_origin) {
        let what = io::Error::from_raw_os_error(error.ee_errno as i32).to_string();
        return Hop { from: None, what };
    }
    let ipv4 = error.ee_origin == FROM_ICMP[0];
    Hop {
        from,
        what: describe(ipv4, error.ee_type, error.ee_code),
    }
}
