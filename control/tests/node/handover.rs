//! Twenty pods on a Linux bridge go to the switch and back under load: for how long nobody hears of
//! anybody, each way, in both modes.
//!
//! In: a bridge as kubenet or the azure plugin leaves it, a connection for every two pods, and questions
//! every millisecond between pods, node and the other node. Out: the longest time without a delivery, by
//! direction, while nothing happens, while the bridge is adopted and while it is released.
//! Never: compares closely unless `TAPLINE_HANDOVER_MS` says what is allowed: a machine that is busy holds
//! everything up.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::devices::Netns;
use control::lab::privilege::PrivateNet;

use crate::adopt::Bridged as Kubenet;
use crate::adopt_azure::Bridged as Azure;
use crate::life::Load;
use crate::world::{Pod, World, until};

/// Where nothing is said: a second and a half, as on a machine that builds something beside the tests.
const ALLOWED: Duration = Duration::from_millis(1500);
/// Between two bursts of a connection.
const PACE: Duration = Duration::from_millis(2);
/// Long enough for every question on its way to be answered.
const SETTLE: Duration = Duration::from_millis(300);

/// The longest time between two deliveries since it was begun.
#[derive(Default)]
struct Gap(Mutex<Option<(Instant, Duration)>>);

impl Gap {
    fn heard(&self) {
        let mut gap = self.0.lock().expect("ours");
        if let Some((last, longest)) = &mut *gap {
            *longest = last.elapsed().max(*longest);
            *last = Instant::now();
        }
    }

    fn begin(&self) {
        *self.0.lock().expect("ours") = Some((Instant::now(), Duration::ZERO));
    }

    /// Nothing heard up to now counts as well.
    fn end(&self) -> Duration {
        let ended = self.0.lock().expect("ours").take();
        ended.map_or(Duration::MAX, |(last, longest)| last.elapsed().max(longest))
    }
}

/// A question a millisecond, whether answered or not.
struct Questions {
    who: String,
    there: Arc<Gap>,
    back: Arc<Gap>,
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Questions {
    fn start(who: &str, (from, own): (&Netns, IpAddr), (to, at): (&Netns, IpAddr)) -> Questions {
        let bind = |netns: &Netns, address| {
            let socket = netns.run(|| UdpSocket::bind(SocketAddr::new(address, 0)));
            let socket = socket.expect("an address of its own");
            let patience = Some(Duration::from_millis(20));
            socket.set_read_timeout(patience).expect("settable");
            socket
        };
        let (asker, echo) = (bind(from, own), bind(to, at));
        let target = echo.local_addr().expect("bound");
        let hears = asker.try_clone().expect("a socket");
        let [there, back] = [(); 2].map(|()| Arc::new(Gap::default()));
        let done = Arc::new(AtomicBool::new(false));
        let until_done = |mut work: Box<dyn FnMut() + Send>| {
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    work();
                }
            })
        };
        let (heard_there, heard_back) = (Arc::clone(&there), Arc::clone(&back));
        let mut buffer = [0; 64];
        let threads = vec![
            until_done(Box::new(move || {
                // While it moves the kernel may say that nobody is there.
                let _ = asker.send_to(&[7; 56], target);
                std::thread::sleep(Duration::from_millis(1));
            })),
            until_done(Box::new(move || {
                if let Ok((length, asker)) = echo.recv_from(&mut buffer) {
                    heard_there.heard();
                    let _ = echo.send_to(&buffer[..length], asker);
                }
            })),
            until_done(Box::new(move || {
                if hears.recv_from(&mut [0; 64]).is_ok() {
                    heard_back.heard();
                }
            })),
        ];
        Questions {
            who: who.to_owned(),
            there,
            back,
            done,
            threads,
        }
    }

    fn stop(self) {
        self.done.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("it goes on");
        }
    }
}

/// The gaps while `work` is done.
fn while_done(what: &str, questions: &[Questions], work: impl FnOnce()) -> Duration {
    for one in questions {
        one.there.begin();
        one.back.begin();
    }
    let started = Instant::now();
    work();
    let took = started.elapsed();
    std::thread::sleep(SETTLE);
    let mut longest = Duration::ZERO;
    let mut told = String::new();
    for one in questions {
        let (there, back) = (one.there.end(), one.back.end());
        longest = longest.max(there).max(back);
        told.push_str(&format!("; {} {there:.1?} and {back:.1?}", one.who));
    }
    println!("{what}, {took:.1?}: at most {longest:.1?} without a delivery{told}");
    longest
}

/// What is adopted, and by which words.
struct Subject<'a> {
    world: &'a World,
    pods: &'a [(Pod, IpAddr)],
    /// By which pods reach the node.
    node_is: IpAddr,
    adopt: &'a dyn Fn(),
    release: &'a dyn Fn(),
}

fn go_there_and_back(subject: &Subject<'_>) {
    let pods = subject.pods;
    assert_eq!(pods.len(), 20);
    let loads: Vec<Load> = pods
        .chunks(2)
        .map(|pair| Load::paced(&pair[0].0.netns, &pair[1].0.netns, pair[1].1, PACE))
        .collect();
    let pod = |at: usize| (&pods[at].0.netns, pods[at].1);
    let node = (&subject.world.node, subject.node_is);
    let far = (&subject.world.far, IpAddr::V4(subject.world.other));
    let questions = [
        Questions::start("pod to pod", pod(0), pod(19)),
        Questions::start("pod to node", pod(3), node),
        Questions::start("node to pod", node, pod(6)),
        Questions::start("pod to the other node", pod(9), far),
        Questions::start("the other node to pod", far, pod(12)),
    ];
    std::thread::sleep(SETTLE);
    while_done("nothing happens", &questions, || std::thread::sleep(SETTLE));
    let gaps = [
        while_done("adopted", &questions, subject.adopt),
        while_done("released", &questions, subject.release),
    ];
    for one in questions {
        one.stop();
    }
    let echoed = |load: &Load| load.echoed.load(Ordering::Relaxed);
    let before: Vec<u64> = loads.iter().map(echoed).collect();
    until("every connection goes on", || {
        let mut pairs = loads.iter().zip(&before);
        pairs.all(|(load, before)| echoed(load) > before + 16_384)
    });
    for load in loads {
        load.stop();
    }
    let allowed = std::env::var("TAPLINE_HANDOVER_MS").map_or(ALLOWED, |text| {
        Duration::from_millis(text.parse().expect("a number"))
    });
    assert!(gaps.iter().all(|gap| *gap <= allowed), "{gaps:?}");
}

pub(crate) fn no_connection_breaks_and_little_is_missed_under_kubenet(_: PrivateNet) {
    let bridged = Kubenet::with(20);
    let running = bridged.start();
    go_there_and_back(&Subject {
        world: &bridged.world,
        pods: &bridged.pods,
        node_is: "10.244.1.1".parse().expect("one"),
        adopt: &|| bridged.adopt(&["--confirm-within", "0"]),
        release: &|| {
            let (status, told) = bridged.releases();
            assert_eq!(status, Some(0), "{told}");
        },
    });
    assert_eq!(running.stop(), Some(0));
}

pub(crate) fn no_connection_breaks_and_little_is_missed_under_azure(_: PrivateNet) {
    let bridged = Azure::new();
    let running = bridged.start();
    go_there_and_back(&Subject {
        world: &bridged.world,
        pods: &bridged.pods,
        node_is: IpAddr::V4(bridged.world.plan.nodes[0].primary_ip),
        adopt: &|| drop(bridged.run("adopt", &["--confirm-within", "0"])),
        release: &|| drop(bridged.run("release", &[])),
    });
    assert_eq!(running.stop(), Some(0));
}
