//! The short way: from one known station to another, as most frames go.
//!
//! In: a view, and what is the same for all frames of a burst. Out: the port to leave by, for a
//! frame that goes there as it came; or nothing, and then the whole decision is asked.
//! Never: another answer than the whole decision has: `decide` is both, one after the other, and
//! `forward/tests.rs` compares them.
//!
//! It stands by itself so that the usual frame pays for what it needs: no verdict is put together
//! and taken apart again. It has two halves. A [`Glance`] is what frame and tables say, which does
//! not change during a burst; [`Entrance::onward`] asks who was heard where, which does.

use super::World;
use crate::addr::{Mac, PortId, Station};
use crate::frame::{FrameView, Kind};
use crate::tables::fdb::{Fdb, Place};
use crate::tables::guard::Guarded;
use crate::tables::{PortRole, PortRow, Tables};

/// Where frames come in that may go the short way: what of the tables is the same for all of them.
#[derive(Clone, Copy)]
pub(crate) struct Entrance<'a> {
    /// The row of the port.
    pub(crate) port: &'a PortRow,
    guard: Option<&'a Guarded>,
}

/// What frame and tables say of a frame that goes the short way, if its target has been heard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glance {
    target: Mac,
    /// Who sent it.
    pub(crate) source: Station,
    /// Where the FDB would have the source; nowhere if the tables know it.
    pub(crate) from: Option<Place>,
    to: Target,
}

/// Where a target is.
#[derive(Clone, Copy, Debug)]
enum Target {
    Configured(PortId),
    /// Where the FDB would have it.
    Learned(Place),
}

impl<'a> Entrance<'a> {
    /// That of `ingress`; none for the uplink, for whose frames the IP address decides, and for
    /// pods that speak to no other but through the host, or not to all.
    #[inline]
    pub(crate) fn of(ingress: PortId, tables: &'a Tables) -> Option<Entrance<'a>> {
        let port = tables.port(ingress)?;
        let guard = tables.guard(ingress);
        let asks =
            port.role == PortRole::Uplink || port.isolated || super::is_kept_apart(port, tables);
        (!asks).then_some(Entrance { port, guard })
    }

    /// True if no guard of the port could object. A `stranger` is nowhere in the tables.
    #[inline(always)]
    fn is_plain(&self, view: &FrameView<'_>, stranger: bool, tables: &Tables) -> bool {
        let Some(guard) = self.guard else { return true };
        guard.is_plain(view) || (guard.is_open(view) && self.is_at_home(view, stranger, tables))
    }

    /// True for a station that is nowhere else, where any may speak.
    #[inline(always)]
    fn is_at_home(&self, view: &FrameView<'_>, stranger: bool, tables: &Tables) -> bool {
        stranger || !super::guard::is_elsewhere(view.source.mac(), self.port, tables)
    }

    /// The first half: none for a frame that goes another way, wherever its target is.
    #[inline(always)]
    pub(crate) fn glance(
        &self,
        view: &FrameView<'_>,
        tables: &Tables,
        fdb: &Fdb,
    ) -> Option<Glance> {
        let (target, source) = (view.target, view.source);
        if target.is_group() || view.kind == Kind::Arp || view.claims_discovery() {
            return None;
        }
        let stranger = tables.is_strange(source.mac());
        if !self.is_plain(view, stranger, tables) {
            return None;
        }
        let to = if tables.is_strange(target) {
            Target::Learned(fdb.place(target))
        } else if tables.is_router(target) {
            return None;
        } else {
            let configured = tables.station(target).map(Target::Configured);
            configured.unwrap_or_else(|| Target::Learned(fdb.place(target)))
        };
        let itself = self.port.mac == source;
        let known = itself || (!stranger && tables.station(source.mac()).is_some());
        let from = (!known).then(|| fdb.place(source.mac()));
        Some(Glance {
            target,
            source,
            from,
            to,
        })
    }

    /// The second half: the port where the target is, unless the frame came in there.
    #[inline(always)]
    pub(crate) fn onward(&self, glance: &Glance, fdb: &Fdb) -> Option<PortId> {
        let egress = match glance.to {
            Target::Configured(port) => port,
            Target::Learned(place) => fdb.find_at(place, glance.target)?,
        };
        (egress != self.port.id).then_some(egress)
    }

    /// The port to leave by, if the frame goes the short way.
    #[inline(always)]
    pub(crate) fn straight(&self, view: &FrameView<'_>, world: World<'_>) -> Option<PortId> {
        let glance = self.glance(view, world.tables, world.fdb)?;
        let egress = self.onward(&glance, world.fdb)?;
        let concerns = |returns: &super::Returns| returns.concerns(self.port.id, egress);
        (!world.returns.is_some_and(concerns)).then_some(egress)
    }
}
