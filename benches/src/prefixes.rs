//! Routes and addresses for longest-prefix matches, made as `dpdk-test-fib` makes its own.
//!
//! In: how many, and the family. Out: as many prefixes of each length, spread evenly, and
//! addresses that lie in one of them. The same in every run.
//! Never: a file of somebody's routes: whoever measures has them all here.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A small generator whose seed is the whole story (splitmix64).
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 128 bits.
    pub fn wide(&mut self) -> u128 {
        u128::from(self.word()) << 64 | u128::from(self.word())
    }
}

/// Routes, each with a number for its next hop, and what to look up.
#[derive(Debug)]
pub struct Case<A> {
    /// The routes, sorted, no prefix twice.
    pub routes: Vec<(IpNet, u16)>,
    /// Addresses in a random route each.
    pub hits: Vec<A>,
    /// Addresses drawn from all.
    pub random: Vec<A>,
}

/// About `count` IPv4 routes, and `addresses` of each kind.
#[must_use]
pub fn v4(count: usize, addresses: usize) -> Case<Ipv4Addr> {
    case(count, addresses, 32, |bits| Ipv4Addr::from(bits as u32))
}

/// About `count` IPv6 routes, and `addresses` of each kind.
#[must_use]
pub fn v6(count: usize, addresses: usize) -> Case<Ipv6Addr> {
    case(count, addresses, 128, Ipv6Addr::from)
}

fn case<A: Into<IpAddr>>(
    count: usize,
    addresses: usize,
    width: u32,
    address: impl Fn(u128) -> A,
) -> Case<A> {
    let mut random = Random(count as u64);
    let prefixes = prefixes(count, width, &mut random);
    let hits = (0..addresses).map(|_| {
        let (bits, len) = prefixes[random.word() as usize % prefixes.len()];
        address(bits | low_bits(random.wide(), width - u32::from(len)))
    });
    let hits = hits.collect();
    let routes = prefixes.iter().map(|&(bits, len)| {
        let net = IpNet::new(address(bits).into(), len).expect("length in range");
        (net, random.word() as u16 & 0x7fff)
    });
    let routes = routes.collect();
    let random = (0..addresses).map(|_| address(random.wide())).collect();
    Case {
        routes,
        hits,
        random,
    }
}

impl<A: std::fmt::Display> Case<A> {
    /// The routes and the hits as text, as `dpdk-test-fib` reads them (`-f` and `-t`).
    #[must_use]
    pub fn to_text(&self) -> [String; 2] {
        let (mut routes, mut hits) = (String::new(), String::new());
        for (net, number) in &self.routes {
            let _ = writeln!(routes, "{net} {number}");
        }
        for address in &self.hits {
            let _ = writeln!(hits, "{address}");
        }
        [routes, hits]
    }
}

/// About `count` prefixes of `width` bits, as many of each length as there can be.
fn prefixes(count: usize, width: u32, random: &mut Random) -> Vec<(u128, u8)> {
    let mut all = vec![(0, 0)];
    for len in 1..=width {
        let left = count - all.len();
        let share = left.div_ceil((width - len + 1) as usize);
        let possible = 1u128.checked_shl(len).unwrap_or(u128::MAX);
        let here = share.min(usize::try_from(possible).unwrap_or(usize::MAX)) as u128;
        let head_bits = len.min(32);
        for n in 0..here {
            let step = (1u128 << head_bits) / here.min(1 << head_bits);
            let head = n * step + random.wide() % step.max(1);
            let bits = head << (width - head_bits) | low_bits(random.wide(), width - head_bits);
            all.push((bits & !low_bits(u128::MAX, width - len), len as u8));
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn low_bits(bits: u128, count: u32) -> u128 {
    bits & 1u128.checked_shl(count).map_or(u128::MAX, |top| top - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hit_lies_in_a_route_and_every_length_occurs() {
        let case = v4(1000, 50);
        let lies_in_one = |address: &Ipv4Addr| {
            let holds = |net: &IpNet| net.prefix_len() > 0 && net.contains(&IpAddr::V4(*address));
            case.routes.iter().any(|(net, _)| holds(net))
        };
        // The default route is drawn as often as any other.
        assert!(case.hits.iter().filter(|hit| lies_in_one(hit)).count() >= 48);
        let lengths = |routes: &[(IpNet, u16)]| {
            let lengths = routes.iter().map(|(net, _)| net.prefix_len());
            lengths.collect::<std::collections::BTreeSet<u8>>().len()
        };
        assert_eq!(lengths(&case.routes), 33);
        assert_eq!(lengths(&v6(1000, 1).routes), 129);
        let [routes, hits] = case.to_text();
        assert!(routes.starts_with("0.0.0.0/0 "), "{routes}");
        assert_eq!(hits.lines().count(), 50);
    }
}
