//! Facilities of newer kernels: each is tried at start, can be switched off, and is done without
//! where it is missing.
//!
//! In: what the configuration forbids, and a namespace to try things in. Out: what the kernel has and
//! what will be used. Never: guesses from a version number; leaves a device behind.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv6Addr;
use std::num::NonZeroU16;

use dataplane::facility::Facility;
use dataplane::port::tap::{Queues, TapPort};
use dataplane::switch;
use ipnet::{Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::devices::netlink::filter::{Deed, Match, Rule};
use crate::devices::tap::{self, TapSpec};
use crate::devices::{DeviceError, DeviceName, Netlink, Netns};

/// `TUN_F_USO4` of linux/if_tun.h.
const USO4: u32 = 0x20;

/// A facility that newer kernels have and older ones lack.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// TAPs with a queue for each worker. Without it there is one worker.
    MultiQueue,
    /// Many small frames in one system call, by `io_uring` on TAPs. Without it: one call for each.
    IoUring,
    /// Super-frames of UDP on TAPs. Without it pods send each datagram by itself.
    Uso,
    /// Steering by a program on the uplink, where no queueing discipline stands on its ingress. Without
    /// it a table of nftables does the same.
    Tcx,
    /// Steering by a table of nftables on the uplink, where no queueing discipline stands on its ingress.
    /// Without it, and without `tcx`, one is added, for which the kernel takes the transmit queue away for
    /// a moment.
    Nftables,
    /// A short slice of the processor for a worker's thread. Without it a frame may wait for one of the
    /// kernel's usual slices, some milliseconds, where other programs want the same processor.
    ShortSlice,
}

impl Feature {
    /// All of them.
    pub const ALL: [Feature; 6] = [
        Feature::MultiQueue,
        Feature::IoUring,
        Feature::Uso,
        Feature::Tcx,
        Feature::Nftables,
        Feature::ShortSlice,
    ];

    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facility().name()
    }

    /// Since which kernel it is there, and by what.
    #[must_use]
    pub const fn since(self) -> &'static str {
        match self {
            Feature::MultiQueue => "Linux 3.8, IFF_MULTI_QUEUE",
            Feature::IoUring => "Linux 6.4, FMODE_NOWAIT of TAPs",
            Feature::Uso => "Linux 6.2, TUN_F_USO4",
            Feature::Tcx => "Linux 6.6, BPF_TCX_INGRESS",
            Feature::Nftables => "Linux 4.5, nft_fwd_netdev and nft_dup_netdev",
            Feature::ShortSlice => "Linux 6.12, sched_setattr",
        }
    }

    const fn facility(self) -> Facility {
        match self {
            Feature::MultiQueue => Facility::MultiQueue,
            Feature::IoUring => Facility::IoUring,
            Feature::Uso => Facility::Uso,
            Feature::Tcx => Facility::Tcx,
            Feature::Nftables => Facility::Nftables,
            Feature::ShortSlice => Facility::ShortSlice,
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What became of one facility.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which.
    pub feature: Feature,
    /// The kernel has it. Nobody knows of one that is switched off: it was not tried.
    pub kernel: Option<bool>,
    /// It is used.
    pub used: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.kernel {
            Some(true) => "used",
            Some(false) => "the kernel has none, or forbids it here; done without",
            None => "switched off",
        };
        write!(f, "{}: {how}", self.feature)
    }
}

/// Does without these from now on. To be called before the first port is opened.
pub fn switch_off(features: &BTreeSet<Feature>) {
    for feature in features {
        feature.facility().forbid();
    }
}

/// Tries each facility that is not switched off, on TAPs of a namespace that exists for nothing else.
///
/// # Errors
/// What making the namespace or an ordinary TAP says.
pub fn probe() -> Result<Vec<Finding>, DeviceError> {
    let within = |source| DeviceError::Inside {
        attempt: "make a namespace to try the kernel's facilities in".to_owned(),
        namespace: "probe".into(),
        source,
    };
    let namespace = Netns::create("probe").map_err(within)?;
    let net = Netlink::open(&namespace)?;
    let tap = DeviceName::new("probe1").expect("our own names are names");
    let plain = open(&net, tap.as_str(), NonZeroU16::MIN)?;
    let two = NonZeroU16::new(2).expect("two is not zero");
    let several = || open(&net, "probe2", two).is_ok();
    let find = |feature: Feature, has: &dyn Fn() -> bool| {
        let kernel = feature.facility().is_allowed().then(has);
        Finding {
            feature,
            kernel,
            used: kernel == Some(true),
        }
    };
    Ok(vec![
        find(Feature::MultiQueue, &several),
        find(Feature::IoUring, &|| plain.batches()),
        find(Feature::Uso, &|| plain.offloads() & USO4 != 0),
        find(Feature::Tcx, &|| net.set_program_rules(&tap, &[]).is_ok()),
        find(Feature::Nftables, &|| {
            let rules = net.index(&tap).map(some_rules);
            rules.is_ok_and(|rules| net.set_table_rules(&tap, &rules).is_ok())
        }),
        find(Feature::ShortSlice, &switch::has_short_slices),
    ])
}

/// Rules that need all that rules of steering can need.
fn some_rules(device: u32) -> [Rule; 4] {
    let prefixes_v4 = [1, 3].map(|last| Ipv4Net::new_assert([127, 0, 0, last].into(), 32));
    let prefix_v6 = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
    let rule = |frames, deed| Rule { frames, deed };
    [
        rule(Match::Ipv4To(prefixes_v4[0]), Deed::Redirect(device)),
        rule(Match::Ipv4To(prefixes_v4[1]), Deed::Redirect(device)),
        rule(Match::Ipv6To(prefix_v6), Deed::Redirect(device)),
        rule(Match::Advertisement, Deed::Mirror(device)),
    ]
}

fn open(net: &Netlink, name: &str, queues: NonZeroU16) -> Result<TapPort, DeviceError> {
    let name = DeviceName::new(name).expect("our own names are names");
    let spec = TapSpec {
        queues,
        ..TapSpec::new(name.clone(), 1500)
    };
    tap::ensure(net, &spec)?;
    let kind = match queues.get() {
        1 => Queues::Single,
        _ => Queues::Multi,
    };
    let opened = net.namespace().run(|| TapPort::open(name.as_str(), kind));
    opened.map_err(|source| DeviceError::Inside {
        attempt: format!("open the TAP {name}"),
        namespace: net.namespace().name().into(),
        source,
    })
}

/// How many workers there can be: one where TAPs have one queue.
#[must_use]
pub fn workers(wanted: NonZeroU16, findings: &[Finding]) -> NonZeroU16 {
    let several = |finding: &Finding| finding.feature == Feature::MultiQueue && finding.used;
    match findings.iter().any(several) {
        true => wanted,
        false => NonZeroU16::MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_finds_what_ports_will_use_and_leaves_nothing() {
        let findings = probe().expect("the right to make a namespace and a TAP");
        let found: Vec<Feature> = findings.iter().map(|finding| finding.feature).collect();
        assert_eq!(found, Feature::ALL);
        for finding in &findings {
            let allowed = finding.feature.facility().is_allowed();
            assert_eq!(finding.kernel.is_some(), allowed, "{finding}");
            assert_eq!(finding.used, finding.kernel == Some(true), "{finding}");
        }
        let four = NonZeroU16::new(4).expect("four");
        let several = findings[0].used;
        let wanted = if several { four } else { NonZeroU16::MIN };
        assert_eq!(workers(four, &findings), wanted);
    }

    #[test]
    fn the_names_are_those_of_the_configuration() {
        for feature in Feature::ALL {
            let json = serde_json::to_value(feature).expect("a text");
            assert_eq!(json, feature.name());
        }
    }
}
