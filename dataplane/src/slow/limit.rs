//! How many ICMP errors are sent: RFC 1812 4.3.2.8 and RFC 4443 2.4(f).
//!
//! In: for whom an error is, whether path MTU discovery needs it, and the time.
//! Out: may it be sent? Never: allocates after `new`.
//!
//! The numbers are the kernel's: 1000 in a second, 50 at once (`icmp_msgs_per_sec`,
//! `icmp_msgs_burst`), and to one host one in a second, six at once (`icmp_ratelimit`,
//! `XRLIM_BURST_FACTOR` of net/ipv4/route.c). Hosts share a bucket where their hashes do, which
//! only makes the limit stricter. The kernel does not limit what path MTU discovery waits for at
//! all; RFC 4443 demands it, so those errors have one bucket of their own, and none for each host:
//! a host may have many connections, and each of them needs its answer.
//!
//! Each worker has its own limits.

use std::net::IpAddr;

use crate::clock::Tick;
use crate::frame::flow::mixed;

/// All errors but those of path MTU discovery: one a millisecond, 50 at once.
const ANY: Rate = Rate {
    cost_ms: 1,
    burst: 50,
};

/// Path MTU discovery: one a millisecond; at once as many as a whole second brings, since many
/// connections may meet a small MTU together.
const PATH_MTU: Rate = Rate {
    cost_ms: 1,
    burst: 1000,
};

/// Errors to one host: one a second, six at once.
const HOST: Rate = Rate {
    cost_ms: 1000,
    burst: 6,
};

/// Buckets for hosts. A node has 110 pods at most by default, and 250 where Azure allows it.
const HOSTS: usize = 512;

/// What an error is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// The sender learns the MTU of its path.
    PathMtu,
    /// Anything else.
    Other,
}

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy)]
struct Rate {
    cost_ms: u64,
    burst: u64,
}

/// A token bucket, whose tokens are counted in the milliseconds that they take to come back.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    credit_ms: u64,
    at: Tick,
}

impl Bucket {
    const fn full(rate: Rate) -> Bucket {
        Bucket {
            credit_ms: rate.cost_ms * rate.burst,
            at: Tick(0),
        }
    }

    /// Fills up for the time that has passed; then, is there enough for one?
    fn has_one(&mut self, rate: Rate, now: Tick) -> bool {
        let most = rate.cost_ms * rate.burst;
        let grown = self.credit_ms.saturating_add(now.since(self.at));
        *self = Bucket {
            credit_ms: grown.min(most),
            at: now,
        };
        self.credit_ms >= rate.cost_ms
    }

    fn take_one(&mut self, rate: Rate) {
        self.credit_ms -= rate.cost_ms;
    }
}

/// The limits of one worker.
#[derive(Debug)]
pub(crate) struct Limits {
    any: Bucket,
    path_mtu: Bucket,
    hosts: Box<[Bucket; HOSTS]>,
}

impl Limits {
    pub(crate) fn new() -> Limits {
        Limits {
            any: Bucket::full(ANY),
            path_mtu: Bucket::full(PATH_MTU),
            hosts: Box::new([Bucket::full(HOST); HOSTS]),
        }
    }

    /// May an error go to `host` now? If so it is counted as sent. What one limit refuses costs
    /// nothing under another.
    pub(crate) fn allow(&mut self, host: IpAddr, needed: Use, now: Tick) -> bool {
        if needed == Use::PathMtu {
            let may = self.path_mtu.has_one(PATH_MTU, now);
            if may {
                self.path_mtu.take_one(PATH_MTU);
            }
            return may;
        }
        let bucket = &mut self.hosts[place(host)];
        let may = self.any.has_one(ANY, now) && bucket.has_one(HOST, now);
        if may {
            self.any.take_one(ANY);
            bucket.take_one(HOST);
        }
        may
    }
}

/// Which bucket is for `host`. Every bit of an address counts, above all the last ones: they are
/// what tells the pods of a node apart, and what `FxHasher` drops of IPv6.
fn place(host: IpAddr) -> usize {
    let bits = match host {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    mixed((bits >> 64) as u64, bits as u64) as usize % HOSTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pods_of_a_node_seldom_share_a_bucket() {
        let v4 = |n: u16| IpAddr::from([10, 244, 1, n as u8]);
        let v6 = |n: u16| IpAddr::from([0xfd00, 0x244, 0, 1, 0, 0, 0, n]);
        for family in [v4, v6] {
            let places: std::collections::HashSet<usize> =
                (0..110).map(|n| place(family(n))).collect();
            // By chance 99 of 110 would be apart.
            assert!(places.len() > 85, "{} buckets for 110 hosts", places.len());
        }
    }

    fn host(last: u16) -> IpAddr {
        let [a, b] = last.to_be_bytes();
        [10, 244, a, b].into()
    }

    /// How many of `asked` errors may go to one host at `now`.
    fn allowed(limits: &mut Limits, asked: u32, to: IpAddr, needed: Use, now: u64) -> u32 {
        (0..asked)
            .map(|_| u32::from(limits.allow(to, needed, Tick(now))))
            .sum()
    }

    #[test]
    fn one_host_gets_six_at_once_and_then_one_a_second() {
        let mut limits = Limits::new();
        assert_eq!(allowed(&mut limits, 100, host(1), Use::Other, 5), 6);
        assert_eq!(allowed(&mut limits, 100, host(1), Use::Other, 1004), 0);
        assert_eq!(allowed(&mut limits, 100, host(1), Use::Other, 1005), 1);
        assert_eq!(allowed(&mut limits, 100, host(1), Use::Other, 3500), 2);
        let much_later = allowed(&mut limits, 100, host(1), Use::Other, 1 << 40);
        assert_eq!(much_later, 6, "credit does not grow for ever");
    }

    #[test]
    fn all_hosts_together_get_fifty_at_once_and_then_a_thousand_a_second() {
        let mut limits = Limits::new();
        let mut all = |now: u64| -> u32 {
            (0..2000)
                .map(|n| allowed(&mut limits, 1, host(n), Use::Other, now))
                .sum()
        };
        assert_eq!(all(0), 50);
        assert_eq!(all(10), 10);
        let second: u32 = (11..1011).map(&mut all).sum();
        assert_eq!(second, 1000);
    }

    #[test]
    fn path_mtu_discovery_waits_for_no_other_errors() {
        let mut limits = Limits::new();
        assert_eq!(allowed(&mut limits, 100, host(1), Use::Other, 0), 6);
        assert_eq!(allowed(&mut limits, 3000, host(1), Use::PathMtu, 0), 1000);
        assert_eq!(allowed(&mut limits, 100, host(1), Use::PathMtu, 7), 7);
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_gives_nothing() {
        let mut limits = Limits::new();
        assert_eq!(allowed(&mut limits, 10, host(1), Use::Other, 9000), 6);
        assert_eq!(allowed(&mut limits, 10, host(1), Use::Other, 1000), 0);
        assert_eq!(allowed(&mut limits, 10, host(1), Use::Other, 1999), 0);
    }
}
