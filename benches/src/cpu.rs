//! Where the processors' time went: the whole machine's, and a switch's own.
//!
//! In: `/proc/stat`, and the scheduler's accounts of single threads.
//! Out: seconds of processor time in a span. Never: blames a subject for what the machine does
//! anyway: a baseline, taken while nothing runs, is subtracted.

use std::fs;
use std::time::{Duration, Instant};

use nix::unistd::{SysconfVar, sysconf};

/// Processor time of the whole machine since boot, not idle: user, system, interrupts, softirqs.
#[must_use]
pub fn machine() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    Duration::from_secs_f64(busy_ticks(&stat) as f64 / ticks_per_second())
}

/// user, nice, system, (idle, iowait,) irq, softirq; what the hypervisor took is nobody's here.
fn busy_ticks(stat: &str) -> u64 {
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    let busy = [0, 1, 2, 5, 6];
    busy.iter().filter_map(|at| fields.get(*at)).sum()
}

fn ticks_per_second() -> f64 {
    let known = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    known.unwrap_or(100) as f64
}

/// Processor time of the threads of process `pid` whose names begin with `prefix`.
#[must_use]
pub fn threads(pid: u32, prefix: &str) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Duration::ZERO;
    };
    let spent = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let ours = name.starts_with(prefix);
        let account = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let ran: u64 = account.split_whitespace().next()?.parse().ok()?;
        ours.then(|| Duration::from_nanos(ran))
    };
    tasks.flatten().filter_map(spent).sum()
}

/// Memory that process `pid` holds now, in bytes.
#[must_use]
pub fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib << 10)
}

/// Processor time of this process so far, threads that have ended included: fields 14 and 15,
/// counted behind the program's name, which may hold spaces.
#[must_use]
pub fn process() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = behind_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_secs_f64(ticks as f64 / ticks_per_second())
}

/// So many busy processors before we begin make the whole machine's account useless.
pub const NOT_IDLE: f64 = 0.1;

/// How many processors' worth of time the machine spends while we do nothing.
#[must_use]
pub fn baseline(span: Duration) -> f64 {
    let (before, began) = (machine(), Instant::now());
    std::thread::sleep(span);
    (machine().saturating_sub(before)).as_secs_f64() / began.elapsed().as_secs_f64()
}

/// Measures one span.
pub struct Meter<'a> {
    own: &'a dyn Fn() -> Duration,
    baseline: f64,
    /// The switch is another process.
    foreign: bool,
    began: Option<(Instant, Duration, Duration)>,
    /// Seconds of the whole machine, less the baseline; on a machine that others use, of this
    /// process and the switch, with what softirqs did in their time.
    pub machine: f64,
    /// Seconds of the switch itself.
    pub switch: f64,
}

impl<'a> Meter<'a> {
    /// `own` says how much time the switch itself has used so far; `foreign`, that it is another
    /// process than this.
    pub fn new(own: &'a dyn Fn() -> Duration, baseline: f64, foreign: bool) -> Meter<'a> {
        Meter {
            own,
            baseline,
            foreign,
            began: None,
            machine: 0.0,
            switch: 0.0,
        }
    }

    /// The span begins.
    pub fn start(&mut self) {
        self.began = Some((Instant::now(), self.all(), (self.own)()));
    }

    fn is_shared(&self) -> bool {
        self.baseline > NOT_IDLE
    }

    fn all(&self) -> Duration {
        match (self.is_shared(), self.foreign) {
            (false, _) => machine(),
            (true, false) => process(),
            (true, true) => process() + (self.own)(),
        }
    }

    /// The span ends; several spans add up.
    pub fn stop(&mut self) {
        let Some((began, before, own)) = self.began.take() else {
            return;
        };
        let spent = self.all().saturating_sub(before).as_secs_f64();
        let idle = match self.is_shared() {
            true => 0.0,
            false => self.baseline * began.elapsed().as_secs_f64(),
        };
        self.machine += (spent - idle).max(0.0);
        self.switch += (self.own)().saturating_sub(own).as_secs_f64();
    }
}

impl std::fmt::Debug for Meter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Meter {{ {} s, {} s }}", self.machine, self.switch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_stolen_time_is_not_busy() {
        assert_eq!(busy_ticks("cpu  1 2 4 1000 1000 8 16 1000 0 0\ncpu0 9"), 31);
        assert_eq!(busy_ticks(""), 0);
    }

    #[test]
    fn a_threads_time_is_found_by_its_name() {
        let spun = std::thread::Builder::new()
            .name("spin-for-test".into())
            .spawn(|| {
                let began = Instant::now();
                while began.elapsed() < Duration::from_millis(50) {}
                threads(std::process::id(), "spin-for-test")
            });
        let spent = spun.expect("started").join().expect("no panic");
        assert!(spent > Duration::ZERO, "{spent:?}");
        assert_eq!(threads(std::process::id(), "nobody"), Duration::ZERO);
        assert!(process() > Duration::ZERO);
    }
}
