//! The wall between a lab and the machine's own network.
//!
//! In: a process that `main` has already led through the wall.
//! Out: on which side it is.
//! Never: goes back.

use std::fs;

use control::devices::{DeviceName, Netlink, Netns};
use control::lab::prereq;
use control::lab::privilege::{EnterError, enter};

use crate::support::Wire;

pub(crate) fn a_test_runs_outside_the_network_it_was_started_in() {
    let parent = format!("/proc/{}/ns/net", std::os::unix::process::parent_id());
    // Of a process of the same user in the parent user namespace this may not be readable, which
    // is as good as another namespace.
    let started_in = fs::read_link(parent).ok();
    assert_ne!(started_in, fs::read_link("/proc/self/ns/net").ok());
    let here = Netns::current("here").expect("readable");
    let net = Netlink::open(&here).expect("opened");
    assert!(
        net.links().expect("listed").iter().all(|link| !link.up),
        "a fresh one is all down"
    );
}

pub(crate) fn a_second_thread_is_refused() {
    let before = fs::read_link("/proc/self/ns/net").expect("readable");
    let (stop, wait) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || wait.recv());
    assert!(matches!(enter(), Err(EnterError::Threads(2))));
    assert_eq!(
        fs::read_link("/proc/self/ns/net").expect("readable"),
        before
    );
    drop(stop);
    assert!(other.join().expect("no panic").is_err());
}

pub(crate) fn what_the_lab_needs_is_found_or_named() {
    let private = crate::PRIVATE
        .lock()
        .expect("one thread")
        .take()
        .expect("entered");
    // Opened as the dataplane would, less the header, which only it knows how to ask for.
    let opens = |net: &Netns, name: &DeviceName| {
        Wire::open(&Netlink::open(net).expect("opened"), name.as_str());
        Ok(())
    };
    let entered = Ok(private);
    let checks = prereq::check(&entered, &opens);
    assert!(
        prereq::all_met(&checks),
        "this very test has them: {checks:#?}"
    );
    let names: Vec<_> = checks.iter().map(|check| check.name).collect();
    assert_eq!(
        names,
        [
            "Linux",
            "namespaces",
            "/dev/net/tun",
            "TAP",
            "veth",
            "clsact",
            "u32",
            "mirred"
        ]
    );
    let refused = |_: &Netns, _: &DeviceName| Err(std::io::ErrorKind::PermissionDenied.into());
    let checks = prereq::check(&entered, &refused);
    let missing: Vec<_> = checks.iter().filter(|check| !check.ok).collect();
    assert_eq!(missing.len(), 1);
    assert!(
        missing[0]
            .next
            .as_deref()
            .is_some_and(|next| next.contains("tun")),
        "{missing:?}"
    );
}
