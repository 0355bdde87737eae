//! What is measured, of whom, and where: the words of the command line and of the output.
//!
//! In: nothing. Out: [`Scenario`], [`Subject`], [`Metric`]. Never: a number.

use clap::ValueEnum;

/// Where it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Scenario {
    /// Two pods on one node.
    PodsSameNode,
    /// The same, with 110 more pods attached that say nothing.
    #[value(name = "pods-same-node-110")]
    PodsSameNode110,
    /// The same, with 250 more.
    #[value(name = "pods-same-node-250")]
    PodsSameNode250,
    /// Pods on two nodes of one subnet, on the lab's fabric, which sets the limit.
    PodsTwoNodesAzure,
    /// Pods on two nodes with a CIDR each, routed, on the same fabric.
    PodsTwoNodesKubenet,
    /// 110 pods attached, no traffic.
    #[value(name = "idle-110-pods")]
    Idle110Pods,
    /// A pod floods at full speed while another pair exchanges 1,000 packets a second.
    FloodFairness,
    /// In memory: 64-byte frames between 1,000 stations.
    CoreL2,
    /// In memory: the same between 65,536, in random order.
    #[value(name = "core-l2-65536")]
    CoreL2Large,
    /// In memory: 64-byte frames routed, 1,000 routes each way.
    CoreL3,
    /// In memory: longest-prefix match alone.
    CoreLpm,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Subject {
    /// The kernel's bridge, its frames kept from iptables: what all others are divided by.
    LinuxBridge,
    /// The same with `bridge-nf-call-iptables`, as Kubernetes nodes have it.
    LinuxBridgeNf,
    /// Tapline, a veth and a TAP for each pod.
    TaplineVeth,
    /// Tapline, the TAP is the pod's `eth0`.
    TaplineTap,
    /// Tapline, AF_PACKET on the pods' veths.
    TaplineAfpacket,
    /// Open vSwitch, userspace datapath, on the pods' veths.
    OvsNetdev,
    /// Tapline's worker, in memory.
    TaplineCore,
    /// DPDK's testpmd, MAC forwarding, no lookup, in memory.
    DpdkTestpmd,
    /// DPDK's DIR-24-8, and its trie for IPv6, in memory.
    DpdkTestFib,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// TCP, one flow.
    Tcp1,
    /// TCP, four flows.
    Tcp4,
    /// The same by programs of a thread per flow.
    Tcp4Threads,
    /// Highest rate of 64-byte frames with at most 0.1 % lost.
    Udp64,
    /// The same with RPS off, whether or not that is the better setting.
    Udp64RpsOff,
    /// The same with 1400 bytes of payload.
    Udp1400,
    /// Round trips, the next as soon as the last is back.
    RttFloodP50,
    /// See [`Metric::RttFloodP50`].
    RttFloodP99,
    /// See [`Metric::RttFloodP50`].
    RttFloodP999,
    /// The median until the program that asked has the reply, its wake-up included; the others end
    /// at the kernel's stamp on the reply, as those of `ping` do.
    RttFloodAwakeP50,
    /// Round trips, one every 2 ms.
    RttPacedP50,
    /// See [`Metric::RttPacedP50`].
    RttPacedP99,
    /// See [`Metric::RttPacedP50`].
    RttPacedP999,
    /// See [`Metric::RttFloodAwakeP50`].
    RttPacedAwakeP50,
    /// Processor time of the whole machine for a gigabit of TCP, both ends included.
    CpuPerGbit,
    /// The switch's own threads' part of it.
    SwitchCpuPerGbit,
    /// Processor time of the whole machine for a million 64-byte frames, both ends included.
    CpuPerMframes,
    /// The switch's own threads' part of it.
    SwitchCpuPerMframes,
    /// The switch's own threads while nothing is sent, in percent of one processor.
    IdleCpu,
    /// Memory of the switch.
    Rss,
    /// Requests or replies of the pair that were lost.
    PairLost,
    /// Frames of the pair that the switch or its TAPs dropped.
    PairDropped,
    /// Round trips of the pair under the flood.
    PairRttP50,
    /// See [`Metric::PairRttP50`].
    PairRttP99,
    /// See [`Metric::RttFloodAwakeP50`].
    PairAwakeP99,
    /// Frames forwarded by one core.
    Mpps,
    /// The same by way of memory ports with queues.
    MppsMemoryPorts,
    /// Cycles for one look-up among 10,000 routes.
    Cycles,
    /// The same among 400.
    Cycles400,
    /// The same among 500,000.
    Cycles500000,
    /// The same among 10,000 of IPv6.
    CyclesV6,
    /// Memory of the table of 10,000 routes.
    Table,
    /// Of that of 400.
    Table400,
    /// Of that of 500,000.
    Table500000,
    /// Of that of 10,000 routes of IPv6.
    TableV6,
}

impl Scenario {
    /// All of them, in the order of the output.
    pub const ALL: &'static [Scenario] = &[
        Scenario::PodsSameNode,
        Scenario::PodsSameNode110,
        Scenario::PodsSameNode250,
        Scenario::PodsTwoNodesAzure,
        Scenario::PodsTwoNodesKubenet,
        Scenario::Idle110Pods,
        Scenario::FloodFairness,
        Scenario::CoreL2,
        Scenario::CoreL2Large,
        Scenario::CoreL3,
        Scenario::CoreLpm,
    ];

    /// As on the command line.
    #[must_use]
    pub fn name(self) -> String {
        name_of(&self)
    }

    /// Measured without a kernel around it, so without privilege.
    #[must_use]
    pub fn is_core(self) -> bool {
        self >= Scenario::CoreL2
    }

    /// Who takes part, the measure of all first.
    #[must_use]
    pub fn subjects(self) -> &'static [Subject] {
        use Subject as S;
        match self {
            Scenario::CoreL2 | Scenario::CoreL2Large => &[S::TaplineCore, S::DpdkTestpmd],
            Scenario::CoreL3 => &[S::TaplineCore],
            Scenario::CoreLpm => &[S::TaplineCore, S::DpdkTestFib],
            _ => &[
                S::LinuxBridge,
                S::LinuxBridgeNf,
                S::TaplineVeth,
                S::TaplineTap,
                S::TaplineAfpacket,
                S::OvsNetdev,
            ],
        }
    }
}

impl Subject {
    /// As on the command line.
    #[must_use]
    pub fn name(self) -> String {
        name_of(&self)
    }

    /// Ours.
    #[must_use]
    pub fn is_tapline(self) -> bool {
        use Subject as S;
        matches!(
            self,
            S::TaplineVeth | S::TaplineTap | S::TaplineAfpacket | S::TaplineCore
        )
    }
}

impl Metric {
    /// Its name in the output, its unit, and whether more of it is better.
    #[must_use]
    pub fn facts(self) -> (&'static str, &'static str, bool) {
        match self {
            Metric::Tcp1 => ("tcp_1", "Gbit/s", true),
            Metric::Tcp4 => ("tcp_4", "Gbit/s", true),
            Metric::Tcp4Threads => ("tcp_4_threads", "Gbit/s", true),
            Metric::Udp64 => ("udp_64", "kpps", true),
            Metric::Udp64RpsOff => ("udp_64_rps_off", "kpps", true),
            Metric::Udp1400 => ("udp_1400", "kpps", true),
            Metric::RttFloodP50 => ("rtt_flood_p50", "us", false),
            Metric::RttFloodP99 => ("rtt_flood_p99", "us", false),
            Metric::RttFloodP999 => ("rtt_flood_p999", "us", false),
            Metric::RttFloodAwakeP50 => ("rtt_flood_awake_p50", "us", false),
            Metric::RttPacedP50 => ("rtt_paced_p50", "us", false),
            Metric::RttPacedP99 => ("rtt_paced_p99", "us", false),
            Metric::RttPacedP999 => ("rtt_paced_p999", "us", false),
            Metric::RttPacedAwakeP50 => ("rtt_paced_awake_p50", "us", false),
            Metric::CpuPerGbit => ("cpu_s_per_gbit", "s", false),
            Metric::SwitchCpuPerGbit => ("switch_cpu_s_per_gbit", "s", false),
            Metric::CpuPerMframes => ("cpu_s_per_mframes", "s", false),
            Metric::SwitchCpuPerMframes => ("switch_cpu_s_per_mframes", "s", false),
            Metric::IdleCpu => ("idle_cpu", "% of one core", false),
            Metric::Rss => ("rss", "MiB", false),
            Metric::PairLost => ("pair_lost", "frames", false),
            Metric::PairDropped => ("pair_dropped", "frames", false),
            Metric::PairRttP50 => ("pair_rtt_p50", "us", false),
            Metric::PairRttP99 => ("pair_rtt_p99", "us", false),
            Metric::PairAwakeP99 => ("pair_awake_p99", "us", false),
            Metric::Mpps => ("mpps", "Mpps", true),
            Metric::MppsMemoryPorts => ("mpps_memory_ports", "Mpps", true),
            Metric::Cycles => ("cycles", "cycles", false),
            Metric::Cycles400 => ("cycles_400", "cycles", false),
            Metric::Cycles500000 => ("cycles_500000", "cycles", false),
            Metric::CyclesV6 => ("cycles_ipv6", "cycles", false),
            Metric::Table => ("table", "MiB", false),
            Metric::Table400 => ("table_400", "MiB", false),
            Metric::Table500000 => ("table_500000", "MiB", false),
            Metric::TableV6 => ("table_ipv6", "MiB", false),
        }
    }

    /// The metric by which settings are chosen where this one is measured: all that one
    /// measurement says is shown under the same settings.
    #[must_use]
    pub fn headline(self) -> Metric {
        use Metric as M;
        match self {
            M::CpuPerGbit | M::SwitchCpuPerGbit => M::Tcp1,
            M::CpuPerMframes | M::SwitchCpuPerMframes => M::Udp64,
            M::RttFloodP99 | M::RttFloodP999 | M::RttFloodAwakeP50 => M::RttFloodP50,
            M::RttPacedP99 | M::RttPacedP999 | M::RttPacedAwakeP50 => M::RttPacedP50,
            M::PairLost | M::PairDropped | M::PairRttP50 | M::PairAwakeP99 => M::PairRttP99,
            other => other,
        }
    }

    /// Its name in the output.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.facts().0
    }

    /// Is more of it better?
    #[must_use]
    pub fn more_is_better(self) -> bool {
        self.facts().2
    }
}

fn name_of(value: &impl ValueEnum) -> String {
    let known = value.to_possible_value();
    known.map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_and_subjects_are_called_as_people_type_them() {
        assert_eq!(Scenario::PodsSameNode.name(), "pods-same-node");
        assert_eq!(Scenario::PodsTwoNodesAzure.name(), "pods-two-nodes-azure");
        assert_eq!(Scenario::Idle110Pods.name(), "idle-110-pods");
        assert_eq!(Scenario::CoreL2Large.name(), "core-l2-65536");
        assert_eq!(Scenario::CoreL3.name(), "core-l3");
        assert_eq!(Subject::TaplineAfpacket.name(), "tapline-afpacket");
        assert_eq!(Subject::LinuxBridgeNf.name(), "linux-bridge-nf");
        assert_eq!(Subject::OvsNetdev.name(), "ovs-netdev");
        let names: std::collections::BTreeSet<_> = Scenario::ALL.iter().map(|s| s.name()).collect();
        assert_eq!(names.len(), Scenario::value_variants().len());
    }
}
