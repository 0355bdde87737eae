//! The addresses of a pod CIDR that a pod can hold, and which comes after which.
//!
//! In: a prefix. Out: its first and last host, and the one after another, round and round.
//! Never: lists a range: an IPv6 one has 2^64 addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::PoolFault;

/// The hosts of one prefix: without the network's own address, and for IPv4 without the broadcast
/// address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    prefix: IpNet,
    first: u128,
    last: u128,
}

impl Range {
    /// The hosts of `prefix`, as `host-local` counts them: a prefix that leaves less than two
    /// bits for hosts is too small.
    pub(super) fn of(prefix: IpNet) -> Result<Range, PoolFault> {
        let prefix = prefix.trunc();
        if prefix.max_prefix_len() - prefix.prefix_len() < 2 {
            return Err(PoolFault::TooSmall(prefix));
        }
        let broadcast = u128::from(prefix.addr().is_ipv4());
        Ok(Range {
            prefix,
            first: number(prefix.network()) + 1,
            last: number(prefix.broadcast()) - broadcast,
        })
    }

    /// The prefix.
    pub(super) fn prefix(&self) -> IpNet {
        self.prefix
    }

    /// The first host: the gateway, where nobody says otherwise.
    pub(super) fn first(&self) -> IpAddr {
        self.address(self.first)
    }

    /// The last host.
    pub(super) fn last(&self) -> IpAddr {
        self.address(self.last)
    }

    /// How many hosts there are.
    pub(super) fn count(&self) -> u128 {
        self.last - self.first + 1
    }

    /// True if `address` is one of the hosts.
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.prefix.addr().is_ipv4()
            && (self.first..=self.last).contains(&number(address))
    }

    /// All hosts once, from the one after `last_given` round to it.
    pub(super) fn round(&self, last_given: Option<IpAddr>) -> impl Iterator<Item = IpAddr> {
        let start = match last_given.map(number) {
            Some(given) if (self.first..self.last).contains(&given) => given + 1,
            _ => self.first,
        };
        let (one, other) = (start..=self.last, self.first..start);
        let range = *self;
        one.chain(other).map(move |n| range.address(n))
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.prefix {
            IpNet::V4(_) => Ipv4Addr::from_bits(number as u32).into(),
            IpNet::V6(_) => Ipv6Addr::from_bits(number).into(),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}
