//! The guards of a node's ports: what holds for all of them, and what single pods may besides.
//!
//! In: a node's [`Guards`] and the pods attached now. Out: the guards of each port.
//! Never: a guard for the uplink: what comes in there is the fabric's to check, since Azure lets no
//! NIC send from another's address unless the VNet's owner says so.

use dataplane::addr::{PortId, Station};
use dataplane::tables::guard::{LEARNED_POD, Mode, PortGuard, Rates};
use ipnet::IpNet;

use super::{HOST_PORT, PodPort};

/// What the guards of a node's ports do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guards {
    /// A pod sends from its own MAC and addresses only.
    pub spoof: Mode,
    /// No pod is a router.
    pub routers: Mode,
    /// A station of another port does not come in; the host's port is watched, too.
    pub loops: Mode,
    /// A station that flaps stays where it was; the host's port is watched, too.
    pub flaps: Mode,
    /// Frames to all keep to `rates`.
    pub storms: Mode,
    /// No more than `learned_max` stations are learned; the host's port is watched, too, by a
    /// number of its own.
    pub quota: Mode,
    /// Stations that may be learned behind a pod.
    pub learned_max: u32,
    /// How many frames a pod may send to all.
    pub rates: Rates,
    /// Pods that may send from more than what is theirs. None comes twice.
    pub more: Vec<More>,
}

impl Default for Guards {
    fn default() -> Guards {
        Guards {
            spoof: Mode::Enforce,
            routers: Mode::Enforce,
            loops: Mode::Enforce,
            flaps: Mode::Enforce,
            storms: Mode::Enforce,
            quota: Mode::Enforce,
            learned_max: LEARNED_POD,
            rates: Rates::default(),
            more: Vec::new(),
        }
    }
}

/// What one pod may send from beside its own station and addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct More {
    /// The pod, or its container.
    pub pod: String,
    /// Stations.
    pub stations: Vec<Station>,
    /// Prefixes of addresses.
    pub addresses: Vec<IpNet>,
}

impl Guards {
    /// The guards of a node's ports.
    #[must_use]
    pub fn of(&self, pods: &[PodPort]) -> Vec<(PortId, PortGuard)> {
        let host = PortGuard {
            loops: self.loops,
            flaps: self.flaps,
            quota: self.quota,
            ..PortGuard::host(Mode::Off)
        };
        let pods = pods.iter().map(|pod| (pod.port, self.of_pod(pod)));
        std::iter::once((HOST_PORT, host)).chain(pods).collect()
    }

    fn of_pod(&self, pod: &PodPort) -> PortGuard {
        let mine = |more: &&More| pod.called.contains(&more.pod);
        let more = self.more.iter().find(mine);
        let stations = more.filter(|_| !pod.mac_checked);
        PortGuard {
            stations: match pod.mac_checked {
                true => Mode::Enforce,
                false => self.spoof,
            },
            addresses: self.spoof,
            routers: self.routers,
            loops: self.loops,
            flaps: self.flaps,
            quota: self.quota,
            learned_max: self.learned_max,
            storms: self.storms,
            rates: self.rates,
            more_stations: stations.map_or_else(Vec::new, |more| more.stations.clone()),
            more_addresses: more.map_or_else(Vec::new, |more| more.addresses.clone()),
        }
    }
}
