//! `POST /v1/trace`: where a packet would go in this very switch, as it is now.
//!
//! In: who sends, and what. Out: the steps of the same `decide` on the same tables, learned
//! stations, known neighbours and remembered conversations.
//! Never: sends a frame.

use std::net::{IpAddr, Ipv4Addr};

use dataplane::addr::PortId;
use dataplane::forward::World;
use dataplane::frame::offload::Offload;
use dataplane::tables::fib::NextHop;
use dataplane::tables::neighbour::Neighbours;
use ipnet::IpNet;

use super::attachment::Attachment;
use super::core::{Core, system};
use crate::api::types::{ApiError, ErrorKind};
use crate::api::views::TraceRequest;
use crate::compile::{
    FABRIC_MAC, HOST_PORT, NodeMacs, PodPort, UPLINK_PORT, Wanted as WantedRoute,
};
use crate::plan::Plugin;
use crate::trace::board::Board;
use crate::trace::packet::{Payload, Sender, Wanted};
use crate::trace::pass::Carried;
use crate::trace::report::{Sight, Trace};
use crate::trace::running::{From, Running, trace, trace_frame};
use crate::trace::walk::heard;
use crate::trace::{NoTrace, input};

/// The switch of a daemon, in words.
struct Words<'a> {
    core: &'a Core,
    routes: Vec<(IpNet, NextHop)>,
    wanted: Vec<WantedRoute>,
}

impl Board for Words<'_> {
    fn port_name(&self, port: PortId) -> String {
        self.core.port_name(port)
    }

    fn routes(&self) -> &[(IpNet, NextHop)] {
        &self.routes
    }

    fn source(&self, prefix: IpNet) -> String {
        let wanted = self.wanted.iter().find(|wanted| wanted.prefix == prefix);
        match wanted {
            Some(wanted) => match wanted.pod {
                Some(port) => self.port_name(port),
                None => wanted.source.clone(),
            },
            None => "the tables".to_owned(),
        }
    }

    fn macs(&self) -> NodeMacs {
        self.core.spec.macs
    }

    fn host_device(&self) -> &str {
        self.core.settings.host.as_str()
    }

    fn sights_out(&self, port: PortId) -> Vec<Sight> {
        let (node, settings) = (&self.core.spec.name, &self.core.settings);
        let here = |interface: &str| Sight::new(node, interface);
        match port {
            HOST_PORT => vec![here(settings.host.as_str())],
            UPLINK_PORT => vec![
                here(settings.uplink_tap.as_str()),
                here(settings.uplink.as_str()),
            ],
            _ => self.core.attached_at(port).map_or_else(Vec::new, |one| {
                let pod = Sight::new(&one.name(), &one.key.ifname);
                vec![here(one.tap.as_str()), here(one.host_end.as_str()), pod]
            }),
        }
    }
}

impl Core {
    /// Traces a packet, or a frame that is given.
    ///
    /// # Errors
    /// Why there is no such packet, or nobody of that name.
    pub fn trace(&self, request: &TraceRequest) -> Result<Trace, ApiError> {
        let invalid = |why: String| ApiError::new(ErrorKind::Invalid, why);
        let port = self.port_named(&request.from)?;
        let pods = self.attachments.values();
        let pods: Vec<PodPort> = pods.filter_map(Attachment::pod_port).collect();
        let words = Words {
            core: self,
            routes: self.spec.tables(&pods).routes,
            wanted: self.spec.wanted_routes(&pods),
        };
        let tables = self.switch.tables();
        let neighbours = self.known_neighbours()?;
        let plugin = self.spec.plugin.to_string();
        let running = Running {
            board: &words,
            world: World {
                tables: &tables,
                fdb: self.switch.fdb(),
                neighbours: &neighbours,
                returns: Some(self.switch.returns()),
            },
            node: &self.spec.name,
            plugin: &plugin,
        };
        if let Some(hex) = &request.frame {
            let bytes = input::from_hex(hex).map_err(|bad| invalid(bad.to_string()))?;
            let offload = Offload::NONE;
            return Ok(trace_frame(&running, port, &Carried { bytes, offload }));
        }
        let to = request
            .to
            .ok_or_else(|| invalid("neither `to` nor `frame` is given".to_owned()))?;
        let (sender, next_hop) = self.sender(port, request, to).map_err(invalid)?;
        let from = From {
            name: &request.from,
            port,
            sender,
            next_hop,
        };
        let wanted = Wanted {
            payload: payload(request).map_err(invalid)?,
            size: request.size,
            dont_fragment: request.df,
        };
        trace(&running, &from, to, &wanted).map_err(|none: NoTrace| invalid(none.to_string()))
    }

    fn port_named(&self, name: &str) -> Result<PortId, ApiError> {
        let named = |one: &&Attachment| {
            let pod = one.pod.as_ref().map(|pod| pod.name.as_str());
            one.name() == name || pod == Some(name) || one.key.container_id == name
        };
        let pod = || self.attachments.values().find(named)?.port_id();
        let found = match name {
            "host" => Some(HOST_PORT),
            "uplink" => Some(UPLINK_PORT),
            _ => pod(),
        };
        found.ok_or_else(|| {
            let why = format!("no pod '{name}' is attached, and it is neither host nor uplink");
            ApiError::new(ErrorKind::NotFound, why)
        })
    }

    /// Those of the first worker, as far as a frame may go to them without ado.
    fn known_neighbours(&self) -> Result<Neighbours, ApiError> {
        let known = self
            .switch
            .neighbours()
            .map_err(system("asking the switch"))?;
        let mut neighbours = Neighbours::default();
        for entry in known.into_iter().next().into_iter().flatten() {
            if let Some(mac) = entry.mac {
                heard(&mut neighbours, entry.address, UPLINK_PORT, mac);
            }
        }
        Ok(neighbours)
    }

    /// Who sends by a port to that address, and whose MAC it asks for.
    fn sender(
        &self,
        port: PortId,
        request: &TraceRequest,
        to: IpAddr,
    ) -> Result<(Sender, IpAddr), String> {
        let mtu = self.spec.mtu.into();
        let same = |address: IpAddr| address.is_ipv4() == to.is_ipv4();
        match (port, self.attached_at(port)) {
            (UPLINK_PORT, _) => {
                let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                let address = request.source.unwrap_or(unspecified);
                if !same(address) || address == unspecified {
                    return Err(
                        "from the uplink a `source` of the same family is needed".to_owned()
                    );
                }
                let mac = FABRIC_MAC;
                Ok((Sender { mac, address, mtu }, to))
            }
            (HOST_PORT, _) => {
                let held = match self.spec.plugin {
                    Plugin::Azure => self.spec.own,
                    Plugin::Kubenet => self.spec.gateway(),
                };
                let own = match to {
                    IpAddr::V4(_) => held.v4.map(IpAddr::V4),
                    IpAddr::V6(_) => held.v6.map(IpAddr::V6),
                };
                let address = own.ok_or("the host port has no address of that family")?;
                let mac = self.spec.macs.host.mac();
                Ok((Sender { mac, address, mtu }, to))
            }
            (_, Some(pod)) => {
                let held = pod.addresses.iter().find(|held| same(held.address.addr()));
                let held =
                    held.ok_or_else(|| format!("{} has no address of that family", pod.name()))?;
                if held.address.addr() == to {
                    return Err(format!("{to} is {}'s own: no frame is sent", pod.name()));
                }
                let route = || {
                    let holding = pod.routes.iter().filter(|route| route.dst.contains(&to));
                    holding.max_by_key(|route| route.dst.prefix_len())?.gw
                };
                let next_hop = match held.address.contains(&to) {
                    true => to,
                    false => {
                        route().ok_or_else(|| format!("{} has no route to {to}", pod.name()))?
                    }
                };
                let sender = Sender {
                    mac: pod.mac,
                    address: held.address.addr(),
                    mtu: pod.mtu.into(),
                };
                Ok((sender, next_hop))
            }
            (_, None) => Err("nobody is attached there".to_owned()),
        }
    }
}

fn payload(request: &TraceRequest) -> Result<Payload, String> {
    match (request.protocol.as_deref().unwrap_or("icmp"), request.port) {
        ("icmp", None) => Ok(Payload::Icmp),
        ("icmp", Some(_)) => Err("ICMP has no ports".to_owned()),
        ("tcp", Some(port)) => Ok(Payload::Tcp(port)),
        ("udp", Some(port)) => Ok(Payload::Udp(port)),
        ("tcp" | "udp", None) => Err("a `port` is needed".to_owned()),
        (other, _) => Err(format!("'{other}' is none of icmp, tcp and udp")),
    }
}
