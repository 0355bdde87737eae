//! Whose chains the kernel's packet filter holds: is a policy agent at work here?
//!
//! In: a namespace. Out: [`Agents`]: the chains of agents that we know, and what could not be read.
//! Never: changes a rule, runs a program, or takes what it could not read for nothing.
//!
//! nftables is asked over netlink, which serves `iptables-nft` as well; the older tables of `ip_tables`
//! and `ip6_tables`, where `ip_tables_names` below `/proc/thread-self/net` says that they are, by their socket option.

use std::io;

use dataplane::port::sys::xtables::Family;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::legacy;
use crate::devices::netlink::attributes;
use crate::devices::netns::Netns;

/// Beginnings of chain names, and whose they are: azure-npm (`AZURE-NPM`, iptables), Calico's Felix
/// (`cali-`).
const AGENTS: [(&str, &str); 2] = [("AZURE-NPM", "azure-npm"), ("cali-", "calico")];

/// `NFNL_SUBSYS_NFTABLES`, `NFT_MSG_GETCHAIN` and attributes of `linux/netfilter/nf_tables.h`.
const SUBSYSTEM: u16 = 10 << 8;
const GET_CHAIN: u16 = 4;
const NEW_CHAIN: u16 = 3;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
/// Bytes of `struct nlmsghdr`, and of `struct nfgenmsg` behind it.
const HEADER: usize = 16;
const GENERAL: usize = 4;
/// `NLM_F_REQUEST | NLM_F_DUMP`, `NLMSG_ERROR`, `NLMSG_DONE`.
const REQUEST_DUMP: u16 = 0x301;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Datagrams of one answer: a node with thousands of services has some ten thousand chains of 60
/// bytes each, 500 to a datagram.
const DATAGRAMS_MAX: usize = 10_000;

/// A chain of an agent's.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct AgentChain {
    /// Whose it is.
    pub agent: &'static str,
    /// The table that holds it.
    pub table: String,
    /// Its name.
    pub chain: String,
}

/// What the kernel's packet filter holds of policy agents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agents {
    /// Chains of agents that we know.
    pub found: Vec<AgentChain>,
    /// What could not be read, and why: an agent may be in there.
    pub unsure: Vec<String>,
}

/// Looks at the packet filter of `namespace`.
#[must_use]
pub fn look(namespace: &Netns) -> Agents {
    let mut agents = Agents::default();
    match namespace.run(chains) {
        Ok(chains) => agents.found = chains.into_iter().filter_map(known).collect(),
        // A kernel without nftables has no such subsystem.
        Err(error) if is_absent(&error) => {}
        Err(error) => agents.unsure.push(format!("nftables: {error}")),
    }
    for (family, names) in [
        (Family::Ipv4, "ip_tables_names"),
        (Family::Ipv6, "ip6_tables_names"),
    ] {
        match namespace.run(|| std::fs::read_to_string(format!("/proc/thread-self/net/{names}"))) {
            Ok(tables) => {
                let tables = tables.lines();
                tables.for_each(|table| agents.look_at_legacy(namespace, family, table));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => agents.unsure.push(format!("{names}: {error}")),
        }
    }
    agents
}

impl Agents {
    /// A table that is gone meanwhile holds nothing.
    fn look_at_legacy(&mut self, namespace: &Netns, family: Family, table: &str) {
        match namespace.run(|| legacy::chains(family, table)) {
            Ok(chains) => {
                let named = chains.into_iter().map(|chain| (table.to_owned(), chain));
                self.found.extend(named.filter_map(known));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let what = format!("the table {table} of iptables-legacy ({family:?}): {error}");
                self.unsure.push(what);
            }
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    use nix::libc::{EINVAL, EOPNOTSUPP, EPROTONOSUPPORT};
    matches!(
        error.raw_os_error(),
        Some(EINVAL | EOPNOTSUPP | EPROTONOSUPPORT)
    )
}

fn known((table, chain): (String, String)) -> Option<AgentChain> {
    let (_, agent) = AGENTS
        .iter()
        .find(|(begins, _)| chain.starts_with(begins))?;
    Some(AgentChain {
        agent,
        table,
        chain,
    })
}

/// Every chain of the calling thread's namespace, with its table.
fn chains() -> io::Result<Vec<(String, String)>> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = Vec::with_capacity(HEADER + GENERAL);
    request.extend(((HEADER + GENERAL) as u32).to_ne_bytes());
    request.extend((SUBSYSTEM | GET_CHAIN).to_ne_bytes());
    request.extend(REQUEST_DUMP.to_ne_bytes());
    request.extend([1, 0, 0, 0, 0, 0, 0, 0]); // sequence 1, port 0
    request.extend([0; GENERAL]); // all families, version 0
    socket.send(&request, 0)?;
    let mut found = Vec::new();
    for _ in 0..DATAGRAMS_MAX {
        let (datagram, _) = socket.recv_from_full()?;
        if read(&datagram, &mut found)? {
            return Ok(found);
        }
    }
    Err(io::Error::other("the list of chains has no end"))
}

/// Reads one datagram of the answer; true at its end.
fn read(datagram: &[u8], found: &mut Vec<(String, String)>) -> io::Result<bool> {
    let mut rest = datagram;
    while let Some((&[a, b, c, d, t0, t1, ..], _)) = rest.split_first_chunk::<HEADER>() {
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let kind = u16::from_ne_bytes([t0, t1]);
        let Some(body) = rest.get(HEADER..length) else {
            return Err(io::Error::other("a message is longer than its datagram"));
        };
        match kind {
            DONE | ERROR => {
                let code = body
                    .first_chunk()
                    .map_or(0, |code| i32::from_ne_bytes(*code));
                return match code {
                    0 => Ok(true),
                    code => Err(io::Error::from_raw_os_error(code.saturating_abs())),
                };
            }
            kind if kind == SUBSYSTEM | NEW_CHAIN => {
                let chain = attributes(body.get(GENERAL..).unwrap_or_default());
                let text = |kind| chain.text(kind).unwrap_or_default();
                found.push((text(CHAIN_TABLE), text(CHAIN_NAME)));
            }
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attribute(kind: u16, text: &str) -> Vec<u8> {
        let mut bytes = (4 + text.len() as u16 + 1).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(text.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn chains_of_agents_are_known_by_how_their_names_begin() {
        let chain = |table: &str, name: &str| {
            let body = [
                vec![0; GENERAL],
                attribute(CHAIN_TABLE, table),
                attribute(CHAIN_NAME, name),
            ];
            message(SUBSYSTEM | NEW_CHAIN, &body.concat())
        };
        let names = [
            "KUBE-SERVICES",
            "AZURE-NPM",
            "AZURE-NPM-INGRESS",
            "cali-FORWARD",
            "calico",
        ];
        let mut datagram: Vec<u8> = names
            .iter()
            .flat_map(|name| chain("filter", name))
            .collect();
        let mut found = Vec::new();
        assert!(!read(&datagram, &mut found).expect("sound"));
        datagram = message(DONE, &0_i32.to_ne_bytes());
        assert!(read(&datagram, &mut found).expect("sound"));
        let agents: Vec<_> = found
            .into_iter()
            .filter_map(known)
            .map(|c| (c.agent, c.chain))
            .collect();
        let wanted = [
            ("azure-npm", names[1]),
            ("azure-npm", names[2]),
            ("calico", names[3]),
        ];
        assert_eq!(
            agents,
            wanted.map(|(agent, chain)| (agent, chain.to_owned()))
        );
        let refused = message(ERROR, &(-nix::libc::EPERM).to_ne_bytes());
        let error = read(&refused, &mut Vec::new()).expect_err("it was refused");
        assert_eq!(error.raw_os_error(), Some(nix::libc::EPERM));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, &mut Vec::new());
            let _ = read(&message(SUBSYSTEM | NEW_CHAIN, &bytes), &mut Vec::new());
        }
    }
}
