//! One switch, in the words of those who run it: what a step needs beside what `decide` told.
//!
//! In: nothing. Out: [`Board`], which the planned cluster and a running daemon both are.
//! Never: decides.

use dataplane::addr::PortId;
use dataplane::tables::fib::NextHop;
use ipnet::IpNet;

use super::network::Network;
use super::report::Sight;
use super::sources;
use crate::compile::NodeMacs;
use crate::lab::placement::host_name;

/// A switch that can be spoken of.
pub trait Board {
    /// What a port is called.
    fn port_name(&self, port: PortId) -> String;
    /// The routes that it was given.
    fn routes(&self) -> &[(IpNet, NextHop)];
    /// Who wanted the route to that prefix.
    fn source(&self, prefix: IpNet) -> String;
    /// The node's hardware.
    fn macs(&self) -> NodeMacs;
    /// The name of the host port.
    fn host_device(&self) -> &str;
    /// Where `tcpdump` would show what goes out by a port, in the order of the frame's way.
    fn sights_out(&self, port: PortId) -> Vec<Sight>;
}

/// A switch of the planned cluster.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The cluster.
    pub network: &'a Network,
    /// The index of the node.
    pub at: usize,
}

impl Board for At<'_> {
    fn port_name(&self, port: PortId) -> String {
        self.network.port_name(self.at, port)
    }

    fn routes(&self) -> &[(IpNet, NextHop)] {
        &self.network.nodes[self.at].spec.routes
    }

    fn source(&self, prefix: IpNet) -> String {
        sources::source(self.network, self.at, prefix)
    }

    fn macs(&self) -> NodeMacs {
        self.network.nodes[self.at].macs
    }

    fn host_device(&self) -> &str {
        host_name(&self.network.plan)
    }

    fn sights_out(&self, port: PortId) -> Vec<Sight> {
        self.network.sights_out(self.at, port)
    }
}
