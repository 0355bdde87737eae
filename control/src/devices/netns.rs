//! Network namespaces: made, held by a descriptor, and entered by a thread of their own.
//!
//! In: nothing but the right to make namespaces.
//! Out: [`Netns`], whose [`run`](Netns::run) does work inside.
//! Never: moves the calling thread, or forks. A namespace dies with its last descriptor, so a
//! process that is killed leaves none behind.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Where `ip netns` looks for namespaces by name.
pub const PINS: &str = "/run/netns";

/// A network namespace, held open. Clones share the descriptor.
#[derive(Clone, Debug)]
pub struct Netns {
    name: Arc<str>,
    file: Arc<File>,
}

impl Netns {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// What opening `/proc/thread-self/ns/net` says.
    pub fn current(name: &str) -> io::Result<Netns> {
        let file = File::open("/proc/thread-self/ns/net")?;
        Ok(Netns {
            name: name.into(),
            file: Arc::new(file),
        })
    }

    /// The namespace at `path`: a pin, or a process's `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// `ENOENT` without it, `EINVAL` if it is something else, `EPERM` without the right to enter.
    pub fn open(path: &Path) -> io::Result<Netns> {
        let file = File::options()
            .read(true)
            // A pipe in its place would keep whoever opens it waiting.
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(path)?;
        let netns = Netns {
            name: path.to_string_lossy().into(),
            file: Arc::new(file),
        };
        netns.run(|| Ok(()))?;
        Ok(netns)
    }

    /// True if both are the same namespace.
    ///
    /// # Errors
    /// What looking at the descriptors says.
    pub fn is(&self, other: &Netns) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let (one, two) = (self.file.metadata()?, other.file.metadata()?);
        Ok((one.dev(), one.ino()) == (two.dev(), two.ino()))
    }

    /// Makes a fresh, empty namespace.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN` in the current user namespace, `ENOSPC` at the limit.
    pub fn create(name: &str) -> io::Result<Netns> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Netns::current(name)
        })
    }

    /// The name it was given: a label for messages, not a path.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path that leads here for as long as this process holds the namespace.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let fd = self.file.as_raw_fd();
        PathBuf::from(format!("/proc/{}/fd/{fd}", std::process::id()))
    }

    /// The descriptor, for netlink messages that move a device.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Puts the namespace at `/run/netns/NAME`, where `ip netns exec NAME` finds it. From then on
    /// it lives until [`unpin`], even if this process dies.
    ///
    /// # Errors
    /// `EPERM` without the right to mount, `EEXIST` if the name is taken.
    pub fn pin(&self, name: &str) -> io::Result<PathBuf> {
        let path = pin_path(name)?;
        fs::create_dir_all(PINS)?;
        File::options().write(true).create_new(true).open(&path)?;
        // The descriptor by number and process, because a thread's own `/proc/self` is the same.
        let source = format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd());
        let none: Option<&str> = None;
        let mounted = mount(Some(source.as_str()), &path, none, MsFlags::MS_BIND, none);
        if let Err(refused) = mounted {
            let _ = fs::remove_file(&path);
            return Err(refused.into());
        }
        Ok(path)
    }

    /// Runs `work` on a new thread inside the namespace and returns its answer. Descriptors that
    /// `work` opens (sockets, TAPs) stay bound to this namespace wherever they are used later.
    ///
    /// # Errors
    /// What `setns` says, or what `work` returns.
    pub fn run<T, F>(&self, work: F) -> io::Result<T>
    where
        T: Send,
        F: FnOnce() -> io::Result<T> + Send,
    {
        on_own_thread(|| {
            setns(&*self.file, CloneFlags::CLONE_NEWNET)?;
            work()
        })
    }
}

/// Takes `/run/netns/NAME` away; the namespace dies unless someone is in it or holds it. One that
/// is gone already is no error.
///
/// # Errors
/// What unmounting or unlinking says.
pub fn unpin(name: &str) -> io::Result<()> {
    unpin_path(&pin_path(name)?)
}

/// As [`unpin`], by path.
pub(crate) fn unpin_path(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // Never mounted, or no mount point any more: what is left is a plain file.
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(refused) => return Err(refused.into()),
    }
    match fs::remove_file(path) {
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn pin_path(name: &str) -> io::Result<PathBuf> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
        let why = format!("'{name}' cannot be the name of a namespace");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(Path::new(PINS).join(name))
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(answer) => answer,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
