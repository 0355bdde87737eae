//! Captures: what passed an interface, heard by a packet socket inside its namespace.
//!
//! In: a namespace and the name of an interface. Out: a [`Recording`] of the first frames, and
//! sums over all of them.
//! Never: keeps more than [`FRAMES_MAX`] frames, or slows what it listens to: the kernel clones a
//! frame for a packet socket without copying its content, and 128 bytes of each are read.
//!
//! A frame is *outgoing* where the kernel sent it into the interface, else incoming. On a TAP that
//! means: outgoing is what the switch reads, incoming what the switch wrote. Super-frames appear
//! whole, as one frame of up to 64 KB, and their checksums may be unfinished. A VLAN tag that
//! the kernel took out of the frame is not shown.
//!
//! The socket is bound with an address that the kernel's own list of interfaces gives, because that
//! needs no unsafe code; its protocol is zero there, which keeps the one of the socket.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use dataplane::addr::Mac;
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind,
    recvmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike};

use crate::devices::netns::Netns;

/// Frames that are kept; the rest is counted. A walk's pings are dozens, so this leaves room for
/// the beginning of a bulk transfer, in less than a megabyte.
pub const FRAMES_MAX: usize = 4096;
/// Bytes that are kept of each frame: every header that a summary reads, and the start of the rest.
pub const SNAP_LEN: usize = 128;
/// Pairs of addresses for which TCP is summed up: a lab has a dozen.
const PAIRS_MAX: usize = 256;
/// Room in the socket, so that a burst of super-frames is not lost while the thread waits for a
/// processor. More than an ordinary user gets; then the kernel's limit counts.
const SOCKET_BYTES: usize = 8 << 20;
/// How often a quiet capture looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(10);
/// How long a stopped capture goes on reading what is there already.
const DRAIN: Duration = Duration::from_millis(200);

/// A running capture. Dropping it stops it and throws the recording away.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    /// None once it has been joined.
    thread: Option<JoinHandle<io::Result<Recording>>>,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// When the kernel saw it.
    pub at: SystemTime,
    /// True if the kernel sent it into the interface, false if it came out of it.
    pub outgoing: bool,
    /// Its length, Ethernet header included.
    pub len: usize,
    /// Its first bytes, at most [`SNAP_LEN`].
    pub bytes: Vec<u8>,
}

/// What a capture heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// The first frames, at most [`FRAMES_MAX`].
    pub frames: Vec<Captured>,
    /// All frames heard, kept or not.
    pub heard: u64,
    /// Frames that the kernel had to leave out, as far as it said so.
    pub lost: u64,
    tcp: HashMap<(IpAddr, IpAddr), TcpFrames>,
}

/// TCP frames from one address to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFrames {
    /// How many.
    pub frames: u64,
    /// Their lengths, Ethernet headers included.
    pub bytes: u64,
    /// The longest of them. Above the MTU and 14 bytes it was a super-frame.
    pub longest: usize,
}

/// Echo requests from one address to another, as one interface saw them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoRequests {
    /// How many.
    pub frames: u64,
    /// Source address.
    pub source_ip: IpAddr,
    /// Target address.
    pub target_ip: IpAddr,
    /// Source MAC of the first.
    pub source_mac: Mac,
    /// Target MAC of the first.
    pub target_mac: Mac,
    /// TTL (or hop limit) of the first.
    pub ttl: u8,
    /// How many had other MACs or another TTL than the first.
    pub differing: u64,
}

impl Capture {
    /// Starts listening; every frame from the return of this call on is heard.
    ///
    /// # Errors
    /// `NotFound` without such an interface, or what the socket says.
    pub fn start(ns: &Netns, ifname: &str) -> io::Result<Capture> {
        let (socket, index) = ns.run(|| open(ifname))?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let work = move || listen(&socket, index, &told);
        let thread = std::thread::Builder::new()
            .name("capture".into())
            .spawn(work)?;
        Ok(Capture {
            stop,
            thread: Some(thread),
        })
    }

    /// Stops listening, after what the kernel has heard so far is read.
    ///
    /// # Errors
    /// What reading the socket said, for instance after the namespace was torn down.
    pub fn stop(mut self) -> io::Result<Recording> {
        self.join().unwrap_or_else(|| Ok(Recording::default()))
    }

    fn join(&mut self) -> Option<io::Result<Recording>> {
        self.stop.store(true, Ordering::Relaxed);
        let joined = self.thread.take()?.join();
        Some(joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A panic of the thread has been printed; a second one while dropping would abort.
        let _thrown_away = self.thread.take().map(JoinHandle::join);
    }
}

fn open(ifname: &str) -> io::Result<(OwnedFd, usize)> {
    let no_such = || {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("no interface {ifname} to capture on"),
        )
    };
    let address = getifaddrs()?
        .filter(|interface| interface.interface_name == ifname)
        .find_map(|interface| interface.address?.as_link_addr().copied())
        .ok_or_else(no_such)?;
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        flags,
        SockProtocol::EthAll,
    )?;
    bind(socket.as_raw_fd(), &address)?;
    if setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BYTES).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BYTES)?;
    }
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    setsockopt(&socket, sockopt::RxqOvfl, &1)?;
    let look = TimeVal::milliseconds(LOOK.as_millis() as i64);
    setsockopt(&socket, sockopt::ReceiveTimeout, &look)?;
    Ok((socket, address.ifindex()))
}

fn listen(socket: &OwnedFd, index: usize, stop: &AtomicBool) -> io::Result<Recording> {
    let mut recording = Recording::default();
    let mut control = nix::cmsg_space!(TimeSpec, u32);
    let mut buffer = [0; SNAP_LEN];
    let mut stopped_at = None;
    loop {
        if stop.load(Ordering::Relaxed) {
            let since = *stopped_at.get_or_insert_with(Instant::now);
            if since.elapsed() > DRAIN {
                return Ok(recording);
            }
        }
        // With MSG_TRUNC the kernel says how long the frame was, not how much of it fits.
        let flags = match stopped_at {
            Some(_) => MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT,
            None => MsgFlags::MSG_TRUNC,
        };
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let got = recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags);
        match got {
            Ok(got) => {
                let (at, lost) = stamps(got.cmsgs()?);
                recording.lost = recording.lost.max(lost);
                let (len, address) = (got.bytes, got.address);
                // Until it was bound, the socket heard every interface.
                let Some(address) = address.filter(|from| from.ifindex() == index) else {
                    continue;
                };
                let outgoing = address.pkttype() == PACKET_OUTGOING;
                recording.take(at, outgoing, len, &buffer[..len.min(SNAP_LEN)]);
            }
            Err(Errno::EAGAIN) if stopped_at.is_some() => return Ok(recording),
            // The interface went down: it may come up again, and else the stop ends this.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The last of the packet types: a frame that this host sends.
const PACKET_OUTGOING: u8 = 4;

fn stamps(messages: impl Iterator<Item = ControlMessageOwned>) -> (SystemTime, u64) {
    let (mut at, mut lost) = (None, 0);
    for message in messages {
        match message {
            ControlMessageOwned::ScmTimestampns(time) => {
                at = Some(SystemTime::UNIX_EPOCH + Duration::from(time));
            }
            ControlMessageOwned::RxqOvfl(frames) => lost = u64::from(frames),
            _ => {}
        }
    }
    (at.unwrap_or_else(SystemTime::now), lost)
}

impl Recording {
    /// Enters one frame: its first bytes, and how long it was.
    fn take(&mut self, at: SystemTime, outgoing: bool, len: usize, bytes: &[u8]) {
        self.heard += 1;
        if let Some(Seen {
            pair,
            transport: Transport::Tcp,
            ..
        }) = Seen::read(bytes)
            && (self.tcp.contains_key(&pair) || self.tcp.len() < PAIRS_MAX)
        {
            let sum = self.tcp.entry(pair).or_default();
            sum.frames += 1;
            sum.bytes += len as u64;
            sum.longest = sum.longest.max(len);
        }
        if self.frames.len() < FRAMES_MAX {
            self.frames.push(Captured {
                at,
                outgoing,
                len,
                bytes: bytes.to_vec(),
            });
        }
    }

    /// The echo requests from one address to another among the frames kept. None if there are none.
    #[must_use]
    pub fn echo_requests(&self, source_ip: IpAddr, target_ip: IpAddr) -> Option<EchoRequests> {
        let mut sum: Option<EchoRequests> = None;
        let seen = self
            .frames
            .iter()
            .filter_map(|frame| Seen::read(&frame.bytes));
        for seen in seen.filter(|seen| seen.transport == Transport::EchoRequest) {
            if seen.pair != (source_ip, target_ip) {
                continue;
            }
            let Seen {
                source_mac,
                target_mac,
                ttl,
                ..
            } = seen;
            let (frames, differing) = (0, 0);
            let sum = sum.get_or_insert(EchoRequests {
                frames,
                source_ip,
                target_ip,
                source_mac,
                target_mac,
                ttl,
                differing,
            });
            sum.frames += 1;
            let same = (sum.source_mac, sum.target_mac, sum.ttl) == (source_mac, target_mac, ttl);
            sum.differing += u64::from(!same);
        }
        sum
    }

    /// All TCP frames from one address to another, kept or not.
    #[must_use]
    pub fn tcp(&self, source: IpAddr, target: IpAddr) -> TcpFrames {
        self.tcp.get(&(source, target)).copied().unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    EchoRequest,
    Tcp,
    Other,
}

/// What the summaries want to know of a frame.
struct Seen {
    source_mac: Mac,
    target_mac: Mac,
    pair: (IpAddr, IpAddr),
    ttl: u8,
    transport: Transport,
}

impl Seen {
    /// None for what is not IP. Only the headers need be there.
    fn read(bytes: &[u8]) -> Option<Seen> {
        let target_mac = Mac::new(*bytes.first_chunk()?);
        let source_mac = Mac::new(*bytes.get(6..)?.first_chunk()?);
        let packet = LaxSlicedPacket::from_ethernet(bytes).ok()?;
        let (pair, ttl): ((IpAddr, IpAddr), u8) = match packet.net? {
            LaxNetSlice::Ipv4(ip) => {
                let header = ip.header();
                (
                    (
                        header.source_addr().into(),
                        header.destination_addr().into(),
                    ),
                    header.ttl(),
                )
            }
            LaxNetSlice::Ipv6(ip) => {
                let header = ip.header();
                (
                    (
                        header.source_addr().into(),
                        header.destination_addr().into(),
                    ),
                    header.hop_limit(),
                )
            }
            LaxNetSlice::Arp(_) => return None,
        };
        let transport = match packet.transport {
            Some(TransportSlice::Icmpv4(icmp)) if icmp.type_u8() == 8 => Transport::EchoRequest,
            Some(TransportSlice::Icmpv6(icmp)) if icmp.type_u8() == 128 => Transport::EchoRequest,
            Some(TransportSlice::Tcp(_)) => Transport::Tcp,
            _ => Transport::Other,
        };
        Some(Seen {
            source_mac,
            target_mac,
            pair,
            ttl,
            transport,
        })
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    const A: [u8; 4] = [10, 20, 0, 31];
    const B: [u8; 4] = [10, 20, 0, 43];

    fn echo(request: bool, ttl: u8) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(A, B, ttl);
        let builder = match request {
            true => builder.icmpv4_echo_request(1, 1),
            false => builder.icmpv4_echo_reply(1, 1),
        };
        let mut frame = Vec::new();
        builder.write(&mut frame, &[0; 1000]).expect("it fits");
        frame.truncate(SNAP_LEN);
        frame
    }

    fn heard(frames: &[(Vec<u8>, usize)]) -> Recording {
        let mut recording = Recording::default();
        for (bytes, len) in frames {
            recording.take(SystemTime::UNIX_EPOCH, false, *len, bytes);
        }
        recording
    }

    #[test]
    fn requests_are_summed_up_and_replies_left_out() {
        let frames = [
            (echo(true, 64), 1042),
            (echo(false, 64), 1042),
            (echo(true, 63), 1042),
        ];
        let recording = heard(&frames);
        let sum = recording
            .echo_requests(A.into(), B.into())
            .expect("two requests");
        let expected = EchoRequests {
            frames: 2,
            source_ip: A.into(),
            target_ip: B.into(),
            source_mac: Mac::new([2; 6]),
            target_mac: Mac::new([4; 6]),
            ttl: 64,
            differing: 1,
        };
        assert_eq!(sum, expected);
        assert_eq!(recording.echo_requests(B.into(), A.into()), None);
    }

    #[test]
    fn frames_beyond_the_limit_are_counted_and_still_measured() {
        let mut tcp = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4(A, B, 64)
            .tcp(1, 2, 3, 4)
            .write(&mut tcp, &[0; 200])
            .expect("it fits");
        tcp.truncate(SNAP_LEN);
        let mut frames = vec![(echo(true, 64), 1042); FRAMES_MAX];
        frames.extend([(tcp.clone(), 254), (tcp, 65_000)]);
        let recording = heard(&frames);
        assert_eq!(
            (recording.frames.len(), recording.heard),
            (FRAMES_MAX, FRAMES_MAX as u64 + 2)
        );
        let sum = TcpFrames {
            frames: 2,
            bytes: 65_254,
            longest: 65_000,
        };
        assert_eq!(recording.tcp(A.into(), B.into()), sum);
        assert_eq!(recording.tcp(B.into(), A.into()), TcpFrames::default());
    }

    #[test]
    fn noise_is_kept_and_not_understood() {
        let frames: Vec<_> = (0..SNAP_LEN).map(|len| (vec![0x45; len], len)).collect();
        let recording = heard(&frames);
        assert_eq!(recording.frames.len(), SNAP_LEN);
        assert_eq!(recording.echo_requests(A.into(), B.into()), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever passes an interface can be entered and summed up.
        #[test]
        fn any_bytes_can_be_recorded(
            bend in any::<prop::sample::Index>(),
            value in any::<u8>(),
            noise in prop::collection::vec(any::<u8>(), 0..SNAP_LEN),
        ) {
            let mut bent = echo(true, 64);
            let at = bend.index(bent.len());
            bent[at] = value;
            let recording = heard(&[(bent, 1042), (noise, 65_535)]);
            prop_assert_eq!(recording.heard, 2);
            let requests = recording.echo_requests(A.into(), B.into()).map_or(0, |sum| sum.frames);
            prop_assert!(requests <= 2);
        }
    }
}
