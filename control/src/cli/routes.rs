//! The effective routes of nodes, as a table or as JSON.
//!
//! In: a plan and the nodes asked for. Out: text for people, a tree for programs.
//! Never: chooses between routes; prints.

use serde_json::{Value, json};

use super::plan::{new_table, trimmed};
use crate::plan::{Node, Plan};
use crate::routes::{Route, RouteTable, Row};

/// The nodes asked for: one by its name or hostname, or all.
///
/// # Errors
/// No such node; the message names those that there are.
pub(super) fn nodes<'a>(plan: &'a Plan, wanted: Option<&str>) -> Result<Vec<&'a Node>, String> {
    let Some(name) = wanted else {
        return Ok(plan.nodes.iter().collect());
    };
    match plan.node(name) {
        Some(node) => Ok(vec![node]),
        None => {
            let names: Vec<&str> = plan.nodes.iter().map(|node| node.name.as_str()).collect();
            Err(format!(
                "--effective-routes: {name}: no such node; there are {}",
                names.join(", ")
            ))
        }
    }
}

/// The cluster's route table where a node's subnet lacks it: its routes do not count there.
fn unattached<'a>(plan: &'a Plan, node: &Node) -> Option<&'a RouteTable> {
    let has = |table: &&RouteTable| !table.subnets.contains(&node.subnet);
    plan.own_table().filter(has)
}

/// A title and a table for each node.
pub(super) fn to_text(plan: &Plan, nodes: &[&Node]) -> String {
    let texts: Vec<String> = nodes.iter().map(|node| node_text(plan, node)).collect();
    texts.join("\n\n")
}

fn node_text(plan: &Plan, node: &Node) -> String {
    let table = plan.table_of(&node.subnet);
    let table = table.map_or_else(
        || "no route table".to_owned(),
        |table| format!("route table {}", table.name),
    );
    let mut text = format!(
        "Effective routes of {}: subnet {}, {table}\n",
        node.name, node.subnet
    );
    let mut rows = new_table(&["PREFIX", "NEXT HOP", "SOURCE", "STATE", "ROUTE", "REMARK"]);
    for row in plan.effective_routes(node).iter() {
        let route = &row.route;
        rows.add_row([
            route.prefix.to_string(),
            route.next_hop.to_string(),
            route.source.to_string(),
            row.state().to_string(),
            route.name.clone().unwrap_or_else(|| "-".to_owned()),
            remark(row),
        ]);
    }
    text.push_str(&trimmed(&rows));
    if let Some(table) = unattached(plan, node) {
        text.push_str(&format!(
            "\nRoute table {} is not attached to subnet {}: none of its {} routes counts here.",
            table.name,
            node.subnet,
            table.routes.len()
        ));
    }
    text
}

fn remark(row: &Row) -> String {
    let loss = row.loss.as_ref().map(|loss| format!("lost to {loss}"));
    let caveat = row.caveat.as_ref().map(ToString::to_string);
    loss.or(caveat).unwrap_or_default()
}

/// A list with an object for each node.
pub(super) fn to_json(plan: &Plan, nodes: &[&Node]) -> Value {
    let node = |node: &&Node| {
        json!({
            "node": node.name,
            "subnet": node.subnet,
            "route_table": plan.table_of(&node.subnet).map(|table| &table.name),
            "route_table_unattached": unattached(plan, node).map(|table| &table.name),
            "routes": plan.effective_routes(node).iter().map(row_json).collect::<Vec<_>>(),
        })
    };
    nodes.iter().map(node).collect()
}

fn row_json(row: &Row) -> Value {
    let mut value = route_json(&row.route);
    let loss = row.loss.as_ref();
    value["state"] = json!(row.state().to_string());
    value["lost_to"] = json!(loss.and_then(|loss| loss.to.as_ref()).map(route_json));
    value["why"] = json!(loss.map(|loss| loss.why.to_string()));
    value["caveat"] = json!(row.caveat.as_ref().map(ToString::to_string));
    value
}

fn route_json(route: &Route) -> Value {
    json!({
        "name": route.name,
        "prefix": route.prefix,
        "next_hop_type": route.next_hop.kind(),
        "next_hop_ip": route.next_hop.address(),
        "source": route.source.to_string(),
        "azure_source": route.source.azure(),
    })
}
