//! Queueing disciplines and the classifiers of a device's ingress.
//!
//! In: [`Rule`]s: which frames, and what happens to them.
//! Out: exactly those rules on the device, among whatever other owners have put there.
//! Never: touches a filter that does not carry our cookie, or a clsact that others use.
//!
//! Only `u32`, `mirred` and `clsact` are used: `matchall` and `flower` are missing from kernels
//! that we have to serve. A `u32` key that lies beyond the frame's end does not match, so the rule
//! for every frame has no key at all: a key with an empty mask would let a frame with fewer than
//! four bytes of payload escape to the kernel.

use std::fmt;

use ipnet::{Ipv4Net, Ipv6Net};
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption,
    TcActionType, TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror,
    TcMirrorActionType, TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
};

use super::{Answer, Attributes, Netlink, bytes_of};
use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;

/// What marks an action as ours, in the 16 bytes that the kernel keeps for its owner.
const COOKIE: &[u8] = b"tapline";
/// Where the drop-all stands: behind every rule of ours.
const DROP_PRIORITY: u16 = 7499;
/// Where the drop of copies stands.
const COPIES_PRIORITY: u16 = 7498;
/// `ETH_P_ALL`.
const EVERY_PROTOCOL: u16 = 0x0003;
/// Bytes of `struct tcmsg`.
const HEADER_LENGTH: usize = 20;
/// Where the keys start in `struct tc_u32_sel`.
const SELECTOR_KEYS: usize = 16;
/// The node part of a `u32` handle, the only part that we may choose.
const NODE_MASK: u32 = 0xfff;
/// Ingress of clsact, and of a plain ingress qdisc that stands in its place.
const INGRESS: TcHandle = TcHandle {
    major: u16::MAX,
    minor: TcHandle::MIN_INGRESS,
};

/// Attribute numbers of `linux/rtnetlink.h`, `linux/pkt_cls.h` and `linux/tc_act/tc_mirred.h`.
mod number {
    pub(super) const KIND: u16 = 1;
    pub(super) const OPTIONS: u16 = 2;
    pub(super) const U32_SELECTOR: u16 = 5;
    pub(super) const U32_ACTIONS: u16 = 7;
    pub(super) const ACTION_OPTIONS: u16 = 2;
    pub(super) const ACTION_COOKIE: u16 = 6;
    pub(super) const MIRRED_PARAMETERS: u16 = 2;
    pub(super) const BPF_OPS_LEN: u16 = 4;
    pub(super) const BPF_OPS: u16 = 5;
    pub(super) const BPF_FLAGS: u16 = 8;
    /// The program's answer is the deed itself (`TCA_BPF_FLAG_ACT_DIRECT`).
    pub(super) const BPF_DIRECT: u32 = 1;
}

/// An instruction of classic BPF (`struct sock_filter`): code, jumps, operand.
type Instruction = (u16, u8, u8, u32);

/// Codes, operands and answers of such programs (linux/filter.h, linux/pkt_cls.h).
mod bpf {
    pub(super) const LOAD: u16 = 0x20;
    pub(super) const JUMP_IF_EQUAL: u16 = 0x15;
    pub(super) const RETURN: u16 = 0x06;
    /// `SKF_AD_OFF + SKF_AD_PKTTYPE`.
    pub(super) const PACKET_TYPE: u32 = 0xffff_f004;
    /// `SKF_AD_OFF + SKF_AD_QUEUE`: one more than the queue it came in by.
    pub(super) const QUEUE: u32 = 0xffff_f018;
    /// `PACKET_OTHERHOST`.
    pub(super) const OTHER_HOST: u32 = 3;
    /// `TC_ACT_SHOT`.
    pub(super) const DROP: u32 = 2;
    /// `TC_ACT_UNSPEC`.
    pub(super) const GO_ON: u32 = u32::MAX;
}

/// Which frames a rule is for. IPv4 and IPv6 are untagged: a VLAN tag hides them from these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Every frame.
    Every,
    /// IPv4 to the prefix.
    Ipv4To(Ipv4Net),
    /// IPv6 to the prefix.
    Ipv6To(Ipv6Net),
    /// ARP, request or reply, whose target protocol address is in the prefix.
    ArpTarget(Ipv4Net),
    /// ARP replies.
    ArpReply,
    /// Neighbour advertisements (RFC 4861 4.4) right behind the IPv6 header, where they always are.
    Advertisement,
}

/// What happens to the frames of a rule, with the index of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// They leave by that device and by it alone.
    Redirect(u32),
    /// A copy leaves by that device; the frame goes on to later filters and to the kernel.
    Mirror(u32),
    /// They come in by that device, as if they had come from its wire.
    Enter(u32),
}

/// One classifier on a device's ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which frames.
    pub frames: Match,
    /// What happens to them.
    pub deed: Deed,
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Match::Every => f.write_str("every frame"),
            Match::Ipv4To(net) => write!(f, "IPv4 to {net}"),
            Match::Ipv6To(net) => write!(f, "IPv6 to {net}"),
            Match::ArpTarget(net) => write!(f, "ARP about {net}"),
            Match::ArpReply => f.write_str("ARP replies"),
            Match::Advertisement => f.write_str("neighbour advertisements"),
        }
    }
}

impl Match {
    /// The priority that rules of this sort live at. One priority holds one protocol, the kernel
    /// demands it. Numbers that an operator picks by hand (1 to a few hundred) run before ours,
    /// those that `tc` picks itself (49152 downwards) after.
    #[must_use]
    pub const fn priority(&self) -> u16 {
        match self {
            Match::Every => 7400,
            Match::Ipv4To(_) => 7401,
            Match::Ipv6To(_) | Match::Advertisement => 7402,
            Match::ArpTarget(_) | Match::ArpReply => 7403,
        }
    }

    pub(super) const fn protocol(&self) -> u16 {
        match self {
            Match::Every => EVERY_PROTOCOL,
            Match::Ipv4To(_) => 0x0800,
            Match::Ipv6To(_) | Match::Advertisement => 0x86dd,
            Match::ArpTarget(_) | Match::ArpReply => 0x0806,
        }
    }

    /// Offsets count from the network header: the IP header, or the ARP header.
    pub(super) fn keys(&self) -> Vec<TcU32Key> {
        match self {
            Match::Every => Vec::new(),
            Match::Ipv4To(net) => vec![ipv4_key(net, 16)],
            Match::ArpTarget(net) => vec![ipv4_key(net, 24)],
            Match::ArpReply => vec![key(0x0000_ffff, 2, 4)],
            Match::Ipv6To(net) => ipv6_keys(net),
            // Next header ICMPv6 (58) with a hop limit of 255, and type 136.
            Match::Advertisement => vec![
                key(0x0000_ffff, 0x3aff, 4),
                key(0xff00_0000, 0x8800_0000, 40),
            ],
        }
    }

    fn selector(&self) -> TcU32Selector {
        let mut selector = TcU32Selector::default();
        selector.flags = TcU32SelectorFlags::Terminal;
        selector.keys = self.keys();
        selector.nkeys = selector.keys.len() as u8;
        selector
    }
}

fn key(mask: u32, value: u32, offset: i32) -> TcU32Key {
    let mut key = TcU32Key::default();
    key.mask = mask;
    key.val = value & mask;
    key.off = offset;
    key
}

fn ipv4_key(net: &Ipv4Net, offset: i32) -> TcU32Key {
    key(net.netmask().to_bits(), net.network().to_bits(), offset)
}

fn ipv6_keys(net: &Ipv6Net) -> Vec<TcU32Key> {
    let word = |of: u128, i: i32| (of >> (96 - 32 * i)) as u32;
    let (mask, value) = (net.netmask().to_bits(), net.network().to_bits());
    // The last word always: who has less than an address is nobody's, as with a table of nftables.
    (0..4)
        .filter(|i| *i == 3 || word(mask, *i) != 0)
        .map(|i| key(word(mask, i), word(value, i), 24 + 4 * i))
        .collect()
}

impl Deed {
    fn mirred(self) -> TcMirror {
        let mut mirred = TcMirror::default();
        (mirred.eaction, mirred.ifindex, mirred.generic.action) = match self {
            Deed::Redirect(to) => (TcMirrorActionType::EgressRedir, to, TcActionType::Stolen),
            Deed::Enter(to) => (TcMirrorActionType::IngressRedir, to, TcActionType::Stolen),
            // Unspec, not Pipe: Pipe would end the walk here and cut off other owners' filters.
            Deed::Mirror(to) => (TcMirrorActionType::EgressMirror, to, TcActionType::Unspec),
        };
        mirred
    }

    fn action(self) -> TcAction {
        let mut action = TcAction::default();
        action.attributes = vec![
            TcActionAttribute::Kind(TcActionMirror::KIND.into()),
            TcActionAttribute::Cookie(COOKIE.to_vec()),
            TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(
                self.mirred(),
            ))]),
        ];
        action
    }
}

/// A filter that the kernel holds on an ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFilter {
    /// Its priority.
    pub priority: u16,
    /// Its EtherType.
    pub protocol: u16,
    /// Its handle.
    pub handle: u32,
    /// The classifier: `u32`, `bpf`.
    pub kind: String,
    /// It carries our cookie.
    pub ours: bool,
    keys: Vec<u8>,
    deed: Option<(i32, u32)>,
}

impl FoundFilter {
    fn read(answer: &Answer) -> Option<FoundFilter> {
        let fixed = answer.fixed::<HEADER_LENGTH>();
        let word = |at: usize| {
            u32::from_ne_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let (handle, info) = (word(8), word(16));
        // The kernel lists each chain's head and each hash table, too; those have no handle or
        // no node.
        let found = answer.attributes(HEADER_LENGTH);
        let kind = found.text(number::KIND)?;
        if handle == 0 || (kind == TcFilterU32::KIND && handle & NODE_MASK == 0) {
            return None;
        }
        let options = found.inside(number::OPTIONS);
        let action = options.inside(number::U32_ACTIONS).all().next();
        let action = action.map_or(Attributes(&[]), |(_, inside)| Attributes(inside));
        Some(FoundFilter {
            priority: (info >> 16) as u16,
            protocol: u16::from_be(info as u16),
            handle,
            ours: kind == TcFilterU32::KIND && action.find(number::ACTION_COOKIE) == Some(COOKIE),
            keys: keys_of(options.find(number::U32_SELECTOR).unwrap_or_default()).to_vec(),
            deed: deed_of(action),
            kind,
        })
    }

    /// True if it is ours, for those frames, and does that to them.
    #[must_use]
    pub fn does(&self, rule: &Rule) -> bool {
        let mirred = rule.deed.mirred();
        self.ours
            && self.priority == rule.frames.priority()
            && self.protocol == rule.frames.protocol()
            && self.keys == keys_of(&bytes_of(&rule.frames.selector()))
            && self.deed == Some((mirred.eaction.into(), mirred.ifindex))
    }
}

/// The keys of a selector; how many there are is in its third byte.
fn keys_of(selector: &[u8]) -> &[u8] {
    let count = selector.get(2).copied().unwrap_or_default();
    selector
        .get(SELECTOR_KEYS..SELECTOR_KEYS + 16 * usize::from(count))
        .unwrap_or_default()
}

/// `eaction` and `ifindex` of `struct tc_mirred`, behind the five words of `tc_gen`.
fn deed_of(action: Attributes<'_>) -> Option<(i32, u32)> {
    let mirred = action
        .inside(number::ACTION_OPTIONS)
        .find(number::MIRRED_PARAMETERS)?;
    let eaction = i32::from_ne_bytes(*mirred.get(20..)?.first_chunk()?);
    let index = u32::from_ne_bytes(*mirred.get(24..)?.first_chunk()?);
    Some((eaction, index))
}

impl Netlink {
    /// Sees to it that the device has a clsact, or an ingress qdisc, which serves us as well.
    /// True if it had neither.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn ensure_clsact(&self, device: &DeviceName) -> Result<bool, DeviceError> {
        let message = qdisc(
            self.index(device)?,
            TcHandle::CLSACT,
            CLSACT_HANDLE,
            "clsact",
        );
        let attempt = format!("give {device} a clsact");
        let message = RouteNetlinkMessage::NewQueueDiscipline(message);
        match self.change(&attempt, message, NLM_F_CREATE | NLM_F_EXCL) {
            Ok(()) => Ok(true),
            Err(refused) if refused.is(nix::libc::EEXIST) => Ok(false),
            Err(refused) => Err(refused),
        }
    }

    /// True if the device has a clsact or an ingress qdisc, whoever's.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn has_clsact(&self, device: &DeviceName) -> Result<bool, DeviceError> {
        let mut message = TcMessage::with_index(self.index(device)? as i32);
        message.header.parent = TcHandle::CLSACT;
        message.header.handle = CLSACT_HANDLE;
        let attempt = format!("look for a clsact of {device}");
        match self.ask(&attempt, RouteNetlinkMessage::GetQueueDiscipline(message)) {
            Ok(_) => Ok(true),
            Err(refused) if refused.is(nix::libc::ENOENT) || refused.is(nix::libc::EINVAL) => {
                Ok(false)
            }
            Err(refused) => Err(refused),
        }
    }

    /// Removes the clsact with every filter on it; none is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_clsact(&self, device: &DeviceName) -> Result<(), DeviceError> {
        let message = qdisc(
            self.index(device)?,
            TcHandle::CLSACT,
            CLSACT_HANDLE,
            "clsact",
        );
        let attempt = format!("take the clsact from {device}");
        match self.change(
            &attempt,
            RouteNetlinkMessage::DelQueueDiscipline(message),
            0,
        ) {
            Err(refused) if refused.is(nix::libc::ENOENT) || refused.is(nix::libc::EINVAL) => {
                Ok(())
            }
            other => other,
        }
    }

    /// Gives a device the root qdisc that keeps no queue: a TAP's ring is its queue already, and
    /// the default one costs a lock for each frame.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_no_queue(&self, device: &DeviceName) -> Result<(), DeviceError> {
        let message = qdisc(
            self.index(device)?,
            TcHandle::ROOT,
            TcHandle::UNSPEC,
            "noqueue",
        );
        let attempt = format!("take the queue from {device}");
        let message = RouteNetlinkMessage::NewQueueDiscipline(message);
        self.change(&attempt, message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Keeps everything that comes in by a device from the host's own stack: for a device that a
    /// packet port listens on, since taps hear a frame before this drops it. The device must have a
    /// clsact, which takes the filter with it when it goes. A drop that is there stays.
    ///
    /// The filter is one instruction of classic BPF, "return `TC_ACT_SHOT`": kernels that we have
    /// to serve lack the `gact` action, and this needs no right to load programs.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn drop_all(&self, device: &DeviceName) -> Result<(), DeviceError> {
        let all = [(bpf::RETURN, 0, 0, bpf::DROP)];
        let attempt = format!("drop what comes in by {device}");
        self.set_program(&attempt, device, DROP_PRIORITY, &all)
    }

    /// Keeps from the host's own stack what is for other stations, which it would drop a little later
    /// itself, and what came in by a device's queue `queue`. The device must have a clsact. A filter
    /// that is there stays.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn drop_copies(&self, device: &DeviceName, queue: Option<u16>) -> Result<(), DeviceError> {
        let mut program = Vec::new();
        if let Some(queue) = queue {
            program.push((bpf::LOAD, 0, 0, bpf::QUEUE));
            program.push((bpf::JUMP_IF_EQUAL, 2, 0, u32::from(queue) + 1));
        }
        program.push((bpf::LOAD, 0, 0, bpf::PACKET_TYPE));
        program.push((bpf::JUMP_IF_EQUAL, 0, 1, bpf::OTHER_HOST));
        program.push((bpf::RETURN, 0, 0, bpf::DROP));
        program.push((bpf::RETURN, 0, 0, bpf::GO_ON));
        let attempt = format!("keep copies from the stack behind {device}");
        self.set_program(&attempt, device, COPIES_PRIORITY, &program)
    }

    /// True if [`Netlink::drop_copies`] holds.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn drops_copies(&self, device: &DeviceName) -> Result<bool, DeviceError> {
        let is = |found: &FoundFilter| found.kind == "bpf" && found.priority == COPIES_PRIORITY;
        Ok(self.filters(device)?.iter().any(is))
    }

    /// Takes [`Netlink::drop_copies`] back; none is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn drop_copies_no_more(&self, device: &DeviceName) -> Result<(), DeviceError> {
        let mut message = TcMessage::with_index(self.index(device)? as i32);
        message.header.parent = INGRESS;
        message.header.info = place(COPIES_PRIORITY, EVERY_PROTOCOL);
        let attempt = format!("keep copies no more from the stack behind {device}");
        match self.change(&attempt, RouteNetlinkMessage::DelTrafficFilter(message), 0) {
            Err(refused) if refused.is(nix::libc::ENOENT) || refused.is(nix::libc::EINVAL) => {
                Ok(())
            }
            other => other,
        }
    }

    /// Puts a program on the device's ingress whose answer is the deed. One that is there stays.
    fn set_program(
        &self,
        attempt: &str,
        device: &DeviceName,
        priority: u16,
        program: &[Instruction],
    ) -> Result<(), DeviceError> {
        let mut message = TcMessage::with_index(self.index(device)? as i32);
        message.header.parent = INGRESS;
        message.header.info = place(priority, EVERY_PROTOCOL);
        let option = |kind, value: Vec<u8>| TcOption::Other(DefaultNla::new(kind, value));
        let bytes = |(code, yes, no, operand): &Instruction| {
            let [c0, c1] = code.to_ne_bytes();
            let [k0, k1, k2, k3] = operand.to_ne_bytes();
            [c0, c1, *yes, *no, k0, k1, k2, k3]
        };
        message.attributes = vec![
            TcAttribute::Kind("bpf".into()),
            TcAttribute::Options(vec![
                option(
                    number::BPF_OPS_LEN,
                    (program.len() as u16).to_ne_bytes().to_vec(),
                ),
                option(number::BPF_OPS, program.iter().flat_map(bytes).collect()),
                option(number::BPF_FLAGS, number::BPF_DIRECT.to_ne_bytes().to_vec()),
            ]),
        ];
        let message = RouteNetlinkMessage::NewTrafficFilter(message);
        match self.change(attempt, message, NLM_F_CREATE | NLM_F_EXCL) {
            Err(refused) if refused.is(nix::libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Every filter on the device's ingress, ours and others'.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn filters(&self, device: &DeviceName) -> Result<Vec<FoundFilter>, DeviceError> {
        self.filters_at(device, INGRESS)
    }

    /// How many of `rules` are not on the device's ingress.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn missing_rules(&self, device: &DeviceName, rules: &[Rule]) -> Result<usize, DeviceError> {
        let held = self.filters(device)?;
        let missing = |rule: &&Rule| !held.iter().any(|filter| filter.does(rule));
        Ok(rules.iter().filter(missing).count())
    }

    fn filters_at(
        &self,
        device: &DeviceName,
        parent: TcHandle,
    ) -> Result<Vec<FoundFilter>, DeviceError> {
        let mut message = TcMessage::with_index(self.index(device)? as i32);
        message.header.parent = parent;
        let message = RouteNetlinkMessage::GetTrafficFilter(message);
        let answers = self.list(&format!("list the filters of {device}"), &message)?;
        Ok(answers.iter().filter_map(FoundFilter::read).collect())
    }

    /// True if nobody has a filter on the device, in either direction.
    pub(crate) fn has_no_filters(&self, device: &DeviceName) -> Result<bool, DeviceError> {
        let egress = TcHandle {
            major: u16::MAX,
            minor: TcHandle::MIN_EGRESS,
        };
        Ok(self.filters(device)?.is_empty() && self.filters_at(device, egress)?.is_empty())
    }

    /// Makes `rules` our only rules on the device's ingress, which must have a clsact unless
    /// `rules` is empty. What is there already stays; what is missing is added before what is too
    /// much is removed, so no frame is missed in between.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_rules(&self, device: &DeviceName, rules: &[Rule]) -> Result<(), DeviceError> {
        let index = self.index(device)?;
        let mut held = self.filters(device)?;
        for rule in rules {
            if !held.iter().any(|filter| filter.does(rule)) {
                let filter = self.add_rule(device, index, rule, &held)?;
                held.push(filter);
            }
        }
        let surplus: Vec<_> = held
            .iter()
            .filter(|f| f.ours && !rules.iter().any(|rule| f.does(rule)))
            .collect();
        for filter in &surplus {
            let stays = |other: &&FoundFilter| {
                other.priority == filter.priority && !surplus.contains(other)
            };
            // The last of a priority takes the priority with it, which the kernel would keep.
            let whole = !held.iter().any(|other| stays(&other));
            self.remove_filter(device, index, filter, whole)?;
        }
        Ok(())
    }

    fn add_rule(
        &self,
        device: &DeviceName,
        index: u32,
        rule: &Rule,
        held: &[FoundFilter],
    ) -> Result<FoundFilter, DeviceError> {
        let priority = rule.frames.priority();
        let taken = |node: &u32| {
            held.iter()
                .any(|f| f.priority == priority && f.handle & NODE_MASK == *node)
        };
        let node = (1..NODE_MASK)
            .find(|node| !taken(node))
            .unwrap_or(NODE_MASK);
        let mut message = filter(index, node, priority, rule.frames.protocol());
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::U32(TcFilterU32Option::Selector(rule.frames.selector())),
            TcOption::U32(TcFilterU32Option::Action(vec![rule.deed.action()])),
        ]));
        let attempt = format!("add a filter ({:?}) to {device}", rule.frames);
        let message = RouteNetlinkMessage::NewTrafficFilter(message);
        self.change(&attempt, message, NLM_F_CREATE | NLM_F_EXCL)?;
        let mirred = rule.deed.mirred();
        Ok(FoundFilter {
            priority,
            protocol: rule.frames.protocol(),
            handle: node,
            kind: TcFilterU32::KIND.into(),
            ours: true,
            keys: keys_of(&bytes_of(&rule.frames.selector())).to_vec(),
            deed: Some((mirred.eaction.into(), mirred.ifindex)),
        })
    }

    fn remove_filter(
        &self,
        device: &DeviceName,
        index: u32,
        found: &FoundFilter,
        whole_priority: bool,
    ) -> Result<(), DeviceError> {
        let handle = if whole_priority { 0 } else { found.handle };
        let message = filter(index, handle, found.priority, found.protocol);
        let attempt = format!(
            "remove filter {:x} of priority {} from {device}",
            found.handle, found.priority
        );
        match self.change(&attempt, RouteNetlinkMessage::DelTrafficFilter(message), 0) {
            Err(refused) if refused.is(nix::libc::ENOENT) => Ok(()),
            other => other,
        }
    }
}

/// `ffff:`, the only handle that clsact takes.
const CLSACT_HANDLE: TcHandle = TcHandle {
    major: u16::MAX,
    minor: 0,
};

/// Where a filter stands, as `struct tcmsg` has it.
fn place(priority: u16, protocol: u16) -> u32 {
    u32::from(priority) << 16 | u32::from(protocol.to_be())
}

pub(super) fn qdisc(index: u32, parent: TcHandle, handle: TcHandle, kind: &str) -> TcMessage {
    let mut message = TcMessage::with_index(index as i32);
    message.header.parent = parent;
    message.header.handle = handle;
    message.attributes.push(TcAttribute::Kind(kind.into()));
    message
}

fn filter(index: u32, handle: u32, priority: u16, protocol: u16) -> TcMessage {
    let mut message = TcMessage::with_index(index as i32);
    message.header.parent = INGRESS;
    message.header.handle = TcHandle::from(handle);
    message.header.info = place(priority, protocol);
    message
        .attributes
        .push(TcAttribute::Kind(TcFilterU32::KIND.into()));
    message
}
