//! The plugin without a daemon: what it reads, what it writes, and what it says when it cannot.
//!
//! In: variables and configurations by hand, and of any content.
//! Out: whole results and errors, compared as JSON.
//! Never: waits for a daemon, or starts a program. (control/tests/cni_plugin.rs does both.)

mod golden;

use std::collections::BTreeMap;

use dataplane::addr::Mac;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::api::types::{Bandwidth, PodName, Valid};

/// A call with those variables; the daemon is not there.
fn call(variables: &[(&str, &str)], stdin: &str) -> Value {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    let lookup = |name: &str| variables.get(name).map(OsString::from);
    let outcome = run_within(&lookup, stdin.as_bytes(), Duration::ZERO);
    let printed: Value = serde_json::from_str(&outcome.printed).expect("one document");
    assert_eq!(outcome.success, printed.get("code").is_none(), "{printed}");
    printed
}

/// The code, the message and the details.
fn says(error: &Value) -> (u64, &str, &str) {
    let text = |key| error[key].as_str().unwrap_or_default();
    (
        error["code"].as_u64().expect("a code"),
        text("msg"),
        text("details"),
    )
}

const CONF: &str = r#"{"cniVersion": "1.1.0", "name": "kubenet", "type": "tapline-cni",
    "socket": "/nowhere/tapline.sock"}"#;
const DEL: [(&str, &str); 3] = [
    ("CNI_COMMAND", "DEL"),
    ("CNI_CONTAINERID", "c1"),
    ("CNI_IFNAME", "eth0"),
];

fn conf(text: &str) -> Conf {
    Conf::parse(text.as_bytes()).expect("a configuration")
}

/// A configuration with those members besides its name and version.
fn with(members: &str) -> Conf {
    conf(&format!(
        r#"{{"cniVersion": "0.3.1", "name": "n", {members}}}"#
    ))
}

fn wanted(members: &str) -> Wanted {
    with(members)
        .wanted(&Args::default())
        .expect("nothing is refused")
}

fn refused(members: &str) -> CniError {
    with(members).wanted(&Args::default()).expect_err("refused")
}

#[test]
fn version_lists_what_is_spoken_whatever_comes_in() {
    for stdin in ["", "garbage", r#"{"cniVersion": "1.1.0"}"#] {
        let printed = call(&[("CNI_COMMAND", "VERSION")], stdin);
        let expected = serde_json::json!({
            "cniVersion": "1.1.0",
            "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        });
        assert_eq!(printed, expected);
    }
}

#[test]
fn variables_that_are_missing_are_named_together() {
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[], "CNI_COMMAND"),
        (
            &[("CNI_COMMAND", "ADD")],
            "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME",
        ),
        (
            &[("CNI_COMMAND", "CHECK"), ("CNI_NETNS", "/n")],
            "CNI_CONTAINERID,CNI_IFNAME",
        ),
        (
            &[("CNI_COMMAND", "DEL"), ("CNI_IFNAME", "eth0")],
            "CNI_CONTAINERID",
        ),
        (
            &[("CNI_COMMAND", "DEL"), ("CNI_IFNAME", "")],
            "CNI_CONTAINERID,CNI_IFNAME",
        ),
        (&[("CNI_COMMAND", "GC")], "CNI_PATH"),
    ];
    for (variables, names) in cases {
        let error = call(variables, CONF);
        let message = format!("required env variables [{names}] missing");
        assert_eq!(says(&error), (4, message.as_str(), ""));
        assert_eq!(error["cniVersion"], "1.1.0");
    }
    let error = call(&[("CNI_COMMAND", "add")], CONF);
    assert_eq!(says(&error), (4, "unknown CNI_COMMAND: add", ""));
}

#[test]
fn variables_that_cannot_be_are_refused() {
    let cases = [
        (
            "CNI_CONTAINERID",
            "../etc",
            "invalid characters in containerID",
        ),
        ("CNI_CONTAINERID", "-a", "invalid characters in containerID"),
        (
            "CNI_IFNAME",
            "..",
            "CNI_IFNAME: '..' cannot be the name of a device",
        ),
        (
            "CNI_IFNAME",
            "sixteen-letters-",
            "CNI_IFNAME: 'sixteen-letters-' cannot be",
        ),
        (
            "CNI_IFNAME",
            "a b",
            "CNI_IFNAME: 'a b' cannot be the name of a device",
        ),
        (
            "CNI_NETNS",
            "run/netns/a",
            "CNI_NETNS is not an absolute path",
        ),
        (
            "CNI_ARGS",
            "K8S_POD_NAME",
            "ARGS: invalid pair \"K8S_POD_NAME\"",
        ),
        ("CNI_ARGS", "A=1;B=2", "ARGS: unknown args [\"A\" \"B\"]"),
        (
            "CNI_ARGS",
            "A=1;IgnoreUnknown=yes",
            "ARGS: IgnoreUnknown is \"yes\"",
        ),
        (
            "CNI_ARGS",
            "MAC=01:00:5e:00:00:01",
            "ARGS: 01:00:5e:00:00:01 is no address of one",
        ),
        ("CNI_ARGS", "IP=10.0.0", "ARGS: '10.0.0' is no IP address"),
    ];
    for (name, value, message) in cases {
        let variables = [&DEL[..], &[(name, value)]].concat();
        let error = call(&variables, CONF);
        let (code, says, _) = says(&error);
        assert_eq!(code, 4, "{name}={value}: {error}");
        assert!(says.starts_with(message), "{says}");
    }
}

#[test]
fn a_namespace_has_to_be_one_and_not_the_nodes_own() {
    let add = |netns| {
        [
            &[("CNI_NETNS", netns)],
            &DEL[1..],
            &[("CNI_COMMAND", "ADD")],
        ]
        .concat()
    };
    let cases = [
        ("/run/netns/none-of-that-name", "there is no namespace"),
        ("/dev/null", "/dev/null is no network namespace"),
        (
            "/proc/self/ns/net",
            "plugin's netns and netns from CNI_NETNS should not be the same",
        ),
    ];
    for (netns, message) in cases {
        let error = call(&add(netns), CONF);
        let (code, says, _) = says(&error);
        assert_eq!(code, 8, "{error}");
        assert!(says.starts_with(message), "{says}");
    }
    // The runtime insists: what fails then is the daemon, which is not there.
    let own = [
        &add("/proc/self/ns/net")[..],
        &[("CNI_NETNS_OVERRIDE", "true")],
    ]
    .concat();
    assert_eq!(says(&call(&own, CONF)).0, 11);
    // A DEL comes after the namespace has gone, or was never told of.
    for gone in ["/run/netns/none-of-that-name", "/dev/null", ""] {
        let del = [&DEL[..], &[("CNI_NETNS", gone)]].concat();
        assert_eq!(says(&call(&del, CONF)).0, 11, "{gone}");
    }
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_with_its_code() {
    let cases = [
        ("", 6, "error unmarshalling network config"),
        ("[]", 6, "error unmarshalling network config"),
        (
            r#"{"name": 7}"#,
            6,
            "error unmarshalling network config: name is not text",
        ),
        (
            r#"{"name": "n", "ipam": 1}"#,
            6,
            "error unmarshalling network config: ipam",
        ),
        ("{}", 7, "missing network name"),
        (
            r#"{"name": "a/b"}"#,
            7,
            "invalid characters in network name",
        ),
        (
            r#"{"name": "n", "socket": "s"}"#,
            7,
            "socket is not an absolute path",
        ),
        (
            r#"{"name": "n", "ipam": {"type": "../sh"}}"#,
            7,
            "ipam.type is no name of a plugin",
        ),
        (
            r#"{"name": "n", "cniVersion": "2.0.0"}"#,
            1,
            "incompatible CNI versions",
        ),
    ];
    for (stdin, code, message) in cases {
        let error = call(&DEL, stdin);
        let (found, says, _) = says(&error);
        assert_eq!(found, code, "{stdin}: {error}");
        assert!(says.starts_with(message), "{says}");
    }
    let error = call(&DEL, r#"{"name": "n", "cniVersion": "2.0.0"}"#);
    assert!(
        says(&error)
            .2
            .starts_with("config is \"2.0.0\", plugin supports [0.1.0 ")
    );
    let long = format!("{CONF}{}", " ".repeat(1 << 20));
    assert_eq!(says(&call(&DEL, &long)).0, 5);
}

#[test]
fn an_error_bears_the_version_of_the_configuration() {
    for version in Version::ALL {
        let stdin = CONF.replace("1.1.0", version.text());
        assert_eq!(call(&DEL, &stdin)["cniVersion"], version.text());
    }
}

#[test]
fn commands_need_the_version_that_brought_them() {
    let own = ("CNI_NETNS", "/proc/self/ns/net");
    let insist = ("CNI_NETNS_OVERRIDE", "1");
    for (command, since) in [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")] {
        let who = [("CNI_COMMAND", command), ("CNI_PATH", "/"), own, insist];
        let variables = [&who[..], &DEL[1..]].concat();
        for version in Version::ALL.map(Version::text) {
            let error = call(&variables, &CONF.replace("1.1.0", version));
            let message = format!("config version does not allow {command}");
            assert_eq!(says(&error).1 == message, version < since, "{error}");
            assert_eq!(says(&error).0 == 1, version < since, "{error}");
        }
    }
}

#[test]
fn a_status_without_a_daemon_is_not_available() {
    let error = call(&[("CNI_COMMAND", "STATUS")], CONF);
    let (code, message, _) = says(&error);
    assert_eq!(code, 50);
    assert!(
        message.starts_with("no daemon answers at /nowhere/tapline.sock"),
        "{message}"
    );
}

#[test]
fn a_check_needs_the_result_that_it_compares_with() {
    let check = [
        ("CNI_COMMAND", "CHECK"),
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_NETNS_OVERRIDE", "1"),
    ];
    let check = [&check[..], &DEL[1..]].concat();
    assert_eq!(says(&call(&check, CONF)).1, "required prevResult missing");
    let with_result = |result: &str| CONF.replacen('{', &format!("{{\"prevResult\": {result},"), 1);
    let other = with_result(r#"{"interfaces": [{"name": "eth1"}]}"#);
    let error = call(&check, &other);
    assert_eq!(says(&error).0, 7);
    assert!(says(&error).1.contains("no interface eth0"), "{error}");
    let garbled = with_result(r#"{"ips": [{"address": "10.0.0.300/8"}]}"#);
    let error = call(&check, &garbled);
    assert_eq!(says(&error).0, 6);
    assert!(
        says(&error)
            .1
            .starts_with("prevResult: a result makes no sense"),
        "{error}"
    );
}

#[test]
fn a_gc_without_a_list_of_what_is_valid_removes_nothing() {
    let gc = [("CNI_COMMAND", "GC"), ("CNI_PATH", "/")];
    assert_eq!(
        says(&call(&gc, CONF)).1,
        "missing cni.dev/valid-attachments"
    );
    let valid = with(r#""cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]"#);
    let expected = Valid {
        container_id: "c1".into(),
        ifname: "eth0".into(),
    };
    assert_eq!(valid.valid(), Ok(vec![expected]));
    assert_eq!(
        with(r#""cni.dev/valid-attachments": []"#).valid(),
        Ok(vec![])
    );
}

#[test]
fn a_bridge_configuration_means_what_it_meant() {
    let all = wanted(
        r#""type": "tapline-cni", "bridge": "cbr0", "isDefaultGateway": true, "forceAddress": true,
        "ipMasq": true, "ipMasqBackend": "nftables", "mtu": 1400, "hairpinMode": true,
        "macspoofchk": true, "portIsolation": true, "vlan": 0, "vlanTrunk": [], "enabledad": false,
        "preserveDefaultVlan": false, "disableContainerInterface": false, "addIf": "eth0",
        "dns": {"nameservers": ["10.0.0.10"]}"#,
    );
    assert_eq!(
        all,
        Wanted {
            bridge: Some("cbr0".into()),
            is_gateway: true,
            is_default_gateway: Some(true),
            force_address: true,
            ip_masq: true,
            hairpin: true,
            isolated: true,
            mac_spoof_check: Some(true),
            mtu: Some(1400),
            mac: None,
            ips: Vec::new(),
            bandwidth: None,
            routes: None,
            dns: Dns {
                nameservers: vec!["10.0.0.10".into()],
                ..Dns::default()
            },
        }
    );
    assert!(
        wanted(r#""promiscMode": true"#).hairpin,
        "met by the port's hairpin"
    );
    let none = wanted(r#""mtu": 0, "bridge": "", "dns": null"#);
    assert_eq!((none.mtu, none.bridge, none.hairpin), (None, None, false));
}

/// Every key that `bridge` (`NetConf` of bridge.go), azure-vnet (`NetworkConfig` of netconfig.go) or
/// AKS-Engine's kubenet template has, with a value that asks for something.
const KEYS: [(&str, &str); 44] = [
    ("bridge", r#""cbr0""#),
    ("isGateway", "true"),
    ("isDefaultGateway", "true"),
    ("forceAddress", "true"),
    ("ipMasq", "true"),
    ("ipMasqBackend", r#""neither""#),
    ("mtu", "1400"),
    ("hairpinMode", "true"),
    ("promiscMode", "true"),
    ("vlan", "7"),
    ("vlanTrunk", r#"[{"id": 3}]"#),
    ("preserveDefaultVlan", "false"),
    ("macspoofchk", "true"),
    ("enabledad", "true"),
    ("disableContainerInterface", "true"),
    ("portIsolation", "true"),
    ("ipam", r#"{"type": "host-local"}"#),
    ("dns", r#"{"nameservers": ["10.0.0.10"]}"#),
    ("args", r#"{"cni": {"mac": "02:00:00:00:00:07"}}"#),
    ("runtimeConfig", r#"{"mac": "02:00:00:00:00:07"}"#),
    ("addIf", r#""eth0""#),
    ("mode", r#""transparent""#),
    ("master", r#""eth0""#),
    ("adapterName", r#""eth0""#),
    ("logLevel", r#""debug""#),
    ("logTarget", r#""stderr""#),
    ("infraVnetAddressSpace", r#""10.0.0.0/8""#),
    ("ipv6Mode", r#""ipv6nat""#),
    ("serviceCidrs", r#""10.0.0.0/16""#),
    ("vnetCidrs", r#""10.0.0.0/8""#),
    ("podNamespaceForDualNetwork", r#"["a"]"#),
    ("ipsToRouteViaHost", r#"["10.1.1.1"]"#),
    ("multiTenancy", "true"),
    ("enableSnatOnHost", "true"),
    ("enableExactMatchForPodName", "true"),
    ("disableHairpinOnHostInterface", "true"),
    ("disableIPTableLock", "true"),
    ("disableAsyncDelete", "true"),
    ("cnsurl", r#""http://localhost:10090""#),
    ("executionMode", r#""v4swift""#),
    ("windowsSettings", r#"{"enableLoopbackDSR": true}"#),
    ("AdditionalArgs", r#"[{"name": "EndpointPolicy"}]"#),
    ("wireServerIP", r#""168.63.129.16""#),
    ("capabilities", r#"{"mac": true}"#),
];

/// Each key of others' configurations is done, or refused by its name, or the manual says that it asks
/// for nothing here.
#[test]
fn no_key_of_others_is_passed_over_in_silence() {
    let manual = include_str!("../../../docs/cni.md");
    let (_, listed) = manual.split_once("\nWithout effect").expect("a paragraph");
    let (listed, _) = listed.split_once("\n\n").expect("its end");
    let plain = conf(CONF);
    let nothing = plain.wanted(&Args::default());
    for (key, value) in KEYS {
        let asking = with(&format!(r#""{key}": {value}"#));
        let means = asking.wanted(&Args::default());
        let done = means != nothing || asking.ipam != plain.ipam;
        let refused = matches!(&means, Err(error) if error.details.contains(&format!("{key}: ")));
        let told = listed.contains(&format!("`{key}`"));
        let ways = match &means {
            Err(_) => [refused, false, told],
            Ok(_) => [false, done, told],
        };
        let count = ways.into_iter().filter(|way| *way).count();
        assert_eq!(
            count, 1,
            "{key}: refused, done, told without effect: {ways:?}"
        );
    }
}

#[test]
fn what_is_not_done_here_is_refused_by_name_all_at_once() {
    let error = refused(
        r#""vlan": 7, "vlanTrunk": [{"id": 3}], "enabledad": true, "mode": "transparent",
        "disableContainerInterface": true, "ipsToRouteViaHost": ["169.254.20.10", "10.1.1.1"],
        "serviceCidrs": "10.0.0.0/16", "ipam": {"type": "tapline", "subnet": "10.0.0.0/8"},
        "vnetCidrs": "10.0.0.0/8", "ipv6Mode": "ipv6nat", "executionMode": "baremetal",
        "AdditionalArgs": [{"name": "EndpointPolicy"}], "multiTenancy": true, "enableSnatOnHost": true, "podNamespaceForDualNetwork": ["a"],
        "runtimeConfig": {"portMappings": [{"hostPort": 80}], "deviceID": "0", "ipRanges": [[]],
        "infinibandGUID": "x"}"#,
    );
    assert_eq!(error.code, Code::UnsupportedField);
    let keys: Vec<&str> = error
        .details
        .split("; ")
        .filter_map(|sentence| sentence.split_once(": "))
        .map(|(key, _)| key)
        .collect();
    let expected = [
        "vlan",
        "vlanTrunk",
        "enabledad",
        "disableContainerInterface",
        "mode",
        "multiTenancy",
        "enableSnatOnHost",
        "podNamespaceForDualNetwork",
        "ipsToRouteViaHost",
        "serviceCidrs",
        "vnetCidrs",
        "ipv6Mode",
        "executionMode",
        "AdditionalArgs",
        "runtimeConfig.portMappings",
        "runtimeConfig.infinibandGUID",
        "runtimeConfig.deviceID",
        "runtimeConfig.ipRanges",
        "ipam.subnet",
    ];
    assert_eq!(keys, expected, "{}", error.details);
    // Azure's own, and a range for a plugin that knows ranges.
    let fine = wanted(
        r#""mode": "bridge", "bridge": "azure0", "ipsToRouteViaHost": ["169.254.20.10"],
        "ipam": {"type": "host-local", "subnet": "10.0.0.0/8"},
        "runtimeConfig": {"portMappings": [], "ipRanges": [[{"subnet": "10.0.0.0/8"}]]}"#,
    );
    assert_eq!(fine.bridge.as_deref(), Some("azure0"));
}

#[test]
fn what_cannot_be_is_refused_all_at_once() {
    let error = refused(
        r#""hairpinMode": true, "promiscMode": true, "mtu": 20, "ipMasqBackend": "ipfw",
        "runtimeConfig": {"mac": "0a:58", "ips": ["10.0.0.4/24", "::g"],
        "bandwidth": {"ingressRate": 10, "egressBurst": 5}}"#,
    );
    assert_eq!(error.code, Code::InvalidConfig);
    for part in [
        "hairpinMode: cannot set hairpin mode and promiscuous mode at the same time",
        "mtu: 20 is not between 68 and 65535",
        "ipMasqBackend: unknown backend \"ipfw\"",
        "runtimeConfig.mac: '0a:58' is no MAC address",
        "runtimeConfig.ips: '::g' is no IP address",
        "runtimeConfig.bandwidth.ingressRate: 10 bits a second is unreasonably small",
        "runtimeConfig.bandwidth.egressRate: a burst of 5 bits has no rate",
    ] {
        assert!(
            error.details.contains(part),
            "{part} is not in {}",
            error.details
        );
    }
    assert_eq!(refused(r#""mtu": "large""#).code, Code::Decoding);
}

#[test]
fn what_is_refused_of_an_add_does_not_keep_a_del_from_its_work() {
    let stdin = CONF.replacen('{', r#"{"vlan": 7, "mtu": "large", "prevResult": 3,"#, 1);
    assert_eq!(
        says(&call(&DEL, &stdin)).0,
        11,
        "only the daemon is missing"
    );
}

#[test]
fn the_later_source_of_a_mac_and_of_an_address_wins() {
    let env = Args::parse("IgnoreUnknown=1;X=1;MAC=0A-58-0a-00-00-01;IP=10.0.0.1").expect("fine");
    let of = |last| Some(Mac::new([0x0a, 0x58, 0x0a, 0, 0, last]));
    let ip = |last: u8| vec![std::net::IpAddr::from([10, 0, 0, last])];
    let cni = r#""args": {"cni": {"mac": "0a:58:0a:00:00:02", "ips": ["10.0.0.2/8"]}}"#;
    let runtime = r#""runtimeConfig": {"mac": "0a:58:0a:00:00:03", "ips": ["10.0.0.3"]}"#;
    for (members, last) in [
        (r#""mtu": 0"#.to_owned(), 1),
        (cni.to_owned(), 2),
        (format!("{cni}, {runtime}"), 3),
        (runtime.to_owned(), 3),
    ] {
        let wanted = with(&members).wanted(&env).expect("fine");
        assert_eq!((wanted.mac, wanted.ips), (of(last), ip(last)), "{members}");
    }
}

#[test]
fn a_pods_name_comes_in_two_pairs() {
    let kubelet = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-a;\
        K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u";
    let pod = PodName {
        namespace: "default".into(),
        name: "pod-a".into(),
    };
    assert_eq!(Args::parse(kubelet).expect("fine").pod, Some(pod));
    let half = Args::parse("K8S_POD_NAME=pod-a").expect("fine");
    assert_eq!(half, Args::default());
    assert_eq!(Args::parse(""), Ok(Args::default()));
}

#[test]
fn limits_come_in_bits() {
    let runtime = r#""runtimeConfig": {"bandwidth": {"ingressRate": 100000000,
        "ingressBurst": 2147483647, "egressRate": 0, "egressBurst": 0}}"#;
    let expected = Bandwidth {
        ingress_rate: 100_000_000,
        ingress_burst: 2_147_483_647,
        ..Bandwidth::default()
    };
    assert_eq!(wanted(runtime).bandwidth, Some(expected));
    assert_eq!(
        wanted(r#""runtimeConfig": {"bandwidth": {}}"#).bandwidth,
        None
    );
}

/// Text that often gets past the first check.
fn value() -> impl Strategy<Value = String> {
    let likely = [
        "ADD",
        "DEL",
        "CHECK",
        "GC",
        "STATUS",
        "c1",
        "eth0",
        "/proc/self/ns/net",
        "/",
        "1",
        "K8S_POD_NAME=a;K8S_POD_NAMESPACE=b",
        "MAC=0a:58:0a:00:00:01",
        ";",
        "=",
    ];
    prop_oneof![3 => prop::sample::select(likely.to_vec()).prop_map(str::to_owned), 1 => ".{0,20}"]
}

/// A configuration in which members of any kind stand beside, or in the place of, likely ones.
fn configuration() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(&["1.1.0", "0.4.0", "n", "host-local", "10.0.0.1/8", "::1", ""][..])
            .prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    let keys = [
        "cniVersion",
        "name",
        "ipam",
        "type",
        "prevResult",
        "runtimeConfig",
        "args",
        "cni",
        "mac",
        "ips",
        "bandwidth",
        "ingressRate",
        "dns",
        "mtu",
        "vlan",
        "interfaces",
        "address",
        "routes",
        "dst",
        "gw",
        "ip4",
        "ip",
        "cni.dev/valid-attachments",
        "containerID",
        "hairpinMode",
    ];
    let tree = leaf.prop_recursive(4, 40, 6, move |inner| {
        let key = prop::sample::select(keys.to_vec()).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop_oneof![
        1 => ".{0,40}",
        8 => tree.prop_map(|mut tree| {
            if let Some(map) = tree.as_object_mut() {
                map.insert("socket".into(), "/nowhere/tapline.sock".into());
                map.entry("name").or_insert("n".into());
            }
            tree.to_string()
        }),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_in_the_answer_has_the_shape_of_an_error(
        values in prop::collection::vec(prop::option::weighted(0.8, value()), 8),
        command in prop::option::weighted(
            0.9,
            prop::sample::select(&["ADD", "DEL", "CHECK", "GC", "STATUS", "", "\u{1f41f}"][..]),
        ),
        stdin in configuration(),
    ) {
        let names = ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS", "CNI_PATH",
            "CNI_NETNS_OVERRIDE"];
        let mut variables: Vec<(&str, &str)> = names
            .iter()
            .zip(&values)
            .filter_map(|(name, value)| Some((*name, value.as_deref()?)))
            .collect();
        variables.extend(command.map(|command| ("CNI_COMMAND", command)));
        let error = call(&variables, &stdin);
        let object = error.as_object().expect("an object");
        prop_assert!(object.keys().all(|k| ["cniVersion", "code", "msg", "details"].contains(&k.as_str())));
        let (code, message, _) = says(&error);
        prop_assert!([1, 2, 3, 4, 5, 6, 7, 8, 11, 50].contains(&code), "{}", error);
        prop_assert!(!message.is_empty());
        let version = error["cniVersion"].as_str();
        prop_assert!(Version::ALL.iter().any(|v| Some(v.text()) == version));
    }
}
