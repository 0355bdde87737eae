//! Rounds: the subjects alternate, each in a topology of its own, each measured in the same way.
//!
//! In: [`Options`] and an [`Env`]. Out: a [`Report`].
//! Never: lets one subject run twice in a row: what drifts on a machine drifts for all.
//!
//! RPS is set anew for each measurement. In the first round both settings are tried, then the
//! better one is kept; "better" for TCP means faster with no more retransmits than the Linux
//! bridge, if there is such a setting. Small UDP is always measured with both.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::cpu::{self, Meter};
use crate::memory::{self, dpdk};
use crate::names::{Metric, Scenario, Subject};
use crate::report::{Report, Sample, Skipped, machine_name};
use crate::topo::{self, Env, Rig, Shape, Unbuilt, nodes};
use crate::traffic::icmp::{self, Pace};
use crate::traffic::search::{Offer, search};
use crate::traffic::tcp::{self, Ends};
use crate::traffic::udp;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rounds.
    pub rounds: usize,
    /// Time of one measurement.
    pub time: Duration,
    /// Where to measure.
    pub scenarios: Vec<Scenario>,
    /// Whom to measure; empty: everyone.
    pub subjects: Vec<Subject>,
    /// A rough look: no UDP, RPS off.
    pub quick: bool,
    /// Which settings of RPS.
    pub rps: Rps,
}

/// Which settings of RPS to measure with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rps {
    /// Both in the first round, then the better one.
    Auto,
    /// Both in every round; the better one is shown.
    Both,
    /// Off.
    Off,
    /// On.
    On,
}

/// One thing to do with a rig.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    Tcp(usize, Ends),
    Udp(usize),
    RttFlood,
    RttPaced,
    Idle,
    Fairness,
}

/// What a task came to.
struct Reading {
    metric: Metric,
    value: f64,
    retransmits: Option<u64>,
}

fn reading(metric: Metric, value: f64) -> Reading {
    Reading {
        metric,
        value,
        retransmits: None,
    }
}

/// Round trips every 2 ms: often enough for a p99 in a second, seldom enough that all sleep.
const PACE: Duration = Duration::from_millis(2);
/// Between building, measuring and building again: the kernel takes namespaces down in the
/// background, and that is not the next subject's cost.
const SETTLE: Duration = Duration::from_millis(250);
/// The pair beside a flood: 1,000 packets a second.
const PAIR_PACE: Duration = Duration::from_millis(1);

/// Runs the comparison; `say` hears what is measured next, and how far along it is from 0 to 1.
#[must_use]
pub fn run(
    options: &Options,
    env: &mut Result<Env, String>,
    say: &mut dyn FnMut(f64, &str),
) -> Report {
    let mut runner = Runner {
        options,
        baseline: cpu::baseline(Duration::from_millis(500)),
        samples: Vec::new(),
        skipped: Vec::new(),
        out: BTreeSet::new(),
        better: BTreeMap::new(),
        steps: (0, options.steps()),
    };
    for scenario in &options.scenarios {
        runner.scenario(*scenario, env, say);
    }
    let mut report = Report::new(
        machine_name(),
        tcp::CONGESTION_CONTROL,
        options.rounds,
        options.quick,
        &runner.samples,
        runner.skipped,
    );
    report.busy_before = runner.baseline;
    report
}

impl Options {
    fn subjects_of(&self, scenario: Scenario) -> impl Iterator<Item = Subject> + '_ {
        let all = scenario.subjects().iter().copied();
        all.filter(|subject| self.subjects.is_empty() || self.subjects.contains(subject))
    }

    fn steps(&self) -> usize {
        let each = self.scenarios.iter().map(|s| self.subjects_of(*s).count());
        (each.sum::<usize>() * self.rounds).max(1)
    }
}

struct Runner<'a> {
    options: &'a Options,
    baseline: f64,
    samples: Vec<Sample>,
    skipped: Vec<Skipped>,
    /// Who is out of a scenario.
    out: BTreeSet<(Scenario, Subject)>,
    /// The setting of RPS that won the first round.
    better: BTreeMap<(Scenario, Subject, Task), bool>,
    /// Done, and to do.
    steps: (usize, usize),
}

impl Runner<'_> {
    fn scenario(
        &mut self,
        scenario: Scenario,
        env: &mut Result<Env, String>,
        say: &mut dyn FnMut(f64, &str),
    ) {
        for round in 0..self.options.rounds {
            let subjects: Vec<Subject> = self.options.subjects_of(scenario).collect();
            for subject in subjects {
                let part = self.steps.0 as f64 / self.steps.1 as f64;
                self.steps.0 += 1;
                if self.out.contains(&(scenario, subject)) {
                    continue;
                }
                let what = format!("{} {}", scenario.name(), subject.name());
                say(part, &format!("{what}, round {}", round + 1));
                let done = if scenario.is_core() {
                    self.core(scenario, subject, env)
                } else {
                    self.pods(scenario, subject, round, env)
                };
                if let Err(why) = done {
                    self.out.insert((scenario, subject));
                    self.skip(scenario, subject, &why.to_string());
                }
            }
        }
    }

    fn skip(&mut self, scenario: Scenario, subject: Subject, why: &str) {
        let skipped = Skipped {
            subject: subject.name(),
            reason: format!("{}: {why}", scenario.name()),
        };
        if !self.skipped.contains(&skipped) {
            self.skipped.push(skipped);
        }
    }

    fn core(
        &mut self,
        scenario: Scenario,
        subject: Subject,
        env: &mut Result<Env, String>,
    ) -> Result<(), Unbuilt> {
        let time = self.options.time;
        let readings = match subject {
            Subject::TaplineCore => memory::run(scenario, time)?,
            Subject::DpdkTestpmd => dpdk::testpmd(walls(env)?, time)?,
            Subject::DpdkTestFib => dpdk::test_fib(walls(env)?, self.options.quick)?,
            _ => return Err("it has no in-memory form".into()),
        };
        for (metric, value, settings) in readings {
            self.samples.push(Sample {
                scenario,
                subject,
                metric,
                value,
                settings,
                retransmits: None,
            });
        }
        Ok(())
    }

    fn pods(
        &mut self,
        scenario: Scenario,
        subject: Subject,
        round: usize,
        env: &mut Result<Env, String>,
    ) -> Result<(), Unbuilt> {
        let env = walls(env)?;
        let rig = build(env, scenario, subject)?;
        thread::sleep(SETTLE);
        for task in tasks(scenario, self.options.quick) {
            for rps in self.rps_settings(scenario, subject, *task, round) {
                if let Err(error) = self.task(&rig, (scenario, subject), *task, rps) {
                    self.skip(scenario, subject, &format!("{task:?}: {error}"));
                }
            }
            self.note_better(scenario, subject, *task);
        }
        drop(rig);
        thread::sleep(SETTLE);
        Ok(())
    }

    /// The settings to try, none twice.
    fn rps_settings(
        &self,
        scenario: Scenario,
        subject: Subject,
        task: Task,
        round: usize,
    ) -> Vec<bool> {
        if self.options.quick || matches!(task, Task::Idle) {
            return vec![false];
        }
        match self.options.rps {
            Rps::Off => vec![false],
            Rps::On => vec![true],
            Rps::Both => vec![false, true],
            Rps::Auto if task == Task::Udp(udp::PAYLOAD_64) || round == 0 => vec![false, true],
            Rps::Auto => match self.better.get(&(scenario, subject, task)) {
                Some(better) => vec![*better],
                None => vec![false],
            },
        }
    }

    fn task(
        &mut self,
        rig: &Rig,
        (scenario, subject): (Scenario, Subject),
        task: Task,
        rps: bool,
    ) -> io::Result<()> {
        let rps = match rig.rps.set(rps) {
            Ok(()) if rps => "RPS on".to_owned(),
            Ok(()) => "RPS off".to_owned(),
            // A fresh device has it off.
            Err(_) if !rps => "RPS off".to_owned(),
            Err(error) => {
                let why = format!("RPS cannot be set here ({error}), so it stays off");
                self.skip(scenario, subject, &why);
                return Ok(());
            }
        };
        let own = || rig.switch_time();
        let foreign = rig
            .threads
            .is_some_and(|(pid, _)| pid != std::process::id());
        let mut meter = Meter::new(&own, self.baseline, foreign);
        let readings = match task {
            Task::Tcp(flows, ends) => tcp_rates(rig, flows, ends, self.options.time, &mut meter)?,
            Task::Udp(payload) => udp_rates(rig, payload, self.options.time, &mut meter, &rps)?,
            Task::RttFlood => round_trips(rig, Pace::Flood, self.options.time)?,
            Task::RttPaced => round_trips(rig, Pace::Every(PACE), self.options.time)?,
            Task::Idle => idle(rig, subject, self.options.time),
            Task::Fairness => fairness(rig, self.options.time)?,
        };
        let mut settings = rig.settings.clone();
        settings.insert(0, rps);
        if self.baseline > cpu::NOT_IDLE {
            settings.push("machine not idle".into());
        }
        for reading in readings {
            self.samples.push(Sample {
                scenario,
                subject,
                metric: reading.metric,
                value: reading.value,
                settings: settings.join(", "),
                retransmits: reading.retransmits,
            });
        }
        Ok(())
    }

    /// After the first round: which setting was better for what the task is about?
    fn note_better(&mut self, scenario: Scenario, subject: Subject, task: Task) {
        let Some(metric) = headline(task) else {
            return;
        };
        let key = (scenario, subject, task);
        if self.better.contains_key(&key) {
            return;
        }
        let found = |who: Subject| {
            self.samples
                .iter()
                .filter(move |s| (s.scenario, s.subject, s.metric) == (scenario, who, metric))
        };
        let bearable = found(Subject::LinuxBridge)
            .filter_map(|s| s.retransmits)
            .max();
        let sound = |s: &&Sample| match (s.retransmits, bearable) {
            (Some(ours), Some(theirs)) => ours <= theirs,
            _ => true,
        };
        let better = |a: &&Sample, b: &&Sample| {
            let order = a.value.total_cmp(&b.value);
            let order = if metric.more_is_better() {
                order
            } else {
                order.reverse()
            };
            sound(a).cmp(&sound(b)).then(order)
        };
        if let Some(best) = found(subject).max_by(better) {
            self.better.insert(key, best.settings.starts_with("RPS on"));
        }
    }
}

/// The namespaces, or why there are none.
fn walls(env: &mut Result<Env, String>) -> Result<&mut Env, Unbuilt> {
    env.as_mut().map_err(|why| why.as_str().into())
}

fn build(env: &mut Env, scenario: Scenario, subject: Subject) -> Result<Rig, Unbuilt> {
    let shape = |active, idle| Shape { active, idle };
    match scenario {
        Scenario::PodsSameNode110 => topo::same_node(env, subject, shape(2, 110)),
        Scenario::PodsSameNode250 => topo::same_node(env, subject, shape(2, 250)),
        Scenario::Idle110Pods => topo::same_node(env, subject, shape(2, 108)),
        Scenario::FloodFairness => topo::same_node(env, subject, shape(4, 0)),
        Scenario::PodsTwoNodesAzure => nodes::build(env, subject, control::plan::Plugin::Azure),
        Scenario::PodsTwoNodesKubenet => nodes::build(env, subject, control::plan::Plugin::Kubenet),
        _ => topo::same_node(env, subject, shape(2, 0)),
    }
}

const TCP_1: Task = Task::Tcp(1, Ends::EventLoop);
const TCP_4: Task = Task::Tcp(4, Ends::EventLoop);
const TCP_4_THREADS: Task = Task::Tcp(4, Ends::ThreadEach);

fn tasks(scenario: Scenario, quick: bool) -> &'static [Task] {
    use Task as T;
    match scenario {
        Scenario::Idle110Pods => &[T::Idle],
        Scenario::FloodFairness => &[T::Fairness],
        _ if quick => &[TCP_1, TCP_4, T::RttFlood, T::RttPaced],
        Scenario::PodsTwoNodesAzure | Scenario::PodsTwoNodesKubenet => &[
            TCP_1,
            TCP_4,
            TCP_4_THREADS,
            T::Udp(udp::PAYLOAD_1400),
            T::RttFlood,
            T::RttPaced,
        ],
        _ => &[
            TCP_1,
            TCP_4,
            TCP_4_THREADS,
            T::Udp(udp::PAYLOAD_64),
            T::Udp(udp::PAYLOAD_1400),
            T::RttFlood,
            T::RttPaced,
        ],
    }
}

/// The metric by which a setting is chosen.
fn headline(task: Task) -> Option<Metric> {
    match task {
        Task::Tcp(flows, ends) => Some(tcp_metric(flows, ends)),
        Task::Udp(udp::PAYLOAD_64) => Some(Metric::Udp64),
        Task::Udp(_) => Some(Metric::Udp1400),
        Task::RttFlood => Some(Metric::RttFloodP50),
        Task::RttPaced => Some(Metric::RttPacedP50),
        Task::Fairness => Some(Metric::PairRttP99),
        Task::Idle => None,
    }
}

fn tcp_metric(flows: usize, ends: Ends) -> Metric {
    match (flows, ends) {
        (1, _) => Metric::Tcp1,
        (_, Ends::EventLoop) => Metric::Tcp4,
        (_, Ends::ThreadEach) => Metric::Tcp4Threads,
    }
}

fn tcp_rates(
    rig: &Rig,
    flows: usize,
    ends: Ends,
    time: Duration,
    meter: &mut Meter,
) -> io::Result<Vec<Reading>> {
    let outcome = tcp::run(&rig.path, flows, ends, time, meter)?;
    let mut readings = vec![Reading {
        metric: tcp_metric(flows, ends),
        value: outcome.gbit_per_second(),
        retransmits: Some(outcome.retransmits),
    }];
    if flows == 1 {
        let per = |seconds: f64| seconds / outcome.gbit();
        readings.push(reading(Metric::CpuPerGbit, per(meter.machine)));
        if rig.threads.is_some() {
            readings.push(reading(Metric::SwitchCpuPerGbit, per(meter.switch)));
        }
    }
    Ok(readings)
}

fn udp_rates(
    rig: &Rig,
    payload: usize,
    time: Duration,
    meter: &mut Meter,
    rps: &str,
) -> io::Result<Vec<Reading>> {
    let pair = udp::Pair::open(&rig.path, payload)?;
    let short = (time / 6).clamp(Duration::from_millis(20), Duration::from_millis(500));
    let mut confirmed = 0;
    let rate = search(|offer| match offer {
        Offer::All => pair.trial(None, short),
        Offer::Rate(rate) => pair.trial(Some(rate), short),
        Offer::Confirm(rate) => {
            meter.start();
            let trial = pair.trial(Some(rate), time / 2)?;
            meter.stop();
            confirmed += trial.received;
            Ok(trial)
        }
    })?;
    let kpps = rate / 1e3;
    if payload != udp::PAYLOAD_64 {
        return Ok(vec![reading(Metric::Udp1400, kpps)]);
    }
    let per = |seconds: f64| seconds * 1e6 / confirmed as f64;
    let mut readings = vec![
        reading(Metric::Udp64, kpps),
        reading(Metric::CpuPerMframes, per(meter.machine)),
    ];
    if rps == "RPS off" {
        readings.push(reading(Metric::Udp64RpsOff, kpps));
    }
    if rig.threads.is_some() {
        readings.push(reading(Metric::SwitchCpuPerMframes, per(meter.switch)));
    }
    Ok(readings)
}

fn round_trips(rig: &Rig, pace: Pace, time: Duration) -> io::Result<Vec<Reading>> {
    use Metric as M;
    let outcome = icmp::run(&rig.path, pace, time)?;
    let ([p50, p99, p999], awake) = match pace {
        Pace::Flood => (
            [M::RttFloodP50, M::RttFloodP99, M::RttFloodP999],
            M::RttFloodAwakeP50,
        ),
        Pace::Every(_) => (
            [M::RttPacedP50, M::RttPacedP99, M::RttPacedP999],
            M::RttPacedAwakeP50,
        ),
    };
    Ok(vec![
        reading(p50, outcome.percentile_us(50.0)),
        reading(p99, outcome.percentile_us(99.0)),
        reading(p999, outcome.percentile_us(99.9)),
        reading(awake, outcome.awake_us(50.0)),
    ])
}

/// What the switch costs while its pods say nothing. The bridge has no thread of its own.
fn idle(rig: &Rig, subject: Subject, time: Duration) -> Vec<Reading> {
    thread::sleep(Duration::from_secs(1).min(time));
    let (began, before) = (Instant::now(), rig.switch_time());
    thread::sleep(2 * time);
    let spent = rig.switch_time().saturating_sub(before).as_secs_f64();
    let percent = 100.0 * spent / began.elapsed().as_secs_f64();
    let mut readings = vec![reading(Metric::IdleCpu, percent)];
    let resident = match rig.threads {
        Some((pid, _)) if pid != std::process::id() => Some(cpu::resident_bytes(pid)),
        Some(_) => resident_alone(subject),
        None => None,
    };
    let mebibytes = resident.map(|bytes| bytes as f64 / f64::from(1 << 20));
    readings.extend(mebibytes.map(|held| reading(Metric::Rss, held)));
    readings
}

/// The hidden word by which this program measures Tapline's memory in a process of its own.
pub const RESIDENT: &str = "resident";

/// What a process holds that runs the switch and nothing else: this one has held much before.
fn resident_alone(subject: Subject) -> Option<u64> {
    let mut alone = Command::new("/proc/self/exe");
    let done = alone.args([RESIDENT, &subject.name()]).output().ok()?;
    String::from_utf8(done.stdout).ok()?.trim().parse().ok()
}

/// That process: builds 110 pods around the switch, and says what it holds.
///
/// # Errors
/// What failed.
pub fn resident(env: &mut Env, subject: Subject) -> Result<u64, Unbuilt> {
    let rig = build(env, Scenario::Idle110Pods, subject)?;
    thread::sleep(Duration::from_millis(200));
    let held = cpu::resident_bytes(std::process::id());
    drop(rig);
    Ok(held)
}

/// One pair floods, the other exchanges 1,000 packets a second.
fn fairness(rig: &Rig, time: Duration) -> io::Result<Vec<Reading>> {
    let Some(flood) = &rig.flood else {
        return Err(io::Error::other("there is no second pair"));
    };
    let flood = udp::Pair::open(flood, udp::PAYLOAD_64)?;
    // The neighbours of the pair are resolved before the flood.
    icmp::run(&rig.path, Pace::Every(PAIR_PACE), Duration::from_millis(20))?;
    let drops = || rig.pair_drops.as_ref().map(|drops| drops());
    let before = drops();
    let outcome = thread::scope(|scope| {
        let flooding = scope.spawn(|| flood.trial(None, time + Duration::from_millis(200)));
        thread::sleep(Duration::from_millis(100));
        let outcome = icmp::run(&rig.path, Pace::Every(PAIR_PACE), time);
        let flooded = flooding.join();
        flooded.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        outcome
    })?;
    let mut readings = vec![
        reading(Metric::PairRttP50, outcome.percentile_us(50.0)),
        reading(Metric::PairRttP99, outcome.percentile_us(99.0)),
        reading(Metric::PairAwakeP99, outcome.awake_us(99.0)),
        reading(Metric::PairLost, outcome.lost as f64),
    ];
    if let (Some(before), Some(after)) = (before, drops()) {
        readings.push(reading(Metric::PairDropped, (after - before) as f64));
    }
    Ok(readings)
}
