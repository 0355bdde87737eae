//! Route tables as templates and `az` write them, and everything that is refused of them.

use super::*;
use crate::model::{Document, Report};
use crate::plan::ROUTE_LIMIT;

/// The tables of a text, and the warnings; or every fault, a line each.
fn read_with(text: &str, limit: usize) -> Result<(Vec<PlacedTable>, Vec<String>), Vec<String>> {
    let mut report = Report::default();
    let document = Document::parse("rt.json".to_owned(), text.as_bytes(), &mut report);
    let tables = document.and_then(|document| read_tables(&document, limit, &mut report));
    match report.finish(&["rt.json"]) {
        Ok(warnings) => {
            let tables = tables.expect("tables where there is no fault");
            Ok((tables, warnings.iter().map(ToString::to_string).collect()))
        }
        Err(faults) => {
            assert!(tables.is_none(), "tables beside faults");
            Err(faults.iter().map(ToString::to_string).collect())
        }
    }
}

fn read(text: &str) -> Vec<PlacedTable> {
    read_with(text, ROUTE_LIMIT).unwrap().0
}

fn faults(text: &str) -> Vec<String> {
    read_with(text, ROUTE_LIMIT).unwrap_err()
}

fn said(table: &PlacedTable) -> Vec<String> {
    let name = |placed: &crate::routes::table::PlacedRoute| placed.route.name.clone().unwrap();
    let routes = table.routes.iter();
    routes
        .map(|placed| format!("{}: {}", name(placed), placed.route))
        .collect()
}

/// What `az network route-table show` prints of a cluster's table in a custom VNet.
pub(super) const SHOWN: &str = r#"{
  "disableBgpRoutePropagation": true,
  "etag": "W/\"2f1c5f0e-5c2e-4f0c-9a3e-2f7a7c1d9b11\"",
  "id": "/subscriptions/s/resourceGroups/aks/providers/Microsoft.Network/routeTables/k8s-master-37464322-routetable",
  "location": "westeurope",
  "name": "k8s-master-37464322-routetable",
  "provisioningState": "Succeeded",
  "resourceGroup": "aks",
  "routes": [
    {
      "addressPrefix": "10.244.0.0/24",
      "etag": "W/\"2f1c5f0e-5c2e-4f0c-9a3e-2f7a7c1d9b11\"",
      "hasBgpOverride": false,
      "id": "/subscriptions/s/resourceGroups/aks/providers/Microsoft.Network/routeTables/k8s-master-37464322-routetable/routes/k8s-agentpool1-37464322-vmss000001",
      "name": "k8s-agentpool1-37464322-vmss000001",
      "nextHopIpAddress": "10.20.0.5",
      "nextHopType": "VirtualAppliance",
      "provisioningState": "Succeeded",
      "resourceGroup": "aks",
      "type": "Microsoft.Network/routeTables/routes"
    },
    {
      "addressPrefix": "192.168.0.0/16",
      "name": "on-premises",
      "nextHopIpAddress": null,
      "nextHopType": "VirtualNetworkGateway",
      "type": "Microsoft.Network/routeTables/routes"
    }
  ],
  "subnets": [
    {
      "addressPrefix": null,
      "id": "/subscriptions/s/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/aks-vnet/subnets/agent-subnet",
      "resourceGroup": "net"
    }
  ],
  "tags": null,
  "type": "Microsoft.Network/routeTables"
}"#;

#[test]
fn what_az_prints_is_read() {
    let tables = read(SHOWN);
    assert_eq!(tables.len(), 1);
    let table = &tables[0];
    assert_eq!(table.name.value, "k8s-master-37464322-routetable");
    assert!(!table.propagates);
    assert_eq!(
        table.subnets,
        [("aks-vnet".to_owned(), "agent-subnet".to_owned())]
    );
    assert_eq!(
        said(table),
        [
            "k8s-agentpool1-37464322-vmss000001: user-defined route 10.244.0.0/24 -> \
             VirtualAppliance 10.20.0.5",
            "on-premises: user-defined route 192.168.0.0/16 -> VirtualNetworkGateway",
        ]
    );
    // An older `az` printed no type, and every resource has an id.
    let without = SHOWN.replace(",\n  \"type\": \"Microsoft.Network/routeTables\"\n}", "\n}");
    assert_ne!(without, SHOWN);
    assert_eq!(said(&read(&without)[0]), said(table));
}

#[test]
fn a_template_may_hold_routes_in_three_places() {
    let text = r#"{
  "$schema": "https://schema.management.azure.com/schemas/2015-01-01/deploymentTemplate.json#",
  "parameters": { "firewall": { "type": "string", "defaultValue": "10.20.0.200" } },
  "variables": { "name": "[concat('fw', '-routes')]", "quiet": true },
  "resources": [
    { "type": "Microsoft.Network/virtualNetworks", "name": "aks-vnet" },
    {
      "type": "microsoft.network/ROUTETABLES",
      "name": "[variables('name')]",
      "properties": {
        "disableBgpRoutePropagation": "[variables('quiet')]",
        "routes": [
          {
            "name": "default",
            "properties": {
              "addressPrefix": "0.0.0.0/0",
              "nextHopType": "virtualappliance",
              "nextHopIpAddress": "[parameters('firewall')]"
            }
          }
        ]
      },
      "resources": [
        {
          "type": "routes",
          "name": "lan",
          "properties": { "addressPrefix": "10.10.0.0/24", "nextHopType": "VNETLOCAL" }
        }
      ]
    },
    {
      "type": "Microsoft.Network/routeTables/routes",
      "name": "[concat(variables('name'), '/six')]",
      "properties": {
        "addressPrefix": "fd00:244::/64",
        "nextHopType": "VirtualAppliance",
        "nextHopIpAddress": "fd00:20::5"
      }
    },
    {
      "type": "Microsoft.Network/routeTables",
      "name": "never",
      "condition": false,
      "properties": { "routes": [ { "name": "x" } ] }
    }
  ]
}"#;
    let tables = read(text);
    assert_eq!(tables.len(), 1);
    assert_eq!(tables[0].name.value, "fw-routes");
    assert!(!tables[0].propagates);
    assert_eq!(
        said(&tables[0]),
        [
            "default: user-defined route 0.0.0.0/0 -> VirtualAppliance 10.20.0.200",
            "lan: user-defined route 10.10.0.0/24 -> VnetLocal",
            "six: user-defined route fd00:244::/64 -> VirtualAppliance fd00:20::5",
        ]
    );
}

#[test]
fn an_empty_table_is_what_aks_engine_deploys() {
    for text in [
        r#"{ "resources": [ { "type": "Microsoft.Network/routeTables", "name": "rt" } ] }"#,
        r#"{ "type": "Microsoft.Network/routeTables", "name": "rt", "properties": {} }"#,
        r#"{ "resources": { "rt": { "type": "Microsoft.Network/routeTables", "name": "rt" } } }"#,
    ] {
        let tables = read(text);
        assert!(
            tables[0].routes.is_empty() && tables[0].propagates,
            "{text}"
        );
    }
}

/// A table alone with these routes, one on each line from the third.
fn alone(routes: &[&str]) -> String {
    format!(
        "{{ \"type\": \"Microsoft.Network/routeTables\", \"name\": \"rt\",\n\"routes\": [\n{}\n] }}",
        routes.join(",\n")
    )
}

/// The body of a route, the key at fault, and what is said of it.
const BAD_ROUTES: &[(&str, &str, &str)] = &[
    (
        r#""addressPrefix": "10.244.0.1/24", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "10.20.0.5""#,
        "addressPrefix",
        "10.244.0.1/24 has bits set outside its mask; the prefix is 10.244.0.0/24",
    ),
    (
        r#""addressPrefix": "fd00::1/64", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "fd00::5""#,
        "addressPrefix",
        "fd00::1/64 has bits set outside its mask; the prefix is fd00::/64",
    ),
    (
        r#""addressPrefix": "10.244.0.0/33", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "10.20.0.5""#,
        "addressPrefix",
        "'33' is out of range: the prefix length of IPv4 is 0 to 32",
    ),
    (
        r#""addressPrefix": "fd00::/129", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "fd00::5""#,
        "addressPrefix",
        "'129' is out of range: the prefix length of IPv6 is 0 to 128",
    ),
    (
        r#""addressPrefix": "10.244.0.0/-1", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "10.20.0.5""#,
        "addressPrefix",
        "'-1' is out of range: the prefix length of IPv4 is 0 to 32",
    ),
    (
        r#""addressPrefix": "10.244.0.7", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "10.20.0.5""#,
        "addressPrefix",
        "'10.244.0.7' is an address; its prefix is 10.244.0.7/32",
    ),
    (
        r#""addressPrefix": "10.244.0/24", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "10.20.0.5""#,
        "addressPrefix",
        "'10.244.0/24' is not an address prefix",
    ),
    (
        r#""addressPrefix": "10.244.0.0/24", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "10.20.0""#,
        "nextHopIpAddress",
        "'10.20.0' is not an IP address",
    ),
    (
        r#""addressPrefix": "10.244.0.0/24", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "fd00::5""#,
        "nextHopIpAddress",
        "fd00::5 and 10.244.0.0/24 are of two families; a next hop is of its prefix's",
    ),
    (
        r#""addressPrefix": "10.244.0.0/24", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "224.0.0.5""#,
        "nextHopIpAddress",
        "224.0.0.5 can be no NIC's address, so nothing can go there",
    ),
    (
        r#""addressPrefix": "10.244.0.0/24", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "169.254.1.1""#,
        "nextHopIpAddress",
        "169.254.1.1 can be no NIC's address, so nothing can go there",
    ),
    (
        r#""addressPrefix": "fd00::/64", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "fe80::1""#,
        "nextHopIpAddress",
        "fe80::1 can be no NIC's address, so nothing can go there",
    ),
    (
        r#""addressPrefix": "10.20.0.5/32", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "10.20.0.5""#,
        "nextHopIpAddress",
        "a route to itself: 10.20.0.5 is all that 10.20.0.5/32 holds",
    ),
    (
        r#""addressPrefix": "10.9.0.0/16", "nextHopType": "VirtualAppliance""#,
        "nextHopType",
        "VirtualAppliance without a nextHopIpAddress leads nowhere",
    ),
    (
        r#""addressPrefix": "10.9.0.0/16", "nextHopType": "Router""#,
        "nextHopType",
        "unknown nextHopType 'Router': one of VirtualAppliance, VirtualNetworkGateway, \
         VnetLocal, Internet, None",
    ),
    (
        r#""addressPrefix": "10.9.0.0/16", "nextHopType": "VNetPeering""#,
        "nextHopType",
        "VNetPeering is the next hop of routes that Azure makes; a table may have \
         VirtualAppliance, VirtualNetworkGateway, VnetLocal, Internet, None",
    ),
    (
        r#""addressPrefix": "10.9.0.0/16", "nextHopType": "None", "nextHopIpAddress": "10.20.0.5""#,
        "nextHopIpAddress",
        "None takes no nextHopIpAddress, only VirtualAppliance does",
    ),
    (
        r#""addressPrefix": "10.9.0.0/16""#,
        "nextHopType",
        "missing nextHopType",
    ),
    (
        r#""nextHopType": "None""#,
        "addressPrefix",
        "missing addressPrefix",
    ),
    (
        r#""addressPrefix": 10, "nextHopType": "None""#,
        "addressPrefix",
        "expected text, found a number",
    ),
];

#[test]
fn every_bad_route_is_refused_by_name() {
    let routes: Vec<String> = BAD_ROUTES
        .iter()
        .map(|(body, ..)| format!("{{ \"name\": \"a\", {body} }}"))
        .collect();
    for (route, (_, key, message)) in routes.iter().zip(BAD_ROUTES) {
        let column = route.find(&format!("\"{key}\"")).map_or(1, |at| at + 1);
        let fault = format!("rt.json:3:{column}: routes[0].{key}: {message}");
        assert_eq!(faults(&alone(&[route])), [fault]);
    }
    // And all of them at once, each on its own line.
    let all: Vec<&str> = routes.iter().map(String::as_str).collect();
    let found = faults(&alone(&all));
    assert_eq!(found.len(), routes.len(), "{found:#?}");
    for (at, (line, (_, key, message))) in found.iter().zip(BAD_ROUTES).enumerate() {
        let start = format!("rt.json:{}:", at + 3);
        let end = format!("routes[{at}].{key}: {message}");
        assert!(line.starts_with(&start) && line.ends_with(&end), "{line}");
    }
}

#[test]
fn names_and_prefixes_come_once() {
    let route = |name: &str, prefix: &str, hop: &str| {
        format!(
            "{{ \"name\": \"{name}\", \"addressPrefix\": \"{prefix}\", \"nextHopType\": \
             \"VirtualAppliance\", \"nextHopIpAddress\": \"{hop}\" }}"
        )
    };
    let text = alone(&[
        &route("node-0", "10.244.0.0/24", "10.20.0.4"),
        &route("NODE-0", "10.244.1.0/24", "10.20.0.5"),
        &route("late", "10.244.0.0/24", "10.20.0.6"),
    ]);
    assert_eq!(
        faults(&text),
        [
            "rt.json:4:21: routes[1].addressPrefix: there is more than one route 'NODE-0'",
            "rt.json:5:19: routes[2].addressPrefix: 10.244.0.0/24 is the prefix of route 'node-0' \
             already, which leads to VirtualAppliance 10.20.0.4, and this one leads to \
             VirtualAppliance 10.20.0.6: Azure refuses two routes of one prefix (RouteConflict)",
        ]
    );
}

#[test]
fn a_table_has_a_limit() {
    let routes: Vec<String> = (0..401)
        .map(|n| {
            format!(
                "{{ \"name\": \"r{n}\", \"addressPrefix\": \"10.{}.{}.0/24\", \"nextHopType\": \
                 \"Internet\" }}",
                n / 256,
                n % 256
            )
        })
        .collect();
    let lines: Vec<&str> = routes.iter().map(String::as_str).collect();
    assert_eq!(read(&alone(&lines[..400]))[0].routes.len(), 400);
    assert_eq!(
        faults(&alone(&lines)),
        ["rt.json:1:44: name: route table 'rt' has 401 routes; one holds 400 (--route-limit)"]
    );
    assert_eq!(
        read_with(&alone(&lines), 1000).unwrap().0[0].routes.len(),
        401
    );
}

#[test]
fn a_document_of_another_kind_is_refused_by_its_name() {
    let rows = [
        (
            r#"{ "type": "Microsoft.Network/networkSecurityGroups", "name": "nsg" }"#,
            "rt.json:1:3: type: expected a resource of type Microsoft.Network/routeTables, found \
             Microsoft.Network/networkSecurityGroups",
        ),
        (
            r#"{ "id": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/routeTables/rt/routes/r" }"#,
            "rt.json:1:3: id: expected a resource of type Microsoft.Network/routeTables, found \
             Microsoft.Network/routeTables/routes",
        ),
        (
            r#"{ "resources": [ { "type": "Microsoft.Network/virtualNetworks", "name": "v" } ] }"#,
            "rt.json:1:3: resources: no resource of type Microsoft.Network/routeTables; the \
             template has Microsoft.Network/virtualNetworks",
        ),
        (
            r#"{ "resources": [] }"#,
            "rt.json:1:3: resources: no resource of type Microsoft.Network/routeTables; the \
             template has no resource at all",
        ),
        (
            r#"{ "apiVersion": "vlabs", "properties": {} }"#,
            "rt.json:1:1: neither an ARM template, which has resources, nor a resource of type \
             Microsoft.Network/routeTables",
        ),
        (
            r#"{ "id": "rt" }"#,
            "rt.json:1:3: id: cannot tell whether this is a resource of type \
             Microsoft.Network/routeTables",
        ),
        ("[]", "rt.json:1:1: expected an object, found a list"),
    ];
    for (text, fault) in rows {
        assert_eq!(faults(text), [fault], "{text}");
    }
}

#[test]
fn a_template_is_refused_where_it_cannot_be_read() {
    let text = r#"{ "resources": [
{ "type": "Microsoft.Network/routeTables", "name": "rt", "properties": { "copy": [] } },
{ "type": "Microsoft.Network/routeTables", "name": "RT" },
{ "type": "Microsoft.Network/routeTables", "name": "[uniqueString('x')]" },
{ "type": "Microsoft.Network/routeTables", "name": "r3", "properties": { "routes": "[parameters('none')]", "disableBgpRoutePropagation": "yes" } },
{ "type": "Microsoft.Network/routeTables/routes", "name": "other/a", "properties": { "addressPrefix": "10.0.0.0/8", "nextHopType": "None" } },
{ "type": "Microsoft.Network/routeTables/routes", "name": "a", "properties": { "addressPrefix": "10.0.0.0/8", "nextHopType": "None" } }
] }"#;
    assert_eq!(
        faults(text),
        [
            "rt.json:2:74: resources[0].properties.copy: Tapline does not unroll copy; `az \
             network route-table show` prints what it comes to",
            "rt.json:3:44: resources[1].name: there is more than one route table 'RT'",
            "rt.json:4:44: resources[2].name: cannot read the expression \
             'uniqueString('x')': Tapline reads literals, parameters with a defaultValue, \
             variables, and concat or resourceId of those",
            "rt.json:5:74: resources[3].properties.routes: the template declares no parameter \
             'none'",
            "rt.json:5:108: resources[3].properties.disableBgpRoutePropagation: expected true or \
             false, found text",
            "rt.json:6:51: resources[4].name: belongs to a route table 'other', which the \
             template does not declare",
            "rt.json:7:51: resources[5].name: 'a' is not of the form TABLE/ROUTE",
        ]
    );
}

#[test]
fn a_service_tag_and_azures_own_addresses_are_warned_of() {
    let route = |prefix: &str| {
        format!(
            "{{ \"name\": \"{prefix}\", \"addressPrefix\": \"{prefix}\", \"nextHopType\": \
             \"Internet\" }}"
        )
    };
    let text = alone(&[&route("AzureCloud.WestEurope"), &route("168.63.129.16/32")]);
    let (tables, warnings) = read_with(&text, ROUTE_LIMIT).unwrap();
    assert_eq!(said(&tables[0]).len(), 1);
    assert_eq!(
        warnings,
        [
            "rt.json:3:36: routes[0].addressPrefix: 'AzureCloud.WestEurope' is a service tag, \
             whose prefixes only Azure knows; the route is left out",
            "rt.json:4:31: routes[1].addressPrefix: without effect: no route of a table concerns \
             Azure's own 168.63.129.16/32",
        ]
    );
}

proptest! {
    /// Whatever a document says, it is read or refused, never both, and never a panic.
    #[test]
    fn any_text_in_any_field_is_read_or_refused(prefix in "[0-9a-f./:A-Z]{0,12}", kind in "[A-Za-z]{0,8}", hop in "[0-9a-f.:]{0,12}") {
        let route = format!(
            "{{ \"name\": \"a\", \"addressPrefix\": \"{prefix}\", \"nextHopType\": \"{kind}\", \
             \"nextHopIpAddress\": \"{hop}\" }}"
        );
        if let Ok((tables, _)) = read_with(&alone(&[&route]), ROUTE_LIMIT) {
            for placed in &tables[0].routes {
                let net = placed.route.prefix;
                prop_assert_eq!(net, net.trunc());
            }
        }
    }
}
