//! Small worlds full of names that recur, and frames of good and ill will in them.
//!
//! In: a seed. Out: tables of either mode, frames, and histories of [`Step`]s.
//! Never: two different ones of the same seed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::addr::{Mac, PortId, Station};
use dataplane::bucket::Rate;
use dataplane::frame::offload::{GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM, Offload};
use dataplane::port::memory::WireFrame;
use dataplane::tables::fib::NextHop;
use dataplane::tables::guard::{Mode, PortGuard, Rates};
use dataplane::tables::{
    Addresses, Crossing, Owner, Policy, PortRole, PortSpec, TablesSpec, Unknown,
};
use fastrand::Rng;
use ipnet::IpNet;

use super::trial::Step;
use super::{Arrival, checksum};

/// Ports that a world may have: host, uplink, and pods.
pub const PORTS_MAX: usize = 2 + PODS;

const HOST: usize = 0;
const UPLINK: usize = 1;
const PODS: usize = 4;
const NIC: Mac = Mac::new([0, 0x0d, 0x3a, 20, 0, 4]);
const GATEWAY: Mac = Mac::new([0x0a, 0x58, 10, 244, 1, 1]);
/// The fabric's one address for everybody.
const FABRIC: Mac = Mac::new([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);

/// Pauses in milliseconds: shorter and longer than each of the switch's own periods.
const PAUSES: [u64; 9] = [1, 50, 100, 1_000, 3_000, 5_000, 30_000, 60_000, 301_000];

/// Random numbers of one seed.
#[must_use]
pub fn random(seed: u64) -> Rng {
    Rng::with_seed(seed)
}

/// One of some.
fn one<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())]
}

fn port(index: usize) -> PortId {
    PortId::new(index).expect("a world has few ports")
}

fn pod_mac(pod: usize) -> Mac {
    Mac::new([0x0a, 0x58, 10, 244, 1, 6 + pod as u8])
}

/// A hardware address that no table names, or as a further station of a port. No two of them, nor of
/// the others that speak here, share a place in the real switch's account of moves: that it forgets
/// one for the other is not modelled.
fn stranger(rng: &mut Rng) -> Mac {
    // One of them is heard all over the place.
    if rng.u8(..3) == 0 {
        return Mac::new([2, 0, 0, 0, 0, 18]);
    }
    let last = one(rng, &[0, 1, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16]);
    Mac::new([2, 0, 0, 0, 0, last])
}

fn v4(last: [u8; 4]) -> Ipv4Addr {
    last.into()
}

fn v6(net: u16, last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, net, 0, 1, 0, 0, 0, last)
}

/// Guards for host and pods, each on, observing or off, with limits that a history reaches.
fn guards(rng: &mut Rng) -> Vec<(PortId, PortGuard)> {
    let learns = rng.bool();
    let ports = (0..PORTS_MAX).filter(|index| *index != UPLINK);
    ports
        .map(|index| (port(index), guard(rng, index, learns)))
        .collect()
}

/// The guards of one port. Where stations or addresses are looked at, hardly anybody is learned, or
/// moves: in a world that `learns` they are not.
fn guard(rng: &mut Rng, index: usize, learns: bool) -> PortGuard {
    let modes = [Mode::Enforce, Mode::Enforce, Mode::Observe, Mode::Off];
    let [stations, addresses, routers, loops, flaps, quota, storms] =
        [(); 7].map(|()| one(rng, &modes));
    let looks = if learns { Mode::Off } else { Mode::Enforce };
    let mut rate = |per_second: &[u32]| Rate {
        per_second: one(rng, per_second),
        burst: one(rng, &[1, 3, 20]),
    };
    let rates = Rates {
        broadcast: rate(&[1, 5]),
        multicast: rate(&[1, 9]),
        unknown: rate(&[1, 2]),
    };
    // What the one port has more, no other has.
    let further = Mac::new([2, 0, 0, 0, 0, [0, 1, 3, 4, 5, 6][index]]);
    let further = Station::new(further).expect("neither group nor zero");
    let behind = format!("10.244.2.{}/29", 200 - 8 * index);
    let behind = behind.parse().expect("a prefix");
    PortGuard {
        stations: stations.min(looks),
        addresses: addresses.min(looks),
        routers,
        loops,
        flaps,
        quota,
        learned_max: one(rng, &[0, 2, 4, 16]),
        storms,
        rates,
        more_stations: Vec::from_iter(rng.bool().then_some(further)),
        more_addresses: Vec::from_iter(rng.bool().then_some(behind)),
    }
}

/// A world, which control may change while a history runs.
pub struct Universe {
    rng: Rng,
    routed: bool,
    seeds: Vec<Vec<u8>>,
    /// The pods there are now.
    pods: [bool; PODS],
    /// Their addresses may change hands.
    turn: usize,
    unknown: Unknown,
    policy: Policy,
    hairpin: bool,
    /// The pods that do not reach each other.
    isolated: [bool; PODS],
    mtu: u16,
    /// The guards, in a world that has any.
    guards: Option<Vec<(PortId, PortGuard)>>,
}

impl Universe {
    /// The world of that seed. `seeds` are frames to vary, such as a corpus.
    #[must_use]
    pub fn new(seed: u64, seeds: &[Vec<u8>]) -> Universe {
        let mut rng = random(seed);
        let guards = rng.bool().then(|| guards(&mut rng));
        Universe {
            guards,
            routed: rng.bool(),
            pods: [true, true, rng.bool(), false],
            turn: 0,
            unknown: if rng.bool() {
                Unknown::Flood
            } else {
                Unknown::Drop
            },
            policy: if rng.u8(..5) == 0 {
                Policy::ViaHost
            } else {
                Policy::None
            },
            hairpin: rng.u8(..4) == 0,
            isolated: [rng.u8(..3) == 0; PODS],
            mtu: one(&mut rng, &[1500, 1500, 1400, 576, 9000]),
            seeds: seeds.to_vec(),
            rng,
        }
    }

    /// How many frames a port of this world holds: seldom few.
    pub fn depth(&mut self) -> usize {
        one(&mut self.rng, &[256, 256, 256, 4])
    }

    /// The tables as they stand.
    #[must_use]
    pub fn spec(&self) -> TablesSpec {
        let host_mac = if self.routed { GATEWAY } else { NIC };
        let row = |index, role, mac, hairpin| PortSpec {
            id: port(index),
            role,
            mac: Station::new(mac).expect("neither group nor zero"),
            mtu: if role == PortRole::Uplink {
                self.mtu
            } else {
                1500
            },
            hairpin,
            isolated: index >= 2 && self.isolated[index - 2],
        };
        let mut spec = TablesSpec {
            ports: vec![
                row(HOST, PortRole::Host, host_mac, false),
                row(UPLINK, PortRole::Uplink, NIC, false),
            ],
            owners: Vec::new(),
            router_macs: if self.routed {
                vec![GATEWAY]
            } else {
                vec![FABRIC]
            },
            routes: Vec::new(),
            groups: Vec::new(),
            crossing: self.crossing(),
            policy: self.policy,
            guards: self.guards_in_force(),
            unknown: self.unknown,
        };
        for pod in (0..PODS).filter(|pod| self.pods[*pod]) {
            let (index, mac) = (2 + pod, pod_mac(pod));
            spec.ports
                .push(row(index, PortRole::Pod, mac, self.hairpin));
            for address in self.addresses_of(pod) {
                let owner = Owner {
                    port: port(index),
                    mac,
                };
                spec.owners.push((address, owner));
                let hop = NextHop::Station {
                    port: port(index),
                    mac,
                };
                spec.routes.push((address.into(), hop));
            }
        }
        for address in [v4([10, 244, 1, 1]).into(), v6(0x244, 1).into()] {
            let owner = Owner {
                port: port(HOST),
                mac: host_mac,
            };
            spec.owners.push((address, owner));
            spec.routes.push((IpNet::from(address), NextHop::Host));
        }
        self.roads(&mut spec.routes);
        spec
    }

    fn crossing(&self) -> Crossing {
        let both = |v4, v6| Addresses {
            v4: Some(v4),
            v6: Some(v6),
        };
        if self.routed {
            Crossing::Routed {
                uplink: both(v4([10, 20, 0, 4]), v6(0x20, 4)),
                gateway: both(v4([10, 244, 1, 1]), v6(0x244, 1)),
            }
        } else {
            Crossing::Bridged
        }
    }

    fn addresses_of(&self, pod: usize) -> [IpAddr; 2] {
        let last = 6 + (pod + self.turn) % PODS;
        [
            v4([10, 244, 1, last as u8]).into(),
            v6(0x244, last as u16).into(),
        ]
    }

    /// Those of ports that are there.
    fn guards_in_force(&self) -> Vec<(PortId, PortGuard)> {
        let there = |port: &PortId| match port.index() {
            HOST | UPLINK => true,
            pod => self.pods[pod - 2],
        };
        let rows = self.guards.iter().flatten();
        rows.filter(|(port, _)| there(port)).cloned().collect()
    }

    /// The routes beside the pods' own.
    fn roads(&self, routes: &mut Vec<(IpNet, NextHop)>) {
        let net = |text: &str| -> IpNet { text.parse().expect("a prefix") };
        let fabric = NextHop::Station {
            port: port(UPLINK),
            mac: FABRIC,
        };
        let next = |address: IpAddr| {
            if self.routed {
                NextHop::Neighbour(address)
            } else {
                fabric
            }
        };
        let (five, six) = (v4([10, 20, 0, 5]).into(), v6(0x20, 6).into());
        routes.extend([
            (net("10.244.1.0/24"), NextHop::Unreachable),
            (net("10.244.0.0/24"), next(five)),
            (net("10.244.2.0/24"), next(v4([10, 20, 0, 6]).into())),
            (net("10.244.2.128/25"), fabric),
            (net("10.66.0.0/16"), NextHop::Blackhole),
            (net("10.0.0.0/16"), NextHop::Host),
            (net("169.254.0.0/16"), NextHop::Host),
            (net("fd00:244:0:1::/64"), NextHop::Unreachable),
            (net("fd00:244:0:2::/64"), next(six)),
            (net("fe80::/10"), NextHop::Host),
        ]);
        if self.mtu != 9000 {
            routes.push((net("0.0.0.0/0"), NextHop::Host));
        }
    }

    /// Control changes something.
    fn change(&mut self) -> TablesSpec {
        let pod = self.rng.usize(..PODS);
        match self.rng.u8(..10) {
            8..10 if self.guards.is_some() => self.guards = Some(guards(&mut self.rng)),
            6 => self.policy = Policy::ViaHost,
            7 => self.policy = Policy::None,
            0 => self.turn = self.rng.usize(..PODS),
            1 => self.unknown = Unknown::Drop,
            2 => self.unknown = Unknown::Flood,
            5 => self.isolated[pod] = !self.isolated[pod],
            3 => self.mtu = one(&mut self.rng, &[1500, 1400, 576, 9000]),
            _ => self.pods[pod] = !self.pods[pod],
        }
        self.spec()
    }

    /// What happens next.
    pub fn step(&mut self) -> Step {
        match self.rng.u8(..40) {
            0..6 => Step::Wait(one(&mut self.rng, &PAUSES)),
            6 => Step::Publish(Box::new(self.change())),
            7 => Step::Detach(port(self.rng.usize(..PORTS_MAX))),
            8..10 => Step::Attach(port(self.rng.usize(..PORTS_MAX))),
            10..14 => {
                let many = self.rng.usize(2..40);
                Step::Frames((0..many).map(|_| self.frame()).collect())
            }
            _ => Step::Frames(vec![self.frame()]),
        }
    }

    /// A frame, somewhere.
    pub fn frame(&mut self) -> Arrival {
        let at = self.rng.usize(..PORTS_MAX);
        let (bytes, whole) = match self.rng.u8(..20) {
            0..2 if !self.seeds.is_empty() => {
                let seed = self.rng.usize(..self.seeds.len());
                (self.seeds[seed].clone(), false)
            }
            _ => (self.made(at), true),
        };
        let mut bytes = bytes;
        let spoilt = self.rng.u8(..8) == 0;
        if spoilt {
            self.spoil(&mut bytes);
        }
        if self.guards.is_some()
            && (spoilt || !whole)
            && let Some(source) = bytes.get_mut(6..12)
        {
            source.copy_from_slice(&self.source_mac(at).octets());
        }
        let plain = !whole || spoilt || self.rng.u8(..10) > 0;
        let offload = if plain {
            self.lie()
        } else {
            self.undone(&bytes)
        };
        Arrival {
            ingress: port(at),
            frame: WireFrame { bytes, offload },
        }
    }

    /// A few bytes are others, or missing, or too many.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.rng.usize(1..4) {
            let at = self.rng.usize(..bytes.len().clamp(1, 80));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = self.rng.u8(..);
            }
        }
        if self.rng.u8(..4) == 0 {
            bytes.truncate(self.rng.usize(..=bytes.len()));
        }
        if self.rng.u8(..8) == 0 {
            bytes.extend([0xee; 9]);
        }
    }

    /// Nothing is undone, or, seldom, something that cannot be.
    fn lie(&mut self) -> Offload {
        if self.rng.u8(..50) > 0 {
            return Offload::NONE;
        }
        Offload {
            flags: NEEDS_CSUM,
            csum_start: self.rng.u16(60_000..),
            ..Offload::NONE
        }
    }

    /// A super-frame, where the frame is TCP that may not be cut otherwise.
    fn undone(&mut self, bytes: &[u8]) -> Offload {
        let (gso_type, csum_start) = match (bytes.get(12..14), bytes.get(20), bytes.get(23)) {
            (Some([8, 0]), Some(flags), Some(6)) if flags & 0x40 != 0 => (GSO_TCPV4, 34),
            (Some([0x86, 0xdd]), Some(6), _) => (GSO_TCPV6, 54),
            _ => return Offload::NONE,
        };
        Offload {
            flags: NEEDS_CSUM,
            gso_type,
            hdr_len: 0,
            gso_size: one(&mut self.rng, &[500, 1440, 1460, 3000]),
            csum_start,
            csum_offset: 16,
        }
    }

    fn made(&mut self, at: usize) -> Vec<u8> {
        let source = self.source_mac(at);
        let target = self.target_mac();
        let (mut ether_type, mut packet) = match self.rng.u8(..20) {
            0..9 => (0x0800, self.ipv4()),
            9..14 => (0x86dd, self.ipv6()),
            14..18 => (0x0806, self.arp(source)),
            18 => (0x86dd, self.discovery(source)),
            _ => (one(&mut self.rng, &[0x88cc, 0x9000]), vec![0; 50]),
        };
        let tags = if self.rng.u8(..12) == 0 {
            self.rng.u8(1..4)
        } else {
            0
        };
        for _ in 0..tags {
            let mut inner = vec![0, 7];
            inner.extend(u16::to_be_bytes(ether_type));
            inner.extend(packet);
            (ether_type, packet) = (one(&mut self.rng, &[0x8100, 0x88a8]), inner);
        }
        let mut frame = target.octets().to_vec();
        frame.extend(source.octets());
        frame.extend(u16::to_be_bytes(ether_type));
        frame.extend(packet);
        if self.rng.u8(..6) == 0 && frame.len() < 60 {
            frame.resize(60, 0);
        }
        frame
    }

    fn source_mac(&mut self, at: usize) -> Mac {
        match self.rng.u8(..10) {
            0..6 if at >= 2 => pod_mac(at - 2),
            0..6 if at == UPLINK => FABRIC,
            6 => pod_mac(self.rng.usize(..PODS)),
            7 if self.rng.u8(..8) == 0 => {
                one(&mut self.rng, &[Mac::ZERO, Mac::BROADCAST, GATEWAY, NIC])
            }
            _ => stranger(&mut self.rng),
        }
    }

    fn target_mac(&mut self) -> Mac {
        match self.rng.u8(..10) {
            0..4 => one(&mut self.rng, &[GATEWAY, FABRIC]),
            4..6 => pod_mac(self.rng.usize(..PODS)),
            6 => NIC,
            7..9 => stranger(&mut self.rng),
            _ => {
                let reserved = Mac::new([1, 0x80, 0xc2, 0, 0, self.rng.u8(..18)]);
                let group = Mac::new([0x33, 0x33, 0, 0, 0, 1]);
                one(&mut self.rng, &[Mac::BROADCAST, group, reserved])
            }
        }
    }

    fn address_v4(&mut self) -> Ipv4Addr {
        match self.rng.u8(..16) {
            0..6 => v4([10, 244, 1, self.rng.u8(5..11)]),
            6..9 => v4([
                10,
                244,
                one(&mut self.rng, &[0, 2]),
                one(&mut self.rng, &[3, 200]),
            ]),
            9 => v4([10, 20, 0, self.rng.u8(3..8)]),
            10 => v4([10, 244, 1, one(&mut self.rng, &[0, 1, 255])]),
            11 => v4([10, one(&mut self.rng, &[0, 66]), 0, 10]),
            12 => v4([8, 8, 8, 8]),
            13 => v4([169, 254, 169, 254]),
            14 => v4([10, 20, 0, 5]),
            _ => one(
                &mut self.rng,
                &[
                    Ipv4Addr::UNSPECIFIED,
                    Ipv4Addr::BROADCAST,
                    Ipv4Addr::LOCALHOST,
                    v4([224, 0, 0, 1]),
                    v4([250, 1, 1, 1]),
                ],
            ),
        }
    }

    fn address_v6(&mut self) -> Ipv6Addr {
        match self.rng.u8(..12) {
            0..5 => v6(0x244, self.rng.u16(5..11)),
            5..7 => Ipv6Addr::new(0xfd00, 0x244, 0, 2, 0, 0, 0, self.rng.u16(..3)),
            7 => v6(0x20, self.rng.u16(3..8)),
            8 => v6(0x244, 1),
            9 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, self.rng.u16(..3)),
            10 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            _ => one(
                &mut self.rng,
                &[
                    Ipv6Addr::UNSPECIFIED,
                    Ipv6Addr::LOCALHOST,
                    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
                    Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x0a00, 1),
                ],
            ),
        }
    }

    fn transport(&mut self, echo: [u8; 2], icmp: u8) -> (u8, Vec<u8>) {
        let len = one(
            &mut self.rng,
            &[0, 8, 40, 100, 560, 1300, 1400, 1452, 1480, 2500],
        );
        let content = vec![0xab; len];
        match self.rng.u8(..6) {
            0 => {
                let kind = one(&mut self.rng, &[echo[0], echo[1], 3, 11, 1, 5, 137]);
                (icmp, [vec![kind, 0, 0, 0, 0, 1, 0, 1], content].concat())
            }
            1..3 => {
                let mut tcp = vec![0; 20];
                (tcp[1], tcp[3], tcp[12]) = (80, self.rng.u8(..4), 0x50);
                (6, [tcp, content].concat())
            }
            3 => (one(&mut self.rng, &[0, 47, 132, 59]), content),
            _ => (17, [vec![0, 7, 0, 9, 0, 8, 0, 0], content].concat()),
        }
    }

    fn ipv4(&mut self) -> Vec<u8> {
        let (protocol, payload) = self.transport([8, 0], 1);
        let options: &[u8] = match self.rng.u8(..12) {
            0 => one(
                &mut self.rng,
                &[
                    &[1, 1, 1, 0][..],
                    &[7, 7, 4, 0, 0, 0, 0, 0],
                    &[7, 3, 9, 0],
                    &[131, 7, 4, 10, 20, 0, 5, 0],
                    &[68, 8, 5, 0, 0, 0, 0, 0],
                    &[0x94, 4, 0, 0],
                ],
            ),
            _ => &[],
        };
        let header_len = 20 + options.len();
        let total = (header_len + payload.len()) as u16;
        let ttl = one(&mut self.rng, &[0, 1, 2, 64, 64, 64, 255]);
        let place = one(
            &mut self.rng,
            &[
                0, 0, 0, 0, 0x4000, 0x4000, 0x2000, 0x2010, 0x2001, 0x2005, 0x10, 0x1fff,
            ],
        );
        let mut packet = vec![0x40 | (header_len / 4) as u8, self.rng.u8(..)];
        packet.extend(total.to_be_bytes());
        packet.extend([0x12, 0x34]);
        packet.extend(u16::to_be_bytes(place));
        packet.extend([ttl, protocol, 0, 0]);
        // Packets in pieces are few, so that more than one piece of each comes in.
        let few = place & 0x3fff != 0 && self.rng.u8(..8) > 0;
        for _ in 0..2 {
            let address = if few {
                v4([10, 244, 1, self.rng.u8(6..8)])
            } else {
                self.address_v4()
            };
            packet.extend(address.octets());
        }
        packet.extend(options);
        let wrong = u16::from(self.rng.u8(..40) == 0);
        let sum = checksum(&packet) ^ wrong;
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(payload);
        packet
    }

    fn ipv6(&mut self) -> Vec<u8> {
        let (protocol, payload) = self.transport([128, 129], 58);
        let (first, extension): (u8, &[u8]) = match self.rng.u8(..10) {
            0 => one(
                &mut self.rng,
                &[
                    (0, &[0, 0, 5, 2, 0, 0, 1, 0][..]),
                    (0, &[0, 0, 0x80, 4, 0, 0, 0, 0]),
                    (0, &[0, 0, 0x1e, 4, 0, 0, 0, 0]),
                    (43, &[0, 0, 0, 0, 0, 0, 0, 0]),
                    (44, &[0, 0, 0, 1, 0, 0, 0, 9]),
                    (44, &[0, 0, 0, 41, 0, 0, 0, 9]),
                    (44, &[0, 0, 0, 40, 0, 0, 0, 9]),
                    (44, &[0, 0, 1, 0, 0, 0, 0, 9]),
                    (60, &[0, 0, 1, 4, 0, 0, 0, 0]),
                ],
            ),
            _ => (protocol, &[]),
        };
        let mut extension = extension.to_vec();
        if let Some(next) = extension.first_mut() {
            *next = protocol;
        }
        let len = (extension.len() + payload.len()) as u16;
        let hops = one(&mut self.rng, &[0, 1, 2, 64, 64, 255]);
        let mut packet = vec![0x60, 0, 0, self.rng.u8(..)];
        packet.extend(len.to_be_bytes());
        packet.extend([first, hops]);
        packet.extend(self.address_v6().octets());
        packet.extend(self.address_v6().octets());
        packet.extend(extension);
        packet.extend(payload);
        packet
    }

    fn arp(&mut self, source: Mac) -> Vec<u8> {
        let operation = one(&mut self.rng, &[1, 1, 2]);
        let sender_mac = if self.rng.u8(..4) > 0 { source } else { FABRIC };
        let mut sender = self.address_v4();
        let mut target = self.address_v4();
        match self.rng.u8(..8) {
            0 => sender = Ipv4Addr::UNSPECIFIED,
            1 => target = sender,
            2..4 => {
                // What a next hop says to the node itself.
                (sender, target) = (v4([10, 20, 0, self.rng.u8(5..7)]), v4([10, 20, 0, 4]));
            }
            _ => {}
        }
        let target_mac = self.target_mac();
        let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
        packet.extend(sender_mac.octets());
        packet.extend(sender.octets());
        packet.extend(target_mac.octets());
        packet.extend(target.octets());
        packet
    }

    fn discovery(&mut self, source: Mac) -> Vec<u8> {
        let kind = one(&mut self.rng, &[135, 136]);
        let (mut from, mut to) = (self.address_v6(), self.address_v6());
        let mut about = self.address_v6();
        if kind == 136 && self.rng.bool() {
            (about, from, to) = (v6(0x20, 6), v6(0x20, 6), v6(0x20, 4));
        }
        let flags = one(&mut self.rng, &[0x60, 0x40, 0x20, 0, 0xe0]);
        let option = if kind == 135 { 1 } else { 2 };
        let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        message.extend(about.octets());
        if self.rng.u8(..4) > 0 {
            message.extend([option, 1]);
            message.extend(source.octets());
        }
        let len = message.len() as u16;
        let mut covered = from.octets().to_vec();
        covered.extend(to.octets());
        covered.extend([0, 0, (len >> 8) as u8, len as u8, 0, 0, 0, 58]);
        covered.extend(&message);
        message[2..4].copy_from_slice(&checksum(&covered).to_be_bytes());
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(len.to_be_bytes());
        packet.extend([58, 255]);
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend(message);
        packet
    }
}
