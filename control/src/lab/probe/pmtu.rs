//! The path MTU: the longest packet that arrives without being cut.
//!
//! In: a namespace and a [`PathMtuSpec`]. Out: that length, and what was said of a longer one.
//! Never: believes what a router says of a length before a packet of it has arrived, or what the
//! kernel remembers of the path.
//!
//! Echo requests that nobody may fragment are sent, first as long as the device allows. Where one
//! does not arrive, the length that the ICMP error tells is next (RFC 1191, RFC 8201), or without
//! one the middle of what is left.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::ping::{PingError, PingSpec, ping};
use crate::devices::netns::Netns;

/// Bytes of the headers in front of a ping's payload: IPv4 or IPv6, and ICMP.
const HEADERS: [u16; 2] = [20 + 8, 40 + 8];

/// Whither, and between which lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMtuSpec {
    /// The address to reach.
    pub to: IpAddr,
    /// The longest packet to try first, in bytes from its IP header on: the device's MTU.
    pub ceiling: u16,
    /// How long to wait for each answer.
    pub timeout: Duration,
}

impl PathMtuSpec {
    /// To `to`, from a device with an MTU of `ceiling` bytes.
    #[must_use]
    pub const fn to(to: IpAddr, ceiling: u16) -> PathMtuSpec {
        PathMtuSpec {
            to,
            ceiling,
            timeout: Duration::from_millis(500),
        }
    }

    /// What every path must carry: RFC 791 (68 bytes), RFC 8200 section 5 (1280 bytes).
    const fn floor(&self) -> u16 {
        match self.to {
            IpAddr::V4(_) => 68,
            IpAddr::V6(_) => 1280,
        }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMtuReport {
    /// The longest packet that arrived, in bytes from its IP header on. None if none did.
    pub arrived: Option<u16>,
    /// Why the last packet that did not arrive did not, as far as anybody said so.
    pub refused: Option<PingError>,
    /// Packets sent.
    pub tries: u32,
}

/// Finds the path MTU from inside a namespace. Takes at most 17 times the timeout, and as often as
/// not one.
///
/// # Errors
/// What opening a socket says.
pub fn path_mtu(ns: &Netns, spec: &PathMtuSpec) -> io::Result<PathMtuReport> {
    let mut search = Search {
        ns,
        spec,
        report: PathMtuReport {
            arrived: None,
            refused: None,
            tries: 0,
        },
    };
    // Up to `least` everything arrives, from `most` on nothing does.
    let mut least = spec.floor().saturating_sub(1);
    let mut most = spec.ceiling.saturating_add(1);
    let (mut next, mut told) = (spec.ceiling, None);
    while least + 1 < most {
        if search.arrives(next)? {
            least = next;
            // If what was told is true, one byte more does not arrive.
            next = told.map_or(0, |_| least.saturating_add(1));
        } else {
            most = next;
            told = search.told();
            next = told.unwrap_or(0);
        }
        if !(least + 1..most).contains(&next) {
            next = least + (most - least) / 2;
        }
    }
    if search.report.arrived.is_some() && most > spec.ceiling {
        let _longer_than_the_device_allows = search.arrives(most)?;
    }
    Ok(search.report)
}

struct Search<'a> {
    ns: &'a Netns,
    spec: &'a PathMtuSpec,
    report: PathMtuReport,
}

impl Search<'_> {
    /// Whether a packet of `length` bytes is answered; if not, the report has what was said.
    fn arrives(&mut self, length: u16) -> io::Result<bool> {
        let headers = HEADERS[usize::from(self.spec.to.is_ipv6())];
        let one = PingSpec {
            count: 1,
            timeout: self.spec.timeout,
            payload_len: length.saturating_sub(headers).into(),
            whole: true,
            ..PingSpec::to(self.spec.to)
        };
        let report = ping(self.ns, &one)?;
        self.report.tries += 1;
        if report.received() > 0 {
            self.report.arrived = self.report.arrived.max(Some(length));
            return Ok(true);
        }
        self.report.refused = report.errors.into_iter().next();
        Ok(false)
    }

    /// The length that the last refusal told of.
    fn told(&self) -> Option<u16> {
        let mtu = self.report.refused.as_ref()?.mtu?;
        u16::try_from(mtu).ok()
    }
}
