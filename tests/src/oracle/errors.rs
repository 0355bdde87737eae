//! Who is told of a death, in which words, and how often.
//!
//! In: a frame that died. Out: an ICMP error by the port it came in by, or none.
//! Never: an error about an error, to nobody, to a group, or more than the limits allow
//! (RFC 1812 4.3.2, RFC 4443 2.4).

use std::collections::BTreeMap;
use std::net::IpAddr;

use dataplane::frame::ipv4::Ipv4View;
use dataplane::frame::ipv6::Ipv6View;
use dataplane::frame::transport::Transport;
use dataplane::frame::{FrameView, Network, options};
use dataplane::tables::fib::NextHop;
use dataplane::tables::{Crossing, PortRole};
use dataplane::verdict::DropReason;

use super::speech::{self, Error};
use super::{Arrival, Oracle};

/// Milliseconds that a token takes to come back, and how many there are at once.
type Rate = (u64, u64);
const TO_ANYBODY: Rate = (1, 50);
const TO_ONE_HOST: Rate = (1000, 6);
const FOR_PATH_MTU: Rate = (1, 1000);

/// Credit in milliseconds, and when it was last looked at.
#[derive(Clone, Copy, Debug)]
struct Credit(u64, u64);

impl Credit {
    fn full((cost, burst): Rate) -> Credit {
        Credit(cost * burst, 0)
    }

    fn has_one(&mut self, (cost, burst): Rate, now: u64) -> bool {
        let grown = self.0 + now.saturating_sub(self.1);
        *self = Credit(grown.min(cost * burst), now);
        self.0 >= cost
    }
}

/// What may still be said.
#[derive(Clone, Debug)]
pub(super) struct Purse {
    anybody: Credit,
    path_mtu: Credit,
    hosts: BTreeMap<IpAddr, Credit>,
    sent: u16,
    pub(super) silent: bool,
}

impl Default for Purse {
    fn default() -> Purse {
        Purse {
            anybody: Credit::full(TO_ANYBODY),
            path_mtu: Credit::full(FOR_PATH_MTU),
            hosts: BTreeMap::new(),
            sent: 0,
            silent: false,
        }
    }
}

impl Purse {
    fn allows(&mut self, host: IpAddr, path_mtu: bool, now: u64) -> bool {
        if self.silent {
            return false;
        }
        if path_mtu {
            let may = self.path_mtu.has_one(FOR_PATH_MTU, now);
            self.path_mtu.0 -= if may { FOR_PATH_MTU.0 } else { 0 };
            return may;
        }
        let full = Credit::full(TO_ONE_HOST);
        let own = self.hosts.entry(host).or_insert(full);
        let may = self.anybody.has_one(TO_ANYBODY, now) && own.has_one(TO_ONE_HOST, now);
        if may {
            self.anybody.0 -= TO_ANYBODY.0;
            own.0 -= TO_ONE_HOST.0;
        }
        may
    }
}

impl Oracle {
    /// A frame dies, and its sender may be told.
    pub(super) fn refuse(&mut self, arrival: Arrival, reason: DropReason) {
        if matches!(self.spec.crossing, Crossing::Routed { .. }) {
            self.tell(&arrival, reason);
        }
        self.books.drop(arrival.ingress, reason);
    }

    fn tell(&mut self, arrival: &Arrival, reason: DropReason) {
        let (Some(speaker), Ok(view)) = (
            self.speaker(arrival.ingress),
            FrameView::parse(&arrival.frame.bytes),
        ) else {
            return;
        };
        if view.target.is_group() {
            return;
        }
        let (mac, v4, v6) = speaker;
        let (about, stations) = (view.payload(), (mac, view.source.mac()));
        let (error, host) = match view.network() {
            Network::Ipv4(ip) => (self.error_v4(reason, &ip, about), IpAddr::from(ip.source)),
            Network::Ipv6(ip) => (self.error_v6(reason, &ip, about), ip.source.into()),
            _ => return,
        };
        let Some(error) = error else { return };
        if !self
            .errors
            .allows(host, reason == DropReason::TooBig, self.now)
        {
            self.books.suppressed += 1;
            return;
        }
        self.errors.sent = self.errors.sent.wrapping_add(1);
        let written = match (host, v4, v6) {
            (IpAddr::V4(host), Some(own), _) => Some(speech::icmp(
                error,
                stations,
                (own, host),
                self.errors.sent,
                about,
            )),
            (IpAddr::V6(host), _, Some(own)) => {
                Some(speech::icmpv6(error, stations, (own, host), about))
            }
            _ => None,
        };
        if let Some(frame) = written {
            self.originate(arrival.ingress, frame);
        }
    }

    /// The MTU of the port that the packet would leave by.
    fn mtu_towards(&self, target: IpAddr) -> Option<u32> {
        let egress = match self.longest(target)? {
            NextHop::Station { port, .. } => self.row(port),
            NextHop::Neighbour(_) => self.role(PortRole::Uplink),
            _ => None,
        };
        egress.map(|row| row.mtu.into())
    }

    fn error_v4(&self, reason: DropReason, ip: &Ipv4View, about: &[u8]) -> Option<Error> {
        let error = match reason {
            DropReason::TtlExpired => (11, 0, 0),
            DropReason::NoRoute => (3, 0, 0),
            DropReason::NoSuchPod | DropReason::NeighbourFailed => (3, 1, 0),
            DropReason::TooBig => (3, 4, self.mtu_towards(ip.target.into())?),
            DropReason::MalformedOptions => {
                let fault = options::check_v4(&about[..usize::from(ip.header_len)]).err()?;
                (12, 0, u32::from(fault.pointer?) << 24)
            }
            _ => return None,
        };
        let asks = match ip.transport {
            Transport::Icmp { kind, .. } => [0, 8, 9, 10, 13, 14, 15, 16, 17, 18].contains(&kind),
            _ => ip.protocol != 1,
        };
        let nobody = |first: u8| first == 0 || first == 127 || first >= 224;
        let between_hosts = !nobody(ip.source.octets()[0]) && !nobody(ip.target.octets()[0]);
        (asks && ip.fragment_offset == 0 && between_hosts).then_some(error)
    }

    fn error_v6(&self, reason: DropReason, ip: &Ipv6View, about: &[u8]) -> Option<Error> {
        let option = || {
            options::check_hop_by_hop(about)
                .err()?
                .pointer
                .map(u32::from)
        };
        let error = match reason {
            DropReason::TtlExpired => (3, 0, 0),
            DropReason::NoRoute => (1, 0, 0),
            DropReason::NoSuchPod | DropReason::NeighbourFailed => (1, 3, 0),
            DropReason::TooBig => (2, 0, self.mtu_towards(ip.target.into())?.max(1280)),
            DropReason::SourceRouted => (1, 1, 0),
            DropReason::BeyondScope => (1, 2, 0),
            DropReason::UnknownOption => (4, 2, option()?),
            DropReason::MalformedOptions => (4, 0, option()?),
            _ => return None,
        };
        let kind = about.get(usize::from(ip.header_len)..);
        let asks = match kind.map(|message| Transport::parse(ip.protocol, message)) {
            _ if ip.protocol != 58 || ip.fragment_offset > 0 => true,
            Some(Transport::Icmp { kind, .. }) => kind >= 128 && kind != 137,
            _ => false,
        };
        let source = ip.source;
        let nobody = source.is_multicast()
            || source.is_loopback()
            || source.is_unspecified()
            || source.to_ipv4_mapped().is_some();
        (asks && !nobody && !ip.target.is_multicast()).then_some(error)
    }
}
