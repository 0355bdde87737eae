//! A burst on the short way: each room takes all its frames before the next one does.
//!
//! In: frames of one port, as received. Out: those that go from one known station to another at
//! their ports, runs of them at a time, and all others to the whole way, in their order.
//! Never: another outcome than the whole way has, or a frame that overtakes another.
//!
//! A processor that looks at one frame after the other keeps little at hand and waits for each
//! table in turn. So the burst is gone over three times. What frames and tables say is noted first, in
//! [`Ahead`], with where the FDB would have their stations. Then ports are found, in order and as far as
//! the short way goes: what one frame teaches, the next one finds. Then that run is sent.

use std::ops::Range;
use std::vec::Drain;

use super::Worker;
use super::returns;
use crate::addr::PortId;
use crate::buffer::{Frame, Pool};
use crate::capture::Fate;
use crate::clock::Tick;
use crate::forward::{Entrance, Glance};
use crate::frame::{FrameView, Kind};
use crate::port::{BURST_FRAMES, Port, Taken};
use crate::tables::Tables;
use crate::tables::fdb::{Fdb, Heard};
use crate::tables::returns::Returns;
use crate::tables::returns::strangers::Strangers;
use crate::verdict::{DropReason, Rewrite};

/// Bytes of what a worker knows ahead.
pub(super) const AHEAD_BYTES: usize =
    BURST_FRAMES * (size_of::<Option<Glance>>() + size_of::<PortId>());

/// What stands where no port was found yet.
const NOWHERE: PortId = PortId::new(0).expect("below the most that there are");

/// What is known of the frames of a burst before they go on.
#[derive(Debug)]
pub(super) struct Ahead {
    /// Nothing for a frame that does not go the short way.
    glances: Box<[Option<Glance>; BURST_FRAMES]>,
    /// Where they go, as far as that was asked.
    egresses: Box<[PortId; BURST_FRAMES]>,
}

impl Ahead {
    pub(super) fn new() -> Ahead {
        Ahead {
            glances: Box::new([None; BURST_FRAMES]),
            egresses: Box::new([NOWHERE; BURST_FRAMES]),
        }
    }

    /// Notes what frames and tables say.
    #[inline(never)]
    fn look(
        &mut self,
        frames: &[Frame],
        pool: &Pool,
        entrance: Entrance<'_>,
        (tables, fdb): (&Tables, &Fdb),
    ) {
        for (frame, glance) in frames.iter().zip(&mut *self.glances) {
            *glance = None;
            let bytes = pool.bytes(frame);
            if let Some(view) = FrameView::of_ipv4(bytes) {
                if frame.offload.fits(frame.len(), Kind::Ipv4)
                    && let Some(seen) = entrance.glance(&view, tables, fdb)
                {
                    *glance = Some(seen);
                }
            } else {
                *glance = glance_at_another(frame, bytes, entrance, (tables, fdb));
            }
        }
    }
}

/// As [`Entrance::glance`], at a frame that is not IPv4: it stands by itself, so that the others pay
/// for no question that is not theirs.
#[inline(never)]
fn glance_at_another(
    frame: &Frame,
    bytes: &[u8],
    entrance: Entrance<'_>,
    (tables, fdb): (&Tables, &Fdb),
) -> Option<Glance> {
    let view = FrameView::parse(bytes).ok()?;
    let fits = frame.offload.fits(frame.len(), view.kind);
    fits.then(|| entrance.glance(&view, tables, fdb))?
}

/// What of a worker is asked on the short way.
struct Asked<'a> {
    entrance: Entrance<'a>,
    tables: &'a Tables,
    fdb: &'a Fdb,
    returns: &'a Returns,
    strangers: &'a mut Strangers,
    pool: &'a Pool,
    now: Tick,
}

impl Asked<'_> {
    /// The port by which a frame leaves on the short way. Its source is where it was, which is noted.
    #[inline(always)]
    fn egress(&mut self, frame: &Frame, glance: &Glance) -> Option<PortId> {
        let ingress = self.entrance.port.id;
        let egress = self.entrance.onward(glance, self.fdb)?;
        if self.returns.made() > 0 && self.concerns(frame, ingress, egress) {
            return None;
        }
        if let Some(place) = glance.from
            && self.fdb.renew_at(place, glance.source, ingress, self.now) != Heard::Here
        {
            return None;
        }
        let host = self.tables.host_id();
        if Some(ingress) == host || Some(egress) == host {
            self.remember(frame, ingress, egress);
        }
        Some(egress)
    }

    /// True if what is known of conversations may concern the frame.
    #[inline(never)]
    fn concerns(&self, frame: &Frame, ingress: PortId, egress: PortId) -> bool {
        let view = FrameView::parse(self.pool.bytes(frame));
        let stranger = view.is_ok_and(|view| self.strangers.have(&view, self.returns));
        !stranger && self.returns.concerns(ingress, egress)
    }

    /// What passes the host is remembered.
    #[inline(never)]
    fn remember(&mut self, frame: &Frame, ingress: PortId, egress: PortId) {
        let Ok(view) = FrameView::parse(self.pool.bytes(frame)) else {
            return;
        };
        let known = (self.returns, &mut *self.strangers);
        returns::remember_between(&view, (ingress, egress), self.tables, known, self.now);
    }
}

/// What became of the first of some frames, that were for one port.
#[derive(Default)]
struct Sent {
    /// So many went out at once,
    frames: usize,
    /// with so many bytes,
    bytes: usize,
    /// and so the next one was taken, if it was offered.
    next: Option<Result<Taken, DropReason>>,
}

impl Sent {
    /// Offers `frames` to `port`, up to the first that it does not take as it is or does not send at once.
    #[inline(always)]
    fn at_once<P: Port>(port: &mut P, frames: &[Frame], pool: &mut Pool) -> Sent {
        let mut sent = Sent::default();
        for frame in frames {
            if !port.capabilities().take(frame.offload) {
                break;
            }
            match port.transmit(frame, pool) {
                Ok(Taken::Now) => {
                    sent.frames += 1;
                    sent.bytes += frame.len();
                }
                taken => {
                    sent.next = Some(taken);
                    break;
                }
            }
        }
        sent
    }
}

impl<P: Port> Worker<P> {
    /// Takes frames of a burst through the other rooms, oldest first.
    pub(super) fn pass_all(
        &mut self,
        mut frames: Drain<'_, Frame>,
        ingress: PortId,
        tables: &Tables,
        now: Tick,
    ) {
        let entrance = Entrance::of(ingress, tables);
        if let Some(entrance) = entrance {
            let known = (tables, &*self.fdb);
            self.ahead
                .look(frames.as_slice(), &self.pool, entrance, known);
        }
        let mut at = 0;
        loop {
            if let Some(entrance) = entrance {
                let end = at + self.find_ports(frames.as_slice(), at, entrance, tables, now);
                while at < end {
                    at += self.pass_on(&mut frames, at..end, ingress);
                }
            }
            let Some(frame) = frames.next() else { break };
            at += 1;
            self.walk::<true>(frame, ingress, tables, now);
        }
        self.flush();
    }

    /// Finds the ports of `frames`, of which the first is the one `at` that place in its burst, as far as
    /// they go the short way. How many do.
    #[inline(never)]
    fn find_ports(
        &mut self,
        frames: &[Frame],
        at: usize,
        entrance: Entrance<'_>,
        tables: &Tables,
        now: Tick,
    ) -> usize {
        let mut asked = Asked {
            entrance,
            tables,
            fdb: &self.fdb,
            returns: &self.returns,
            strangers: &mut self.strangers,
            pool: &self.pool,
            now,
        };
        let Ahead { glances, egresses } = &mut self.ahead;
        let ahead = glances[at..].iter().zip(&mut egresses[at..]);
        let mut found = 0;
        for (frame, (glance, egress)) in frames.iter().zip(ahead) {
            let port = glance
                .as_ref()
                .and_then(|glance| asked.egress(frame, glance));
            let Some(port) = port else { break };
            *egress = port;
            found += 1;
        }
        found
    }

    /// The last room: those first frames of a run that go to one port. How many they are.
    #[inline(never)]
    fn pass_on(
        &mut self,
        frames: &mut Drain<'_, Frame>,
        run: Range<usize>,
        ingress: PortId,
    ) -> usize {
        let egresses = &self.ahead.egresses[run];
        let egress = egresses[0];
        let same = egresses.iter().take_while(|other| **other == egress);
        let same = same.count();
        let fate = Fate::Forwarded {
            egress,
            rewrite: Rewrite::KEEP,
        };
        let mut left = same;
        while left > 0 {
            let sent = match self.ports.get_mut(egress.index()) {
                Some(Some(port)) if self.captures.is_empty() => {
                    Sent::at_once(port, &frames.as_slice()[..left], &mut self.pool)
                }
                _ => Sent::default(),
            };
            self.board
                .transmitted(egress, sent.frames as u64, sent.bytes);
            for frame in frames.by_ref().take(sent.frames) {
                self.pool.release(frame);
            }
            left -= sent.frames;
            if left > 0
                && let Some(mut frame) = frames.next()
            {
                left -= 1;
                let taken = if let Some(taken) = sent.next {
                    self.note_taken(&frame, egress, taken)
                } else {
                    self.show(&frame, Some(ingress), fate);
                    self.transmit(&mut frame, egress)
                };
                self.settle(frame, taken);
            }
        }
        same
    }
}
