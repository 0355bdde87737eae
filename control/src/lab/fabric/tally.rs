//! The fabric's books: what came in, what became of it, and one example for each reason.
//!
//! In: what one burst of one NIC did. Out: counters that balance, and the report's drops.
//! Never: counts a frame on one side of the law only. A burst is entered whole, under one lock, so
//! the law holds whenever anybody looks.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use etherparse::EtherType;

use super::reasons::FabricDrop;
use super::rules::ETHERNET_LEN;
use super::vnet::{NicId, Vnet};
use crate::routes::Route;

/// What the fabric did so far. received = delivered + answered + dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FabricCounters {
    /// Frames read from the nodes' NICs.
    pub received: u64,
    /// Frames that a NIC took.
    pub delivered: u64,
    /// Frames that the fabric answered itself: ARP requests and neighbour solicitations.
    pub answered: u64,
    /// Frames that died, for whatever reason.
    pub dropped: u64,
}

impl FabricCounters {
    /// Nothing is created or lost: every frame that came in was delivered, answered or dropped.
    #[must_use]
    pub const fn balanced(self) -> bool {
        self.received == self.delivered + self.answered + self.dropped
    }
}

/// How often the fabric dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FabricDrops {
    /// The reason.
    pub reason: FabricDrop,
    /// Frames that died of it; never zero.
    pub frames: u64,
    /// The last of them.
    pub example: DropExample,
}

impl fmt::Display for FabricDrops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FabricDrops {
            reason,
            frames,
            example,
        } = self;
        write!(
            f,
            "{frames} {reason}, last {example}: {}",
            reason.explanation()
        )
    }
}

/// The sender and addresses of a frame that died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropExample {
    /// The node whose NIC sent it.
    pub nic: String,
    /// Its source (for ARP the sender's protocol address), where it had one.
    pub source: Option<IpAddr>,
    /// Its target (for ARP the address asked for), where it had one.
    pub target: Option<IpAddr>,
    /// The effective route that the target matched, where the route decided.
    pub route: Option<Route>,
}

impl DropExample {
    /// Reads what there is to read of a frame that died; works on any bytes.
    #[must_use]
    pub fn of(vnet: &Vnet, from: NicId, frame: &[u8], reason: FabricDrop) -> DropExample {
        let nic = vnet.nic(from);
        let (source, target) = addresses(frame).unzip();
        let route = nic.zip(target).filter(|_| decided_by_route(reason));
        let route = route.and_then(|(nic, target)| vnet.routes(nic).find(target).cloned());
        let nic = nic.map_or_else(
            || "a NIC that is gone".to_owned(),
            |nic| nic.spec().name.clone(),
        );
        DropExample {
            nic,
            source,
            target,
            route,
        }
    }
}

impl fmt::Display for DropExample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {}", self.nic)?;
        if let (Some(source), Some(target)) = (self.source, self.target) {
            write!(f, ", {source} to {target}")?;
        }
        match &self.route {
            Some(route) => write!(f, ", which matched {route}"),
            None => Ok(()),
        }
    }
}

fn decided_by_route(reason: FabricDrop) -> bool {
    use FabricDrop as D;
    matches!(
        reason,
        D::RouteNone
            | D::UserRouteNone
            | D::NextHopMissing
            | D::NextHopNotForwarding
            | D::Internet
            | D::GatewayMissing
            | D::BeyondVnet
            | D::AddressUnowned
    )
}

fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (header, packet) = frame.split_first_chunk::<ETHERNET_LEN>()?;
    let four = |at: usize| {
        packet
            .get(at..)?
            .first_chunk::<4>()
            .map(|octets| IpAddr::from(*octets))
    };
    let six = |at: usize| {
        packet
            .get(at..)?
            .first_chunk::<16>()
            .map(|octets| IpAddr::from(*octets))
    };
    match EtherType(u16::from_be_bytes([header[12], header[13]])) {
        EtherType::ARP => four(14).zip(four(24)),
        EtherType::IPV4 => four(12).zip(four(16)),
        EtherType::IPV6 => six(8).zip(six(24)),
        _ => None,
    }
}

/// What one burst did: a task's own, until it is entered.
#[derive(Debug, Default)]
pub(super) struct Burst {
    pub(super) received: u64,
    pub(super) delivered: u64,
    pub(super) answered: u64,
    pub(super) dropped: Vec<(FabricDrop, DropExample)>,
}

/// The books themselves.
#[derive(Debug)]
pub(super) struct Books(Mutex<Entries>);

#[derive(Debug)]
struct Entries {
    counters: FabricCounters,
    drops: [Option<FabricDrops>; FabricDrop::ALL.len()],
}

impl Books {
    pub(super) fn new() -> Books {
        let drops = [const { None }; FabricDrop::ALL.len()];
        Books(Mutex::new(Entries {
            counters: FabricCounters::default(),
            drops,
        }))
    }

    /// Enters a burst and empties it for the next.
    pub(super) fn enter(&self, burst: &mut Burst) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counters = &mut entries.counters;
        counters.received += std::mem::take(&mut burst.received);
        counters.delivered += std::mem::take(&mut burst.delivered);
        counters.answered += std::mem::take(&mut burst.answered);
        counters.dropped += burst.dropped.len() as u64;
        let now = *counters;
        assert!(now.balanced(), "frames leaked in the fabric: {now:?}");
        for (reason, example) in burst.dropped.drain(..) {
            let entry = &mut entries.drops[reason as usize];
            let frames = entry.as_ref().map_or(0, |before| before.frames) + 1;
            *entry = Some(FabricDrops {
                reason,
                frames,
                example,
            });
        }
    }

    pub(super) fn counters(&self) -> FabricCounters {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .counters
    }

    pub(super) fn drops(&self) -> Vec<FabricDrops> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.drops.iter().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::EffectiveRoutes;

    fn example(nic: &str) -> DropExample {
        DropExample {
            nic: nic.into(),
            source: None,
            target: None,
            route: None,
        }
    }

    #[test]
    fn a_burst_is_entered_once_and_the_last_example_stays() {
        let books = Books::new();
        let reason = FabricDrop::Gre;
        let dropped = vec![(reason, example("node-0")), (reason, example("node-1"))];
        let mut burst = Burst {
            received: 4,
            delivered: 1,
            answered: 1,
            dropped,
        };
        books.enter(&mut burst);
        books.enter(&mut burst);
        let counters = FabricCounters {
            received: 4,
            delivered: 1,
            answered: 1,
            dropped: 2,
        };
        assert_eq!(books.counters(), counters);
        assert_eq!(
            books.drops(),
            [FabricDrops {
                reason,
                frames: 2,
                example: example("node-1")
            }]
        );
    }

    #[test]
    #[should_panic(expected = "frames leaked")]
    fn a_frame_that_is_not_accounted_for_is_noticed() {
        Books::new().enter(&mut Burst {
            received: 1,
            ..Burst::default()
        });
    }

    #[test]
    fn an_example_names_the_route_that_decided() {
        let drops = FabricDrops {
            reason: FabricDrop::RouteNone,
            frames: 3,
            example: DropExample {
                nic: "node-0".into(),
                source: "10.244.1.6".parse().ok(),
                target: "10.244.0.7".parse().ok(),
                route: EffectiveRoutes::of(&Default::default(), None, &[])
                    .find("10.244.0.7".parse().expect("well-formed"))
                    .cloned(),
            },
        };
        assert_eq!(
            drops.to_string(),
            "3 route_none, last from node-0, 10.244.1.6 to 10.244.0.7, which matched system route \
             10.0.0.0/8 -> None: a system route to None: is the cluster's route table attached to \
             the subnet?"
        );
    }
}
