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
//! The attributes are written by hand, after `linux/netfilter/nf_tables.h`: the packages that know
//! them run a program or link a C library.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::error::DeviceError;
use super::netlink::netfilter::{self, attribute, changing, expression, nested, number, text};
use super::netns::Netns;

const TABLE: &str = "tapline";
const CHAIN: &str = "postrouting";

/// Requests of `linux/netfilter/nf_tables.h`.
mod request {
    pub(super) const NEW_TABLE: u16 = 0;
    pub(super) const DELETE_TABLE: u16 = 2;
    pub(super) const NEW_CHAIN: u16 = 3;
    pub(super) const NEW_RULE: u16 = 6;
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
    let mut changes = Vec::new();
    for family in &FAMILIES {
        let ours = |address: &&IpAddr| address.is_ipv4() == family.v4;
        let name = text(1, TABLE);
        let mut add = |request, flags, body: &[u8]| {
            changes.push(changing(request, flags, family.number, body));
        };
        // A table that is not there cannot be deleted, one that is there is kept by its making.
        add(request::NEW_TABLE, NLM_F_CREATE, &name);
        add(request::DELETE_TABLE, 0, &name);
        if sources.iter().any(|address| ours(&address)) {
            add(request::NEW_TABLE, NLM_F_CREATE, &name);
            add(request::NEW_CHAIN, NLM_F_CREATE, &chain());
        }
        for source in sources.iter().filter(ours) {
            let flags = NLM_F_CREATE | NLM_F_APPEND;
            add(request::NEW_RULE, flags, &rule(family, *source, spared));
        }
    }
    let done = namespace.run(|| netfilter::change(&changes));
    done.map_err(|source| DeviceError::Inside {
        attempt: "set the masquerade of pods".into(),
        namespace: namespace.name().into(),
        source,
    })
}

/// `NFTA_CHAIN_*`: table 1, name 3, hook 4, policy 5, type 7.
fn chain() -> Vec<u8> {
    let hook = [number(1, POSTROUTING), number(2, PRIORITY_SOURCE_NAT)];
    let attributes = [
        text(1, TABLE),
        text(3, CHAIN),
        nested(4, &hook),
        number(5, ACCEPT),
        text(7, "nat"),
    ];
    attributes.concat()
}

/// `NFTA_RULE_*`: table 1, chain 2, expressions 4.
fn rule(family: &Family, source: IpAddr, spared: &[IpNet]) -> Vec<u8> {
    let mut steps = compare(family.source, EQUAL, source.into());
    let spared = spared
        .iter()
        .filter(|net| net.addr().is_ipv4() == family.v4);
    for net in spared.chain([&family.multicast]) {
        steps.extend(compare(family.target, NOT_EQUAL, *net));
    }
    steps.push(expression("masq", &[]));
    [text(1, TABLE), text(2, CHAIN), nested(4, &steps)].concat()
}

/// Goes on with the rule if the address at `offset` of the header is, or is not, in `net`.
fn compare(offset: u32, operator: u32, net: IpNet) -> Vec<Vec<u8>> {
    let (mask, value) = (octets(net.netmask()), octets(net.network()));
    let length = mask.len() as u32;
    let nothing = vec![0; mask.len()];
    let data = |kind, bytes: &[u8]| nested(kind, &[attribute(1, bytes)]);
    let read = [
        number(1, REGISTER),
        number(2, NETWORK_HEADER),
        number(3, offset),
        number(4, length),
    ];
    let masked = [
        number(1, REGISTER),
        number(2, REGISTER),
        number(3, length),
        data(4, &mask),
        data(5, &nothing),
    ];
    let compared = [number(1, REGISTER), number(2, operator), data(3, &value)];
    vec![
        expression("payload", &read),
        expression("bitwise", &masked),
        expression("cmp", &compared),
    ]
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
