//! Rules as a table of nftables at a device's ingress, which needs no queueing discipline there either.
//!
//! In: the same [`Rule`]s as a classifier gets. Out: one table of the family `netdev` for the device, with
//! one chain, whose rules are as many as there are sorts of frames, and not as there are prefixes.
//! Never: touches a table of another name, or leaves a moment in which a frame meets half of the rules.
//!
//! The chain runs behind the filters of a clsact and behind chains of other owners with the usual
//! priorities. Addresses of more than one range are sets without a name, which nobody can change and which
//! go with their rule. Each rule bears a comment that tells its content, by which it is known again.
//!
//! Rules change in two steps: the new ones are put behind the old, and then the old ones go. One step
//! is one by the kernel's word, but a frame that begins with the rules of one generation may look its
//! address up in another, in which the new sets are not filled yet: under traffic one in some hundred
//! changes let a frame go to the node's kernel. Between the steps a frame that is to be doubled is so twice.

use std::io;

use ipnet::{Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::filter::{Deed, Match, Rule};
use super::netfilter::{self, Change, attribute, changing, expression, nested, number, text};
use super::{Netlink, fingerprint};
use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;

/// What the name of a table of ours begins with; the device's follows.
const NAME: &str = "tapline-";
/// Our only chain, and what sort it is.
const CHAIN: &str = "ingress";
const CHAIN_TYPE: &str = "filter";
/// Other owners' chains, at 0 or before as is usual, have their say first.
const PRIORITY: i32 = 100;
/// `NFPROTO_NETDEV`, and its hook `NF_NETDEV_INGRESS`.
const FAMILY: u8 = 5;
const INGRESS: u32 = 0;
/// The register that everything is read into: 16 bytes, as long as the longest key.
const REGISTER: u32 = 1;
/// Elements that go into one message, whose length has 16 bits.
const ELEMENTS_MAX: usize = 1000;

/// Requests of `linux/netfilter/nf_tables.h`.
mod request {
    pub(super) const NEW_TABLE: u16 = 0;
    pub(super) const GET_TABLE: u16 = 1;
    pub(super) const DELETE_TABLE: u16 = 2;
    pub(super) const NEW_CHAIN: u16 = 3;
    pub(super) const GET_CHAIN: u16 = 4;
    pub(super) const NEW_RULE: u16 = 6;
    pub(super) const GET_RULE: u16 = 7;
    pub(super) const DELETE_RULE: u16 = 8;
    pub(super) const NEW_SET: u16 = 9;
    pub(super) const NEW_ELEMENTS: u16 = 12;
}

/// Attribute numbers of the same header, and of `libnftnl` for what is stored for its sake.
mod kind {
    pub(super) const TABLE_NAME: u16 = 1;
    pub(super) const TABLE_FLAGS: u16 = 2;
    pub(super) const CHAIN_TABLE: u16 = 1;
    pub(super) const CHAIN_NAME: u16 = 3;
    pub(super) const CHAIN_HOOK: u16 = 4;
    pub(super) const CHAIN_TYPE: u16 = 7;
    pub(super) const HOOK_NUMBER: u16 = 1;
    pub(super) const HOOK_PRIORITY: u16 = 2;
    pub(super) const HOOK_DEVICE: u16 = 3;
    pub(super) const RULE_TABLE: u16 = 1;
    pub(super) const RULE_CHAIN: u16 = 2;
    pub(super) const RULE_HANDLE: u16 = 3;
    pub(super) const RULE_EXPRESSIONS: u16 = 4;
    pub(super) const RULE_USER_DATA: u16 = 7;
    pub(super) const SET_TABLE: u16 = 1;
    pub(super) const SET_NAME: u16 = 2;
    pub(super) const SET_FLAGS: u16 = 3;
    pub(super) const SET_KEY_TYPE: u16 = 4;
    pub(super) const SET_KEY_LENGTH: u16 = 5;
    pub(super) const SET_ID: u16 = 10;
    pub(super) const ELEMENTS_TABLE: u16 = 1;
    pub(super) const ELEMENTS_SET: u16 = 2;
    pub(super) const ELEMENTS: u16 = 3;
    pub(super) const ELEMENTS_SET_ID: u16 = 4;
    pub(super) const ELEMENT_KEY: u16 = 1;
    pub(super) const ELEMENT_FLAGS: u16 = 3;
    /// `NFTA_LIST_ELEM` and `NFTA_DATA_VALUE`.
    pub(super) const ITEM: u16 = 1;
    pub(super) const VALUE: u16 = 1;
}

/// `NFT_SET_ANONYMOUS | NFT_SET_CONSTANT | NFT_SET_INTERVAL`.
const SET_FLAGS: u32 = 0x1 | 0x2 | 0x4;
/// `NFT_SET_ELEM_INTERVAL_END`: from this key on it is no more.
const INTERVAL_END: u32 = 1;
/// `NFTNL_UDATA_RULE_COMMENT`.
const COMMENT: u8 = 0;

/// Where in a frame an expression reads (`enum nft_payload_bases`).
#[derive(Clone, Copy)]
enum Base {
    /// From the Ethernet header on; a tag that the device has taken out is back in its place.
    Link = 0,
    Network = 1,
}

/// Addresses of one length, as numbers.
type Range = (u128, u128);

/// What frames must have behind their EtherType.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    /// Bits of 32-bit words, as a classifier's keys: mask, value, offset.
    Words(Vec<(u32, u32, u32)>),
    /// An address of that many bytes at an offset, in one of the ranges.
    Address {
        offset: u32,
        length: u32,
        ranges: Vec<Range>,
    },
}

/// One rule of the chain: all [`Rule`]s of its sort that follow on one another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TableRule {
    /// None for every frame.
    protocol: Option<u16>,
    test: Test,
    deed: Deed,
}

/// The rules of the chain, in the order of `rules`.
fn table_rules(rules: &[Rule]) -> Vec<TableRule> {
    let mut all: Vec<TableRule> = Vec::new();
    for rule in rules {
        let one = TableRule::of(rule);
        if !all.last_mut().is_some_and(|last| last.takes(&one)) {
            all.push(one);
        }
    }
    all
}

impl TableRule {
    fn of(rule: &Rule) -> TableRule {
        let v4 = |net: &Ipv4Net, offset| Test::Address {
            offset,
            length: 4,
            ranges: vec![(
                u128::from(net.network().to_bits()),
                u128::from(net.broadcast().to_bits()),
            )],
        };
        let v6 = |net: &Ipv6Net| Test::Address {
            offset: 24,
            length: 16,
            ranges: vec![(net.network().to_bits(), net.broadcast().to_bits())],
        };
        let test = match &rule.frames {
            Match::Ipv4To(net) => v4(net, 16),
            Match::ArpTarget(net) => v4(net, 24),
            Match::Ipv6To(net) => v6(net),
            Match::Every | Match::ArpReply | Match::Advertisement => {
                let keys = rule.frames.keys();
                let word = |key: &netlink_packet_route::tc::TcU32Key| {
                    (key.mask, key.val, key.off.unsigned_abs())
                };
                Test::Words(keys.iter().map(word).collect())
            }
        };
        TableRule {
            protocol: (rule.frames != Match::Every).then(|| rule.frames.protocol()),
            test,
            deed: rule.deed,
        }
    }

    /// Takes another's ranges in, if that is all in which it differs.
    fn takes(&mut self, other: &TableRule) -> bool {
        let alike = (self.protocol, self.deed) == (other.protocol, other.deed);
        match (&mut self.test, &other.test) {
            (
                Test::Address { offset, ranges, .. },
                Test::Address {
                    offset: theirs,
                    ranges: more,
                    ..
                },
            ) if alike && offset == theirs => {
                ranges.extend(more);
                *ranges = joined(std::mem::take(ranges));
                true
            }
            _ => false,
        }
    }

    /// What tells its content, for whoever lists the rules, too.
    fn comment(&self) -> String {
        let content = format!("{self:?}");
        format!("tapline {:08x}", fingerprint(content.bytes()))
    }

    /// The steps of the rule; `set` is the number of its set in the batch.
    fn expressions(&self, set: u32) -> io::Result<Vec<Vec<u8>>> {
        // What costs little comes first: most frames are for the node, and leave a rule there.
        let mut all = Vec::new();
        if let Some(protocol) = self.protocol {
            all.extend([protocol_is_read(), equals(&protocol.to_be_bytes())]);
        }
        match &self.test {
            Test::Words(words) => {
                for (mask, value, offset) in words {
                    all.push(payload(Base::Network, *offset, 4));
                    all.push(masked(*mask));
                    all.push(equals(&value.to_be_bytes()));
                }
            }
            Test::Address {
                offset,
                length,
                ranges,
            } => {
                all.push(payload(Base::Network, *offset, *length));
                all.push(match ranges.as_slice() {
                    [range] => between(*range, *length),
                    _ => looked_up(set),
                });
            }
        }
        if let Some(protocol) = self.protocol {
            // As it stands in the frame: a tag hides it, as it does from a classifier.
            all.push(payload(Base::Link, 12, 2));
            all.push(equals(&protocol.to_be_bytes()));
        }
        all.extend(match self.deed {
            Deed::Redirect(device) => [device_number(device), forwarded()],
            Deed::Mirror(device) => [device_number(device), doubled()],
            // What leaves this hook leaves the device as well.
            Deed::Enter(_) => return Err(io::ErrorKind::Unsupported.into()),
        });
        Ok(all)
    }

    /// The set of its addresses, if it has more than one range: the set, and what is in it.
    fn set(&self, table: &str, set: u32) -> Vec<Change> {
        let (length, ranges) = match &self.test {
            Test::Address { length, ranges, .. } if ranges.len() > 1 => (length, ranges),
            _ => return Vec::new(),
        };
        // Numbers by which `nft` shows what they are: an IPv4 address, an IPv6 address.
        let key_type = if *length == 4 { 7 } else { 8 };
        let of_set = [
            text(kind::SET_TABLE, table),
            text(kind::SET_NAME, "__set%d"),
            number(kind::SET_FLAGS, SET_FLAGS),
            number(kind::SET_KEY_TYPE, key_type),
            number(kind::SET_KEY_LENGTH, *length),
            number(kind::SET_ID, set),
        ];
        let mut changes = vec![changing(
            request::NEW_SET,
            NLM_F_CREATE,
            FAMILY,
            &of_set.concat(),
        )];
        let elements: Vec<Vec<u8>> = elements(ranges, *length).collect();
        changes.extend(elements.chunks(ELEMENTS_MAX).map(|some| {
            let body = [
                text(kind::ELEMENTS_TABLE, table),
                text(kind::ELEMENTS_SET, "__set%d"),
                nested(kind::ELEMENTS, some),
                number(kind::ELEMENTS_SET_ID, set),
            ];
            changing(request::NEW_ELEMENTS, NLM_F_CREATE, FAMILY, &body.concat())
        }));
        changes
    }
}

/// Ranges in their order, those that touch made one: the kernel takes no two that share an edge.
fn joined(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut all: Vec<Range> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match all.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => all.push((first, last)),
        }
    }
    all
}

/// The edges of ranges: where each begins, and where it is no more unless that is beyond all addresses.
fn elements(ranges: &[Range], length: u32) -> impl Iterator<Item = Vec<u8>> {
    let key = move |address| nested(kind::ELEMENT_KEY, &[value_of(address, length)]);
    let greatest = u128::MAX >> (128 - 8 * length);
    ranges.iter().flat_map(move |(first, last)| {
        let end =
            (*last != greatest).then(|| [key(last + 1), number(kind::ELEMENT_FLAGS, INTERVAL_END)]);
        let begin = nested(kind::ITEM, &[key(*first)]);
        [Some(begin), end.map(|end| nested(kind::ITEM, &end))]
            .into_iter()
            .flatten()
    })
}

/// An address as it stands in a frame.
fn value_of(address: u128, length: u32) -> Vec<u8> {
    attribute(kind::VALUE, &address.to_be_bytes()[16 - length as usize..])
}

/// Reads from the frame; one that ends before is not the rule's.
fn payload(base: Base, offset: u32, length: u32) -> Vec<u8> {
    let place = [
        number(1, REGISTER),
        number(2, base as u32),
        number(3, offset),
        number(4, length),
    ];
    expression("payload", &place)
}

/// Reads the protocol that the kernel takes the frame for (`NFT_META_PROTOCOL`).
fn protocol_is_read() -> Vec<u8> {
    expression("meta", &[number(1, REGISTER), number(2, 1)])
}

fn between((first, last): Range, length: u32) -> Vec<u8> {
    let edges = [
        number(1, REGISTER),
        number(2, 0),
        nested(3, &[value_of(first, length)]),
        nested(4, &[value_of(last, length)]),
    ];
    expression("range", &edges)
}

fn equals(value: &[u8]) -> Vec<u8> {
    let value = nested(3, &[attribute(kind::VALUE, value)]);
    expression("cmp", &[number(1, REGISTER), number(2, 0), value])
}

fn masked(mask: u32) -> Vec<u8> {
    let value = |bytes: u32| [attribute(kind::VALUE, &bytes.to_be_bytes())];
    let how = [
        number(1, REGISTER),
        number(2, REGISTER),
        number(3, 4),
        nested(4, &value(mask)),
        nested(5, &value(0)),
    ];
    expression("bitwise", &how)
}

fn looked_up(set: u32) -> Vec<u8> {
    let how = [text(1, "__set%d"), number(2, REGISTER), number(4, set)];
    expression("lookup", &how)
}

/// Puts a device's index into the register, as the kernel itself counts.
fn device_number(device: u32) -> Vec<u8> {
    let value = [attribute(kind::VALUE, &device.to_ne_bytes())];
    expression("immediate", &[number(1, REGISTER), nested(2, &value)])
}

/// The frame leaves by the device of the register.
fn forwarded() -> Vec<u8> {
    expression("fwd", &[number(1, REGISTER)])
}

/// A copy of it does.
fn doubled() -> Vec<u8> {
    expression("dup", &[number(2, REGISTER)])
}

/// A table of ours, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// It is not asleep, and its chain hangs at the device's ingress.
    pub at_work: bool,
    /// The chain's rules.
    rules: Vec<FoundRule>,
}

/// A rule of our chain: whose it is tells the comment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FoundRule {
    handle: u64,
    comment: String,
}

impl Table {
    /// True if it does just what `rules` say.
    #[must_use]
    pub fn carries(&self, rules: &[Rule]) -> bool {
        let wanted = table_rules(rules);
        self.at_work
            && self.rules.len() == wanted.len()
            && wanted
                .iter()
                .zip(&self.rules)
                .all(|(rule, found)| rule.comment() == found.comment)
    }

    /// What the kernel has for the device called `device`.
    fn read(device: &str) -> io::Result<Option<Table>> {
        let name = format!("{NAME}{device}");
        let listed = netfilter::list(request::GET_TABLE, request::NEW_TABLE, FAMILY, &[]);
        let tables = match listed {
            Err(error) if netfilter::is_absent(&error) => return Ok(None),
            other => other?,
        };
        let is = |table: &&netfilter::Listed| {
            table.attributes().text(kind::TABLE_NAME).as_ref() == Some(&name)
        };
        let Some(table) = tables.iter().find(is) else {
            return Ok(None);
        };
        let flags = table.attributes().find(kind::TABLE_FLAGS);
        let awake = flags.is_none_or(|flags| flags.iter().all(|byte| *byte == 0));
        let chains = netfilter::list(request::GET_CHAIN, request::NEW_CHAIN, FAMILY, &[])?;
        let hangs = chains.iter().any(|chain| hangs(chain, &name, device));
        let asked = [text(kind::RULE_TABLE, &name), text(kind::RULE_CHAIN, CHAIN)];
        let rules = netfilter::list(
            request::GET_RULE,
            request::NEW_RULE,
            FAMILY,
            &asked.concat(),
        )?;
        Ok(Some(Table {
            at_work: awake && hangs,
            rules: rules
                .iter()
                .filter_map(|rule| FoundRule::read(rule, &name))
                .collect(),
            name,
        }))
    }
}

/// True if it is our chain, and hangs where it should.
fn hangs(chain: &netfilter::Listed, table: &str, device: &str) -> bool {
    let chain = chain.attributes();
    let hook = chain.inside(kind::CHAIN_HOOK);
    let is = |kind, value: u32| hook.find(kind) == Some(&value.to_be_bytes()[..]);
    chain.text(kind::CHAIN_TABLE).as_deref() == Some(table)
        && chain.text(kind::CHAIN_NAME).as_deref() == Some(CHAIN)
        && hook.text(kind::HOOK_DEVICE).as_deref() == Some(device)
        && is(kind::HOOK_NUMBER, INGRESS)
        && is(kind::HOOK_PRIORITY, PRIORITY.cast_unsigned())
}

impl FoundRule {
    /// None for a rule of another chain. Without a comment it is nobody's.
    fn read(rule: &netfilter::Listed, table: &str) -> Option<FoundRule> {
        let rule = rule.attributes();
        let is = |kind, value| rule.text(kind).as_deref() == Some(value);
        if !is(kind::RULE_TABLE, table) || !is(kind::RULE_CHAIN, CHAIN) {
            return None;
        }
        let handle = rule.find(kind::RULE_HANDLE)?.first_chunk()?;
        let comment = match rule.find(kind::RULE_USER_DATA).unwrap_or_default() {
            [COMMENT, length, rest @ ..] => {
                let bytes = rest.get(..usize::from(*length)).unwrap_or_default();
                String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
            }
            _ => String::new(),
        };
        Some(FoundRule {
            handle: u64::from_be_bytes(*handle),
            comment,
        })
    }
}

/// The batches, one after the other, that make of `held` a table for `rules`; none, if it is one.
fn steps(device: &str, held: Option<&Table>, rules: &[Rule]) -> io::Result<Vec<Vec<Change>>> {
    let name = format!("{NAME}{device}");
    let of_table = text(kind::TABLE_NAME, &name);
    let table = |request, flags| changing(request, flags, FAMILY, &of_table);
    let new = additions(&name, rules)?;
    Ok(match held {
        Some(held) if held.carries(rules) => Vec::new(),
        Some(held) if held.at_work => {
            let gone = held.rules.iter().map(|old| removal(&name, old));
            let steps = [new, gone.collect()];
            steps.into_iter().filter(|step| !step.is_empty()).collect()
        }
        other => {
            let gone = other.map(|_| table(request::DELETE_TABLE, 0));
            let whole = [
                table(request::NEW_TABLE, NLM_F_CREATE),
                chain(&name, device),
            ];
            vec![gone.into_iter().chain(whole).chain(new).collect()]
        }
    })
}

/// All rules and their sets, behind what is there.
fn additions(table: &str, rules: &[Rule]) -> io::Result<Vec<Change>> {
    let mut changes = Vec::new();
    for (set, rule) in (1..).zip(table_rules(rules)) {
        changes.extend(rule.set(table, set));
        let comment = rule.comment();
        let length = comment.len() as u8 + 1;
        let data = [&[COMMENT, length], comment.as_bytes(), &[0]].concat();
        let body = [
            text(kind::RULE_TABLE, table),
            text(kind::RULE_CHAIN, CHAIN),
            nested(kind::RULE_EXPRESSIONS, &rule.expressions(set)?),
            attribute(kind::RULE_USER_DATA, &data),
        ];
        let how = NLM_F_CREATE | NLM_F_APPEND;
        changes.push(changing(request::NEW_RULE, how, FAMILY, &body.concat()));
    }
    Ok(changes)
}

fn removal(table: &str, rule: &FoundRule) -> Change {
    let body = [
        text(kind::RULE_TABLE, table),
        text(kind::RULE_CHAIN, CHAIN),
        attribute(kind::RULE_HANDLE, &rule.handle.to_be_bytes()),
    ];
    changing(request::DELETE_RULE, 0, FAMILY, &body.concat())
}

fn chain(table: &str, device: &str) -> Change {
    let hook = [
        number(kind::HOOK_NUMBER, INGRESS),
        number(kind::HOOK_PRIORITY, PRIORITY.cast_unsigned()),
        text(kind::HOOK_DEVICE, device),
    ];
    let body = [
        text(kind::CHAIN_TABLE, table),
        text(kind::CHAIN_NAME, CHAIN),
        nested(kind::CHAIN_HOOK, &hook),
        text(kind::CHAIN_TYPE, CHAIN_TYPE),
    ];
    changing(request::NEW_CHAIN, NLM_F_CREATE, FAMILY, &body.concat())
}

impl Netlink {
    /// Makes a table for `rules` our only one at the device's ingress. What was there is changed so that
    /// no frame is missed; the same one stays.
    ///
    /// # Errors
    /// What the kernel says: `EOPNOTSUPP` or `EINVAL` without nftables, `ENOENT` without one of its parts.
    pub fn set_table_rules(&self, device: &DeviceName, rules: &[Rule]) -> Result<(), DeviceError> {
        let attempt = format!("put a table at the ingress of {device}");
        self.inside(&attempt, || {
            let held = Table::read(device.as_str())?;
            let steps = steps(device.as_str(), held.as_ref(), rules)?;
            steps.iter().try_for_each(|step| netfilter::change(step))
        })
    }

    /// The table of ours for the device, whether that is there or not; none where a kernel has no
    /// nftables.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn table(&self, device: &DeviceName) -> Result<Option<Table>, DeviceError> {
        let attempt = format!("look for a table at the ingress of {device}");
        self.inside(&attempt, || Table::read(device.as_str()))
    }

    /// Takes our table away; none is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_table(&self, device: &DeviceName) -> Result<(), DeviceError> {
        let attempt = format!("take a table from the ingress of {device}");
        self.inside(&attempt, || {
            // A kernel that has none, or shows none, holds none of ours.
            let Ok(Some(held)) = Table::read(device.as_str()) else {
                return Ok(());
            };
            let name = text(kind::TABLE_NAME, &held.name);
            let gone = changing(request::DELETE_TABLE, 0, FAMILY, &name);
            match netfilter::change(&[gone]) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(net: &str, deed: Deed) -> Rule {
        let frames = Match::Ipv4To(net.parse().expect("a prefix"));
        Rule { frames, deed }
    }

    #[test]
    fn prefixes_of_a_sort_are_one_rule_with_one_set_whose_ranges_are_joined() {
        let nets = [
            "10.20.0.8/29",
            "10.20.0.6/31",
            "10.20.0.5/32",
            "10.20.1.0/24",
        ];
        let mut rules: Vec<Rule> = nets.map(|net| to(net, Deed::Redirect(7))).to_vec();
        rules.push(Rule {
            frames: Match::ArpReply,
            deed: Deed::Mirror(7),
        });
        let all = table_rules(&rules);
        assert_eq!(all.len(), 2);
        let at = |address: [u8; 4]| u128::from(u32::from_be_bytes(address));
        let ranges = vec![
            (at([10, 20, 0, 5]), at([10, 20, 0, 15])),
            (at([10, 20, 1, 0]), at([10, 20, 1, 255])),
        ];
        let test = Test::Address {
            offset: 16,
            length: 4,
            ranges,
        };
        assert_eq!(all[0].test, test);
        assert_eq!(all[1].test, Test::Words(vec![(0xffff, 2, 4)]));
        // Another device, or something between, makes it another rule.
        let apart = [
            to("10.0.0.0/8", Deed::Redirect(7)),
            to("11.0.0.0/8", Deed::Redirect(8)),
            to("12.0.0.0/8", Deed::Mirror(8)),
        ];
        assert_eq!(table_rules(&apart).len(), 3);
    }

    #[test]
    fn a_range_to_the_last_address_has_no_end() {
        let count = |ranges: &[Range], length| elements(ranges, length).count();
        assert_eq!(count(&[(0, u128::from(u32::MAX))], 4), 1);
        assert_eq!(count(&[(0, 5), (7, u128::MAX)], 16), 3);
    }

    #[test]
    fn a_table_is_known_by_what_its_rules_say() {
        let rules = [to("10.20.0.0/24", Deed::Redirect(7))];
        let found = |rule: &TableRule| FoundRule {
            handle: 2,
            comment: rule.comment(),
        };
        let table = Table {
            name: "tapline-eth0".to_owned(),
            at_work: true,
            rules: table_rules(&rules).iter().map(found).collect(),
        };
        assert!(table.carries(&rules));
        let others = [
            to("10.20.0.0/25", Deed::Redirect(7)),
            to("10.20.0.0/24", Deed::Redirect(8)),
            to("10.20.0.0/24", Deed::Mirror(7)),
        ];
        assert!(others.iter().all(|other| !table.carries(&[*other])));
        assert!(!table.carries(&[rules[0], others[2]]));
        let asleep = Table {
            at_work: false,
            ..table.clone()
        };
        assert!(!asleep.carries(&rules));
        let lengths = |held, rules: &[Rule]| -> Vec<usize> {
            let steps = steps("eth0", held, rules).expect("possible");
            steps.iter().map(Vec::len).collect()
        };
        // A set, its elements and the rule, before the old one goes.
        let two = [others[0], to("10.9.0.0/24", Deed::Redirect(7))];
        assert_eq!(lengths(Some(&table), &two), [3, 1]);
        assert_eq!(lengths(Some(&table), &[]), [1]);
        assert_eq!(lengths(Some(&table), &rules), [0; 0]);
        assert_eq!(lengths(None, &rules), [2 + 1]);
        assert_eq!(lengths(Some(&asleep), &rules), [1 + 2 + 1]);
        assert!(steps("eth0", None, &[to("10.0.0.0/8", Deed::Enter(7))]).is_err());
    }
}
