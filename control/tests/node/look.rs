//! Looking inside a running daemon: tables, and the frames themselves.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use control::api::views::{BoundRow, GuardRow, PortRow};
use control::devices::Netlink;
use control::lab::privilege::PrivateNet;
use control::lab::probe::ping::{PingSpec, ping};
use ipnet::IpNet;
use pcap_file::pcapng::{Block, PcapNgReader};

use crate::world::{Pod, Running, World, address, name, until};

/// The program with these words, its exit status and its standard output.
fn told(world: &World, words: &[&str]) -> (Option<i32>, String) {
    let socket = world.path("tapline.sock");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapline"));
    command
        .args(words)
        .arg("--socket")
        .arg(socket)
        .stdin(Stdio::null());
    let output = command.output().expect("it starts");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

pub(crate) fn tables_show_the_pods_and_json_is_alone(_: PrivateNet) {
    let world = World::kubenet();
    let running = world.start();
    let pods = [Pod::new("pod-a"), Pod::new("pod-b")];
    let replies = pods.each_ref().map(|pod| pod.added(&running));
    let (status, ports) = told(&world, &["show", "ports", "pod-a"]);
    assert_eq!((status, ports.lines().count()), (Some(0), 2), "{ports}");
    assert!(ports.contains(&address(&replies[0]).to_string()), "{ports}");
    let (_, bridge) = told(&world, &["show", "bridge"]);
    let lines: Vec<&str> = bridge.lines().collect();
    assert!(lines[1].starts_with("cbr0\t\t8000.0a58"), "{bridge}");
    assert_eq!(lines.len(), 4, "eth0 and two veths: {bridge}");
    for view in [
        "ports",
        "fdb",
        "routes",
        "neighbours",
        "drops",
        "workers",
        "conflicts",
        "guards",
        "flows",
        "bounds",
    ] {
        let (status, text) = told(&world, &["show", view, "--json"]);
        assert_eq!(status, Some(0), "{view}");
        let rows: serde_json::Value = serde_json::from_str(&text).expect("JSON alone");
        assert!(rows.is_array(), "{view}: {text}");
    }
    pods[0].pings(IpAddr::V4(world.other));
    for view in ["ports", "fdb", "routes", "flows"] {
        let (status, text) = told(&world, &["show", view, "pod-a", "--json"]);
        let found: Vec<serde_json::Value> = serde_json::from_str(&text).expect("rows");
        assert_eq!(
            (status, found.is_empty()),
            (Some(0), false),
            "{view}: {text}"
        );
        let (_, none) = told(&world, &["show", view, "nobody", "--json"]);
        assert_eq!(none, "[]\n", "{view}");
    }
    let (_, steering) = told(&world, &["show", "steering", "pod-a", "--json"]);
    let steering: serde_json::Value = serde_json::from_str(&steering).expect("JSON");
    assert_eq!(steering["prefixes"][0]["pod"], "default/pod-a");
    assert_eq!(steering["prefixes"][1], serde_json::Value::Null);
    for view in ["neighbours", "workers", "bounds"] {
        assert_eq!(told(&world, &["show", view, "pod-a"]).0, Some(2), "{view}");
    }
    watched(
        &world,
        &["show", "ports", "pod-a", "--json", "--watch", "1"],
    );
    let (status, top) = told(&world, &["top", "--count", "1"]);
    assert_eq!(status, Some(0));
    assert!(top.contains("default/pod-b"), "{top}");
    drop(running);
    assert_eq!(
        told(&world, &["show", "ports"]).0,
        Some(1),
        "nobody answers"
    );
}

/// A view that is shown again and again, until nobody reads it.
fn watched(world: &World, words: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapline"));
    command
        .args(words)
        .arg("--socket")
        .arg(world.path("tapline.sock"));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let rows: Vec<String> = lines.take(2).map(|line| line.expect("text")).collect();
    let tell = |row: &String| row.contains("default/pod-a");
    assert!(rows.iter().all(tell), "{rows:?}");
    until("nobody reads it, and it goes on", || {
        child.try_wait().expect("a child").is_some()
    });
}

/// The pod has taken another address than it was given.
fn moves_to(pod: &Pod, from: IpAddr, to: &str) {
    let net = Netlink::open(&pod.netns).expect("a netlink socket");
    let on_link = |address: IpAddr| IpNet::new(address, 24).expect("a length");
    net.remove_address(&name("eth0"), on_link(from))
        .expect("its own");
    let to = on_link(to.parse().expect("an address"));
    net.add_address(&name("eth0"), to).expect("any will do");
}

pub(crate) fn guards_do_as_the_configuration_says_and_are_shown(_: PrivateNet) {
    let world = World::kubenet();
    let with = |guards: &str| {
        let text = world
            .config()
            .replacen('{', &format!("{{\"guards\": {guards},"), 1);
        world.configure(&text);
    };
    with(r#"{"spoof": "observe", "broadcasts_max": 500}"#);
    let running = world.start();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let (own, to_b) = (address(&a.added(&running)), address(&b.added(&running)));
    moves_to(&a, own, "10.244.1.200");
    let guard = |pod: &str, guard: &str| -> GuardRow {
        let rows: Vec<GuardRow> = running.client.get("/v1/guards").expect("a view");
        let mut rows = rows.into_iter().filter(|row| row.name == pod);
        rows.find(|row| row.guard == guard)
            .expect("every port has it")
    };
    assert_eq!(a.pings(to_b).received(), 3, "who only observes lets pass");
    let seen = guard("default/pod-a", "addresses");
    assert_eq!((seen.mode.as_str(), seen.refused), ("observe", 0));
    assert!(seen.observed >= 3, "{seen:?}");
    assert_eq!(guard("default/pod-b", "addresses").observed, 0);
    assert_eq!(guard("default/pod-b", "broadcast").limit, Some(500));
    let reloads = |why: &str| {
        running
            .client
            .post::<serde_json::Value>("/v1/reload", &())
            .expect(why)
    };
    with(r#"{"spoof": "on"}"#);
    reloads("another mode");
    assert_eq!(a.pings(to_b).received(), 0, "it is on now");
    let seen = guard("default/pod-a", "addresses");
    assert!(seen.mode == "on" && seen.refused >= 1, "{seen:?}");
    assert_eq!(guard("default/pod-b", "broadcast").limit, Some(1024));
    with(r#"{"more": [{"pod": "default/pod-a", "addresses": ["10.244.1.200/32"]}]}"#);
    reloads("more addresses");
    assert_eq!(
        a.pings(to_b).received(),
        3,
        "the address is one of its own now"
    );
    assert_eq!(
        guard("default/pod-a", "addresses").more,
        ["10.244.1.200/32"]
    );
    let (status, table) = told(&world, &["show", "guards", "pod-a"]);
    assert_eq!((status, table.lines().count()), (Some(0), 10), "{table}");
    a_station_of_another_pod_is_nobody_elses_to_have(&running, &with);
}

fn a_station_of_another_pod_is_nobody_elses_to_have(running: &Running, with: &dyn Fn(&str)) {
    let mac = &running
        .client
        .get::<Vec<PortRow>>("/v1/ports")
        .expect("a view")[3];
    let mac = mac
        .pod_end
        .as_ref()
        .and_then(|end| end.mac.clone())
        .expect("a pod's");
    with(&format!(
        r#"{{"more": [{{"pod": "default/pod-a", "macs": ["{mac}"]}}]}}"#
    ));
    let refused = running
        .client
        .post::<serde_json::Value>("/v1/reload", &())
        .expect_err("taken");
    assert!(
        refused.to_string().contains("is the station of two ports"),
        "{refused}"
    );
    let metrics = running.client.text("/v1/metrics").expect("text");
    for line in [
        "tapline_guard_ports{guard=\"addresses\",mode=\"on\"} 2",
        "tapline_guard_ports{guard=\"addresses\",mode=\"off\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

/// A pod that speaks to a service is in the list, with its own name, and another is not.
pub(crate) fn flows_are_listed_with_their_pods(_: PrivateNet) {
    let world = World::kubenet();
    let running = world.start();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    for pod in [&a, &b] {
        pod.added(&running);
    }
    let socket = a
        .netns
        .run(|| UdpSocket::bind("0.0.0.0:4321"))
        .expect("a socket");
    socket
        .send_to(b"?", "10.0.0.10:53")
        .expect("it has a route");
    let rows = || -> Vec<serde_json::Value> {
        let (status, text) = told(&world, &["show", "flows", "pod-a", "--json"]);
        assert_eq!(status, Some(0));
        serde_json::from_str(&text).expect("JSON alone")
    };
    until("the conversation is listed", || !rows().is_empty());
    let row = &rows()[0];
    assert_eq!(
        (&row["name"], &row["protocol"]),
        (&"default/pod-a".into(), &17.into())
    );
    assert_eq!(
        (&row["source_port"], &row["answers_to"]),
        (&4321.into(), &"host".into())
    );
    assert!(
        row["age_seconds"].as_u64().is_some_and(|age| age <= 16),
        "{row}"
    );
    let (_, others) = told(&world, &["show", "flows", "pod-b", "--json"]);
    assert_eq!(others, "[]\n");
}

/// The sum of the rows is what the log says at the start, and well below what the unit allows.
pub(crate) fn the_memory_bound_is_told_at_the_start_and_shown(_: PrivateNet) {
    let world = World::kubenet();
    let log = world.path("log");
    let file = std::fs::File::create(&log).expect("the folder is ours");
    let mut command = world.command();
    command
        .stderr(file.try_clone().expect("a file"))
        .stdout(file);
    let running = world.spawn(&mut command);
    running.wait_until_ready();
    let rows: Vec<BoundRow> = running.client.get("/v1/bounds").expect("a view");
    let fixed = rows.iter().filter(|row| !row.what.starts_with("routes"));
    let mib = fixed.map(|row| row.bytes).sum::<usize>().div_ceil(1 << 20);
    assert!((8..64).contains(&mib), "{mib} MiB");
    let said = std::fs::read_to_string(&log).expect("written");
    assert!(
        said.contains(&format!("memory: at most {mib} MiB")),
        "{said}"
    );
    let metrics = running.client.text("/v1/metrics").expect("text");
    assert!(metrics.contains("tapline_memory_max_bytes "), "{metrics}");
}

/// By a program, a table or filters, as the kernel has them, with the rules that they carry.
pub(crate) fn steering_says_what_carries_it(_: PrivateNet) {
    let (world, device) = (World::kubenet(), name("eth0"));
    let config = world.config();
    let no_program = r#""features_off": ["tcx"],"#;
    for off in ["", no_program, r#""features_off": ["tcx", "nftables"],"#] {
        world.configure(&config.replace(r#""policy""#, &format!(r#"{off} "policy""#)));
        let running = world.start();
        Pod::new("pod-a").added(&running);
        let net = world.net();
        let programs = net.programs(&device).expect("listed");
        let table = net.table(&device).expect("listed");
        let held = net.filters(&device).expect("listed");
        let said = || -> serde_json::Value {
            let (_, steering) = told(&world, &["show", "steering", "--json"]);
            let view: serde_json::Value = serde_json::from_str(&steering).expect("JSON");
            view["filters"].clone()
        };
        let view = said();
        let carriers = view["carriers"].as_array().expect("a list");
        let rules: Vec<&str> = carriers
            .iter()
            .flat_map(|one| one["rules"].as_array().expect("a list"))
            .map(|rule| rule.as_str().expect("text"))
            .collect();
        let steered = "IPv4 to 10.244.1.0/24 to uplink0";
        assert_eq!(
            rules,
            [steered, "a copy of ARP replies to uplink0"],
            "{view}"
        );
        match (programs.as_slice(), table) {
            ([program], None) if off.is_empty() => {
                let what = format!("program {} (id {})", program.name, program.id);
                assert_eq!((&view["by"], held.len()), (&"tcx".into(), 0), "{view}");
                assert_eq!(carriers[0]["what"], what);
                net.remove_programs(&device).expect("somebody may do that");
            }
            // The facility is off, or the kernel takes none here.
            ([], Some(table)) if off.is_empty() || off == no_program => {
                let by = (&view["by"], &carriers[0]["what"], held.len());
                let wanted = ("nftables".into(), "table netdev tapline-eth0".into());
                assert_eq!(by, (&wanted.0, &wanted.1, 0), "{view}");
                assert!(table.at_work);
                net.remove_table(&device).expect("somebody may do that");
            }
            ([], None) => {
                assert_eq!((&view["by"], held.len()), (&"clsact".into(), 2), "{view}");
                let pref = format!("filter u32 pref {} fh ", held[0].priority);
                let what = carriers[0]["what"].as_str().expect("text");
                assert!(what.starts_with(&pref), "{view}");
                net.remove_clsact(&device).expect("somebody may do that");
            }
            other => panic!("{other:?} {view}"),
        }
        // It asks the kernel, not its own memory.
        until("it is not put back", || said()["by"] == view["by"]);
        let back = said()["put_back"].as_u64().expect("a number");
        assert!(back > 0, "{view}");
        assert_eq!(running.stop(), Some(0));
    }
}

pub(crate) fn a_capture_tells_where_each_frame_went_and_why(_: PrivateNet) {
    let world = World::kubenet();
    let running = world.start();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let (_, to_b) = (a.added(&running), b.added(&running));
    let file = world.path("frames.pcapng");
    let socket = world.path("tapline.sock");
    let start = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapline"));
        command
            .arg("capture")
            .args(words)
            .arg("--socket")
            .arg(&socket);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts")
    };
    let written = file.display().to_string();
    let mut whole = start(&["pod-a", "--seconds", "2", "--write", &written]);
    let drops = start(&["--drops", "--seconds", "2"]);
    let filtered = start(&["--seconds", "2", "--filter", "icmp and src pod pod-b"]);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(a.pings(address(&to_b)).received(), 3);
    // One hop is too few to leave the node.
    let short = PingSpec {
        count: 1,
        ttl: Some(1),
        timeout: Duration::from_millis(200),
        ..PingSpec::to(IpAddr::V4(world.other))
    };
    ping(&a.netns, &short).expect("a socket");
    let far: IpAddr = "10.244.0.9".parse().expect("one");
    ping(&a.netns, &PingSpec { to: far, ..short }).expect("a socket");
    assert_eq!(whole.wait().expect("it ends").code(), Some(0));
    let mut comments = Vec::new();
    let mut reader = PcapNgReader::new(std::fs::File::open(&file).expect("there")).expect("pcapng");
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.expect("sound") {
            comments.push(format!("{:?}", packet.options));
        }
    }
    let count = |what: &str| comments.iter().filter(|one| one.contains(what)).count();
    assert!(count("default/pod-a -> default/pod-b") >= 3, "{comments:?}");
    assert!(count("default/pod-b -> default/pod-a") >= 3, "{comments:?}");
    assert!(
        count("default/pod-a -> dropped: ttl_expired") == 1,
        "{comments:?}"
    );
    let drops = drops.wait_with_output().expect("it ends");
    let lines = String::from_utf8_lossy(&drops.stdout).into_owned();
    assert!(lines.lines().count() >= 1, "{lines}");
    assert!(
        lines.lines().all(|line| line.contains("dropped: ")),
        "{lines}"
    );
    let filtered = filtered.wait_with_output().expect("it ends");
    let lines = String::from_utf8_lossy(&filtered.stdout).into_owned();
    assert_eq!(lines.lines().count(), 3, "{lines}");
    assert!(
        lines
            .lines()
            .all(|line| line.contains("default/pod-b -> default/pod-a")),
        "{lines}"
    );
    what_is_wrong_is_refused(&world);
}

/// A name or a filter that is none.
fn what_is_wrong_is_refused(world: &World) {
    let wrong = [
        &["capture", "nobody", "--seconds", "1"][..],
        &["capture", "--filter", "pod nobody", "--seconds", "1"],
        &["capture", "--filter", "tcp prot 80", "--seconds", "1"],
    ];
    for words in wrong {
        assert_eq!(told(world, words).0, Some(2), "{words:?}");
    }
}
