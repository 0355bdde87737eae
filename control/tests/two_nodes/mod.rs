//! Two nodes on a fabric, for the tests that need real devices.
//!
//! In: the right to make namespaces. Out: two namespaces with `eth0`, addresses and routes.
//! Never: touches the machine's own namespace, or leaves anything: what is made here lives in
//! descriptors, and dies with the test.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use control::devices::netns::Netns;
use control::lab::fabric::{
    DEVICE, Fabric, FabricDrop, NextHop, NicId, NicSpec, SubnetSpec, UserRoute, VnetSpec,
};
use dataplane::addr::Mac;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::net::if_::if_nametoindex;

/// node-0's primary address.
pub(crate) const NODE_0: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 4);
/// A second ipConfiguration of node-0.
pub(crate) const POD_A: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 31);
/// node-1's primary address.
pub(crate) const NODE_1: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 35);
/// Of node-1's pod CIDR, 10.244.0.0/24, and set on node-1's `eth0`.
pub(crate) const POD_C: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 7);
/// The subnet's gateway.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
/// node-0's MAC.
pub(crate) const MAC_0: Mac = Mac::new([0x00, 0x0d, 0x3a, 0x21, 0xaf, 0x12]);
/// node-1's MAC.
pub(crate) const MAC_1: Mac = Mac::new([0x00, 0x0d, 0x3a, 0x21, 0xaf, 0x13]);

/// Two nodes and their fabric.
pub(crate) struct TwoNodes {
    pub(crate) fabric: Fabric,
    pub(crate) node_0: Netns,
    pub(crate) node_1: Netns,
    pub(crate) nic_0: NicId,
    pub(crate) nic_1: NicId,
}

/// A namespace, or an end of the test that says what is missing.
pub(crate) fn namespace(name: &str) -> Netns {
    Netns::create(name).unwrap_or_else(|error| {
        panic!(
            "this test makes network namespaces, which was refused ({error}): run it as root, or \
             under `unshare --map-root-user --net`"
        )
    })
}

/// The route table of the agents' subnet: node-1's pod CIDR to node-1.
pub(crate) fn route_table() -> Vec<UserRoute> {
    vec![UserRoute {
        name: "node-1".into(),
        prefix: "10.244.0.0/24".parse().expect("well-formed"),
        next_hop: NextHop::VirtualAppliance(NODE_1.into()),
    }]
}

/// A fabric like the seed's VNet, without NICs.
pub(crate) fn fabric() -> Fabric {
    let net = |text: &str| text.parse().expect("well-formed");
    let spec = VnetSpec {
        prefixes: vec![net("10.10.0.0/24"), net("10.20.0.0/24")],
        subnets: vec![SubnetSpec {
            name: "agents".into(),
            prefixes: vec![net("10.20.0.0/24")],
            route_table: Some(route_table()),
        }],
    };
    Fabric::start(spec).expect("a fabric without NICs needs nothing special")
}

/// A NIC in the agents' subnet.
pub(crate) fn nic(name: &str, mac: Mac, addresses: &[Ipv4Addr], forwarding: bool) -> NicSpec {
    NicSpec {
        name: name.into(),
        mac,
        addresses: addresses
            .iter()
            .map(|address| IpAddr::V4(*address))
            .collect(),
        subnet: "agents".into(),
        forwarding,
        mtu: 1500,
    }
}

/// Both nodes, with addresses, and node-0 with a default route to the gateway.
pub(crate) fn two_nodes() -> TwoNodes {
    let (node_0, node_1) = (namespace("node-0"), namespace("node-1"));
    let fabric = fabric();
    let nic_0 = nic("node-0", MAC_0, &[NODE_0, POD_A], false);
    let nic_0 = fabric.add_nic(&node_0, nic_0).expect("a TAP in node-0");
    let nic_1 = fabric.add_nic(&node_1, nic("node-1", MAC_1, &[NODE_1], true));
    let nic_1 = nic_1.expect("a TAP in node-1");
    node_0
        .run(|| add_address(NODE_0, 24))
        .expect("an address on node-0");
    node_0
        .run(|| add_default_route(GATEWAY))
        .expect("a default route on node-0");
    node_1
        .run(|| add_address(NODE_1, 24))
        .expect("an address on node-1");
    node_1
        .run(|| add_address(POD_C, 32))
        .expect("a pod's address on node-1");
    TwoNodes {
        fabric,
        node_0,
        node_1,
        nic_0,
        nic_1,
    }
}

impl TwoNodes {
    /// Frames that the fabric dropped for `reason`.
    pub(crate) fn dropped(&self, reason: FabricDrop) -> u64 {
        let drops = self.fabric.drops();
        drops
            .iter()
            .find(|drops| drops.reason == reason)
            .map_or(0, |drops| drops.frames)
    }
}

/// Repeats `test` until it holds, for two seconds at most.
pub(crate) fn eventually(mut test: impl FnMut() -> bool) -> bool {
    (0..200).any(|_| {
        let holds = test();
        if !holds {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        holds
    })
}

/// Gives `eth0` of the calling thread's namespace an address, which works at once: IPv6 is told
/// not to look for duplicates.
pub(crate) fn add_address(address: impl Into<IpAddr>, prefix_len: u8) -> io::Result<()> {
    let address = address.into();
    let mut message = AddressMessage::default();
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.flags = AddressHeaderFlags::Nodad;
    message.header.prefix_len = prefix_len;
    message.header.index = if_nametoindex(DEVICE)?;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    request(
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// Gives the calling thread's namespace a default route.
pub(crate) fn add_default_route(gateway: Ipv4Addr) -> io::Result<()> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = 254;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message
        .attributes
        .push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
    message
        .attributes
        .push(RouteAttribute::Oif(if_nametoindex(DEVICE)?));
    request(
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// Takes `eth0` of the calling thread's namespace down.
pub(crate) fn take_down() -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = if_nametoindex(DEVICE)?;
    message.header.change_mask = LinkFlags::Up;
    request(RouteNetlinkMessage::SetLink(message), 0)
}

fn request(request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (reply, _) = socket.recv_from_full()?;
    let reply = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&reply);
    match reply.map_err(io::Error::other)?.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}
