//! Documents in which a node's truth stands: read with suspicion, whoever sent them.
//!
//! In: bytes. Out: addresses and prefixes, or what is wrong with the document.
//! Never: follows an entity, grows with nesting, or believes what no NIC could have.

use std::net::Ipv4Addr;

use dataplane::addr::Mac;
use ipnet::{IpNet, Ipv4Net};
use serde::Deserialize;
use serde_json::Value;

use super::truth::{NicAddresses, PodCidrs, Unbelievable};

/// Bytes of one document: that of a NIC with 256 addresses has 16 KB.
pub const DOCUMENT_BYTES_MAX: u64 = 1 << 20;
/// Elements, attributes and texts of an interface document: 16 NICs of 256 addresses.
const NODES_MAX: u32 = 1 << 15;
/// Plugins of one CNI configuration.
const PLUGINS_MAX: usize = 64;

/// Why a document says nothing.
#[derive(Debug, thiserror::Error)]
pub enum BadDocument {
    /// It is too long.
    #[error("longer than {DOCUMENT_BYTES_MAX} bytes")]
    TooLong,
    /// It is no XML, or has what is not read: a DTD, too many elements.
    #[error("not the XML that is expected: {0}")]
    Xml(#[from] roxmltree::Error),
    /// It is no UTF-8.
    #[error("not UTF-8")]
    Encoding,
    /// It is no JSON, or not of the kind expected.
    #[error("not the JSON that is expected: {0}")]
    Json(#[from] serde_json::Error),
    /// A value that cannot be read.
    #[error("{what} is '{text}'")]
    Value {
        /// Which.
        what: &'static str,
        /// How it is spelled, cut short.
        text: String,
    },
    /// Something is not there.
    #[error("{0}")]
    Missing(String),
    /// What it says cannot be so.
    #[error(transparent)]
    Unbelievable(#[from] Unbelievable),
}

/// What was found where a value was expected, in so few letters that a log stays readable.
fn bad(what: &'static str, text: &str) -> BadDocument {
    BadDocument::Value {
        what,
        text: text.chars().take(60).collect(),
    }
}

fn text(bytes: &[u8]) -> Result<&str, BadDocument> {
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(BadDocument::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| BadDocument::Encoding)?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Twelve hexadecimal digits, as Azure writes a MAC, or the usual form.
fn mac(what: &'static str, spelled: &str) -> Result<Mac, BadDocument> {
    let plain = spelled.len() == 12 && spelled.bytes().all(|b| b.is_ascii_hexdigit());
    let pairs = || {
        let pairs: Vec<&str> = (0..6).map(|at| &spelled[2 * at..2 * at + 2]).collect();
        pairs.join(":")
    };
    let usual = if plain { pairs() } else { spelled.to_owned() };
    usual.parse().map_err(|_| bad(what, spelled))
}

/// Azure's interface document: `Interfaces/Interface[@MacAddress,@IsPrimary]/IPSubnet[@Prefix]/
/// IPAddress[@Address,@IsPrimary]` (azure-container-networking, `ipam/azure.go`). Of several
/// interfaces that with `nic`'s MAC is meant, or the primary one where nobody knows a MAC.
///
/// # Errors
/// What is wrong with it.
pub fn interface_document(bytes: &[u8], nic: Option<Mac>) -> Result<NicAddresses, BadDocument> {
    let options = roxmltree::ParsingOptions {
        allow_dtd: false,
        nodes_limit: NODES_MAX,
        ..roxmltree::ParsingOptions::default()
    };
    let document = roxmltree::Document::parse_with_options(text(bytes)?, options)?;
    let mut chosen = None;
    for interface in children(document.root_element(), "Interface") {
        let own = interface.attribute("MacAddress").unwrap_or_default();
        let own = mac("MacAddress", own)?;
        let meant = match nic {
            Some(nic) => nic == own,
            None => is_true(interface.attribute("IsPrimary")),
        };
        if meant && chosen.replace((own, interface)).is_some() {
            let message = format!("two interfaces that could be the node's, one of them {own}");
            return Err(BadDocument::Missing(message));
        }
    }
    let Some((own, interface)) = chosen else {
        let message = match nic {
            Some(nic) => format!("no interface has the uplink's MAC {nic}"),
            None => "no interface is the primary one".to_owned(),
        };
        return Err(BadDocument::Missing(message));
    };
    let mut found: Option<(Ipv4Net, Vec<(Ipv4Addr, bool)>)> = None;
    for subnet in children(interface, "IPSubnet") {
        let prefix = subnet.attribute("Prefix").unwrap_or_default();
        let IpNet::V4(net) = prefix.parse().map_err(|_| bad("Prefix", prefix))? else {
            // A node translates its pods' IPv6 under azure, so its subnet is not needed.
            continue;
        };
        let mut addresses = Vec::new();
        for one in children(subnet, "IPAddress") {
            let spelled = one.attribute("Address").unwrap_or_default();
            let address = spelled.parse().map_err(|_| bad("Address", spelled))?;
            addresses.push((address, is_true(one.attribute("IsPrimary"))));
        }
        if found.replace((net, addresses)).is_some() {
            return Err(BadDocument::Missing(format!(
                "{own} is in two IPv4 subnets"
            )));
        }
    }
    let (net, addresses) =
        found.ok_or_else(|| BadDocument::Missing(format!("{own} is in no IPv4 subnet")))?;
    Ok(NicAddresses::new(Some(own), net, &addresses)?)
}

fn children<'a, 'input>(
    of: roxmltree::Node<'a, 'input>,
    name: &'static str,
) -> impl Iterator<Item = roxmltree::Node<'a, 'input>> {
    of.children().filter(move |child| child.has_tag_name(name))
}

fn is_true(attribute: Option<&str>) -> bool {
    attribute.is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

#[derive(Deserialize)]
struct Metadata {
    interface: Vec<MetadataInterface>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetadataInterface {
    mac_address: String,
    ipv4: MetadataIpv4,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetadataIpv4 {
    ip_address: Vec<MetadataAddress>,
    subnet: Vec<MetadataSubnet>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetadataAddress {
    private_ip_address: String,
}

#[derive(Deserialize)]
struct MetadataSubnet {
    address: String,
    prefix: String,
}

/// Azure's instance metadata about the network. The first address of an interface is its primary
/// one. Of several interfaces that with `nic`'s MAC is meant, or the first where nobody knows a
/// MAC.
///
/// # Errors
/// What is wrong with it.
pub fn instance_metadata(bytes: &[u8], nic: Option<Mac>) -> Result<NicAddresses, BadDocument> {
    let metadata: Metadata = serde_json::from_str(text(bytes)?)?;
    for interface in &metadata.interface {
        let own = mac("macAddress", &interface.mac_address)?;
        if nic.is_some_and(|nic| nic != own) {
            continue;
        }
        let [subnet] = &interface.ipv4.subnet[..] else {
            let message = format!("{own} is in {} IPv4 subnets", interface.ipv4.subnet.len());
            return Err(BadDocument::Missing(message));
        };
        let spelled = format!("{}/{}", subnet.address, subnet.prefix);
        let net = spelled.parse().map_err(|_| bad("subnet", &spelled))?;
        let mut addresses = Vec::new();
        for (index, one) in interface.ipv4.ip_address.iter().enumerate() {
            let spelled = &one.private_ip_address;
            let address = spelled
                .parse()
                .map_err(|_| bad("privateIpAddress", spelled))?;
            addresses.push((address, index == 0));
        }
        return Ok(NicAddresses::new(Some(own), net, &addresses)?);
    }
    let message = match nic {
        Some(nic) => format!("no interface has the uplink's MAC {nic}"),
        None => "no interface".to_owned(),
    };
    Err(BadDocument::Missing(message))
}

/// A node object, as `kubectl get node NAME -o json` prints it.
///
/// # Errors
/// What is wrong with it: above all another node's name.
pub fn node_object(bytes: &[u8], node: &str) -> Result<PodCidrs, BadDocument> {
    let object: Value = serde_json::from_str(text(bytes)?)?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if name != node {
        let message = format!("it is of node '{}', not of {node}", cut(name));
        return Err(BadDocument::Missing(message));
    }
    let spec = &object["spec"];
    let both = spec["podCIDRs"].as_array();
    let both = both.filter(|both| !both.is_empty());
    let one = [spec["podCIDR"].clone()];
    let listed = both.map_or(&one[..], Vec::as_slice);
    prefixes("podCIDR", listed.iter())
}

fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

fn prefixes<'a>(
    what: &'static str,
    values: impl Iterator<Item = &'a Value>,
) -> Result<PodCidrs, BadDocument> {
    let mut found = Vec::new();
    for value in values.filter(|value| !value.is_null()) {
        let spelled = value.as_str().unwrap_or_default();
        let net: IpNet = spelled.parse().map_err(|_| bad(what, spelled))?;
        found.push(net);
    }
    Ok(PodCidrs::new(&found)?)
}

/// A CNI configuration, or a list of them, into which a runtime has put the pod CIDR: `ipam.subnet`
/// or `ipam.ranges` of the plugin that makes the pods' devices.
///
/// # Errors
/// What is wrong with it: above all that there is no such plugin, or no prefix yet.
pub fn cni_configuration(bytes: &[u8]) -> Result<PodCidrs, BadDocument> {
    let document: Value = serde_json::from_str(text(bytes)?)?;
    let one = [document.clone()];
    let plugins = document["plugins"]
        .as_array()
        .map_or(&one[..], Vec::as_slice);
    let makes = |plugin: &&Value| {
        ["tapline-cni", "bridge"]
            .iter()
            .any(|name| plugin["type"] == **name)
            && plugin["ipam"].is_object()
    };
    let Some(plugin) = plugins.iter().take(PLUGINS_MAX).find(makes) else {
        let message = "no plugin of type tapline-cni or bridge with an ipam".to_owned();
        return Err(BadDocument::Missing(message));
    };
    let ipam = &plugin["ipam"];
    let sets = ipam["ranges"].as_array().into_iter().flatten();
    let ranges = sets
        .filter_map(Value::as_array)
        .flatten()
        .map(|range| &range["subnet"]);
    prefixes("subnet", std::iter::once(&ipam["subnet"]).chain(ranges))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERFACES: &str = r#"<Interfaces>
  <Interface MacAddress="000D3A21AF13" IsPrimary="false"><IPSubnet Prefix="10.10.0.0/24">
    <IPAddress Address="10.10.0.7" IsPrimary="true"/></IPSubnet></Interface>
  <Interface MacAddress="000D3A21AF12" IsPrimary="true"><IPSubnet Prefix="10.20.0.0/24">
    <IPAddress Address="10.20.0.4" IsPrimary="true"/>
    <IPAddress Address="10.20.0.6" IsPrimary="false"/>
    <IPAddress Address="10.20.0.5" IsPrimary="false"/></IPSubnet></Interface>
</Interfaces>"#;

    const METADATA: &str = r#"{"interface": [{"ipv4": {
        "ipAddress": [{"privateIpAddress": "10.20.0.4", "publicIpAddress": "20.1.2.3"},
                      {"privateIpAddress": "10.20.0.5", "publicIpAddress": ""},
                      {"privateIpAddress": "10.20.0.6", "publicIpAddress": ""}],
        "subnet": [{"address": "10.20.0.0", "prefix": "24"}]},
        "ipv6": {"ipAddress": []}, "macAddress": "000D3A21AF12"}]}"#;

    fn nic() -> Mac {
        "00:0d:3a:21:af:12".parse().expect("a MAC")
    }

    fn wanted() -> NicAddresses {
        NicAddresses {
            mac: Some(nic()),
            subnet: "10.20.0.0/24".parse().expect("a prefix"),
            primary: Ipv4Addr::new(10, 20, 0, 4),
            secondary: vec![Ipv4Addr::new(10, 20, 0, 5), Ipv4Addr::new(10, 20, 0, 6)],
        }
    }

    fn says(result: Result<NicAddresses, BadDocument>) -> String {
        result.expect_err("a fault").to_string()
    }

    #[test]
    fn both_documents_of_azure_say_the_same() {
        for known in [None, Some(nic())] {
            let xml = interface_document(INTERFACES.as_bytes(), known).expect("XML");
            let json = instance_metadata(METADATA.as_bytes(), known).expect("JSON");
            assert_eq!((xml, json), (wanted(), wanted()));
        }
        let with_mark = format!("\u{feff}{INTERFACES}");
        assert!(interface_document(with_mark.as_bytes(), None).is_ok());
    }

    #[test]
    fn another_nics_addresses_are_nobodys() {
        let other: Mac = "00:0d:3a:00:00:01".parse().expect("a MAC");
        let why = "no interface has the uplink's MAC 00:0d:3a:00:00:01";
        assert_eq!(
            says(interface_document(INTERFACES.as_bytes(), Some(other))),
            why
        );
        assert_eq!(
            says(instance_metadata(METADATA.as_bytes(), Some(other))),
            why
        );
        let both = INTERFACES.replace("\"false\"><IPSubnet", "\"true\"><IPSubnet");
        assert!(says(interface_document(both.as_bytes(), None)).starts_with("two interfaces"));
    }

    #[test]
    fn hostile_xml_is_refused_and_costs_little() {
        let bomb = r#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">
            <!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><Interfaces>&c;</Interfaces>"#;
        let deep = "<a>".repeat(200_000);
        let wide = format!("<Interfaces>{}</Interfaces>", "<b/>".repeat(100_000));
        let long = format!("<Interfaces>{}</Interfaces>", " ".repeat(2 << 20));
        let cut = &INTERFACES[..INTERFACES.len() / 2];
        let macless = INTERFACES.replace("000D3A21AF13", "0ü0D3A21AF1");
        for text in [
            bomb,
            &deep,
            &wide,
            &long,
            cut,
            &macless,
            "",
            "<html>no</html>",
            "{}",
        ] {
            let began = std::time::Instant::now();
            let refused = interface_document(text.as_bytes(), None);
            assert!(refused.is_err(), "{}", cut_to(text));
            assert!(began.elapsed().as_secs() < 5, "{}", cut_to(text));
        }
        assert!(interface_document(&[0xff, 0xfe, 0], None).is_err());
    }

    fn cut_to(text: &str) -> &str {
        text.get(..40).unwrap_or(text)
    }

    #[test]
    fn what_cannot_be_read_is_quoted_and_cut_short() {
        let long = INTERFACES.replace("10.20.0.5", &"9".repeat(5000));
        let message = says(interface_document(long.as_bytes(), None));
        assert_eq!(message, format!("Address is '{}'", "9".repeat(60)));
    }

    #[test]
    fn a_node_object_is_of_its_own_node() {
        let text = |name: &str| {
            format!(
                r#"{{"kind": "Node", "metadata": {{"name": "{name}"}}, "spec":
                {{"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fc00:0:0:1::/64"]}}}}"#
            )
        };
        let found = node_object(text("node-0").as_bytes(), "node-0").expect("its own");
        let found: Vec<String> = found.iter().map(|net| net.to_string()).collect();
        assert_eq!(found, ["10.244.1.0/24", "fc00:0:0:1::/64"]);
        let other = node_object(text("node-1").as_bytes(), "node-0").expect_err("another's");
        assert_eq!(other.to_string(), "it is of node 'node-1', not of node-0");
        let young = r#"{"metadata": {"name": "node-0"}, "spec": {}}"#;
        let none = node_object(young.as_bytes(), "node-0").expect_err("nothing yet");
        assert_eq!(none.to_string(), "no pod CIDR");
    }

    #[test]
    fn a_runtimes_configuration_is_read_in_each_of_its_forms() {
        for text in [
            r#"{"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.244.1.0/24"}}"#,
            r#"{"plugins": [{"type": "portmap"}, {"type": "tapline-cni", "ipam":
                {"ranges": [[{"subnet": "10.244.1.0/24", "gateway": "10.244.1.1"}]]}}]}"#,
        ] {
            let found = cni_configuration(text.as_bytes()).expect("a pod CIDR");
            let found: Vec<String> = found.iter().map(|net| net.to_string()).collect();
            assert_eq!(found, ["10.244.1.0/24"]);
        }
        for (text, why) in [
            (r#"{"plugins": [{"type": "portmap"}]}"#, "no plugin of type"),
            (
                r#"{"type": "bridge", "ipam": {"subnet": "{{.PodCIDR}}"}}"#,
                "subnet is '{{.PodCIDR}}'",
            ),
            (r#"{"type": "bridge", "ipam": {}}"#, "no pod CIDR"),
            ("[", "not the JSON that is expected"),
        ] {
            let found = cni_configuration(text.as_bytes())
                .expect_err("nothing")
                .to_string();
            assert!(found.starts_with(why), "{found}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = interface_document(&bytes, None);
            let _ = instance_metadata(&bytes, None);
            let _ = node_object(&bytes, "node-0");
            let _ = cni_configuration(&bytes);
        }

        /// One byte of a good document changed: read, or refused, and never more addresses.
        #[test]
        fn a_damaged_document_names_no_address_that_was_not_there(at in 0usize..700, to in any::<u8>()) {
            let mut bytes = INTERFACES.as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] = to;
            if let Ok(found) = interface_document(&bytes, Some(nic())) {
                prop_assert!(found.secondary.len() <= 3);
                prop_assert!(found.secondary.iter().all(|a| found.subnet.contains(a)));
            }
        }
    }
}
