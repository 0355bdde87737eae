//! Twenty pods on a Linux bridge go to the switch and back under load: for how long nobody hears of
//! anybody, each way, in both modes.
//!
//! In: a bridge as kubenet or the azure plugin leaves it, a connection for every two pods, and questions
//! every millisecond between pods, node and the other node. Out: the longest time without a delivery, by
//! direction, and how many frames were lost, while nothing happens, while the bridge is adopted and while
//! it is released.
//! Never: compares closely unless `TAPLINE_HANDOVER_MS` says what is allowed: a machine that is busy holds
//! everything up.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::devices::{Netlink, Netns};
use control::lab::privilege::PrivateNet;

use crate::adopt::Bridged as Kubenet;
use crate::adopt_azure::Bridged as Azure;
use crate::life::Load;
use crate::world::{Pod, World, is_steered, name, until};

/// Where nothing is said: a second and a half, as on a machine that builds something beside the tests.
const ALLOWED: Duration = Duration::from_millis(1500);
/// Between two bursts of a connection.
const PACE: Duration = Duration::from_millis(2);
/// Long enough for every question on its way to be answered.
const SETTLE: Duration = Duration::from_millis(300);

/// What one direction delivered since it was begun.
#[derive(Clone, Copy)]
struct Heard {
    last: Instant,
    longest: Duration,
    /// The first number heard, the highest, and how many.
    numbers: Option<(u64, u64, u64)>,
}

impl Heard {
    /// Numbers between the first and the highest that never came.
    fn lost(&self) -> u64 {
        let between = |(first, highest, count): (u64, u64, u64)| (highest - first + 1) - count;
        self.numbers.map_or(0, between)
    }
}

/// The longest time between two deliveries since it was begun, and how many are missing.
#[derive(Default)]
struct Gap(Mutex<Option<Heard>>);

impl Gap {
    fn heard(&self, number: u64) {
        let mut heard = self.0.lock().expect("ours");
        if let Some(heard) = &mut *heard {
            heard.longest = heard.last.elapsed().max(heard.longest);
            heard.last = Instant::now();
            let (first, highest, count) = heard.numbers.unwrap_or((number, number, 0));
            // What was asked before it was begun belongs to what was before.
            if number >= first {
                heard.numbers = Some((first, highest.max(number), count + 1));
            }
        }
    }

    fn begin(&self) {
        *self.0.lock().expect("ours") = Some(Heard {
            last: Instant::now(),
            longest: Duration::ZERO,
            numbers: None,
        });
    }

    fn count(&self) -> u64 {
        let heard = self.0.lock().expect("ours").as_ref().map(|one| one.numbers);
        heard.flatten().map_or(0, |(_, _, count)| count)
    }

    /// Nothing heard up to now counts as well.
    fn end(&self) -> Heard {
        let ended = self.0.lock().expect("ours").take();
        let mut heard = ended.expect("it was begun");
        heard.longest = heard.last.elapsed().max(heard.longest);
        heard
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
        let number_of = |frame: &[u8; 56]| {
            let number = frame.first_chunk().expect("it is longer");
            u64::from_be_bytes(*number)
        };
        let (mut number, mut asked, mut answered) = (0_u64, [7; 56], [0; 56]);
        let threads = vec![
            until_done(Box::new(move || {
                number += 1;
                asked[..8].copy_from_slice(&number.to_be_bytes());
                // While it moves the kernel may say that nobody is there.
                let _ = asker.send_to(&asked, target);
                std::thread::sleep(Duration::from_millis(1));
            })),
            until_done(Box::new(move || {
                let mut frame = [0; 56];
                if let Ok((_, asker)) = echo.recv_from(&mut frame) {
                    heard_there.heard(number_of(&frame));
                    let _ = echo.send_to(&frame, asker);
                }
            })),
            until_done(Box::new(move || {
                if hears.recv_from(&mut answered).is_ok() {
                    heard_back.heard(number_of(&answered));
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
    // More than was on its way: a gap that is still open at the end may be short.
    let counts = || {
        questions
            .iter()
            .map(|one| one.there.count().min(one.back.count()))
    };
    let so_far: Vec<u64> = counts().collect();
    until(&format!("{what}: everybody is heard"), || {
        let mut now = counts().zip(&so_far);
        now.all(|(now, so_far)| now > so_far + 20)
    });
    std::thread::sleep(SETTLE);
    let mut longest = Duration::ZERO;
    let mut lost = 0;
    let mut told = String::new();
    for one in questions {
        let (there, back) = (one.there.end(), one.back.end());
        longest = longest.max(there.longest).max(back.longest);
        // An answer is missing where its question was.
        lost += back.lost();
        told.push_str(&format!(
            "; {} {:.1?} and {:.1?}, {} and {} lost",
            one.who,
            there.longest,
            back.longest,
            there.lost(),
            back.lost()
        ));
    }
    println!(
        "{what}, {took:.1?}: at most {longest:.1?} without a delivery, {lost} not answered{told}"
    );
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

/// A TAP that nobody has open drops, and to open it takes as long as others change devices.
pub(crate) fn nothing_is_steered_to_a_port_that_is_not_open(_: PrivateNet) {
    let bridged = Kubenet::with(2);
    let running = bridged.start();
    let watched = Netlink::open(bridged.world.net().namespace()).expect("netlink");
    let adopted = &AtomicBool::new(false);
    let open = std::thread::scope(|scope| {
        let open_at_first_sight = scope.spawn(move || {
            while !is_steered(&watched) {
                assert!(!adopted.load(Ordering::Relaxed), "nothing was steered");
            }
            watched.link(&name("uplink0")).expect("it is there").running
        });
        bridged.adopt(&["--confirm-within", "0"]);
        adopted.store(true, Ordering::Relaxed);
        open_at_first_sight.join().expect("it was seen")
    });
    assert!(open, "what came in for pods was lost until it was");
    assert_eq!(running.stop(), Some(0));
}
