//! A TCP transfer between two namespaces, compared by digest.
//!
//! In: where to listen, from where to connect, how many bytes of which seed.
//! Out: the bytes that arrived, the time it took, and the digest of each side.
//! Never: outlives its timeout, keeps the content in memory, or calls a damaged transfer an error:
//! the digests tell.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use socket2::{Domain, SockRef, Socket, Type};

use crate::devices::netns::Netns;

/// What to transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferSpec {
    /// The server's address; the kernel picks the port.
    pub server: IpAddr,
    /// Bytes to send.
    pub bytes: u64,
    /// Picks the content.
    pub seed: u64,
    /// The longest that the whole of it may take.
    pub timeout: Duration,
    /// The congestion control to ask for; the one that was got is in the report.
    pub congestion: String,
}

impl TransferSpec {
    /// A transfer of `bytes` with cubic, in at most 30 seconds.
    #[must_use]
    pub fn to(server: IpAddr, bytes: u64) -> TransferSpec {
        let timeout = Duration::from_secs(30);
        TransferSpec {
            server,
            bytes,
            seed: 1,
            timeout,
            congestion: "cubic".into(),
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferReport {
    /// Bytes that the server read.
    pub bytes: u64,
    /// From connecting to the server's having read everything and closed.
    pub duration: Duration,
    /// SHA-256 of what the client wrote.
    pub sent: [u8; 32],
    /// SHA-256 of what the server read.
    pub received: [u8; 32],
    /// The client's congestion control.
    pub congestion: String,
}

impl TransferReport {
    /// True if what was read is what was written.
    #[must_use]
    pub fn whole(&self) -> bool {
        self.sent == self.received
    }

    /// Gigabits of content a second, both digests included in the time.
    #[must_use]
    pub fn gbit_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e9 / self.duration.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Sends `spec.bytes` from `client` to a server in the namespace `server`.
///
/// # Errors
/// What a socket says, or `TimedOut`.
pub fn transfer(server: &Netns, client: &Netns, spec: &TransferSpec) -> io::Result<TransferReport> {
    let bound = Bound {
        deadline: Instant::now() + spec.timeout,
        given_up: AtomicBool::new(false),
    };
    let listener = server.run(|| TcpListener::bind(SocketAddr::new(spec.server, 0)))?;
    let address = listener.local_addr()?;
    let socket = client.run(|| Socket::new(Domain::for_address(address), Type::STREAM, None))?;
    // Best effort: the report says what it was.
    let _kept_default = socket.set_tcp_congestion(spec.congestion.as_bytes());
    let congestion = socket.tcp_congestion()?;
    let began = Instant::now();
    let (sent, got) = thread::scope(|scope| {
        let reading = scope.spawn(|| bound.guard(|| receive(&listener, &bound)));
        let sent = bound.guard(|| send(socket, address, spec, &bound));
        (sent, reading.join())
    });
    let duration = began.elapsed();
    let got = got.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    // Where both failed, the one that did not merely give up knows why.
    let (sent, (bytes, received)) = match (sent, got) {
        (Ok(sent), Ok(got)) => (sent, got),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => return Err(error),
        (Err(ours), Err(theirs)) if ours.kind() == io::ErrorKind::Interrupted => {
            return Err(theirs);
        }
        (Err(ours), Err(_)) => return Err(ours),
    };
    let congestion = String::from_utf8_lossy(&congestion)
        .trim_end_matches('\0')
        .to_owned();
    Ok(TransferReport {
        bytes,
        duration,
        sent,
        received,
        congestion,
    })
}

/// Bytes for one call to the kernel: enough for four super-frames.
const CHUNK: usize = 256 * 1024;
/// How often a waiting side looks whether it is time to give up.
const LOOK: Duration = Duration::from_millis(20);

/// When both sides stop: at the deadline, or as soon as one has failed.
struct Bound {
    deadline: Instant,
    given_up: AtomicBool,
}

impl Bound {
    fn guard<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        work().inspect_err(|_| self.given_up.store(true, Ordering::Relaxed))
    }

    fn check(&self) -> io::Result<()> {
        if Instant::now() >= self.deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the transfer took too long",
            ));
        }
        if self.given_up.load(Ordering::Relaxed) {
            return Err(io::Error::new(
                io::ErrorKind::Interrupted,
                "the other side gave up",
            ));
        }
        Ok(())
    }

    /// Repeats `call` for as long as it has nothing to do and the bound allows.
    fn patiently<T>(&self, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            self.check()?;
            match call() {
                Err(error) if is_wait(&error) => {}
                done => return done,
            }
        }
    }
}

fn is_wait(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::WouldBlock | K::TimedOut | K::Interrupted)
}

fn receive(listener: &TcpListener, bound: &Bound) -> io::Result<(u64, [u8; 32])> {
    SockRef::from(listener).set_read_timeout(Some(LOOK))?;
    let (mut stream, _) = bound.patiently(|| listener.accept())?;
    stream.set_read_timeout(Some(LOOK))?;
    let (mut digest, mut bytes) = (Sha256::new(), 0);
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = bound.patiently(|| stream.read(&mut chunk))?;
        if read == 0 {
            return Ok((bytes, digest.finalize().into()));
        }
        digest.update(&chunk[..read]);
        bytes += read as u64;
    }
}

fn send(
    socket: Socket,
    server: SocketAddr,
    spec: &TransferSpec,
    bound: &Bound,
) -> io::Result<[u8; 32]> {
    let left = bound.deadline.saturating_duration_since(Instant::now());
    socket.connect_timeout(&server.into(), left.max(LOOK))?;
    let mut stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(LOOK))?;
    stream.set_read_timeout(Some(LOOK))?;
    let (mut digest, mut content) = (Sha256::new(), Content(spec.seed));
    let mut chunk = vec![0; CHUNK];
    let mut left = spec.bytes;
    while left > 0 {
        let length = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
        content.fill(&mut chunk[..length]);
        digest.update(&chunk[..length]);
        let mut rest = &chunk[..length];
        while !rest.is_empty() {
            let written = bound.patiently(|| stream.write(rest))?;
            rest = &rest[written..];
        }
        left -= length as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // The server sends nothing; its closing says that it has read everything.
    bound.patiently(|| stream.read(&mut chunk))?;
    Ok(digest.finalize().into())
}

/// Pseudo-random bytes (splitmix64): the same for the same seed, and nothing that compresses.
struct Content(u64);

impl Content {
    fn fill(&mut self, chunk: &mut [u8]) {
        for word in chunk.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let octets = (mixed ^ (mixed >> 31)).to_le_bytes();
            word.copy_from_slice(&octets[..word.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_the_seeds_alone() {
        let bytes = |seed| {
            let mut chunk = [0; 21];
            Content(seed).fill(&mut chunk);
            chunk
        };
        assert_eq!(bytes(7), bytes(7));
        assert_ne!(bytes(7), bytes(8));
    }
}
