//! Round trips: echo requests, flooded or paced, answered by the other pod's kernel.
//!
//! In: a path, a gap between requests, and a time. Out: every round trip, and how many were lost.
//! Never: allocates, formats or looks at more than a few bytes between sending and hearing: what
//! is measured is the way, not the measuring.
//!
//! A round trip has two ends. As `ping` has it, the way is over when the kernel stamps the reply
//! (`SO_TIMESTAMPNS`); the program has the reply later, when the scheduler has woken it.

use std::io::{self, IoSliceMut};
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt::ReceiveTimestampns,
};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};

use super::Path;

/// Round trips kept: a flood of 3 microseconds each for 20 seconds.
const KEPT_MAX: usize = 1 << 22;
/// After so long a request counts as lost.
const PATIENCE: Duration = Duration::from_millis(200);
/// Round trips before the measured time: neighbours are resolved, paths are warm.
const WARM_UP: usize = 20;
const ICMP_LEN: usize = 8;
/// As the usual program sends: 56 bytes.
const MESSAGE_LEN: usize = ICMP_LEN + 56;
const IDENTIFIER: u16 = 0x7a70;

/// When the next request leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As soon as the reply to the last is there.
    Flood,
    /// At fixed times, or as soon after as the last reply is there.
    Every(Duration),
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Round trips in nanoseconds, sorted: from the call that sends to the kernel's stamp.
    pub sorted_ns: Vec<u64>,
    /// The same until the program was awake and had the reply.
    pub sorted_awake_ns: Vec<u64>,
    /// Requests without a reply.
    pub lost: u64,
}

impl Outcome {
    /// A percentile in microseconds, until the kernel's stamp.
    #[must_use]
    pub fn percentile_us(&self, percent: f64) -> f64 {
        crate::stats::percentile(&self.sorted_ns, percent) as f64 / 1e3
    }

    /// A percentile in microseconds, until the program had it.
    #[must_use]
    pub fn awake_us(&self, percent: f64) -> f64 {
        crate::stats::percentile(&self.sorted_awake_ns, percent) as f64 / 1e3
    }
}

/// Pings for `time`.
///
/// # Errors
/// What the socket says, or that no reply came at all.
pub fn run(path: &Path, pace: Pace, time: Duration) -> io::Result<Outcome> {
    let mut pinger = Pinger::open(path)?;
    for _ in 0..WARM_UP {
        pinger.ask()?;
    }
    let _ = nix::sys::prctl::set_timerslack(1);
    let (began, mut due) = (Instant::now(), Duration::ZERO);
    let mut outcome = Outcome {
        sorted_ns: Vec::with_capacity(1 << 16),
        sorted_awake_ns: Vec::with_capacity(1 << 16),
        lost: 0,
    };
    while began.elapsed() < time && outcome.sorted_ns.len() < KEPT_MAX {
        if let Pace::Every(gap) = pace {
            due += gap;
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
        match pinger.ask()? {
            Some(trip) => {
                outcome.sorted_ns.push(trip.stamped.as_nanos() as u64);
                outcome.sorted_awake_ns.push(trip.awake.as_nanos() as u64);
            }
            None => outcome.lost += 1,
        }
    }
    if outcome.sorted_ns.is_empty() {
        let why = format!("{} does not answer", path.address);
        return Err(io::Error::new(io::ErrorKind::TimedOut, why));
    }
    outcome.sorted_ns.sort_unstable();
    outcome.sorted_awake_ns.sort_unstable();
    Ok(outcome)
}

/// One round trip, by both of its ends.
struct Trip {
    stamped: Duration,
    awake: Duration,
}

struct Pinger {
    socket: Socket,
    message: [u8; MESSAGE_LEN],
    sequence: u16,
    room: [u8; 128],
    /// Where the kernel writes its stamp.
    aside: Vec<u8>,
}

impl Pinger {
    fn open(path: &Path) -> io::Result<Pinger> {
        let socket = path
            .from
            .run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)))?;
        // Connected, it hears the one pod only.
        socket.connect(&SocketAddrV4::new(path.address, 0).into())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        setsockopt(&socket, ReceiveTimestampns, &true)?;
        let mut message = [0x5a; MESSAGE_LEN];
        message[..4].copy_from_slice(&[8, 0, 0, 0]);
        message[4..6].copy_from_slice(&IDENTIFIER.to_be_bytes());
        Ok(Pinger {
            socket,
            message,
            sequence: 0,
            room: [0; 128],
            aside: nix::cmsg_space!(TimeSpec),
        })
    }

    /// One round trip; none if nothing came in time.
    fn ask(&mut self) -> io::Result<Option<Trip>> {
        self.sequence = self.sequence.wrapping_add(1);
        self.message[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        self.message[2..4].fill(0);
        let sum = checksum(&self.message);
        self.message[2..4].copy_from_slice(&sum.to_be_bytes());
        let (sent, sent_at) = (Instant::now(), SystemTime::now());
        match self.socket.send(&self.message) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
            Err(error) => return Err(error),
        }
        loop {
            match self.hear() {
                Ok((read, stamp)) => {
                    let awake = sent.elapsed();
                    if self.is_reply(read) {
                        // A clock that was set back in between counts as no time at all.
                        let stamped = stamp.duration_since(sent_at).unwrap_or_default();
                        return Ok(Some(Trip { stamped, awake }));
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            if sent.elapsed() > PATIENCE {
                return Ok(None);
            }
        }
    }

    /// A message, how long it is, and when the kernel had it.
    fn hear(&mut self) -> nix::Result<(usize, SystemTime)> {
        let mut parts = [IoSliceMut::new(&mut self.room)];
        let (fd, aside) = (self.socket.as_raw_fd(), Some(self.aside.as_mut_slice()));
        let heard = recvmsg::<()>(fd, &mut parts, aside, MsgFlags::empty())?;
        let stamp = heard.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
            _ => None,
        });
        let stamp = stamp.ok_or(Errno::ENODATA)?;
        Ok((heard.bytes, SystemTime::UNIX_EPOCH + stamp))
    }

    /// Is what was read the reply to the last request? A late one is not.
    fn is_reply(&self, read: usize) -> bool {
        // The IP header comes along; without options it has 20 bytes, and ours has none.
        read >= 20 + ICMP_LEN
            && self.room[20] == 0
            && [self.room[24], self.room[25]] == IDENTIFIER.to_be_bytes()
            && [self.room[26], self.room[27]] == self.sequence.to_be_bytes()
    }
}

fn checksum(message: &[u8; MESSAGE_LEN]) -> u16 {
    let (words, _) = message.as_chunks::<2>();
    let sum: u32 = words
        .iter()
        .map(|w| u32::from(u16::from_be_bytes(*w)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
