//! Which frames are wanted, in the words of `tcpdump`: a part of pcap-filter(7), and pods by name.
//!
//! In: a text such as `tcp port 80 and not pod web-0`. Out: a [`Filter`], which says of a frame's bytes
//! whether they pass. Pure.
//! Never: guesses: a word that is not understood is named, with its place.
//!
//! ```text
//! one   = protocol | [ip|ip6|arp] [src|dst] host ADDRESS | [src|dst] net PREFIX
//!       | [tcp|udp] [src|dst] port NUMBER | ether [src|dst] host MAC | [src|dst] pod NAME
//! some  = one | ( all ) | not some
//! all   = some, joined by and, which binds closer, or or
//! ```
//!
//! As there: `host` also looks into ARP; ports are those of TCP and UDP, and of a first fragment only;
//! after `src` or `dst` the word `host` may be left out.

mod facts;
mod parse;

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;

use dataplane::addr::Mac;
use ipnet::IpNet;

pub use facts::Facts;

/// The longest text.
pub const TEXT_MAX: usize = 4096;

/// Which end of a frame is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source,
    Target,
    Either,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Ip,
    Ip6,
    Arp,
    Tcp,
    Udp,
    Icmp,
    Icmp6,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Protocol(Protocol),
    Host(End, IpAddr),
    Net(End, IpNet),
    Port(End, u16),
    Station(End, Mac),
    Pod {
        end: End,
        name: String,
        /// Where the name stands in the text.
        at: Range<usize>,
        addresses: Vec<IpAddr>,
    },
    Not(Box<Test>),
    And(Box<Test>, Box<Test>),
    Or(Box<Test>, Box<Test>),
}

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    text: String,
    at: Range<usize>,
    why: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = self.text[..self.at.start].chars().count();
        let long = self.text[self.at.clone()].chars().count().max(1);
        let (lead, mark) = (" ".repeat(before), "^".repeat(long));
        write!(f, "{}\n    {}\n    {lead}{mark}", self.why, self.text)
    }
}

impl std::error::Error for Fault {}

/// Which frames pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    text: String,
    test: Test,
}

impl Filter {
    /// Reads a text. Pods are still names then: see [`Filter::find_pods`].
    ///
    /// # Errors
    /// The first word that is wrong.
    pub fn parse(text: &str) -> Result<Filter, Fault> {
        // Faults are shown below it, in one line.
        let text: String = text
            .chars()
            .map(|c| if c.is_whitespace() { ' ' } else { c })
            .collect();
        let test = parse::parse(&text)?;
        Ok(Filter { text, test })
    }

    /// Looks up the addresses of the pods that are named.
    ///
    /// # Errors
    /// The first one that has none.
    pub fn find_pods(&mut self, addresses: impl Fn(&str) -> Vec<IpAddr>) -> Result<(), Fault> {
        let unknown = find(&mut self.test, &addresses);
        unknown.map_err(|at| Fault {
            why: format!("no pod is called {}", &self.text[at.clone()]),
            text: self.text.clone(),
            at,
        })
    }

    /// True if the frame passes.
    #[must_use]
    pub fn passes(&self, frame: &[u8]) -> bool {
        Facts::of(frame).is_some_and(|facts| holds(&self.test, &facts))
    }
}

fn find(test: &mut Test, pods: &impl Fn(&str) -> Vec<IpAddr>) -> Result<(), Range<usize>> {
    match test {
        Test::Pod {
            name,
            at,
            addresses,
            ..
        } => {
            *addresses = pods(name);
            match addresses.is_empty() {
                true => Err(at.clone()),
                false => Ok(()),
            }
        }
        Test::Not(one) => find(one, pods),
        Test::And(one, other) | Test::Or(one, other) => {
            find(one, pods)?;
            find(other, pods)
        }
        _ => Ok(()),
    }
}

fn holds(test: &Test, facts: &Facts) -> bool {
    match test {
        Test::Protocol(protocol) => facts.is(*protocol),
        Test::Host(end, host) => at(*end, facts.addresses, |address| address == *host),
        Test::Net(end, net) => at(*end, facts.addresses, |address| net.contains(&address)),
        Test::Port(end, port) => at(*end, facts.ports, |there| there == *port),
        Test::Station(end, mac) => at(*end, Some(facts.stations), |there| there == *mac),
        Test::Pod { end, addresses, .. } => at(*end, facts.addresses, |address| {
            addresses.contains(&address)
        }),
        Test::Not(one) => !holds(one, facts),
        Test::And(one, other) => holds(one, facts) && holds(other, facts),
        Test::Or(one, other) => holds(one, facts) || holds(other, facts),
    }
}

/// Whether such a thing is at that end of a frame that has them.
fn at<T>(end: End, ends: Option<(T, T)>, such: impl Fn(T) -> bool) -> bool {
    let Some((source, target)) = ends else {
        return false;
    };
    match end {
        End::Source => such(source),
        End::Target => such(target),
        End::Either => such(source) || such(target),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
