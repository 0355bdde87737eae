//! What `tcpdump` at the host device will show.
//!
//! In: the configuration, the node's namespace, and a daemon, if one answers. Out: a finding.
//! Never: a device in the node: whether this kernel can show copies is tried in a namespace that dies.

use dataplane::facility::Facility;

use super::finding::Finding;
use crate::api::client::Client;
use crate::api::views::CopiesView;
use crate::config::NodeConfig;
use crate::devices::attach::{Copies, copies};
use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;
use crate::devices::netlink::Netlink;
use crate::devices::netns::Netns;
use crate::devices::tap::{self, TapSpec};

const NAME: &str = "tcpdump";
/// What shows all of it, wherever the copies do not.
const OTHERWISE: &str = "tapline capture shows every frame, with where it went and why";

/// Whether those who listen at the host device are shown what a bridge would show there.
pub(super) fn finding(config: &NodeConfig, net: &Netlink) -> Finding {
    let device = &config.host_port.device;
    let host_only = |why: &str, next: &str| {
        let found = format!("-i {device} shows only what goes to the node's kernel: {why}");
        Finding::warn(NAME, found, format!("{next}; meanwhile {OTHERWISE}"))
    };
    if let Some(why) = failure(config) {
        return host_only(
            &why,
            "tcpdump once more tries it again; tapline show steering says how it went",
        );
    }
    match net.find_link(&copies::tap()) {
        Ok(Some(link)) if !super::network::is_ours(&link) => {
            let why = format!("{} is somebody else's device", link.name);
            return host_only(&why, &format!("give {} another name", link.name));
        }
        Ok(_) => {}
        Err(why) => return Finding::unknown(NAME, why.to_string(), "run the doctor as root"),
    }
    let alone = config.workers.get() == 1;
    match tried(alone && Facility::MultiQueue.is_allowed()) {
        Err(why) => host_only(&why.to_string(), "modprobe -a cls_bpf act_mirred act_gact"),
        Ok(true) => Finding::good(NAME, format!("-i {device} shows what it would on a bridge")),
        Ok(false) => {
            let why = match alone {
                true => "a TAP has one queue here (multi_queue)",
                false => "there are several workers",
            };
            let found = format!("-i {device} shows no broadcasts: {why}");
            let next = match alone {
                true => "take multi_queue out of features_off, or use a kernel that has it",
                false => "set workers to 1 if one is enough",
            };
            Finding::warn(NAME, found, format!("{next}; {OTHERWISE}"))
        }
    }
}

/// What of `GET /v1/steering` is asked for.
#[derive(serde::Deserialize)]
struct Told {
    copies: Option<CopiesView>,
}

/// What the daemon says of it, if one answers and somebody listened in vain.
fn failure(config: &NodeConfig) -> Option<String> {
    let view: Told = Client::new(&config.socket).get("/v1/steering").ok()?;
    view.copies?.failure
}

/// Shows copies in a namespace of its own. True if broadcasts are among them.
fn tried(broadcasts: bool) -> Result<bool, DeviceError> {
    let netns = Netns::create("doctor").map_err(|source| DeviceError::Inside {
        attempt: "make a namespace".to_owned(),
        namespace: "doctor".into(),
        source,
    })?;
    let net = Netlink::open(&netns)?;
    let host = DeviceName::new("host0").expect("five letters are a name");
    tap::ensure(&net, &TapSpec::new(host.clone(), 1500))?;
    let way = Copies::open_as_allowed(&net, &host, broadcasts)?;
    let shown = way.shows_broadcasts();
    way.close(&net)?;
    Ok(shown)
}
