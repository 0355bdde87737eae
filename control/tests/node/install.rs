//! docs/install.md, followed to the letter: installed, run, taken off, and nothing is left.
//!
//! In: the page's commands, in a namespace that plays the node, over folders of the machine's that
//! only this test can change. The test plays systemd and containerd, as far as the page asks for them.
//! Out: pods that came by the page, a node that lost none of its own pings, and devices, addresses, routes, rules and files as before.
//! Never: changes a file of the machine: whatever is written goes to memory, and dies with the test.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use control::api::Client;
use control::config::{CONFIG_PATH, SOCKET_PATH};
use control::devices::Netns;
use control::lab::privilege::PrivateNet;
use control::node::standin::{Manners, StandIn};
use control::plan::Plugin;
use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;

use crate::page::{self, Step};
use crate::runtime::call;
use crate::world::{Pod, Running, World, name};

/// Folders that an installation writes into.
const FOLDERS: [&str; 4] = ["etc", "opt", "usr", "var"];
const UNIT: &str = "/lib/systemd/system/tapline.service";
/// Where Azure answers, and the page's configuration asks.
const AZURE: &str = "168.63.129.16";

/// Without programs and tables a clsact comes with the first start, and goes with the stop.
const QUEUE_CHANGES: u64 = 2;

/// A machine of its own, as far as files go.
pub(crate) struct Machine {
    pub(crate) world: World,
    /// What was written instead of to the machine's folders.
    written: tempfile::TempDir,
    pub(crate) daemon: RefCell<Option<Running>>,
}

impl Machine {
    /// Its folders first: whatever starts a thread comes after that.
    pub(crate) fn new(world: impl FnOnce() -> World) -> Machine {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("mounts of our own");
        let none: Option<&str> = None;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).expect("private");
        let written = tempfile::tempdir().expect("a folder");
        memory_at(written.path());
        for folder in FOLDERS {
            let [above, work] = ["above", "work"].map(|what| {
                let path = written.path().join(what).join(folder);
                fs::create_dir_all(&path).expect("ours");
                path.display().to_string()
            });
            let over = format!("/{folder}");
            let layers = format!("lowerdir={over},upperdir={above},workdir={work}");
            let kind = Some("overlay");
            mount(
                kind,
                over.as_str(),
                kind,
                MsFlags::empty(),
                Some(layers.as_str()),
            )
            .unwrap_or_else(|error| panic!("{over} cannot be laid over: {error}"));
        }
        memory_at(Path::new("/run"));
        let machine = Machine {
            world: world(),
            written,
            daemon: RefCell::new(None),
        };
        machine.sources();
        machine
    }

    /// Where the page's reader stands: the sources, the two programs, and the cluster's documents.
    fn sources(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let here = self.here();
        fs::create_dir(&here).expect("ours");
        for (from, to) in [
            (PathBuf::from(env!("CARGO_BIN_EXE_tapline")), "tapline"),
            (
                PathBuf::from(env!("CARGO_BIN_EXE_tapline-cni")),
                "tapline-cni",
            ),
            (root.join("control"), "control"),
            (root.join("control/examples/aks.json"), "aks.json"),
            (root.join("control/examples/aks-vnet.json"), "aks-vnet.json"),
        ] {
            symlink(from, here.join(to)).expect("ours");
        }
    }

    pub(crate) fn here(&self) -> PathBuf {
        self.written.path().join("here")
    }

    /// A file that was there before anybody came.
    pub(crate) fn put(&self, path: &str, text: &str) {
        let folder = Path::new(path).parent().expect("it is in a folder");
        fs::create_dir_all(folder).expect("ours");
        fs::write(path, text).expect("ours");
    }

    /// Everything of the node that an installation could leave changed.
    fn everything(&self) -> Vec<String> {
        let mut lines = self.world.snapshot();
        let node = &self.world.node;
        // RTM_GETRULE of `struct fib_rule_hdr`; NFT_MSG_GETTABLE and NFT_MSG_GETRULE.
        lines.push(format!("{:?}", dump(node, NETLINK_ROUTE, 34, &[0; 12])));
        for kind in [1, 7] {
            lines.push(format!(
                "{:?}",
                dump(node, NETLINK_NETFILTER, 10 << 8 | kind, &[0; 4])
            ));
        }
        let above = self.written.path().join("above");
        let mut files = BTreeMap::new();
        for folder in [above.as_path(), Path::new("/run")] {
            listed(folder, &mut files);
        }
        lines.extend(
            files
                .into_iter()
                .map(|(path, what)| format!("{}: {what}", path.display())),
        );
        lines
    }

    /// Follows the page: every command below one of those headings, in its order. `passed` are those
    /// for other clusters.
    pub(crate) fn follow(&self, sections: &[&str], passed: impl Fn(&Step) -> bool) -> usize {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/install.md");
        let text = fs::read_to_string(path).expect("the page is there");
        let steps = page::steps(&text);
        for section in sections {
            assert!(
                steps.iter().any(|step| step.section == *section),
                "{section}"
            );
        }
        let chosen = steps
            .iter()
            .filter(|step| sections.contains(&step.section.as_str()));
        let mut ran = 0;
        for step in chosen.filter(|step| !passed(step)) {
            self.run("docs/install.md", step);
            ran += 1;
        }
        ran
    }

    /// Runs one command as a shell would, in the node; systemd is this test.
    pub(crate) fn run(&self, page: &str, step: &Step) {
        println!("{page}:{}: {}", step.line, step.command);
        if let ["systemctl", words @ ..] = &step.words()[..] {
            return self.systemctl(words);
        }
        let path = format!("/usr/bin:/bin:/usr/sbin:/sbin:{}", self.here().display());
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-e", "-c", &step.command])
            .current_dir(self.here())
            .env("PATH", path)
            .stdin(Stdio::null());
        let output = self.world.node.run(|| shell.output()).expect("a shell");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(step.status),
            "{page}:{}: {said}",
            step.line
        );
        page::compare(page, step, &String::from_utf8_lossy(&output.stdout));
    }

    /// What systemd does about a unit.
    fn systemctl(&self, words: &[&str]) {
        match words {
            ["daemon-reload"] => {}
            ["enable", "--now", "tapline"] => self.starts(),
            ["disable", "--now", "tapline"] => {
                let running = self.daemon.borrow_mut().take().expect("it runs");
                assert_eq!(running.stop(), Some(0));
                fs::remove_dir_all("/run/tapline").expect("the RuntimeDirectory");
            }
            ["restart", "containerd"] => containerd(),
            other => panic!("{other:?} is not played"),
        }
    }

    /// Starts the unit that lies where systemd looks.
    fn starts(&self) {
        let unit = fs::read_to_string(UNIT).expect("the unit is there");
        let key = |key: &str| {
            let mut lines = unit.lines().filter_map(|line| line.strip_prefix(key));
            lines.next().unwrap_or_else(|| panic!("{key} in the unit"))
        };
        for (key_of, parent) in [
            ("RuntimeDirectory=", "/run"),
            ("StateDirectory=", "/var/lib"),
        ] {
            fs::create_dir_all(Path::new(parent).join(key(key_of))).expect("ours");
        }
        let words: Vec<&str> = key("ExecStart=").split(' ').collect();
        assert_eq!(words.last(), Some(&CONFIG_PATH));
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        let mut running = self.world.spawn(&mut command);
        running.client = Client::new(Path::new(SOCKET_PATH)).within(Duration::from_secs(60));
        running.wait_until_ready();
        *self.daemon.borrow_mut() = Some(running);
    }

    /// What a runtime does: the first configuration by name, and the plugin that it names.
    pub(crate) fn cni(&self, command: &str, pod: &Pod) -> Option<IpAddr> {
        let mut files: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir("/etc/cni/net.d").expect("a folder").flatten() {
            files.push(entry.path());
        }
        files.sort();
        let text = fs::read_to_string(files.first().expect("a configuration")).expect("readable");
        let tree: Value = serde_json::from_str(&text).expect("JSON");
        let mut conf = tree["plugins"][0].clone();
        (conf["name"], conf["cniVersion"]) = (tree["name"].clone(), tree["cniVersion"].clone());
        // Nodes of AKS-Engine have this program beside ours; a machine that tests need not.
        if conf["ipam"]["type"] == "host-local"
            && let Some(conf) = conf.as_object_mut()
        {
            conf.remove("ipam");
        }
        let plugin = Path::new("/opt/cni/bin").join(conf["type"].as_str().expect("a type"));
        let mode = fs::metadata(&plugin)
            .expect("it is installed")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755, "{}", plugin.display());
        let variables = [
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", pod.id.clone()),
            ("CNI_NETNS", pod.netns.path().display().to_string()),
            ("CNI_IFNAME", "eth0".to_owned()),
        ];
        let called = call(&conf, &variables);
        if command != "ADD" {
            called.nothing();
            return None;
        }
        let result = called.result();
        let ip = result["ips"][0]["address"]
            .as_str()
            .or(result["ip4"]["ip"].as_str());
        let (ip, _) = ip.expect("an address").split_once('/').expect("a length");
        Some(ip.parse().expect("an address"))
    }

    /// Two pods come, reach each other and the other node, and go.
    fn pods_come_and_go(&self) {
        let pods = ["pod-a", "pod-b"].map(Pod::new);
        let [_, to_b] = pods
            .each_ref()
            .map(|pod| self.cni("ADD", pod).expect("an address"));
        for (pod, to) in [(&pods[0], to_b), (&pods[1], self.world.other.into())] {
            let report = pod.pings(to);
            assert_eq!(report.received(), 3, "{to}: {report:?}");
        }
        for pod in &pods {
            self.cni("DEL", pod);
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        *self.daemon.borrow_mut() = None;
        // Else the folder below cannot be removed.
        let _ = umount2(self.written.path(), MntFlags::MNT_DETACH);
    }
}

fn memory_at(path: &Path) {
    let kind = Some("tmpfs");
    mount(kind, path, kind, MsFlags::empty(), Some("size=2g,mode=755")).expect("memory");
}

/// Fills the template with the pod CIDR that the kubelet tells.
fn containerd() {
    let template = fs::read_to_string("/etc/containerd/kubenet_template.conf").expect("a template");
    let filled = template.replace("{{.PodCIDR}}", "10.244.1.0/24");
    fs::write("/etc/cni/net.d/10-containerd-net.conflist", filled).expect("ours");
}

/// Files and what they hold, by path; folders do not count.
fn listed(folder: &Path, files: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).expect("readable").flatten() {
        let found = entry.file_type().expect("known");
        let path = entry.path();
        if found.is_dir() {
            listed(&path, files);
        } else if found.is_file() {
            let text = fs::read(&path).expect("readable");
            let mode = fs::metadata(&path).expect("known").permissions().mode();
            files.insert(path, format!("{mode:o} {}", String::from_utf8_lossy(&text)));
        } else {
            files.insert(path, format!("{found:?}"));
        }
    }
}

/// Everything of a kind that the kernel lists, as it says it, less numbers of the conversation.
fn dump(node: &Netns, protocol: isize, kind: u16, body: &[u8]) -> Vec<Vec<u8>> {
    let socket = node.run(|| {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        Ok(socket)
    });
    let socket = socket.expect("a netlink socket");
    let mut question = (16 + body.len() as u32).to_ne_bytes().to_vec();
    question.extend(kind.to_ne_bytes());
    // NLM_F_REQUEST and NLM_F_DUMP.
    question.extend(0x301_u16.to_ne_bytes());
    question.extend([0; 8]);
    question.extend(body);
    socket.send(&question, 0).expect("sent");
    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full().expect("an answer");
        let mut rest = datagram.as_slice();
        while rest.len() >= 16 {
            let length = u32::from_ne_bytes(*rest.first_chunk().expect("long enough")) as usize;
            let kind = u16::from_ne_bytes(*rest[4..].first_chunk().expect("long enough"));
            match kind {
                // NLMSG_ERROR, which would be a question badly put, and NLMSG_DONE.
                2 => panic!("{:?}", &rest[..length]),
                3 => return found,
                _ => found.push(rest[16..length].to_vec()),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn installed_run_and_taken_off(machine: &Machine, case: &str, back: &str, plugin: Plugin) {
    let other = |step: &Step| of_another_cluster(step, plugin);
    let before = machine.everything();
    let (ran, pings) = machine.world.while_the_node_pings(|| {
        let ran = machine.follow(&["The steps", case], other);
        machine.pods_come_and_go();
        ran + machine.follow(&[back, "In every case"], other)
    });
    assert!(ran >= 15, "only {ran} commands of the page ran");
    let lost = pings.sent - pings.replies.len() as u64;
    assert!(
        lost <= machine.world.lost_by_queues(QUEUE_CHANGES, &[]),
        "{lost} of {} sent",
        pings.sent
    );
    assert_eq!(pings.errors, []);
    let after = machine.everything();
    let differ = before
        .iter()
        .zip(&after)
        .find(|(before, after)| before != after);
    assert_eq!(differ, None);
    assert_eq!(before.len(), after.len(), "{:?}", after.last());
    println!("{} of the node's own pings, {lost} lost", pings.sent);
}

/// A kubenet node as containerd leaves it, and the page's sections for one: in, and out.
pub(crate) fn kubenet() -> (Machine, &'static str, &'static str) {
    let machine = Machine::new(World::kubenet);
    let old = r#"{"cniVersion": "0.3.1", "name": "kubenet", "plugins": [{"type": "bridge", "bridge": "cbr0",
        "ipam": {"type": "host-local", "subnet": "{{.PodCIDR}}"}}]}"#;
    machine.put("/etc/containerd/kubenet_template.conf", old);
    fs::create_dir_all("/etc/cni/net.d").expect("ours");
    containerd();
    let (case, back) = ("containerd with kubenet", "From containerd with kubenet");
    (machine, case, back)
}

/// An azure node as azure-vnet leaves it, with who answers there, and the page's sections for one.
pub(crate) fn azure() -> (Machine, StandIn, &'static str, &'static str) {
    let machine = Machine::new(World::azure);
    let old = r#"{"cniVersion": "0.3.0", "name": "azure", "plugins": [{"type": "azure-vnet", "mode": "bridge"}]}"#;
    machine.put("/etc/cni/net.d/10-azure.conflist", old);
    let net = machine.world.net();
    let at = format!("{AZURE}/32").parse().expect("one");
    net.add_address(&name("lo"), at).expect("an address");
    let at = format!("{AZURE}:80").parse().expect("one");
    let wireserver = machine.world.wireserver_at(at, Manners::Good);
    let (case, back) = ("azure-vnet's conflist", "From azure-vnet's conflist");
    (machine, wireserver, case, back)
}

/// A step for a cluster of the other kind.
pub(crate) fn of_another_cluster(step: &Step, plugin: Plugin) -> bool {
    let kubenet = step.command.contains("--plugin kubenet");
    step.command.contains("tapline config --model") && kubenet != (plugin == Plugin::Kubenet)
}

pub(crate) fn the_page_installs_runs_and_takes_off_under_kubenet(_: PrivateNet) {
    let (machine, case, back) = kubenet();
    installed_run_and_taken_off(&machine, case, back, Plugin::Kubenet);
}

pub(crate) fn the_page_installs_runs_and_takes_off_under_azure(_: PrivateNet) {
    let (machine, _wireserver, case, back) = azure();
    installed_run_and_taken_off(&machine, case, back, Plugin::Azure);
}
