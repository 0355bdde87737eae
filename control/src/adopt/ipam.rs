//! Who holds which address, as the programs before us noted it, and what they read when we leave.
//!
//! In: `host-local`'s folder of files, `azure-vnet.json`, `azure-vnet-ipam.json`.
//! Out: [`Holder`]s; and on release the same files, brought up to date.
//! Never: overwrites a file that it could not read to its end, or drops a field it does not know.
//!
//! | file | written by | says |
//! |---|---|---|
//! | `NETWORKS/NAME/ADDRESS` | containernetworking/plugins, `host-local/backend/disk` | container and device, a line each |
//! | `azure-vnet.json` | azure-container-networking, `network/manager.go` | endpoints, below `Network` |
//! | `azure-vnet-ipam.json` | azure-container-networking, `ipam/manager.go` | addresses, free or in use, below `IPAM` |

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// Files larger than this are not ours to understand: 65,536 addresses take a tenth of it.
const BYTES_MAX: u64 = 64 << 20;
/// Between container and device in a file of `host-local` (`LineBreak` of its backend).
const LINE_BREAK: &str = "\r\n";

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The folder with a folder for each network, `/var/lib/cni/networks`.
    pub networks: PathBuf,
    /// `/var/run/azure-vnet.json`.
    pub azure_endpoints: PathBuf,
    /// `/var/run/azure-vnet-ipam.json`.
    pub azure_addresses: PathBuf,
}

impl Default for Places {
    fn default() -> Places {
        Places {
            networks: "/var/lib/cni/networks".into(),
            azure_endpoints: "/var/run/azure-vnet.json".into(),
            azure_addresses: "/var/run/azure-vnet-ipam.json".into(),
        }
    }
}

/// Somebody who holds an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The address.
    pub address: IpAddr,
    /// The network, as the CNI configuration names it.
    pub network: String,
    /// The container.
    pub container: String,
    /// Its device, where that was noted.
    pub device: Option<String>,
    /// Namespace and name of the pod, where they were noted.
    pub pod: Option<(String, String)>,
}

/// A file that cannot be understood. It is left as it is.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct Foreign {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub why: String,
}

/// All that the files say, by address; a file that is not there says nothing.
///
/// # Errors
/// Every file that could not be understood.
pub fn holders(places: &Places) -> Result<Vec<Holder>, Vec<Foreign>> {
    let mut found = Vec::new();
    let mut foreign = Vec::new();
    for read in [
        host_local(&places.networks, &mut foreign),
        take(
            azure(&places.azure_endpoints, "Network", endpoints),
            &mut foreign,
        ),
        take(azure(&places.azure_addresses, "IPAM", in_use), &mut foreign),
    ] {
        found.extend(read);
    }
    // Of two that name one address, the one that knows more stands first.
    found.sort_by_key(|holder: &Holder| (holder.address, holder.device.is_none()));
    found.dedup_by_key(|holder| holder.address);
    if foreign.is_empty() {
        Ok(found)
    } else {
        Err(foreign)
    }
}

fn take(read: Result<Vec<Holder>, Foreign>, foreign: &mut Vec<Foreign>) -> Vec<Holder> {
    read.unwrap_or_else(|why| {
        foreign.push(why);
        Vec::new()
    })
}

fn host_local(folder: &Path, foreign: &mut Vec<Foreign>) -> Vec<Holder> {
    let mut found = Vec::new();
    let below = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    for network in below(folder) {
        let name = network.file_name().to_string_lossy().into_owned();
        for entry in below(&network.path()) {
            // Others are `lock` and `last_reserved_ip.0`. Of IPv6 a colon may stand as it is.
            let Ok(address) = entry.file_name().to_string_lossy().parse() else {
                continue;
            };
            match reservation(&entry.path()) {
                Ok((container, device)) => found.push(Holder {
                    address,
                    network: name.clone(),
                    container,
                    device,
                    pod: None,
                }),
                Err(why) => foreign.push(why),
            }
        }
    }
    found
}

/// Container and device; old versions noted the container alone.
fn reservation(path: &Path) -> Result<(String, Option<String>), Foreign> {
    let text = read(path)?.unwrap_or_default();
    let mut lines = text.lines().map(str::trim);
    let plain = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    let container = lines.next().filter(plain);
    let container = container.ok_or_else(|| refused(path, "names no container"))?;
    let device = lines.next().filter(plain).map(str::to_owned);
    Ok((container.to_owned(), device))
}

fn read(path: &Path) -> Result<Option<String>, Foreign> {
    let wrong = |why: &dyn std::fmt::Display| refused(path, &why.to_string());
    match fs::metadata(path) {
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(&error)),
        Ok(found) if found.len() > BYTES_MAX => return Err(wrong(&"is too large")),
        Ok(_) => {}
    }
    fs::read_to_string(path)
        .map(Some)
        .map_err(|error| wrong(&error))
}

fn refused(path: &Path, why: &str) -> Foreign {
    Foreign {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

/// One of azure-container-networking's stores, in which `key` is to be an object.
fn store(path: &Path, key: &str) -> Result<Option<Value>, Foreign> {
    let Some(text) = read(path)?.filter(|text| !text.trim().is_empty()) else {
        return Ok(None);
    };
    let value: Value =
        serde_json::from_str(&text).map_err(|bad| refused(path, &format!("is no JSON: {bad}")))?;
    match value.get(key) {
        Some(Value::Object(_)) => Ok(Some(value)),
        _ => Err(refused(
            path,
            &format!("has no object '{key}': another program's"),
        )),
    }
}

fn azure(
    path: &Path,
    key: &str,
    gather: fn(&Value) -> Result<Vec<Holder>, String>,
) -> Result<Vec<Holder>, Foreign> {
    match store(path, key)? {
        Some(value) => gather(&value[key]).map_err(|why| refused(path, &why)),
        None => Ok(Vec::new()),
    }
}

/// The members of an object; none if it is absent.
fn members<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value
        .get(key)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

fn text(value: &Value, key: &str) -> Option<String> {
    let text = value.get(key)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

fn endpoints(network: &Value) -> Result<Vec<Holder>, String> {
    let mut found = Vec::new();
    for (_, interface) in members(network, "ExternalInterfaces") {
        for (name, network) in members(interface, "Networks") {
            for (id, endpoint) in members(network, "Endpoints") {
                let container = text(endpoint, "ContainerID")
                    .or_else(|| id.split('-').next().map(str::to_owned))
                    .unwrap_or_default();
                let addresses = endpoint.get("IPAddresses").and_then(Value::as_array);
                for address in addresses.into_iter().flatten() {
                    let address = text(address, "IP").and_then(|ip| ip.parse().ok());
                    found.push(Holder {
                        address: address.ok_or_else(|| format!("endpoint {id} has no address"))?,
                        network: name.clone(),
                        container: container.clone(),
                        device: text(endpoint, "IfName"),
                        pod: text(endpoint, "PODNameSpace").zip(text(endpoint, "PODName")),
                    });
                }
            }
        }
    }
    Ok(found)
}

fn in_use(ipam: &Value) -> Result<Vec<Holder>, String> {
    let mut found = Vec::new();
    for (_, space) in members(ipam, "AddressSpaces") {
        for (_, pool) in members(space, "Pools") {
            for (key, record) in members(pool, "Addresses") {
                if record.get("InUse").and_then(Value::as_bool) != Some(true) {
                    continue;
                }
                let address = key.parse().map_err(|_| format!("'{key}' is no address"))?;
                found.push(Holder {
                    address,
                    network: "azure".to_owned(),
                    container: text(record, "ID").unwrap_or_default(),
                    device: None,
                    pod: None,
                });
            }
        }
    }
    Ok(found)
}

/// Brings the files up to date for whoever comes after us: `holders` hold their addresses, and those
/// in `gone`, which were held when we came, are free. Files that were not there are not made, but
/// the folder of a network that `host-local` serves is.
///
/// # Errors
/// Every file that could not be read or written; the others are up to date.
pub fn give_back(
    places: &Places,
    holders: &[Holder],
    gone: &BTreeSet<IpAddr>,
) -> Result<(), Vec<Foreign>> {
    let addresses = rewrite(&places.azure_addresses, "IPAM", |ipam| {
        mark_addresses(ipam, holders, gone);
    });
    let endpoints = rewrite(&places.azure_endpoints, "Network", |network| {
        drop_endpoints(network, gone);
    });
    let mut failures: Vec<Foreign> = [addresses, endpoints]
        .into_iter()
        .filter_map(Result::err)
        .collect();
    if places.networks.is_dir() {
        failures.extend(give_back_files(&places.networks, holders, gone));
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures)
    }
}

fn give_back_files(folder: &Path, holders: &[Holder], gone: &BTreeSet<IpAddr>) -> Vec<Foreign> {
    let mut failures = Vec::new();
    let networks: BTreeSet<&str> = holders
        .iter()
        .map(|holder| holder.network.as_str())
        .collect();
    for network in networks {
        for address in gone {
            // One that is gone already is what we want.
            let _ = fs::remove_file(folder.join(network).join(address.to_string()));
        }
    }
    for holder in holders {
        let path = folder
            .join(&holder.network)
            .join(holder.address.to_string());
        let device = holder.device.as_deref().unwrap_or("eth0");
        let lines = format!("{}{LINE_BREAK}{device}", holder.container);
        let written = fs::create_dir_all(folder.join(&holder.network)).and_then(|()| {
            if path.exists() {
                Ok(())
            } else {
                write(&path, &lines)
            }
        });
        failures.extend(
            written
                .err()
                .map(|error| refused(&path, &error.to_string())),
        );
    }
    failures
}

/// Edits a store in place, if there is one.
fn rewrite(path: &Path, key: &str, edit: impl FnOnce(&mut Value)) -> Result<(), Foreign> {
    let Some(mut value) = store(path, key)? else {
        return Ok(());
    };
    let before = value.clone();
    edit(&mut value[key]);
    if value == before {
        return Ok(());
    }
    // As its own writer indents it.
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut out = serde_json::Serializer::with_formatter(&mut text, indent);
    let wrong = |error: &dyn std::fmt::Display| refused(path, &error.to_string());
    serde::Serialize::serialize(&value, &mut out).map_err(|error| wrong(&error))?;
    let text = String::from_utf8(text).expect("JSON is UTF-8");
    write(path, &text).map_err(|error| wrong(&error))
}

fn mark_addresses(ipam: &mut Value, holders: &[Holder], gone: &BTreeSet<IpAddr>) {
    let held = |address: &IpAddr| holders.iter().find(|holder| holder.address == *address);
    for (_, space) in members_mut(ipam, "AddressSpaces") {
        for (_, pool) in members_mut(space, "Pools") {
            for (key, record) in members_mut(pool, "Addresses") {
                let Ok(address) = key.parse() else { continue };
                if let Some(holder) = held(&address) {
                    record["InUse"] = json!(true);
                    if text(record, "ID").is_none() {
                        record["ID"] = json!(holder.container);
                    }
                } else if gone.contains(&address) {
                    record["InUse"] = json!(false);
                    record["ID"] = json!("");
                }
            }
        }
    }
}

fn drop_endpoints(network: &mut Value, gone: &BTreeSet<IpAddr>) {
    let is_gone = |endpoint: &Value| {
        let addresses = endpoint.get("IPAddresses").and_then(Value::as_array);
        let mut addresses = addresses.into_iter().flatten();
        addresses.any(|one| {
            let address: Option<IpAddr> = text(one, "IP").and_then(|ip| ip.parse().ok());
            address.is_some_and(|address| gone.contains(&address))
        })
    };
    for (_, interface) in members_mut(network, "ExternalInterfaces") {
        for (_, network) in members_mut(interface, "Networks") {
            if let Some(endpoints) = network.get_mut("Endpoints").and_then(Value::as_object_mut) {
                let kept: Map<String, Value> = std::mem::take(endpoints)
                    .into_iter()
                    .filter(|(_, endpoint)| !is_gone(endpoint))
                    .collect();
                *endpoints = kept;
            }
        }
    }
}

fn members_mut<'a>(
    value: &'a mut Value,
    key: &str,
) -> impl Iterator<Item = (&'a String, &'a mut Value)> {
    let object = value.get_mut(key).and_then(Value::as_object_mut);
    object.into_iter().flatten()
}

/// Whole or not at all: a new file beside the old one, which it then replaces.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("tapline-new");
    let written = fs::File::create(&beside)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
        })
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests;
