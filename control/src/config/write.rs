//! A configuration from a plan: what `tapline config` prints.
//!
//! In: a plan and one of its nodes. Out: the text of a file, with a comment above each key.
//! Never: writes what is only true today: the node's addresses go under `plan`, to be compared.

use dataplane::tables::fib::NextHop;
use ipnet::IpNet;
use serde_json::Value;

use super::raw::{
    PolicyMode, RawConfig, RawMetrics, RawPlan, RawPlugin, RawPods, RawRoute, RawUplink,
};
use super::schema;
use crate::compile;
use crate::compile::spec::{self, Remote};
use crate::plan::{Node, Plan, Plugin};

/// Columns of a written file.
const WIDTH: usize = 100;

/// Where metrics are served in a file that is written for a node: on the node alone. The port is
/// none of those that Kubernetes' own programs use.
pub const METRICS_LISTEN: &str = "127.0.0.1:9469";

/// The configuration of `node` as the plan has it, under the name that Kubernetes knows it by, or
/// under `name`.
#[must_use]
pub fn for_node(plan: &Plan, node: &Node, name: Option<&str>) -> String {
    let texts = |nets: &[IpNet]| Some(nets.iter().map(ToString::to_string).collect());
    let routes = spec::remote(plan, node);
    let name = name.or(node.hostname.as_deref()).unwrap_or(&node.name);
    let raw = RawConfig {
        plugin: Some(match plan.plugin {
            Plugin::Azure => RawPlugin::Azure,
            Plugin::Kubenet => RawPlugin::Kubenet,
        }),
        node: Some(name.to_owned()),
        uplink: Some(RawUplink {
            mtu: Some(node.mtu),
            ..RawUplink::default()
        }),
        pods: Some(RawPods {
            max: u16::try_from(node.max_pods).ok().filter(|max| *max <= 1000),
            ..RawPods::default()
        }),
        services: texts(&plan.service_cidrs),
        via_host: texts(&plan.via_host),
        routes: Some(routes.iter().map(route).collect()),
        plan: Some(expected(plan, node)),
        policy: Some(match plan.policy {
            Some(_) => PolicyMode::ViaHost,
            None => PolicyMode::Auto,
        }),
        metrics: Some(RawMetrics {
            listen: Some(METRICS_LISTEN.to_owned()),
        }),
        ..RawConfig::default()
    };
    to_text(&serde_json::to_value(raw).expect("texts and numbers are always JSON"))
}

fn route(remote: &Remote) -> RawRoute {
    let via = match remote.hop {
        NextHop::Neighbour(address) => address.to_string(),
        NextHop::Blackhole => "discard".to_owned(),
        _ => "fabric".to_owned(),
    };
    RawRoute {
        to: Some(remote.prefix.trunc().to_string()),
        via: Some(via),
    }
}

fn expected(plan: &Plan, node: &Node) -> RawPlan {
    let v6 = compile::own_range_v6(plan, node);
    let both = |v4: String, v6: Option<String>| Some(std::iter::once(v4).chain(v6).collect());
    let dual = v6.is_some();
    let pods = node.pod_range().into_iter().map(IpNet::V4);
    let pods = pods.chain(v6.map(IpNet::V6));
    RawPlan {
        addresses: both(
            node.primary_ip.to_string(),
            node.primary_ip_v6.filter(|_| dual).map(|ip| ip.to_string()),
        ),
        subnets: both(
            node.subnet_prefix.to_string(),
            node.subnet_prefix_v6
                .filter(|_| dual)
                .map(|net| net.to_string()),
        ),
        pods: Some(pods.map(|net| net.to_string()).collect()),
    }
}

/// A configuration as text, each key below what the schema says of it.
#[must_use]
pub fn to_text(config: &Value) -> String {
    let schema = schema::tree();
    let mut text = comment(description(&schema), 0);
    object(&schema, &schema, config, 0, &mut text);
    text.push('\n');
    text
}

fn object(schema: &Value, rule: &Value, value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth + 1);
    let members = value.as_object().into_iter().flatten();
    text.push_str("{\n");
    let last = value.as_object().map_or(0, serde_json::Map::len);
    for (index, (key, value)) in members.enumerate() {
        let rule = rule.pointer(&format!("/properties/{key}"));
        let rule = rule.unwrap_or(&Value::Null);
        text.push_str(&comment(description(rule), depth + 1));
        text.push_str(&format!("{indent}\"{key}\": "));
        match value {
            Value::Object(_) => object(schema, behind(schema, rule), value, depth + 1, text),
            Value::Array(elements) => list(elements, &indent, text),
            plain => text.push_str(&plain.to_string()),
        }
        text.push_str(if index + 1 < last { ",\n" } else { "\n" });
    }
    text.push_str(&format!("{}}}", "  ".repeat(depth)));
}

/// A list on one line where it fits, otherwise an element on each.
fn list(elements: &[Value], indent: &str, text: &mut String) {
    let plain: Vec<String> = elements.iter().map(one_line).collect();
    let line = format!("[{}]", plain.join(", "));
    if line.len() + indent.len() < WIDTH / 2 {
        text.push_str(&line);
        return;
    }
    text.push_str(&format!(
        "[\n{indent}  {}\n{indent}]",
        plain.join(&format!(",\n{indent}  "))
    ));
}

fn one_line(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(key, value)| format!("\"{key}\": {value}"))
                .collect();
            format!("{{ {} }}", members.join(", "))
        }
        plain => plain.to_string(),
    }
}

fn behind<'a>(schema: &'a Value, rule: &'a Value) -> &'a Value {
    let direct = rule.get("$ref");
    let among = || {
        rule.get("anyOf")?
            .as_array()?
            .iter()
            .find_map(|r| r.get("$ref"))
    };
    let target = direct.or_else(among).and_then(Value::as_str);
    let target = target.and_then(|target| schema.pointer(target.strip_prefix('#')?));
    target.unwrap_or(rule)
}

fn description(rule: &Value) -> &str {
    rule.get("description")
        .and_then(Value::as_str)
        .unwrap_or("")
}

/// Words as comment lines, none longer than the file is wide unless a word is.
fn comment(words: &str, depth: usize) -> String {
    let lead = format!("{}//", "  ".repeat(depth));
    let mut text = String::new();
    let mut line = lead.clone();
    for word in words.split_whitespace() {
        if line.len() > lead.len() && line.len() + 1 + word.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line.clone_from(&lead);
        }
        line.push(' ');
        line.push_str(word);
    }
    if line.len() > lead.len() {
        text.push_str(&line);
        text.push('\n');
    }
    text
}
