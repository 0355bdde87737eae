//! Files as the programs before us leave them, read, and brought up to date.

use super::*;

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(label: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("tapline-{label}-{}", std::process::id()));
        fs::create_dir_all(folder.join("networks/kubenet")).expect("a folder");
        Folder(folder)
    }

    fn places(&self) -> Places {
        Places {
            networks: self.0.join("networks"),
            azure_endpoints: self.0.join("azure-vnet.json"),
            azure_addresses: self.0.join("azure-vnet-ipam.json"),
        }
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).expect("written");
    }

    fn get(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.0.join(name)).ok()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const ENDPOINTS: &str = r#"{
	"Network": {
		"Version": "v1.0.28",
		"ExternalInterfaces": {
			"eth0": {
				"Name": "eth0",
				"BridgeName": "azure0",
				"Networks": {
					"azure": {
						"Id": "azure",
						"Mode": "bridge",
						"Endpoints": {
							"1f2e3d4c-eth0": {
								"Id": "1f2e3d4c-eth0",
								"IfName": "eth0",
								"HostIfName": "azv32fe06c7c68",
								"MacAddress": "Clg=",
								"IPAddresses": [{"IP": "10.20.0.31", "Mask": "////AA=="}],
								"ContainerID": "1f2e3d4c5b6a",
								"PODName": "web-0",
								"PODNameSpace": "default"
							}
						}
					}
				}
			}
		}
	}
}"#;

const ADDRESSES: &str = r#"{
	"IPAM": {
		"Version": "v1.0.28",
		"AddressSpaces": {
			"local": {
				"Id": "local",
				"Pools": {
					"10.20.0.0/24": {
						"Id": "10.20.0.0/24",
						"Addresses": {
							"10.20.0.30": {"ID": "", "Addr": "10.20.0.30", "InUse": false},
							"10.20.0.31": {"ID": "1f2e3d4c5b6a", "Addr": "10.20.0.31", "InUse": true},
							"10.20.0.32": {"ID": "99aa", "Addr": "10.20.0.32", "InUse": true}
						},
						"RefCount": 1
					}
				}
			}
		}
	}
}"#;

fn holder(address: &str, network: &str, container: &str, device: Option<&str>) -> Holder {
    Holder {
        address: address.parse().expect("one"),
        network: network.to_owned(),
        container: container.to_owned(),
        device: device.map(str::to_owned),
        pod: None,
    }
}

#[test]
fn what_all_three_files_say_is_found_once_for_each_address() {
    let folder = Folder::new("holders");
    folder.put("networks/kubenet/10.244.1.6", "abc123\r\neth0");
    folder.put("networks/kubenet/10.244.1.7", "def456");
    folder.put("networks/kubenet/last_reserved_ip.0", "10.244.1.7");
    folder.put("networks/kubenet/lock", "");
    folder.put("azure-vnet.json", ENDPOINTS);
    folder.put("azure-vnet-ipam.json", ADDRESSES);
    let expected = [
        Holder {
            pod: Some(("default".to_owned(), "web-0".to_owned())),
            ..holder("10.20.0.31", "azure", "1f2e3d4c5b6a", Some("eth0"))
        },
        holder("10.20.0.32", "azure", "99aa", None),
        holder("10.244.1.6", "kubenet", "abc123", Some("eth0")),
        holder("10.244.1.7", "kubenet", "def456", None),
    ];
    assert_eq!(holders(&folder.places()).expect("all understood"), expected);
}

#[test]
fn no_file_says_nothing_and_every_bad_one_is_named() {
    let folder = Folder::new("foreign");
    assert_eq!(holders(&folder.places()).expect("nothing"), []);
    folder.put("networks/kubenet/10.244.1.6", " \n");
    folder.put("azure-vnet.json", r#"{"Network": 7}"#);
    folder.put("azure-vnet-ipam.json", r#"{"IPAM": {"Address"#);
    let foreign = holders(&folder.places()).expect_err("none is understood");
    let told: Vec<String> = foreign.iter().map(|one| one.why.clone()).collect();
    assert_eq!(told[0], "names no container");
    assert_eq!(told[1], "has no object 'Network': another program's");
    assert!(told[2].starts_with("is no JSON"), "{told:?}");
    // And what cannot be read is never overwritten.
    let gone = BTreeSet::from(["10.20.0.31".parse().expect("one")]);
    let failures = give_back(&folder.places(), &[], &gone).expect_err("refused");
    assert_eq!(failures.len(), 2);
    assert_eq!(
        folder.get("azure-vnet.json").as_deref(),
        Some(r#"{"Network": 7}"#)
    );
    assert_eq!(
        folder.get("azure-vnet-ipam.json").as_deref(),
        Some(r#"{"IPAM": {"Address"#)
    );
}

#[test]
fn on_release_the_files_say_what_is_true_by_then_and_keep_the_rest() {
    let folder = Folder::new("give-back");
    folder.put("networks/kubenet/10.244.1.6", "abc123\r\neth0");
    folder.put("azure-vnet.json", ENDPOINTS);
    folder.put("azure-vnet-ipam.json", ADDRESSES);
    let now = [
        holder("10.20.0.30", "azure", "new1", Some("eth0")),
        holder("10.20.0.32", "azure", "99aa", Some("eth0")),
        holder("10.244.1.9", "kubenet", "fresh", Some("eth0")),
    ];
    let gone = ["10.20.0.31", "10.244.1.6"].map(|a| a.parse().expect("one"));
    give_back(&folder.places(), &now, &gone.into()).expect("written");
    assert_eq!(folder.get("networks/kubenet/10.244.1.6"), None);
    assert_eq!(
        folder.get("networks/kubenet/10.244.1.9").as_deref(),
        Some("fresh\r\neth0")
    );
    let ipam = folder.get("azure-vnet-ipam.json").expect("there");
    let ipam: Value = serde_json::from_str(&ipam).expect("JSON");
    let pool = &ipam["IPAM"]["AddressSpaces"]["local"]["Pools"]["10.20.0.0/24"];
    let record = |address: &str| {
        let record = &pool["Addresses"][address];
        (
            record["InUse"].as_bool(),
            record["ID"].as_str().map(str::to_owned),
        )
    };
    assert_eq!(record("10.20.0.30"), (Some(true), Some("new1".to_owned())));
    assert_eq!(record("10.20.0.31"), (Some(false), Some(String::new())));
    assert_eq!(record("10.20.0.32"), (Some(true), Some("99aa".to_owned())));
    assert_eq!(
        (&ipam["IPAM"]["Version"], &pool["RefCount"]),
        (&json!("v1.0.28"), &json!(1))
    );
    let endpoints = folder.get("azure-vnet.json").expect("there");
    let endpoints: Value = serde_json::from_str(&endpoints).expect("JSON");
    let network = &endpoints["Network"]["ExternalInterfaces"]["eth0"]["Networks"]["azure"];
    assert_eq!(
        (&network["Endpoints"], &network["Mode"]),
        (&json!({}), &json!("bridge"))
    );
    // Nothing to say leaves the bytes alone.
    let before = folder.get("azure-vnet.json");
    give_back(&folder.places(), &now, &gone.into()).expect("written");
    assert_eq!(folder.get("azure-vnet.json"), before);
}
