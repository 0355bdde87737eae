//! A test that plays systemd: it hears what a daemon notifies, keeps the descriptors that it is
//! given, and hands them to the next one.

use std::fs;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use control::lab::privilege::PrivateNet;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::unistd::close;

use crate::alone::not_tried;
use crate::life::Stream;
use crate::world::{Pod, Running, World, address, until};

/// The word by which this program becomes the next daemon, as systemd would start it.
pub(crate) const HEIR: &str = "--heir";
/// What can be handed on in one message (`SCM_MAX_FD`).
const DESCRIPTORS_MAX: usize = 253;

pub(crate) struct Systemd {
    path: std::path::PathBuf,
    heard: Arc<Mutex<Vec<String>>>,
    kept: Arc<Mutex<Vec<(String, i32)>>>,
}

impl Systemd {
    pub(crate) fn start(world: &World) -> Systemd {
        let path = world.path("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let systemd = Systemd {
            path,
            heard: Arc::default(),
            kept: Arc::default(),
        };
        let (heard, kept) = (Arc::clone(&systemd.heard), Arc::clone(&systemd.kept));
        // It ends with the process.
        std::thread::spawn(move || {
            loop {
                let (text, given) = receive(socket.as_raw_fd());
                let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
                let mut kept = kept.lock().expect("ours");
                match name {
                    Some(name) if text.contains("FDSTORE=1") => {
                        kept.extend(given.into_iter().map(|fd| (name.to_owned(), fd)));
                    }
                    Some(name) if text.contains("FDSTOREREMOVE=1") => {
                        let (gone, stay) = kept.drain(..).partition(|(other, _)| other == name);
                        *kept = stay;
                        let gone: Vec<(String, i32)> = gone;
                        for (_, number) in gone {
                            let _ = close(number);
                        }
                    }
                    _ => {}
                }
                heard.lock().expect("ours").push(text);
            }
        });
        systemd
    }

    pub(crate) fn heard(&self, what: &str) -> bool {
        let heard = self.heard.lock().expect("ours");
        heard
            .iter()
            .any(|text| text.lines().any(|line| line == what))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let kept = self.kept.lock().expect("ours");
        let mut names: Vec<String> = kept.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    pub(crate) fn spawn(&self, world: &World) -> Running {
        let mut command = world.command();
        command.env("NOTIFY_SOCKET", &self.path);
        command.env("WATCHDOG_USEC", "600000");
        world.spawn(&mut command)
    }

    /// The next daemon, with all that was kept.
    pub(crate) fn spawn_heir(&self, world: &World) -> Running {
        let kept = self.kept.lock().expect("ours");
        let names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut command = Command::new("/proc/self/exe");
        command
            .args([HEIR.as_ref(), world.path("tapline.json").as_os_str()])
            .env("NOTIFY_SOCKET", &self.path)
            .env("LISTEN_FDNAMES", names.join(":"))
            .stdin(Stdio::from(OwnedFd::from(theirs)));
        let running = world.spawn(&mut command);
        let numbers: Vec<i32> = kept.iter().map(|(_, number)| *number).collect();
        let message = [ControlMessage::ScmRights(&numbers)];
        let one = [std::io::IoSlice::new(&[0])];
        sendmsg::<()>(ours.as_raw_fd(), &one, &message, MsgFlags::empty(), None).expect("sent");
        running
    }
}

/// A message, and the descriptors in it.
fn receive(socket: i32) -> (String, Vec<i32>) {
    let mut bytes = [0; 4096];
    let mut space = nix::cmsg_space!([i32; DESCRIPTORS_MAX]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::empty();
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut space), flags).expect("received");
    let mut given = Vec::new();
    for control in message.cmsgs().expect("whole") {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            given.extend(numbers);
        }
    }
    let length = message.bytes;
    (
        String::from_utf8_lossy(&bytes[..length]).into_owned(),
        given,
    )
}

/// Becomes the daemon that `config` describes, with the descriptors that come in by standard input:
/// from 3 on, as systemd hands them over.
pub(crate) fn become_heir(config: &std::ffi::OsStr) -> ExitCode {
    // Whatever came along from those who started the tests.
    for number in 3..1024 {
        let _ = close(number);
    }
    let (_, given) = receive(0);
    let wanted: Vec<i32> = (3..).take(given.len()).collect();
    assert_eq!(given, wanted, "nothing else is open");
    let failed = Command::new(env!("CARGO_BIN_EXE_tapline"))
        .args(["run", "--config"])
        .arg(config)
        .env("LISTEN_PID", std::process::id().to_string())
        .env("LISTEN_FDS", given.len().to_string())
        .stdin(Stdio::null())
        .exec();
    panic!("{failed}");
}

pub(crate) fn no_frame_is_lost_while_systemd_keeps_the_queues(_: PrivateNet) {
    let world = World::kubenet();
    let systemd = Systemd::start(&world);
    let running = systemd.spawn(&world);
    running.wait_until_ready();
    until("it says that it is ready", || systemd.heard("READY=1"));
    until("the watchdog is fed", || systemd.heard("WATCHDOG=1"));
    let (a, b, c) = (Pod::new("pod-a"), Pod::new("pod-b"), Pod::new("pod-c"));
    a.added(&running);
    let to_b = b.added(&running);
    c.added(&running);
    until("every queue is kept", || systemd.names().len() == 5);
    running.client.del(&c.del()).expect("it goes");
    until("those of a pod that is gone are not", || {
        systemd.names().len() == 4
    });
    let stream = Stream::start(&a, &b, address(&to_b));
    std::thread::sleep(Duration::from_millis(100));
    running.kill();
    // Longer than a restart takes, and shorter than a ring of 1000 frames lasts.
    std::thread::sleep(Duration::from_millis(200));
    let running = systemd.spawn_heir(&world);
    running.wait_until_ready();
    std::thread::sleep(Duration::from_millis(100));
    let report = stream.stop();
    println!("{report:?}");
    assert_eq!(report.lost, 0, "they waited in the rings");
    assert!(
        report.gap >= Duration::from_millis(200),
        "there was a time to wait: {report:?}"
    );
    assert_eq!(
        systemd.names().len(),
        8,
        "given anew; systemd drops what it has already"
    );
    running.signal(Signal::SIGHUP);
    until("it says that it reads anew", || {
        systemd.heard("RELOADING=1")
    });
    assert_eq!(running.stop(), Some(0));
    until("it says that it stops", || systemd.heard("STOPPING=1"));
}

/// As systemd itself reads them, in a folder that has what they name.
pub(crate) fn systemd_understands_every_line_of_the_units(_: PrivateNet) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    let root = tempfile::tempdir().expect("ours");
    let units = root.path().join("etc/systemd/system");
    fs::create_dir_all(&units).expect("ours");
    let mut names = Vec::new();
    for file in fs::read_dir(folder).expect("ours").flatten() {
        fs::copy(file.path(), units.join(file.file_name())).expect("ours");
        names.push(file.file_name());
    }
    assert_eq!(names.len(), 2, "{names:?}");
    for target in [
        "basic",
        "sysinit",
        "shutdown",
        "multi-user",
        "network-online",
    ] {
        let text = "[Unit]\nDescription=of the system\n";
        fs::write(units.join(format!("{target}.target")), text).expect("ours");
    }
    for program in ["usr/bin/tapline", "bin/kill"] {
        let path = root.path().join(program);
        fs::create_dir_all(path.parent().expect("ours")).expect("ours");
        fs::write(&path, "#!/bin/sh\n").expect("ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
    }
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--root"])
        .arg(root.path())
        .args(&names)
        .output();
    let Ok(verified) = verified else {
        not_tried("there is no systemd-analyze here");
    };
    // A line that it ignores is told, and no error to it.
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
}
