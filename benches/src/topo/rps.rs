//! Receive packet steering of the devices at the ends of a path.
//!
//! In: devices and their namespaces. Out: `rps_cpus` all processors, or none.
//! Never: writes to the machine's own `/sys`: each write goes to a sysfs mounted by a thread
//! inside the namespace, in a mount namespace of its own that ends with the thread.
//!
//! RPS keeps the segments of a flow in one order where two processors feed a veth, and costs a
//! hand-over between them. Which is better differs by switch and by traffic, so both are tried.

use std::fs;
use std::io;

use control::devices::{DeviceName, Netns};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Devices that frames are received on, on both sides of the switch.
#[derive(Clone, Debug)]
pub struct Ends(pub Vec<(Netns, DeviceName)>);

impl Ends {
    /// Spreads reception over all processors, or leaves it where it arises.
    ///
    /// # Errors
    /// `EPERM` where this user may not mount sysfs, `EACCES` where it may not write to it.
    pub fn set(&self, on: bool) -> io::Result<()> {
        let processors = std::thread::available_parallelism()?.get().min(32);
        let mask = if on { (1_u64 << processors) - 1 } else { 0 };
        for (netns, device) in &self.0 {
            netns.run(|| {
                mount_own_sysfs()?;
                let file = format!("/sys/class/net/{device}/queues/rx-0/rps_cpus");
                fs::write(file, format!("{mask:x}"))
            })?;
        }
        Ok(())
    }
}

/// For the calling thread alone, which must be about to end.
fn mount_own_sysfs() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(
        Some("sysfs"),
        "/sys",
        Some("sysfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        none,
    )?;
    Ok(())
}
