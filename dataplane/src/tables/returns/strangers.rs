//! Flows of which the way back knows nothing: a worker's own short memory of that.
//!
//! In: a frame's view, and how many entries the table has ever made. Out: true if none of them
//! can concern the frame, for the price of one line of memory.
//! Never: a flow of which something is known, or an answer that outlives a new entry.
//!
//! On a node whose pods use services, the table has entries for every pod; but most flows between
//! pods are in none of them, and to find that out takes four searches. Nothing that is removed
//! from the table can change it, only what is added: so a place holds the flow, hashed, and how
//! many entries had been made before it was looked for. It is good while no more have been.

use super::Returns;
use crate::frame::FrameView;
use crate::frame::flow::Flow;
use crate::frame::tuple::{Said, Tuple};

/// Flows that find a place. Two that share one are looked for again whenever they alternate, which
/// happens to one in nine where a thousand flows are busy at once. 128 KB, of which only the
/// places of busy flows are ever touched.
pub(crate) const PLACES: usize = 8192;

/// Bytes of a worker's memory.
pub(crate) const BYTES: usize = PLACES * size_of::<Place>();

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    flow: u64,
    /// Entries made before it was looked for, and one: nought is a place without a flow.
    made: u64,
}

/// The memory.
#[derive(Debug)]
pub(crate) struct Strangers(Box<[Place; PLACES]>);

impl Strangers {
    pub(crate) fn new() -> Strangers {
        Strangers(Box::new([Place::default(); PLACES]))
    }

    /// As new.
    pub(crate) fn begin_anew(&mut self) {
        self.0.fill(Place::default());
    }

    /// True if nothing in `returns` can concern the frame: it holds nothing at all, or nothing of
    /// this flow in either direction when it was last looked through.
    #[inline(always)]
    pub(crate) fn have(&self, view: &FrameView<'_>, returns: &Returns) -> bool {
        match returns.made() {
            0 => true,
            made => self.hold(view, returns, made),
        }
    }

    #[inline]
    fn hold(&self, view: &FrameView<'_>, returns: &Returns, made: u64) -> bool {
        Flow::of_plain(view, returns.seed).is_some_and(|flow| {
            let flow = flow.bits();
            let made = made + 1;
            self.0[place(flow)] == Place { flow, made }
        })
    }

    /// Looks for what the frame says and what it answers, and remembers the flow if nothing is
    /// known of either.
    pub(crate) fn meet(&mut self, view: &FrameView<'_>, said: &Said, returns: &Returns) {
        let Some(flow) = Flow::of_plain(view, returns.seed) else {
            return;
        };
        // First how many there are: an entry made while this looks makes it look again.
        let made = returns.made() + 1;
        let tuples = said.own.into_iter().chain([said.answers]);
        let known = |tuple: Tuple| returns.carrier(&tuple).is_some() || returns.has_spoken(&tuple);
        if !tuples.into_iter().any(known) {
            let flow = flow.bits();
            self.0[place(flow)] = Place { flow, made };
        }
    }
}

/// The place of a flow: the top bits of its hash.
#[inline(always)]
fn place(flow: u64) -> usize {
    (flow >> (64 - PLACES.trailing_zeros())) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PortId;
    use crate::clock::Tick;
    use crate::frame::tuple::Stage;
    use crate::tables::returns::Carrier;

    const A: &str = "10.0.0.1";
    const B: &str = "10.0.0.2";

    /// UDP, IPv6 where an address is.
    fn udp(from: (&str, u16), to: (&str, u16)) -> Vec<u8> {
        let step = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let address = |text: &str| text.parse::<std::net::IpAddr>().expect("an address");
        let step = match (address(from.0), address(to.0)) {
            (std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)) => {
                step.ipv4(a.octets(), b.octets(), 64)
            }
            (std::net::IpAddr::V6(a), std::net::IpAddr::V6(b)) => {
                step.ipv6(a.octets(), b.octets(), 64)
            }
            _ => panic!("one family"),
        };
        let mut bytes = Vec::new();
        step.udp(from.1, to.1)
            .write(&mut bytes, &[0; 8])
            .expect("a vector takes every write");
        bytes
    }

    fn said(bytes: &[u8]) -> Said {
        let view = FrameView::parse(bytes).expect("sound");
        Said::of(&view).expect("an IP packet")
    }

    fn own(from: (&str, u16), to: (&str, u16)) -> Tuple {
        said(&udp(from, to)).own.expect("UDP has one")
    }

    fn port() -> PortId {
        PortId::new(3).expect("in range")
    }

    /// A table of which a stranger is known to be one, and that frame.
    fn met(from: (&str, u16), to: (&str, u16)) -> (Returns, Strangers, Vec<u8>) {
        let returns = Returns::new(64, 7);
        let other = own(("10.9.9.9", 1), ("10.9.9.8", 2));
        returns.carried(&other, Carrier::Host, Stage::Datagram, port(), Tick(0));
        let mut strangers = Strangers::new();
        let frame = udp(from, to);
        let view = FrameView::parse(&frame).expect("sound");
        assert!(!strangers.have(&view, &returns), "it was never looked for");
        strangers.meet(&view, &said(&frame), &returns);
        assert!(strangers.have(&view, &returns));
        (returns, strangers, frame)
    }

    #[test]
    fn an_empty_table_knows_nobody() {
        let frame = udp((A, 1), (B, 2));
        let view = FrameView::parse(&frame).expect("sound");
        assert!(Strangers::new().have(&view, &Returns::new(64, 7)));
    }

    #[test]
    fn whoever_becomes_known_is_no_stranger_any_more() {
        let (from, to) = ((A, 1), (B, 2));
        type Entry = fn(&Returns, &Tuple);
        let carried: Entry =
            |table, tuple| table.carried(tuple, Carrier::Host, Stage::Datagram, port(), Tick(0));
        let spoken: Entry =
            |table, tuple| table.has_now_spoken(tuple, Stage::Datagram, port(), Tick(0));
        for (entry, tuple) in [
            (carried, own(from, to)),
            (carried, own(to, from)),
            (spoken, own(from, to)),
            (spoken, own(to, from)),
        ] {
            let (returns, mut strangers, frame) = met(from, to);
            entry(&returns, &tuple);
            let view = FrameView::parse(&frame).expect("sound");
            assert!(!strangers.have(&view, &returns));
            strangers.meet(&view, &said(&frame), &returns);
            assert!(!strangers.have(&view, &returns), "{tuple:?} is known");
        }
    }

    #[test]
    fn flows_that_differ_in_anything_are_met_apart() {
        let (returns, strangers, frame) = met((A, 1), (B, 2));
        let have = |bytes: &[u8]| {
            let view = FrameView::parse(bytes).expect("sound");
            strangers.have(&view, &returns)
        };
        assert!(have(&frame));
        for other in [
            udp((A, 2), (B, 2)),
            udp((A, 1), (B, 3)),
            udp((B, 1), (A, 2)),
            udp(("10.0.0.3", 1), (B, 2)),
        ] {
            assert!(!have(&other));
        }
        let with = |at: usize, value: u8| {
            let mut changed = frame.clone();
            changed[at] = value;
            changed
        };
        // TCP; with options; two fragments; too short for ports.
        for (at, value) in [(23, 6), (14, 0x46), (20, 0x20), (21, 1), (17, 23)] {
            assert!(!have(&with(at, value)), "octet {at}");
        }
    }

    #[test]
    fn ipv6_flows_are_met_too() {
        let (from, to) = (("fd00::1", 1), ("fd00::2", 2));
        let (returns, strangers, _) = met(from, to);
        for other in [
            udp(("fd00:0:0:1::1", 1), to),
            udp(from, ("fd00::3", 2)),
            udp(from, ("fd00::2", 3)),
        ] {
            let view = FrameView::parse(&other).expect("sound");
            assert!(!strangers.have(&view, &returns));
        }
    }
}
