//! Persistent TAPs, made here and opened by the dataplane.
//!
//! In: a namespace and a [`TapSpec`].
//! Out: a device that is down, has no address and outlives the descriptor it was made with.
//! Never: reads or writes a frame, or keeps the descriptor: whoever forwards opens the device
//! again by name, with `IFF_VNET_HDR` and the same `IFF_MULTI_QUEUE`.

use std::io;
use std::num::NonZeroU16;

use tokio_tun::TunBuilder;

use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;
use crate::devices::netlink::Netlink;
use crate::devices::netlink::link::Link;

/// What a TAP is to be.
#[derive(Clone, Debug)]
pub struct TapSpec {
    /// Its name.
    pub name: DeviceName,
    /// How many queues it will be opened with. Above one it is a multi-queue TAP, which costs
    /// five times the kernel memory; one queue cannot be told to be multi-queue.
    pub queues: NonZeroU16,
    /// The user who may open it without privilege.
    pub owner: Option<u32>,
    /// Its MTU.
    pub mtu: u32,
    /// Frames in the ring that the switch reads from; beyond it the kernel drops.
    pub ring: u32,
}

impl TapSpec {
    /// Frames in a ring unless told otherwise: as many as the queue holds in which they would wait
    /// on a bridge (`netdev_max_backlog`). That is a burst of 250,000 small frames a second for
    /// 4 ms, the longest that an idle virtual machine was seen to stall; 64 lose such a burst. TCP
    /// is held back by its receive window, 6 MB or 96 super-frames a flow, long before.
    pub const RING_DEFAULT: u32 = 1000;

    /// A TAP with one queue, no owner and the default ring.
    #[must_use]
    pub fn new(name: DeviceName, mtu: u32) -> TapSpec {
        TapSpec {
            name,
            queues: NonZeroU16::MIN,
            owner: None,
            mtu,
            ring: TapSpec::RING_DEFAULT,
        }
    }
}

/// Sees to it that the TAP exists as specified; it stays as it is (up or down) if it does.
///
/// # Errors
/// [`DeviceError::Conflict`] if the name is taken by something else, or the TAP's queues differ:
/// whoever has it open would lose it. Otherwise what the system says: `EACCES` or `ENOENT` for
/// `/dev/net/tun`.
pub fn ensure(net: &Netlink, spec: &TapSpec) -> Result<(), DeviceError> {
    match net.find_link(&spec.name)? {
        Some(link) => check(net, spec, &link)?,
        None => create(net, spec)?,
    }
    let link = net.link(&spec.name)?;
    if link.mtu != spec.mtu {
        net.set_mtu(&spec.name, spec.mtu)?;
    }
    if link.tx_queue_length != spec.ring {
        net.set_tx_queue_length(&spec.name, spec.ring)?;
    }
    // A limit on what the pod sends stays until [`Limits`](super::attach::Limits) says otherwise:
    // frames wait in it.
    if !["noqueue", "tbf"].contains(&link.qdisc.as_str()) {
        net.set_no_queue(&spec.name)?;
    }
    Ok(())
}

/// Removes the TAP; one that is gone is no error.
///
/// # Errors
/// [`DeviceError::Conflict`] if the device is no TAP, otherwise what the kernel says.
pub fn remove(net: &Netlink, name: &DeviceName) -> Result<(), DeviceError> {
    match net.find_link(name)? {
        None => Ok(()),
        Some(link) if link.tap.is_some() => net.remove_link(name),
        Some(_) => Err(conflict(net, name, "is not a TAP")),
    }
}

/// Removes those that are TAPs, at once.
///
/// # Errors
/// What the kernel says; then some or all are still there.
pub(crate) fn remove_all<'a>(
    net: &Netlink,
    names: impl Iterator<Item = &'a DeviceName>,
) -> Result<(), DeviceError> {
    let links = net.links()?;
    let is_tap = |name: &&DeviceName| {
        let mut found = links.iter().filter(|link| link.name == name.as_str());
        found.any(|link| link.tap.is_some())
    };
    let there: Vec<DeviceName> = names.filter(is_tap).cloned().collect();
    net.remove_links(&there)
}

fn check(net: &Netlink, spec: &TapSpec, link: &Link) -> Result<(), DeviceError> {
    let Some(tap) = link.tap else {
        return Err(conflict(net, &spec.name, "is not a TAP"));
    };
    if tap.multi_queue != (spec.queues.get() > 1) {
        return Err(conflict(
            net,
            &spec.name,
            "has another kind of queues; remove it first",
        ));
    }
    if !tap.persistent {
        return Err(conflict(
            net,
            &spec.name,
            "belongs to the program that has it open",
        ));
    }
    if tap.owner != spec.owner {
        return Err(conflict(
            net,
            &spec.name,
            "belongs to another user; remove it first",
        ));
    }
    Ok(())
}

fn create(net: &Netlink, spec: &TapSpec) -> Result<(), DeviceError> {
    let name = &spec.name;
    let made = net.namespace().run(|| {
        // The builder registers the descriptor with a reactor, so one has to be entered, here on
        // the thread that is inside the namespace.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let _entered = runtime.enter();
        let mtu = i32::try_from(spec.mtu).map_err(io::Error::other)?;
        let mut builder = TunBuilder::new()
            .name(name.as_str())
            .tap()
            .mtu(mtu)
            .persist();
        builder = builder.queues(usize::from(spec.queues.get()));
        if let Some(owner) = spec.owner {
            builder = builder.owner(owner as i32);
        }
        builder.build().map(drop).map_err(into_io)
    });
    made.map_err(|source| DeviceError::Inside {
        attempt: format!("make the TAP {name}"),
        namespace: net.namespace().name().into(),
        source,
    })
}

fn into_io(error: tokio_tun::Error) -> io::Error {
    match error {
        tokio_tun::Error::IoError(error) => error,
        tokio_tun::Error::NixError(errno) => errno.into(),
    }
}

fn conflict(net: &Netlink, name: &DeviceName, why: &str) -> DeviceError {
    DeviceError::Conflict {
        device: name.clone(),
        namespace: net.namespace().name().into(),
        why: why.into(),
    }
}
