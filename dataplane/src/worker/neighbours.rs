//! Neighbours, from the worker's side: frames that wait for a next hop, questions, and answers; who
//! claims another's address, and what changes when an address has a new holder.
//!
//! In: frames without a hardware address to go to, replies of neighbours, and the time.
//! Out: questions in the node's own name; frames that waited and may go on, or died waiting.
//! Never: in the way of a frame whose next hop is known.

use std::net::IpAddr;

use super::Worker;
use super::refuse::speaker;
use crate::addr::{Mac, PortId};
use crate::buffer::Frame;
use crate::clock::Tick;
use crate::conflict::{Conflict, Party};
use crate::port::Port;
use crate::slow;
use crate::slow::nd::Holder;
use crate::tables::guard::Guarded;
use crate::tables::neighbour::state::Told;
use crate::tables::neighbour::{Question, Waited, Waiting};
use crate::tables::{Owner, Tables};
use crate::verdict::DropReason;

/// Announcements in one breath: a burst, at most. Each is one frame to one port, and the pool has
/// buffers for as many as a port may take for later.
const ANNOUNCEMENTS_MAX: usize = 32;

impl<P: Port> Worker<P> {
    /// Holds a frame until its next hop has answered.
    pub(super) fn wait(
        &mut self,
        next_hop: IpAddr,
        egress: PortId,
        frame: Waiting,
        tables: &Tables,
        now: Tick,
    ) {
        match self.neighbours.wait(next_hop, egress, frame, now) {
            Waited::Go(Waiting { frame, ingress }) => self.pass_again(frame, ingress, tables, now),
            Waited::Held(None) => {}
            Waited::Held(Some(question)) => self.ask(&question, tables),
            Waited::Displaced(Waiting { frame, ingress })
            | Waited::Refused(Waiting { frame, ingress }) => {
                self.drop(frame, ingress, DropReason::NeighbourQueueFull);
            }
        }
    }

    /// A neighbour told its address: what waited for it goes through `decide` once more.
    pub(super) fn hear(&mut self, address: IpAddr, told: Told, tables: &Tables, now: Tick) {
        for Waiting { frame, ingress } in self.neighbours.hear(address, told, now) {
            self.pass_again(frame, ingress, tables, now);
        }
    }

    /// Asks what is due, and lets go what waited in vain.
    pub(super) fn ask_neighbours(&mut self, tables: &Tables, now: Tick) {
        if self.neighbours.is_empty() {
            return;
        }
        let mut questions = std::mem::take(&mut self.questions);
        let mut failed = std::mem::take(&mut self.failed);
        self.neighbours.tick(now, &mut questions, &mut failed);
        for question in questions.drain(..) {
            self.ask(&question, tables);
        }
        for Waiting { frame, ingress } in failed.drain(..) {
            self.refuse(frame, DropReason::NeighbourFailed, ingress, tables, now);
        }
        (self.questions, self.failed) = (questions, failed);
    }

    /// Asks for a neighbour's hardware address in the node's own name.
    fn ask(&mut self, question: &Question, tables: &Tables) {
        let Some(asker) = speaker(question.egress, tables) else {
            return;
        };
        let Some(frame) = self.pool.take() else {
            return;
        };
        let room = self.pool.room(&frame);
        let written = match question.address {
            IpAddr::V4(target) => slow::arp::question(room, question, target, asker),
            IpAddr::V6(target) => slow::nd::question(room, question, target, asker),
        };
        self.originate_written(frame, written, question.egress);
    }

    fn originate_written(&mut self, mut frame: Frame, written: Option<usize>, egress: PortId) {
        match written {
            Some(len) => {
                frame.set_len(len);
                self.originate(frame, egress);
            }
            None => self.pool.release(frame),
        }
    }

    /// Tells a claimer that the address is taken, and reports it and the holder.
    pub(super) fn defend(
        &mut self,
        address: IpAddr,
        holder: Owner,
        claimer: Party,
        tables: &Tables,
        now: Tick,
    ) {
        self.reporter.report(Conflict {
            address,
            holder: Party {
                port: holder.port,
                mac: holder.mac,
            },
            claimer,
            at: now,
        });
        // What leaves by the uplink is the NIC's.
        let uplink = tables.uplink().filter(|uplink| uplink.id == claimer.port);
        let mac = uplink.map_or(holder.mac, |uplink| uplink.mac.mac());
        if let Some(frame) = self.pool.take() {
            let only = Some(claimer.mac);
            let written = announcement(self.pool.room(&frame), only, address, mac, tables);
            self.originate_written(frame, written, claimer.port);
        }
    }

    /// New tables are in force: forgets what they make untrue, and notes what is to be announced.
    #[cold]
    pub(super) fn change(&mut self, old: &Tables, new: &Tables, now: Tick) {
        for row in old
            .ports()
            .filter(|row| new.port(row.id).is_none_or(|n| n.mac != row.mac))
        {
            self.fdb.forget_port(row.id);
        }
        for row in new.ports() {
            // Whoever the tables know is not learned, and takes no place of a quota.
            let guard = new.guard(row.id).map(Guarded::guard);
            let more = guard.map_or(&[][..], |guard| &guard.more_stations);
            for station in more.iter().chain([&row.mac]) {
                if old.station(station.mac()) != Some(row.id) {
                    self.fdb.forget(*station);
                }
            }
        }
        let moved = (old.uplink(), old.crossing()) != (new.uplink(), new.crossing());
        let mut stranded = std::mem::take(&mut self.failed);
        let gone = |address| moved || new.owner(address).is_some();
        self.neighbours.forget(gone, &mut stranded);
        for Waiting { frame, ingress } in stranded.drain(..) {
            self.pass_again(frame, ingress, new, now);
        }
        self.failed = stranded;
        if self.gossip.speaks_for_all() {
            let fresh = new
                .owners()
                .filter(|(address, owner)| old.owner(*address) != Some(*owner));
            let mut fresh: Vec<IpAddr> = fresh.map(|(address, _)| address).collect();
            // The map has another order in each run, and a run that goes wrong must go so again.
            fresh.sort_unstable();
            self.announcements.extend(fresh);
        }
        self.flush();
    }

    /// Announces new holders of addresses to the other pods and the host, so that no cache there
    /// keeps an older one: gratuitous ARP, and advertisements that nobody asked for.
    #[cold]
    pub(super) fn announce(&mut self, tables: &Tables) {
        let ports = tables.floods();
        for _ in 0..ANNOUNCEMENTS_MAX {
            let Some(address) = self.announcements.front().copied() else {
                break;
            };
            // It may have gone since, or have been announced to all.
            let next = (self.announced, tables.owner(address));
            let (Some(egress), Some(owner)) = (ports.get(next.0), next.1) else {
                self.announcements.pop_front();
                self.announced = 0;
                continue;
            };
            self.announced += 1;
            let heard = *egress != owner.port;
            let Some(frame) = heard.then(|| self.pool.take()).flatten() else {
                continue;
            };
            let room = self.pool.room(&frame);
            let written = announcement(room, None, address, owner.mac, tables);
            self.originate_written(frame, written, *egress);
        }
        self.flush();
    }
}

/// Writes the announcement that `mac` holds `address`, in the words of its family.
fn announcement(
    room: &mut [u8],
    only: Option<Mac>,
    address: IpAddr,
    mac: Mac,
    tables: &Tables,
) -> Option<usize> {
    match address {
        IpAddr::V4(address) => Some(slow::arp::announcement(room, only, address, mac)),
        IpAddr::V6(address) => {
            let router = tables.is_router(mac);
            let holder = Holder {
                address,
                mac,
                router,
            };
            slow::nd::announcement(room, only, holder)
        }
    }
}
