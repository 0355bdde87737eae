//! UDP at a given rate: paced batches on one side, a count on the other.
//!
//! In: a path, a payload, a rate and a time. Out: frames sent and frames received.
//! Never: catches up after a stall by a burst: that would be the generator's loss, not the
//! switch's. Nor wakes the receiver for each frame: it looks every 200 microseconds into a buffer
//! that holds far more than arrives in between, so that its cost is small and equal for all.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt,
};
use socket2::SockRef;

use super::Path;
use super::search::Trial;

/// Payload of a frame of 64 bytes, FCS not counted: 14 Ethernet, 20 IP, 8 UDP, 22 payload.
pub const PAYLOAD_64: usize = 22;
/// Payload of a frame near the usual MTU.
pub const PAYLOAD_1400: usize = 1400;

/// Frames for one call: a third of the shortest TAP ring (256) that anyone uses here.
const BATCH: usize = 32;
/// The sender wakes up this often.
const TICK: Duration = Duration::from_micros(100);
/// The receiver looks this often.
const LOOK: Duration = Duration::from_micros(200);
/// How long the last frames may be under way: the deepest queue, drained at the slowest rate.
const TAIL: Duration = Duration::from_millis(40);
/// For 20,000 small frames or more, a tenth of a second at the highest rates.
const RECEIVE_BUFFER: usize = 16 << 20;

/// A sender and a receiver, connected.
#[derive(Debug)]
pub struct Pair {
    sender: UdpSocket,
    receiver: UdpSocket,
    payload: Vec<u8>,
}

impl Pair {
    /// Opens both ends.
    ///
    /// # Errors
    /// What a socket says.
    pub fn open(path: &Path, payload: usize) -> io::Result<Pair> {
        let receiver = path
            .to
            .run(|| UdpSocket::bind(SocketAddr::new(path.address.into(), 0)))?;
        // Beyond the machine's limit where we may; else what the limit allows.
        if setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            SockRef::from(&receiver).set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        receiver.set_nonblocking(true)?;
        let sender = path.from.run(|| UdpSocket::bind("0.0.0.0:0"))?;
        sender.connect(receiver.local_addr()?)?;
        SockRef::from(&sender).set_send_buffer_size(1 << 20)?;
        let pair = Pair {
            sender,
            receiver,
            payload: vec![0x5a; payload],
        };
        pair.warm_up()?;
        Ok(pair)
    }

    /// Resolves the neighbour, and lets a switch learn, before anything counts.
    fn warm_up(&self) -> io::Result<()> {
        for _ in 0..5 {
            self.sender.send(&self.payload)?;
            thread::sleep(Duration::from_millis(2));
        }
        self.drain();
        Ok(())
    }

    /// Sends for `time`, at `rate` frames a second or as fast as it goes, and counts.
    ///
    /// # Errors
    /// What a socket says.
    pub fn trial(&self, rate: Option<f64>, time: Duration) -> io::Result<Trial> {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let receiving = scope.spawn(|| self.receive(&done));
            let sent = self.send(rate, time);
            thread::sleep(TAIL);
            done.store(true, Ordering::Relaxed);
            let received = receiving.join().unwrap_or_default();
            let (sent, seconds) = sent?;
            Ok(Trial {
                sent,
                // What was late for the trial before must not count for this one.
                received: received.min(sent),
                seconds,
            })
        })
    }

    fn send(&self, rate: Option<f64>, time: Duration) -> io::Result<(u64, f64)> {
        // The kernel adds 50 microseconds to every sleep otherwise.
        let _ = nix::sys::prctl::set_timerslack(1);
        let slice = [IoSlice::new(&self.payload)];
        let slices = [slice; BATCH];
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let (began, mut sent, mut credit, mut seen) = (Instant::now(), 0_u64, 0.0, Duration::ZERO);
        loop {
            let now = began.elapsed();
            if now >= time {
                return Ok((sent, now.as_secs_f64()));
            }
            let due = match rate {
                None => BATCH,
                Some(rate) => {
                    credit += (now - seen).as_secs_f64() * rate;
                    // Beyond two ticks or one batch, what was missed is not made up for.
                    let most = (2.0 * TICK.as_secs_f64() * rate).max(BATCH as f64);
                    credit = f64::min(credit, most);
                    credit as usize
                }
            };
            seen = now;
            let gone = self.send_some(&mut headers, &slices, due)?;
            sent += gone as u64;
            credit -= gone as f64;
            if rate.is_some() && gone == due {
                thread::sleep(TICK.saturating_sub(began.elapsed() - now));
            }
        }
    }

    fn send_some(
        &self,
        headers: &mut MultiHeaders<SockaddrIn>,
        slices: &[[IoSlice<'_>; 1]; BATCH],
        due: usize,
    ) -> io::Result<usize> {
        let mut gone = 0;
        while gone < due {
            let now = (due - gone).min(BATCH);
            let flags = MsgFlags::empty();
            let to = [None::<SockaddrIn>; BATCH];
            let fd = self.sender.as_raw_fd();
            match sendmmsg(fd, headers, slices[..now].iter(), to, [], flags) {
                Ok(results) => gone += results.count(),
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(gone)
    }

    fn receive(&self, done: &AtomicBool) -> u64 {
        let _ = nix::sys::prctl::set_timerslack(1);
        let mut received = 0;
        while !done.load(Ordering::Relaxed) {
            received += self.drain();
            thread::sleep(LOOK);
        }
        received + self.drain()
    }

    /// Takes everything that is there, and says how much that was.
    fn drain(&self) -> u64 {
        // One byte of each will do: the rest is cut off without being copied.
        let mut bytes = [[0_u8; 1]; BATCH];
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let mut received = 0;
        loop {
            let mut room = bytes.each_mut().map(|byte| [IoSliceMut::new(byte)]);
            let flags = MsgFlags::MSG_DONTWAIT;
            let fd = self.receiver.as_raw_fd();
            match recvmmsg(fd, &mut headers, room.iter_mut(), flags, None) {
                Ok(results) => received += results.count() as u64,
                Err(_) => return received,
            }
        }
    }
}
