//! A worker with four memory ports, which goes from one input to the next.
//!
//! In: a world, what its ports take, and frames. Out: what left by each port, or a panic.
//! Never: remembers: whoever begins finds it as new. Making a worker takes longer than most inputs do.

use std::cell::RefCell;
use std::sync::Arc;

use dataplane::buffer::FRAME_MAX;
use dataplane::clock::Tick;
use dataplane::frame::FrameView;
use dataplane::port::memory::{MemoryPort, Peer, WireFrame, pair};
use dataplane::port::{Capabilities, Port};
use dataplane::tables::fdb::Fdb;
use dataplane::tables::returns::Returns;
use dataplane::worker::Worker;

use crate::{BREATHS_MAX, PORTS, SILENCE_SECONDS, Steps, UPLINK, port, worlds};

/// Frames that a memory port holds: four bursts, and fewer than the pieces of one bad super-frame,
/// so that full queues happen.
const QUEUE_FRAMES: usize = 256;

/// Stations and conversations that are remembered: few, so that they crowd each other out.
const STATIONS: usize = 64;
const CONVERSATIONS: usize = 64;

/// A switch with four memory ports, and the other end of each.
pub(crate) struct Rig {
    world: usize,
    worker: Worker<MemoryPort>,
    pub(crate) peers: Vec<(Peer, Capabilities)>,
    now: u64,
}

thread_local! {
    /// Those that earlier inputs have left.
    static LEFT: RefCell<Vec<Rig>> = const { RefCell::new(Vec::new()) };
}

impl Rig {
    /// One that an earlier input left, as new; or a new one. `wires` has a bit for each port that takes
    /// only finished frames.
    pub(crate) fn begin(world: usize, wires: u8) -> Rig {
        let left = LEFT.with_borrow_mut(|left| {
            let at = left.iter().position(|rig| rig.world == world)?;
            Some(left.swap_remove(at))
        });
        let mut rig = left.unwrap_or_else(|| Rig::new(world));
        for (id, (_, takes)) in rig.peers.iter_mut().enumerate() {
            let wanted = [Capabilities::ALL, Capabilities::WIRE][usize::from(wires >> id & 1)];
            if *takes != wanted {
                let end = rig.worker.detach(port(id)).expect("all are attached");
                rig.worker.attach(port(id), end.with(wanted));
                *takes = wanted;
            }
        }
        let (fdb, returns) = (Fdb::new(STATIONS, 1), Returns::new(CONVERSATIONS, 1));
        rig.worker.begin_anew(Arc::new(fdb), Arc::new(returns));
        rig.now = 0;
        rig
    }

    /// Leaves it to the next input. Where a promise did not hold nobody comes here, and it is lost.
    pub(crate) fn leave(self) {
        LEFT.with_borrow_mut(|left| left.push(self));
    }

    fn new(world: usize) -> Rig {
        let fdb = Arc::new(Fdb::new(STATIONS, 1));
        let mut worker = Worker::new(worlds()[world].reader(), fdb, FRAME_MAX);
        let mut peers = Vec::new();
        for id in 0..PORTS {
            let (end, peer) = pair(QUEUE_FRAMES);
            let takes = end.capabilities();
            worker.attach(port(id), end);
            peers.push((peer, takes));
        }
        Rig {
            world,
            worker,
            peers,
            now: 0,
        }
    }

    pub(crate) fn run(&mut self, steps: Steps<'_>) {
        for step in steps {
            self.now = self.now.saturating_add(step.pause_ms);
            let (peer, _) = &self.peers[step.port];
            // A full queue loses the frame on the peer's side, which is no business of the switch.
            let _ = peer.send_with(&step.bytes, step.offload);
            if !step.held {
                self.breathe();
            }
        }
        self.breathe();
        let board = Arc::clone(self.worker.board());
        let end = self.now.saturating_add(SILENCE_SECONDS * 1000);
        while board.counts().queued > 0 && self.now < end {
            self.now = self.now.saturating_add(1000);
            self.breathe();
        }
        let queued = board.counts().queued;
        assert!(queued == 0, "{queued} frames wait for ever");
    }

    /// Breathes until nothing more comes in, then looks at the books and at what came out.
    fn breathe(&mut self) {
        self.breathe_and(|_, _| {});
    }

    /// The same, and shows each frame that left, with the port that it left by.
    pub(crate) fn breathe_and(&mut self, each: impl FnMut(usize, &WireFrame)) {
        let board = Arc::clone(self.worker.board());
        let (before, uplink_before) = (board.counts(), board.port(port(UPLINK)));
        self.worker.wake_all();
        let mut breaths = 1;
        while self.worker.breathe(Tick(self.now)).more {
            breaths += 1;
            assert!(breaths < BREATHS_MAX, "the worker never comes to rest");
        }
        let counts = board.counts();
        assert!(counts.is_balanced(), "{counts}");
        let now = counts.since(&before);
        let uplink = board.port(port(UPLINK));
        let from_uplink = uplink.received - uplink_before.received;
        let to_uplink = uplink.transmitted - uplink_before.transmitted;
        // Where nothing came from elsewhere, and no neighbour was heard whom pods waited for.
        if from_uplink == now.received && now.punted == 0 {
            let made = now.originated;
            assert!(to_uplink <= made, "{to_uplink} by the uplink, {made} made");
            assert!(counts.queued <= before.queued, "it waits to go back");
        }
        self.drain(each);
    }

    /// What left is a frame, and left to no port more than that port takes.
    fn drain(&self, mut each: impl FnMut(usize, &WireFrame)) {
        for (at, (peer, takes)) in self.peers.iter().enumerate() {
            while let Some(frame) = peer.receive() {
                let (bytes, offload) = (&frame.bytes, frame.offload);
                assert!(takes.take(offload), "port {at} got {offload:?}");
                let view = FrameView::parse(bytes).expect("only frames leave");
                let fits = offload.fits(bytes.len(), view.kind);
                assert!(fits, "port {at} got {offload:?}");
                each(at, &frame);
                peer.recycle(frame);
            }
        }
    }
}
