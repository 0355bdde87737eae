//! What speaks against an adoption is told, all of it at once, before anything moves.
//!
//! In: a daemon beside a bridge on which somebody has built, that runs spanning tree, or whose notes of
//! addresses make no sense. Out: the reasons, a node as before, and files as they were.
//! Never: judges what this kernel or machine cannot do: what is to be in the way is put there by `ip` and
//! `tc`, and says so where it is not.

use std::fs;
use std::process::Command;

use control::devices::tap::{self, TapSpec};
use control::lab::privilege::PrivateNet;

use crate::adopt::Bridged;
use crate::world::name;

/// Runs a command in the node; false where it cannot be done here.
fn done(bridged: &Bridged, words: &str) -> bool {
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    let ran = bridged.world.node.run(|| command.output());
    let well = ran.as_ref().is_ok_and(|out| out.status.success());
    if !well {
        println!("cannot be done here: {command:?}: {ran:?}");
    }
    well
}

/// Adopts, and is refused with each of these, and nothing is otherwise than before.
fn refused(bridged: &Bridged, whys: &[String]) {
    let before = bridged.world.snapshot();
    let (status, said) = bridged.tries(&[]);
    assert_eq!(status, Some(2), "{said}");
    for why in whys {
        assert!(said.contains(why.as_str()), "{why}: {said}");
    }
    assert_eq!(bridged.world.snapshot(), before, "{whys:?}");
    bridged.all_reach("after a refusal");
}

pub(crate) fn what_stands_on_a_bridge_or_runs_on_it_is_named(_: PrivateNet) {
    let bridged = Bridged::new();
    let _running = bridged.start();
    let net = bridged.world.net();
    let (status, said) = bridged.tries(&["--bridge", "cbr1"]);
    assert_eq!(status, Some(2));
    assert!(said.contains("beside cbr0, and adopts no other"), "{said}");
    let mut whys = Vec::new();
    let mut way_back = Vec::new();
    for (put, take, why) in [
        (
            "ip link set cbr0 type bridge stp_state 1",
            "ip link set cbr0 type bridge stp_state 0",
            "cbr0 runs spanning tree",
        ),
        (
            "ip link set cbr0 type bridge vlan_filtering 1",
            "ip link set cbr0 type bridge vlan_filtering 0",
            "cbr0 filters by VLAN",
        ),
        (
            "ip link add on-top link cbr0 type macvlan",
            "ip link del on-top",
            "on-top stands on cbr0: another owner uses it",
        ),
        (
            "tc qdisc add dev veth00000005 clsact",
            "tc qdisc del dev veth00000005 clsact",
            "",
        ),
        (
            "tc filter add dev veth00000005 ingress protocol ip prio 12 u32 match ip dport 80 0xffff flowid 1:1",
            "",
            "port veth00000005 has filters of another owner",
        ),
    ] {
        if done(&bridged, put) {
            whys.push(why.to_owned());
            way_back.push(take);
        }
    }
    let tap = TapSpec::new(name("foreign0"), 1500);
    tap::ensure(&net, &tap).expect("a TAP");
    net.set_bridge(&tap.name, &name("cbr0")).expect("a port");
    whys.push("port foreign0 is tun, not a veth".to_owned());
    refused(&bridged, &whys);
    net.remove_link(&tap.name).expect("it goes");
    for take in way_back.into_iter().rev().filter(|take| !take.is_empty()) {
        assert!(done(&bridged, take), "{take}");
    }
    bridged.adopt(&[]);
    bridged.all_reach("by the switch");
}

pub(crate) fn notes_that_make_no_sense_are_named_and_stay_as_they_are(_: PrivateNet) {
    let bridged = Bridged::new();
    let _running = bridged.start();
    let path = |name: &str| bridged.world.path(name);
    let [endpoints, addresses] = ["azure-vnet.json", "azure-vnet-ipam.json"].map(path);
    let note = path("networks/kubenet/10.244.1.6");
    let own = fs::read_to_string(&note).expect("noted");
    let bad = [
        (&note, "\r\n", "names no container"),
        (&endpoints, "{\"Network\": {", "is no JSON"),
        (&addresses, "{\"Other\": {}}", "has no object 'IPAM'"),
    ];
    for (file, text, _) in bad {
        fs::write(file, text).expect("ours");
    }
    let whys = bad.map(|(file, _, why)| format!("{}: {why}", file.display()));
    refused(&bridged, &whys);
    for (file, text, _) in bad {
        assert_eq!(fs::read_to_string(file).expect("there"), text);
    }
    fs::write(&note, own).expect("ours");
    for file in [&endpoints, &addresses] {
        fs::remove_file(file).expect("ours");
    }
    bridged.adopt(&["--confirm-within", "0"]);
    // On the way back, too: the pods go, and the file stays.
    fs::write(&endpoints, "{").expect("ours");
    let (status, said) = bridged.releases();
    assert_eq!(status, Some(2), "{said}");
    assert!(
        said.contains(&format!("{}: is no JSON", endpoints.display())),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&endpoints).expect("there"), "{");
    bridged.all_reach("on the bridge again");
}
