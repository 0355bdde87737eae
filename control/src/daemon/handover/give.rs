//! The old daemon's part of a handover.
//!
//! In: a program to go on with. Out: a process that serves, or the reason why none does.
//! Never: gives anything out of its hand before the other one serves. Whatever fails before that, this
//! daemon goes on, and the other one is gone first.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use dataplane::clock::Tick;
use dataplane::worker::Legacy;
use rustix::time::{ClockId, clock_gettime};
use sd_notify::NotifyState;

use super::learned::{Learned, LedgerRow, Told};
use super::line::{Line, LineError};
use super::{Estate, Hello, Message};
use crate::api::types::{ApiError, ErrorKind, UpgradeReply, UpgradeRequest};
use crate::daemon::Daemon;
use crate::daemon::core::{Core, system};
use crate::devices::netns::Netns;

/// The word by which a program is told that it is to follow another; its line is standard input.
pub const WORD: &str = "--handover";

/// How long a program may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to read its configuration and to ask for the node's truth.
const PREPARED_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to build its tables and to adopt the queues; requests wait meanwhile, and the
/// watchdog is not fed.
const READY_WITHIN: Duration = Duration::from_secs(6);
/// How long it may take to move its first frame. A ring is full long before.
const SERVING_WITHIN: Duration = Duration::from_secs(2);
/// How long one that hung up may take to end.
const END_WITHIN: Duration = Duration::from_secs(1);

/// The sockets that clients know.
#[derive(Debug)]
pub(in crate::daemon) struct Doors {
    /// The control socket.
    pub(in crate::daemon) socket: OwnedFd,
    /// That of the metrics, and its address in the configuration.
    pub(in crate::daemon) metrics: Option<(SocketAddr, OwnedFd)>,
}

/// A daemon that is to be followed.
pub(in crate::daemon) struct Giver<'a> {
    pub(in crate::daemon) daemon: &'a Daemon,
    pub(in crate::daemon) netns: &'a Netns,
    /// The configuration's path.
    pub(in crate::daemon) path: &'a Path,
    /// What of the configuration no other daemon may see otherwise.
    pub(in crate::daemon) fixed: BTreeMap<String, String>,
    pub(in crate::daemon) doors: &'a Doors,
}

/// What the moment came to in which nobody read.
struct Handed {
    since: Duration,
    queues: usize,
    learned: usize,
    waited: usize,
    ledgers: Vec<LedgerRow>,
}

fn stays(why: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorKind::Upgrade, why.to_string())
}

/// Nanoseconds on the clock that all processes share.
pub(super) fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Has another process take the place of this one.
///
/// # Errors
/// Why not; then everything is as it was.
pub(in crate::daemon) fn upgrade(
    giver: &Giver<'_>,
    request: &UpgradeRequest,
) -> Result<UpgradeReply, ApiError> {
    let binary = binary(request)?;
    giver.daemon.with(|core| core.may_be_followed())??;
    let mut heir = Heir::spawn(giver, &binary)?;
    let hello = heir.greeted()?;
    tracing::info!(
        "upgrading: {} is tapline {}",
        binary.display(),
        hello.version
    );
    heir.prepared(&giver.fixed)?;
    let doors = giver.doors;
    let (handed, core) = giver
        .daemon
        .hand_over(|core| hand_over(core, &mut heir, doors))?;
    // From here on the other one serves, and nothing that fails here changes that.
    let pid = heir.let_go();
    let _ = sd_notify::notify(&[NotifyState::MainPid(pid)]);
    let pods = core.attachments().count();
    drop(core);
    if let Err(error) = heir.line.say(&Message::Farewell(handed.ledgers)) {
        tracing::warn!("the counters begin anew: {error}");
    }
    let gap_us = u64::try_from(handed.since.as_micros()).unwrap_or(u64::MAX);
    let steps = vec![
        format!("{} is started as process {pid}", binary.display()),
        format!(
            "it is tapline {}, its configuration holds, its tables are ready",
            hello.version
        ),
        format!(
            "{} queues, {pods} pods and {} learned entries are handed over",
            handed.queues, handed.learned
        ),
        format!(
            "{} frames waited for a neighbour, and wait there",
            handed.waited
        ),
        format!(
            "no worker read for {:?}, and frames waited in their TAPs",
            handed.since
        ),
    ];
    steps
        .iter()
        .for_each(|step| tracing::info!("upgrading: {step}"));
    Ok(UpgradeReply {
        from: Hello::own().version,
        to: hello.version,
        pid,
        gap_us,
        steps,
    })
}

/// The program to go on with.
fn binary(request: &UpgradeRequest) -> Result<PathBuf, ApiError> {
    if rustix::process::getpid().as_raw_nonzero().get() == 1 {
        return Err(stays(
            "this daemon is the first process of its container, which ends with it: a new \
             container takes its place",
        ));
    }
    match &request.binary {
        // Who may ask has this daemon's user, and not its rights.
        Some(_) if !rustix::process::geteuid().is_root() => Err(stays(
            "only a daemon that runs as root takes another program than its own",
        )),
        Some(path) if !path.is_absolute() => {
            Err(stays(format!("{} is no absolute path", path.display())))
        }
        Some(path) => Ok(path.clone()),
        None => own_program().map_err(|error| stays(format!("finding the program: {error}"))),
    }
}

/// The path from which this process was started, though what is there may be another program by now.
fn own_program() -> std::io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let text = path.to_string_lossy();
    // So the kernel calls a file that was replaced.
    Ok(match text.strip_suffix(" (deleted)") {
        Some(replaced) => PathBuf::from(replaced),
        None => path,
    })
}

/// What happens while requests wait.
fn hand_over(core: &mut Core, heir: &mut Heir, doors: &Doors) -> Result<Handed, ApiError> {
    core.may_be_followed()?;
    core.gather_conflicts();
    let mut told = Told::default();
    let (queues, learned) = core.bequeath(heir, doors, &mut told)?;
    match heir.hear(READY_WITHIN)? {
        Message::Ready => {}
        other => return Err(heir.unexpected(other)),
    }
    // Two that put back each other's filters would not end.
    let (steered, mirrored) = (core.keeper.take().is_some(), core.mirror.take().is_some());
    let handed = core.rest_while_it_goes(heir, &mut told);
    if handed.is_err() {
        // It is gone before anybody here reads again.
        heir.kill();
        core.goes_on(steered, mirrored);
    }
    let mut handed = handed?;
    handed.queues = queues;
    handed.learned += learned;
    Ok(handed)
}

impl Core {
    /// Whether now is a time to be followed.
    fn may_be_followed(&self) -> Result<(), ApiError> {
        if !self.is_alive() {
            return Err(stays("a thread of the switch has died: a restart is due"));
        }
        if self
            .adoption
            .as_ref()
            .is_some_and(|kept| kept.confirm_by.is_some())
        {
            return Err(stays(
                "an adoption waits for a word: tapline confirm, or tapline release, comes first",
            ));
        }
        if !self.is_told() {
            return Err(stays(
                "the node has not told yet what it is: who follows could not know",
            ));
        }
        if self.store.is_none() {
            return Err(stays("this daemon keeps no state"));
        }
        Ok(())
    }

    /// Tells and gives everything that does not change while requests wait. Gives how many queues
    /// and how many learned entries that was.
    fn bequeath(
        &mut self,
        heir: &mut Heir,
        doors: &Doors,
        told: &mut Told,
    ) -> Result<(usize, usize), ApiError> {
        let known = self
            .switch
            .neighbours()
            .map_err(system("asking the switch"))?;
        let legacies = known.into_iter().map(|neighbours| Legacy {
            neighbours,
            ..Legacy::default()
        });
        let learned = Learned::beyond(told, &self.switch, legacies.collect(), Tick::of(self.now()));
        let queues = self
            .switch
            .duplicates()
            .map_err(system("duplicating TAPs"))?;
        let queues: Vec<OwnedFd> = queues.into_iter().flatten().collect();
        let estate = Estate {
            state: self.state(),
            elapsed_ms: Tick::of(self.now()).0,
            metrics: doors.metrics.as_ref().map(|(at, _)| *at),
            queues: queues.len(),
            learned,
        };
        let counts = (queues.len(), estate.learned.count());
        let Some(store) = &self.store else {
            return Err(stays("this daemon keeps no state"));
        };
        let mut given = vec![store.lock(), doors.socket.as_fd()];
        given.extend(doors.metrics.iter().map(|(_, listener)| listener.as_fd()));
        given.extend(queues.iter().map(AsFd::as_fd));
        heir.give(&Message::Estate(Box::new(estate)), &given)?;
        Ok(counts)
    }

    /// Has the workers rest, and the other one's go.
    fn rest_while_it_goes(&mut self, heir: &mut Heir, told: &mut Told) -> Result<Handed, ApiError> {
        let mut legacies = self.switch.pause().map_err(system("pausing the switch"))?;
        let paused = monotonic();
        let ledgers = legacies
            .iter_mut()
            .map(|legacy| std::mem::take(&mut legacy.ledger));
        let ledgers: Vec<_> = ledgers.collect();
        let waited = legacies.iter().map(|legacy| legacy.waiting.len()).sum();
        let now = Tick::of(self.now());
        let learned = Learned::beyond(told, &self.switch, legacies, now);
        let count = learned.count();
        heir.say(&Message::Go(Box::new(learned)))?;
        match heir.hear(SERVING_WITHIN)? {
            Message::Serving { since } => Ok(Handed {
                since: Duration::from_nanos(since.saturating_sub(paused)),
                queues: 0,
                learned: count,
                waited,
                ledgers: ledgers.iter().map(LedgerRow::of).collect(),
            }),
            other => Err(heir.unexpected(other)),
        }
    }

    /// Goes on where it rested.
    fn goes_on(&mut self, steered: bool, mirrored: bool) {
        if let Err(error) = self.switch.go() {
            tracing::error!("the switch does not go on: {error}");
        }
        let raised = match steered {
            true => self.raise_uplink(),
            false => Ok(()),
        };
        if let Err(error) = raised {
            tracing::error!("steering is not kept: {error}");
        }
        if mirrored {
            self.mirror();
        }
    }
}

impl From<LineError> for ApiError {
    fn from(error: LineError) -> ApiError {
        stays(error)
    }
}

/// The process that is to follow. Dropping it ends it, unless it was let go.
struct Heir {
    /// Until it was let go.
    child: Option<Child>,
    line: Line,
    program: PathBuf,
}

impl Heir {
    fn spawn(giver: &Giver<'_>, program: &Path) -> Result<Heir, ApiError> {
        let failed = |error| stays(format!("starting {}: {error}", program.display()));
        let (line, theirs) = Line::pair().map_err(failed)?;
        let mut command = Command::new(program);
        command
            .args(["run", "--config"])
            .arg(giver.path)
            .arg(WORD)
            // They are about this process: what systemd keeps comes by the line.
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES")
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::from(theirs));
        let child = giver.netns.run(|| command.spawn()).map_err(failed)?;
        Ok(Heir {
            child: Some(child),
            line,
            program: program.to_owned(),
        })
    }

    /// Who it is, if both speak one version.
    fn greeted(&mut self) -> Result<Hello, ApiError> {
        let own = Hello::own();
        self.say(&Message::Hello(own.clone()))?;
        match self.hear(HELLO_WITHIN)? {
            Message::Hello(hello) => match own.agree(&hello) {
                Ok(_) => Ok(hello),
                Err(why) => {
                    let _ = self.line.say(&Message::Refused(why.clone()));
                    Err(stays(why))
                }
            },
            other => Err(self.unexpected(other)),
        }
    }

    /// That it stands where this one stands.
    fn prepared(&mut self, fixed: &BTreeMap<String, String>) -> Result<(), ApiError> {
        let theirs = match self.hear(PREPARED_WITHIN)? {
            Message::Prepared(theirs) => theirs,
            other => return Err(self.unexpected(other)),
        };
        // What only one of them knows, the other cannot have an opinion of.
        let differs = fixed
            .iter()
            .filter(|(key, value)| theirs.get(*key).is_some_and(|other| other != *value));
        let keys: Vec<&str> = differs.map(|(key, _)| key.as_str()).collect();
        if keys.is_empty() {
            return Ok(());
        }
        Err(stays(format!(
            "{} cannot change while it runs: a restart is needed",
            keys.join(", ")
        )))
    }

    fn say(&mut self, message: &Message) -> Result<(), ApiError> {
        let said = self.line.say(message);
        said.map_err(|error| self.explained(error))
    }

    fn give(&mut self, message: &Message, given: &[BorrowedFd<'_>]) -> Result<(), ApiError> {
        let said = self.line.say(message).and_then(|()| self.line.give(given));
        said.map_err(|error| self.explained(error))
    }

    fn hear(&mut self, within: Duration) -> Result<Message, ApiError> {
        match self.line.hear(within) {
            Ok(Message::Refused(why)) => Err(stays(why)),
            Ok(message) => Ok(message),
            Err(error) => Err(self.explained(error)),
        }
    }

    #[allow(clippy::needless_pass_by_value)] // it is of no use any more
    fn unexpected(&self, message: Message) -> ApiError {
        let text = format!("{message:?}");
        let word: String = text.chars().take_while(|c| c.is_alphanumeric()).collect();
        stays(format!(
            "{} says {word} out of turn",
            self.program.display()
        ))
    }

    /// Why the line is broken: most likely because who was at its end is dead.
    fn explained(&mut self, error: LineError) -> ApiError {
        let program = self.program.display().to_string();
        match (&error, self.ended()) {
            (LineError::Closed, Some(status)) => {
                let how = match status.signal() {
                    Some(signal) => format!("was killed by signal {signal}"),
                    None => format!("ended with {status}"),
                };
                stays(format!(
                    "{program} {how} before it had taken over; its words are in the log"
                ))
            }
            _ => stays(format!("{program}: {error}")),
        }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        let end = Instant::now() + END_WITHIN;
        loop {
            match child.try_wait() {
                Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
                other => return other.ok().flatten(),
            }
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// It lives on; gives its number.
    fn let_go(&mut self) -> u32 {
        self.child.take().map_or(0, |child| child.id())
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        self.kill();
    }
}
