//! A million addresses in random tables against a scan of all routes, in every run of the tests.
//!
//! In: tables of up to 300 nested and touching routes of both families, built whole and then
//! changed. Out: the same answers, of which each length of a prefix gave some.
//! Never: a chance: the seed is fixed. What chance finds, the properties next door look for.

use std::collections::BTreeSet;

use super::*;

/// Tables of each family; each is looked up in five times: as built, and after four changes.
const TABLES: u64 = 50;
/// Addresses at a time.
const ADDRESSES: usize = 2010;

/// Numbers that look random (splitmix64).
struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.word() % bound as u64) as usize
    }

    /// Bits of an address of `width` bits: those of `near`, some low ones drawn anew, and at times
    /// one in the middle turned. So prefixes share heads of every length.
    fn bits(&mut self, near: u128, width: u8) -> u128 {
        let drawn = u128::from(self.word()) << 64 | u128::from(self.word());
        let low = low_bits(self.below(usize::from(width) + 1) as u8);
        let turned = u128::from(self.below(3) == 0) << self.below(width.into());
        (near & !low | drawn & low) ^ turned
    }
}

fn low_bits(count: u8) -> u128 {
    1u128
        .checked_shl(count.into())
        .map_or(u128::MAX, |top| top - 1)
}

/// One family's routes as a list to be scanned, longest first.
struct Scanned {
    width: u8,
    routes: BTreeMap<(u8, u128), NextHop>,
}

impl Scanned {
    /// Mask, prefix, length and next hop of every route, the longest first: all that a scan needs.
    fn list(&self) -> Vec<(u128, u128, u8, NextHop)> {
        let longest_first = self.routes.iter().rev();
        let row = |((len, prefix), hop): (&(u8, u128), &NextHop)| {
            (!low_bits(self.width - len), *prefix, *len, *hop)
        };
        longest_first.map(row).collect()
    }

    fn address(&self, bits: u128) -> IpAddr {
        if self.width == 32 {
            Ipv4Addr::from(bits as u32).into()
        } else {
            Ipv6Addr::from(bits).into()
        }
    }

    fn net(&self, len: u8, bits: u128) -> IpNet {
        IpNet::new(self.address(bits), len).expect("length in range")
    }

    /// A prefix near `near`, of any length: host bits are cut.
    fn draw(&self, near: u128, random: &mut Random) -> (u8, u128) {
        let len = random.below(usize::from(self.width) + 1) as u8;
        let bits = random.bits(near, self.width);
        (len, bits & !low_bits(self.width - len))
    }
}

/// Where answers came from, over all tables of a family.
#[derive(Default)]
struct Tally {
    asked: usize,
    missed: usize,
    lengths: BTreeSet<u8>,
}

/// Asks for addresses at the edges of routes, in them, near them, and anywhere.
fn compare(fib: &Fib, scanned: &Scanned, near: u128, random: &mut Random, tally: &mut Tally) {
    let list = scanned.list();
    let all = low_bits(scanned.width);
    let (mut addresses, mut hops) = (Vec::new(), Vec::new());
    for nth in 0..ADDRESSES {
        let (len, prefix) = match list.len() {
            0 => (0, 0),
            count => {
                let (_, prefix, len, _) = list[random.below(count)];
                (len, prefix)
            }
        };
        let host = low_bits(scanned.width - len);
        let bits = match nth % 6 {
            0 => prefix,
            1 => prefix | host,
            2 => prefix.wrapping_sub(1) & all,
            3 => (prefix | host).wrapping_add(1) & all,
            4 => prefix | random.bits(0, scanned.width) & host,
            _ => random.bits(near, scanned.width),
        };
        let address = scanned.address(bits);
        let holds = |route: &&(u128, u128, u8, NextHop)| (bits ^ route.1) & route.0 == 0;
        let expected = list.iter().find(holds);
        let found = find(fib, address);
        assert_eq!(found, expected.map(|route| route.3), "{address}");
        addresses.push(address);
        hops.push(found);
        tally.asked += 1;
        match expected {
            Some(route) => drop(tally.lengths.insert(route.2)),
            None => tally.missed += 1,
        }
    }
    assert_eq!(find_all(fib, &addresses), hops, "one by one and together");
}

fn family(width: u8) -> Tally {
    let (mut random, mut tally) = (Random(width.into()), Tally::default());
    for table in 0..TABLES {
        // A table lies in one crowd, so that its routes nest.
        let near = random.bits(random_head(table), width) & low_bits(width);
        let mut scanned = Scanned {
            width,
            routes: BTreeMap::new(),
        };
        // From a handful to three hundred; every other one has a default route.
        for _ in 0..=random.below(6 * (table as usize + 1)) {
            let hop = hop(random.word() as u8);
            scanned.routes.insert(scanned.draw(near, &mut random), hop);
        }
        if table % 2 == 0 {
            scanned.routes.insert((0, 0), hop(table as u8));
        } else {
            scanned.routes.remove(&(0, 0));
        }
        let routes = scanned.routes.iter();
        let routes = routes.map(|((len, bits), hop)| (scanned.net(*len, *bits), *hop));
        // Every third one thinks a handful of routes a crowd.
        let mut rib = match table % 3 {
            0 => Rib::with(CROWDED),
            _ => Rib::default(),
        };
        rib.replace(routes.collect::<Model>())
            .expect("there is room");
        compare(&rib.fib(), &scanned, near, &mut random, &mut tally);
        for _ in 0..4 {
            change(&mut rib, &mut scanned, near, &mut random);
            compare(&rib.fib(), &scanned, near, &mut random, &mut tally);
        }
    }
    tally
}

/// Some bits for the head of a crowd.
fn random_head(table: u64) -> u128 {
    let mut random = Random(table);
    u128::from(random.word()) << 64 | u128::from(random.word())
}

/// A sequence of handfuls of changes: routes go, come, and get other next hops.
fn change(rib: &mut Rib, scanned: &mut Scanned, near: u128, random: &mut Random) {
    for _ in 0..=random.below(2) {
        let mut changes: Vec<Change> = Vec::new();
        for _ in 0..=random.below(12) {
            let known = random.below(2) == 0 && !scanned.routes.is_empty();
            let (len, bits) = if known {
                let nth = random.below(scanned.routes.len());
                *scanned.routes.keys().nth(nth).expect("in range")
            } else {
                scanned.draw(near, random)
            };
            let hop = (random.below(3) > 0).then(|| hop(random.word() as u8));
            match hop {
                Some(hop) => scanned.routes.insert((len, bits), hop),
                None => scanned.routes.remove(&(len, bits)),
            };
            changes.push((scanned.net(len, bits), hop));
        }
        rib.apply(changes).expect("there is room");
    }
}

#[test]
fn a_million_answers_are_those_of_a_scan_and_every_length_gave_some() {
    let (v4, v6) = (family(32), family(128));
    let asked = v4.asked + v6.asked;
    assert!(asked >= 1_000_000, "{asked}");
    assert!(
        v4.missed > 1000 && v6.missed > 1000,
        "tables without a default route"
    );
    let every = |width| (0..=width).collect::<BTreeSet<u8>>();
    assert_eq!(v4.lengths, every(32));
    assert_eq!(v6.lengths, every(128));
}
