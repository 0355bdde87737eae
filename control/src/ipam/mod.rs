//! Which address an attachment gets.
//!
//! In: what the node may give out (pod CIDRs under kubenet, the NIC's secondary addresses under
//! azure), who holds what already, and the time.
//! Out: one address of each family for each holder, or why there is none.
//! Never: reads a clock or a file, gives one address to two holders, or gives the gateway away.
//!
//! The two modes give in different orders. kubenet goes round its pod CIDR as `host-local` does:
//! from the address after the one given last, so that an address is used again only after all
//! others. azure has as many addresses as pods at most, and its own IPAM gave a released one out
//! again at once, to be reached by nobody until stale neighbour entries expired; here those never
//! used come first, then the one that was released longest ago, and none before it has rested.
//!
//! A pool is rebuilt after a restart from the attachments that live ([`Pool::hold`]). Its
//! [`Memory`] is the rest of what it knows: kept, the order goes on where it was; lost, nothing
//! worse happens than an address used again early.

mod range;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use range::Range;

/// How long a released secondary address rests: as long as neighbour entries that nobody
/// confirms stay reachable by default (`base_reachable_time`, RFC 4861 10).
pub const REST_DEFAULT: Duration = Duration::from_secs(30);

/// An address as a pod bears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Given {
    /// The address, with the prefix length of its link.
    pub address: IpNet,
    /// The gateway on that link.
    pub gateway: IpAddr,
}

/// Why a pool cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolFault {
    /// No host would be left beside the gateway.
    #[error("{0} is too small to give addresses from: at least two bits must be left for hosts")]
    TooSmall(IpNet),
    /// A gateway that pods on that link could not reach.
    #[error("the gateway {gateway} is not a host of {prefix}")]
    GatewayElsewhere {
        /// The link.
        prefix: IpNet,
        /// The gateway.
        gateway: IpAddr,
    },
    /// A pod has one address of each family.
    #[error("{0} and {1} are of one family, and a pod gets one address of each")]
    OneFamily(IpNet, IpNet),
}

/// Why an address was not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// All are held.
    #[error("no address of {from} is free: all {count} are held")]
    Exhausted {
        /// The pod CIDR, or what to call the list.
        from: String,
        /// How many there are.
        count: u128,
    },
    /// Those not held were released a moment ago.
    #[error("no address of {from} is free yet: the next has rested in {} s", .ready_in.as_secs() + 1)]
    Resting {
        /// What to call the list.
        from: String,
        /// When to try again.
        ready_in: Duration,
    },
    /// The address asked for is somebody's.
    #[error("{address} is held by {holder}")]
    Held {
        /// The address.
        address: IpAddr,
        /// Who holds it, in words.
        holder: String,
    },
    /// The address asked for is the gateway's.
    #[error("{0} is the gateway's")]
    Gateway(IpAddr),
    /// The address asked for is none that this node may give.
    #[error("{0} is not an address that this node may give to a pod")]
    NotOurs(IpAddr),
    /// More than one address of a family was asked for.
    #[error("{0} and {1} were asked for, and a pod gets one address of each family")]
    TwoOfOneFamily(IpAddr, IpAddr),
    /// The holder has addresses already.
    #[error("{0} holds addresses already")]
    HoldsAlready(String),
}

/// Where an address stands that was held before a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is one of those that the pool gives.
    Ours,
    /// It is not: the node lost it, or an `ipam` plugin gave it. Held all the same.
    Foreign,
}

/// What a pool knows besides its holders; worth keeping over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// The address given last of each range.
    pub last: Vec<IpAddr>,
    /// Secondary addresses that are free and were used, the one released longest ago first.
    pub released: Vec<IpAddr>,
}

/// How full a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Addresses that may be given to pods.
    pub total: u128,
    /// Those of them that are held.
    pub held: u128,
    /// Those of them that were released a moment ago.
    pub resting: u128,
}

impl Fill {
    /// Addresses that could be given now.
    #[must_use]
    pub fn free(&self) -> u128 {
        self.total - self.held - self.resting
    }
}

/// The addresses that a node gives to its pods, and who holds which. `K` names a holder: an
/// attachment.
#[derive(Clone, Debug)]
pub struct Pool<K> {
    supplies: Vec<Supply>,
    held: BTreeMap<IpAddr, K>,
}

/// Addresses of one family, given in one order.
#[derive(Clone, Debug)]
enum Supply {
    Round {
        range: Range,
        gateway: IpAddr,
        last: Option<IpAddr>,
    },
    Listed {
        v4: bool,
        listed: BTreeMap<IpAddr, Given>,
        /// Free ones that were used, each once, with the time of release, oldest first.
        released: VecDeque<(IpAddr, Duration)>,
        rest: Duration,
    },
}

impl<K: Clone + Eq + fmt::Display> Pool<K> {
    /// kubenet's: the hosts of the node's pod CIDRs, at most one of each family, each with its
    /// gateway, which is the first host where there is `None`.
    ///
    /// # Errors
    /// [`PoolFault`], the first.
    pub fn of_pod_cidrs(cidrs: &[(IpNet, Option<IpAddr>)]) -> Result<Pool<K>, PoolFault> {
        let mut supplies = Vec::new();
        for (at, (prefix, gateway)) in cidrs.iter().enumerate() {
            let is_v4 = |net: &IpNet| net.addr().is_ipv4();
            let twin = |(other, _): &&(IpNet, _)| is_v4(other) == is_v4(prefix);
            if let Some((other, _)) = cidrs[..at].iter().find(twin) {
                return Err(PoolFault::OneFamily(*other, *prefix));
            }
            let range = Range::of(*prefix)?;
            let gateway = gateway.unwrap_or(range.first());
            if !range.holds(gateway) {
                let prefix = range.prefix();
                return Err(PoolFault::GatewayElsewhere { prefix, gateway });
            }
            supplies.push(Supply::Round {
                range,
                gateway,
                last: None,
            });
        }
        Ok(Pool {
            supplies,
            held: BTreeMap::new(),
        })
    }

    /// azure's: the secondary addresses of the node's NIC with the prefix lengths of their
    /// subnets. A gateway, and an address that stands there twice, are left out.
    #[must_use]
    pub fn of_secondary_addresses(addresses: &[Given], rest: Duration) -> Pool<K> {
        let mut supplies = Vec::new();
        for v4 in [true, false] {
            let listed = list(addresses, v4);
            // An empty list of IPv4 addresses is a node that can serve nobody, and has to say so.
            if v4 || !listed.is_empty() {
                supplies.push(Supply::Listed {
                    v4,
                    listed,
                    released: VecDeque::new(),
                    rest,
                });
            }
        }
        Pool {
            supplies,
            held: BTreeMap::new(),
        }
    }

    /// The NIC's secondary addresses have changed. Holders keep theirs; one that is no longer
    /// listed is not given again. Families do not come and go: pods have what they have.
    pub fn relist(&mut self, addresses: &[Given]) {
        for supply in &mut self.supplies {
            if let Supply::Listed {
                v4,
                listed,
                released,
                ..
            } = supply
            {
                *listed = list(addresses, *v4);
                released.retain(|(address, _)| listed.contains_key(address));
            }
        }
    }

    /// Records what an attachment that lives has held since before.
    ///
    /// # Errors
    /// [`Refusal::Held`] if it is recorded for somebody else.
    pub fn hold(&mut self, address: IpAddr, holder: K) -> Result<Standing, Refusal> {
        if let Some(other) = self.held.get(&address).filter(|other| **other != holder) {
            return Err(held_by(address, other));
        }
        self.held.insert(address, holder);
        let mut standing = Standing::Foreign;
        for supply in &mut self.supplies {
            if supply.find(address).is_some() {
                standing = Standing::Ours;
            }
            supply.forget_release(address);
        }
        Ok(standing)
    }

    /// Gives the holder one address of each family that the pool has: those `requested`, else the
    /// next. `now` counts from any fixed moment.
    ///
    /// # Errors
    /// [`Refusal`]; then nothing is given.
    pub fn take(
        &mut self,
        holder: &K,
        requested: &[IpAddr],
        now: Duration,
    ) -> Result<Vec<Given>, Refusal> {
        if self.held.values().any(|other| other == holder) {
            return Err(Refusal::HoldsAlready(holder.to_string()));
        }
        for (at, one) in requested.iter().enumerate() {
            let twin = |other: &&IpAddr| other.is_ipv4() == one.is_ipv4();
            if let Some(other) = requested[..at].iter().find(twin) {
                return Err(Refusal::TwoOfOneFamily(*other, *one));
            }
            if !self.supplies.iter().any(|s| s.is_v4() == one.is_ipv4()) {
                return Err(Refusal::NotOurs(*one));
            }
        }
        let mut chosen = Vec::new();
        for supply in &self.supplies {
            let wanted = requested.iter().find(|r| r.is_ipv4() == supply.is_v4());
            chosen.push(match wanted {
                Some(address) => self.exactly(supply, *address, now)?,
                None => supply.next(&self.held, now)?,
            });
        }
        for (supply, given) in self.supplies.iter_mut().zip(&chosen) {
            let address = given.address.addr();
            supply.forget_release(address);
            // One that was asked for is no part of the round.
            if let (Supply::Round { last, .. }, false) =
                (&mut *supply, requested.contains(&address))
            {
                *last = Some(address);
            }
            self.held.insert(address, holder.clone());
        }
        Ok(chosen)
    }

    /// Takes back all that the holder has, and says what it was. Nothing is no error.
    pub fn release(&mut self, holder: &K, now: Duration) -> Vec<IpAddr> {
        let theirs = |(address, other): (&IpAddr, &K)| (other == holder).then_some(*address);
        let addresses: Vec<IpAddr> = self.held.iter().filter_map(theirs).collect();
        for address in &addresses {
            self.held.remove(address);
            self.supplies
                .iter_mut()
                .for_each(|supply| supply.note_release(*address, now));
        }
        addresses
    }

    /// Who holds the address.
    #[must_use]
    pub fn holder(&self, address: IpAddr) -> Option<&K> {
        self.held.get(&address)
    }

    /// How full the family is that has least left; an empty pool is full.
    #[must_use]
    pub fn fill(&self, now: Duration) -> Fill {
        let none = Fill {
            total: 0,
            held: 0,
            resting: 0,
        };
        let fills = self.supplies.iter().map(|s| s.fill(&self.held, now));
        fills.min_by_key(Fill::free).unwrap_or(none)
    }

    /// What to keep over a restart beside the holders.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for supply in &self.supplies {
            match supply {
                Supply::Round { last, .. } => memory.last.extend(*last),
                Supply::Listed { released, .. } => {
                    memory.released.extend(released.iter().map(|(a, _)| *a));
                }
            }
        }
        memory
    }

    /// Goes on where a pool with that memory was, after the holders were recorded. Addresses that
    /// were resting rest anew; what does not fit this pool is passed over.
    pub fn remember(&mut self, memory: &Memory, now: Duration) {
        for supply in &mut self.supplies {
            if let Supply::Round { range, last, .. } = supply {
                *last = memory.last.iter().copied().find(|a| range.holds(*a));
            }
        }
        for address in &memory.released {
            if !self.held.contains_key(address) {
                self.supplies
                    .iter_mut()
                    .for_each(|supply| supply.note_release(*address, now));
            }
        }
    }

    fn exactly(&self, from: &Supply, address: IpAddr, now: Duration) -> Result<Given, Refusal> {
        if let Some(holder) = self.held.get(&address) {
            return Err(held_by(address, holder));
        }
        if from.has_gateway(address) {
            return Err(Refusal::Gateway(address));
        }
        let given = from.find(address).ok_or(Refusal::NotOurs(address))?;
        match from.resting(address, now) {
            Some(ready_in) => Err(Refusal::Resting {
                from: address.to_string(),
                ready_in,
            }),
            None => Ok(given),
        }
    }
}

impl Supply {
    fn is_v4(&self) -> bool {
        match self {
            Supply::Round { range, .. } => range.prefix().addr().is_ipv4(),
            Supply::Listed { v4, .. } => *v4,
        }
    }

    fn name(&self) -> String {
        match self {
            Supply::Round { range, .. } => range.prefix().to_string(),
            Supply::Listed { .. } => "the node's secondary addresses".into(),
        }
    }

    fn has_gateway(&self, address: IpAddr) -> bool {
        match self {
            Supply::Round { gateway, .. } => *gateway == address,
            Supply::Listed { listed, .. } => listed.values().any(|g| g.gateway == address),
        }
    }

    /// The address as it would be given.
    fn find(&self, address: IpAddr) -> Option<Given> {
        match self {
            Supply::Round { range, gateway, .. } => (range.holds(address) && address != *gateway)
                .then(|| Given {
                    address: IpNet::new(address, range.prefix().prefix_len())
                        .expect("an address of the prefix's own family"),
                    gateway: *gateway,
                }),
            Supply::Listed { listed, .. } => listed.get(&address).copied(),
        }
    }

    fn next<K>(&self, held: &BTreeMap<IpAddr, K>, now: Duration) -> Result<Given, Refusal> {
        let fill = self.fill(held, now);
        if fill.held == fill.total {
            return Err(Refusal::Exhausted {
                from: self.name(),
                count: fill.total,
            });
        }
        let free = |address: &IpAddr| !held.contains_key(address);
        let found = match self {
            Supply::Round { range, last, .. } => range
                .round(*last)
                .filter(free)
                .find_map(|address| self.find(address)),
            Supply::Listed {
                listed, released, ..
            } => {
                let used = |address: &IpAddr| released.iter().any(|(other, _)| other == address);
                let fresh = listed.keys().copied().find(|a| free(a) && !used(a));
                let oldest = released.front().map(|(address, _)| *address);
                let rested = oldest.filter(|address| self.resting(*address, now).is_none());
                fresh.or(rested).and_then(|address| self.find(address))
            }
        };
        found.ok_or_else(|| self.still_resting(now))
    }

    fn still_resting(&self, now: Duration) -> Refusal {
        let oldest = match self {
            Supply::Round { .. } => None,
            Supply::Listed { released, .. } => released.front(),
        };
        let ready_in = oldest.and_then(|(address, _)| self.resting(*address, now));
        Refusal::Resting {
            from: self.name(),
            ready_in: ready_in.unwrap_or_default(),
        }
    }

    /// How long the address has to rest yet.
    fn resting(&self, address: IpAddr, now: Duration) -> Option<Duration> {
        let Supply::Listed { released, rest, .. } = self else {
            return None;
        };
        let (_, since) = released.iter().find(|(other, _)| *other == address)?;
        left(*since, *rest, now)
    }

    fn forget_release(&mut self, address: IpAddr) {
        if let Supply::Listed { released, .. } = self {
            released.retain(|(other, _)| *other != address);
        }
    }

    fn note_release(&mut self, address: IpAddr, now: Duration) {
        if let Supply::Listed {
            listed, released, ..
        } = self
            && listed.contains_key(&address)
        {
            released.retain(|(other, _)| *other != address);
            released.push_back((address, now));
        }
    }

    fn fill<K>(&self, held: &BTreeMap<IpAddr, K>, now: Duration) -> Fill {
        let count = |n: usize| n as u128;
        match self {
            Supply::Round { range, gateway, .. } => {
                let taken = held.range(range.first()..=range.last());
                Fill {
                    // The gateway is one of the hosts, and never given.
                    total: range.count() - 1,
                    held: count(taken.filter(|(address, _)| *address != gateway).count()),
                    resting: 0,
                }
            }
            Supply::Listed {
                listed,
                released,
                rest,
                ..
            } => {
                let resting = |(_, since): &&(_, Duration)| left(*since, *rest, now).is_some();
                Fill {
                    total: count(listed.len()),
                    held: count(listed.keys().filter(|a| held.contains_key(a)).count()),
                    resting: count(released.iter().filter(resting).count()),
                }
            }
        }
    }
}

/// What is left of a rest that began at `since`.
fn left(since: Duration, rest: Duration, now: Duration) -> Option<Duration> {
    let left = (since + rest).checked_sub(now)?;
    (!left.is_zero()).then_some(left)
}

fn list(addresses: &[Given], v4: bool) -> BTreeMap<IpAddr, Given> {
    let is_gateway = |address: IpAddr| addresses.iter().any(|g| g.gateway == address);
    addresses
        .iter()
        .map(|given| (given.address.addr(), *given))
        .filter(|(address, _)| address.is_ipv4() == v4 && !is_gateway(*address))
        .collect()
}

fn held_by<K: fmt::Display>(address: IpAddr, holder: &K) -> Refusal {
    Refusal::Held {
        address,
        holder: holder.to_string(),
    }
}
