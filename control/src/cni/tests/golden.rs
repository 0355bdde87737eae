//! One result in all versions, as the reference library's types write it.
//!
//! In: what a daemon of a dual-stack kubenet node answers. Out: the documents, whole.
//! Never: compares with what the code under test wrote before.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::api::types::{self, AddReply, PodAddress, RouteSpec};

fn interface(name: &str, mac: &str, sandbox: Option<&str>) -> types::Interface {
    types::Interface {
        name: name.into(),
        mac: mac.parse().expect("a MAC"),
        mtu: 1500,
        sandbox: sandbox.map(PathBuf::from),
    }
}

fn reply() -> AddReply {
    let ip = |address: &str, gateway: &str| PodAddress {
        address: address.parse().expect("a prefix"),
        gateway: Some(gateway.parse().expect("an address")),
        interface: 2,
    };
    AddReply {
        interfaces: vec![
            interface("cbr0", "0a:58:0a:f4:00:01", None),
            interface("veth01234567", "3a:00:00:00:00:01", None),
            interface("eth0", "0a:58:0a:f4:00:05", Some("/run/netns/a")),
        ],
        ips: vec![
            ip("10.244.0.5/24", "10.244.0.1"),
            ip("fd00:10::5/64", "fd00:10::1"),
        ],
        routes: vec![
            RouteSpec {
                dst: "0.0.0.0/0".parse().expect("a prefix"),
                gw: Some("10.244.0.1".parse().expect("an address")),
            },
            RouteSpec {
                dst: "::/0".parse().expect("a prefix"),
                gw: None,
            },
        ],
    }
}

fn golden(version: Version) -> Value {
    let v4_route = json!({"dst": "0.0.0.0/0", "gw": "10.244.0.1"});
    let v6_route = json!({"dst": "::/0"});
    if version < Version::V0_3_0 {
        return json!({
            "cniVersion": version.text(),
            "ip4": {"ip": "10.244.0.5/24", "gateway": "10.244.0.1", "routes": [v4_route]},
            "ip6": {"ip": "fd00:10::5/64", "gateway": "fd00:10::1", "routes": [v6_route]},
            "dns": {"nameservers": ["10.0.0.10"]},
        });
    }
    let mut document = json!({
        "cniVersion": version.text(),
        "interfaces": [
            {"name": "cbr0", "mac": "0a:58:0a:f4:00:01", "mtu": 1500},
            {"name": "veth01234567", "mac": "3a:00:00:00:00:01", "mtu": 1500},
            {"name": "eth0", "mac": "0a:58:0a:f4:00:05", "mtu": 1500, "sandbox": "/run/netns/a"},
        ],
        "ips": [
            {"interface": 2, "address": "10.244.0.5/24", "gateway": "10.244.0.1", "version": "4"},
            {"interface": 2, "address": "fd00:10::5/64", "gateway": "fd00:10::1", "version": "6"},
        ],
        "routes": [v4_route, v6_route],
        "dns": {"nameservers": ["10.0.0.10"]},
    });
    let members = |document: &mut Value, list: &str, key: &str| {
        let list = document[list].as_array_mut().expect("a list");
        for member in list {
            member.as_object_mut().expect("an object").remove(key);
        }
    };
    if version < Version::V1_1_0 {
        members(&mut document, "interfaces", "mtu");
    }
    if version >= Version::V1_0_0 {
        members(&mut document, "ips", "version");
    }
    document
}

fn result() -> CniResult {
    CniResult {
        dns: Dns {
            nameservers: vec!["10.0.0.10".into()],
            ..Dns::default()
        },
        ..CniResult::of_reply(&reply())
    }
}

#[test]
fn a_result_is_written_as_each_version_has_it() {
    for version in Version::ALL {
        assert_eq!(result().to_json(version), golden(version), "{version}");
    }
    let empty = CniResult::default().to_json(Version::V1_0_0);
    assert_eq!(empty, json!({"cniVersion": "1.0.0", "dns": {}}));
}

#[test]
fn a_result_of_any_version_is_read_back_as_far_as_it_has_room() {
    for version in Version::ALL {
        let read = CniResult::parse(&golden(version), Version::V0_1_0).expect("golden");
        assert_eq!(read.to_json(version), golden(version), "{version}");
        assert_eq!(read.ips.len(), 2);
        if version == Version::NEWEST {
            assert_eq!(read, result());
        }
    }
    // A result that does not say is of the configuration's version.
    let mut unnamed = golden(Version::V0_2_0);
    unnamed
        .as_object_mut()
        .expect("an object")
        .remove("cniVersion");
    let read = CniResult::parse(&unnamed, Version::V0_2_0).expect("golden");
    assert_eq!(read.routes.len(), 2);
}

#[test]
fn what_1_1_0_knows_of_routes_and_sockets_survives_there_and_is_left_out_before() {
    let document = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "net1", "socketPath": "/run/s", "pciID": "0000:00:1f.6"}],
        "routes": [{"dst": "10.0.0.0/8", "mtu": 1400, "scope": 253}],
        "dns": {},
    });
    let read = CniResult::parse(&document, Version::NEWEST).expect("legal");
    assert_eq!(read.to_json(Version::V1_1_0), document);
    let older = json!({
        "cniVersion": "0.4.0",
        "interfaces": [{"name": "net1"}],
        "routes": [{"dst": "10.0.0.0/8"}],
        "dns": {},
    });
    assert_eq!(read.to_json(Version::V0_4_0), older);
}

#[test]
fn in_a_chain_what_was_there_stays_in_front() {
    let before = CniResult::parse(
        &json!({
            "cniVersion": "0.4.0",
            "interfaces": [{"name": "lo", "sandbox": "/run/netns/a"}],
            "ips": [{"version": "4", "address": "127.0.0.1/8", "interface": 0}],
            "dns": {"domain": "before"},
        }),
        Version::NEWEST,
    );
    let both = CniResult::of_reply(&reply()).after(before.expect("legal"));
    let names: Vec<&str> = both.interfaces.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["lo", "cbr0", "veth01234567", "eth0"]);
    let places: Vec<_> = both.ips.iter().map(|ip| ip.interface).collect();
    assert_eq!(places, [Some(0), Some(3), Some(3)]);
    assert_eq!(both.dns.domain, "before");
}
