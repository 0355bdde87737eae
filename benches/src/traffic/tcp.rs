//! Bulk TCP: a number of flows for a fixed time, counted where the bytes arrive.
//!
//! In: a path, a number of flows and a time. Out: the rate, and retransmits in that time.
//! Never: leaves the congestion control to the machine: a pacing one (BBR is the default on many)
//! halves and scatters every figure, so both ends are set by `setsockopt`.
//!
//! Retransmits are those of the sender's whole namespace, which carries nothing but these flows.
//!
//! Two kinds of program move bulk data, and a switch looks different to each ([`Ends`]). On two
//! processors four blocking threads at each end give a bridge, which works inside the sender's own
//! call, twice what one event loop does, while a switch of one thread stays where it is.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, SockRef, Socket, Type};

use super::Path;
use crate::cpu::Meter;

/// What every flow uses.
pub const CONGESTION_CONTROL: &str = "cubic";
/// Bytes for one call to the kernel: two super-frames.
const CHUNK: usize = 128 << 10;
/// How long a call may hang before it looks whether the time is up.
const LOOK: Duration = Duration::from_millis(100);
/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// How the programs at both ends are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ends {
    /// One thread each, which serves the flows that are ready in turn: iperf3 and most servers.
    EventLoop,
    /// A thread for each flow, which sleeps in its call.
    ThreadEach,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Bytes that arrived in the measured time.
    pub bytes: u64,
    /// The measured time.
    pub seconds: f64,
    /// Segments that the sender's namespace sent again in that time.
    pub retransmits: u64,
}

impl Outcome {
    /// The rate.
    #[must_use]
    pub fn gbit_per_second(&self) -> f64 {
        self.gbit() / self.seconds
    }

    /// What arrived.
    #[must_use]
    pub fn gbit(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e9
    }
}

/// Sends over `flows` connections for `time`, after a while for the windows to open; `meter` runs
/// in the measured time only.
///
/// # Errors
/// What a socket says, or that nothing arrived.
pub fn run(
    path: &Path,
    flows: usize,
    ends: Ends,
    time: Duration,
    meter: &mut Meter,
) -> io::Result<Outcome> {
    let pairs = connect(path, flows)?;
    let stop = AtomicBool::new(false);
    let counted = AtomicU64::new(0);
    let each = match ends {
        Ends::EventLoop => pairs.len(),
        Ends::ThreadEach => 1,
    };
    let outcome = thread::scope(|scope| {
        for share in pairs.chunks(each) {
            let (senders, receivers): (Vec<_>, Vec<_>) = share.iter().map(|(s, r)| (s, r)).unzip();
            scope.spawn(|| send(senders, ends, &stop));
            scope.spawn(|| receive(receivers, ends, &stop, &counted));
        }
        let outcome = watch(path, time, &counted, meter);
        stop.store(true, Ordering::Relaxed);
        for (sender, receiver) in &pairs {
            let _ = sender.shutdown(Shutdown::Both);
            let _ = receiver.shutdown(Shutdown::Both);
        }
        outcome
    })?;
    if outcome.bytes == 0 {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no byte arrived over TCP",
        ));
    }
    Ok(outcome)
}

fn watch(
    path: &Path,
    time: Duration,
    counted: &AtomicU64,
    meter: &mut Meter,
) -> io::Result<Outcome> {
    thread::sleep((time / 4).min(Duration::from_millis(300)));
    let resent = retransmits(path)?;
    let (bytes, began) = (counted.load(Ordering::Relaxed), Instant::now());
    meter.start();
    thread::sleep(time);
    meter.stop();
    let (bytes, seconds) = (
        counted.load(Ordering::Relaxed) - bytes,
        began.elapsed().as_secs_f64(),
    );
    Ok(Outcome {
        bytes,
        seconds,
        retransmits: retransmits(path)?.saturating_sub(resent),
    })
}

fn connect(path: &Path, flows: usize) -> io::Result<Vec<(TcpStream, TcpStream)>> {
    let listener = path
        .to
        .run(|| TcpListener::bind(SocketAddr::new(path.address.into(), 0)))?;
    let address = listener.local_addr()?;
    // What is accepted inherits it.
    SockRef::from(&listener).set_tcp_congestion(CONGESTION_CONTROL.as_bytes())?;
    SockRef::from(&listener).set_read_timeout(Some(CONNECT_WITHIN))?;
    let connect_one = || {
        let socket = path
            .from
            .run(|| Socket::new(Domain::IPV4, Type::STREAM, None))?;
        socket.set_tcp_congestion(CONGESTION_CONTROL.as_bytes())?;
        socket.connect_timeout(&address.into(), CONNECT_WITHIN)?;
        let sender = TcpStream::from(socket);
        let (receiver, _) = listener.accept()?;
        sender.set_write_timeout(Some(LOOK))?;
        receiver.set_read_timeout(Some(LOOK))?;
        Ok((sender, receiver))
    };
    (0..flows).map(|_| connect_one()).collect()
}

fn send(streams: Vec<&TcpStream>, ends: Ends, stop: &AtomicBool) -> io::Result<()> {
    let chunk = vec![0x5a; CHUNK];
    serve(streams, ends, Interest::WRITABLE, stop, |mut stream| {
        stream.write(&chunk)
    })
}

fn receive(
    streams: Vec<&TcpStream>,
    ends: Ends,
    stop: &AtomicBool,
    counted: &AtomicU64,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    serve(streams, ends, Interest::READABLE, stop, |mut stream| {
        let read = stream.read(&mut chunk)?;
        counted.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    })
}

/// Calls `turn` for the streams in turn, while they are ready, until it is time to stop or an end
/// has closed.
fn serve(
    streams: Vec<&TcpStream>,
    ends: Ends,
    interest: Interest,
    stop: &AtomicBool,
    mut turn: impl FnMut(&TcpStream) -> io::Result<usize>,
) -> io::Result<()> {
    let mut ready: VecDeque<usize> = (0..streams.len()).collect();
    let mut readiness = match ends {
        Ends::EventLoop => Some(Readiness::of(&streams, interest)?),
        Ends::ThreadEach => None,
    };
    while !stop.load(Ordering::Relaxed) {
        let Some(at) = ready.pop_front() else {
            if let Some(readiness) = &mut readiness {
                readiness.wait(&mut ready)?;
            }
            continue;
        };
        match turn(streams[at]) {
            Ok(0) => return Ok(()),
            Ok(_) => ready.push_back(at),
            // The loop is told of the next readiness; a thread's call has only looked at the time.
            Err(error) if is_wait(&error) && readiness.is_some() => {}
            Err(error) if is_wait(&error) => ready.push_back(at),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Which streams of an event loop have become ready.
struct Readiness {
    poll: Poll,
    events: Events,
}

impl Readiness {
    fn of(streams: &[&TcpStream], interest: Interest) -> io::Result<Readiness> {
        let poll = Poll::new()?;
        for (at, stream) in streams.iter().enumerate() {
            stream.set_nonblocking(true)?;
            let descriptor = stream.as_raw_fd();
            poll.registry()
                .register(&mut SourceFd(&descriptor), Token(at), interest)?;
        }
        let events = Events::with_capacity(streams.len());
        Ok(Readiness { poll, events })
    }

    /// Sleeps until some stream is ready, for a while.
    fn wait(&mut self, ready: &mut VecDeque<usize>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(LOOK)) {
            Err(error) if !is_wait(&error) => return Err(error),
            _ => ready.extend(self.events.iter().map(|event| event.token().0)),
        }
        Ok(())
    }
}

fn is_wait(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::WouldBlock | K::TimedOut | K::Interrupted)
}

/// Segments that the sender's namespace has sent again so far.
fn retransmits(path: &Path) -> io::Result<u64> {
    let snmp = path
        .from
        .run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))?;
    Ok(tcp_counter(&snmp, "RetransSegs").unwrap_or_default())
}

/// A counter of the `Tcp:` lines of `/proc/net/snmp`: names on the first, values on the second.
fn tcp_counter(snmp: &str, name: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|found| found == name)?;
    values.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_name() {
        let snmp = "Ip: A B\nIp: 1 2\nTcp: RtoMin RetransSegs InErrs\nTcp: 200 17 3\n";
        assert_eq!(tcp_counter(snmp, "RetransSegs"), Some(17));
        assert_eq!(tcp_counter(snmp, "Missing"), None);
    }
}
