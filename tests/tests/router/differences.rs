//! Where Tapline and the kernel differ as routers, and why: the one table.
//!
//! In: what came of one frame with each. Out: differences that the table does not have, and rows
//! of it that nothing showed.
//! Never: lets a difference pass because of another: a row names its cases and its field.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use dataplane::frame::transport::Transport;
use dataplane::frame::{FrameView, Kind, Network};

use crate::topology::{FAR, NEAR};
use crate::wire::Outcome;

/// A thing in which outcomes may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// Only one of them delivers, or they deliver other bytes.
    Delivery,
    /// Only one of them tells the sender.
    Telling,
    /// A field of the error by that name.
    Field(&'static str),
}

/// For which cases a row speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Of {
    /// Each.
    Every,
    /// Those by these names.
    These(&'static [&'static str]),
    /// Random frames: a name for them, and which they are.
    Frames(&'static str, fn(&FrameView<'_>) -> bool),
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Difference {
    pub(crate) what: What,
    pub(crate) of: Of,
    /// Why it is meant.
    pub(crate) because: &'static str,
}

/// The table.
pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        what: What::Field("identification"),
        of: Of::Every,
        because: "each sender counts as it likes (RFC 6864 4.1); the kernel draws numbers, we count",
    },
    Difference {
        what: What::Field("flow label"),
        of: Of::Every,
        because: "an error is no flow, so it has label 0 (RFC 6437 section 3); the kernel hashes one \
                  with a secret (`auto_flowlabels`)",
    },
    Difference {
        what: What::Telling,
        of: Of::These(&["v6 redirect"]),
        because: "nobody is told of a redirect (RFC 4443 2.4 e.2); the kernel tells, since a \
                  redirect's type is not among the errors",
    },
    Difference {
        what: What::Field("quoted packet"),
        of: Of::These(&["no such host", "v6 no such host"]),
        because: "we quote the packet as it came; the kernel has taken a hop already when it asks \
                  for the neighbour in vain",
    },
    Difference {
        what: What::Delivery,
        of: Of::These(&["record route", "timestamps"]),
        because: "routes and times are not recorded, only carried (RFC 7126 4.6 and 4.7 advise against them)",
    },
    Difference {
        what: What::Delivery,
        of: Of::These(&[
            "from this network",
            "from a reserved address",
            "from link-local",
            "from the link's broadcast",
            "v6 from an IPv4 address",
        ]),
        because: "such a source is on no wire or stays on its link (RFC 1812 5.3.7, RFC 3927 7, RFC 6890); the kernel carries it",
    },
    Difference {
        what: What::Delivery,
        of: Of::These(&["from the gateway", "from the far gateway"]),
        because: "a source that may exist is not checked further; the kernel refuses its own IPv4 addresses, and forwards its own IPv6 ones",
    },
    Difference {
        what: What::Telling,
        of: Of::These(&[
            "to this network",
            "to a reserved address",
            "to link-local",
            "v6 to nobody",
            "v6 to an IPv4 address",
        ]),
        because: "no route could make it routable, so nobody is told that there is none",
    },
    Difference {
        what: What::Telling,
        of: Of::These(&["to itself", "v6 to itself"]),
        because: "hairpin is off on this port; the kernel sends it back, with a redirect where it would help",
    },
    Difference {
        what: What::Telling,
        of: Of::These(&["v6 from link-local"]),
        because: "the station that sent it is told; the kernel asks for its address on the link first",
    },
    Difference {
        what: What::Telling,
        of: Of::These(&["v6 to the far subnet's routers"]),
        because: "the subnet-router anycast address (RFC 4291 2.6.1) is nobody's here; a kernel router holds it",
    },
    Difference {
        what: What::Delivery,
        of: Of::These(&[
            "v6 hop-by-hop comes second",
            "v6 nine headers",
            "v6 header cut short",
        ]),
        because: "headers out of their place hide what they carry (RFC 8200 4.1, RFC 7112); the kernel as a router does not look behind the first",
    },
    Difference {
        what: What::Delivery,
        of: Of::These(&[
            "second overlaps it",
            "second follows an overlap",
            "TCP in 8 bytes",
            "TCP at 8",
            "v6 second overlaps it",
        ]),
        because: "a fragment laid over another, or one that splits a TCP header, is there to deceive a filter (RFC 1858, RFC 3128, RFC 5722); the kernel as a router does not look",
    },
    Difference {
        what: What::Delivery,
        of: Of::These(&["v6 routing header of type 0", "v6 routing header, spent"]),
        because: "nobody routes by it any more (RFC 5095); the kernel refuses it only as a target",
    },
    Difference {
        what: What::Telling,
        of: Of::These(&["v6 routing header of type 0", "v6 routing header, spent"]),
        because: "its sender is told that it is prohibited, since the kernel would carry it",
    },
    Difference {
        what: What::Delivery,
        of: Of::Frames("from nowhere on a wire", |view| match view.network() {
            Network::Ipv4(ip) => {
                let first = ip.source.octets()[0];
                let last = ip.source == Ipv4Addr::new(10, 244, 1, 255);
                first == 0 || first >= 240 || ip.source.is_link_local() || last
            }
            Network::Ipv6(ip) => ip.source.to_ipv4_mapped().is_some(),
            _ => false,
        }),
        because: "such a source is on no wire or stays on its link (RFC 1812 5.3.7, RFC 3927 7, RFC 6890); the kernel carries it",
    },
    Difference {
        what: What::Delivery,
        of: Of::Frames("from a router's own address", |view| {
            let own = [
                NEAR.gateway.v4,
                NEAR.uplink.v4,
                FAR.gateway.v4,
                FAR.uplink.v4,
            ];
            matches!(view.network(), Network::Ipv4(ip) if own.contains(&ip.source))
        }),
        because: "a source that may exist is not checked further; the kernel refuses its own IPv4 addresses",
    },
    Difference {
        what: What::Delivery,
        of: Of::Frames("routes and times recorded", |view| {
            let is_ipv4 = matches!(view.network(), Network::Ipv4(_));
            let options = view.payload().get(20..header_len(view)).unwrap_or(&[]);
            is_ipv4 && options.iter().any(|byte| [7, 68].contains(byte))
        }),
        because: "routes and times are not recorded, only carried (RFC 7126 4.6 and 4.7 advise against them)",
    },
    Difference {
        what: What::Delivery,
        of: Of::Frames("TCP split in its header", |view| {
            let Network::Ipv4(ip) = view.network() else {
                return false;
            };
            let payload = usize::from(ip.total_len) - usize::from(ip.header_len);
            let first = ip.fragment_offset == 0 && ip.more_fragments && payload < 16;
            ip.protocol == 6 && (first || ip.fragment_offset == 8)
        }),
        because: "a fragment that splits a TCP header is there to deceive a filter (RFC 1858, RFC 3128); the kernel as a router does not look",
    },
    Difference {
        what: What::Delivery,
        of: Of::Frames("headers out of their place, or cut short", |view| {
            let packet = view.payload();
            let [Some(first), Some(second), Some(len)] = [6, 40, 5].map(|at| packet.get(at)) else {
                return false;
            };
            // The shortest of them has eight bytes.
            let cut = packet[4] == 0 && *len < 8;
            view.kind == Kind::Ipv6 && [43, 44, 60].contains(first) && (*second == 0 || cut)
        }),
        because: "headers out of their place, or that end behind the packet, hide what they carry (RFC 8200 4.1, RFC 7112); the kernel as a router does not look behind the first",
    },
    Difference {
        what: What::Delivery,
        of: Of::Frames("routing header of type 0", |view| {
            let packet = view.payload();
            view.kind == Kind::Ipv6 && packet.get(6) == Some(&43) && packet.get(42) == Some(&0)
        }),
        because: "nobody routes by it any more (RFC 5095); the kernel refuses it only as a target",
    },
];

/// Bytes of an IPv4 header, by its first byte.
fn header_len(view: &FrameView<'_>) -> usize {
    let first = view.payload().first().copied().unwrap_or(0);
    usize::from(first & 0xf) * 4
}

/// What is found as cases are tried.
#[derive(Default)]
pub(crate) struct Findings {
    unexplained: Vec<String>,
    used: BTreeSet<usize>,
    tried: Vec<&'static str>,
    delivered: usize,
}

/// The first bytes of each frame.
fn heads(frames: &[Vec<u8>]) -> Vec<(usize, &[u8])> {
    let head = |frame: &Vec<u8>| frame.len().min(60);
    frames
        .iter()
        .map(|frame| (frame.len(), &frame[..head(frame)]))
        .collect()
}

impl Findings {
    /// Compares what came of the frame called `case`.
    pub(crate) fn compare(&mut self, case: &'static str, kernel: &Outcome, tapline: &Outcome) {
        self.tried.push(case);
        if kernel.delivered != tapline.delivered {
            let both = (&kernel.delivered, &tapline.delivered);
            self.note(case, What::Delivery, format!("{both:02x?}"));
        }
        if kernel.told.len() != tapline.told.len() {
            let both = (&kernel.told, &tapline.told);
            self.note(case, What::Telling, format!("{both:02x?}"));
        }
        for (ours, theirs) in tapline.told.iter().zip(&kernel.told) {
            self.compare_fields(case, theirs, ours);
        }
    }

    fn compare_fields(&mut self, case: &'static str, kernel: &[u8], tapline: &[u8]) {
        let (theirs, ours) = (fields(kernel), fields(tapline));
        for ((name, theirs), (_, ours)) in theirs.iter().zip(&ours) {
            if theirs != ours {
                let both = format!("{theirs:02x?} and {ours:02x?}");
                self.note(case, What::Field(name), both);
            }
        }
    }

    fn note(&mut self, case: &'static str, what: What, both: String) {
        let speaks = |row: &Difference| match row.of {
            Of::Every => row.what == what,
            Of::These(names) => row.what == what && names.contains(&case),
            Of::Frames(..) => false,
        };
        match DIFFERENCES.iter().position(speaks) {
            Some(row) => {
                self.used.insert(row);
            }
            None => self
                .unexplained
                .push(format!("{case}: {what:?}: kernel and Tapline: {both}")),
        }
    }

    /// Compares what of a random frame came out at host c.
    pub(crate) fn compare_frame(&mut self, frame: &[u8], kernel: &[Vec<u8>], tapline: &[Vec<u8>]) {
        let carried = |frames: &[Vec<u8>]| {
            let carried = frames.iter().filter(|frame| !is_routers_error(frame));
            carried.cloned().collect::<Vec<_>>()
        };
        let (kernel, tapline) = (&carried(kernel)[..], &carried(tapline)[..]);
        self.delivered += kernel.len();
        if kernel == tapline {
            return;
        }
        let view = FrameView::parse(frame);
        let speaks = |row: &Difference| match (row.of, &view) {
            (Of::Frames(_, speaks_of), Ok(view)) => speaks_of(view),
            _ => false,
        };
        match DIFFERENCES.iter().position(speaks) {
            Some(row) => {
                self.used.insert(row);
            }
            None => self.unexplained.push(format!(
                "{:02x?} of {} bytes\n  kernel: {:02x?}\n  Tapline: {:02x?}",
                &frame[..frame.len().min(80)],
                frame.len(),
                heads(kernel),
                heads(tapline)
            )),
        }
    }

    /// Every difference is in the table, and every row about random frames was seen.
    pub(crate) fn conclude_frames(self, frames: u64) {
        let many = self.unexplained.len();
        let some = self.unexplained[..many.min(8)].join("\n");
        assert!(many == 0, "{many} differences without a reason:\n{some}");
        let mut explained = Vec::new();
        for (at, row) in DIFFERENCES.iter().enumerate() {
            if let Of::Frames(name, _) = row.of {
                assert!(self.used.contains(&at), "never seen: {name}");
                explained.push(name);
            }
        }
        let delivered = self.delivered as u64;
        assert!(delivered > frames / 4, "only {delivered} deliveries");
        println!("{frames} frames, {delivered} deliveries; explained: {explained:?}");
    }

    /// Every difference is in the table, and every row about a case that was tried was seen.
    pub(crate) fn conclude(self) {
        assert!(
            self.unexplained.is_empty(),
            "differences without a reason:\n{}",
            self.unexplained.join("\n")
        );
        for (at, row) in DIFFERENCES.iter().enumerate() {
            let tried = match row.of {
                Of::Every | Of::Frames(..) => false,
                Of::These(names) => names.iter().any(|name| self.tried.contains(name)),
            };
            assert!(!tried || self.used.contains(&at), "never seen: {row:?}");
            assert!(row.because.len() > 20, "a reason for {row:?}");
        }
    }
}

/// What a router tells host c about a packet in its name.
fn is_routers_error(frame: &[u8]) -> bool {
    let Ok(view) = FrameView::parse(frame) else {
        return false;
    };
    let routers = [NEAR.gateway, NEAR.uplink, FAR.gateway, FAR.uplink];
    match view.network() {
        Network::Ipv4(ip) => {
            let error = matches!(
                ip.transport,
                Transport::Icmp {
                    kind: 3 | 11 | 12,
                    ..
                }
            );
            error && routers.iter().any(|own| own.v4 == ip.source)
        }
        Network::Ipv6(ip) => {
            let error = matches!(ip.transport, Transport::Icmp { kind: 1..=4, .. });
            error && routers.iter().any(|own| own.v6 == ip.source)
        }
        _ => false,
    }
}

/// The fields of an ICMP error in an Ethernet frame, by name, so that two can be compared.
/// Checksums are `right` or not: they follow from the rest.
fn fields(frame: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let (ethernet, packet) = frame.split_at(14);
    let mut found = vec![("ethernet", ethernet.to_vec())];
    found.extend(match packet[0] >> 4 {
        4 => fields_v4(packet),
        _ => fields_v6(packet),
    });
    found
}

fn fields_v4(packet: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    use dataplane::frame::checksum::checksum;
    let header_len = usize::from(packet[0] & 0xf) * 4;
    let (header, message) = packet.split_at(header_len);
    vec![
        ("version and header length", vec![header[0]]),
        ("type of service", vec![header[1]]),
        ("total length", header[2..4].to_vec()),
        ("identification", header[4..6].to_vec()),
        ("flags and offset", header[6..8].to_vec()),
        ("time to live", vec![header[8]]),
        ("protocol", vec![header[9]]),
        (
            "header checksum holds",
            vec![u8::from(checksum(header) == 0)],
        ),
        ("source", header[12..16].to_vec()),
        ("target", header[16..20].to_vec()),
        ("options", header[20..].to_vec()),
        ("ICMP type", vec![message[0]]),
        ("ICMP code", vec![message[1]]),
        (
            "ICMP checksum holds",
            vec![u8::from(checksum(message) == 0)],
        ),
        ("rest of the ICMP header", message[4..8].to_vec()),
        ("quoted packet", message[8..].to_vec()),
    ]
}

fn fields_v6(packet: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let (header, message) = packet.split_at(40);
    vec![
        (
            "version and traffic class",
            vec![header[0], header[1] & 0xf0],
        ),
        ("flow label", vec![header[1] & 0xf, header[2], header[3]]),
        ("payload length", header[4..6].to_vec()),
        ("next header", vec![header[6]]),
        ("hop limit", vec![header[7]]),
        ("source", header[8..24].to_vec()),
        ("target", header[24..40].to_vec()),
        ("ICMPv6 type", vec![message[0]]),
        ("ICMPv6 code", vec![message[1]]),
        (
            "ICMPv6 checksum holds",
            vec![u8::from(sums(header, message))],
        ),
        ("rest of the ICMPv6 header", message[4..8].to_vec()),
        ("quoted packet", message[8..].to_vec()),
    ]
}

/// The checksum of an ICMPv6 message, which covers a pseudo-header (RFC 8200 8.1).
fn sums(header: &[u8], message: &[u8]) -> bool {
    let mut covered = header[8..40].to_vec();
    let len = u32::try_from(message.len()).expect("a packet");
    covered.extend(len.to_be_bytes());
    covered.extend([0, 0, 0, 58]);
    covered.extend(message);
    dataplane::frame::checksum::checksum(&covered) == 0
}
