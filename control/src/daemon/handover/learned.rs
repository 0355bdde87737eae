//! What a switch has learned and counted, in the words in which it is handed over.
//!
//! In: a running switch, and what was told of it before. Out: rows; and a switch that knows them.
//! Never: fails for a row that it does not understand: what is not handed over is learned again.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use dataplane::addr::{Mac, PortId, Station};
use dataplane::clock::Tick;
use dataplane::frame::tuple::{Ports, Stage, Tuple};
use dataplane::port::Port;
use dataplane::stats::{Counts, Drops, Ledger, PortCounts};
use dataplane::switch::Switch;
use dataplane::tables::neighbour::{self, state::State};
use dataplane::tables::returns::{self, About, Carrier};
use dataplane::verdict::DropReason;
use dataplane::worker::{Legacy, Stranded};
use serde::{Deserialize, Serialize};

use crate::api::types::mac;

/// What is handed over: all of it, or what came since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Learned {
    /// The FDB.
    pub stations: Vec<StationRow>,
    /// The way back.
    pub conversations: Vec<ConversationRow>,
    /// What each worker has of its own.
    pub workers: Vec<WorkerRow>,
}

/// A station.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationRow {
    /// Its address.
    #[serde(with = "mac")]
    pub mac: Mac,
    /// Where it was heard.
    pub port: u16,
    /// When it was heard last, by the clock that is handed over.
    pub second: u32,
}

/// A conversation, or an endpoint of some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationRow {
    /// The source alone is meant.
    #[serde(default)]
    pub endpoint: bool,
    /// Its source.
    pub source: IpAddr,
    /// Its target.
    pub target: IpAddr,
    /// Its protocol.
    pub protocol: u8,
    /// Its ports, unless they are those of a fragment.
    pub ports: Option<(u16, u16)>,
    /// The node's kernel carried it.
    pub host: bool,
    /// How far it has come, by the names of [`STAGES`].
    pub stage: String,
    /// The pod's port that it is kept for.
    pub port: u16,
    /// Since when nothing was heard.
    pub age_seconds: u64,
}

/// What a worker has of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerRow {
    /// The next hops that it knows.
    pub neighbours: Vec<NeighbourRow>,
    /// Frames that wait for one.
    pub waiting: Vec<FrameRow>,
}

/// A next hop that has answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourRow {
    /// Its protocol address.
    pub address: IpAddr,
    /// Its hardware address.
    #[serde(with = "mac")]
    pub mac: Mac,
    /// It said that it forwards packets.
    #[serde(default)]
    pub router: bool,
    /// The port that it is behind.
    pub port: u16,
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameRow {
    /// Where it came in.
    pub port: u16,
    /// Its offload header and its bytes.
    pub bytes: Vec<u8>,
}

/// The counters of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerRow {
    /// Frames received, originated, copied, transmitted and punted.
    pub totals: [u64; 5],
    /// Deaths by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Frames received that stood for several segments.
    pub super_frames: u64,
    /// ICMP errors that were due, and not sent.
    pub errors_suppressed: u64,
    /// Of each port.
    pub ports: Vec<PortLedgerRow>,
    /// Of all ports whose number another has now.
    pub gone: PortCountsRow,
}

/// The counters of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortLedgerRow {
    /// Which.
    pub port: u16,
    /// What it counted.
    #[serde(flatten)]
    pub counts: PortCountsRow,
}

/// What a port counted, or several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortCountsRow {
    /// Frames received, their bytes, frames transmitted, their bytes.
    pub totals: [u64; 4],
    /// Deaths by reason.
    pub dropped: BTreeMap<String, u64>,
    /// What guards only observed.
    pub observed: BTreeMap<String, u64>,
}

/// The stages of a conversation, by name.
const STAGES: [(&str, Stage); 5] = [
    ("opening", Stage::Opening),
    ("open", Stage::Open),
    ("closing", Stage::Closing),
    ("datagram", Stage::Datagram),
    ("other", Stage::Other),
];

/// What has been told already.
#[derive(Debug, Default)]
pub struct Told {
    stations: HashSet<(Mac, PortId)>,
    conversations: HashSet<(About, Carrier, &'static str, PortId)>,
    neighbours: HashSet<(usize, IpAddr, Mac)>,
}

fn number(port: PortId) -> u16 {
    u16::try_from(port.index()).unwrap_or(u16::MAX)
}

fn port_of(number: u16) -> Option<PortId> {
    PortId::new(number.into())
}

impl Learned {
    /// What `switch` has learned and is not in `told` yet; then it is.
    pub fn beyond<P: Port + Send + 'static>(
        told: &mut Told,
        switch: &Switch<P>,
        legacies: Vec<Legacy>,
        now: Tick,
    ) -> Learned {
        let stations = switch.fdb().entries();
        let stations = stations.filter(|(mac, port, _)| told.stations.insert((*mac, *port)));
        let stations = stations.map(|(mac, port, second)| StationRow {
            mac,
            port: number(port),
            second,
        });
        let stations = stations.collect();
        let known = &mut told.conversations;
        let entries = switch.returns().entries(now).filter_map(|entry| {
            let (stage, _) = STAGES.iter().find(|(_, stage)| *stage == entry.stage)?;
            let fresh = known.insert((entry.about, entry.carrier, stage, entry.port));
            fresh.then(|| ConversationRow::of(&entry, stage))
        });
        let conversations = entries.collect();
        let workers = legacies.into_iter().enumerate();
        let workers = workers.map(|(worker, legacy)| {
            let known = &mut told.neighbours;
            let neighbours = legacy.neighbours.iter().filter_map(|entry| {
                let mac = entry.mac?;
                let fresh = known.insert((worker, entry.address, mac));
                fresh.then_some(NeighbourRow {
                    address: entry.address,
                    mac,
                    router: entry.router,
                    port: number(entry.egress),
                })
            });
            let waiting = legacy.waiting.into_iter().map(|frame| FrameRow {
                port: number(frame.ingress),
                bytes: frame.bytes,
            });
            WorkerRow {
                neighbours: neighbours.collect(),
                waiting: waiting.collect(),
            }
        });
        Learned {
            stations,
            conversations,
            workers: workers.collect(),
        }
    }

    /// Teaches a switch all that is shared by its workers.
    pub fn teach<P: Port + Send + 'static>(&self, switch: &Switch<P>, now: Tick) {
        for row in &self.stations {
            if let (Ok(station), Some(port)) = (Station::new(row.mac), port_of(row.port)) {
                let heard = Tick(u64::from(row.second) * 1000);
                switch.fdb().learn(station, port, heard);
            }
        }
        let entries = self.conversations.iter().filter_map(ConversationRow::entry);
        entries.for_each(|entry| switch.returns().recall(&entry, now));
    }

    /// How many things there are in it, beside frames.
    #[must_use]
    pub fn count(&self) -> usize {
        let neighbours = self.workers.iter().map(|worker| worker.neighbours.len());
        self.stations.len() + self.conversations.len() + neighbours.sum::<usize>()
    }
}

impl ConversationRow {
    fn of(entry: &returns::Entry, stage: &str) -> ConversationRow {
        let (endpoint, tuple) = match entry.about {
            About::Tuple(tuple) => (false, tuple),
            About::Endpoint(tuple) => (true, tuple),
        };
        ConversationRow {
            endpoint,
            source: tuple.source,
            target: tuple.target,
            protocol: tuple.protocol,
            ports: match tuple.ports {
                Ports::Known(source, target) => Some((source, target)),
                Ports::Hidden => None,
            },
            host: entry.carrier == Carrier::Host,
            stage: stage.to_owned(),
            port: number(entry.port),
            age_seconds: entry.age_seconds,
        }
    }

    fn entry(&self) -> Option<returns::Entry> {
        let tuple = Tuple {
            source: self.source,
            target: self.target,
            protocol: self.protocol,
            ports: match self.ports {
                Some((source, target)) => Ports::Known(source, target),
                None => Ports::Hidden,
            },
        };
        let (_, stage) = STAGES.iter().find(|(name, _)| *name == self.stage)?;
        Some(returns::Entry {
            about: match self.endpoint {
                true => About::Endpoint(tuple),
                false => About::Tuple(tuple),
            },
            carrier: match self.host {
                true => Carrier::Host,
                false => Carrier::Switch,
            },
            stage: *stage,
            port: port_of(self.port)?,
            age_seconds: self.age_seconds,
            // It follows from age and stage.
            seconds_left: 0,
        })
    }
}

impl WorkerRow {
    /// The next hops, as a worker takes them over.
    #[must_use]
    pub fn known(&self) -> Vec<neighbour::Entry> {
        let rows = self.neighbours.iter().filter_map(|row| {
            Some(neighbour::Entry {
                address: row.address,
                mac: Some(row.mac),
                state: State::Stale,
                router: row.router,
                egress: port_of(row.port)?,
            })
        });
        rows.collect()
    }

    /// The frames that wait, as a worker takes them over.
    #[must_use]
    pub fn stranded(&self) -> Vec<Stranded> {
        let rows = self.waiting.iter().filter_map(|row| {
            Some(Stranded {
                ingress: port_of(row.port)?,
                bytes: row.bytes.clone(),
            })
        });
        rows.collect()
    }
}

impl LedgerRow {
    /// A worker's counters in words.
    #[must_use]
    pub fn of(ledger: &Ledger) -> LedgerRow {
        let counts = &ledger.counts;
        let ports = ledger.ports.iter().map(|(port, counts)| PortLedgerRow {
            port: number(*port),
            counts: PortCountsRow::of(counts),
        });
        LedgerRow {
            totals: [
                counts.received,
                counts.originated,
                counts.copied,
                counts.transmitted,
                counts.punted,
            ],
            dropped: by_label(&counts.dropped),
            super_frames: ledger.super_frames,
            errors_suppressed: ledger.errors_suppressed,
            ports: ports.collect(),
            gone: PortCountsRow::of(&ledger.gone),
        }
    }

    /// The same as counters; nothing if it knows reasons that this version does not, since then the
    /// books would not balance.
    #[must_use]
    pub fn ledger(&self) -> Option<Ledger> {
        let [received, originated, copied, transmitted, punted] = self.totals;
        let ports = self.ports.iter();
        let ports = ports.map(|row| Some((port_of(row.port)?, row.counts.counts()?)));
        Some(Ledger {
            counts: Counts {
                received,
                originated,
                copied,
                transmitted,
                punted,
                queued: 0,
                dropped: by_reason(&self.dropped)?,
            },
            super_frames: self.super_frames,
            errors_suppressed: self.errors_suppressed,
            ports: ports.collect::<Option<_>>()?,
            gone: self.gone.counts()?,
        })
    }
}

impl PortCountsRow {
    fn of(counts: &PortCounts) -> PortCountsRow {
        PortCountsRow {
            totals: [
                counts.received,
                counts.received_bytes,
                counts.transmitted,
                counts.transmitted_bytes,
            ],
            dropped: by_label(&counts.dropped),
            observed: by_label(&counts.observed),
        }
    }

    fn counts(&self) -> Option<PortCounts> {
        let [received, received_bytes, transmitted, transmitted_bytes] = self.totals;
        Some(PortCounts {
            received,
            received_bytes,
            transmitted,
            transmitted_bytes,
            dropped: by_reason(&self.dropped)?,
            observed: by_reason(&self.observed)?,
        })
    }
}

fn by_label(drops: &Drops) -> BTreeMap<String, u64> {
    let rows = drops.iter();
    rows.map(|(reason, count)| (reason.label().to_owned(), count))
        .collect()
}

fn by_reason(rows: &BTreeMap<String, u64>) -> Option<Drops> {
    let rows = rows.iter().map(|(label, count)| {
        let mut all = DropReason::ALL.iter();
        let reason = all.find(|reason| reason.label() == label)?;
        Some((*reason, *count))
    });
    rows.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use dataplane::port::memory::MemoryPort;
    use dataplane::switch::Options;
    use dataplane::tables::{Crossing, Policy, Tables, TablesSpec, Unknown};

    use super::*;

    fn switch() -> Switch<MemoryPort> {
        let tables = Tables::build(&TablesSpec {
            ports: Vec::new(),
            owners: Vec::new(),
            router_macs: Vec::new(),
            routes: Vec::new(),
            groups: Vec::new(),
            crossing: Crossing::Bridged,
            policy: Policy::None,
            unknown: Unknown::Drop,
            guards: Vec::new(),
        });
        Switch::start(&Options::named("learned"), tables.unwrap()).unwrap()
    }

    fn through_json<T: Serialize + serde::de::DeserializeOwned>(rows: &T) -> T {
        serde_json::from_slice(&serde_json::to_vec(rows).unwrap()).unwrap()
    }

    #[test]
    fn a_second_switch_knows_what_the_first_has_learned_and_nothing_is_told_twice() {
        let (old, new) = (switch(), switch());
        let port = PortId::new(3).unwrap();
        let station = |last| Station::new(Mac::new([2, 0, 0, 0, 0, last])).unwrap();
        let tuple = |last| Tuple {
            source: [10, 244, 1, last].into(),
            target: [10, 0, 0, 10].into(),
            protocol: 6,
            ports: Ports::Known(4000, 80),
        };
        let now = Tick(90_000);
        old.fdb().learn(station(1), port, Tick(30_000));
        old.returns()
            .carried(&tuple(1), Carrier::Host, Stage::Open, port, now);
        old.returns()
            .has_now_spoken(&tuple(2).without_ports(), Stage::Opening, port, now);
        let mut told = Told::default();
        let first = Learned::beyond(&mut told, &old, Vec::new(), now);
        assert_eq!(first.count(), 3);
        let none = Learned::beyond(&mut told, &old, Vec::new(), now);
        assert_eq!(none, Learned::default(), "all of it has been told");
        old.fdb().learn(station(2), port, now);
        old.returns()
            .carried(&tuple(1), Carrier::Switch, Stage::Open, port, now);
        let second = Learned::beyond(&mut told, &old, Vec::new(), now);
        assert_eq!((second.stations.len(), second.conversations.len()), (1, 1));
        for rows in [first, second] {
            through_json(&rows).teach(&new, now);
        }
        let mut known: [Vec<_>; 2] = [&old, &new].map(|one| one.fdb().entries().collect());
        known.iter_mut().for_each(|rows| rows.sort_unstable());
        assert_eq!(known[0], known[1]);
        let mut known: [Vec<_>; 2] = [&old, &new].map(|one| one.returns().entries(now).collect());
        known
            .iter_mut()
            .for_each(|rows| rows.sort_by_key(|row| row.about));
        assert_eq!(known[0], known[1]);
    }

    #[test]
    fn counters_come_back_as_they_were_and_not_at_all_where_a_reason_is_unknown() {
        let drops: Drops = [(DropReason::TooShort, 3)].into_iter().collect();
        let of_a_port = PortCounts {
            received: 10,
            received_bytes: 600,
            transmitted: 8,
            transmitted_bytes: 500,
            dropped: drops,
            observed: drops,
        };
        let ledger = Ledger {
            counts: Counts {
                received: 10,
                originated: 2,
                copied: 1,
                transmitted: 8,
                punted: 2,
                queued: 0,
                dropped: drops,
            },
            super_frames: 4,
            errors_suppressed: 5,
            ports: vec![(PortId::new(7).unwrap(), of_a_port)],
            gone: PortCounts {
                received: 11,
                ..of_a_port
            },
        };
        let mut row = through_json(&LedgerRow::of(&ledger));
        assert_eq!(row.ledger(), Some(ledger));
        row.dropped.insert("of_a_later_version".into(), 1);
        assert_eq!(row.ledger(), None);
    }
}
