//! The uplink: how the switch shares `eth0` with the node without taking it over.
//!
//! In: the node's namespace, the device to share, and the prefixes of the node's pods.
//! Out: a TAP: what the switch writes leaves by `eth0`; what arrives there for pods, it reads.
//! Never: changes `eth0` itself, its addresses, or a filter that someone else put there.
//!
//! Where `eth0` has a clsact, ours are filters there, among those of others. Where it has none, they are
//! a program, or a table of nftables, whichever the kernel takes first: to add a clsact, and to remove
//! it, costs the node what it sends in that moment. Without either that is the price of the first start
//! and of a stop.

use dataplane::facility::Facility;
use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::{ensure_alias, hush_and_raise};
use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;
use crate::devices::netlink::Netlink;
use crate::devices::netlink::filter::{Deed, Match, Rule};
use crate::devices::tap::{self, TapSpec};

/// Which ARP frames, and their likes in IPv6, the switch gets from the uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArpSteering {
    /// Those about a pod: the switch alone gets what asks for, or answers to, an address in the
    /// prefixes. For azure, where pods live in the node's own subnet.
    ByTarget(Vec<Ipv4Net>),
    /// Copies of the replies: the kernel keeps them, as it asked. For kubenet, where switch and
    /// kernel share the node's addresses. Where pods have IPv6, of neighbour advertisements too.
    MirrorReplies,
}

/// By a program on the device's ingress.
pub const TCX: &str = "tcx";
/// By a table of the packet filter on the device's ingress.
pub const NFTABLES: &str = "nftables";
/// By filters of its clsact, or of an ingress qdisc in its place.
pub const CLSACT: &str = "clsact";

/// A program, a table or a filter of ours on the shared device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SteeredBy {
    /// [`TCX`], [`NFTABLES`] or [`CLSACT`].
    pub by: &'static str,
    /// Which it is, in the words of `bpftool`, `nft` or `tc`.
    pub what: String,
    /// What it does to which frames.
    pub rules: Vec<String>,
}

/// The port to the network.
#[derive(Clone, Debug)]
pub struct Uplink {
    /// The device shared, `eth0`.
    pub device: DeviceName,
    /// The TAP.
    pub tap: TapSpec,
    /// IPv4 of pods; see [`cover`](super::cover).
    pub pods: Vec<Ipv4Net>,
    /// IPv6 of pods.
    pub pods_v6: Vec<Ipv6Net>,
    /// What becomes of ARP.
    pub arp: ArpSteering,
}

/// Everything that the switch writes leaves by the device.
fn out(device: u32) -> Rule {
    Rule {
        frames: Match::Every,
        deed: Deed::Redirect(device),
    }
}

/// Closes the alias of an uplink TAP whose device had no clsact before us. The alias lives as
/// long as the TAP, so a later process knows as well.
const CLSACT_IS_OURS: &str = "(clsact)";

impl Uplink {
    /// Makes the port, or brings its steering up to date; frames in flight lose nothing.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] without the shared device, [`DeviceError::Conflict`] if the TAP's
    /// name is taken, otherwise what failed.
    pub fn attach(&self, node: &Netlink) -> Result<(), DeviceError> {
        let device = node.index(&self.device)?;
        tap::ensure(node, &self.tap)?;
        node.ensure_clsact(&self.tap.name)?;
        node.set_rules(&self.tap.name, &[out(device)])?;
        hush_and_raise(node, &self.tap.name)?;
        let steering = self.rules(node.index(&self.tap.name)?);
        // The new stands before the old goes, so that no frame is missed.
        match self.put_beside_queue(node, &steering)? {
            Some(TCX) => {
                self.ensure_alias(node)?;
                return node.remove_table(&self.device);
            }
            Some(_) => {
                self.ensure_alias(node)?;
                return node.remove_programs(&self.device);
            }
            None => {}
        }
        if node.ensure_clsact(&self.device)? {
            ensure_alias(node, &self.tap.name, &self.alias(CLSACT_IS_OURS))?;
        } else {
            self.ensure_alias(node)?;
        }
        node.set_rules(&self.device, &steering)?;
        node.remove_programs(&self.device)?;
        node.remove_table(&self.device)
    }

    /// Steers by what needs no clsact, and tells by what: by nothing where there is one to put filters
    /// on, or where the kernel takes neither.
    fn put_beside_queue(
        &self,
        node: &Netlink,
        rules: &[Rule],
    ) -> Result<Option<&'static str>, DeviceError> {
        if node.has_clsact(&self.device)? {
            return Ok(None);
        }
        if Facility::Tcx.is_allowed() && node.set_program_rules(&self.device, rules).is_ok() {
            return Ok(Some(TCX));
        }
        let table = || node.set_table_rules(&self.device, rules);
        Ok((Facility::Nftables.is_allowed() && table().is_ok()).then_some(NFTABLES))
    }

    /// True if what needs no clsact holds `rules`, and there is no clsact to put filters on.
    fn holds_beside_queue(&self, node: &Netlink, rules: &[Rule]) -> Result<bool, DeviceError> {
        if node.has_clsact(&self.device)? {
            return Ok(false);
        }
        let program = || matches!(node.has_program_rules(&self.device, rules), Ok(true));
        let table = || matches!(node.table(&self.device), Ok(Some(table)) if table.carries(rules));
        Ok((Facility::Tcx.is_allowed() && program())
            || (Facility::Nftables.is_allowed() && table()))
    }

    /// An alias that is there stays: it may say whose the clsact is.
    fn ensure_alias(&self, node: &Netlink) -> Result<(), DeviceError> {
        match node.link(&self.tap.name)?.alias {
            None => ensure_alias(node, &self.tap.name, &self.alias("")),
            Some(_) => Ok(()),
        }
    }

    /// Puts back what is missing of the steering, and tells how many filters that was. What is there
    /// already is left alone.
    ///
    /// # Errors
    /// As [`Uplink::attach`], and [`DeviceError::Missing`] without the TAP: whoever has it open must
    /// make it anew.
    pub fn restore(&self, node: &Netlink) -> Result<usize, DeviceError> {
        let steering = self.rules(node.index(&self.tap.name)?);
        let out = [out(node.index(&self.device)?)];
        let on_device = match self.holds_beside_queue(node, &steering)? {
            true => 0,
            false => node.missing_rules(&self.device, &steering)?,
        };
        let missing = on_device + node.missing_rules(&self.tap.name, &out)?;
        if missing > 0 {
            self.attach(node)?;
        }
        Ok(missing)
    }

    /// What the shared device has of the steering now.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn carriers(&self, node: &Netlink) -> Result<Vec<SteeredBy>, DeviceError> {
        let steering = self.rules(node.index(&self.tap.name)?);
        let word = |rule: &Rule| match rule.deed {
            Deed::Mirror(_) => format!("a copy of {} to {}", rule.frames, self.tap.name),
            _ => format!("{} to {}", rule.frames, self.tap.name),
        };
        let words = |current| match current {
            true => steering.iter().map(word).collect(),
            false => vec!["other rules than the node's now".to_owned()],
        };
        let mut found = Vec::new();
        for program in node.programs(&self.device)? {
            found.push(SteeredBy {
                by: TCX,
                what: format!("program {} (id {})", program.name, program.id),
                rules: words(program.carries(&steering)),
            });
        }
        if let Some(table) = node.table(&self.device)? {
            found.push(SteeredBy {
                by: NFTABLES,
                what: format!("table netdev {}", table.name),
                rules: words(table.carries(&steering)),
            });
        }
        for filter in node.filters(&self.device)?.iter().filter(|one| one.ours) {
            let rules = steering.iter().filter(|rule| filter.does(rule));
            let (table, hash, entry) = (
                filter.handle >> 20,
                filter.handle >> 12 & 0xff,
                filter.handle & 0xfff,
            );
            found.push(SteeredBy {
                by: CLSACT,
                what: format!(
                    "filter {} pref {} fh {table:x}:{hash:x}:{entry:x}",
                    filter.kind, filter.priority
                ),
                rules: rules.map(word).collect(),
            });
        }
        Ok(found)
    }

    /// Removes the port. The shared device keeps all that is not ours, and its clsact unless that
    /// is ours and empty.
    ///
    /// # Errors
    /// What failed first; the rest is removed all the same.
    pub fn detach(&self, node: &Netlink) -> Result<(), DeviceError> {
        let steering = self.leave_device(node);
        steering.and(tap::remove(node, &self.tap.name))
    }

    /// Takes our program, table or filters from the shared device, which keeps all that is not ours, and its clsact
    /// unless that is ours and empty. The TAP stays.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn leave_device(&self, node: &Netlink) -> Result<(), DeviceError> {
        // It may be there without the device.
        node.remove_table(&self.device)?;
        if node.find_link(&self.device)?.is_none() {
            return Ok(());
        }
        node.remove_programs(&self.device)?;
        node.set_rules(&self.device, &[])?;
        let alias = node.find_link(&self.tap.name)?.and_then(|tap| tap.alias);
        let ours = alias.is_some_and(|alias| alias.ends_with(CLSACT_IS_OURS));
        if ours && node.has_no_filters(&self.device)? {
            node.remove_clsact(&self.device)?;
        }
        Ok(())
    }

    fn alias(&self, mark: &str) -> String {
        format!("tapline uplink of {} {mark}", self.device)
            .trim_end()
            .to_owned()
    }

    fn rules(&self, tap: u32) -> Vec<Rule> {
        let to_tap = |frames| Rule {
            frames,
            deed: Deed::Redirect(tap),
        };
        let ipv4 = self.pods.iter().map(|net| to_tap(Match::Ipv4To(*net)));
        let ipv6 = self.pods_v6.iter().map(|net| to_tap(Match::Ipv6To(*net)));
        let arp: Vec<Rule> = match &self.arp {
            ArpSteering::ByTarget(nets) => nets
                .iter()
                .map(|net| to_tap(Match::ArpTarget(*net)))
                .collect(),
            ArpSteering::MirrorReplies => {
                let copy = |frames| Rule {
                    frames,
                    deed: Deed::Mirror(tap),
                };
                let advertised = (!self.pods_v6.is_empty()).then_some(Match::Advertisement);
                [Match::ArpReply]
                    .into_iter()
                    .chain(advertised)
                    .map(copy)
                    .collect()
            }
        };
        ipv4.chain(ipv6).chain(arp).collect()
    }
}
