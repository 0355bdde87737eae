//! Whether pods reach each other by the kernel's rules only, and why.
//!
//! In: what the configuration says, and what the kernel's packet filter holds.
//! Out: the policy in force, its reason and its price. Pure.
//! Never: off by itself: an agent may start after the pods, so on a node only the word `none` in
//! the configuration lets frames past the kernel.

use dataplane::tables::Policy;

use super::agents::Agents;
use crate::config::PolicyMode;
use crate::plan::Plugin;

/// The policy that holds, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// What the switch's tables say.
    pub policy: Policy,
    /// Why.
    pub why: String,
    /// What it costs; nothing where the switch delivers itself.
    pub cost: Option<&'static str>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

impl InForce {
    /// Decides.
    #[must_use]
    pub fn of(mode: PolicyMode, plugin: Plugin, agents: &Agents) -> InForce {
        let first = agents.found.first();
        let at_work = first.map(|one| format!("{} has chains here ({})", one.agent, one.chain));
        let (policy, why) = match mode {
            PolicyMode::None => (
                Policy::None,
                "the configuration says policy: none".to_owned(),
            ),
            PolicyMode::ViaHost => {
                let why = "the configuration says policy: via-host";
                (Policy::ViaHost, why.to_owned())
            }
            PolicyMode::Auto => {
                let why = at_work.clone().unwrap_or_else(|| {
                    "a policy agent may start at any time, and policy: none is not set".to_owned()
                });
                (Policy::ViaHost, why)
            }
        };
        let mut warnings = Vec::new();
        if policy == Policy::None {
            if let Some(at_work) = at_work {
                warnings.push(format!(
                    "{at_work}, and frames between pods do not pass its rules: policy is none"
                ));
            }
            let unread = agents.unsure.iter();
            warnings.extend(unread.map(|what| format!("a policy agent may be at work in {what}")));
        }
        InForce {
            policy,
            why,
            cost: (policy == Policy::ViaHost).then(|| cost(plugin)),
            warnings,
        }
    }
}

/// What the way through the kernel costs.
const fn cost(plugin: Plugin) -> &'static str {
    match plugin {
        Plugin::Azure => {
            "every packet crosses the node's kernel, which takes a hop off its TTL: from 64 there \
             remain 63 between pods of a node and 62 across nodes, where the bridge left 64"
        }
        Plugin::Kubenet => {
            "every packet crosses the node's kernel, which takes a hop off its TTL: from 64 there \
             remain 63 between pods of a node, where the bridge left 64, and 62 across nodes as ever"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steer::agents::AgentChain;

    #[test]
    fn only_the_word_none_lets_frames_past_the_kernel() {
        let calico = Agents {
            found: vec![AgentChain {
                agent: "calico",
                table: "filter".into(),
                chain: "cali-FORWARD".into(),
            }],
            unsure: vec!["the table filter of ip_tables_names".into()],
        };
        for plugin in [Plugin::Azure, Plugin::Kubenet] {
            for (mode, agents, policy, warnings) in [
                (PolicyMode::Auto, &Agents::default(), Policy::ViaHost, 0),
                (PolicyMode::Auto, &calico, Policy::ViaHost, 0),
                (PolicyMode::ViaHost, &Agents::default(), Policy::ViaHost, 0),
                (PolicyMode::None, &Agents::default(), Policy::None, 0),
                (PolicyMode::None, &calico, Policy::None, 2),
            ] {
                let found = InForce::of(mode, plugin, agents);
                assert_eq!(found.policy, policy, "{mode:?}");
                assert_eq!(found.warnings.len(), warnings, "{:?}", found.warnings);
                assert_eq!(found.cost.is_some(), policy == Policy::ViaHost);
            }
        }
        let auto = InForce::of(PolicyMode::Auto, Plugin::Azure, &calico);
        assert_eq!(auto.why, "calico has chains here (cali-FORWARD)");
    }
}
