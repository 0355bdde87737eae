//! README.md and docs/daemon.md, replayed: a node with a bridge, taken over, looked into, and given back.
//!
//! In: the pages' commands, in a namespace that plays a kubenet node whose two pods hang on a Linux
//! bridge, at the paths that the pages name. Out: commands that all do what the pages say.
//! Never: runs what belongs on another machine: the lab and the measurements have tests of their own,
//! and what `curl` shows is looked at where there is a `curl`.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use control::api::Client;
use control::config::{CONFIG_PATH, SOCKET_PATH};
use control::lab::privilege::PrivateNet;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::adopt;
use crate::install::Machine;
use crate::page::{self, Step};
use crate::world::{Pod, Running, World, until};

/// The reader's cluster is the test's: its nodes registered in another order.
const CLUSTER: &str = "--plugin kubenet --register node-1,node-0,master-0";

fn read(name: &str) -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    page::steps(&fs::read_to_string(path).expect("the page is there"))
}

/// A reader at a terminal of the node, and the daemon, once it was started.
struct Reader {
    machine: Machine,
    daemon: Option<Running>,
    ran: usize,
}

impl Reader {
    /// Follows the commands below one heading.
    fn follow(&mut self, page: &str, section: &str) {
        let steps = read(page);
        let mut steps: Vec<Step> = steps.into_iter().filter(|s| s.section == section).collect();
        assert!(!steps.is_empty(), "{page}: {section}");
        for step in &mut steps {
            self.step(page, step);
            self.ran += 1;
        }
    }

    fn step(&mut self, page: &str, step: &mut Step) {
        match step.words()[..] {
            ["tapline", "run", ..] => self.starts(),
            ["tapline", "config", "--model", ..] => {
                let longer = step.command.replace(" > ", &format!(" {CLUSTER} > "));
                step.command = longer;
                self.machine.run(page, step);
            }
            // It needs no daemon, and refuses to come between one and its pods, which are taken over
            // once more, or there would be nothing to rescue.
            ["tapline", "rescue", ..] => {
                self.adopts();
                self.daemon.take().expect("it runs").kill();
                self.machine.run(page, step);
            }
            // A program that this node need not have, and one that leaves this test no child to end:
            // both have tests of their own, and so have filters.
            ["tcpdump", ..]
            | ["tapline", "upgrade", ..]
            | ["tapline", "capture", "--filter", ..] => {}
            ["tapline", "top" | "capture", ..] => self.looks(page, step),
            ["curl", ..] if !Path::new("/usr/bin/curl").exists() => {}
            _ => self.machine.run(page, step),
        }
    }

    fn starts(&mut self) {
        fs::create_dir_all("/run/tapline").expect("ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapline"));
        command
            .arg("run")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        let mut running = self.machine.world.spawn(&mut command);
        running.client = Client::new(Path::new(SOCKET_PATH)).within(Duration::from_secs(60));
        until("the daemon waits beside the bridge", || {
            let told = running.status().ok().and_then(|status| status.error);
            told.is_some_and(|error| error.message.contains("tapline adopt --bridge cbr0"))
        });
        self.daemon = Some(running);
    }

    fn adopts(&self) {
        let adopt = ["adopt", "--confirm-within", "0"];
        let (status, said) = self.machine.world.run(&adopt);
        assert_eq!(status, Some(0), "{said}");
    }

    /// Commands that look until somebody ends them: not by Ctrl-C, which a test in the background of a
    /// shell may not hear.
    fn looks(&self, page: &str, step: &Step) {
        println!("{page}:{}: {}", step.line, step.command);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapline"));
        command
            .args(&step.words()[1..])
            .current_dir(self.machine.here())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let looking = self.machine.world.node.run(|| command.spawn());
        let looking = looking.expect("it starts");
        std::thread::sleep(Duration::from_millis(800));
        kill(Pid::from_raw(looking.id() as i32), Signal::SIGTERM).expect("it still looks");
        let ended = looking.wait_with_output().expect("a child");
        let said = String::from_utf8_lossy(&ended.stderr);
        let well = ended.status.success() || ended.status.signal() == Some(Signal::SIGTERM as i32);
        assert!(well, "{page}:{}: {}: {said}", step.line, ended.status);
    }
}

pub(crate) fn what_the_readme_does_on_a_node_is_done(_: PrivateNet) {
    let machine = Machine::new(World::kubenet);
    let cidr = r#"{"cniVersion": "0.3.1", "name": "kubenet", "plugins": [{"type": "bridge", "bridge": "cbr0",
        "ipam": {"type": "host-local", "subnet": "10.244.1.0/24"}}]}"#;
    machine.put("/etc/cni/net.d/10-containerd-net.conflist", cidr);
    fs::create_dir_all(Path::new(CONFIG_PATH).parent().expect("a folder")).expect("ours");
    let pods = adopt::bridge(&machine.world, 2);
    for (pod, _) in &pods {
        pod.netns.pin(&pod.id).expect("where runtimes put them");
    }
    let mut reader = Reader {
        machine,
        daemon: None,
        ran: 0,
    };
    reader.follow("README.md", "Where would a frame go?");
    reader.follow("README.md", "On a node");
    let is_bridge = reader
        .machine
        .world
        .net()
        .bridge(&crate::world::name("cbr0"));
    assert!(is_bridge.expect("it answers").is_some(), "rescued");
    // The same again, to be looked into.
    reader.starts();
    let to_b = pods[1].1;
    reader.adopts();
    assert_eq!(pods[0].0.pings(to_b).received(), 3);
    reader.follow("docs/daemon.md", "The control socket");
    let pod = Pod::new("pod-a");
    pod.added(reader.daemon.as_ref().expect("it runs"));
    reader.follow("README.md", "Looking inside");
    println!("{} commands ran", reader.ran);
    assert!(reader.ran >= 15, "only {} commands ran", reader.ran);
    assert_eq!(reader.daemon.take().expect("it runs").stop(), Some(0));
}
