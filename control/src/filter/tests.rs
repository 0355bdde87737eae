//! Every filter against a plain model of what its words mean, and every fault at its word.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;

/// A packet as it is made: what a model needs no frame for.
#[derive(Clone, Copy, Debug)]
struct Packet {
    stations: (u8, u8),
    six: bool,
    hosts: (u8, u8),
    carries: Carries,
    ports: (u16, u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carries {
    Tcp,
    Udp,
    Echo,
    Arp,
}

/// What is typed, and what it means.
#[derive(Clone, Debug)]
enum Typed {
    Word(&'static str),
    Host(&'static str, &'static str, u8),
    Net(&'static str, u8),
    Port(&'static str, &'static str, u16),
    Station(&'static str, u8),
    Pod(&'static str, u8),
    Not(Box<Typed>),
    And(Box<Typed>, Box<Typed>),
    Or(Box<Typed>, Box<Typed>),
}

fn mac(last: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, last]
}

fn v4(last: u8) -> [u8; 4] {
    [10, 244, last / 2, last]
}

fn v6(last: u8) -> [u8; 16] {
    let mut address = [0; 16];
    (address[0], address[15]) = (0xfd, last);
    address
}

fn pods(name: &str) -> Vec<IpAddr> {
    match name.strip_prefix("pod-").and_then(|last| last.parse().ok()) {
        Some(last) => vec![v4(last).into(), v6(last).into()],
        None => Vec::new(),
    }
}

impl Packet {
    fn frame(&self) -> Vec<u8> {
        let (from, to) = (mac(self.stations.0), mac(self.stations.1));
        let mut frame = Vec::new();
        if self.carries == Carries::Arp {
            frame.extend(
                to.iter()
                    .chain(&from)
                    .chain(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]),
            );
            frame.extend(from.iter().chain(&v4(self.hosts.0)));
            frame.extend([0; 6].iter().chain(&v4(self.hosts.1)));
            return frame;
        }
        let link = PacketBuilder::ethernet2(from, to);
        let ip = match self.six {
            true => link.ipv6(v6(self.hosts.0), v6(self.hosts.1), 64),
            false => link.ipv4(v4(self.hosts.0), v4(self.hosts.1), 64),
        };
        let (source, target) = self.ports;
        match (self.carries, self.six) {
            (Carries::Tcp, _) => ip.tcp(source, target, 1, 1).write(&mut frame, b"x"),
            (Carries::Udp, _) => ip.udp(source, target).write(&mut frame, b"x"),
            (_, true) => ip.icmpv6_echo_request(1, 1).write(&mut frame, b"x"),
            (_, false) => ip.icmpv4_echo_request(1, 1).write(&mut frame, b"x"),
        }
        .unwrap();
        frame
    }

    fn is(&self, word: &str) -> bool {
        let arp = self.carries == Carries::Arp;
        match word {
            "" => true,
            "arp" => arp,
            "ip" => !arp && !self.six,
            "ip6" => !arp && self.six,
            "tcp" => self.carries == Carries::Tcp,
            "udp" => self.carries == Carries::Udp,
            "icmp" => self.carries == Carries::Echo && !self.six,
            "icmp6" => self.carries == Carries::Echo && self.six,
            other => panic!("{other}"),
        }
    }
}

fn of<T: PartialEq>(end: &str, ends: (T, T), such: impl Fn(&T) -> bool) -> bool {
    (end != "dst" && such(&ends.0)) || (end != "src" && such(&ends.1))
}

impl Typed {
    fn text(&self) -> String {
        let lead = |word: &str| match word {
            "" => String::new(),
            word => format!("{word} "),
        };
        match self {
            Typed::Word(word) => (*word).to_owned(),
            Typed::Host(of, end, last) => {
                let host = Ipv4Addr::from(v4(*last));
                format!("{}{}host {host}", lead(of), lead(end))
            }
            Typed::Net(end, third) => format!("{}net 10.244.{third}.0/24", lead(end)),
            Typed::Port(of, end, port) => format!("{}{}port {port}", lead(of), lead(end)),
            Typed::Station(end, last) => format!("ether {}host 02:00:00:00:00:0{last}", lead(end)),
            Typed::Pod(end, last) => format!("{}pod pod-{last}", lead(end)),
            Typed::Not(one) => format!("not {}", one.bracketed()),
            // Without brackets where they change nothing.
            Typed::And(one, other) => match **one {
                Typed::Or(..) => format!("{} and {}", one.bracketed(), other.bracketed()),
                _ => format!("{} and {}", one.text(), other.bracketed()),
            },
            Typed::Or(one, other) => match **other {
                Typed::Or(..) => format!("{} || {}", one.text(), other.bracketed()),
                _ => format!("{} || {}", one.text(), other.text()),
            },
        }
    }

    fn bracketed(&self) -> String {
        match self {
            Typed::And(..) | Typed::Or(..) => format!("({})", self.text()),
            _ => self.text(),
        }
    }

    fn means(&self, packet: &Packet) -> bool {
        let arp = packet.carries == Carries::Arp;
        let old = !packet.six || arp;
        let ported = matches!(packet.carries, Carries::Tcp | Carries::Udp);
        match self {
            Typed::Word(word) => packet.is(word),
            Typed::Host(word, end, last) => {
                packet.is(word) && old && of(end, packet.hosts, |host| host == last)
            }
            Typed::Net(end, third) => old && of(end, packet.hosts, |host| host / 2 == *third),
            Typed::Port(word, end, port) => {
                packet.is(word) && ported && of(end, packet.ports, |there| there == port)
            }
            Typed::Station(end, last) => of(end, packet.stations, |there| there == last),
            Typed::Pod(end, last) => of(end, packet.hosts, |host| host == last),
            Typed::Not(one) => !one.means(packet),
            Typed::And(one, other) => one.means(packet) && other.means(packet),
            Typed::Or(one, other) => one.means(packet) || other.means(packet),
        }
    }
}

fn end() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "src", "dst"])
}

fn typed() -> impl Strategy<Value = Typed> {
    let words = vec!["ip", "ip6", "arp", "tcp", "udp", "icmp", "icmp6"];
    let one = prop_oneof![
        prop::sample::select(words).prop_map(Typed::Word),
        (prop::sample::select(vec!["", "ip", "arp"]), end(), 0u8..4)
            .prop_map(|(of, end, last)| Typed::Host(of, end, last)),
        (end(), 0u8..2).prop_map(|(end, third)| Typed::Net(end, third)),
        (
            prop::sample::select(vec!["", "tcp", "udp"]),
            end(),
            80u16..83
        )
            .prop_map(|(of, end, port)| Typed::Port(of, end, port)),
        (end(), 0u8..4).prop_map(|(end, last)| Typed::Station(end, last)),
        (end(), 0u8..4).prop_map(|(end, last)| Typed::Pod(end, last)),
    ];
    one.prop_recursive(5, 24, 2, |some| {
        let two = (
            some.clone().prop_map(Box::new),
            some.clone().prop_map(Box::new),
        );
        prop_oneof![
            some.prop_map(|one| Typed::Not(Box::new(one))),
            two.clone().prop_map(|(one, other)| Typed::And(one, other)),
            two.prop_map(|(one, other)| Typed::Or(one, other)),
        ]
    })
}

prop_compose! {
    fn packet()(
        stations in (0u8..4, 0u8..4),
        six in any::<bool>(),
        hosts in (0u8..4, 0u8..4),
        carries in prop::sample::select(vec![Carries::Tcp, Carries::Udp, Carries::Echo, Carries::Arp]),
        ports in (80u16..83, 80u16..83),
    ) -> Packet {
        Packet { stations, six, hosts, carries, ports }
    }
}

proptest! {
    #[test]
    fn a_filter_passes_what_its_words_mean(
        typed in typed(),
        packets in prop::collection::vec(packet(), 1..20),
    ) {
        let text = typed.text();
        let mut filter = Filter::parse(&text).unwrap();
        filter.find_pods(pods).unwrap();
        for packet in packets {
            prop_assert_eq!(filter.passes(&packet.frame()), typed.means(&packet), "{}: {:?}", text, packet);
        }
    }

    #[test]
    fn whatever_is_typed_is_read_or_refused_at_a_place_of_it(text in "[ -~é]{0,40}|([a-z0-9.:/()! ]|and |or |not |src |host |port |tcp ){0,30}") {
        if let Err(fault) = Filter::parse(&text) {
            prop_assert!(fault.at.end <= fault.text.len() && fault.to_string().contains('^'));
        }
    }

    #[test]
    fn whatever_a_frame_holds_is_looked_at(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let filter = Filter::parse("not (tcp port 80 or host 10.0.0.1)").unwrap();
        prop_assert_eq!(filter.passes(&bytes), bytes.len() >= 14);
    }
}

#[test]
fn a_fault_shows_the_word_and_says_what_was_expected() {
    let cases = [
        ("hots 10.0.0.1", "hots", "no such word"),
        ("host 10.0.0", "10.0.0", "an IP address was expected"),
        ("tcp and port 99999", "99999", "a port number"),
        ("net 10.0.0.0", "10.0.0.0", "a prefix"),
        (
            "icmp host 10.0.0.1",
            "host",
            "host goes with ip, ip6 and arp",
        ),
        ("icmp port 7", "port", "port goes with tcp and udp"),
        ("tcp src 10.0.0.1", "10.0.0.1", "port was expected"),
        ("(tcp or udp", "", "a closing bracket"),
        ("tcp) and udp", ")", "no bracket was opened"),
        ("tcp udp", "udp", "and, or, or the end"),
        ("tcp and", "", "no such word"),
        ("", "", "no such word"),
        (
            "ether 02:00:00:00:00:01",
            "02:00:00:00:00:01",
            "host, src or dst",
        ),
        ("pod and tcp", "and", "a pod's name"),
    ];
    for (text, word, why) in cases {
        let fault = Filter::parse(text).unwrap_err();
        assert_eq!(&fault.text[fault.at.clone()], word, "{fault}");
        assert!(fault.why.contains(why), "{fault}");
    }
    let fault = Filter::parse("tcp and prot 80").unwrap_err().to_string();
    assert!(
        fault.ends_with("\n    tcp and prot 80\n            ^^^^"),
        "{fault}"
    );
    let mut filter = Filter::parse("tcp and not pod nobody").unwrap();
    let fault = filter.find_pods(pods).unwrap_err().to_string();
    assert!(fault.starts_with("no pod is called nobody\n"), "{fault}");
    let deep = "not ".repeat(1000) + "tcp";
    assert!(
        Filter::parse(&deep)
            .unwrap_err()
            .why
            .contains("inside each other")
    );
}

#[test]
fn a_fragment_that_is_not_the_first_has_a_protocol_and_no_ports() {
    let packet = Packet {
        stations: (1, 2),
        six: false,
        hosts: (1, 2),
        carries: Carries::Udp,
        ports: (80, 80),
    };
    let mut frame = packet.frame();
    assert!(Filter::parse("udp port 80").unwrap().passes(&frame));
    frame[20..22].copy_from_slice(&[0x20, 0x10]);
    assert!(!Filter::parse("port 80").unwrap().passes(&frame));
    assert!(Filter::parse("udp").unwrap().passes(&frame));
}
