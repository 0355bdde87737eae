//! The short way: from one known station to another, as most frames go.
//!
//! In: a view, and what is the same for all frames of a burst. Out: the port to leave by, for a
//! frame that goes there as it came; or nothing, and then the whole decision is asked.
//! Never: another answer than the whole decision has: `decide` is both, one after the other, and
//! `forward/tests.rs` compares them.
//!
//! It stands by itself so that the usual frame pays for what it needs: no verdict is put together
//! and taken apart again, and all that it looks at stays in registers.

use super::World;
use crate::addr::PortId;
use crate::frame::{FrameView, Kind};
use crate::tables::guard::Guarded;
use crate::tables::{PortRole, PortRow, Tables};

/// Where frames come in that may go the short way: what of the tables is the same for all of them.
#[derive(Clone, Copy)]
pub(crate) struct Entrance<'a> {
    /// The row of the port.
    pub(crate) port: &'a PortRow,
    guard: Option<&'a Guarded>,
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

    /// True if no guard of the port could object.
    #[inline(always)]
    fn is_plain(&self, view: &FrameView<'_>, tables: &Tables) -> bool {
        let plain = |guard: &Guarded| guard.is_plain(view) || self.is_at_home(guard, view, tables);
        self.guard.is_none_or(plain)
    }

    /// True for a station that is nowhere else, where any may speak.
    #[inline(never)]
    fn is_at_home(&self, guard: &Guarded, view: &FrameView<'_>, tables: &Tables) -> bool {
        guard.is_open(view) && !super::guard::is_elsewhere(view.source.mac(), self.port, tables)
    }

    /// The port to leave by, if the frame goes the short way.
    #[inline(always)]
    pub(crate) fn straight(&self, view: &FrameView<'_>, world: World<'_>) -> Option<PortId> {
        let (ingress, tables) = (self.port.id, world.tables);
        let group = view.target.is_group();
        if group || view.kind == Kind::Arp || tables.is_router(view.target) {
            return None;
        }
        if view.claims_discovery() || !self.is_plain(view, tables) {
            return None;
        }
        let station = tables.station(view.target);
        let egress = station.or_else(|| world.fdb.find(view.target))?;
        let concerns = |returns: &super::Returns| returns.concerns(ingress, egress);
        let asks = egress == ingress || world.returns.is_some_and(concerns);
        (!asks).then_some(egress)
    }
}
