//! A node's `eth0`: a TAP inside the node's namespace, whose other end is the fabric.
//!
//! In: the namespace, the runtime that will poll the TAP, and the NIC's name, MAC and MTU.
//! Out: an open [`Tun`], its device up, with the MAC that Azure gave it and no address yet.
//! Never: touches another namespace than the one it is given.
//!
//! tokio-tun makes the device, but it can set no MAC and knows nothing of IPv6, and whatever comes
//! up with IPv6 on begins to chatter at once. So the device is made down; then IPv6 goes off, or
//! where the NIC has an IPv6 address keeps still about routers and duplicates, the MAC is set, and
//! it comes up, the last two in one message. The TAP has no virtio-net header: the
//! kernel segments and checksums before the fabric sees a frame, as a NIC would on a wire.

use std::io;
use std::path::PathBuf;

use dataplane::addr::Mac;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use tokio::runtime::Handle;
use tokio_tun::{Tun, TunBuilder};

use super::spec::NicSpec;
use crate::devices::netns::Netns;

/// The name that every node's NIC has.
pub const DEVICE: &str = "eth0";

/// Makes the device and opens it.
pub(super) fn open(ns: &Netns, handle: &Handle, spec: &NicSpec) -> io::Result<Tun> {
    let made = ns.run(|| {
        // The TAP registers with the runtime's reactor while it is built.
        let _entered = handle.enter();
        let tun = build(spec)?;
        let index = tun.index().map_err(plain)?;
        if spec.addresses.iter().all(|address| address.is_ipv4()) {
            set_ipv6("disable_ipv6", "1");
        } else {
            // The lab sets the routes itself, and a fabric that holds no address twice has no
            // duplicates: looking for them would keep the link-local address, in whose name the
            // kernel asks for neighbours, unusable for the first seconds.
            set_ipv6("accept_ra", "0");
            set_ipv6("accept_dad", "0");
        }
        bring_up(index, spec.mac)?;
        Ok(tun)
    });
    made.map_err(|error| {
        let what = format!(
            "{DEVICE} of {} in namespace {}: {error}",
            spec.name,
            ns.name()
        );
        io::Error::new(error.kind(), what)
    })
}

fn build(spec: &NicSpec) -> io::Result<Tun> {
    let built = TunBuilder::new()
        .name(DEVICE)
        .tap()
        .mtu(spec.mtu.into())
        .build()
        .map_err(plain)?;
    built
        .into_iter()
        .next()
        .ok_or_else(|| io::Error::other("the TAP came without a queue"))
}

fn plain(error: tokio_tun::Error) -> io::Error {
    match error {
        tokio_tun::Error::NixError(errno) => errno.into(),
        tokio_tun::Error::IoError(error) => error,
    }
}

/// Not a failure where `/proc/sys` is read-only or the kernel has no IPv6: the fabric counts the
/// chatter under a reason of its own, and nothing else suffers.
fn set_ipv6(setting: &str, value: &str) {
    let switch: PathBuf = ["/proc/sys/net/ipv6/conf", DEVICE, setting]
        .iter()
        .collect();
    let _chatters = std::fs::write(switch, value);
}

fn bring_up(index: u32, mac: Mac) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes
        .push(LinkAttribute::Address(mac.octets().to_vec()));
    acknowledged(RouteNetlinkMessage::SetLink(link))
}

/// Sends one request to the kernel and waits for its acknowledgement.
fn acknowledged(request: RouteNetlinkMessage) -> io::Result<()> {
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
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
        NetlinkPayload::Error(_) => Ok(()),
        other => Err(io::Error::other(format!(
            "no acknowledgement, but {other:?}"
        ))),
    }
}
