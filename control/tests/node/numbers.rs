//! Numbered datagrams from one to another at a rate, each of which is to arrive once.
//!
//! In: the networks of two, pods or nodes, and a rate. Out: how many were sent, lost and doubled.
//! Never: sends more at once than `compare` does, so that what is lost was not lost by the sender: it
//! does not make up for more than it missed within two turns, or one batch.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::devices::Netns;
use nix::errno::Errno;
use nix::sys::prctl::set_timerslack;
use nix::sys::socket::{
    MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt,
};

/// Datagrams for one call.
const BATCH: usize = 32;
/// The sender wakes up this often.
const TICK: Duration = Duration::from_micros(100);
/// The receiver looks this often.
const LOOK: Duration = Duration::from_micros(500);
/// How long the last ones may be under way.
const TAIL: Duration = Duration::from_millis(500);
/// UDP's payload in a frame of 64 bytes, FCS not counted. The number is in its first eight.
const PAYLOAD: usize = 22;

/// Under way.
pub(crate) struct Numbers {
    done: Arc<AtomicBool>,
    sender: JoinHandle<(u64, Duration)>,
    receiver: JoinHandle<Vec<u8>>,
}

/// What became of them.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) twice: usize,
    /// Sent in a second.
    pub(crate) rate: u64,
}

impl Numbers {
    pub(crate) fn start(from: &Netns, to: &Netns, at: IpAddr, rate: u64) -> Numbers {
        let receiver = to.run(|| UdpSocket::bind(SocketAddr::new(at, 0)));
        let receiver = receiver.expect("a socket");
        // What waited in a ring comes all at once: what is lost here, no switch could help.
        setsockopt(&receiver.as_fd(), sockopt::RcvBufForce, &(64 << 20)).expect("this is a root");
        let target = receiver.local_addr().expect("bound");
        let sender = from.run(|| UdpSocket::bind("0.0.0.0:0"));
        let sender = sender.expect("a socket");
        sender.connect(target).expect("a route");
        let done = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&done);
        let sending = std::thread::spawn(move || send(&sender, rate, &stopped));
        let stopped = Arc::clone(&done);
        let receiving = std::thread::spawn(move || receive(&receiver, &stopped));
        Numbers {
            done,
            sender: sending,
            receiver: receiving,
        }
    }

    pub(crate) fn stop(self) -> Arrived {
        self.done.store(true, Ordering::Relaxed);
        let (sent, time) = self.sender.join().expect("it sends");
        let times = self.receiver.join().expect("it receives");
        let arrived = times.iter().filter(|times| **times > 0).count();
        Arrived {
            sent,
            lost: sent - arrived as u64,
            twice: times.iter().filter(|times| **times > 1).count(),
            rate: (sent as f64 / time.as_secs_f64()) as u64,
        }
    }
}

/// Sends until it is told to stop. Gives how many, and in what time.
fn send(socket: &UdpSocket, rate: u64, stopped: &AtomicBool) -> (u64, Duration) {
    set_timerslack(1).expect("settable");
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut payloads = [[0x5a; PAYLOAD]; BATCH];
    let (begun, mut sent, mut credit, mut seen) = (Instant::now(), 0_u64, 0.0, Duration::ZERO);
    let most = (2.0 * TICK.as_secs_f64() * rate as f64).max(BATCH as f64);
    while !stopped.load(Ordering::Relaxed) {
        let now = begun.elapsed();
        credit = f64::min(credit + (now - seen).as_secs_f64() * rate as f64, most);
        seen = now;
        let mut due = credit as usize;
        credit -= due as f64;
        while due > 0 {
            let batch = due.min(BATCH);
            for (number, payload) in (sent..).zip(&mut payloads[..batch]) {
                payload[..8].copy_from_slice(&number.to_be_bytes());
            }
            let slices = payloads.each_ref().map(|payload| [IoSlice::new(payload)]);
            let gone = sendmmsg(
                socket.as_raw_fd(),
                &mut headers,
                slices[..batch].iter(),
                [None::<SockaddrIn>; BATCH],
                [],
                MsgFlags::empty(),
            );
            let gone = gone.expect("nobody says that the other is gone").count();
            sent += gone as u64;
            due -= gone;
        }
        std::thread::sleep(TICK.saturating_sub(begun.elapsed() - now));
    }
    (sent, begun.elapsed())
}

/// How often each number came, until [`TAIL`] after the word to stop.
fn receive(socket: &UdpSocket, stopped: &AtomicBool) -> Vec<u8> {
    set_timerslack(1).expect("settable");
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut bytes = [[0_u8; 8]; BATCH];
    let (mut times, mut last) = (Vec::new(), Instant::now());
    while last.elapsed() < TAIL {
        if !stopped.load(Ordering::Relaxed) {
            last = Instant::now();
        }
        loop {
            let mut room = bytes.each_mut().map(|number| [IoSliceMut::new(number)]);
            let flags = MsgFlags::MSG_DONTWAIT;
            let came = recvmmsg(
                socket.as_raw_fd(),
                &mut headers,
                room.iter_mut(),
                flags,
                None,
            );
            let came = match came {
                Ok(came) => came.count(),
                Err(Errno::EAGAIN) => break,
                Err(error) => panic!("it does not receive: {error}"),
            };
            for number in &bytes[..came] {
                let at = usize::try_from(u64::from_be_bytes(*number)).expect("not so many");
                if times.len() <= at {
                    times.resize(at + 1, 0_u8);
                }
                times[at] += 1;
            }
        }
        std::thread::sleep(LOOK);
    }
    times
}
