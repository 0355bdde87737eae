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

use crate::bucket::{Bucket, Rate};
use crate::clock::Tick;
use crate::frame::flow::mixed;

/// All errors but those of path MTU discovery.
const ANY: Rate = Rate {
    per_second: 1000,
    burst: 50,
};

/// Path MTU discovery: at once as many as a whole second brings, since many connections may meet a
/// small MTU together.
const PATH_MTU: Rate = Rate::per_second(1000);

/// Errors to one host.
const HOST: Rate = Rate {
    per_second: 1,
    burst: 6,
};

/// Buckets for hosts. A node has 110 pods at most by default, and 250 where Azure allows it.
pub(crate) const HOSTS: usize = 512;

/// Bytes of the limits of one worker.
pub(crate) const BYTES: usize = HOSTS * size_of::<Bucket>();

/// What an error is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// The sender learns the MTU of its path.
    PathMtu,
    /// Anything else.
    Other,
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
            any: Bucket::FULL,
            path_mtu: Bucket::FULL,
            hosts: Box::new([Bucket::FULL; HOSTS]),
        }
    }

    /// As new.
    pub(crate) fn begin_anew(&mut self) {
        (self.any, self.path_mtu) = (Bucket::FULL, Bucket::FULL);
        static FULL: [Bucket; HOSTS] = [Bucket::FULL; HOSTS];
        self.hosts.copy_from_slice(&FULL);
    }

    /// May an error go to `host` now? If so it is counted as sent. What one limit refuses costs
    /// nothing under another.
    pub(crate) fn allow(&mut self, host: IpAddr, needed: Use, now: Tick) -> bool {
        if needed == Use::PathMtu {
            let may = self.path_mtu.has(1, PATH_MTU, now);
            if may {
                self.path_mtu.take(1);
            }
            return may;
        }
        let bucket = &mut self.hosts[place(host)];
        let may = self.any.has(1, ANY, now) && bucket.has(1, HOST, now);
        if may {
            self.any.take(1);
            bucket.take(1);
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
