//! Guards: what a port may send, as configured, and what is done about the rest.
//!
//! In: a [`PortGuard`] for each port that has one, and the stations and addresses of that port.
//! Out: [`Guarded`], which tells in a compare or two that a frame is beyond suspicion; [`Guard`], by
//! which views name what a port's guards do.
//! Never: state. What only a history can tell (storms, quotas, stations that flap) is the worker's.
//!
//! A pod that speaks from its configured station and address is the case that every frame pays
//! for, so the few words it is compared with stand together in one cache line. All else is asked
//! of the guard behind them, by `forward::guard`.

use ipnet::IpNet;

use super::{Owner, PortSpec};
use crate::addr::{Mac, Station};
use crate::bucket::Rate;
use crate::frame::transport::{TCP, UDP};
use crate::frame::{FrameView, Kind};
use crate::verdict::DropReason;

/// Stations that may be learned behind one pod: 250 ports with as many each, and a host port with
/// [`LEARNED_HOST`], fill an FDB of the default capacity and do not overfill it.
pub const LEARNED_POD: u32 = 32;
/// Stations that may be learned behind the host port. The kernel has one, which is configured;
/// what it bridges itself is more.
pub const LEARNED_HOST: u32 = 128;

/// Stations, and addresses, that a port may have beside its own: a pod with a few virtual machines
/// or networks behind it.
pub const MORE_MAX: usize = 16;

const _: () = assert!(250 * LEARNED_POD + LEARNED_HOST <= super::fdb::CAPACITY_DEFAULT as u32);

/// What is done about frames that a guard objects to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Nothing; the guard does not look.
    #[default]
    Off,
    /// They are counted as observed, and go on.
    Observe,
    /// They die.
    Enforce,
}

/// How many frames a second one port may send to all, in frames as they are on a wire: a
/// super-frame counts its segments. Each worker counts for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// To the broadcast address. A kernel asks for an address once a second, and for at most 1,024
    /// of them, since its neighbour table holds no more (`gc_thresh3`).
    pub broadcast: Rate,
    /// To other groups: 4,096 frames of 1,500 bytes are 49 Mbit/s, two streams of video.
    pub multicast: Rate,
    /// To stations that nobody has heard. One that exists answers the first frame.
    pub unknown: Rate,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates {
            broadcast: Rate::per_second(1024),
            multicast: Rate::per_second(4096),
            unknown: Rate::per_second(1024),
        }
    }
}

/// The guards of one port. By default none looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortGuard {
    /// The source MAC is the port's own, or one of `more_stations`.
    pub stations: Mode,
    /// The source IP address, and what ARP and neighbour discovery claim, is one that the port
    /// holds, or in `more_addresses`; or no address yet; or a link-local IPv6 one of nobody else.
    pub addresses: Mode,
    /// Nobody here sends router advertisements or redirects (RFC 6105, CVE-2020-10749).
    pub routers: Mode,
    /// A station of another port, or of the switch, does not come in here: its frames would have
    /// gone in a circle.
    pub loops: Mode,
    /// A station that moves too often between ports stays where it was.
    pub flaps: Mode,
    /// No more than `learned_max` stations are learned here.
    pub quota: Mode,
    /// Stations that may be learned here.
    pub learned_max: u32,
    /// No more than `rates` go to all.
    pub storms: Mode,
    /// How many frames may go to all.
    pub rates: Rates,
    /// Stations beside the port's own. They count as configured here.
    pub more_stations: Vec<Station>,
    /// Addresses beside those that the port holds.
    pub more_addresses: Vec<IpNet>,
}

impl PortGuard {
    /// All guards that a pod cannot feel unless it does harm.
    #[must_use]
    pub fn pod(mode: Mode) -> PortGuard {
        PortGuard {
            stations: mode,
            addresses: mode,
            routers: mode,
            loops: mode,
            flaps: mode,
            quota: mode,
            learned_max: LEARNED_POD,
            storms: mode,
            ..PortGuard::default()
        }
    }

    /// Those for the node's own kernel, which sends in everybody's name, and may be a router.
    #[must_use]
    pub fn host(mode: Mode) -> PortGuard {
        PortGuard {
            loops: mode,
            flaps: mode,
            quota: mode,
            learned_max: LEARNED_HOST,
            ..PortGuard::default()
        }
    }
}

/// One guard of a port, as a view shows it: what it does, how much it allows, and by which reasons
/// it is seen in the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guard {
    /// [`PortGuard::stations`].
    Stations,
    /// [`PortGuard::addresses`].
    Addresses,
    /// [`PortGuard::routers`].
    Routers,
    /// [`PortGuard::loops`].
    Loops,
    /// [`PortGuard::flaps`].
    Flaps,
    /// [`PortGuard::quota`].
    Quota,
    /// [`Rates::broadcast`].
    Broadcast,
    /// [`Rates::multicast`].
    Multicast,
    /// [`Rates::unknown`].
    Unknown,
}

impl Guard {
    /// Every guard, in the order in which a frame meets them.
    pub const ALL: [Guard; 9] = [
        Guard::Stations,
        Guard::Loops,
        Guard::Addresses,
        Guard::Routers,
        Guard::Broadcast,
        Guard::Multicast,
        Guard::Unknown,
        Guard::Flaps,
        Guard::Quota,
    ];

    /// What people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Guard::Stations => "stations",
            Guard::Addresses => "addresses",
            Guard::Routers => "routers",
            Guard::Loops => "loops",
            Guard::Flaps => "flaps",
            Guard::Quota => "quota",
            Guard::Broadcast => "broadcast",
            Guard::Multicast => "multicast",
            Guard::Unknown => "unknown",
        }
    }

    /// What it does at a port with these guards.
    #[must_use]
    pub fn mode(self, guard: &PortGuard) -> Mode {
        match self {
            Guard::Stations => guard.stations,
            Guard::Addresses => guard.addresses,
            Guard::Routers => guard.routers,
            // The stricter of the two holds for a station of another port.
            Guard::Loops => guard.loops.max(guard.stations),
            Guard::Flaps => guard.flaps,
            Guard::Quota => guard.quota,
            Guard::Broadcast | Guard::Multicast | Guard::Unknown => guard.storms,
        }
    }

    /// How much it allows there, where that is a number: learned stations, or frames a second.
    #[must_use]
    pub fn limit(self, guard: &PortGuard) -> Option<u32> {
        match self {
            Guard::Quota => Some(guard.learned_max),
            Guard::Broadcast => Some(guard.rates.broadcast.per_second),
            Guard::Multicast => Some(guard.rates.multicast.per_second),
            Guard::Unknown => Some(guard.rates.unknown.per_second),
            _ => None,
        }
    }

    /// The reasons for which its frames die. `bad_offload` is not among them: most of those frames
    /// are refused before anybody looks at who sent them.
    #[must_use]
    pub const fn reasons(self) -> &'static [DropReason] {
        match self {
            Guard::Stations => &[DropReason::SpoofedMac],
            Guard::Addresses => &[
                DropReason::SpoofedIp,
                DropReason::SpoofedArp,
                DropReason::SpoofedNd,
                DropReason::HiddenByTags,
            ],
            Guard::Routers => &[DropReason::RogueRouter],
            Guard::Loops => &[DropReason::StationElsewhere],
            Guard::Flaps => &[DropReason::Flapping],
            Guard::Quota => &[DropReason::StationQuota],
            Guard::Broadcast => &[DropReason::BroadcastStorm],
            Guard::Multicast => &[DropReason::MulticastStorm],
            Guard::Unknown => &[DropReason::UnknownStorm],
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Mode::Off => "off",
            Mode::Observe => "observe",
            Mode::Enforce => "on",
        })
    }
}

/// What a frame beyond suspicion is compared with.
#[derive(Clone, Copy, Debug)]
struct Plain {
    /// Somebody looks at source MACs.
    looks: bool,
    /// Somebody looks at what the frame carries.
    reads: bool,
    /// Nobody asks whose source MAC and IP address those are, unless they are elsewhere.
    open: bool,
    mac: Mac,
    /// The IPv4 address; above 32 bits where there is none.
    v4: u64,
    v6: Option<[u8; 16]>,
}

/// The guards of one port, ready for use.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Guarded {
    plain: Plain,
    guard: Box<PortGuard>,
}

impl Guarded {
    /// Bytes of the guards of one port, with all that it may be given.
    pub(super) const BYTES_MAX: usize = size_of::<Option<Guarded>>()
        + size_of::<PortGuard>()
        + MORE_MAX * (size_of::<Station>() + size_of::<IpNet>());

    pub(super) fn new(
        guard: &PortGuard,
        port: &PortSpec,
        owners: &[(std::net::IpAddr, Owner)],
    ) -> Guarded {
        let own = || owners.iter().filter(|(_, owner)| owner.port == port.id);
        let v4 = own().find_map(|(address, _)| match address {
            std::net::IpAddr::V4(v4) => Some(u64::from(v4.to_bits())),
            std::net::IpAddr::V6(_) => None,
        });
        let v6 = own().find_map(|(address, _)| match address {
            std::net::IpAddr::V6(v6) => Some(v6.octets()),
            std::net::IpAddr::V4(_) => None,
        });
        let reads = guard.addresses.max(guard.routers) > Mode::Off;
        Guarded {
            plain: Plain {
                looks: reads || guard.stations.max(guard.loops) > Mode::Off,
                reads,
                open: guard.stations.max(guard.addresses) == Mode::Off,
                mac: port.mac.mac(),
                v4: v4.unwrap_or(u64::MAX),
                v6,
            },
            guard: Box::new(guard.clone()),
        }
    }

    /// The guards themselves.
    #[inline]
    #[must_use]
    pub fn guard(&self) -> &PortGuard {
        &self.guard
    }

    /// True if `mac` is a station of the port.
    #[must_use]
    pub fn has_station(&self, station: Station) -> bool {
        station.mac() == self.plain.mac || self.guard.more_stations.contains(&station)
    }

    /// True if any station may speak here, and say what this frame says: the guards that look at
    /// single frames ask only whether its place is elsewhere.
    #[inline(always)]
    #[must_use]
    pub fn is_open(&self, view: &FrameView<'_>) -> bool {
        // Router advertisements are IPv6, whatever tags are before them.
        let unread = !self.plain.reads || !matches!(view.kind, Kind::Ipv6 | Kind::Tagged);
        self.plain.open && unread
    }

    /// True if no guard that looks at single frames could object to this one: it comes from the
    /// port's own station and address, and is of a kind that says no more than that.
    #[inline(always)]
    #[must_use]
    pub fn is_plain(&self, view: &FrameView<'_>) -> bool {
        let plain = &self.plain;
        if !plain.looks {
            return true;
        }
        if view.source.mac() != plain.mac {
            return false;
        }
        if !plain.reads {
            return true;
        }
        let packet = view.payload();
        match view.kind {
            Kind::Ipv4 => match packet.get(12..16).and_then(|four| four.first_chunk::<4>()) {
                Some(source) => u64::from(u32::from_be_bytes(*source)) == plain.v4,
                None => true, // no packet, and nobody will take it for one
            },
            Kind::Ipv6 => {
                matches!(packet.get(6), Some(&(TCP | UDP)))
                    && packet.get(8..24) == plain.v6.as_ref().map(|own| &own[..])
            }
            // What ARP claims is asked where it is read.
            Kind::Arp | Kind::Other => true,
            Kind::Tagged => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_guard_is_told_by_a_name_and_by_deaths_of_its_own() {
        let names: BTreeSet<&str> = Guard::ALL.iter().map(|guard| guard.name()).collect();
        assert_eq!(names.len(), Guard::ALL.len());
        let reasons = Guard::ALL.iter().flat_map(|guard| guard.reasons());
        let labels: Vec<&str> = reasons.map(|reason| reason.label()).collect();
        let different: BTreeSet<&str> = labels.iter().copied().collect();
        assert_eq!(different.len(), labels.len(), "no two share one");
    }

    #[test]
    fn each_guard_does_what_its_own_field_says() {
        let off = PortGuard::default();
        assert!(Guard::ALL.iter().all(|guard| guard.mode(&off) == Mode::Off));
        let on = Mode::Enforce;
        let stations = PortGuard {
            stations: on,
            ..off.clone()
        };
        let set = |guard: &PortGuard| {
            let on = Guard::ALL.iter().filter(|one| one.mode(guard) == on);
            on.map(|one| one.name()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(set(&stations), "stations loops", "a foreign station is one");
        let one = |change: fn(&mut PortGuard)| {
            let mut guard = PortGuard::default();
            change(&mut guard);
            set(&guard)
        };
        assert_eq!(one(|guard| guard.addresses = Mode::Enforce), "addresses");
        assert_eq!(one(|guard| guard.routers = Mode::Enforce), "routers");
        assert_eq!(one(|guard| guard.loops = Mode::Enforce), "loops");
        assert_eq!(one(|guard| guard.flaps = Mode::Enforce), "flaps");
        assert_eq!(one(|guard| guard.quota = Mode::Enforce), "quota");
        let storms = one(|guard| guard.storms = Mode::Enforce);
        assert_eq!(storms, "broadcast multicast unknown");
    }

    #[test]
    fn what_counts_has_a_limit_and_it_is_the_ports() {
        let mut guard = PortGuard::pod(Mode::Observe);
        guard.rates.unknown = Rate::per_second(7);
        let limits = Guard::ALL.map(|one| one.limit(&guard));
        let rate = |rate: Rate| Some(rate.per_second);
        let Rates {
            broadcast,
            multicast,
            unknown,
        } = guard.rates;
        assert_eq!(limits[..4], [None; 4]);
        assert_eq!(
            limits[4..7],
            [rate(broadcast), rate(multicast), rate(unknown)]
        );
        assert_eq!(limits[7..], [None, Some(LEARNED_POD)]);
        assert_eq!(format!("{:8}|", Mode::Observe), "observe |");
    }
}
