//! From the words of a filter to its tests.
//!
//! In: a text. Out: one test, made of others; or the word that is wrong.
//! Never: deeper than [`DEPTH_MAX`], whatever is typed.

use std::net::IpAddr;
use std::ops::Range;

use dataplane::addr::Mac;
use ipnet::IpNet;

use super::{End, Fault, Protocol, TEXT_MAX, Test};

/// Brackets and `not`s inside each other.
const DEPTH_MAX: usize = 64;

const PRIMITIVES: &str =
    "one of: host, net, port, pod, ether, src, dst, tcp, udp, icmp, icmp6, ip, ip6, arp";

/// The words of a text that are still to be read.
struct Words<'a> {
    text: &'a str,
    words: Vec<Range<usize>>,
    next: usize,
    depth: usize,
}

pub(super) fn parse(text: &str) -> Result<Test, Fault> {
    let mut words = Words {
        text,
        words: split(text),
        next: 0,
        depth: 0,
    };
    if text.len() > TEXT_MAX {
        return Err(words.fault(0..0, format!("longer than {TEXT_MAX} bytes")));
    }
    let test = words.any()?;
    match words.peek() {
        None => Ok(test),
        Some(")") => Err(words.wrong("no bracket was opened for this one")),
        Some(_) => Err(words.wrong("and, or, or the end was expected here")),
    }
}

/// Brackets and exclamation marks are words wherever they stand; other words end at blanks.
fn split(text: &str) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut open = false;
    for (at, letter) in text.char_indices() {
        let end = at + letter.len_utf8();
        match letter {
            ' ' => open = false,
            '(' | ')' | '!' => {
                words.push(at..end);
                open = false;
            }
            _ if open => {
                if let Some(word) = words.last_mut() {
                    word.end = end;
                }
            }
            _ => {
                words.push(at..end);
                open = true;
            }
        }
    }
    words
}

impl<'a> Words<'a> {
    fn peek(&self) -> Option<&'a str> {
        let at = self.words.get(self.next)?;
        Some(&self.text[at.clone()])
    }

    /// Takes the next word if it is one of these.
    fn take(&mut self, any: &[&str]) -> bool {
        let found = self.peek().is_some_and(|word| any.contains(&word));
        self.next += usize::from(found);
        found
    }

    fn fault(&self, at: Range<usize>, why: impl Into<String>) -> Fault {
        Fault {
            text: self.text.to_owned(),
            at,
            why: why.into(),
        }
    }

    /// The next word is wrong, or there is none.
    fn wrong(&self, why: impl Into<String>) -> Fault {
        let end = self.text.len();
        let at = self.words.get(self.next).cloned().unwrap_or(end..end);
        self.fault(at, why)
    }

    fn any(&mut self) -> Result<Test, Fault> {
        let mut test = self.all()?;
        while self.take(&["or", "||"]) {
            test = Test::Or(Box::new(test), Box::new(self.all()?));
        }
        Ok(test)
    }

    fn all(&mut self) -> Result<Test, Fault> {
        let mut test = self.some()?;
        while self.take(&["and", "&&"]) {
            test = Test::And(Box::new(test), Box::new(self.some()?));
        }
        Ok(test)
    }

    fn some(&mut self) -> Result<Test, Fault> {
        if self.depth == DEPTH_MAX {
            return Err(self.wrong(format!("more than {DEPTH_MAX} inside each other")));
        }
        self.depth += 1;
        let test = if self.take(&["not", "!"]) {
            Test::Not(Box::new(self.some()?))
        } else if self.take(&["("]) {
            let test = self.any()?;
            if !self.take(&[")"]) {
                return Err(self.wrong("and, or, or a closing bracket was expected here"));
            }
            test
        } else {
            self.one()?
        };
        self.depth -= 1;
        Ok(test)
    }

    fn one(&mut self) -> Result<Test, Fault> {
        let first = self.next;
        if self.take(&["ether"]) {
            return self.station();
        }
        let protocol = self.protocol();
        let end = self.end();
        if self.take(&["host"]) {
            let of =
                protocol.is_none_or(|p| matches!(p, Protocol::Ip | Protocol::Ip6 | Protocol::Arp));
            self.of_kind(of, "host goes with ip, ip6 and arp")?;
            return Ok(both(protocol, Test::Host(end, self.address()?)));
        }
        if self.take(&["net"]) {
            self.of_kind(protocol.is_none(), "net goes with src and dst alone")?;
            let net = self.value("a prefix such as 10.244.0.0/16", |word| {
                word.parse::<IpNet>().ok()
            })?;
            return Ok(Test::Net(end, net.trunc()));
        }
        if self.take(&["port"]) {
            let of = protocol.is_none_or(|p| matches!(p, Protocol::Tcp | Protocol::Udp));
            self.of_kind(of, "port goes with tcp and udp")?;
            let port = self.value("a port number", |word| word.parse().ok())?;
            return Ok(both(protocol, Test::Port(end, port)));
        }
        if self.take(&["pod"]) {
            self.of_kind(protocol.is_none(), "pod goes with src and dst alone")?;
            let at = self.words.get(self.next).cloned().unwrap_or_default();
            let reserved = ["and", "or", "not", "(", ")", "!", "&&", "||"];
            let name = self.value("a pod's name", |word| {
                (!reserved.contains(&word)).then(|| word.to_owned())
            })?;
            let addresses = Vec::new();
            return Ok(Test::Pod {
                end,
                name,
                at,
                addresses,
            });
        }
        match (protocol, end) {
            (Some(protocol), End::Either) => Ok(Test::Protocol(protocol)),
            (None, End::Either) => {
                debug_assert_eq!(first, self.next, "nothing was taken");
                Err(self.wrong(format!("a filter has no such word here; {PRIMITIVES}")))
            }
            (Some(Protocol::Tcp | Protocol::Udp | Protocol::Icmp | Protocol::Icmp6), _) => {
                Err(self.wrong("port was expected here"))
            }
            _ => Ok(both(protocol, Test::Host(end, self.address()?))),
        }
    }

    fn station(&mut self) -> Result<Test, Fault> {
        let end = self.end();
        if !self.take(&["host"]) && end == End::Either {
            return Err(self.wrong("ether goes on with host, src or dst"));
        }
        let mac = self.value("a MAC address such as 0a:58:0a:f4:01:06", |word| {
            word.parse::<Mac>().ok()
        })?;
        Ok(Test::Station(end, mac))
    }

    fn protocol(&mut self) -> Option<Protocol> {
        let protocol = match self.peek()? {
            "ip" => Protocol::Ip,
            "ip6" => Protocol::Ip6,
            "arp" => Protocol::Arp,
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "icmp" => Protocol::Icmp,
            "icmp6" => Protocol::Icmp6,
            _ => return None,
        };
        self.next += 1;
        Some(protocol)
    }

    fn end(&mut self) -> End {
        if self.take(&["src"]) {
            End::Source
        } else if self.take(&["dst"]) {
            End::Target
        } else {
            End::Either
        }
    }

    fn address(&mut self) -> Result<IpAddr, Fault> {
        self.value("an IP address", |word| word.parse().ok())
    }

    /// The word that was just taken does not go with those before it.
    fn of_kind(&mut self, fits: bool, why: &str) -> Result<(), Fault> {
        if fits {
            return Ok(());
        }
        self.next -= 1;
        Err(self.wrong(why))
    }

    fn value<T>(&mut self, what: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, Fault> {
        let value = self.peek().and_then(read);
        let value = value.ok_or_else(|| self.wrong(format!("{what} was expected here")))?;
        self.next += 1;
        Ok(value)
    }
}

fn both(protocol: Option<Protocol>, test: Test) -> Test {
    match protocol {
        Some(protocol) => Test::And(Box::new(Test::Protocol(protocol)), Box::new(test)),
        None => test,
    }
}
