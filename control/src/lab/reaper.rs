//! The reaper: a small process that outlives the lab and clears up after it, however it ends.
//!
//! In: lines from the lab on standard input, one for each thing that would outlive it.
//! Out: at the end of the input, within a second, all of them gone.
//! Never: removes what no lab of that process id made, or ends a process that took over the id of
//! one that the lab started.
//!
//! Namespaces, devices and TAPs die with the last process that holds them, so a lab that is killed
//! takes most of itself along. What stays is named here: pins below `/run/netns`, files, and
//! processes. The pipe is the only link: the kernel closes the lab's end even after `SIGKILL`,
//! and its end is close-on-exec, so no child of the lab keeps it open.
//!
//! ```text
//! pid 4711 89123              a process and its start time, in ticks since the machine's boot
//! netns /run/netns/tapline-4710-pod-a
//! file /run/user/1000/tapline/4710.json
//! ```

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal as NixSignal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

use crate::devices::netns::{PINS, unpin_path};

/// The hidden word that makes `tapline` a reaper: `tapline lab-reaper PID`.
pub const COMMAND: &str = "lab-reaper";
/// How long a process may take to leave before it is killed.
const GRACE: Duration = Duration::from_millis(400);
/// Longest line; longer ones are no path that the kernel takes.
const LINE_MAX: usize = 4096 + 16;

/// The lab's end: what is told here is cleared up when this is dropped, or the process dies.
#[derive(Debug)]
pub struct Reaper {
    process: Child,
    pipe: Option<ChildStdin>,
}

impl Reaper {
    /// Starts the reaper, which is this same program. To be called before the lab enters its
    /// namespaces: the reaper stays in the machine's, where the pins are.
    ///
    /// # Errors
    /// What starting a process says.
    pub fn spawn() -> io::Result<Reaper> {
        Reaper::spawn_by(Command::new("/proc/self/exe").arg(COMMAND))
    }

    /// As [`Reaper::spawn`], by a command to which the lab's process id is added.
    ///
    /// # Errors
    /// What starting a process says.
    pub fn spawn_by(command: &mut Command) -> io::Result<Reaper> {
        let mut process = command
            .arg(std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            // Out of the terminal's foreground group, so Ctrl-C is for the lab alone.
            .process_group(0)
            .spawn()?;
        let pipe = process.stdin.take();
        Ok(Reaper { process, pipe })
    }

    /// Has `path` removed in the end.
    ///
    /// # Errors
    /// `EPIPE` if the reaper is gone; `InvalidInput` for a path that does not start at the root or
    /// holds a line break.
    pub fn will_remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.tell_path("file", path)
    }

    /// Has the pin at `path` unmounted and removed in the end.
    ///
    /// # Errors
    /// As [`Reaper::will_remove_file`], and `InvalidInput` for a path that is no pin of this lab:
    /// they are called `/run/netns/tapline-PID-...`.
    pub fn will_unmount(&mut self, path: &Path) -> io::Result<()> {
        if !is_pin_of(std::process::id(), path) {
            return Err(invalid("that is not a pin of this lab", path));
        }
        self.tell_path("netns", path)
    }

    /// Has the process ended in the end, and its process group if it leads one. To be called by its parent before it waits for it, so
    /// that the id cannot have passed to another.
    ///
    /// # Errors
    /// What reading its start time says, or as [`Reaper::will_remove_file`].
    pub fn will_end(&mut self, pid: u32) -> io::Result<()> {
        self.tell(format!("pid {pid} {}\n", start_time(pid)?).as_bytes())
    }

    fn tell_path(&mut self, word: &str, path: &Path) -> io::Result<()> {
        let bytes = path.as_os_str().as_bytes();
        if !path.is_absolute() || bytes.contains(&b'\n') || bytes.len() > LINE_MAX - 16 {
            return Err(invalid(
                "the reaper needs a path from the root on one line",
                path,
            ));
        }
        self.tell(&[word.as_bytes(), b" ", bytes, b"\n"].concat())
    }

    fn tell(&mut self, line: &[u8]) -> io::Result<()> {
        match &mut self.pipe {
            // One write below PIPE_BUF or close to it: a lab killed in between leaves half a line,
            // which the reaper ignores.
            Some(pipe) => pipe.write_all(line),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // It ends within a second of the pipe, and what it clears up is then gone when we return.
        let _ = self.process.wait();
    }
}

/// A process by its id and by a descriptor, which means that process and no other, whatever
/// becomes of the id.
#[derive(Debug)]
struct Held {
    pid: Pid,
    descriptor: OwnedFd,
}

/// What the reaper has been told.
#[derive(Debug, Default)]
struct Estate {
    processes: Vec<Held>,
    pins: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

/// The reaper's own life: `arguments` are those behind [`COMMAND`].
#[must_use]
pub fn main(arguments: &[OsString]) -> ExitCode {
    let lab = arguments
        .first()
        .and_then(|pid| pid.to_str())
        .and_then(|pid| pid.parse().ok());
    let Some(lab) = lab else {
        eprintln!("tapline: {COMMAND} is started by the lab and takes its process id");
        return ExitCode::from(2);
    };
    ignore_signals();
    let mut estate = Estate::default();
    let mut input = io::stdin().lock();
    while let Some(line) = next_line(&mut input) {
        estate.note(lab, &line);
    }
    estate.settle(lab);
    ExitCode::SUCCESS
}

/// Blocks what a terminal or a tidy parent would send; what stays blocked is as good as ignored.
fn ignore_signals() {
    let mut blocked = SigSet::empty();
    for signal in [
        NixSignal::SIGINT,
        NixSignal::SIGTERM,
        NixSignal::SIGHUP,
        NixSignal::SIGQUIT,
        NixSignal::SIGTSTP,
    ] {
        blocked.add(signal);
    }
    // If even this is refused, the reaper works until somebody ends it.
    let _ = blocked.thread_block();
}

/// The next whole line; none at the end of the input, or at a line that never ends.
fn next_line(input: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let read = io::Read::take(&mut *input, LINE_MAX as u64).read_until(b'\n', &mut line);
    match read {
        Ok(_) if line.pop() == Some(b'\n') => Some(line),
        _ => None,
    }
}

impl Estate {
    fn note(&mut self, lab: u32, line: &[u8]) {
        let Some(space) = line.iter().position(|b| *b == b' ') else {
            return;
        };
        let (word, rest) = (&line[..space], &line[space + 1..]);
        let path = || PathBuf::from(OsString::from_vec(rest.to_vec()));
        match word {
            b"pid" => self
                .processes
                .extend(std::str::from_utf8(rest).ok().and_then(hold)),
            b"netns" if is_pin_of(lab, &path()) => self.pins.push(path()),
            b"file" if path().is_absolute() => self.files.push(path()),
            _ => {}
        }
    }

    /// Processes first: while they live they hold the namespaces and may write the files.
    fn settle(mut self, lab: u32) {
        end(&self.processes);
        self.pins.extend(pins_of(lab));
        for pin in &self.pins {
            let _ = unpin_path(pin);
        }
        for file in &self.files {
            let _ = fs::remove_file(file);
            remove_own_folder(file);
        }
    }
}

/// Holds a process, if the one with this id is still the one meant.
fn hold(line: &str) -> Option<Held> {
    let (pid, started) = line.split_once(' ')?;
    let (pid, started): (i32, u64) = (pid.parse().ok()?, started.parse().ok()?);
    let id = Pid::from_raw(pid)?;
    let descriptor = pidfd_open(id, PidfdFlags::empty()).ok()?;
    (start_time(pid.unsigned_abs()).ok()? == started).then_some(Held {
        pid: id,
        descriptor,
    })
}

/// Asks each process to end, kills those that do not, and waits until all are gone.
fn end(processes: &[Held]) {
    for process in processes {
        process.signal(Signal::TERM);
    }
    let deadline = Instant::now() + GRACE;
    for process in processes {
        if !process.ended(deadline) {
            process.signal(Signal::KILL);
        }
    }
    for process in processes {
        process.ended(deadline + GRACE);
    }
}

impl Held {
    /// Signals the process, and with it the group that it leads: what it started in turn.
    fn signal(&self, signal: Signal) {
        // While the leader lives its id cannot be another group's.
        let lives = !self.ended(Instant::now());
        let leads = rustix::process::getpgid(Some(self.pid)) == Ok(self.pid);
        if lives && leads {
            let _ = kill_process_group(self.pid, signal);
        } else {
            let _ = pidfd_send_signal(&self.descriptor, signal);
        }
    }

    /// True once the process has ended, false if it lives at `deadline`.
    fn ended(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        poll(
            &mut [PollFd::new(&self.descriptor, PollFlags::IN)],
            Some(&wait),
        ) == Ok(1)
    }
}

/// The folder that a lab made for its file goes with the last file in it; one that holds more, or
/// that is not ours by its name, stays.
fn remove_own_folder(file: &Path) {
    let folder = file.parent();
    let ours = |folder: &&Path| {
        let name = folder.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name == "tapline" || name.starts_with("tapline-"))
    };
    if let Some(folder) = folder.filter(ours) {
        let _ = fs::remove_dir(folder);
    }
}

/// When a process started, in ticks since boot: field 22 of `/proc/PID/stat`. The second field is
/// the program's name, which may hold spaces and brackets, so counting starts behind the last one.
pub(crate) fn start_time(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let behind_name = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest)
        .unwrap_or_default();
    let field = behind_name
        .split_whitespace()
        .nth(19)
        .and_then(|ticks| ticks.parse().ok());
    field.ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has no start time")))
}

/// Pins that the lab made and did not come to report.
fn pins_of(lab: u32) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(PINS) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_pin_of(lab, path))
        .collect()
}

fn is_pin_of(lab: u32, path: &Path) -> bool {
    let prefix = format!("tapline-{lab}-");
    path.parent() == Some(Path::new(PINS))
        && path
            .file_name()
            .is_some_and(|name| name.as_bytes().starts_with(prefix.as_bytes()))
}

fn invalid(why: &str, path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{why}: {}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pins_of_the_lab_itself_are_its_own() {
        assert!(is_pin_of(17, Path::new("/run/netns/tapline-17-pod-a")));
        for other in [
            "/run/netns/tapline-171-pod-a",
            "/run/netns/blue",
            "/run/netns/x/tapline-17-pod-a",
            "/run/netns/../tapline-17-pod-a",
            "tapline-17-pod-a",
        ] {
            assert!(!is_pin_of(17, Path::new(other)), "{other}");
        }
    }

    #[test]
    fn half_a_line_and_nonsense_are_not_acted_on() {
        let mut input =
            &b"file relative\nnonsense\nnetns /etc/passwd\npid x\nfile /a b\nfile /hal"[..];
        let mut estate = Estate::default();
        while let Some(line) = next_line(&mut input) {
            estate.note(17, &line);
        }
        assert_eq!(estate.files, [Path::new("/a b")]);
        assert!(estate.pins.is_empty() && estate.processes.is_empty());
    }

    #[test]
    fn a_process_with_another_start_time_is_another_process() {
        let me = std::process::id();
        let started = start_time(me).expect("readable");
        assert!(hold(&format!("{me} {started}")).is_some());
        assert!(hold(&format!("{me} {}", started + 1)).is_none());
        assert!(hold("0 0").is_none() && hold("nobody").is_none());
    }
}
