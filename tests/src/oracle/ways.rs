//! The way back: what came through the node's kernel goes back through it.
//!
//! In: packets that were forwarded. Out: is a packet the answer to one that the kernel carried?
//! Never: a hash or a window: every conversation is a row of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::addr::PortId;
use dataplane::frame::FrameView;
use dataplane::frame::tuple::{Ports, Said, Stage, Tuple};
use dataplane::tables::fib::NextHop;
use dataplane::tables::returns::{About, Carrier};
use dataplane::tables::{Policy, PortRole, PortSpec};

use super::Oracle;

/// Time is kept in units of so many milliseconds.
const UNIT_MS: u64 = 8000;

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// Who speaks to whom.
    Tuple(Tuple),
    /// Who speaks, from which port: to anybody.
    Endpoint(IpAddr, u8, Option<u16>),
}

/// A row.
#[derive(Clone, Copy, Debug)]
struct Way {
    by_host: bool,
    stage: Stage,
    port: PortId,
    heard: u64,
}

impl Way {
    fn is_over(&self, now: u64) -> bool {
        let silent = (now / UNIT_MS).saturating_sub(self.heard);
        silent > life(self.stage) * 1000 / UNIT_MS
    }
}

impl Key {
    fn about(&self) -> About {
        match *self {
            Key::Tuple(tuple) => About::Tuple(tuple),
            Key::Endpoint(source, protocol, port) => About::Endpoint(Tuple {
                source,
                target: match source {
                    IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                },
                protocol,
                ports: port.map_or(Ports::Hidden, |port| Ports::Known(port, 0)),
            }),
        }
    }
}

/// Of each conversation who carried it last, how far it has come, and the port it is kept for.
pub type Told = BTreeMap<About, (Carrier, Stage, PortId)>;

/// All rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Ways(BTreeMap<Key, Way>);

fn endpoint(tuple: &Tuple) -> Key {
    let port = match tuple.ports {
        Ports::Known(source, _) => Some(source),
        Ports::Hidden => None,
    };
    Key::Endpoint(tuple.source, tuple.protocol, port)
}

/// Seconds that the kernel remembers a conversation of this stage.
fn life(stage: Stage) -> u64 {
    match stage {
        Stage::Opening | Stage::Closing => 128,
        Stage::Open => 86_400,
        Stage::Datagram => 192,
        Stage::Other => 600,
    }
}

impl Ways {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Every row that has not run out, as the switch's own views tell it.
    pub(super) fn told(&self, now: u64) -> Told {
        let alive = self.0.iter().filter(|(_, way)| !way.is_over(now));
        alive
            .map(|(key, way)| {
                let carrier = match way.by_host {
                    true => Carrier::Host,
                    false => Carrier::Switch,
                };
                (key.about(), (carrier, way.stage, way.port))
            })
            .collect()
    }

    fn concerns(&self, one: PortId, other: PortId) -> bool {
        self.0
            .values()
            .any(|way| way.port == one || way.port == other)
    }

    /// Some if it was carried lately; true if by the host.
    fn carried(&self, tuple: &Tuple) -> Option<bool> {
        self.0.get(&Key::Tuple(*tuple)).map(|way| way.by_host)
    }

    fn has_spoken(&self, tuple: &Tuple) -> bool {
        self.0.contains_key(&endpoint(tuple))
    }

    /// What has run out is another conversation, even before time has removed it.
    fn note(&mut self, key: Key, fresh: Way, now: u64) {
        if self.0.get(&key).is_some_and(|way| way.is_over(now)) {
            self.0.remove(&key);
        }
        let way = self.0.entry(key).or_insert(fresh);
        let ended = way.stage == Stage::Closing && fresh.stage == Stage::Open;
        *way = Way {
            stage: if ended { Stage::Closing } else { fresh.stage },
            port: way.port,
            ..fresh
        };
    }

    pub(super) fn forget_port(&mut self, port: PortId) {
        self.0.retain(|_, way| way.port != port);
    }

    pub(super) fn age(&mut self, now: u64) {
        self.0.retain(|_, way| !way.is_over(now));
    }
}

impl Oracle {
    /// True for a frame that the node's kernel has to see first.
    pub(super) fn is_for_host(&self, view: &FrameView<'_>, from: &PortSpec, to: &PortSpec) -> bool {
        let ends = [from.role, to.role];
        if ends.contains(&PortRole::Host) {
            return false;
        }
        if self.spec.policy == Policy::ViaHost {
            return true;
        }
        if !self.ways.concerns(from.id, to.id) || self.role(PortRole::Host).is_none() {
            return false;
        }
        let Some(said) = Said::of(view) else {
            return false;
        };
        if said.own.is_some_and(|own| own.target.is_loopback()) {
            return false;
        }
        let asked = || to.role == PortRole::Pod && self.ways.has_spoken(&said.answers);
        self.ways.carried(&said.answers).unwrap_or_else(asked)
    }

    /// A frame goes from one port to another.
    pub(super) fn remember(&mut self, view: &FrameView<'_>, from: PortId, to: PortId) {
        let (Some(from), Some(to)) = (self.row(from), self.row(to)) else {
            return;
        };
        if self.spec.policy == Policy::ViaHost {
            return;
        }
        // Between ports of which nothing is known nobody looks.
        let by_host = [from.role, to.role].contains(&PortRole::Host);
        if !by_host && !self.ways.concerns(from.id, to.id) {
            return;
        }
        let Some(said) = Said::of(view) else { return };
        let Some(own) = said.own else { return };
        let whole = own.ports != Ports::Hidden;
        let way = |by_host, stage, port| Way {
            by_host,
            stage,
            port,
            heard: self.now / UNIT_MS,
        };
        let bare = own.without_ports();
        let by_host = self.ways.carried(&own) == Some(true);
        match (from.role, to.role) {
            (PortRole::Host, PortRole::Pod) => {
                let stage = if whole { said.stage } else { Stage::Datagram };
                let (one, other) = (way(true, stage, to.id), way(true, Stage::Datagram, to.id));
                self.ways.note(Key::Tuple(own), one, self.now);
                if whole {
                    self.ways.note(Key::Tuple(bare), other, self.now);
                }
                if said.stage == Stage::Opening {
                    self.ways.0.remove(&endpoint(&own.reversed()));
                }
            }
            (PortRole::Pod, PortRole::Host) if self.longest(own.target) == Some(NextHop::Host) => {
                let answers = self.ways.carried(&said.answers) == Some(true);
                let stage = if whole { said.stage } else { Stage::Datagram };
                let (one, other) = (
                    way(true, stage, from.id),
                    way(true, Stage::Datagram, from.id),
                );
                let end = way(true, said.stage, from.id);
                if answers && said.stage == Stage::Closing {
                    self.ways.note(Key::Tuple(said.answers), end, self.now);
                }
                if !answers || self.ways.has_spoken(&own) {
                    self.ways.note(endpoint(&own), one, self.now);
                    if whole {
                        self.ways.note(endpoint(&bare), other, self.now);
                    }
                }
            }
            (PortRole::Pod, PortRole::Host) => {}
            (PortRole::Pod, _) if whole && (self.ways.has_spoken(&own) || by_host) => {
                let directly = way(false, said.stage, from.id);
                self.ways.note(Key::Tuple(own), directly, self.now);
            }
            (PortRole::Uplink, PortRole::Pod) if whole && by_host => {
                let directly = way(false, said.stage, to.id);
                self.ways.note(Key::Tuple(own), directly, self.now);
            }
            _ => {}
        }
    }
}
