//! The pods of a dead daemon, by their devices: for a rescue whose file of them makes no sense.
//!
//! In: the node's devices, and where namespaces may be found. Out: each pod as far as its devices and
//! their aliases tell, and what people called it.
//! Never: changes anything, or takes a device for ours that does not bear our alias.
//!
//! What only the file knew is lost: hairpin and isolation, and which container it was.

use std::net::IpAddr;
use std::path::PathBuf;

use dataplane::addr::Mac;

use super::observe::Rooms;
use super::steps::PodShape;
use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;
use crate::devices::netlink::Netlink;
use crate::devices::netlink::link::Link;

/// A pod whose devices are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// What the steps need of it. Its hardware address is zero if nobody could look into it.
    pub pod: PodShape,
    /// What people called it.
    pub called: String,
    /// Its addresses, as they were when it was added.
    pub addresses: Vec<IpAddr>,
}

/// Every veth whose alias begins with `mine`, with the TAP that bears the same. Pods are looked into
/// by the namespaces at `paths`.
///
/// # Errors
/// What the kernel says.
pub fn remains(net: &Netlink, mine: &str, paths: &[PathBuf]) -> Result<Vec<Remains>, DeviceError> {
    let links = net.links()?;
    let mut rooms = Rooms::new(net, paths);
    let veths = links
        .iter()
        .filter(|link| link.kind.as_deref() == Some("veth"));
    let found = veths.filter_map(|veth| {
        let alias = veth.alias.as_deref()?;
        let told = alias.strip_prefix(mine)?;
        let tap = links
            .iter()
            .find(|link| link.tap.is_some() && link.alias.as_deref() == Some(alias))?;
        one(veth, tap, told, &mut rooms)
    });
    Ok(found.collect())
}

fn one(veth: &Link, tap: &Link, told: &str, rooms: &mut Rooms<'_>) -> Option<Remains> {
    let mut words = told.split(' ');
    let called = words.next()?.to_owned();
    let inside = inside(veth, rooms);
    let (netns, link) = inside.unzip();
    let name = link.as_ref().map_or("eth0", |link| link.name.as_str());
    Some(Remains {
        pod: PodShape {
            host_end: DeviceName::new(&veth.name).ok()?,
            tap: DeviceName::new(&tap.name).ok()?,
            alias: veth.alias.clone().unwrap_or_default(),
            netns: netns.unwrap_or_default(),
            inside: DeviceName::new(name).ok()?,
            mac: link.and_then(|link| link.mac).unwrap_or(Mac::ZERO),
            addresses: Vec::new(),
            mtu: veth.mtu,
            ipv6: false,
            neighbour: false,
            hairpin: false,
            isolated: false,
        },
        called,
        addresses: words.filter_map(|word| word.parse().ok()).collect(),
    })
}

/// The pod's end, and where its namespace is.
fn inside(veth: &Link, rooms: &mut Rooms<'_>) -> Option<(PathBuf, Link)> {
    let (path, room) = rooms.find(veth.peer_namespace?)?;
    let index = veth.peer?;
    let links = room.links().ok()?;
    let link = links.into_iter().find(|link| link.index == index)?;
    Some((path.to_owned(), link))
}
