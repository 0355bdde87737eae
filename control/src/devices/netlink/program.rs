//! Rules as a program on a device's ingress, which needs no queueing discipline there (TCX).
//!
//! In: the same [`Rule`]s as a classifier gets. Out: one program of ours on the device, whose name
//! tells its rules, behind those of other owners.
//! Never: touches a program that does not carry our name.
//!
//! Whoever adds a clsact to a device that is up, or removes one, has the kernel take the device's
//! transmit queue away for a moment, and what is sent just then is lost. A program costs nothing of
//! that sort, and is replaced in one step. It runs before any filter of a clsact, so it is for devices
//! that have none: beside one, our rules are filters in their order with those of others.

use std::io;
use std::os::fd::OwnedFd;

use dataplane::port::sys::bpf;

use super::filter::{Deed, Match, Rule};
use super::{Netlink, fingerprint};
use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;

/// What the name of a program of ours begins with; a hash of its instructions follows.
const NAME: &str = "tapline";
/// Bytes of an Ethernet header: a classifier's keys count from behind it.
const ETHERNET: i32 = 14;

/// Places in `struct __sk_buff` (linux/bpf.h).
mod context {
    pub(super) const LENGTH: i16 = 0;
    pub(super) const PACKET_TYPE: i16 = 4;
    pub(super) const QUEUE: i16 = 12;
    pub(super) const PROTOCOL: i16 = 16;
    pub(super) const VLAN_PRESENT: i16 = 20;
}

/// Codes of instructions, numbers of the kernel's functions, and answers (linux/bpf.h).
mod code {
    pub(super) const MOVE: u8 = 0xbf;
    pub(super) const SET: u8 = 0xb7;
    pub(super) const LOAD: u8 = 0x61;
    pub(super) const LOAD_PACKET: u8 = 0x20;
    pub(super) const AND: u8 = 0x54;
    pub(super) const IF_EQUAL: u8 = 0x15;
    pub(super) const IF_NOT: u8 = 0x55;
    pub(super) const IF_NOT_32: u8 = 0x56;
    pub(super) const IF_LESS: u8 = 0xa5;
    pub(super) const CALL: u8 = 0x85;
    pub(super) const EXIT: u8 = 0x95;
    pub(super) const CLONE_REDIRECT: i32 = 13;
    pub(super) const REDIRECT: i32 = 23;
    /// `BPF_F_INGRESS`.
    pub(super) const INTO: i32 = 1;
    /// `TCX_NEXT`.
    pub(super) const GO_ON: i32 = -1;
    /// `TCX_DROP`.
    pub(super) const DROP: i32 = 2;
    /// `PACKET_OTHERHOST`.
    pub(super) const OTHER_HOST: i32 = 3;
}

/// An instruction (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Instruction {
    code: u8,
    to: u8,
    from: u8,
    offset: i16,
    value: i32,
}

impl Instruction {
    const fn new(code: u8, to: u8, value: i32) -> Instruction {
        Instruction {
            code,
            to,
            from: 0,
            offset: 0,
            value,
        }
    }

    const fn load(to: u8, offset: i16) -> Instruction {
        Instruction {
            from: CONTEXT,
            offset,
            ..Instruction::new(code::LOAD, to, 0)
        }
    }

    /// As the kernel reads it.
    fn word(self) -> u64 {
        let registers = match cfg!(target_endian = "little") {
            true => self.from << 4 | self.to,
            false => self.to << 4 | self.from,
        };
        let ([o0, o1], [v0, v1, v2, v3]) = (self.offset.to_ne_bytes(), self.value.to_ne_bytes());
        u64::from_ne_bytes([self.code, registers, o0, o1, v0, v1, v2, v3])
    }
}

/// Registers: the first are for answers and arguments, the others outlive calls. Loads from the
/// packet want the context in the sixth.
const ANSWER: u8 = 0;
const FIRST: u8 = 1;
const CONTEXT: u8 = 6;
const PROTOCOL: u8 = 7;
const TAGGED: u8 = 8;
const LENGTH: u8 = 9;

/// Rules in their order, as a classifier would go through them.
fn program(rules: &[Rule]) -> Vec<u64> {
    let context = |to, from| Instruction {
        from,
        ..Instruction::new(code::MOVE, to, 0)
    };
    let mut all = vec![
        context(CONTEXT, FIRST),
        Instruction::load(LENGTH, context::LENGTH),
        Instruction::load(PROTOCOL, context::PROTOCOL),
        Instruction::load(TAGGED, context::VLAN_PRESENT),
        // A tag hides the protocol, as it does from a classifier.
        Instruction {
            offset: 1,
            ..Instruction::new(code::IF_EQUAL, TAGGED, 0)
        },
        Instruction::new(code::SET, PROTOCOL, 0),
    ];
    let all_goes =
        |rule: &Rule| rule.frames == Match::Every && !matches!(rule.deed, Deed::Mirror(_));
    // Kernels refuse instructions that nothing leads to.
    let last = rules.iter().position(all_goes);
    for rule in &rules[..last.map_or(rules.len(), |last| last + 1)] {
        let start = all.len();
        all.extend(tests(&rule.frames));
        let tests = start..all.len();
        all.extend(match rule.deed {
            Deed::Redirect(device) => redirect(device, 0),
            Deed::Enter(device) => redirect(device, code::INTO),
            Deed::Mirror(device) => [
                context(FIRST, CONTEXT),
                Instruction::new(code::SET, 2, device as i32),
                Instruction::new(code::SET, 3, 0),
                Instruction::new(code::CALL, 0, code::CLONE_REDIRECT),
            ],
        });
        let next = all.len();
        for at in tests {
            // Whatever does not hold leads to the next rule.
            if matches!(all[at].code, code::IF_NOT | code::IF_NOT_32 | code::IF_LESS) {
                all[at].offset = (next - at - 1) as i16;
            }
        }
    }
    if last.is_none() {
        all.push(Instruction::new(code::SET, ANSWER, code::GO_ON));
        all.push(Instruction::new(code::EXIT, 0, 0));
    }
    all.into_iter().map(Instruction::word).collect()
}

/// Jumps away, whose offsets are still open, for whatever `frames` is not.
fn tests(frames: &Match) -> Vec<Instruction> {
    if *frames == Match::Every {
        return Vec::new();
    }
    let keys = frames.keys();
    let end = keys.iter().map(|key| ETHERNET + key.off + 4).max();
    let mut tests = vec![
        Instruction::new(code::IF_NOT, PROTOCOL, i32::from(frames.protocol().to_be())),
        // A load from beyond the end would end the program, and with it those of others.
        Instruction::new(code::IF_LESS, LENGTH, end.unwrap_or(ETHERNET)),
    ];
    for key in keys {
        tests.extend([
            Instruction::new(code::LOAD_PACKET, 0, ETHERNET + key.off),
            Instruction::new(code::AND, ANSWER, key.mask as i32),
            Instruction::new(code::IF_NOT_32, ANSWER, key.val as i32),
        ]);
    }
    tests
}

fn redirect(device: u32, flags: i32) -> [Instruction; 4] {
    [
        Instruction::new(code::SET, FIRST, device as i32),
        Instruction::new(code::SET, 2, flags),
        Instruction::new(code::CALL, 0, code::REDIRECT),
        Instruction::new(code::EXIT, 0, 0),
    ]
}

/// Drops what is for another station, and with `queue` what came in by it; all else goes on. The kernel
/// counts the queues by which frames come in from one.
fn copies_program(queue: Option<u16>) -> Vec<u64> {
    let load = |to, offset| Instruction {
        from: FIRST,
        ..Instruction::load(to, offset)
    };
    let to_drop = |register, value, offset| Instruction {
        offset,
        ..Instruction::new(code::IF_EQUAL, register, value)
    };
    let by_queue = queue.map(|queue| {
        let queue = i32::from(queue) + 1;
        [load(3, context::QUEUE), to_drop(3, queue, 4)]
    });
    let by_type = [
        load(2, context::PACKET_TYPE),
        to_drop(2, code::OTHER_HOST, 2),
        Instruction::new(code::SET, ANSWER, code::GO_ON),
        Instruction::new(code::EXIT, 0, 0),
        Instruction::new(code::SET, ANSWER, code::DROP),
        Instruction::new(code::EXIT, 0, 0),
    ];
    let all = by_queue.into_iter().flatten().chain(by_type);
    all.map(Instruction::word).collect()
}

/// What a program of ours with these instructions is called.
fn name_of(program: &[u64]) -> String {
    let bytes = program.iter().flat_map(|word| word.to_be_bytes());
    format!("{NAME}{:08x}", fingerprint(bytes))
}

/// A program of ours that the kernel has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The kernel's number for it, as `bpftool prog` knows it.
    pub id: u32,
    /// Its name, which tells its rules.
    pub name: String,
}

impl Program {
    /// True if it does just what `rules` say.
    #[must_use]
    pub fn carries(&self, rules: &[Rule]) -> bool {
        self.name == name_of(&program(rules))
    }
}

/// Makes a program our only one on a device; the one before is replaced in one step, so no frame is
/// missed, and the same one stays.
fn put(device: u32, program: &[u64]) -> io::Result<()> {
    let name = name_of(program);
    let mut held = ours(device)?;
    match held.iter().position(|(_, held)| held.name == name) {
        Some(at) => drop(held.swap_remove(at)),
        None => {
            let before = held.pop();
            let new = bpf::load(&name, program)?;
            bpf::attach(device, &new, before.as_ref().map(|(old, _)| old))?;
        }
    }
    held.iter()
        .try_for_each(|(old, _)| bpf::detach(device, old))
}

/// Those of ours on a device. One that goes meanwhile is none.
fn ours(device: u32) -> io::Result<Vec<(OwnedFd, Program)>> {
    let mut found = Vec::new();
    for id in bpf::attached(device)? {
        match bpf::open(id) {
            Ok((program, name)) if name.starts_with(NAME) => {
                found.push((program, Program { id, name }));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(found)
}

impl Netlink {
    /// Makes a program for `rules` our only one on the device's ingress. The one before is replaced in
    /// one step, so no frame is missed; the same one stays.
    ///
    /// # Errors
    /// What the kernel says: `EINVAL` before Linux 6.6, `EPERM` in a user namespace.
    pub fn set_program_rules(
        &self,
        device: &DeviceName,
        rules: &[Rule],
    ) -> Result<(), DeviceError> {
        let (index, program) = (self.index(device)?, program(rules));
        let attempt = format!("put a program on the ingress of {device}");
        self.inside(&attempt, move || put(index, &program))
    }

    /// As [`Netlink::drop_copies`], by a program, which costs the device nothing.
    ///
    /// # Errors
    /// What the kernel says: `EINVAL` before Linux 6.6, `EPERM` in a user namespace.
    pub fn drop_copies_by_program(
        &self,
        device: &DeviceName,
        queue: Option<u16>,
    ) -> Result<(), DeviceError> {
        let (index, program) = (self.index(device)?, copies_program(queue));
        let attempt = format!("keep copies from the stack behind {device} by a program");
        self.inside(&attempt, move || put(index, &program))
    }

    /// True if the device's ingress has a program of ours for just these rules.
    ///
    /// # Errors
    /// What the kernel says: `EINVAL` before Linux 6.6, `EPERM` in a user namespace.
    pub fn has_program_rules(
        &self,
        device: &DeviceName,
        rules: &[Rule],
    ) -> Result<bool, DeviceError> {
        let (index, name) = (self.index(device)?, name_of(&program(rules)));
        let attempt = format!("look for programs on the ingress of {device}");
        self.inside(&attempt, move || {
            Ok(ours(index)?.iter().any(|(_, held)| held.name == name))
        })
    }

    /// The programs of ours on the device's ingress; none where a kernel has no such thing.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] without the device.
    pub fn programs(&self, device: &DeviceName) -> Result<Vec<Program>, DeviceError> {
        let index = self.index(device)?;
        let attempt = format!("look for programs on the ingress of {device}");
        let held = self.inside(&attempt, move || {
            Ok(ours(index)?.into_iter().map(|(_, held)| held).collect())
        });
        Ok(held.unwrap_or_default())
    }

    /// Takes our programs from the device's ingress; none is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_programs(&self, device: &DeviceName) -> Result<(), DeviceError> {
        let index = self.index(device)?;
        let attempt = format!("take programs from the ingress of {device}");
        self.inside(&attempt, move || {
            // A kernel that has none, or shows none, holds none of ours.
            let held = ours(index).unwrap_or_default();
            held.iter().try_for_each(|(old, _)| bpf::detach(index, old))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_hold_leads_to_the_next_rule_and_the_last_to_others() {
        let rules = [
            Rule {
                frames: Match::ArpReply,
                deed: Deed::Mirror(7),
            },
            Rule {
                frames: Match::Ipv4To("10.20.0.8/29".parse().expect("a prefix")),
                deed: Deed::Redirect(7),
            },
        ];
        let bytes = |word: &u64| word.to_ne_bytes();
        let program: Vec<[u8; 8]> = program(&rules).iter().map(bytes).collect();
        let code_at = |at: usize| program[at][0];
        let leads_to = |at: usize| {
            let offset = i16::from_ne_bytes([program[at][2], program[at][3]]);
            at + 1 + offset as usize
        };
        assert_eq!(program.len(), 6 + 9 + 9 + 2);
        assert_eq!([leads_to(6), leads_to(7), leads_to(10)], [15; 3]);
        assert_eq!([leads_to(15), leads_to(16), leads_to(19)], [24; 3]);
        let end = [code_at(23), code_at(24), code_at(25)];
        assert_eq!(end, [code::EXIT, code::SET, code::EXIT]);
    }

    #[test]
    fn nothing_follows_what_takes_every_frame() {
        let every = |deed| Rule {
            frames: Match::Every,
            deed,
        };
        let length = |deeds: &[Deed]| {
            let rules: Vec<Rule> = deeds.iter().copied().map(every).collect();
            program(&rules).len()
        };
        let (taken, copied) = (Deed::Redirect(7), Deed::Mirror(7));
        assert_eq!(length(&[taken]), 6 + 4);
        assert_eq!(length(&[copied]), 6 + 4 + 2);
        assert_eq!(length(&[copied, taken, copied]), 6 + 4 + 4);
    }

    #[test]
    fn what_keeps_copies_away_leads_to_a_drop_from_both_marks() {
        for (queue, length) in [(None, 6), (Some(1), 8)] {
            let program = copies_program(queue);
            assert_eq!(program.len(), length);
            let bytes: Vec<[u8; 8]> = program.iter().map(|word| word.to_ne_bytes()).collect();
            let jumps = bytes
                .iter()
                .enumerate()
                .filter(|(_, b)| b[0] == code::IF_EQUAL);
            for (at, jump) in jumps {
                let offset = i16::from_ne_bytes([jump[2], jump[3]]);
                let leads_to = bytes[at + 1 + offset as usize];
                let value = i32::from_ne_bytes(leads_to[4..].try_into().expect("four"));
                assert_eq!((leads_to[0], value), (code::SET, code::DROP));
            }
        }
    }

    #[test]
    fn a_name_fits_and_tells_rules_apart() {
        let of = |device| {
            let deed = Deed::Redirect(device);
            name_of(&program(&[Rule {
                frames: Match::ArpReply,
                deed,
            }]))
        };
        assert!(of(7).len() == bpf::NAME_MAX && of(7) != of(8) && of(7) == of(7));
    }
}
