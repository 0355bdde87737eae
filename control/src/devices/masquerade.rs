//! Masquerade by the node's kernel, for pods whose network asks for it (`ipMasq`).
//!
//! In: addresses of pods, and prefixes to which they go as themselves.
//! Out: the table `tapline` of nf_tables, one for each family, made whole in one transaction.
//! Never: runs `nft` or `iptables`, or touches a table of another owner. A kernel in which the
//! table is there already ends with the same one.
//!
//! What is here translates only what the node's own stack forwards: what the switch carries from
//! pod to pod, or to another node, never comes by.
//!
//! ```text
//! table ip tapline { chain postrouting { type nat hook postrouting priority srcnat;
//!     ip saddr 10.244.0.5 ip daddr != 10.244.0.0/24 ip daddr != 224.0.0.0/4 masquerade } }
//! ```
//!
//! The messages are written by hand, after `linux/netfilter/nf_tables.h`: the packages that know
//! them run a program or link a C library.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::error::DeviceError;
use super::netns::Netns;

const TABLE: &[u8] = b"tapline\0";
const CHAIN: &[u8] = b"postrouting\0";
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// Bytes of `struct nlmsghdr`.
const HEADER_LENGTH: usize = 16;

/// Message numbers of `linux/netfilter/nfnetlink.h` and `nf_tables.h`.
mod message {
    use super::SUBSYSTEM;

    pub(super) const BATCH_BEGIN: u16 = 0x10;
    pub(super) const BATCH_END: u16 = 0x11;
    pub(super) const NEW_TABLE: u16 = SUBSYSTEM << 8;
    pub(super) const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
    pub(super) const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
    pub(super) const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
}

/// `NF_INET_POST_ROUTING`, `NF_IP_PRI_NAT_SRC`, `NF_ACCEPT`.
const POSTROUTING: u32 = 4;
const PRIORITY_SOURCE_NAT: u32 = 100;
const ACCEPT: u32 = 1;
/// `NFT_REG_1`, `NFT_PAYLOAD_NETWORK_HEADER`, `NFT_CMP_EQ`, `NFT_CMP_NEQ`.
const REGISTER: u32 = 1;
const NETWORK_HEADER: u32 = 1;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

/// What differs between IPv4 and IPv6.
struct Family {
    v4: bool,
    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
    number: u8,
    /// Where the addresses are in the header.
    source: u32,
    target: u32,
    multicast: IpNet,
}

const FAMILIES: [Family; 2] = [
    Family {
        v4: true,
        number: 2,
        source: 12,
        target: 16,
        multicast: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4)),
    },
    Family {
        v4: false,
        number: 10,
        source: 8,
        target: 24,
        multicast: IpNet::V6(Ipv6Net::new_assert(
            Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0),
            8,
        )),
    },
];

/// Makes it so that of what the node forwards, packets from `sources` bear the node's address,
/// unless they go to one of `spared` or to a group. Without sources the tables are taken away.
///
/// # Errors
/// What the kernel says: `EPERM`, or `EOPNOTSUPP` without nf_tables. Nothing has changed then.
pub fn set(namespace: &Netns, sources: &[IpAddr], spared: &[IpNet]) -> Result<(), DeviceError> {
    let mut batch = Batch::default();
    batch.push(message::BATCH_BEGIN, 0, 0, |_| {});
    for family in &FAMILIES {
        let ours = |address: &&IpAddr| address.is_ipv4() == family.v4;
        let name = |message: &mut Vec<u8>| attribute(message, 1, TABLE);
        // A table that is not there cannot be deleted, one that is there is kept by its making.
        batch.push(message::NEW_TABLE, family.number, NLM_F_CREATE, name);
        batch.push(message::DELETE_TABLE, family.number, 0, name);
        if sources.iter().any(|address| ours(&address)) {
            batch.push(message::NEW_TABLE, family.number, NLM_F_CREATE, name);
            batch.push(message::NEW_CHAIN, family.number, NLM_F_CREATE, chain);
        }
        for source in sources.iter().filter(ours) {
            let flags = NLM_F_CREATE | NLM_F_APPEND;
            batch.push(message::NEW_RULE, family.number, flags, |message| {
                rule(message, family, *source, spared);
            });
        }
    }
    batch.push(message::BATCH_END, 0, 0, |_| {});
    let done = namespace.run(|| batch.commit());
    done.map_err(|source| DeviceError::Inside {
        attempt: "set the masquerade of pods".into(),
        namespace: namespace.name().into(),
        source,
    })
}

/// Messages that take effect together or not at all.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    /// How many answers come.
    asked: usize,
}

impl Batch {
    fn push(&mut self, kind: u16, family: u8, flags: u16, body: impl Fn(&mut Vec<u8>)) {
        let delimiter = kind < SUBSYSTEM << 8;
        let start = self.bytes.len();
        self.sequence += 1;
        let mut flags = flags | NLM_F_REQUEST;
        if !delimiter {
            flags |= NLM_F_ACK;
            self.asked += 1;
        }
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        // `struct nfgenmsg`: family, version 0, and for a delimiter whose batch it is.
        let resource = if delimiter { SUBSYSTEM } else { 0 };
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        body(&mut self.bytes);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Sends it all in one datagram, and reads an answer to each message.
    fn commit(&self) -> io::Result<()> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.send(&self.bytes, 0)?;
        let mut answered = 0;
        while answered < self.asked {
            let (datagram, _) = socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while let (Some(length), Some(code)) = (number(rest, 0), number(rest, HEADER_LENGTH)) {
                match code as i32 {
                    0 => answered += 1,
                    error => return Err(io::Error::from_raw_os_error(-error)),
                }
                let next = (length as usize).next_multiple_of(4).max(HEADER_LENGTH);
                rest = rest.get(next..).unwrap_or_default();
            }
        }
        Ok(())
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = (4 + value.len()) as u16;
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn nest(message: &mut Vec<u8>, kind: u16, inside: impl FnOnce(&mut Vec<u8>)) {
    let mut value = Vec::new();
    inside(&mut value);
    attribute(message, kind | NESTED, &value);
}

fn word(message: &mut Vec<u8>, kind: u16, value: u32) {
    attribute(message, kind, &value.to_be_bytes());
}

/// `NFTA_CHAIN_*`: table 1, name 3, hook 4, policy 5, type 7.
fn chain(message: &mut Vec<u8>) {
    attribute(message, 1, TABLE);
    attribute(message, 3, CHAIN);
    nest(message, 4, |hook| {
        word(hook, 1, POSTROUTING);
        word(hook, 2, PRIORITY_SOURCE_NAT);
    });
    word(message, 5, ACCEPT);
    attribute(message, 7, b"nat\0");
}

/// `NFTA_RULE_*`: table 1, chain 2, expressions 4.
fn rule(message: &mut Vec<u8>, family: &Family, source: IpAddr, spared: &[IpNet]) {
    attribute(message, 1, TABLE);
    attribute(message, 2, CHAIN);
    nest(message, 4, |list| {
        compare(list, family.source, EQUAL, source.into());
        let spared = spared
            .iter()
            .filter(|net| net.addr().is_ipv4() == family.v4);
        for net in spared.chain([&family.multicast]) {
            compare(list, family.target, NOT_EQUAL, *net);
        }
        expression(list, "masq\0", |_| {});
    });
}

/// Goes on with the rule if the address at `offset` of the header is, or is not, in `net`.
fn compare(list: &mut Vec<u8>, offset: u32, operator: u32, net: IpNet) {
    let (mask, value) = (octets(net.netmask()), octets(net.network()));
    let length = mask.len() as u32;
    expression(list, "payload\0", |data| {
        word(data, 1, REGISTER);
        word(data, 2, NETWORK_HEADER);
        word(data, 3, offset);
        word(data, 4, length);
    });
    expression(list, "bitwise\0", |data| {
        word(data, 1, REGISTER);
        word(data, 2, REGISTER);
        word(data, 3, length);
        nest(data, 4, |of| attribute(of, 1, &mask));
        nest(data, 5, |of| attribute(of, 1, &vec![0; mask.len()]));
    });
    expression(list, "cmp\0", |data| {
        word(data, 1, REGISTER);
        word(data, 2, operator);
        nest(data, 3, |of| attribute(of, 1, &value));
    });
}

/// `NFTA_LIST_ELEM` 1 around `NFTA_EXPR_NAME` 1 and `NFTA_EXPR_DATA` 2.
fn expression(list: &mut Vec<u8>, name: &str, data: impl FnOnce(&mut Vec<u8>)) {
    nest(list, 1, |element| {
        attribute(element, 1, name.as_bytes());
        nest(element, 2, data);
    });
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
