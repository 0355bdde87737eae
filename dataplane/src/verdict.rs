//! What becomes of a frame: the verdicts, and the one table of reasons to die.
//!
//! In: nothing. Out: the vocabulary that `decide` speaks and the worker obeys.
//! Never: a success among the drop reasons, or an `Other`.
//!
//! A row of `drop_reasons!` is a variant, a counter, a metric label and a line of help. Nothing
//! else in the workspace lists the reasons again.

use std::fmt;
use std::net::IpAddr;

use crate::addr::{Mac, PortId};
use crate::tables::Owner;
use crate::tables::neighbour::state::Told;

macro_rules! drop_reasons {
    ($($variant:ident, $label:literal, $meaning:literal;)+) => {
        /// Why a frame died. Each reason has a counter of its own on every port.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $meaning] $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of the table.
            pub const ALL: &[DropReason] = &[$(DropReason::$variant,)+];

            /// How many reasons there are.
            pub const COUNT: usize = DropReason::ALL.len();

            /// The name that counters, metrics and `--json` use.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(DropReason::$variant => $label,)+ }
            }

            /// One sentence for a person.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(DropReason::$variant => $meaning,)+ }
            }
        }
    };
}

drop_reasons! {
    TooShort, "too_short", "shorter than an Ethernet header";
    SourceIsGroup, "source_is_group", "a group address cannot send";
    SourceIsZero, "source_is_zero", "the all-zero address cannot send";
    BadOffload, "bad_offload", "the offload header does not fit the frame";
    NotAttached, "not_attached", "the ingress port has no row in the tables yet";
    SpoofedMac, "spoofed_mac", "the source is not a station of the pod that sent it";
    StationElsewhere, "station_elsewhere", "the source is a station of another port, or the switch's own: an impostor, or a frame that went in a circle";
    SpoofedIp, "spoofed_ip", "the source address is not one of the pod that sent it";
    SpoofedArp, "spoofed_arp", "an ARP packet whose sender is not the pod that sent it";
    SpoofedNd, "spoofed_nd", "neighbour discovery that speaks for another, or hides what it says behind extension headers (RFC 6980)";
    RogueRouter, "rogue_router", "a router advertisement or a redirect, or what may hide one, from a pod (RFC 6105, RFC 7113)";
    HiddenByTags, "hidden_by_tags", "behind more 802.1Q tags than the guards look through";
    Flapping, "flapping", "the source moves between ports too often, and stays where it was for a while";
    StationQuota, "station_quota", "the port it came in by has as many learned stations as it may";
    BroadcastStorm, "broadcast_storm", "the port it came in by sends more broadcasts than it may";
    MulticastStorm, "multicast_storm", "the port it came in by sends more multicast than it may";
    UnknownStorm, "unknown_storm", "the port it came in by sends more to unknown stations than it may";
    ReservedGroup, "reserved_group", "a link-local control frame, which no bridge forwards (IEEE 802.1D table 7-10)";
    SamePort, "same_port", "the target lives on the ingress port, and hairpin is off";
    Isolated, "isolated", "both ports are isolated, and such ports do not reach each other";
    NoEgress, "no_egress", "flooded where no other port takes floods";
    UnknownUnicast, "unknown_unicast", "no port is known for the target, and unknown targets are not flooded here";
    UplinkNotOurs, "uplink_not_ours", "came in by the uplink and is for nobody behind this switch";
    UplinkReflected, "uplink_reflected", "came in by the uplink and would leave by it";
    MalformedArp, "malformed_arp", "not a whole ARP packet for Ethernet and IPv4, or between addresses that no host has";
    MalformedIpv4, "malformed_ipv4", "the IPv4 header's version, length or checksum is wrong";
    MalformedIpv6, "malformed_ipv6", "the IPv6 header's version or length is wrong";
    MalformedNd, "malformed_nd", "neighbour discovery that RFC 4861 7.1 says to discard: it crossed a router, or its checksum, length, options or addresses are wrong";
    MalformedExtensions, "malformed_extensions", "an IPv6 extension header is cut short, out of its place, or one too many (RFC 8200 4.1)";
    MalformedOptions, "malformed_options", "an IPv4 option or an IPv6 hop-by-hop option is cut short, repeated or out of place";
    UnknownOption, "unknown_option", "an IPv6 hop-by-hop option asks that who does not know it discard the packet (RFC 8200 4.2)";
    SourceRouted, "source_routed", "names routers that it must pass, which is refused (RFC 7126 4.3, RFC 5095)";
    ArpUnanswered, "arp_unanswered", "asks for an address that nobody here holds, and such questions stay here";
    AddressConflict, "address_conflict", "claims or probes for an address that another port holds";
    MartianSource, "martian_source", "the source address may not appear on a wire (RFC 1812 5.3.7)";
    NotRoutable, "not_routable", "a multicast, broadcast, loopback or link-local target is never routed";
    DirectedBroadcast, "directed_broadcast", "the last address of the pods' own subnet, to which a router sends nothing (RFC 2644)";
    BeyondScope, "beyond_scope", "a link-local source does not leave its link (RFC 4291 2.5.6)";
    NoRoute, "no_route", "no prefix holds the target address";
    NoSuchPod, "no_such_pod", "in this node's own pod range, and no pod has the address";
    Blackhole, "blackhole", "the route says to discard";
    TtlExpired, "ttl_expired", "the TTL or hop limit ran out here";
    TooBig, "too_big", "larger than the egress MTU, and may not be fragmented";
    TinyFragment, "tiny_fragment", "a fragment that splits a TCP header (RFC 1858, RFC 3128)";
    OverlappingFragment, "overlapping_fragment", "a fragment that lies over an earlier one of its packet, or follows one that did (RFC 5722)";
    NeighbourQueueFull, "neighbour_queue_full", "too many frames wait for the next hop's address already";
    NeighbourFailed, "neighbour_failed", "the next hop did not answer";
    QueueFull, "queue_full", "the egress port took fewer frames than offered";
    PortDown, "port_down", "the egress port is down or gone";
    PoolEmpty, "pool_empty", "no buffer was free for a copy or an answer";
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// The edits that a frame needs before it leaves. All of them leave layer 4 alone, so a partial
/// checksum and the segmentation state of a super-frame stay true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// New target MAC. In an ARP reply the target hardware address follows.
    pub target: Option<Mac>,
    /// New source MAC. In an ARP packet the sender hardware address follows.
    pub source: Option<Mac>,
    /// Take one off the TTL (RFC 1812 5.3.1) or the hop limit (RFC 8200 section 3).
    pub hop: bool,
}

impl Rewrite {
    /// Leaves the frame as it came.
    pub const KEEP: Rewrite = Rewrite {
        target: None,
        source: None,
        hop: false,
    };
}

/// Work for the slow path: it is off the walk, bounded, and may build frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Punt {
    /// Answer this ARP request, out of the port that it came in by: `mac` holds the address.
    AnswerArp {
        /// The hardware address to tell.
        mac: Mac,
    },
    /// Answer this neighbour solicitation, out of the port that it came in by.
    AnswerSolicitation {
        /// The hardware address to tell.
        mac: Mac,
        /// The holder forwards packets.
        router: bool,
    },
    /// Drop this claim of an address that another port holds, tell the claimer that it is taken,
    /// and report both (RFC 5227 2.4, RFC 4862 5.4).
    Defend {
        /// The address.
        address: IpAddr,
        /// Who holds it.
        holder: Owner,
    },
    /// A neighbour told where it lives.
    HearNeighbour {
        /// Its protocol address.
        address: IpAddr,
        /// What it told.
        told: Told,
    },
    /// Hold the frame until the next hop's hardware address is known; or send it on at once, if
    /// the address is known and was not used for a while.
    Resolve {
        /// The next hop.
        next_hop: IpAddr,
        /// The port it is reached by.
        egress: PortId,
    },
}

/// What `decide` says about one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Out of one port, after the edits.
    Forward {
        /// The port to leave by.
        egress: PortId,
        /// The edits to make first.
        rewrite: Rewrite,
    },
    /// Out of one port, after the edits, in fragments: longer than its MTU, and the sender allows it
    /// (RFC 1812 5.2.6).
    Fragment {
        /// The port to leave by.
        egress: PortId,
        /// The edits to make first.
        rewrite: Rewrite,
    },
    /// Out of every port that takes floods, except the one it came in by.
    Flood,
    /// To the slow path.
    Punt(Punt),
    /// Nowhere.
    Drop(DropReason),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_label_and_a_meaning() {
        let mut labels: Vec<_> = DropReason::ALL.iter().map(|r| r.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), DropReason::COUNT);
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "a reason is its own index");
            assert!(reason.meaning().len() > 10);
            assert!(
                reason
                    .label()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
        }
    }
}
