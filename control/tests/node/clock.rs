//! Clocks that jump: each daemon of a node counts from elsewhere, as after a reboot or a long sleep.
//!
//! In: a time namespace for each daemon (`unshare --time`, Linux 5.6). Out: pods and addresses as if
//! nothing had been.
//! Never: sets a clock of the machine. That nothing asks the clock that people set is a rule of its own,
//! which the sources are checked for.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use control::lab::privilege::PrivateNet;
use control::node::standin::Manners;

use crate::alone::not_tried;
use crate::world::{Pod, Running, World, address};

/// Seconds that the clocks of successive daemons are ahead of the machine's: years ahead, then as it is,
/// and back to a minute after the start of the machine.
const AHEAD: [i64; 3] = [100_000_000, 0, -1];

/// Seconds from the start of the machine that are left before a clock that was set back.
const LEFT: i64 = 60;

fn seconds_up() -> i64 {
    let text = std::fs::read_to_string("/proc/uptime").expect("readable");
    let (whole, _) = text.split_once('.').expect("a fraction");
    whole.parse().expect("seconds")
}

fn unshare(ahead: i64) -> Command {
    let ahead = match ahead {
        0.. => ahead,
        _ => (LEFT - seconds_up()).min(0),
    };
    let mut command = Command::new("unshare");
    command.arg("--time");
    for clock in ["--monotonic", "--boottime"] {
        command.arg(format!("{clock}={ahead}"));
    }
    command
}

/// Starts the daemon with clocks that are so much ahead.
fn started(world: &World, ahead: i64) -> Running {
    let plain = world.command();
    let mut command = unshare(ahead);
    command
        .arg("--")
        .arg(plain.get_program())
        .args(plain.get_args())
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null());
    let running = world.spawn(&mut command);
    running.wait_until_ready();
    running
}

pub(crate) fn clocks_that_jump_between_daemons_cost_no_pod_and_no_address(_: PrivateNet) {
    let tried = unshare(1).arg("true").output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        not_tried("there are no time namespaces here, or no unshare that makes them");
    }
    let world = World::azure();
    let _wireserver = world.wireserver(Manners::Good);
    let total = world.secondary().len();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let mut running = started(&world, 0);
    let [to_a, to_b] = [&a, &b].map(|pod| address(&pod.added(&running)));
    let mut given = BTreeSet::from([to_a, to_b]);
    for ahead in AHEAD {
        running.kill();
        running = started(&world, ahead);
        for (pod, to) in [(&a, to_b), (&b, to_a)] {
            assert_eq!(pod.pings(to).received(), 3, "{ahead}: to {to}");
        }
        // Those never used come first, and one that was given back rests by whatever clock.
        let c = Pod::new(&format!("pod-{}", given.len()));
        let of_c = address(&c.added(&running));
        assert!(given.insert(of_c), "{ahead}: {of_c} was not new");
        running.client.del(&c.del()).expect("it goes");
        let pool = running.status().expect("it answers").addresses;
        let pool = pool.expect("a pool");
        let resting = given.len() - 2;
        assert_eq!((pool.held, pool.resting), (2, resting as u64), "{ahead}");
        assert_eq!(pool.free, (total - given.len()) as u64, "{ahead}");
    }
    assert_eq!(running.stop(), Some(0));
}
