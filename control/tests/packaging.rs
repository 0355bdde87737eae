//! What is shipped beside the program: every path, key, name and command in it is one that exists.
//!
//! In: the files in `control/packaging/`, `docs/install.md` and the manifest. Out: verdicts.
//! Never: installs anything.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{CommandFactory, Parser};
use control::cli::Cli;
use control::cni::{Args, Conf};
use control::config::{self, CONFIG_PATH, SOCKET_PATH, STATE_DIR};
use control::devices::DeviceName;
use control::node::documents;
use dataplane::bounds;
use dataplane::switch::Options;
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

fn read(file: &str) -> String {
    let path = folder().join(file);
    fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// The one value of a key.
fn only(unit: &BTreeMap<String, Vec<String>>, key: &str) -> String {
    match &unit.get(key).map(Vec::as_slice) {
        Some([value]) => value.clone(),
        other => panic!("{key}: {other:?}"),
    }
}

/// The settings of a unit by key, in order. A key without a section, or a line that is neither, fails.
fn unit(file: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut section = None;
    for line in read(file).lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = Some(name.to_owned());
            continue;
        }
        let section = section.as_ref().expect("a section first");
        let (key, value) = line
            .split_once('=')
            .unwrap_or_else(|| panic!("{file}: {line}"));
        found
            .entry(format!("{section}.{key}"))
            .or_default()
            .push(value.to_owned());
    }
    found
}

/// The command line of a unit is one that the program understands.
fn is_understood(command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(words[0], "/usr/bin/tapline", "{command}");
    let parsed = Cli::try_parse_from(std::iter::once("tapline").chain(words[1..].iter().copied()));
    assert!(parsed.is_ok(), "{command}: {}", parsed.unwrap_err());
}

#[test]
fn the_units_start_what_there_is_where_it_is() {
    let tapline = unit("systemd/tapline.service");
    let only = |key: &str| only(&tapline, key);
    is_understood(&only("Service.ExecStart"));
    assert!(only("Service.ExecStart").ends_with(CONFIG_PATH));
    for (key, parent, path) in [
        ("Service.StateDirectory", "/var/lib", STATE_DIR),
        (
            "Service.RuntimeDirectory",
            "/run",
            Path::new(SOCKET_PATH).parent().unwrap().to_str().unwrap(),
        ),
        (
            "Service.ConfigurationDirectory",
            "/etc",
            Path::new(CONFIG_PATH).parent().unwrap().to_str().unwrap(),
        ),
    ] {
        assert_eq!(format!("{parent}/{}", only(key)), path, "{key}");
    }
    assert!(
        only("Unit.Before")
            .split(' ')
            .any(|unit| unit == "kubelet.service")
    );
    // Who requires it is stopped with it.
    assert!(!tapline.contains_key("Install.RequiredBy"));
    if let Some(rescue) = tapline.get("Unit.OnFailure") {
        let rescue = unit(&format!("systemd/{}", rescue[0]));
        is_understood(&rescue["Service.ExecStart"][0]);
    }
}

#[test]
fn the_daemons_unit_bounds_and_allows_what_its_comments_say() {
    let tapline = unit("systemd/tapline.service");
    let only = |key: &str| only(&tapline, key);
    // What the daemon prints at its start is the bound of what it holds; a million routes, twice while
    // they change, are beside it. Half of the limit is for the control part and for the allocator.
    let mib = |text: &str| text.strip_suffix('G').unwrap().parse::<usize>().unwrap() << 10;
    let switch = |workers| {
        let options = Options {
            workers,
            ..Options::named("bound")
        };
        (bounds::total(&bounds::at_limit(&options)) >> 20) + 2 * 64
    };
    let limit = mib(&only("Service.MemoryMax"));
    assert!(
        2 * switch(16) <= limit,
        "{} MiB with 16 workers",
        switch(16)
    );
    assert!(only("Service.OOMScoreAdjust").parse::<i32>().unwrap() < -900);
    // Each capability is named in the comment that says why.
    let text = read("systemd/tapline.service");
    for capability in only("Service.CapabilityBoundingSet").split(' ') {
        let word = capability.strip_prefix("CAP_").unwrap();
        let comments = text.lines().filter(|line| line.starts_with('#'));
        assert!(
            comments.into_iter().any(|line| line.contains(word)),
            "{capability}"
        );
    }
    // To allow one device is to close all others, and ProtectClock= allows one up to systemd 251.
    for key in [
        "ProtectClock",
        "PrivateDevices",
        "DevicePolicy",
        "DeviceAllow",
    ] {
        let key = format!("Service.{key}");
        assert!(!tapline.contains_key(&key), "{key} closes /dev/net/tun");
    }
}

#[test]
fn networkd_keeps_off_every_device_that_is_made() {
    let file = unit("networkd/10-tapline.network");
    assert_eq!(file["Link.Unmanaged"], ["yes"]);
    let patterns: Vec<&str> = file["Match.Name"][0].split(' ').collect();
    let matches = |device: &str| {
        patterns
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => device.starts_with(start),
                None => device == *pattern,
            })
    };
    let configs = [
        r#"{"plugin": "azure", "node": "n"}"#,
        r#"{"plugin": "kubenet", "node": "n"}"#,
    ];
    for text in configs {
        let config = config::parse("tapline.json", text.as_bytes()).unwrap();
        for device in [&config.host_port.device, &config.uplink.tap] {
            assert!(matches(device.as_str()), "{device}");
        }
        assert!(
            !matches(config.uplink.device.as_str()),
            "the uplink stays managed"
        );
    }
    for device in ["azv32fe06c7c68", "veth923df63b", "tap32fe06c7c68"] {
        assert!(
            matches(DeviceName::new(device).unwrap().as_str()),
            "{device}"
        );
    }
}

/// A conflist whose first plugin is ours, understood by ours.
fn is_a_conflist(text: &str) -> Value {
    let tree: Value = serde_json::from_str(text).expect("JSON");
    let plugins = tree["plugins"].as_array().expect("plugins");
    let ours = &plugins[0];
    assert_eq!(ours["type"], "tapline-cni");
    assert_eq!(ours["socket"], SOCKET_PATH);
    assert!(plugins.iter().all(|plugin| plugin["type"] != "bandwidth"));
    // As a runtime hands it over: name and version injected.
    let mut given = ours.clone();
    given["name"] = tree["name"].clone();
    given["cniVersion"] = tree["cniVersion"].clone();
    let conf = Conf::parse(given.to_string().as_bytes()).expect("a configuration");
    conf.wanted(&Args::default())
        .expect("nothing in it that is not done");
    tree
}

#[test]
fn the_conflists_are_what_the_plugin_takes() {
    let azure = is_a_conflist(&read("cni/10-tapline-azure.conflist"));
    assert_eq!(
        (&azure["name"], &azure["cniVersion"]),
        (&"azure".into(), &"0.3.0".into())
    );
    let kubenet = is_a_conflist(&read("cni/10-tapline-kubenet.conflist"));
    assert_eq!(kubenet["name"], "kubenet");
    // containerd's template, before and after containerd has filled it.
    let template = read("cni/kubenet_template.conf");
    assert!(documents::cni_configuration(template.as_bytes()).is_err());
    let filled = template.replace("{{.PodCIDR}}", "10.244.1.0/24");
    let found = documents::cni_configuration(filled.as_bytes()).unwrap();
    let found: Vec<String> = found.iter().map(|net| net.to_string()).collect();
    assert_eq!(found, ["10.244.1.0/24"]);
    // In the DaemonSet the same as beside it.
    let map = manifest("ConfigMap");
    let inside = map["data"]["10-tapline.conflist"].as_str().expect("one");
    assert_eq!(is_a_conflist(inside), azure);
}

/// The documents of a YAML file.
fn documents_of(text: &str) -> Vec<Value> {
    use serde::Deserialize;
    let each = serde_yaml_ng::Deserializer::from_str(text).map(Value::deserialize);
    each.map(|one| one.expect("YAML that is well-formed"))
        .collect()
}

/// The one document of that kind.
fn manifest(kind: &str) -> Value {
    let all = documents_of(&read("kubernetes/daemonset.yaml"));
    let mut all = all.into_iter().filter(|one| one["kind"] == kind);
    all.next().expect("it is there")
}

fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().expect("a list").iter();
    list.map(|one| one.as_str().expect("a text")).collect()
}

/// The instructions of the image, each with its words; continued lines are one.
fn image() -> Vec<(String, String)> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let word = |line: &str| {
        let (word, rest) = line.split_once(' ').expect("an instruction and its words");
        (word.to_owned(), rest.trim().to_owned())
    };
    lines.map(word).collect()
}

#[test]
fn the_image_starts_a_program_that_it_holds() {
    let image = image();
    let known = ["FROM", "WORKDIR", "RUN", "COPY", "ENTRYPOINT", "CMD"];
    assert!(
        image.iter().all(|(word, _)| known.contains(&word.as_str())),
        "{image:?}"
    );
    let last = image.iter().rposition(|(word, _)| word == "FROM");
    let last = &image[last.expect("a stage")..];
    assert_eq!(last[0].1, "scratch", "nothing else is in it");
    let list = |wanted: &str| -> Vec<String> {
        let mut found = last.iter().filter(|(word, _)| word == wanted);
        serde_json::from_str(&found.next().expect(wanted).1).expect("a list")
    };
    let copied: Vec<Vec<&str>> = last
        .iter()
        .filter(|(word, _)| word == "COPY")
        .map(|(_, words)| words.split(' ').collect())
        .collect();
    let entry = list("ENTRYPOINT");
    let to = |path: &str| copied.iter().find(|words| words[2] == path);
    assert!(to(&entry[0]).is_some(), "{entry:?} of {copied:?}");
    is_understood(&format!("{} {}", entry[0], list("CMD").join(" ")));
    let built = image
        .iter()
        .find(|(_, words)| words.contains("cargo build"));
    let built = &built.expect("a build").1;
    let page = std::fs::read_to_string(folder().join("../../docs/install.md"));
    assert!(
        page.expect("the page is there").contains(built.as_str()),
        "docs/install.md builds it otherwise than by {built}"
    );
    for words in &copied {
        let from = words[1].strip_prefix("/tapline/").expect("what was built");
        match from.strip_prefix("target/") {
            Some(made) => {
                let (target, program) = made.split_once("/release/").expect("a program");
                assert!(built.contains(&format!("--target {target}")), "{target}");
                assert!(["tapline", "tapline-cni"].contains(&program), "{program}");
                assert!(words[2].ends_with(&format!("/{program}")), "{words:?}");
            }
            None => assert!(folder().join("../..").join(from).exists(), "{from}"),
        }
    }
}

#[test]
fn the_manifest_runs_what_the_unit_runs() {
    let pod = &manifest("DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(
        pod["hostNetwork"], true,
        "the node's network is what it serves"
    );
    let [container] = &pod["containers"].as_array().expect("containers")[..] else {
        panic!("{pod}");
    };
    let args = texts(&container["args"]).join(" ");
    is_understood(&format!("/usr/bin/tapline {args}"));
    let unit = unit("systemd/tapline.service");
    assert!(unit["Service.ExecStart"][0].ends_with(&args), "{args}");
    let rights = &container["securityContext"]["capabilities"];
    assert_eq!(texts(&rights["drop"]), ["ALL"]);
    let of_unit = &unit["Service.CapabilityBoundingSet"][0];
    let of_unit = of_unit
        .split(' ')
        .filter_map(|name| name.strip_prefix("CAP_"));
    assert_eq!(texts(&rights["add"]), of_unit.collect::<Vec<_>>());
    // What is mounted is a folder or device of the node at the same place.
    let volumes = pod["volumes"].as_array().expect("volumes");
    let mounts = container["volumeMounts"].as_array().expect("mounts");
    assert_eq!(volumes.len(), mounts.len());
    let path_of = |name: &Value| {
        let volume = volumes.iter().find(|volume| volume["name"] == *name);
        volume.expect("a volume")["hostPath"]["path"].clone()
    };
    for mount in mounts {
        assert_eq!(path_of(&mount["name"]), mount["mountPath"], "{mount}");
    }
    for path in [STATE_DIR, "/etc/tapline", "/run/tapline", "/dev/net/tun"] {
        assert!(
            mounts.iter().any(|mount| mount["mountPath"] == path),
            "{path}"
        );
    }
    let set = manifest("DaemonSet");
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    assert_eq!(set["spec"]["selector"]["matchLabels"], *labels);
}

#[test]
fn the_alert_rules_are_rules() {
    let [rules] = &documents_of(&read("prometheus/tapline.rules.yaml"))[..] else {
        panic!("one document");
    };
    let rules = rules["groups"][0]["rules"].as_array().expect("rules");
    assert!(rules.len() >= 5);
    for rule in rules {
        for key in ["alert", "expr"] {
            assert!(rule[key].is_string(), "{key} of {rule}");
        }
        assert!(rule["annotations"]["description"].is_string(), "{rule}");
    }
}

#[test]
fn the_package_holds_files_that_exist_and_programs_that_are_built() {
    let manifest = fs::read_to_string(folder().join("../Cargo.toml")).unwrap();
    let assets: Vec<Vec<&str>> = manifest
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("[\""))
        .map(|line| line.split('"').skip(1).step_by(2).collect())
        .collect();
    assert!(assets.len() >= 8, "{assets:?}");
    let built = ["tapline", "tapline-cni"];
    for asset in &assets {
        let [source, target, mode] = asset[..] else {
            panic!("{asset:?}");
        };
        assert!(["644", "755"].contains(&mode), "{asset:?}");
        assert!(!target.starts_with('/'), "{asset:?}");
        match source.strip_prefix("target/release/") {
            Some(program) => assert!(built.contains(&program), "{program}"),
            // Made by `tapline man` and `tapline completions` before the package.
            None if source.starts_with("../target/") => {}
            None => assert!(folder().join("..").join(source).exists(), "{source}"),
        }
    }
    // A unit that another starts comes with it.
    for file in fs::read_dir(folder().join("systemd")).unwrap().flatten() {
        let source = format!("packaging/systemd/{}", file.file_name().to_str().unwrap());
        assert!(assets.iter().any(|asset| asset[0] == source), "{source}");
    }
    let targets: BTreeSet<&str> = assets.iter().map(|asset| asset[1]).collect();
    for target in [
        "usr/bin/",
        "opt/cni/bin/",
        "usr/share/tapline/cni/",
        "lib/systemd/network/",
        "lib/systemd/system/",
    ] {
        assert!(targets.contains(target), "{target}");
    }
}

/// Words in backquotes or code blocks that begin with `tapline` are commands that exist.
#[test]
fn the_document_names_commands_files_and_keys_that_exist() {
    let text = fs::read_to_string(folder().join("../../docs/install.md")).unwrap();
    let commands: BTreeSet<String> = Cli::command()
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    let mut named = 0;
    for (at, _) in text.match_indices("tapline ") {
        let before = text[..at].chars().last().unwrap_or(' ');
        let is_command =
            before == '`' || text[..at].ends_with("\n   ") || text[..at].ends_with("   ");
        if !is_command {
            continue;
        }
        let word = text[at + 8..]
            .split(|c: char| !c.is_ascii_lowercase())
            .next()
            .unwrap_or_default();
        if !word.is_empty() {
            assert!(commands.contains(word), "tapline {word}");
            named += 1;
        }
    }
    assert!(named >= 3, "only {named} commands");
    for (at, _) in text.match_indices("control/") {
        let path: String = text[at..]
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || "/._-".contains(*c))
            .collect();
        let path = path.trim_end_matches(['.', '/']);
        assert!(folder().join("../..").join(path).exists(), "{path}");
    }
    for (at, _) in text.match_indices("/usr/share/tapline/cni/") {
        let file: String = text[at + 23..]
            .chars()
            .take_while(|c| !c.is_whitespace() && *c != '`')
            .collect();
        assert!(folder().join("cni").join(&file).exists(), "{file}");
    }
    let schema = config::schema::tree();
    for (at, _) in text.match_indices("`truth.") {
        let key: String = text[at + 7..].chars().take_while(|c| *c != '`').collect();
        let known = schema
            .pointer("/$defs/Truth/properties")
            .expect("the schema has truth");
        assert!(known.get(&key).is_some(), "truth.{key}");
    }
    for word in [CONFIG_PATH, STATE_DIR, SOCKET_PATH] {
        assert!(text.contains(word), "{word}");
    }
}

#[test]
fn every_command_has_a_man_page_and_every_shell_its_completions() {
    let out = std::env::temp_dir().join(format!("tapline-man-{}", std::process::id()));
    let program = env!("CARGO_BIN_EXE_tapline");
    let made = Command::new(program)
        .args(["man", "--out"])
        .arg(&out)
        .status()
        .unwrap();
    assert!(made.success());
    for sub in Cli::command().get_subcommands() {
        let page = out.join(format!("tapline-{}.1", sub.get_name()));
        let text =
            fs::read_to_string(&page).unwrap_or_else(|why| panic!("{}: {why}", page.display()));
        assert!(text.contains(".SH NAME"), "{}", page.display());
    }
    assert!(
        fs::read_to_string(out.join("tapline.1"))
            .unwrap()
            .contains("virtual switch")
    );
    fs::remove_dir_all(&out).unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = Command::new(program)
            .args(["completions", shell])
            .output()
            .unwrap();
        let text = String::from_utf8(script.stdout).unwrap();
        assert!(
            script.status.success() && text.contains("effective-routes"),
            "{shell}"
        );
    }
}
