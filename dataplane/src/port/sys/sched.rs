//! How long a thread runs before another that is ready has its turn: `sched_setattr(2)`.
//!
//! In: a slice. Out: the calling thread has it, or the kernel's error.
//! Never: another policy or nice value than the thread has: its share of a processor stays.
//!
//! `include/uapi/linux/sched/types.h`. Linux 6.12 and later take `sched_runtime` of an ordinary thread as
//! its slice, 0.1 to 100 ms; before, it says nothing there.

use std::io;
use std::time::Duration;

use super::check;

/// The calling thread, in the kernel's words.
const CALLING: libc::pid_t = 0;

/// Has the scheduler look at the calling thread again after so long.
pub(crate) fn slice(slice: Duration) -> io::Result<()> {
    let mut attributes = attributes(CALLING)?;
    attributes.sched_runtime = slice.as_nanos().try_into().unwrap_or(u64::MAX);
    // SAFETY: the kernel reads the structure, as many bytes as its own `size` says, and keeps no pointer.
    // Kept by `attributes`, which the kernel filled itself; checked by its answer.
    let answer =
        unsafe { libc::syscall(libc::SYS_sched_setattr, CALLING, &raw const attributes, 0) };
    check(answer as libc::c_int)
}

/// Whether the kernel knows of slices of single threads.
pub(crate) fn is_known() -> bool {
    // Before, the answer has nought there for all but deadline threads.
    attributes(CALLING).is_ok_and(|attributes| attributes.sched_runtime != 0)
}

/// What the scheduler knows of the thread of that number; nought is the calling one.
fn attributes(thread: libc::pid_t) -> io::Result<libc::sched_attr> {
    let size = size_of::<libc::sched_attr>() as u32;
    let mut attributes = libc::sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most `size` bytes, which are the structure's own, whole numbers all.
    // Kept by the line above; checked by its answer.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_sched_getattr,
            thread,
            &raw mut attributes,
            size,
            0,
        )
    };
    check(answer as libc::c_int)?;
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facility::Facility;
    use crate::port::memory::MemoryPort;
    use crate::switch::{Options, Switch};
    use crate::tables::Tables;

    #[test]
    fn a_thread_has_the_slice_and_keeps_its_nice_value() {
        let thread = std::thread::spawn(|| {
            let before = attributes(CALLING).expect("of this thread");
            slice(Duration::from_micros(300)).expect("allowed to everybody");
            (before, attributes(CALLING).expect("of this thread"))
        });
        let (before, after) = thread.join().expect("no panic");
        assert_eq!(
            (before.sched_policy, before.sched_nice),
            (after.sched_policy, after.sched_nice)
        );
        let wanted = if is_known() { 300_000 } else { 0 };
        assert_eq!(after.sched_runtime, wanted);
    }

    #[test]
    fn a_worker_has_the_shortest_slice_and_the_thread_that_starts_it_keeps_its_own() {
        let before = attributes(CALLING).expect("of this thread").sched_runtime;
        let options = Options::named("slice-worker");
        let _switch = Switch::<MemoryPort>::start(&options, Tables::empty()).expect("it starts");
        let tasks = std::fs::read_dir("/proc/self/task").expect("proc");
        let found = tasks.flatten().find_map(|task| {
            let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
            let number = task.file_name().to_str()?.parse().ok()?;
            (name.trim() == "slice-worker").then_some(number)
        });
        let worker = attributes(found.expect("its thread")).expect("it lives");
        let short = is_known() && Facility::ShortSlice.is_allowed();
        let wanted = if short { 100_000 } else { before };
        assert_eq!(worker.sched_runtime, wanted);
        let after = attributes(CALLING).expect("of this thread").sched_runtime;
        assert_eq!(after, before);
    }
}
