//! What a container runtime sees of a daemon that is killed again and again: nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use control::api::views::PortRow;
use control::lab::privilege::PrivateNet;
use serde_json::json;

use crate::runtime::{Called, call};
use crate::world::{Pod, World};

const PODS: usize = 100;
/// Calls at once.
const AT_ONCE: usize = 20;
/// Between two kills.
const LIFE: Duration = Duration::from_millis(400);

fn cni(world: &World, command: &str, pod: &Pod) -> Called {
    let conf = json!({
        "cniVersion": "1.0.0",
        "name": "kubenet",
        "type": "tapline-cni",
        "socket": world.path("tapline.sock"),
    });
    let variables = [
        ("CNI_COMMAND", command.to_owned()),
        ("CNI_CONTAINERID", pod.id.clone()),
        ("CNI_NETNS", pod.netns.path().display().to_string()),
        ("CNI_IFNAME", "eth0".to_owned()),
    ];
    call(&conf, &variables)
}

/// The address in a result, without its link.
fn address(called: Called) -> IpAddr {
    let result = called.result();
    let text = result["ips"][0]["address"].as_str().expect("an address");
    let (address, _) = text.split_once('/').expect("a prefix");
    address.parse().expect("an address")
}

pub(crate) fn a_runtime_sees_nothing_of_kills_between_its_adds_and_dels(_: PrivateNet) {
    let world = World::kubenet();
    let running = Mutex::new(Some(world.start()));
    let pods: Vec<Pod> = (0..PODS).map(|at| Pod::new(&format!("pod-{at}"))).collect();
    let (next, done, kills) = (
        AtomicUsize::new(0),
        AtomicBool::new(false),
        AtomicUsize::new(0),
    );
    let kept = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        let work = || {
            while let Some(pod) = pods.get(next.fetch_add(1, Ordering::Relaxed)) {
                let address = address(cni(&world, "ADD", pod));
                if pod.id.ends_with(['1', '3', '5', '7', '9']) {
                    cni(&world, "DEL", pod).nothing();
                } else {
                    let mut kept = kept.lock().expect("ours");
                    kept.insert((pod.id.clone(), address));
                }
            }
        };
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(LIFE);
                let mut held = running.lock().expect("ours");
                held.take().expect("it runs").kill();
                *held = Some(world.start());
                kills.fetch_add(1, Ordering::Relaxed);
            }
        });
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok), "a call failed");
    });
    let kills = kills.into_inner();
    println!("{PODS} pods, {kills} kills");
    assert!(kills >= 3, "{kills} kills");
    let held = running.into_inner().expect("ours").expect("it runs");
    let rows: Vec<PortRow> = held.client.get("/v1/ports").expect("a view");
    let found: BTreeSet<(String, IpAddr)> = rows
        .iter()
        .filter_map(|row| Some((row.container_id.clone()?, row.addresses.first()?.addr())))
        .collect();
    let kept = kept.into_inner().expect("ours");
    assert_eq!(found, kept);
    let addresses: BTreeSet<_> = kept.iter().map(|(_, address)| address).collect();
    assert_eq!(addresses.len(), PODS / 2, "no address twice");
    assert_eq!(
        world.devices().len(),
        2 * kept.len() + 2,
        "and no device too many"
    );
    for pod in &pods {
        let wanted = kept.iter().any(|(id, _)| *id == pod.id);
        assert_eq!(pod.has_eth0(), wanted, "{}", pod.id);
        cni(&world, "DEL", pod).nothing();
    }
    assert_eq!(world.devices().len(), 2);
}

pub(crate) fn two_hundred_and_fifty_containers_come_and_go_at_once(_: PrivateNet) {
    const COUNT: usize = 250;
    let world = World::kubenet();
    let running = world.start();
    let pods: Vec<Pod> = (0..COUNT).map(|n| Pod::new(&format!("pod-{n}"))).collect();
    let each = |command: &'static str| -> Vec<Called> {
        let world = &world;
        std::thread::scope(|scope| {
            let one = |pod| scope.spawn(move || cni(world, command, pod));
            let calls: Vec<_> = pods.iter().map(one).collect();
            let joined = calls.into_iter().map(|call| call.join().expect("no panic"));
            joined.collect()
        })
    };
    let addresses: BTreeSet<IpAddr> = each("ADD").into_iter().map(address).collect();
    assert_eq!(addresses.len(), COUNT, "each has its own");
    assert_eq!(world.devices().len(), 2 * COUNT + 2);
    let full = cni(&world, "ADD", &Pod::new("one-more"));
    assert_eq!(full.error().0, 51, "{full:?}");
    let status = running.status().expect("it answers");
    assert!(!status.ready && status.attachments == COUNT, "{status:?}");
    each("DEL").iter().for_each(Called::nothing);
    assert_eq!(world.devices().len(), 2);
    assert!(running.status().expect("it answers").ready);
}
