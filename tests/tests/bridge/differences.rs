//! Where Tapline and the Linux bridge differ, and why: the one table.
//!
//! In: what came of one frame with each. Out: differences that the table does not have, and rows
//! of it that nothing showed. Never: a row that lets every difference of some frame pass: it names
//! the frames for which it speaks.

use std::collections::BTreeMap;

use dataplane::addr::Mac;
use dataplane::frame::arp::Operation;
use dataplane::frame::{FrameView, Kind, Network};

/// The longest frame that every device here takes: an MTU of 1500, and a tag.
const FRAME_LEN_MAX: usize = 1514;

/// A row of the table.
struct Difference {
    /// Which frames.
    name: &'static str,
    speaks_of: fn(&[u8], &FrameView<'_>) -> bool,
    /// Why it is meant.
    because: &'static str,
}

/// The table. The first row that speaks of a frame explains it.
const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "to its own source",
        speaks_of: |_, view| view.target == view.source.mac(),
        because: "the kernel learns before it looks, and finds the sender; here a frame teaches after \
                  it was let in, so this one is for nobody known",
    },
    Difference {
        name: "ARP that is none",
        speaks_of: |_, view| view.kind == Kind::Arp && !is_sound_arp(view),
        because: "it dies as `malformed_arp`: no cache should hear of it; the kernel's bridge does not \
                  look",
    },
    Difference {
        name: "ARP reply",
        speaks_of: |_, view| arp(view) == Some(Operation::Reply),
        because: "it goes to the pod whose address it has inside, and to nobody who is none; the \
                  kernel goes by the frame's own address",
    },
    Difference {
        name: "ARP request to one station",
        speaks_of: |_, view| arp(view) == Some(Operation::Request) && !view.target.is_group(),
        because: "a question is answered, or put to all, whoever it was sent to; the kernel hands it \
                  to that one station",
    },
    Difference {
        name: "ARP request to a group",
        speaks_of: |_, view| arp(view) == Some(Operation::Request) && is_reserved(view.target),
        because: "a question is put to all, also where its frame's address is no broadcast",
    },
    Difference {
        name: "neighbour discovery that is none",
        speaks_of: |_, view| view.claims_discovery() && view.discovery(false).is_err(),
        because: "it dies as `malformed_nd` (RFC 4861 7.1); the kernel's bridge does not look",
    },
    Difference {
        name: "spanning tree",
        speaks_of: |_, view| view.target == Mac::new([1, 0x80, 0xc2, 0, 0, 0]),
        because: "no bridge may forward it (IEEE 802.1D table 7-10); the kernel does while its own \
                  spanning tree is off, so that others find their loops",
    },
    Difference {
        name: "a tag cut short",
        speaks_of: |frame, _| is_cut_in_a_tag(frame),
        because: "a bridge carries what it does not route; the kernel takes tags off on the way, and \
                  drops what ends in one",
    },
    Difference {
        name: "IP that is none, to a group",
        speaks_of: |frame, view| {
            let bad = |network: Network| match network {
                Network::Malformed(_) => true,
                // The kernel's snooping takes a packet without a payload for none.
                Network::Ipv6(ip) => ip.payload_len == 0,
                _ => false,
            };
            view.target.is_group() && is_snooped(frame, bad)
        },
        because: "a bridge carries what it does not route; the kernel's multicast snooping drops it",
    },
    Difference {
        name: "membership reports and queries",
        speaks_of: |frame, view| view.target.is_group() && is_snooped(frame, is_membership),
        because: "groups go to all here; the kernel snoops on IGMP and MLD, and drops what is not \
                  whole",
    },
];

fn arp(view: &FrameView<'_>) -> Option<Operation> {
    match view.network() {
        Network::Arp(packet) => Some(packet.operation),
        _ => None,
    }
}

fn is_sound_arp(view: &FrameView<'_>) -> bool {
    matches!(view.network(), Network::Arp(packet) if packet.is_sound())
}

fn is_reserved(mac: Mac) -> bool {
    mac.octets()[..5] == [1, 0x80, 0xc2, 0, 0] && mac.octets()[5] < 16
}

/// True if the packet is one of `those`. The kernel looks behind one tag, which it has taken off.
fn is_snooped(frame: &[u8], those: fn(Network) -> bool) -> bool {
    let mut frame = frame.to_vec();
    if FrameView::parse(&frame).is_ok_and(|view| view.kind == Kind::Tagged) && frame.len() >= 18 {
        frame.drain(12..16);
    }
    FrameView::parse(&frame).is_ok_and(|view| those(view.network()))
}

/// True if the frame ends in a tag, or in what must be behind one.
fn is_cut_in_a_tag(frame: &[u8]) -> bool {
    let tag_at = |at: usize| matches!(frame.get(at..at + 2), Some([0x81, 0] | [0x88, 0xa8]));
    let tags = (12..).step_by(4).take_while(|at| tag_at(*at));
    // The tag, the type behind it, and two bytes of whatever that is.
    tags.last().is_some_and(|at| frame.len() < at + 8)
}

fn is_membership(network: Network) -> bool {
    match network {
        Network::Ipv4(ip) => ip.protocol == 2,
        Network::Ipv6(ip) => ip.next_header == 0 || ip.protocol == 58,
        _ => false,
    }
}

/// A frame that a packet socket can send, and a device here can carry.
pub(crate) fn is_tried(frame: &[u8]) -> bool {
    (14..=FRAME_LEN_MAX).contains(&frame.len())
}

type Outcome = BTreeMap<usize, Vec<Vec<u8>>>;

/// What is found as frames are tried.
#[derive(Default)]
pub(crate) struct Findings {
    unexplained: Vec<String>,
    explained: BTreeMap<&'static str, u64>,
    delivered: u64,
}

impl Findings {
    /// Compares what came of one frame.
    pub(crate) fn compare(&mut self, frame: &[u8], kernel: &Outcome, tapline: &Outcome) {
        self.delivered += tapline
            .values()
            .map(|frames| frames.len() as u64)
            .sum::<u64>();
        if kernel == tapline {
            return;
        }
        let view = FrameView::parse(frame).ok();
        let row =
            view.and_then(|view| DIFFERENCES.iter().find(|row| (row.speaks_of)(frame, &view)));
        match row {
            Some(row) => *self.explained.entry(row.name).or_default() += 1,
            None => self.unexplained.push(format!(
                "{:02x?}\n  kernel: {:?}\n  Tapline: {:?}",
                &frame[..frame.len().min(80)],
                counts(kernel),
                counts(tapline)
            )),
        }
    }

    /// Every difference is in the table, and every row of it was seen.
    pub(crate) fn conclude(self, frames: u64) {
        let many = self.unexplained.len();
        let some = &self.unexplained[..many.min(8)];
        assert!(
            many == 0,
            "{many} differences without a reason:\n{}",
            some.join("\n")
        );
        for row in DIFFERENCES {
            assert!(
                self.explained.contains_key(row.name),
                "never seen: {}",
                row.name
            );
            assert!(row.because.len() > 40, "a reason for {}", row.name);
        }
        assert!(self.delivered > frames, "{} deliveries", self.delivered);
        println!(
            "{frames} frames, {} deliveries by Tapline; explained: {:?}",
            self.delivered, self.explained
        );
    }
}

/// At each port, the lengths of what came.
fn counts(outcome: &Outcome) -> BTreeMap<usize, Vec<usize>> {
    let lens = |frames: &Vec<Vec<u8>>| frames.iter().map(Vec::len).collect();
    outcome
        .iter()
        .map(|(port, frames)| (*port, lens(frames)))
        .collect()
}
