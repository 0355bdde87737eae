//! The line between a daemon and the one that takes its place: a pair of unix sockets.
//!
//! In: messages and descriptors. Out: the same at the other end, or that it hung up.
//! Never: waits longer than told, or takes a message longer than [`MESSAGE_MAX`].
//!
//! A message is its length in four bytes, and JSON. Descriptors follow a message that says how many
//! there are, each bundle with a byte of its own.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::Message;

/// The longest message: 32,768 conversations of 200 bytes are 7 MB, and 128 super-frames that wait
/// are 30 MB in digits.
pub const MESSAGE_MAX: usize = 64 << 20;
/// Descriptors in a bundle; the kernel takes 253 (`SCM_MAX_FD`).
const BUNDLE: usize = 128;
/// How long the other end may take to read.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// Nothing came, or nothing of use.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The other end is closed: whoever had it has died, or wants no more.
    #[error("the other daemon hung up")]
    Closed,
    /// It did not come in time.
    #[error("the other daemon said nothing within {0:?}")]
    Slow(Duration),
    /// It makes no sense.
    #[error("what the other daemon says makes no sense: {0}")]
    Garbled(String),
    /// What the system says.
    #[error("the line to the other daemon: {0}")]
    Broken(io::Error),
}

impl LineError {
    fn of(error: io::Error, within: Duration) -> LineError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => LineError::Slow(within),
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => LineError::Closed,
            _ => LineError::Broken(error),
        }
    }
}

/// One end.
#[derive(Debug)]
pub struct Line(UnixStream);

impl Line {
    /// A line; its other end is for a child.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn pair() -> io::Result<(Line, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Line(ours), theirs.into()))
    }

    /// The end that this process was given.
    #[must_use]
    pub fn over(end: OwnedFd) -> Line {
        Line(end.into())
    }

    /// Says something.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn say(&mut self, message: &Message) -> Result<(), LineError> {
        let text = serde_json::to_vec(message).map_err(|e| LineError::Garbled(e.to_string()))?;
        let length = u32::try_from(text.len()).map_err(|e| LineError::Garbled(e.to_string()))?;
        let failed = |error| LineError::of(error, WRITE_WITHIN);
        self.0
            .set_write_timeout(Some(WRITE_WITHIN))
            .map_err(failed)?;
        self.0.write_all(&length.to_be_bytes()).map_err(failed)?;
        self.0.write_all(&text).map_err(failed)
    }

    /// What the other one says next.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn hear(&mut self, within: Duration) -> Result<Message, LineError> {
        let end = Instant::now() + within;
        let mut length = [0; 4];
        self.read(&mut length, end, within)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MESSAGE_MAX {
            return Err(LineError::Garbled(format!("{length} bytes are too many")));
        }
        let mut text = vec![0; length];
        self.read(&mut text, end, within)?;
        serde_json::from_slice(&text).map_err(|error| LineError::Garbled(error.to_string()))
    }

    fn read(
        &mut self,
        mut into: &mut [u8],
        end: Instant,
        within: Duration,
    ) -> Result<(), LineError> {
        while !into.is_empty() {
            self.patience(end, within)?;
            match self.0.read(into) {
                Ok(0) => return Err(LineError::Closed),
                Ok(some) => into = &mut into[some..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LineError::of(error, within)),
            }
        }
        Ok(())
    }

    fn patience(&self, end: Instant, within: Duration) -> Result<(), LineError> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(LineError::Slow(within));
        }
        let set = self.0.set_read_timeout(Some(left));
        set.map_err(LineError::Broken)
    }

    /// Gives descriptors; the other end has them too, then.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn give(&mut self, descriptors: &[BorrowedFd<'_>]) -> Result<(), LineError> {
        for bundle in descriptors.chunks(BUNDLE) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BUNDLE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(bundle)) {
                return Err(LineError::Garbled("a bundle does not fit".to_owned()));
            }
            let byte = [IoSlice::new(&[0])];
            sendmsg(&self.0, &byte, &mut control, SendFlags::NOSIGNAL)
                .map_err(|error| LineError::of(error.into(), WRITE_WITHIN))?;
        }
        Ok(())
    }

    /// Takes `count` descriptors.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn take(&mut self, count: usize, within: Duration) -> Result<Vec<OwnedFd>, LineError> {
        let end = Instant::now() + within;
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            self.patience(end, within)?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BUNDLE))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let mut room = [IoSliceMut::new(&mut byte)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = recvmsg(&self.0, &mut room, &mut control, flags)
                .map_err(|error| LineError::of(error.into(), within))?;
            if received.bytes == 0 {
                return Err(LineError::Closed);
            }
            let before = taken.len();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    taken.extend(descriptors);
                }
            }
            if taken.len() == before {
                let why = format!("{before} descriptors of {count}");
                return Err(LineError::Garbled(why));
            }
        }
        Ok(taken)
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn messages_and_more_descriptors_than_one_bundle_holds_come_through_in_order() {
        let (mut old, theirs) = Line::pair().unwrap();
        let mut new = Line::over(theirs);
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<File> = (0..300)
            .map(|at| {
                let path = folder.path().join(at.to_string());
                std::fs::write(&path, at.to_string()).unwrap();
                File::open(path).unwrap()
            })
            .collect();
        old.say(&Message::Refused("no".into())).unwrap();
        let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        old.give(&borrowed).unwrap();
        old.say(&Message::Ready).unwrap();
        let second = Duration::from_secs(1);
        assert!(matches!(new.hear(second), Ok(Message::Refused(why)) if why == "no"));
        let taken = new.take(300, second).unwrap();
        for (at, file) in taken.into_iter().map(File::from).enumerate() {
            let text = io::read_to_string(file).unwrap();
            assert_eq!(text, at.to_string());
        }
        assert!(matches!(new.hear(second), Ok(Message::Ready)));
        drop(old);
        assert!(matches!(new.hear(second), Err(LineError::Closed)));
    }

    #[test]
    fn silence_nonsense_and_endless_messages_end() {
        let (mut old, theirs) = Line::pair().unwrap();
        let short = Duration::from_millis(20);
        assert!(matches!(old.hear(short), Err(LineError::Slow(_))));
        let mut raw = UnixStream::from(theirs);
        raw.write_all(&[0, 0, 0, 2, b'{', b'}']).unwrap();
        assert!(matches!(old.hear(short), Err(LineError::Garbled(_))));
        raw.write_all(&[0xff; 8]).unwrap();
        assert!(matches!(old.hear(short), Err(LineError::Garbled(_))));
        let (mut old, theirs) = Line::pair().unwrap();
        UnixStream::from(theirs).write_all(&[0, 0]).unwrap();
        assert!(matches!(old.hear(short), Err(LineError::Closed)));
    }
}
