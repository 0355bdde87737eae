//! The program `tapline-cni` as a container runtime starts it: variables, standard input, exit
//! status, and what it prints; the daemon behind it is one that a test scripts.
//!
//! In: the right to make namespaces. Out: what the daemon was asked, and what the runtime reads.
//! Never: makes a device. (control/tests/node has the real daemon.)

mod runtime;

use std::collections::VecDeque;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use control::api::server::Bound;
use control::api::types::{
    AddReply, AddRequest, AssignedIp, Bandwidth, CheckRequest, DelRequest, GcRequest, Interface,
    Key, PodAddress, PodName, RouteSpec, Valid,
};
use control::api::{Answer, ApiError, Call, ErrorKind, Handler, Limits, Server};
use control::devices::Netns;
use serde_json::{Value, json};

use runtime::{Called, call};

const GATEWAY: &str = "10.244.0.1";
const ADDRESS: &str = "10.244.0.5/24";

/// A daemon that answers what it was told to, in that order, and yes after that.
#[derive(Default)]
struct Script {
    calls: Mutex<Vec<Call>>,
    answers: Mutex<VecDeque<ApiError>>,
}

impl Handler for Script {
    fn handle(&self, call: Call) -> Result<Answer, ApiError> {
        self.calls.lock().expect("no panic").push(call.clone());
        if let Some(refusal) = self.answers.lock().expect("no panic").pop_front() {
            return Err(refusal);
        }
        match call {
            Call::Add(request) => Ok(Answer::of(&reply(&request))),
            Call::Del(_) | Call::Gc(_) => Ok(Answer::Json(json!({"removed": []}))),
            Call::Status => Ok(Answer::Json(
                json!({"ready": true, "of the next version": 1}),
            )),
            _ => Ok(Answer::Json(json!({}))),
        }
    }
}

fn reply(request: &AddRequest) -> AddReply {
    let interface = |name: &str, mac: &str, sandbox| Interface {
        name: name.into(),
        mac: mac.parse().expect("a MAC"),
        mtu: 1500,
        sandbox,
    };
    let own = AssignedIp {
        address: ADDRESS.parse().expect("a prefix"),
        gateway: Some(GATEWAY.parse().expect("an address")),
    };
    let ips = match request.assigned.as_slice() {
        [] => vec![own],
        assigned => assigned.to_vec(),
    };
    let ips = ips.into_iter().map(|ip| PodAddress {
        address: ip.address,
        gateway: ip.gateway,
        interface: 2,
    });
    AddReply {
        interfaces: vec![
            interface("cbr0", "0a:58:0a:f4:00:01", None),
            interface("veth01234567", "3a:00:00:00:00:01", None),
            interface("eth0", "0a:58:0a:f4:00:05", Some(request.netns.clone())),
        ],
        ips: ips.collect(),
        routes: request.routes.clone(),
    }
}

/// A runtime with a container, beside a scripted daemon.
struct Runtime {
    folder: tempfile::TempDir,
    script: Arc<Script>,
    container: Netns,
    server: Option<Server>,
}

impl Runtime {
    fn new() -> Runtime {
        let mut runtime = Runtime::alone();
        runtime.server = Some(serve(&runtime));
        runtime
    }

    /// The daemon is not there yet.
    fn alone() -> Runtime {
        Runtime {
            folder: tempfile::tempdir().expect("a folder"),
            script: Arc::default(),
            server: None,
            container: Netns::create("container").expect("namespaces can be made"),
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("run/tapline.sock")
    }

    fn netns(&self) -> PathBuf {
        self.container.path()
    }

    /// The next calls are answered so.
    fn refuse(&self, kinds: &[ErrorKind]) {
        let refusal = |kind: &ErrorKind| ApiError::new(*kind, format!("{kind:?} it is"));
        let mut answers = self.script.answers.lock().expect("no panic");
        answers.extend(kinds.iter().map(refusal));
    }

    /// What the daemon was asked since the last time.
    fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.script.calls.lock().expect("no panic"))
    }

    /// A configuration of that version with those members besides.
    fn conf(&self, version: &str, members: Value) -> Value {
        let mut conf = json!({
            "cniVersion": version,
            "name": "kubenet",
            "type": "tapline-cni",
            "socket": self.socket(),
        });
        let members = members.as_object().expect("an object").clone();
        conf.as_object_mut().expect("an object").extend(members);
        conf
    }

    fn call(&self, command: &str, conf: &Value) -> Called {
        self.call_with(command, conf, &[])
    }

    fn call_with(&self, command: &str, conf: &Value, variables: &[(&str, &str)]) -> Called {
        let folder = self.folder.path().display().to_string();
        let mut all = vec![
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", "c1".to_owned()),
            ("CNI_NETNS", self.netns().display().to_string()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", folder),
        ];
        // The last of a name holds.
        all.extend(
            variables
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        call(conf, &all)
    }

    /// An `ipam` plugin in a few lines of shell: each address is a file, named like it, that holds
    /// the container's id. `c-mute` and `c-full` are containers that it fails for.
    fn ipam(&self) -> Value {
        let script = r#"#!/bin/sh
set -eu
folder=$(dirname "$0")
mkdir -p "$folder/held"
echo "$CNI_COMMAND" >> "$folder/heard"
cat > "$folder/last"
case "$CNI_COMMAND $CNI_CONTAINERID" in
"ADD c-mute") exit 3 ;;
"ADD c-full") echo '{"cniVersion": "1.0.0", "code": 11, "msg": "full", "details": "of it"}'; exit 1 ;;
"ADD c-none") echo '{"cniVersion": "1.0.0", "ips": []}' ;;
ADD*)
    n=2
    while ! (set -C; echo "$CNI_CONTAINERID" > "$folder/held/10.9.0.$n") 2>/dev/null; do n=$((n + 1)); done
    echo "{\"cniVersion\": \"1.0.0\", \"ips\": [{\"address\": \"10.9.0.$n/24\", \"gateway\": \"10.9.0.1\"}],
        \"routes\": [{\"dst\": \"0.0.0.0/0\"}], \"dns\": {\"domain\": \"held\"}}" ;;
DEL*) for f in "$folder"/held/*; do if grep -qx "$CNI_CONTAINERID" "$f" 2>/dev/null; then rm "$f"; fi; done ;;
GC* | STATUS*) echo '{"code": 4, "msg": "unknown CNI_COMMAND"}'; exit 1 ;;
esac
"#;
        let path = self.folder.path().join("held-in-files");
        fs::write(&path, script).expect("the folder is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        json!({"ipam": {"type": "held-in-files"}})
    }

    /// Addresses that the `ipam` plugin has given.
    fn held(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join("held")).expect("it was called");
        let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("digits");
        entries.flatten().map(name).collect()
    }

    /// The commands that it heard.
    fn heard(&self) -> String {
        fs::read_to_string(self.folder.path().join("heard")).expect("it was called")
    }
}

fn key() -> Key {
    Key {
        network: "kubenet".into(),
        container_id: "c1".into(),
        ifname: "eth0".into(),
    }
}

fn del_of(runtime: &Runtime) -> Call {
    Call::Del(DelRequest {
        key: key(),
        netns: Some(runtime.netns()),
    })
}

fn add_of(runtime: &Runtime) -> AddRequest {
    AddRequest {
        key: key(),
        netns: runtime.netns(),
        pod: None,
        mtu: None,
        mac: None,
        hairpin: false,
        isolated: false,
        mac_spoof_check: None,
        requested: Vec::new(),
        assigned: Vec::new(),
        default_route: true,
        routes: Vec::new(),
        is_gateway: false,
        ip_masq: false,
        force_address: false,
        bandwidth: None,
    }
}

#[test]
fn an_add_tells_the_daemon_all_that_the_runtime_told() {
    let runtime = Runtime::new();
    let bare = runtime.conf("1.1.0", json!({}));
    assert!(runtime.call("ADD", &bare).success);
    assert_eq!(runtime.calls(), [Call::Add(Box::new(add_of(&runtime)))]);

    let rich = runtime.conf(
        "1.1.0",
        json!({
            "bridge": "cbr0", "isDefaultGateway": true, "forceAddress": true, "ipMasq": true,
            "hairpinMode": true, "mtu": 1400, "macspoofchk": false,
            "ipam": {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.244.0.9"}]},
            "runtimeConfig": {
                "mac": "0a:58:0a:f4:00:07",
                "ips": ["10.244.0.7"],
                "bandwidth": {"ingressRate": 1000000, "ingressBurst": 80000},
            },
        }),
    );
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-a";
    assert!(
        runtime
            .call_with("ADD", &rich, &[("CNI_ARGS", args)])
            .success
    );
    let expected = AddRequest {
        pod: Some(PodName {
            namespace: "default".into(),
            name: "pod-a".into(),
        }),
        mtu: Some(1400),
        mac: Some("0a:58:0a:f4:00:07".parse().expect("a MAC")),
        hairpin: true,
        mac_spoof_check: Some(false),
        requested: vec!["10.244.0.7".parse().expect("an address")],
        routes: vec![RouteSpec {
            dst: "10.9.0.0/16".parse().expect("a prefix"),
            gw: Some("10.244.0.9".parse().expect("an address")),
        }],
        is_gateway: true,
        ip_masq: true,
        force_address: true,
        bandwidth: Some(Bandwidth {
            ingress_rate: 1_000_000,
            ingress_burst: 80_000,
            ..Bandwidth::default()
        }),
        ..add_of(&runtime)
    };
    assert_eq!(runtime.calls(), [Call::Add(Box::new(expected))]);
}

#[test]
fn a_result_has_the_shape_of_the_configurations_version() {
    let runtime = Runtime::new();
    for version in [
        "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
    ] {
        let called = runtime.call("ADD", &runtime.conf(version, json!({})));
        assert!(called.success);
        let printed = called.printed.expect("a result");
        assert_eq!(printed["cniVersion"], version);
        if version < "0.3.0" {
            let ip4 = json!({"ip": ADDRESS, "gateway": GATEWAY});
            assert_eq!(
                printed,
                json!({"cniVersion": version, "ip4": ip4, "dns": {}})
            );
            continue;
        }
        let mut ip = json!({"interface": 2, "address": ADDRESS, "gateway": GATEWAY});
        if version < "1.0.0" {
            ip["version"] = "4".into();
        }
        assert_eq!(printed["ips"], json!([ip]));
        let mtu = printed["interfaces"][2]["mtu"].as_u64();
        assert_eq!(mtu, (version == "1.1.0").then_some(1500));
        assert_eq!(printed["interfaces"][2]["sandbox"], json!(runtime.netns()));
        assert_eq!(printed["interfaces"][0]["name"], "cbr0");
    }
}

#[test]
fn every_refusal_of_the_daemon_reaches_the_runtime_with_its_code() {
    use ErrorKind::*;
    let runtime = Runtime::new();
    let conf = runtime.conf("0.4.0", json!({}));
    let kinds = [
        Invalid,
        Netns,
        Exists,
        Exhausted,
        AddressTaken,
        Device,
        State,
        Forbidden,
        TooLarge,
        Internal,
        Version,
    ];
    for kind in kinds {
        runtime.refuse(&[kind]);
        let called = runtime.call("ADD", &conf);
        // 1 would say that the version of CNI is at fault.
        let code = if kind == Version { 112 } else { kind.code() };
        assert_eq!(
            called.error(),
            (code.into(), format!("{kind:?} it is").as_str())
        );
        assert_eq!(called.printed.expect("printed")["cniVersion"], "0.4.0");
    }
}

#[test]
fn an_ipam_plugin_assigns_and_gets_back_what_an_add_that_failed_had() {
    let runtime = Runtime::new();
    let conf = runtime.conf("0.3.1", runtime.ipam());
    let called = runtime.call("ADD", &conf);
    let printed = called.printed.expect("a result");
    assert_eq!(printed["ips"][0]["address"], "10.9.0.2/24", "{printed}");
    assert_eq!(printed["dns"], json!({"domain": "held"}));
    let expected = AddRequest {
        assigned: vec![AssignedIp {
            address: "10.9.0.2/24".parse().expect("a prefix"),
            gateway: Some("10.9.0.1".parse().expect("an address")),
        }],
        default_route: false,
        routes: vec![RouteSpec {
            dst: "0.0.0.0/0".parse().expect("a prefix"),
            gw: None,
        }],
        ..add_of(&runtime)
    };
    assert_eq!(runtime.calls(), [Call::Add(Box::new(expected))]);
    // It had the whole configuration, as it came.
    let last = fs::read_to_string(runtime.folder.path().join("last")).expect("written");
    assert_eq!(last, conf.to_string());

    let other = [("CNI_CONTAINERID", "c2")];
    runtime.refuse(&[ErrorKind::Device]);
    assert_eq!(runtime.call_with("ADD", &conf, &other).error().0, 5);
    assert_eq!(runtime.held(), ["10.9.0.2"], "what c2 had is free again");
    // A switch of another name: the port is taken away, and the address.
    runtime.calls();
    let elsewhere = runtime.conf("0.3.1", json!({"bridge": "br7", "ipam": conf["ipam"]}));
    let called = runtime.call_with("ADD", &elsewhere, &other);
    assert_eq!(called.error().0, 7);
    let details = called.printed.expect("printed")["details"].clone();
    assert_eq!(details, "bridge: this node's switch is cbr0, not br7");
    assert!(matches!(
        runtime.calls().as_slice(),
        [Call::Add(_), Call::Del(_)]
    ));
    assert_eq!(runtime.held(), ["10.9.0.2"]);

    runtime.call("DEL", &conf).nothing();
    assert_eq!(runtime.held(), [] as [String; 0]);
    assert_eq!(runtime.calls(), [del_of(&runtime)]);
    assert_eq!(runtime.heard(), "ADD\nADD\nDEL\nADD\nDEL\nDEL\n");
}

#[test]
fn an_ipam_plugin_that_fails_is_heard_and_nothing_is_attached() {
    let runtime = Runtime::new();
    let conf = runtime.conf("1.0.0", runtime.ipam());
    for (container, code) in [("c-full", 11), ("c-mute", 110), ("c-none", 111)] {
        let called = runtime.call_with("ADD", &conf, &[("CNI_CONTAINERID", container)]);
        assert_eq!(called.error().0, code, "{called:?}");
    }
    assert_eq!(runtime.calls(), [], "the daemon was never asked");
    let missing = runtime.conf("1.0.0", json!({"ipam": {"type": "not-here"}}));
    let called = runtime.call("ADD", &missing);
    let (code, message) = called.error();
    assert_eq!(code, 5);
    assert!(
        message.starts_with("failed to find plugin \"not-here\" in path"),
        "{message}"
    );
}

#[test]
fn a_del_goes_on_past_what_fails_and_may_come_twice() {
    let runtime = Runtime::new();
    let conf = runtime.conf("0.1.0", runtime.ipam());
    assert!(runtime.call("ADD", &conf).success);
    runtime.refuse(&[ErrorKind::Device]);
    assert_eq!(runtime.call("DEL", &conf).error().0, 5);
    assert_eq!(
        runtime.held(),
        [] as [String; 0],
        "the address went back all the same"
    );
    runtime.refuse(&[ErrorKind::NotFound]);
    runtime.call("DEL", &conf).nothing();
    // Without namespace, and with one that is gone.
    runtime.calls();
    runtime
        .call_with("DEL", &conf, &[("CNI_NETNS", "")])
        .nothing();
    runtime
        .call_with("DEL", &conf, &[("CNI_NETNS", "/proc/1/fd/none")])
        .nothing();
    let netns = |call: &Call| match call {
        Call::Del(request) => request.netns.clone(),
        other => panic!("{other:?}"),
    };
    let told: Vec<_> = runtime.calls().iter().map(netns).collect();
    assert_eq!(told, [None, Some("/proc/1/fd/none".into())]);
}

#[test]
fn a_check_right_after_an_add_hands_over_what_that_add_printed() {
    let runtime = Runtime::new();
    let plain = runtime.conf("0.4.0", runtime.ipam());
    let result = runtime.call("ADD", &plain).printed.expect("a result");
    runtime.calls();
    let mut members = runtime.ipam();
    members["prevResult"] = result;
    let conf = runtime.conf("0.4.0", members);
    runtime.call("CHECK", &conf).nothing();
    let calls = runtime.calls();
    let [Call::Check(request)] = calls.as_slice() else {
        panic!("{calls:?}");
    };
    let CheckRequest {
        interfaces,
        ips,
        routes,
        ..
    } = &**request;
    let names: Vec<&str> = interfaces.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["cbr0", "veth01234567", "eth0"]);
    assert_eq!(interfaces[2].sandbox, Some(runtime.netns()));
    let address = "10.9.0.2/24".parse().expect("a prefix");
    assert_eq!(
        ips.iter().map(|ip| ip.address).collect::<Vec<_>>(),
        [address]
    );
    assert_eq!(routes.len(), 1);
    runtime.refuse(&[ErrorKind::Differs]);
    assert_eq!(runtime.call("CHECK", &conf).error().0, 102);
    assert_eq!(runtime.heard(), "ADD\nCHECK\nCHECK\n");
}

#[test]
fn gc_and_status_ask_the_daemon_and_bear_an_ipam_plugin_that_knows_neither() {
    let runtime = Runtime::new();
    let mut members = runtime.ipam();
    let valid = json!([{"containerID": "c1", "ifname": "eth0"}]);
    members["cni.dev/valid-attachments"] = valid;
    let conf = runtime.conf("1.1.0", members);
    runtime.call("GC", &conf).nothing();
    runtime.call("STATUS", &conf).nothing();
    let gc = GcRequest {
        network: "kubenet".into(),
        valid: vec![Valid {
            container_id: "c1".into(),
            ifname: "eth0".into(),
        }],
    };
    assert_eq!(runtime.calls(), [Call::Gc(gc), Call::Status]);
    assert_eq!(runtime.heard(), "GC\nSTATUS\n");
    for kind in [ErrorKind::NotReady, ErrorKind::Exhausted] {
        runtime.refuse(&[kind]);
        assert_eq!(
            runtime.call("STATUS", &conf).error().0,
            u64::from(kind.code())
        );
    }
}

#[test]
fn in_a_chain_the_result_before_is_carried_along() {
    let runtime = Runtime::new();
    let before = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "lo", "sandbox": "/n"}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}],
    });
    let conf = runtime.conf("1.0.0", json!({"prevResult": before}));
    let printed = runtime.call("ADD", &conf).printed.expect("a result");
    let places: Vec<_> = (0..2)
        .map(|at| printed["ips"][at]["interface"].as_u64())
        .collect();
    assert_eq!(places, [Some(0), Some(3)], "{printed}");
}

#[test]
fn a_daemon_that_is_away_for_a_moment_is_waited_for() {
    let runtime = Runtime::alone();
    let conf = runtime.conf("1.1.0", json!({}));
    let (called, _server) = thread::scope(|scope| {
        let early = scope.spawn(|| runtime.call("ADD", &conf));
        thread::sleep(Duration::from_millis(300));
        assert!(!early.is_finished(), "there is nobody to ask");
        let server = serve(&runtime);
        (early.join().expect("no panic"), server)
    });
    assert!(called.success, "{called:?}");
    // One that has just come may not know its node yet.
    runtime.calls();
    runtime.refuse(&[ErrorKind::NotReady, ErrorKind::NotReady]);
    assert!(runtime.call("ADD", &conf).success);
    assert_eq!(runtime.calls().len(), 3);
}

fn serve(runtime: &Runtime) -> Server {
    let user = rustix::process::geteuid().as_raw();
    let bound = Bound::at(&runtime.socket()).expect("a fresh path");
    let handler = Arc::<Script>::clone(&runtime.script);
    bound
        .serve(handler, vec![user], Limits::default())
        .expect("a thread")
}

/// Takes one connection, reads of it, and dies.
fn die_of_a_request(socket: &Path) {
    fs::create_dir_all(socket.parent().expect("a folder")).expect("ours");
    let listener = UnixListener::bind(socket).expect("a fresh path");
    let (mut stream, _) = listener.accept().expect("a client");
    let _ = stream.read(&mut [0; 64]);
    fs::remove_file(socket).expect("ours");
}

#[test]
fn an_add_whose_answer_was_cut_off_is_undone_and_made_again() {
    let runtime = Runtime::alone();
    let conf = runtime.conf("1.1.0", json!({}));
    let (called, _server) = thread::scope(|scope| {
        let socket = runtime.socket();
        let dying = scope.spawn(move || die_of_a_request(&socket));
        let add = scope.spawn(|| runtime.call("ADD", &conf));
        dying.join().expect("no panic");
        let server = serve(&runtime);
        (add.join().expect("no panic"), server)
    });
    assert!(called.success, "{called:?}");
    let expected = [del_of(&runtime), Call::Add(Box::new(add_of(&runtime)))];
    assert_eq!(runtime.calls(), expected);
}
