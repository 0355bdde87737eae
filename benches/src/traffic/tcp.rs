//! Bulk TCP: a number of flows for a fixed time, counted where the bytes arrive.
//!
//! In: a path, a number of flows and a time. Out: the rate, and retransmits in that time.
//! Never: leaves the congestion control to the machine: a pacing one (BBR is the default on many)
//! halves and scatters every figure, so both ends are set by `setsockopt`.
//!
//! Retransmits are those of the sender's whole namespace, which carries nothing but these flows.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

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
pub fn run(path: &Path, flows: usize, time: Duration, meter: &mut Meter) -> io::Result<Outcome> {
    let pairs = connect(path, flows)?;
    let stop = AtomicBool::new(false);
    let counted = AtomicU64::new(0);
    let outcome = thread::scope(|scope| {
        for (sender, receiver) in &pairs {
            scope.spawn(|| send(sender, &stop));
            scope.spawn(|| receive(receiver, &stop, &counted));
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

fn send(mut stream: &TcpStream, stop: &AtomicBool) {
    let chunk = vec![0x5a; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        match stream.write(&chunk) {
            Err(error) if !is_wait(&error) => return,
            _ => {}
        }
    }
}

fn receive(mut stream: &TcpStream, stop: &AtomicBool, counted: &AtomicU64) {
    let mut chunk = vec![0; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut chunk) {
            Ok(0) => return,
            Ok(read) => {
                counted.fetch_add(read as u64, Ordering::Relaxed);
            }
            Err(error) if is_wait(&error) => {}
            Err(_) => return,
        }
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
