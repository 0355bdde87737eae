//! `tapline run`: a daemon as a process, from its configuration to its last frame.
//!
//! In: the configuration's path, signals, and what systemd says by environment.
//! Out: an exit status; lines in the log.
//! Never: dies of a bad configuration once it runs, or keeps serving when its switch has died.
//!
//! | what comes | what it does |
//! |---|---|
//! | `SIGTERM`, `SIGINT` | the steering is taken away, the switch stops; pods keep their devices |
//! | `SIGHUP`, `tapline reload` | the configuration is read again; a bad one changes nothing |
//! | `tapline upgrade` | another process takes this one's place, which then ends |
//! | a dead thread of the switch | the process ends at once, for its supervisor to start it anew |

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing::level_filters::LevelFilter;

use super::core::{Core, DaemonError, Parts, Settings, system};
use super::handover::give::{self, Doors, Giver};
use super::handover::line::LineError;
use super::handover::take::{Followed, TakeError, Waiting};
use super::log;
use super::node;
use super::store::Store;
use super::systemd::Heirlooms;
use super::truth::{self, Known};
use super::{Daemon, empty};
use crate::api::server::Bound;
use crate::api::types::{Key, UpgradeReply, UpgradeRequest};
use crate::api::{Answer, ApiError, Call, ErrorKind, Handler, Limits};
use crate::compile::NodeSpec;
use crate::config::{self, LogLevel, NodeConfig};
use crate::devices::netns::Netns;
use crate::ipam::Pool;
use crate::metrics::serve::Exporter;
use crate::metrics::{self, Sample};
use crate::model::{Faults, Source};
use crate::node::features;

/// How often the process looks after itself.
const TICK: Duration = Duration::from_secs(1);

/// How long whoever is connected may take to be answered when another process serves already.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// How long the truth is waited for before the next try, while there is none.
const TRUTH_AGAIN: Duration = Duration::from_secs(1);
/// Whoever answers from the node itself does within this time; those attached before wait no longer
/// for who does not.
const TRUTH_AT_ONCE: Duration = Duration::from_millis(50);

/// The sockets of a daemon that was followed.
type Inherited = (Bound, Option<(SocketAddr, TcpListener)>);

/// Why the process ended, where it was not told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration.
    #[error("{0}")]
    Config(Faults),
    /// Something it needs.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A right that it needs.
    #[error("{0}")]
    Right(String),
    /// A broken law.
    #[error("a thread of the switch has died")]
    SwitchDied,
    /// A daemon that was to be followed, and is not.
    #[error(transparent)]
    Take(#[from] TakeError),
    /// The node is not known, and the one before knew it.
    #[error("the node is not known: {0}")]
    Unknown(String),
}

/// The way to a node that is known.
#[derive(Debug)]
struct Asking {
    /// Until a core has it.
    store: Option<Store>,
    /// The question that is on its way.
    answer: Option<Receiver<Result<Known, String>>>,
    asked: Option<Instant>,
    /// Those attached before wait no longer for it.
    late: bool,
    known: bool,
}

impl Asking {
    /// Without a store there is a core already, which knows.
    fn new(store: Option<Store>) -> Asking {
        let known = store.is_none();
        Asking {
            known,
            store,
            answer: None,
            asked: known.then(Instant::now),
            late: false,
        }
    }

    /// What is answered by now; nothing where there is nothing new. A source may take its time, so it
    /// is asked on a thread of its own. A node that is known is asked again now and then: it may have
    /// been given more addresses.
    fn ask(&mut self, config: &NodeConfig, node: &Netns) -> Option<Result<Known, String>> {
        let again = if self.known {
            config.truth.refresh
        } else {
            TRUTH_AGAIN
        };
        let due = self.asked.is_none_or(|asked| asked.elapsed() >= again);
        if self.answer.is_none() && due {
            let (told, answer) = mpsc::channel();
            let (config, node) = (config.clone(), node.clone());
            let ask = move || {
                // Nobody listens any more where the daemon ends.
                let _ = told.send(truth::ask(&config, &node));
            };
            if let Err(error) = std::thread::Builder::new()
                .name("tl-truth".into())
                .spawn(ask)
            {
                return Some(Err(format!("starting a thread: {error}")));
            }
            (self.answer, self.asked) = (Some(answer), Some(Instant::now()));
        }
        let waits = !self.late && !self.known;
        let wait = if waits { TRUTH_AT_ONCE } else { Duration::ZERO };
        let answer = match self.answer.as_ref()?.recv_timeout(wait) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) if !waits => return None,
            Err(RecvTimeoutError::Timeout) => {
                self.late = true;
                return Some(Err(
                    "the node was asked, and has not answered yet".to_owned()
                ));
            }
            Err(RecvTimeoutError::Disconnected) => Err("the question was lost".to_owned()),
        };
        self.answer = None;
        Some(answer)
    }
}

/// A process, and what it was told.
#[derive(Debug)]
struct Process {
    daemon: Daemon,
    path: PathBuf,
    config: Mutex<NodeConfig>,
    level: log::Level,
    netns: Netns,
    /// How many workers there can be here, of those configured.
    workers: NonZeroU16,
    /// In how many things the plan differs from the node.
    differences: AtomicU64,
    /// Configurations that a reload refused.
    refused: AtomicU64,
    /// Once it is served: what clients know it by.
    doors: Mutex<Option<Doors>>,
    /// Held by the one who has it followed.
    upgrading: Mutex<()>,
    /// Another process has taken over.
    followed: Notify,
}

/// Runs until told to stop.
///
/// # Errors
/// [`RunError`].
pub fn run(path: &Path) -> Result<(), RunError> {
    Process::of(path)?.serve_anew()
}

/// Follows the daemon that started this process, and runs until told to stop.
///
/// # Errors
/// [`RunError`]; unless that daemon has died, it serves as before.
pub fn take_over(path: &Path) -> Result<(), RunError> {
    let mut before =
        Followed::at_standard_input().map_err(system("taking the line to the daemon before"))?;
    before.greet()?;
    let process = match Process::of(path) {
        Ok(process) => process,
        Err(error) => {
            before.refuse(&error);
            return Err(error);
        }
    };
    match process.follow(&mut before) {
        Ok((bound, metrics)) => process.serve(bound, metrics, None),
        Err(RunError::Take(TakeError::Line(LineError::Closed))) if before.is_dead() => {
            tracing::warn!("the daemon that was to be followed has died; this one starts anew");
            process.serve_anew()
        }
        Err(error) => {
            before.refuse(&error);
            Err(error)
        }
    }
}

impl Process {
    /// Reads the configuration, and sees whether it can be obeyed here.
    fn of(path: &Path) -> Result<Arc<Process>, RunError> {
        let config = config::load(&Source::Path(path.to_owned())).map_err(RunError::Config)?;
        let level = log::start(filter(config.log)).map_err(|error| {
            RunError::Daemon(system("starting the log")(std::io::Error::other(error)))
        })?;
        rights()?;
        let workers = facilities(&config)?;
        let netns = Netns::current(&config.node).map_err(system("the node's namespace"))?;
        Ok(Arc::new(Process {
            daemon: Daemon::waiting("it has just started"),
            path: path.to_owned(),
            config: Mutex::new(config),
            level,
            netns,
            workers,
            differences: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            doors: Mutex::default(),
            upgrading: Mutex::default(),
            followed: Notify::new(),
        }))
    }

    /// Serves with nobody before it.
    fn serve_anew(self: &Arc<Self>) -> Result<(), RunError> {
        let config = self.config();
        let store = Store::open(&config.state_dir).map_err(DaemonError::from)?;
        let bound = Bound::at(&config.socket)
            .map_err(system(format!("listening at {}", config.socket.display())))?;
        let metrics = config.metrics.map(listen_for_metrics).transpose()?;
        self.serve(bound, metrics, Some(store))
    }

    /// Serves until told to stop, or followed.
    fn serve(
        self: &Arc<Self>,
        bound: Bound,
        metrics: Option<(SocketAddr, TcpListener)>,
        store: Option<Store>,
    ) -> Result<(), RunError> {
        let listeners = metrics.as_ref().map(|(at, listener)| {
            let again = listener.try_clone().map(OwnedFd::from);
            again.map(|again| (*at, again))
        });
        let doors = Doors {
            socket: bound.duplicate().map_err(system("duplicating a socket"))?,
            metrics: listeners
                .transpose()
                .map_err(system("duplicating a socket"))?,
        };
        *lock(&self.doors) = Some(doors);
        let users = vec![0, rustix::process::geteuid().as_raw()];
        let handler: Arc<dyn Handler> = Arc::<Process>::clone(self);
        let server = bound
            .serve(handler, users, Limits::default())
            .map_err(system("serving the control socket"))?;
        let exporter = metrics.map(|(at, listener)| {
            let of = Arc::clone(self);
            let text: metrics::serve::Render = Arc::new(move || metrics::text(&of.sample()));
            Exporter::serve(listener, text).map_err(system(format!("serving metrics at {at}")))
        });
        let exporter = exporter.transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system("starting a reactor"))?;
        let ended = runtime.block_on(self.live(store));
        drop(exporter);
        drop(runtime);
        if self.daemon.has_moved() {
            server.leave(ANSWERS_WITHIN);
            tracing::info!("another process serves; this one ends");
            return ended;
        }
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        lock(&self.doors).take();
        drop(server);
        let stopped = self.stop();
        ended.and(stopped.map_err(RunError::from))
    }
}

/// Where Prometheus asks.
fn listen_for_metrics(at: SocketAddr) -> Result<(SocketAddr, TcpListener), DaemonError> {
    let listener = TcpListener::bind(at).map_err(system(format!("serving metrics at {at}")))?;
    Ok((at, listener))
}

/// One who panicked while it was held has been heard of by then.
fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ending without these would be a riddle of `EPERM`s later.
fn rights() -> Result<(), RunError> {
    use rustix::thread::{CapabilitySet, capabilities};
    let held = capabilities(None).map_err(|error| {
        RunError::Daemon(system("asking for the capabilities held")(error.into()))
    })?;
    let needed = [
        (
            CapabilitySet::NET_ADMIN,
            "CAP_NET_ADMIN",
            "makes devices, filters and routes",
        ),
        (
            CapabilitySet::SYS_ADMIN,
            "CAP_SYS_ADMIN",
            "enters the pods' network namespaces",
        ),
    ];
    for (right, name, why) in needed {
        if !held.effective.contains(right) {
            return Err(RunError::Right(format!(
                "this process lacks {name}, by which it {why}: run it as root, or give it the \
                 capability (AmbientCapabilities= in a systemd unit)"
            )));
        }
    }
    Ok(())
}

/// Tries what newer kernels have, does without what the configuration forbids, and says so. Gives
/// how many workers there can be.
fn facilities(config: &NodeConfig) -> Result<NonZeroU16, RunError> {
    features::switch_off(&config.features_off);
    if config.workers == NonZeroU16::MIN {
        // Nothing depends on the answer, and pods may be waiting: ports find out for themselves.
        std::thread::spawn(|| match features::probe() {
            Ok(findings) => findings
                .iter()
                .for_each(|finding| tracing::info!("{finding}")),
            Err(why) => tracing::warn!("the kernel's facilities were not tried: {why}"),
        });
        return Ok(config.workers);
    }
    let findings = features::probe().map_err(DaemonError::from)?;
    for finding in &findings {
        tracing::info!("{finding}");
    }
    let workers = features::workers(config.workers, &findings);
    if workers != config.workers {
        let wanted = config.workers;
        tracing::warn!("one worker instead of {wanted}: TAPs have one queue here");
    }
    Ok(workers)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

impl Process {
    fn config(&self) -> NodeConfig {
        lock(&self.config).clone()
    }

    /// Serves until told to stop, or followed; with a store it has yet to begin.
    async fn live(&self, store: Option<Store>) -> Result<(), RunError> {
        let told = |kind| signal(kind).map_err(system("listening for signals"));
        let mut terminate = told(SignalKind::terminate())?;
        let mut interrupt = told(SignalKind::interrupt())?;
        let mut hang_up = told(SignalKind::hangup())?;
        let watchdog = sd_notify::watchdog_enabled();
        let mut tick = tokio::time::interval(watchdog.map_or(TICK, |limit| (limit / 3).min(TICK)));
        let mut asking = Asking::new(store);
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = hang_up.recv() => drop(self.reload()),
                () = tokio::time::sleep(TRUTH_AT_ONCE), if asking.answer.is_some() => {
                    self.begin(&mut asking)?;
                }
                () = self.followed.notified() => return Ok(()),
                _ = tick.tick() => {
                    self.begin(&mut asking)?;
                    self.look_after()?;
                    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
                }
            }
        }
    }

    /// Begins to serve: all if the node is known by now, else those attached before.
    fn begin(&self, asking: &mut Asking) -> Result<(), RunError> {
        let config = self.config();
        let Some(answer) = asking.ask(&config, &self.netns) else {
            return Ok(());
        };
        let fitting = answer.and_then(|known| Ok((self.fit(&config, &known)?, known.truth)));
        let ((spec, pool), truth) = match fitting {
            Ok(known) => known,
            // What it said before holds.
            Err(why) if asking.known => {
                tracing::warn!("the node was asked again: {why}");
                return Ok(());
            }
            Err(why) => return self.serve_those_attached(why, asking),
        };
        let settings = self.settings(&config);
        if let Some(store) = asking.store.take() {
            self.daemon.serve(self.start(spec, settings, pool, store)?);
        } else {
            // Those attached before are served already.
            let told = self
                .daemon
                .with(|core| core.reload(spec, settings, &truth.pods, pool));
            let told = told.and_then(|told| told.map_err(ApiError::from));
            if asking.known {
                if let Err(error) = told {
                    tracing::warn!("what the node says now is refused: {error}");
                }
                return Ok(());
            }
            if let Err(error) = told {
                return self.serve_those_attached(error.to_string(), asking);
            }
        }
        asking.known = true;
        let status = format!("serving {}", config.node);
        let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
        Ok(())
    }

    fn start(
        &self,
        spec: NodeSpec,
        settings: Settings,
        pool: Pool<Key>,
        store: Store,
    ) -> Result<Core, RunError> {
        let name = spec.name.clone();
        let heirlooms = Heirlooms::inherited();
        let core = Core::start(spec, settings, pool, Some(store), heirlooms, &self.netns)?;
        let count = core.attachments().count();
        tracing::info!("serving {name} with {count} pods attached");
        Ok(core)
    }

    /// The node has not spoken. Those attached before need no word of it: their frames go on.
    fn serve_those_attached(&self, why: String, asking: &mut Asking) -> Result<(), RunError> {
        tracing::warn!("not serving yet: {why}");
        // Ready is who answers: a kubelet that waits for this unit is who brings the pod CIDR.
        let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&why)]);
        let Some(store) = asking.store.take() else {
            let _ = self.daemon.with(|core| core.wait_for_the_node(why));
            return Ok(());
        };
        let config = self.config();
        let attached = store.load().map_err(DaemonError::from)?.attachments;
        let recalled = truth::recall(&config, &self.netns, &attached).and_then(|truth| {
            let spec = node::spec(&config, &truth).map_err(|unfit| unfit.to_string())?;
            let pool = node::pool(&truth).map_err(|unfit| unfit.to_string())?;
            Ok((spec, pool))
        });
        match recalled {
            Ok((spec, pool)) => {
                let mut core = self.start(spec, self.settings(&config), pool, store)?;
                core.wait_for_the_node(why);
                self.daemon.serve(core);
            }
            Err(nothing) => {
                if !attached.is_empty() {
                    tracing::warn!("nor are those attached before: {nothing}");
                }
                asking.store = Some(store);
                self.daemon.wait(why);
            }
        }
        Ok(())
    }

    /// What the node is, and the addresses that it gives.
    fn fit(&self, config: &NodeConfig, known: &Known) -> Result<(NodeSpec, Pool<Key>), String> {
        self.compare(known);
        let spec = node::spec(config, &known.truth).map_err(|unfit| unfit.to_string())?;
        let pool = node::pool(&known.truth).map_err(|unfit| unfit.to_string())?;
        Ok((spec, pool))
    }

    /// Takes over from the daemon before. Gives the sockets that clients know.
    fn follow(&self, before: &mut Followed) -> Result<Inherited, RunError> {
        let config = self.config();
        let known = truth::ask(&config, &self.netns);
        let fitting = known.and_then(|known| self.fit(&config, &known));
        let (spec, pool) = fitting.map_err(RunError::Unknown)?;
        let (estate, given) = before.prepared(constant(&config))?;
        let metrics = match (config.metrics, given.metrics) {
            (Some(at), Some((before, listener))) if at == before => Some((at, listener.into())),
            (Some(at), _) => Some(listen_for_metrics(at)?),
            (None, _) => None,
        };
        let bound = Bound::handed(given.socket, &config.socket)
            .map_err(system("taking over the control socket"))?;
        let parts = Parts {
            spec,
            settings: self.settings(&config),
            pool,
            store: Some(Store::handed(&config.state_dir, given.lock)),
            state: estate.state,
            heirlooms: Heirlooms::given(given.queues).map_err(system("taking over TAPs"))?,
            elapsed: Duration::from_millis(estate.elapsed_ms),
        };
        let waiting = Waiting::of(parts, &estate.learned, &self.netns)?;
        let learned = before.ready()?;
        let (mut core, lost, since) = waiting.go(&learned)?;
        before.serving(since)?;
        before.farewell(&core);
        if let Err(error) = core.complete(lost) {
            // Frames are moved, and who was before is no more: there is no way back.
            tracing::error!("not everything is as it should be: {error}");
        }
        let count = core.attachments().count();
        tracing::info!(
            "serving {} with {count} pods attached, after another",
            config.node
        );
        self.daemon.serve(core);
        let status = format!("serving {}", config.node);
        let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
        Ok((bound, metrics))
    }

    /// Has another process take this one's place.
    fn upgrade(&self, request: &UpgradeRequest) -> Result<UpgradeReply, ApiError> {
        let Ok(_turn) = self.upgrading.try_lock() else {
            let why = "another upgrade is under way";
            return Err(ApiError::new(ErrorKind::Upgrade, why));
        };
        let doors = lock(&self.doors);
        let Some(doors) = doors.as_ref() else {
            return Err(ApiError::new(ErrorKind::NotReady, "it is stopping"));
        };
        let giver = Giver {
            daemon: &self.daemon,
            netns: &self.netns,
            path: &self.path,
            fixed: constant(&self.config()),
            doors,
        };
        let reply = give::upgrade(&giver, request);
        match &reply {
            Ok(_) => self.followed.notify_one(),
            Err(error) => tracing::error!("not upgraded: {error}"),
        }
        reply
    }

    /// Tells each difference between the plan and the node. The node is right.
    fn compare(&self, known: &Known) {
        tracing::info!("the pods' addresses are known from {}", known.source);
        for difference in &known.differences {
            tracing::warn!("the plan is wrong: {difference}");
        }
        let count = known.differences.len() as u64;
        self.differences.store(count, Ordering::Relaxed);
    }

    fn settings(&self, config: &NodeConfig) -> Settings {
        Settings {
            workers: self.workers,
            ..node::settings(config)
        }
    }

    /// Everything that is exported.
    fn sample(&self) -> Sample {
        let running = self.daemon.with(|core| core.sample());
        Sample {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            plan_differences: self.differences.load(Ordering::Relaxed),
            reloads_refused: self.refused.load(Ordering::Relaxed),
            // Before it serves there is nothing to count.
            ..running.unwrap_or_default()
        }
    }

    fn look_after(&self) -> Result<(), RunError> {
        let alive = self.daemon.with(|core| {
            core.look_after();
            core.is_alive()
        });
        match alive {
            Ok(false) => Err(RunError::SwitchDied),
            Ok(true) | Err(_) => Ok(()),
        }
    }

    /// Reads the configuration again.
    fn reload(&self) -> Result<(), ApiError> {
        let mut states = vec![NotifyState::Reloading];
        states.extend(NotifyState::monotonic_usec_now());
        let _ = sd_notify::notify(&states);
        let reloaded = self.apply_anew();
        match &reloaded {
            Ok(()) => tracing::info!("{} was read again", self.path.display()),
            Err(error) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                tracing::error!("the old configuration stays: {error}");
            }
        }
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        reloaded
    }

    fn apply_anew(&self) -> Result<(), ApiError> {
        let refused = |why: String| ApiError::new(ErrorKind::Config, why);
        let new = config::load(&Source::Path(self.path.clone()))
            .map_err(|faults| refused(faults.to_string()))?;
        let old = self.config();
        let (before, after) = (fixed(&old), fixed(&new));
        let differs = before
            .iter()
            .zip(&after)
            .filter(|(one, other)| one != other);
        let keys: Vec<&str> = differs.map(|((key, ..), _)| *key).collect();
        if !keys.is_empty() {
            let why = format!("{} cannot change while it runs", keys.join(", "));
            return Err(refused(why));
        }
        // Before it serves there is nothing to change: the next try goes by the new one.
        if self.daemon.status()?.node.is_some() {
            let known = truth::ask(&new, &self.netns).map_err(refused)?;
            self.compare(&known);
            let truth = known.truth;
            let spec = node::spec(&new, &truth).map_err(|unfit| refused(unfit.to_string()))?;
            let pool = node::pool(&truth).map_err(|unfit| refused(unfit.to_string()))?;
            let settings = self.settings(&new);
            let applied = self
                .daemon
                .with(|core| core.reload(spec, settings, &truth.pods, pool))?;
            applied.map_err(|error| refused(error.to_string()))?;
        }
        self.level.set(filter(new.log));
        *lock(&self.config) = new;
        Ok(())
    }

    /// Ends the running part.
    fn stop(&self) -> Result<(), DaemonError> {
        let Some(core) = self.daemon.end() else {
            return Ok(());
        };
        let counts = core.stop()?;
        tracing::info!("stopped: {counts}");
        Ok(())
    }
}

/// What only a restart can change, by its keys; whether another process could.
fn fixed(config: &NodeConfig) -> [(&'static str, String, bool); 12] {
    let path = |path: &Path| path.display().to_string();
    [
        ("plugin", config.plugin.to_string(), false),
        ("node", config.node.clone(), false),
        ("uplink.device", config.uplink.device.to_string(), false),
        ("uplink.tap", config.uplink.tap.to_string(), false),
        (
            "host_port.device",
            config.host_port.device.to_string(),
            false,
        ),
        ("workers", config.workers.to_string(), false),
        ("cpus", format!("{:?}", config.cpus), true),
        ("spin_us", config.spin.as_micros().to_string(), true),
        ("state_dir", path(&config.state_dir), false),
        ("socket", path(&config.socket), false),
        ("metrics", format!("{:?}", config.metrics), true),
        ("features_off", format!("{:?}", config.features_off), true),
    ]
}

/// What not even another process may see otherwise, if it is to take this one's place.
fn constant(config: &NodeConfig) -> BTreeMap<String, String> {
    let rows = fixed(config).into_iter().filter(|(.., could)| !could);
    rows.map(|(key, value, _)| (key.to_owned(), value))
        .collect()
}

impl Handler for Process {
    fn handle(&self, call: Call) -> Result<Answer, ApiError> {
        match call {
            Call::Metrics => {
                self.daemon.status()?;
                let text = metrics::text(&self.sample());
                Ok(Answer::Text(metrics::CONTENT_TYPE, text))
            }
            Call::Reload => self.reload().map(|()| Answer::of(&empty())),
            Call::Upgrade(request) => self.upgrade(&request).map(|reply| Answer::of(&reply)),
            other => self.daemon.handle(other),
        }
    }
}
