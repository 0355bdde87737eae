//! One daemon takes the place of another, and no frame is lost: `tapline upgrade`.
//!
//! In: a program to go on with. Out: a second daemon that has every TAP, the tables, what was
//! learned, the lock on the state and the sockets; or the first one, unharmed, and the reason.
//! Never: two that read a TAP at once, or none for longer than a TAP's ring lasts.
//!
//! ```text
//! old                                        new, a child of the old one
//!  | -- hello: versions -------------------->  |  before it has looked at anything
//!  | <------------------- hello: versions ---- |
//!  |                                           |  configuration, rights, the node's truth
//!  | <-------------- prepared: what it is ---- |
//!  |  requests wait from here on               |
//!  | -- estate: who is attached, what is ----> |  tables compiled, workers started, queues
//!  |    learned, lock, sockets, queues         |  adopted: none of them is read
//!  | <---------------------------- ready ----- |
//!  |  workers rest after their breath          |
//!  | -- go: what was learned meanwhile, -----> |  workers read
//!  |    frames that wait                       |
//!  | <-------------------------- serving ----- |
//!  |  relays the requests that waited          |
//!  | -- farewell: the counters --------------> |  serves the socket, puts right what is missing
//! ```
//!
//! A queue stays open in both from `estate` on, so what a pod sends while nobody reads waits in it.
//! Until `serving` the old one can go on, and does, whatever becomes of the new one. If the old one
//! dies, the new one goes on with what it has by then, as after a crash if that is nothing.
//!
//! | file | what it does |
//! |---|---|
//! | `line` | messages and descriptors between the two |
//! | `learned` | what was learned, and the counters, as they are told |
//! | `give` | the old one's part |
//! | `take` | the new one's part |

pub mod give;
pub mod learned;
pub mod line;
pub mod take;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use self::learned::{Learned, LedgerRow};
use super::store::State;

/// The oldest version of the handover that is spoken.
pub const HANDOVER_MIN: u32 = 1;
/// The newest. It grows where an older daemon must not ignore what is new; what it may ignore is a
/// field that it does not know.
pub const HANDOVER_MAX: u32 = 1;

/// Who one is, before anything else is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The program's version.
    pub version: String,
    /// The oldest version of the handover that it speaks.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
}

impl Hello {
    /// What this program says of itself.
    #[must_use]
    pub fn own() -> Hello {
        Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            oldest: HANDOVER_MIN,
            newest: HANDOVER_MAX,
        }
    }

    /// The version that both speak.
    ///
    /// # Errors
    /// That there is none, in words.
    pub fn agree(&self, other: &Hello) -> Result<u32, String> {
        let both = self.newest.min(other.newest);
        if both >= self.oldest.max(other.oldest) {
            return Ok(both);
        }
        Err(format!(
            "tapline {} hands over by versions {} to {}, and tapline {} takes over by versions {} to \
             {}: they are too far apart. Nothing was changed; a restart needs no such agreement",
            self.version, self.oldest, self.newest, other.version, other.oldest, other.newest
        ))
    }
}

/// What is said, in the order in which it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Both: who I am.
    Hello(Hello),
    /// New: my configuration is read, and this is what it says of what cannot change.
    Prepared(BTreeMap<String, String>),
    /// Both: no, and why. It is the last word.
    Refused(String),
    /// Old: all there is. The descriptors follow: lock, control socket, metrics if they are served,
    /// queues.
    Estate(Box<Estate>),
    /// New: everything stands ready.
    Ready,
    /// Old: nobody reads now; you do.
    Go(Box<Learned>),
    /// New: my workers read, since this moment (`CLOCK_MONOTONIC`).
    Serving {
        /// Nanoseconds.
        since: u64,
    },
    /// Old: what my workers had counted.
    Farewell(Vec<LedgerRow>),
}

/// What is handed over while the old one still serves.
#[derive(Debug, Serialize, Deserialize)]
pub struct Estate {
    /// Who is attached.
    pub state: State,
    /// What the clock of the switch has come to.
    pub elapsed_ms: u64,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// How many queues follow, by worker.
    pub queues: usize,
    /// What was learned so far.
    pub learned: Learned,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn speaks(oldest: u32, newest: u32) -> Hello {
        Hello {
            version: format!("0.{newest}.0"),
            oldest,
            newest,
        }
    }

    #[test]
    fn neighbours_agree_on_the_newest_that_both_speak_and_strangers_on_none() {
        assert_eq!(speaks(1, 1).agree(&speaks(1, 2)), Ok(1));
        assert_eq!(speaks(1, 2).agree(&speaks(1, 1)), Ok(1));
        assert_eq!(speaks(2, 3).agree(&speaks(1, 2)), Ok(2));
        assert_eq!(Hello::own().agree(&Hello::own()), Ok(HANDOVER_MAX));
        for (old, new) in [((1, 1), (2, 3)), ((4, 5), (1, 3))] {
            let refused = speaks(old.0, old.1).agree(&speaks(new.0, new.1));
            assert!(refused.unwrap_err().contains("too far apart"));
        }
    }

    /// A field that one side does not know is ignored, so that neighbours in version understand each
    /// other.
    #[test]
    fn what_a_neighbour_says_besides_is_ignored() {
        let hello = r#"{"hello": {"version": "9", "oldest": 1, "newest": 2, "mood": "good"}}"#;
        assert!(matches!(serde_json::from_str(hello), Ok(Message::Hello(_))));
        let estate = r#"{"estate": {"state": {"version": 1, "attachments": []}, "elapsed_ms": 5,
            "metrics": null, "queues": 2, "weather": "fine",
            "learned": {"stations": [{"mac": "0a:58:0a:f4:01:06", "port": 2, "second": 3, "x": 1}],
                        "prophecies": []}}}"#;
        let Ok(Message::Estate(estate)) = serde_json::from_str(estate) else {
            panic!("not understood");
        };
        assert_eq!((estate.queues, estate.learned.count()), (2, 1));
    }
}
