//! Pings, with an ICMP socket of our own: no `ping` program is needed.
//!
//! In: a namespace and a [`PingSpec`]. Out: a [`PingReport`]: replies with TTL and time, and the
//! ICMP errors that came instead.
//! Never: waits longer than the specification adds up to, or takes another's reply for ours.
//!
//! The socket is raw, so it hears every ICMP message of its namespace; identifier, sequence number
//! and source say which are ours. A raw IPv4 socket hears them before the kernel has looked at the
//! ICMP checksum, so it is verified here, and so is the payload.

use std::io::{self, IoSliceMut, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use etherparse::checksum::Sum16BitWords;
use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, Socket, Type};

use crate::devices::netns::Netns;

/// What to ping, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingSpec {
    /// The address to ping.
    pub to: IpAddr,
    /// Echo requests to send.
    pub count: u16,
    /// Time from one request to the next, if the reply is quick.
    pub interval: Duration,
    /// How long to wait for each reply.
    pub timeout: Duration,
    /// Bytes behind the ICMP header, at most [`PingSpec::PAYLOAD_MAX`].
    pub payload_len: usize,
    /// Time to live (or hop limit) of the requests; the kernel's default without it.
    pub ttl: Option<u8>,
    /// Nobody may fragment the requests, and the kernel forgets what it knows of the path: it
    /// refuses only what is longer than the device's MTU (`IP_PMTUDISC_PROBE`, ip(7)).
    pub whole: bool,
}

impl PingSpec {
    /// What an IPv4 packet holds beside its header and the ICMP header.
    pub const PAYLOAD_MAX: usize = 65_535 - 20 - ICMP_LEN;

    /// Five pings with 56 bytes, as the usual program sends, but quicker.
    #[must_use]
    pub const fn to(to: IpAddr) -> PingSpec {
        let (interval, timeout) = (Duration::from_millis(50), Duration::from_secs(1));
        PingSpec {
            to,
            count: 5,
            interval,
            timeout,
            payload_len: 56,
            ttl: None,
            whole: false,
        }
    }
}

/// One reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The request's number, from 1.
    pub seq: u16,
    /// TTL (or hop limit) with which the reply arrived.
    pub ttl: u8,
    /// Time from sending the request to hearing the reply.
    pub rtt: Duration,
}

/// Something that came, or happened, instead of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingError {
    /// The request's number.
    pub seq: u16,
    /// Who said so. None: the pinging host's own kernel, or this probe.
    pub from: Option<IpAddr>,
    /// What it said.
    pub what: String,
    /// The longest packet that goes on, in bytes, where that was the trouble and was told (RFC 1191,
    /// RFC 4443 3.2).
    pub mtu: Option<u32>,
}

/// What came of the pings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingReport {
    /// The address pinged.
    pub to: IpAddr,
    /// Requests that the kernel took.
    pub sent: u64,
    /// The first good reply to each request, in order of arrival.
    pub replies: Vec<Reply>,
    /// Good replies to requests that had one already.
    pub duplicates: u64,
    /// ICMP errors, damaged replies, and requests that the kernel refused.
    pub errors: Vec<PingError>,
}

/// The spread of the round-trip times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rtt {
    /// The shortest.
    pub min: Duration,
    /// The mean.
    pub avg: Duration,
    /// The longest.
    pub max: Duration,
}

impl PingReport {
    /// Requests that were answered.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.replies.len() as u64
    }

    /// The lowest TTL among the replies. None if nothing was received.
    #[must_use]
    pub fn ttl(&self) -> Option<u8> {
        self.replies.iter().map(|reply| reply.ttl).min()
    }

    /// Round-trip times. None if nothing was received.
    #[must_use]
    pub fn rtt(&self) -> Option<Rtt> {
        let times = self.replies.iter().map(|reply| reply.rtt);
        let count = u32::try_from(self.replies.len())
            .ok()
            .filter(|count| *count > 0)?;
        let (min, max) = (times.clone().min()?, times.clone().max()?);
        Some(Rtt {
            min,
            avg: times.sum::<Duration>() / count,
            max,
        })
    }
}

/// Pings from inside a namespace. Takes at most `count` times the longer of interval and timeout.
///
/// # Errors
/// What opening the socket says (`EPERM` without `CAP_NET_RAW` in the namespace). That nobody
/// answers, or that there is no route, is not an error but a report.
pub fn ping(ns: &Netns, spec: &PingSpec) -> io::Result<PingReport> {
    if spec.payload_len > PingSpec::PAYLOAD_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the payload fits no packet",
        ));
    }
    let socket = ns.run(|| open(spec))?;
    let mut pinger = Pinger::new(socket, spec);
    for seq in 1..=spec.count {
        let now = Instant::now();
        if pinger.send(seq, now) {
            pinger.listen(now + spec.timeout, Some(seq))?;
        }
        if seq < spec.count {
            pinger.listen(now + spec.interval, None)?;
        }
    }
    Ok(pinger.report)
}

const ICMP_LEN: usize = 8;
const DATAGRAM_MAX: usize = 65_535;

fn open(spec: &PingSpec) -> io::Result<Socket> {
    let ttl = spec.ttl.map(u32::from);
    match spec.to {
        IpAddr::V4(_) => {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
            if spec.whole {
                sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
            }
            ttl.map_or(Ok(()), |ttl| socket.set_ttl_v4(ttl))?;
            Ok(socket)
        }
        IpAddr::V6(_) => {
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
            socket.set_recv_hoplimit_v6(true)?;
            if spec.whole {
                sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?;
            }
            ttl.map_or(Ok(()), |ttl| socket.set_unicast_hops_v6(ttl))?;
            Ok(socket)
        }
    }
}

/// An identifier that no other pinger of this process, and likely none beside it, uses.
fn identifier() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = (std::process::id() % 0x1_0000) as u16;
    process.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37))
}

struct Pinger {
    socket: Socket,
    id: u16,
    payload: Vec<u8>,
    /// When request `n` left, at `n - 1`; None if the kernel refused it.
    sent_at: Vec<Option<Instant>>,
    report: PingReport,
    buffer: Vec<u8>,
}

/// An ICMP message as it arrived.
struct Arrival {
    source: IpAddr,
    ttl: u8,
    kind: u8,
    code: u8,
    /// Identifier and sequence number, for echo messages.
    echo: (u16, u16),
    body: Vec<u8>,
}

impl Pinger {
    fn new(socket: Socket, spec: &PingSpec) -> Pinger {
        Pinger {
            socket,
            id: identifier(),
            payload: (0..spec.payload_len).map(|at| (at % 251) as u8).collect(),
            sent_at: Vec::new(),
            report: PingReport {
                to: spec.to,
                sent: 0,
                replies: Vec::new(),
                duplicates: 0,
                errors: Vec::new(),
            },
            buffer: vec![0; DATAGRAM_MAX],
        }
    }

    /// True if the kernel took the request.
    fn send(&mut self, seq: u16, now: Instant) -> bool {
        let to = self.report.to;
        let mut message = vec![if to.is_ipv4() { 8 } else { 128 }, 0, 0, 0];
        message.extend_from_slice(&self.id.to_be_bytes());
        message.extend_from_slice(&seq.to_be_bytes());
        message.extend_from_slice(&self.payload);
        if to.is_ipv4() {
            // For ICMPv6 the kernel does it: it alone knows the source address.
            let sum = Sum16BitWords::new().add_slice(&message).ones_complement();
            // The sum adds the words as they lie in memory, so it goes back as it is.
            message[2..4].copy_from_slice(&sum.to_ne_bytes());
        }
        match self
            .socket
            .send_to(&message, &SocketAddr::new(to, 0).into())
        {
            Ok(_) => {
                self.report.sent += 1;
                self.sent_at.push(Some(now));
                true
            }
            Err(error) => {
                self.sent_at.push(None);
                self.report.errors.push(PingError {
                    seq,
                    from: None,
                    what: error.to_string(),
                    mtu: None,
                });
                false
            }
        }
    }

    /// Takes in what arrives until the deadline, or until the fate of `awaited` is known.
    fn listen(&mut self, deadline: Instant, awaited: Option<u16>) -> io::Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.socket
                .set_read_timeout(Some(left.max(Duration::from_micros(100))))?;
            let settled = match self.receive() {
                Ok(Some(arrival)) => self.take(&arrival),
                Ok(None) => None,
                Err(error) if is_passing(&error) => None,
                Err(error) => return Err(error),
            };
            if settled.is_some() && settled == awaited {
                return Ok(());
            }
        }
    }

    fn receive(&mut self) -> io::Result<Option<Arrival>> {
        let Pinger {
            socket,
            buffer,
            report,
            ..
        } = self;
        match report.to {
            IpAddr::V4(_) => Ok((&*socket)
                .read(buffer)
                .map(|len| read_ipv4(&buffer[..len]))?),
            IpAddr::V6(_) => receive_ipv6(socket, buffer),
        }
    }

    /// Notes an arrival down if it is about one of our requests, and says which.
    fn take(&mut self, arrival: &Arrival) -> Option<u16> {
        let (reply, errors) = match self.report.to {
            IpAddr::V4(_) => (0, [3, 4, 5, 11, 12].as_slice()),
            IpAddr::V6(_) => (129, [1, 2, 3, 4].as_slice()),
        };
        if arrival.kind == reply {
            return self.take_reply(arrival);
        }
        if !errors.contains(&arrival.kind) {
            return None;
        }
        let (target, (id, seq)) = read_quoted(&arrival.body)?;
        self.sent(seq)
            .filter(|_| id == self.id && target == self.report.to)?;
        let what = describe(self.report.to.is_ipv4(), arrival.kind, arrival.code);
        self.report.errors.push(PingError {
            seq,
            from: Some(arrival.source),
            what,
            mtu: told_mtu(arrival),
        });
        Some(seq)
    }

    fn take_reply(&mut self, arrival: &Arrival) -> Option<u16> {
        let (id, seq) = arrival.echo;
        if id != self.id || arrival.source != self.report.to {
            return None;
        }
        let rtt = self.sent(seq)?.elapsed();
        if arrival.body != self.payload {
            let what = "the reply's payload is not what was sent".to_owned();
            self.report.errors.push(PingError {
                seq,
                from: Some(arrival.source),
                what,
                mtu: None,
            });
        } else if self.report.replies.iter().any(|reply| reply.seq == seq) {
            self.report.duplicates += 1;
        } else {
            self.report.replies.push(Reply {
                seq,
                ttl: arrival.ttl,
                rtt,
            });
        }
        Some(seq)
    }

    fn sent(&self, seq: u16) -> Option<Instant> {
        *self.sent_at.get(usize::from(seq).checked_sub(1)?)?
    }
}

/// Errors after which one listens on: the wait is over, or an ICMP error was hung on the socket.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::WouldBlock
            | K::TimedOut
            | K::Interrupted
            | K::HostUnreachable
            | K::NetworkUnreachable
            | K::NetworkDown
            | K::ConnectionRefused
    )
}

fn read_ipv4(packet: &[u8]) -> Option<Arrival> {
    let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
    let message = packet.get(header.slice().len()..)?;
    if Sum16BitWords::new().add_slice(message).ones_complement() != 0 {
        return None;
    }
    read_message(header.source_addr().into(), header.ttl(), message)
}

fn receive_ipv6(socket: &Socket, buffer: &mut [u8]) -> io::Result<Option<Arrival>> {
    let mut control = nix::cmsg_space!(i32);
    let mut parts = [IoSliceMut::new(buffer)];
    let fd = socket.as_raw_fd();
    let got = recvmsg::<SockaddrIn6>(fd, &mut parts, Some(&mut control), MsgFlags::empty())?;
    let hops = got.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv6HopLimit(hops) => u8::try_from(hops).ok(),
        _ => None,
    });
    let (length, source) = (got.bytes, got.address.map(|address| address.ip().into()));
    let message = &buffer[..length];
    Ok(source
        .zip(hops)
        .and_then(|(source, ttl)| read_message(source, ttl, message)))
}

fn read_message(source: IpAddr, ttl: u8, message: &[u8]) -> Option<Arrival> {
    let (&[kind, code, _, _, i0, i1, s0, s1], body) = message.split_first_chunk::<ICMP_LEN>()?;
    let echo = (u16::from_be_bytes([i0, i1]), u16::from_be_bytes([s0, s1]));
    Some(Arrival {
        source,
        ttl,
        kind,
        code,
        echo,
        body: body.to_vec(),
    })
}

/// The target, identifier and sequence number of an echo request that an ICMP error quotes.
fn read_quoted(packet: &[u8]) -> Option<(IpAddr, (u16, u16))> {
    let (target, message, request): (IpAddr, _, _) = match packet.first()? >> 4 {
        4 => {
            let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
            (
                header.destination_addr().into(),
                packet.get(header.slice().len()..)?,
                8,
            )
        }
        _ => {
            let header = Ipv6HeaderSlice::from_slice(packet).ok()?;
            (
                header.destination_addr().into(),
                packet.get(header.slice().len()..)?,
                128,
            )
        }
    };
    let quoted = read_message(target, 0, message)?;
    (quoted.kind == request).then_some((target, quoted.echo))
}

/// The MTU that an error tells of: the second half of the word behind the checksum in RFC 1191, all
/// of it in RFC 4443. A router from before 1990 tells 0, which is nothing.
fn told_mtu(arrival: &Arrival) -> Option<u32> {
    let (high, low) = (u32::from(arrival.echo.0), u32::from(arrival.echo.1));
    let mtu = match (arrival.source, arrival.kind, arrival.code) {
        (IpAddr::V4(_), 3, 4) => low,
        (IpAddr::V6(_), 2, _) => high << 16 | low,
        _ => 0,
    };
    Some(mtu).filter(|mtu| *mtu > 0)
}

/// An ICMP error in words.
pub(super) fn describe(ipv4: bool, kind: u8, code: u8) -> String {
    let known = match (ipv4, kind, code) {
        (true, 3, 0) | (false, 1, 0) => "network unreachable",
        (true, 3, 1) | (false, 1, 3) => "host unreachable",
        (true, 3, 2) => "protocol unreachable",
        (true, 3, 3) | (false, 1, 4) => "port unreachable",
        (true, 3, 4) | (false, 2, _) => "packet too big",
        (true, 3, 9 | 10 | 13) | (false, 1, 1) => "administratively prohibited",
        (true, 5, _) => "redirect",
        (true, 11, 0) | (false, 3, 0) => "time to live exceeded",
        _ => return format!("ICMP type {kind} code {code}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_report_without_replies_has_neither_ttl_nor_times() {
        let to = "10.20.0.43".parse().expect("well-formed");
        let (replies, errors) = (Vec::new(), Vec::new());
        let report = PingReport {
            to,
            sent: 5,
            replies,
            duplicates: 0,
            errors,
        };
        assert_eq!(
            (report.received(), report.ttl(), report.rtt()),
            (0, None, None)
        );
    }

    #[test]
    fn times_are_summed_up() {
        let to = "10.20.0.43".parse().expect("well-formed");
        let reply = |seq, ttl, ms| Reply {
            seq,
            ttl,
            rtt: Duration::from_millis(ms),
        };
        let replies = vec![reply(1, 64, 9), reply(2, 62, 1), reply(3, 64, 2)];
        let report = PingReport {
            to,
            sent: 3,
            replies,
            duplicates: 0,
            errors: Vec::new(),
        };
        let ms = Duration::from_millis;
        assert_eq!(
            report.rtt(),
            Some(Rtt {
                min: ms(1),
                avg: ms(4),
                max: ms(9)
            })
        );
        assert_eq!(report.ttl(), Some(62));
    }

    #[test]
    fn a_quoted_request_is_recognised_and_noise_is_not() {
        let mut quoted = Vec::new();
        etherparse::PacketBuilder::ipv4([10, 244, 1, 6], [10, 244, 0, 7], 1)
            .icmpv4_echo_request(7, 3)
            .write(&mut quoted, b"")
            .expect("it fits");
        let target = "10.244.0.7".parse().expect("well-formed");
        assert_eq!(read_quoted(&quoted), Some((target, (7, 3))));
        assert_eq!(read_quoted(&quoted[..27]), None);
        assert_eq!(read_quoted(&[]), None);
        assert_eq!(read_quoted(&[0x60; 60]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever a raw socket hears can be read, or is passed over.
        #[test]
        fn any_bytes_can_be_heard(noise in prop::collection::vec(any::<u8>(), 0..100), first: bool) {
            let mut packet = noise;
            if let (true, Some(version)) = (first, packet.first_mut()) {
                *version = 0x45;
            }
            let heard = read_ipv4(&packet);
            prop_assert!(heard.is_none_or(|arrival| arrival.body.len() < packet.len()));
            let _quoted = read_quoted(&packet);
        }
    }
}
