//! Groups of next hops that share the packets of a route (ECMP), each flow keeping to one.
//!
//! In: two to sixteen next hops that lead somewhere. Out: for a [`Flow`], one of them.
//! Never: holds a group, nothing, or one next hop twice: [`Group::new`] refuses.
//!
//! The member is chosen by the highest random weight (RFC 2992 compares the ways to do it): flow
//! and member are hashed together, for each member, and the greatest wins. So shares are even, the
//! order of the members does not matter, and when a member leaves, only its own flows move: they
//! spread over those that stay. A member's part of the hash is its own address, so two switches
//! in a row do not choose alike. The price is one multiplication a member, sixteen at most.

use std::fmt;
use std::net::IpAddr;

use super::NextHop;
use crate::frame::flow::{Flow, mixed};

/// Most members of a group: what a switch of a rack has in uplinks, and what a lookup may cost.
pub const MEMBERS_MAX: usize = 16;

/// Most groups of a table. Each is the next hop of some route, and those have 16-bit numbers.
pub const GROUPS_MAX: usize = super::HOPS_MAX;

/// A group's number in one table: its place in [`TablesSpec::groups`].
///
/// [`TablesSpec::groups`]: crate::tables::TablesSpec::groups
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(u16);

impl GroupId {
    /// The number of the group in that place, or nothing beyond [`GROUPS_MAX`].
    #[must_use]
    pub fn new(place: usize) -> Option<GroupId> {
        let number = u16::try_from(place).ok()?;
        (place < GROUPS_MAX).then_some(GroupId(number))
    }

    /// Its place.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}", self.0)
    }
}

/// Why next hops are no group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadGroup {
    /// Fewer than two: that is a plain next hop, or none.
    #[error("a group has at least 2 members, and this one has {0}")]
    TooFew(usize),
    /// More than [`MEMBERS_MAX`].
    #[error("a group has at most {MEMBERS_MAX} members, and this one has {0}")]
    TooMany(usize),
    /// A group in a group.
    #[error("{0} cannot be a member of a group")]
    Nested(GroupId),
    /// It leads nowhere, so a part of the flows would die.
    #[error("'{0}' leads nowhere, so it cannot be a member of a group")]
    DeadEnd(NextHop),
    /// The same next hop twice, which would take twice its share or none.
    #[error("'{0}' is given twice in one group")]
    Twice(NextHop),
}

/// Next hops that share the packets of a route. The order they were given in means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    members: Box<[Member]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    /// What its weights are drawn from.
    seed: u64,
    hop: NextHop,
}

impl Group {
    /// A group of `members`.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn new(members: &[NextHop]) -> Result<Group, Vec<BadGroup>> {
        let mut found = Vec::new();
        match members.len() {
            few @ 0..2 => found.push(BadGroup::TooFew(few)),
            2..=MEMBERS_MAX => {}
            many => found.push(BadGroup::TooMany(many)),
        }
        for (at, hop) in members.iter().enumerate() {
            match hop {
                NextHop::Group(id) => found.push(BadGroup::Nested(*id)),
                NextHop::Unreachable | NextHop::Blackhole => found.push(BadGroup::DeadEnd(*hop)),
                NextHop::Station { .. } | NextHop::Host | NextHop::Neighbour(_) => {}
            }
            let twice = BadGroup::Twice(*hop);
            if members[..at].contains(hop) && !found.contains(&twice) {
                found.push(twice);
            }
        }
        if !found.is_empty() {
            return Err(found);
        }
        let mut members: Vec<Member> = members
            .iter()
            .map(|hop| Member {
                seed: seed(*hop),
                hop: *hop,
            })
            .collect();
        members.sort_unstable_by_key(|member| member.seed);
        Ok(Group {
            members: members.into(),
        })
    }

    /// The member that carries `flow`.
    #[inline]
    #[must_use]
    pub fn member(&self, flow: Flow) -> NextHop {
        *self.member_in_place(flow)
    }

    /// The same, in its place.
    #[inline]
    pub(crate) fn member_in_place(&self, flow: Flow) -> &NextHop {
        let (mut best, mut most) = (&self.members[0].hop, 0);
        for member in &self.members {
            let weight = flow.weight(member.seed);
            if weight > most {
                (best, most) = (&member.hop, weight);
            }
        }
        best
    }

    /// All members.
    pub fn members(&self) -> impl Iterator<Item = NextHop> + '_ {
        self.members.iter().map(|member| member.hop)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, hop) in self.members().enumerate() {
            let before = if at == 0 { "one of " } else { ", " };
            write!(f, "{before}{hop}")?;
        }
        Ok(())
    }
}

/// The same for one next hop always and everywhere: flows keep their member over a restart.
fn seed(hop: NextHop) -> u64 {
    match hop {
        NextHop::Station { port, mac } => mixed(1 ^ (port.index() as u64) << 48, mac.bits()),
        NextHop::Host => mixed(2, 0),
        NextHop::Neighbour(IpAddr::V4(address)) => mixed(3, address.to_bits().into()),
        NextHop::Neighbour(IpAddr::V6(address)) => {
            let bits = address.to_bits();
            mixed(mixed(4, (bits >> 64) as u64), bits as u64)
        }
        NextHop::Unreachable => mixed(5, 0),
        NextHop::Blackhole => mixed(6, 0),
        NextHop::Group(id) => mixed(7, id.0.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Mac, PortId};
    use proptest::prelude::*;

    fn hop(n: usize) -> NextHop {
        if n.is_multiple_of(2) {
            let address = [10, 0, (n >> 8) as u8, n as u8];
            return NextHop::Neighbour(address.into());
        }
        NextHop::Station {
            port: PortId::new(n % 7).expect("in range"),
            mac: Mac::new([2, 0, 0, 0, (n >> 8) as u8, n as u8]),
        }
    }

    fn group(numbers: impl IntoIterator<Item = usize>) -> Group {
        let members: Vec<NextHop> = numbers.into_iter().map(hop).collect();
        Group::new(&members).expect("sound")
    }

    #[test]
    fn what_is_no_group_is_refused_with_every_reason() {
        let id = GroupId::new(3).expect("in range");
        let bad = |members: &[NextHop]| Group::new(members).expect_err("no group");
        assert_eq!(bad(&[]), [BadGroup::TooFew(0)]);
        assert_eq!(bad(&[hop(1)]), [BadGroup::TooFew(1)]);
        let many: Vec<NextHop> = (0..17).map(hop).collect();
        assert_eq!(bad(&many), [BadGroup::TooMany(17)]);
        assert!(Group::new(&many[..16]).is_ok());
        assert_eq!(
            bad(&[
                NextHop::Group(id),
                hop(1),
                hop(1),
                NextHop::Blackhole,
                hop(1)
            ]),
            [
                BadGroup::Nested(id),
                BadGroup::Twice(hop(1)),
                BadGroup::DeadEnd(NextHop::Blackhole),
            ]
        );
        assert_eq!(GroupId::new(GROUPS_MAX), None);
    }

    proptest! {
        #[test]
        fn the_order_of_the_members_does_not_matter_and_only_orphans_move(
            mut numbers in prop::collection::btree_set(0usize..500, 3..=MEMBERS_MAX)
                .prop_map(|set| set.into_iter().collect::<Vec<_>>())
                .prop_shuffle(),
            flows in prop::collection::vec(any::<u64>(), 200),
        ) {
            let whole = group(numbers.iter().copied());
            let turned = group(numbers.iter().rev().copied());
            prop_assert_eq!(&whole, &turned);
            let gone = hop(numbers.pop().expect("three at least"));
            let rest = group(numbers);
            for flow in flows.into_iter().map(Flow::from_bits) {
                let (before, after) = (whole.member(flow), rest.member(flow));
                prop_assert!(before == gone || before == after);
                prop_assert!(after != gone);
            }
        }
    }

    #[test]
    fn sixteen_members_share_evenly_and_so_do_the_orphans_of_one() {
        let (whole, rest) = (group(0..16), group(0..15));
        let mut shares = [0_usize; 16];
        let mut orphans = [0_usize; 15];
        let at = |found: NextHop| (0..16).find(|n| hop(*n) == found).expect("a member");
        for n in 0..160_000_u64 {
            let flow = Flow::from_bits(mixed(n, 7));
            let before = at(whole.member(flow));
            shares[before] += 1;
            if before == 15 {
                orphans[at(rest.member(flow))] += 1;
            }
        }
        for share in shares {
            assert!((9_500..10_500).contains(&share), "{shares:?}");
        }
        for orphan in orphans {
            assert!((500..840).contains(&orphan), "{orphans:?}");
        }
    }
}
