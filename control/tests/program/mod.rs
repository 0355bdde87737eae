//! The program as its users meet it: started, watched, and ended, with a folder of its own.
//!
//! In: arguments. Out: exit status and both streams, or a lab that is held.
//! Never: ends a process that it did not start, or sees labs of others: each [`Home`] is a
//! temporary folder in which `lab exec` finds only what was started from it.
#![allow(dead_code, reason = "each test program uses its own part")]

pub(crate) mod report;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A lab in a debug build on a loaded machine with two cores is up well within this time.
const UP_WITHIN: Duration = Duration::from_secs(60);

/// A folder for one test's files and for the state of its labs.
pub(crate) struct Home(PathBuf);

impl Home {
    pub(crate) fn new() -> Home {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tapline-test-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a fresh temporary folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("it is ours");
        Home(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect("the folder is ours");
        path.to_str().expect("a plain name").to_owned()
    }

    /// The program, at home here.
    pub(crate) fn tapline(&self) -> Command {
        self.program(Path::new(env!("CARGO_BIN_EXE_tapline")))
    }

    /// Another copy of the program, at home here.
    pub(crate) fn program(&self, path: &Path) -> Command {
        let mut command = Command::new(path);
        command
            .env("TMPDIR", &self.0)
            .env_remove("XDG_RUNTIME_DIR")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(self.tapline().args(arguments))
    }

    /// Processes that were started at home here and still run, as `PID COMMAND`.
    pub(crate) fn processes(&self) -> Vec<String> {
        let mark = format!("TMPDIR={}", self.0.display());
        let entries = fs::read_dir("/proc").expect("/proc is there").flatten();
        entries
            .filter_map(|entry| {
                let environment = fs::read(entry.path().join("environ")).ok()?;
                let ours = environment.split(|b| *b == 0).any(|v| v == mark.as_bytes());
                let command = fs::read_to_string(entry.path().join("cmdline")).ok()?;
                ours.then(|| format!("{} {command:?}", entry.file_name().display()))
            })
            .collect()
    }

    /// State files of labs at home here.
    pub(crate) fn state_files(&self) -> Vec<PathBuf> {
        let folders = fs::read_dir(&self.0).expect("the folder is ours").flatten();
        folders
            .filter(|folder| folder.path().is_dir())
            .flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten())
            .map(|entry| entry.path())
            .collect()
    }

    /// What a lab of that process id left behind.
    pub(crate) fn leavings(&self, pid: u32) -> Vec<String> {
        let files = self.state_files();
        let mut left: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
        left.extend(pins(pid));
        left.extend(self.processes());
        left
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Namespaces that the lab of that process id has at `/run/netns`.
pub(crate) fn pins(pid: u32) -> Vec<String> {
    let prefix = format!("tapline-{pid}-");
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix))
        .collect()
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn of(command: &mut Command) -> Outcome {
        let output = command.output().expect("the program starts");
        Outcome {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("it prints UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("it prints UTF-8"),
        }
    }

    /// The reports, one for each mode; standard output must be that JSON alone.
    pub(crate) fn reports(&self) -> Vec<Value> {
        match serde_json::from_str(&self.stdout) {
            Ok(Value::Array(reports)) => reports,
            other => panic!("{other:?} instead of an array; it said:\n{}", self.stderr),
        }
    }
}

/// A lab that is held until it is told to end, or dropped.
pub(crate) struct Held {
    child: Child,
    said: Receiver<String>,
}

impl Held {
    /// Starts a lab and waits until it is held.
    pub(crate) fn start(home: &Home, arguments: &[&str]) -> Held {
        let mut held = Held::begin(home.tapline().arg("lab").args(arguments).arg("--hold"));
        held.wait_for("held until Ctrl-C");
        held
    }

    /// Starts a lab, and does not wait.
    pub(crate) fn begin(command: &mut Command) -> Held {
        Held::begin_into(command, Stdio::null())
    }

    /// As [`Held::begin`], with somewhere for the report to go.
    pub(crate) fn begin_into(command: &mut Command, report: Stdio) -> Held {
        let mut child = command
            .stdout(report)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let errors = child.stderr.take().expect("it was asked for");
        let (tell, said) = mpsc::channel();
        // Reads to the end, so that the lab never waits for a reader.
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        Held { child, said }
    }

    pub(crate) fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + UP_WITHIN;
        let mut heard = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok(line) if line.contains(text) => return,
                Ok(line) => heard.push(line),
                Err(why) => panic!("no '{text}' ({why}), but:\n{}", heard.join("\n")),
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed());
        // Our own child, not yet waited for: the id is its.
        kill(pid, signal).expect("the lab runs");
    }

    /// The exit status, if it ends in time.
    pub(crate) fn status(&mut self, within: Duration) -> Option<std::process::ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            match self.child.try_wait().expect("it is our child") {
                None if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                ended => return ended,
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What is left once nothing is, or `within` has passed.
pub(crate) fn leavings_after(home: &Home, pid: u32, within: Duration) -> Vec<String> {
    let deadline = Instant::now() + within;
    loop {
        let left = home.leavings(pid);
        if left.is_empty() || Instant::now() >= deadline {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One after the other: labs at the same time would share two cores and miss each other's
/// deadlines, and a program that is being copied cannot be run while another test forks. Where a
/// test wants several labs, it says so itself.
pub(crate) fn one_at_a_time() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
