//! The node's truth, asked from sources that answer, lie, dawdle and hang up.
//!
//! In: stand-ins on the loopback of namespaces that the tests make. Out: verdicts.
//! Never: sends a packet outside of them.

use std::fs;
use std::time::{Duration, Instant};

use super::standin::{Answers, Manners, StandIn, interfaces_of, metadata_of};
use super::*;
use crate::config::{self, NodeConfig, TruthSource};
use crate::devices::{DeviceName, Netlink, Netns};
use crate::plan::{LoadOptions, Plan, load};

/// Does the work in a namespace of its own, whose loopback is up.
fn inside<T: Send + 'static>(work: impl FnOnce(&Netlink) -> T + Send + 'static) -> T {
    let namespace = Netns::create("node").expect("the right to make a namespace");
    let node = Netlink::open(&namespace).unwrap();
    let lo = DeviceName::new("lo").unwrap();
    node.set_up(&lo, true).unwrap();
    namespace.run(move || Ok(work(&node))).unwrap()
}

fn azure() -> (Plan, NodeConfig, dataplane::addr::Mac) {
    let plan = load(&LoadOptions::built_in()).unwrap();
    let text = config::for_node(&plan, &plan.nodes[0], None);
    let config = config::parse("tapline.json", text.as_bytes()).unwrap();
    (plan, config, "00:0d:3a:21:af:12".parse().unwrap())
}

fn stand_in(plan: &Plan, nic: dataplane::addr::Mac, manners: Manners) -> StandIn {
    let answers = Answers {
        interfaces: interfaces_of(&plan.nodes[0], nic),
        metadata: metadata_of(&plan.nodes[0], nic),
        manners,
    };
    StandIn::start("127.0.0.1:0".parse().unwrap(), answers).unwrap()
}

#[test]
fn azures_services_are_asked_in_turn_and_the_first_who_knows_is_believed() {
    inside(|node| {
        let (plan, mut config, nic) = azure();
        let good = stand_in(&plan, nic, Manners::Good);
        let failing = stand_in(&plan, nic, Manners::Failing);
        let wire = TruthSource::Wireserver(good.wireserver());
        let meta = TruthSource::Metadata(good.metadata());
        let broken = TruthSource::Wireserver(failing.wireserver());
        let mut truths = Vec::new();
        for (sources, from) in [
            (vec![wire.clone(), meta.clone()], &wire),
            (vec![broken.clone(), meta.clone()], &meta),
            (vec![meta.clone()], &meta),
        ] {
            config.truth.sources = sources;
            let told = learn(&config, node, Some(nic)).unwrap();
            assert_eq!(told.source, from.to_string());
            truths.push(told.truth);
        }
        assert!(truths.windows(2).all(|pair| pair[0] == pair[1]));
        let NodeTruth::Azure(found) = &truths[0] else {
            panic!("azure");
        };
        let planned: Vec<_> = plan.nodes[0].pod_ips.as_ref().unwrap().iter().collect();
        assert_eq!(found.secondary, planned);
        let own = ["10.20.0.4/24".parse().unwrap()];
        assert_eq!(
            differences(config.expected.as_ref().unwrap(), &truths[0], &own),
            []
        );
    });
}

#[test]
fn a_source_that_misbehaves_is_left_in_time_and_named() {
    inside(|node| {
        let (plan, mut config, nic) = azure();
        config.truth.timeout = Duration::from_millis(300);
        for (manners, why) in [
            (Manners::Failing, "http status: 500"),
            (Manners::Slow, "timeout"),
            (Manners::Endless, ""),
            (Manners::Redirecting, ""),
            (Manners::Garbage, ""),
            (Manners::CutShort, ""),
        ] {
            let bad = stand_in(&plan, nic, manners);
            config.truth.sources = vec![
                TruthSource::Wireserver(bad.wireserver()),
                TruthSource::Metadata(bad.metadata()),
            ];
            let began = Instant::now();
            let unknown = learn(&config, node, Some(nic)).unwrap_err();
            assert!(began.elapsed() < Duration::from_secs(2), "{manners:?}");
            assert_eq!(unknown.0.len(), 2, "{unknown}");
            let text = unknown.to_string();
            assert!(text.contains(why), "{manners:?}: {text}");
            assert!(text.starts_with("nobody knows which addresses"), "{text}");
            assert!(text.len() < 2000, "{manners:?}: {} bytes", text.len());
        }
    });
}

#[test]
fn without_anybody_there_nothing_is_known_and_the_plan_is_not_asked() {
    inside(|node| {
        let (_, mut config, nic) = azure();
        config.truth.timeout = Duration::from_millis(200);
        let unknown = learn(&config, node, Some(nic)).unwrap_err();
        assert_eq!(unknown.0.len(), 2);
        assert!(unknown.to_string().contains("168.63.129.16"), "{unknown}");
    });
}

#[test]
fn another_vms_document_is_refused() {
    inside(|node| {
        let (plan, mut config, nic) = azure();
        let other = stand_in(&plan, "00:0d:3a:00:00:99".parse().unwrap(), Manners::Good);
        config.truth.sources = vec![TruthSource::Wireserver(other.wireserver())];
        let unknown = learn(&config, node, Some(nic)).unwrap_err().to_string();
        assert!(
            unknown.contains("no interface has the uplink's MAC"),
            "{unknown}"
        );
    });
}

#[test]
fn kubenets_pod_cidr_comes_from_each_of_its_sources() {
    let folder = std::env::temp_dir().join(format!("tapline-node-{}", std::process::id()));
    let configurations = folder.join("net.d");
    fs::create_dir_all(&configurations).unwrap();
    fs::write(configurations.join("05-notes.txt"), "not a configuration").unwrap();
    fs::write(configurations.join("10-broken.conf"), "{").unwrap();
    fs::write(
        configurations.join("20-other.conflist"),
        r#"{"plugins": [{"type": "loopback"}]}"#,
    )
    .unwrap();
    let runtime = r#"{"cniVersion": "0.3.1", "name": "kubenet", "plugins": [{"type": "tapline-cni",
        "ipam": {"type": "host-local", "subnet": "10.244.1.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}]}"#;
    let object = r#"{"metadata": {"name": "node-0"}, "spec": {"podCIDR": "10.244.1.0/24"}}"#;
    fs::write(folder.join("node.json"), object).unwrap();
    let at = folder.clone();
    inside(move |node| {
        let text = r#"{"plugin": "kubenet", "node": "node-0"}"#;
        let mut config = config::parse("tapline.json", text.as_bytes()).unwrap();
        let cbr0 = DeviceName::new("cbr0").unwrap();
        let mut ask = |source: TruthSource| {
            config.truth.sources = vec![source];
            learn(&config, node, None)
        };
        let folder = TruthSource::Runtime(at.join("net.d"));
        let unknown = ask(folder.clone()).unwrap_err().to_string();
        assert!(
            unknown.contains("10-broken.conf: not the JSON"),
            "{unknown}"
        );
        assert!(
            unknown.contains("20-other.conflist: no plugin"),
            "{unknown}"
        );
        assert!(!unknown.contains("05-notes"), "{unknown}");
        fs::write(at.join("net.d/30-kubenet.conflist"), runtime).unwrap();
        assert!(ask(TruthSource::Bridge(cbr0.clone())).is_err());
        node.add_bridge(&cbr0).unwrap();
        assert!(ask(TruthSource::Bridge(cbr0.clone())).is_err());
        node.add_address(&cbr0, "10.244.1.1/24".parse().unwrap())
            .unwrap();
        let wanted =
            NodeTruth::Kubenet(PodCidrs::new(&["10.244.1.0/24".parse().unwrap()]).unwrap());
        for source in [
            folder,
            TruthSource::Runtime(at.join("net.d/30-kubenet.conflist")),
            TruthSource::NodeObject(at.join("node.json")),
            TruthSource::Bridge(cbr0.clone()),
            TruthSource::PodCidr(vec!["10.244.1.0/24".parse().unwrap()]),
        ] {
            assert_eq!(ask(source).unwrap().truth, wanted);
        }
    });
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn only_urls_that_can_be_asked_are_accepted() {
    for good in [
        WIRESERVER_URL,
        METADATA_URL,
        "http://127.0.0.1:8080/x",
        "http://h",
    ] {
        assert_eq!(check_url(good), Ok(()), "{good}");
    }
    for bad in [
        "https://x/",
        "ftp://x",
        "",
        "http://",
        "http:///x",
        "http://a@b/",
        "http://a b/",
        "http://ä/",
    ] {
        assert!(check_url(bad).is_err(), "{bad}");
    }
}
