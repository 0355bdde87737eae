//! The plugin's way to the daemon.
//!
//! In: a request. Out: the daemon's answer.
//! Never: lets a runtime see that the daemon was just restarted, if it is back in time.
//!
//! A daemon that a supervisor restarts is away for a fraction of a second. What it did with a
//! request whose answer was cut off is not known, so that request is made again: at once if it may
//! be made twice, and an ADD after a DEL of what may have come of it.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::error::{CniError, Code};
use crate::api::types::{
    AddReply, AddRequest, ApiError, CheckRequest, DelRequest, ErrorKind, GcRequest, Removed,
};
use crate::api::{Client, ClientError};

/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// How many times as long as it may be away a daemon is asked in all, whose answers break off: that
/// comes to a minute, and a runtime waits longer.
const ABSENCES_MAX: u32 = 12;

/// Of what `GET /v1/status` answers, what stands in the way of an ADD.
#[derive(Deserialize)]
struct Status {
    error: Option<ApiError>,
}

/// The daemon, as the plugin asks it.
#[derive(Clone, Debug)]
pub(super) struct Door {
    client: Client,
    patience: Duration,
}

impl Door {
    /// Of the daemon that listens there, and may be away for so long at a stretch.
    pub(super) fn new(socket: &Path, patience: Duration) -> Door {
        Door {
            client: Client::new(socket),
            patience,
        }
    }

    /// ADD.
    pub(super) fn add(&self, request: &AddRequest) -> Result<AddReply, CniError> {
        let undo = DelRequest {
            key: request.key.clone(),
            netns: Some(request.netns.clone()),
        };
        let mut cut_off = false;
        self.until_back(|| {
            if cut_off {
                self.client.del(&undo)?;
            }
            let answer = self.client.add(request);
            cut_off = matches!(answer, Err(ClientError::Garbled { .. }));
            answer
        })
        .inspect_err(|error| {
            if cut_off || error.code == Code::TryAgainLater {
                // As far as it goes: the runtime will ask for a DEL, too.
                let _ = self.client.del(&undo);
            }
        })
    }

    /// DEL. An attachment that is not known is one that is gone.
    pub(super) fn del(&self, request: &DelRequest) -> Result<(), CniError> {
        match self.until_back(|| self.client.del(request)) {
            Err(error) if error.code == Code::Other(ErrorKind::NotFound.code()) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// CHECK.
    pub(super) fn check(&self, request: &CheckRequest) -> Result<(), CniError> {
        self.until_back(|| self.client.check(request)).map(|_| ())
    }

    /// GC.
    pub(super) fn gc(&self, request: &GcRequest) -> Result<Removed, CniError> {
        self.until_back(|| self.client.gc(request))
    }

    /// Could an ADD be served now? Asked once: who asks for a status wants it as it is.
    pub(super) fn status(&self) -> Result<(), CniError> {
        let refused = match self.client.get("/v1/status") {
            Ok(Status { error: None }) => return Ok(()),
            Ok(Status { error: Some(why) }) => ClientError::Refused(why),
            Err(error @ ClientError::Refused(_)) => error,
            Err(away) => return Err(CniError::new(Code::NotAvailable, away.to_string())),
        };
        Err(CniError::of_daemon(refused))
    }

    /// Asks again while nobody answers. A daemon that broke off was there until then, so it may be away
    /// for as long once more; one whose every answer breaks off is given up all the same.
    fn until_back<T>(
        &self,
        mut ask: impl FnMut() -> Result<T, ClientError>,
    ) -> Result<T, CniError> {
        let begun = Instant::now();
        let mut end = begun + self.patience;
        loop {
            let answer = ask();
            let now = Instant::now();
            if matches!(answer, Err(ClientError::Garbled { .. })) {
                end = (now + self.patience).min(begun + self.patience * ABSENCES_MAX);
            }
            match answer {
                Err(error) if is_away(&error) && now < end => thread::sleep(LOOK),
                answer => return answer.map_err(CniError::of_daemon),
            }
        }
    }
}

/// Nobody is there, or somebody who has just come and does not know the node yet.
fn is_away(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } | ClientError::Garbled { .. } => true,
        ClientError::Refused(refused) => refused.kind == ErrorKind::NotReady,
        ClientError::Slow { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::api::types::Key;

    /// How long a daemon holds a request before it breaks off: three times that is longer than it may
    /// be away.
    const HOLD: Duration = Duration::from_millis(200);
    const PATIENCE: Duration = Duration::from_millis(500);

    /// What comes of a DEL where a daemon breaks off so many times, and answers then.
    fn asked(
        broken_off: usize,
        hold: Duration,
        patience: Duration,
    ) -> (Result<(), CniError>, Duration) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tapline.sock");
        let listener = UnixListener::bind(&path).expect("a fresh path");
        let daemon = thread::spawn(move || {
            for connection in 0..=broken_off {
                let (mut stream, _) = listener.accept().expect("somebody asks");
                let _ = stream.read(&mut [0; 1024]);
                if connection < broken_off {
                    thread::sleep(hold);
                    continue;
                }
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"removed\":[]}";
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        let request = DelRequest {
            key: Key {
                network: "kubenet".into(),
                container_id: "a".into(),
                ifname: "eth0".into(),
            },
            netns: None,
        };
        let begun = Instant::now();
        let answer = Door::new(&path, patience).del(&request);
        let took = begun.elapsed();
        if answer.is_ok() {
            daemon.join().expect("it answered");
        }
        (answer, took)
    }

    #[test]
    fn a_daemon_that_dies_again_and_again_is_asked_until_it_answers() {
        let (answer, took) = asked(3, HOLD, PATIENCE);
        assert_eq!(answer, Ok(()));
        assert!(took > PATIENCE, "{took:?}");
    }

    #[test]
    fn one_whose_every_answer_breaks_off_is_given_up() {
        let (answer, took) = asked(usize::MAX, Duration::ZERO, Duration::from_millis(20));
        assert_eq!(answer.expect_err("no answer").code, Code::TryAgainLater);
        assert!(took >= Duration::from_millis(20) * ABSENCES_MAX, "{took:?}");
    }
}
