//! `tapline trace`, run as a program.
//!
//! In: the built-in example, arguments, frames as hexadecimal text and capture files.
//! Out: what stands on standard output, exit statuses, and messages. Never: a device or a right.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tapline"))
        .arg("trace")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    // A program that does not read its input may be gone before all is written.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

fn told(arguments: &str) -> String {
    let output = run(&arguments.split(' ').collect::<Vec<_>>(), b"");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments}: {stderr}");
    assert_eq!(stderr, "");
    text(&output.stdout).to_owned()
}

fn json(arguments: &str) -> Value {
    let text = told(&format!("{arguments} --json"));
    serde_json::from_str(&text).expect("JSON, alone")
}

fn refused(arguments: &str, input: &[u8]) -> String {
    let output = run(&arguments.split(' ').collect::<Vec<_>>(), input);
    assert_eq!(output.status.code(), Some(2), "{arguments}");
    assert_eq!(text(&output.stdout), "", "{arguments}");
    text(&output.stderr).to_owned()
}

fn written(name: &str, content: &[u8]) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).expect("the test's folder is writable");
    path.display().to_string()
}

const AZURE: &str = "\
pod-a asks ARP for 10.20.0.43 on eth0: answered by the fabric with 12:34:56:78:9a:bc

icmp echo request  10.20.0.31 > 10.20.0.43  ttl 64  98 bytes  (0a:58:0a:14:00:1f > 12:34:56:78:9a:bc)

node-0, in by pod-a
  tcpdump    eth0 in pod-a; azvcbefedbacea, tapcbefedbacea in node-0
  router     12:34:56:78:9a:bc is the fabric's router, so the IP address decides
  source     the source 10.20.0.31 may appear on a wire
  route      10.20.0.0/24 holds 10.20.0.43: to 12:34:56:78:9a:bc on port uplink  (VNet prefix)
  crossing   to port uplink, bridged: the TTL stays
  rewrite    source MAC 0a:58:0a:14:00:1f -> 00:0d:3a:14:00:04
  forward    to uplink
  tcpdump    uplink0, eth0 in node-0

fabric, from node-0
  route      system route 10.20.0.0/24 -> VnetLocal
  rewrite    source MAC 00:0d:3a:14:00:04 -> 12:34:56:78:9a:bc
  rewrite    target MAC 12:34:56:78:9a:bc -> 00:0d:3a:14:00:23
  forward    to node-1

node-1, in by uplink
  tcpdump    eth0, uplink0 in node-1
  uplink     all frames from the uplink have the NIC's MAC, so the IP address decides
  source     the source 10.20.0.31 may appear on a wire
  route      10.20.0.43/32 holds 10.20.0.43: to 0a:58:0a:14:00:2b on port pod-c  (pod-c)
  crossing   to port pod-c, bridged: the TTL stays
  rewrite    target MAC 00:0d:3a:14:00:23 -> 0a:58:0a:14:00:2b
  forward    to pod-c
  tcpdump    tap9a0e719a42a, azv9a0e719a42a in node-1; eth0 in pod-c

arrives at pod-c on eth0 with ttl 64
";

#[test]
fn the_seeds_walk_under_azure_arrives_with_its_ttl_untouched() {
    assert_eq!(told("--from pod-a --to pod-c"), AZURE);
    let named = "--plugin azure --node node-0 --from pod-a --to 10.20.0.43 --icmp";
    assert_eq!(told(named), AZURE, "the same, said in full");
}

#[test]
fn the_seeds_walk_under_kubenet_costs_two_hops() {
    let text = told("--plugin kubenet --node node-0 --from pod-a --to 10.244.0.7");
    for line in [
        "pod-a asks ARP for 10.244.1.1 on eth0: answered by node-0's switch with 0a:58:0a:f4:01:01",
        "  route      10.244.0.0/24 holds 10.244.0.7: via 10.20.0.5  (route table: node-1)",
        "  neighbour  asks ARP for 10.20.0.5 on eth0 first: the fabric answers 12:34:56:78:9a:bc",
        "  size       84 bytes: within the MTU of 1500",
        "  rewrite    ttl 64 -> 63",
        "  rewrite    ttl 63 -> 62",
        "  route      10.244.0.7/32 holds 10.244.0.7: to 0a:58:0a:f4:00:07 on port pod-c  (pod-c)",
        "arrives at pod-c on eth0 with ttl 62",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "no {line:?} in:\n{text}"
        );
    }
    let trace = json("--plugin kubenet --from pod-a --to pod-c");
    let hops = trace["hops"].as_array().expect("a list");
    let ways: Vec<_> = hops
        .iter()
        .map(|hop| (&hop["at"], &hop["verdict"]))
        .collect();
    assert_eq!(ways.len(), 3);
    let veths: Vec<_> = [&hops[0]["seen_in"], &hops[2]["seen_out"]]
        .map(|sights| sights[1]["interface"].as_str().expect("a name"))
        .into();
    assert!(
        veths.iter().all(|name| name.starts_with("veth")),
        "{veths:?}"
    );
}

#[test]
fn the_json_has_the_shape_that_its_document_tells_of() {
    let trace = json("--plugin kubenet --from pod-a --to pod-c --tcp 80 --size 20000");
    assert_eq!(
        keys(&trace),
        ["plugin", "notes", "asked", "frame", "hops", "end"]
    );
    assert_eq!(
        keys(&trace["hops"][0]),
        [
            "at", "ingress", "seen_in", "frame", "steps", "verdict", "egress", "rewrite", "drop",
            "seen_out"
        ]
    );
    let frame = &trace["frame"];
    assert_eq!(
        (&frame["bytes"], &frame["segment_bytes"]),
        (&20_014.into(), &1460.into())
    );
    let steps: Vec<&str> = trace["hops"][0]["steps"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|step| step["step"].as_str().expect("a name"))
        .collect();
    assert_eq!(
        steps,
        [
            "for_router",
            "source",
            "route",
            "neighbour",
            "crossing",
            "ttl",
            "size"
        ]
    );
    let route = &trace["hops"][0]["steps"][2];
    assert_eq!(route["prefix"], "10.244.0.0/24");
    assert_eq!(route["source"], "route table: node-1");
    assert_eq!(route["next_hop"], "via 10.20.0.5");
    assert_eq!(trace["hops"][1]["steps"][0]["segments"], 14);
    let end = &trace["end"];
    assert_eq!(end["outcome"], "delivered");
    assert_eq!(end["at"], serde_json::json!(["pod-c"]));
    assert_eq!(end["interface"], "eth0");
    assert_eq!(end["frame"]["ttl"], 62);
}

fn keys(value: &Value) -> Vec<String> {
    let object = value.as_object().expect("an object");
    object.keys().cloned().collect()
}

#[test]
fn every_key_and_step_stands_in_the_document() {
    let trace = json("--plugin kubenet --from pod-a --to pod-c --tcp 80 --size 20000");
    let steps = trace["hops"][0]["steps"].as_array().expect("a list");
    let steps = steps
        .iter()
        .map(|step| step["step"].as_str().expect("a name"));
    let (frame, end) = (&trace["frame"], &trace["end"]);
    let document = include_str!("../../docs/trace.md");
    let hop = keys(&trace["hops"][0]);
    for key in keys(&trace)
        .iter()
        .chain(&hop)
        .chain(&keys(frame))
        .chain(&keys(end))
    {
        assert!(
            document.contains(&format!("`{key}`")),
            "docs/trace.md does not tell of {key}"
        );
    }
    for step in steps {
        assert!(
            document.contains(&format!("`{step}`")),
            "docs/trace.md does not tell of {step}"
        );
    }
}

#[test]
fn a_frame_that_dies_says_where_and_why() {
    let kubenet = "--plugin kubenet --from pod-a --to";
    for (arguments, at, reason) in [
        (
            "--from pod-a --to 10.20.0.33".to_owned(),
            "node-0",
            "no_such_pod",
        ),
        (
            "--from pod-a --to 10.20.0.64".to_owned(),
            "node-1",
            "no_such_pod",
        ),
        (
            format!("{kubenet} pod-c --detach-route-table"),
            "fabric",
            "route_none",
        ),
        (format!("{kubenet} 10.244.0.99"), "node-1", "no_such_pod"),
        (
            "--from pod-a --to 10.20.0.200".to_owned(),
            "fabric",
            "address_unowned",
        ),
    ] {
        let trace = json(&arguments);
        let end = &trace["end"];
        assert_eq!(end["outcome"], "dropped", "{arguments}");
        assert_eq!(
            (&end["at"][0], &end["drop"]["reason"]),
            (&at.into(), &reason.into()),
            "{arguments}"
        );
        let meaning = end["drop"]["meaning"].as_str().expect("a sentence");
        let text = told(&arguments);
        assert!(
            text.contains(&format!("  drop       {reason}: {meaning}\n")),
            "{text}"
        );
        assert!(
            text.ends_with(&format!("dies at {at}: {reason}\n")),
            "{text}"
        );
    }
    let text = told(&format!("{kubenet} 10.244.1.99"));
    assert!(
        text.contains("asks ARP for 10.244.1.99 on eth0: answered by nobody"),
        "{text}"
    );
    assert!(
        text.ends_with("no frame is sent: the sender's question has no answer\n"),
        "{text}"
    );
}

#[test]
fn what_is_the_kernels_goes_to_it_and_says_for_which_reason() {
    for (arguments, source) in [
        (
            "--plugin kubenet --from pod-a --to 10.0.0.10 --udp 53",
            "service CIDR",
        ),
        ("--from pod-a --to 8.8.8.8 --tcp 443", "default"),
        (
            "--from pod-a --to 168.63.129.16 --udp 53",
            "Azure's platform",
        ),
    ] {
        let trace = json(arguments);
        assert_eq!(trace["end"]["outcome"], "host", "{arguments}");
        let steps = trace["hops"][0]["steps"].as_array().expect("a list");
        let route = steps
            .iter()
            .find(|step| step["step"] == "route")
            .expect("it is routed");
        assert_eq!(route["source"], source, "{arguments}");
    }
    let trace = json("--from pod-a --to master-0");
    assert_eq!(trace["end"]["outcome"], "host");
    assert_eq!(trace["hops"][2]["verdict"], "kernel");
    let trace = json("--node node-0 --from host --to pod-a");
    assert_eq!(trace["asked"]["interface"], "azure0");
    assert_eq!(trace["hops"][0]["seen_in"][0]["interface"], "azure0");
    assert_eq!(trace["end"]["at"][0], "pod-a");
    let trace = json("--plugin kubenet --node node-1 --from uplink --to pod-c");
    assert_eq!(
        (&trace["asked"], &trace["end"]["frame"]["ttl"]),
        (&Value::Null, &63.into())
    );
}

#[test]
fn both_families_are_traced_in_dual_stack() {
    let trace = json("--dual-stack --plugin kubenet --from pod-a --to pod-c -6 --udp 53");
    assert_eq!(trace["asked"]["by"], "nd");
    assert_eq!(trace["end"]["frame"]["ttl"], 62);
    let neighbour = &trace["hops"][0]["steps"][3];
    assert_eq!(
        (&neighbour["step"], &neighbour["asks"]),
        (&"neighbour".into(), &"nd".into())
    );
}

/// An ARP question of pod-a for pod-b, under azure.
const QUESTION: &str = "ffffffffffff 0a580a14001f 0806 0001 0800 06 04 0001 \
    0a580a14001f 0a14001f 000000000000 0a140005";

#[test]
fn a_frame_is_taken_from_hex_in_an_argument_a_file_and_standard_input() {
    let file = written("frame.hex", QUESTION.as_bytes());
    let from = |hex: &str, input: &[u8]| {
        let output = run(&["--port", "pod-a", "--hex", hex, "--json"], input);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    for trace in [
        from(QUESTION, b""),
        from(&file, b""),
        from("-", QUESTION.as_bytes()),
    ] {
        assert_eq!(trace["frame"]["kind"], "arp request");
        let hop = &trace["hops"][0];
        assert_eq!(
            (&hop["verdict"], &trace["end"]["outcome"]),
            (&"answer".into(), &"answered".into())
        );
        // The asker may speak for its own address, and the one asked for is known.
        assert_eq!(hop["steps"][0]["holder"], "pod-a");
        assert_eq!(hop["steps"][1]["holder"], "pod-b");
    }
}

/// A classic capture file with the question as its second frame.
fn capture(link: u32) -> Vec<u8> {
    let digits: String = QUESTION.chars().filter(|c| !c.is_whitespace()).collect();
    let frame: Vec<u8> = (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex"))
        .collect();
    let mut file = 0xa1b2_c3d4u32.to_be_bytes().to_vec();
    file.extend([0, 2, 0, 4]);
    file.extend([0, 0, 65_535, link].map(u32::to_be_bytes).concat());
    for frame in [&[0; 60][..], &frame] {
        let len = frame.len() as u32;
        file.extend([1, 2, len, len].map(u32::to_be_bytes).concat());
        file.extend(frame);
    }
    file
}

#[test]
fn a_frame_is_taken_from_a_capture_file() {
    let file = written("good.pcap", &capture(1));
    let trace = json(&format!("--port pod-a --pcap {file} --frame 2"));
    assert_eq!(trace["end"]["outcome"], "answered");
    let first = json(&format!("--port pod-a --pcap {file}"));
    assert_eq!(first["end"]["drop"]["reason"], "source_is_zero");
    let piped = run(
        &["--port", "pod-a", "--pcap", "-", "--frame", "2"],
        &capture(1),
    );
    assert_eq!(piped.status.code(), Some(0));
    assert!(text(&piped.stdout).ends_with("is answered by node-0's switch\n"));
}

/// Each of these arguments is refused with this message.
fn all_refused(rows: &[(&str, &str)]) {
    for (arguments, message) in rows {
        let said = refused(arguments, b"");
        assert!(said.contains(message), "{arguments}: {said}");
    }
}

#[test]
fn bad_frames_and_files_are_status_2_with_what_is_wrong() {
    let torn = written("torn.pcap", &capture(1)[..150]);
    let raw = written("raw.pcap", &capture(101));
    let good = written("short.pcap", &capture(1));
    all_refused(&[
        (
            "--port pod-a --hex 02zz",
            "--hex: line 1, column 3: 'z' is no hexadecimal digit",
        ),
        (
            "--port pod-a --hex 020",
            "3 hexadecimal digits: a byte has two",
        ),
        (
            "--port pod-a --pcap /nonexistent",
            "/nonexistent: No such file",
        ),
        (
            &format!("--port pod-a --pcap {torn} --frame 2"),
            "cut short: it ends within frame 2",
        ),
        (
            &format!("--port pod-a --pcap {raw}"),
            "the link type is RAW",
        ),
        (
            &format!("--port pod-a --pcap {good} --frame 3"),
            "there is no frame 3: the file has 2",
        ),
        (
            &format!("--port pod-a --pcap {good} --frame 0"),
            "frames are counted from 1",
        ),
        ("--from pod-a", "--to"),
        ("--hex 02", "--port"),
        (
            "--from pod-a --to pod-c --tcp 80 --udp 53",
            "cannot be used with",
        ),
    ]);
}

#[test]
fn bad_names_and_packets_are_status_2_with_what_is_wrong() {
    all_refused(&[
        (
            "--from pod-x --to pod-c",
            "pod-x: there is no such pod; there are pod-a, pod-b, pod-c, pod-d",
        ),
        (
            "--node node-9 --from pod-a --to pod-c",
            "--node node-9: there is no such node; there are node-0",
        ),
        (
            "--node node-1 --from pod-a --to pod-c",
            "pod-a is on node-0, not on node-1",
        ),
        (
            "--from host --to pod-a",
            "host: say of which node, with --node",
        ),
        (
            "--from pod-a --to pod-q",
            "--to pod-q: neither an address nor a pod or node",
        ),
        (
            "--from pod-a --to 10.20.0.31",
            "10.20.0.31 is pod-a's own address",
        ),
        ("--from pod-a --to fd00::1", "pod-a has no IPv6 address"),
        (
            "--from pod-a --to pod-c -6",
            "--to pod-c: it has no IPv6 address",
        ),
        (
            "--from pod-a --to pod-c --size 20",
            "--size 20: this packet has 28 bytes of headers",
        ),
        (
            "--from pod-a --to pod-c --size 2000 --df",
            "refuses 2000 bytes with --df: its MTU is 1500",
        ),
        (
            "--plugin kubenet --node node-0 --from host --to pod-c",
            "sends to 10.244.0.7 by eth0, and not by cbr0",
        ),
        (
            "--model /nonexistent --from pod-a --to pod-c",
            "/nonexistent: No such file",
        ),
    ]);
}

#[test]
fn a_cluster_of_ones_own_is_traced_like_the_built_in_one() {
    let example = |name| format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"));
    let (model, vnet) = (example("aks.json"), example("aks-vnet.json"));
    let trace = json(&format!(
        "--model {model} --vnet {vnet} --from pod-a --to pod-d"
    ));
    assert_eq!(trace["end"]["at"][0], "pod-d");
    assert_eq!(trace["end"]["frame"]["ttl"], 64);
}
