//! The allocator against two plain models: a list of all addresses that is walked by hand, and a
//! queue. Sequences of ADDs, DELs, requests, waits and restarts of any order must not tell them
//! apart.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn kubenet(cidrs: &[&str]) -> Pool<u32> {
    let cidrs: Vec<_> = cidrs.iter().map(|cidr| (net(cidr), None)).collect();
    Pool::of_pod_cidrs(&cidrs).expect("large enough")
}

fn secondary(last_octets: std::ops::RangeInclusive<u8>) -> Vec<Given> {
    let given = |octet| Given {
        address: net(&format!("10.20.0.{octet}/24")),
        gateway: ip("10.20.0.1"),
    };
    last_octets.map(given).collect()
}

fn addresses(given: &[Given]) -> Vec<String> {
    given.iter().map(|g| g.address.to_string()).collect()
}

#[test]
fn kubenet_goes_round_its_pod_cidr_and_never_gives_the_gateway() {
    let mut pool = kubenet(&["10.244.0.0/29"]);
    let mut now = Duration::ZERO;
    let mut seen = Vec::new();
    for holder in 0..12 {
        let given = pool.take(&holder, &[], now).expect("one is free");
        assert_eq!(given[0].gateway, ip("10.244.0.1"));
        seen.extend(addresses(&given));
        pool.release(&holder, now);
        now += Duration::from_millis(1);
    }
    let round: Vec<String> = (2..=6).map(|n| format!("10.244.0.{n}/29")).collect();
    assert_eq!(seen, [&round[..], &round[..], &round[..2]].concat());
}

#[test]
fn a_full_range_says_so_and_gives_again_what_comes_back() {
    let mut pool = kubenet(&["10.244.3.0/24"]);
    for holder in 0..253 {
        pool.take(&holder, &[], MINUTE)
            .expect("253 hosts beside the gateway");
    }
    let full = pool.take(&1000, &[], MINUTE).expect_err("full");
    assert_eq!(
        full.to_string(),
        "no address of 10.244.3.0/24 is free: all 253 are held"
    );
    assert_eq!(pool.fill(MINUTE).free(), 0);
    assert_eq!(pool.release(&7, MINUTE), [ip("10.244.3.9")]);
    let given = pool.take(&1000, &[], MINUTE).expect("one is free");
    assert_eq!(addresses(&given), ["10.244.3.9/24"]);
}

#[test]
fn a_pod_of_a_dual_stack_node_gets_an_address_of_each_family_or_none() {
    let mut pool = kubenet(&["10.244.0.0/30", "fd00:10:244::/64"]);
    let given = pool.take(&1, &[], MINUTE).expect("free");
    assert_eq!(addresses(&given), ["10.244.0.2/30", "fd00:10:244::2/64"]);
    assert_eq!(given[1].gateway, ip("fd00:10:244::1"));
    assert!(matches!(
        pool.take(&2, &[], MINUTE),
        Err(Refusal::Exhausted { .. })
    ));
    // The IPv6 address that would have been given went back.
    pool.release(&1, MINUTE);
    let given = pool.take(&2, &[], MINUTE).expect("free again");
    assert_eq!(addresses(&given), ["10.244.0.2/30", "fd00:10:244::3/64"]);
}

#[test]
fn an_address_that_is_asked_for_is_given_if_it_may_be() {
    let mut pool = kubenet(&["10.244.0.0/24"]);
    let wanted = ip("10.244.0.77");
    let given = pool.take(&1, &[wanted], MINUTE).expect("free");
    assert_eq!(addresses(&given), ["10.244.0.77/24"]);
    let ask = |pool: &mut Pool<u32>, wanted: &[&str]| {
        let wanted: Vec<IpAddr> = wanted.iter().map(|w| ip(w)).collect();
        let no = pool.take(&2, &wanted, MINUTE).expect_err("refused");
        no.to_string()
    };
    assert_eq!(ask(&mut pool, &["10.244.0.77"]), "10.244.0.77 is held by 1");
    assert_eq!(
        ask(&mut pool, &["10.244.0.1"]),
        "10.244.0.1 is the gateway's"
    );
    for elsewhere in ["10.244.0.0", "10.244.0.255", "10.244.1.4", "fd00::2"] {
        let why = ask(&mut pool, &[elsewhere]);
        let is_none = format!("{elsewhere} is not an address that this node may give to a pod");
        assert_eq!(why, is_none);
    }
    assert!(ask(&mut pool, &["10.244.0.4", "10.244.0.5"]).contains("one address of each family"));
    assert_eq!(
        pool.take(&1, &[], MINUTE),
        Err(Refusal::HoldsAlready("1".into()))
    );
    // The round begins where it would have without the request.
    let given = pool.take(&2, &[], MINUTE).expect("free");
    assert_eq!(addresses(&given), ["10.244.0.2/24"]);
}

#[test]
fn a_released_secondary_address_rests_and_the_unused_come_first() {
    let mut pool: Pool<u32> = Pool::of_secondary_addresses(&secondary(5..=7), REST_DEFAULT);
    let second = Duration::from_secs(1);
    let take = |pool: &mut Pool<u32>, holder, now| {
        pool.take(&holder, &[], now).map(|given| addresses(&given))
    };
    assert_eq!(take(&mut pool, 1, second), Ok(vec!["10.20.0.5/24".into()]));
    pool.release(&1, second);
    assert_eq!(take(&mut pool, 2, second), Ok(vec!["10.20.0.6/24".into()]));
    assert_eq!(take(&mut pool, 3, second), Ok(vec!["10.20.0.7/24".into()]));
    let early = take(&mut pool, 4, second * 11).expect_err("it rests");
    assert_eq!(
        early.to_string(),
        "no address of the node's secondary addresses is free yet: the next has rested in 21 s"
    );
    let fill = pool.fill(second * 11);
    assert_eq!(
        (fill.total, fill.held, fill.resting, fill.free()),
        (3, 2, 1, 0)
    );
    let asked = pool.take(&4, &[ip("10.20.0.5")], second * 11);
    assert!(matches!(asked, Err(Refusal::Resting { .. })), "{asked:?}");
    assert_eq!(
        take(&mut pool, 4, second * 31),
        Ok(vec!["10.20.0.5/24".into()])
    );
    let full = take(&mut pool, 5, second * 31).expect_err("all are held");
    assert!(
        matches!(full, Refusal::Exhausted { count: 3, .. }),
        "{full:?}"
    );
}

#[test]
fn when_the_nic_loses_an_address_its_holder_keeps_it_and_nobody_gets_it_after() {
    let mut pool: Pool<u32> = Pool::of_secondary_addresses(&secondary(5..=6), MINUTE);
    pool.take(&1, &[], MINUTE).expect("free");
    pool.relist(&secondary(6..=8));
    assert_eq!(pool.holder(ip("10.20.0.5")), Some(&1));
    assert_eq!(pool.release(&1, MINUTE), [ip("10.20.0.5")]);
    let mut got = Vec::new();
    for holder in 2..5 {
        got.extend(addresses(
            &pool.take(&holder, &[], MINUTE * 9).expect("free"),
        ));
    }
    assert_eq!(got, ["10.20.0.6/24", "10.20.0.7/24", "10.20.0.8/24"]);
    assert!(pool.take(&9, &[], MINUTE * 9).is_err());
}

#[test]
fn after_a_restart_holders_hold_and_a_foreign_address_is_held_too() {
    let mut pool = kubenet(&["10.244.0.0/24"]);
    assert_eq!(pool.hold(ip("10.244.0.5"), 1), Ok(Standing::Ours));
    assert_eq!(pool.hold(ip("192.168.9.9"), 2), Ok(Standing::Foreign));
    assert_eq!(
        pool.hold(ip("10.244.0.5"), 1),
        Ok(Standing::Ours),
        "twice is once"
    );
    assert!(matches!(
        pool.hold(ip("10.244.0.5"), 3),
        Err(Refusal::Held { .. })
    ));
    assert_eq!(pool.release(&2, MINUTE), [ip("192.168.9.9")]);
    assert_eq!(pool.release(&2, MINUTE), [] as [IpAddr; 0]);
}

#[test]
fn a_range_without_room_and_a_gateway_elsewhere_are_refused() {
    let make = |cidrs: &[(&str, Option<&str>)]| {
        let cidrs: Vec<_> = cidrs.iter().map(|(c, g)| (net(c), g.map(ip))).collect();
        Pool::<u32>::of_pod_cidrs(&cidrs)
            .map(|_| ())
            .map_err(|f| f.to_string())
    };
    assert!(make(&[("10.244.0.0/31", None)]).is_err_and(|e| e.contains("too small")));
    assert!(make(&[("fd00::/127", None)]).is_err_and(|e| e.contains("too small")));
    assert!(make(&[("10.244.0.0/24", Some("10.244.1.1"))]).is_err_and(|e| e.contains("gateway")));
    assert!(
        make(&[("10.244.0.0/24", None), ("10.245.0.0/24", None)])
            .is_err_and(|e| e.contains("one family"))
    );
    assert_eq!(
        make(&[("10.244.0.0/30", Some("10.244.0.2")), ("fd00::/126", None)]),
        Ok(())
    );
}

/// What happens to a pool.
#[derive(Clone, Debug)]
enum Event {
    Take(u8),
    Ask(u8, u8),
    Release(u8),
    Wait(u16),
    Restart,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0u8..24).prop_map(Event::Take),
        2 => (0u8..24, 0u8..18).prop_map(|(holder, host)| Event::Ask(holder, host)),
        5 => (0u8..24).prop_map(Event::Release),
        2 => (0u16..40_000).prop_map(Event::Wait),
        1 => Just(Event::Restart),
    ];
    prop::collection::vec(event, 1..200)
}

/// A range as a list, walked by hand from where the last walk ended.
struct Round {
    hosts: Vec<IpAddr>,
    gateway: IpAddr,
    at: usize,
    held: BTreeMap<IpAddr, u8>,
}

impl Round {
    fn take(&mut self, holder: u8) -> Option<IpAddr> {
        if self.held.values().any(|h| *h == holder) {
            return None;
        }
        for step in 1..=self.hosts.len() {
            let at = (self.at + step) % self.hosts.len();
            let host = self.hosts[at];
            if host != self.gateway && !self.held.contains_key(&host) {
                self.at = at;
                self.held.insert(host, holder);
                return Some(host);
            }
        }
        None
    }

    fn ask(&mut self, holder: u8, host: IpAddr) -> Option<IpAddr> {
        let may = self.hosts.contains(&host)
            && host != self.gateway
            && !self.held.contains_key(&host)
            && !self.held.values().any(|h| *h == holder);
        may.then(|| {
            self.held.insert(host, holder);
            host
        })
    }
}

/// A list of addresses with the time from which each may be given, unused ones from the start.
struct Queue {
    /// (ready, order, address): order is by release, and lowest first among the unused.
    free: Vec<(Duration, u32, IpAddr)>,
    held: BTreeMap<IpAddr, u8>,
    order: u32,
}

impl Queue {
    fn give(&mut self, holder: u8, at: Option<usize>, now: Duration) -> Option<IpAddr> {
        if self.held.values().any(|h| *h == holder) {
            return None;
        }
        let at = at.filter(|at| self.free[*at].0 <= now)?;
        let (_, _, address) = self.free.remove(at);
        self.held.insert(address, holder);
        Some(address)
    }

    fn take(&mut self, holder: u8, now: Duration) -> Option<IpAddr> {
        let first = (0..self.free.len()).min_by_key(|at| self.free[*at].1);
        self.give(holder, first, now)
    }

    fn ask(&mut self, holder: u8, address: IpAddr, now: Duration) -> Option<IpAddr> {
        let at = self.free.iter().position(|(_, _, a)| *a == address);
        self.give(holder, at, now)
    }

    fn release(&mut self, holder: u8, now: Duration) {
        let theirs = self
            .held
            .iter()
            .find(|(_, h)| **h == holder)
            .map(|(a, _)| *a);
        if let Some(address) = theirs {
            self.held.remove(&address);
            self.order += 1;
            self.free.push((now + MINUTE, 1000 + self.order, address));
        }
    }

    fn rest_anew(&mut self, now: Duration) {
        for (ready, order, _) in &mut self.free {
            if *order >= 1000 {
                *ready = now + MINUTE;
            }
        }
    }
}

/// What a restart leaves: the holders, and the memory through its file format.
fn restarted(old: &Pool<u8>, mut fresh: Pool<u8>, now: Duration) -> Pool<u8> {
    let kept = serde_json::to_string(&old.memory()).expect("plain data");
    for (address, holder) in &old.held {
        fresh.hold(*address, *holder).expect("each had one holder");
    }
    fresh.remember(&serde_json::from_str(&kept).expect("as written"), now);
    fresh
}

proptest! {
    #[test]
    fn kubenets_order_is_that_of_a_list_walked_by_hand(events in events()) {
        let make = || Pool::<u8>::of_pod_cidrs(&[(net("10.244.0.0/28"), None)]).expect("legal");
        let host = |n: u8| IpAddr::from([10, 244, 0, n]);
        let hosts: Vec<IpAddr> = (1..15).map(host).collect();
        let mut model = Round {
            at: hosts.len() - 1,
            gateway: hosts[0],
            hosts,
            held: BTreeMap::new(),
        };
        let (mut pool, mut now) = (make(), Duration::ZERO);
        for event in events {
            let (found, expected) = match event {
                Event::Take(holder) => (pool.take(&holder, &[], now).ok(), model.take(holder)),
                Event::Ask(holder, n) => {
                    (pool.take(&holder, &[host(n)], now).ok(), model.ask(holder, host(n)))
                }
                Event::Release(holder) => {
                    pool.release(&holder, now);
                    model.held.retain(|_, h| *h != holder);
                    (None, None)
                }
                Event::Wait(ms) => {
                    now += Duration::from_millis(ms.into());
                    (None, None)
                }
                Event::Restart => {
                    pool = restarted(&pool, make(), now);
                    (None, None)
                }
            };
            prop_assert_eq!(found.map(|given| given[0].address.addr()), expected);
            prop_assert_eq!(&pool.held, &model.held);
            let fill = pool.fill(now);
            prop_assert_eq!(fill.free(), 13 - model.held.len() as u128);
        }
    }

    #[test]
    fn azures_order_is_that_of_a_queue_in_which_the_released_wait(events in events()) {
        let make = || Pool::<u8>::of_secondary_addresses(&secondary(5..=14), MINUTE);
        let host = |n: u8| IpAddr::from([10, 20, 0, n]);
        let mut model = Queue {
            free: (5..=14).map(|n| (Duration::ZERO, n.into(), host(n))).collect(),
            held: BTreeMap::new(),
            order: 0,
        };
        let (mut pool, mut now) = (make(), Duration::ZERO);
        for event in events {
            let (found, expected) = match event {
                Event::Take(holder) => (pool.take(&holder, &[], now).ok(), model.take(holder, now)),
                Event::Ask(holder, n) => {
                    let asked = pool.take(&holder, &[host(n)], now);
                    (asked.ok(), model.ask(holder, host(n), now))
                }
                Event::Release(holder) => {
                    pool.release(&holder, now);
                    model.release(holder, now);
                    (None, None)
                }
                Event::Wait(ms) => {
                    now += Duration::from_millis(ms.into());
                    (None, None)
                }
                Event::Restart => {
                    pool = restarted(&pool, make(), now);
                    model.rest_anew(now);
                    (None, None)
                }
            };
            prop_assert_eq!(found.map(|given| given[0].address.addr()), expected);
            prop_assert_eq!(&pool.held, &model.held);
            let ready = model.free.iter().filter(|(ready, _, _)| *ready <= now).count();
            prop_assert_eq!(pool.fill(now).free(), ready as u128);
        }
    }
}
