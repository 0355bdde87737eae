//! A processor, and keeping a thread on it.
//!
//! In: the kernel's number of a processor. Out: the calling thread stays there, or why it cannot.
//! Never: moves another thread, or chooses a processor.

use std::fmt;
use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A processor, by the kernel's number: 0 to 1023, as many as `cpu_set_t` knows (sched.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpu(u16);

impl Cpu {
    /// One past the highest number.
    pub const COUNT_MAX: u16 = CpuSet::MAX_CPU as u16;

    /// The processor of that number, if there can be one.
    #[must_use]
    pub fn new(number: u16) -> Option<Cpu> {
        (number < Cpu::COUNT_MAX).then_some(Cpu(number))
    }

    /// Keeps the calling thread on this processor (sched_setaffinity(2)).
    pub(super) fn keep_here(self) -> io::Result<()> {
        let mut only = CpuSet::new();
        only.set(self.0.into());
        sched_setaffinity(None, &only).map_err(|error| {
            let may =
                sched_getaffinity(None).map_or_else(|_| "unknown".to_owned(), |set| list(&set));
            let why =
                format!("cannot keep a worker on CPU {self}: {error}; CPUs of this process: {may}");
            io::Error::new(io::Error::from(error).kind(), why)
        })
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn list(set: &CpuSet) -> String {
    let all = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu));
    all.map(|cpu| cpu.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::port::memory::MemoryPort;
    use crate::switch::{Options, Switch};
    use crate::tables::Tables;

    /// Where the threads of that name may run, as the kernel says.
    fn allowed(name: &str) -> Vec<String> {
        let tasks = std::fs::read_dir("/proc/self/task")
            .expect("proc")
            .flatten();
        let of = |task: std::fs::DirEntry| {
            let comm = std::fs::read_to_string(task.path().join("comm")).ok()?;
            let status = std::fs::read_to_string(task.path().join("status")).ok()?;
            let line = status
                .lines()
                .find(|l| l.starts_with("Cpus_allowed_list:"))?;
            (comm.trim() == name).then(|| line[18..].trim().to_owned())
        };
        let mut found: Vec<String> = tasks.filter_map(of).collect();
        found.sort();
        found
    }

    fn start(name: &str, workers: usize, cpus: Vec<Cpu>) -> io::Result<Switch<MemoryPort>> {
        let options = Options {
            workers,
            cpus,
            ..Options::named(name)
        };
        Switch::start(&options, Tables::empty())
    }

    #[test]
    fn workers_stay_where_they_are_told_to_and_else_run_anywhere() {
        let may = sched_getaffinity(None).expect("of this thread");
        let mut cpus = (0..Cpu::COUNT_MAX).filter(|n| may.is_set(usize::from(*n)));
        let first = cpus.next().expect("it runs somewhere");
        let last = cpus.next_back().unwrap_or(first);
        let told = [first, last]
            .map(|n| Cpu::new(n).expect("below the end"))
            .to_vec();
        let three = start("cpu-three", 3, told).expect("they may run there");
        let mut wanted = [first, last, first].map(|n| n.to_string());
        wanted.sort();
        assert_eq!(allowed("cpu-three"), wanted);
        drop(three);

        let free = start("cpu-free", 1, Vec::new()).expect("it starts");
        let anywhere = allowed("cpu-free");
        assert_eq!(anywhere.len(), 1);
        assert_eq!(
            anywhere[0].contains(['-', ',']),
            first != last,
            "{anywhere:?}"
        );
        drop(free);
    }

    #[test]
    fn a_processor_that_is_not_there_is_named_with_those_that_are() {
        assert_eq!(Cpu::new(Cpu::COUNT_MAX), None);
        let none = Cpu::new(Cpu::COUNT_MAX - 1).expect("a number");
        let error = start("cpu-none", 1, vec![none]).expect_err("no machine of ours has as many");
        let text = error.to_string();
        assert!(
            text.starts_with("cannot keep a worker on CPU 1023: "),
            "{text}"
        );
        let may = list(&sched_getaffinity(None).expect("of this thread"));
        assert!(
            text.ends_with(&format!("CPUs of this process: {may}")),
            "{text}"
        );
        // A thread that has ended is listed until the kernel has swept up after it.
        let swept = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            allowed("cpu-none").is_empty()
        });
        assert!(swept, "its thread is gone");
    }
}
