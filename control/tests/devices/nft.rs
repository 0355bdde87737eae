//! Rules of the kernel's packet filter, as kube-proxy and policy agents would have them.
//!
//! In: chains and rules in Rust. Out: an nftables table `ip` in a namespace, by one batch.
//! Never: runs `nft` or `iptables`, which need not be installed.

use std::net::IpAddr;

use control::devices::netns::Netns;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// `NFNL_SUBSYS_NFTABLES`, and numbers of `linux/netfilter/nf_tables.h`.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NESTED: u16 = 0x8000;
/// `NFPROTO_IPV4`.
const IPV4: u8 = 2;
/// `NFPROTO_IPV6`.
const IPV6: u8 = 10;
/// `NFPROTO_BRIDGE`.
const BRIDGE: u8 = 7;
/// `NFPROTO_NETDEV`, and its hook `NF_NETDEV_INGRESS`.
const NETDEV: u8 = 5;
pub(crate) const INGRESS: u32 = 0;
/// `NF_INET_FORWARD` and others.
pub(crate) const PREROUTING: u32 = 0;
pub(crate) const FORWARD: u32 = 2;
pub(crate) const OUTPUT: u32 = 3;
pub(crate) const POSTROUTING: u32 = 4;

/// A chain: name, type, hook and priority; without a hook nobody calls it.
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) hook: Option<(&'static str, u32, i32)>,
    pub(crate) rules: Vec<Vec<Expression>>,
}

/// One step of a rule.
pub(crate) type Expression = Vec<u8>;

/// Makes the table, or makes it anew.
pub(crate) fn load(namespace: &Netns, table: &str, chains: &[Chain]) {
    load_for(IPV4, namespace, table, None, chains);
}

/// The same for IPv6.
pub(crate) fn load_v6(namespace: &Netns, table: &str, chains: &[Chain]) {
    load_for(IPV6, namespace, table, None, chains);
}

/// The same for frames that a Linux bridge moves, as `ebtables` has it.
pub(crate) fn load_for_bridge(namespace: &Netns, table: &str, chains: &[Chain]) {
    load_for(BRIDGE, namespace, table, None, chains);
}

/// The same for frames that come in by a device, before anything else of the stack.
pub(crate) fn load_for_device(namespace: &Netns, table: &str, device: &str, chains: &[Chain]) {
    load_for(NETDEV, namespace, table, Some(device), chains);
}

fn load_for(family: u8, namespace: &Netns, table: &str, device: Option<&str>, chains: &[Chain]) {
    let named = attribute(1, &text(table));
    let mut messages = vec![
        message(NEW_TABLE, 0x400, family, &named),
        message(DELETE_TABLE, 0, family, &named),
        message(NEW_TABLE, 0x400, family, &named),
    ];
    for chain in chains {
        let mut body = [attribute(1, &text(table)), attribute(3, &text(chain.name))].concat();
        if let Some((kind, hook, priority)) = chain.hook {
            let mut hook = vec![
                attribute(1, &hook.to_be_bytes()),
                attribute(2, &priority.to_be_bytes()),
            ];
            hook.extend(device.map(|device| attribute(3, &text(device))));
            body.extend(attribute(4 | NESTED, &hook.concat()));
            body.extend(attribute(7, &text(kind)));
        }
        messages.push(message(NEW_CHAIN, 0x400, family, &body));
        let rules = chain.rules.iter();
        messages.extend(rules.map(|rule| new_rule(family, table, chain.name, rule)));
    }
    send(namespace, &messages);
}

fn new_rule(family: u8, table: &str, chain: &str, rule: &[Expression]) -> Vec<u8> {
    let mut body = [attribute(1, &text(table)), attribute(2, &text(chain))].concat();
    body.extend(attribute(4 | NESTED, &rule.concat()));
    message(NEW_RULE, 0x400 | 0x800, family, &body)
}

/// Adds a rule to a chain of a device's table, behind those that are there.
pub(crate) fn add_for_device(namespace: &Netns, table: &str, chain: &str, rule: &[Expression]) {
    send(namespace, &[new_rule(NETDEV, table, chain, rule)]);
}

/// Takes all rules from a chain of a device's table.
pub(crate) fn empty_for_device(namespace: &Netns, table: &str, chain: &str) {
    let body = [attribute(1, &text(table)), attribute(2, &text(chain))].concat();
    send(namespace, &[message(DELETE_RULE, 0, NETDEV, &body)]);
}

/// Puts a device's table to sleep: it stays, and does nothing.
pub(crate) fn put_to_sleep(namespace: &Netns, table: &str) {
    let body = [attribute(1, &text(table)), number(2, 1)].concat();
    send(namespace, &[message(NEW_TABLE, 0, NETDEV, &body)]);
}

/// The frame leaves by the device with that index, and goes no further here.
pub(crate) fn leave_by(device: u32) -> Vec<Expression> {
    vec![
        immediate(1, &attribute(1, &device.to_ne_bytes())),
        expression("fwd", &[number(1, 1)]),
    ]
}

/// Takes the table away.
pub(crate) fn unload(namespace: &Netns, table: &str) {
    send(
        namespace,
        &[message(DELETE_TABLE, 0, IPV4, &attribute(1, &text(table)))],
    );
}

fn send(namespace: &Netns, messages: &[Vec<u8>]) {
    let socket = namespace.run(|| {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(socket)
    });
    let socket = socket.expect("the kernel has netfilter");
    let edge = |kind| {
        let mut edge = header(kind, 1, 0);
        edge.extend([0, 0]);
        edge.extend(SUBSYSTEM.to_be_bytes());
        finish(edge)
    };
    let batch = [
        vec![edge(BATCH_BEGIN)],
        messages.to_vec(),
        vec![edge(BATCH_END)],
    ]
    .concat();
    // One acknowledgement for each message asks for one; an error comes in its place.
    socket.send(&batch.concat(), 0).expect("sent");
    let mut answered = 0;
    while answered < messages.len() {
        let (datagram, _) = socket.recv_from_full().expect("an answer");
        let mut rest = datagram.as_slice();
        while rest.len() >= 20 {
            let length = u32::from_ne_bytes(*rest.first_chunk().expect("long enough")) as usize;
            let code = i32::from_ne_bytes(*rest[16..].first_chunk().expect("long enough"));
            assert_eq!(
                code,
                0,
                "message {answered} of the batch: {}",
                std::io::Error::from_raw_os_error(-code)
            );
            answered += 1;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn message(kind: u16, flags: u16, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(SUBSYSTEM << 8 | kind, 1 | 4 | flags, 1);
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(body);
    finish(bytes)
}

fn header(kind: u16, flags: u16, sequence: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | 1).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes
}

fn finish(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = bytes.len() as u32;
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn expression(name: &str, data: &[Vec<u8>]) -> Expression {
    let inside = [
        attribute(1, &text(name)),
        attribute(2 | NESTED, &data.concat()),
    ]
    .concat();
    attribute(1 | NESTED, &inside)
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn compare(value: &[u8]) -> Expression {
    let data = attribute(3 | NESTED, &attribute(1, value));
    expression("cmp", &[number(1, 1), number(2, 0), data])
}

/// Where in a packet a match looks: base (1 network, 2 transport), offset and length.
fn payload(base: u32, offset: u32, value: &[u8]) -> Vec<Expression> {
    let read = [
        number(1, 1),
        number(2, base),
        number(3, offset),
        number(4, value.len() as u32),
    ];
    vec![expression("payload", &read), compare(value)]
}

/// Whether a name is that of the device by which a frame came, or will leave.
fn device(key: u32, name: &str) -> Vec<Expression> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(16, 0);
    let read = expression("meta", &[number(1, 1), number(2, key)]);
    vec![read, compare(&padded)]
}

/// The frame came in by this device.
pub(crate) fn came_by(name: &str) -> Vec<Expression> {
    device(6, name)
}

/// The frame leaves by this device.
pub(crate) fn leaves_by(name: &str) -> Vec<Expression> {
    device(7, name)
}

/// The frame is of this EtherType.
pub(crate) fn ethertype(kind: u16) -> Vec<Expression> {
    payload(0, 12, &kind.to_be_bytes())
}

/// The frame is an ARP reply.
pub(crate) fn arp_reply() -> Vec<Expression> {
    [ethertype(0x0806), payload(1, 6, &[0, 2])].concat()
}

fn write(base: u32, offset: u32, value: &[u8]) -> Vec<Expression> {
    let place = [
        number(2, base),
        number(3, offset),
        number(4, value.len() as u32),
        number(5, 1),
    ];
    vec![
        immediate(1, &attribute(1, value)),
        expression("payload", &place),
    ]
}

/// The frame's target becomes this one.
pub(crate) fn set_target(mac: [u8; 6]) -> Vec<Expression> {
    write(0, 0, &mac)
}

/// The frame's source becomes this one.
pub(crate) fn set_source(mac: [u8; 6]) -> Vec<Expression> {
    write(0, 6, &mac)
}

/// Whom an ARP frame calls its sender becomes this one.
pub(crate) fn set_arp_sender(mac: [u8; 6]) -> Vec<Expression> {
    write(1, 8, &mac)
}

/// An address is this one; where it stands in IPv4, and where in IPv6.
fn address(address: IpAddr, in_v4: u32, in_v6: u32) -> Vec<Expression> {
    match address {
        IpAddr::V4(address) => payload(1, in_v4, &address.octets()),
        IpAddr::V6(address) => payload(1, in_v6, &address.octets()),
    }
}

/// The source address is this one.
pub(crate) fn from(source: impl Into<IpAddr>) -> Vec<Expression> {
    address(source.into(), 12, 8)
}

/// The target address is this one.
pub(crate) fn to(target: impl Into<IpAddr>) -> Vec<Expression> {
    address(target.into(), 16, 24)
}

/// The protocol is this one (`NFT_META_L4PROTO`).
pub(crate) fn protocol(number_of_it: u8) -> Vec<Expression> {
    let read = expression("meta", &[number(1, 1), number(2, 16)]);
    vec![read, compare(&[number_of_it])]
}

/// The target port is this one.
pub(crate) fn to_port(port: u16) -> Vec<Expression> {
    payload(2, 2, &port.to_be_bytes())
}

fn immediate(register: u32, data: &[u8]) -> Expression {
    expression(
        "immediate",
        &[number(1, register), attribute(2 | NESTED, data)],
    )
}

/// Translates the target.
pub(crate) fn translate_to(target: impl Into<IpAddr>, port: u16) -> Vec<Expression> {
    match target.into() {
        IpAddr::V4(address) => translate(IPV4, &address.octets(), port),
        IpAddr::V6(address) => translate(IPV6, &address.octets(), port),
    }
}

fn translate(family: u8, address: &[u8], port: u16) -> Vec<Expression> {
    let value = |bytes: &[u8]| attribute(1, bytes);
    vec![
        immediate(1, &value(address)),
        immediate(2, &value(&port.to_be_bytes())),
        // DNAT, the address in register 1 and the port in register 2.
        expression(
            "nat",
            &[
                number(1, 1),
                number(2, family.into()),
                number(3, 1),
                number(5, 2),
            ],
        ),
    ]
}

/// Translates the source to the address of the device that it leaves by.
pub(crate) fn masquerade() -> Vec<Expression> {
    vec![expression("masq", &[])]
}

/// `NF_DROP`.
pub(crate) fn drop_it() -> Vec<Expression> {
    let verdict = attribute(2 | NESTED, &number(1, 0));
    vec![immediate(0, &verdict)]
}
