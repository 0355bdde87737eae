//! The new daemon's part of a handover.
//!
//! In: the line at standard input. Out: a running part that goes on where another stopped, and the
//! sockets that clients know.
//! Never: reads a TAP, or changes a device, before it was told to go. Where the old one dies, it goes
//! on with what it has by then.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use dataplane::addr::PortId;
use dataplane::clock::Tick;
use dataplane::port::tap::TapPort;
use rustix::process::{Pid, getppid};

use super::give::monotonic;
use super::learned::Learned;
use super::line::{Line, LineError};
use super::{Estate, Hello, Message};
use crate::daemon::core::{Core, DaemonError, Parts, system};
use crate::devices::netns::Netns;

/// How long the old one may take for each of its steps; it waits for nobody but this process.
const STEP_WITHIN: Duration = Duration::from_secs(20);
/// How long the old one may take for its last words, which are only counters.
const FAREWELL_WITHIN: Duration = Duration::from_secs(3);
/// Its death closes the line before this process gets another parent.
const ORPHAN_WITHIN: Duration = Duration::from_secs(1);

/// The old one did not hand over.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// It said no.
    #[error("the daemon that was to be followed says: {0}")]
    Refused(String),
    /// It said nothing, or nothing of use.
    #[error(transparent)]
    Line(#[from] LineError),
    /// What it gave is of no use.
    #[error("what was handed over makes no sense: {0}")]
    Senseless(String),
}

/// What was given beside words.
#[derive(Debug)]
pub(in crate::daemon) struct Given {
    pub(in crate::daemon) lock: OwnedFd,
    pub(in crate::daemon) socket: OwnedFd,
    pub(in crate::daemon) metrics: Option<(SocketAddr, OwnedFd)>,
    pub(in crate::daemon) queues: Vec<OwnedFd>,
}

/// The line to the daemon that is to be followed.
#[derive(Debug)]
pub(in crate::daemon) struct Followed {
    line: Line,
    parent: Option<Pid>,
}

impl Followed {
    /// The one that started this process.
    pub(in crate::daemon) fn at_standard_input() -> io::Result<Followed> {
        let parent = getppid();
        let end = io::stdin().as_fd().try_clone_to_owned()?;
        // Else the line would stay open as long as this process lives.
        nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
        Ok(Followed {
            line: Line::over(end),
            parent,
        })
    }

    /// Who both are.
    pub(in crate::daemon) fn greet(&mut self) -> Result<(), TakeError> {
        let own = Hello::own();
        match self.hear(STEP_WITHIN)? {
            Message::Hello(hello) => {
                // It looks at this answer, too, and says why it does not agree.
                self.line.say(&Message::Hello(own.clone()))?;
                hello.agree(&own).map(drop).map_err(TakeError::Refused)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Says no.
    pub(in crate::daemon) fn refuse(&mut self, why: &dyn fmt::Display) {
        let _ = self.line.say(&Message::Refused(why.to_string()));
    }

    /// Whether who started this process is dead.
    pub(in crate::daemon) fn is_dead(&self) -> bool {
        let end = Instant::now() + ORPHAN_WITHIN;
        loop {
            match getppid() == self.parent {
                false => return true,
                true if Instant::now() > end => return false,
                true => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Says where this one stands; gives what there is.
    pub(in crate::daemon) fn prepared(
        &mut self,
        fixed: BTreeMap<String, String>,
    ) -> Result<(Estate, Given), TakeError> {
        self.line.say(&Message::Prepared(fixed))?;
        let estate = match self.hear(STEP_WITHIN)? {
            Message::Estate(estate) => *estate,
            other => return Err(unexpected(&other)),
        };
        estate.state.check().map_err(TakeError::Senseless)?;
        let doors = 2 + usize::from(estate.metrics.is_some());
        let taken = self.line.take(doors + estate.queues, STEP_WITHIN)?;
        let mut taken = taken.into_iter();
        let few = || TakeError::Senseless("too few descriptors".to_owned());
        let lock = taken.next().ok_or_else(few)?;
        let socket = taken.next().ok_or_else(few)?;
        let metrics = match estate.metrics {
            Some(at) => Some((at, taken.next().ok_or_else(few)?)),
            None => None,
        };
        let given = Given {
            lock,
            socket,
            metrics,
            queues: taken.collect(),
        };
        Ok((estate, given))
    }

    /// Says that everything stands ready, and waits for the word to go. Of one that dies before it
    /// says that, what it has told is all.
    pub(in crate::daemon) fn ready(&mut self) -> Result<Learned, TakeError> {
        let said = self.line.say(&Message::Ready).map_err(TakeError::from);
        match said.and_then(|()| self.hear(STEP_WITHIN)) {
            Ok(Message::Go(learned)) => Ok(*learned),
            Ok(other) => Err(unexpected(&other)),
            Err(TakeError::Line(LineError::Closed)) if self.is_dead() => {
                tracing::warn!("the daemon that was to be followed has died; this one goes on");
                Ok(Learned::default())
            }
            Err(error) => Err(error),
        }
    }

    /// Says that this one serves.
    pub(in crate::daemon) fn serving(&mut self, since: u64) -> Result<(), TakeError> {
        match self.line.say(&Message::Serving { since }) {
            Err(LineError::Closed) if self.is_dead() => Ok(()),
            said => Ok(said?),
        }
    }

    /// The last words: what was counted.
    pub(in crate::daemon) fn farewell(&mut self, core: &Core) {
        let rows = match self.hear(FAREWELL_WITHIN) {
            Ok(Message::Farewell(rows)) => rows,
            Ok(_) | Err(_) => {
                tracing::warn!("the counters of the daemon before were lost, and begin anew");
                return;
            }
        };
        for (worker, row) in rows.iter().enumerate() {
            let carried = row
                .ledger()
                .map(|ledger| core.switch.carry_on(worker, ledger));
            match carried {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::warn!("worker {worker} counts anew: {error}"),
                None => tracing::warn!("worker {worker} counts anew: a reason is unknown here"),
            }
        }
    }

    fn hear(&mut self, within: Duration) -> Result<Message, TakeError> {
        match self.line.hear(within)? {
            Message::Refused(why) => Err(TakeError::Refused(why)),
            message => Ok(message),
        }
    }
}

fn unexpected(message: &Message) -> TakeError {
    let text = format!("{message:?}");
    let word: String = text.chars().take_while(|c| c.is_alphanumeric()).collect();
    TakeError::Senseless(format!("{word} is out of turn"))
}

/// A running part that waits for the word to go.
pub(in crate::daemon) struct Waiting {
    core: Core,
    /// Pods of the state that are gone.
    lost: usize,
    ports: Vec<(PortId, Vec<TapPort>)>,
}

impl Waiting {
    /// Builds everything that can be built while another one moves the frames.
    pub(in crate::daemon) fn of(
        parts: Parts,
        learned: &Learned,
        node: &Netns,
    ) -> Result<Waiting, DaemonError> {
        let workers = usize::from(parts.settings.workers.get());
        let (mut core, lost) = Core::build(parts, node)?;
        core.learn(learned)?;
        let pods = core.attachments.values();
        let pods = pods.filter_map(|one| Some((one.port_id()?, one.tap.clone())));
        let taps: Vec<_> = core.fixed_ports().into_iter().chain(pods).collect();
        let heirlooms = &mut core.heirlooms;
        let queues = taps
            .into_iter()
            .filter_map(|(port, tap)| Some((port, heirlooms.take(tap.as_str(), workers)?)));
        let ports = queues.collect();
        Ok(Waiting { core, lost, ports })
    }

    /// Moves frames from now on. Gives since when.
    pub(in crate::daemon) fn go(
        self,
        learned: &Learned,
    ) -> Result<(Core, usize, u64), DaemonError> {
        let Waiting {
            mut core,
            lost,
            ports,
        } = self;
        let opened: Vec<PortId> = ports.iter().map(|(port, _)| *port).collect();
        core.learn(learned)?;
        let attached = core.switch.attach_all(ports);
        attached.map_err(system("handing TAPs to the switch"))?;
        let since = monotonic();
        core.opened.extend(opened);
        for (worker, row) in learned.workers.iter().enumerate() {
            let resumed = core.switch.resume(worker, row.stranded());
            resumed.map_err(system("handing on frames that wait"))?;
        }
        Ok((core, lost, since))
    }
}

impl Core {
    fn learn(&mut self, learned: &Learned) -> Result<(), DaemonError> {
        learned.teach(&self.switch, Tick::of(self.now()));
        for (worker, row) in learned.workers.iter().enumerate() {
            if !row.neighbours.is_empty() {
                let recalled = self.switch.recall(worker, row.known());
                recalled.map_err(system("handing on neighbours"))?;
            }
        }
        Ok(())
    }
}
