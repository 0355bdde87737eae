//! ADD, DEL, CHECK and GC: what each does to devices, switch, addresses and state.
//!
//! In: a request. Out: the effect, whole, and the answer.
//! Never: leaves half of an ADD: whatever fails, all that was done is undone. A DEL goes on past
//! what fails, and twice is once.
//!
//! An ADD is answered when the pod is on the network: the switch knows it before its end comes up,
//! so that its first frame, which tells its neighbours who has the address now, is carried.

use std::net::IpAddr;
use std::path::Path;

use dataplane::addr::{Mac, PortId, Station};
use ipnet::IpNet;
use sha1::{Digest, Sha1};

use super::attachment::{ALIAS, Attachment, Held};
use super::core::{CARRIER_WITHIN, Core, DaemonError};
use super::gateway::first_of;
use super::systemd;
use crate::api::types::{
    AddReply, AddRequest, ApiError, CheckRequest, DelRequest, ErrorKind, GcRequest, Key, Removed,
    RouteSpec, Valid,
};
use crate::compile::FIRST_POD_PORT;
use crate::compile::spec::station_of;
use crate::devices::attach::host::del_pod_route;
use crate::devices::error::DeviceError;
use crate::devices::name::{DeviceName, pod_devices};
use crate::devices::netlink::Netlink;
use crate::devices::netns::Netns;
use crate::devices::sysctl;
use crate::ipam::Refusal;
use crate::plan::Plugin;

/// The least MTU that IPv4 allows (RFC 791), and IPv6 (RFC 8200).
const MTU_MIN: u32 = 68;
const MTU_MIN_V6: u32 = 1280;
/// The longest container id that is taken; runtimes give 64 characters.
const ID_MAX: usize = 256;

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        let kind = match refusal {
            Refusal::Exhausted { .. } | Refusal::Resting { .. } => ErrorKind::Exhausted,
            Refusal::Held { .. } => ErrorKind::AddressTaken,
            Refusal::HoldsAlready(_) => ErrorKind::Exists,
            Refusal::Gateway(_) | Refusal::NotOurs(_) | Refusal::TwoOfOneFamily(..) => {
                ErrorKind::Invalid
            }
        };
        ApiError::new(kind, refusal.to_string())
    }
}

impl From<DeviceError> for ApiError {
    fn from(error: DeviceError) -> ApiError {
        DaemonError::from(error).into()
    }
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::Invalid, message)
}

impl Core {
    /// Makes a pod's port.
    ///
    /// # Errors
    /// Why not; then nothing of it is left.
    pub fn add(&mut self, request: &AddRequest) -> Result<AddReply, ApiError> {
        let key = request.key.clone();
        let ifname = check_key(&key)?;
        if let Some(not_yet) = self.not_yet() {
            return Err(not_yet);
        }
        if self.attachments.contains_key(&key) {
            let why = format!("{key} is attached already");
            return Err(ApiError::new(ErrorKind::Exists, why));
        }
        if self.attachments.len() >= self.settings.pods_max {
            let why = format!(
                "{} pods are attached, the most allowed",
                self.attachments.len()
            );
            return Err(ApiError::new(ErrorKind::Exhausted, why));
        }
        let pod = self.enter(&request.netns)?;
        if pod.find_link(&ifname)?.is_some() {
            let why = format!("there is a {ifname} in {} already", request.netns.display());
            return Err(ApiError::new(ErrorKind::Exists, why));
        }
        let pool = self.pool.clone();
        let made = self.settle(request).and_then(|one| {
            let before = self.force_gateways(request, &one.addresses)?;
            let made = self.make(&one, ifname, &pod);
            if made.is_err() {
                if let Err(left) = self.unmake(&one) {
                    tracing::error!("undoing the ADD of {key}: {left}");
                }
                if let Some(before) = before {
                    self.put_back(before);
                }
            }
            made
        });
        if made.is_err() {
            // Nobody ever had the address: it need not rest.
            self.pool = pool;
        }
        made
    }

    /// Opens a pod's namespace.
    fn enter(&self, path: &Path) -> Result<Netlink, ApiError> {
        let failed =
            |why: String| ApiError::new(ErrorKind::Netns, format!("{}: {why}", path.display()));
        let netns = Netns::open(path).map_err(|error| failed(error.to_string()))?;
        if netns
            .is(self.net.namespace())
            .map_err(|e| failed(e.to_string()))?
        {
            return Err(failed("is the node's own network".to_owned()));
        }
        Ok(Netlink::open(&netns)?)
    }

    /// Decides what the port is to be, and takes its addresses.
    fn settle(&mut self, request: &AddRequest) -> Result<Attachment, ApiError> {
        let key = request.key.clone();
        let mtu = self.mtu_for(request.mtu)?;
        let port = self.free_port()?;
        let addresses = self.addresses_for(request, &key)?;
        self.check_gateways(request, &addresses)?;
        let v6 = addresses.iter().any(|held| held.address.addr().is_ipv6());
        if v6 && u32::from(mtu) < MTU_MIN_V6 {
            return Err(invalid(format!(
                "IPv6 needs an MTU of {MTU_MIN_V6}, not {mtu}"
            )));
        }
        let mac = match request.mac {
            Some(mac) if Station::new(mac).is_err() => {
                return Err(invalid(format!("{mac} cannot be the MAC of one device")));
            }
            Some(mac) => mac,
            None => made_up(&addresses, &key),
        };
        let called = format!("{}-{}-{}", key.network, key.container_id, key.ifname);
        let (host_end, tap) = pod_devices(self.spec.plugin, &called);
        let one = Attachment {
            routes: routes_for(request, &addresses)?,
            key,
            pod: request.pod.clone(),
            netns: request.netns.clone(),
            port: port.index() as u16,
            host_end,
            tap,
            mac,
            mtu,
            addresses,
            hairpin: request.hairpin,
            isolated: request.isolated,
            mac_spoof_check: request.mac_spoof_check,
            ip_masq: request.ip_masq,
            bandwidth: request.bandwidth,
        };
        if one.bandwidth.is_some() && !self.settings.bandwidth {
            return Err(invalid("bandwidth limits are switched off on this node"));
        }
        one.limits().map_err(|bad| invalid(bad.to_string()))?;
        Ok(one)
    }

    fn mtu_for(&self, wanted: Option<u32>) -> Result<u16, ApiError> {
        let most = self.spec.mtu;
        let usual = self.settings.pod_mtu.unwrap_or(most);
        // Zero is how a configuration of the bridge plugin says nothing.
        match wanted.filter(|mtu| *mtu != 0) {
            None => Ok(usual),
            Some(mtu) => match u16::try_from(mtu) {
                Ok(mtu) if u32::from(mtu) >= MTU_MIN && mtu <= most => Ok(mtu),
                _ => Err(invalid(format!(
                    "an MTU of {mtu} is not between {MTU_MIN} and the uplink's {most}"
                ))),
            },
        }
    }

    /// The next number that no pod has; one given back lately is the last to be given again.
    fn free_port(&mut self) -> Result<PortId, ApiError> {
        let count = PortId::COUNT_MAX - FIRST_POD_PORT;
        let taken = |at: usize| {
            let mut pods = self.attachments.values();
            pods.any(|one| usize::from(one.port) == at)
        };
        let turn = |step: usize| FIRST_POD_PORT + (self.next_port + step) % count;
        let free = (0..count).map(turn).find(|at| !taken(*at));
        let Some(at) = free else {
            let why = "every port of the switch is taken";
            return Err(ApiError::new(ErrorKind::Exhausted, why));
        };
        self.next_port = at + 1 - FIRST_POD_PORT;
        Ok(PortId::new(at).expect("below the limit"))
    }

    fn addresses_for(&mut self, request: &AddRequest, key: &Key) -> Result<Vec<Held>, ApiError> {
        if request.assigned.is_empty() {
            let given = self.pool.take(key, &request.requested, self.now())?;
            let held = given.into_iter().map(|given| Held {
                address: given.address,
                gateway: Some(given.gateway),
            });
            return Ok(held.collect());
        }
        for one in &request.assigned {
            self.pool.hold(one.address.addr(), key.clone())?;
        }
        let first = |link| first_of(link).filter(|_| request.is_gateway);
        let held = request.assigned.iter().map(|one| Held {
            address: one.address,
            gateway: one.gateway.or_else(|| first(one.address)),
        });
        Ok(held.collect())
    }

    /// Makes what was decided.
    fn make(
        &mut self,
        one: &Attachment,
        ifname: DeviceName,
        pod: &Netlink,
    ) -> Result<AddReply, ApiError> {
        let port = one.port_id().expect("it was given by `free_port`");
        let veth = one.veth(ifname.clone(), &self.settings.host, self.settings.workers);
        self.forget(one);
        veth.make(&self.net, pod)?;
        self.open_ports(&[(port, one.tap.clone())])?;
        self.attachments.insert(one.key.clone(), one.clone());
        self.publish()?;
        self.settle_node_side(one)?;
        if one.ip_masq {
            self.settle_masquerade()?;
        }
        self.net.wait_until_running(&one.tap, CARRIER_WITHIN)?;
        announce(pod, &ifname, one);
        veth.pod.raise(pod)?;
        for route in one.kernel_routes() {
            pod.add_route(&ifname, &route)?;
        }
        // The host end came up before the pod's: the kernel starts its queue later, too.
        self.net.wait_until_running(&one.host_end, CARRIER_WITHIN)?;
        let host_end = self.net.link(&one.host_end)?.mac.unwrap_or(Mac::ZERO);
        self.keep().map_err(DaemonError::from)?;
        Ok(one.reply(&self.host_interface(), host_end))
    }

    /// Takes away what a port has, whatever of it is there.
    fn unmake(&mut self, one: &Attachment) -> Result<(), ApiError> {
        let mut failed: Vec<String> = Vec::new();
        let mut note = |error: &dyn std::fmt::Display| failed.push(error.to_string());
        if self.attachments.remove(&one.key).is_some()
            && let Err(error) = self.publish()
        {
            note(&error);
        }
        if let Some(port) = one.port_id() {
            if let Err(error) = self.switch.detach(port) {
                note(&error);
            }
            self.switch.fdb().forget_port(port);
            self.opened.remove(&port);
            systemd::forget(one.tap.as_str());
        }
        self.forget(one);
        if one.ip_masq
            && let Err(error) = self.settle_masquerade()
        {
            note(&error);
        }
        for address in one.ips() {
            if let (Plugin::Azure, IpAddr::V4(v4)) = (self.spec.plugin, address)
                && let Err(error) = del_pod_route(&self.net, &self.settings.host, v4)
            {
                note(&error);
            }
        }
        if let Ok(ifname) = DeviceName::new(&one.key.ifname) {
            let veth = one.veth(ifname, &self.settings.host, self.settings.workers);
            if let Err(error) = veth.detach(&self.net) {
                note(&error);
            }
        }
        match failed.is_empty() {
            true => Ok(()),
            false => Err(ApiError::new(ErrorKind::Device, failed.join("; "))),
        }
    }

    /// What switch and node remember of whoever had these addresses before.
    fn forget(&self, one: &Attachment) {
        if let Ok(station) = Station::new(one.mac) {
            self.switch.fdb().forget(station);
        }
        for address in one.ips() {
            // One that is not there, or a device that is gone, needs no forgetting.
            let _ = self.net.remove_neighbour(&self.settings.host, address);
        }
    }

    /// Takes a pod's port away. One that is not there is no error.
    ///
    /// # Errors
    /// What could not be removed; the rest is.
    pub fn del(&mut self, request: &DelRequest) -> Result<Removed, ApiError> {
        let key = request.key.clone();
        check_key(&key)?;
        let removed = match self.attachments.get(&key).cloned() {
            Some(one) => self.remove(&one)?,
            None => {
                self.remove_leftovers(&key)?;
                Vec::new()
            }
        };
        Ok(Removed { removed })
    }

    fn remove(&mut self, one: &Attachment) -> Result<Vec<Key>, ApiError> {
        self.unmake(one)?;
        self.pool.release(&one.key, self.now());
        self.keep_or_complain();
        Ok(vec![one.key.clone()])
    }

    /// Devices of an ADD that died before it was kept.
    fn remove_leftovers(&mut self, key: &Key) -> Result<(), ApiError> {
        let called = format!("{}-{}-{}", key.network, key.container_id, key.ifname);
        let (host_end, tap) = pod_devices(self.spec.plugin, &called);
        for name in [host_end, tap] {
            let found = self.net.find_link(&name)?;
            let ours = found.is_some_and(|link| {
                let alias = link.alias.unwrap_or_default();
                alias.is_empty() || alias.starts_with(ALIAS)
            });
            if ours {
                self.net.remove_link(&name)?;
            }
        }
        Ok(())
    }

    /// Takes away every port of the network that the runtime no longer has.
    ///
    /// # Errors
    /// What could not be removed; the rest is.
    pub fn gc(&mut self, request: &GcRequest) -> Result<Removed, ApiError> {
        let valid = |key: &Key| {
            request.valid.contains(&Valid {
                container_id: key.container_id.clone(),
                ifname: key.ifname.clone(),
            })
        };
        let all = self.attachments.values();
        let stale = all.filter(|one| one.key.network == request.network && !valid(&one.key));
        let stale: Vec<Attachment> = stale.cloned().collect();
        let (mut removed, mut failed) = (Vec::new(), Vec::new());
        for one in stale {
            match self.remove(&one) {
                Ok(keys) => removed.extend(keys),
                Err(error) => failed.push(format!("{}: {error}", one.key)),
            }
        }
        match failed.is_empty() {
            true => Ok(Removed { removed }),
            false => Err(ApiError::new(ErrorKind::Device, failed.join("; "))),
        }
    }

    /// Compares a pod's port with what its ADD made.
    ///
    /// # Errors
    /// Everything that differs.
    pub fn check(&self, request: &CheckRequest) -> Result<(), ApiError> {
        let key = request.key.clone();
        let ifname = check_key(&key)?;
        let Some(one) = self.attachments.get(&key) else {
            let why = format!("{key} is not attached");
            return Err(ApiError::new(ErrorKind::NotFound, why));
        };
        let pod = self.enter(&request.netns)?;
        let mut differs = self.check_node(one)?;
        differs.extend(check_pod(one, &ifname, &pod)?);
        differs.extend(check_result(one, request));
        match differs.is_empty() {
            true => Ok(()),
            false => Err(ApiError::new(ErrorKind::Differs, differs.join("; "))),
        }
    }

    /// What differs on the node.
    fn check_node(&self, one: &Attachment) -> Result<Vec<String>, ApiError> {
        let mut differs = Vec::new();
        for device in [&one.host_end, &one.tap] {
            match self.net.find_link(device)? {
                None => differs.push(format!("{device} is gone")),
                Some(link) if !link.running => differs.push(format!("{device} has no carrier")),
                Some(_) if self.net.filters(device)?.iter().any(|filter| filter.ours) => {}
                Some(_) => differs.push(format!("{device} has lost its redirection")),
            }
        }
        for address in one.ips() {
            match self.pool.holder(address) {
                Some(holder) if *holder == one.key => {}
                Some(other) => differs.push(format!("{address} is reserved for {other}")),
                None => differs.push(format!("{address} is not reserved")),
            }
        }
        let limits = one.limits().map_err(|bad| invalid(bad.to_string()))?;
        let limited = one.bandwidth.is_some() && differs.is_empty();
        if limited && !limits.hold(&self.net, &one.host_end, &one.tap)? {
            differs.push("the bandwidth limits are not as they were set".to_owned());
        }
        Ok(differs)
    }
}

/// What differs in the pod. What a chained plugin added is no difference.
fn check_pod(
    one: &Attachment,
    ifname: &DeviceName,
    pod: &Netlink,
) -> Result<Vec<String>, ApiError> {
    let Some(link) = pod.find_link(ifname)? else {
        return Ok(vec![format!("the pod has no {ifname}")]);
    };
    let mut differs = Vec::new();
    if !link.up {
        differs.push(format!("{ifname} is down"));
    }
    let held = pod.addresses(ifname)?;
    for wanted in &one.addresses {
        if !held.contains(&wanted.address) {
            differs.push(format!("{ifname} lacks {}", wanted.address));
        }
    }
    let routes = pod.routes()?;
    for wanted in one.kernel_routes() {
        let there = |found: &crate::devices::netlink::address::FoundRoute| {
            found.route.to == wanted.to && found.route.via == wanted.via
        };
        if !routes.iter().any(there) {
            differs.push(format!("the pod lacks the route to {}", wanted.to));
        }
    }
    Ok(differs)
}

/// What the runtime remembers of ADD's answer and is not so. A chained plugin may have changed the
/// MAC or the MTU of the pod's end since, so of that only the name is ours to compare.
fn check_result(one: &Attachment, request: &CheckRequest) -> Vec<String> {
    let mut differs = Vec::new();
    let ours = |name: &str| name == one.host_end.as_str();
    if !request.interfaces.is_empty() && !request.interfaces.iter().any(|i| ours(&i.name)) {
        differs.push(format!("the result does not name {}", one.host_end));
    }
    for ip in &request.ips {
        if !one.addresses.iter().any(|held| held.address == ip.address) {
            differs.push(format!(
                "the result has {}, which is not the pod's",
                ip.address
            ));
        }
    }
    differs
}

/// Names that no kernel or file takes are refused before anything is looked up.
fn check_key(key: &Key) -> Result<DeviceName, ApiError> {
    let fits = |text: &str| {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        let first = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        first && text.len() <= ID_MAX && text.bytes().all(fine)
    };
    if !fits(&key.container_id) {
        return Err(invalid(format!(
            "'{}' is no container id",
            key.container_id
        )));
    }
    if !fits(&key.network) {
        return Err(invalid(format!(
            "'{}' is no name of a network",
            key.network
        )));
    }
    DeviceName::new(&key.ifname).map_err(|bad| invalid(bad.to_string()))
}

/// A MAC made of the pod's IPv4 address, as the bridge plugin made them once: whoever gets the
/// address next has the same, so no neighbour entry goes stale. Without one, of the pod's name.
fn made_up(addresses: &[Held], key: &Key) -> Mac {
    let v4 = addresses.iter().find_map(|held| match held.address {
        IpNet::V4(net) => Some(net.addr()),
        IpNet::V6(_) => None,
    });
    match v4 {
        Some(v4) => station_of(v4).mac(),
        None => {
            let digest = Sha1::digest(key.to_string());
            Mac::new([0x0a, 0x58, digest[0], digest[1], digest[2], digest[3]])
        }
    }
}

/// The default routes, and those asked for; one without a next hop takes the gateway of its family.
fn routes_for(request: &AddRequest, addresses: &[Held]) -> Result<Vec<RouteSpec>, ApiError> {
    let gateway = |v4: bool| {
        let mut gateways = addresses.iter().filter_map(|held| held.gateway);
        gateways.find(|gateway| gateway.is_ipv4() == v4)
    };
    let mut routes: Vec<RouteSpec> = Vec::new();
    for wanted in &request.routes {
        let gw = wanted.gw.or_else(|| gateway(wanted.dst.addr().is_ipv4()));
        if gw.is_some_and(|gw| gw.is_ipv4() != wanted.dst.addr().is_ipv4()) {
            return Err(invalid(format!(
                "the route to {} has a next hop of the other family",
                wanted.dst
            )));
        }
        let dst = wanted.dst.trunc();
        if routes.iter().any(|other| other.dst == dst) {
            return Err(invalid(format!("there are two routes to {dst}")));
        }
        routes.push(RouteSpec { dst, gw });
    }
    if request.default_route {
        for held in addresses {
            let v4 = held.address.addr().is_ipv4();
            let all: IpNet = match v4 {
                true => ipnet::Ipv4Net::default().into(),
                false => ipnet::Ipv6Net::default().into(),
            };
            let missing = !routes.iter().any(|route| route.dst == all);
            if let (true, Some(gw)) = (missing, gateway(v4)) {
                routes.push(RouteSpec {
                    dst: all,
                    gw: Some(gw),
                });
            }
        }
    }
    Ok(routes)
}

/// Has the pod's kernel tell its neighbours who it is when its end comes up. Where `/proc/sys` may
/// not be written it stays silent, and neighbours learn when they ask.
fn announce(pod: &Netlink, ifname: &DeviceName, one: &Attachment) {
    use sysctl::{Conf, Setting};
    let device = Conf::Device(ifname);
    let _ = sysctl::set(pod.namespace(), Setting::ArpNotify(device), "1");
    if one.ips().any(|address| address.is_ipv6()) {
        let _ = sysctl::set(pod.namespace(), Setting::NdiscNotify(device), "1");
    }
}
