//! Network namespaces: made, held by a descriptor, and entered by a thread of their own.
//!
//! In: nothing but the right to make namespaces.
//! Out: [`Netns`], whose [`run`](Netns::run) does work inside.
//! Never: moves the calling thread, or forks. A namespace dies with its last descriptor, so a
//! process that is killed leaves none behind.

use std::fs::File;
use std::io;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};

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
        Ok(Netns { name: name.into(), file: Arc::new(file) })
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

    /// The descriptor, for netlink messages that move a device.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
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

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(answer) => answer,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
