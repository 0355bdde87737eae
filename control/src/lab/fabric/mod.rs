//! The simulated Azure fabric: a VNet that the lab's nodes hang on by their `eth0`.
//!
//! In: a [`VnetSpec`], then a NIC for each node's namespace, and route tables as they change.
//! Out: frames, as Azure would carry them, and a named reason for each that it would not.
//! Never: decrements a TTL, floods, or queues: a frame is written to its target or dropped.
//!
//! Each NIC has a task, which reads a burst from its TAP, decides frame by frame with the pure
//! [`rules`], and writes to the target's TAP at once. A write into a TAP is the kernel's receive
//! path, so there is no queue of ours that could grow. What the rules read is one immutable
//! [`Vnet`], replaced whole when something changes; a burst sees one state from end to end. The
//! devices are another matter: every task writes to any of them while NICs come and go, so they
//! are in a shared map.

pub mod reasons;
pub mod rules;
pub mod spec;
pub mod tally;
mod tap;
pub mod vnet;

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dashmap::DashMap;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_tun::Tun;

pub use reasons::FabricDrop;
pub use spec::{Misfit, NextHop, NicSpec, SubnetSpec, UserRoute, VnetSpec};
pub use tally::{DropExample, FabricCounters, FabricDrops};
pub use tap::DEVICE;
pub use vnet::{NicId, VIRTUAL_MAC, Vnet};

use crate::devices::netns::Netns;
use rules::{ETHERNET_LEN, Verdict};
use tally::{Books, Burst};

/// Frames that a task handles before it lets the others run: the reading side of a TAP holds 500
/// to 1000, so a task comes back several times before its NIC overflows.
const BURST_MAX: u64 = 64;
/// Room behind the longest frame, so that one that is too long is seen to be (a read cuts it off).
const SLACK: usize = 64;
/// Tasks hold nothing that blocks, so they end at once; this is for a machine under load.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// A running fabric. Dropping it stops it; the nodes' `eth0` go with it.
///
/// Each open TAP keeps its node's namespace alive, so stop the fabric (or remove the NIC) before
/// expecting a namespace to vanish. Start, stop and drop it outside of async code.
pub struct Fabric {
    shared: Arc<Shared>,
    tasks: DashMap<NicId, JoinHandle<()>>,
    /// None only while it is being dropped.
    runtime: Option<Runtime>,
}

struct Shared {
    vnet: RwLock<Arc<Vnet>>,
    devices: DashMap<NicId, Arc<Tun>>,
    books: Books,
}

impl Fabric {
    /// Starts a fabric without NICs, on a thread of its own.
    ///
    /// # Errors
    /// A [`Misfit`] as `InvalidInput`, or what starting a thread says.
    pub fn start(spec: VnetSpec) -> io::Result<Fabric> {
        let vnet = RwLock::new(Arc::new(Vnet::new(spec)?));
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("fabric")
            .enable_io()
            .build()?;
        let shared = Arc::new(Shared {
            vnet,
            devices: DashMap::new(),
            books: Books::new(),
        });
        Ok(Fabric {
            shared,
            tasks: DashMap::new(),
            runtime: Some(runtime),
        })
    }

    /// Gives the namespace an `eth0` on this fabric: up, with the NIC's MAC and MTU, without
    /// addresses. Setting those, and the routes, is the caller's.
    ///
    /// # Errors
    /// A [`Misfit`] as `InvalidInput`, or what making the TAP says; then nothing is left behind.
    pub fn add_nic(&self, ns: &Netns, spec: NicSpec) -> io::Result<NicId> {
        let runtime = self
            .runtime
            .as_ref()
            .expect("a fabric has a runtime until it is dropped");
        let id = self.shared.change(|vnet| vnet.attach(spec.clone()))?;
        let tun = tap::open(ns, runtime.handle(), &spec).inspect_err(|_| self.remove_nic(id))?;
        let tun = Arc::new(tun);
        self.shared.devices.insert(id, tun.clone());
        let task = serve(self.shared.clone(), id, tun, usize::from(spec.mtu));
        self.tasks.insert(id, runtime.spawn(task));
        Ok(id)
    }

    /// Takes a NIC off the fabric, and its `eth0` out of the namespace soon after. A NIC that is
    /// gone already is no error.
    pub fn remove_nic(&self, id: NicId) {
        let _gone = self.shared.change(|vnet| {
            vnet.detach(id);
            Ok::<(), Misfit>(())
        });
        self.shared.devices.remove(&id);
        if let Some((_, task)) = self.tasks.remove(&id) {
            task.abort();
        }
    }

    /// Attaches a route table to a subnet, or with None detaches it. The next burst obeys.
    ///
    /// # Errors
    /// No such subnet, as `InvalidInput`.
    pub fn set_route_table(&self, subnet: &str, table: Option<&[UserRoute]>) -> io::Result<()> {
        Ok(self
            .shared
            .change(|vnet| vnet.set_route_table(subnet, table))?)
    }

    /// What the rules go by at this moment.
    #[must_use]
    pub fn vnet(&self) -> Arc<Vnet> {
        self.shared.vnet()
    }

    /// What it did so far; balances at any moment.
    #[must_use]
    pub fn counters(&self) -> FabricCounters {
        self.shared.books.counters()
    }

    /// What it dropped so far, by reason, in the order of the table of reasons.
    #[must_use]
    pub fn drops(&self) -> Vec<FabricDrops> {
        self.shared.books.drops()
    }

    /// Stops it: when this returns, the devices are gone. Gives the last counters.
    pub fn stop(mut self) -> FabricCounters {
        self.shut_down();
        self.counters()
    }

    fn shut_down(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(STOP_WITHIN);
        }
        self.shared.devices.clear();
    }
}

impl fmt::Debug for Fabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Fabric {{ nics: {}, {:?} }}",
            self.tasks.len(),
            self.counters()
        )
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl Shared {
    fn vnet(&self) -> Arc<Vnet> {
        self.vnet
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces the state by a changed copy, or leaves it as it was if the change is refused.
    fn change<T, E>(&self, change: impl FnOnce(&mut Vnet) -> Result<T, E>) -> Result<T, E> {
        let mut current = self.vnet.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Vnet::clone(&current);
        let answer = change(&mut next)?;
        *current = Arc::new(next);
        Ok(answer)
    }

    /// Decides about one frame, does what the verdict says, and notes it down.
    fn carry(&self, vnet: &Vnet, from: NicId, frame: &mut [u8], burst: &mut Burst) {
        burst.received += 1;
        let written = match rules::decide(vnet, from, frame) {
            Verdict::Deliver { to, target } => {
                rules::rewrite(frame, target);
                self.write(to, frame).map(|()| &mut burst.delivered)
            }
            Verdict::Answer(answer) => self.write(from, &answer).map(|()| &mut burst.answered),
            Verdict::Drop(reason) => Err(reason),
        };
        match written {
            Ok(count) => *count += 1,
            Err(reason) => {
                // The example holds layer 3 addresses, which a rewrite has left alone.
                burst
                    .dropped
                    .push((reason, DropExample::of(vnet, from, frame, reason)));
            }
        }
    }

    /// Writes to a NIC's TAP. Full, down or gone is all the same to the frame: it dies here.
    fn write(&self, to: NicId, frame: &[u8]) -> Result<(), FabricDrop> {
        let device = self.devices.get(&to).map(|entry| entry.value().clone());
        let written = device.map(|tun| tun.try_send(frame));
        match written {
            Some(Ok(bytes)) if bytes == frame.len() => Ok(()),
            _ => Err(FabricDrop::TargetRefused),
        }
    }
}

/// Reads one NIC for as long as its device lives.
async fn serve(shared: Arc<Shared>, id: NicId, tun: Arc<Tun>, mtu: usize) {
    let mut buffer = vec![0; ETHERNET_LEN + mtu + SLACK];
    let mut burst = Burst::default();
    // An error here means that the device is gone: there is nothing to wait for.
    while let Ok(length) = tun.recv(&mut buffer).await {
        let vnet = shared.vnet();
        let mut read = Ok(length);
        while let Ok(length) = read {
            shared.carry(&vnet, id, &mut buffer[..length], &mut burst);
            if burst.received == BURST_MAX {
                break;
            }
            read = tun.try_recv(&mut buffer);
        }
        shared.books.enter(&mut burst);
        tokio::task::yield_now().await;
    }
}
