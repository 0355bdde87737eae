//! Whose chains the kernel's packet filter holds: is a policy agent at work here?
//!
//! In: a namespace. Out: [`Agents`]: the chains of agents that we know, and what could not be read.
//! Never: changes a rule, runs a program, or takes what it could not read for nothing.
//!
//! nftables is asked over netlink, which serves `iptables-nft` as well; the older tables of `ip_tables`
//! and `ip6_tables`, where `ip_tables_names` below `/proc/thread-self/net` says that they are, by their socket option.

use std::io;

use dataplane::port::sys::xtables::Family;

use super::legacy;
use crate::devices::netlink::netfilter::{self, Listed};
use crate::devices::netns::Netns;

/// Beginnings of chain names, and whose they are: azure-npm (`AZURE-NPM`, iptables), Calico's Felix
/// (`cali-`).
const AGENTS: [(&str, &str); 2] = [("AZURE-NPM", "azure-npm"), ("cali-", "calico")];

/// `NFT_MSG_GETCHAIN` and its answer, and attributes of `linux/netfilter/nf_tables.h`.
const GET_CHAIN: u16 = 4;
const NEW_CHAIN: u16 = 3;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
/// Of every family.
const ANY_FAMILY: u8 = 0;

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
        Err(error) if netfilter::is_absent(&error) => {}
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
    let listed = netfilter::list(GET_CHAIN, NEW_CHAIN, ANY_FAMILY, &[])?;
    let named = |chain: &Listed| {
        let text = |kind| chain.attributes().text(kind).unwrap_or_default();
        (text(CHAIN_TABLE), text(CHAIN_NAME))
    };
    Ok(listed.iter().map(named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_agents_are_known_by_how_their_names_begin() {
        let names = [
            "KUBE-SERVICES",
            "AZURE-NPM",
            "AZURE-NPM-INGRESS",
            "cali-FORWARD",
            "calico",
        ];
        let chains = names.map(|name| ("filter".to_owned(), name.to_owned()));
        let agents: Vec<_> = chains
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
    }
}
