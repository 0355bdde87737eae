//! The way from pod to pod: which routers are on it, and how long a packet may be.
//!
//! In: a walk whose pods reach each other across nodes. Out: checks, one each for the hops that a
//! traceroute shows and for the path MTU.
//! Never: runs `traceroute` or `tracepath`, or checks a way on which nothing arrives.

use std::io;
use std::net::IpAddr;

use super::{Party, Walk};
use crate::lab::cluster::LabPod;
use crate::lab::probe::{HopProbe, HopsReport, HopsSpec, PathMtuSpec, hops, path_mtu};
use crate::plan::Plugin;

impl<'a> Walk<'a> {
    /// What lies between the pods of two nodes.
    pub(super) fn paths(&mut self) -> io::Result<()> {
        let (Some(a), Some(c)) = (self.pod("pod-a"), self.pod("pod-c")) else {
            return Ok(());
        };
        if !self.reached("crossing") {
            return Ok(());
        }
        let (from, to) = (self.of(a), self.of(c));
        self.hops_check("hops", from, to, &self.routers(a, c))?;
        let mtu = self.node_of(a).plan.mtu.min(self.node_of(c).plan.mtu);
        self.path_mtu_check("path_mtu", from, to, mtu)
    }

    /// The addresses that routers between two pods speak from, as a kernel that routes would: the
    /// one on the device by which the answer leaves. Azure bridges, so there is none.
    fn routers(&self, from: &'a LabPod, to: &'a LabPod) -> Vec<IpAddr> {
        if self.plugin() == Plugin::Azure {
            return Vec::new();
        }
        let gateway = self.gateway(self.node_of(from));
        let far_nic = self.at(self.node_of(to)).address;
        gateway.into_iter().chain([far_nic]).collect()
    }

    /// UDP and echo requests of ever more hops meet `routers`, and then the target.
    fn hops_check(
        &mut self,
        name: &str,
        from: Party<'a>,
        to: Party<'a>,
        routers: &[IpAddr],
    ) -> io::Result<()> {
        let target = to.address;
        (self.say)(&format!(
            "{} looks for the hops to {} at {target}",
            from.name, to.name
        ));
        let due: Vec<IpAddr> = routers.iter().copied().chain([target]).collect();
        let by_udp = hops(from.netns, &HopsSpec::to(target, HopProbe::Udp))?;
        let by_echo = hops(from.netns, &HopsSpec::to(target, HopProbe::Echo))?;
        let met = |report: &HopsReport| {
            report
                .addresses()
                .into_iter()
                .eq(due.iter().map(|a| Some(*a)))
        };
        let ok = met(&by_udp) && met(&by_echo);
        let detail = if ok {
            format!("{} to {}: {}", from.name, to.name, listed(&by_udp))
        } else {
            let due: Vec<String> = due.iter().map(ToString::to_string).collect();
            format!(
                "{} to {}: by UDP {}, by echo {}, where {} was due",
                from.name,
                to.name,
                listed(&by_udp),
                listed(&by_echo),
                due.join(", ")
            )
        };
        self.check(name, ok, detail);
        Ok(())
    }

    /// The longest packet that arrives whole is the longest that was planned.
    fn path_mtu_check(
        &mut self,
        name: &str,
        from: Party<'a>,
        to: Party<'a>,
        planned: u16,
    ) -> io::Result<()> {
        let target = to.address;
        (self.say)(&format!(
            "{} looks for the path MTU to {} at {target}",
            from.name, to.name
        ));
        let report = path_mtu(from.netns, &PathMtuSpec::to(target, planned))?;
        let ok = report.arrived == Some(planned);
        let arrived = report
            .arrived
            .map_or_else(|| "none".to_owned(), |length| format!("{length} bytes"));
        let why = report.refused.as_ref().map_or_else(
            || "nobody says why no more".to_owned(),
            |error| {
                let from = error
                    .from
                    .map_or_else(|| from.name.to_owned(), |from| from.to_string());
                format!("{from} says of a longer one: {}", error.what)
            },
        );
        let due = if ok {
            String::new()
        } else {
            format!(" where {planned} was due")
        };
        let detail = format!(
            "{} to {}: longest packet {arrived}{due}; {why}",
            from.name, to.name
        );
        self.check(name, ok, detail);
        Ok(())
    }
}

fn listed(report: &HopsReport) -> String {
    let hops: Vec<String> = report
        .hops
        .iter()
        .map(|hop| match hop.from {
            Some(from) => from.to_string(),
            None => format!("* ({})", hop.what),
        })
        .collect();
    hops.join(", ")
}
